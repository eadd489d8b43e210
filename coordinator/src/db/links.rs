//! Tests that were renamed or moved: what listings say of their bodies, and which test is which earlier one.

use super::raw::{clean, subject};
use super::{Db, DbError, change, postgres, read};
use flakefarm_shared::{TestId, UnixMicros};
use sqlx::QueryBuilder;
use std::collections::BTreeMap;

/// Rows of one statement.
const ROWS: usize = 1_000;
/// Earlier names of one test that are followed.
const MOST_EARLIER: usize = 100;

/// A test as the last listing that had it saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTest {
    /// The test's number.
    pub number: i64,
    /// The test.
    pub test: TestId,
    /// Its parts as JSON, if somebody took it apart.
    pub parts: Option<String>,
    /// What it does, see [`flakefarm_shared::TestSource`]; none if that could not be told.
    pub body: Option<String>,
    /// When that was.
    pub listed_at: UnixMicros,
}

/// Who says that a test is an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkOrigin {
    /// Two listings did: one disappeared, the other appeared, and their bodies are the same.
    Found,
    /// Somebody did.
    Said,
}

impl LinkOrigin {
    /// The stable word.
    pub fn word(self) -> &'static str {
        match self {
            LinkOrigin::Found => "found",
            LinkOrigin::Said => "said",
        }
    }
}

/// A test that is what an earlier one was, or was taken for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRow {
    /// The test, by number and id.
    pub test: (i64, TestId),
    /// What it was.
    pub earlier: (i64, TestId),
    /// Who says so.
    pub origin: LinkOrigin,
    /// Why, for people.
    pub reason: String,
    /// Since when.
    pub linked_at: UnixMicros,
    /// When it was taken back.
    pub unlinked_at: Option<UnixMicros>,
}

type RawListed = (i64, String, Option<String>, Option<String>, i64);
type RawLink = (i64, String, i64, String, String, String, i64, Option<i64>);

impl Db {
    /// Notes what a listing of all tests of a project said of their bodies. The tests are known.
    pub async fn note_listed(
        &self,
        project: &str,
        tests: &[(TestId, Option<String>)],
        at: UnixMicros,
    ) -> Result<(), DbError> {
        const UPDATE: &str = "UPDATE tests SET body = new.column2, listed_at = ";
        let project = clean(project);
        let of = |(test, body): &(TestId, Option<String>)| {
            (subject(&project, &clean(test.as_str())), body.as_deref().map(clean))
        };
        // In the order of subjects, which is the order of locks.
        let rows: Vec<(Vec<u8>, Option<String>)> =
            tests.iter().map(of).collect::<BTreeMap<_, _>>().into_iter().collect();
        for rows in rows.chunks(ROWS) {
            match self {
                Db::Sqlite(store) => {
                    let mut update = QueryBuilder::<sqlx::Sqlite>::new(UPDATE);
                    update.push_bind(at).push(" FROM (");
                    update.push_values(rows, |mut row, (subject, body)| {
                        row.push_bind(subject.clone()).push_bind(body.clone());
                    });
                    update.push(") AS new WHERE tests.subject = new.column1");
                    update.build().execute(&store.writer).await.map(drop)
                }
                Db::Postgres(store) => {
                    let mut update = QueryBuilder::<sqlx::Postgres>::new(UPDATE);
                    update.push_bind(at).push(" FROM (");
                    update.push_values(rows, |mut row, (subject, body)| {
                        row.push_bind(subject.clone()).push_bind(body.clone());
                    });
                    update.push(") AS new WHERE tests.subject = new.column1");
                    postgres::in_time(update.build().execute(&store.pool)).await.map(drop)
                }
            }
            .map_err(|source| DbError::from_driver("note a listing", source))?;
        }
        Ok(())
    }

