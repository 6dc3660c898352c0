//! Watching the ways to the others: which probe is due says [`Monitor`](hearth_mesh::diagnosis::Monitor), what it saw is
//! told back, and so is what real traffic saw.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use futures_util::future::join_all;
use hearth_engine::{Event, Prompt, Request};
use hearth_mesh::diagnosis::{LARGE_BYTES, Observation, Probe, Seen};
use hearth_mesh::doors::ConnectFailure;
use hearth_mesh::peers::SendFailure;
use hearth_protocol::diagnosis::{Code, Diagnosis, Health, Layer, PeerPath, Verdict};
use hearth_protocol::household::{Capabilities, Member, NodeId};
use hearth_protocol::status::ModelState;
use tokio::time::timeout;

use super::ask::{Reply, Unasked, get, json, post};
use super::{Household, Live, now};
use crate::peer::frame::{Frame, Frames, Question, VERSION};
use crate::peer::{ECHO, GENERATE};

/// How long a small request may take.
const SMALL: Duration = Duration::from_secs(3);
/// How long a large one may take: packets that vanish are sent again a few times.
const LARGE: Duration = Duration::from_secs(4);
/// How long a token may take of a model that is loaded.
const TOKEN: Duration = Duration::from_secs(15);
/// How long a look for another machine may take, which waits for it as for a small request.
const GLANCE: Duration = Duration::from_secs(2);
/// How long what a machine said of its models is good enough to say that a model is nowhere.
const AFRESH: Duration = Duration::from_secs(1);
/// Most looks at one layer when somebody asks: one bad moment is not believed, and the first may be of a connection that
/// is dead already.
const LOOKS: usize = 4;

impl Household {
    /// Looks at the ways as long as this node is a member.
    pub(super) fn watch(self: &Arc<Self>, live: &Arc<Live>) {
        let watching = Arc::clone(live);
        live.spawn(async move {
            loop {
                let due = watching.monitor().due(now());
                for probe in due {
                    let live = Arc::clone(&watching);
                    watching.spawn(async move {
                        look(&live, &probe).await;
                        live.monitor().finished(&probe, now());
                    });
                }
                let rest = watching.monitor().rest(now());
                watching.tidy();
                tokio::time::sleep(Duration::from_millis(rest)).await;
            }
        });
    }

    /// Looks at every layer of the way to a node now, unless that was done a moment ago.
    pub async fn examine(&self, peer: NodeId, model: Option<&str>) -> Option<Diagnosis> {
        let live = self.live()?;
        let probe = |layer, model: Option<&str>| Probe {
            peer,
            layer,
            model: model.map(str::to_owned),
        };
        let mut works = true;
        for layer in [Layer::HttpSmall, Layer::Capabilities, Layer::HttpLarge] {
            works = works && surely(&live, &probe(layer, None), LOOKS).await;
        }
        // Without a name the model that can answer at once is asked.
        let chosen = self.says(peer).and_then(|says| {
            let able = || says.models.iter().filter(|model| !model.embeds);
            let loaded = able().find(|model| model.loaded);
            let first = loaded.or_else(|| able().next());
            first.map(|model| model.name.clone())
        });
        let model = model.map(str::to_owned).or(chosen);
        if let Some(name) = &model {
            live.monitor().used(peer, name, now());
            // What it said before it failed proves nothing.
            if works && live.says_of_model(peer, name, now()) {
                surely(&live, &probe(Layer::Token, Some(name)), 2).await;
            }
        }
        live.monitor().diagnosis(peer, model.as_deref(), now())
    }

    /// Asks the others what they have, or one of them, unless that was done a moment ago or no prompt gets there anyway.
    /// Answers whether anybody was asked since this began.
    pub async fn ask_afresh(&self, whom: Option<NodeId>) -> bool {
        let Some(live) = self.live() else {
            return false;
        };
        let begun = Instant::now();
        let mut members = self.others();
        members.retain(|member| {
            let is_meant = whom.is_none_or(|whom| whom == member.node);
            is_meant && live.monitor().health(member.node, None, now()) != Health::Bad
        });
        // Who comes meanwhile waits for the same answers.
        let mut asked = live.afresh.lock().await;
        asked.retain(|_, at| at.elapsed() < AFRESH);
        let is_new = |member: &Member| asked.get(&member.node).is_some_and(|at| *at >= begun);
        let is_answered = members.iter().any(is_new);
        members.retain(|member| !asked.contains_key(&member.node));
        let each = members.iter().map(|member| {
            let probe = Probe {
                peer: member.node,
                layer: Layer::Capabilities,
                model: None,
            };
            let live = &live;
            async move { look(live, &probe).await }
        });
        join_all(each).await;
        let now = Instant::now();
        asked.extend(members.iter().map(|member| (member.node, now)));
        is_answered || !members.is_empty()
    }

