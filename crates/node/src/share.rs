//! Models for other machines: `GET /peer/models` and `GET /peer/blobs/sha256-…`, so that one download serves a house.
//!
//! This machine may always ask; whether others may is the owner's setting, and `access` decides by it. Whoever fetches
//! checks the bytes against their digest, so nothing here has to be believed. A transfer holds one of a few places
//! ([`places`]) and gives it back when the door closes its connection, as it does to clients that take nothing.

mod places;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE, RETRY_AFTER,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream;
use hearth_models::{Digest, ModelStore, Network};
use tokio::sync::mpsc;

use self::places::{Place, Places};
use crate::access::Ends;
use crate::failure::problem;
use crate::state::{Node, Shared};

/// Seconds until another try makes sense for who found no place.
const AGAIN: u64 = 10;
/// Bytes read at once.
const PIECE: usize = 256 << 10;

/// The models on this machine's disk, and what a node may do with them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Models {
    /// Where they are.
    pub store: ModelStore,
    /// How more of them may be fetched.
    pub network: Network,
    /// Whether other machines may fetch them from here.
    pub shared: bool,
    places: Places,
}

impl Models {
    /// Models of this store; `shared` lets other machines fetch them.
    pub fn new(store: ModelStore, network: Network, shared: bool) -> Self {
        Self {
            store,
            network,
            shared,
            places: Places::default(),
        }
    }
}

/// Whether other machines may use this route of a node that shares its models.
pub(crate) fn is_for_others(method: &Method, path: &str) -> bool {
    (method == Method::GET || method == Method::HEAD)
        && (path == hearth_models::peer::MODELS || path.starts_with(hearth_models::peer::BLOBS))
}

fn models(node: &Node) -> Result<&Models, Box<Response>> {
    node.options.models.as_ref().ok_or_else(|| {
        Box::new(problem(
            StatusCode::NOT_FOUND,
            "no_models",
            "Not Found",
            "this node keeps no models",
        ))
    })
}

fn failed(error: &hearth_models::Error) -> Response {
    problem(
        StatusCode::INTERNAL_SERVER_ERROR,
        "models_unreadable",
        "Internal Server Error",
        error.to_string(),
    )
}

/// The models that can be fetched from this node.
#[utoipa::path(get, path = "/peer/models", tag = "peer", responses(
    (status = 200, description = "names with their files, digests and sizes"),
    (status = 403, body = hearth_protocol::error::Problem, description = "this node does not share its models"),
))]
pub(crate) async fn list(State(node): State<Shared>) -> Response {
    let store = match models(&node) {
        Ok(models) => models.store.clone(),
        Err(refusal) => return *refusal,
    };
    match crate::trace::spawn_blocking(move || store.shared()).await {
        Ok(Ok(shared)) => Json(shared).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(error) => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "models_unreadable",
            "Internal Server Error",
            error.to_string(),
        ),
    }
}

/// A file of a model, or a range of it.
#[utoipa::path(get, path = "/peer/blobs/{blob}", tag = "peer",
    params(("blob" = String, Path, description = "`sha256-` and 64 hexadecimal digits")),
    responses(
        (status = 200, description = "the file"),
        (status = 206, description = "the range that was asked for"),
        (status = 403, body = hearth_protocol::error::Problem, description = "this node does not share its models"),
        (status = 404, body = hearth_protocol::error::Problem, description = "no such file"),
        (status = 416, body = hearth_protocol::error::Problem, description = "the range is beyond the file"),
        (status = 503, body = hearth_protocol::error::Problem, description = "too many files are being read; see Retry-After"),
    ))]
