//! An answer in Ollama's shapes: whole, or one JSON object a line.
//!
//! Ollama has no pieces of tool calls: each goes out once it is complete, its arguments as an object.

use std::time::{Duration, Instant};

use axum::Json;
use axum::response::{IntoResponse, Response};
use hearth_engine::{Event, FinishReason, TopLogprob, Usage};
use hearth_protocol::ollama::{
    self as wire, ChatResponse, ErrorBody, FunctionCall, GenerateResponse, Metrics, ToolCall,
};
use hearth_protocol::recall::Used;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Refusal, now};
use crate::answer::{Call, Watched, call_id};
use crate::failure::Failure;
use crate::stream::{self, Chunks};

/// The two routes that answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `/api/chat`.
    Chat,
    /// `/api/generate`.
    Generate,
}

/// What was said since the last line.
#[derive(Debug, Default)]
struct Said {
    text: String,
    thinking: String,
    calls: Vec<ToolCall>,
    logprobs: Vec<wire::TokenLogprob>,
}

impl Said {
    fn is_empty(&self) -> bool {
        self.text.is_empty()
            && self.thinking.is_empty()
            && self.calls.is_empty()
            && self.logprobs.is_empty()
    }
}

/// One answer on its way to a client.
pub(super) struct Answer {
    shape: Shape,
    /// The model, as the request names it.
    model: String,
    /// When the request came.
    begun: Instant,
    /// How long the model took to load.
    load: Duration,
    said: Said,
    /// The call that is being written.
    call: Option<Call>,
    calls: u32,
    started: Option<Instant>,
    first: Option<Instant>,
    last: Option<Instant>,
    reason: FinishReason,
    usage: Usage,
    /// What the first line says of memory.
    used: Option<Used>,
}

impl Answer {
    /// An answer of which nothing is there yet.
    pub fn new(shape: Shape, model: String, begun: Instant, load: Duration) -> Self {
        Self {
            shape,
            model,
            begun,
            load,
            said: Said::default(),
            call: None,
            calls: 0,
            started: None,
            first: None,
            last: None,
            reason: FinishReason::Stop,
            usage: Usage::default(),
            used: None,
        }
    }

    /// With the memories that are in its prompt.
    pub fn citing(self, used: Option<Used>) -> Self {
        Self { used, ..self }
    }

    /// Sends what the engine says, line by line or whole.
    pub async fn respond(mut self, mut from: Watched, stream: bool) -> Result<Response, Refusal> {
        if stream {
            return Ok(stream::respond(vec![from], self));
        }
        loop {
            let event = from.next().await?;
            self.take(&event);
            if matches!(event, Event::Done(_)) {
                return Ok(self.end_with(self.reason(), Some(self.metrics())));
            }
        }
    }

    /// The answer to a request without anything to say: `load` or `unload`.
    pub fn nothing(mut self, reason: &'static str) -> Response {
        self.end_with(reason, None)
    }

    fn end_with(&mut self, reason: &'static str, metrics: Option<Metrics>) -> Response {
        match self.shape {
            Shape::Chat => Json(self.chat(Some(reason), metrics)).into_response(),
            Shape::Generate => Json(self.generate(Some(reason), metrics)).into_response(),
        }
    }

    /// Notes what an event adds.
    fn take(&mut self, event: &Event) {
        if let Event::Text { .. } | Event::Reasoning { .. } | Event::ToolCall { .. } = event {
            self.first.get_or_insert_with(Instant::now);
        }
        match event {
            Event::Started { .. } => self.started = Some(Instant::now()),
            Event::Text { text, logprobs, .. } => {
                self.settle();
                self.said.text.push_str(text);
                let logprobs = logprobs.iter().map(|token| wire::TokenLogprob {
                    top_logprobs: token.top.iter().map(logprob).collect(),
                    ..logprob(&token.chosen)
                });
                self.said.logprobs.extend(logprobs);
            }
            Event::Reasoning { text, .. } => self.said.thinking.push_str(text),
            Event::ToolCall { name, .. } => {
                self.settle();
                self.call = Some(Call {
                    name: name.clone(),
                    arguments: String::new(),
                });
            }
            Event::ToolArguments { json, .. } => {
                if let Some(call) = &mut self.call {
                    call.arguments.push_str(json);
                }
            }
            Event::Finished { reason, .. } => {
                self.settle();
                self.last = Some(Instant::now());
                self.reason = *reason;
            }
            Event::Done(usage) => self.usage = *usage,
        }
    }

