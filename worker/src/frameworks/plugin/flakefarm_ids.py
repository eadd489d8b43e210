"""What the id of a test is made of: file, classes, name, parameters. The id itself is pytest's node id."""

import os

from flakefarm_channel import clean


def parts_of(item, root, ordinal):
    """As a listing tells it; `ordinal` counts tests of one node id, from 1."""
    chain = item.listchain()
    # The innermost collector that is a file, which has no `cls` and whose path its children share.
    files = [place for place, node in enumerate(chain[:-1]) if is_file(node)]
    within = chain[files[-1] + 1 : -1] if files else []
    name, parameters = name_of(item)
    parts = {
        "file": clean(file_of(item, root)),
        "classes": [clean(node.name) for node in within if node.name != "()"],
        "name": clean(name),
        "ordinal": ordinal,
    }
    if parameters is not None:
        parts["parameters"] = clean(parameters)
    return parts


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
    for home in (root, os.path.realpath(root)):
        prefix = home.rstrip(os.sep) + os.sep
        if path.startswith(prefix):
            return path[len(prefix) :].replace(os.sep, "/")
    return item.nodeid.split("::", 1)[0]
