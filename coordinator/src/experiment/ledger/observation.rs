//! What attempts said of tests, as the ledger keeps it.

use crate::experiment::job_key::JobKey;
use flakefarm_shared::{
    AttemptRecord, Digest, ExpectedFailure, Failure, Order, Outcome, Sample, Scope, Treatment, World,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
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

/// What the observations of one attempt have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptFacts {
    /// The job.
    pub key: JobKey,
    /// The attempt, without its samples: they are kept per test.
    pub record: AttemptRecord,
}

impl AttemptFacts {
    /// Its condition.
    pub fn condition(&self) -> Condition {
        Condition::of(self.scope, self.order, &self.treatment)
    }
}

impl Deref for AttemptFacts {
    type Target = AttemptRecord;
    fn deref(&self) -> &AttemptRecord {
        &self.record
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
