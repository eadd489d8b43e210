//! A worker that fails more than the others, or is many times slower, is drained; what it made in the sweep does
//! not count, and is made again by the others.

use super::intake::Publication;
use super::memory::Held;
use super::{Coordinator, EngineError};
use crate::db::{JobState, SetAsideRow, SweepRow};
use crate::score::workers::{BadWorker, bad_worker};
use flakefarm_shared::metrics::catalogue::SET_ASIDE;
use flakefarm_shared::queue::ReplyTo;
use flakefarm_shared::{Control, JobId, SweepId, UnixMicros, WorkerId, now_micros};
use std::collections::BTreeSet;
use tracing::{info, warn};

/// How often a job is made again.
const MOST: u32 = 3;
/// For how long a worker that was set aside and goes on is told again, in microseconds.
const TOLD_MICROS: UnixMicros = 600_000_000;
/// Ends of jobs that come so late, in microseconds, come from nobody who was set aside.
const LATEST_MICROS: UnixMicros = 86_400_000_000;

/// Workers that were set aside of late.
#[derive(Debug, Default)]
pub(super) struct SetAside(Vec<SetAsideRow>);

impl SetAside {
    /// Whether what a worker made in a sweep does not count.
    pub(super) fn contains(&self, sweep: SweepId, worker: &WorkerId) -> bool {
        self.0.iter().any(|row| row.sweep == sweep && row.worker == *worker)
    }

    /// Why a worker was to drain, if that was just now.
    fn just_now(&self, worker: &WorkerId, now: UnixMicros) -> Option<&str> {
        let mut rows = self.0.iter().filter(|row| row.worker == *worker && now - row.at < TOLD_MICROS);
        rows.next().map(|row| row.why.as_str())
    }
}

impl Coordinator {
    /// Workers that were set aside within a day.
    pub(super) async fn set_aside(&self) -> Result<SetAside, EngineError> {
        Ok(SetAside(self.db.set_aside_since(now_micros() - LATEST_MICROS).await?))
    }

    /// Compares the workers of a sweep; at its end in any case. Gives whether attempts were set aside: the sweep
    /// has something to do again.
    pub(super) async fn judge_workers(
        &self,
        row: &SweepRow,
        held: Held,
        at_the_end: bool,
    ) -> Result<bool, EngineError> {
        let judging = super::memory::compute(held, "comparing workers", move |memory| {
            let memory = memory.as_mut()?;
            let due = memory.next_look.is_due(memory.ledger.attempts());
            if !(due || at_the_end) || memory.ledger.workers().len() < 2 {
                return None;
            }
            let workers: BTreeSet<WorkerId> = memory.ledger.workers().into_iter().cloned().collect();
            Some((workers, bad_worker(&memory.ledger)))
        });
        let (held, found) = judging.await?;
        let Some((workers, bad)) = found else { return Ok(false) };
        let mut aside: BTreeSet<WorkerId> =
            self.db.set_aside_in(row.id).await?.into_iter().map(|row| row.worker).collect();
        if let Some(bad) = bad.filter(|bad| !aside.contains(&bad.worker))
            && self.others_live(&bad.worker).await?
        {
            self.drain_worker(row, &bad).await?;
            aside.insert(bad.worker);
        }
        let mut again = 0;
        for worker in workers.intersection(&aside) {
            let jobs: Vec<JobId> = held
                .as_ref()
                .map(|memory| memory.ledger.jobs_of(worker).map(|key| key.id(row.id)).collect())
                .unwrap_or_default();
            again += self.db.make_again(&jobs, worker, MOST, now_micros()).await?;
        }
        drop(held);
        if again > 0 {
            info!(sweep.id = %row.id, jobs = again, "jobs of workers that were set aside are made again");
            // It is read anew from what is recorded now.
            self.memories.forget(row.id);
            self.wake_outbox.notify_one();
        }
        Ok(again > 0)
    }

    /// Whether somebody else works, who is not leaving.
    async fn others_live(&self, worker: &WorkerId) -> Result<bool, EngineError> {
        let workers = self.working().await?;
        Ok(workers.iter().any(|other| other.id != *worker))
    }

    async fn drain_worker(&self, row: &SweepRow, bad: &BadWorker) -> Result<(), EngineError> {
        let why = bad.to_string();
        warn!(sweep.id = %row.id, worker.id = %bad.worker, why, "a worker is set aside");
        let (sweep, worker, at) = (row.id, bad.worker.clone(), now_micros());
        self.db.set_aside(&row.project, &SetAsideRow { sweep, worker, why: why.clone(), at }).await?;
        SET_ASIDE.count(&[]);
        self.tell_set_aside(&bad.worker, &why, &ReplyTo::default()).await;
        Ok(())
    }

    /// Tells a worker that goes on although it was set aside: it has missed it.
    pub(super) async fn remind(&self, aside: &SetAside, worker: &WorkerId, reply_to: &ReplyTo) {
        if let Some(why) = aside.just_now(worker, now_micros()) {
            self.tell_set_aside(worker, why, reply_to).await;
        }
    }

    async fn tell_set_aside(&self, worker: &WorkerId, why: &str, reply_to: &ReplyTo) {
        let control = Control::SetAside { worker: worker.clone(), why: why.to_owned() };
        if let Err(error) = self.queue.reply(reply_to, &control).await {
            warn!(worker.id = %worker, error = %error, "a worker was not told that it is set aside; it will be");
        }
    }

    /// Whether the end of a job by a worker that was set aside in its sweep counts for nothing: the job is made again,
    /// by this or already.
    pub(super) async fn goes_without(
        &self,
        Publication { job, number, .. }: Publication,
        worker: &WorkerId,
    ) -> Result<bool, EngineError> {
        let Some(row) = self.db.job(job).await? else { return Ok(false) };
        // What it ended was published before; or nothing is published yet.
        let is_made_again = row.again > 0
            && match row.state {
                JobState::Pending { .. } => true,
                JobState::Queued { .. } => number < row.begun,
                JobState::Settled { .. } => false,
            };
        Ok(is_made_again || self.db.make_again(&[job], worker, MOST, now_micros()).await? > 0)
    }

    /// A sentence for each worker that was set aside in a sweep.
    pub(super) async fn notes_on_workers(&self, sweep: SweepId) -> Result<Vec<String>, EngineError> {
        let note = |row: SetAsideRow| {
            format!(
                "worker {} was set aside and what it had run was run again by the others: {}; look at its machine, \
                 then start it again",
                row.worker, row.why
            )
        };
        Ok(self.db.set_aside_in(sweep).await?.into_iter().map(note).collect())
    }
}
