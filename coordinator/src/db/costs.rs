//! What failures came to over time: what they cost in CI, how they looked day by day, on which branches tests
//! flipped, and which failed on the same occasion.

use super::raw::clean;
use super::{Db, DbError, read, read_among};
use flakefarm_shared::{TestId, TreatmentClass, UnixMicros};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use uuid::Uuid;

/// Failures read at once; a project with more is looked at by its last ones.
const MOST_FAILURES: i64 = 200_000;

/// What a flaky test has cost in CI.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CiCost {
    /// Runs that it broke although it passed on the same revision and variant.
    pub failed_runs: u64,
    /// Attempts within a run that were made again because it had failed.
    pub retries: u64,
    /// Runs that somebody started again on a revision after it had broken one.
    pub reruns: u64,
    /// How long those took, as far as their reports say.
    pub rerun_micros: u64,
}

impl CiCost {
    /// Adds what was paid under another name.
    pub fn add(&mut self, other: Self) {
        self.failed_runs += other.failed_runs;
        self.retries += other.retries;
        self.reruns += other.reruns;
        self.rerun_micros += other.rerun_micros;
    }
}

/// Flips of a project on one branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchFlips {
    /// The branch; none: nobody said.
    pub branch: Option<String>,
    /// Tests, revisions and variants with a pass and a failure.
    pub flips: u64,
    /// Tests among them.
    pub tests: u64,
}

/// Failures of one test and signature on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureDay {
    /// What the attempts are evidence of.
    pub class: String,
    /// Which failure.
    pub signature: u64,
    /// The day, counted from the epoch.
    pub day: i64,
    /// How often.
    pub count: u64,
}

/// A test that failed on an occasion: in a CI run, or in one attempt of a sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedOn {
    /// The run.
    pub run: Uuid,
    /// The batch it was recorded in; of a sweep, one per attempt.
    pub batch: Uuid,
    /// The test's number.
    pub test: i64,
}

impl Db {
    /// What some tests have cost in CI from `from` (inclusive) to `to` (exclusive), by number; those that
    /// never flipped are left out: what they failed for was worth a failure.
    pub async fn ci_costs(
        &self,
        tests: &[i64],
        from: UnixMicros,
        to: UnixMicros,
    ) -> Result<HashMap<i64, CiCost>, DbError> {
        let (failed, again) =
            tokio::try_join!(self.failed_runs_of(tests, from, to), self.reruns_of(tests, from, to))?;
        let mut costs: HashMap<i64, CiCost> = HashMap::new();
        for (test, failed_runs, retries) in failed {
            let cost = costs.entry(test).or_default();
            (cost.failed_runs, cost.retries) = (failed_runs.unsigned_abs(), retries.max(0).unsigned_abs());
        }
        for (test, reruns, micros) in again {
            let cost = costs.entry(test).or_default();
            (cost.reruns, cost.rerun_micros) = (reruns.unsigned_abs(), micros.max(0).unsigned_abs());
        }
        Ok(costs)
    }

    /// Of tests that flipped: runs of CI that they failed, and retries within runs.
    async fn failed_runs_of(
        &self,
        tests: &[i64],
        from: UnixMicros,
        to: UnixMicros,
    ) -> Result<Vec<(i64, i64, i64)>, DbError> {
        Ok(read_among!(
            self,
            "read what failures cost",
            "SELECT failures.test, COUNT(DISTINCT CASE WHEN failures.broke = 1 THEN failures.run END),
                    CAST(SUM(CASE WHEN failures.broke = 0 THEN failures.count ELSE failures.count - 1 END)
                         AS BIGINT)
             FROM failures JOIN runs ON runs.id = failures.run
             WHERE failures.test IN (",
            tests,
            [") AND failures.at >= ", from, " AND failures.at < ", to],
            // A run without a revision has its flips to itself. With OFFSET PostgreSQL looks each flip up, instead of
            // reading all flips of all projects once.
            " AND runs.origin = 'ci' AND runs.incident IS NULL AND (
                  EXISTS (SELECT 1 FROM flips WHERE flips.test = failures.test
                      AND flips.revision = runs.revision AND flips.variant = runs.variant LIMIT 1 OFFSET 0)
                  OR runs.revision IS NULL AND EXISTS (SELECT 1 FROM flips
                      WHERE flips.run = failures.run AND flips.test = failures.test LIMIT 1 OFFSET 0))
              GROUP BY failures.test"
        ))
    }

