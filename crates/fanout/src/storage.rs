//! The seam between a log and what keeps it: SQLite, PostgreSQL, or this process's memory.
//!
//! All three keep the same three things: the events of the ring, the newest event of each thing, and between which
//! cursors the log goes. What must hold of them is said once, in `tests/conformance.rs`, which runs on all.

use std::time::Duration;

use hearth_protocol::event::{Cursor, Snapshot};
use hearth_store::{Postgres, Store};

use crate::bounds::{Bounds, Page};
use crate::memory::Memory;
use crate::state::Row;
use crate::writer::Writer;
use crate::{Entry, Error, postgres, sqlite};

/// What keeps a log. Each holds one log.
#[derive(Debug, Clone)]
pub enum Storage {
    /// This process's memory, for nodes that keep nothing.
    Memory(Memory),
    /// A SQLite database with [`crate::SQLITE_TABLES`].
    Sqlite(Store),
    /// A PostgreSQL database with [`crate::POSTGRES_TABLES`], which several hubs may share.
    Postgres(Postgres),
}

impl From<Memory> for Storage {
    fn from(memory: Memory) -> Self {
        Self::Memory(memory)
    }
}

impl From<Store> for Storage {
    fn from(store: Store) -> Self {
        Self::Sqlite(store)
    }
}

impl From<Postgres> for Storage {
    fn from(postgres: Postgres) -> Self {
        Self::Postgres(postgres)
    }
}

impl Storage {
    /// Adds events to the end, each to be newer than what is known of its thing.
    pub(crate) async fn append(
        &self,
        rows: Vec<Row>,
        writer: &std::sync::Arc<Writer>,
        ring: u64,
    ) -> Result<Cursor, Error> {
        match self {
            Self::Memory(memory) => memory.append(&rows, writer, ring),
            Self::Sqlite(store) => {
                let writer = writer.clone();
                blocking(store, move |store| {
                    store.write(|tx| sqlite::append(tx, &rows, &writer, ring))
                })
                .await
            }
            Self::Postgres(database) => {
                let mut tx = database.pool().begin().await?;
                let cursor = postgres::append(&mut tx, &rows, writer, ring).await?;
                tx.commit().await?;
                Ok(cursor)
            }
        }
    }

    /// Adds another log's events under their own cursors.
    pub(crate) async fn extend(&self, entries: &[Entry], ring: u64) -> Result<(), Error> {
        let rows = entries
            .iter()
            .map(|entry| Ok((entry.cursor, Row::new(&entry.event)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        match self {
            Self::Memory(memory) => memory.extend(&rows, ring),
            Self::Sqlite(store) => {
                blocking(store, move |store| {
                    store.write(|tx| sqlite::extend(tx, &rows, ring))
                })
                .await
            }
            Self::Postgres(database) => {
                let mut tx = database.pool().begin().await?;
                postgres::extend(&mut tx, &rows, ring).await?;
                Ok(tx.commit().await?)
            }
        }
    }

    /// Forgets everything and takes this instead.
    pub(crate) async fn replace(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let rows = snapshot
            .state
            .iter()
            .map(Row::new)
            .collect::<Result<Vec<_>, Error>>()?;
        let cursor = snapshot.cursor;
        match self {
            Self::Memory(memory) => {
                memory.replace(cursor, &rows);
                Ok(())
            }
            Self::Sqlite(store) => {
                blocking(store, move |store| {
                    store.write(|tx| sqlite::replace(tx, cursor, &rows))
                })
                .await
            }
            Self::Postgres(database) => {
                let mut tx = database.pool().begin().await?;
                postgres::replace(&mut tx, cursor, &rows).await?;
                Ok(tx.commit().await?)
            }
        }
    }

    /// At most `limit` events after `cursor`.
    pub(crate) async fn after(&self, cursor: Cursor, limit: usize) -> Result<Page, Error> {
        match self {
            Self::Memory(memory) => Ok(memory.after(cursor, limit)),
            Self::Sqlite(store) => {
                blocking(store, move |store| {
                    store.read(|tx| sqlite::after(tx, cursor, limit))
                })
                .await
            }
            Self::Postgres(database) => postgres::after(database, cursor, limit).await,
        }
    }

    pub(crate) async fn bounds(&self) -> Result<Bounds, Error> {
        match self {
            Self::Memory(memory) => Ok(memory.bounds()),
            Self::Sqlite(store) => {
                blocking(store, |store| {
                    store.read(|tx| Ok::<_, Error>(sqlite::bounds(tx)?))
                })
                .await
            }
            Self::Postgres(database) => postgres::bounds(database).await,
        }
    }

    /// The state and its cursor, of one moment.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, Error> {
        match self {
            Self::Memory(memory) => memory.snapshot(),
            Self::Sqlite(store) => blocking(store, |store| store.read(sqlite::snapshot)).await,
            Self::Postgres(database) => postgres::snapshot(database).await,
        }
    }

    /// What says that another process may have written.
    pub(crate) fn waker(&self) -> Waker {
        match self {
            Self::Postgres(database) => Waker::Listen(postgres::Listener::new(database.clone())),
            _ => Waker::Clock,
        }
    }
}

/// Wakes who wants to know of what other processes write.
pub(crate) enum Waker {
    Clock,
    Listen(postgres::Listener),
}

impl Waker {
    /// Waits for word of another process, at most for `longest`: a word may be lost.
    pub async fn wait(&mut self, longest: Duration) {
        match self {
            Self::Clock => tokio::time::sleep(longest).await,
            Self::Listen(listener) => {
                let _ = tokio::time::timeout(longest, listener.wait()).await;
            }
        }
    }
}

/// SQLite's calls block.
async fn blocking<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&Store) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let store = store.clone();
    tokio::task::spawn_blocking(move || work(&store))
        .await
        .unwrap_or(Err(Error::ShuttingDown))
}
