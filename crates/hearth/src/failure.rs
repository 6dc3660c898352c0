//! How a command fails: what went wrong, what to do about it, and the exit code that scripts read.

use std::fmt;

use hearth_engine::EngineError;
use serde_json::json;

/// Exit codes; `hearth --help` documents them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The command could not do its work.
    Failed = 1,
    /// The command line, the environment or the configuration file is wrong.
    Usage = 2,
    /// The command needs a running node and there is none.
    NoNode = 3,
}

/// How to choose another home.
pub const ANOTHER_HOME: &str = "choose another folder with --home or HEARTH_HOME";

/// Why a command did not succeed.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong, naming the thing.
    pub message: String,
    /// What to do next.
    pub fix: Option<String>,
    /// The process's exit code.
    pub exit: Exit,
}

/// What a command returns.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure of the work itself.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            fix: None,
            exit: Exit::Failed,
        }
    }

    /// A failure of what was asked for.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            ..Self::new(message)
        }
    }

    /// No node runs at `place`.
    pub fn no_node(place: &str) -> Self {
        Self {
            exit: Exit::NoNode,
            ..Self::new(format!("no node runs at {place}"))
        }
        .fix("start one: hearth up")
    }

    /// A failure whose text ends in what to do next: `WHAT; FIX`.
    pub fn with_advice(text: &str) -> Self {
        // A model's name may hold anything.
        let named = "` is not here";
        let end = match text.find(named) {
            Some(at) => Some(at + named.len()),
            None => text.find("; "),
        };
        let parts = end.and_then(|end| Some((&text[..end], text[end..].strip_prefix("; ")?)));
        match parts {
            Some((message, fix)) => Self::new(message).fix(fix),
            None => Self::new(text),
        }
    }

    /// Adds what to do next.
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// A file operation that failed; `elsewhere` says how to choose another place.
    pub fn file(
        doing: &str,
        path: &std::path::Path,
        error: &std::io::Error,
        elsewhere: &str,
    ) -> Self {
        let first = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "free some space there, or "
            }
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                "make it writable for you, or "
            }
            _ => "",
        };
        Self::new(format!("cannot {doing} {}: {error}", path.display()))
            .fix(format!("{first}{elsewhere}"))
    }

    /// As one JSON object, for `--json`.
    pub fn json(&self) -> serde_json::Value {
        json!({"error": {"message": self.message, "fix": self.fix, "exit": self.exit as u8}})
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "error: {}", self.message)?;
        match &self.fix {
            Some(fix) => write!(out, "\n  fix: {fix}"),
            None => Ok(()),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let exit = match error {
            EngineError::UnknownModel { .. }
            | EngineError::OnlyEmbeds { .. }
            | EngineError::OnlyGenerates { .. }
            | EngineError::Invalid { .. } => Exit::Usage,
            _ => Exit::Failed,
        };
        let message = error.to_string();
        let failure = match &error {
            EngineError::UnknownModel { .. } => Self::with_advice(&message),
            _ => Self::new(message),
        };
        Self { exit, ..failure }
    }
}
