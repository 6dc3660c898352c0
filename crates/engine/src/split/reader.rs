//! Reads calls out of what stands between their tags, as it comes in.

use super::Part;
use crate::chat::Tool;
use crate::dialect::{Begin, CallFormat, Calls, Parameter, Written};

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(super) enum Reader {
    /// Arguments as objects.
    Objects(Objects),
    /// Arguments as parameters.
    Parameters(Parameters),
}

impl Reader {
    /// For the calls that follow what begins them.
    pub fn new(calls: &Calls) -> Self {
        let Begin::Tag(begin) = &calls.begin else {
            return Self::Objects(Objects::default());
        };
        match &calls.format {
            CallFormat::Named {
                each,
                id,
                arguments,
            } => Self::Objects(Objects {
                place: match each {
                    Some(_) => Place::Between,
                    None => Place::Bare,
                },
                named: Some(Named {
                    begin: each.as_ref().map_or(begin, |each| &each.open).clone(),
                    id: id.clone(),
                    arguments: arguments.clone(),
                }),
                ..Objects::default()
            }),
            format @ CallFormat::Parameters { .. } => Self::Parameters(Parameters {
                format: format.clone(),
                begin: begin.clone(),
                place: Step::Name,
                held: String::new(),
                calls: 0,
                known: None,
                written: 0,
            }),
            CallFormat::Json { .. } | CallFormat::Harmony => Self::Objects(Objects::default()),
        }
    }

    /// For the arguments of a call whose name is out.
    pub fn of_arguments() -> Self {
        Self::Objects(Objects {
            place: Place::Arguments,
            calls: 1,
            is_named: true,
            ..Objects::default()
        })
    }

    /// Calls so far.
    pub fn calls(&self) -> u32 {
        match self {
            Self::Objects(objects) => objects.calls,
            Self::Parameters(parameters) => parameters.calls,
        }
    }

    /// Takes more text.
    pub fn read(&mut self, text: &str, tools: &[Tool], out: &mut Vec<Part>) {
        match self {
            Self::Objects(objects) => objects.read(text, out),
            Self::Parameters(parameters) => {
                parameters.held.push_str(text);
                while parameters.step(tools, out) {}
            }
        }
    }
}

/// Calls whose arguments are objects; read character by character.
#[derive(Debug, Clone, Default)]
pub(super) struct Objects {
    named: Option<Named>,
    place: Place,
    calls: u32,
    /// Text of the key, name or tag that is being read.
    word: String,
    /// Arguments that came before the name.
    early: String,
    /// Whether the current call's name is out.
    is_named: bool,
    extent: Extent,
}

/// What stands around names that are bare.
#[derive(Debug, Clone)]
struct Named {
    /// Before each name.
    begin: String,
    /// Before an id.
    id: Option<String>,
    /// Before the arguments.
    arguments: String,
}

impl Named {
    /// The name, of all that stands before the arguments: `name[ARGS]`, `name[CALL_ID]id[ARGS]`.
    fn name(&self, text: &str) -> String {
        let text = text.trim();
        let text = text.strip_suffix(self.arguments.as_str()).unwrap_or(text);
        let id = self.id.as_deref().and_then(|id| text.rsplit_once(id));
        id.map_or(text, |(name, _)| name).trim().to_owned()
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// Between calls.
    #[default]
    Between,
    /// In a name that no quotes surround.
    Bare,
    /// In a call's object, before a key or its end.
    Object,
    Key,
    /// Between a key and its value.
    Colon,
    Name,
    Arguments,
    /// In a value that means nothing here.
    Other,
}

impl Objects {
    fn read(&mut self, text: &str, out: &mut Vec<Part>) {
        let mut arguments = String::new();
        for c in text.chars() {
            self.take(c, &mut arguments, out);
        }
        self.flush(&mut arguments, out);
    }

