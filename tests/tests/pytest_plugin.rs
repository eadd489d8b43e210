//! The pytest plugin on a real pytest, on this machine's Python: no container, real processes.

#[path = "pytest_plugin/sources.rs"]
mod sources;
#[path = "pytest_plugin/state.rs"]
mod state;
#[path = "pytest_plugin/truth.rs"]
mod truth;
#[path = "pytest_plugin/venv.rs"]
mod venv;
#[path = "pytest_plugin/worlds.rs"]
mod worlds;

use flakefarm_shared::project::Framework;
use flakefarm_shared::{
    AttemptEnd, Detail, Digest, FailureKind, Order, Outcome, Phase, Remark, TestId, TestParts, World,
};
use flakefarm_tests::plugin;
use flakefarm_worker::frameworks::python::RunRequest;
use flakefarm_worker::frameworks::reader::{AttemptReading, ReadSample};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use venv::{python, run};

/// Runs one attempt on a copy of a fixture project, as a sandbox would.
fn attempt(fixture: &str, python: &Path, request: RunRequest<'_>, limit: Duration) -> AttemptReading {
    let home = tempfile::tempdir().expect("a temporary directory");
    plugin::copy(&plugin::fixture("pytest", fixture), &home.path().join("work"));
    attempt_at(home.path(), python, request, limit)
}

/// Runs one attempt on the project in `home/work`.
fn attempt_at(home: &Path, python: &Path, request: RunRequest<'_>, limit: Duration) -> AttemptReading {
    plugin::attempt(Framework::Pytest, home, python, request, limit)
}

const PATIENCE: Duration = plugin::PATIENCE;

fn run_all(fixture: &str, order: Order) -> AttemptReading {
    attempt(fixture, python(), run_request(None, order), PATIENCE)
}

fn run_of(tests: &[TestId], order: Order) -> RunRequest<'_> {
    run_request(Some(tests), order)
}

fn run_request(tests: Option<&[TestId]>, order: Order) -> RunRequest<'_> {
    RunRequest::Run { tests, order, detail: Detail::Outcomes, world: World::Plain }
}

fn ids(texts: &[&str]) -> Vec<TestId> {
    texts.iter().map(|text| TestId::from(*text)).collect()
}

/// One line per sample: what the test did.
fn told(read: &ReadSample) -> String {
    let did = match &read.sample.outcome {
        Outcome::Pass => "pass".to_owned(),
        Outcome::Skip { reason } => format!("skip: {reason}"),
        Outcome::Fail(failure) => {
            let phase = match failure.phase {
                Phase::Setup => "setup",
                Phase::Call => "call",
                Phase::Teardown => "teardown",
            };
            let message: String =
                failure.message.lines().next().unwrap_or_default().chars().take(40).collect();
            format!("{} in {phase} [{}] {message}", failure.kind.word(), failure.exceptions.join(", "))
        }
    };
    let name: String = read.sample.test.as_str().chars().take(80).collect();
    format!("{name}: {did}")
}

fn sample<'a>(reading: &'a AttemptReading, ending: &str) -> &'a ReadSample {
    let found = reading.samples.iter().find(|read| read.sample.test.as_str().ends_with(ending));
    found.unwrap_or_else(|| panic!("no sample of {ending}: {reading:#?}"))
}

