//! From items to the messages that chat templates know.
//!
//! A template knows one message for all that a model says in one go: what it thinks, says and calls. Items that follow
//! each other are put together so, and a conversation gives the same prompt here as on `/v1/chat/completions`.

use hearth_protocol::error::ApiError;
use hearth_protocol::responses::{ContentPart, Item, Role};
use hearth_protocol::tool::whole_arguments;
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
                let arguments = whole_arguments(arguments);
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
                // Many templates know one system message, and only at the start.
                if let [only] = &mut messages[..]
                    && role == "system"
                    && only["role"] == "system"
                {
                    let first = only["content"].as_str().unwrap_or_default();
                    only["content"] = format!("{first}\n\n{}", text(content)).into();
                    continue;
                }
                let content = match &content[..] {
                    [one] => Value::from(one.text()),
                    parts => parts
                        .iter()
                        .map(|part| json!({"type": "text", "text": part.text()}))
                        .collect(),
                };
                messages.push(json!({"role": role, "content": content}));
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

#[cfg(test)]
mod tests {
    use hearth_protocol::responses::{Given, InputItem};

    use super::*;

    fn items(list: Value) -> Vec<Item> {
        let list: Vec<InputItem> = serde_json::from_value(list).expect("items");
        let read = list
            .into_iter()
            .map(|item| match item.read("input", &|prefix| prefix.into()) {
                Ok(Given::Item(item)) => item,
                other => panic!("{other:?}"),
            });
        read.collect()
    }

    #[test]
    fn what_a_model_says_in_one_go_is_one_message() {
        let before = items(json!([
            {"role": "user", "content": "weather?"},
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"role": "assistant", "content": "I look."},
            {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"},
            {"type": "function_call", "call_id": "2", "name": "look", "arguments": "{\"at\":2}"},
        ]));
        let asked = items(json!([
            {"type": "function_call_output", "call_id": "1", "output": "sun"},
            {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "rain"}]},
        ]));
        let call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "look", "arguments": arguments}});
        let expected = json!([
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": "I look.", "reasoning_content": "hm",
             "tool_calls": [call("1", "{}"), call("2", "{\"at\":2}")]},
            {"role": "tool", "tool_call_id": "1", "content": "sun"},
            {"role": "tool", "tool_call_id": "2", "content": "rain"},
        ]);
        let found = messages(Some("be brief"), &before, &asked).expect("messages");
        assert_eq!(Value::from(found), expected);
    }

    #[test]
    fn answers_that_follow_each_other_stay_apart_and_instructions_come_together() {
        let asked = items(json!([
            {"role": "developer", "content": "in verse"},
            {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "one"}]},
            {"role": "assistant", "content": "two"},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "left alone"}]},
            {"role": "system", "content": "later"},
        ]));
        let expected = json!([
            {"role": "system", "content": "be brief\n\nin verse"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "system", "content": "later"},
        ]);
        let found = messages(Some("be brief"), &[], &asked).expect("messages");
        assert_eq!(Value::from(found), expected);
    }

    #[test]
    fn a_result_needs_its_call() {
        let result = items(json!([{"type": "function_call_output", "call_id": "7", "output": ""}]));
        let error = messages(None, &[], &result).expect_err("no call");
        assert_eq!(error.param.as_deref(), Some("input[0].call_id"));
        assert!(messages(None, &result, &[]).is_ok());
        assert!(messages(None, &[], &[]).is_err());
    }
}
