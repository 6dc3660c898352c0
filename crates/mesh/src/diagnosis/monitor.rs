//! What is known of every peer of a household, and which probe is due. Pure.
//!
//! Real traffic counts as a probe: whatever a request saw is fed in, and what traffic proves is not probed. Probes are
//! cheap first, one at a time per peer, few over all, on a schedule with jitter so that they do not come in waves. Tokens
//! are asked for seldom, only of models that somebody uses and that are loaded already: a probe loads none.

use std::collections::BTreeMap;

use hearth_protocol::diagnosis::{Code, Diagnosis, Health, Layer};
use hearth_protocol::household::NodeId;

use super::debounce::Debounce;
use super::{Here, History, Hub, Membership, Observation, Peer, diagnose};

/// How often is looked. Milliseconds, where it does not say otherwise; each may be a fifth longer or shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rhythm {
    /// Between small requests.
    pub small: u64,
    /// Between questions for capabilities.
    pub capabilities: u64,
    /// Between requests of 64 KiB.
    pub large: u64,
    /// Between tokens of one model.
    pub token: u64,
    /// From a failure to the first look after it; doubled with each.
    pub again: u64,
    /// Longest time from a failure to the next look.
    pub again_at_most: u64,
    /// Probes under way at once, over all peers.
    pub at_once: usize,
    /// After this time a probe of which nothing was heard is given up.
    pub lost: u64,
    /// A peer that worked within this time is known to; a look when somebody asks is not repeated within a tenth of it.
    pub fresh: u64,
    /// How long after its last use a model is worth a token.
    pub used: u64,
}

impl Default for Rhythm {
    fn default() -> Self {
        Self {
            small: 5_000,
            capabilities: 30_000,
            large: 300_000,
            token: 900_000,
            again: 500,
            again_at_most: 15_000,
            at_once: 4,
            lost: 30_000,
            fresh: 30_000,
            used: 3_600_000,
        }
    }
}

/// A look that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// At whom.
    pub peer: NodeId,
    /// At what: [`Layer::HttpSmall`], [`Layer::HttpLarge`], [`Layer::Capabilities`] or [`Layer::Token`].
    pub layer: Layer,
    /// With which model, for [`Layer::Token`].
    pub model: Option<String>,
}

/// What is known of all peers.
#[derive(Debug, Clone)]
pub struct Monitor {
    rhythm: Rhythm,
    here: Here,
    peers: BTreeMap<NodeId, Watched>,
    /// State of the jitter.
    random: u64,
}

/// A layer; from [`Layer::Model`] on, of a model.
type Key = (Layer, Option<String>);

#[derive(Debug, Clone)]
struct Watched {
    peer: Peer,
    history: History,
    /// Good and bad moments of each layer, and from the model on of each model.
    moments: BTreeMap<Key, Debounce>,
    /// When somebody last used a model there, or asked about it.
    used: BTreeMap<String, u64>,
    /// When each was tried last, by a probe or by traffic, and how long the next try waits.
    tried: BTreeMap<Key, (u64, u64)>,
    in_flight: Option<u64>,
}

impl Watched {
    fn new(peer: Peer) -> Self {
        Self {
            peer,
            history: History::default(),
            moments: BTreeMap::new(),
            used: BTreeMap::new(),
            tried: BTreeMap::new(),
            in_flight: None,
        }
    }

    /// Whether this was tried within its time. A time in the future is a clock that jumped: then it was not.
    fn tried_lately(&self, layer: Layer, model: Option<&str>, now: u64) -> bool {
        let key = (layer, model.map(str::to_owned));
        let tried = self.tried.get(&key);
        tried.is_some_and(|(at, wait)| *at <= now && now - at < *wait)
    }

