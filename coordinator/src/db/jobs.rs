//! Jobs: pending, queued, settled. A settled job never changes, but for a dead one that an operator
//! revives. Only jobs of running sweeps are handed out.

use super::raw::{RawJob, clean, json};
use super::rows::{JobRow, JobStanding, JobState, NewJob, Settled, Settlement};
use super::{Db, DbError, change, postgres, read};
use flakefarm_shared::{Class, JobId, SweepId, UnixMicros};
use uuid::Uuid;

/// Jobs that are read by their ids together.
const JOBS_PER_QUERY: usize = 500;

impl Db {
    /// Records jobs of a sweep, pending; gives how many were new. A job that is there already stays
    /// as it is.
    pub async fn insert_jobs(
        &self,
        sweep: SweepId,
        jobs: &[NewJob],
        now: UnixMicros,
    ) -> Result<u64, DbError> {
        if jobs.is_empty() {
            return Ok(0);
        }
        // In the order of ids, which is the order of locks; the given order is kept as ordinals.
        let mut order: Vec<(i64, &NewJob)> = (0..).zip(jobs).collect();
        order.sort_by_key(|(ordinal, job)| (job.id, *ordinal));
        let (ordinals, jobs): (Vec<i64>, Vec<&NewJob>) = order.into_iter().unzip();
        match self {
            Db::Sqlite(store) => store.insert_jobs(sweep, &jobs, &ordinals, now).await,
            Db::Postgres(store) => postgres::in_time(store.insert_jobs(sweep, &jobs, &ordinals, now)).await,
        }
        .map_err(|source| DbError::of_sweep("record jobs", sweep, source))
    }

    /// A job by its id.
    pub async fn job(&self, job: JobId) -> Result<Option<JobRow>, DbError> {
        let query = "SELECT * FROM jobs WHERE id = $1";
        let row: Option<RawJob> =
            read!(self, "read a job", fetch_optional, sqlx::query_as(query).bind(job.0))?;
        row.map(JobRow::try_from).transpose()
    }

    /// How the jobs of a sweep stand, in the order they were planned.
    pub async fn job_standings(&self, sweep: SweepId) -> Result<Vec<JobStanding>, DbError> {
        let query = "SELECT id, job_key, state FROM jobs WHERE sweep = $1 ORDER BY created_at, ordinal, id";
        let rows: Vec<(Uuid, String, String)> =
            read!(self, "read how jobs stand", fetch_all, sqlx::query_as(query).bind(sweep.0))?;
        let standing = |(id, key, state)| JobStanding { id: JobId(id), key, settled: state == "settled" };
        Ok(rows.into_iter().map(standing).collect())
    }

    /// These jobs, in no order. Those that are not there are left out.
    pub async fn jobs_by_id(&self, jobs: &[JobId]) -> Result<Vec<JobRow>, DbError> {
        let mut found = Vec::with_capacity(jobs.len());
        for jobs in jobs.chunks(JOBS_PER_QUERY) {
            let rows = match self {
                Db::Sqlite(store) => store.jobs_by_id(jobs).await,
                Db::Postgres(store) => postgres::in_time(store.jobs_by_id(jobs)).await,
            };
            found.extend(rows.map_err(|source| DbError::from_driver("read jobs", source))?);
        }
        found.into_iter().map(JobRow::try_from).collect()
    }

    /// All jobs of a sweep, in the order they were planned.
    pub async fn jobs(&self, sweep: SweepId) -> Result<Vec<JobRow>, DbError> {
        let query = "SELECT * FROM jobs WHERE sweep = $1 ORDER BY created_at, ordinal, id";
        let rows: Vec<RawJob> = read!(self, "read jobs", fetch_all, sqlx::query_as(query).bind(sweep.0))?;
        rows.into_iter().map(JobRow::try_from).collect()
    }

    /// Records that jobs were published, each for the given time. Late news of an earlier publication,
    /// or of a settled job, changes nothing.
    pub async fn mark_queued(&self, published: &[(JobId, u32)], now: UnixMicros) -> Result<(), DbError> {
        if published.is_empty() {
            return Ok(());
        }
        // In the order of ids, which is the order of locks.
        let mut published = published.to_vec();
        published.sort();
        match self {
            Db::Sqlite(store) => store.mark_queued(&published, now).await,
            Db::Postgres(store) => postgres::in_time(store.mark_queued(&published, now)).await,
        }
        .map_err(|source| DbError::from_driver("mark jobs queued", source))
    }

