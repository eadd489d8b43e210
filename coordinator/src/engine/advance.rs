//! Advancing sweeps: read the recorded jobs, fold new reports into the ledger, ask the planner, and
//! record what it wants; nothing else decides. Each sweep advances by itself: one that takes long, or
//! that cannot go on, holds up no other.

use super::memory::{compute, question_of};
use super::trouble::Step;
use super::{Coordinator, EngineError, POLL, STORE_MARKER};
use crate::db::{NewJob, SweepRow, SweepState, WorkerRow};
use crate::events::Event;
use crate::experiment::JobKey;
use crate::plan::{self, Ledger, Planning};
use crate::questions;
use flakefarm_shared::{
    Class, Control, JobSpec, SweepContext, SweepId, UnixMicros, WIRE_VERSION, Work, now_micros,
};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

/// Between two rounds of planning a sweep, however long the first took.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Sweeps that advance at the same time.
const AT_ONCE: usize = 4;
/// A worker silent for this long is not counted on, in microseconds.
pub const WORKER_SILENCE_MICROS: i64 = 45_000_000;
/// How far a sweep is, is recorded no more often than this.
const PROGRESS_PAUSE: Duration = Duration::from_secs(1);

/// Whether the budget left something unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spent {
    Enough,
    Everything,
}

/// Which sweeps are to advance, and when they may.
#[derive(Debug, Default)]
struct Schedule {
    due: HashSet<SweepId>,
    advancing: HashSet<SweepId>,
    /// Ends come faster than a large sweep is planned: at most half of the time goes into planning it.
    resting: HashMap<SweepId, Instant>,
    in_trouble: HashSet<SweepId>,
}

impl Schedule {
    /// A sweep that may advance now.
    fn next(&mut self, now: Instant) -> Option<SweepId> {
        self.resting.retain(|_, until| *until > now);
        let may = |sweep: &&SweepId| !self.advancing.contains(sweep) && !self.resting.contains_key(sweep);
        let sweep = *self.due.iter().find(may)?;
        self.due.remove(&sweep);
        self.advancing.insert(sweep);
        Some(sweep)
    }

    /// When a sweep that is due has rested enough.
    fn rested(&self) -> Option<Instant> {
        self.resting.iter().filter(|(sweep, _)| self.due.contains(sweep)).map(|(_, until)| *until).min()
    }
}

