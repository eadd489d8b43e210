//! The coordinator's loops. Level-triggered: each reads what is recorded and takes the next
//! idempotent step; a signal only makes it look sooner. kill -9 anywhere loses time, not truth.

mod advance;
mod bad_workers;
mod beside;
mod collecting;
mod fetching;
mod finish;
mod git_source;
mod importing;
mod intake;
mod leader;
pub mod leases;
mod limits;
mod listing;
mod memory;
mod notifying;
mod outbox;
mod past;
mod proposing;
mod quarantine;
mod relay;
mod renames;
mod repairing;
mod room;
mod schedules;
mod standing;
mod submit;
#[cfg(test)]
mod tests;
mod trace;
mod trouble;
mod trusting;

pub use advance::WORKER_SILENCE_MICROS;
pub use git_source::GitSource;
pub use importing::Imported;
pub use limits::{Fetching, LimitExceeded, Limits, QuotaExceeded, Quotas};
pub use notifying::FARM;
pub use repairing::{RepairJob, RepairRefused, RepairTrouble, Repairer, source_of, sweep_of};
pub use schedules::{FiredByHand, WantedSchedule};
pub use standing::{Recorded, Standing};
pub use submit::{Submission, SubmitError};

use crate::db::{Db, DbError};
use crate::events::{Event, Events};
use crate::history::retention::HistoryRetention;
use crate::owners::Owners;
use flakefarm_shared::blobs::{BlobError, Blobs};
use flakefarm_shared::queue::{Queue, QueueError};
use flakefarm_shared::samples::{SampleError, Samples};
use flakefarm_shared::{Digest, Refusal, SweepId};
use memory::Memories;
use room::Room;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trouble::Step;

/// How long the loops wait when nobody wakes them.
const POLL: Duration = Duration::from_secs(2);

/// A job in a worker's hand without news for this long is published again.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(600);

/// A blob that every coordinator stores: where it is missing, the store is not the one it was.
pub const STORE_MARKER: &[u8] = b"flakefarm";

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
    /// The sample store.
    #[error("the sample store failed")]
    Samples(#[from] SampleError),
    /// The blob store answers, but holds nothing of ours.
    #[error("the blob store is empty: is it mounted, and the address right?")]
    StoreGone,
    /// What is recorded of a sweep cannot be used, however often it is tried.
    #[error("{}", .0.message)]
    Unusable(Box<Refusal>),
    /// This process is ending.
    #[error("the coordinator is stopping")]
    Stopping,
}

impl EngineError {
    fn unusable(message: String, log: &str) -> Self {
        let hint = Some("the coordinator's log says more; a new sweep is not affected".to_owned());
        Self::Unusable(Box::new(Refusal { message, log: log.to_owned(), hint }))
    }

    /// Why a sweep that met this cannot go on; none if it may, later.
    fn end_of_sweep(&self) -> Option<Refusal> {
        let damaged = || Refusal {
            message: "what this sweep has recorded is missing or damaged".to_owned(),
            log: flakefarm_shared::chain(self),
            hint: Some("was the blob store emptied? a new sweep is not affected".to_owned()),
        };
        match self {
            EngineError::Unusable(refusal) => Some((**refusal).clone()),
            EngineError::Blobs(BlobError::Missing(_) | BlobError::Damaged(_) | BlobError::Content { .. })
            | EngineError::Db(DbError::Damaged(_)) => Some(damaged()),
            EngineError::Blobs(BlobError::Address { .. } | BlobError::Store { .. })
            | EngineError::Db(_)
            | EngineError::Queue(_)
            | EngineError::Samples(_)
            | EngineError::StoreGone
            | EngineError::Stopping => None,
        }
    }
}

/// The coordinator. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Coordinator {
    db: Db,
    queue: Queue,
    blobs: Blobs,
    events: Events,
    memories: Memories,
    room: Room,
    limits: Limits,
    quotas: Quotas,
    /// Names this coordinator in leases.
    holder: Arc<str>,
    wake: Arc<Notify>,
    wake_outbox: Arc<Notify>,
    wake_relay: Arc<Notify>,
    wake_schedules: Arc<Notify>,
    wake_repairs: Arc<Notify>,
    /// None: repairs are not taken here.
    repairing: Option<repairing::Repairing>,
    /// Held from publishing jobs until they are recorded as queued.
    sending: Arc<Mutex<()>>,
    /// What the loops that carry jobs know.
    carriage: Arc<outbox::Carriage>,
    lease: Duration,
    assignment: Assignment,
    troubles: trouble::Troubles,
    samples: Option<Samples>,
    keep: HistoryRetention,
    /// The owners of the last sweep that was asked about, by its context.
    owners: Arc<Mutex<Option<KnownOwners>>>,
    fetching: Arc<Fetching>,
    standings: standing::Standings,
}

/// Owners, and the context of the sweep that they are of.
type KnownOwners = (Digest, Arc<Owners>);

/// Which sweeps a coordinator works on.
#[derive(Debug, Clone)]
enum Assignment {
    /// All that are recorded.
    EverySweep,
    /// The one that this process was started for: other processes may share its database.
    OneSweep(Arc<OnceLock<SweepId>>),
}

