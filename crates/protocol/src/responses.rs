//! `POST /v1/responses` and stored conversations as OpenAI defines them.
//!
//! What a client sends as an item ([`InputItem`]) may leave out nearly everything; what is kept and given back
//! ([`Item`]) is complete. As on the other routes, fields that mean nothing here (`user`, `service_tier`, …) are ignored
//! and those that cannot be honoured are refused.

mod item;
mod request;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

pub use item::{Content, ContentPart, Given, InputItem, InputPart, Item, ItemStatus, Items, Role};
pub use request::{
    ChosenTool, ConversationRef, Format, FunctionTool, Metadata, ReasoningOptions,
    ResponsesRequest, Summary, TextOptions, ToolChoice, Truncation, check_metadata,
};

/// An answer with what was asked.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Response {
    /// `resp_…`
    pub id: String,
    /// Always `response`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created_at: u64,
    /// When it was complete, in seconds since 1970.
    pub completed_at: Option<u64>,
    /// How far it is.
    pub status: Status,
    /// Always false here.
    pub background: bool,
    /// Why it failed.
    pub error: Option<ResponseError>,
    /// Why it is not complete.
    pub incomplete_details: Option<IncompleteDetails>,
    /// As asked.
    pub instructions: Option<String>,
    /// As asked.
    pub max_output_tokens: Option<u32>,
    /// Always null here: it is about tools that run on the server.
    pub max_tool_calls: Option<u32>,
    /// The model that answered.
    pub model: String,
    /// The answer.
    pub output: Vec<Item>,
    /// As asked; true by default.
    pub parallel_tool_calls: bool,
    /// The answer that this one goes on from.
    pub previous_response_id: Option<String>,
    /// The conversation that it belongs to.
    pub conversation: Option<ConversationId>,
    /// As asked.
    pub reasoning: EchoedReasoning,
    /// Whether it is stored.
    pub store: bool,
    /// As asked; null is as the model's file says.
    pub temperature: Option<f32>,
    /// As asked.
    pub text: EchoedText,
    /// As asked.
    #[schema(value_type = Object)]
    pub tool_choice: Value,
    /// As asked.
    pub tools: Vec<FunctionTool>,
    /// As asked.
    pub top_logprobs: u8,
    /// As asked; null is as the model's file says.
    pub top_p: Option<f32>,
    /// As asked.
    pub truncation: Truncation,
    /// Tokens used; null until the end.
    pub usage: Option<ResponseUsage>,
    /// As asked.
    pub metadata: Metadata,
    /// The memories that were in the prompt, if the request asked for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hearth: Option<crate::recall::Used>,
}

/// How far an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The model is at it.
    InProgress,
    /// It is complete.
    Completed,
    /// It was cut; `incomplete_details` says why.
    Incomplete,
    /// It broke off; `error` says why.
    Failed,
}

/// Why an answer is not complete.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct IncompleteDetails {
    /// Always `max_output_tokens`; also if the context is full.
    pub reason: &'static str,
}

/// Why an answer failed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ResponseError {
    /// Stable name of the error.
    pub code: String,
    /// What happened.
    pub message: String,
}

/// A conversation's id.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ConversationId {
    /// `conv_…`
    pub id: String,
}

/// How the model was asked to reason.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct EchoedReasoning {
    /// As asked.
    pub effort: Option<crate::chat::ReasoningEffort>,
    /// As asked.
    pub summary: Option<Summary>,
}

/// What the text was asked to look like.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EchoedText {
    /// As asked.
    pub format: Format,
}

/// Tokens used.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct ResponseUsage {
    /// Tokens of the prompt.
    pub input_tokens: u32,
    /// Where they came from.
    pub input_tokens_details: InputTokensDetails,
    /// Tokens generated.
    pub output_tokens: u32,
    /// What they are.
    pub output_tokens_details: OutputTokensDetails,
    /// Their sum.
    pub total_tokens: u32,
}

/// Where a prompt's tokens came from.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct InputTokensDetails {
    /// Tokens whose KV was cached and not computed again.
    pub cached_tokens: u32,
    /// Always 0: writing to the cache costs nothing here.
    pub cache_write_tokens: u32,
}

/// What generated tokens are.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = ResponseOutputTokensDetails)]
pub struct OutputTokensDetails {
    /// Tokens of reasoning.
    pub reasoning_tokens: u32,
}

/// How many tokens a question has.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct InputTokens {
    /// Always `response.input_tokens`.
    pub object: &'static str,
    /// Tokens of the prompt.
    pub input_tokens: u32,
}

/// A stored conversation; its items are asked for on their own.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Conversation {
    /// `conv_…`
    pub id: String,
    /// Always `conversation`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created_at: u64,
    /// What the client attached.
    pub metadata: Metadata,
}

/// The body of `POST /v1/conversations`.
#[derive(Debug, Clone, Default, serde::Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct NewConversation {
    /// Up to 20 items to begin with.
    pub items: Option<Vec<InputItem>>,
    /// Up to 16 texts under names.
    pub metadata: Option<Metadata>,
}

/// The body of `POST /v1/conversations/{id}/items`.
#[derive(Debug, Clone, serde::Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct NewItems {
    /// Up to 20 items to add at the end.
    pub items: Vec<InputItem>,
}

/// The body of `POST /v1/conversations/{id}`.
#[derive(Debug, Clone, serde::Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct ConversationUpdate {
    /// Replaces what was attached before.
    pub metadata: Metadata,
}

/// A page of items.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ItemList {
    /// Always `list`.
    pub object: &'static str,
    /// The items.
    #[schema(value_type = Vec<Item>)]
    pub data: Vec<Value>,
    /// Id of the first; null if there is none.
    pub first_id: Option<String>,
    /// Id of the last, to ask for the next page with `after`.
    pub last_id: Option<String>,
    /// Whether there are more.
    pub has_more: bool,
}

/// What is said of something that was deleted.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Deleted {
    /// Its id.
    pub id: String,
    /// `response` or `conversation.deleted`.
    pub object: &'static str,
    /// Always true.
    pub deleted: bool,
}
