//! Memories of other machines: `POST /peer/memory/search` lets the household search what this machine's owner opened to
//! it, project by project, and nothing is ever written; `POST /household/memory/search` asks every machine at once, and
//! this one.
//!
//! What is open is read from the database at each request, so that the owner's switch counts at once.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::future::join_all;
use hearth_protocol::error::Problem;
use hearth_protocol::household::Member;
use hearth_protocol::memory::{Found, Hit, Search};
use hearth_protocol::peers::{FoundEverywhere, HitSomewhere, Share, Shared as Open, Unanswered};
use jiff::Timestamp;

use crate::household::routes::read;
use crate::household::{Refused, ask};
use crate::state::Shared;

/// How long another machine may take: people wait for the answer.
const DEADLINE: Duration = Duration::from_secs(1);
/// Most memories that a search gives.
const MOST: usize = 100;
/// Memories of an answer unless it is said.
const USUAL: usize = 10;

/// Searches the memories that this machine lets its household search.
#[utoipa::path(post, path = "/peer/memory/search", tag = "peer", request_body = Search, responses(
    (status = 200, body = Found),
    (status = 400, body = Problem, description = "a field is wrong"),
    (status = 403, body = Problem, description = "the project is not shared, or the caller is no member"),
    (status = 503, body = Problem, description = "this machine shares no memories")))]
pub(crate) async fn search(State(node): State<Shared>, body: Body) -> Result<Json<Found>, Refused> {
    let wanted: Search = read(&node, body).await?;
    let searching = crate::trace::spawn_blocking(move || searched(&node, wanted));
    Ok(Json(searching.await.map_err(memory_failed)??))
}

/// What went wrong in the memory, and not in the request.
fn memory_failed(error: impl std::fmt::Display) -> Refused {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Refused::new(status, "memory_failed", error.to_string())
}

/// What fits of the shared projects.
fn searched(node: &Shared, wanted: Search) -> Result<Found, Refused> {
    let shared = node.household.shared_projects()?;
    if shared.is_empty() {
        return Err(Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "memory_not_shared",
            "this machine does not let its household search its memories; its owner runs there: hearth memory share --all, or hearth memory share --project NAME",
        ));
    }
    let all = shared.iter().any(String::is_empty);
    let asked: Vec<Option<String>> = match (&wanted.project, all) {
        (_, true) => vec![wanted.project.clone()],
        (Some(project), false) if shared.contains(project) => vec![Some(project.clone())],
        (Some(project), false) => {
            return Err(Refused::new(
                StatusCode::FORBIDDEN,
                "project_not_shared",
                format!("this machine does not share the memories of project `{project}`"),
            ));
        }
        (None, false) => shared.into_iter().map(Some).collect(),
    };
    let limit = wanted.limit.unwrap_or(USUAL);
    let mut found = Found::default();
    for project in asked {
        let of_project = Search {
            project: project.clone(),
            // What belongs to every project is found too, and left out below.
            limit: Some(limit.saturating_mul(5).min(MOST)),
            ..wanted.clone()
        };
        let some = node
            .memories
            .peek(&of_project, Timestamp::now())
            .map_err(|error| {
                let status = crate::memory::status(&error);
                Refused::new(status, "memory_failed", error.to_string())
            })?;
        found.words_only = some.words_only;
        let mut hits = some.memories;
        if !all {
            // A project's search finds what belongs to every project too, and that was not shared.
            hits.retain(|hit| hit.memory.project == project);
        }
        found.memories.extend(hits);
    }
    found.memories.sort_by(|a, b| b.score.total_cmp(&a.score));
    found.memories.truncate(limit);
    found.count = found.memories.len();
    Ok(found)
}

/// Searches the memories of every machine of the household that lets it, with this machine's own.
#[utoipa::path(post, path = "/household/memory/search", tag = "household", request_body = Search, responses(
    (status = 200, body = FoundEverywhere),
    (status = 400, body = Problem, description = "a field is wrong")))]
