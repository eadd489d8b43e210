//! `POST /v1/results`: a report from CI, JUnit XML or CTRF JSON, as the body; where it comes from is in the
//! query. Streamed to a file and read there: memory stays flat, whatever is sent.

use super::App;
use super::caller::Caller;
use super::extract::Query;
use super::refused::{ErrorBody, Refused};
use crate::engine::EngineError;
use crate::history::ingest::ci::{CiJob, is_revision};
use crate::history::ingest::{self, IngestError, Ingested, SentReport};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use flakefarm_shared::now_micros;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use utoipa::IntoParams;

/// Largest report taken.
const REPORT_LIMIT: u64 = 512 << 20;

/// Where a report comes from.
#[derive(Debug, Clone, Default, Deserialize, Serialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ResultsQuery {
    /// The project's name.
    #[param(min_length = 1)]
    pub project: String,
    /// The report's name, for people.
    #[serde(default)]
    pub name: Option<String>,
    /// The revision that was tested.
    #[serde(default)]
    pub revision: Option<String>,
    /// The branch.
    #[serde(default)]
    pub branch: Option<String>,
    /// The CI system.
    #[serde(default)]
    pub provider: Option<String>,
    /// The job's name.
    #[serde(default)]
    pub job: Option<String>,
    /// Where people see the job.
    #[serde(default)]
    pub job_url: Option<String>,
    /// Which attempt at the job, from 1.
    #[serde(default)]
    pub attempt: Option<u32>,
    /// What told this run from others of the job (`os=linux`).
    #[serde(default)]
    pub variant: Option<String>,
}

/// Keep a report of CI's.
///
/// The body is JUnit XML or CTRF JSON. The same body for the same job counts once.
#[utoipa::path(
    post, path = "/v1/results", tag = "history", params(ResultsQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = Object, description = "what came of it"), (status = "default", body = ErrorBody)),
    security(("token" = ["ingest"]))
)]
pub(super) async fn take(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ResultsQuery>,
    body: Body,
) -> Result<(StatusCode, Json<Ingested>), Refused> {
    if query.project.trim().is_empty() {
        return Err(Refused::new(StatusCode::BAD_REQUEST, "a report is of a project: `project` is empty"));
    }
    may(&caller, &query.project)?;
    if let Some(revision) = query.revision.as_deref().filter(|revision| !is_revision(revision)) {
        let revision = ingest::case::name(revision);
        return Err(Refused::new(StatusCode::BAD_REQUEST, format!("`{revision}` is no revision"))
            .hint("a revision is a word of letters, digits and ._/+:@~^-"));
    }
    let Some(samples) = app.coordinator.samples() else {
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "this coordinator has no sample store")
            .hint("start it with --samples (FLAKEFARM_SAMPLES)"));
    };
    let (file, path) = tempfile::NamedTempFile::new().map_err(unwritable)?.into_parts();
    let mut file = tokio::fs::File::from_std(file);
    let mut body = body.into_data_stream();
    let mut length = 0u64;
    while let Some(part) = body.next().await {
        let part = part.map_err(|error| {
            Refused::new(StatusCode::BAD_REQUEST, format!("the report was cut off: {error}"))
        })?;
        length += part.len() as u64;
        if length > REPORT_LIMIT {
            let limit = REPORT_LIMIT >> 20;
            return Err(Refused::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("a report has at most {limit} MiB"),
            ));
        }
        file.write_all(&part).await.map_err(unwritable)?;
    }
    file.flush().await.map_err(unwritable)?;
    let report = SentReport {
        project: query.project,
        ci: CiJob {
            provider: query.provider,
            revision: query.revision,
            branch: query.branch,
            attempt: query.attempt,
            job: query.job,
            url: query.job_url,
        },
        variant: query.variant,
        name: query.name.map_or_else(|| "the report".to_owned(), |name| ingest::case::name(&name)),
        path: path.to_path_buf(),
    };
    let db = app.coordinator.db();
    let ingested =
        ingest::ingest(db, samples.as_ref(), &report, now_micros()).await.map_err(|error| match error {
            IngestError::Db(error) => EngineError::from(error).into(),
            IngestError::Io { source, .. } => unwritable(source),
            IngestError::Samples(_) => {
                Refused::new(StatusCode::SERVICE_UNAVAILABLE, flakefarm_shared::chain(&error))
                    .hint("nothing is lost: send the report again")
            }
        })?;
    Ok((StatusCode::CREATED, Json(ingested)))
}

fn unwritable(error: std::io::Error) -> Refused {
    Refused::new(StatusCode::INSUFFICIENT_STORAGE, format!("the report could not be kept: {error}"))
}

/// Refuses a project that the caller's token is not for.
pub(super) fn may(caller: &Caller, project: &str) -> Result<(), Refused> {
    if caller.projects.include(project) {
        return Ok(());
    }
    Err(Refused::new(StatusCode::FORBIDDEN, format!("this token is not for the project `{project}`"))
        .hint("`flakefarm token create --project NAME` issues one that is"))
}
