//! What a repair found and proved, for people and as JSON.

use super::beside::{StillFailing, ToldOracle, ToldRegression};
use super::candidates::{Candidate, Proposed};
use crate::exit::Complaint;
use flakefarm_coordinator::report::compared::{ComparedArm, Comparison};
use flakefarm_coordinator::report::{Report, TestReport};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Changes that are listed for people; the rest is counted.
const LISTED: usize = 20;

/// All of it; `flakefarm.repair/v1`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Told {
    schema: String,
    project: String,
    /// What this repair is recorded as.
    #[serde(default)]
    pub(super) session: Option<String>,
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
    /// No test fails.
    #[serde(default)]
    nothing_fails: bool,
    /// A budget ended before all was looked at.
    #[serde(default)]
    out_of_budget: bool,
    /// What a provider was asked, and what it cost.
    #[serde(default)]
    pub(super) provider: Option<String>,
    /// Whether it is written into the work tree.
    pub(super) applied: bool,
    /// The branch that it is committed on, and the commit.
    #[serde(default)]
    pub(super) branch: Option<(String, String)>,
    /// What could be expected instead: never applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) oracles: Vec<ToldOracle>,
    /// Code that does something else, by what it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) regressions: Vec<ToldRegression>,
}

/// One proposal.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    /// How sure it is to be what was meant: 0 to 1. What is below the threshold is not written by itself.
    #[serde(default)]
    confidence: f64,
    outcome: Outcome,
    tests: Vec<ToldTest>,
    /// Whether the repaired tests can still fail, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    still_fails: Option<StillFailing>,
}

/// How one test fared.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    /// Whether the tests can still fail, where that was asked.
    pub(super) still_fails: Option<StillFailing>,
}

impl Proof {
    /// The tests that it mends.
    pub(super) fn mended(&self) -> Vec<String> {
        self.tests.iter().filter(|test| test.answer == "fixed").map(|test| test.id.clone()).collect()
    }

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
        let tests = report.tests.iter().filter_map(told).collect();
        Self { outcome: Outcome::of(report), tests, still_fails: None }
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
        Self { outcome, tests, still_fails: None }
    }

    pub(super) fn is_proved(&self) -> bool {
        self.outcome == Outcome::Proved
    }

    /// Whether it says something of a test.
    pub(super) fn tells_of(&self, id: &str) -> bool {
        self.tests.iter().any(|test| test.id == id)
    }

    /// A test beside those that were asked about passed without the change and fails with it.
    pub(super) fn made_worse(&mut self, now: &TestReport, was: Option<&TestReport>) {
        self.outcome = Outcome::NotProved;
        self.tests.push(ToldTest {
            id: now.id.clone(),
            answer: "made_worse".to_owned(),
            before: was.map(|was| (was.failures, was.attempts)),
            after: Some((now.failures, now.attempts)),
            new_upper: None,
        });
    }

    /// Why it is no proof, for whoever proposes the next one.
    pub(super) fn objections(&self) -> Vec<String> {
        let mut objections: Vec<String> = self
            .tests
            .iter()
            .filter(|test| test.answer != "fixed")
            .take(LISTED)
            .map(|test| {
                let (failures, runs) = test.after.unwrap_or_default();
                format!(
                    "{}: {}; with the change it failed {failures} of {runs} runs",
                    test.id,
                    test.answer.replace('_', " ")
                )
            })
            .collect();
        if self.outcome == Outcome::AsksLess {
            objections.push("the test notices less of what may go wrong in the code than before".to_owned());
        }
        if self.tests.is_empty() && self.outcome == Outcome::NotProved {
            objections.push("with the change, no test could be run".to_owned());
        }
        objections
    }

    /// The budget ended first.
    pub(super) fn undecided() -> Self {
        Self { outcome: Outcome::Undecided, tests: Vec::new(), still_fails: None }
    }

    /// With the change nothing ran.
    pub(super) fn nothing_ran() -> Self {
        Self { outcome: Outcome::NotProved, tests: Vec::new(), still_fails: None }
    }
}

/// What became of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The repaired tests notice less of what may go wrong in the code.
    AsksLess,
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
            Outcome::AsksLess => "refused: the repaired tests would ask less",
        }
    }
}

