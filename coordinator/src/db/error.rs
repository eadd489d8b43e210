//! What can go wrong with the store, sorted by what a caller can do about it.

use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::migrate::MigrateError;

/// The store refused, could not be reached, or holds something unexpected.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The address makes no sense to us. Passwords are left out of the message.
    #[error("database address `{address}` cannot be used: {reason}")]
    Address {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
    /// No connection, it was lost, or the database was busy for too long. Worth a retry; what was
    /// asked may or may not have been done.
    #[error("the database cannot be reached")]
    Unreachable(#[source] FailedAction),
    /// A newer flakefarm has migrated this database.
    #[error(
        "the database has schema version {found}, this flakefarm knows versions up to {known}: upgrade flakefarm"
    )]
    NewerSchema {
        /// The database's version.
        found: i64,
        /// The newest this program knows.
        known: i64,
    },
    /// What was named is not there.
    #[error("{0} is not in the database")]
    NotFound(String),
    /// What is there forbids what was asked.
    #[error("{0}")]
    Conflict(String),
    /// A row that this program would not have written.
    #[error("damaged row in the database: {0}")]
    Damaged(String),
    /// Anything else.
    #[error(transparent)]
    Other(FailedAction),
}

/// What was asked of the database in vain.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} in the database")]
pub struct FailedAction {
    action: &'static str,
    source: sqlx::Error,
}

impl DbError {
    /// Sorts an error of the driver. `action` completes "failed to ...".
    pub(super) fn from_driver(action: &'static str, source: sqlx::Error) -> Self {
        let unreachable = match &source {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(error) if error.kind() == ErrorKind::UniqueViolation => {
                return Self::Conflict(format!("failed to {action}: it exists already"));
            }
            sqlx::Error::Database(error) => is_transient(error.as_ref()),
            _ => false,
        };
        let failed = FailedAction { action, source };
        if unreachable { Self::Unreachable(failed) } else { Self::Other(failed) }
    }

    /// As [`DbError::from_driver`], for new rows that name a sweep.
    pub(super) fn of_sweep(
        action: &'static str,
        sweep: flakefarm_shared::SweepId,
        source: sqlx::Error,
    ) -> Self {
        match &source {
            sqlx::Error::Database(error) if error.kind() == ErrorKind::ForeignKeyViolation => {
                Self::NotFound(format!("sweep {sweep}"))
            }
            _ => Self::from_driver(action, source),
        }
    }

    /// Another user of the same SQLite file holds it at this moment.
    pub(super) fn is_busy(&self) -> bool {
        match self {
            Self::Unreachable(FailedAction { source: sqlx::Error::Database(error), .. }) => {
                sqlite_code(error.as_ref()).is_some_and(|code| matches!(code, 5 | 6))
            }
            _ => false,
        }
    }

    pub(super) fn from_migration(error: MigrateError, known: i64) -> Self {
        const ACTION: &str = "bring the schema up to date";
        match error {
            MigrateError::VersionMissing(found) if found > known => Self::NewerSchema { found, known },
            MigrateError::Execute(source) => Self::from_driver(ACTION, source),
            MigrateError::ExecuteMigration(source, _) => Self::from_driver(ACTION, source),
            other => {
                let source = sqlx::Error::Migrate(Box::new(other));
                Self::Other(FailedAction { action: ACTION, source })
            }
        }
    }
}

fn is_transient(error: &dyn DatabaseError) -> bool {
    let Some(code) = error.code() else { return false };
    // PostgreSQL: connection exceptions, too many connections, shut-down or start-up, deadlock,
    // statement time-out. SQLite: busy, locked, cannot open.
    let postgres = code.starts_with("08") && code.len() == 5
        || matches!(code.as_ref(), "53300" | "57P01" | "57P02" | "57P03" | "40P01" | "40001" | "57014");
    postgres || sqlite_code(error).is_some_and(|code| matches!(code, 5 | 6 | 14))
}

/// SQLite's primary result code; PostgreSQL's codes have five characters.
fn sqlite_code(error: &dyn DatabaseError) -> Option<u32> {
    let code = error.code().filter(|code| code.len() < 5)?;
    code.parse::<u32>().ok().map(|code| code & 0xff)
}
