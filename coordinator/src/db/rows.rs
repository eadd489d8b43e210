//! What the store takes and gives: plain rows, with states as enums that carry what is true in them.
//!
//! PostgreSQL cannot hold the NUL character in text: both stores keep it as U+FFFD.

use flakefarm_shared::{
    Class, Digest, JobId, Payload, Refusal, RunOrigin, SweepId, TestId, TreatmentClass, UnixMicros, WorkerId,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A sweep to be recorded; it starts [`SweepState::Running`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSweep {
    /// Its id.
    pub id: SweepId,
    /// The project's name.
    pub project: String,
    /// The revision of the snapshot, for people.
    pub revision: Option<String>,
    /// What is asked, as JSON.
    pub question: String,
    /// The [`flakefarm_shared::SweepContext`] blob.
    pub context: Digest,
    /// Which queue its jobs wait in.
    pub class: Class,
    /// The planner's seed.
    pub seed: u64,
    /// Where the project came from: the same source may resume an interrupted sweep.
    pub source: String,
    /// When it was asked.
    pub created_at: UnixMicros,
}

/// A recorded sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepRow {
    /// Its id.
    pub id: SweepId,
    /// The project's name.
    pub project: String,
    /// The revision of the snapshot, for people.
    pub revision: Option<String>,
    /// What is asked, as JSON.
    pub question: String,
    /// The [`flakefarm_shared::SweepContext`] blob.
    pub context: Digest,
    /// Which queue its jobs wait in.
    pub class: Class,
    /// The planner's seed.
    pub seed: u64,
    /// Where the project came from.
    pub source: String,
    /// When it was asked.
    pub created_at: UnixMicros,
    /// How it stands.
    pub state: SweepState,
    /// The [`flakefarm_shared::Listing`] blob, once the tests are known.
    pub listing: Option<Digest>,
    /// The final report's blob.
    pub report: Option<Digest>,
    /// When it ended; `None` while it runs.
    pub finished_at: Option<UnixMicros>,
}

/// How a sweep stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SweepState {
    /// It is worked on.
    Running,
    /// Its question is answered, or its budget spent.
    Answered,
    /// Somebody stopped it and may take it up again.
    Interrupted,
    /// Somebody stopped it for good.
    Cancelled,
    /// It cannot work.
    Failed(Refusal),
}

impl SweepState {
    /// The stable word used in reports and SQL.
    pub fn word(&self) -> &'static str {
        match self {
            SweepState::Running => "running",
            SweepState::Answered => "answered",
            SweepState::Interrupted => "interrupted",
            SweepState::Cancelled => "cancelled",
            SweepState::Failed(_) => "failed",
        }
    }

    /// Why it cannot work, if it cannot.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            SweepState::Failed(refusal) => Some(refusal),
            SweepState::Running | SweepState::Answered | SweepState::Interrupted | SweepState::Cancelled => {
                None
            }
        }
    }
}

/// A job to be recorded; it starts pending and available at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Derived from the sweep and the key.
    pub id: JobId,
    /// What the planner calls it.
    pub key: String,
    /// Which queue it waits in.
    pub class: Class,
    /// The [`flakefarm_shared::JobSpec`].
    pub spec: Payload,
    /// How many attempts it asks for.
    pub attempts: u32,
}

/// A recorded job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// Its sweep.
    pub sweep: SweepId,
    /// What the planner calls it.
    pub key: String,
    /// Which queue it waits in.
    pub class: Class,
    /// The [`flakefarm_shared::JobSpec`].
    pub spec: Payload,
    /// How many attempts it asks for.
    pub attempts: u32,
    /// When it was planned.
    pub created_at: UnixMicros,
    /// How it stands.
    pub state: JobState,
    /// How often it was published.
    pub publications: u32,
    /// How often it came back with an infrastructure error.
    pub infra_failures: u32,
    /// The last of those errors.
    pub last_error: Option<String>,
    /// The latest publication that was begun, sent or not: at least `publications`.
    pub begun: u32,
    /// How often the worker that had it fell silent.
    pub lost_leases: u32,
    /// The [`flakefarm_shared::JobReport`] of the attempts that ended before it was handed back.
    pub made: Option<Payload>,
    /// How often it was made anew, since what a worker had made of it was set aside.
    pub again: u32,
    /// Which deliveries of the latest publication a worker has had in hand: bit n is the one that had come back n
    /// times.
    pub taken: u32,
}

/// A recorded job at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStanding {
    /// Its id.
    pub id: JobId,
    /// What the planner calls it.
    pub key: String,
    /// Whether it ended.
    pub settled: bool,
}

/// How a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// It waits to be published.
    Pending {
        /// Not before.
        available_at: UnixMicros,
    },
    /// It was published.
    Queued {
        /// How often by now.
        publication: u32,
        /// When, the last time.
        since: UnixMicros,
        /// Who has it, as far as is known.
        worker: Option<WorkerId>,
        /// When it was published or a worker last spoke of it.
        last_news: UnixMicros,
    },
    /// It ended.
    Settled {
        /// How.
        settlement: Settlement,
        /// When.
        at: UnixMicros,
    },
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settlement {
    /// It ran.
    Done {
        /// The [`flakefarm_shared::JobReport`].
        report: Payload,
    },
    /// It cannot work; the user can mend it.
    Refused(Refusal),
    /// Nobody could run it; an operator should look.
    Dead {
        /// Why.
        reason: String,
    },
    /// Its sweep was cancelled.
    Cancelled,
}

