//! What a request may ask of an answer's text; [`grammar`](crate::grammar) enforces it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the answer must look like. What cannot be enforced is an error, never a free generation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// Anything.
    #[default]
    None,
    /// Any JSON object.
    JsonObject,
    /// JSON that fits this schema.
    JsonSchema(Value),
    /// A GBNF grammar with a `root` rule, as llama.cpp takes it.
    Gbnf(String),
    /// A Lark grammar as llguidance takes it.
    Lark(String),
    /// A regular expression that the whole answer matches.
    Regex(String),
}
