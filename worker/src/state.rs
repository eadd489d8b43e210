//! What the slots of a worker and its tasks beside them share.

use crate::delivery::{Delivered, Home, deliver};
use crate::finished::{Finished, How};
use crate::health::Pulse;
use crate::job::{Bench, Progress};
use crate::permission::Permissions;
use crate::spool::Spool;
use flakefarm_shared::metrics::catalogue::{PHASE, WORKER_JOBS};
use flakefarm_shared::queue::Queue;
use flakefarm_shared::{JobId, SweepId};
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, RwLock, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How a worker is told to end.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// Take no more jobs, finish the attempts that are running, hand back what is left, then return.
    pub drain: CancellationToken,
    /// Stop attempts now, hand back what is left, then return.
    pub stop: CancellationToken,
}

#[derive(Debug)]
pub(crate) struct InHand {
    pub(crate) sweep: SweepId,
    pub(crate) publication: u32,
    pub(crate) progress: Arc<Progress>,
    pub(crate) stop: CancellationToken,
    pub(crate) cancelled: Arc<AtomicBool>,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) queue: Queue,
    pub(crate) slots: u16,
    pub(crate) bench: Bench,
    pub(crate) spool: Option<Spool>,
    pub(crate) ending: Ending,
    pub(crate) permissions: Permissions,
    pub(crate) hands: Mutex<HashMap<JobId, InHand>>,
    /// Held by every job that runs; by a suspect alone.
    pub(crate) company: RwLock<()>,
    /// Somebody runs alone, or waits until nothing else runs: no slot holds a message that the end of
    /// this process could be counted against.
    pub(crate) alone: watch::Sender<bool>,
    /// To be the one who does.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// What keeps it from going on.
    pub(crate) trouble: Mutex<Option<String>>,
    /// Why it takes no more jobs until somebody has looked, if so.
    pub(crate) set_aside: OnceLock<String>,
    /// Slots that the queue may send a job.
    pub(crate) listening: watch::Sender<usize>,
    /// A job has started since the last sign of life.
    pub(crate) job_started: Notify,
    pub(crate) pulse: Arc<Pulse>,
}

impl Worker {
    pub(crate) fn hands(&self) -> MutexGuard<'_, HashMap<JobId, InHand>> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a publication in hand, unless one of its job is there.
    pub(crate) fn enter(&self, job: JobId, in_hand: InHand) -> bool {
        let mut hands = self.hands();
        let free = !hands.contains_key(&job);
        if free {
            hands.insert(job, in_hand);
            self.job_started.notify_one();
        }
        free
    }

    pub(crate) async fn bring_home(&self, finished: Finished) -> Delivered {
        let trouble = |trouble: Option<String>| {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        };
        let home = Home {
            worker: &self.bench.worker,
            queue: &self.queue,
            samples: &self.bench.samples,
            blobs: &self.bench.blobs,
            spool: self.spool.as_ref(),
            trouble: &trouble,
        };
        let (job, publication) = (finished.job, finished.publication);
        let end = match finished.how {
            How::Done => "done",
            How::HandedBack(_) => "handed_back",
            How::Retryable(_) => "retryable",
            How::Refused(_) => "refused",
        };
        let begun = Instant::now();
        let delivered = deliver(&home, finished, &self.ending.stop).await;
        PHASE.observe(&["report"], begun.elapsed());
        WORKER_JOBS.count(&[end]);
        if delivered == Delivered::Home {
            self.permissions.ended(job, publication);
        }
        delivered
    }

    /// A slot that the queue may send a job, until it is dropped.
    pub(crate) fn listens(&self) -> Listening<'_> {
        self.listening.send_modify(|slots| *slots += 1);
        Listening(&self.listening)
    }

    /// The coordinator finds that something is wrong with this machine.
    pub(crate) fn set_aside(&self, why: String) {
        if self.set_aside.set(why).is_ok() {
            let why = self.set_aside.get().map(String::as_str).unwrap_or_default();
            warn!(why, "set aside by the coordinator: takes no more jobs until it is started again");
            self.ending.drain.cancel();
        }
    }

    /// What keeps it from going on, for people.
    pub(crate) fn in_trouble(&self) -> Option<String> {
        let trouble = || self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.set_aside.get().map(|why| format!("set aside: {why}")).or_else(trouble)
    }

    pub(crate) fn draining(&self) -> bool {
        self.ending.drain.is_cancelled() || self.ending.stop.is_cancelled()
    }

    pub(crate) fn stops(&self) -> impl Future<Output = ()> {
        let Ending { drain, stop } = self.ending.clone();
        async move {
            tokio::select! {
                () = drain.cancelled() => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// See [`Worker::listens`].
pub(crate) struct Listening<'a>(&'a watch::Sender<usize>);

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|slots| *slots -= 1);
    }
}
