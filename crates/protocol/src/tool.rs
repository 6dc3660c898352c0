//! Tools in OpenAI's shape: what a model may call, and its calls.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::ApiError;

/// A tool that the model may call.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct ToolDefinition {
    /// `function` is supported.
    #[serde(rename = "type")]
    pub kind: String,
    /// The function.
    pub function: Option<FunctionDefinition>,
}

/// A function that the model may call.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct FunctionDefinition {
    /// Its name.
    pub name: String,
    /// What it does, for the model.
    pub description: Option<String>,
    /// JSON Schema of its arguments; left out, it takes none.
    #[schema(value_type = Option<Object>)]
    pub parameters: Option<Value>,
    /// Whether a schema that cannot be enforced is an error.
    pub strict: Option<bool>,
}

impl ToolDefinition {
    /// The function, or why there is none; `place` is the tool's path in the request.
    pub fn function(&self, place: &str) -> Result<&FunctionDefinition, ApiError> {
        if self.kind != "function" {
            return Err(ApiError::unsupported(
                &format!("{place}.type"),
                format!(
                    "{place}: tools of type `{}` are not supported; use `function`",
                    self.kind
                ),
            ));
        }
        self.function.as_ref().ok_or_else(|| {
            let param = format!("{place}.function");
            let message = format!("{param} is missing");
            ApiError::invalid(Some(param), message)
        })
    }
}

/// Whether the model must call a tool.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected `auto`, `none`, `required` or an object that names a function"
)]
pub enum ToolChoice {
    /// `auto`, `none` or `required`.
    Mode(ToolMode),
    /// This function.
    Named(NamedTool),
}

/// How free the model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ToolMode {
    /// It may call.
    Auto,
    /// It may not.
    None,
    /// It must call.
    #[serde(alias = "any")]
    Required,
}

/// One function that must be called.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct NamedTool {
    /// Always `function`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The function.
    pub function: NamedFunction,
}

/// A function's name.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct NamedFunction {
    /// Its name.
    pub name: String,
}

/// A call that the model made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct ToolCall {
    /// Its id, which the result repeats.
    pub id: String,
    /// Always `function`.
    #[serde(rename = "type", default = "function")]
    pub kind: String,
    /// What is called.
    pub function: FunctionCall,
}

fn function() -> String {
    "function".into()
}

/// What is called, and with what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct FunctionCall {
    /// The function's name.
    pub name: String,
    /// Its arguments: JSON text, unfinished if `max_tokens` cut the call (see [`whole_arguments`]).
    pub arguments: String,
}

impl ToolCall {
    /// A call of a function.
    pub fn new(id: String, name: String, arguments: String) -> Self {
        Self {
            id,
            kind: function(),
            function: FunctionCall { name, arguments },
        }
    }
}

/// A call's arguments as whole JSON text. What `max_tokens` cut in the middle is closed where it ends: a text that is a
/// value keeps what came of it, and whatever else is unfinished is left out. `None` if they are not JSON, nor what begins
/// a JSON object.
pub fn whole_arguments(text: &str) -> Option<Cow<'_, str>> {
    if text.is_empty() || serde_json::from_str::<Value>(text).is_ok() {
        return Some(Cow::Borrowed(text));
    }
    let closed = closed(text)?;
    let is_whole = serde_json::from_str::<Map<String, Value>>(&closed).is_ok();
    is_whole.then_some(Cow::Owned(closed))
}

/// The refusal of arguments that [`whole_arguments`] cannot take; `param` is their place in the request.
pub(crate) fn no_arguments(param: String) -> ApiError {
    let message = format!(
        "{param} is neither JSON nor the beginning of a JSON object, which an answer leaves that ended with \
         finish_reason `length`; send the text that the model gave, or leave the call out"
    );
    ApiError::invalid(Some(param), message)
}

