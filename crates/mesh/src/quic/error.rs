//! What goes wrong at the iroh door, told apart as the diagnosis needs it; and the codes with which it closes connections.

use iroh::endpoint::{
    ConnectError, ConnectWithOptsError, ConnectingError, Connection, ConnectionError,
    TransportErrorCode, VarInt,
};

/// Why there is no stream to a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuicError {
    /// Nothing to dial.
    #[error(
        "no QUIC address of this peer is known, and its relay is used only where `relay` names one"
    )]
    NoAddress,
    /// An address that cannot be.
    #[error("`{0}` is no URL of a relay")]
    BadRelay(String),
    /// An id that cannot be.
    #[error("the peer's id is no Ed25519 public key")]
    NotAKey,
    /// Our own id.
    #[error("the peer is this machine")]
    Own,
    /// Nothing came back from any address.
    #[error("nothing came back: the peer is off, its address changed, or a firewall is between")]
    TimedOut,
    /// Another node answered. iroh dials all addresses at once and takes the first answer, so this may be so of one address
    /// while another is right.
    #[error("the machine at this address has another key than the peer")]
    OtherKey,
    /// The peer does not admit this node.
    #[error("the peer refuses this machine: it is no member of its household, or was removed")]
    Refused,
    /// The peer answered, and has no room for another connection or stream.
    #[error("the peer has no room for another connection")]
    Busy,
    /// The other side speaks no version of ours.
    #[error("the machine there speaks another version of the peer protocol")]
    Version,
    /// The connection, or this door, was closed.
    #[error("the connection was closed: {0}")]
    Closed(String),
}

/// Why the door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The relay's URL is none.
    #[error("`{0}` is no URL of a relay; write https://HOST/ or http://HOST:PORT/")]
    Relay(String),
    /// The system refused, for another reason than the port.
    #[error("no UDP socket: {0}")]
    Socket(String),
}

/// TLS alerts (RFC 8446, 6) that say something about who is there.
mod alert {
    pub const BAD_CERTIFICATE: u64 = 42;
    pub const CERTIFICATE_UNKNOWN: u64 = 46;
    pub const UNKNOWN_CA: u64 = 48;
    pub const NO_APPLICATION_PROTOCOL: u64 = 120;
}

/// QUIC writes a TLS alert as an error code from here on (RFC 9001, 4.8).
const CRYPTO_ERROR: u64 = 0x100;
/// QUIC's CONNECTION_REFUSED (RFC 9000, 20.1).
const CONNECTION_REFUSED: u64 = 2;

/// Why we close a connection, as the peer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goodbye {
    /// The door closes.
    Closing = 0,
    /// The peer is not, or no longer, admitted.
    Refused = 1,
    /// There are too many connections, or it stayed too long for a stranger.
    Busy = 2,
}

impl Goodbye {
    pub(super) fn say(self, connection: &Connection) {
        let words: &[u8] = match self {
            Self::Closing => b"closing",
            Self::Refused => b"refused",
            Self::Busy => b"busy",
        };
        connection.close(VarInt::from_u32(self as u32), words);
    }
}

/// What iroh says about a dial.
pub(super) fn of_connect(failure: &ConnectError) -> QuicError {
    match failure {
        ConnectError::Connect { source, .. } => match source {
            ConnectWithOptsError::NoAddress { .. } => QuicError::NoAddress,
            ConnectWithOptsError::SelfConnect { .. } => QuicError::Own,
            ConnectWithOptsError::EndpointClosed { .. } => door_closed(),
            other => QuicError::Closed(other.to_string()),
        },
        ConnectError::Connecting { source, .. } => match source {
            ConnectingError::ConnectionError { source, .. } => of_connection(source),
            other => QuicError::Closed(other.to_string()),
        },
        ConnectError::Connection { source, .. } => of_connection(source),
        other => QuicError::Closed(other.to_string()),
    }
}

/// What QUIC says about a connection.
pub(super) fn of_connection(failure: &ConnectionError) -> QuicError {
    match failure {
        ConnectionError::TimedOut => QuicError::TimedOut,
        ConnectionError::VersionMismatch => QuicError::Version,
        ConnectionError::TransportError(error) => of_code(error.code, failure),
        ConnectionError::ConnectionClosed(close) => of_code(close.error_code, failure),
        ConnectionError::ApplicationClosed(close) => match close.error_code.into_inner() {
            code if code == Goodbye::Refused as u64 => QuicError::Refused,
            code if code == Goodbye::Busy as u64 => QuicError::Busy,
            _ => QuicError::Closed("the peer closed it".to_owned()),
        },
        ConnectionError::LocallyClosed => door_closed(),
        ConnectionError::Reset | ConnectionError::CidsExhausted => {
            QuicError::Closed(failure.to_string())
        }
    }
}

fn of_code(code: TransportErrorCode, failure: &ConnectionError) -> QuicError {
    let code = u64::from(code);
    match code.checked_sub(CRYPTO_ERROR) {
        Some(alert::BAD_CERTIFICATE | alert::CERTIFICATE_UNKNOWN | alert::UNKNOWN_CA) => {
            QuicError::OtherKey
        }
        Some(alert::NO_APPLICATION_PROTOCOL) => QuicError::Version,
        None if code == CONNECTION_REFUSED => QuicError::Busy,
        _ => QuicError::Closed(failure.to_string()),
    }
}

fn door_closed() -> QuicError {
    QuicError::Closed("this machine closed it".to_owned())
}
