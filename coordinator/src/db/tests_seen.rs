//! Tests as entities: known by project and id, with when they were first and last seen.

use super::raw::{Noted, RawTest, clean, subject};
use super::rows::{SeenTest, TestRow};
use super::{Db, DbError, postgres, read};
use flakefarm_shared::{TestId, UnixMicros};
use std::collections::BTreeMap;

impl Db {
    /// Notes that a project's tests were there at `at`. Seeing a test again, in whatever order, leaves the
    /// first and the last time; parts once known stay known.
    pub async fn note_tests(&self, project: &str, tests: &[SeenTest], at: UnixMicros) -> Result<(), DbError> {
        if tests.is_empty() {
            return Ok(());
        }
        let number = self.project_number(project, at).await?;
        let project = clean(project);
        // One row per subject, in the order of subjects, which is the order of locks.
        let by_subject: BTreeMap<Vec<u8>, Noted> = tests
            .iter()
            .map(|seen| {
                let test = clean(seen.test.as_str());
                let subject = subject(&project, &test);
                let parts = seen.parts.as_deref().map(clean);
                (subject.clone(), Noted { subject, test, parts })
            })
            .collect();
        let noted: Vec<Noted> = by_subject.into_values().collect();
        match self {
            Db::Sqlite(store) => store.note_tests(number, &noted, at).await,
            Db::Postgres(store) => postgres::in_time(store.note_tests(number, &noted, at)).await,
        }
        .map_err(|source| DbError::from_driver("note tests", source))
    }

    /// All tests of a project that anybody ever saw, by id.
    pub async fn tests(&self, project: &str) -> Result<Vec<TestRow>, DbError> {
        let query = "SELECT tests.number, tests.test, tests.parts, tests.first_seen, tests.last_seen
                     FROM tests JOIN projects ON projects.number = tests.project WHERE projects.name = $1";
        let rows: Vec<RawTest> =
            read!(self, "read a project's tests", fetch_all, sqlx::query_as(query).bind(clean(project)))?;
        let mut tests: Vec<TestRow> = rows.into_iter().map(TestRow::from).collect();
        // Here, not in SQL: databases differ in how they sort text.
        tests.sort_by(|a, b| a.test.cmp(&b.test));
        Ok(tests)
    }

    /// One test of a project.
    pub async fn test(&self, project: &str, test: &TestId) -> Result<Option<TestRow>, DbError> {
        let query = "SELECT number, test, parts, first_seen, last_seen FROM tests WHERE subject = $1";
        let subject = subject(&clean(project), &clean(test.as_str()));
        let row: Option<RawTest> =
            read!(self, "read a test", fetch_optional, sqlx::query_as(query).bind(subject))?;
        Ok(row.map(TestRow::from))
    }
}
