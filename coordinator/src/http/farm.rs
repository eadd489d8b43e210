//! `/v1/workers`, `/v1/dead`, and whether the coordinator lives and can work.

use super::caller::{Caller, Projects};
use super::extract::{Path, Query};
use super::refused::{ErrorBody, Refused};
use super::views::{DeadPage, DeadQuery, DeadView, Health, ParkedView, Readiness, WorkerView, Workers, page};
use super::{API_VERSION, App};
use crate::db::DbError;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use flakefarm_shared::{Class, Digest, JobId, now_micros};
use std::time::Duration;

/// How long a server may take to answer before it counts as away.
const ANSWER: Duration = Duration::from_secs(5);

/// Whether the coordinator lives.
#[utoipa::path(
    get, path = "/healthz", tag = "farm", responses((status = 200, body = Health)), security(())
)]
pub(super) async fn healthz() -> Json<Health> {
    Json(Health {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: API_VERSION.to_owned(),
    })
}

/// Whether the coordinator can work.
#[utoipa::path(
    get, path = "/readyz", tag = "farm",
    responses((status = 200, body = Readiness), (status = 503, body = Readiness)),
    security(())
)]
pub(super) async fn readyz(State(app): State<App>) -> Response {
    let coordinator = &app.coordinator;
    let marker = Digest::of(b"");
    let (database, queue, blobs) = tokio::join!(
        answer(coordinator.db().ping()),
        answer(coordinator.queue().depth(Class::Bulk)),
        answer(coordinator.blobs().contains(&marker)),
    );
    let ready = [&database, &queue, &blobs].iter().all(|word| *word == "ok");
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { database, queue, blobs })).into_response()
}

async fn answer<T, E: std::error::Error>(asked: impl Future<Output = Result<T, E>>) -> String {
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(_)) => "ok".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", ANSWER.as_secs()),
    }
}

/// List the workers.
#[utoipa::path(
    get, path = "/v1/workers", tag = "farm",
    responses((status = 200, body = Workers), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn workers(State(app): State<App>) -> Result<Json<Workers>, Refused> {
    let now = now_micros();
    let workers = app.coordinator.db().workers().await?;
    Ok(Json(Workers { workers: workers.into_iter().map(|worker| WorkerView::of(worker, now)).collect() }))
}

/// List dead jobs, the latest first, and messages that nobody can read.
#[utoipa::path(
    get, path = "/v1/dead", tag = "farm", params(DeadQuery),
    responses((status = 200, body = DeadPage), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn dead(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<DeadQuery>,
) -> Result<Json<DeadPage>, Refused> {
    let (projects, limit) = (caller.projects.names(), page(query.limit)?);
    let before = query.before.as_deref().map(job_id).transpose()?;
    let rows = app.coordinator.db().dead_page(projects.as_deref(), before, limit).await?;
    let dead: Vec<DeadView> = rows.into_iter().map(DeadView::of).collect();
    let full = dead.len() as u64 == u64::from(limit);
    let next = dead.last().filter(|_| full).map(|last| last.job.clone());
    let parked = match (&caller.projects, before) {
        (Projects::All, None) => app.coordinator.db().parked(limit).await?,
        // Nobody can say whose they are.
        (Projects::All | Projects::Only(_), _) => Vec::new(),
    };
    let parked = parked.into_iter().map(ParkedView::of).collect();
    Ok(Json(DeadPage { dead, parked, next }))
}

/// Give a dead job, or a parked message, back to the workers.
#[utoipa::path(
    post, path = "/v1/dead/{id}/requeue", tag = "farm",
    params(("id" = String, Path, description = "the job", format = "uuid")),
    responses((status = 204), (status = "default", body = ErrorBody)),
    security(("token" = ["admin"]))
)]
pub(super) async fn requeue_dead(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Refused> {
    match find(&app, &caller, &id).await? {
        Found::Job(job) => app.coordinator.db().revive_job(job, now_micros()).await?,
        Found::Parked(id) => app.coordinator.requeue_parked(id).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Take a dead job off the list, which stays dead, or drop a parked message.
#[utoipa::path(
    post, path = "/v1/dead/{id}/discard", tag = "farm",
    params(("id" = String, Path, description = "the job", format = "uuid")),
    responses((status = 204), (status = "default", body = ErrorBody)),
    security(("token" = ["admin"]))
)]
pub(super) async fn discard_dead(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Refused> {
    match find(&app, &caller, &id).await? {
        Found::Job(job) => app.coordinator.db().discard_job(job, now_micros()).await?,
        Found::Parked(id) => app.coordinator.db().discard_parked(id).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

/// What goes by an id among the dead.
enum Found {
    Job(JobId),
    Parked(uuid::Uuid),
}

/// A job of a project that the caller may see, or a parked message.
async fn find(app: &App, caller: &Caller, id: &str) -> Result<Found, Refused> {
    let unknown = || Refused::not_found(format!("job {id}"));
    let db = app.coordinator.db();
    let asked = job_id(id)?;
    let Some(job) = db.job(asked).await? else {
        return match (&caller.projects, db.parked_message(asked.0).await) {
            (Projects::All, Ok(parked)) => Ok(Found::Parked(parked.id)),
            (_, Err(DbError::NotFound(_)) | Ok(_)) => Err(unknown()),
            (_, Err(error)) => Err(error.into()),
        };
    };
    let project = db.project_of(job.sweep).await?.ok_or_else(unknown)?;
    if caller.projects.include(&project) { Ok(Found::Job(job.id)) } else { Err(unknown()) }
}

fn job_id(text: &str) -> Result<JobId, Refused> {
    text.parse().map_err(|_| Refused::new(StatusCode::BAD_REQUEST, format!("`{text}` is no job id")))
}
