//! A request for tokens, and the stream of events that answers it.

use std::collections::VecDeque;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::split::{Part, Splitter};
use crate::{Chat, Constraint, EngineError, Sampling, Token};

/// What to continue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// A conversation.
    Chat(Chat),
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

/// One request. What travels to another node is its JSON, without adapters: their files are this machine's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// What to continue.
    pub prompt: Prompt,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What the answer must look like.
    pub constraint: Constraint,
    /// Adapters to apply, each at most once.
    #[serde(skip)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// End of sequence, a stop text, or a complete constrained answer.
    Stop,
    /// `max_tokens` or the end of the context.
    Length,
    /// The model calls tools and waits for their results.
    ToolCalls,
}

/// Tokens used by one request, all choices together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt (counted once, whatever `n`).
    pub prompt_tokens: u32,
    /// Of those, tokens whose KV came from a cached prefix.
    pub cached_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
    /// Of those, tokens of reasoning.
    pub reasoning_tokens: u32,
}

/// A token's text and its log probability (natural logarithm, before temperature).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopLogprob {
    /// Token id.
    pub token: Token,
    /// The token's bytes; not always whole UTF-8.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// The chosen token with the alternatives asked for, most likely first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The chosen token.
    pub chosen: TopLogprob,
    /// The `k` most likely tokens.
    pub top: Vec<TopLogprob>,
}

/// What happens to a request, in order: `Started`; then per choice `Reasoning`, `Text`, each `ToolCall` with its
/// `ToolArguments`, and `Finished`; then `Done`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        logprobs: Vec<TokenLogprob>,
    },
    /// More of what the model thinks before it answers, without the tags around it.
    Reasoning {
        /// Choice, from 0.
        choice: u32,
        /// The text.
        text: String,
    },
    /// The model begins to call a tool.
    ToolCall {
        /// Choice, from 0.
        choice: u32,
        /// Number of the call in its choice, from 0.
        call: u32,
        /// The tool's name.
        name: String,
    },
    /// More of a call's arguments. All of a call's together are one JSON object, unless the choice ended for length.
    ToolArguments {
        /// Choice, from 0.
        choice: u32,
        /// Number of the call in its choice, from 0.
        call: u32,
        /// A piece of JSON text.
        json: String,
    },
    /// A choice ended.
    Finished {
        /// Choice, from 0.
        choice: u32,
        /// Why.
        reason: FinishReason,
        /// The stop text that ended it.
        stop: Option<String>,
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
    events: EventReceiver,
    /// One per choice, for conversations.
    splitters: Vec<Splitter>,
    /// Calls of each choice so far.
    calls: Vec<u32>,
    /// Of each choice, the probabilities of tokens whose text is held back.
    logprobs: Vec<Vec<TokenLogprob>>,
    /// Events that came out of the last one.
    ready: VecDeque<Event>,
}

impl Generation {
    pub(crate) fn new(model: String, events: EventReceiver, splitters: Vec<Splitter>) -> Self {
        Self {
            model,
            events,
            calls: vec![0; splitters.len()],
            logprobs: vec![Vec::new(); splitters.len()],
            splitters,
            ready: VecDeque::new(),
        }
    }

    /// The next event; `None` after [`Event::Done`] or an error.
    pub async fn next(&mut self) -> Option<Result<Event, EngineError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            match self.events.recv().await? {
                Ok(event) => self.split(event),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The next event if one is already there (so that a stream can send several tokens in one write).
    pub fn try_next(&mut self) -> Option<Result<Event, EngineError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            match self.events.try_recv().ok()? {
                Ok(event) => self.split(event),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Tells reasoning and calls from text.
    fn split(&mut self, event: Event) {
        let (choice, text, logprobs, ended) = match event {
            Event::Text {
                choice,
                text,
                logprobs,
            } => (choice, text, logprobs, None),
            Event::Finished {
                choice,
                reason,
                stop,
            } => (choice, String::new(), Vec::new(), Some((reason, stop))),
            other => return self.ready.push_back(other),
        };
        let Some(splitter) = self.splitters.get_mut(choice as usize) else {
            self.ready.push_back(match ended {
                Some((reason, stop)) => Event::Finished {
                    choice,
                    reason,
                    stop,
                },
                None => Event::Text {
                    choice,
                    text,
                    logprobs,
                },
            });
            return;
        };
        let mut parts = Vec::new();
        let was_text = splitter.in_text();
        splitter.push(&text, &mut parts);
        if ended.is_some() {
            splitter.finish(&mut parts);
        }
        // Probabilities are of text alone. They wait while what was made of their tokens is held back, and go if it
        // becomes a call or reasoning.
        let waiting = &mut self.logprobs[choice as usize];
        waiting.extend(logprobs);
        let is_text = |part: &Part| matches!(part, Part::Text(_));
        let all_text = was_text && splitter.in_text() && parts.iter().all(is_text);
        if !all_text && !parts.iter().any(is_text) {
            waiting.clear();
        }
        if ended.is_some() && parts.is_empty() && !waiting.is_empty() {
            parts.push(Part::Text(String::new()));
        }
        for part in parts {
            let calls = &mut self.calls[choice as usize];
            self.ready.push_back(match part {
                Part::Text(text) => Event::Text {
                    choice,
                    text,
                    logprobs: std::mem::take(waiting),
                },
                Part::Reasoning(text) => Event::Reasoning { choice, text },
                Part::Call(name) => {
                    *calls += 1;
                    Event::ToolCall {
                        choice,
                        call: *calls - 1,
                        name,
                    }
                }
                Part::Arguments(json) => Event::ToolArguments {
                    choice,
                    call: calls.saturating_sub(1),
                    json,
                },
            });
        }
        if let Some((reason, stop)) = ended {
            // A stop text may have cut a call.
            let called = splitter.called() && reason == FinishReason::Stop && stop.is_none();
            let reason = if called {
                FinishReason::ToolCalls
            } else {
                reason
            };
            self.ready.push_back(Event::Finished {
                choice,
                reason,
                stop,
            });
        }
    }
}
