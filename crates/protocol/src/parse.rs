//! From bytes to a typed body, with errors that name the field.

use serde::de::DeserializeOwned;

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
        if reason.is_data() {
            let param = (path != ".").then_some(path);
            let place = param
                .as_ref()
                .map(|path| format!("{path}: "))
                .unwrap_or_default();
            ApiError::invalid(param, format!("{place}{}", without_position(&reason)))
        } else {
            ApiError::invalid(None, format!("the body is not valid JSON: {reason}"))
        }
    })?;
    reader
        .end()
        .map_err(|error| ApiError::invalid(None, format!("the body is not valid JSON: {error}")))?;
    Ok(value)
}

/// serde_json appends ` at line L column C`, which means little in a body written by a program.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ")
        .map_or(text.clone(), |(reason, _)| reason.to_owned())
}
