//! What a client asks for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Items;
use crate::chat::{ReasoningEffort, with_sampling_fields};
use crate::error::ApiError;
use crate::recall::{Extension, Misplaced};
use crate::tool::ToolMode;

/// Texts under names that a client attaches to what is stored.
pub type Metadata = BTreeMap<String, String>;

/// Most pairs of metadata.
const MOST_PAIRS: usize = 16;
/// Longest name in metadata, in characters.
const LONGEST_NAME: usize = 64;
/// Longest text in metadata, in characters.
const LONGEST_TEXT: usize = 512;

/// What `include` may name. All but the log probabilities are about tools that run on the server, images, or reasoning
/// that is hidden from the client; none of that is here, so there is nothing to include.
const INCLUDABLE: [&str; 8] = [
    LOGPROBS,
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
];
const LOGPROBS: &str = "message.output_text.logprobs";

with_sampling_fields! {
    /// The body of `POST /v1/responses`.
    #[derive(Debug, Clone, Default, Deserialize, ToSchema)]
    #[serde(expecting = "an object")]
    pub struct ResponsesRequest {
        /// What is asked: text, or items.
        pub input: Option<Items>,
        /// Name of the model; left out, the default model answers.
        pub model: Option<String>,
        /// Instructions for this answer alone; they stand before everything else.
        pub instructions: Option<String>,
        /// The answer to go on from.
        pub previous_response_id: Option<String>,
        /// The stored conversation to go on with, and to add to.
        pub conversation: Option<ConversationRef>,
        /// Whether the answer is stored; left out, it is.
        pub store: Option<bool>,
        /// Whether the answer comes as server-sent events.
        pub stream: Option<bool>,
        /// Tools that the model may call; functions are supported.
        pub tools: Option<Vec<FunctionTool>>,
        /// Whether it must; left out, it may.
        pub tool_choice: Option<ToolChoice>,
        /// Whether one answer may hold several calls; left out, it may.
        pub parallel_tool_calls: Option<bool>,
        /// What the answer must look like.
        pub text: Option<TextOptions>,
        /// How much a model that reasons may do so.
        pub reasoning: Option<ReasoningOptions>,
        /// Most tokens to generate.
        pub max_output_tokens: Option<u32>,
        /// Alternatives reported per token, 0 to 20.
        pub top_logprobs: Option<u8>,
        /// What else the answer carries; `message.output_text.logprobs` is supported.
        pub include: Option<Vec<String>>,
        /// What happens to a prompt that is too long; `disabled` is supported, and an error.
        pub truncation: Option<Truncation>,
        /// Up to 16 texts under names, kept with the answer.
        pub metadata: Option<Metadata>,
        /// Not supported: refused unless false.
        pub background: Option<bool>,
        /// Not supported: refused unless null.
        #[schema(value_type = Option<Object>)]
        pub prompt: Option<Value>,
        /// Memories for the prompt; they are not stored with the answer.
        pub hearth: Option<Extension>,
        /// Refused: memories are asked for in `hearth`.
        #[schema(value_type = Option<Object>)]
        pub memory: Option<Misplaced>,
    }
}

/// A stored conversation, by its id.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a conversation's id or an object with `id`"
)]
pub enum ConversationRef {
    /// Its id.
    Id(String),
    /// An object with its id.
    Object {
        /// Its id.
        id: String,
    },
}

impl ConversationRef {
    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Self::Id(id) | Self::Object { id } => id,
        }
    }
}

/// A function that the model may call.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct FunctionTool {
    /// `function` is supported.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub name: Option<String>,
    /// What it does, for the model.
    pub description: Option<String>,
    /// JSON Schema of its arguments; left out, it takes none.
    #[schema(value_type = Option<Object>)]
    pub parameters: Option<Value>,
    /// Whether a schema that cannot be enforced is an error.
    pub strict: Option<bool>,
}

/// Whether the model must call a tool.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected `auto`, `none`, `required` or an object that names functions"
)]
#[schema(as = ResponsesToolChoice)]
pub enum ToolChoice {
    /// `auto`, `none` or `required`.
    Mode(ToolMode),
    /// One function, or some of them.
    Chosen(ChosenTool),
}

/// One function that must be called, or several to choose from.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct ChosenTool {
    /// `function` or `allowed_tools`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The function.
    pub name: Option<String>,
    /// Of `allowed_tools`: whether one must be called.
    pub mode: Option<ToolMode>,
    /// Of `allowed_tools`: the functions.
    pub tools: Option<Vec<AllowedTool>>,
}

/// A function's name.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct AllowedTool {
    /// `function` is supported.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub name: Option<String>,
}

impl ToolChoice {
    /// As it was sent.
    pub fn echo(&self) -> Value {
        match self {
            Self::Mode(mode) => json!(word(*mode)),
            Self::Chosen(chosen) => match &chosen.tools {
                Some(tools) => json!({
                    "type": chosen.kind,
                    "mode": word(chosen.mode.unwrap_or(ToolMode::Auto)),
                    "tools": tools,
                }),
                None => json!({"type": chosen.kind, "name": chosen.name}),
            },
        }
    }
}

fn word(mode: ToolMode) -> &'static str {
    match mode {
        ToolMode::Auto => "auto",
        ToolMode::None => "none",
        ToolMode::Required => "required",
    }
}

/// What the text of the answer must look like.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct TextOptions {
    /// Its format; left out, it is free.
    pub format: Option<Format>,
}

