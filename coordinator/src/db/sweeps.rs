//! Sweeps: recorded, found again, ended once.

use super::events::{NewEvent, in_order, insert_event};
use super::raw::{RawSweep, clean, json};
use super::rows::{NewSweep, Settled, SweepRow, SweepState};
use super::{Db, DbError, change, postgres, read};
use crate::events::Event;
use crate::repairs::OF_REPAIR;
use flakefarm_shared::{Digest, Refusal, SweepId, UnixMicros};
use uuid::Uuid;

impl Db {
    /// Records a sweep, running from now on. An id that is there already is a conflict.
    pub async fn create_sweep(&self, sweep: &NewSweep) -> Result<(), DbError> {
        change!(
            self,
            "record a sweep",
            sqlx::query(
                "INSERT INTO sweeps (id, project, revision, question, context, class, seed, source, created_at, state)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'running')",
            )
            .bind(sweep.id.0)
            .bind(clean(&sweep.project))
            .bind(sweep.revision.as_deref().map(clean))
            .bind(clean(&sweep.question))
            .bind(sweep.context.as_str())
            .bind(sweep.class.word())
            .bind(sweep.seed.cast_signed())
            .bind(clean(&sweep.source))
            .bind(sweep.created_at)
        )?;
        Ok(())
    }

    /// Records a sweep that ended elsewhere; whether it was new. One of the same id that is of another project,
    /// or that has not ended, is a conflict.
    pub async fn record_ended_sweep(&self, row: &SweepRow) -> Result<bool, DbError> {
        let query =
            "INSERT INTO sweeps (id, project, revision, question, context, class, seed, source, created_at, state,
                                 refusal, listing, report, finished_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT (id) DO NOTHING";
        let inserted = change!(
            self,
            "record a sweep",
            sqlx::query(query)
                .bind(row.id.0)
                .bind(clean(&row.project))
                .bind(row.revision.as_deref().map(clean))
                .bind(clean(&row.question))
                .bind(row.context.as_str())
                .bind(row.class.word())
                .bind(row.seed.cast_signed())
                .bind(clean(&row.source))
                .bind(row.created_at)
                .bind(row.state.word())
                .bind(row.state.refusal().map(json))
                .bind(row.listing.as_ref().map(Digest::as_str))
                .bind(row.report.as_ref().map(Digest::as_str))
                .bind(row.finished_at)
        )?;
        if inserted > 0 {
            return Ok(true);
        }
        match self.sweep(row.id).await? {
            Some(known) if known.project == clean(&row.project) && known.finished_at.is_some() => Ok(false),
            Some(_) => Err(DbError::Conflict(format!("sweep {} is there already, and is another", row.id))),
            None => Err(DbError::NotFound(format!("sweep {}", row.id))),
        }
    }

    /// A sweep by its id.
    pub async fn sweep(&self, sweep: SweepId) -> Result<Option<SweepRow>, DbError> {
        let query = "SELECT * FROM sweeps WHERE id = $1";
        let row: Option<RawSweep> =
            read!(self, "read a sweep", fetch_optional, sqlx::query_as(query).bind(sweep.0))?;
        row.map(SweepRow::try_from).transpose()
    }

    /// A project's newest sweep, whatever its state; those of repairs aside, whose trees are nobody's.
    pub async fn latest_sweep(&self, project: &str) -> Result<Option<SweepRow>, DbError> {
        let query = "SELECT * FROM sweeps WHERE project = $1 AND source NOT LIKE $2 || '%'
                     ORDER BY created_at DESC, id DESC LIMIT 1";
        let row: Option<RawSweep> = read!(
            self,
            "read a sweep",
            fetch_optional,
            sqlx::query_as(query).bind(clean(project)).bind(OF_REPAIR)
        )?;
        row.map(SweepRow::try_from).transpose()
    }

    /// The newest interrupted sweep of a source, for it to be resumed.
    pub async fn last_interrupted(&self, source: &str) -> Result<Option<SweepRow>, DbError> {
        let query = "SELECT * FROM sweeps WHERE source = $1 AND state = 'interrupted'
                     ORDER BY created_at DESC, id DESC LIMIT 1";
        let row: Option<RawSweep> =
            read!(self, "read a sweep", fetch_optional, sqlx::query_as(query).bind(clean(source)))?;
        row.map(SweepRow::try_from).transpose()
    }

    /// The newest sweeps, newest first.
    pub async fn sweeps(&self, limit: u32) -> Result<Vec<SweepRow>, DbError> {
        let query = "SELECT * FROM sweeps ORDER BY created_at DESC, id DESC LIMIT $1";
        let rows: Vec<RawSweep> =
            read!(self, "read the sweeps", fetch_all, sqlx::query_as(query).bind(i64::from(limit)))?;
        rows.into_iter().map(SweepRow::try_from).collect()
    }

    /// The running sweeps, oldest first.
    pub async fn unfinished_sweeps(&self) -> Result<Vec<SweepRow>, DbError> {
        let query = "SELECT * FROM sweeps WHERE state = 'running' ORDER BY created_at, id";
        let rows: Vec<RawSweep> = read!(self, "read the running sweeps", fetch_all, sqlx::query_as(query))?;
        rows.into_iter().map(SweepRow::try_from).collect()
    }

