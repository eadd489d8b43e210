//! Verdicts: what sweeps found of tests, and so the history of each test.

use super::raw::{RawRun, RawVerdict, clean, subject};
use super::rows::{HistoryRow, VerdictRow};
use super::{Db, DbError, postgres, read};
use crate::plan::PastRun;
use flakefarm_shared::{SweepId, TestId, TreatmentClass, UnixMicros};
use std::collections::BTreeMap;
use uuid::Uuid;

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
            "SELECT verdicts.*, sweeps.revision, runs.class AS run_class
             FROM verdicts JOIN sweeps ON sweeps.id = verdicts.sweep LEFT JOIN runs ON runs.id = verdicts.sweep
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

    /// What the last `sweeps` runs of a project and a treatment class recorded that ended before `before`,
    /// of the tests that ran. Runs that recorded nothing (diagnoses, failed sweeps) take no place among
    /// them.
    pub async fn past_runs(
        &self,
        project: &str,
        class: TreatmentClass,
        before: UnixMicros,
        sweeps: u32,
    ) -> Result<Vec<PastRun>, DbError> {
        let query = "SELECT runs.id FROM runs
                     JOIN projects ON projects.number = runs.project JOIN sweeps ON sweeps.id = runs.id
                     WHERE projects.name = $1 AND runs.class = $2 AND sweeps.finished_at < $3
                       AND EXISTS (SELECT 1 FROM verdicts WHERE verdicts.sweep = runs.id AND attempts > 0)
                     ORDER BY runs.started_at DESC, runs.id DESC LIMIT $4";
        let ids: Vec<Uuid> = read!(
            self,
            "read a project's sweeps",
            fetch_all,
            sqlx::query_scalar(query)
                .bind(clean(project))
                .bind(class.word())
                .bind(before)
                .bind(i64::from(sweeps))
        )?;
        let mut runs = Vec::new();
        // A sweep at a time: the rows of all of them at once would be held twice.
        for sweep in ids {
            let query = "SELECT test, fingerprint, attempts, failures, p50_ms, finished_at FROM verdicts
                         WHERE sweep = $1 AND attempts > 0";
            let rows: Vec<RawRun> =
                read!(self, "read a project's past runs", fetch_all, sqlx::query_as(query).bind(sweep))?;
            for row in rows {
                runs.push(PastRun::try_from(row)?);
            }
        }
        Ok(runs)
    }

    /// What was found of one test of a project, newest first.
    pub async fn test_history(
        &self,
        project: &str,
        test: &TestId,
        limit: u32,
    ) -> Result<Vec<HistoryRow>, DbError> {
        let query = "SELECT verdicts.*, sweeps.revision, runs.class AS run_class
                     FROM verdicts JOIN sweeps ON sweeps.id = verdicts.sweep
                          LEFT JOIN runs ON runs.id = verdicts.sweep
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