/// A format of text.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", expecting = "an object")]
pub enum Format {
    /// Anything.
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that fits a schema.
    JsonSchema {
        /// A name for the schema.
        #[serde(default)]
        name: Option<String>,
        /// What it is for.
        #[serde(default)]
        description: Option<String>,
        /// The schema.
        #[schema(value_type = Object)]
        schema: Value,
        /// Means nothing here: every schema is enforced.
        #[serde(default)]
        strict: Option<bool>,
    },
}

/// How much a model that reasons may do so.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct ReasoningOptions {
    /// `none` not at all, `high` without limit.
    pub effort: Option<ReasoningEffort>,
    /// Whether the thoughts also come as a summary; they are not shortened.
    #[serde(alias = "generate_summary")]
    pub summary: Option<Summary>,
}

/// How long a summary is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Summary {
    /// As the server likes.
    Auto,
    /// Short.
    Concise,
    /// Long.
    Detailed,
}

/// What happens to a prompt that is too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Truncation {
    /// The oldest turns are left out: not supported, refused.
    Auto,
    /// It is an error.
    #[default]
    Disabled,
}

impl ResponsesRequest {
    /// Refuses what cannot be honoured.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.background == Some(true) {
            return Err(ApiError::unsupported(
                "background",
                "background answers are not supported; stream the answer, or wait for it",
            ));
        }
        if self.prompt.is_some() {
            return Err(ApiError::unsupported(
                "prompt",
                "stored prompts are not supported; send instructions and input",
            ));
        }
        if self.truncation == Some(Truncation::Auto) {
            return Err(ApiError::unsupported(
                "truncation",
                "truncation must be `disabled`: nothing is left out of a prompt here; send less of the conversation",
            ));
        }
        if self.previous_response_id.is_some() && self.conversation.is_some() {
            return Err(ApiError::invalid(
                Some("previous_response_id".into()),
                "give either previous_response_id or conversation, not both",
            ));
        }
        for (at, name) in self.include.iter().flatten().enumerate() {
            if !INCLUDABLE.contains(&name.as_str()) {
                let param = format!("include[{at}]");
                let known = INCLUDABLE.join("`, `");
                let message = format!("{param} is unknown; there are `{known}`");
                return Err(ApiError::invalid(Some(param), message));
            }
        }
        for (at, tool) in self.tools.iter().flatten().enumerate() {
            only_functions(&tool.kind, &format!("tools[{at}]"))?;
            if tool.name.is_none() {
                let param = format!("tools[{at}].name");
                let message = format!(
                    "{param} is missing; on this route the fields of a function stand beside its type"
                );
                return Err(ApiError::invalid(Some(param), message));
            }
        }
        if let Some(ToolChoice::Chosen(chosen)) = &self.tool_choice {
            chosen.check()?;
        }
        check_metadata(self.metadata.as_ref())
    }

    /// Whether log probabilities are asked for: how many alternatives.
    pub fn logprobs(&self) -> Option<u8> {
        let included = self.include.iter().flatten().any(|name| name == LOGPROBS);
        let some = self.top_logprobs.is_some_and(|top| top > 0);
        (included || some).then(|| self.top_logprobs.unwrap_or(0))
    }

    /// The format of the text.
    pub fn format(&self) -> Format {
        let format = self.text.as_ref().and_then(|text| text.format.clone());
        format.unwrap_or(Format::Text)
    }
}

impl ChosenTool {
    fn check(&self) -> Result<(), ApiError> {
        let missing = |param: String| {
            let message = format!("{param} is missing");
            ApiError::invalid(Some(param), message)
        };
        if self.kind != "allowed_tools" {
            only_functions(&self.kind, "tool_choice")?;
            return match self.name {
                Some(_) => Ok(()),
                None => Err(missing("tool_choice.name".into())),
            };
        }
        let Some(tools) = &self.tools else {
            return Err(missing("tool_choice.tools".into()));
        };
        for (at, tool) in tools.iter().enumerate() {
            only_functions(&tool.kind, &format!("tool_choice.tools[{at}]"))?;
            if tool.name.is_none() {
                return Err(missing(format!("tool_choice.tools[{at}].name")));
            }
        }
        Ok(())
    }
}

fn only_functions(kind: &str, place: &str) -> Result<(), ApiError> {
    if kind == "function" {
        return Ok(());
    }
    Err(ApiError::unsupported(
        &format!("{place}.type"),
        format!(
            "{place}: tools of type `{kind}` are not supported, this node runs none itself; send a `function`"
        ),
    ))
}

/// Refuses metadata that is larger than OpenAI takes.
pub fn check_metadata(metadata: Option<&Metadata>) -> Result<(), ApiError> {
    let Some(metadata) = metadata else {
        return Ok(());
    };
    let invalid = |param: String, message| Err(ApiError::invalid(Some(param), message));
    if metadata.len() > MOST_PAIRS {
        let message = format!(
            "metadata has {} pairs; at most {MOST_PAIRS} are kept",
            metadata.len()
        );
        return invalid("metadata".into(), message);
    }
    for (name, text) in metadata {
        if name.chars().count() > LONGEST_NAME {
            let message = format!("a name in metadata is longer than {LONGEST_NAME} characters");
            return invalid("metadata".into(), message);
        }
        if text.chars().count() > LONGEST_TEXT {
            let param = format!("metadata.{name}");
            let message = format!("{param} is longer than {LONGEST_TEXT} characters");
            return invalid(param, message);
        }
    }
    Ok(())
}
