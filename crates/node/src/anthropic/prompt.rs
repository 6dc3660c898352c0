//! From Anthropic's request to the engine's: messages of blocks become messages in OpenAI's shape.

use hearth_engine::{Chat, Constraint, Prompt, Reasoning, Request, Sampling, Tool, Tools};
use hearth_protocol::anthropic::{
    Block, Content, InputMessage, MessagesRequest, OutputFormat, Role, ThinkingMode, ToolChoice,
    ToolDefinition, ToolMode,
};
use hearth_protocol::error::ApiError;
use hearth_protocol::tool::ToolCall;
use serde_json::{Map, Value, json};

/// Claude Code begins its instructions with this line, in which a number changes with every request. It is meant for
/// Anthropic's accounts and not for the model; left in, no prompt would ever begin like one in the cache.
const ACCOUNTING: &str = "x-anthropic-billing-header:";

/// What the engine is asked for.
pub(super) fn engine_request(request: &MessagesRequest) -> Result<Request, ApiError> {
    request.check()?;
    let (messages, prefill) = conversation(request)?;
    let reasoning = reasoning(request);
    let prompt = Prompt::Chat(Chat {
        messages,
        tools: tools(request)?,
        reasoning,
        variables: variables(request),
        prefill,
    });
    let format = request
        .output_config
        .as_ref()
        .and_then(|config| config.format.as_ref())
        .or(request.output_format.as_ref());
    Ok(Request {
        sampling: Sampling {
            temperature: request.temperature,
            top_p: request.top_p,
            top_k: request.top_k,
            ..Sampling::default()
        },
        constraint: match format {
            Some(OutputFormat::JsonSchema { schema }) => Constraint::JsonSchema(schema.clone()),
            None => Constraint::None,
        },
        max_tokens: request.max_tokens,
        stop: request.stop_sequences.clone().unwrap_or_default(),
        ..Request::new(prompt)
    })
}

fn reasoning(request: &MessagesRequest) -> Reasoning {
    let Some(thinking) = request.thinking else {
        return Reasoning {
            enabled: Some(false),
            budget: None,
        };
    };
    let effort = request
        .output_config
        .as_ref()
        .and_then(|config| config.effort);
    let adaptive = Reasoning {
        enabled: Some(true),
        budget: effort.and_then(|effort| effort.budget()),
    };
    match thinking.kind {
        ThinkingMode::Adaptive => adaptive,
        ThinkingMode::BetweenTools if ends_in_results(&request.messages) => adaptive,
        ThinkingMode::Enabled => Reasoning {
            enabled: Some(true),
            budget: thinking.budget_tokens,
        },
        ThinkingMode::Disabled | ThinkingMode::BetweenTools => Reasoning {
            enabled: Some(false),
            budget: None,
        },
    }
}

fn ends_in_results(messages: &[InputMessage]) -> bool {
    matches!(
        messages.last().map(|message| &message.content),
        Some(Content::Blocks(blocks)) if blocks.iter().any(|block| block.kind == "tool_result")
    )
}

/// Variables for the template; some models read the effort itself.
fn variables(request: &MessagesRequest) -> Map<String, Value> {
    let effort = request
        .output_config
        .as_ref()
        .and_then(|config| config.effort);
    let effort = effort.map(|effort| ("reasoning_effort".to_owned(), json!(effort)));
    effort.into_iter().collect()
}

fn tools(request: &MessagesRequest) -> Result<Tools, ApiError> {
    let definitions = request.tools.iter().flatten().enumerate();
    let definitions = definitions.map(|(at, tool)| custom(tool, &format!("tools[{at}]")));
    let choice = request.tool_choice.as_ref();
    Ok(Tools {
        definitions: definitions.collect::<Result<_, _>>()?,
        choice: choice.map_or(Ok(hearth_engine::ToolChoice::Auto), chosen)?,
        single: choice.is_some_and(|choice| choice.disable_parallel_tool_use == Some(true)),
    })
}

fn custom(tool: &ToolDefinition, place: &str) -> Result<Tool, ApiError> {
    if let Some(kind) = tool.kind.as_deref().filter(|kind| *kind != "custom") {
        return Err(ApiError::unsupported(
            &format!("{place}.type"),
            format!(
                "{place}.type: the tool `{kind}` is Anthropic's own and is not here; describe a tool of yours by \
                 `name` and `input_schema`"
            ),
        ));
    }
    let name = required(&tool.name, place, "name")?;
    let schema = required(&tool.input_schema, place, "input_schema")?;
    Ok(Tool {
        name: name.clone(),
        description: tool.description.clone(),
        parameters: Some(schema.clone().into()),
        strict: tool.strict == Some(true),
    })
}

