//! The household of this node: who belongs to it, how the others are reached, and what is known of the way to each.
//!
//! A node that is alone has a key and nothing else: no other door is open, nobody is contacted. With the first invitation
//! or a ticket it comes to life ([`Live`]): the roster is read from the state log, doors to the others open, the hub is
//! followed, and the ways are watched. Everything that lives ends when the node leaves or stops.

pub(crate) mod ask;
mod change;
mod describe;
mod doors;
mod follow;
mod registry;
pub(crate) mod routes;
mod standing;
mod table;
mod watching;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::request::Parts;
use hearth_dispatch::Affinity;
use hearth_fanout::Log;
use hearth_mesh::diagnosis::{Here, Hub, Membership, Monitor, Rhythm};
use hearth_mesh::identity::Identity;
use hearth_mesh::peers::Peers;
use hearth_mesh::quic::Quic;
use hearth_mesh::refusal::{Code, Refusal};
use hearth_mesh::roster::{Record, Roster};
use hearth_mesh::signature::{Verified, Verifier};
use hearth_protocol::diagnosis::{Health, PeerPath};
use hearth_protocol::event::StateEvent;
use hearth_protocol::household::{Address, Capabilities, Member, NodeId, Sealed};
use hearth_protocol::peers::{Join, Left, Peers as Report};
use hearth_store::{Postgres, Store};
use tokio::sync::{Notify, OnceCell, watch};
use tokio::task::JoinSet;

pub(crate) use self::ask::{Asking, Reply, Unasked};
pub(crate) use self::change::Refused;
use self::change::in_time;
use self::registry::Registry;
pub(crate) use self::registry::TABLES as KEY_TABLES;
use self::standing::Standing;
use self::table::Membership as Belonging;
pub(crate) use self::table::TABLES;
pub(crate) use self::watching::{said, seen};
use crate::peer::generate::Runs;
use crate::state::{Shared, unix_time};

/// Prefixes of prompts that are remembered with their holders; some megabytes.
const PREFIXES: usize = 50_000;
/// How long the others may take to hear that this node closes its doors.
const FAREWELL: Duration = Duration::from_secs(1);

/// How a node meets the others.
#[derive(Debug, Clone)]
pub struct MeshOptions {
    /// Its key.
    pub identity: Identity,
    /// What it would like to be called.
    pub name: String,
    /// Where others reach it, with port 0 for its own; `None` is at the addresses of its networks.
    pub addresses: Option<Vec<Address>>,
    /// A relay of the owner's.
    pub relay: Option<String>,
    /// Whether nodes look for each other on the local network.
    pub mdns: bool,
    /// URL of a PostgreSQL that several hubs share; `None` keeps a hub's part in the node's own database.
    pub database: Option<String>,
}

impl MeshOptions {
    /// A node with a key of its own that is kept nowhere, reached on this machine alone.
    pub fn unkept() -> Self {
        Self {
            identity: Identity::generate(),
            name: "node".into(),
            addresses: Some(Vec::new()),
            relay: None,
            mdns: false,
            database: None,
        }
    }
}

/// The household of a node that may be alone.
pub(crate) struct Household {
    options: MeshOptions,
    store: Store,
    verifier: Verifier,
    /// Runs of other nodes here, which end when a node is removed.
    runs: Runs,
    live: RwLock<Option<Arc<Live>>>,
    affinity: Mutex<Affinity>,
    /// What is needed to open doors; there once the node serves.
    serving: OnceLock<doors::Serving>,
    /// Requests of this node that others answer.
    running: Mutex<HashMap<NodeId, u32>>,
    /// One change of the household at a time.
    changing: tokio::sync::Mutex<()>,
    /// The database that hubs share, once it was opened.
    database: OnceCell<Postgres>,
    /// Whether it was said that it is out of reach.
    database_is_away: AtomicBool,
}

/// A request that another node answers for this one, as long as this is held.
pub(crate) struct InFlight {
    household: Arc<Household>,
    node: NodeId,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut running = self.household.running();
        if let Some(count) = running.get_mut(&self.node) {
            *count = count.saturating_sub(1);
        }
    }
}

