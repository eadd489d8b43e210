//! What history answers over HTTP: `GET /v1/tests`, `GET /v1/tests/{id}/history`, `GET /v1/trends`.

use super::App;
use super::access::Caller;
use super::extract::{Path, Query};
use super::refused::{ErrorBody, Refused};
use super::results::may;
use crate::history::questions::{self, ProjectDay, TestHistory, TestRanked, Window};
use crate::plan::Confidence;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use flakefarm_shared::{TestId, now_micros};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

/// Tests of one answer unless asked for fewer.
const MOST_TESTS: usize = 1_000;

/// Of which project, over how many days.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryQuery {
    /// The project's name.
    project: String,
    /// How many days back, at most 400; 30 unless said.
    #[serde(default)]
    days: Option<u16>,
    /// Tests of a ranking, at most 1,000.
    #[serde(default)]
    limit: Option<usize>,
}

impl HistoryQuery {
    fn window(&self) -> Window {
        Window::last(self.days.unwrap_or(30).min(400), now_micros())
    }
}

/// The tests of a project, ranked.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Ranking {
    schema: &'static str,
    project: String,
    window: Window,
    total: usize,
    tests: Vec<TestRanked>,
}

/// A project over time.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Trends {
    schema: &'static str,
    project: String,
    window: Window,
    days: Vec<ProjectDay>,
}

/// List a project's tests, the worst first.
#[utoipa::path(
    get, path = "/v1/tests", tag = "history", params(HistoryQuery),
    responses((status = 200, body = Object, description = "flakefarm.tests/v1"), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn tests(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<Ranking>, Refused> {
    may(&caller, &query.project)?;
    let window = query.window();
    let mut tests = questions::ranking(app.coordinator.db(), &query.project, window).await?;
    let total = tests.len();
    tests.truncate(query.limit.unwrap_or(MOST_TESTS).min(MOST_TESTS));
    Ok(Json(Ranking { schema: "flakefarm.tests/v1", project: query.project, window, total, tests }))
}

/// Say what is known of one test over time.
#[utoipa::path(
    get, path = "/v1/tests/{id}/history", tag = "history", params(("id" = String, Path, description = "the test, by its id, percent-encoded"), HistoryQuery),
    responses((status = 200, body = Object, description = "flakefarm.history/v1"), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn history(
    State(app): State<App>,
    caller: Caller,
    Path(test): Path<String>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<TestHistory>, Refused> {
    may(&caller, &query.project)?;
    let samples = app.coordinator.samples().map(|samples| samples.as_ref());
    let found = questions::test_history(
        app.coordinator.db(),
        samples,
        &query.project,
        &TestId(test.clone()),
        query.window(),
        Confidence::DEFAULT,
    )
    .await?;
    found.map(Json).ok_or_else(|| {
        Refused::new(StatusCode::NOT_FOUND, format!("nobody has seen a test `{test}` of {}", query.project))
            .hint("GET /v1/tests lists those that somebody saw")
    })
}

/// Show a project's runs and failures over time.
#[utoipa::path(
    get, path = "/v1/trends", tag = "history", params(HistoryQuery),
    responses((status = 200, body = Object, description = "flakefarm.trends/v1"), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn trends(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<Trends>, Refused> {
    may(&caller, &query.project)?;
    let window = query.window();
    let days = questions::trends(app.coordinator.db(), &query.project, window).await?;
    Ok(Json(Trends { schema: "flakefarm.trends/v1", project: query.project, window, days }))
}
