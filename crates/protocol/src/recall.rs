//! The field `hearth` of a chat request, by which it asks for memory, and of the answer, which names what was used.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;

/// Most memories that a prompt gets when nobody says.
pub const USUAL_RECALLED: usize = 5;

/// What a request asks of Hearth beside what its API knows. A field that is not known is refused: it would be missed
/// silently.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(as = HearthRequest)]
pub struct Extension {
    /// Memories for the prompt, found with the last user message: `true` for the usual ones, or which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Wish>,
    /// Whether an answer that breaks off on one machine goes on from there on another one. For `temperature` 0 alone:
    /// only then is it the same answer.
    #[serde(
        default,
        rename = "continue",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub goes_on: bool,
}

impl Extension {
    /// Which memories are wanted, if any are.
    pub fn recall(&self) -> Option<Recall> {
        match &self.memory {
            None | Some(Wish::Switch(false)) => None,
            Some(Wish::Switch(true)) => Some(Recall::default()),
            Some(Wish::Chosen(recall)) => Some(recall.clone()),
        }
    }
}

/// The field `memory` where `hearth` should be: no API knows it, and it would be missed silently. There is no value of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misplaced {}

impl<'de> Deserialize<'de> for Misplaced {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // To its end, so that the body counts as well formed.
        IgnoredAny::deserialize(deserializer)?;
        Err(D::Error::custom(
            "memories are asked for within `hearth`: {\"hearth\": {\"memory\": …}}",
        ))
    }
}

/// Refuses to go on elsewhere on a route that answers no chat.
pub(crate) fn goes_nowhere(extension: Option<&Extension>) -> Result<(), ApiError> {
    match extension.is_some_and(|extension| extension.goes_on) {
        false => Ok(()),
        true => Err(ApiError::unsupported(
            "hearth.continue",
            "hearth.continue is for chats; leave it out, or use /v1/chat/completions",
        )),
    }
}

/// Refuses memories for an embedding.
pub(crate) fn embeds_none(extension: Option<&Extension>) -> Result<(), ApiError> {
    goes_nowhere(extension)?;
    match extension.and_then(Extension::recall) {
        None => Ok(()),
        Some(_) => Err(ApiError::unsupported(
            "hearth.memory",
            "hearth.memory means nothing to an embedding; use a chat route, or POST /memory/search to find memories",
        )),
    }
}

/// Whether memories are wanted, and which.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = HearthMemory)]
pub enum Wish {
    /// The usual ones, or none.
    Switch(bool),
    /// These.
    Chosen(Recall),
}

// Not `untagged`: that loses the path of a wrong field.
impl<'de> Deserialize<'de> for Wish {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Wish;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("true, false or an object")
            }

            fn visit_bool<E>(self, wanted: bool) -> Result<Wish, E> {
                Ok(Wish::Switch(wanted))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Wish, A::Error> {
                Recall::deserialize(MapAccessDeserializer::new(map)).map(Wish::Chosen)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Which memories a prompt gets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(as = HearthRecall)]
pub struct Recall {
    /// Only this project's and those of every project; without one, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Most memories, 1 to 100; 5 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Only memories as sure as this, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_confidence: Option<f32>,
}

/// What an answer says beside what its API knows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = HearthAnswer)]
pub struct Used {
    /// The memories that were in the prompt.
    pub memory: Recalled,
}

/// The memories that a prompt got.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = HearthRecalled)]
pub struct Recalled {
    /// In the order of the prompt, the best first; empty if none fitted, and then the prompt is as it was.
    pub used: Vec<Citation>,
    /// Memories that were found and had no room in the prompt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: usize,
    /// Why meaning was not searched, when words alone were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words_only: Option<String>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A memory that a prompt got. Of a stored answer only `id` is kept: a memory that is forgotten leaves nothing behind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = HearthCitation)]
pub struct Citation {
    /// Its id.
    pub id: String,
    /// As much of its text as the prompt got.
    #[serde(default)]
    pub text: String,
    /// Whether that is not all of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// How well it fits, larger is better; comparable within one answer.
    #[serde(default)]
    pub score: f32,
    /// Whose it is; `null` belongs to every project.
    pub project: Option<String>,
    /// What it is.
    #[serde(default)]
    pub kind: String,
    /// Where it comes from.
    pub source: Option<String>,
}
