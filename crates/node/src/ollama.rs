//! Ollama's surface: `/api/*`, so that programs made for Ollama find a node where they look for it.
//!
//! Its clients know no "try again while the model loads": a request waits here until its model is loaded, and the
//! answer says how long that took.

mod answer;
pub(crate) mod chat;
pub(crate) mod embed;
pub(crate) mod facts;
pub(crate) mod generate;
pub(crate) mod models;
mod question;
pub(crate) mod store;

use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hearth_engine::{Constraint, EngineError, ModelSource, Reasoning, Sampling};
use hearth_protocol::error::ApiError;
use hearth_protocol::ollama::{ErrorBody, KeepAlive, Level, Options, Think};
use hearth_protocol::parse;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::body::received;
use crate::failure::{Code, Failure};
use crate::state::{Node, Shared};

/// A failure on Ollama's routes: `{"error": "…"}`.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    status: StatusCode,
    /// Seconds until another try makes sense.
    retry_after: Option<u64>,
    /// Stable name of what went wrong, for the log; the answer has no place for it.
    code: Option<String>,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            retry_after: None,
            code: None,
            message: message.into(),
        }
    }

    /// No model of that name; the words are those that Ollama's clients look for.
    fn not_found(name: &str, advice: &str) -> Self {
        Self {
            code: Some("model_not_found".into()),
            ..Self::new(
                StatusCode::NOT_FOUND,
                format!("model '{name}' not found; {advice}"),
            )
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        // Ollama says so when its queue is full.
        let status = match failure.status {
            StatusCode::TOO_MANY_REQUESTS => StatusCode::SERVICE_UNAVAILABLE,
            status => status,
        };
        // There is no place of its own for the field.
        let (field, message) = (failure.error.param, failure.error.message);
        let message = match field {
            Some(field) if !message.contains(&field) => format!("{field}: {message}"),
            _ => message,
        };
        Self {
            status,
            retry_after: failure.retry_after,
            code: failure.error.code,
            message,
        }
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Failure::from(error).into()
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::UnknownModel { name, advice, .. } => Self::not_found(&name, &advice),
            other => Failure::from(other).into(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            error: self.message,
        };
        let mut response = (self.status, Json(body)).into_response();
        if let Some(code) = self.code {
            response.extensions_mut().insert(Code(code));
        }
        if let Some(seconds) = self.retry_after {
            let seconds = HeaderValue::from(seconds);
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}

/// A failure of the door itself, on one of these routes.
pub(crate) fn on_route(failure: Failure) -> Response {
    Refusal::from(failure).into_response()
}

/// The body of a request.
async fn read<T: DeserializeOwned>(node: &Node, body: Body) -> Result<T, Refusal> {
    let bytes = received(node, body).await?;
    if bytes.is_empty() {
        let message = "missing request body: send a JSON object";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    Ok(parse::body(&bytes)?)
}

/// The model's name in the form that Ollama's clients compare: always with a tag.
fn tagged(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or(name);
    match last.contains(':') {
        true => name.to_owned(),
        false => format!("{name}:latest"),
    }
}

/// Waits until a model is loaded, however long it takes, and tells how long it took.
async fn load(
    node: &Shared,
    source: &ModelSource,
    options: Option<&Options>,
) -> Result<Duration, Refusal> {
    tracing::Span::current().record("model", &source.name);
    let begun = Instant::now();
    node.engine.load(Some(&source.name)).await?;
    let wanted = options.and_then(|options| options.num_ctx);
    if let (Some(wanted), Some(loaded)) = (wanted, node.engine.residence(&source.name))
        && wanted > i64::from(loaded.context)
    {
        let context = loaded.context;
        let message = format!(
            "options.num_ctx is {wanted}, and model '{}' has a context of {context} on this node; leave it out, or start the node with a larger --context",
            source.name
        );
        return Err(ApiError::invalid(Some("options.num_ctx".into()), message).into());
    }
    Ok(begun.elapsed())
}

/// Has a model stay loaded for as long as a request says, counted from its last one.
fn keep(node: &Node, source: &ModelSource, keep_alive: Option<KeepAlive>) {
    match keep_alive {
        None => {}
        Some(KeepAlive::For(time)) => node.engine.keep(&source.name, Some(time)),
        Some(KeepAlive::Forever) => node.engine.keep(&source.name, None),
    }
}

/// Whether a request without anything to answer asks for the model to go.
fn unloads(keep_alive: Option<KeepAlive>) -> bool {
    keep_alive == Some(KeepAlive::For(Duration::ZERO))
}

/// Now, as Ollama writes it.
fn now() -> String {
    jiff::Timestamp::now().to_string()
}

fn sampling(options: &Options) -> Sampling {
    let count = |number: i64| u32::try_from(number.max(0)).unwrap_or(u32::MAX);
    Sampling {
        temperature: options.temperature,
        top_k: options.top_k.map(count),
        top_p: options.top_p,
        min_p: options.min_p,
        repeat_penalty: options.repeat_penalty,
        penalty_window: options.repeat_last_n.map(|tokens| match tokens {
            ..0 => u32::MAX,
            tokens => count(tokens),
        }),
        frequency_penalty: options.frequency_penalty.unwrap_or(0.0),
        presence_penalty: options.presence_penalty.unwrap_or(0.0),
        logit_bias: Vec::new(),
        seed: options
            .seed
            .filter(|seed| *seed != -1)
            .map(|seed| seed as u64),
    }
}

/// Most tokens to generate.
fn limit(options: &Options) -> Option<u32> {
    options
        .num_predict
        .filter(|tokens| *tokens >= 0)
        .map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX))
}

fn stop(options: &Options) -> Vec<String> {
    options
        .stop
        .as_ref()
        .map(|stop| stop.texts())
        .unwrap_or_default()
}

/// What the answer must look like.
fn constraint(format: Option<&Value>) -> Result<Constraint, ApiError> {
    match format {
        None | Some(Value::Null) => Ok(Constraint::None),
        Some(Value::String(name)) if name.is_empty() => Ok(Constraint::None),
        Some(Value::String(name)) if name == "json" => Ok(Constraint::JsonObject),
        Some(schema @ Value::Object(_)) => Ok(Constraint::JsonSchema(schema.clone())),
        Some(_) => Err(ApiError::invalid(
            Some("format".into()),
            "format: expected \"json\" or a JSON Schema, an object",
        )),
    }
}

/// How much the model may reason, and what its template is told.
fn reasoning(think: Option<Think>) -> (Reasoning, serde_json::Map<String, Value>) {
    let mut variables = serde_json::Map::new();
    let reasoning = match think {
        None => Reasoning::default(),
        Some(Think::Switch(enabled)) => Reasoning {
            enabled: Some(enabled),
            budget: None,
        },
        Some(Think::Level(level)) => {
            let (effort, budget) = match level {
                Level::Low => ("low", Some(2048)),
                Level::Medium => ("medium", Some(8192)),
                // Templates know no more.
                Level::High | Level::Max => ("high", None),
            };
            variables.insert("reasoning_effort".into(), effort.into());
            Reasoning {
                enabled: Some(true),
                budget,
            }
        }
    };
    (reasoning, variables)
}

/// Refuses reasoning that the model cannot do, as Ollama does.
async fn check_think(
    node: &Shared,
    source: &ModelSource,
    think: Option<Think>,
) -> Result<(), Refusal> {
    if matches!(think, None | Some(Think::Switch(false))) {
        return Ok(());
    }
    let facts = facts::of(node, source).await;
    // A file that cannot be read is the loader's to explain.
    if !facts.readable || facts.capabilities.contains(&facts::THINKING) {
        return Ok(());
    }
    let message = format!(
        "\"{}\" does not support thinking; leave think out",
        source.name
    );
    Err(ApiError::invalid(Some("think".into()), message).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_tag() {
        for (name, listed) in [
            ("ember", "ember:latest"),
            ("qwen3:1.7b", "qwen3:1.7b"),
            ("hf:org/repo", "hf:org/repo:latest"),
            ("hf:org/repo:Q4_K_M", "hf:org/repo:Q4_K_M"),
            ("/models/a.gguf", "/models/a.gguf:latest"),
        ] {
            assert_eq!(tagged(name), listed);
        }
    }
}
