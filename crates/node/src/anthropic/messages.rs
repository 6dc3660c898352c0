//! `POST /v1/messages` and `POST /v1/messages/count_tokens`.

use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use hearth_engine::FinishReason;
use hearth_protocol::anthropic::{
    ErrorResponse, Message, MessagesRequest, OutputBlock, OutputTokensDetails, StopReason,
    ThinkingDisplay, TokenCount, Usage,
};
use hearth_protocol::error::ApiError;
use hearth_protocol::parse;
use hearth_protocol::recall::Used;

use super::events::MessageEvents;
use super::prompt::engine_request;
use super::refusal;
use crate::RequestId;
use crate::answer::{Names, Watched, Whole, call_id};
use crate::body::received;
use crate::elsewhere::{self, Wanted};
use crate::failure::Failure;
use crate::recall;
use crate::state::Shared;
use crate::stream;

/// Clients send thinking back with its signature, and some drop what has none. Nothing is signed here: the word is
/// Hearth's name in Base64.
pub(super) const SIGNATURE: &str = "SGVhcnRo";

const NAMES: Names = Names {
    prompt: "messages",
    constraint: "output_config.format",
    max_tokens: "max_tokens",
    logprobs: "logprobs",
};

/// Answers a conversation.
#[utoipa::path(post, path = "/v1/messages", tag = "anthropic", request_body = MessagesRequest, responses(
    (status = 200, description = "the answer; with `stream` as server-sent events", body = Message),
    (status = 400, description = "a field is wrong (the message names it) or the prompt is too long", body = ErrorResponse),
    (status = 404, description = "no such model", body = ErrorResponse),
    (status = 413, description = "the body is too large", body = ErrorResponse),
    (status = 429, description = "the queue is full; see Retry-After", body = ErrorResponse),
    (status = 503, description = "the model is loading; see Retry-After", body = ErrorResponse)))]
pub(crate) async fn messages(
    State(node): State<Shared>,
    Extension(id): Extension<RequestId>,
    body: Body,
) -> Response {
    let answered = answer(&node, &id, body).await;
    answered.unwrap_or_else(|failure| refusal(failure, &id.0))
}

/// Counts the tokens of a conversation.
#[utoipa::path(post, path = "/v1/messages/count_tokens", tag = "anthropic", request_body = MessagesRequest, responses(
    (status = 200, description = "how many tokens the prompt has", body = TokenCount),
    (status = 400, description = "a field is wrong (the message names it) or the prompt is far too long", body = ErrorResponse),
    (status = 404, description = "no such model", body = ErrorResponse),
    (status = 413, description = "the body is too large", body = ErrorResponse),
    (status = 503, description = "the model is loading; see Retry-After", body = ErrorResponse)))]
pub(crate) async fn count_tokens(
    State(node): State<Shared>,
    Extension(id): Extension<RequestId>,
    body: Body,
) -> Response {
    match count(&node, body).await {
        Ok(input_tokens) => Json(TokenCount { input_tokens }).into_response(),
        Err(failure) => refusal(failure, &id.0),
    }
}

async fn answer(node: &Shared, id: &RequestId, body: Body) -> Result<Response, Failure> {
    let begun = Instant::now();
    let request: MessagesRequest = parse::body(&received(node, body).await?)?;
    let Some(max_tokens) = request.max_tokens else {
        let param = "max_tokens";
        let message = format!("{param} is missing; say how many tokens the answer may have");
        return Err(ApiError::invalid(Some(param.into()), message).into());
    };
    let mut asked = engine_request(&request)?;
    let used = recall::for_prompt(node, request.hearth.as_ref(), &mut asked.prompt).await?;
    let wanted = Wanted::of(asked, request.hearth.as_ref());
    let answer = Watched::ask(node, request.model.as_deref(), wanted, NAMES, begun).await;
    let mut answer = answer.map_err(|failure| recall::with_advice(failure, used.as_ref()))?;
    let head = Head {
        id: call_id("msg_"),
        model: answer.model().to_owned(),
        max_tokens,
        shows_thinking: request
            .thinking
            .is_none_or(|thinking| thinking.display != Some(ThinkingDisplay::Omitted)),
        used,
    };
    answer.named(&head.id);
    tracing::Span::current().record("model", &head.model);
    if request.stream == Some(true) {
        let events = MessageEvents::new(head, id.0.clone());
        return Ok(stream::respond(vec![answer], events));
    }
    Ok(Json(message(answer.whole(1).await?, head)).into_response())
}

