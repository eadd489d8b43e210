//! Brings home what a job has made: samples first, then its end, confirmed by the broker. A server that
//! is away is waited for, and meanwhile the work lies on disk, so that neither the outage nor the end of
//! this process loses it.

use crate::finished::{Finished, How};
use crate::spool::Spool;
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::fault;
use flakefarm_shared::queue::Queue;
use flakefarm_shared::samples::{SampleError, Samples};
use flakefarm_shared::{InfraError, InfraStage, JobEnd, WIRE_VERSION, WorkerId, WorkerMessage, chain};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

/// Tries of a worker that has no disk to keep its work on, before the job is to be made again.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Short: work is to flow soon after a server is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// For the last word of a worker that leaves.
const LAST_WORD: Duration = Duration::from_secs(3);

/// The servers to bring it to.
pub(crate) struct Home<'a> {
    pub(crate) worker: &'a WorkerId,
    pub(crate) queue: &'a Queue,
    pub(crate) samples: &'a Samples,
    pub(crate) blobs: &'a Blobs,
    /// None in a process that keeps nothing for its successor.
    pub(crate) spool: Option<&'a Spool>,
    /// Told what it waits for, if anything.
    pub(crate) trouble: &'a (dyn Fn(Option<String>) + Send + Sync),
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// It has arrived.
    Home,
    /// It lies on disk for the next start.
    Kept,
    /// It is lost: the job is to be made again.
    Lost,
}

/// Why it has not arrived.
enum Failed {
    /// Worth another try.
    Away(InfraError),
    /// For ever: as it is it cannot be stored.
    Refused(InfraError),
}

/// Brings it home, waiting for servers that are away until `leave`.
pub(crate) async fn deliver(home: &Home<'_>, mut finished: Finished, leave: &CancellationToken) -> Delivered {
    let mut pause = FIRST_PAUSE;
    let mut kept = false;
    for tried in 1.. {
        let arrived = tokio::select! {
            biased;
            arrived = arrive(home, &finished) => arrived,
            () = said_last_word(leave) => Err(Failed::Away(left())),
        };
        let failure = match arrived {
            Ok(()) => {
                (home.trouble)(None);
                if let Some(spool) = home.spool {
                    spool.remove(finished.job, finished.publication);
                }
                fault::point("worker.published");
                return Delivered::Home;
            }
            Err(Failed::Refused(error)) => {
                error!(job.id = %finished.job, error = %error, "what a job has made cannot be stored");
                finished = Finished { report: None, how: How::Retryable(error), record: false, ..finished };
                continue;
            }
            Err(Failed::Away(error)) => error,
        };
        (home.trouble)(Some(failure.to_string()));
        if tried == 1 {
            warn!(job.id = %finished.job, error = %failure, "what a job has made waits for a server that is away");
        }
        match home.spool {
            Some(spool) => kept = kept || spool.keep(&finished),
            None if tried >= TRIES
                && finished.report.is_some()
                && !matches!(finished.how, How::HandedBack(_)) =>
            {
                finished = Finished { report: None, how: How::Retryable(failure), record: false, ..finished };
            }
            None if tried >= 2 * TRIES => return Delivered::Lost,
            None => {}
        }
        if leave.is_cancelled() {
            return if kept { Delivered::Kept } else { Delivered::Lost };
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = leave.cancelled() => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    unreachable!("the tries are not counted to an end")
}

async fn said_last_word(leave: &CancellationToken) {
    leave.cancelled().await;
    tokio::time::sleep(LAST_WORD).await;
}

fn left() -> InfraError {
    InfraError { stage: InfraStage::Worker, message: "the worker left before a server was back".to_owned() }
}

async fn arrive(home: &Home<'_>, finished: &Finished) -> Result<(), Failed> {
    let chunks = finished.chunks();
    if !chunks.is_empty() {
        home.samples.append(&chunks).await.map_err(|error| {
            let failed = InfraError { stage: InfraStage::Samples, message: chain(&error) };
            match error {
                SampleError::Damaged(_) | SampleError::Refused(_) => Failed::Refused(failed),
                SampleError::Unreachable(_) | SampleError::Full(_) => Failed::Away(failed),
            }
        })?;
    }
    fault::point("worker.appended");
    let report = match &finished.report {
        Some(report) => Some(home.blobs.pack(report).await.map_err(|error| {
            Failed::Away(InfraError { stage: InfraStage::Blobs, message: chain(&error) })
        })?),
        None => None,
    };
    fault::point("worker.packed");
    let end = match (&finished.how, report) {
        (How::Done, Some(report)) => JobEnd::Done { report },
        (How::Done, None) => return Err(Failed::Refused(left())),
        (How::HandedBack(because), made) => JobEnd::HandedBack { made, because: because.clone() },
        (How::Retryable(error), _) => JobEnd::Retryable(error.clone()),
        (How::Refused(refusal), _) => JobEnd::Refused(refusal.clone()),
    };
    let ended = WorkerMessage::JobEnded {
        v: WIRE_VERSION,
        job: finished.job,
        sweep: finished.sweep,
        publication: finished.publication,
        worker: home.worker.clone(),
        end,
    };
    home.queue
        .publish_worker_message(&ended)
        .await
        .map_err(|error| Failed::Away(InfraError { stage: InfraStage::Worker, message: error.to_string() }))
}
