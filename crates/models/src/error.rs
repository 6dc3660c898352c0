//! What can go wrong on a model's way to the disk: a reason for programs, a sentence and a fix for people.

use std::fmt;
use std::io;
use std::path::Path;

/// Why something did not work, for whoever must choose a status or an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The name, the address or another argument is wrong.
    Invalid,
    /// No such model is in the store.
    NotHere,
    /// The hub or the other machine has no such model, file or quantisation.
    NotFound,
    /// The hub or the other machine does not let us.
    Denied,
    /// Too many requests; try again later.
    Limited,
    /// Settings forbid contacting anybody.
    Offline,
    /// The other side could not be reached or gave up; what came is kept.
    Unreachable,
    /// The disk is full, or would be; what came is kept.
    Space,
    /// What came is not what was promised.
    Corrupt,
    /// The file is whole and no model that may be loaded.
    Refused,
    /// The caller cancelled; what came is kept.
    Cancelled,
    /// The file system failed otherwise.
    Storage,
}

/// A failure of this crate. Its text names the thing, what is wrong, and the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    // Boxed: results are returned from every small step.
    inner: Box<(Reason, String, Option<String>)>,
}

impl Error {
    /// A failure whose message names the thing.
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            inner: Box::new((reason, message.into(), None)),
        }
    }

    /// With what to do about it.
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.inner.2 = Some(fix.into());
        self
    }

    /// A file operation that failed: `cannot DOING PATH: …`.
    pub(crate) fn storage(doing: &str, path: &Path, error: &io::Error) -> Self {
        let message = format!("cannot {doing} {}: {error}", path.display());
        if is_full(error) {
            return Self::new(Reason::Space, message).fix(
                "free some space there and run the same command again; it goes on where it stopped",
            );
        }
        let fix = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "make the folder writable for you, or choose another one with models_dir"
            }
            _ => "check the disk, or choose another folder with models_dir",
        };
        Self::new(Reason::Storage, message).fix(fix)
    }

    /// The caller cancelled.
    pub(crate) fn cancelled() -> Self {
        Self::new(Reason::Cancelled, "cancelled; what came so far is kept")
    }

    /// Why, for programs.
    pub fn reason(&self) -> Reason {
        self.inner.0
    }

    /// What is wrong, naming the thing.
    pub fn message(&self) -> &str {
        &self.inner.1
    }

    /// What to do about it.
    pub fn advice(&self) -> Option<&str> {
        self.inner.2.as_deref()
    }
}

/// Whether a write failed because there is no room: a full disk, a quota, or the largest file that may be written.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())?;
        match self.advice() {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
