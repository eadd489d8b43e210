//! Suites whose truth is known: which tests flake, how often and why, how long they take, and what
//! changes from night to night.
//!
//! The shape is the published one. Of 22,245 tests that were rerun 10,000 times, 3.6 % flaked, most
//! of them seldom (Alshammari et al. 2021); a large part depends on order (Gruber et al. 2021, Lam et
//! al. 2020), mostly on one other test (Wei et al. 2021); and slow tests flake more often than fast
//! ones (Google, 2017: 0.5 % of small tests, 14 % of large).

use super::dice;
use flakefarm_shared::source::{Risk, TestSource};
use flakefarm_shared::{Digest, TestId, World};
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{ContinuousCDF, Normal};
use std::collections::HashMap;

/// Share of tests that flake.
const FLAKY: f64 = 0.03;
/// Share of flaky tests that depend on order, and of these, of those that need another test.
const BY_ORDER: f64 = 0.35;
const BRITTLE: f64 = 0.35;
/// Share of tests that always fail, and of those that are always skipped.
const BROKEN: f64 = 0.005;
const SKIPPED: f64 = 0.01;
/// Failure rates of flaky tests: upper ends of bins and the share up to there.
const RATES: [(f64, f64); 7] =
    [(1e-4, 0.12), (1e-3, 0.33), (1e-2, 0.55), (5e-2, 0.73), (1e-1, 0.74), (0.5, 0.86), (0.95, 1.0)];
/// The lowest rate that is drawn.
const LOWEST_RATE: f64 = 3e-5;
/// Durations: median in seconds, spread of the logarithm, and the longest. A hundredth of the tests
/// takes nearly half of the time.
const MEDIAN_SECONDS: f64 = 0.010;
const SPREAD: f64 = 1.9;
const LONGEST_SECONDS: f64 = 60.0;
/// Flakiness grows with this power of the duration.
const SLOW_FLAKE_MORE: f64 = 0.3;
/// Share of tests in whose source a risk is found.
const RISK_IF_FLAKY: f64 = 0.7;
const RISK_IF_STEADY: f64 = 0.12;
/// Tests in a file, at most.
const LARGEST_FILE: usize = 40;
/// The rates that coverage is measured at.
pub const CALIBRATION_RATES: [f64; 9] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5];

/// What a test really does.
#[derive(Debug, Clone, PartialEq)]
pub enum Nature {
    /// Passes.
    Steady,
    /// Fails.
    Broken,
    /// Is skipped.
    Skips,
    /// Fails at this rate, whatever ran before it.
    Flakes(f64),
    /// Fails once one of these (places in the population) has run before it.
    VictimOf(Vec<usize>),
    /// Fails unless one of these has run before it.
    Needs(Vec<usize>),
    /// Takes the interpreter down at this rate.
    Crashes(f64),
    /// Hangs unless it runs alone.
    HangsInSuites,
    /// Is listed, and never says anything.
    Silent,
    /// Fails in this world.
    FailsUnder(World),
    /// Passes in this world only, and says that it wants a network.
    PassesUnder(World),
}

impl Nature {
    /// Whether its result depends on what ran before it.
    pub fn depends_on_order(&self) -> bool {
        matches!(self, Nature::VictimOf(_) | Nature::Needs(_) | Nature::HangsInSuites)
    }

    /// The tests that it depends on.
    pub fn others(&self) -> &[usize] {
        match self {
            Nature::VictimOf(others) | Nature::Needs(others) => others,
            Nature::Steady
            | Nature::Broken
            | Nature::Skips
            | Nature::Flakes(_)
            | Nature::Crashes(_)
            | Nature::HangsInSuites
            | Nature::Silent
            | Nature::FailsUnder(_)
            | Nature::PassesUnder(_) => &[],
        }
    }
}

/// One test and the truth about it.
#[derive(Debug, Clone, PartialEq)]
pub struct TestModel {
    /// Its id.
    pub id: TestId,
    /// What it does.
    pub nature: Nature,
    /// How long it takes.
    pub seconds: f64,
    /// How often it has changed.
    pub version: u32,
    /// What its source looks like.
    pub risks: Vec<Risk>,
}

/// A suite.
#[derive(Debug, Clone)]
pub struct Population {
    /// Its tests, in the order their framework lists them.
    pub tests: Vec<TestModel>,
    places: HashMap<TestId, usize>,
    /// Whether some test depends on the one at this place.
    leaves_traces: Vec<bool>,
    /// Worlds that cannot be given to its attempts.
    pub missing_worlds: Vec<World>,
}

