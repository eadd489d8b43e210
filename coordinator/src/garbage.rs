//! What nothing refers to any more, and rows that were kept long enough: found from rows, told, and removed.
//!
//! A blob stays as long as a row refers to it: a sweep that runs, may go on, or ended within the time that
//! artifacts are kept (its context, listing, jobs and all that these name: snapshots, reports of jobs,
//! outputs), and for ever the final report of every sweep with all that it names, since a verdict is worth
//! nothing without its evidence. What names what is not known here: every digest in a document counts, which can
//! only keep too much. What is in flight is safe in two ways: blobs that were written lately are left alone, and
//! whoever is about to refer to an older one leases it first.

use crate::db::{Db, DbError, JobRefers, PackSpan, SweepRow};
use crate::history::retention::HistoryRetention;
use flakefarm_shared::blobs::{BlobEntry, BlobError, Blobs, Digests, Removed, digests_in};
use flakefarm_shared::{Digest, Payload, SweepId, UnixMicros};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Rows read together.
const ROWS: u32 = 500;
/// The longest that a lease may be needed: from a blob's last use to the row that refers to it.
pub const LEASE_MICROS: UnixMicros = 86_400_000_000;

/// Whether to remove what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Only look.
    Looking,
    /// Remove it.
    Removing,
}

/// What is no longer kept, or was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Garbage {
    /// Packs of hours.
    pub hourly_packs: u64,
    /// Packs of days.
    pub daily_packs: u64,
    /// Days of projects.
    pub days: u64,
    /// Failures, flips, uploads and CI runs.
    pub evidence: u64,
    /// Jobs of sweeps that are over; their reports stay.
    pub jobs: u64,
    /// Blobs that nothing refers to.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Blobs that nothing refers to yet, too young to be told.
    pub young_blobs: u64,
    /// Blobs that stay.
    pub kept_blobs: u64,
    /// Their bytes.
    pub kept_bytes: u64,
}

