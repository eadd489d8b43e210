//! What a repair found and proved, for people and as JSON.

use super::candidates::{Candidate, Proposed};
use crate::exit::Complaint;
use flakefarm_coordinator::report::compared::{ComparedArm, Comparison};
use flakefarm_coordinator::report::{Report, TestReport};
use serde::Serialize;
use std::fmt::Write as _;

/// Changes that are listed for people; the rest is counted.
const LISTED: usize = 20;

/// All of it; `flakefarm.repair/v1`.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    schema: &'static str,
    project: String,
    /// The revision that the tests were right for.
    base: Option<String>,
    /// What changed in the code since.
    changes: Vec<String>,
    /// Why tests are flaky: test and category.
    causes: Vec<(String, String)>,
    notes: Vec<String>,
    pub(super) proposals: Vec<ToldProposal>,
    /// Proposals that were not tried for want of attempts.
    pub(super) left_out: u32,
    pub(super) applied: bool,
}

/// One proposal.
#[derive(Debug, Serialize)]
pub(super) struct ToldProposal {
    strategy: String,
    explanation: String,
    diff: String,
    /// What the gates object to: then it was not tried.
    violations: Vec<String>,
    /// Whether the way back leads to where it began.
    inverse: Option<bool>,
    /// Whether something had to be made up.
    assumes: bool,
    outcome: Outcome,
    tests: Vec<ToldTest>,
}

/// How one test fared.
#[derive(Debug, Serialize)]
struct ToldTest {
    id: String,
    comparison: Comparison,
}

/// What became of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// Every test that failed is fixed, and no other fails.
    Proved,
    /// Some test is not.
    NotProved,
    /// The budget ended first.
    Undecided,
    /// No test failed without it.
    NothingFails,
    /// The gates refused it.
    Refused,
}

impl Outcome {
    /// What the experiment says.
    pub(super) fn of(report: &Report) -> Self {
        let answers: Vec<&Comparison> =
            report.tests.iter().filter_map(|test| test.comparison.as_deref()).collect();
        let never = |comparison: &&Comparison| comparison.why.as_deref() == Some("never_failed");
        if answers.is_empty() || answers.iter().all(never) {
            Outcome::NothingFails
        } else if answers.iter().any(|comparison| comparison.answer == "undecided") {
            Outcome::Undecided
        } else if answers.iter().all(|comparison| comparison.answer == "fixed") {
            Outcome::Proved
        } else {
            Outcome::NotProved
        }
    }

    fn words(self) -> &'static str {
        match self {
            Outcome::Proved => "proved",
            Outcome::NotProved => "not proved",
            Outcome::Undecided => "undecided within the budget",
            Outcome::NothingFails => "no test fails without it",
            Outcome::Refused => "refused by the gates",
        }
    }
}

impl ToldProposal {
    pub(super) fn refused(candidate: &Candidate) -> Self {
        Self::new(candidate, Outcome::Refused, Vec::new())
    }

    pub(super) fn tried(candidate: &Candidate, outcome: Outcome, report: &Report) -> Self {
        let told = |test: &TestReport| {
            Some(ToldTest { id: test.id.clone(), comparison: test.comparison.as_deref()?.clone() })
        };
        Self::new(candidate, outcome, report.tests.iter().filter_map(told).collect())
    }

    fn new(candidate: &Candidate, outcome: Outcome, tests: Vec<ToldTest>) -> Self {
        Self {
            strategy: candidate.strategy.clone(),
            explanation: candidate.explanation.clone(),
            diff: candidate.diff.clone(),
            violations: candidate.violations.iter().map(ToString::to_string).collect(),
            inverse: candidate.inverse,
            assumes: candidate.assumes,
            outcome,
            tests,
        }
    }

