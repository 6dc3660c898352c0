//! What other nodes of the household may ask of this one: the peer surface, the same behind every door.
//!
//! Who comes here has proved its key and is a member (`access`); only [`JOIN`] and [`IDENTITY`] are open to nodes that are
//! none yet.

pub(crate) mod frame;
pub(crate) mod generate;
pub(crate) mod memory;
pub(crate) mod task;

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Extension, Json, Router};
use futures_util::{Stream, StreamExt};
use hearth_mesh::signature::IDENTITY;
use hearth_protocol::household::{Capabilities, NodeId, Sealed};
use hearth_protocol::peers::{AskToJoin, Hello, Issue, Welcome};
use serde::Deserialize;

use crate::access::Caller;
use crate::events;
use crate::household::Refused;
use crate::household::routes::{Renamed, read, whole};
use crate::state::Shared;

/// Where a node asks to join.
pub(crate) const JOIN: &str = "/peer/join";
/// What needs no work: whether a node answers, and how long it takes.
pub(crate) const ECHO: &str = "/peer/echo";
/// Where a node asks for an answer to a prompt; below it lies each run.
pub(crate) const GENERATE: &str = "/peer/generate";
/// Where a node asks for what is answered whole.
pub(crate) const TASK: &str = "/peer/task";
/// Most bytes that an echo answers with: a probe of paths that drop large packets needs 64 KiB.
const LONGEST_ECHO: usize = 64 << 10;

/// Whether a route is there for other nodes.
pub(crate) fn is_surface(path: &str) -> bool {
    path == "/health" || path.starts_with("/peer/")
}

/// What a question comes to that is answered at once.
type Answer<T> = Result<Json<T>, Refused>;

/// The routes.
pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/peer/capabilities", get(capabilities))
        .route(ECHO, get(small_echo).post(echo))
        .route("/peer/events", get(events::events))
        .route(GENERATE, post(generate::generate))
        .route(
            &format!("{GENERATE}/{{run}}/commit"),
            post(generate::commit),
        )
        .route("/peer/hello", post(hello))
        .route(IDENTITY, get(identity))
        .route(JOIN, post(join))
        .route("/peer/invite", post(invite))
        .route("/peer/leave", post(leave))
        .route("/peer/members/{name}", patch(rename))
        .route("/peer/memory/search", post(memory::search))
        .route("/peer/reach/{node}", get(reach))
        .route("/peer/snapshot", get(events::snapshot))
        .route(TASK, post(task::task))
}

/// What this node can do now.
#[utoipa::path(get, path = "/peer/capabilities", tag = "peer",
    responses((status = 200, body = Capabilities), (status = 403, body = hearth_protocol::error::Problem)))]
pub(crate) async fn capabilities(State(node): State<Shared>) -> Answer<Capabilities> {
    // Looks at files.
    let looking = crate::trace::spawn_blocking(move || node.household.capabilities(&node, true));
    Ok(Json(looking.await.map_err(Refused::failed)?))
}

/// How large an echo is wanted.
#[derive(Debug, Deserialize)]
pub(crate) struct Size {
    #[serde(default)]
    bytes: usize,
}

/// Answers with as many bytes as are asked for: large packets get lost where small ones pass.
#[utoipa::path(post, path = "/peer/echo", tag = "peer",
    params(("bytes" = Option<usize>, Query, description = "of the answer, up to 65,536")),
    responses((status = 200, description = "so many bytes"), (status = 403, body = hearth_protocol::error::Problem)))]
pub(crate) async fn echo(
    State(node): State<Shared>,
    Query(size): Query<Size>,
    body: Body,
) -> Result<Vec<u8>, Refused> {
    whole(&node, body).await?;
    Ok(vec![b'.'; size.bytes.min(LONGEST_ECHO)])
}

/// Proves who this node is: `access` signs the answer to a request that is signed for this node. Asked once on each
/// connection, before anything with a body.
#[utoipa::path(get, path = "/peer/identity", tag = "peer",
    responses((status = 204, description = "signed by this node (RFC 9421) over the request's own signature")))]
pub(crate) async fn identity() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Answers at once, and needs no work: how long it takes is the round trip.
#[utoipa::path(get, path = "/peer/echo", tag = "peer",
    responses((status = 200, description = "nothing"), (status = 403, body = hearth_protocol::error::Problem)))]
