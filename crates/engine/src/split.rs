//! From a model's text to what it means: reasoning, plain text, and calls of tools, as far as it has come in.
//!
//! The text arrives in pieces of any size; what cannot be told yet (the start of a tag, blanks that may be the end) is
//! held back. Pure; the grammar of [`crate::dialect`] sees to it that calls are well formed.

use std::sync::Arc;

use crate::chat::Tool;
use crate::dialect::{Begin, CallFormat, Calls, Dialect, harmony};

mod reader;

use reader::Reader;

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// More reasoning.
    Reasoning(String),
    /// More plain text.
    Text(String),
    /// A call of this tool begins.
    Call(String),
    /// More of the call's arguments, JSON text.
    Arguments(String),
}

/// Splits the text of one choice.
#[derive(Debug, Clone)]
pub struct Splitter {
    dialect: Arc<Dialect>,
    /// The tools that may be called; empty if calls are not looked for.
    tools: Arc<[Tool]>,
    state: State,
    /// What came in and is not decided.
    held: String,
    /// Whether anything but blanks came out of the current state.
    begun: bool,
}

#[derive(Debug, Clone)]
enum State {
    /// Nothing but blanks yet: reasoning may open.
    Start,
    Reasoning,
    /// Nothing but blanks of the text yet: what stands around it may open.
    Opening,
    Text,
    /// In the header of a message (Harmony).
    Header,
    Calls(Box<Reader>),
}

impl Splitter {
    /// `reasoning` says whether the prompt ended inside reasoning.
    pub fn new(dialect: Arc<Dialect>, tools: Arc<[Tool]>, reasoning: bool) -> Self {
        Self {
            state: match dialect.calls.format {
                _ if reasoning => State::Reasoning,
                CallFormat::Harmony => State::Header,
                _ => State::Start,
            },
            dialect,
            tools,
            held: String::new(),
            begun: false,
        }
    }

    /// Of an answer whose first words are given: no reasoning opens, and blanks count from the start.
    pub fn continuing(mut self) -> Self {
        self.state = State::Text;
        self.begun = true;
        self
    }

    /// Whether plain text is what comes in now.
    pub fn in_text(&self) -> bool {
        matches!(self.state, State::Start | State::Opening | State::Text)
    }

    /// Whether a tool was called.
    pub fn called(&self) -> bool {
        matches!(&self.state, State::Calls(reader) if reader.calls() > 0)
    }

    /// Takes more text.
    pub fn push(&mut self, text: &str, out: &mut Vec<Part>) {
        self.held.push_str(text);
        while self.step(false, out) {}
    }

    /// Decides what is still held back: no more text comes.
    pub fn finish(&mut self, out: &mut Vec<Part>) {
        while self.step(true, out) {}
    }

    /// One decision; whether another may follow.
    fn step(&mut self, last: bool, out: &mut Vec<Part>) -> bool {
        match &mut self.state {
            State::Start => self.start(last),
            State::Reasoning => self.reasoning(last, out),
            State::Opening => self.opening(last),
            State::Text => self.text(last, out),
            State::Header => self.header(last, out),
            State::Calls(reader) => {
                let held = std::mem::take(&mut self.held);
                reader.read(&held, &self.tools, out);
                false
            }
        }
    }

    fn start(&mut self, last: bool) -> bool {
        self.opens(State::Reasoning, State::Opening, last)
    }

    fn opening(&mut self, last: bool) -> bool {
        self.opens(State::Text, State::Text, last)
    }

    /// Goes on to `inside` after an opening tag, and to `outside` where there is none.
    fn opens(&mut self, inside: State, outside: State, last: bool) -> bool {
        let tags = match self.state {
            State::Start => &self.dialect.thinking,
            _ => &self.dialect.answer,
        };
        let text = self.held.trim_start();
        let mut next = outside;
        if let Some(tags) = tags {
            if let Some(rest) = text.strip_prefix(tags.open.as_str()) {
                self.held = rest.to_owned();
                next = inside;
            } else if !last && tags.open.starts_with(text) {
                return false;
            }
        }
        self.state = next;
        true
    }

    fn reasoning(&mut self, last: bool, out: &mut Vec<Part>) -> bool {
        let close = self.dialect.thinking.as_ref().map(|tags| &tags.close);
        let found = close.and_then(|close| Some((self.held.find(close.as_str())?, close.len())));
        let (ready, closed) = match found {
            Some((at, length)) => {
                let rest = self.held.split_off(at + length);
                self.held.truncate(at);
                (std::mem::replace(&mut self.held, rest), true)
            }
            None => {
                let keep = if last {
                    0
                } else {
                    close.map_or(0, |close| pending(&self.held, close))
                };
                (take_but(&mut self.held, keep), false)
            }
        };
        self.emit(ready, closed || last, out, Part::Reasoning);
        if closed {
            self.state = match self.dialect.calls.format {
                CallFormat::Harmony => State::Header,
                _ => State::Opening,
            };
            self.begun = false;
            // Blanks between the reasoning and the answer belong to neither.
            self.held = self.held.trim_start().to_owned();
        }
        closed
    }