    /// Looks whether a hub answers now. One bad moment is not believed.
    pub async fn examine_hub(&self) {
        let Some(live) = self.live().filter(|live| !live.is_hub()) else {
            return;
        };
        for _ in 0..2 {
            let hubs = live.hubs().into_iter().map(|(hub, addresses)| {
                let live = &live;
                async move { live.send(hub, &addresses, get(ECHO), GLANCE).await }
            });
            // Whatever it says, it is there; why it refuses, it says to who follows it.
            if join_all(hubs).await.iter().any(Result::is_ok) {
                return live.hub_answered();
            }
        }
        live.hub_failed();
    }

    /// Whether a node answers this one now; another member asks, who does not reach it.
    pub async fn reaches(&self, peer: NodeId) -> bool {
        let Some(live) = self.live() else {
            return false;
        };
        let member = live.roster(|roster| roster.record(&peer).cloned());
        match member.filter(|member| !member.removed) {
            Some(member) => ask(&live, &member, get(ECHO), GLANCE).await.0 == Seen::Ok,
            None => false,
        }
    }

    /// What is known of the ways to these nodes, without looking.
    pub fn diagnosis(&self, peer: NodeId, model: Option<&str>) -> Option<Diagnosis> {
        self.live()?.monitor().diagnosis(peer, model, now())
    }

    /// Whether it is known that no prompt gets to a node.
    pub fn is_broken(&self, peer: NodeId) -> bool {
        let known = self.diagnosis(peer, None);
        known.is_some_and(|known| known.verdict == Verdict::Failed)
    }

    /// What came of a prompt that went to a node.
    pub fn saw_traffic(&self, peer: NodeId, model: &str, seen: Seen, took: Duration) {
        let Some(live) = self.live() else { return };
        let mut observation = Observation::new(Layer::Token, seen, now()).of_model(model);
        observation.milliseconds = Some(took.as_secs_f64() * 1_000.0);
        live.monitor().observe(peer, &observation);
    }
}

impl Live {
    /// Forgets tasks that are over.
    fn tidy(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
    }

    /// Asks a member that answers, the hub before others, whether it reaches a node that this one does not: who is reached
    /// from elsewhere lives.
    async fn ask_around(&self, peer: NodeId) {
        let members = self.roster(|roster| {
            let others = roster.members();
            let others = others.filter(|member| ![self.own, peer].contains(&member.node));
            others.cloned().collect::<Vec<Member>>()
        });
        let witness = {
            let monitor = self.monitor();
            let answer = |member: &Member| monitor.health(member.node, None, now()) == Health::Good;
            let good = members.into_iter().filter(answer);
            good.min_by_key(|member| !member.hub)
        };
        let Some(witness) = witness else { return };
        let request = get(&format!("/peer/reach/{peer}"));
        if let Ok((reply, _)) = sent(self, &witness, request, SMALL).await
            && json::<bool>(reply).await == Ok(true)
        {
            self.monitor().heard(peer, now());
        }
    }

    /// Tells the monitor what a node says of a model; whether it is loaded.
    fn says_of_model(&self, peer: NodeId, name: &str, at: u64) -> bool {
        let says = self.says();
        let Some(says) = says.get(&peer) else {
            return false;
        };
        let names: Vec<&str> = says
            .models
            .iter()
            .map(|model| model.name.as_str())
            .collect();
        let found = hearth_engine::named(&names, name).map(|at| &says.models[at]);
        let seen = match found {
            None => Seen::ModelMissing,
            Some(model) if model.state == Some(ModelState::Loading) => Seen::ModelLoading(None),
            Some(model) if model.state == Some(ModelState::Failed) => {
                Seen::EngineFailed("it could not be loaded".to_owned())
            }
            Some(model) if !model.loaded => Seen::ModelIdle,
            Some(model) if model.slots > 0 && model.busy >= model.slots => Seen::Busy,
            Some(_) => Seen::Ok,
        };
        let is_loaded = matches!(seen, Seen::Ok | Seen::Busy);
        let observation = Observation::new(Layer::Model, seen, at).of_model(name);
        self.monitor().observe(peer, &observation);
        is_loaded
    }
}

