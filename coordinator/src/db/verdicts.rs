//! Verdicts: what sweeps found of tests, and so the history of each test.

use super::raw::{RawVerdict, clean, subject};
use super::rows::{HistoryRow, VerdictRow};
use super::{Db, DbError, postgres, read};
use flakefarm_shared::{SweepId, TestId};
use std::collections::BTreeMap;

impl Db {
    /// Records what a sweep found, all or nothing. Recording a test again replaces its verdict; of
    /// two verdicts of one test the later in `verdicts` counts.
    pub async fn record_verdicts(&self, sweep: SweepId, verdicts: &[VerdictRow]) -> Result<(), DbError> {
        if verdicts.is_empty() {
            return Ok(());
        }
        // One row per subject, in the order of subjects, which is the order of locks.
        let by_subject: BTreeMap<Vec<u8>, &VerdictRow> = verdicts
            .iter()
            .map(|verdict| (subject(&clean(&verdict.project), &clean(verdict.test.as_str())), verdict))
            .collect();
        let verdicts: Vec<VerdictRow> = by_subject.into_values().cloned().collect();
        match self {
            Db::Sqlite(store) => store.record_verdicts(sweep, &verdicts).await,
            Db::Postgres(store) => postgres::in_time(store.record_verdicts(sweep, &verdicts)).await,
        }
        .map_err(|source| DbError::of_sweep("record verdicts", sweep, source))
    }

    /// What a sweep found, by test id.
    pub async fn verdicts(&self, sweep: SweepId) -> Result<Vec<VerdictRow>, DbError> {
        let query =
            "SELECT verdicts.*, sweeps.revision FROM verdicts JOIN sweeps ON sweeps.id = verdicts.sweep
                     WHERE verdicts.sweep = $1";
        let rows: Vec<RawVerdict> =
            read!(self, "read verdicts", fetch_all, sqlx::query_as(query).bind(sweep.0))?;
        let mut verdicts = Vec::with_capacity(rows.len());
        for row in rows {
            verdicts.push(HistoryRow::try_from(row)?.verdict);
        }
        // Here, not in SQL: databases differ in how they sort text.
        verdicts.sort_by(|a, b| a.test.cmp(&b.test));
        Ok(verdicts)
    }

    /// What was found of one test of a project, newest first.
    pub async fn test_history(
        &self,
        project: &str,
        test: &TestId,
        limit: u32,
    ) -> Result<Vec<HistoryRow>, DbError> {
        let query = "SELECT verdicts.*, sweeps.revision FROM verdicts JOIN sweeps ON sweeps.id = verdicts.sweep
                     WHERE verdicts.subject = $1 ORDER BY verdicts.finished_at DESC, verdicts.sweep DESC LIMIT $2";
        let rows: Vec<RawVerdict> = read!(
            self,
            "read a test's history",
            fetch_all,
            sqlx::query_as(query)
                .bind(subject(&clean(project), &clean(test.as_str())))
                .bind(i64::from(limit))
        )?;
        rows.into_iter().map(HistoryRow::try_from).collect()
    }
}