/// What a node of a household has.
pub(crate) struct Live {
    /// Who it is, and to what it belongs.
    pub own: NodeId,
    pub belonging: Belonging,
    /// What makes it a hub, if it is one.
    registry: Option<Registry>,
    /// The hubs' state log, or this node's copy of it.
    pub log: Log,
    roster: RwLock<Roster>,
    pub peers: Peers,
    quic: Option<Arc<Quic>>,
    monitor: Mutex<Monitor>,
    /// What each said last of itself.
    says: Mutex<HashMap<NodeId, Capabilities>>,
    /// When each answered last that was asked because somebody named a model which nobody was known to have.
    afresh: tokio::sync::Mutex<HashMap<NodeId, Instant>>,
    /// When a hub answered last, and since when none does, in milliseconds since 1970.
    hub: Mutex<Hub>,
    /// Which hub that was.
    last_hub: Mutex<Option<NodeId>>,
    /// A hub asked this node something.
    hub_is_there: Notify,
    /// A hub said that this node was removed.
    removed: AtomicBool,
    runs: Runs,
    /// Whether it is over.
    over: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
}

impl Live {
    pub fn is_hub(&self) -> bool {
        self.registry.is_some()
    }

    pub fn roster<T>(&self, read: impl FnOnce(&Roster) -> T) -> T {
        let roster = self.roster.read();
        read(&roster.unwrap_or_else(PoisonError::into_inner))
    }

    pub fn monitor(&self) -> MutexGuard<'_, Monitor> {
        self.monitor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn says(&self) -> MutexGuard<'_, HashMap<NodeId, Capabilities>> {
        self.says.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Becomes true when this node leaves its household, or stops.
    pub fn over(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }

    /// What people call a hub.
    fn name_of(&self, node: NodeId) -> String {
        let name = self.roster(|roster| roster.record(&node).map(|member| member.name.clone()));
        name.unwrap_or_else(|| node.short())
    }

    /// The hubs but this node, that which answered last before the others, and where each is reached: as the roster says,
    /// then as the ticket said.
    fn hubs(&self) -> Vec<(NodeId, Vec<Address>)> {
        let mut hubs: Vec<(NodeId, Vec<Address>)> = self.roster(|roster| {
            let hubs = roster.hubs().map(|hub| (hub.node, hub.addresses.clone()));
            hubs.collect()
        });
        let joined = &self.belonging;
        if hubs.is_empty() {
            // Nothing else is known before the first snapshot.
            hubs.push((joined.hub, Vec::new()));
        }
        if let Some((_, addresses)) = hubs.iter_mut().find(|(hub, _)| *hub == joined.hub) {
            for address in &joined.addresses {
                if !addresses.contains(address) {
                    addresses.push(address.clone());
                }
            }
        }
        hubs.retain(|(hub, _)| *hub != self.own);
        let last = *self.last_hub();
        hubs.sort_by_key(|(hub, _)| Some(*hub) != last);
        hubs
    }

    fn last_hub(&self) -> MutexGuard<'_, Option<NodeId>> {
        self.last_hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends everything that goes on.
    fn end(&self) {
        self.over.send_replace(true);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.abort_all();
    }

