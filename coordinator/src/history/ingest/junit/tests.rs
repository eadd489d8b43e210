//! The dialects, each as its tool writes it (shortened), and what is wrong with reports.

use super::*;

/// Cases as `class::name outcome,outcome`, with durations in milliseconds.
fn cases(document: &[u8]) -> (Vec<String>, Reading) {
    let mut cases = Vec::new();
    let reading = read(document, &mut |case| {
        let attempts: Vec<String> = case.attempts.iter().map(attempt).collect();
        let class = if case.class.is_empty() { &case.suite } else { &case.class };
        cases.push(format!("{class}::{} {}", case.name, attempts.join(",")));
        ControlFlow::Continue(())
    });
    (cases, reading)
}

fn attempt(attempt: &CaseAttempt) -> String {
    let word = match &attempt.outcome {
        CaseOutcome::Pass => "pass".to_owned(),
        CaseOutcome::Fail { kind, message } => {
            format!("fail({})", if message.is_empty() { kind } else { message.lines().next().unwrap_or("") })
        }
        CaseOutcome::Skip => "skip".to_owned(),
    };
    attempt.wall_us.map_or(word.clone(), |micros| format!("{word}@{}", micros / 1_000))
}

#[track_caller]
fn check(document: &str, expect: &[&str]) {
    let (found, reading) = cases(document.as_bytes());
    assert_eq!(found, expect, "{reading:?}");
    assert_eq!((reading.complete, reading.cases), (true, expect.len() as u64), "{reading:?}");
    assert_eq!(reading.problems, [], "what tools write is understood");
}

#[test]
fn pytest() {
    check(
        r#"<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1"
        failures="1" skipped="1" tests="4" time="0.1" timestamp="2026-11-01T10:00:00.1+00:00" hostname="h">
        <testcase classname="tests.test_a.TestX" name="test_p[1-&lt;a&gt;]" time="0.001" />
        <testcase classname="tests.test_a" name="test_f" time="0.002"><failure message="AssertionError: assert 1 == 2">def test_f(): ...</failure></testcase>
        <testcase classname="tests.test_a" name="test_s" time="0.000"><skipped type="pytest.skip" message="no">x</skipped></testcase>
        <testcase classname="tests.test_a" name="test_t" time="0.003" />
        <testcase classname="tests.test_a" name="test_t" time="0.004"><error message="failed on teardown with &quot;OSError&quot;">x</error></testcase>
        </testsuite></testsuites>"#,
        &[
            "tests.test_a.TestX::test_p[1-<a>] pass@1",
            "tests.test_a::test_f fail(AssertionError: assert 1 == 2)@2",
            "tests.test_a::test_s skip@0",
            "tests.test_a::test_t fail(failed on teardown with \"OSError\")@4",
        ],
    );
}

#[test]
fn surefire_and_gradle_keep_every_attempt() {
    check(
        r#"<testsuite xmlns:xsi="x" name="com.acme.FooTest" time="1,234.5" tests="3">
        <properties><property name="java.version" value="21"/></properties>
        <testcase name="flaky" classname="com.acme.FooTest" time="0.5">
          <flakyFailure message="first" type="java.lang.AssertionError" time="0.2"><stackTrace><![CDATA[at x]]></stackTrace><system-out>o</system-out></flakyFailure>
          <flakyError type="java.io.IOException"><stackTrace>second
at y</stackTrace></flakyError></testcase>
        <testcase name="broken" classname="com.acme.FooTest" time="1,000.25">
          <failure message="f" type="T"/><rerunFailure message="g" type="T"/><rerunError message="h" type="T"/></testcase>
        <testcase name="ignored" classname="com.acme.FooTest"><skipped/></testcase></testsuite>"#,
        &[
            "com.acme.FooTest::flaky fail(first)@200,fail(second),pass@500",
            "com.acme.FooTest::broken fail(f)@1000250,fail(g),fail(h)",
            "com.acme.FooTest::ignored skip",
        ],
    );
}

