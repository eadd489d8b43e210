//! The same sweep through a coordinator and workers over RabbitMQ, Redis and PostgreSQL.

use flakefarm_tests::eventually::wait_for;
use flakefarm_tests::farm::Farm;
use flakefarm_tests::harness::{MIXED, MIXED_RUNS, command, flaky_shop, project, report, said, with_verdict};
use std::process::Stdio;
use std::time::Duration;

#[test]
fn a_farm_of_two_workers_gives_the_verdicts_of_an_embedded_sweep() {
    let mut farm = Farm::start();
    farm.start_worker("first");
    farm.start_worker("second");
    let arguments = ["--runs", "20", "--seed", "7", "--panel", "none"];
    let output = farm.sweep(&flaky_shop(), &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), farm.logs());
    let theirs = report(&output);
    let state = tempfile::tempdir().unwrap();
    let output = command(state.path())
        .arg("sweep")
        .args(arguments)
        .args(["--format", "json"])
        .arg(flaky_shop())
        .output()
        .unwrap();
    let ours = report(&output);
    for verdict in ["healthy", "flaky", "broken", "skipped"] {
        assert_eq!(with_verdict(&theirs, verdict), with_verdict(&ours, verdict), "{verdict}");
    }
    assert_eq!(theirs["sweep"]["workers"].as_array().unwrap().len(), 2, "both took part");
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