    /// The probe that is due, if one is: cheapest first, and none above a layer that fails.
    fn wants(&self, rhythm: &Rhythm, now: u64) -> Option<Key> {
        if self.peer.membership != Membership::Member {
            return None;
        }
        let due = |layer, model: Option<&str>| !self.tried_lately(layer, model, now);
        if due(Layer::HttpSmall, None) {
            return Some((Layer::HttpSmall, None));
        }
        // Whatever stands above a layer that fails would only repeat its failure.
        let works = |layer| {
            let record = self.history.record(layer, None);
            record.is_some_and(|record| record.fault.is_none())
        };
        if !works(Layer::HttpSmall) || self.history.is_pending() {
            return None;
        }
        if due(Layer::Capabilities, None) {
            return Some((Layer::Capabilities, None));
        }
        if due(Layer::HttpLarge, None) {
            return Some((Layer::HttpLarge, None));
        }
        if !works(Layer::HttpLarge) || !works(Layer::Capabilities) {
            return None;
        }
        let model = self.used.iter().find(|(model, used)| {
            let used = **used <= now && now - **used <= rhythm.used;
            let record = self.history.record(Layer::Model, Some(model));
            let loaded =
                record.is_some_and(|record| record.fault.is_none() && record.note.is_none());
            used && loaded && due(Layer::Token, Some(model))
        });
        model.map(|(model, _)| (Layer::Token, Some(model.clone())))
    }

    /// What the choice of a machine makes of it, without regard for the others.
    fn health(&self, model: Option<&str>, rhythm: &Rhythm, now: u64) -> Health {
        let bad = self
            .moments
            .iter()
            .any(|((_, of), moments)| moments.is_bad() && (of.is_none() || of.as_deref() == model));
        if self.peer.membership != Membership::Member || bad {
            return Health::Bad;
        }
        let small = self.moments.get(&(Layer::HttpSmall, None));
        match small.and_then(Debounce::worked) {
            Some(at) if now.saturating_sub(at) <= rhythm.fresh => Health::Good,
            _ => Health::Unknown,
        }
    }

    /// Whether asking it would be wrong, and not only likely to fail.
    fn forbidden(&self) -> bool {
        let never = [Code::KeyMismatch, Code::NotInRoster, Code::Removed];
        self.peer.membership != Membership::Member || self.history.has_fault(&never)
    }
}

impl Monitor {
    /// Nothing is known. `seed` spreads the probes of several machines.
    pub fn new(rhythm: Rhythm, seed: u64) -> Self {
        Self {
            rhythm,
            here: Here {
                joined: false,
                removed: false,
                hub: Hub::NotAsked,
            },
            peers: BTreeMap::new(),
            random: seed,
        }
    }

    /// What is known of this machine.
    pub fn here(&mut self, here: Here) {
        self.here = here;
    }

    /// The roster changed: all peers it names, those who were removed too, without this machine. What was seen of those
    /// who stay is kept; where a peer's addresses changed, it is looked at again.
    pub fn roster(&mut self, peers: impl IntoIterator<Item = Peer>) {
        let mut before = std::mem::take(&mut self.peers);
        for peer in peers {
            let watched = match before.remove(&peer.node) {
                Some(mut watched) => {
                    if watched.peer.addresses != peer.addresses
                        || watched.peer.membership != peer.membership
                    {
                        watched.tried.clear();
                    }
                    watched.peer = peer;
                    watched
                }
                None => Watched::new(peer),
            };
            self.peers.insert(watched.peer.node, watched);
        }
    }

    /// The hub, or a request of its own, showed that this peer lives.
    pub fn heard(&mut self, node: NodeId, now: u64) {
        let Some(watched) = self.peers.get_mut(&node) else {
            return;
        };
        watched.history.heard(now);
        // Whoever lives and is not reached is looked at soon: it may just have come back.
        let failing = watched.history.is_failing();
        let small = (Layer::HttpSmall, None);
        if failing
            && let Some((at, _)) = watched.tried.get(&small)
            && now.abs_diff(*at) >= 2 * self.rhythm.again
        {
            watched.tried.remove(&small);
        }
    }

    /// Somebody uses this model there, or asks about it.
    pub fn used(&mut self, node: NodeId, model: &str, now: u64) {
        let kept = self.rhythm.used;
        if let Some(watched) = self.peers.get_mut(&node) {
            watched
                .used
                .retain(|_, used| *used <= now && now - *used <= kept);
            watched.used.insert(model.to_owned(), now);
        }
    }

