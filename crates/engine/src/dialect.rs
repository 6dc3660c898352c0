//! How a model writes what is not plain text: its reasoning, and its calls of tools.
//!
//! Nobody declares it, but the chat template shows it: a conversation in which made-up tools are called is rendered,
//! and what stands around the calls in the text is the format (Hermes and Qwen: `<tool_call>{"name", "arguments"}`,
//! Llama 3: a bare object with `parameters`, Mistral: `[TOOL_CALLS]` and a list, or names between tags, Qwen3-Coder:
//! a tag for each parameter, gpt-oss: channels; others alike). A few templates show tools and no calls; there the
//! format is the one that they, or the vocabulary, name. A template that shows nothing that is known here gets the
//! tools in its system message, and the model answers with a JSON object that lists calls.
//!
//! From the format follow the messages as the template takes them ([`Calls::fitting`]), the grammar that a request's
//! answer must satisfy ([`Form`]), and the way its text is split into parts ([`crate::split`]). Pure.

use serde_json::{Map, Value, json};

use crate::chat::{Tool, ToolChoice, Tools};
use crate::template::{ChatTemplate, TemplateInput};

mod form;
pub(crate) mod harmony;
mod messages;
mod parameters;

pub use form::{Form, Opening};
pub use messages::definition;
pub use parameters::arguments;
pub(crate) use parameters::{Parameter, Written};

/// See the module's documentation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dialect {
    /// What stands around reasoning; `None` for models that do not reason.
    pub thinking: Option<Tags>,
    /// What some models put around plain text.
    pub answer: Option<Tags>,
    /// How tools are called.
    pub calls: Calls,
}

/// The texts before and after something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags {
    /// Before it.
    pub open: String,
    /// After it.
    pub close: String,
}

impl Tags {
    /// These two.
    pub fn new(open: &str, close: &str) -> Self {
        Self {
            open: open.into(),
            close: close.into(),
        }
    }
}

/// How tools are called.
#[derive(Debug, Clone, PartialEq)]
pub struct Calls {
    /// What begins them.
    pub begin: Begin,
    /// How one is written.
    pub format: CallFormat,
    /// The tag after each call, or after the list of them.
    pub end: Option<String>,
    /// Whether the template takes the tools; else they are written into the system message.
    pub shown: bool,
    /// How the template takes past calls and their results.
    pub past: Past,
    /// Whether a message holds one call only.
    pub single: bool,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            begin: Begin::Wrapper,
            format: CallFormat::Json {
                name: "name",
                arguments: "arguments",
                list: true,
            },
            end: None,
            shown: false,
            past: Past::Spelled,
            single: false,
        }
    }
}

/// How a template takes past calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// Not at all: they become the text that the model wrote.
    Spelled,
    /// With their arguments as JSON text.
    Text,
    /// With their arguments as objects.
    Objects,
}

/// What begins calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// A tag; plain text may stand before it.
    Tag(String),
    /// The call's own object, as the first thing of the answer.
    Object,
    /// `{"tool_calls": [` as the first thing of the answer.
    Wrapper,
    /// The header of a message (Harmony).
    Header,
}

/// How a call is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallFormat {
    /// An object with the name and the arguments.
    Json {
        /// Key of the name.
        name: &'static str,
        /// Key of the arguments.
        arguments: &'static str,
        /// Whether calls are the elements of one list; else each has its own tags.
        list: bool,
    },
    /// The bare name, a tag, and the arguments as an object.
    Named {
        /// The tags around each call, if all of them together have tags of their own.
        each: Option<Tags>,
        /// The tag before a call's id, between its name and its arguments.
        id: Option<String>,
        /// The tag before the arguments.
        arguments: String,
    },
    /// The bare name, and each argument by itself: text as it is, everything else as JSON. What stands between:
    Parameters {
        /// Between what begins the call and its name.
        name: String,
        /// After the name.
        named: String,
        /// Before a key.
        key: String,
        /// Between a key and its value.
        value: String,
        /// After a value.
        done: String,
        /// After the last value.
        tail: String,
    },
    /// Messages with a channel each, of which some go to a tool (OpenAI's Harmony,
    /// <https://cookbook.openai.com/articles/openai-harmony>).
    Harmony,
}

