//! The page at `/` and its assets, rendered by `hearth-web`.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::failure;
use crate::state::Shared;

/// Scripts, styles and connections from this node alone.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// What Ollama says here; its clients look for it to see whether somebody is there.
const RUNNING: &str = "Ollama is running";

/// The chat and status page; programs get a line of text.
#[utoipa::path(get, path = "/", tag = "page", responses((status = 200, description = "HTML for browsers, else a line of text")))]
pub(crate) async fn home(State(node): State<Shared>, headers: HeaderMap) -> Response {
    let mut accepted = headers.get_all(ACCEPT).iter();
    let browser = accepted.any(|types| {
        types
            .to_str()
            .is_ok_and(|types| types.contains("text/html"))
    });
    if !browser {
        return ([(VARY, "accept")], RUNNING).into_response();
    }
    html(hearth_web::home(&node.status()))
}

/// A rendered page.
pub(crate) fn html(page: String) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Other sites learn nothing; `no-referrer` would also hide from this node that its own page sends a form.
        (REFERRER_POLICY, "same-origin"),
        (CACHE_CONTROL, "no-store"),
        (VARY, "accept"),
    ];
    (headers, page).into_response()
}

/// A static file of the page.
#[utoipa::path(get, path = "/assets/{name}", tag = "page", params(("name" = String, Path, description = "file")),
    responses((status = 200, description = "the file"), (status = 304, description = "unchanged"), (status = 404, description = "no such file")))]
pub(crate) async fn asset(
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    // No file's name is anything but UTF-8.
    let name = name.map_or_else(|_| "\u{fffd}".into(), |Path(name)| name);
    let Some(asset) = hearth_web::asset(&name) else {
        return failure::problem(
            StatusCode::NOT_FOUND,
            "not_found",
            "no such file",
            format!("the page has no `{name}`"),
        );
    };
    let known = [
        (ETAG, asset.etag),
        (CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if headers
        .get(IF_NONE_MATCH)
        .is_some_and(|etag| etag.as_bytes() == asset.etag.as_bytes())
    {
        return (StatusCode::NOT_MODIFIED, known).into_response();
    }
    (known, [(CONTENT_TYPE, asset.content_type)], asset.bytes).into_response()
}
