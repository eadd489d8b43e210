//! From the queue to rows: ends of jobs, signs of life, dead jobs.

use super::trouble::Step;
use super::{Coordinator, EngineError};
use crate::db::{Settlement, WorkerRow};
use crate::events::Event;
use flakefarm_shared::queue::{DeadDelivery, WorkerDelivery};
use flakefarm_shared::{JobEnd, JobId, UnixMicros, WorkerMessage, now_micros};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// A job that met an infrastructure error this often is dead.
const INFRASTRUCTURE_FAILURES: u32 = 5;

/// Pause before a message that could not be recorded is looked at again.
const RETRY: Duration = Duration::from_millis(500);

pub(super) async fn worker_messages(coordinator: Coordinator, stop: CancellationToken) {
    let mut messages = coordinator.queue.worker_messages();
    loop {
        let delivery = tokio::select! {
            delivery = messages.next() => delivery,
            () = stop.cancelled() => return,
        };
        let Some(delivery) = delivery else { return };
        let recorded = record(&coordinator, delivery).await;
        coordinator.note(Step::Recording, &recorded);
        if recorded.is_err() {
            tokio::time::sleep(RETRY).await; // the message was given back and comes again
        }
    }
}

async fn record(coordinator: &Coordinator, delivery: WorkerDelivery) -> Result<(), EngineError> {
    // An error drops the delivery, which gives it back to the queue.
    match &delivery.message {
        WorkerMessage::JobEnded { job, worker, end, .. } => {
            job_ended(coordinator, *job, end, &worker.0).await?;
            coordinator.wake.notify_one();
            coordinator.wake_outbox.notify_one();
        }
        WorkerMessage::Beat { worker, slots, version, jobs, draining, .. } => {
            let ids: Vec<_> = jobs.iter().map(|progress| progress.job).collect();
            let now = now_micros();
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
    }
    delivery.ack().await?;
    Ok(())
}

async fn job_ended(
    coordinator: &Coordinator,
    job: JobId,
    end: &JobEnd,
    worker: &str,
) -> Result<(), EngineError> {
    let now = now_micros();
    let settlement = match end {
        JobEnd::Done { report } => Settlement::Done { report: report.clone() },
        JobEnd::Refused(refusal) => Settlement::Refused(refusal.clone()),
        JobEnd::Cancelled => Settlement::Cancelled,
        JobEnd::Retryable(error) => {
            let failures = coordinator.db.job(job).await?.map_or(0, |row| row.infra_failures) + 1;
            warn!(job.id = %job, worker.id = worker, failures, error = %error, "job met an infrastructure error");
            if failures < INFRASTRUCTURE_FAILURES {
                coordinator.db.requeue_job(job, now + backoff(failures), Some(error.to_string())).await?;
                return Ok(());
            }
            Settlement::Dead { reason: error.to_string() }
        }
    };
    coordinator.db.settle_job(job, &settlement, now).await?;
    Ok(())
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
