//! What calls take and give, as types; the document is made from them.

use super::refused::Refused;
use crate::db::{DeadJob, EventRow, JobState, ParkedRow, Settlement, SweepRow, WorkerRow};
use crate::events::Event;
use flakefarm_shared::{Class, Refusal, SweepId, UnixMicros};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use utoipa::{IntoParams, ToSchema};

/// Entries of a page, unless asked for otherwise, and at most.
pub(super) const PAGE: u32 = 100;
const LONGEST_PAGE: u32 = 1_000;

/// How many entries a page has.
pub(super) fn page(limit: Option<u32>) -> Result<u32, Refused> {
    match limit {
        None => Ok(PAGE),
        Some(limit) if (1..=LONGEST_PAGE).contains(&limit) => Ok(limit),
        Some(limit) => Err(Refused::new(
            axum::http::StatusCode::BAD_REQUEST,
            format!("a page of {limit} entries is not possible: 1 to {LONGEST_PAGE}"),
        )),
    }
}

/// Whether the coordinator lives.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// The program's version.
    pub version: String,
    /// The version of this interface.
    pub api: String,
}

/// Whether the coordinator can work: `ok`, or what is wrong, for each server it needs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// The database.
    pub database: String,
    /// The broker.
    pub queue: String,
    /// The blob store.
    pub blobs: String,
}

/// A stored snapshot.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Stored {
    /// SHA-256 of the archive, in hexadecimal: its name from now on.
    pub digest: String,
}

/// A sweep to be submitted: the same that `flakefarm sweep --farm` sends.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the body; what is read is `Submission`")]
pub struct NewSweep {
    /// How to run the project, its snapshot's digest and its revision.
    #[schema(value_type = Object)]
    context: (),
    /// What is asked.
    #[schema(value_type = Object)]
    question: (),
    /// `interactive` if somebody is waiting, else `bulk`.
    class: String,
    /// Where the project came from, for people.
    source: String,
}

/// A submitted sweep.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Submitted {
    /// Its id.
    pub id: String,
}

/// Why a sweep cannot work.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// What failed, on what.
    pub message: String,
    /// Its last lines, if it said something.
    pub log: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl From<&Refusal> for Failure {
    fn from(refusal: &Refusal) -> Self {
        Self { message: refusal.message.clone(), log: refusal.log.clone(), hint: refusal.hint.clone() }
    }
}

/// A sweep as its row says.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SweepView {
    /// Its id.
    pub id: String,
    /// Its project.
    pub project: String,
    /// The revision that is tested, if known.
    pub revision: Option<String>,
    /// `running`, `answered`, `interrupted`, `cancelled` or `failed`.
    pub state: String,
    /// `interactive` or `bulk`.
    #[schema(value_type = String)]
    pub class: Class,
    /// Where all its randomness comes from.
    pub seed: u64,
    /// When it was submitted, in microseconds since the Unix epoch.
    pub created_at: UnixMicros,
    /// When it ended.
    pub finished_at: Option<UnixMicros>,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// The last event `progress`, while it runs.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub progress: Option<Event>,
}

impl SweepView {
    /// Of a row, with the last event `progress` of a running sweep.
    pub fn of(row: &SweepRow, progress: Option<Event>) -> Self {
        Self {
            id: row.id.to_string(),
            project: row.project.clone(),
            revision: row.revision.clone(),
            state: row.state.word().to_owned(),
            class: row.class,
            seed: row.seed,
            created_at: row.created_at,
            finished_at: row.finished_at,
            failure: row.state.refusal().map(Failure::from),
            progress,
        }
    }

    /// Of rows, with what is known of how far those that run are.
    pub fn all(rows: &[SweepRow], mut progress: HashMap<SweepId, Event>) -> Vec<Self> {
        rows.iter().map(|row| Self::of(row, progress.remove(&row.id))).collect()
    }
}

/// Which sweeps are asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SweepsQuery {
    /// Only of this project.
    pub project: Option<String>,
    /// Only in this state.
    #[param(pattern = "^(running|answered|interrupted|cancelled|failed)$")]
    pub state: Option<String>,
    /// Only older ones than this: the last id of the page before.
    pub before: Option<String>,
    /// At most so many: 1 to 1000.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// A page of sweeps, newest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SweepsPage {
    /// The sweeps.
    pub sweeps: Vec<SweepView>,
    /// What to pass as `before` for the next page; none if this is the last.
    #[serde(default)]
    pub next: Option<String>,
}

