"""Finds and loads tests as `python -m unittest` does, and says what each of them is."""

import argparse
import os
import sys

from flakefarm_channel import clean
from flakefarm_choice import below
from flakefarm_in_hand import REASON_LIMIT

__unittest = True

# Directories that hold no tests of the project, however they are named.
FOREIGN = ("node_modules", "site-packages", "build", "dist", "__pycache__")
# Places without packages around them that are looked at, where the root itself has no tests.
SCATTERED = 200


class Refused(Exception):
    """What is wrong with the arguments."""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Refused("unittest: %s" % message)


class Arguments:
    """What `python -m unittest` would be told, as far as it says which tests there are."""

    def __init__(self, request, root):
        words = list(request["arguments"])
        discover = words[:1] == ["discover"]
        parser = Parser(prog="python -m unittest", add_help=False)
        # What concerns the terminal, or when to stop.
        for names in (("-v", "--verbose"), ("-q", "--quiet"), ("--locals",), ("-f", "--failfast"), ("-c", "--catch"), ("-b", "--buffer")):
            parser.add_argument(*names, action="store_true")
        parser.add_argument("--durations")
        parser.add_argument("-k", dest="filters", action="append", default=[])
        parser.add_argument("-s", "--start-directory", dest="start")
        parser.add_argument("-p", "--pattern", dest="pattern")
        parser.add_argument("-t", "--top-level-directory", dest="top")
        parser.add_argument("names", nargs="*")
        told = parser.parse_args(words[1:] if discover else words)
        names = told.names
        if discover:
            if len(names) > 3:
                raise Refused("unittest: discover takes a directory, a pattern and a top level directory")
            given = dict(zip(("start", "pattern", "top"), names))
            told.start, told.pattern, told.top = (getattr(told, name) or given.get(name) for name in ("start", "pattern", "top"))
            names = []
        self.filters = [word if "*" in word else "*%s*" % word for word in told.filters]
        self.pattern = told.pattern or "test*.py"
        self.top = told.top and os.path.abspath(told.top)
        self.names = [name for name in names if not os.path.exists(os.path.join(root, name))]
        places = [told.start] if told.start else [name for name in names if name not in self.names]
        if not places and not self.names:
            places = request["paths"]
        # Told where to start, unittest names modules below that; paths of the configuration may lie in packages.
        if told.start and not self.top:
            self.top = os.path.normpath(os.path.join(root, told.start))
        self.places = [os.path.normpath(os.path.join(root, place)) for place in places]
        for place in self.places:
            if not os.path.exists(place):
                raise Refused("unittest: there is no %s" % below(root, place))


class Loading:
    """Loads a project's tests."""

    def __init__(self, unittest, arguments, root):
        self._unittest = unittest
        self._arguments = arguments
        self._root = root
        # Directories that modules are named below, beside the root.
        self.tops = []
        self._files = None

    def tests(self, selected):
        """Tests in the order of their loading, with files that could not be loaded and files that were skipped
        as a whole, as pairs of path and message. Only what may hold one of `selected`, if there is one."""
        self.tops = []
        self._files = None if selected is None else self._files_of(selected)
        items, errors, skips = [], {}, {}
        for suite in self._suites():
            self._unfold(suite, items, errors, skips)
        return items, sorted(errors.items()), sorted(skips.items())

    def _suites(self):
        arguments = self._arguments
        for name in arguments.names:
            yield self._guarded(name, lambda loader: loader.loadTestsFromName(name))
        if arguments.places:
            for place in arguments.places:
                yield self._at(place)
        elif not arguments.names:
            for place in self._default_places():
                yield self._discovered(place, arguments.top or place)

    def _default_places(self):
        """The root, if it has tests that `python -m unittest` finds from there; else each place that has."""
        found = scattered(self._root, self._arguments.pattern)
        return [self._root] if self._root in found or not found else found

    def _at(self, place):
        """Of a directory or a file, whose modules are named below the outermost directory that is no package."""
        top = self._arguments.top or top_of(place, self._root)
        if os.path.isdir(place):
            return self._discovered(place, top)
        directory, name = os.path.split(place)
        return self._discovered(directory, top, name)

    def _discovered(self, place, top, pattern=None):
        if top != self._root and top not in self.tops:
            self.tops.append(top)
        # Discovery puts it there, too, but only once.
        if top not in sys.path:
            sys.path.insert(0, top)
        pattern = pattern or self._arguments.pattern
        return self._guarded(place, lambda loader: loader.discover(place, pattern, top))

    def _guarded(self, what, load):
        """A suite; one of a failed test if it could not be loaded at all."""
        loader = self._loader()
        try:
            return load(loader)
        except BaseException as error:  # of a module that is named, even SystemExit
            failed = loader.suiteClass()
            failed.addTest(CannotBeLoaded(str(what), error))
            return failed

    def _loader(self):
        files, realpath = self._files, os.path.realpath

        class Narrowed(self._unittest.TestLoader):
            def _match_path(self, path, full_path, pattern):
                if files is not None and realpath(full_path) not in files:
                    return False
                return super()._match_path(path, full_path, pattern)

        loader = Narrowed()
        if self._arguments.filters:
            loader.testNamePatterns = self._arguments.filters
        return loader

    def _files_of(self, selected):
        """The files that hold the selected tests; nothing if one of them is not known, so that nothing may be
        left out."""
        tops = [top_of(place, self._root) for place in self._arguments.places] or self._default_places()
        tops.append(self._root)
        if self._arguments.top:
            tops.append(self._arguments.top)
        files = set()
        for test in selected:
            file = file_named(test, tops)
            if file is None:
                return None
            files.add(os.path.realpath(file))
        return files

    def _unfold(self, suite, items, errors, skips):
        for test in suite:
            kind = type(test)
            if isinstance(test, CannotBeLoaded):
                errors.setdefault(self._path_of(test.name), clean(test.said)[-REASON_LIMIT:])
            elif (kind.__module__, kind.__name__) == ("unittest.loader", "_FailedTest"):
                said = str(getattr(test, "_exception", "") or "it could not be loaded")
                errors.setdefault(self._path_of(test._testMethodName), clean(said)[-REASON_LIMIT:])
            elif (kind.__module__, kind.__name__) == ("unittest.loader", "ModuleSkipped"):
                why = getattr(getattr(test, test._testMethodName), "__unittest_skip_why__", "")
                skips.setdefault(self._path_of(test._testMethodName), clean(str(why))[:REASON_LIMIT])
            elif hasattr(test, "__iter__"):
                self._unfold(test, items, errors, skips)
            else:
                items.append(Item(test, self._root))

    def _path_of(self, name):
        """Below the root, of a dotted module name."""
        found = file_named(name, [self._root] + self.tops)
        return clean((found and below(self._root, found)) or name)


