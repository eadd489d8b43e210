//! `/v1/channels` and `/v1/deliveries`: who is told of what, and what is on its way.

use super::App;
use super::caller::{Caller, Projects};
use super::extract::{Body, Query};
use super::quarantine::ProjectQuery;
use super::refused::{ErrorBody, Refused};
use super::results::may;
use crate::db::{ChannelRow, DeliveryRow};
use crate::engine::FARM;
use crate::notify::Channel;
use crate::schedule::Rhythm;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use flakefarm_shared::{UnixMicros, now_micros};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Channels of a project.
const MOST_CHANNELS: usize = 50;
/// Deliveries that one answer holds.
const DELIVERIES: u32 = 200;

/// A channel to be added, or to replace the one of its project and name.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewChannel {
    /// The project; `*` for the farm itself.
    pub project: String,
    /// The channel: `name`, `kind` and what belongs to it.
    #[schema(value_type = Object)]
    pub channel: Channel,
}

/// A channel, without what is secret.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ChannelView {
    /// The project.
    pub project: String,
    /// Its name.
    pub name: String,
    /// Where messages go, in a few words.
    pub to: String,
    /// Its quiet hours.
    pub quiet: Option<String>,
    /// Its digest's cron expression.
    pub digest: Option<String>,
    /// When the digest comes next, in microseconds since the Unix epoch.
    pub digest_at: Option<UnixMicros>,
    /// The time zone of both.
    pub zone: String,
}

/// Channels.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Channels {
    /// By name.
    pub channels: Vec<ChannelView>,
}

/// The name of a channel.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ChannelName {
    /// The project.
    pub project: String,
    /// The channel.
    pub name: String,
}

/// A delivery.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeliveryView {
    /// Its id, which its receiver sees, too.
    pub id: String,
    /// Its channel.
    pub channel: String,
    /// What it says, in a line.
    pub title: String,
    /// `waiting`, `delivered` or `dead`.
    pub state: String,
    /// Tries so far.
    pub tries: u32,
    /// When it came up.
    pub created_at: UnixMicros,
    /// When it is tried next.
    pub next_at: Option<UnixMicros>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

/// Deliveries.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Deliveries {
    /// Those on their way and the dead first.
    pub deliveries: Vec<DeliveryView>,
}

/// How many deliveries are tried again.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Revived {
    /// So many.
    pub revived: u64,
}

impl ChannelView {
    fn of(row: &ChannelRow) -> Self {
        let channel = &row.channel;
        Self {
            project: row.project.clone(),
            name: channel.name.clone(),
            to: channel.kind.describe(),
            quiet: channel.quiet.map(String::from),
            digest: channel.digest.clone(),
            digest_at: row.digest_at,
            zone: channel.zone.clone(),
        }
    }
}

/// Add a channel, or replace the one of its project and name.
#[utoipa::path(
    post, path = "/v1/channels", tag = "notifications", request_body(content = NewChannel),
    responses((status = 204), (status = "default", body = ErrorBody)),
    security(("token" = ["admin"]))
)]
pub(super) async fn put(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewChannel>,
) -> Result<StatusCode, Refused> {
    may_notify(&caller, &new.project)?;
    if let Some(wrong) = new.channel.wrong() {
        return Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, wrong));
    }
    let db = app.coordinator.db();
    if db.channels().await?.iter().filter(|row| row.project == new.project).count() >= MOST_CHANNELS {
        let error = format!("a project has at most {MOST_CHANNELS} channels");
        return Err(Refused::new(StatusCode::CONFLICT, error).hint("remove some first"));
    }
    let now = now_micros();
    let rhythm = new.channel.digest.as_ref().map(|cron| Rhythm::parse(cron, &new.channel.zone));
    let digest_at = rhythm.and_then(Result::ok).and_then(|rhythm| rhythm.next_after(now));
    db.put_channel(&new.project, &new.channel, digest_at, now).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List a project's channels.
