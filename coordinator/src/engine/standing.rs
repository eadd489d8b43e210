//! How the farm stands now. It is read when somebody asks, and no more often than it costs little: the same
//! answer is given for twenty times as long as it took to find.

use super::Coordinator;
use crate::db::{Backlog, DbError, WorkerRow};
use flakefarm_shared::metrics::catalogue::{
    ATTEMPTS_LEFT, DATABASE_BYTES, DEAD_JOBS, FARM_SLOTS, JOBS, PARKED, QUEUE_AGE, QUEUE_READY, SWEEPS, UP,
    WORKERS,
};
use flakefarm_shared::queue::QueueError;
use flakefarm_shared::{Class, UnixMicros, chain, now_micros};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// For a store to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// For how long the standing is taken for known, at least.
const KNOWN: Duration = Duration::from_secs(1);
/// And in multiples of what it took to find.
const TIMES_ITS_COST: u32 = 20;

/// How the farm stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// When this was found.
    pub at: UnixMicros,
    /// What the database says, or why it says nothing.
    pub recorded: Result<Recorded, String>,
    /// Messages that wait in the broker, by class, or why it does not say.
    pub ready: Result<[(Class, u64); 2], String>,
    /// What stands still, and for how long.
    pub troubles: Vec<(String, Duration)>,
}

/// What the database says.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Jobs by class.
    pub backlog: [(Class, Backlog); 2],
    /// Sweeps that run.
    pub running: u64,
    /// Sweeps that were interrupted.
    pub interrupted: u64,
    /// Dead jobs.
    pub dead: u64,
    /// Messages that nobody can read.
    pub parked: u64,
    /// All workers that are remembered.
    pub workers: Vec<WorkerRow>,
    /// Bytes of the database.
    pub bytes: u64,
}

/// What was found last. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub(super) struct Standings(Arc<Mutex<Option<Read>>>);

/// When the farm's standing was read, how long that took, and what it was.
type Read = (Instant, Duration, Arc<Standing>);

impl Coordinator {
    /// How the farm stands; of several who ask together one finds out.
    pub async fn standing(&self) -> Arc<Standing> {
        let mut known = self.standings.0.lock().await;
        if let Some((found, good_for, standing)) = &*known
            && found.elapsed() < *good_for
        {
            return standing.clone();
        }
        let begun = Instant::now();
        let standing = Arc::new(Box::pin(self.find_standing()).await);
        standing.gauge();
        let good_for = KNOWN.max(begun.elapsed() * TIMES_ITS_COST);
        *known = Some((Instant::now(), good_for, standing.clone()));
        standing
    }

    /// Sets the gauges of this process and of the farm.
    pub async fn gauge(&self) {
        self.troubles.gauge();
        self.standing().await;
    }

    async fn find_standing(&self) -> Standing {
        let recorded = async {
            let [interactive, bulk] = Class::ALL;
            let backlog =
                [(interactive, self.db.backlog(interactive).await?), (bulk, self.db.backlog(bulk).await?)];
            let (running, interrupted) = self.db.count_open_sweeps().await?;
            let (dead, parked) = self.db.count_dead().await?;
            let (workers, bytes) = (self.db.workers().await?, self.db.size().await?);
            Ok(Recorded { backlog, running, interrupted, dead, parked, workers, bytes })
        };
        let ready = async {
            let [interactive, bulk] = Class::ALL;
            let depth = async |class| Ok::<_, QueueError>((class, self.queue.depth(class).await?.ready));
            Ok([depth(interactive).await?, depth(bulk).await?])
        };
        let (recorded, ready) = tokio::join!(answer::<_, DbError>(recorded), answer::<_, QueueError>(ready));
        Standing { at: now_micros(), recorded, ready, troubles: self.troubles.now() }
    }
}

async fn answer<T, E: std::error::Error>(asked: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(answered) => answered.map_err(|error| chain(&error)),
        Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
    }
}

/// How a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WorkerState {
    Busy,
    Free,
    Draining,
    Silent,
}

impl WorkerState {
    const ALL: [(WorkerState, &'static str); 4] = [
        (WorkerState::Busy, "busy"),
        (WorkerState::Free, "free"),
        (WorkerState::Draining, "draining"),
        (WorkerState::Silent, "silent"),
    ];

    fn of(worker: &WorkerRow, now: UnixMicros) -> Self {
        if worker.is_silent(now) {
            WorkerState::Silent
        } else if worker.draining {
            WorkerState::Draining
        } else if worker.jobs > 0 {
            WorkerState::Busy
        } else {
            WorkerState::Free
        }
    }
}

impl Standing {
    /// What cannot be read keeps its last numbers, and is said not to be up.
    fn gauge(&self) {
        UP.set_whole(&["database"], u64::from(self.recorded.is_ok()));
        UP.set_whole(&["queue"], u64::from(self.ready.is_ok()));
        for (class, ready) in self.ready.iter().flatten() {
            QUEUE_READY.set_whole(&[class.word()], *ready);
        }
        let Ok(recorded) = &self.recorded else { return };
        for (class, backlog) in &recorded.backlog {
            let class = class.word();
            JOBS.set_whole(&[class, "pending"], backlog.pending);
            JOBS.set_whole(&[class, "queued"], backlog.queued);
            JOBS.set_whole(&[class, "leased"], backlog.leased);
            ATTEMPTS_LEFT.set_whole(&[class], backlog.attempts);
            QUEUE_AGE.set(&[class], backlog.waited(self.at).as_secs_f64());
        }
        SWEEPS.set_whole(&["running"], recorded.running);
        SWEEPS.set_whole(&["interrupted"], recorded.interrupted);
        DEAD_JOBS.set_whole(&[], recorded.dead);
        PARKED.set_whole(&[], recorded.parked);
        DATABASE_BYTES.set_whole(&[], recorded.bytes);
        let states: Vec<WorkerState> =
            recorded.workers.iter().map(|worker| WorkerState::of(worker, self.at)).collect();
        for (state, word) in WorkerState::ALL {
            WORKERS.set_whole(&[word], states.iter().filter(|of| **of == state).count() as u64);
        }
        let (mut slots, mut busy) = (0, 0);
        for (worker, state) in recorded.workers.iter().zip(states) {
            if matches!(state, WorkerState::Busy | WorkerState::Free) {
                slots += u64::from(worker.slots);
                busy += u64::from(worker.jobs).min(u64::from(worker.slots));
            }
        }
        FARM_SLOTS.set_whole(&["busy"], busy);
        FARM_SLOTS.set_whole(&["free"], slots - busy);
    }
}

impl Backlog {
    /// How long the first of those on the queue has waited; nothing if none does.
    pub fn waited(&self, now: UnixMicros) -> Duration {
        let waited = self.waiting_since.map_or(0, |since| now.saturating_sub(since).max(0));
        Duration::from_micros(waited.unsigned_abs())
    }
}
