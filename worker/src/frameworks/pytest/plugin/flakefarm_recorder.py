"""The pytest plugin: selects and orders tests, measures them and reports what they did."""

import os
import sys

import flakefarm_quiet as quiet
from flakefarm_channel import clean
from flakefarm_choice import in_order, named
from flakefarm_failures import circumstances_of, describe, is_excused, torn_down
from flakefarm_ids import by_function, parts_of
from flakefarm_in_hand import REASON_LIMIT, Clocks
from flakefarm_network import NoRoutes
from flakefarm_running import Running
from flakefarm_world import Plain

WARNING_LIMIT = 8
TWINS_LIMIT = 200


def recorder_for(pytest, channel, request, root, world):
    """A plugin object for one session of the given pytest."""

    hookimpl = pytest.hookimpl
    exit_error = pytest.exit.Exception
    # An interrupt or `pytest.exit` in a test would end the session. These types print and count as
    # what was raised, but pytest treats them as the failures they are.
    harmless_interrupt = type("KeyboardInterrupt", (Exception,), {"__module__": "builtins"})
    harmless_exit = type("Exit", (Exception,), {"__module__": "_pytest.outcomes"})

    class Hooks(Recorder):
        @hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_load_initial_conftests(self, early_config):
            quiet.silence_early(early_config.known_args_namespace)
            yield

        @hookimpl(optionalhook=True)
        def pytest_xdist_node_collection_finished(self, ids):
            self.collected_in_parallel(ids)

        @hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_cmdline_main(self, config):
            quiet.silence(config.option, self.listing)
            if self.world.workers:
                self.world.spread(config.option)
            yield

        @hookimpl(trylast=True)
        def pytest_configure(self, config):
            quiet.unregister(config.pluginmanager)
            if self.world.repeats:
                config.pluginmanager.register(self.repeater(pytest, self), "flakefarm_repeats")

        @hookimpl(tryfirst=True)
        def pytest_sessionstart(self, session):
            self.session_started(pytest.__version__, session.config)

        @hookimpl(tryfirst=True)
        def pytest_collectreport(self, report):
            if report.failed:
                self.collection_failed(report)
            elif report.skipped:
                self.collection_skipped(report)

        @hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_collection_modifyitems(self, config, items):
            outcome = yield
            if outcome.excinfo is None:
                left_out = self.select_and_order(items)
                if left_out:
                    config.hook.pytest_deselected(items=left_out)

        @hookimpl(trylast=True)
        def pytest_collection_finish(self, session):
            self.collected(session.items)
            if self.listing:
                self.take_apart(session.items)
                self.read_sources(session)
            self.world.collected()

        @hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_runtest_protocol(self, item):
            self.test_starts(item)
            outcome = yield
            self.test_ended(outcome.excinfo)

        @hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_runtest_setup(self):
            yield from self.measured("setup")

        @hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_runtest_call(self):
            changed = self.world.call()
            if changed is None:
                yield from self.measured("call")
            else:
                with changed:
                    yield from self.measured("call")

        @hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_runtest_teardown(self):
            yield from self.measured("teardown")

        @hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_runtest_makereport(self, call):
            # Before: what a project's wrapper raises goes past this one in some versions of pluggy.
            if call.excinfo is not None and not isinstance(call.excinfo.value, pytest.skip.Exception):
                self.is_to_report(call)
            outcome = yield
            if outcome.excinfo is None:
                self.reported()
                self.describe_failure(call, outcome.get_result())

        @hookimpl(tryfirst=True)
        def pytest_fixture_setup(self, fixturedef):
            self.fixture_is_set_up(fixturedef)

        @hookimpl(optionalhook=True, tryfirst=True)
        def pytest_timeout_set_timer(self, settings):
            self.limited(settings)

        @hookimpl(tryfirst=True)
        def pytest_runtest_logreport(self, report):
            self.phase_reported(report)

        @hookimpl(tryfirst=True)
        def pytest_warning_recorded(self, warning_message, when):
            if when == "runtest":
                self.warned(warning_message)

        def measured(self, phase):
            start = self.clocks()
            outcome = yield
            self.add_time(start, phase)
            excinfo = outcome.excinfo
            if excinfo is None or not issubclass(excinfo[0], (KeyboardInterrupt, exit_error)):
                return
            if issubclass(excinfo[0], exit_error):
                error = harmless_exit("the test asked pytest to exit: %s" % excinfo[1])
            else:
                error = harmless_interrupt(*excinfo[1].args)
            error.__suppress_context__ = True
            error = error.with_traceback(excinfo[2])
            if hasattr(outcome, "force_exception"):
                outcome.force_exception(error)
            else:  # pluggy before 1.1
                outcome._excinfo = (type(error), error, excinfo[2])

    # pytest 7 renamed the argument and pytest 9 refuses the old name.
    if int(pytest.__version__.split(".")[0]) >= 7:

        class Collecting(Hooks):
            @hookimpl(tryfirst=True)
            def pytest_ignore_collect(self, collection_path, config):
                return self.ignored(str(collection_path), config)

    else:

        class Collecting(Hooks):
            @hookimpl(tryfirst=True)
            def pytest_ignore_collect(self, path, config):
                return self.ignored(str(path), config)

    return Collecting(channel, request, root, world)


