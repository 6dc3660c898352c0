//! Where a prompt is answered: here, or by another node of the household.
//!
//! The facts are gathered here (who has the model, how busy everybody is, whom a prompt reaches), the choice is
//! [`hearth_dispatch::rank`]'s and what happens when a machine fails is [`hearth_dispatch::Run`]'s. A node that is alone
//! asks its engine and nothing else.

mod candidates;
mod remote;
mod unary;

use std::time::{Duration, Instant};

use hearth_dispatch::{Attempt, Candidate, Choice, Demand, Limits, ModelState, Path, Run, rank};
use hearth_engine::{Constraint, EmbedRequest, Embeddings, EngineError, Prompt, Request};
use hearth_protocol::diagnosis::Health;
use hearth_protocol::error::ApiError;
use hearth_protocol::household::{NodeId, PeerModel};
use hearth_protocol::ollama::Shown;
use hearth_protocol::recall::Extension;
use hearth_protocol::status::{ModelElsewhere, ModelState as ModelStatus};

use self::candidates::{Asked, Place};
pub(crate) use self::candidates::{Purpose, models, text};
use self::remote::Asker;
pub(crate) use self::remote::Remote;
use crate::answer::Answering;
use crate::answered::Note;
use crate::encoders;
use crate::failure::Failure;
use crate::peer::task::{Answer, Task, perform};
use crate::state::{Node, Shared};

