//! What CI sends: reports that were read, failures by signature, flips, incidents.

use super::raw::{clean, subject};
use super::{Db, DbError, change, postgres, read, read_among};
use flakefarm_shared::{TestId, TreatmentClass, UnixMicros};
use sqlx::QueryBuilder;
use std::collections::HashMap;
use uuid::Uuid;

/// Rows of one statement; each binds at most ten values.
const ROWS: usize = 1_000;

/// Inserts rows in both databases, each statement by itself: rows that are there stay as they are.
macro_rules! insert_all {
    ($db:expr, $action:literal, $insert:literal, $rows:expr, |$row:ident, $item:pat_param| $push:expr, $conflict:literal) => {
        for rows in $rows.chunks(ROWS) {
            match $db {
                Db::Sqlite(store) => {
                    let mut insert = QueryBuilder::<sqlx::Sqlite>::new($insert);
                    insert.push_values(rows, |mut $row, $item| {
                        $push;
                    });
                    insert.push($conflict);
                    insert.build().execute(&store.writer).await.map(drop)
                }
                Db::Postgres(store) => {
                    let mut insert = QueryBuilder::<sqlx::Postgres>::new($insert);
                    insert.push_values(rows, |mut $row, $item| {
                        $push;
                    });
                    insert.push($conflict);
                    postgres::in_time(insert.build().execute(&store.pool)).await.map(drop)
                }
            }
            .map_err(|source| DbError::from_driver($action, source))?;
        }
    };
}

/// A report that somebody sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRow {
    /// When it came first: the time of what says none.
    pub received_at: UnixMicros,
    /// What it came to, as JSON; none if reading it did not end.
    pub summary: Option<String>,
}

/// Failures of one test in one batch of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureRow {
    /// The test's number.
    pub test: i64,
    /// The batch: recording it again changes nothing.
    pub batch: Uuid,
    /// Which failure.
    pub signature: u64,
    /// How often.
    pub count: u32,
    /// When, the last time.
    pub at: UnixMicros,
    /// The message of one of them.
    pub message: String,
    /// What they are evidence of; none: what the run is.
    pub class: Option<TreatmentClass>,
    /// Whether the test's last attempt in the report failed; none: nobody looked.
    pub broke: Option<bool>,
}

/// A run of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunSpan {
    /// The run.
    pub run: Uuid,
    /// When it started.
    pub started_at: UnixMicros,
    /// When it ended, as far as is known.
    pub finished_at: UnixMicros,
}

/// How often a test both passed and failed on one revision and variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// The test.
    pub test: TestId,
    /// Revisions and variants on which it did.
    pub flips: u64,
    /// When the last run ended that showed it.
    pub last_at: UnixMicros,
}

impl Db {
    /// Notes that a report has come, once; gives what is known of it.
    pub async fn begin_upload(
        &self,
        run: Uuid,
        digest: &str,
        name: &str,
        now: UnixMicros,
    ) -> Result<UploadRow, DbError> {
        change!(
            self,
            "record an upload",
            sqlx::query(
                "INSERT INTO uploads (run, digest, name, received_at) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (run, digest) DO NOTHING",
            )
            .bind(run)
            .bind(digest)
            .bind(clean(name))
            .bind(now)
        )?;
        let query = "SELECT received_at, summary FROM uploads WHERE run = $1 AND digest = $2";
        let (received_at, summary): (i64, Option<String>) =
            read!(self, "read an upload", fetch_one, sqlx::query_as(query).bind(run).bind(digest))?;
        Ok(UploadRow { received_at, summary })
    }

    /// Records what a report came to: tests that ran, and those whose last attempt failed.
    pub async fn finish_upload(
        &self,
        run: Uuid,
        digest: &str,
        summary: &str,
        ran: u64,
        failed: u64,
    ) -> Result<(), DbError> {
        change!(
            self,
            "record an upload",
            sqlx::query(
                "UPDATE uploads SET summary = $3, ran = $4, failed = $5 WHERE run = $1 AND digest = $2"
            )
            .bind(run)
            .bind(digest)
            .bind(clean(summary))
            .bind(ran.cast_signed())
            .bind(failed.cast_signed())
        )?;
        Ok(())
    }

