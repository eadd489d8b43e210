//! What others do, on the same suite and with the same luck: every test N times, or each test up to
//! N times until it has passed and failed. Both run the suite as a whole, in as many orders as a
//! sweep with `--runs N` does, which is more than most rerunners try.

use super::attempt::{CONTAINER_SECONDS, FILE_SECONDS, Runs, fails, shuffle_key};
use super::farm::Weather;
use super::population::{Nature, Population};
use crate::plan::{History, Ledger, Question, Runs as Wanted, ScopeChoice, TestFilter, file_of, plan};
use flakefarm_shared::{AttemptEnd, JobId, JobReport, Order, SweepId, WIRE_VERSION, WorkerId};
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
    /// Flaky tests: the run, if there is one, in which it has done both, and its seconds.
    discordances: Vec<(Option<u32>, f64)>,
    /// Of one attempt on each suite, added up: in tests, and beside them.
    test_seconds: f64,
    other_seconds: f64,
    suites: u64,
    /// What infrastructure errors add to each second.
    waste: f64,
}

/// What such a strategy finds and costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rerun {
    /// Runs of each test; not whole where it was interpolated.
    pub runs: f64,
    /// Flaky tests that it misses.
    pub missed: f64,
    /// Time in containers.
    pub container_seconds: f64,
    /// Attempts.
    pub attempts: f64,
}

impl Reruns {
    /// Of one suite with the luck of `seed`.
    pub fn of(population: &Population, question: &Question, weather: Weather, seed: u64) -> Self {
        let orders = orders(question);
        let keys = |order: &Order, place: usize| -> Position {
            match order {
                Order::Given => Position::Place(place),
                Order::Reversed => Position::Back(std::cmp::Reverse(place)),
                Order::Shuffled { seed } => Position::Key(shuffle_key(*seed, &population.tests[place].id)),
            }
        };
        let before = |others: &[usize], place: usize, order: &Order| {
            others.iter().any(|other| keys(order, *other) < keys(order, place))
        };
        let mut reruns = Reruns { suites: 1, ..Reruns::default() };
        let mut files: Vec<&str> = Vec::new();
        for (place, test) in population.tests.iter().enumerate() {
            if !matches!(test.nature, Nature::Skips) {
                reruns.test_seconds += test.seconds;
            }
            if files.last() != Some(&file_of(&test.id)) {
                files.push(file_of(&test.id));
            }
            let first = match &test.nature {
                Nature::Flakes(rate) | Nature::Crashes(rate) => {
                    first_discordance((1..=MOST_RUNS).map(|run| fails(seed, place, run, *rate)))
                }
                Nature::VictimOf(others) => {
                    first_discordance(orders.iter().map(|order| before(others, place, order)))
                }
                Nature::Needs(others) => {
                    first_discordance(orders.iter().map(|order| !before(others, place, order)))
                }
                Nature::HangsInSuites => None,
                Nature::Steady | Nature::Broken | Nature::Skips | Nature::Silent => continue,
            };
            reruns.discordances.push((first, test.seconds));
        }
        reruns.other_seconds = CONTAINER_SECONDS + FILE_SECONDS * files.len() as f64;
        // An error costs half an attempt on average, and the attempt that is then made again.
        reruns.waste = 0.5 * weather.infrastructure / (1.0 - weather.infrastructure);
        reruns
    }

    /// Adds up suites.
    pub fn add(&mut self, other: &Reruns) {
        self.discordances.extend_from_slice(&other.discordances);
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
        Rerun {
            runs: f64::from(runs),
            missed: self.missed(runs) as f64,
            container_seconds: f64::from(runs) * self.suite_seconds(),
            attempts: f64::from(runs) * self.suites as f64,
        }
    }

    /// Each test so many times at most, and no more once it has passed and failed.
    pub fn stopping_at_first(&self, runs: u32) -> Rerun {
        let spared = |(first, seconds): &(Option<u32>, f64)| {
            first.map_or(0.0, |first| f64::from(runs.saturating_sub(first)) * seconds)
        };
        let spared: f64 = self.discordances.iter().map(spared).sum::<f64>() * (1.0 + self.waste);
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
        let late = |(first, _): &&(Option<u32>, f64)| first.is_none_or(|first| first > runs);
        self.discordances.iter().filter(late).count() as u64
    }
}

fn between(below: &Rerun, above: &Rerun, part: f64) -> Rerun {
    let at = |low: f64, high: f64| low + part * (high - low);
    Rerun {
        runs: at(below.runs, above.runs),
        missed: at(below.missed, above.missed),
        container_seconds: at(below.container_seconds, above.container_seconds),
        attempts: at(below.attempts, above.attempts),
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
            ledger.note_planned(&job.key, &job.attempts);
            let worker = WorkerId("worker".into());
            let attempts: Vec<_> =
                job.attempts.iter().map(|spec| runs.make(spec, &worker, None, &mut dice)).collect();
            orders.extend(attempts.iter().filter(|a| a.end == AttemptEnd::Completed).map(|a| a.order));
            let id = JobId::derive(SweepId(uuid::Uuid::nil()), &job.key);
            ledger.note_report(&job.key, &JobReport { v: WIRE_VERSION, job: id, listing: None, attempts });
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
        let reruns = Reruns {
            discordances: vec![(Some(2), 1.0), (Some(5), 2.0), (Some(9), 1.0), (None, 1.0)],
            test_seconds: 10.0,
            other_seconds: 1.0,
            suites: 1,
            waste: 0.0,
        };
        assert_eq!(
            (reruns.fixed(1).missed, reruns.fixed(5).missed, reruns.fixed(100).missed),
            (4.0, 2.0, 1.0)
        );
        assert_eq!(reruns.fixed(5).container_seconds, 55.0);
        assert_eq!(reruns.stopping_at_first(5).container_seconds, 55.0 - 3.0);
        assert_eq!(reruns.at_equal_recall(2).runs, 5.0);
        assert_eq!(reruns.at_equal_recall(1).runs, 9.0);
        assert_eq!(reruns.at_equal_recall(0).runs, f64::from(MOST_RUNS), "never");
        let equal_cost = reruns.at_equal_cost(82.5);
        assert_eq!((equal_cost.runs, equal_cost.missed), (7.5, 2.0));
    }
}
