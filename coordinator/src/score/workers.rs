//! The workers of a sweep compared: one that fails more than the others, or is many times slower, says
//! something of its machine and not of the tests.
//!
//! Like is compared with like: attempts in the same condition, on the same test or file where they ran one
//! alone. Of each attempt one number counts, its failures beyond those that its tests had on average (or its
//! time as a multiple of theirs): what fails together in one attempt is one event. The numbers of a worker are
//! held against those of all others by van Elteren's test, Wilcoxon's rank sum over strata (Elteren, "On the
//! combination of independent two sample tests of Wilcoxon", 1960), one-sided, by its normal approximation.

use crate::experiment::ledger::{Condition, Observation, Seen};
use crate::experiment::{JobKey, Ledger};
use flakefarm_shared::{UnixMicros, WorkerId};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Attempts of a worker, and of all others, below which they are not compared.
const FEWEST_ATTEMPTS: usize = 10;
/// Standard deviations: by chance one worker in 100,000 is so far out (one-sided).
const FAR_OUT: f64 = 4.265;
/// Failures, as a multiple of what the others' rates give.
const MORE_FAILURES: f64 = 2.0;
/// Tests that have to fail more: fewer may depend on the machine, which is theirs to say.
const TESTS: usize = 3;
/// Time, as a multiple of the others'.
const SLOWER: f64 = 4.0;
/// By which an attempt takes longer at least, in microseconds.
const LONGER_MICROS: f64 = 50_000.0;

/// What is wrong with a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct BadWorker {
    /// Which.
    pub worker: WorkerId,
    /// Its attempts that were compared.
    pub attempts: usize,
    /// What it does.
    pub fault: WorkerFault,
}

/// What a bad worker does.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerFault {
    /// Tests fail there more than on the others.
    FailsMore {
        /// Its failures.
        failures: u32,
        /// Failures in as many runs of the same tests at the others' rates.
        expected: f64,
        /// Tests that fail there more.
        tests: usize,
    },
    /// Tests take longer there.
    Slow {
        /// Its median time, as a multiple of the others'.
        times: f64,
    },
}

impl fmt::Display for BadWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            WorkerFault::FailsMore { failures, expected, tests } => write!(
                f,
                "{tests} tests fail there more than on the other workers: {failures} failures in {} attempts, \
                 {expected:.1} at the others' rates",
                self.attempts
            ),
            WorkerFault::Slow { times } => write!(
                f,
                "the same tests take {times:.1} times as long there as on the other workers, over {} attempts",
                self.attempts
            ),
        }
    }
}

/// The worker that is furthest out, if one is; the others are compared again without it.
pub fn bad_worker(ledger: &Ledger) -> Option<BadWorker> {
    let compared = Compared::read(ledger);
    let mut bad: Vec<(f64, BadWorker)> = compared.workers.keys().filter_map(|w| compared.judge(w)).collect();
    bad.sort_by(|(a, one), (b, other)| b.total_cmp(a).then_with(|| one.worker.cmp(&other.worker)));
    bad.into_iter().next().map(|(_, bad)| bad)
}

/// What is compared with its like only: the condition, and the test or file that ran alone.
type Stratum<'a> = (Condition, Option<&'a str>);

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    runs: u32,
    failures: u32,
    wall_us: u64,
}

impl Sum {
    fn add(&mut self, observation: &Observation) {
        self.runs += 1;
        self.failures += u32::from(matches!(observation.seen, Seen::Fail(_)));
        self.wall_us += observation.wall_us;
    }

    fn less(self, other: Sum) -> Sum {
        Sum {
            runs: self.runs - other.runs,
            failures: self.failures - other.failures,
            wall_us: self.wall_us - other.wall_us,
        }
    }

    fn rate(self) -> f64 {
        f64::from(self.failures) / f64::from(self.runs.max(1))
    }

    fn mean_wall(self) -> f64 {
        self.wall_us as f64 / f64::from(self.runs.max(1))
    }
}

/// Attempts by job and place.
type Attempts<'a> = HashMap<(JobKey, u32), Unit<'a>>;

/// One attempt.
#[derive(Debug)]
struct Unit<'a> {
    worker: &'a WorkerId,
    started_at: UnixMicros,
    /// Failures beyond the mean of its tests.
    excess: f64,
    wall_us: f64,
    /// What its tests take on average.
    usual_us: f64,
}

struct Compared<'a> {
    /// Attempts of each.
    workers: BTreeMap<&'a WorkerId, usize>,
    strata: HashMap<Stratum<'a>, Vec<Unit<'a>>>,
    /// By test and condition: of all workers together, and of each.
    sums: Sums<'a>,
}

type Sums<'a> = HashMap<(usize, Condition), (Sum, HashMap<&'a WorkerId, Sum>)>;

