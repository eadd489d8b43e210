//! The worker's life: take jobs of both classes, a slot for each, signs of life, control messages,
//! draining. Order for every job: run, samples durable, end published, then the answer to the queue.

use crate::environment::Environments;
use crate::job::{self, Bench, Progress};
use crate::sandbox::Sandbox;
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::message::JobProgress;
use flakefarm_shared::queue::{JobDelivery, Queue};
use flakefarm_shared::samples::Samples;
use flakefarm_shared::{
    Class, Control, JobEnd, JobId, SweepId, WIRE_VERSION, WorkerId, WorkerMessage, now_micros,
};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

const BEAT: Duration = Duration::from_secs(10);
/// Between a sign of life and one that says that jobs have started: short ones need none of their own.
const SOON: Duration = Duration::from_millis(500);
const REAP: Duration = Duration::from_secs(60);
/// Ends are published again this often before the job is given back.
const PUBLISH_TRIES: u32 = 5;

/// What a worker is made of.
#[derive(Debug)]
pub struct WorkerParts {
    /// Its name, unique on the farm.
    pub id: WorkerId,
    /// Jobs worked on at once.
    pub slots: NonZeroU16,
    /// Where jobs come from.
    pub queue: Queue,
    /// Where samples go.
    pub samples: Samples,
    /// Where specs, snapshots, reports and outputs lie.
    pub blobs: Blobs,
    /// Builds and caches images.
    pub environments: Environments,
    /// Runs attempts.
    pub sandbox: Sandbox,
}

/// How a worker is told to end.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// Take no more jobs, finish those in hand, then return.
    pub drain: CancellationToken,
    /// Stop attempts now, give their jobs back, then return.
    pub stop: CancellationToken,
}

