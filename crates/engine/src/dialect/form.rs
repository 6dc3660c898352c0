//! What an answer must look like: the grammar of reasoning, text and calls.

use super::{Begin, CallFormat, Calls, Dialect, Parameter, Tags, Written, arguments, harmony};
use crate::Token;
use crate::chat::{Tool, ToolChoice, Tools};
use crate::constraint::Constraint;
use serde_json::{Value, json};

/// Where an answer stands with its reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// The prompt ends inside reasoning.
    Inside,
    /// The answer may begin with reasoning.
    Free,
    /// No reasoning.
    Closed,
}

/// What an answer must look like, reasoning, calls and constraint together: a grammar for llguidance in several named
/// parts. The first is written in Lark, and refers to the others as `@name`.
#[derive(Debug, Clone, PartialEq)]
pub struct Form {
    /// The first part.
    pub lark: String,
    /// The other parts by name.
    pub parts: Vec<(String, Constraint)>,
}

impl Form {
    /// `None` if nothing is to be enforced. `control` gives the id of a tag that is a control token, which no text
    /// matches.
    pub fn new(
        dialect: &Dialect,
        tools: &Tools,
        opening: Opening,
        constraint: &Constraint,
        control: &dyn Fn(&str) -> Option<Token>,
    ) -> Option<Self> {
        let callable = tools.callable();
        if callable.is_empty() && *constraint == Constraint::None {
            return None;
        }
        let mut writer = Writer {
            rules: vec!["gap: BLANKS?".into(), r"BLANKS: /[ \n\t]{1,8}/".into()],
            parts: Vec::new(),
            beside_json: *constraint != Constraint::None,
            control,
        };
        let is_forced = matches!(tools.choice, ToolChoice::Required | ToolChoice::Named(_));
        let has_text = *constraint == Constraint::None;
        let plain = match constraint {
            Constraint::None => writer.text(&dialect.calls, callable),
            constraint => {
                writer.parts.push(("body".into(), constraint.clone()));
                "@body".into()
            }
        };
        let start = if dialect.calls.format == CallFormat::Harmony {
            let plain = (!is_forced).then_some(plain.as_str());
            writer.channels(plain, has_text, callable, opening)
        } else {
            let thinking = writer.thinking(dialect.thinking.as_ref(), opening);
            let plain = match &dialect.answer {
                // As text, they are a part of it.
                Some(tags) if !has_text || control(&tags.open).is_some() => {
                    let (open, close) = (writer.tag(&tags.open), writer.tag(&tags.close));
                    format!("(gap {open} gap)? {plain} (gap {close})?")
                }
                _ => plain,
            };
            let calls = (!callable.is_empty())
                .then(|| writer.calls(&dialect.calls, callable, tools.single));
            let body = match calls {
                None => plain,
                Some(calls) if is_forced => calls.alone,
                Some(calls) if has_text => format!("{plain} | {}", calls.after_text),
                // No text: it would have to end in a call.
                Some(calls) => format!("{plain} | {}", calls.alone),
            };
            writer.rules.push(format!("body: {body}"));
            format!("{thinking} body")
        };
        Some(Self {
            lark: format!("start: {start}\n{}\n", writer.rules.join("\n")),
            parts: writer.parts,
        })
    }

    /// The same with any object as the arguments of the tools that are not strict and for which `fits` says no, or any
    /// value as that one of them.
    pub fn loosened(&self, tools: &Tools, fits: impl Fn(&Constraint) -> bool) -> Self {
        let mut form = self.clone();
        for (at, tool) in tools.callable().iter().enumerate() {
            let whole = part(at);
            let one = format!("{whole}_");
            for (name, constraint) in &mut form.parts {
                let is_one = name.starts_with(&one);
                if (is_one || *name == whole) && !tool.strict && !fits(constraint) {
                    *constraint = if is_one {
                        Constraint::JsonSchema(json!({}))
                    } else {
                        Constraint::JsonObject
                    };
                }
            }
        }
        form
    }
}

/// Name of the part for a tool's arguments.
fn part(tool: usize) -> String {
    format!("args_{tool}")
}

/// A Lark grammar while it is written.
struct Writer<'a> {
    rules: Vec<String>,
    parts: Vec<(String, Constraint)>,
    /// Whether an answer in JSON may stand where a call may. Both begin alike, so that the pieces of which they are
    /// made must be the same: the lexer takes the longest and never goes back.
    beside_json: bool,
    control: &'a dyn Fn(&str) -> Option<Token>,
}

/// How calls may come.
struct CallRules {
    /// With nothing before them.
    alone: String,
    /// With plain text before them, if the format has a tag.
    after_text: String,
}

