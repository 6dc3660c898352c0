//! `POST /v1/messages` and `POST /v1/messages/count_tokens` as Anthropic defines them.
//!
//! Fields that are not listed are ignored, because clients send many that mean nothing here (`metadata`,
//! `cache_control`, `service_tier`, `betas`, …); listed ones that Hearth cannot honour are refused, because ignoring
//! them would change what the answer means.

use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::recall::{Extension, Misplaced, Used};

/// The body of a request, also of one that only counts its tokens.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct MessagesRequest {
    /// Name of the model; left out, the default model answers.
    pub model: Option<String>,
    /// The conversation, oldest first. Messages of one role in a row count as one; if the last is the assistant's,
    /// the answer goes on where it ends.
    pub messages: Vec<InputMessage>,
    /// Most tokens to generate. Must be given, except to count tokens.
    pub max_tokens: Option<u32>,
    /// Instructions.
    pub system: Option<Content>,
    /// Whether the answer comes as server-sent events.
    pub stream: Option<bool>,
    /// 0 (greedy) to 1.
    pub temperature: Option<f32>,
    /// 0 to 1.
    pub top_p: Option<f32>,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: Option<u32>,
    /// Up to 16 texts that end the answer.
    pub stop_sequences: Option<Vec<String>>,
    /// Tools that the model may call.
    pub tools: Option<Vec<ToolDefinition>>,
    /// Whether it must; left out, it may.
    pub tool_choice: Option<ToolChoice>,
    /// How much a model that reasons may do so; left out, not at all.
    pub thinking: Option<Thinking>,
    /// What the answer must look like.
    pub output_config: Option<OutputConfig>,
    /// The older place of `output_config.format`.
    pub output_format: Option<OutputFormat>,
    /// Not supported: refused unless empty.
    #[schema(value_type = Option<Vec<Object>>)]
    pub mcp_servers: Option<Vec<Value>>,
    /// Not supported: refused unless null.
    #[schema(value_type = Option<Object>)]
    pub container: Option<Value>,
    /// Hearth's own: memories for the prompt.
    pub hearth: Option<Extension>,
    /// Refused: memories are asked for in `hearth`.
    #[schema(value_type = Option<Object>)]
    pub memory: Option<Misplaced>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AnthropicRole)]
pub enum Role {
    /// The person, and the results of tools.
    User,
    /// The model.
    Assistant,
    /// Further instructions.
    System,
}

/// One message.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = AnthropicInputMessage)]
pub struct InputMessage {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Content,
}

/// Text, or blocks of it and of other things.
#[derive(Debug, Clone, ToSchema)]
#[serde(untagged)]
#[schema(as = AnthropicContent)]
pub enum Content {
    /// Text.
    Text(String),
    /// Blocks.
    #[schema(no_recursion)]
    Blocks(Vec<Block>),
}

// Not derived: that loses the path of a wrong field.
impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Content;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("a string or an array of content blocks")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, blocks: A) -> Result<Content, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(blocks)).map(Content::Blocks)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// One block of a message. Which fields it has depends on its type.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = AnthropicBlock)]
pub struct Block {
    /// `text`, `thinking`, `redacted_thinking`, `tool_use` or `tool_result`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of `text`: the text.
    pub text: Option<String>,
    /// Of `thinking`: what the model thought before it answered.
    pub thinking: Option<String>,
    /// Of `tool_use`: its id, which the result repeats.
    pub id: Option<String>,
    /// Of `tool_use`: the tool's name.
    pub name: Option<String>,
    /// Of `tool_use`: the tool's arguments.
    #[schema(value_type = Option<Object>)]
    pub input: Option<Map<String, Value>>,
    /// Of `tool_result`: the call it belongs to.
    pub tool_use_id: Option<String>,
    /// Of `tool_result`: text or blocks of it; may be left out.
    #[schema(no_recursion)]
    pub content: Option<Content>,
    /// Of `tool_result`: whether the tool failed.
    pub is_error: Option<bool>,
}

/// A tool that the model may call.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = AnthropicToolDefinition)]
pub struct ToolDefinition {
    /// `custom`, or left out. The tools that Anthropic defines (`web_search_…`, `bash_…`) are not supported.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// What it does, for the model.
    pub description: Option<String>,
    /// JSON Schema of its arguments.
    #[schema(value_type = Object)]
    pub input_schema: Option<Map<String, Value>>,
    /// Whether a schema that cannot be enforced is an error.
    pub strict: Option<bool>,
}

