//! The facts by which a machine is chosen for a prompt.

use hearth_dispatch::{Candidate, Demand, ModelState, Path};
use hearth_engine::{Prompt, Request, named};
use hearth_models::catalogue;
use hearth_protocol::diagnosis::{Health, PeerPath};
use hearth_protocol::error::ApiError;
use hearth_protocol::household::{Capabilities, Member, NodeId, PeerModel};
use hearth_protocol::status::ModelState as State;

use crate::encoders;
use crate::failure::Failure;
use crate::state::{Node, Shared};

/// Bytes of a prompt that make a token, about: most tokenizers get between three and five out of plain text.
const BYTES_PER_TOKEN: usize = 4;

/// What a model is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To generate, or to count a prompt's tokens.
    Generate,
    /// To turn texts into vectors.
    Embed,
    /// To be told of.
    Show,
}

impl Purpose {
    /// Whether a model is of any use for it.
    pub(super) fn suits(self, model: &PeerModel) -> bool {
        match self {
            Self::Generate => !model.embeds,
            Self::Embed => model.embeds,
            Self::Show => true,
        }
    }

    /// Which of these names is meant by `wanted`; an encoder's well-known names count too.
    pub(super) fn meant(self, names: &[&str], wanted: &str) -> Option<usize> {
        named(names, wanted).or_else(|| {
            let known = catalogue::encoder(wanted).filter(|_| self != Self::Generate)?;
            named(names, &known.name)
        })
    }
}

/// What a request asks for, of whom.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// What for.
    pub purpose: Purpose,
    /// The machine before the slash of the model's name.
    pub pinned: Option<NodeId>,
    /// The model; `None` is the default one of this node.
    pub model: Option<String>,
}

/// A machine that could answer.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// What people call it.
    pub name: String,
    /// Its record; `None` for this machine.
    pub member: Option<Member>,
    /// The models it has for what is asked.
    pub models: Vec<String>,
    /// The one that is meant, as it is called there.
    pub model: Option<String>,
    /// What the choice looks at.
    pub facts: Candidate,
}

impl Place {
    pub fn has_model(&self) -> bool {
        self.facts.model != ModelState::Missing
    }
}

/// What is asked for; `None` if this node has nobody to share with.
pub(super) fn asked(
    node: &Node,
    model: Option<&str>,
    purpose: Purpose,
) -> Result<Option<Asked>, Failure> {
    if !node.household.has_others() {
        return Ok(None);
    }
    let whole = || model.map(str::to_owned);
    let Some((machine, rest)) = model.and_then(|model| model.split_once('/')) else {
        return Ok(Some(Asked {
            purpose,
            pinned: None,
            model: whole(),
        }));
    };
    if let Some(pinned) = node.household.named(machine) {
        if rest.is_empty() {
            let message = format!("model: name one after `{machine}/`");
            return Err(ApiError::invalid(Some("model".into()), message).into());
        }
        return Ok(Some(Asked {
            purpose,
            pinned: Some(pinned),
            model: Some(rest.to_owned()),
        }));
    }
    // The slash is the model's own (`org/repo`).
    Ok(Some(Asked {
        purpose,
        pinned: None,
        model: whole(),
    }))
}

/// What a task of `bytes` asks for that is answered whole.
pub(super) fn task_demand(asked: &Asked, bytes: usize) -> Demand {
    let tokens = match asked.purpose {
        Purpose::Embed => bytes / BYTES_PER_TOKEN,
        // Nothing is computed.
        Purpose::Generate | Purpose::Show => 0,
    };
    Demand {
        prompt_tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
        max_tokens: Some(0),
        pinned: asked.pinned,
        local_only: false,
    }
}

pub(super) fn demand(asked: &Asked, request: &Request, prompt: &str) -> Demand {
    let tokens = match &request.prompt {
        Prompt::Tokens(tokens) => tokens.len(),
        Prompt::Chat(_) | Prompt::Text(_) => prompt.len() / BYTES_PER_TOKEN,
    };
    Demand {
        prompt_tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
        max_tokens: request.max_tokens,
        pinned: asked.pinned,
        local_only: false,
    }
}

