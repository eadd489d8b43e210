//! The report for a person at a terminal: one sentence, a table of what is not healthy, and a short
//! block for each test that needs explaining. Readable without colour; colour is decided by the caller.

use super::model::{Report, SignatureCount, TestReport, Verdict};
use super::trusting::trust_line;
use super::words;
use std::fmt::Write as _;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Rows of the table, blocks below it, and signatures within a block: beyond, only counted.
const ROWS: usize = 100;
const BLOCKS: usize = 20;
const SIGNATURES: usize = 5;
/// Columns before the last one: verdict, failed, rate.
const VERDICT: usize = 14;
const FAILED: usize = 9;
const RATE: usize = 18;
const LEFT: usize = 2 + VERDICT + FAILED + 2 + RATE + 2;
/// Where the lines below a row begin.
const INDENT: usize = 2 + VERDICT;

/// Whether text carries colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// No escape sequences at all.
    Plain,
    /// ANSI colours.
    Ansi,
}

/// What a piece of text is, where colour helps.
#[derive(Clone, Copy)]
pub(super) enum Tone {
    Strong,
    Quiet,
    Of(Verdict),
}

impl Style {
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match (self, tone) {
            (Style::Plain, _) => return text.to_owned(),
            (Style::Ansi, Tone::Strong) => "1",
            (Style::Ansi, Tone::Quiet) => "2",
            (Style::Ansi, Tone::Of(Verdict::Flaky)) => "1;33",
            (Style::Ansi, Tone::Of(Verdict::Fragile)) => "1;35",
            (Style::Ansi, Tone::Of(Verdict::Broken)) => "1;31",
            (Style::Ansi, Tone::Of(Verdict::Inconclusive)) => "1;36",
            (Style::Ansi, Tone::Of(Verdict::Healthy)) => "32",
            (Style::Ansi, Tone::Of(Verdict::Skipped)) => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// The report as text of about `width` columns (whole ids and commands are never cut, so that they
/// can be copied).
pub fn render(report: &Report, style: Style, width: usize) -> String {
    let width = width.clamp(60, 160);
    let mut out = String::new();
    summary(&mut out, report, style, width);
    let notable: Vec<&TestReport> = report.notable().collect();
    if !notable.is_empty() {
        table(&mut out, &notable, style, width);
        clusters(&mut out, report, style, width);
        for test in notable.iter().take(BLOCKS) {
            block(&mut out, test, style, width);
        }
    }
    out
}

fn summary(out: &mut String, report: &Report, style: Style, width: usize) {
    let sweep = &report.sweep;
    for line in wrap(&words::headline(report), width) {
        let _ = writeln!(out, "{}", style.paint(Tone::Strong, &line));
    }
    if let Some(ending) = words::ending(report) {
        field(out, style, width, "stopped", ending);
    }
    for error in sweep.collection_errors.iter().take(10) {
        // The last line of an error names it.
        let reason =
            error.message.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
        let text = format!(
            "{} could not be collected: {}",
            words::visible(&error.path),
            words::visible(reason.trim())
        );
        field(out, style, width, "missing", &text);
    }
    if let Some(more) = sweep.collection_errors.len().checked_sub(10).filter(|more| *more > 0) {
        field(
            out,
            style,
            width,
            "missing",
            &format!("{} more could not be collected", words::count(more as u64, "file")),
        );
    }
    let mut project = words::visible(&sweep.project);
    if let Some(revision) = &sweep.revision {
        let _ = write!(project, " at {}", words::visible(revision));
    }
    if let Some(framework) = &sweep.framework {
        let _ = write!(project, ", {}", words::visible(framework));
    }
    field(out, style, width, "project", &project);
    field(out, style, width, "cost", &words::cost(report));
    field(out, style, width, "seed", &sweep.seed.to_string());
    if let Some(guarantee) = words::guarantee(report) {
        field(out, style, width, "proved", &guarantee);
    }
    if let Some(missed) = words::missed(report) {
        field(out, style, width, "missed", &missed);
    }
    if let Some(unproved) = words::unproved(report) {
        field(out, style, width, "open", &unproved);
    }
    if let Some(trust) = &sweep.trust {
        field(out, style, width, "trust", &trust_line(trust));
    }
    for note in &sweep.notes {
        field(out, style, width, "note", &words::visible(note));
    }
}

/// `  label    text`, wrapped under itself.
pub(super) fn field(out: &mut String, style: Style, width: usize, label: &str, text: &str) {
    let label = pad(label, 9);
    for (i, line) in wrap(text, width - 11).into_iter().enumerate() {
        let head = if i == 0 { style.paint(Tone::Quiet, &label) } else { " ".repeat(9) };
        let _ = writeln!(out, "  {head}{line}");
    }
}

fn table(out: &mut String, tests: &[&TestReport], style: Style, width: usize) {
    let room = width - LEFT;
    let head = format!(
        "  {}{}  {}test",
        pad("verdict", VERDICT),
        pad_left("failed", FAILED),
        pad("rate (interval)", RATE + 2)
    );
    let _ = writeln!(out, "\n{}", style.paint(Tone::Quiet, head.trim_end()));
    for test in tests.iter().take(ROWS) {
        let _ = writeln!(
            out,
            "  {}{}  {}{}",
            style.paint(Tone::Of(test.verdict), &pad(test.verdict.word(), VERDICT)),
            pad_left(&format!("{}/{}", test.failures, test.attempts), FAILED),
            pad(&words::rate(test), RATE + 2),
            style.paint(Tone::Strong, &middle_cut(&words::visible(&test.id), room)),
        );
        let indent = " ".repeat(INDENT);
        if !test.conditions.is_empty() {
            for line in wrap(&words::conditions(test), width - INDENT) {
                let _ = writeln!(out, "{indent}{line}");
            }
        }
        if let Some(message) = words::top_message(test) {
            let _ = writeln!(out, "{indent}{}", style.paint(Tone::Quiet, &end_cut(&message, width - INDENT)));
        }
    }
    if tests.len() > ROWS {
        let more = words::count((tests.len() - ROWS) as u64, "more test");
        let _ = writeln!(out, "  … {more}; all of them are in the JSON report");
    }
}

/// Tests that fail together, each set as one cause.
fn clusters(out: &mut String, report: &Report, style: Style, width: usize) {
    for cluster in report.sweep.clusters.iter().take(BLOCKS) {
        out.push('\n');
        field(out, style, width, "together", &words::cluster(report, cluster));
        for test in cluster.tests.iter().take(SIGNATURES) {
            let _ = writeln!(out, "{}{}", " ".repeat(11), middle_cut(&words::visible(test), width - 11));
        }
        if let Some(more) = cluster.tests.len().checked_sub(SIGNATURES).filter(|more| *more > 0) {
            field(out, style, width, "", &format!("and {}", words::count(more as u64, "more test")));
        }
    }
}

fn block(out: &mut String, test: &TestReport, style: Style, width: usize) {
    let _ = writeln!(
        out,
        "\n{} {}",
        style.paint(Tone::Of(test.verdict), test.verdict.word()),
        style.paint(Tone::Strong, &words::visible(&test.id)),
    );
    if let Some(cause) = &test.cause {
        let likely =
            format!("{} ({} sure)", words::category(&cause.category), words::percent(cause.confidence));
        field(out, style, width, "cause", &likely);
        for evidence in &cause.evidence {
            field(out, style, width, "", &format!("- {}", words::visible(evidence)));
        }
    }
    for (i, signature) in test.failures_by_signature.iter().take(SIGNATURES).enumerate() {
        let label = if i == 0 { "failures" } else { "" };
        let text = end_cut(&failure(signature), (width - 11) * 2);
        field(out, style, width, label, &text);
    }
    if test.failures_by_signature.len() > SIGNATURES {
        let more = words::count((test.failures_by_signature.len() - SIGNATURES) as u64, "other kind");
        field(out, style, width, "", &format!("{more} of failure"));
    }
    if !test.stopped_because.is_empty() {
        field(out, style, width, "why", &words::visible(&test.stopped_because));
    }
    let indent = "  ";
    let _ = writeln!(
        out,
        "{indent}{}{}",
        style.paint(Tone::Quiet, &pad("repeat", 9)),
        words::visible(&test.reproduce)
    );
    if let Some(command) = &test.reproduce_failure {
        let _ = writeln!(
            out,
            "{indent}{}{}",
            style.paint(Tone::Quiet, &pad("one fail", 9)),
            words::visible(command)
        );
    }
}

fn failure(signature: &SignatureCount) -> String {
    let place = match &signature.location {
        Some(location) => format!(" ({}:{})", words::visible(&location.path), location.line),
        None => String::new(),
    };
    let within = match &signature.within {
        Some(within) => format!("{}: ", words::visible(within)),
        None => String::new(),
    };
    let line = words::first_line(&signature.message, &signature.kind);
    format!("{} × {within}{line}{place}", signature.count)
}

pub(super) fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

pub(super) fn pad_left(text: &str, width: usize) -> String {
    format!("{}{text}", " ".repeat(width.saturating_sub(text.width())))
}

/// The longest head of at most `width` columns.
fn head(text: &str, width: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > width {
            return &text[..at];
        }
    }
    text
}

/// The longest tail of at most `width` columns.
fn tail(text: &str, width: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices().rev() {
        used += c.width().unwrap_or(0);
        if used > width {
            return &text[at + c.len_utf8()..];
        }
    }
    text
}

/// Cut in the middle: files tell apart by their heads, parameters by their tails.
fn middle_cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let left = (width - 1) / 2;
    format!("{}…{}", head(text, left), tail(text, width - 1 - left))
}

