"""Makes one instance: reads what is wanted from standard input as JSON, writes the instance, or null where the dice found
nothing valid. A process of its own, so that rope's state and whatever the broken tests do end with it."""

import json
import pathlib
import random
import shutil
import sys
import tempfile

import breaker
import repairs


def main():
    ask = json.load(sys.stdin)
    # Several packages in turn: not every one has what an operator works on.
    for attempt in range(repairs.TRIES):
        package = ask["packages"][attempt // 4 % len(ask["packages"])]
        ask.update(package)
        dice = random.Random("%s %s %s %s %s" % (ask["seed"], ask["kind"], ask["number"], ask["package"], attempt))
        try:
            instance = attempt_one(ask, dice)
        except (breaker.NotPossible, SyntaxError):
            continue
        except Exception as error:  # rope gives up in many ways; none of them is ours
            print("%s: %s" % (type(error).__name__, error), file=sys.stderr)
            continue
        if instance:
            return json.dump(instance, sys.stdout)
    return json.dump(None, sys.stdout)


def attempt_one(ask, dice):
    with tempfile.TemporaryDirectory(prefix="repairs.") as scratch:
        root = pathlib.Path(scratch) / "tree"
        shutil.copytree(ask["root"], root, symlinks=True)
        work = breaker.Work(root, dice)
        try:
            return make(ask, work, pathlib.Path(scratch))
        finally:
            work.close()


def make(ask, work, scratch):
    green = set(ask["green"])
    start = work.files()
    backwards = len(ask["operators"]) == 1 and ask["operators"][0] in breaker.BACKWARDS
    extra, untouched = {}, []
    if ask["kind"] == "N3":
        path = next((p for p in sorted(start) if breaker.is_test(p) and pathlib.PurePosixPath(p).name.startswith("test_")), "test_x.py")
        path = str(pathlib.PurePosixPath(path).parent / "test_of_a_coin.py")
        extra, untouched = {path: breaker.FLAKY}, [path]
        work.write(path, breaker.FLAKY)
    changes = []
    for name in ask["operators"]:
        change = breaker.OPERATORS[breaker.BACKWARDS.get(name, name)](work)
        change.operator = name
        work.changes.append(change)
        extra.update(getattr(work, "before", {}))
        changes.append({"operator": name, "target": change.target})
    if work.dice.random() < 0.7 and ask["kind"] != "N1":
        breaker.noise(work)
    refactored = work.files()
    if ask["kind"] in ("N1", "N2"):
        change = breaker.mutate(work)
        changes.append({"operator": "mutant", "target": change.target})
    end = work.files()
    before = {**start, **extra}
    code = lambda files: {path: text for path, text in files.items() if not breaker.is_test(path)}
    tests = lambda files: {path: text for path, text in files.items() if breaker.is_test(path)}
    old, new = (end, before) if backwards else (before, end)
    instance = {"package": ask["package"], "kind": ask["kind"], "changes": changes,
                "old_code": overlay(start, code(old), code(start)), "new_code": overlay(start, code(new), code(start)),
                "old_tests": overlay(start, tests(old), tests(start)), "gold": overlay(start, tests(new), tests(start)), "untouched": untouched}
    if set(tests(old)) - set(tests(new)):
        raise breaker.NotPossible("a test file moved")
    if ask["kind"] != "N1" and instance["old_tests"] == instance["gold"]:
        raise breaker.NotPossible("nothing breaks")
    # With the tests as they should become, everything that was green is green; what is broken is what is not without.
    right = repairs.run(pathlib.Path(ask["root"]), {**instance["new_code"], **instance["gold"]}, None)
    extras = [test for test in repairs.passed(right) if test.partition("::")[0] in extra and "coin" not in test]
    green |= set(extras)
    if right.get("too_long"):
        raise breaker.NotPossible("the tests do not end")
    instance["must_fail"] = sorted(green - repairs.passed(right))
    if ask["kind"] in ("api", "N3") and instance["must_fail"]:
        raise breaker.NotPossible("the gold is not green")
    if ask["kind"] in ("N1", "N2") and not instance["must_fail"]:
        raise breaker.NotPossible("the mutant lives")
    if ask["kind"] == "N1":
        seen = right
    else:
        seen = repairs.run(pathlib.Path(ask["root"]), {**instance["new_code"], **instance["old_tests"]}, None)
    instance["green"] = sorted(green)
    instance["broken"] = sorted(green - repairs.passed(seen))
    if not instance["broken"]:
        raise breaker.NotPossible("nothing breaks")
    failing = set(instance["broken"])
    files = {test.partition("::")[0] for test in failing}
    instance["failures"] = [f for f in seen["failures"] if f["test"] in failing or f["test"] in files or f["kind"] == "collection"][:40]
    if backwards:
        # The tests before the change are green as well.
        was = repairs.run(pathlib.Path(ask["root"]), {**instance["old_code"], **instance["old_tests"]}, None)
        if green - repairs.passed(was):
            raise breaker.NotPossible("the tests were not green before")
    return instance


def overlay(start, wanted, of_start):
    """What must be laid over the package as it came to have `wanted` in place of its `of_start`."""
    changed = {path: text for path, text in wanted.items() if start.get(path) != text}
    changed.update({path: None for path in of_start if path not in wanted})
    return changed


if __name__ == "__main__":
    main()
