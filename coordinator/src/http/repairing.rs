//! `/v1/repairs`: repairs that the farm carries out. One of a project that a caller may not see does not exist for it.

use super::App;
use super::caller::{Caller, Projects};
use super::extract::{Body, Path, Query};
use super::refused::{ErrorBody, Refused};
use super::results::may;
use super::sweeps::refused_submission;
use super::views::{EventView, EventsPage, EventsQuery, Failure, Submitted, page};
use crate::db::{RepairRow, ScheduleRow};
use crate::engine::{RepairRefused, Submission, SubmitError};
use crate::plan::{Question, QuestionKind};
use crate::repairs::{Probation, RepairBase, RepairRequest, RepairState};
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use flakefarm_shared::{Class, Digest, SweepId, UnixMicros};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Tests that one repair may name.
const TESTS: usize = 1_000;
/// Longest name of a test, a base or a source, in bytes.
const NAME_BYTES: usize = 4_096;
/// Sweeps of a project among which the last one is looked for.
const LOOKED_AT: u32 = 200;

/// A repair to be carried out: the same that `flakefarm repair --farm URL --detach` sends.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the body; what is read is `Asked`")]
pub(super) struct NewRepair {
    /// How to run the project, the digest of its uploaded snapshot and its revision. Left out where `schedule` is
    /// named.
    #[schema(value_type = Option<Object>)]
    context: (),
    /// How questions are asked: seed, isolation, confidence, what each may cost. Left out where `schedule` is named.
    #[schema(value_type = Option<Object>)]
    question: (),
    /// `interactive` if somebody is waiting, else `bulk`.
    class: String,
    /// The tests to be mended; none: those that fail.
    tests: Vec<String>,
    /// The tree that the tests were right for: its `name` and the digest of its uploaded `snapshot`.
    #[schema(value_type = Option<Object>)]
    base: (),
    /// The project of the schedule.
    project: Option<String>,
    /// A schedule of this name: the repair is of the tree that its last sweep was of.
    schedule: Option<String>,
    /// Experiments that proposals for one test may take; 3 unless said.
    attempts: Option<u32>,
    /// What finding causes may cost, in all: as `budget` of a question says it.
    #[schema(value_type = Option<Object>)]
    look_budget: (),
    /// What proving proposals may cost, in all.
    #[schema(value_type = Option<Object>)]
    mend_budget: (),
    /// Who asks, for people.
    source: String,
}

/// A body of `POST /v1/repairs`.
#[derive(Debug)]
pub(super) enum Asked {
    OfSchedule(OfSchedule),
    OfSnapshot(Box<RepairRequest>),
}

impl<'de> Deserialize<'de> for Asked {
    /// By whether it names a schedule, so that an error is about the one that was meant.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let body = serde_json::Map::deserialize(deserializer)?;
        let names_schedule = body.contains_key("schedule");
        let body = serde_json::Value::Object(body);
        let asked = match names_schedule {
            true => serde_json::from_value(body).map(Asked::OfSchedule),
            false => serde_json::from_value(body).map(|request| Asked::OfSnapshot(Box::new(request))),
        };
        asked.map_err(D::Error::custom)
    }
}

/// A repair of what a schedule's last sweep was of.
#[derive(Debug, Deserialize)]
pub(super) struct OfSchedule {
    project: String,
    schedule: String,
    #[serde(default)]
    tests: Vec<String>,
    #[serde(default)]
    class: Option<Class>,
    #[serde(default)]
    source: String,
}