/// Garbage could not be collected; doing it again is safe.
#[derive(Debug, thiserror::Error)]
pub enum GarbageError {
    /// The database.
    #[error("the database failed")]
    Db(#[from] DbError),
    /// The blob store.
    #[error("the blob store failed")]
    Blobs(#[from] BlobError),
}

/// Collects, or looks. `marker` is a blob that nobody refers to and that stays.
pub async fn collect(
    db: &Db,
    blobs: &Blobs,
    keep: &HistoryRetention,
    now: UnixMicros,
    doing: Doing,
    marker: &Digest,
) -> Result<Garbage, GarbageError> {
    let mut garbage = rows(db, keep, now, doing).await?;
    // Listed before rows are read: what is written later is not in the list, however old its name.
    let mut entries = Vec::new();
    let mut listed = Box::pin(blobs.entries());
    while let Some(entry) = listed.next().await {
        entries.push(entry?);
    }
    let marked = marked(db, blobs, keep, now, marker).await?;
    for entry in entries {
        let stays = entry.digest.as_ref().is_some_and(|digest| marked.contains(digest));
        if stays {
            garbage.kept_blobs += 1;
            garbage.kept_bytes += entry.size;
        } else if entry.written_at > keep.first_old_blob(now) {
            garbage.young_blobs += 1;
        } else if drop_blob(db, blobs, &entry, now, doing).await? {
            garbage.blobs += 1;
            garbage.blob_bytes += entry.size;
        } else {
            garbage.young_blobs += 1;
        }
    }
    if doing == Doing::Removing {
        db.drop_blob_leases(now).await?;
    }
    Ok(garbage)
}

/// Gives whether it is gone, or would be.
async fn drop_blob(
    db: &Db,
    blobs: &Blobs,
    entry: &BlobEntry,
    now: UnixMicros,
    doing: Doing,
) -> Result<bool, GarbageError> {
    if let Some(digest) = &entry.digest
        && db.is_leased(digest, now).await?
    {
        return Ok(false);
    }
    if doing == Doing::Looking {
        return Ok(true);
    }
    if blobs.remove(entry).await? == Removed::WrittenSince {
        return Ok(false);
    }
    if let Some(digest) = &entry.digest {
        db.forget_blob(digest).await?;
    }
    Ok(true)
}

async fn rows(
    db: &Db,
    keep: &HistoryRetention,
    now: UnixMicros,
    doing: Doing,
) -> Result<Garbage, GarbageError> {
    let (hourly, daily) = (keep.first_hourly_day(now), keep.first_daily_day(now));
    let (evidence, jobs) = (keep.first_evidence(now), keep.first_artifact(now));
    Ok(match doing {
        Doing::Looking => Garbage {
            hourly_packs: db.count_packs_before(PackSpan::Hours, hourly).await?,
            daily_packs: db.count_packs_before(PackSpan::Days, daily).await?,
            days: db.count_days_before(daily).await?,
            evidence: db.count_old_evidence(evidence).await?,
            jobs: db.count_old_jobs(jobs).await?,
            ..Garbage::default()
        },
        Doing::Removing => Garbage {
            hourly_packs: db.delete_packs_before(PackSpan::Hours, hourly).await?,
            daily_packs: db.delete_packs_before(PackSpan::Days, daily).await?,
            days: db.delete_days_before(daily).await?,
            evidence: db.delete_old_evidence(evidence).await?,
            jobs: db.delete_old_jobs(jobs).await?,
            ..Garbage::default()
        },
    })
}

/// All that something refers to.
async fn marked(
    db: &Db,
    blobs: &Blobs,
    keep: &HistoryRetention,
    now: UnixMicros,
    marker: &Digest,
) -> Result<HashSet<Digest>, GarbageError> {
    let mut marks = Marks { blobs, marked: HashSet::from([marker.clone()]) };
    for body in db.parked_bodies().await? {
        marks.text(&body).await?;
    }
    for (request, repaired) in db.repairs_refer(keep.first_artifact(now)).await? {
        marks.text(request.as_bytes()).await?;
        marks.text(repaired.unwrap_or_default().as_bytes()).await?;
    }
    let mut after = None;
    loop {
        let sweeps = db.sweeps_refer(after, ROWS).await?;
        let Some(last) = sweeps.last() else { return Ok(marks.marked) };
        after = Some(last.id);
        for sweep in sweeps {
            if let Some(report) = sweep.report {
                marks.document(report).await?;
            }
            if sweep.over_at.is_some_and(|at| at < keep.first_artifact(now)) {
                continue;
            }
            for text in &sweep.texts {
                marks.text(text.as_bytes()).await?;
            }
            marks.jobs(db, sweep.id).await?;
        }
    }
}

/// All blobs that a sweep refers to, its jobs' included. Some of them may be gone.
pub async fn of_sweep(db: &Db, blobs: &Blobs, row: &SweepRow) -> Result<HashSet<Digest>, GarbageError> {
    let mut marks = Marks { blobs, marked: HashSet::new() };
    marks.document(row.context.clone()).await?;
    for digest in [&row.listing, &row.report].into_iter().flatten() {
        marks.document(digest.clone()).await?;
    }
    marks.text(row.question.as_bytes()).await?;
    marks.jobs(db, row.id).await?;
    Ok(marks.marked)
}

struct Marks<'a> {
    blobs: &'a Blobs,
    marked: HashSet<Digest>,
}

impl Marks<'_> {
    /// A blob, and if it is a document what it names, and so on.
    async fn document(&mut self, digest: Digest) -> Result<(), GarbageError> {
        let mut open = vec![digest];
        while let Some(digest) = open.pop() {
            if !self.marked.contains(&digest) {
                open.extend(self.blobs.named_in(&digest).await?);
                self.marked.insert(digest);
            }
        }
        Ok(())
    }

    /// All digests in a text.
    async fn text(&mut self, text: &[u8]) -> Result<(), GarbageError> {
        let mut digests = Digests::default();
        digests.read(text);
        for digest in digests.end() {
            self.document(digest).await?;
        }
        Ok(())
    }

    /// What the jobs of a sweep refer to.
    async fn jobs(&mut self, db: &Db, sweep: SweepId) -> Result<(), GarbageError> {
        let mut after = None;
        loop {
            let jobs = db.jobs_refer(sweep, after, ROWS).await?;
            let Some(last) = jobs.last() else { return Ok(()) };
            after = Some(last.id);
            for job in &jobs {
                self.job(job).await?;
            }
        }
    }

    async fn job(&mut self, job: &JobRefers) -> Result<(), GarbageError> {
        for text in [Some(&job.spec), job.settlement.as_ref(), job.made.as_ref()].into_iter().flatten() {
            self.text(text.as_bytes()).await?;
            // What travels inside is packed: a payload by itself, or one in the JSON of a settlement.
            for word in text.split('"') {
                if let Ok(Payload::Inline(packed)) = word.parse() {
                    for digest in digests_in(&packed) {
                        self.document(digest).await?;
                    }
                }
            }
        }
        Ok(())
    }
}
