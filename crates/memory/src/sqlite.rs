//! The tables of memory, and what is asked of them.
//!
//! `memory_index` counts changes (`seq`), so that every process sees what another one wrote, and numbers vectors: each
//! gets the next slot, and no slot is given twice until everything is numbered anew (`generation`).

use std::collections::HashMap;

use hearth_protocol::memory::{Change, Memory};
use hearth_store::Migration;
use hearth_store::sqlite::{self, OptionalExtension, Row, Transaction, params, params_from_iter};
use jiff::Timestamp;

/// The tables; a database that holds memories has them.
pub const TABLES: Migration = Migration {
    name: "memories",
    sql: "
        CREATE TABLE memory (
            row INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            text TEXT NOT NULL,
            kind TEXT NOT NULL,
            -- Empty: of every project.
            project TEXT NOT NULL,
            -- One to a line, sorted.
            tags TEXT NOT NULL,
            confidence REAL NOT NULL,
            pinned INTEGER NOT NULL,
            source TEXT,
            -- Milliseconds since 1970, as all times.
            written INTEGER NOT NULL,
            read INTEGER,
            reads INTEGER NOT NULL DEFAULT 0,
            superseded INTEGER,
            superseded_by INTEGER REFERENCES memory (row) ON DELETE SET NULL,
            fingerprint BLOB NOT NULL,
            -- Whether it has vectors.
            encoded INTEGER NOT NULL DEFAULT 0,
            -- The change that last touched it.
            seq INTEGER NOT NULL
        ) STRICT;
        CREATE UNIQUE INDEX memory_fingerprint ON memory (fingerprint, project) WHERE superseded IS NULL;
        CREATE INDEX memory_seq ON memory (seq);
        CREATE INDEX memory_unencoded ON memory (row) WHERE encoded = 0 AND superseded IS NULL;
        CREATE INDEX memory_written ON memory (written);
        CREATE INDEX memory_superseded_by ON memory (superseded_by);

        CREATE TABLE memory_link (
            one INTEGER NOT NULL REFERENCES memory (row) ON DELETE CASCADE,
            other INTEGER NOT NULL REFERENCES memory (row) ON DELETE CASCADE,
            PRIMARY KEY (one, other)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX memory_link_other ON memory_link (other);

        CREATE TABLE memory_vector (
            slot INTEGER PRIMARY KEY,
            -- One for each piece of the text, in slots that follow each other.
            row INTEGER NOT NULL REFERENCES memory (row) ON DELETE CASCADE,
            -- 32-bit floats, little-endian.
            vector BLOB NOT NULL
        ) STRICT;
        CREATE INDEX memory_vector_row ON memory_vector (row);

        -- Files that were imported, with the digest of what was in them.
        CREATE TABLE memory_file (
            source TEXT PRIMARY KEY,
            digest BLOB NOT NULL
        ) STRICT;

        -- Who holds a memory: files that say it, by their source, and a person, by the empty one. It is withdrawn when
        -- nobody does any more.
        CREATE TABLE memory_holder (
            row INTEGER NOT NULL REFERENCES memory (row) ON DELETE CASCADE,
            source TEXT NOT NULL,
            PRIMARY KEY (row, source)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX memory_holder_source ON memory_holder (source);

        -- Slots whose memories were forgotten, for processes that still know them.
        CREATE TABLE memory_gone (
            slot INTEGER PRIMARY KEY,
            seq INTEGER NOT NULL
        ) STRICT;

        CREATE TABLE memory_index (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            -- The encoder of the vectors.
            encoder TEXT,
            dimensions INTEGER NOT NULL,
            generation INTEGER NOT NULL,
            next_slot INTEGER NOT NULL,
            seq INTEGER NOT NULL
        ) STRICT;
        INSERT INTO memory_index VALUES (1, NULL, 0, 1, 0, 0);

        CREATE VIRTUAL TABLE memory_words USING fts5 (
            text, tags, source, content = 'memory', content_rowid = 'row',
            tokenize = 'porter unicode61 remove_diacritics 2'
        );
        -- What is forgotten leaves the lists of words at once.
        INSERT INTO memory_words (memory_words, rank) VALUES ('secure-delete', 1);
        CREATE TRIGGER memory_words_insert AFTER INSERT ON memory BEGIN
            INSERT INTO memory_words (rowid, text, tags, source) VALUES (new.row, new.text, new.tags, new.source);
        END;
        CREATE TRIGGER memory_words_delete AFTER DELETE ON memory BEGIN
            INSERT INTO memory_words (memory_words, rowid, text, tags, source)
            VALUES ('delete', old.row, old.text, old.tags, old.source);
        END;
        CREATE TRIGGER memory_words_update AFTER UPDATE OF text, tags, source ON memory BEGIN
            INSERT INTO memory_words (memory_words, rowid, text, tags, source)
            VALUES ('delete', old.row, old.text, old.tags, old.source);
            INSERT INTO memory_words (rowid, text, tags, source) VALUES (new.row, new.text, new.tags, new.source);
        END;
    ",
};

/// The holder that no file is: whoever writes, edits or pins a memory.
pub(crate) const PERSON: &str = "";
/// Lineage and links that an answer tells: not one's whole life.
const LINEAGE: usize = 20;

type Tx<'a> = Transaction<'a>;
type Result<T> = sqlite::Result<T>;

/// Whose memories may be seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Reach {
    /// This project's and those of every project; `None` is all.
    pub project: Option<String>,
    pub min_confidence: f32,
    pub kind: Option<String>,
    pub tags: Vec<String>,
}

/// The columns that [`stored`] reads.
const COLUMNS: &str = "memory.row, memory.id, memory.text, memory.kind, memory.project, memory.tags, memory.confidence, \
    memory.pinned, memory.source, memory.written, memory.read, memory.reads, memory.superseded, \
    (SELECT id FROM memory AS newer WHERE newer.row = memory.superseded_by)";

/// A memory and its row. Its lineage and links are not filled in; see [`complete`].
pub(crate) struct Stored {
    pub row: i64,
    pub memory: Memory,
}

fn stored(row: &Row<'_>) -> Result<Stored> {
    let time = |millisecond: i64| Timestamp::from_millisecond(millisecond).unwrap_or_default();
    let project: String = row.get(4)?;
    let tags: String = row.get(5)?;
    Ok(Stored {
        row: row.get(0)?,
        memory: Memory {
            id: row.get(1)?,
            text: row.get(2)?,
            kind: row.get(3)?,
            project: Some(project).filter(|project| !project.is_empty()),
            tags: tags.lines().map(ToOwned::to_owned).collect(),
            confidence: row.get::<_, f64>(6)? as f32,
            pinned: row.get(7)?,
            source: row.get(8)?,
            written: time(row.get(9)?),
            read: row.get::<_, Option<i64>>(10)?.map(time),
            reads: row.get::<_, i64>(11)?.max(0) as u64,
            superseded: row.get::<_, Option<i64>>(12)?.map(time),
            superseded_by: row.get(13)?,
            supersedes: Vec::new(),
            related: Vec::new(),
        },
    })
}

/// Fills in what a memory superseded lately, and some of what says nearly the same and can be found.
pub(crate) fn complete(tx: &Tx<'_>, stored: &mut Stored) -> Result<()> {
    complete_to(tx, stored, LINEAGE as i64, false)
}

/// Fills in all that a memory superseded, and all that says nearly the same, superseded ones too.
pub(crate) fn complete_whole(tx: &Tx<'_>, stored: &mut Stored) -> Result<()> {
    complete_to(tx, stored, i64::MAX, true)
}

/// Fills in what a memory superseded, the last that it replaced and theirs, and what says nearly the same: at most so
/// many of each, of the latter those that can be found or `all`.
fn complete_to(tx: &Tx<'_>, stored: &mut Stored, most: i64, all: bool) -> Result<()> {
    let ids = |sql: &str| -> Result<Vec<String>> {
        tx.prepare_cached(sql)?
            .query_map([stored.row, most], |row| row.get(0))?
            .collect()
    };
    let supersedes = ids(
        "WITH RECURSIVE older (row, depth) AS (
             SELECT row, 1 FROM memory WHERE superseded_by = ?1
             UNION SELECT memory.row, depth + 1 FROM memory JOIN older ON memory.superseded_by = older.row
             WHERE depth < ?2
         ) SELECT id FROM memory JOIN older USING (row) ORDER BY depth, memory.row DESC LIMIT ?2",
    )?;
    let findable = if all { "" } else { "AND superseded IS NULL" };
    let related = ids(&format!(
        "SELECT id FROM memory WHERE row IN (
             SELECT other FROM memory_link WHERE one = ?1 UNION SELECT one FROM memory_link WHERE other = ?1
         ) {findable} ORDER BY row DESC LIMIT ?2"
    ))?;
    stored.memory.supersedes = supersedes;
    stored.memory.related = related;
    Ok(())
}

