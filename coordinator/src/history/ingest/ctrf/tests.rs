//! Reports of CTRF, good ones and others.

use super::*;

fn cases(document: &str) -> (Vec<Case>, Reading) {
    let mut cases = Vec::new();
    let reading = read(document.as_bytes(), &mut |case| {
        cases.push(case);
        ControlFlow::Continue(())
    });
    (cases, reading)
}

fn words(case: &Case) -> String {
    let word = |attempt: &CaseAttempt| match &attempt.outcome {
        CaseOutcome::Pass => "pass".to_owned(),
        CaseOutcome::Fail { message, .. } => format!("fail({message})"),
        CaseOutcome::Skip => "skip".to_owned(),
    };
    let attempts: Vec<String> = case.attempts.iter().map(word).collect();
    format!("{}/{}/{} {}", case.file, case.suite, case.name, attempts.join(","))
}

#[test]
fn a_report_of_each_version_is_read() {
    let (found, reading) = cases(
        r#"{"reportFormat": "CTRF", "specVersion": "0.0.0", "results": {"tool": {"name": "x"}, "tests": [
        {"name": "a", "status": "passed", "duration": 12, "start": 1793527200000, "extra": {"deep": [1, {}]}},
        {"name": "b", "status": "failed", "duration": 1.5, "message": "boom", "suite": "S > T", "filePath": "b.ts"},
        {"name": "c", "status": "pending", "suite": ["S", "T"]}, {"name": "d", "status": "passed", "flaky": true,
        "retries": 2}, {"name": "e", "status": "passed", "retryAttempts": [{"attempt": 1, "status": "failed",
        "message": "first"}]}, {"status": "passed"}, {"name": 7}], "environment": {}}}"#,
    );
    let found: Vec<String> = found.iter().map(words).collect();
    assert_eq!(
        found,
        [
            "//a pass",
            "b.ts/S > T/b fail(boom)",
            "/S > T/c skip",
            "//d fail(),fail(),pass",
            "//e fail(first),pass"
        ]
    );
    assert_eq!((reading.complete, reading.cases, reading.problem_count), (true, 5, 2), "{reading:?}");
    let (found, _) = cases(r#"{"results":{"tests":[{"name":"a","duration":12,"start":1793527200000}]}}"#);
    assert_eq!((found[0].at, found[0].attempts[0].wall_us), (Some(1_793_527_200_000_000), Some(12_000)));
}

#[test]
fn what_is_no_report_or_half_a_one_says_so() {
    #[track_caller]
    fn check(document: &str, kept: usize, line: u64, what: &str) {
        let (found, reading) = cases(document);
        assert_eq!((found.len(), reading.complete), (kept, what.starts_with("CTRF of")), "{reading:?}");
        let problem = &reading.problems[0];
        assert!(problem.what.contains(what) && problem.line == line, "{reading:?}");
    }
    check("{\"results\": {\"tests\": [{\"name\": \"a\"},\n{\"name\": \"b", 1, 2, "cut off");
    let unknown = "{\"results\": {\"tests\": [\n{\"name\": \"a\", \"status\": \"exploded\"}\n]";
    check(unknown, 1, 2, "status `exploded`, so it counts as skipped");
    let negative = "{\"results\": {\"tests\": [\n\n{\"name\": \"a\", \"duration\": -3}";
    check(negative, 1, 3, "`-3` is no duration");
    check("{\"reportFormat\": \"SARIF\", \"results\": {}}", 0, 1, "SARIF");
    check("{}", 0, 1, "no `results.tests`");
    check("[]", 0, 1, "an object");
    check("", 0, 1, "cut off");
    check(r#"{"results":{"tests":{"name":"a"}}}"#, 0, 1, "a list");
    check(r#"{"specVersion":"7.1","results":{"tests":[{"name":"a"}]}}"#, 1, 1, "CTRF of version `7.1`");
    let deep = format!("{{\"results\":{{\"tests\":[{}", "[".repeat(1_000));
    check(&deep, 0, 1, "cut off");
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    let document = "\u{feff}{\"results\":{\"tests\":[{\"name\":\"ü\"}]}}";
    let in_utf16: Vec<u8> = document.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for document in [document.as_bytes(), &in_utf16] {
        let mut names = Vec::new();
        let reading = read(document, &mut |case| {
            names.push(case.name);
            ControlFlow::Continue(())
        });
        assert_eq!((names.as_slice(), reading.complete), (&["ü".to_owned()][..], true), "{reading:?}");
    }
}

#[test]
fn what_is_no_test_is_passed_over_and_the_rest_counts() {
    let (found, reading) = cases(
        r#"{"results":{"tests":[7, null, "x", [{"name": "y"}], {"name": "a", "name": "b", "retryAttempts": 3},
        {"name": "c", "retryAttempts": [7]}, {"name": {}}]}}"#,
    );
    assert_eq!(found.iter().map(words).collect::<Vec<_>>(), ["//b skip", "//c skip"], "{reading:?}");
    assert_eq!((reading.complete, reading.cases, reading.problem_count), (true, 2, 5), "{reading:?}");
}

#[test]
fn attempts_and_what_is_no_test_are_bounded() {
    let attempts = r#"{"status": "failed"},"#.repeat(3 * MOST_ATTEMPTS);
    let (found, reading) = cases(&format!(
        r#"{{"results":{{"tests":[{{"name":"a","status":"passed","retryAttempts":[{attempts}{{}}]}}]}}}}"#
    ));
    assert_eq!((found[0].attempts.len(), reading.complete), (MOST_ATTEMPTS + 1, true));
    let filler = "1,".repeat(Place::MOST_WITHOUT_A_CASE as usize / 2);
    let (found, reading) =
        cases(&format!(r#"{{"results":{{"tests":[{{"name":"a"}},{{"x":[{filler}1]}},{{"name":"b"}}]}}}}"#));
    assert_eq!((found.len(), reading.complete), (1, false), "{reading:?}");
    assert!(reading.problems[0].what.contains("8 MiB without a test"), "{reading:?}");
}

#[test]
fn long_strings_are_cut_at_a_character() {
    for filler in ["x", "ü", "🦀", "\\n", "\\u00fc", "\\ud83e\\udd80", "\\\""] {
        for shift in 0..14 {
            let long = "y".repeat(shift) + &filler.repeat(3 * LONGEST_TEXT);
            let document = format!(
                r#"{{"results":{{"tests":[{{"name":"a","status":"failed","message":"{long}"}},
                {{"name":"b"}}]}}}}"#
            );
            let (found, reading) = cases(&document);
            assert_eq!((found.len(), reading.complete), (2, true), "{filler} {shift}: {reading:?}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn nothing_makes_the_reader_panic(text in "[{}\\[\\]\":,a-z0-9\\\\ ]{0,80}") {
        let _ = cases(&format!("{{\"results\":{{\"tests\":[{text}"));
        let _ = cases(&text);
    }
}
