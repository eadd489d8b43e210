//! `flakefarm validate` from the command line: patches, revisions and dirty work trees.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::harness::{command, git, project, report, said};
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

const TEST: &str = "test_shop.py::test_total";

/// A repository with a test that always fails, and one that passes.
fn broken() -> tempfile::TempDir {
    let project = project(&[
        ("flakefarm.toml", "[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n"),
        ("shop.py", "def total(prices):\n    return sum(prices) + 1\n"),
        (
            "test_shop.py",
            "import shop\ndef test_total(): assert shop.total([1, 2]) == 3\ndef test_type(): assert isinstance(shop.total([]), int)\n",
        ),
    ]);
    git(project.path(), "git init -q -b main . && git add . && git commit -qm base");
    project
}

fn patch(to: &str) -> String {
    format!(
        "--- a/shop.py\n+++ b/shop.py\n@@ -1,2 +1,2 @@\n def total(prices):\n-    return sum(prices) + 1\n+    return {to}\n"
    )
}

fn validate(root: &Path, arguments: &[&str], stdin: &str) -> Output {
    let state = tempfile::tempdir().unwrap();
    let mut asked = command(state.path());
    asked.arg("validate").args(arguments).arg(root).args([
        "--format",
        "json",
        "--seed",
        "1",
        "--sandbox",
        "nested",
    ]);
    let mut child =
        asked.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn answer(output: &Output) -> String {
    let report = report(output);
    let tests = report["tests"].as_array().unwrap();
    let test = tests.iter().find(|test| test["id"] == TEST).unwrap_or_else(|| panic!("{}", said(output)));
    test["comparison"]["answer"].as_str().unwrap_or_else(|| panic!("{}", said(output))).to_owned()
}

#[test]
fn a_patch_a_revision_and_the_work_tree_are_proved_to_fix_a_test() {
    let project = broken();
    let root = project.path();
    let fixed = validate(root, &["--patch", "-", TEST], &patch("sum(prices)"));
    assert_eq!(fixed.status.code(), Some(0), "{}", said(&fixed));
    assert_eq!(answer(&fixed), "fixed");
    assert_eq!(
        std::fs::read_to_string(root.join("shop.py")).unwrap(),
        "def total(prices):\n    return sum(prices) + 1\n"
    );

    git(
        root,
        "git checkout -qb fix && sed -i 's/ + 1//' shop.py && git commit -qam fix && git checkout -q main",
    );
    let by_revision = validate(root, &["--revision", "fix"], "");
    assert_eq!(by_revision.status.code(), Some(0), "without a name, what fails: {}", said(&by_revision));
    assert_eq!(answer(&by_revision), "fixed");

    git(root, "git checkout -q fix -- shop.py");
    let dirty = validate(root, &[TEST], "");
    assert_eq!(dirty.status.code(), Some(0), "{}", said(&dirty));
    assert_eq!(answer(&dirty), "fixed");
}

#[test]
fn what_does_not_fix_it_or_breaks_a_neighbour_is_said() {
    let project = broken();
    let root = project.path();
    let same = validate(root, &["--patch", "-", TEST], &patch("sum(prices) + 2"));
    assert_eq!(same.status.code(), Some(1), "{}", said(&same));
    assert_eq!(answer(&same), "not_shown");
    let worse = validate(root, &["--patch", "-", TEST], &patch("float(sum(prices))"));
    assert_eq!(worse.status.code(), Some(1), "{}", said(&worse));
    assert_eq!(answer(&worse), "made_worse", "its neighbour asks for an int");
}

#[test]
fn changes_that_cannot_be_asked_about_are_refused() {
    let project = broken();
    let root = project.path();
    for (arguments, stdin, wanted) in [
        (
            &["--patch", "-", TEST][..],
            patch("0").replace("+ 1", "+ 7"),
            "standard input:3: does not apply to shop.py:1",
        ),
        (&["--patch", "-", TEST], String::new(), "holds no patch"),
        (
            &["--patch", "-", TEST],
            "--- /dev/null\n+++ b/../x\n@@ -0,0 +1 @@\n+x\n".to_owned(),
            "../x is outside the project",
        ),
        (&["--patch", "/no/such.patch", TEST], String::new(), "/no/such.patch"),
        (&["--revision", "no-such-branch", TEST], String::new(), "no-such-branch"),
        (&["--revision", "main", TEST], String::new(), "main changes nothing"),
        (&[TEST], String::new(), "the work tree changes nothing"),
        (&["--patch", "-", "--revision", "main"], String::new(), "cannot be used with"),
    ] {
        let output = validate(root, arguments, &stdin);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(wanted), "{wanted}: {}", said(&output));
    }
}