/// The memory with this id.
pub(crate) fn by_id(tx: &Tx<'_>, id: &str) -> Result<Option<Stored>> {
    tx.prepare_cached(&format!("SELECT {COLUMNS} FROM memory WHERE id = ?1"))?
        .query_row([id], stored)
        .optional()
}

/// Ids that begin so, in order, at most so many.
pub(crate) fn beginning(tx: &Tx<'_>, start: &str, most: usize) -> Result<Vec<String>> {
    // What an id goes on with is below `g`.
    tx.prepare_cached(
        "SELECT id FROM memory WHERE id >= ?1 AND id < ?1 || 'g' ORDER BY id LIMIT ?2",
    )?
    .query_map(params![start, most as i64], |row| row.get(0))?
    .collect()
}

/// The memory in this row.
pub(crate) fn by_row(tx: &Tx<'_>, row: i64) -> Result<Option<Stored>> {
    tx.prepare_cached(&format!("SELECT {COLUMNS} FROM memory WHERE row = ?1"))?
        .query_row([row], stored)
        .optional()
}

/// The memory that says the same, where somebody of this project sees it.
pub(crate) fn same(
    tx: &Tx<'_>,
    fingerprint: &[u8; 32],
    project: Option<&str>,
) -> Result<Option<Stored>> {
    tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM memory WHERE fingerprint = ?1 AND project IN (?2, '') AND superseded IS NULL
         ORDER BY project DESC LIMIT 1"
    ))?
    .query_row(params![fingerprint, project.unwrap_or_default()], stored)
    .optional()
}

