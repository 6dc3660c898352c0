//! The iroh door as one of the doors: its failures in the terms of all.

use async_trait::async_trait;
use hearth_protocol::household::{Address, NodeId};

use super::{ConnectError, ConnectFailure, Connection, Door, DoorKind, LivePath};
use crate::quic::{Quic, QuicError};

#[async_trait]
impl Door for Quic {
    fn kinds(&self) -> &'static [DoorKind] {
        &[DoorKind::Quic, DoorKind::Relay]
    }

    fn proves_ends(&self) -> bool {
        true
    }

    fn finds_nodes(&self) -> bool {
        self.finds_peers()
    }

    async fn connect(
        &self,
        node: NodeId,
        addresses: &[Address],
    ) -> Result<Connection, ConnectError> {
        let first = addresses.first();
        let stream = Quic::connect(self, node, addresses).await;
        let stream = stream.map_err(|error| ConnectError {
            failure: failure_of(&error),
            door: first.map_or(DoorKind::Quic, DoorKind::of),
            address: first.cloned(),
            message: error.to_string(),
        })?;
        let address = Quic::path(self, node).map(|path| path.address);
        let gone = || ConnectError {
            failure: ConnectFailure::Broke,
            door: DoorKind::Quic,
            address: None,
            message: "the connection was closed at once".to_owned(),
        };
        Ok(Connection {
            stream: Box::new(stream),
            address: address.or(first.cloned()).ok_or_else(gone)?,
        })
    }

    fn path(&self, node: NodeId) -> Option<LivePath> {
        let path = Quic::path(self, node)?;
        Some(LivePath {
            relayed: path.relayed,
            address: path.address,
            round_trip: path.round_trip,
            handshake: path.last_handshake,
        })
    }
}

fn failure_of(error: &QuicError) -> ConnectFailure {
    match error {
        QuicError::NoAddress | QuicError::BadRelay(_) | QuicError::NotAKey | QuicError::Own => {
            ConnectFailure::NoAddress
        }
        QuicError::TimedOut => ConnectFailure::Silent,
        QuicError::OtherKey => ConnectFailure::WrongKey,
        QuicError::Refused => ConnectFailure::NotAdmitted,
        QuicError::Busy => ConnectFailure::Busy,
        QuicError::Version | QuicError::Closed(_) => ConnectFailure::Broke,
    }
}
