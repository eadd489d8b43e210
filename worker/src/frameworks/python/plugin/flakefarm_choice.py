"""Which tests, and in which order: the same in every framework."""

import os

from flakefarm_channel import clean


def named(items, spelled=lambda item: item.nodeid):
    """Ids by item, place and item by id, and of ids that share the framework's own spelling all that do."""
    ids, places, used, twins = {}, {}, {}, {}
    for place, item in enumerate(items):
        if id(item) in ids:  # a project that lists an item twice
            continue
        node = name = clean(spelled(item))
        count = used.get(name, 0) + 1
        while count > 1 and "%s#%d" % (name, count) in used:
            count += 1
        used[name] = count
        if count > 1:
            name = "%s#%d" % (name, count)
            used[name] = 1
            twins.setdefault(node, [node]).append(name)
        ids[id(item)] = name
        places[name] = (place, item)
    groups = {name: group for group in twins.values() for name in group}
    return ids, places, groups


def in_order(names, order, places, listed):
    """`names` as `order` asks for them. `places` has each one's place in the collection first, `listed` its place
    in the selection."""
    kind = order["kind"]
    if kind == "shuffled":
        seed = order["seed"]
        return sorted(names, key=lambda name: shuffle_key(seed, name))
    if kind == "listed" and listed:
        return sorted(names, key=lambda name: listed.get(name, len(listed)))
    return sorted(names, key=lambda name: places[name][0], reverse=kind == "reversed")


def shuffle_key(seed, test):
    import hashlib

    return hashlib.sha256(("%d:%s" % (seed, test)).encode("utf-8", "surrogateescape")).hexdigest()


def below(root, path):
    """`path` below the project's root, with `/` between directories; nothing if it lies elsewhere."""
    for home in (root, os.path.realpath(root)):
        prefix = home.rstrip(os.sep) + os.sep
        if path.startswith(prefix):
            return path[len(prefix) :].replace(os.sep, "/")
    return None
