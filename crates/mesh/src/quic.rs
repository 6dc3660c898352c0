//! The iroh door: QUIC connections that are dialled by a node's key, encrypted, and proven at both ends by TLS.
//!
//! One warm connection per peer is kept, whoever made it; each bidirectional stream of it carries one HTTP/1.1 connection,
//! so the node serves the same router here as behind its HTTP listener. A peer that vanishes is noticed within
//! [`IDLE_LIMIT`], and every stream to it breaks.
//!
//! iroh is used with its *minimal* preset and everything else that could speak to anybody switched off: no relay, no
//! discovery service, no port mapping, no probes, no public name servers. What the owner names is used: a relay of their
//! own, or local discovery over mDNS. A connected peer tells its other addresses over the encrypted connection; iroh tries
//! them, so that a better path is found and a change of network survived.
//!
//! Strangers cannot exhaust a node: handshakes, connections and streams are bounded, and nobody may send a byte of a
//! request before the node's [`Admission`] of their key. That costs one round trip more when a connection is made, and gives
//! whoever is refused a clear answer instead of a broken stream. A peer that is gone or frozen is noticed here; one that
//! lives and sends nothing on a stream, or takes nothing of an answer, is its server's to end, which knows what is owed.

mod connections;
mod endpoint;
mod error;
mod stream;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use hearth_protocol::household::{Address, NodeId};
use iroh::endpoint::{Connection, Incoming, VarInt};
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayUrl, TransportAddr};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use self::connections::{Class, Entered, Table};
pub use self::connections::{PER_KEY, STRANGERS};
pub use self::endpoint::ALPN;
pub use self::error::{BindError, QuicError};
pub use self::stream::QuicStream;

/// A connection over which nothing came for this long is dead. Every [`KEEP_ALIVE`] something comes from a peer that lives.
pub const IDLE_LIMIT: Duration = Duration::from_secs(5);
/// How often a quiet connection is spoken over.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Longest making of a connection, and longest wait for a stream of one.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long somebody who is no member may stay connected.
pub const STRANGER_LIMIT: Duration = Duration::from_secs(60);
/// Handshakes of incoming connections at the same time. Beyond half of it, addresses must first prove to be real.
pub const HANDSHAKES: usize = 64;
/// Streams that a member may have open at once, on one connection.
pub const STREAMS: u32 = 128;
/// The same for a stranger.
pub const STRANGER_STREAMS: u32 = 4;

/// Bytes that a member may send before they were read, over one connection.
const WINDOW: u32 = 8 << 20;
/// Streams that wait to be taken by [`Quic::accept`].
const BACKLOG: usize = 64;

/// How the door is opened.
#[derive(Debug, Clone, Default)]
pub struct QuicOptions {
    /// The one address of this machine to listen on; every address if `None`.
    pub ip: Option<IpAddr>,
    /// UDP port. 0 is any free one, which is also taken where this one is in use: see [`Quic::bound`].
    pub port: u16,
    /// A relay of the owner's: `https://relay.example/`. Without one, no relay is used at all.
    pub relay: Option<String>,
    /// Whether to find peers, and be found, by multicast DNS on the local network.
    pub mdns: bool,
}

/// Who somebody that connects is to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Of the household: served within generous bounds.
    Member,
    /// Nobody yet, as one who is about to join: few connections, few streams, not for long.
    Stranger,
    /// Nobody to talk to: the connection is closed before anything of it is read.
    Refused,
}

/// The way packets take to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathState {
    /// Whether it leads through a relay.
    pub relayed: bool,
    /// The peer's end: [`Address::Quic`] or [`Address::Relay`].
    pub address: Address,
    /// Smoothed round trip, as QUIC measures it.
    pub round_trip: Duration,
    /// How long ago the connection was made.
    pub last_handshake: Duration,
}

/// A stream that somebody opened.
#[derive(Debug)]
pub struct Accepted {
    /// Whose key it is, proven by TLS.
    pub peer: NodeId,
    /// What the peer was admitted as when it opened the stream.
    pub admission: Admission,
    /// The bytes: an HTTP/1.1 connection, on which this side answers. Who serves it limits how long it may be silent: as long
    /// as the peer lives, nothing here ends it.
    pub stream: QuicStream,
    /// Where it came from.
    pub path: Option<PathState>,
}