/// Rows of all memories that this one took the place of, and that those did.
pub(crate) fn older(tx: &Tx<'_>, row: i64) -> Result<Vec<i64>> {
    tx.prepare_cached(
        "WITH RECURSIVE older (row) AS (
             SELECT row FROM memory WHERE superseded_by = ?1
             UNION SELECT memory.row FROM memory JOIN older ON memory.superseded_by = older.row
         ) SELECT row FROM older",
    )?
    .query_map([row], |row| row.get(0))?
    .collect()
}

/// The next number of a change.
fn next_seq(tx: &Tx<'_>) -> Result<i64> {
    tx.prepare_cached("UPDATE memory_index SET seq = seq + 1 RETURNING seq")?
        .query_row([], |row| row.get(0))
}

/// Stores a memory, but for its lineage; its row, or `None` if it is there already, by its id or by what it says.
pub(crate) fn insert(tx: &Tx<'_>, memory: &Memory, fingerprint: &[u8; 32]) -> Result<Option<i64>> {
    let seq = next_seq(tx)?;
    let inserted = tx
        .prepare_cached(
            "INSERT OR IGNORE INTO memory (id, text, kind, project, tags, confidence, pinned, source, written, read,
                 reads, superseded, fingerprint, seq)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            memory.id,
            memory.text,
            memory.kind,
            memory.project.as_deref().unwrap_or_default(),
            memory.tags.join("\n"),
            f64::from(memory.confidence),
            memory.pinned,
            memory.source,
            memory.written.as_millisecond(),
            memory.read.map(|time| time.as_millisecond()),
            memory.reads.min(i64::MAX as u64) as i64,
            memory.superseded.map(|time| time.as_millisecond()),
            fingerprint,
            seq,
        ])?;
    Ok((inserted > 0).then(|| tx.last_insert_rowid()))
}