/// Blanks that a model may write between the parts of a call. Few, so that no answer is filled with them.
const GAP: &str = r"[ \n\t]{0,8}";

impl Writer<'_> {
    /// A rule's element for a tag.
    fn tag(&self, tag: &str) -> String {
        match (self.control)(tag) {
            Some(token) => format!("<[{token}]>"),
            None => literal(tag),
        }
    }

    /// A rule's element for anything up to a tag, and the tag. `name` is the rule's, in small letters.
    fn until(&mut self, name: &str, tag: &str) -> String {
        if (self.control)(tag).is_some() {
            let terminal = name.to_uppercase();
            self.rules.push(format!("{terminal}: /(?s:.+)/"));
            return format!("{terminal}? {}", self.tag(tag));
        }
        let tag = escaped(tag);
        self.rules.push(format!("{name}[lazy]: /(?s:.*){tag}/"));
        name.into()
    }

    fn thinking(&mut self, tags: Option<&Tags>, opening: Opening) -> String {
        let Some(tags) = tags.filter(|_| opening != Opening::Closed) else {
            return String::new();
        };
        let until = self.until("thought", &tags.close);
        if opening == Opening::Inside {
            return format!("{until} gap");
        }
        format!("(gap {} {until} gap)?", self.tag(&tags.open))
    }

    /// Plain text, up to the end of the answer.
    fn text(&mut self, calls: &Calls, tools: &[Tool]) -> String {
        let rule = match &calls.begin {
            Begin::Tag(tag) if (self.control)(tag).is_none() => {
                format!("TEXT: /(?s:.+)/ & ~/(?s:.*){}(?s:.*)/", escaped(tag))
            }
            Begin::Tag(_) | Begin::Header => "TEXT: /(?s:.+)/".into(),
            Begin::Object => {
                let names: Vec<String> = tools.iter().map(|tool| escaped(&tool.name)).collect();
                let arguments = match &calls.format {
                    CallFormat::Json { arguments, .. } => arguments,
                    _ => "arguments",
                };
                // Neither a call of a tool that is there, nor one of a tool that is not.
                let start = r#"\s*\{\s*"name"\s*:\s*"#;
                format!(
                    r#"TEXT: /(?s:.+)/ & ~/{start}"({})"(?s:.*)/ & ~/{start}"[^"]*"\s*,\s*"{arguments}"(?s:.*)/"#,
                    names.join("|")
                )
            }
            Begin::Wrapper => r#"TEXT: /(?s:.+)/ & ~/\s*\{\s*"tool_calls"(?s:.*)/"#.into(),
        };
        self.rules.push(rule);
        "TEXT?".into()
    }

    fn calls(&mut self, calls: &Calls, tools: &[Tool], single: bool) -> CallRules {
        let single = single || calls.single;
        let call = self.call(&calls.format, tools);
        self.rules.push(format!("call: {call}"));
        let more = |separator: &str| {
            if single {
                String::new()
            } else {
                format!(" ({separator} call)*")
            }
        };
        let end = match &calls.end {
            Some(end) => format!(" gap {}", self.tag(end)),
            None => String::new(),
        };
        let tag = match &calls.begin {
            Begin::Wrapper => {
                self.head("wrap", "", "tool_calls", r"\[");
                self.rules.push(format!(r"SEPARATOR: /{GAP},{GAP}/"));
                self.rules.push(format!(r"UNWRAP: /{GAP}\]{GAP}\}}/"));
                let rule = format!("wrap call{} UNWRAP", more("SEPARATOR"));
                return CallRules {
                    alone: rule.clone(),
                    after_text: rule,
                };
            }
            Begin::Object | Begin::Header => {
                self.rules
                    .push(format!(r"SEPARATOR: /{GAP};{GAP}|[ \n\t]{{1,8}}/"));
                let rule = format!("call{}", more("SEPARATOR"));
                return CallRules {
                    alone: rule.clone(),
                    after_text: rule,
                };
            }
            Begin::Tag(tag) => tag,
        };
        let begin = self.tag(tag);
        let rest = match &calls.format {
            CallFormat::Json { list: true, .. } => {
                self.rules.push(format!(r"SEPARATOR: /{GAP},{GAP}/"));
                format!("gap \"[\" gap call{} gap \"]\"{end}", more("SEPARATOR"))
            }
            CallFormat::Named { each: Some(_), .. } => format!("gap call{}{end}", more("gap")),
            // Its own blanks are those of the format.
            CallFormat::Parameters { .. } if single => format!("call{end}"),
            CallFormat::Parameters { .. } => format!("call{end} (gap {begin} call{end})*"),
            _ if single => format!("gap call{end}"),
            _ => format!("gap call{end} (gap {begin} gap call{end})*"),
        };
        self.rules.push(format!("calls: {rest}"));
        let said = self.until("said", tag);
        CallRules {
            alone: format!("gap {begin} calls"),
            after_text: format!("{said} calls"),
        }
    }

    /// A rule for the start of an object, up to the value of a key. `before` is a regular expression for what may stand
    /// before the key, `after` for the start of the value.
    fn head(&mut self, rule: &str, before: &str, key: &str, after: &str) {
        if !self.beside_json {
            let terminal = rule.to_uppercase();
            self.rules.push(format!(
                r#"{terminal}: /{GAP}\{{{GAP}{before}"{key}"{GAP}:{GAP}{after}{GAP}/"#
            ));
            self.rules.push(format!("{rule}: {terminal}"));
            return;
        }
        let pieces = [before, after].map(|piece| match piece {
            "" => String::new(),
            piece => format!("/{piece}/ gap"),
        });
        let [before, after] = pieces;
        let key = literal(&format!("\"{key}\""));
        self.rules.push(format!(
            r#"{rule}: gap "{{" gap {before} {key} /{GAP}:{GAP}/ {after}"#
        ));
    }

    /// One call, of any of the tools.
    fn call(&mut self, format: &CallFormat, tools: &[Tool]) -> String {
        let mut joined = false;
        if let CallFormat::Json {
            name, arguments, ..
        } = format
        {
            // Command R numbers its calls.
            let id = match *name {
                "tool_name" => {
                    format!(r#"("tool_call_id"{GAP}:{GAP}"[^"\\]{{0,40}}"{GAP},{GAP})?"#)
                }
                _ => String::new(),
            };
            if self.beside_json || !id.is_empty() {
                self.head("head", &id, name, "");
            } else {
                // Up to the tool's name in one piece: until then it may be plain text, and of two that go on the lexer
                // takes the longer one.
                for (at, tool) in tools.iter().enumerate() {
                    let tool = escaped(&tool.name);
                    self.rules.push(format!(
                        r#"HEAD_{at}: /{GAP}\{{{GAP}"{name}"{GAP}:{GAP}"{tool}"/"#
                    ));
                }
                joined = true;
            }
            self.rules
                .push(format!(r#"MIDDLE: /{GAP},{GAP}"{arguments}"{GAP}:{GAP}/"#));
            self.rules.push(format!(r"TAIL: /{GAP}\}}/"));
        }
        let each = tools.iter().enumerate().map(|(at, tool)| match format {
            CallFormat::Json { .. } => {
                let name = match joined {
                    true => format!("HEAD_{at}"),
                    false => literal(&Value::from(tool.name.as_str()).to_string()),
                };
                format!("{name} MIDDLE {}", self.whole(at, tool))
            }
            CallFormat::Named { id, arguments, .. } => {
                let id = match id {
                    Some(tag) => format!("({} CALL_ID)?", self.tag(tag)),
                    None => String::new(),
                };
                let tag = self.tag(arguments);
                let whole = self.whole(at, tool);
                format!("{} gap {id} {tag} gap {whole}", literal(&tool.name))
            }
            CallFormat::Parameters { named, tail, .. } => {
                let arguments = match Parameter::of(tool) {
                    None => self.whole(at, tool),
                    Some(all) => {
                        let all = all.iter().enumerate();
                        let all = all.map(|(n, one)| self.parameter(format, at, n, one));
                        all.collect::<Vec<_>>().join(" ")
                    }
                };
                format!(
                    "{} {arguments} {}",
                    literal(&(tool.name.clone() + named)),
                    literal(tail)
                )
            }
            CallFormat::Harmony => self.whole(at, tool),
        });
        let any = each.collect::<Vec<_>>().join(" | ");
        match format {
            CallFormat::Json { .. } if joined => format!("({any}) TAIL"),
            CallFormat::Json { .. } => format!("head ({any}) TAIL"),
            CallFormat::Named { each, id, .. } => {
                if id.is_some() {
                    self.rules.push("CALL_ID: /[a-zA-Z0-9_-]{1,40}/".into());
                }
                match each {
                    Some(tags) => {
                        let (open, close) = (self.tag(&tags.open), self.tag(&tags.close));
                        format!("{open} gap ({any}) gap {close}")
                    }
                    None => any,
                }
            }
            CallFormat::Parameters { name, .. } if name.trim().is_empty() => {
                format!("gap ({any})")
            }
            CallFormat::Parameters { name, .. } => format!("{} ({any})", literal(name)),
            CallFormat::Harmony => any,
        }
    }

    /// The part for all of a tool's arguments as one object.
    fn whole(&mut self, at: usize, tool: &Tool) -> String {
        self.parts.push((part(at), arguments(tool)));
        format!("@{}", part(at))
    }

    /// One of a tool's parameters, by itself.
    fn parameter(&mut self, format: &CallFormat, at: usize, n: usize, one: &Parameter) -> String {
        let CallFormat::Parameters {
            key, value, done, ..
        } = format
        else {
            return String::new();
        };
        let name = format!("{}_{n}", part(at));
        let written = match &one.value {
            Written::Json(schema) => {
                let constraint = Constraint::JsonSchema(schema.clone());
                self.parts.push((name.clone(), constraint));
                format!("@{name} {}", literal(done))
            }
            Written::Choice(choices) => {
                let choices: Vec<String> = choices.iter().map(|choice| escaped(choice)).collect();
                let terminal = name.to_uppercase();
                let choices = choices.join("|");
                self.rules.push(format!("{terminal}: /{choices}/"));
                format!("{terminal} {}", literal(done))
            }
            Written::Text {
                nullable,
                least,
                most,
            } => {
                let length = match (least, most) {
                    (0, None) => "*".into(),
                    (least, None) => format!("{{{least},}}"),
                    (least, Some(most)) => format!("{{{least},{most}}}"),
                };
                let null = if *nullable { "|null" } else { "" };
                let done = escaped(done);
                // It ends where the tag first stands.
                let first = match least {
                    0 => String::new(),
                    _ => format!(" & ~/(?s:.*){done}(?s:.+)/"),
                };
                self.rules.push(format!(
                    "{name}[lazy]: /((?s:.){length}{null}){done}/{first}"
                ));
                name
            }
        };
        let opened = literal(&format!("{key}{}{value}", one.name));
        if one.required {
            format!("{opened} {written}")
        } else {
            format!("({opened} {written})?")
        }
    }

    /// Harmony's messages. `plain` is what the last one may be besides a call.
    fn channels(
        &mut self,
        plain: Option<&str>,
        has_text: bool,
        tools: &[Tool],
        opening: Opening,
    ) -> String {
        let turn = self.tags(harmony::TURN);
        let channel = self.tag(harmony::CHANNEL);
        let message = self.tag(harmony::MESSAGE);
        let until = self.until("thought", harmony::END);
        self.rules.push(format!("thinks: {until} {turn}"));
        let thinking = match opening {
            Opening::Inside => "thinks",
            Opening::Free => "thinking*",
            Opening::Closed => "",
        };
        let analysis = self.tags(harmony::ANALYSIS);
        self.rules.push(format!("thinking: {analysis} thinks"));
        let mut last = Vec::new();
        if let Some(plain) = plain {
            let header = self.tags(harmony::FINAL);
            // Where nothing precedes it, it may be there already.
            let maybe = if opening == Opening::Closed { "?" } else { "" };
            last.push(format!("({header}){maybe} {plain}"));
        }
        if !tools.is_empty() {
            let constrain = self.tag("<|constrain|>");
            self.rules.push(format!(
                "kind: (\" \"? {constrain} \"json\" | \" json\")? {message}"
            ));
            let calls = tools.iter().enumerate().map(|(at, tool)| {
                let to = format!("{}{}", harmony::TO, tool.name);
                let (before, inside) = (
                    literal(&format!(" {to}")),
                    literal(&format!("commentary {to}")),
                );
                let whole = self.whole(at, tool);
                format!("({before} {channel} \"commentary\" | {channel} {inside}) kind {whole}")
            });
            let calls = calls.collect::<Vec<_>>().join(" | ");
            self.rules.push(format!("call: {calls}"));
            if has_text && plain.is_some() {
                // What the user is told before it.
                self.rules
                    .push(format!("said: {channel} \"commentary\" {message} thinks"));
                last.push("said? call".into());
            } else {
                last.push("call".into());
            }
        }
        format!("{thinking} ({})", last.join(" | "))
    }

    /// A rule's elements for a text with tags in it.
    fn tags(&self, text: &str) -> String {
        let mut out = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("<|") {
            let end = rest.find("|>").map_or(rest.len(), |end| end + 2);
            if at > 0 {
                out.push(literal(&rest[..at]));
            }
            out.push(self.tag(&rest[at..end]));
            rest = &rest[end..];
        }
        if !rest.is_empty() {
            out.push(literal(rest));
        }
        out.join(" ")
    }
}

/// A Lark string.
fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// A text in a Lark regular expression.
fn escaped(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '/' | '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^'
            | '$' | '&' | '-' | '~' | '#' => format!("\\{c}"),
            '\n' => "\\n".into(),
            c => c.to_string(),
        })
        .collect()
}
