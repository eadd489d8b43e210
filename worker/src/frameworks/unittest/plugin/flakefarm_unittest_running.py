"""Runs tests one by one, with the fixtures of their classes and modules, and tells what they did."""

import copy
import os
import sys
import unittest
import warnings

from flakefarm_channel import clean
from flakefarm_choice import in_order, named
from flakefarm_errors import MESSAGE_LIMIT, bounded, chain_of, frames_of, sub_test_named, text_of, type_name
from flakefarm_in_hand import REASON_LIMIT, Clocks, InHand
from flakefarm_network import NoRoutes
from flakefarm_unittest_output import Output

# Frames of modules that have this are left out of what unittest prints.
__unittest = True

WARNING_LIMIT = 8
TWINS_LIMIT = 200
# The steps of a test that its class may change, with the phase each belongs to.
STEPS = (("_callSetUp", "setup"), ("_callTestMethod", "call"), ("_callTearDown", "teardown"), ("doCleanups", "teardown"), ("_callCleanup", "teardown"))
MODULE_STEPS = ("setUpModule", "tearDownModule")


class Session:
    """One collection of tests, run in one order."""

    def __init__(self, _unittest, channel, request, root, world):
        self._channel = channel
        self._world = world
        self._root = root
        self._listing = request["mode"] == "list"
        self._order = request["order"]
        self._arguments = request["arguments"]
        chosen = request["tests"]
        self._selected = None if chosen is None else set(chosen)
        self._listed = {} if chosen is None else {test: place for place, test in enumerate(chosen)}
        self._watcher = None
        if request.get("detail") == "state":
            from flakefarm_state import Watcher

            self._watcher = Watcher(root)
        self._clocks = Clocks()
        self._items, self._ids = [], {}

    # Collection

    def begin(self, loading):
        """Loads the tests, chooses among them, and tells of them."""
        version = ".".join(str(part) for part in sys.version_info[:3])
        names = {"cpython": "CPython", "pypy": "PyPy", "graalpy": "GraalPy"}
        implementation = names.get(sys.implementation.name, sys.implementation.name)
        self._channel.send(
            {
                "e": "session",
                "mode": "list" if self._listing else "run",
                "framework": "unittest",
                "python": "%s %s" % (implementation, version),
            }
        )
        items, errors, skips = loading.tests(self._selected)
        ids, places, groups = named(items, lambda item: item.name)
        if self._selected is not None and not self._selected.issubset(places):
            # What one file alone does not define may come from another one.
            items, errors, skips = loading.tests(None)
            ids, places, groups = named(items, lambda item: item.name)
        for kind, told in (("collect_error", errors), ("collect_skip", skips)):
            for path, message in told:
                self._channel.send({"e": kind, "path": path, "message": message})
        if self._selected is None:
            wanted, missing = list(places), []
        else:
            wanted = {twin for test in self._selected if test in places for twin in groups.get(test, (test,))}
            missing = sorted(self._selected.difference(places))
        self._channel.send_list({"e": "missing"}, "tests", missing)
        twins = sorted(set(map(tuple, groups.values())))
        if twins:
            self._channel.send({"e": "twins", "groups": twins[:TWINS_LIMIT]})
        tests = in_order(wanted, self._order, places, self._listed)
        self._items, self._ids = [places[test][1] for test in tests], ids
        self._channel.send_list({"e": "collected"}, "tests", tests)
        if self._listing:
            self._describe(loading, tests)
        self._world.collected()

    def _describe(self, loading, tests):
        parts = [item.parts(test) for item, test in zip(self._items, tests)]
        self._channel.send_list({"e": "parts"}, "tests", parts)
        self._channel.send({"e": "path", "directories": [os.path.relpath(top, self._root) for top in loading.tops]})
        import flakefarm_sources

        try:
            told = flakefarm_sources.describe(self._items, self._root, self._arguments)
        except Exception as error:  # a guess that sources help with must not cost the listing
            sys.stderr.write("flakefarm: sources could not be read: %s: %s\n" % (type(error).__name__, error))
            return
        self._channel.send_list({"e": "sources"}, "tests", told)

    # Running

    def run(self):
        """The exit code."""
        if not self._items:
            return 5
        if self._listing:
            return 0
        result = Result(self._channel, self._root, self._world, self._clocks, self._watcher)
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("default")
            result.hear_warnings()
            items = self._items
            for place, item in enumerate(items):
                then = items[place + 1].test if place + 1 < len(items) else None
                result.run(item.test, then, self._ids[id(item)], place)
                item.test = None  # as unittest lets go of it
        return 1 if result.has_failed else 0