#[test]
fn every_outcome_of_a_nasty_project_is_read() {
    let reading = run_all("nasty", Order::Given);
    assert_eq!(reading.end, AttemptEnd::Completed);
    assert_eq!(reading.garbage_lines, 0, "nothing but events on the channel");
    let broken: Vec<&str> = reading.collection_errors.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(broken, ["tests/test_broken.py"]);
    assert!(reading.collection_errors[0].message.contains("no_such_module_anywhere"));
    let told: Vec<String> = reading.samples.iter().map(told).collect();
    for line in [
        "tests/helpers.py::helpers.double: pass",
        "tests/sub/twins.txt::twin: pass",
        "tests/sub/twins.txt::twin#2: assertion in call [builtins.AssertionError] the second twin",
        "tests/test_outcomes.py::test_passes: pass",
        "tests/test_outcomes.py::test_asserts: assertion in call [builtins.AssertionError] assert 1 == 2",
        "tests/test_outcomes.py::test_raises_with_a_cause: exception in call [builtins.ValueError, builtins.KeyError] outer",
        "tests/test_outcomes.py::test_tear_down_fails: exception in teardown [builtins.RuntimeError] tear-down went wrong",
        "tests/test_outcomes.py::test_set_up_fails: exception in setup [builtins.RuntimeError] set-up went wrong",
        "tests/test_outcomes.py::test_skips: skip: not today",
        "tests/test_outcomes.py::test_expected_failure: pass",
        "tests/test_outcomes.py::test_expected_failure_that_passes: framework in call [] [XPASS(strict)] known",
        "tests/test_outcomes.py::test_lenient_expected_failure_that_passes: pass",
        "tests/test_outcomes.py::test_exits: exception in call [builtins.SystemExit] 3",
        "tests/test_outcomes.py::test_interrupts: exception in call [builtins.KeyboardInterrupt] by the test",
        "tests/test_outcomes.py::test_asks_pytest_to_exit: exception in call [_pytest.outcomes.Exit] the test asked pytest to exit: enough",
        "tests/test_outcomes.py::test_says_a_lot_and_fails: assertion in call [builtins.Failed] after a long speech",
        "tests/test_outcomes.py::test_raises_something_unreadable: exception in call [test_outcomes.Unreadable] the exception's text raised RuntimeError",
        r"tests/test_outcomes.py::test_parameters[na\xefve \u2603]: pass",
        "tests/test_outcomes.py::TestClass::TestInner::test_method: pass",
        "tests/test_outcomes.py::TestCase::test_assertion: assertion in call [builtins.AssertionError] 1 != 2",
        "tests/test_outcomes.py::TestCase::test_with_subtests: assertion in call [builtins.AssertionError] sub-test (number=1): 1 == 1",
        "tests/test_outcomes.py::TestCase::test_skipped: skip: a reason",
        "tests/test_outcomes.py::test_missing_fixture: framework in setup [_pytest.fixtures.FixtureLookupError] fixture 'no_such_fixture' was not found",
        "tests/test_sabotage.py::test_forks_a_child_that_goes_on: pass",
        "tests/test_sabotage.py::test_after_it_all: pass",
    ] {
        let line: String = match line.rsplit_once("] ") {
            Some((head, message)) if head.contains(" in ") => {
                format!("{head}] {}", message.chars().take(40).collect::<String>())
            }
            Some(_) | None => line.to_owned(),
        };
        assert!(told.contains(&line), "{line}\nis not among\n{}", told.join("\n"));
    }
    assert_eq!(told.len(), reading.tests.len(), "every collected test has a sample");

    assert_eq!(sample(&reading, "::test_passes").output, None, "passing tests keep no output");
    let output = sample(&reading, "::test_asserts").output.as_deref().unwrap_or_default();
    assert!(
        output.contains("printed before the failure") && output.contains("assert left == right"),
        "{output}"
    );
    let Outcome::Fail(failure) = &sample(&reading, "::test_asserts").sample.outcome else {
        panic!("a failure")
    };
    assert_eq!(
        (failure.frames[0].path.as_str(), failure.frames[0].function.as_str()),
        ("tests/test_outcomes.py", "test_asserts")
    );
    let speech = sample(&reading, "::test_says_a_lot_and_fails").output.as_deref().unwrap_or_default();
    assert!((60_000..70_000).contains(&speech.len()), "head and tail of a long output: {}", speech.len());
    assert_eq!(sample(&reading, "::test_warns").sample.warnings.len(), 8);
    assert_eq!(sample(&reading, "::test_warns").sample.warnings[0], "UserWarning: number 0");
}

#[test]
fn a_listing_runs_nothing_and_agrees_with_a_run() {
    let listing = attempt("nasty", python(), RunRequest::List, PATIENCE);
    assert_eq!(listing.end, AttemptEnd::Completed);
    assert_eq!(listing.samples, Vec::new());
    assert!(listing.framework_version.starts_with("pytest "), "{}", listing.framework_version);
    assert!(listing.framework_version.contains(", CPython 3."), "{}", listing.framework_version);
    let run = run_all("nasty", Order::Given);
    assert_eq!(listing.tests, run.tests);
    let ended: Vec<TestId> = run.samples.iter().map(|read| read.sample.test.clone()).collect();
    assert_eq!(ended, run.tests);
    let parts: Vec<TestParts> = listing.tests.iter().map(TestParts::of_recorded).collect();
    assert_eq!(listing.parts, parts, "pytest's own spelling says the same of these");
    assert_eq!(run.parts, [], "told by listings only");
}

