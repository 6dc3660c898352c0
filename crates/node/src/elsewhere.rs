//! Where a prompt is answered: here, or by another node of the household.
//!
//! The facts are gathered here (who has the model, how busy everybody is, whom a prompt reaches), the choice is
//! [`hearth_dispatch::rank`]'s and what happens when a machine fails is [`hearth_dispatch::Run`]'s. A node that is alone
//! asks its engine and nothing else.

mod candidates;
mod remote;

use std::time::{Duration, Instant};

use hearth_dispatch::{Attempt, Choice, Limits, ModelState, Path, Run, rank};
use hearth_engine::{Constraint, EngineError, Prompt, Request};
use hearth_protocol::error::ApiError;
use hearth_protocol::household::PeerModel;
use hearth_protocol::recall::Extension;
use hearth_protocol::status::ModelState as ModelStatus;

pub(crate) use self::candidates::models;
use self::candidates::{Asked, Place};
use self::remote::Asker;
pub(crate) use self::remote::Remote;
use crate::answer::Answering;
use crate::answered::Note;
use crate::failure::Failure;
use crate::state::{Node, Shared};

/// How long a client's answer has no head while another machine works: what fails until then has a status of its own,
/// and the head names the machine that answers. Clients give up on heads much later than this.
const HEAD_WAITS: Duration = Duration::from_secs(5);
/// Bytes that a slow line takes in a second.
const SLOW_LINE: usize = 128 << 10;

/// What a surface wants answered.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub request: Request,
    /// Whether the answer may go on elsewhere if it breaks off, from the text so far.
    pub goes_on: bool,
}

impl From<Request> for Wanted {
    fn from(request: Request) -> Self {
        Self {
            request,
            goes_on: false,
        }
    }
}

impl Wanted {
    /// With what a request asks of Hearth itself.
    pub fn of(request: Request, extension: Option<&Extension>) -> Self {
        Self {
            request,
            goes_on: extension.is_some_and(|extension| extension.goes_on),
        }
    }

    /// Refuses to go on with what would not be the same answer.
    fn check(&self) -> Result<(), Failure> {
        let request = &self.request;
        let hindrance = if !self.goes_on {
            None
        } else if request.sampling.temperature != Some(0.0) {
            Some("temperature 0")
        } else if request.n != 1 || request.logprobs.is_some() {
            Some("one choice without log probabilities")
        } else if request.constraint != Constraint::None {
            Some("an answer without a schema or a grammar")
        } else if matches!(&request.prompt, Prompt::Chat(chat) if !chat.tools.definitions.is_empty())
        {
            Some("a request without tools")
        } else {
            None
        };
        match hindrance {
            None => Ok(()),
            Some(needed) => {
                let message =
                    format!("hearth.continue needs {needed}; leave it out, or change that");
                Err(ApiError::invalid(Some("hearth.continue".into()), message).into())
            }
        }
    }
}

/// Asks the machine that can answer first. `model` may name a machine before a slash (`gpubox/qwen3:8b`).
pub(crate) async fn ask(
    node: &Shared,
    model: Option<&str>,
    wanted: Wanted,
) -> Result<Answering, Failure> {
    wanted.check()?;
    let Wanted { request, goes_on } = wanted;
    let asked = match candidates::asked(node, model)? {
        Some(asked) if request.adapters.is_empty() => asked,
        // Alone, or with adapters that are this machine's files.
        _ => return here(node, model, request).await,
    };
    let prompt = candidates::text(&request);
    let places = candidates::places(node, &asked, &prompt);
    let facts: Vec<_> = places.iter().map(|place| place.facts.clone()).collect();
    let ranked = rank(&candidates::demand(&asked, &request, &prompt), &facts);
    let Some(first) = ranked.first() else {
        return nobody(node, &asked, &places, request).await;
    };
    let mut rest = ranked.as_slice();
    let mut refused = None;
    if facts[first.index].path == Path::Here {
        // Elsewhere it would have to be loaded, too.
        let is_ready = |choice: &Choice| facts[choice.index].model == ModelState::Loaded;
        let others_ready = ranked[1..].iter().any(is_ready);
        match here(node, asked.model.as_deref(), request.clone()).await {
            Ok(answering) => {
                candidates::noted(node, &asked, &prompt, None);
                if let Some(note) = Note::here() {
                    note.set(&places[first.index].name, first.why.words());
                }
                return Ok(answering);
            }
            Err(failure)
                if ranked.len() > 1
                    && is_this_machines(&failure)
                    && (failure.code() != "model_loading" || others_ready) =>
            {
                refused = Some(failure);
                rest = &ranked[1..];
            }
            Err(failure) => return Err(failure),
        }
    }
    let attempts = rest.iter().map(|choice| Attempt {
        candidate: choice.index,
        here: facts[choice.index].path == Path::Here,
    });
    let limits = Limits {
        silence: in_time(prompt.len()),
        resume: goes_on,
        ..Limits::default()
    };
    let run = Run::new(attempts, limits, Instant::now());
    let whys = rest
        .iter()
        .map(|choice| (choice.index, choice.why))
        .collect();
    let mut remote = Remote::begin(Asker::new(
        node,
        asked,
        places,
        whys,
        (request, prompt),
        (run, goes_on),
    ));
    match tokio::time::timeout(HEAD_WAITS, remote.begun()).await {
        Ok(Ok(())) | Err(_) => {
            remote.look();
            Ok(Answering::There(Box::new(remote)))
        }
        // What this machine said first is what its owner can mend.
        Ok(Err(failure)) => Err(refused.unwrap_or(failure)),
    }
}

