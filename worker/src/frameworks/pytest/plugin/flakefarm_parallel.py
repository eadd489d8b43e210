"""In each worker process of pytest-xdist: selects and orders tests as the controlling process was
asked to, and describes failures where their exceptions are.

The controlling process names the request's file in the environment; workers inherit that.
"""

import json
import os

import pytest

REQUEST = "FLAKEFARM_PARALLEL"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    path = os.environ.get(REQUEST)
    if path is None or not hasattr(config, "workerinput"):
        return
    import flakefarm_quiet as quiet
    from flakefarm_recorder import Recorder
    from flakefarm_world import Plain

    quiet.silence(config.option, False)

    with open(path, encoding="utf-8") as file:
        request = json.load(file)
    recorder = Recorder(None, dict(request, detail=None), os.getcwd(), Plain(request))

    class Hooks:
        @pytest.hookimpl(tryfirst=True)
        def pytest_sessionstart(self, session):
            quiet.unregister(session.config.pluginmanager)

        @pytest.hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_collection_modifyitems(self, config, items):
            outcome = yield
            if outcome.excinfo is None:
                left_out = recorder.select_and_order(items)
                if left_out:
                    config.hook.pytest_deselected(items=left_out)

        @pytest.hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_runtest_makereport(self, call):
            outcome = yield
            if outcome.excinfo is None:
                recorder.describe_failure(call, outcome.get_result())

    config.pluginmanager.register(Hooks(), "flakefarm_parallel_hooks")