/// A repair as its row says.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RepairView {
    /// Its id.
    pub id: String,
    /// Its project.
    pub project: String,
    /// `queued`, `running`; `proved`, `not_proved`, `undecided`, `nothing_fails`, `failed`, `cancelled`; of what was
    /// proved and accepted: `probation`; `proven`, `relapsed`, `unproven`.
    pub state: String,
    /// `interactive` or `bulk`.
    pub class: String,
    /// The revision that is repaired, if known.
    pub revision: Option<String>,
    /// The tree that the tests were right for, by its name.
    pub base: Option<String>,
    /// The tests that were named.
    pub tests: Vec<String>,
    /// Who asked, for people.
    pub source: String,
    /// When it was asked for, in microseconds since the Unix epoch.
    pub created_at: UnixMicros,
    /// When a coordinator first began with it.
    pub started_at: Option<UnixMicros>,
    /// When it ended.
    pub ended_at: Option<UnixMicros>,
    /// How often a coordinator has begun with it.
    pub tries: u32,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// The tests that are mended.
    pub mended: Vec<String>,
    /// Whether there is a patch.
    pub has_patch: bool,
    /// The sweep of its further runs.
    pub probation: Option<String>,
    /// When it was accepted.
    pub accepted_at: Option<UnixMicros>,
    /// How its further runs stand; where one repair is looked at.
    #[schema(value_type = Option<Object>)]
    #[serde(default)]
    pub further_runs: Option<Probation>,
    /// What was found and proved, of the schema `flakefarm.repair/v1`; where one repair is looked at.
    #[schema(value_type = Option<Object>)]
    #[serde(default)]
    pub told: Option<serde_json::Value>,
}

impl RepairView {
    fn of(row: &RepairRow) -> Self {
        let request = serde_json::from_str::<RepairRequest>(&row.request).ok();
        Self {
            id: row.id.to_string(),
            project: row.project.clone(),
            state: row.state.clone(),
            class: row.class.clone(),
            revision: request.as_ref().and_then(|request| request.context.revision.clone()),
            base: request.as_ref().and_then(|request| Some(request.base.as_ref()?.name.clone())),
            tests: request.map(|request| request.tests).unwrap_or_default(),
            source: row.source.clone(),
            created_at: row.created_at,
            started_at: row.started_at,
            ended_at: row.ended_at,
            tries: u32::try_from(row.tries).unwrap_or(0),
            failure: row.refusal().as_ref().map(Failure::from),
            mended: row.mended(),
            has_patch: row.patch.is_some(),
            probation: row.probation.map(|sweep| sweep.to_string()),
            accepted_at: row.accepted_at,
            further_runs: None,
            told: None,
        }
    }
}

/// Repairs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RepairsPage {
    /// The newest first.
    pub repairs: Vec<RepairView>,
    /// `before` of the next page, if there may be one.
    pub next: Option<String>,
}

/// Which repairs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RepairsQuery {
    /// Of this project.
    project: Option<String>,
    /// Older than this one.
    before: Option<String>,
    /// At most so many: 1 to 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Ask for a repair.
#[utoipa::path(
    post, path = "/v1/repairs", tag = "repairs", request_body(content = NewRepair),
    responses((status = 201, body = Submitted), (status = "default", body = ErrorBody)),
    security(("token" = ["submit"]))
)]
pub(super) async fn ask(
    State(app): State<App>,
    caller: Caller,
    Body(asked): Body<Asked>,
) -> Result<Response, Refused> {
    let request = match asked {
        Asked::OfSnapshot(request) => *request,
        Asked::OfSchedule(wanted) => of_schedule(&app, &caller, wanted).await?,
    };
    may(&caller, &request.context.project.name)?;
    checked(&request)?;
    if let Projects::Only(names) = &caller.projects {
        // Whoever guesses the name of another project's snapshot learns nothing by it.
        let names: Vec<String> = names.iter().cloned().collect();
        for snapshot in
            std::iter::once(&request.context.snapshot).chain(request.base.as_ref().map(|base| &base.snapshot))
        {
            if !app.coordinator.db().may_read_blob(&names, snapshot).await? {
                return Err(refused_submission(SubmitError::NoSnapshot(snapshot.clone())));
            }
        }
    }
    let id = app.coordinator.ask_repair(&request).await.map_err(refused)?;
    Ok((StatusCode::CREATED, Json(Submitted { id: id.to_string() })).into_response())
}

/// Refuses what no repair can be of.
fn checked(request: &RepairRequest) -> Result<(), Refused> {
    let wrong = |message: String| Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, message));
    if request.tests.len() > TESTS {
        return wrong(format!("a repair names at most {TESTS} tests"));
    }
    let base = request.base.as_ref().map(|base| &base.name);
    if request.tests.iter().chain(base).chain([&request.source]).any(|name| name.len() > NAME_BYTES) {
        return wrong(format!("a name has at most {NAME_BYTES} bytes"));
    }
    Ok(())
}

