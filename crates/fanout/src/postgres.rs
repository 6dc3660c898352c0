//! The log's tables in PostgreSQL, which several hubs share.
//!
//! Who appends locks the one row of `fanout_log` until its commit. So offsets have no gaps and become visible in their
//! order, and a reader that goes by offsets skips nothing. Everything that is read together is read by one statement,
//! which sees one moment.

use hearth_protocol::event::{Cursor, Snapshot, StateEvent};
use hearth_store::sqlx::postgres::PgListener;
use hearth_store::sqlx::{self, PgTransaction, Row as _, query, query_as};
use hearth_store::{Migration, Postgres};

use crate::bounds::{Bounds, Page, cursor};
use crate::state::Row;
use crate::window::Frame;
use crate::writer::Writer;
use crate::{Error, sse};

/// The tables, for [`hearth_store::Postgres::open`].
pub const TABLES: Migration = Migration {
    name: "state log",
    sql: "
        -- Epochs are random 64 bits, kept as signed numbers.
        CREATE TABLE fanout_log (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            begin_epoch BIGINT NOT NULL,
            begin_place BIGINT NOT NULL,
            end_epoch BIGINT NOT NULL,
            end_place BIGINT NOT NULL
        );
        INSERT INTO fanout_log VALUES (1, 0, 0, 0, 0);

        CREATE TABLE fanout_event (
            place BIGINT PRIMARY KEY,
            epoch BIGINT NOT NULL,
            kind TEXT NOT NULL,
            body TEXT NOT NULL
        );

        -- The newest event of each thing.
        CREATE TABLE fanout_state (
            kind TEXT NOT NULL,
            key TEXT NOT NULL,
            version BIGINT NOT NULL,
            body TEXT NOT NULL,
            PRIMARY KEY (kind, key)
        );
    ",
};

/// Says to the other hubs that something was written. It carries nothing: the table is the truth.
const CHANNEL: &str = "hearth_fanout";
/// Rows sent in one statement.
const BATCH: usize = 1000;

type Corners = (i64, i64, i64, i64);

pub(crate) async fn append(
    tx: &mut PgTransaction<'_>,
    rows: &[Row],
    writer: &Writer,
    ring: u64,
) -> Result<Cursor, Error> {
    let bounds = lock(tx).await?;
    let kept = match writer.last() {
        Some(last) => epoch_at(tx, last.offset).await?,
        None => None,
    };
    let epoch = writer.epoch(bounds, kept);
    let mut end = bounds.end;
    for row in rows {
        if put(tx, std::slice::from_ref(row)).await? == 0 {
            return Err(row.stale());
        }
        end = Cursor {
            epoch,
            offset: end.offset + 1,
        };
        add(tx, end, row).await?;
    }
    set_end(tx, bounds, end, ring).await?;
    writer.wrote(end);
    Ok(end)
}

pub(crate) async fn extend(
    tx: &mut PgTransaction<'_>,
    entries: &[(Cursor, Row)],
    ring: u64,
) -> Result<(), Error> {
    let bounds = lock(tx).await?;
    bounds.joined(entries)?;
    for (cursor, row) in entries {
        put(tx, std::slice::from_ref(row)).await?;
        add(tx, *cursor, row).await?;
    }
    let end = entries.last().map_or(bounds.end, |(cursor, _)| *cursor);
    set_end(tx, bounds, end, ring).await
}

pub(crate) async fn replace(
    tx: &mut PgTransaction<'_>,
    cursor: Cursor,
    rows: &[Row],
) -> Result<(), Error> {
    lock(tx).await?;
    query("DELETE FROM fanout_event").execute(&mut **tx).await?;
    query("DELETE FROM fanout_state").execute(&mut **tx).await?;
    for rows in rows.chunks(BATCH) {
        put(tx, rows).await?;
    }
    let bounds = Bounds {
        begin: cursor,
        end: cursor,
    };
    set_end(tx, bounds, cursor, u64::MAX).await
}

pub(crate) async fn after(
    database: &Postgres,
    cursor: Cursor,
    limit: usize,
) -> Result<Page, Error> {
    let rows = query(
        "SELECT begin_epoch, begin_place, end_epoch, end_place,
                (SELECT epoch FROM fanout_event WHERE place = $1) AS kept, epoch, place, kind, body
         FROM fanout_log LEFT JOIN fanout_event ON place > $1 ORDER BY place LIMIT $2",
    )
    .bind(cursor.offset.cast_signed())
    .bind(limit.max(1) as i64)
    .fetch_all(database.pool())
    .await?;
    let mut frames = Vec::with_capacity(rows.len());
    for (at, row) in rows.iter().enumerate() {
        if at == 0 {
            let bounds = Bounds {
                begin: self::cursor(row.try_get(0)?, row.try_get(1)?),
                end: self::cursor(row.try_get(2)?, row.try_get(3)?),
            };
            let kept: Option<i64> = row.try_get(4)?;
            if let Err(reason) = bounds.check(cursor, kept.map(i64::cast_unsigned)) {
                return Ok(Err((reason, bounds)));
            }
        }
        let (Some(epoch), Some(place)) = (row.try_get(5)?, row.try_get(6)?) else {
            break;
        };
        let cursor = self::cursor(epoch, place);
        frames.push(Frame {
            cursor,
            bytes: sse::event(cursor, row.try_get(7)?, row.try_get(8)?),
        });
    }
    Ok(Ok(frames))
}

