//! A farm without containers: a clock that jumps, workers that take jobs in order and report when
//! they are through, and weather. What it drives is real: the planner, the ledger, and whoever
//! judges the ledger afterwards.

use super::attempt::{Mishap, Runs};
use super::dice;
use super::population::{Population, unit};
use crate::experiment::{History, JobKey, JobPhase, Ledger, Plan, PlannedJob, Planning, Question};
use flakefarm_shared::{
    AttemptSpec, JobReport, Scope, Selection, SweepId, UnixMicros, WIRE_VERSION, WorkerId,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

/// How often the farm fails by itself.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Share of attempts that end with an infrastructure error.
    pub infrastructure: f64,
    /// Share of jobs that are lost.
    pub lost: f64,
    /// Share of attempts in which nothing runs.
    pub nothing_ran: f64,
    /// Share of reports that arrive twice.
    pub twice: f64,
    /// Seconds by which a report may be late.
    pub late: f64,
    /// Failures in a row that one test or slot meets at most.
    pub in_a_row: u32,
}

impl Weather {
    /// Nothing goes wrong.
    pub const CALM: Weather =
        Weather { infrastructure: 0.0, lost: 0.0, nothing_ran: 0.0, twice: 0.0, late: 0.0, in_a_row: 0 };

    /// This share of the attempts ends with an infrastructure error, a tenth as many jobs are lost,
    /// and some reports are late or come twice.
    pub fn noisy(infrastructure: f64) -> Self {
        let lost = infrastructure / 10.0;
        Self { infrastructure, lost, nothing_ran: 0.0, twice: 0.02, late: 5.0, in_a_row: u32::MAX }
    }
}

/// A simulated farm.
#[derive(Debug, Clone, Copy)]
pub struct Farm<'a> {
    /// What it tests.
    pub population: &'a Population,
    /// What goes wrong.
    pub weather: Weather,
    /// Jobs at once.
    pub workers: usize,
    /// Reports after which it is planned again although there still is work; 1: every report.
    pub gather: usize,
    /// Where luck comes from.
    pub seed: u64,
    /// When the sweep starts.
    pub starts_at: UnixMicros,
}

/// What a sweep left behind.
#[derive(Debug)]
pub struct Carried {
    /// All that was asked for and told.
    pub ledger: Ledger,
    /// How long it took by the simulated clock.
    pub wall: Duration,
    /// How often it was planned.
    pub rounds: u32,
}

/// The planner says that there is something to do, and nothing is being done.
#[derive(Debug, thiserror::Error)]
#[error("the planner waits for nothing after {attempts} attempts")]
pub struct Stalled {
    /// Attempts made until then.
    pub attempts: u64,
}

struct UnderWay {
    job: PlannedJob,
    worker: usize,
    began: u64,
}

