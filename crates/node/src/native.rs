//! Hearth's own routes: what the node is doing, and asking it to stop.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use hearth_protocol::status::NodeStatus;

use crate::metrics::METRICS_TYPE;
use crate::state::Shared;

/// What the node is doing.
#[utoipa::path(get, path = "/status", tag = "node", responses((status = 200, body = NodeStatus)))]
pub(crate) async fn status(State(node): State<Shared>) -> Json<NodeStatus> {
    Json(node.status())
}

/// Ends the node after the running answers.
#[utoipa::path(post, path = "/shutdown", tag = "node", responses((status = 202, description = "the node is stopping")))]
pub(crate) async fn shutdown(State(node): State<Shared>) -> StatusCode {
    node.stop.notify_one();
    StatusCode::ACCEPTED
}

/// Metrics of the node and of every loaded model.
#[utoipa::path(get, path = "/metrics", tag = "node", responses((status = 200, description = "OpenMetrics text")))]
pub(crate) async fn metrics(State(node): State<Shared>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, METRICS_TYPE)],
        node.metrics.text(&node.status()),
    )
}
