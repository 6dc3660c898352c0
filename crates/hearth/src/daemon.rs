//! Wiring of a node: catalogue, engine, door, record and signals, in the order in which they can fail.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hearth_engine::{Catalogue, Engine, ModelSource};
use hearth_mesh::identity::Identity;
use hearth_models::Sources;
use hearth_node::{Listener, MeshOptions, Models, Node, NodeOptions, encoder_meant};
use hearth_protocol::peers::{Join, Left, Peers};
use hearth_protocol::status::NodeStatus;
use tokio::sync::oneshot;

use crate::client::{Client, ClientError};
use crate::config::{Config, HostPort};
use crate::ember;
use crate::failure::{ANOTHER_HOME, Failure, Outcome};
use crate::memories;
use crate::network;
use crate::record::NodeRecord;
use crate::traces::Traces;
use crate::version::VERSION;

/// The machine's key, in the home.
const KEY: &str = "identity.key";
/// Largest request body; room for a long conversation with documents in it.
const BODY_LIMIT: usize = 32 << 20;
/// How long a connection may take to send the head of its next request: longer than clients keep idle ones.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a client may take nothing of an answer that waits to be sent.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The models this machine has: the embedded one, and the models folder.
pub fn catalogue(config: &Config) -> Outcome<Catalogue> {
    let embedded = match ember::materialise(&config.home) {
        Ok(path) => path,
        // Whoever uses another model need not care that this one has no room.
        Err(failure)
            if config
                .model
                .as_ref()
                .is_some_and(|model| model != ember::NAME) =>
        {
            tracing::warn!("{} stays unavailable: {}", ember::NAME, failure.message);
            ember::path(&config.home)
        }
        Err(failure) => return Err(failure),
    };
    let (catalogue, _) = known(config, &embedded);
    catalogue.resolve(None)?;
    Ok(catalogue)
}

/// The catalogue and its default model's name; nothing is written or checked.
pub fn known(config: &Config, embedded: &Path) -> (Catalogue, String) {
    let stored = Sources::new(network::store(config));
    let mut catalogue =
        Catalogue::new(Some(config.models_dir.clone())).with_source(Arc::new(move || {
            let listed = stored.list().into_iter();
            listed
                .map(|(name, path)| ModelSource { name, path })
                .collect()
        }));
    catalogue = catalogue.with_advice(hearth_models::how_to_get);
    let encoders = memories::encoders(config);
    catalogue = catalogue.with_encoders(move |name| encoder_meant(&encoders, name));
    catalogue.register(ember::NAME, embedded);
    let model = config.model.as_deref().unwrap_or(ember::NAME);
    let path = Path::new(model);
    let default = match path.file_stem().and_then(|stem| stem.to_str()) {
        // A file is asked for by its stem, as if it lay in the models folder.
        Some(stem) if path.is_absolute() && path.is_file() => {
            catalogue.register(stem, path);
            stem
        }
        _ => model,
    };
    // The name it has here: `qwen3` can mean `qwen3:8b`.
    let default = match catalogue.resolve(Some(default)) {
        Ok(source) => source.name,
        Err(_) => default.to_owned(),
    };
    catalogue.set_default(default.clone());
    (catalogue, default)
}

/// A node that listens and does not serve yet.
pub struct Bound {
    node: Node,
    config: Config,
    interrupted: Pin<Box<dyn Future<Output = ()> + Send>>,
    traces: Option<Arc<Traces>>,
    /// Its engine, to watch it load.
    pub engine: Engine,
    /// What it recorded.
    pub record: NodeRecord,
}

/// Why a node did not start.
pub enum Unstarted {
    /// A node already runs, here or from the same home.
    Already(Client, Box<NodeStatus>),
    /// Anything else.
    Failed(Failure),
}

