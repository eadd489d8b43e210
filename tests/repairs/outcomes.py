"""A pytest plugin that writes how each test ended, and what the exception was, to the file $REPAIRS_OUTCOMES."""

import json
import os

import pytest

ENDED = {}
FAILURES = {}


def full_name(kind):
    return "%s.%s" % (kind.__module__, kind.__qualname__)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed or (report.when == "call" and item.nodeid not in ENDED) or report.skipped:
        ENDED[item.nodeid] = report.outcome if not hasattr(report, "wasxfail") else "xfailed"
    if report.failed and call.excinfo is not None:
        value = call.excinfo.value
        FAILURES[item.nodeid] = {
            "test": item.nodeid, "phase": report.when, "exception": full_name(type(value)), "message": str(value)[:4000],
            "kind": "assertion" if isinstance(value, AssertionError) else "exception"}


def pytest_collectreport(report):
    if report.failed:
        ENDED[report.nodeid] = "failed"
        FAILURES[report.nodeid] = {"test": report.nodeid, "phase": "collect", "exception": "", "kind": "collection",
                                   "message": str(report.longrepr)[-6000:]}


def pytest_sessionfinish(session):
    with open(os.environ["REPAIRS_OUTCOMES"], "w") as file:
        json.dump({"ended": ENDED, "failures": list(FAILURES.values())}, file)
