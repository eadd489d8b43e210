//! From a laptop's own state to a farm: ids and history are kept, twice counts once, and nobody brings what is
//! another project's.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_shared::Digest;
use flakefarm_tests::farm::Farm;
use flakefarm_tests::harness::{MIXED, command, project, report, said};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

#[test]
fn what_a_laptop_found_is_known_on_the_farm() {
    let laptop = tempfile::tempdir().unwrap();
    let toml = "[project]\nname = \"moved\"\n[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n";
    let tests = project(&[("flakefarm.toml", toml), MIXED[1]]);
    let swept = command(laptop.path())
        .args(["sweep", "--runs", "8", "--seed", "3", "--panel", "none", "--format", "json"])
        .arg(tests.path())
        .output()
        .unwrap();
    let found = report(&swept);
    let id = found["sweep"]["id"].as_str().unwrap().to_owned();
    let file = laptop.path().join("moved.tar");
    let run = |arguments: &[&str]| command(laptop.path()).args(arguments).output().unwrap();
    let path = file.to_str().unwrap();
    let exported = run(&["export", path, "--project", "moved"]);
    assert_eq!(exported.status.code(), Some(0), "{}", said(&exported));
    assert!(
        String::from_utf8_lossy(&exported.stdout).starts_with("exported 1 sweeps with "),
        "{}",
        said(&exported)
    );

    let farm = Farm::start();
    let import = |path: &Path, token: &str| -> Output {
        let mut command = command(farm.dir.path());
        command.arg("import").arg(path).args(["--farm", &farm.url, "--token", token]).output().unwrap()
    };
    // A token of another project, and a file that was changed, leave nothing.
    let stores = farm.stores();
    let issue = |project: &str| {
        let mut command = command(farm.dir.path());
        let output =
            command.args(["token", "create", "--project", project]).envs(stores.clone()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let others = import(&file, &issue("another"));
    assert_eq!(others.status.code(), Some(2), "{}", said(&others));
    assert!(said(&others).contains("not for the project `moved`"), "{}", said(&others));
    let damaged = laptop.path().join("damaged.tar");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let refused = import(&damaged, &farm.token);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    let (status, answer) = post(&farm, std::fs::read(&damaged).unwrap());
    assert!([400, 422].contains(&status), "the farm looks itself, whatever a client has looked at: {answer}");
    assert_eq!(farm.query("SELECT COUNT(*) FROM sweeps"), Some(0));
    // What is somebody's own is neither sent nor repeated.
    let diary = laptop.path().join("diary.txt");
    std::fs::write(&diary, "dear diary\n".repeat(100)).unwrap();
    let refused = import(&diary, &farm.token);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(
        said(&refused).contains("it is no archive") && !said(&refused).contains("dear"),
        "{}",
        said(&refused)
    );

    let first = import(&file, &issue("moved"));
    assert_eq!(first.status.code(), Some(0), "{}\n{}", said(&first), farm.logs());
    assert!(said(&first).contains("imported 1 sweeps"), "{}", said(&first));
    let counted = |farm: &Farm| {
        [
            farm.query("SELECT COUNT(*) FROM jobs WHERE state = 'settled'"),
            farm.query("SELECT COUNT(*) FROM verdicts"),
            farm.query("SELECT COUNT(*) FROM runs"),
            farm.query("SELECT CAST(COALESCE(SUM(count), 0) AS BIGINT) FROM failures"),
        ]
    };
    let once = counted(&farm);
    assert_eq!((once[1], once[2]), (Some(3), Some(1)), "{once:?}");
    let again = import(&file, &farm.token);
    assert!(
        said(&again).contains("imported 0 sweeps") && said(&again).contains("1 were known"),
        "{}",
        said(&again)
    );
    assert_eq!(counted(&farm), once);

    let ask = |arguments: &[&str]| -> Value {
        let mut command = command(farm.dir.path());
        let output =
            command.args(arguments).args(["--farm", &farm.url, "--token", &farm.token]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), farm.logs());
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let there = ask(&["report", &id, "--format", "json"]);
    assert_eq!(there["sweep"]["id"], id);
    assert_eq!(there["tests"], found["tests"], "the same report under the same id");
    let history = ask(&["history", "test_mixed.py::test_broken", "--project", "moved", "--format", "json"]);
    assert!(history.to_string().contains("test_mixed.py::test_broken"), "{history:#}");
}

/// Sends an export as a client would that has not looked at it.
fn post(farm: &Farm, export: Vec<u8>) -> (u16, String) {
    // The first one stays.
    let _already_chosen = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.post(format!("{}/v1/imports", farm.url)).bearer_auth(&farm.token);
        let request =
            request.header("flakefarm-api", "1").header("flakefarm-digest", Digest::of(&export).as_str());
        let answer = request.body(export).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    })
}
