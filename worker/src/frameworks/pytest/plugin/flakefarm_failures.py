"""Describes one failed phase of one test in plain data."""

import builtins
import os
import re
import traceback
from collections import OrderedDict

from flakefarm_channel import clean
from flakefarm_errors import MESSAGE_LIMIT, chain_of, frames_of, sub_test_named, text_of, type_name

PARSED_LIMIT = 8
LARGE_SOURCE = 10 * 1000
TEAR_DOWN_GROUPS = ("errors during test teardown", "errors while tearing down")
NOT_RUN = re.compile(r"(reason: )?\[NOTRUN\]")
TIMED_OUT = re.compile(r"Timeout \(?>([0-9.]+)s\)? from pytest-timeout")


def parse_sources_once():
    """pytest parses the whole of a test's file anew for each failure it prints. In a large file of failing
    tests that takes many times as long as the tests."""
    try:
        from _pytest._code import code, source

        original = source.getstatementrange_ast
        if code.getstatementrange_ast is not original:
            return
    except (ImportError, AttributeError):  # another pytest: slower, not wrong
        return
    parsed = OrderedDict()

    def getstatementrange_ast(lineno, source, assertion=False, astnode=None):
        text = str(source)
        if len(text) < LARGE_SOURCE:
            return original(lineno, source, assertion, astnode)
        known = parsed.pop(text, None)
        found = original(lineno, source, assertion, astnode if known is None else known)
        parsed[text] = found[0]
        while len(parsed) > PARSED_LIMIT:
            parsed.popitem(last=False)
        return found

    source.getstatementrange_ast = code.getstatementrange_ast = getstatementrange_ast


def describe(call, report, root):
    """Kind, exceptions, message and frames of the failure that `report` reports."""
    excinfo = getattr(call, "excinfo", None)
    if excinfo is None:
        return describe_report(report)
    parts = _parts(excinfo.value)
    error = parts[0]
    special = _doctest(error, report) or {}
    chain = chain_of(special.pop("error", error))
    found = {
        "kind": _kind(error),
        "exceptions": [type_name(type(link)) for link in chain],
        "message": "; ".join(map(_text_of, parts)),
        "frames": frames_of(error.__traceback__ if len(parts) > 1 else excinfo.tb, root),
    }
    found.update(special)
    found["message"] = clean(found["message"])[:MESSAGE_LIMIT]
    limit = TIMED_OUT.match(found["message"])
    if limit is not None and found["kind"] == "assertion":
        found.update(kind="timeout", limit_ms=int(float(limit.group(1)) * 1000))
    return found


def describe_internal(error, unreported, root):
    """The same of what a hook raised, which ends pytest's session. `unreported` is what the test had failed
    with before."""
    kind, value, tb = error
    hook, path = _hook_of(tb, root)
    text = "%s: %s" % (kind.__name__, _text_of(value))
    where = "the hook `%s` of %s" % (hook, path) if hook else "pytest itself"
    message = "internal error: %s raised %s" % (where, text)
    if unreported is not None:
        message += ", after the test had failed: %s" % unreported["message"]
    return {
        "kind": "framework",
        "exceptions": [type_name(type(link)) for link in chain_of(value)],
        "message": clean(message)[:MESSAGE_LIMIT],
        "frames": frames_of(tb, root),
        "circumstances": [{"kind": "hook", "name": hook, "path": path}] if hook else [],
    }


def _hook_of(tb, root):
    """Name and file of the innermost hook that is running, one of the project before one of pytest."""
    found, found_of_pytest = ("", ""), ("", "")
    while tb is not None:
        code = tb.tb_frame.f_code
        path = code.co_filename
        if code.co_name.startswith("pytest_"):
            if "/_pytest/" in path:
                found_of_pytest = (code.co_name, "pytest")
            elif not os.path.basename(path).startswith("flakefarm_"):
                found = (code.co_name, _shown(path, root))
        tb = tb.tb_next
    return found if found[0] else found_of_pytest


def traceback_of(error):
    try:
        text = "".join(traceback.format_exception(*error))
    except Exception as second:  # an exception that cannot be printed
        text = "the traceback could not be printed: %s\n" % type(second).__name__
    return "----- internal error of pytest -----\n%s\n" % text


def circumstances_of(error, fixtures):
    """The fixtures in whose set-up or tear-down something was raised, if in one. `fixtures` are name and scope
    by code."""
    found = []
    for part in _parts(error):
        fixture = _fixture_of(part.__traceback__, fixtures)
        if fixture is not None:
            circumstance = {"kind": "fixture", "name": fixture[0], "scope": fixture[1]}
            if circumstance not in found:
                found.append(circumstance)
    return found