fn chosen(choice: &ToolChoice) -> Result<hearth_engine::ToolChoice, ApiError> {
    Ok(match choice.kind {
        ToolMode::Auto => hearth_engine::ToolChoice::Auto,
        ToolMode::Any => hearth_engine::ToolChoice::Required,
        ToolMode::None => hearth_engine::ToolChoice::None,
        ToolMode::Tool => {
            let name = required(&choice.name, "tool_choice", "name")?;
            hearth_engine::ToolChoice::Named(name.clone())
        }
    })
}

fn required<'a, T>(field: &'a Option<T>, place: &str, name: &str) -> Result<&'a T, ApiError> {
    field.as_ref().ok_or_else(|| {
        let param = format!("{place}.{name}");
        let message = format!("{param} is missing");
        ApiError::invalid(Some(param), message)
    })
}

/// The messages in OpenAI's shape, and the text that the answer begins with.
fn conversation(request: &MessagesRequest) -> Result<(Vec<Value>, String), ApiError> {
    let mut turns = Turns::default();
    if let Some(system) = &request.system {
        let said = texts(system, "system")?;
        let said = said.into_iter().map(without_accounting);
        turns.system(&said.collect::<Vec<_>>());
    }
    for (at, message) in request.messages.iter().enumerate() {
        turns.take(message, &format!("messages[{at}]"))?;
    }
    turns.end()
}

/// Messages as they come in, those of one role in a row as one.
#[derive(Default)]
struct Turns {
    messages: Vec<Value>,
    /// Ids and names of the tools that were called.
    called: Vec<(String, String)>,
    turn: Option<Turn>,
}

/// What one role says before another does.
struct Turn {
    role: Role,
    /// Where the last of it is in the request.
    place: String,
    texts: Vec<String>,
    thoughts: Vec<String>,
    calls: Vec<ToolCall>,
    /// Results of tools, as messages.
    results: Vec<Value>,
}

impl Turns {
    fn system(&mut self, said: &[&str]) {
        let text = joined(said);
        if !text.is_empty() {
            self.messages
                .push(json!({"role": "system", "content": text}));
        }
    }

    fn take(&mut self, message: &InputMessage, place: &str) -> Result<(), ApiError> {
        let role = message.role;
        if self.turn.as_ref().is_none_or(|turn| turn.role != role) {
            self.close();
        }
        let turn = self.turn.get_or_insert_with(|| Turn {
            role,
            place: String::new(),
            texts: Vec::new(),
            thoughts: Vec::new(),
            calls: Vec::new(),
            results: Vec::new(),
        });
        turn.place = place.to_owned();
        match &message.content {
            Content::Text(text) => turn.texts.push(text.clone()),
            Content::Blocks(blocks) => {
                for (at, block) in blocks.iter().enumerate() {
                    let place = format!("{place}.content[{at}]");
                    turn.block(block, &place, &mut self.called)?;
                }
            }
        }
        Ok(())
    }

    /// Ends a turn: results of tools first, for they belong to the calls before.
    fn close(&mut self) {
        let Some(turn) = self.turn.take() else {
            return;
        };
        self.messages.extend(turn.results);
        let text = joined(&turn.texts);
        match turn.role {
            Role::System => self.system(&[&text]),
            Role::User => {
                let said_nothing = text.is_empty() && self.messages.last().is_some_and(is_result);
                if !said_nothing {
                    self.messages.push(json!({"role": "user", "content": text}));
                }
            }
            Role::Assistant => {
                let mut message = json!({"role": "assistant", "content": text});
                if !turn.thoughts.is_empty() {
                    message["reasoning_content"] = joined(&turn.thoughts).into();
                }
                if !turn.calls.is_empty() {
                    message["tool_calls"] = json!(turn.calls);
                }
                self.messages.push(message);
            }
        }
    }

