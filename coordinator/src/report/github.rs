//! The report as GitHub workflow commands, which become annotations on the changed files: broken tests
//! as errors, flaky and fragile ones as warnings, the sweep itself as a notice.

use super::model::{Report, TestReport, Verdict};
use super::words;
use std::fmt::Write as _;

/// GitHub shows ten annotations of each level per step; the rest would vanish silently.
const PER_LEVEL: usize = 10;

/// One workflow command per line.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let mut shown = [0; 3];
    let mut left_out = 0;
    for test in report.notable() {
        let (place, level) = match test.verdict {
            Verdict::Broken => (0, "error"),
            Verdict::Flaky | Verdict::Fragile => (1, "warning"),
            Verdict::Inconclusive | Verdict::Healthy | Verdict::Skipped => (2, "notice"),
        };
        // One notice is kept for the summary.
        if shown[place] < PER_LEVEL - usize::from(place == 2) {
            shown[place] += 1;
            annotation(&mut out, report, level, test);
        } else {
            left_out += 1;
        }
    }
    let uncollected = &report.sweep.collection_errors;
    for error in uncollected.iter().take(PER_LEVEL - shown[0]) {
        let file = in_root(report.sweep.path.as_deref(), &error.path);
        let title = format!("could not be collected: {}", words::visible(&error.path));
        let _ = writeln!(
            out,
            "::error file={},title={}::{}",
            property(&words::visible(&file)),
            property(&title),
            data(words::visible_lines(&error.message).trim())
        );
    }
    let mut message =
        format!("{} {}. Seed {}.", words::headline(report), words::cost(report), report.sweep.seed);
    if let Some(ending) = words::ending(report) {
        let _ = write!(message, " Note: {ending}.");
    }
    if left_out > 0 {
        let _ = write!(message, " {} without an annotation.", words::count(left_out, "more test"));
    }
    if let Some(more @ 1..) = uncollected.len().checked_sub(PER_LEVEL - shown[0]) {
        let _ =
            write!(message, " {} without an annotation.", words::count(more as u64, "more uncollected file"));
    }
    let _ = writeln!(out, "::notice title=flakefarm::{}", data(&message));
    out
}

fn annotation(out: &mut String, report: &Report, level: &str, test: &TestReport) {
    let location = test.failures_by_signature.iter().find_map(|signature| signature.location.as_ref());
    let in_test_file = location.filter(|location| location.path == test.file());
    let mut properties = String::new();
    let file = in_root(report.sweep.path.as_deref(), test.file());
    if !file.is_empty() {
        let _ = write!(properties, "file={},", property(&words::visible(&file)));
        if let Some(location) = in_test_file {
            let _ = write!(properties, "line={},", location.line);
        }
    }
    let title = format!("{} {}: {}", test.verdict.word(), test.subject.word(), words::visible(&test.id));
    let mut message = format!(
        "failed {} of {} ({})",
        test.failures,
        words::count(test.attempts, "attempt"),
        words::rate(test)
    );
    if let Some(top) = words::top_message(test) {
        let _ = write!(message, "\n{top}");
    }
    if let Some(cause) = &test.cause {
        let _ = write!(message, "\nlikely cause: {}", words::category(&cause.category));
    }
    let _ = write!(message, "\nreproduce: {}", test.reproduce);
    let _ = writeln!(out, "::{level} {properties}title={}::{}", property(&title), data(&message));
}

/// Annotations are placed by paths below the repository's root; a project below it is prefixed.
fn in_root(root: Option<&str>, file: &str) -> String {
    let root = root.unwrap_or(".").trim_start_matches("./").trim_end_matches('/');
    if root.is_empty() || root == "." || root.starts_with('/') || file.is_empty() {
        file.to_owned()
    } else {
        format!("{root}/{file}")
    }
}

/// The message of a command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// The value of a property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_realistic_annotation_list() {
        insta::assert_snapshot!(render(&sample::brief()));
    }

    #[test]
    fn hostile_names_cannot_add_a_command() {
        let report = sample::hostile();
        let text = render(&report);
        let annotated = report.notable().count() + report.sweep.collection_errors.len();
        assert_eq!(text.lines().count(), annotated + 1, "{text}");
        assert!(text.lines().all(|line| line.starts_with("::")));
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn files_beyond_what_github_shows_are_counted() {
        let mut report = sample::brief();
        let error = report.sweep.collection_errors[0].clone();
        report.sweep.collection_errors = vec![error; 12];
        let text = render(&report);
        assert_eq!(text.lines().filter(|line| line.starts_with("::error ")).count(), PER_LEVEL, "{text}");
        assert!(text.contains(" 3 more uncollected files without an annotation."), "{text}");
    }

    #[test]
    fn a_project_below_the_root_is_prefixed() {
        assert_eq!(in_root(Some("./services/api/"), "tests/a.py"), "services/api/tests/a.py");
        assert_eq!(in_root(Some("."), "tests/a.py"), "tests/a.py");
        assert_eq!(in_root(Some("/somewhere"), "tests/a.py"), "tests/a.py");
    }
}