    /// Tests that ran in all reports of a run, and those whose last attempt failed.
    pub async fn run_totals(&self, run: Uuid) -> Result<(u64, u64), DbError> {
        // Sums are numbers without bound in one of the databases.
        let query = "SELECT CAST(COALESCE(SUM(ran), 0) AS BIGINT), CAST(COALESCE(SUM(failed), 0) AS BIGINT)
                     FROM uploads WHERE run = $1";
        let (ran, failed): (i64, i64) =
            read!(self, "sum up a run", fetch_one, sqlx::query_as(query).bind(run))?;
        Ok((ran.unsigned_abs(), failed.unsigned_abs()))
    }

    /// Widens a run to what its reports say of when it was.
    pub async fn widen_run(&self, run: Uuid, from: UnixMicros, to: UnixMicros) -> Result<(), DbError> {
        change!(
            self,
            "record when a run was",
            sqlx::query(
                "UPDATE runs SET started_at = CASE WHEN started_at < $2 THEN started_at ELSE $2 END,
                     finished_at = CASE WHEN finished_at > $3 THEN finished_at ELSE $3 END WHERE id = $1",
            )
            .bind(run)
            .bind(from)
            .bind(to)
        )?;
        Ok(())
    }

    /// Excludes a run from what counts, or takes it back.
    pub async fn set_incident(&self, run: Uuid, why: Option<&str>) -> Result<(), DbError> {
        let query = "UPDATE runs SET incident = $2 WHERE id = $1";
        change!(self, "record an incident", sqlx::query(query).bind(run).bind(why))?;
        if why.is_some() {
            change!(self, "take back flips", sqlx::query("DELETE FROM flips WHERE run = $1").bind(run))?;
        }
        Ok(())
    }

    /// The numbers of tests of a project; those nobody ever saw are left out.
    pub async fn test_numbers(
        &self,
        project: &str,
        tests: &[TestId],
    ) -> Result<HashMap<TestId, i64>, DbError> {
        let project = clean(project);
        let by_subject: HashMap<Vec<u8>, &TestId> =
            tests.iter().map(|test| (subject(&project, &clean(test.as_str())), test)).collect();
        let subjects: Vec<Vec<u8>> = by_subject.keys().cloned().collect();
        let rows: Vec<(Vec<u8>, i64)> = read_among!(
            self,
            "read tests",
            "SELECT subject, number FROM tests WHERE subject IN (",
            subjects,
            [],
            ")"
        );
        let known = |(subject, number): (Vec<u8>, i64)| Some(((*by_subject.get(&subject)?).clone(), number));
        Ok(rows.into_iter().filter_map(known).collect())
    }

    /// Records failures of a run; those of a batch that is there stay as they are.
    pub async fn record_failures(&self, run: Uuid, failures: &[FailureRow]) -> Result<(), DbError> {
        insert_all!(
            self,
            "record failures",
            "INSERT INTO failures (test, run, batch, signature, count, at, message, class, broke) ",
            failures,
            |row, failure| row
                .push_bind(failure.test)
                .push_bind(run)
                .push_bind(failure.batch)
                .push_bind(failure.signature.cast_signed())
                .push_bind(i64::from(failure.count))
                .push_bind(failure.at)
                .push_bind(clean(&failure.message))
                .push_bind(failure.class.map(TreatmentClass::word))
                .push_bind(failure.broke.map(i64::from)),
            " ON CONFLICT DO NOTHING"
        );
        Ok(())
    }

    /// Runs of a project's revision and variant that are no incidents.
    pub async fn runs_at(
        &self,
        project: &str,
        revision: &str,
        variant: &str,
    ) -> Result<Vec<RunSpan>, DbError> {
        let query = "SELECT runs.id, runs.started_at, COALESCE(runs.finished_at, runs.started_at)
                     FROM runs JOIN projects ON projects.number = runs.project
                     WHERE projects.name = $1 AND runs.revision = $2 AND runs.variant = $3
                       AND runs.incident IS NULL AND runs.origin = 'ci'
                     ORDER BY runs.started_at, runs.id LIMIT 1000";
        let rows: Vec<(Uuid, i64, i64)> = read!(
            self,
            "read the runs of a revision",
            fetch_all,
            sqlx::query_as(query).bind(clean(project)).bind(clean(revision)).bind(clean(variant))
        )?;
        let span = |(run, started_at, finished_at)| RunSpan { run, started_at, finished_at };
        Ok(rows.into_iter().map(span).collect())
    }

