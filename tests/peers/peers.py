#!/usr/bin/env python3
"""Compares flakefarm with other ways to find flaky tests, each for the same time on the clock.

For each project: flakefarm sweeps it with a budget; then, in the very image that it made of the project,
with the others' packages installed beside, each other way gets as long. A test counts as found if it was
seen to pass and to fail (for flakefarm: verdict flaky or fragile). What is known of the project says which
of these are right. Writes one JSON file and one Markdown table. Only the standard library.

    tests/peers/peers.py --flakefarm target/release/flakefarm --minutes 5
    tests/peers/peers.py --cases FILE --mirror DIR --only six mdutils --minutes 10
"""

import argparse
import concurrent.futures
import importlib.util
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml

HERE = pathlib.Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("flakefarm_cases", HERE.parent / "cases" / "sweep.py")
cases_script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases_script)

PEERS = ["pytest-randomly==5.1.0", "pytest-flakefinder==1.1.0", "flakerate==0.1.0"]
CONTAINERS = itertools.count()
# What each is told so that no other plugin of these acts.
ALONE = ["-p", "no:randomly"]
# Words of lists, of flakefarm and of flakerate, and the kind of cause that each stands for. Lists write freely, as in
# "NIO + OD-Vic" or "NOD timing/concurrency": that is several kinds, each of which is right.
KINDS = {
    "order": r"OD|OD-Vic|OD-Brit|order[-_ ](victim|brittle|dependent)",
    "repeat": r"NIO|not[-_ ]idempotent",
    "chance": r"NOD|non[-_ ]?deterministic",
    "random": r"random(ness)?",
    "hash": r"hash[-_ ]order",
    "time zone": r"time[-_ ]?zone",
    "clock": r"clock|date",
    "timing": r"timing|concurrency",
    "network": r"network",
    "memory": r"memory",
    "files": r"file[-_ ]system",
    "locale": r"locale",
    "environment": r"environment",
}


def main():
    options = parse_arguments()
    rows = []
    options.output.mkdir(parents=True, exist_ok=True)
    for project in projects(options):
        print("== %s" % project["name"], file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="flakefarm-peers.") as scratch:
            try:
                rows.append(compare(project, pathlib.Path(scratch), options))
            except cases_script.NotSwept as error:
                rows.append({"name": project["name"], "error": str(error), "ways": []})
        # Rewritten after each project: an interrupted run keeps what it learned.
        (options.output / "peers.json").write_text(json.dumps(document(rows, options), indent=2) + "\n")
        (options.output / "peers.md").write_text(markdown(rows, options))
    print(markdown(rows, options))
    if options.write_docs:
        write_docs(markdown(rows, options), options.write_docs)
    return 70 if any(row.get("error") for row in rows) else 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flakefarm", default="flakefarm", help="the binary")
    parser.add_argument("--minutes", type=float, default=5, help="for each way and project")
    parser.add_argument("--cases", type=pathlib.Path, help="a cases file (tests/cases/README.md) beside our own fixtures")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--sources", type=cases_script.absolute, help="a directory with one checkout per project name")
    where.add_argument("--mirror", type=cases_script.absolute, help="a directory of git directories named owner+name")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these projects only")
    parser.add_argument("--ways", nargs="+", metavar="WAY", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--image", default=os.environ.get("FLAKEFARM_IMAGE", "python:3.11-slim-bookworm"))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 1 << 31))
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("target/peers"))
    parser.add_argument("--write-docs", type=pathlib.Path, help="put the table into this page, between its marks")
    options = parser.parse_args()
    options.flakefarm = os.path.abspath(shutil.which(options.flakefarm) or sys.exit("error: no such program: %s" % options.flakefarm))
    options.output = options.output.absolute()
    options.runs, options.keep, options.sweep_arguments = None, False, []
    if options.cases and not (options.sources or options.mirror):
        sys.exit("error: --cases needs --sources or --mirror")
    return options


