//! `POST /v1/chat/completions` as OpenAI defines it, with the sampling fields that local servers add.
//!
//! A field may be left out or null. Fields that are not listed are ignored, because clients send many that mean
//! nothing here (`user`, `store`, `service_tier`, …); listed ones that Hearth cannot honour are refused, because
//! ignoring them would change what the answer means.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::recall::{Extension, Misplaced, Used};
use crate::tool::{self, ToolCall, ToolChoice, ToolDefinition};

/// Adds the sampling fields to a request. Not `#[serde(flatten)]`: that loses the path of a wrong field.
macro_rules! with_sampling_fields {
    ($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* }) => {
        $(#[$meta])*
        pub struct $name {
            $($body)*
            /// 0 (greedy) to 2.
            pub temperature: Option<f32>,
            /// 0 to 1.
            pub top_p: Option<f32>,
            /// Keep the k most likely tokens; 0 keeps all.
            pub top_k: Option<u32>,
            /// 0 to 1.
            pub min_p: Option<f32>,
            /// −2 to 2.
            pub presence_penalty: Option<f32>,
            /// −2 to 2.
            pub frequency_penalty: Option<f32>,
            /// 1 is off.
            #[serde(alias = "repetition_penalty")]
            pub repeat_penalty: Option<f32>,
            /// Token id to bias, −100 to 100.
            pub logit_bias: Option<std::collections::BTreeMap<String, f32>>,
            /// Same seed, same text.
            pub seed: Option<i64>,
            /// Go on to `max_tokens` whatever the model wants (for measuring).
            pub ignore_eos: Option<bool>,
        }

        impl $name {
            /// The sampling fields together.
            pub fn sampling(&self) -> $crate::chat::SamplingFields {
                $crate::chat::SamplingFields {
                    temperature: self.temperature,
                    top_p: self.top_p,
                    top_k: self.top_k,
                    min_p: self.min_p,
                    presence_penalty: self.presence_penalty,
                    frequency_penalty: self.frequency_penalty,
                    repeat_penalty: self.repeat_penalty,
                    logit_bias: self.logit_bias.clone(),
                    seed: self.seed,
                    ignore_eos: self.ignore_eos,
                }
            }
        }
    };
}
pub(crate) use with_sampling_fields;

with_sampling_fields! {
    /// The body of a chat request.
    #[derive(Debug, Clone, Default, Deserialize, ToSchema)]
    #[serde(expecting = "an object")]
    pub struct ChatRequest {
        /// The conversation, oldest first.
        pub messages: Vec<Message>,
        /// Name of the model; left out, the default model answers.
        pub model: Option<String>,
        /// Whether the answer comes as server-sent events.
        pub stream: Option<bool>,
        /// What else a stream carries.
        pub stream_options: Option<StreamOptions>,
        /// Most tokens to generate.
        pub max_tokens: Option<u32>,
        /// The newer name of `max_tokens`; wins over it.
        pub max_completion_tokens: Option<u32>,
        /// Answers to generate, 1 to 16.
        pub n: Option<u32>,
        /// Texts that end the answer: one, or up to 16.
        pub stop: Option<Stop>,
        /// Whether log probabilities are reported.
        pub logprobs: Option<bool>,
        /// Alternatives reported per token, 0 to 20; needs `logprobs`.
        pub top_logprobs: Option<u8>,
        /// What the answer must look like.
        pub response_format: Option<ResponseFormat>,
        /// A GBNF grammar that the answer follows.
        pub grammar: Option<String>,
        /// Variables for the model's chat template (`enable_thinking`, …).
        #[schema(value_type = Option<Object>)]
        pub chat_template_kwargs: Option<Map<String, Value>>,
        /// Tools that the model may call.
        pub tools: Option<Vec<ToolDefinition>>,
        /// Whether it must; left out, it may.
        pub tool_choice: Option<ToolChoice>,
        /// Whether one answer may hold several calls; left out, it may.
        pub parallel_tool_calls: Option<bool>,
        /// How much a model that reasons may do so: `none` not at all, `high` without limit.
        pub reasoning_effort: Option<ReasoningEffort>,
        /// Whether a model that can reason does; wins over `reasoning_effort`.
        pub enable_thinking: Option<bool>,
        /// Most tokens of reasoning; wins over `reasoning_effort`.
        #[serde(alias = "thinking_budget_tokens")]
        pub thinking_budget: Option<u32>,
        /// Not supported: refused unless empty.
        #[schema(value_type = Option<Vec<Object>>)]
        pub functions: Option<Vec<Value>>,
        /// Only `text` is supported.
        pub modalities: Option<Vec<String>>,
        /// Memories for the prompt.
        pub hearth: Option<Extension>,
        /// Refused: memories are asked for in `hearth`.
        #[schema(value_type = Option<Object>)]
        pub memory: Option<Misplaced>,
    }
}

