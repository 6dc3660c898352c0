//! Conversations made by name: `/v1/conversations` and their items.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use hearth_protocol::error::{ApiError, ErrorBody};
use hearth_protocol::parse;
use hearth_protocol::responses::{
    Conversation, ConversationUpdate, Deleted, InputItem, ItemList, NewConversation, NewItems,
    check_metadata,
};
use serde_json::Value;

use super::stored::{Pairs, id, list, listing};
use super::{complete, failure, fresh};
use crate::body::received;
use crate::conversations::{KeepError, Named, Owner, Page};
use crate::failure::Failure;
use crate::state::{Shared, unix_time};

/// Most items in one request, as at OpenAI.
const MOST: usize = 20;

/// Makes a conversation.
#[utoipa::path(post, path = "/v1/conversations", tag = "openai", request_body = NewConversation, responses(
    (status = 200, body = Conversation),
    (status = 400, description = "a field is wrong (`param` names it)", body = ErrorBody),
    (status = 404, description = "no such item", body = ErrorBody)))]
pub(crate) async fn create_conversation(
    State(node): State<Shared>,
    body: Body,
) -> Result<Json<Conversation>, Failure> {
    let body = received(&node, body).await?;
    let new: NewConversation = match body.is_empty() {
        true => NewConversation::default(),
        false => parse::body(&body)?,
    };
    check_metadata(new.metadata.as_ref())?;
    let items = few(new.items.unwrap_or_default())?;
    let items = complete(&node, items, "items").await?;
    let (id, created) = (fresh("conv"), unix_time());
    let metadata = new.metadata.unwrap_or_default();
    let named = Named {
        created,
        metadata: metadata.clone(),
    };
    let made = node.conversations.create(id.clone(), named, items).await;
    made.map_err(|error| failure(error, "item", Some("items".into())))?;
    Ok(Json(conversation(id, Named { created, metadata })))
}

/// A conversation, without its items.
#[utoipa::path(get, path = "/v1/conversations/{id}", tag = "openai", params(("id" = String, Path, description = "id of the conversation")), responses(
    (status = 200, body = Conversation),
    (status = 404, description = "no such conversation", body = ErrorBody)))]
pub(crate) async fn retrieve_conversation(
    State(node): State<Shared>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Conversation>, Failure> {
    let id = id(path);
    let named = node.conversations.named(id.clone()).await;
    Ok(Json(conversation(id, named.map_err(unknown)?)))
}

/// Gives a conversation other metadata.
#[utoipa::path(post, path = "/v1/conversations/{id}", tag = "openai", request_body = ConversationUpdate, params(("id" = String, Path, description = "id of the conversation")), responses(
    (status = 200, body = Conversation),
    (status = 400, description = "a field is wrong (`param` names it)", body = ErrorBody),
    (status = 404, description = "no such conversation", body = ErrorBody)))]
pub(crate) async fn update_conversation(
    State(node): State<Shared>,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Result<Json<Conversation>, Failure> {
    let id = id(path);
    let update: ConversationUpdate = parse::body(&received(&node, body).await?)?;
    check_metadata(Some(&update.metadata))?;
    let named = node.conversations.update(id.clone(), update.metadata).await;
    Ok(Json(conversation(id, named.map_err(unknown)?)))
}

/// Deletes a conversation with its items.
#[utoipa::path(delete, path = "/v1/conversations/{id}", tag = "openai", params(("id" = String, Path, description = "id of the conversation")), responses(
    (status = 200, body = Deleted),
    (status = 404, description = "no such conversation", body = ErrorBody)))]
pub(crate) async fn delete_conversation(
    State(node): State<Shared>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Deleted>, Failure> {
    let id = id(path);
    let deleted = node.conversations.delete(id.clone()).await;
    deleted.map_err(unknown)?;
    Ok(Json(Deleted {
        id,
        object: "conversation.deleted",
        deleted: true,
    }))
}

/// Adds items at the end of a conversation.
#[utoipa::path(post, path = "/v1/conversations/{id}/items", tag = "openai", request_body = NewItems, params(("id" = String, Path, description = "id of the conversation")), responses(
    (status = 200, description = "the items that were added", body = ItemList),
    (status = 400, description = "a field is wrong (`param` names it)", body = ErrorBody),
    (status = 404, description = "no such conversation or item", body = ErrorBody)))]
