//! The last events of a log, encoded once for all subscribers.

use std::collections::VecDeque;

use bytes::Bytes;
use hearth_protocol::event::Cursor;

/// An event as it goes out. Cheap to clone: all subscribers share the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its id.
    pub cursor: Cursor,
    /// The event in the event stream format ([`crate::sse`]).
    pub bytes: Bytes,
}

/// Frames without gap from the one after `base` to the log's last.
#[derive(Debug)]
pub(crate) struct Window {
    base: Cursor,
    frames: VecDeque<Frame>,
    capacity: usize,
    /// Counts how often the log was replaced by another one.
    pub generation: u64,
}

/// What a window has for a subscriber.
#[derive(Debug)]
pub(crate) enum Here {
    Next(Frame),
    /// Nothing yet. The table may know more for a moment.
    UpToDate,
    /// The subscriber's event is not in the window.
    Elsewhere,
}

impl Window {
    pub fn new(head: Cursor, capacity: usize) -> Self {
        Self {
            base: head,
            frames: VecDeque::new(),
            capacity,
            generation: 0,
        }
    }

    pub fn head(&self) -> Cursor {
        self.frames.back().map_or(self.base, |frame| frame.cursor)
    }

    /// Adds the frame after the last.
    pub fn push(&mut self, frame: Frame) {
        self.frames.push_back(frame);
        if self.frames.len() > self.capacity
            && let Some(oldest) = self.frames.pop_front()
        {
            self.base = oldest.cursor;
        }
    }

    /// Starts again after `head`: the log has another history now.
    pub fn replace(&mut self, head: Cursor) {
        self.base = head;
        self.frames.clear();
        self.generation += 1;
    }

    /// What comes after the event `cursor`.
    pub fn after(&self, cursor: Cursor) -> Here {
        if cursor.offset > self.head().offset {
            return Here::UpToDate;
        }
        let Some(at) = cursor.offset.checked_sub(self.base.offset) else {
            return Here::Elsewhere;
        };
        let at = at as usize;
        let same = match at.checked_sub(1) {
            None => self.base == cursor,
            Some(at) => self
                .frames
                .get(at)
                .is_some_and(|frame| frame.cursor == cursor),
        };
        if !same {
            return Here::Elsewhere;
        }
        match self.frames.get(at) {
            Some(frame) => Here::Next(frame.clone()),
            None => Here::UpToDate,
        }
    }
}
