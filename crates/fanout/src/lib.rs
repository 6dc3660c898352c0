//! The state log: small facts that the hub tells every node, in order, without gap or repeat.
//!
//! The hub's [`Log`] leads: events are appended to it. A follower's log is the same type over the same tables, filled
//! with the hub's events under the hub's cursors, so that others may follow it in turn. The state is the newest event of
//! each thing (`state`), and is written with the events and their cursor in one transaction: what is applied, and how
//! far, can never disagree.
//!
//! The table is the truth. Subscribers hold a place and take what comes after it, from a window of encoded events in
//! memory or, if they are further back, from the table; nothing is queued for anybody. So 10,000 subscribers cost one
//! encoding, and one that is slow costs nothing but its connection, which is cut when the window has gone past it.
//!
//! A cursor is the id of one event, and a log goes on after a cursor only if it has exactly that event. Each process
//! writes its events under a random epoch of its own, and takes another one if the last event it wrote is gone. So a log
//! that was restored from an old copy, or that lost its end, never takes another one's history for its own, even when its
//! offsets have grown past the subscriber's.
//!
//! What this crate refuses: HTTP, knowledge of keys and signatures (who follows checks a record's seal before it is
//! stored), and clocks: [`Follower`] is given the time.

mod bounds;
mod error;
mod follower;
mod log;
mod memory;
mod postgres;
mod sqlite;
pub mod sse;
mod state;
mod storage;
mod subscription;
mod window;
mod writer;

pub use crate::bounds::Bounds;
pub use crate::error::Error;
pub use crate::follower::{Follower, Next, Received, SILENCE, Trouble};
pub use crate::log::{Log, Options};
pub use crate::memory::Memory;
pub use crate::postgres::TABLES as POSTGRES_TABLES;
pub use crate::sqlite::TABLES as SQLITE_TABLES;
pub use crate::state::EVENT_LIMIT;
pub use crate::storage::Storage;
pub use crate::subscription::{Cut, Subscription};
pub use crate::window::Frame;

use hearth_protocol::event::{Cursor, StateEvent};

/// An event with its place in the log, as a follower stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub cursor: Cursor,
    /// What it says.
    pub event: StateEvent,
}
