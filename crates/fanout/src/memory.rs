//! A log kept in this process's memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hearth_protocol::event::{Cursor, Snapshot, StateEvent};

use crate::bounds::{Bounds, Page};
use crate::state::Row;
use crate::window::Frame;
use crate::writer::Writer;
use crate::{Error, sse};

/// Keeps a log in this process's memory. Clones share it, so that a log can be closed and opened again.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    tables: Arc<Mutex<Tables>>,
}

#[derive(Debug, Clone, Default)]
struct Tables {
    bounds: Bounds,
    events: VecDeque<Event>,
    /// Version and JSON of the newest event of each thing, by kind and key.
    state: BTreeMap<(&'static str, String), (u64, String)>,
}

#[derive(Debug, Clone)]
struct Event {
    cursor: Cursor,
    kind: &'static str,
    body: String,
}

impl Memory {
    /// One of its own with the same content: a backup.
    pub fn copy(&self) -> Self {
        Self {
            tables: Arc::new(Mutex::new(self.lock().clone())),
        }
    }

    /// Puts back what `backup` holds.
    pub fn restore(&self, backup: &Self) {
        let tables = backup.lock().clone();
        *self.lock() = tables;
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn append(&self, rows: &[Row], writer: &Writer, ring: u64) -> Result<Cursor, Error> {
        let mut held = self.lock();
        // Worked on as a copy if it could fail in the middle.
        let mut copy = (rows.len() > 1).then(|| held.clone());
        let tables = copy.as_mut().unwrap_or(&mut held);
        let kept = writer.last().and_then(|last| tables.epoch_at(last.offset));
        let epoch = writer.epoch(tables.bounds, kept);
        for row in rows {
            if !tables.put(row) {
                return Err(row.stale());
            }
            let offset = tables.bounds.end.offset + 1;
            tables.add(Cursor { epoch, offset }, row);
        }
        tables.trim(ring);
        let end = tables.bounds.end;
        if let Some(copy) = copy {
            *held = copy;
        }
        writer.wrote(end);
        Ok(end)
    }

    pub(crate) fn extend(&self, entries: &[(Cursor, Row)], ring: u64) -> Result<(), Error> {
        let mut tables = self.lock();
        tables.bounds.joined(entries)?;
        for (cursor, row) in entries {
            tables.put(row);
            tables.add(*cursor, row);
        }
        tables.trim(ring);
        Ok(())
    }

    pub(crate) fn replace(&self, cursor: Cursor, rows: &[Row]) {
        let mut tables = Tables {
            bounds: Bounds {
                begin: cursor,
                end: cursor,
            },
            ..Tables::default()
        };
        for row in rows {
            tables.put(row);
        }
        *self.lock() = tables;
    }

    pub(crate) fn after(&self, cursor: Cursor, limit: usize) -> Page {
        let tables = self.lock();
        let bounds = tables.bounds;
        bounds
            .check(cursor, tables.epoch_at(cursor.offset))
            .map_err(|reason| (reason, bounds))?;
        let skipped = (cursor.offset - bounds.begin.offset) as usize;
        let events = tables.events.iter().skip(skipped).take(limit);
        let frames = events.map(|event| Frame {
            cursor: event.cursor,
            bytes: sse::event(event.cursor, event.kind, &event.body),
        });
        Ok(frames.collect())
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.lock().bounds
    }

    pub(crate) fn snapshot(&self) -> Result<Snapshot, Error> {
        let tables = self.lock();
        let events = tables.state.values();
        Ok(Snapshot {
            cursor: tables.bounds.end,
            state: events
                .map(|(_, body)| StateEvent::parse(body))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl Tables {
    /// The epoch of the event at an offset, if it is kept.
    fn epoch_at(&self, offset: u64) -> Option<u64> {
        let at = offset.checked_sub(self.bounds.begin.offset + 1)?;
        Some(self.events.get(at as usize)?.cursor.epoch)
    }

    /// Whether it was newer than what was there.
    fn put(&mut self, row: &Row) -> bool {
        let place = (row.kind, row.place.key.clone());
        let version = row.place.version;
        if self.state.get(&place).is_some_and(|held| held.0 >= version) {
            return false;
        }
        self.state.insert(place, (version, row.body.clone()));
        true
    }

    fn add(&mut self, cursor: Cursor, row: &Row) {
        self.events.push_back(Event {
            cursor,
            kind: row.kind,
            body: row.body.clone(),
        });
        self.bounds.end = cursor;
    }

    fn trim(&mut self, ring: u64) {
        let Some(last) = self.bounds.surplus(self.bounds.end, ring) else {
            return;
        };
        let surplus = (last - self.bounds.begin.offset) as usize;
        if let Some(last) = self.events.drain(..surplus).next_back() {
            self.bounds.begin = last.cursor;
        }
    }
}
