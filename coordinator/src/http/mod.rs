//! The coordinator's HTTP interface, `/v1`, described by `/openapi.json`, which is made from the
//! handlers. Every call but the health checks carries a token: `Authorization: Bearer
//! ff_<kind>_<id>_<secret>`. Errors are `{"error", "code", "hint"}`, whatever goes wrong.

mod access;
mod archive;
mod caller;
mod channels;
mod digest;
mod events;
mod extract;
mod farm;
mod history;
mod hooks;
mod importing;
mod links;
mod quarantine;
mod rates;
mod refused;
mod repairing;
mod repairs;
mod results;
mod schedules;
mod snapshots;
mod standing;
mod sweeps;
#[cfg(test)]
mod tests;
mod tokens;
pub mod views;

pub use caller::{Caller, Projects, Scope};
pub use channels::{ChannelName, ChannelView, Channels, Deliveries, DeliveryView, NewChannel, Revived};
pub use hooks::{Hooked, NewHook};
pub use importing::DIGEST_HEADER;
pub use links::TestLink;
pub use quarantine::{NewEntry, NewRule, QuarantineLog, QuarantineView, Removal};
pub use refused::ErrorBody;
pub use repairing::{RepairView, RepairsPage};
pub use repairs::{NewRepairOutcome, RepairSuccess, RepairSuccesses};
pub use results::ResultsQuery;
pub use schedules::{FiringView, GitView, NewGit, NewSchedule, ScheduleView, Schedules};
pub use standing::{FarmStatus, LeaseStatus, QueueStatus, StoreStatus, TroubleStatus, TrustStatus};
pub use tokens::{NewToken, TokenKind, check_token, issue_token};

use crate::engine::Coordinator;
use access::Rules;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use rates::Rates;
use refused::Refused;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, RefOr};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Version of this interface; a client of another version is told so.
pub const API_VERSION: &str = "1";
/// The header in which both sides name the version they speak.
pub const API_HEADER: &str = "flakefarm-api";
/// Largest JSON body.
const BODY_LIMIT: usize = 32 << 20;

/// Serves until `stop`.
pub async fn serve(
    listener: TcpListener,
    coordinator: Coordinator,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    info!(http.address = %address, "listening");
    let ending = stop.clone();
    axum::serve(listener, router(coordinator, stop)).with_graceful_shutdown(ending.cancelled_owned()).await
}

#[derive(Debug, Clone)]
struct App {
    coordinator: Coordinator,
    stop: CancellationToken,
    rules: Arc<Rules>,
    rates: Rates,
    uploads: Arc<Semaphore>,
    document: Arc<str>,
}

/// All routes, each with its description.
fn routes() -> OpenApiRouter<App> {
    let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("ff_<kind>_<id>_<secret>");
    let token = token.description(Some("issued by `flakefarm token create`")).build();
    let document = OpenApiBuilder::new()
        .info(InfoBuilder::new().title("flakefarm").version(env!("CARGO_PKG_VERSION")).build())
        .components(Some(
            ComponentsBuilder::new().security_scheme(access::SCHEME, SecurityScheme::Http(token)).build(),
        ))
        .build();
    OpenApiRouter::with_openapi(document)
        .routes(routes!(farm::healthz))
        .routes(routes!(farm::readyz))
        .routes(routes!(standing::metrics))
        .routes(routes!(standing::status))
        .routes(routes!(openapi))
        .routes(routes!(snapshots::put_snapshot))
        .routes(routes!(snapshots::get_blob))
        .routes(routes!(importing::import))
        .routes(routes!(sweeps::submit, sweeps::list))
        .routes(routes!(sweeps::show, sweeps::cancel))
        .routes(routes!(sweeps::report))
        .routes(routes!(events::follow))
        .routes(routes!(events::list))
        .routes(routes!(results::take))
        .routes(routes!(history::tests))
        .routes(routes!(history::history))
        .routes(routes!(history::trends))
        .routes(routes!(history::forecast))
        .routes(routes!(links::list, links::put))
        .routes(routes!(links::remove))
        .routes(routes!(repairs::list, repairs::note))
        .routes(routes!(repairing::ask, repairing::list))
        .routes(routes!(repairing::show, repairing::cancel))
        .routes(routes!(repairing::events))
        .routes(routes!(repairing::patch))
        .routes(routes!(repairing::accept))
        .routes(routes!(quarantine::list, quarantine::put))
        .routes(routes!(quarantine::remove))
        .routes(routes!(quarantine::log))
        .routes(routes!(quarantine::set_rule))
        .routes(routes!(channels::put, channels::list))
        .routes(routes!(channels::remove))
        .routes(routes!(channels::try_it))
        .routes(routes!(channels::deliveries))
        .routes(routes!(channels::retry))
        .routes(routes!(hooks::set))
        .routes(routes!(hooks::take))
        .routes(routes!(digest::digest))
        .routes(routes!(schedules::add, schedules::list))
        .routes(routes!(schedules::remove))
        .routes(routes!(schedules::run))
        .routes(routes!(schedules::pause))
        .routes(routes!(schedules::resume))
        .routes(routes!(farm::workers))
        .routes(routes!(farm::dead))
        .routes(routes!(farm::requeue_dead))
        .routes(routes!(farm::discard_dead))
}