fn refused(refused: RepairRefused) -> Refused {
    let words = refused.to_string();
    match refused {
        RepairRefused::NoRepairer => Refused::new(StatusCode::NOT_FOUND, words)
            .hint("its operator has turned them off: --repairs 0 (FLAKEFARM_REPAIRS)"),
        RepairRefused::TooMany { .. } => Refused::new(StatusCode::TOO_MANY_REQUESTS, words)
            .hint("wait for some, or cancel them: flakefarm repair --list --farm URL")
            .retry_after(60),
        RepairRefused::Submit(error) => refused_submission(error),
    }
}

/// What a schedule's last sweep was of, with the last one of another tree that was green as the base.
async fn of_schedule(app: &App, caller: &Caller, wanted: OfSchedule) -> Result<RepairRequest, Refused> {
    may(caller, &wanted.project)?;
    let schedules = app.coordinator.db().schedules().await?;
    let named = |row: &&ScheduleRow| row.project == wanted.project && row.name == wanted.schedule;
    let unknown = || Refused::not_found(format!("schedule {}", wanted.schedule));
    let schedule = schedules.iter().find(named).ok_or_else(unknown)?;
    let nothing_yet = || {
        Refused::new(StatusCode::CONFLICT, format!("the schedule `{}` has no sweep yet", wanted.schedule))
            .hint("flakefarm schedule run fires it now")
    };
    let sweep = schedule.last_sweep.map(SweepId).ok_or_else(nothing_yet)?;
    let row = app.coordinator.db().sweep(sweep).await?.ok_or_else(nothing_yet)?;
    let submission: Submission = serde_json::from_str(&schedule.submission)
        .map_err(|_| Refused::new(StatusCode::CONFLICT, "the schedule cannot be read"))?;
    let context = app.coordinator.context_of(&row).await?;
    let base = app.coordinator.last_green(&row, &context.snapshot, LOOKED_AT).await?;
    Ok(RepairRequest {
        context,
        question: Question { kind: QuestionKind::Detect, panel: Vec::new(), ..submission.question },
        class: wanted.class.unwrap_or(Class::Bulk),
        tests: wanted.tests,
        base: base.map(|(name, snapshot): (String, Digest)| RepairBase { name, snapshot }),
        attempts: None,
        look_budget: None,
        mend_budget: None,
        source: wanted.source,
    })
}