    fn human(&self, text: &mut String) {
        let _infallible =
            writeln!(text, "{}: {} ({})", self.outcome.words(), self.explanation, self.strategy);
        for violation in &self.violations {
            let _infallible = writeln!(text, "  {violation}");
        }
        match self.inverse {
            Some(true) => {
                text.push_str("  nothing else is changed: the change back leads to the tests as they were\n")
            }
            Some(false) => {
                text.push_str("  the change back does not lead to the tests as they were: look at the diff\n")
            }
            None => {}
        }
        for test in self.tests.iter().take(LISTED) {
            let comparison = &test.comparison;
            let counts = |arm: &Option<ComparedArm>| {
                arm.as_ref().map_or_else(
                    || "never ran".to_owned(),
                    |arm| format!("{} of {}", arm.failures, arm.attempts),
                )
            };
            let upper = comparison
                .new_upper
                .map_or_else(String::new, |upper| format!(", now below {:.1} %", upper * 100.0));
            let _infallible = writeln!(
                text,
                "  {}: {}; failed {} before, {} after{upper}",
                test.id,
                comparison.answer.replace('_', " "),
                counts(&comparison.before),
                counts(&comparison.after),
            );
            for neighbour in &comparison.neighbours {
                let _infallible = writeln!(text, "    {}: {}", neighbour.id, neighbour.state);
            }
        }
        if self.tests.len() > LISTED {
            let _infallible = writeln!(text, "  and {} more tests", self.tests.len() - LISTED);
        }
        if self.outcome != Outcome::NothingFails {
            text.push('\n');
            text.push_str(&self.diff);
            text.push('\n');
        }
    }
}

impl Told {
    pub(super) fn new(project: &str) -> Self {
        Self {
            schema: "flakefarm.repair/v1",
            project: project.to_owned(),
            base: None,
            changes: Vec::new(),
            causes: Vec::new(),
            notes: Vec::new(),
            proposals: Vec::new(),
            left_out: 0,
            applied: false,
        }
    }

    pub(super) fn changed(&mut self, base: &str, proposed: &Proposed) {
        self.base = Some(base.to_owned());
        self.changes.clone_from(&proposed.changes);
        self.notes.extend(proposed.notes.iter().cloned());
    }

    pub(super) fn diagnosed(&mut self, report: &Report, proposed: &Proposed) {
        self.notes.extend(proposed.notes.iter().cloned());
        let cause = |test: &TestReport| Some((test.id.clone(), test.cause.as_ref()?.category.clone()));
        self.causes.extend(report.tests.iter().filter_map(cause));
    }

    /// Whether there was nothing to mend.
    pub(super) fn nothing_fails(&self) -> bool {
        self.proposals.iter().any(|proposal| proposal.outcome == Outcome::NothingFails)
    }

    pub(super) fn json(&self) -> Result<String, Complaint> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    pub(super) fn human(&self) -> String {
        let mut text = String::new();
        if let Some(base) = &self.base
            && !self.changes.is_empty()
        {
            let _infallible = writeln!(text, "since {base}:");
            for change in self.changes.iter().take(LISTED) {
                let _infallible = writeln!(text, "  {change}");
            }
            if self.changes.len() > LISTED {
                let _infallible = writeln!(text, "  and {} more changes", self.changes.len() - LISTED);
            }
        }
        for (test, category) in &self.causes {
            let _infallible = writeln!(text, "{test}: {}", category.replace('_', " "));
        }
        for note in &self.notes {
            let _infallible = writeln!(text, "note: {note}");
        }
        if !text.is_empty() {
            text.push('\n');
        }
        for proposal in &self.proposals {
            proposal.human(&mut text);
        }
        if self.left_out > 0 {
            let _infallible =
                writeln!(text, "{} further proposals were not tried (--attempts)", self.left_out);
        }
        let proved = self.proposals.iter().any(|proposal| proposal.outcome == Outcome::Proved);
        text.push_str(match (proved, self.applied) {
            (true, true) => "The change is written into the work tree.\n",
            (true, false) => "Nothing was written; --apply writes what is proved.\n",
            (false, _) if self.nothing_fails() => "Nothing fails: there is nothing to repair.\n",
            (false, _) if self.proposals.is_empty() => {
                "Nothing is proposed: neither the change of the code nor the cause of a failure says what to do.\n"
            }
            (false, _) => "No proposal is proved; nothing was written.\n",
        });
        text
    }
}
