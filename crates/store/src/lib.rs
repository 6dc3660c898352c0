//! What must survive: one SQLite database, its transactions and its migrations; or PostgreSQL, for hubs that share it.
//!
//! A [`Store`] hands out transactions and knows no table. Each domain owns its tables, and writes its SQL against
//! the transaction it is given, so that several domains commit together. All calls block; who is asynchronous runs
//! them on a thread that may.
//!
//! There is one connection that writes, and others that read beside it without waiting (write-ahead logging). What
//! [`Store::write`] returned `Ok` for is on the disk: a crash of the program or of the machine does not take it back.
//!
//! What this crate refuses: knowledge of what is stored, and clocks.

mod error;
mod migrate;
mod postgres;

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

pub use error::OpenError;
pub use migrate::Migration;
pub use postgres::{Postgres, PostgresError};
/// The library that domains write their queries with.
pub use rusqlite as sqlite;
/// The same for PostgreSQL.
pub use sqlx;

/// How long a write waits for one of another process before it fails.
const BUSY: Duration = Duration::from_secs(5);
/// Readers kept open for the next read.
const IDLE_READERS: usize = 4;

/// An open database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Before the writer, so that they are closed first: the last one to close empties the write-ahead log, in which
    /// what was deleted still stands, and only one that may write can do so.
    idle: Mutex<Vec<Connection>>,
    writer: Mutex<Connection>,
    /// The file; `None` for a database in memory, which has the one connection.
    path: Option<PathBuf>,
}

impl Store {
    /// Opens the database file, makes it if there is none, and brings it to the last of `migrations`.
    ///
    /// # Errors
    /// If the file cannot be opened, is no database of Hearth's, or was written by a newer Hearth. Such a file is
    /// left as it is.
    pub fn open(path: &Path, migrations: &[Migration]) -> Result<Self, OpenError> {
        create(path)?;
        let sqlite = |source| OpenError::sqlite(path, source);
        let mut writer = Connection::open(path).map_err(sqlite)?;
        writer.busy_timeout(BUSY).map_err(sqlite)?;
        migrate::check(&writer, path, migrations.len() as u32)?;
        let mode: String = writer
            .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
            .map_err(sqlite)?;
        if mode != "wal" {
            return Err(OpenError::NoWal { path: path.into() });
        }
        prepare(&writer).map_err(sqlite)?;
        migrate::apply(&mut writer, path, migrations)?;
        Ok(Self::new(writer, Some(path.into())))
    }

    /// An empty database in memory, gone when the last clone is dropped.
    ///
    /// # Errors
    /// If a migration fails.
    pub fn in_memory(migrations: &[Migration]) -> Result<Self, OpenError> {
        let path = Path::new(":memory:");
        let sqlite = |source| OpenError::sqlite(path, source);
        let mut writer = Connection::open_in_memory().map_err(sqlite)?;
        prepare(&writer).map_err(sqlite)?;
        migrate::apply(&mut writer, path, migrations)?;
        Ok(Self::new(writer, None))
    }

    fn new(writer: Connection, path: Option<PathBuf>) -> Self {
        let inner = Inner {
            writer: Mutex::new(writer),
            path,
            idle: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Runs `work` in a transaction that may write: committed if it returns `Ok`, undone if it returns an error or
    /// panics. Writes happen one after the other; blocks.
    ///
    /// # Errors
    /// What `work` returns, or why the transaction could not begin or be committed (a full disk, another process that
    /// does not let go): nothing is changed then.
    pub fn write<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut writer = lock(&self.inner.writer);
        // Not the default, which takes the lock at the first change: that fails at once if another process wrote
        // since the first read.
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = work(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    /// Empties the write-ahead log, in which what was deleted stays otherwise; `false` if somebody reads the database at
    /// the moment, so that it has to be done again.
    ///
    /// # Errors
    /// Why the database could not be written.
    pub fn empty_log(&self) -> Result<bool, rusqlite::Error> {
        if self.inner.path.is_none() {
            return Ok(true);
        }
        let writer = lock(&self.inner.writer);
        writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            Ok(row.get::<_, i64>(0)? == 0)
        })
    }

    /// Runs `work` on one consistent state of the database, beside a write that may be going on; blocks.
    ///
    /// # Errors
    /// What `work` returns, or why the database could not be read.
    pub fn read<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(path) = &self.inner.path else {
            let mut only = lock(&self.inner.writer);
            return work(&only.transaction()?);
        };
        let idle = lock(&self.inner.idle).pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let reader = Connection::open_with_flags(path, flags)?;
                reader.busy_timeout(BUSY)?;
                reader
            }
        };
        let value = work(&reader.transaction()?);
        let mut idle = lock(&self.inner.idle);
        if idle.len() < IDLE_READERS {
            idle.push(reader);
        }
        value
    }
}

/// A panic in the middle of a transaction undid the transaction, so the connection is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the file where there is none, readable by its owner alone: what people say to a model is nobody else's.
/// SQLite gives the files beside it the same rights.
fn create(path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::File {
        path: path.into(),
        source,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(failed)?;
    Ok(())
}

/// Settings of the connection that writes.
fn prepare(writer: &Connection) -> rusqlite::Result<()> {
    // With `NORMAL` a power cut may take back the last commits. Nothing replicates this file elsewhere, so a commit
    // waits for the disk: some milliseconds, beside answers that take seconds.
    writer.pragma_update(None, "synchronous", "full")?;
    // On macOS a plain fsync stops at the drive's own cache. Means nothing elsewhere.
    writer.pragma_update(None, "fullfsync", true)?;
    writer.pragma_update(None, "checkpoint_fullfsync", true)?;
    writer.pragma_update(None, "foreign_keys", true)?;
    // What somebody deletes is overwritten, not only forgotten.
    writer.pragma_update(None, "secure_delete", true)?;
    Ok(())
}
