//! What remains of samples: packed sums, by test, treatment class and time, and what was noted of days.

use super::raw::clean;
use super::{Db, DbError, change, postgres, read, read_among};
use crate::calendar::month_of;
use flakefarm_shared::samples::codec;
use flakefarm_shared::{TreatmentClass, UnixMicros};
use sqlx::QueryBuilder;
use uuid::Uuid;

/// Rows of one statement.
const ROWS: usize = 1_000;

/// What is summed up in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackSpan {
    /// The hours of a day.
    Hours,
    /// The days of a month.
    Days,
}

impl PackSpan {
    fn word(self) -> &'static str {
        match self {
            PackSpan::Hours => "hour",
            PackSpan::Days => "day",
        }
    }

    /// The days from one (inclusive) to another (exclusive) on which packs start.
    fn starts(self, from: i64, to: i64) -> Vec<i64> {
        let to = to.min(codec::END_OF_DAYS);
        match self {
            PackSpan::Hours => (from..to).collect(),
            PackSpan::Days => (from..to).filter(|day| month_of(*day).1 == 1).collect(),
        }
    }
}

/// A pack of sums of one test and treatment class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackRow {
    /// The test's number.
    pub test: i64,
    /// What the points are evidence of.
    pub class: TreatmentClass,
    /// The first day that it is of, counted from the epoch.
    pub start: i64,
    /// Points that it is made of.
    pub points: u64,
    /// The sums, see [`crate::history::aggregate`].
    pub packed: Vec<u8>,
}

type RawPack = (i64, String, i64, i64, Vec<u8>);

fn pack_row((test, class, start, points, packed): RawPack) -> Result<PackRow, DbError> {
    let class = TreatmentClass::of_word(&class)
        .ok_or_else(|| DbError::Damaged(format!("treatment class: `{class}`")))?;
    Ok(PackRow { test, class, start, points: points.unsigned_abs(), packed })
}

/// What was noted of a day of a project when its points were summed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayRow {
    /// The day, counted from the epoch.
    pub day: i64,
    /// Points that there were.
    pub points: u64,
    /// When that was.
    pub at: UnixMicros,
    /// Why it is not whole, if it is not.
    pub gap: Option<String>,
}

/// A failure of one test, over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureRow {
    /// What the attempts are evidence of.
    pub class: String,
    /// Which failure.
    pub signature: u64,
    /// How often.
    pub count: u64,
    /// When first.
    pub first_at: UnixMicros,
    /// When last.
    pub last_at: UnixMicros,
    /// One of its messages.
    pub message: String,
}

/// A pass and a failure of one test on one revision and variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlipRow {
    /// The revision.
    pub revision: String,
    /// The variant; empty for none.
    pub variant: String,
    /// The branch.
    pub branch: Option<String>,
    /// When the run ended that showed it.
    pub at: UnixMicros,
}

/// Rows are in the order of days, then of tests: each pack is looked up by its day.
const OF_STARTS: &str = "SELECT test, class, start, points, packed FROM aggregates WHERE start IN (";

impl Db {
    /// The packs of some tests that start on a day.
    pub async fn packs_of(&self, tests: &[i64], span: PackSpan, start: i64) -> Result<Vec<PackRow>, DbError> {
        let rows: Vec<RawPack> = read_among!(
            self,
            "read aggregates",
            "SELECT test, class, start, points, packed FROM aggregates WHERE test IN (",
            tests,
            [") AND span = ", span.word(), " AND start = ", start],
            ""
        );
        rows.into_iter().map(pack_row).collect()
    }

