//! One simulated attempt: what a worker would report of it, given the truth.

use super::population::{Nature, Population, unit};
use super::splitmix;
use crate::experiment::shuffle_key;
use flakefarm_shared::{
    AttemptEnd, AttemptRecord, AttemptSpec, Failure, FailureKind, InfraError, InfraStage, NothingRan, Order,
    Outcome, Phase, Sample, Scope, Selection, WorkerId,
};
use rand_chacha::ChaCha8Rng;

/// Seconds that an attempt takes beside its tests: the container, the interpreter, the framework.
pub const CONTAINER_SECONDS: f64 = 0.7;
/// Seconds to import one file of tests.
pub const FILE_SECONDS: f64 = 0.012;
/// Durations of one test vary by this share either way.
const JITTER: f64 = 0.1;
const TIMEOUT_MS: u64 = 60_000;

/// What goes wrong with an attempt for reasons that no test is to blame for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// The farm fails.
    Infrastructure,
    /// Collection fails.
    NothingRan,
}

/// A suite as attempts on it go by. The n-th run of a flaky test has the same outcome whoever asks
/// for it and whenever: so different plans can be compared on the same luck.
#[derive(Debug)]
pub struct Runs<'a> {
    population: &'a Population,
    seed: u64,
    made: Vec<u32>,
}

impl<'a> Runs<'a> {
    /// No run was made yet.
    pub fn new(population: &'a Population, seed: u64) -> Self {
        Self { population, seed, made: vec![0; population.tests.len()] }
    }

    /// Makes an attempt. `dice` decides what is not the tests' own luck.
    pub fn make(
        &mut self,
        spec: &AttemptSpec,
        worker: &WorkerId,
        mishap: Option<Mishap>,
        dice: &mut ChaCha8Rng,
    ) -> AttemptRecord {
        let mut record = AttemptRecord::completed(spec, worker.clone());
        let places = self.ordered(spec);
        let mut seconds = CONTAINER_SECONDS + FILE_SECONDS * files(self.population, &places) as f64;
        if mishap == Some(Mishap::Infrastructure) {
            // It may fail at any moment, and what was spent until then is spent.
            let tests: f64 = places.iter().map(|place| self.population.tests[*place].seconds).sum();
            record.wall_us = micros((seconds + tests) * unit(dice));
            record.end = AttemptEnd::Infrastructure(InfraError {
                stage: InfraStage::Sandbox,
                message: "no space left".into(),
            });
            return record;
        }
        if self.population.missing_worlds.contains(&spec.treatment.world) {
            record.wall_us = micros(seconds);
            record.end =
                AttemptEnd::NothingRan { reason: "not to be had".into(), why: NothingRan::Unavailable };
            return record;
        }
        let silent = |place: &usize| self.population.tests[*place].nature == Nature::Silent;
        if mishap == Some(Mishap::NothingRan) || places.iter().all(silent) {
            record.wall_us = micros(seconds);
            record.end = AttemptEnd::NothingRan { reason: "no tests ran".into(), why: NothingRan::Died };
            return record;
        }
        let mut traces: Vec<usize> = Vec::new();
        for (position, place) in (0..).zip(places) {
            let test = &self.population.tests[place];
            let Some(outcome) = self.outcome(place, spec, &traces) else { continue };
            let ended_by = match &outcome {
                Outcome::Fail(failure) => match &failure.kind {
                    kind @ (FailureKind::Crash { .. } | FailureKind::Timeout { .. }) => Some(kind.clone()),
                    _ => None,
                },
                Outcome::Pass | Outcome::Skip { .. } => None,
            };
            let took = match &outcome {
                Outcome::Skip { .. } => 0.0,
                _ if matches!(ended_by, Some(FailureKind::Timeout { .. })) => TIMEOUT_MS as f64 / 1e3,
                _ => test.seconds * (1.0 + JITTER * (2.0 * unit(dice) - 1.0)),
            };
            let took = took * f64::from(spec.treatment.world.slowdown());
            seconds += took;
            record.samples.push(Sample {
                test: test.id.clone(),
                outcome,
                wall_us: micros(took),
                cpu_us: micros(took * 0.9),
                phases: None,
                position,
                output: None,
                warnings: Vec::new(),
                expected_failure: None,
            });
            if self.population.leaves_traces(place) {
                traces.push(place);
            }
            if let Some(by) = ended_by {
                record.end = AttemptEnd::Interrupted { by, running: test.id.clone() };
                break;
            }
        }
        record.wall_us = micros(seconds);
        record
    }