def projects(options):
    """Our own fixtures and, if a cases file is named, its projects: names, sources, what is known."""
    root = HERE.parent.parent
    shop = json.loads((root / "examples/flaky-shop/known.json").read_text())["tests"]
    known = json.loads((root / "tests/fixtures/causes/known.json").read_text())["tests"]
    found = [
        {"name": "flaky-shop", "tree": root / "examples/flaky-shop",
         "flaky": {test["id"]: test.get("category") for test in shop if test["verdict"] == "flaky"}, "varied": set()},
        {"name": "causes", "tree": root / "tests/fixtures/causes",
         "flaky": {test["id"]: test["cause"] for test in known if test["cause"] != "stable"}, "varied": set()},
    ]
    if options.cases:
        listed = json.loads(options.cases.read_text())
        for case in listed.get("flaky_projects", []) + listed.get("stable_projects", []):
            varied = {test if isinstance(test, str) else test.get("id") or test["test_id"]
                      for key in ("also_varied", "varied_but_unlisted") for test in case.get(key, [])}
            flaky = {test["id"]: test.get("cause") for test in case.get("flaky", [])}
            found.append({"name": case["name"], "case": case, "flaky": flaky, "varied": varied})
    return [project for project in found if not options.only or project["name"] in options.only]


def compare(project, scratch, options):
    tree = scratch / project["name"]
    if "case" in project:
        cases_script.bring_source(project["case"], options, tree)
        (tree / "flakefarm.toml").write_text(cases_script.configuration(project["case"], options))
    else:
        shutil.copytree(project["tree"], tree, ignore=shutil.ignore_patterns("__pycache__"))
    began = time.monotonic()
    report = sweep(project, tree, options)
    ways = [score(project, "flakefarm", {test["id"]: cases_script.category(test) for test in report["tests"]
                                         if test["verdict"] in ("flaky", "fragile")}, time.monotonic() - began)]
    ways[0]["runs"] = report["sweep"]["attempts"]
    image = with_peers(report["sweep"]["image"], scratch, options)
    try:
        for way in options.ways:
            began = time.monotonic()
            outcomes = WAYS[way](Run(image, scratch / way.replace(" ", "-"), options))
            ways.append(score(project, way, outcomes.flaky(), time.monotonic() - began))
            ways[-1]["runs"] = outcomes.runs
            print("   %s: %d found" % (way, len(ways[-1]["found"])), file=sys.stderr, flush=True)
    finally:
        docker("image", "rm", "--force", image)
    return {"name": project["name"], "error": None, "known": len(project["flaky"]), "tests": len(report["tests"]), "ways": ways}


