//! Items of a conversation: as clients send them, and as they are kept.

use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::chat::TokenLogProb;
use crate::error::ApiError;
use crate::tool;

/// An item as it is kept and given back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Item {
    /// Something said.
    Message {
        /// `msg_…`
        id: String,
        /// How far it is.
        status: ItemStatus,
        /// Who speaks.
        role: Role,
        /// What is said.
        content: Vec<ContentPart>,
    },
    /// The model calls a function.
    FunctionCall {
        /// `fc_…`
        id: String,
        /// How far it is.
        status: ItemStatus,
        /// What the result names.
        call_id: String,
        /// The function's name.
        name: String,
        /// Its arguments: JSON text.
        arguments: String,
    },
    /// What a function returned.
    FunctionCallOutput {
        /// `fco_…`
        id: String,
        /// Always `completed`.
        status: ItemStatus,
        /// The call.
        call_id: String,
        /// The result, as text.
        output: String,
    },
    /// What the model thought before it answered.
    Reasoning {
        /// `rs_…`
        id: String,
        /// How far it is.
        status: ItemStatus,
        /// The thoughts again, if a summary was asked for.
        summary: Vec<ContentPart>,
        /// The thoughts.
        content: Vec<ContentPart>,
        /// Always null: nothing is hidden here.
        #[serde(default)]
        encrypted_content: Option<String>,
    },
}

impl Item {
    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Self::Message { id, .. }
            | Self::FunctionCall { id, .. }
            | Self::FunctionCallOutput { id, .. }
            | Self::Reasoning { id, .. } => id,
        }
    }

    /// The same item under another id.
    pub fn set_id(&mut self, new: String) {
        match self {
            Self::Message { id, .. }
            | Self::FunctionCall { id, .. }
            | Self::FunctionCallOutput { id, .. }
            | Self::Reasoning { id, .. } => *id = new,
        }
    }

    /// What an id of such an item begins with.
    pub fn prefix(&self) -> &'static str {
        match self {
            Self::Message { .. } => "msg",
            Self::FunctionCall { .. } => "fc",
            Self::FunctionCallOutput { .. } => "fco",
            Self::Reasoning { .. } => "rs",
        }
    }
}

/// How far an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ItemStatus {
    /// The model is at it.
    InProgress,
    /// It is complete.
    Completed,
    /// It was cut.
    Incomplete,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ItemRole)]
pub enum Role {
    /// The person.
    User,
    /// The model.
    Assistant,
    /// Instructions.
    System,
    /// Instructions too.
    Developer,
}

/// A part of an item as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContentPart {
    /// What was said to the model.
    InputText {
        /// The text.
        text: String,
    },
    /// What the model said.
    OutputText {
        /// The text.
        text: String,
        /// Always empty here.
        #[serde(default)]
        #[schema(value_type = Vec<Object>)]
        annotations: Vec<serde_json::Value>,
        /// Log probabilities, if asked for.
        #[serde(default)]
        logprobs: Vec<TokenLogProb>,
    },
    /// What the model thought.
    ReasoningText {
        /// The text.
        text: String,
    },
    /// What the model thought, as a summary.
    SummaryText {
        /// The text.
        text: String,
    },
}

impl ContentPart {
    /// What the model said, without probabilities.
    pub fn output(text: String) -> Self {
        Self::OutputText {
            text,
            annotations: Vec::new(),
            logprobs: Vec::new(),
        }
    }

    /// Its text.
    pub fn text(&self) -> &str {
        match self {
            Self::InputText { text }
            | Self::OutputText { text, .. }
            | Self::ReasoningText { text }
            | Self::SummaryText { text } => text,
        }
    }
}

/// What a client asks: text, or items.
#[derive(Debug, Clone, ToSchema)]
#[serde(untagged)]
pub enum Items {
    /// One message of the user.
    Text(String),
    /// Items, oldest first.
    List(Vec<InputItem>),
}

/// What an item says: text, or parts of it.
#[derive(Debug, Clone, ToSchema)]
#[serde(untagged)]
#[schema(as = ItemContent)]
pub enum Content {
    /// Text.
    Text(String),
    /// Parts.
    Parts(Vec<InputPart>),
}

/// Reads a string or an array. Not derived: an untagged enum loses the path of what is wrong inside.
macro_rules! text_or_list {
    ($name:ident, $list:ident, $expecting:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Either;
                impl<'de> Visitor<'de> for Either {
                    type Value = $name;

                    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                        formatter.write_str($expecting)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        Ok($name::Text(text.to_owned()))
                    }

                    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<$name, A::Error> {
                        Deserialize::deserialize(SeqAccessDeserializer::new(list)).map($name::$list)
                    }
                }
                deserializer.deserialize_any(Either)
            }
        }
    };
}

text_or_list!(Items, List, "a string or an array of items");
text_or_list!(Content, Parts, "a string or an array of content parts");

/// One part of what an item says.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct InputPart {
    /// `input_text`, `output_text`, and in reasoning `reasoning_text` and `summary_text`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    pub text: Option<String>,
    /// The text of a part of type `refusal`.
    pub refusal: Option<String>,
}

