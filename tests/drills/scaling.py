#!/usr/bin/env python3
"""Shows what the shipped ScaledObject makes of a burst: KEDA, the autoscaler and the kubelet are played (law.py, farm.py)
with the values of deploy/kubernetes, on the real broker, with real workers as pods. Writes a table and a picture.

    make scaling                         a burst of 2,000 attempts: none to eight workers and back
    make scaling SCALING_ARGS='--attempts 200 --seconds 2'
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

from farm import ROOT, Farm, Pod, say
from law import SYNC_SECONDS, Autoscaler, Scaling
from picture import picture

BEGIN, END = "<!-- scaling -->", "<!-- /scaling -->"
TESTS = 10


def shipped():
    """The ScaledObject and the worker's Deployment, as they are rendered for the overlay `keda`."""
    tools = subprocess.run([ROOT / "deploy/kubernetes/tools"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    sys.path.insert(0, tools + "/python")
    import yaml

    done = subprocess.run(["kubectl", "kustomize", ROOT / "deploy/kubernetes/overlays/keda"], stdout=subprocess.PIPE, text=True, check=True,
                          env={**os.environ, "PATH": "%s/bin:%s" % (tools, os.environ["PATH"])})
    things = list(yaml.safe_load_all(done.stdout))
    scaled = next(thing for thing in things if thing["kind"] == "ScaledObject")["spec"]
    pod = next(thing for thing in things if thing["kind"] == "Deployment" and thing["metadata"]["name"] == "worker")["spec"]["template"]["spec"]
    settings = next(thing for thing in things if thing["kind"] == "ConfigMap" and "FLAKEFARM_SLOTS" in thing["data"])["data"]
    return scaled, pod, settings


class Played:
    """The cluster: pods, and whoever decides how many there are to be."""

    def __init__(self, farm, scaled, pod, settings):
        self.farm, self.scaling = farm, Scaling.of(scaled)
        self.autoscaler = Autoscaler(self.scaling)
        self.grace, self.worker_grace = pod["terminationGracePeriodSeconds"], settings["FLAKEFARM_GRACE"]
        drain = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        self.wait = drain[drain.index("--wait") + 1]
        self.slots = int(settings["FLAKEFARM_SLOTS"])
        self.pods, self.replicas, self.started, self.seen = [], 0, 0, []
        self.next_poll = time.monotonic()

    def live(self):
        return [pod for pod in self.pods if pod.is_there() and pod.told_at is None]

    def step(self):
        now = time.monotonic()
        if now >= self.next_poll:
            self.next_poll += max(self.scaling.polling, SYNC_SECONDS)
            messages = self.farm.broker.messages(self.farm.name, self.scaling.queues)
            decided = self.autoscaler.decide(now, messages, self.replicas)
            if decided != self.replicas:
                say("%s messages, %d workers: %d" % (sum(messages.values()), self.replicas, decided))
            self.replicas = decided
            while len(self.live()) < decided:
                self.started += 1
                self.pods.append(Pod(self.farm, "worker-%d" % self.started, self.slots, self.grace, self.worker_grace, self.wait))
            # As a ReplicaSet chooses: those that are not ready, then the newest.
            leaving = sorted(self.live(), key=lambda pod: (pod.is_ready(), -pod.created))
            for pod in leaving[: len(self.live()) - decided]:
                pod.tell()
            self.seen.append((now, sum(messages.values())))
        for pod in self.pods:
            pod.step()

    def till(self, what, seconds, done):
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                raise SystemExit("error: %s: not within %d s" % (what, seconds))
            self.step()
            time.sleep(0.1)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--flakefarm", required=True)
    options.add_argument("--attempts", type=int, default=2000)
    options.add_argument("--seconds", type=float, default=4.0, help="that each attempt waits")
    options.add_argument("--write-docs", metavar="FILE", help="table and picture go here")
    args = options.parse_args()
    scaled, pod, settings = shipped()
    farm = Farm(args.flakefarm, "scaling")
    try:
        measure(args, farm, scaled, pod, settings)
    finally:
        farm.end()


def measure(args, farm, scaled, pod, settings):
    farm.coordinator("coordinator")
    project = farm.waiting(args.seconds)
    played = Played(farm, scaled, pod, settings)
    begun = time.monotonic()
    sweep = farm.submit(project, "--runs", str(args.attempts // TESTS), "--scope", "test", "--panel", "none", "--order", "given", "--seed", "1", "--sandbox", "forked-only")
    say("sweep %s" % sweep)
    last = [0.0, None]

    def ended():
        if time.monotonic() - last[0] > 2:
            last[:] = [time.monotonic(), farm.state(sweep)]
        return last[1]["state"] not in ("running", "submitted", "pending")

    played.till("the sweep's end", 60 + 12 * args.attempts * args.seconds / 16 + 600, ended)
    over = time.monotonic()
    say("answered after %.0f s" % (over - begun))
    played.till("no worker is left", 600, lambda: played.replicas == 0 and not any(pod.is_there() for pod in played.pods))
    gone = time.monotonic()
    judge(args, farm, played, sweep, begun, over, gone)


def judge(args, farm, played, sweep, begun, over, gone):
    report = farm.report(sweep)
    summary, most = report["sweep"], played.scaling.most
    recorded = sum(test["attempts"] for test in report["tests"])
    history = sum(farm.history(test["id"]) for test in report["tests"])
    used = sum(pod.seconds(gone) for pod in played.pods)
    work = summary["container_seconds"] / played.slots
    peak = max(number for _, number in presence(played.pods, begun, gone))
    figures = {
        "attempts": args.attempts, "recorded": recorded, "history": history, "infrastructure": summary["infrastructure_errors"],
        "killed": sum(pod.killed for pod in played.pods), "codes": sorted({pod.code for pod in played.pods}), "pods": len(played.pods), "peak": peak,
        "seconds": over - begun, "gone": gone - begun, "ideal_seconds": work / most, "used": used, "work": work, "over": used / work - 1,
    }
    print(json.dumps(figures, indent=1))
    text = table(args, played, figures)
    print(text)
    if args.write_docs:
        path = pathlib.Path(args.write_docs)
        page = path.read_text()
        head, rest = page.split(BEGIN, 1)
        path.write_text(head + BEGIN + "\n" + text + END + rest.split(END, 1)[1])
        (path.parent / "scaling.svg").write_text(picture(presence(played.pods, begun, gone), ready(played.pods, begun, gone), [(at - begun, number) for at, number in played.seen], over - begun, work / most, most))
    wrong = []
    if recorded != args.attempts or history != args.attempts:
        wrong.append("%d attempts were asked for, %d are in the report and %d in the history" % (args.attempts, recorded, history))
    if figures["killed"] or figures["codes"] != [0]:
        wrong.append("%d pods were killed in their grace; workers ended with %s" % (figures["killed"], figures["codes"]))
    if peak != most:
        wrong.append("there were never %d workers, but %d" % (most, peak))
    if figures["over"] > 0.10:
        wrong.append("%.1f %% more worker-seconds than the work takes" % (100 * figures["over"]))
    if wrong:
        raise SystemExit("error: " + "; ".join(wrong))


def changes(pods, begun, gone, comes, goes):
    at = sorted([(comes(pod) - begun, 1) for pod in pods if comes(pod)] + [((goes(pod) or gone) - begun, -1) for pod in pods if comes(pod)])
    number, points = 0, [(0.0, 0)]
    for when, by in at:
        number += by
        points.append((when, number))
    return points


def presence(pods, begun, gone):
    return changes(pods, begun, gone, lambda pod: pod.created, lambda pod: pod.gone_at)


def ready(pods, begun, gone):
    return changes(pods, begun, gone, lambda pod: pod.ready_at, lambda pod: pod.told_at)


def table(args, played, figures):
    slots, most = played.slots, played.scaling.most
    return """%d attempts of %g s, workers with %d slots, %d to %d of them; poll %g s, window %g s, end of the last after %g s.

| | measured | ideal | |
| --- | ---: | ---: | --- |
| worker-seconds | %.0f | %.0f | %.1f %% over; ideal: the attempts' own time over the slots |
| seconds to the answer | %.0f | %.0f | ideal: %d workers at once, from the first moment |
| seconds to the last worker's end | %.0f | %.0f | |
| attempts asked for, in the report, in the history | %d, %d, %d | %d | none lost, none doubled |
| attempts that failed for reasons not theirs | %d | 0 | |
| workers at most, pods in all | %d, %d | %d, %d | |
| pods killed before their grace was over | %d | 0 | |
""" % (args.attempts, args.seconds, slots, played.scaling.least, most, played.scaling.polling, played.scaling.down.stabilization, played.scaling.cooldown,
       figures["used"], figures["work"], 100 * figures["over"], figures["seconds"], figures["ideal_seconds"], most, figures["gone"], figures["ideal_seconds"],
       figures["attempts"], figures["recorded"], figures["history"], figures["attempts"], figures["infrastructure"], figures["peak"], figures["pods"], most, most, figures["killed"])


if __name__ == "__main__":
    main()
