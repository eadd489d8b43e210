//! What others do, on the same suite and with the same luck: every test N times, or each test up to
//! N times until it has passed and failed. Both run the suite as a whole, in as many orders as a
//! sweep with `--runs N` does, which is more than most rerunners try.

use super::attempt::{CONTAINER_SECONDS, FILE_SECONDS, Runs, fails};
use super::farm::Weather;
use super::measure::{BANDS, Found};
use super::population::{Nature, Population};
use crate::experiment::{
    History, Ledger, Question, Runs as Wanted, ScopeChoice, TestFilter, file_of, shuffle_key,
};
use crate::plan::plan;
use flakefarm_shared::{AttemptEnd, JobReport, Order, SweepId, WIRE_VERSION, WorkerId};
use serde::{Deserialize, Serialize};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

/// Runs after which a test that has not shown itself is given up by this bench.
const MOST_RUNS: u32 = 20_000;
/// Orders that are looked at; what no order among so many shows is taken for never shown.
const ORDERS: u32 = 120;

/// After how many runs each flaky test of some suites has passed and failed, and what runs cost.
#[derive(Debug, Clone, Default)]
pub struct Reruns {
    shown: Vec<Shown>,
    /// The rate from which on a test is to be found.
    max_flake_rate: f64,
    /// Of one attempt on each suite, added up: in tests, and beside them.
    test_seconds: f64,
    other_seconds: f64,
    suites: u64,
    /// What infrastructure errors add to each second.
    waste: f64,
}

/// A flaky test.
#[derive(Debug, Clone, Copy)]
struct Shown {
    /// The run by which it has passed and failed; none if it never does.
    by: Option<u32>,
    /// How long it takes.
    seconds: f64,
    /// Its true rate; none if it depends on order.
    rate: Option<f64>,
}

/// What such a strategy finds and costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rerun {
    /// Runs of each test; not whole where it was interpolated.
    pub runs: f64,
    /// Flaky tests that it misses.
    pub missed: f64,
    /// Time in containers.
    pub container_seconds: f64,
    /// Attempts.
    pub attempts: f64,
    /// Share found of the tests that flake by chance, by band of the true rate; see [`BANDS`].
    pub by_rate: Vec<f64>,
    /// Share found of those that flake by order.
    pub by_order: f64,
    /// Share found of those that flake by chance at the asked rate or above.
    pub at_or_above: f64,
}

impl Reruns {
    /// Of one suite with the luck of `seed`.
    pub fn of(population: &Population, question: &Question, weather: Weather, seed: u64) -> Self {
        let orders = orders(question);
        let keys = |order: &Order, place: usize| -> Position {
            match order {
                Order::Given | Order::AsListed => Position::Place(place),
                Order::Reversed => Position::Back(std::cmp::Reverse(place)),
                Order::Shuffled { seed } => Position::Key(shuffle_key(*seed, &population.tests[place].id)),
            }
        };
        let before = |others: &[usize], place: usize, order: &Order| {
            others.iter().any(|other| keys(order, *other) < keys(order, place))
        };
        let max_flake_rate = question.max_flake_rate.get();
        let mut reruns = Reruns { suites: 1, max_flake_rate, ..Reruns::default() };
        let mut files: Vec<&str> = Vec::new();
        for (place, test) in population.tests.iter().enumerate() {
            if !matches!(test.nature, Nature::Skips) {
                reruns.test_seconds += test.seconds;
            }
            if files.last() != Some(&file_of(&test.id)) {
                files.push(file_of(&test.id));
            }
            let (by, rate) = match &test.nature {
                Nature::Flakes(rate) | Nature::Crashes(rate) => {
                    let runs = (1..=MOST_RUNS).map(|run| fails(seed, place, run, *rate));
                    (first_discordance(runs), Some(*rate))
                }
                Nature::VictimOf(others) => {
                    (first_discordance(orders.iter().map(|order| before(others, place, order))), None)
                }
                Nature::Needs(others) => {
                    (first_discordance(orders.iter().map(|order| !before(others, place, order))), None)
                }
                Nature::HangsInSuites => (None, None),
                Nature::Steady
                | Nature::Broken
                | Nature::Skips
                | Nature::Silent
                | Nature::FailsUnder(_)
                | Nature::PassesUnder(_) => continue,
            };
            reruns.shown.push(Shown { by, seconds: test.seconds, rate });
        }
        reruns.other_seconds = CONTAINER_SECONDS + FILE_SECONDS * files.len() as f64;
        // An error costs half an attempt on average, and the attempt that is then made again.
        reruns.waste = 0.5 * weather.infrastructure / (1.0 - weather.infrastructure);
        reruns
    }

