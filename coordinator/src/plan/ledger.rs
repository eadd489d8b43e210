//! What a sweep has asked for and what it was told: the only memory of planner and scorer.
//!
//! Notes may arrive late, twice and in any order; the ledger that results is the same. It never
//! decides anything and never reads a clock.

use flakefarm_shared::attempt::CollectionError;
use flakefarm_shared::{
    AttemptEnd, AttemptRecord, AttemptSpec, Digest, Failure, JobReport, Order, Outcome, SandboxLevel, Scope,
    Selection, TestId, UnixMicros, WorkerId, World,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// How the world of one observation differed from the others: by what else ran, in which order, and
/// by what was changed around the tests on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The suite, as collected.
    Given,
    /// The suite, last test first.
    Reversed,
    /// The suite, shuffled.
    Shuffled,
    /// The test alone.
    Alone,
    /// Its file alone.
    File,
    /// Chosen tests in a chosen order.
    Chosen,
    /// Something was changed around the tests, whatever else ran.
    World(World),
}

impl Condition {
    /// The conditions of plain attempts, in the order reports list them.
    pub const PLAIN: [Condition; 6] = [
        Condition::Given,
        Condition::Reversed,
        Condition::Shuffled,
        Condition::Alone,
        Condition::File,
        Condition::Chosen,
    ];

    /// The condition of an attempt.
    pub fn of(scope: Scope, order: Order, world: World) -> Self {
        if !world.is_plain() {
            return Condition::World(world);
        }
        match (scope, order) {
            (Scope::Test, _) => Condition::Alone,
            (Scope::File, _) => Condition::File,
            (Scope::Suite, Order::Given) => Condition::Given,
            (Scope::Suite, Order::Reversed) => Condition::Reversed,
            (Scope::Suite, Order::Shuffled { .. }) => Condition::Shuffled,
            (Scope::Suite, Order::AsListed) => Condition::Chosen,
        }
    }

    /// The stable words used in reports.
    pub fn words(self) -> Cow<'static, str> {
        match self {
            Condition::Given => "given order".into(),
            Condition::Reversed => "reversed".into(),
            Condition::Shuffled => "shuffled".into(),
            Condition::Alone => "alone".into(),
            Condition::File => "file alone".into(),
            Condition::Chosen => "chosen tests".into(),
            Condition::World(world) => world.to_string().into(),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words())
    }
}

/// What one attempt said of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The planner's name of the job.
    pub key: Arc<str>,
    /// The attempt's place in it.
    pub index: u32,
    /// What the attempt ran.
    pub scope: Scope,
    /// In which order.
    pub order: Order,
    /// What was changed around the tests.
    pub world: World,
    /// How the attempt was isolated.
    pub level: SandboxLevel,
    /// When its sandbox started.
    pub started_at: UnixMicros,
    /// Who ran it.
    pub worker: Arc<WorkerId>,
    /// Attempts that ran at once on that worker, this one included.
    pub concurrency: u16,
    /// What the test did.
    pub seen: Seen,
    /// Wall-clock time in microseconds.
    pub wall_us: u64,
    /// CPU time in microseconds.
    pub cpu_us: u64,
    /// The test's place in the attempt's order, from 0.
    pub position: u32,
}

impl Observation {
    /// Its condition.
    pub fn condition(&self) -> Condition {
        Condition::of(self.scope, self.order, self.world)
    }
}

/// What a test did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It passed.
    Pass,
    /// It failed. Boxed: failures are large and rare.
    Fail(Box<SeenFailure>),
    /// It was skipped.
    Skip,
}

/// A failure and what was printed during it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFailure {
    /// The failure.
    pub failure: Failure,
    /// Captured output, as a blob.
    pub output: Option<Digest>,
}

/// Attempts and failures of one test under one condition; skips are neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionCount {
    /// The condition.
    pub condition: Condition,
    /// Passes and failures.
    pub attempts: u32,
    /// Failures.
    pub failures: u32,
}

/// How many tests were seen to do what so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Passed and failed.
    pub both: usize,
    /// Only failed.
    pub only_failed: usize,
    /// Only passed.
    pub only_passed: usize,
}

/// What became of one planned attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Nothing was heard of it yet.
    Outstanding,
    /// It is known that nothing will be heard of it: its job is lost, or reported without it.
    Lost,
    /// It ended.
    Ended(&'a AttemptRecord),
}

/// One attempt that was planned or heard of.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The planner's name of its job.
    pub key: &'a str,
    /// Its place in the job.
    pub index: u32,
    /// What was asked for; none if it was heard of before its plan.
    pub spec: Option<&'a AttemptSpec>,
    /// What became of it.
    pub standing: Standing<'a>,
}

