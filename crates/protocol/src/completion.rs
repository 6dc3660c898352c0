//! `POST /v1/completions`, OpenAI's older surface for text that is continued.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::chat::{Stop, StreamOptions, Usage, with_sampling_fields};
use crate::error::ApiError;
use crate::recall::{Extension, goes_nowhere};

with_sampling_fields! {
    /// The body of a completion request.
    #[derive(Debug, Clone, Default, Deserialize, ToSchema)]
    #[serde(expecting = "an object")]
    pub struct CompletionRequest {
        /// What to continue.
        pub prompt: CompletionPrompt,
        /// Name of the model; left out, the default model answers.
        pub model: Option<String>,
        /// Whether the answer comes as server-sent events.
        pub stream: Option<bool>,
        /// What else a stream carries.
        pub stream_options: Option<StreamOptions>,
        /// Most tokens to generate; 16 if left out, as OpenAI has it.
        pub max_tokens: Option<u32>,
        /// Continuations per prompt, 1 to 16.
        pub n: Option<u32>,
        /// Must equal `n` if given.
        pub best_of: Option<u32>,
        /// Texts that end the answer: one, or up to 16.
        pub stop: Option<Stop>,
        /// Report log probabilities with this many alternatives, 0 to 20.
        pub logprobs: Option<u8>,
        /// Whether the prompt stands before the answer.
        pub echo: Option<bool>,
        /// Not supported.
        pub suffix: Option<String>,
        /// Not supported: memory goes with a conversation. Refused if it asks for memory.
        pub hearth: Option<Extension>,
        /// A GBNF grammar that the answer follows.
        pub grammar: Option<String>,
    }
}

/// Text or token ids, one or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a string, an array of strings, or arrays of token ids"
)]
pub enum CompletionPrompt {
    /// One text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// One sequence of token ids.
    Tokens(Vec<i32>),
    /// Several sequences of token ids.
    ManyTokens(Vec<Vec<i32>>),
}

impl Default for CompletionPrompt {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// One prompt of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum OnePrompt {
    /// Text.
    Text(String),
    /// Token ids.
    Tokens(Vec<i32>),
}

impl CompletionPrompt {
    /// The prompts, in order.
    pub fn each(&self) -> Vec<OnePrompt> {
        match self {
            Self::Text(text) => vec![OnePrompt::Text(text.clone())],
            Self::Texts(texts) => texts.iter().cloned().map(OnePrompt::Text).collect(),
            Self::Tokens(tokens) => vec![OnePrompt::Tokens(tokens.clone())],
            Self::ManyTokens(many) => many.iter().cloned().map(OnePrompt::Tokens).collect(),
        }
    }
}

impl CompletionRequest {
    /// Refuses what cannot be honoured.
    pub fn check(&self) -> Result<(), ApiError> {
        if self
            .suffix
            .as_ref()
            .is_some_and(|suffix| !suffix.is_empty())
        {
            return Err(ApiError::unsupported(
                "suffix",
                "suffix is not supported; put the text into the prompt",
            ));
        }
        if self.best_of.is_some_and(|best| best != self.n.unwrap_or(1)) {
            return Err(ApiError::unsupported(
                "best_of",
                "best_of is not supported unless it equals n",
            ));
        }
        goes_nowhere(self.hearth.as_ref())?;
        if self.hearth.as_ref().and_then(Extension::recall).is_some() {
            return Err(ApiError::unsupported(
                "hearth.memory",
                "hearth.memory is not supported here; use /v1/chat/completions",
            ));
        }
        let prompts = self.prompt.each();
        if prompts.is_empty() || prompts.len() > 16 {
            return Err(ApiError::invalid(
                Some("prompt".into()),
                "prompt takes 1 to 16 prompts",
            ));
        }
        if self.echo == Some(true) {
            if self.logprobs.is_some() {
                return Err(ApiError::unsupported(
                    "echo",
                    "echo cannot be combined with logprobs",
                ));
            }
            if prompts
                .iter()
                .any(|prompt| matches!(prompt, OnePrompt::Tokens(_)))
            {
                return Err(ApiError::unsupported(
                    "echo",
                    "echo needs prompts given as text",
                ));
            }
        }
        Ok(())
    }
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Completion {
    /// `cmpl-…`
    pub id: String,
    /// Always `text_completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// The continuations, prompt by prompt.
    pub choices: Vec<CompletionChoice>,
    /// Tokens used; in a stream only in its last chunk, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Version of the node.
    pub system_fingerprint: String,
}

/// One continuation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CompletionChoice {
    /// Its number, from 0.
    pub index: u32,
    /// The text.
    pub text: String,
    /// Log probabilities, if asked for.
    pub logprobs: Option<CompletionLogProbs>,
    /// `stop` or `length`; null while a stream goes on.
    pub finish_reason: Option<String>,
}

/// Log probabilities in the older shape: parallel arrays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CompletionLogProbs {
    /// Texts of the tokens.
    pub tokens: Vec<String>,
    /// Their log probabilities.
    pub token_logprobs: Vec<f32>,
    /// The alternatives at each token, text to log probability.
    pub top_logprobs: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Where each token starts in the text, in characters.
    pub text_offset: Vec<usize>,
}
