//! From rows to the queue: publish what is available, a bounded number ahead, and publish again
//! what has had no news for a lease. A crash between publishing and recording it publishes twice,
//! which everybody downstream bears.

use super::trouble::Step;
use super::{Coordinator, EngineError, Realm, next_round};
use flakefarm_shared::queue::QueueError;
use flakefarm_shared::{Class, JobMessage, WIRE_VERSION, now_micros};
use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Jobs on the queue per class: most of a big sweep stays in its rows, so that cancelling and
/// prioritising are cheap.
const WATERMARK: u64 = 500;
/// Fewer free places than this are not worth looking for jobs.
const LEAST_ROOM: u64 = 50;
/// Messages on their way to the queue together.
const AT_ONCE: usize = 100;

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
    for class in Class::ALL {
        let queued = match coordinator.realm {
            Realm::Farm => coordinator.db.count_queued(class).await?,
            // An embedded queue is not shared, whatever other processes have recorded as queued.
            Realm::One(_) => coordinator.queue.depth(class).await?.ready,
        };
        let room = WATERMARK.saturating_sub(queued);
        if room >= LEAST_ROOM {
            publish_class(coordinator, class, u32::try_from(room).unwrap_or(u32::MAX)).await?;
        }
    }
    Ok(())
}

async fn publish_class(coordinator: &Coordinator, class: Class, room: u32) -> Result<(), EngineError> {
    let jobs = coordinator.db.publishable(class, now_micros(), room).await?;
    let messages: Vec<JobMessage> = jobs
        .into_iter()
        .filter(|job| coordinator.works_on(job.sweep))
        .map(|job| JobMessage {
            v: WIRE_VERSION,
            job: job.id,
            sweep: job.sweep,
            class: job.class,
            publication: job.publications + 1,
            spec: job.spec,
        })
        .collect();
    for messages in messages.chunks(AT_ONCE) {
        if let Sent::Full = send(coordinator, messages).await? {
            return Ok(());
        }
    }
    Ok(())
}

enum Sent {
    All,
    /// The queue takes no more for now.
    Full,
}

/// Publishes some jobs without waiting for one confirmation before the next message, then records those
/// that were confirmed.
async fn send(coordinator: &Coordinator, messages: &[JobMessage]) -> Result<Sent, EngineError> {
    // An end that comes meanwhile waits for the record of what it ends.
    let _sending = coordinator.sending.lock().await;
    let confirmed = join_all(messages.iter().map(|message| coordinator.queue.publish_job(message))).await;
    let published: Vec<_> = messages
        .iter()
        .zip(&confirmed)
        .filter(|(_, confirmed)| confirmed.is_ok())
        .map(|(message, _)| (message.job, message.publication))
        .collect();
    coordinator.db.mark_queued(&published, now_micros()).await?;
    let mut sent = Sent::All;
    for confirmed in confirmed {
        match confirmed {
            Ok(()) => {}
            Err(QueueError::Full) => sent = Sent::Full,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sent)
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
