//! Why a database could not be opened, with what to do about it.

use std::path::{Path, PathBuf};

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be made or opened.
    #[error("{} cannot be opened: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error(
        "{} is not a SQLite database, or a damaged one; move it away to start with an empty one",
        path.display()
    )]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// It is the database of another program.
    #[error("{} is the database of another program; move it away", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer Hearth wrote it.
    #[error(
        "{} was written by a newer Hearth (schema {found}, this one knows {known}); update Hearth, or use another home",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema known here.
        known: u32,
    },
    /// The file system lacks what write-ahead logging needs; network file systems often do.
    #[error(
        "{} lies on a file system without shared memory between processes; put it on a local disk",
        path.display()
    )]
    NoWal {
        /// The file.
        path: PathBuf,
    },
    /// A migration failed and was undone.
    #[error("{} could not be brought up to date (migration `{name}`): {source}", path.display())]
    Migration {
        /// The file.
        path: PathBuf,
        /// The migration.
        name: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// Anything else that SQLite says.
    #[error("{} cannot be opened: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// What SQLite said about the file at `path`.
    pub(crate) fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.into();
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
                Self::NotADatabase { path }
            }
            _ => Self::Sqlite { path, source },
        }
    }
}
