//! From items to the messages that chat templates know.
//!
//! A template knows one message for all that a model says in one go: what it thinks, says and calls. Items that follow
//! each other are put together so, and a conversation gives the same prompt here as on `/v1/chat/completions`.

use hearth_protocol::error::ApiError;
use hearth_protocol::responses::{ContentPart, Item, Role};
use serde_json::{Value, json};

/// What a model says in one go.
#[derive(Default)]
struct Spoken {
    reasoning: Option<String>,
    content: Option<String>,
    calls: Vec<Value>,
}

impl Spoken {
    fn flush(&mut self, messages: &mut Vec<Value>) {
        let Self {
            reasoning,
            content,
            calls,
        } = std::mem::take(self);
        // Reasoning that nothing came of says nothing to a template.
        if content.is_none() && calls.is_empty() {
            return;
        }
        let mut message = json!({"role": "assistant", "content": content});
        if let Some(reasoning) = reasoning {
            message["reasoning_content"] = reasoning.into();
        }
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        messages.push(message);
    }
}

/// The messages for what was said `before` and what is `asked` now, under `instructions`.
pub(super) fn messages(
    instructions: Option<&str>,
    before: &[Item],
    asked: &[Item],
) -> Result<Vec<Value>, ApiError> {
    let mut messages: Vec<Value> = Vec::new();
    if let Some(instructions) = instructions {
        messages.push(json!({"role": "system", "content": instructions}));
    }
    let mut spoken = Spoken::default();
    let mut calls: Vec<&str> = Vec::new();
    for (at, item) in before.iter().chain(asked).enumerate() {
        match item {
            Item::Message {
                role: Role::Assistant,
                content,
                ..
            } => {
                if spoken.content.is_some() || !spoken.calls.is_empty() {
                    spoken.flush(&mut messages);
                }
                spoken.content = Some(text(content));
            }
            Item::Reasoning {
                summary, content, ..
            } => {
                spoken.flush(&mut messages);
                let thoughts = match content.is_empty() {
                    true => text(summary),
                    false => text(content),
                };
                spoken.reasoning = Some(thoughts).filter(|thoughts| !thoughts.is_empty());
            }
            Item::FunctionCall {
                call_id,
                name,
                arguments,
                ..
            } => {
                calls.push(call_id);
                let function = json!({"name": name, "arguments": arguments});
                let call = json!({"id": call_id, "type": "function", "function": function});
                spoken.calls.push(call);
            }
            Item::FunctionCallOutput {
                call_id, output, ..
            } => {
                spoken.flush(&mut messages);
                // Items of a stored conversation may have been deleted; that was somebody's will.
                if let Some(at) = at.checked_sub(before.len())
                    && !calls.contains(&call_id.as_str())
                {
                    let param = format!("input[{at}].call_id");
                    let message = format!(
                        "{param}: no function_call before it has the id `{call_id}`; send the call too, or go on from the answer that made it"
                    );
                    return Err(ApiError::invalid(Some(param), message));
                }
                messages.push(json!({"role": "tool", "tool_call_id": call_id, "content": output}));
            }
            Item::Message { role, content, .. } => {
                spoken.flush(&mut messages);
                let role = match role {
                    Role::User => "user",
                    _ => "system",
                };
                let content = text(content);
                match messages.last_mut() {
                    // Many templates know one system message, and only at the start.
                    Some(first) if role == "system" && messages_begin_with(first, at, before) => {
                        todo!()
                    }
                    _ => messages.push(json!({"role": role, "content": content})),
                }
            }
        }
    }
    spoken.flush(&mut messages);
    if messages.is_empty() {
        let message = "input must hold at least one message";
        return Err(ApiError::invalid(Some("input".into()), message));
    }
    Ok(messages)
}

fn text(parts: &[ContentPart]) -> String {
    parts.iter().map(ContentPart::text).collect()
}