#[derive(Debug)]
struct InHand {
    sweep: SweepId,
    progress: Arc<Progress>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Worker {
    queue: Queue,
    slots: u16,
    bench: Bench,
    hands: Mutex<HashMap<JobId, InHand>>,
    cancelled: Mutex<HashSet<SweepId>>,
    /// A job has started since the last sign of life.
    job_started: Notify,
}

/// Works until told to end. When it returns, no sandbox of it is left.
pub async fn run(parts: WorkerParts, ending: Ending) {
    let slots = parts.slots.get();
    let worker = Arc::new(Worker {
        queue: parts.queue,
        slots,
        bench: Bench {
            worker: parts.id,
            blobs: parts.blobs,
            samples: parts.samples,
            environments: parts.environments,
            sandbox: parts.sandbox,
            slots: parts.slots,
            last_context: Mutex::default(),
            running: AtomicU16::new(0),
        },
        hands: Mutex::default(),
        cancelled: Mutex::default(),
        job_started: Notify::new(),
    });
    info!(worker.id = %worker.bench.worker, worker.slots = slots, "worker starts");
    let side = CancellationToken::new();
    let mut side_tasks = JoinSet::new();
    side_tasks.spawn(beat(worker.clone(), side.clone(), ending.drain.clone()));
    side_tasks.spawn(reap(worker.clone(), side.clone()));
    side_tasks.spawn(listen(worker.clone(), side.clone()));

    take_jobs(&worker, &ending).await;

    side.cancel();
    while side_tasks.join_next().await.is_some() {}
    worker.bench.sandbox.close().await;
    info!(worker.id = %worker.bench.worker, "worker has ended");
}

async fn take_jobs(worker: &Arc<Worker>, ending: &Ending) {
    let slots = Arc::new(Semaphore::new(usize::from(worker.slots)));
    let mut interactive = worker.queue.jobs(Class::Interactive, worker.slots);
    let mut bulk = worker.queue.jobs(Class::Bulk, worker.slots);
    let mut jobs = JoinSet::new();
    loop {
        let permit = tokio::select! {
            permit = slots.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
            () = ending.drain.cancelled() => break,
            () = ending.stop.cancelled() => break,
            Some(ended) = jobs.join_next() => { report_panic(ended); continue }
        };
        let delivery = tokio::select! {
            biased;
            () = ending.stop.cancelled() => break,
            () = ending.drain.cancelled() => break,
            delivery = interactive.next() => delivery,
            delivery = bulk.next() => delivery,
        };
        let Some(delivery) = delivery else { break };
        let (worker, stop) = (worker.clone(), ending.stop.child_token());
        jobs.spawn(async move {
            take(&worker, delivery, stop).await;
            drop(permit);
        });
    }
    while let Some(ended) = jobs.join_next().await {
        report_panic(ended);
    }
    // Only now: a consumer that ends takes its unanswered deliveries with it.
    drop((interactive, bulk));
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(panic) = ended {
        error!(error = %panic, "a job's task failed; its job goes back to the queue");
    }
}

async fn take(worker: &Worker, delivery: JobDelivery, stop: CancellationToken) {
    let message = delivery.message.clone();
    let (job, sweep) = (message.job, message.sweep);
    let cancelled = worker.cancelled.lock().expect("no panic while holding the lock").contains(&sweep);
    if cancelled {
        settle(worker, delivery, JobEnd::Cancelled).await;
        return;
    }
    let progress = Arc::new(Progress::default());
    let in_hand = InHand { sweep, progress: progress.clone(), stop: stop.clone() };
    worker.hands.lock().expect("no panic while holding the lock").insert(job, in_hand);
    info!(job.id = %job, sweep.id = %sweep, job.redeliveries = delivery.redeliveries, "job starts");
    worker.job_started.notify_one();
    let end = job::work(&worker.bench, &message, &progress, &stop).await;
    worker.hands.lock().expect("no panic while holding the lock").remove(&job);
    let cancelled = worker.cancelled.lock().expect("no panic while holding the lock").contains(&sweep);
    match end {
        Some(end) => settle(worker, delivery, end).await,
        None if cancelled => settle(worker, delivery, JobEnd::Cancelled).await,
        None => {
            info!(job.id = %job, "job given back");
            if let Err(error) = delivery.give_back().await {
                warn!(job.id = %job, error = %error, "the queue will give the job back by itself");
            }
        }
    }
}

/// Publishes the end, then answers the queue. A lost answer means that the job comes again, which
/// changes nothing: its samples and its end are known by then.
async fn settle(worker: &Worker, delivery: JobDelivery, end: JobEnd) {
    let JobDelivery { message, .. } = &delivery;
    let (job, sweep) = (message.job, message.sweep);
    let ended = WorkerMessage::JobEnded {
        v: WIRE_VERSION,
        job,
        sweep,
        publication: message.publication,
        worker: worker.bench.worker.clone(),
        end,
    };
    for tried in 1..=PUBLISH_TRIES {
        match worker.queue.publish_worker_message(&ended).await {
            Ok(()) => {
                if let Err(error) = delivery.ack().await {
                    warn!(job.id = %job, error = %error, "answer lost, the job will come again");
                }
                return;
            }
            Err(error) => warn!(job.id = %job, tried, error = %error, "end of job not published"),
        }
    }
    error!(job.id = %job, sweep.id = %sweep, "end of job could not be published; giving the job back");
    if let Err(error) = delivery.give_back().await {
        warn!(job.id = %job, error = %error, "the queue will give the job back by itself");
    }
}

async fn beat(worker: Arc<Worker>, end: CancellationToken, drain: CancellationToken) {
    loop {
        send_beat(&worker, drain.is_cancelled()).await;
        let news = async {
            tokio::time::sleep(SOON).await;
            worker.job_started.notified().await;
        };
        tokio::select! {
            () = tokio::time::sleep(BEAT) => {}
            () = news => {}
            () = end.cancelled() => return,
        }
    }
}

async fn send_beat(worker: &Worker, draining: bool) {
    let jobs = worker
        .hands
        .lock()
        .expect("no panic while holding the lock")
        .iter()
        .map(|(job, hand)| JobProgress {
            job: *job,
            sweep: hand.sweep,
            attempts_done: hand.progress.done.load(Ordering::Relaxed),
            attempts_total: hand.progress.total.load(Ordering::Relaxed),
            doing: hand.progress.doing.lock().expect("no panic while holding the lock").clone(),
        })
        .collect();
    let beat = WorkerMessage::Beat {
        v: WIRE_VERSION,
        worker: worker.bench.worker.clone(),
        at: now_micros(),
        slots: worker.slots,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        jobs,
        draining,
    };
    let sent = tokio::time::timeout(BEAT / 2, worker.queue.publish_worker_message(&beat)).await;
    if let Ok(Err(error)) = sent {
        warn!(error = %error, "sign of life not sent");
    }
}

async fn reap(worker: Arc<Worker>, end: CancellationToken) {
    loop {
        match worker.bench.sandbox.reap().await {
            Ok(0) => {}
            Ok(removed) => info!(sandboxes.removed = removed, "removed sandboxes that nobody owned"),
            Err(error) => warn!(error = %error, "could not look for leftover sandboxes"),
        }
        tokio::select! {
            () = tokio::time::sleep(REAP) => {}
            () = end.cancelled() => return,
        }
    }
}

async fn listen(worker: Arc<Worker>, end: CancellationToken) {
    let mut controls = worker.queue.controls();
    loop {
        let control = tokio::select! {
            control = controls.next() => control,
            () = end.cancelled() => return,
        };
        match control {
            None => return,
            Some(Control::Cancel { sweep }) => {
                worker.cancelled.lock().expect("no panic while holding the lock").insert(sweep);
                for hand in worker.hands.lock().expect("no panic while holding the lock").values() {
                    if hand.sweep == sweep {
                        hand.stop.cancel();
                    }
                }
            }
        }
    }
}