/// Gives a memory its vectors. Another process may have begun vectors of another encoder: then it gets none.
pub(crate) fn insert_vectors(
    tx: &Tx<'_>,
    row: i64,
    encoder: &str,
    vectors: &[Vec<f32>],
) -> Result<()> {
    let slot: Option<i64> = tx
        .prepare_cached(
            "UPDATE memory_index SET next_slot = next_slot + ?2 WHERE encoder = ?1 RETURNING next_slot - ?2",
        )?
        .query_row(params![encoder, vectors.len() as i64], |row| row.get(0))
        .optional()?;
    let Some(slot) = slot else {
        return Ok(());
    };
    let mut insert =
        tx.prepare_cached("INSERT INTO memory_vector (slot, row, vector) VALUES (?1, ?2, ?3)")?;
    for (slot, vector) in (slot..).zip(vectors) {
        let values = vector.iter();
        let bytes: Vec<u8> = values.flat_map(|value| value.to_le_bytes()).collect();
        insert.execute(params![slot, row, bytes])?;
    }
    tx.prepare_cached("UPDATE memory SET encoded = 1 WHERE row = ?1")?
        .execute([row])?;
    touch(tx, row)
}

/// Notes a change of a memory.
fn touch(tx: &Tx<'_>, row: i64) -> Result<()> {
    let seq = next_seq(tx)?;
    tx.prepare_cached("UPDATE memory SET seq = ?2 WHERE row = ?1")?
        .execute([row, seq])?;
    Ok(())
}

/// Notes that two memories say nearly the same.
pub(crate) fn link(tx: &Tx<'_>, one: i64, other: i64) -> Result<()> {
    tx.prepare_cached("INSERT OR IGNORE INTO memory_link (one, other) VALUES (?1, ?2)")?
        .execute([one.min(other), one.max(other)])?;
    Ok(())
}

/// Has `new` take the place of `old`.
pub(crate) fn supersede(tx: &Tx<'_>, old: i64, new: i64, now: Timestamp) -> Result<()> {
    tx.prepare_cached("UPDATE memory SET superseded = ?3, superseded_by = ?2 WHERE row = ?1")?
        .execute(params![old, new, now.as_millisecond()])?;
    touch(tx, old)
}

/// Changes fields of a memory that stays the same memory.
pub(crate) fn change(tx: &Tx<'_>, row: i64, change: &Change) -> Result<()> {
    tx.prepare_cached(
        "UPDATE memory SET kind = coalesce(?2, kind), tags = coalesce(?3, tags),
             confidence = coalesce(?4, confidence), pinned = coalesce(?5, pinned) WHERE row = ?1",
    )?
    .execute(params![
        row,
        change.kind,
        change.tags.as_ref().map(|tags| tags.join("\n")),
        change.confidence.map(f64::from),
        change.pinned,
    ])?;
    touch(tx, row)
}

/// Forgets a memory.
pub(crate) fn delete(tx: &Tx<'_>, row: i64) -> Result<()> {
    let seq = next_seq(tx)?;
    tx.prepare_cached(
        "INSERT INTO memory_gone (slot, seq) SELECT slot, ?2 FROM memory_vector WHERE row = ?1",
    )?
    .execute([row, seq])?;
    tx.prepare_cached("DELETE FROM memory WHERE row = ?1")?
        .execute([row])?;
    Ok(())
}

/// Notes when memories were read, and how often more.
pub(crate) fn read(tx: &Tx<'_>, reads: &HashMap<i64, (Timestamp, u64)>) -> Result<()> {
    let seq = next_seq(tx)?;
    let mut update = tx.prepare_cached(
        "UPDATE memory SET read = max(coalesce(read, 0), ?2), reads = reads + ?3, seq = ?4 WHERE row = ?1",
    )?;
    for (row, (time, count)) in reads {
        update.execute(params![row, time.as_millisecond(), *count as i64, seq])?;
    }
    Ok(())
}

