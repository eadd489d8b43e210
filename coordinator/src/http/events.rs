//! `/v1/events` and `/v1/sweeps/{id}/events`: what happened, and what happens. A stream reads recorded
//! events from the database, so that nothing is missed when it lags, when another coordinator works on
//! the sweep, or when a client comes late or again; only progress is heard as it is made.

use super::App;
use super::caller::Caller;
use super::extract::{Path, Query};
use super::refused::{ErrorBody, Refused};
use super::sweeps::find;
use super::views::{EventView, EventsPage, EventsQuery, SentEvent, page};
use crate::db::{DbError, SweepState};
use crate::events::Event;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use flakefarm_shared::SweepId;
use futures::Stream;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tracing::warn;

/// How often what is recorded is polled while nothing is heard.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Events read together.
const AT_ONCE: u32 = 1_000;

/// List what happened, in its order.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", params(EventsQuery),
    responses((status = 200, body = EventsPage), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<EventsQuery>,
) -> Result<Json<EventsPage>, Refused> {
    let (projects, limit) = (caller.projects.names(), page(query.limit)?);
    let rows = app.coordinator.db().events_page(projects.as_deref(), query.after.unwrap_or(0), limit).await?;
    Ok(Json(EventsPage { events: rows.into_iter().map(EventView::from).collect() }))
}

/// Follow a sweep by server-sent events; the stream ends with `finished`.
///
/// Recorded events carry an id. A client that lost the connection sends the last one as `Last-Event-ID`.
#[utoipa::path(
    get, path = "/v1/sweeps/{id}/events", tag = "events",
    params(
        ("id" = String, Path, description = "the sweep"),
        ("last-event-id" = Option<i64>, Header, description = "only later events than this")
    ),
    responses(
        (status = 200, body = SentEvent, content_type = "text/event-stream", description = "each event"),
        (status = "default", body = ErrorBody)
    ),
    security(("token" = ["read"]))
)]
pub(super) async fn follow(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Refused> {
    // Listen before reading what is recorded, or what happens in between would be missed.
    let live = app.coordinator.subscribe();
    let row = find(&app, &caller, &id).await?;
    let last = last_of(&headers)?;
    let following = Following {
        app,
        sweep: row.id,
        live,
        last,
        ready: VecDeque::new(),
        told: None,
        look: true,
        ended: false,
    };
    let stream = futures::stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((Ok(event), following))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(10))))
}

/// What a client that lost the connection has had last; 0 for one that begins.
fn last_of(headers: &HeaderMap) -> Result<i64, Refused> {
    let Some(value) = headers.get("last-event-id") else { return Ok(0) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number
        .ok_or_else(|| Refused::new(StatusCode::BAD_REQUEST, "Last-Event-ID is the id of an event, a number"))
}

/// A client that follows a sweep.
struct Following {
    app: App,
    sweep: SweepId,
    live: Receiver<Event>,
    /// The id of the last recorded event it was sent.
    last: i64,
    ready: VecDeque<(Option<i64>, Event)>,
    /// The progress it was last told of.
    told: Option<Event>,
    /// Whether something may have been recorded.
    look: bool,
    ended: bool,
}

impl Following {
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some((id, event)) = self.ready.pop_front() {
                self.ended |= matches!(event, Event::Finished { .. });
                let sent = sse::Event::default().json_data(&event).expect("events serialise");
                return Some(match id {
                    Some(id) => sent.id(id.to_string()),
                    None => sent,
                });
            }
            if self.ended {
                return None;
            }
            if self.look {
                self.look = false;
                if let Err(error) = self.read().await {
                    // The database is away: the client is told nothing rather than something wrong.
                    warn!(sweep.id = %self.sweep, error = flakefarm_shared::chain(&error), "a stream could not read events");
                }
                continue;
            }
            let heard = tokio::select! {
                heard = self.live.recv() => heard,
                () = tokio::time::sleep(LOOK_AGAIN) => {
                    self.look = true;
                    continue;
                }
                () = self.app.stop.cancelled() => return None,
            };
            match heard {
                Ok(event) if !event.concerns(self.sweep) => {}
                Ok(event) if event.is_recorded() => self.look = true,
                Ok(event) => {
                    if matches!(event, Event::Progress { .. }) {
                        self.told = Some(event.clone());
                    }
                    self.ready.push_back((None, event));
                }
                Err(RecvError::Lagged(_)) => self.look = true,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Reads what was recorded since, and how the sweep stands.
    async fn read(&mut self) -> Result<(), DbError> {
        let db = self.app.coordinator.db();
        loop {
            let rows = db.events_after(self.last, Some(self.sweep), AT_ONCE).await?;
            let Some(latest) = rows.last().map(|row| row.id) else { break };
            self.last = latest;
            self.ready.extend(rows.into_iter().map(|row| (Some(row.id), row.event)));
        }
        if self.ready.iter().any(|(_, event)| matches!(event, Event::Finished { .. })) {
            // Of a resumed sweep's endings only the last one ends the stream.
            let last = self.ready.iter().rposition(|(_, event)| matches!(event, Event::Finished { .. }));
            let mut place = 0;
            self.ready.retain(|(_, event)| {
                place += 1;
                !matches!(event, Event::Finished { .. }) || Some(place - 1) == last
            });
        }
        let Some(row) = db.sweep(self.sweep).await? else { return Ok(()) };
        match &row.state {
            SweepState::Running => {
                self.ready.retain(|(_, event)| !matches!(event, Event::Finished { .. }));
                if let Some(progress) = db.progress(self.sweep).await?
                    && self.told.as_ref() != Some(&progress)
                {
                    self.told = Some(progress.clone());
                    self.ready.push_back((None, progress));
                }
            }
            state => {
                // Sweeps that ended before events were recorded, and clients that have seen the event.
                if !self.ready.iter().any(|(_, event)| matches!(event, Event::Finished { .. })) {
                    let state = state.word().to_owned();
                    self.ready.push_back((None, Event::Finished { sweep: self.sweep, state }));
                }
            }
        }
        Ok(())
    }
}
