//! The ways to a node: which door is tried with which of its addresses, and in which order.

use std::sync::Arc;

use hearth_protocol::household::Address;

use crate::doors::{ConnectError, ConnectFailure, Door, DoorKind};

/// One way: a door with addresses for it.
#[derive(Clone)]
pub(super) struct Attempt {
    pub kind: DoorKind,
    pub door: Arc<dyn Door>,
    pub addresses: Vec<Address>,
}

impl Attempt {
    /// Whether a connection to `address` by this kind of door is what this attempt would make.
    pub fn makes(&self, kind: DoorKind, address: &Address) -> bool {
        self.kind == kind && (kind != DoorKind::Http || self.addresses.contains(address))
    }

    /// What became of it when the time was over.
    pub fn too_late(&self, connected: bool) -> ConnectError {
        match connected {
            true => self.failed(
                ConnectFailure::Unanswered,
                "it did not say who it is in the time there was",
            ),
            false => self.failed(
                ConnectFailure::Silent,
                "nothing came back in the time there was",
            ),
        }
    }

    pub fn failed(&self, failure: ConnectFailure, message: &str) -> ConnectError {
        ConnectError {
            failure,
            door: self.kind,
            address: self.addresses.first().cloned(),
            message: message.to_owned(),
        }
    }
}

/// The ways that there are, in the order in which they are tried.
pub(super) fn attempts(
    doors: &[Arc<dyn Door>],
    order: &[DoorKind],
    addresses: &[Address],
    preferred: Option<&Address>,
) -> Vec<Attempt> {
    let of = |kind: DoorKind| {
        let own = addresses.iter().filter(move |a| DoorKind::of(a) == kind);
        own.cloned().collect::<Vec<Address>>()
    };
    let mut all = Vec::new();
    for &kind in order {
        let Some(door) = doors.iter().find(|door| door.kinds().contains(&kind)) else {
            continue;
        };
        let attempt = |addresses| Attempt {
            kind,
            door: Arc::clone(door),
            addresses,
        };
        match kind {
            DoorKind::Http => {
                all.extend(of(kind).into_iter().map(|address| attempt(vec![address])))
            }
            DoorKind::Quic => {
                let own = of(kind);
                if !own.is_empty() || door.finds_nodes() {
                    all.push(attempt(own));
                }
            }
            // With the direct addresses, as iroh goes over to one of them when it can.
            DoorKind::Relay => {
                let mut relays = of(kind);
                if !relays.is_empty() {
                    relays.extend(of(DoorKind::Quic));
                    all.push(attempt(relays));
                }
            }
        }
    }
    if let Some(address) = preferred
        && let Some(index) = all
            .iter()
            .position(|attempt| attempt.makes(DoorKind::of(address), address))
    {
        all[..=index].rotate_right(1);
    }
    all
}
