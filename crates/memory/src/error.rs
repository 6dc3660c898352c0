//! Why something cannot be remembered or found.

use hearth_store::sqlite;

use crate::import::Unreadable;

/// Why something cannot be remembered or found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field is wrong.
    #[error("{field}: {message}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
    /// There is no such memory.
    #[error("there is no memory {0}")]
    Unknown(String),
    /// The memory has been superseded already.
    #[error("memory {old} was superseded by {new}; change that one")]
    Superseded {
        /// The old one.
        old: String,
        /// The one in its place.
        new: String,
    },
    /// Nobody holds the memory any more.
    #[error("memory {0} was withdrawn, because no file says it any more; remember it anew")]
    Withdrawn(String),
    /// A file cannot be imported.
    #[error("{path}: {why}")]
    Unreadable {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: Unreadable,
    },
    /// The encoder failed.
    #[error("the encoder failed: {0}")]
    Encoder(String),
    /// The approximate index failed; searches go on without it.
    #[error("the approximate index failed: {0}")]
    Approximate(String),
    /// The database failed.
    #[error("the memory's database failed: {0}")]
    Database(#[from] sqlite::Error),
}

impl Error {
    pub(crate) fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            message: message.into(),
        }
    }
}
