//! What a running sweep keeps in memory: a fold over its recorded jobs, rebuilt after a restart. Each
//! job is read when it was planned and when it ended, not at every turn. Every sweep has a lock of its
//! own, so that one that takes long to plan holds up nobody else; what is long is computed away from
//! the threads that serve.

use super::{Coordinator, EngineError, STORE_MARKER};
use crate::db::{JobRow, JobStanding, JobState, Settlement, SweepRow, SweepState};
use crate::experiment::{JobKey, narrowed};
use crate::plan::{History, Ledger, Question};
use flakefarm_shared::{Digest, JobId, JobReport, JobSpec, Payload, SweepId, WIRE_VERSION, Work};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::OwnedMutexGuard;
use tracing::warn;

/// Attempts of a sweep before its workers are compared for the first time, and from then on each time there are
/// twice as many.
const FIRST_LOOK: u64 = 60;
/// Jobs whose rows and specs are read together: a restart reads all of a long sweep, and of some at the same time.
const JOBS_AT_ONCE: usize = 16;
/// Reports that are unpacked together: one may hold thousands of samples.
const REPORTS_AT_ONCE: usize = 4;

/// When the workers of a sweep are compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct NextLook(u64);

impl Default for NextLook {
    fn default() -> Self {
        Self(FIRST_LOOK)
    }
}

impl NextLook {
    /// Whether it is time, after so many attempts.
    pub(super) fn is_due(&mut self, attempts: u64) -> bool {
        let due = attempts >= self.0;
        while attempts >= self.0 {
            self.0 *= 2;
        }
        due
    }
}

#[derive(Debug)]
pub(super) struct SweepMemory {
    /// As the project's framework can answer it.
    pub(super) question: Question,
    /// What was left out of it for that, a sentence each.
    pub(super) left_out: Vec<String>,
    pub(super) ledger: Ledger,
    pub(super) history: History,
    planned: HashSet<JobId>,
    folded: HashSet<JobId>,
    pub(super) next_look: NextLook,
}

/// A sweep's memory, locked; nothing as long as its tests are not known.
pub(super) type Held = OwnedMutexGuard<Option<SweepMemory>>;

/// The memories of the sweeps that this process works on or was asked about.
#[derive(Debug, Clone, Default)]
pub(super) struct Memories(Arc<Mutex<HashMap<SweepId, Shelf>>>);

#[derive(Debug)]
struct Shelf {
    memory: Arc<tokio::sync::Mutex<Option<SweepMemory>>>,
    used: Instant,
    /// When its progress was last recorded.
    told: Option<Instant>,
}

impl Memories {
    /// Locks a sweep's memory, once whoever holds it is done.
    async fn hold(&self, sweep: SweepId) -> Held {
        let memory = {
            let mut shelves = self.0.lock().expect("nobody panics while holding the lock");
            let shelf = shelves.entry(sweep).or_insert_with(|| Shelf {
                memory: Arc::default(),
                used: Instant::now(),
                told: None,
            });
            shelf.used = Instant::now();
            Arc::clone(&shelf.memory)
        };
        memory.lock_owned().await
    }

    /// Whether the progress of a sweep in memory was not recorded within `pause`; it is from now on.
    pub(super) fn owes_progress(&self, sweep: SweepId, pause: Duration) -> bool {
        let mut shelves = self.0.lock().expect("nobody panics while holding the lock");
        let Some(shelf) = shelves.get_mut(&sweep) else { return false };
        let owes = shelf.told.is_none_or(|at| at.elapsed() >= pause);
        if owes {
            shelf.told = Some(Instant::now());
        }
        owes
    }

    /// Drops a sweep's memory, once nobody holds it; it can be rebuilt.
    pub(super) fn forget(&self, sweep: SweepId) {
        self.0.lock().expect("nobody panics while holding the lock").remove(&sweep);
    }

    /// Drops the memories that nobody has asked for in `idle`.
    pub(super) fn forget_idle(&self, idle: Duration) {
        let mut shelves = self.0.lock().expect("nobody panics while holding the lock");
        shelves.retain(|_, shelf| shelf.used.elapsed() < idle);
    }
}