    /// The models that [`Self::used`] noted lately.
    pub fn models_used(&self, node: NodeId, now: u64) -> Vec<String> {
        let watched = self.peers.get(&node);
        let used = watched.into_iter().flat_map(|watched| &watched.used);
        let lately = used.filter(|(_, at)| **at <= now && now - **at <= self.rhythm.used);
        lately.map(|(model, _)| model.clone()).collect()
    }

    /// Whether something failed that means nothing until a small request is answered, or is not.
    pub fn is_pending(&self, node: NodeId) -> bool {
        let watched = self.peers.get(&node);
        watched.is_some_and(|watched| watched.history.is_pending())
    }

    /// A probe or real traffic saw this.
    pub fn observe(&mut self, node: NodeId, observation: &Observation) {
        let Some(watched) = self.peers.get_mut(&node) else {
            return;
        };
        let now = observation.at;
        let before = watched.history.is_pending();
        let (finding, confirmed) = watched.history.take(observation);
        let key = |layer: Layer| {
            let model = observation.model.clone();
            (layer, model.filter(|_| layer >= Layer::Model))
        };
        for layer in finding.proves {
            watched.moments.entry(key(*layer)).or_default().success(now);
        }
        for (fault, key) in finding
            .fault
            .iter()
            .map(|fault| (fault, key(fault.layer)))
            .chain(confirmed.iter().map(|(key, fault)| (fault, key.clone())))
        {
            // That a model is missing or being loaded is no ill health: the choice of a machine knows of it otherwise.
            if !matches!(fault.code, Code::ModelMissing | Code::ModelLoading) {
                let moments = watched.moments.entry(key).or_default();
                moments.failure(now, fault.hard);
            }
        }
        let pending = watched.history.is_pending() && !before;
        // What traffic shows needs no probe for a while.
        for layer in finding.proves.iter().chain([&observation.layer]) {
            self.tried(node, key(*layer), now);
        }
        let Some(watched) = self.peers.get_mut(&node) else {
            return;
        };
        // What failed is looked at again soon, and later with each time that it fails again.
        let failed = finding.fault.map(|fault| key(fault.layer));
        for (layer, model) in failed.into_iter().chain(confirmed.map(|(key, _)| key)) {
            let record = watched.history.record(layer, model.as_deref());
            let failures = record.map_or(1, |record| record.failures);
            let wait = self.rhythm.again << failures.saturating_sub(1).min(16);
            let wait = wait.min(self.rhythm.again_at_most);
            let (layer, wait) = match layer {
                Layer::HttpLarge => (layer, wait),
                Layer::Capabilities | Layer::Model => (Layer::Capabilities, wait),
                Layer::Token => (layer, self.rhythm.again_at_most),
                _ => (Layer::HttpSmall, wait),
            };
            let model = model.filter(|_| layer >= Layer::Model);
            watched.tried.insert((layer, model), (now, wait));
        }
        if pending {
            // What this silence means, a small request tells, and a large one if that is answered.
            watched.tried.remove(&(Layer::HttpSmall, None));
            if observation.layer != Layer::HttpLarge {
                watched.tried.remove(&(Layer::HttpLarge, None));
            }
        }
    }

    /// A probe that was due is over; what it saw was fed to [`Self::observe`].
    pub fn finished(&mut self, probe: &Probe, now: u64) {
        let key = (probe.layer, probe.model.clone());
        let Some(watched) = self.peers.get_mut(&probe.peer) else {
            return;
        };
        let since = watched.in_flight.take();
        let noted = watched.tried.get(&key);
        if noted.is_none_or(|(at, _)| since.is_none_or(|since| *at < since)) {
            self.tried(probe.peer, key, now);
        }
    }

    /// Somebody asks about this peer: all of it is looked at again, unless that was done just now. The model gets a token
    /// if it is loaded.
    pub fn refresh(&mut self, node: NodeId, model: Option<&str>, now: u64) {
        let just_now = self.rhythm.fresh / 10;
        if let Some(model) = model {
            self.used(node, model, now);
        }
        if let Some(watched) = self.peers.get_mut(&node) {
            watched
                .tried
                .retain(|_, (at, _)| *at <= now && now - *at < just_now);
        }
    }

