//! From recorded events to this process's listeners: what another coordinator recorded is heard here,
//! too. It also records what is seen in the rows and nobody tells: dead jobs, and workers that are gone.

use super::trouble::Step;
use super::{Coordinator, EngineError};
use crate::db::{JobState, NewEvent, Settlement};
use crate::events::Event;
use flakefarm_shared::now_micros;
use std::collections::HashSet;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often what others have recorded is polled.
const PAUSE: Duration = Duration::from_millis(500);
/// Events read together.
const AT_ONCE: u32 = 1_000;
/// Dead jobs looked at together.
const DEAD_AT_ONCE: u32 = 1_000;
/// A worker that was silent for this long is forgotten.
const FORGET_WORKERS: Duration = Duration::from_secs(3600);
/// How long events are kept.
const KEEP_EVENTS: Duration = Duration::from_secs(90 * 24 * 3600);
/// Memories of sweeps that nobody has asked for in this time are dropped.
const IDLE_MEMORY: Duration = Duration::from_secs(60);
/// Between two rounds of housekeeping.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// Tells this process's listeners what is recorded, until `stop`. Every coordinator does.
pub(super) async fn run(coordinator: Coordinator, stop: CancellationToken) {
    let mut last = None;
    loop {
        let relayed = relay(&coordinator, &mut last).await;
        coordinator.note(Step::Relaying, &relayed);
        coordinator.memories.forget_idle(IDLE_MEMORY);
        tokio::select! {
            () = coordinator.wake_relay.notified() => {}
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn relay(coordinator: &Coordinator, last: &mut Option<i64>) -> Result<(), EngineError> {
    let Some(mut after) = *last else {
        *last = Some(coordinator.db.latest_event().await?);
        return Ok(());
    };
    loop {
        let events = coordinator.db.events_after(after, None, AT_ONCE).await?;
        let Some(latest) = events.last().map(|row| row.id) else { return Ok(()) };
        for row in events {
            if let Event::Submitted { .. } | Event::Finished { .. } = &row.event {
                coordinator.wake.notify_one();
            }
            coordinator.events.send(row.event);
        }
        after = latest;
        *last = Some(after);
    }
}

/// Records what is seen in the rows, and forgets what is old, until `stop`. One coordinator does.
pub(super) async fn housekeeping(coordinator: Coordinator, stop: CancellationToken) {
    let mut told = HashSet::new();
    loop {
        let kept = keep_house(&coordinator, &mut told).await;
        coordinator.note(Step::Housekeeping, &kept);
        tokio::select! {
            () = tokio::time::sleep(HOUSEKEEPING) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// `told` are the keys of events that this process has recorded already.
async fn keep_house(coordinator: &Coordinator, told: &mut HashSet<String>) -> Result<(), EngineError> {
    let (db, now) = (&coordinator.db, now_micros());
    let before = |age: Duration| now - i64::try_from(age.as_micros()).unwrap_or(i64::MAX / 2);
    let mut events = Vec::new();
    let mut seen = HashSet::new();
    for job in db.dead_jobs(DEAD_AT_ONCE).await? {
        let JobState::Settled { settlement: Settlement::Dead { reason }, at } = job.state else { continue };
        // A job that was taken up again may die again.
        let key = format!("job-dead/{}/{at}", job.id);
        if !told.contains(&key) {
            let project = db.sweep(job.sweep).await?.map(|row| row.project);
            let event = Event::JobDead { sweep: job.sweep, job: job.id, reason };
            events.push(NewEvent { key: key.clone(), at, project, sweep: Some(job.sweep), event });
        }
        seen.insert(key);
    }
    for worker in db.workers().await? {
        if worker.draining || !worker.is_silent(now) {
            continue;
        }
        let key = format!("worker-gone/{}/{}", worker.id, worker.seen_at);
        if !told.contains(&key) {
            let event = Event::WorkerGone { worker: worker.id };
            events.push(NewEvent { key: key.clone(), at: now, project: None, sweep: None, event });
        }
        seen.insert(key);
    }
    for expired in coordinator.expired_quarantines(now).await? {
        if !told.contains(&expired.key) {
            events.push(expired.clone());
        }
        seen.insert(expired.key);
    }
    db.record_events(&events).await?;
    *told = seen;
    db.forget_workers(before(FORGET_WORKERS)).await?;
    db.forget_events(before(KEEP_EVENTS)).await?;
    Ok(())
}
