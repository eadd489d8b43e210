//! `/metrics` and `/v1/status`: how the farm stands, for machines and for people.

use super::caller::Caller;
use super::refused::{ErrorBody, Refused};
use super::views::{SweepView, WorkerView};
use super::{API_VERSION, App};
use crate::db::SweepFilter;
use crate::engine::Standing;
use crate::report::model::{Trust, TrustState};
use crate::report::trust_line;
use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use flakefarm_shared::metrics::catalogue::HTTP_REQUESTS;
use flakefarm_shared::metrics::{self, Owner};
use flakefarm_shared::{Class, Digest, UnixMicros, WIRE_VERSION, chain, now_micros};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::time::{Duration, Instant};
use utoipa::ToSchema;

/// Sweeps that are told of one by one.
const SWEEPS: u32 = 50;
/// Controls that are told of.
const CONTROLS: u32 = 10;
/// For a store to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How the farm stands.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FarmStatus {
    /// By the coordinator's clock, in microseconds since the Unix epoch.
    pub at: UnixMicros,
    /// The coordinator's version.
    pub version: String,
    /// The version of this interface.
    pub api: String,
    /// The version of messages.
    pub wire: u32,
    /// Jobs by class, the urgent one first; none if the database does not answer.
    pub queues: Vec<QueueStatus>,
    /// By name.
    pub workers: Vec<WorkerView>,
    /// How many sweeps run on the farm.
    pub running: u64,
    /// Those of them that the caller may see, newest first, at most 50.
    pub sweeps: Vec<SweepView>,
    /// Dead jobs of the farm.
    pub dead: u64,
    /// Messages that nobody can read.
    pub parked: u64,
    /// What the farm stands on.
    pub stores: Vec<StoreStatus>,
    /// Who runs which loops.
    pub leases: Vec<LeaseStatus>,
    /// What stands still, the longest first.
    pub troubles: Vec<TroubleStatus>,
    /// What controls beside scheduled sweeps last said of the farm, the latest first.
    pub trust: Vec<TrustStatus>,
    /// Bytes of the database.
    pub database_bytes: u64,
    /// The newest step of its schema.
    pub schema: i64,
    /// The newest step that this coordinator knows.
    pub schema_known: i64,
}

/// Jobs of running sweeps, of one class.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QueueStatus {
    /// `interactive` or `bulk`.
    pub class: String,
    /// Messages that wait in the broker; none if it does not say.
    pub ready: Option<u64>,
    /// Jobs that are not on the queue yet.
    pub pending: u64,
    /// Jobs on the queue.
    pub queued: u64,
    /// Jobs in a worker's hand.
    pub leased: u64,
    /// Attempts that all of these have between them.
    pub attempts: u64,
    /// How long the first of those on the queue has waited.
    pub oldest_seconds: u64,
}

/// A store.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StoreStatus {
    /// `database`, `queue`, `samples` or `blobs`.
    pub store: String,
    /// Why it does not answer, if it does not.
    pub error: Option<String>,
    /// How long it took to answer, in milliseconds.
    pub milliseconds: u64,
}

/// Who runs loops.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeaseStatus {
    /// Which loops.
    pub lease: String,
    /// The coordinator, by a name that it chose at its start.
    pub holder: String,
    /// Whether it is the one that was asked.
    pub this: bool,
}

/// What stands still.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TroubleStatus {
    /// What, and why.
    pub message: String,
    /// For how long.
    pub seconds: u64,
}

/// What a control said.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TrustStatus {
    /// The project of the schedule that it ran beside.
    pub project: String,
    /// That schedule.
    pub schedule: String,
    /// When it was fired, in microseconds since the Unix epoch.
    pub at: UnixMicros,
    /// Whether the farm is to be trusted; none if that could not be found out.
    pub trusted: Option<bool>,
    /// What was found and accused.
    pub line: String,
}