    /// A message's header says what the message is.
    fn header(&mut self, last: bool, out: &mut Vec<Part>) -> bool {
        let text = self.held.trim_start();
        let begins = |start: &&str| text.starts_with(start) || (!last && start.starts_with(text));
        let starts = [harmony::TURN, harmony::CHANNEL, harmony::TO];
        if !starts.iter().any(begins) {
            self.state = State::Text;
            return true;
        }
        let Some((header, rest)) = text.split_once(harmony::MESSAGE) else {
            return false;
        };
        let to = header.split_once(harmony::TO).map(|(_, to)| to);
        let ends = |c: char| c.is_whitespace() || c == '<';
        let name = to.and_then(|to| to.split(ends).next());
        self.state = match name {
            Some(name) if !self.tools.is_empty() => {
                out.push(Part::Call(name.into()));
                State::Calls(Box::new(Reader::of_arguments()))
            }
            _ if header.contains("analysis") => State::Reasoning,
            _ => State::Text,
        };
        self.begun = false;
        self.held = rest.to_owned();
        true
    }

    fn text(&mut self, last: bool, out: &mut Vec<Part>) -> bool {
        let dialect = Arc::clone(&self.dialect);
        let mut found = if self.tools.is_empty() {
            Found::Not { keep: 0 }
        } else {
            find(&dialect.calls, &self.tools, &self.held, self.begun, last)
        };
        let is_harmony = dialect.calls.format == CallFormat::Harmony;
        let stop = match &dialect.answer {
            _ if is_harmony => Some(harmony::END),
            Some(tags) => Some(tags.close.as_str()),
            None => None,
        };
        if let Some(stop) = stop {
            let at = self.held.find(stop);
            let at = at.filter(|at| !matches!(found, Found::At { start, .. } if start < *at));
            if let Some(at) = at {
                let rest = self.held.split_off(at + stop.len());
                self.held.truncate(at);
                let before = std::mem::replace(&mut self.held, rest);
                self.emit(before, true, out, Part::Text);
                if is_harmony {
                    self.state = State::Header;
                }
                return true;
            }
            if let Found::Not { keep } = &mut found
                && !last
            {
                *keep = pending(&self.held, stop).max(*keep);
            }
        }
        match found {
            Found::Not { keep } if self.tools.is_empty() => {
                let ready = take_but(&mut self.held, keep);
                let plain = dialect.thinking.is_none() && stop.is_none();
                let ready = if self.begun || plain {
                    ready
                } else {
                    ready.trim_start().to_owned()
                };
                self.begun |= !ready.is_empty();
                if !ready.is_empty() {
                    out.push(Part::Text(ready));
                }
                false
            }
            Found::At { start, end } => {
                let rest = self.held.split_off(end);
                self.held.truncate(start);
                let before = std::mem::replace(&mut self.held, rest);
                self.emit(before, true, out, Part::Text);
                self.state = State::Calls(Box::new(Reader::new(&dialect.calls)));
                true
            }
            Found::Not { keep } => {
                let ready = take_but(&mut self.held, keep);
                // Blanks before a call are not part of the text; before its end they are.
                self.emit(ready, false, out, Part::Text);
                if last && self.begun && !self.held.is_empty() {
                    out.push(Part::Text(std::mem::take(&mut self.held)));
                }
                false
            }
        }
    }

    /// Emits `ready` without blanks before its first word; those at its end are put back unless it is `done`, and are
    /// dropped if it is.
    fn emit(&mut self, ready: String, done: bool, out: &mut Vec<Part>, part: fn(String) -> Part) {
        let text = if self.begun {
            ready.as_str()
        } else {
            ready.trim_start()
        };
        let solid = text.trim_end();
        if !done {
            self.held.insert_str(0, &text[solid.len()..]);
        }
        if !solid.is_empty() {
            self.begun = true;
            out.push(part(solid.to_owned()));
        }
    }
}

/// Takes all but the last `keep` bytes.
fn take_but(text: &mut String, keep: usize) -> String {
    let tail = text.split_off(text.len() - keep);
    std::mem::replace(text, tail)
}

