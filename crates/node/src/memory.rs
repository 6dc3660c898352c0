//! `/memory`: what a person's tools remember, as a resource. Errors are problem documents.

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use hearth_memory::{Error, Memories};
use hearth_protocol::error::Problem;
use hearth_protocol::memory::{
    Change, Examined, Exported, Found, Imported, Listed, Memory, NewMemory, Outcome, Search, Stats,
    Written,
};
use hearth_protocol::parse;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::body::received;
use crate::failure::{Failure, problem};
use crate::state::{Node, Shared};

/// Bytes of a piece of an export.
const PIECE: usize = 64 << 10;

pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/memory", get(list).post(add))
        .route("/memory/search", post(search))
        .route("/memory/stats", get(stats))
        .route("/memory/examine", post(examine))
        .route("/memory/import", post(import))
        .route("/memory/export", get(export))
        .route("/memory/{id}", get(one).patch(change).delete(forget))
}

fn refused(failure: &Failure) -> Response {
    problem(
        failure.status,
        "bad_request",
        failure.status.canonical_reason().unwrap_or("Bad Request"),
        &*failure.error.message,
    )
}

/// The status of an answer that tells this error.
pub(crate) fn status(error: &Error) -> StatusCode {
    told(error).0
}

fn failed(error: &Error) -> Response {
    let (status, kind, title) = told(error);
    let detail = match error {
        Error::Unknown(_) => format!("{error}; POST /memory/search and GET /memory give ids"),
        error => error.to_string(),
    };
    problem(status, kind, title, detail)
}

/// Status, kind and title of an error.
fn told(error: &Error) -> (StatusCode, &'static str, &'static str) {
    match error {
        Error::Invalid { .. } | Error::Unreadable { .. } => {
            (StatusCode::BAD_REQUEST, "invalid_field", "Bad Request")
        }
        Error::Unknown(_) => (StatusCode::NOT_FOUND, "no_memory", "Not Found"),
        Error::Superseded { .. } => (StatusCode::CONFLICT, "superseded", "Conflict"),
        Error::Withdrawn(_) => (StatusCode::CONFLICT, "withdrawn", "Conflict"),
        Error::Encoder(_) | Error::Approximate(_) | Error::Database(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "memory_failed",
            "Internal Server Error",
        ),
    }
}

/// Reads a body.
async fn body<T: DeserializeOwned>(node: &Node, body: Body) -> Result<T, Box<Response>> {
    let bytes = received(node, body).await;
    let bytes = bytes.map_err(|failure| Box::new(refused(&failure)))?;
    parse::body(&bytes).map_err(|error| Box::new(refused(&Failure::from(error))))
}

/// Runs `work` where it may block, and answers with what it returns. It goes on when nobody waits any more.
async fn answer<T: Serialize + Send + 'static>(
    node: &Node,
    status: impl FnOnce(&T) -> StatusCode,
    work: impl FnOnce(&Memories) -> Result<T, Error> + Send + 'static,
) -> Response {
    let memories = node.memories.clone();
    match crate::trace::spawn_blocking(move || work(&memories)).await {
        Ok(Ok(value)) => (status(&value), Json(value)).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(error) => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "memory_failed",
            "Internal Server Error",
            error.to_string(),
        ),
    }
}

fn wrong_parameter(reason: String) -> Response {
    let status = StatusCode::BAD_REQUEST;
    problem(status, "invalid_field", "Bad Request", reason)
}

/// The parameters of an address, and the tags among them: `tag` may come several times, which `Query` takes for a
/// mistake.
fn parameters<T: DeserializeOwned>(uri: &Uri) -> Result<(T, Vec<String>), Box<Response>> {
    let is_tag = |part: &&str| part.split('=').next() == Some("tag");
    let query = uri.query().unwrap_or_default();
    let (tags, others): (Vec<&str>, Vec<&str>) = query.split('&').partition(is_tag);
    let others = Uri::builder().path_and_query(format!("/?{}", others.join("&")));
    let others = others.build().unwrap_or_default();
    let Query(read) = Query::try_from_uri(&others)
        .map_err(|error| Box::new(wrong_parameter(error.body_text())))?;
    let tags = tags.into_iter().map(|part| {
        let value = part.split_once('=').map_or("", |(_, value)| value);
        let value = value.replace('+', " ");
        let decoded = percent_decode_str(&value).decode_utf8();
        decoded.map(String::from).map_err(|error| {
            let reason = format!("tag: its percent-encoded bytes are no UTF-8: {error}");
            Box::new(wrong_parameter(reason))
        })
    });
    Ok((read, tags.collect::<Result<_, _>>()?))
}

fn ok<T>(_: &T) -> StatusCode {
    StatusCode::OK
}

