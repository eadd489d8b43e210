//! The bench itself: first sweeps, nights, and the comparison with what others do.

use super::farm::{Carried, Farm, Stalled, Weather};
use super::measure::{Measured, judged};
use super::population::Population;
use super::splitmix;
use super::strategies::{Rerun, Reruns};
use crate::experiment::{Confidence, Guarantee, History, Ledger, PastRun, Plan, Question, Rate};
use crate::plan::answers;
use flakefarm_shared::UnixMicros;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU16;
use std::time::Duration;

/// Fixed numbers of runs that sweeps are compared with, beside the one with the same guarantee.
pub const FIXED: [u32; 4] = [10, 20, 50, 100];
/// Points of the curve of what a fixed number of runs finds.
const CURVE: [u32; 10] = [2, 5, 10, 20, 35, 59, 100, 200, 500, 1_000];
/// The nights at the end over which the cost with history is taken.
const SETTLED: usize = 10;
/// Suites that are followed through the nights, at most.
const SUITES_AT_NIGHT: u32 = 16;
/// Tests of a calibration, at most: coverage needs many runs, not many tests.
const CALIBRATION_TESTS: usize = 2_000;
/// Tests up to which every report leads to a new plan, as on a real farm.
const PLANNED_AT_EVERY_REPORT: usize = 2_000;
const DAY_MICROS: i64 = 86_400_000_000;
/// When simulated time begins: any day does.
const BEGINNING: UnixMicros = 1_700_000_000_000_000;

/// What plans: [`crate::plan::plan`], or it with somebody looking over its shoulder.
pub type Planner<'a> = dyn FnMut(&Question, &Ledger, &History, Duration) -> Plan + 'a;

/// What to simulate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Tests of the suite.
    pub tests: usize,
    /// Where all randomness comes from.
    pub seed: u64,
    /// First sweeps, each on another suite, that are added up.
    pub sweeps: u32,
    /// Nights of history.
    pub nights: u32,
    /// Share of the tests that change from night to night.
    pub changed: f64,
    /// Share of attempts that end with an infrastructure error, where there is noise.
    pub infrastructure_errors: f64,
    /// The guarantees that are asked for.
    pub guarantees: Vec<Guarantee>,
    /// The flake rate from which on a test must be found.
    pub max_flake_rate: Rate,
    /// How sure verdicts are to be.
    pub confidence: Confidence,
    /// Jobs at once.
    pub workers: NonZeroU16,
}

/// What a simulation found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bench {
    /// `flakefarm.simulation/v1`.
    pub schema: String,
    /// What was simulated.
    pub settings: Settings,
    /// Runs of each test that give the guarantee of each test.
    pub guaranteed_runs: u32,
    /// One attempt on the suite, in seconds, on average over the suites.
    pub suite_seconds: f64,
    /// By guarantee.
    pub guarantees: Vec<GuaranteeBench>,
}

/// What was found of one guarantee.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuaranteeBench {
    /// Which.
    pub guarantee: Guarantee,
    /// First sweeps on a farm without errors.
    pub first: Comparison,
    /// The same on a farm with errors.
    pub noisy: Comparison,
    /// First sweeps of suites in which every other test flakes.
    pub calibration: Measured,
    /// Every night, the first without history, on a farm with errors.
    pub nights: Vec<Night>,
    /// The last nights together; none without nights.
    pub settled: Option<Comparison>,
}

/// Sweeps, and what others make of the same suites.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What the sweeps found.
    pub measured: Measured,
    /// Every test [`FIXED`] times, and as often as the guarantee of each test takes; by runs.
    pub fixed: Vec<Rerun>,
    /// The same, each test only until it has passed and failed.
    pub stopping: Vec<Rerun>,
    /// What more runs of everything would find.
    pub curve: Vec<CurvePoint>,
    /// The fixed number of runs that misses as many flaky tests.
    pub equal_recall: Rerun,
    /// The fixed number of runs that costs as much.
    pub equal_cost: Rerun,
    /// Container time over that of the fixed number of runs that misses as many.
    pub cost_at_equal_recall: f64,
    /// Container time over that of the fixed number of runs with the guarantee of each test.
    pub cost_against_guaranteed: f64,
}

/// A point of the curve of fixed numbers of runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Runs of each test.
    pub runs: u32,
    /// Time in containers.
    pub container_seconds: f64,
    /// Flaky tests missed.
    pub missed: f64,
}

