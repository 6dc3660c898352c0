//! Anthropic's surface.

mod events;
pub(crate) mod messages;
pub(crate) mod models;
mod prompt;

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use hearth_protocol::anthropic::{ErrorObject, ErrorResponse};

use crate::failure::{Code, Failure};

/// Whether Anthropic's clients send this; every request of theirs names the version of the API.
pub(crate) fn asks(headers: &HeaderMap) -> bool {
    headers.contains_key("anthropic-version")
}

/// A failure in Anthropic's shape.
pub(crate) fn refusal(failure: Failure, request_id: &str) -> Response {
    let (status, retry_after) = (failure.status, failure.retry_after);
    let code = Code(failure.code().into());
    let mut response = (status, Json(error(failure, request_id))).into_response();
    response.extensions_mut().insert(code);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// The body that tells of a failure.
fn error(failure: Failure, request_id: &str) -> ErrorResponse {
    let mut details = failure.error.extra;
    if let Some(code) = failure.error.code {
        details.insert("error_code".into(), code.into());
    }
    if let Some(param) = failure.error.param {
        details.insert("param".into(), param.into());
    }
    ErrorResponse {
        kind: "error".into(),
        error: ErrorObject {
            kind: kind(failure.status).into(),
            message: failure.error.message,
            details,
        },
        request_id: request_id.into(),
    }
}

/// Anthropic's name for failures of a status (<https://docs.anthropic.com/en/api/errors>).
fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::REQUEST_TIMEOUT => "timeout_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        // What a client meets by trying again: the model is loading, or there is no room for it now.
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        status if status.is_server_error() => "api_error",
        _ => "invalid_request_error",
    }
}