    /// How many jobs of a class are queued, of running sweeps.
    pub async fn count_queued(&self, class: Class) -> Result<u64, DbError> {
        let query = "SELECT COUNT(*) FROM jobs JOIN sweeps ON sweeps.id = jobs.sweep
                     WHERE jobs.state = 'queued' AND jobs.class = $1 AND sweeps.state = 'running'";
        let count: i64 =
            read!(self, "count queued jobs", fetch_one, sqlx::query_scalar(query).bind(class.word()))?;
        Ok(count.unsigned_abs())
    }

    /// How many jobs of a sweep are not settled.
    pub async fn count_unsettled(&self, sweep: SweepId) -> Result<u64, DbError> {
        let query = "SELECT COUNT(*) FROM jobs WHERE sweep = $1 AND state <> 'settled'";
        let count: i64 = read!(self, "count open jobs", fetch_one, sqlx::query_scalar(query).bind(sweep.0))?;
        Ok(count.unsigned_abs())
    }

    /// Attempts of a sweep's jobs that have ended.
    pub async fn ended_attempts(&self, sweep: SweepId) -> Result<u64, DbError> {
        let query = "SELECT CAST(COALESCE(SUM(attempts), 0) AS BIGINT) FROM jobs
                     WHERE sweep = $1 AND state = 'settled'";
        let attempts: i64 = read!(
            self,
            "read how much of a sweep has ended",
            fetch_one,
            sqlx::query_scalar(query).bind(sweep.0)
        )?;
        Ok(attempts.unsigned_abs())
    }

    /// Takes a queued job back to be published again, in whatever publication it is, not before
    /// `available_at`. With an `error` it counts as an infrastructure failure; without one nobody is to
    /// blame (a resumed sweep). A job that is not queued stays as it is.
    pub async fn requeue_job(
        &self,
        job: JobId,
        available_at: UnixMicros,
        error: Option<String>,
    ) -> Result<(), DbError> {
        let failures = i64::from(error.is_some());
        let query = "UPDATE jobs SET state = 'pending', available_at = $2, infra_failures = infra_failures + $3,
                         last_error = COALESCE($4, last_error), queued_at = NULL, last_news = NULL, worker = NULL, begun_at = NULL
                     WHERE id = $1 AND state = 'queued'";
        change!(
            self,
            "requeue a job",
            sqlx::query(query)
                .bind(job.0)
                .bind(available_at)
                .bind(failures)
                .bind(error.as_deref().map(clean))
        )?;
        Ok(())
    }

    /// Ends a job. The first settlement wins, whatever comes later.
    pub async fn settle_job(
        &self,
        job: JobId,
        settlement: &Settlement,
        now: UnixMicros,
    ) -> Result<Settled, DbError> {
        let query = "UPDATE jobs SET state = 'settled', ending = $2, settlement = $3, settled_at = $4
                     WHERE id = $1 AND state <> 'settled'";
        let changed = change!(
            self,
            "settle a job",
            sqlx::query(query).bind(job.0).bind(settlement.word()).bind(json(settlement)).bind(now)
        )?;
        match changed {
            0 if self.job(job).await?.is_none() => Ok(Settled::Unknown),
            0 => Ok(Settled::Already),
            _ => Ok(Settled::First),
        }
    }

    /// Ends jobs, as [`Db::settle_job`] does; unknown ones are nobody's.
    pub async fn settle_jobs(
        &self,
        settlements: &[(JobId, Settlement)],
        now: UnixMicros,
    ) -> Result<(), DbError> {
        if settlements.is_empty() {
            return Ok(());
        }
        // The first of two ends of one job wins here, too; then in the order of ids.
        let mut ends: Vec<(JobId, &str, String)> = Vec::with_capacity(settlements.len());
        for (job, settlement) in settlements {
            if !ends.iter().any(|(known, _, _)| known == job) {
                ends.push((*job, settlement.word(), json(settlement)));
            }
        }
        ends.sort();
        match self {
            Db::Sqlite(store) => store.settle_jobs(&ends, now).await,
            Db::Postgres(store) => postgres::in_time(store.settle_jobs(&ends, now)).await,
        }
        .map_err(|source| DbError::from_driver("settle jobs", source))
    }

    /// Settles all jobs of a sweep that are not settled: as done with what was made of them, else as
    /// cancelled; gives how many.
    pub async fn cancel_jobs(&self, sweep: SweepId, now: UnixMicros) -> Result<u64, DbError> {
        let done = self.settle_what_was_made(sweep, now).await?;
        let settlement = json(&Settlement::Cancelled);
        match self {
            Db::Sqlite(store) => sqlx::query(
                "UPDATE jobs SET state = 'settled', ending = 'cancelled', settlement = $2, settled_at = $3
                 WHERE sweep = $1 AND state <> 'settled'",
            )
            .bind(sweep.0)
            .bind(settlement)
            .bind(now)
            .execute(&store.writer)
            .await
            .map(|done| done.rows_affected()),
            Db::Postgres(store) => postgres::in_time(store.cancel_jobs(sweep, &settlement, now)).await,
        }
        .map_err(|source| DbError::from_driver("cancel jobs", source))
        .map(|cancelled| cancelled + done)
    }