/// The memory of a sweep.
#[derive(Debug, Clone)]
pub struct Ledger {
    tests: Vec<TestId>,
    places: HashMap<TestId, usize>,
    jobs: BTreeMap<Arc<str>, JobEntry>,
    /// Per test, sorted by (key, index). Tests that were not listed are here too.
    observations: BTreeMap<TestId, Vec<Observation>>,
}

#[derive(Debug, Clone, Default)]
struct JobEntry {
    planned: Option<Vec<AttemptSpec>>,
    /// Without their samples, which are kept per test.
    records: BTreeMap<u32, AttemptRecord>,
    ranks: BTreeMap<u32, Rank>,
    reported: Reported,
    lost: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Reported {
    #[default]
    NotYet,
    Yes,
}

/// Which of several records of one attempt stands: the least.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    kind: u8,
    started_at: UnixMicros,
    content: Digest,
}

impl Rank {
    fn of(record: &AttemptRecord) -> Self {
        let kind = match record.end {
            AttemptEnd::Completed | AttemptEnd::Interrupted { .. } => 0,
            AttemptEnd::NothingRan { .. } => 1,
            AttemptEnd::Infrastructure(_) => 2,
        };
        let content = serde_json::to_vec(record).expect("a record is plain data");
        Self { kind, started_at: record.started_at, content: Digest::of(&content) }
    }
}

impl Ledger {
    /// A ledger of a sweep over `tests`, in the order their framework lists them.
    pub fn new(tests: Vec<TestId>) -> Self {
        let mut ledger = Self {
            tests: Vec::new(),
            places: HashMap::new(),
            jobs: BTreeMap::new(),
            observations: BTreeMap::new(),
        };
        for test in tests {
            if !ledger.places.contains_key(&test) {
                ledger.places.insert(test.clone(), ledger.tests.len());
                ledger.tests.push(test);
            }
        }
        ledger
    }

    /// The listed tests, in the framework's order.
    pub fn tests(&self) -> &[TestId] {
        &self.tests
    }

    /// Place of a test in [`Ledger::tests`].
    pub fn place(&self, test: &TestId) -> Option<usize> {
        self.places.get(test).copied()
    }

    /// Tests that ran although they were not listed (generated at run time, say). What only another
    /// world generates is not among them.
    pub fn unlisted_tests(&self) -> impl Iterator<Item = &TestId> {
        let plain = |observations: &[Observation]| observations.iter().any(|o| o.world.is_plain());
        self.observations
            .iter()
            .filter(move |(test, observations)| !self.places.contains_key(*test) && plain(observations))
            .map(|(test, _)| test)
    }

    /// Notes that the job `key` was planned. A second note of the same key changes nothing.
    pub fn note_planned(&mut self, key: &str, attempts: &[AttemptSpec]) {
        let entry = self.jobs.entry(Arc::from(key)).or_default();
        if entry.planned.is_none() {
            entry.planned = Some(attempts.to_vec());
        }
    }

    /// Notes what a worker reported of the job `key`. Of two different records of one attempt, one
    /// with an outcome stands before an infrastructure error, then the earlier one: a rule that does
    /// not depend on which came first.
    pub fn note_report(&mut self, key: &str, report: &JobReport) {
        let key: Arc<str> = Arc::from(key);
        self.jobs.entry(Arc::clone(&key)).or_default().reported = Reported::Yes;
        for record in &report.attempts {
            let entry = self.jobs.entry(Arc::clone(&key)).or_default();
            let rank = Rank::of(record);
            if entry.ranks.get(&record.index).is_none_or(|known| rank < *known) {
                entry.ranks.insert(record.index, rank);
                self.replace(&key, record);
            }
        }
    }

    /// Notes that nothing will be heard of the job `key`, and why. A report of it that arrives all
    /// the same counts.
    pub fn note_lost(&mut self, key: &str, reason: &str) {
        let entry = self.jobs.entry(Arc::from(key)).or_default();
        match &entry.lost {
            Some(known) if known.as_str() <= reason => {}
            Some(_) | None => entry.lost = Some(reason.to_owned()),
        }
    }

