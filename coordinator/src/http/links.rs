//! `/v1/test-links`: tests that were renamed or moved, and what they were before.

use super::App;
use super::caller::Caller;
use super::extract::{Body, Query};
use super::quarantine::ProjectQuery;
use super::refused::{ErrorBody, Refused};
use super::results::may;
use crate::history::linking::{self, Links};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use flakefarm_shared::{TestId, now_micros};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A test that is what an earlier one was.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TestLink {
    /// The project.
    pub project: String,
    /// The test, by its id.
    pub test: String,
    /// What it was.
    pub earlier: String,
    /// Why, for people.
    #[serde(default)]
    pub reason: Option<String>,
}

/// List the tests of a project that were renamed or moved.
#[utoipa::path(
    get, path = "/v1/test-links", tag = "history", params(ProjectQuery),
    responses((status = 200, body = Object, description = "flakefarm.links/v1"), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ProjectQuery>,
) -> Result<Json<Links>, Refused> {
    may(&caller, &query.project)?;
    Ok(Json(linking::links(app.coordinator.db(), &query.project).await?))
}

/// Say that a test is what an earlier one was, so that its history goes on.
#[utoipa::path(
    post, path = "/v1/test-links", tag = "history", request_body(content = TestLink),
    responses((status = 204), (status = "default", body = ErrorBody)),
    security(("token" = ["ingest"]))
)]
pub(super) async fn put(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<TestLink>,
) -> Result<StatusCode, Refused> {
    may(&caller, &new.project)?;
    let (test, earlier) = (TestId(new.test), TestId(new.earlier));
    let reason = new.reason.as_deref();
    linking::link(app.coordinator.db(), &new.project, (&test, &earlier), reason, now_micros()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Take such a link back.
#[utoipa::path(
    post, path = "/v1/test-links/remove", tag = "history", request_body(content = TestLink),
    responses((status = 204), (status = "default", body = ErrorBody)),
    security(("token" = ["ingest"]))
)]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Body(link): Body<TestLink>,
) -> Result<StatusCode, Refused> {
    may(&caller, &link.project)?;
    let (test, earlier) = (TestId(link.test), TestId(link.earlier));
    let db = app.coordinator.db();
    if linking::unlink(db, &link.project, (&test, &earlier), now_micros()).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Refused::not_found(format!("a link from `{test}` to `{earlier}`"))
        .hint("GET /v1/test-links lists what is there"))
}