/// The door. Dropping it breaks every connection; [`Quic::close`] says goodbye.
#[derive(Debug)]
pub struct Quic {
    shared: Arc<Shared>,
    accepted: tokio::sync::Mutex<mpsc::Receiver<Accepted>>,
    listening: tokio::task::JoinHandle<()>,
}

/// What became of the last try to dial a peer; held while one is under way.
type Dialling = Arc<tokio::sync::Mutex<Option<(Instant, QuicError)>>>;

struct Shared {
    endpoint: Endpoint,
    relay: bool,
    mdns: bool,
    table: Mutex<Table<Connection>>,
    dialling: Mutex<HashMap<NodeId, Dialling>>,
    admit: Box<dyn Fn(NodeId) -> Admission + Send + Sync>,
    accepted: mpsc::Sender<Accepted>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Quic {
    /// Opens the door with the node's Ed25519 secret. `admit` is asked for every connection that comes in, and again for
    /// every stream of it; it must not block. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    ///
    /// What in the options, or of this machine, is in the way.
    pub async fn bind(
        secret: [u8; 32],
        options: QuicOptions,
        admit: impl Fn(NodeId) -> Admission + Send + Sync + 'static,
    ) -> Result<Self, BindError> {
        let endpoint = endpoint::bind(secret, &options).await?;
        let (accepted, receiver) = mpsc::channel(BACKLOG);
        let shared = Arc::new(Shared {
            endpoint,
            relay: options.relay.is_some(),
            mdns: options.mdns,
            table: Mutex::default(),
            dialling: Mutex::default(),
            admit: Box::new(admit),
            accepted,
        });
        let listening = tokio::spawn(listen(Arc::downgrade(&shared), shared.endpoint.clone()));
        Ok(Self {
            shared,
            accepted: tokio::sync::Mutex::new(receiver),
            listening,
        })
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        NodeId(*self.shared.endpoint.id().as_bytes())
    }

    /// Whether it looks for peers of which no address is known.
    pub fn finds_peers(&self) -> bool {
        self.shared.mdns
    }

    /// The sockets it is bound to, IPv4 first; every address of this machine is written `0.0.0.0` or `[::]`.
    pub fn bound(&self) -> Vec<SocketAddr> {
        let mut sockets = self.shared.endpoint.bound_sockets();
        sockets.sort();
        sockets
    }

    /// Where others may reach this node, as far as is known now: the addresses of its interfaces, and its relay.
    pub fn addresses(&self) -> Vec<Address> {
        let address = self.shared.endpoint.addr();
        let direct = address.ip_addrs().copied().map(Address::Quic);
        let relays = address
            .relay_urls()
            .map(|url| Address::Relay(url.to_string()));
        direct.chain(relays).collect()
    }

    /// A new stream to `peer`, over the connection that is there, or a new one to `addresses` (those of this door; without
    /// a relay of our own, relays are left alone). Several may ask at once: one dials for all.
    ///
    /// # Errors
    ///
    /// Which step failed; see [`QuicError`]. Ends within twice [`CONNECT_LIMIT`].
    pub async fn connect(
        &self,
        peer: NodeId,
        addresses: &[Address],
    ) -> Result<QuicStream, QuicError> {
        if let Some(connection) = self.shared.live(peer) {
            match open(&connection).await {
                // It died unnoticed.
                Err(QuicError::Closed(_) | QuicError::TimedOut) => {}
                outcome => return outcome,
            }
        }
        open(&self.shared.dial_once(peer, addresses).await?).await
    }

    /// The next stream that somebody opened; `None` once the door is closed.
    pub async fn accept(&self) -> Option<Accepted> {
        let mut accepted = self.accepted.lock().await;
        tokio::select! {
            stream = accepted.recv() => stream,
            () = self.shared.endpoint.closed() => None,
        }
    }

    /// How `peer` is reached now; `None` while there is no connection.
    pub fn path(&self, peer: NodeId) -> Option<PathState> {
        let (connection, since) = self.shared.table().newest(peer, is_live)?;
        path_of(&connection, since)
    }

    /// Breaks every connection to and from `peer`, as when it was removed: what it has running here ends.
    pub fn disconnect(&self, peer: NodeId) {
        let connections = self.shared.table().take(peer);
        for connection in connections {
            error::Goodbye::Refused.say(&connection);
        }
    }

    /// Closes the door: peers are told, so that they need not wait to notice.
    pub async fn close(&self) {
        self.shared.break_all();
        self.shared.endpoint.close().await;
    }
}

impl Drop for Quic {
    fn drop(&mut self) {
        self.listening.abort();
        self.shared.break_all();
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table<Connection>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self, peer: NodeId) -> Option<Connection> {
        Some(self.table().newest(peer, is_live)?.0)
    }

