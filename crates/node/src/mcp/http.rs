//! `/mcp`: MCP over streamable HTTP, one JSON answer to each POST.
//!
//! Who may come in is decided before, as for every route (`access`). What a client gets wrong is answered as JSON-RPC
//! has it, so that its error says more than a status.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use hearth_protocol::error::Problem;
use rmcp::model::{ErrorCode, JsonRpcError};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};

use super::shape::{Wrong, looked_over};
use super::{Scope, Server};
use crate::body::received;
use crate::state::Shared;
use crate::{page, surface};

/// Bytes of an error that `rmcp` words as plain text.
const WORDS: usize = 16 << 10;

/// Says to a browser what this address is for. MCP's clients ask here whether there is a stream, and there is none.
#[utoipa::path(get, path = "/mcp", tag = "memory", responses(
    (status = 200, description = "for browsers: HTML that says how a coding tool connects"),
    (status = 405, description = "for all others: no stream is opened", body = Problem)))]
pub(crate) async fn look(State(node): State<Shared>, request: Request) -> Response {
    let mut accepted = request.headers().get_all(ACCEPT).iter();
    let is_browser = accepted.any(|types| {
        types
            .to_str()
            .is_ok_and(|types| types.contains("text/html"))
    });
    if is_browser {
        return page::html(hearth_web::mcp(&node.status().address));
    }
    let refused = surface::wrong_method(Method::GET, request).await;
    ([(ALLOW, "POST")], refused).into_response()
}

/// Speaks MCP: the memory's tools and resources. No session is kept; GET opens no stream, DELETE ends none.
#[utoipa::path(post, path = "/mcp", tag = "memory", params(Scope), request_body = Value, responses(
    (status = 200, description = "a JSON-RPC answer", body = Value),
    (status = 202, description = "a notification was taken"),
    (status = 400, description = "not a JSON-RPC message, or of an MCP version that is not known", body = Value),
    (status = 406, description = "Accept lacks application/json or text/event-stream", body = Value),
    (status = 413, description = "the body is too large", body = Value),
    (status = 415, description = "Content-Type is not application/json", body = Value)))]
pub(crate) async fn answer(
    State(node): State<Shared>,
    scope: Result<Query<Scope>, QueryRejection>,
    request: Request,
) -> Response {
    let scope = match scope {
        Ok(Query(scope)) => scope,
        Err(error) => {
            let message = format!("{}; /mcp takes project and read_only", error.body_text());
            return refusal(StatusCode::BAD_REQUEST, ErrorCode::INVALID_REQUEST, message);
        }
    };
    let (parts, body) = request.into_parts();
    let bytes = match received(&node, body).await {
        Ok(bytes) => bytes,
        Err(failure) => {
            let message = failure.error.message.to_string();
            return refusal(failure.status, ErrorCode::INVALID_REQUEST, message);
        }
    };
    if let Err(wrong) = looked_over(&bytes, "body") {
        return answered(StatusCode::BAD_REQUEST, &wrong.answer());
    }
    let server = Server::new(node.memories.clone(), scope, node.options.version);
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(node.options.body_limit)
        // `access` has looked at both, and knows this node's address in its network.
        .disable_allowed_hosts()
        .disable_allowed_origins();
    let sessions = Arc::new(NeverSessionManager::default());
    let service = StreamableHttpService::new(move || Ok(server.clone()), sessions, config);
    let answer = service
        .handle(Request::from_parts(parts, Body::from(bytes)))
        .await;
    in_shape(answer.map(Body::new)).await
}

/// An answer as it is, or what it refuses in plain text as a JSON-RPC error.
async fn in_shape(answer: Response) -> Response {
    let is_plain = answer.headers().get(CONTENT_TYPE).is_none();
    if answer.status().as_u16() < 400 || !is_plain {
        return answer;
    }
    let status = answer.status();
    let words = to_bytes(answer.into_body(), WORDS)
        .await
        .unwrap_or_default();
    let words = String::from_utf8_lossy(&words).into_owned();
    refusal(status, ErrorCode::INVALID_REQUEST, words)
}

fn refusal(status: StatusCode, code: ErrorCode, message: String) -> Response {
    let wrong = Wrong {
        code,
        message,
        id: None,
        is_notification: false,
    };
    answered(status, &wrong.answer())
}

fn answered(status: StatusCode, error: &JsonRpcError) -> Response {
    let mut response = (status, axum::Json(error)).into_response();
    response
        .extensions_mut()
        .insert(crate::failure::Code("mcp_refused".into()));
    response
}