/// The tag before calls of Granite 3 and Phi 4 mini, and the tags around tools of the latter.
const TOOL_CALL: &str = "<|tool_call|>";
const TOOLS: (&str, &str) = ("<|tool|>", "<|/tool|>");

/// Names in the conversation that is rendered to see the format.
const TOOL: &str = "probe_tool";
const OTHER: &str = "probe_second";
const KEYS: [&str; 2] = ["probe_key", "probe_more"];
const VALUES: [&str; 2] = ["probe_value", "probe_rest"];
/// Of a tool that is shown and not called.
const SHOWN: &str = "probe_shown";
/// Nine letters: Mistral's templates take no other length.
const CALL_IDS: [&str; 2] = ["probecall", "probenext"];

/// Pairs of tags that models put around reasoning.
const THINKING: [(&str, &str); 5] = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("<thinking>", "</thinking>"),
];
/// Pairs of tags that models put around plain text.
const ANSWER: [(&str, &str); 2] = [
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<response>", "</response>"),
];

impl Dialect {
    /// Reads the dialect off a template. `source` is its text, `knows` tells whether the vocabulary has a token.
    pub fn of(template: &ChatTemplate, source: &str, knows: &dyn Fn(&str) -> bool) -> Self {
        let calls = Calls::of(template, knows).unwrap_or_default();
        if calls.format == CallFormat::Harmony {
            return Self {
                thinking: Some(Tags::new(harmony::ANALYSIS, harmony::END)),
                answer: None,
                calls,
            };
        }
        let tags = |pair: &(&str, &str)| Tags::new(pair.0, pair.1);
        let thinks = |pair: &&(&str, &str)| source.contains(pair.1) || knows(pair.1);
        // Elsewhere such tags stand around a tool's result.
        let answers =
            |pair: &&(&str, &str)| source.contains(&[pair.0, pair.1].concat()) || knows(pair.1);
        Self {
            thinking: THINKING.iter().find(thinks).map(tags),
            answer: ANSWER.iter().find(answers).map(tags),
            calls,
        }
    }

    /// Whether a rendered prompt ends inside reasoning.
    pub fn ends_in_reasoning(&self, prompt: &str) -> bool {
        let opened = |tags: &Tags| prompt.trim_end().ends_with(tags.open.as_str());
        self.thinking.as_ref().is_some_and(opened)
    }

    /// Whether a rendered prompt ends with reasoning that is over.
    pub fn ends_after_reasoning(&self, prompt: &str) -> bool {
        let closed = |tags: &Tags| prompt.trim_end().ends_with(tags.close.as_str());
        self.thinking.as_ref().is_some_and(closed)
    }

    /// What a model writes to end its reasoning, up to where the rest of its answer begins: the first time, and each
    /// time that it began it again, if it may. None for models that do not reason.
    pub fn after_reasoning(&self, tools: &Tools) -> Vec<String> {
        let Some(Tags { close, .. }) = &self.thinking else {
            return Vec::new();
        };
        match self.calls.format {
            // Whoever reasons on is told which message comes; with tools it may choose once more.
            CallFormat::Harmony => {
                let next = format!("{close}{}", harmony::TURN);
                let answer = format!("{next}{}", harmony::FINAL);
                let call = format!("{next}{}", harmony::CALL);
                match tools.choice {
                    _ if tools.callable().is_empty() => vec![next, answer],
                    ToolChoice::Required | ToolChoice::Named(_) => vec![next, call],
                    ToolChoice::Auto | ToolChoice::None => vec![next.clone(), next, answer],
                }
            }
            _ => vec![format!("\n{close}\n\n")],
        }
    }

