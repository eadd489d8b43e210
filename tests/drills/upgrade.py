#!/usr/bin/env python3
"""Every process of a farm is replaced in the middle of a sweep, one after the other, as a rolling update does: the new
coordinator answers before an old one goes, the new worker is ready before an old one drains. The sweep must end right:
every attempt once, nobody killed.

    make upgrade-drill                         by the same version
    make upgrade-drill OLD=BINARY              from another one
"""

import argparse
import time

from farm import Farm, Pod, eventually, say

ATTEMPTS, TESTS, SECONDS = 800, 10, 1.0


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--flakefarm", required=True, help="the new version")
    options.add_argument("--old", help="the old one [default: the same]")
    options.add_argument("--first", choices=["coordinators", "workers"], default="coordinators", help="who is replaced first: the others are of the old version beside them [default: coordinators]")
    args = options.parse_args()
    farm = Farm(args.flakefarm, "upgrade")
    try:
        drill(farm, args.old or args.flakefarm, args.flakefarm, args.first)
    finally:
        farm.end()


def drill(farm, old, new, first):
    pods, coordinators = [], []

    def step():
        for pod in pods:
            pod.step()

    def till(what, seconds, done):
        def check():
            step()
            return done()
        return eventually(what, seconds, check)

    for number in (1, 2):
        coordinators.append(farm.coordinator("coordinator-old-%d" % number, old))
        pods.append(Pod(farm, "old-%d" % number, slots=2, grace=90, worker_grace="20s", wait="60s", binary=old))
    till("the old workers are ready", 120, lambda: all(pod.is_ready() for pod in pods))
    sweep = farm.submit(farm.waiting(SECONDS), "--runs", str(ATTEMPTS // TESTS), "--scope", "test", "--panel", "none", "--seed", "1", "--sandbox", "forked-only")
    till("the sweep is under way", 300, lambda: farm.recorded(sweep) >= ATTEMPTS // 8)

    def replace_coordinator(number):
        process, url = farm.coordinator("coordinator-new-%d" % number, new)
        farm.url = url
        leaving, _ = coordinators.pop(0)
        coordinators.append((process, url))
        leaving.terminate()
        if leaving.wait(timeout=60) != 0:
            raise SystemExit("error: a coordinator ended with %d" % leaving.returncode)
        at = farm.recorded(sweep)
        say("coordinator %d is replaced, with %d of %d attempts recorded" % (number, at, ATTEMPTS))
        till("the new one records", 120, lambda: farm.recorded(sweep) > at)

    def replace_worker(number):
        pods.append(Pod(farm, "new-%d" % number, slots=2, grace=90, worker_grace="20s", wait="60s", binary=new))
        till("the new worker is ready", 120, lambda: pods[-1].is_ready())
        leaving = next(pod for pod in pods if pod.told_at is None and pod.name.startswith("old"))
        leaving.tell()
        till("the old worker has left", 120, lambda: not leaving.is_there())
        at = farm.recorded(sweep)
        say("worker %d is replaced after %.1f s, with %d of %d attempts recorded" % (number, leaving.gone_at - leaving.told_at, at, ATTEMPTS))
        till("what is left of them is recorded", 120, lambda: farm.recorded(sweep) > at)

    order = [replace_coordinator, replace_worker]
    for replace in order if first == "coordinators" else reversed(order):
        for number in (1, 2):
            replace(number)
    replaced = farm.recorded(sweep)
    till("the sweep's end", 900, lambda: farm.state(sweep)["state"] != "running")
    for pod in pods:
        if pod.told_at is None:
            pod.tell()
    till("no worker is left", 300, lambda: not any(pod.is_there() for pod in pods))
    state, report = farm.state(sweep)["state"], farm.report(sweep)
    tests = {test["id"]: test["attempts"] for test in report["tests"]}
    history = {test: farm.history(test) for test in tests}
    wrong = []
    if state != "answered" or set(tests.values()) != {ATTEMPTS // TESTS} or len(tests) != TESTS or tests != history:
        wrong.append("the sweep did not end right: %s\nreport:  %s\nhistory: %s" % (state, tests, history))
    if any(pod.killed or pod.code for pod in pods):
        wrong.append("workers were killed or ended badly: %s" % [(pod.name, pod.killed, pod.code) for pod in pods])
    if report["sweep"]["infrastructure_errors"]:
        wrong.append("%d attempts failed for reasons that are not theirs: %s" % (report["sweep"]["infrastructure_errors"], report.get("infrastructure") or report["sweep"].get("infrastructure")))
    if replaced >= ATTEMPTS:
        wrong.append("the sweep had ended before all was replaced: nothing was shown")
    if wrong:
        raise SystemExit("error: " + "\n".join(wrong))
    print("upgrade drill: two coordinators and two workers replaced in a sweep (by attempt %d of %d), every attempt once, nobody killed" % (replaced, ATTEMPTS))


if __name__ == "__main__":
    main()