    /// Settles the jobs of a sweep as cancelled that no worker has in hand; gives how many.
    pub async fn cancel_waiting_jobs(&self, sweep: SweepId, now: UnixMicros) -> Result<u64, DbError> {
        let query =
            "UPDATE jobs SET state = 'settled', ending = 'cancelled', settlement = $2, settled_at = $3
                     WHERE state <> 'settled' AND worker IS NULL AND id IN
                           (SELECT id FROM jobs WHERE sweep = $1 AND state <> 'settled' ORDER BY id)";
        let done = self.settle_what_was_made(sweep, now).await?;
        let settlement = json(&Settlement::Cancelled);
        let cancelled =
            change!(self, "cancel jobs", sqlx::query(query).bind(sweep.0).bind(&settlement).bind(now))?;
        Ok(cancelled + done)
    }

    /// Settles jobs of a sweep that no worker has and of which something was made, with that.
    async fn settle_what_was_made(&self, sweep: SweepId, now: UnixMicros) -> Result<u64, DbError> {
        let query = "SELECT id, made FROM jobs
                     WHERE sweep = $1 AND state <> 'settled' AND worker IS NULL AND made IS NOT NULL";
        let made: Vec<(Uuid, String)> =
            read!(self, "read what was made", fetch_all, sqlx::query_as(query).bind(sweep.0))?;
        let mut done = Vec::with_capacity(made.len());
        for (id, made) in made {
            let report = made.parse().map_err(|error| DbError::Damaged(format!("what was made: {error}")))?;
            done.push((JobId(id), Settlement::Done { report }));
        }
        self.settle_jobs(&done, now).await?;
        Ok(done.len() as u64)
    }

    /// Dead jobs that were not discarded, the latest first.
    pub async fn dead_jobs(&self, limit: u32) -> Result<Vec<JobRow>, DbError> {
        let query = "SELECT * FROM jobs WHERE ending = 'dead' AND discarded_at IS NULL
                     ORDER BY settled_at DESC, id LIMIT $1";
        let rows: Vec<RawJob> =
            read!(self, "read dead jobs", fetch_all, sqlx::query_as(query).bind(i64::from(limit)))?;
        rows.into_iter().map(JobRow::try_from).collect()
    }

    /// Makes a dead job pending again, its infrastructure failures forgotten. A conflict if it is
    /// not dead, was discarded, or its sweep has ended.
    pub async fn revive_job(&self, job: JobId, now: UnixMicros) -> Result<(), DbError> {
        let query =
            "UPDATE jobs SET state = 'pending', available_at = $2, infra_failures = 0, lost_leases = 0, queued_at = NULL,
                         last_news = NULL, worker = NULL, ending = NULL, settlement = NULL, settled_at = NULL
                     WHERE id = $1 AND ending = 'dead' AND discarded_at IS NULL
                       AND sweep IN (SELECT id FROM sweeps WHERE state IN ('running', 'interrupted'))";
        match change!(self, "revive a job", sqlx::query(query).bind(job.0).bind(now))? {
            0 => Err(self.why_not_dead(job, "its sweep has ended").await?),
            _ => Ok(()),
        }
    }

    /// Takes a dead job off the list; it stays dead. A conflict if it is not dead.
    pub async fn discard_job(&self, job: JobId, now: UnixMicros) -> Result<(), DbError> {
        let query =
            "UPDATE jobs SET discarded_at = COALESCE(discarded_at, $2) WHERE id = $1 AND ending = 'dead'";
        match change!(self, "discard a job", sqlx::query(query).bind(job.0).bind(now))? {
            0 => Err(self.why_not_dead(job, "it was revived just now").await?),
            _ => Ok(()),
        }
    }

    async fn why_not_dead(&self, job: JobId, otherwise: &str) -> Result<DbError, DbError> {
        Ok(match self.job(job).await?.map(|row| row.state) {
            None => DbError::NotFound(format!("job {job}")),
            Some(JobState::Settled { settlement: Settlement::Dead { .. }, .. }) => {
                DbError::Conflict(format!("dead job {job} stays as it is: it was discarded, or {otherwise}"))
            }
            Some(_) => DbError::Conflict(format!("job {job} is not dead")),
        })
    }
}
