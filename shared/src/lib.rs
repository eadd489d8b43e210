//! The words flakefarm is written in: ids, outcomes, jobs and messages, and the ports
//! (queue, samples, blobs) through which coordinator and workers meet, with their adapters.
//!
//! This crate knows no HTTP, no SQL, no Docker and no statistics.

pub mod attempt;
pub mod backoff;
pub mod blobs;
pub mod capabilities;
pub mod detail;
pub mod fault;
pub mod ids;
pub mod job;
pub mod message;
pub mod metrics;
pub mod outcome;
pub mod payload;
pub mod project;
pub mod queue;
pub mod run;
pub mod samples;
pub mod signature;
pub mod source;
pub mod spec;
pub mod telemetry;
pub mod treatment;
pub mod world;

pub use attempt::{AttemptEnd, AttemptRecord, InfraError, InfraStage, NothingRan, Remark};
pub use capabilities::Capabilities;
pub use detail::{Detail, StateChange, TestDetail};
pub use ids::{AttemptId, Digest, JobId, SweepId, TestId, TestParts, WorkerId};
pub use job::{JobReport, JobSpec, Listing, SweepContext, Typed, Work};
pub use message::{Class, Control, JobEnd, JobMessage, Permit, Refusal, WorkerMessage};
pub use outcome::{
    Circumstance, ExpectedFailure, Failure, FailureKind, Outcome, Phase, PhaseTimes, Sample, WideFixture,
};
pub use payload::Payload;
pub use project::{EnvironmentSpec, ImageSource, Limits, ProjectSpec};
pub use run::{RunOrigin, SourceClass, TreatmentClass, WorldClass};
pub use source::{Risk, TestSource};
pub use spec::{AttemptSpec, Order, Scope, Selection};
pub use treatment::{Source, Treatment};
pub use world::{ClockStart, HashSeed, LocaleChoice, SandboxLevel, World, Zone};

/// Version of everything that crosses a process edge (messages, specs, reports). A peer that reads
/// another major version parks the message instead of guessing.
pub const WIRE_VERSION: u32 = 1;

/// Microseconds since the Unix epoch, the one clock format on the wire and in the stores.
pub type UnixMicros = i64;

/// The wall clock, read at the edges only; pure code is handed the value.
pub fn now_micros() -> UnixMicros {
    let now = time::OffsetDateTime::now_utc();
    i64::try_from(now.unix_timestamp_nanos() / 1_000).expect("the year is before 294247")
}

/// An error and its causes on one line: the one place that joins them.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