    /// Runs until the end.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(task);
    }

    /// Takes what the state log says of the members.
    fn learn(self: &Arc<Self>, events: &[StateEvent]) {
        let household = self.belonging.household;
        let new: Vec<&Sealed> = self.roster(|roster| {
            let records = events.iter().map(|StateEvent::Member { record }| record);
            records.filter(|record| !roster.holds(record)).collect()
        });
        let checked = new.into_iter().filter_map(|sealed| {
            let record = Record::open(sealed.clone(), &household);
            record
                .inspect_err(|error| {
                    tracing::warn!(%error, "a record of the state log was not taken");
                })
                .ok()
        });
        let checked = checked.collect();
        self.take(checked);
    }

    /// Takes records whose seals were checked.
    fn take(self: &Arc<Self>, records: Vec<Record>) {
        let mut removed = Vec::new();
        {
            let mut roster = self.roster.write().unwrap_or_else(PoisonError::into_inner);
            for record in records {
                let (node, is_removed) = (record.member().node, record.member().removed);
                if roster.take(record) {
                    // What the node said of itself before is older than this.
                    self.says().remove(&node);
                    if is_removed {
                        removed.push(node);
                    }
                }
            }
        }
        for node in removed {
            // At once, whatever it has running here.
            self.runs.give_up(node);
            self.peers.forget(&node);
            // It is refused from now on; that it was told so, or that it left well, may still be on its way.
            let live = Arc::downgrade(self);
            tokio::spawn(async move {
                tokio::time::sleep(FAREWELL).await;
                let Some(live) = live.upgrade() else { return };
                let is_out = live.roster(|roster| roster.may_pass(&node).is_err());
                if let Some(quic) = live.quic.as_ref().filter(|_| is_out) {
                    quic.disconnect(node);
                }
            });
        }
        self.tell_roster();
    }

    /// The monitor hears of the roster, and of this node's place in it.
    fn tell_roster(&self) {
        let peers = self.roster(|roster| {
            let others = roster.all().filter(|member| member.node != self.own);
            let each = others.map(|member| hearth_mesh::diagnosis::Peer {
                node: member.node,
                name: member.name.clone(),
                addresses: member.addresses.clone(),
                membership: match member.removed {
                    true => Membership::Removed,
                    false => Membership::Member,
                },
            });
            each.collect::<Vec<_>>()
        });
        self.monitor().roster(peers);
        self.tell_here();
    }

    /// The monitor hears of the hub, and whether this node was removed.
    fn tell_here(&self) {
        let here = Here {
            joined: true,
            removed: self.is_removed(),
            hub: self.hub().clone(),
        };
        self.monitor().here(here);
    }

    fn hub_answered(&self) {
        if !self.is_hub() {
            *self.hub() = Hub::Reached(now());
            self.tell_here();
        }
    }

    /// Whether a hub took this node out of the household.
    fn is_removed(&self) -> bool {
        let told = self.removed.load(Ordering::Relaxed);
        let own = |roster: &Roster| roster.record(&self.own).is_some_and(|own| own.removed);
        told || self.roster(own)
    }

    fn set_removed(&self) {
        self.removed.store(true, Ordering::Relaxed);
        self.tell_here();
    }

    /// A hub took this node for a member: one that did not had not heard of it yet.
    fn clear_removed(&self) {
        if self.removed.swap(false, Ordering::Relaxed) {
            self.tell_here();
        }
    }

    fn hub_failed(&self) {
        if !self.is_hub() {
            let mut hub = self.hub();
            if !matches!(*hub, Hub::Unreachable { .. }) {
                *hub = Hub::Unreachable {
                    address: self.hubs().into_iter().flat_map(|(_, at)| at).next(),
                    since: now(),
                };
            }
            drop(hub);
            self.tell_here();
        }
    }
}

impl Household {
    /// Of a node with this store. Nothing is opened.
    pub fn new(options: MeshOptions, store: Store, runs: Runs) -> Self {
        Self {
            verifier: Verifier::new(options.identity.id(), unix_time()),
            options,
            store,
            runs,
            live: RwLock::default(),
            affinity: Mutex::new(Affinity::new(PREFIXES)),
            serving: OnceLock::new(),
            running: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            database: OnceCell::new(),
            database_is_away: AtomicBool::new(false),
        }
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.options.identity.id()
    }

    /// The key of this node.
    pub fn identity(&self) -> &Identity {
        &self.options.identity
    }

    /// What its household calls it.
    pub fn name(&self) -> String {
        let own = self.id();
        let named = self.live().and_then(|live| {
            live.roster(|roster| roster.record(&own).map(|member| member.name.clone()))
        });
        named.unwrap_or_else(|| self.options.name.clone())
    }

