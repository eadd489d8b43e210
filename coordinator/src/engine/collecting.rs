//! The loop that sums points up before they expire, and deletes what is older than is kept. One coordinator
//! does it at a time.

use super::trouble::Step;
use super::{Coordinator, EngineError};
use crate::db::PackSpan;
use crate::history::collect::{CollectError, collect_day, mend_columns};
use crate::history::retention::HistoryRetention;
use flakefarm_shared::now_micros;
use flakefarm_shared::samples::codec;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(600);
/// Days before today that are summed up again in each round: attempts end after midnight, reports come late.
const AGAIN: i64 = 2;

pub(super) async fn run(coordinator: Coordinator, stop: CancellationToken) {
    loop {
        let collected = round(&coordinator).await;
        coordinator.note(Step::Collecting, &collected);
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn round(coordinator: &Coordinator) -> Result<(), EngineError> {
    let Some(samples) = &coordinator.samples else { return Ok(()) };
    let now = now_micros();
    let today = codec::day_of(now);
    for project in coordinator.db.projects().await? {
        mend_columns(&coordinator.db, &project.name, now).await?;
        for day in today - AGAIN..=today {
            match collect_day(&coordinator.db, samples.as_ref(), &project.name, day, now).await {
                Ok(_) => {}
                Err(CollectError::Db(error)) => return Err(error.into()),
                Err(CollectError::Samples(error)) => {
                    warn!(project = %project.name, error = %error, "samples cannot be summed up; trying again later");
                    return Ok(());
                }
            }
        }
    }
    let keep = HistoryRetention::default();
    let hours = coordinator.db.delete_packs_before(PackSpan::Hours, keep.first_hourly_day(now)).await?;
    let days = coordinator.db.delete_packs_before(PackSpan::Days, keep.first_daily_day(now)).await?;
    coordinator.db.delete_days_before(keep.first_daily_day(now)).await?;
    if hours + days > 0 {
        info!(hours, days, "deleted sums that were kept long enough");
    }
    Ok(())
}
