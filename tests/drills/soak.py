#!/usr/bin/env python3
"""Soaks a farm: many scripted attempts on many workers, with faults all the time, on the real servers. For each hundred
jobs that end, as many faults of each kind strike as `--faults` says: a worker killed, told to leave, or stopped for a
while; its connections closed by the broker; connections closed by Redis and by PostgreSQL; a coordinator killed. None
of the attempts may be lost or counted twice, and the coordinators' memory must not grow with what they have done.

    make soak                                            a million attempts, 200 workers, 2 % of each fault
    make soak SOAK_ARGS='--attempts 20000 --workers 20'
"""

import argparse
import collections
import json
import os
import pathlib
import random
import signal
import statistics
import subprocess
import time
import urllib.error
import urllib.parse

from farm import Farm, eventually, fetch, needed, say

TESTS = 500
# Of an attempt, in milliseconds: scripted, it only waits.
PACE = 100
SLOTS = 2
# A stopped worker goes on after so many seconds: less than a lease, or more.
PAUSES = (1, 8, 45)
# A coordinator takes some seconds to start: not killed oftener.
BETWEEN_COORDINATORS = 20
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
BEGIN, END = "<!-- soak -->", "<!-- /soak -->"


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--flakefarm", required=True)
    options.add_argument("--scripted-worker", required=True)
    options.add_argument("--attempts", type=int, default=1_000_000)
    options.add_argument("--workers", type=int, default=200)
    options.add_argument("--faults", type=float, default=2.0, help="of each kind, for a hundred jobs that end")
    options.add_argument("--sweeps", type=int, default=5, help="that share the attempts")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--minutes", type=float, default=60.0, help="beyond which it has failed")
    options.add_argument("--most-memory", type=float, default=300.0, help="of a coordinator, in MiB")
    options.add_argument("--write-docs", metavar="FILE", help="the table goes here")
    args = options.parse_args()
    farm = Farm(args.flakefarm, "soak")
    try:
        Soak(args, farm).run()
    finally:
        farm.end()


