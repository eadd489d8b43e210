//! Links between tests as people make them and see them: by their names.

use crate::db::{Db, DbError, LinkOrigin, LinkRow};
use flakefarm_shared::{TestId, UnixMicros};
use serde::{Deserialize, Serialize};

/// Characters of a reason.
const REASON: usize = 500;

/// A test that is what an earlier one was, or was taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSeen {
    /// The test.
    pub test: String,
    /// What it was.
    pub earlier: String,
    /// `found` by two listings, or `said` by somebody.
    pub origin: String,
    /// Why, for people.
    pub reason: String,
    /// Since when, in microseconds since the epoch.
    pub linked_at: UnixMicros,
    /// When it was taken back; none while it holds.
    pub unlinked_at: Option<UnixMicros>,
}

/// The links of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// `flakefarm.links/v1`.
    pub schema: String,
    /// The project.
    pub project: String,
    /// The latest first, those that were taken back too.
    pub links: Vec<LinkSeen>,
}

/// The links of a project.
pub async fn links(db: &Db, project: &str) -> Result<Links, DbError> {
    let seen = |row: LinkRow| LinkSeen {
        test: row.test.1.to_string(),
        earlier: row.earlier.1.to_string(),
        origin: row.origin.word().to_owned(),
        reason: row.reason,
        linked_at: row.linked_at,
        unlinked_at: row.unlinked_at,
    };
    Ok(Links {
        schema: "flakefarm.links/v1".to_owned(),
        project: project.to_owned(),
        links: db.links(project).await?.into_iter().map(seen).collect(),
    })
}

/// Says that a project's test is what an earlier one was. Both are tests that somebody saw.
pub async fn link(
    db: &Db,
    project: &str,
    (test, earlier): (&TestId, &TestId),
    reason: Option<&str>,
    now: UnixMicros,
) -> Result<(), DbError> {
    let (number, before) = (number(db, project, test).await?, number(db, project, earlier).await?);
    let reason: String = reason.unwrap_or_default().chars().take(REASON).collect();
    db.link_tests(number, before, (LinkOrigin::Said, &reason), now).await
}

/// Takes a link back; gives whether it was there.
pub async fn unlink(
    db: &Db,
    project: &str,
    (test, earlier): (&TestId, &TestId),
    now: UnixMicros,
) -> Result<bool, DbError> {
    let (number, before) = (number(db, project, test).await?, number(db, project, earlier).await?);
    db.unlink_tests(number, before, now).await
}

async fn number(db: &Db, project: &str, test: &TestId) -> Result<i64, DbError> {
    let row = db.test(project, test).await?;
    Ok(row.ok_or_else(|| DbError::NotFound(format!("a test `{test}` of {project}")))?.number)
}