/// Rows in which these words stand, within reach, the best first, with BM25 (larger is better).
pub(crate) fn by_words(
    tx: &Tx<'_>,
    words: &str,
    reach: &Reach,
    most: usize,
) -> Result<Vec<(i64, f32)>> {
    let (conditions, mut values) = conditions(reach);
    let sql = format!(
        "SELECT memory.row, -bm25(memory_words, 1.0, 2.0, 0.5) AS score
         FROM memory_words JOIN memory ON memory.row = memory_words.rowid
         WHERE memory_words MATCH ? AND {conditions} ORDER BY score DESC, memory.row DESC LIMIT ?"
    );
    values.insert(0, words.to_owned().into());
    values.push((most as i64).into());
    tx.prepare_cached(&sql)?
        .query_map(params_from_iter(values), |row| {
            Ok((row.get(0)?, row.get::<_, f64>(1)? as f32))
        })?
        .collect()
}

/// What a memory within reach satisfies.
fn conditions(reach: &Reach) -> (String, Vec<sqlite::types::Value>) {
    let mut sql = String::from("memory.superseded IS NULL AND memory.confidence >= ?");
    let mut values: Vec<sqlite::types::Value> = vec![f64::from(reach.min_confidence).into()];
    if let Some(project) = &reach.project {
        sql += " AND memory.project IN (?, '')";
        values.push(project.clone().into());
    }
    if let Some(kind) = &reach.kind {
        sql += " AND memory.kind = ?";
        values.push(kind.clone().into());
    }
    for tag in &reach.tags {
        sql += " AND instr(char(10) || memory.tags || char(10), char(10) || ? || char(10)) > 0";
        values.push(tag.clone().into());
    }
    (sql, values)
}

/// Slots of the memories within reach.
pub(crate) fn slots(tx: &Tx<'_>, reach: &Reach) -> Result<Vec<usize>> {
    let (conditions, values) = conditions(reach);
    let sql = format!("SELECT slot FROM memory JOIN memory_vector USING (row) WHERE {conditions}");
    tx.prepare_cached(&sql)?
        .query_map(params_from_iter(values), |row| {
            Ok(row.get::<_, i64>(0)? as usize)
        })?
        .collect()
}

/// A page of memories within reach, newest first, those before `before` (a row).
pub(crate) fn page(
    tx: &Tx<'_>,
    reach: &Reach,
    before: Option<i64>,
    most: usize,
) -> Result<Vec<Stored>> {
    let (conditions, mut values) = conditions(reach);
    values.push(before.unwrap_or(i64::MAX).into());
    values.push((most as i64).into());
    let sql = format!(
        "SELECT {COLUMNS} FROM memory WHERE {conditions} AND memory.row < ? ORDER BY memory.row DESC LIMIT ?"
    );
    tx.prepare_cached(&sql)?
        .query_map(params_from_iter(values), stored)?
        .collect()
}

/// The vectors of a row in full precision, of each piece of its text; none if it has none yet.
pub(crate) fn vectors(tx: &Tx<'_>, row: i64) -> Result<Vec<Vec<f32>>> {
    tx.prepare_cached("SELECT vector FROM memory_vector WHERE row = ?1 ORDER BY slot")?
        .query_map([row], |row| Ok(floats(row.get_ref(0)?.as_blob()?)))?
        .collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let words = bytes.chunks_exact(4);
    words
        .map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect()
}

/// What the index is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub encoder: Option<String>,
    pub dimensions: u32,
    pub generation: u64,
    pub next_slot: usize,
    pub seq: i64,
}

/// The present one.
pub(crate) fn state(tx: &Tx<'_>) -> Result<State> {
    tx.prepare_cached("SELECT encoder, dimensions, generation, next_slot, seq FROM memory_index")?
        .query_row([], |row| {
            Ok(State {
                encoder: row.get(0)?,
                dimensions: row.get(1)?,
                generation: row.get::<_, i64>(2)? as u64,
                next_slot: row.get::<_, i64>(3)? as usize,
                seq: row.get(4)?,
            })
        })
}

