//! Under which epoch a process writes, so that what it tells is never taken for what an older copy of its log told.

use std::sync::{Mutex, PoisonError};

use hearth_protocol::event::Cursor;

use crate::bounds::Bounds;

/// Under which epoch this process writes.
#[derive(Debug)]
pub(crate) struct Writer {
    inner: Mutex<(u64, Option<Cursor>)>,
}

impl Writer {
    pub fn new() -> Self {
        Self {
            inner: Mutex::new((epoch(), None)),
        }
    }

    /// The last event that this process wrote.
    pub fn last(&self) -> Option<Cursor> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// The epoch to write under in a log with these bounds, whose event at the offset of [`Self::last`] has the epoch
    /// `kept`. If the last event is not there any more, the log was put back to an older copy below this process, and what
    /// follows must not look like what others were told before. (One that fell out of the ring looks the same, and a new
    /// epoch does no harm.)
    pub fn epoch(&self, bounds: Bounds, kept: Option<u64>) -> u64 {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner
            .1
            .is_some_and(|last| bounds.check(last, kept).is_err())
        {
            *inner = (epoch(), None);
        }
        inner.0
    }

    /// Remembers what was written; if it is not committed, the next one gets another epoch.
    pub fn wrote(&self, cursor: Cursor) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.0 == cursor.epoch {
            inner.1 = inner.1.max(Some(cursor));
        }
    }
}

/// Never the one of [`Cursor::START`].
fn epoch() -> u64 {
    rand::random_range(1..=u64::MAX)
}