class Told:
    """Something that was said of the test in hand: `kind` is the name of the method that said it."""

    def __init__(self, kind, error=None, phase="call", text="", circumstance=None):
        self.kind = kind
        self.error = error
        self.phase = phase
        self.text = text
        self.circumstance = circumstance


class Anybody:
    """In the place of a test where only what counts as a failure matters."""

    failureException = AssertionError


class Running(InHand):
    def __init__(self, test, position):
        super().__init__(test, position)
        self.told = []
        self.second_pass = []


class Result(unittest.TestResult):
    """What unittest tells its results to. It also runs the tests: unittest's own loop knows no test in hand
    while the fixtures of classes and modules run, of which some test has to bear the failure."""

    def __init__(self, channel, root, world, clocks, watcher):
        super().__init__()
        self._channel = channel
        self._root = root
        self._world = world
        self._clocks = clocks
        self._watcher = watcher
        self._output = Output()
        self._no_routes = NoRoutes()
        self._without_route = None
        self._loop = unittest.TestSuite()
        self._running = None
        self._phase = None
        # What was raised in a step, with its phase: older versions tell of it only after the test.
        self._raised = []
        # What the fixtures of the present class and module said.
        self._of_class, self._of_module = [], []
        self.has_failed = False

    def run(self, test, then, name, position):
        """Runs one test; `then` is the next."""
        self._running = running = Running(name, position)
        if self._without_route is None:
            self._without_route = self._no_routes.count()
        self._world.test_starts(name)
        if self._watcher is not None:
            self._watcher.before()
        self._channel.send({"e": "start", "test": name, "i": position})
        self._output.begin()
        if self._world.repeats:
            self._run_twice(test)
        self._pass(test, then)
        printed = self._output.end()
        self._running = None
        before, self._without_route = self._without_route, self._no_routes.count()
        running.no_route = self._without_route - before
        event = self._event(running, test, printed)
        if self._watcher is not None:
            event["captured"] = bounded(printed)
            event["changes"] = self._watcher.after()
        self._channel.send(event)
        self._world.test_ended()

    def _run_twice(self, test):
        """Two passes ahead: the second after what the test itself tears down, the last after all of it."""
        running = self._running
        self._pass(copy.copy(test), test)
        failed = failures(running.told)
        running.told = []
        running.start_clocks()
        self._pass(copy.copy(test), None)
        if not failed:
            running.second_pass = failures(running.told)
        running.told = failed
        running.start_clocks()

    def _pass(self, test, then):
        start = self._clocks.read()
        self._phase = "setup"
        ready = self._set_up(test)
        self._running.took("setup", start, self._clocks.read())
        self._phase = None
        if ready:
            self._call(test)
        start = self._clocks.read()
        self._phase = "teardown"
        self._tear_down(test, then)
        self._running.took("teardown", start, self._clocks.read())
        self._phase = None

    def _set_up(self, test):
        """Whether the fixtures of module and class are there."""
        kind, before = type(test), self._previousTestClass
        if before is None or before.__module__ != kind.__module__:
            self._of_module = []
        if before is not kind:
            self._of_class = []
        known = len(self._running.told)
        try:
            self._loop._handleModuleFixture(test, self)
        except BaseException:  # SystemExit, say, which only ends the loop of unittest
            self._moduleSetUpFailed = True
            self._fixture_said("setUpModule", "addError", sys.exc_info())
        self._of_module += self._running.told[known:]
        known = len(self._running.told)
        try:
            self._loop._handleClassSetUp(test, self)
        except BaseException:
            kind._classSetupFailed = True
            self._fixture_said("setUpClass", "addError", sys.exc_info())
        self._of_class += self._running.told[known:]
        self._previousTestClass = kind
        if not getattr(kind, "_classSetupFailed", False) and not getattr(self, "_moduleSetUpFailed", False):
            return True
        if not self._running.told:  # the first test of them has told it already
            self._running.told = self._of_module + self._of_class
        return False

    def _tear_down(self, test, then):
        """What the next test does not share."""
        kind = type(test)
        if then is None or type(then) is not kind:
            try:
                self._loop._tearDownPreviousClass(then, self)
            except BaseException:
                self._fixture_said("tearDownClass", "addError", sys.exc_info())
            if then is None or type(then).__module__ != kind.__module__:
                try:
                    self._loop._handleModuleTearDown(self)
                except BaseException:
                    self._fixture_said("tearDownModule", "addError", sys.exc_info())
            self._previousTestClass = torn_down(kind) if then is not None and type(then).__module__ == kind.__module__ else None

    def _call(self, test):
        wrapped = []
        if isinstance(test, unittest.TestCase):
            for name, phase in STEPS:
                step = getattr(test, name, None)
                if step is not None:
                    setattr(test, name, self._measured(step, phase))
                    wrapped.append(name)
        start = self._clocks.read()
        try:
            test(self)
        except BaseException:  # an interrupt, which would end unittest: this test has raised it
            self._say("addError", sys.exc_info())
            self._tidy_up(test)
        finally:
            for name in wrapped:
                test.__dict__.pop(name, None)
            self._phase = None
            self._raised = []
        if not wrapped:
            self._running.took("call", start, self._clocks.read())

    def _measured(self, step, phase):
        """`step`, with its time measured and what it raises noted. Cleanups run within tear-down, too."""

        def measured(*arguments):
            outer, self._phase = self._phase, phase
            start = self._clocks.read()
            changed = self._world.call() if phase == "call" else None
            try:
                if changed is None:
                    return step(*arguments)
                with changed:
                    return step(*arguments)
            except BaseException as error:
                self._raised.append((error, phase))
                raise
            finally:
                self._phase = outer
                if outer is None:
                    self._running.took(phase, start, self._clocks.read())

        return measured

    def _tidy_up(self, test):
        for name in ("tearDown", "doCleanups"):
            try:
                getattr(test, name)()
            except BaseException:  # not all kinds of tests have them, or after an interrupt
                pass

    # What unittest says

    def addSuccess(self, test):
        pass

    def addError(self, test, err):
        self._heard(test, "addError", err)

    def addFailure(self, test, err):
        self._heard(test, "addFailure", err)

    def addSubTest(self, test, subtest, err):
        if err is None:
            return
        name = sub_test_named(_message_of(subtest), getattr(subtest, "params", None))
        self._say("addFailure", err, {"kind": "sub_test", "name": name})

    def addSkip(self, test, reason):
        if isinstance(test, unittest.case._SubTest):
            return  # the others ran
        step = fixture_of(test)
        if step is None:
            self._running.told.append(Told("addSkip", text=clean(str(reason))[:REASON_LIMIT]))
        else:
            self._fixture_said(step, "addSkip", None, str(reason))

    def addExpectedFailure(self, test, err):
        self._running.told.append(Told("addExpectedFailure"))

    def addUnexpectedSuccess(self, test):
        self._running.told.append(Told("addUnexpectedSuccess"))

    def addDuration(self, test, elapsed):
        pass

    def startTest(self, test):
        pass

    def stopTest(self, test):
        pass

    def _heard(self, test, kind, error):
        step = fixture_of(test)
        if step is None:
            self._say(kind, error)
        else:
            self._fixture_said(step, kind, error)

    def _say(self, kind, error, circumstance=None):
        phases = [phase for raised, phase in self._raised if raised is error[1]]
        phase = (phases or [self._phase or "call"])[0]
        self._running.told.append(Told(kind, error, phase, self._printed(error), circumstance))

    def _fixture_said(self, step, kind, error, text=""):
        scope = "module" if step in MODULE_STEPS else "class"
        phase = "setup" if step.startswith("setUp") else "teardown"
        circumstance = {"kind": "fixture", "name": step, "scope": scope}
        text = clean(text)[:REASON_LIMIT] if error is None else self._printed(error)
        self._running.told.append(Told(kind, error, phase, text, circumstance))

    def _printed(self, error):
        try:
            return self._exc_info_to_string(error, Anybody)
        except Exception as second:  # of an exception that cannot be printed
            return "the failure could not be printed: %s\n" % type(second).__name__

    def hear_warnings(self):
        show = warnings.showwarning

        def heard(message, category, filename, lineno, file=None, line=None):
            running = self._running
            if running is not None and len(running.warnings) < WARNING_LIMIT:
                text = clean("%s: %s" % (category.__name__, message))[:500]
                if text not in running.warnings:
                    running.warnings.append(text)
            show(message, category, filename, lineno, file, line)

        warnings.showwarning = heard

    # What is told of it

    def _event(self, running, test, printed):
        event = running.event()
        if isinstance(test, unittest.TestCase) and not hasattr(test, "_callTestMethod"):
            event["phases_us"] = None  # Python before 3.8
        failed = [told for told in failures(running.told) if not is_of_others(told)]
        shared = [told for told in failures(running.told) if is_of_others(told)]
        if shared:
            self.has_failed = True
            event["torn_down"] = [self._torn_down(told, test) for told in shared]
        if running.second_pass:
            if not failed:
                fixtures = wider_fixtures(test)
                running.circumstances.append({"kind": "second_pass", "fixtures": fixtures})
            failed = running.second_pass + failed
        kinds = [told.kind for told in running.told]
        if "addExpectedFailure" in kinds:
            event["expected"] = "failed"
        if "addUnexpectedSuccess" in kinds:
            event["expected"] = "passed"
        if failed:
            self.has_failed = True
            event["outcome"] = "fail"
            event.update(self._failure(failed[0]))
            event["circumstances"] += running.circumstances + running.asked_for_network()
            texts = ["----- %s failed -----\n%s\n" % (told.phase, told.text) for told in failed]
            event["output"] = bounded("".join(texts) + printed)
            return event
        skipped = [told for told in running.told if told.kind == "addSkip"]
        event["outcome"] = "skip" if skipped else "pass"
        if skipped:
            event["reason"] = skipped[0].text
        return event

    def _torn_down(self, told, test):
        """The fixture that others share, with its failure."""
        failure, fixture = self._failure(told), told.circumstance
        kind = type(test)
        home = kind.__module__ if fixture["scope"] == "module" else "%s.%s" % (kind.__module__, kind.__qualname__)
        shared = {key: failure[key] for key in ("kind", "exceptions", "message", "frames")}
        return dict(shared, name=fixture["name"], scope=fixture["scope"], home=clean(home))

    def _failure(self, told):
        if told.kind == "addUnexpectedSuccess":
            message = "unexpected success: marked as an expected failure, and passed"
            return {
                "phase": "call", "kind": "framework", "exceptions": [], "message": message, "frames": [], "circumstances": [],
            }
        _, error, tb = told.error
        message = text_of(error)
        if told.circumstance is not None and told.circumstance["kind"] == "sub_test":
            message = "sub-test %s: %s" % (told.circumstance["name"], message)
        return {
            "phase": told.phase,
            "kind": "assertion" if isinstance(error, AssertionError) or told.kind == "addFailure" and told.circumstance is None else "exception",
            "exceptions": [type_name(type(link)) for link in chain_of(error)],
            "message": clean(message)[:MESSAGE_LIMIT],
            "frames": frames_of(tb, self._root),
            "circumstances": [] if told.circumstance is None else [told.circumstance],
        }


def is_of_others(told):
    """Whether it is the tear-down of a class or a module: whichever test comes last, the failure is not its own."""
    return told.phase == "teardown" and told.error is not None and (told.circumstance or {}).get("kind") == "fixture"


def torn_down(kind):
    """What stands for a class that has no fixtures left, in the module where it was."""
    return type("TornDown", (), {"__module__": kind.__module__})


def failures(told):
    return [one for one in told if one.kind in ("addError", "addFailure", "addUnexpectedSuccess")]


def fixture_of(test):
    """`setUpClass` or the like, if it is in the place of a test."""
    if type(test).__name__ != "_ErrorHolder":
        return None
    return str(getattr(test, "description", "")).split(" ", 1)[0]


def _message_of(subtest):
    message = getattr(subtest, "_message", None)
    return message if isinstance(message, str) else None


def wider_fixtures(test):
    """What outlives a test in its class and module."""
    kind, found = type(test), []
    module = sys.modules.get(kind.__module__)
    for step, scope, home in (("setUpModule", "module", module), ("setUpClass", "class", kind)):
        own = getattr(home, step, None)
        if own is not None and getattr(own, "__func__", own) is not unittest.TestCase.setUpClass.__func__:
            found.append({"name": step, "scope": scope})
    return found
