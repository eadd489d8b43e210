//! What rows refer to, and rows that are no longer kept.

use super::raw::clean;
use super::{Db, DbError, change, read};
use flakefarm_shared::{Digest, SweepId, UnixMicros};
use uuid::Uuid;

/// What a sweep's row refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepRefers {
    /// The sweep.
    pub id: SweepId,
    /// When it ended for good, with a report or without a chance of one; none: it runs or may go on.
    pub over_at: Option<UnixMicros>,
    /// What its columns hold, digests among it.
    pub texts: Vec<String>,
    /// Its final report, if it has one.
    pub report: Option<Digest>,
}

/// What a job's row refers to, as text: payloads, or JSON that holds one.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct JobRefers {
    /// The job.
    pub id: Uuid,
    /// What it is to do.
    pub spec: String,
    /// What became of it.
    pub settlement: Option<String>,
    /// What was made of it so far.
    pub made: Option<String>,
}

#[derive(sqlx::FromRow)]
struct RawRefers {
    id: Uuid,
    state: String,
    question: String,
    context: String,
    listing: Option<String>,
    report: Option<String>,
    finished_at: Option<i64>,
}

/// The condition for a sweep that is over for good, and so long ago.
const OVER: &str = "sweeps.finished_at < $1 AND (sweeps.state = 'failed'
                    OR sweeps.state IN ('answered', 'cancelled') AND sweeps.report IS NOT NULL)";

