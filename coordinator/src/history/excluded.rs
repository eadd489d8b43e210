//! Points that count for nothing: of runs that were incidents, and of workers that were set aside in a run.

use crate::db::{Db, DbError};
use flakefarm_shared::UnixMicros;
use flakefarm_shared::samples::filing::worker_hash;
use flakefarm_shared::samples::{RunTag, StoredPoint, codec};
use std::collections::HashSet;

/// What counts for nothing in a project's history.
#[derive(Debug, Default)]
pub(super) struct Excluded {
    runs: HashSet<RunTag>,
    /// Workers, as points name them: a namesake in the same run, one of 65,536, is left out with it.
    workers: HashSet<(RunTag, u16)>,
}

impl Excluded {
    /// Of runs that ended, and of workers that were set aside, since `since`.
    pub(super) async fn of(db: &Db, project: &str, since: UnixMicros) -> Result<Self, DbError> {
        let runs = db.incidents(project, since).await?.into_iter().map(codec::run_tag).collect();
        let aside = db.set_aside_of(project, since).await?;
        let workers =
            aside.iter().map(|row| (codec::run_tag(row.sweep.0), worker_hash(&row.worker))).collect();
        Ok(Self { runs, workers })
    }

    /// Whether the point counts.
    pub(super) fn counts(&self, stored: &StoredPoint) -> bool {
        stored.run.is_none_or(|run| {
            !self.runs.contains(&run) && !self.workers.contains(&(run, stored.point.worker))
        })
    }
}
