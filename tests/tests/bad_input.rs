//! Wrong things typed, and broken surroundings: a clear error, a hint, the right exit code.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::harness::{command, project, said};

const TOML: &str = "[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n";
const PASSING: (&str, &str) = ("test_ok.py", "def test_ok(): pass\n");

fn check(files: &[(&str, &str)], arguments: &[&str], variables: &[(&str, &str)], code: i32, wanted: &[&str]) {
    let project = project(files);
    let state = tempfile::tempdir().unwrap();
    let output = command(state.path())
        .arg("sweep")
        .arg(project.path())
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    for wanted in wanted {
        assert!(stderr.contains(wanted), "`{wanted}` is not in\n{}", said(&output));
    }
}

#[test]
fn a_path_that_does_not_exist() {
    let state = tempfile::tempdir().unwrap();
    let output = command(state.path()).args(["sweep", "/there/is/no/such/project"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/there/is/no/such/project"));
}

#[test]
fn no_container_engine() {
    let nowhere = [("DOCKER_HOST", "unix:///nonexistent/docker.sock")];
    check(&[("flakefarm.toml", TOML), PASSING], &[], &nowhere, 70, &["hint:", "DOCKER_HOST"]);
}

#[test]
fn an_image_that_is_not_there() {
    let image = [("FLAKEFARM_IMAGE", "localhost:1/no-such-image:1")];
    check(&[("flakefarm.toml", TOML), PASSING], &[], &image, 4, &["localhost:1/no-such-image:1", "hint:"]);
}

#[test]
fn a_set_up_step_that_fails_shows_its_last_lines() {
    let toml = "[environment]\nsetup = [\"true\", \"echo the compiler is missing; exit 3\"]\n";
    check(&[("flakefarm.toml", toml), PASSING], &[], &[], 4, &["step 2 of 2", "the compiler is missing"]);
}

#[test]
fn a_configuration_that_makes_no_sense_names_line_and_key() {
    let toml = "[environment]\nsetup = []\n[limits]\nmemory = \"lots\"\n";
    check(&[("flakefarm.toml", toml), PASSING], &[], &[], 2, &["flakefarm.toml", "4", "memory"]);
}

#[test]
fn no_tests_at_all() {
    check(&[("flakefarm.toml", TOML), ("module.py", "x = 1\n")], &[], &[], 4, &["no tests found", "hint:"]);
}

#[test]
fn a_test_id_that_matches_nothing_shows_what_there_is() {
    let arguments = ["--tests", "test_ok.py::test_no"];
    check(
        &[("flakefarm.toml", TOML), PASSING],
        &arguments,
        &[],
        4,
        &["matches no test", "test_ok.py::test_ok"],
    );
}

#[test]
fn options_that_cannot_be_promised() {
    check(&[PASSING], &["--confidence", "1"], &[], 2, &["confidence"]);
    check(&[PASSING], &["--max-flake-rate", "0"], &[], 2, &["rate"]);
    check(&[PASSING], &["--runs", "0"], &[], 2, &["--runs"]);
}

#[test]
fn options_that_contradict_each_other() {
    for option in [["--max-flake-rate", "1%"], ["--guarantee", "suite"], ["--budget", "10m"]] {
        let arguments = [&["--runs", "5"], &option[..]].concat();
        check(&[PASSING], &arguments, &[], 2, &["--runs 5", option[0], "contradict", "hint:", "leave out"]);
    }
}

#[test]
fn a_budget_that_is_none() {
    check(&[PASSING], &["--budget", "10"], &[], 2, &["10m", "container:2h", "attempts:500"]);
    check(&[PASSING], &["--budget", "attempts:0"], &[], 2, &["at least 1 second, or 1 attempt"]);
    let two = ("test_two.py", "def test_one(): pass\ndef test_other(): pass\n");
    let arguments = ["--scope", "test", "--budget", "attempts:1"];
    let wanted = ["does not pay for one run of every test: that takes attempts:2", "hint:"];
    check(&[("flakefarm.toml", TOML), two], &arguments, &[], 4, &wanted);
}

#[test]
fn a_farm_that_does_not_answer() {
    let arguments = ["--farm", "http://127.0.0.1:1", "--token", "ff_submit_x_y"];
    check(&[("flakefarm.toml", TOML), PASSING], &arguments, &[], 70, &["127.0.0.1:1", "hint:"]);
}

#[test]
fn nothing_to_resume() {
    check(&[("flakefarm.toml", TOML), PASSING], &["--resume"], &[], 2, &["no interrupted sweep"]);
}
