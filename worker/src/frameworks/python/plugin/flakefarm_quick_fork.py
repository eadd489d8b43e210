"""A fork without Python's own rites, and the rites apart, so that each attempt has them once.

`os.fork` has Python make its locks anew in the child and calls what modules have registered. That writes
to hundreds of pages, each of which is copied for it. With one thread no lock is held by another, and what
the modules of the standard library have registered only sees to locks and to `random`, which attempts see
to themselves.

What anybody else has registered is called in the attempt, where it would have been called by one `os.fork`:
not in the interpreters that attempts are forked from. There it would be called again and again, as many
times as interpreters lie between and attempts went before, and what it changes would be in every later
attempt.
"""

import ctypes
import gc
import os
import sys
import threading

KNOWN = ("concurrent.futures.thread", "logging", "random", "threading")


def ways_to_fork():
    """How this process of one thread forks: a fork, what an attempt calls once when it has been forked,
    and whether a fork leaves no trace in the one that was forked from."""
    if sys.implementation.name != "cpython":
        return os.fork, _nothing, False
    try:
        # It keeps hold of the interpreter.
        function = ctypes.PyDLL(None, use_errno=True).fork
        before, after = ctypes.pythonapi.PyOS_BeforeFork, ctypes.pythonapi.PyOS_AfterFork_Child
    except (AttributeError, OSError):
        return os.fork, _nothing, False
    function.argtypes = before.argtypes = after.argtypes = []
    function.restype = ctypes.c_int
    before.restype = after.restype = None
    take_native_id = getattr(threading.current_thread(), "_set_native_id", None)

    def fork():
        process = function()
        if process < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        if process == 0 and take_native_id is not None:
            take_native_id()
        return process

    def rites():
        before()
        after()

    return fork, _nothing if all(map(_is_known, _registered())) else rites, True


def _nothing():
    """What is called if nothing is."""


def _mark():
    """Registered, so that the lists of what else is can be found: nothing else tells of them."""


def _registered():
    """What is called before and after a fork. If it cannot be found, something that is unknown."""
    if not hasattr(os, "register_at_fork"):
        return [None]
    os.register_at_fork(before=_mark, after_in_parent=_mark, after_in_child=_mark)
    lists = [found for found in gc.get_referrers(_mark) if type(found) is list]
    if len(lists) != 3:
        return [None]
    return [function for found in lists for function in found if function is not _mark]


def _is_known(function):
    """Whether it is of the standard library, or a method of a lock."""
    if type(getattr(function, "__self__", None)).__module__ == "_thread":
        return True
    return getattr(function, "__module__", None) in KNOWN
