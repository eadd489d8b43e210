//! Workers whose attempts in a sweep do not count, and the jobs that are made anew for that.

use super::raw::clean;
use super::{Db, DbError, change, read};
use flakefarm_shared::{JobId, SweepId, UnixMicros, WorkerId};
use uuid::Uuid;

/// A worker whose attempts in a sweep do not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAsideRow {
    /// The sweep.
    pub sweep: SweepId,
    /// The worker.
    pub worker: WorkerId,
    /// Why, for people.
    pub why: String,
    /// Since when.
    pub at: UnixMicros,
}

impl Db {
    /// Sets a worker aside in a sweep of a project. One that is set aside there already keeps its reason.
    pub async fn set_aside(&self, project: &str, row: &SetAsideRow) -> Result<(), DbError> {
        let query = "INSERT INTO set_aside (sweep, worker, project, why, at) VALUES ($1, $2, $3, $4, $5)
                     ON CONFLICT (sweep, worker) DO NOTHING";
        change!(
            self,
            "set a worker aside",
            sqlx::query(query)
                .bind(row.sweep.0)
                .bind(clean(&row.worker.0))
                .bind(clean(project))
                .bind(clean(&row.why))
                .bind(row.at)
        )?;
        Ok(())
    }

    /// Workers set aside in a sweep, by name.
    pub async fn set_aside_in(&self, sweep: SweepId) -> Result<Vec<SetAsideRow>, DbError> {
        let query = "SELECT sweep, worker, why, at FROM set_aside WHERE sweep = $1";
        let rows: Vec<Raw> =
            read!(self, "read who is set aside", fetch_all, sqlx::query_as(query).bind(sweep.0))?;
        let mut rows: Vec<SetAsideRow> = rows.into_iter().map(row).collect();
        rows.sort_by(|a, b| a.worker.cmp(&b.worker));
        Ok(rows)
    }

    /// Workers set aside since `since`, in sweeps of whatever project.
    pub async fn set_aside_since(&self, since: UnixMicros) -> Result<Vec<SetAsideRow>, DbError> {
        let query = "SELECT sweep, worker, why, at FROM set_aside WHERE at >= $1";
        let rows: Vec<Raw> =
            read!(self, "read who is set aside", fetch_all, sqlx::query_as(query).bind(since))?;
        Ok(rows.into_iter().map(row).collect())
    }

    /// The same in sweeps of a project.
    pub async fn set_aside_of(&self, project: &str, since: UnixMicros) -> Result<Vec<SetAsideRow>, DbError> {
        let query = "SELECT sweep, worker, why, at FROM set_aside WHERE project = $1 AND at >= $2";
        let rows: Vec<Raw> = read!(
            self,
            "read who is set aside",
            fetch_all,
            sqlx::query_as(query).bind(clean(project)).bind(since)
        )?;
        Ok(rows.into_iter().map(row).collect())
    }

    /// Has jobs that ended, or are in `worker`'s hand, made anew from the start by somebody; what was made of
    /// them is forgotten. Not those that were made anew `most` times; gives how many are.
    pub async fn make_again(
        &self,
        jobs: &[JobId],
        worker: &WorkerId,
        most: u32,
        now: UnixMicros,
    ) -> Result<u64, DbError> {
        let query = "UPDATE jobs SET state = 'pending', available_at = $3, made = NULL, again = again + 1,
                         queued_at = NULL, last_news = NULL, worker = NULL, begun_at = NULL,
                         ending = NULL, settlement = NULL, settled_at = NULL
                     WHERE id = $1 AND again < $4
                       AND (state = 'settled' AND ending = 'done' OR state = 'queued' AND (worker = $2 OR worker IS NULL))
                       AND sweep IN (SELECT id FROM sweeps WHERE state = 'running')";
        let mut jobs = jobs.to_vec();
        // In the order of ids, which is the order of locks.
        jobs.sort();
        let mut changed = 0;
        for job in jobs {
            changed += change!(
                self,
                "make a job again",
                sqlx::query(query).bind(job.0).bind(clean(&worker.0)).bind(now).bind(i64::from(most))
            )?;
        }
        Ok(changed)
    }
}

type Raw = (Uuid, String, String, i64);

fn row((sweep, worker, why, at): Raw) -> SetAsideRow {
    SetAsideRow { sweep: SweepId(sweep), worker: WorkerId(worker), why, at }
}
