//! The coordinator's HTTP interface, `/v1`. Every call but the health checks carries a token:
//! `Authorization: Bearer ff_<kind>_<id>_<secret>`. Errors are `{"error": …, "hint": …}`.

mod sweeps;
mod tokens;

pub use tokens::{TokenKind, check_token, issue_token};

use crate::db::DbError;
use crate::engine::{Coordinator, EngineError};
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use flakefarm_shared::queue::QueueError;
use flakefarm_shared::{Class, Digest, JobId, now_micros};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// Version of this interface; a client of another version is told so.
pub const API_VERSION: &str = "1";
/// The header in which both sides name the version they speak.
pub const API_HEADER: &str = "flakefarm-api";
/// Largest snapshot taken, compressed.
const SNAPSHOT_LIMIT: usize = 512 << 20;

/// Serves until `stop`.
pub async fn serve(
    listener: TcpListener,
    coordinator: Coordinator,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    info!(http.address = %address, "listening");
    let ending = stop.clone();
    axum::serve(listener, router(coordinator, stop)).with_graceful_shutdown(ending.cancelled_owned()).await
}

#[derive(Debug, Clone)]
struct App {
    coordinator: Coordinator,
    stop: CancellationToken,
}

fn router(coordinator: Coordinator, stop: CancellationToken) -> Router {
    let app = App { coordinator, stop };
    let guarded = Router::new()
        .route("/v1/snapshots", post(put_snapshot).layer(DefaultBodyLimit::max(SNAPSHOT_LIMIT)))
        .route("/v1/sweeps", post(sweeps::submit).get(sweeps::list).layer(DefaultBodyLimit::max(32 << 20)))
        .route("/v1/sweeps/{id}", get(sweeps::show).delete(sweeps::cancel))
        .route("/v1/sweeps/{id}/report", get(sweeps::report))
        .route("/v1/sweeps/{id}/events", get(sweeps::events))
        .route("/v1/blobs/{digest}", get(get_blob))
        .route("/v1/workers", get(workers))
        .route("/v1/dead", get(dead))
        .route("/v1/dead/{id}/requeue", post(requeue_dead))
        .route("/v1/dead/{id}/discard", post(discard_dead))
        .layer(middleware::from_fn_with_state(app.clone(), guard));
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .merge(guarded)
        .layer(middleware::from_fn(version))
        .with_state(app)
}

/// An answer that is no success.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    error: String,
    hint: Option<String>,
}

impl Refused {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.error, "hint": self.hint }))).into_response()
    }
}

impl From<EngineError> for Refused {
    fn from(error: EngineError) -> Self {
        if let EngineError::Db(DbError::NotFound(what)) = &error {
            return Refused::new(StatusCode::NOT_FOUND, format!("{what} is not known here"));
        }
        error!(error = flakefarm_shared::chain(&error), "request failed");
        let unreachable = matches!(
            &error,
            EngineError::Db(DbError::Unreachable(_)) | EngineError::Queue(QueueError::Unreachable(_))
        );
        let status =
            if unreachable { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::INTERNAL_SERVER_ERROR };
        Refused::new(status, flakefarm_shared::chain(&error))
    }
}

impl From<DbError> for Refused {
    fn from(error: DbError) -> Self {
        EngineError::from(error).into()
    }
}

