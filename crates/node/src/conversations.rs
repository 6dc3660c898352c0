//! Stored answers and conversations: their tables, and what may be asked of them.
//!
//! An answer is kept with what was asked for it, and knows the one it goes on from; the chain of both is the
//! conversation so far. A conversation that was made by name instead collects the items of all answers given in it.
//! This module knows no HTTP; the surfaces that speak of what is kept here are [`crate::openai`]'s.

use std::time::Duration;

use hearth_protocol::responses::{Item, Metadata};
use hearth_store::sqlite::{self, OptionalExtension, Transaction, params};
use hearth_store::{Migration, Store};
use serde_json::Value;

/// The tables.
pub(crate) const TABLES: Migration = Migration {
    name: "answers and conversations",
    sql: "
        CREATE TABLE response (
            id TEXT PRIMARY KEY,
            created INTEGER NOT NULL,
            -- The answer it goes on from. No foreign key: that one may be deleted.
            previous TEXT,
            -- The conversation it was given in, and which of its items came before.
            conversation TEXT,
            conversation_place INTEGER,
            -- As it was sent, without its output.
            body TEXT NOT NULL
        ) STRICT;
        CREATE INDEX response_created ON response (created);

        CREATE TABLE response_item (
            response TEXT NOT NULL REFERENCES response (id) ON DELETE CASCADE,
            place INTEGER NOT NULL,
            -- 0: asked, 1: answered.
            answered INTEGER NOT NULL,
            id TEXT NOT NULL,
            body TEXT NOT NULL,
            PRIMARY KEY (response, place)
        ) STRICT;
        CREATE INDEX response_item_id ON response_item (id);

        CREATE TABLE conversation (
            id TEXT PRIMARY KEY,
            created INTEGER NOT NULL,
            metadata TEXT NOT NULL
        ) STRICT;

        CREATE TABLE conversation_item (
            conversation TEXT NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
            place INTEGER NOT NULL,
            id TEXT NOT NULL,
            body TEXT NOT NULL,
            PRIMARY KEY (conversation, place)
        ) STRICT;
        CREATE UNIQUE INDEX conversation_item_id ON conversation_item (id, conversation);
    ",
};

/// How long an answer is kept after the last one that goes on from it: as long as OpenAI keeps them, so that a client
/// made for that never misses one. Conversations made by name stay until they are deleted, there as here.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why something cannot be read or kept.
#[derive(Debug)]
pub(crate) enum KeepError {
    /// There is no such answer, conversation or item.
    Unknown(String),
    /// The answer `id` goes on from `missing`, which was deleted.
    Broken { id: String, missing: String },
    /// The conversation has an item with this id already.
    Taken(String),
    /// The database fails, or holds what it should not.
    Failed(String),
}

impl From<sqlite::Error> for KeepError {
    fn from(error: sqlite::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<serde_json::Error> for KeepError {
    fn from(error: serde_json::Error) -> Self {
        // Not what serde says: it quotes, and what is stored is nobody's to log.
        Self::Failed(format!("JSON is damaged at column {}", error.column()))
    }
}

type Kept<T> = Result<T, KeepError>;

/// An answer to keep, with what was asked.
#[derive(Debug)]
pub(crate) struct Turn {
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The answer it goes on from.
    pub previous: Option<String>,
    /// The conversation it is added to.
    pub conversation: Option<String>,
    /// What is given back for it; its `output` is kept as items.
    pub body: Value,
    pub asked: Vec<Item>,
    pub answered: Vec<Item>,
}

/// A conversation made by name.
#[derive(Debug)]
pub(crate) struct Named {
    /// Seconds since 1970.
    pub created: u64,
    pub metadata: Metadata,
}

/// Which items a page shows.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    /// Only those after this one.
    pub after: Option<String>,
    pub limit: usize,
    /// Newest first.
    pub descending: bool,
}

/// Whose items.
#[derive(Debug, Clone)]
pub(crate) enum Owner {
    /// What was asked for this answer.
    Response(String),
    Conversation(String),
}

/// A page of items.
#[derive(Debug)]
pub(crate) struct Page {
    pub items: Vec<Value>,
    pub more: bool,
}

/// Everything that is kept. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Conversations {
    store: Store,
}