impl ToldProposal {
    pub(super) fn refused(candidate: &Candidate, confidence: f64) -> Self {
        Self::new(candidate, confidence, Outcome::Refused, Vec::new(), None)
    }

    pub(super) fn tried(candidate: &Candidate, confidence: f64, proof: Proof) -> Self {
        Self::new(candidate, confidence, proof.outcome, proof.tests, proof.still_fails)
    }

    /// What a provider said, if that was no proposal.
    pub(super) fn nonsense(strategy: &str, why: &str) -> Self {
        Self {
            strategy: strategy.to_owned(),
            explanation: "the provider's answer".to_owned(),
            diff: String::new(),
            violations: vec![why.to_owned()],
            inverse: None,
            assumes: false,
            confidence: 0.0,
            outcome: Outcome::Refused,
            tests: Vec::new(),
            still_fails: None,
        }
    }

    fn new(
        candidate: &Candidate,
        confidence: f64,
        outcome: Outcome,
        tests: Vec<ToldTest>,
        still_fails: Option<StillFailing>,
    ) -> Self {
        Self {
            strategy: candidate.strategy.clone(),
            explanation: candidate.explanation.clone(),
            diff: candidate.diff.clone(),
            violations: candidate.violations.iter().map(ToString::to_string).collect(),
            inverse: candidate.inverse,
            assumes: candidate.assumes,
            confidence,
            outcome,
            tests,
            still_fails,
        }
    }

    /// Whether it mends too few of the tests that it was tried on, and harms none.
    fn falls_short(&self) -> bool {
        self.outcome == Outcome::NotProved
            && !self.tests.is_empty()
            && self.tests.iter().all(|test| test.answer != "made_worse")
    }

    /// How many tests it mends of how many, where that is not all and it harms none.
    fn mends_some(&self) -> Option<(usize, usize)> {
        let mended = self.tests.iter().filter(|test| test.answer == "fixed").count();
        (self.falls_short() && mended > 0).then_some((mended, self.tests.len()))
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
        if let Some((mended, asked)) = self.mends_some() {
            let _infallible = writeln!(
                text,
                "  it mends {mended} of {asked}: it can be proved for those alone, if they are named"
            );
        }
        if let Some(still) = &self.still_fails {
            still.human(text);
        }
        if self.outcome == Outcome::Proved {
            let _infallible =
                writeln!(text, "  confidence that it is what was meant: {:.2}", self.confidence);
        }
        if self.outcome != Outcome::NothingFails && !self.diff.is_empty() {
            text.push('\n');
            text.push_str(&self.diff);
            text.push('\n');
        }
    }
}

/// The tests that proposals mend, each once.
fn fixed<'a>(proposals: impl Iterator<Item = &'a ToldProposal>) -> BTreeSet<String> {
    let tests = proposals.flat_map(|proposal| &proposal.tests);
    tests.filter(|test| test.answer == "fixed").map(|test| test.id.clone()).collect()
}

impl Told {
    pub(super) fn new(project: &str) -> Self {
        Self {
            schema: "flakefarm.repair/v1".to_owned(),
            project: project.to_owned(),
            session: None,
            base: None,
            changes: Vec::new(),
            causes: Vec::new(),
            notes: Vec::new(),
            proposals: Vec::new(),
            left_out: 0,
            nothing_fails: false,
            out_of_budget: false,
            provider: None,
            applied: false,
            branch: None,
            oracles: Vec::new(),
            regressions: Vec::new(),
        }
    }

    /// There is no earlier revision to compare with.
    pub(super) fn no_base(&mut self) {
        let note = "there is no earlier revision to compare with: --base REV names one, and tests that are named are diagnosed";
        if !self.notes.iter().any(|known| known == note) {
            self.notes.push(note.to_owned());
        }
    }

    pub(super) fn changed(&mut self, base: &str, proposed: &Proposed) {
        self.base = Some(base.to_owned());
        self.changes.clone_from(&proposed.changes);
        self.note(proposed);
    }

    /// A repair that goes on notes the same again.
    fn note(&mut self, proposed: &Proposed) {
        for note in &proposed.notes {
            if !self.notes.contains(note) {
                self.notes.push(note.clone());
            }
        }
    }

