//! Days of a project in columns, and what was around a moment: what questions over all tests read.

use super::raw::clean;
use super::{Db, DbError, change, read};
use flakefarm_shared::{TestId, TreatmentClass, UnixMicros};

/// A day of a project in one treatment class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectDayRow {
    /// What the runs are evidence of.
    pub class: TreatmentClass,
    /// The day, counted from the epoch.
    pub day: i64,
    /// Its tests, see [`crate::history::columns`].
    pub packed: Vec<u8>,
}

/// The runs next to a moment that say which revision they ran.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunAround {
    /// The revision of the last run before it.
    pub before: Option<String>,
    /// The revision of the first run from it on.
    pub after: Option<String>,
}

impl Db {
    /// Records a day of a project; one that is there is replaced.
    pub async fn put_project_day(
        &self,
        project: &str,
        row: &ProjectDayRow,
        now: UnixMicros,
    ) -> Result<(), DbError> {
        let number = self.project_number(project, now).await?;
        change!(
            self,
            "record a day",
            sqlx::query(
                "INSERT INTO project_days (project, class, day, packed) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (project, class, day) DO UPDATE SET packed = excluded.packed",
            )
            .bind(number)
            .bind(row.class.word())
            .bind(row.day)
            .bind(&row.packed)
        )?;
        Ok(())
    }

    /// Days of a project from one (inclusive) to another (exclusive), oldest first.
    pub async fn project_days(
        &self,
        project: &str,
        from: i64,
        to: i64,
    ) -> Result<Vec<ProjectDayRow>, DbError> {
        let query = "SELECT project_days.class, project_days.day, project_days.packed
                     FROM project_days JOIN projects ON projects.number = project_days.project
                     WHERE projects.name = $1 AND day >= $2 AND day < $3 ORDER BY day, class";
        let rows: Vec<(String, i64, Vec<u8>)> = read!(
            self,
            "read a project's days",
            fetch_all,
            sqlx::query_as(query).bind(clean(project)).bind(from).bind(to)
        )?;
        let row = |(class, day, packed): (String, i64, Vec<u8>)| {
            let class = TreatmentClass::of_word(&class)
                .ok_or_else(|| DbError::Damaged(format!("treatment class: `{class}`")))?;
            Ok(ProjectDayRow { class, day, packed })
        };
        rows.into_iter().map(row).collect()
    }

    /// Days of a project that were summed up by a program that did not know of columns yet.
    pub async fn days_without_columns(&self, project: &str) -> Result<Vec<i64>, DbError> {
        let query = "SELECT aggregated_days.day
                     FROM aggregated_days JOIN projects ON projects.number = aggregated_days.project
                     WHERE projects.name = $1 AND aggregated_days.points > 0 AND NOT EXISTS (
                         SELECT 1 FROM project_days WHERE project_days.project = aggregated_days.project
                             AND project_days.day = aggregated_days.day)
                     ORDER BY aggregated_days.day";
        read!(self, "read days without columns", fetch_all, sqlx::query_scalar(query).bind(clean(project)))
    }

    /// Notes that points of days that are over came at `at`: they are to be summed up again.
    pub async fn note_late(&self, project: &str, days: &[i64], at: UnixMicros) -> Result<(), DbError> {
        if days.is_empty() {
            return Ok(());
        }
        let number = self.project_number(project, at).await?;
        for day in days {
            change!(
                self,
                "note a late report",
                sqlx::query(
                    "INSERT INTO aggregated_days (project, day, points, at, late_at) VALUES ($1, $2, 0, 0, $3)
                     ON CONFLICT (project, day) DO UPDATE SET late_at = excluded.late_at",
                )
                .bind(number)
                .bind(*day)
                .bind(at)
            )?;
        }
        Ok(())
    }

