//! Why a log could not do what was asked.

use hearth_protocol::event::{Refusal, Unreadable};
use hearth_store::{sqlite, sqlx};

/// Why a log could not do what was asked. Nothing was changed then, unless PostgreSQL was lost in the middle of a commit.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cursor is none to go on after.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Something as new or newer is known of this thing already: another hub was quicker, so look again.
    #[error(
        "{kind} {key} has a version of {version} or newer already; read the state and decide again"
    )]
    Stale {
        /// Kind of the event.
        kind: &'static str,
        /// The thing it is about.
        key: String,
        /// Version of the event.
        version: u64,
    },
    /// The event does not say which thing it is about, or in which version.
    #[error("{kind} event without sense: {reason}")]
    Unusable {
        /// Kind of the event.
        kind: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The event is larger than [`crate::EVENT_LIMIT`].
    #[error(
        "an event of {bytes} bytes; the log takes at most {}",
        crate::EVENT_LIMIT
    )]
    TooLarge {
        /// Bytes of its JSON.
        bytes: usize,
    },
    /// Written to as if it led.
    #[error("this log follows a hub; write to the hub")]
    Follows,
    /// Filled as if it followed.
    #[error("this log is the hub's own, which follows nobody")]
    Leads,
    /// The entry is not the one after the log's last.
    #[error("an event with offset {got} where {wanted} comes next")]
    Gap {
        /// Offset that comes next.
        wanted: u64,
        /// Offset of the entry.
        got: u64,
    },
    /// What is stored was written by a newer Hearth, or is damaged.
    #[error("the stored log cannot be read: {0}")]
    Stored(#[from] Unreadable),
    /// SQLite failed.
    #[error("the log's database fails: {0}")]
    Sqlite(#[from] sqlite::Error),
    /// PostgreSQL failed. If the connection broke during the commit, nobody knows whether it was done: who appends again
    /// is told [`Error::Stale`] if it was.
    #[error("the log's database fails: {0}")]
    Postgres(#[from] sqlx::Error),
    /// The runtime is going down.
    #[error("shutting down")]
    ShuttingDown,
}
