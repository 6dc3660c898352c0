//! A tool's arguments: as one JSON object, and as parameters that are written each by itself.

use serde_json::{Map, Value, json};

use crate::chat::Tool;
use crate::constraint::Constraint;
use crate::schema::is_annotation;

/// A tool's arguments as they are enforced. Most schemas forget to say that there are no other properties; what a model
/// makes up beyond them helps nobody.
pub fn arguments(tool: &Tool) -> Constraint {
    let mut schema = tool
        .parameters
        .clone()
        .unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    let Some(fields) = schema.as_object_mut() else {
        return Constraint::JsonSchema(schema);
    };
    let is_object = match fields.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        kind => kind.is_none_or(|kind| kind == "object"),
    };
    if !is_object {
        // Which nothing satisfies.
        return Constraint::JsonSchema(json!({"allOf": [schema, {"type": "object"}]}));
    }
    fields.insert("type".into(), "object".into());
    let composed = [
        "additionalProperties",
        "patternProperties",
        "unevaluatedProperties",
        "$ref",
        "allOf",
        "anyOf",
        "oneOf",
    ];
    let lists = fields.contains_key("properties");
    if lists && !composed.iter().any(|key| fields.contains_key(*key)) {
        fields.insert("additionalProperties".into(), false.into());
    }
    Constraint::JsonSchema(schema)
}

/// One of the arguments that are written each by itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parameter {
    /// Its key.
    pub name: String,
    /// Whether it must be there.
    pub required: bool,
    /// How its value is written.
    pub value: Written,
}

/// How a value is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Written {
    /// A text as it is.
    Text {
        /// Whether `null` is no text.
        nullable: bool,
        /// Fewest characters.
        least: u64,
        /// Most characters.
        most: Option<u64>,
    },
    /// One of these texts as it is.
    Choice(Vec<String>),
    /// JSON that fits this schema.
    Json(Value),
}

/// Words in a schema of arguments that parameters by themselves keep to.
const PLAIN: [&str; 4] = ["type", "properties", "required", "additionalProperties"];
impl Parameter {
    /// A tool's arguments as parameters; `None` if only a whole object can keep to their schema.
    pub fn of(tool: &Tool) -> Option<Vec<Self>> {
        let Some(schema) = &tool.parameters else {
            return Some(Vec::new());
        };
        let schema = schema.as_object()?;
        let known = |word: &String| PLAIN.contains(&word.as_str()) || is_annotation(word);
        let closed = schema
            .get("additionalProperties")
            .is_none_or(|more| *more == false);
        let object = schema.get("type").is_none_or(|kind| kind == "object");
        if !schema.keys().all(known) || !closed || !object || refers_outside(schema) {
            return None;
        }
        let required: Vec<&str> = match schema.get("required") {
            Some(names) => names
                .as_array()?
                .iter()
                .map(Value::as_str)
                .collect::<Option<_>>()?,
            None => Vec::new(),
        };
        let properties = match schema.get("properties") {
            Some(properties) => properties.as_object()?.clone(),
            None => Map::new(),
        };
        if !required.iter().all(|name| properties.contains_key(*name)) {
            return None;
        }
        let each = properties.into_iter().map(|(name, property)| {
            let odd = |c: char| c.is_control() || "<>[]".contains(c);
            if name.is_empty() || name.contains(odd) {
                return None;
            }
            Some(Self {
                required: required.contains(&name.as_str()),
                value: Written::of(property, schema),
                name,
            })
        });
        each.collect()
    }
}

/// Whether anything in a schema refers to what a value by itself does not bring with it.
fn refers_outside(schema: &Map<String, Value>) -> bool {
    let brought =
        |place: &str| place.starts_with("#/$defs/") || place.starts_with("#/definitions/");
    schema.iter().any(|(word, value)| match value {
        Value::String(place) => word == "$ref" && !brought(place),
        Value::Object(inner) => refers_outside(inner),
        Value::Array(all) => {
            let mut inner = all.iter().filter_map(Value::as_object);
            inner.any(refers_outside)
        }
        _ => false,
    })
}

impl Written {
    /// `root` is the schema that the value's own refers to.
    fn of(schema: Value, root: &Map<String, Value>) -> Self {
        Self::text(&schema).unwrap_or_else(|| {
            let mut schema = schema;
            if let Some(fields) = schema.as_object_mut() {
                for words in ["$defs", "definitions"] {
                    if let Some(words_of_root) = root.get(words) {
                        fields.entry(words).or_insert(words_of_root.clone());
                    }
                }
            }
            Self::Json(schema)
        })
    }

    /// A text, if the schema takes nothing else, and nothing that only JSON's grammar knows (a pattern, a format).
    fn text(schema: &Value) -> Option<Self> {
        let schema = schema.as_object()?;
        let words = schema.keys().map(String::as_str);
        let telling: Vec<&str> = words.filter(|word| !is_annotation(word)).collect();
        // `null` beside it, in one of the two ways to say that.
        if let [union @ ("anyOf" | "oneOf")] = telling[..] {
            let [a, b] = schema[union].as_array()?.as_slice() else {
                return None;
            };
            let null = json!({"type": "null"});
            let text = if *b == null { a } else { b };
            return match Self::text(text)? {
                Self::Text { least, most, .. } if *a == null || *b == null => Some(Self::Text {
                    nullable: true,
                    least,
                    most,
                }),
                _ => None,
            };
        }
        let nullable = match schema.get("type") {
            Some(Value::String(kind)) if kind == "string" => false,
            Some(Value::Array(kinds)) if kinds.len() == 2 => {
                let has = |kind: &str| kinds.iter().any(|other| other == kind);
                if !has("string") || !has("null") {
                    return None;
                }
                true
            }
            None if telling == ["enum"] => false,
            _ => return None,
        };
        if let Some(choices) = schema.get("enum") {
            let plain = |choice: &Value| {
                let text = choice.as_str()?;
                let odd = |c: char| c.is_control() || "<[".contains(c);
                (!text.contains(odd)).then(|| text.to_owned())
            };
            let choices: Option<Vec<String>> = choices.as_array()?.iter().map(plain).collect();
            let only = telling.iter().all(|word| ["type", "enum"].contains(word));
            return choices
                .filter(|choices| only && !nullable && !choices.is_empty())
                .map(Self::Choice);
        }
        let lengths = ["type", "minLength", "maxLength"];
        if !telling.iter().all(|word| lengths.contains(word)) {
            return None;
        }
        let length = |word: &str| match schema.get(word) {
            Some(length) => length.as_u64().map(Some),
            None => Some(None),
        };
        let (least, most) = (length("minLength")?.unwrap_or(0), length("maxLength")?);
        // A tag within the fewest characters must not count as text, and telling both apart takes an automaton of
        // their product.
        let longest = if least == 0 {
            LONGEST
        } else {
            LONGEST_WITH_LEAST
        };
        let fits = most.unwrap_or(least) >= least && most.unwrap_or(least) <= longest;
        fits.then_some(Self::Text {
            nullable,
            least,
            most,
        })
    }

    /// The value as JSON text.
    pub fn json(&self, written: &str) -> String {
        match self {
            Self::Text { nullable: true, .. } if written == "null" => written.to_owned(),
            Self::Text { .. } | Self::Choice(_) => Value::from(written).to_string(),
            Self::Json(_) => written.trim().to_owned(),
        }
    }
}

/// Most characters of a text whose length is enforced while it is written as it is.
const LONGEST: u64 = 1 << 16;
/// The same where it has a fewest.
const LONGEST_WITH_LEAST: u64 = 64;
