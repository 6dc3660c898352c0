//! Several ways to one node, of which the first that works is taken (after "Happy Eyeballs", RFC 8305): the next is tried
//! when the last one failed, or has not worked for a quarter of a second. A way works when the node at its end has proved
//! who it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hearth_protocol::household::NodeId;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::attempt::Attempt;
use super::open::{Asker, Opened, open};
use crate::doors::{ConnectError, ConnectFailure, DoorKind};

/// How long a way is tried alone (RFC 8305, section 5: 250 ms).
const HEAD_START: Duration = Duration::from_millis(250);
/// How long the other ways have when one of them was refused: the machine is there and its node most likely is not, and
/// a door that hears of refusals only by silence would be waited for in vain.
const AFTER_REFUSAL: Duration = Duration::from_millis(500);

/// The way that worked.
pub(super) struct Won {
    pub attempt: usize,
    pub opened: Opened,
}

/// Tries `attempts` until one works or `deadline` comes. What failed is added to `failures`.
pub(super) async fn race(
    asker: &Asker,
    node: NodeId,
    attempts: &[Attempt],
    deadline: Instant,
    failures: &mut Vec<ConnectError>,
) -> Option<Won> {
    let mut running = Running {
        asker,
        node,
        attempts,
        tasks: JoinSet::new(),
        started: Vec::new(),
    };
    running.start_next();
    let mut head_start = Instant::now() + HEAD_START;
    let mut until = deadline;
    loop {
        let has_more = running.started.len() < attempts.len();
        let ended = tokio::select! {
            ended = timeout_at(until, running.tasks.join_next_with_id()) => ended,
            () = sleep_until(head_start), if has_more => {
                running.start_next();
                head_start = Instant::now() + HEAD_START;
                continue;
            }
        };
        match ended {
            Ok(Some(Ok((_, (attempt, Ok(opened)))))) => {
                return Some(Won { attempt, opened });
            }
            Ok(Some(Ok((_, (attempt, Err(error)))))) => {
                running.started[attempt].ended = true;
                if error.failure == ConnectFailure::Refused {
                    until = until.min(Instant::now() + AFTER_REFUSAL);
                }
                failures.push(error);
            }
            // Another attempt has taken its place, or it panicked.
            Ok(Some(Err(error))) => {
                let mut started = running.started.iter();
                let attempt = started.position(|it| it.handle.id() == error.id());
                if let Some(attempt) = attempt.filter(|_| error.is_panic()) {
                    running.started[attempt].ended = true;
                    let words = "the door failed; please report it with the log";
                    failures.push(attempts[attempt].failed(ConnectFailure::Broke, words));
                }
                if !running.tasks.is_empty() {
                    continue;
                }
            }
            Ok(None) => return None,
            // Somebody took the connection, and may be slow.
            Err(_) if until < deadline && running.is_connected() => {
                until = deadline;
                continue;
            }
            Err(_) => {
                let begun = attempts.iter().zip(&running.started);
                let late = begun.filter(|(_, started)| !started.ended);
                failures.extend(
                    late.map(|(attempt, started)| attempt.too_late(started.is_connected())),
                );
                return None;
            }
        }
        running.start_next();
        head_start = Instant::now() + HEAD_START;
    }
}

type Ended = (usize, Result<Opened, ConnectError>);

/// The attempts that were started. All end with it.
struct Running<'a> {
    asker: &'a Asker,
    node: NodeId,
    attempts: &'a [Attempt],
    tasks: JoinSet<Ended>,
    /// In their order.
    started: Vec<Started>,
}

struct Started {
    handle: AbortHandle,
    connected: Arc<AtomicBool>,
    ended: bool,
}

impl Started {
    fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }
}

impl Running<'_> {
    /// Whether one has a connection whose other end is to prove itself.
    fn is_connected(&self) -> bool {
        let mut started = self.started.iter();
        started.any(|it| !it.ended && it.is_connected())
    }

    fn start_next(&mut self) {
        let index = self.started.len();
        let Some(attempt) = self.attempts.get(index) else {
            return;
        };
        if attempt.kind == DoorKind::Relay {
            // It tries the direct addresses too, and a door dials a node once at a time.
            for (earlier, started) in self.attempts.iter().zip(&mut self.started) {
                if earlier.kind == DoorKind::Quic && !started.ended {
                    started.handle.abort();
                    started.ended = true;
                }
            }
        }
        let (asker, node, attempt) = (self.asker.clone(), self.node, attempt.clone());
        let connected = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&connected);
        let handle = self
            .tasks
            .spawn(async move { (index, open(&asker, node, &attempt, &tell).await) });
        self.started.push(Started {
            handle,
            connected,
            ended: false,
        });
    }
}