    /// What a model writes before plain text.
    pub fn before_text(&self) -> &str {
        match (&self.calls.format, &self.answer) {
            (CallFormat::Harmony, _) => harmony::FINAL,
            (_, Some(tags)) => &tags.open,
            _ => "",
        }
    }

    /// All tags. Those that are control tokens must be kept in an answer's text.
    pub fn tags(&self) -> Vec<&str> {
        let mut tags = Vec::new();
        for pair in [&self.thinking, &self.answer].into_iter().flatten() {
            tags.extend([pair.open.as_str(), pair.close.as_str()]);
        }
        if let Begin::Tag(tag) = &self.calls.begin {
            tags.push(tag);
        }
        tags.extend(self.calls.end.as_deref());
        match &self.calls.format {
            CallFormat::Named {
                each,
                id,
                arguments,
            } => {
                let each = each.iter().flat_map(|each| [&each.open, &each.close]);
                tags.extend(each.chain(id).chain([arguments]).map(String::as_str));
            }
            CallFormat::Harmony => tags.extend(harmony::TAGS),
            CallFormat::Json { .. } | CallFormat::Parameters { .. } => {}
        }
        tags.retain(|tag| !tag.is_empty());
        tags
    }
}

impl Calls {
    /// The format that a template shows or names, if it is one that is known here.
    fn of(template: &ChatTemplate, knows: &dyn Fn(&str) -> bool) -> Option<Self> {
        let user = json!({"role": "user", "content": "u"});
        let tools = [definition(&Tool {
            name: SHOWN.into(),
            ..Tool::default()
        })];
        let only = std::slice::from_ref(&user);
        let shown = render(template, only, &tools, true).filter(|text| text.contains(SHOWN));
        let header = {
            let with = render(template, only, &tools, true)?;
            let without = render(template, only, &tools, false)?;
            with.strip_prefix(&without).unwrap_or_default().to_owned()
        };
        let object: Map<String, Value> = std::iter::zip(KEYS, VALUES)
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        let object = Value::from(object);
        // As text first: past arguments then stand in the prompt as they were written, and the cache knows them.
        for (past, arguments) in [
            (Past::Text, object.to_string().into()),
            (Past::Objects, object),
        ] {
            let conversation = |names: &[&str]| {
                let ids = || names.iter().zip(CALL_IDS);
                let call = |(name, id)| {
                    let function = json!({"name": name, "arguments": arguments});
                    json!({"id": id, "type": "function", "function": function})
                };
                let result = |(name, id)| json!({"role": "tool", "tool_call_id": id, "name": name, "content": "r"});
                let calls: Vec<Value> = ids().map(call).collect();
                let mut messages = vec![user.clone()];
                messages.push(json!({"role": "assistant", "content": "", "tool_calls": calls}));
                messages.extend(ids().map(result));
                render(template, &messages, &tools, false)
            };
            let Some(one) = conversation(&[TOOL]) else {
                continue;
            };
            let two = conversation(&[TOOL, OTHER]).filter(|text| text.contains(OTHER));
            if let Some(calls) = Self::around(&one, two.as_deref(), &header) {
                return Some(Self {
                    shown: shown.is_some(),
                    past,
                    single: two.is_none(),
                    ..calls
                });
            }
        }
        Self::named(shown.as_deref(), knows)
    }

    /// The format of a template that shows no calls: the one that what it says of tools, or the vocabulary, names.
    fn named(shown: Option<&str>, knows: &dyn Fn(&str) -> bool) -> Option<Self> {
        let says = |tag: &str| shown.is_some_and(|shown| shown.contains(tag));
        let json = |tag: &str, list, end: Option<&str>| Self {
            begin: Begin::Tag(tag.into()),
            format: CallFormat::Json {
                name: "name",
                arguments: "arguments",
                list,
            },
            end: end.map(Into::into),
            shown: shown.is_some(),
            ..Self::default()
        };
        let [hermes, hermes_end, phi_end] = ["<tool_call>", "</tool_call>", "<|/tool_call|>"];
        // Phi 4 mini has the tags in its vocabulary, and a template that knows nothing of them.
        if shown.is_none() && knows(TOOLS.0) && knows(phi_end) {
            return Some(json(TOOL_CALL, true, Some(phi_end)));
        }
        if says(hermes_end) {
            return Some(json(hermes, false, Some(hermes_end)));
        }
        // Granite 3.
        let granite = says(TOOL_CALL) || (shown.is_some() && knows(TOOL_CALL));
        granite.then(|| json(TOOL_CALL, true, None))
    }