    /// The probes to start now; each is told with [`Self::finished`] when it is over.
    pub fn due(&mut self, now: u64) -> Vec<Probe> {
        let lost = self.rhythm.lost;
        for watched in self.peers.values_mut() {
            watched.in_flight = watched
                .in_flight
                .filter(|since| *since <= now && now - since < lost);
        }
        let busy = self
            .peers
            .values()
            .filter(|watched| watched.in_flight.is_some())
            .count();
        let mut probes: Vec<Probe> = self
            .peers
            .iter()
            .filter(|(_, watched)| watched.in_flight.is_none())
            .filter_map(|(node, watched)| {
                let (layer, model) = watched.wants(&self.rhythm, now)?;
                Some(Probe {
                    peer: *node,
                    layer,
                    model,
                })
            })
            .collect();
        // Cheapest first; among equals whoever was looked at longest ago.
        probes.sort_by_key(|probe| {
            let watched = &self.peers[&probe.peer];
            let tried = watched.tried.get(&(probe.layer, probe.model.clone()));
            (cost(probe.layer), tried.map(|(at, _)| *at))
        });
        probes.truncate(self.rhythm.at_once.saturating_sub(busy));
        for probe in &probes {
            if let Some(watched) = self.peers.get_mut(&probe.peer) {
                watched.in_flight = Some(now);
            }
        }
        probes
    }

    /// Milliseconds after which [`Self::due`] is worth another call; a second at most, and at least 10.
    pub fn rest(&self, now: u64) -> u64 {
        let next = self
            .peers
            .values()
            .filter(|watched| {
                watched.in_flight.is_none() && watched.peer.membership == Membership::Member
            })
            .flat_map(|watched| watched.tried.values())
            .filter(|(at, _)| *at <= now)
            .map(|(at, wait)| (at + wait).saturating_sub(now))
            .filter(|wait| *wait > 0)
            .min();
        next.unwrap_or(1_000).clamp(10, 1_000)
    }

    /// What the choice of a machine makes of this peer, for this model. Where no peer is good or unknown, those that only
    /// look bad are a last resort: that everybody is ill at once is unlikely.
    pub fn health(&self, node: NodeId, model: Option<&str>, now: u64) -> Health {
        let Some(watched) = self.peers.get(&node) else {
            return Health::Bad;
        };
        let health = watched.health(model, &self.rhythm, now);
        if health < Health::LastResort || watched.forbidden() {
            return health;
        }
        let hope = self
            .peers
            .values()
            .any(|other| other.health(model, &self.rhythm, now) < Health::LastResort);
        if hope {
            Health::Bad
        } else {
            Health::LastResort
        }
    }

    /// The diagnosis of this peer; `None` if the roster never named it.
    pub fn diagnosis(&self, node: NodeId, model: Option<&str>, now: u64) -> Option<Diagnosis> {
        let watched = self.peers.get(&node)?;
        let others = matches!(self.here.hub, Hub::Reached(_))
            || self.peers.values().any(|other| {
                other.peer.node != node && other.health(None, &self.rhythm, now) == Health::Good
            });
        Some(diagnose(
            &self.here,
            &watched.peer,
            &watched.history,
            others,
            model,
            now,
        ))
    }

    /// All peers the roster names.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values().map(|watched| &watched.peer)
    }

    /// Notes a try, with the time until the next.
    fn tried(&mut self, node: NodeId, key: Key, now: u64) {
        let every = match key.0 {
            Layer::HttpSmall => self.rhythm.small,
            Layer::HttpLarge => self.rhythm.large,
            Layer::Capabilities => self.rhythm.capabilities,
            Layer::Token => self.rhythm.token,
            _ => return,
        };
        let spread = every / 5;
        let wait = every - spread + self.random() % (2 * spread + 1);
        if let Some(watched) = self.peers.get_mut(&node) {
            watched.tried.insert(key, (now, wait));
        }
    }

    /// SplitMix64 (Steele, Lea and Flood 2014): jitter needs no more.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Order of probes: what is cheap and tells most comes first.
fn cost(layer: Layer) -> u8 {
    match layer {
        Layer::HttpSmall => 0,
        Layer::Capabilities => 1,
        Layer::HttpLarge => 2,
        _ => 3,
    }
}
