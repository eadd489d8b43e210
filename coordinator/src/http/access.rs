//! Whether callers may. Each handler declares in its description which scope it needs; the
//! guard reads that from the same document that clients read, so that the two cannot differ and a route
//! without a rule is refused.

use super::App;
use super::caller::{Caller, Scope};
use super::refused::Refused;
use super::tokens;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::collections::HashMap;
use tracing::error;
use utoipa::openapi::OpenApi;

/// The name of the only way to say who one is, in the document.
pub(super) const SCHEME: &str = "token";

/// What a handler demands of its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Nothing.
    Open,
    /// A token with this scope.
    Needs(Scope),
}

/// The rules of all routes, by path and method.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules(HashMap<(String, Method), Rule>);

impl Rules {
    /// As the document says. What it says of a route may make no sense; such a route has no rule.
    pub(super) fn of(document: &OpenApi) -> Self {
        let document = serde_json::to_value(document).expect("a document serialises");
        let mut rules = HashMap::new();
        for (path, operations) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in operations.as_object().into_iter().flatten() {
                let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
                if let Some(rule) = rule(&operation["security"]) {
                    rules.insert((path.clone(), method), rule);
                }
            }
        }
        Self(rules)
    }

    pub(super) fn get(&self, path: &str, method: &Method) -> Option<Rule> {
        // HEAD is answered by what answers GET.
        let method = if *method == Method::HEAD { Method::GET } else { method.clone() };
        self.0.get(&(path.to_owned(), method)).copied()
    }

    /// The methods of a path, as a header lists them; none if it declares none.
    fn methods(&self, path: &str) -> Option<String> {
        let mut methods: Vec<&str> =
            self.0.keys().filter(|(known, _)| known == path).map(|(_, method)| method.as_str()).collect();
        methods.sort_unstable();
        (!methods.is_empty()).then(|| methods.join(", "))
    }
}

fn rule(security: &serde_json::Value) -> Option<Rule> {
    let [requirement] = security.as_array()?.as_slice() else { return None };
    let requirement = requirement.as_object()?;
    if requirement.is_empty() {
        return Some(Rule::Open);
    }
    let [scope] = requirement.get(SCHEME)?.as_array()?.as_slice() else { return None };
    scope.as_str()?.parse().ok().map(Rule::Needs)
}

/// Lets a request pass that its route's rule allows, with its caller.
pub(super) async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let Some(path) = path else { return next.run(request).await };
    match app.rules.get(&path, request.method()) {
        None if app.rules.methods(&path).is_some() => {
            let refused = Refused::new(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{} is not possible here", request.method()),
            );
            let allowed = app.rules.methods(&path).unwrap_or_default();
            ([(header::ALLOW, allowed)], refused.hint("GET /openapi.json lists what is")).into_response()
        }
        None => {
            error!(http.path = path, "a route declares no rule and is refused");
            Refused::new(StatusCode::FORBIDDEN, "nobody may call this: it declares no scope").into_response()
        }
        Some(Rule::Open) => next.run(request).await,
        Some(Rule::Needs(scope)) => {
            let token = request
                .headers()
                .get(header::AUTHORIZATION)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| value.strip_prefix("Bearer "))
                .map(str::to_owned);
            match authorise(&app, token.as_deref(), scope).await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    next.run(request).await
                }
                Err(refused) => refused.into_response(),
            }
        }
    }
}

async fn authorise(app: &App, token: Option<&str>, scope: Scope) -> Result<Caller, Refused> {
    let hint =
        "issue one with `flakefarm token create` where the coordinator runs, and pass it in FLAKEFARM_TOKEN";
    let Some(token) = token else {
        return Err(Refused::new(StatusCode::UNAUTHORIZED, "a token is needed").hint(hint));
    };
    let Some(caller) = tokens::check_token(app.coordinator.db(), token).await? else {
        return Err(
            Refused::new(StatusCode::UNAUTHORIZED, "the token is unknown, expired or revoked").hint(hint)
        );
    };
    if !caller.scopes.contains(&scope) {
        let has: Vec<_> = caller.scopes.iter().map(|scope| scope.word()).collect();
        return Err(Refused::new(
            StatusCode::FORBIDDEN,
            format!("this needs a token with the scope {}, not {}", scope.word(), has.join(", ")),
        )
        .hint(hint));
    }
    if let Some(seconds) = app.rates.take(&caller.token) {
        return Err(Refused::new(StatusCode::TOO_MANY_REQUESTS, "this token calls too often")
            .hint(format!("try again in {seconds} s"))
            .retry_after(seconds));
    }
    Ok(caller)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_rule_that_is_understood_lets_anybody_in() {
        assert_eq!(rule(&json!([{}])), Some(Rule::Open));
        assert_eq!(rule(&json!([{ "token": ["read"] }])), Some(Rule::Needs(Scope::Read)));
        for nonsense in [
            json!(null),
            json!([]),
            json!([{ "token": [] }]),
            json!([{ "token": ["everything"] }]),
            json!([{ "token": ["read", "submit"] }]),
            json!([{}, { "token": ["admin"] }]),
            json!([{ "cookie": ["read"] }]),
        ] {
            assert_eq!(rule(&nonsense), None, "{nonsense}");
        }
    }
}