/// An item as a client sends it; which fields it needs depends on its type.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct InputItem {
    /// `message`, `function_call`, `function_call_output`, `reasoning` or `item_reference`; a message may leave it out.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its id, if it has one.
    pub id: Option<String>,
    /// How far it is; left out, it is complete.
    pub status: Option<ItemStatus>,
    /// Of a message: who speaks.
    pub role: Option<Role>,
    /// Of a message: what is said. Of reasoning: the thoughts.
    pub content: Option<Content>,
    /// Of a call and its output: what connects them.
    pub call_id: Option<String>,
    /// Of a call: the function.
    pub name: Option<String>,
    /// Of a call: the arguments as JSON text.
    pub arguments: Option<String>,
    /// Of a call's output: the result.
    pub output: Option<Content>,
    /// Of reasoning: its summary.
    pub summary: Option<Vec<InputPart>>,
}

/// What a client's item turns out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// An item.
    Item(Item),
    /// The id of one that is stored.
    Reference(String),
}

impl InputItem {
    /// Completes the item, or says what is wrong with it. `place` is its path in the request; `fresh` makes an id that
    /// begins with a prefix.
    pub fn read(self, place: &str, fresh: &dyn Fn(&str) -> String) -> Result<Given, ApiError> {
        let missing = |field: &str| {
            let param = format!("{place}.{field}");
            let message = format!("{param} is missing");
            ApiError::invalid(Some(param), message)
        };
        let kind = match (&self.kind, self.role, &self.id) {
            (Some(kind), ..) => kind.as_str(),
            (None, Some(_), _) => "message",
            (None, None, Some(_)) => "item_reference",
            (None, None, None) => return Err(missing("type")),
        };
        if let Some(id) = &self.id
            && !crate::id::is_sane(id)
        {
            let param = format!("{place}.id");
            let message = format!("{param} must have 1 to 128 visible ASCII characters");
            return Err(ApiError::invalid(Some(param), message));
        }
        let id = |prefix: &str| self.id.clone().unwrap_or_else(|| fresh(prefix));
        let status = self.status.unwrap_or(ItemStatus::Completed);
        let item = match kind {
            "message" => {
                let role = self.role.ok_or_else(|| missing("role"))?;
                let content = self.content.ok_or_else(|| missing("content"))?;
                let texts = content.texts(&format!("{place}.content"), &MESSAGE_PARTS)?;
                let part = |text| match role {
                    Role::Assistant => ContentPart::output(text),
                    _ => ContentPart::InputText { text },
                };
                Item::Message {
                    id: id("msg"),
                    status,
                    role,
                    content: texts.into_iter().map(part).collect(),
                }
            }
            "function_call" => {
                let arguments = self.arguments.ok_or_else(|| missing("arguments"))?;
                if tool::whole_arguments(&arguments).is_none() {
                    return Err(tool::no_arguments(format!("{place}.arguments")));
                }
                Item::FunctionCall {
                    id: id("fc"),
                    status,
                    call_id: self.call_id.ok_or_else(|| missing("call_id"))?,
                    name: self.name.ok_or_else(|| missing("name"))?,
                    arguments,
                }
            }
            "function_call_output" => {
                let output = self.output.ok_or_else(|| missing("output"))?;
                Item::FunctionCallOutput {
                    id: id("fco"),
                    status,
                    call_id: self.call_id.ok_or_else(|| missing("call_id"))?,
                    output: output
                        .texts(&format!("{place}.output"), &MESSAGE_PARTS)?
                        .join("\n"),
                }
            }
            "reasoning" => {
                let summary = Content::Parts(self.summary.unwrap_or_default());
                let summary = summary.texts(&format!("{place}.summary"), &REASONING_PARTS)?;
                let content = self.content.unwrap_or(Content::Parts(Vec::new()));
                let content = content.texts(&format!("{place}.content"), &REASONING_PARTS)?;
                let summary = summary
                    .into_iter()
                    .map(|text| ContentPart::SummaryText { text });
                let content = content
                    .into_iter()
                    .map(|text| ContentPart::ReasoningText { text });
                Item::Reasoning {
                    id: id("rs"),
                    status,
                    summary: summary.collect(),
                    content: content.collect(),
                    encrypted_content: None,
                }
            }
            "item_reference" => {
                return Ok(Given::Reference(self.id.ok_or_else(|| missing("id"))?));
            }
            other => {
                return Err(ApiError::unsupported(
                    &format!("{place}.type"),
                    format!("{place}: items of type `{other}` are not supported"),
                ));
            }
        };
        Ok(Given::Item(item))
    }
}

/// Parts of what is said.
const MESSAGE_PARTS: [&str; 4] = ["input_text", "output_text", "text", "refusal"];
/// Parts of what is thought.
const REASONING_PARTS: [&str; 2] = ["reasoning_text", "summary_text"];

impl Content {
    /// The text of each part; `place` is its path, `kinds` are the types it may have.
    fn texts(self, place: &str, kinds: &[&str]) -> Result<Vec<String>, ApiError> {
        let parts = match self {
            Self::Text(text) => return Ok(vec![text]),
            Self::Parts(parts) => parts,
        };
        let each = parts.into_iter().enumerate().map(|(at, part)| {
            if !kinds.contains(&part.kind.as_str()) {
                return Err(ApiError::unsupported(
                    &format!("{place}[{at}].type"),
                    format!(
                        "{place}[{at}]: parts of type `{}` are not supported here; send {}",
                        part.kind, kinds[0]
                    ),
                ));
            }
            part.text.or(part.refusal).ok_or_else(|| {
                let param = format!("{place}[{at}].text");
                let message = format!("{param} is missing");
                ApiError::invalid(Some(param), message)
            })
        });
        each.collect()
    }
}