    fn flush(&mut self, arguments: &mut String, out: &mut Vec<Part>) {
        if self.is_named {
            arguments.insert_str(0, &std::mem::take(&mut self.early));
            if !arguments.is_empty() {
                out.push(Part::Arguments(std::mem::take(arguments)));
            }
        } else {
            self.early.push_str(&std::mem::take(arguments));
        }
    }

    fn name(&mut self, name: String, arguments: &mut String, out: &mut Vec<Part>) {
        out.push(Part::Call(name));
        self.calls += 1;
        self.is_named = true;
        self.flush(arguments, out);
    }

    fn take(&mut self, c: char, arguments: &mut String, out: &mut Vec<Part>) {
        match self.place {
            Place::Between => self.between(c),
            Place::Bare if c == '{' => {
                let word = std::mem::take(&mut self.word);
                let name = self.named.as_ref().map(|named| named.name(&word));
                self.name(name.unwrap_or_default(), arguments, out);
                self.extent = Extent::default();
                self.place = Place::Arguments;
                self.take(c, arguments, out);
            }
            Place::Bare => self.word.push(c),
            Place::Object => match c {
                '"' => {
                    self.word.clear();
                    self.extent = Extent::default();
                    self.extent.take(c);
                    self.place = Place::Key;
                }
                '}' => {
                    self.flush(arguments, out);
                    self.place = Place::Between;
                }
                _ => {}
            },
            Place::Key | Place::Name => {
                if self.extent.take(c) {
                    let word = std::mem::take(&mut self.word);
                    if self.place == Place::Key {
                        self.word = word;
                        self.place = Place::Colon;
                    } else {
                        // As JSON writes it; a name has no escapes that matter (`Tools::check`).
                        let name = serde_json::from_str(&format!("\"{word}\"")).unwrap_or(word);
                        self.name(name, arguments, out);
                        self.place = Place::Object;
                    }
                } else {
                    self.word.push(c);
                }
            }
            Place::Colon if c == ':' || c.is_whitespace() => {}
            Place::Colon => {
                let key = std::mem::take(&mut self.word);
                self.extent = Extent::default();
                self.place = match key.as_str() {
                    "name" | "tool_name" if c == '"' => Place::Name,
                    "arguments" | "parameters" => Place::Arguments,
                    _ => Place::Other,
                };
                if self.place == Place::Name {
                    self.extent.take(c);
                } else {
                    self.take(c, arguments, out);
                }
            }
            Place::Arguments | Place::Other => {
                if self.place == Place::Arguments {
                    arguments.push(c);
                }
                if self.extent.take(c) {
                    self.flush(arguments, out);
                    self.place = if self.named.is_some() {
                        Place::Between
                    } else {
                        Place::Object
                    };
                }
            }
        }
    }