async fn count(node: &Shared, body: Body) -> Result<u32, Failure> {
    let request: MessagesRequest = parse::body(&received(node, body).await?)?;
    let mut asked = engine_request(&request)?;
    recall::for_prompt(node, request.hearth.as_ref(), &mut asked.prompt).await?;
    let model = request.model.as_deref();
    let counted = elsewhere::count(node, model, asked).await;
    counted.map_err(|failure| NAMES.renamed(failure))
}

/// What an answer says of itself whether it is streamed or not.
pub(super) struct Head {
    pub id: String,
    pub model: String,
    pub max_tokens: u32,
    pub shows_thinking: bool,
    /// The memories in the prompt.
    pub used: Option<Used>,
}

impl Head {
    pub fn message(self, content: Vec<OutputBlock>, usage: Usage) -> Message {
        Message {
            id: self.id,
            kind: "message".into(),
            role: "assistant".into(),
            model: self.model,
            content,
            stop_reason: None,
            stop_sequence: None,
            usage,
            hearth: self.used,
        }
    }
}

pub(super) fn usage(used: &hearth_engine::Usage) -> Usage {
    Usage {
        input_tokens: used.prompt_tokens - used.cached_tokens,
        cache_creation_input_tokens: 0,
        cache_read_input_tokens: used.cached_tokens,
        output_tokens: used.completion_tokens,
        output_tokens_details: OutputTokensDetails {
            thinking_tokens: used.reasoning_tokens,
        },
    }
}

pub(super) fn stop_reason(
    reason: FinishReason,
    stop: Option<&str>,
    used: &Usage,
    most: u32,
) -> StopReason {
    match reason {
        FinishReason::ToolCalls => StopReason::ToolUse,
        FinishReason::Stop if stop.is_some() => StopReason::StopSequence,
        FinishReason::Stop => StopReason::EndTurn,
        FinishReason::Length if used.output_tokens < most => StopReason::ModelContextWindowExceeded,
        FinishReason::Length => StopReason::MaxTokens,
    }
}

fn message(whole: Whole, head: Head) -> Message {
    let used = usage(&whole.usage);
    let (most, shows_thinking) = (head.max_tokens, head.shows_thinking);
    let mut message = head.message(Vec::new(), used);
    let Some(choice) = whole.choices.into_iter().next() else {
        return message;
    };
    let content = &mut message.content;
    if !choice.reasoning.is_empty() {
        content.push(OutputBlock::Thinking {
            thinking: match shows_thinking {
                true => choice.reasoning,
                false => String::new(),
            },
            signature: SIGNATURE.into(),
        });
    }
    if !choice.text.is_empty() {
        content.push(OutputBlock::Text { text: choice.text });
    }
    content.extend(choice.calls.into_iter().map(|call| OutputBlock::ToolUse {
        id: call_id("toolu_"),
        name: call.name,
        // An answer that ended for length may end in the middle of them; its stop reason says so.
        input: serde_json::from_str(&call.arguments).unwrap_or_default(),
    }));
    let reason = stop_reason(choice.reason, choice.stop.as_deref(), &used, most);
    message.stop_reason = Some(reason);
    message.stop_sequence = choice.stop.filter(|_| reason == StopReason::StopSequence);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_fills_the_context_is_told_from_one_that_fills_max_tokens() {
        let used = |output_tokens| Usage {
            output_tokens,
            ..Usage::default()
        };
        let reason = |tokens| stop_reason(FinishReason::Length, None, &used(tokens), 9);
        assert_eq!(reason(9), StopReason::MaxTokens);
        assert_eq!(reason(8), StopReason::ModelContextWindowExceeded);
    }
}