pub(crate) async fn blob(
    State(node): State<Shared>,
    Extension(ends): Extension<Ends>,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let models = match models(&node) {
        Ok(models) => models,
        Err(refusal) => return *refusal,
    };
    let digest = name
        .strip_prefix("sha256-")
        .and_then(|digits| digits.parse::<Digest>().ok());
    let Some((path, length)) = digest.and_then(|digest| models.store.blob(&digest)) else {
        return problem(
            StatusCode::NOT_FOUND,
            "no_blob",
            "Not Found",
            "this node has no such file; /peer/models lists those it has",
        );
    };
    let asked = headers.get(RANGE).and_then(|range| range.to_str().ok());
    let (status, first, end) = match asked.map_or(Asked::Whole, |range| read_range(range, length)) {
        Asked::Whole => (StatusCode::OK, 0, length),
        Asked::Part(first, end) => (StatusCode::PARTIAL_CONTENT, first, end),
        Asked::Beyond => {
            let mut response = problem(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "bad_range",
                "Range Not Satisfiable",
                format!("the file has {length} bytes"),
            );
            if let Ok(value) = HeaderValue::from_str(&format!("bytes */{length}")) {
                response.headers_mut().insert(CONTENT_RANGE, value);
            }
            return response;
        }
    };
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        let place = match models.places.take(ends.peer()) {
            Ok(place) => place,
            Err(full) => {
                let mut response = problem(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "busy",
                    "Service Unavailable",
                    full.to_string(),
                );
                response.headers_mut().insert(RETRY_AFTER, AGAIN.into());
                return response;
            }
        };
        match File::open(&path) {
            Ok(file) => stream_file(file, first, end - first, place),
            Err(error) => {
                return problem(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "models_unreadable",
                    "Internal Server Error",
                    error.to_string(),
                );
            }
        }
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(end - first));
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) = HeaderValue::from_str(&format!("bytes {first}-{}/{length}", end - 1))
    {
        headers.insert(CONTENT_RANGE, value);
    }
    response
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// Everything; also for what is not understood, as RFC 9110 (14.2) has it.
    Whole,
    /// From a byte to the one after the last.
    Part(u64, u64),
    /// Nothing that is there.
    Beyond,
}

/// Reads `bytes=FIRST-LAST`, `bytes=FIRST-` and `bytes=-COUNT`.
fn read_range(text: &str, length: u64) -> Asked {
    let Some((first, last)) = text
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Asked::Whole;
    };
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<u64>().ok()).flatten()
    };
    match (first, last) {
        ("", count) => match number(count) {
            Some(0) => Asked::Beyond,
            Some(_) if length == 0 => Asked::Beyond,
            Some(count) => Asked::Part(length.saturating_sub(count), length),
            None => Asked::Whole,
        },
        (first, last) => match (number(first), last, number(last)) {
            (Some(first), "", _) if first < length => Asked::Part(first, length),
            (Some(first), _, Some(last)) if last < first => Asked::Whole,
            (Some(first), _, Some(last)) if first < length => {
                Asked::Part(first, last.saturating_add(1).min(length))
            }
            (Some(_), "", _) | (Some(_), _, Some(_)) => Asked::Beyond,
            _ => Asked::Whole,
        },
    }
}

/// Reads on a thread that may block, a few pieces ahead of the client. It ends with the client.
fn stream_file(mut file: File, first: u64, count: u64, place: Place) -> Body {
    let (pieces, received) = mpsc::channel::<std::io::Result<Bytes>>(2);
    crate::trace::spawn_blocking(move || {
        let _place = place;
        let mut left = count;
        if let Err(error) = file.seek(SeekFrom::Start(first)) {
            let _ = pieces.blocking_send(Err(error));
            return;
        }
        while left > 0 {
            let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
            let read = match file.read(&mut piece) {
                Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    piece.truncate(read);
                    left -= read as u64;
                    Ok(Bytes::from(piece))
                }
                Err(error) => Err(error),
            };
            let failed = read.is_err();
            if pieces.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
    Body::from_stream(stream::unfold(received, |mut received| async move {
        let piece = received.recv().await?;
        Some((piece, received))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (text, expected) in [
            ("bytes=0-0", Asked::Part(0, 1)),
            ("bytes=5-", Asked::Part(5, 10)),
            ("bytes=5-100", Asked::Part(5, 10)),
            ("bytes=-3", Asked::Part(7, 10)),
            ("bytes=-30", Asked::Part(0, 10)),
            ("bytes=10-", Asked::Beyond),
            ("bytes=10-12", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
            ("bytes=5-4", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("bytes=x-", Asked::Whole),
            ("items=0-1", Asked::Whole),
            ("bytes=99999999999999999999-", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
        ] {
            assert_eq!(read_range(text, 10), expected, "{text}");
        }
        assert_eq!(read_range("bytes=0-0", 0), Asked::Beyond);
    }

    #[test]
    fn others_may_read_two_routes_alone() {
        for (method, path, allowed) in [
            (Method::GET, "/peer/models", true),
            (Method::HEAD, "/peer/blobs/sha256-x", true),
            (Method::POST, "/peer/models", false),
            (Method::GET, "/peer/models/x", false),
            (Method::GET, "/peer", false),
            (Method::GET, "/v1/models", false),
        ] {
            assert_eq!(is_for_others(&method, path), allowed, "{method} {path}");
        }
    }
}
