//! The coordinator's loops. Level-triggered: each reads what is recorded and takes the next
//! idempotent step; a signal only makes it look sooner. kill -9 anywhere loses time, not truth.

mod intake;
mod memory;
mod outbox;
mod past;
mod sweeps;
mod trouble;

pub use sweeps::{Submission, SubmitError};

use crate::db::{Db, DbError};
use crate::events::{Event, Events};
use flakefarm_shared::SweepId;
use flakefarm_shared::blobs::{BlobError, Blobs};
use flakefarm_shared::queue::{Queue, QueueError};
use memory::SweepMemory;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trouble::Step;

/// How long the loops wait when nobody wakes them.
const POLL: Duration = Duration::from_secs(2);

/// A queued job without news for this long is published again.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(600);

/// A step of a loop failed; the loop tries again.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The database.
    #[error("the database failed")]
    Db(#[from] DbError),
    /// The blob store.
    #[error("the blob store failed")]
    Blobs(#[from] BlobError),
    /// The queue.
    #[error("the queue failed")]
    Queue(#[from] QueueError),
}

/// The coordinator. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Coordinator {
    db: Db,
    queue: Queue,
    blobs: Blobs,
    events: Events,
    memory: Arc<Mutex<HashMap<SweepId, SweepMemory>>>,
    wake: Arc<Notify>,
    wake_outbox: Arc<Notify>,
    /// Held from publishing jobs until they are recorded as queued.
    sending: Arc<Mutex<()>>,
    lease: Duration,
    realm: Realm,
    troubles: trouble::Troubles,
}

/// Which sweeps a coordinator works on.
#[derive(Debug, Clone)]
enum Realm {
    /// All that are recorded.
    Farm,
    /// The one that this process was started for: other processes may share its database.
    One(Arc<OnceLock<SweepId>>),
}

impl Coordinator {
    /// A coordinator over opened stores. Nothing moves before [`Coordinator::run`].
    pub fn new(db: Db, queue: Queue, blobs: Blobs, lease: Duration) -> Self {
        Self {
            db,
            queue,
            blobs,
            events: Events::default(),
            memory: Arc::default(),
            wake: Arc::default(),
            wake_outbox: Arc::default(),
            sending: Arc::default(),
            lease,
            realm: Realm::Farm,
            troubles: trouble::Troubles::default(),
        }
    }

    /// As [`Coordinator::new`], but working only on the first sweep submitted to or resumed in it.
    pub fn embedded(db: Db, queue: Queue, blobs: Blobs, lease: Duration) -> Self {
        Self { realm: Realm::One(Arc::default()), ..Self::new(db, queue, blobs, lease) }
    }

    /// Notes how a step of a loop went.
    fn note(&self, step: Step, result: &Result<(), EngineError>) {
        self.troubles.note(step, result, &self.events);
    }

    fn works_on(&self, sweep: SweepId) -> bool {
        match &self.realm {
            Realm::Farm => true,
            Realm::One(one) => one.get() == Some(&sweep),
        }
    }

    /// Takes a sweep into an embedded coordinator's realm; the first one stays.
    fn take_up(&self, sweep: SweepId) {
        if let Realm::One(one) = &self.realm {
            one.get_or_init(|| sweep);
        }
    }

    /// The relational state.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// The blob store.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// The queue.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// What happens from now on.
    pub fn subscribe(&self) -> tokio::sync::broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Runs the loops until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::join!(sweeps::run(self.clone(), stop.clone()), self.carry(stop));
    }

    /// Runs the loops that carry jobs to workers and their ends back, and plans nothing.
    pub async fn carry(&self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        tasks.spawn(outbox::run(self.clone(), stop.clone()));
        tasks.spawn(outbox::republish_overdue(self.clone(), stop.clone()));
        tasks.spawn(intake::worker_messages(self.clone(), stop.clone()));
        tasks.spawn(intake::dead_jobs(self.clone(), stop));
        while let Some(ended) = tasks.join_next().await {
            if let Err(panic) = ended {
                warn!(error = %panic, "a coordinator loop ended badly");
            }
        }
        info!("coordinator has ended");
    }
}

/// Waits for a wake-up, the poll interval, or the end (then `false`).
async fn next_round(wake: &Notify, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = wake.notified() => true,
        () = tokio::time::sleep(POLL) => true,
        () = stop.cancelled() => false,
    }
}
