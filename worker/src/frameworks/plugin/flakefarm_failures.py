"""Describes one failed phase of one test in plain data."""

import builtins
import os
from collections import OrderedDict

from flakefarm_channel import clean

MESSAGE_LIMIT = 2000
OUTPUT_LIMIT = 64 * 1024
FRAME_LIMIT = 64
CHAIN_LIMIT = 16
PARSED_LIMIT = 8
LARGE_SOURCE = 10 * 1000


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
    error = excinfo.value
    special = _doctest(error, report) or {}
    chain = _chain(special.pop("error", error))
    found = {
        "kind": _kind(error),
        "exceptions": [_type_name(type(link)) for link in chain],
        "message": _text_of(error),
        "frames": _frames(excinfo.tb, root),
    }
    found.update(special)
    found["message"] = clean(found["message"])[:MESSAGE_LIMIT]
    return found


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


def bounded(text, limit=OUTPUT_LIMIT):
    """`text` with its head and its tail kept."""
    text = clean(text)
    if len(text) <= limit:
        return text
    half = limit // 2
    return "%s\n[... %d characters left out ...]\n%s" % (text[:half], len(text) - 2 * half, text[-half:])


def _kind(error):
    names = [_type_name(base) for base in type(error).__mro__]
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


def _chain(error):
    """The exception and its causes, outermost first."""
    chain = []
    while error is not None and len(chain) < CHAIN_LIMIT and not any(error is seen for seen in chain):
        chain.append(error)
        if error.__cause__ is not None:
            error = error.__cause__
        elif error.__suppress_context__:
            error = None
        else:
            error = error.__context__
    return chain


def _type_name(kind):
    return clean("%s.%s" % (getattr(kind, "__module__", "?"), getattr(kind, "__qualname__", kind.__name__)))


def _text_of(error):
    if _type_name(type(error)) == "_pytest.fixtures.FixtureLookupError":
        return "fixture %r was not found" % (error.argname,)
    try:
        return str(error)
    except Exception as second:
        return "the exception's text raised %s" % type(second).__name__


def _frames(tb, root):
    frames = []
    prefix = root.rstrip(os.sep) + os.sep
    while tb is not None:
        code = tb.tb_frame.f_code
        path = code.co_filename
        if not path.startswith(("/", "<")):
            path = prefix + path
        if path.startswith(prefix) and "/site-packages/" not in path:
            frames.append({"path": clean(path[len(prefix):]), "line": tb.tb_lineno or 0, "function": clean(code.co_name)})
        tb = tb.tb_next
    if len(frames) > FRAME_LIMIT:
        half = FRAME_LIMIT // 2
        frames = frames[:half] + frames[-half:]
    return frames
