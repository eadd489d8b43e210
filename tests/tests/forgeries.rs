//! What tests try to say of others, at each level that isolates: the table of docs/sandboxes.md, made from what was
//! seen. `FLAKEFARM_WRITE_DOCS=1` writes it.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::harness::{command, project, report, repository, said};
use serde_json::Value;
use std::fmt::Write as _;
use tempfile::TempDir;

/// Where failures of forked attempts are believed, so that they show as they are.
const LEVELS: [&str; 3] = ["container", "nested", "forked-only"];

/// What each file begins with: a way to write to whatever is open.
const SAY: &str = "import gc, json, os, subprocess, sys
HERE = os.path.basename(__file__)
def raw(data):
    for fd in range(3, 1024):
        try: os.write(fd, data)
        except OSError: pass
def say(**event): raw((json.dumps(event) + chr(10)).encode())
def end(name, outcome, i): say(e='end', test=HERE + '::' + name, i=i, outcome=outcome, wall_us=2**64 - 1, cpu_us=5)
";

/// A name, and what a test does that runs before `test_victim`, which passes, and `test_broken`.
const FORGERIES: [(&str, &str, &str); 9] = [
    ("says that another test failed", "fails", "end('test_victim', 'fail', 1)"),
    ("says that a broken test passed", "passes", "end('test_broken', 'pass', 2)"),
    (
        "announces another test and dies",
        "announces",
        "say(e='start', test=HERE + '::test_victim', i=1)\n    os._exit(1)",
    ),
    ("says that all is over, and ends the process", "over", "say(e='finish', exit=0)\n    os._exit(0)"),
    ("writes half a line", "half", "raw(b'half a line')"),
    ("floods the channel", "floods", "for _ in range(400): raw(b'x' * 65536 + b'\\n')"),
    (
        "has a child process say it, with every descriptor handed on",
        "child",
        "code = 'import os, json\\nfor fd in range(3, 1024):\\n  try: os.write(fd, (json.dumps(dict(e=\"end\", test=\"' \
         + HERE + '::test_victim\", i=1, outcome=\"fail\", wall_us=1, cpu_us=1)) + chr(10)).encode())\\n  \
         except OSError: pass'\n    subprocess.run([sys.executable, '-c', code], close_fds=False)",
    ),
    (
        "finds the plugin's own channel in memory, and says that another test failed",
        "memory",
        "channel = [o for o in gc.get_objects() if type(o).__name__ == 'Channel'][-1]\n    \
         channel.send(dict(e='end', test=HERE + '::test_victim', i=1, outcome='fail', wall_us=1, cpu_us=1))",
    ),
    (
        "finds it, and starts another test before it has ended itself",
        "starts",
        "channel = [o for o in gc.get_objects() if type(o).__name__ == 'Channel'][-1]\n    \
         channel.send(dict(e='start', test=HERE + '::test_victim', i=1))",
    ),
];

/// What cannot be told apart from the framework's own doing: the code of a test changes the framework that runs it.
const REPLACES: &str = "import _pytest.python
def test_forges():
    _pytest.python.Function.runtest = lambda self: None
def test_victim(): pass
def test_broken(): assert 0
";

fn forger() -> TempDir {
    let mut files = vec![(
        "flakefarm.toml".to_owned(),
        // Some write into what nobody reads any more, and wait for their end.
        "[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n[limits]\ntest_timeout = \"5s\"\n"
            .to_owned(),
    )];
    for (_, file, code) in FORGERIES {
        let tests = format!(
            "{SAY}\ndef test_forges():\n    {code}\ndef test_victim(): pass\ndef test_broken(): assert 0\n"
        );
        files.push((format!("test_{file}.py"), tests));
    }
    files.push(("test_replaces.py".to_owned(), REPLACES.to_owned()));
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    project(&files)
}

/// One attempt on each file, or on each test.
fn sweep(level: &str, scope: &str, tests: &str, project: &TempDir) -> Value {
    let state = tempfile::tempdir().unwrap();
    let output = command(state.path())
        .args(["sweep", "--runs", "1", "--seed", "1", "--panel", "none", "--format", "json"])
        .args(["--sandbox", level, "--scope", scope, "--tests", tests])
        .arg(project.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    report(&output)
}

fn verdict(report: &Value, file: &str, name: &str) -> String {
    let id = format!("test_{file}.py::{name}");
    let found = report["tests"].as_array().unwrap().iter().find(|test| test["id"] == id.as_str());
    let found = found.unwrap_or_else(|| panic!("no {id} in {report:#}"));
    found["verdict"].as_str().unwrap().to_owned()
}

/// What it changed of the others, and whether it was noticed.
fn outcome(report: &Value, file: &str) -> String {
    let changed = [("test_victim", "healthy"), ("test_broken", "broken")].map(|(name, right)| {
        // What does not count is missing, and says nothing.
        let found = verdict(report, file, name);
        (found != right && found != "inconclusive").then(|| format!("{name} is {found}"))
    });
    let changed: Vec<String> = changed.into_iter().flatten().collect();
    let notes = report["sweep"]["notes"].to_string();
    let noticed =
        notes.contains("tampered with") && notes.contains(&format!("`test_{file}.py::test_forges` ran"));
    match (changed.is_empty(), noticed) {
        (true, true) => "nothing; reported".to_owned(),
        (true, false) => "nothing".to_owned(),
        (false, _) => changed.join(", "),
    }
}

#[test]
fn no_forgery_changes_what_is_said_of_another_test_at_any_level() {
    let project = forger();
    let reports = LEVELS.map(|level| sweep(level, "file", "*", &project));
    let mut table = "| a test | container | nested | forked |\n| --- | --- | --- | --- |\n".to_owned();
    for (name, file, _) in FORGERIES {
        let seen = reports.each_ref().map(|report| outcome(report, file));
        for (level, seen) in LEVELS.iter().zip(&seen) {
            assert!(seen.starts_with("nothing"), "{name} at {level}: {seen}");
        }
        writeln!(table, "| {name} | {} |", seen.join(" | ")).unwrap();
    }
    // What is left: within one interpreter the framework itself can be changed, which one test per process excludes.
    let replaced = reports.each_ref().map(|report| outcome(report, "replaces"));
    let alone = LEVELS.map(|level| outcome(&sweep(level, "test", "test_replaces.py", &project), "replaces"));
    assert_eq!(alone, ["nothing"; 3]);
    writeln!(table, "| replaces a part of pytest in its own interpreter | {} |", replaced.join(" | "))
        .unwrap();
    writeln!(
        table,
        "| the same, each test in a process of its own (`--scope test`) | {} |",
        alone.join(" | ")
    )
    .unwrap();
    holds_table(&table);
}

fn holds_table(table: &str) {
    let path = repository().join("docs/sandboxes.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once("<!-- forgeries -->\n").unwrap();
    let (known, tail) = rest.split_once("<!-- end of forgeries -->\n").unwrap();
    if std::env::var_os("FLAKEFARM_WRITE_DOCS").is_some() {
        let made = format!("{head}<!-- forgeries -->\n{table}<!-- end of forgeries -->\n{tail}");
        std::fs::write(path, made).unwrap();
    } else {
        assert_eq!(known, table, "FLAKEFARM_WRITE_DOCS=1 writes what was seen");
    }
}
