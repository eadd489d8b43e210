"""What a test prints. `sys.stdout` stays what it is: a test may ask it for its descriptor, as it could in
`python -m unittest`; the descriptors below it point to a file meanwhile."""

import fcntl
import os
import sys
import tempfile

HALF = 32 * 1024


class Output:
    """Standard output and error of one test at a time."""

    def __init__(self):
        # Bound: tests patch what they like.
        self._os = {name: getattr(os, name) for name in ("dup2", "lseek", "read", "ftruncate", "fstat")}
        try:
            fd = os.memfd_create("flakefarm") if hasattr(os, "memfd_create") else os.dup(tempfile.TemporaryFile().fileno())
            # Out of the way of tests that close low descriptors.
            self._file = _above(fd)
            self._own = [_above(1, keep=True), _above(2, keep=True)]
        except OSError:  # few descriptors allowed
            self._file = None

    def begin(self):
        if self._file is None:
            return
        _flush()
        try:
            for fd in (1, 2):
                self._os["dup2"](self._file, fd)
        except OSError:  # a test has closed what it had not opened
            self._file = None

    def end(self):
        """What was printed since `begin`, as a section of its own; nothing if nothing was."""
        if self._file is None:
            return ""
        _flush()
        try:
            for fd, own in zip((1, 2), self._own):
                self._os["dup2"](own, fd)
            text = self._take()
        except OSError:
            self._file = None
            return ""
        return "----- printed -----\n%s\n" % text if text else ""

    def _take(self):
        size = self._os["fstat"](self._file).st_size
        if size == 0:
            return ""
        self._os["lseek"](self._file, 0, 0)
        head = self._os["read"](self._file, 2 * HALF if size <= 2 * HALF else HALF)
        tail = b""
        if size > 2 * HALF:
            self._os["lseek"](self._file, size - HALF, 0)
            tail = b"\n[...]\n" + self._os["read"](self._file, HALF)
        self._os["ftruncate"](self._file, 0)
        self._os["lseek"](self._file, 0, 0)
        return (head + tail).decode("utf-8", "backslashreplace")


def _above(fd, keep=False):
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 210)
    if not keep:
        os.close(fd)
    return copy


def _flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # closed or replaced by a test
            pass
