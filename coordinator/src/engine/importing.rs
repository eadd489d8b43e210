//! Takes in sweeps that ended elsewhere: blobs, rows, samples, and then what history makes of them, as it
//! does of sweeps that end here. Doing it again changes nothing.

use super::memory::question_of;
use super::{Coordinator, EngineError};
use crate::db::{NewJob, Settlement};
use crate::history::ingest::SUMMED_ANYWAY;
use crate::moving::{MovedSweep, Piece};
use flakefarm_shared::samples::codec;
use flakefarm_shared::samples::filing::{self, Filing};
use flakefarm_shared::{JobReport, JobSpec, WIRE_VERSION, now_micros};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tracing::info;

/// What became of an import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Imported {
    /// Sweeps that were not known.
    pub new: u64,
    /// Sweeps that were known already.
    pub known: u64,
    /// Blobs.
    pub blobs: u64,
}

impl Coordinator {
    /// Takes in one piece of an archive that was checked. `imported` counts.
    pub async fn import(&self, piece: Piece, imported: &mut Imported) -> Result<(), EngineError> {
        match piece {
            Piece::Blob(_, content) => {
                self.blobs.put(content).await?;
                imported.blobs += 1;
                Ok(())
            }
            Piece::Sweep(sweep) => {
                if Box::pin(self.import_sweep(&sweep)).await? {
                    imported.new += 1;
                } else {
                    imported.known += 1;
                }
                Ok(())
            }
        }
    }

    /// Whether it was new.
    async fn import_sweep(&self, sweep: &MovedSweep) -> Result<bool, EngineError> {
        let row = sweep.row();
        // One that cannot be read here is refused before anything of it is recorded.
        question_of(&row)?;
        let context = self.context(&row).await?;
        let new = self.db.record_ended_sweep(&row).await?;
        let finished_at = row.finished_at.unwrap_or(row.created_at);
        let jobs = sweep.jobs.iter().map(|job| NewJob {
            id: job.id,
            key: job.key.clone(),
            class: job.class,
            spec: job.spec.clone(),
            attempts: job.attempts,
        });
        self.db.insert_jobs(row.id, &jobs.collect::<Vec<_>>(), row.created_at).await?;
        let ends: Vec<_> =
            sweep.jobs.iter().map(|job| (job.id, Settlement::Done { report: job.report.clone() })).collect();
        self.db.settle_jobs(&ends, finished_at).await?;
        let mut days = BTreeSet::new();
        for job in &sweep.jobs {
            let spec: JobSpec = self.blobs.unpack(&job.spec, "a job spec").await?;
            let report: JobReport = self.blobs.unpack(&job.report, "a job's report").await?;
            if spec.v != WIRE_VERSION || report.v != WIRE_VERSION || report.job != job.id {
                continue;
            }
            let chunks = filing::chunks(&Filing::of(&spec, &context), row.id, job.id, &report);
            days.extend(report.attempts.iter().map(|attempt| codec::day_of(attempt.started_at)));
            if let Some(samples) = self.samples().filter(|_| !chunks.is_empty()) {
                samples.append(&chunks).await?;
            }
        }
        if let Some(listing) = self.listing(&row).await? {
            let report = Box::pin(self.report(row.id)).await?;
            self.remember(&row, &listing, &report, finished_at).await?;
            let over = codec::day_of(now_micros()) - SUMMED_ANYWAY;
            let late: Vec<i64> = days.into_iter().filter(|day| *day < over).collect();
            self.db.note_late(&row.project, &late, now_micros()).await?;
        }
        self.memories.forget(row.id);
        info!(sweep.id = %row.id, sweep.new = new, "imported a sweep");
        Ok(new)
    }
}
