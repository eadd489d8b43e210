//! The report as JUnit XML in Surefire's dialect: a flaky test is a passing `<testcase>` with
//! `<flakyFailure>` children, so that consumers who know nothing of flakiness stay green; a broken one
//! has a `<failure>`. A test that never ran is `<skipped>`: missing data is never a pass.

use super::model::{Report, SignatureCount, TestReport, Verdict};
use super::words;
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use std::collections::BTreeMap;
use std::io;

/// Characters of one failure's message that are kept.
const MESSAGE_LIMIT: usize = 4_000;

type Xml = Writer<Vec<u8>>;

/// The report as an XML document.
pub fn render(report: &Report) -> String {
    let mut xml = Writer::new_with_indent(Vec::new(), b' ', 2);
    write(&mut xml, report).expect("writing to memory cannot fail");
    let mut text = String::from_utf8(xml.into_inner()).expect("only text was written");
    text.push('\n');
    text
}

fn write(xml: &mut Xml, report: &Report) -> io::Result<()> {
    let mut files: BTreeMap<&str, Vec<&TestReport>> = BTreeMap::new();
    for test in &report.tests {
        files.entry(test.file()).or_default().push(test);
    }
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let sums =
        Sums::of(&report.tests.iter().collect::<Vec<_>>()).attributes(report.sweep.collection_errors.len());
    xml.create_element("testsuites")
        .with_attribute(("name", "flakefarm"))
        .with_attributes(sums.iter().map(pair))
        .write_inner_content(|xml| {
            for (file, tests) in &files {
                suite(xml, report, file, tests)?;
            }
            uncollected(xml, report)
        })?;
    Ok(())
}

fn pair<'a>((key, value): &'a (&'static str, String)) -> (&'a str, &'a str) {
    (key, value.as_str())
}

/// How a test appears.
enum Shape {
    Passed,
    Failed,
    Skipped(&'static str),
}

fn shape(test: &TestReport) -> Shape {
    match test.verdict {
        Verdict::Healthy | Verdict::Flaky | Verdict::Fragile => Shape::Passed,
        Verdict::Broken => Shape::Failed,
        Verdict::Skipped => Shape::Skipped("skipped by the framework in every attempt"),
        Verdict::Inconclusive if test.attempts == 0 => {
            Shape::Skipped("no attempt said anything of this test")
        }
        Verdict::Inconclusive if test.failures == test.attempts => Shape::Failed,
        Verdict::Inconclusive => Shape::Passed,
    }
}

struct Sums {
    tests: usize,
    failures: usize,
    skipped: usize,
    seconds: f64,
}

impl Sums {
    fn of(tests: &[&TestReport]) -> Self {
        let mut sums = Self { tests: tests.len(), failures: 0, skipped: 0, seconds: 0.0 };
        for test in tests {
            match shape(test) {
                Shape::Passed => {}
                Shape::Failed => sums.failures += 1,
                Shape::Skipped(_) => sums.skipped += 1,
            }
            sums.seconds += seconds(test);
        }
        sums
    }

