"""One attempt with the standard library's `unittest`, in this process."""

import os
import sys
import traceback

# Frames of modules that have this are left out of what unittest prints.
__unittest = True

# Exit codes as those of pytest: the reader of the results knows them.
PASSED, FAILED, REFUSED, NOTHING, BROKEN = 0, 1, 4, 5, 3


def run(request, root, here, channel, world, server):
    """The attempt's exit code."""
    import unittest

    # As `python -m unittest` has it: the project's root comes first on the path. What is ours comes last, or a
    # project's modules might be taken for it.
    sys.path[0] = root
    sys.path.append(here)
    from flakefarm_unittest_loading import Arguments, Loading, Refused
    from flakefarm_unittest_running import Session

    if world.workers or (world.changes_calls and not hasattr(unittest.TestCase, "_callTestMethod")):
        channel.send({"e": "unavailable", "message": "unittest cannot give it"})
        return 95
    session = Session(unittest, channel, request, root, world)
    try:
        arguments = Arguments(request, root)
    except Refused as error:
        sys.stderr.write("%s\n" % error)
        channel.send({"e": "finish", "exit": REFUSED})
        return REFUSED
    sys.argv = ["python3 -m unittest"] + list(request["arguments"])
    loading = Loading(unittest, arguments, root)
    try:
        session.begin(loading)
        sys.path.remove(here)
        code = session.run()
    except BaseException:  # what only ends unittest's own loop, or is a defect of ours
        traceback.print_exc()
        code = BROKEN
    channel.send({"e": "finish", "exit": code})
    return code