    fn break_all(&self) {
        let connections = self.table().take_all();
        for connection in connections {
            error::Goodbye::Closing.say(&connection);
        }
    }

    /// Dials unless somebody else just did. Those who waited for a dial that failed share its failure.
    async fn dial_once(
        self: &Arc<Self>,
        peer: NodeId,
        addresses: &[Address],
    ) -> Result<Connection, QuicError> {
        let asked = Instant::now();
        let dialling = self.dialling_of(peer);
        let mut last = dialling.lock().await;
        if let Some(connection) = self.live(peer) {
            return Ok(connection);
        }
        if let Some((at, failure)) = &*last
            && *at > asked
        {
            return Err(failure.clone());
        }
        let outcome = self.dial(peer, addresses).await;
        *last = outcome
            .as_ref()
            .err()
            .map(|failure| (Instant::now(), failure.clone()));
        drop(last);
        drop(dialling);
        self.forget_dialling(peer);
        match outcome {
            // The peer may have dialled us meanwhile.
            Err(failure) => self.live(peer).ok_or(failure),
            dialled => dialled,
        }
    }

    fn dialling_of(&self, peer: NodeId) -> Dialling {
        let mut all = self.dialling.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(peer).or_default())
    }

    /// Unless somebody still waits.
    fn forget_dialling(&self, peer: NodeId) {
        let mut all = self.dialling.lock().unwrap_or_else(PoisonError::into_inner);
        if all
            .get(&peer)
            .is_some_and(|one| Arc::strong_count(one) == 1)
        {
            all.remove(&peer);
        }
    }

    async fn dial(
        self: &Arc<Self>,
        peer: NodeId,
        addresses: &[Address],
    ) -> Result<Connection, QuicError> {
        let id = EndpointId::from_bytes(&peer.0).map_err(|_| QuicError::NotAKey)?;
        let targets = self.targets(addresses)?;
        if targets.is_empty() && !self.mdns {
            return Err(QuicError::NoAddress);
        }
        let address = EndpointAddr::from_parts(id, targets);
        let connection = timeout(CONNECT_LIMIT, self.endpoint.connect(address, ALPN))
            .await
            .map_err(|_| QuicError::TimedOut)?
            .map_err(|failure| error::of_connect(&failure))?;
        self.enter(&connection, peer, Class::Dialled);
        Ok(connection)
    }

    fn targets(&self, addresses: &[Address]) -> Result<Vec<TransportAddr>, QuicError> {
        addresses
            .iter()
            .filter_map(|address| match address {
                Address::Quic(socket) => Some(Ok(TransportAddr::Ip(*socket))),
                Address::Relay(url) if self.relay => Some(
                    url.parse::<RelayUrl>()
                        .map(TransportAddr::Relay)
                        .map_err(|_| QuicError::BadRelay(url.clone())),
                ),
                Address::Relay(_) | Address::Http(_) => None,
            })
            .collect()
    }

    /// Notes the connection, gives its peer leave to open streams, and serves them; false if there is no room.
    fn enter(self: &Arc<Self>, connection: &Connection, peer: NodeId, class: Class) -> bool {
        let entered = self
            .table()
            .enter(peer, class, connection.clone(), Instant::now(), is_live);
        let Entered { number, displaced } = match entered {
            Ok(entered) => entered,
            Err(connections::Full) => return false,
        };
        if let Some(displaced) = displaced {
            error::Goodbye::Busy.say(&displaced);
        }
        match class {
            Class::Stranger => {
                connection.set_max_concurrent_bi_streams(VarInt::from_u32(STRANGER_STREAMS));
            }
            Class::Dialled | Class::Member => widen(connection),
        }
        let serving = serve(
            Arc::downgrade(self),
            connection.clone(),
            peer,
            class,
            number,
        );
        tokio::spawn(serving);
        true
    }

    /// A stranger became a member.
    fn promote(&self, connection: &Connection, peer: NodeId, number: u64) {
        self.table().promote(peer, number);
        widen(connection);
    }
}

