//! Warm connections: made before, and free for the next request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use hearth_protocol::household::{Address, NodeId};
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

use crate::doors::DoorKind;

/// How long a connection that nobody uses is kept.
pub const IDLE: Duration = Duration::from_secs(90);
/// How often connections are looked over.
const SWEEP: Duration = Duration::from_secs(15);
/// Connections to one node that are kept.
const MOST: usize = 64;

/// The client's end of an HTTP/1.1 connection.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// A connection, with where it leads.
pub(super) struct Warm {
    pub sender: Sender,
    pub door: DoorKind,
    pub address: Address,
    /// When it was last seen in use.
    pub used: Instant,
}

impl Warm {
    /// Whether nobody has used it for too long. An answer may take longer.
    fn is_old(&self) -> bool {
        self.sender.is_ready() && self.used.elapsed() >= IDLE
    }
}

#[derive(Default)]
pub(super) struct Pool {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    of: HashMap<NodeId, Vec<Warm>>,
    /// Whether somebody looks them over now and then.
    swept: bool,
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The free connection to `node` that `rank` puts first; those that it gives no rank are left alone.
    pub fn take(&self, node: &NodeId, rank: impl Fn(&Warm) -> Option<usize>) -> Option<Warm> {
        let mut state = self.state();
        let all = state.of.get_mut(node)?;
        all.retain(|warm| !warm.sender.is_closed() && !warm.is_old());
        let free = all.iter().enumerate();
        let free = free.filter(|(_, warm)| warm.sender.is_ready());
        // Of equals the one that was used last, so that the others may grow old.
        let best = free
            .filter_map(|(index, warm)| Some((rank(warm)?, std::cmp::Reverse(warm.used), index)))
            .min();
        best.map(|(_, _, index)| all.swap_remove(index))
    }

    /// Keeps a connection. It is free as soon as the answer that is on it was read to its end.
    pub fn put(self: &Arc<Self>, node: NodeId, warm: Warm) {
        let mut state = self.state();
        let all = state.of.entry(node).or_default();
        if all.len() >= MOST {
            all.retain(|warm| !warm.sender.is_closed());
        }
        // One that is not kept ends with the answer that is on it.
        if all.len() < MOST {
            all.push(warm);
        }
        if !std::mem::replace(&mut state.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Lets go of the connections by one path: it does not work any more.
    pub fn drop_path(&self, node: &NodeId, address: &Address) {
        if let Some(all) = self.state().of.get_mut(node) {
            all.retain(|warm| warm.address != *address);
        }
    }

    pub fn forget(&self, node: &NodeId) {
        self.state().of.remove(node);
    }

    /// Drops what is closed or was idle for too long. Answers whether anything is left.
    fn tidy(&self) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        state.of.retain(|_, all| {
            for warm in all.iter_mut().filter(|warm| !warm.sender.is_ready()) {
                warm.used = now;
            }
            all.retain(|warm| !warm.sender.is_closed() && !warm.is_old());
            !all.is_empty()
        });
        state.swept = !state.of.is_empty();
        state.swept
    }
}

async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        if !pool.upgrade().is_some_and(|pool| pool.tidy()) {
            break;
        }
    }
}
