//! What a sweep has asked for and what it was told: the only memory of planner and scorer.
//!
//! Notes may arrive late, twice and in any order; the ledger that results is the same. It never
//! decides anything and never reads a clock. What planning asks of every test at every turn is
//! counted as notes come in ([`TestTally`]), so that a round over a large suite looks at tests and
//! not at all they ever did.

mod counting;
mod observation;
mod reading;
mod renaming;
mod shared;
#[cfg(test)]
mod tests;

pub use counting::TestTally;
pub use observation::{
    Alike, Aside, AttemptFacts, Condition, ConditionCount, Observation, Seen, SeenFailure,
};
pub use reading::{Attempt, SeenInAll, Standing};
pub use shared::{Shared, Subject};

use crate::experiment::job_key::JobKey;
use crate::experiment::seed::file_of;
use counting::{Counted, Coverage};
use flakefarm_shared::{
    AttemptEnd, AttemptRecord, AttemptSpec, JobReport, Listing, Outcome, Selection, TestId, UnixMicros,
};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Observations of a test are kept with room for one in so many more. Twice as many at a time, as vectors grow by
/// themselves, would leave a quarter of it empty.
const ROOM: usize = 8;

/// The memory of a sweep.
#[derive(Debug, Clone)]
pub struct Ledger {
    tests: Vec<TestId>,
    places: HashMap<TestId, usize>,
    /// Of listed tests by place, as far as the listing tells it.
    files: Vec<Option<Arc<str>>>,
    /// Shared, as the next, between a ledger and what is read from it with something added.
    jobs: Arc<BTreeMap<JobKey, JobEntry>>,
    /// Of listed tests by place, each sorted by (key, index).
    listed: Arc<Vec<Vec<Observation>>>,
    /// Of tests that ran although they were not listed (generated at run time, say).
    unlisted: BTreeMap<TestId, Vec<Observation>>,
    tallies: Vec<TestTally>,
    /// Attempts on everything that are under way.
    all_under_way: u32,
    /// Time in tests, by scope, in microseconds.
    in_tests_us: [u64; 3],
    renaming: renaming::Renaming,
    asked: HashSet<Arc<Asked>>,
    selections: HashSet<Arc<[TestId]>>,
    commons: observation::Commons,
}

/// A job. A sweep may plan millions of attempts and read as many records: each costs some bytes here, and what
/// several have in common is kept once.
#[derive(Debug, Clone, Default)]
struct JobEntry {
    /// By their indices.
    planned: Option<Vec<Planned>>,
    /// What each of `planned` has added to the counts; empty once none has.
    counted: Vec<Counted>,
    /// Of the attempts whose records stand, by their indices.
    records: Vec<Arc<AttemptFacts>>,
    reported: Reported,
    lost: Option<String>,
}

/// An attempt that was asked for.
#[derive(Debug, Clone)]
struct Planned {
    index: u32,
    asked: Arc<Asked>,
}

/// What was asked for in one or more attempts, by its spec, whose index says nothing.
#[derive(Debug)]
struct Asked {
    spec: AttemptSpec,
    coverage: Coverage,
}

impl PartialEq for Asked {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

impl Eq for Asked {}

impl Hash for Asked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spec.hash(state);
    }
}

impl AttemptFacts {
    fn rank(&self) -> Rank {
        Rank { kind: kind_of(&self.end), started_at: self.started_at, content: self.content }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Reported {
    #[default]
    NotYet,
    Yes,
}

/// Which of several records of one attempt stands: the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    kind: u8,
    started_at: UnixMicros,
    /// The beginning of its SHA-256.
    content: u64,
}

impl Rank {
    fn of(record: &AttemptRecord) -> Self {
        let content = serde_json::to_vec(record).expect("a record is plain data");
        let digest = Sha256::digest(&content);
        let content = u64::from_be_bytes(digest[..8].try_into().expect("a SHA-256 digest has 32 bytes"));
        Self { kind: kind_of(&record.end), started_at: record.started_at, content }
    }
}

fn kind_of(end: &AttemptEnd) -> u8 {
    match end {
        AttemptEnd::Completed | AttemptEnd::Interrupted { .. } => 0,
        AttemptEnd::NothingRan { .. } => 1,
        AttemptEnd::Infrastructure(_) => 2,
    }
}

impl Ledger {
    /// A ledger of a sweep over `tests`, in the order their framework lists them.
    pub fn new(tests: Vec<TestId>) -> Self {
        let mut ledger = Self {
            tests: Vec::new(),
            places: HashMap::new(),
            files: Vec::new(),
            jobs: Arc::default(),
            listed: Arc::default(),
            unlisted: BTreeMap::new(),
            tallies: Vec::new(),
            all_under_way: 0,
            in_tests_us: [0; 3],
            renaming: renaming::Renaming::default(),
            asked: HashSet::new(),
            selections: HashSet::new(),
            commons: observation::Commons::default(),
        };
        for test in tests {
            if !ledger.places.contains_key(&test) {
                ledger.places.insert(test.clone(), ledger.tests.len());
                ledger.tests.push(test);
            }
        }
        ledger.listed = Arc::new(vec![Vec::new(); ledger.tests.len()]);
        ledger.tallies = vec![TestTally::default(); ledger.tests.len()];
        ledger
    }

    /// The same ledger, knowing the files of tests as `listing` tells them.
    pub fn with_files(mut self, listing: &Listing) -> Self {
        let mut known: HashMap<&str, Arc<str>> = HashMap::new();
        self.files = vec![None; self.tests.len()];
        for (test, parts) in listing.tests.iter().zip(&listing.parts) {
            let Some(place) = self.place(test).filter(|_| !parts.file.is_empty()) else { continue };
            let file = known.entry(&parts.file).or_insert_with(|| Arc::from(parts.file.as_str()));
            self.files[place] = Some(Arc::clone(file));
        }
        self
    }

