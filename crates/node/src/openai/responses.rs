//! `POST /v1/responses`: an answer as a list of items, which may be stored and gone on from.

mod conversations;
mod output;
mod prompt;
mod stored;

use std::time::Instant;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hearth_engine::{
    Chat, Constraint, Event, FinishReason, Prompt, Reasoning, Request, Tool, ToolChoice, Tools,
};
use hearth_protocol::error::{ApiError, ErrorBody};
use hearth_protocol::parse;
use hearth_protocol::recall::Used;
use hearth_protocol::responses::{
    self as wire, Format, Given, InputItem, Item, Items, ResponsesRequest, Status,
};
use hearth_protocol::tool::ToolMode;
use serde_json::{Map, Value, json};

pub(crate) use conversations::*;
use output::Output;
pub(crate) use stored::*;

use super::sampling;
use crate::answer::{Names, Watched};
use crate::body::received;
use crate::conversations::{KeepError, Turn};
use crate::elsewhere::{self, Wanted};
use crate::failure::Failure;
use crate::recall;
use crate::state::{Node, Shared, unix_time};
use crate::stream::{self, Chunks};

const NAMES: Names = Names {
    prompt: "input",
    constraint: "text.format",
    max_tokens: "max_output_tokens",
    logprobs: "top_logprobs",
};

/// Answers, and stores the answer unless `store` is false.
#[utoipa::path(post, path = "/v1/responses", tag = "openai", request_body = ResponsesRequest, responses(
    (status = 200, description = "the answer; with `stream` as server-sent events", body = wire::Response),
    (status = 400, description = "a field is wrong (`param` names it) or the prompt is too long", body = ErrorBody),
    (status = 404, description = "no such model, conversation or item", body = ErrorBody),
    (status = 413, description = "the body is too large", body = ErrorBody),
    (status = 429, description = "the queue is full; see Retry-After", body = ErrorBody),
    (status = 503, description = "the model is loading; see Retry-After, `progress` and `eta`", body = ErrorBody)))]
pub(crate) async fn create(State(node): State<Shared>, body: Body) -> Result<Response, Failure> {
    let begun = Instant::now();
    let Prepared {
        request,
        asked,
        wanted,
        used,
    } = prepared(&node, body).await?;
    let model = request.model.as_deref();
    let wanted = Wanted::of(wanted, request.hearth.as_ref());
    let answer = Watched::ask(&node, model, wanted, NAMES, begun).await;
    let mut answer = answer.map_err(|failure| recall::with_advice(failure, used.as_ref()))?;
    tracing::Span::current().record("model", answer.model());
    let mut writer = Writer::new(&node, &request, answer.model(), asked);
    writer.response.hearth = used;
    answer.named(&writer.response.id);
    if request.stream == Some(true) {
        return Ok(stream::respond(vec![answer], writer));
    }
    loop {
        let event = answer.next().await?;
        writer.take(&event, &mut |_, _| {});
        if matches!(event, Event::Done(_)) {
            break;
        }
    }
    writer.keep().await?;
    Ok(Json(writer.response).into_response())
}

/// Says how many tokens a question has; nothing is generated or stored.
#[utoipa::path(post, path = "/v1/responses/input_tokens", tag = "openai", request_body = ResponsesRequest, responses(
    (status = 200, body = wire::InputTokens),
    (status = 400, description = "a field is wrong (`param` names it)", body = ErrorBody),
    (status = 404, description = "no such model, conversation or item", body = ErrorBody)))]
pub(crate) async fn input_tokens(
    State(node): State<Shared>,
    body: Body,
) -> Result<Json<wire::InputTokens>, Failure> {
    let prepared = prepared(&node, body).await?;
    let model = prepared.request.model.as_deref();
    let counted = elsewhere::count(&node, model, prepared.wanted).await;
    Ok(Json(wire::InputTokens {
        object: "response.input_tokens",
        input_tokens: counted.map_err(|failure| NAMES.renamed(failure))?,
    }))
}

/// A request that is ready for the engine.
struct Prepared {
    /// As it came.
    request: ResponsesRequest,
    /// What it asks now; memories are no part of it, and so are not stored.
    asked: Vec<Item>,
    /// What it asks of the engine.
    wanted: Request,
    /// The memories in the prompt.
    used: Option<Used>,
}

async fn prepared(node: &Node, body: Body) -> Result<Prepared, Failure> {
    let request: ResponsesRequest = parse::body(&received(node, body).await?)?;
    request.check()?;
    let asked = asked(node, &request).await?;
    let before = before(node, &request).await?;
    if request.conversation.is_some() {
        refuse_again(&before, &asked)?;
    }
    let mut messages = prompt::messages(request.instructions.as_deref(), &before, &asked)?;
    let used = recall::for_request(node, request.hearth.as_ref(), &mut messages).await?;
    let wanted = engine_request(&request, messages)?;
    Ok(Prepared {
        request,
        asked,
        wanted,
        used,
    })
}