pub(crate) async fn bounds(database: &Postgres) -> Result<Bounds, Error> {
    let corners = "SELECT begin_epoch, begin_place, end_epoch, end_place FROM fanout_log";
    Ok(between(query_as(corners).fetch_one(database.pool()).await?))
}

pub(crate) async fn snapshot(database: &Postgres) -> Result<Snapshot, Error> {
    let rows =
        query("SELECT end_epoch, end_place, body FROM fanout_log LEFT JOIN fanout_state ON true")
            .fetch_all(database.pool())
            .await?;
    let mut snapshot = Snapshot::default();
    for row in &rows {
        snapshot.cursor = cursor(row.try_get(0)?, row.try_get(1)?);
        if let Some(body) = row.try_get::<Option<&str>, _>(2)? {
            snapshot.state.push(StateEvent::parse(body)?);
        }
    }
    Ok(snapshot)
}

fn between((begin_epoch, begin, end_epoch, end): Corners) -> Bounds {
    Bounds {
        begin: cursor(begin_epoch, begin),
        end: cursor(end_epoch, end),
    }
}

/// Keeps everybody else from writing until the transaction ends. A row's lock, not an advisory one: it needs no number
/// that others might use too.
async fn lock(tx: &mut PgTransaction<'_>) -> Result<Bounds, Error> {
    let corners =
        "SELECT begin_epoch, begin_place, end_epoch, end_place FROM fanout_log FOR UPDATE";
    Ok(between(query_as(corners).fetch_one(&mut **tx).await?))
}

/// The epoch of the event at an offset, if it is kept.
async fn epoch_at(tx: &mut PgTransaction<'_>, offset: u64) -> Result<Option<u64>, Error> {
    let row: Option<(i64,)> = query_as("SELECT epoch FROM fanout_event WHERE place = $1")
        .bind(offset.cast_signed())
        .fetch_optional(&mut **tx)
        .await?;
    Ok(row.map(|(epoch,)| epoch.cast_unsigned()))
}

/// How many of the rows, each of another thing, were newer than what was there.
async fn put(tx: &mut PgTransaction<'_>, rows: &[Row]) -> Result<u64, Error> {
    let kinds: Vec<&str> = rows.iter().map(|row| row.kind).collect();
    let keys: Vec<&str> = rows.iter().map(|row| row.place.key.as_str()).collect();
    let versions: Vec<i64> = rows
        .iter()
        .map(|row| row.place.version.cast_signed())
        .collect();
    let bodies: Vec<&str> = rows.iter().map(|row| row.body.as_str()).collect();
    let done = query(
        "INSERT INTO fanout_state
         SELECT * FROM UNNEST($1::TEXT[], $2::TEXT[], $3::BIGINT[], $4::TEXT[])
         ON CONFLICT (kind, key) DO UPDATE SET version = excluded.version, body = excluded.body
         WHERE excluded.version > fanout_state.version",
    )
    .bind(kinds)
    .bind(keys)
    .bind(versions)
    .bind(bodies)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}

async fn add(tx: &mut PgTransaction<'_>, cursor: Cursor, row: &Row) -> Result<(), Error> {
    query("INSERT INTO fanout_event VALUES ($1, $2, $3, $4)")
        .bind(cursor.offset.cast_signed())
        .bind(cursor.epoch.cast_signed())
        .bind(row.kind)
        .bind(&row.body)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Notes the log's end, deletes what is more than the ring, and wakes the other hubs at the commit.
async fn set_end(
    tx: &mut PgTransaction<'_>,
    bounds: Bounds,
    end: Cursor,
    ring: u64,
) -> Result<(), Error> {
    let mut begin = bounds.begin;
    if let Some(offset) = bounds.surplus(end, ring) {
        let epoch = epoch_at(tx, offset).await?;
        let epoch = epoch.ok_or(sqlx::Error::RowNotFound)?;
        begin = Cursor { epoch, offset };
        query("DELETE FROM fanout_event WHERE place <= $1")
            .bind(offset.cast_signed())
            .execute(&mut **tx)
            .await?;
    }
    query(
        "WITH moved AS (UPDATE fanout_log SET begin_epoch = $1, begin_place = $2, end_epoch = $3, end_place = $4)
         SELECT pg_notify($5, '')",
    )
    .bind(begin.epoch.cast_signed())
    .bind(begin.offset.cast_signed())
    .bind(end.epoch.cast_signed())
    .bind(end.offset.cast_signed())
    .bind(CHANNEL)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Hears of other hubs' commits.
pub(crate) struct Listener {
    database: Postgres,
    connection: Option<PgListener>,
}

impl Listener {
    pub fn new(database: Postgres) -> Self {
        Self {
            database,
            connection: None,
        }
    }

    /// Returns when another hub wrote; never while PostgreSQL is out of reach, so that who waits goes by the clock.
    pub async fn wait(&mut self) {
        if self.listen().await.is_err() {
            self.connection = None;
            std::future::pending().await
        }
    }

    async fn listen(&mut self) -> Result<(), sqlx::Error> {
        if self.connection.is_none() {
            let mut connection = PgListener::connect_with(self.database.pool()).await?;
            connection.listen(CHANNEL).await?;
            // What was written before nobody told.
            self.connection = Some(connection);
            return Ok(());
        }
        match &mut self.connection {
            // Nothing if the connection was lost: then something may have been missed as well.
            Some(connection) => connection.try_recv().await.map(drop),
            None => Ok(()),
        }
    }
}