/// How long a client's answer has no head while another machine works: what fails until then has a status of its own,
/// and the head names the machine that answers. Clients give up on heads much later than this.
const HEAD_WAITS: Duration = Duration::from_secs(5);
/// Bytes that a slow line takes in a second.
const SLOW_LINE: usize = 128 << 10;
/// Why a machine answers that was not the first choice.
const INSTEAD: &str = "the machine that was asked before did not answer";
/// Why this machine answers a request that names no model.
const UNNAMED: &str = "no model was named, and each machine has its own";

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
    let asked = match candidates::asked(node, model, Purpose::Generate)? {
        Some(asked) if request.adapters.is_empty() => asked,
        // Alone, or with adapters that are this machine's files.
        _ => return here(node, model, request).await,
    };
    let prompt = candidates::text(&request);
    let demand = candidates::demand(&asked, &request, &prompt);
    let (places, ranked) = choices(node, &asked, &demand, &prompt).await;
    let Some(first) = ranked.first() else {
        let here = here(node, asked.model.as_deref(), request);
        return nobody(&asked, &places, here).await;
    };
    let mut rest = ranked.as_slice();
    let mut refused = None;
    if places[first.index].facts.path == Path::Here {
        match here(node, asked.model.as_deref(), request.clone()).await {
            Ok(answering) => {
                candidates::noted(node, &asked, &prompt, None);
                if let Some(note) = Note::here() {
                    note.set(&places[first.index].name, first.why.words());
                }
                return Ok(answering);
            }
            Err(failure) => {
                let others = ranked[1..].iter().map(|choice| &places[choice.index].facts);
                if !is_worth_another(&failure, others) {
                    return Err(failure);
                }
                refused = Some(failure);
                rest = &ranked[1..];
            }
        }
    }
    let attempts = rest.iter().map(|choice| Attempt {
        candidate: choice.index,
        here: places[choice.index].facts.path == Path::Here,
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

/// Turns texts into vectors on the machine that can do it first; without a name on this one, because vectors of different
/// models do not go together.
pub(crate) async fn embed(
    node: &Shared,
    model: Option<&str>,
    request: EmbedRequest,
    cut: bool,
) -> Result<Embeddings, Failure> {
    if model.is_none() {
        if let Some(note) = Note::here().filter(|_| node.household.has_others()) {
            note.set(&node.household.name(), UNNAMED);
        }
        return Ok(encoders::vectors(node, None, request, cut).await?);
    }
    match whole(node, model, Purpose::Embed, Task::Embed { request, cut }).await? {
        Answer::Vectors(vectors) => Ok(vectors.into()),
        Answer::Tokens(_) | Answer::Shown(_) => Err(unloaded()),
    }
}

/// Counts the tokens of a prompt on the machine that can do it first.
pub(crate) async fn count(
    node: &Shared,
    model: Option<&str>,
    request: Request,
) -> Result<u32, Failure> {
    if !request.adapters.is_empty() {
        return Ok(node.engine.count(model, request).await?);
    }
    match whole(
        node,
        model,
        Purpose::Generate,
        Task::Count(Box::new(request)),
    )
    .await?
    {
        Answer::Tokens(count) => Ok(count),
        Answer::Vectors(_) | Answer::Shown(_) => Err(unloaded()),
    }
}

/// Has a machine that has a model tell all of it.
pub(crate) async fn show(node: &Shared, model: &str, verbose: bool) -> Result<Shown, Failure> {
    match whole(node, Some(model), Purpose::Show, Task::Show { verbose }).await? {
        Answer::Shown(shown) => Ok(*shown),
        Answer::Vectors(_) | Answer::Tokens(_) => Err(unloaded()),
    }
}

/// Has the machine that can do it first do a task that is answered whole.
async fn whole(
    node: &Shared,
    model: Option<&str>,
    purpose: Purpose,
    task: Task,
) -> Result<Answer, Failure> {
    let Some(asked) = candidates::asked(node, model, purpose)? else {
        return Ok(perform(node, model, task).await?);
    };
    let demand = candidates::task_demand(&asked, task.bytes());
    let (places, ranked) = choices(node, &asked, &demand, "").await;
    if ranked.is_empty() {
        let here = async { Ok(perform(node, asked.model.as_deref(), task).await?) };
        return nobody(&asked, &places, here).await;
    }
    unary::ask(node, &asked, (&places, &ranked), task).await
}

/// Every machine, and those that can do what is asked, the best first.
async fn choices(
    node: &Shared,
    asked: &Asked,
    demand: &Demand,
    prompt: &str,
) -> (Vec<Place>, Vec<Choice>) {
    let mut places = candidates::places(node, asked, prompt);
    let is_meant = |place: &&Place| asked.pinned.is_none_or(|pinned| pinned == place.facts.node);
    let is_known = places.iter().filter(is_meant).any(Place::has_model);
    // One of them may have got it since it was asked last.
    if !is_known && node.household.ask_afresh(asked.pinned).await {
        places = candidates::places(node, asked, prompt);
    }
    let facts: Vec<_> = places.iter().map(|place| place.facts.clone()).collect();
    let ranked = rank(demand, &facts);
    (places, ranked)
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

/// Whether another machine may do what failed here.
fn is_worth_another<'a>(
    failure: &Failure,
    mut others: impl Iterator<Item = &'a Candidate>,
) -> bool {
    is_this_machines(failure)
        && match failure.code() {
            // Elsewhere it would have to be loaded, too.
            "model_loading" => others.any(|other| other.model == ModelState::Loaded),
            _ => others.next().is_some(),
        }
}

/// Why nobody can answer: the engine of this machine knows best what is wrong with a name.
async fn nobody<T>(
    asked: &Asked,
    places: &[Place],
    here: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    if let Some(pinned) = asked.pinned {
        let place = places.iter().find(|place| place.facts.node == pinned);
        let name = place.map_or_else(|| pinned.short(), |place| place.name.clone());
        let model = asked.model.as_deref().unwrap_or("its default");
        let has: Vec<&str> = place.map_or(Vec::new(), |place| {
            place.models.iter().map(String::as_str).collect()
        });
        let has = match (has.as_slice(), asked.purpose) {
            ([], Purpose::Embed) => "nothing that embeds".to_owned(),
            ([], _) => "none".to_owned(),
            (has, Purpose::Embed) => format!("for embeddings {}", has.join(", ")),
            (has, _) => has.join(", "),
        };
        let message = format!(
            "model `{model}` is not on {name}; it has {has}. Leave `{name}/` out to have any machine answer"
        );
        let mut error = ApiError::new("invalid_request_error", Some("model_not_found"), message);
        error.param = Some("model".into());
        return Err(Failure::new(axum::http::StatusCode::NOT_FOUND, error));
    }
    match here.await {
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

/// Models and encoders that other machines have and this one has not, each with the machine, by name: what a request may
/// name too. Looks at files.
pub(crate) fn others_models(node: &Node) -> Vec<(PeerModel, String)> {
    let own = node.engine.catalogue().list().into_iter();
    let own: Vec<String> = own.map(|source| source.name).collect();
    let encoders = encoders::list(node);
    let mut found: Vec<(PeerModel, String)> = Vec::new();
    for (model, holder, machine) in all_others(node) {
        // What no prompt reaches is not on offer.
        if node.household.is_broken(holder) {
            continue;
        }
        let known = own.contains(&model.name)
            || encoders.iter().any(|encoder| encoder.name == model.name)
            || found.iter().any(|(other, _)| other.name == model.name);
        if !known {
            found.push((model, machine));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    found
}

/// What every other machine has, as it said last: by machine, and within it by name.
pub(crate) fn everywhere_else(node: &Node) -> Vec<ModelElsewhere> {
    let each = all_others(node).map(|(model, holder, machine)| ModelElsewhere {
        name: model.name,
        unreachable: node.household.is_broken(holder),
        machine,
        loaded: model.loaded,
        embeds: model.embeds,
        size_bytes: model.size_bytes,
        context: Some(model.context).filter(|context| *context > 0),
    });
    let mut all: Vec<ModelElsewhere> = each.collect();
    all.sort_by(|a, b| (&a.machine, &a.name).cmp(&(&b.machine, &b.name)));
    all
}

/// What every other machine has, with the machine and its name.
fn all_others(node: &Node) -> impl Iterator<Item = (PeerModel, NodeId, String)> {
    let members = node.household.others().into_iter();
    members.flat_map(|member| {
        let now = node.household.says(member.node);
        let models = now.unwrap_or(member.capabilities).models.into_iter();
        models.map(move |model| (model, member.node, member.name.clone()))
    })
}

/// The model of another machine that a name means, maybe with the machine before a slash; and what that is called. Where
/// nobody is known to have it, the others are asked again.
pub(crate) async fn find(node: &Node, name: &str, purpose: Purpose) -> Option<(PeerModel, String)> {
    let found = known(node, name, purpose);
    let whom = pinned(node, name).map(|(machine, _)| machine);
    if found.is_some() || !node.household.ask_afresh(whom).await {
        return found;
    }
    known(node, name, purpose)
}

fn known(node: &Node, name: &str, purpose: Purpose) -> Option<(PeerModel, String)> {
    let pinned = pinned(node, name);
    let all = all_others(node).filter(|(model, node, _)| {
        purpose.suits(model) && pinned.is_none_or(|(machine, _)| machine == *node)
    });
    let mut all: Vec<_> = all.collect();
    // Several machines may have it.
    all.sort_by(|(a, ..), (b, ..)| a.name.cmp(&b.name));
    all.dedup_by(|(a, ..), (b, ..)| a.name == b.name);
    let names: Vec<&str> = all.iter().map(|(model, ..)| &*model.name).collect();
    let wanted = pinned.map_or(name, |(_, rest)| rest);
    let at = purpose.meant(&names, wanted)?;
    let (model, _, machine) = all.swap_remove(at);
    Some((model, machine))
}

/// The model's name behind the name of this machine; `None` if that does not stand before it.
pub(crate) fn pinned_here<'a>(node: &Node, name: &'a str) -> Option<&'a str> {
    let (machine, rest) = pinned(node, name)?;
    (machine == node.household.id()).then_some(rest)
}

/// Whether another machine may answer for a model that this one has not.
pub(crate) async fn may_be_elsewhere(node: &Node, model: &str, purpose: Purpose) -> bool {
    node.household.has_others()
        && (is_pinned(node, model) || find(node, model, purpose).await.is_some())
}

/// Whether a machine of the household stands before the slash of a model's name.
pub(crate) fn is_pinned(node: &Node, model: &str) -> bool {
    pinned(node, model).is_some()
}

/// The machine before the slash of a model's name, and what stands behind it.
fn pinned<'a>(node: &Node, name: &'a str) -> Option<(NodeId, &'a str)> {
    let (machine, rest) = name.split_once('/')?;
    Some((node.household.named(machine)?, rest))
}

/// Whether another machine that answers has this model loaded and this one has not, so that loading it here first would
/// be a detour.
pub(crate) fn is_ready_elsewhere(node: &Node, model: &str) -> bool {
    if !node.household.has_others() {
        return false;
    }
    let own = node.engine.status();
    let is_ready = own
        .iter()
        .any(|status| status.name == model && status.state == ModelStatus::Ready);
    let answers = |machine| node.household.way(machine, None).0 != Health::Bad;
    let mut others = all_others(node);
    !is_ready && others.any(|(other, at, _)| other.loaded && other.name == model && answers(at))
}

/// The engine's own failure when a run here broke off without a word.
fn unloaded() -> Failure {
    EngineError::Unloaded.into()
}
