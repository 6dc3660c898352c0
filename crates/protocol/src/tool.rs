//! Tools in OpenAI's shape: what a model may call, and its calls.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::ApiError;

/// A tool that the model may call.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct ToolDefinition {
    /// `function` is supported.
    #[serde(rename = "type")]
    pub kind: String,
    /// The function.
    pub function: Option<FunctionDefinition>,
}

/// A function that the model may call.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct FunctionDefinition {
    /// Its name.
    pub name: String,
    /// What it does, for the model.
    pub description: Option<String>,
    /// JSON Schema of its arguments; left out, it takes none.
    #[schema(value_type = Option<Object>)]
    pub parameters: Option<Value>,
    /// Whether a schema that cannot be enforced is an error.
    pub strict: Option<bool>,
}

impl ToolDefinition {
    /// The function, or why there is none; `place` is the tool's path in the request.
    pub fn function(&self, place: &str) -> Result<&FunctionDefinition, ApiError> {
        if self.kind != "function" {
            return Err(ApiError::unsupported(
                &format!("{place}.type"),
                format!(
                    "{place}: tools of type `{}` are not supported; use `function`",
                    self.kind
                ),
            ));
        }
        self.function.as_ref().ok_or_else(|| {
            let param = format!("{place}.function");
            let message = format!("{param} is missing");
            ApiError::invalid(Some(param), message)
        })
    }
}

/// Whether the model must call a tool.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected `auto`, `none`, `required` or an object that names a function"
)]
pub enum ToolChoice {
    /// `auto`, `none` or `required`.
    Mode(ToolMode),
    /// This function.
    Named(NamedTool),
}

/// How free the model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ToolMode {
    /// It may call.
    Auto,
    /// It may not.
    None,
    /// It must call.
    #[serde(alias = "any")]
    Required,
}

/// One function that must be called.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct NamedTool {
    /// Always `function`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The function.
    pub function: NamedFunction,
}

/// A function's name.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct NamedFunction {
    /// Its name.
    pub name: String,
}

/// A call that the model made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct ToolCall {
    /// Its id, which the result repeats.
    pub id: String,
    /// Always `function`.
    #[serde(rename = "type", default = "function")]
    pub kind: String,
    /// What is called.
    pub function: FunctionCall,
}

fn function() -> String {
    "function".into()
}

/// What is called, and with what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct FunctionCall {
    /// The function's name.
    pub name: String,
    /// Its arguments: JSON text.
    pub arguments: String,
}

impl ToolCall {
    /// A call of a function.
    pub fn new(id: String, name: String, arguments: String) -> Self {
        Self {
            id,
            kind: function(),
            function: FunctionCall { name, arguments },
        }
    }
}
