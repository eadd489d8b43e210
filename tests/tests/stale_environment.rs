//! What is tested is the code that was submitted, whatever set-up copied, generated or compiled before:
//! in one process, on a farm, at each revision of a bisection, and for projects that look alike.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::farm::Farm;
use flakefarm_tests::harness::{command, git, project, report, said, with_verdict};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// Copies the sources into the image; works without a package index.
const INSTALLS: &str = "[project]\nname = \"stale\"\n[environment]\n\
    setup = [\"python3 -m pip install --no-index --no-build-isolation .\"]\n";
const PYPROJECT: &str = "[build-system]\nrequires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta\"\n\
    [project]\nname = \"shopkit\"\nversion = \"1.0\"\n";
const TEST: &str = "import shopkit\ndef test_total(): assert shopkit.total(2, 3) == 5\n";
const RIGHT: &str = "def total(a, b): return a + b\n";
const WRONG: &str = "def total(a, b): return a - b\n";

fn installed(code: &str) -> TempDir {
    project(&[
        ("flakefarm.toml", INSTALLS),
        ("pyproject.toml", PYPROJECT),
        ("src/shopkit/__init__.py", code),
        ("tests/test_total.py", TEST),
    ])
}

fn write(project: &TempDir, path: &str, content: &str) {
    std::fs::write(project.path().join(path), content).unwrap();
}

fn sweep(state: &TempDir, project: &TempDir, more: &[&str]) -> Output {
    command(state.path())
        .args(["sweep", "--runs", "2", "--seed", "1", "--panel", "none", "--format", "json"])
        .args(more)
        .arg(project.path())
        .output()
        .unwrap()
}

/// The verdict of the one test.
fn verdict(output: &Output) -> Value {
    let report = report(output);
    assert_eq!(report["tests"].as_array().unwrap().len(), 1, "{}", said(output));
    report["tests"][0]["verdict"].clone()
}

#[test]
fn what_set_up_copied_is_the_code_of_this_snapshot() {
    let state = tempfile::tempdir().unwrap();
    let first = installed(RIGHT);
    let nested = ["--sandbox", "nested"];
    assert_eq!(verdict(&sweep(&state, &first, &nested)), "healthy");
    write(&first, "src/shopkit/__init__.py", WRONG);
    for level in ["container", "nested", "forked"] {
        let output = sweep(&state, &first, &["--sandbox", level]);
        assert_eq!(verdict(&output), "broken", "{level}: {}", said(&output));
    }
    write(&first, "src/shopkit/__init__.py", RIGHT);
    assert_eq!(verdict(&sweep(&state, &first, &nested)), "healthy", "as it was");
    // The same name, the same project file, other code.
    let output = sweep(&state, &installed(WRONG), &nested);
    assert_eq!(verdict(&output), "broken", "another project: {}", said(&output));
}

#[test]
fn what_set_up_generated_is_made_of_this_snapshot_even_over_files_of_its_own() {
    let toml = "[project]\nname = \"gen\"\n[environment]\nsetup = [\"python3 gen.py\"]\n";
    let source = "for name in ('tables.py', 'known.py'):\n    \
        open(name, 'w').write('LIMIT = %s\\n' % open('tables.txt').read().strip())\n";
    let project = project(&[
        ("flakefarm.toml", toml),
        ("gen.py", source),
        (".gitignore", "tables.py\n"),
        ("known.py", "LIMIT = 0\n"),
        ("tables.txt", "10"),
        (
            "test_gen.py",
            "import known, tables\ndef test_limit(): assert (tables.LIMIT, known.LIMIT) == (10, 10)\n",
        ),
    ]);
    let state = tempfile::tempdir().unwrap();
    for (limit, expect) in [("10", "healthy"), ("11", "broken"), ("10", "healthy")] {
        write(&project, "tables.txt", limit);
        let output = sweep(&state, &project, &["--sandbox", "nested"]);
        assert_eq!(verdict(&output), expect, "{limit}: {}", said(&output));
    }
}

#[test]
fn a_farm_tests_the_code_that_was_submitted_last_too() {
    let mut farm = Farm::start();
    farm.start_worker("only");
    let project = installed(RIGHT);
    for (code, expect) in [(RIGHT, "healthy"), (WRONG, "broken")] {
        write(&project, "src/shopkit/__init__.py", code);
        let sweep = farm.sweep(project.path(), &["--runs", "2", "--seed", "1", "--panel", "none"]);
        let output = { sweep }.output().unwrap();
        assert_eq!(with_verdict(&report(&output), expect).len(), 1, "{}\n{}", said(&output), farm.logs());
    }
}

fn commit(root: &Path, message: &str) {
    git(root, &format!("git add -A && git commit -qm '{message}'"));
}

#[test]
fn a_bisection_tests_what_set_up_makes_of_each_revision() {
    let project = installed(RIGHT);
    let root = project.path();
    assert!(Command::new("git").args(["init", "-q"]).current_dir(root).status().unwrap().success());
    for (number, code) in [RIGHT, RIGHT, WRONG].into_iter().enumerate() {
        write(&project, "src/shopkit/__init__.py", &format!("{code}# {number}\n"));
        commit(root, &format!("revision {number}"));
    }
    let state = tempfile::tempdir().unwrap();
    let output = command(state.path())
        .args(["bisect", "tests/test_total.py::test_total", "--good", "HEAD~2", "--format", "json"])
        .arg(root)
        .output()
        .unwrap();
    let introduced = &report(&output)["tests"][0]["introduced"];
    assert!(introduced.to_string().contains("revision 2"), "{introduced}\n{}", said(&output));
}
