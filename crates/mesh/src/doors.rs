//! Doors: the ways a connection to another node is made. Behind each, a connection is a stream of bytes in both directions
//! that carries HTTP/1.1, so that [`crate::peers`] speaks the same over all of them.

mod quic;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use hearth_protocol::household::{Address, NodeId};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

/// A kind of way to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoorKind {
    /// iroh, directly.
    Quic,
    /// Signed HTTP.
    Http,
    /// iroh, by way of a relay. iroh goes over to a direct path by itself where it finds one.
    Relay,
}

impl DoorKind {
    /// Order in which doors are tried where nothing else is asked for: encrypted before signed, direct before relayed.
    pub const ORDER: [Self; 3] = [Self::Quic, Self::Http, Self::Relay];

    /// The kind of door an address is for.
    pub fn of(address: &Address) -> Self {
        match address {
            Address::Quic(_) => Self::Quic,
            Address::Http(_) => Self::Http,
            Address::Relay(_) => Self::Relay,
        }
    }
}

impl fmt::Display for DoorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Quic => "quic",
            Self::Http => "http",
            Self::Relay => "relay",
        })
    }
}

/// Bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// A connection that was made.
pub struct Connection {
    /// Carries HTTP/1.1; the client writes first.
    pub stream: Box<dyn Stream>,
    /// Where the node answered.
    pub address: Address,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Connection({})", self.address)
    }
}

/// What a transport knows about its live connection to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePath {
    /// Whether packets go by way of a relay now.
    pub relayed: bool,
    /// Where they go.
    pub address: Address,
    /// Smoothed round trip.
    pub round_trip: Duration,
    /// How long ago the two ends proved themselves to each other.
    pub handshake: Duration,
}

/// Why no connection came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectFailure {
    /// The machine answered that nobody listens there.
    Refused,
    /// Nothing came back at all, in the time there was: the machine is off, asleep or gone, or a firewall drops packets.
    Silent,
    /// This machine or a router says that there is no way.
    NoRoute,
    /// Another node answers at that address, or somebody who does not prove to be the node.
    WrongKey,
    /// The machine takes the connection, and whoever is there does not say who it is in time.
    Unanswered,
    /// The node answers and does not let this one in.
    NotAdmitted,
    /// The node has no room for another connection.
    Busy,
    /// There is no address to try.
    NoAddress,
    /// The connection broke while it was made.
    Broke,
}

/// Why a connection to one address, or to a group of them that a door tries at once, did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{door}{}: {message}", at(.address.as_ref()))]
pub struct ConnectError {
    /// What kind of failure it is.
    pub failure: ConnectFailure,
    /// The door that failed.
    pub door: DoorKind,
    /// The address, or the first of the group.
    pub address: Option<Address>,
    /// In words, without the address.
    pub message: String,
}

fn at(address: Option<&Address>) -> String {
    address.map_or_else(String::new, |address| format!(" ({address})"))
}

/// A way to make connections.
#[async_trait]
pub trait Door: Send + Sync + 'static {
    /// The kinds of addresses it is for.
    fn kinds(&self) -> &'static [DoorKind];

    /// Whether a connection itself proves who is at each end. Over one that does not, the node proves itself before it is
    /// asked for anything, and requests are signed.
    fn proves_ends(&self) -> bool;

    /// Whether it may find a node of which no address is known.
    fn finds_nodes(&self) -> bool {
        false
    }

    /// Connects to `node` at the best of `addresses`, which are of its kinds. Ends by itself, within seconds. Dropping the
    /// future gives up.
    ///
    /// # Errors
    /// Why nobody, or somebody else, answered.
    async fn connect(
        &self,
        node: NodeId,
        addresses: &[Address],
    ) -> Result<Connection, ConnectError>;

    /// What the transport knows about the path to `node`; nothing where it has no connection or cannot tell.
    fn path(&self, _node: NodeId) -> Option<LivePath> {
        None
    }
}
