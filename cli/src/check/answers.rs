//! What failed tests turned out to be, from what their reruns showed. Pure.

use super::known::Known;
use crate::args::CheckGate;
use crate::exit::Exit;
use flakefarm_coordinator::report::{TestReport, Verdict};
use serde::Serialize;

/// The answer to one failed case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Answered {
    /// The test's id, or the case's own name if it is not one of this project.
    pub(super) id: String,
    /// The file that it is in, relative to the project's root, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
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
    /// What was known of it before this job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) known: Option<Known>,
    /// What the job said, its first line.
    pub(super) message: String,
    /// Why it could not be run, why it is in quarantine, or what it depends on.
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
    /// It is known to fail, and somebody answers for it.
    Quarantined,
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
            Answer::Quarantined => "quarantined",
        }
    }
}

/// What the reruns of one test showed: here, and before the change if that was asked.
pub(super) struct Shown<'a> {
    pub(super) here: &'a TestReport,
    /// `Some(None)`: it was asked, and the test is not there.
    pub(super) base: Option<Option<&'a TestReport>>,
}

/// Attempts and failures of a test alone, and in the orders of the job.
fn alone_and_among(report: &TestReport) -> ([u64; 2], [u64; 2]) {
    let (mut alone, mut among) = ([0, 0], [0, 0]);
    for count in &report.conditions {
        let of = if count.condition == "alone" { &mut alone } else { &mut among };
        of[0] += count.attempts;
        of[1] += count.failures;
    }
    (alone, among)
}

/// The answer to one test.
pub(super) fn answer(id: &str, message: &str, shown: &Shown<'_>) -> Answered {
    let report = shown.here;
    let (alone, among) = alone_and_among(report);
    let only_among_others = alone[1] == 0 && alone[0] > 0 && among[1] > 0;
    let answer = match report.verdict {
        // It passes alone and fails among others, in the order of the job: its result depends on them.
        _ if only_among_others => Answer::Flaky,
        Verdict::Flaky | Verdict::Fragile => Answer::Flaky,
        Verdict::Skipped => Answer::CouldNotRun,
        _ if report.attempts == 0 => Answer::CouldNotRun,
        _ if report.failures == 0 => Answer::NotReproduced,
        _ if report.failures < report.attempts => Answer::Flaky,
        _ => match shown.base {
            Some(Some(base)) if base.failures > 0 && base.failures < base.attempts => Answer::Flaky,
            Some(Some(base)) if base.failures > 0 => Answer::Before,
            Some(Some(_) | None) | None => Answer::Broken,
        },
    };
    let company = only_among_others.then(|| {
        format!(
            "it passes alone ({} reruns), and fails in the order of the job ({} of {})",
            alone[0], among[1], among[0]
        )
    });
    let reason = (answer == Answer::CouldNotRun).then(|| match report.verdict {
        Verdict::Skipped => "the reruns skipped it".to_owned(),
        _ => "no rerun said anything about it".to_owned(),
    });
    Answered {
        id: id.to_owned(),
        file: file_of(id),
        answer,
        attempts: report.attempts,
        failures: report.failures,
        rate: report.rate.as_ref().map(|rate| [rate.lower, rate.upper]),
        base: shown.base.flatten().map(|base| [base.attempts, base.failures]),
        known: None,
        message: first_line(message),
        // A sweep of it alone would show nothing: what looks for its company does.
        reproduce: match &company {
            Some(_) => Some(format!("flakefarm diagnose {}", shell_words::quote(id))),
            None => (report.failures > 0).then(|| report.reproduce.clone()),
        },
        reason: reason.or(company),
    }
}

/// A case that no rerun was made of: one that nothing could be found out about, or that needs none.
pub(super) fn without_reruns(id: &str, answer: Answer, message: &str, reason: &str) -> Answered {
    Answered {
        id: id.to_owned(),
        file: file_of(id),
        answer,
        attempts: 0,
        failures: 0,
        rate: None,
        base: None,
        known: None,
        message: first_line(message),
        reason: Some(reason.to_owned()),
        reproduce: None,
    }
}

/// The file of a test's id; of a file, itself. What is not a test of this project is in no file of it.
fn file_of(id: &str) -> Option<String> {
    let (file, is_test) = id.split_once("::").map_or((id, false), |(file, _)| (file, true));
    (is_test || file.ends_with(".py")).then(|| file.to_owned())
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim().chars().take(200).collect()
}

/// Whether such an answer makes the job fail.
pub(super) fn fails(answer: Answer, gates: &[CheckGate]) -> bool {
    match answer {
        Answer::Broken => gates.contains(&CheckGate::Broken),
        Answer::Flaky => gates.contains(&CheckGate::Flaky),
        Answer::Before => gates.contains(&CheckGate::Before),
        Answer::NotReproduced => gates.contains(&CheckGate::NotReproduced),
        Answer::CouldNotRun | Answer::Quarantined => false,
    }
}

/// What is to be said of tests that were run fewer times than `asked`, since the others decide what the job does.
pub(super) fn ended_early(answers: &[Answered], asked: u64) -> Option<String> {
    let open = |answered: &&Answered| {
        answered.answer == Answer::NotReproduced && answered.attempts > 0 && answered.attempts < asked
    };
    let tests: Vec<&str> = answers.iter().filter(open).map(|answered| answered.id.as_str()).collect();
    let (first, others) = tests.split_first()?;
    let others = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
    Some(format!(
        "reruns ended once it was clear what the job does: {first}{others} had fewer than {asked}, and perhaps none in \
         the order of the job"
    ))
}

/// What the answers mean for the job.
pub(super) fn exit(answers: &[Answered], gates: &[CheckGate]) -> Exit {
    if answers.iter().any(|answered| fails(answered.answer, gates)) {
        Exit::GateFailed
    } else if answers.iter().any(|answered| answered.answer == Answer::CouldNotRun) {
        Exit::Inconclusive
    } else {
        Exit::Clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_early_is_said() {
        let answered =
            |id: &str, answer, attempts| Answered { attempts, ..without_reruns(id, answer, "", "") };
        let whole = [answered("a", Answer::NotReproduced, 20), answered("b", Answer::Broken, 5)];
        assert_eq!(ended_early(&whole, 20), None);
        let open = [answered("a", Answer::NotReproduced, 3), answered("c", Answer::NotReproduced, 4)];
        let said = ended_early(&open, 20).unwrap_or_default();
        assert!(said.contains("a and 1 more had fewer than 20"), "{said}");
    }
}
