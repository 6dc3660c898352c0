//! OpenAI's surface.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod models;
pub(crate) mod responses;

use hearth_engine::{Constraint, FinishReason, Sampling, TokenLogprob, Usage};
use hearth_protocol::chat::{self as wire, SamplingFields};
use hearth_protocol::error::ApiError;

use crate::state::{Node, unix_time};

/// What ends every stream.
const DONE: &str = "data: [DONE]\n\n";

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
        completion_tokens_details: wire::CompletionTokensDetails {
            reasoning_tokens: usage.reasoning_tokens,
        },
    }
}

fn reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
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