/// Computes something long of a sweep's memory, away from the threads that serve. A panic is an error
/// of this sweep alone.
pub(super) async fn compute<T: Send + 'static>(
    mut held: Held,
    what: &'static str,
    work: impl FnOnce(&mut Option<SweepMemory>) -> T + Send + 'static,
) -> Result<(Held, T), EngineError> {
    let done = tokio::task::spawn_blocking(move || {
        let made = work(&mut held);
        (held, made)
    });
    done.await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            EngineError::unusable(format!("{what} failed, which is a defect of flakefarm"), words)
        }
        Err(_) => EngineError::Stopping,
    })
}

impl SweepMemory {
    /// Whether something was recorded of a job that is not in memory.
    fn is_news(&self, job: &JobStanding) -> bool {
        planned_key(&job.key).is_some()
            && (!self.planned.contains(&job.id) || job.settled && !self.folded.contains(&job.id))
    }

    fn note_end(
        &mut self,
        job: &JobRow,
        settlement: &Settlement,
        report: Option<&JobReport>,
        end: Cancelled,
    ) {
        let Some(key) = planned_key(&job.key) else { return };
        match (settlement, report) {
            (Settlement::Done { .. }, Some(report)) if report.v != WIRE_VERSION => {
                let reason = format!("its report is of version {}, not {WIRE_VERSION}", report.v);
                self.ledger.note_lost(key, &reason);
            }
            (Settlement::Done { .. }, Some(report)) if report.job != job.id => {
                self.ledger.note_lost(key, "its report is another job's");
            }
            (Settlement::Done { .. }, Some(report)) => self.ledger.note_report(key, report),
            (Settlement::Done { .. }, None) => {
                self.ledger.note_lost(key, "its report is missing or damaged");
            }
            (Settlement::Refused(refusal), _) => self.ledger.note_lost(key, &refusal.message),
            (Settlement::Dead { reason }, _) => self.ledger.note_lost(key, reason),
            (Settlement::Cancelled, _) => match end {
                Cancelled::IsMissing => self.ledger.note_lost(key, "cancelled"),
                Cancelled::IsWanted => {}
            },
        }
    }
}

/// The key of a job of the planner's. The listing is none; nor is what only a later version names,
/// which that version's planner will find again.
fn planned_key(stored: &str) -> Option<JobKey> {
    stored.parse().ok().filter(|key| *key != JobKey::LIST)
}

/// What a sweep asks. One that another version of this program recorded may be unreadable.
pub(super) fn question_of(row: &SweepRow) -> Result<Question, EngineError> {
    serde_json::from_str(&row.question).map_err(|error| {
        EngineError::unusable("the question of this sweep cannot be read".to_owned(), &error.to_string())
    })
}

/// What a cancelled job means to its sweep.
#[derive(Debug, Clone, Copy)]
enum Cancelled {
    /// The sweep goes on without it.
    IsMissing,
    /// The sweep was cancelled, too.
    IsWanted,
}

impl Coordinator {
    /// The sweep's memory, brought up to what is recorded, and locked.
    pub(super) async fn fold(&self, row: &SweepRow, question: &Question) -> Result<Held, EngineError> {
        let standings = self.db.job_standings(row.id).await?;
        let mut held = self.memories.hold(row.id).await;
        if held.is_none() {
            let Some(listing) = self.listing(row).await? else { return Ok(held) };
            let asked = narrowed(question, &listing).map_err(|incapable| {
                EngineError::unusable("the sweep cannot be answered".to_owned(), &incapable.to_string())
            })?;
            *held = Some(SweepMemory {
                ledger: Ledger::new(asked.question.looked_at(&listing.tests)).with_files(&listing),
                question: asked.question,
                left_out: asked.left_out,
                history: self.history(row, &listing).await?,
                planned: HashSet::new(),
                folded: HashSet::new(),
                next_look: NextLook::default(),
            });
        }
        let Some(memory) = held.as_ref() else { return Ok(held) };
        let news: Vec<JobId> =
            standings.into_iter().filter(|job| memory.is_news(job)).map(|job| job.id).collect();
        let cancelled = match row.state {
            SweepState::Cancelled => Cancelled::IsWanted,
            SweepState::Running | SweepState::Answered | SweepState::Interrupted | SweepState::Failed(_) => {
                Cancelled::IsMissing
            }
        };
        for news in news.chunks(JOBS_AT_ONCE) {
            let mut jobs: HashMap<JobId, JobRow> =
                self.db.jobs_by_id(news).await?.into_iter().map(|job| (job.id, job)).collect();
            // In the order they were planned.
            let jobs: Vec<JobRow> = news.iter().filter_map(|job| jobs.remove(job)).collect();
            held = self.note_planned(held, &jobs).await?;
            held = self.note_ends(held, jobs, cancelled).await?;
        }
        Ok(held)
    }

