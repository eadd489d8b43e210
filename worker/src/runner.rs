//! The worker's life: a loop for each slot, and draining. Order for every job: permission, run, samples
//! durable, end published, then the answer to the queue.

use crate::ceilings::Ceilings;
use crate::delivery::Delivered;
use crate::environment::Environments;
use crate::finished::Finished;
use crate::health::{self, Pulse};
use crate::job::{self, Bench, Progress, Until};
use crate::permission::Permissions;
use crate::sandbox::Sandbox;
use crate::side::{beat, health_of, listen, reap, send_beat};
use crate::spool::Spool;
use crate::state::{Ending, InHand, Listening, Worker};
use crate::trace::{self, Begun, Made};
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::fault;
use flakefarm_shared::message::BEAT;
use flakefarm_shared::metrics::catalogue::WORKER_JOBS;
use flakefarm_shared::queue::{JobDelivery, JobSlot, Queue};
use flakefarm_shared::samples::Samples;
use flakefarm_shared::{Permit, WorkerId, now_micros, telemetry};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::num::NonZeroU16;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{Notify, RwLock, RwLockReadGuard, RwLockWriteGuard, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span, warn};

/// Less than the patience of a broker (RabbitMQ: 30 minutes by default), which then delivers to another
/// what is still in hand. Beyond it a job is answered, and from then on the lease alone guards it.
const HOLD: Duration = Duration::from_secs(20 * 60);
/// A job that came back so often is run alone: if it is what ends workers, it ends no other job.
const SUSPECT: u32 = 2;
/// For the queue to confirm that it sends a worker that leaves nothing more.
const HUSH: Duration = Duration::from_secs(2);
/// For a suspect that was given back to come again to the slot that waits for it alone.
const SUSPECT_GONE: Duration = Duration::from_secs(1);

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
    /// What submissions may have here.
    pub ceilings: Ceilings,
    /// Keeps what has been made while a server is away. Without one it is tried for a while, and made
    /// again.
    pub spool: Option<Spool>,
    /// Where its health is asked for, if anywhere: a worker without one answers nobody.
    pub health: Option<TcpListener>,
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
            ceilings: parts.ceilings,
            slots: parts.slots,
            last_context: Mutex::default(),
            running: AtomicU16::new(0),
        },
        spool: parts.spool,
        // One that is set aside drains, and stays: started again it would go on as before.
        ending: Ending { drain: ending.drain.child_token(), stop: ending.stop.clone() },
        permissions: Permissions::new(),
        hands: Mutex::default(),
        company: RwLock::default(),
        alone: watch::Sender::new(false),
        turn: tokio::sync::Mutex::default(),
        trouble: Mutex::default(),
        set_aside: OnceLock::new(),
        listening: watch::Sender::default(),
        job_started: Notify::new(),
        pulse: Arc::new(Pulse::new()),
    });
    info!(worker.id = %worker.bench.worker, worker.slots = slots, "worker starts");
    let side = CancellationToken::new();
    let mut side_tasks = JoinSet::new();
    side_tasks.spawn(beat(worker.clone(), side.clone()));
    side_tasks.spawn(reap(worker.clone(), side.clone()));
    side_tasks.spawn(listen(worker.clone(), side.clone()));
    side_tasks.spawn(tell_of_leaving(worker.bench.worker.clone(), ending.drain.clone(), side.clone()));
    if let Some(listener) = parts.health {
        side_tasks.spawn(health::serve(listener, health_of(&worker, ending.drain.clone()), side.clone()));
    }

    let mut jobs = JoinSet::new();
    for finished in worker.spool.iter().flat_map(Spool::leftovers) {
        info!(job.id = %finished.job, "an earlier worker has left what this job has made");
        let worker = worker.clone();
        jobs.spawn(async move { bring_leftover(&worker, finished).await });
    }
    for _ in 0..slots {
        jobs.spawn(serve_slot(worker.clone()));
    }
    while let Some(ended) = jobs.join_next().await {
        if let Err(panic) = ended {
            error!(error = %panic, "a slot has failed");
        }
    }

    if worker.set_aside.get().is_some() {
        info!(worker.id = %worker.bench.worker, "waits to be looked at");
        tokio::select! {
            () = ending.drain.cancelled() => {}
            () = ending.stop.cancelled() => {}
        }
    }

    // Whoever watches the farm is told that it left, and is told so in time.
    drop(tokio::time::timeout(BEAT / 2, send_beat(&worker)).await);
    side.cancel();
    while side_tasks.join_next().await.is_some() {}
    worker.bench.sandbox.close().await;
    info!(worker.id = %worker.bench.worker, "worker has ended");
}

async fn tell_of_leaving(id: WorkerId, drain: CancellationToken, side: CancellationToken) {
    tokio::select! {
        () = drain.cancelled() => {
            info!(worker.id = %id, "told to leave: what runs is finished or handed back");
        }
        () = side.cancelled() => {}
    }
}

