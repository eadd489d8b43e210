//! What the ledger says when asked: everything that is found by looking through it.

use super::{AttemptFacts, Condition, ConditionCount, JobEntry, Ledger, Observation, Reported, Seen};
use crate::experiment::job_key::{JobKey, JobPhase};
use flakefarm_shared::attempt::CollectionError;
use flakefarm_shared::{AttemptEnd, AttemptSpec, Scope, Selection, TestId, WorkerId};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// How many tests were seen to do what so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SeenInAll {
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
    Ended(&'a AttemptFacts),
}

/// One attempt that was planned or heard of.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// Its job.
    pub key: JobKey,
    /// Its place in the job.
    pub index: u32,
    /// What was asked for; none if it was heard of before its plan. The index in it says nothing.
    pub spec: Option<&'a AttemptSpec>,
    /// What became of it.
    pub standing: Standing<'a>,
}

impl Ledger {
    /// What was seen of `test`, sorted by job key and attempt index.
    pub fn observations(&self, test: &TestId) -> &[Observation] {
        match self.places.get(test) {
            Some(place) => &self.listed[*place],
            None => self.unlisted.get(test).map_or(&[], Vec::as_slice),
        }
    }

    /// What was seen of the test at `place`.
    pub fn observations_at(&self, place: usize) -> &[Observation] {
        &self.listed[place]
    }

    /// What was seen of each test that ran, listed ones first.
    pub(super) fn each_observed(&self) -> impl Iterator<Item = &Vec<Observation>> {
        self.listed.iter().filter(|seen| !seen.is_empty()).chain(self.unlisted.values())
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
    pub fn knows(&self, key: JobKey) -> bool {
        self.jobs.contains_key(&key)
    }

    /// Names of all jobs, sorted.
    pub fn keys(&self) -> impl Iterator<Item = JobKey> {
        self.jobs.keys().copied()
    }

    /// Names of the jobs of one phase, sorted.
    pub fn keys_of(&self, phase: JobPhase) -> impl Iterator<Item = JobKey> {
        let keys = self.jobs.range(JobKey::new(phase, 0)..).map(|(key, _)| *key);
        keys.take_while(move |key| key.phase == phase)
    }

    /// The number of the next job of a phase, or of one of its arms.
    pub fn next_number(&self, phase: JobPhase, arm: Option<u32>) -> u32 {
        let known = self.keys_of(phase).filter(|key| key.arm == arm).count();
        u32::try_from(known).expect("jobs are counted in 32 bits")
    }

    /// Attempts on more than one test's scope that gave samples, and that gave none although they were
    /// planned and ended or were lost.
    pub fn attempts_on_many(&self) -> (u32, u32) {
        let (mut useful, mut in_vain) = (0, 0);
        for attempt in self.each_attempt() {
            if attempt.spec.is_none_or(|spec| spec.scope == Scope::Test || !spec.treatment.is_plain()) {
                continue;
            }
            match attempt.standing {
                Standing::Outstanding => {}
                Standing::Lost => in_vain += 1,
                Standing::Ended(record) => match record.end {
                    AttemptEnd::Completed | AttemptEnd::Interrupted { .. } => useful += 1,
                    AttemptEnd::NothingRan { .. } | AttemptEnd::Infrastructure(_) => in_vain += 1,
                },
            }
        }
        (useful, in_vain)
    }

    /// Attempts on one test in which nothing ran.
    pub fn nothing_ran_alone(&self) -> u32 {
        let nothing = |record: &&AttemptFacts| {
            record.scope == Scope::Test
                && record.treatment.is_plain()
                && matches!(record.end, AttemptEnd::NothingRan { .. })
        };
        u32::try_from(self.records().filter(nothing).count()).expect("attempts are counted in 32 bits")
    }

    /// Jobs that were planned and of which nothing was heard, sorted.
    pub fn outstanding(&self) -> impl Iterator<Item = JobKey> {
        self.jobs
            .iter()
            .filter(|(_, entry)| entry.reported == Reported::NotYet && entry.lost.is_none())
            .map(|(key, _)| *key)
    }

    /// The attempts of one job, by index.
    pub fn attempts_of(&self, key: JobKey) -> Vec<Attempt<'_>> {
        self.jobs.get(&key).map_or_else(Vec::new, |entry| entry.attempts(key).collect())
    }