    async fn note_planned(&self, mut held: Held, jobs: &[JobRow]) -> Result<Held, EngineError> {
        let Some(memory) = held.as_mut() else { return Ok(held) };
        let unplanned: Vec<&JobRow> = jobs.iter().filter(|job| !memory.planned.contains(&job.id)).collect();
        let specs: Vec<Payload> = unplanned.iter().map(|job| job.spec.clone()).collect();
        let specs: Vec<Option<JobSpec>> = self.blobs.unpack_all(&specs, "a job spec").await?;
        for (job, spec) in unplanned.into_iter().zip(specs) {
            memory.planned.insert(job.id);
            // Without its spec a job can only be lost, which its worker will say.
            if let (Some(Work::Run { attempts }), Some(key)) =
                (spec.map(|spec| spec.work), planned_key(&job.key))
            {
                memory.ledger.note_planned(key, &attempts);
            }
        }
        Ok(held)
    }

    async fn note_ends(
        &self,
        mut held: Held,
        jobs: Vec<JobRow>,
        cancelled: Cancelled,
    ) -> Result<Held, EngineError> {
        let ended: Vec<(JobRow, Settlement)> = jobs
            .into_iter()
            .filter_map(|job| match &job.state {
                JobState::Settled { settlement, .. } => Some((settlement.clone(), job)),
                JobState::Pending { .. } | JobState::Queued { .. } => None,
            })
            .map(|(settlement, job)| (job, settlement))
            .collect();
        let mut ended = ended.into_iter().peekable();
        while ended.peek().is_some() {
            let some: Vec<(JobRow, Settlement)> = ended.by_ref().take(REPORTS_AT_ONCE).collect();
            let (done, reports): (Vec<JobId>, Vec<Payload>) = some
                .iter()
                .filter_map(|(job, settlement)| match settlement {
                    Settlement::Done { report } => Some((job.id, report.clone())),
                    Settlement::Refused(_) | Settlement::Dead { .. } | Settlement::Cancelled => None,
                })
                .unzip();
            let reports: Vec<Option<JobReport>> = self.blobs.unpack_all(&reports, "a job report").await?;
            if let Some(lost) = reports.iter().position(Option::is_none) {
                self.blobs_are_there().await?;
                warn!(job.id = %done[lost], "the report of this job is missing or damaged; its runs are lost");
            }
            let reports: HashMap<JobId, Option<JobReport>> = done.into_iter().zip(reports).collect();
            let note = move |memory: &mut Option<SweepMemory>| {
                let Some(memory) = memory else { return };
                for (job, settlement) in &some {
                    if memory.folded.insert(job.id) {
                        let report = reports.get(&job.id).and_then(Option::as_ref);
                        memory.note_end(job, settlement, report, cancelled);
                    }
                }
            };
            (held, ()) = compute(held, "reading a job's report", note).await?;
        }
        Ok(held)
    }

    /// An error unless the blob store holds what this process put there when it began: one that is not
    /// mounted holds nothing, and nothing is lost for that.
    pub(super) async fn blobs_are_there(&self) -> Result<(), EngineError> {
        if self.blobs.contains(&Digest::of(STORE_MARKER)).await? {
            Ok(())
        } else {
            Err(EngineError::StoreGone)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_compared_as_often_as_attempts_double() {
        let mut next = NextLook::default();
        let looks: Vec<u64> = (0..1_000).filter(|attempts| next.is_due(*attempts)).collect();
        assert_eq!(looks, [60, 120, 240, 480, 960]);
    }
}
