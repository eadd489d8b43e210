//! What a question asks beyond its tests: the revisions of a bisection, the patch of a validation, what a
//! failed job is to be told.

use super::arm::{Arm, Company};
use super::filter::TestFilter;
use flakefarm_shared::{Digest, Order, Scope, Source, TestId, Treatment, World};
use serde::{Deserialize, Serialize};

/// What is asked of a row of revisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BisectRequest {
    /// The test, by its id.
    pub test: TestId,
    /// The oldest first: not flaky there; the newest last: flaky there, and what was submitted.
    pub revisions: Vec<RevisionSnapshot>,
    /// What else runs, and in which order.
    pub scope: Scope,
    /// In which order.
    pub order: Order,
    /// In which world.
    pub world: World,
}

/// One revision to be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionSnapshot {
    /// Its commit.
    pub commit: String,
    /// The first line of its message.
    pub subject: String,
    /// Its files, as a blob. Revisions of equal files are asked once.
    pub snapshot: Digest,
}

impl BisectRequest {
    /// The test at the revision at `place`: the last one is what was submitted.
    pub fn arm(&self, place: usize) -> Arm {
        let snapshot = |place: usize| self.revisions.get(place).map(|revision| &revision.snapshot);
        let submitted = snapshot(self.revisions.len() - 1);
        let source = match snapshot(place) {
            Some(own) if Some(own) != submitted => Source::Snapshot(own.clone()),
            Some(_) | None => Source::Submitted,
        };
        let company = match self.scope {
            Scope::Test => Company::Alone,
            Scope::File => Company::File(self.order),
            Scope::Suite => Company::Suite(self.order),
        };
        Arm { company, treatment: Treatment { world: self.world, source } }
    }
}

/// What is asked of a patch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidateRequest {
    /// The tests it is to mend; those that fail as submitted if empty.
    pub tests: TestFilter,
    /// The tree with the patch, as a blob.
    pub patched: Digest,
    /// What the patch is, for people: a file, a branch, a revision.
    pub patch: String,
    /// Where the tests fail; looked for first if not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_in: Option<FailingIn>,
}

/// What is asked of tests that failed elsewhere, in a CI job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rerun {
    /// What decides: once it does, no more runs are made.
    pub gate: RerunGate,
    /// What one run of one test is said to take, in milliseconds; 0 if nothing is.
    #[serde(default)]
    pub expected_ms: u32,
    /// Orders of the job, each up to a test that failed in it: tried with tests that pass alone.
    #[serde(default)]
    pub orders: Vec<Vec<TestId>>,
}

/// Which answers make the job fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RerunGate {
    /// A test that passes and fails.
    pub flaky: bool,
    /// A test that always fails.
    pub broken: bool,
}

/// The company and the world in which a test fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailingIn {
    /// What runs with it.
    pub company: Company,
    /// What is changed around it.
    pub world: World,
}
