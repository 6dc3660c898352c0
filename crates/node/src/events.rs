//! The state log for subscribers: `GET /events` as server-sent events, and `GET /snapshot`, which replaces all a
//! subscriber has. The same for the owner's tools and for the nodes that follow (`/peer/events`, `/peer/snapshot`); a
//! node that follows answers with its own copy.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hearth_fanout::{Error, Subscription, sse};
use hearth_protocol::event::Cursor;
use serde::Deserialize;

use crate::access::Caller;
use crate::failure::problem;
use crate::state::Shared;

/// How long a browser waits before it connects again.
const RETRY: Duration = Duration::from_secs(1);

fn alone() -> Response {
    problem(
        StatusCode::CONFLICT,
        "no_household",
        "Conflict",
        "this machine belongs to no household, so nothing happens to it; `hearth invite` or `hearth join` changes that",
    )
}

fn failed(error: &Error) -> Response {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    problem(
        status,
        "log_failed",
        "Internal Server Error",
        error.to_string(),
    )
}

/// What happens in the household, as it happens. `Last-Event-ID` goes on after that event; without it the stream begins
/// now. A message `resync` says why it cannot go on, and that a snapshot is to be taken.
#[utoipa::path(get, path = "/events", tag = "household",
    params(
        ("last-event-id" = Option<String>, Header, description = "id of the last event that was applied"),
        ("cursor" = Option<String>, Query, description = "the same, for browsers, which cannot send the header at first")),
    responses(
        (status = 200, description = "server-sent events: `id` is `EPOCH:OFFSET`, `event` the kind"),
        (status = 400, description = "the id is none", body = hearth_protocol::error::Problem),
        (status = 409, description = "this machine belongs to no household", body = hearth_protocol::error::Problem)))]
pub(crate) async fn events(
    State(node): State<Shared>,
    Query(begin): Query<Begin>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    let Some(live) = node.household.live() else {
        return alone();
    };
    // What the stream itself said last counts more than where the page began.
    let said = headers
        .get("last-event-id")
        .map(|id| id.to_str().unwrap_or("?"));
    let said = said.or(begin.cursor.as_deref()).filter(|id| !id.is_empty());
    let cursor = match said.map(str::parse::<Cursor>).transpose() {
        Ok(cursor) => cursor,
        Err(error) => {
            let message = format!("last-event-id: {error}");
            return problem(
                StatusCode::BAD_REQUEST,
                "bad_cursor",
                "Bad Request",
                message,
            );
        }
    };
    let first = sse::retry(RETRY);
    let state = match live.log.subscribe(cursor).await {
        Ok(subscription) => Stage::Going(first, Box::new(subscription)),
        Err(Error::Refused(refusal)) => Stage::Last(sse::resync(&refusal)),
        Err(error) => return failed(&error),
    };
    let body = stream::unfold(
        (state, live.over(), live),
        move |(stage, mut over, live)| async move {
            // Who was removed hears nothing any more, and neither does anybody of a household that this node left.
            // What goes out says nothing about whether that node lives, so that it is not noted as heard.
            let is_out = |who| live.roster(|roster| roster.may_pass(&who).is_err());
            if caller.node().is_some_and(is_out) {
                return None;
            }
            let (bytes, next) = match stage {
                Stage::Over => return None,
                Stage::Last(bytes) => (bytes, Stage::Over),
                Stage::Going(first, subscription) if !first.is_empty() => {
                    (first, Stage::Going(Bytes::new(), subscription))
                }
                Stage::Going(empty, mut subscription) => {
                    let next = tokio::time::timeout(sse::HEARTBEAT_EVERY, subscription.next());
                    let next = tokio::select! {
                        next = next => next,
                        _ = over.wait_for(|over| *over) => return None,
                    };
                    match next {
                        Err(_) => {
                            let beat = Bytes::from_static(sse::HEARTBEAT);
                            (beat, Stage::Going(empty, subscription))
                        }
                        Ok(Ok(frame)) => (frame.bytes, Stage::Going(empty, subscription)),
                        Ok(Err(cut)) => (sse::farewell(&cut), Stage::Over),
                    }
                }
            };
            Some((Ok::<_, Infallible>(bytes), (next, over, live)))
        },
    );
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, Body::from_stream(body)).into_response()
}

/// Where a stream begins.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Begin {
    cursor: Option<String>,
}

enum Stage {
    /// What is sent first, and what follows.
    Going(Bytes, Box<Subscription>),
    Last(Bytes),
    Over,
}

/// The whole state, with the cursor after which events go on.
#[utoipa::path(get, path = "/snapshot", tag = "household", responses(
    (status = 200, description = "`{cursor, state}`", body = hearth_protocol::event::Snapshot),
    (status = 409, description = "this machine belongs to no household", body = hearth_protocol::error::Problem)))]
pub(crate) async fn snapshot(State(node): State<Shared>) -> Response {
    let Some(live) = node.household.live() else {
        return alone();
    };
    match live.log.snapshot_json().await {
        Ok((_, json)) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => failed(&error),
    }
}