    fn replace(&mut self, key: &Arc<str>, record: &AttemptRecord) {
        let at =
            |observation: &Observation| observation.key.cmp(key).then(observation.index.cmp(&record.index));
        let known = self.jobs.get(key).is_some_and(|entry| entry.records.contains_key(&record.index));
        if known {
            for observations in self.observations.values_mut() {
                if let Ok(place) = observations.binary_search_by(at) {
                    observations.remove(place);
                }
            }
            self.observations.retain(|_, observations| !observations.is_empty());
        }
        let worker = Arc::new(record.worker.clone());
        for sample in &record.samples {
            let observations = self.observations.entry(sample.test.clone()).or_default();
            let Err(place) = observations.binary_search_by(at) else {
                continue; // a worker that reports a test twice in one attempt is heard once
            };
            let seen = match &sample.outcome {
                Outcome::Pass => Seen::Pass,
                Outcome::Skip { .. } => Seen::Skip,
                Outcome::Fail(failure) => Seen::Fail(Box::new(SeenFailure {
                    failure: failure.clone(),
                    output: sample.output.clone(),
                })),
            };
            observations.insert(
                place,
                Observation {
                    key: Arc::clone(key),
                    index: record.index,
                    scope: record.scope,
                    order: record.order,
                    world: record.world,
                    level: record.level,
                    started_at: record.started_at,
                    worker: Arc::clone(&worker),
                    concurrency: record.concurrency,
                    seen,
                    wall_us: sample.wall_us,
                    cpu_us: sample.cpu_us,
                    position: sample.position,
                },
            );
        }
        let light = AttemptRecord { samples: Vec::new(), ..record.clone() };
        self.jobs.entry(Arc::clone(key)).or_default().records.insert(record.index, light);
    }

    /// What was seen of `test`, sorted by job key and attempt index.
    pub fn observations(&self, test: &TestId) -> &[Observation] {
        self.observations.get(test).map_or(&[], Vec::as_slice)
    }

    /// Attempts and failures of `test` by condition, conditions without attempts left out.
    pub fn counts(&self, test: &TestId) -> Vec<ConditionCount> {
        let mut counts: BTreeMap<Condition, ConditionCount> = BTreeMap::new();
        for observation in self.observations(test) {
            let failed = match observation.seen {
                Seen::Pass => 0,
                Seen::Fail(_) => 1,
                Seen::Skip => continue,
            };
            let condition = observation.condition();
            let count =
                counts.entry(condition).or_insert(ConditionCount { condition, attempts: 0, failures: 0 });
            count.attempts += 1;
            count.failures += failed;
        }
        counts.into_values().collect()
    }

    /// Whether a job of that name was planned or heard of.
    pub fn knows(&self, key: &str) -> bool {
        self.jobs.contains_key(key)
    }