    fn end(mut self) -> Result<(Vec<Value>, String), ApiError> {
        let Some(last) = self.turn.take_if(|turn| turn.role == Role::Assistant) else {
            self.close();
            return Ok((self.messages, String::new()));
        };
        let wrong = |reason: String| {
            let message = format!("{}: {reason}", last.place);
            Err(ApiError::invalid(Some(last.place.clone()), message))
        };
        if let Some(call) = last.calls.first() {
            return wrong(format!(
                "the call `{}` has no result; add a user message with its tool_result",
                call.id
            ));
        }
        if !last.thoughts.is_empty() {
            return wrong("an answer that shall go on cannot hold thinking; send its text".into());
        }
        let text = joined(&last.texts);
        if text.ends_with(char::is_whitespace) {
            return wrong(
                "an answer that shall go on cannot end in a blank; leave the blank out".into(),
            );
        }
        if self.messages.is_empty() {
            return wrong("an answer that shall go on needs a user message before it".into());
        }
        Ok((self.messages, text))
    }
}

impl Turn {
    fn block(
        &mut self,
        block: &Block,
        place: &str,
        called: &mut Vec<(String, String)>,
    ) -> Result<(), ApiError> {
        match (block.kind.as_str(), self.role) {
            ("text", _) => self
                .texts
                .push(required(&block.text, place, "text")?.clone()),
            ("thinking", Role::Assistant) => {
                let thought = required(&block.thinking, place, "thinking")?;
                if !thought.is_empty() {
                    self.thoughts.push(thought.clone());
                }
            }
            // Nobody but its maker can read it.
            ("redacted_thinking", Role::Assistant) => {}
            ("tool_use", Role::Assistant) => {
                let id = required(&block.id, place, "id")?.clone();
                let name = required(&block.name, place, "name")?.clone();
                let input = required(&block.input, place, "input")?.clone();
                called.push((id.clone(), name.clone()));
                let arguments = Value::from(input).to_string();
                self.calls.push(ToolCall::new(id, name, arguments));
            }
            ("tool_result", Role::User) => {
                let id = required(&block.tool_use_id, place, "tool_use_id")?;
                let Some((_, name)) = called.iter().rev().find(|(known, _)| known == id) else {
                    let param = format!("{place}.tool_use_id");
                    let message = format!(
                        "{param}: there is no tool_use `{id}` before it; send the assistant message that called the tool"
                    );
                    return Err(ApiError::invalid(Some(param), message));
                };
                let said = match &block.content {
                    Some(content) => joined(&texts(content, &format!("{place}.content"))?),
                    None => String::new(),
                };
                let failed = block.is_error == Some(true);
                let text = if failed {
                    format!("Error: {said}")
                } else {
                    said
                };
                self.results.push(
                    json!({"role": "tool", "tool_call_id": id, "name": name, "content": text}),
                );
            }
            (kind @ ("thinking" | "redacted_thinking" | "tool_use" | "tool_result"), _) => {
                let param = format!("{place}.type");
                let whose = match kind {
                    "tool_result" => "a user",
                    _ => "an assistant",
                };
                let message =
                    format!("{param}: a block of type `{kind}` belongs into {whose} message");
                return Err(ApiError::invalid(Some(param), message));
            }
            (kind, _) => return Err(unsupported(kind, place)),
        }
        Ok(())
    }
}

/// The texts of a content that may hold nothing else.
fn texts<'a>(content: &'a Content, place: &str) -> Result<Vec<&'a str>, ApiError> {
    match content {
        Content::Text(text) => Ok(vec![text]),
        Content::Blocks(blocks) => blocks
            .iter()
            .enumerate()
            .map(|(at, block)| {
                let place = format!("{place}[{at}]");
                match block.kind.as_str() {
                    "text" => Ok(required(&block.text, &place, "text")?.as_str()),
                    kind => Err(unsupported(kind, &place)),
                }
            })
            .collect(),
    }
}

fn unsupported(kind: &str, place: &str) -> ApiError {
    let param = format!("{place}.type");
    let message = format!("{param}: blocks of type `{kind}` are not supported here; send text");
    ApiError::unsupported(&param, message)
}

/// Blocks are paragraphs.
fn joined(texts: &[impl AsRef<str>]) -> String {
    let texts = texts.iter().map(AsRef::as_ref);
    let said: Vec<&str> = texts.filter(|text| !text.is_empty()).collect();
    said.join("\n\n")
}

fn without_accounting(text: &str) -> &str {
    match text.strip_prefix(ACCOUNTING) {
        Some(line) => line.split_once('\n').map_or("", |(_, rest)| rest),
        None => text,
    }
}

fn is_result(message: &Value) -> bool {
    message["role"] == "tool"
}
