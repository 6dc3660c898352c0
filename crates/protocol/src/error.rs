//! The two error shapes: OpenAI's, and RFC 9457 problem documents for Hearth's own routes.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// The `error` object of OpenAI's API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// What is wrong and how to mend it.
    pub message: String,
    /// Family of the error (`invalid_request_error`, `rate_limit_error`, `server_error`, …).
    #[serde(rename = "type")]
    pub kind: String,
    /// The field that is wrong, as a path.
    pub param: Option<String>,
    /// Stable name of the error.
    pub code: Option<String>,
    /// Further facts (`state`, `progress`, `eta` while a model loads).
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Map<String, Value>,
}

impl ApiError {
    /// An error of this family and name.
    pub fn new(kind: &str, code: Option<&str>, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: kind.into(),
            param: None,
            code: code.map(Into::into),
            extra: Map::new(),
        }
    }

    /// A request that is wrong; `param` names the field.
    pub fn invalid(param: Option<String>, message: impl Into<String>) -> Self {
        Self {
            param,
            ..Self::new("invalid_request_error", Some("invalid_value"), message)
        }
    }

    /// A parameter that Hearth does not know how to honour.
    pub fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..Self::new(
                "invalid_request_error",
                Some("unsupported_parameter"),
                message,
            )
        }
    }
}

/// The body of an error on OpenAI's routes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

/// A problem document (RFC 9457), `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Stable name of the problem, as a relative URI.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short summary, the same for every occurrence.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What is wrong here and how to mend it.
    pub detail: String,
    /// Further facts.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Map<String, Value>,
}
