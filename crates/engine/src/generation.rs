//! A request for tokens, and the stream of events that answers it.

use std::path::PathBuf;

use serde_json::Value;

use crate::{Constraint, EngineError, Sampling, Token};

/// What to continue.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// Chat messages in OpenAI's shape (`role`, `content`, …), rendered with the model's own template.
    Chat {
        /// The conversation, oldest first.
        messages: Vec<Value>,
        /// Tool definitions in OpenAI's shape; empty for none.
        tools: Vec<Value>,
        /// Extra variables for the template (`enable_thinking`, …).
        variables: serde_json::Map<String, Value>,
    },
    /// Text continued as it stands; special tokens in it are recognised.
    Text(String),
    /// Token ids continued as they stand.
    Tokens(Vec<Token>),
}

/// A LoRA adapter to apply, a GGUF file made for the model.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterUse {
    /// The file.
    pub path: PathBuf,
    /// How strongly; 1 is as trained, 0 is not at all.
    pub scale: f32,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to continue.
    pub prompt: Prompt,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What the answer must look like.
    pub constraint: Constraint,
    /// Adapters to apply, each at most once.
    pub adapters: Vec<AdapterUse>,
    /// Most tokens to generate per choice; `None` is up to the context's end.
    pub max_tokens: Option<u32>,
    /// Never end by the model's own will, only at `max_tokens`, a stop text or the context's end (for measuring).
    pub ignore_eos: bool,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Choices to generate, 1 to 16; they share the prompt's prefill.
    pub n: u32,
    /// Log probabilities: `Some(k)` reports the chosen token and the `k` most likely ones (0 to 20).
    pub logprobs: Option<u8>,
}

impl Request {
    /// A request with default sampling, no constraint and one choice.
    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            sampling: Sampling::default(),
            constraint: Constraint::None,
            adapters: Vec::new(),
            max_tokens: None,
            ignore_eos: false,
            stop: Vec::new(),
            n: 1,
            logprobs: None,
        }
    }
}

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// End of sequence, a stop text, or a complete constrained answer.
    Stop,
    /// `max_tokens` or the end of the context.
    Length,
}

/// Tokens used by one request, all choices together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt (counted once, whatever `n`).
    pub prompt_tokens: u32,
    /// Of those, tokens whose KV came from a cached prefix.
    pub cached_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
}

/// A token's text and its log probability (natural logarithm, before temperature).
#[derive(Debug, Clone, PartialEq)]
pub struct TopLogprob {
    /// Token id.
    pub token: Token,
    /// The token's bytes; not always whole UTF-8.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// The chosen token with the alternatives asked for, most likely first.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The chosen token.
    pub chosen: TopLogprob,
    /// The `k` most likely tokens.
    pub top: Vec<TopLogprob>,
}

/// What happens to a request, in order: `Started`, then `Text` and `Finished` per choice, then `Done`.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A slot works on the request.
    Started {
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Of those, tokens taken from a cached prefix.
        cached_tokens: u32,
    },
    /// More text of a choice: whole UTF-8 characters, never part of a stop text. `text` may be empty when only
    /// `logprobs` came.
    Text {
        /// Choice, from 0.
        choice: u32,
        /// The text.
        text: String,
        /// One per token since the last event, if asked for.
        logprobs: Vec<TokenLogprob>,
    },
    /// A choice ended.
    Finished {
        /// Choice, from 0.
        choice: u32,
        /// Why.
        reason: FinishReason,
    },
    /// All choices ended; the last event.
    Done(Usage),
}

/// Where the events of a request arrive. Unbounded, because a request has at most as many events as its context has
/// tokens, and the model's thread must not wait for a slow client.
pub(crate) type EventReceiver = tokio::sync::mpsc::UnboundedReceiver<Result<Event, EngineError>>;

/// The running answer to one request. Dropping it cancels the request; its slot is free within one step.
#[derive(Debug)]
pub struct Generation {
    /// Name of the model that answers, as the catalogue spells it.
    pub model: String,
    pub(crate) events: EventReceiver,
}

impl Generation {
    /// The next event; `None` after [`Event::Done`] or an error.
    pub async fn next(&mut self) -> Option<Result<Event, EngineError>> {
        self.events.recv().await
    }

    /// The next event if one is already there (so that a stream can send several tokens in one write).
    pub fn try_next(&mut self) -> Option<Result<Event, EngineError>> {
        self.events.try_recv().ok()
    }
}
