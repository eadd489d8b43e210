#!/usr/bin/env python3
"""Has flakefarm repair tests that are flaky for a known reason: how many of those whose cause is found get a proved patch.

    tests/repairs/flaky.py --flakefarm target/debug/flakefarm [--fixture tests/fixtures/causes] [--only CAUSE...]

Prints a table, and writes it into a page with --write-docs. Exits with 1 below --least.
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

from repairs import write_docs

HERE = pathlib.Path(__file__).resolve().parent
# Nothing in a test mends a machine without a network or with too little memory, and what is stable needs no repair.
NOT_THE_TESTS = ("network", "memory", "stable", "unknown")


def main():
    options = parse_arguments()
    known = json.loads((options.fixture / "known.json").read_text())["tests"]
    known = [test for test in known if test["cause"] not in NOT_THE_TESTS and (not options.only or test["cause"] in options.only)]
    if options.each:
        counts = collections.Counter()
        known = [test for test in known if not counts.update([test["cause"]]) and counts[test["cause"]] <= options.each]
    deadline = time.monotonic() + options.minutes * 60
    rows = []
    with tempfile.TemporaryDirectory(prefix="flakefarm-flaky.") as scratch:
        for test in known:
            if time.monotonic() > deadline:
                print("not asked: %s" % test["id"], file=sys.stderr)
                continue
            rows.append(mend(test, pathlib.Path(scratch), options))
            print("%(id)s: %(cause)s, found %(found)s, %(strategy)s, %(seconds).0f s" % rows[-1], file=sys.stderr, flush=True)
    text = table(rows, options)
    print(text)
    if options.write_docs:
        write_docs(text, options.write_docs, "flaky")
    found = [row for row in rows if row["found"] == row["cause"]]
    return 0 if found and sum(row["proved"] for row in found) >= options.least * len(found) else 1


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flakefarm", default="flakefarm", help="the binary")
    parser.add_argument("--fixture", type=pathlib.Path, default=HERE.parent / "fixtures" / "causes")
    parser.add_argument("--only", nargs="+", metavar="CAUSE")
    parser.add_argument("--each", type=int, metavar="N", help="the first N tests of each cause only")
    parser.add_argument("--minutes", type=float, default=60, help="nothing is begun after that")
    parser.add_argument("--least", type=float, default=0.75, help="the share of proved patches that is good enough")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 1 << 31))
    parser.add_argument("--write-docs", type=pathlib.Path)
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="after --: further options of repair")
    return parser.parse_args()


def mend(test, scratch, options):
    started = time.monotonic()
    output = scratch / "repair.json"
    output.unlink(missing_ok=True)
    command = [options.flakefarm, "repair", test["id"], str(options.fixture), "--seed", str(options.seed), "--base", "HEAD",
               "--state", str(scratch / "state"), "--format", "json", "--output", str(output)]
    done = subprocess.run(command + options.arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    told = json.loads(output.read_text()) if output.exists() else {}
    if not told:
        print(done.stderr[-400:], file=sys.stderr)
    causes = dict(told.get("causes", []))
    proved = [proposal for proposal in told.get("proposals", []) if proposal["outcome"] == "proved"]
    return {"id": test["id"], "cause": test["cause"], "found": causes.get(test["id"], "nothing"), "proved": bool(proved),
            "strategy": proved[0]["strategy"] if proved else ", ".join("%(strategy)s %(outcome)s" % p for p in told.get("proposals", [])) or "nothing proposed",
            "seconds": time.monotonic() - started}


def table(rows, options):
    groups = collections.defaultdict(list)
    for row in rows:
        groups[row["cause"]].append(row)
    lines = ["| cause | tests | cause found | proved patch | by |", "|---|---|---|---|---|"]
    for cause, group in sorted(groups.items()):
        found = [row for row in group if row["found"] == cause]
        by = sorted({row["strategy"] for row in found if row["proved"]})
        lines.append("| %s | %d | %d | %d | %s |" % (cause.replace("_", " "), len(group), len(found), sum(row["proved"] for row in found), ", ".join(by)))
    found = [row for row in rows if row["found"] == row["cause"]]
    proved = sum(row["proved"] for row in found)
    share = 100 * proved / len(found) if found else 0
    lines += ["", "A proved patch for %d of %d tests whose cause is found (%.0f %%); seed %d." % (proved, len(found), share, options.seed)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