impl Settlement {
    /// The stable word used in SQL.
    pub fn word(&self) -> &'static str {
        match self {
            Settlement::Done { .. } => "done",
            Settlement::Refused(_) => "refused",
            Settlement::Dead { .. } => "dead",
            Settlement::Cancelled => "cancelled",
        }
    }
}

/// What came of settling a job or finishing a sweep: of several callers one is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// This call did it.
    First,
    /// It was settled before and keeps that settlement.
    Already,
    /// The store does not know it: news of a database that is gone, to be dropped.
    Unknown,
}

/// What a sweep found of one test.
#[derive(Debug, Clone, PartialEq)]
pub struct VerdictRow {
    /// The project's name.
    pub project: String,
    /// The test.
    pub test: TestId,
    /// The verdict's stable word.
    pub verdict: String,
    /// Attempts that said something of it.
    pub attempts: u32,
    /// Failures among them.
    pub failures: u32,
    /// Estimated failure rate.
    pub estimate: f64,
    /// Lower end of its interval.
    pub lower: f64,
    /// Upper end of its interval.
    pub upper: f64,
    /// Flakiness score, 0 to 1.
    pub score: f64,
    /// Median duration in milliseconds.
    pub p50_ms: f64,
    /// When the sweep ended.
    pub finished_at: UnixMicros,
    /// Over the test and all it is known to touch; none if nobody looked.
    pub fingerprint: Option<Digest>,
}

/// A project: the name under which sweeps, tests and runs belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectRow {
    /// Its name, unique on the farm.
    pub name: String,
    /// What was set for it, as JSON; `{}` for nothing.
    pub settings: String,
    /// When it was first heard of.
    pub created_at: UnixMicros,
}

/// One occasion on which tests were executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    /// Its id; a sweep's run has the sweep's.
    pub id: Uuid,
    /// The project's name.
    pub project: String,
    /// Where it comes from.
    pub origin: RunOrigin,
    /// What its attempts with nothing asked for are evidence of.
    pub class: TreatmentClass,
    /// How attempts were isolated, in the word of the choice; none if not by us.
    pub level: Option<String>,
    /// The revision, as its sender calls it.
    pub revision: Option<String>,
    /// The branch.
    pub branch: Option<String>,
    /// The image that tests ran in, by its id.
    pub environment: Option<String>,
    /// What told this run from others of one CI job; only runs of one variant are compared.
    pub variant: Option<String>,
    /// What the CI system said of its job, as JSON.
    pub ci: Option<String>,
    /// Which attempt at the CI job it was, from 1.
    pub attempt: Option<u32>,
    /// When it started.
    pub started_at: UnixMicros,
    /// When it ended.
    pub finished_at: Option<UnixMicros>,
}

/// A test that somebody saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenTest {
    /// The test, as its framework spells it.
    pub test: TestId,
    /// Its parts as JSON, if somebody took it apart.
    pub parts: Option<String>,
}

/// A test of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRow {
    /// Its number in this store.
    pub number: i64,
    /// The test, as its framework spells it.
    pub test: TestId,
    /// Its parts as JSON, if somebody took it apart.
    pub parts: Option<String>,
    /// When it was first seen.
    pub first_seen: UnixMicros,
    /// When it was last seen.
    pub last_seen: UnixMicros,
}

/// One entry of a test's history.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryRow {
    /// The sweep.
    pub sweep: SweepId,
    /// The revision it looked at.
    pub revision: Option<String>,
    /// What it is evidence of.
    pub class: TreatmentClass,
    /// What it found.
    pub verdict: VerdictRow,
}

/// A worker, as it last described itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRow {
    /// Its id.
    pub id: WorkerId,
    /// The version of its program.
    pub version: String,
    /// Attempts it can run at once.
    pub slots: u16,
    /// When it was last heard of.
    pub seen_at: UnixMicros,
    /// Whether it takes no more work.
    pub draining: bool,
    /// Jobs in hand.
    pub jobs: u32,
    /// What keeps it from going on, for people.
    pub trouble: Option<String>,
}

/// A message that could not be read, or that no job row knows, kept for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedRow {
    /// Its name here.
    pub id: Uuid,
    /// When it came.
    pub came_at: UnixMicros,
    /// The stable word of the queue it came from, if that is known.
    pub origin: Option<String>,
    /// Why it is here.
    pub reason: String,
    /// As it was sent.
    pub body: Vec<u8>,
}

/// A token that lets somebody in. The secret itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its public part.
    pub id: String,
    /// `submit`, `read` or `admin`.
    pub kind: String,
    /// SHA-256 of the secret, in hexadecimal.
    pub hash: String,
    /// What it is for.
    pub label: String,
    /// When it was made.
    pub created_at: UnixMicros,
    /// When it ends by itself.
    pub expires_at: Option<UnixMicros>,
    /// When it was revoked.
    pub revoked_at: Option<UnixMicros>,
    /// When it was last used.
    pub last_used: Option<UnixMicros>,
    /// Words of what it lets its bearer do; none: what its kind includes.
    pub scopes: Option<Vec<String>>,
    /// Names of the projects it is for; none: all.
    pub projects: Option<Vec<String>>,
}
