#!/usr/bin/env python3
"""Measures how long `flakefarm check` takes to answer: from the command to its first word, and to its end.

One test of 0.1 s that the job saw failing, run again up to 20 times: one that always fails, one that fails
three times in ten, one that never fails again. In the command's own process, then on a farm of this machine
(a coordinator and two workers of one slot each), then on that farm while it works on a bulk sweep of
100,000 attempts; what that sweep loses is told by how much longer its jobs took that were interrupted.
Environments are made before. Prints a table. Only the standard library, and psql for the farm.

    deploy/dev/with-services docker rabbitmq redis postgres -- python3 tests/latency/latency.py BINARY
    deploy/dev/with-services docker -- python3 tests/latency/latency.py BINARY --embedded-only

Services are found as the tests find them (FLAKEFARM_TEST_AMQP_URL and so on).
"""

import argparse
import contextlib
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
import uuid

FAILS = {"always": "1 == 2", "now and then": "__import__('random').random() < 0.7", "not again": "True"}
BULK_TESTS, BULK_RUNS = 100, 1000
REPORT = """<testsuites><testsuite name="pytest"><testcase classname="test_shop" name="test_total" time="0.1">
<failure message="assert 1 == 2"/></testcase></testsuite></testsuites>"""
SETTINGS = """[project]
name = "{name}"
[environment]
setup = ["python3 -c 'import pytest'"]
"""


def project(directory, name, tests):
    directory.mkdir()
    (directory / "flakefarm.toml").write_text(SETTINGS.format(name=name))
    (directory / "test_shop.py").write_text(tests)
    (directory / "report.xml").write_text(REPORT)
    return directory


