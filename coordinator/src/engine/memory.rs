//! What a running sweep keeps in memory: a fold over its recorded jobs, rebuilt after a restart. Each
//! job is read when it was planned and when it ended, not at every turn.

use super::sweeps::{LIST_KEY, question_of};
use super::{Coordinator, EngineError};
use crate::db::{JobRow, JobStanding, JobState, Settlement, SweepRow};
use crate::plan::{History, Ledger};
use flakefarm_shared::{JobId, JobReport, JobSpec, Payload, Work};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

/// Jobs whose specs and reports are unpacked together: a restart reads all of a long sweep.
const JOBS_AT_ONCE: usize = 200;

#[derive(Debug)]
pub(super) struct SweepMemory {
    pub(super) ledger: Ledger,
    pub(super) history: History,
    planned: HashSet<JobId>,
    folded: HashSet<JobId>,
}

impl SweepMemory {
    /// Whether something was recorded of a job that is not in memory.
    fn is_news(&self, job: &JobStanding) -> bool {
        job.key != LIST_KEY
            && (!self.planned.contains(&job.id) || job.settled && !self.folded.contains(&job.id))
    }

    fn note_end(&mut self, job: &JobRow, settlement: &Settlement, report: Option<&JobReport>) {
        match (settlement, report) {
            (Settlement::Done { .. }, Some(report)) => self.ledger.note_report(&job.key, report),
            (Settlement::Done { .. }, None) => self.ledger.note_lost(&job.key, "its report was lost"),
            (Settlement::Refused(refusal), _) => self.ledger.note_lost(&job.key, &refusal.message),
            (Settlement::Dead { reason }, _) => self.ledger.note_lost(&job.key, reason),
            (Settlement::Cancelled, _) => self.ledger.note_lost(&job.key, "cancelled"),
        }
    }
}

impl Coordinator {
    /// Brings the sweep's memory up to what is recorded.
    pub(super) async fn fold(&self, row: &SweepRow) -> Result<(), EngineError> {
        let standings = self.db.job_standings(row.id).await?;
        let mut memory = self.memory.lock().await;
        let memory = match memory.entry(row.id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let Some(listing) = self.listing(row).await? else { return Ok(()) };
                place.insert(SweepMemory {
                    ledger: Ledger::new(question_of(row).select(&listing.tests)),
                    history: self.history(row, &listing).await?,
                    planned: HashSet::new(),
                    folded: HashSet::new(),
                })
            }
        };
        let news: Vec<JobId> =
            standings.into_iter().filter(|job| memory.is_news(job)).map(|job| job.id).collect();
        for news in news.chunks(JOBS_AT_ONCE) {
            let mut jobs: HashMap<JobId, JobRow> =
                self.db.jobs_by_id(news).await?.into_iter().map(|job| (job.id, job)).collect();
            // In the order they were planned.
            let jobs: Vec<JobRow> = news.iter().filter_map(|job| jobs.remove(job)).collect();
            self.note_planned(memory, &jobs).await?;
            self.note_ends(memory, &jobs).await?;
        }
        Ok(())
    }

    async fn note_planned(&self, memory: &mut SweepMemory, jobs: &[JobRow]) -> Result<(), EngineError> {
        let unplanned: Vec<&JobRow> = jobs.iter().filter(|job| !memory.planned.contains(&job.id)).collect();
        let specs: Vec<Payload> = unplanned.iter().map(|job| job.spec.clone()).collect();
        let specs: Vec<Option<JobSpec>> = self.blobs.unpack_all(&specs, "a job spec").await?;
        for (job, spec) in unplanned.into_iter().zip(specs) {
            memory.planned.insert(job.id);
            // Without its spec a job can only be lost, which its worker will say.
            if let Some(Work::Run { attempts }) = spec.map(|spec| spec.work) {
                memory.ledger.note_planned(&job.key, &attempts);
            }
        }
        Ok(())
    }

    async fn note_ends(&self, memory: &mut SweepMemory, jobs: &[JobRow]) -> Result<(), EngineError> {
        let ended: Vec<(&JobRow, &Settlement)> = jobs
            .iter()
            .filter_map(|job| match &job.state {
                JobState::Settled { settlement, .. } => Some((job, settlement)),
                JobState::Pending { .. } | JobState::Queued { .. } => None,
            })
            .collect();
        let (done, reports): (Vec<JobId>, Vec<Payload>) = ended
            .iter()
            .filter_map(|(job, settlement)| match settlement {
                Settlement::Done { report } => Some((job.id, report.clone())),
                Settlement::Refused(_) | Settlement::Dead { .. } | Settlement::Cancelled => None,
            })
            .unzip();
        let reports: Vec<Option<JobReport>> = self.blobs.unpack_all(&reports, "a job report").await?;
        let reports: HashMap<JobId, Option<JobReport>> = done.into_iter().zip(reports).collect();
        for (job, settlement) in ended {
            if memory.folded.insert(job.id) {
                memory.note_end(job, settlement, reports.get(&job.id).and_then(Option::as_ref));
            }
        }
        Ok(())
    }
}