impl Db {
    /// What sweeps refer to, by id, after one, so many.
    pub async fn sweeps_refer(
        &self,
        after: Option<SweepId>,
        limit: u32,
    ) -> Result<Vec<SweepRefers>, DbError> {
        let query = "SELECT id, state, question, context, listing, report, finished_at FROM sweeps
                     WHERE id > $1 ORDER BY id LIMIT $2";
        let after = after.map_or(Uuid::nil(), |sweep| sweep.0);
        let rows: Vec<RawRefers> = read!(
            self,
            "read what sweeps refer to",
            fetch_all,
            sqlx::query_as(query).bind(after).bind(i64::from(limit))
        )?;
        let row = |raw: RawRefers| {
            let report: Option<Digest> = raw.report.and_then(|digest| digest.parse().ok());
            let is_over = match raw.state.as_str() {
                "failed" => true,
                "answered" | "cancelled" => report.is_some(),
                _ => false,
            };
            let mut texts = vec![raw.question, raw.context];
            texts.extend(raw.listing);
            SweepRefers { id: SweepId(raw.id), over_at: raw.finished_at.filter(|_| is_over), texts, report }
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// What jobs of a sweep refer to, by id, after one, so many.
    pub async fn jobs_refer(
        &self,
        sweep: SweepId,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<JobRefers>, DbError> {
        let query = "SELECT id, spec, settlement, made FROM jobs
                     WHERE sweep = $1 AND id > $2 ORDER BY id LIMIT $3";
        read!(
            self,
            "read what jobs refer to",
            fetch_all,
            sqlx::query_as(query).bind(sweep.0).bind(after.unwrap_or(Uuid::nil())).bind(i64::from(limit))
        )
    }

    /// The bodies of messages that were put aside.
    pub async fn parked_bodies(&self) -> Result<Vec<Vec<u8>>, DbError> {
        read!(
            self,
            "read parked messages",
            fetch_all,
            sqlx::query_scalar("SELECT body FROM parked ORDER BY came_at LIMIT 10000")
        )
    }

    /// Jobs of sweeps that were over before `before`.
    pub async fn count_old_jobs(&self, before: UnixMicros) -> Result<u64, DbError> {
        let query = format!("SELECT COUNT(*) FROM jobs JOIN sweeps ON sweeps.id = jobs.sweep WHERE {OVER}");
        let count: i64 = read!(
            self,
            "count old jobs",
            fetch_one,
            sqlx::query_scalar(sqlx::AssertSqlSafe(query.clone())).bind(before)
        )?;
        Ok(count.unsigned_abs())
    }

    /// Deletes jobs of sweeps that were over before `before`; their reports stay. Gives how many.
    pub async fn delete_old_jobs(&self, before: UnixMicros) -> Result<u64, DbError> {
        let query = format!(
            "SELECT sweeps.id FROM sweeps WHERE {OVER}
             AND EXISTS (SELECT 1 FROM jobs WHERE jobs.sweep = sweeps.id) ORDER BY sweeps.id"
        );
        let sweeps: Vec<Uuid> = read!(
            self,
            "read old sweeps",
            fetch_all,
            sqlx::query_scalar(sqlx::AssertSqlSafe(query.clone())).bind(before)
        )?;
        let mut deleted = 0;
        // A sweep at a time: a large one has as many rows as nobody else should wait for.
        for sweep in sweeps {
            let query = "DELETE FROM jobs WHERE sweep = $1";
            deleted += change!(self, "delete old jobs", sqlx::query(query).bind(sweep))?;
        }
        Ok(deleted)
    }

    /// Failures, flips, uploads, repairs and CI runs from before `before`, all together.
    pub async fn count_old_evidence(&self, before: UnixMicros) -> Result<u64, DbError> {
        let mut count = 0;
        for query in [
            "SELECT COUNT(*) FROM failures WHERE at < $1",
            "SELECT COUNT(*) FROM flips WHERE at < $1",
            "SELECT COUNT(*) FROM repair_outcomes WHERE at < $1",
            "SELECT COUNT(*) FROM repairs WHERE ended_at < $1 AND state <> 'probation'",
            "SELECT COUNT(*) FROM runs WHERE origin = 'ci' AND COALESCE(finished_at, started_at) < $1",
        ] {
            let found: i64 =
                read!(self, "count old evidence", fetch_one, sqlx::query_scalar(query).bind(before))?;
            count += found.unsigned_abs();
        }
        Ok(count)
    }

    /// Deletes failures, flips, uploads, repairs, their outcomes and CI runs from before `before`; gives how many rows. Runs of this farm
    /// stay, as their verdicts do.
    pub async fn delete_old_evidence(&self, before: UnixMicros) -> Result<u64, DbError> {
        const OLD: &str =
            "(SELECT id FROM runs WHERE origin = 'ci' AND COALESCE(finished_at, started_at) < $1)";
        let mut deleted = 0;
        for query in [
            "DELETE FROM failures WHERE at < $1".to_owned(),
            "DELETE FROM flips WHERE at < $1".to_owned(),
            "DELETE FROM repair_outcomes WHERE at < $1".to_owned(),
            "DELETE FROM repairs WHERE ended_at < $1 AND state <> 'probation'".to_owned(),
            format!("DELETE FROM failures WHERE run IN {OLD}"),
            format!("DELETE FROM flips WHERE run IN {OLD}"),
            format!("DELETE FROM uploads WHERE run IN {OLD}"),
            format!("DELETE FROM runs WHERE id IN {OLD}"),
        ] {
            let statement = || sqlx::AssertSqlSafe(query.clone());
            deleted += change!(self, "delete old evidence", sqlx::query(statement()).bind(before))?;
        }
        Ok(deleted)
    }

    /// Leaves a blob alone until `until`: somebody is about to refer to it.
    pub async fn lease_blob(&self, digest: &Digest, until: UnixMicros) -> Result<(), DbError> {
        change!(
            self,
            "lease a blob",
            sqlx::query(
                "INSERT INTO blob_leases (digest, until) VALUES ($1, $2) ON CONFLICT (digest) DO UPDATE
                 SET until = CASE WHEN blob_leases.until > excluded.until THEN blob_leases.until
                                  ELSE excluded.until END",
            )
            .bind(digest.as_str())
            .bind(until)
        )?;
        Ok(())
    }

    /// Whether somebody is about to refer to a blob.
    pub async fn is_leased(&self, digest: &Digest, now: UnixMicros) -> Result<bool, DbError> {
        let query = "SELECT COUNT(*) FROM blob_leases WHERE digest = $1 AND until > $2";
        let count: i64 = read!(
            self,
            "read a lease",
            fetch_one,
            sqlx::query_scalar(query).bind(digest.as_str()).bind(now)
        )?;
        Ok(count > 0)
    }

    /// Forgets leases that have run out.
    pub async fn drop_blob_leases(&self, now: UnixMicros) -> Result<(), DbError> {
        let query = "DELETE FROM blob_leases WHERE until <= $1";
        change!(self, "drop leases", sqlx::query(query).bind(now))?;
        Ok(())
    }

    /// Forgets who may read a blob that is gone.
    pub async fn forget_blob(&self, digest: &Digest) -> Result<(), DbError> {
        let query = "DELETE FROM project_blobs WHERE digest = $1";
        change!(self, "forget a blob", sqlx::query(query).bind(clean(digest.as_str())))?;
        Ok(())
    }
}