/// The description of the interface: OpenAPI 3.1.
pub fn document() -> OpenApi {
    described().1
}

/// All routes, and their description with what the standard wants and attributes leave out: a name of
/// each operation that no other has, and words for each answer.
fn described() -> (Router<App>, OpenApi) {
    let (router, mut document) = routes().split_for_parts();
    for (path, item) in &mut document.paths.paths {
        let place: Vec<&str> = path.split(['/', '.', '{', '}']).filter(|part| !part.is_empty()).collect();
        let operations = [
            ("get", &mut item.get),
            ("put", &mut item.put),
            ("post", &mut item.post),
            ("delete", &mut item.delete),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            operation.operation_id = Some(format!("{method}_{}", place.join("_")));
            for (status, answer) in &mut operation.responses.responses {
                if let RefOr::T(answer) = answer
                    && answer.description.is_empty()
                {
                    answer.description = words(status).to_owned();
                }
            }
        }
    }
    (router, document)
}

/// What an answer of a status is, where nothing else is said of it.
fn words(status: &str) -> &'static str {
    match status {
        "default" => "refused, with what is wrong and what to do about it",
        "201" => "done; what was made",
        "202" => "taken; it follows",
        "204" => "done; nothing more to say",
        "503" => "not now",
        _ => "what was asked for",
    }
}

fn router(coordinator: Coordinator, stop: CancellationToken) -> Router {
    let (router, document) = described();
    guarded(router, &document, coordinator, stop)
}

/// Puts around routes what holds for all of them.
fn guarded(
    router: Router<App>,
    document: &OpenApi,
    coordinator: Coordinator,
    stop: CancellationToken,
) -> Router {
    let app = App {
        coordinator,
        stop,
        rules: Arc::new(Rules::of(document)),
        rates: Rates::default(),
        uploads: Arc::new(Semaphore::new(snapshots::UPLOADS_AT_ONCE)),
        document: serde_json::to_string(document).expect("a document serialises").into(),
    };
    router
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn_with_state(app.clone(), access::guard))
        .layer(middleware::from_fn(standing::measure))
        .fallback(unknown)
        .layer(middleware::from_fn(contain))
        .layer(middleware::from_fn(version))
        .with_state(app)
}

/// Describe this interface.
#[utoipa::path(
    get, path = "/openapi.json", tag = "farm",
    responses((status = 200, body = Object, description = "an OpenAPI 3.1 document")),
    security(())
)]
async fn openapi(State(app): State<App>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], app.document.to_string())
}

async fn unknown(uri: Uri) -> Refused {
    Refused::not_found(uri.path()).hint("GET /openapi.json lists what is")
}

/// A handler that panics is an error of its request alone.
async fn contain(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            error!(http.path = path, "a handler panicked");
            let refused =
                Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "this call met a defect of flakefarm");
            refused.hint("the coordinator's log says more").into_response()
        }
    }
}

async fn version(request: Request, next: Next) -> Response {
    let theirs = request.headers().get(API_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut response = match theirs {
        Some(theirs) if theirs != API_VERSION => Refused::new(
            StatusCode::UPGRADE_REQUIRED,
            format!(
                "client speaks version {theirs} of the interface, this coordinator version {API_VERSION}"
            ),
        )
        .hint(format!("use flakefarm {} on both sides", env!("CARGO_PKG_VERSION")))
        .into_response(),
        _ => next.run(request).await,
    };
    response.headers_mut().insert(API_HEADER, HeaderValue::from_static(API_VERSION));
    response
}
