//! Why a request got no answer: by kind, so that diagnosis can name the layer.

use hearth_protocol::household::{Address, NodeId};
use serde::{Deserialize, Serialize};

use crate::doors::{ConnectError, ConnectFailure};

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendFailure {
    /// No connection came about, for this reason.
    Connect(ConnectFailure),
    /// There was a connection and it broke before the answer began.
    Broke,
    /// There was a connection and the answer did not begin in time.
    NoHeaders,
}

/// A request without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SendError {
    /// Who was asked.
    pub node: NodeId,
    /// What kind of failure it is. Of several, the one that says most.
    pub failure: SendFailure,
    /// In words, for somebody who knows which node was asked.
    pub message: String,
    /// The address that it is about.
    pub address: Option<Address>,
    /// Whether the request may have been done: something of it was sent.
    pub sent: bool,
    /// Every connection that did not come about.
    pub attempts: Vec<ConnectError>,
}

impl SendError {
    /// The code of the diagnosis for it, as far as one request tells.
    pub fn code(&self) -> &'static str {
        match self.failure {
            SendFailure::Connect(ConnectFailure::Refused) => "peer_process_down",
            SendFailure::Connect(ConnectFailure::Silent) => "firewall_suspected",
            SendFailure::Connect(ConnectFailure::WrongKey) => "key_mismatch",
            SendFailure::Connect(ConnectFailure::NotAdmitted) => "not_in_roster",
            SendFailure::Connect(ConnectFailure::Busy) => "too_many_requests",
            SendFailure::Connect(ConnectFailure::NoRoute | ConnectFailure::NoAddress) => "no_path",
            SendFailure::Connect(ConnectFailure::Broke) | SendFailure::Broke => "connection_broke",
            SendFailure::Connect(ConnectFailure::Unanswered) | SendFailure::NoHeaders => {
                "no_answer"
            }
        }
    }

    /// No connection came about.
    pub(super) fn unconnected(node: NodeId, attempts: Vec<ConnectError>) -> Self {
        let telling = attempts.iter().min_by_key(|error| rank(error.failure));
        let failure = telling.map_or(ConnectFailure::NoAddress, |error| error.failure);
        let address = telling.and_then(|error| error.address.clone());
        let message = match attempts.as_slice() {
            [] => "no address of it is known that a door here is for".to_owned(),
            attempts => told(attempts),
        };
        Self {
            node,
            failure: SendFailure::Connect(failure),
            message,
            address,
            sent: false,
            attempts,
        }
    }
}

/// What failed, and at which addresses; what says most comes first.
fn told(attempts: &[ConnectError]) -> String {
    let mut sorted: Vec<&ConnectError> = attempts.iter().collect();
    sorted.sort_by_key(|error| rank(error.failure));
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for error in sorted {
        let place = match &error.address {
            Some(address) => address.to_string(),
            None => error.door.to_string(),
        };
        match reasons
            .iter_mut()
            .find(|(reason, _)| *reason == error.message)
        {
            Some((_, places)) => places.push(place),
            None => reasons.push((&error.message, vec![place])),
        }
    }
    let each = reasons.iter();
    let each = each.map(|(reason, places)| format!("{reason} ({})", places.join(", ")));
    each.collect::<Vec<String>>().join("; ")
}

/// Which of several failures says most about the machine that was asked: answers before silence.
fn rank(failure: ConnectFailure) -> u8 {
    match failure {
        ConnectFailure::NotAdmitted => 0,
        ConnectFailure::Busy => 1,
        ConnectFailure::WrongKey => 2,
        ConnectFailure::Unanswered => 3,
        ConnectFailure::Refused => 4,
        ConnectFailure::Broke => 5,
        ConnectFailure::Silent => 6,
        ConnectFailure::NoRoute => 7,
        ConnectFailure::NoAddress => 8,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::doors::DoorKind;

    #[test]
    fn each_reason_is_told_once_and_what_says_most_first() {
        let failed = |failure, address: &str, message: &str| {
            let address: Address = address.parse().unwrap();
            ConnectError {
                failure,
                door: DoorKind::of(&address),
                address: Some(address),
                message: message.to_owned(),
            }
        };
        let error = SendError::unconnected(
            NodeId([7; 32]),
            vec![
                failed(
                    ConnectFailure::Silent,
                    "quic://192.0.2.1:1",
                    "nothing came back",
                ),
                failed(
                    ConnectFailure::Refused,
                    "http://192.0.2.1:1",
                    "nobody listens",
                ),
                failed(
                    ConnectFailure::Refused,
                    "http://192.0.2.2:1",
                    "nobody listens",
                ),
            ],
        );
        assert_eq!(
            error.to_string(),
            "nobody listens (http://192.0.2.1:1, http://192.0.2.2:1); nothing came back (quic://192.0.2.1:1)"
        );
        assert_eq!(error.code(), "peer_process_down");
        let nowhere = SendError::unconnected(NodeId([7; 32]), Vec::new());
        assert!(nowhere.to_string().contains("no address"));
    }
}
