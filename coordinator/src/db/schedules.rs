//! Schedules: sweeps that begin by the clock. A firing and its sweep are one transaction, so that
//! neither a crash nor a second coordinator makes two of one or none.

use super::raw::clean;
use super::rows::NewSweep;
use super::{Db, DbError, change, postgres, read};
use flakefarm_shared::{SweepId, UnixMicros};
use uuid::Uuid;

/// A recorded schedule.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ScheduleRow {
    /// Its id.
    pub id: Uuid,
    /// Its project.
    pub project: String,
    /// Its name, unique within the project.
    pub name: String,
    /// The cron expression.
    pub cron: String,
    /// The time zone that it is meant in.
    pub zone: String,
    /// What is asked at each firing: a [`crate::Submission`] as JSON.
    pub submission: String,
    /// When it was added.
    pub created_at: UnixMicros,
    /// When it fires next; none if never again, or as long as it is paused.
    pub next_at: Option<UnixMicros>,
    /// Since when it is paused.
    pub paused_at: Option<UnixMicros>,
    /// When it last fired.
    pub last_at: Option<UnixMicros>,
    /// The sweep of that firing.
    pub last_sweep: Option<Uuid>,
    /// When it last did not fire because the sweep before was still running.
    pub skipped_at: Option<UnixMicros>,
}

/// Whether a firing took place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fired {
    /// Its sweep is recorded.
    Yes,
    /// Somebody else took it, or the schedule was changed meanwhile.
    No,
}

const FIRE: &str = "UPDATE schedules SET next_at = $3, last_at = $4, last_sweep = $5
                    WHERE id = $1 AND next_at = $2 AND paused_at IS NULL";
const SWEEP: &str =
    "INSERT INTO sweeps (id, project, revision, question, context, class, seed, source, created_at, state)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'running') ON CONFLICT (id) DO NOTHING";

/// The new sweep's statement, with its values.
macro_rules! insert_sweep {
    ($transaction:expr, $sweep:expr) => {
        sqlx::query(SWEEP)
            .bind($sweep.id.0)
            .bind(clean(&$sweep.project))
            .bind($sweep.revision.as_deref().map(clean))
            .bind(clean(&$sweep.question))
            .bind($sweep.context.as_str())
            .bind($sweep.class.word())
            .bind($sweep.seed.cast_signed())
            .bind(clean(&$sweep.source))
            .bind($sweep.created_at)
            .execute(&mut *$transaction)
            .await
    };
}

impl Db {
    /// Records a schedule; one of the same project and name is replaced and keeps its id and history.
    pub async fn put_schedule(&self, schedule: &ScheduleRow) -> Result<(), DbError> {
        change!(
            self,
            "record a schedule",
            sqlx::query(
                "INSERT INTO schedules (id, project, name, cron, zone, submission, created_at, next_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                 ON CONFLICT (project, name) DO UPDATE SET cron = excluded.cron, zone = excluded.zone,
                     submission = excluded.submission, created_at = excluded.created_at,
                     next_at = excluded.next_at, paused_at = NULL",
            )
            .bind(schedule.id)
            .bind(clean(&schedule.project))
            .bind(clean(&schedule.name))
            .bind(clean(&schedule.cron))
            .bind(clean(&schedule.zone))
            .bind(clean(&schedule.submission))
            .bind(schedule.created_at)
            .bind(schedule.next_at)
        )?;
        Ok(())
    }

    /// All schedules, by project and name.
    pub async fn schedules(&self) -> Result<Vec<ScheduleRow>, DbError> {
        let query = "SELECT * FROM schedules";
        let mut rows: Vec<ScheduleRow> = read!(self, "read the schedules", fetch_all, sqlx::query_as(query))?;
        // Here, not in SQL: databases differ in how they sort text.
        rows.sort_by(|a, b| (&a.project, &a.name).cmp(&(&b.project, &b.name)));
        Ok(rows)
    }

