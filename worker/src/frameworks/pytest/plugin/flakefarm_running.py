"""The test in hand, and what is told of it when it has ended."""

from flakefarm_channel import clean
from flakefarm_errors import bounded
from flakefarm_failures import (
    describe,
    describe_internal,
    describe_report,
    is_excused,
    is_not_run,
    is_of_others,
    is_strict_xpass,
    name_sub_test,
    not_run_reason,
    traceback_of,
)
from flakefarm_in_hand import PHASES, REASON_LIMIT, InHand


class Running(InHand):
    """The test in hand, as pytest reports it."""

    def __init__(self, test, position):
        super().__init__(test, position)
        self.reports = []
        # The call of a phase that failed, while hooks make it into a report.
        self.unreported = None
        # Fixtures that others share whose tear-down failed after it.
        self.torn_down = []
        # Of a test that runs three times: what failed in the second pass, and its wider fixtures.
        self.second_pass = None
        self.is_repeated = False

    def result(self):
        """The `end` event; nothing if pytest broke off before the test was through."""
        failed = self.tear_down(self.failures())
        if not failed and not any(report.when == "teardown" for report in self.reports):
            return None
        event = self.event()
        if self.torn_down:
            event["torn_down"] = self.torn_down
        expected = self.expected()
        if expected is not None:
            event["expected"] = expected
        if failed:
            first = failed[0]
            event["outcome"] = "fail"
            event["phase"] = first.when if first.when in PHASES else "call"
            event.update(told(first) or describe_report(first))
            name_sub_test(event, first)
            event["circumstances"] = event.get("circumstances", []) + self.circumstances + self.asked_for_network()
            event["output"] = self.output(failed)
            return event
        reason = self.skip_reason()
        event["outcome"] = "pass" if reason is None else "skip"
        if reason is not None:
            event["reason"] = reason
        return event

    def broken_off(self, error, root):
        """The `end` event of a test under which pytest itself failed: some hook raised."""
        event = self.event()
        failure = describe_internal(error, self.had_failed(root), root)
        event.update(failure, outcome="fail", phase=self.phase(), last=True)
        event["circumstances"] = event["circumstances"] + self.asked_for_network()
        event["output"] = bounded(traceback_of(error) + self.output(self.failed_reports()))
        return event

    def had_failed(self, root):
        """What the test had failed with before pytest broke off; `None` if it had not, or if nobody can tell."""
        if self.unreported is not None:
            try:
                return describe(self.unreported, None, root)
            except Exception:  # a test's exception may raise whenever it is looked at
                return None
        reported = [told(report) for report in self.reports if hasattr(report, "flakefarm")]
        return reported[0] if reported else None

    def tear_down(self, failed):
        """The failures that are the test's own; the others are those of fixtures."""
        for report in failed:
            for fixture in getattr(report, "flakefarm", {}).get("torn_down", ()):
                if not any(is_same_fixture(fixture, known) for known in self.torn_down):
                    self.torn_down.append(fixture)
        return [report for report in failed if not is_of_others(report)]

    def failures(self):
        failed = [report for report in self.reports if report.outcome in ("failed", "rerun") and not is_excused(report)]
        if self.second_pass is None:
            return failed
        if not failed:
            # It passes again where fixtures of all scopes are new: one of them was spoilt.
            self.circumstances.append({"kind": "second_pass", "fixtures": self.second_pass[1]})
        return self.second_pass[0] + failed

    def failed_reports(self):
        return [report for report in self.reports if report.outcome == "failed"]

    def phase(self):
        """That which was running when pytest broke off."""
        done = [report.when for report in self.reports if report.when in PHASES]
        ran = [phase for phase in PHASES if self.walls[phase] > 0.0]
        return (ran or done or ["setup"])[-1]

    def expected(self):
        """Of a test that is marked as an expected failure: what it did."""
        for report in self.reports:
            if hasattr(report, "wasxfail"):
                if report.outcome == "skipped":
                    return None if is_not_run(report) else "failed"
                return "passed"
            if is_strict_xpass(report):
                return "passed"
        return None

    def skip_reason(self):
        for report in self.reports:
            own = report.when != "teardown" and not hasattr(report, "context")  # not of a sub-test
            if own and is_not_run(report):
                return clean("expected to fail, not run: %s" % not_run_reason(report))[:REASON_LIMIT]
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


def told(report):
    """What was found out about a failure, as it goes into an event."""
    found = dict(getattr(report, "flakefarm", {}))
    found.pop("torn_down", None)
    found.pop("torn_down_only", None)
    return found


def is_same_fixture(one, other):
    return all(one[key] == other[key] for key in ("name", "scope", "home"))