#[test]
fn files_are_told_below_the_projects_root_whatever_pytest_takes_for_its_own() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let inner = home.path().join("work/inner");
    std::fs::create_dir_all(&inner).expect("a directory");
    std::fs::write(home.path().join("work/flakefarm.toml"), "[tests]\npaths = [\"inner\"]\n")
        .expect("a file");
    std::fs::write(inner.join("pytest.ini"), "[pytest]\n").expect("a file");
    let test = "import pytest\nclass TestA:\n    @pytest.mark.parametrize('x', ['a::b[0]'])\n    def test_b(self, x): pass\n";
    std::fs::write(inner.join("test_a.py"), test).expect("a file");
    let listing = attempt_at(home.path(), python(), RunRequest::List, PATIENCE);
    assert_eq!(listing.tests, ids(&["test_a.py::TestA::test_b[a::b[0]]"]));
    let expected = TestParts {
        file: "inner/test_a.py".to_owned(),
        classes: vec!["TestA".to_owned()],
        name: "test_b".to_owned(),
        parameters: Some("a::b[0]".to_owned()),
        ordinal: 1,
    };
    assert_eq!(listing.parts, [expected]);
}

#[test]
fn set_up_call_and_tear_down_are_timed_apart() {
    let reading = run_all("nasty", Order::Given);
    for read in &reading.samples {
        let phases = read.sample.phases.expect("pytest tells phases");
        assert_eq!(phases.setup_us + phases.call_us + phases.teardown_us, read.sample.wall_us);
    }
    let phases = |ending: &str| sample(&reading, ending).sample.phases.expect("pytest tells phases");
    let failed = phases("::test_set_up_fails");
    assert!(failed.setup_us > 0 && failed.call_us == 0, "{failed:?}");
    let failed = phases("::test_tear_down_fails");
    assert!(failed.setup_us > 0 && failed.call_us > 0 && failed.teardown_us > 0, "{failed:?}");
}

#[test]
fn a_list_longer_than_any_line_may_be_is_read_whole() {
    let listing = attempt("crowd", python(), RunRequest::List, PATIENCE);
    assert_eq!(listing.tests.len(), 4000);
    assert_eq!(listing.sources.len(), 4000);
    assert_eq!(listing.garbage_lines, 0);
}

#[test]
fn selected_tests_run_alone_in_the_order_asked_for() {
    let inner = "tests/test_outcomes.py::TestClass::TestInner::test_method";
    let long = format!("tests/test_outcomes.py::test_parameters[{}]", "l".repeat(2_000));
    let asked = ids(&[inner, "tests/sub/twins.txt::twin#2", "tests/test_outcomes.py::test_gone", &long]);
    // Of two tests with one id both are meant: which of them is the second may change.
    let (twin, other) = ("tests/sub/twins.txt::twin", "tests/sub/twins.txt::twin#2");
    for (order, expected) in [
        (Order::Given, [twin, other, long.as_str(), inner]),
        (Order::Reversed, [inner, long.as_str(), other, twin]),
    ] {
        let reading = attempt("nasty", python(), run_of(&asked, order), PATIENCE);
        assert_eq!(reading.end, AttemptEnd::Completed);
        assert_eq!(reading.tests, ids(&expected));
        assert_eq!(reading.missing, ids(&["tests/test_outcomes.py::test_gone"]));
        let positions: Vec<u32> = reading.samples.iter().map(|read| read.sample.position).collect();
        assert_eq!(positions, [0, 1, 2, 3]);
        assert_eq!(reading.remarks, [Remark::SharedIds { tests: ids(&[twin]) }]);
    }
}

#[test]
fn a_selection_of_nothing_known_is_nothing_ran() {
    let asked = ids(&["tests/test_outcomes.py::test_gone"]);
    let request = run_of(&asked, Order::Given);
    let reading = attempt("nasty", python(), request, PATIENCE);
    let AttemptEnd::NothingRan { reason, .. } = &reading.end else { panic!("{reading:#?}") };
    assert!(reason.contains("none of the selected tests"), "{reason}");
}

#[test]
fn shuffling_sorts_by_digest_and_regroups_nothing() {
    let seed = u64::MAX;
    let reading = run_all("nasty", Order::Shuffled { seed });
    let mut expected = run_all("nasty", Order::Given).tests;
    expected.sort_by_key(|test| Digest::of(format!("{seed}:{test}").as_bytes()).to_string());
    assert_eq!(reading.tests, expected);
    let ended: Vec<TestId> = reading.samples.iter().map(|read| read.sample.test.clone()).collect();
    assert_eq!(ended, expected);
}

