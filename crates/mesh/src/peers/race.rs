//! Several ways to one node, of which the first that works is taken (after "Happy Eyeballs", RFC 8305): the next is tried
//! when the last one failed, or has not worked for a quarter of a second.

use std::sync::Arc;
use std::time::Duration;

use hearth_protocol::household::{Address, NodeId};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::doors::{ConnectError, ConnectFailure, Connection, Door, DoorKind};

/// How long a way is tried alone (RFC 8305, section 5: 250 ms).
const HEAD_START: Duration = Duration::from_millis(250);
/// How long the other ways have when one of them was refused: the machine is there and its node most likely is not, and
/// a door that hears of refusals only by silence would be waited for in vain.
const AFTER_REFUSAL: Duration = Duration::from_millis(500);

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

    fn failed(&self, failure: ConnectFailure, message: &str) -> ConnectError {
        ConnectError {
            failure,
            door: self.kind,
            address: self.addresses.first().cloned(),
            message: message.to_owned(),
        }
    }
}

/// The way that worked.
pub(super) struct Won {
    pub attempt: usize,
    pub connection: Connection,
    pub took: Duration,
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

/// Tries `attempts` until one works or `deadline` comes. What failed is added to `failures`.
pub(super) async fn race(
    node: NodeId,
    attempts: &[Attempt],
    mut deadline: Instant,
    failures: &mut Vec<ConnectError>,
) -> Option<Won> {
    let mut running = Running {
        node,
        attempts,
        tasks: JoinSet::new(),
        handles: Vec::new(),
        ended: vec![false; attempts.len()],
    };
    running.start_next();
    let mut head_start = Instant::now() + HEAD_START;
    loop {
        let has_more = running.handles.len() < attempts.len();
        let ended = tokio::select! {
            ended = timeout_at(deadline, running.tasks.join_next_with_id()) => ended,
            () = sleep_until(head_start), if has_more => {
                running.start_next();
                head_start = Instant::now() + HEAD_START;
                continue;
            }
        };
        match ended {
            Ok(Some(Ok((_, (attempt, Ok((connection, took))))))) => {
                return Some(Won {
                    attempt,
                    connection,
                    took,
                });
            }
            Ok(Some(Ok((_, (attempt, Err(error)))))) => {
                running.ended[attempt] = true;
                if error.failure == ConnectFailure::Refused {
                    deadline = deadline.min(Instant::now() + AFTER_REFUSAL);
                }
                failures.push(error);
            }
            // Another attempt has taken its place, or it panicked.
            Ok(Some(Err(error))) => {
                let attempt = running
                    .handles
                    .iter()
                    .position(|handle| handle.id() == error.id());
                if let Some(attempt) = attempt.filter(|_| error.is_panic()) {
                    running.ended[attempt] = true;
                    let words = "the door failed; please report it with the log";
                    failures.push(attempts[attempt].failed(ConnectFailure::Broke, words));
                }
                if !running.tasks.is_empty() {
                    continue;
                }
            }
            Ok(None) => return None,
            Err(_) => {
                let words = "nothing came back in the time there was";
                let begun = attempts
                    .iter()
                    .zip(&running.ended)
                    .take(running.handles.len());
                let silent = begun.filter(|(_, ended)| !**ended);
                failures.extend(
                    silent.map(|(attempt, _)| attempt.failed(ConnectFailure::Silent, words)),
                );
                return None;
            }
        }
        running.start_next();
        head_start = Instant::now() + HEAD_START;
    }
}

type Ended = (usize, Result<(Connection, Duration), ConnectError>);

/// The attempts that were started. All end with it.
struct Running<'a> {
    node: NodeId,
    attempts: &'a [Attempt],
    tasks: JoinSet<Ended>,
    /// Of every attempt that was started, in order.
    handles: Vec<AbortHandle>,
    ended: Vec<bool>,
}

impl Running<'_> {
    fn start_next(&mut self) {
        let index = self.handles.len();
        let Some(attempt) = self.attempts.get(index) else {
            return;
        };
        if attempt.kind == DoorKind::Relay {
            // It tries the direct addresses too, and a door dials a node once at a time.
            for earlier in 0..index {
                if self.attempts[earlier].kind == DoorKind::Quic && !self.ended[earlier] {
                    self.handles[earlier].abort();
                    self.ended[earlier] = true;
                }
            }
        }
        let (node, attempt) = (self.node, attempt.clone());
        self.handles.push(self.tasks.spawn(async move {
            let began = Instant::now();
            let connected = attempt.door.connect(node, &attempt.addresses).await;
            (
                index,
                connected.map(|connection| (connection, began.elapsed())),
            )
        }));
    }
}
