//! Conversations about tools as a template takes them.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value, json};

use super::{Begin, CALL_IDS, CallFormat, Calls, Past, TOOL_CALL, TOOLS};
use crate::chat::Tool;
use crate::template::python_json;

/// A tool in OpenAI's shape, as templates want it.
pub fn definition(tool: &Tool) -> Value {
    let mut function = Map::new();
    function.insert("name".into(), tool.name.clone().into());
    // Templates read it without asking whether it is there.
    let description = tool.description.clone().unwrap_or_default();
    function.insert("description".into(), description.into());
    let parameters = tool.parameters.clone();
    let none = || json!({"type": "object", "properties": {}});
    function.insert("parameters".into(), parameters.unwrap_or_else(none));
    json!({"type": "function", "function": function})
}

impl Calls {
    /// The messages as the template takes them. If it shows calls: those with their arguments in the form that it
    /// wants. If not: calls as the model writes them. If it shows no tools: results as the user's words, and the tools
    /// in the system message.
    pub fn fitting(&self, messages: &[Value], tools: &[Tool]) -> Vec<Value> {
        let calls = messages
            .iter()
            .filter_map(|message| message["tool_calls"].as_array());
        // A result names its call by id alone.
        let names: HashMap<&str, &str> = calls
            .flatten()
            .filter_map(|call| Some((call["id"].as_str()?, call["function"]["name"].as_str()?)))
            .collect();
        let mut out = Vec::with_capacity(messages.len());
        for message in messages {
            let id = message["tool_call_id"].as_str();
            let name = message["name"].as_str().or_else(|| names.get(id?).copied());
            self.add(message, name, &mut out);
        }
        if self.single {
            out = one_by_one(out);
        }
        if !self.shown && !tools.is_empty() {
            let guide = self.guide(tools);
            match out.first_mut() {
                Some(first) if first["role"] == "system" => {
                    let said = text_of(first.get("content"));
                    let gap = if self.is_phi() { "" } else { "\n\n" };
                    first["content"] = format!("{said}{gap}{guide}").into();
                }
                _ => out.insert(0, json!({"role": "system", "content": guide})),
            }
        }
        out
    }

    /// Adds a message; `name` is the tool's whose result it is.
    fn add(&self, message: &Value, name: Option<&str>, out: &mut Vec<Value>) {
        if self.past != Past::Spelled {
            return out.push(self.shaped(message, name));
        }
        if message["role"] == "tool" {
            let said = text_of(message.get("content"));
            if self.shown {
                return out.push(message.clone());
            }
            if self.is_phi() {
                return out.push(json!({"role": "tool_response", "content": said}));
            }
            let name = name.unwrap_or("the tool");
            return said_by_user(&format!("Result of {name}: {said}").into(), out);
        }
        let calls = message["tool_calls"].as_array();
        let Some(calls) = calls.filter(|calls| !calls.is_empty()) else {
            // Templates want the turns to alternate, and a result is a turn already.
            let after_result = out.last().is_some_and(|last| last["role"] == "user");
            if !self.shown && message["role"] == "user" && after_result {
                return said_by_user(&message["content"], out);
            }
            return out.push(message.clone());
        };
        let calls: Vec<(&str, Value)> = calls
            .iter()
            .map(|call| {
                let name = call["function"]["name"].as_str();
                let text = call["function"]["arguments"].as_str().unwrap_or("{}");
                let arguments = serde_json::from_str(text).unwrap_or_else(|_| json!({}));
                (name.unwrap_or_default(), arguments)
            })
            .collect();
        let said = text_of(message.get("content"));
        let gap = if said.is_empty() { "" } else { "\n" };
        let text = format!("{said}{gap}{}", self.written(&calls));
        out.push(json!({"role": "assistant", "content": text}));
    }

    /// A message of a template that shows calls.
    fn shaped(&self, message: &Value, name: Option<&str>) -> Value {
        let mut message = message.clone();
        let Some(fields) = message.as_object_mut() else {
            return message;
        };
        if let Some(id) = fields.get_mut("tool_call_id") {
            shorten(Some(id));
            // Some templates write it.
            fields.entry("name").or_insert_with(|| name.into());
        }
        let calls = fields.get("tool_calls").and_then(Value::as_array);
        let calls = calls.is_some_and(|calls| !calls.is_empty());
        if !calls {
            // Some templates ask only whether it is there.
            fields.remove("tool_calls");
        }
        if let Some(reasoning) = fields.get("reasoning_content").cloned() {
            // By other names: of gpt-oss, whose template takes it or text before a call, and of Command R.
            if !calls || text_of(fields.get("content")).is_empty() {
                fields.entry("thinking").or_insert(reasoning.clone());
            }
            fields.entry("tool_plan").or_insert(reasoning);
        }
        let calls = fields.get_mut("tool_calls").and_then(Value::as_array_mut);
        for call in calls.into_iter().flatten() {
            shorten(call.get_mut("id"));
            let function = call.get_mut("function").and_then(Value::as_object_mut);
            let Some(arguments) = function.and_then(|function| function.get_mut("arguments"))
            else {
                continue;
            };
            let Value::String(text) = arguments else {
                continue;
            };
            let parsed = serde_json::from_str::<Map<String, Value>>(text);
            match (self.past, parsed) {
                (Past::Objects, parsed) => *arguments = parsed.unwrap_or_default().into(),
                (_, Err(_)) => *arguments = "{}".into(),
                (_, Ok(_)) => {}
            }
        }
        message
    }

