//! `/v1/schedules`: sweeps that begin by the clock.

use super::App;
use super::caller::{Caller, Projects};
use super::extract::{Body, Path};
use super::refused::{ErrorBody, Refused};
use super::views::{NewSweep, Submitted};
use crate::db::{FiringRow, ScheduleRow};
use crate::engine::{FiredByHand, GitSource, Submission, WantedSchedule};
use crate::report::model::Trust;
use crate::schedule::Rhythm;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use flakefarm_project::fetch::Remote;
use flakefarm_shared::{SweepId, UnixMicros, now_micros};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Longest name of a schedule.
const LONGEST_NAME: usize = 100;
/// Next times that a listing shows.
const SHOWN: usize = 3;
/// Last firings of a schedule that it shows.
const FIRINGS: u32 = 5;

/// A schedule to be added, or to replace the one of its project and name.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct NewSchedule {
    /// Its name, unique within the project.
    pub name: String,
    /// Minute, hour, day of month, month, day of week.
    pub cron: String,
    /// The time zone that this is meant in, as in the IANA database.
    pub zone: String,
    /// The sweep of each firing. It is of the project's last uploaded snapshot, or of what `git` says.
    #[schema(value_type = NewSweep)]
    pub sweep: Submission,
    /// A git remote that the sources are fetched from at each firing; the snapshot in `sweep` does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<NewGit>,
    /// Propose repairs for tests that its sweeps find newly flaky.
    #[serde(default)]
    pub repairs: bool,
}

/// A git remote to fetch from.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewGit {
    /// `https://`, `http://`, `ssh://` or `git://`, or `user@host:path`; without a password.
    pub url: String,
    /// A branch, a tag or a whole commit; `HEAD` is the remote's own branch.
    pub revision: String,
    /// The project's directory below the top; empty for the top.
    #[serde(default)]
    pub directory: String,
    /// What opens it: a token, `user:password`, or a private key of ssh with the lines of its known hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
    /// SHA-256 of the project's `flakefarm.toml` that `sweep` was made by, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
}

/// A git remote that is fetched from.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GitView {
    /// Its address.
    pub url: String,
    /// The branch, tag or commit.
    pub revision: String,
    /// The project's directory.
    pub directory: String,
}

/// A firing of a schedule.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FiringView {
    /// The time that it is for, in microseconds since the Unix epoch.
    pub due: UnixMicros,
    /// `fetching`, `fired` or `failed`.
    pub state: String,
    /// Its sweep, which is there once it has fired.
    pub sweep: String,
    /// The revision that was fetched.
    pub revision: Option<String>,
    /// Tries to fetch that were in vain.
    pub tries: u32,
    /// When it is fetched, or fetched again.
    pub next_at: Option<UnixMicros>,
    /// Why the last try was in vain.
    pub why: Option<String>,
    /// What was left out of the sources.
    pub notes: Vec<String>,
    /// What its control said of the farm.
    #[schema(value_type = Option<Object>)]
    pub trust: Option<Trust>,
}

impl FiringView {
    fn of(row: &FiringRow) -> Self {
        let list = |text: &String| serde_json::from_str(text).unwrap_or_default();
        let trust = row.trust.as_ref().and_then(|text| serde_json::from_str(text).ok());
        Self {
            due: row.due,
            state: row.state.clone(),
            sweep: row.sweep.to_string(),
            revision: row.revision.clone(),
            tries: u32::try_from(row.tries).unwrap_or(0),
            next_at: row.next_at,
            why: row.words.clone(),
            notes: row.notes.as_ref().map(list).unwrap_or_default(),
            trust,
        }
    }
}

/// A schedule.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ScheduleView {
    /// Its id.
    pub id: String,
    /// Its project.
    pub project: String,
    /// Its name.
    pub name: String,
    /// The cron expression.
    pub cron: String,
    /// The time zone that it is meant in.
    pub zone: String,
    /// Whether it is paused.
    pub paused: bool,
    /// When it fires next, in microseconds since the Unix epoch; none if it is paused or never again.
    pub next: Vec<UnixMicros>,
    /// The same, as the zone's people write it.
    pub next_words: Vec<String>,
    /// When it last fired.
    pub last_at: Option<UnixMicros>,
    /// The sweep of that firing.
    pub last_sweep: Option<String>,
    /// When it last did not fire because the sweep before was still running.
    pub skipped_at: Option<UnixMicros>,
    /// Where its sources come from; none: the last uploaded snapshot.
    #[serde(default)]
    pub git: Option<GitView>,
    /// Whether repairs are proposed for tests that its sweeps find newly flaky.
    #[serde(default)]
    pub repairs: bool,
    /// Its last firings, the latest first.
    #[serde(default)]
    pub firings: Vec<FiringView>,
}

