//! The pages at `/` and `/memories` and their assets, rendered by `hearth-web`.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use hearth_memory::{Error, Memories};
use hearth_protocol::memory::Search;
use hearth_web::{Asked, Shown};
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::state::Shared;
use crate::{failure, memory};

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

/// The machines of the household, and the way to each.
#[utoipa::path(get, path = "/household", tag = "page", responses((status = 200, description = "HTML")))]
pub(crate) async fn household(State(node): State<Shared>) -> Response {
    let reporting = crate::trace::spawn_blocking(move || node.household.report(Some(&node)));
    match reporting.await {
        Ok(report) => html(hearth_web::household(&report)),
        Err(error) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            failure::problem(
                status,
                "household_failed",
                "Internal Server Error",
                error.to_string(),
            )
        }
    }
}

/// Memories on a page of the list.
const LISTED: usize = 20;
/// Memories that a search shows.
const FOUND: usize = 30;

/// What the page of memories is asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// What is searched; without it memories are listed, newest first.
    q: String,
    /// Only this project's and those of every project.
    project: String,
    /// Only this kind.
    kind: String,
    /// Only those with this tag.
    tag: String,
    /// The last of the page before.
    after: String,
    /// The one to look at.
    id: String,
}

/// The page of memories: a list, what a search found, or one of them.
#[utoipa::path(get, path = "/memories", tag = "page", params(Wanted), responses(
    (status = 200, description = "HTML"),
    (status = 400, description = "a parameter is wrong; HTML that says which"),
    (status = 404, description = "there is no such memory; HTML that says so")))]
pub(crate) async fn memories(
    State(node): State<Shared>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Response {
    let (wanted, unread) = match wanted {
        Ok(Query(wanted)) => (wanted, None),
        Err(error) => (Wanted::default(), Some(error.body_text())),
    };
    let asked = Asked {
        query: wanted.q.trim().to_owned(),
        project: wanted.project.trim().to_owned(),
        kind: wanted.kind.trim().to_lowercase(),
        tag: wanted.tag.trim().to_lowercase(),
        after: wanted.after,
        id: wanted.id,
    };
    let memories = node.memories.clone();
    let looked_up = asked.clone();
    let work = move || {
        let now = Timestamp::now();
        let shown = match unread {
            Some(reason) => Err((StatusCode::BAD_REQUEST, reason)),
            None => shown(&memories, &looked_up, now)
                .map_err(|error| (memory::status(&error), error.to_string())),
        };
        let stats = memories.stats(now).map_err(|error| error.to_string());
        (shown, stats)
    };
    let (shown, stats) = match crate::trace::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => {
            let reason = error.to_string();
            let failed = (StatusCode::INTERNAL_SERVER_ERROR, reason.clone());
            (Err(failed), Err(reason))
        }
    };
    let (status, shown) = match shown {
        Ok(shown) => (StatusCode::OK, shown),
        Err((status, reason)) => (status, Shown::Refused(reason)),
    };
    let door = node.status().address;
    let stats = stats.as_ref().map_err(String::as_str);
    let page = hearth_web::memories(&door, &asked, stats, &shown);
    (status, html(page)).into_response()
}

/// What the memory has of what is asked.
fn shown(memories: &Memories, asked: &Asked, now: Timestamp) -> Result<Shown, Error> {
    if !asked.id.is_empty() {
        return memories
            .get(&asked.id, now)
            .map(|memory| Shown::One(Box::new(memory)));
    }
    let said = |field: &str| (!field.is_empty()).then(|| field.to_owned());
    let search = Search {
        query: asked.query.clone(),
        project: said(&asked.project),
        kind: said(&asked.kind),
        tags: said(&asked.tag).into_iter().collect(),
        explain: true,
        ..Search::default()
    };
    if asked.query.is_empty() {
        let search = Search {
            limit: Some(LISTED),
            ..search
        };
        return memories
            .list(&search, said(&asked.after).as_deref())
            .map(Shown::Listed);
    }
    let search = Search {
        limit: Some(FOUND),
        ..search
    };
    memories.search(&search, now).map(Shown::Found)
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
