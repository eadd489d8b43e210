"""Ids of tests: pytest's node ids, with a number where several tests have the same one; and what an id is
made of: file, classes, name, parameters."""

from flakefarm_channel import clean
from flakefarm_choice import below


def by_function(places):
    """Ids of tests by the id of their function: without what stands in brackets."""
    functions = {}
    for name, (_, item) in places.items():
        callspec = getattr(item, "callspec", None)
        if callspec is not None:
            node = clean(item.nodeid)
            brackets = clean("[%s]" % callspec.id)
            if node.endswith(brackets):
                functions.setdefault(node[: -len(brackets)], []).append(name)
    return functions


def parts_of(item, root, test):
    """As a listing tells it; `test` is the item's id."""
    chain = item.listchain()
    # The innermost collector that is a file, which has no `cls` and whose path its children share.
    files = [place for place, node in enumerate(chain[:-1]) if is_file(node)]
    within = chain[files[-1] + 1 : -1] if files else []
    name, parameters = name_of(item)
    parts = {
        "file": clean(file_of(item, root)),
        "classes": [clean(node.name) for node in within if node.name != "()"],
        "name": clean(name),
        "ordinal": ordinal_of(item, test),
    }
    if parameters is not None:
        parts["parameters"] = clean(parameters)
    return parts


def ordinal_of(item, test):
    rest = test[len(clean(item.nodeid)) :]
    return int(rest[1:]) if rest.startswith("#") and rest[1:].isdigit() else 1


def is_file(node):
    return any(kind.__name__ == "File" and kind.__module__ == "_pytest.nodes" for kind in type(node).__mro__)


def name_of(item):
    """Without and with what stands in brackets."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return item.name, None
    brackets = "[%s]" % callspec.id
    if item.name.endswith(brackets):
        return item.name[: -len(brackets)], callspec.id
    return getattr(item, "originalname", None) or item.name, callspec.id


def file_of(item, root):
    """Below the project's root, whatever pytest's own root directory is."""
    path = str(getattr(item, "path", None) or getattr(item, "fspath", None) or "")
    found = below(root, path)
    return item.nodeid.split("::", 1)[0] if found is None else found
