#!/usr/bin/env python3
"""Sweeps real projects whose flaky tests are known, and compares.

For each project of a cases file: gets its source, writes a flakefarm.toml, runs `flakefarm sweep`,
and sets the verdicts against what is known. Writes one JSON file and one Markdown table.
Only the standard library; see README.md beside this file for the cases file's format.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ORDER_KINDS = ("OD-Vic", "OD-Brit")
EXIT_CODES_WITH_A_REPORT = (0, 1, 3)


class NotSwept(Exception):
    """A project that could not be swept: reported, never counted as clean."""


class UnknownOptions(NotSwept):
    """A project whose own options for pytest name plugins that are not installed."""


def main():
    options = parse_arguments()
    cases = json.loads(options.cases.read_text())
    projects = [dict(case, stable=False) for case in cases.get("flaky_projects", [])]
    projects += [dict(case, stable=True) for case in cases.get("stable_projects", [])]
    if options.only:
        unknown = set(options.only) - {project["name"] for project in projects}
        if unknown:
            sys.exit(f"error: not in {options.cases}: {', '.join(sorted(unknown))}")
        projects = [project for project in projects if project["name"] in options.only]
    if not projects:
        sys.exit(f"error: no project to sweep in {options.cases}")

    options.output.mkdir(parents=True, exist_ok=True)
    rows = earlier_rows(options) if options.keep else []
    for project in projects:
        rows = [row for row in rows if row["name"] != project["name"]]
        print(f"== {project['name']}", file=sys.stderr, flush=True)
        rows.append(sweep_and_compare(project, options))
        # Rewritten after each project: an interrupted run keeps what it learned.
        (options.output / "cases.json").write_text(json.dumps(summary(rows, options), indent=2) + "\n")
        (options.output / "cases.md").write_text(markdown(rows, options))
    print(markdown(rows, options))
    return 70 if any(row["error"] for row in rows) else 0


def earlier_rows(options):
    """What an earlier run into the same directory found."""
    try:
        return json.loads((options.output / "cases.json").read_text())["projects"]
    except FileNotFoundError:
        return []


def absolute(path):
    return pathlib.Path(path).absolute()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=pathlib.Path, required=True, help="the projects and what is known of them")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--sources", type=absolute, help="a directory with one checkout per project name")
    where.add_argument("--mirror", type=absolute, help="a directory of git directories named owner+name")
    parser.add_argument("--flakefarm", default="flakefarm", help="the binary")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("target/cases"), help="where results go")
    parser.add_argument("--runs", type=int, help="attempts per test; without it the sweep is adaptive")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these projects only")
    parser.add_argument("--keep", action="store_true", help="keep what earlier runs found of other projects")
    parser.add_argument("--image", default=os.environ.get("FLAKEFARM_IMAGE", "python:3.11-slim-bookworm"))
    parser.add_argument("sweep_arguments", nargs="*", metavar="ARGUMENT", help="after --: further options of sweep")
    options = parser.parse_args()
    options.flakefarm = shutil.which(options.flakefarm) or sys.exit(f"error: no such program: {options.flakefarm}")
    options.flakefarm = os.path.abspath(options.flakefarm)
    options.output = options.output.absolute()
    return options


def sweep_and_compare(project, options):
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="flakefarm-case.") as scratch:
            tree = pathlib.Path(scratch) / project["name"]
            bring_source(project, options, tree)
            settings = tree / "flakefarm.toml"
            settings.write_text(configuration(project, options))
            try:
                report = sweep(project, options, tree)
            except UnknownOptions:
                # The requirements are what the tests need, not what the project's options report with.
                settings.write_text(configuration(project, options, arguments=["-o", "addopts="]))
                report = sweep(project, options, tree)
        row = compare(project, report)
    except NotSwept as error:
        print(f"   {error}", file=sys.stderr, flush=True)
        row = {"name": project["name"], "stable": project["stable"], "error": str(error)}
    row["arguments"] = options.sweep_arguments
    row["minutes"] = round((time.monotonic() - started) / 60, 1)
    return row


def bring_source(project, options, tree):
    if options.sources:
        source = options.sources / project["name"]
        if not source.is_dir():
            raise NotSwept(f"no checkout at {source}")
        shutil.copytree(source, tree, symlinks=True, ignore=shutil.ignore_patterns(".git"))
        return
    base = options.mirror / project["repository"].replace("/", "+")
    candidates = [base, *sorted(base.glob("*")), *sorted(base.glob("*/.git"))]
    repository = next((path for path in candidates if (path / "HEAD").is_file() and (path / "objects").is_dir()), None)
    if repository is None:
        raise NotSwept(f"no git directory at {base}")
    tree.mkdir()
    # Not `git archive`: it leaves out what a project marks export-ignore, which is often its tests.
    git = ["git", f"--git-dir={repository}", f"--work-tree={tree}"]
    environment = dict(os.environ, GIT_INDEX_FILE=str(tree.parent / "index"), GIT_CONFIG_COUNT="1",
                       GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0="*")
    done = subprocess.run([*git, "checkout", "--force", project["commit"], "--", "."],
                          env=environment, cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotSwept(f"cannot check out {project['commit'][:12]}: {done.stderr.strip()[-300:]}")


def configuration(project, options, arguments=()):
    requirements = " ".join(f"'{requirement}'" for requirement in project.get("requirements", []))
    setup = [f"python3 -m pip install 'setuptools<70' wheel {requirements}".strip()]
    if project.get("editable", True):
        # A version from git tags cannot be worked out in a tree without history.
        version = "SETUPTOOLS_SCM_PRETEND_VERSION=0.0.1"
        setup.append(f"{version} python3 -m pip install --no-build-isolation -e . || {version} python3 -m pip install -e .")
    lines = [
        "[project]",
        f"name = {json.dumps(project['name'])}",
    ]
    # Known tests are named as pytest names them.
    lines += ["", "[tests]", 'framework = "pytest"']
    if arguments:
        lines += [f"arguments = {json.dumps(arguments)}"]
    if project.get("test_paths"):
        lines += [f"paths = {json.dumps(project['test_paths'])}"]
    lines += [
        "",
        "[environment]",
        f"image = {json.dumps(options.image)}",
        f"setup = {json.dumps(setup)}",
        'pass_env = ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT"]',
        "",
    ]
    return "\n".join(lines)


def sweep(project, options, tree):
    output = options.output / f"{project['name']}.report.json"
    output.unlink(missing_ok=True)
    command = [options.flakefarm, "sweep", str(tree), "--format", "json", "--output", str(output),
               "--seed", str(options.seed), "--state", str(options.output / "state")]
    if options.runs:
        command += ["--runs", str(options.runs)]
    command += options.sweep_arguments
    log = options.output / f"{project['name']}.log"
    with log.open("wb") as stream:
        done = subprocess.run(command, cwd=options.output, stdin=subprocess.DEVNULL, stdout=stream,
                              stderr=subprocess.STDOUT, check=False)
    if done.returncode not in EXIT_CODES_WITH_A_REPORT or not output.is_file():
        said = log.read_text(errors="replace")
        last = said.strip().splitlines()[-3:]
        kind = UnknownOptions if "unrecognized arguments" in said else NotSwept
        raise kind(f"flakefarm sweep ended with {done.returncode}: {' / '.join(last) or 'no output'} (see {log})")
    report = json.loads(output.read_text())
    if report.get("schema") != "flakefarm.report/v1":
        raise NotSwept(f"unexpected schema {report.get('schema')!r}")
    if not report["tests"]:
        raise NotSwept("the report has no tests")
    return report


def compare(project, report):
    verdicts = {test["id"]: test["verdict"] for test in report["tests"]}
    known = {test["id"]: test for test in project.get("flaky", [])}
    # Tests that were seen to vary but whose cause nobody established: no miss, no false accusation.
    varied = {test["id"] for test in project.get("also_varied", [])}
    varied |= {test if isinstance(test, str) else test.get("id") or test["test_id"] for test in project.get("varied_but_unlisted", [])}
    accused = {test for test, verdict in verdicts.items() if verdict in ("flaky", "fragile")}
    found = sorted(set(known) & accused)
    missed = sorted(set(known) - accused)
    order = {test for test, case in known.items() if any(kind in order_text(case) for kind in ORDER_KINDS)}
    unlisted = sorted(accused - set(known) - varied)
    said = {test["id"]: category(test) for test in report["tests"]}
    return {
        "name": project["name"],
        "stable": project["stable"],
        "error": None,
        "tests": len(verdicts),
        "known_flaky": len(known),
        "known_order_dependent": len(order),
        "found": found,
        "found_order_dependent": sorted(order & accused),
        "missed": [{"id": test, "cause": known[test].get("cause"), "verdict": verdicts.get(test, "not listed")}
                   for test in missed],
        "categories": [{"id": test, "known": known[test].get("cause"), "said": said.get(test)} for test in sorted(known)],
        "known_varying": len(varied - set(known)),
        "known_varying_found": len((varied - set(known)) & accused),
        "found_unlisted": unlisted,
        "verdicts": {word: list(verdicts.values()).count(word) for word in sorted(set(verdicts.values()))},
        "attempts": report["sweep"]["attempts"],
        "samples": report["sweep"].get("samples"),
        "infrastructure_errors": report["sweep"].get("infrastructure_errors"),
        "container_seconds": report["sweep"].get("container_seconds"),
        "cost": cost(report["sweep"]),
        "stopped": report["sweep"].get("stopped"),
    }


def category(test):
    """What a report says that a test depends on, if it says so."""
    return (test.get("cause") or {}).get("category")


def cost(sweep):
    """Container time over that of the fixed number of runs of everything that proves as much."""
    saved = sweep.get("saved_vs_fixed")
    return round(1 - saved["fraction"], 2) if saved else None


def order_text(case):
    return " ".join([str(case.get("cause", "")), *case.get("listed_as", [])])


def summary(rows, options):
    swept = [row for row in rows if not row["error"]]
    return {
        "schema": "flakefarm.cases/v1",
        "seed": options.seed,
        "runs": options.runs,
        "arguments": options.sweep_arguments,
        "totals": {
            "projects": len(rows),
            "not_swept": len(rows) - len(swept),
            "known_flaky": sum(row["known_flaky"] for row in swept),
            "found": sum(len(row["found"]) for row in swept),
            "known_order_dependent": sum(row["known_order_dependent"] for row in swept),
            "found_order_dependent": sum(len(row["found_order_dependent"]) for row in swept),
            "stable_tests": sum(row["tests"] for row in swept if row["stable"]),
            "stable_tests_accused": sum(len(row["found_unlisted"]) for row in swept if row["stable"]),
            "minutes": round(sum(row["minutes"] for row in rows), 1),
        },
        "projects": rows,
    }


def markdown(rows, options):
    totals = summary(rows, options)["totals"]
    lines = [
        "| project | tests | known flaky | of these by order | found | missed | also varying, found | found, on no list | attempts | cost | minutes |",
        "| --- | --: | --: | --: | --: | --- | --: | --- | --: | --: | --: |",
    ]
    for row in rows:
        name = row["name"] + (" (stable)" if row["stable"] else "")
        if row.get("arguments"):
            name += f" (`{' '.join(row['arguments'])}`)"
        if row["error"]:
            lines.append(f"| {name} | not swept: {cell(row['error'])} | | | | | | | | | {row['minutes']} |")
            continue
        missed = ", ".join(f"`{miss['id']}` ({miss['verdict']})" for miss in row["missed"]) or "none"
        unlisted = ", ".join(f"`{test}`" for test in row["found_unlisted"][:5]) or "none"
        if len(row["found_unlisted"]) > 5:
            unlisted += f" and {len(row['found_unlisted']) - 5} more"
        lines.append(
            f"| {name} | {row['tests']} | {row['known_flaky']} | {row['known_order_dependent']} | {len(row['found'])} "
            f"| {cell(missed)} | {row['known_varying_found']} of {row['known_varying']} | {cell(unlisted)} "
            f"| {row['attempts']} | {'-' if row.get('cost') is None else row['cost']} | {row['minutes']} |"
        )
    lines += [
        "",
        f"Found {totals['found']} of {totals['known_flaky']} known flaky tests, "
        f"{totals['found_order_dependent']} of {totals['known_order_dependent']} that depend on order; "
        f"accused {totals['stable_tests_accused']} of {totals['stable_tests']} tests of stable projects; "
        f"{totals['not_swept']} of {totals['projects']} projects not swept; {totals['minutes']} minutes; seed {options.seed}.",
        "",
        *categories(rows),
    ]
    return "\n".join(lines)


def categories(rows):
    """What each known flaky test was said to be beside what is known of it."""
    told = [(row["name"], one) for row in rows if not row["error"] for one in row.get("categories", [])]
    if not told:
        return []
    lines = ["| project | known flaky test | known cause | category said |", "| --- | --- | --- | --- |"]
    lines += [f"| {name} | `{cell(one['id'])}` | {cell(one['known'] or 'not known')} | {(one['said'] or 'none').replace('_', ' ')} |"
              for name, one in told]
    return [*lines, ""]


def cell(text):
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    sys.exit(main())
