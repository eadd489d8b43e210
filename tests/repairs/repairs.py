#!/usr/bin/env python3
"""Breaks real packages in known ways, repairs them, and counts: docs/repairs.md is written by this command.

    make repairs                                     # breaks, repairs, prints the table
    make repairs REPAIRS_ARGS='--instances 200 --controls 300 --minutes 90 --seed 7 --write-docs docs/repairs.md'

Packages come from PyPI as they are configured on this machine, at the versions written in packages.txt, and are unpacked
below --scratch; none is kept in the repository. What is broken by a seed is the same every time and is kept there, too: a
second call with the same seed repairs the same instances. Needs only pip; a virtual environment is made.
"""

import argparse
import ast
import collections
import concurrent.futures
import hashlib
import json
import math
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOOLS = ["rope==1.15.0", "pytest==8.4.2", "pytest-asyncio==1.2.0", "setuptools==80.9.0", "wheel", "hatchling", "flit_core", "poetry-core",
         "hatch-vcs", "setuptools_scm", "pdm-backend"]
LIMIT_S = 60  # of one run of a package's tests
SLOW_S = 6  # packages whose tests take longer are left out: an instance needs three or four runs
TRIES = 12  # of an operator on a package before it is given up


def main():
    options = parse_arguments()
    options.scratch.mkdir(parents=True, exist_ok=True)
    python = environment(options)
    if pathlib.Path(sys.prefix) != python.parent.parent:
        os.execv(python, [str(python), str(HERE / "repairs.py"), *sys.argv[1:]])
    deadline = time.monotonic() + options.minutes * 60
    packages = [prepared for name in wanted(options) if (prepared := prepare(name, options, deadline))]
    if not packages:
        sys.exit("error: no package could be prepared")
    made = instances(packages, options, deadline)
    if options.only_break:
        return 0
    results = judge_all(made, options)
    reals = [real(instance, options) for instance in sample(made, options) if time.monotonic() < deadline]
    text = table(results, packages, options) + real_lines(reals)
    print(text)
    (options.scratch / "results.json").write_text(json.dumps(results, indent=1))
    if options.write_docs:
        write_docs(text, options.write_docs, "table")
    return 0 if not any(result["repaired"] for result in results if result["kind"] != "api") else 1


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--propose", default=str(ROOT / "target/debug/examples/propose"),
                        help="the program that prints what the repairer proposes for two trees")
    parser.add_argument("--flakefarm", default=str(ROOT / "target/debug/flakefarm"), help="the binary, for --real")
    parser.add_argument("--real", type=int, default=0, help="so many of the instances go through the command itself as well")
    parser.add_argument("--instances", type=int, default=40, help="changes of interfaces")
    parser.add_argument("--controls", type=int, default=30, help="regressions, mixed and flaky controls, a third each")
    parser.add_argument("--minutes", type=float, default=30, help="nothing is broken any more after that; what was broken is judged")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--packages", choices=["held-out", "developed", "all"], default="held-out",
                        help="those that no rule was made on, those that rules were made on")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--only-break", action="store_true")
    parser.add_argument("--scratch", type=pathlib.Path, default=ROOT / "target/repairs")
    parser.add_argument("--write-docs", type=pathlib.Path, help="put the table into this page, between its marks")
    options = parser.parse_args()
    options.scratch = options.scratch.absolute()
    return options


def environment(options):
    python = options.scratch / "venv/bin/python"
    done = options.scratch / "venv/ready"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", str(options.scratch / "venv")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *TOOLS], check=True)
        done.write_text("")
    return python


def wanted(options):
    names = []
    for line in (HERE / "packages.txt").read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line:
            group, name, *needs = line.split()
            if options.packages in (group, "all") and (not options.only or name.partition("==")[0] in options.only):
                names.append((name, needs))
    return names


class Package:
    def __init__(self, name, root):
        self.name, self.root = name, root
        self.green, self.seconds = set(), 0.0