/// One night, of all suites that were followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Night {
    /// Its number; 0 has no history.
    pub night: u32,
    /// What was found and spent.
    pub measured: Measured,
    /// Container time of the fixed number of runs that misses as many.
    pub equal_recall_seconds: f64,
    /// Container time of the fixed number of runs with the guarantee of each test.
    pub guaranteed_seconds: f64,
}

impl Settings {
    /// The question of a sweep under one guarantee.
    pub fn question(&self, guarantee: Guarantee, seed: u64) -> Question {
        Question {
            confidence: self.confidence,
            max_flake_rate: self.max_flake_rate,
            guarantee,
            workers: self.workers,
            ..Question::detect(seed)
        }
    }

    fn seed_of(&self, purpose: u64, number: u32) -> u64 {
        splitmix(splitmix(self.seed ^ purpose << 40) ^ u64::from(number))
    }

    /// A farm for a suite.
    pub fn farm<'a>(&self, population: &'a Population, weather: Weather, seed: u64) -> Farm<'a> {
        let workers = usize::from(self.workers.get());
        let gather = if population.tests.len() <= PLANNED_AT_EVERY_REPORT { 1 } else { workers };
        Farm { population, weather, workers, gather, seed, starts_at: BEGINNING }
    }
}

/// Simulates everything. `say` hears what is being done.
pub fn run(
    settings: &Settings,
    planner: &mut Planner<'_>,
    say: &mut dyn FnMut(&str),
) -> Result<Bench, Stalled> {
    let mut guarantees = Vec::new();
    for guarantee in settings.guarantees.iter().copied() {
        let name = match guarantee {
            Guarantee::PerTest => "of each test",
            Guarantee::PerSuite => "of the suite",
        };
        say(&format!("guarantee {name}: first sweeps"));
        let first = first_sweeps(settings, guarantee, Weather::CALM, planner)?;
        say(&format!("guarantee {name}: first sweeps with infrastructure errors"));
        let noise = Weather::noisy(settings.infrastructure_errors);
        let noisy = first_sweeps(settings, guarantee, noise, planner)?;
        say(&format!("guarantee {name}: coverage of intervals"));
        let calibration = calibrate(settings, guarantee, planner)?;
        let (nights, settled) = nights(settings, guarantee, noise, planner, say)?;
        guarantees.push(GuaranteeBench { guarantee, first, noisy, calibration, nights, settled });
    }
    let mut suite_seconds = 0.0;
    for number in 0..settings.sweeps {
        let population = Population::published(settings.tests, settings.seed_of(1, number));
        let question = settings.question(Guarantee::PerTest, 0);
        suite_seconds += Reruns::of(&population, &question, Weather::CALM, 0).suite_seconds();
    }
    Ok(Bench {
        schema: "flakefarm.simulation/v1".to_owned(),
        settings: settings.clone(),
        guaranteed_runs: settings.question(Guarantee::PerTest, 0).runs_for_guarantee(),
        suite_seconds: suite_seconds / f64::from(settings.sweeps),
        guarantees,
    })
}

/// Sweeps of suites that nothing is known of, one of each.
pub fn first_sweeps(
    settings: &Settings,
    guarantee: Guarantee,
    weather: Weather,
    planner: &mut Planner<'_>,
) -> Result<Comparison, Stalled> {
    let (mut measured, mut reruns) = (Measured::default(), Reruns::default());
    for number in 0..settings.sweeps {
        let population = Population::published(settings.tests, settings.seed_of(1, number));
        let luck = settings.seed_of(2, number);
        let question = settings.question(guarantee, settings.seed_of(3, number));
        let history = History::new(&population.ids(), &population.sources(), [], BEGINNING);
        let carried = settings.farm(&population, weather, luck).carry_out(&question, &history, planner)?;
        measured.add(&Measured::of(&question, &population, &history, &carried));
        reruns.add(&Reruns::of(&population, &question, weather, luck));
    }
    Ok(compare(settings, measured, &reruns))
}

/// Sweeps of suites in which every other test flakes at one of a few rates.
pub fn calibrate(
    settings: &Settings,
    guarantee: Guarantee,
    planner: &mut Planner<'_>,
) -> Result<Measured, Stalled> {
    let mut measured = Measured::default();
    for number in 0..settings.sweeps {
        let size = settings.tests.min(CALIBRATION_TESTS);
        let population = Population::calibration(size, settings.seed_of(4, number));
        let question = settings.question(guarantee, settings.seed_of(5, number));
        let history = History::default();
        let farm = settings.farm(&population, Weather::CALM, settings.seed_of(6, number));
        let carried = farm.carry_out(&question, &history, planner)?;
        measured.add(&Measured::of(&question, &population, &history, &carried));
    }
    Ok(measured)
}