class Recorder:
    """What the hooks do. Clocks are bound to the object, out of reach of frozen time."""

    def __init__(self, channel, request, root, world):
        self.channel = channel
        self.world = world
        self.root = root
        self.listing = request["mode"] == "list"
        self.order = request["order"]
        selected = request["tests"]
        self.listed = {} if selected is None else dict((test, place) for place, test in enumerate(selected))
        self.selected = None if selected is None else set(selected)
        # Most attempts need neither, and starting them costs more than what they run.
        self.watcher = self.sources = None
        if request.get("detail") == "state":
            from flakefarm_state import Watcher

            self.watcher = Watcher(root)
        if self.listing:
            import flakefarm_sources

            self.sources = flakefarm_sources
        self.no_routes = NoRoutes()
        # As counted when the last test ended.
        self.without_route = None
        self.repeater = None
        if world.repeats:
            from flakefarm_repeats import is_of_the_log, repeater

            self.repeater, self.is_of_the_log = repeater, is_of_the_log
        self.files = None
        self.ids = {}
        self.named = {}
        self.groups = {}
        self.meant = {}
        self.everything = []
        self.asked_for = []
        self.ended = set()
        # Name and scope by the code of what fixtures are made with, of those that were set up.
        self.fixtures = {}
        self.missing = []
        self.position = -1
        self.running = None
        self.clocks = Clocks().read
        self._realpath = os.path.realpath

    # Collection

    def session_started(self, version, config):
        names = {"cpython": "CPython", "pypy": "PyPy", "graalpy": "GraalPy"}
        implementation = names.get(sys.implementation.name, sys.implementation.name)
        self.channel.send(
            {
                "e": "session",
                "mode": "list" if self.listing else "run",
                "framework": "pytest " + version,
                "python": "%s %s" % (implementation, ".".join(str(part) for part in sys.version_info[:3])),
                "rootdir": clean(rootdir(config)),
            }
        )

    def ignored(self, path, config):
        """Whether a path holds none of the selected tests. Narrowing the arguments instead would
        move pytest's rootdir and load other conftest files than a full run does."""
        if self.selected is None:
            return None
        if self.files is None:
            self.files = selected_files(self.selected, rootdir(config))
        if not self.files:
            return None
        name = os.path.basename(path)
        if name in ("__init__.py", "conftest.py") or path in self.files:
            return None
        return None if self._realpath(path) in self.files else True

    def collection_failed(self, report):
        path = report.nodeid or str(getattr(report, "fspath", "") or "")
        text = str(getattr(report, "longreprtext", "") or report.longrepr)
        self.channel.send({"e": "collect_error", "path": clean(path), "message": clean(text)[-REASON_LIMIT:]})

    def collection_skipped(self, report):
        longrepr = report.longrepr
        reason = longrepr[2] if isinstance(longrepr, tuple) and len(longrepr) == 3 else longrepr
        self.channel.send(
            {"e": "collect_skip", "path": clean(report.nodeid), "message": clean(str(reason or ""))[:REASON_LIMIT]}
        )

    def select_and_order(self, items):
        """Names the items, keeps the selected ones in the requested order, returns the others."""
        self.name(items)
        chosen = self.chosen()
        kept = set(map(id, chosen))
        left_out = [item for item in items if id(item) not in kept]
        items[:] = chosen
        self.asked_for = chosen
        return left_out

    def name(self, items):
        self.ids, self.named, self.groups = named(items)

    def chosen(self):
        """The selected of the named items, in the requested order."""
        if self.selected is None:
            names = list(self.named)
        else:
            names, self.missing = self.resolved(self.selected)
        names = in_order(names, self.order, self.named, self.listed)
        return [self.named[name][1] for name in names]

    def resolved(self, selected):
        """What is meant by the selected ids, and those that mean nothing. Of tests with one node id all are
        meant: which of them is the second may change. The id of a function means all its parameters."""
        names, missing, functions = set(), [], None
        self.meant = {}
        for test in selected:
            if test in self.named:
                names.update(self.groups.get(test, (test,)))
                continue
            if functions is None:
                functions = by_function(self.named)
            meant = functions.get(test) or only_one(functions, test, selected)
            if meant is None:
                missing.append(test)
            else:
                self.meant[test] = meant
                names.update(meant)
        return list(names), sorted(missing)

    def collected(self, items):
        tests = [self.id_of(item) for item in items]
        self.channel.send_list({"e": "missing"}, "tests", self.missing)
        groups = sorted(set(map(tuple, self.groups.values())))
        if groups:
            self.channel.send({"e": "twins", "groups": groups[:TWINS_LIMIT]})
        for test in sorted(self.meant):
            self.channel.send_list({"e": "meant", "by": test}, "tests", self.meant[test])
        self.channel.send_list({"e": "collected", "reordered": items != self.asked_for}, "tests", tests)

    def take_apart(self, items):
        parts = [parts_of(item, self.root, self.ids.get(id(item), "")) for item in items]
        self.channel.send_list({"e": "parts"}, "tests", parts)

    def read_sources(self, session):
        try:
            tests = self.sources.describe(session.items, self.root, configured(session.config))
        except Exception as error:  # a guess that sources help with must not cost the listing
            sys.stderr.write("flakefarm: sources could not be read: %s: %s\n" % (type(error).__name__, error))
            return
        self.channel.send_list({"e": "sources"}, "tests", tests)

    def settle(self, session):
        """Before attempts are forked from `session`."""
        # Kept, or who adopts a selection would let go of every item in it.
        self.everything = session.items

    def starts_alike(self):
        """Whether attempts with the same request do the same up to the set-up of their first test."""
        return self.watcher is None and isinstance(self.world, Plain)

    def adopt(self, request, session):
        """Goes on with the selection and order of `request`, which the session had not. What is left out is
        not so much as looked at: there may be very many."""
        selected = request["tests"]
        self.selected = None if selected is None else set(selected)
        self.order = request["order"]
        self.missing = []
        session.items = self.asked_for = self.chosen()
        session.testscollected = len(session.items)
        self.collected(session.items)

    def tell_deselected(self, session):
        if len(session.items) < len(self.everything):
            kept = set(map(id, session.items))
            left_out = [item for item in self.everything if id(item) not in kept]
            session.config.hook.pytest_deselected(items=left_out)

    def finished(self, code):
        self.channel.send({"e": "finish", "exit": code})

    def id_of(self, item):
        return self.ids.get(id(item)) or clean(item.nodeid)

    # Running

    def add_time(self, start, phase):
        now = self.clocks()
        if self.running is not None:
            self.running.took(phase, start, now)

    def test_starts(self, item):
        test = self.id_of(item)
        if test in self.ended:  # a project that has an item run again
            return
        self.ended.add(test)
        self.position += 1
        self.running = Running(test, self.position)
        if self.without_route is None:
            self.without_route = self.no_routes.count()
        self.world.test_starts(test)
        if self.watcher is not None:
            self.watcher.before()
        self.channel.send({"e": "start", "test": test, "i": self.position})

    def first_pass_ended(self, reports):
        """What fails here fails in a plain run, too."""
        failed = [report for report in reports if report.outcome == "failed"]
        self.running.reports.extend(self.running.tear_down(failed))
        self.running.is_repeated = True
        self.running.start_clocks()

    def second_pass_ended(self, reports, fixtures):
        failed = self.running.tear_down(
            [report for report in reports if report.outcome == "failed" and not is_excused(report)]
        )
        if failed and not self.running.reports:
            self.running.second_pass = (failed, fixtures)
        self.running.start_clocks()

    def fixture_is_set_up(self, definition):
        function = getattr(definition.func, "__func__", definition.func)
        code = getattr(function, "__code__", None)
        if code is not None and code not in self.fixtures:
            self.fixtures[code] = (definition.argname, str(definition.scope))

    def limited(self, settings):
        """pytest-timeout watches over the test, and may end the process."""
        try:
            milliseconds = int(float(settings.timeout) * 1000)
        except Exception:  # another version of it
            return
        if self.running is not None and milliseconds > 0:
            self.channel.send({"e": "limit", "by": "pytest-timeout", "ms": milliseconds})

    def is_to_report(self, call):
        """The failure of a phase is about to be made into a report, by hooks that may raise."""
        if self.running is not None:
            self.running.unreported = call

    def reported(self):
        if self.running is not None:
            self.running.unreported = None

    def describe_failure(self, call, report):
        if report.outcome != "failed":
            return
        try:
            report.flakefarm = describe(call, report, self.root)
            report.flakefarm["circumstances"] = self.circumstances(call, report)
            if report.when == "teardown" and call.excinfo is not None:
                shared, alone = torn_down(call.excinfo.value, self.fixtures, clean(report.nodeid), self.root)
                report.flakefarm.update(torn_down=shared, torn_down_only=alone)
            if self.running is not None and self.running.is_repeated and self.is_of_the_log(call.excinfo):
                report.flakefarm_excused = True
        except Exception as error:  # a test's exception may raise whenever it is looked at
            sys.stderr.write("flakefarm: a failure could not be described: %s\n" % type(error).__name__)

    def circumstances(self, call, report):
        if self.running is None or call.excinfo is None or report.when == "call":
            return []
        return circumstances_of(call.excinfo.value, self.fixtures)

    def phase_reported(self, report):
        if self.world.workers:
            self.reported_in_parallel(report)
        elif self.running is not None:
            self.running.reports.append(report)

    # Tests that run in the processes of pytest-xdist: many at once, so that one is told of when it ends.

    def collected_in_parallel(self, ids):
        if self.order is not None:
            self.channel.send_list({"e": "collected"}, "tests", [clean(test) for test in ids])
            self.order = None

    def reported_in_parallel(self, report):
        test = clean(report.nodeid)
        running = self.ids.setdefault(test, Running(test, 0))
        running.reports.append(report)
        if report.when in running.walls:
            running.walls[report.when] += report.duration
        # A process that dies reports its test in a phase of no name.
        if report.when == "teardown" or report.when not in running.walls:
            result = self.ids.pop(test).result()
            if result is not None and test not in self.ended:
                self.ended.add(test)
                self.position += 1
                result["i"] = self.position
                self.channel.send({"e": "start", "test": test, "i": self.position})
                self.channel.send(result)

    def warned(self, warning_message):
        if self.running is None or len(self.running.warnings) >= WARNING_LIMIT:
            return
        try:
            text = "%s: %s" % (warning_message.category.__name__, warning_message.message)
        except Exception:
            return
        text = clean(text)[:500]
        if text not in self.running.warnings:
            self.running.warnings.append(text)

    def test_ended(self, error=None):
        running, self.running = self.running, None
        if running is None:
            return
        before, self.without_route = self.without_route, self.no_routes.count()
        running.no_route = self.without_route - before
        result = running.result() if error is None else running.broken_off(error, self.root)
        if result is not None and self.watcher is not None:
            result["captured"] = running.captured()
            result["changes"] = self.watcher.after()
        if result is not None:
            self.channel.send(result)
        self.world.test_ended()


def only_one(functions, test, selected):
    """What is meant by an id whose parameters are others now, where that cannot be mistaken."""
    for function, names in functions.items():
        if test.startswith(function + "[") and len(names) == 1 and names[0] not in selected:
            return names
    return None


def rootdir(config):
    root = getattr(config, "rootpath", None)
    return str(config.rootdir if root is None else root)


def configured(config):
    """What the project configures of pytest, one text for each option. Since pytest 9.2 asking for `inicfg` warns, which
    many projects make an error."""
    options = getattr(config, "_inicfg", None)
    if options is None:
        options = config.inicfg
    return ["%s=%s" % (name, getattr(options[name], "value", options[name])) for name in sorted(options)]


def selected_files(selected, root):
    """The files of the selected tests and every directory above them; empty if some test's file
    is not known, so that nothing may be left out."""
    files = set()
    for test in selected:
        path = os.path.normpath(os.path.join(root, test.split("::", 1)[0]))
        if not os.path.exists(path):
            return set()
        for variant in (path, os.path.realpath(path)):
            while variant not in files:
                files.add(variant)
                variant = os.path.dirname(variant)
    return files
