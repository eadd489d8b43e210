//! What callers may see: pages of sweeps, dead jobs and events, and blobs, each limited to projects.
//! `projects` are names; none means all.

use super::events::{EventRow, RawEvent};
use super::raw::{RawJob, RawSweep, clean};
use super::rows::{JobRow, SweepRow};
use super::{Db, DbError, change, postgres, read};
use flakefarm_shared::{Digest, JobId, SweepId};
use sqlx::QueryBuilder;

/// Which sweeps are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepFilter {
    /// Of these projects; none: of all.
    pub projects: Option<Vec<String>>,
    /// In this state, by its word.
    pub state: Option<String>,
    /// Older than this one.
    pub before: Option<SweepId>,
}

/// A dead job, and whose it is.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadJob {
    /// The project of its sweep.
    pub project: String,
    /// The job.
    pub job: JobRow,
}

#[derive(sqlx::FromRow)]
struct RawDeadJob {
    project: String,
    #[sqlx(flatten)]
    job: RawJob,
}

/// Runs a statement that is put together, on either database. `$build` is given an empty builder.
macro_rules! built {
    ($db:expr, $action:literal, $row:ty, $build:expr) => {{
        let build = $build;
        match $db {
            Db::Sqlite(store) => {
                let mut query = QueryBuilder::<sqlx::Sqlite>::new("");
                built!(@push query, build);
                query.build_query_as::<$row>().fetch_all(&store.readers).await
            }
            Db::Postgres(store) => {
                let mut query = QueryBuilder::<sqlx::Postgres>::new("");
                built!(@push query, build);
                postgres::in_time(query.build_query_as::<$row>().fetch_all(&store.pool)).await
            }
        }
        .map_err(|source| DbError::from_driver($action, source))
    }};
    (@push $query:ident, $parts:ident) => {
        for part in &$parts {
            match part {
                Part::Sql(text) => $query.push(*text),
                Part::Text(text) => $query.push_bind(text.clone()),
                Part::Number(number) => $query.push_bind(*number),
                Part::Id(id) => $query.push_bind(*id),
            };
        }
    };
}

/// A piece of a statement.
enum Part {
    Sql(&'static str),
    Text(String),
    Number(i64),
    Id(uuid::Uuid),
}

/// `column IN (…)`, or nothing to filter by; no name at all selects nothing.
fn among(parts: &mut Vec<Part>, column: &'static str, names: Option<&[String]>) {
    let Some(names) = names else { return };
    parts.push(Part::Sql(" AND "));
    parts.push(Part::Sql(column));
    parts.push(Part::Sql(" IN ("));
    if names.is_empty() {
        parts.push(Part::Sql("NULL"));
    }
    for (place, name) in names.iter().enumerate() {
        if place > 0 {
            parts.push(Part::Sql(", "));
        }
        parts.push(Part::Text(clean(name)));
    }
    parts.push(Part::Sql(")"));
}

impl Db {
    /// The newest sweeps that pass the filter, newest first.
    pub async fn sweeps_page(&self, filter: &SweepFilter, limit: u32) -> Result<Vec<SweepRow>, DbError> {
        let mut parts = vec![Part::Sql("SELECT * FROM sweeps WHERE 1 = 1")];
        among(&mut parts, "project", filter.projects.as_deref());
        if let Some(state) = &filter.state {
            parts.extend([Part::Sql(" AND state = "), Part::Text(clean(state))]);
        }
        if let Some(before) = filter.before {
            let sql = " AND (created_at, id) < (SELECT created_at, id FROM sweeps WHERE id = ";
            parts.extend([Part::Sql(sql), Part::Id(before.0), Part::Sql(")")]);
        }
        parts.push(Part::Sql(" ORDER BY created_at DESC, id DESC LIMIT "));
        parts.push(Part::Number(i64::from(limit)));
        let rows = built!(self, "read the sweeps", RawSweep, parts)?;
        rows.into_iter().map(SweepRow::try_from).collect()
    }