    /// Tags, commas and brackets lie between calls.
    fn between(&mut self, c: char) {
        self.word.push(c);
        match &self.named {
            None if c == '{' => {
                self.word.clear();
                self.is_named = false;
                self.place = Place::Object;
            }
            Some(named) if self.word.ends_with(&named.begin) => {
                self.word.clear();
                self.is_named = false;
                self.place = Place::Bare;
            }
            _ => {}
        }
    }
}

/// Calls whose arguments are written one by one.
#[derive(Debug, Clone)]
pub(super) struct Parameters {
    format: CallFormat,
    /// The tag before each call.
    begin: String,
    place: Step,
    held: String,
    calls: u32,
    /// The current tool's parameters.
    known: Option<Vec<Parameter>>,
    /// Parameters of the current call so far.
    written: u32,
}

#[derive(Debug, Clone)]
enum Step {
    Name,
    /// After the name.
    Named,
    /// Before a parameter or the end.
    Next,
    /// In the value of this key.
    Value(String),
    /// In arguments that are one object after all.
    Object(Extent),
    Between,
}

impl Parameters {
    /// One decision; whether another may follow.
    fn step(&mut self, tools: &[Tool], out: &mut Vec<Part>) -> bool {
        let CallFormat::Parameters {
            name: before,
            named,
            key: open,
            value: middle,
            done,
            tail,
        } = &self.format
        else {
            return false;
        };
        let held = self.held.as_str();
        let maybe = |text: &str, rest: &str| text.starts_with(rest);
        match &mut self.place {
            Step::Name => {
                let text = held.trim_start();
                let Some(text) = text.strip_prefix(before.trim_start()) else {
                    return false;
                };
                // No name has one of these (`Tools::check`).
                let ends = |c: char| c.is_whitespace() || "\"\\<>{}".contains(c);
                let Some(end) = text.find(ends) else {
                    return false;
                };
                let (name, rest) = text.split_at(end);
                let tool = tools.iter().find(|tool| tool.name == name);
                self.known = tool.and_then(Parameter::of);
                out.push(Part::Call(name.into()));
                self.calls += 1;
                self.written = 0;
                self.held = rest.to_owned();
                self.place = Step::Named;
                true
            }
            Step::Named => {
                let Some(rest) = held.strip_prefix(named.as_str()) else {
                    return false;
                };
                let Some(first) = rest.chars().next() else {
                    return false;
                };
                self.place = if first == '{' {
                    Step::Object(Extent::default())
                } else {
                    Step::Next
                };
                self.held = rest.to_owned();
                true
            }
            Step::Next => {
                if let Some(rest) = held.strip_prefix(open.as_str()) {
                    let Some((key, rest)) = rest.split_once(middle.as_str()) else {
                        return false;
                    };
                    self.place = Step::Value(key.to_owned());
                    self.held = rest.to_owned();
                    return true;
                }
                if maybe(open, held) || (held.len() < tail.len() && maybe(tail, held)) {
                    return false;
                }
                out.push(Part::Arguments(if self.written == 0 {
                    "{}".into()
                } else {
                    "}".into()
                }));
                self.place = Step::Between;
                true
            }
            Step::Value(key) => {
                let Some((value, rest)) = held.split_once(done.as_str()) else {
                    return false;
                };
                let known = self.known.iter().flatten();
                let parameter = known.into_iter().find(|one| one.name == *key);
                let value = match parameter {
                    Some(parameter) => parameter.value.json(value),
                    None => Written::Json(serde_json::Value::Null).json(value),
                };
                let opening = if self.written == 0 { '{' } else { ',' };
                let blank = if self.written == 0 { "" } else { " " };
                let key = serde_json::Value::from(key.as_str());
                out.push(Part::Arguments(format!("{opening}{blank}{key}: {value}")));
                self.written += 1;
                self.held = rest.to_owned();
                self.place = Step::Next;
                true
            }
            Step::Object(extent) => {
                let end = held.char_indices().find(|(_, c)| extent.take(*c));
                let end = end.map(|(at, c)| at + c.len_utf8());
                let rest = self.held.split_off(end.unwrap_or(self.held.len()));
                let text = std::mem::replace(&mut self.held, rest);
                if !text.is_empty() {
                    out.push(Part::Arguments(text));
                }
                if end.is_some() {
                    self.place = Step::Between;
                }
                end.is_some()
            }
            Step::Between => {
                let Some((_, rest)) = held.split_once(self.begin.as_str()) else {
                    return false;
                };
                self.held = rest.to_owned();
                self.place = Step::Name;
                true
            }
        }
    }
}

/// Finds the end of a JSON string, object or array.
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Extent {
    /// Takes a character; whether the value is complete with it. (Numbers and words end with nothing of their own; no
    /// call's arguments are such, and of other values they are skipped up to the next string or bracket.)
    fn take(&mut self, c: char) -> bool {
        if self.in_string {
            match c {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => {
                    self.in_string = false;
                    return self.depth == 0;
                }
                _ => {}
            }
            return false;
        }
        match c {
            '"' => self.in_string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            ',' if self.depth == 0 => return true,
            _ => {}
        }
        false
    }
}