    /// Reads the format off the text of a conversation with one call, and of one with two.
    fn around(text: &str, two: Option<&str>, header: &str) -> Option<Self> {
        let (before, rest) = text.split_once(TOOL)?;
        let (between, after) = rest.split_once(KEYS[0])?;
        let is_object = between
            .strip_suffix('"')
            .is_some_and(|between| between.trim_end().ends_with('{'))
            && after.starts_with("\":");
        if !is_object {
            return Self::with_parameters(before, between, after, header);
        }
        let (_, after) = after.split_once('}')?;
        if before.ends_with(harmony::TO) && between.contains(harmony::CHANNEL) {
            Some(Self::new(Begin::Header, CallFormat::Harmony, None))
        } else if before.ends_with('"') {
            Self::with_json(before, between, after, header)
        } else {
            Self::with_name(before, between, two, header)
        }
    }

    /// `{"name": "probe_tool", "arguments": {`
    fn with_json(before: &str, between: &str, after: &str, header: &str) -> Option<Self> {
        let before = before.strip_suffix('"')?.trim_end().strip_suffix(':')?;
        let name = ["name", "tool_name"]
            .into_iter()
            .find(|key| before.trim_end().ends_with(&format!("\"{key}\"")))?;
        let before = before[..before.rfind('{')?].trim_end();
        // Some put an object around the function, as OpenAI does.
        if before.ends_with(':') {
            return None;
        }
        let arguments = ["arguments", "parameters"]
            .into_iter()
            .find(|key| between.contains(&format!("\"{key}\"")))?;
        let (before, list) = match before.strip_suffix('[') {
            Some(outer) => (outer, true),
            None => (before, false),
        };
        let begin = new_tag(before, header);
        // What more the object has, and no other tag.
        let ends = |end: &String| after.find(['<', end.as_bytes()[0].into()]) == after.find(end);
        let end = begin
            .and_then(closing)
            .filter(|end| after.contains(end) && ends(end));
        let begin = match begin {
            Some(tag) => Begin::Tag(tag.into()),
            None if list => return None,
            None => Begin::Object,
        };
        let format = CallFormat::Json {
            name,
            arguments,
            list,
        };
        Some(Self::new(begin, format, end))
    }

    /// `probe_tool[ARGS]{`
    fn with_name(before: &str, between: &str, two: Option<&str>, header: &str) -> Option<Self> {
        let inner = new_tag(before, header).filter(|tag| before.ends_with(tag))?;
        let between = between.split('{').next()?.trim();
        let arguments = last_tag(between)?;
        let id = between.strip_suffix(arguments)?.trim_end();
        let id = match id.strip_suffix(CALL_IDS[0]) {
            Some(tag) => Some(last_tag(tag).filter(|last| *last == tag)?.to_owned()),
            None if id.is_empty() => None,
            None => return None,
        };
        let format = |each| CallFormat::Named {
            each,
            id: id.clone(),
            arguments: arguments.into(),
        };
        let alone = |end| Self::new(Begin::Tag(inner.into()), format(None), end);
        let Some((again, after)) = two.and_then(|two| {
            let (_, rest) = two.split_once(VALUES[1])?;
            let (again, rest) = rest.split_once('}')?.1.split_once(OTHER)?;
            Some((again.trim(), rest.split_once('}')?.1.trim_start()))
        }) else {
            return Some(alone(None));
        };
        let close = again.strip_suffix(inner)?.trim_end();
        if close.is_empty() {
            return Some(alone(None));
        }
        let outer = new_tag(before.strip_suffix(inner)?, header);
        let outer = outer.and_then(|outer| Some((outer, closing(outer)?)));
        let after = after.strip_prefix(close)?.trim_start();
        Some(match outer {
            Some((outer, end)) if after.starts_with(end.as_str()) => {
                let each = Some(Tags::new(inner, close));
                Self::new(Begin::Tag(outer.into()), format(each), Some(end))
            }
            _ => alone(Some(close.into())),
        })
    }

