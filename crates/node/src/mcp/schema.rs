//! JSON Schemas of tools, made from the very types that `/openapi.json` describes.
//!
//! A tool's schema stands alone, so what OpenAPI keeps elsewhere and points to is put in its place.

use std::sync::Arc;

use rmcp::model::JsonObject;
use serde_json::{Map, Value};
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

/// The schema of a tool's result.
pub(crate) fn result<T: ToSchema>() -> Arc<JsonObject> {
    Arc::new(described::<T>())
}

fn described<T: ToSchema>() -> Map<String, Value> {
    let mut others = Vec::new();
    T::schemas(&mut others);
    match whole(&T::schema(), &others) {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

fn whole(schema: &RefOr<Schema>, others: &[(String, RefOr<Schema>)]) -> Value {
    // What serialises into a description for others serialises into a value.
    let mut value = serde_json::to_value(schema).unwrap_or_default();
    resolve(&mut value, others);
    value
}

/// Puts schemas where they are pointed to, and takes away formats of numbers, which JSON Schema does not know.
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
            object.values_mut().for_each(|one| resolve(one, others));
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
