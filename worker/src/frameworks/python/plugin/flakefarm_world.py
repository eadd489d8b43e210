"""What is changed around the tests on purpose, as far as it is changed from within the process.

A world is made before pytest is imported. What cannot be given here raises `Unavailable`: an
attempt in a world that is not what it says would be worse than none. Everything used while tests
run is bound early: tests patch what they like.
"""

import os
import sys

DISK_EVENTS = frozenset(
    "open os.listdir os.scandir os.rename os.remove os.mkdir os.rmdir os.link os.symlink os.truncate".split()
)
NAME_EVENTS = frozenset("socket.getaddrinfo socket.gethostbyname socket.gethostbyaddr".split())


class Unavailable(Exception):
    """Why this world cannot be given here."""


class World:
    """The plain world: nothing is changed. Others change what they override."""

    repeats = False
    workers = 0
    # Whether `call` gives something.
    changes_calls = False

    def arguments(self):
        """Further arguments for pytest."""
        return []

    def collected(self):
        """Collection is over: what tests need is loaded."""

    def test_starts(self, test):
        """Before the set-up of a test."""

    def test_ended(self):
        """After its tear-down."""

    def call(self):
        """A context manager around a test's own body, or nothing."""
        return None


def world_for(request):
    """The world that a request asks for."""
    wanted = request.get("world") or {"kind": "plain"}
    return WORLDS[wanted["kind"]](wanted)


class Plain(World):
    def __init__(self, wanted):
        pass


class Twice(World):
    repeats = True

    def __init__(self, wanted):
        pass


class RandomSeed(World):
    def __init__(self, wanted):
        import hashlib
        import random

        self._seed = wanted["seed"]
        self._sha256 = hashlib.sha256
        self._seed_random = random.seed
        self._modules = sys.modules

    def test_starts(self, test):
        text = "%d:%s" % (self._seed, test)
        number = int(self._sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8], 16)
        self._seed_random(number)
        numpy = self._modules.get("numpy.random")
        if numpy is not None and hasattr(numpy, "seed"):
            numpy.seed(number)


class TimeZone(World):
    def __init__(self, wanted):
        set_time_zone(wanted["name"], wanted["rule"])
        import time

        # A day within the year in which no zone of ours changes its offset.
        if time.localtime(0).tm_gmtoff is None or time.localtime().tm_gmtoff != wanted["offset"]:
            raise Unavailable("the C library does not take up the time zone %s" % wanted["name"])


def set_time_zone(name, rule):
    import time

    roots = [os.environ.get("TZDIR"), "/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/usr/share/lib/zoneinfo"]
    known = any(root and os.path.exists(os.path.join(root, name)) for root in roots)
    os.environ["TZ"] = name if known else rule
    time.tzset()


class Clock(World):
    def __init__(self, wanted):
        import time

        import flakefarm_clock

        try:
            if wanted.get("at") == "daylight_saving":
                set_time_zone("Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3")
            seconds = flakefarm_clock.seconds_until(wanted, time.time())
            self._shifted = flakefarm_clock.shift(seconds)
        except flakefarm_clock.ClockUnavailable as error:
            raise Unavailable(str(error))

    def collected(self):
        self._shifted.extend()


class Locale(World):
    """The variables were set before the interpreter started: here it is seen that they work."""

    def __init__(self, wanted):
        import locale

        if wanted["choice"] == "ascii":
            encoding = locale.getpreferredencoding(False).upper()
            if encoding not in ("ANSI_X3.4-1968", "US-ASCII", "ASCII", "646"):
                raise Unavailable("the interpreter's encoding stays %s" % encoding)
            return
        try:
            locale.setlocale(locale.LC_ALL, "")
        except locale.Error:
            raise Unavailable("the image has no locale de_DE.UTF-8")
        locale.setlocale(locale.LC_ALL, "C")
        locale.setlocale(locale.LC_CTYPE, "")


class CpuContention(World):
    """Busy processes that are nobody's children and end with this one. They are made at once, where nothing
    else runs yet, and wait until tests are collected: imports are not what is looked at."""

    def __init__(self, wanted):
        import fcntl

        waiting, begin = os.pipe()
        ours, theirs = os.pipe()
        for _ in range(wanted["hogs"]):
            child = os.fork()
            if child == 0:
                try:
                    if os.fork() == 0:
                        os.close(theirs)
                        os.close(begin)
                        _compute_until_closed(waiting, ours)
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
        os.close(waiting)
        os.close(ours)
        # Out of the way of tests that close low descriptors.
        self._held = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, 220)
        os.close(theirs)
        self._begin = fcntl.fcntl(begin, fcntl.F_DUPFD_CLOEXEC, 221)
        os.close(begin)

    def collected(self):
        if self._begin is not None:
            os.close(self._begin)
            self._begin = None


def _compute_until_closed(waiting, life):
    import fcntl
    import select

    waiting, life = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (waiting, life)]
    # Whoever holds a descriptor of the results keeps the attempt from ending.
    os.dup2(waiting, 0)
    os.dup2(life, 1)
    os.closerange(2, 256)
    os.read(0, 1)
    while not select.select([1], [], [], 0)[0]:
        for _ in range(200000):
            pass


class SlowDisk(World):
    def __init__(self, wanted):
        import time

        seconds, sleep = wanted["millis"] / 1000.0, time.sleep
        self._switch = while_tests_run(lambda event, _details: sleep(seconds) if event in DISK_EVENTS else None)

    def test_starts(self, test):
        self._switch[0] = True

    def test_ended(self):
        self._switch[0] = False