#[utoipa::path(
    get, path = "/v1/channels", tag = "notifications", params(ProjectQuery),
    responses((status = 200, body = Channels), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ProjectQuery>,
) -> Result<Json<Channels>, Refused> {
    may_notify(&caller, &query.project)?;
    let rows = app.coordinator.db().channels().await?;
    let ours = rows.iter().filter(|row| row.project == query.project);
    Ok(Json(Channels { channels: ours.map(ChannelView::of).collect() }))
}

/// Remove a channel, with all that was on its way to it.
#[utoipa::path(
    post, path = "/v1/channels/remove", tag = "notifications", request_body(content = ChannelName),
    responses((status = 204), (status = "default", body = ErrorBody)),
    security(("token" = ["admin"]))
)]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Body(named): Body<ChannelName>,
) -> Result<StatusCode, Refused> {
    may_notify(&caller, &named.project)?;
    match app.coordinator.db().remove_channel(&named.project, &named.name).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Refused::not_found(format!("channel {}", named.name))),
    }
}

/// Send a message that only says that the channel works.
#[utoipa::path(
    post, path = "/v1/channels/try", tag = "notifications", request_body(content = ChannelName),
    responses((status = 204), (status = "default", body = ErrorBody)),
    security(("token" = ["admin"]))
)]
pub(super) async fn try_it(
    State(app): State<App>,
    caller: Caller,
    Body(named): Body<ChannelName>,
) -> Result<StatusCode, Refused> {
    may_notify(&caller, &named.project)?;
    let rows = app.coordinator.db().channels().await?;
    let row = rows.iter().find(|row| row.project == named.project && row.channel.name == named.name);
    let row = row.ok_or_else(|| Refused::not_found(format!("channel {}", named.name)))?;
    app.coordinator.try_channel(row).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List deliveries of a project: those on their way and the dead first.
#[utoipa::path(
    get, path = "/v1/deliveries", tag = "notifications", params(ProjectQuery),
    responses((status = 200, body = Deliveries), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn deliveries(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ProjectQuery>,
) -> Result<Json<Deliveries>, Refused> {
    may_notify(&caller, &query.project)?;
    let db = app.coordinator.db();
    let channels = db.channels().await?;
    let name = |row: &DeliveryRow| {
        let channel = channels.iter().find(|channel| channel.id == row.channel);
        channel.map_or_else(String::new, |channel| channel.channel.name.clone())
    };
    let rows = db.deliveries(&query.project, DELIVERIES).await?;
    let view = |row: &DeliveryRow| DeliveryView {
        id: row.id.to_string(),
        channel: name(row),
        title: row.message.title.clone(),
        state: match (row.delivered_at, row.died_at) {
            (Some(_), _) => "delivered",
            (None, Some(_)) => "dead",
            (None, None) => "waiting",
        }
        .to_owned(),
        tries: row.tries,
        created_at: row.created_at,
        next_at: row.next_at,
        last_error: row.last_error.clone(),
    };
    Ok(Json(Deliveries { deliveries: rows.iter().map(view).collect() }))
}

/// Try a project's dead deliveries again.
#[utoipa::path(
    post, path = "/v1/deliveries/retry", tag = "notifications", params(ProjectQuery),
    responses((status = 200, body = Revived), (status = "default", body = ErrorBody)),
    security(("token" = ["admin"]))
)]
pub(super) async fn retry(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ProjectQuery>,
) -> Result<Json<Revived>, Refused> {
    may_notify(&caller, &query.project)?;
    let revived = app.coordinator.db().revive_deliveries(&query.project, now_micros()).await?;
    Ok(Json(Revived { revived }))
}

/// The farm's own channels are for who may see all projects.
fn may_notify(caller: &Caller, project: &str) -> Result<(), Refused> {
    if project == FARM && caller.projects != Projects::All {
        return Err(Refused::new(StatusCode::FORBIDDEN, "this token is not for the farm itself"));
    }
    may(caller, project)
}
