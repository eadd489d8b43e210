//! Events: what happened, in the order it was recorded, for every coordinator's clients and for
//! whoever comes later. An event is recorded with what it tells of, or from what is recorded.

use super::raw::clean;
use super::rows::{SweepRow, SweepState};
use super::{Db, DbError, change, postgres, read, read_among};
use crate::events::Event;
use flakefarm_shared::{SweepId, TestId, UnixMicros};
use std::collections::HashMap;
use uuid::Uuid;

/// Names the advisory lock under which PostgreSQL gives events their ids: in the order of commits, so
/// that a reader who has seen one has seen all before it.
const ORDER_OF_EVENTS: i64 = 0x666c_616b_6501;

/// An event to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// What makes it this event: a second one of the same key is dropped.
    pub key: String,
    /// When.
    pub at: UnixMicros,
    /// Whose project it concerns; none: the farm.
    pub project: Option<String>,
    /// The sweep it concerns.
    pub sweep: Option<SweepId>,
    /// What happened.
    pub event: Event,
}

/// A recorded event.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow {
    /// Its place in the order of all events.
    pub id: i64,
    /// When.
    pub at: UnixMicros,
    /// Whose project it concerns; none: the farm.
    pub project: Option<String>,
    /// The sweep it concerns.
    pub sweep: Option<SweepId>,
    /// What happened.
    pub event: Event,
}

/// Inserts an event with a statement of a transaction.
macro_rules! insert_event {
    ($transaction:expr, $event:expr) => {
        sqlx::query(
            "INSERT INTO events (event_key, at, project, sweep, body) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (event_key) DO NOTHING",
        )
        .bind(clean(&$event.key))
        .bind($event.at)
        .bind($event.project.as_deref().map(clean))
        .bind($event.sweep.map(|sweep| sweep.0))
        .bind($crate::db::raw::json(&$event.event))
        .execute(&mut *$transaction)
        .await
    };
}
pub(super) use insert_event;