def busy():
    """CPU seconds that this machine has spent on anything."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    idle = fields[3] + fields[4]
    return (sum(fields[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def check(binary, directory, environment, arguments):
    """Seconds to the first word, seconds to the end, CPU seconds of the machine, and what was answered."""
    command = [binary, "check", directory, "--junit", directory / "report.xml", *arguments]
    cpu, began = busy(), time.monotonic()
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    first = running.stdout.read(1)
    answered = time.monotonic() - began
    rest = running.stdout.read()
    complaint = running.stderr.read().decode()
    code = running.wait()
    ended = time.monotonic() - began
    if code not in (0, 1):
        sys.exit(f"check ended with {code}: {complaint}")
    evidence = [line.strip() for line in (first + rest).decode().splitlines() if "rerun" in line]
    return answered, ended, busy() - cpu, evidence[0].split(";")[0]


def row(table, place, fails, results, limit):
    answered, ended, cpu = ([result[column] for result in results] for column in range(3))
    table.append([
        place, fails, f"{statistics.median(answered):.1f}", f"{min(answered):.1f}-{max(answered):.1f}",
        f"{statistics.median(ended):.1f}", f"{statistics.median(cpu):.1f}", limit,
    ])
    print(f"{place}, {fails}: " + "; ".join(f"{result[0]:.2f} s ({result[3]})" for result in results),
          file=sys.stderr)


@contextlib.contextmanager
def started(command, environment, log):
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


class Farm:
    """A coordinator and two workers over the services of the tests."""

    def __init__(self, binary, directory, stack, placed=lambda role: contextlib.nullcontext()):
        """`placed` gives the context in which a process of a role is started."""
        self.binary, name = binary, "latency" + uuid.uuid4().hex[:12]
        self.postgres = os.environ["FLAKEFARM_TEST_PG_URL"]
        self.name = name
        subprocess.run(["psql", "-q", self.postgres, "-c", f"CREATE DATABASE {name}"], check=True)
        self.database = urllib.parse.urlparse(self.postgres)._replace(path="/" + name).geturl()
        queue = os.environ["FLAKEFARM_TEST_AMQP_URL"] + f"?prefix={name}"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.environment = dict(
            os.environ, FLAKEFARM_DATABASE=self.database, FLAKEFARM_QUEUE=queue,
            FLAKEFARM_SAMPLES=os.environ["FLAKEFARM_TEST_REDIS_URL"],
            FLAKEFARM_BLOBS=(directory / "blobs").as_uri(),
        )
        log = stack.enter_context(open(directory / "farm.log", "w", encoding="utf-8"))
        token = directory / "token"
        listen = self.url.removeprefix("http://")
        with placed("coordinator"):
            stack.enter_context(started(
                [binary, "coordinator", "--listen", listen, "--admin-token-file", token], self.environment, log))
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(self.url + "/healthz", timeout=5).read()
                break
            except OSError:
                if time.monotonic() > deadline:
                    sys.exit(f"the coordinator does not answer: {(directory / 'farm.log').read_text()[-2000:]}")
                time.sleep(0.1)
        self.token = token.read_text().strip()
        for worker in ("one", "two"):
            arguments = ["worker", "--slots", "1", "--id", f"{worker}-{name}"]
            with placed("worker"):
                stack.enter_context(started([binary, *arguments], self.environment, log))

    def arguments(self):
        return ["--farm", self.url, "--token", self.token]

    def drop(self):
        subprocess.run(["psql", "-q", self.postgres, "-c", f"DROP DATABASE {self.name} WITH (FORCE)"], check=False)

    def rows(self, statement):
        output = subprocess.run(["psql", "-At", self.database, "-c", statement], check=True, capture_output=True)
        return [line.split("|") for line in output.stdout.decode().splitlines()]

    def ended_jobs(self, sweep):
        """Worker, end in seconds since the epoch, and attempts of the jobs that have ended."""
        rows = self.rows(
            f"SELECT worker, settled_at, attempts FROM jobs WHERE sweep = '{sweep}' AND ending = 'done' "
            "AND attempts > 0 ORDER BY settled_at")
        return [(worker, int(settled) / 1e6, int(attempts)) for worker, settled, attempts in rows]


def wait_until(what, seconds, happened):
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            sys.exit(f"{what} has not happened in {seconds} s")
        time.sleep(0.5)


def beside_bulk(farm, directory, environment, checked, rounds, table):
    tests = "import pytest\n@pytest.mark.parametrize('n', range(%d))\ndef test_bulk(n): pass\n" % BULK_TESTS
    bulk = project(directory / "bulk", "bulk", tests)
    command = [farm.binary, "sweep", bulk, "--runs", str(BULK_RUNS), "--scope", "test", "--sandbox", "forked",
               "--panel", "none", "--detach", *farm.arguments()]
    sweep = subprocess.run(command, check=True, capture_output=True, env=environment).stdout.decode().strip()
    wait_until("that both workers have ended jobs of the bulk sweep", 600,
               lambda: len({worker for worker, _, _ in farm.ended_jobs(sweep)}) == 2)
    def queued():
        return int(farm.rows(f"SELECT coalesce(sum(attempts), 0) FROM jobs WHERE sweep = '{sweep}' "
                             "AND state <> 'settled'")[0][0])

    # More than a few jobs are planned once it is known what they cost.
    wait_until("that most of the bulk sweep is queued", 600, lambda: queued() > 0.8 * BULK_TESTS * BULK_RUNS)
    waiting = queued()
    results, spans = [], []
    for _ in range(rounds):
        began = time.time()
        results.append(check(farm.binary, checked, environment, farm.arguments()))
        spans.append((began, time.time()))
        time.sleep(30)
    many = len(farm.ended_jobs(sweep))
    wait_until("that more jobs of the bulk sweep end", 600, lambda: len(farm.ended_jobs(sweep)) >= many + 4)
    row(table, f"farm, {waiting:,} attempts of a bulk sweep queued", "always", results, "8")
    jobs = farm.ended_jobs(sweep)
    calm, disturbed = [], []
    for worker in {worker for worker, _, _ in jobs}:
        own = [(end, attempts) for of, end, attempts in jobs if of == worker]
        for (begin, _), (end, attempts) in zip(own, own[1:]):
            met = sum(1 for a, b in spans if a < end and b > begin)
            (disturbed if met else calm).append((end - begin, attempts))
    usual = statistics.median(seconds / attempts for seconds, attempts in calm)
    lost = sum(seconds - attempts * usual for seconds, attempts in disturbed)
    share = lost / len(spans) / (2 * 60)
    print(f"bulk sweep: {2 / usual:.0f} attempts/s on two slots; each check took {lost / len(spans):.1f} slot "
          f"seconds of it: one check a minute costs it {share:.1%}", file=sys.stderr)
    table.append(["bulk sweep, one check a minute", "loses", f"{share:.1%}", "", "", "", "10 %"])
    subprocess.run([farm.binary, "cancel", sweep, *farm.arguments()], check=False, capture_output=True, env=environment)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("flakefarm")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--embedded-only", action="store_true")
    options.add_argument("--without-bulk", action="store_true")
    options.add_argument("--bulk-only", action="store_true")
    given = options.parse_args()
    binary = str(pathlib.Path(given.flakefarm).resolve())
    table = []
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flakefarm-latency-")))
        environment = dict(os.environ, HOME=str(directory), XDG_STATE_HOME=str(directory / "state"))
        image = os.environ.get("FLAKEFARM_TEST_IMAGE")
        if image:
            environment.setdefault("FLAKEFARM_IMAGE", image)
        tests = "import time\ndef test_total():\n    time.sleep(0.1)\n    assert {}\n"
        projects = {
            fails: project(directory / f"p{place}", f"check-{place}", tests.format(condition))
            for place, (fails, condition) in enumerate(FAILS.items())
        }
        places = [("embedded", [], "4")]
        farm = None
        if not given.embedded_only:
            farm = Farm(binary, directory, stack)
            stack.callback(farm.drop)
            places.append(("farm", farm.arguments(), "5"))
        for place, arguments, limit in [] if given.bulk_only else places:
            for fails, checked in projects.items():
                check(binary, checked, environment, arguments)
                results = [check(binary, checked, environment, arguments) for _ in range(given.rounds)]
                row(table, place, fails, results, limit if fails == "always" else "")
        if farm and not given.without_bulk:
            beside_bulk(farm, directory, environment, projects["always"], given.rounds, table)
    load = pathlib.Path("/proc/loadavg").read_text().split()[0]
    print("| where | the test fails | answer, s | least-most | end, s | CPU s of the machine | aimed at, s |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for cells in table:
        print("| " + " | ".join(cells) + " |")
    print(f"\n{os.cpu_count()} cores, load {load}, medians of {given.rounds} rounds.")


if __name__ == "__main__":
    main()