    /// The tests of a project that a listing ever had.
    pub async fn listed_tests(&self, project: &str) -> Result<Vec<ListedTest>, DbError> {
        let query = "SELECT tests.number, tests.test, tests.parts, tests.body, tests.listed_at
                     FROM tests JOIN projects ON projects.number = tests.project
                     WHERE projects.name = $1 AND tests.listed_at IS NOT NULL ORDER BY tests.number";
        let rows: Vec<RawListed> =
            read!(self, "read listed tests", fetch_all, sqlx::query_as(query).bind(clean(project)))?;
        let row = |(number, test, parts, body, listed_at)| ListedTest {
            number,
            test: TestId(test),
            parts,
            body,
            listed_at,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Says that a test is what `earlier` was, renamed or moved; saying it again renews it. A test is the
    /// earlier one of one other at most.
    pub async fn link_tests(
        &self,
        test: i64,
        earlier: i64,
        (origin, reason): (LinkOrigin, &str),
        now: UnixMicros,
    ) -> Result<(), DbError> {
        if test == earlier {
            return Err(DbError::Conflict("a test is not linked to itself".to_owned()));
        }
        let query = "SELECT tests.test FROM test_links JOIN tests ON tests.number = test_links.test
                     WHERE test_links.earlier = $1 AND test_links.test <> $2 AND test_links.unlinked_at IS NULL";
        let other: Option<String> = read!(
            self,
            "read links of tests",
            fetch_optional,
            sqlx::query_scalar(query).bind(earlier).bind(test)
        )?;
        if let Some(other) = other {
            return Err(DbError::Conflict(format!("it is linked already, as what `{other}` was")));
        }
        change!(
            self,
            "link tests",
            sqlx::query(
                "INSERT INTO test_links (test, earlier, origin, reason, linked_at) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (test, earlier) DO UPDATE SET origin = excluded.origin, reason = excluded.reason,
                     linked_at = excluded.linked_at, unlinked_at = NULL",
            )
            .bind(test)
            .bind(earlier)
            .bind(origin.word())
            .bind(clean(reason))
            .bind(now)
        )?;
        Ok(())
    }

    /// Takes a link back; gives whether it was there.
    pub async fn unlink_tests(&self, test: i64, earlier: i64, now: UnixMicros) -> Result<bool, DbError> {
        let query = "UPDATE test_links SET unlinked_at = $3
                     WHERE test = $1 AND earlier = $2 AND unlinked_at IS NULL";
        let changed = change!(self, "unlink tests", sqlx::query(query).bind(test).bind(earlier).bind(now))?;
        Ok(changed > 0)
    }

    /// All links of a project, those that were taken back too, the latest first.
    pub async fn links(&self, project: &str) -> Result<Vec<LinkRow>, DbError> {
        let query = "SELECT test_links.test, tests.test, test_links.earlier, before.test, test_links.origin,
                            test_links.reason, test_links.linked_at, test_links.unlinked_at
                     FROM test_links JOIN tests ON tests.number = test_links.test
                          JOIN tests AS before ON before.number = test_links.earlier
                          JOIN projects ON projects.number = tests.project
                     WHERE projects.name = $1
                     ORDER BY test_links.linked_at DESC, test_links.test, test_links.earlier";
        let rows: Vec<RawLink> =
            read!(self, "read links of tests", fetch_all, sqlx::query_as(query).bind(clean(project)))?;
        let row = |(test, name, earlier, earlier_name, origin, reason, linked_at, unlinked_at): RawLink| {
            let origin = [LinkOrigin::Found, LinkOrigin::Said]
                .into_iter()
                .find(|known| known.word() == origin)
                .ok_or_else(|| DbError::Damaged(format!("origin of a link: `{origin}`")))?;
            let (test, earlier) = ((test, TestId(name)), (earlier, TestId(earlier_name)));
            Ok(LinkRow { test, earlier, origin, reason, linked_at, unlinked_at })
        };
        rows.into_iter().map(row).collect()
    }

    /// What a test has become, if it is linked.
    pub async fn later_test(&self, test: i64) -> Result<Option<TestId>, DbError> {
        let query = "SELECT tests.test FROM test_links JOIN tests ON tests.number = test_links.test
                     WHERE test_links.earlier = $1 AND test_links.unlinked_at IS NULL";
        let name: Option<String> =
            read!(self, "read links of tests", fetch_optional, sqlx::query_scalar(query).bind(test))?;
        Ok(name.map(TestId))
    }

    /// What a test was called before, as far as it is linked, with the links of those.
    pub async fn earlier_tests(&self, test: i64) -> Result<Vec<(i64, TestId)>, DbError> {
        let mut found: Vec<(i64, TestId)> = Vec::new();
        let mut open = vec![test];
        while let Some(next) = open.pop() {
            let query = "SELECT tests.number, tests.test FROM test_links
                         JOIN tests ON tests.number = test_links.earlier
                         WHERE test_links.test = $1 AND test_links.unlinked_at IS NULL";
            let rows: Vec<(i64, String)> =
                read!(self, "read links of tests", fetch_all, sqlx::query_as(query).bind(next))?;
            for (number, name) in rows {
                // Links may go in a circle, which says nothing new.
                let is_new = number != test && found.iter().all(|(known, _)| *known != number);
                if is_new && found.len() < MOST_EARLIER {
                    found.push((number, TestId(name)));
                    open.push(number);
                }
            }
        }
        Ok(found)
    }
}
