//! From rows to the queue: publish what is available, few ahead of what workers take, and publish again
//! what is overdue or lost. A publication is begun in its row before it is sent: after a crash in the
//! middle the next one has a higher number, and whoever finds both runs one (see [`super::leases`]).

use super::leases::{Hearing, LOST_LEASES, micros, patience};
use super::trouble::Step;
use super::{Assignment, Coordinator, EngineError, next_round};
use crate::db::{Settlement, WorkerRow};
use flakefarm_shared::fault;
use flakefarm_shared::metrics::catalogue::{JOBS_ENDED, PUBLICATIONS, REPUBLICATIONS};
use flakefarm_shared::queue::QueueError;
use flakefarm_shared::{Class, JobId, JobMessage, UnixMicros, WIRE_VERSION, now_micros};
use futures::future::join_all;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Jobs on the queue beside what the workers' slots ask for: a new worker finds something at once.
const SPARE: u64 = 4;
/// Messages on their way to the queue together.
const AT_ONCE: usize = 100;
/// For how long the number of slots is taken for known.
const SLOTS_KNOWN: Duration = Duration::from_secs(2);
/// Ends of jobs in this time are taken for what workers do in it.
const FLOW: Duration = Duration::from_secs(1);
/// An empty queue is looked at twice, this far apart, before what should wait in it is taken for lost.
/// Longer than two signs of life: whoever has taken a job has said so.
const LOST_AFTER: Duration = Duration::from_secs(12);

/// What the loops that carry jobs know between two rounds. Losing it costs some seconds.
#[derive(Debug, Default)]
pub(super) struct Carriage {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    hearing: Hearing,
    /// When jobs ended, within [`FLOW`]: moments and how many.
    ends: VecDeque<(Instant, u64)>,
    slots: Option<(Instant, u64)>,
    /// Since when a class's queue was seen empty, and what should have waited in it.
    empty: HashMap<Class, (Instant, HashSet<(JobId, u32)>)>,
}

impl Carriage {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages of workers were recorded, `ended` ends of jobs among them.
    pub(super) fn heard(&self, ended: u64, clock: UnixMicros) {
        let now = Instant::now();
        let mut known = self.lock();
        known.hearing.heard(now, clock);
        if ended > 0 {
            known.ends.push_back((now, ended));
        }
    }

    fn may_judge(&self, clock: UnixMicros) -> bool {
        self.lock().hearing.may_judge(Instant::now(), clock)
    }

    /// For how long workers have been heard without a gap.
    pub(super) fn heard_for(&self, clock: UnixMicros) -> Duration {
        self.lock().hearing.heard_for(Instant::now(), clock)
    }

    /// How many jobs ended lately.
    fn flow(&self) -> u64 {
        let mut known = self.lock();
        while known.ends.front().is_some_and(|(at, _)| at.elapsed() > FLOW) {
            known.ends.pop_front();
        }
        known.ends.iter().map(|(_, ended)| ended).sum()
    }
}

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
    let wanted = 2 * slots(coordinator).await? + SPARE + coordinator.carriage.flow();
    for class in Class::ALL {
        let queued = match coordinator.assignment {
            Assignment::EverySweep => coordinator.db.count_queued(class).await?,
            // An embedded queue is not shared, whatever other processes have recorded as queued.
            Assignment::OneSweep(_) => coordinator.queue.depth(class).await?.ready,
        };
        let room = wanted.saturating_sub(queued);
        // A few places at a time are not worth a statement each, while many jobs flow.
        if room > wanted / 4 {
            publish_class(coordinator, class, u32::try_from(room).unwrap_or(u32::MAX)).await?;
        }
    }
    Ok(())
}

/// Slots of all workers that live, as of some seconds ago.
async fn slots(coordinator: &Coordinator) -> Result<u64, EngineError> {
    if let Some((at, slots)) = coordinator.carriage.lock().slots
        && at.elapsed() < SLOTS_KNOWN
    {
        return Ok(slots);
    }
    let slots = coordinator.live_slots().await?;
    coordinator.carriage.lock().slots = Some((Instant::now(), slots));
    Ok(slots)
}

impl Coordinator {
    /// Workers that live and are not leaving.
    pub(super) async fn working(&self) -> Result<Vec<WorkerRow>, EngineError> {
        let now = now_micros();
        let mut workers = self.db.workers().await?;
        workers.retain(|worker| !worker.is_silent(now) && !worker.draining);
        Ok(workers)
    }

    /// Slots of all workers that live and are not leaving.
    pub(super) async fn live_slots(&self) -> Result<u64, EngineError> {
        Ok(self.working().await?.iter().map(|worker| u64::from(worker.slots)).sum())
    }
}

