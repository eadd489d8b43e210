"""A fork without Python's own rites, where they would do nothing.

`os.fork` has Python make its locks anew in the child and calls what modules have registered. That writes
to hundreds of pages, each of which is copied for it. With one thread no lock is held by another, and what
the modules of the standard library have registered only sees to locks and to `random`, which attempts see
to themselves. If anybody else has registered anything, `os.fork` it is.
"""

import ctypes
import gc
import os
import sys
import threading

KNOWN = ("concurrent.futures.thread", "logging", "random", "threading")


def quickest_fork():
    """`os.fork`, or what does the same for this process of one thread at less cost."""
    if sys.implementation.name != "cpython" or not all(map(_is_known, _registered())):
        return os.fork
    try:
        # It keeps hold of the interpreter.
        function = ctypes.PyDLL(None, use_errno=True).fork
    except (AttributeError, OSError):
        return os.fork
    function.argtypes = []
    function.restype = ctypes.c_int
    take_native_id = getattr(threading.current_thread(), "_set_native_id", None)

    def fork():
        process = function()
        if process < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        if process == 0 and take_native_id is not None:
            take_native_id()
        return process

    return fork


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
