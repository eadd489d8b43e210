#!/usr/bin/env python3
"""Measures how soon a coordinator answers while its farm is at rest, and while it works on a bulk sweep of
100,000 queued attempts: 50th and 95th percentile in milliseconds of each route.

The floor is measured beside: `/healthz`, which asks no token and no store, and `SELECT 1` of one open
connection to the database. What they lose under the load is lost by the machine, whatever is asked. Requests
go over one connection, far enough apart that the rate of a token is not met; routes take turns, so that each
meets the same load. Coordinator, two workers of one slot each and the servers share the machine unless
`--workers-on 1 --coordinator-on 0` (lists of CPUs) part them; engine and servers stay where they are.
Only the standard library, and psql.

    deploy/dev/with-services docker rabbitmq redis postgres -- python3 tests/latency/api.py BINARY
"""

import argparse
import contextlib
import http.client
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse

import latency

STORES = re.compile(r"flakefarm_store_request_seconds_(sum|count)\{(.*)\} (\S+)")
LABEL = re.compile(r'(\w+)="(\w+)"')
SPACING = 0.025
PARTS = {
    "engine": ("dockerd", "containerd", "runc", "docker"), "postgres": ("postgres",), "redis": ("redis",),
    "rabbitmq": ("beam", "erl"), "this script": ("python3", "psql"),
}
# Runs as many as wait for an answer of the farm at any time need: none of it is forked.
SWEEP = ["--scope", "test", "--sandbox", "forked", "--panel", "none"]


class Psql:
    """`SELECT 1` over one connection; psql takes the time itself."""

    def __init__(self, address):
        self.process = subprocess.Popen(["psql", "-XAtq", address], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, bufsize=1)
        self.process.stdin.write("\\timing on\n")

    def ask(self):
        self.process.stdin.write("SELECT 1;\n")
        self.process.stdin.flush()
        while not (line := self.process.stdout.readline()).startswith("Time:"):
            if not line:
                sys.exit("psql has ended")
        return float(line.split()[1])

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Client:
    """One connection to the coordinator."""

    def __init__(self, farm):
        self.connection = http.client.HTTPConnection(urllib.parse.urlparse(farm.url).netloc, timeout=60)
        self.headers = {"authorization": "Bearer " + farm.token, "flakefarm-api": "1"}
        self.has_metrics = b'"/metrics"' in self.get("/openapi.json")[1]

    def get(self, path):
        began = time.monotonic()
        self.connection.request("GET", path, headers=self.headers)
        answer = self.connection.getresponse()
        body = answer.read()
        took = (time.monotonic() - began) * 1e3
        if answer.status != 200:
            sys.exit(f"GET {path}: {answer.status} {body[:200]}")
        return took, body


def statements(client):
    """Calls and seconds of each store so far, as the coordinator counts them."""
    found = {}
    if not client.has_metrics:
        return found
    for what, labels, value in STORES.findall(client.get("/metrics")[1].decode()):
        labels = dict(LABEL.findall(labels))
        found.setdefault((labels["store"], labels["operation"]), {})[what] = float(value)
    return found


def processes():
    """CPU seconds by process, with what it is part of."""
    found = {}
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
            program = pathlib.Path(words[0].split(":")[0] or "kernel").name
            part = words[1] if program.startswith("flakefarm") and len(words) > 1 else next(
                (part for part, names in PARTS.items() if program.startswith(names)), "others")
            found[int(directory.name), part] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def measured(farm, paths, rounds):
    """Milliseconds of each route, sorted."""
    client, psql = Client(farm), Psql(farm.database)
    took = {path: [] for path in ["SELECT 1", *paths]}
    before, began, cpu, parts = statements(client), time.monotonic(), latency.busy(), processes()
    for _ in range(rounds):
        for path in took:
            took[path].append(psql.ask() if path == "SELECT 1" else client.get(path)[0])
            time.sleep(SPACING)
    seconds, cpu = time.monotonic() - began, latency.busy() - cpu
    after, later = statements(client), processes()
    psql.close()
    shares = {}
    for (process, part), spent in later.items():
        shares[part] = shares.get(part, 0.0) + spent - parts.get((process, part), 0.0)
    # Processes that have begun and ended in between are seen by nobody: attempts, above all.
    shares["short-lived"] = cpu - sum(shares.values())
    shares = ", ".join(f"{part} {spent / seconds:.2f}" for part, spent in sorted(shares.items()))
    print(f"  {seconds:.0f} s, {cpu / seconds:.2f} of {os.cpu_count()} CPUs busy: {shares}", file=sys.stderr)
    for key, now in sorted(after.items()):
        then = before.get(key, {"sum": 0.0, "count": 0.0})
        count = now["count"] - then["count"]
        if count:
            print(f"    {key[0]} {key[1]}: {count / seconds:.1f}/s, {(now['sum'] - then['sum']) / count * 1e3:.2f} ms each",
                  file=sys.stderr)
    return {path: sorted(times) for path, times in took.items()}


def percentile(times, share):
    return times[min(int(len(times) * share), len(times) - 1)]


@contextlib.contextmanager
def pinned(cpus):
    """What is started within runs on these CPUs only."""
    before = os.sched_getaffinity(0)
    if cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("flakefarm")
    options.add_argument("--rounds", type=int, default=200)
    options.add_argument("--workers-on", help="CPUs of the workers")
    options.add_argument("--coordinator-on", help="CPUs of the coordinator")
    given = options.parse_args()
    binary = str(pathlib.Path(given.flakefarm).resolve())
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flakefarm-api-")))
        os.environ["XDG_STATE_HOME"] = str(directory / "state")
        farm = latency.Farm(binary, directory, stack, lambda role: pinned(
            given.coordinator_on if role == "coordinator" else given.workers_on))
        stack.callback(farm.drop)
        tests = f"import pytest\n@pytest.mark.parametrize('n', range({latency.BULK_TESTS}))\ndef test_bulk(n): pass\n"
        bulk = latency.project(directory / "bulk", "bulk", tests)
        # The environment is made, and there is a history to ask for.
        subprocess.run([binary, "sweep", bulk, "--runs", "5", *SWEEP, *farm.arguments()], check=True,
                       capture_output=True)
        paths = ["/healthz", "/v1/workers", "/v1/sweeps", "/v1/tests?project=bulk", "/v1/dead"]
        idle = measured(farm, paths, given.rounds)
        command = [binary, "sweep", bulk, "--runs", str(latency.BULK_RUNS), *SWEEP, "--detach", *farm.arguments()]
        sweep = subprocess.run(command, check=True, capture_output=True).stdout.decode().strip()

        def queued():
            return int(farm.rows("SELECT coalesce(sum(attempts), 0) FROM jobs WHERE state <> 'settled'")[0][0])

        most = latency.BULK_TESTS * latency.BULK_RUNS
        latency.wait_until("that most of the bulk sweep is queued", 600, lambda: queued() > 0.8 * most)
        waiting = queued()
        load = measured(farm, paths, given.rounds)
        left = queued()
        subprocess.run([binary, "cancel", sweep, *farm.arguments()], check=False, capture_output=True)
    print(f"{waiting:,} attempts queued at first, {left:,} at the end; {given.rounds} requests each\n")
    print("| asked | idle p50 | idle p95 | load p50 | load p95 | p95 load / idle |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for path in idle:
        cells = [percentile(times[path], share) for times in (idle, load) for share in (0.5, 0.95)]
        print(f"| `{path}` | " + " | ".join(f"{cell:.1f}" for cell in cells) + f" | {cells[3] / cells[1]:.1f} |")


if __name__ == "__main__":
    main()
