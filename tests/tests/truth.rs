//! Nothing but the truth, as a person sees it: small projects of the kinds that other people's tools got wrong,
//! swept by the real command at several levels of isolation.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::harness::{command, project, report, said, with_verdict};
use serde_json::Value;
use std::process::Output;
use tempfile::TempDir;

const TOML: (&str, &str) = ("flakefarm.toml", "[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n");
/// The levels at which what is isolated must be true.
const LEVELS: [&str; 3] = ["container", "nested", "forked"];

/// Sweeps at a level of isolation.
fn sweep(level: &str, project: &TempDir, more: &[&str]) -> Output {
    let state = tempfile::tempdir().unwrap();
    command(state.path())
        .args(["sweep", "--seed", "1", "--format", "json", "--sandbox", level])
        .args(more)
        .arg(project.path())
        .output()
        .unwrap()
}

fn test<'a>(report: &'a Value, ending: &str) -> &'a Value {
    let tests = report["tests"].as_array().unwrap();
    let found = tests.iter().find(|test| test["id"].as_str().unwrap().ends_with(ending));
    found.unwrap_or_else(|| panic!("no {ending} in {report:#}"))
}

/// Sending anything needs a route, no server.
const WANTS_NETWORK: &str = "import socket, subprocess, sys
CODE = \"import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.1', 443))\"
def test_through_a_child():
    subprocess.run([sys.executable, '-c', CODE], check=True)
def test_itself():
    exec(CODE)
def test_fails_without():
    assert 0
";

#[test]
fn a_child_process_that_wants_a_network_is_told_like_a_test_that_does() {
    let project = project(&[TOML, ("test_net.py", WANTS_NETWORK)]);
    for level in LEVELS {
        let output = sweep(level, &project, &["--runs", "2", "--panel", "none"]);
        let report = report(&output);
        assert_eq!(with_verdict(&report, "broken").len(), 3, "{level}: {}", said(&output));
        for name in ["::test_through_a_child", "::test_itself"] {
            let why = test(&report, name)["stopped_because"].as_str().unwrap();
            assert!(why.contains("1 packet without a route") && why.contains("--under network-on"), "{why}");
        }
        let why = test(&report, "::test_fails_without")["stopped_because"].as_str().unwrap();
        assert!(!why.contains("network"), "{why}");
    }
    // Given where it can be given.
    let output = sweep("nested", &project, &["--runs", "2"]);
    let report = report(&output);
    let fragile = with_verdict(&report, "fragile");
    assert_eq!(
        fragile,
        ["test_net.py::test_itself", "test_net.py::test_through_a_child"],
        "{}",
        said(&output)
    );
    for name in fragile {
        assert_eq!(test(&report, &name)["cause"]["category"], "network");
    }
}
