//! Worlds that the plugin gives from within the process: each does what it says, and nothing else.

use super::*;
use flakefarm_coordinator::conditions::about;
use flakefarm_shared::{ClockStart, Zone};
use std::collections::BTreeSet;

/// Tests of the fixture that do not pass in `world`.
fn failing(world: World) -> BTreeSet<String> {
    let request = RunRequest::Run { tests: None, order: Order::Given, detail: Detail::Outcomes, world };
    let reading = attempt("worlds", python(), request, PATIENCE);
    assert_eq!(reading.end, AttemptEnd::Completed, "{world}");
    assert_eq!(reading.garbage_lines, 0, "{world}");
    assert!(reading.samples.len() > 14, "{world}: {} samples", reading.samples.len());
    let failed = reading.samples.iter().filter(|read| read.sample.outcome.is_failure());
    let name = |read: &ReadSample| read.sample.test.as_str().split_once("::").expect("an id").1.to_owned();
    failed.map(name).collect()
}

#[track_caller]
fn check(world: World, expect: &[&str]) {
    let expect: BTreeSet<String> = expect.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(failing(world), expect, "{world}");
}

#[test]
fn nothing_fails_in_the_plain_world() {
    check(World::Plain, &[]);
}

#[test]
fn the_second_of_two_runs_counts_and_fixtures_of_all_scopes_are_torn_down_between() {
    check(World::Twice, &["TwiceUnittest::test_twice", "test_twice", "test_twice_fixtures_are_torn_down"]);
}

#[test]
fn time_zones_move_local_time() {
    check(World::TimeZone(Zone::Ahead), &["test_time_zone"]);
    check(World::TimeZone(Zone::Behind), &["test_time_zone"]);
    check(World::TimeZone(Zone::HalfHour), &["test_time_zone"]);
}

#[test]
fn clocks_start_elsewhere_and_advance() {
    check(World::Clock(ClockStart::LeapDay), &["test_leap_day"]);
    check(World::Clock(ClockStart::MonthEnd), &["test_month_end"]);
    check(World::Clock(ClockStart::DaylightSaving), &["test_time_zone"]);
    // Whatever today is, one of three days in a row is no awkward one.
    let ordinary = [40, 41, 42].map(|days| failing(World::Clock(ClockStart::Days(days))));
    assert!(ordinary.iter().any(BTreeSet::is_empty), "{ordinary:?}");
}

#[test]
fn files_directories_and_the_network_get_awkward() {
    check(World::SlowDisk { millis: 40 }, &["test_slow_disk"]);
    check(World::NetworkLossy { percent: 50 }, &["test_network_lossy"]);
    check(World::DirectoryOrder { seed: 1 }, &["test_directory_order"]);
    check(World::Umask, &["test_umask"]);
    check(World::Home, &["test_home"]);
}

#[test]
fn the_suite_is_spread_over_processes_and_failures_are_told_as_ever() {
    check(World::Parallel { workers: 2 }, &["test_parallel"]);
    let asked = ids(&["test_worlds.py::test_parallel", "test_worlds.py::test_home"]);
    let world = World::Parallel { workers: 2 };
    let request =
        RunRequest::Run { tests: Some(&asked), order: Order::Reversed, detail: Detail::Outcomes, world };
    let reading = attempt("worlds", python(), request, PATIENCE);
    assert_eq!((reading.end, reading.samples.len()), (AttemptEnd::Completed, 2));
    let failed = reading.samples.iter().find(|read| read.sample.outcome.is_failure()).expect("one fails");
    let Outcome::Fail(failure) = &failed.sample.outcome else { panic!("it is a failure") };
    assert_eq!((failure.kind.clone(), failure.phase), (FailureKind::Assertion, Phase::Call));
    assert_eq!(failure.frames.last().map(|frame| frame.function.as_str()), Some("test_parallel"));
}

#[test]
fn the_interpreter_gets_awkward() {
    check(World::RandomSeed { seed: 1 }, &["test_random_seed"]);
    check(
        World::WarningsAsErrors,
        &["test_twice_warnings_stay_out_of_the_output", "test_warnings_as_errors"],
    );
    check(World::GarbageCollection, &["test_garbage_collection"]);
    check(World::CpuContention { hogs: 2 }, &[]);
}

/// Tests of the fixture that the printed command for `world` shows to fail, with nothing of ours in reach.
fn failing_by_hand(world: World) -> BTreeSet<String> {
    let home = tempfile::tempdir().expect("a temporary directory");
    let root = home.path().join("work");
    plugin::copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/pytest/worlds"), &root);
    // As the plugin has it: nothing else seeds or reorders.
    let words = "python3 -m pytest -p no:randomly -q -rfE test_worlds.py";
    let command = about(world).by_hand.command(words).unwrap_or_else(|| panic!("{world} has no command"));
    let path = std::env::var("PATH").expect("a path");
    let output = Command::new("sh")
        .args(["-c", &command])
        .current_dir(&root)
        .env("PATH", format!("{}:{path}", python().parent().expect("a directory").display()))
        .env("TZ", "UTC")
        .env_remove("PYTEST_ADDOPTS")
        .stdin(std::process::Stdio::null())
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(" passed"), "{command}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let failed = said.lines().filter_map(|line| line.strip_prefix("FAILED test_worlds.py::"));
    failed.map(|line| line.split_once(" - ").map_or(line, |(name, _)| name).to_owned()).collect()
}

#[test]
fn commands_by_hand_show_what_the_worlds_do_without_flakefarm() {
    let worlds = [
        World::Twice,
        World::RandomSeed { seed: 1 },
        World::GarbageCollection,
        World::TimeZone(Zone::Ahead),
        World::Umask,
        World::Home,
    ];
    for world in worlds {
        assert_eq!(failing_by_hand(world), failing(world), "{world}");
    }
}
