//! `/v1/quarantine`: tests that may fail until a day, what was done to them, and the project's rule.

use super::App;
use super::caller::Caller;
use super::extract::{Body, Query};
use super::refused::{ErrorBody, Refused};
use super::results::may;
use crate::db::Deed;
use crate::quarantine::rule::Rule;
use crate::quarantine::{Done, Entry, MOST_ENTRIES, Origin};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use flakefarm_shared::now_micros;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Lines of the log that one answer holds.
const LOG_LINES: u32 = 1_000;

/// Whose quarantine.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ProjectQuery {
    /// The project's name.
    pub(super) project: String,
}

/// A project's quarantine.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QuarantineView {
    /// The project.
    pub project: String,
    /// Its entries, by test.
    #[schema(value_type = Vec<Object>)]
    pub entries: Vec<Entry>,
    /// What it has decided.
    #[schema(value_type = Object)]
    pub rule: Rule,
}

/// An entry to be added, or to replace the one of its test and signature.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewEntry {
    /// The project.
    pub project: String,
    /// The entry: `test`, `reason`, `expires`; `owner`, `ticket`, `signature` if there are any.
    #[schema(value_type = Object)]
    pub entry: Entry,
    /// Who asks for it, if not the token's bearer alone.
    #[serde(default)]
    pub who: Option<String>,
}

/// An entry to be taken away.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Removal {
    /// The project.
    pub project: String,
    /// The test.
    pub test: String,
    /// The signature, if it mutes one failure.
    #[serde(default)]
    pub signature: Option<String>,
    /// Why.
    pub why: String,
    /// Who asks for it, if not the token's bearer alone.
    #[serde(default)]
    pub who: Option<String>,
}

/// What was done to a quarantine.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QuarantineLog {
    /// The latest first.
    #[schema(value_type = Vec<Object>)]
    pub done: Vec<Done>,
}

/// A project's rule.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewRule {
    /// The project.
    pub project: String,
    /// The rule.
    #[schema(value_type = Object)]
    pub rule: Rule,
}

/// List a project's quarantine.
#[utoipa::path(
    get, path = "/v1/quarantine", tag = "quarantine", params(ProjectQuery),
    responses((status = 200, body = QuarantineView), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ProjectQuery>,
) -> Result<Json<QuarantineView>, Refused> {
    may(&caller, &query.project)?;
    let db = app.coordinator.db();
    let entries = db.quarantine(&query.project).await?;
    let rule = db.quarantine_rule(&query.project).await?;
    Ok(Json(QuarantineView { project: query.project, entries, rule }))
}

/// Put a test in quarantine, or change its entry.
#[utoipa::path(
    post, path = "/v1/quarantine", tag = "quarantine", request_body(content = NewEntry),
    responses((status = 204), (status = "default", body = ErrorBody)),
    security(("token" = ["quarantine"]))
)]
pub(super) async fn put(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewEntry>,
) -> Result<StatusCode, Refused> {
    may(&caller, &new.project)?;
    let entry = Entry { origin: Origin::Hand, ..new.entry };
    if let Some((key, what)) = entry.wrong().into_iter().next() {
        return Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, format!("`{key}`: {what}")));
    }
    let db = app.coordinator.db();
    if db.quarantine(&new.project).await?.len() >= MOST_ENTRIES {
        let error = format!("a project has at most {MOST_ENTRIES} entries");
        return Err(Refused::new(StatusCode::CONFLICT, error).hint("remove some first"));
    }
    let who = said_by(&caller, new.who.as_deref());
    let deed = Deed { at: now_micros(), who: &who, why: &entry.reason };
    db.put_in_quarantine(&new.project, &entry, deed).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Take a test out of quarantine.
#[utoipa::path(
    post, path = "/v1/quarantine/remove", tag = "quarantine", request_body(content = Removal),
    responses((status = 204), (status = "default", body = ErrorBody)),
    security(("token" = ["quarantine"]))
)]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Body(removal): Body<Removal>,
) -> Result<StatusCode, Refused> {
    may(&caller, &removal.project)?;
    let who = said_by(&caller, removal.who.as_deref());
    let deed = Deed { at: now_micros(), who: &who, why: &removal.why };
    let (test, signature) = (removal.test.as_str(), removal.signature.as_deref());
    let taken =
        app.coordinator.db().take_from_quarantine(&removal.project, test, signature, "removed", deed).await?;
    if taken {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Refused::not_found(format!("an entry of {test}")).hint("GET /v1/quarantine lists what is there"))
    }
}

/// Say what was done to a project's quarantine, by whom, when and why.
#[utoipa::path(
    get, path = "/v1/quarantine/log", tag = "quarantine", params(ProjectQuery),
    responses((status = 200, body = QuarantineLog), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn log(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ProjectQuery>,
) -> Result<Json<QuarantineLog>, Refused> {
    may(&caller, &query.project)?;
    let done = app.coordinator.db().quarantine_log(&query.project, LOG_LINES).await?;
    Ok(Json(QuarantineLog { done }))
}

/// Set a project's rule.
#[utoipa::path(
    put, path = "/v1/quarantine/rule", tag = "quarantine", request_body(content = NewRule),
    responses((status = 204), (status = "default", body = ErrorBody)),
    security(("token" = ["quarantine"]))
)]
pub(super) async fn set_rule(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewRule>,
) -> Result<StatusCode, Refused> {
    may(&caller, &new.project)?;
    if !(0.0..=1.0).contains(&new.rule.at_least) || new.rule.days > 3_660 {
        return Err(Refused::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "a rule has a rate between 0 and 1, and at most 3,660 days",
        ));
    }
    app.coordinator.db().set_quarantine_rule(&new.project, &new.rule).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who does it: the token, and on whose behalf its bearer says.
fn said_by(caller: &Caller, who: Option<&str>) -> String {
    match who.map(str::trim).filter(|who| !who.is_empty()) {
        Some(who) => {
            let who: String = who.chars().filter(|c| !c.is_control()).take(100).collect();
            format!("{who} (token {})", caller.token)
        }
        None => format!("token {}", caller.token),
    }
}
