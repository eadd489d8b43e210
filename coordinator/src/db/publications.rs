//! The way of a job's publications: begun, queued, in a worker's hand, handed back, overdue, lost on
//! the way; and what was parked because nobody could read it.

use super::raw::{RawJob, RawParked, clean};
use super::rows::{JobRow, ParkedRow};
use super::{Db, DbError, change, postgres, read};
use flakefarm_shared::{Class, JobId, Payload, UnixMicros, WorkerId};
use std::time::Duration;
use uuid::Uuid;

/// Begun and not recorded for this long, in microseconds: whoever began it is gone.
const BEGUN_MICROS: i64 = 10_000_000;
/// The last that is told apart: a job comes back [`flakefarm_shared::queue::DELIVERY_LIMIT`] times and a few more.
const LAST_DELIVERY: u32 = 15;
/// Waiting jobs that are looked at together.
const WAITING_AT_ONCE: i64 = 1_000;

impl Db {
    /// Begins publications of pending jobs, each for the given time; gives those that are the caller's
    /// to send. Of several callers one gets each, and none gets what another has just begun.
    pub async fn begin_publications(
        &self,
        publications: &[(JobId, u32)],
        now: UnixMicros,
    ) -> Result<Vec<JobId>, DbError> {
        if publications.is_empty() {
            return Ok(Vec::new());
        }
        // In the order of ids, which is the order of locks.
        let mut publications = publications.to_vec();
        publications.sort();
        let given_up = now.saturating_sub(BEGUN_MICROS);
        let begun: Vec<Uuid> = match self {
            Db::Sqlite(store) => store.begin_publications(&publications, now, given_up).await,
            Db::Postgres(store) => {
                postgres::in_time(store.begin_publications(&publications, now, given_up)).await
            }
        }
        .map_err(|source| DbError::from_driver("begin publications", source))?;
        Ok(begun.into_iter().map(JobId).collect())
    }

    /// Publications that were begun and could not be sent may be begun again at once.
    pub async fn abandon_publications(&self, jobs: &[JobId]) -> Result<(), DbError> {
        for job in jobs {
            let query = "UPDATE jobs SET begun_at = NULL WHERE id = $1 AND state = 'pending'";
            change!(self, "abandon a publication", sqlx::query(query).bind(job.0))?;
        }
        Ok(())
    }

    /// A worker has these publications in hand, having come back `returns` times (0 where that is not told anew):
    /// their leases start, or start again. News of another publication than the one that is queued changes nothing.
    pub async fn touch_jobs(
        &self,
        jobs: &[(JobId, u32)],
        worker: &WorkerId,
        returns: u32,
        now: UnixMicros,
    ) -> Result<(), DbError> {
        if jobs.is_empty() {
            return Ok(());
        }
        let mut jobs = jobs.to_vec();
        jobs.sort();
        let taken = 1_i64 << returns.min(LAST_DELIVERY);
        match self {
            Db::Sqlite(store) => store.touch_jobs(&jobs, worker, taken, now).await,
            Db::Postgres(store) => postgres::in_time(store.touch_jobs(&jobs, worker, taken, now)).await,
        }
        .map_err(|source| DbError::from_driver("renew leases", source))
    }

    /// Jobs of running sweeps whose worker has not spoken of them for longer than `lease`, the most
    /// silent first. A job that waits for a worker has no lease.
    pub async fn overdue(&self, now: UnixMicros, lease: Duration) -> Result<Vec<JobRow>, DbError> {
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
        let query = "SELECT jobs.* FROM jobs JOIN sweeps ON sweeps.id = jobs.sweep
                     WHERE jobs.state = 'queued' AND jobs.worker IS NOT NULL AND jobs.last_news < $1
                       AND sweeps.state = 'running'
                     ORDER BY jobs.last_news, jobs.id";
        let rows: Vec<RawJob> = read!(
            self,
            "read overdue jobs",
            fetch_all,
            sqlx::query_as(query).bind(now.saturating_sub(lease))
        )?;
        rows.into_iter().map(JobRow::try_from).collect()
    }

