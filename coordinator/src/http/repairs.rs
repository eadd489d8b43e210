//! `/v1/repair-outcomes`: how proposed repairs fared, which orders what is tried next.

use super::App;
use super::caller::Caller;
use super::extract::{Body, Query};
use super::quarantine::ProjectQuery;
use super::refused::{ErrorBody, Refused};
use super::results::may;
use crate::db::RepairOutcome;
use crate::repairs::{Guess, Success};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use flakefarm_shared::now_micros;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Longest name of a strategy or of a kind of failure, in bytes.
const NAME_BYTES: usize = 80;
/// Pairs of strategy and kind of failure that a project may have.
const PAIRS: usize = 1_000;

/// One proposal that an experiment was spent on.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewRepairOutcome {
    /// Chosen by whoever tried it: told twice, it counts once.
    #[schema(value_type = String)]
    pub id: Uuid,
    /// The project.
    pub project: String,
    /// How it was to be mended: `adapt`, `restore-state`, `provider:http`.
    pub strategy: String,
    /// What was to be mended: `change`, `order_victim`, `unknown`.
    pub failure: String,
    /// Whether it was shown to mend it.
    pub proved: bool,
}

/// How a strategy fared on a kind of failure.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RepairSuccess {
    /// How it was to be mended.
    pub strategy: String,
    /// What was to be mended.
    pub failure: String,
    /// Proposals that an experiment was spent on.
    pub tried: u64,
    /// Those that were shown to mend.
    pub proved: u64,
}

/// How a project's repairs fared.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RepairSuccesses {
    /// The project.
    pub project: String,
    /// By strategy and kind of failure.
    pub outcomes: Vec<RepairSuccess>,
}

impl RepairSuccesses {
    /// The same as what was learnt from it.
    pub fn learnt(self) -> crate::repairs::Learnt {
        let row = |row: RepairSuccess| {
            let success = Success { tried: row.tried, proved: row.proved };
            (Guess { strategy: row.strategy, failure: row.failure }, success)
        };
        self.outcomes.into_iter().map(row).collect()
    }
}

/// Say how a project's proposed repairs fared.
#[utoipa::path(
    get, path = "/v1/repair-outcomes", tag = "repairs", params(ProjectQuery),
    responses((status = 200, body = RepairSuccesses), (status = "default", body = ErrorBody)),
    security(("token" = ["read"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ProjectQuery>,
) -> Result<Json<RepairSuccesses>, Refused> {
    may(&caller, &query.project)?;
    let learnt = app.coordinator.db().repairs_learnt(&query.project, 0).await?;
    let row = |(guess, success): (&Guess, Success)| RepairSuccess {
        strategy: guess.strategy.clone(),
        failure: guess.failure.clone(),
        tried: success.tried,
        proved: success.proved,
    };
    let outcomes = learnt.rows().map(row).collect();
    Ok(Json(RepairSuccesses { project: query.project, outcomes }))
}

/// Note how one proposed repair fared.
#[utoipa::path(
    post, path = "/v1/repair-outcomes", tag = "repairs", request_body(content = NewRepairOutcome),
    responses((status = 204), (status = "default", body = ErrorBody)),
    security(("token" = ["submit"]))
)]
pub(super) async fn note(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewRepairOutcome>,
) -> Result<StatusCode, Refused> {
    may(&caller, &new.project)?;
    for name in [&new.strategy, &new.failure] {
        if name.is_empty() || name.len() > NAME_BYTES || name.chars().any(char::is_control) {
            let message = format!("a strategy or a kind of failure has a name of 1 to {NAME_BYTES} bytes");
            return Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, message));
        }
    }
    let db = app.coordinator.db();
    let guess = Guess { strategy: new.strategy, failure: new.failure };
    let known = db.repairs_learnt(&new.project, 0).await?;
    if known.of(&guess).tried == 0 && known.rows().count() >= PAIRS {
        let message = format!("{PAIRS} strategies and kinds of failures are known of this project already");
        return Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, message));
    }
    let outcome = RepairOutcome { id: new.id, guess, proved: new.proved, at: now_micros() };
    db.note_repair(&new.project, &outcome).await?;
    Ok(StatusCode::NO_CONTENT)
}
