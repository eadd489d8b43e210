"""One attempt with pytest, in this process."""

import os
import sys


def run(request, root, here, channel, world, server):
    """The attempt's exit code."""
    # As `python -m pytest` has it: the project's root comes first on the path, and nothing of ours.
    try:
        sys.path[0] = root
        import pytest
    except ImportError as error:
        channel.send({"e": "no_framework", "message": "%s: %s" % (type(error).__name__, error)})
        return 97

    sys.path.insert(0, here)
    from flakefarm_failures import parse_sources_once
    from flakefarm_recorder import recorder_for
    from flakefarm_quiet import arguments_for

    arguments = arguments_for(request, root, os.environ) + world.arguments()
    sys.argv = [os.path.join(os.path.dirname(pytest.__file__), "__main__.py")] + arguments
    parse_sources_once()
    recorder = recorder_for(pytest, channel, request, root, world)
    sys.path.remove(here)
    plugins = [recorder]
    if server is not None:
        server.recorder = recorder
        plugins.append(server.plugin(pytest))
    code = _run(pytest, arguments, plugins)
    recorder.finished(code)
    return code


def _run(pytest, arguments, plugins):
    try:
        return int(pytest.main(arguments, plugins=plugins))
    except BaseException:  # a plugin or conftest may raise anything, SystemExit included
        import traceback

        traceback.print_exc()
        return 3
