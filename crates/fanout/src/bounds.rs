//! Between which cursors a log goes, and what it says to who asks beyond them.

use hearth_protocol::event::{Cursor, Reason};

use crate::Error;
use crate::state::Row;
use crate::window::Frame;

/// Between which cursors a log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// The oldest cursor that it goes on after: the last event that it no longer has.
    pub begin: Cursor,
    /// Its last event.
    pub end: Cursor,
}

impl Bounds {
    /// Whether the log goes on after `cursor`, if the event it keeps at that offset has the epoch `kept`.
    pub(crate) fn check(self, cursor: Cursor, kept: Option<u64>) -> Result<(), Reason> {
        if cursor == self.begin {
            return Ok(());
        }
        if cursor.offset > self.end.offset {
            return Err(Reason::Ahead);
        }
        if cursor.offset < self.begin.offset {
            return Err(Reason::Behind);
        }
        if kept == Some(cursor.epoch) {
            Ok(())
        } else {
            Err(Reason::OtherEpoch)
        }
    }

    /// The offset up to which events go, so that a ring of `ring` is left of those up to `end`.
    pub(crate) fn surplus(self, end: Cursor, ring: u64) -> Option<u64> {
        let last = end.offset.saturating_sub(ring);
        (last > self.begin.offset).then_some(last)
    }

    /// Whether `entries` follow each other from the log's end on.
    pub(crate) fn joined(self, entries: &[(Cursor, Row)]) -> Result<(), Error> {
        for (wanted, (cursor, _)) in (self.end.offset + 1..).zip(entries) {
            if cursor.offset != wanted {
                return Err(Error::Gap {
                    wanted,
                    got: cursor.offset,
                });
            }
        }
        Ok(())
    }
}

/// Events after a cursor, or why there are none to be had.
pub(crate) type Page = Result<Vec<Frame>, (Reason, Bounds)>;

/// What a column of a database holds as a signed number.
pub(crate) fn cursor(epoch: i64, offset: i64) -> Cursor {
    Cursor {
        epoch: epoch.cast_unsigned(),
        offset: offset.cast_unsigned(),
    }
}
