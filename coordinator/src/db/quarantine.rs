//! Quarantine: entries, what was done to them, and rules. An entry and its line in the log are one
//! transaction.

use super::raw::{clean, json, subject};
use super::{Db, DbError, change, postgres, read};
use crate::quarantine::rule::Rule;
use crate::quarantine::{Done, Entry, Origin};
use flakefarm_shared::{SweepId, UnixMicros};
use uuid::Uuid;

#[derive(sqlx::FromRow)]
struct RawEntry {
    project: String,
    test: String,
    signature: Option<String>,
    reason: String,
    owner: Option<String>,
    ticket: Option<String>,
    expires: String,
    added_at: i64,
    added_by: String,
    origin: String,
    runs: i64,
    failures: i64,
    measured_by: Option<Uuid>,
    measured_at: Option<i64>,
}

impl From<RawEntry> for (String, Entry) {
    fn from(raw: RawEntry) -> Self {
        let entry = Entry {
            test: raw.test,
            signature: raw.signature,
            reason: raw.reason,
            owner: raw.owner,
            ticket: raw.ticket,
            expires: raw.expires,
            added_at: raw.added_at,
            added_by: raw.added_by,
            origin: Origin::of_word(&raw.origin),
            runs: raw.runs.unsigned_abs(),
            failures: raw.failures.unsigned_abs(),
            measured_by: raw.measured_by.map(SweepId),
            measured_at: raw.measured_at,
        };
        (raw.project, entry)
    }
}

#[derive(sqlx::FromRow)]
struct RawDone {
    at: i64,
    test: String,
    signature: Option<String>,
    action: String,
    who: String,
    why: String,
}

/// Who does something, when and why.
#[derive(Debug, Clone, Copy)]
pub struct Deed<'a> {
    /// When.
    pub at: UnixMicros,
    /// Who.
    pub who: &'a str,
    /// Why.
    pub why: &'a str,
}

fn key(project: &str, test: &str, signature: Option<&str>) -> Vec<u8> {
    subject(project, &format!("{}\n{test}", signature.unwrap_or_default()))
}

/// What is done to an entry, and its line in the log; on an open transaction of either database.
macro_rules! log {
    ($transaction:expr, $project:expr, $test:expr, $signature:expr, $action:expr, $deed:expr) => {
        sqlx::query(
            "INSERT INTO quarantine_log (at, project, test, signature, action, who, why)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind($deed.at)
        .bind(clean($project))
        .bind(clean($test))
        .bind($signature.map(clean))
        .bind($action)
        .bind(clean($deed.who))
        .bind(clean($deed.why))
        .execute(&mut *$transaction)
        .await
    };
}

macro_rules! put {
    ($transaction:expr, $project:expr, $entry:expr, $deed:expr) => {{
        let (entry, key) = ($entry, key($project, &$entry.test, $entry.signature.as_deref()));
        let known: Option<i64> = sqlx::query_scalar("SELECT added_at FROM quarantine WHERE subject = $1")
            .bind(&key)
            .fetch_optional(&mut *$transaction)
            .await?;
        sqlx::query(
            "INSERT INTO quarantine (subject, project, test, signature, reason, owner, ticket, expires,
                 added_at, added_by, origin) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             ON CONFLICT (subject) DO UPDATE SET reason = excluded.reason, owner = excluded.owner,
                 ticket = excluded.ticket, expires = excluded.expires, origin = excluded.origin",
        )
        .bind(&key)
        .bind(clean($project))
        .bind(clean(&entry.test))
        .bind(entry.signature.as_deref().map(clean))
        .bind(clean(&entry.reason))
        .bind(entry.owner.as_deref().map(clean))
        .bind(entry.ticket.as_deref().map(clean))
        .bind(clean(&entry.expires))
        .bind($deed.at)
        .bind(clean($deed.who))
        .bind(entry.origin.word())
        .execute(&mut *$transaction)
        .await?;
        let action = if known.is_some() { "changed" } else { "added" };
        log!($transaction, $project, &entry.test, entry.signature.as_deref(), action, $deed)?;
    }};
}

macro_rules! take {
    ($transaction:expr, $project:expr, $test:expr, $signature:expr, $action:expr, $deed:expr) => {{
        let taken = sqlx::query("DELETE FROM quarantine WHERE subject = $1")
            .bind(key($project, $test, $signature))
            .execute(&mut *$transaction)
            .await?
            .rows_affected();
        if taken > 0 {
            log!($transaction, $project, $test, $signature, $action, $deed)?;
        }
        taken > 0
    }};
}