    /// One attempt, if it was planned or heard of.
    pub fn attempt(&self, key: JobKey, index: u32) -> Option<Attempt<'_>> {
        let entry = self.jobs.get(&key)?;
        let spec = entry.spec(index);
        (spec.is_some() || entry.record(index).is_some()).then(|| Attempt {
            key,
            index,
            spec,
            standing: entry.standing(index),
        })
    }

    /// Every attempt that was planned or heard of, sorted by job key and index.
    pub fn each_attempt(&self) -> impl Iterator<Item = Attempt<'_>> {
        self.jobs.iter().flat_map(|(key, entry)| entry.attempts(*key))
    }

    /// What was asked for in the attempt of an observation, if its plan is known. Two observations
    /// of one scope, order and selection saw the same treatment. The index in it says nothing.
    pub fn spec_of(&self, observation: &Observation) -> Option<&AttemptSpec> {
        self.jobs.get(&observation.key)?.spec(observation.index)
    }

    /// What the attempt `index` of job `key` said of `test`.
    pub fn seen_in(&self, test: &TestId, key: JobKey, index: u32) -> Option<&Seen> {
        let observations = self.observations(test);
        let place = observations.binary_search_by(|o| (o.key, o.index).cmp(&(key, index))).ok()?;
        Some(&observations[place].seen)
    }

    /// Whether the attempt `index` of job `key` said anything of `test`.
    pub fn has_sample(&self, test: &TestId, key: JobKey, index: u32) -> bool {
        self.seen_in(test, key, index).is_some()
    }

    /// Attempts that ended, infrastructure errors not counted.
    pub fn attempts(&self) -> u64 {
        let ended = self.records().filter(|record| !matches!(record.end, AttemptEnd::Infrastructure(_)));
        ended.count() as u64
    }

    /// How many tests were seen to pass, to fail, or both.
    pub fn tally(&self) -> SeenInAll {
        let mut tally = SeenInAll::default();
        for observations in self.each_observed() {
            let witnesses = || {
                observations.iter().filter(|o| {
                    o.treatment.other_source().is_none() && o.treatment.world.role().witnesses_flakiness()
                })
            };
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
        self.each_observed().map(|observations| observations.len() as u64).sum()
    }

    /// Infrastructure errors: attempts that ended with one, and lost jobs.
    pub fn infrastructure_errors(&self) -> u64 {
        let attempts = self.records().filter(|record| matches!(record.end, AttemptEnd::Infrastructure(_)));
        (attempts.count() + self.lost_jobs().count()) as u64
    }

    /// Jobs that are lost, with the reason.
    pub fn lost_jobs(&self) -> impl Iterator<Item = (JobKey, &str)> {
        self.jobs
            .iter()
            .filter(|(_, entry)| entry.reported == Reported::NotYet)
            .filter_map(|(key, entry)| Some((*key, entry.lost.as_deref()?)))
    }

    /// Time spent in containers, in seconds.
    pub fn container_seconds(&self) -> f64 {
        let micros: u64 = self.records().map(|record| record.wall_us).sum();
        micros as f64 / 1e6
    }

    /// The same without attempts in which something was changed on purpose.
    pub fn plain_container_seconds(&self) -> f64 {
        let plain = self.records().filter(|record| record.treatment.is_plain());
        plain.map(|record| record.wall_us).sum::<u64>() as f64 / 1e6
    }

    /// Mean duration in seconds of attempts of `scope` that ran to their end or were interrupted, with
    /// nothing changed around the tests; none if there is none.
    pub fn mean_attempt_seconds(&self, scope: Scope) -> Option<f64> {
        let (seconds, count) = self.attempt_seconds(scope);
        (count > 0).then(|| seconds / count as f64)
    }

    /// Seconds spent in attempts of `scope` that ran to their end or were interrupted, with nothing
    /// changed around the tests, and how many there are.
    pub fn attempt_seconds(&self, scope: Scope) -> (f64, u64) {
        let (mut micros, mut count) = (0_u64, 0_u64);
        for record in self.records().filter(|record| record.scope == scope && record.treatment.is_plain()) {
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
    pub fn missing(&self, key: JobKey, index: u32) -> Vec<TestId> {
        let Some(Attempt { spec: Some(spec), standing: Standing::Ended(_), .. }) = self.attempt(key, index)
        else {
            return Vec::new();
        };
        let selected = match &spec.tests {
            Selection::All => self.tests.as_slice(),
            Selection::Only(tests) => tests,
        };
        selected.iter().filter(|test| !self.has_sample(test, key, index)).cloned().collect()
    }

    /// Files that could not be collected in some plain attempt, by path, each with one of its errors.
    pub fn collection_errors(&self) -> Vec<CollectionError> {
        let mut errors: BTreeMap<&str, &str> = BTreeMap::new();
        let plain = self.records().filter(|record| record.treatment.is_plain());
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
            .filter(|record| record.treatment.is_plain())
            .filter_map(|record| match &record.end {
                AttemptEnd::NothingRan { reason, .. } => Some(reason.as_str()),
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

    /// Names of the jobs in which a worker ran something, sorted.
    pub fn jobs_of<'a>(&'a self, worker: &'a WorkerId) -> impl Iterator<Item = JobKey> + 'a {
        let ran = |entry: &JobEntry| entry.records.iter().any(|record| record.worker == *worker);
        self.jobs.iter().filter(move |(_, entry)| ran(entry)).map(|(key, _)| *key)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &AttemptFacts> {
        self.each_ended().map(|attempt| &**attempt)
    }
}

impl JobEntry {
    /// Those that were planned, then those that were heard of before.
    fn attempts<'a>(&'a self, key: JobKey) -> impl Iterator<Item = Attempt<'a>> {
        let planned = self.planned.iter().flatten();
        let records = self.records.iter().map(|record| record.index);
        let ahead_of_plan = records.filter(|index| self.spec(*index).is_none());
        planned
            .map(|attempt| (attempt.index, Some(&attempt.asked.spec)))
            .chain(ahead_of_plan.map(|index| (index, None)))
            .map(move |(index, spec)| Attempt { key, index, spec, standing: self.standing(index) })
    }

    /// The place of an attempt among those that were planned.
    pub(super) fn slot(&self, index: u32) -> Option<usize> {
        self.planned.as_ref()?.binary_search_by_key(&index, |attempt| attempt.index).ok()
    }

    fn spec(&self, index: u32) -> Option<&AttemptSpec> {
        let slot = self.slot(index)?;
        Some(&self.planned.as_ref()?[slot].asked.spec)
    }

    /// The place of an attempt's record, or where it would be.
    pub(super) fn place_of_record(&self, index: u32) -> Result<usize, usize> {
        self.records.binary_search_by_key(&index, |record| record.index)
    }

    pub(super) fn record(&self, index: u32) -> Option<&AttemptFacts> {
        self.place_of_record(index).ok().map(|place| &*self.records[place])
    }

    pub(super) fn standing(&self, index: u32) -> Standing<'_> {
        match self.record(index) {
            Some(record) => Standing::Ended(record),
            None if self.reported == Reported::Yes || self.lost.is_some() => Standing::Lost,
            None => Standing::Outstanding,
        }
    }
}
