//! The HTTP door: TCP connections to addresses that already work (a local network, Tailscale, NetBird, WireGuard). They prove
//! nobody, so the node at the other end proves itself on each, and every request over them is signed
//! ([`crate::signature`]).

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use hearth_protocol::household::{Address, NodeId};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::doors::{ConnectError, ConnectFailure, Connection, Door, DoorKind};

/// Longest making of a connection. The first packet is sent again after one second.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// A connection breaks when what was sent is not acknowledged for so long (RFC 5482), where the system can do that.
pub const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_secs(10);
/// A quiet connection is probed after this time,
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// then as often as this,
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// and given up after so many probes without an answer.
const KEEP_ALIVE_PROBES: u32 = 3;

/// The HTTP door.
#[derive(Debug, Clone, Copy, Default)]
pub struct Http;

#[async_trait]
impl Door for Http {
    fn kinds(&self) -> &'static [DoorKind] {
        &[DoorKind::Http]
    }

    fn proves_ends(&self) -> bool {
        false
    }

    async fn connect(
        &self,
        _node: NodeId,
        addresses: &[Address],
    ) -> Result<Connection, ConnectError> {
        let mut failed = ConnectError {
            failure: ConnectFailure::NoAddress,
            door: DoorKind::Http,
            address: None,
            message: "no address is known".to_owned(),
        };
        for address in addresses {
            let Address::Http(socket) = address else {
                continue;
            };
            match connect(*socket).await {
                Ok(stream) => {
                    return Ok(Connection {
                        stream: Box::new(stream),
                        address: address.clone(),
                    });
                }
                Err(error) => {
                    failed = ConnectError {
                        failure: failure_of(&error),
                        door: DoorKind::Http,
                        address: Some(address.clone()),
                        message: words(&error),
                    };
                }
            }
        }
        Err(failed)
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let connecting = TcpStream::connect(address);
    let stream = tokio::time::timeout(CONNECT_LIMIT, connecting)
        .await
        .map_err(|_| io::Error::from(ErrorKind::TimedOut))??;
    // Tokens are small writes; waiting to fill a packet would delay each.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let probes = TcpKeepalive::new().with_time(KEEP_ALIVE);
    #[cfg(not(target_os = "openbsd"))]
    let probes = probes
        .with_interval(KEEP_ALIVE_INTERVAL)
        .with_retries(KEEP_ALIVE_PROBES);
    // Without these, a dead connection is noticed later.
    let _ = socket.set_tcp_keepalive(&probes);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_LIMIT));
    Ok(stream)
}

fn failure_of(error: &io::Error) -> ConnectFailure {
    match error.kind() {
        ErrorKind::ConnectionRefused => ConnectFailure::Refused,
        ErrorKind::TimedOut => ConnectFailure::Silent,
        // A firewall that forbids sending says so by PermissionDenied.
        ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::AddrNotAvailable
        | ErrorKind::PermissionDenied => ConnectFailure::NoRoute,
        _ => ConnectFailure::Broke,
    }
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "the machine answers, and nobody listens there".to_owned(),
        ErrorKind::TimedOut => format!("nothing came back in {} s", CONNECT_LIMIT.as_secs()),
        _ => error.to_string(),
    }
}
