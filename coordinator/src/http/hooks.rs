//! `/v1/hooks`: comments of pull requests that ask for reruns. Who calls is known by a signature over the body,
//! so the route is open; a delivery counts once, however often it comes.

use super::App;
use super::caller::Caller;
use super::extract::{Body, Path};
use super::refused::{ErrorBody, Refused};
use super::results::may;
use crate::db::NewSweep;
use crate::engine::EngineError;
use crate::notify::comment::{self, Asked};
use crate::plan::{Question, Runs, ScopeChoice, TestFilter};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use flakefarm_shared::{Class, Digest, SweepContext, SweepId, World, now_micros};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use tracing::info;
use utoipa::ToSchema;
use uuid::Uuid;

/// Largest delivery.
const LARGEST: usize = 1 << 20;
/// Shortest secret.
const SHORTEST_SECRET: usize = 16;

/// The secret of a project's hook.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewHook {
    /// The project.
    pub project: String,
    /// The secret, of 16 characters or more; none takes the hook away.
    #[schema(min_length = 16)]
    pub secret: Option<String>,
}

/// What came of a delivery.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Hooked {
    /// The sweeps that it began, now or when it came first.
    pub sweeps: Vec<String>,
    /// Why it began none.
    pub nothing: Option<String>,
}

/// Let comments of pull requests ask for reruns, or let them no more.
#[utoipa::path(
    put, path = "/v1/hooks", tag = "notifications", request_body(content = NewHook),
    responses((status = 204), (status = "default", body = ErrorBody)),
    security(("token" = ["admin"]))
)]
pub(super) async fn set(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewHook>,
) -> Result<StatusCode, Refused> {
    may(&caller, &new.project)?;
    if new.secret.as_ref().is_some_and(|secret| secret.len() < SHORTEST_SECRET) {
        let error = format!("a secret has {SHORTEST_SECRET} characters or more");
        return Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, error));
    }
    app.coordinator.db().set_hook(&new.project, new.secret.as_deref(), now_micros()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Take a delivery of GitHub's: a comment `/flaky TEST:COUNT` of a pull request.
#[utoipa::path(
    post, path = "/v1/hooks/{project}", tag = "notifications",
    params(
        ("project" = String, Path, description = "the project"),
        ("x-hub-signature-256" = Option<String>, Header, description = "HMAC-SHA-256 over the body"),
        ("x-github-event" = Option<String>, Header, description = "the event")
    ),
    request_body(content = Object),
    responses((status = 202, body = Hooked), (status = "default", body = ErrorBody)),
    security(())
)]
pub(super) async fn take(
    State(app): State<App>,
    Path(project): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<Hooked>), Refused> {
    // In the same words whether the project has a hook or not: nobody learns what there is.
    let forged = || Refused::new(StatusCode::UNAUTHORIZED, "the delivery is not signed by its sender");
    if body.len() > LARGEST {
        return Err(Refused::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the delivery is larger than this call takes",
        ));
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let secret = app.coordinator.db().hook(&project).await?.ok_or_else(forged)?;
    if !comment::is_signed(&secret, text("x-hub-signature-256"), &body) {
        return Err(forged());
    }
    if let Some(seconds) = app.rates.take(&format!("hook/{project}")) {
        let refused = Refused::new(StatusCode::TOO_MANY_REQUESTS, "this hook is called too often");
        return Err(refused.retry_after(seconds));
    }
    let content = serde_json::from_slice(&body)
        .map_err(|_| Refused::new(StatusCode::BAD_REQUEST, "the delivery is no JSON"))?;
    let nothing = |why: &str| {
        Ok((StatusCode::ACCEPTED, Json(Hooked { sweeps: Vec::new(), nothing: Some(why.to_owned()) })))
    };
    let (tests, thread, who) = match comment::read(text("x-github-event"), &content) {
        Asked::Nothing(why) => return nothing(why),
        Asked::Reruns { tests, thread, who } => (tests, thread, who),
    };
    let db = app.coordinator.db();
    let Some(latest) = db.latest_sweep(&project).await? else {
        return nothing("the project was never swept here: nobody knows how to run it");
    };
    let blobs = app.coordinator.blobs();
    let mut context: SweepContext = blobs.get_json(&latest.context, "a sweep's context").await?;
    context.under = World::Plain;
    let context = blobs.put_json(&context).await?;
    // The header that numbers deliveries is not signed; the body is, and names the comment.
    let delivery = Digest::of(&body);
    let mut sweeps = Vec::new();
    for (number, (test, count)) in tests.into_iter().enumerate() {
        let name = format!("flakefarm:hook:{project}:{delivery}:{number}");
        let id = SweepId(Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()));
        sweeps.push(id.to_string());
        if db.sweep(id).await?.is_some() {
            continue;
        }
        let seed = id.0.as_u64_pair().0;
        let question = Question {
            runs: Runs::Fixed(NonZeroU32::new(count).expect("a count is one at least")),
            scope: ScopeChoice::Test,
            tests: TestFilter(vec![test]),
            ..Question::detect(seed)
        };
        let sweep = NewSweep {
            id,
            project: project.clone(),
            revision: latest.revision.clone(),
            question: serde_json::to_string(&question).expect("a question serialises"),
            context: context.clone(),
            class: Class::Interactive,
            seed,
            source: format!("pull-request:{thread}"),
            created_at: now_micros(),
        };
        if let Err(error) = app.coordinator.begin(&sweep).await {
            // Another coordinator may have taken the same delivery at the same time.
            if db.sweep(id).await?.is_none() {
                return Err(EngineError::from(error).into());
            }
        }
        info!(sweep.id = %id, project, who, thread, "a comment asked for reruns");
    }
    Ok((StatusCode::ACCEPTED, Json(Hooked { sweeps, nothing: None })))
}
