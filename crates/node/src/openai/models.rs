//! `GET /v1/models` and `GET /v1/models/{id}`, in OpenAI's shape or, for Anthropic's clients, in theirs.

use std::time::SystemTime;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use hearth_engine::ModelSource;
use hearth_protocol::error::ErrorBody;
use hearth_protocol::model::{Model, ModelList};

use crate::RequestId;
use crate::anthropic::{self, models};
use crate::elsewhere::{self, Purpose};
use crate::encoders;
use crate::failure::Failure;
use crate::state::{Node, Shared};

/// Lists the models. With the header `anthropic-version` the answer has Anthropic's shape, and `limit`, `after_id` and
/// `before_id` choose a page.
#[utoipa::path(get, path = "/v1/models", tag = "openai", params(
    ("anthropic-version" = Option<String>, Header, description = "whatever it says, the answer has Anthropic's shape"),
    ("limit" = Option<u32>, Query, description = "for Anthropic's clients: 1 to 1000; 20 if left out"),
    ("after_id" = Option<String>, Query, description = "for Anthropic's clients: the page begins after this model"),
    ("before_id" = Option<String>, Query, description = "for Anthropic's clients: the page ends before this model"),
), responses(
    (status = 200, body = ModelList, description = "for Anthropic's clients: `data`, `has_more`, `first_id`, `last_id`"),
    (status = 400, description = "for Anthropic's clients: a parameter is wrong", body = hearth_protocol::anthropic::ErrorResponse)))]
pub(crate) async fn list(
    State(node): State<Shared>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    query: models::Pairs,
) -> Response {
    let all = all(&node);
    if !anthropic::asks(&headers) {
        return Json(ModelList {
            object: "list".into(),
            data: all,
        })
        .into_response();
    }
    match models::page(all, query) {
        Ok(page) => Json(page).into_response(),
        Err(error) => anthropic::refusal(error.into(), &id.0),
    }
}

/// A model of this machine or of another one.
async fn told(node: &Shared, id: String) -> Result<Model, Failure> {
    let failure = match of_here(node, &id) {
        Ok(model) => return Ok(model),
        Err(failure) => failure,
    };
    if let Some(rest) = elsewhere::pinned_here(node, &id) {
        return of_here(node, rest).map(|model| Model { id, ..model });
    }
    let found = elsewhere::find(node, &id, Purpose::Show).await;
    let (model, machine) = found.ok_or(failure)?;
    // A request that names the machine means that machine alone.
    let id = match elsewhere::is_pinned(node, &id) {
        true => format!("{machine}/{}", model.name),
        false => model.name,
    };
    Ok(of_other(id, machine))
}

/// One model; the name may contain slashes. With the header `anthropic-version` the answer has Anthropic's shape.
#[utoipa::path(get, path = "/v1/models/{id}", tag = "openai", params(("id" = String, Path, description = "name of the model"),
    ("anthropic-version" = Option<String>, Header, description = "whatever it says, the answer has Anthropic's shape")),
    responses((status = 200, body = Model), (status = 404, description = "no such model", body = ErrorBody)))]
pub(crate) async fn one(
    State(node): State<Shared>,
    Extension(request): Extension<RequestId>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    // No model's name is anything but UTF-8.
    let id = id.map_or_else(|_| "\u{fffd}".into(), |Path(id)| id);
    let model = told(&node, id).await;
    match (model, anthropic::asks(&headers)) {
        (Ok(model), false) => Json(model).into_response(),
        (Ok(model), true) => Json(models::info(model)).into_response(),
        (Err(failure), false) => failure.into_response(),
        (Err(failure), true) => anthropic::refusal(failure, &request.0),
    }
}

/// A model or encoder of this machine.
fn of_here(node: &Node, name: &str) -> Result<Model, Failure> {
    if let Some(encoder) = encoders::one(node, name) {
        return Ok(describe(&encoder.name, encoder.modified));
    }
    let source = node.engine.catalogue().resolve(Some(name))?;
    Ok(of_file(&source))
}

/// All models: the default one first, then the others of this machine, its encoders, and what other machines have.
fn all(node: &Node) -> Vec<Model> {
    let catalogue = node.engine.catalogue();
    let mut models = catalogue.list();
    // Stable: the others keep their order.
    models.sort_by_key(|model| Some(model.name.as_str()) != catalogue.default_name());
    let encoders = encoders::list(node).into_iter();
    let encoders = encoders.map(|encoder| describe(&encoder.name, encoder.modified));
    let elsewhere = elsewhere::others_models(node).into_iter();
    let elsewhere = elsewhere.map(|(model, machine)| of_other(model.name, machine));
    let here = models.iter().map(of_file).chain(encoders);
    here.chain(elsewhere).collect()
}

/// A model that another machine of the household answers with.
fn of_other(name: String, machine: String) -> Model {
    Model {
        owned_by: machine,
        ..describe(&name, None)
    }
}

fn of_file(source: &ModelSource) -> Model {
    let changed = std::fs::metadata(&source.path)
        .and_then(|file| file.modified())
        .ok();
    describe(&source.name, changed)
}

fn describe(name: &str, changed: Option<SystemTime>) -> Model {
    let created = changed.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    Model {
        id: name.to_owned(),
        object: "model".into(),
        created: created.map_or(0, |since| since.as_secs()),
        owned_by: "hearth".into(),
    }
}