/// Takes incoming connections. Holds the door's state weakly, so that the door can be dropped.
async fn listen(shared: Weak<Shared>, endpoint: Endpoint) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    while let Some(incoming) = endpoint.accept().await {
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            // It tries again by itself.
            incoming.ignore();
            continue;
        };
        if handshakes.available_permits() < HANDSHAKES / 2 && !incoming.remote_addr_validated() {
            if let Err(proven) = incoming.retry() {
                proven.into_incoming().ignore();
            }
            continue;
        }
        tokio::spawn(welcome(Weak::clone(&shared), incoming, permit));
    }
}

/// One incoming connection until it is noted, or refused.
async fn welcome(shared: Weak<Shared>, incoming: Incoming, _permit: OwnedSemaphorePermit) {
    let Ok(Ok(connection)) = timeout(CONNECT_LIMIT, incoming).await else {
        return;
    };
    let Some(shared) = shared.upgrade() else {
        return;
    };
    let peer = NodeId(*connection.remote_id().as_bytes());
    let class = match (shared.admit)(peer) {
        Admission::Member => Class::Member,
        Admission::Stranger => Class::Stranger,
        Admission::Refused => {
            tracing::debug!(peer = %peer.short(), "a node that is no member was refused");
            error::Goodbye::Refused.say(&connection);
            return;
        }
    };
    if !shared.enter(&connection, peer, class) {
        error::Goodbye::Busy.say(&connection);
    }
}

/// Hands on the streams of one connection, as long as it lives and its peer may open them.
async fn serve(
    shared: Weak<Shared>,
    connection: Connection,
    peer: NodeId,
    class: Class,
    number: u64,
) {
    let since = Instant::now();
    let mut stranger = class == Class::Stranger;
    let stay = tokio::time::sleep(STRANGER_LIMIT);
    tokio::pin!(stay);
    loop {
        let opened = tokio::select! {
            opened = connection.accept_bi() => opened,
            () = &mut stay, if stranger => {
                let Some(shared) = shared.upgrade() else { break };
                stranger = (shared.admit)(peer) != Admission::Member;
                if stranger {
                    break;
                }
                shared.promote(&connection, peer, number);
                continue;
            }
        };
        let (Ok((send, receive)), Some(shared)) = (opened, shared.upgrade()) else {
            break;
        };
        let admission = (shared.admit)(peer);
        match admission {
            Admission::Member if stranger => {
                stranger = false;
                shared.promote(&connection, peer, number);
            }
            Admission::Member | Admission::Stranger => {}
            // We may ask somebody who may not ask us: then only the stream is refused.
            Admission::Refused if class == Class::Dialled => continue,
            Admission::Refused => {
                error::Goodbye::Refused.say(&connection);
                break;
            }
        }
        let accepted = Accepted {
            peer,
            admission,
            stream: QuicStream::new(send, receive),
            path: path_of(&connection, since),
        };
        let queue = shared.accepted.clone();
        drop(shared);
        if queue.send(accepted).await.is_err() {
            break;
        }
    }
    if stranger && is_live(&connection) {
        error::Goodbye::Busy.say(&connection);
    }
    if let Some(shared) = shared.upgrade() {
        shared.table().remove(peer, number);
    }
}

/// Opens a stream. The peer's leave to do so is what it gives after admission.
async fn open(connection: &Connection) -> Result<QuicStream, QuicError> {
    let opened = timeout(CONNECT_LIMIT, connection.open_bi()).await;
    let (send, receive) = opened
        .map_err(|_| QuicError::Busy)?
        .map_err(|failure| error::of_connection(&failure))?;
    Ok(QuicStream::new(send, receive))
}

/// Gives a peer what members get.
fn widen(connection: &Connection) {
    connection.set_receive_window(VarInt::from_u32(WINDOW));
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(STREAMS));
}

fn is_live(connection: &Connection) -> bool {
    connection.close_reason().is_none()
}

/// The path in use, or before one is chosen the quickest.
fn path_of(connection: &Connection, since: Instant) -> Option<PathState> {
    let paths = connection.paths();
    let path = paths
        .iter()
        .min_by_key(|path| (!path.is_selected(), path.rtt()))?;
    let address = match path.remote_addr() {
        TransportAddr::Ip(socket) => Address::Quic(*socket),
        TransportAddr::Relay(url) => Address::Relay(url.to_string()),
        _ => return None,
    };
    Some(PathState {
        relayed: path.is_relay(),
        address,
        round_trip: path.rtt(),
        last_handshake: since.elapsed(),
    })
}
