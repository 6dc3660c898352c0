//! The log: what a hub appends to, a follower fills, and subscribers read.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use hearth_protocol::event::{Cursor, Reason, Refusal, Snapshot, StateEvent};
use hearth_store::{sqlite, sqlx};
use tokio::sync::{Mutex, watch};

use crate::bounds::{Bounds, Page};
use crate::state::Row;
use crate::storage::Storage;
use crate::subscription::Subscription;
use crate::window::{Here, Window};
use crate::writer::Writer;
use crate::{Entry, Error};

/// Events read from the table at once.
pub(crate) const PAGE: usize = 256;

/// How much a log keeps, and how soon it hears of other processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Events kept, at least 1. Who is further behind takes a snapshot.
    pub ring: usize,
    /// Events kept encoded in memory. A live subscriber that is further behind is cut.
    pub window: usize,
    /// How often [`Log::keep_up`] looks for what others wrote, when nobody tells.
    pub poll: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ring: 10_000,
            window: 1_000,
            poll: Duration::from_secs(1),
        }
    }
}

/// An open log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    storage: Storage,
    leads: bool,
    options: Options,
    writer: Arc<Writer>,
    window: RwLock<Window>,
    /// The window's end.
    moved: watch::Sender<Cursor>,
    /// One reads the table for all.
    refreshing: Mutex<()>,
    /// The last snapshot as JSON.
    snapshot: Mutex<(Cursor, Bytes)>,
}