    /// Dead jobs that were not discarded, the latest first, from before the job `before`.
    pub async fn dead_page(
        &self,
        projects: Option<&[String]>,
        before: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<DeadJob>, DbError> {
        let mut parts = vec![Part::Sql(
            "SELECT jobs.*, sweeps.project FROM jobs JOIN sweeps ON sweeps.id = jobs.sweep
             WHERE jobs.ending = 'dead' AND jobs.discarded_at IS NULL",
        )];
        among(&mut parts, "sweeps.project", projects);
        if let Some(before) = before {
            let sql = " AND (jobs.settled_at, jobs.id) < (SELECT settled_at, id FROM jobs WHERE id = ";
            parts.extend([Part::Sql(sql), Part::Id(before.0), Part::Sql(")")]);
        }
        parts.push(Part::Sql(" ORDER BY jobs.settled_at DESC, jobs.id DESC LIMIT "));
        parts.push(Part::Number(i64::from(limit)));
        let rows = built!(self, "read dead jobs", RawDeadJob, parts)?;
        let read = |row: RawDeadJob| Ok(DeadJob { project: row.project, job: row.job.try_into()? });
        rows.into_iter().map(read).collect()
    }

    /// The project of a sweep.
    pub async fn project_of(&self, sweep: SweepId) -> Result<Option<String>, DbError> {
        let query = "SELECT project FROM sweeps WHERE id = $1";
        read!(self, "read a sweep's project", fetch_optional, sqlx::query_scalar(query).bind(sweep.0))
    }

    /// Events recorded after the one of the id `after`, in their order. Those of the farm itself are
    /// only for who may see all projects.
    pub async fn events_page(
        &self,
        projects: Option<&[String]>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<EventRow>, DbError> {
        let mut parts = vec![Part::Sql("SELECT * FROM events WHERE id > "), Part::Number(after)];
        among(&mut parts, "project", projects);
        parts.push(Part::Sql(" ORDER BY id LIMIT "));
        parts.push(Part::Number(i64::from(limit)));
        let rows = built!(self, "read events", RawEvent, parts)?;
        Ok(rows.into_iter().filter_map(RawEvent::known).collect())
    }

    /// Records that projects may read blobs.
    pub async fn grant_blobs(&self, projects: &[String], digests: &[Digest]) -> Result<(), DbError> {
        const QUERY: &str = "INSERT INTO project_blobs (project, digest) VALUES ($1, $2)
                             ON CONFLICT (project, digest) DO NOTHING";
        // In one order, which is the order of locks.
        let mut pairs: Vec<(String, &str)> = projects
            .iter()
            .flat_map(|project| digests.iter().map(|digest| (clean(project), digest.as_str())))
            .collect();
        pairs.sort();
        if pairs.is_empty() {
            return Ok(());
        }
        match self {
            Db::Sqlite(store) => {
                async {
                    let mut transaction = store.begin().await?;
                    for (project, digest) in &pairs {
                        sqlx::query(QUERY).bind(project).bind(*digest).execute(&mut *transaction).await?;
                    }
                    transaction.commit().await
                }
                .await
            }
            Db::Postgres(store) => {
                postgres::in_time(async {
                    let mut transaction = store.begin().await?;
                    for (project, digest) in &pairs {
                        sqlx::query(QUERY).bind(project).bind(*digest).execute(&mut *transaction).await?;
                    }
                    transaction.commit().await
                })
                .await
            }
        }
        .map_err(|source| DbError::from_driver("record whose blobs these are", source))
    }

    /// Records that projects may read a blob of so many bytes, which counts towards what they store.
    pub async fn charge_blob(&self, projects: &[String], digest: &Digest, bytes: u64) -> Result<(), DbError> {
        let query = "INSERT INTO project_blobs (project, digest, bytes) VALUES ($1, $2, $3)
                     ON CONFLICT (project, digest) DO UPDATE SET bytes = excluded.bytes";
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        for project in projects {
            change!(
                self,
                "record what a project stores",
                sqlx::query(query).bind(clean(project)).bind(digest.as_str()).bind(bytes)
            )?;
        }
        Ok(())
    }

    /// Bytes that count towards what a project stores.
    pub async fn stored_bytes(&self, project: &str) -> Result<u64, DbError> {
        let query = "SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM project_blobs WHERE project = $1";
        let bytes: i64 = read!(
            self,
            "read what a project stores",
            fetch_one,
            sqlx::query_scalar(query).bind(clean(project))
        )?;
        Ok(bytes.unsigned_abs())
    }

    /// Attempts of a project's running sweeps that are planned and have not ended.
    pub async fn queued_attempts(&self, project: &str) -> Result<u64, DbError> {
        let query = "SELECT CAST(COALESCE(SUM(jobs.attempts), 0) AS BIGINT) FROM jobs
                     JOIN sweeps ON sweeps.id = jobs.sweep
                     WHERE sweeps.project = $1 AND sweeps.state = 'running' AND jobs.state IN ('pending', 'queued')";
        let attempts: i64 = read!(
            self,
            "read what a project has queued",
            fetch_one,
            sqlx::query_scalar(query).bind(clean(project))
        )?;
        Ok(attempts.unsigned_abs())
    }

    /// Whether one of the projects may read a blob.
    pub async fn may_read_blob(&self, projects: &[String], digest: &Digest) -> Result<bool, DbError> {
        let mut parts = vec![
            Part::Sql("SELECT project FROM project_blobs WHERE digest = "),
            Part::Text(digest.as_str().to_owned()),
        ];
        among(&mut parts, "project", Some(projects));
        parts.push(Part::Sql(" LIMIT 1"));
        let found = built!(self, "read whose a blob is", (String,), parts)?;
        Ok(!found.is_empty())
    }
}
