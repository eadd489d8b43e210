//! GitLab's code quality report: findings that it shows in a merge request.

use flakefarm_coordinator::report::{Report, Verdict};
use flakefarm_shared::Digest;
use serde_json::json;

/// Something that a reviewer should see.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) check: String,
    pub(crate) file: String,
    pub(crate) description: String,
    /// What stays the same from one report to the next.
    pub(crate) identity: String,
    pub(crate) severity: Severity,
}

/// How bad it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Severity {
    Info,
    Minor,
    Major,
}

/// Writes it.
pub(crate) fn render(findings: impl IntoIterator<Item = Finding>) -> String {
    let entries: Vec<serde_json::Value> = findings
        .into_iter()
        .map(|finding| {
            let fingerprint = Digest::of(format!("{}\n{}", finding.check, finding.identity).as_bytes());
            json!({
                "description": finding.description,
                "check_name": finding.check,
                "fingerprint": fingerprint.as_str(),
                "severity": match finding.severity {
                    Severity::Info => "info",
                    Severity::Minor => "minor",
                    Severity::Major => "major",
                },
                "location": { "path": finding.file, "lines": { "begin": 1 } },
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::Array(entries))
}

/// The tests of a report that need somebody.
pub(crate) fn of_report(report: &Report) -> String {
    let findings = report.tests.iter().filter_map(|test| {
        let (word, severity) = match test.verdict {
            Verdict::Broken => ("broken", Severity::Major),
            Verdict::Flaky => ("flaky", Severity::Minor),
            Verdict::Fragile => ("fragile", Severity::Minor),
            _ => return None,
        };
        Some(Finding {
            check: format!("flakefarm-{word}"),
            file: test.id.split("::").next().unwrap_or_default().to_owned(),
            description: format!(
                "{word}: {} failed in {} of {} attempts",
                test.id, test.failures, test.attempts
            ),
            identity: test.id.clone(),
            severity,
        })
    });
    render(findings)
}