def sweep(project, tree, options):
    output = options.output / ("%s.report.json" % project["name"])
    command = [options.flakefarm, "sweep", str(tree), "--format", "json", "--output", str(output), "--seed", str(options.seed),
               "--budget", "%ds" % (options.minutes * 60), "--state", str(options.output / "state")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode not in cases_script.EXIT_CODES_WITH_A_REPORT or not output.is_file():
        raise cases_script.NotSwept("flakefarm ended with %d: %s" % (done.returncode, done.stderr.strip()[-200:]))
    return json.loads(output.read_text())


def with_peers(image, scratch, options):
    """The project's image with the others' packages beside."""
    context = scratch / "image"
    context.mkdir()
    certificates = os.environ.get("FLAKEFARM_EXTRA_CA_CERTIFICATES")
    shutil.copy(certificates, context / "ca.crt") if certificates else (context / "ca.crt").touch()
    index = "".join("ENV %s=%s\n" % (name, os.environ[name]) for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")
                    if name in os.environ)
    trust = "PIP_CERT=/ca.crt " if certificates else ""
    (context / "Dockerfile").write_text("FROM %s\nUSER root\nCOPY ca.crt /ca.crt\n%sENV PIP_BREAK_SYSTEM_PACKAGES=1\nRUN %spython3 -m pip install -q %s\n"
                                        % (image, index, trust, " ".join(PEERS)))
    name = "flakefarm-peers:%s" % scratch.name.rsplit(".", 1)[-1].lower()
    done = docker("build", "--quiet", "--tag", name, str(context))
    if done.returncode != 0:
        raise cases_script.NotSwept("the others' packages could not be installed: %s" % done.stderr.strip()[-300:])
    return name


def docker(*arguments, **more):
    return subprocess.run(["docker", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **more)


class Run:
    """Runs commands in the project's tree, without a network, until the time is up. The machine is all theirs: as many
    at once as it has cores, which is what flakefarm's workers use."""

    def __init__(self, image, reports, options):
        self.image, self.reports, self.options = image, reports, options
        self.end = time.monotonic() + options.minutes * 60
        self.cores = os.cpu_count() or 1
        self.reports.mkdir(parents=True)
        self.reports.chmod(0o777)

    def left(self):
        return self.end - time.monotonic()

    def on_each_core(self, work):
        """What `work` gives for each number of a core, from 0, all at once."""
        with concurrent.futures.ThreadPoolExecutor(self.cores) as pool:
            return list(pool.map(work, range(self.cores)))

    def shell(self, script):
        """In a fresh container with a fresh copy of the tree, as attempts have it; ended when the time is up."""
        name = "flakefarm-peer-%d-%d" % (os.getpid(), next(CONTAINERS))
        command = ["docker", "run", "--rm", "--name", name, "--network", "none", "--user", "1000:1000", "--env", "HOME=/tmp",
                   "--tmpfs", "/work:uid=1000,gid=1000,exec", "--volume", "%s:/reports" % self.reports, self.image,
                   "/bin/sh", "-c", "cp -a /flakefarm/tree/. /work/ && cd /work && %s" % script]
        try:
            return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                                  timeout=max(self.left(), 1)).stdout
        except subprocess.TimeoutExpired as late:
            docker("rm", "--force", name)
            return (late.stdout or b"").decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or ""


class Outcomes:
    """What was seen of each test."""

    def __init__(self):
        self.seen, self.causes, self.runs = {}, {}, 0

    def read(self, reports, copies=False):
        for path in sorted(reports.glob("*.xml")):
            try:
                suite = xml.parse(path).getroot()
            except xml.ParseError:
                continue
            self.runs += 1
            for case in suite.iter("testcase"):
                if case.find("skipped") is None:
                    failed = case.find("failure") is not None or case.find("error") is not None
                    self.seen.setdefault(identity(case, copies), set()).add(failed)
        return self

    def flaky(self):
        return {**{test: None for test, seen in self.seen.items() if len(seen) == 2}, **self.causes}


def identity(case, copies):
    """A pytest id of what JUnit has: the file is `a.b`, a class its last parts. flakefinder numbers its copies of
    a test by one more parameter, the last."""
    parts = (case.get("classname") or "").split(".")
    at = next((n for n, part in enumerate(parts) if part[:1].isupper()), len(parts))
    name = case.get("name") or ""
    if copies and name.endswith("]"):
        name, _, parameters = name[:-1].partition("[")
        parameters = parameters.rpartition("-")[0]
        name += "[%s]" % parameters if parameters else ""
    return "::".join(["/".join(parts[:at]) + ".py", *parts[at:], name])


def loop(run, arguments, copies=False):
    """One process after the other in one container on each core."""
    script = "n=%d; while :; do n=$((n+%d)); python3 -m pytest -q %s --junitxml=/reports/$n.tmp > /dev/null 2>&1; " \
             "mv /reports/$n.tmp /reports/$n.xml; done"
    run.on_each_core(lambda core: run.shell(script % (core, run.cores, arguments)))
    return Outcomes().read(run.reports, copies)


def plain_loop(run):
    return loop(run, " ".join(ALONE))


def randomly_loop(run):
    return loop(run, "-p randomly -p no:flakefinder --randomly-seed=$n")


def flakefinder(run):
    """Every test several times in one process, again and again: more in one process would end with nothing."""
    return loop(run, " ".join(ALONE) + " --flake-finder --flake-runs=10", copies=True)


def containers(run):
    """FlaPy's way: one fresh container per run, in turns as given and shuffled."""
    numbers = itertools.count(1)

    def one_after_the_other(_core):
        while run.left() > 1:
            number = next(numbers)
            order = " ".join(ALONE) if number % 2 else "-p randomly --randomly-seed=%d" % number
            run.shell("python3 -m pytest -q %s --junitxml=/reports/%d.xml" % (order, number))

    run.on_each_core(one_after_the_other)
    return Outcomes().read(run.reports)


def flakerate(run):
    """It takes a number of runs: as many as fit, a third of the time kept for its classification."""
    began = time.monotonic()
    run.on_each_core(lambda _core: run.shell("python3 -m pytest -q %s" % " ".join(ALONE)))
    runs = max(2, int(run.left() * 0.6 / max(time.monotonic() - began, 0.5)))
    command = "python3 -m flakerate run -n %d --classify --json -- %s" % (runs, "-p no:randomly")
    outcomes = Outcomes()
    for said in run.on_each_core(lambda _core: run.shell(command)):
        try:
            document = json.loads(said)
        except ValueError:
            continue
        outcomes.runs += document["runs"]
        outcomes.causes.update({test["nodeid"]: test["cause"] for test in document["flaky"]})
    return outcomes


WAYS = {"loop of plain pytest": plain_loop, "pytest-flakefinder": flakefinder, "pytest-randomly loop": randomly_loop,
        "flakerate": flakerate, "a container per run (FlaPy's way)": containers}


def kinds(words):
    """The kinds of cause that a list, or a way, speaks of: any number."""
    said = (words or "").split("(not in")[0]
    return {kind for kind, pattern in KINDS.items() if re.search(r"(?<![\w-])(%s)(?![\w-])" % pattern, said, re.IGNORECASE)}


def score(project, way, accused, seconds):
    known = project["flaky"]
    named = [test for test, cause in accused.items() if test in known and kinds(cause) & kinds(known[test])]
    return {"way": way, "seconds": round(seconds), "found": sorted(set(accused) & set(known)), "named": sorted(named),
            "false": sorted(set(accused) - set(known) - project["varied"])}


def document(rows, options):
    return {"schema": "flakefarm.peers/v1", "minutes": options.minutes, "seed": options.seed, "projects": rows}


def markdown(rows, options):
    lines = ["| way | known flaky tests found | false accusations | cause named right | runs |", "| --- | --: | --: | --: | --: |"]
    swept = [row for row in rows if not row["error"]]
    known = sum(row["known"] for row in swept)
    for place, way in enumerate(["flakefarm", *options.ways]):
        of_way = [row["ways"][place] for row in swept]
        total = lambda key: sum(len(one[key]) for one in of_way)
        lines.append("| %s | %d of %d | %d | %d | %d |" % (way, total("found"), known, total("false"), total("named"), sum(one["runs"] for one in of_way)))
    lines += ["", "| project | tests | known | " + " | ".join(["flakefarm", *options.ways]) + " |",
              "| --- | --: | --: |" + " --: |" * (1 + len(options.ways))]
    for row in rows:
        if row["error"]:
            lines.append("| %s | not compared: %s |" % (row["name"], cases_script.cell(row["error"])))
            continue
        cells = ["%d%s" % (len(one["found"]), " (%d false)" % len(one["false"]) if one["false"] else "") for one in row["ways"]]
        lines.append("| %s | %d | %d | %s |" % (row["name"], row["tests"], row["known"], " | ".join(cells)))
    version = subprocess.run([options.flakefarm, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    lines += ["", "%s, %s minutes for each way and project, %d cores, seed %d; %s." % (version, ("%g" % options.minutes), os.cpu_count() or 0, options.seed, ", ".join(PEERS)), ""]
    return "\n".join(lines)


def write_docs(table, page):
    text = page.read_text()
    begin, end = "<!-- peers -->\n", "<!-- /peers -->"
    head, rest = text.split(begin)
    page.write_text(head + begin + table + end + rest.split(end)[1])


if __name__ == "__main__":
    sys.exit(main())
