//! `/health`: whether a token can come back, not only whether the process runs.
//!
//! A token that real traffic got within the last half minute is proof enough. Otherwise one token is generated; probes
//! that arrive meanwhile wait for that one. A node whose slots are all at long prompts is healthy while they advance.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use hearth_engine::{EmbedInput, EmbedRequest, EngineError, Event, Prompt, Request};
use serde_json::{Map, json};

use crate::failure::{Failure, problem_with};
use crate::state::{Node, Shared};

/// How long a token proves health.
const PROOF: Duration = Duration::from_secs(30);
/// How long the probe's token may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether a token can come back.
#[utoipa::path(get, path = "/health", tag = "node", responses(
    (status = 200, description = "a token came back within the last half minute, or just now"),
    (status = 503, description = "none can; the problem document says why, and how far a loading model is")))]
pub(crate) async fn health(State(node): State<Shared>) -> Response {
    if let Some(age) = recent(&node) {
        return healthy(&node, age);
    }
    let _alone = node.probing.lock().await;
    if let Some(age) = recent(&node) {
        return healthy(&node, age);
    }
    let before = computed(&node);
    match tokio::time::timeout(PATIENCE, probe(&node)).await {
        Ok(Ok(())) => healthy(&node, Duration::ZERO),
        Ok(Err(error)) => sick(error),
        // Every slot is at a long prompt; that is work, not a fault.
        Err(_) if computed(&node) > before => healthy(&node, PATIENCE),
        Err(_) => {
            let reason = format!(
                "no token came back within {} s; the engine is overloaded or stuck",
                PATIENCE.as_secs()
            );
            sick(EngineError::Compute { reason })
        }
    }
}

/// Tokens that all models computed so far, prompts included.
pub(crate) fn computed(node: &Node) -> u64 {
    let loads = node
        .engine
        .status()
        .into_iter()
        .filter_map(|model| model.load);
    loads
        .map(|load| load.prefill_tokens + load.decode_tokens)
        .sum()
}

fn recent(node: &Node) -> Option<Duration> {
    node.token_age().filter(|age| *age < PROOF)
}

async fn probe(node: &Node) -> Result<(), EngineError> {
    let request = Request {
        max_tokens: Some(1),
        ignore_eos: true,
        ..Request::new(Prompt::Text("Hi".into()))
    };
    let mut generation = match node.engine.generate(None, request).await {
        // The default model has vectors to give instead of tokens.
        Err(EngineError::OnlyEmbeds { .. }) => return probe_embedding(node).await,
        answer => answer?,
    };
    while let Some(event) = generation.next().await {
        if matches!(event?, Event::Finished { .. }) {
            node.saw_token();
            return Ok(());
        }
    }
    Err(EngineError::Unloaded)
}

async fn probe_embedding(node: &Node) -> Result<(), EngineError> {
    let request = EmbedRequest {
        inputs: vec![EmbedInput::Text("Hi".into())],
        dimensions: None,
    };
    node.engine.embed(None, request).await?;
    node.saw_token();
    Ok(())
}

fn healthy(node: &Node, age: Duration) -> Response {
    let model = node.engine.catalogue().default_name().unwrap_or_default();
    Json(json!({"status": "ok", "model": model, "version": node.options.version, "last_token_ms_ago": age.as_millis() as u64}))
        .into_response()
}

fn sick(error: EngineError) -> Response {
    let failure = Failure::from(error);
    let mut extra: Map<_, _> = failure.error.extra.clone();
    extra.insert("code".into(), json!(failure.error.code));
    let mut response = problem_with(
        StatusCode::SERVICE_UNAVAILABLE,
        failure.error.code.as_deref().unwrap_or("unhealthy"),
        "no token can come back",
        failure.error.message,
        extra,
    );
    response
        .headers_mut()
        .insert(RETRY_AFTER, failure.retry_after.unwrap_or(5).into());
    response
}
