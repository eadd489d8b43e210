"""The state around a test, read before and after it: what of it a test changed and left behind.

Nothing here calls code of the project: values are described by their types and plain contents, so
that looking does not change what is looked at. Whatever cannot be read is left out.
"""

import gc
import locale
import logging
import os
import random
import signal
import socket
import sys
import threading
import warnings

from flakefarm_channel import clean

CHANGE_LIMIT = 80
KIND_LIMIT = 20
TEXT_LIMIT = 160
DEPTH = 4
ITEMS = 200
FILES = 5000
NEVER = ("__pycache__", ".git", ".pytest_cache", ".hypothesis")
PLAIN = (int, float, complex, bool, type(None))
# Replaced functions of these modules are patches that were left behind.
WATCHED_MODULES = (
    "builtins", "os", "os.path", "time", "datetime", "random", "socket", "subprocess", "json", "locale",
    "logging", "threading", "tempfile", "shutil", "io", "pathlib", "uuid", "urllib.request", "requests",
    "asyncio", "signal", "platform", "getpass", "secrets", "string", "math",
)
# In the order in which they are told: what most often makes another test fail comes first.
KINDS = (
    "unloaded module", "module global", "class attribute", "environment variable", "working directory", "patched function", "mock",
    "file", "locale", "time zone", "warnings filter", "logging", "signal handler", "thread", "open handle", "import path",
    "socket default", "umask", "garbage collector", "event loop policy", "recursion limit", "imported module",
    "random state",
)


# What a test does that others can race with or wait for, by the interpreter's audit events.
ACTIVITIES = {
    "_thread.start_new_thread": "threads started",
    "time.sleep": "sleeps",
    "subprocess.Popen": "processes started",
    "os.fork": "forks",
    "socket.connect": "connections",
    "socket.getaddrinfo": "names looked up",
}