/// Remembers a text. What is there already is merged, what nearly is is linked, and recalled text is not stored again.
#[utoipa::path(post, path = "/memory", tag = "memory", request_body = NewMemory, responses(
    (status = 201, description = "it is a new memory", body = Written),
    (status = 200, description = "it was there already (`outcome` says how)", body = Written),
    (status = 400, description = "a field is wrong", body = Problem),
    (status = 404, description = "`supersedes` names no memory", body = Problem),
    (status = 409, description = "`supersedes` names one that was superseded or withdrawn", body = Problem),
    (status = 413, description = "the body is too large", body = Problem)))]
pub(crate) async fn add(State(node): State<Shared>, raw: Body) -> Response {
    let new: NewMemory = match body(&node, raw).await {
        Ok(new) => new,
        Err(refusal) => return *refusal,
    };
    let status = |written: &Written| match written.outcome {
        Outcome::Stored | Outcome::Linked => StatusCode::CREATED,
        Outcome::Merged | Outcome::Recalled => StatusCode::OK,
    };
    answer(&node, status, move |memories| {
        memories.add(&new, Timestamp::now())
    })
    .await
}

/// Finds memories by meaning and by words.
#[utoipa::path(post, path = "/memory/search", tag = "memory", request_body = Search, responses(
    (status = 200, description = "the best first", body = Found),
    (status = 400, description = "a field is wrong", body = Problem),
    (status = 413, description = "the body is too large", body = Problem)))]
pub(crate) async fn search(State(node): State<Shared>, raw: Body) -> Response {
    let search: Search = match body(&node, raw).await {
        Ok(search) => search,
        Err(refusal) => return *refusal,
    };
    answer(&node, ok, move |memories| {
        memories.search(&search, Timestamp::now())
    })
    .await
}

/// Which memories are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Listing {
    /// Only this project's and those of every project.
    project: Option<String>,
    /// Only this kind.
    kind: Option<String>,
    /// Only those with this tag; several, each as a `tag` of its own, must all be there.
    #[serde(default)]
    tag: Vec<String>,
    /// Only those as sure as this, 0 to 1.
    min_confidence: Option<f32>,
    /// 1 to 100; 10 if absent.
    limit: Option<usize>,
    /// What the page before gave as `next`.
    after: Option<String>,
}

/// Memories that can be found, newest first.
#[utoipa::path(get, path = "/memory", tag = "memory", params(Listing), responses(
    (status = 200, description = "a page", body = Listed),
    (status = 400, description = "a parameter is wrong", body = Problem)))]
pub(crate) async fn list(State(node): State<Shared>, uri: Uri) -> Response {
    let listing = match parameters(&uri) {
        Ok((listing, tag)) => Listing { tag, ..listing },
        Err(refusal) => return *refusal,
    };
    let search = Search {
        project: listing.project,
        kind: listing.kind,
        tags: listing.tag,
        min_confidence: listing.min_confidence,
        limit: listing.limit,
        ..Search::default()
    };
    let after = listing.after;
    answer(&node, ok, move |memories| {
        memories.list(&search, after.as_deref())
    })
    .await
}

/// One memory, with its lineage. It counts as read. Wherever an id names a memory, its first digits do, four or more, if
/// no other begins so.
#[utoipa::path(get, path = "/memory/{id}", tag = "memory", params(("id" = String, Path)), responses(
    (status = 200, body = Memory),
    (status = 400, description = "several ids begin so", body = Problem),
    (status = 404, description = "there is no such memory", body = Problem)))]
pub(crate) async fn one(State(node): State<Shared>, Path(id): Path<String>) -> Response {
    answer(&node, ok, move |memories| {
        memories.get(&id, Timestamp::now())
    })
    .await
}

/// Changes a memory. A new text becomes a new memory in the old one's place.
#[utoipa::path(patch, path = "/memory/{id}", tag = "memory", params(("id" = String, Path)), request_body = Change,
    responses(
        (status = 200, description = "the memory as it is now", body = Memory),
        (status = 400, description = "a field is wrong", body = Problem),
        (status = 404, description = "there is no such memory", body = Problem),
        (status = 409, description = "another took its place, or it was withdrawn", body = Problem),
        (status = 413, description = "the body is too large", body = Problem)))]
pub(crate) async fn change(
    State(node): State<Shared>,
    Path(id): Path<String>,
    raw: Body,
) -> Response {
    let change: Change = match body(&node, raw).await {
        Ok(change) => change,
        Err(refusal) => return *refusal,
    };
    answer(&node, ok, move |memories| {
        memories.change(&id, &change, Timestamp::now())
    })
    .await
}

/// Forgets a memory for good, and the older ones whose place it took; gives what it was.
#[utoipa::path(delete, path = "/memory/{id}", tag = "memory", params(("id" = String, Path)), responses(
    (status = 200, description = "what was forgotten", body = Memory),
    (status = 400, description = "several ids begin so", body = Problem),
    (status = 404, description = "there is no such memory", body = Problem)))]