    /// Records packs; those that are there are replaced.
    pub async fn put_packs(&self, span: PackSpan, packs: &[PackRow]) -> Result<(), DbError> {
        const INSERT: &str = "INSERT INTO aggregates (test, span, class, start, points, packed) ";
        const CONFLICT: &str = " ON CONFLICT (span, start, test, class) DO UPDATE SET \
                                points = excluded.points, packed = excluded.packed";
        for packs in packs.chunks(ROWS) {
            match self {
                Db::Sqlite(store) => {
                    let mut insert = QueryBuilder::<sqlx::Sqlite>::new(INSERT);
                    insert.push_values(packs, |mut row, pack| {
                        row.push_bind(pack.test)
                            .push_bind(span.word())
                            .push_bind(pack.class.word())
                            .push_bind(pack.start)
                            .push_bind(pack.points.cast_signed())
                            .push_bind(pack.packed.clone());
                    });
                    insert.push(CONFLICT);
                    insert.build().execute(&store.writer).await.map(drop)
                }
                Db::Postgres(store) => {
                    let mut insert = QueryBuilder::<sqlx::Postgres>::new(INSERT);
                    insert.push_values(packs, |mut row, pack| {
                        row.push_bind(pack.test)
                            .push_bind(span.word())
                            .push_bind(pack.class.word())
                            .push_bind(pack.start)
                            .push_bind(pack.points.cast_signed())
                            .push_bind(pack.packed.clone());
                    });
                    insert.push(CONFLICT);
                    postgres::in_time(insert.build().execute(&store.pool)).await.map(drop)
                }
            }
            .map_err(|source| DbError::from_driver("record aggregates", source))?;
        }
        Ok(())
    }

    /// The packs of one test that start from a day (inclusive) to a day (exclusive), oldest first.
    pub async fn packs_of_test(
        &self,
        test: i64,
        span: PackSpan,
        from: i64,
        to: i64,
    ) -> Result<Vec<PackRow>, DbError> {
        let oldest = "SELECT MIN(start) FROM aggregates WHERE span = $1";
        let oldest: Option<i64> =
            read!(self, "read aggregates", fetch_one, sqlx::query_scalar(oldest).bind(span.word()))?;
        let Some(oldest) = oldest else { return Ok(Vec::new()) };
        let starts = span.starts(oldest.max(from), to);
        let rows: Vec<RawPack> = read_among!(
            self,
            "read a test's aggregates",
            OF_STARTS,
            starts,
            [") AND test = ", test, " AND span = ", span.word()],
            " ORDER BY start, class"
        );
        rows.into_iter().map(pack_row).collect()
    }

    /// How many packs start before a day.
    pub async fn count_packs_before(&self, span: PackSpan, day: i64) -> Result<u64, DbError> {
        let query = "SELECT COUNT(*) FROM aggregates WHERE span = $1 AND start < $2";
        let count: i64 = read!(
            self,
            "count aggregates",
            fetch_one,
            sqlx::query_scalar(query).bind(span.word()).bind(day)
        )?;
        Ok(count.unsigned_abs())
    }

    /// Deletes packs that start before a day; gives how many.
    pub async fn delete_packs_before(&self, span: PackSpan, day: i64) -> Result<u64, DbError> {
        let query = "DELETE FROM aggregates WHERE span = $1 AND start < $2";
        change!(self, "delete aggregates", sqlx::query(query).bind(span.word()).bind(day))
    }

    /// Notes that a day's points were summed up.
    pub async fn note_day(&self, project: &str, note: &DayRow) -> Result<(), DbError> {
        let number = self.project_number(project, note.at).await?;
        change!(
            self,
            "note a day",
            sqlx::query(
                "INSERT INTO aggregated_days (project, day, points, at, gap) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (project, day) DO UPDATE SET points = excluded.points, at = excluded.at,
                     gap = excluded.gap",
            )
            .bind(number)
            .bind(note.day)
            .bind(note.points.cast_signed())
            .bind(note.at)
            .bind(note.gap.as_deref().map(clean))
        )?;
        Ok(())
    }