/// Say how the farm stands.
#[utoipa::path(
    get, path = "/v1/status", tag = "farm",
    responses((status = 200, body = FarmStatus), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn status(State(app): State<App>, caller: Caller) -> Result<Json<FarmStatus>, Refused> {
    let standing = app.coordinator.standing().await;
    let stores = Box::pin(stores(&app)).await;
    let now = now_micros();
    let mut status = FarmStatus {
        at: now,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: API_VERSION.to_owned(),
        wire: WIRE_VERSION,
        queues: queues(&standing),
        workers: Vec::new(),
        running: 0,
        sweeps: Vec::new(),
        dead: 0,
        parked: 0,
        stores,
        leases: Vec::new(),
        troubles: standing
            .troubles
            .iter()
            .map(|(message, since)| TroubleStatus { message: message.clone(), seconds: since.as_secs() })
            .collect(),
        trust: Vec::new(),
        database_bytes: 0,
        schema: 0,
        schema_known: 0,
    };
    // Who asks is told what is known, also when the database is away.
    let Ok(recorded) = &standing.recorded else { return Ok(Json(status)) };
    status.workers = recorded.workers.iter().map(|worker| WorkerView::of(worker.clone(), now)).collect();
    (status.running, status.dead) = (recorded.running, recorded.dead);
    (status.parked, status.database_bytes) = (recorded.parked, recorded.bytes);
    let db = app.coordinator.db();
    let projects = caller.projects.names();
    let filter = SweepFilter { projects, state: Some("running".to_owned()), before: None };
    let rows = db.sweeps_page(&filter, SWEEPS).await?;
    status.sweeps = SweepView::all(&rows, db.progress_of(&rows).await?);
    let this = app.coordinator.holder();
    for row in db.leases().await? {
        status.leases.push(LeaseStatus { this: row.holder == this, lease: row.name, holder: row.holder });
    }
    for row in db.latest_trust(CONTROLS).await? {
        let Ok(trust) = serde_json::from_str::<Trust>(&row.trust) else { continue };
        if caller.projects.include(&row.project) {
            status.trust.push(TrustStatus {
                project: row.project,
                schedule: row.schedule,
                at: row.due,
                trusted: match trust.state {
                    TrustState::Trusted => Some(true),
                    TrustState::NotTrusted => Some(false),
                    TrustState::Unknown | TrustState::Pending => None,
                },
                line: trust_line(&trust),
            });
        }
    }
    (status.schema, status.schema_known) = db.schema().await?;
    Ok(Json(status))
}

fn queues(standing: &Standing) -> Vec<QueueStatus> {
    let Ok(recorded) = &standing.recorded else { return Vec::new() };
    let ready = |of: Class| {
        let ready = standing.ready.iter().flatten();
        ready.filter(|(class, _)| *class == of).map(|(_, ready)| *ready).next()
    };
    let queues = recorded.backlog.iter().map(|(class, backlog)| QueueStatus {
        class: class.word().to_owned(),
        ready: ready(*class),
        pending: backlog.pending,
        queued: backlog.queued,
        leased: backlog.leased,
        attempts: backlog.attempts,
        oldest_seconds: backlog.waited(standing.at).as_secs(),
    });
    queues.collect()
}

/// What each store says now.
async fn stores(app: &App) -> Vec<StoreStatus> {
    let coordinator = &app.coordinator;
    let marker = Digest::of(b"");
    let samples = async {
        match coordinator.samples() {
            Some(samples) => Some(asked("samples", samples.check()).await),
            None => None,
        }
    };
    let (database, queue, samples, blobs) = tokio::join!(
        asked("database", coordinator.db().ping()),
        asked("queue", coordinator.queue().depth(Class::Bulk)),
        samples,
        asked("blobs", coordinator.blobs().contains(&marker)),
    );
    [Some(database), Some(queue), samples, Some(blobs)].into_iter().flatten().collect()
}

async fn asked<T, E: std::error::Error>(
    store: &str,
    asked: impl Future<Output = Result<T, E>>,
) -> StoreStatus {
    let begun = Instant::now();
    let error = match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(chain(&error)),
        Err(_) => Some(format!("no answer within {} s", ANSWER.as_secs())),
    };
    let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    StoreStatus { store: store.to_owned(), error, milliseconds }
}

/// Give the numbers that Prometheus collects. They name no project, sweep or test.
#[utoipa::path(
    get, path = "/metrics", tag = "farm",
    responses((status = 200, body = String, description = "Prometheus's text format")),
    security(())
)]
pub(super) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    app.coordinator.gauge().await;
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(Owner::Coordinator))
}

/// Counts requests and times them, by route.
pub(super) async fn measure(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = method(request.method());
    let response = next.run(request).await;
    if let Some(route) = route {
        let labels =
            [Cow::Borrowed(method), Cow::Owned(route), Cow::Borrowed(status_class(response.status()))];
        HTTP_REQUESTS.observe_of(&labels, begun.elapsed());
    }
    response
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