def prepare(named, options, deadline):
    """The package unpacked, with the tests of it that pass every time."""
    (name, needs), home = named, options.scratch / "packages"
    place = home / name
    if not place.exists():
        if time.monotonic() > deadline:
            return None
        with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
            got = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
                                  "--no-build-isolation", "-d", scratch, name], capture_output=True, text=True, check=False)
            files = sorted(pathlib.Path(scratch).iterdir())
            if got.returncode or not files:
                return left_out(name, "not downloaded: %s" % got.stderr.strip()[-200:])
            if needs:
                subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *needs], check=True)
            unpacked = pathlib.Path(scratch) / "unpacked"
            if files[0].suffix == ".zip":
                zipfile.ZipFile(files[0]).extractall(unpacked)
            else:
                tarfile.open(files[0]).extractall(unpacked, filter="data") if hasattr(tarfile, "data_filter") else tarfile.open(files[0]).extractall(unpacked)
            home.mkdir(exist_ok=True)
            shutil.move(next(unpacked.iterdir()), place)
    package = Package(name, place)
    known = place.with_name(name + ".json")
    if not known.exists():
        started = time.monotonic()
        first = run(package.root, {}, options)
        seconds = time.monotonic() - started
        second = run(package.root, {}, options)
        green = [test for test in passed(first) if test in passed(second)]
        known.write_text(json.dumps({"green": sorted(green), "seconds": seconds}))
    told = json.loads(known.read_text())
    package.green, package.seconds = set(told["green"]), told["seconds"]
    if package.seconds > SLOW_S:
        return left_out(name, "its tests take %.1f s" % package.seconds)
    if len(package.green) < 5:
        return left_out(name, "%d tests pass" % len(package.green))
    return package


def left_out(name, why):
    print("left out: %s: %s" % (name, why), file=sys.stderr)


def passed(outcome):
    return {test for test, ended in outcome["ended"].items() if ended in ("passed", "xfailed")}


def run(root, overlay, options, copy=True):
    """The tests of a tree with `overlay`: texts by path, None for files that are gone."""
    with tempfile.TemporaryDirectory(prefix="repairs.") as scratch:
        tree = pathlib.Path(scratch) / "tree"
        if copy:
            shutil.copytree(root, tree, symlinks=True)
            lay(tree, overlay)
        else:
            tree = root
        return pytest(tree, pathlib.Path(scratch))


def pytest(tree, scratch):
    outcomes = scratch / "outcomes.json"
    source = tree / "src" if (tree / "src").is_dir() else tree
    variables = {**os.environ, "PYTHONPATH": "%s:%s:%s" % (source, tree, HERE), "PYTHONDONTWRITEBYTECODE": "1",
                 "REPAIRS_OUTCOMES": str(outcomes), "PYTHONHASHSEED": "0", "HOME": str(scratch)}
    command = ["nice", "-n", "19", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "outcomes", "-o", "addopts=",
               "-o", "filterwarnings=", "-o", "python_files=test_*.py *_test.py tests.py", "--continue-on-collection-errors", "--no-header", "--tb=short", "--import-mode=prepend", "."]
    try:
        done = subprocess.run(command, cwd=tree, env=variables, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"ended": {}, "failures": [], "too_long": True}
    if not outcomes.exists():
        # A broken conftest.py or the like: nothing could begin.
        message = (done.stdout + done.stderr).decode(errors="replace")[-6000:]
        return {"ended": {}, "failures": [{"test": "conftest.py", "phase": "collect", "exception": "", "kind": "collection", "message": message}]}
    return json.loads(outcomes.read_text())


