//! `flakefarm bench`, at its shortest: every way is measured or said to be unavailable, and the results
//! are what they claim to be. How fast anything is, is not tested: machines differ.

use flakefarm_tests::harness::{command, said};
use serde_json::Value;

#[test]
fn every_way_is_measured_or_named_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let output = command(&dir.path().join("state"))
        .args(["bench", "--quick", "--rounds", "1", "--workers", "1", "--format", "json", "--output"])
        .arg(dir.path().join("results"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["schema"], "flakefarm.bench/v1");
    let list = |key: &str| report[key].as_array().unwrap().clone();
    for payload in ["/bin/true", "one test"] {
        let on = |row: &Value| row["payload"] == payload;
        let measured = list("rows").iter().filter(|row| on(row)).count();
        let unavailable: Vec<Value> = list("unavailable").into_iter().filter(|row| on(row)).collect();
        assert_eq!(measured + unavailable.len(), 9, "{payload}: {report:#}");
        assert!(unavailable.iter().all(|row| !row["why"].as_str().unwrap().is_empty()));
    }
    for row in list("rows") {
        assert!(row["attempts"].as_u64().unwrap() > 0, "{row}");
        let rate = &row["per_second"];
        assert!(
            rate["min"].as_f64() <= rate["median"].as_f64()
                && rate["median"].as_f64() <= rate["max"].as_f64()
        );
    }
    let way = |way: &Value| list("rows").iter().any(|row| row["way"] == *way);
    assert!(way(&"docker_run".into()) && way(&serde_json::json!({ "level": "container" })), "{report:#}");
    assert!(report["pool"]["p50_ms"].as_f64().unwrap() > 0.0);
    for control in list("control_plane") {
        assert!(control["jobs_per_second"].as_f64().unwrap() > 0.0, "{control}");
        assert!(control["samples_per_second"].as_f64().unwrap() > 0.0, "{control}");
    }
    for file in ["bench.json", "bench.md", "attempts-bin-true.svg", "attempts-one-test.svg"] {
        let written = std::fs::read_to_string(dir.path().join("results").join(file));
        assert!(written.is_ok_and(|text| text.len() > 200), "{file}");
    }
}

#[test]
fn a_runtime_that_the_engine_does_not_know_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let output =
        command(dir.path()).args(["bench", "--quick", "--runtime", "no-such-runtime"]).output().unwrap();
    assert_ne!(output.status.code(), Some(0));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("has no runtime `no-such-runtime`") && error.contains("hint:"), "{error}");
}
