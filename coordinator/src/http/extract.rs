//! Bodies, parts of paths and parameters as types; what is none is refused in the one shape of error.

use super::refused::Refused;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

/// A JSON body.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(match &rejection {
                JsonRejection::MissingJsonContentType(_) => {
                    Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is not said to be JSON")
                        .hint("send `content-type: application/json`")
                }
                JsonRejection::BytesRejection(_) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                    Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than this call takes")
                }
                _ => Refused::new(
                    rejection.status(),
                    format!("the body is not what this call takes: {}", said(&rejection)),
                )
                .hint("GET /openapi.json describes it"),
            }),
        }
    }
}

/// Parts of the path.
#[derive(Debug)]
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(PathRejection::FailedToDeserializePathParams(_)) => Err(Refused::not_found(parts.uri.path())),
            Err(rejection) => Err(Refused::new(rejection.status(), rejection.body_text())),
        }
    }
}

/// Parameters behind the question mark.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(bad_query(&rejection)),
        }
    }
}

fn bad_query(rejection: &QueryRejection) -> Refused {
    let said = said(rejection);
    Refused::new(StatusCode::BAD_REQUEST, format!("the parameters are not what this call takes: {said}"))
        .hint("GET /openapi.json describes them")
}

/// The innermost reason: the outer ones only say that there is one.
fn said(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
