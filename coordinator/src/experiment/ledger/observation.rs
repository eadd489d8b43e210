//! What attempts said of tests, as the ledger keeps it.

use crate::experiment::job_key::JobKey;
use flakefarm_shared::attempt::CollectionError;
use flakefarm_shared::{
    AttemptEnd, AttemptRecord, Digest, ExpectedFailure, Failure, Order, Outcome, Remark, Sample,
    SandboxLevel, Scope, TestDetail, Treatment, UnixMicros, WorkerId, World,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
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
    /// Other sources than those that were submitted, whatever else differed.
    OtherSource,
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
    pub fn of(scope: Scope, order: Order, treatment: &Treatment) -> Self {
        if treatment.other_source().is_some() {
            return Condition::OtherSource;
        }
        if !treatment.world.is_plain() {
            return Condition::World(treatment.world);
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
            Condition::OtherSource => "other sources".into(),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words())
    }
}

/// What one attempt said of one test. It reads like the attempt it was made in, whose facts it shares
/// with the observations of all other tests: a large suite makes millions of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    pub(super) attempt: Arc<AttemptFacts>,
    /// What the test did.
    pub seen: Seen,
    /// Wall-clock time in microseconds.
    pub wall_us: u64,
    /// CPU time in microseconds.
    pub cpu_us: u64,
    /// The test's place in the attempt's order, from 0.
    pub position: u32,
    /// What was said beside the outcome, if anything.
    pub aside: Option<Box<Aside>>,
}

/// What was said beside an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aside {
    /// Why it was skipped.
    SkippedBecause(String),
    /// It is marked as an expected failure.
    Expected(ExpectedFailure),
}

impl Aside {
    pub(super) fn of(sample: &Sample) -> Option<Box<Self>> {
        let aside = match (&sample.outcome, sample.expected_failure) {
            (Outcome::Skip { reason }, _) => Some(Aside::SkippedBecause(reason.clone())),
            (Outcome::Pass | Outcome::Fail(_), expected) => expected.map(Aside::Expected),
        };
        aside.map(Box::new)
    }
}

/// One attempt. Its samples are kept per test, and what many attempts have in common once for all: a sweep makes
/// hundreds of thousands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptFacts {
    /// The attempt's place in its job.
    pub index: u32,
    /// In which order the tests ran.
    pub order: Order,
    /// When its sandbox started.
    pub started_at: UnixMicros,
    /// From the request to create the sandbox to its end, in microseconds.
    pub wall_us: u64,
    /// CPU time in microseconds that the machine's own host withheld while it ran.
    pub stolen_us: u64,
    /// Attempts that ran at once on that worker, this one included.
    pub concurrency: u16,
    /// Of the record's [`super::Rank`].
    pub(super) content: u64,
    pub(super) alike: Arc<Alike>,
}

/// What many attempts have in common.
#[derive(Debug, PartialEq, Eq)]
pub struct Alike {
    /// The job.
    pub key: JobKey,
    /// What the attempt ran.
    pub scope: Scope,
    /// On which sources, in which world.
    pub treatment: Treatment,
    /// How it was isolated.
    pub level: SandboxLevel,
    /// Why that is stricter than was asked for, if it is.
    pub instead: Option<String>,
    /// Who ran it.
    pub worker: WorkerId,
    /// How it ended.
    pub end: AttemptEnd,
    /// What it wrote outside the captured output of its tests.
    pub output: Option<Digest>,
    /// Files that could not be collected.
    pub collection_errors: Vec<CollectionError>,
    /// Files that were skipped as a whole.
    pub skipped_files: Vec<CollectionError>,
    /// What the tests printed and changed, if that was asked for.
    pub details: Vec<TestDetail>,
    /// What a reader should know of it and no sample says.
    pub remarks: Vec<Remark>,
}

/// The latest of what attempts have in common: what comes next is often the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Commons(VecDeque<Arc<Alike>>);

/// How many are compared with.
const COMMONS: usize = 64;

impl Commons {
    fn share(&mut self, alike: Alike) -> Arc<Alike> {
        let known = self.0.iter().position(|known| **known == alike);
        let shared = match known.and_then(|place| self.0.remove(place)) {
            Some(shared) => shared,
            None => Arc::new(alike),
        };
        self.0.push_front(Arc::clone(&shared));
        self.0.truncate(COMMONS);
        shared
    }

    /// The facts of a record, which ended as `end` says.
    pub(super) fn facts(
        &mut self,
        key: JobKey,
        record: &AttemptRecord,
        content: u64,
        end: AttemptEnd,
    ) -> AttemptFacts {
        let alike = self.share(Alike {
            key,
            scope: record.scope,
            treatment: record.treatment.clone(),
            level: record.level,
            instead: record.instead.clone(),
            worker: record.worker.clone(),
            end,
            output: record.output.clone(),
            collection_errors: record.collection_errors.clone(),
            skipped_files: record.skipped_files.clone(),
            details: record.details.clone(),
            remarks: record.remarks.clone(),
        });
        AttemptFacts {
            index: record.index,
            order: record.order,
            started_at: record.started_at,
            wall_us: record.wall_us,
            stolen_us: record.stolen_us,
            concurrency: record.concurrency,
            content,
            alike,
        }
    }
}

impl AttemptFacts {
    /// Its condition.
    pub fn condition(&self) -> Condition {
        Condition::of(self.scope, self.order, &self.treatment)
    }
}

impl Deref for AttemptFacts {
    type Target = Alike;
    fn deref(&self) -> &Alike {
        &self.alike
    }
}

impl Observation {
    /// Whether it was the first of others in a plain attempt: nothing ran before it, as if it had run alone.
    pub fn is_first_of_many(&self) -> bool {
        self.position == 0 && self.scope == Scope::Suite && self.treatment.is_plain()
    }
}

impl Deref for Observation {
    type Target = AttemptFacts;
    fn deref(&self) -> &AttemptFacts {
        &self.attempt
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
