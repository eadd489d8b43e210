"""Entry point of one attempt: read a request from stdin, run pytest in this process, write results.
With `--fork-server` it collects and then forks attempts (see flakefarm_forks).

The results channel is whatever stdout was when this program started. From then on stdout is
stderr, so nothing but result lines ever reaches the channel. This file must stay cheap to import:
`multiprocessing` imports it again in every spawned child.
"""

import os
import sys


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if entry != here]
    sys.path.insert(0, here)
    from flakefarm_channel import Channel

    # The nonce on a line of its own, then the request.
    nonce, _, request_text = _read_everything(0).partition(b"\n")
    nonce = nonce.decode("ascii")
    server = None
    if sys.argv[1:] == ["--fork-server"]:
        from flakefarm_forks import ForkServer, Held

        channel = Held()
        server = ForkServer(channel, leave)
    else:
        channel = Channel.take_over_stdout(nonce)
    root = os.getcwd()

    import json

    request = json.loads(request_text.decode("utf-8"))
    if request.get("v") != 2:
        sys.stderr.write("flakefarm: this plugin does not speak version %r\n" % (request.get("v"),))
        return 96

    from flakefarm_world import Unavailable, world_for

    try:
        world = world_for(request)
        if world.workers:
            world.hand_on(request)
    except Unavailable as error:
        channel.send({"e": "unavailable", "message": str(error)})
        return 95

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


def _read_everything(fd):
    chunks = []
    while True:
        chunk = os.read(fd, 1 << 16)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)


def leave(status, exit_now=os._exit):
    """Ends the process. A test's leftover threads and exit handlers must not keep a finished attempt
    waiting, and a test may have replaced any function: what is used is bound before."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # closed or replaced by a test
            pass
    exit_now(status)


if __name__ == "__main__":
    leave(main())