pub(super) async fn run(coordinator: Coordinator, stop: CancellationToken) {
    let mut schedule = Schedule::default();
    let mut steps: JoinSet<(SweepId, Duration, Result<(), EngineError>)> = JoinSet::new();
    let mut look = true;
    let mut marked = false;
    loop {
        if look {
            if !marked {
                let put = coordinator.blobs.put(STORE_MARKER).await.map_err(EngineError::from);
                marked = put.is_ok();
                coordinator.note(Step::Storing, &put.map(|_| ()));
            }
            let found = coordinator.db.sweeps_to_advance().await.map_err(EngineError::from);
            match &found {
                Ok(sweeps) => {
                    coordinator.room.keep(&sweeps.iter().copied().collect());
                    schedule.due = sweeps.iter().copied().filter(|id| coordinator.works_on(*id)).collect();
                }
                Err(_) => coordinator.note(Step::Planning, &found.map(|_| ())),
            }
        }
        while schedule.advancing.len() < AT_ONCE
            && let Some(sweep) = schedule.next(Instant::now())
        {
            let coordinator = coordinator.clone();
            steps.spawn(async move {
                let begun = Instant::now();
                let stepped = step(&coordinator, sweep).await;
                (sweep, begun.elapsed(), stepped)
            });
        }
        let rested = schedule.rested();
        look = tokio::select! {
            () = coordinator.wake.notified() => true,
            () = tokio::time::sleep(POLL) => true,
            () = until(rested) => false,
            Some(stepped) = steps.join_next() => {
                match stepped {
                    Ok((sweep, took, stepped)) => ended(&coordinator, &mut schedule, sweep, took, stepped),
                    Err(panic) => {
                        // Not known whose it was: all may advance again.
                        error!(error = %panic, "a sweep's step ended badly");
                        schedule.advancing.clear();
                    }
                }
                false
            }
            () = stop.cancelled() => return,
        };
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn ended(
    coordinator: &Coordinator,
    schedule: &mut Schedule,
    sweep: SweepId,
    took: Duration,
    stepped: Result<(), EngineError>,
) {
    schedule.advancing.remove(&sweep);
    schedule.resting.insert(sweep, Instant::now() + took.min(LONGEST_PAUSE));
    match &stepped {
        Ok(()) => {
            schedule.in_trouble.remove(&sweep);
            if schedule.in_trouble.is_empty() {
                coordinator.note(Step::Planning, &stepped);
            }
        }
        Err(_) => {
            schedule.in_trouble.insert(sweep);
            coordinator.note(Step::Planning, &stepped);
        }
    }
}

/// One step of one sweep. One that cannot go on however often it is tried ends here, with the reason.
async fn step(coordinator: &Coordinator, sweep: SweepId) -> Result<(), EngineError> {
    let stepped = Box::pin(coordinator.advance(sweep)).await;
    let Err(error) = stepped else { return Ok(()) };
    let Some(refusal) = error.end_of_sweep() else { return Err(error) };
    coordinator.blobs_are_there().await?;
    error!(sweep.id = %sweep, error = flakefarm_shared::chain(&error), "sweep cannot go on");
    // Who cancelled it has heard of that; what is left to say is why there is no report.
    if coordinator.db.fail_cancelled(sweep, &refusal).await? {
        coordinator.memories.forget(sweep);
        return Ok(());
    }
    coordinator.fail(sweep, refusal).await
}

impl WorkerRow {
    /// Whether it was not heard of for so long that nobody counts on it.
    pub(super) fn is_silent(&self, now: UnixMicros) -> bool {
        now - self.seen_at >= WORKER_SILENCE_MICROS
    }
}

impl Coordinator {
    /// The next step of one sweep.
    async fn advance(&self, sweep: SweepId) -> Result<(), EngineError> {
        let Some(row) = self.db.sweep(sweep).await? else { return Ok(()) };
        match &row.state {
            SweepState::Running => {}
            SweepState::Cancelled if row.report.is_none() => return self.close(&row).await,
            SweepState::Cancelled
            | SweepState::Answered
            | SweepState::Interrupted
            | SweepState::Failed(_) => return Ok(()),
        }
        let question = question_of(&row)?;
        if row.listing.is_none() {
            return self.advance_listing(&row, &question).await;
        }
        if !self.has_room(&row).await? {
            return Ok(());
        }
        let held = self.fold(&row, &question).await?;
        let elapsed =
            Duration::from_micros(now_micros().saturating_sub(row.created_at).max(0).unsigned_abs());
        let (held, made) = compute(held, "planning the sweep", move |memory| {
            let memory = memory.as_ref()?;
            let planned = questions::plan(&memory.question, &memory.ledger, &memory.history, elapsed);
            let progress = progress(sweep, &memory.ledger, &planned);
            Some((planned, progress, memory.ledger.attempts()))
        })
        .await?;
        let Some((planned, progress, attempts)) = made else { return Ok(()) };
        self.room.weigh(sweep, attempts);
        let at_the_end = planned.jobs.is_empty() && matches!(planned.state, Planning::Complete);
        if self.judge_workers(&row, held, at_the_end).await? {
            self.wake.notify_one();
            return Ok(());
        }
        self.tell_progress(progress).await?;
        if !planned.jobs.is_empty() && self.may_queue(&row.project).await?.is_err() {
            // As many as it may have are under way: it goes on when some of them have ended.
            return Ok(());
        }
        let wanted = planned.jobs.into_iter().map(|job| (job.key, Work::Run { attempts: job.attempts }));
        let new_jobs = self.new_jobs(&row, wanted).await?;
        if !new_jobs.is_empty() {
            self.db.insert_jobs(row.id, &new_jobs, now_micros()).await?;
            self.wake_outbox.notify_one();
            return Ok(());
        }
        let spent = if planned.limited { Spent::Everything } else { Spent::Enough };
        match planned.state {
            Planning::Working => {}
            Planning::Complete if self.waits_for_control(row.id).await? => {}
            Planning::Complete => self.finish(&row, &question, SweepState::Answered, spent).await?,
            Planning::Overdue => {
                // Once the sweep has ended, nobody hands its jobs out; workers are only told sooner.
                self.finish(&row, &question, SweepState::Answered, spent).await?;
                self.tell_workers(row.id).await;
                self.db.cancel_jobs(row.id, now_micros()).await?;
            }
        }
        Ok(())
    }

    /// Tells workers that a sweep has ended. A hint: one that misses it wastes time.
    pub(super) async fn tell_workers(&self, sweep: SweepId) {
        if let Err(error) = self.queue.broadcast(&Control::Cancel { sweep }).await {
            warn!(sweep.id = %sweep, error = %error, "workers were not told; they find out by themselves");
        }
    }

    pub(super) async fn new_jobs(
        &self,
        row: &SweepRow,
        wanted: impl IntoIterator<Item = (JobKey, Work)>,
    ) -> Result<Vec<NewJob>, EngineError> {
        let origin = super::past::origin_of(&question_of(row)?);
        let (mut keys, mut specs) = (Vec::new(), Vec::new());
        for (key, work) in wanted {
            specs.push(JobSpec {
                v: WIRE_VERSION,
                id: key.id(row.id),
                sweep: row.id,
                // A listing is short, and nothing is known before it: it waits behind no attempts.
                class: if matches!(work, Work::List) { Class::Interactive } else { row.class },
                context: row.context.clone(),
                origin,
                work,
            });
            keys.push(key);
        }
        let stored = self.blobs.pack_all(&specs).await?;
        let jobs = keys.into_iter().zip(&specs).zip(stored).map(|((key, spec), stored)| NewJob {
            id: spec.id,
            key: key.to_string(),
            class: spec.class,
            spec: stored,
            attempts: match &spec.work {
                Work::List => 0,
                Work::Run { attempts } => u32::try_from(attempts.len()).expect("a job is bounded"),
            },
        });
        Ok(jobs.collect())
    }

    pub(super) async fn context(&self, row: &SweepRow) -> Result<SweepContext, EngineError> {
        Ok(self.blobs.get_json(&row.context, "a sweep's context").await?)
    }

    /// Tells this process's listeners how far a sweep is, and from time to time records it for others.
    async fn tell_progress(&self, mut event: Event) -> Result<(), EngineError> {
        let now = now_micros();
        if let Event::Progress { sweep, slots, .. } = &mut event {
            *slots = self
                .db
                .workers()
                .await?
                .iter()
                .filter(|worker| !worker.is_silent(now))
                .map(|worker| u32::from(worker.slots))
                .sum();
            let sweep = *sweep;
            if self.memories.owes_progress(sweep, PROGRESS_PAUSE) {
                self.db.record_progress(sweep, &event, now).await?;
            }
        }
        self.events.send(event);
        Ok(())
    }
}

fn progress(sweep: SweepId, ledger: &Ledger, planned: &plan::Plan) -> Event {
    let tally = ledger.tally();
    Event::Progress {
        sweep,
        attempts: ledger.attempts(),
        remaining: planned.remaining.attempts,
        remaining_seconds: planned.remaining.container_seconds,
        flaky: tally.both,
        failing: tally.only_failed,
        infrastructure_errors: ledger.infrastructure_errors(),
        slots: 0,
    }
}
