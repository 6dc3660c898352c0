//! Stored answers: `GET` and `DELETE /v1/responses/{id}`, what was asked for them, and why they cannot be cancelled.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use hearth_protocol::error::{ApiError, ErrorBody};
use hearth_protocol::responses::{Deleted, ItemList};
use serde_json::Value;

use super::failure;
use crate::conversations::{KeepError, Listing, Owner, Page};
use crate::failure::Failure;
use crate::state::Shared;

/// Items of a page unless `limit` says otherwise.
const DEFAULT_LIMIT: usize = 20;
/// Most items of a page.
const MOST: usize = 100;

/// The query of a request, as it comes.
pub(super) type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// An id in a path. What is not UTF-8 is no id that was ever given out.
pub(super) fn id(path: Result<Path<String>, PathRejection>) -> String {
    path.map_or_else(|_| "\u{fffd}".into(), |Path(id)| id)
}

/// A stored answer.
#[utoipa::path(get, path = "/v1/responses/{id}", tag = "openai", params(("id" = String, Path, description = "id of the answer")), responses(
    (status = 200, body = hearth_protocol::responses::Response),
    (status = 400, description = "the answer was asked for as a stream", body = ErrorBody),
    (status = 404, description = "no such answer", body = ErrorBody)))]
pub(crate) async fn retrieve(
    State(node): State<Shared>,
    path: Result<Path<String>, PathRejection>,
    query: Pairs,
) -> Result<Json<Value>, Failure> {
    for (name, value) in pairs(query)? {
        if name == "stream" && value == "true" {
            let message = "stream: a stored answer comes whole; leave it out";
            return Err(ApiError::unsupported("stream", message).into());
        }
    }
    let found = node.conversations.response(id(path)).await;
    found.map(Json).map_err(unknown)
}

/// Deletes a stored answer with what was asked for it.
#[utoipa::path(delete, path = "/v1/responses/{id}", tag = "openai", params(("id" = String, Path, description = "id of the answer")), responses(
    (status = 200, body = Deleted),
    (status = 404, description = "no such answer", body = ErrorBody)))]
pub(crate) async fn delete(
    State(node): State<Shared>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Deleted>, Failure> {
    let id = id(path);
    let deleted = node.conversations.delete_response(id.clone()).await;
    deleted.map_err(unknown)?;
    Ok(Json(Deleted {
        id,
        object: "response",
        deleted: true,
    }))
}

/// Would cancel an answer in the background, of which there are none.
#[utoipa::path(post, path = "/v1/responses/{id}/cancel", tag = "openai", params(("id" = String, Path, description = "id of the answer")), responses(
    (status = 400, description = "the answer is complete", body = ErrorBody),
    (status = 404, description = "no such answer", body = ErrorBody)))]
pub(crate) async fn cancel(
    State(node): State<Shared>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Failure> {
    let id = id(path);
    node.conversations
        .response(id.clone())
        .await
        .map_err(unknown)?;
    let message = format!(
        "response_id: `{id}` is complete, and only background answers can be cancelled; to stop one that is streamed, close the connection"
    );
    Err(ApiError::invalid(Some("response_id".into()), message).into())
}

/// What was asked for a stored answer, without what it goes on from.
#[utoipa::path(get, path = "/v1/responses/{id}/input_items", tag = "openai", params(
    ("id" = String, Path, description = "id of the answer"),
    ("after" = Option<String>, Query, description = "only items after this one"),
    ("limit" = Option<u32>, Query, description = "1 to 100; 20 if left out"),
    ("order" = Option<String>, Query, description = "`asc`, or `desc` if left out")), responses(
    (status = 200, body = ItemList),
    (status = 400, description = "a parameter is wrong", body = ErrorBody),
    (status = 404, description = "no such answer or item", body = ErrorBody)))]
pub(crate) async fn input_items(
    State(node): State<Shared>,
    path: Result<Path<String>, PathRejection>,
    query: Pairs,
) -> Result<Json<ItemList>, Failure> {
    let listing = listing(query)?;
    let page = node
        .conversations
        .page(Owner::Response(id(path)), listing)
        .await;
    page.map(|page| Json(list(page))).map_err(unknown)
}

fn unknown(error: KeepError) -> Failure {
    failure(error, "response", Some("response_id".into()))
}

fn pairs(query: Pairs) -> Result<Vec<(String, String)>, ApiError> {
    let invalid = |error: QueryRejection| ApiError::invalid(None, error.body_text());
    Ok(query.map_err(invalid)?.0)
}

/// Which page of a list is asked for.
pub(super) fn listing(query: Pairs) -> Result<Listing, ApiError> {
    let mut listing = Listing {
        after: None,
        limit: DEFAULT_LIMIT,
        descending: true,
    };
    for (name, value) in pairs(query)? {
        match name.as_str() {
            "after" => listing.after = Some(value),
            "limit" => {
                let limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=MOST).contains(limit));
                listing.limit = limit.ok_or_else(|| {
                    let message = format!("limit must be a number from 1 to {MOST}");
                    ApiError::invalid(Some("limit".into()), message)
                })?;
            }
            "order" => {
                listing.descending = match value.as_str() {
                    "asc" => false,
                    "desc" => true,
                    _ => {
                        let message = "order must be `asc` or `desc`";
                        return Err(ApiError::invalid(Some("order".into()), message));
                    }
                }
            }
            "before" => {
                let message = "before is not supported; use after, with order the other way";
                return Err(ApiError::unsupported("before", message));
            }
            // `include` names what is never here.
            _ => {}
        }
    }
    Ok(listing)
}

/// A page as a list.
pub(super) fn list(page: Page) -> ItemList {
    let id = |item: Option<&Value>| Some(item?.get("id")?.as_str()?.to_owned());
    ItemList {
        object: "list",
        first_id: id(page.items.first()),
        last_id: id(page.items.last()),
        has_more: page.more,
        data: page.items,
    }
}
