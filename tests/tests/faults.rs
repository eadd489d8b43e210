//! What breaks in the middle of a sweep: servers go away and come back, processes are killed, the
//! disk fills. Time may be lost; samples may not, and none may be counted twice.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::eventually::wait_for;
use flakefarm_tests::farm::Farm;
use flakefarm_tests::harness::{MIXED, MIXED_RUNS, Process, command, project, report, said, with_verdict};
use flakefarm_tests::relay::Relay;
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// As many runs as [`MIXED_RUNS`].
const SUITE: [&str; 6] = ["--scope", "suite", "--runs", "32", "--seed", "3"];

#[track_caller]
fn is_whole(report: &Value) {
    assert_eq!(with_verdict(report, "healthy"), ["test_mixed.py::test_healthy"], "{report:#}");
    assert_eq!(with_verdict(report, "flaky"), ["test_mixed.py::test_flaky"]);
    assert_eq!(with_verdict(report, "broken"), ["test_mixed.py::test_broken"]);
    for test in report["tests"].as_array().unwrap() {
        assert_eq!(test["attempts"], MIXED_RUNS, "counted neither twice nor too seldom: {test:#}");
    }
}

const PATIENCE: Duration = Duration::from_secs(120);

/// Cuts a relay until so many connections through it have been refused: the outage was felt.
fn cut_until_felt(name: &str, relay: &Relay, refusals: usize) {
    let before = relay.refused();
    relay.cut();
    wait_for(&format!("{name} is missed"), PATIENCE, || match relay.refused() - before {
        refused if refused >= refusals => Ok(()),
        refused => Err(format!("{refused} connections refused")),
    });
    relay.mend();
}

/// Whether the farm's logs say something.
fn logged(farm: &Farm, text: &str) -> Result<(), String> {
    let logs = farm.logs();
    if logs.contains(text) { Ok(()) } else { Err(logs) }
}

#[test]
fn every_server_may_go_away_in_mid_sweep_and_come_back() {
    let mut relays = HashMap::new();
    let mut farm = Farm::start_through(|variable, mut address| {
        let server = (address.host_str().unwrap(), address.port().unwrap());
        let (relay, here) = Relay::tcp(server.to_socket_addrs().unwrap().next().unwrap());
        relays.insert(variable.to_owned(), relay);
        address.set_host(Some(&here.ip().to_string())).unwrap();
        address.set_port(Some(here.port())).unwrap();
        address
    });
    farm.start_worker("patient");
    let project = project(MIXED);
    let mut sweep = farm.sweep(project.path(), &SUITE);
    let mut sweep = sweep.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a job starts", PATIENCE, || logged(&farm, "job starts"));
    for server in ["FLAKEFARM_QUEUE", "FLAKEFARM_DATABASE", "FLAKEFARM_SAMPLES"] {
        assert_eq!(sweep.try_wait().unwrap(), None, "the sweep ended before {server} went away");
        cut_until_felt(server, &relays[server], 1);
    }
    let output = sweep.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), farm.logs());
    is_whole(&report(&output));
}

/// The binary under `command`, until it has printed `line` on standard error.
fn started(mut command: Command, line: &str) -> (Process, std::thread::JoinHandle<String>) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let process = Process(child);
    assert!(errors.any(|said| said.contains(line)), "it ended without saying `{line}`");
    (process, std::thread::spawn(move || errors.collect::<Vec<_>>().join("\n")))
}

fn containers_of(process: u32) -> String {
    let label = format!("label=dev.flakefarm.worker=embedded-{process}");
    let listed = Command::new("docker").args(["ps", "-aq", "--filter", &label]).output().unwrap();
    assert!(listed.status.success(), "{}", said(&listed));
    String::from_utf8(listed.stdout).unwrap()
}

#[test]
fn a_killed_sweep_is_taken_up_again_and_its_containers_are_removed() {
    let (state, project) = (tempfile::tempdir().unwrap(), project(MIXED));
    let mut sweep = command(state.path());
    sweep.arg("sweep").args(SUITE).arg(project.path());
    let (killed, _) = started(sweep, "of about 32 attempts");
    wait_for("a container is there", PATIENCE, || match containers_of(killed.0.id()) {
        none if none.is_empty() => Err("none".to_owned()),
        _ => Ok(()),
    });
    killed.signal("KILL");
    let resumed = resume(state.path(), project.path());
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
    is_whole(&report(&resumed));
    assert_eq!(containers_of(killed.0.id()), "", "reaped by the next worker");
}

fn resume(state: &Path, project: &Path) -> Output {
    command(state).args(["sweep", "--resume", "--format", "json"]).arg(project).output().unwrap()
}

/// Where the engine that the tests use listens.
fn engine_socket() -> PathBuf {
    let address = std::env::var("DOCKER_HOST").unwrap_or("unix:///var/run/docker.sock".into());
    address.strip_prefix("unix://").expect("this test needs the engine's socket").into()
}

#[test]
fn an_engine_that_goes_away_for_a_while_is_no_failure_of_a_test() {
    let (state, project) = (tempfile::tempdir().unwrap(), project(MIXED));
    let socket = state.path().join("engine.sock");
    let relay = Relay::unix(&engine_socket(), &socket);
    let mut sweep = command(state.path());
    sweep
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .arg("sweep")
        .args(SUITE)
        .args(["--format", "json"])
        .arg(project.path())
        .stdout(Stdio::piped());
    let mut sweep = sweep.stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = BufReader::new(sweep.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(errors.any(|said| said.contains("of about")), "it ended before an attempt");
    // An attempt that runs loses its connections; whatever is started meanwhile is refused.
    cut_until_felt("the engine", &relay, 2);
    let rest = std::thread::spawn(move || errors.collect::<Vec<_>>().join("\n"));
    let output = sweep.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), rest.join().unwrap());
    let report = report(&output);
    is_whole(&report);
    // What it cost is made again: the report counts only what was given up.
    assert!(relay.refused() > 0, "the outage was felt");
}

#[test]
fn a_full_disk_stops_the_sweep_and_loses_nothing() {
    let (state, project) = (tempfile::tempdir().unwrap(), project(MIXED));
    // In a mount namespace of its own: first too small for what the sweep writes beside the tables, then large enough.
    let script = "mount -t tmpfs -o size=100m tmpfs \"$1\" || exit 99
        \"$2\" sweep --scope suite --runs 1 --seed 3 \"$3\" > /dev/null 2>&1
        used=$(df -k --output=used \"$1\" | tail -n 1)
        mount -o remount,size=$((used + 120))k \"$1\" || exit 98
        \"$2\" sweep --scope suite --runs 32 --seed 3 \"$3\"; echo \"ended with $?\" >&2
        mount -o remount,size=100m \"$1\" && exec \"$2\" sweep --resume --format json \"$3\"";
    let inner = command(state.path());
    let mut outer = Command::new("unshare");
    outer.args(["-rm", "sh", "-c", script, "sh"]);
    outer.args([state.path().as_os_str(), inner.get_program(), project.path().as_os_str()]);
    for (variable, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(variable, value),
            None => outer.env_remove(variable),
        };
    }
    let output = outer.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("ended with 70"), "{}", said(&output));
    assert!(errors.contains("full") && errors.contains("--resume"), "{}", said(&output));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    is_whole(&report(&output));
}
