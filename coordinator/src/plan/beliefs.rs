//! What is believed of each test before and while it runs: the spread of failure rates, fitted to
//! what the project's tests did, shifted for each test by what its source, its neighbours and its
//! past say. Beliefs decide where runs go and what the suite's guarantee costs; they never make a
//! test flaky.

use super::costs::Costs;
use crate::experiment::{Flaked, History, Ledger, Question, RunCounts};
use crate::score::FailureRates;
use flakefarm_shared::Risk;
use std::collections::{BTreeMap, HashMap};

/// Beliefs are told apart in steps of this factor of the odds, over this range of steps.
const STEP: f64 = 1.5;
const STEPS: std::ops::RangeInclusive<i32> = -3..=8;
/// Most that risks in the source shift the odds.
const RISKS_AT_MOST: f64 = 6.0;
/// What a flake in an earlier version of a test does to its odds.
const FLAKED_BEFORE: f64 = 5.0;
/// Share of tests that are seen to flake on average, worth so many neighbours; and how far neighbours
/// shift the odds.
const NEIGHBOURS_FLAKE: f64 = 0.02;
const NEIGHBOURS_BELIEVED: f64 = 20.0;
const NEIGHBOURS_AT_MOST: f64 = 4.0;

/// Slow tests flake more often: odds grow with this power of the duration, within limits. Google (2017)
/// saw 0.5 % of small tests flake, 1.6 % of medium and 14 % of large ones.
const SLOW_FLAKE_MORE: f64 = 0.3;
const SLOW_AT_MOST: f64 = 6.0;
/// Durations below this say nothing.
const LEAST_SECONDS: f64 = 0.001;

/// How a risk in its source shifts the odds of a test: a judgement after the shares of causes that
/// were published (Luo et al. 2014, Gruber et al. 2021), deliberately mild.
fn odds(risk: Risk) -> f64 {
    match risk {
        Risk::Network => 3.0,
        Risk::Concurrency => 2.5,
        Risk::Sleep | Risk::Randomness => 2.0,
        Risk::Clock | Risk::Unordered | Risk::Subprocess | Risk::SharedState => 1.5,
        Risk::TemporaryFiles => 1.2,
        Risk::Unknown => 1.0,
    }
}

/// What is believed of each test.
pub(super) struct Beliefs {
    /// By place in the ledger.
    class: Vec<u8>,
    classes: Vec<Belief>,
}

/// One spread of failure rates, tabulated for numbers of clean runs from 0 to the classical one.
pub(super) struct Belief {
    pub(super) rates: FailureRates,
    /// Probability of flaking at the question's rate or above, and passing so many runs.
    pub(super) missed: Vec<f64>,
    /// Probability that one more run is the first to fail, whatever the rate: a flake that is seen is
    /// worth as much below the question's rate as above it.
    pub(super) gain: Vec<f64>,
}

impl Beliefs {
    pub(super) fn form(question: &Question, ledger: &Ledger, history: &History, costs: &Costs<'_>) -> Self {
        let rates = FailureRates::fitted(&counts(ledger, history));
        let mut factors = factors(ledger, history);
        for (factor, slow) in factors.iter_mut().zip(slowness(ledger.tests().len(), costs)) {
            *factor *= slow;
        }
        let mean = if factors.is_empty() { 1.0 } else { factors.iter().sum::<f64>() / factors.len() as f64 };
        let step = |factor: f64| {
            let step = (factor / mean).ln() / STEP.ln();
            (step.round() as i32).clamp(*STEPS.start(), *STEPS.end())
        };
        let class = factors
            .iter()
            .map(|factor| u8::try_from(step(*factor) - STEPS.start()).expect("a dozen steps"))
            .collect();
        let most = question.most_runs();
        let classes =
            STEPS.map(|step| Belief::new(rates.with_odds(STEP.powi(step)), question, most)).collect();
        Self { class, classes }
    }

    /// What is believed of the test at `place`.
    pub(super) fn of(&self, place: usize) -> &Belief {
        &self.classes[usize::from(self.class[place])]
    }
}

impl Belief {
    fn new(rates: FailureRates, question: &Question, most: u32) -> Self {
        let missed: Vec<f64> =
            (0..=most + 1).map(|clean| rates.missed(question.max_flake_rate, f64::from(clean))).collect();
        let gain = (0..=most).map(|clean| rates.first_failure_next(f64::from(clean))).collect();
        Self { rates, missed, gain }
    }

    /// [`Self::missed`] after any number of runs, whole ones from the table.
    pub(super) fn missed_after(&self, clean: f64) -> f64 {
        let place = (clean as usize).min(self.missed.len() - 1);
        self.missed[place]
    }
}

/// How often tests failed in how many runs: before, and in this sweep.
fn counts(ledger: &Ledger, history: &History) -> Vec<RunCounts> {
    let mut counts: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    for known in history.spread() {
        *counts.entry((known.attempts, known.failures)).or_default() += known.tests;
    }
    for place in 0..ledger.tests().len() {
        let tally = ledger.tally_of(place);
        if tally.attempts() > 0 {
            *counts.entry((tally.attempts(), tally.failures)).or_default() += 1;
        }
    }
    let entry = |((attempts, failures), tests)| RunCounts { attempts, failures, tests };
    counts.into_iter().map(entry).collect()
}

/// By how much the duration of each test shifts its odds, against the typical test of the suite.
fn slowness(tests: usize, costs: &Costs<'_>) -> Vec<f64> {
    let logs: Vec<f64> = (0..tests).map(|place| costs.seconds_at(place).max(LEAST_SECONDS).ln()).collect();
    let typical = logs.iter().sum::<f64>() / tests.max(1) as f64;
    let shift = |log: f64| (SLOW_FLAKE_MORE * (log - typical)).exp();
    logs.into_iter().map(|log| shift(log).clamp(1.0 / SLOW_AT_MOST, SLOW_AT_MOST)).collect()
}

/// By how much the odds of each test to be flaky differ from those of one of which nothing is known.
fn factors(ledger: &Ledger, history: &History) -> Vec<f64> {
    let flaky = |place: usize| {
        let tally = ledger.tally_of(place);
        tally.passes > 0 && tally.failures > 0
            || history.of(&ledger.tests()[place]).is_some_and(|known| known.flaked == Flaked::Once)
    };
    let mut files: HashMap<&str, (f64, f64)> = HashMap::new();
    for place in 0..ledger.tests().len() {
        let (tests, flakes) = files.entry(ledger.file_at(place)).or_default();
        *tests += 1.0;
        *flakes += f64::from(u8::from(flaky(place)));
    }
    let factor = |(place, test)| {
        let (tests, flakes) = files[ledger.file_at(place)];
        let own = f64::from(u8::from(flaky(place)));
        let share =
            (flakes - own + NEIGHBOURS_BELIEVED * NEIGHBOURS_FLAKE) / (tests - 1.0 + NEIGHBOURS_BELIEVED);
        let mut factor = (share / NEIGHBOURS_FLAKE).clamp(1.0 / NEIGHBOURS_AT_MOST, NEIGHBOURS_AT_MOST);
        if let Some(known) = history.of(test) {
            let risks: f64 = known.risks.iter().map(|risk| odds(*risk)).product();
            factor *= risks.min(RISKS_AT_MOST);
            if known.flaked == Flaked::Once {
                factor *= FLAKED_BEFORE;
            }
        }
        factor
    };
    ledger.tests().iter().enumerate().map(factor).collect()
}
