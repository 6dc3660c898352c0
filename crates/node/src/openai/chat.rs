//! `POST /v1/chat/completions`.

use std::borrow::Cow;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hearth_engine::{Chat, Constraint, Event, Prompt, Reasoning, Request};
use hearth_protocol::chat::{
    Answer, ChatCompletion, ChatRequest, Choice, LogProbs, ResponseFormat,
};
use hearth_protocol::error::{ApiError, ErrorBody};
use hearth_protocol::parse;
use hearth_protocol::recall::Used;
use hearth_protocol::tool::{ToolCall, whole_arguments};
use serde_json::{Value, json};

use super::{DONE, Head, gbnf, logprob, reason, sampling, usage};
use crate::answer::{Names, Watched, Whole, call_id};
use crate::body::received;
use crate::elsewhere::Wanted;
use crate::failure::Failure;
use crate::recall;
use crate::state::Shared;
use crate::stream::{self, Chunks};
use crate::tools::tools;

/// Answers a conversation.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "openai", request_body = ChatRequest, responses(
    (status = 200, description = "the answer; with `stream` as server-sent events", body = ChatCompletion),
    (status = 400, description = "a field is wrong (`param` names it) or the prompt is too long", body = ErrorBody),
    (status = 404, description = "no such model", body = ErrorBody),
    (status = 413, description = "the body is too large", body = ErrorBody),
    (status = 429, description = "the queue is full; see Retry-After", body = ErrorBody),
    (status = 500, description = "the model failed, or the memory that was asked for", body = ErrorBody),
    (status = 503, description = "the model is loading; see Retry-After, `progress` and `eta`", body = ErrorBody)))]
pub(crate) async fn chat(State(node): State<Shared>, body: Body) -> Result<Response, Failure> {
    let begun = Instant::now();
    let request: ChatRequest = parse::body(&received(&node, body).await?)?;
    request.check()?;
    let mut messages = messages(&request)?;
    let used = recall::for_request(&node, request.hearth.as_ref(), &mut messages).await?;
    let asked = engine_request(&request, messages)?;
    let model = request.model.as_deref();
    let wanted = Wanted::of(asked, request.hearth.as_ref());
    let answer = Watched::ask(&node, model, wanted, names(&request), begun).await;
    let mut answer = answer.map_err(|failure| recall::with_advice(failure, used.as_ref()))?;
    let head = Head::new(&node, "chatcmpl", answer.model());
    answer.named(&head.id);
    let logprobs = request.logprobs == Some(true);
    if request.stream == Some(true) {
        let chunks = ChatChunks::new(&head, &request, used);
        return Ok(stream::respond(vec![answer], chunks));
    }
    let whole = answer.whole(request.n.unwrap_or(1)).await?;
    let whole = ChatCompletion {
        hearth: used,
        ..completion(whole, head, logprobs)
    };
    Ok(Json(whole).into_response())
}

fn names(request: &ChatRequest) -> Names {
    Names {
        prompt: "messages",
        constraint: match request.grammar {
            Some(_) => "grammar",
            None => "response_format",
        },
        max_tokens: match request.max_completion_tokens {
            Some(_) => "max_completion_tokens",
            None => "max_tokens",
        },
        logprobs: "top_logprobs",
    }
}

/// The conversation as templates take it.
fn messages(request: &ChatRequest) -> Result<Vec<Value>, ApiError> {
    let each = request
        .messages
        .iter()
        .map(|message| serde_json::to_value(message).map(with_whole_calls));
    each.collect::<Result<_, _>>()
        .map_err(|error| ApiError::invalid(Some("messages".into()), error.to_string()))
}

fn engine_request(request: &ChatRequest, messages: Vec<Value>) -> Result<Request, ApiError> {
    let prompt = Prompt::Chat(Chat {
        messages,
        tools: tools(
            request.tools.as_deref(),
            request.tool_choice.as_ref(),
            request.parallel_tool_calls == Some(false),
        )?,
        reasoning: reasoning(request),
        variables: variables(request),
        prefill: String::new(),
    });
    let fields = request.sampling();
    let constraint = match &request.response_format {
        None | Some(ResponseFormat::Text) => gbnf(&request.grammar),
        Some(ResponseFormat::JsonObject) => Constraint::JsonObject,
        Some(ResponseFormat::JsonSchema { json_schema }) => {
            Constraint::JsonSchema(json_schema.schema.clone())
        }
    };
    Ok(Request {
        sampling: sampling(&fields)?,
        constraint,
        max_tokens: request.max_completion_tokens.or(request.max_tokens),
        ignore_eos: fields.ignore_eos == Some(true),
        stop: request
            .stop
            .as_ref()
            .map(|stop| stop.texts())
            .unwrap_or_default(),
        n: request.n.unwrap_or(1),
        logprobs: (request.logprobs == Some(true)).then(|| request.top_logprobs.unwrap_or(0)),
        ..Request::new(prompt)
    })
}

/// The message with calls that `max_tokens` cut closed where they end: what a model called is an object to templates.
fn with_whole_calls(mut message: Value) -> Value {
    let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
    for call in calls.into_iter().flatten() {
        if let Some(Value::String(text)) = call.pointer_mut("/function/arguments")
            && let Some(whole) = whole_arguments(text).map(Cow::into_owned)
        {
            *text = whole;
        }
    }
    message
}

fn reasoning(request: &ChatRequest) -> Reasoning {
    let effort = request.reasoning_effort;
    let asked = effort.map(|effort| effort.budget() != Some(0));
    Reasoning {
        enabled: request.enable_thinking.or(asked),
        budget: request
            .thinking_budget
            .or(effort.and_then(|effort| effort.budget())),
    }
}

