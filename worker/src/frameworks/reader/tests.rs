//! The boundary between "the test failed" and "we could not run it", case by case.

use super::*;
use flakefarm_shared::{Circumstance, InfraStage, Outcome, Phase};

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
fn exit(exit_code: i64) -> ExitSeen {
    ExitSeen { exit_code, oom: false, timed_out: None }
}

/// The same as the first test of an attempt.
fn first(start: &str) -> String {
    start.replace("\"i\":1", "\"i\":0")
}

fn finish(code: i64) -> String {
    format!(r#"{{"e":"finish","exit":{code}}}"#)
}

/// A reader, and what seals its lines.
struct Attempt {
    reader: AttemptReader,
    nonce: Nonce,
    lines: u64,
    now: Instant,
}

impl Attempt {
    fn new(asked: Asked<'_>) -> Self {
        let (nonce, now) = (Nonce::new(), Instant::now());
        Self {
            reader: AttemptReader::new("pytest", nonce.clone(), asked, now),
            nonce,
            lines: 0,
            now: now + Duration::from_secs(1),
        }
    }

    /// As the plugin writes it.
    fn tell(&mut self, event: &str) {
        let line = seal::seal(&self.nonce, self.lines, event);
        self.lines += 1;
        self.reader.feed(line.as_bytes(), self.now);
    }

    /// As anybody may write it.
    fn write(&mut self, line: &str) {
        self.reader.feed(line.as_bytes(), self.now);
    }

    fn tell_all(mut self, events: &[&str]) -> Self {
        events.iter().for_each(|event| self.tell(event));
        self
    }

    fn conclude(self, exit: ExitSeen, stderr: &str, later: Duration) -> AttemptReading {
        self.reader.conclude_at(exit, stderr, self.now + later)
    }
}

/// Reads the lines, then concludes `later` after the last.
fn read(lines: &[&str], exit: ExitSeen, stderr: &str, later: Duration) -> AttemptReading {
    let asked = if lines.first() == Some(&LISTING) { Asked::List } else { Asked::Run(None) };
    Attempt::new(asked).tell_all(lines).conclude(exit, stderr, later)
}

/// The end in a word, and the tests that failed.
fn summary(reading: &AttemptReading) -> String {
    let end = match &reading.end {
        AttemptEnd::Completed => "completed".to_owned(),
        AttemptEnd::Interrupted { by, running } => format!("interrupted by {} in {running}", by.word()),
        AttemptEnd::NothingRan { why: NothingRan::Tampered, .. } => "tampered with".to_owned(),
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
            "interrupted by framework in b; 2 samples; failed: b",
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
    let reading = read(&[SESSION, AB, &first(START_B), FAIL_B, &finish(1)], exit(1), "", LIMIT);
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
    let AttemptEnd::NothingRan { reason, why: NothingRan::Refused } = reading.end else {
        panic!("nothing ran: {reading:?}")
    };
    assert_eq!(
        reason,
        "pytest refused its arguments or configuration\nERROR: unrecognized arguments: --nope"
    );
}

#[test]
fn garbage_is_counted_and_changes_nothing() {
    let mut attempt = Attempt::new(Asked::Run(None)).tell_all(&[SESSION]);
    attempt.write("garbage");
    attempt.write("");
    let mut attempt = attempt.tell_all(&[AB, START_A]);
    attempt.write(&END_A[..20]);
    let attempt = attempt.tell_all(&[END_A, r#"{"e":"of a later version"}"#, START_B, FAIL_B, &finish(1)]);
    let reading = attempt.conclude(exit(1), "", LIMIT);
    assert_eq!(summary(&reading), "completed; 2 samples; failed: b");
    assert_eq!((reading.garbage_lines, reading.remarks), (3, Vec::new()));
}

#[test]
fn a_result_nobody_asked_for_is_dropped() {
    let a = [TestId::from("a")];
    let attempt = Attempt::new(Asked::Run(Some(&a)));
    let reading =
        attempt.tell_all(&[SESSION, AB, START_A, END_A, START_B, FAIL_B]).conclude(exit(0), "", LIMIT);
    assert_eq!(summary(&reading), "completed; 1 samples; failed: ");
    assert_eq!((reading.samples.len(), reading.tests.len(), reading.garbage_lines), (1, 1, 1));
    // Dying under it charges nobody.
    let attempt = Attempt::new(Asked::Run(Some(&a)));
    let reading = attempt.tell_all(&[SESSION, AB, START_A, END_A, START_B]).conclude(exit(139), "", LIMIT);
    assert_eq!(summary(&reading), "completed; 1 samples; failed: ");
}

#[test]
fn what_is_not_the_plugins_own_changes_nothing_and_is_said() {
    let forged = [FAIL_B, START_B, AB, SESSION, r#"{"e":"finish","exit":0}"#];
    for forgery in forged
        .map(str::to_owned)
        .into_iter()
        .chain([format!("{} 4 {FAIL_B}", "0".repeat(32)), format!("{} 0 {SESSION}", "f".repeat(32))])
    {
        let mut attempt = Attempt::new(Asked::Run(None)).tell_all(&[SESSION, AB, START_A]);
        attempt.write(&forgery);
        let pass_b = END_A.replace("\"a\"", "\"b\"").replace("\"i\":0", "\"i\":1");
        let reading = attempt.tell_all(&[END_A, START_B, &pass_b, &finish(0)]).conclude(exit(0), "", LIMIT);
        assert_eq!(summary(&reading), "completed; 2 samples; failed: ", "{forgery}");
        let what = "a result that is not pytest's own was written while `a` ran".to_owned();
        assert_eq!(reading.remarks, [Remark::Tampering { what }], "{forgery}");
    }
}

#[test]
fn what_breaks_the_order_of_events_counts_for_nothing() {
    let c = r#"{"e":"start","test":"c","i":1}"#;
    let early = r#"{"e":"start","test":"b","i":7}"#;
    let (ok, two) = (finish(0), finish(2));
    let told: [(&str, &[&str]); 14] = [
        ("an end without a start", &[SESSION, AB, END_A]),
        ("an end of another", &[SESSION, AB, START_A, FAIL_B]),
        ("two ends", &[SESSION, AB, START_A, END_A, END_A]),
        ("two starts", &[SESSION, AB, START_A, START_A]),
        ("a start within another's run", &[SESSION, AB, START_A, START_B]),
        ("a start after its end", &[SESSION, AB, START_A, END_A, START_A]),
        ("a start ahead of its turn", &[SESSION, AB, START_A, END_A, early]),
        ("a start before what was collected", &[SESSION, START_A]),
        ("a second session", &[SESSION, AB, SESSION]),
        ("a second collection", &[SESSION, AB, AB]),
        ("a listing where a run was asked for", &[LISTING, AB]),
        ("sources that nobody asked for", &[SESSION, AB, r#"{"e":"sources","tests":[]}"#]),
        ("anything after the end", &[SESSION, AB, &ok, START_A]),
        ("two ends of the session", &[SESSION, AB, START_A, END_A, c, &ok, &two]),
    ];
    for (case, lines) in told {
        let attempt = Attempt::new(Asked::Run(None)).tell_all(lines);
        assert!(attempt.reader.is_over(), "{case}");
        let reading = attempt.conclude(exit(139), "", LIMIT);
        assert_eq!(summary(&reading), "tampered with; 0 samples; failed: ", "{case}");
        assert!(matches!(reading.remarks[..], [Remark::Tampering { .. }]), "{case}");
    }
}

#[test]
fn lines_that_are_taken_or_repeated_count_for_nothing() {
    let mut attempt = Attempt::new(Asked::Run(None)).tell_all(&[SESSION, AB]);
    let repeated = seal::seal(&attempt.nonce, 1, AB);
    attempt.write(&repeated);
    assert_eq!(summary(&attempt.conclude(exit(0), "", LIMIT)), "tampered with; 0 samples; failed: ");
    let mut attempt = Attempt::new(Asked::Run(None)).tell_all(&[SESSION, AB]);
    attempt.lines += 1;
    assert_eq!(
        summary(&attempt.tell_all(&[START_A]).conclude(exit(0), "", LIMIT)),
        "tampered with; 0 samples; failed: "
    );
}

#[test]
fn the_process_and_the_framework_must_say_the_same_of_the_end() {
    let lines = [SESSION, AB, START_A, END_A, START_B, FAIL_B, &finish(1)];
    assert_eq!(summary(&read(&lines, exit(0), "", LIMIT)), "tampered with; 0 samples; failed: ");
    assert_eq!(summary(&read(&lines, exit(1), "", LIMIT)), "completed; 2 samples; failed: b");
    let lines = [SESSION, AB, START_A, END_A, &finish(257)];
    assert_eq!(summary(&read(&lines, exit(1), "", LIMIT)), "completed; 1 samples; failed: ");
}

#[test]
fn a_flood_ends_the_attempt_and_is_not_kept() {
    let mut attempt = Attempt::new(Asked::Run(None)).tell_all(&[SESSION, AB, START_A]);
    let line = "x".repeat(64 << 10);
    let mut lines = 0_u64;
    while !attempt.reader.is_over() {
        attempt.write(&line);
        lines += 1;
        assert!(lines <= bounds::FOREIGN_BYTES / (64 << 10), "{lines} lines were taken");
    }
    let reading = attempt.conclude(exit(137), "", LIMIT);
    assert_eq!(summary(&reading), "tampered with; 0 samples; failed: ");
    let what = "the results channel was flooded while `a` ran".to_owned();
    assert_eq!(reading.remarks, [Remark::Tampering { what }]);
}

#[test]
fn more_tests_than_any_project_has_are_not_kept() {
    let part = format!(r#"{{"e":"collected","tests":["{}"],"more":true}}"#, "x".repeat(1 << 20));
    let mut attempt = Attempt::new(Asked::Run(None)).tell_all(&[SESSION]);
    let mut parts = 0;
    while !attempt.reader.is_over() {
        attempt.tell(&part);
        parts += 1;
        assert!(parts <= (bounds::NAME_BYTES >> 20) + 1, "{parts} parts were taken");
    }
}

#[test]
fn times_are_no_longer_than_the_attempt() {
    let end = END_A.replace("\"wall_us\":5", &format!("\"wall_us\":{}", u64::MAX));
    let mut attempt = Attempt::new(Asked::Run(None)).tell_all(&[SESSION, AB, START_A]);
    attempt.now += Duration::from_secs(1);
    let reading = attempt.tell_all(&[&end]).conclude(exit(0), "", LIMIT);
    assert_eq!(reading.samples[0].sample.wall_us, 2_000_000);
}

#[test]
fn an_internal_error_is_its_tests_failure() {
    let last = FAIL_B.replace(
        r#""phase":"teardown""#,
        r#""last":true,"circumstances":[{"kind":"hook","name":"pytest_x","path":"conftest.py"}],"phase":"call""#,
    );
    let lines = [SESSION, AB, START_A, END_A, START_B, &last, &finish(3)];
    let reading = read(&lines, exit(3), "", LIMIT);
    assert_eq!(summary(&reading), "interrupted by exception in b; 2 samples; failed: b");
    assert_eq!(reading.remarks, [], "the failure says it");
    let Outcome::Fail(failure) = &reading.samples[1].sample.outcome else { panic!("a failure") };
    let hook = Circumstance::Hook { name: "pytest_x".to_owned(), path: "conftest.py".to_owned() };
    assert_eq!(failure.circumstances, [hook]);
}

#[test]
fn an_odd_end_of_the_session_is_said() {
    let ended = |code: i64, lines: &[&str]| {
        let finish = finish(code);
        read(&[lines, &[finish.as_str()]].concat(), exit(code), "INTERNALERROR> away", LIMIT).remarks
    };
    let passed = [SESSION, AB, START_A, END_A];
    let failed = [SESSION, AB, &first(START_B), FAIL_B];
    let broken = [SESSION, r#"{"e":"collect_error","path":"p","message":"m"}"#, AB, START_A, END_A];
    let odd = |exit_code| vec![Remark::AbnormalEnd { exit_code, text: "INTERNALERROR> away".to_owned() }];
    assert_eq!(ended(0, &passed), []);
    assert_eq!(ended(1, &failed), []);
    assert_eq!(ended(1, &broken), []);
    assert_eq!(ended(3, &passed), odd(3));
    assert_eq!(ended(2, &failed), odd(2));
    assert_eq!(ended(1, &passed), odd(1));
}

#[test]
fn a_plugins_time_out_is_no_crash() {
    let limit = r#"{"e":"limit","by":"pytest-timeout","ms":60000}"#;
    let lines = [SESSION, AB, START_A, limit];
    let reading = read(&lines, exit(1), "", LIMIT);
    assert_eq!(summary(&reading), "interrupted by timeout in a; 1 samples; failed: a");
    let Outcome::Fail(failure) = &reading.samples[0].sample.outcome else { panic!("a failure") };
    assert_eq!(
        failure.message,
        "ran longer than 60 s, the limit of pytest-timeout, which ended the interpreter"
    );
    let early = read(&lines, exit(1), "", LIMIT / 2);
    assert_eq!(summary(&early), "interrupted by crash in a; 1 samples; failed: a");
}

#[test]
fn a_test_that_closes_the_channel_is_told_so_without_our_exit_code() {
    let reading = read(&[SESSION, AB, START_A], exit(98), "", LIMIT);
    assert_eq!(summary(&reading), "interrupted by framework in a; 1 samples; failed: a");
    let Outcome::Fail(failure) = &reading.samples[0].sample.outcome else { panic!("a failure") };
    assert!(failure.message.starts_with("the test closed file descriptors"), "{}", failure.message);
}

#[test]
fn of_tests_with_one_id_the_first_fares_best() {
    let twins = r#"{"e":"twins","groups":[["a","b"]]}"#;
    let end_a = FAIL_B.replace("\"b\"", "\"a\"").replace("\"i\":1", "\"i\":0");
    let end_b = END_A.replace("\"a\"", "\"b\"").replace("\"i\":0", "\"i\":1");
    let lines = [SESSION, twins, AB, START_A, &end_a, START_B, &end_b, &finish(1)];
    let reading = read(&lines, exit(1), "", LIMIT);
    assert_eq!(summary(&reading), "completed; 2 samples; failed: b");
    assert_eq!(reading.remarks, [Remark::SharedIds { tests: vec![TestId::from("a")] }]);
    // One of them was asked for, all of them ran.
    let asked = [TestId::from("b")];
    let reading = Attempt::new(Asked::Run(Some(&asked))).tell_all(&lines).conclude(exit(1), "", LIMIT);
    assert_eq!(summary(&reading), "completed; 2 samples; failed: b");
}

#[test]
fn tests_whose_ids_change_are_told_as_what_was_asked_for() {
    let asked = [TestId::from("f")];
    let meant = r#"{"e":"meant","by":"f","tests":["a","b"]}"#;
    let lines = [SESSION, meant, AB, START_A, END_A, START_B, FAIL_B, &finish(1)];
    let reading = Attempt::new(Asked::Run(Some(&asked))).tell_all(&lines).conclude(exit(1), "", LIMIT);
    assert_eq!(summary(&reading), "completed; 1 samples; failed: f");
    assert_eq!(reading.samples[0].sample.wall_us, 10);
    assert_eq!(reading.samples[0].output.as_deref(), Some("said"));
}

#[test]
fn the_supervisor_sees_what_runs_and_since_when() {
    let mut attempt = Attempt::new(Asked::Run(None));
    let (begun, later) = (attempt.now, attempt.now + Duration::from_secs(1));
    assert_eq!((attempt.reader.test_started_at(), attempt.reader.last_event_at()), (None, None));
    attempt.tell(SESSION);
    attempt.tell(AB);
    assert_eq!(attempt.reader.last_event_at(), Some(begun));
    attempt.now = later;
    attempt.tell(START_A);
    assert_eq!(attempt.reader.running(), Some((&TestId::from("a"), later)));
    attempt.tell(END_A);
    assert_eq!((attempt.reader.test_started_at(), attempt.reader.last_event_at()), (None, Some(later)));
    assert!(!attempt.reader.has_finished());
    attempt.tell(&finish(0));
    assert!(attempt.reader.has_finished());
}