    /// The call that was being written is complete. One that was cut off for length is text, so that nothing is lost.
    fn settle(&mut self) {
        let Some(Call { name, arguments }) = self.call.take() else {
            return;
        };
        match serde_json::from_str::<Map<String, Value>>(&arguments) {
            Ok(arguments) => {
                let function = FunctionCall {
                    index: Some(self.calls),
                    name,
                    arguments: Some(arguments),
                };
                self.calls += 1;
                let id = Some(call_id("call_"));
                self.said.calls.push(ToolCall { id, function });
            }
            Err(_) => {
                let name = Value::from(name);
                self.said.text += &format!("{{\"name\": {name}, \"arguments\": {arguments}");
            }
        }
    }

    /// Ollama knows no reason of its own for calls.
    fn reason(&self) -> &'static str {
        match self.reason {
            FinishReason::Stop | FinishReason::ToolCalls => "stop",
            FinishReason::Length => "length",
        }
    }

    fn metrics(&self) -> Metrics {
        let now = Instant::now();
        let started = self.started.unwrap_or(now);
        let first = self.first.unwrap_or(now);
        Metrics {
            total_duration: nanoseconds(now.saturating_duration_since(self.begun)),
            load_duration: nanoseconds(self.load),
            prompt_eval_count: self.usage.prompt_tokens,
            prompt_eval_duration: nanoseconds(first.saturating_duration_since(started)),
            eval_count: self.usage.completion_tokens,
            eval_duration: nanoseconds(self.last.unwrap_or(now).saturating_duration_since(first)),
        }
    }

    fn chat(&mut self, reason: Option<&'static str>, metrics: Option<Metrics>) -> ChatResponse {
        let said = std::mem::take(&mut self.said);
        ChatResponse {
            model: self.model.clone(),
            created_at: now(),
            message: wire::Answer {
                role: "assistant",
                content: said.text,
                thinking: said.thinking,
                tool_calls: said.calls,
            },
            done: reason.is_some(),
            done_reason: reason,
            logprobs: said.logprobs,
            metrics,
            hearth: self.used.take(),
        }
    }

    fn generate(
        &mut self,
        reason: Option<&'static str>,
        metrics: Option<Metrics>,
    ) -> GenerateResponse {
        let said = std::mem::take(&mut self.said);
        GenerateResponse {
            model: self.model.clone(),
            created_at: now(),
            response: said.text,
            thinking: said.thinking,
            done: reason.is_some(),
            done_reason: reason,
            logprobs: said.logprobs,
            metrics,
            hearth: self.used.take(),
        }
    }

    /// Writes what was said as one line.
    fn line(&mut self, reason: Option<&'static str>, out: &mut String) {
        let metrics = reason.map(|_| self.metrics());
        match self.shape {
            Shape::Chat => push(out, &self.chat(reason, metrics)),
            Shape::Generate => push(out, &self.generate(reason, metrics)),
        }
    }
}

fn logprob(token: &TopLogprob) -> wire::TokenLogprob {
    wire::TokenLogprob {
        token: String::from_utf8_lossy(&token.bytes).into_owned(),
        logprob: token.logprob,
        bytes: token.bytes.clone(),
        top_logprobs: Vec::new(),
    }
}

/// Appends one JSON line.
pub(super) fn push(out: &mut String, line: &impl Serialize) {
    let json = serde_json::to_string(line)
        .unwrap_or_else(|error| json!({"error": error.to_string()}).to_string());
    out.push_str(&json);
    out.push('\n');
}

