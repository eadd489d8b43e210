//! From the queue to rows: ends of jobs, signs of life, questions of workers, what is dead.

use super::leases::{Asked, Decision, decide};
use super::trouble::Step;
use super::{Coordinator, EngineError};
use crate::db::{DbError, JobRow, JobState, ParkedRow, Settlement, SweepState, WorkerRow};
use crate::events::Event;
use flakefarm_shared::fault;
use flakefarm_shared::metrics::catalogue::{JOBS_ENDED, REPUBLICATIONS, WORKER_MESSAGES};
use flakefarm_shared::queue::{DELIVERY_LIMIT, DeadDelivery, Origin, ReplyTo, WorkerDelivery};
use flakefarm_shared::{
    Control, JobEnd, JobId, Payload, Permit, SweepId, UnixMicros, WorkerMessage, now_micros,
};
use futures::{FutureExt, TryStreamExt};
use std::collections::HashMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// A job that met an infrastructure error this often is dead.
const INFRASTRUCTURE_FAILURES: u32 = 5;

/// Pause before a message that could not be recorded is looked at again.
const RETRY: Duration = Duration::from_millis(500);

/// Messages recorded in one transaction.
const BATCH: usize = 256;

/// Questions of workers that are answered at once.
const ANSWERING: usize = 16;

pub(super) async fn worker_messages(coordinator: Coordinator, stop: CancellationToken) {
    let mut messages = coordinator.queue.worker_messages();
    loop {
        let delivery = tokio::select! {
            delivery = messages.next() => delivery,
            () = stop.cancelled() => return,
        };
        let Some(delivery) = delivery else { return };
        let mut batch = vec![delivery];
        // What has come already is recorded with it; nothing is waited for.
        while batch.len() < BATCH
            && let Some(Some(delivery)) = messages.next().now_or_never()
        {
            batch.push(delivery);
        }
        let recorded = record(&coordinator, batch).await;
        coordinator.note(Step::Recording, &recorded);
        if recorded.is_err() {
            tokio::time::sleep(RETRY).await; // the messages were given back and come again
        }
    }
}

async fn record(coordinator: &Coordinator, batch: Vec<WorkerDelivery>) -> Result<(), EngineError> {
    fault::point("coordinator.received");
    let mut settlements = Vec::new();
    let mut ended = 0;
    // Of a worker's signs of life only the last one says something new.
    let mut beats = HashMap::new();
    // One who is left waiting asks again.
    let mut asks = HashMap::new();
    let aside = coordinator.set_aside().await?;
    // An error drops the deliveries, which gives them back to the queue.
    for delivery in &batch {
        WORKER_MESSAGES.count(&[kind(&delivery.message)]);
        match &delivery.message {
            WorkerMessage::JobEnded { job, sweep, worker, publication, end, .. } => {
                ended += 1;
                let publication = Publication { job: *job, sweep: *sweep, number: *publication };
                if aside.contains(*sweep, worker) && coordinator.goes_without(publication, worker).await? {
                    continue;
                }
                if let Some(settlement) = job_ended(coordinator, publication, end, &worker.0).await? {
                    settlements.push((*job, settlement));
                }
            }
            WorkerMessage::Beat { worker, slots, version, jobs, draining, trouble, .. } => {
                if !draining {
                    coordinator.remind(&aside, worker, &delivery.reply_to).await;
                }
                beats.insert(worker, (slots, version, jobs, draining, trouble));
            }
            WorkerMessage::Ask { worker, job, publication, held_ms, came_back, returns, .. } => {
                let (publication, returns) = (*publication, (*returns).max(u32::from(*came_back)));
                let (held, heard_for) = (Duration::from_millis(*held_ms), Duration::ZERO);
                let asked = Asked { worker, publication, held, returns, heard_for };
                asks.insert((*job, publication, worker), (asked, &delivery.reply_to));
            }
        }
    }
    let now = now_micros();
    coordinator.db.settle_jobs(&settlements, now).await?;
    for (_, settlement) in &settlements {
        JOBS_ENDED.count(&[settlement.word()]);
    }
    fault::point("coordinator.recorded");
    if ended > 0 {
        coordinator.wake.notify_one();
        coordinator.wake_outbox.notify_one();
    }
    for (worker, (slots, version, jobs, draining, trouble)) in beats {
        let in_hand: Vec<_> = jobs.iter().map(|progress| (progress.job, progress.publication)).collect();
        coordinator.db.touch_jobs(&in_hand, worker, 0, now).await?;
        coordinator
            .db
            .upsert_worker(&WorkerRow {
                id: worker.clone(),
                version: version.clone(),
                slots: *slots,
                seen_at: now,
                draining: *draining,
                jobs: u32::try_from(jobs.len()).unwrap_or(u32::MAX),
                trouble: trouble.clone(),
            })
            .await?;
        for progress in jobs.iter().filter(|progress| progress.attempts_total == 0) {
            coordinator
                .events
                .send(Event::Preparing { sweep: progress.sweep, doing: progress.doing.clone() });
        }
    }
    // After the signs of life that came before it.
    let heard_for = coordinator.carriage.heard_for(now);
    let asks =
        asks.into_iter().map(|((job, ..), (asked, reply_to))| (job, Asked { heard_for, ..asked }, reply_to));
    futures::stream::iter(asks.map(Ok::<_, EngineError>))
        .try_for_each_concurrent(ANSWERING, async |(job, asked, reply_to)| {
            answer(coordinator, job, asked, reply_to).await
        })
        .await?;
    coordinator.carriage.heard(ended, now);
    for delivery in batch {
        delivery.ack().await?;
    }
    fault::point("coordinator.acknowledged");
    Ok(())
}

