//! A request's body: read whole, within the limits of the door.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use futures_util::StreamExt;
use hearth_protocol::error::ApiError;

use crate::answer::PROMPTS;
use crate::failure::Failure;
use crate::state::Node;

/// A body too large is still read, up to this many times the limit, so that the client has sent it all when the
/// answer comes; many clients report a broken pipe instead of an answer that comes before they are done.
const PATIENCE: usize = 16;
/// How long a client may send nothing in the middle of its body.
const PAUSE: Duration = Duration::from_secs(30);

/// The body's bytes, or why they did not come in whole.
pub(crate) async fn received(node: &Node, body: Body) -> Result<Vec<u8>, Failure> {
    received_up_to(node, body, node.options.body_limit).await
}

/// The same with another limit.
pub(crate) async fn received_up_to(
    node: &Node,
    body: Body,
    limit: usize,
) -> Result<Vec<u8>, Failure> {
    let refused = |status, message: String| {
        Failure::new(
            status,
            ApiError::new("invalid_request_error", Some("bad_body"), message),
        )
    };
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut length = 0;
    loop {
        let Ok(piece) = tokio::time::timeout(PAUSE, stream.next()).await else {
            let message = format!("the body stopped coming in for {PAUSE:?}; send it whole");
            return Err(refused(StatusCode::REQUEST_TIMEOUT, message));
        };
        let Some(piece) = piece else { break };
        let piece = piece.map_err(|error| {
            refused(
                StatusCode::BAD_REQUEST,
                format!("the body did not come in whole: {error}"),
            )
        })?;
        length += piece.len();
        if length <= limit {
            bytes.extend_from_slice(&piece);
        } else if length > limit * PATIENCE {
            break;
        }
    }
    if length > limit {
        let message =
            format!("the body is larger than the {limit} bytes this node accepts; send less");
        return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    if node.options.log_prompts {
        let text = &*String::from_utf8_lossy(&bytes);
        tracing::info!(target: PROMPTS, text, "body");
    }
    Ok(bytes)
}
