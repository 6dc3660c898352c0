//! Tools in OpenAI's shape, which Ollama's requests have too, as the engine takes them.

use hearth_engine::{Tool, ToolChoice, Tools};
use hearth_protocol::error::ApiError;
use hearth_protocol::tool::{self, ToolDefinition, ToolMode};

/// The tools of a request; `single` if one answer may hold one call only.
pub(crate) fn tools(
    definitions: Option<&[ToolDefinition]>,
    choice: Option<&tool::ToolChoice>,
    single: bool,
) -> Result<Tools, ApiError> {
    let definitions = definitions.unwrap_or_default().iter().enumerate();
    let definitions = definitions.map(|(at, tool)| {
        let function = tool.function(&format!("tools[{at}]"))?;
        Ok(Tool {
            name: function.name.clone(),
            description: function.description.clone(),
            parameters: function.parameters.clone(),
            strict: function.strict == Some(true),
        })
    });
    Ok(Tools {
        definitions: definitions.collect::<Result<_, ApiError>>()?,
        choice: match choice {
            None | Some(tool::ToolChoice::Mode(ToolMode::Auto)) => ToolChoice::Auto,
            Some(tool::ToolChoice::Mode(ToolMode::None)) => ToolChoice::None,
            Some(tool::ToolChoice::Mode(ToolMode::Required)) => ToolChoice::Required,
            Some(tool::ToolChoice::Named(named)) => ToolChoice::Named(named.function.name.clone()),
        },
        single,
    })
}
