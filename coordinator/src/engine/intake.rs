//! From the queue to rows: ends of jobs, signs of life, dead jobs.

use super::trouble::Step;
use super::{Coordinator, EngineError};
use crate::db::{Settlement, WorkerRow};
use crate::events::Event;
use flakefarm_shared::queue::{DeadDelivery, WorkerDelivery};
use flakefarm_shared::{JobEnd, JobId, UnixMicros, WorkerMessage, now_micros};
use futures::FutureExt;
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
    let mut settlements = Vec::new();
    // Of a worker's signs of life only the last one says something new.
    let mut beats = HashMap::new();
    // An error drops the deliveries, which gives them back to the queue.
    for delivery in &batch {
        match &delivery.message {
            WorkerMessage::JobEnded { job, worker, end, .. } => {
                if let Some(settlement) = job_ended(coordinator, *job, end, &worker.0).await? {
                    settlements.push((*job, settlement));
                }
            }
            WorkerMessage::Beat { worker, slots, version, jobs, draining, .. } => {
                beats.insert(worker, (slots, version, jobs, draining));
            }
        }
    }
    let now = now_micros();
    coordinator.db.settle_jobs(&settlements, now).await?;
    if batch.len() > beats.len() {
        coordinator.wake.notify_one();
        coordinator.wake_outbox.notify_one();
    }
    for (worker, (slots, version, jobs, draining)) in beats {
        let ids: Vec<_> = jobs.iter().map(|progress| progress.job).collect();
        coordinator.db.touch_jobs(&ids, worker, now).await?;
        coordinator
            .db
            .upsert_worker(&WorkerRow {
                id: worker.clone(),
                version: version.clone(),
                slots: *slots,
                seen_at: now,
                draining: *draining,
                jobs: u32::try_from(jobs.len()).unwrap_or(u32::MAX),
            })
            .await?;
        for progress in jobs.iter().filter(|progress| progress.attempts_total == 0) {
            coordinator
                .events
                .send(Event::Preparing { sweep: progress.sweep, doing: progress.doing.clone() });
        }
    }
    for delivery in batch {
        delivery.ack().await?;
    }
    Ok(())
}

/// What a job's end settles; one that goes back to the queue settles nothing.
async fn job_ended(
    coordinator: &Coordinator,
    job: JobId,
    end: &JobEnd,
    worker: &str,
) -> Result<Option<Settlement>, EngineError> {
    let settlement = match end {
        JobEnd::Done { report } => Settlement::Done { report: report.clone() },
        JobEnd::Refused(refusal) => Settlement::Refused(refusal.clone()),
        JobEnd::Cancelled => Settlement::Cancelled,
        JobEnd::Retryable(error) => {
            // Not before it is recorded as queued: only then can it be taken back.
            let _recorded = coordinator.sending.lock().await;
            let failures = coordinator.db.job(job).await?.map_or(0, |row| row.infra_failures) + 1;
            warn!(job.id = %job, worker.id = worker, failures, error = %error, "job met an infrastructure error");
            if failures < INFRASTRUCTURE_FAILURES {
                let again = now_micros() + backoff(failures);
                coordinator.db.requeue_job(job, again, Some(error.to_string())).await?;
                return Ok(None);
            }
            Settlement::Dead { reason: error.to_string() }
        }
    };
    Ok(Some(settlement))
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
        let buried = bury(&coordinator, delivery).await;
        coordinator.note(Step::Burying, &buried);
        if buried.is_err() {
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn bury(coordinator: &Coordinator, delivery: DeadDelivery) -> Result<(), EngineError> {
    match &delivery.message {
        Some(message) => {
            error!(job.id = %message.job, sweep.id = %message.sweep, reason = delivery.reason, "job is dead");
            let settlement = Settlement::Dead { reason: delivery.reason.clone() };
            coordinator.db.settle_job(message.job, &settlement, now_micros()).await?;
            coordinator.wake.notify_one();
        }
        None => info!(reason = delivery.reason, "dropped a dead message that is no job"),
    }
    delivery.ack().await?;
    Ok(())
}