pub(crate) async fn small_echo() -> StatusCode {
    StatusCode::OK
}

/// Tells a member that does not reach another one whether this node does: then a firewall is between the two.
#[utoipa::path(get, path = "/peer/reach/{node}", tag = "peer",
    params(("node" = String, Path, description = "id of the other node")), responses(
    (status = 200, body = bool, description = "whether it answered just now"),
    (status = 400, body = hearth_protocol::error::Problem, description = "that is no id")))]
pub(crate) async fn reach(State(node): State<Shared>, Path(other): Path<String>) -> Answer<bool> {
    let other = other.parse().map_err(|error| {
        let message = format!("node: {error}");
        Refused::invalid_field(message)
    })?;
    Ok(Json(node.household.reaches(other).await))
}

/// Hears from a member that it leaves.
#[utoipa::path(post, path = "/peer/leave", tag = "peer", responses(
    (status = 200, description = "it is none any more"),
    (status = 409, body = hearth_protocol::error::Problem, description = "this node is no hub")))]
pub(crate) async fn leave(
    State(node): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Answer<()> {
    whole(&node, body).await?;
    Ok(Json(node.household.farewell(caller.proved()?).await?))
}

/// Takes a node into the household, if it holds a ticket.
#[utoipa::path(post, path = "/peer/join", tag = "peer", responses(
    (status = 200, description = "what the hub says of the new member and of the others"),
    (status = 403, body = hearth_protocol::error::Problem, description = "the ticket is used, expired or unknown"),
    (status = 409, body = hearth_protocol::error::Problem, description = "this node is no hub")))]
pub(crate) async fn join(
    State(node): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Answer<Welcome> {
    let asked: AskToJoin = read(&node, body).await?;
    let admitting = Arc::clone(&node.household).admit(caller.proved()?, asked);
    Ok(Json(admitting.await?))
}

/// Keeps a ticket that a member made: its owner is the household's.
#[utoipa::path(post, path = "/peer/invite", tag = "peer", request_body = Issue, responses(
    (status = 200, description = "it is good"),
    (status = 409, body = hearth_protocol::error::Problem, description = "this node is no hub")))]
pub(crate) async fn invite(
    State(node): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Answer<()> {
    let issued: Issue = read(&node, body).await?;
    Ok(Json(node.household.issued(caller.proved()?, issued).await?))
}

/// Calls a member something else, for a member's owner, who is the household's.
#[utoipa::path(patch, path = "/peer/members/{name}", tag = "peer", request_body = Renamed,
    params(("name" = String, Path, description = "name of the machine, or the beginning of its id")), responses(
    (status = 200, description = "it has that name"),
    (status = 404, body = hearth_protocol::error::Problem, description = "no such machine"),
    (status = 409, body = hearth_protocol::error::Problem, description = "this node is no hub")))]
pub(crate) async fn rename(
    State(node): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Body,
) -> Answer<()> {
    let wanted: Renamed = read(&node, body).await?;
    caller.proved()?;
    Ok(Json(node.household.rename_here(&name, &wanted.name).await?))
}

/// Hears from a member what changed about it.
#[utoipa::path(post, path = "/peer/hello", tag = "peer", responses(
    (status = 200, description = "what the hub says of it now"),
    (status = 409, body = hearth_protocol::error::Problem, description = "this node is no hub")))]
pub(crate) async fn hello(
    State(node): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Answer<Option<Sealed>> {
    let said: Hello = read(&node, body).await?;
    Ok(Json(node.household.hear(caller.proved()?, said).await?))
}

/// An answer of frames, one line of JSON after the other.
fn frames(lines: impl Stream<Item = Vec<u8>> + Send + 'static) -> Response {
    let body = Body::from_stream(lines.map(|line| Ok::<_, Infallible>(Bytes::from(line))));
    ([(CONTENT_TYPE, "application/jsonl")], body).into_response()
}

impl Caller {
    /// The node that proved its key.
    fn proved(self) -> Result<NodeId, Refused> {
        self.node().ok_or_else(|| {
            let message = "this route is for other nodes, which sign their requests";
            Refused::new(StatusCode::UNAUTHORIZED, "signature_missing", message)
        })
    }
}