    fn attributes(&self, errors: usize) -> [(&'static str, String); 5] {
        [
            ("tests", (self.tests + errors).to_string()),
            ("failures", self.failures.to_string()),
            ("errors", errors.to_string()),
            ("skipped", self.skipped.to_string()),
            ("time", format!("{:.3}", self.seconds)),
        ]
    }
}

fn seconds(test: &TestReport) -> f64 {
    test.duration_ms.map_or(0.0, |durations| durations.mean / 1_000.0)
}

fn suite(xml: &mut Xml, report: &Report, file: &str, tests: &[&TestReport]) -> io::Result<()> {
    let name = if file.is_empty() { "(no file)".to_owned() } else { clean(file) };
    let sums = Sums::of(tests).attributes(0);
    let started = report.sweep.started_at.format(&time::format_description::well_known::Rfc3339);
    xml.create_element("testsuite")
        .with_attribute(("name", name.as_str()))
        .with_attributes(sums.iter().map(pair))
        .with_attribute(("timestamp", started.unwrap_or_default().as_str()))
        .write_inner_content(|xml| {
            properties(
                xml,
                &[
                    ("flakefarm.sweep", report.sweep.id.clone()),
                    ("flakefarm.seed", report.sweep.seed.to_string()),
                    ("flakefarm.revision", report.sweep.revision.clone().unwrap_or_default()),
                ],
            )?;
            for test in tests {
                case(xml, test)?;
            }
            Ok(())
        })?;
    Ok(())
}

fn properties(xml: &mut Xml, properties: &[(&str, String)]) -> io::Result<()> {
    xml.create_element("properties").write_inner_content(|xml| {
        for (name, value) in properties.iter().filter(|(_, value)| !value.is_empty()) {
            xml.create_element("property")
                .with_attribute(("name", *name))
                .with_attribute(("value", clean(value).as_str()))
                .write_empty()?;
        }
        Ok(())
    })?;
    Ok(())
}

fn case(xml: &mut Xml, test: &TestReport) -> io::Result<()> {
    let (class, name) = class_and_name(&test.id);
    xml.create_element("testcase")
        .with_attribute(("classname", clean(&class).as_str()))
        .with_attribute(("name", clean(name).as_str()))
        .with_attribute(("file", clean(test.file()).as_str()))
        .with_attribute(("time", format!("{:.3}", seconds(test)).as_str()))
        .write_inner_content(|xml| {
            let rate = test.rate.map_or_else(String::new, |rate| rate.estimate.to_string());
            let bounds = test.rate.map_or_else(String::new, |rate| format!("{}..{}", rate.lower, rate.upper));
            properties(
                xml,
                &[
                    ("flakefarm.id", test.id.clone()),
                    ("flakefarm.verdict", test.verdict.word().to_owned()),
                    ("flakefarm.attempts", test.attempts.to_string()),
                    ("flakefarm.failures", test.failures.to_string()),
                    ("flakefarm.rate", rate),
                    ("flakefarm.rate_interval", bounds),
                    ("flakefarm.reproduce", test.reproduce.clone()),
                ],
            )?;
            match shape(test) {
                Shape::Passed => {
                    for signature in &test.failures_by_signature {
                        let tag = if is_error(signature) { "flakyError" } else { "flakyFailure" };
                        failure(xml, tag, test, signature)?;
                    }
                    Ok(())
                }
                Shape::Failed => failed(xml, test),
                Shape::Skipped(why) => {
                    xml.create_element("skipped").with_attribute(("message", why)).write_empty()?;
                    Ok(())
                }
            }
        })?;
    Ok(())
}

/// One `<failure>` (or `<error>`), then what else happened as reruns.
fn failed(xml: &mut Xml, test: &TestReport) -> io::Result<()> {
    let Some((first, others)) = test.failures_by_signature.split_first() else {
        xml.create_element("failure").with_attribute(("message", "failed")).write_empty()?;
        return Ok(());
    };
    failure(xml, if is_error(first) { "error" } else { "failure" }, test, first)?;
    for signature in others {
        let tag = if is_error(signature) { "rerunError" } else { "rerunFailure" };
        failure(xml, tag, test, signature)?;
    }
    Ok(())
}

/// Whether the test was ended rather than failed.
fn is_error(signature: &SignatureCount) -> bool {
    matches!(signature.kind.as_str(), "timeout" | "crash" | "out_of_memory")
}

fn failure(xml: &mut Xml, tag: &str, test: &TestReport, signature: &SignatureCount) -> io::Result<()> {
    let times = words::count(signature.count, "time");
    let line = words::first_line(&signature.message, &signature.kind);
    let message = format!("failed {times} in {}: {line}", words::count(test.attempts, "attempt"));
    let place = match &signature.location {
        Some(location) => format!("{}:{}\n", location.path, location.line),
        None => String::new(),
    };
    let body = clean(&words::bounded(
        &words::visible_lines(&format!("{place}{}", signature.message)),
        MESSAGE_LIMIT,
    ));
    xml.create_element(tag)
        .with_attribute(("message", clean(&message).as_str()))
        .with_attribute(("type", clean(&signature.kind).as_str()))
        .write_text_content(BytesText::new(&body))?;
    Ok(())
}

/// Files that could not be collected, in a suite of their own.
fn uncollected(xml: &mut Xml, report: &Report) -> io::Result<()> {
    let errors = &report.sweep.collection_errors;
    if errors.is_empty() {
        return Ok(());
    }
    let n = errors.len().to_string();
    xml.create_element("testsuite")
        .with_attributes([
            ("name", "collection"),
            ("tests", n.as_str()),
            ("failures", "0"),
            ("errors", n.as_str()),
        ])
        .write_inner_content(|xml| {
            for error in errors {
                let path = clean(&error.path);
                xml.create_element("testcase")
                    .with_attributes([("classname", ""), ("name", path.as_str()), ("file", path.as_str())])
                    .write_inner_content(|xml| {
                        let body =
                            clean(&words::bounded(&words::visible_lines(&error.message), MESSAGE_LIMIT));
                        xml.create_element("error")
                            .with_attribute(("message", "could not be collected"))
                            .write_text_content(BytesText::new(&body))?;
                        Ok(())
                    })?;
            }
            Ok(())
        })?;
    Ok(())
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

/// What XML 1.0 cannot carry, replaced.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' | '\n' => c,
            '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
            _ if c.is_control() => '\u{fffd}',
            _ => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use quick_xml::Reader;

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
