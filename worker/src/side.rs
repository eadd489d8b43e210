//! What a worker does beside its jobs: signs of life, looking for leftovers, listening to the coordinator, and
//! saying how it is.

use crate::health::{Health, Needs, Standing};
use crate::spool::Spool;
use crate::state::Worker;
use flakefarm_shared::message::{BEAT, JobProgress};
use flakefarm_shared::metrics::catalogue::{BEATS, REAPED};
use flakefarm_shared::{Control, WIRE_VERSION, WorkerMessage, now_micros};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Between a sign of life and one that says that jobs have started: short ones need none of their own.
const SOON: Duration = Duration::from_millis(500);
const REAP: Duration = Duration::from_secs(60);

/// What those who look after the worker may ask of it.
pub(crate) fn health_of(worker: &Arc<Worker>, drain: CancellationToken) -> Health {
    let of = worker.clone();
    let standing = move || Standing {
        slots: of.slots,
        jobs: of.hands().len(),
        attempts_running: of.bench.running.load(Ordering::Relaxed),
        draining: of.draining(),
        in_trouble: of.in_trouble().is_some(),
        spooled: of.spool.as_ref().map(Spool::usage).unwrap_or_default(),
    };
    let needs = Needs {
        queue: worker.queue.clone(),
        samples: worker.bench.samples.clone(),
        blobs: worker.bench.blobs.clone(),
        sandbox: worker.bench.sandbox.clone(),
    };
    Health { pulse: worker.pulse.clone(), needs, drain, standing: Box::new(standing) }
}

pub(crate) async fn beat(worker: Arc<Worker>, end: CancellationToken) {
    loop {
        worker.pulse.round();
        // One that was not sent is owed: after an outage others are heard, and silence is judged.
        let pause = if send_beat(&worker).await { BEAT } else { SOON };
        let news = async {
            tokio::time::sleep(SOON).await;
            worker.job_started.notified().await;
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = news => {}
            () = end.cancelled() => return,
        }
    }
}

/// Whether it has been sent.
pub(crate) async fn send_beat(worker: &Worker) -> bool {
    let jobs = worker
        .hands()
        .iter()
        .map(|(job, hand)| JobProgress {
            job: *job,
            sweep: hand.sweep,
            publication: hand.publication,
            attempts_done: hand.progress.done.load(Ordering::Relaxed),
            attempts_total: hand.progress.total.load(Ordering::Relaxed),
            doing: hand.progress.doing.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        })
        .collect();
    let beat = WorkerMessage::Beat {
        v: WIRE_VERSION,
        worker: worker.bench.worker.clone(),
        at: now_micros(),
        slots: worker.slots,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        jobs,
        draining: worker.draining(),
        trouble: worker.in_trouble(),
    };
    match tokio::time::timeout(BEAT, worker.queue.publish_worker_message(&beat)).await {
        Ok(Ok(())) => {
            worker.pulse.sent();
            BEATS.count(&["sent"]);
            return true;
        }
        Ok(Err(error)) => warn!(error = %error, "sign of life not sent"),
        Err(_) => {}
    }
    BEATS.count(&["failed"]);
    false
}

pub(crate) async fn reap(worker: Arc<Worker>, end: CancellationToken) {
    loop {
        match worker.bench.sandbox.reap().await {
            Ok(0) => {}
            Ok(removed) => {
                REAPED.add(&[], removed as u64);
                info!(sandboxes.removed = removed, "removed sandboxes that nobody owned");
            }
            Err(error) => warn!(error = %error, "could not look for leftover sandboxes"),
        }
        tokio::select! {
            () = tokio::time::sleep(REAP) => {}
            () = end.cancelled() => return,
        }
    }
}

pub(crate) async fn listen(worker: Arc<Worker>, end: CancellationToken) {
    let mut controls = worker.queue.controls();
    loop {
        let control = tokio::select! {
            control = controls.next() => control,
            () = end.cancelled() => return,
        };
        match control {
            None => return,
            Some(Control::Cancel { sweep }) => {
                worker.permissions.stopped(sweep);
                for hand in worker.hands().values().filter(|hand| hand.sweep == sweep) {
                    hand.cancelled.store(true, Ordering::Relaxed);
                    hand.stop.cancel();
                }
            }
            Some(Control::Answer { worker: asked, job, publication, permit }) => {
                if asked == worker.bench.worker {
                    worker.permissions.answered(job, publication, permit);
                }
            }
            Some(Control::SetAside { worker: meant, why }) => {
                if meant == worker.bench.worker {
                    worker.set_aside(why);
                }
            }
        }
    }
}