    /// What was noted of a project's days from one (inclusive) to another (exclusive), oldest first.
    pub async fn noted_days(&self, project: &str, from: i64, to: i64) -> Result<Vec<DayRow>, DbError> {
        let query =
            "SELECT aggregated_days.day, aggregated_days.points, aggregated_days.at, aggregated_days.gap
                     FROM aggregated_days JOIN projects ON projects.number = aggregated_days.project
                     WHERE projects.name = $1 AND day >= $2 AND day < $3 ORDER BY day";
        let rows: Vec<(i64, i64, i64, Option<String>)> = read!(
            self,
            "read noted days",
            fetch_all,
            sqlx::query_as(query).bind(clean(project)).bind(from).bind(to)
        )?;
        let row = |(day, points, at, gap): (i64, i64, i64, Option<String>)| DayRow {
            day,
            points: points.unsigned_abs(),
            at,
            gap,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Runs of a project since `since` whose outcomes count for nothing.
    pub async fn incidents(&self, project: &str, since: UnixMicros) -> Result<Vec<Uuid>, DbError> {
        let query = "SELECT runs.id FROM runs JOIN projects ON projects.number = runs.project
                     WHERE projects.name = $1 AND runs.incident IS NOT NULL
                       AND COALESCE(runs.finished_at, runs.started_at) >= $2";
        read!(self, "read incidents", fetch_all, sqlx::query_scalar(query).bind(clean(project)).bind(since))
    }

    /// How a test failed since `since`, by signature, the most often first. Incidents do not count.
    pub async fn signatures_of(&self, test: i64, since: UnixMicros) -> Result<Vec<SignatureRow>, DbError> {
        let query = "SELECT COALESCE(failures.class, runs.class), failures.signature,
                            CAST(SUM(failures.count) AS BIGINT), MIN(failures.at), MAX(failures.at),
                            MAX(failures.message)
                     FROM failures JOIN runs ON runs.id = failures.run
                     WHERE failures.test = $1 AND failures.at >= $2 AND runs.incident IS NULL
                     GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 100";
        let rows: Vec<(String, i64, i64, i64, i64, String)> =
            read!(self, "read how a test failed", fetch_all, sqlx::query_as(query).bind(test).bind(since))?;
        let row =
            |(class, signature, count, first_at, last_at, message): (String, i64, i64, i64, i64, String)| {
                SignatureRow {
                    class,
                    signature: signature.cast_unsigned(),
                    count: count.unsigned_abs(),
                    first_at,
                    last_at,
                    message,
                }
            };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Where a test both passed and failed since `since`, the newest first.
    pub async fn flips_of(&self, test: i64, since: UnixMicros) -> Result<Vec<FlipRow>, DbError> {
        let query = "SELECT revision, variant, branch, at FROM flips WHERE test = $1 AND at >= $2
                     ORDER BY at DESC, revision LIMIT 1000";
        let rows: Vec<(String, String, Option<String>, i64)> =
            read!(self, "read flips", fetch_all, sqlx::query_as(query).bind(test).bind(since))?;
        let row = |(revision, variant, branch, at)| FlipRow { revision, variant, branch, at };
        Ok(rows.into_iter().map(row).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SQLite chooses without statistics, so what it chooses for an empty table it chooses for a large one.
    #[tokio::test]
    async fn sqlite_looks_up_the_sums_of_one_test_and_reads_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("farm.db").display());
        let db = Db::open(&url).await.unwrap();
        let Db::Sqlite(store) = &db else { panic!("{url} is SQLite") };
        let plan = format!(
            "EXPLAIN QUERY PLAN {OF_STARTS}1, 2) AND test = 3 AND span = 'hour' ORDER BY start, class"
        );
        let steps: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(plan)).fetch_all(&store.readers).await.unwrap();
        let found =
            steps.iter().any(|(.., step)| step.contains("PRIMARY KEY (span=? AND start=? AND test=?"));
        assert!(found, "{steps:?}");
    }

    #[test]
    fn days_of_months_are_packed_by_their_first_day() {
        // From the 28th of February to the 2nd of April 2026.
        assert_eq!(PackSpan::Days.starts(20_512, 20_546), [20_513, 20_544]);
        assert_eq!(PackSpan::Hours.starts(20_512, 20_514), [20_512, 20_513]);
        assert_eq!(PackSpan::Hours.starts(9, 9), [0i64; 0]);
    }
}
