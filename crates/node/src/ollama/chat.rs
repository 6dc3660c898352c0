//! `POST /api/chat`.

use std::collections::VecDeque;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hearth_engine::{Chat, Prompt, Request};
use hearth_protocol::error::ApiError;
use hearth_protocol::ollama::{ChatRequest, ChatResponse, ErrorBody, Message, Role, ToolCall};
use serde_json::{Value, json};

use super::answer::Shape;
use super::question::Question;
use super::{Refusal, constraint, limit, read, reasoning, sampling, stop};
use crate::state::Shared;
use crate::tools::tools;

/// Answers a conversation; without messages it loads the model, or unloads it with `keep_alive: 0`.
#[utoipa::path(post, path = "/api/chat", tag = "ollama", request_body = ChatRequest, responses(
    (status = 200, description = "the answer; JSON lines unless `stream` is false", body = ChatResponse),
    (status = 400, description = "a field is wrong or the prompt is too long", body = ErrorBody),
    (status = 404, description = "no such model", body = ErrorBody),
    (status = 413, description = "the body is too large", body = ErrorBody),
    (status = 503, description = "the queue is full or there is no room for the model; see Retry-After", body = ErrorBody)))]
pub(crate) async fn chat(State(node): State<Shared>, body: Body) -> Result<Response, Refusal> {
    let begun = Instant::now();
    let request: ChatRequest = read(&node, body).await?;
    let name = request.model()?.to_owned();
    request.check()?;
    let question = Question {
        shape: Shape::Chat,
        begun,
        name,
        empty: request.messages.as_ref().is_none_or(Vec::is_empty),
        asked: engine_request(&request)?,
        prompt: "messages",
        think: request.think,
        options: request.options,
        keep_alive: request.keep_alive,
        hearth: request.hearth,
        stream: request.stream,
    };
    question.answer(&node).await
}

fn engine_request(request: &ChatRequest) -> Result<Request, ApiError> {
    let options = request.options.clone().unwrap_or_default();
    let (reasoning, variables) = reasoning(request.think);
    let said = request.messages.as_deref().unwrap_or_default();
    // The model goes on with what it is shown to have begun.
    let (said, prefill) = match said.split_last() {
        Some((last, rest)) if begins(last) && !rest.is_empty() => {
            (rest, last.content.clone().unwrap_or_default())
        }
        _ => (said, String::new()),
    };
    let prompt = Prompt::Chat(Chat {
        messages: messages(said),
        tools: tools(
            request.tools.as_deref(),
            request.tool_choice.as_ref(),
            false,
        )?,
        reasoning,
        variables,
        prefill,
    });
    Ok(Request {
        sampling: sampling(&options),
        constraint: constraint(request.format.as_ref())?,
        max_tokens: limit(&options),
        stop: stop(&options),
        logprobs: (request.logprobs == Some(true)).then(|| request.top_logprobs.unwrap_or(0)),
        ..Request::new(prompt)
    })
}

/// Whether a conversation that ends with this message wants it continued.
fn begins(message: &Message) -> bool {
    let calls = message.tool_calls.as_ref();
    message.role == Role::Assistant && calls.is_none_or(Vec::is_empty)
}

/// The conversation in OpenAI's shape. Ollama's clients leave out the ids of calls: a result then belongs to the oldest
/// call of its tool that has none yet, or to the oldest of all.
fn messages(messages: &[Message]) -> Vec<Value> {
    let mut open: VecDeque<(String, String)> = VecDeque::new();
    let mut count = 0;
    let mut shaped = Vec::with_capacity(messages.len());
    for message in messages {
        let content = message.content.as_deref().unwrap_or_default();
        let mut out = json!({"role": message.role, "content": content});
        if let Some(thinking) = message.thinking.as_ref().filter(|text| !text.is_empty()) {
            out["reasoning_content"] = thinking.as_str().into();
        }
        let calls = message.tool_calls.as_deref().unwrap_or_default();
        let calls: Vec<Value> = calls
            .iter()
            .map(|ToolCall { id, function }| {
                count += 1;
                let id = id.clone().unwrap_or_else(|| format!("call_{count}"));
                let arguments = Value::from(function.arguments.clone().unwrap_or_default());
                let called = json!({"name": function.name, "arguments": arguments.to_string()});
                open.push_back((id.clone(), function.name.clone()));
                json!({"id": id, "type": "function", "function": called})
            })
            .collect();
        if !calls.is_empty() {
            out["tool_calls"] = calls.into();
        }
        if message.role == Role::Tool {
            let (named, id) = (&message.tool_name, &message.tool_call_id);
            let same = |call: &(String, String)| match (id, named) {
                (Some(id), _) => call.0 == *id,
                (None, Some(name)) => call.1 == *name,
                (None, None) => true,
            };
            let at = open.iter().position(same);
            let at = at.or((id.is_none() && !open.is_empty()).then_some(0));
            let call = at.and_then(|at| open.remove(at));
            let (call_id, called) = call.unzip();
            if let Some(id) = id.clone().or(call_id) {
                out["tool_call_id"] = id.into();
            }
            if let Some(name) = named.clone().or(called) {
                out["name"] = name.into();
            }
        }
        shaped.push(out);
    }
    shaped
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn results_find_their_calls() {
        let conversation = json!({"messages": [
            {"role": "user", "content": "u"},
            {"role": "assistant", "thinking": "t", "tool_calls": [
                {"function": {"name": "light", "arguments": {"room": "hall", "on": true}}},
                {"function": {"name": "timer"}},
                {"id": "abc", "function": {"name": "light", "arguments": {}}},
            ]},
            {"role": "tool", "tool_name": "timer", "content": "1"},
            {"role": "tool", "tool_call_id": "abc", "content": "2"},
            {"role": "tool", "content": "3"},
            {"role": "tool", "tool_name": "nothing", "content": "4"},
        ]});
        let request: ChatRequest = serde_json::from_value(conversation).unwrap();
        let shaped = messages(&request.messages.unwrap());
        assert_eq!(shaped[1]["content"], "");
        assert_eq!(shaped[1]["reasoning_content"], "t");
        let first = &shaped[1]["tool_calls"][0];
        assert_eq!(
            first["function"]["arguments"],
            r#"{"room":"hall","on":true}"#
        );
        assert_eq!(shaped[1]["tool_calls"][1]["function"]["arguments"], "{}");
        let result = |at: usize| (&shaped[at]["tool_call_id"], &shaped[at]["name"]);
        assert_eq!(result(2), (&json!("call_2"), &json!("timer")));
        assert_eq!(result(3), (&json!("abc"), &json!("light")));
        assert_eq!(result(4), (&json!("call_1"), &json!("light")));
        assert_eq!(result(5), (&Value::Null, &json!("nothing")));
    }
}
