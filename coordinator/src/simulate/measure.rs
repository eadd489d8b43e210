//! Verdicts held against the truth.

use super::farm::Carried;
use super::population::{CALIBRATION_RATES, Nature, Population, TestModel};
use crate::experiment::{Answers, History, Question, Verdict, WorldsSeen};
use crate::plan::answers;
use crate::score::{Assessment, assess};
use serde::{Deserialize, Serialize};

/// Lower ends of the bands of true rates that recall is told by.
pub const BANDS: [f64; 7] = [0.0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.5];

/// Flaky tests, and how many of them were found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// All.
    pub tests: u64,
    /// Those with the verdict flaky, and those that flaked before and have not changed since.
    pub found: u64,
}

impl Found {
    pub(super) fn count(&mut self, found: bool) {
        self.tests += 1;
        self.found += u64::from(found);
    }

    fn add(&mut self, other: &Found) {
        self.tests += other.tests;
        self.found += other.found;
    }

    /// Share of those found; 1 if there is none to find.
    pub fn share(&self) -> f64 {
        if self.tests == 0 { 1.0 } else { self.found as f64 / self.tests as f64 }
    }

    /// Those that were not found.
    pub fn missed(&self) -> u64 {
        self.tests - self.found
    }
}

/// How often intervals covered the true rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// The true rate.
    pub rate: f64,
    /// Intervals.
    pub intervals: u64,
    /// Those that contain the true rate.
    pub cover: u64,
    /// Runs that they rest on.
    pub runs: u64,
}

/// What one or more sweeps found, against the truth.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Sweeps that are added up here.
    pub sweeps: u64,
    /// Tests.
    pub tests: u64,
    /// All flaky tests, whatever they depend on.
    pub flaky: Found,
    /// Flaky by chance, by band of the true rate; see [`BANDS`].
    pub by_rate: Vec<Found>,
    /// Flaky by order.
    pub by_order: Found,
    /// Flaky by chance at the asked rate or above.
    pub at_or_above: Found,
    /// Of those that were not found, those that were called healthy.
    pub called_healthy: u64,
    /// Sound, broken or skipped tests called flaky, and sound ones called broken.
    pub false_accusations: u64,
    /// Flaky tests that never passed and were called broken.
    pub called_broken: u64,
    /// Tests without a verdict.
    pub inconclusive: u64,
    /// By true rate: steady tests under 0, then [`CALIBRATION_RATES`].
    pub coverage: Vec<Coverage>,
    /// Runs of steady tests, all together, and how many steady tests there are.
    pub steady_runs: u64,
    /// Steady tests.
    pub steady: u64,
    /// Attempts, infrastructure errors not counted.
    pub attempts: u64,
    /// Samples.
    pub samples: u64,
    /// Infrastructure errors.
    pub infrastructure_errors: u64,
    /// Time in containers.
    pub container_seconds: f64,
    /// Time on the simulated clock.
    pub wall_seconds: f64,
    /// Plans made.
    pub rounds: u64,
}

impl Measured {
    /// What one sweep found.
    pub fn of(question: &Question, population: &Population, history: &History, carried: &Carried) -> Self {
        let ledger = &carried.ledger;
        let mut measured = Measured {
            sweeps: 1,
            tests: population.tests.len() as u64,
            by_rate: vec![Found::default(); BANDS.len()],
            coverage: std::iter::once(0.0)
                .chain(CALIBRATION_RATES)
                .map(|rate| Coverage { rate, ..Coverage::default() })
                .collect(),
            attempts: ledger.attempts(),
            samples: ledger.samples_total(),
            infrastructure_errors: ledger.infrastructure_errors(),
            container_seconds: ledger.container_seconds(),
            wall_seconds: carried.wall.as_secs_f64(),
            rounds: u64::from(carried.rounds),
            ..Measured::default()
        };
        let answers = answers(question, ledger, history);
        for test in &population.tests {
            measured.judge(question, test, &judged(question, carried, &answers, test));
        }
        measured
    }