class NetworkSlow(SlowDisk):
    def __init__(self, wanted):
        import time

        seconds, sleep = wanted["millis"] / 1000.0, time.sleep

        def delay(event, details):
            if event in NAME_EVENTS or (event == "socket.connect" and is_internet(details)):
                sleep(seconds)

        self._switch = while_tests_run(delay)


class NetworkLossy(SlowDisk):
    def __init__(self, wanted):
        import errno
        import random
        import socket

        share, draw, refused = wanted["percent"] / 100.0, random.SystemRandom().random, errno.ECONNREFUSED
        no_name, again = socket.gaierror, socket.EAI_AGAIN

        def lose(event, details):
            if event == "socket.connect" and is_internet(details) and draw() < share:
                raise ConnectionRefusedError(refused, "Connection refused (by flakefarm's lossy network)")
            if event in NAME_EVENTS and draw() < share:
                raise no_name(again, "Temporary failure in name resolution (by flakefarm's lossy network)")

        self._switch = while_tests_run(lose)


def is_internet(details):
    """Whether a connection goes to host and port, not to a socket file."""
    return len(details) > 1 and isinstance(details[1], tuple)


def while_tests_run(hook):
    """Calls `hook` on audit events while the returned switch is on."""
    if not hasattr(sys, "addaudithook"):
        raise Unavailable("this Python has no audit hooks, which came with version 3.8")
    switch = [False]

    def audited(event, details):
        if switch[0]:
            hook(event, details)

    sys.addaudithook(audited)
    return switch


class Parallel(World):
    """Spread over the processes of pytest-xdist. Made before the project's root is on the path, so
    that the path handed to those processes has our directory; the root goes before it."""

    def __init__(self, wanted):
        try:
            from xdist.plugin import _sys_path as path_of_workers
        except ImportError:
            raise Unavailable("pytest-xdist is not installed in the environment, or not one that is known")
        path_of_workers.insert(0, os.getcwd())
        sys.path.append(os.path.dirname(os.path.abspath(__file__)))
        self.workers = wanted["workers"]

    def hand_on(self, request):
        """Leaves the request where worker processes find it."""
        import json
        import tempfile

        handle, path = tempfile.mkstemp(suffix=".json")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(dict(request, world={"kind": "plain"}), file)
        os.environ["FLAKEFARM_PARALLEL"] = path

    def spread(self, option):
        """Options of pytest-xdist, after the usual silence."""
        option.numprocesses = self.workers
        option.dist = "load"

    def arguments(self):
        # Worker processes parse the same arguments again.
        return ["-p", "flakefarm_parallel"]


class Variables(World):
    """The variables were set before the interpreter started; the directory one names has to be made."""

    def __init__(self, wanted):
        os.makedirs(os.environ.get("TMPDIR", "/tmp"), exist_ok=True)


class Home(World):
    def __init__(self, wanted):
        os.environ["HOME"] = "/nonexistent"


class Umask(World):
    def __init__(self, wanted):
        os.umask(0o077)


class DirectoryOrder(World):
    def __init__(self, wanted):
        import hashlib

        prefix = "%d:" % wanted["seed"]
        sha256, listdir, scandir = hashlib.sha256, os.listdir, os.scandir

        def rank(name):
            name = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
            return sha256(prefix.encode() + name).digest()

        class Entries:
            """What `os.scandir` gives, in another order."""

            def __init__(self, *arguments, **options):
                with scandir(*arguments, **options) as entries:
                    self._entries = iter(sorted(entries, key=lambda entry: rank(entry.name)))

            def __iter__(self):
                return self

            def __next__(self):
                return next(self._entries)

            def __enter__(self):
                return self

            def __exit__(self, *_exception):
                self.close()

            def close(self):
                self._entries = iter(())

        def listed(*arguments, **options):
            return sorted(listdir(*arguments, **options), key=rank)

        os.listdir, os.scandir = listed, Entries


class WarningsAsErrors(World):
    changes_calls = True

    def __init__(self, wanted):
        import warnings

        self._catch, self._filter = warnings.catch_warnings, warnings.simplefilter

    def call(self):
        return self

    def __enter__(self):
        self._caught = self._catch()
        self._caught.__enter__()
        self._filter("error")

    def __exit__(self, *exception):
        return self._caught.__exit__(*exception)


class GarbageCollection(World):
    def __init__(self, wanted):
        import gc

        self._gc, self._collect = gc, gc.collect

    def collected(self):
        self._collect()
        # What is there already stays: collecting it again and again would only cost time.
        if hasattr(self._gc, "freeze"):
            self._gc.freeze()
        self._gc.set_threshold(10, 5, 5)

    def test_starts(self, test):
        self._collect()

    def test_ended(self):
        self._collect()


WORLDS = {
    "plain": Plain,
    "twice": Twice,
    "random_seed": RandomSeed,
    "time_zone": TimeZone,
    "clock": Clock,
    "locale": Locale,
    "cpu_contention": CpuContention,
    "slow_disk": SlowDisk,
    "network_slow": NetworkSlow,
    "network_lossy": NetworkLossy,
    "parallel": Parallel,
    "variables": Variables,
    "home": Home,
    "umask": Umask,
    "directory_order": DirectoryOrder,
    "warnings_as_errors": WarningsAsErrors,
    "garbage_collection": GarbageCollection,
}
