"""A prepared interpreter: it imports and collects once, then forks an attempt whenever it is asked to.

The one who asks sits at the other end of a socket (descriptor 3). It first sends, as a line of JSON, how
to put down and take up the privilege to fork into other namespaces, and what an attempt must do there
before it runs anything; then one byte per attempt, with the attempt's three standard streams and the
namespaces made for it. Attempts read their request from stdin, as fresh ones do, so nothing of a project
needs to know that it was forked.

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
STREAMS = 3
MOST_DESCRIPTORS = 9
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
    function = ctypes.PyDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long

    def call(number, *words):
        padded = list(words) + [0] * (WORDS - len(words))
        return function(ctypes.c_long(number), *[ctypes.c_ulong(word & (2**64 - 1)) for word in padded])

    return call


class ForkServer:
    """Forks attempts out of one pytest session that has collected."""

    def __init__(self, held):
        self.held = held
        self.recorder = None
        # Collecting may replace any of these.
        self._call = system_call()
        self._os = {
            name: getattr(os, name)
            for name in ("_exit", "close", "dup2", "fork", "fstat", "listdir", "pipe", "read", "setsid", "strerror", "wait4", "write")
        }
        output = os.fstat(2)
        self._output = (output.st_dev, output.st_ino)
        self._control = socket.socket(fileno=CONTROL)
        os.set_inheritable(CONTROL, False)
        birth = json.loads(self._line())
        self._setns = birth["setns"]
        self._unset = birth["unset"]
        self._steps = Steps(self._call, birth["steps"])
        self._take_up = Steps(self._call, birth["take_up"])
        self._put_down = Steps(self._call, birth["put_down"])
        failure = self._put_down.take()
        if failure is not None:
            self._refuse(failure)

    def plugin(self, pytest):
        server = self

        class Forking:
            @pytest.hookimpl(tryfirst=True)
            def pytest_runtestloop(self, session):
                server.serve(session)

        return Forking()

    def serve(self, session):
        """Returns in forked attempts only, each with its own selection in the session."""
        reason = unfit()
        if reason is not None:
            self._refuse(reason)
        capture = session.config.pluginmanager.getplugin("capturemanager")
        if capture is not None:
            capture.stop_global_capturing()
        gc.collect()
        gc.freeze()
        self._say("ready")
        while True:
            attempt, fds = self._asked()
            if not attempt:
                self._try(fds)
            elif self._fork(fds[:STREAMS], fds[STREAMS:]):
                break
        self._become_attempt(session, capture, fds[:STREAMS])

    def _refuse(self, reason):
        self._say("refused %s" % reason)
        self._os["_exit"](0)

    def _try(self, namespaces):
        failure = self._bear_into(namespaces)
        self._close(namespaces)
        if failure is not None:
            self._refuse(failure)
        self._say("can")

    def _fork(self, streams, namespaces):
        """Whether this is the attempt; otherwise it has ended."""
        trouble, tell_trouble = self._os["pipe"]()
        failure = self._bear_into(namespaces)
        attempt = -1
        if failure is None:
            try:
                attempt = self._os["fork"]()
            except OSError as error:  # the first process of the namespaces has gone, say
                failure = "failed to fork: %s" % error
            if attempt == 0:
                failure = self._join(namespaces[1:]) or self._steps.take()
                if failure is not None:
                    self._os["write"](tell_trouble, failure.encode())
                    self._os["_exit"](1)
                self._close([trouble, tell_trouble] + namespaces)
                return True
        self._close([tell_trouble] + streams + namespaces)
        if failure is None:
            failure = self._until_end(trouble).decode("utf-8", "replace")
            _, status, usage = self._os["wait4"](attempt, 0)
        self._close([trouble])
        if failure:
            self._say("failed %s" % failure)
        else:
            cpu_us = int((usage.ru_utime + usage.ru_stime) * 1e6)
            self._say("ended %d %d" % (exit_code(status), cpu_us))
        return False

    def _bear_into(self, namespaces):
        """Has children be born into the first of `namespaces`; returns what has failed, or None."""
        return self._take_up.take() or self._join(namespaces[:1]) or self._put_down.take()

    def _join(self, namespaces):
        for namespace in namespaces:
            if self._call(self._setns, namespace, 0) < 0:
                return "failed to join a namespace: %s" % self._os["strerror"](ctypes.get_errno())
        return None

    def _until_end(self, pipe):
        pieces = []
        while True:
            piece = self._os["read"](pipe, 1 << 16)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)

    def _close(self, fds):
        for fd in fds:
            self._os["close"](fd)

    def _become_attempt(self, session, capture, streams):
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
        text = self._until_end(stdin)
        self._os["close"](stdin)
        for name in self._unset:
            os.environ.pop(name, None)
        reseed()
        request = json.loads(text.decode("utf-8"))
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
        """Whether an attempt is to be forked, and the descriptors that came with the question."""
        room = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
        byte, ancillary, _, _ = self._control.recvmsg(1, room)
        if not byte:
            self._os["_exit"](0)
        fds = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        for fd in fds:
            os.set_inheritable(fd, False)
        return byte == b"F", list(fds)


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