/// The routes of answers and conversations.
pub(crate) fn routes() -> Router<Shared> {
    let conversation = get(retrieve_conversation)
        .post(update_conversation)
        .delete(delete_conversation);
    Router::new()
        .route("/v1/responses", post(create))
        .route("/v1/responses/input_tokens", post(input_tokens))
        .route("/v1/responses/{id}", get(retrieve).delete(delete))
        .route("/v1/responses/{id}/cancel", post(cancel))
        .route("/v1/responses/{id}/input_items", get(input_items))
        .route("/v1/conversations", post(create_conversation))
        .route("/v1/conversations/{id}", conversation)
        .route(
            "/v1/conversations/{id}/items",
            get(list_items).post(add_items),
        )
        .route(
            "/v1/conversations/{id}/items/{item}",
            get(retrieve_item).delete(delete_item),
        )
}

/// An id as OpenAI's clients expect it.
fn fresh(prefix: &str) -> String {
    format!("{prefix}_{:032x}", rand::random::<u128>())
}

/// What is asked now, complete.
async fn asked(node: &Node, request: &ResponsesRequest) -> Result<Vec<Item>, Failure> {
    let list = match &request.input {
        Some(Items::Text(text)) => {
            let text = text.clone();
            return Ok(vec![Item::Message {
                id: fresh("msg"),
                status: wire::ItemStatus::Completed,
                role: wire::Role::User,
                content: vec![wire::ContentPart::InputText { text }],
            }]);
        }
        Some(Items::List(list)) => list.clone(),
        None => {
            let message = "input is missing; give a string or an array of items";
            return Err(ApiError::invalid(Some("input".into()), message).into());
        }
    };
    complete(node, list, "input").await
}

/// Completes what a client sent at `place`, and looks up what it refers to.
async fn complete(node: &Node, list: Vec<InputItem>, place: &str) -> Result<Vec<Item>, Failure> {
    let mut items = Vec::with_capacity(list.len());
    for (at, item) in list.into_iter().enumerate() {
        let place = format!("{place}[{at}]");
        items.push(match item.read(&place, &fresh)? {
            Given::Item(item) => item,
            Given::Reference(id) => {
                let found = node.conversations.find(id).await;
                found.map_err(|error| failure(error, "item", Some(format!("{place}.id"))))?
            }
        });
    }
    Ok(items)
}

/// What was said before.
async fn before(node: &Node, request: &ResponsesRequest) -> Result<Vec<Item>, Failure> {
    if let Some(id) = &request.previous_response_id {
        let field = Some("previous_response_id".to_owned());
        let chain = node.conversations.up_to(id.clone()).await;
        return chain.map_err(|error| {
            let unknown = matches!(error, KeepError::Unknown(_));
            let mut failure = failure(error, "response", field);
            if unknown {
                // As OpenAI has it: the address exists, the request is wrong.
                failure.status = StatusCode::BAD_REQUEST;
                failure.error.code = Some("previous_response_not_found".into());
            }
            failure
        });
    }
    match &request.conversation {
        Some(conversation) => {
            let all = node.conversations.all_of(conversation.id().to_owned());
            let field = Some("conversation".to_owned());
            all.await
                .map_err(|error| failure(error, "conversation", field))
        }
        None => Ok(Vec::new()),
    }
}

/// Refuses items that the conversation has already.
fn refuse_again(before: &[Item], asked: &[Item]) -> Result<(), ApiError> {
    for (at, item) in asked.iter().enumerate() {
        if before.iter().any(|other| other.id() == item.id()) {
            let message = format!(
                "input[{at}].id: the conversation has an item `{}` already; send only what is new",
                item.id()
            );
            return Err(ApiError::invalid(Some(format!("input[{at}].id")), message));
        }
    }
    Ok(())
}

/// What goes wrong with something stored, `what` (a response, a conversation, an item), named by `field`.
fn failure(error: KeepError, what: &str, field: Option<String>) -> Failure {
    let wrong = |status, code, message: String| {
        let mut error = ApiError::new("invalid_request_error", Some(code), message);
        error.param.clone_from(&field);
        Failure::new(status, error)
    };
    match error {
        KeepError::Unknown(id) => wrong(
            StatusCode::NOT_FOUND,
            "not_found",
            format!(
                "there is no {what} `{id}`: it was deleted, has expired, or was made with store: false"
            ),
        ),
        KeepError::Broken { id, missing } => wrong(
            StatusCode::BAD_REQUEST,
            "previous_response_not_found",
            format!(
                "`{id}` goes on from `{missing}`, which was deleted; send the conversation as input"
            ),
        ),
        KeepError::Taken(id) => wrong(
            StatusCode::BAD_REQUEST,
            "duplicate_item",
            format!("the conversation has an item `{id}` already; send only what is new"),
        ),
        KeepError::Failed(reason) => {
            tracing::error!(reason, "the database failed");
            let message = format!("what is stored could not be read or written: {reason}");
            let error = ApiError::new("server_error", Some("store_failed"), message);
            Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error)
        }
    }
}