    /// Names of all jobs, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.jobs.keys().map(AsRef::as_ref)
    }

    /// Jobs that were planned and of which nothing was heard, sorted.
    pub fn outstanding(&self) -> impl Iterator<Item = &str> {
        self.jobs
            .iter()
            .filter(|(_, entry)| entry.reported == Reported::NotYet && entry.lost.is_none())
            .map(|(key, _)| key.as_ref())
    }

    /// The attempts of one job, by index.
    pub fn attempts_of<'a>(&'a self, key: &str) -> Vec<Attempt<'a>> {
        self.jobs.get_key_value(key).map_or_else(Vec::new, |(key, entry)| entry.attempts(key).collect())
    }

    /// One attempt, if it was planned or heard of.
    pub fn attempt(&self, key: &str, index: u32) -> Option<Attempt<'_>> {
        let (key, entry) = self.jobs.get_key_value(key)?;
        entry.attempts(key).find(|attempt| attempt.index == index)
    }

    /// Every attempt that was planned or heard of, sorted by job key and index.
    pub fn each_attempt(&self) -> impl Iterator<Item = Attempt<'_>> {
        self.jobs.iter().flat_map(|(key, entry)| entry.attempts(key))
    }

    /// What was asked for in the attempt of an observation, if its plan is known. Two observations
    /// of one scope, order and selection saw the same treatment.
    pub fn spec_of(&self, observation: &Observation) -> Option<&AttemptSpec> {
        let planned = self.jobs.get(&observation.key)?.planned.as_ref()?;
        planned.iter().find(|spec| spec.index == observation.index)
    }

    /// Whether the attempt `index` of job `key` said anything of `test`.
    pub fn has_sample(&self, test: &TestId, key: &str, index: u32) -> bool {
        self.observations(test)
            .binary_search_by(|o| o.key.as_ref().cmp(key).then(o.index.cmp(&index)))
            .is_ok()
    }

    /// Attempts that ended, infrastructure errors not counted.
    pub fn attempts(&self) -> u64 {
        let ended = self.records().filter(|record| !matches!(record.end, AttemptEnd::Infrastructure(_)));
        ended.count() as u64
    }

    /// How many tests were seen to pass, to fail, or both.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for observations in self.observations.values() {
            let witnesses = || observations.iter().filter(|o| o.world.role().witnesses_flakiness());
            let passed = witnesses().any(|o| matches!(o.seen, Seen::Pass));
            let failed = witnesses().any(|o| matches!(o.seen, Seen::Fail(_)));
            match (passed, failed) {
                (true, true) => tally.both += 1,
                (true, false) => tally.only_passed += 1,
                (false, true) => tally.only_failed += 1,
                (false, false) => {}
            }
        }
        tally
    }

    /// Samples recorded.
    pub fn samples_total(&self) -> u64 {
        self.observations.values().map(|observations| observations.len() as u64).sum()
    }

    /// Infrastructure errors: attempts that ended with one, and lost jobs.
    pub fn infrastructure_errors(&self) -> u64 {
        let attempts = self.records().filter(|record| matches!(record.end, AttemptEnd::Infrastructure(_)));
        (attempts.count() + self.lost_jobs().count()) as u64
    }

    /// Jobs that are lost, with the reason.
    pub fn lost_jobs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.jobs
            .iter()
            .filter(|(_, entry)| entry.reported == Reported::NotYet)
            .filter_map(|(key, entry)| Some((key.as_ref(), entry.lost.as_deref()?)))
    }

    /// Time spent in containers, in seconds.
    pub fn container_seconds(&self) -> f64 {
        let micros: u64 = self.records().map(|record| record.wall_us).sum();
        micros as f64 / 1e6
    }

    /// Mean duration in seconds of plain attempts of `scope` that ran to their end or were interrupted;
    /// none if there is none.
    pub fn mean_attempt_seconds(&self, scope: Scope) -> Option<f64> {
        let (seconds, count) = self.attempt_seconds(scope);
        (count > 0).then(|| seconds / count as f64)
    }

    /// Seconds spent in plain attempts of `scope` that ran to their end or were interrupted, and how many
    /// there are.
    pub fn attempt_seconds(&self, scope: Scope) -> (f64, u64) {
        let (mut micros, mut count) = (0_u64, 0_u64);
        for record in self.records().filter(|record| record.scope == scope && record.world.is_plain()) {
            match record.end {
                AttemptEnd::Completed | AttemptEnd::Interrupted { .. } => {
                    micros += record.wall_us;
                    count += 1;
                }
                AttemptEnd::NothingRan { .. } | AttemptEnd::Infrastructure(_) => {}
            }
        }
        (micros as f64 / 1e6, count)
    }

    /// Tests an attempt was to run and said nothing of, in listing order. Missing data: neither
    /// passes nor failures. Empty for attempts that have not ended.
    pub fn missing(&self, key: &str, index: u32) -> Vec<TestId> {
        let Some(Attempt { spec: Some(spec), standing: Standing::Ended(_), .. }) = self.attempt(key, index)
        else {
            return Vec::new();
        };
        let selected = match &spec.tests {
            Selection::All => &self.tests,
            Selection::Only(tests) => tests,
        };
        selected.iter().filter(|test| !self.has_sample(test, key, index)).cloned().collect()
    }

    /// Files that could not be collected in some plain attempt, by path, each with one of its errors.
    pub fn collection_errors(&self) -> Vec<CollectionError> {
        let mut errors: BTreeMap<&str, &str> = BTreeMap::new();
        let plain = self.records().filter(|record| record.world.is_plain());
        for error in plain.flat_map(|record| &record.collection_errors) {
            let message = errors.entry(&error.path).or_insert(&error.message);
            *message = (*message).min(&error.message);
        }
        let own = |(path, message): (&str, &str)| CollectionError {
            path: path.to_owned(),
            message: message.to_owned(),
        };
        errors.into_iter().map(own).collect()
    }

    /// Why nothing ran in plain attempts in which something should have, each reason once.
    pub fn nothing_ran(&self) -> BTreeSet<&str> {
        self.records()
            .filter(|record| record.world.is_plain())
            .filter_map(|record| match &record.end {
                AttemptEnd::NothingRan { reason } => Some(reason.as_str()),
                AttemptEnd::Completed | AttemptEnd::Interrupted { .. } | AttemptEnd::Infrastructure(_) => {
                    None
                }
            })
            .collect()
    }

    /// Workers that ran something.
    pub fn workers(&self) -> HashSet<&WorkerId> {
        self.records().map(|record| &record.worker).collect()
    }

    fn records(&self) -> impl Iterator<Item = &AttemptRecord> {
        self.jobs.values().flat_map(|entry| entry.records.values())
    }
}

impl JobEntry {
    fn attempts<'a>(&'a self, key: &'a str) -> impl Iterator<Item = Attempt<'a>> {
        let planned = self.planned.iter().flatten();
        let ahead_of_plan = self
            .records
            .keys()
            .copied()
            .filter(move |index| !self.planned.iter().flatten().any(|spec| spec.index == *index));
        planned
            .map(|spec| (spec.index, Some(spec)))
            .chain(ahead_of_plan.map(|index| (index, None)))
            .map(move |(index, spec)| Attempt { key, index, spec, standing: self.standing(index) })
    }

    fn standing(&self, index: u32) -> Standing<'_> {
        match self.records.get(&index) {
            Some(record) => Standing::Ended(record),
            None if self.reported == Reported::Yes || self.lost.is_some() => Standing::Lost,
            None => Standing::Outstanding,
        }
    }
}
