//! Whether bytes are a message of JSON-RPC, before `rmcp` sees them: its own refusals name neither what is wrong nor the
//! request that they answer.

use rmcp::ErrorData;
use rmcp::model::{ClientJsonRpcMessage, ErrorCode, JsonRpcError, RequestId};
use serde_json::Value;

/// Why bytes are no message.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub code: ErrorCode,
    pub message: String,
    /// Of the request, where it can be read.
    pub id: Option<RequestId>,
    /// Whether it only tells something, which JSON-RPC never answers.
    pub is_notification: bool,
}

impl Wrong {
    /// What is answered.
    pub fn answer(self) -> JsonRpcError {
        JsonRpcError::new(self.id, ErrorData::new(self.code, self.message, None))
    }
}

/// The message that these bytes, a `thing`, are.
pub(crate) fn looked_over(bytes: &[u8], thing: &str) -> Result<ClientJsonRpcMessage, Wrong> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| Wrong {
        code: ErrorCode::PARSE_ERROR,
        message: format!("the {thing} is not JSON: {error}"),
        id: None,
        is_notification: false,
    })?;
    let is_notification = value.get("method").is_some() && value.get("id").is_none();
    let wrong = |id, message: String| Wrong {
        code: ErrorCode::INVALID_REQUEST,
        message,
        id,
        is_notification,
    };
    if value.is_array() {
        let message = "batches are no part of MCP since 2025-06-18; send each message by itself";
        return Err(wrong(None, message.into()));
    }
    let id = id(&value);
    serde_json::from_value(value).map_err(|_| {
        let message = format!(
            "the {thing} is no JSON-RPC message: it needs \"jsonrpc\": \"2.0\", a \"method\", \"params\" that are an \
             object if there are any, and an \"id\" that is a number or a string if it wants an answer"
        );
        wrong(id, message)
    })
}

/// The id of a request. That of an answer is one that this side gave, and says nothing to the other.
fn id(value: &Value) -> Option<RequestId> {
    let is_answer = value.get("result").is_some() || value.get("error").is_some();
    let id = value.get("id").filter(|_| !is_answer)?;
    serde_json::from_value(id.clone()).ok()
}