fn engine_request(request: &ResponsesRequest, messages: Vec<Value>) -> Result<Request, ApiError> {
    let effort = request.reasoning.and_then(|reasoning| reasoning.effort);
    let mut variables = Map::new();
    if let Some(effort) = effort {
        // Some templates read it.
        variables.insert("reasoning_effort".into(), json!(effort));
    }
    let prompt = Prompt::Chat(Chat {
        messages,
        tools: tools(request),
        reasoning: Reasoning {
            enabled: effort.map(|effort| effort.budget() != Some(0)),
            budget: effort.and_then(|effort| effort.budget()),
        },
        variables,
        ..Chat::default()
    });
    let fields = request.sampling();
    Ok(Request {
        sampling: sampling(&fields)?,
        constraint: match request.format() {
            Format::Text => Constraint::None,
            Format::JsonObject => Constraint::JsonObject,
            Format::JsonSchema { schema, .. } => Constraint::JsonSchema(schema),
        },
        max_tokens: request.max_output_tokens,
        ignore_eos: fields.ignore_eos == Some(true),
        logprobs: request.logprobs(),
        ..Request::new(prompt)
    })
}

fn tools(request: &ResponsesRequest) -> Tools {
    let definitions = request.tools.iter().flatten().map(|tool| Tool {
        name: tool.name.clone().unwrap_or_default(),
        description: tool.description.clone(),
        parameters: tool.parameters.clone(),
        strict: tool.strict == Some(true),
    });
    let mut tools = Tools {
        definitions: definitions.collect(),
        choice: ToolChoice::Auto,
        single: request.parallel_tool_calls == Some(false),
    };
    let mode = |mode| match mode {
        ToolMode::Auto => ToolChoice::Auto,
        ToolMode::None => ToolChoice::None,
        ToolMode::Required => ToolChoice::Required,
    };
    match &request.tool_choice {
        None => {}
        Some(wire::ToolChoice::Mode(asked)) => tools.choice = mode(*asked),
        Some(wire::ToolChoice::Chosen(chosen)) => match &chosen.tools {
            Some(some) => {
                let is_allowed = |tool: &Tool| {
                    some.iter()
                        .any(|other| other.name.as_deref() == Some(&tool.name))
                };
                tools.definitions.retain(is_allowed);
                tools.choice = mode(chosen.mode.unwrap_or(ToolMode::Auto));
            }
            None => tools.choice = ToolChoice::Named(chosen.name.clone().unwrap_or_default()),
        },
    }
    tools
}

/// Turns the engine's events into a response, whole or in pieces.
struct Writer {
    node: Shared,
    response: wire::Response,
    asked: Vec<Item>,
    output: Output,
    /// Number of the next event.
    next: u64,
}

impl Writer {
    fn new(node: &Shared, request: &ResponsesRequest, model: &str, asked: Vec<Item>) -> Self {
        let conversation = request.conversation.as_ref();
        let reasoning = request.reasoning.unwrap_or_default();
        let response = wire::Response {
            id: fresh("resp"),
            object: "response",
            created_at: unix_time(),
            completed_at: None,
            status: Status::InProgress,
            background: false,
            error: None,
            incomplete_details: None,
            instructions: request.instructions.clone(),
            max_output_tokens: request.max_output_tokens,
            max_tool_calls: None,
            model: model.to_owned(),
            output: Vec::new(),
            parallel_tool_calls: request.parallel_tool_calls != Some(false),
            previous_response_id: request.previous_response_id.clone(),
            conversation: conversation.map(|conversation| wire::ConversationId {
                id: conversation.id().to_owned(),
            }),
            reasoning: wire::EchoedReasoning {
                effort: reasoning.effort,
                summary: reasoning.summary,
            },
            store: request.store != Some(false),
            temperature: request.temperature,
            text: wire::EchoedText {
                format: request.format(),
            },
            tool_choice: match &request.tool_choice {
                Some(choice) => choice.echo(),
                None => json!("auto"),
            },
            tools: request.tools.clone().unwrap_or_default(),
            top_logprobs: request.top_logprobs.unwrap_or(0),
            top_p: request.top_p,
            truncation: wire::Truncation::Disabled,
            usage: None,
            metadata: request.metadata.clone().unwrap_or_default(),
            hearth: None,
        };
        Self {
            node: Shared::clone(node),
            response,
            asked,
            output: Output::new(reasoning.summary.is_some()),
            next: 0,
        }
    }