    /// What a model is told whose template shows it no tools.
    fn guide(&self, tools: &[Tool]) -> String {
        let list: Vec<Value> = tools
            .iter()
            .map(|tool| definition(tool)["function"].clone())
            .collect();
        let list = python_json(&list.into());
        if self.is_phi() {
            return format!("{}{list}{}", TOOLS.0, TOOLS.1);
        }
        let form = self.written(&[("NAME", json!({"KEY": "VALUE"}))]);
        format!(
            "You can call these tools: {list}\nTo call some, answer with nothing but text of this form: {form}\n\
             You then get their results."
        )
    }

    /// Phi 4 mini's template writes no tags, and takes them from the messages.
    fn is_phi(&self) -> bool {
        !self.shown && self.begin == Begin::Tag(TOOL_CALL.into())
    }

    /// Calls as the model writes them.
    fn written(&self, calls: &[(&str, Value)]) -> String {
        let begin = match &self.begin {
            Begin::Tag(tag) => tag,
            Begin::Wrapper => "{\"tool_calls\": ",
            Begin::Object | Begin::Header => "",
        };
        let end = match &self.begin {
            Begin::Wrapper => "}",
            _ => self.end.as_deref().unwrap_or_default(),
        };
        let each = calls.iter().map(|(name, arguments)| {
            let object = python_json(arguments);
            match &self.format {
                CallFormat::Json {
                    name: name_key,
                    arguments: key,
                    list,
                } => {
                    let call = format!("{{\"{name_key}\": \"{name}\", \"{key}\": {object}}}");
                    match (list, &self.begin) {
                        (false, Begin::Tag(_)) => format!("{begin}\n{call}\n{end}"),
                        _ => call,
                    }
                }
                CallFormat::Named {
                    each: Some(each),
                    arguments,
                    ..
                } => format!("{}{name}{arguments}{object}{}", each.open, each.close),
                CallFormat::Named { arguments, .. } => {
                    format!("{begin}{name}{arguments}{object}{end}")
                }
                CallFormat::Parameters {
                    name: before,
                    named,
                    key: open,
                    value: middle,
                    done,
                    tail,
                } => {
                    let fields = arguments.as_object().into_iter().flatten();
                    let fields = fields.map(|(key, value)| {
                        let value = value
                            .as_str()
                            .map_or_else(|| python_json(value), Into::into);
                        format!("{open}{key}{middle}{value}{done}")
                    });
                    let fields: String = fields.collect();
                    format!("{begin}{before}{name}{named}{fields}{tail}{end}")
                }
                // Its template shows calls.
                CallFormat::Harmony => String::new(),
            }
        });
        let each: Vec<String> = each.collect();
        match &self.format {
            CallFormat::Json { list: true, .. } => format!("{begin}[{}]{end}", each.join(", ")),
            CallFormat::Named { each: Some(_), .. } => format!("{begin}{}{end}", each.concat()),
            CallFormat::Json { .. } => each.join("\n"),
            _ => each.concat(),
        }
    }
}

/// Adds what a user said to the last message if that is a user's too.
fn said_by_user(content: &Value, out: &mut Vec<Value>) {
    let last = out.last_mut().filter(|last| last["role"] == "user");
    let Some(last) = last else {
        return out.push(json!({"role": "user", "content": content}));
    };
    // Grown in place: a conversation may hold very many results in a row.
    last["content"] = match (last["content"].take(), content) {
        (Value::String(mut before), Value::String(more)) => {
            before.push_str("\n\n");
            before.push_str(more);
            before.into()
        }
        (Value::Array(mut parts), more) => {
            parts.extend(parts_of(more));
            parts.into()
        }
        (before, more) => {
            let parts = [&before, more].into_iter().flat_map(parts_of);
            parts.collect::<Vec<_>>().into()
        }
    };
}

fn parts_of(content: &Value) -> Vec<Value> {
    match content {
        Value::Array(parts) => parts.clone(),
        other => vec![json!({"type": "text", "text": text_of(Some(other))})],
    }
}

/// The messages with one call in each, its result right after it.
fn one_by_one(messages: Vec<Value>) -> Vec<Value> {
    let mut out = Vec::with_capacity(messages.len());
    let mut messages = messages.into_iter().peekable();
    while let Some(mut message) = messages.next() {
        let calls = match message.get("tool_calls").and_then(Value::as_array) {
            Some(calls) if calls.len() > 1 => calls.clone(),
            _ => {
                out.push(message);
                continue;
            }
        };
        let mut results = Vec::new();
        while let Some(result) = messages.next_if(|message| message["role"] == "tool") {
            results.push(result);
        }
        for call in calls {
            let id = call["id"].clone();
            message["tool_calls"] = json!([call]);
            out.push(message.clone());
            // What was said and thought comes before the first.
            message = json!({"role": "assistant", "content": ""});
            if let Some(at) = results
                .iter()
                .position(|result| result["tool_call_id"] == id)
            {
                out.push(results.remove(at));
            }
        }
        out.append(&mut results);
    }
    out
}

/// Makes a call's id one of nine letters and digits, the only ones that Mistral's templates take. The same id always
/// becomes the same.
fn shorten(id: Option<&mut Value>) {
    let Some(Value::String(id)) = id else { return };
    if id.len() == CALL_IDS[0].len() && id.chars().all(|c| c.is_ascii_alphanumeric()) {
        return;
    }
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    *id = format!("{:09x}", hasher.finish() >> 28);
}

/// Text of a message's content, its parts joined.
fn text_of(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}