pub(crate) async fn forget(State(node): State<Shared>, Path(id): Path<String>) -> Response {
    answer(&node, ok, move |memories| memories.forget(&id)).await
}

/// How the store of memories stands.
#[utoipa::path(get, path = "/memory/stats", tag = "memory", responses((status = 200, body = Stats)))]
pub(crate) async fn stats(State(node): State<Shared>) -> Response {
    answer(&node, ok, |memories| memories.stats(Timestamp::now())).await
}

/// The body of `POST /memory/examine`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Examination {
    /// Whether what is wrong is mended.
    #[serde(default)]
    fix: bool,
}

/// Looks for damage in the store of memories, and mends it if asked.
#[utoipa::path(post, path = "/memory/examine", tag = "memory", request_body = Examination, responses(
    (status = 200, description = "what is wrong", body = Examined),
    (status = 400, description = "a field is wrong", body = Problem),
    (status = 413, description = "the body is too large", body = Problem)))]
pub(crate) async fn examine(State(node): State<Shared>, raw: Body) -> Response {
    let asked: Examination = match body(&node, raw).await {
        Ok(asked) => asked,
        Err(refusal) => return *refusal,
    };
    answer(&node, ok, move |memories| memories.examine(asked.fix)).await
}

/// What is imported, and what is said of all that is in it.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Importing {
    /// Its name, not an absolute path: the ending says what it is, and another import of the same name takes its place.
    path: String,
    /// Whose the memories are; without one they belong to every project.
    project: Option<String>,
    /// A word to find them by; several are each a `tag` of its own.
    #[serde(default)]
    tag: Vec<String>,
    /// How sure they are, 0 to 1; 1 if absent.
    confidence: Option<f32>,
}

/// Takes in a file: Markdown, text, JSON lines, an export of Hearth's, ChatGPT's or Claude's. The body is the file.
#[utoipa::path(post, path = "/memory/import", tag = "memory", params(Importing),
    request_body(content = String, content_type = "application/octet-stream"), responses(
        (status = 200, description = "what came of it", body = Imported),
        (status = 400, description = "a parameter is wrong, or the file cannot be read", body = Problem),
        (status = 413, description = "the file is too large", body = Problem)))]
pub(crate) async fn import(State(node): State<Shared>, uri: Uri, raw: Body) -> Response {
    let importing = match parameters(&uri) {
        Ok((importing, tag)) => Importing { tag, ..importing },
        Err(refusal) => return *refusal,
    };
    if std::path::Path::new(&importing.path).is_absolute() {
        // An import of a folder on this machine withdraws what came from files that are gone.
        return problem(
            StatusCode::BAD_REQUEST,
            "invalid_field",
            "Bad Request",
            "path: it begins with a root, as files of this machine do; send a name, such as `notes/ports.md`",
        );
    }
    let bytes = match received(&node, raw).await {
        Ok(bytes) => bytes,
        Err(failure) => return refused(&failure),
    };
    let usual = NewMemory {
        project: importing.project,
        tags: importing.tag,
        confidence: importing.confidence,
        ..NewMemory::default()
    };
    answer(&node, ok, move |memories| {
        memories.import(&importing.path, &bytes, &usual, Timestamp::now())
    })
    .await
}

/// Every memory, superseded ones too, one to a line: what `POST /memory/import` makes the same store of. What is written
/// meanwhile may be in it.
#[utoipa::path(get, path = "/memory/export", tag = "memory", responses(
    (status = 200, description = "JSON lines", body = Exported, content_type = "application/x-ndjson")))]
pub(crate) async fn export(State(node): State<Shared>) -> Response {
    let memories = node.memories.clone();
    // A few pieces ahead of the client, and no more: a store may be larger than memory.
    let (send, receive) = tokio::sync::mpsc::channel::<Result<Vec<u8>, Error>>(4);
    crate::trace::spawn_blocking(move || {
        let mut lines = Vec::new();
        let ended = memories.export(&mut |exported| {
            if serde_json::to_writer(&mut lines, exported).is_err() {
                return false;
            }
            lines.push(b'\n');
            lines.len() < PIECE || send.blocking_send(Ok(std::mem::take(&mut lines))).is_ok()
        });
        // An export that failed is cut off, so that nobody takes it for whole.
        let _ = send.blocking_send(ended.map(|()| lines));
    });
    let pieces = stream::unfold(receive, |mut receive| async move {
        receive.recv().await.map(|piece| (piece, receive))
    });
    let headers = [
        (CONTENT_TYPE, "application/x-ndjson"),
        (
            CONTENT_DISPOSITION,
            "attachment; filename=\"memories.jsonl\"",
        ),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}
