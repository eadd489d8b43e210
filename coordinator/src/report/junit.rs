//! The report as JUnit XML in Surefire's dialect: a flaky test is a passing `<testcase>` with
//! `<flakyFailure>` children, so that consumers who know nothing of flakiness stay green; a broken one
//! has a `<failure>`. A test that never ran is `<skipped>`: missing data is never a pass.

use super::model::{Report, SignatureCount, TestReport, Verdict};
use super::words;
use quick_junit::{
    NonSuccessKind, Property, Report as Document, TestCase, TestCaseStatus, TestRerun, TestSuite,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// Characters of one failure's message that are kept.
const MESSAGE_LIMIT: usize = 4_000;

/// The report as an XML document.
pub fn render(report: &Report) -> String {
    let mut files: BTreeMap<&str, Vec<&TestReport>> = BTreeMap::new();
    for test in &report.tests {
        files.entry(test.file()).or_default().push(test);
    }
    let mut document = Document::new("flakefarm");
    document.set_time(report.tests.iter().map(mean_time).sum());
    for (file, tests) in files {
        document.add_test_suite(suite(report, file, &tests));
    }
    if !report.sweep.collection_errors.is_empty() {
        document.add_test_suite(uncollected(report));
    }
    document.to_string().expect("writing to memory cannot fail")
}

fn mean_time(test: &TestReport) -> Duration {
    let seconds = test.duration_ms.map_or(0.0, |durations| durations.mean / 1_000.0);
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn suite(report: &Report, file: &str, tests: &[&TestReport]) -> TestSuite {
    let mut suite = TestSuite::new(if file.is_empty() { "(no file)" } else { file });
    suite.set_time(tests.iter().copied().map(mean_time).sum());
    if let Ok(started) = report.sweep.started_at.format(&time::format_description::well_known::Rfc3339) {
        suite.extra.insert("timestamp".into(), started.into());
    }
    suite.add_properties(properties([
        ("flakefarm.sweep", report.sweep.id.clone()),
        ("flakefarm.seed", report.sweep.seed.to_string()),
        ("flakefarm.revision", report.sweep.revision.clone().unwrap_or_default()),
    ]));
    suite.add_test_cases(tests.iter().copied().map(case));
    suite
}

/// Those that have a value.
fn properties<const N: usize>(all: [(&str, String); N]) -> impl Iterator<Item = Property> {
    let told = all.into_iter().filter(|(_, value)| !value.is_empty());
    told.map(|(name, value)| Property::new(name, value)).collect::<Vec<_>>().into_iter()
}

fn case(test: &TestReport) -> TestCase {
    let mut case = named(&test.id, status(test));
    case.set_time(mean_time(test));
    case.extra.insert("file".into(), test.file().into());
    let rate = test.rate.map_or_else(String::new, |rate| rate.estimate.to_string());
    let bounds = test.rate.map_or_else(String::new, |rate| format!("{}..{}", rate.lower, rate.upper));
    case.add_properties(properties([
        ("flakefarm.id", test.id.clone()),
        ("flakefarm.verdict", test.verdict.word().to_owned()),
        ("flakefarm.attempts", test.attempts.to_string()),
        ("flakefarm.failures", test.failures.to_string()),
        ("flakefarm.rate", rate),
        ("flakefarm.rate_interval", bounds),
        ("flakefarm.reproduce", test.reproduce.clone()),
    ]));
    case
}

/// A test case under the names that the framework's own JUnit file gives the test `id`.
pub fn named(id: &str, status: TestCaseStatus) -> TestCase {
    let (class, name) = class_and_name(id);
    let mut case = TestCase::new(name, status);
    case.set_classname(class);
    case
}

/// How a test appears.
fn status(test: &TestReport) -> TestCaseStatus {
    match test.verdict {
        Verdict::Healthy | Verdict::Flaky | Verdict::Fragile => passed(test),
        Verdict::Broken => failed(test),
        Verdict::Skipped => skipped("skipped by the framework in every attempt"),
        Verdict::Inconclusive if test.attempts == 0 => skipped("no attempt said anything of this test"),
        Verdict::Inconclusive if test.failures == test.attempts => failed(test),
        Verdict::Inconclusive => passed(test),
    }
}

fn passed(test: &TestReport) -> TestCaseStatus {
    let mut status = TestCaseStatus::success();
    status.add_reruns(test.failures_by_signature.iter().map(|signature| rerun(test, signature)));
    status
}

/// One `<failure>` (or `<error>`), then what else happened as reruns.
fn failed(test: &TestReport) -> TestCaseStatus {
    let Some((first, others)) = test.failures_by_signature.split_first() else {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_message("failed");
        return status;
    };
    let mut status = TestCaseStatus::non_success(kind(first));
    status.set_message(message(test, first)).set_type(first.kind.as_str()).set_description(body(first));
    status.add_reruns(others.iter().map(|signature| rerun(test, signature)));
    status
}

fn skipped(why: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status.set_message(why);
    status
}

fn rerun(test: &TestReport, signature: &SignatureCount) -> TestRerun {
    let mut rerun = TestRerun::new(kind(signature));
    rerun.set_message(message(test, signature)).set_type(signature.kind.as_str());
    rerun.set_description(body(signature));
    rerun
}

/// A test that was ended rather than failed has an error.
fn kind(signature: &SignatureCount) -> NonSuccessKind {
    match signature.kind.as_str() {
        "timeout" | "crash" | "out_of_memory" => NonSuccessKind::Error,
        _ => NonSuccessKind::Failure,
    }
}

fn message(test: &TestReport, signature: &SignatureCount) -> String {
    let times = words::count(signature.count, "time");
    let line = words::first_line(&signature.message, &signature.kind);
    format!("failed {times} in {}: {line}", words::count(test.attempts, "attempt"))
}

fn body(signature: &SignatureCount) -> String {
    let place = match &signature.location {
        Some(location) => format!("{}:{}\n", location.path, location.line),
        None => String::new(),
    };
    words::bounded(&words::visible_lines(&format!("{place}{}", signature.message)), MESSAGE_LIMIT)
}

/// Files that could not be collected, in a suite of their own.
fn uncollected(report: &Report) -> TestSuite {
    let mut suite = TestSuite::new("collection");
    suite.add_test_cases(report.sweep.collection_errors.iter().map(|error| {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status
            .set_message("could not be collected")
            .set_description(words::bounded(&words::visible_lines(&error.message), MESSAGE_LIMIT));
        let mut case = TestCase::new(error.path.as_str(), status);
        case.set_classname("");
        case.extra.insert("file".into(), error.path.as_str().into());
        case
    }));
    suite
}

/// As pytest's own JUnit file names them: `tests.test_a.TestB` and `test_c[1]`.
fn class_and_name(id: &str) -> (String, &str) {
    let parameters = id.find('[').unwrap_or(id.len());
    let Some(split) = id[..parameters].rfind("::") else {
        // As unittest's runners for JUnit have it.
        return id.rsplit_once('.').map_or((String::new(), id), |(class, name)| (class.to_owned(), name));
    };
    let (path, name) = (&id[..split], &id[split + 2..]);
    let mut parts = path.split("::");
    let file = parts.next().unwrap_or_default();
    let module = file.strip_suffix(".py").unwrap_or(file).replace('/', ".");
    let class = std::iter::once(module).chain(parts.map(str::to_owned)).collect::<Vec<_>>().join(".");
    (class, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use quick_xml::Reader;
    use quick_xml::events::Event;

    /// The `name` attributes of test cases, as a parser reads them.
    fn names(xml: &str) -> Vec<String> {
        let mut reader = Reader::from_str(xml);
        let mut names = Vec::new();
        loop {
            match reader.read_event().expect("well-formed") {
                Event::Eof => return names,
                Event::Start(tag) | Event::Empty(tag) => {
                    for attribute in tag.attributes() {
                        let attribute = attribute.expect("well-formed attribute");
                        if tag.name().as_ref() == "testcase" && attribute.key.as_ref() == "name" {
                            let value = attribute
                                .normalized_value(quick_xml::XmlVersion::Explicit1_0)
                                .expect("known entities");
                            names.push(value.into_owned());
                        }
                    }
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_realistic_report_in_surefires_dialect() {
        insta::assert_snapshot!(render(&sample::brief()));
    }

    #[test]
    fn hostile_names_and_messages_stay_well_formed() {
        let report = sample::hostile();
        let xml = render(&report);
        assert_eq!(names(&xml).len(), report.tests.len() + report.sweep.collection_errors.len());
        insta::assert_snapshot!(xml);
    }

    #[test]
    fn an_empty_report_is_a_document() {
        assert!(names(&render(&sample::empty())).is_empty());
    }

    #[test]
    fn parameters_do_not_split_a_name() {
        assert_eq!(
            class_and_name("tests/test_a.py::TestB::test_c[x::y]"),
            ("tests.test_a.TestB".into(), "test_c[x::y]")
        );
        assert_eq!(class_and_name("no file"), (String::new(), "no file"));
    }

    #[test]
    fn a_test_that_never_ran_is_not_a_pass() {
        let mut report = sample::one_test();
        report.tests[0].verdict = Verdict::Inconclusive;
        report.tests[0].attempts = 0;
        report.tests[0].failures = 0;
        assert!(render(&report).contains("<skipped"));
    }
}
