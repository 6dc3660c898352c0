//! OpenAI's surface.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod models;
mod sse;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::StatusCode;
use futures_util::StreamExt;
use hearth_engine::{
    Constraint, EngineError, Event, FinishReason, Generation, Sampling, TokenLogprob, Usage,
};
use hearth_protocol::chat::{self as wire, SamplingFields};
use hearth_protocol::error::ApiError;

use crate::failure::Failure;
use crate::state::{Node, Shared, unix_time};

/// A body too large is still read, up to this many times the limit, so that the client has sent it all when the
/// answer comes; many clients report a broken pipe instead of an answer that comes before they are done.
const PATIENCE: usize = 16;
/// How long a client may send nothing in the middle of its body.
const PAUSE: Duration = Duration::from_secs(30);

/// The body's bytes, or why they did not come in whole.
async fn received(node: &Node, body: Body) -> Result<Vec<u8>, Failure> {
    let refused = |status, message: String| {
        Failure::new(
            status,
            ApiError::new("invalid_request_error", Some("bad_body"), message),
        )
    };
    let limit = node.options.body_limit;
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut length = 0;
    loop {
        let Ok(piece) = tokio::time::timeout(PAUSE, stream.next()).await else {
            let message = format!("the body stopped coming in for {PAUSE:?}; send it whole");
            return Err(refused(StatusCode::REQUEST_TIMEOUT, message));
        };
        let Some(piece) = piece else { break };
        let piece = piece.map_err(|error| {
            refused(
                StatusCode::BAD_REQUEST,
                format!("the body did not come in whole: {error}"),
            )
        })?;
        length += piece.len();
        if length <= limit {
            bytes.extend_from_slice(&piece);
        } else if length > limit * PATIENCE {
            break;
        }
    }
    if length > limit {
        let message =
            format!("the body is larger than the {limit} bytes this node accepts; send less");
        return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    Ok(bytes)
}

/// The engine's sampling for a request's fields.
fn sampling(fields: &SamplingFields) -> Result<Sampling, ApiError> {
    Ok(Sampling {
        temperature: fields.temperature,
        top_k: fields.top_k,
        top_p: fields.top_p,
        min_p: fields.min_p,
        repeat_penalty: fields.repeat_penalty,
        penalty_window: None,
        frequency_penalty: fields.frequency_penalty.unwrap_or(0.0),
        presence_penalty: fields.presence_penalty.unwrap_or(0.0),
        logit_bias: fields.biases()?,
        // A negative seed is a seed too.
        seed: fields.seed.map(|seed| seed as u64),
    })
}

fn gbnf(grammar: &Option<String>) -> Constraint {
    grammar.clone().map_or(Constraint::None, Constraint::Gbnf)
}

/// What every answer of a request carries.
#[derive(Debug, Clone)]
struct Head {
    id: String,
    created: u64,
    model: String,
    fingerprint: String,
}

impl Head {
    fn new(node: &Node, prefix: &str, model: &str) -> Self {
        tracing::Span::current().record("model", model);
        Self {
            id: hearth_protocol::id::with_prefix(prefix, rand::random()),
            created: unix_time(),
            model: model.to_owned(),
            fingerprint: format!("hearth-{}", node.options.version),
        }
    }
}

fn usage(usage: Usage) -> wire::Usage {
    wire::Usage {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        total_tokens: usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details: wire::PromptTokensDetails {
            cached_tokens: usage.cached_tokens,
        },
    }
}

fn reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

fn logprob(token: &TokenLogprob) -> wire::TokenLogProb {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    wire::TokenLogProb {
        token: text(&token.chosen.bytes),
        logprob: token.chosen.logprob,
        bytes: token.chosen.bytes.clone(),
        top_logprobs: token
            .top
            .iter()
            .map(|top| wire::TopLogProb {
                token: text(&top.bytes),
                logprob: top.logprob,
                bytes: top.bytes.clone(),
            })
            .collect(),
    }
}

/// What a request calls the engine's fields, so that an error names what the client sent.
#[derive(Debug, Clone, Copy)]
struct Names {
    prompt: &'static str,
    constraint: &'static str,
    max_tokens: &'static str,
    logprobs: &'static str,
}

impl Names {
    fn failure(&self, error: EngineError) -> Failure {
        let mut failure = Failure::from(error);
        let error = &mut failure.error;
        let Some(field) = error.param.take() else {
            return failure;
        };
        let name = match field.as_str() {
            "messages" | "prompt" => self.prompt,
            "constraint" => self.constraint,
            "max_tokens" => self.max_tokens,
            "logprobs" => self.logprobs,
            other => other,
        };
        if let Some(rest) = error.message.strip_prefix(&field) {
            error.message = format!("{name}{rest}");
        }
        error.param = Some(name.into());
        failure
    }
}

/// A generation that is measured while it is read, and speaks of a request's own fields.
struct Watched {
    node: Shared,
    generation: Generation,
    names: Names,
    begun: Instant,
    first: bool,
}

impl Watched {
    /// Asks the engine.
    async fn ask(
        node: &Shared,
        model: Option<&str>,
        request: hearth_engine::Request,
        names: Names,
        begun: Instant,
    ) -> Result<Self, Failure> {
        let generation = node.engine.generate(model, request).await;
        Ok(Self {
            node: Arc::clone(node),
            generation: generation.map_err(|error| names.failure(error))?,
            names,
            begun,
            first: true,
        })
    }

    /// The model that answers.
    fn model(&self) -> &str {
        &self.generation.model
    }

    /// The next event. The last one is [`Event::Done`]; a model's thread that ends without a word is a failure.
    async fn next(&mut self) -> Result<Event, Failure> {
        let event = self.generation.next().await;
        self.watch(event.unwrap_or(Err(EngineError::Unloaded)))
    }

    /// The next event if it is there already.
    fn try_next(&mut self) -> Option<Result<Event, Failure>> {
        let event = self.generation.try_next()?;
        Some(self.watch(event))
    }

    fn watch(&mut self, event: Result<Event, EngineError>) -> Result<Event, Failure> {
        match &event {
            Ok(Event::Text { .. } | Event::Finished { .. }) => {
                self.node.saw_token();
                if self.first {
                    self.first = false;
                    self.node.metrics.first_token(self.begun.elapsed());
                }
            }
            Ok(Event::Done(usage)) => {
                self.node.metrics.answered(
                    usage.prompt_tokens,
                    usage.completion_tokens,
                    self.begun.elapsed(),
                );
            }
            _ => {}
        }
        event.map_err(|error| self.names.failure(error))
    }
}