/// Whether the model must call a tool.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = AnthropicToolChoice)]
pub struct ToolChoice {
    /// How free the model is.
    #[serde(rename = "type")]
    pub kind: ToolMode,
    /// Of `tool`: its name.
    pub name: Option<String>,
    /// Whether one answer may hold one call only.
    pub disable_parallel_tool_use: Option<bool>,
}

/// How free the model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AnthropicToolMode)]
pub enum ToolMode {
    /// It may call.
    Auto,
    /// It must call.
    Any,
    /// It must call the tool of this name.
    Tool,
    /// It may not.
    None,
}

/// How much a model that reasons may do so.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = AnthropicThinking)]
pub struct Thinking {
    /// Whether it reasons.
    #[serde(rename = "type")]
    pub kind: ThinkingMode,
    /// Of `enabled`: most tokens of reasoning, at least 1024 and fewer than `max_tokens`.
    pub budget_tokens: Option<u32>,
    /// Whether the answer shows the reasoning; left out, it does.
    pub display: Option<ThinkingDisplay>,
}

/// Whether a model reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AnthropicThinkingMode)]
pub enum ThinkingMode {
    /// Up to `budget_tokens`.
    Enabled,
    /// Not at all.
    Disabled,
    /// As long as it wants, or as `output_config.effort` says.
    Adaptive,
    /// As `adaptive` when the conversation ends in the results of tools, and else not at all.
    BetweenTools,
}

/// Whether an answer shows the reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AnthropicThinkingDisplay)]
pub enum ThinkingDisplay {
    /// As it is; nothing is summarized here.
    Summarized,
    /// Not; its block stays empty.
    Omitted,
}

/// What an answer must look like.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = AnthropicOutputConfig)]
pub struct OutputConfig {
    /// How much adaptive thinking may be.
    pub effort: Option<Effort>,
    /// The form of the answer.
    pub format: Option<OutputFormat>,
}

/// How much a model may reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AnthropicEffort)]
pub enum Effort {
    /// Up to 2,048 tokens.
    Low,
    /// Up to 8,192 tokens.
    Medium,
    /// As long as it wants.
    High,
    /// As long as it wants.
    XHigh,
    /// As long as it wants.
    Max,
}

impl Effort {
    /// Most tokens of reasoning; `None` is no limit.
    pub fn budget(self) -> Option<u32> {
        match self {
            Self::Low => Some(2048),
            Self::Medium => Some(8192),
            Self::High | Self::XHigh | Self::Max => None,
        }
    }
}

/// The form of an answer.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", expecting = "an object")]
#[schema(as = AnthropicOutputFormat)]
pub enum OutputFormat {
    /// JSON that fits a schema.
    JsonSchema {
        /// The schema.
        #[schema(value_type = Object)]
        schema: Value,
    },
}

/// Least budget of reasoning, in tokens.
const LEAST_BUDGET: u32 = 1024;
/// Most texts that may end an answer.
const MOST_STOPS: usize = 16;

impl MessagesRequest {
    /// Refuses what cannot be honoured. What is wrong within messages and tools is found where they are read.
    pub fn check(&self) -> Result<(), ApiError> {
        let invalid = |param: &str, message: String| {
            Err(ApiError::invalid(
                Some(param.into()),
                format!("{param}: {message}"),
            ))
        };
        if self.messages.is_empty() {
            return invalid("messages", "give at least one message".into());
        }
        if let Some(temperature) = self.temperature
            && !(0.0..=1.0).contains(&temperature)
        {
            return invalid("temperature", format!("must be 0 to 1, not {temperature}"));
        }
        let stops = self.stop_sequences.as_deref().unwrap_or_default();
        if stops.len() > MOST_STOPS || stops.iter().any(String::is_empty) {
            let message = format!("give up to {MOST_STOPS} texts, none of them empty");
            return invalid("stop_sequences", message);
        }
        if let Some(thinking) = &self.thinking {
            thinking.check(self.max_tokens)?;
        }
        let format = self.output_config.as_ref().map(|config| &config.format);
        if self.output_format.is_some() && matches!(format, Some(Some(_))) {
            let message = "give either this or output_config.format, not both";
            return invalid("output_format", message.into());
        }
        let unsupported = |param: &str, message: &str| {
            Err(ApiError::unsupported(param, format!("{param}: {message}")))
        };
        if self
            .mcp_servers
            .as_ref()
            .is_some_and(|servers| !servers.is_empty())
        {
            return unsupported(
                "mcp_servers",
                "this node connects to no MCP servers; connect to them in the client and send their tools",
            );
        }
        if self.container.is_some() {
            return unsupported("container", "this node runs no code; leave it out");
        }
        Ok(())
    }
}

