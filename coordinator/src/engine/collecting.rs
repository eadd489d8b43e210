//! The loop that sums points up before they expire, and collects what is no longer kept. One coordinator does
//! it at a time.

use super::trouble::Step;
use super::{Coordinator, EngineError, STORE_MARKER};
use crate::events::Event;
use crate::garbage::{self, Doing, Garbage, GarbageError};
use crate::history::collect::{CollectError, collect_day, mend_columns};
use crate::history::ingest::SUMMED_ANYWAY;
use flakefarm_shared::samples::{Samples, codec};
use flakefarm_shared::{Digest, SweepId, UnixMicros, now_micros};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(600);
/// From the end of a sweep until the day's sums tell of it: what ends together is summed up together.
const SOON: Duration = Duration::from_secs(3);
/// Summing up after sweeps takes at most one part in so many of the time.
const SHARE: u32 = 10;
/// Days before today that are summed up again: attempts end after midnight, reports come late.
const AGAIN: i64 = SUMMED_ANYWAY;
/// How often that is done for a day that is over.
const AGAIN_MICROS: UnixMicros = 4 * 3_600_000_000;
/// How often what is no longer kept is collected.
const BETWEEN_GARBAGE: Duration = Duration::from_secs(86_400);

pub(super) async fn run(coordinator: Coordinator, stop: CancellationToken) {
    let mut last_garbage: Option<Instant> = None;
    let mut events = coordinator.subscribe();
    loop {
        let mut collected = round(&coordinator).await;
        if collected.is_ok() && last_garbage.is_none_or(|at| at.elapsed() >= BETWEEN_GARBAGE) {
            collected = drop_garbage(&coordinator).await;
            last_garbage = Some(Instant::now());
        }
        coordinator.note(Step::Collecting, &collected);
        tokio::select! {
            () = until_the_next_round(&coordinator, &mut events) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Waits; sums up today of projects whose sweeps end meanwhile.
async fn until_the_next_round(coordinator: &Coordinator, events: &mut Receiver<Event>) {
    let next = tokio::time::Instant::now() + PAUSE;
    while let Ok(ended) = tokio::time::timeout_at(next, sweeps_that_end(events)).await {
        // What was missed is found by the next round.
        let Some(ended) = ended else { return tokio::time::sleep_until(next).await };
        let begun = Instant::now();
        let summed_up = sum_up_today(coordinator, ended).await;
        coordinator.note(Step::Collecting, &summed_up);
        tokio::time::sleep(begun.elapsed() * (SHARE - 1)).await;
    }
}

/// The sweeps that have ended once one has; none if events are no longer told.
async fn sweeps_that_end(events: &mut Receiver<Event>) -> Option<BTreeSet<SweepId>> {
    let mut ended = BTreeSet::new();
    let mut told = async |ended: &mut BTreeSet<SweepId>| loop {
        match events.recv().await {
            Ok(Event::Finished { sweep, .. }) => {
                ended.insert(sweep);
                return true;
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return false,
        }
    };
    if !told(&mut ended).await {
        return None;
    }
    let together = async { while told(&mut ended).await {} };
    drop(tokio::time::timeout(SOON, together).await);
    Some(ended)
}

async fn sum_up_today(coordinator: &Coordinator, ended: BTreeSet<SweepId>) -> Result<(), EngineError> {
    let Some(samples) = &coordinator.samples else { return Ok(()) };
    let mut projects = BTreeSet::new();
    for sweep in ended {
        projects.extend(coordinator.db.sweep(sweep).await?.map(|row| row.project));
    }
    let now = now_micros();
    for project in projects {
        // Where samples cannot be read the next round tries again, and says so.
        sum_up(coordinator, samples, &project, codec::day_of(now), now).await?;
    }
    Ok(())
}

async fn round(coordinator: &Coordinator) -> Result<(), EngineError> {
    let Some(samples) = &coordinator.samples else { return Ok(()) };
    let now = now_micros();
    let today = codec::day_of(now);
    for project in coordinator.db.projects().await? {
        mend_columns(&coordinator.db, &project.name, now).await?;
        let noted = coordinator.db.noted_days(&project.name, today - AGAIN, today).await?;
        let late = coordinator.db.late_days(&project.name).await?;
        for day in late.into_iter().filter(|day| *day < today - AGAIN).chain(today - AGAIN..=today) {
            let summed_up = noted.iter().find(|note| note.day == day).map(|note| note.at);
            if summed_up.is_some_and(|at| at > codec::day_start(day + 1) && now - at < AGAIN_MICROS) {
                continue;
            }
            if !sum_up(coordinator, samples, &project.name, day, now).await? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Sums up a day of a project; whether its samples could be read.
async fn sum_up(
    coordinator: &Coordinator,
    samples: &Samples,
    project: &str,
    day: i64,
    now: UnixMicros,
) -> Result<bool, EngineError> {
    match collect_day(&coordinator.db, samples.as_ref(), project, day, now).await {
        Ok(_) => Ok(true),
        Err(CollectError::Db(error)) => Err(error.into()),
        Err(CollectError::Samples(error)) => {
            warn!(project = %project, error = %error, "samples cannot be summed up; trying again later");
            Ok(false)
        }
    }
}

async fn drop_garbage(coordinator: &Coordinator) -> Result<(), EngineError> {
    let marker = Digest::of(STORE_MARKER);
    let Coordinator { db, blobs, keep, .. } = coordinator;
    match garbage::collect(db, blobs, keep, now_micros(), Doing::Removing, &marker).await {
        Ok(found) => {
            let Garbage { hourly_packs, daily_packs, days, evidence, jobs, .. } = found;
            let Garbage { blobs, blob_bytes, young_blobs, kept_blobs, kept_bytes, .. } = found;
            info!(
                hourly_packs,
                daily_packs,
                days,
                evidence,
                jobs,
                blobs,
                blob_bytes,
                young_blobs,
                kept_blobs,
                kept_bytes,
                "collected what is no longer kept"
            );
            Ok(())
        }
        Err(GarbageError::Db(error)) => Err(error.into()),
        Err(GarbageError::Blobs(error)) => Err(error.into()),
    }
}
