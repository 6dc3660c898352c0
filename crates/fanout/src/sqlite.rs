//! The log's tables in SQLite.

use hearth_protocol::event::{Cursor, Snapshot, StateEvent};
use hearth_store::Migration;
use hearth_store::sqlite::{self, OptionalExtension, Transaction, params};

use crate::bounds::{Bounds, Page, cursor};
use crate::state::Row;
use crate::window::Frame;
use crate::writer::Writer;
use crate::{Error, sse};

/// The tables, for [`hearth_store::Store::open`].
pub const TABLES: Migration = Migration {
    name: "state log",
    sql: "
        -- Epochs are random 64 bits, kept as signed numbers.
        CREATE TABLE fanout_log (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            begin_epoch INTEGER NOT NULL,
            begin_place INTEGER NOT NULL,
            end_epoch INTEGER NOT NULL,
            end_place INTEGER NOT NULL
        ) STRICT;
        INSERT INTO fanout_log VALUES (1, 0, 0, 0, 0);

        CREATE TABLE fanout_event (
            place INTEGER PRIMARY KEY,
            epoch INTEGER NOT NULL,
            kind TEXT NOT NULL,
            body TEXT NOT NULL
        ) STRICT;

        -- The newest event of each thing.
        CREATE TABLE fanout_state (
            kind TEXT NOT NULL,
            key TEXT NOT NULL,
            version INTEGER NOT NULL,
            body TEXT NOT NULL,
            PRIMARY KEY (kind, key)
        ) STRICT, WITHOUT ROWID;
    ",
};

pub(crate) fn append(
    tx: &Transaction<'_>,
    rows: &[Row],
    writer: &Writer,
    ring: u64,
) -> Result<Cursor, Error> {
    let bounds = bounds(tx)?;
    let kept = match writer.last() {
        Some(last) => epoch_at(tx, last.offset)?,
        None => None,
    };
    let epoch = writer.epoch(bounds, kept);
    let mut end = bounds.end;
    for row in rows {
        if !put(tx, row)? {
            return Err(row.stale());
        }
        end = Cursor {
            epoch,
            offset: end.offset + 1,
        };
        add(tx, end, row)?;
    }
    set_end(tx, bounds, end, ring)?;
    writer.wrote(end);
    Ok(end)
}

pub(crate) fn extend(
    tx: &Transaction<'_>,
    entries: &[(Cursor, Row)],
    ring: u64,
) -> Result<(), Error> {
    let bounds = bounds(tx)?;
    bounds.joined(entries)?;
    for (cursor, row) in entries {
        put(tx, row)?;
        add(tx, *cursor, row)?;
    }
    let end = entries.last().map_or(bounds.end, |(cursor, _)| *cursor);
    Ok(set_end(tx, bounds, end, ring)?)
}

pub(crate) fn replace(tx: &Transaction<'_>, cursor: Cursor, rows: &[Row]) -> Result<(), Error> {
    tx.execute("DELETE FROM fanout_event", [])?;
    tx.execute("DELETE FROM fanout_state", [])?;
    for row in rows {
        put(tx, row)?;
    }
    let (epoch, offset) = (cursor.epoch.cast_signed(), cursor.offset.cast_signed());
    tx.execute(
        "UPDATE fanout_log SET begin_epoch = ?1, begin_place = ?2, end_epoch = ?1, end_place = ?2",
        [epoch, offset],
    )?;
    Ok(())
}

pub(crate) fn after(tx: &Transaction<'_>, cursor: Cursor, limit: usize) -> Result<Page, Error> {
    let bounds = bounds(tx)?;
    if let Err(reason) = bounds.check(cursor, epoch_at(tx, cursor.offset)?) {
        return Ok(Err((reason, bounds)));
    }
    let mut events = tx.prepare_cached(
        "SELECT epoch, place, kind, body FROM fanout_event WHERE place > ?1 ORDER BY place LIMIT ?2",
    )?;
    let frames = events.query_map(params![cursor.offset.cast_signed(), limit as i64], |row| {
        let cursor = self::cursor(row.get(0)?, row.get(1)?);
        let (kind, body) = (row.get_ref(2)?.as_str()?, row.get_ref(3)?.as_str()?);
        Ok(Frame {
            cursor,
            bytes: sse::event(cursor, kind, body),
        })
    })?;
    Ok(Ok(frames.collect::<sqlite::Result<_>>()?))
}

pub(crate) fn bounds(tx: &Transaction<'_>) -> sqlite::Result<Bounds> {
    tx.prepare_cached("SELECT begin_epoch, begin_place, end_epoch, end_place FROM fanout_log")?
        .query_row([], |row| {
            Ok(Bounds {
                begin: cursor(row.get(0)?, row.get(1)?),
                end: cursor(row.get(2)?, row.get(3)?),
            })
        })
}

pub(crate) fn snapshot(tx: &Transaction<'_>) -> Result<Snapshot, Error> {
    let cursor = bounds(tx)?.end;
    let mut rows = tx.prepare_cached("SELECT body FROM fanout_state")?;
    let mut rows = rows.query([])?;
    let mut state = Vec::new();
    while let Some(row) = rows.next()? {
        let body = row.get_ref(0)?.as_str().map_err(sqlite::Error::from)?;
        state.push(StateEvent::parse(body)?);
    }
    Ok(Snapshot { cursor, state })
}

/// The epoch of the event at an offset, if it is kept.
fn epoch_at(tx: &Transaction<'_>, offset: u64) -> sqlite::Result<Option<u64>> {
    tx.prepare_cached("SELECT epoch FROM fanout_event WHERE place = ?1")?
        .query_row([offset.cast_signed()], |row| row.get(0))
        .optional()
        .map(|epoch: Option<i64>| epoch.map(i64::cast_unsigned))
}

/// Whether it was newer than what was there.
fn put(tx: &Transaction<'_>, row: &Row) -> sqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "INSERT INTO fanout_state VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (kind, key) DO UPDATE SET version = excluded.version, body = excluded.body
             WHERE excluded.version > version",
        )?
        .execute(params![
            row.kind,
            row.place.key,
            row.place.version.cast_signed(),
            row.body
        ])?;
    Ok(changed > 0)
}

fn add(tx: &Transaction<'_>, cursor: Cursor, row: &Row) -> sqlite::Result<()> {
    tx.prepare_cached("INSERT INTO fanout_event VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            cursor.offset.cast_signed(),
            cursor.epoch.cast_signed(),
            row.kind,
            row.body
        ])?;
    Ok(())
}

/// Notes the log's end, and deletes what is more than the ring.
fn set_end(tx: &Transaction<'_>, bounds: Bounds, end: Cursor, ring: u64) -> sqlite::Result<()> {
    let mut begin = bounds.begin;
    if let Some(offset) = bounds.surplus(end, ring) {
        let epoch = epoch_at(tx, offset)?.ok_or(sqlite::Error::QueryReturnedNoRows)?;
        begin = Cursor { epoch, offset };
        tx.prepare_cached("DELETE FROM fanout_event WHERE place <= ?1")?
            .execute([offset.cast_signed()])?;
    }
    tx.prepare_cached(
        "UPDATE fanout_log SET begin_epoch = ?1, begin_place = ?2, end_epoch = ?3, end_place = ?4",
    )?
    .execute([
        begin.epoch.cast_signed(),
        begin.offset.cast_signed(),
        end.epoch.cast_signed(),
        end.offset.cast_signed(),
    ])?;
    Ok(())
}