class Watcher:
    """Compares the state around tests below `root`."""

    def __init__(self, root):
        self._root = os.path.realpath(root)
        self._before = None
        self._heard = None
        sys.addaudithook(self._hear)

    def _hear(self, event, _):
        if self._heard is not None and event in ACTIVITIES:
            self._heard[event] = self._heard.get(event, 0) + 1

    def before(self):
        self._before = self._state()
        self._heard = {}

    def after(self):
        """What is different since `before`, and what was done, as plain data."""
        before, self._before = self._before, None
        heard, self._heard = self._heard or {}, None
        if before is None:
            return []
        now = self._state()
        old_modules, new_modules = set(before["imported module"]), set(now["imported module"])
        # A module that came or went is one change, not one for each of its names.
        told_whole = tuple(name + "." for name in old_modules ^ new_modules)
        now["unloaded module"] = dict((name, "unloaded") for name in old_modules - new_modules)
        changes = []
        for kind in KINDS:
            old, new = before.get(kind, {}), now.get(kind, {})
            in_module = kind in ("module global", "class attribute")
            # Much of one kind must not hide the others.
            end = len(changes) + KIND_LIMIT
            # What lies outside the project comes last: others may write there, too.
            for name in sorted(set(old) | set(new), key=lambda name: (self._is_outside(name), name)):
                if in_module and name.startswith(told_whole):
                    continue
                if old.get(name) != new.get(name) and len(changes) < end:
                    was, now_is = _around_the_difference(clean(old.get(name, "")), clean(new.get(name, "")))
                    changes.append({"kind": kind, "name": clean(name)[:TEXT_LIMIT], "before": was, "after": now_is})
        done = [
            {"kind": "activity", "name": ACTIVITIES[event], "before": "", "after": str(count)}
            for event, count in sorted(heard.items())
        ]
        return changes[:CHANGE_LIMIT] + done

    def _state(self):
        state = {}
        for kind, read in (
            ("environment variable", _environment),
            ("working directory", lambda: {"cwd": os.getcwd()}),
            ("patched function", _functions),
            ("mock", self._mocks),
            ("file", self._files),
            ("locale", _locale),
            ("time zone", _time_zone),
            ("warnings filter", _filters),
            ("logging", _logging),
            ("signal handler", _signals),
            ("thread", _threads),
            ("open handle", _handles),
            ("import path", lambda: {"sys.path": ":".join(str(entry) for entry in sys.path)}),
            ("socket default", lambda: {"timeout": str(socket.getdefaulttimeout())}),
            ("umask", _umask),
            ("garbage collector", lambda: {"enabled": str(gc.isenabled()), "threshold": str(gc.get_threshold())}),
            ("event loop policy", _event_loop_policy),
            ("recursion limit", lambda: {"limit": str(sys.getrecursionlimit())}),
            ("imported module", self._imported),
            ("random state", _random_state),
        ):
            try:
                state[kind] = read()
            except Exception:  # a test may have replaced any of these
                state[kind] = {}
        state["module global"], state["class attribute"] = self._globals()
        return state

    def _modules(self):
        """The project's own modules."""
        for name, module in list(sys.modules.items()):
            path = getattr(module, "__file__", None)
            if not isinstance(path, str) or "site-packages" in path or name.startswith("flakefarm_"):
                continue
            if os.path.realpath(path).startswith(self._root + os.sep):
                yield name, module

    def _globals(self):
        values, attributes = {}, {}
        for module_name, module in self._modules():
            try:
                names = list(vars(module).items())
            except Exception:
                continue
            for name, value in names:
                if name.startswith(("__", "@py_")):
                    continue
                whole = "%s.%s" % (module_name, name)
                values[whole] = _describe(value)
                if isinstance(value, type) and value.__module__ == module_name:
                    for own, content in list(vars(value).items()):
                        if not own.startswith("__") and own not in ("_abc_impl", "pytestmark"):
                            attributes["%s.%s" % (whole, own)] = _describe(content)
        return values, attributes

    def _imported(self):
        return dict((name, "imported") for name, _ in self._modules())

    def _mocks(self):
        mock = sys.modules.get("unittest.mock")
        if mock is None:
            return {}
        kinds = (mock.NonCallableMock,)
        found = {}
        for name, module in list(sys.modules.items()):
            if name.startswith(("_pytest", "flakefarm_", "unittest")) or type(module).__name__ != "module":
                continue
            for own, value in list(vars(module).items()):
                if isinstance(type(value), type) and issubclass(type(value), kinds):
                    found["%s.%s" % (name, own)] = type(value).__name__
        return found

    def _is_outside(self, name):
        """Whether `name` is a path that does not lie in the project."""
        return name.startswith("/") and not name.startswith(self._root + os.sep)

    def _files(self):
        found = {}
        for top in (self._root, "/tmp"):
            for directory, below, files in os.walk(top):
                below[:] = [name for name in below if name not in NEVER]
                for name in files:
                    path = os.path.join(directory, name)
                    try:
                        status = os.lstat(path)
                    except OSError:
                        continue
                    if name.endswith((".pyc", ".pyo")):
                        continue
                    found[path] = "%d bytes, changed %d" % (status.st_size, status.st_mtime_ns)
                    if len(found) >= FILES:
                        return found
        return found


def _around_the_difference(one, other):
    """Both texts, short, from shortly before they differ."""
    same = len(os.path.commonprefix([one, other]))
    start = max(0, same - 40) if max(len(one), len(other)) > 80 else 0
    head = "…" if start else ""
    return tuple(head + text[start:start + TEXT_LIMIT] if text else "" for text in (one, other))