    /// Days of which points came after they were summed up last, oldest first.
    pub async fn late_days(&self, project: &str) -> Result<Vec<i64>, DbError> {
        let query = "SELECT aggregated_days.day
                     FROM aggregated_days JOIN projects ON projects.number = aggregated_days.project
                     WHERE projects.name = $1 AND aggregated_days.late_at >= aggregated_days.at
                     ORDER BY aggregated_days.day";
        read!(self, "read late days", fetch_all, sqlx::query_scalar(query).bind(clean(project)))
    }

    /// Deletes days, and notes of days, before a day; gives how many.
    pub async fn delete_days_before(&self, day: i64) -> Result<u64, DbError> {
        let notes = "DELETE FROM aggregated_days WHERE day < $1";
        change!(self, "delete notes of days", sqlx::query(notes).bind(day))?;
        let query = "DELETE FROM project_days WHERE day < $1";
        change!(self, "delete days", sqlx::query(query).bind(day))
    }

    /// How many days of projects there are before a day.
    pub async fn count_days_before(&self, day: i64) -> Result<u64, DbError> {
        let query = "SELECT COUNT(*) FROM project_days WHERE day < $1";
        let count: i64 = read!(self, "count days", fetch_one, sqlx::query_scalar(query).bind(day))?;
        Ok(count.unsigned_abs())
    }

    /// The revisions of a project's runs of one treatment class next to a moment.
    pub async fn runs_around(
        &self,
        project: &str,
        class: TreatmentClass,
        at: UnixMicros,
    ) -> Result<RunAround, DbError> {
        let before = "SELECT runs.revision FROM runs JOIN projects ON projects.number = runs.project
                      WHERE projects.name = $1 AND runs.class = $2 AND runs.started_at < $3
                        AND runs.revision IS NOT NULL ORDER BY runs.started_at DESC, runs.id DESC LIMIT 1";
        let after = "SELECT runs.revision FROM runs JOIN projects ON projects.number = runs.project
                     WHERE projects.name = $1 AND runs.class = $2 AND runs.started_at >= $3
                       AND runs.revision IS NOT NULL ORDER BY runs.started_at, runs.id LIMIT 1";
        let project = clean(project);
        Ok(RunAround {
            before: read!(
                self,
                "read the run before",
                fetch_optional,
                sqlx::query_scalar(before).bind(&project).bind(class.word()).bind(at)
            )?,
            after: read!(
                self,
                "read the run after",
                fetch_optional,
                sqlx::query_scalar(after).bind(&project).bind(class.word()).bind(at)
            )?,
        })
    }

    /// How many tests of a project anybody ever saw.
    pub async fn count_tests(&self, project: &str) -> Result<u64, DbError> {
        // Not a join: PostgreSQL would read the tests of all projects.
        let query =
            "SELECT COUNT(*) FROM tests WHERE project = (SELECT number FROM projects WHERE name = $1)";
        let count: i64 =
            read!(self, "count tests", fetch_one, sqlx::query_scalar(query).bind(clean(project)))?;
        Ok(count.unsigned_abs())
    }

    /// The numbers of a project's tests, lowest first, `limit` at the most.
    pub async fn first_tests(&self, project: &str, limit: u32) -> Result<Vec<i64>, DbError> {
        let query = "SELECT tests.number FROM tests JOIN projects ON projects.number = tests.project
                     WHERE projects.name = $1 ORDER BY tests.number LIMIT $2";
        read!(
            self,
            "read tests",
            fetch_all,
            sqlx::query_scalar(query).bind(clean(project)).bind(i64::from(limit))
        )
    }

    /// Names of tests by number, with when they were first and last seen.
    pub async fn tests_by_number(
        &self,
        numbers: &[i64],
    ) -> Result<Vec<(i64, TestId, UnixMicros, UnixMicros)>, DbError> {
        let rows: Vec<(i64, String, i64, i64)> = super::read_among!(
            self,
            "read tests",
            "SELECT number, test, first_seen, last_seen FROM tests WHERE number IN (",
            numbers,
            [],
            ")"
        );
        Ok(rows.into_iter().map(|(number, test, first, last)| (number, TestId(test), first, last)).collect())
    }
}
