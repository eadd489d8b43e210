"""The search index: orders are added at once, and become visible at the next tick."""

import threading
import time

TICK_SECONDS = 0.02


class Index:
    def __init__(self):
        self._pending = []
        self._visible = set()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(self, order):
        with self._lock:
            self._pending.append(order)

    def find(self, order):
        with self._lock:
            return order in self._visible

    def wait_for(self, order, seconds):
        with self._changed:
            return self._changed.wait_for(lambda: order in self._visible, timeout=seconds)

    def close(self):
        self._stopping.set()
        self._thread.join()

    def _run(self):
        # Ticks are the clock's, not counted from the start: every index in a room ticks together.
        while not self._stopping.wait(TICK_SECONDS - time.monotonic() % TICK_SECONDS):
            with self._changed:
                self._visible.update(self._pending)
                self._pending.clear()
                self._changed.notify_all()