/// The sampling fields that chat and completions share.
#[derive(Debug, Clone, Default)]
pub struct SamplingFields {
    /// 0 (greedy) to 2.
    pub temperature: Option<f32>,
    /// 0 to 1.
    pub top_p: Option<f32>,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: Option<u32>,
    /// 0 to 1.
    pub min_p: Option<f32>,
    /// −2 to 2.
    pub presence_penalty: Option<f32>,
    /// −2 to 2.
    pub frequency_penalty: Option<f32>,
    /// 1 is off.
    pub repeat_penalty: Option<f32>,
    /// Token id to bias, −100 to 100.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// Same seed, same text.
    pub seed: Option<i64>,
    /// Go on to `max_tokens` whatever the model wants (for measuring).
    pub ignore_eos: Option<bool>,
}

impl SamplingFields {
    /// Token ids with their bias.
    pub fn biases(&self) -> Result<Vec<(i32, f32)>, ApiError> {
        let each = self.logit_bias.iter().flatten().map(|(token, bias)| {
            let id = token.parse().map_err(|_| {
                let param = format!("logit_bias.{token}");
                ApiError::invalid(
                    Some(param),
                    format!("logit_bias: `{token}` is not a token id (a whole number)"),
                )
            })?;
            Ok((id, *bias))
        });
        each.collect()
    }
}

/// One or several texts.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or an array of strings")]
pub enum Stop {
    /// One text.
    One(String),
    /// Several texts.
    Many(Vec<String>),
}

impl Stop {
    /// The texts.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text.clone()],
            Self::Many(texts) => texts.clone(),
        }
    }
}

/// What a stream carries besides text.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct StreamOptions {
    /// Whether a last chunk reports the tokens used.
    pub include_usage: Option<bool>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions.
    #[serde(alias = "developer")]
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool.
    Tool,
}

/// One message.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct Message {
    /// Who speaks; `developer` is read as `system`.
    pub role: Role,
    /// What is said; null only for an assistant that said nothing, or called tools.
    #[serde(default)]
    pub content: Option<Content>,
    /// Name of the speaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Tools the assistant called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
    /// Of a tool's result: the call it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// What the assistant thought before it answered.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "reasoning")]
    pub reasoning_content: Option<String>,
    /// Not supported: refused unless null.
    #[serde(default, skip_serializing)]
    #[schema(value_type = Option<Object>)]
    pub function_call: Option<Value>,
}

/// Text, or parts of it.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or an array of content parts")]
pub enum Content {
    /// Text.
    Text(String),
    /// Parts.
    Parts(Vec<Part>),
}

/// One part of a message.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct Part {
    /// `text` is supported.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// How much a model may reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReasoningEffort {
    /// Not at all.
    None,
    /// Up to 512 tokens.
    Minimal,
    /// Up to 2,048 tokens.
    Low,
    /// Up to 8,192 tokens.
    Medium,
    /// As long as it wants.
    High,
    /// As long as it wants.
    #[serde(alias = "max")]
    XHigh,
}

impl ReasoningEffort {
    /// Most tokens of reasoning; `None` is no limit.
    pub fn budget(self) -> Option<u32> {
        match self {
            Self::None => Some(0),
            Self::Minimal => Some(512),
            Self::Low => Some(2048),
            Self::Medium => Some(8192),
            Self::High | Self::XHigh => None,
        }
    }
}

/// What the answer must look like.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", expecting = "an object")]
pub enum ResponseFormat {
    /// Anything.
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that fits a schema.
    JsonSchema {
        /// The schema with its name.
        json_schema: NamedSchema,
    },
}

/// A JSON Schema with a name.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct NamedSchema {
    /// A name for the schema.
    #[serde(default)]
    pub name: Option<String>,
    /// The schema.
    #[schema(value_type = Object)]
    pub schema: Value,
}