impl ScheduleView {
    /// Of a row.
    pub fn of(row: &ScheduleRow, firings: &[FiringRow], now: UnixMicros) -> Self {
        let source = row.source.as_ref().and_then(|text| serde_json::from_str::<GitSource>(text).ok());
        let rhythm = Rhythm::parse(&row.cron, &row.zone).ok().filter(|_| row.paused_at.is_none());
        let next = rhythm.as_ref().map_or_else(Vec::new, |rhythm| rhythm.next_times(now, SHOWN));
        let words = |rhythm: &Rhythm| next.iter().map(|at| rhythm.words(*at)).collect();
        Self {
            id: row.id.to_string(),
            project: row.project.clone(),
            name: row.name.clone(),
            cron: row.cron.clone(),
            zone: row.zone.clone(),
            paused: row.paused_at.is_some(),
            next_words: rhythm.as_ref().map_or_else(Vec::new, words),
            next,
            last_at: row.last_at,
            last_sweep: row.last_sweep.map(|sweep| sweep.to_string()),
            skipped_at: row.skipped_at,
            git: source.map(|GitSource { remote, .. }| GitView {
                url: remote.url,
                revision: remote.revision,
                directory: remote.directory,
            }),
            repairs: row.proposes,
            firings: firings.iter().map(FiringView::of).collect(),
        }
    }
}

/// Schedules.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Schedules {
    /// By project and name.
    pub schedules: Vec<ScheduleView>,
}

/// Add a schedule, or replace the one of its project and name.
#[utoipa::path(
    post, path = "/v1/schedules", tag = "schedules",
    request_body(content = NewSchedule),
    responses((status = 201, body = ScheduleView), (status = "default", body = ErrorBody)),
    security(("token" = ["submit"]))
)]
pub(super) async fn add(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewSchedule>,
) -> Result<Response, Refused> {
    let project = &new.sweep.context.project.name;
    if !caller.projects.include(project) {
        return Err(Refused::new(
            StatusCode::FORBIDDEN,
            format!("this token is not for the project `{project}`"),
        )
        .hint("`flakefarm token create --project NAME` issues one that is"));
    }
    if new.name.is_empty()
        || new.name.chars().count() > LONGEST_NAME
        || new.name.chars().any(char::is_control)
    {
        return Err(Refused::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("a schedule's name has 1 to {LONGEST_NAME} characters"),
        ));
    }
    let source = new.git.as_ref().map(|git| GitSource {
        remote: Remote {
            url: git.url.clone(),
            revision: git.revision.clone(),
            directory: git.directory.clone(),
        },
        configuration: git.configuration.clone(),
    });
    let secret = new.git.as_ref().and_then(|git| git.credentials.as_deref());
    if let Some(source) = &source {
        if let Err((error, hint)) = app.coordinator.ask_source(source, secret).await? {
            return Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, error).hint(hint));
        }
    } else {
        uploaded(&app, &caller, &new.sweep).await?;
    }
    let wanted = WantedSchedule {
        name: &new.name,
        cron: &new.cron,
        zone: &new.zone,
        submission: &new.sweep,
        source: source.as_ref(),
        secret,
        proposes: new.repairs,
    };
    if let Err(error) = app.coordinator.put_schedule(wanted).await? {
        return Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).hint(error.hint()));
    }
    let schedules = app.coordinator.db().schedules().await?;
    let added = schedules.iter().find(|row| row.project == *project && row.name == new.name);
    let added = added.ok_or_else(|| Refused::not_found(format!("schedule {}", new.name)))?;
    Ok((StatusCode::CREATED, Json(view(&app, added).await?)).into_response())
}

async fn view(app: &App, row: &ScheduleRow) -> Result<ScheduleView, Refused> {
    let firings = app.coordinator.db().firings(row.id, FIRINGS).await?;
    Ok(ScheduleView::of(row, &firings, now_micros()))
}