    pub(super) fn diagnosed(&mut self, report: &Report, proposed: &Proposed) {
        self.note(proposed);
        let cause = |test: &TestReport| Some((test.id.clone(), test.cause.as_ref()?.category.clone()));
        self.causes = report.tests.iter().filter_map(cause).collect();
    }

    /// The patch that follows the code and harms no test, and does not mend all of them.
    pub(super) fn follows_in_part(&self) -> Option<String> {
        let follows = |proposal: &&ToldProposal| proposal.inverse.is_some() && proposal.falls_short();
        self.proposals.iter().find(follows).map(|proposal| proposal.diff.clone())
    }

    /// The tests that an experiment showed to be mended by some proposal.
    pub(super) fn mended_by_any(&self) -> BTreeSet<String> {
        fixed(self.proposals.iter())
    }

    /// What changed in the code.
    pub(super) fn changes(&self) -> &[String] {
        &self.changes
    }

    /// Notes that no test fails.
    pub(super) fn found_nothing_failing(&mut self) {
        self.nothing_fails = true;
    }

    fn has(&self, outcome: Outcome) -> bool {
        self.proposals.iter().any(|proposal| proposal.outcome == outcome)
    }

    /// Whether something is proved.
    pub(super) fn is_proved(&self) -> bool {
        self.has(Outcome::Proved)
    }

    /// Whether a budget ended before something was known.
    pub(super) fn is_undecided(&self) -> bool {
        self.out_of_budget || self.has(Outcome::Undecided)
    }

    /// Notes that a budget ended before all was looked at.
    pub(super) fn ran_out_of_budget(&mut self) {
        self.out_of_budget = true;
    }

    /// What the proved proposals do, a sentence each.
    pub(super) fn proved_explanations(&self) -> Vec<&str> {
        let proved = self.proposals.iter().filter(|proposal| proposal.outcome == Outcome::Proved);
        proved.map(|proposal| proposal.explanation.as_str()).collect()
    }

    /// Tests that are fixed.
    pub(super) fn mended(&self) -> Vec<String> {
        fixed(self.proposals.iter().filter(|proposal| proposal.outcome == Outcome::Proved))
            .into_iter()
            .collect()
    }

    /// Whether there was nothing to mend.
    pub(super) fn nothing_fails(&self) -> bool {
        self.nothing_fails || self.proposals.iter().any(|proposal| proposal.outcome == Outcome::NothingFails)
    }

    pub(super) fn json(&self) -> Result<String, Complaint> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// What was found and proved, without what to do next.
    pub(super) fn findings(&self) -> String {
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
        self.oracles.iter().for_each(|oracle| oracle.human(&mut text));
        self.regressions.iter().for_each(|regression| regression.human(&mut text));
        if self.left_out > 0 {
            let _infallible =
                writeln!(text, "{} further proposals were not tried (--attempts)", self.left_out);
        }
        if let Some(provider) = &self.provider {
            let _infallible = writeln!(text, "provider: {provider}");
        }
        text
    }

    pub(super) fn human(&self) -> String {
        let mut text = self.findings();
        let proved = self.is_proved();
        let last = match (proved, self.applied, &self.branch) {
            (true, true, _) => "The change is written into the work tree.".to_owned(),
            (true, false, Some((branch, commit))) => {
                format!("The change is committed on {branch} ({}).", commit.get(..10).unwrap_or(commit))
            }
            (true, false, None) => "Nothing was written; --apply writes what is proved.".to_owned(),
            (false, ..) if self.nothing_fails() => "Nothing fails: there is nothing to repair.".to_owned(),
            (false, ..) if self.is_undecided() => "The budget ended before anything was proved.".to_owned(),
            (false, ..) if self.proposals.is_empty() => {
                "Nothing is proposed: neither the change of the code nor the cause of a failure says what to do."
                    .to_owned()
            }
            (false, ..) => "No proposal is proved; nothing was written.".to_owned(),
        };
        text.push_str(&last);
        text.push('\n');
        if let (true, Some(session)) = (proved, &self.session) {
            let next = if self.applied || self.branch.is_some() {
                format!("flakefarm repair --undo {session} takes it back")
            } else {
                format!("flakefarm repair --resume {session} --apply writes it without proving it again")
            };
            let _infallible = writeln!(text, "{next}.");
        }
        text
    }
}
