//! Writes sweeps that have ended, with all that they refer to.

use super::{
    BLOBS, END, End, LARGEST_ENTRY, MANIFEST, Manifest, MovedJob, MovedSweep, MovingError, SWEEPS, VERSION,
};
use crate::control::CONTROL;
use crate::db::{Db, JobRow, JobState, Settlement, SweepFilter, SweepRow, SweepState};
use crate::garbage;
use flakefarm_shared::blobs::{BlobError, Blobs};
use flakefarm_shared::{Digest, UnixMicros};
use std::collections::HashSet;
use std::io::Write;

/// Sweeps read together.
const PAGE: u32 = 200;

/// Which sweeps.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this project; none: of all.
    pub project: Option<String>,
    /// Begun at or after this time.
    pub since: UnixMicros,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// Sweeps.
    pub sweeps: u64,
    /// Sweeps that have not ended, and stay.
    pub open: u64,
    /// Blobs.
    pub blobs: u64,
    /// Blobs that are gone: what was kept long enough.
    pub gone: u64,
    /// Blobs that are too large to travel: snapshots.
    pub large: u64,
    /// Bytes of all blobs.
    pub bytes: u64,
}

/// Writes all that is wanted, the newest sweep first.
pub async fn export(
    db: &Db,
    blobs: &Blobs,
    wanted: &Wanted,
    to: impl Write,
) -> Result<Exported, MovingError> {
    let mut archive = tar::Builder::new(to);
    let manifest = Manifest { v: VERSION, written_by: format!("flakefarm {}", env!("CARGO_PKG_VERSION")) };
    append(&mut archive, MANIFEST, &document(&manifest))?;
    let mut exported = Exported::default();
    let mut written: HashSet<Digest> = HashSet::new();
    let mut before = None;
    loop {
        let projects = wanted.project.clone().map(|project| vec![project]);
        let rows = db.sweeps_page(&SweepFilter { projects, state: None, before }, PAGE).await?;
        let Some(last) = rows.last() else { break };
        before = Some(last.id);
        for row in &rows {
            if row.created_at < wanted.since || row.project == CONTROL {
                continue;
            }
            let Some(sweep) = moved(row, db.jobs(row.id).await?) else {
                exported.open += 1;
                continue;
            };
            let mut named: Vec<Digest> = garbage::of_sweep(db, blobs, row).await?.into_iter().collect();
            // The same sweeps give the same archive.
            named.sort();
            for digest in named {
                if written.insert(digest.clone()) {
                    blob(&mut archive, blobs, &digest, &mut exported).await?;
                }
            }
            append(&mut archive, &format!("{SWEEPS}{}", row.id), &document(&sweep))?;
            exported.sweeps += 1;
        }
    }
    let end = End { sweeps: exported.sweeps, blobs: exported.blobs };
    append(&mut archive, END, &document(&end))?;
    archive.into_inner()?.flush()?;
    Ok(exported)
}

async fn blob(
    archive: &mut tar::Builder<impl Write>,
    blobs: &Blobs,
    digest: &Digest,
    exported: &mut Exported,
) -> Result<(), MovingError> {
    // A name of this shape need not be one of ours.
    let size = match blobs.stream(digest).await {
        Ok((size, _)) => size,
        Err(BlobError::Missing(_)) => {
            exported.gone += 1;
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    if size > LARGEST_ENTRY {
        exported.large += 1;
        return Ok(());
    }
    match blobs.get(digest).await {
        Ok(content) => {
            append(archive, &format!("{BLOBS}{digest}"), &content)?;
            exported.blobs += 1;
            exported.bytes += size;
        }
        Err(BlobError::Missing(_) | BlobError::Damaged(_)) => exported.gone += 1,
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// None of one that has not ended.
fn moved(row: &SweepRow, jobs: Vec<JobRow>) -> Option<MovedSweep> {
    let finished_at = row.finished_at?;
    if matches!(row.state, SweepState::Running | SweepState::Interrupted) {
        return None;
    }
    // What has not run left no evidence.
    let done = |job: JobRow| match job.state {
        JobState::Settled { settlement: Settlement::Done { report }, .. } => Some(MovedJob {
            id: job.id,
            key: job.key,
            class: job.class,
            spec: job.spec,
            attempts: job.attempts,
            report,
        }),
        JobState::Settled { .. } | JobState::Pending { .. } | JobState::Queued { .. } => None,
    };
    Some(MovedSweep {
        id: row.id,
        project: row.project.clone(),
        revision: row.revision.clone(),
        question: row.question.clone(),
        context: row.context.clone(),
        class: row.class,
        seed: row.seed,
        source: row.source.clone(),
        created_at: row.created_at,
        state: row.state.clone(),
        listing: row.listing.clone(),
        report: row.report.clone(),
        finished_at,
        jobs: jobs.into_iter().filter_map(done).collect(),
    })
}

fn document<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("documents of an archive serialise")
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, content: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, name, content)
}