fn nights(
    settings: &Settings,
    guarantee: Guarantee,
    weather: Weather,
    planner: &mut Planner<'_>,
    say: &mut dyn FnMut(&str),
) -> Result<(Vec<Night>, Option<Comparison>), Stalled> {
    if settings.nights == 0 {
        return Ok((Vec::new(), None));
    }
    let mut by_night: Vec<(Measured, Reruns)> = Vec::new();
    by_night.resize_with(settings.nights as usize + 1, Default::default);
    for suite in 0..settings.sweeps.min(SUITES_AT_NIGHT) {
        say(&format!("guarantee `{}`: {} nights of suite {suite}", guarantee.word(), settings.nights));
        let mut past: Vec<PastRun> = Vec::new();
        let mut population = Population::published(settings.tests, settings.seed_of(7, suite));
        for (night, (measured, reruns)) in (0_u32..).zip(&mut by_night) {
            let seed = |purpose: u64| splitmix(settings.seed_of(purpose, suite) ^ u64::from(night));
            if night > 0 {
                population.change(settings.changed, seed(8));
            }
            let starts_at = BEGINNING + i64::from(night) * DAY_MICROS;
            let question = settings.question(guarantee, seed(10));
            let sources = population.sources();
            let history = History::new(&population.ids(), &sources, past.iter().cloned(), starts_at);
            let farm = Farm { starts_at, ..settings.farm(&population, weather, seed(9)) };
            let carried = farm.carry_out(&question, &history, planner)?;
            measured.add(&Measured::of(&question, &population, &history, &carried));
            reruns.add(&Reruns::of(&population, &question, weather, seed(9)));
            remember(&mut past, &population, &question, &history, &carried, starts_at);
        }
    }
    let (mut last, mut last_reruns) = (Measured::default(), Reruns::default());
    for (measured, reruns) in by_night.iter().skip(1).rev().take(SETTLED) {
        last.add(measured);
        last_reruns.add(reruns);
    }
    let guaranteed = settings.question(guarantee, 0).runs_for_guarantee();
    let night = |(night, (measured, reruns)): (u32, (Measured, Reruns))| Night {
        night,
        equal_recall_seconds: reruns.at_equal_recall(measured.flaky.missed()).container_seconds,
        guaranteed_seconds: reruns.fixed(guaranteed).container_seconds,
        measured,
    };
    let nights = (0..).zip(by_night).map(night).collect();
    Ok((nights, Some(compare(settings, last, &last_reruns))))
}

/// Adds what a night recorded, as a project's history has it.
fn remember(
    past: &mut Vec<PastRun>,
    population: &Population,
    question: &Question,
    history: &History,
    carried: &Carried,
    starts_at: UnixMicros,
) {
    let finished_at = starts_at + i64::try_from(carried.wall.as_micros()).expect("a night ends");
    let answers = answers(question, &carried.ledger, history);
    for (test, source) in population.tests.iter().zip(population.sources()) {
        let found = judged(question, carried, &answers, test);
        if found.attempts > 0 {
            past.push(PastRun {
                test: test.id.clone(),
                fingerprint: Some(source.fingerprint),
                attempts: found.attempts,
                failures: found.failures,
                seconds: found.durations.map_or(0.0, |durations| durations.p50 / 1e3),
                finished_at,
            });
        }
    }
}

fn compare(settings: &Settings, measured: Measured, reruns: &Reruns) -> Comparison {
    let guaranteed = settings.question(Guarantee::PerTest, 0).runs_for_guarantee();
    let mut runs = FIXED.to_vec();
    runs.push(guaranteed);
    runs.sort_unstable();
    runs.dedup();
    let equal_recall = reruns.at_equal_recall(measured.flaky.missed());
    let equal_cost = reruns.at_equal_cost(measured.container_seconds);
    let curve = CURVE.map(|runs| {
        let rerun = reruns.fixed(runs);
        CurvePoint { runs, container_seconds: rerun.container_seconds, missed: rerun.missed }
    });
    Comparison {
        curve: curve.to_vec(),
        fixed: runs.iter().map(|runs| reruns.fixed(*runs)).collect(),
        stopping: runs.iter().map(|runs| reruns.stopping_at_first(*runs)).collect(),
        cost_at_equal_recall: measured.container_seconds / equal_recall.container_seconds,
        cost_against_guaranteed: measured.container_seconds / reruns.fixed(guaranteed).container_seconds,
        equal_recall,
        equal_cost,
        measured,
    }
}

#[cfg(test)]
mod tests;