/// As a label's value.
fn kind(message: &WorkerMessage) -> &'static str {
    match message {
        WorkerMessage::Beat { .. } => "beat",
        WorkerMessage::Ask { .. } => "ask",
        WorkerMessage::JobEnded { .. } => "ended",
    }
}

/// Tells a worker whether it may run what it has received, or leaves it asking.
async fn answer(
    coordinator: &Coordinator,
    job: JobId,
    asked: Asked<'_>,
    reply_to: &ReplyTo,
) -> Result<(), EngineError> {
    let mut row = coordinator.db.job(job).await?;
    let sent = |row: &JobRow| matches!(row.state, JobState::Pending { .. }) && row.begun == asked.publication;
    if row.as_ref().is_some_and(sent) {
        // It came sooner than its publication was recorded as queued, which is about to be: a worker that
        // is left asking would idle for seconds.
        let _recorded = coordinator.sending.lock().await;
        row = coordinator.db.job(job).await?;
    }
    let sweep = match &row {
        Some(row) => coordinator.db.sweep(row.sweep).await?,
        None => None,
    };
    let runs = sweep.is_some_and(|sweep| matches!(sweep.state, SweepState::Running));
    let now = now_micros();
    let permit = match decide(row.as_ref(), runs, asked, now) {
        Decision::Run => {
            let in_hand = [(job, asked.publication)];
            coordinator.db.touch_jobs(&in_hand, asked.worker, asked.returns, now).await?;
            Permit::Run
        }
        Decision::Drop => Permit::Drop,
        Decision::TakeBack => {
            coordinator.db.take_back(job, asked.publication, None, None, now).await?;
            Permit::Drop
        }
        Decision::Wait => return Ok(()),
    };
    let control =
        Control::Answer { worker: asked.worker.clone(), job, publication: asked.publication, permit };
    if let Err(error) = coordinator.queue.reply(reply_to, &control).await {
        warn!(job.id = %job, error = %error, "a worker was not answered; it asks again");
    }
    Ok(())
}

/// A publication of a job that a worker speaks of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Publication {
    pub(super) job: JobId,
    sweep: SweepId,
    pub(super) number: u32,
}

/// What a job's end settles; one that goes back to the queue settles nothing. News of an earlier
/// publication than the queued one settles, or changes nothing: it takes nothing back.
async fn job_ended(
    coordinator: &Coordinator,
    publication: Publication,
    end: &JobEnd,
    worker: &str,
) -> Result<Option<Settlement>, EngineError> {
    let (made, error) = match end {
        JobEnd::Done { report } => return Ok(Some(Settlement::Done { report: report.clone() })),
        JobEnd::Refused(refusal) => return Ok(Some(Settlement::Refused(refusal.clone()))),
        JobEnd::Cancelled => return Ok(Some(Settlement::Cancelled)),
        JobEnd::Retryable(error) => (None, Some(error)),
        JobEnd::HandedBack { made, because } => (made.as_ref(), because.as_ref()),
    };
    let error = error.map(ToString::to_string);
    let cause = if error.is_some() { "infrastructure" } else { "handed_back" };
    came_back(coordinator, publication, made, error.as_deref(), cause, worker).await
}