async fn serve_slot(worker: Arc<Worker>) {
    let mut slot = tokio::sync::Mutex::new(worker.queue.slot());
    let listening = serve(&worker, &mut slot).await;
    // What this worker gives back is not to come to itself.
    drop(tokio::time::timeout(HUSH, slot.get_mut().leave()).await);
    drop(listening);
}

/// Until the worker stops.
async fn serve<'w>(worker: &'w Worker, slot: &mut tokio::sync::Mutex<JobSlot>) -> Listening<'w> {
    let mut clears = false;
    loop {
        let listening = worker.listens();
        let mut alone = worker.alone.subscribe();
        if clears || *alone.borrow() {
            // What this slot was sent and has not taken goes back, uncounted.
            *slot = tokio::sync::Mutex::new(worker.queue.slot());
        }
        let turn = async {
            if clears {
                return Some(Alone::wait(worker).await);
            }
            // An error would say that the worker is gone, which this slot keeps.
            alone.wait_for(|alone| !alone).await.ok();
            None
        };
        let company = tokio::select! {
            biased;
            () = worker.stops() => return listening,
            company = turn => company,
        };
        clears = false;
        let next = async { slot.lock().await.next().await };
        let delivery = tokio::select! {
            biased;
            () = worker.stops() => return listening,
            delivery = next => delivery,
            // Somebody else has taken the suspect.
            () = tokio::time::sleep(SUSPECT_GONE), if company.is_some() => continue,
            Ok(_) = alone.wait_for(|alone| *alone), if company.is_none() => continue,
        };
        let Some(delivery) = delivery else { return listening };
        // One job is all that a slot is sent before it answers.
        drop(listening);
        let job = delivery.message.job;
        let taking = Box::pin(take(worker, delivery, Some(slot), company));
        match AssertUnwindSafe(taking).catch_unwind().await {
            Ok(Taken::Answered) => {}
            Ok(Taken::Suspect) => clears = true,
            Err(_) => {
                // The delivery was dropped: its job goes back, counted.
                worker.hands().remove(&job);
                error!(job.id = %job, "a job's work panicked; the job goes back to the queue");
            }
        }
    }
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Answered,
    /// Given back, to be run alone: the slot that met it clears the worker and runs what it takes next,
    /// whatever that is, so that no suspect is in hand while another one runs.
    Suspect,
}

/// The right to be the only one who runs or holds a message.
struct Alone<'a> {
    _company: RwLockWriteGuard<'a, ()>,
    _raised: Raised<'a>,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl<'a> Alone<'a> {
    /// Waits until nothing runs, and has nobody begin meanwhile.
    async fn wait(worker: &'a Worker) -> Self {
        let turn = worker.turn.lock().await;
        let raised = Raised(&worker.alone);
        worker.alone.send_replace(true);
        let company = worker.company.write().await;
        Self { _company: company, _raised: raised, _turn: turn }
    }
}

/// Lowers the flag when it is dropped.
struct Raised<'a>(&'a watch::Sender<bool>);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// What an earlier process has made; in hand until it is delivered, so that its lease lives.
async fn bring_leftover(worker: &Worker, finished: Finished) {
    let progress = Arc::new(Progress::default());
    progress.say("waits for a server that is away");
    let in_hand = InHand {
        sweep: finished.sweep,
        publication: finished.publication,
        progress,
        stop: CancellationToken::new(),
        cancelled: Arc::default(),
    };
    let job = finished.job;
    worker.enter(job, in_hand);
    worker.bring_home(finished).await;
    worker.hands().remove(&job);
}