impl ChatRequest {
    /// Refuses what cannot be honoured.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.messages.is_empty() {
            return Err(ApiError::invalid(
                Some("messages".into()),
                "messages must hold at least one message",
            ));
        }
        for (at, message) in self.messages.iter().enumerate() {
            message.check(&format!("messages[{at}]"))?;
        }
        for (at, tool) in self.tools.iter().flatten().enumerate() {
            tool.function(&format!("tools[{at}]"))?;
        }
        if self
            .functions
            .as_ref()
            .is_some_and(|functions| !functions.is_empty())
        {
            return Err(ApiError::unsupported(
                "functions",
                "functions are not supported; send them as tools",
            ));
        }
        if self
            .modalities
            .iter()
            .flatten()
            .any(|modality| modality != "text")
        {
            return Err(ApiError::unsupported(
                "modalities",
                "only the modality `text` is supported",
            ));
        }
        if self.top_logprobs.is_some_and(|top| top > 0) && self.logprobs != Some(true) {
            return Err(ApiError::invalid(
                Some("top_logprobs".into()),
                "top_logprobs needs logprobs: true",
            ));
        }
        let formatted = !matches!(self.response_format, None | Some(ResponseFormat::Text));
        if self.grammar.is_some() && formatted {
            return Err(ApiError::invalid(
                Some("grammar".into()),
                "give either grammar or response_format, not both",
            ));
        }
        Ok(())
    }
}

impl Message {
    fn check(&self, place: &str) -> Result<(), ApiError> {
        if self.function_call.is_some() {
            let param = format!("{place}.function_call");
            let message = format!("{param} is not supported; send it as tool_calls");
            return Err(ApiError::unsupported(&param, message));
        }
        let called = self
            .tool_calls
            .as_ref()
            .is_some_and(|calls| !calls.is_empty());
        if called && self.role != Role::Assistant {
            let param = format!("{place}.tool_calls");
            let message = format!("{param}: only an assistant calls tools");
            return Err(ApiError::invalid(Some(param), message));
        }
        for (at, call) in self.tool_calls.iter().flatten().enumerate() {
            if tool::whole_arguments(&call.function.arguments).is_none() {
                let param = format!("{place}.tool_calls[{at}].function.arguments");
                return Err(tool::no_arguments(param));
            }
        }
        match &self.content {
            Some(Content::Parts(parts)) => {
                for (at, part) in parts.iter().enumerate() {
                    if part.kind != "text" {
                        let message = format!(
                            "content parts of type `{}` are not supported; send text",
                            part.kind
                        );
                        return Err(ApiError::unsupported(
                            &format!("{place}.content[{at}].type"),
                            message,
                        ));
                    }
                    if part.text.is_none() {
                        let param = format!("{place}.content[{at}].text");
                        return Err(ApiError::invalid(
                            Some(param.clone()),
                            format!("{param} is missing"),
                        ));
                    }
                }
                Ok(())
            }
            Some(Content::Text(_)) => Ok(()),
            None if matches!(self.role, Role::Assistant | Role::Tool) => Ok(()),
            None => {
                let param = format!("{place}.content");
                Err(ApiError::invalid(
                    Some(param.clone()),
                    format!("{param} is missing; give a string"),
                ))
            }
        }
    }
}

/// Tokens used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated, all choices together.
    pub completion_tokens: u32,
    /// Their sum.
    pub total_tokens: u32,
    /// Where the prompt's tokens came from.
    pub prompt_tokens_details: PromptTokensDetails,
    /// What the generated tokens are.
    pub completion_tokens_details: CompletionTokensDetails,
}

/// What generated tokens are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CompletionTokensDetails {
    /// Tokens of reasoning.
    pub reasoning_tokens: u32,
}

/// Where a prompt's tokens came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PromptTokensDetails {
    /// Tokens whose KV was cached and not computed again.
    pub cached_tokens: u32,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatCompletion {
    /// `chatcmpl-…`
    pub id: String,
    /// Always `chat.completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// The answers.
    pub choices: Vec<Choice>,
    /// Tokens used.
    pub usage: Usage,
    /// Version of the node.
    pub system_fingerprint: String,
    /// The memories that were in the prompt, if the request asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hearth: Option<Used>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Choice {
    /// Its number, from 0.
    pub index: u32,
    /// The answer.
    pub message: Answer,
    /// Log probabilities, if asked for.
    pub logprobs: Option<LogProbs>,
    /// `stop`, `length` or `tool_calls`.
    pub finish_reason: String,
}

/// The assistant's message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    /// Always `assistant`.
    pub role: String,
    /// The text; null if the model called tools and said nothing.
    pub content: Option<String>,
    /// What the model thought before it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Tools that the model calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Always null here.
    pub refusal: Option<String>,
}

/// Log probabilities of an answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogProbs {
    /// One per token.
    pub content: Vec<TokenLogProb>,
}

/// A token, its probability and its alternatives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenLogProb {
    /// The token's text; incomplete characters are U+FFFD.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The token's bytes.
    pub bytes: Vec<u8>,
    /// The most likely tokens here.
    pub top_logprobs: Vec<TopLogProb>,
}

/// An alternative token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopLogProb {
    /// The token's text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The token's bytes.
    pub bytes: Vec<u8>,
}