    fn outcome(&mut self, place: usize, spec: &AttemptSpec, traces: &[usize]) -> Option<Outcome> {
        let ran = |others: &[usize]| others.iter().any(|other| traces.contains(other));
        let pass = |passes: bool| if passes { Outcome::Pass } else { failed(FailureKind::Assertion) };
        let luck = |made: &mut u32, rate: f64| {
            *made += 1;
            fails(self.seed, place, *made, rate)
        };
        Some(match &self.population.tests[place].nature {
            Nature::Steady => Outcome::Pass,
            Nature::Broken => failed(FailureKind::Exception),
            Nature::Skips => Outcome::Skip { reason: "not here".into() },
            Nature::Flakes(rate) => pass(!luck(&mut self.made[place], *rate)),
            Nature::VictimOf(polluters) => pass(!ran(polluters)),
            Nature::Needs(setters) => pass(ran(setters)),
            Nature::Crashes(rate) if luck(&mut self.made[place], *rate) => {
                failed(FailureKind::Crash { exit_code: 139 })
            }
            Nature::Crashes(_) => Outcome::Pass,
            Nature::HangsInSuites if spec.scope == Scope::Suite => {
                failed(FailureKind::Timeout { limit_ms: TIMEOUT_MS })
            }
            Nature::HangsInSuites => Outcome::Pass,
            Nature::Silent => return None,
            Nature::FailsUnder(world) => pass(spec.treatment.world != *world),
            Nature::PassesUnder(world) if spec.treatment.world == *world => Outcome::Pass,
            Nature::PassesUnder(_) => failed_with(FailureKind::Exception, "socket.gaierror"),
        })
    }

    fn ordered(&self, spec: &AttemptSpec) -> Vec<usize> {
        let tests = &self.population.tests;
        let mut places: Vec<usize> = match &spec.tests {
            Selection::All => (0..tests.len()).collect(),
            Selection::Only(only) => only.iter().filter_map(|test| self.population.place(test)).collect(),
        };
        match spec.order {
            Order::AsListed => {}
            Order::Given => places.sort_unstable(),
            Order::Reversed => places.sort_unstable_by_key(|place| std::cmp::Reverse(*place)),
            Order::Shuffled { seed } => {
                places.sort_by_cached_key(|place| shuffle_key(seed, &tests[*place].id))
            }
        }
        places
    }
}

/// Whether the `run`-th run (from 1) of the test at `place` fails.
pub fn fails(seed: u64, place: usize, run: u32, rate: f64) -> bool {
    let draw = splitmix(splitmix(seed ^ (place as u64) << 32) ^ u64::from(run));
    // 53 bits: all that a double holds.
    ((draw >> 11) as f64) < rate * (1_u64 << 53) as f64
}

/// Files that these tests are in.
fn files(population: &Population, places: &[usize]) -> usize {
    let mut sorted = places.to_vec();
    sorted.sort_unstable(); // tests of one file are neighbours in the listing
    let file = |place: &usize| crate::plan::file_of(&population.tests[*place].id);
    sorted.windows(2).filter(|pair| file(&pair[0]) != file(&pair[1])).count()
        + usize::from(!sorted.is_empty())
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

fn failed(kind: FailureKind) -> Outcome {
    failed_with(kind, "builtins.AssertionError")
}

fn failed_with(kind: FailureKind, exception: &str) -> Outcome {
    Outcome::Fail(Failure {
        signature: format!("{}0000", kind.word()),
        kind,
        phase: Phase::Call,
        exceptions: vec![exception.into()],
        message: "assert 1 == 2".into(),
        frames: Vec::new(),
        circumstances: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luck_has_the_rate_it_is_given() {
        for rate in [0.001, 0.05, 0.5, 0.99] {
            let count = (1..=40_000).filter(|run| fails(1, 17, *run, rate)).count() as f64 / 40_000.0;
            assert!(
                (count - rate).abs() < 4.0 * (rate * (1.0 - rate) / 40_000.0_f64).sqrt(),
                "{rate}: {count}"
            );
        }
        assert!(!(1..1_000).any(|run| fails(1, 1, run, 0.0)));
    }
}
