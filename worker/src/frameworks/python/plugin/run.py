"""Entry point of one attempt: read a request from stdin, run the framework in this process, write results.
With `--fork-server` it collects and then forks attempts (see flakefarm_forks). What is a framework's own is
in the module of its name: `flakefarm_pytest` for pytest.

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

    framework = __import__("flakefarm_" + request["framework"])
    return framework.run(request, root, here, channel, world, server)


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