def torn_down(error, fixtures, test, root):
    """The fixtures of a wider scope whose tear-down has failed, each with its failure, and whether nothing else
    has: whichever test comes last, the failure is not its own."""
    found, others = [], False
    for part in _parts(error):
        fixture = _fixture_of(part.__traceback__, fixtures)
        if fixture is None or fixture[1] == "function":
            others = True
            continue
        name, scope, path = fixture
        found.append(
            {
                "name": name,
                "scope": scope,
                # Each class has its own, each module that of the file it is in.
                "home": test.rpartition("::")[0] if scope == "class" else _shown(path, root),
                "kind": _kind(part),
                "exceptions": [type_name(type(link)) for link in chain_of(part)],
                "message": clean(_text_of(part))[:MESSAGE_LIMIT],
                "frames": frames_of(part.__traceback__, root),
            }
        )
    return found, bool(found) and not others


def _fixture_of(tb, fixtures):
    """Name, scope and file."""
    found = None
    while tb is not None:
        code = tb.tb_frame.f_code
        if found is None:
            known = fixtures.get(code)
            found = known and known + (code.co_filename,)
        elif found[0].startswith("_") and "/_pytest/" not in code.co_filename:
            # pytest makes fixtures of `setup_class` and its like.
            found = (code.co_name, found[1], code.co_filename)
        tb = tb.tb_next
    return None if found is None else (clean(found[0]), found[1], found[2])


def _shown(path, root):
    """Below the project's root, or among the installed packages."""
    prefix = root.rstrip(os.sep) + os.sep
    return clean(path[len(prefix):] if path.startswith(prefix) else path.rsplit("/site-packages/", 1)[-1])


def _parts(error):
    """What pytest has put together because several fixtures failed in their tear-down."""
    parts = getattr(error, "exceptions", None)
    if parts and type(error).__name__.endswith("ExceptionGroup") and str(error).startswith(TEAR_DOWN_GROUPS):
        return [inner for part in parts for inner in _parts(part)]
    return [error]


def name_sub_test(event, report):
    """Says of which sub-test a report is, if of one."""
    context = getattr(report, "context", None)
    if context is None:
        return
    # pytest itself keeps texts of them, pytest-subtests what they were.
    name = sub_test_named(getattr(context, "msg", None), getattr(context, "kwargs", None))
    event["circumstances"] = event.get("circumstances", []) + [{"kind": "sub_test", "name": name}]
    event["message"] = ("sub-test %s: %s" % (name, event.get("message", "")))[:MESSAGE_LIMIT]


def is_excused(report):
    """Whether a failure says nothing of the test."""
    return getattr(report, "flakefarm_excused", False)


def is_of_others(report):
    """Whether nothing failed but the tear-down of fixtures that other tests share."""
    return getattr(report, "flakefarm", {}).get("torn_down_only", False)


def is_not_run(report):
    """Whether a test is expected to fail and therefore was not run."""
    return report.when == "setup" and NOT_RUN.match(str(getattr(report, "wasxfail", ""))) is not None


def not_run_reason(report):
    return NOT_RUN.sub("", str(report.wasxfail)).strip() or "no reason given"


def is_strict_xpass(report):
    return isinstance(report.longrepr, str) and report.longrepr.startswith("[XPASS(strict)]")


def describe_report(report):
    """The same from a report alone: a strict expected failure that passed, or a sub-test."""
    longrepr = getattr(report, "longrepr", None)
    crash = getattr(longrepr, "reprcrash", None)
    if crash is None:
        return {
            "kind": "framework",
            "exceptions": [],
            "message": clean(str(longrepr or "failed without a message"))[:MESSAGE_LIMIT],
            "frames": [],
        }
    text = str(crash.message)
    name = text.split(":", 1)[0].strip()
    known = getattr(builtins, name, None)
    is_error = isinstance(known, type) and issubclass(known, BaseException)
    assertion = name == "AssertionError" or text.startswith("assert ")
    return {
        "kind": "assertion" if assertion or name == "Failed" else "exception",
        "exceptions": ["builtins." + name] if is_error else ["builtins.AssertionError"] if assertion else [],
        "message": clean(text.split(": ", 1)[-1] if is_error else text)[:MESSAGE_LIMIT],
        "frames": [],
    }


def _kind(error):
    names = [type_name(base) for base in type(error).__mro__]
    if "_pytest.fixtures.FixtureLookupError" in names:
        return "framework"
    if isinstance(error, AssertionError) or "builtins.Failed" in names or "_pytest.outcomes.Failed" in names:
        return "assertion"
    if "doctest.DocTestFailure" in names:
        return "assertion"
    return "exception"


def _doctest(error, report):
    """A failed doctest says nothing in its exception: take its text from the report."""
    failures = getattr(error, "failures", None)
    first = failures[0] if isinstance(failures, list) and failures else error
    if type(first).__module__ != "doctest":
        return None
    text = str(getattr(report, "longreprtext", "") or first)
    unexpected = getattr(first, "exc_info", None)
    if unexpected:
        return {"kind": "exception", "error": unexpected[1], "message": _text_of(unexpected[1]), "frames": []}
    return {"kind": "assertion", "error": first, "message": text[-MESSAGE_LIMIT:], "frames": []}


def _text_of(error):
    if type_name(type(error)) == "_pytest.fixtures.FixtureLookupError":
        return "fixture %r was not found" % (error.argname,)
    return text_of(error)
