"""A prepared interpreter: it imports and collects once, then forks an attempt whenever it is asked to.

The one who asks sits at the other end of a socket (descriptor 3). It first sends, as a line of JSON,
which system call clones into new namespaces and what a clone must do before it runs anything; then one
byte per attempt, with the attempt's three standard streams. Attempts read their request from stdin, as
fresh ones do, so nothing of a project needs to know that it was forked.

What this hides from a test is told in docs/sandboxes.md. Where it would be more than that (threads,
sockets, children from before the fork), the interpreter refuses.
"""

import array
import base64
import ctypes
import gc
import json
import os
import socket
import sys
import threading

from flakefarm_channel import Channel

CONTROL = 3
WORDS = 6


class Held(Channel):
    """A channel that keeps events until there is somebody to tell them."""

    def __init__(self):  # there is no descriptor yet
        self.events = []

    def send(self, event):
        self.events.append(event)


class SockFilterProgram(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


class Steps:
    """System calls with their arguments laid out in memory."""

    def __init__(self, call, steps):
        self._call = call
        self._kept = []
        self._steps = [
            (step["purpose"], step["needed"], step["number"], [self._lay_out(word) for word in step["arguments"]])
            for step in steps
        ]
        self._errno = ctypes.get_errno
        self._strerror = os.strerror

    def _lay_out(self, word):
        """A number, or a function of the last descriptor."""
        if word == "descriptor":
            return None
        if "number" in word:
            return word["number"]
        if "bytes" in word:
            buffer = ctypes.create_string_buffer(base64.b64decode(word["bytes"]))
            self._kept.append(buffer)
            return ctypes.addressof(buffer)
        packed = base64.b64decode(word["filter"])
        program = SockFilterProgram(len(packed) // 8, packed)
        self._kept += [packed, program]
        return ctypes.addressof(program)

    def take(self):
        """Takes every step; returns what has failed, or None."""
        descriptor = 0
        for purpose, needed, number, words in self._steps:
            result = self._call(number, *[descriptor if word is None else word for word in words])
            if result < 0 and needed:
                return "failed to %s: %s" % (purpose, self._strerror(self._errno()))
            if None not in words:
                descriptor = result
        return None


def system_call():
    """`syscall` of the C library, which keeps hold of the interpreter while it runs."""
    library = ctypes.PyDLL(None, use_errno=True)
    function = library.syscall
    function.restype = ctypes.c_long

    def call(number, *words):
        padded = list(words) + [0] * (WORDS - len(words))
        return function(ctypes.c_long(number), *[ctypes.c_ulong(word & (2**64 - 1)) for word in padded])

    return library, call


class ForkServer:
    """Forks attempts out of one pytest session that has collected."""

    def __init__(self, held):
        self.held = held
        self.recorder = None
        # Collecting may replace any of these.
        self._library, self._call = system_call()
        self._os = {
            name: getattr(os, name)
            for name in ("_exit", "close", "dup2", "fork", "fstat", "listdir", "pipe", "read", "setsid", "wait", "wait4", "write")
        }
        output = os.fstat(2)
        self._output = (output.st_dev, output.st_ino)
        self._control = socket.socket(fileno=CONTROL)
        os.set_inheritable(CONTROL, False)

    def plugin(self, pytest):
        server = self

        class Forking:
            @pytest.hookimpl(tryfirst=True)
            def pytest_runtestloop(self, session):
                server.serve(session)

        return Forking()

    def serve(self, session):
        """Returns in forked attempts only, each with its own selection in the session."""
        birth = json.loads(self._line())
        reason = unfit()
        if reason is not None:
            self._say("refused %s" % reason)
            self._os["_exit"](0)
        capture = session.config.pluginmanager.getplugin("capturemanager")
        if capture is not None:
            capture.stop_global_capturing()
        steps = Steps(self._call, birth["steps"])
        first_steps = Steps(self._call, birth["first_steps"])
        gc.collect()
        gc.freeze()
        self._say("ready")
        while True:
            streams = self._asked()
            if streams is None:
                self._os["_exit"](0)
            if self._fork(birth, steps, first_steps, streams):
                break
        self._become_attempt(session, capture, birth, streams)

    def _fork(self, birth, steps, first_steps, streams):
        """Whether this is the attempt; otherwise it has ended."""
        trouble, tell_trouble = self._os["pipe"]()
        self._library.PyOS_BeforeFork()
        first = self._call(birth["clone"], birth["flags"])
        if first == 0:
            self._library.PyOS_AfterFork_Child()
            failure = steps.take()
            if failure is not None:
                self._os["write"](tell_trouble, failure.encode())
                self._os["_exit"](1)
            self._os["close"](trouble)
            self._os["close"](tell_trouble)
            return self._live(first_steps)
        self._library.PyOS_AfterFork_Parent()
        for fd in [tell_trouble] + streams:
            self._os["close"](fd)
        failure = b""
        if first < 0:
            failure = ("failed to make namespaces: %s" % os.strerror(ctypes.get_errno())).encode()
        else:
            while True:
                piece = self._os["read"](trouble, 4096)
                if not piece:
                    break
                failure += piece
        self._os["close"](trouble)
        if first > 0:
            _, status, usage = self._os["wait4"](first, 0)
        if failure:
            self._say("failed %s" % failure.decode("utf-8", "replace"))
        else:
            cpu_us = int((usage.ru_utime + usage.ru_stime) * 1e6)
            self._say("ended %d %d" % (exit_code(status), cpu_us))
        return False

    def _live(self, first_steps):
        """The life of the first process of the new namespaces: it ends with the attempt, and they with it."""
        attempt = self._os["fork"]()
        if attempt == 0:
            return True
        first_steps.take()
        while True:
            process, status = self._os["wait"]()
            if process == attempt:
                self._os["_exit"](exit_code(status))

    def _become_attempt(self, session, capture, birth, streams):
        self._control.close()
        self._os["setsid"]()
        stdin, stdout, stderr = streams
        # Wherever the interpreter's own output went, faulthandler's copy of it too, the attempt's goes now.
        for name in self._os["listdir"]("/proc/self/fd"):
            try:
                found = self._os["fstat"](int(name))
            except OSError:  # the directory's own
                continue
            if (found.st_dev, found.st_ino) == self._output:
                self._os["dup2"](stderr, int(name), int(name) < 3)
        self._os["close"](stderr)
        pieces = []
        while True:
            piece = self._os["read"](stdin, 1 << 16)
            if not piece:
                break
            pieces.append(piece)
        self._os["close"](stdin)
        for name in birth["unset"]:
            os.environ.pop(name, None)
        reseed()
        request = json.loads(b"".join(pieces).decode("utf-8"))
        self.recorder.adopt(Channel(stdout), request, self.held.events, session)
        if capture is not None:
            capture.start_global_capturing()
            capture.suspend_global_capture(in_=False)

    def _line(self):
        line = b""
        while not line.endswith(b"\n"):
            piece = self._control.recv(1 << 16)
            if not piece:
                self._os["_exit"](0)
            line += piece
        return line.decode("utf-8")

    def _say(self, text):
        try:
            self._control.sendall(text.replace("\n", " ").encode("utf-8", "replace") + b"\n")
        except OSError:  # nobody listens any more
            self._os["_exit"](0)

    def _asked(self):
        """The three streams of the next attempt; None when there will be no more."""
        room = socket.CMSG_SPACE(3 * array.array("i").itemsize)
        byte, ancillary, _, _ = self._control.recvmsg(1, room)
        if not byte:
            return None
        fds = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        for fd in fds:
            os.set_inheritable(fd, False)
        return list(fds)


def exit_code(status):
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def unfit():
    """Why attempts forked from this interpreter would not be what fresh ones are; None if they would."""
    if len(os.listdir("/proc/self/task")) > 1:
        names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        return "threads run after collection: %s" % (", ".join(names) or "not Python's own")
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink("/proc/self/fd/" + name)
        except OSError:  # the directory's own
            continue
        if target.startswith("socket:") and int(name) != CONTROL:
            return "a socket is open after collection (descriptor %s)" % name
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return "child processes run after collection"


def reseed():
    """Generators that were seeded before the fork would give every attempt the same numbers."""
    if "random" in sys.modules:
        sys.modules["random"].seed()
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.seed()
