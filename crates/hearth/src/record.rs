//! What a running node leaves in its home for the other commands: `node.json`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ember::write_atomically;
use crate::failure::Outcome;

/// Who serves from this home. Present from when the door listens until the process has cleaned up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Process id.
    pub pid: u32,
    /// Where a client on this machine reaches it, `host:port`.
    pub address: String,
    /// Version of its executable.
    pub version: String,
}

impl NodeRecord {
    fn path(home: &Path) -> PathBuf {
        home.join("node.json")
    }

    /// The record in this home, if there is a readable one.
    pub fn read(home: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::path(home)).ok()?).ok()
    }

    /// Leaves the record.
    pub fn write(&self, home: &Path) -> Outcome {
        let mut text = serde_json::json!(self).to_string();
        text.push('\n');
        write_atomically(&Self::path(home), text.as_bytes())
    }

    /// Takes the record away, unless somebody else's took its place.
    pub fn remove(&self, home: &Path) {
        if Self::read(home).as_ref() == Some(self) {
            let _ = std::fs::remove_file(Self::path(home));
        }
    }

    /// Whether its process still exists, where the system tells cheaply; `None` where it does not.
    pub fn process_exists(&self) -> Option<bool> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // `PID (NAME) STATE …`; a zombie has ended and only waits for its parent to look.
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        Some(state.is_some_and(|state| state != 'Z' && state != 'X'))
    }
}
