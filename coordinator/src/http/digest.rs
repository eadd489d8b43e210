//! `GET /v1/digest`: the week of a project on one page.

use super::App;
use super::caller::Caller;
use super::extract::Query;
use super::refused::{ErrorBody, Refused};
use super::results::may;
use crate::digest::{self, WEEK, html, markdown};
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use flakefarm_shared::now_micros;
use serde::Deserialize;
use utoipa::IntoParams;

/// Longest window, in days.
const MOST_DAYS: u16 = 366;

/// Of which project, over how many days, as what.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DigestQuery {
    /// The project's name.
    project: String,
    /// How many days back, at most 366; 7 unless said.
    #[serde(default)]
    days: Option<u16>,
    /// `json` unless said, `markdown` or `html`.
    #[serde(default)]
    #[param(pattern = "^(json|markdown|html)$")]
    format: Option<String>,
}

/// Say what the last days of a project came to.
#[utoipa::path(
    get, path = "/v1/digest", tag = "history", params(DigestQuery),
    responses(
        (status = 200, description = "flakefarm.digest/v1, or text", content(
            (Object = "application/json"), (String = "text/markdown"), (String = "text/html")
        )),
        (status = "default", body = ErrorBody)
    ),
    security(("token" = ["read"]))
)]
pub(super) async fn digest(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<DigestQuery>,
) -> Result<Response, Refused> {
    may(&caller, &query.project)?;
    let days = query.days.unwrap_or(WEEK).clamp(1, MOST_DAYS);
    let (db, blobs) = (app.coordinator.db(), app.coordinator.blobs());
    let found = digest::collect(db, Some(blobs), &query.project, days, now_micros()).await?;
    let text = |kind: &'static str, text: String| ([(header::CONTENT_TYPE, kind)], text).into_response();
    match query.format.as_deref().unwrap_or("json") {
        "json" => Ok(Json(found).into_response()),
        "markdown" => Ok(text("text/markdown; charset=utf-8", markdown::render(&found))),
        "html" => Ok(text("text/html; charset=utf-8", html::render(&found))),
        other => {
            let other: String = other.chars().filter(|c| !c.is_control()).take(40).collect();
            Err(Refused::new(StatusCode::BAD_REQUEST, format!("`{other}` is none of json, markdown, html")))
        }
    }
}
