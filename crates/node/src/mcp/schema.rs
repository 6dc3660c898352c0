//! JSON Schemas of tools, made from the very types that `/openapi.json` describes.
//!
//! A tool's schema stands alone, so what OpenAPI keeps elsewhere and points to is put in its place.

use std::sync::Arc;

use rmcp::model::JsonObject;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

/// The schema of a tool's arguments. That an argument may be left out is said once, by not requiring it: some models'
/// APIs know no type `null` beside another.
pub(crate) fn arguments<T: ToSchema>() -> Map<String, Value> {
    let mut schema = described::<T>();
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().for_each(without_null);
    }
    schema
}

/// The schema of a tool's result, without descriptions: `/openapi.json` has them, and every word of a list of tools may
/// stand in a model's context.
pub(crate) fn result<T: ToSchema>() -> Arc<JsonObject> {
    let mut schema = Value::Object(described::<T>());
    without_descriptions(&mut schema);
    match schema {
        Value::Object(schema) => Arc::new(schema),
        _ => Arc::default(),
    }
}

fn described<T: ToSchema>() -> Map<String, Value> {
    let mut others = Vec::new();
    T::schemas(&mut others);
    match whole(&T::schema(), &others) {
        Value::Object(mut schema) => {
            // It tells of a body, and a tool has none.
            schema.remove("description");
            schema
        }
        _ => Map::new(),
    }
}

fn whole(schema: &RefOr<Schema>, others: &[(String, RefOr<Schema>)]) -> Value {
    // What serialises into a description for others serialises into a value.
    let mut value = serde_json::to_value(schema).unwrap_or_default();
    resolve(&mut value, others);
    value
}

/// Puts schemas where they are pointed to, takes away formats of numbers, which JSON Schema does not know, and says of
/// tuples what every draft of it understands: `prefixItems` came with 2020-12, and `items` meant something else before.
fn resolve(value: &mut Value, others: &[(String, RefOr<Schema>)]) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(|one| resolve(one, others)),
        Value::Object(object) => {
            if let Some(Value::String(place)) = object.get("$ref") {
                let name = place.rsplit('/').next().unwrap_or_default();
                if let Some((_, other)) = others.iter().find(|(other, _)| other == name) {
                    *value = whole(other, others);
                }
                return;
            }
            if object
                .get("format")
                .is_some_and(|format| format != "date-time")
            {
                object.remove("format");
            }
            if let Some(Value::Array(kinds)) = object.remove("prefixItems") {
                object.insert("minItems".into(), kinds.len().into());
                object.insert("maxItems".into(), kinds.len().into());
                object.insert("items".into(), json!({"anyOf": kinds}));
            }
            object.values_mut().for_each(|one| resolve(one, others));
        }
        _ => {}
    }
}

/// Takes descriptions away. A property of that name is an object, and stays.
fn without_descriptions(value: &mut Value) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(without_descriptions),
        Value::Object(object) => {
            if object.get("description").is_some_and(Value::is_string) {
                object.remove("description");
            }
            object.values_mut().for_each(without_descriptions);
        }
        _ => {}
    }
}

/// `["string", "null"]` is `"string"`.
fn without_null(schema: &mut Value) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema["type"] = only;
        }
    }
}
