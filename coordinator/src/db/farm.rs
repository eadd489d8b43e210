//! Who works on the farm, and who may use it: workers and tokens.

use super::raw::{RawToken, RawWorker, clean, json};
use super::rows::{TokenRow, WorkerRow};
use super::{Db, DbError, change, read};
use flakefarm_shared::UnixMicros;

impl Db {
    /// Records how a worker describes itself. An older description than the recorded one is dropped.
    pub async fn upsert_worker(&self, worker: &WorkerRow) -> Result<(), DbError> {
        change!(
            self,
            "record a worker",
            sqlx::query(
                "INSERT INTO workers (id, version, slots, seen_at, draining, jobs, trouble)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT (id) DO UPDATE SET version = excluded.version, slots = excluded.slots,
                     seen_at = excluded.seen_at, draining = excluded.draining, jobs = excluded.jobs,
                     trouble = excluded.trouble
                 WHERE excluded.seen_at >= workers.seen_at",
            )
            .bind(clean(&worker.id.0))
            .bind(clean(&worker.version))
            .bind(i64::from(worker.slots))
            .bind(worker.seen_at)
            .bind(i64::from(worker.draining))
            .bind(i64::from(worker.jobs))
            .bind(worker.trouble.as_deref().map(clean))
        )?;
        Ok(())
    }

    /// All recorded workers by id, silent ones too.
    pub async fn workers(&self) -> Result<Vec<WorkerRow>, DbError> {
        let rows: Vec<RawWorker> =
            read!(self, "read the workers", fetch_all, sqlx::query_as("SELECT * FROM workers"))?;
        let mut workers = rows.into_iter().map(WorkerRow::try_from).collect::<Result<Vec<_>, _>>()?;
        // Here, not in SQL: databases differ in how they sort text.
        workers.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(workers)
    }

    /// Forgets workers last heard of before `before`; gives how many.
    pub async fn forget_workers(&self, before: UnixMicros) -> Result<u64, DbError> {
        change!(self, "forget workers", sqlx::query("DELETE FROM workers WHERE seen_at < $1").bind(before))
    }

    /// Records a token. An id that is there already is a conflict.
    pub async fn insert_token(&self, token: &TokenRow) -> Result<(), DbError> {
        change!(
            self,
            "record a token",
            sqlx::query(
                "INSERT INTO tokens (id, kind, hash, label, created_at, expires_at, revoked_at, last_used, scopes,
                                     projects)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            )
            .bind(clean(&token.id))
            .bind(&token.kind)
            .bind(&token.hash)
            .bind(clean(&token.label))
            .bind(token.created_at)
            .bind(token.expires_at)
            .bind(token.revoked_at)
            .bind(token.last_used)
            .bind(token.scopes.as_ref().map(json))
            .bind(token.projects.as_ref().map(json))
        )?;
        Ok(())
    }

    /// A token by its id, revoked and expired ones too.
    pub async fn token(&self, id: &str) -> Result<Option<TokenRow>, DbError> {
        let query = "SELECT * FROM tokens WHERE id = $1";
        let row: Option<RawToken> =
            read!(self, "read a token", fetch_optional, sqlx::query_as(query).bind(clean(id)))?;
        row.map(TokenRow::try_from).transpose()
    }

    /// All tokens, newest first.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, DbError> {
        let query = "SELECT * FROM tokens ORDER BY created_at DESC, id";
        let rows: Vec<RawToken> = read!(self, "read the tokens", fetch_all, sqlx::query_as(query))?;
        rows.into_iter().map(TokenRow::try_from).collect()
    }

    /// Ends a token. One that was revoked before keeps that time.
    pub async fn revoke_token(&self, id: &str, now: UnixMicros) -> Result<(), DbError> {
        let query = "UPDATE tokens SET revoked_at = COALESCE(revoked_at, $2) WHERE id = $1";
        match change!(self, "revoke a token", sqlx::query(query).bind(clean(id)).bind(now))? {
            0 => Err(DbError::NotFound(format!("token `{id}`"))),
            _ => Ok(()),
        }
    }

    /// Records that a token was used; an unknown one is nobody's concern here.
    pub async fn touch_token(&self, id: &str, now: UnixMicros) -> Result<(), DbError> {
        let query =
            "UPDATE tokens SET last_used = $2 WHERE id = $1 AND (last_used IS NULL OR last_used < $2)";
        change!(self, "record a token's use", sqlx::query(query).bind(clean(id)).bind(now))?;
        Ok(())
    }
}
