//! Repairs that the farm carries out: recorded, begun, ended once, accepted once.

use super::raw::{clean, json};
use super::{Db, DbError, change, read};
use crate::repairs::{RepairEnd, RepairState};
use flakefarm_shared::{Digest, Refusal, SweepId, UnixMicros};
use uuid::Uuid;

/// A recorded repair.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct RepairRow {
    /// Its id.
    pub id: Uuid,
    /// Its project.
    pub project: String,
    /// The word of its state.
    pub state: String,
    /// `interactive` or `bulk`.
    pub class: String,
    /// What is asked: a [`crate::repairs::RepairRequest`] as JSON.
    pub request: String,
    /// Who asked, for people.
    pub source: String,
    /// When it was asked for.
    pub created_at: UnixMicros,
    /// When a coordinator first began with it.
    pub started_at: Option<UnixMicros>,
    /// When it ended.
    pub ended_at: Option<UnixMicros>,
    /// How often a coordinator has begun with it.
    pub tries: i64,
    /// What was found and proved: JSON of the schema `flakefarm.repair/v1`.
    pub told: Option<String>,
    /// What is proved, as `git diff` writes it.
    pub patch: Option<String>,
    /// The digest of the repaired tree.
    pub repaired: Option<String>,
    /// The tests that it mends: JSON.
    pub mended: Option<String>,
    /// Why it failed: JSON.
    pub refusal: Option<String>,
    /// The sweep of its further runs.
    pub probation: Option<Uuid>,
    /// When it was accepted.
    pub accepted_at: Option<UnixMicros>,
    /// When its further runs were over.
    pub concluded_at: Option<UnixMicros>,
}

impl RepairRow {
    /// Its state. A word of a newer program is an error.
    pub fn state(&self) -> Result<RepairState, DbError> {
        self.state
            .parse()
            .map_err(|()| DbError::Damaged(format!("repair {} is in the state `{}`", self.id, self.state)))
    }

    /// The tests that it mends.
    pub fn mended(&self) -> Vec<String> {
        self.mended.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// Why it failed.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal.as_deref().and_then(|text| serde_json::from_str(text).ok())
    }
}

impl Db {
    /// Records a repair; gives whether it was new.
    pub async fn create_repair(&self, row: &RepairRow) -> Result<bool, DbError> {
        let query = "INSERT INTO repairs (id, project, state, class, request, source, created_at, tries)
                     VALUES ($1, $2, 'queued', $3, $4, $5, $6, 0) ON CONFLICT (id) DO NOTHING";
        let added = change!(
            self,
            "record a repair",
            sqlx::query(query)
                .bind(row.id)
                .bind(clean(&row.project))
                .bind(clean(&row.class))
                .bind(clean(&row.request))
                .bind(clean(&row.source))
                .bind(row.created_at)
        )?;
        Ok(added > 0)
    }

    /// A repair by its id.
    pub async fn repair(&self, id: Uuid) -> Result<Option<RepairRow>, DbError> {
        let query = "SELECT * FROM repairs WHERE id = $1";
        read!(self, "read a repair", fetch_optional, sqlx::query_as(query).bind(id))
    }