    /// Adds up suites.
    pub fn add(&mut self, other: &Reruns) {
        self.shown.extend_from_slice(&other.shown);
        self.max_flake_rate = other.max_flake_rate;
        self.test_seconds += other.test_seconds;
        self.other_seconds += other.other_seconds;
        self.suites += other.suites;
        self.waste = other.waste;
    }

    /// Seconds of one attempt on every suite.
    pub fn suite_seconds(&self) -> f64 {
        (self.test_seconds + self.other_seconds) * (1.0 + self.waste)
    }

    /// Every test so many times.
    pub fn fixed(&self, runs: u32) -> Rerun {
        let band = |rate: f64| BANDS.iter().rposition(|from| rate >= *from).expect("rates are not negative");
        let (mut by_rate, mut by_order, mut at_or_above) =
            (vec![Found::default(); BANDS.len()], Found::default(), Found::default());
        for test in &self.shown {
            let found = test.by.is_some_and(|by| by <= runs);
            match test.rate {
                Some(rate) => {
                    by_rate[band(rate)].count(found);
                    if rate >= self.max_flake_rate {
                        at_or_above.count(found);
                    }
                }
                None => by_order.count(found),
            }
        }
        Rerun {
            runs: f64::from(runs),
            missed: self.missed(runs) as f64,
            container_seconds: f64::from(runs) * self.suite_seconds(),
            attempts: f64::from(runs) * self.suites as f64,
            by_rate: by_rate.iter().map(Found::share).collect(),
            by_order: by_order.share(),
            at_or_above: at_or_above.share(),
        }
    }

    /// Each test so many times at most, and no more once it has passed and failed.
    pub fn stopping_at_first(&self, runs: u32) -> Rerun {
        let spared =
            |test: &Shown| test.by.map_or(0.0, |by| f64::from(runs.saturating_sub(by)) * test.seconds);
        let spared: f64 = self.shown.iter().map(spared).sum::<f64>() * (1.0 + self.waste);
        let fixed = self.fixed(runs);
        Rerun { container_seconds: fixed.container_seconds - spared, ..fixed }
    }

    /// The least fixed number of runs that misses no more than `missed` flaky tests.
    pub fn at_equal_recall(&self, missed: u64) -> Rerun {
        let fewest = (1..=MOST_RUNS).find(|runs| self.missed(*runs) <= missed).unwrap_or(MOST_RUNS);
        let (below, at) = (self.fixed(fewest.saturating_sub(1)), self.fixed(fewest));
        let steps = below.missed - at.missed;
        // As if tests between two whole numbers showed themselves evenly.
        let part = if steps > 0.0 { ((below.missed - missed as f64) / steps).clamp(0.0, 1.0) } else { 1.0 };
        between(&below, &at, part)
    }

    /// What a fixed number of runs finds for the same container time.
    pub fn at_equal_cost(&self, container_seconds: f64) -> Rerun {
        let runs = (container_seconds / self.suite_seconds()).min(f64::from(MOST_RUNS));
        let (below, above) = (self.fixed(runs.floor() as u32), self.fixed(runs.ceil() as u32));
        between(&below, &above, runs.fract())
    }

    fn missed(&self, runs: u32) -> u64 {
        self.shown.iter().filter(|test| test.by.is_none_or(|by| by > runs)).count() as u64
    }
}

