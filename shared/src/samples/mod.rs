//! The samples port: a time series of outcomes and durations per test, idempotent on attempts, with
//! retention by expiry. Each point names its run and says what it is evidence of. It is history in full
//! detail for some days; what remains of it is the coordinator's. Verdicts rest on job reports. Adapters:
//! Redis (here) and SQLite (in the coordinator's `stores/`). Both store the chunks of [`codec`] and pass
//! one contract suite.

pub mod codec;
mod counted;
pub mod filing;
mod redis_store;

pub use counted::Counted;
pub use redis_store::RedisSamples;

use crate::UnixMicros;
use crate::ids::{JobId, TestId};
use crate::run::TreatmentClass;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// What is kept of one sample in the time series: 14 to 26 bytes when packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// When the attempt started.
    pub at: UnixMicros,
    /// Wall-clock duration of the test in microseconds (at most 71 minutes are kept).
    pub wall_us: u32,
    /// What happened.
    pub outcome: PointOutcome,
    /// Attempts the worker ran at once, at most 255.
    pub concurrency: u8,
    /// A short hash of the worker's name.
    pub worker: u16,
    /// The attempt's index in its job, modulo 65,536.
    pub attempt: u16,
    /// Its set-up and tear-down, if they were told apart.
    pub phases: Option<Phases>,
    /// Which failure it was: equal for failures that look alike. Kept of failures only.
    pub signature: Option<u64>,
}

impl Point {
    /// A pass of which nothing else is known.
    pub fn passed(at: UnixMicros, wall_us: u32) -> Self {
        Self {
            at,
            wall_us,
            outcome: PointOutcome::Pass,
            concurrency: 1,
            worker: 0,
            attempt: 0,
            phases: None,
            signature: None,
        }
    }
}

/// How long set-up and tear-down took, in microseconds, kept to three digits; the rest of the wall-clock
/// duration is the test's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Phases {
    /// Before the test.
    pub setup_us: u32,
    /// After it.
    pub teardown_us: u32,
}

/// A run, as points name it: a hash of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunTag(pub [u8; 5]);

/// A point with what it is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredPoint {
    /// The point.
    pub point: Point,
    /// Its run; none of points that version 0.1 wrote.
    pub run: Option<RunTag>,
    /// What it is evidence of.
    pub class: TreatmentClass,
}

/// An outcome in the time series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointOutcome {
    /// Passed.
    Pass,
    /// Failed.
    Fail,
    /// Skipped.
    Skip,
}

/// Points of one test and treatment class that one job produced on one UTC day. Appending the same
/// `(project, test, day, job, chunk)` again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The project's name.
    pub project: String,
    /// The test.
    pub test: TestId,
    /// The run that the job is part of.
    pub run: Uuid,
    /// What the points are evidence of.
    pub class: TreatmentClass,
    /// The job.
    pub job: JobId,
    /// Number of the chunk within the job, for jobs of several classes, that span days or flush early.
    pub chunk: u16,
    /// The points, 1 to 255, all on one UTC day.
    pub points: Vec<Point>,
}

/// Whether an append was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Stored.
    New,
    /// Was there already; nothing changed.
    Duplicate,
}

/// How long points are kept, counted from when they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Points; also how long a duplicate append is recognised, so longer than any redelivery.
    pub points: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { points: Duration::from_secs(14 * 86_400) }
    }
}

/// The sample store could not do it. Appends are idempotent, so that all but [`SampleError::Refused`]
/// are worth a retry.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// No connection, or it was lost.
    #[error("the sample store cannot be reached: {0}")]
    Unreachable(String),
    /// It is out of memory or disk.
    #[error("the sample store is full: {0}")]
    Full(String),
    /// It answered nonsense.
    #[error("the sample store holds damaged data: {0}")]
    Damaged(String),
    /// It cannot take what it was given, now or later: an empty chunk, a wrong address, a server too old.
    #[error("the sample store refuses: {0}")]
    Refused(String),
}

/// The samples port.
#[async_trait]
pub trait SampleStore: std::fmt::Debug + Send + Sync {
    /// Connects once and verifies that the server will do.
    async fn check(&self) -> Result<(), SampleError>;

    /// Stores chunks, each idempotently; answers in the same order. A failure may have stored some:
    /// append them all again.
    async fn append(&self, chunks: &[Chunk]) -> Result<Vec<Appended>, SampleError>;

    /// Points of a test from `from` (inclusive) to `to` (exclusive), oldest first.
    async fn points(
        &self,
        project: &str,
        test: &TestId,
        from: UnixMicros,
        to: UnixMicros,
    ) -> Result<Vec<StoredPoint>, SampleError>;

    /// The points of many tests on one UTC day (counted from the epoch), in the order of `tests`, each
    /// oldest first.
    async fn points_of_day(
        &self,
        project: &str,
        tests: &[TestId],
        day: i64,
    ) -> Result<Vec<Vec<StoredPoint>>, SampleError>;
}

/// A sample store that somebody else chose.
pub type Samples = Arc<dyn SampleStore>;
