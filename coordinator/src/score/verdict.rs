//! What is known of one test, and why we stopped.

use crate::experiment::{
    Answers, ConditionCount, Ledger, Observation, Question, Record, Verdict, WorldsSeen,
};
use crate::score::category::{Category, Finding, categorise};
use crate::score::durations::{DurationSummary, summarise};
use crate::score::elsewhere::Elsewhere;
use crate::score::interval::{RateEstimate, rate_interval};
use crate::score::ranking::{SignatureCount, score, signatures};
use crate::score::reasons::{Case, Outcomes};
use flakefarm_shared::TestId;
use serde::{Deserialize, Serialize};

/// What is known of one test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// The verdict.
    pub verdict: Verdict,
    /// Passes and failures in plain runs; skips are not attempts.
    pub attempts: u32,
    /// Failures in plain runs.
    pub failures: u32,
    /// Skips in plain runs.
    pub skips: u32,
    /// The failure rate of plain runs.
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

/// What the ledger proves about `test`. `answers` are those of the same question and ledger, `worlds`
/// those of the same ledger.
pub fn assess(
    question: &Question,
    ledger: &Ledger,
    answers: &Answers,
    worlds: &WorldsSeen,
    test: &TestId,
) -> Assessment {
    let elsewhere = Elsewhere::read(ledger, worlds, test);
    let observations: Vec<&Observation> = ledger.plain(test).collect();
    let counts = Outcomes::of(&observations);
    let answer = answers.of(ledger, test);
    let conditions: Vec<ConditionCount> =
        ledger.counts(test).into_iter().filter(|count| worlds.counts(count.condition)).collect();
    let durations = summarise(&observations);
    let signatures = signatures(ledger.observations(test).iter().filter(|o| worlds.speaks(&o.treatment)));
    let observations = observations.as_slice();
    let case = Case { question, ledger, test, observations, counts, answer, conditions: &conditions };
    let (verdict, stopped_because) = match (elsewhere.verdict(), counts.passes, counts.failures) {
        (Some(different), ..) => different,
        (None, 1.., 1..) => (Verdict::Flaky, case.why_flaky()),
        (None, 0, failures @ 1..) => case.always_failed(failures),
        (None, 0, 0) if counts.skips > 0 => case.always_skipped(),
        (None, _, 0) => match case.never_failed() {
            (Verdict::Healthy, text) => {
                (Verdict::Healthy, format!("{text}{}", elsewhere.covered().unwrap_or_default()))
            }
            unsure => unsure,
        },
    };
    let attempts = counts.passes + counts.failures;
    let everywhere = elsewhere.everywhere();
    let may_flake = counts.failures == 0 && !matches!(verdict, Verdict::Skipped | Verdict::Flaky);
    Assessment {
        verdict,
        attempts,
        failures: counts.failures,
        skips: counts.skips,
        rate: rate_interval(counts.failures, attempts, question.confidence),
        score: score(everywhere.failures, everywhere.attempts, durations.as_ref(), &signatures),
        durations,
        stopped_because,
        older: answer.record,
        risk: may_flake.then_some(answer.risk),
        category: category(verdict, &elsewhere, ledger, test),
        conditions,
        signatures,
    }
}

/// What it depends on: an order, unless nothing but chance shows there, then a world.
fn category(verdict: Verdict, elsewhere: &Elsewhere, ledger: &Ledger, test: &TestId) -> Option<Finding> {
    let by_order = match verdict {
        Verdict::Flaky => categorise(ledger, test),
        Verdict::Fragile => None,
        Verdict::Healthy | Verdict::Broken | Verdict::Inconclusive | Verdict::Skipped => return None,
    };
    match by_order {
        Some(finding) if finding.category != Category::NonDeterministic => Some(finding),
        by_chance => elsewhere.finding().or(by_chance),
    }
}

#[cfg(test)]
mod tests;
