"""The results channel: JSON lines that a test cannot write to, corrupt or slow down.

Everything used after the first test is bound to the object when it is made: tests freeze clocks,
patch `os.write` and `json`, close descriptors and fork. (freezegun replaces module globals, so
attributes of an object are the safe place.)
"""

import errno
import fcntl
import json
import os
import select
import sys


# Values in one line: readers cut lines beyond a mebibyte, and ids may be long.
PART = 500


def line(event, encode=json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode):
    """One event as it is written."""
    return (encode(event) + "\n").encode("ascii")


class Channel:
    """Writes result lines; only in the process that made it."""

    def __init__(self):
        self._fds = []
        self._identity = self._pid = None
        self._getpid = os.getpid
        self._write = os.write
        self._fstat = os.fstat
        self._select = select.select
        self._exit = os._exit
        self._line = line
        self._again = (errno.EAGAIN, errno.EWOULDBLOCK)

    def open(self, fd):
        """Writes to `fd` from now on."""
        self._fds = [fd]
        spare = _duplicate_above(fd, 200)
        if spare is not None:
            # The higher one first: sloppy code closes low descriptors.
            self._fds.insert(0, spare)
        status = self._fstat(fd)
        self._identity = (status.st_dev, status.st_ino)
        self._pid = self._getpid()

    @classmethod
    def take_over_stdout(cls):
        """Keeps what stdout was for results, and points stdout at stderr and stdin at nothing."""
        sys.stdout.flush()
        fd = os.dup(1)
        os.dup2(2, 1)
        read_nothing()
        channel = cls()
        channel.open(fd)
        return channel

    def send(self, event):
        """Writes one event. In a forked child it does nothing."""
        self.write(self._line(event))

    def write(self, data):
        """Writes whole lines."""
        if self._getpid() != self._pid:
            return
        for fd in self._fds:
            if self._is_ours(fd):
                self._write_all(fd, data)
                return
        # Without the channel whatever follows cannot be observed: end here, while the test that
        # closed it is known to be the one running.
        try:
            self._write(2, b"flakefarm: the test closed the results channel\n")
        finally:
            self._exit(98)

    def send_list(self, event, name, values):
        """The same for an event with a list of any length: in parts, all but the last marked."""
        for start in range(0, max(len(values), 1), PART):
            end = start + PART
            self.send(dict(event, **{name: values[start:end], "more": end < len(values)}))

    def _is_ours(self, fd):
        """Whether the descriptor still is the channel: a test may have closed and reused it."""
        try:
            status = self._fstat(fd)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def _write_all(self, fd, data):
        view = memoryview(data)
        while view:
            try:
                written = self._write(fd, view)
            except OSError as error:
                if error.errno not in self._again:
                    self._exit(98)
                self._select([], [fd], [], 1.0)
                continue
            view = view[written:]


def read_nothing():
    """Points stdin at nothing."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _duplicate_above(fd, lowest):
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
    except OSError:  # few descriptors allowed
        return None


def clean(text):
    """`text` without lone surrogates, which JSON readers refuse."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