/// Every machine of the household, this one first.
pub(super) fn places(node: &Shared, asked: &Asked, prompt: &str) -> Vec<Place> {
    let household = &node.household;
    let own_models = node.engine.catalogue();
    // Without a name the default model is meant: of this node, because its owner chose it.
    let wanted = asked.model.as_deref().or(own_models.default_name());
    let wanted = wanted.unwrap_or_default();
    let held = household.held(wanted, prompt);
    let cached = |node: NodeId| {
        let bytes = held.iter().find(|(holder, _)| *holder == node);
        bytes.map_or(0, |(_, bytes)| (bytes / BYTES_PER_TOKEN) as u32)
    };
    let mut places = vec![here(node, asked, cached(household.id()))];
    let others: Vec<(Member, Capabilities)> = household
        .others()
        .into_iter()
        .map(|member| {
            let now = household.says(member.node);
            let now = now.unwrap_or_else(|| member.capabilities.clone());
            (member, now)
        })
        .collect();
    // A short name means one model, on whichever machine: as it is called here, else as anybody calls it.
    let purpose = asked.purpose;
    let encoder = (purpose != Purpose::Generate).then(|| encoders::chosen(node, wanted));
    let own = own_models.resolve(Some(wanted)).ok().map(|own| own.name);
    let all = others.iter().flat_map(|(_, now)| &now.models);
    let all = all.filter(|model| purpose.suits(model));
    let mut names: Vec<&str> = all.map(|model| model.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let full = own.or(encoder.flatten());
    let full = full.or_else(|| purpose.meant(&names, wanted).map(|at| names[at].to_owned()));
    for (member, mut now) in others {
        now.models.retain(|model| purpose.suits(model));
        let models: Vec<String> = now.models.iter().map(|model| model.name.clone()).collect();
        let names: Vec<&str> = models.iter().map(String::as_str).collect();
        // Whoever names the machine means what that has.
        let pinned = asked.pinned == Some(member.node);
        let meant = match &full {
            Some(full) if !pinned => names
                .iter()
                .position(|name| name.eq_ignore_ascii_case(full)),
            _ => purpose.meant(&names, wanted),
        };
        let model = meant.map(|at| &now.models[at]);
        let running = household.running_at(member.node);
        // A token is no sign of a model that gives none.
        let probed = model.filter(|_| purpose == Purpose::Generate);
        let (health, path, round_trip) = household.way(member.node, probed.map(|it| &*it.name));
        let some = model.cloned().unwrap_or_default();
        places.push(Place {
            name: member.name.clone(),
            model: model.map(|model| model.name.clone()),
            models,
            facts: Candidate {
                node: member.node,
                path: match path {
                    PeerPath::Relayed => Path::Relayed,
                    PeerPath::Direct | PeerPath::None => Path::Direct,
                },
                round_trip,
                model: match model {
                    None => ModelState::Missing,
                    Some(model) if model.loaded => ModelState::Loaded,
                    Some(_) => ModelState::Loadable(None),
                },
                size_bytes: some.size_bytes,
                // The prompt's tokens are a guess: only what is far too long is not even tried. Of many texts each has
                // the context for itself.
                context: match purpose {
                    Purpose::Generate => some.context.saturating_mul(2),
                    Purpose::Embed | Purpose::Show => 0,
                },
                gpu: now.gpu,
                slots: some.slots,
                // What it said is some seconds old; what this machine sent it since is not.
                busy: some.busy.max(running.min(some.slots)),
                queued: some.queued.max(running.saturating_sub(some.slots)),
                decode_tokens_per_second: some.decode_tokens_per_second,
                prefill_tokens_per_second: some.prefill_tokens_per_second,
                cached_tokens: cached(member.node),
                on_battery: now.on_battery,
                throttled: now.throttled,
                health,
            },
            member: Some(member),
        });
    }
    places
}

fn here(node: &Shared, asked: &Asked, cached_tokens: u32) -> Place {
    let household = &node.household;
    let found = node.engine.catalogue().resolve(asked.model.as_deref());
    let found = found.ok().filter(|source| match asked.purpose {
        Purpose::Generate => node.engine.embeds(source) != Some(true),
        Purpose::Embed => node.engine.embeds(source) == Some(true),
        Purpose::Show => true,
    });
    let encoder = match (&found, asked.model.as_deref(), asked.purpose) {
        (None, Some(model), Purpose::Embed | Purpose::Show) => encoders::one(node, model),
        _ => None,
    };
    let statuses = node.engine.status();
    let status = found
        .as_ref()
        .and_then(|source| statuses.iter().find(|status| status.name == source.name));
    let load = status.and_then(|status| status.load).unwrap_or_default();
    Place {
        name: household.name(),
        member: None,
        models: statuses.iter().map(|status| status.name.clone()).collect(),
        model: asked.model.clone(),
        facts: Candidate {
            node: household.id(),
            path: Path::Here,
            round_trip: None,
            model: match (&found, status) {
                (None, _) => match &encoder {
                    None => ModelState::Missing,
                    Some(encoder) if encoder.opened => ModelState::Loaded,
                    Some(_) => ModelState::Loadable(None),
                },
                (Some(_), None) => ModelState::Loadable(None),
                (Some(_), Some(status)) => match status.state {
                    State::Ready => ModelState::Loaded,
                    State::Loading => ModelState::Loading(
                        status
                            .eta_seconds
                            .and_then(|eta| std::time::Duration::try_from_secs_f32(eta).ok()),
                    ),
                    State::Idle | State::Failed => ModelState::Loadable(None),
                },
            },
            size_bytes: match &encoder {
                Some(encoder) => encoder.size_bytes,
                None => status.map_or(0, |status| status.size_bytes),
            },
            // What does not fit is the engine's to explain.
            context: 0,
            gpu: node.engine.gpu().is_some(),
            slots: load.slots,
            busy: load.slots_busy,
            queued: load.queued,
            decode_tokens_per_second: load.decode_tokens_per_second,
            prefill_tokens_per_second: load.prefill_tokens_per_second,
            cached_tokens,
            on_battery: false,
            throttled: false,
            health: Health::Good,
        },
    }
}

/// Remembers who holds the start of this prompt now: `node`, or this machine.
pub(super) fn noted(here: &Shared, asked: &Asked, prompt: &str, node: Option<NodeId>) {
    let catalogue = here.engine.catalogue();
    let model = asked.model.as_deref().or(catalogue.default_name());
    let household = &here.household;
    let holder = node.unwrap_or(household.id());
    household.holds(model.unwrap_or_default(), prompt, holder);
}

/// What a request's prompt says, near enough to be measured and to be told from others.
pub(crate) fn text(request: &Request) -> String {
    match &request.prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Tokens(tokens) => tokens.iter().map(|token| format!("{token:>4}")).collect(),
        Prompt::Chat(chat) => {
            let messages = chat.messages.iter().map(ToString::to_string);
            messages.collect::<Vec<_>>().join("\n")
        }
    }
}

/// The models and encoders of a node that others may ask it for. Looks at files.
pub(crate) fn models(node: &Node) -> Vec<PeerModel> {
    let statuses = node.engine.status();
    let each = node.engine.catalogue().list().into_iter().map(|source| {
        let status = statuses.iter().find(|status| status.name == source.name);
        let load = status.and_then(|status| status.load).unwrap_or_default();
        PeerModel {
            size_bytes: source.size(),
            embeds: node.engine.embeds(&source) == Some(true),
            loaded: status.is_some_and(|status| status.state == State::Ready),
            state: status.map(|status| status.state),
            context: status.and_then(|status| status.context).unwrap_or(0),
            decode_tokens_per_second: load.decode_tokens_per_second,
            prefill_tokens_per_second: load.prefill_tokens_per_second,
            slots: load.slots,
            busy: load.slots_busy,
            queued: load.queued,
            name: source.name,
        }
    });
    let encoders = encoders::list(node).into_iter().map(|encoder| PeerModel {
        size_bytes: encoder.size_bytes,
        embeds: true,
        loaded: encoder.opened,
        name: encoder.name,
        ..PeerModel::default()
    });
    each.chain(encoders).collect()
}
