//! `flakefarm sweep` in one process, as a person types it, on the real container engine.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::eventually::wait_for;
use flakefarm_tests::harness::{
    Process, command, flaky_shop, holds_what_is_known_of_flaky_shop, project, report, said, with_verdict,
};
use serde_json::Value;
use std::process::{Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const TOML: &str = "[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n";

/// Sweeps at a level of isolation, the plain world only.
fn sweep_at(level: &str, runs: &str, project: &TempDir) -> Output {
    let state = tempfile::tempdir().unwrap();
    command(state.path())
        .args(["sweep", "--runs", runs, "--format", "json", "--sandbox", level, "--panel", "none"])
        .arg(project.path())
        .output()
        .unwrap()
}

#[test]
fn the_example_sweep_finds_what_is_known_and_accuses_nobody_else() {
    let state = tempfile::tempdir().unwrap();
    let html = state.path().join("report.html");
    let output = command(state.path())
        .args(["sweep", "--runs", "20", "--seed", "7", "--format", "json", "--html"])
        .arg(&html)
        .arg(flaky_shop())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let report = report(&output);
    assert_eq!(report["schema"], "flakefarm.report/v1");
    assert_eq!(report["sweep"]["stopped"], "answered");
    holds_what_is_known_of_flaky_shop(&report);
    assert_eq!(report["sweep"]["infrastructure_errors"], 0);
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("<svg") && page.contains("test_courier_quotes"));
}