/// Bytes at the end of `text` that may be the start of `tag`.
fn pending(text: &str, tag: &str) -> usize {
    (1..tag.len())
        .rev()
        .find(|length| tag.is_char_boundary(*length) && text.ends_with(&tag[..*length]))
        .unwrap_or(0)
}

/// Whether calls begin in a text.
enum Found {
    /// Text before `start` is plain, and after `end` the calls are.
    At { start: usize, end: usize },
    /// Not yet: all but the last `keep` bytes are plain.
    Not { keep: usize },
}

fn find(calls: &Calls, tools: &[Tool], text: &str, begun: bool, last: bool) -> Found {
    match &calls.begin {
        Begin::Tag(tag) => match text.find(tag.as_str()) {
            Some(start) => Found::At {
                start,
                end: start + tag.len(),
            },
            None => Found::Not {
                keep: if last { 0 } else { pending(text, tag) },
            },
        },
        // A header tells calls from text.
        Begin::Header => Found::Not { keep: 0 },
        // Only the very start of an answer can be a call.
        Begin::Object | Begin::Wrapper if begun => Found::Not { keep: 0 },
        begin => match opening(begin, tools, text) {
            Opening::Yes { start, end } => Found::At { start, end },
            Opening::No => Found::Not { keep: 0 },
            Opening::Maybe => Found::Not {
                keep: if last { 0 } else { text.len() },
            },
        },
    }
}

enum Opening {
    Yes { start: usize, end: usize },
    Maybe,
    No,
}