#[test]
fn the_test_that_ends_its_interpreter_is_charged_and_no_other() {
    let crash = |exit_code| FailureKind::Crash { exit_code };
    for (name, by) in [
        ("test_exits_at_once", crash(0)),
        ("test_segfaults", crash(139)),
        ("test_kills_itself", crash(137)),
        ("test_closes_everything", FailureKind::Framework),
    ] {
        let deadly = format!("test_deadly.py::{name}");
        let asked = ids(&["test_deadly.py::test_first", &deadly, "test_deadly.py::test_last"]);
        let request = run_of(&asked, Order::Given);
        let reading = attempt("deadly", python(), request, PATIENCE);
        assert_eq!(reading.end, AttemptEnd::Interrupted { by, running: TestId(deadly) }, "{name}");
        let outcomes: Vec<bool> =
            reading.samples.iter().map(|read| read.sample.outcome.is_failure()).collect();
        assert_eq!(outcomes, [false, true], "{name}: the last test is missing, neither passed nor failed");
    }
}

#[test]
fn a_hanging_test_is_ended_at_its_limit_and_charged() {
    let asked = ids(&["test_deadly.py::test_hangs"]);
    let request = run_of(&asked, Order::Given);
    let reading = attempt("deadly", python(), request, Duration::from_secs(5));
    let by = FailureKind::Timeout { limit_ms: 5_000 };
    assert_eq!(reading.end, AttemptEnd::Interrupted { by, running: asked[0].clone() });
}

#[test]
fn other_plugins_do_not_reorder_rerun_stop_or_measure() {
    let reading = run_all("meddled", Order::Given);
    let told: Vec<String> = reading.samples.iter().map(told).collect();
    assert_eq!(
        told,
        [
            "test_meddled.py::test_fails_once: assertion in call [builtins.AssertionError] assert 1 > 1",
            "test_meddled.py::test_burns_time_that_stands_still: pass",
            "test_meddled.py::test_uses_the_cache: pass",
            "test_meddled.py::test_runs_in_the_main_process: pass",
        ]
    );
    let burnt = &reading.samples[1].sample;
    assert!(burnt.wall_us >= 190_000, "measured although time was frozen: {burnt:?}");
}

const COUNTS_PARSES: &str = "
import ast
parse, parsed = ast.parse, []

def counted(source, filename='<unknown>', *others, **more):
    if filename == 'source' and len(source) > 10_000:
        parsed.append(filename)
    return parse(source, filename, *others, **more)

ast.parse = counted

def pytest_sessionfinish(session):
    (session.config.rootpath / 'parses').write_text(str(len(parsed)))
";

#[test]
fn many_failures_in_one_file_do_not_parse_it_many_times() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let work = home.path().join("work");
    std::fs::create_dir(&work).expect("a directory");
    let tests: String = (0..500).map(|n| format!("def test_{n}():\n    assert {n} < 0\n\n")).collect();
    for (name, content) in
        [("test_many.py", &*tests), ("conftest.py", COUNTS_PARSES), ("pytest.ini", "[pytest]\n")]
    {
        std::fs::write(work.join(name), content).expect("a file");
    }
    let reading = attempt_at(home.path(), python(), run_request(None, Order::Given), PATIENCE);
    assert_eq!(reading.samples.len(), 500);
    assert!(
        reading
            .samples
            .iter()
            .all(|read| read.output.as_deref().is_some_and(|said| said.contains(">       assert"))),
        "the line is shown"
    );
    let parses = std::fs::read_to_string(work.join("parses")).expect("the session ended");
    assert_eq!(parses, "1");
}

#[test]
fn an_image_without_pytest_is_nothing_ran_with_a_reason() {
    let home = tempfile::tempdir().expect("a temporary directory");
    run(
        Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(home.path()),
        "install python3-venv",
    );
    let python = home.path().join("bin/python3");
    let reading = attempt("deadly", &python, RunRequest::List, PATIENCE);
    let AttemptEnd::NothingRan { reason, .. } = &reading.end else { panic!("{reading:#?}") };
    assert!(reason.contains("pytest cannot be imported"), "{reason}");
}