impl Conversations {
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Kept<T> + Send + 'static,
    ) -> Kept<T> {
        let store = self.store.clone();
        let read = crate::trace::spawn_blocking(move || store.read(work)).await;
        read.unwrap_or_else(|panic| Err(KeepError::Failed(panic.to_string())))
    }

    /// Goes on to its end when nobody waits for it any more.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Kept<T> + Send + 'static,
    ) -> Kept<T> {
        let store = self.store.clone();
        let written = crate::trace::spawn_blocking(move || store.write(work)).await;
        written.unwrap_or_else(|panic| Err(KeepError::Failed(panic.to_string())))
    }

    /// Keeps an answer and adds it to its conversation.
    pub async fn keep(&self, turn: Turn) -> Kept<()> {
        self.write(move |tx| keep(tx, &turn)).await
    }

    /// An answer as it was sent.
    pub async fn response(&self, id: String) -> Kept<Value> {
        self.read(move |tx| {
            let body: Option<String> = tx
                .prepare_cached("SELECT body FROM response WHERE id = ?1")?
                .query_row([&id], |row| row.get(0))
                .optional()?;
            let Some(body) = body else {
                return Err(KeepError::Unknown(id));
            };
            let mut body: Value = serde_json::from_str(&body)?;
            let items: Vec<Value> = items(
                tx,
                "SELECT body FROM response_item WHERE response = ?1 AND answered = 1 ORDER BY place",
                params![id],
            )?;
            body["output"] = items.into();
            Ok(body)
        })
        .await
    }

    /// Deletes an answer with what was asked. Answers that go on from it can be read, and not be gone on from.
    pub async fn delete_response(&self, id: String) -> Kept<()> {
        self.write(
            move |tx| match tx.execute("DELETE FROM response WHERE id = ?1", [&id])? {
                0 => Err(KeepError::Unknown(id)),
                _ => Ok(()),
            },
        )
        .await
    }

    /// Everything that was said up to the end of an answer, oldest first.
    pub async fn up_to(&self, response: String) -> Kept<Vec<Item>> {
        self.read(move |tx| up_to(tx, response)).await
    }

    /// The items of a conversation, oldest first.
    pub async fn all_of(&self, conversation: String) -> Kept<Vec<Item>> {
        self.read(move |tx| {
            named(tx, &conversation)?;
            items(
                tx,
                "SELECT body FROM conversation_item WHERE conversation = ?1 ORDER BY place",
                params![conversation],
            )
        })
        .await
    }

    /// The item with this id, wherever it is kept.
    pub async fn find(&self, id: String) -> Kept<Item> {
        self.read(move |tx| {
            let mut found = items(
                tx,
                "SELECT body FROM response_item WHERE id = ?1
                 UNION ALL SELECT body FROM conversation_item WHERE id = ?1 LIMIT 1",
                params![id],
            )?;
            found.pop().ok_or(KeepError::Unknown(id))
        })
        .await
    }

    /// Makes a conversation.
    pub async fn create(&self, id: String, named: Named, first: Vec<Item>) -> Kept<()> {
        self.write(move |tx| {
            let metadata = serde_json::to_string(&named.metadata)?;
            tx.execute(
                "INSERT INTO conversation VALUES (?1, ?2, ?3)",
                params![id, named.created.cast_signed(), metadata],
            )?;
            append(tx, &id, first.iter())
        })
        .await
    }

    /// What is known of a conversation.
    pub async fn named(&self, id: String) -> Kept<Named> {
        self.read(move |tx| named(tx, &id)).await
    }

    /// Gives a conversation other metadata.
    pub async fn update(&self, id: String, metadata: Metadata) -> Kept<Named> {
        self.write(move |tx| {
            let created = named(tx, &id)?.created;
            tx.execute(
                "UPDATE conversation SET metadata = ?2 WHERE id = ?1",
                params![id, serde_json::to_string(&metadata)?],
            )?;
            Ok(Named { created, metadata })
        })
        .await
    }

    /// Deletes a conversation with its items. Answers given in it can be read, and not be gone on from.
    pub async fn delete(&self, id: String) -> Kept<()> {
        self.write(
            move |tx| match tx.execute("DELETE FROM conversation WHERE id = ?1", [&id])? {
                0 => Err(KeepError::Unknown(id)),
                _ => Ok(()),
            },
        )
        .await
    }

    /// Adds items at the end of a conversation.
    pub async fn append(&self, id: String, more: Vec<Item>) -> Kept<()> {
        self.write(move |tx| {
            named(tx, &id)?;
            append(tx, &id, more.iter())
        })
        .await
    }

    /// One item of a conversation.
    pub async fn item(&self, conversation: String, id: String) -> Kept<Value> {
        self.read(move |tx| {
            named(tx, &conversation)?;
            let mut found = items(
                tx,
                "SELECT body FROM conversation_item WHERE conversation = ?1 AND id = ?2",
                params![conversation, id],
            )?;
            found.pop().ok_or(KeepError::Unknown(id))
        })
        .await
    }

    /// Takes one item out of a conversation.
    pub async fn delete_item(&self, conversation: String, id: String) -> Kept<Named> {
        self.write(move |tx| {
            let of = named(tx, &conversation)?;
            let gone = tx.execute(
                "DELETE FROM conversation_item WHERE conversation = ?1 AND id = ?2",
                params![conversation, id],
            )?;
            match gone {
                0 => Err(KeepError::Unknown(id)),
                _ => Ok(of),
            }
        })
        .await
    }

    /// Some items of an answer's question, or of a conversation.
    pub async fn page(&self, owner: Owner, listing: Listing) -> Kept<Page> {
        self.read(move |tx| page(tx, &owner, &listing)).await
    }

    /// Deletes the answers that nobody went on from for too long; `now` is in seconds since 1970. Says how many.
    pub async fn prune(&self, now: u64) -> Kept<usize> {
        self.write(move |tx| prune(tx, now)).await
    }
}