    /// `<function=probe_tool><parameter=probe_key>probe_value</parameter>`
    fn with_parameters(before: &str, between: &str, after: &str, header: &str) -> Option<Self> {
        let (value, rest) = after.split_once(VALUES[0])?;
        let (joint, rest) = rest.split_once(KEYS[1])?;
        let rest = rest.strip_prefix(value)?.strip_prefix(VALUES[1])?;
        // What stands before both keys is what opens a parameter, from its tag on.
        let both = common_end(between, joint);
        let key = &both[both.find(['<', '['])?..];
        let named = between.strip_suffix(key)?;
        let done = joint.strip_suffix(key)?;
        let rest = rest.strip_prefix(done)?;
        if value.is_empty() || done.trim().is_empty() {
            return None;
        }
        let (tags, name) = before.split_at(before.rfind(['>', ']'])? + 1);
        let begin = new_tag(tags, header)?;
        let end = closing(begin)?;
        let (tail, _) = rest.split_once(end.as_str())?;
        let format = CallFormat::Parameters {
            name: name.into(),
            named: named.into(),
            key: key.into(),
            value: value.into(),
            done: done.into(),
            tail: tail.into(),
        };
        Some(Self::new(Begin::Tag(begin.into()), format, Some(end)))
    }

    fn new(begin: Begin, format: CallFormat, end: Option<String>) -> Self {
        Self {
            begin,
            format,
            end,
            ..Self::default()
        }
    }
}

fn render(
    template: &ChatTemplate,
    messages: &[Value],
    tools: &[Value],
    open: bool,
) -> Option<String> {
    let input = TemplateInput {
        messages,
        tools,
        variables: &Map::new(),
        bos: "",
        eos: "",
        add_generation_prompt: open,
        now: 0,
    };
    template.render(&input).ok()
}

/// The tag (`<…>` or `[…]`) that a text ends with, blanks aside.
fn last_tag(text: &str) -> Option<&str> {
    let text = text.trim_end();
    let open = match text.chars().next_back()? {
        '>' => '<',
        ']' => '[',
        _ => return None,
    };
    let tag = &text[text.rfind(open)?..];
    (tag.len() > 2 && !tag.contains(char::is_whitespace)).then_some(tag)
}

/// The tag that a text ends with, if it is neither of the answer's header nor of its reasoning.
fn new_tag<'a>(text: &'a str, header: &str) -> Option<&'a str> {
    let thinks = |tag: &&str| THINKING.iter().any(|(_, close)| close == tag);
    last_tag(text).filter(|tag| !header.contains(tag) && !thinks(tag))
}

/// The tag that closes what `tag` opens, by the ways in which such pairs are named.
fn closing(tag: &str) -> Option<String> {
    for (open, close) in [("_start", "_end"), ("START_", "END_"), ("begin", "end")] {
        if tag.contains(open) {
            return Some(tag.replace(open, close));
        }
    }
    for open in ["<|", "<", "["] {
        if let Some(name) = tag.strip_prefix(open) {
            return Some(format!("{open}/{name}"));
        }
    }
    None
}

/// The longest text that both end with.
fn common_end<'a>(a: &'a str, b: &str) -> &'a str {
    let pairs = std::iter::zip(a.chars().rev(), b.chars().rev());
    let same = pairs.take_while(|(a, b)| a == b);
    let length: usize = same.map(|(a, _)| a.len_utf8()).sum();
    &a[a.len() - length..]
}
