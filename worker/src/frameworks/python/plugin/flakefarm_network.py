"""Whether a test, or any program that it started, asked for a network that is not there.

The kernel counts, for each network namespace, the packets and connections for which it found no route, whoever
asked. A sandbox without a network has a namespace of its own, with nothing but a loopback, so what is counted
between a test's start and its end is the test's: its children's, too, in whatever language. Looking a name up
counts as well, unless the name server is on the loopback itself.
"""


class NoRoutes:
    """Reads the counters; 0 where there are none. What it needs is bound early: tests replace functions."""

    def __init__(self, open=open):
        self._open = open

    def count(self):
        return self._of_ip() + self._of_ip6()

    def _of_ip(self):
        try:
            with self._open("/proc/self/net/snmp", "rb") as lines:
                names, values = [line.split() for line in lines if line.startswith(b"Ip:")][:2]
            return int(values[names.index(b"OutNoRoutes")])
        except (OSError, ValueError):
            return 0

    def _of_ip6(self):
        try:
            with self._open("/proc/self/net/snmp6", "rb") as lines:
                return sum(int(line.split()[1]) for line in lines if line.startswith(b"Ip6OutNoRoutes"))
        except (OSError, ValueError, IndexError):
            return 0
