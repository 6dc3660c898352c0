//! What a node in the background says outside of its log: why it could not start, or the last words of a crash. It goes
//! to `HEARTH_HOME/logs/node.err`, which the next node writes anew.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::failure::{ANOTHER_HOME, Failure, Outcome};
use crate::log_file;

/// The standard error of one node.
pub struct LastWords {
    path: PathBuf,
}

impl LastWords {
    /// An empty file for them.
    pub fn expect(home: &Path) -> Outcome<(Self, File)> {
        let folder = log_file::folder(home);
        let path = folder.join("node.err");
        std::fs::create_dir_all(&folder)
            .map_err(|error| Failure::file("create the folder", &folder, &error, ANOTHER_HOME))?;
        let file = File::create(&path)
            .map_err(|error| Failure::file("write", &path, &error, ANOTHER_HOME))?;
        Ok((Self { path }, file))
    }

    /// Why a node that ended at once did so, as it said itself.
    pub fn failure(&self) -> Failure {
        let text = std::fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let see = format!("see {} and hearth logs", self.path.display());
        let Some(at) = lines.iter().rposition(|line| line.starts_with("error: ")) else {
            return Failure::new("the node ended at once").fix(see);
        };
        let fix = lines
            .get(at + 1)
            .and_then(|line| line.trim_start().strip_prefix("fix: "));
        Failure::new(lines[at].trim_start_matches("error: "))
            .fix(fix.map_or(see, ToOwned::to_owned))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn only_the_words_of_the_last_node_count() {
        let home = tempfile::tempdir().unwrap();
        let (first, mut file) = LastWords::expect(home.path()).unwrap();
        file.write_all(b"a library's remark\nerror: no room\n  fix: make some\n")
            .unwrap();
        let told = first.failure();
        assert_eq!(told.message, "no room");
        assert_eq!(told.fix.as_deref(), Some("make some"));

        let (second, _) = LastWords::expect(home.path()).unwrap();
        let told = second.failure();
        assert_eq!(told.message, "the node ended at once");
        assert!(told.fix.is_some_and(|fix| fix.contains("node.err")));
    }
}