/// Throws away all vectors: those to come are of this encoder.
pub(crate) fn begin_vectors(tx: &Tx<'_>, encoder: &str, dimensions: u32) -> Result<()> {
    tx.execute("DELETE FROM memory_vector", [])?;
    tx.execute("UPDATE memory SET encoded = 0", [])?;
    tx.execute("DELETE FROM memory_gone", [])?;
    tx.execute(
        "UPDATE memory_index SET encoder = ?1, dimensions = ?2, generation = generation + 1, next_slot = 0, seq = seq + 1",
        params![encoder, dimensions],
    )?;
    Ok(())
}

/// Numbers the vectors anew, without the gaps that forgotten ones left.
pub(crate) fn renumber(tx: &Tx<'_>) -> Result<()> {
    // First out of the way: a slot has one vector.
    tx.execute("UPDATE memory_vector SET slot = -1 - slot", [])?;
    tx.execute(
        "UPDATE memory_vector SET slot = numbered.place FROM (
             SELECT slot, row_number() OVER (ORDER BY row, slot DESC) - 1 AS place FROM memory_vector
         ) AS numbered WHERE numbered.slot = memory_vector.slot",
        [],
    )?;
    tx.execute("DELETE FROM memory_gone", [])?;
    tx.execute(
        "UPDATE memory_index SET generation = generation + 1, seq = seq + 1,
             next_slot = (SELECT count(*) FROM memory_vector)",
        [],
    )?;
    Ok(())
}

/// What the index knows of a memory with a vector.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Indexed {
    pub slot: usize,
    pub row: i64,
    pub project: String,
    pub confidence: f32,
    pub pinned: bool,
    pub superseded: bool,
    /// When it was last written or read, in milliseconds since 1970.
    pub touched: i64,
}

/// Those that changed after `seq`, by slot.
pub(crate) fn changed(tx: &Tx<'_>, seq: i64) -> Result<Vec<Indexed>> {
    tx.prepare_cached(
        "SELECT slot, memory.row, project, confidence, pinned, superseded IS NOT NULL, max(written, coalesce(read, 0))
         FROM memory JOIN memory_vector USING (row) WHERE seq > ?1 ORDER BY slot",
    )?
    .query_map([seq], |row| {
        Ok(Indexed {
            slot: row.get::<_, i64>(0)? as usize,
            row: row.get(1)?,
            project: row.get(2)?,
            confidence: row.get::<_, f64>(3)? as f32,
            pinned: row.get(4)?,
            superseded: row.get(5)?,
            touched: row.get(6)?,
        })
    })?
    .collect()
}

/// Slots that were forgotten after `seq`.
pub(crate) fn gone(tx: &Tx<'_>, seq: i64) -> Result<Vec<usize>> {
    tx.prepare_cached("SELECT slot FROM memory_gone WHERE seq > ?1")?
        .query_map([seq], |row| Ok(row.get::<_, i64>(0)? as usize))?
        .collect()
}

/// Calls `each` with the vectors from a slot on, in order.
pub(crate) fn vectors_from(
    tx: &Tx<'_>,
    slot: usize,
    mut each: impl FnMut(usize, &[f32]),
) -> Result<()> {
    let mut select =
        tx.prepare_cached("SELECT slot, vector FROM memory_vector WHERE slot >= ?1 ORDER BY slot")?;
    let mut rows = select.query([slot as i64])?;
    while let Some(row) = rows.next()? {
        each(
            row.get::<_, i64>(0)? as usize,
            &floats(row.get_ref(1)?.as_blob()?),
        );
    }
    Ok(())
}

/// Calls `each` with every vector and the row of its memory.
pub(crate) fn each_vector(tx: &Tx<'_>, mut each: impl FnMut(i64, &[f32])) -> Result<()> {
    let mut select = tx.prepare_cached("SELECT row, vector FROM memory_vector")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        each(row.get(0)?, &floats(row.get_ref(1)?.as_blob()?));
    }
    Ok(())
}