impl Population {
    /// A suite of these tests.
    pub fn of(tests: Vec<TestModel>) -> Self {
        let places = tests.iter().enumerate().map(|(place, test)| (test.id.clone(), place)).collect();
        let mut population = Self { leaves_traces: Vec::new(), missing_worlds: Vec::new(), tests, places };
        population.note_traces();
        population
    }

    /// A suite of the published shape.
    pub fn published(size: usize, seed: u64) -> Self {
        let mut dice = dice(seed, "population");
        let mut population = Self::of(steady(size, &mut dice));
        for place in 0..size {
            population.draw_nature(place, &mut dice);
        }
        population.note_traces();
        population
    }

    /// A suite in which every other test flakes at one of [`CALIBRATION_RATES`] and the rest is steady:
    /// for what the published shape has too little of.
    pub fn calibration(size: usize, seed: u64) -> Self {
        let mut dice = dice(seed, "calibration");
        let mut tests = steady(size, &mut dice);
        for (number, test) in tests.iter_mut().skip(1).step_by(2).enumerate() {
            test.nature = Nature::Flakes(CALIBRATION_RATES[number % CALIBRATION_RATES.len()]);
        }
        Self::of(tests)
    }

    /// The place of a test.
    pub fn place(&self, test: &TestId) -> Option<usize> {
        self.places.get(test).copied()
    }

    /// Whether some test depends on the one at `place`.
    pub fn leaves_traces(&self, place: usize) -> bool {
        self.leaves_traces[place]
    }

    /// The ids of all tests, in order.
    pub fn ids(&self) -> Vec<TestId> {
        self.tests.iter().map(|test| test.id.clone()).collect()
    }

    /// What a listing would say of the sources.
    pub fn sources(&self) -> Vec<TestSource> {
        let source = |test: &TestModel| TestSource {
            fingerprint: Digest::of(format!("{}:{}", test.id, test.version).as_bytes()),
            risks: test.risks.clone(),
            body: None,
        };
        self.tests.iter().map(source).collect()
    }

    /// What one test takes on average when all run, in seconds.
    pub fn seconds(&self) -> f64 {
        self.tests.iter().map(|test| test.seconds).sum()
    }

    /// Changes this share of the tests, each by itself: a changed test is a new one in all but name,
    /// and may flake where it did not and the other way round.
    pub fn change(&mut self, share: f64, seed: u64) {
        let mut dice = dice(seed, "change");
        for place in 0..self.tests.len() {
            if unit(&mut dice) < share {
                self.tests[place].version += 1;
                self.draw_nature(place, &mut dice);
            }
        }
        self.note_traces();
    }

    fn draw_nature(&mut self, place: usize, dice: &mut ChaCha8Rng) {
        let slow = (self.tests[place].seconds / MEDIAN_SECONDS).powf(SLOW_FLAKE_MORE);
        // The mean of `slow` over a log-normal distribution, so that the share stays what it says.
        let mean_slow = (SLOW_FLAKE_MORE * SPREAD).powi(2) / 2.0;
        let flaky = (FLAKY * slow / mean_slow.exp()).min(0.5);
        let draw = unit(dice);
        let nature = if draw < flaky {
            if unit(dice) < BY_ORDER {
                self.draw_dependence(place, dice)
            } else {
                Nature::Flakes(draw_rate(dice))
            }
        } else if draw < flaky + BROKEN {
            Nature::Broken
        } else if draw < flaky + BROKEN + SKIPPED {
            Nature::Skips
        } else {
            Nature::Steady
        };
        let test = &mut self.tests[place];
        let risky = match &nature {
            Nature::Flakes(_) => RISK_IF_FLAKY,
            Nature::Steady | Nature::Broken | Nature::Skips => RISK_IF_STEADY,
            Nature::VictimOf(_)
            | Nature::Needs(_)
            | Nature::Crashes(_)
            | Nature::HangsInSuites
            | Nature::Silent
            | Nature::FailsUnder(_)
            | Nature::PassesUnder(_) => RISK_IF_FLAKY,
        };
        test.risks = if unit(dice) < risky {
            let found = [Risk::Sleep, Risk::Concurrency, Risk::Clock, Risk::Network, Risk::Randomness];
            let by_order = nature.depends_on_order();
            vec![if by_order { Risk::SharedState } else { found[below(found.len(), dice)] }]
        } else {
            Vec::new()
        };
        test.nature = nature;
    }