/// A duration as Ollama tells it. Never 0: its clients divide by it.
pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// Type of a body of JSON lines.
pub(super) const JSON_LINES: &str = "application/x-ndjson";

impl Chunks for Answer {
    const CONTENT_TYPE: &'static str = JSON_LINES;

    fn event(&mut self, _: usize, event: &Event, out: &mut String) {
        self.take(event);
        if !self.said.is_empty() {
            self.line(None, out);
        }
    }

    fn end(&mut self, out: &mut String) {
        self.line(Some(self.reason()), out);
    }

    fn fail(&mut self, failure: Failure, out: &mut String) {
        let error = Refusal::from(failure).message;
        push(out, &ErrorBody { error });
    }

    fn waiting(&mut self, out: &mut String) {
        // JSON lines have no comments; a piece without text says nothing either.
        self.line(None, out);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn answer(shape: Shape) -> Answer {
        Answer::new(shape, "m".into(), Instant::now(), Duration::ZERO)
    }

    fn lines(shape: Shape, events: &[Event]) -> Vec<Value> {
        let (mut answer, mut out) = (answer(shape), String::new());
        for event in events {
            answer.event(0, event, &mut out);
        }
        answer.end(&mut out);
        let lines = out.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap()
    }

    fn called(call: u32, name: &str, pieces: &[&str]) -> Vec<Event> {
        let begin = Event::ToolCall {
            choice: 0,
            call,
            name: name.into(),
        };
        let pieces = pieces.iter().map(|json| Event::ToolArguments {
            choice: 0,
            call,
            json: (*json).into(),
        });
        std::iter::once(begin).chain(pieces).collect()
    }

    fn finished(reason: FinishReason) -> Event {
        Event::Finished {
            choice: 0,
            reason,
            stop: None,
        }
    }

    #[test]
    fn calls_go_out_whole_with_their_arguments_as_objects() {
        let mut events = vec![Event::Reasoning {
            choice: 0,
            text: "hm".into(),
        }];
        events.extend(called(0, "light", &["{\"on\":", "true}"]));
        events.extend(called(1, "now", &["{}"]));
        events.push(finished(FinishReason::ToolCalls));
        events.push(Event::Done(Usage::default()));
        let lines = lines(Shape::Chat, &events);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(lines[0]["message"]["thinking"], "hm");
        let call = |line: &Value| line["message"]["tool_calls"][0]["function"].clone();
        let light = json!({"index": 0, "name": "light", "arguments": {"on": true}});
        assert_eq!(call(&lines[1]), light);
        let now = json!({"index": 1, "name": "now", "arguments": {}});
        assert_eq!(call(&lines[2]), now);
        assert_eq!(
            (&lines[3]["done"], &lines[3]["done_reason"]),
            (&json!(true), &json!("stop"))
        );
        assert!(lines[3]["message"].get("tool_calls").is_none());
    }

    #[test]
    fn a_call_cut_off_for_length_is_text() {
        let mut events = called(0, "light", &["{\"on\": tr"]);
        events.push(finished(FinishReason::Length));
        events.push(Event::Done(Usage::default()));
        let lines = lines(Shape::Chat, &events);
        assert_eq!(
            lines[0]["message"]["content"],
            "{\"name\": \"light\", \"arguments\": {\"on\": tr"
        );
        assert_eq!(lines[1]["done_reason"], "length");
    }

    #[test]
    fn what_keeps_a_connection_alive_is_a_line_that_says_nothing() {
        for (shape, field) in [
            (Shape::Chat, "/message/content"),
            (Shape::Generate, "/response"),
        ] {
            let mut out = String::new();
            answer(shape).waiting(&mut out);
            let line: Value = serde_json::from_str(&out).unwrap();
            assert_eq!(line.pointer(field), Some(&json!("")), "{line}");
            assert_eq!(line["done"], false);
        }
    }
}