impl Coordinator {
    /// A coordinator over opened stores. Nothing moves before [`Coordinator::run`].
    pub fn new(db: Db, queue: Queue, blobs: Blobs, lease: Duration) -> Self {
        Self {
            db,
            queue,
            blobs,
            events: Events::default(),
            memories: Memories::default(),
            room: Room::default(),
            limits: Limits::FARM,
            quotas: Quotas::FARM,
            holder: Arc::from(SweepId::new().to_string()),
            wake: Arc::default(),
            wake_outbox: Arc::default(),
            wake_relay: Arc::default(),
            wake_schedules: Arc::default(),
            wake_repairs: Arc::default(),
            repairing: None,
            fetching: Arc::default(),
            sending: Arc::default(),
            carriage: Arc::default(),
            lease,
            assignment: Assignment::EverySweep,
            troubles: trouble::Troubles::default(),
            samples: None,
            keep: HistoryRetention::default(),
            owners: Arc::default(),
            standings: standing::Standings::default(),
        }
    }

    /// As [`Coordinator::new`], but working only on the first sweep submitted to or resumed in it.
    pub fn embedded(db: Db, queue: Queue, blobs: Blobs, lease: Duration) -> Self {
        let assignment = Assignment::OneSweep(Arc::default());
        Self {
            assignment,
            limits: Limits::EMBEDDED,
            quotas: Quotas::NONE,
            ..Self::new(db, queue, blobs, lease)
        }
    }

    /// The same with other limits.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same with a store of samples, which it reads for history.
    pub fn with_samples(self, samples: Samples) -> Self {
        Self { samples: Some(samples), ..self }
    }

    /// The same that keeps history and what sweeps made for other times.
    pub fn with_retention(self, keep: HistoryRetention) -> Self {
        Self { keep, ..self }
    }

    /// The same with other quotas.
    pub fn with_quotas(self, quotas: Quotas) -> Self {
        Self { quotas, ..self }
    }

    /// The same that fetches otherwise.
    pub fn with_fetching(self, fetching: Fetching) -> Self {
        Self { fetching: Arc::new(fetching), ..self }
    }

    /// The store of samples, if it has one.
    pub fn samples(&self) -> Option<&Samples> {
        self.samples.as_ref()
    }

    /// Who answers for the tests of a sweep, by the digest of its context.
    async fn owners_of(&self, context: &Digest) -> Arc<Owners> {
        // Held while they are read: several channels ask for the same.
        let mut known = self.owners.lock().await;
        match &*known {
            Some((of, owners)) if of == context => owners.clone(),
            Some(_) | None => {
                let owners = Arc::new(Owners::of_sweep(&self.blobs, context).await);
                known.insert((context.clone(), owners)).1.clone()
            }
        }
    }

    /// Notes how a step of a loop went.
    fn note(&self, step: Step, result: &Result<(), EngineError>) {
        self.troubles.note(step, result, &self.events);
    }

    fn works_on(&self, sweep: SweepId) -> bool {
        match &self.assignment {
            Assignment::EverySweep => true,
            Assignment::OneSweep(one) => one.get() == Some(&sweep),
        }
    }

    /// Takes a sweep into an embedded coordinator's assignment; the first one stays.
    fn take_up(&self, sweep: SweepId) {
        if let Assignment::OneSweep(one) = &self.assignment {
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

    /// What this coordinator is called in leases.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// The queue.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// What happens from now on.
    pub fn subscribe(&self) -> tokio::sync::broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Runs the loops until `stop`: those that do the farm's work while this coordinator leads, and the
    /// one that tells its own listeners.
    pub async fn run(&self, stop: CancellationToken) {
        let work = |coordinator: Coordinator, stop: CancellationToken| async move {
            tokio::join!(advance::run(coordinator.clone(), stop.clone()), coordinator.carry_on(stop));
        };
        // On the heap: whoever runs the loops has small futures of its own.
        Box::pin(async {
            tokio::join!(
                // One lease for all that moves jobs: these loops wake each other.
                leader::while_leading(self.clone(), "work", stop.clone(), work),
                leader::while_leading(self.clone(), "housekeeping", stop.clone(), relay::housekeeping),
                leader::while_leading(self.clone(), "history", stop.clone(), collecting::run),
                self.keep_schedules(stop.clone()),
                self.keep_telling(stop.clone()),
                self.keep_repairing(stop.clone()),
                relay::run(self.clone(), stop),
            );
        })
        .await;
        info!("coordinator has ended");
    }

    async fn keep_schedules(&self, stop: CancellationToken) {
        // They belong to a farm: nobody's own process fires them.
        if matches!(self.assignment, Assignment::EverySweep) {
            leader::while_leading(self.clone(), "schedules", stop, schedules::run).await;
        }
    }

    async fn keep_telling(&self, stop: CancellationToken) {
        if matches!(self.assignment, Assignment::EverySweep) {
            leader::while_leading(self.clone(), "notifications", stop, notifying::run).await;
        }
    }

    async fn keep_repairing(&self, stop: CancellationToken) {
        if self.repairing.is_some() {
            leader::while_leading(self.clone(), "repairs", stop, repairing::run).await;
        }
    }

    /// Runs the loops that carry jobs to workers and their ends back, and plans nothing.
    pub async fn carry(&self, stop: CancellationToken) {
        let work = |coordinator: Coordinator, stop| async move { coordinator.carry_on(stop).await };
        leader::while_leading(self.clone(), "work", stop, work).await;
    }

    async fn carry_on(&self, stop: CancellationToken) {
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
