//! From bytes to a typed body, with errors that name the field.

use serde::de::{DeserializeOwned, IgnoredAny};

use crate::error::ApiError;

/// Reads a JSON body. The error's `param` is the path of the wrong field (`messages[0].role`).
pub fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        ApiError::invalid(
            None,
            format!("the body is not UTF-8 (byte {})", error.valid_up_to()),
        )
    })?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let reason = error.into_inner();
        // serde_json calls `5` bad syntax where it wants a variant's name, and so `1e400` and half a surrogate pair.
        let well_formed = reason.is_syntax() && serde_json::from_str::<IgnoredAny>(text).is_ok();
        if reason.is_data() || well_formed {
            let text = match without_position(&reason) {
                text if well_formed && text == "expected value" => "expected a string".to_owned(),
                text => shortened(text),
            };
            let param = place(&path, field_of(&text));
            let message = match &param {
                Some(param) => format!("{param}: {text}"),
                None => text,
            };
            ApiError::invalid(param, message)
        } else {
            ApiError::invalid(None, format!("the body is not valid JSON: {reason}"))
        }
    })?;
    reader
        .end()
        .map_err(|error| ApiError::invalid(None, format!("the body is not valid JSON: {error}")))?;
    Ok(value)
}

/// The field that a reason is about when the reader stands at the object around it.
fn field_of(reason: &str) -> Option<&str> {
    let named = ["missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| reason.strip_prefix(start))?;
    named.strip_suffix('`')
}

/// `path` (`.` at the top) and a field in it.
fn place(path: &str, field: Option<&str>) -> Option<String> {
    match (path, field) {
        (".", field) => field.map(ToOwned::to_owned),
        (path, Some(field)) => Some(format!("{path}.{field}")),
        (path, None) => Some(path.to_owned()),
    }
}

/// serde_json appends ` at line L column C`, which means little in a body written by a program.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ")
        .map_or(text.clone(), |(reason, _)| reason.to_owned())
}

/// A reason quotes what was sent; of a long text its start and its end are enough.
fn shortened(reason: String) -> String {
    const SIDE: usize = 200;
    let count = reason.chars().count();
    if count <= 2 * SIDE {
        return reason;
    }
    let start: String = reason.chars().take(SIDE).collect();
    let end: String = reason.chars().skip(count - SIDE).collect();
    format!("{start} … {end}")
}