    fn judge(&mut self, question: &Question, test: &TestModel, found: &Assessment) {
        // Known from an earlier night, and nothing changed since: it need not be seen again.
        let known = found.older.is_some_and(|older| older.failures > 0 && older.failures < older.attempts);
        let flaky = found.verdict == Verdict::Flaky || known;
        let true_rate = match &test.nature {
            Nature::Steady | Nature::Skips | Nature::Silent => {
                let accused = matches!(found.verdict, Verdict::Flaky | Verdict::Fragile | Verdict::Broken);
                self.false_accusations += u64::from(accused);
                Some(0.0)
            }
            Nature::Broken => {
                self.false_accusations += u64::from(flaky);
                None
            }
            Nature::Flakes(rate) | Nature::Crashes(rate) => {
                let band = BANDS.iter().rposition(|from| *rate >= *from).expect("rates are not negative");
                self.flaky.count(flaky);
                self.by_rate[band].count(flaky);
                if *rate >= question.max_flake_rate.get() {
                    self.at_or_above.count(flaky);
                    self.called_healthy += u64::from(found.verdict == Verdict::Healthy);
                    self.called_broken += u64::from(found.verdict == Verdict::Broken);
                }
                Some(*rate)
            }
            // The bench runs no panel: in the plain world the first is steady, the second broken.
            Nature::FailsUnder(_) | Nature::PassesUnder(_) => None,
            Nature::VictimOf(_) | Nature::Needs(_) | Nature::HangsInSuites => {
                self.flaky.count(flaky);
                self.by_order.count(flaky);
                None
            }
        };
        if test.nature == Nature::Steady {
            self.steady += 1;
            self.steady_runs += u64::from(found.attempts);
        }
        self.inconclusive +=
            u64::from(found.verdict == Verdict::Inconclusive && test.nature != Nature::Silent);
        let place = self.coverage.iter().position(|row| Some(row.rate) == true_rate);
        if let (Some(place), 1..) = (place, found.attempts) {
            let (rate, row) = (self.coverage[place].rate, &mut self.coverage[place]);
            row.intervals += 1;
            row.runs += u64::from(found.attempts);
            row.cover += u64::from((found.rate.lower..=found.rate.upper).contains(&rate));
        }
    }

    /// Adds up sweeps.
    pub fn add(&mut self, other: &Measured) {
        if self.sweeps == 0 {
            *self = other.clone();
            return;
        }
        self.sweeps += other.sweeps;
        self.tests += other.tests;
        self.flaky.add(&other.flaky);
        self.by_rate.iter_mut().zip(&other.by_rate).for_each(|(one, more)| one.add(more));
        self.by_order.add(&other.by_order);
        self.at_or_above.add(&other.at_or_above);
        self.called_healthy += other.called_healthy;
        self.false_accusations += other.false_accusations;
        self.called_broken += other.called_broken;
        self.inconclusive += other.inconclusive;
        for (one, more) in self.coverage.iter_mut().zip(&other.coverage) {
            one.intervals += more.intervals;
            one.cover += more.cover;
            one.runs += more.runs;
        }
        self.steady_runs += other.steady_runs;
        self.steady += other.steady;
        self.attempts += other.attempts;
        self.samples += other.samples;
        self.infrastructure_errors += other.infrastructure_errors;
        self.container_seconds += other.container_seconds;
        self.wall_seconds += other.wall_seconds;
        self.rounds += other.rounds;
    }
}

/// What is known of a test once a sweep has ended.
pub(super) fn judged(
    question: &Question,
    carried: &Carried,
    answers: &Answers,
    test: &TestModel,
) -> Assessment {
    // Bench questions ask for no panel.
    assess(question, &carried.ledger, answers, &WorldsSeen::default(), &test.id)
}
