#!/usr/bin/env python3
"""A running farm is copied with the servers' own tools, in the middle of a sweep, and then loses everything: every
process, all data of PostgreSQL, RabbitMQ and Redis, the blobs, the workers' disks. It is restored, as
docs/operations.md says, and the sweep must end right: every attempt once.

    make backup-drill
"""

import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import time
import urllib.parse

from farm import ROOT, Farm, Pod, eventually, needed, postgres, say

BACKUP = ROOT / "deploy/kubernetes/components/backup/backup"
SERVERS = ["rabbitmq", "redis", "postgres"]
ATTEMPTS, TESTS, SECONDS = 400, 10, 1.0
# What workers had in hand when the copy was made is published again when nobody has spoken of it for this long.
LEASE = "60s"


def services(*words):
    done = subprocess.run([ROOT / "deploy/dev/services", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit("error: services %s: %s" % (" ".join(words), done.stderr))


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--flakefarm", required=True)
    args = options.parse_args()
    # It deletes their data: never those of anybody's development.
    dev = pathlib.Path(needed("FLAKEFARM_DRILL_DIR"))
    if os.environ.get("FLAKEFARM_DEV_DIR") != str(dev):
        raise SystemExit("error: FLAKEFARM_DRILL_DIR and FLAKEFARM_DEV_DIR must name the same directory, whose servers may be lost")
    farm = Farm(args.flakefarm, "backup")
    try:
        drill(farm, dev)
    finally:
        farm.end()


def drill(farm, dev):
    begun = time.monotonic()
    farm.coordinator("coordinator", FLAKEFARM_LEASE=LEASE)
    pods = [start(farm, "before-%d" % number) for number in range(2)]
    sweep = farm.submit(farm.waiting(SECONDS), "--runs", str(ATTEMPTS // TESTS), "--scope", "test", "--panel", "none", "--seed", "1", "--sandbox", "forked-only")
    step_till(pods, "a third of the sweep", 600, lambda: farm.recorded(sweep) >= ATTEMPTS // 3)

    copy = take_copy(farm)
    copied = farm.recorded(sweep)
    say("copied with %d of %d attempts recorded: %s" % (copied, ATTEMPTS, sizes(copy)))
    # Some more work, which no copy has.
    step_till(pods, "more after the copy", 600, lambda: farm.recorded(sweep) >= copied + 20)
    lost_at = farm.recorded(sweep)

    lose(farm, dev, pods)
    say("all is lost, %d attempts of which %d came after the copy" % (lost_at, lost_at - copied))
    restored = time.monotonic()
    restore(farm, dev, copy)
    farm.url = None
    farm.coordinator("coordinator-restored", FLAKEFARM_LEASE=LEASE)
    pods = [start(farm, "after-%d" % number) for number in range(2)]
    found = farm.recorded(sweep)
    say("restored in %.0f s: it knows %d attempts" % (time.monotonic() - restored, found))
    step_till(pods, "the sweep's end", 900, lambda: farm.state(sweep)["state"] != "running")
    for pod in pods:
        pod.tell()
    step_till(pods, "no worker is left", 300, lambda: not any(pod.is_there() for pod in pods))

    state, report = farm.state(sweep)["state"], farm.report(sweep)
    tests = {test["id"]: test["attempts"] for test in report["tests"]}
    history = {test: farm.history(test) for test in tests}
    say("%s after %.0f s; in the report %d attempts, in the history %d" % (state, time.monotonic() - begun, sum(tests.values()), sum(history.values())))
    if state != "answered" or len(tests) != TESTS or set(tests.values()) != {ATTEMPTS // TESTS} or history != tests:
        raise SystemExit("error: the sweep did not end right: %s\nreport:  %s\nhistory: %s" % (state, tests, history))
    if not ATTEMPTS // 3 <= found < ATTEMPTS:
        raise SystemExit("error: the restored farm knew %d attempts, the copy %d" % (found, copied))
    print("backup drill: copied in a sweep (%d of %d attempts), all lost, restored, answered: every attempt once" % (copied, ATTEMPTS))


def start(farm, name):
    return Pod(farm, name, slots=2, grace=90, worker_grace="20s", wait="60s")


def step_till(pods, what, seconds, done):
    def check():
        for pod in pods:
            pod.step()
        return done()
    eventually(what, seconds, check)


def take_copy(farm):
    """With the script that the CronJob runs."""
    files = {"DATABASE_FILE": farm.addresses["FLAKEFARM_DATABASE"], "SAMPLES_FILE": farm.addresses["FLAKEFARM_SAMPLES"], "BROKER_FILE": needed("FLAKEFARM_TEST_AMQP_MANAGEMENT")}
    variables = {}
    for name, address in files.items():
        path = farm.dir / name.lower()
        path.write_text(address + "\n")
        variables[name] = str(path)
    path = "%s:%s" % (pathlib.Path(postgres("pg_dump")).parent, os.environ["PATH"])
    done = subprocess.run(["bash", BACKUP, str(farm.dir / "copies")], env={**os.environ, **variables, "BLOBS": str(farm.dir / "blobs"), "PATH": path, "no_proxy": "127.0.0.1"},
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit("error: no copy: %s" % done.stderr)
    copy = pathlib.Path(done.stdout.strip())
    subprocess.run(["sha256sum", "--quiet", "--check", "SHA256SUMS"], cwd=copy, check=True)
    # It leaves the machine that is about to be lost.
    safe = farm.dir / "elsewhere"
    shutil.move(copy, safe)
    return safe


def sizes(copy):
    return ", ".join("%s %d KiB" % (path.name, path.stat().st_size // 1024) for path in sorted(copy.iterdir()) if path.name != "SHA256SUMS")


def lose(farm, dev, pods):
    for process in farm.processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    services("down", *SERVERS)
    for server in SERVERS:
        # Their ports are remembered: addresses stay.
        for path in (dev / server).iterdir():
            if path.is_dir() and path.name in ("cluster", "data", "mnesia", "log"):
                shutil.rmtree(path)
    shutil.rmtree(farm.dir / "blobs")
    for pod in pods:
        shutil.rmtree(pod.dir)


def restore(farm, dev, copy):
    # Redis does not look at a copy while it is told to have an append-only file.
    data = dev / "redis/data"
    data.mkdir(parents=True)
    shutil.copy(copy / "samples.rdb", data / "dump.rdb")
    port = str(urllib.parse.urlsplit(farm.addresses["FLAKEFARM_SAMPLES"]).port)
    server = subprocess.Popen(["redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", str(data), "--appendonly", "no", "--save", ""], stdout=subprocess.DEVNULL)

    def redis(*words):
        return subprocess.run(["redis-cli", "-p", port, *words], capture_output=True, text=True).stdout

    try:
        eventually("Redis has read the copy", 60, lambda: redis("ping").strip() == "PONG")
        redis("config", "set", "appendonly", "yes")
        eventually("Redis has written it out", 60, lambda: "aof_rewrite_in_progress:0" in redis("info", "persistence") and "aof_rewrite_scheduled:0" in redis("info", "persistence"))
    finally:
        server.terminate()
        server.wait(timeout=60)
    services("up", *SERVERS)
    (farm.dir / "blobs").mkdir()
    subprocess.run(["tar", "-C", str(farm.dir / "blobs"), "-xf", str(copy / "blobs.tar")], check=True)
    farm.psql('CREATE DATABASE "%s"' % farm.name)
    subprocess.run([postgres("pg_restore"), "--no-owner", "--exit-on-error", "--dbname", farm.addresses["FLAKEFARM_DATABASE"], str(copy / "database.dump")], check=True)
    # Users, virtual hosts and permissions; queues are declared by coordinators.
    eventually("the broker's interface answers", 60, lambda: farm.broker.ask("GET", "/api/overview"))
    farm.broker.vhost(farm.name)


if __name__ == "__main__":
    main()
