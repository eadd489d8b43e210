//! Runs the real binary: where it is, its own state directory, and what it printed.

use futures::FutureExt;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The binary under test, built beside the tests by the same cargo profile.
///
/// # Panics
/// When it has not been built.
pub fn flakefarm() -> PathBuf {
    let mut dir = std::env::current_exe().expect("a test knows its own path");
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let binary = dir.join("flakefarm");
    assert!(binary.exists(), "{} is missing: cargo build -p flakefarm", binary.display());
    binary
}

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests package lies in the workspace")
        .to_owned()
}

/// The example project with known flaky tests.
pub fn flaky_shop() -> PathBuf {
    repository().join("examples/flaky-shop")
}

/// The image tests run in: `FLAKEFARM_TEST_IMAGE`, made by `deploy/dev/base-image`.
pub fn test_image() -> String {
    std::env::var("FLAKEFARM_TEST_IMAGE").unwrap_or_else(|_| "flakefarm-base:bookworm".to_owned())
}

/// What the environment says of a service: its address, or how it is restarted. A test that has no service
/// fails; to leave such tests out, say so to the runner (`cargo nextest run -E 'not binary(queue_contract)'`).
///
/// # Panics
/// When it says nothing: `make test` starts the services.
pub fn service(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `make test`, or eval \"$(deploy/dev/services env)\"")
    })
}

/// In a schema of the PostgreSQL under test, by its address: dropped whether the law holds or not.
///
/// # Panics
/// When the law does not hold, or there is no server.
pub async fn in_schema(law: impl AsyncFnOnce(&str)) {
    let server = service("FLAKEFARM_TEST_PG_URL");
    let schema = format!("test_{}", uuid::Uuid::now_v7().simple());
    let connect =
        async || PgConnection::connect(&server).await.expect("FLAKEFARM_TEST_PG_URL can be reached");
    let create = AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
    connect().await.execute(create).await.expect("schemas may be made");
    let separator = if server.contains('?') { '&' } else { '?' };
    let url = format!("{server}{separator}options=-csearch_path%3D{schema}");
    let outcome = AssertUnwindSafe(law(&url)).catch_unwind().await;
    // A new connection: the server may have been restarted.
    let drop = AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"));
    connect().await.execute(drop).await.expect("what was made can be dropped");
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// A command of the binary with a state directory of its own, in the test image.
pub fn command(state: &Path) -> Command {
    let mut command = Command::new(flakefarm());
    command
        .env("FLAKEFARM_STATE", state)
        .env("FLAKEFARM_IMAGE", test_image())
        .env_remove("FLAKEFARM_FARM")
        .env_remove("FLAKEFARM_TOKEN")
        .env_remove("FLAKEFARM_LOG")
        .stdin(Stdio::null());
    command
}

/// What a command printed, for messages of failed assertions.
pub fn said(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The JSON report a command printed.
///
/// # Panics
/// When it printed none.
pub fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no report: {error}\n{}", said(output)))
}

/// Ids of the report's tests with this verdict, sorted.
pub fn with_verdict(report: &Value, verdict: &str) -> Vec<String> {
    let tests = report["tests"].as_array().expect("a report has tests");
    let mut ids: Vec<_> = tests
        .iter()
        .filter(|test| test["verdict"] == verdict)
        .map(|test| test["id"].as_str().expect("an id is text").to_owned())
        .collect();
    ids.sort();
    ids
}

/// Holds a report of 20 or more runs of the example to what is known of it: what is broken, skipped, or flaky by
/// its order is found, nobody else is accused, and a test that fails by chance is flaky if it did fail.
///
/// That none of the three by chance (rates 0.3, 0.5 and 0.35) fails in 20 runs comes once in 7e12.
///
/// # Panics
/// When the report says otherwise.
#[track_caller]
pub fn holds_what_is_known_of_flaky_shop(report: &Value) {
    let text =
        std::fs::read_to_string(flaky_shop().join("known.json")).expect("the example tells what it hides");
    let known: Value = serde_json::from_str(&text).expect("JSON");
    let known = known["tests"].as_array().expect("a list of tests");
    let ids = |verdict: &str, by_chance: bool| {
        let of_chance =
            |test: &Value| matches!(test["category"].as_str(), Some("random" | "hash-order" | "timing"));
        let wanted = known.iter().filter(|test| test["verdict"] == verdict && of_chance(test) == by_chance);
        let mut ids: Vec<String> =
            wanted.map(|test| test["id"].as_str().expect("an id is text").to_owned()).collect();
        ids.sort();
        ids
    };
    for verdict in ["broken", "skipped", "inconclusive"] {
        assert_eq!(with_verdict(report, verdict), ids(verdict, false), "{verdict}");
    }
    let chance = ids("flaky", true);
    let (by_chance, by_order): (Vec<_>, Vec<_>) =
        with_verdict(report, "flaky").into_iter().partition(|id| chance.contains(id));
    assert_eq!(by_order, ids("flaky", false), "flaky, but not by chance");
    assert_ne!(by_chance, [""; 0], "none of {chance:?} has failed");
    for test in report["tests"].as_array().expect("a report has tests") {
        let failed = test["failures"].as_u64().expect("a count") > 0;
        if chance.iter().any(|id| test["id"] == id.as_str()) {
            assert_eq!(test["verdict"] == "flaky", failed, "{test:#}");
        }
    }
}

/// Runs a shell script in `root`, in which commits have an author.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn git(root: &Path, script: &str) {
    let done = Command::new("sh")
        .args(["-ec", script])
        .current_dir(root)
        .envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@example.org")])
        .envs([("GIT_COMMITTER_NAME", "a"), ("GIT_COMMITTER_EMAIL", "a@example.org")])
        .output()
        .expect("sh runs");
    assert!(done.status.success(), "{}", said(&done));
}

/// A small project in a directory of its own: file name and content.
///
/// # Panics
/// When it cannot be written.
pub fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    for (name, content) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a file has a directory")).expect("can be made");
        std::fs::write(path, content).expect("can be written");
    }
    dir
}

/// Runs of [`MIXED`] that are enough to see that its flaky test is: all on one side of the middle, and the
/// test is taken for healthy or broken, once in 2 ** 31 (5e-10).
pub const MIXED_RUNS: u32 = 32;

/// A project of three tests: one healthy and slow, one flaky, one broken. Its image needs nothing.
pub const MIXED: &[(&str, &str)] = &[
    ("flakefarm.toml", "[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n"),
    (
        "test_mixed.py",
        "import random, time\n\
         def test_healthy(): time.sleep(0.2)\n\
         def test_flaky(): assert random.random() < 0.5\n\
         def test_broken(): assert 1 == 2\n",
    ),
];

/// A child process that does not outlive the test.
#[derive(Debug)]
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Process {
    /// Sends a signal by number to this process alone.
    ///
    /// # Panics
    /// When `kill` cannot be run.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.0.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success(), "process {} is gone", self.0.id());
    }
}
