//! `flakefarm diagnose` and `flakefarm bisect` in one process, as a person types them, on the real
//! container engine.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::harness::{command, git, project, report, said};
use std::path::Path;
use std::process::Command;

const TOML: &str = "[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n";

const SHOP: &str = "DISCOUNT = 0\n";
const TESTS: &str = "import shop
def test_victim(): assert shop.DISCOUNT == 0
def test_between(): pass
def test_polluter(): shop.DISCOUNT = 20
def test_after(): pass
";

#[test]
fn a_victim_is_told_its_polluter_and_what_that_changed() {
    let project = project(&[("flakefarm.toml", TOML), ("shop.py", SHOP), ("test_shop.py", TESTS)]);
    let state = tempfile::tempdir().unwrap();
    let output = command(state.path())
        .args(["diagnose", "test_shop.py::test_victim", "--seed", "1", "--format", "json"])
        .arg(project.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let report = report(&output);
    assert_eq!(report["sweep"]["question"], "diagnose");
    let tests = report["tests"].as_array().unwrap();
    assert_eq!(tests.len(), 1, "the neighbours are not in question");
    let cause = &tests[0]["cause"];
    assert_eq!(cause["category"], "order_victim", "{}", said(&output));
    assert!(cause["confidence"].as_f64().unwrap() > 0.95);
    let experiment = &cause["experiment"];
    assert_eq!(experiment["order"]["groups"], serde_json::json!([["test_shop.py::test_polluter"]]));
    assert_eq!(experiment["order"]["with"]["failures"], experiment["order"]["with"]["attempts"]);
    assert_eq!(experiment["order"]["alone"]["failures"], 0);
    let changed = &experiment["state"][0];
    assert_eq!(
        (&changed["name"], &changed["before"], &changed["after"]),
        (&"shop.DISCOUNT".into(), &"0".into(), &"20".into())
    );
    let by_hand = experiment["by_hand"].as_str().unwrap();
    assert!(by_hand.ends_with("test_shop.py::test_polluter test_shop.py::test_victim"), "{by_hand}");
}

#[test]
fn a_test_that_is_not_there_is_refused_with_those_that_are() {
    let project = project(&[("flakefarm.toml", TOML), ("shop.py", SHOP), ("test_shop.py", TESTS)]);
    let state = tempfile::tempdir().unwrap();
    let output = command(state.path())
        .args(["diagnose", "test_shop.py::test_vitcim"])
        .arg(project.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("no test is called test_shop.py::test_vitcim"), "{text}");
    assert!(text.contains("test_shop.py::test_victim") && text.contains("hint:"), "{text}");
}

fn commit(root: &Path, content: &str, message: &str) {
    std::fs::write(root.join("test_a.py"), content).unwrap();
    git(root, &format!("git add -A && git commit -qm '{message}'"));
}

#[test]
fn the_commit_that_broke_it_is_found_and_the_work_tree_left_alone() {
    let project = project(&[("flakefarm.toml", TOML)]);
    assert!(Command::new("git").args(["init", "-q"]).current_dir(project.path()).status().unwrap().success());
    for step in 0..6 {
        let outcome = if step < 4 { "True" } else { "False" };
        commit(
            project.path(),
            &format!("def test_a(): assert {outcome}  # {step}\n"),
            &format!("step {step}"),
        );
    }
    std::fs::write(project.path().join("test_a.py"), "def test_a(): pass\n").unwrap();
    let state = tempfile::tempdir().unwrap();
    let output = command(state.path())
        .args(["bisect", "test_a.py::test_a", "--good", "HEAD~5", "--format", "json"])
        .arg(project.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let found = &report(&output)["tests"][0]["introduced"];
    assert_eq!(found["outcome"], "found", "{found}");
    assert_eq!(found["candidates"][0]["subject"], "step 4");
    assert!(found["confidence"].as_f64().unwrap() > 0.9, "{found}");
    let left = std::fs::read_to_string(project.path().join("test_a.py")).unwrap();
    assert_eq!(left, "def test_a(): pass\n");
}