/// The longest beginning of unfinished JSON after which only closing signs are missing, with these. Whether it is JSON
/// is for a parser to say.
fn closed(text: &str) -> Option<String> {
    // What closes the objects and lists that are open, and where the text can be cut inside of the last of them.
    let (mut open, mut safe) = (Vec::new(), 0);
    // Whether the next string is a key; where a string that has not ended began; whether a number or word goes on.
    let (mut is_key, mut string, mut is_bare) = (false, None, false);
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let is_delimiter = matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
        if is_bare && is_delimiter {
            (is_bare, safe) = (false, at);
        }
        at += 1;
        match byte {
            b'{' | b'[' => {
                open.push(if *byte == b'{' { '}' } else { ']' });
                (is_key, safe) = (*byte == b'{', at);
            }
            b'}' | b']' => {
                open.pop()?;
                safe = at;
            }
            b',' => is_key = open.last() == Some(&'}'),
            b':' => is_key = false,
            b'"' => match end_of_string(bytes, at) {
                Some(end) => {
                    at = end;
                    if !is_key {
                        safe = at;
                    }
                }
                None => {
                    string = Some(at);
                    break;
                }
            },
            _ if is_delimiter => {}
            _ => is_bare = true,
        }
    }
    let mut closed = match string.filter(|_| !is_key) {
        Some(start) => format!("{}\"", text.get(..whole_characters(bytes, start))?),
        None => text.get(..safe)?.to_owned(),
    };
    closed.extend(open.iter().rev());
    Some(closed)
}

/// The place after the quotation mark that ends a string.
fn end_of_string(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Where the last whole character ends of a string that has no end. An escape may be cut, or the second half of a pair
/// missing (`\ud83d\ude00` is one character).
fn whole_characters(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    let unit = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    while let Some(byte) = bytes.get(at) {
        let length = match (byte, bytes.get(at + 1)) {
            (b'\\', Some(b'u')) => match unit(at) {
                Some(0xd800..=0xdbff) => 12,
                _ => 6,
            },
            (b'\\', _) => 2,
            _ => 1,
        };
        if at + length > bytes.len() {
            break;
        }
        at += length;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_cut_is_closed() {
        for (cut, whole) in [
            ("", ""),
            ("null", "null"),
            (r#"{"a": 1}"#, r#"{"a": 1}"#),
            ("{", "{}"),
            (r#"{"na"#, "{}"),
            (r#"{"name""#, "{}"),
            (r#"{"name": "#, "{}"),
            (r#"{"name": "ki"#, r#"{"name": "ki"}"#),
            (r#"{"name": "tea", "#, r#"{"name": "tea"}"#),
            (r#"{"name": "tea", "minutes": 1"#, r#"{"name": "tea"}"#),
            (r#"{"on": tru"#, "{}"),
            (r#"{"on": true "#, r#"{"on": true}"#),
            (r#"{"a": [1, 2"#, r#"{"a": [1]}"#),
            (r#"{"a": [{"b": "x\"}]"#, r#"{"a": [{"b": "x\"}]"}]}"#),
            (r#"{"a": "x\"#, r#"{"a": "x"}"#),
            (r#"{"a": "x\u26"#, r#"{"a": "x"}"#),
            (r#"{"a": "x\ud83d\ude"#, r#"{"a": "x"}"#),
            (r#"{"a": "é"#, r#"{"a": "é"}"#),
        ] {
            assert_eq!(whole_arguments(cut).as_deref(), Some(whole), "{cut}");
        }
        for wrong in [
            "switch it on",
            "{]",
            "}",
            "{'a': 1",
            "[1",
            r#"{"a": x,"#,
            "{}}",
        ] {
            assert_eq!(whole_arguments(wrong), None, "{wrong}");
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Wherever an object is cut, it can be closed, and nothing is in it that was not there.
        #[test]
        fn every_beginning_of_an_object_can_be_closed(
            fields in prop::collection::vec((any::<String>(), json()), 0..4),
            share in 0.0..1.0,
            ascii in any::<bool>(),
        ) {
            let object = Value::Object(fields.into_iter().collect());
            let mut text = object.to_string();
            if ascii {
                let escaped = |c: char| match c.is_ascii() {
                    true => c.to_string(),
                    false => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
                };
                text = text.chars().map(escaped).collect();
            }
            let mut end = 1 + (share * (text.len() - 1) as f64) as usize;
            while !text.is_char_boundary(end) {
                end += 1;
            }
            let whole = whole_arguments(&text[..end]);
            prop_assert!(whole.is_some(), "{}", &text[..end]);
        }
    }
}
