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
pub(super) struct ToldTest {
    id: String,
    /// `fixed`, `improved`, `not_shown`, `made_worse`, `undecided`.
    answer: String,
    /// Failures and runs without the change; absent where it could not be run at all.
    before: Option<(u64, u64)>,
    /// The same with it.
    after: Option<(u64, u64)>,
    /// The new failure rate is below this, at the confidence that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    new_upper: Option<f64>,
}

/// What an experiment showed of a proposal.
pub(super) struct Proof {
    pub(super) outcome: Outcome,
    tests: Vec<ToldTest>,
}

impl Proof {
    /// Of two arms that ran in turns.
    pub(super) fn of_comparison(report: &Report) -> Self {
        let counts = |arm: &Option<ComparedArm>| arm.as_ref().map(|arm| (arm.failures, arm.attempts));
        let told = |test: &TestReport| {
            let comparison = test.comparison.as_deref()?;
            Some(ToldTest {
                id: test.id.clone(),
                answer: comparison.answer.clone(),
                before: counts(&comparison.before),
                after: counts(&comparison.after),
                new_upper: comparison.new_upper,
            })
        };
        Self { outcome: Outcome::of(report), tests: report.tests.iter().filter_map(told).collect() }
    }

    /// Of a sweep without the change and one with it. What fails with it although it passed without, or
    /// although it could not be run without, speaks against it.
    pub(super) fn of_sweeps(before: Option<&Report>, after: &Report) -> Self {
        let known = |id: &str| before.and_then(|report| report.tests.iter().find(|test| test.id == id));
        let counts = |test: &TestReport| (test.failures, test.attempts);
        let mut tests = Vec::new();
        let (mut mended, mut failing) = (false, !after.sweep.collection_errors.is_empty());
        for test in after.tests.iter().filter(|test| test.attempts > 0) {
            let was = known(&test.id);
            let failed_before = was.is_none_or(|was| was.failures > 0);
            let answer = match (failed_before, test.failures > 0) {
                (true, false) => "fixed",
                (true, true) => "not_shown",
                (false, true) => "made_worse",
                (false, false) => continue,
            };
            mended |= answer == "fixed";
            failing |= answer != "fixed";
            let (id, answer) = (test.id.clone(), answer.to_owned());
            tests.push(ToldTest {
                id,
                answer,
                before: was.map(counts),
                after: Some(counts(test)),
                new_upper: None,
            });
        }
        // A test that is there without the change and not with it is no mended one.
        let gone = |test: &&TestReport| test.attempts > 0 && !after.tests.iter().any(|now| now.id == test.id);
        for test in before.iter().flat_map(|report| &report.tests).filter(gone) {
            failing = true;
            let (id, answer) = (test.id.clone(), "made_worse".to_owned());
            tests.push(ToldTest { id, answer, before: Some(counts(test)), after: None, new_upper: None });
        }
        let outcome = match (mended, failing) {
            (true, false) => Outcome::Proved,
            (false, false) => Outcome::NothingFails,
            (_, true) => Outcome::NotProved,
        };
        Self { outcome, tests }
    }

    /// With the change nothing ran.
    pub(super) fn nothing_ran() -> Self {
        Self { outcome: Outcome::NotProved, tests: Vec::new() }
    }
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

    pub(super) fn tried(candidate: &Candidate, proof: Proof) -> Self {
        Self::new(candidate, proof.outcome, proof.tests)
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
        let counts = |counts: Option<(u64, u64)>| {
            counts.map_or_else(
                || "could not run".to_owned(),
                |(failures, runs)| format!("failed {failures} of {runs}"),
            )
        };
        for test in self.tests.iter().take(LISTED) {
            let upper =
                test.new_upper.map_or_else(String::new, |upper| format!(" (below {:.1} %)", upper * 100.0));
            let _infallible = writeln!(
                text,
                "  {}: {}; {} before, {} after{upper}",
                test.id,
                test.answer.replace('_', " "),
                counts(test.before),
                counts(test.after),
            );
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