class Soak:
    """The farm, what it is asked, and what is done to it."""

    def __init__(self, args, farm):
        self.args, self.farm, self.random = args, farm, random.Random(args.seed)
        self.coordinators, self.workers, self.paused, self.told = {}, {}, {}, set()
        self.started, self.faults = 0, collections.Counter()
        self.owed = collections.Counter()
        self.coordinator_killed = 0.0
        self.memory = []
        self.cpu = collections.Counter()
        self.dir = farm.dir / "work"
        self.dir.mkdir()

    # What the farm is made of.

    def add_coordinator(self):
        self.started += 1
        name = "coordinator-%d" % self.started
        process, url = self.farm.coordinator(name, FLAKEFARM_LEASE="30s")
        self.farm.url = url
        self.coordinators[name] = (process, url)

    def add_worker(self):
        self.started += 1
        name = "worker-%d" % self.started
        command = [self.args.scripted_worker, name, str(SLOTS), str(TESTS), str(PACE), str(self.dir)]
        self.workers[name] = self.farm.spawn(name, command, RUST_LOG="warn")

    def settled(self):
        done, ended = self.farm.psql("SELECT (SELECT COUNT(*) FROM jobs WHERE state = 'settled'), (SELECT COUNT(*) FROM sweeps WHERE state <> 'running')", self.farm.name).split("|")
        return int(done), int(ended)

    # What is done to it.

    def strike(self, kind):
        able = [name for name, process in self.workers.items() if process.poll() is None and name not in self.paused]
        worker = self.random.choice(able)
        if kind == "worker killed":
            self.leave(worker, signal.SIGKILL)
        elif kind == "worker told to leave":
            self.leave(worker, signal.SIGTERM)
        elif kind == "worker stopped for a while":
            self.workers[worker].send_signal(signal.SIGSTOP)
            self.paused[worker] = time.monotonic() + self.random.choice(PAUSES)
        elif kind == "connection closed by the broker":
            open_now = self.farm.broker.ask("GET", "/api/vhosts/%s/connections" % self.farm.name)
            if not open_now:
                return False
            name = self.random.choice(open_now)["name"]
            try:
                self.farm.broker.ask("DELETE", "/api/connections/" + urllib.parse.quote(name, safe=""))
            except urllib.error.HTTPError as error:
                # Its process may have ended since.
                if error.code != 404:
                    raise
                return False
        elif kind == "connection closed by Redis":
            return self.closed_by_redis()
        elif kind == "connection closed by PostgreSQL":
            closed = self.farm.psql("SELECT COUNT(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1) one", self.farm.name)
            return closed == "1"
        elif kind == "coordinator killed":
            if time.monotonic() - self.coordinator_killed < BETWEEN_COORDINATORS:
                return False
            self.coordinator_killed = time.monotonic()
            name = self.random.choice(sorted(self.coordinators))
            process, _ = self.coordinators.pop(name)
            self.count_cpu("coordinators", process)
            process.kill()
            process.wait()
            self.add_coordinator()
        return True

    def closed_by_redis(self):
        address = urllib.parse.urlsplit(needed("FLAKEFARM_TEST_REDIS_URL"))
        ask = lambda *words: subprocess.run(["redis-cli", "-h", address.hostname, "-p", str(address.port), *words], capture_output=True, text=True).stdout
        clients = [dict(pair.split("=", 1) for pair in line.split() if "=" in pair)["id"] for line in ask("client", "list", "type", "normal").splitlines()]
        return ask("client", "kill", "id", self.random.choice(clients)).strip() == "1"

    def leave(self, worker, how):
        process = self.workers[worker]
        process.send_signal(how)
        self.told.add(worker)
        if how == signal.SIGKILL:
            process.wait()
            del self.workers[worker]
            self.add_worker()

    KINDS = ("worker killed", "worker told to leave", "worker stopped for a while", "connection closed by the broker", "connection closed by Redis", "connection closed by PostgreSQL", "coordinator killed")

    def tend(self):
        """Those that were stopped go on, those that left are replaced."""
        now = time.monotonic()
        for name in [name for name, until in self.paused.items() if until <= now]:
            del self.paused[name]
            self.workers[name].send_signal(signal.SIGCONT)
        for name in [name for name, process in self.workers.items() if process.poll() is not None]:
            process = self.workers.pop(name)
            # One that was just starting does not listen for the signal yet: it has nothing in hand, and dies of it.
            starting = name in self.told and process.returncode == -signal.SIGTERM
            if process.returncode != 0 and not starting:
                tail = self.farm.log(name).read_text(errors="replace")[-2000:]
                raise SystemExit("error: %s ended by itself with %d:\n%s" % (name, process.returncode, tail))
            self.add_worker()
        for name, (process, _) in self.coordinators.items():
            if process.poll() is not None:
                raise SystemExit("error: %s ended by itself with %d:\n%s" % (name, process.returncode, self.farm.log(name).read_text(errors="replace")[-2000:]))

    # What is seen of it.

    def count_cpu(self, of, process):
        try:
            fields = pathlib.Path("/proc/%d/stat" % process.pid).read_text().rsplit(")", 1)[1].split()
        except OSError:
            return
        self.cpu[of] += (int(fields[11]) + int(fields[12])) / TICKS

    def look_at_memory(self, attempts):
        for name, (process, _) in self.coordinators.items():
            try:
                pages = int(pathlib.Path("/proc/%d/statm" % process.pid).read_text().split()[1])
            except OSError:
                continue
            self.memory.append((attempts, pages * PAGE / 2**20))

    def run(self):
        args = self.args
        for _ in range(2):
            self.add_coordinator()
        project = self.farm.waiting(1)
        begun = time.monotonic()
        for _ in range(args.workers):
            self.add_worker()
        runs = max(1, args.attempts // args.sweeps // TESTS)
        planned = runs * TESTS * args.sweeps
        sweeps = [self.farm.submit(project, "--runs", str(runs), "--scope", "test", "--panel", "none", "--order", "given", "--seed", str(number + 1), "--sandbox", "forked-only") for number in range(args.sweeps)]
        say("%d attempts in %d sweeps, %d workers" % (planned, len(sweeps), args.workers))
        seen, told, deadline = 0, begun, begun + args.minutes * 60
        while True:
            done, ended = eventually("the database answers", 60, lambda: self.settled())
            for kind in self.KINDS:
                self.owed[kind] += (done - seen) * args.faults / 100
            seen = done
            self.tend()
            # Those that are due, but not all at once: one of each kind a look.
            for kind in self.KINDS:
                if self.owed[kind] >= 1 and ended < len(sweeps):
                    self.owed[kind] -= 1
                    if self.strike(kind):
                        self.faults[kind] += 1
            attempts = lines(self.dir / "starts")
            self.look_at_memory(attempts)
            if ended == len(sweeps):
                break
            if time.monotonic() > deadline:
                raise SystemExit("error: not ended within %g minutes: %d jobs settled, %d attempts started" % (args.minutes, done, attempts))
            if time.monotonic() - told > 30:
                told = time.monotonic()
                say("%d jobs settled, %d attempts started, %s" % (done, attempts, dict(self.faults)))
            time.sleep(0.25)
        self.judge(sweeps, runs, planned, time.monotonic() - begun, seen)

    def judge(self, sweeps, runs, planned, seconds, jobs):
        for process, _ in self.coordinators.values():
            self.count_cpu("coordinators", process)
        for process in self.workers.values():
            self.count_cpu("workers alive at the end", process)
        wrong, counted = [], 0
        for sweep in sweeps:
            state, report = self.farm.state(sweep)["state"], self.farm.report(sweep)
            off = {test["id"]: test["attempts"] for test in report["tests"] if test["attempts"] != runs}
            counted += sum(test["attempts"] for test in report["tests"])
            if state != "answered" or len(report["tests"]) != TESTS or off or any(test["failures"] for test in report["tests"]):
                wrong.append("sweep %s is %s, with %d tests, %d of them not run %d times: %s" % (sweep, state, len(report["tests"]), len(off), runs, dict(list(off.items())[:5])))
        history = sum(self.farm.history(test["id"]) for test in self.farm.report(sweeps[0])["tests"][:10])
        if history != 10 * runs * len(sweeps):
            wrong.append("the history of ten tests has %d runs, not %d" % (history, 10 * runs * len(sweeps)))
        started = lines(self.dir / "starts")
        left = self.farm.psql("SELECT (SELECT COUNT(*) FROM jobs WHERE state <> 'settled'), (SELECT COUNT(*) FROM jobs WHERE ending = 'dead'), (SELECT COUNT(*) FROM parked)", self.farm.name)
        if left != "0|0|0":
            why = self.farm.psql("SELECT settlement, last_error, COUNT(*) FROM jobs WHERE ending = 'dead' GROUP BY 1, 2 LIMIT 5", self.farm.name)
            wrong.append("open jobs | dead jobs | parked messages: %s\n%s" % (left, why))
        later = [point for point in self.memory if point[0] > planned / 4]
        slope = statistics.linear_regression(*zip(*later)).slope * 1e5 if len({at for at, _ in later}) > 1 else 0.0
        peak = max(size for _, size in self.memory)
        if peak > self.args.most_memory:
            wrong.append("a coordinator took %.0f MiB" % peak)
        figures = {
            "attempts": planned, "counted": counted, "started": started, "jobs": jobs, "seconds": round(seconds), "per_second": round(planned / seconds), "workers": self.args.workers,
            "processes": self.started, "faults": dict(self.faults), "peak_mib": round(peak), "slope_mib_per_100000": round(slope, 2), "cpu_seconds": {of: round(spent) for of, spent in self.cpu.items()},
        }
        print(json.dumps(figures, indent=1))
        text = table(figures)
        print(text)
        if self.args.write_docs:
            path = pathlib.Path(self.args.write_docs)
            head, rest = path.read_text().split(BEGIN, 1)
            path.write_text(head + BEGIN + "\n" + text + END + rest.split(END, 1)[1])
        unfelt = [kind for kind in self.KINDS if self.args.faults > 0 and not self.faults[kind]]
        if unfelt:
            wrong.append("never struck: %s" % ", ".join(unfelt))
        if wrong:
            raise SystemExit("error: " + "\n".join(wrong))


def lines(path):
    try:
        with open(path, "rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except FileNotFoundError:
        return 0


def table(figures):
    rows = [
        ("attempts asked for, counted, started", "{attempts:,}, {counted:,}, {started:,}"),
        ("jobs", "{jobs:,}"),
        ("seconds; attempts a second", "{seconds:,}; {per_second:,}"),
        ("workers at once; processes in all", "{workers}; {processes}"),
        ("largest coordinator", "{peak_mib} MiB"),
        ("its growth for 100,000 more attempts", "{slope_mib_per_100000} MiB"),
    ]
    rows = [(what, how.format(**figures)) for what, how in rows]
    rows += [(kind, str(number)) for kind, number in figures["faults"].items()]
    rows += [("CPU seconds of %s" % of, "{:,}".format(spent)) for of, spent in figures["cpu_seconds"].items()]
    return "| | |\n| --- | ---: |\n" + "".join("| %s | %s |\n" % row for row in rows)


if __name__ == "__main__":
    main()