/// Memories that can be found and have no vector, oldest first: rows and texts.
pub(crate) fn unencoded(tx: &Tx<'_>, most: usize) -> Result<Vec<(i64, String)>> {
    tx.prepare_cached(
        "SELECT row, text FROM memory WHERE encoded = 0 AND superseded IS NULL ORDER BY row LIMIT ?1",
    )?
    .query_map([most as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
    .collect()
}

/// How many of them there are.
pub(crate) fn unencoded_count(tx: &Tx<'_>) -> Result<u64> {
    tx.prepare_cached("SELECT count(*) FROM memory WHERE encoded = 0 AND superseded IS NULL")?
        .query_row([], |row| Ok(row.get::<_, i64>(0)?.max(0) as u64))
}

/// Counts for people.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub live: u64,
    pub pinned: u64,
    pub superseded: u64,
    /// Those that nobody holds any more.
    pub withdrawn: u64,
    pub unencoded: u64,
    pub projects: Vec<(Option<String>, u64)>,
    pub bytes: u64,
}

pub(crate) fn counts(tx: &Tx<'_>) -> Result<Counts> {
    let number = |sql: &str| -> Result<u64> {
        tx.prepare_cached(sql)?
            .query_row([], |row| Ok(row.get::<_, i64>(0)?.max(0) as u64))
    };
    let projects = tx
        .prepare_cached(
            "SELECT nullif(project, ''), count(*) FROM memory WHERE superseded IS NULL
             GROUP BY project ORDER BY count(*) DESC, project",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?
        .collect::<Result<_>>()?;
    Ok(Counts {
        live: number("SELECT count(*) FROM memory WHERE superseded IS NULL")?,
        pinned: number("SELECT count(*) FROM memory WHERE superseded IS NULL AND pinned")?,
        superseded: number("SELECT count(*) FROM memory WHERE superseded_by IS NOT NULL")?,
        withdrawn: number(
            "SELECT count(*) FROM memory WHERE superseded IS NOT NULL AND superseded_by IS NULL",
        )?,
        unencoded: unencoded_count(tx)?,
        projects,
        bytes: number("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")?,
    })
}

/// Memories from a row on, superseded ones too, oldest first.
pub(crate) fn from_row(tx: &Tx<'_>, row: i64, most: usize) -> Result<Vec<Stored>> {
    tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM memory WHERE row >= ?1 ORDER BY row LIMIT ?2"
    ))?
    .query_map([row, most as i64], stored)?
    .collect()
}

/// Notes which memory took the place of another; nothing if either is not there, or if the lineage would go in a circle.
pub(crate) fn succeed(tx: &Tx<'_>, old: &str, new: &str) -> Result<()> {
    tx.prepare_cached(
        "WITH RECURSIVE older (row) AS (
             SELECT row FROM memory WHERE id = ?1
             UNION SELECT memory.row FROM memory JOIN older ON memory.superseded_by = older.row
         ) UPDATE memory SET superseded_by = (SELECT row FROM memory WHERE id = ?2)
         WHERE id = ?1 AND superseded IS NOT NULL
             AND (SELECT row FROM memory WHERE id = ?2) NOT IN (SELECT row FROM older)",
    )?
    .execute([old, new])?;
    Ok(())
}

/// The digest of a file that was imported.
pub(crate) fn file(tx: &Tx<'_>, source: &str) -> Result<Option<[u8; 32]>> {
    tx.prepare_cached("SELECT digest FROM memory_file WHERE source = ?1")?
        .query_row([source], |row| row.get(0))
        .optional()
}