impl<'a> Compared<'a> {
    fn read(ledger: &'a Ledger) -> Self {
        let mut sums: Sums<'_> = HashMap::new();
        let places = 0..ledger.tests().len();
        let each = || {
            let ran =
                |o: &&Observation| !matches!(o.seen, Seen::Skip) && o.condition() != Condition::OtherSource;
            places.clone().flat_map(move |place| {
                ledger.observations_at(place).iter().filter(ran).map(move |observation| (place, observation))
            })
        };
        for (place, observation) in each() {
            let (all, of_worker) = sums.entry((place, observation.condition())).or_default();
            all.add(observation);
            of_worker.entry(&observation.worker).or_default().add(observation);
        }
        let mut strata: HashMap<Stratum<'_>, Attempts<'_>> = HashMap::new();
        for (place, observation) in each() {
            let condition = observation.condition();
            let alone = match condition {
                Condition::Alone => Some(ledger.tests()[place].as_str()),
                Condition::File => Some(ledger.file_at(place)),
                _ => None,
            };
            let (usual, _) = sums[&(place, condition)];
            let attempts = strata.entry((condition, alone)).or_default();
            let unit = attempts.entry((observation.key, observation.index)).or_insert_with(|| Unit {
                worker: &observation.worker,
                started_at: observation.started_at,
                excess: 0.0,
                wall_us: 0.0,
                usual_us: 0.0,
            });
            unit.excess += f64::from(u8::from(matches!(observation.seen, Seen::Fail(_)))) - usual.rate();
            unit.wall_us += observation.wall_us as f64;
            unit.usual_us += usual.mean_wall();
        }
        let strata: HashMap<_, Vec<Unit<'_>>> =
            strata.into_iter().map(|(stratum, units)| (stratum, units.into_values().collect())).collect();
        let mut workers: BTreeMap<&WorkerId, usize> = BTreeMap::new();
        for unit in strata.values().flatten() {
            *workers.entry(unit.worker).or_default() += 1;
        }
        Self { workers, strata, sums }
    }

    fn judge(&self, worker: &WorkerId) -> Option<(f64, BadWorker)> {
        let attempts = self.workers[worker];
        let others = self.workers.values().sum::<usize>() - attempts;
        if attempts < FEWEST_ATTEMPTS || others < FEWEST_ATTEMPTS {
            return None;
        }
        let found = |(far, fault)| (far, BadWorker { worker: worker.clone(), attempts, fault });
        self.fails_more(worker).or_else(|| self.is_slow(worker)).map(found)
    }

    fn fails_more(&self, worker: &WorkerId) -> Option<(f64, WorkerFault)> {
        let far = self.far_out(worker, |unit| unit.excess);
        if far < FAR_OUT || !self.persists(worker) {
            return None;
        }
        let (mut failures, mut expected) = (0, 0.0);
        let mut of_test: HashMap<usize, (u32, f64)> = HashMap::new();
        for ((place, _), (all, of_worker)) in &self.sums {
            let own = of_worker.get(worker).copied().unwrap_or_default();
            let rest = all.less(own);
            if rest.runs == 0 {
                continue; // nobody to compare it with
            }
            let usual = f64::from(own.runs) * rest.rate();
            failures += own.failures;
            expected += usual;
            let (seen, usually) = of_test.entry(*place).or_default();
            *seen += own.failures;
            *usually += usual;
        }
        let more = |seen: u32, usually: f64| f64::from(seen) >= MORE_FAILURES * usually + 1.0;
        let tests = of_test.values().filter(|(seen, usually)| more(*seen, *usually)).count();
        let holds = tests >= TESTS && f64::from(failures) >= MORE_FAILURES * expected;
        holds.then_some((far, WorkerFault::FailsMore { failures, expected, tests }))
    }

    fn is_slow(&self, worker: &WorkerId) -> Option<(f64, WorkerFault)> {
        let times = |unit: &Unit<'_>| unit.wall_us / unit.usual_us.max(1.0);
        let far = self.far_out(worker, times);
        let units = || self.strata.values().flatten();
        let median_of = |own: bool, value: &dyn Fn(&Unit<'_>) -> f64| {
            median(units().filter(|unit| (unit.worker == worker) == own).map(value).collect())
        };
        let slower = median_of(true, &times) / median_of(false, &times).max(f64::MIN_POSITIVE);
        let longer = median_of(true, &|unit| unit.wall_us) - median_of(false, &|unit| unit.wall_us);
        let holds = far >= FAR_OUT && slower >= SLOWER && longer >= LONGER_MICROS;
        holds.then_some((far, WorkerFault::Slow { times: slower }))
    }

    /// In the earlier half of the worker's attempts as in the later one: a passing trouble is no fault of it.
    fn persists(&self, worker: &WorkerId) -> bool {
        let mut own: Vec<&Unit<'_>> =
            self.strata.values().flatten().filter(|unit| unit.worker == worker).collect();
        own.sort_by_key(|unit| unit.started_at);
        let (earlier, later) = own.split_at(own.len() / 2);
        [earlier, later].iter().all(|half| half.iter().map(|unit| unit.excess).sum::<f64>() > 0.0)
    }

    /// By how many standard deviations the worker's values rank above the others' (van Elteren).
    fn far_out(&self, worker: &WorkerId, value: impl Fn(&Unit<'_>) -> f64) -> f64 {
        let (mut above, mut variance) = (0.0, 0.0);
        for units in self.strata.values() {
            let mut values: Vec<(f64, bool)> =
                units.iter().map(|unit| (value(unit), unit.worker == worker)).collect();
            values.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            let all = values.len() as f64;
            let own = values.iter().filter(|(_, own)| *own).count() as f64;
            if own == 0.0 || own == all {
                continue;
            }
            let (mut ranks, mut ties, mut below) = (0.0, 0.0, 0.0);
            // Equal up to rounding: sums of rates come in another order in each attempt.
            for tied in values.chunk_by(|(a, _), (b, _)| (b - a).abs() < 1e-9) {
                let n = tied.len() as f64;
                let rank = below + (n + 1.0) / 2.0;
                ranks += rank * tied.iter().filter(|(_, own)| *own).count() as f64;
                ties += n.powi(3) - n;
                below += n;
            }
            let weight = 1.0 / (all + 1.0);
            let spread = own * (all - own) / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
            above += weight * (ranks - own * (all + 1.0) / 2.0);
            variance += weight.powi(2) * spread;
        }
        if variance > 0.0 { above / variance.sqrt() } else { 0.0 }
    }
}

/// 0 of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
