//! What crosses the queue: claim checks, small enough to republish. Bodies are JSON with a version
//! in `v`; an unknown major version is parked in the dead-letter queue, never guessed at.

use crate::UnixMicros;
use crate::attempt::InfraError;
use crate::ids::{JobId, SweepId, WorkerId};
use crate::payload::Payload;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Between two signs of life of a worker.
pub const BEAT: Duration = Duration::from_secs(5);

/// Who waits for a job: a person (CI, a pull request) or the night.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Somebody is waiting.
    Interactive,
    /// Nobody is waiting.
    Bulk,
}

impl Class {
    /// Both classes, the urgent one first.
    pub const ALL: [Class; 2] = [Class::Interactive, Class::Bulk];

    /// The stable word used in queue names, configuration and SQL.
    pub fn word(self) -> &'static str {
        match self {
            Class::Interactive => "interactive",
            Class::Bulk => "bulk",
        }
    }
}

/// A job on the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobMessage {
    /// [`crate::WIRE_VERSION`].
    pub v: u32,
    /// The job.
    pub job: JobId,
    /// Its sweep.
    pub sweep: SweepId,
    /// Which queue.
    pub class: Class,
    /// How often the coordinator has published it, from 1 (republishing after an infrastructure
    /// error or a lost worker; the broker's own redeliveries are not counted here).
    pub publication: u32,
    /// The [`crate::JobSpec`].
    pub spec: Payload,
    /// The [`crate::JobReport`] of the attempts that earlier publications have ended: they are not run
    /// again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Payload>,
    /// How often it was made anew, since what a worker had made of it was set aside: its samples are stored beside
    /// those.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub again: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// From a worker to the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerMessage {
    /// A job ended.
    JobEnded {
        /// [`crate::WIRE_VERSION`].
        v: u32,
        /// The job.
        job: JobId,
        /// Its sweep.
        sweep: SweepId,
        /// As in the [`JobMessage`].
        publication: u32,
        /// Who ran it.
        worker: WorkerId,
        /// How it ended.
        end: JobEnd,
    },
    /// A sign of life, every five seconds and whenever a job starts or an attempt ends.
    Beat {
        /// [`crate::WIRE_VERSION`].
        v: u32,
        /// Who.
        worker: WorkerId,
        /// When, by the worker's clock.
        at: UnixMicros,
        /// Attempts it can run at once.
        slots: u16,
        /// The version of its program.
        version: String,
        /// Jobs in hand.
        jobs: Vec<JobProgress>,
        /// Whether it is finishing its work and takes no more.
        draining: bool,
        /// What keeps it from going on, for people: `the sample store cannot be reached`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trouble: Option<String>,
    },
    /// May this publication of a job be run? Asked before anything is run where a copy of it may exist or
    /// its sweep may have ended; [`Control::Answer`] answers. Without an answer the worker asks again.
    Ask {
        /// [`crate::WIRE_VERSION`].
        v: u32,
        /// Who asks.
        worker: WorkerId,
        /// The job.
        job: JobId,
        /// As in the [`JobMessage`].
        publication: u32,
        /// How long the worker has held the message, in milliseconds.
        held_ms: u64,
        /// The broker had given it to a worker before: somebody may have it in hand who has not said so
        /// yet.
        #[serde(default)]
        came_back: bool,
        /// How often it had been given to one; a worker of an earlier version does not say.
        #[serde(default)]
        returns: u32,
    },
}

/// How far a job in hand has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    /// The job.
    pub job: JobId,
    /// Its sweep.
    pub sweep: SweepId,
    /// As in the [`JobMessage`].
    #[serde(default)]
    pub publication: u32,
    /// Attempts ended.
    pub attempts_done: u32,
    /// Attempts asked for.
    pub attempts_total: u32,
    /// What it is doing, for people: `building the environment`, `running`.
    pub doing: String,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobEnd {
    /// It ran; its samples are durable.
    Done {
        /// The [`crate::JobReport`].
        report: Payload,
    },
    /// Something of ours failed: try again, later, perhaps elsewhere.
    Retryable(InfraError),
    /// It cannot work however often it is tried; the user can mend it.
    Refused(Refusal),
    /// Its sweep was cancelled before it ended.
    Cancelled,
    /// The worker leaves, or its sweep was cancelled: what is left of it is to be published anew. Nobody
    /// is to blame, but for an error that is named.
    HandedBack {
        /// The [`crate::JobReport`] of all attempts that have ended, those of earlier publications too.
        made: Option<Payload>,
        /// What of ours failed, if something did.
        because: Option<InfraError>,
    },
}

/// Why a job cannot work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What failed, on what: `set-up step 2 of 3 failed: pip install -e .`.
    pub message: String,
    /// Its last lines, if it said something.
    pub log: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// From the coordinator to all workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// Stop the attempts of this sweep. A hint: a worker that misses it wastes time, not truth.
    Cancel {
        /// The sweep.
        sweep: SweepId,
    },
    /// What was asked with [`WorkerMessage::Ask`].
    Answer {
        /// Who asked.
        worker: WorkerId,
        /// The job.
        job: JobId,
        /// The publication.
        publication: u32,
        /// The answer.
        permit: Permit,
    },
    /// Take no more jobs until somebody has looked: something is wrong with this worker's machine. What it has in
    /// hand it hands back.
    SetAside {
        /// Who.
        worker: WorkerId,
        /// What is wrong, for people.
        why: String,
    },
}

/// Whether a publication of a job may be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permit {
    /// It may; the lease has begun.
    Run,
    /// It is settled, cancelled or superseded, or another worker has it: drop the message.
    Drop,
}