class CannotBeLoaded:
    """In the place of what was named and could not be loaded."""

    def __init__(self, name, error):
        self.name = name
        self.said = "%s: %s" % (type(error).__name__, error)

    def countTestCases(self):
        return 1

    def __call__(self, result):
        raise NotImplementedError


class Item:
    """A test, and what it is made of."""

    def __init__(self, test, root):
        self.test = test
        self.fixturenames = ()
        kind = type(test)
        try:
            self.name = clean(str(test.id()))
        except Exception:  # not a TestCase, or a strange one
            self.name = clean(str(test))
        example = getattr(test, "_dt_test", None)
        function = getattr(test, "_testFunc", None)
        if example is not None:  # a doctest
            self.path, names = example.filename or "", [self.name]
        elif function is not None:
            module = sys.modules.get(getattr(function, "__module__", None))
            self.path, names = getattr(module, "__file__", None) or "", [self.name]
        else:
            module = sys.modules.get(kind.__module__)
            self.path = getattr(module, "__file__", None) or ""
            method = getattr(test, "_testMethodName", None) or self.name
            names = [name for name in kind.__qualname__.split(".") if name != "<locals>"] + [method]
        self.path = os.path.abspath(self.path) if self.path else ""
        self._root = root
        self._names = [clean(name) for name in names]
        # As sources are asked for.
        self.nodeid = "::".join([self.path] + self._names)

    def parts(self, test):
        """As a listing tells it; `test` is its id."""
        rest = test[len(self.name):]
        return {
            "file": clean(below(self._root, self.path) or ""),
            "classes": self._names[:-1],
            "name": self._names[-1],
            "ordinal": int(rest[1:]) if rest.startswith("#") and rest[1:].isdigit() else 1,
        }


def file_named(name, tops):
    """The file of the longest leading part of a dotted name that is a module."""
    parts = name.split("#", 1)[0].split(".")
    for cut in range(len(parts), 0, -1):
        for top in tops:
            path = os.path.join(top, *parts[:cut])
            for candidate in (path + ".py", os.path.join(path, "__init__.py")):
                if os.path.isfile(candidate):
                    return candidate
    return None


def is_package(directory):
    return os.path.isfile(os.path.join(directory, "__init__.py"))


def top_of(place, root):
    """The outermost directory above a place, within the root, that is no package."""
    directory = place if os.path.isdir(place) else os.path.dirname(place)
    while directory != root and is_package(directory) and below(root, directory) is not None:
        directory = os.path.dirname(directory)
    return directory


def scattered(root, pattern):
    """Directories that are no packages and have test files in them or in packages below them."""
    import fnmatch

    found = []
    for directory, inner, files in os.walk(root):
        inner[:] = sorted(name for name in inner if not is_foreign(os.path.join(directory, name)))
        if any(fnmatch.fnmatch(name, pattern) for name in files):
            top = top_of(directory, root)
            if top not in found and len(found) < SCATTERED:
                found.append(top)
    return found


def is_foreign(directory):
    """Whether tests in a directory are not the project's: in installed packages, say."""
    name = os.path.basename(directory)
    return name.startswith(".") or name in FOREIGN or os.path.isfile(os.path.join(directory, "pyvenv.cfg"))