/// Works on one delivery to its end. `slot` is where to look for urgent jobs between two attempts;
/// without one, this is such a job.
async fn take(
    worker: &Worker,
    delivery: JobDelivery,
    slot: Option<&tokio::sync::Mutex<JobSlot>>,
    alone: Option<Alone<'_>>,
) -> Taken {
    fault::point("worker.received");
    let received = Instant::now();
    let message = delivery.message.clone();
    let (job, sweep, publication) = (message.job, message.sweep, message.publication);
    let (id, redeliveries) = (&worker.bench.worker, delivery.redeliveries);
    if redeliveries >= SUSPECT && alone.is_none() {
        give_back(delivery).await;
        return Taken::Suspect;
    }
    let mut others = worker.alone.subscribe();
    let asking = worker.permissions.ask(&worker.queue, id, &message, redeliveries, received);
    let permit = tokio::select! {
        biased;
        () = worker.stops() => None,
        () = tokio::time::sleep(HOLD) => None,
        // Somebody is about to run alone: what is only asked for is not to be counted with it.
        Ok(_) = others.wait_for(|alone| *alone), if slot.is_some() && alone.is_none() => None,
        permit = asking => Some(permit),
    };
    fault::point("worker.permitted");
    // A suspect waits for nobody with a job in its hand; one laid aside runs within the company of the other.
    let company = match (slot, alone) {
        (_, Some(alone)) => Ok(Company::Alone(alone)),
        (None, None) => Ok(Company::Aside),
        (Some(_), None) => worker.company.try_read().map(Company::Among),
    };
    let company = match (permit, company) {
        (Some(Permit::Drop), _) => {
            info!(job.id = %job, sweep.id = %sweep, job.publication = publication, "dropped a job that nobody needs any more");
            WORKER_JOBS.count(&["dropped"]);
            answer(delivery).await;
            return Taken::Answered;
        }
        (Some(Permit::Run), Ok(company)) => company,
        (Some(Permit::Run), Err(_)) | (None, _) => {
            hush(worker, slot).await;
            give_back(delivery).await;
            return Taken::Answered;
        }
    };
    let progress = Arc::new(Progress::default());
    let stop = worker.ending.stop.child_token();
    let cancelled = Arc::new(AtomicBool::new(false));
    let in_hand = InHand {
        sweep,
        publication,
        progress: progress.clone(),
        stop: stop.clone(),
        cancelled: cancelled.clone(),
    };
    // It may have ended here while this copy was asked for.
    if worker.permissions.has_ended(job, publication) || !worker.enter(job, in_hand) {
        info!(job.id = %job, "dropped a second copy of a job");
        answer(delivery).await;
        return Taken::Answered;
    }
    info!(job.id = %job, sweep.id = %sweep, job.redeliveries = redeliveries, job.publication = publication, "job starts");
    let until = Until { drain: worker.ending.drain.clone(), stop };
    let among = matches!(company, Company::Among(_));
    let aside = || urgent(worker, slot.filter(|_| among));
    let begun = Begun {
        job,
        sweep,
        publication,
        class: message.class,
        worker: id.clone(),
        at: now_micros(),
        from: delivery.context,
    };
    let working = async {
        let worked = Box::pin(job::work(&worker.bench, &message, &progress, &until, &aside)).await;
        let cancelled = cancelled.load(Ordering::Relaxed);
        let finished = Finished::of(job, sweep, publication, worked, cancelled);
        let made = telemetry::is_on().then(|| Made::of(&finished, begun.at));
        hush(worker, slot).await;
        let delivered = worker.bring_home(finished).await;
        if let Some(made) = made {
            telemetry::tell(|| trace::span(&begun, made, now_micros()));
        }
        delivered
    };
    let working = working.instrument(info_span!("job", job.id = %job, sweep.id = %sweep, worker.id = %id));
    let mut working = std::pin::pin!(working);
    let mut delivery = Some(delivery);
    let delivered = loop {
        tokio::select! {
            delivered = &mut working => break delivered,
            () = tokio::time::sleep_until((received + HOLD).into()), if delivery.is_some() => {
                info!(job.id = %job, "a long job is answered: from now on its lease guards it");
                if let Some(delivery) = delivery.take() {
                    answer(delivery).await;
                }
            }
        }
    };
    worker.hands().remove(&job);
    let Some(delivery) = delivery else { return Taken::Answered };
    match delivered {
        Delivered::Home | Delivered::Kept => answer(delivery).await,
        Delivered::Lost => {
            error!(job.id = %job, sweep.id = %sweep, "what a job has made is lost; giving the job back");
            give_back(delivery).await;
        }
    }
    fault::point("worker.acknowledged");
    Taken::Answered
}

/// A worker that leaves gives back, or has published again, only what no slot of its own can be sent: the queue would
/// count that as a delivery, and jobs die of many. Waits for a queue that is away no longer than [`HUSH`].
async fn hush(worker: &Worker, slot: Option<&tokio::sync::Mutex<JobSlot>>) {
    if !worker.ending.drain.is_cancelled() || worker.ending.stop.is_cancelled() {
        return;
    }
    let mut listening = worker.listening.subscribe();
    let quiet = async {
        if let Some(slot) = slot {
            slot.lock().await.leave().await;
        }
        // An error would say that the worker is gone.
        listening.wait_for(|slots| *slots == 0).await.ok();
    };
    drop(tokio::time::timeout(HUSH, quiet).await);
}

/// Kept for as long as a job runs.
enum Company<'a> {
    Alone(#[expect(dead_code, reason = "a guard")] Alone<'a>),
    Among(#[expect(dead_code, reason = "a guard")] RwLockReadGuard<'a, ()>),
    /// In the place of a job that was laid aside.
    Aside,
}

/// Runs an interactive job that waits, if there is one, while the job in hand is laid aside.
fn urgent<'a>(worker: &'a Worker, slot: Option<&'a tokio::sync::Mutex<JobSlot>>) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        let Some(slot) = slot else { return };
        let urgent = async { slot.lock().await.urgent().await };
        let delivery = tokio::select! {
            biased;
            () = worker.stops() => return,
            delivery = urgent => delivery,
        };
        if let Some(delivery) = delivery {
            Box::pin(take(worker, delivery, None, None)).await;
        }
    })
}

/// A lost answer means that the job comes again, which changes nothing: its end is known by then.
async fn answer(delivery: JobDelivery) {
    let job = delivery.message.job;
    if let Err(error) = delivery.ack().await {
        warn!(job.id = %job, error = %error, "answer lost, the job will come again");
    }
}

async fn give_back(delivery: JobDelivery) {
    let job = delivery.message.job;
    if let Err(error) = delivery.give_back().await {
        warn!(job.id = %job, error = %error, "the queue will give the job back by itself");
    }
}