/// How long a machine may say nothing, of a request of so many bytes, which may have to go over a slow line.
fn in_time(bytes: usize) -> Duration {
    Limits::default().silence + Duration::from_secs((bytes / SLOW_LINE) as u64)
}

async fn here(node: &Shared, model: Option<&str>, request: Request) -> Result<Answering, Failure> {
    let generation = node.engine.generate(model, request).await?;
    Ok(Answering::Here(generation))
}

/// Whether a failure lies in this machine and not in the request, so that another one may do better.
fn is_this_machines(failure: &Failure) -> bool {
    let code = failure.code();
    let own = [
        "model_loading",
        "no_room",
        "rate_limit_exceeded",
        "model_load_failed",
        "engine_failed",
        "model_unloaded",
    ];
    own.contains(&code)
}

/// Why nobody can answer.
async fn nobody(
    node: &Shared,
    asked: &Asked,
    places: &[Place],
    request: Request,
) -> Result<Answering, Failure> {
    if let Some(pinned) = asked.pinned {
        let place = places.iter().find(|place| place.facts.node == pinned);
        let name = place.map_or_else(|| pinned.short(), |place| place.name.clone());
        let model = asked.model.as_deref().unwrap_or("its default");
        let has: Vec<&str> = place.map_or(Vec::new(), |place| {
            place.models.iter().map(String::as_str).collect()
        });
        let message = format!(
            "model `{model}` is not on {name}; it has {}. Leave `{name}/` out to have any machine answer",
            has.join(", ")
        );
        let mut error = ApiError::new("invalid_request_error", Some("model_not_found"), message);
        error.param = Some("model".into());
        return Err(Failure::new(axum::http::StatusCode::NOT_FOUND, error));
    }
    // The engine knows best what is wrong with the name.
    match here(node, asked.model.as_deref(), request).await {
        Err(mut failure) if failure.code() == "model_not_found" => {
            let bad: Vec<String> = places
                .iter()
                .filter(|place| place.has_model())
                .map(|place| place.name.clone())
                .collect();
            let machine = asked
                .model
                .as_deref()
                .and_then(|model| model.split_once('/'));
            if let (true, Some((machine, _))) = (bad.is_empty(), machine) {
                let names: Vec<&str> = places.iter().map(|place| place.name.as_str()).collect();
                failure.error.message += &format!(
                    "; if `{machine}` is meant as a machine, the household has {}",
                    names.join(", ")
                );
            }
            if !bad.is_empty() {
                failure.status = axum::http::StatusCode::SERVICE_UNAVAILABLE;
                failure.retry_after = Some(5);
                failure.error = ApiError::new(
                    "server_error",
                    Some("no_machine"),
                    format!(
                        "the model is on {}, and no prompt gets there at the moment; see why: hearth doctor {}",
                        bad.join(", "),
                        bad[0]
                    ),
                );
            }
            Err(failure)
        }
        other => other,
    }
}

/// Models that other machines have and this one has not, each with the machine, by name: what a request may name too.
pub(crate) fn others_models(node: &Node) -> Vec<(PeerModel, String)> {
    let own = node.engine.catalogue().list();
    let mut found: Vec<(PeerModel, String)> = Vec::new();
    for (model, machine) in all_others(node) {
        let known = own.iter().any(|source| source.name == model.name)
            || found.iter().any(|(other, _)| other.name == model.name);
        if !known {
            found.push((model, machine));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    found
}

/// What every other machine has that generates.
fn all_others(node: &Node) -> impl Iterator<Item = (PeerModel, String)> {
    let members = node.household.others().into_iter();
    members.flat_map(|member| {
        let now = node.household.says(member.node);
        let models = now.unwrap_or(member.capabilities).models.into_iter();
        let generating = models.filter(|model| !model.embeds);
        generating.map(move |model| (model, member.name.clone()))
    })
}

/// Whether another machine may answer for a model that this one has not.
pub(crate) fn may_be_elsewhere(node: &Node, model: &str) -> bool {
    if !node.household.has_others() {
        return false;
    }
    let is_pinned = model
        .split_once('/')
        .is_some_and(|(machine, _)| node.household.named(machine).is_some());
    let others = others_models(node);
    let names: Vec<&str> = others.iter().map(|(model, _)| &*model.name).collect();
    is_pinned || hearth_engine::named(&names, model).is_some()
}

/// Whether another machine has this model loaded and this one has not, so that loading it here first would be a detour.
pub(crate) fn is_ready_elsewhere(node: &Node, model: &str) -> bool {
    if !node.household.has_others() {
        return false;
    }
    let own = node.engine.status();
    let is_ready = own
        .iter()
        .any(|status| status.name == model && status.state == ModelStatus::Ready);
    !is_ready && all_others(node).any(|(other, _)| other.loaded && other.name == model)
}

/// The engine's own failure when a run here broke off without a word.
fn unloaded() -> Failure {
    EngineError::Unloaded.into()
}