def lay(tree, overlay):
    for path, text in overlay.items():
        target = tree / path
        if text is None:
            target.unlink(missing_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


# Breaking.

def instances(packages, options, deadline):
    """Valid instances: changes of interfaces and controls, in turn over packages and operators."""
    import breaker
    plan = []
    dice = random.Random(options.seed)
    operators = list(breaker.OPERATORS) + list(breaker.BACKWARDS)
    for number in range(options.instances * 3):
        several = number % 5 == 4
        chosen = [dice.choice([name for name in breaker.OPERATORS if name not in ("to_async", "mock_target")]) for _ in range(dice.randint(2, 4))]
        plan.append(("api", number, chosen if several else [operators[number % len(operators)]]))
    for number in range(options.controls * 2):
        kind = ["N1", "N2", "N3"][number % 3]
        chosen = [] if kind == "N1" else [dice.choice(["rename_function", "rename_method", "reorder_params", "move_module", "rename_class"])]
        plan.append((kind, number, chosen))
    asked = {"api": options.instances}
    for kind, more in zip(("N1", "N2", "N3"), (0, 1, 2)):
        asked[kind] = (options.controls + 2 - more) // 3
    kept = options.scratch / "instances" / str(options.seed)
    kept.mkdir(parents=True, exist_ok=True)
    found = collections.defaultdict(list)
    # Turn by turn, so that a deadline cuts all kinds alike.
    plan.sort(key=lambda item: item[1] / {"api": options.instances or 1}.get(item[0], options.controls or 1))
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        waiting = list(plan)
        while waiting:
            # A few at a time: what is found decides what is still wanted.
            batch = []
            while waiting and len(batch) < 4 * options.jobs:
                item = waiting.pop(0)
                if len(found[item[0]]) + sum(other[0] == item[0] for other in batch) < asked[item[0]]:
                    batch.append(item)
            if not batch:
                break
            for instance in pool.map(lambda item: broken(item, packages, kept, options, deadline), batch):
                if instance and len(found[instance["kind"]]) < asked[instance["kind"]]:
                    found[instance["kind"]].append(instance)
            print("\r" + ", ".join("%d of %d %s" % (len(found[kind]), asked[kind], kind) for kind in asked), end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return [instance for kind in asked for instance in found[kind]]


def broken(item, packages, kept, options, deadline):
    kind, number, operators = item
    # Quick ones more often: the figures are per instance, and an instance costs three or four runs of the tests.
    dice = random.Random("%s %s %s" % (options.seed, kind, number))
    chosen = sorted(packages, key=lambda package: dice.random() * (1 + package.seconds))
    key = hashlib.sha256(json.dumps([kind, number, operators, [package.name for package in chosen]]).encode()).hexdigest()[:12]
    file = kept / ("%s-%04d-%s.json" % (kind, number, key))
    if file.exists():
        return json.loads(file.read_text())
    if time.monotonic() > deadline:
        return None
    # rope and the tests run in a process of their own: what hangs or crashes is one instance, not all.
    ask = {"kind": kind, "number": number, "operators": operators, "seed": options.seed,
           "packages": [{"package": package.name, "root": str(package.root), "green": sorted(package.green)} for package in chosen[:3]]}
    try:
        done = subprocess.run(["nice", "-n", "19", sys.executable, str(HERE / "break_one.py")], input=json.dumps(ask), capture_output=True,
                              text=True, timeout=600, check=False)
        instance = json.loads(done.stdout) if done.returncode == 0 else None
        if done.returncode:
            print("\nnot broken: %s: %s" % (key, done.stderr[-300:]), file=sys.stderr)
    except subprocess.TimeoutExpired:
        instance = None
    if instance:
        instance["id"] = file.stem
    file.write_text(json.dumps(instance))
    return instance


# Judging.

def judge_all(made, options):
    results = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for result in pool.map(lambda instance: judge(instance, options), made):
            results.append(result)
            print("\rjudged %d of %d" % (len(results), len(made)), end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return results


def judge(instance, options):
    root = options.scratch / "packages" / instance["package"]
    green = set(instance["green"])
    with tempfile.TemporaryDirectory(prefix="repairs.") as scratch:
        old, new = pathlib.Path(scratch) / "old", pathlib.Path(scratch) / "new"
        for tree, code in ((old, "old_code"), (new, "new_code")):
            shutil.copytree(root, tree, symlinks=True)
            lay(tree, instance[code])
            lay(tree, instance["old_tests"])
        symptoms = pathlib.Path(scratch) / "symptoms.json"
        symptoms.write_text(json.dumps(instance["failures"]))
        started = time.monotonic()
        done = subprocess.run([options.propose, str(old), str(new), str(symptoms)], capture_output=True, text=True, timeout=10 * LIMIT_S, check=False)
        seconds = time.monotonic() - started
        if done.returncode:
            sys.exit("error: %s ended with %d on %s: %s" % (options.propose, done.returncode, instance["id"], done.stderr[-500:]))
        proposal = json.loads(done.stdout)
        repaired = {path: text for path, text in proposal["files"].items()}
        gold = dict(instance["gold"])
        refused = bool(proposal["violations"])
        same = all(says(repaired.get(path, instance["old_tests"].get(path) or text_of(root, path))) == says(gold.get(path, text_of(root, path)))
                   for path in set(repaired) | set(gold))
        result = {"id": instance["id"], "kind": instance["kind"], "package": instance["package"], "changes": instance["changes"],
                  "proposed": bool(repaired), "refused": proposal["violations"], "inverse": proposal["inverse"], "same": same,
                  "notes": proposal["notes"], "told": proposal["changes"], "seconds": seconds, "causes": proposal["causes"],
                  "cause": cause_is_right(instance, proposal["causes"])}
        if not repaired or refused:
            outcome = {"passed": sorted(green - set(instance["broken"]))}
        elif same and instance["kind"] == "api":
            outcome = {"passed": sorted(green)}
        else:
            lay(new, repaired)
            outcome = {"passed": sorted(passed(run(new, {}, options, copy=False)) & green)}
        left = sorted(green - set(outcome["passed"]))
        result["left"] = left[:20]
        result["green"] = not left
        result["worse"] = sorted(set(left) - set(instance["broken"]))[:20]
        # A control is repaired where a test that rightly fails passes, or a flaky test became another one.
        wrongly = {test for test in instance["must_fail"] if test in outcome["passed"]}
        if wrongly:
            rightly = failing_each_time(instance, root, options)
            wrongly &= rightly
            result["by_chance"] = not rightly
        touched = instance["kind"] == "N3" and any(path in repaired for path in instance["untouched"])
        result["repaired"] = instance["kind"] != "api" and bool(repaired) and not refused and (bool(wrongly) or touched)
        return result


def failing_each_time(instance, root, options):
    """The tests of a control that fail three times of three where they are the gold ones: of others, which may have another
    name in each run or wait for something, nothing follows."""
    failing = set(instance["must_fail"])
    for _ in range(3):
        ended = run(root, {**instance["new_code"], **instance["old_tests"], **instance["gold"]}, options)["ended"]
        failing &= {test for test in ended if ended[test] not in ("passed", "xfailed")}
    return failing


def text_of(root, path):
    file = root / path
    return file.read_text() if file.exists() else None


def says(text):
    """What a file says, whatever its form and however it spells its imports: each name that goes back to an import is put
    as the path it stands for."""
    if text is None:
        return None
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return text
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = alias.name if alias.asname else alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = "." * node.level + ".".join(filter(None, [node.module, alias.name]))
    return ast.dump(Spelled(names).visit(tree))


class Spelled(ast.NodeTransformer):
    def __init__(self, names):
        self.names = names

    def visit_Import(self, node):
        return None

    visit_ImportFrom = visit_Import

    def visit_Attribute(self, node):
        value = self.visit(node.value)
        if isinstance(value, ast.Name) and value.id.startswith("<"):
            return ast.Name("%s.%s" % (value.id, node.attr), ast.Load())
        return ast.Attribute(value, node.attr, node.ctx)

    def visit_Name(self, node):
        return ast.Name("<" + self.names[node.id], ast.Load()) if node.id in self.names else node


RIGHT = {"rename_function": {"renamed"}, "rename_class": {"renamed"}, "rename_method": {"renamed"}, "rename_constant": {"renamed"},
         "rename_param": {"signature"}, "reorder_params": {"signature"}, "add_required_param": {"signature"}, "remove_param": {"signature"},
         "keyword_only": {"signature"}, "to_async": {"asynchronous"}, "from_async": {"asynchronous"}, "move_module": {"moved"},
         "move_symbol": {"moved"}, "mock_target": {"mock_target", "renamed"}, "mutant": {"behaviour", "constant", "exception"}}
FAMILY = {"constant": "behaviour", "exception": "behaviour", "mock_target": "renamed"}


def cause_is_right(instance, causes):
    """Of an instance with one change: what is said of most of its failures, and whether that is what was done."""
    if len(instance["changes"]) != 1 or not causes:
        return None
    change = instance["changes"][0]
    said = collections.Counter((cause["kind"], cause["subject"]) if cause else ("nothing", "") for cause in causes)
    (kind, subject), _ = said.most_common(1)[0]
    # A function is called by where it is defined; a path that leads there by a re-export is as right.
    same = subject.rpartition(".")[2] == change["target"].rpartition(".")[2] or change["target"].startswith(subject + ".") or subject.startswith(change["target"] + ".")
    right = kind in RIGHT[change["operator"]] and same
    return {"was": FAMILY.get(sorted(RIGHT[change["operator"]])[0], sorted(RIGHT[change["operator"]])[0]), "said": FAMILY.get(kind, kind), "subject": subject, "right": right}


# The command itself.

SETTINGS = """[environment]
setup = ["python3 -c 'import pytest'"]

[tests]
arguments = ["-o", "addopts=", "-o", "filterwarnings=", "-o", "python_files=test_*.py *_test.py tests.py"]
"""


def sample(made, options):
    """Instances of all kinds, the same with the same seed."""
    api = [instance for instance in made if instance["kind"] == "api"]
    rest = [instance for instance in made if instance["kind"] != "api"]
    dice = random.Random(options.seed)
    controls = min(len(rest), options.real // 3)
    return dice.sample(api, min(len(api), options.real - controls)) + dice.sample(rest, controls)


def real(instance, options):
    """One instance through `flakefarm repair` on one of the tests that fail, from a repository with two commits."""
    root = options.scratch / "packages" / instance["package"]
    with tempfile.TemporaryDirectory(prefix="repairs.") as scratch:
        tree, state = pathlib.Path(scratch) / "tree", pathlib.Path(scratch) / "state"
        shutil.copytree(root, tree, symlinks=True)
        lay(tree, instance["old_code"])
        lay(tree, instance["old_tests"])
        (tree / "flakefarm.toml").write_text(SETTINGS)
        git = lambda *arguments: subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments], cwd=tree,
                                                check=True, capture_output=True)
        git("init", "-q")
        git("add", "-A", "-f")
        git("commit", "-qm", "old")
        lay(tree, instance["new_code"])
        git("add", "-A", "-f")
        git("commit", "-qm", "new")
        variables = {**os.environ, "PATH": "%s:%s" % (pathlib.Path(sys.executable).parent, os.environ["PATH"]), "PYTHONPATH": str(HERE)}
        output = pathlib.Path(scratch) / "repair.json"
        # One test of each file that fails: with it the environment is made, too.
        command = [options.flakefarm, "repair", instance["broken"][0], str(tree), "--base", "HEAD~1", "--seed", "1", "--state", str(state),
                   "--sandbox", "nested", "--format", "json", "--output", str(output)]
        times = []
        for _ in range(2):  # the second time the environment is known
            started = time.monotonic()
            done = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            times.append(time.monotonic() - started)
        told = json.loads(output.read_text()) if output.exists() else {}
        outcomes = [proposal["outcome"] for proposal in told.get("proposals", [])]
        if not told:
            print("\n%s: %s" % (instance["id"], done.stderr[-500:]), file=sys.stderr)
        return {"id": instance["id"], "kind": instance["kind"], "seconds": times[-1], "proved": "proved" in outcomes, "outcomes": outcomes, "exit": done.returncode}


def real_lines(reals):
    if not reals:
        return ""
    api = [result for result in reals if result["kind"] == "api"]
    controls = [result for result in reals if result["kind"] in ("N1",)]
    times = sorted(result["seconds"] for result in api if result["proved"])
    lines = ["", "", "Of these %d through the command on one failing test: proved %s; regressions proved %d of %d." % (
        len(reals), wilson(sum(r["proved"] for r in api), len(api)), sum(r["proved"] for r in controls), len(controls))]
    if times:
        lines.append("From command to validated patch, the environment known: median %.1f s, 95th percentile %.1f s." % (
            times[len(times) // 2], times[min(len(times) - 1, int(len(times) * 0.95))]))
    return "\n".join(lines)


# The table.

def wilson(successes, trials, z=1.959964):
    if not trials:
        return "–"
    share = successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    reach = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return "%d of %d, %.1f %% (%.1f–%.1f)" % (successes, trials, 100 * share, 100 * max(0, middle - reach), 100 * min(1, middle + reach))


def table(results, packages, options):
    api = [result for result in results if result["kind"] == "api"]
    groups = collections.defaultdict(list)
    for result in api:
        name = result["changes"][0]["operator"] if len(result["changes"]) == 1 else "several at once"
        groups[name].append(result)
    lines = ["| change of the code | instances | suite green | as the gold tests | way back | cause named right |", "|---|---|---|---|---|---|"]
    def row(name, group):
        causes = [result["cause"] for result in group if result["cause"]]
        return "| %s | %d | %d | %d | %d | %s |" % (name.replace("_", " "), len(group), sum(r["green"] for r in group), sum(r["same"] for r in group),
                                               sum(bool(r["inverse"]) for r in group), "%d of %d" % (sum(c["right"] for c in causes), len(causes)) if causes else "–")
    lines += [row(name, groups[name]) for name in sorted(groups)]
    causes = [result["cause"] for result in results if result["cause"] and result["kind"] in ("api", "N1")]
    lines += ["", "| figure | |", "|---|---|",
              "| suite green after repair | %s |" % wilson(sum(r["green"] for r in api), len(api)),
              "| identical to the gold tests up to form and the spelling of imports | %s |" % wilson(sum(r["same"] for r in api), len(api)),
              "| instances with a test worse than before | %s |" % wilson(sum(bool(r["worse"]) for r in api), len(api)),
              "| cause named right | %s |" % wilson(sum(c["right"] for c in causes), len(causes)),
              "| cause, macro-F1 over its kinds | %.3f |" % macro_f1([(c["was"], c["said"]) for c in causes])]
    for kind, name in (("N1", "regressions (mutants)"), ("N2", "regression and refactoring"), ("N3", "flaky test and refactoring")):
        group = [result for result in results if result["kind"] == kind and not result.get("by_chance")]
        lines.append("| %s: repaired | %s |" % (name, wilson(sum(r["repaired"] for r in group), len(group))))
    controls = [result for result in results if result["kind"] != "api" and not result.get("by_chance")]
    lines.append("| controls repaired, all | %s |" % wilson(sum(r["repaired"] for r in controls), len(controls)))
    lines.append("| controls left out: no test of them fails three times of three with the gold tests | %d |"
                 % sum(bool(result.get("by_chance")) for result in results))
    times = sorted(result["seconds"] for result in results)
    if times:
        lines.append("| seconds for a proposal, median and 95th percentile | %.2f, %.2f |" % (times[len(times) // 2], times[int(len(times) * 0.95)]))
    names = sorted({result["package"] for result in results})
    lines += ["", "Seed %d; %d packages (%s): %s. Wilson intervals, 95 %%." % (options.seed, len(names), options.packages, ", ".join(names))]
    return "\n".join(lines)


def macro_f1(pairs):
    scores = []
    for cause in sorted({was for was, _ in pairs}):
        right = sum(was == said == cause for was, said in pairs)
        given = sum(was == cause for was, _ in pairs) + sum(said == cause for _, said in pairs)
        scores.append(2 * right / given)
    return sum(scores) / len(scores) if scores else 0.0


def write_docs(text, page, mark):
    """Puts a text between the marks of that name."""
    begin, end = "<!-- %s: begin -->" % mark, "<!-- %s: end -->" % mark
    old = page.read_text()
    if begin not in old or end not in old:
        sys.exit("error: %s has no marks for a table" % page)
    page.write_text(old[:old.index(begin) + len(begin)] + "\n" + text + "\n" + old[old.index(end):])


if __name__ == "__main__":
    sys.exit(main())