impl From<Failure> for Unstarted {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Unstarted {
    /// As a failure of `hearth serve`.
    pub fn failure(self) -> Failure {
        match self {
            Self::Failed(failure) => failure,
            Self::Already(client, status) => Failure::new(format!(
                "a Hearth node already runs at {} (pid {}, version {})",
                client.place(),
                status.pid,
                status.version
            ))
            .fix("use it (hearth chat), stop it (hearth stop), or start another with its own --home and --host"),
        }
    }
}

/// How this machine meets the others. Its key is made when it is first needed.
fn mesh(config: &Config) -> Outcome<MeshOptions> {
    let path = config.home.join(KEY);
    let identity = Identity::load_or_create(&path)
        .map_err(|error| Failure::new(error.to_string()).fix(format!("or {ANOTHER_HOME}")))?;
    let name = config.mesh.name.clone().or_else(sysinfo::System::host_name);
    Ok(MeshOptions {
        identity,
        name: name.unwrap_or_else(|| "node".into()),
        addresses: config.mesh.addresses.clone(),
        relay: config.mesh.relay.clone(),
        mdns: config.mesh.mdns,
        database: config.mesh.database.clone(),
    })
}

/// Joins the household of a ticket from a home whose node does not run.
pub async fn join_without_node(config: &Config, wanted: &Join) -> Outcome<Peers> {
    let store = memories::store(config)?;
    hearth_node::join(mesh(config)?, store, wanted)
        .await
        .map_err(Failure::new)
}

/// Leaves the household of a home whose node does not run.
pub async fn leave_without_node(config: &Config) -> Outcome<Left> {
    let store = memories::store(config)?;
    hearth_node::leave(mesh(config)?, store)
        .await
        .map_err(Failure::new)
}

/// Starts everything up to the listening door, and records it.
pub async fn bind(config: &Config) -> Result<Bound, Unstarted> {
    // One home, one node: the record and the embedded model belong to it.
    if let Some(record) = NodeRecord::read(&config.home)
        && let Some(place) = HostPort::parse(&record.address)
    {
        let client = Client::new(place);
        if let Ok(status) = client.status().await
            && status.pid == record.pid
        {
            return Err(Unstarted::Already(client, Box::new(status)));
        }
    }
    let catalogue = catalogue(config)?;
    let address = tokio::net::lookup_host((config.host.host.as_str(), config.host.port))
        .await
        .map_err(|error| {
            Failure::usage(format!("the address {} is not known: {error}", config.host))
        })?
        .next()
        .ok_or_else(|| Failure::usage(format!("the address {} is not known", config.host)))?;
    let engine = Engine::new(config.engine.clone(), catalogue);
    let store = memories::store(config)?;
    let encoders = memories::encoders(config);
    let memories = memories::open(config, store.clone(), Arc::clone(&encoders))?;
    let traces = Traces::start(config)?.map(Arc::new);
    let options = NodeOptions {
        version: VERSION,
        body_limit: BODY_LIMIT,
        head_timeout: HEAD_TIMEOUT,
        stall_timeout: STALL_TIMEOUT,
        store: Some(store),
        memories: Some(memories),
        encoders: Some(encoders),
        models: Some(Models::new(
            network::store(config),
            network::network(config),
            config.fetch.share,
        )),
        listener: traces.clone().map(|traces| traces as Arc<dyn Listener>),
        mesh: Some(mesh(config)?),
        log_prompts: config.log.prompts,
    };
    let node = match Node::bind(address, engine.clone(), options).await {
        Ok(node) => node,
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            return Err(taken(&config.host).await);
        }
        Err(error) => {
            return Err(Failure::new(format!("cannot listen on {}: {error}", config.host))
                .fix("choose an address of this machine and a free port with --host, such as --host 127.0.0.1:8321")
                .into());
        }
    };
    let bound = node
        .address()
        .map_err(|error| Failure::new(format!("the door has no address: {error}")))?;
    let place = HostPort {
        host: bound.ip().to_string(),
        port: bound.port(),
    }
    .reachable();
    let record = NodeRecord {
        pid: std::process::id(),
        address: place.to_string(),
        version: VERSION.into(),
    };
    // Whoever reads the record may end its process: from here on a signal is an orderly end.
    let interrupted = Box::pin(interrupted());
    record.write(&config.home)?;
    if !bound.ip().to_canonical().is_loopback() {
        let reached = match config.fetch.share {
            true => "/health and the models there",
            false => "/health there",
        };
        tracing::warn!(
            "{bound} is open to your network: other machines can reach {reached} and nothing else"
        );
    }
    Ok(Bound {
        node,
        config: config.clone(),
        interrupted,
        traces,
        engine,
        record,
    })
}

