//! `POST /api/generate`.

use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hearth_engine::{Chat, Prompt, Request};
use hearth_protocol::error::ApiError;
use hearth_protocol::ollama::{ErrorBody, GenerateRequest, GenerateResponse};
use serde_json::json;

use super::answer::Shape;
use super::question::Question;
use super::{Refusal, constraint, limit, read, reasoning, sampling, stop};
use crate::state::Shared;

/// Answers one prompt; without a prompt it loads the model, or unloads it with `keep_alive: 0`.
#[utoipa::path(post, path = "/api/generate", tag = "ollama", request_body = GenerateRequest, responses(
    (status = 200, description = "the answer; JSON lines unless `stream` is false", body = GenerateResponse),
    (status = 400, description = "a field is wrong or the prompt is too long", body = ErrorBody),
    (status = 404, description = "no such model", body = ErrorBody),
    (status = 413, description = "the body is too large", body = ErrorBody),
    (status = 503, description = "the queue is full or there is no room for the model; see Retry-After", body = ErrorBody)))]
pub(crate) async fn generate(State(node): State<Shared>, body: Body) -> Result<Response, Refusal> {
    let begun = Instant::now();
    let request: GenerateRequest = read(&node, body).await?;
    let name = request.model()?.to_owned();
    request.check()?;
    let question = Question {
        shape: Shape::Generate,
        begun,
        name,
        empty: request.prompt.as_ref().is_none_or(String::is_empty),
        asked: engine_request(&request)?,
        prompt: "prompt",
        think: request.think,
        options: request.options,
        keep_alive: request.keep_alive,
        hearth: request.hearth,
        stream: request.stream,
    };
    question.answer(&node).await
}

fn engine_request(request: &GenerateRequest) -> Result<Request, ApiError> {
    let options = request.options.clone().unwrap_or_default();
    let text = request.prompt.clone().unwrap_or_default();
    let prompt = if request.raw == Some(true) {
        Prompt::Text(text)
    } else {
        let system = request.system.as_ref().filter(|text| !text.is_empty());
        let system = system.map(|text| json!({"role": "system", "content": text}));
        let user = json!({"role": "user", "content": text});
        let (reasoning, variables) = reasoning(request.think);
        Prompt::Chat(Chat {
            reasoning,
            variables,
            ..Chat::new(system.into_iter().chain([user]).collect())
        })
    };
    Ok(Request {
        sampling: sampling(&options),
        constraint: constraint(request.format.as_ref())?,
        max_tokens: limit(&options),
        stop: stop(&options),
        logprobs: (request.logprobs == Some(true)).then(|| request.top_logprobs.unwrap_or(0)),
        ..Request::new(prompt)
    })
}
