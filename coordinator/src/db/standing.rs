//! How the farm stands, in numbers: for metrics and for those who look at it.

use super::{Db, DbError, read};
use flakefarm_shared::{Class, UnixMicros};

/// Jobs of running sweeps, of one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Not on the queue yet.
    pub pending: u64,
    /// On the queue.
    pub queued: u64,
    /// In a worker's hand.
    pub leased: u64,
    /// Attempts that all of these have between them.
    pub attempts: u64,
    /// Since when the first of those on the queue waits.
    pub waiting_since: Option<UnixMicros>,
}

/// Who runs the loops that a lease is for.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct LeaseRow {
    /// Which loops.
    pub name: String,
    /// The coordinator, by a name that it chose at its start.
    pub holder: String,
}

/// What a control last said of the farm.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct TrustRow {
    /// The project of the schedule that it ran beside.
    pub project: String,
    /// That schedule.
    pub schedule: String,
    /// When it was fired.
    pub due: UnixMicros,
    /// A [`crate::report::model::Trust`] as JSON.
    pub trust: String,
}

type RawBacklog = (String, i64, i64, Option<i64>);

impl Db {
    /// Jobs that are not settled, by class.
    pub async fn backlog(&self, class: Class) -> Result<Backlog, DbError> {
        // Each by its own index, from the few sweeps that run.
        let query = "SELECT 'pending', COUNT(*), CAST(COALESCE(SUM(jobs.attempts), 0) AS BIGINT), CAST(NULL AS BIGINT)
                     FROM sweeps JOIN jobs ON jobs.sweep = sweeps.id
                     WHERE sweeps.state = 'running' AND jobs.state = 'pending' AND jobs.class = $1
                     UNION ALL
                     SELECT 'queued', COUNT(*), CAST(COALESCE(SUM(jobs.attempts), 0) AS BIGINT), MIN(jobs.queued_at)
                     FROM sweeps JOIN jobs ON jobs.sweep = sweeps.id
                     WHERE sweeps.state = 'running' AND jobs.state = 'queued' AND jobs.class = $1
                           AND jobs.worker IS NULL
                     UNION ALL
                     SELECT 'leased', COUNT(*), CAST(COALESCE(SUM(jobs.attempts), 0) AS BIGINT), CAST(NULL AS BIGINT)
                     FROM sweeps JOIN jobs ON jobs.sweep = sweeps.id
                     WHERE sweeps.state = 'running' AND jobs.state = 'queued' AND jobs.class = $1
                           AND jobs.worker IS NOT NULL";
        let rows: Vec<RawBacklog> =
            read!(self, "count what waits", fetch_all, sqlx::query_as(query).bind(class.word()))?;
        let mut backlog = Backlog::default();
        for (state, jobs, attempts, since) in rows {
            backlog.attempts += attempts.unsigned_abs();
            match state.as_str() {
                "pending" => backlog.pending = jobs.unsigned_abs(),
                "queued" => (backlog.queued, backlog.waiting_since) = (jobs.unsigned_abs(), since),
                _ => backlog.leased = jobs.unsigned_abs(),
            }
        }
        Ok(backlog)
    }

    /// Sweeps that run, and that were interrupted.
    pub async fn count_open_sweeps(&self) -> Result<(u64, u64), DbError> {
        let query = "SELECT (SELECT COUNT(*) FROM sweeps WHERE state = 'running'),
                            (SELECT COUNT(*) FROM sweeps WHERE state = 'interrupted')";
        let (running, interrupted): (i64, i64) =
            read!(self, "count sweeps", fetch_one, sqlx::query_as(query))?;
        Ok((running.unsigned_abs(), interrupted.unsigned_abs()))
    }

    /// Dead jobs that were not discarded, and messages that nobody can read.
    pub async fn count_dead(&self) -> Result<(u64, u64), DbError> {
        let query = "SELECT (SELECT COUNT(*) FROM jobs WHERE ending = 'dead' AND discarded_at IS NULL),
                            (SELECT COUNT(*) FROM parked)";
        let (dead, parked): (i64, i64) = read!(self, "count dead jobs", fetch_one, sqlx::query_as(query))?;
        Ok((dead.unsigned_abs(), parked.unsigned_abs()))
    }

    /// Who runs which loops, by the loops' names.
    pub async fn leases(&self) -> Result<Vec<LeaseRow>, DbError> {
        let query = "SELECT name, holder FROM leases ORDER BY name";
        read!(self, "read leases", fetch_all, sqlx::query_as(query))
    }

    /// What controls said of the farm, the latest first.
    pub async fn latest_trust(&self, limit: u32) -> Result<Vec<TrustRow>, DbError> {
        let query = "SELECT schedules.project, schedules.name AS schedule, firings.due, firings.trust
                     FROM firings JOIN schedules ON schedules.id = firings.schedule
                     WHERE firings.trust IS NOT NULL ORDER BY firings.due DESC, firings.sweep LIMIT $1";
        read!(self, "read who trusts the farm", fetch_all, sqlx::query_as(query).bind(i64::from(limit)))
    }

    /// The newest step of the schema that was taken, and the newest that this program knows.
    pub async fn schema(&self) -> Result<(i64, i64), DbError> {
        let query = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations";
        let taken: i64 = read!(self, "read the schema's version", fetch_one, sqlx::query_scalar(query))?;
        Ok((taken, super::migrations::newest()))
    }
}
