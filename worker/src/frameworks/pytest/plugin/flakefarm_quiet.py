"""Turns off what would spoil an experiment: other people's reordering, rerunning, parallelism,
early stopping and measuring. Options are changed after they are parsed, never by adding or
blocking command-line options, so that a project's own `addopts` keep parsing.
"""

import os

# Option (as parsed) and the value that makes it harmless. Absent options are left absent.
HARMLESS = {
    "maxfail": 0,
    "continue_on_collection_errors": True,
    "lf": False,
    "failedfirst": False,
    "newfirst": False,
    "cacheclear": False,
    "stepwise": False,
    "stepwise_skip": False,
    "stepwise_reset": False,
    "usepdb": False,
    "trace": False,
    "setuponly": False,
    "setupplan": False,
    # pytest-xdist
    "numprocesses": 0,
    "maxprocesses": None,
    "dist": "no",
    "tx": [],
    "looponfail": False,
    "distload": False,
    # pytest-rerunfailures, flaky, pytest-retry
    "reruns": 0,
    "force_flaky": False,
    "retries": 0,
    # pytest-randomly, pytest-random-order, pytest-reverse
    "randomly_reorganize": False,
    "random_order_enabled": False,
    "random_order_bucket": "none",
    "reverse": False,
    # pytest-cov
    "cov_source": None,
    "no_cov": True,
    # the terminal
    "no_summary": True,
    "no_header": True,
    "reportchars": "",
    "durations": None,
}

# Plugins whose options alone do not silence them (markers ask for reruns, caches reorder).
UNWANTED_PLUGINS = (
    "rerunfailures",
    "flaky",
    "pytest_retry",
    "pytest-retry",
    "lfplugin",
    "nfplugin",
    "stepwiseplugin",
    # Writes to the cache even where it is not asked for.
    "stepwise",
    "random_order",
    "pytest_reverse",
)

CONFIGURATION_FILES = ("pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "pyproject.toml", "tox.ini", "setup.cfg")


def arguments_for(request, root, environ):
    """The arguments for pytest."""
    # No figures of progress at the end of lines that nobody watches.
    arguments = ["-o", "console_output_style=classic"] + list(request["paths"]) + list(request["arguments"])
    if not _mentions_randomly(arguments, root, environ):
        arguments += ["-p", "no:randomly"]
    return arguments


def _mentions_randomly(arguments, root, environ):
    """Whether the project asks for pytest-randomly by name: then blocking it could be an error."""
    texts = list(arguments) + [environ.get("PYTEST_ADDOPTS", ""), environ.get("PYTEST_PLUGINS", "")]
    if any("randomly" in text for text in texts):
        return True
    for name in CONFIGURATION_FILES:
        try:
            with open(os.path.join(root, name), "rb") as file:
                if _mentioned_as_option(name, file.read()):
                    return True
        except OSError:
            continue
    return False


def _mentioned_as_option(name, content):
    if name != "pyproject.toml" and name != "setup.cfg":
        return b"randomly" in content
    # These also list dependencies, which is no request: look at pytest's own sections.
    inside = False
    for line in content.splitlines():
        stripped = line.strip()
        if stripped.startswith(b"["):
            inside = b"pytest" in stripped
        elif inside and b"randomly" in stripped:
            return True
    return False


def silence_early(namespace):
    """Before plugins look at the first, partial parse."""
    for name in ("cov_source", "numprocesses", "tx"):
        if hasattr(namespace, name):
            setattr(namespace, name, HARMLESS[name])


def silence(option, listing):
    """After the options are parsed, before any plugin is configured."""
    for name, value in HARMLESS.items():
        if hasattr(option, name):
            setattr(option, name, list(value) if isinstance(value, list) else value)
    option.collectonly = listing
    if listing:
        option.verbose = -2
    elif getattr(option, "verbose", 0) <= 0:
        option.verbose = -1
    if getattr(option, "tbstyle", "auto") in ("no", "line"):
        option.tbstyle = "auto"


def unregister(pluginmanager):
    """After plugins were configured (and have declared their markers)."""
    for name in UNWANTED_PLUGINS:
        plugin = pluginmanager.get_plugin(name)
        if plugin is not None:
            pluginmanager.unregister(plugin, name)
