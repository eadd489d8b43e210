"""The pytest plugin: selects and orders tests, measures them and reports what they did."""

import os
import resource
import sys
import time

import flakefarm_quiet as quiet
from flakefarm_channel import clean
from flakefarm_failures import bounded, describe, describe_report
from flakefarm_world import Plain

WARNING_LIMIT = 8
REASON_LIMIT = 2000
PHASES = ("setup", "call", "teardown")


def recorder_for(pytest, channel, request, root, world):
    """A plugin object for one session of the given pytest."""

    from _pytest.runner import runtestprotocol

    hookimpl = pytest.hookimpl
    exit_error = pytest.exit.Exception
    # An interrupt or `pytest.exit` in a test would end the session. These types print and count as
    # what was raised, but pytest treats them as the failures they are.
    harmless_interrupt = type("KeyboardInterrupt", (Exception,), {"__module__": "builtins"})
    harmless_exit = type("Exit", (Exception,), {"__module__": "_pytest.outcomes"})

    class FirstRun:
        """The first of two runs of each test. A hook of its own, within those that wrap a run: they
        catch warnings and output, and explain assertions."""

        def __init__(self, recorder):
            self.recorder = recorder

        @hookimpl(tryfirst=True)
        def pytest_runtest_protocol(self, item):
            # Without a next test, fixtures of all scopes are torn down after it.
            self.recorder.first_run_ended(runtestprotocol(item, log=False, nextitem=None))

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
            if self.world.runs == 2:
                config.pluginmanager.register(FirstRun(self), "flakefarm_first_run")

        @hookimpl(tryfirst=True)
        def pytest_sessionstart(self, session):
            self.session_started(pytest.__version__, session.config)

        @hookimpl(tryfirst=True)
        def pytest_collectreport(self, report):
            if report.failed:
                self.collection_failed(report)

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
            yield
            self.test_ended()

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
            outcome = yield
            if outcome.excinfo is None:
                self.describe_failure(call, outcome.get_result())

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
            from flakefarm_ids import parts_of

            self.parts_of = parts_of
            self.sources = flakefarm_sources
        self.files = None
        self.ids = {}
        self.named = {}
        self.ordinals = {}
        self.everything = []
        self.missing = []
        self.position = -1
        self.running = None
        self._wall = time.perf_counter
        self._cpu = time.process_time
        self._usage = resource.getrusage
        self._children = resource.RUSAGE_CHILDREN
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

    def select_and_order(self, items):
        """Names the items, keeps the selected ones in the requested order, returns the others."""
        self.name(items)
        left_out = []
        if self.selected is not None:
            left_out = [item for item in items if self.ids[id(item)] not in self.selected]
        items[:] = self.chosen()
        return left_out

    def name(self, items):
        self.ids = {}
        self.named = {}
        self.ordinals = {}
        used = {}
        for place, item in enumerate(items):
            name = clean(item.nodeid)
            count = used.get(name, 0) + 1
            while count > 1 and "%s#%d" % (name, count) in used:
                count += 1
            used[name] = count
            if count > 1:
                name = "%s#%d" % (name, count)
                used[name] = 1
            self.ids[id(item)] = name
            self.named[name] = (place, item)
            self.ordinals[id(item)] = count

    def chosen(self):
        """The selected of the named items, in the requested order."""
        selected = self.named if self.selected is None else self.selected
        names = [name for name in selected if name in self.named]
        if len(names) < len(selected):
            self.missing = sorted(self.selected.difference(names))
        kind = self.order["kind"]
        if kind == "shuffled":
            seed = self.order["seed"]
            names.sort(key=lambda name: shuffle_key(seed, name))
        elif kind == "listed" and self.listed:
            names.sort(key=self.listed.get)
        else:
            names.sort(key=lambda name: self.named[name][0], reverse=kind == "reversed")
        return [self.named[name][1] for name in names]

    def collected(self, items):
        tests = [self.id_of(item) for item in items]
        self.channel.send_list({"e": "missing"}, "tests", self.missing)
        self.channel.send_list({"e": "collected"}, "tests", tests)

    def take_apart(self, items):
        parts = [self.parts_of(item, self.root, self.ordinals.get(id(item), 1)) for item in items]
        self.channel.send_list({"e": "parts"}, "tests", parts)

    def read_sources(self, session):
        options = getattr(session.config, "inicfg", {})
        configuration = ["%s=%s" % (name, options[name]) for name in sorted(options)]
        try:
            found = self.sources.describe(session.items, self.root, configuration)
        except Exception as error:  # a guess that sources help with must not cost the listing
            sys.stderr.write("flakefarm: sources could not be read: %s: %s\n" % (type(error).__name__, error))
            return
        tests = [{"fingerprint": fingerprint, "risks": risks} for fingerprint, risks in found]
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
        session.items = self.chosen()
        session.testscollected = len(session.items)
        self.collected(session.items)

    def tell_deselected(self, session):
        if len(session.items) < len(self.everything):
            left_out = [item for item in self.everything if self.ids[id(item)] not in self.selected]
            session.config.hook.pytest_deselected(items=left_out)

    def finished(self, code):
        self.channel.send({"e": "finish", "exit": code})

    def id_of(self, item):
        return self.ids.get(id(item)) or clean(item.nodeid)

    # Running

    def clocks(self):
        usage = self._usage(self._children)
        return self._wall(), self._cpu() + usage.ru_utime + usage.ru_stime

    def add_time(self, start, phase):
        wall, cpu = self.clocks()
        if self.running is not None:
            self.running.walls[phase] += wall - start[0]
            self.running.cpu += cpu - start[1]

    def test_starts(self, item):
        self.position += 1
        self.running = Running(self.id_of(item), self.position)
        self.world.test_starts(self.running.test)
        if self.watcher is not None:
            self.watcher.before()
        self.channel.send({"e": "start", "test": self.running.test, "i": self.position})

    def first_run_ended(self, reports):
        """Of two runs the second counts, unless the first failed: then it is no matter of running twice."""
        if any(report.outcome == "failed" for report in reports):
            self.running.reports.extend(reports)
        self.running.start_clocks()

    def describe_failure(self, call, report):
        if report.outcome != "failed":
            return
        try:
            report.flakefarm = describe(call, report, self.root)
        except Exception as error:  # a test's exception may raise whenever it is looked at
            sys.stderr.write("flakefarm: a failure could not be described: %s\n" % type(error).__name__)

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
        if report.when == "teardown" or report.when not in PHASES:
            self.position += 1
            running.position = self.position
            result = self.ids.pop(test).result()
            if result is not None:
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

    def test_ended(self):
        running, self.running = self.running, None
        result = running.result()
        if result is not None and self.watcher is not None:
            result["captured"] = running.captured()
            result["changes"] = self.watcher.after()
        if result is not None:
            self.channel.send(result)
        self.world.test_ended()


