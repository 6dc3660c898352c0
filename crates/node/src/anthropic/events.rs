//! The events of an answer that is streamed.

use hearth_engine::{Event, FinishReason};
use hearth_protocol::anthropic::{OutputBlock, StopReason};
use serde_json::{Map, Value, json};

use super::error;
use super::messages::{Head, SIGNATURE, stop_reason, usage};
use crate::answer::call_id;
use crate::failure::Failure;
use crate::stream::{self, Chunks};

/// Writes the events of a stream.
pub(super) struct MessageEvents {
    /// Until the message starts.
    head: Option<Head>,
    request_id: String,
    max_tokens: u32,
    shows_thinking: bool,
    /// The block that is being written.
    open: Option<Open>,
    /// Blocks begun so far.
    blocks: u32,
    finished: Option<(FinishReason, Option<String>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Thinking,
    Text,
    ToolUse,
}

impl MessageEvents {
    pub fn new(head: Head, request_id: String) -> Self {
        Self {
            max_tokens: head.max_tokens,
            shows_thinking: head.shows_thinking,
            head: Some(head),
            request_id,
            open: None,
            blocks: 0,
            finished: None,
        }
    }

    /// Sees to it that a block of this kind is open.
    fn open(&mut self, kind: Open, block: OutputBlock, out: &mut String) {
        if self.open != Some(kind) {
            self.begin(kind, block, out);
        }
    }

    fn begin(&mut self, kind: Open, block: OutputBlock, out: &mut String) {
        self.close(out);
        let start =
            json!({"type": "content_block_start", "index": self.blocks, "content_block": block});
        push(out, "content_block_start", &start.to_string());
        self.open = Some(kind);
        self.blocks += 1;
    }

    /// Ends the open block.
    fn close(&mut self, out: &mut String) {
        let Some(kind) = self.open.take() else { return };
        if kind == Open::Thinking {
            self.delta("signature", SIGNATURE, out);
        }
        let stop = json!({"type": "content_block_stop", "index": self.blocks - 1});
        push(out, "content_block_stop", &stop.to_string());
    }

    /// More of the open block. The text's field is named as the kind of the delta, but for JSON.
    fn delta(&self, kind: &str, text: &str, out: &mut String) {
        let field = match kind {
            "input_json" => "partial_json",
            kind => kind,
        };
        let (index, text) = (self.blocks - 1, Value::from(text));
        push(
            out,
            "content_block_delta",
            &format!(
                r#"{{"type":"content_block_delta","index":{index},"delta":{{"type":"{kind}_delta","{field}":{text}}}}}"#
            ),
        );
    }
}

impl Chunks for MessageEvents {
    fn event(&mut self, _: usize, event: &Event, out: &mut String) {
        match event {
            Event::Started {
                prompt_tokens,
                cached_tokens,
            } => {
                let Some(head) = self.head.take() else { return };
                let used = hearth_engine::Usage {
                    prompt_tokens: *prompt_tokens,
                    cached_tokens: *cached_tokens,
                    ..hearth_engine::Usage::default()
                };
                let message = head.message(Vec::new(), usage(&used));
                let start = json!({"type": "message_start", "message": message});
                push(out, "message_start", &start.to_string());
            }
            Event::Text { text, .. } if text.is_empty() => {}
            Event::Text { text, .. } => {
                let empty = OutputBlock::Text {
                    text: String::new(),
                };
                self.open(Open::Text, empty, out);
                self.delta("text", text, out);
            }
            Event::Reasoning { text, .. } => {
                let empty = OutputBlock::Thinking {
                    thinking: String::new(),
                    signature: String::new(),
                };
                self.open(Open::Thinking, empty, out);
                if self.shows_thinking {
                    self.delta("thinking", text, out);
                }
            }
            Event::ToolCall { name, .. } => {
                let empty = OutputBlock::ToolUse {
                    id: call_id("toolu_"),
                    name: name.clone(),
                    input: Map::new(),
                };
                self.begin(Open::ToolUse, empty, out);
            }
            Event::ToolArguments { json, .. } => self.delta("input_json", json, out),
            Event::Finished { reason, stop, .. } => {
                self.close(out);
                self.finished = Some((*reason, stop.clone()));
            }
            Event::Done(used) => {
                let Some((reason, stop)) = self.finished.take() else {
                    return;
                };
                let used = usage(used);
                let reason = stop_reason(reason, stop.as_deref(), &used, self.max_tokens);
                let stop = stop.filter(|_| reason == StopReason::StopSequence);
                let delta = json!({"stop_reason": reason, "stop_sequence": stop});
                let delta = json!({"type": "message_delta", "delta": delta, "usage": used});
                push(out, "message_delta", &delta.to_string());
            }
        }
    }