def _describe(value, depth=DEPTH):
    """`value` in words that are equal for equal plain content."""
    kind = type(value)
    if kind in PLAIN:
        return repr(value)
    if kind in (str, bytes, bytearray):
        text = repr(value)
        return text if len(text) <= TEXT_LIMIT else "%s… (%d, %x)" % (text[:80], len(value), hash(bytes(value) if kind is bytearray else value) & 0xFFFF)
    if depth == 0:
        return "%s at %x" % (kind.__name__, id(value))
    if kind is dict:
        parts = ["%s: %s" % (_describe(k, depth - 1), _describe(v, depth - 1)) for k, v in list(value.items())[:ITEMS]]
        return "{%s}%s" % (", ".join(parts), _rest(value))
    if kind in (list, tuple):
        ends = "[]" if kind is list else "()"
        return ends[0] + ", ".join(_describe(item, depth - 1) for item in list(value)[:ITEMS]) + ends[1] + _rest(value)
    if kind in (set, frozenset):
        return "{%s}%s" % (", ".join(sorted(_describe(item, depth - 1) for item in list(value)[:ITEMS])), _rest(value))
    if kind.__module__ in ("builtins", "types", "functools", "re", "typing") or isinstance(value, type):
        name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
        return "%s %s at %x" % (kind.__name__, name if isinstance(name, str) else "", id(value))
    fields = _fields(value)
    if fields is None:
        return "%s at %x" % (kind.__name__, id(value))
    parts = ["%s=%s" % (name, _describe(content, depth - 1)) for name, content in fields]
    return "%s(%s) at %x" % (kind.__name__, ", ".join(parts), id(value))


def _fields(value):
    try:
        fields = object.__getattribute__(value, "__dict__")
        return sorted(list(fields.items())[:ITEMS]) if type(fields) is dict else None
    except Exception:
        return None


def _rest(value):
    return " and %d more" % (len(value) - ITEMS) if len(value) > ITEMS else ""


def _environment():
    return dict((name, value) for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST")


def _functions():
    found = {}
    for name in WATCHED_MODULES:
        module = sys.modules.get(name)
        if module is None:
            continue
        for own, value in list(vars(module).items()):
            if not own.startswith("_") and (callable(value) or isinstance(value, type)):
                made_by = getattr(value, "__module__", None)
                found["%s.%s" % (name, own)] = "%s of %s at %x" % (type(value).__name__, made_by, id(value))
    return found


def _locale():
    return {"LC_ALL": str(locale.setlocale(locale.LC_ALL))}


def _time_zone():
    import time

    return {"tzname": "%s %s" % ("/".join(time.tzname), time.timezone)}


def _filters():
    entries = ["%s %s %s" % (entry[0], getattr(entry[2], "__name__", entry[2]), getattr(entry[1], "pattern", entry[1])) for entry in warnings.filters]
    return {"warnings.filters": "; ".join(entries)}


def _logging():
    found = {"root": _logger(logging.getLogger()), "disabled": str(logging.root.manager.disable)}
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and (logger.handlers or logger.level or logger.disabled or not logger.propagate):
            found[name] = _logger(logger)
    return found


def _logger(logger):
    handlers = [type(handler).__name__ for handler in logger.handlers if not type(handler).__module__.startswith("_pytest")]
    return "level %s, handlers %s%s%s" % (
        logging.getLevelName(logger.level),
        handlers,
        ", disabled" if logger.disabled else "",
        "" if logger.propagate else ", does not propagate",
    )


def _signals():
    found = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGHUP):
        found[number.name] = _describe(signal.getsignal(number), 1)
    return found


def _threads():
    return dict(("%s #%s" % (thread.name, thread.ident), "daemon" if thread.daemon else "running") for thread in threading.enumerate())


def _handles():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink("/proc/self/fd/" + name)
        except OSError:
            continue
        if not target.startswith("/proc/"):
            found[name] = target
    return found


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return {"umask": "%03o" % mask}


def _event_loop_policy():
    asyncio = sys.modules.get("asyncio.events")
    policy = getattr(asyncio, "_event_loop_policy", None)
    return {"policy": "none" if policy is None else type(policy).__name__}


def _random_state():
    return {"random": "%x" % (hash(random.getstate()) & 0xFFFFFFFF)}