#[test]
fn crashes_and_hangs_are_charged_to_the_test_that_was_running_and_nobody_else() {
    let toml = format!("{TOML}[limits]\ntest_timeout = \"3s\"\n");
    let project = project(&[
        ("flakefarm.toml", toml.as_str()),
        (
            "test_ends.py",
            "import os, time\n\
             def test_before(): pass\n\
             def test_crash(): os._exit(3)\n\
             def test_between(): pass\n\
             def test_hang(): time.sleep(600)\n\
             def test_after(): pass\n",
        ),
    ]);
    let state = tempfile::tempdir().unwrap();
    let output = command(state.path())
        .args(["sweep", "--runs", "3", "--seed", "1", "--panel", "none", "--format", "json"])
        .arg(project.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let report = report(&output);
    let healthy = ["test_ends.py::test_after", "test_ends.py::test_before", "test_ends.py::test_between"];
    assert_eq!(with_verdict(&report, "healthy"), healthy, "{}", said(&output));
    assert_eq!(with_verdict(&report, "broken"), ["test_ends.py::test_crash", "test_ends.py::test_hang"]);
    let kind = |id: &str| {
        let tests = report["tests"].as_array().unwrap();
        tests.iter().find(|test| test["id"] == id).unwrap()["failures_by_signature"][0]["kind"].clone()
    };
    assert_eq!(kind("test_ends.py::test_crash"), "crash");
    assert_eq!(kind("test_ends.py::test_hang"), "timeout");
}

#[test]
fn nested_and_forked_sweeps_charge_crashes_and_hangs_as_containers_do() {
    let toml = format!("{TOML}[limits]\ntest_timeout = \"5s\"\n");
    let project = project(&[
        ("flakefarm.toml", toml.as_str()),
        (
            "test_ends.py",
            "import os, time\n\
             def test_before(): print('captured')\n\
             def test_crash(): os._exit(3)\n\
             def test_hang(): time.sleep(600)\n\
             def test_after(tmp_path): (tmp_path / 'x').write_text('x')\n",
        ),
    ]);
    for level in ["nested", "forked-only"] {
        let state = tempfile::tempdir().unwrap();
        let output = command(state.path())
            .args([
                "sweep",
                "--runs",
                "3",
                "--seed",
                "1",
                "--panel",
                "none",
                "--format",
                "json",
                "--sandbox",
                level,
            ])
            .arg(project.path())
            .output()
            .unwrap();
        let report = report(&output);
        let healthy = ["test_ends.py::test_after", "test_ends.py::test_before"];
        assert_eq!(with_verdict(&report, "healthy"), healthy, "{level}: {}", said(&output));
        assert_eq!(with_verdict(&report, "broken"), ["test_ends.py::test_crash", "test_ends.py::test_hang"]);
        assert_eq!(report["sweep"]["sandbox"], level);
        assert_eq!(report["sweep"]["notes"], serde_json::Value::Null, "no level gave way");
        let tests = report["tests"].as_array().unwrap();
        let before = tests.iter().find(|test| test["id"] == "test_ends.py::test_before").unwrap();
        let why = before["stopped_because"].as_str().unwrap();
        assert_eq!(why.contains("forked from a prepared interpreter"), level == "forked-only", "{why}");
    }
}

#[test]
fn a_project_that_shares_what_attempts_must_not_is_not_forked_and_the_report_says_so() {
    let sources = [
        ("threading.Thread(target=time.sleep, args=(60,), daemon=True, name='ticker').start()", "ticker"),
        ("PIPE = os.pipe()", "a pipe is open"),
        ("SHARED = mmap.mmap(-1, 4096)", "memory is shared"),
    ];
    for (source, reason) in sources {
        let test = format!("import mmap, os, threading, time\n{source}\ndef test_a(): pass\n");
        let project = project(&[("flakefarm.toml", TOML), ("test_sharing.py", test.as_str())]);
        let output = sweep_at("forked", "2", &project);
        let report = report(&output);
        assert_eq!(with_verdict(&report, "healthy"), ["test_sharing.py::test_a"], "{}", said(&output));
        let notes = report["sweep"]["notes"].to_string();
        assert!(notes.contains("`nested`") && notes.contains(reason), "{notes}");
    }
}

#[test]
fn files_that_are_open_at_import_are_each_forked_attempts_own() {
    let project = project(&[
        ("flakefarm.toml", TOML),
        (
            "test_files.py",
            "import tempfile\n\
             NAMED = open('log.txt', 'w+')\n\
             NAMELESS = tempfile.TemporaryFile('w+')\n\
             def use(file):\n    \
                 assert (file.tell(), file.read()) == (0, '')\n    \
                 file.write('used')\n    \
                 file.flush()\n\
             def test_named(): use(NAMED)\n\
             def test_nameless(): use(NAMELESS)\n\
             def test_output(capfd):\n    \
                 print('heard')\n    \
                 assert capfd.readouterr().out == 'heard\\n'\n",
        ),
    ]);
    let output = sweep_at("forked-only", "12", &project);
    let report = report(&output);
    assert_eq!(with_verdict(&report, "healthy").len(), 3, "{}", said(&output));
    assert_eq!(report["sweep"]["notes"], serde_json::Value::Null, "no level gave way");
}

#[test]
fn forked_attempts_have_random_numbers_of_their_own_and_what_was_registered_is_called() {
    let chance = "import random\n\
                  def test_number(): assert random.random() < 0.5\n";
    let registered = "import os\n\
                      CALLED = []\n\
                      os.register_at_fork(after_in_child=lambda: CALLED.append(1))\n\
                      def test_called(): assert CALLED == [1]\n";
    let project =
        project(&[("flakefarm.toml", TOML), ("test_chance.py", chance), ("test_more.py", registered)]);
    // All 32 numbers on one side of the middle: 2 ** -31, 5e-10.
    let output = sweep_at("forked-only", "32", &project);
    let report = report(&output);
    assert_eq!(with_verdict(&report, "flaky"), ["test_chance.py::test_number"], "{}", said(&output));
    assert_eq!(with_verdict(&report, "healthy"), ["test_more.py::test_called"], "{}", said(&output));
}

#[test]
fn what_a_project_does_before_a_test_happens_in_each_forked_attempt() {
    let project = project(&[
        ("flakefarm.toml", TOML),
        (
            "conftest.py",
            "import os, pytest\n\
             STARTED = []\n\
             def pytest_runtest_logstart(): STARTED.append(os.getpid())\n\
             @pytest.fixture(scope='session')\n\
             def place(): return os.getpid()\n",
        ),
        (
            "test_place.py",
            "import os\n\
             from conftest import STARTED\n\
             def test_started(): assert STARTED[-1] == os.getpid()\n\
             def test_set_up(place): assert place == os.getpid()\n",
        ),
    ]);
    let output = sweep_at("forked-only", "12", &project);
    let report = report(&output);
    assert_eq!(with_verdict(&report, "healthy").len(), 2, "{}", said(&output));
}

#[test]
fn odd_ids_and_partly_broken_collection_are_reported_whole() {
    let project = project(&[
        ("flakefarm.toml", TOML),
        ("test_broken.py", "import there_is_no_such_module\n"),
        (
            "test_odd.py",
            "import pytest, unittest\n\
             @pytest.mark.parametrize('x', ['a b', 'ü/ß', \"it's\", '[]', '漢字'])\n\
             def test_parameters(x): pass\n\
             class TestClass:\n    def test_method(self): pass\n\
             class Case(unittest.TestCase):\n    def test_unit(self): self.assertTrue(True)\n",
        ),
    ]);
    let state = tempfile::tempdir().unwrap();
    let output = command(state.path())
        .args(["sweep", "--runs", "2", "--format", "json"])
        .arg(project.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let report = report(&output);
    assert_eq!(with_verdict(&report, "healthy").len(), 7, "{}", said(&output));
    assert_eq!(report["sweep"]["collection_errors"][0]["path"], "test_broken.py");
}

#[test]
fn an_adaptive_sweep_keeps_its_budget_and_rests_on_what_was_seen_before() {
    let project = project(&[
        ("flakefarm.toml", TOML),
        ("test_a.py", "import time\ndef test_quick(): pass\ndef test_slow(): time.sleep(0.2)\n"),
    ]);
    let state = tempfile::tempdir().unwrap();
    let sweep = |arguments: &[&str]| {
        let output = command(state.path())
            .args(["sweep", "--max-flake-rate", "30%", "--format", "json", "--seed", "1"])
            .args(arguments)
            .arg(project.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        report(&output)
    };
    let short = sweep(&["--budget", "attempts:4"]);
    assert_eq!((&short["sweep"]["stopped"], &short["sweep"]["attempts"]), (&"budget".into(), &4.into()));
    assert_eq!(with_verdict(&short, "inconclusive").len(), 2);
    let because = short["tests"][0]["stopped_because"].as_str().unwrap();
    assert!(because.contains("of 9 wanted: if it flakes, less than"), "{because}");
    // The sources are the same: what is missing is made up for, not made again.
    let whole = sweep(&[]);
    assert_eq!(whole["sweep"]["stopped"], "answered");
    assert_eq!(with_verdict(&whole, "healthy").len(), 2);
    for test in whole["tests"].as_array().unwrap() {
        assert!(test["attempts"].as_u64().unwrap() <= 6, "{test}");
        assert!(test["older_evidence"]["clean_runs"].as_f64().unwrap() >= 3.0, "{test}");
    }
    assert!(whole["sweep"]["saved_vs_fixed"]["fixed_runs"] == 9 && whole["sweep"]["suite"].is_object());
    // A changed test is a new one.
    std::fs::write(
        project.path().join("test_a.py"),
        "def test_quick(): assert True\ndef test_slow(): pass\n",
    )
    .unwrap();
    let changed = sweep(&[]);
    for test in changed["tests"].as_array().unwrap() {
        // Clean runs in harmless worlds count, too.
        let runs: u64 =
            test["conditions"].as_array().unwrap().iter().map(|one| one["attempts"].as_u64().unwrap()).sum();
        assert!(runs >= 9 && test.get("older_evidence").is_none(), "{test}");
    }
}

#[test]
fn an_interrupted_sweep_reports_what_is_known_and_resumes() {
    let project = project(&[
        ("flakefarm.toml", TOML),
        ("test_slow.py", "import time\ndef test_one(): time.sleep(0.3)\ndef test_two(): time.sleep(0.3)\n"),
    ]);
    let state = tempfile::tempdir().unwrap();
    let child = command(state.path())
        .args(["sweep", "--scope", "suite", "--runs", "24", "--seed", "5", "--format", "json"])
        .arg(project.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let database = state.path().join("farm.db");
    let mut child = Process(child);
    wait_for_settled_jobs(&database, 4);
    child.signal("INT");
    let mut stdout = String::new();
    std::io::Read::read_to_string(child.0.stdout.as_mut().unwrap(), &mut stdout).unwrap();
    let status = child.0.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{stdout}");
    let partial: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(partial["sweep"]["stopped"], "cancelled");
    let before = partial["sweep"]["attempts"].as_u64().unwrap();
    assert!(before > 0 && before < 24, "{before} attempts before the interruption");

    let output = command(state.path())
        .args(["sweep", "--resume", "--format", "json"])
        .arg(project.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let whole = report(&output);
    assert_eq!(whole["sweep"]["id"], partial["sweep"]["id"]);
    assert_eq!(whole["sweep"]["attempts"], 24);
    assert_eq!(with_verdict(&whole, "healthy").len(), 2);
}

/// Waits until the sweep has recorded `count` ended jobs, by looking at its database from outside.
fn wait_for_settled_jobs(database: &std::path::Path, count: i64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    wait_for("so many jobs have ended", Duration::from_secs(120), || {
        let settled = runtime.block_on(async {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database).read_only(true);
            let pool = sqlx::SqlitePool::connect_with(options).await.ok()?;
            let count: Result<i64, _> =
                sqlx::query_scalar("SELECT COUNT(*) FROM jobs WHERE state = 'settled'")
                    .fetch_one(&pool)
                    .await;
            pool.close().await;
            count.ok()
        });
        if settled.is_some_and(|settled| settled >= count) { Ok(()) } else { Err(format!("{settled:?}")) }
    });
}
