//! What is known about the paths to peers: which worked, when, and how quick they are. Pure.

use std::collections::HashMap;
use std::time::Duration;

use hearth_protocol::household::{Address, NodeId};
use tokio::time::Instant;

use crate::doors::ConnectFailure;

/// For so long a path that worked is tried before those that should come first.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Addresses of one node that are remembered.
const MOST: usize = 64;

/// One path to a node, as it was last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathState {
    /// Where it leads.
    pub address: Address,
    /// Smoothed round trip.
    pub round_trip: Option<Duration>,
    /// How long ago the last connection was made.
    pub handshake: Option<Duration>,
    /// How long ago the last answer came.
    pub success: Option<Duration>,
    /// How long ago it failed last, and how.
    pub failure: Option<(Duration, ConnectFailure)>,
}

/// The paths to all peers.
#[derive(Debug, Default)]
pub(super) struct Paths {
    of: HashMap<NodeId, HashMap<Address, Path>>,
}

#[derive(Debug, Default)]
struct Path {
    round_trip: Option<Duration>,
    handshake: Option<Instant>,
    success: Option<Instant>,
    failure: Option<(Instant, ConnectFailure)>,
}

impl Path {
    fn last(&self) -> Option<Instant> {
        let failure = self.failure.map(|(at, _)| at);
        self.success.max(failure).max(self.handshake)
    }

    /// A smoothed round trip, as TCP does it (RFC 6298, section 2.3).
    fn measure(&mut self, sample: Duration) {
        let smoothed = self.round_trip.map(|known| (known * 7 + sample) / 8);
        self.round_trip = Some(smoothed.unwrap_or(sample));
    }
}

impl Paths {
    fn path(&mut self, node: NodeId, address: &Address) -> &mut Path {
        let paths = self.of.entry(node).or_default();
        if paths.len() >= MOST && !paths.contains_key(address) {
            let oldest = paths.iter().min_by_key(|(_, path)| path.last());
            if let Some(oldest) = oldest.map(|(address, _)| address.clone()) {
                paths.remove(&oldest);
            }
        }
        paths.entry(address.clone()).or_default()
    }

    /// A connection was made, in `took`.
    pub fn connected(&mut self, node: NodeId, address: &Address, took: Duration, now: Instant) {
        let path = self.path(node, address);
        path.handshake = Some(now);
        path.measure(took);
    }

    /// An answer came. `took` is how long a request took that needs no work.
    pub fn answered(
        &mut self,
        node: NodeId,
        address: &Address,
        took: Option<Duration>,
        now: Instant,
    ) {
        let path = self.path(node, address);
        path.success = Some(now);
        if let Some(took) = took {
            path.measure(took);
        }
    }

    /// It did not work.
    pub fn failed(
        &mut self,
        node: NodeId,
        address: &Address,
        failure: ConnectFailure,
        now: Instant,
    ) {
        self.path(node, address).failure = Some((now, failure));
    }

    /// The path that worked last and not long ago, unless it failed since.
    pub fn preferred(&self, node: &NodeId, now: Instant) -> Option<&Address> {
        let paths = self.of.get(node)?.iter();
        let working = paths.filter_map(|(address, path)| {
            let success = path.success?;
            let works = path.failure.is_none_or(|(at, _)| at < success);
            (works && now.duration_since(success) < REMEMBERED).then_some((success, address))
        });
        working.max().map(|(_, address)| address)
    }

    pub fn round_trip(&self, node: &NodeId, address: &Address) -> Option<Duration> {
        self.of.get(node)?.get(address)?.round_trip
    }

    pub fn states(&self, node: &NodeId, now: Instant) -> Vec<PathState> {
        let age = |at: Instant| now.duration_since(at);
        let paths = self.of.get(node).into_iter().flatten();
        let mut states: Vec<PathState> = paths
            .map(|(address, path)| PathState {
                address: address.clone(),
                round_trip: path.round_trip,
                handshake: path.handshake.map(age),
                success: path.success.map(age),
                failure: path.failure.map(|(at, failure)| (age(at), failure)),
            })
            .collect();
        states.sort_by(|one, other| one.address.cmp(&other.address));
        states
    }

    pub fn forget(&mut self, node: &NodeId) {
        self.of.remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_that_worked_last_comes_first_until_it_fails_or_is_long_ago() {
        let node = NodeId([1; 32]);
        let address = |text: &str| -> Address { text.parse().expect("an address") };
        let (http, quic) = (address("http://192.0.2.1:1"), address("quic://192.0.2.1:2"));
        let mut paths = Paths::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(paths.preferred(&node, at(0)), None);
        paths.failed(node, &quic, ConnectFailure::Silent, at(0));
        paths.answered(node, &http, None, at(1));
        assert_eq!(paths.preferred(&node, at(60)), Some(&http));
        assert_eq!(
            paths.preferred(&node, at(61)),
            None,
            "then the first door has its turn again"
        );
        paths.answered(node, &quic, None, at(2));
        assert_eq!(
            paths.preferred(&node, at(3)),
            Some(&quic),
            "a later success counts more than an earlier failure"
        );
        paths.failed(node, &quic, ConnectFailure::Broke, at(3));
        assert_eq!(paths.preferred(&node, at(3)), Some(&http));
        paths.forget(&node);
        assert_eq!(paths.states(&node, at(3)), []);
    }

    #[test]
    fn round_trips_are_smoothed_and_old_addresses_forgotten() {
        let node = NodeId([1; 32]);
        let address = |port: u16| Address::Http(([192, 0, 2, 1], port).into());
        let mut paths = Paths::default();
        let start = Instant::now();
        let milliseconds = Duration::from_millis;
        paths.connected(node, &address(0), milliseconds(8), start);
        paths.answered(node, &address(0), Some(milliseconds(16)), start);
        paths.answered(node, &address(0), None, start);
        assert_eq!(paths.round_trip(&node, &address(0)), Some(milliseconds(9)));
        for port in 1..=MOST as u16 {
            let later = start + Duration::from_secs(port.into());
            paths.failed(node, &address(port), ConnectFailure::Silent, later);
        }
        assert_eq!(
            paths.states(&node, start + Duration::from_secs(100)).len(),
            MOST
        );
        assert_eq!(paths.round_trip(&node, &address(0)), None);
    }
}
