//! A conversation to continue: its messages, the tools the model may call, and how much it may reason.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::EngineError;

/// A conversation, rendered with the model's own template.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Chat {
    /// Messages in OpenAI's shape, oldest first: `role` (`system`, `user`, `assistant`, `tool`), `content`; of an
    /// assistant also `reasoning_content` and `tool_calls` (whose `arguments` are JSON text); of a tool's result
    /// `tool_call_id`.
    pub messages: Vec<Value>,
    /// What the model may call.
    pub tools: Tools,
    /// How much the model may reason before it answers.
    pub reasoning: Reasoning,
    /// Extra variables for the template (`enable_thinking`, …).
    pub variables: Map<String, Value>,
    /// Text that the answer begins with: the model goes on after it, without reasoning. Empty for none.
    pub prefill: String,
}

impl Chat {
    /// A conversation without tools.
    pub fn new(messages: Vec<Value>) -> Self {
        Self {
            messages,
            ..Self::default()
        }
    }
}

/// The tools of a request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tools {
    /// The tools; empty for none.
    pub definitions: Vec<Tool>,
    /// Whether the model must call one.
    pub choice: ToolChoice,
    /// Whether one answer may hold one call only.
    pub single: bool,
}

/// A function that the model may call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// 1 to 128 characters without blanks, quotes, angle brackets and backslashes; unique in a request.
    pub name: String,
    /// What it does, for the model.
    pub description: Option<String>,
    /// JSON Schema of its arguments, an object; `None` takes none.
    pub parameters: Option<Value>,
    /// Whether a schema that cannot be enforced is an error. If not, any JSON object may be its arguments then.
    pub strict: bool,
}

/// Whether the model must call a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// As it likes.
    #[default]
    Auto,
    /// It must not; the tools are not shown to it.
    None,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}

/// How much a model may reason before it answers. Means nothing for models that do not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reasoning {
    /// Whether to reason at all; `None` is as the template has it.
    pub enabled: Option<bool>,
    /// Most tokens of reasoning; then it is closed and the answer begins.
    pub budget: Option<u32>,
}

/// Most tools of a request.
const MOST_TOOLS: usize = 1024;
/// Longest name of a tool, in bytes.
const LONGEST_NAME: usize = 128;

impl Tools {
    /// Refuses names that cannot be told apart in an answer, and a choice that is not there.
    pub fn check(&self) -> Result<(), EngineError> {
        let invalid = |field, message| Err(EngineError::Invalid { field, message });
        if self.definitions.len() > MOST_TOOLS {
            return invalid(
                "tools",
                format!(
                    "tools holds {}, and a request may hold {MOST_TOOLS}; send those that are needed",
                    self.definitions.len()
                ),
            );
        }
        let mut names = HashSet::new();
        for (at, tool) in self.definitions.iter().enumerate() {
            let odd = |c: char| c.is_whitespace() || c.is_control() || "\"\\<>{}".contains(c);
            if tool.name.is_empty() || tool.name.len() > LONGEST_NAME || tool.name.contains(odd) {
                return invalid(
                    "tools",
                    format!(
                        "tools[{at}]: the name `{}` must have 1 to {LONGEST_NAME} characters, none of them a blank, quote, bracket or backslash",
                        tool.name.chars().take(80).collect::<String>()
                    ),
                );
            }
            if !names.insert(tool.name.as_str()) {
                return invalid(
                    "tools",
                    format!("tools[{at}]: the name `{}` is taken already", tool.name),
                );
            }
            if let Some(parameters) = &tool.parameters
                && !parameters.is_object()
            {
                return invalid(
                    "tools",
                    format!("tools[{at}]: parameters must be a JSON Schema, an object"),
                );
            }
        }
        match &self.choice {
            ToolChoice::Required if self.definitions.is_empty() => invalid(
                "tool_choice",
                "tool_choice asks for a call, but there are no tools".into(),
            ),
            ToolChoice::Named(name) if !self.definitions.iter().any(|tool| tool.name == *name) => {
                invalid(
                    "tool_choice",
                    format!("tool_choice names `{name}`, which is not among the tools"),
                )
            }
            _ => Ok(()),
        }
    }

    /// The tools that the model may call: none, one, or all.
    pub(crate) fn callable(&self) -> &[Tool] {
        match &self.choice {
            ToolChoice::None => &[],
            ToolChoice::Named(name) => {
                let at = self.definitions.iter().position(|tool| tool.name == *name);
                at.map_or(&[], |at| &self.definitions[at..=at])
            }
            ToolChoice::Auto | ToolChoice::Required => &self.definitions,
        }
    }
}