    /// The sweeps that something is to be done for, oldest first: those that run, and those that were
    /// cancelled and still owe a report.
    pub async fn sweeps_to_advance(&self) -> Result<Vec<SweepId>, DbError> {
        let query =
            "SELECT id FROM sweeps WHERE state = 'running' OR (state = 'cancelled' AND report IS NULL)
                     ORDER BY created_at, id";
        let ids: Vec<Uuid> = read!(self, "read the running sweeps", fetch_all, sqlx::query_scalar(query))?;
        Ok(ids.into_iter().map(SweepId).collect())
    }

    /// Ends in failure a cancelled sweep whose report cannot be made. `false` where the sweep is no cancelled
    /// one or has its report.
    pub async fn fail_cancelled(&self, sweep: SweepId, refusal: &Refusal) -> Result<bool, DbError> {
        let query = "UPDATE sweeps SET state = 'failed', refusal = $2
                     WHERE id = $1 AND state = 'cancelled' AND report IS NULL";
        let changed =
            change!(self, "fail a cancelled sweep", sqlx::query(query).bind(sweep.0).bind(json(refusal)))?;
        Ok(changed > 0)
    }

    /// Records the report of a cancelled sweep that has none yet.
    pub async fn set_report(&self, sweep: SweepId, report: &Digest) -> Result<(), DbError> {
        let query = "UPDATE sweeps SET report = $2 WHERE id = $1 AND state = 'cancelled' AND report IS NULL";
        change!(self, "record a report", sqlx::query(query).bind(sweep.0).bind(report.as_str()))?;
        Ok(())
    }

    /// Records which tests there are.
    pub async fn set_listing(&self, sweep: SweepId, listing: &Digest) -> Result<(), DbError> {
        let query = "UPDATE sweeps SET listing = $2 WHERE id = $1";
        let changed =
            change!(self, "record a listing", sqlx::query(query).bind(sweep.0).bind(listing.as_str()))?;
        if changed == 0 { Err(DbError::NotFound(format!("sweep {sweep}"))) } else { Ok(()) }
    }

    /// Ends a sweep in `state`, and records the event. A sweep that has ended keeps its first ending; an interrupted one
    /// may still end otherwise. Its jobs are left as they are.
    pub async fn finish_sweep(
        &self,
        sweep: SweepId,
        state: &SweepState,
        finished_at: UnixMicros,
        report: Option<&Digest>,
    ) -> Result<Settled, DbError> {
        let refusal = match state {
            SweepState::Running => {
                return Err(DbError::Conflict(format!("sweep {sweep} cannot end in the state running")));
            }
            SweepState::Failed(refusal) => Some(json(refusal)),
            SweepState::Answered | SweepState::Interrupted | SweepState::Cancelled => None,
        };
        const QUERY: &str = "UPDATE sweeps SET state = $2, refusal = $3, report = $4, finished_at = $5
                             WHERE id = $1 AND state IN ('running', 'interrupted')";
        const OF_SWEEP: &str = "SELECT project FROM sweeps WHERE id = $1";
        // A macro and not a closure: the statement is of another type for each database.
        macro_rules! update {
            ($transaction:expr) => {
                sqlx::query(QUERY)
                    .bind(sweep.0)
                    .bind(state.word())
                    .bind(refusal.clone())
                    .bind(report.map(Digest::as_str))
                    .bind(finished_at)
                    .execute(&mut *$transaction)
                    .await
            };
        }
        let ended = |project: Option<String>| NewEvent {
            // An interrupted sweep may end again.
            key: format!("sweep-finished/{sweep}/{finished_at}"),
            at: finished_at,
            project,
            sweep: Some(sweep),
            event: Event::Finished { sweep, state: state.word().to_owned() },
        };
        let changed = match self {
            Db::Sqlite(store) => {
                async {
                    let mut transaction = store.begin().await?;
                    let changed = update!(transaction)?.rows_affected();
                    if changed > 0 {
                        let project = sqlx::query_scalar(OF_SWEEP).bind(sweep.0);
                        let ended = ended(project.fetch_optional(&mut *transaction).await?);
                        insert_event!(transaction, ended)?;
                    }
                    transaction.commit().await?;
                    Ok(changed)
                }
                .await
            }
            Db::Postgres(store) => {
                postgres::in_time(async {
                    let mut transaction = store.begin().await?;
                    let changed = update!(transaction)?.rows_affected();
                    if changed > 0 {
                        let project = sqlx::query_scalar(OF_SWEEP).bind(sweep.0);
                        let ended = ended(project.fetch_optional(&mut *transaction).await?);
                        in_order(&mut transaction).await?;
                        insert_event!(transaction, ended)?;
                    }
                    transaction.commit().await?;
                    Ok(changed)
                })
                .await
            }
        }
        .map_err(|source| DbError::from_driver("end a sweep", source))?;
        match changed {
            0 if self.sweep(sweep).await?.is_none() => Ok(Settled::Unknown),
            0 => Ok(Settled::Already),
            _ => Ok(Settled::First),
        }
    }

    /// Takes an interrupted sweep up again. Of two callers one succeeds; a sweep in any other state
    /// is a conflict.
    pub async fn resume_sweep(&self, sweep: SweepId) -> Result<(), DbError> {
        let query = "UPDATE sweeps SET state = 'running', report = NULL, finished_at = NULL
                     WHERE id = $1 AND state = 'interrupted'";
        if change!(self, "resume a sweep", sqlx::query(query).bind(sweep.0))? > 0 {
            return Ok(());
        }
        match self.sweep(sweep).await? {
            None => Err(DbError::NotFound(format!("sweep {sweep}"))),
            Some(row) => {
                Err(DbError::Conflict(format!("sweep {sweep} cannot be resumed: it is {}", row.state.word())))
            }
        }
    }
}