async fn publish_class(coordinator: &Coordinator, class: Class, room: u32) -> Result<(), EngineError> {
    let jobs =
        coordinator.db.publishable_within(class, now_micros(), room, coordinator.quotas.running_jobs).await?;
    let messages: Vec<JobMessage> = jobs
        .into_iter()
        .filter(|job| coordinator.works_on(job.sweep))
        .map(|job| JobMessage {
            v: WIRE_VERSION,
            job: job.id,
            sweep: job.sweep,
            class: job.class,
            publication: job.begun + 1,
            spec: job.spec,
            made: job.made,
            again: job.again,
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
    let wanted: Vec<_> = messages.iter().map(|message| (message.job, message.publication)).collect();
    let begun: HashSet<JobId> =
        coordinator.db.begin_publications(&wanted, now_micros()).await?.into_iter().collect();
    fault::point("coordinator.begun");
    let messages: Vec<_> = messages.iter().filter(|message| begun.contains(&message.job)).collect();
    let confirmed = join_all(messages.iter().map(|message| coordinator.queue.publish_job(message))).await;
    fault::point("coordinator.published");
    let of = |sent: bool| {
        let chosen = messages.iter().zip(&confirmed).filter(move |(_, confirmed)| confirmed.is_ok() == sent);
        chosen.map(|(message, _)| (message.job, message.publication)).collect::<Vec<_>>()
    };
    coordinator.db.mark_queued(&of(true), now_micros()).await?;
    fault::point("coordinator.queued");
    let failed: Vec<JobId> = of(false).into_iter().map(|(job, _)| job).collect();
    coordinator.db.abandon_publications(&failed).await?;
    for (message, confirmed) in messages.iter().zip(&confirmed) {
        let result = match confirmed {
            Ok(()) => "confirmed",
            Err(QueueError::Full) => "full",
            Err(QueueError::Unreachable(_) | QueueError::Topology(_) | QueueError::Closed) => "failed",
        };
        PUBLICATIONS.count(&[message.class.word(), result]);
    }
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
    let pause = (coordinator.lease / 10).min(LOST_AFTER / 4);
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
    let patience = patience(coordinator.lease);
    if coordinator.carriage.may_judge(now) {
        for job in coordinator.db.overdue(now, patience).await? {
            if !coordinator.works_on(job.sweep) {
                continue;
            }
            if job.lost_leases + 1 >= LOST_LEASES {
                let reason = format!("{LOST_LEASES} workers that had it fell silent");
                coordinator.db.settle_job(job.id, &Settlement::Dead { reason }, now).await?;
                JOBS_ENDED.count(&["dead"]);
                coordinator.wake.notify_one();
                continue;
            }
            info!(job.id = %job.id, sweep.id = %job.sweep, "no news of this job for a lease, publishing it again");
            let oldest = now.saturating_sub(micros(patience));
            coordinator.db.lose_lease(job.id, job.publications, oldest, now).await?;
            REPUBLICATIONS.count(&["lease_lost"]);
            coordinator.wake_outbox.notify_one();
        }
    }
    if let Assignment::EverySweep = coordinator.assignment {
        for class in Class::ALL {
            republish_lost(coordinator, class, now).await?;
        }
    }
    Ok(())
}

/// What waits for a worker costs nothing and is never copied; but where the broker's queue is empty,
/// and still is a while later, what was to wait in it has been lost with it.
async fn republish_lost(coordinator: &Coordinator, class: Class, now: UnixMicros) -> Result<(), EngineError> {
    let before = now.saturating_sub(micros(LOST_AFTER));
    let waiting: HashSet<_> = coordinator.db.waiting(class, before).await?.into_iter().collect();
    // A broker that does not answer says nothing of what it holds. It is asked even when nothing waits: a queue that
    // somebody has deleted is declared again when it is missed, and workers are refused until then.
    let depth = coordinator.queue.depth(class).await.ok();
    if waiting.is_empty() || depth.is_none_or(|depth| depth.ready > 0) {
        coordinator.carriage.lock().empty.remove(&class);
        return Ok(());
    }
    let lost: Vec<(JobId, u32)> = {
        let mut known = coordinator.carriage.lock();
        let (since, missed) = known.empty.entry(class).or_insert_with(|| (Instant::now(), waiting.clone()));
        if since.elapsed() < LOST_AFTER {
            return Ok(());
        }
        let lost = missed.intersection(&waiting).copied().collect();
        known.empty.remove(&class);
        lost
    };
    for (job, publication) in lost {
        if coordinator.db.take_back(job, publication, None, None, now).await? {
            REPUBLICATIONS.count(&["broker_lost"]);
            warn!(job.id = %job, "the broker has lost this job, publishing it again");
            coordinator.wake_outbox.notify_one();
        }
    }
    Ok(())
}
