//! Whether a message may be run: what is settled, cancelled or superseded is dropped before anything
//! runs.
//!
//! The first delivery of a first publication needs no question of its own: there is no other copy. All
//! it takes is that its sweep is running, which the coordinator is asked once per sweep and
//! [`SWEEP_KNOWN`]. A job that came back, or was published again, is asked for: a copy of it may be
//! running, or may have ended. Asking costs two small messages.

use flakefarm_shared::queue::Queue;
use flakefarm_shared::{JobId, JobMessage, Permit, SweepId, WIRE_VERSION, WorkerId, WorkerMessage};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::broadcast;
use tracing::debug;

/// For how long a sweep that was running is taken for running; a cancellation is told at once to those
/// who listen.
const SWEEP_KNOWN: Duration = Duration::from_secs(10);
/// Between two askings.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Ended publications that are remembered: the broker may deliver them again.
const ENDED: usize = 4_096;
/// Answers that one who asks may lag behind.
const ANSWERS: usize = 256;

type Answer = (JobId, u32, Permit);

/// What a worker knows of what it may run.
#[derive(Debug)]
pub(crate) struct Permissions {
    answers: broadcast::Sender<Answer>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    running: HashMap<SweepId, Instant>,
    /// The latest publication of each job that ended here; and in which order they came.
    ended: HashMap<JobId, u32>,
    order: VecDeque<JobId>,
}

impl Permissions {
    pub(crate) fn new() -> Self {
        Self { answers: broadcast::channel(ANSWERS).0, known: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The coordinator has answered this worker.
    pub(crate) fn answered(&self, job: JobId, publication: u32, permit: Permit) {
        // An error says that nobody is asking any more.
        self.answers.send((job, publication, permit)).ok();
    }

    /// A sweep was stopped: what comes of it is asked for.
    pub(crate) fn stopped(&self, sweep: SweepId) {
        self.lock().running.remove(&sweep);
    }

    /// A publication has ended here.
    pub(crate) fn ended(&self, job: JobId, publication: u32) {
        let mut known = self.lock();
        if known.ended.insert(job, publication).is_none() {
            known.order.push_back(job);
        }
        while known.order.len() > ENDED {
            if let Some(oldest) = known.order.pop_front() {
                known.ended.remove(&oldest);
            }
        }
    }

    /// Whether this publication, or a later one, has ended here.
    pub(crate) fn has_ended(&self, job: JobId, publication: u32) -> bool {
        self.lock().ended.get(&job).is_some_and(|ended| *ended >= publication)
    }

    /// What needs no question.
    fn known(&self, message: &JobMessage, redeliveries: u32) -> Option<Permit> {
        if self.has_ended(message.job, message.publication) {
            return Some(Permit::Drop);
        }
        let known = self.lock();
        let only = redeliveries == 0 && message.publication == 1;
        let running = known.running.get(&message.sweep).is_some_and(|since| since.elapsed() < SWEEP_KNOWN);
        (only && running).then_some(Permit::Run)
    }

    /// Asks, as often as it takes; dropped by whoever cannot wait.
    pub(crate) async fn ask(
        &self,
        queue: &Queue,
        worker: &WorkerId,
        message: &JobMessage,
        redeliveries: u32,
        received: Instant,
    ) -> Permit {
        if let Some(permit) = self.known(message, redeliveries) {
            return permit;
        }
        let mut answers = self.answers.subscribe();
        loop {
            let question = WorkerMessage::Ask {
                v: WIRE_VERSION,
                worker: worker.clone(),
                job: message.job,
                publication: message.publication,
                held_ms: u64::try_from(received.elapsed().as_millis()).unwrap_or(u64::MAX),
                came_back: redeliveries > 0,
                returns: redeliveries,
            };
            if let Err(error) = queue.publish_worker_message(&question).await {
                debug!(job.id = %message.job, error = %error, "could not ask for a job, trying again");
            }
            let answer = async {
                loop {
                    match answers.recv().await {
                        Ok((job, publication, permit))
                            if (job, publication) == (message.job, message.publication) =>
                        {
                            return Some(permit);
                        }
                        Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                        Err(broadcast::error::RecvError::Closed) => return None,
                    }
                }
            };
            match tokio::time::timeout(ASK_AGAIN, answer).await {
                Ok(Some(Permit::Run)) => {
                    let mut known = self.lock();
                    known.running.retain(|_, since| since.elapsed() < SWEEP_KNOWN);
                    known.running.insert(message.sweep, Instant::now());
                    return Permit::Run;
                }
                Ok(Some(Permit::Drop)) => return Permit::Drop,
                Ok(None) | Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flakefarm_shared::{Class, Payload};

    #[test]
    fn only_the_first_copy_of_a_running_sweep_needs_no_question() {
        let permissions = Permissions::new();
        let first = JobMessage {
            v: WIRE_VERSION,
            job: JobId::new(),
            sweep: SweepId::new(),
            class: Class::Bulk,
            publication: 1,
            spec: Payload::Inline(Vec::new()),
            made: None,
            again: 0,
        };
        let second = JobMessage { publication: 2, ..first.clone() };
        assert_eq!(permissions.known(&first, 0), None, "nobody has said that the sweep runs");
        permissions.lock().running.insert(first.sweep, Instant::now());
        assert_eq!(permissions.known(&first, 0), Some(Permit::Run));
        assert_eq!(permissions.known(&first, 1), None);
        assert_eq!(permissions.known(&second, 0), None);
        permissions.stopped(first.sweep);
        assert_eq!(permissions.known(&first, 0), None);
        permissions.ended(first.job, 1);
        assert_eq!(permissions.known(&first, 1), Some(Permit::Drop));
        assert_eq!(permissions.known(&second, 0), None);
        for _ in 0..ENDED {
            permissions.ended(JobId::new(), 1);
        }
        assert_eq!(permissions.known(&first, 1), None, "memory is bounded");
        assert_eq!(permissions.lock().ended.len(), ENDED);
    }
}
