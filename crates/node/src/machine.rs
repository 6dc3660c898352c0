//! What this machine can do, and which models of the catalogue are likely to do well on it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use hearth_engine::Catalogue;
use hearth_engine::machine::{ModelSize, estimate, measure};
use hearth_models::{Kind, catalogue};
use hearth_protocol::error::{ErrorBody, Problem};
use hearth_protocol::machine::{LikelyModel, Machine, MachineReport};

use crate::failure::problem;
use crate::state::Shared;
use crate::{page, surface};

/// What follows from a measurement for the models of the catalogue, the smallest first; `here` are the models on this
/// machine.
pub fn machine_report(machine: Option<Machine>, here: &Catalogue) -> MachineReport {
    let names: Vec<String> = here.list().into_iter().map(|source| source.name).collect();
    let mut models: Vec<LikelyModel> = machine
        .iter()
        .flat_map(|machine| catalogue::all().iter().map(move |known| (machine, known)))
        .map(|(machine, known)| {
            let name = known.full_name();
            let size = ModelSize {
                bytes: known.bytes,
                parameters: known.parameters,
                active: known.active_parameters(),
                // Two bytes an element.
                kv_bytes_per_token: known.kv_elements() * 2,
            };
            LikelyModel {
                embeds: known.kind == Kind::Embedding,
                here: names.contains(&name),
                name,
                estimate: estimate(machine, &size),
            }
        })
        .collect();
    models.sort_by_key(|model| model.estimate.bytes);
    MachineReport { machine, models }
}

/// What was measured of this machine, and how the models of the catalogue are likely to do.
#[utoipa::path(get, path = "/machine", tag = "node", responses(
    (status = 200, description = "the last measurement, if there was one", body = MachineReport)))]
pub(crate) async fn report(State(node): State<Shared>) -> Json<MachineReport> {
    Json(node.machine_report())
}

/// Measures this machine anew; takes a few seconds and all cores.
#[utoipa::path(post, path = "/machine", tag = "node", responses(
    (status = 200, description = "the measurement", body = MachineReport),
    (status = 303, description = "for a browser: back to the page"),
    (status = 409, description = "it is being measured already, or models are answering", body = Problem),
    (status = 500, description = "the device failed", body = Problem)))]
pub(crate) async fn remeasure(State(node): State<Shared>, headers: HeaderMap) -> Response {
    let refused = |status, kind, title, detail: String| problem(status, kind, title, detail);
    let busy = |model: &hearth_protocol::status::ModelStatus| {
        model.load.is_some_and(|load| load.slots_busy > 0)
    };
    let Ok(mut measured) = Arc::clone(&node.machine).try_lock_owned() else {
        return refused(
            StatusCode::CONFLICT,
            "measuring",
            "already measuring",
            "this machine is being measured; ask again in a few seconds".into(),
        );
    };
    if let Some(model) = node.engine.status().iter().find(|model| busy(model)) {
        return refused(
            StatusCode::CONFLICT,
            "busy",
            "models are answering",
            format!(
                "`{}` is answering, and both would get wrong figures; try again when it is done",
                model.name
            ),
        );
    }
    // The lock goes along: who leaves early does not end the measurement.
    let outcome = crate::trace::spawn_blocking(move || {
        *measured = Some(measure(None, false)?);
        Ok(())
    });
    if let Err(reason) = outcome.await.unwrap_or_else(|error| Err(error.to_string())) {
        return refused(
            StatusCode::INTERNAL_SERVER_ERROR,
            "measurement_failed",
            "the measurement failed",
            reason,
        );
    }
    let html = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    if html.is_some_and(|accept| accept.contains("text/html")) {
        return Redirect::to("/models").into_response();
    }
    Json(node.machine_report()).into_response()
}

/// The page that shows it.
#[utoipa::path(get, path = "/models", tag = "page", responses(
    (status = 200, description = "HTML"),
    (status = 404, description = "for a program that wants JSON: the list is at /v1/models", body = ErrorBody)))]
pub(crate) async fn models(State(node): State<Shared>, request: Request) -> Response {
    // An OpenAI client whose base URL lacks the /v1.
    let accept = request.headers().get(ACCEPT);
    if accept.is_some_and(|types| types == "application/json") {
        return surface::unknown(request).await;
    }
    page::html(hearth_web::models(&node.status(), &node.machine_report()))
}