impl Farm<'_> {
    /// Plans and runs to the end.
    pub fn carry_out(
        &self,
        question: &Question,
        history: &History,
        planner: &mut dyn FnMut(&Question, &Ledger, &History, Duration) -> Plan,
    ) -> Result<Carried, Stalled> {
        let mut ledger = Ledger::new(self.population.ids());
        let mut runs = Runs::new(self.population, self.seed);
        let mut spoiled = Spoiled::default();
        let mut waiting: VecDeque<PlannedJob> = VecDeque::new();
        // Ends by time, then by number, so that ties do not depend on anything else.
        let mut ends: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
        let mut under_way: BTreeMap<u64, (UnderWay, Option<JobReport>)> = BTreeMap::new();
        let mut idle: Vec<usize> = (0..self.workers).rev().collect();
        let (mut now, mut number, mut rounds, mut since_plan) = (0_u64, 0_u64, 0_u32, self.gather);
        loop {
            let hungry = !idle.is_empty() && waiting.is_empty();
            if since_plan >= self.gather || hungry {
                let plan = planner(question, &ledger, history, Duration::from_micros(now));
                rounds += 1;
                since_plan = 0;
                for job in plan.jobs {
                    ledger.note_planned(job.key, &job.attempts);
                    waiting.push_back(job);
                }
                if plan.state == Planning::Complete && waiting.is_empty() && ends.is_empty() {
                    return Ok(Carried { ledger, wall: Duration::from_micros(now), rounds });
                }
            }
            while let (Some(worker), true) = (idle.last().copied(), !waiting.is_empty()) {
                idle.pop();
                let job = waiting.pop_front().expect("something is waiting");
                let (seconds, report) = self.work(&job, worker, now, &mut runs, &mut spoiled);
                ends.push(Reverse((now + seconds, number)));
                under_way.insert(number, (UnderWay { job, worker, began: now }, report));
                number += 1;
            }
            let Some(Reverse((at, ended))) = ends.pop() else {
                if since_plan == 0 {
                    return Err(Stalled { attempts: ledger.attempts() });
                }
                since_plan = self.gather;
                continue;
            };
            now = at.max(now);
            since_plan += 1;
            let (done, report) = under_way.remove(&ended).expect("it was under way");
            if done.worker < self.workers {
                idle.push(done.worker);
            }
            match &report {
                Some(told) => ledger.note_report(done.job.key, told),
                None => ledger.note_lost(done.job.key, "its worker was lost four times"),
            }
            if report.is_some() && done.worker < self.workers && self.comes_twice(done.job.key) {
                let again = UnderWay { worker: usize::MAX, ..done };
                let late = (now - again.began).max(1);
                ends.push(Reverse((now + late, number)));
                under_way.insert(number, (again, report));
                number += 1;
            }
        }
    }

    fn comes_twice(&self, key: JobKey) -> bool {
        self.weather.twice > 0.0 && unit(&mut dice(self.seed, &format!("twice:{key}"))) < self.weather.twice
    }

    /// How long the job takes in microseconds, and its report; none if it is lost.
    fn work(
        &self,
        job: &PlannedJob,
        worker: usize,
        now: u64,
        runs: &mut Runs<'_>,
        spoiled: &mut Spoiled,
    ) -> (u64, Option<JobReport>) {
        let mut dice = dice(self.seed, &job.key.to_string());
        let most = self.weather.in_a_row;
        let labels: Vec<String> = job.attempts.iter().map(|spec| label(job.key, spec)).collect();
        let late = (self.weather.late * unit(&mut dice) * 1e6) as u64;
        let spared = labels.iter().any(|label| spoiled.times(label) >= most);
        if !spared && unit(&mut dice) < self.weather.lost {
            labels.into_iter().for_each(|label| spoiled.add(label));
            return (60_000_000 + late, None);
        }
        let name = WorkerId(format!("worker-{worker}"));
        let mut attempts = Vec::with_capacity(job.attempts.len());
        let mut spent = 0;
        for (spec, label) in job.attempts.iter().zip(labels) {
            let mut mishap = None;
            if unit(&mut dice) < self.weather.infrastructure {
                mishap = Some(Mishap::Infrastructure);
            } else if unit(&mut dice) < self.weather.nothing_ran && spoiled.times(NOTHING) < most {
                mishap = Some(Mishap::NothingRan);
            }
            mishap = mishap.filter(|_| spoiled.times(&label) < most);
            if mishap == Some(Mishap::NothingRan) {
                spoiled.add(NOTHING.to_owned());
            }
            if mishap.is_some() {
                spoiled.add(label);
            }
            let mut record = runs.make(spec, &name, mishap, &mut dice);
            record.started_at = self.starts_at + i64::try_from(now + spent).expect("a sweep ends");
            spent += record.wall_us;
            attempts.push(record);
        }
        let id = job.key.id(SweepId(uuid::Uuid::nil()));
        (spent + late, Some(JobReport { v: WIRE_VERSION, job: id, listing: None, attempts }))
    }
}

const NOTHING: &str = "attempts in which nothing ran";

/// How often what the planner tries again has been spoiled.
#[derive(Debug, Default)]
struct Spoiled(BTreeMap<String, u32>);

impl Spoiled {
    fn times(&self, label: &str) -> u32 {
        self.0.get(label).copied().unwrap_or_default()
    }

    fn add(&mut self, label: String) {
        *self.0.entry(label).or_default() += 1;
    }
}

/// What the planner tries again: a test alone, or the slot at the root of a chain.
fn label(key: JobKey, spec: &AttemptSpec) -> String {
    match (spec.scope, &spec.tests, key.phase) {
        (Scope::Test, Selection::Only(tests), _) if tests.len() == 1 => tests[0].0.clone(),
        (_, _, JobPhase::Slots(series) | JobPhase::Retry(series)) => {
            format!("{series:?} {}", key.arm.unwrap_or(key.number + spec.index))
        }
        (_, _, _) => format!("{key}.{}", spec.index),
    }
}
