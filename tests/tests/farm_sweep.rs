//! The same sweep through a coordinator and workers over RabbitMQ, Redis and PostgreSQL.

use flakefarm_tests::eventually::wait_for;
use flakefarm_tests::farm::Farm;
use flakefarm_tests::harness::{
    MIXED, MIXED_RUNS, Process, command, flaky_shop, holds_what_is_known_of_flaky_shop, project, report,
    said, with_verdict,
};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_farm_of_two_workers_finds_what_an_embedded_sweep_does() {
    let mut farm = Farm::start();
    farm.start_worker("first");
    farm.start_worker("second");
    let arguments = ["--runs", "20", "--seed", "7", "--panel", "none"];
    let output = farm.sweep(&flaky_shop(), &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), farm.logs());
    let report = report(&output);
    holds_what_is_known_of_flaky_shop(&report);
    assert_eq!(report["sweep"]["workers"].as_array().unwrap().len(), 2, "both took part");

    // Its runs are in the ranking soon, and not with the next round of sums ten minutes later.
    let name = report["sweep"]["project"].as_str().unwrap();
    wait_for("the ranking to tell of the sweep", Duration::from_secs(180), || {
        let mut ranking = command(farm.dir.path());
        ranking.args(["tests", "--farm", &farm.url, "--token", &farm.token, "--project", name]);
        let output = ranking.args(["--format", "json"]).output().unwrap();
        let ranking: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let runs = |test: &serde_json::Value| test["classes"][0]["runs"].as_u64().unwrap_or(0);
        let seen = ranking["tests"].as_array().is_some_and(|tests| tests.iter().any(|test| runs(test) > 0));
        if seen { Ok(()) } else { Err(said(&output)) }
    });
}

#[test]
fn killing_a_worker_and_the_coordinator_loses_time_but_no_sample() {
    let mut farm = Farm::start();
    farm.start_worker("doomed");
    let project = project(MIXED);
    let sweep = farm
        .sweep(project.path(), &["--scope", "suite", "--runs", "32", "--seed", "3"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("a job starts", Duration::from_secs(120), || match farm.logs() {
        logs if logs.contains("job starts") => Ok(()),
        logs => Err(logs),
    });
    farm.workers.remove(0).signal("KILL");
    farm.coordinator.take().unwrap().signal("KILL");
    farm.start_coordinator();
    farm.start_worker("late");
    let output = sweep.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), farm.logs());
    let report = report(&output);
    assert_eq!(with_verdict(&report, "healthy"), ["test_mixed.py::test_healthy"], "{}", said(&output));
    assert_eq!(with_verdict(&report, "flaky"), ["test_mixed.py::test_flaky"]);
    let tests = report["tests"].as_array().unwrap();
    let healthy = tests.iter().find(|test| test["verdict"] == "healthy").unwrap();
    assert_eq!(healthy["attempts"], MIXED_RUNS, "counted neither twice nor too seldom");
}

#[test]
fn a_wrong_token_and_another_version_are_refused() {
    let farm = Farm::start();
    let project = project(MIXED);
    let mut sweep = command(farm.dir.path());
    sweep.args(["sweep", "--farm", &farm.url, "--token", "ff_submit_wrong_wrong"]).arg(project.path());
    let output = sweep.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("token"), "{}", said(&output));

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _already_chosen = rustls::crypto::ring::default_provider().install_default();
    let status = runtime.block_on(async {
        let client = reqwest::Client::new();
        let request = client.get(format!("{}/v1/sweeps", farm.url)).header("flakefarm-api", "999");
        request.bearer_auth(&farm.token).send().await.unwrap().status()
    });
    assert_eq!(status.as_u16(), 426);
}

#[test]
fn what_asks_for_more_than_the_operator_allows_is_refused_with_both_figures() {
    let mut farm = Farm::start();
    let ceilings = farm.dir.path().join("ceilings.toml");
    std::fs::write(&ceilings, "[all]\nmemory = \"1GiB\"\n[project.trusted]\nmemory = \"4GiB\"\n").unwrap();
    farm.start_worker_with("strict", &[("FLAKEFARM_CEILINGS", ceilings.display().to_string())]);
    let greedy = |name: &str| {
        let toml = format!(
            "[project]\nname = \"{name}\"\n[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n[limits]\nmemory = \"2GiB\"\n"
        );
        project(&[("flakefarm.toml", &toml), ("test_a.py", "def test_a(): pass\n")])
    };
    let refused = farm.sweep(greedy("any").path(), &["--runs", "2", "--panel", "none"]).output().unwrap();
    assert_ne!(refused.status.code(), Some(0), "{}", said(&refused));
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(errors.contains("memory 2048 MiB (at most 1024 MiB)"), "{}", said(&refused));
    let given = farm.sweep(greedy("trusted").path(), &["--runs", "2", "--panel", "none"]).output().unwrap();
    assert_eq!(given.status.code(), Some(0), "{}\n{}", said(&given), farm.logs());
}

/// Containers of workers whose names begin so.
fn containers_of(worker: &str) -> Vec<String> {
    let format = "{{.Label \"dev.flakefarm.worker\"}}";
    let listed = Command::new("docker").args(["ps", "-a", "--format", format]).output();
    let listed = listed.expect("docker runs");
    assert!(listed.status.success(), "{}", said(&listed));
    let listed = String::from_utf8(listed.stdout).expect("names are text");
    listed.lines().filter(|line| line.starts_with(worker)).map(str::to_owned).collect()
}

#[test]
fn a_worker_that_is_told_twice_leaves_within_seconds_and_leaves_no_container() {
    const PATIENCE: Duration = Duration::from_secs(120);
    let mut farm = Farm::start();
    farm.start_worker("hasty");
    let endless =
        project(&[("test_endless.py", "import time\n\ndef test_endless():\n    time.sleep(300)\n")]);
    let mut sweep = farm.sweep(endless.path(), &["--runs", "2", "--panel", "none"]);
    let _asking = Process(sweep.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let attempts = |logs: &str| logs.matches("job starts").count();
    wait_for("the listing is done and an attempt runs", PATIENCE, || {
        let (logs, there) = (farm.logs(), containers_of("hasty-"));
        if attempts(&logs) >= 2 && !there.is_empty() { Ok(()) } else { Err(format!("{there:?}\n{logs}")) }
    });
    let mut worker = farm.workers.remove(0);
    worker.signal("TERM");
    wait_for("the worker is leaving", PATIENCE, || match farm.logs() {
        logs if logs.contains("told to leave") => Ok(()),
        logs => Err(logs),
    });
    assert!(worker.0.try_wait().unwrap().is_none(), "it finishes its attempt: {}", farm.logs());
    worker.signal("TERM");
    let told = Instant::now();
    wait_for("the worker has left", PATIENCE, || match worker.0.try_wait().unwrap() {
        Some(_) => Ok(()),
        None => Err("it runs".to_owned()),
    });
    // Five seconds, and what a busy machine takes.
    assert!(told.elapsed() < Duration::from_secs(20), "{:?}\n{}", told.elapsed(), farm.logs());
    assert_eq!(containers_of("hasty-"), Vec::<String>::new(), "{}", farm.logs());
}
