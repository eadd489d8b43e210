//! What an operator types, on a farm and on this machine's own state.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::farm::Farm;
use flakefarm_tests::harness::{MIXED, command, project, report, said};
use serde_json::Value;
use std::process::Output;

fn on_farm(farm: &Farm, arguments: &[&str]) -> Output {
    let mut asked = command(farm.dir.path());
    asked.args(arguments).args(["--farm", &farm.url, "--token", &farm.token]);
    asked.output().unwrap()
}

fn succeeded(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_sweep_is_left_listed_cancelled_and_reported_by_its_id() {
    let farm = Farm::start();
    let project = project(MIXED);
    let left = farm.sweep(project.path(), &["--detach", "--runs", "5"]).output().unwrap();
    let id = succeeded(&left).trim().to_owned();

    let listed = succeeded(&on_farm(&farm, &["sweeps", "--in-state", "running"]));
    assert!(listed.contains(&id), "{listed}");
    let workers = on_farm(&farm, &["workers"]);
    assert!(said(&workers).contains("no worker") && said(&workers).contains("hint:"), "{}", said(&workers));
    assert_eq!(succeeded(&on_farm(&farm, &["dead"])), "");

    let cancelled = on_farm(&farm, &["cancel", &id]);
    succeeded(&cancelled);
    assert!(said(&cancelled).contains("is cancelled"), "{}", said(&cancelled));
    let page: Value =
        serde_json::from_str(&succeeded(&on_farm(&farm, &["sweeps", "--format", "json"]))).unwrap();
    assert_eq!(page["sweeps"][0]["id"], id.as_str());
    assert_eq!(page["sweeps"][0]["state"], "cancelled");
    let shown = on_farm(&farm, &["report", &id, "--format", "json"]);
    assert_eq!(report(&shown)["sweep"]["stopped"], "cancelled", "{}", said(&shown));
    let again = on_farm(&farm, &["cancel", &id]);
    succeeded(&again);
}

#[test]
fn what_is_not_there_is_said_with_what_to_type() {
    let state = tempfile::tempdir().unwrap();
    let here = |arguments: &[&str]| command(state.path()).args(arguments).output().unwrap();
    assert!(said(&here(&["sweeps"])).contains("no sweep"));
    for (arguments, wanted) in [
        (&["report", "0198d0f0-0000-7000-8000-000000000000"][..], "flakefarm sweeps lists"),
        (&["cancel", "0198d0f0-0000-7000-8000-000000000000"][..], "flakefarm sweeps lists"),
        (&["report", "no-such-report.json"][..], "hint:"),
        (&["workers"][..], "FLAKEFARM_FARM"),
        (&["dead", "requeue"][..], "JOB"),
        (&["status"][..], "--farm URL"),
        (&["status", "--farm", "http://127.0.0.1:9", "--watch", "--every", "0s"][..], "1s or more"),
        (&["probe", "drain"][..], "FLAKEFARM_HEALTH_LISTEN"),
        (&["probe", "healthz", "--at", "somewhere"][..], "HOST:PORT"),
        (&["export", "no/such/directory/file"][..], "its directory is not there"),
        (&["export", "."][..], "it is a directory"),
        (&["import", "."][..], "it is a directory"),
        (&["import", "no-such-file"][..], "flakefarm export FILE"),
        (&["sweeps", "--in-state", "sleeping"][..], "running"),
    ] {
        let output = here(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(wanted), "{arguments:?}: {}", said(&output));
    }
}
