"""What a prepared interpreter has open, so that each attempt forked from it gets its own.

A fork shares open files with where it came from, positions in them included: what one attempt reads or
writes there, the next one would notice.
"""

import fcntl
import os
import stat

# Fresh and empty for each attempt, whatever was there.
FRESH_PLACES = ("/dev/shm/", "/run/")
# What a file was opened with that must not happen again.
ONCE = os.O_CREAT | os.O_EXCL | os.O_TRUNC


class Unfit(Exception):
    """Why attempts forked from this interpreter would not be what fresh ones are."""


def open_now():
    """The open descriptors of this process with what they lead to."""
    found = {}
    for fd in sorted(int(name) for name in os.listdir("/proc/self/fd")):
        try:
            found[fd] = os.fstat(fd)
        except OSError:  # the directory's own
            pass
    return found


class Descriptors:
    """The open descriptors of this process, sorted by what a fork must do about each."""

    def __init__(self, before):
        """`before` is what was open before anything of a project ran: fresh attempts have that, too. What
        leads to where stderr leads is to lead to the attempt's own output. Raises `Unfit`."""
        self._output = []
        self._empty = []
        self._files = []
        output = os.fstat(2)
        for fd, status in open_now().items():
            if os.path.samestat(status, output):
                self._output.append((fd, os.get_inheritable(fd)))
            elif fd in before and os.path.samestat(status, before[fd]):
                continue
            elif stat.S_ISREG(status.st_mode):
                self._sort_file(fd, status)
            elif not stat.S_ISCHR(status.st_mode) and not stat.S_ISDIR(status.st_mode):
                raise Unfit("%s is open after collection (descriptor %d)" % (_kind(status.st_mode), fd))
        # Tests may replace any of these.
        self._close, self._dup2, self._lseek, self._open = os.close, os.dup2, os.lseek, os.open

    def _sort_file(self, fd, status):
        path = os.readlink("/proc/self/fd/%d" % fd)
        if status.st_nlink == 0:
            # pytest's own, which hold what tests print, are of this kind.
            if status.st_size > 0:
                raise Unfit("a deleted file is open after collection (descriptor %d)" % fd)
            self._empty.append((fd, os.get_inheritable(fd)))
            return
        flags = fcntl.fcntl(fd, fcntl.F_GETFL) & ~ONCE
        try:
            again = os.open(path, flags)
        except OSError as error:
            raise Unfit("%s is open after collection and cannot be opened again: %s" % (path, error.strerror))
        same = os.path.samestat(os.fstat(again), status)
        os.close(again)
        if not same or path.startswith(FRESH_PLACES):
            raise Unfit("%s is open after collection and attempts will not find it there" % path)
        self._files.append((fd, os.get_inheritable(fd), path, flags, os.lseek(fd, 0, os.SEEK_CUR)))

    def renew(self, output):
        """In a forked attempt: gives it files of its own, and `output` for what it prints. Raises `OSError`."""
        for fd, inheritable in self._output:
            self._dup2(output, fd, inheritable)
        for fd, inheritable in self._empty:
            self._replace(fd, inheritable, empty_file())
        for fd, inheritable, path, flags, position in self._files:
            again = self._open(path, flags)
            self._lseek(again, position, os.SEEK_SET)
            self._replace(fd, inheritable, again)

    def _replace(self, fd, inheritable, by):
        self._dup2(by, fd, inheritable)
        self._close(by)


def empty_file():
    """A descriptor of a new file without a name."""
    try:
        return os.memfd_create("flakefarm")
    except (AttributeError, OSError):  # an old interpreter, another C library
        import tempfile

        fd, path = tempfile.mkstemp()
        os.unlink(path)
        return fd


def _kind(mode):
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a pipe" if stat.S_ISFIFO(mode) else "something other than a file"
