//! Answers of the server: JSON, or an error with its status, kind and reason.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use vaplan_schemas::StoreError;

use crate::error::LabelError;

/// A request that was not answered as asked.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    reason: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, kind: &'static str, reason: impl Into<String>) -> ApiError {
        ApiError {
            status,
            kind,
            reason: reason.into(),
        }
    }

    /// A request that names something unknown, or has a value that is not allowed.
    pub(super) fn bad(reason: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "request", reason)
    }

    /// A video, file or page that does not exist.
    pub(super) fn missing(reason: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "missing", reason)
    }

    /// The server cannot answer now; the same request may succeed later.
    pub(super) fn busy(reason: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", reason)
    }
}

impl From<LabelError> for ApiError {
    fn from(error: LabelError) -> ApiError {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "store",
            crate::chain::chain(&error),
        )
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        match error {
            StoreError::NoVersion { .. } | StoreError::Vacuumed { .. } => {
                ApiError::missing(error.to_string())
            }
            error => LabelError::from(error).into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            kind: &'static str,
            error: String,
        }
        if self.status.is_server_error() {
            tracing::warn!(status = self.status.as_u16(), reason = %self.reason, "the review page could not answer");
        }
        let body = Body {
            kind: self.kind,
            error: self.reason,
        };
        (self.status, JsonAnswer(body)).into_response()
    }
}

/// A value as JSON.
#[derive(Debug)]
pub(super) struct JsonAnswer<T>(pub(super) T);

impl<T: Serialize> IntoResponse for JsonAnswer<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => (
                [(CONTENT_TYPE, HeaderValue::from_static("application/json"))],
                body,
            )
                .into_response(),
            // The values have text as keys, so that this does not happen.
            Err(error) => {
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", error.to_string()).into_response()
            }
        }
    }
}

/// The answer to a request.
pub(super) type ApiAnswer<T> = Result<T, ApiError>;
