//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use hearth_engine::ModelSource;
use hearth_protocol::error::ErrorBody;
use hearth_protocol::model::{Model, ModelList};

use crate::failure::Failure;
use crate::state::Shared;

/// Lists the models.
#[utoipa::path(get, path = "/v1/models", tag = "openai", responses((status = 200, body = ModelList)))]
pub(crate) async fn list(State(node): State<Shared>) -> Json<ModelList> {
    let catalogue = node.engine.catalogue();
    let mut models = catalogue.list();
    // Stable: the others keep their order.
    models.sort_by_key(|model| Some(model.name.as_str()) != catalogue.default_name());
    Json(ModelList {
        object: "list".into(),
        data: models.iter().map(describe).collect(),
    })
}

/// One model; the name may contain slashes.
#[utoipa::path(get, path = "/v1/models/{id}", tag = "openai", params(("id" = String, Path, description = "name of the model")),
    responses((status = 200, body = Model), (status = 404, description = "no such model", body = ErrorBody)))]
pub(crate) async fn one(
    State(node): State<Shared>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Model>, Failure> {
    // No model's name is anything but UTF-8.
    let id = id.map_or_else(|_| "\u{fffd}".into(), |Path(id)| id);
    Ok(Json(describe(&node.engine.catalogue().resolve(Some(&id))?)))
}

fn describe(source: &ModelSource) -> Model {
    let changed = std::fs::metadata(&source.path)
        .and_then(|file| file.modified())
        .ok();
    let created = changed.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    Model {
        id: source.name.clone(),
        object: "model".into(),
        created: created.map_or(0, |since| since.as_secs()),
        owned_by: "hearth".into(),
    }
}