    /// A schedule by its id.
    pub async fn schedule(&self, id: Uuid) -> Result<Option<ScheduleRow>, DbError> {
        let query = "SELECT * FROM schedules WHERE id = $1";
        read!(self, "read a schedule", fetch_optional, sqlx::query_as(query).bind(id))
    }

    /// Schedules that are to fire at `now` or were to before.
    pub async fn due_schedules(&self, now: UnixMicros) -> Result<Vec<ScheduleRow>, DbError> {
        let query = "SELECT * FROM schedules WHERE next_at <= $1 AND paused_at IS NULL ORDER BY next_at, id";
        read!(self, "read due schedules", fetch_all, sqlx::query_as(query).bind(now))
    }

    /// Fires a schedule that is due at `due`: records its sweep, and that it fires next at `next`.
    pub async fn fire_schedule(
        &self,
        schedule: Uuid,
        due: UnixMicros,
        next: Option<UnixMicros>,
        sweep: &NewSweep,
    ) -> Result<Fired, DbError> {
        let fired = match self {
            Db::Sqlite(store) => {
                async {
                    let mut transaction = store.begin().await?;
                    let fire = sqlx::query(FIRE).bind(schedule).bind(due).bind(next);
                    let fire = fire.bind(sweep.created_at).bind(sweep.id.0);
                    if fire.execute(&mut *transaction).await?.rows_affected() == 0 {
                        return Ok(Fired::No);
                    }
                    insert_sweep!(transaction, sweep)?;
                    transaction.commit().await?;
                    Ok(Fired::Yes)
                }
                .await
            }
            Db::Postgres(store) => {
                postgres::in_time(async {
                    let mut transaction = store.pool.begin().await?;
                    let fire = sqlx::query(FIRE).bind(schedule).bind(due).bind(next);
                    let fire = fire.bind(sweep.created_at).bind(sweep.id.0);
                    if fire.execute(&mut *transaction).await?.rows_affected() == 0 {
                        return Ok(Fired::No);
                    }
                    insert_sweep!(transaction, sweep)?;
                    transaction.commit().await?;
                    Ok(Fired::Yes)
                })
                .await
            }
        };
        fired.map_err(|source| DbError::from_driver("fire a schedule", source))
    }

    /// Lets a firing pass because the sweep before is still running.
    pub async fn skip_schedule(
        &self,
        schedule: Uuid,
        due: UnixMicros,
        next: Option<UnixMicros>,
        now: UnixMicros,
    ) -> Result<(), DbError> {
        let query = "UPDATE schedules SET next_at = $3, skipped_at = $4 WHERE id = $1 AND next_at = $2";
        change!(self, "skip a schedule", sqlx::query(query).bind(schedule).bind(due).bind(next).bind(now))?;
        Ok(())
    }

    /// Fires a schedule at another time than its own: now, say. Its rhythm stays as it is.
    pub async fn note_firing(&self, schedule: Uuid, sweep: SweepId, now: UnixMicros) -> Result<(), DbError> {
        let query = "UPDATE schedules SET last_at = $2, last_sweep = $3 WHERE id = $1";
        change!(self, "note a firing", sqlx::query(query).bind(schedule).bind(now).bind(sweep.0))?;
        Ok(())
    }

    /// Pauses a schedule, or lets it go on from `next`.
    pub async fn pause_schedule(
        &self,
        schedule: Uuid,
        paused_at: Option<UnixMicros>,
        next: Option<UnixMicros>,
    ) -> Result<(), DbError> {
        let query = "UPDATE schedules SET paused_at = $2, next_at = $3 WHERE id = $1";
        change!(self, "pause a schedule", sqlx::query(query).bind(schedule).bind(paused_at).bind(next))?;
        Ok(())
    }

    /// Removes a schedule; its sweeps stay.
    pub async fn remove_schedule(&self, schedule: Uuid) -> Result<(), DbError> {
        change!(
            self,
            "remove a schedule",
            sqlx::query("DELETE FROM schedules WHERE id = $1").bind(schedule)
        )?;
        Ok(())
    }
}