fn keep(tx: &Transaction<'_>, turn: &Turn) -> Kept<()> {
    let mut body = turn.body.clone();
    body["output"] = Value::Array(Vec::new());
    let before = match &turn.conversation {
        // It may have been deleted while the model was at the answer.
        Some(id) => {
            named(tx, id)?;
            Some(end(tx, id)?)
        }
        None => None,
    };
    tx.execute(
        "INSERT INTO response VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            turn.id,
            turn.created.cast_signed(),
            turn.previous,
            turn.conversation,
            before,
            serde_json::to_string(&body)?
        ],
    )?;
    let asked = turn.asked.iter().map(|item| (item, false));
    let answered = turn.answered.iter().map(|item| (item, true));
    let mut insert = tx.prepare_cached("INSERT INTO response_item VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for (place, (item, answered)) in (0_i64..).zip(asked.chain(answered)) {
        let body = serde_json::to_string(item)?;
        insert.execute(params![turn.id, place, answered, item.id(), body])?;
    }
    match &turn.conversation {
        Some(id) => append(tx, id, turn.asked.iter().chain(&turn.answered)),
        None => Ok(()),
    }
}

fn up_to(tx: &Transaction<'_>, response: String) -> Kept<Vec<Item>> {
    let mut turns = Vec::new();
    let mut start = Vec::new();
    let mut next = Some(response);
    let mut links = tx.prepare_cached(
        "SELECT previous, conversation, conversation_place FROM response WHERE id = ?1",
    )?;
    while let Some(id) = next {
        let link = |row: &sqlite::Row<'_>| {
            let place: Option<i64> = row.get(2)?;
            Ok((row.get(0)?, row.get::<_, Option<String>>(1)?.zip(place)))
        };
        let Some((previous, given_in)) = links.query_row([&id], link).optional()? else {
            return Err(match turns.pop() {
                Some(last) => KeepError::Broken {
                    id: last,
                    missing: id,
                },
                None => KeepError::Unknown(id),
            });
        };
        if let Some((conversation, place)) = given_in {
            if let Err(KeepError::Unknown(missing)) = named(tx, &conversation) {
                return Err(KeepError::Broken { id, missing });
            }
            start = items(
                tx,
                "SELECT body FROM conversation_item WHERE conversation = ?1 AND place < ?2 ORDER BY place",
                params![conversation, place],
            )?;
        }
        turns.push(id);
        next = previous;
    }
    for id in turns.iter().rev() {
        let sql = "SELECT body FROM response_item WHERE response = ?1 ORDER BY place";
        start.extend(items(tx, sql, params![id])?);
    }
    Ok(start)
}

