//! `flakefarm analyse` and `flakefarm repair` from the command line, on a repository whose code changed.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::harness::{command, git, project, report, said};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

const SHOP: &str = "RATE = 17\n\ndef total(items, rate):\n    result = 0\n    for item in items:\n        result += item * rate\n    return result\n\ndef bill(items):\n    return total(items, RATE)\n";
const TESTS: &str = "import random\nimport shop\n\ndef test_total():\n    assert shop.total([1, 2], 2) == 6\n\ndef test_one():\n    assert shop.total([1], rate=2) == 2\n\ndef test_bill():\n    assert shop.bill([1]) == 17\n\ndef test_steady():\n    assert shop.bill([]) == 0\n\ndef test_before():\n    open('/nowhere/rates.json')\n";

/// A repository in which a function was renamed and a constant changed since the last commit.
fn changed() -> tempfile::TempDir {
    let project = project(&[
        ("flakefarm.toml", "[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n"),
        ("shop.py", SHOP),
        ("test_shop.py", TESTS),
    ]);
    git(project.path(), "git init -q -b main . && git add . && git commit -qm base");
    let new = SHOP.replace("total(", "sum_up(").replace("RATE = 17", "RATE = 19");
    std::fs::write(project.path().join("shop.py"), new).unwrap();
    project
}

fn ask(what: &str, root: &Path, arguments: &[&str]) -> Output {
    let state = tempfile::tempdir().unwrap();
    let common = ["--format", "json", "--seed", "1", "--sandbox", "nested"];
    command(state.path()).arg(what).args(arguments).arg(root).args(common).output().unwrap()
}

fn test<'a>(analysis: &'a Value, name: &str) -> &'a Value {
    let id = format!("test_shop.py::{name}");
    analysis["tests"].as_array().unwrap().iter().find(|test| test["id"] == id).unwrap()
}

#[test]
fn failures_are_traced_to_the_change_that_made_them() {
    let project = changed();
    let output = ask("analyse", project.path(), &["--runs", "2"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let analysis = report(&output);
    assert_eq!(analysis["base"], "HEAD");
    let cause = |name: &str| {
        let test = test(&analysis, name);
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (word(&test["since"]), word(&test["cause"]["kind"]), word(&test["cause"]["subject"]))
    };
    let expected =
        |since: &str, kind: &str, subject: &str| (since.to_owned(), kind.to_owned(), subject.to_owned());
    assert_eq!(cause("test_total"), expected("change", "renamed", "shop.total"));
    assert_eq!(cause("test_bill"), expected("change", "constant", "shop.RATE"));
    assert_eq!(cause("test_before"), expected("before", "missing_file", "/nowhere/rates.json"));
    // Two failures with one cause are one entry.
    let entries = analysis["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 3, "{entries:#?}");
    assert_eq!(entries[0]["tests"].as_array().unwrap().len(), 2);
    assert_eq!(entries[0]["next"], "flakefarm repair --base HEAD");
    assert_eq!(analysis["passed"], 1);
}

#[test]
fn a_rename_is_followed_proved_and_written_and_a_changed_value_is_not() {
    let project = changed();
    let root = project.path();
    let tests = ["test_shop.py::test_total", "test_shop.py::test_one"];
    let looked = ask("repair", root, &tests);
    assert_eq!(looked.status.code(), Some(0), "{}", said(&looked));
    assert_eq!(
        std::fs::read_to_string(root.join("test_shop.py")).unwrap(),
        TESTS,
        "nothing is written unasked"
    );
    let proposal = &report(&looked)["proposals"][0];
    assert_eq!(proposal["outcome"], "proved", "{proposal:#}");
    assert_eq!(proposal["inverse"], true);

    let applied = ask("repair", root, &[tests[0], tests[1], "--apply"]);
    assert_eq!(applied.status.code(), Some(0), "{}", said(&applied));
    assert_eq!(
        std::fs::read_to_string(root.join("test_shop.py")).unwrap(),
        TESTS.replace("shop.total", "shop.sum_up")
    );

    // What is left fails because the code does something else: no reference is to be followed.
    git(root, "git add . && git commit -qm renamed");
    let refused = ask("repair", root, &["test_shop.py::test_bill", "--base", "HEAD"]);
    assert_ne!(refused.status.code(), Some(0), "{}", said(&refused));
}
