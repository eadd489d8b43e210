"""The test in hand, in any framework: its clocks, and what every `end` event holds."""

import resource
import time

REASON_LIMIT = 2000
NO_ROUTE_LIMIT = 2**32 - 1
PHASES = ("setup", "call", "teardown")


class Clocks:
    """Bound when they are made, out of reach of frozen time."""

    def __init__(self):
        self._wall = time.perf_counter
        self._cpu = time.process_time
        self._usage = resource.getrusage
        self._children = resource.RUSAGE_CHILDREN

    def read(self):
        """Seconds on the wall, and seconds of CPU with those of children that have ended."""
        usage = self._usage(self._children)
        return self._wall(), self._cpu() + usage.ru_utime + usage.ru_stime


class InHand:
    """The test in hand."""

    def __init__(self, test, position):
        self.test = test
        self.position = position
        self.warnings = []
        self.circumstances = []
        # Packets and connections of it and its children that found no route.
        self.no_route = 0
        self.start_clocks()

    def start_clocks(self):
        self.walls = dict.fromkeys(PHASES, 0.0)
        self.cpu = 0.0

    def took(self, phase, start, end):
        """Adds what lies between two readings of the clocks to a phase."""
        self.walls[phase] += end[0] - start[0]
        self.cpu += end[1] - start[1]

    def asked_for_network(self):
        """A circumstance of its failure, if it did."""
        return [{"kind": "no_route", "packets": min(self.no_route, NO_ROUTE_LIMIT)}] if self.no_route > 0 else []

    def event(self):
        phases = [max(0, int(self.walls[phase] * 1e6)) for phase in PHASES]
        return {
            "e": "end",
            "test": self.test,
            "i": self.position,
            "wall_us": sum(phases),
            "cpu_us": max(0, int(self.cpu * 1e6)),
            "phases_us": phases,
            "warnings": self.warnings,
        }