pub(super) fn end_cut(text: &str, width: usize) -> String {
    if text.width() <= width { text.to_owned() } else { format!("{}…", head(text, width - 1)) }
}

/// Lines of at most `width` columns, broken at spaces; a longer word is broken anywhere.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.width() + 1 + word.width() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
        while lines.last().is_some_and(|line| line.width() > width) {
            let long = lines.pop().expect("just seen");
            let first = head(&long, width);
            lines.push(first.to_owned());
            lines.push(long[first.len()..].to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn the_table_of_a_realistic_report() {
        insta::assert_snapshot!(render(&sample::realistic(), Style::Plain, 100));
    }

    #[test]
    fn the_table_of_a_narrow_terminal_stays_within_it() {
        let report = sample::realistic();
        let text = render(&report, Style::Plain, 80);
        for line in text.lines().filter(|line| !line.contains("flakefarm sweep")) {
            let whole_id = report.tests.iter().any(|test| line.ends_with(&words::visible(&test.id)));
            assert!(whole_id || line.width() <= 80, "{line}");
        }
    }

    #[test]
    fn nothing_is_said_in_the_plural_of_one() {
        insta::assert_snapshot!(render(&sample::one_test(), Style::Plain, 80));
    }

    #[test]
    fn an_empty_report_says_that_nothing_ran() {
        insta::assert_snapshot!(render(&sample::empty(), Style::Plain, 80));
    }

    #[test]
    fn plain_text_has_no_escapes_even_when_tests_do() {
        let text = render(&sample::hostile(), Style::Plain, 100);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text}");
        assert!(!text.contains('\u{202e}'));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn colour_adds_escapes_and_nothing_else() {
        let report = sample::realistic();
        let coloured = render(&report, Style::Ansi, 100);
        assert!(coloured.contains("\u{1b}[1;33mflaky"));
        let stripped = words::visible_lines(&coloured);
        assert_eq!(stripped, render(&report, Style::Plain, 100));
    }

    #[test]
    fn thousands_of_tests_stay_a_page() {
        let text = render(&sample::large(), Style::Plain, 100);
        assert!(text.lines().count() < 800, "{}", text.lines().count());
    }
}