/// Whether the snapshot that a schedule begins with is there, and the caller's.
async fn uploaded(app: &App, caller: &Caller, sweep: &Submission) -> Result<(), Refused> {
    let snapshot = &sweep.context.snapshot;
    let missing = || {
        let error = format!("snapshot {snapshot} is not in the blob store: upload it first");
        Refused::new(StatusCode::CONFLICT, error).hint("POST it to /v1/snapshots")
    };
    let known = match &caller.projects {
        Projects::All => app.coordinator.blobs().contains(snapshot).await?,
        Projects::Only(names) => {
            let names: Vec<String> = names.iter().cloned().collect();
            app.coordinator.db().may_read_blob(&names, snapshot).await?
        }
    };
    if known { Ok(()) } else { Err(missing()) }
}

/// List schedules, with the times they fire next.
#[utoipa::path(
    get, path = "/v1/schedules", tag = "schedules",
    responses((status = 200, body = Schedules), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Schedules>, Refused> {
    let rows = app.coordinator.db().schedules().await?;
    let mut schedules = Vec::new();
    for row in rows.iter().filter(|row| caller.projects.include(&row.project)) {
        schedules.push(view(&app, row).await?);
    }
    Ok(Json(Schedules { schedules }))
}

/// Fire a schedule now, whatever its rhythm.
#[utoipa::path(
    post, path = "/v1/schedules/{id}/run", tag = "schedules",
    params(("id" = String, Path, description = "the schedule")),
    responses(
        (status = 201, body = Submitted),
        (status = 202, body = Submitted, description = "its sources are fetched first; then it is this sweep"),
        (status = "default", body = ErrorBody)
    ),
    security(("token" = ["submit"]))
)]
pub(super) async fn run(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let row = find(&app, &caller, &id).await?;
    let answer = |status, sweep: SweepId| (status, Json(Submitted { id: sweep.to_string() })).into_response();
    match app.coordinator.run_schedule(&row).await? {
        FiredByHand::Fired(sweep) => Ok(answer(StatusCode::CREATED, sweep)),
        FiredByHand::Fetching(sweep) => Ok(answer(StatusCode::ACCEPTED, sweep)),
        FiredByHand::StillRuns => {
            Err(Refused::new(StatusCode::CONFLICT, "the schedule's last sweep still runs")
                .hint("cancel it, or wait for it"))
        }
    }
}

/// Pause a schedule.
#[utoipa::path(
    post, path = "/v1/schedules/{id}/pause", tag = "schedules",
    params(("id" = String, Path, description = "the schedule")),
    responses((status = 204), (status = "default", body = ErrorBody)),
    security(("token" = ["submit"]))
)]
pub(super) async fn pause(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Refused> {
    let row = find(&app, &caller, &id).await?;
    app.coordinator.db().pause_schedule(row.id, Some(now_micros()), None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Let a paused schedule go on; what it missed is not made up for.
#[utoipa::path(
    post, path = "/v1/schedules/{id}/resume", tag = "schedules",
    params(("id" = String, Path, description = "the schedule")),
    responses((status = 204), (status = "default", body = ErrorBody)),
    security(("token" = ["submit"]))
)]
pub(super) async fn resume(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Refused> {
    let row = find(&app, &caller, &id).await?;
    let rhythm = Rhythm::parse(&row.cron, &row.zone)
        .map_err(|error| Refused::new(StatusCode::CONFLICT, error.to_string()).hint(error.hint()))?;
    app.coordinator.db().pause_schedule(row.id, None, rhythm.next_after(now_micros())).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove a schedule; its sweeps stay.
#[utoipa::path(
    delete, path = "/v1/schedules/{id}", tag = "schedules",
    params(("id" = String, Path, description = "the schedule")),
    responses((status = 204), (status = "default", body = ErrorBody)),
    security(("token" = ["submit"]))
)]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Refused> {
    let row = find(&app, &caller, &id).await?;
    app.coordinator.db().remove_schedule(row.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A schedule of a project that the caller may see.
async fn find(app: &App, caller: &Caller, id: &str) -> Result<ScheduleRow, Refused> {
    let unknown = || Refused::not_found(format!("schedule {id}"));
    let parsed: Uuid = id.parse().map_err(|_| unknown())?;
    let row = app.coordinator.db().schedule(parsed).await?.ok_or_else(unknown)?;
    if caller.projects.include(&row.project) { Ok(row) } else { Err(unknown()) }
}