    /// Takes back a publication whose worker has said nothing of it since `last_news`; it is counted as
    /// a lost lease. Later news, or another publication, and it stays. Gives whether it was taken back.
    pub async fn lose_lease(
        &self,
        job: JobId,
        publication: u32,
        last_news: UnixMicros,
        now: UnixMicros,
    ) -> Result<bool, DbError> {
        let query = "UPDATE jobs SET state = 'pending', available_at = $4, lost_leases = lost_leases + 1,
                         queued_at = NULL, last_news = NULL, worker = NULL, begun_at = NULL
                     WHERE id = $1 AND state = 'queued' AND publications = $2 AND last_news <= $3";
        let changed = change!(
            self,
            "take back an overdue job",
            sqlx::query(query).bind(job.0).bind(i64::from(publication)).bind(last_news).bind(now)
        )?;
        Ok(changed > 0)
    }

    /// Publications of running sweeps that have waited for a worker since before `before`.
    pub async fn waiting(&self, class: Class, before: UnixMicros) -> Result<Vec<(JobId, u32)>, DbError> {
        let query = "SELECT jobs.id, jobs.publications FROM jobs JOIN sweeps ON sweeps.id = jobs.sweep
                     WHERE jobs.state = 'queued' AND jobs.worker IS NULL AND jobs.class = $1
                       AND jobs.queued_at < $2 AND sweeps.state = 'running'
                     ORDER BY jobs.queued_at, jobs.id LIMIT $3";
        let rows: Vec<(Uuid, i64)> = read!(
            self,
            "read waiting jobs",
            fetch_all,
            sqlx::query_as(query).bind(class.word()).bind(before).bind(WAITING_AT_ONCE)
        )?;
        Ok(rows.into_iter().map(|(id, n)| (JobId(id), u32::try_from(n).unwrap_or(u32::MAX))).collect())
    }

    /// Takes back a publication. What was made of the job is kept; with an `error` it counts as an
    /// infrastructure failure. One that is not queued any more, or in another publication, stays as it
    /// is. Gives whether it was taken back.
    pub async fn take_back(
        &self,
        job: JobId,
        publication: u32,
        made: Option<&Payload>,
        error: Option<&str>,
        available_at: UnixMicros,
    ) -> Result<bool, DbError> {
        let query = "UPDATE jobs SET state = 'pending', available_at = $3, made = COALESCE($4, made),
                         infra_failures = infra_failures + $5, last_error = COALESCE($6, last_error),
                         queued_at = NULL, last_news = NULL, worker = NULL, begun_at = NULL
                     WHERE id = $1 AND state = 'queued' AND publications = $2";
        let changed = change!(
            self,
            "take back a job",
            sqlx::query(query)
                .bind(job.0)
                .bind(i64::from(publication))
                .bind(available_at)
                .bind(made.map(Payload::to_string))
                .bind(i64::from(error.is_some()))
                .bind(error.map(clean))
        )?;
        Ok(changed > 0)
    }

    /// Keeps a message that nobody can read. The same one again changes nothing.
    pub async fn park(&self, row: &ParkedRow) -> Result<(), DbError> {
        let query = "INSERT INTO parked (id, came_at, origin, reason, body) VALUES ($1, $2, $3, $4, $5)
                     ON CONFLICT (id) DO NOTHING";
        change!(
            self,
            "park a message",
            sqlx::query(query)
                .bind(row.id)
                .bind(row.came_at)
                .bind(row.origin.as_deref())
                .bind(clean(&row.reason))
                .bind(row.body.clone())
        )?;
        Ok(())
    }

    /// Parked messages, the latest first.
    pub async fn parked(&self, limit: u32) -> Result<Vec<ParkedRow>, DbError> {
        let query = "SELECT * FROM parked ORDER BY came_at DESC, id LIMIT $1";
        let rows: Vec<RawParked> =
            read!(self, "read parked messages", fetch_all, sqlx::query_as(query).bind(i64::from(limit)))?;
        Ok(rows.into_iter().map(ParkedRow::from).collect())
    }

    /// One parked message.
    pub async fn parked_message(&self, id: Uuid) -> Result<ParkedRow, DbError> {
        let query = "SELECT * FROM parked WHERE id = $1";
        let row: Option<RawParked> =
            read!(self, "read a parked message", fetch_optional, sqlx::query_as(query).bind(id))?;
        row.map(ParkedRow::from).ok_or_else(|| DbError::NotFound(format!("parked message {id}")))
    }

    /// Forgets a parked message.
    pub async fn discard_parked(&self, id: Uuid) -> Result<(), DbError> {
        match change!(
            self,
            "discard a parked message",
            sqlx::query("DELETE FROM parked WHERE id = $1").bind(id)
        )? {
            0 => Err(DbError::NotFound(format!("parked message {id}"))),
            _ => Ok(()),
        }
    }
}