/// A worker as it last described itself.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WorkerView {
    /// Its name.
    pub id: String,
    /// Its program's version.
    pub version: String,
    /// Attempts it can run at once.
    pub slots: u16,
    /// Jobs in hand.
    pub jobs: u32,
    /// Whether it takes no more.
    pub draining: bool,
    /// How long it has been silent.
    pub seconds_since_seen: i64,
    /// Whether it has been silent for so long that it is not counted on.
    #[serde(default)]
    pub gone: bool,
    /// What keeps it from working, if something does.
    #[serde(default)]
    pub trouble: Option<String>,
}

impl WorkerView {
    pub(super) fn of(worker: WorkerRow, now: UnixMicros) -> Self {
        let silent = now - worker.seen_at;
        Self {
            id: worker.id.0,
            version: worker.version,
            slots: worker.slots,
            jobs: worker.jobs,
            draining: worker.draining,
            seconds_since_seen: silent / 1_000_000,
            gone: silent >= crate::engine::WORKER_SILENCE_MICROS,
            trouble: worker.trouble,
        }
    }
}

/// All workers.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Workers {
    /// By name; silent ones are forgotten after an hour.
    pub workers: Vec<WorkerView>,
}

/// A page, and where it begins.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeadQuery {
    /// Only earlier ones than this: the last id of the page before.
    pub before: Option<String>,
    /// At most so many: 1 to 1000.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// A dead job.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeadView {
    /// The job.
    pub job: String,
    /// Its sweep.
    pub sweep: String,
    /// Its project.
    #[serde(default)]
    pub project: String,
    /// What the planner calls it.
    pub key: String,
    /// Why it is dead.
    pub reason: String,
    /// When it was given up, in microseconds since the Unix epoch.
    #[serde(default)]
    pub at: UnixMicros,
}

impl DeadView {
    /// Of a row.
    pub fn of(dead: DeadJob) -> Self {
        let (reason, at) = match dead.job.state {
            JobState::Settled { settlement: Settlement::Dead { reason }, at } => (reason, at),
            JobState::Settled { at, .. } => (String::new(), at),
            JobState::Pending { .. } | JobState::Queued { .. } => (String::new(), 0),
        };
        Self {
            job: dead.job.id.to_string(),
            sweep: dead.job.sweep.to_string(),
            project: dead.project,
            key: dead.job.key,
            reason,
            at,
        }
    }
}

/// A message that nobody can read: of another version, or damaged.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ParkedView {
    /// Its name here.
    pub id: String,
    /// When it came, in microseconds since the Unix epoch.
    pub at: UnixMicros,
    /// The queue that it came from, if that is known.
    pub origin: Option<String>,
    /// Why it is here.
    pub reason: String,
    /// How it begins.
    pub body: String,
}

/// Characters of a parked message that are shown.
const PARKED_SHOWN: usize = 500;

impl ParkedView {
    /// Of a row.
    pub fn of(parked: ParkedRow) -> Self {
        let body = String::from_utf8_lossy(&parked.body).chars().take(PARKED_SHOWN).collect();
        let (at, origin, reason) = (parked.came_at, parked.origin, parked.reason);
        Self { id: parked.id.to_string(), at, origin, reason, body }
    }
}

/// A page of dead jobs, the latest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeadPage {
    /// The jobs.
    pub dead: Vec<DeadView>,
    /// With the first page, for who may see all projects: messages that nobody can read.
    #[serde(default)]
    pub parked: Vec<ParkedView>,
    /// What to pass as `before` for the next page; none if this is the last.
    #[serde(default)]
    pub next: Option<String>,
}

/// An event of a stream, as its lines say it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SentEvent {
    /// What happened: an event in JSON.
    pub data: String,
    /// What to send as `Last-Event-ID` to go on after it; none for progress, which is not recorded.
    pub id: Option<String>,
}

/// From where on events are asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Only later ones than this id; 0: from the first.
    pub after: Option<i64>,
    /// At most so many: 1 to 1000.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// Something that happened.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Its place in the order of all events.
    pub id: i64,
    /// When, in microseconds since the Unix epoch.
    pub at: UnixMicros,
    /// Whose project it concerns; none: the farm.
    pub project: Option<String>,
    /// What happened: an object with the word `event` in it.
    #[schema(value_type = Object)]
    pub event: Event,
}

impl From<EventRow> for EventView {
    fn from(row: EventRow) -> Self {
        Self { id: row.id, at: row.at, project: row.project, event: row.event }
    }
}

/// Events in their order.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EventsPage {
    /// The events; the last one's id is the next page's `after`.
    pub events: Vec<EventView>,
}