impl Log {
    /// Opens a hub's own log, which is appended to.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn lead(storage: impl Into<Storage>, options: Options) -> Result<Self, Error> {
        Self::open(storage.into(), true, options).await
    }

    /// Opens the log of a node that follows a hub, which is filled with the hub's events.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn follow(storage: impl Into<Storage>, options: Options) -> Result<Self, Error> {
        Self::open(storage.into(), false, options).await
    }

    async fn open(storage: Storage, leads: bool, options: Options) -> Result<Self, Error> {
        let end = storage.bounds().await?.end;
        let inner = Inner {
            storage,
            leads,
            writer: Arc::new(Writer::new()),
            window: RwLock::new(Window::new(end, options.window.max(1))),
            moved: watch::Sender::new(end),
            refreshing: Mutex::new(()),
            snapshot: Mutex::default(),
            options,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Whether it is a hub's own.
    pub fn leads(&self) -> bool {
        self.inner.leads
    }

    /// Appends events in one transaction, and tells the subscribers; the cursor is that of the last. When it returns, they
    /// are on the disk.
    ///
    /// # Errors
    /// [`Error::Stale`] if the state has as new a word about one of them; [`Error::Follows`] if this is no hub's log; or
    /// the event is unusable or too large, or the database fails. Nothing is appended then.
    pub async fn append(&self, events: &[StateEvent]) -> Result<Cursor, Error> {
        let rows = self.rows(events)?;
        let inner = &self.inner;
        let end = inner.storage.append(rows, &inner.writer, self.ring());
        let end = end.await?;
        self.told().await;
        Ok(end)
    }

    /// Appends events in a transaction of the caller's, in the database of this log. After the commit the caller calls
    /// [`Log::refresh`], which tells the subscribers.
    ///
    /// # Errors
    /// As of [`Log::append`]; the transaction is to be undone then.
    pub fn append_within(
        &self,
        tx: &sqlite::Transaction<'_>,
        events: &[StateEvent],
    ) -> Result<Cursor, Error> {
        crate::sqlite::append(tx, &self.rows(events)?, &self.inner.writer, self.ring())
    }

    /// [`Log::append_within`] for PostgreSQL. Every other hub that appends waits for the end of the transaction.
    ///
    /// # Errors
    /// As of [`Log::append`]; the transaction is to be undone then.
    pub async fn append_within_postgres(
        &self,
        tx: &mut sqlx::PgTransaction<'_>,
        events: &[StateEvent],
    ) -> Result<Cursor, Error> {
        crate::postgres::append(tx, &self.rows(events)?, &self.inner.writer, self.ring()).await
    }

    fn rows(&self, events: &[StateEvent]) -> Result<Vec<Row>, Error> {
        if !self.inner.leads {
            return Err(Error::Follows);
        }
        events.iter().map(Row::new).collect()
    }

    fn ring(&self) -> u64 {
        self.inner.options.ring.max(1) as u64
    }

    /// Stores a hub's events, which come next, with the state that follows from them, in one transaction. What the state
    /// knows a newer word of stays as it is.
    ///
    /// # Errors
    /// [`Error::Gap`] if they are not the next ones; [`Error::Leads`] if this is a hub's own log; or the database fails.
    /// Nothing is stored then.
    pub async fn extend(&self, entries: &[Entry]) -> Result<(), Error> {
        if self.inner.leads {
            return Err(Error::Leads);
        }
        self.inner.storage.extend(entries, self.ring()).await?;
        self.told().await;
        Ok(())
    }

    /// Replaces everything by what a hub says its state is, in one transaction. Whoever subscribes here is cut.
    ///
    /// # Errors
    /// [`Error::Leads`] if this is a hub's own log; or the database fails. Nothing is changed then.
    pub async fn replace(&self, snapshot: &Snapshot) -> Result<(), Error> {
        if self.inner.leads {
            return Err(Error::Leads);
        }
        self.inner.storage.replace(snapshot).await?;
        self.told().await;
        Ok(())
    }

    /// [`Log::replace`] of the log of a PostgreSQL, in a transaction of the caller's.
    ///
    /// # Errors
    /// An event is unusable, or the database fails; the transaction is to be undone then.
    pub async fn replace_within_postgres(
        tx: &mut sqlx::PgTransaction<'_>,
        snapshot: &Snapshot,
    ) -> Result<(), Error> {
        let rows: Result<Vec<Row>, Error> = snapshot.state.iter().map(Row::new).collect();
        crate::postgres::replace(tx, snapshot.cursor, &rows?).await
    }

    /// The state and the last event in it, of one moment.
    ///
    /// # Errors
    /// If the database fails, or was written by a newer Hearth.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        self.inner.storage.snapshot().await
    }

    /// [`Log::snapshot`] as JSON, with its cursor; read and written once for all who ask while nothing changes.
    ///
    /// # Errors
    /// As of [`Log::snapshot`].
    pub async fn snapshot_json(&self) -> Result<(Cursor, Bytes), Error> {
        let mut last = self.inner.snapshot.lock().await;
        if last.1.is_empty() || last.0 != self.bounds().await?.end {
            let snapshot = self.snapshot().await?;
            let json = serde_json::to_vec(&snapshot).map_err(|error| Error::Unusable {
                kind: "snapshot",
                reason: error.to_string(),
            })?;
            *last = (snapshot.cursor, json.into());
        }
        Ok(last.clone())
    }

    /// Between which cursors it goes, as the database says.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn bounds(&self) -> Result<Bounds, Error> {
        self.inner.storage.bounds().await
    }

    /// The last event that subscribers were told of; changes with each, and when the log is replaced.
    pub fn watch(&self) -> watch::Receiver<Cursor> {
        self.inner.moved.subscribe()
    }

    /// Subscribes to what comes after the event `cursor`, or from now on.
    ///
    /// # Errors
    /// [`Error::Refused`] if the log cannot go on there; or the database fails.
    pub async fn subscribe(&self, cursor: Option<Cursor>) -> Result<Subscription, Error> {
        let Some(cursor) = cursor else {
            let (end, generation) = self.with_window(|window| (window.head(), window.generation));
            return Ok(Subscription::new(self.clone(), end, generation, Vec::new()));
        };
        let (here, generation) = self.with_window(|window| {
            let ahead = cursor.offset > window.head().offset;
            let here = !ahead && !matches!(window.after(cursor), Here::Elsewhere);
            (here, window.generation)
        });
        let frames = if here {
            Vec::new()
        } else {
            self.after(cursor).await??
        };
        Ok(Subscription::new(self.clone(), cursor, generation, frames))
    }

    /// The next events in the table.
    pub(crate) async fn after(
        &self,
        cursor: Cursor,
    ) -> Result<Result<Vec<crate::Frame>, Refusal>, Error> {
        let page = self.inner.storage.after(cursor, PAGE).await?;
        Ok(page.map_err(|(reason, bounds)| self.refusal(reason, bounds)))
    }

    fn refusal(&self, reason: Reason, bounds: Bounds) -> Refusal {
        Refusal {
            reason,
            begin: bounds.begin,
            end: bounds.end,
            leads: self.inner.leads,
        }
    }

    pub(crate) fn with_window<T>(&self, work: impl FnOnce(&Window) -> T) -> T {
        let window = self.inner.window.read();
        work(&window.unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells the subscribers what the table has that they were not told of.
    ///
    /// # Errors
    /// If the database fails; the next call makes up for it.
    pub async fn refresh(&self) -> Result<(), Error> {
        let inner = &self.inner;
        let _one = inner.refreshing.lock().await;
        loop {
            let told = self.with_window(Window::head);
            let page: Page = inner.storage.after(told, PAGE).await?;
            let mut window = inner.window.write().unwrap_or_else(PoisonError::into_inner);
            let more = match page {
                Ok(frames) => {
                    let count = frames.len();
                    frames.into_iter().for_each(|frame| window.push(frame));
                    if count == 0 {
                        return Ok(());
                    }
                    count == PAGE
                }
                Err((_, bounds)) => {
                    window.replace(bounds.end);
                    false
                }
            };
            let end = window.head();
            drop(window);
            inner.moved.send_replace(end);
            if !more {
                return Ok(());
            }
        }
    }

    /// What is stored is stored: if subscribers cannot be told now, they are with the next event, or by
    /// [`Log::keep_up`].
    async fn told(&self) {
        if let Err(error) = self.refresh().await {
            tracing::warn!("subscribers wait for the state log: {error}");
        }
    }

    /// Tells the subscribers what other processes write: other hubs on one PostgreSQL, or a command beside the node. For
    /// a task of its own; ends when it is dropped.
    pub async fn keep_up(&self) -> Infallible {
        let mut waker = self.inner.storage.waker();
        let mut failed = false;
        loop {
            waker.wait(self.inner.options.poll).await;
            let refreshed = self.refresh().await;
            if let Err(error) = &refreshed
                && !failed
            {
                tracing::warn!("the state log is out of reach: {error}");
            }
            failed = refreshed.is_err();
        }
    }
}
