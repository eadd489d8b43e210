//! What is known of one test, and why we stopped.

use crate::plan::{Answers, ConditionCount, Ledger, Question, Record};
use crate::score::category::{Finding, categorise};
use crate::score::durations::{DurationSummary, summarise};
use crate::score::interval::{RateEstimate, rate_interval};
use crate::score::ranking::{SignatureCount, score, signatures};
use crate::score::reasons::{Case, Outcomes};
use flakefarm_shared::TestId;
use serde::{Deserialize, Serialize};

/// What is known of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No failure in as many runs as were asked for.
    Healthy,
    /// A pass and a failure on one snapshot, under treatments that differ in order at most.
    Flaky,
    /// Fails only under a stress condition.
    Fragile,
    /// Failed every time, often enough.
    Broken,
    /// Too few runs, or none.
    Inconclusive,
    /// Skipped every time.
    Skipped,
}

impl Verdict {
    /// The stable word used in reports.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Healthy => "healthy",
            Verdict::Flaky => "flaky",
            Verdict::Fragile => "fragile",
            Verdict::Broken => "broken",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Skipped => "skipped",
        }
    }
}

/// What is known of one test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// The verdict.
    pub verdict: Verdict,
    /// Passes and failures; skips are not attempts.
    pub attempts: u32,
    /// Failures.
    pub failures: u32,
    /// Skips.
    pub skips: u32,
    /// The failure rate.
    pub rate: RateEstimate,
    /// From 0 to 1, to rank tests.
    pub score: f64,
    /// Durations, if it ever ran.
    pub durations: Option<DurationSummary>,
    /// Why we stopped and what is proved.
    pub stopped_because: String,
    /// Conditions in which it passed or failed.
    pub conditions: Vec<ConditionCount>,
    /// Its failures by what they look like, the most frequent first.
    pub signatures: Vec<SignatureCount>,
    /// What it depends on, if that shows.
    pub category: Option<Finding>,
    /// What earlier sweeps saw of it, if the verdict rests on that too.
    pub older: Option<Record>,
    /// Of a test that never failed: the probability that it flakes at the question's rate or above.
    pub risk: Option<f64>,
}

/// What the ledger proves about `test`. `answers` are those of the same question and ledger.
pub fn assess(question: &Question, ledger: &Ledger, answers: &Answers, test: &TestId) -> Assessment {
    let observations = ledger.observations(test);
    let counts = Outcomes::of(observations);
    let answer = answers.of(question, ledger, test);
    let conditions = ledger.counts(test);
    let durations = summarise(observations);
    let signatures = signatures(observations);
    let case = Case { question, ledger, test, observations, counts, answer, conditions: &conditions };
    let (verdict, stopped_because) = match (counts.passes, counts.failures) {
        (1.., 1..) => (Verdict::Flaky, case.why_flaky()),
        (0, failures @ 1..) => case.always_failed(failures),
        (0, 0) if counts.skips > 0 => case.always_skipped(),
        (_, 0) => case.never_failed(),
    };
    let attempts = counts.passes + counts.failures;
    Assessment {
        verdict,
        attempts,
        failures: counts.failures,
        skips: counts.skips,
        rate: rate_interval(counts.failures, attempts, question.confidence),
        score: score(counts.failures, attempts, durations.as_ref(), &signatures),
        durations,
        stopped_because,
        older: answer.record,
        risk: (counts.failures == 0 && verdict != Verdict::Skipped).then_some(answer.risk),
        category: if verdict == Verdict::Flaky { categorise(ledger, test) } else { None },
        conditions,
        signatures,
    }
}

#[cfg(test)]
mod tests;