    /// Takes one event of the engine, and says what follows from it.
    fn take(&mut self, event: &Event, say: &mut dyn FnMut(&'static str, Value)) {
        match event {
            Event::Started { .. } => {}
            Event::Text { text, logprobs, .. } => self.output.text(text, logprobs, say),
            Event::Reasoning { text, .. } => self.output.reasoning(text, say),
            Event::ToolCall { name, .. } => self.output.call(name, say),
            Event::ToolArguments { json, .. } => self.output.arguments(json, say),
            Event::Finished { reason, .. } => {
                let cut = *reason == FinishReason::Length;
                self.response.output = self.output.finish(cut, say);
                self.response.status = match cut {
                    true => Status::Incomplete,
                    false => Status::Completed,
                };
                self.response.incomplete_details = cut.then_some(wire::IncompleteDetails {
                    reason: "max_output_tokens",
                });
            }
            Event::Done(used) => {
                self.response.completed_at =
                    (self.response.status == Status::Completed).then(unix_time);
                self.response.usage = Some(usage(*used));
            }
        }
    }

    /// Stores the answer, if it is to be stored.
    async fn keep(&mut self) -> Result<(), Failure> {
        if !self.response.store {
            return Ok(());
        }
        let mut body = serde_json::to_value(&self.response)
            .map_err(|error| failure(KeepError::from(error), "response", None))?;
        if let Some(used) = &self.response.hearth {
            let ids = used.memory.used.iter().map(|one| json!({"id": one.id}));
            body["hearth"]["memory"]["used"] = ids.collect();
        }
        let conversation = self.response.conversation.as_ref();
        let turn = Turn {
            id: self.response.id.clone(),
            created: self.response.created_at,
            previous: self.response.previous_response_id.clone(),
            conversation: conversation.map(|conversation| conversation.id.clone()),
            body,
            asked: std::mem::take(&mut self.asked),
            answered: self.response.output.clone(),
        };
        let kept = self.node.conversations.keep(turn).await;
        kept.map_err(|error| failure(error, "conversation", Some("conversation".into())))
    }

    /// Appends an event that carries the response as it stands.
    fn whole(&mut self, name: &'static str, out: &mut String) {
        let data = json!({"response": self.response});
        push(&mut self.next, name, data, out);
    }

    /// Appends what every stream begins with, once.
    fn begin(&mut self, out: &mut String) {
        if self.next == 0 {
            self.whole("response.created", out);
            self.whole("response.in_progress", out);
        }
    }
}

/// Appends a named event with its number.
fn push(next: &mut u64, name: &'static str, data: Value, out: &mut String) {
    let mut event = Map::new();
    event.insert("type".into(), name.into());
    event.insert("sequence_number".into(), (*next).into());
    *next += 1;
    if let Value::Object(data) = data {
        event.extend(data);
    }
    out.push_str("event: ");
    out.push_str(name);
    out.push('\n');
    stream::push(out, &Value::Object(event).to_string());
}

fn usage(used: hearth_engine::Usage) -> wire::ResponseUsage {
    wire::ResponseUsage {
        input_tokens: used.prompt_tokens,
        input_tokens_details: wire::InputTokensDetails {
            cached_tokens: used.cached_tokens,
            cache_write_tokens: 0,
        },
        output_tokens: used.completion_tokens,
        output_tokens_details: wire::OutputTokensDetails {
            reasoning_tokens: used.reasoning_tokens,
        },
        total_tokens: used.prompt_tokens + used.completion_tokens,
    }
}

impl Chunks for Writer {
    fn event(&mut self, _: usize, event: &Event, out: &mut String) {
        self.begin(out);
        let mut next = self.next;
        self.take(event, &mut |name, data| push(&mut next, name, data, out));
        self.next = next;
    }

    async fn before_end(&mut self) -> Result<(), Failure> {
        self.keep().await
    }

    fn end(&mut self, out: &mut String) {
        let name = match self.response.status {
            Status::Incomplete => "response.incomplete",
            _ => "response.completed",
        };
        self.whole(name, out);
    }

    fn fail(&mut self, failure: Failure, out: &mut String) {
        self.begin(out);
        self.response.status = Status::Failed;
        self.response.completed_at = None;
        self.response.incomplete_details = None;
        self.response.error = Some(wire::ResponseError {
            code: failure.error.code.unwrap_or(failure.error.kind),
            message: failure.error.message,
        });
        self.whole("response.failed", out);
    }
}
