//! Projects and runs: who ran tests, when, and what that is evidence of.

use super::raw::{RawOccasion, RawProject, clean};
use super::rows::{ProjectRow, RunRow};
use super::{Db, DbError, change, read};
use flakefarm_shared::UnixMicros;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Runs of a project of one class and origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsOfClass {
    /// What they are evidence of.
    pub class: String,
    /// Where they come from.
    pub origin: String,
    /// How many, incidents included.
    pub runs: u64,
    /// Runs that count for nothing.
    pub incidents: u64,
    /// Revisions that they ran.
    pub revisions: u64,
}

/// The columns of a run, with its project's name.
macro_rules! select_runs {
    ($rest:literal) => {
        concat!(
            "SELECT runs.id, projects.name, runs.origin, runs.class, runs.level, runs.revision, runs.branch, \
             runs.environment, runs.variant, runs.ci, runs.attempt, runs.started_at, runs.finished_at \
             FROM runs JOIN projects ON projects.number = runs.project ",
            $rest
        )
    };
}

impl Db {
    /// The number of a project, which is made if nobody has heard of it.
    pub(super) async fn project_number(&self, name: &str, now: UnixMicros) -> Result<i64, DbError> {
        let name = clean(name);
        change!(
            self,
            "record a project",
            sqlx::query(
                "INSERT INTO projects (name, created_at) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING"
            )
            .bind(&name)
            .bind(now)
        )?;
        let query = "SELECT number FROM projects WHERE name = $1";
        read!(self, "read a project", fetch_one, sqlx::query_scalar(query).bind(&name))
    }

    /// A project by its name.
    pub async fn project(&self, name: &str) -> Result<Option<ProjectRow>, DbError> {
        let query = "SELECT name, settings, created_at FROM projects WHERE name = $1";
        let row: Option<RawProject> =
            read!(self, "read a project", fetch_optional, sqlx::query_as(query).bind(clean(name)))?;
        Ok(row.map(ProjectRow::from))
    }

    /// All projects by name.
    pub async fn projects(&self) -> Result<Vec<ProjectRow>, DbError> {
        let query = "SELECT name, settings, created_at FROM projects";
        let rows: Vec<RawProject> = read!(self, "read the projects", fetch_all, sqlx::query_as(query))?;
        let mut projects: Vec<ProjectRow> = rows.into_iter().map(ProjectRow::from).collect();
        // Here, not in SQL: databases differ in how they sort text.
        projects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(projects)
    }

    /// Replaces what was set for a project, which is made if nobody has heard of it. `settings` is JSON.
    pub async fn set_project(&self, name: &str, settings: &str, now: UnixMicros) -> Result<(), DbError> {
        change!(
            self,
            "record a project's settings",
            sqlx::query(
                "INSERT INTO projects (name, settings, created_at) VALUES ($1, $2, $3)
                 ON CONFLICT (name) DO UPDATE SET settings = excluded.settings",
            )
            .bind(clean(name))
            .bind(clean(settings))
            .bind(now)
        )?;
        Ok(())
    }

    /// Records a run, or what has become known of it since; its project and start never change.
    pub async fn record_run(&self, run: &RunRow) -> Result<(), DbError> {
        let project = self.project_number(&run.project, run.started_at).await?;
        change!(
            self,
            "record a run",
            sqlx::query(
                "INSERT INTO runs (id, project, origin, class, level, revision, branch, environment, variant, ci,
                                   attempt, started_at, finished_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
                 ON CONFLICT (id) DO UPDATE SET origin = excluded.origin, class = excluded.class,
                     level = excluded.level, revision = excluded.revision, branch = excluded.branch,
                     environment = excluded.environment, variant = excluded.variant, ci = excluded.ci,
                     attempt = excluded.attempt,
                     finished_at = COALESCE(excluded.finished_at, runs.finished_at)",
            )
            .bind(run.id)
            .bind(project)
            .bind(run.origin.word())
            .bind(run.class.word())
            .bind(run.level.as_deref().map(clean))
            .bind(run.revision.as_deref().map(clean))
            .bind(run.branch.as_deref().map(clean))
            .bind(run.environment.as_deref().map(clean))
            .bind(run.variant.as_deref().map(clean))
            .bind(run.ci.as_deref().map(clean))
            .bind(run.attempt.map(i64::from))
            .bind(run.started_at)
            .bind(run.finished_at)
        )?;
        Ok(())
    }

    /// How many runs a project had from `from` (inclusive) to `to` (exclusive), by class and origin, with the
    /// incidents among them.
    pub async fn runs_by_class(
        &self,
        project: &str,
        from: UnixMicros,
        to: UnixMicros,
    ) -> Result<Vec<RunsOfClass>, DbError> {
        let query =
            "SELECT runs.class, runs.origin, COUNT(*), COUNT(runs.incident), COUNT(DISTINCT runs.revision)
                     FROM runs JOIN projects ON projects.number = runs.project
                     WHERE projects.name = $1 AND runs.started_at >= $2 AND runs.started_at < $3
                     GROUP BY runs.class, runs.origin ORDER BY 1, 2";
        let rows: Vec<(String, String, i64, i64, i64)> = read!(
            self,
            "count a project's runs",
            fetch_all,
            sqlx::query_as(query).bind(clean(project)).bind(from).bind(to)
        )?;
        let row =
            |(class, origin, runs, incidents, revisions): (String, String, i64, i64, i64)| RunsOfClass {
                class,
                origin,
                runs: runs.unsigned_abs(),
                incidents: incidents.unsigned_abs(),
                revisions: revisions.unsigned_abs(),
            };
        Ok(rows.into_iter().map(row).collect())
    }

    /// A run by its id.
    pub async fn run(&self, run: Uuid) -> Result<Option<RunRow>, DbError> {
        let query = select_runs!("WHERE runs.id = $1");
        let row: Option<RawOccasion> =
            read!(self, "read a run", fetch_optional, sqlx::query_as(query).bind(run))?;
        row.map(RunRow::try_from).transpose()
    }

    /// Runs of a project that started from `from` (inclusive) to `to` (exclusive), newest first.
    pub async fn runs(
        &self,
        project: &str,
        from: UnixMicros,
        to: UnixMicros,
        limit: u32,
    ) -> Result<Vec<RunRow>, DbError> {
        let query = select_runs!(
            "WHERE projects.name = $1 AND runs.started_at >= $2 AND runs.started_at < $3 \
             ORDER BY runs.started_at DESC, runs.id DESC LIMIT $4"
        );
        let rows: Vec<RawOccasion> = read!(
            self,
            "read a project's runs",
            fetch_all,
            sqlx::query_as(query).bind(clean(project)).bind(from).bind(to).bind(i64::from(limit))
        )?;
        rows.into_iter().map(RunRow::try_from).collect()
    }
}