/// Until the transaction ends, nobody else records an event.
pub(super) async fn in_order(transaction: &mut sqlx::PgTransaction<'_>) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(ORDER_OF_EVENTS).execute(&mut **transaction).await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
pub(super) struct RawEvent {
    id: i64,
    at: i64,
    project: Option<String>,
    sweep: Option<Uuid>,
    body: String,
}

impl RawEvent {
    /// One that a newer program wrote is passed over.
    pub(super) fn known(self) -> Option<EventRow> {
        let event = serde_json::from_str(&self.body).ok()?;
        let sweep = self.sweep.map(SweepId);
        Some(EventRow { id: self.id, at: self.at, project: self.project, sweep, event })
    }
}

impl Db {
    /// Records events, all or none. Those recorded already are left as they are.
    pub async fn record_events(&self, events: &[NewEvent]) -> Result<(), DbError> {
        if events.is_empty() {
            return Ok(());
        }
        match self {
            Db::Sqlite(store) => {
                async {
                    let mut transaction = store.begin().await?;
                    for event in events {
                        insert_event!(transaction, event)?;
                    }
                    transaction.commit().await
                }
                .await
            }
            Db::Postgres(store) => {
                postgres::in_time(async {
                    let mut transaction = store.begin().await?;
                    in_order(&mut transaction).await?;
                    for event in events {
                        insert_event!(transaction, event)?;
                    }
                    transaction.commit().await
                })
                .await
            }
        }
        .map_err(|source| DbError::from_driver("record events", source))
    }

    /// Events recorded after the one of the id `after`, in their order: of a sweep, or of all.
    pub async fn events_after(
        &self,
        after: i64,
        sweep: Option<SweepId>,
        limit: u32,
    ) -> Result<Vec<EventRow>, DbError> {
        let rows: Vec<RawEvent> = match sweep {
            Some(sweep) => {
                let query = "SELECT * FROM events WHERE sweep = $1 AND id > $2 ORDER BY id LIMIT $3";
                read!(
                    self,
                    "read events",
                    fetch_all,
                    sqlx::query_as(query).bind(sweep.0).bind(after).bind(i64::from(limit))
                )?
            }
            None => {
                let query = "SELECT * FROM events WHERE id > $1 ORDER BY id LIMIT $2";
                read!(
                    self,
                    "read events",
                    fetch_all,
                    sqlx::query_as(query).bind(after).bind(i64::from(limit))
                )?
            }
        };
        Ok(rows.into_iter().filter_map(RawEvent::known).collect())
    }

    /// The id of the latest event; 0 if there is none.
    pub async fn latest_event(&self) -> Result<i64, DbError> {
        let query = "SELECT COALESCE(MAX(id), 0) FROM events";
        read!(self, "read the latest event", fetch_one, sqlx::query_scalar(query))
    }

    /// Forgets events from before `before`; gives how many.
    pub async fn forget_events(&self, before: UnixMicros) -> Result<u64, DbError> {
        change!(self, "forget events", sqlx::query("DELETE FROM events WHERE at < $1").bind(before))
    }

    /// Records how far a sweep is; it replaces what was recorded before.
    pub async fn record_progress(
        &self,
        sweep: SweepId,
        progress: &Event,
        now: UnixMicros,
    ) -> Result<(), DbError> {
        let query = "INSERT INTO sweep_progress (sweep, at, body) VALUES ($1, $2, $3)
                     ON CONFLICT (sweep) DO UPDATE SET at = excluded.at, body = excluded.body";
        change!(
            self,
            "record a sweep's progress",
            sqlx::query(query).bind(sweep.0).bind(now).bind(super::raw::json(progress))
        )?;
        Ok(())
    }

    /// How far a sweep was when it was last recorded.
    pub async fn progress(&self, sweep: SweepId) -> Result<Option<Event>, DbError> {
        Ok(self.progress_among(&[sweep.0]).await?.remove(&sweep))
    }

    /// The same of those of some sweeps that run.
    pub async fn progress_of(&self, sweeps: &[SweepRow]) -> Result<HashMap<SweepId, Event>, DbError> {
        let running = sweeps.iter().filter(|row| matches!(row.state, SweepState::Running));
        self.progress_among(&running.map(|row| row.id.0).collect::<Vec<_>>()).await
    }

    async fn progress_among(&self, sweeps: &[Uuid]) -> Result<HashMap<SweepId, Event>, DbError> {
        let rows: Vec<(Uuid, String)> = read_among!(
            self,
            "read the progress of sweeps",
            "SELECT sweep, body FROM sweep_progress WHERE sweep IN (",
            sweeps,
            [],
            ")"
        );
        let read = |(sweep, body): (Uuid, String)| Some((SweepId(sweep), serde_json::from_str(&body).ok()?));
        Ok(rows.into_iter().filter_map(read).collect())
    }

    /// The words of the verdicts that the newest sweep of a project found, `sweep` aside, of those that
    /// found any.
    pub async fn last_verdicts(
        &self,
        project: &str,
        sweep: SweepId,
    ) -> Result<HashMap<TestId, String>, DbError> {
        let query = "SELECT test, verdict FROM verdicts WHERE sweep = (
                         SELECT id FROM sweeps WHERE project = $1 AND id <> $2 AND finished_at IS NOT NULL
                            AND EXISTS (SELECT 1 FROM verdicts WHERE verdicts.sweep = sweeps.id)
                         ORDER BY created_at DESC, id DESC LIMIT 1)";
        let rows: Vec<(String, String)> = read!(
            self,
            "read a project's last verdicts",
            fetch_all,
            sqlx::query_as(query).bind(clean(project)).bind(sweep.0)
        )?;
        Ok(rows.into_iter().map(|(test, verdict)| (TestId(test), verdict)).collect())
    }
}