pub(crate) async fn everywhere(
    State(node): State<Shared>,
    body: Body,
) -> Result<Json<FoundEverywhere>, Refused> {
    let mut wanted: Search = read(&node, body).await?;
    // The lists are made one by what they say of themselves.
    let explain = std::mem::replace(&mut wanted.explain, true);
    let own = {
        let (node, wanted) = (Arc::clone(&node), wanted.clone());
        crate::trace::spawn_blocking(move || node.memories.search(&wanted, Timestamp::now()))
    };
    let others = node.household.others();
    let asking = others.iter().map(|member| of_other(&node, member, &wanted));
    let (own, answers) = tokio::join!(own, join_all(asking));
    let own = own.map_err(Refused::failed)?.map_err(|error| {
        let status = crate::memory::status(&error);
        Refused::new(status, "memory_failed", error.to_string())
    })?;
    let mut found = vec![(node.household.name(), own.memories)];
    let mut unanswered = Vec::new();
    for (member, answer) in others.iter().zip(answers) {
        match answer {
            Ok(hits) => found.push((member.name.clone(), hits)),
            Err((code, reason)) => unanswered.push(Unanswered {
                name: member.name.clone(),
                code,
                reason,
            }),
        }
    }
    let limit = wanted.limit.unwrap_or(USUAL);
    let merged = hearth_memory::merged(&wanted.query, found, limit, Timestamp::now());
    let memories: Vec<HitSomewhere> = merged
        .into_iter()
        .map(|(machine, mut hit)| {
            hit.why = hit.why.filter(|_| explain);
            HitSomewhere { hit, machine }
        })
        .collect();
    Ok(Json(FoundEverywhere {
        count: memories.len(),
        memories,
        unanswered,
    }))
}

/// What another machine finds, or why it says nothing.
async fn of_other(
    node: &Shared,
    member: &Member,
    wanted: &Search,
) -> Result<Vec<Hit>, (String, String)> {
    let asking = async {
        let request = ask::post("/peer/memory/search", wanted);
        let reply = Arc::clone(&node.household).ask(member.clone(), request, DEADLINE);
        let reply = reply
            .await
            .map_err(|error| ("no_answer".to_owned(), error.to_string()))?;
        if !reply.status().is_success() {
            let (_, code, words) = reply.problem().await;
            return Err((code.unwrap_or_else(|| "refused".into()), words));
        }
        let found: Found = ask::json(reply)
            .await
            .map_err(|error| ("no_answer".to_owned(), error))?;
        Ok(found.memories)
    };
    match tokio::time::timeout(DEADLINE, asking).await {
        Ok(answer) => answer,
        Err(_) => Err((
            "no_answer".into(),
            format!("it did not answer within {} ms", DEADLINE.as_millis()),
        )),
    }
}

/// Lets the household search memories of this machine, or not any more.
#[utoipa::path(post, path = "/household/memory/share", tag = "household", request_body = Share, responses(
    (status = 200, body = Open), (status = 400, body = Problem, description = "a field is wrong")))]
pub(crate) async fn share(State(node): State<Shared>, body: Body) -> Result<Json<Open>, Refused> {
    let wanted: Share = read(&node, body).await?;
    if wanted
        .project
        .as_ref()
        .is_some_and(|project| project.trim().is_empty())
    {
        let message = "project is empty; name one, or leave it out to share every memory";
        return Err(Refused::invalid_field(message));
    }
    let project = wanted.project.unwrap_or_default();
    let sharing = {
        let node = Arc::clone(&node);
        crate::trace::spawn_blocking(move || {
            node.household.share_project(&project, wanted.shared)?;
            open(&node)
        })
    };
    Ok(Json(sharing.await.map_err(Refused::failed)??))
}

/// What of this machine's memories the household may search.
#[utoipa::path(get, path = "/household/memory/share", tag = "household", responses((status = 200, body = Open)))]
pub(crate) async fn shared(State(node): State<Shared>) -> Result<Json<Open>, Refused> {
    let reading = crate::trace::spawn_blocking(move || open(&node));
    Ok(Json(reading.await.map_err(Refused::failed)??))
}

fn open(node: &Shared) -> Result<Open, Refused> {
    let mut projects = node.household.shared_projects()?;
    let all = projects.iter().any(String::is_empty);
    projects.retain(|project| !project.is_empty());
    let mut empty = projects.clone();
    if !empty.is_empty() {
        let stats = node.memories.stats(Timestamp::now());
        let known = stats.map_err(memory_failed)?.projects;
        empty.retain(|name| !known.iter().any(|(known, _)| known.as_ref() == Some(name)));
    }
    Ok(Open {
        all,
        projects,
        empty,
    })
}
