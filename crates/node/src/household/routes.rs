//! The household's routes for its owner: inviting, joining, leaving, members, and the diagnosis of the ways to them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use futures_util::future::join_all;
use hearth_protocol::diagnosis::Diagnosis;
use hearth_protocol::error::Problem;
use hearth_protocol::parse;
use hearth_protocol::peers::{Invitation, Invite, Join, Leave, Left, Peers};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::{IntoParams, ToSchema};

use super::change::Refused;
use crate::body::received;
use crate::peer::memory;
use crate::state::Shared;

pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/diagnosis", get(diagnosis))
        .route("/household/invite", post(invite))
        .route("/household/join", post(join))
        .route("/household/leave", post(leave))
        .route("/household/memory/search", post(memory::everywhere))
        .route(
            "/household/memory/share",
            get(memory::shared).post(memory::share),
        )
        .route("/household/members/{name}", delete(remove).patch(rename))
        .route("/peers", get(peers))
}

/// A body that must be there.
pub(crate) async fn read<T: DeserializeOwned>(node: &Shared, body: Body) -> Result<T, Refused> {
    parsed(&whole(node, body).await?)
}

/// A body of which everything may be left out, itself too.
async fn read_or_default<T>(node: &Shared, body: Body) -> Result<T, Refused>
where
    T: DeserializeOwned + Default,
{
    let bytes = whole(node, body).await?;
    match bytes.is_empty() {
        true => Ok(T::default()),
        false => parsed(&bytes),
    }
}

/// A body's bytes.
pub(crate) async fn whole(node: &Shared, body: Body) -> Result<Vec<u8>, Refused> {
    let bytes = received(node, body).await;
    bytes.map_err(|failure| Refused::new(failure.status, "bad_body", failure.error.message))
}

fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    parse::body(bytes).map_err(|error| Refused::invalid_field(error.message))
}

/// Prints a ticket with which one machine joins. A machine that is alone becomes a hub.
#[utoipa::path(post, path = "/household/invite", tag = "household", request_body = Invite, responses(
    (status = 200, body = Invitation),
    (status = 400, body = Problem, description = "a field is wrong"),
    (status = 409, body = Problem, description = "this machine is not the hub of its household")))]
pub(crate) async fn invite(
    State(node): State<Shared>,
    body: Body,
) -> Result<Json<Invitation>, Refused> {
    let wanted: Invite = read_or_default(&node, body).await?;
    let household = Arc::clone(&node.household);
    Ok(Json(household.invite(&node, &wanted).await?))
}

/// Joins the household of a ticket.
#[utoipa::path(post, path = "/household/join", tag = "household", request_body = Join, responses(
    (status = 200, body = Peers),
    (status = 400, body = Problem, description = "the ticket is none"),
    (status = 403, body = Problem, description = "the hub refuses the ticket"),
    (status = 409, body = Problem, description = "this machine belongs to a household already"),
    (status = 502, body = Problem, description = "the hub does not answer")))]
pub(crate) async fn join(State(node): State<Shared>, body: Body) -> Result<Json<Peers>, Refused> {
    let wanted: Join = read(&node, body).await?;
    node.household.join(Some(&node), &wanted).await?;
    report(&node).await
}

/// Leaves the household.
#[utoipa::path(post, path = "/household/leave", tag = "household", request_body = Leave, responses(
    (status = 200, body = Left),
    (status = 409, body = Problem, description = "this machine belongs to no household")))]
pub(crate) async fn leave(State(node): State<Shared>, body: Body) -> Result<Json<Left>, Refused> {
    let wanted: Leave = read_or_default(&node, body).await?;
    let was = node.household.name();
    let told = node.household.leave(wanted.end).await?;
    let Json(peers) = report(&node).await?;
    Ok(Json(Left { told, was, peers }))
}

/// Removes a member, with immediate effect.
#[utoipa::path(delete, path = "/household/members/{name}", tag = "household",
    params(("name" = String, Path, description = "name of the machine, or the beginning of its id")), responses(
    (status = 200, body = Peers),
    (status = 404, body = Problem, description = "no such machine"),
    (status = 409, body = Problem, description = "this machine is not the hub, or is what is to be removed")))]
pub(crate) async fn remove(
    State(node): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<Peers>, Refused> {
    node.household.remove(&name).await?;
    report(&node).await
}

/// What of a member is changed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Renamed {
    /// Its new name.
    pub name: String,
}

/// Calls a member something else.
#[utoipa::path(patch, path = "/household/members/{name}", tag = "household", request_body = Renamed,
    params(("name" = String, Path, description = "name of the machine, or the beginning of its id")), responses(
    (status = 200, body = Peers),
    (status = 400, body = Problem, description = "that cannot be a name"),
    (status = 404, body = Problem, description = "no such machine"),
    (status = 409, body = Problem, description = "this machine is not the hub, or the name is taken")))]
pub(crate) async fn rename(
    State(node): State<Shared>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Json<Peers>, Refused> {
    let wanted: Renamed = read_or_default(&node, body).await?;
    node.household.rename(&name, &wanted.name).await?;
    report(&node).await
}

/// The machines of the household.
#[utoipa::path(get, path = "/peers", tag = "household", responses((status = 200, body = Peers)))]
pub(crate) async fn peers(State(node): State<Shared>) -> Result<Json<Peers>, Refused> {
    report(&node).await
}

/// The household, for its owner. Looks at files.
async fn report(node: &Shared) -> Result<Json<Peers>, Refused> {
    let node = Arc::clone(node);
    let reporting = crate::trace::spawn_blocking(move || node.household.report(Some(&node)));
    Ok(Json(reporting.await.map_err(Refused::failed)?))
}

/// Whose way is looked at.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct About {
    /// Name of a machine, or the beginning of its id; every machine if left out.
    peer: Option<String>,
    /// Whether this model can answer there.
    model: Option<String>,
    /// Whether everything is looked at now, instead of told as it was seen last.
    probe: bool,
}

/// The way to each machine, layer by layer: which one is broken, and what mends it.
#[utoipa::path(get, path = "/diagnosis", tag = "household", params(About), responses(
    (status = 200, body = Vec<Diagnosis>),
    (status = 400, body = Problem, description = "a parameter is wrong"),
    (status = 404, body = Problem, description = "no such machine")))]
pub(crate) async fn diagnosis(
    State(node): State<Shared>,
    about: Result<Query<About>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(about) = about.map_err(|error| Refused::invalid_field(error.body_text()))?;
    let household = &node.household;
    let own = household.id();
    let all = household.others().into_iter().map(|member| member.node);
    let peers: Vec<_> = match (&about.peer, household.live()) {
        (None, _) => all.collect(),
        (Some(name), Some(live)) => {
            let node = live.roster(|roster| roster.find(name).map(|member| member.node))?;
            if node == own {
                let message = format!("`{name}` is this machine; name another one");
                return Err(Refused::new(StatusCode::BAD_REQUEST, "is_here", message));
            }
            vec![node]
        }
        (Some(name), None) => {
            let message = format!("this machine belongs to no household, so there is no `{name}`");
            return Err(Refused::new(
                StatusCode::NOT_FOUND,
                "no_such_machine",
                message,
            ));
        }
    };
    let model = about.model.as_deref();
    let found: Vec<Diagnosis> = if about.probe {
        household.examine_hub().await;
        let each = peers.iter().map(|peer| household.examine(*peer, model));
        join_all(each).await.into_iter().flatten().collect()
    } else {
        let each = peers.iter();
        each.filter_map(|peer| household.diagnosis(*peer, model))
            .collect()
    };
    Ok(Json(found).into_response())
}
