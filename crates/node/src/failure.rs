//! Failures as HTTP answers: each surface in its own error shape.

use axum::Json;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hearth_engine::EngineError;
use hearth_protocol::error::{ApiError, ErrorBody, Problem};
use serde_json::{Map, json};

use crate::surface::Surface;
use crate::{RequestId, anthropic, ollama};

/// Stable name of what went wrong, on every answer that is a failure: for the log.
#[derive(Debug, Clone)]
pub(crate) struct Code(pub String);

/// A failure on OpenAI's routes.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub status: StatusCode,
    /// Seconds until another try makes sense.
    pub retry_after: Option<u64>,
    pub error: ApiError,
}

impl Failure {
    pub fn new(status: StatusCode, error: ApiError) -> Self {
        Self {
            status,
            retry_after: None,
            error,
        }
    }

    /// Stable name of what went wrong, for counters and traces.
    pub fn code(&self) -> &str {
        self.error.code.as_deref().unwrap_or("_OTHER")
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        let server = |status, code| {
            Self::new(
                status,
                ApiError::new("server_error", Some(code), message.clone()),
            )
        };
        match error {
            EngineError::UnknownModel { .. } => {
                let mut error =
                    ApiError::new("invalid_request_error", Some("model_not_found"), message);
                error.param = Some("model".into());
                Self::new(StatusCode::NOT_FOUND, error)
            }
            EngineError::Loading { progress, eta, .. } => {
                let mut failure = server(StatusCode::SERVICE_UNAVAILABLE, "model_loading");
                let seconds = eta.as_secs_f32();
                failure.retry_after = Some(seconds.ceil().max(1.0) as u64);
                failure.error.extra.insert("state".into(), "loading".into());
                failure
                    .error
                    .extra
                    .insert("progress".into(), json!(progress));
                failure.error.extra.insert("eta".into(), json!(seconds));
                failure
            }
            EngineError::NoRoom { .. } => {
                let mut failure = server(StatusCode::SERVICE_UNAVAILABLE, "no_room");
                failure.retry_after = Some(5);
                failure
            }
            EngineError::QueueFull { .. } => Self {
                status: StatusCode::TOO_MANY_REQUESTS,
                retry_after: Some(1),
                error: ApiError::new("rate_limit_error", Some("rate_limit_exceeded"), message),
            },
            EngineError::ContextExceeded { .. } => {
                let mut error = ApiError::new(
                    "invalid_request_error",
                    Some("context_length_exceeded"),
                    message,
                );
                error.param = Some("messages".into());
                Self::new(StatusCode::BAD_REQUEST, error)
            }
            EngineError::InputTooLong { index, .. } => {
                let code = Some("context_length_exceeded");
                let mut error = ApiError::new("invalid_request_error", code, message);
                error.param = Some(format!("input[{index}]"));
                error.into()
            }
            EngineError::OnlyEmbeds { .. } | EngineError::OnlyGenerates { .. } => {
                let code = Some("unsupported_model");
                let mut error = ApiError::new("invalid_request_error", code, message);
                error.param = Some("model".into());
                error.into()
            }
            EngineError::Invalid { field, .. } => {
                ApiError::invalid(Some(field.into()), message).into()
            }
            EngineError::LoadFailed { .. } => {
                server(StatusCode::INTERNAL_SERVER_ERROR, "model_load_failed")
            }
            EngineError::Compute { .. } => {
                server(StatusCode::INTERNAL_SERVER_ERROR, "engine_failed")
            }
            EngineError::Unloaded => {
                let mut failure = server(StatusCode::SERVICE_UNAVAILABLE, "model_unloaded");
                failure.retry_after = Some(1);
                failure
            }
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = Code(self.code().into());
        let mut response = (self.status, Json(ErrorBody { error: self.error })).into_response();
        response.extensions_mut().insert(code);
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A failure on Hearth's own routes, as a problem document.
pub(crate) fn problem(
    status: StatusCode,
    kind: &str,
    title: &str,
    detail: impl Into<String>,
) -> Response {
    problem_with(status, kind, title, detail, Map::new())
}

/// A problem document with further facts.
pub(crate) fn problem_with(
    status: StatusCode,
    kind: &str,
    title: &str,
    detail: impl Into<String>,
    extra: Map<String, serde_json::Value>,
) -> Response {
    let document = Problem {
        kind: format!("/problems/{kind}"),
        title: title.into(),
        status: status.as_u16(),
        detail: detail.into(),
        extra,
    };
    let mut response = (status, Json(document)).into_response();
    response.extensions_mut().insert(Code(kind.into()));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    response
}

/// A failure in the shape of the route it happened on.
pub(crate) fn on_route(
    request: &Request,
    status: StatusCode,
    code: &str,
    message: &str,
) -> Response {
    let path = request.uri().path();
    let failure = || {
        let error = ApiError::new("invalid_request_error", Some(code), message);
        Failure::new(status, error)
    };
    match Surface::of(path, request.headers()) {
        Surface::Anthropic => {
            let id = request.extensions().get::<RequestId>();
            anthropic::refusal(failure(), id.map_or("", |id| &id.0))
        }
        Surface::Ollama => ollama::on_route(failure()),
        Surface::OpenAi => failure().into_response(),
        Surface::Hearth => problem(
            status,
            code,
            status.canonical_reason().unwrap_or("error"),
            message,
        ),
    }
}
