//! What failed tests turned out to be, from what their reruns showed. Pure.

use crate::args::CheckGate;
use crate::exit::Exit;
use flakefarm_coordinator::report::{TestReport, Verdict};
use serde::Serialize;

/// The answer to one failed case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Answered {
    /// The test's id, or the case's own name if it is not one of this project.
    pub(super) id: String,
    pub(super) answer: Answer,
    /// Reruns that said something, and how many of them failed.
    pub(super) attempts: u64,
    pub(super) failures: u64,
    /// The failure rate's interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate: Option<[f64; 2]>,
    /// The reruns on the revision before the change: attempts and failures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) base: Option<[u64; 2]>,
    /// What the job said, its first line.
    pub(super) message: String,
    /// Why it could not be run, or what it depends on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// A command that shows it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reproduce: Option<String>,
}

/// What a failed test turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// It fails every time, and passed before the change if that was asked.
    Broken,
    /// It passes and fails on the same sources.
    Flaky,
    /// It fails before the change, too.
    Before,
    /// It did not fail again.
    NotReproduced,
    /// It could not be run, or is none of this project's.
    CouldNotRun,
}

impl Answer {
    /// Words for people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Answer::Broken => "broken on this commit",
            Answer::Flaky => "flaky",
            Answer::Before => "failing before this commit",
            Answer::NotReproduced => "not reproduced",
            Answer::CouldNotRun => "could not run",
        }
    }
}

/// What the reruns of one test showed: here, and before the change if that was asked.
pub(super) struct Shown<'a> {
    pub(super) here: &'a TestReport,
    /// In the company of the others, if it was looked at there.
    pub(super) in_order: Option<&'a TestReport>,
    /// `Some(None)`: it was asked, and the test is not there.
    pub(super) base: Option<Option<&'a TestReport>>,
}

/// The answer to one test.
pub(super) fn answer(id: &str, message: &str, shown: &Shown<'_>) -> Answered {
    // Only what passes alone can be said to fail because of its company.
    let failed_in_order = shown
        .in_order
        .filter(|report| shown.here.failures == 0 && shown.here.attempts > 0 && report.failures > 0);
    let report = failed_in_order.unwrap_or(shown.here);
    let counted = |report: &TestReport| [report.attempts, report.failures];
    let answer = match (report.verdict, failed_in_order) {
        (Verdict::Flaky | Verdict::Fragile, _) => Answer::Flaky,
        // It passes alone and fails among others, in the order of the job: its result depends on them.
        (_, Some(_)) => Answer::Flaky,
        (Verdict::Skipped, None) => Answer::CouldNotRun,
        (_, None) if report.failures == 0 && report.attempts == 0 => Answer::CouldNotRun,
        (_, None) if report.failures == 0 => Answer::NotReproduced,
        (_, None) if report.failures < report.attempts => Answer::Flaky,
        (_, None) => match shown.base {
            Some(Some(base)) if base.failures > 0 && base.failures < base.attempts => Answer::Flaky,
            Some(Some(base)) if base.failures > 0 => Answer::Before,
            Some(Some(_) | None) | None => Answer::Broken,
        },
    };
    let company = failed_in_order.map(|_| {
        format!(
            "it passes alone ({} reruns) and fails among the others, in the suite's order",
            shown.here.attempts
        )
    });
    let reason = (answer == Answer::CouldNotRun).then(|| match report.verdict {
        Verdict::Skipped => "the reruns skipped it".to_owned(),
        _ => "no rerun said anything about it".to_owned(),
    });
    Answered {
        id: id.to_owned(),
        answer,
        attempts: counted(report)[0],
        failures: counted(report)[1],
        rate: report.rate.as_ref().map(|rate| [rate.lower, rate.upper]),
        base: shown.base.flatten().map(counted),
        message: first_line(message),
        reason: reason.or(company),
        reproduce: (report.failures > 0).then(|| report.reproduce.clone()),
    }
}

/// A case that nothing could be found out about.
pub(super) fn could_not_run(id: &str, message: &str, reason: &str) -> Answered {
    Answered {
        id: id.to_owned(),
        answer: Answer::CouldNotRun,
        attempts: 0,
        failures: 0,
        rate: None,
        base: None,
        message: first_line(message),
        reason: Some(reason.to_owned()),
        reproduce: None,
    }
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim().chars().take(200).collect()
}

/// What the answers mean for the job.
pub(super) fn exit(answers: &[Answered], gates: &[CheckGate]) -> Exit {
    let gated = |answer: Answer| match answer {
        Answer::Broken => gates.contains(&CheckGate::Broken),
        Answer::Flaky => gates.contains(&CheckGate::Flaky),
        Answer::Before => gates.contains(&CheckGate::Before),
        Answer::NotReproduced => gates.contains(&CheckGate::NotReproduced),
        Answer::CouldNotRun => false,
    };
    if answers.iter().any(|answered| gated(answered.answer)) {
        Exit::GateFailed
    } else if answers.iter().any(|answered| answered.answer == Answer::CouldNotRun) {
        Exit::Inconclusive
    } else {
        Exit::Clean
    }
}
