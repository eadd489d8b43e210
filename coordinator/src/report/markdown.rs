//! The report for a pull request or a job summary. First line the finding, then a table, details
//! folded. Everything a test could have written is inside code elements, where nobody is mentioned and
//! nothing is linked, and escaped so that it cannot leave them.

use super::model::{Report, TestReport};
use super::trusting::trust_line;
use super::words;
use std::fmt::Write as _;

/// A comment may have 65,536 characters; what would not fit is counted instead.
const LIMIT: usize = 60_000;
const ROWS: usize = 50;
const DETAILS: usize = 10;
const SIGNATURES: usize = 3;
const CELL: usize = 160;

/// The report as GitHub-flavoured Markdown.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "### {}\n", words::headline(report));
    if let Some(ending) = words::ending(report) {
        let _ = writeln!(out, "**Note:** {ending}.\n");
    }
    let notable: Vec<&TestReport> = report.notable().collect();
    table(&mut out, &notable);
    for cluster in report.sweep.clusters.iter().take(DETAILS) {
        let tests: Vec<String> = cluster.tests.iter().take(SIGNATURES).map(|test| code(test)).collect();
        let more = cluster.tests.len() - tests.len();
        let others =
            if more > 0 { format!(" and {}", words::count(more as u64, "more test")) } else { String::new() };
        let _ = writeln!(
            out,
            "**One cause?** {}: {}{others}.\n",
            plain(&words::cluster(report, cluster)),
            tests.join(", ")
        );
    }
    for test in notable.iter().take(DETAILS) {
        let text = details(test);
        if out.len() + text.len() < LIMIT {
            out.push_str(&text);
        }
    }
    for error in report.sweep.collection_errors.iter().take(10) {
        let reason = error.message.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let _ = writeln!(out, "- {} could not be collected: {}", code(&error.path), code(reason.trim()));
    }
    if !report.sweep.collection_errors.is_empty() {
        out.push('\n');
    }
    if let Some(unproved) = words::unproved(report) {
        let _ = writeln!(out, "{unproved}.\n");
    }
    if let Some(trust) = &report.sweep.trust {
        let _ = writeln!(out, "{}.\n", plain(&trust_line(trust)));
    }
    for note in report.sweep.notes.iter().take(10) {
        let _ = writeln!(out, "- {}", code(note));
    }
    if !report.sweep.notes.is_empty() {
        out.push('\n');
    }
    let _ = write!(out, "<sub>{}. Seed {}.", words::cost(report), report.sweep.seed);
    if let Some(guarantee) = words::guarantee(report) {
        let _ = write!(out, " Proved: {guarantee}.");
    }
    if let Some(missed) = words::missed(report) {
        let _ = write!(out, " Missed: {missed}.");
    }
    out.push_str("</sub>\n");
    out
}

fn table(out: &mut String, tests: &[&TestReport]) {
    if tests.is_empty() {
        return;
    }
    out.push_str("| Verdict | Test | Failed | Rate | Where it fails |\n|---|---|---:|---|---|\n");
    let mut shown = 0;
    for test in tests.iter().take(ROWS) {
        let message = match words::top_message(test) {
            Some(message) => format!("<br>{}", code(&message)),
            None => String::new(),
        };
        let row = format!(
            "| **{}** | {}{message} | {}/{} | {} | {} |\n",
            test.verdict.word(),
            code(&test.id),
            test.failures,
            test.attempts,
            words::rate(test),
            plain(&words::conditions(test)),
        );
        if out.len() + row.len() > LIMIT / 2 {
            break;
        }
        out.push_str(&row);
        shown += 1;
    }
    out.push('\n');
    if shown < tests.len() {
        let more = words::count((tests.len() - shown) as u64, "more test");
        let _ = writeln!(out, "… and {more}; all of them are in the JSON report.\n");
    }
}

fn details(test: &TestReport) -> String {
    let mut out = format!("<details><summary>{} {}</summary>\n\n", test.verdict.word(), code(&test.id));
    if let Some(cause) = &test.cause {
        let category = plain(&words::category(&cause.category));
        let _ = writeln!(out, "Likely cause: **{category}** ({} sure)\n", words::percent(cause.confidence));
        for evidence in &cause.evidence {
            let _ = writeln!(out, "- {}", code(evidence));
        }
        out.push('\n');
    }
    for signature in test.failures_by_signature.iter().take(SIGNATURES) {
        let place = match &signature.location {
            Some(location) => format!(" at {}", code(&format!("{}:{}", location.path, location.line))),
            None => String::new(),
        };
        let _ = writeln!(out, "{} × {}{place}\n", signature.count, plain(&signature.kind));
        fence(&mut out, "", &words::bounded(&words::visible_lines(&signature.message), 1_500));
    }
    if test.failures_by_signature.len() > SIGNATURES {
        let more = words::count((test.failures_by_signature.len() - SIGNATURES) as u64, "other kind");
        let _ = writeln!(out, "{more} of failure.\n");
    }
    out.push_str("Reproduce:\n\n");
    let mut commands = words::visible(&test.reproduce);
    if let Some(command) = &test.reproduce_failure {
        let _ = write!(commands, "\n{}", words::visible(command));
    }
    fence(&mut out, "sh", &commands);
    out.push_str("</details>\n\n");
    out
}

/// A fence longer than any run of backticks inside.
fn fence(out: &mut String, language: &str, text: &str) {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let _ = writeln!(out, "{fence}{language}\n{text}\n{fence}\n");
}

/// A code element on one line, bounded.
fn code(text: &str) -> String {
    let visible = words::visible(text);
    let mut short: String = visible.chars().take(CELL).collect();
    if short.len() < visible.len() {
        short.push('…');
    }
    format!("<code>{}</code>", plain(&short))
}

/// Text with everything that means something to Markdown, HTML or GitHub as an entity. A mention would
/// survive that, which is why text of tests goes through [`code`].
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if c.is_alphanumeric() || matches!(c, ' ' | '-' | '/' | ',' | '(' | ')' | '·' | '…') => {
                out.push(c)
            }
            '.' if !out.to_ascii_lowercase().ends_with("www") => out.push(c),
            _ => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_realistic_comment() {
        insta::assert_snapshot!(render(&sample::brief()));
    }

    #[test]
    fn hostile_names_stay_in_their_cell() {
        let text = render(&sample::hostile());
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| **")).collect();
        assert!(rows.iter().all(|row| row.matches('|').count() == 6), "{rows:#?}");
        let mut fence = None;
        let mut outside_fences = String::new();
        for line in text.lines() {
            let ticks = line.len() - line.trim_start_matches('`').len();
            match fence {
                None if ticks >= 3 => fence = Some(ticks),
                Some(open) if ticks >= open => fence = None,
                None => outside_fences.push_str(line),
                Some(_) => {}
            }
        }
        assert_eq!(fence, None, "every fence is closed");
        assert!(!outside_fences.contains("<script") && !outside_fences.contains("@everyone"), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_comment_never_exceeds_what_github_takes() {
        assert!(render(&sample::large()).len() < 65_536);
    }
}
