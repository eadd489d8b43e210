//! One execution in one fresh sandbox: how it ended, and what it said of each test.

use crate::UnixMicros;
use crate::detail::TestDetail;
use crate::ids::{Digest, TestId, WorkerId};
use crate::outcome::{Failure, FailureKind, Sample};
use crate::spec::{AttemptSpec, Order, Scope};
use crate::treatment::Treatment;
use crate::world::SandboxLevel;
use serde::{Deserialize, Serialize};

/// Everything one attempt left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Its place among the job's attempts, as in its [`crate::AttemptSpec`].
    pub index: u32,
    /// What it was asked to run.
    pub scope: Scope,
    /// In which order.
    pub order: Order,
    /// On which sources, in which world.
    #[serde(default, rename = "world")]
    pub treatment: Treatment,
    /// How it was isolated.
    #[serde(default)]
    pub level: SandboxLevel,
    /// Who ran it.
    pub worker: WorkerId,
    /// When the sandbox started.
    pub started_at: UnixMicros,
    /// From the request to create the sandbox to its end, in microseconds.
    pub wall_us: u64,
    /// How many attempts the worker was running at once, this one included: timings taken under
    /// parallel load are noisy.
    pub concurrency: u16,
    /// CPU time in microseconds that the machine's own host withheld while the attempt ran, over all
    /// cores; 0 where that is not told. Timings taken meanwhile are noisy.
    #[serde(default)]
    pub stolen_us: u64,
    /// Why `level` is a stricter one than was asked for, if it is.
    #[serde(default)]
    pub instead: Option<String>,
    /// How it ended.
    pub end: AttemptEnd,
    /// One per test that finished or was charged with the ending. A selected test without a sample
    /// is missing data: neither a pass nor a failure.
    pub samples: Vec<Sample>,
    /// What it wrote outside the captured output of its tests, bounded, head and tail kept.
    pub output: Option<Digest>,
    /// Files that could not be collected in this attempt, with the error's last lines.
    pub collection_errors: Vec<CollectionError>,
    /// Files that were skipped as a whole in this attempt, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped_files: Vec<CollectionError>,
    /// What the tests printed and changed, if that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<TestDetail>,
    /// What a reader should know of the attempt and no sample says; at most one of each kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<Remark>,
}

/// Something about an attempt that concerns no single test.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "a few per attempt, and most attempts have none")]
pub enum Remark {
    /// Something in it tried to write results, or its results contradict each other. Results that were not the
    /// framework's own were dropped; if that could not be told apart, the attempt has no samples.
    Tampering {
        /// What was noticed first.
        what: String,
    },
    /// The framework did not end as it does after tests that passed or failed.
    AbnormalEnd {
        /// Its exit code.
        exit_code: i64,
        /// What it said last.
        text: String,
    },
    /// The project put the tests into another order than was asked for.
    Reordered,
    /// Several tests have one id. Which of them is called the second may change, so their outcomes are told
    /// sorted: the first never fares worse than the next.
    SharedIds {
        /// An id for each such group, at most twenty.
        tests: Vec<TestId>,
    },
    /// The tear-down of a fixture that several tests share failed. Frameworks call that an error of whichever test
    /// comes last, which says nothing of the test.
    TearDown {
        /// The fixture, or `teardown_class` and its like.
        fixture: String,
        /// `class`, `module`, `package`, `session`.
        scope: String,
        /// The class it is of, or the file it is defined in.
        home: String,
        /// The test that came last.
        last: TestId,
        /// How it failed.
        failure: Failure,
    },
    /// Something that a newer worker knows.
    #[serde(other)]
    Unknown,
}

impl AttemptRecord {
    /// Of an attempt as `spec` asks for it that ran to its end by itself, in no time and without a sample.
    pub fn completed(spec: &AttemptSpec, worker: WorkerId) -> Self {
        Self {
            index: spec.index,
            scope: spec.scope,
            order: spec.order,
            treatment: spec.treatment.clone(),
            level: spec.level,
            worker,
            started_at: 0,
            wall_us: 0,
            concurrency: 1,
            stolen_us: 0,
            instead: None,
            end: AttemptEnd::Completed,
            samples: Vec::new(),
            output: None,
            collection_errors: Vec::new(),
            skipped_files: Vec::new(),
            details: Vec::new(),
            remarks: Vec::new(),
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptEnd {
    /// The framework ran to its end.
    Completed,
    /// The test that was running ended the attempt (crash, time-out, out of memory) and is charged
    /// with it; those after it are missing.
    Interrupted {
        /// What ended it.
        by: FailureKind,
        /// The test that was running.
        running: TestId,
    },
    /// No test ran although some should have: collection failed or crashed, or the selection
    /// matched nothing. Never clean, never a failure of a test.
    NothingRan {
        /// Last lines of what the framework said.
        reason: String,
        /// What kept tests from running.
        #[serde(default)]
        why: NothingRan,
    },
    /// We could not observe an outcome.
    Infrastructure(InfraError),
}

/// What kept every test of an attempt from running.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NothingRan {
    /// What was asked for cannot be given here: the world, say. That will not change.
    Unavailable,
    /// The framework is not installed.
    NoFramework,
    /// The framework refused its arguments or its configuration.
    Refused,
    /// Nothing was collected that was asked for.
    NothingCollected,
    /// It died, or ended itself, before the first test. Another start may fare better.
    #[default]
    Died,
    /// Its results contradict each other and do not count.
    Tampered,
}

/// A file that could not be collected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionError {
    /// The file, below the project's root.
    pub path: String,
    /// The last lines of the error.
    pub message: String,
}

/// Something of ours failed, not the test. Counted apart and retried, never an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{stage}: {message}")]
pub struct InfraError {
    /// Where.
    pub stage: InfraStage,
    /// What, including its causes.
    pub message: String,
}

/// Where infrastructure failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InfraStage {
    /// The container engine did not answer.
    Engine,
    /// The environment's image could not be pulled or built.
    Environment,
    /// A blob could not be read or written.
    Blobs,
    /// Samples could not be stored.
    Samples,
    /// A sandbox could not be created, started or watched.
    Sandbox,
    /// The worker stopped in the middle.
    Worker,
}

impl InfraStage {
    /// All there are.
    pub const ALL: [InfraStage; 6] = [
        InfraStage::Engine,
        InfraStage::Environment,
        InfraStage::Blobs,
        InfraStage::Samples,
        InfraStage::Sandbox,
        InfraStage::Worker,
    ];

    /// The stable word of metrics.
    pub fn word(self) -> &'static str {
        match self {
            InfraStage::Engine => "engine",
            InfraStage::Environment => "environment",
            InfraStage::Blobs => "blobs",
            InfraStage::Samples => "samples",
            InfraStage::Sandbox => "sandbox",
            InfraStage::Worker => "worker",
        }
    }
}

impl std::fmt::Display for InfraStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            InfraStage::Engine => "container engine",
            InfraStage::Environment => "environment",
            InfraStage::Blobs => "blob store",
            InfraStage::Samples => "sample store",
            InfraStage::Sandbox => "sandbox",
            InfraStage::Worker => "worker",
        })
    }
}
