"""What is told of exceptions, whichever framework they were raised under."""

import os

from flakefarm_channel import clean

MESSAGE_LIMIT = 2000
OUTPUT_LIMIT = 64 * 1024
FRAME_LIMIT = 64
CHAIN_LIMIT = 16
NAME_LIMIT = 200


def bounded(text, limit=OUTPUT_LIMIT):
    """`text` with its head and its tail kept."""
    text = clean(text)
    if len(text) <= limit:
        return text
    half = limit // 2
    return "%s\n[... %d characters left out ...]\n%s" % (text[:half], len(text) - 2 * half, text[-half:])


def chain_of(error):
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


def type_name(kind):
    return clean("%s.%s" % (getattr(kind, "__module__", "?"), getattr(kind, "__qualname__", kind.__name__)))


def text_of(error):
    try:
        return str(error)
    except Exception as second:
        return "the exception's text raised %s" % type(second).__name__


def frames_of(tb, root):
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


def sub_test_named(message, parameters):
    """The name of a part of a test, by what was said of it."""
    pairs = sorted(dict(parameters or {}).items())
    values = ", ".join("%s=%s" % (key, value if isinstance(value, str) else repr(value)) for key, value in pairs)
    name = clean(" ".join(part for part in (str(message) if message else "", "(%s)" % values if values else "") if part))
    return name[:NAME_LIMIT] or "without a name"
