//! Which JSON Schemas are taken. Pure.
//!
//! The grammar compiler refuses keywords that it knows and cannot enforce, and passes over words that it does not know,
//! as JSON Schema's own rules say (draft 2020-12, core, section 4.3.1). Here such a word would be a promise not kept: a
//! misspelt `maxlength`, or a keyword of another draft. So only these words may stand where keywords stand.

use serde_json::Value;

/// Keywords that the grammar compiler enforces or refuses by itself, with a reason.
const ENFORCED: &[&str] = &[
    "$ref",
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "contains",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "else",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "if",
    "items",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "propertyNames",
    "required",
    "then",
    "type",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
];

/// Words that say something to people or tools and nothing about which values fit. `nullable` is OpenAPI's: without it
/// fewer values fit, so leaving it out keeps the promise.
const ANNOTATIONS: &[&str] = &[
    "$anchor",
    "$comment",
    "$defs",
    "$id",
    "$schema",
    "contentEncoding",
    "contentMediaType",
    "default",
    "definitions",
    "deprecated",
    "description",
    "discriminator",
    "example",
    "examples",
    "externalDocs",
    "id",
    "nullable",
    "readOnly",
    "title",
    "writeOnly",
    "xml",
];

/// Whether a word in a schema says nothing about which values fit.
pub(crate) fn is_annotation(word: &str) -> bool {
    ANNOTATIONS.contains(&word) || word.starts_with("x-")
}

/// Deepest nesting of schemas looked at; the compiler refuses deeper ones.
const DEEPEST: usize = 256;

/// The place and name of the first word that is neither a keyword nor an annotation, as `#/properties/age/maximun`.
/// Words that begin with `x-` are extensions and mean nothing here.
pub(crate) fn unknown_keyword(schema: &Value) -> Option<String> {
    look(schema, "#", 0)
}

fn look(schema: &Value, place: &str, depth: usize) -> Option<String> {
    let keywords = schema.as_object().filter(|_| depth < DEEPEST)?;
    keywords.iter().find_map(|(word, value)| {
        let here = format!("{place}/{word}");
        let known = ENFORCED.contains(&word.as_str()) || is_annotation(word);
        if !known {
            return Some(here);
        }
        match word.as_str() {
            // Schemas by name: the names are not keywords.
            "properties" | "patternProperties" | "$defs" | "definitions" => value
                .as_object()?
                .iter()
                .find_map(|(name, schema)| look(schema, &format!("{here}/{name}"), depth + 1)),
            "items"
            | "prefixItems"
            | "anyOf"
            | "oneOf"
            | "allOf"
            | "additionalItems"
            | "additionalProperties" => match value {
                Value::Array(schemas) => schemas
                    .iter()
                    .enumerate()
                    .find_map(|(at, schema)| look(schema, &format!("{here}/{at}"), depth + 1)),
                schema => look(schema, &here, depth + 1),
            },
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_word_that_is_no_keyword_is_found_wherever_a_schema_stands() {
        for (schema, place) in [
            (json!({"type": "string", "maxlength": 3}), "#/maxlength"),
            (
                json!({"properties": {"age": {"maximun": 3}}}),
                "#/properties/age/maximun",
            ),
            (
                json!({"items": {"anyOf": [{}, {"kind": 1}]}}),
                "#/items/anyOf/1/kind",
            ),
            (
                json!({"$defs": {"a": {"additionalProperties": {"typ": 1}}}}),
                "#/$defs/a/additionalProperties/typ",
            ),
        ] {
            assert_eq!(unknown_keyword(&schema).as_deref(), Some(place), "{schema}");
        }
    }

    #[test]
    fn names_values_annotations_and_extensions_are_no_keywords() {
        for schema in [
            json!({"properties": {"maxlength": {"type": "string"}}, "required": ["maxlength"]}),
            json!({"const": {"kind": 1}, "default": {"kind": 1}, "examples": [{"kind": 1}]}),
            json!({"title": "t", "deprecated": true, "x-order": 1, "nullable": true}),
            json!(true),
        ] {
            assert_eq!(unknown_keyword(&schema), None, "{schema}");
        }
    }
}