/// Looks until it works, or until what is wrong is to be believed.
async fn surely(live: &Live, probe: &Probe, looks: usize) -> bool {
    for _ in 0..looks {
        if look(live, probe).await {
            return true;
        }
        if live.monitor().is_pending(probe.peer) {
            // What a large request's silence means, a small one tells.
            let small = Probe {
                layer: Layer::HttpSmall,
                ..probe.clone()
            };
            look(live, &small).await;
        }
        let model = probe.model.as_deref();
        let known = live.monitor().diagnosis(probe.peer, model, now());
        if known.is_none_or(|known| known.broken.is_some()) {
            break;
        }
    }
    false
}

/// One look; whether it worked. What it saw is told to the monitor.
async fn look(live: &Live, probe: &Probe) -> bool {
    let member = live.roster(|roster| roster.record(&probe.peer).cloned());
    let Some(member) = member.filter(|member| !member.removed) else {
        return false;
    };
    let begun = Instant::now();
    let sent = now();
    let (saw, reply) = match probe.layer {
        Layer::HttpLarge => large(live, &member).await,
        Layer::Capabilities => capabilities(live, &member).await,
        Layer::Token => token(live, &member, probe.model.as_deref().unwrap_or_default()).await,
        _ => ask(live, &member, get(ECHO), SMALL).await,
    };
    let mut observation = Observation::new(probe.layer, saw, now());
    observation.model.clone_from(&probe.model);
    observation.milliseconds = Some(begun.elapsed().as_secs_f64() * 1_000.0);
    if let Some(about) = reply {
        observation.path = about.path;
        observation.address = about.address;
        // The header has whole seconds; half a second is the fairest reading.
        observation.clock_ahead = about.date.map(|date| date - (sent / 1_000) as i64);
    }
    let worked = observation.seen == Seen::Ok;
    tracing::debug!(peer = %probe.peer.short(), layer = ?probe.layer, seen = ?observation.seen, "looked");
    live.monitor().observe(probe.peer, &observation);
    if matches!(observation.seen, Seen::Unheard | Seen::NoRoute) {
        let known = live.monitor().diagnosis(probe.peer, None, now());
        if known.is_some_and(|known| known.code() == Some(Code::NoPath)) {
            live.ask_around(probe.peer).await;
        }
    }
    if worked && probe.layer == Layer::Capabilities {
        let used = live.monitor().models_used(probe.peer, now());
        for model in used {
            live.says_of_model(probe.peer, &model, now());
        }
    }
    worked
}

/// What a reply says beside its body.
struct About {
    path: PeerPath,
    address: Option<hearth_protocol::household::Address>,
    date: Option<i64>,
}

impl About {
    fn of(reply: &Reply) -> Self {
        Self {
            path: match reply.path.relayed {
                true => PeerPath::Relayed,
                false => PeerPath::Direct,
            },
            address: Some(reply.path.address.clone()),
            date: reply.date(),
        }
    }
}

type Saw = (Seen, Option<About>);

async fn sent(
    live: &Live,
    member: &Member,
    request: axum::http::Request<Bytes>,
    head: Duration,
) -> Result<(Reply, About), Seen> {
    let answer = live.send(member.node, &member.addresses, request, head);
    match answer.await {
        Ok(reply) => {
            let about = About::of(&reply);
            Ok((reply, about))
        }
        Err(error) => Err(seen(&Unasked::Unsent(error))),
    }
}

async fn ask(
    live: &Live,
    member: &Member,
    request: axum::http::Request<Bytes>,
    head: Duration,
) -> Saw {
    match sent(live, member, request, head).await {
        Err(seen) => (seen, None),
        Ok((reply, about)) => (judged(reply, head).await, Some(about)),
    }
}

