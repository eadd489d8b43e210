//! The coordinator's relational store: sweeps, jobs, verdicts, workers and tokens, in a SQLite file
//! or in PostgreSQL. The only place with SQL.
//!
//! One text of each statement serves both databases; only opening them and bulk inserts differ.
//! Every method is one transaction, and repeating it does no harm. Cancel safe: a dropped future
//! has done all of its work or none of it.

mod aggregates;
mod ci;
mod costs;
mod days;
mod error;
mod events;
mod fairness;
mod farm;
mod firings;
mod garbage;
mod inspect;
mod jobs;
mod leases;
mod links;
mod migrations;
mod notifications;
mod postgres;
mod publications;
mod quarantine;
mod raw;
mod repairing;
mod repairs;
mod rows;
mod runs;
mod schedules;
mod set_aside;
mod sqlite;
mod standing;
mod sweeps;
mod tenants;
mod tests_seen;
mod verdicts;

pub use aggregates::{DayRow, FlipRow, PackRow, PackSpan, SignatureRow};
pub use ci::{FailureRow, RunSpan, Suspect, UploadRow};
pub use costs::{BranchFlips, CiCost, FailedOn, SignatureDay};
pub use days::{ProjectDayRow, RunAround};
pub use error::{DbError, FailedAction};
pub use events::{EventRow, NewEvent};
pub use firings::{Fired, FiringRow, FiringState};
pub use garbage::{JobRefers, SweepRefers};
pub use inspect::Inspection;
pub use links::{LinkOrigin, LinkRow, ListedTest};
pub use notifications::{ChannelRow, DeliveryRow, Followed};
pub use quarantine::Deed;
pub use repairing::RepairRow;
pub use repairs::RepairOutcome;
pub use rows::{
    HistoryRow, JobRow, JobStanding, JobState, NewJob, NewSweep, ParkedRow, ProjectRow, RunRow, SeenTest,
    Settled, Settlement, SweepRow, SweepState, TestRow, TokenRow, VerdictRow, WorkerRow,
};
pub use runs::RunsOfClass;
pub use schedules::ScheduleRow;
pub use set_aside::SetAsideRow;
pub(crate) use sqlite::is_between_transactions;
pub use standing::{Backlog, LeaseRow, TrustRow};
pub use tenants::{DeadJob, SweepFilter};

/// Runs a reading statement: `read!(db, "read a job", fetch_optional, query)`.
macro_rules! read {
    ($db:expr, $action:literal, $fetch:ident, $query:expr) => {
        match $db {
            $crate::db::Db::Sqlite(store) => $crate::db::statement($query.$fetch(&store.readers)).await,
            $crate::db::Db::Postgres(store) => {
                $crate::db::postgres::in_time($query.$fetch(&store.pool)).await
            }
        }
        .map_err(|source| $crate::db::DbError::from_driver($action, source))
    };
}

/// Runs a changing statement: `change!(db, "settle a job", query)`; gives the number of rows changed.
macro_rules! change {
    ($db:expr, $action:literal, $query:expr) => {
        match $db {
            $crate::db::Db::Sqlite(store) => {
                let done = $crate::db::statement($query.execute(&store.writer)).await;
                done.map(|done| done.rows_affected())
            }
            $crate::db::Db::Postgres(store) => {
                let done = $crate::db::postgres::in_time($query.execute(&store.pool)).await;
                done.map(|done| done.rows_affected())
            }
        }
        .map_err(|source| $crate::db::DbError::from_driver($action, source))
    };
}

/// Values of one list in a statement.
const LIST: usize = 1_000;

/// Reads rows whose value is in a list, some of the list at a time: `read_among!(db, "read tests",
/// "SELECT … WHERE test IN (", list, [") AND at >= ", since], " GROUP BY test")`.
macro_rules! read_among {
    ($db:expr, $action:literal, $select:expr, $list:expr, [$($text:literal, $bind:expr),*], $end:literal) => {{
        let mut found = Vec::new();
        for list in $list.chunks($crate::db::LIST) {
            let rows = match $db {
                $crate::db::Db::Sqlite(store) => {
                    let mut query = sqlx::QueryBuilder::<sqlx::Sqlite>::new($select);
                    let mut values = query.separated(", ");
                    for value in list {
                        values.push_bind(value.clone());
                    }
                    $(query.push($text).push_bind($bind);)*
                    query.push($end);
                    $crate::db::statement(query.build_query_as().fetch_all(&store.readers)).await
                }
                $crate::db::Db::Postgres(store) => {
                    let mut query = sqlx::QueryBuilder::<sqlx::Postgres>::new($select);
                    let mut values = query.separated(", ");
                    for value in list {
                        values.push_bind(value.clone());
                    }
                    $(query.push($text).push_bind($bind);)*
                    query.push($end);
                    $crate::db::postgres::in_time(query.build_query_as().fetch_all(&store.pool)).await
                }
            };
            found.append(&mut rows.map_err(|source| $crate::db::DbError::from_driver($action, source))?);
        }
        found
    }};
}

use {change, read, read_among};

/// One call to the database, counted.
async fn statement<T>(call: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    flakefarm_shared::metrics::timed("database", "statement", call).await
}

/// The store. Cloning is cheap; clones share connections.
#[derive(Debug, Clone)]
pub enum Db {
    /// A file.
    Sqlite(sqlite::Sqlite),
    /// A server.
    Postgres(postgres::Postgres),
}

impl Db {
    /// Opens the database at `url` and brings its schema up to date: `sqlite:/path/to/file` (made
    /// with its directory if absent) or `postgres://user:password@host/name`.
    pub async fn open(url: &str) -> Result<Self, DbError> {
        match url.split_once(':') {
            Some(("sqlite", rest)) => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                Ok(Self::Sqlite(sqlite::Sqlite::open(path).await?))
            }
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(postgres::Postgres::open(url).await?)),
            _ => Err(DbError::Address {
                // Whatever it is, it may hold a password: only its start is shown.
                address: url.split([':', '@']).next().unwrap_or_default().to_owned(),
                reason: "it starts with neither sqlite: nor postgres://".to_owned(),
            }),
        }
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), DbError> {
        change!(self, "ask for an answer", sqlx::query("SELECT 1"))?;
        Ok(())
    }

    /// Bytes that the database takes.
    pub async fn size(&self) -> Result<u64, DbError> {
        let query = match self {
            Db::Sqlite(_) => "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
            Db::Postgres(_) => "SELECT pg_database_size(current_database())",
        };
        let bytes: i64 = read!(self, "read the size", fetch_one, sqlx::query_scalar(query))?;
        Ok(bytes.unsigned_abs())
    }

    /// Closes all connections, after what is under way. Other clones are closed too.
    pub async fn close(&self) {
        match self {
            Db::Sqlite(store) => {
                store.readers.close().await;
                store.writer.close().await;
            }
            Db::Postgres(store) => store.pool.close().await,
        }
    }
}