/// List repairs, newest first.
#[utoipa::path(
    get, path = "/v1/repairs", tag = "repairs", params(RepairsQuery),
    responses((status = 200, body = RepairsPage), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<RepairsQuery>,
) -> Result<Json<RepairsPage>, Refused> {
    let limit = page(query.limit)?;
    let before = query
        .before
        .map(|id| id.parse::<Uuid>().map_err(|_| Refused::not_found(format!("repair {id}"))))
        .transpose()?;
    let db = app.coordinator.db();
    let projects = match query.project {
        Some(project) => {
            may(&caller, &project)?;
            Some(vec![project])
        }
        None => caller.projects.names(),
    };
    let mut rows = Vec::new();
    match projects {
        None => rows = db.repairs_page(None, before, limit).await?,
        Some(projects) => {
            for project in projects {
                rows.extend(db.repairs_page(Some(&project), before, limit).await?);
            }
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse((row.created_at, row.id)));
    rows.truncate(limit as usize);
    let next = (rows.len() == limit as usize).then(|| rows.last().map(|row| row.id.to_string())).flatten();
    Ok(Json(RepairsPage { repairs: rows.iter().map(RepairView::of).collect(), next }))
}

/// Look at a repair.
#[utoipa::path(
    get, path = "/v1/repairs/{id}", tag = "repairs", params(("id" = String, Path, description = "the repair")),
    responses((status = 200, body = RepairView), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RepairView>, Refused> {
    let row = find(&app, &caller, &id).await?;
    Ok(Json(whole(&app, &row).await?))
}

async fn whole(app: &App, row: &RepairRow) -> Result<RepairView, Refused> {
    let further_runs = match row.state() {
        Ok(RepairState::Probation) => app.coordinator.probation(row).await?,
        _ => None,
    };
    let told = row.told.as_deref().and_then(|text| serde_json::from_str(text).ok());
    Ok(RepairView { further_runs, told, ..RepairView::of(row) })
}

/// What happened to a repair, in its order.
#[utoipa::path(
    get, path = "/v1/repairs/{id}/events", tag = "repairs",
    params(("id" = String, Path, description = "the repair"), EventsQuery),
    responses((status = 200, body = EventsPage), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn events(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Result<Json<EventsPage>, Refused> {
    let (row, limit) = (find(&app, &caller, &id).await?, page(query.limit)?);
    let subject = Some(SweepId(row.id));
    let rows = app.coordinator.db().events_after(query.after.unwrap_or(0), subject, limit).await?;
    Ok(Json(EventsPage { events: rows.into_iter().map(EventView::from).collect() }))
}

/// The patch of a repair, as `git diff` writes it.
#[utoipa::path(
    get, path = "/v1/repairs/{id}/patch", tag = "repairs",
    params(("id" = String, Path, description = "the repair")),
    responses(
        (status = 200, body = String, content_type = "text/x-diff", description = "for `git apply`"),
        (status = "default", body = ErrorBody)
    ),
    security(("token" = ["read"]))
)]
pub(super) async fn patch(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let row = find(&app, &caller, &id).await?;
    match row.patch {
        Some(patch) => Ok(([(header::CONTENT_TYPE, "text/x-diff; charset=utf-8")], patch).into_response()),
        None => Err(Refused::new(
            StatusCode::CONFLICT,
            format!("repair {id} has no patch: it is {}", row.state.replace('_', " ")),
        )),
    }
}

/// Accept what a repair proved: its tests run on in the background until it is proven.
#[utoipa::path(
    post, path = "/v1/repairs/{id}/accept", tag = "repairs",
    params(("id" = String, Path, description = "the repair")),
    responses((status = 200, body = RepairView), (status = "default", body = ErrorBody)),
    security(("token" = ["submit"]))
)]
pub(super) async fn accept(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RepairView>, Refused> {
    let row = find(&app, &caller, &id).await?;
    app.coordinator.accept_repair(&row).await.map_err(refused)?;
    let row = find(&app, &caller, &id).await?;
    if row.accepted_at.is_none() {
        return Err(Refused::new(
            StatusCode::CONFLICT,
            format!("repair {id} is {}: only what is proved can be accepted", row.state.replace('_', " ")),
        ));
    }
    Ok(Json(whole(&app, &row).await?))
}

/// Cancel a repair; one that has ended stays as it is.
#[utoipa::path(
    delete, path = "/v1/repairs/{id}", tag = "repairs",
    params(("id" = String, Path, description = "the repair")),
    responses((status = 200, body = RepairView), (status = "default", body = ErrorBody)),
    security(("token" = ["submit"]))
)]
pub(super) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RepairView>, Refused> {
    let row = find(&app, &caller, &id).await?;
    if row.state().is_ok_and(RepairState::is_open) {
        app.coordinator.cancel_repair(&row).await?;
    }
    Ok(Json(whole(&app, &find(&app, &caller, &id).await?).await?))
}

/// A repair that the caller may see.
async fn find(app: &App, caller: &Caller, id: &str) -> Result<RepairRow, Refused> {
    let unknown = || Refused::not_found(format!("repair {id}"));
    let parsed: Uuid = id.parse().map_err(|_| unknown())?;
    let row = app.coordinator.db().repair(parsed).await?.ok_or_else(unknown)?;
    if caller.projects.include(&row.project) { Ok(row) } else { Err(unknown()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_body_is_said_of_what_was_meant() {
        let error = |body: &str| serde_json::from_str::<Asked>(body).unwrap_err().to_string();
        assert!(error("{}").contains("missing field `context`"), "{}", error("{}"));
        let of_schedule = r#"{"schedule": "nightly"}"#;
        assert!(error(of_schedule).contains("missing field `project`"), "{}", error(of_schedule));
        let class = r#"{"schedule": "nightly", "project": "p", "class": "soon"}"#;
        assert!(error(class).contains("unknown variant `soon`"), "{}", error(class));
        assert!(error("[]").contains("expected a map"), "{}", error("[]"));
        let whole = r#"{"schedule": "nightly", "project": "p", "tests": ["a"]}"#;
        assert!(matches!(serde_json::from_str(whole), Ok(Asked::OfSchedule(_))));
    }
}
