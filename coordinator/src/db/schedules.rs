//! Schedules: sweeps that begin by the clock.

use super::raw::clean;
use super::{Db, DbError, change, read};
use flakefarm_shared::UnixMicros;
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
    /// The git remote that its sources come from, as JSON; none: the last uploaded snapshot.
    pub source: Option<String>,
    /// What opens that.
    pub secret: Option<String>,
    /// Whether repairs are proposed for tests that its sweeps find newly flaky.
    pub proposes: bool,
}

impl Db {
    /// Records a schedule; one of the same project and name is replaced and keeps its id and history.
    pub async fn put_schedule(&self, schedule: &ScheduleRow) -> Result<(), DbError> {
        change!(
            self,
            "record a schedule",
            sqlx::query(
                "INSERT INTO schedules (id, project, name, cron, zone, submission, created_at, next_at,
                     source, secret, proposes)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                 ON CONFLICT (project, name) DO UPDATE SET cron = excluded.cron, zone = excluded.zone,
                     submission = excluded.submission, created_at = excluded.created_at,
                     next_at = excluded.next_at, paused_at = NULL, source = excluded.source,
                     secret = excluded.secret, proposes = excluded.proposes",
            )
            .bind(schedule.id)
            .bind(clean(&schedule.project))
            .bind(clean(&schedule.name))
            .bind(clean(&schedule.cron))
            .bind(clean(&schedule.zone))
            .bind(clean(&schedule.submission))
            .bind(schedule.created_at)
            .bind(schedule.next_at)
            .bind(schedule.source.as_deref().map(clean))
            .bind(schedule.secret.as_deref().map(clean))
            .bind(schedule.proposes)
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
        let query = "UPDATE firings SET state = 'failed', next_at = NULL, words = 'its schedule was removed'
                     WHERE schedule = $1 AND state = 'fetching'";
        change!(self, "end the firings of a schedule", sqlx::query(query).bind(schedule))?;
        Ok(())
    }
}