#[test]
fn javascript() {
    check(
        r#"<testsuites name="jest tests"><testsuite name="math" file="src/math.test.js" timestamp="2026-11-01T10:00:00">
        <testcase classname="math adds" name="math adds" time="0.01" file="src/math.test.js"></testcase>
        <testcase classname="math fails" name="math fails" time="0"><failure>Error: expect(received)
    at x</failure></testcase></testsuite>
        <testsuite name="src/b.test.ts"><testcase classname="src/b.test.ts" name="outer &gt; inner" time="0.02"/></testsuite>
        <testsuite name="Root Suite" file="/w/test/c.js"><testcase name="Root issue #12" classname="issue #12"/>
        <testcase name="Root issue #13" classname="issue #13"/></testsuite></testsuites>"#,
        &[
            "math adds::math adds pass@10",
            "math fails::math fails fail(Error: expect(received))@0",
            "src/b.test.ts::outer > inner pass@20",
            "issue #12::Root issue #12 pass",
            "issue #13::Root issue #13 pass",
        ],
    );
}

#[test]
fn nextest_and_gotestsum() {
    check(
        r#"<testsuites name="nextest-run"><testsuite name="crate::bin" tests="1" timestamp="2026-11-01T10:00:00.000+00:00">
        <testcase name="tests::a" classname="crate::bin" timestamp="2026-11-01T10:00:01.000+00:00" time="0.3">
        <flakyFailure timestamp="2026-11-01T10:00:00.000+00:00" time="0.1" message="thread panicked" type="test failure">x</flakyFailure>
        </testcase></testsuite></testsuites>"#,
        &["crate::bin::tests::a fail(thread panicked)@100,pass@300"],
    );
    check(
        r#"<testsuites><testsuite tests="3" name="acme/pkg" timestamp="2026-11-01T10:00:00Z">
        <testcase classname="acme/pkg" name="TestX/sub" time="0.1"><failure message="Failed" type="">x</failure></testcase>
        <testcase classname="acme/pkg" name="TestY" time="0.1"></testcase>
        <testcase classname="acme/pkg" name="TestX/sub" time="0.2"></testcase></testsuite></testsuites>"#,
        &["acme/pkg::TestX/sub fail(Failed)@100", "acme/pkg::TestY pass@100", "acme/pkg::TestX/sub pass@200"],
    );
}

#[test]
fn phpunit_and_dotnet() {
    check(
        r#"<testsuites><testsuite name="CLI" tests="2"><testsuite name="Tests\FooTest" file="/app/tests/FooTest.php">
        <testcase name="testA" file="/app/tests/FooTest.php" line="9" class="Tests\FooTest" classname="Tests.FooTest" assertions="1" time="0.001"/>
        <testsuite name="Tests\FooTest::testB"><testcase name="testB with data set #0" class="Tests\FooTest" classname="Tests.FooTest" time="0.002"><warning type="w">x</warning></testcase></testsuite>
        </testsuite></testsuite></testsuites>"#,
        &["Tests.FooTest::testA pass@1", "Tests.FooTest::testB with data set #0 pass@2"],
    );
    check(
        "\u{feff}<testsuites><testsuite name=\"Acme.Tests.dll\"><testcase classname=\"Acme.T\" name=\"M(x: &quot;1&quot;)\" time=\"0.0002400\" />
        <testcase classname=\"Acme.T\" name=\"N\" time=\"0.1\"><failure type=\"failure\" message=\"Assert.Equal() Failure\">at</failure></testcase>
        <system-out>x</system-out></testsuite></testsuites>",
        &["Acme.T::M(x: \"1\") pass@0", "Acme.T::N fail(Assert.Equal() Failure)@100"],
    );
}

#[test]
fn tests_that_share_a_name_are_told_apart_and_retries_are_not() {
    let suite = |cases: &str| format!("<testsuite name='s'>{cases}</testsuite>");
    let (pass, fail) = ("<testcase name='t'/>", "<testcase name='t'><failure message='f'/></testcase>");
    check(&suite(&format!("{fail}{fail}{pass}")), &["s::t fail(f)", "s::t fail(f)", "s::t pass"]);
    check(&suite(&format!("{pass}{fail}")), &["s::t pass", "s::t#2 fail(f)"]);
    check(&suite(&format!("{fail}{pass}{pass}")), &["s::t fail(f)", "s::t pass", "s::t#2 pass"]);
}