/// The bodies that a query finds.
fn items<T: serde::de::DeserializeOwned>(
    tx: &Transaction<'_>,
    sql: &str,
    about: &[&dyn sqlite::ToSql],
) -> Kept<Vec<T>> {
    let mut query = tx.prepare_cached(sql)?;
    let mut rows = query.query(about)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(serde_json::from_str(
            row.get_ref(0)?
                .as_str()
                .map_err(|error| KeepError::Failed(error.to_string()))?,
        )?);
    }
    Ok(all)
}

fn named(tx: &Transaction<'_>, id: &str) -> Kept<Named> {
    let found: Option<(i64, String)> = tx
        .prepare_cached("SELECT created, metadata FROM conversation WHERE id = ?1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((created, metadata)) = found else {
        return Err(KeepError::Unknown(id.to_owned()));
    };
    Ok(Named {
        created: created.cast_unsigned(),
        metadata: serde_json::from_str(&metadata)?,
    })
}

/// The place after a conversation's last item, and after all that an answer in it came after: what is added later must not
/// take the place of what was deleted.
fn end(tx: &Transaction<'_>, conversation: &str) -> sqlite::Result<i64> {
    tx.prepare_cached(
        "SELECT max(
            coalesce((SELECT max(place) + 1 FROM conversation_item WHERE conversation = ?1), 0),
            coalesce((SELECT max(conversation_place) FROM response WHERE conversation = ?1), 0))",
    )?
    .query_row([conversation], |row| row.get(0))
}

fn append<'a>(
    tx: &Transaction<'_>,
    conversation: &str,
    more: impl Iterator<Item = &'a Item>,
) -> Kept<()> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO conversation_item VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
    )?;
    for (place, item) in (end(tx, conversation)?..).zip(more) {
        let body = serde_json::to_string(item)?;
        if insert.execute(params![conversation, place, item.id(), body])? == 0 {
            return Err(KeepError::Taken(item.id().to_owned()));
        }
    }
    Ok(())
}

fn page(tx: &Transaction<'_>, owner: &Owner, listing: &Listing) -> Kept<Page> {
    let (items_of, id) = match owner {
        Owner::Response(id) => {
            let there = tx
                .prepare_cached("SELECT 1 FROM response WHERE id = ?1")?
                .exists([id])?;
            if !there {
                return Err(KeepError::Unknown(id.clone()));
            }
            ("response_item WHERE response = ?1 AND answered = 0", id)
        }
        Owner::Conversation(id) => {
            named(tx, id)?;
            ("conversation_item WHERE conversation = ?1", id)
        }
    };
    let start = match &listing.after {
        None if listing.descending => i64::MAX,
        None => -1,
        Some(after) => tx
            .prepare_cached(&format!("SELECT place FROM {items_of} AND id = ?2"))?
            .query_row([id, after], |row| row.get(0))
            .optional()?
            .ok_or_else(|| KeepError::Unknown(after.clone()))?,
    };
    let (beyond, order) = match listing.descending {
        true => ('<', "DESC"),
        false => ('>', "ASC"),
    };
    let sql = format!(
        "SELECT body FROM {items_of} AND place {beyond} ?2 ORDER BY place {order} LIMIT ?3"
    );
    // One more than asked for tells whether there are more.
    let most = listing.limit as i64 + 1;
    let mut items: Vec<Value> = items(tx, &sql, params![id, start, most])?;
    let more = items.len() > listing.limit;
    items.truncate(listing.limit);
    Ok(Page { items, more })
}

fn prune(tx: &Transaction<'_>, now: u64) -> Kept<usize> {
    let oldest = now.saturating_sub(KEPT.as_secs()).cast_signed();
    let gone = tx.execute(
        "WITH RECURSIVE needed (id) AS (
             SELECT id FROM response WHERE created >= ?1
             UNION
             SELECT response.previous FROM needed JOIN response USING (id) WHERE response.previous IS NOT NULL)
         DELETE FROM response WHERE created < ?1 AND id NOT IN (SELECT id FROM needed)",
        [oldest],
    )?;
    Ok(gone)
}

#[cfg(test)]
mod tests;