/// Who has the port.
async fn taken(host: &HostPort) -> Unstarted {
    let client = Client::new(host.clone());
    match client.status().await {
        Ok(status) => Unstarted::Already(client, Box::new(status)),
        Err(error) => {
            let other = host.port.checked_add(1).unwrap_or(8321);
            let who = match error {
                ClientError::NotHearth(what) => format!("another program ({what})"),
                ClientError::Refused { .. } => "a Hearth node that refuses this machine".into(),
                _ => "another program".into(),
            };
            Unstarted::Failed(
                Failure::new(format!(
                    "port {} of {} is taken by {who}",
                    host.port, host.host
                ))
                .fix(format!(
                    "stop that program, or choose another port: --host {}:{other}",
                    host.host
                )),
            )
        }
    }
}

impl Bound {
    /// A client of this node.
    pub fn client(&self) -> Client {
        let place =
            HostPort::parse(&self.record.address).unwrap_or_else(|| self.config.host.clone());
        Client::new(place)
    }

    /// Serves until a signal, `POST /shutdown` or `enough`; then cleans up. A second signal ends the process at once.
    pub async fn serve(self, enough: impl Future<Output = ()> + Send + 'static) -> Outcome {
        let Self {
            node,
            config,
            interrupted: signal,
            traces,
            engine,
            record,
        } = self;
        let warm = engine.clone();
        let warming = tokio::spawn(async move {
            // The first request should not have to wait for the disk. What goes wrong is logged by the engine, and
            // told again to whoever asks.
            let _ = warm.load(None).await;
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let (home, own) = (config.home.clone(), record.clone());
        let signals = tokio::spawn(async move {
            tokio::select! {
                () = signal => tracing::info!("stopping; once more to stop at once"),
                () = enough => {}
            }
            let _ = stop.send(());
            interrupted().await;
            own.remove(&home);
            std::process::exit(130);
        });
        tracing::info!(address = record.address, pid = record.pid, "serving");
        tell_systemd(State::Ready);
        let served = node
            .serve(async {
                let _ = stopped.await;
            })
            .await;
        tell_systemd(State::Stopping);
        warming.abort();
        // Waits for the models' threads; the record goes last, because `hearth stop` waits for that.
        let _ = tokio::task::spawn_blocking(move || {
            drop(engine);
            if let Some(traces) = traces {
                traces.end();
            }
        })
        .await;
        signals.abort();
        record.remove(&config.home);
        tracing::info!("stopped");
        served.map_err(|error| Failure::new(format!("the node failed: {error}")))
    }
}

/// What a service manager wants to know (sd_notify(3)).
#[derive(Debug, Clone, Copy)]
pub enum State {
    /// It does its work.
    Ready,
    /// It ends.
    Stopping,
}

/// Tells systemd, if it started this process and asked to be told.
pub fn tell_systemd(state: State) {
    #[cfg(target_os = "linux")]
    {
        let state = match state {
            State::Ready => sd_notify::NotifyState::Ready,
            State::Stopping => sd_notify::NotifyState::Stopping,
        };
        if let Err(error) = sd_notify::notify(&[state]) {
            tracing::warn!("systemd was not told: {error}");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = state;
}

/// Resolves at the next SIGINT or SIGTERM.
#[cfg(unix)]
pub fn interrupted() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    // Registered now and not at the first poll: a signal in between must count.
    let streams = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = streams else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// Resolves at the next Ctrl-C.
#[cfg(not(unix))]
pub fn interrupted() -> impl Future<Output = ()> {
    async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
