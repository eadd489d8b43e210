//! A farm from the command line: leaving a sweep and coming back to it, every question, and a farm on
//! which nobody works.

use flakefarm_tests::farm::Farm;
use flakefarm_tests::harness::{command, git, project, report, said, with_verdict};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const STABLE: &[(&str, &str)] = &[
    ("flakefarm.toml", "[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n"),
    ("test_stable.py", "def test_good(): pass\ndef test_bad(): assert 1 == 2\n"),
];

#[test]
fn a_sweep_can_be_left_and_come_back_to() {
    let mut farm = Farm::start();
    let project = project(STABLE);
    let left = farm.sweep(project.path(), &["--runs", "3", "--seed", "1", "--detach"]).output().unwrap();
    assert_eq!(left.status.code(), Some(0), "{}", said(&left));
    let id = String::from_utf8(left.stdout.clone()).unwrap().trim().to_owned();
    assert!(said(&left).contains("no worker is on the farm"), "{}", said(&left));
    assert!(said(&left).contains(&format!("flakefarm attach {id}")), "{}", said(&left));
    farm.start_worker("late");
    let ask = |arguments: &[&str]| {
        let mut ask = command(farm.dir.path());
        ask.args(arguments)
            .args(["--farm", &farm.url, "--format", "json"])
            .env("FLAKEFARM_TOKEN", &farm.token);
        ask
    };
    let attached = ask(&["attach", &id, "--fail-on", "broken"]).output().unwrap();
    assert_eq!(attached.status.code(), Some(1), "the gate: {}\n{}", said(&attached), farm.logs());
    assert_eq!(with_verdict(&report(&attached), "broken"), ["test_stable.py::test_bad"]);
    // Resuming follows the sweep that was submitted last, which has ended.
    let path = project.path().display().to_string();
    let resumed = ask(&["sweep", &path, "--resume"]).output().unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
    assert_eq!(report(&resumed)["sweep"]["id"], id.as_str());
    let unknown = ask(&["attach", "00000000-0000-7000-8000-000000000000"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2), "{}", said(&unknown));
}

#[test]
fn leaving_an_attached_sweep_does_not_stop_it() {
    let mut farm = Farm::start();
    let project = project(STABLE);
    let left = farm.sweep(project.path(), &["--runs", "2", "--detach"]).output().unwrap();
    let id = String::from_utf8(left.stdout).unwrap().trim().to_owned();
    let mut attached = command(farm.dir.path());
    attached.args(["attach", &id, "--farm", &farm.url, "--token", &farm.token]);
    let mut attached = attached.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(attached.stderr.take().unwrap()).lines();
    let first = lines.next().expect("it says what it does").unwrap();
    let told = Command::new("kill").args(["-INT", &attached.id().to_string()]).status().unwrap();
    assert!(told.success(), "{first}");
    assert_eq!(attached.wait().unwrap().code(), Some(130));
    farm.start_worker("late");
    let mut again = command(farm.dir.path());
    again.args(["attach", &id, "--farm", &farm.url, "--token", &farm.token, "--format", "json"]);
    let again = again.output().unwrap();
    assert_eq!(again.status.code(), Some(0), "{}\n{}", said(&again), farm.logs());
    assert_eq!(report(&again)["sweep"]["stopped"], "answered", "{}", said(&again));
}

#[test]
fn no_worker_is_said_within_seconds() {
    let farm = Farm::start();
    let project = project(STABLE);
    let began = Instant::now();
    let mut sweep = farm.sweep(project.path(), &["--runs", "2"]);
    let mut sweep = sweep.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(sweep.stderr.take().unwrap()).lines().map_while(Result::ok);
    let said: Vec<String> = lines.take_while(|line| !line.starts_with("hint:")).collect();
    assert!(said.iter().any(|line| line.contains("no worker is on the farm")), "{said:?}");
    // Ten seconds on a machine that does many other things at the same time.
    assert!(began.elapsed() < Duration::from_secs(10), "after {:?}", began.elapsed());
    let told = Command::new("kill").args(["-INT", &sweep.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert_eq!(sweep.wait().unwrap().code(), Some(130));
}

#[test]
fn a_bisection_runs_on_a_farm_as_it_does_here() {
    let mut farm = Farm::start();
    farm.start_worker("one");
    let project = project(STABLE);
    let git = |script: &str| git(project.path(), script);
    git("git init -q . && printf 'def test_it(): pass\\n' > test_it.py && git add . && git commit -qm good");
    git("echo >> test_stable.py && git commit -qam noise");
    git(
        "printf 'import random\\ndef test_it(): assert random.random() < 0.5\\n' > test_it.py && git commit -qam culprit",
    );
    git("echo >> test_stable.py && git commit -qam later");
    let mut bisect = command(farm.dir.path());
    bisect
        .args([
            "bisect",
            "test_it.py::test_it",
            "--good",
            "HEAD~3",
            "--format",
            "json",
            "--sandbox",
            "nested",
        ])
        .args(["--farm", &farm.url, "--token", &farm.token])
        .arg(project.path());
    let output = bisect.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), farm.logs());
    let introduced = &report(&output)["tests"][0]["introduced"];
    assert_eq!(introduced["candidates"][0]["subject"], "culprit", "{introduced:#}");
}
