//! What the handlers share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hearth_engine::Engine;
use hearth_memory::Memories;
use hearth_protocol::machine::{Machine, MachineReport};
use hearth_protocol::status::NodeStatus;
use hearth_store::Store;
use tokio::sync::{Mutex, Notify};

use crate::NodeOptions;
use crate::conversations::Conversations;
use crate::encoders::Turns;
use crate::household::{Household, MeshOptions};
use crate::machine::machine_report;
use crate::metrics::Metrics;
use crate::peer::generate::Runs;

/// Cheap to clone.
pub(crate) type Shared = Arc<Node>;

/// The node behind the handlers.
pub(crate) struct Node {
    pub engine: Engine,
    pub options: NodeOptions,
    pub address: SocketAddr,
    pub started: Instant,
    pub metrics: Metrics,
    /// Stored answers and conversations.
    pub conversations: Conversations,
    pub memories: Memories,
    /// The other machines.
    pub household: Arc<Household>,
    /// Runs here for other nodes.
    pub runs: Runs,
    /// Who may use an encoder.
    pub encoding: Turns,
    /// What the models' files say.
    pub facts: crate::ollama::facts::Known,
    /// What was measured of this machine; locked while it is.
    pub machine: Arc<Mutex<Option<Machine>>>,
    /// Somebody asked the node to stop.
    pub stop: Notify,
    /// Whether it does.
    pub stopping: AtomicBool,
    /// One health probe at a time.
    pub probing: Mutex<()>,
    /// Milliseconds after `started` at which a token last came back, plus one; 0 is never.
    last_token: AtomicU64,
}

impl Node {
    pub fn new(
        engine: Engine,
        options: NodeOptions,
        store: Store,
        memories: Memories,
        address: SocketAddr,
    ) -> Self {
        let runs = Runs::default();
        let mesh = options.mesh.clone().unwrap_or_else(MeshOptions::unkept);
        Self {
            household: Arc::new(Household::new(mesh, store.clone(), runs.clone())),
            runs,
            engine,
            options,
            address,
            started: Instant::now(),
            metrics: Metrics::default(),
            conversations: Conversations::new(store),
            memories,
            encoding: Turns::default(),
            facts: Default::default(),
            machine: Arc::new(Mutex::new(None)),
            stop: Notify::new(),
            stopping: AtomicBool::new(false),
            probing: Mutex::new(()),
            last_token: AtomicU64::new(0),
        }
    }

    /// A token came back just now.
    pub fn saw_token(&self) {
        self.last_token.store(
            self.started.elapsed().as_millis() as u64 + 1,
            Ordering::Relaxed,
        );
    }

    /// How long ago a token last came back.
    pub fn token_age(&self) -> Option<Duration> {
        let at = self.last_token.load(Ordering::Relaxed).checked_sub(1)?;
        Some(
            self.started
                .elapsed()
                .saturating_sub(Duration::from_millis(at)),
        )
    }

    /// The body of `/machine`; of what is just being measured nothing is known.
    pub fn machine_report(&self) -> MachineReport {
        let machine = self.machine.try_lock().ok().and_then(|known| known.clone());
        machine_report(machine, self.engine.catalogue())
    }

    /// The body of `/status`.
    pub fn status(&self) -> NodeStatus {
        NodeStatus {
            version: self.options.version.into(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            address: reachable(self.address).to_string(),
            default_model: self
                .engine
                .catalogue()
                .default_name()
                .unwrap_or_default()
                .into(),
            cpu: self.engine.cpu().into(),
            memory_bytes: resident_bytes(),
            models_folder: self
                .options
                .models
                .as_ref()
                .map(|models| models.store.root().display().to_string()),
            models: self.engine.status(),
            elsewhere: crate::elsewhere::everywhere_else(self),
        }
    }
}

/// Where a client on this machine reaches a door: one that is open at every address has none that can be asked.
fn reachable(door: SocketAddr) -> SocketAddr {
    let ip = match door.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, door.port())
}

/// Seconds since 1970.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

fn resident_bytes() -> Option<u64> {
    memory_stats::memory_stats().map(|stats| stats.physical_mem as u64)
}