impl Db {
    /// A project's entries, by test.
    pub async fn quarantine(&self, project: &str) -> Result<Vec<Entry>, DbError> {
        let query = "SELECT * FROM quarantine WHERE project = $1";
        let rows: Vec<RawEntry> =
            read!(self, "read a quarantine", fetch_all, sqlx::query_as(query).bind(clean(project)))?;
        let mut entries: Vec<Entry> = rows.into_iter().map(|raw| <(String, Entry)>::from(raw).1).collect();
        // Here, not in SQL: databases differ in how they sort text.
        entries.sort_by(|a, b| (&a.test, &a.signature).cmp(&(&b.test, &b.signature)));
        Ok(entries)
    }

    /// All entries of all projects, each with its project.
    pub async fn all_quarantined(&self) -> Result<Vec<(String, Entry)>, DbError> {
        let query = "SELECT * FROM quarantine";
        let rows: Vec<RawEntry> = read!(self, "read all quarantines", fetch_all, sqlx::query_as(query))?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// Adds an entry, or changes the one of the same test and signature; what was measured stays.
    pub async fn put_in_quarantine(
        &self,
        project: &str,
        entry: &Entry,
        deed: Deed<'_>,
    ) -> Result<(), DbError> {
        match self {
            Db::Sqlite(store) => {
                async {
                    let mut transaction = store.begin().await?;
                    put!(transaction, project, entry, deed);
                    transaction.commit().await
                }
                .await
            }
            Db::Postgres(store) => {
                postgres::in_time(async {
                    let mut transaction = store.begin().await?;
                    put!(transaction, project, entry, deed);
                    transaction.commit().await
                })
                .await
            }
        }
        .map_err(|source| DbError::from_driver("put a test in quarantine", source))
    }

    /// Takes an entry away; whether there was one. `action` is `removed` or `left`.
    pub async fn take_from_quarantine(
        &self,
        project: &str,
        test: &str,
        signature: Option<&str>,
        action: &str,
        deed: Deed<'_>,
    ) -> Result<bool, DbError> {
        match self {
            Db::Sqlite(store) => {
                async {
                    let mut transaction = store.begin().await?;
                    let taken = take!(transaction, project, test, signature, action, deed);
                    transaction.commit().await?;
                    Ok(taken)
                }
                .await
            }
            Db::Postgres(store) => {
                postgres::in_time(async {
                    let mut transaction = store.begin().await?;
                    let taken = take!(transaction, project, test, signature, action, deed);
                    transaction.commit().await?;
                    Ok(taken)
                })
                .await
            }
        }
        .map_err(|source| DbError::from_driver("take a test out of quarantine", source))
    }

    /// Adds what a sweep measured of an entry. The same sweep again changes nothing.
    pub async fn note_measured(
        &self,
        project: &str,
        entry: &Entry,
        sweep: SweepId,
        runs: u64,
        failures: u64,
        now: UnixMicros,
    ) -> Result<(), DbError> {
        let query = "UPDATE quarantine SET runs = runs + $2, failures = failures + $3, measured_by = $4,
                         measured_at = $5
                     WHERE subject = $1 AND (measured_by IS NULL OR measured_by <> $4)";
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        change!(
            self,
            "note what was measured of a test in quarantine",
            sqlx::query(query)
                .bind(key(project, &entry.test, entry.signature.as_deref()))
                .bind(count(runs))
                .bind(count(failures))
                .bind(sweep.0)
                .bind(now)
        )?;
        Ok(())
    }

    /// What was done to a project's quarantine, the latest first.
    pub async fn quarantine_log(&self, project: &str, limit: u32) -> Result<Vec<Done>, DbError> {
        let query = "SELECT at, test, signature, action, who, why FROM quarantine_log WHERE project = $1
                     ORDER BY id DESC LIMIT $2";
        let rows: Vec<RawDone> = read!(
            self,
            "read what was done to a quarantine",
            fetch_all,
            sqlx::query_as(query).bind(clean(project)).bind(i64::from(limit))
        )?;
        let done = |RawDone { at, test, signature, action, who, why }| Done {
            at,
            test,
            signature,
            action,
            who,
            why,
        };
        Ok(rows.into_iter().map(done).collect())
    }

    /// What a project has decided; the default if nothing.
    pub async fn quarantine_rule(&self, project: &str) -> Result<Rule, DbError> {
        let query = "SELECT body FROM quarantine_rules WHERE project = $1";
        let body: Option<String> = read!(
            self,
            "read a project's rule of quarantine",
            fetch_optional,
            sqlx::query_scalar(query).bind(clean(project))
        )?;
        Ok(body.and_then(|body| serde_json::from_str(&body).ok()).unwrap_or_default())
    }

    /// Records what a project has decided.
    pub async fn set_quarantine_rule(&self, project: &str, rule: &Rule) -> Result<(), DbError> {
        let query = "INSERT INTO quarantine_rules (project, body) VALUES ($1, $2)
                     ON CONFLICT (project) DO UPDATE SET body = excluded.body";
        change!(
            self,
            "record a project's rule of quarantine",
            sqlx::query(query).bind(clean(project)).bind(json(rule))
        )?;
        Ok(())
    }
}