    /// The newest repairs of the whole farm, or of one project, older than one of them, the newest first.
    pub async fn repairs_page(
        &self,
        project: Option<&str>,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<RepairRow>, DbError> {
        let (at, id) = match before {
            None => (UnixMicros::MAX, Uuid::max()),
            Some(before) => match self.repair(before).await? {
                Some(row) => (row.created_at, row.id),
                None => return Ok(Vec::new()),
            },
        };
        let query = "SELECT * FROM repairs WHERE (CAST($1 AS TEXT) IS NULL OR project = $1)
                         AND (created_at < $2 OR created_at = $2 AND id < $3)
                     ORDER BY created_at DESC, id DESC LIMIT $4";
        read!(
            self,
            "read repairs",
            fetch_all,
            sqlx::query_as(query).bind(project.map(clean)).bind(at).bind(id).bind(i64::from(limit))
        )
    }

    /// Repairs that something is to be done for: those that somebody waits for first, then the oldest.
    pub async fn open_repairs(&self) -> Result<Vec<RepairRow>, DbError> {
        let query = "SELECT * FROM repairs WHERE state IN ('queued', 'running', 'probation')
                     ORDER BY CASE WHEN class = 'interactive' THEN 0 ELSE 1 END, created_at, id";
        read!(self, "read open repairs", fetch_all, sqlx::query_as(query))
    }

    /// A coordinator begins with it, or begins anew; gives whether it is still to be done.
    pub async fn begin_repair(&self, id: Uuid, now: UnixMicros) -> Result<bool, DbError> {
        let query = "UPDATE repairs SET state = 'running', tries = tries + 1,
                         started_at = COALESCE(started_at, $2)
                     WHERE id = $1 AND state IN ('queued', 'running')";
        Ok(change!(self, "begin a repair", sqlx::query(query).bind(id).bind(now))? > 0)
    }

    /// It is left, and taken up again by whoever comes next: this try does not count.
    pub async fn leave_repair(&self, id: Uuid) -> Result<(), DbError> {
        let query =
            "UPDATE repairs SET state = 'queued', tries = tries - 1 WHERE id = $1 AND state = 'running'";
        change!(self, "leave a repair", sqlx::query(query).bind(id))?;
        Ok(())
    }

    /// Ends a repair that has not ended; gives whether it was this that ended it.
    pub async fn end_repair(&self, id: Uuid, end: &RepairEnd, now: UnixMicros) -> Result<bool, DbError> {
        let query = "UPDATE repairs SET state = $2, ended_at = $3, told = $4, patch = $5, repaired = $6,
                         mended = $7, refusal = $8
                     WHERE id = $1 AND state IN ('queued', 'running')";
        let done = change!(
            self,
            "end a repair",
            sqlx::query(query)
                .bind(id)
                .bind(end.state.word())
                .bind(now)
                .bind(end.told.as_deref().map(clean))
                .bind(end.patch.as_deref().map(clean))
                .bind(end.repaired.as_ref().map(Digest::as_str))
                .bind(json(&end.mended))
                .bind(end.refusal.as_ref().map(json))
        )?;
        Ok(done > 0)
    }

    /// What is proved is accepted, and runs on in `sweep`; gives whether it was this that accepted it.
    pub async fn accept_repair(&self, id: Uuid, sweep: SweepId, now: UnixMicros) -> Result<bool, DbError> {
        let query = "UPDATE repairs SET state = 'probation', probation = $2, accepted_at = $3
                     WHERE id = $1 AND state = 'proved'";
        Ok(change!(self, "accept a repair", sqlx::query(query).bind(id).bind(sweep.0).bind(now))? > 0)
    }

    /// Its further runs are over.
    pub async fn conclude_repair(
        &self,
        id: Uuid,
        state: RepairState,
        now: UnixMicros,
    ) -> Result<bool, DbError> {
        let query = "UPDATE repairs SET state = $2, concluded_at = $3 WHERE id = $1 AND state = 'probation'";
        let done =
            change!(self, "conclude a repair", sqlx::query(query).bind(id).bind(state.word()).bind(now))?;
        Ok(done > 0)
    }

    /// Repairs of a project that have not ended.
    pub async fn unfinished_repairs(&self, project: &str) -> Result<u64, DbError> {
        let query = "SELECT COUNT(*) FROM repairs WHERE project = $1 AND state IN ('queued', 'running')";
        let count: i64 =
            read!(self, "count repairs", fetch_one, sqlx::query_scalar(query).bind(clean(project)))?;
        Ok(count.unsigned_abs())
    }

    /// What repairs refer to that have not ended or ended after `since`, as texts with digests.
    pub async fn repairs_refer(&self, since: UnixMicros) -> Result<Vec<(String, Option<String>)>, DbError> {
        let query = "SELECT request, repaired FROM repairs
                     WHERE COALESCE(concluded_at, ended_at) IS NULL OR COALESCE(concluded_at, ended_at) >= $1
                         OR state = 'probation'";
        read!(self, "read what repairs refer to", fetch_all, sqlx::query_as(query).bind(since))
    }
}
