//! Sweeps on their way from one store to another, ids and evidence kept: a tar archive of documents and of the
//! blobs that they name. What history knows of a sweep follows from these, so nothing else travels.
//!
//! | entry | what it is |
//! | --- | --- |
//! | `flakefarm-export` | [`Manifest`], the first |
//! | `blobs/DIGEST` | a blob, by the SHA-256 of its content |
//! | `sweeps/ID` | [`MovedSweep`], after its blobs |
//! | `end` | [`End`], the last: without it the archive was cut off |

mod read;
mod write;

pub use read::{Archive, Found, Piece};
pub use write::{Exported, Wanted, export};

use crate::db::{SweepRow, SweepState};
use crate::experiment::JobKey;
use flakefarm_shared::blobs::BlobError;
use flakefarm_shared::{Class, Digest, JobId, Payload, SweepId, UnixMicros};
use serde::{Deserialize, Serialize};

/// The version of the format.
pub const VERSION: u32 = 1;
/// Sweeps of one archive.
pub const MOST_SWEEPS: u64 = 10_000;
/// Jobs of one sweep.
pub const MOST_JOBS: usize = 200_000;
/// Bytes of one entry: they are held in memory.
pub const LARGEST_ENTRY: u64 = 512 << 20;
/// Bytes of one archive.
pub const LARGEST_ARCHIVE: u64 = 16 << 30;

const MANIFEST: &str = "flakefarm-export";
const END: &str = "end";
const BLOBS: &str = "blobs/";
const SWEEPS: &str = "sweeps/";

/// What an archive is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`].
    pub v: u32,
    /// The program that wrote it.
    pub written_by: String,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Sweeps.
    pub sweeps: u64,
    /// Blobs.
    pub blobs: u64,
}

/// A sweep that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedSweep {
    id: SweepId,
    project: String,
    revision: Option<String>,
    question: String,
    context: Digest,
    class: Class,
    seed: u64,
    source: String,
    created_at: UnixMicros,
    state: SweepState,
    listing: Option<Digest>,
    report: Option<Digest>,
    finished_at: UnixMicros,
    /// In the order they were planned.
    pub(crate) jobs: Vec<MovedJob>,
}

/// A job that has run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MovedJob {
    pub(crate) id: JobId,
    pub(crate) key: String,
    pub(crate) class: Class,
    pub(crate) spec: Payload,
    pub(crate) attempts: u32,
    pub(crate) report: Payload,
}

impl MovedSweep {
    /// Its row.
    pub(crate) fn row(&self) -> SweepRow {
        SweepRow {
            id: self.id,
            project: self.project.clone(),
            revision: self.revision.clone(),
            question: self.question.clone(),
            context: self.context.clone(),
            class: self.class,
            seed: self.seed,
            source: self.source.clone(),
            created_at: self.created_at,
            state: self.state.clone(),
            listing: self.listing.clone(),
            report: self.report.clone(),
            finished_at: Some(self.finished_at),
        }
    }

    /// Whose it is.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// Its id.
    pub fn id(&self) -> SweepId {
        self.id
    }

    /// Why nobody can have ended up with such a sweep, if so.
    fn nonsense(&self, now: UnixMicros) -> Option<String> {
        let of_another = |job: &MovedJob| match job.key.parse::<JobKey>() {
            Ok(key) => key.id(self.id) != job.id,
            // A later version's key: it cannot be told whose job it is.
            Err(_) => true,
        };
        if matches!(self.state, SweepState::Running | SweepState::Interrupted) {
            return Some("it has not ended".to_owned());
        }
        if self.project.trim().is_empty() {
            return Some("it is of no project".to_owned());
        }
        if self.created_at <= 0 || self.finished_at < self.created_at || self.finished_at > now + DAY {
            return Some("its times make no sense".to_owned());
        }
        if self.jobs.len() > MOST_JOBS {
            return Some(format!("it has more than {MOST_JOBS} jobs"));
        }
        let foreign = self.jobs.iter().find(|job| of_another(job))?;
        Some(format!("its job {} is of another sweep", foreign.id))
    }
}

/// Clocks may differ by this much.
const DAY: UnixMicros = 86_400_000_000;

/// An archive could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum MovingError {
    /// Its file.
    #[error("the archive cannot be read or written")]
    Io(#[from] std::io::Error),
    /// It is not what this program writes.
    #[error("this is no export that can be read: {0}")]
    Unreadable(String),
    /// It is of a later version.
    #[error("the export is of version {0}, this program reads version {VERSION}: upgrade flakefarm")]
    Later(u32),
    /// A blob is another than its name says.
    #[error("the export is damaged: what is called {0} has another digest")]
    Damaged(String),
    /// A sweep that could not be.
    #[error("sweep {sweep} of the export cannot be taken: {why}")]
    Nonsense {
        /// Which.
        sweep: SweepId,
        /// Why.
        why: String,
    },
    /// The stores it comes from.
    #[error("what is exported cannot be read")]
    Store(#[from] crate::garbage::GarbageError),
}

impl From<crate::db::DbError> for MovingError {
    fn from(error: crate::db::DbError) -> Self {
        MovingError::Store(error.into())
    }
}

impl From<BlobError> for MovingError {
    fn from(error: BlobError) -> Self {
        MovingError::Store(error.into())
    }
}