pub(crate) async fn add_items(
    State(node): State<Shared>,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Result<Json<ItemList>, Failure> {
    let new: NewItems = parse::body(&received(&node, body).await?)?;
    let items = complete(&node, few(new.items)?, "items").await?;
    let each = items.iter().map(serde_json::to_value);
    let added: Result<Vec<Value>, _> = each.collect();
    let page = Page {
        items: added.map_err(|error| unknown(error.into()))?,
        more: false,
    };
    let appended = node.conversations.append(id(path), items).await;
    appended.map_err(unknown)?;
    Ok(Json(list(page)))
}

/// The items of a conversation.
#[utoipa::path(get, path = "/v1/conversations/{id}/items", tag = "openai", params(
    ("id" = String, Path, description = "id of the conversation"),
    ("after" = Option<String>, Query, description = "only items after this one"),
    ("limit" = Option<u32>, Query, description = "1 to 100; 20 if left out"),
    ("order" = Option<String>, Query, description = "`asc`, or `desc` if left out")), responses(
    (status = 200, body = ItemList),
    (status = 400, description = "a parameter is wrong", body = ErrorBody),
    (status = 404, description = "no such conversation or item", body = ErrorBody)))]
pub(crate) async fn list_items(
    State(node): State<Shared>,
    path: Result<Path<String>, PathRejection>,
    query: Pairs,
) -> Result<Json<ItemList>, Failure> {
    let listing = listing(query)?;
    let owner = Owner::Conversation(id(path));
    let page = node.conversations.page(owner, listing).await;
    page.map(|page| Json(list(page))).map_err(unknown)
}

/// One item of a conversation.
#[utoipa::path(get, path = "/v1/conversations/{id}/items/{item}", tag = "openai", params(
    ("id" = String, Path, description = "id of the conversation"),
    ("item" = String, Path, description = "id of the item")), responses(
    (status = 200, body = hearth_protocol::responses::Item),
    (status = 404, description = "no such conversation or item", body = ErrorBody)))]
pub(crate) async fn retrieve_item(
    State(node): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Value>, Failure> {
    let (conversation, item) = both(path);
    let found = node.conversations.item(conversation, item).await;
    found.map(Json).map_err(unknown)
}

/// Takes one item out of a conversation.
#[utoipa::path(delete, path = "/v1/conversations/{id}/items/{item}", tag = "openai", params(
    ("id" = String, Path, description = "id of the conversation"),
    ("item" = String, Path, description = "id of the item")), responses(
    (status = 200, description = "the conversation", body = Conversation),
    (status = 404, description = "no such conversation or item", body = ErrorBody)))]
pub(crate) async fn delete_item(
    State(node): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Conversation>, Failure> {
    let (id, item) = both(path);
    let named = node.conversations.delete_item(id.clone(), item).await;
    Ok(Json(conversation(id, named.map_err(unknown)?)))
}

fn both(path: Result<Path<(String, String)>, PathRejection>) -> (String, String) {
    path.map_or_else(|_| ("\u{fffd}".into(), String::new()), |Path(both)| both)
}

fn unknown(error: KeepError) -> Failure {
    failure(error, "conversation or item", None)
}

fn few(items: Vec<InputItem>) -> Result<Vec<InputItem>, ApiError> {
    if items.len() > MOST {
        let message = format!(
            "items has {} items; send at most {MOST} at a time",
            items.len()
        );
        return Err(ApiError::invalid(Some("items".into()), message));
    }
    Ok(items)
}

fn conversation(id: String, named: Named) -> Conversation {
    Conversation {
        id,
        object: "conversation",
        created_at: named.created,
        metadata: named.metadata,
    }
}
