"""The results channel: lines that a test cannot corrupt or slow down, and cannot write in passing.

Each line carries the attempt's nonce, which came with the request, and a number; the reader takes no
other. Code in the same interpreter that goes looking for the nonce finds it: docs/sandboxes.md tells what
is left to it.

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


# Readers cut lines beyond a mebibyte: what a list may hold in one line, and what any line may.
PART = 500
PART_BYTES = 256 * 1024
LINE_BYTES = 1000 * 1000
# What of a text is kept in a line that would be longer.
SHORT = 8 * 1024
LONG_FIELDS = ("output", "captured", "changes")

encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def encoded(event, encode=encode):
    """One event as it is written, short of nonce and number."""
    text = encode(event)
    if len(text) <= LINE_BYTES:
        return text
    event = dict(event)
    for name in LONG_FIELDS:
        if isinstance(event.get(name), str):
            event[name] = event[name][:SHORT]
        elif name in event:
            event[name] = []
    return encode(event)


def sealing(nonce):
    """What makes lines of encoded events."""
    number = -1

    def seal(text):
        nonlocal number
        number += 1
        # The newline ahead ends whatever somebody else left unfinished.
        return ("\n%s %d %s\n" % (nonce, number, text)).encode("ascii")

    return seal


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
        self._encoded = encoded
        self._seal = None
        self._again = (errno.EAGAIN, errno.EWOULDBLOCK)

    def open(self, fd, nonce):
        """Writes to `fd` from now on, as the attempt of this nonce."""
        self._seal = sealing(nonce)
        self._fds = [fd]
        spare = _duplicate_above(fd, 200)
        if spare is not None:
            # The higher one first: sloppy code closes low descriptors.
            self._fds.insert(0, spare)
        status = self._fstat(fd)
        self._identity = (status.st_dev, status.st_ino)
        self._pid = self._getpid()

    @classmethod
    def take_over_stdout(cls, nonce):
        """Keeps what stdout was for results, and points stdout at stderr and stdin at nothing."""
        sys.stdout.flush()
        fd = os.dup(1)
        os.dup2(2, 1)
        read_nothing()
        channel = cls()
        channel.open(fd, nonce)
        return channel

    def send(self, event):
        """Writes one event. In a forked child it does nothing."""
        self.write([self._encoded(event)])

    def write(self, texts):
        """Writes encoded events."""
        if self._getpid() != self._pid:
            return
        data = b"".join([self._seal(text) for text in texts])
        for fd in self._fds:
            if self._is_ours(fd):
                self._write_all(fd, data)
                return
        # Without the channel whatever follows cannot be observed: end here, while the test that
        # closed it is known to be the one running.
        try:
            self._write(2, b"flakefarm: the test closed descriptors that it had not opened, the one for results among them\n")
        finally:
            self._exit(98)

    def send_list(self, event, name, values):
        """The same for an event with a list of any length: in parts, all but the last marked."""
        part, size = [], 0
        for value in values:
            length = len(encode(value))
            if part and (len(part) == PART or size + length > PART_BYTES):
                self.send(dict(event, **{name: part, "more": True}))
                part, size = [], 0
            part.append(value)
            size += length
        self.send(dict(event, **{name: part, "more": False}))

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