async fn version(request: Request, next: Next) -> Response {
    let theirs = request.headers().get(API_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut response = match theirs {
        Some(theirs) if theirs != API_VERSION => Refused::new(
            StatusCode::UPGRADE_REQUIRED,
            format!(
                "client speaks version {theirs} of the interface, this coordinator version {API_VERSION}"
            ),
        )
        .hint(format!("use flakefarm {} on both sides", env!("CARGO_PKG_VERSION")))
        .into_response(),
        _ => next.run(request).await,
    };
    response.headers_mut().insert(API_HEADER, HeaderValue::from_static(API_VERSION));
    response
}

async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    match tokens::authorise(&app.coordinator, request.headers(), request.method(), request.uri().path()).await
    {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

async fn healthz() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION"), "api": API_VERSION }))
}

async fn readyz(State(app): State<App>) -> Response {
    let database = app.coordinator.db().ping().await.map_err(|error| flakefarm_shared::chain(&error));
    let queue =
        app.coordinator.queue().depth(Class::Bulk).await.map_err(|error| flakefarm_shared::chain(&error));
    let status =
        if database.is_ok() && queue.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = |failed: Option<String>| failed.unwrap_or_else(|| "ok".to_owned());
    (status, Json(json!({ "database": word(database.err()), "queue": word(queue.err()) }))).into_response()
}

async fn put_snapshot(State(app): State<App>, headers: HeaderMap, body: Body) -> Result<Response, Refused> {
    let content = axum::body::to_bytes(body, SNAPSHOT_LIMIT).await.map_err(|_| {
        Refused::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a snapshot has at most {} MiB", SNAPSHOT_LIMIT >> 20),
        )
        .hint("leave large files out with .gitignore")
    })?;
    let digest = Digest::of(&content);
    if let Some(named) = headers.get("flakefarm-digest").and_then(|value| value.to_str().ok())
        && named != digest.as_str()
    {
        return Err(Refused::new(StatusCode::BAD_REQUEST, "the snapshot was damaged on its way"));
    }
    app.coordinator.blobs().put(content).await.map_err(EngineError::from)?;
    Ok((StatusCode::CREATED, Json(json!({ "digest": digest }))).into_response())
}

async fn get_blob(State(app): State<App>, Path(digest): Path<String>) -> Result<Response, Refused> {
    let digest: Digest =
        digest.parse().map_err(|error| Refused::new(StatusCode::BAD_REQUEST, format!("{error}")))?;
    match app.coordinator.blobs().get(&digest).await {
        Ok(content) => Ok(([("content-type", "application/octet-stream")], content).into_response()),
        Err(flakefarm_shared::blobs::BlobError::Missing(_)) => {
            Err(Refused::new(StatusCode::NOT_FOUND, format!("blob {digest} is not in the store")))
        }
        Err(error) => Err(EngineError::from(error).into()),
    }
}

async fn workers(State(app): State<App>) -> Result<Json<serde_json::Value>, Refused> {
    let now = now_micros();
    let workers: Vec<_> = app
        .coordinator
        .db()
        .workers()
        .await?
        .into_iter()
        .map(|worker| {
            json!({
                "id": worker.id, "version": worker.version, "slots": worker.slots, "jobs": worker.jobs,
                "draining": worker.draining, "seconds_since_seen": (now - worker.seen_at) / 1_000_000,
            })
        })
        .collect();
    Ok(Json(json!({ "workers": workers })))
}

async fn dead(State(app): State<App>) -> Result<Json<serde_json::Value>, Refused> {
    let jobs: Vec<_> = app
        .coordinator
        .db()
        .dead_jobs(1000)
        .await?
        .into_iter()
        .map(|job| {
            let reason = match job.state {
                crate::db::JobState::Settled {
                    settlement: crate::db::Settlement::Dead { reason }, ..
                } => reason,
                _ => String::new(),
            };
            json!({ "job": job.id, "sweep": job.sweep, "key": job.key, "reason": reason })
        })
        .collect();
    Ok(Json(json!({ "dead": jobs })))
}

async fn requeue_dead(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, Refused> {
    app.coordinator.db().revive_job(job_id(&id)?, now_micros()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn discard_dead(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, Refused> {
    app.coordinator.db().discard_job(job_id(&id)?, now_micros()).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn job_id(text: &str) -> Result<JobId, Refused> {
    text.parse().map_err(|_| Refused::new(StatusCode::BAD_REQUEST, format!("`{text}` is no job id")))
}
