//! The boundary between "the test failed" and "we could not run it", case by case.

use super::*;
use flakefarm_shared::InfraStage;

const SESSION: &str =
    r#"{"e":"session","mode":"run","framework":"pytest 9.2.0","python":"CPython 3.11.2","rootdir":"/work"}"#;
const LISTING: &str =
    r#"{"e":"session","mode":"list","framework":"pytest 9.2.0","python":"CPython 3.11.2","rootdir":"/work"}"#;
const AB: &str = r#"{"e":"collected","tests":["a","b"]}"#;
const NONE: &str = r#"{"e":"collected","tests":[]}"#;
const MISSING: &str = r#"{"e":"missing","tests":["x"]}"#;
const START_A: &str = r#"{"e":"start","test":"a","i":0}"#;
const END_A: &str = r#"{"e":"end","test":"a","i":0,"outcome":"pass","wall_us":5,"cpu_us":4,"warnings":[]}"#;
const START_B: &str = r#"{"e":"start","test":"b","i":1}"#;
const FAIL_B: &str = r#"{"e":"end","test":"b","i":1,"outcome":"fail","wall_us":5,"cpu_us":4,"phase":"teardown","kind":"exception","exceptions":["builtins.OSError"],"message":"m","frames":[{"path":"t.py","line":3,"function":"f"}],"output":"said"}"#;
const LIMIT: Duration = Duration::from_secs(60);

fn exit(exit_code: i64) -> ExitSeen {
    ExitSeen { exit_code, oom: false, timed_out: None }
}

