//! `/v1/sweeps`: submit, look, cancel. A sweep of a project that a caller may not see does not exist
//! for it.

use super::App;
use super::caller::{Caller, Projects};
use super::extract::{Body, Path, Query};
use super::refused::{ErrorBody, Refused};
use super::views::{NewSweep, Submitted, SweepView, SweepsPage, SweepsQuery, page};
use crate::db::{SweepFilter, SweepRow, SweepState};
use crate::engine::{Submission, SubmitError};
use crate::report::Report;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use flakefarm_shared::{Digest, SweepId};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long a cancelled sweep's final report is waited for before the caller is told that it follows.
const CANCELLING: Duration = Duration::from_secs(20);
/// How often its row is polled.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Submit a sweep.
#[utoipa::path(
    post, path = "/v1/sweeps", tag = "sweeps",
    request_body(content = NewSweep),
    responses((status = 201, body = Submitted), (status = "default", body = ErrorBody)),
    security(("token" = ["submit"]))
)]
pub(super) async fn submit(
    State(app): State<App>,
    caller: Caller,
    Body(submission): Body<Submission>,
) -> Result<Response, Refused> {
    let (project, snapshot) = (&submission.context.project.name, &submission.context.snapshot);
    if !caller.projects.include(project) {
        return Err(Refused::new(
            StatusCode::FORBIDDEN,
            format!("this token is not for the project `{project}`"),
        )
        .hint("`flakefarm token create --project NAME` issues one that is"));
    }
    if let Projects::Only(names) = &caller.projects {
        let names: Vec<String> = names.iter().cloned().collect();
        // Whoever guesses the name of another project's snapshot learns nothing by it; a question may
        // name some, too.
        let question = serde_json::to_value(&submission.question).unwrap_or_default();
        let mut named = BTreeSet::from([snapshot.clone()]);
        digests_in(&question, &mut named);
        for snapshot in named {
            if !app.coordinator.db().may_read_blob(&names, &snapshot).await? {
                return Err(refused_submission(SubmitError::NoSnapshot(snapshot)));
            }
        }
    }
    let id = app.coordinator.submit(&submission).await.map_err(refused_submission)?;
    Ok((StatusCode::CREATED, Json(Submitted { id: id.to_string() })).into_response())
}

/// Why something cannot be asked of the farm, and what to do about it.
pub(super) fn refused_submission(error: SubmitError) -> Refused {
    match error {
        SubmitError::NoSnapshot(_) => {
            Refused::new(StatusCode::CONFLICT, error.to_string()).hint("POST it to /v1/snapshots")
        }
        SubmitError::Version(_) => Refused::new(StatusCode::UPGRADE_REQUIRED, error.to_string()),
        SubmitError::Reserved => {
            Refused::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).hint("choose another")
        }
        SubmitError::Quota(exceeded) => exceeded.into(),
        SubmitError::Limit(exceeded) => {
            Refused::new(StatusCode::UNPROCESSABLE_ENTITY, exceeded.to_string()).hint(exceeded.hint())
        }
        SubmitError::Engine(error) => error.into(),
    }
}