/// Variables for the template; some models read the effort itself.
fn variables(request: &ChatRequest) -> serde_json::Map<String, Value> {
    let mut variables = request.chat_template_kwargs.clone().unwrap_or_default();
    if let Some(effort) = request.reasoning_effort {
        variables
            .entry("reasoning_effort")
            .or_insert_with(|| json!(effort));
    }
    variables
}

fn completion(whole: Whole, head: Head, logprobs: bool) -> ChatCompletion {
    let choices = whole.choices.into_iter().zip(0..).map(|(choice, index)| {
        let calls = choice.calls.into_iter();
        let tool_calls: Vec<ToolCall> = calls
            .map(|call| ToolCall::new(call_id("call_"), call.name, call.arguments))
            .collect();
        Choice {
            index,
            message: Answer {
                role: "assistant".into(),
                content: (tool_calls.is_empty() || !choice.text.is_empty()).then_some(choice.text),
                reasoning_content: (!choice.reasoning.is_empty()).then_some(choice.reasoning),
                tool_calls,
                refusal: None,
            },
            logprobs: logprobs.then(|| LogProbs {
                content: choice.logprobs.iter().map(logprob).collect(),
            }),
            finish_reason: reason(choice.reason).into(),
        }
    });
    ChatCompletion {
        id: head.id,
        object: "chat.completion".into(),
        created: head.created,
        model: head.model,
        choices: choices.collect(),
        usage: usage(whole.usage),
        system_fingerprint: head.fingerprint,
        hearth: None,
    }
}

/// Writes chunks; the part that is the same in all of them is serialised once.
struct ChatChunks {
    /// `{"id":…,"object":…,…,"choices":[` up to the first choice.
    before: String,
    choices: u32,
    include_usage: bool,
    used: Option<hearth_engine::Usage>,
    /// What the first chunk says of memory.
    recalled: Option<Used>,
}

impl ChatChunks {
    fn new(head: &Head, request: &ChatRequest, recalled: Option<Used>) -> Self {
        let object = json!({
            "id": head.id,
            "object": "chat.completion.chunk",
            "created": head.created,
            "model": head.model,
            "system_fingerprint": head.fingerprint,
        })
        .to_string();
        Self {
            before: format!("{},\"choices\":[", object.trim_end_matches('}')),
            choices: request.n.unwrap_or(1),
            include_usage: request
                .stream_options
                .is_some_and(|options| options.include_usage == Some(true)),
            used: None,
            recalled,
        }
    }

    fn delta(&mut self, out: &mut String, choice: u32, delta: &str) {
        let choice =
            format!(r#"{{"index":{choice},"delta":{delta},"logprobs":null,"finish_reason":null}}"#);
        self.push(out, &choice, "null");
    }

    fn push(&mut self, out: &mut String, choice: &str, usage: &str) {
        out.push_str("data: ");
        out.push_str(&self.before);
        out.push_str(choice);
        out.push(']');
        if self.include_usage {
            out.push_str(",\"usage\":");
            out.push_str(usage);
        }
        if let Some(recalled) = self.recalled.take() {
            let recalled = serde_json::to_string(&recalled).unwrap_or_else(|_| "null".into());
            out.push_str(",\"hearth\":");
            out.push_str(&recalled);
        }
        out.push_str("}\n\n");
    }
}

impl Chunks for ChatChunks {
    fn event(&mut self, _: usize, event: &Event, out: &mut String) {
        match event {
            Event::Started { .. } => {
                for index in 0..self.choices {
                    let delta = r#"{"role":"assistant","content":"","refusal":null}"#;
                    self.delta(out, index, delta);
                }
            }
            Event::Text {
                choice,
                text,
                logprobs,
            } => {
                let text = Value::from(text.as_str());
                let probabilities = if logprobs.is_empty() {
                    "null".into()
                } else {
                    let all = LogProbs {
                        content: logprobs.iter().map(logprob).collect(),
                    };
                    serde_json::to_string(&all).unwrap_or_else(|_| "null".into())
                };
                let choice = format!(
                    r#"{{"index":{choice},"delta":{{"content":{text}}},"logprobs":{probabilities},"finish_reason":null}}"#
                );
                self.push(out, &choice, "null");
            }
            Event::Reasoning { choice, text } => {
                let text = Value::from(text.as_str());
                self.delta(out, *choice, &format!(r#"{{"reasoning_content":{text}}}"#));
            }
            Event::ToolCall { choice, call, name } => {
                let id = call_id("call_");
                let function = json!({"name": name, "arguments": ""});
                let call =
                    json!({"index": call, "id": id, "type": "function", "function": function});
                self.delta(out, *choice, &json!({"tool_calls": [call]}).to_string());
            }
            Event::ToolArguments { choice, call, json } => {
                let call = json!({"index": call, "function": {"arguments": json}});
                self.delta(out, *choice, &json!({"tool_calls": [call]}).to_string());
            }
            Event::Finished {
                choice,
                reason: why,
                ..
            } => {
                let why = reason(*why);
                let choice = format!(
                    r#"{{"index":{choice},"delta":{{}},"logprobs":null,"finish_reason":"{why}"}}"#
                );
                self.push(out, &choice, "null");
            }
            Event::Done(used) => self.used = Some(*used),
        }
    }

    fn end(&mut self, out: &mut String) {
        if let (true, Some(used)) = (self.include_usage, self.used) {
            let used = serde_json::to_string(&usage(used)).unwrap_or_else(|_| "null".into());
            self.push(out, "", &used);
        }
        out.push_str(DONE);
    }
}
