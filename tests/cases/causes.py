#!/usr/bin/env python3
"""Diagnoses tests whose cause is known and compares: a confusion matrix and the macro-F1.

    tests/cases/causes.py --flakefarm target/debug/flakefarm [--fixture tests/fixtures/causes] [--only CAUSE...]

Exits with 1 if the macro-F1 is below --least (0.9), or if a named polluter or state-setter is wrong
in more than one case of ten. Tests known to be stable must be told apart too: they count as a cause
of their own, `stable`, which a diagnosis reaches by `unknown` without a failure.
"""

import argparse
import collections
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

SHARE_OF_OTHERS = 0.9


def main():
    options = parse_arguments()
    known = json.loads((options.fixture / "known.json").read_text())["tests"]
    if options.only:
        known = [test for test in known if test["cause"] in options.only]
    if not known:
        sys.exit("error: no test has such a cause")
    started = time.monotonic()
    report = diagnose([test["id"] for test in known], options)
    minutes = (time.monotonic() - started) / 60
    found = {test["id"]: test for test in report["tests"]}
    pairs = [(test, told(found.get(test["id"]))) for test in known]
    print(matrix([(test["cause"], cause) for test, cause in pairs]))
    for test, cause in pairs:
        if cause != test["cause"]:
            print("wrong: %s is %s, said to be %s" % (test["id"], test["cause"], cause))
    score = macro_f1([(test["cause"], cause) for test, cause in pairs])
    asked = [test for test in known if test.get("others")]
    right = [test for test in asked if others(found.get(test["id"])) == test["others"]]
    for test in asked:
        if test not in right:
            print("wrong: %s depends on %s, said: %s" % (test["id"], test["others"], others(found.get(test["id"]))))
    causes = len({test["cause"] for test in known})
    print("\nmacro-F1 %.3f over %d causes, %d tests, seed %d" % (score, causes, len(known), options.seed))
    if asked:
        print("polluter or state-setter right in %d of %d" % (len(right), len(asked)))
    print("%d attempts, %.1f minutes" % (report["sweep"]["attempts"], minutes))
    good = score >= options.least and len(right) >= SHARE_OF_OTHERS * len(asked)
    return 0 if good else 1


def parse_arguments():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flakefarm", default="flakefarm", help="the binary")
    parser.add_argument("--fixture", type=pathlib.Path, default=here.parent / "fixtures" / "causes")
    parser.add_argument("--only", nargs="+", metavar="CAUSE", help="tests of these causes only")
    parser.add_argument("--least", type=float, default=0.9, help="the macro-F1 that is good enough")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 1 << 31),
                        help="a fresh one by default: none that rules were made with")
    parser.add_argument("--report", type=pathlib.Path, help="keep the JSON report here")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="after --: further options of diagnose")
    return parser.parse_args()


def diagnose(tests, options):
    with tempfile.TemporaryDirectory(prefix="flakefarm-causes.") as scratch:
        output = options.report or pathlib.Path(scratch) / "report.json"
        command = [options.flakefarm, "diagnose", *tests, str(options.fixture), "--seed", str(options.seed),
                   "--state", str(pathlib.Path(scratch) / "state"), "--format", "json", "--output", str(output)]
        done = subprocess.run(command + options.arguments, stdin=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            sys.exit("error: flakefarm diagnose ended with %d" % done.returncode)
        return json.loads(output.read_text())


def told(test):
    if test is None:
        return "missing"
    cause = test["cause"]["category"]
    return "stable" if cause == "unknown" and test["failures"] == 0 else cause


def others(test):
    experiment = ((test or {}).get("cause") or {}).get("experiment") or {}
    groups = experiment.get("order", {}).get("groups", [])
    return sorted(name for group in groups for name in group)


def matrix(pairs):
    counts = collections.Counter(pairs)
    rows = sorted({known for known, _ in pairs})
    columns = sorted({said for _, said in pairs})
    width = max(len(word) for word in rows)
    lines = [" " * width + "  " + " ".join("%3d" % (n + 1) for n in range(len(columns)))]
    for row in rows:
        cells = " ".join("%3s" % (counts[row, column] or ".") for column in columns)
        lines.append("%s  %s" % (row.ljust(width), cells))
    lines += ["", "said:"] + ["%3d %s" % (n + 1, column) for n, column in enumerate(columns)]
    return "\n".join(lines)


def macro_f1(pairs):
    """Mean over the known causes of the harmonic mean of precision and recall."""
    scores = []
    for cause in sorted({known for known, _ in pairs}):
        right = sum(known == said == cause for known, said in pairs)
        wanted = sum(known == cause for known, _ in pairs)
        given = sum(said == cause for _, said in pairs)
        scores.append(2 * right / (wanted + given))
    return sum(scores) / len(scores)


if __name__ == "__main__":
    sys.exit(main())