class Running:
    """The test in hand."""

    def __init__(self, test, position):
        self.test = test
        self.position = position
        self.reports = []
        self.warnings = []
        self.start_clocks()

    def start_clocks(self):
        self.walls = dict.fromkeys(PHASES, 0.0)
        self.cpu = 0.0

    def result(self):
        """The `end` event; nothing if pytest broke off before the test was through."""
        failed = [report for report in self.reports if report.outcome in ("failed", "rerun")]
        if not failed and not any(report.when == "teardown" for report in self.reports):
            return None
        phases = [max(0, int(self.walls[phase] * 1e6)) for phase in PHASES]
        event = {
            "e": "end",
            "test": self.test,
            "i": self.position,
            "wall_us": sum(phases),
            "cpu_us": max(0, int(self.cpu * 1e6)),
            "phases_us": phases,
            "warnings": self.warnings,
        }
        if failed:
            first = failed[0]
            event["outcome"] = "fail"
            event["phase"] = first.when if first.when in PHASES else "call"
            event.update(getattr(first, "flakefarm", None) or describe_report(first))
            event["output"] = self.output(failed)
            return event
        reason = self.skip_reason()
        event["outcome"] = "pass" if reason is None else "skip"
        if reason is not None:
            event["reason"] = reason
        return event

    def skip_reason(self):
        for report in self.reports:
            own = report.when != "teardown" and not hasattr(report, "context")  # not of a sub-test
            if own and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
                longrepr = report.longrepr
                text = str(longrepr[2] if isinstance(longrepr, tuple) and len(longrepr) == 3 else longrepr or "")
                text = text[len("Skipped: "):] if text.startswith("Skipped: ") else text
                return clean(text)[:REASON_LIMIT]
        return None

    def output(self, failed):
        parts = []
        for report in failed:
            try:
                text = report.longreprtext
            except Exception as error:
                text = "the failure could not be printed: %s" % type(error).__name__
            parts.append("----- %s failed -----\n%s\n" % (report.when, text))
        return bounded("".join(parts) + self.sections())

    def captured(self):
        """What the test printed, without what pytest says of it."""
        return bounded(self.sections())

    def sections(self):
        sections = self.reports[-1].sections if self.reports else []
        return "".join("----- %s -----\n%s\n" % (title, text) for title, text in sections)


def shuffle_key(seed, test):
    import hashlib

    return hashlib.sha256(("%d:%s" % (seed, test)).encode("utf-8", "surrogateescape")).hexdigest()


def rootdir(config):
    root = getattr(config, "rootpath", None)
    return str(config.rootdir if root is None else root)


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