    /// Tests that failed in runs of a revision and variant that are no incidents, with their numbers.
    pub async fn failed_at(
        &self,
        project: &str,
        revision: &str,
        variant: &str,
        limit: u32,
    ) -> Result<Vec<(i64, TestId)>, DbError> {
        let query = "SELECT DISTINCT tests.number, tests.test
                     FROM failures JOIN runs ON runs.id = failures.run JOIN tests ON tests.number = failures.test
                          JOIN projects ON projects.number = runs.project
                     WHERE projects.name = $1 AND runs.revision = $2 AND runs.variant = $3
                       AND runs.incident IS NULL ORDER BY tests.number LIMIT $4";
        let rows: Vec<(i64, String)> = read!(
            self,
            "read what failed on a revision",
            fetch_all,
            sqlx::query_as(query)
                .bind(clean(project))
                .bind(clean(revision))
                .bind(clean(variant))
                .bind(i64::from(limit))
        )?;
        Ok(rows.into_iter().map(|(number, test)| (number, TestId(test))).collect())
    }

    /// Tests that failed in one run, with their numbers.
    pub async fn failed_in(&self, run: Uuid, limit: u32) -> Result<Vec<(i64, TestId)>, DbError> {
        let query = "SELECT DISTINCT tests.number, tests.test
                     FROM failures JOIN tests ON tests.number = failures.test
                     WHERE failures.run = $1 ORDER BY tests.number LIMIT $2";
        let rows: Vec<(i64, String)> = read!(
            self,
            "read what failed in a run",
            fetch_all,
            sqlx::query_as(query).bind(run).bind(i64::from(limit))
        )?;
        Ok(rows.into_iter().map(|(number, test)| (number, TestId(test))).collect())
    }

    /// When a run was.
    pub async fn run_span(&self, run: Uuid) -> Result<Option<RunSpan>, DbError> {
        let query = "SELECT started_at, COALESCE(finished_at, started_at) FROM runs WHERE id = $1";
        let row: Option<(i64, i64)> =
            read!(self, "read when a run was", fetch_optional, sqlx::query_as(query).bind(run))?;
        Ok(row.map(|(started_at, finished_at)| RunSpan { run, started_at, finished_at }))
    }

    /// Records that tests both passed and failed on a revision and variant.
    pub async fn record_flips(
        &self,
        run: Uuid,
        revision: &str,
        variant: &str,
        branch: Option<&str>,
        tests: &[i64],
        at: UnixMicros,
    ) -> Result<(), DbError> {
        insert_all!(
            self,
            "record flips",
            "INSERT INTO flips (test, revision, variant, branch, run, at) ",
            tests,
            |row, test| row
                .push_bind(*test)
                .push_bind(clean(revision))
                .push_bind(clean(variant))
                .push_bind(branch.map(clean))
                .push_bind(run)
                .push_bind(at),
            " ON CONFLICT DO NOTHING"
        );
        Ok(())
    }

    /// Tests that CI saw both pass and fail on one revision from `from` (inclusive) to `to`
    /// (exclusive), the most often first.
    pub async fn suspects(
        &self,
        project: &str,
        from: UnixMicros,
        to: UnixMicros,
    ) -> Result<Vec<Suspect>, DbError> {
        let query = "SELECT tests.test, COUNT(*), MAX(flips.at)
                     FROM flips JOIN tests ON tests.number = flips.test
                          JOIN projects ON projects.number = tests.project
                     WHERE projects.name = $1 AND flips.at >= $2 AND flips.at < $3 GROUP BY tests.number, tests.test";
        let rows: Vec<(String, i64, i64)> = read!(
            self,
            "read suspected tests",
            fetch_all,
            sqlx::query_as(query).bind(clean(project)).bind(from).bind(to)
        )?;
        let suspect = |(test, flips, last_at): (String, i64, i64)| Suspect {
            test: TestId(test),
            flips: flips.unsigned_abs(),
            last_at,
        };
        let mut suspects: Vec<Suspect> = rows.into_iter().map(suspect).collect();
        suspects.sort_by(|a, b| b.flips.cmp(&a.flips).then_with(|| a.test.cmp(&b.test)));
        Ok(suspects)
    }
}
