//! The samples port: a time series of outcomes and durations per test, idempotent on attempts,
//! with retention by expiry and hourly and daily roll-ups. It is history; verdicts rest on job
//! reports. Adapters: Redis (here) and SQLite (in the coordinator's `db/`). Both store the chunks
//! of [`codec`] and pass one contract suite.

pub mod codec;
mod redis_store;
pub mod rollup;

pub use redis_store::RedisSamples;

use crate::UnixMicros;
use crate::ids::{JobId, TestId};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

/// What is kept of one sample in the time series: sixteen bytes when packed.
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
    pub run: u16,
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

/// All points of one test that one job produced on one UTC day. Appending the same
/// `(project, test, day, job, chunk)` again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The project's name.
    pub project: String,
    /// The test.
    pub test: TestId,
    /// The job.
    pub job: JobId,
    /// Number of the chunk within the job, for jobs that span days or flush early.
    pub chunk: u16,
    /// The points; at least one, all on one UTC day.
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

/// Counts and duration moments of a span of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rollup {
    /// Start of the hour or day.
    pub start: UnixMicros,
    /// Passes and failures (skips are not counted).
    pub runs: u32,
    /// Failures.
    pub failures: u32,
    /// Mean wall-clock duration in microseconds.
    pub mean_us: f64,
    /// Sum of squared deviations from the mean, in square microseconds.
    pub m2: f64,
    /// Shortest, in microseconds.
    pub min_us: u32,
    /// Longest, in microseconds.
    pub max_us: u32,
}

/// The span of a roll-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// UTC hours.
    Hour,
    /// UTC days.
    Day,
}

/// How long each layer is kept, counted from when it was first written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Points; also how long a duplicate append is recognised, so longer than any redelivery.
    pub raw: Duration,
    /// Hourly roll-ups.
    pub hourly: Duration,
    /// Daily roll-ups.
    pub daily: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self { raw: DAY * 14, hourly: DAY * 60, daily: DAY * 400 }
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
    ) -> Result<Vec<Point>, SampleError>;

    /// Roll-ups of a test whose span starts from `from` (inclusive) to `to` (exclusive), oldest first.
    async fn rollups(
        &self,
        project: &str,
        test: &TestId,
        span: Span,
        from: UnixMicros,
        to: UnixMicros,
    ) -> Result<Vec<Rollup>, SampleError>;
}

/// A sample store that somebody else chose.
pub type Samples = Arc<dyn SampleStore>;
