//! The file that a node in the background writes to. It outlives the node, so that somebody can read why the last one
//! ended; what is too long is put aside as `node.log.1`.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::failure::{ANOTHER_HOME, Failure, Outcome};

/// A log that is longer at the start of a node makes room, in bytes. With the one put aside, a home holds two.
const LONGEST: u64 = 5 << 20;

/// The log of one node.
pub struct Log {
    path: PathBuf,
    /// Length when this node started: all that follows is its own.
    start: u64,
}

impl Log {
    /// Opens the log of this home for appending.
    pub fn open(home: &Path) -> Outcome<(Self, File)> {
        let folder = home.join("logs");
        let path = folder.join("node.log");
        std::fs::create_dir_all(&folder)
            .map_err(|error| Failure::file("create the folder", &folder, &error, ANOTHER_HOME))?;
        if std::fs::metadata(&path).is_ok_and(|file| file.len() > LONGEST) {
            std::fs::rename(&path, folder.join("node.log.1"))
                .map_err(|error| Failure::file("put aside", &path, &error, ANOTHER_HOME))?;
        }
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        let (file, start) = opened
            .and_then(|file| file.metadata().map(|about| (file, about.len())))
            .map_err(|error| Failure::file("write", &path, &error, ANOTHER_HOME))?;
        Ok((Self { path, start }, file))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why a node that ended at once did so, as it said itself.
    pub fn last_words(&self) -> Failure {
        let text = self.of_this_node().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let see = format!("see {}", self.path.display());
        let Some(at) = lines.iter().rposition(|line| line.starts_with("error: ")) else {
            return Failure::new("the node ended at once").fix(see);
        };
        let fix = lines
            .get(at + 1)
            .and_then(|line| line.trim_start().strip_prefix("fix: "));
        Failure::new(lines[at].trim_start_matches("error: "))
            .fix(fix.map_or(see, ToOwned::to_owned))
    }

    /// Not what earlier nodes said: their mistakes may be mended.
    fn of_this_node(&self) -> std::io::Result<String> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.start))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_goes_on_and_only_the_own_words_count() {
        let home = tempfile::tempdir().unwrap();
        let (first, mut file) = Log::open(home.path()).unwrap();
        file.write_all(b"error: no room\n  fix: make some\n")
            .unwrap();
        let told = first.last_words();
        assert_eq!(told.message, "no room");
        assert_eq!(told.fix.as_deref(), Some("make some"));

        let (second, mut file) = Log::open(home.path()).unwrap();
        file.write_all(b"INFO serving\n").unwrap();
        let told = second.last_words();
        assert_eq!(told.message, "the node ended at once");
        assert!(told.fix.is_some_and(|fix| fix.contains("node.log")));
        let whole = std::fs::read_to_string(second.path()).unwrap();
        assert_eq!(whole, "error: no room\n  fix: make some\nINFO serving\n");
    }

    #[test]
    fn a_log_that_is_too_long_is_put_aside_at_the_next_start() {
        let home = tempfile::tempdir().unwrap();
        let (log, file) = Log::open(home.path()).unwrap();
        let aside = log.path().with_extension("log.1");
        file.set_len(LONGEST).unwrap();
        Log::open(home.path()).unwrap();
        assert!(!aside.exists(), "it is not too long yet");

        file.set_len(LONGEST + 1).unwrap();
        std::fs::write(&aside, "from before").unwrap();
        let (log, _) = Log::open(home.path()).unwrap();
        assert_eq!(std::fs::metadata(log.path()).unwrap().len(), 0);
        assert_eq!(std::fs::metadata(&aside).unwrap().len(), LONGEST + 1);
    }
}
