"""A prepared interpreter: it imports and collects once, then forks an attempt whenever it is asked to.

The one who asks sits at the other end of a socket (descriptor 3). It first sends, as a line of JSON, how
to put down and take up the privilege to fork into other namespaces, and what an attempt must do there
before it runs anything; then one byte per attempt, with the attempt's three standard streams and the
namespaces made for it. The attempt's request comes over its stdin, as that of a fresh one does.

An attempt is given as little to do as can be: each page of memory that it writes to, and counting
references writes, is copied for it, which costs more than what is done there. So what attempts with the
same request have in common is done once, before the fork. If a request comes again, the interpreter forks
one that goes on up to the first test, where nothing but pytest's own code has run, and forks attempts there
until another request comes.

What this hides from a test is told in docs/sandboxes.md. Where it would be more than that (threads,
sockets, files, children from before the fork), the interpreter refuses.
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

from flakefarm_channel import Channel, encoded, read_nothing
from flakefarm_descriptors import Descriptors, Unfit, open_now
from flakefarm_quick_fork import ways_to_fork

CONTROL = 3
STREAMS = 3
MOST_DESCRIPTORS = 9
WORDS = 6
# What the one who asks begins a question with.
FORK, FORK_AGAIN = b"F", b"A"
# How one ends that has gone on and was not asked again.
SERVED = 77
# What is told anew of each selection.
OF_A_SELECTION = ("missing", "twins", "meant", "collected")
# madvise(2): since Linux 6.1.
MADV_COLLAPSE = 25


class Held(Channel):
    """A channel that keeps events until there is somebody to tell them."""

    def __init__(self):
        super().__init__()
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
            (step["purpose"], step["needed"], step["number"], padded([self._lay_out(word) for word in step["arguments"]]))
            for step in steps
        ]
        self._errno = ctypes.get_errno
        self._strerror = os.strerror

    def _lay_out(self, word):
        """A number, or `None` for the last descriptor."""
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
            of_descriptor = None in words
            if of_descriptor:
                words = [descriptor if word is None else word for word in words]
            result = self._call(number, *words)
            if result < 0 and needed:
                return "failed to %s: %s" % (purpose, self._strerror(self._errno()))
            if not of_descriptor:
                descriptor = result
        return None


def padded(words):
    return tuple(words) + (0,) * (WORDS - len(words))


def system_call():
    """`syscall` of the C library with its number and all six words, which keeps hold of the interpreter
    while it runs."""
    function = ctypes.PyDLL(None, use_errno=True).syscall
    function.argtypes = [ctypes.c_long] + [ctypes.c_ulong] * WORDS
    function.restype = ctypes.c_long
    return function


class ForkServer:
    """Forks attempts out of one pytest session that has collected."""

    def __init__(self, held, leave):
        """`leave` ends an attempt with the exit code that it is given."""
        self.held = held
        self.recorder = None
        self._leave = leave
        self._heard = []
        self._tells_deselected = self._ends_early = False
        self._rites = None
        self._can_advance = self._is_advanced = False
        # The request of the last attempt, and the events that all with it begin with.
        self._request = None
        self._nonce = None
        self._opening = []
        self._channel = Channel()
        # Its own namespace, for the one that goes on.
        self._own = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self._before = open_now()
        self._descriptors = None
        # Collecting may replace any of these.
        self._call = system_call()
        self._os = {
            name: getattr(os, name)
            for name in ("_exit", "close", "pipe", "read", "setsid", "strerror", "wait4", "write")
        }
        read_nothing()
        # Without what Python's own class adds.
        self._control = socket.SocketType(fileno=CONTROL)
        os.set_inheritable(CONTROL, False)
        birth = json.loads(self._line())
        self._setns = birth["setns"]
        for name in birth["unset"]:
            os.environ.pop(name, None)
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

            @pytest.hookimpl(trylast=True)
            def pytest_runtest_logstart(self):
                if server._is_advanced:
                    server.serve_advanced()

            @pytest.hookimpl(hookwrapper=True, tryfirst=True)
            def pytest_sessionfinish(self, session):
                outcome = yield
                if server._ends_early and outcome.excinfo is None:
                    server.end(int(session.exitstatus))

        return Forking()

    def serve(self, session):
        """Returns in forked attempts only, each with its own selection in the session."""
        capture = session.config.pluginmanager.getplugin("capturemanager")
        if capture is not None:
            # What was printed so far. It stays suspended, as it is while pytest is between two tests.
            capture.read_global_capture()
        try:
            refuse_company()
            self._descriptors = Descriptors(self._before)
        except Unfit as reason:
            self._refuse(str(reason))
        self._settle(session)
        self._os["fork"], self._rites, leaves_no_trace = ways_to_fork()
        # An attempt of one that has gone on is forked twice.
        self._can_advance = self._can_advance and leaves_no_trace
        gc.collect()
        gc.freeze()
        use_large_pages()
        self._say("ready")
        while True:
            if self._can_advance and self._next() == FORK_AGAIN:
                if self._advance():
                    return
                continue
            question, fds = self._asked()
            if question not in (FORK, FORK_AGAIN):
                self._try(fds)
                continue
            streams, namespaces = fds[:STREAMS], fds[STREAMS:]
            if question == FORK:
                self._adopt(session, streams)
            else:
                self._nonce = self._first_line(streams[0])
            if self._fork(streams, namespaces):
                break
        self._become_attempt(streams)
        if self._tells_deselected:
            self.recorder.tell_deselected(session)

    def _advance(self):
        """Whether this is the one that goes on to the first test; otherwise that has ended."""
        # Tried once, unless it works.
        self._can_advance = False
        if self._bear_into([self._own]) is not None:
            return False
        try:
            advanced = self._os["fork"]()
        except OSError:
            return False
        if advanced == 0:
            self.recorder.channel = self.held = Held()
            self._is_advanced = True
            return True
        _, status, _ = self._os["wait4"](advanced, 0)
        if os.WIFSIGNALED(status):
            # An attempt of it may have been lost: as if it were this one that was ended.
            self._os["_exit"](exit_code(status))
        self._can_advance = os.WEXITSTATUS(status) == SERVED
        return False

    def serve_advanced(self):
        """The same as `serve` of one that has gone on, until something else is asked for."""
        try:
            refuse_company()
            sys.stdout.flush()
            sys.stderr.flush()
        except Exception:  # attempts would share something, or a project replaced its streams
            self._os["_exit"](1)
        self._opening += [encoded(event) for event in self.held.events]
        gc.freeze()
        while self._next() == FORK_AGAIN:
            _, fds = self._asked()
            streams, namespaces = fds[:STREAMS], fds[STREAMS:]
            if self._fork(streams, namespaces):
                self._is_advanced = False
                self._nonce = self._first_line(streams[0])
                self._become_attempt(streams)
                return
        self._os["_exit"](SERVED)

    def _settle(self, session):
        """What no attempt changes."""
        self.recorder.settle(session)
        self._heard = [event for event in self.held.events if event["e"] not in OF_A_SELECTION]
        hook = session.config.hook
        self._tells_deselected = not only_of_pytest(hook.pytest_deselected)
        # The rest of pytest's session would only tidy up what is thrown away.
        self._ends_early = only_of_pytest(hook.pytest_unconfigure)
        before_a_test = (hook.pytest_runtestloop, hook.pytest_runtest_protocol, hook.pytest_runtest_logstart)
        self._can_advance = (
            self.recorder.starts_alike()
            and not self._tells_deselected
            and getattr(session.config.option, "verbose", 0) <= 0
            and all(only_of_pytest(each) for each in before_a_test)
        )

    def _adopt(self, session, streams):
        """Gives the session what the next attempt asks for."""
        nonce, _, request = self._until_end(streams[0]).partition(b"\n")
        self._nonce = nonce.decode("ascii")
        if request == self._request:
            return
        self.held.events = list(self._heard)
        self.recorder.adopt(json.loads(request.decode("utf-8")), session)
        self._request, self._opening = request, [encoded(event) for event in self.held.events]
        gc.freeze()

    def end(self, code):
        self.recorder.finished(code)
        self._leave(code)

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
                failure = self._join(namespaces[1:]) or self._steps.take() or self._renew(streams[-1])
                if failure is not None:
                    self._os["write"](tell_trouble, failure.encode())
                    self._os["_exit"](1)
                self._close([trouble, tell_trouble, self._own] + namespaces)
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
            if self._call(self._setns, *padded([namespace, 0])) < 0:
                return "failed to join a namespace: %s" % self._os["strerror"](ctypes.get_errno())
        return None

    def _until_end(self, pipe):
        pieces = []
        while True:
            piece = self._os["read"](pipe, 1 << 16)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)

    def _first_line(self, pipe):
        """Of a request that is known: its nonce."""
        line = b""
        while b"\n" not in line:
            piece = self._os["read"](pipe, 1 << 12)
            if not piece:
                self._os["_exit"](1)
            line += piece
        return line.partition(b"\n")[0].decode("ascii")

    def _close(self, fds):
        for fd in fds:
            self._os["close"](fd)

    def _renew(self, output):
        try:
            self._descriptors.renew(output)
        except OSError as error:
            return "failed to open the interpreter's files again: %s" % error
        return None

    def _become_attempt(self, streams):
        self._control.close()
        self._os["setsid"]()
        stdin, stdout, stderr = streams
        self._close([stdin, stderr])
        # Here, not where it was forked: by now the attempt has a world of its own and no privilege.
        self._rites()
        reseed()
        self._channel.open(stdout, self._nonce)
        self.recorder.channel = self._channel
        self._channel.write(self._opening)

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

    def _next(self):
        """What is asked next, which stays to be asked."""
        return self._control.recv(1, socket.MSG_PEEK)

    def _asked(self):
        """What is asked, and the descriptors that came with the question."""
        room = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
        question, ancillary, _, _ = self._control.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)
        if not question:
            self._os["_exit"](0)
        fds = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        return question, list(fds)


def exit_code(status):
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def refuse_company():
    """Raises `Unfit` if this process shares anything with others that attempts would share, too."""
    if len(os.listdir("/proc/self/task")) > 1:
        names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        raise Unfit("threads run after collection: %s" % (", ".join(names) or "not Python's own"))
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        pass
    else:
        raise Unfit("child processes run after collection")
    for _, _, access, name in mappings():
        if access.startswith("rw") and access.endswith("s"):
            raise Unfit("memory is shared after collection: %s" % (name or "without a name"))


def mappings():
    """Start, end, access and name of each mapping of this process."""
    with open("/proc/self/maps") as lines:
        for text in lines:
            fields = text.split(None, 5)
            start, end = (int(address, 16) for address in fields[0].split("-"))
            yield start, end, fields[1], fields[5].strip() if len(fields) > 5 else ""


def use_large_pages():
    """Has the kernel keep what it can of this process's own memory in large pages: a fork copies a table with
    an entry for each page. Elsewhere it takes a little longer."""
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start, end, access, name in list(mappings()):
        if access == "rw-p" and name in ("", "[heap]"):
            advise(start, end - start, MADV_COLLAPSE)


def only_of_pytest(hook):
    """Whether nobody but pytest itself and what is here implements the hook."""
    implementations = hook.get_hookimpls()
    return all(each.function.__module__.startswith(("_pytest.", "flakefarm_")) for each in implementations)


def reseed():
    """Generators that were seeded before the fork would give every attempt the same numbers."""
    generator = getattr(sys.modules.get("random"), "_inst", None)
    if generator is not None:
        generator.seed()
    # Made anew for another process, which it tells by an id that every attempt has.
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile._name_sequence = None
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.seed()
