//! `/v1/sweeps`: submit, look, follow, cancel.

use super::{App, Refused};
use crate::db::{SweepRow, SweepState};
use crate::engine::{EngineError, Submission, SubmitError};
use crate::events::Event;
use crate::report::Report;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::sse::{self, KeepAlive, Sse};
use flakefarm_shared::SweepId;
use futures::Stream;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Duration;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;

pub(super) async fn submit(
    State(app): State<App>,
    Json(submission): Json<Submission>,
) -> Result<impl IntoResponse, Refused> {
    let id = app.coordinator.submit(&submission).await.map_err(|error| match error {
        SubmitError::NoSnapshot(_) => Refused::new(StatusCode::CONFLICT, error.to_string()),
        SubmitError::Version(_) => Refused::new(StatusCode::UPGRADE_REQUIRED, error.to_string()),
        SubmitError::Limit(exceeded) => {
            Refused::new(StatusCode::UNPROCESSABLE_ENTITY, exceeded.to_string()).hint(exceeded.hint())
        }
        SubmitError::Engine(error) => error.into(),
    })?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))))
}

fn row_json(row: &SweepRow) -> Value {
    json!({
        "id": row.id, "project": row.project, "revision": row.revision, "state": row.state.word(),
        "class": row.class, "seed": row.seed, "created_at": row.created_at, "finished_at": row.finished_at,
        "failure": row.state.refusal(),
    })
}

pub(super) async fn list(State(app): State<App>) -> Result<Json<Value>, Refused> {
    let rows = app.coordinator.db().sweeps(100).await?;
    Ok(Json(json!({ "sweeps": rows.iter().map(row_json).collect::<Vec<_>>() })))
}

pub(super) async fn show(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, Refused> {
    let row = find(&app, &id).await?;
    Ok(Json(row_json(&row)))
}

pub(super) async fn report(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Report>, Refused> {
    Ok(Json(app.coordinator.report(find(&app, &id).await?.id).await?))
}

pub(super) async fn cancel(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Report>, Refused> {
    let row = find(&app, &id).await?;
    Ok(Json(app.coordinator.stop_sweep(row.id, SweepState::Cancelled).await?))
}

/// Server-sent events of one sweep; the stream ends with `finished`. A client that comes late or
/// lost the connection is told at once if the sweep has ended.
pub(super) async fn events(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Refused> {
    // Subscribe before reading the state, or an ending in between would be missed.
    let live = BroadcastStream::new(app.coordinator.subscribe());
    let row = find(&app, &id).await?;
    let id = row.id;
    let ended = match &row.state {
        SweepState::Running => None,
        state => Some(Event::Finished { sweep: id, state: state.word().to_owned() }),
    };
    let already_ended = ended.is_some();
    let live = live.filter_map(move |event| event.ok().filter(|event| event.concerns(id)));
    let stream =
        async_stream_until_finished(tokio_stream::iter(ended), live, already_ended, app.stop.clone());
    let stream = stream.map(|event| Ok(sse::Event::default().json_data(&event).expect("events serialise")));
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(10))))
}

fn async_stream_until_finished(
    first: impl Stream<Item = Event> + Send + 'static,
    live: impl Stream<Item = Event> + Send + 'static,
    already_ended: bool,
    stop: tokio_util::sync::CancellationToken,
) -> impl Stream<Item = Event> + Send {
    let all: std::pin::Pin<Box<dyn Stream<Item = Event> + Send>> =
        if already_ended { Box::pin(first) } else { Box::pin(live) };
    futures::stream::unfold((all, false, stop), |(mut all, finished, stop)| async move {
        if finished {
            return None;
        }
        let event = tokio::select! {
            event = all.next() => event?,
            () = stop.cancelled() => return None,
        };
        let finished = matches!(event, Event::Finished { .. });
        Some((event, (all, finished, stop)))
    })
}

async fn find(app: &App, id: &str) -> Result<SweepRow, Refused> {
    let unknown = || Refused::new(StatusCode::NOT_FOUND, format!("sweep {id} is not known here"));
    let id: SweepId = id.parse().map_err(|_| unknown())?;
    app.coordinator.db().sweep(id).await.map_err(EngineError::from)?.ok_or_else(unknown)
}
