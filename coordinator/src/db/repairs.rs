//! How proposed repairs fared.

use super::raw::clean;
use super::{Db, DbError, change, read};
use crate::repairs::{Guess, Learnt, Success};
use flakefarm_shared::UnixMicros;
use uuid::Uuid;

/// One proposal that an experiment was spent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairOutcome {
    /// Chosen by whoever tried it.
    pub id: Uuid,
    /// How it was to be mended, and what.
    pub guess: Guess,
    /// Whether it was shown to mend it.
    pub proved: bool,
    /// When that was known.
    pub at: UnixMicros,
}

type RawSuccess = (String, String, i64, i64);

impl Db {
    /// Notes how a proposal fared. The same again changes nothing.
    pub async fn note_repair(&self, project: &str, outcome: &RepairOutcome) -> Result<(), DbError> {
        let query = "INSERT INTO repair_outcomes (id, project, strategy, failure, proved, at)
                     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING";
        change!(
            self,
            "note how a repair fared",
            sqlx::query(query)
                .bind(outcome.id)
                .bind(clean(project))
                .bind(clean(&outcome.guess.strategy))
                .bind(clean(&outcome.guess.failure))
                .bind(outcome.proved)
                .bind(outcome.at)
        )?;
        Ok(())
    }

    /// How a project's proposals fared since `since`, by strategy and kind of failure.
    pub async fn repairs_learnt(&self, project: &str, since: UnixMicros) -> Result<Learnt, DbError> {
        let query = "SELECT strategy, failure, COUNT(*), SUM(CASE WHEN proved THEN 1 ELSE 0 END)
                     FROM repair_outcomes WHERE project = $1 AND at >= $2 GROUP BY strategy, failure";
        let rows: Vec<RawSuccess> = read!(
            self,
            "read how repairs fared",
            fetch_all,
            sqlx::query_as(query).bind(clean(project)).bind(since)
        )?;
        let row = |(strategy, failure, tried, proved): RawSuccess| {
            let success = Success { tried: tried.unsigned_abs(), proved: proved.unsigned_abs() };
            (Guess { strategy, failure }, success)
        };
        Ok(rows.into_iter().map(row).collect())
    }
}