#[test]
fn of_a_damaged_report_the_good_part_is_kept_and_the_line_is_said() {
    #[track_caller]
    fn damaged(document: &[u8], kept: &[&str], line: u64, what: &str) {
        let (found, reading) = cases(document);
        assert_eq!(found, kept, "{reading:?}");
        let problem = &reading.problems[0];
        assert!(problem.what.contains(what) && problem.line == line, "{reading:?}");
        assert!(!reading.complete);
    }
    let kept = ["s::a pass"];
    damaged(
        b"<testsuite name='s'>\n<testcase name='a'/>\n<testcase name='b'><fail",
        &kept,
        3,
        "within a tag",
    );
    damaged(b"<testsuite name='s'>\n<testcase name='a'/>\n", &kept, 3, "cut off");
    damaged(b"<testsuite name='s'><testcase name='a'/></testsuite></x>", &kept, 1, "was not open");
    damaged(b"<html>\n<body>Not found</body></html>", &[], 1, "begins with `html`");
    damaged(b"", &[], 1, "no JUnit report");
    damaged(b"PK\x03\x04\0\0\0", &[], 1, "no JUnit report");
    damaged(b"{\"results\": {}}", &[], 1, "no JUnit report");
    let deep = "<testsuite>".repeat(200);
    damaged(deep.as_bytes(), &[], 1, "nested");
    let (found, reading) = cases(b"<testsuite name='s'><testcase/><testcase name='a'/></testsuite>");
    assert_eq!((found.len(), reading.problem_count, reading.complete), (1, 1, true));
}

#[test]
fn what_nobody_can_believe_is_left_out_and_the_line_is_said() {
    let (found, reading) = cases(
        b"<testsuite name='s' timestamp='yesterday'>\n<testcase name='a' time='-5'/>\n<testcase name='b' time='1e300'/>\n\
          <testcase name='c' time='1,234.5' timestamp='1850-01-01T00:00:00'/>\n<testcase name='d&#27;[31m' time=''/></testsuite>",
    );
    assert_eq!(found, ["s::a pass", "s::b pass", "s::c pass@1234500", "s::d\u{fffd}[31m pass"]);
    let told: Vec<(u64, &str)> =
        reading.problems.iter().map(|problem| (problem.line, problem.what.as_str())).collect();
    assert_eq!(
        told,
        [
            (1, "`yesterday` is no moment between 2000 and 2100: it is taken for unknown"),
            (2, "`-5` is no duration: it is taken for unknown"),
            (3, "`1e300` is no duration: it is taken for unknown"),
            (4, "`1850-01-01T00:00:00` is no moment between 2000 and 2100: it is taken for unknown"),
            (5, "control characters in the name `d\u{fffd}[31m` are replaced"),
        ]
    );
    assert!(reading.complete);
}

#[test]
fn a_reader_may_stop() {
    let many = format!("<testsuite>{}</testsuite>", "<testcase name='t' classname='c'/>".repeat(1_000));
    let mut taken = 0;
    let reading = read(many.as_bytes(), &mut |_| {
        taken += 1;
        if taken == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((taken, reading.cases, reading.complete), (10, 10, false));
}

proptest::proptest! {
    #[test]
    fn nothing_makes_the_reader_panic(pieces in proptest::collection::vec(0..PIECES.len(), 0..60)) {
        let document: Vec<u8> = pieces.iter().flat_map(|piece| PIECES[*piece]).copied().collect();
        let (cases, reading) = cases(&document);
        proptest::prop_assert_eq!(cases.len() as u64, reading.cases);
    }
}

const PIECES: [&[u8]; 22] = [
    b"<testsuites>",
    b"<testsuite name='s' timestamp='2026-11-01T10:00:00'>",
    b"<testcase name='t'>",
    b"<testcase name='t' time='-1'/>",
    b"</testcase>",
    b"</testsuite>",
    b"</testsuites>",
    b"<failure message='m'>",
    b"</failure>",
    b"<flakyFailure/>",
    b"<rerunFailure>",
    b"</rerunFailure>",
    b"<skipped/>",
    b"text &amp; &x;",
    b"<![CDATA[",
    b"]]>",
    b"<!--",
    b"-->",
    b"<!DOCTYPE",
    b"\xff\xfe",
    b"<",
    b"'\"",
];