/// What an answer's status and body come to.
async fn judged(reply: Reply, limit: Duration) -> Seen {
    if !reply.status().is_success() {
        let status = reply.status().as_u16();
        let (_, code, _) = reply.problem().await;
        return Seen::Status { status, code };
    }
    match timeout(limit, reply.whole()).await {
        Ok(Ok(_)) => Seen::Ok,
        Ok(Err(_)) => Seen::Cut,
        Err(_) => Seen::Unanswered,
    }
}

async fn large(live: &Live, member: &Member) -> Saw {
    let mut request = post(&format!("{ECHO}?bytes={LARGE_BYTES}"), &());
    *request.body_mut() = Bytes::from(vec![b'.'; LARGE_BYTES]);
    ask(live, member, request, LARGE).await
}

async fn capabilities(live: &Live, member: &Member) -> Saw {
    let (reply, about) = match sent(live, member, get("/peer/capabilities"), SMALL).await {
        Err(seen) => return (seen, None),
        Ok(answered) => answered,
    };
    if !reply.status().is_success() {
        return (judged(reply, SMALL).await, Some(about));
    }
    let seen = match json::<Capabilities>(reply).await {
        Ok(said) => {
            live.says().insert(member.node, said);
            Seen::Ok
        }
        Err(error) => Seen::Garbled(error),
    };
    (seen, Some(about))
}

/// One token, of a model that is loaded. The run is given up with its connection, before it ends.
async fn token(live: &Live, member: &Member, model: &str) -> Saw {
    let question = Question {
        version: VERSION,
        run: format!("{:032x}", rand::random::<u128>()),
        model: Some(model.to_owned()),
        commit_at_end: false,
        request: Request {
            max_tokens: Some(1),
            ignore_eos: true,
            ..Request::new(Prompt::Text("Hi".into()))
        },
    };
    let asking = sent(live, member, post(GENERATE, &question), SMALL);
    let (mut reply, about) = match asking.await {
        Err(seen) => return (seen, None),
        Ok(answered) => answered,
    };
    if !reply.status().is_success() {
        return (judged(reply, SMALL).await, Some(about));
    }
    let reading = async {
        let mut frames = Frames::default();
        loop {
            while let Some(frame) = frames.next() {
                match frame {
                    Ok(Frame::Event(Event::Started { .. })) => {}
                    Ok(Frame::Event(_)) => return Seen::Ok,
                    Ok(Frame::Failed { error, .. }) => {
                        return said(error.code.as_deref().unwrap_or_default());
                    }
                    Ok(_) => {}
                    Err(error) => return Seen::Garbled(error),
                }
            }
            match reply.piece().await {
                Some(Ok(piece)) => frames.push(&piece),
                Some(Err(_)) | None => return Seen::Cut,
            }
        }
    };
    let seen = timeout(TOKEN, reading).await.unwrap_or(Seen::NoToken);
    (seen, Some(about))
}

/// What a node's own words about a prompt say of its health: that it has read it, and maybe what is wrong with its model.
pub(crate) fn said(code: &str) -> Seen {
    match code {
        "model_loading" => Seen::ModelLoading(None),
        "model_not_found" => Seen::ModelMissing,
        "rate_limit_exceeded" | "no_room" => Seen::Busy,
        "engine_failed" | "model_load_failed" => Seen::EngineFailed(code.to_owned()),
        _ => Seen::Ok,
    }
}

/// What it says of a node that it could not be asked.
pub(crate) fn seen(error: &Unasked) -> Seen {
    let Unasked::Unsent(error) = error else {
        return Seen::NoRoute;
    };
    let refused = |status, code: &str| Seen::Status {
        status,
        code: Some(code.to_owned()),
    };
    match error.failure {
        SendFailure::Connect(failure) => match failure {
            ConnectFailure::Refused => Seen::Refused,
            ConnectFailure::Silent => Seen::Unheard,
            ConnectFailure::NoRoute | ConnectFailure::NoAddress => Seen::NoRoute,
            ConnectFailure::WrongKey => Seen::WrongKey,
            ConnectFailure::Unanswered => Seen::Unanswered,
            ConnectFailure::NotAdmitted => refused(403, "not_in_roster"),
            ConnectFailure::Busy => refused(429, "too_many_requests"),
            ConnectFailure::Broke => Seen::Cut,
        },
        SendFailure::Broke => Seen::Cut,
        SendFailure::NoHeaders => Seen::Unanswered,
    }
}