impl Thinking {
    fn check(&self, max_tokens: Option<u32>) -> Result<(), ApiError> {
        let wrong = |message: String| {
            let param = "thinking.budget_tokens";
            Err(ApiError::invalid(
                Some(param.into()),
                format!("{param}: {message}"),
            ))
        };
        if self.kind != ThinkingMode::Enabled {
            return Ok(());
        }
        match (self.budget_tokens, max_tokens) {
            (None, _) => wrong(format!(
                "missing; give at least {LEAST_BUDGET}, or `{{\"type\": \"adaptive\"}}` for no limit"
            )),
            (Some(budget), _) if budget < LEAST_BUDGET => {
                wrong(format!("must be at least {LEAST_BUDGET}, not {budget}"))
            }
            (Some(budget), Some(most)) if budget >= most => {
                wrong(format!("must be less than max_tokens ({most})"))
            }
            _ => Ok(()),
        }
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = AnthropicMessage)]
pub struct Message {
    /// `msg_…`.
    pub id: String,
    /// `message`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `assistant`.
    pub role: String,
    /// The model that answered.
    pub model: String,
    /// What it says.
    pub content: Vec<OutputBlock>,
    /// Why it ended; null at the start of a stream.
    pub stop_reason: Option<StopReason>,
    /// The text that ended it, if one did.
    pub stop_sequence: Option<String>,
    /// Tokens used.
    pub usage: Usage,
    /// The memories that were in the prompt, if the request asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hearth: Option<Used>,
}

/// One block of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = AnthropicOutputBlock)]
pub enum OutputBlock {
    /// What the model thought before it answered.
    Thinking {
        /// The text.
        thinking: String,
        /// Clients send it back; it says nothing.
        signature: String,
    },
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// A call of a tool.
    ToolUse {
        /// Its id, which the result repeats.
        id: String,
        /// The tool's name.
        name: String,
        /// Its arguments; empty if the answer ended in the middle of them.
        #[schema(value_type = Object)]
        input: Map<String, Value>,
    },
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AnthropicStopReason)]
pub enum StopReason {
    /// The model was done.
    EndTurn,
    /// `max_tokens`.
    MaxTokens,
    /// One of `stop_sequences`.
    StopSequence,
    /// The model calls tools and waits for their results.
    ToolUse,
    /// The context is full.
    ModelContextWindowExceeded,
}

/// Tokens used. The prompt's are `input_tokens` and `cache_read_input_tokens` together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AnthropicUsage)]
pub struct Usage {
    /// Tokens of the prompt that were computed.
    pub input_tokens: u32,
    /// Always 0: nothing is charged for keeping a prompt.
    pub cache_creation_input_tokens: u32,
    /// Tokens of the prompt whose KV came from a cached prefix.
    pub cache_read_input_tokens: u32,
    /// Tokens generated.
    pub output_tokens: u32,
    /// What they were.
    pub output_tokens_details: OutputTokensDetails,
}

/// What generated tokens were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AnthropicOutputTokensDetails)]
pub struct OutputTokensDetails {
    /// Tokens of reasoning.
    pub thinking_tokens: u32,
}

/// How many tokens a request's prompt has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AnthropicTokenCount)]
pub struct TokenCount {
    /// The number.
    pub input_tokens: u32,
}

/// The body of an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = AnthropicErrorResponse)]
pub struct ErrorResponse {
    /// `error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The error.
    pub error: ErrorObject,
    /// The request's id, as in the header `request-id`.
    pub request_id: String,
}

/// An error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = AnthropicErrorObject)]
pub struct ErrorObject {
    /// Family of the error (`invalid_request_error`, `rate_limit_error`, `overloaded_error`, …).
    #[serde(rename = "type")]
    pub kind: String,
    /// What is wrong and how to mend it.
    pub message: String,
    /// Further facts: `error_code` is a stable name, `param` the field that is wrong.
    #[schema(value_type = Object)]
    pub details: Map<String, Value>,
}

/// A model in the answer to `GET /v1/models`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = AnthropicModelInfo)]
pub struct ModelInfo {
    /// `model`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name a request uses.
    pub id: String,
    /// Name for people.
    pub display_name: String,
    /// When the file was last changed, as RFC 3339 has it.
    pub created_at: String,
}

/// A page of the models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = AnthropicModelPage)]
pub struct ModelPage {
    /// The models, the default one first.
    pub data: Vec<ModelInfo>,
    /// Whether there are more in the direction that was asked for.
    pub has_more: bool,
    /// The first id of the page.
    pub first_id: Option<String>,
    /// The last id of the page.
    pub last_id: Option<String>,
}