/// Files that were imported, and those that an export said hold something.
pub(crate) fn files(tx: &Tx<'_>) -> Result<Vec<String>> {
    tx.prepare_cached(
        "SELECT source FROM memory_file UNION SELECT source FROM memory_holder WHERE source != '' ORDER BY source",
    )?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// Forgets that a file was imported.
pub(crate) fn forget_file(tx: &Tx<'_>, source: &str) -> Result<()> {
    tx.prepare_cached("DELETE FROM memory_file WHERE source = ?1")?
        .execute([source])?;
    Ok(())
}

/// Notes what was in a file.
pub(crate) fn note_file(tx: &Tx<'_>, source: &str, digest: &[u8; 32]) -> Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO memory_file (source, digest) VALUES (?1, ?2)")?
        .execute(params![source, digest])?;
    Ok(())
}

/// Notes that a source holds a memory.
pub(crate) fn hold(tx: &Tx<'_>, row: i64, source: &str) -> Result<()> {
    tx.prepare_cached("INSERT OR IGNORE INTO memory_holder (row, source) VALUES (?1, ?2)")?
        .execute(params![row, source])?;
    Ok(())
}

/// A memory that a source holds.
pub(crate) struct Held {
    pub row: i64,
    pub fingerprint: [u8; 32],
    pub superseded: bool,
}

/// Memories that a source holds.
pub(crate) fn held(tx: &Tx<'_>, source: &str) -> Result<Vec<Held>> {
    tx.prepare_cached(
        "SELECT row, fingerprint, superseded IS NOT NULL FROM memory JOIN memory_holder USING (row)
         WHERE memory_holder.source = ?1",
    )?
    .query_map([source], |row| {
        Ok(Held {
            row: row.get(0)?,
            fingerprint: row.get(1)?,
            superseded: row.get(2)?,
        })
    })?
    .collect()
}

/// Rows and projects of memories that say this, can be found, and that nobody but this source holds.
pub(crate) fn held_alone(
    tx: &Tx<'_>,
    fingerprint: &[u8; 32],
    source: &str,
) -> Result<Vec<(i64, String)>> {
    tx.prepare_cached(
        "SELECT row, project FROM memory JOIN memory_holder USING (row)
         WHERE memory_holder.source = ?2 AND fingerprint = ?1 AND superseded IS NULL
             AND NOT EXISTS (SELECT 1 FROM memory_holder AS other WHERE other.row = memory.row AND other.source != ?2)",
    )?
    .query_map(params![fingerprint, source], |row| Ok((row.get(0)?, row.get(1)?)))?
    .collect()
}

/// Has a memory belong to another project, where none says the same.
pub(crate) fn move_to(tx: &Tx<'_>, row: i64, project: &str) -> Result<()> {
    tx.prepare_cached("UPDATE memory SET project = ?2 WHERE row = ?1")?
        .execute(params![row, project])?;
    touch(tx, row)
}

/// Who holds a memory, in order.
pub(crate) fn holders(tx: &Tx<'_>, row: i64) -> Result<Vec<String>> {
    tx.prepare_cached("SELECT source FROM memory_holder WHERE row = ?1 ORDER BY source")?
        .query_map([row], |row| row.get(0))?
        .collect()
}

/// Whether another memory took the place of what this source says.
pub(crate) fn is_replaced(
    tx: &Tx<'_>,
    fingerprint: &[u8; 32],
    project: Option<&str>,
    source: &str,
) -> Result<bool> {
    tx.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM memory JOIN memory_holder USING (row)
             WHERE memory_holder.source = ?3 AND fingerprint = ?1 AND project IN (?2, '')
                 AND superseded_by IS NOT NULL)",
    )?
    .query_row(
        params![fingerprint, project.unwrap_or_default(), source],
        |row| row.get(0),
    )
}

/// Has a source hold a memory no longer, and withdraws it if nobody else does: no other took its place, and it is no
/// longer so. Whether it was withdrawn.
pub(crate) fn let_go(tx: &Tx<'_>, row: i64, source: &str, now: Timestamp) -> Result<bool> {
    tx.prepare_cached("DELETE FROM memory_holder WHERE row = ?1 AND source = ?2")?
        .execute(params![row, source])?;
    let withdrawn = tx
        .prepare_cached(
            "UPDATE memory SET superseded = ?2 WHERE row = ?1 AND superseded IS NULL
                 AND NOT EXISTS (SELECT 1 FROM memory_holder WHERE row = ?1)",
        )?
        .execute(params![row, now.as_millisecond()])?;
    if withdrawn > 0 {
        touch(tx, row)?;
    }
    Ok(withdrawn > 0)
}