    /// Of tests that flipped: runs of CI that were started again since they had failed, and the microseconds
    /// that these took.
    async fn reruns_of(
        &self,
        tests: &[i64],
        from: UnixMicros,
        to: UnixMicros,
    ) -> Result<Vec<(i64, i64, i64)>, DbError> {
        Ok(read_among!(
            self,
            "read runs that were started again",
            // In this order, which CROSS JOIN tells SQLite: it has no statistics, and would look at all of a
            // project's runs.
            "WITH broken AS (
                 SELECT failures.test, runs.project, runs.revision, runs.variant, MIN(runs.started_at) AS at
                 FROM failures JOIN runs ON runs.id = failures.run
                 WHERE failures.broke = 1 AND runs.revision IS NOT NULL AND failures.test IN (",
            tests,
            [
                ") GROUP BY failures.test, runs.project, runs.revision, runs.variant)
             SELECT flips.test, COUNT(*), CAST(SUM(COALESCE(runs.finished_at, runs.started_at) - runs.started_at)
                    AS BIGINT)
             FROM broken CROSS JOIN flips CROSS JOIN runs
             WHERE flips.test = broken.test AND flips.revision = broken.revision
               AND flips.variant = broken.variant AND runs.project = broken.project
               AND runs.revision = broken.revision AND runs.variant = broken.variant
               AND runs.started_at > broken.at AND flips.at >= ",
                from,
                " AND flips.at < ",
                to
            ],
            " AND runs.origin = 'ci' AND runs.incident IS NULL AND COALESCE(runs.attempt, 2) > 1
              GROUP BY flips.test"
        ))
    }

    /// Flips of a project from `from` (inclusive) to `to` (exclusive) by branch, the most first.
    pub async fn flips_by_branch(
        &self,
        project: &str,
        from: UnixMicros,
        to: UnixMicros,
    ) -> Result<Vec<BranchFlips>, DbError> {
        let query = "SELECT flips.branch, COUNT(*), COUNT(DISTINCT flips.test)
                     FROM flips JOIN tests ON tests.number = flips.test
                          JOIN projects ON projects.number = tests.project
                     WHERE projects.name = $1 AND flips.at >= $2 AND flips.at < $3 GROUP BY flips.branch";
        let rows: Vec<(Option<String>, i64, i64)> = read!(
            self,
            "read flips by branch",
            fetch_all,
            sqlx::query_as(query).bind(clean(project)).bind(from).bind(to)
        )?;
        let row = |(branch, flips, tests): (Option<String>, i64, i64)| BranchFlips {
            branch,
            flips: flips.unsigned_abs(),
            tests: tests.unsigned_abs(),
        };
        let mut branches: Vec<BranchFlips> = rows.into_iter().map(row).collect();
        branches.sort_by(|a, b| b.flips.cmp(&a.flips).then_with(|| a.branch.cmp(&b.branch)));
        Ok(branches)
    }

    /// How a test failed since `since`, day by day. Incidents do not count.
    pub async fn signature_days(&self, test: i64, since: UnixMicros) -> Result<Vec<SignatureDay>, DbError> {
        let query = "SELECT COALESCE(failures.class, runs.class), failures.signature,
                            failures.at / 86400000000, CAST(SUM(failures.count) AS BIGINT)
                     FROM failures JOIN runs ON runs.id = failures.run
                     WHERE failures.test = $1 AND failures.at >= $2 AND runs.incident IS NULL
                     GROUP BY 1, 2, 3 ORDER BY 3, 1, 2 LIMIT 10000";
        let rows: Vec<(String, i64, i64, i64)> = read!(
            self,
            "read how a test failed by day",
            fetch_all,
            sqlx::query_as(query).bind(test).bind(since)
        )?;
        let row = |(class, signature, day, count): (String, i64, i64, i64)| SignatureDay {
            class,
            signature: signature.cast_unsigned(),
            day,
            count: count.unsigned_abs(),
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Which tests of a project failed on which occasions of one treatment class, from `from` (inclusive) to
    /// `to` (exclusive), the last ones if there are very many. Incidents do not count.
    pub async fn failed_on(
        &self,
        project: &str,
        class: TreatmentClass,
        from: UnixMicros,
        to: UnixMicros,
    ) -> Result<Vec<FailedOn>, DbError> {
        let query = "SELECT failures.run, failures.batch, failures.test
                     FROM runs JOIN projects ON projects.number = runs.project
                          JOIN failures ON failures.run = runs.id
                     WHERE projects.name = $1 AND COALESCE(failures.class, runs.class) = $2
                       AND runs.started_at >= $3 AND runs.started_at < $4 AND runs.incident IS NULL
                     ORDER BY runs.started_at DESC, failures.run, failures.batch, failures.test LIMIT $5";
        let rows: Vec<(Uuid, Uuid, i64)> = read!(
            self,
            "read what failed",
            fetch_all,
            sqlx::query_as(query)
                .bind(clean(project))
                .bind(class.word())
                .bind(from)
                .bind(to)
                .bind(MOST_FAILURES)
        )?;
        Ok(rows.into_iter().map(|(run, batch, test)| FailedOn { run, batch, test }).collect())
    }

    /// How many occasions there were on which many tests of a project ran: CI runs, or attempts of sweeps
    /// on many tests.
    pub async fn occasions(
        &self,
        project: &str,
        class: TreatmentClass,
        from: UnixMicros,
        to: UnixMicros,
    ) -> Result<u64, DbError> {
        let query = "SELECT CAST(COALESCE(SUM(COALESCE(runs.occasions, 1)), 0) AS BIGINT)
                     FROM runs JOIN projects ON projects.number = runs.project
                     WHERE projects.name = $1 AND runs.class = $2 AND runs.started_at >= $3
                       AND runs.started_at < $4 AND runs.incident IS NULL";
        let count: i64 = read!(
            self,
            "count occasions",
            fetch_one,
            sqlx::query_scalar(query).bind(clean(project)).bind(class.word()).bind(from).bind(to)
        )?;
        Ok(count.unsigned_abs())
    }

    /// Notes on how many occasions a run's tests ran together.
    pub async fn set_occasions(&self, run: Uuid, occasions: u64) -> Result<(), DbError> {
        let query = "UPDATE runs SET occasions = $2 WHERE id = $1";
        super::change!(
            self,
            "record a run's occasions",
            sqlx::query(query).bind(run).bind(occasions.cast_signed())
        )?;
        Ok(())
    }

    /// Tests of a project that somebody saw flip from `from` (inclusive) to `to` (exclusive), by number, with
    /// how often.
    pub async fn flips_by_test(
        &self,
        project: &str,
        from: UnixMicros,
        to: UnixMicros,
    ) -> Result<HashMap<i64, u64>, DbError> {
        // Counted before tests are looked up: one look for each test instead of one for each flip.
        let query = "SELECT counted.test, counted.flips
                     FROM (SELECT test, COUNT(*) AS flips FROM flips WHERE at >= $2 AND at < $3 GROUP BY test) AS counted
                          JOIN tests ON tests.number = counted.test
                          JOIN projects ON projects.number = tests.project
                     WHERE projects.name = $1";
        let rows: Vec<(i64, i64)> = read!(
            self,
            "read flips by test",
            fetch_all,
            sqlx::query_as(query).bind(clean(project)).bind(from).bind(to)
        )?;
        Ok(rows.into_iter().map(|(test, flips)| (test, flips.unsigned_abs())).collect())
    }

    /// A test's flips since `since` by branch, the most first.
    pub async fn test_flips_by_branch(
        &self,
        test: i64,
        since: UnixMicros,
    ) -> Result<Vec<(Option<String>, u64)>, DbError> {
        let query = "SELECT branch, COUNT(*) FROM flips WHERE test = $1 AND at >= $2 GROUP BY branch";
        let mut rows: Vec<(Option<String>, i64)> = read!(
            self,
            "read a test's flips by branch",
            fetch_all,
            sqlx::query_as(query).bind(test).bind(since)
        )?;
        rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Ok(rows.into_iter().map(|(branch, flips)| (branch, flips.unsigned_abs())).collect())
    }

    /// The names of tests by number.
    pub(crate) async fn names_of(&self, numbers: &[i64]) -> Result<HashMap<i64, TestId>, DbError> {
        let rows = self.tests_by_number(numbers).await?;
        Ok(rows.into_iter().map(|(number, test, _, _)| (number, test)).collect())
    }
}
