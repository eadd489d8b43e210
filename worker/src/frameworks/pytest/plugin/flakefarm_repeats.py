"""Each test three times in one process: at first, again within the same session, where only what the test
itself had set up was torn down, and once more after fixtures of all scopes were. What a test leaves behind
in its own process shows in the second pass or in the third; if in the second alone, it was left in a fixture
of a wider scope or in what `setup_class` and its like have made.
"""

import sys


def repeater(pytest, recorder):
    """A plugin for the passes before the one that pytest makes itself."""

    from _pytest.runner import runtestprotocol

    class Repeats:
        """A hook of its own, within those that wrap a run: they catch warnings and output, and explain
        assertions."""

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_protocol(self, item):
            if recorder.running is None:
                return
            globs = Globals(item)
            # The next test is in the same place: nothing beyond the item itself is torn down.
            recorder.first_pass_ended(runtestprotocol(item, log=False, nextitem=item.parent))
            globs.restore()
            # Without a next test, fixtures of all scopes are torn down.
            recorder.second_pass_ended(runtestprotocol(item, log=False, nextitem=None), wider_fixtures(item))
            globs.restore()

    return Repeats()


class Globals:
    """What a doctest's names stand for, which running it clears."""

    def __init__(self, item):
        globs = getattr(getattr(item, "dtest", None), "globs", None)
        self._globs = globs if isinstance(globs, dict) else None
        self._kept = dict(globs) if self._globs is not None else None

    def restore(self):
        if self._globs is not None:
            self._globs.clear()
            self._globs.update(self._kept)


def wider_fixtures(item):
    """The fixtures of a test that outlive it, as far as the project has named them."""
    found = []
    definitions = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    for name in sorted(definitions):
        scope = str(getattr(definitions[name][-1], "scope", "function"))
        home = getattr(definitions[name][-1].func, "__module__", "") or ""
        if scope != "function" and not home.startswith("_pytest.") and not name.startswith("_"):
            found.append({"name": name, "scope": scope})
    return found


def is_of_the_log(excinfo):
    """Whether pytest's own handlers of log records failed, which a test has closed or emptied."""
    tb = excinfo.tb
    while tb is not None and tb.tb_next is not None:
        tb = tb.tb_next
    module = sys.modules.get("_pytest.logging")
    return tb is not None and module is not None and tb.tb_frame.f_code.co_filename == module.__file__