fn between(below: &Rerun, above: &Rerun, part: f64) -> Rerun {
    let at = |low: f64, high: f64| low + part * (high - low);
    Rerun {
        runs: at(below.runs, above.runs),
        missed: at(below.missed, above.missed),
        container_seconds: at(below.container_seconds, above.container_seconds),
        attempts: at(below.attempts, above.attempts),
        by_rate: below.by_rate.iter().zip(&above.by_rate).map(|(low, high)| at(*low, *high)).collect(),
        by_order: at(below.by_order, above.by_order),
        at_or_above: at(below.at_or_above, above.at_or_above),
    }
}

/// Where an order puts a test; comparable within one order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Position {
    Place(usize),
    Back(std::cmp::Reverse<usize>),
    Key([u8; 32]),
}

/// The run by which there was a failure and a pass, from 1.
fn first_discordance(runs: impl Iterator<Item = bool>) -> Option<u32> {
    let mut first = None;
    for (number, failed) in (1..).zip(runs) {
        match first {
            None => first = Some(failed),
            Some(other) if other != failed => return Some(number),
            Some(_) => {}
        }
    }
    None
}

/// The orders that a sweep with a fixed number of runs makes, in the order it makes them: asked of
/// the planner itself, on a suite of one test.
fn orders(question: &Question) -> Vec<Order> {
    let question = Question {
        runs: Wanted::Fixed(NonZeroU32::new(ORDERS).expect("not zero")),
        scope: ScopeChoice::Suite,
        workers: NonZeroU16::MIN,
        tests: TestFilter::default(),
        budget: None,
        ..question.clone()
    };
    let population = Population::calibration(1, 0);
    let mut runs = Runs::new(&population, 0);
    let mut ledger = Ledger::new(population.ids());
    let mut orders = Vec::new();
    let mut dice = super::dice(0, "orders");
    loop {
        let jobs = plan(&question, &ledger, &History::default(), Duration::ZERO).jobs;
        if jobs.is_empty() {
            return orders;
        }
        for job in jobs {
            ledger.note_planned(job.key, &job.attempts);
            let worker = WorkerId("worker".into());
            let attempts: Vec<_> =
                job.attempts.iter().map(|spec| runs.make(spec, &worker, None, &mut dice)).collect();
            orders.extend(attempts.iter().filter(|a| a.end == AttemptEnd::Completed).map(|a| a.order));
            let id = job.key.id(SweepId(uuid::Uuid::nil()));
            ledger.note_report(job.key, &JobReport { v: WIRE_VERSION, job: id, listing: None, attempts });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discordance_is_a_pass_and_a_failure() {
        assert_eq!(first_discordance([false, false, true, false].into_iter()), Some(3));
        assert_eq!(first_discordance([true, false].into_iter()), Some(2));
        assert_eq!(first_discordance([true, true].into_iter()), None);
    }

    #[test]
    fn more_runs_miss_less_and_cost_more() {
        let shown = |by, seconds, rate| Shown { by, seconds, rate };
        let reruns = Reruns {
            shown: vec![
                shown(Some(2), 1.0, None),
                shown(Some(5), 2.0, Some(0.2)),
                shown(Some(9), 1.0, Some(0.1)),
                shown(None, 1.0, Some(0.000_1)),
            ],
            max_flake_rate: 0.05,
            test_seconds: 10.0,
            other_seconds: 1.0,
            suites: 1,
            waste: 0.0,
        };
        assert_eq!(
            (reruns.fixed(1).missed, reruns.fixed(5).missed, reruns.fixed(100).missed),
            (4.0, 2.0, 1.0)
        );
        assert_eq!((reruns.fixed(5).at_or_above, reruns.fixed(5).by_order), (0.5, 1.0));
        assert_eq!(reruns.fixed(5).by_rate, [0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
        assert_eq!(reruns.fixed(5).container_seconds, 55.0);
        assert_eq!(reruns.stopping_at_first(5).container_seconds, 55.0 - 3.0);
        assert_eq!(reruns.at_equal_recall(2).runs, 5.0);
        assert_eq!(reruns.at_equal_recall(1).runs, 9.0);
        assert_eq!(reruns.at_equal_recall(0).runs, f64::from(MOST_RUNS), "never");
        let equal_cost = reruns.at_equal_cost(82.5);
        assert_eq!((equal_cost.runs, equal_cost.missed), (7.5, 2.0));
    }
}
