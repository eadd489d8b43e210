//! From rows to the queue: publish what is available, a bounded number ahead, and publish again
//! what has had no news for a lease. A crash between publishing and recording it publishes twice,
//! which everybody downstream bears.

use super::trouble::Step;
use super::{Coordinator, EngineError, Realm, next_round};
use flakefarm_shared::queue::QueueError;
use flakefarm_shared::{Class, JobMessage, WIRE_VERSION, now_micros};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Jobs on the queue per class: most of a big sweep stays in its rows, so that cancelling and
/// prioritising are cheap.
const WATERMARK: u64 = 500;

pub(super) async fn run(coordinator: Coordinator, stop: CancellationToken) {
    loop {
        let published = publish(&coordinator).await;
        coordinator.note(Step::Publishing, &published);
        if !next_round(&coordinator.wake_outbox, &stop).await {
            return;
        }
    }
}

async fn publish(coordinator: &Coordinator) -> Result<(), EngineError> {
    let mut room = std::collections::HashMap::new();
    for class in Class::ALL {
        // An embedded queue is not shared, whatever other processes have recorded as queued.
        let queued = match coordinator.realm {
            Realm::Farm => coordinator.db.count_queued(class).await?,
            Realm::One(_) => 0,
        };
        room.insert(class, WATERMARK.saturating_sub(queued));
    }
    for job in coordinator.db.publishable(now_micros(), WATERMARK as u32).await? {
        if !coordinator.works_on(job.sweep) {
            continue;
        }
        let Some(left) = room.get_mut(&job.class).filter(|left| **left > 0) else { continue };
        *left -= 1;
        let message = JobMessage {
            v: WIRE_VERSION,
            job: job.id,
            sweep: job.sweep,
            class: job.class,
            publication: job.publications + 1,
            spec: job.spec,
        };
        match coordinator.queue.publish_job(&message).await {
            Ok(()) => coordinator.db.mark_queued(job.id, message.publication, now_micros()).await?,
            Err(QueueError::Full) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(super) async fn republish_overdue(coordinator: Coordinator, stop: CancellationToken) {
    let pause = coordinator.lease / 10;
    loop {
        if let Err(error) = republish_once(&coordinator).await {
            warn!(error = flakefarm_shared::chain(&error), "could not look for overdue jobs");
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn republish_once(coordinator: &Coordinator) -> Result<(), EngineError> {
    let now = now_micros();
    for job in coordinator.db.overdue(now, coordinator.lease).await? {
        if !coordinator.works_on(job.sweep) {
            continue;
        }
        info!(job.id = %job.id, sweep.id = %job.sweep, "no news of this job for a lease, publishing it again");
        coordinator.db.requeue_job(job.id, now, None).await?;
        coordinator.wake_outbox.notify_one();
    }
    Ok(())
}