/// Takes a publication back, to be published again; with an `error` after a pause, and only so often. What it settles
/// where it is not. `cause` is a metric's.
async fn came_back(
    coordinator: &Coordinator,
    publication: Publication,
    made: Option<&Payload>,
    error: Option<&str>,
    cause: &'static str,
    worker: &str,
) -> Result<Option<Settlement>, EngineError> {
    let job = publication.job;
    // Not before it is recorded as queued: only then can it be taken back.
    let _recorded = coordinator.sending.lock().await;
    let sweep = coordinator.db.sweep(publication.sweep).await?;
    let goes_on =
        sweep.is_some_and(|sweep| matches!(sweep.state, SweepState::Running | SweepState::Interrupted));
    if !goes_on {
        // What was made counts; nobody makes the rest.
        let made = made.cloned().map(|report| Settlement::Done { report });
        return Ok(Some(made.unwrap_or(Settlement::Cancelled)));
    }
    let mut available_at = now_micros();
    if let Some(error) = error {
        let failures = coordinator.db.job(job).await?.map_or(0, |row| row.infra_failures) + 1;
        warn!(job.id = %job, worker.id = worker, failures, error, "job met an infrastructure error");
        if failures >= INFRASTRUCTURE_FAILURES {
            return Ok(Some(Settlement::Dead { reason: error.to_owned() }));
        }
        available_at += backoff(failures);
    } else {
        info!(job.id = %job, worker.id = worker, "job was handed back, publishing what is left of it");
    }
    REPUBLICATIONS.count(&[cause]);
    coordinator.db.take_back(job, publication.number, made, error, available_at).await?;
    Ok(None)
}

/// 1, 2, 4, 8 seconds, in microseconds.
fn backoff(failures: u32) -> UnixMicros {
    1_000_000 << failures.saturating_sub(1).min(5)
}

pub(super) async fn dead_jobs(coordinator: Coordinator, stop: CancellationToken) {
    let mut dead = coordinator.queue.dead();
    loop {
        let delivery = tokio::select! {
            delivery = dead.next() => delivery,
            () = stop.cancelled() => return,
        };
        let Some(delivery) = delivery else { return };
        let recorded = record_dead(&coordinator, delivery).await;
        coordinator.note(Step::RecordingDead, &recorded);
        if recorded.is_err() {
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// What happened to a job that the queue holds for dead and that has ended no worker: it came back before anybody had
/// begun it, as jobs do where connections are lost. None where a worker had it each time, the first perhaps excepted:
/// one that knows the sweep says so only after a while.
fn blameless(row: &JobRow, reason: &str) -> Option<String> {
    let begun = row.taken.count_ones();
    (begun < DELIVERY_LIMIT)
        .then(|| format!("the queue gave it up ({reason}), though workers began it only {begun} times"))
}

/// Settles a dead job; what cannot be read, or is no job of ours, is kept for an operator.
async fn record_dead(coordinator: &Coordinator, delivery: DeadDelivery) -> Result<(), EngineError> {
    let row = match &delivery.message {
        Some(message) => coordinator.db.job(message.job).await?,
        None => None,
    };
    match (&delivery.message, row) {
        // An earlier publication died: the one that is under way has not.
        (Some(message), Some(row)) if message.publication < row.begun => {}
        (Some(message), Some(row)) => {
            let publication =
                Publication { job: message.job, sweep: message.sweep, number: message.publication };
            let settlement = match blameless(&row, &delivery.reason) {
                Some(error) => {
                    came_back(coordinator, publication, row.made.as_ref(), Some(&error), "given_up", "none")
                        .await?
                }
                None => Some(Settlement::Dead { reason: delivery.reason.clone() }),
            };
            match settlement {
                None => coordinator.wake_outbox.notify_one(),
                Some(settlement) => {
                    let (job, reason) = (message.job, &delivery.reason);
                    error!(job.id = %job, sweep.id = %message.sweep, reason, "the queue gave up a job, which ends it");
                    coordinator.db.settle_job(job, &settlement, now_micros()).await?;
                    JOBS_ENDED.count(&[settlement.word()]);
                    coordinator.wake.notify_one();
                }
            }
        }
        (Some(_) | None, _) => {
            let row = ParkedRow {
                id: uuid::Uuid::now_v7(),
                came_at: now_micros(),
                origin: delivery.origin.map(|origin| origin.word().to_owned()),
                reason: delivery.reason.clone(),
                body: delivery.body.clone(),
            };
            error!(parked.id = %row.id, reason = delivery.reason, "parked a message that cannot be read");
            coordinator.db.park(&row).await?;
        }
    }
    delivery.ack().await?;
    Ok(())
}

impl Coordinator {
    /// Publishes a parked message again where it came from, byte by byte, and forgets it here. A
    /// conflict if nobody knows where that was.
    pub async fn requeue_parked(&self, id: uuid::Uuid) -> Result<(), EngineError> {
        let row = self.db.parked_message(id).await?;
        let origin = Origin::ALL.into_iter().find(|origin| row.origin.as_deref() == Some(origin.word()));
        let Some(origin) = origin else {
            return Err(
                DbError::Conflict(format!("nobody knows which queue parked message {id} is for")).into()
            );
        };
        self.queue.publish_again(origin, row.body).await?;
        Ok(self.db.discard_parked(id).await?)
    }
}