/// Whether a text starts as the JSON of a call: `{"name": "a tool"`, or `{"tool_calls": [`.
fn opening(begin: &Begin, tools: &[Tool], text: &str) -> Opening {
    let start = text.len() - text.trim_start().len();
    let mut rest = &text[start..];
    let key = if matches!(begin, Begin::Wrapper) {
        "\"tool_calls\""
    } else {
        "\"name\""
    };
    for expected in ["{", key, ":"] {
        rest = rest.trim_start();
        match rest.strip_prefix(expected) {
            Some(after) => rest = after,
            None if expected.starts_with(rest) => return Opening::Maybe,
            None => return Opening::No,
        }
    }
    rest = rest.trim_start();
    if matches!(begin, Begin::Wrapper) {
        return match rest.strip_prefix('[') {
            Some(after) => Opening::Yes {
                start,
                end: text.len() - after.len(),
            },
            None if rest.is_empty() => Opening::Maybe,
            None => Opening::No,
        };
    }
    let quoted = tools.iter().map(|tool| format!("\"{}\"", tool.name));
    let mut maybe = false;
    for name in quoted {
        if rest.starts_with(&name) {
            return Opening::Yes { start, end: start };
        }
        maybe |= name.starts_with(rest);
    }
    if maybe { Opening::Maybe } else { Opening::No }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Tags;
    use proptest::prelude::*;

    fn dialect(begin: Begin, list: bool, end: Option<&str>) -> Arc<Dialect> {
        let calls = Calls {
            begin,
            format: CallFormat::Json {
                name: "name",
                arguments: "arguments",
                list,
            },
            end: end.map(Into::into),
            ..Calls::default()
        };
        Arc::new(Dialect {
            thinking: Some(Tags::new("<think>", "</think>")),
            answer: None,
            calls,
        })
    }

    fn tool(name: &str) -> Tool {
        Tool {
            name: name.into(),
            ..Tool::default()
        }
    }

    fn hermes() -> Arc<Dialect> {
        dialect(
            Begin::Tag("<tool_call>".into()),
            false,
            Some("</tool_call>"),
        )
    }

    fn split(dialect: &Arc<Dialect>, open: bool, pieces: &[&str]) -> Vec<Part> {
        let tools: Arc<[Tool]> = ["look", "go"].map(tool).into();
        let mut splitter = Splitter::new(Arc::clone(dialect), tools, open);
        let mut out = Vec::new();
        for piece in pieces {
            splitter.push(piece, &mut out);
        }
        splitter.finish(&mut out);
        merged(out)
    }

    /// Neighbours of one kind as one.
    fn merged(parts: Vec<Part>) -> Vec<Part> {
        let mut out: Vec<Part> = Vec::new();
        for part in parts {
            match (out.last_mut(), &part) {
                (Some(Part::Text(all)), Part::Text(more))
                | (Some(Part::Reasoning(all)), Part::Reasoning(more))
                | (Some(Part::Arguments(all)), Part::Arguments(more)) => all.push_str(more),
                _ => out.push(part),
            }
        }
        out
    }

    fn parts(reasoning: &str, text: &str, calls: &[(&str, &str)]) -> Vec<Part> {
        let mut out = Vec::new();
        if !reasoning.is_empty() {
            out.push(Part::Reasoning(reasoning.into()));
        }
        if !text.is_empty() {
            out.push(Part::Text(text.into()));
        }
        for (name, arguments) in calls {
            out.push(Part::Call((*name).into()));
            out.push(Part::Arguments((*arguments).into()));
        }
        out
    }

    const TWO: &[(&str, &str)] = &[("look", r#"{"at": "a } \" b"}"#), ("go", "{}")];

    #[test]
    fn hermes_calls_after_reasoning_and_text() {
        let text = "<think>\nwhere?\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": \"a } \\\" b\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"go\", \"arguments\": {}}\n</tool_call>";
        assert_eq!(
            split(&hermes(), false, &[text]),
            parts("where?", "I look.", TWO)
        );
        let open = text.trim_start_matches("<think>");
        assert_eq!(
            split(&hermes(), true, &[open]),
            parts("where?", "I look.", TWO)
        );
    }

    #[test]
    fn a_list_and_an_object_in_any_order() {
        let mistral = dialect(Begin::Tag("[TOOL_CALLS]".into()), true, None);
        let text = r#"[TOOL_CALLS][{"name":"look","arguments":{"at": "a } \" b"}, "id": "x"},{"arguments":{},"name":"go"}]"#;
        assert_eq!(split(&mistral, false, &[text]), parts("", "", TWO));
        let llama = dialect(Begin::Object, false, None);
        let text = r#"{"name": "look", "parameters": {"at": "a } \" b"}}; {"name": "go", "parameters": {}}"#;
        assert_eq!(split(&llama, false, &[text]), parts("", "", TWO));
        let wrapped = dialect(Begin::Wrapper, true, None);
        let text = r#"{"tool_calls": [{"name": "look", "arguments": {"at": "a } \" b"}}, {"name": "go", "arguments": {}}]}"#;
        assert_eq!(split(&wrapped, false, &[text]), parts("", "", TWO));
    }

    #[test]
    fn names_between_tags() {
        let calls = Calls {
            begin: Begin::Tag("[TOOL_CALLS]".into()),
            format: CallFormat::Named {
                each: None,
                id: Some("[CALL_ID]".into()),
                arguments: "[ARGS]".into(),
            },
            ..Calls::default()
        };
        let mistral = Arc::new(Dialect {
            thinking: None,
            answer: None,
            calls,
        });
        let text =
            r#"Well. [TOOL_CALLS]look[ARGS]{"at": "a } \" b"}[TOOL_CALLS]go[CALL_ID]x1[ARGS]{}"#;
        assert_eq!(split(&mistral, false, &[text]), parts("", "Well.", TWO));
    }

    #[test]
    fn what_only_looks_like_a_call_is_text() {
        let llama = dialect(Begin::Object, false, None);
        for text in [
            r#"{"name": "Ada", "age": 36}"#,
            "{}",
            "{\"na",
            "a {\"name\": \"look\"}",
            "{",
        ] {
            assert_eq!(
                split(&llama, false, &[text]),
                parts("", text, &[]),
                "{text}"
            );
        }
        for text in ["1 < 2 <tool", "a <b> c", "<think"] {
            assert_eq!(
                split(&hermes(), false, &[text]),
                parts("", text, &[]),
                "{text}"
            );
        }
    }

    #[test]
    fn reasoning_that_never_ends_is_reasoning() {
        assert_eq!(
            split(&hermes(), true, &["hm </thin"]),
            parts("hm </thin", "", &[])
        );
    }

    proptest! {
        /// However a text is divided, its parts are the same; and no letter is lost.
        #[test]
        fn any_division_gives_the_same_parts(
            text in "(<think>[a-c <\n]{0,6}</think>)?[a-c <{\\[\n]{0,8}(<tool_call>\\{\"name\": \"(look|go)\", \"arguments\": \\{\"a\": [0-9]\\}\\}</tool_call>){0,2}",
            cuts in prop::collection::vec(1usize..7, 1..30),
        ) {
            let whole = split(&hermes(), false, &[&text]);
            let mut pieces = Vec::new();
            let mut rest = text.as_str();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            prop_assert_eq!(split(&hermes(), false, &pieces), whole);
        }

        /// Without tools and tags, text goes through as it is.
        #[test]
        fn plain_text_is_untouched(text in "\\PC{0,40}") {
            let plain = Arc::new(Dialect::default());
            let mut splitter = Splitter::new(plain, Arc::from([]), false);
            let mut out = Vec::new();
            splitter.push(&text, &mut out);
            splitter.finish(&mut out);
            let all: String = out.iter().map(|part| match part {
                Part::Text(text) => text.as_str(),
                _ => "?",
            }).collect();
            prop_assert_eq!(all, text);
        }
    }
}