    fn end(&mut self, out: &mut String) {
        push(out, "message_stop", r#"{"type":"message_stop"}"#);
    }

    fn fail(&mut self, failure: Failure, out: &mut String) {
        let body = error(failure, &self.request_id);
        push(
            out,
            "error",
            &serde_json::to_string(&body).unwrap_or_default(),
        );
    }

    fn waiting(&mut self, out: &mut String) {
        match self.head {
            // Not every client takes an event before the message starts; a comment is none.
            Some(_) => out.push_str(": waiting\n\n"),
            None => push(out, "ping", r#"{"type":"ping"}"#),
        }
    }
}

/// Appends one named server-sent event.
fn push(out: &mut String, name: &str, json: &str) {
    out.push_str("event: ");
    out.push_str(name);
    out.push('\n');
    stream::push(out, json);
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_engine::EngineError;

    fn events(display: bool) -> MessageEvents {
        let head = Head {
            id: "msg_1".into(),
            model: "ember".into(),
            max_tokens: 9,
            shows_thinking: display,
            used: None,
        };
        MessageEvents::new(head, "req-1".into())
    }

    /// Names and bodies of the events in a text.
    fn read(text: &str) -> Vec<(String, Value)> {
        let events = text.split_terminator("\n\n").map(|event| {
            let (name, data) = event.split_once('\n').expect("two lines");
            let name = name.strip_prefix("event: ").expect("a name");
            let data = data.strip_prefix("data: ").expect("data");
            (name.into(), serde_json::from_str(data).expect("JSON"))
        });
        events.collect()
    }

    const STARTED: Event = Event::Started {
        prompt_tokens: 7,
        cached_tokens: 3,
    };

    #[test]
    fn thinking_text_and_calls_are_blocks_one_after_the_other() {
        let used = hearth_engine::Usage {
            prompt_tokens: 7,
            cached_tokens: 3,
            completion_tokens: 8,
            reasoning_tokens: 2,
        };
        let call = |call, name: &str| Event::ToolCall {
            choice: 0,
            call,
            name: name.into(),
        };
        let arguments = |call, json: &str| Event::ToolArguments {
            choice: 0,
            call,
            json: json.into(),
        };
        let text = |text: &str| Event::Text {
            choice: 0,
            text: text.into(),
            logprobs: vec![],
        };
        let thought = |text: &str| Event::Reasoning {
            choice: 0,
            text: text.into(),
        };
        let all = [
            STARTED,
            thought("I "),
            thought("see"),
            text("Let \"me"),
            text(""),
            text(" look"),
            call(0, "look"),
            arguments(0, "{\"x\":"),
            arguments(0, "1}"),
            call(1, "wait"),
            Event::Finished {
                choice: 0,
                reason: FinishReason::ToolCalls,
                stop: None,
            },
            Event::Done(used),
        ];
        for shown in [true, false] {
            let (mut stream, mut out) = (events(shown), String::new());
            for event in &all {
                stream.event(0, event, &mut out);
            }
            stream.end(&mut out);
            let sent = read(&out);
            assert!(sent.iter().all(|(name, data)| data["type"] == **name));
            assert_eq!(sent[0].1["message"]["usage"]["input_tokens"], 4);
            let mut blocks: Vec<(Value, String)> = vec![];
            for (name, data) in &sent[1..sent.len() - 2] {
                match name.as_str() {
                    "content_block_start" => {
                        assert_eq!(data["index"], blocks.len());
                        blocks.push((data["content_block"].clone(), String::new()));
                    }
                    "content_block_stop" => assert_eq!(data["index"], blocks.len() - 1),
                    "content_block_delta" => {
                        assert_eq!(data["index"], blocks.len() - 1);
                        let delta = &data["delta"];
                        let pieces = ["text", "thinking", "partial_json", "signature"];
                        let piece = pieces.iter().find_map(|name| delta[name].as_str());
                        blocks
                            .last_mut()
                            .expect("a block")
                            .1
                            .push_str(piece.expect("text"));
                    }
                    other => panic!("{other} does not belong here"),
                }
            }
            let thoughts = if shown { "I see" } else { "" };
            let texts: Vec<&str> = blocks.iter().map(|(_, text)| text.as_str()).collect();
            let signed = format!("{thoughts}{SIGNATURE}");
            assert_eq!(texts, [&signed, "Let \"me look", "{\"x\":1}", ""]);
            let kinds: Vec<&Value> = blocks.iter().map(|(block, _)| &block["type"]).collect();
            assert_eq!(kinds, ["thinking", "text", "tool_use", "tool_use"]);
            assert_eq!(blocks[3].0["name"], "wait");
            let (_, last) = &sent[sent.len() - 2];
            assert_eq!(last["delta"]["stop_reason"], "tool_use");
            assert_eq!(last["usage"]["output_tokens"], 8);
            assert_eq!(last["usage"]["output_tokens_details"]["thinking_tokens"], 2);
            assert_eq!(sent[sent.len() - 1].0, "message_stop");
        }
    }

    #[test]
    fn waiting_is_a_comment_first_and_then_a_ping() {
        let (mut stream, mut out) = (events(true), String::new());
        stream.waiting(&mut out);
        assert!(out.starts_with(':'), "{out}");
        stream.event(0, &STARTED, &mut out);
        out.clear();
        stream.waiting(&mut out);
        assert_eq!(read(&out), [("ping".into(), json!({"type": "ping"}))]);
    }

    #[test]
    fn an_answer_that_breaks_off_says_so_in_anthropics_shape() {
        let (mut stream, mut out) = (events(true), String::new());
        stream.fail(Failure::from(EngineError::Unloaded), &mut out);
        let (name, data) = read(&out).remove(0);
        assert_eq!((name.as_str(), &data["type"]), ("error", &json!("error")));
        assert_eq!(data["error"]["type"], "overloaded_error");
        assert_eq!(data["error"]["details"]["error_code"], "model_unloaded");
        assert_eq!(data["request_id"], "req-1");
    }
}