fn finish(code: i64) -> String {
    format!(r#"{{"e":"finish","exit":{code}}}"#)
}

/// Reads the lines, then concludes `later` after the last.
fn read(lines: &[&str], exit: ExitSeen, stderr: &str, later: Duration) -> AttemptReading {
    let start = Instant::now();
    let mut reader = AttemptReader::new(None);
    for line in lines {
        reader.feed(line.as_bytes(), start);
    }
    reader.conclude_at(exit, stderr, start + later)
}

/// The end in a word, and the tests that failed.
fn summary(reading: &AttemptReading) -> String {
    let end = match &reading.end {
        AttemptEnd::Completed => "completed".to_owned(),
        AttemptEnd::Interrupted { by, running } => format!("interrupted by {} in {running}", by.word()),
        AttemptEnd::NothingRan { .. } => "nothing ran".to_owned(),
        AttemptEnd::Infrastructure(error) => {
            assert_eq!(error.stage, InfraStage::Sandbox);
            "infrastructure".to_owned()
        }
    };
    let failed: Vec<&str> = reading
        .samples
        .iter()
        .filter(|s| s.sample.outcome.is_failure())
        .map(|s| s.sample.test.as_str())
        .collect();
    format!("{end}; {} samples; failed: {}", reading.samples.len(), failed.join(" "))
}

#[test]
fn a_long_list_comes_in_parts_and_counts_when_it_is_whole() {
    let parts = [
        r#"{"e":"collected","tests":["a","b"],"more":true}"#,
        r#"{"e":"collected","tests":["c"],"more":false}"#,
    ];
    let tests = |lines: &[&str]| read(lines, exit(0), "", Duration::ZERO).tests.len();
    assert_eq!(tests(&[LISTING, parts[0], parts[1]]), 3);
    assert_eq!(tests(&[LISTING, parts[0]]), 0);
}

#[test]
fn every_ending_is_told_apart() {
    let oom = ExitSeen { exit_code: 137, oom: true, timed_out: None };
    let late = ExitSeen { exit_code: 137, oom: false, timed_out: Some(LIMIT) };
    let (ok, failed, no_tests, usage, internal) = (finish(0), finish(1), finish(5), finish(4), finish(3));
    let all_run = [SESSION, AB, START_A, END_A, START_B, FAIL_B];
    let complete = [&all_run[..], &[failed.as_str()]].concat();
    for (case, lines, exit, expected) in [
        ("all ran", &complete[..], exit(1), "completed; 2 samples; failed: b"),
        ("all ran, odd exit code after the end", &complete, exit(139), "completed; 2 samples; failed: b"),
        ("all ran, memory ran out after the end", &complete, oom, "completed; 2 samples; failed: b"),
        ("all ran, died in exit handlers", &all_run, exit(139), "completed; 2 samples; failed: b"),
        (
            "broke off by itself",
            &[SESSION, AB, START_A, END_A, &internal],
            exit(3),
            "completed; 1 samples; failed: ",
        ),
        (
            "broke off in a test",
            &[SESSION, AB, START_A, END_A, START_B, &internal],
            exit(3),
            "completed; 1 samples; failed: ",
        ),
        (
            "crash in a test",
            &[SESSION, AB, START_A, END_A, START_B],
            exit(139),
            "interrupted by crash in b; 2 samples; failed: b",
        ),
        (
            "exit 0 in a test",
            &[SESSION, AB, START_A],
            exit(0),
            "interrupted by crash in a; 1 samples; failed: a",
        ),
        (
            "memory in a test",
            &[SESSION, AB, START_A],
            oom,
            "interrupted by out_of_memory in a; 1 samples; failed: a",
        ),
        (
            "time in a test",
            &[SESSION, AB, START_A],
            late,
            "interrupted by timeout in a; 1 samples; failed: a",
        ),
        (
            "crash between tests",
            &[SESSION, AB, START_A, END_A],
            exit(139),
            "infrastructure; 1 samples; failed: ",
        ),
        ("memory between tests", &[SESSION, AB, START_A, END_A], oom, "infrastructure; 1 samples; failed: "),
        ("time between tests", &[SESSION, AB, START_A, END_A], late, "infrastructure; 1 samples; failed: "),
        ("crash in collection", &[SESSION], exit(139), "nothing ran; 0 samples; failed: "),
        ("memory in collection", &[SESSION], oom, "nothing ran; 0 samples; failed: "),
        ("time in collection", &[SESSION], late, "nothing ran; 0 samples; failed: "),
        ("killed by others in collection", &[SESSION], exit(137), "infrastructure; 0 samples; failed: "),
        ("crash before the first test", &[SESSION, AB], exit(1), "nothing ran; 0 samples; failed: "),
        ("no output at all", &[], exit(127), "nothing ran; 0 samples; failed: "),
        ("no tests", &[SESSION, MISSING, NONE, &no_tests], exit(5), "nothing ran; 0 samples; failed: "),
        (
            "a clean exit without a test is not clean",
            &[SESSION, NONE, &ok],
            exit(0),
            "nothing ran; 0 samples; failed: ",
        ),
        ("usage error", &[&usage], exit(4), "nothing ran; 0 samples; failed: "),
        (
            "no pytest",
            &[r#"{"e":"no_framework","message":"ImportError: x"}"#],
            exit(97),
            "nothing ran; 0 samples; failed: ",
        ),
        ("listing", &[LISTING, AB, &ok], exit(0), "completed; 0 samples; failed: "),
        ("listing with broken files", &[LISTING, AB, &failed], exit(1), "completed; 0 samples; failed: "),
        ("empty listing", &[LISTING, NONE, &no_tests], exit(5), "nothing ran; 0 samples; failed: "),
        ("listing died", &[LISTING, AB], exit(139), "nothing ran; 0 samples; failed: "),
    ] {
        assert_eq!(summary(&read(lines, exit, "", LIMIT)), expected, "{case}");
    }
}

#[test]
fn a_test_is_not_charged_with_the_time_others_took() {
    let late = ExitSeen { exit_code: 137, oom: false, timed_out: Some(LIMIT) };
    let reading = read(&[SESSION, AB, START_A, END_A, START_B], late, "", LIMIT / 2);
    assert_eq!(summary(&reading), "infrastructure; 1 samples; failed: ");
}

#[test]
fn the_charged_sample_says_what_happened_and_keeps_the_stray_output() {
    let reading = read(&[SESSION, AB, START_A], exit(139), "Fatal Python error", Duration::from_millis(7));
    let [charged] = &reading.samples[..] else { panic!("one sample: {reading:?}") };
    assert_eq!(charged.output.as_deref(), Some("Fatal Python error"));
    assert_eq!((charged.sample.wall_us, charged.sample.position), (7_000, 0));
    let Outcome::Fail(failure) = &charged.sample.outcome else { panic!("a failure: {charged:?}") };
    assert_eq!(failure.kind, FailureKind::Crash { exit_code: 139 });
    assert_eq!(failure.phase, Phase::Call);
    assert_eq!(failure.message, "the interpreter died with exit code 139 (SIGSEGV) under this test");
    assert_eq!(failure.exceptions, Vec::<String>::new());
}

#[test]
fn a_failure_arrives_whole() {
    let reading = read(&[SESSION, AB, START_B, FAIL_B, &finish(1)], exit(1), "", LIMIT);
    assert_eq!(reading.framework_version, "pytest 9.2.0, CPython 3.11.2");
    assert_eq!(reading.tests, [TestId::from("a"), TestId::from("b")]);
    let [read] = &reading.samples[..] else { panic!("one sample: {reading:?}") };
    assert_eq!(read.output.as_deref(), Some("said"));
    let Outcome::Fail(failure) = &read.sample.outcome else { panic!("a failure: {read:?}") };
    assert_eq!((failure.phase, failure.frames[0].line), (Phase::Teardown, 3));
    assert_eq!(failure.signature.len(), 16);
}

#[test]
fn the_reason_tells_usage_errors_with_their_text() {
    let reading = read(&[&finish(4)], exit(4), "ERROR: unrecognized arguments: --nope\n", LIMIT);
    let AttemptEnd::NothingRan { reason } = reading.end else { panic!("nothing ran: {reading:?}") };
    assert_eq!(
        reason,
        "pytest refused its arguments or configuration\nERROR: unrecognized arguments: --nope"
    );
}

#[test]
fn garbage_is_counted_and_changes_nothing() {
    let cut = &END_A[..20];
    let reading =
        read(&[SESSION, "garbage", "", AB, START_A, cut, END_A, END_A, START_B, FAIL_B], exit(0), "", LIMIT);
    assert_eq!(summary(&reading), "completed; 2 samples; failed: b");
    assert_eq!(reading.garbage_lines, 3, "the word, the cut line and the second result of one test");
}

#[test]
fn a_result_nobody_asked_for_is_dropped() {
    let mut reader = AttemptReader::new(Some(&[TestId::from("a")]));
    let now = Instant::now();
    for line in [SESSION, AB, START_A, END_A, START_B, FAIL_B] {
        reader.feed(line.as_bytes(), now);
    }
    let reading = reader.conclude_at(exit(0), "", now);
    assert_eq!(reading.samples.len(), 1);
    assert_eq!(reading.garbage_lines, 1);
}

#[test]
fn the_supervisor_sees_what_runs_and_since_when() {
    let (begun, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
    let mut reader = AttemptReader::new(None);
    assert_eq!((reader.test_started_at(), reader.last_event_at()), (None, None));
    reader.feed(SESSION.as_bytes(), begun);
    reader.feed(START_A.as_bytes(), later);
    assert_eq!(reader.running(), Some((&TestId::from("a"), later)));
    reader.feed(END_A.as_bytes(), later);
    assert_eq!((reader.test_started_at(), reader.last_event_at()), (None, Some(later)));
    assert!(!reader.has_finished());
    reader.feed(finish(0).as_bytes(), later);
    assert!(reader.has_finished());
}