    fn draw_dependence(&self, place: usize, dice: &mut ChaCha8Rng) -> Nature {
        let size = self.tests.len();
        let others = if unit(dice) < 0.75 { 1 } else { 2 };
        // A suite that passes in its own order: what a test needs runs before it, and mostly what
        // spoils it runs after it.
        if unit(dice) < BRITTLE && place > 0 {
            return Nature::Needs((0..others).map(|_| below(place, dice)).collect());
        }
        let after = place + 1 < size && unit(dice) < 0.8;
        let other = |dice: &mut ChaCha8Rng| {
            if after { place + 1 + below(size - place - 1, dice) } else { below(size, dice) }
        };
        Nature::VictimOf((0..others).map(|_| other(dice)).filter(|other| *other != place).collect())
    }

    fn note_traces(&mut self) {
        self.leaves_traces = vec![false; self.tests.len()];
        for test in &self.tests {
            for other in test.nature.others() {
                self.leaves_traces[*other] = true;
            }
        }
    }
}

fn steady(size: usize, dice: &mut ChaCha8Rng) -> Vec<TestModel> {
    let normal = Normal::standard();
    let (mut file, mut room) = (0, 0);
    (0..size)
        .map(|number| {
            if room == 0 {
                file += 1;
                room = 1 + below(LARGEST_FILE, dice);
            }
            room -= 1;
            let deviation = normal.inverse_cdf(unit(dice).clamp(1e-9, 1.0 - 1e-9));
            TestModel {
                id: TestId(format!("tests/test_{file:04}.py::test_{number:06}")),
                nature: Nature::Steady,
                seconds: (MEDIAN_SECONDS * (SPREAD * deviation).exp()).min(LONGEST_SECONDS),
                version: 0,
                risks: Vec::new(),
            }
        })
        .collect()
}

fn draw_rate(dice: &mut ChaCha8Rng) -> f64 {
    let draw = unit(dice);
    let mut from = LOWEST_RATE;
    for (to, up_to) in RATES {
        if draw <= up_to {
            return from * (to / from).powf(unit(dice));
        }
        from = to;
    }
    from
}

/// Uniform within [0, 1).
pub(super) fn unit(dice: &mut ChaCha8Rng) -> f64 {
    use rand::RngExt as _;
    dice.random::<f64>()
}

fn below(end: usize, dice: &mut ChaCha8Rng) -> usize {
    use rand::RngExt as _;
    dice.random_range(0..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_the_published_one() {
        let population = Population::published(30_000, 1);
        let share = |wanted: &dyn Fn(&TestModel) -> bool| {
            population.tests.iter().filter(|test| wanted(test)).count() as f64 / 30_000.0
        };
        let flaky = share(&|test| matches!(test.nature, Nature::Flakes(_)) || test.nature.depends_on_order());
        assert!((flaky - FLAKY).abs() < 0.004, "{flaky}");
        let by_chance = share(&|test| matches!(test.nature, Nature::Flakes(_)));
        let seldom = share(&|test| matches!(test.nature, Nature::Flakes(rate) if rate < 0.05)) / by_chance;
        assert!((seldom - 0.73).abs() < 0.05, "{seldom}");
        let mut seconds: Vec<f64> = population.tests.iter().map(|test| test.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        let slowest: f64 = seconds[29_700..].iter().sum();
        assert!((0.3..0.55).contains(&(slowest / population.seconds())), "{slowest}");
    }

    #[test]
    fn a_night_changes_its_share_and_leaves_the_rest_alone() {
        let before = Population::published(4_000, 3);
        let mut after = before.clone();
        after.change(0.05, 4);
        let changed = |(one, other): &(&TestModel, &TestModel)| one.version != other.version;
        let pairs = || before.tests.iter().zip(&after.tests);
        let count = pairs().filter(changed).count();
        assert!((150..250).contains(&count), "{count}");
        assert!(pairs().filter(|pair| !changed(pair)).all(|(one, other)| one == other));
        let sources = before.sources().into_iter().zip(after.sources());
        assert_eq!(sources.filter(|(one, other)| one.fingerprint != other.fingerprint).count(), count);
    }

    #[test]
    fn a_seed_names_a_suite() {
        assert_eq!(Population::published(500, 7).tests, Population::published(500, 7).tests);
        assert_ne!(Population::published(500, 7).tests, Population::published(500, 8).tests);
    }
}