/// All digests in a value, however deep.
fn digests_in(value: &serde_json::Value, found: &mut BTreeSet<Digest>) {
    match value {
        serde_json::Value::String(text) => found.extend(text.parse::<Digest>().ok()),
        serde_json::Value::Array(items) => items.iter().for_each(|item| digests_in(item, found)),
        serde_json::Value::Object(fields) => fields.values().for_each(|field| digests_in(field, found)),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}

/// List sweeps, newest first.
#[utoipa::path(
    get, path = "/v1/sweeps", tag = "sweeps", params(SweepsQuery),
    responses((status = 200, body = SweepsPage), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<SweepsQuery>,
) -> Result<Json<SweepsPage>, Refused> {
    let projects = match query.project {
        Some(project) if caller.projects.include(&project) => Some(vec![project]),
        Some(_) => Some(Vec::new()),
        None => caller.projects.names(),
    };
    let words = ["running", "answered", "interrupted", "cancelled", "failed"];
    if let Some(state) = query.state.as_ref().filter(|state| !words.contains(&state.as_str())) {
        return Err(Refused::new(
            StatusCode::BAD_REQUEST,
            format!("`{state}` is no state: {}", words.join(", ")),
        ));
    }
    let before = query
        .before
        .map(|id| id.parse().map_err(|_| Refused::not_found(format!("sweep {id}"))))
        .transpose()?;
    let limit = page(query.limit)?;
    let filter = SweepFilter { projects, state: query.state, before };
    let rows = app.coordinator.db().sweeps_page(&filter, limit).await?;
    let next =
        (rows.len() as u64 == u64::from(limit)).then(|| rows.last().map(|row| row.id.to_string())).flatten();
    let progress = app.coordinator.db().progress_of(&rows).await?;
    Ok(Json(SweepsPage { sweeps: SweepView::all(&rows, progress), next }))
}

/// Look at a sweep.
#[utoipa::path(
    get, path = "/v1/sweeps/{id}", tag = "sweeps", params(("id" = String, Path, description = "the sweep")),
    responses((status = 200, body = SweepView), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<SweepView>, Refused> {
    let row = find(&app, &caller, &id).await?;
    let mut progress = app.coordinator.db().progress_of(std::slice::from_ref(&row)).await?;
    Ok(Json(SweepView::of(&row, progress.remove(&row.id))))
}

/// The report of a sweep: final if it has ended, else of what is known.
#[utoipa::path(
    get, path = "/v1/sweeps/{id}/report", tag = "sweeps",
    params(("id" = String, Path, description = "the sweep")),
    responses(
        (status = 200, body = Object, description = "a report of the schema `flakefarm.report/v1`"),
        (status = "default", body = ErrorBody)
    ),
    security(("token" = ["read"]))
)]
pub(super) async fn report(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Report>, Refused> {
    let row = find(&app, &caller, &id).await?;
    let report = app.coordinator.report(row.id).await?;
    grant_outputs(&app, &caller, &report).await?;
    Ok(Json(report))
}

/// Cancel a sweep; what is known is reported.
#[utoipa::path(
    delete, path = "/v1/sweeps/{id}", tag = "sweeps",
    params(("id" = String, Path, description = "the sweep")),
    responses(
        (status = 200, body = Object, description = "its report, of the schema `flakefarm.report/v1`"),
        (status = 202, body = SweepView, description = "it is cancelled; workers are still handing in what they made"),
        (status = "default", body = ErrorBody)
    ),
    security(("token" = ["submit"]))
)]
pub(super) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let mut row = find(&app, &caller, &id).await?;
    if matches!(row.state, SweepState::Running) {
        app.coordinator.cancel(&row).await?;
        row = find(&app, &caller, &id).await?;
    }
    let began = Instant::now();
    while matches!(row.state, SweepState::Cancelled) && row.report.is_none() {
        if began.elapsed() > CANCELLING {
            return Ok((StatusCode::ACCEPTED, Json(SweepView::of(&row, None))).into_response());
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = app.stop.cancelled() => return Err(crate::engine::EngineError::Stopping.into()),
        }
        row = find(&app, &caller, &id).await?;
    }
    let report = app.coordinator.report(row.id).await?;
    grant_outputs(&app, &caller, &report).await?;
    Ok(Json(report).into_response())
}

/// Lets a caller that may only read its projects' blobs read those that a report names.
async fn grant_outputs(app: &App, caller: &Caller, report: &Report) -> Result<(), Refused> {
    if matches!(caller.projects, Projects::All) {
        return Ok(());
    }
    let outputs: BTreeSet<Digest> =
        report.output_digests().into_iter().filter_map(|digest| digest.parse().ok()).collect();
    let outputs: Vec<Digest> = outputs.into_iter().collect();
    app.coordinator.db().grant_blobs(std::slice::from_ref(&report.sweep.project), &outputs).await?;
    Ok(())
}

/// A sweep that the caller may see.
pub(super) async fn find(app: &App, caller: &Caller, id: &str) -> Result<SweepRow, Refused> {
    let unknown = || Refused::not_found(format!("sweep {id}"));
    let sweep: SweepId = id.parse().map_err(|_| unknown())?;
    let row = app.coordinator.db().sweep(sweep).await?.ok_or_else(unknown)?;
    if caller.projects.include(&row.project) { Ok(row) } else { Err(unknown()) }
}
