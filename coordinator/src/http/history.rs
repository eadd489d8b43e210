//! What history answers over HTTP: `GET /v1/tests`, `GET /v1/tests/{id}/history`, `GET /v1/trends`.

use super::App;
use super::caller::Caller;
use super::extract::{Path, Query};
use super::refused::{ErrorBody, Refused};
use super::results::may;
use crate::history::moves::Move;
use crate::history::questions::{self, Forecast, Ranking, TestHistory, Trends, Window};
use crate::plan::Confidence;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use flakefarm_shared::{TestId, now_micros};
use serde::Deserialize;
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
    /// Only tests of a ranking that moved so this week: `new`, `worse`, `better` or `gone`.
    #[serde(default)]
    #[param(value_type = Option<String>, pattern = "^(new|worse|better|gone)$")]
    moved: Option<Move>,
}

impl HistoryQuery {
    fn window(&self) -> Window {
        Window::last(self.days.unwrap_or(30).min(400), now_micros())
    }
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
    let limit = query.limit.unwrap_or(MOST_TESTS).min(MOST_TESTS);
    let db = app.coordinator.db();
    Ok(Json(questions::ranking(db, &query.project, query.window(), query.moved, limit).await?))
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
    Ok(Json(questions::trends(app.coordinator.db(), &query.project, query.window()).await?))
}

/// Say which tests are likely to fail next, if forecasts have shown skill on this project.
#[utoipa::path(
    get, path = "/v1/forecast", tag = "history", params(HistoryQuery),
    responses((status = 200, body = Object, description = "flakefarm.forecast/v1"), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn forecast(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<Forecast>, Refused> {
    may(&caller, &query.project)?;
    let limit = query.limit.unwrap_or(MOST_TESTS).min(MOST_TESTS);
    let db = app.coordinator.db();
    Ok(Json(questions::forecast(db, &query.project, query.window(), limit).await?))
}