    /// What a node of a household has; `None` for one that is alone.
    pub fn live(&self) -> Option<Arc<Live>> {
        let live = self.live.read();
        live.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_live(&self, live: Option<Arc<Live>>) {
        let mut place = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = std::mem::replace(&mut *place, live) {
            before.end();
        }
    }

    /// Whether there is anybody else.
    pub fn has_others(&self) -> bool {
        let own = self.id();
        self.live().is_some_and(|live| {
            live.roster(|roster| roster.members().any(|member| member.node != own))
        })
    }

    /// The other members.
    pub fn others(&self) -> Vec<Member> {
        let own = self.id();
        self.live().map_or(Vec::new(), |live| {
            live.roster(|roster| {
                let others = roster.members().filter(|member| member.node != own);
                others.cloned().collect()
            })
        })
    }

    /// The machine of this name, or whose id begins so; this one too.
    pub fn named(&self, name: &str) -> Option<NodeId> {
        let live = self.live()?;
        live.roster(|roster| roster.find(name).ok().map(|member| member.node))
    }

    /// Who signed a request that came here.
    pub fn verify(&self, head: &Parts) -> Result<Verified, Refusal> {
        let live = self.live();
        let is_member = |node: &NodeId| {
            live.as_ref()
                .is_some_and(|live| live.roster(|roster| roster.may_pass(node).is_ok()))
        };
        self.verifier.check(head, unix_time(), is_member)
    }

    /// Whether a node that proved its key may use the peer surface.
    pub fn may_pass(&self, node: &NodeId) -> Result<(), Refusal> {
        let Some(live) = self.live() else {
            return Err(Refusal::new(
                Code::NotInRoster,
                "this machine belongs to no household; run `hearth invite` here, and join with its ticket",
            ));
        };
        let is_hub = live.roster(|roster| roster.may_pass(node).map(|member| member.hub))?;
        if is_hub {
            live.hub_is_there.notify_waiters();
        }
        live.monitor().heard(*node, now());
        Ok(())
    }

    /// What a node said of itself, if it was asked lately.
    pub fn says(&self, node: NodeId) -> Option<Capabilities> {
        let live = self.live()?;
        live.says().get(&node).cloned()
    }

    /// What is known of the way to a node, for this model.
    pub fn way(&self, node: NodeId, model: Option<&str>) -> (Health, PeerPath, Option<Duration>) {
        let Some(live) = self.live() else {
            return (Health::Unknown, PeerPath::None, None);
        };
        let mut monitor = live.monitor();
        let now = now();
        if let Some(model) = model {
            monitor.used(node, model, now);
        }
        let health = monitor.health(node, model, now);
        let known = monitor.diagnosis(node, model, now);
        let (path, trip) = known.map_or((PeerPath::None, None), |known| {
            (known.path, known.round_trip_ms)
        });
        let trip = trip.and_then(|trip| Duration::try_from_secs_f64(trip / 1_000.0).ok());
        (health, path, trip)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<NodeId, u32>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request that a node answers.
    pub fn in_flight(self: &Arc<Self>, node: NodeId) -> InFlight {
        *self.running().entry(node).or_default() += 1;
        InFlight {
            household: Arc::clone(self),
            node,
        }
    }

    /// Requests of this node that another one answers now.
    pub fn running_at(&self, node: NodeId) -> u32 {
        self.running().get(&node).copied().unwrap_or(0)
    }

    /// Who holds how many bytes of the start of a prompt.
    pub fn held(&self, model: &str, prompt: &str) -> Vec<(NodeId, usize)> {
        self.affinity().find(model, prompt)
    }

    /// `node` holds this prompt now.
    pub fn holds(&self, model: &str, prompt: &str, node: NodeId) {
        self.affinity().note(model, prompt, node);
    }

    fn affinity(&self) -> MutexGuard<'_, Affinity> {
        self.affinity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The projects whose memories the others may search; the empty name stands for all.
    pub fn shared_projects(&self) -> Result<Vec<String>, Refused> {
        Ok(table::shared_projects(&self.store)?)
    }

    /// Lets the others search a project's memories, or not any more.
    pub fn share_project(&self, project: &str, shared: bool) -> Result<(), Refused> {
        Ok(table::share_project(&self.store, project, shared)?)
    }

    /// Goes on where the node was when it stopped: in its household, or alone.
    pub async fn wake(self: &Arc<Self>, node: &Shared) -> std::io::Result<()> {
        let woken = self.wake_now(node).await;
        woken.map_err(std::io::Error::other)?;
        self.await_database(node);
        Ok(())
    }

    async fn wake_now(self: &Arc<Self>, node: &Shared) -> Result<(), Refused> {
        let _alone = self.changing.lock().await;
        let standing = match self.standing().await {
            Ok(standing) => standing,
            Err(error) => {
                // This machine answers, whatever is wrong with the others' database.
                tracing::error!("this machine is no hub by its database_url: {error}");
                self.standing_here().await?
            }
        };
        let Some((belonging, registry)) = standing.belonging() else {
            return Ok(());
        };
        let doors = self.doors().await;
        let live = self.bring_somehow(belonging, registry, doors).await?;
        let (called, wanted) = (live.name_of(live.own), &self.options.name);
        if called != *wanted {
            tracing::info!(
                "the household calls this machine {called}, and its name here is {wanted}; to have it called so: hearth peers rename {called} {wanted}"
            );
        }
        self.look_after(live, node);
        Ok(())
    }

    /// Ends the streams of events that go out, while running answers go on.
    pub fn end_event_streams(&self) {
        if let Some(live) = self.live() {
            live.over.send_replace(true);
        }
    }

    /// Closes every door but the node's own, and ends what goes on, also what it does for others.
    pub async fn rest(&self) {
        let live = self.live();
        self.set_live(None);
        self.runs.give_up_all();
        if let Some(quic) = live.as_ref().and_then(|live| live.quic.as_ref()) {
            // The others are told, so that they need not wait to notice; but nobody is waited for long.
            let quic = Arc::clone(quic);
            let closing = tokio::spawn(async move { quic.close().await });
            let _ = tokio::time::timeout(FAREWELL, closing).await;
        }
    }

    /// Opens what a member has: log, roster and doors.
    async fn bring_to_life(
        self: &Arc<Self>,
        belonging: Belonging,
        registry: Option<Registry>,
        (peers, quic): (Peers, Option<Arc<Quic>>),
    ) -> Result<Arc<Live>, Refused> {
        let opening = async {
            let log = match &registry {
                Some(registry) => registry.place().log().await?,
                None => Log::follow(self.store.clone(), hearth_fanout::Options::default()).await?,
            };
            let snapshot = log.snapshot().await?;
            Ok((log, snapshot))
        };
        let is_shared = registry.as_ref().is_some_and(Registry::is_shared);
        let (log, snapshot) = in_time(is_shared, opening).await?;
        let hub = match registry.is_some() {
            true => Hub::Here,
            false => Hub::NotAsked,
        };
        let live = Arc::new(Live {
            own: self.id(),
            roster: RwLock::new(Roster::new(belonging.household)),
            belonging,
            registry,
            peers,
            quic,
            monitor: Mutex::new(Monitor::new(Rhythm::default(), rand::random())),
            says: Mutex::default(),
            afresh: tokio::sync::Mutex::default(),
            hub: Mutex::new(hub),
            last_hub: Mutex::default(),
            hub_is_there: Notify::new(),
            removed: AtomicBool::new(false),
            runs: self.runs.clone(),
            over: watch::Sender::new(false),
            tasks: Mutex::default(),
            log,
        });
        live.learn(&snapshot.state);
        self.set_live(Some(Arc::clone(&live)));
        Ok(live)
    }

    /// The same; as a member, if the hubs' database does not answer just now.
    async fn bring_somehow(
        self: &Arc<Self>,
        belonging: Belonging,
        registry: Option<Registry>,
        doors: (Peers, Option<Arc<Quic>>),
    ) -> Result<Arc<Live>, Refused> {
        let living = self.bring_to_life(belonging.clone(), registry, doors.clone());
        match living.await {
            Err(error) if error.is_unreachable() => {
                self.database_away(&error);
                self.bring_to_life(belonging, None, doors).await
            }
            brought => brought,
        }
    }

    /// Starts what goes on by itself.
    fn look_after(self: &Arc<Self>, live: Arc<Live>, node: &Shared) {
        self.open_doors(&live);
        self.follow(&live, node);
        self.watch(&live);
        if live.is_shared() {
            let log = live.log.clone();
            live.spawn(async move { match log.keep_up().await {} });
            self.attend(&live, node);
        }
    }
}

/// Brings the household of a node that does not run to life, as a member's.
async fn awake(household: &Arc<Household>) -> Result<(), Refused> {
    if let Some(belonging) = table::membership(&household.store)? {
        let doors = household.doors().await;
        household.bring_to_life(belonging, None, doors).await?;
    }
    Ok(())
}

/// Joins the household of a ticket for a node that does not run: it does its part when it starts.
///
/// # Errors
/// Why it did not join, in words that say what mends it.
pub async fn join(options: MeshOptions, store: Store, wanted: &Join) -> Result<Report, String> {
    let household = Arc::new(Household::new(options, store, Runs::default()));
    let joining = async {
        awake(&household).await?;
        let joined = household.join(None, wanted).await;
        let report = household.report(None);
        household.rest().await;
        joined.map(|()| report)
    };
    joining.await.map_err(|refused: Refused| refused.message)
}

/// Leaves the household for a node that does not run. A hub has to run for it, so that the others hear of it.
///
/// # Errors
/// Why it did not leave, in words that say what mends it.
pub async fn leave(options: MeshOptions, store: Store) -> Result<Left, String> {
    let household = Arc::new(Household::new(options, store, Runs::default()));
    let leaving = async {
        if household.options.database.is_some() {
            let what = "this machine shares a database with the hubs (database_url), which its node sees to";
            return Err(Refused::asleep(what));
        }
        if let Standing::Hub(..) = household.standing_here().await? {
            let what = "this machine is the hub of its household, and the others hear of it only while its node runs";
            return Err(Refused::asleep(what));
        }
        awake(&household).await?;
        let was = household.name();
        let told = household.leave(false).await?;
        let peers = household.report(None);
        Ok(Left { told, was, peers })
    };
    leaving.await.map_err(|refused: Refused| refused.message)
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