    /// The file of a test below the project's root; its id if nothing tells of one.
    pub fn file_of<'a>(&'a self, test: &'a TestId) -> &'a str {
        self.place(test).map_or_else(|| file_of(test), |place| self.file_at(place))
    }

    /// The same of the test at `place`.
    pub fn file_at(&self, place: usize) -> &str {
        match self.files.get(place) {
            Some(Some(file)) => file,
            Some(None) | None => file_of(&self.tests[place]),
        }
    }

    /// The listed tests, in the framework's order.
    pub fn tests(&self) -> &[TestId] {
        &self.tests
    }

    /// Place of a test in [`Ledger::tests`].
    pub fn place(&self, test: &TestId) -> Option<usize> {
        self.places.get(test).copied()
    }

    /// Tests that ran although they were not listed. What only another world generates is not among
    /// them.
    pub fn unlisted_tests(&self) -> impl Iterator<Item = &TestId> {
        let plain = |observations: &[Observation]| observations.iter().any(|o| o.treatment.is_plain());
        self.unlisted.iter().filter(move |(_, observations)| plain(observations)).map(|(test, _)| test)
    }

    /// Notes that the job `key` was planned. A second note of the same key changes nothing.
    pub fn note_planned(&mut self, key: JobKey, attempts: &[AttemptSpec]) {
        if self.jobs.get(&key).is_some_and(|entry| entry.planned.is_some()) {
            return;
        }
        let planned = attempts.iter().map(|spec| Planned { index: spec.index, asked: self.asked(spec) });
        let mut planned: Vec<Planned> = planned.collect();
        planned.sort_by_key(|attempt| attempt.index);
        self.entry(key).planned = Some(planned);
        self.count_again(key);
    }

    fn asked(&mut self, spec: &AttemptSpec) -> Arc<Asked> {
        let mut spec = AttemptSpec { index: 0, ..spec.clone() };
        if let Selection::Only(tests) = &mut spec.tests {
            match self.selections.get(tests) {
                Some(known) => *tests = Arc::clone(known),
                None => drop(self.selections.insert(Arc::clone(tests))),
            }
        }
        let asked = Asked { coverage: Coverage::of(&spec, &self.places), spec };
        match self.asked.get(&asked) {
            Some(known) => Arc::clone(known),
            None => {
                let asked = Arc::new(asked);
                self.asked.insert(Arc::clone(&asked));
                asked
            }
        }
    }

    fn entry(&mut self, key: JobKey) -> &mut JobEntry {
        Arc::make_mut(&mut self.jobs).entry(key).or_default()
    }

    /// Notes what a worker reported of the job `key`. Of two different records of one attempt, one
    /// with an outcome stands before an infrastructure error, then the earlier one: a rule that does
    /// not depend on which came first.
    pub fn note_report(&mut self, key: JobKey, report: &JobReport) {
        self.entry(key).reported = Reported::Yes;
        for record in &report.attempts {
            let rank = Rank::of(record);
            if self.entry(key).record(record.index).is_none_or(|known| rank < known.rank()) {
                self.forget_count(key, record.index);
                self.replace(key, record, rank);
            }
        }
        self.entry(key).records.shrink_to_fit();
        self.count_again(key);
    }

    /// Notes that nothing will be heard of the job `key`, and why. A report of it that arrives all
    /// the same counts.
    pub fn note_lost(&mut self, key: JobKey, reason: &str) {
        let entry = self.entry(key);
        match &entry.lost {
            Some(known) if known.as_str() <= reason => {}
            Some(_) | None => entry.lost = Some(reason.to_owned()),
        }
        self.count_again(key);
    }

    fn replace(&mut self, key: JobKey, record: &AttemptRecord, rank: Rank) {
        let at = |observation: &Observation| (observation.key, observation.index).cmp(&(key, record.index));
        if let Ok(found) = self.entry(key).place_of_record(record.index) {
            let known = self.entry(key).records.remove(found);
            self.count_interruption(&known, counting::Change::Less);
            for place in 0..self.listed.len() {
                if let Ok(found) = self.listed[place].binary_search_by(at) {
                    let old = Arc::make_mut(&mut self.listed)[place].remove(found);
                    self.count_seen(place, &old, counting::Change::Less);
                }
            }
            for observations in self.unlisted.values_mut() {
                if let Ok(found) = observations.binary_search_by(at) {
                    observations.remove(found);
                }
            }
            self.unlisted.retain(|_, observations| !observations.is_empty());
        }
        let end = self.ended_by_its_id(record);
        let facts = Arc::new(self.commons.facts(key, record, rank.content, end));
        for sample in self.known_by_their_ids(record).iter() {
            let listed = self.places.get(&sample.test).copied();
            let observations = match listed {
                Some(place) => &mut Arc::make_mut(&mut self.listed)[place],
                None => self.unlisted.entry(sample.test.clone()).or_default(),
            };
            let Err(found) = observations.binary_search_by(at) else {
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
            let observation = Observation {
                attempt: Arc::clone(&facts),
                seen,
                wall_us: sample.wall_us,
                cpu_us: sample.cpu_us,
                position: sample.position,
                aside: Aside::of(sample),
            };
            if observations.len() == observations.capacity() {
                observations.reserve_exact(observations.len() / ROOM + 1);
            }
            observations.insert(found, observation.clone());
            if let Some(place) = listed {
                self.count_seen(place, &observation, counting::Change::More);
            }
        }
        self.count_interruption(&facts, counting::Change::More);
        let entry = self.entry(key);
        if let Err(place) = entry.place_of_record(record.index) {
            entry.records.insert(place, facts);
        }
    }
}
