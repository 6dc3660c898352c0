//! Bringing a database to the schema that this program knows.
//!
//! The schema is a list of migrations that only ever grows; the database remembers in `user_version` how many of them
//! it has. `application_id` says that it is Hearth's.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::OpenError;

/// `Hrth`, in the database's header.
const APPLICATION_ID: i32 = i32::from_be_bytes(*b"Hrth");

/// One step of the schema. Once released, it never changes; what it got wrong, a later one mends.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Says what it brings, for error messages.
    pub name: &'static str,
    /// Statements, run in one transaction.
    pub sql: &'static str,
}

/// Refuses a file that is not ours, or too new; changes nothing.
pub(crate) fn check(connection: &Connection, path: &Path, known: u32) -> Result<(), OpenError> {
    let sqlite = |source| OpenError::sqlite(path, source);
    // One transaction: another process may make the file right now.
    let connection = connection.unchecked_transaction().map_err(sqlite)?;
    let id: i32 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(sqlite)?;
    let empty: bool = connection
        .query_row(
            "SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)",
            [],
            |row| row.get(0),
        )
        .map_err(sqlite)?;
    match id {
        APPLICATION_ID => {}
        0 if empty => return Ok(()),
        _ => return Err(OpenError::Foreign { path: path.into() }),
    }
    let found = version(&connection).map_err(sqlite)?;
    if found > known {
        return Err(OpenError::Newer {
            path: path.into(),
            found,
            known,
        });
    }
    Ok(())
}

/// Runs the migrations that the database lacks, each in a transaction of its own.
pub(crate) fn apply(
    connection: &mut Connection,
    path: &Path,
    migrations: &[Migration],
) -> Result<(), OpenError> {
    for (at, migration) in (0..).zip(migrations) {
        step(connection, at, migration).map_err(|source| OpenError::Migration {
            path: path.into(),
            name: migration.name,
            source,
        })?;
    }
    Ok(())
}

fn step(connection: &mut Connection, at: u32, migration: &Migration) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Looked at inside the transaction: another process may open the same file now.
    if version(&transaction)? > at {
        return Ok(());
    }
    transaction.execute_batch(migration.sql)?;
    transaction.pragma_update(None, "user_version", at + 1)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.commit()
}

fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}
