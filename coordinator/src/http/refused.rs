//! An answer that is no success. Whatever goes wrong, its body is `{"error", "code", "hint"}`.

use crate::db::DbError;
use crate::engine::{EngineError, QuotaExceeded};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flakefarm_shared::blobs::BlobError;
use flakefarm_shared::queue::QueueError;
use serde::{Deserialize, Serialize};
use tracing::error;
use utoipa::ToSchema;

/// What every answer that is no success says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What failed, on what, for people.
    pub error: String,
    /// The same for programs: `not_found`, `conflict`, `too_large`, …
    pub code: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// An answer that is no success.
#[derive(Debug)]
pub struct Refused {
    pub(super) status: StatusCode,
    pub(super) error: String,
    pub(super) hint: Option<String>,
    retry_after: Option<u64>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), hint: None, retry_after: None }
    }

    pub(super) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("{what} is not known here"))
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// To be asked again after so many seconds.
    pub(super) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    fn code(&self) -> &'static str {
        match self.status {
            StatusCode::BAD_REQUEST => "bad_request",
            StatusCode::UNAUTHORIZED => "unauthorised",
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
            StatusCode::CONFLICT => "conflict",
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
            StatusCode::UNPROCESSABLE_ENTITY => "unprocessable",
            StatusCode::UPGRADE_REQUIRED => "other_version",
            StatusCode::TOO_MANY_REQUESTS => "too_many_requests",
            StatusCode::INSUFFICIENT_STORAGE => "quota_exceeded",
            StatusCode::SERVICE_UNAVAILABLE => "unavailable",
            _ => "internal",
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let code = self.code().to_owned();
        let body = ErrorBody { error: self.error, code, hint: self.hint };
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<EngineError> for Refused {
    fn from(error: EngineError) -> Self {
        let status = match &error {
            EngineError::Db(DbError::NotFound(what)) => return Refused::not_found(what),
            EngineError::Db(DbError::Conflict(why)) => return Refused::new(StatusCode::CONFLICT, why),
            EngineError::Unusable(refusal) => {
                let refused = Refused::new(StatusCode::CONFLICT, refusal.message.clone());
                return Refused { hint: refusal.hint.clone(), ..refused };
            }
            EngineError::Blobs(BlobError::Missing(digest)) => {
                return Refused::new(StatusCode::NOT_FOUND, format!("blob {digest} is not in the store"));
            }
            EngineError::Db(DbError::Unreachable(_))
            | EngineError::Queue(QueueError::Unreachable(_))
            | EngineError::Samples(_)
            | EngineError::StoreGone
            | EngineError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            EngineError::Db(_) | EngineError::Queue(_) | EngineError::Blobs(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        // Addresses and paths of the farm are none of a client's business.
        error!(error = flakefarm_shared::chain(&error), "request failed");
        Refused::new(status, error.to_string()).hint("the coordinator's log says more")
    }
}

impl From<QuotaExceeded> for Refused {
    fn from(exceeded: QuotaExceeded) -> Self {
        let refused = |status| Refused::new(status, exceeded.to_string()).hint(exceeded.hint());
        match exceeded {
            QuotaExceeded::Attempts { .. } => refused(StatusCode::TOO_MANY_REQUESTS).retry_after(60),
            QuotaExceeded::Bytes { .. } => refused(StatusCode::INSUFFICIENT_STORAGE),
        }
    }
}

impl From<DbError> for Refused {
    fn from(error: DbError) -> Self {
        EngineError::from(error).into()
    }
}

impl From<BlobError> for Refused {
    fn from(error: BlobError) -> Self {
        EngineError::from(error).into()
    }
}
