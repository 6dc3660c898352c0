//! `POST /v1/embeddings`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::recall::{Extension, embeds_none};

/// Most texts in one request, as OpenAI has it.
pub const MOST_INPUTS: usize = 2048;

/// The body of a request for embeddings.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct EmbeddingRequest {
    /// What to embed: 1 to 2048 texts.
    pub input: EmbeddingInput,
    /// Name of the model; left out, the default model answers if it embeds, else the first one that does.
    pub model: Option<String>,
    /// How the vectors are written.
    pub encoding_format: Option<EncodingFormat>,
    /// Elements to keep of each vector, 1 to the model's own number.
    pub dimensions: Option<u32>,
    /// Not supported: refused where it asks for memories.
    pub hearth: Option<Extension>,
}

/// Text or token ids, one or several.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a string, an array of strings, or arrays of token ids"
)]
pub enum EmbeddingInput {
    /// One text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// One text as token ids of the model's own vocabulary.
    Tokens(Vec<i32>),
    /// Several texts as token ids.
    ManyTokens(Vec<Vec<i32>>),
}

/// How a vector is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodingFormat {
    /// An array of numbers.
    #[default]
    Float,
    /// The bytes of little-endian 32-bit floats, as Base64.
    Base64,
}

impl EmbeddingInput {
    /// Texts in it; `None` for a single one that stands without an array around it.
    pub fn count(&self) -> Option<usize> {
        match self {
            Self::Text(_) | Self::Tokens(_) => None,
            Self::Texts(texts) => Some(texts.len()),
            Self::ManyTokens(many) => Some(many.len()),
        }
    }
}

impl EmbeddingRequest {
    /// Refuses what cannot be honoured.
    pub fn check(&self) -> Result<(), ApiError> {
        let count = self.input.count().unwrap_or(1);
        if !(1..=MOST_INPUTS).contains(&count) {
            return Err(ApiError::invalid(
                Some("input".into()),
                format!(
                    "input takes 1 to {MOST_INPUTS} texts, not {count}; divide them over several requests"
                ),
            ));
        }
        embeds_none(self.hearth.as_ref())
    }
}

/// The vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EmbeddingList {
    /// Always `list`.
    pub object: String,
    /// One for each text, in their order.
    pub data: Vec<Embedding>,
    /// The model that answered.
    pub model: String,
    /// Tokens used.
    pub usage: EmbeddingUsage,
}

/// One text's vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Embedding {
    /// Always `embedding`.
    pub object: String,
    /// Place of the text in the request, from 0.
    pub index: u32,
    /// The vector, of length (L2 norm) 1.
    pub embedding: Vector,
}

/// A vector in either format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Vector {
    /// An array of numbers.
    Float(Vec<f32>),
    /// The bytes of little-endian 32-bit floats, as Base64.
    Base64(String),
}

/// Tokens used; nothing is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EmbeddingUsage {
    /// Tokens of all texts.
    pub prompt_tokens: u32,
    /// The same.
    pub total_tokens: u32,
}
