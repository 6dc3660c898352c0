//! The file that a node in the background logs to, and how it makes room.
//!
//! `HEARTH_HOME/logs/node.log` has one JSON object a line, because `hearth logs` filters by severity and request and
//! because a program may want to. A full file is put aside as `node.log.1`, that one as `node.log.2` and so on; the
//! oldest is dropped. The writer is ours: the crates for this rotate by the clock alone (a chatty day fills the disk), or
//! end the process where a rename fails.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::config::LogOptions;
use crate::failure::{ANOTHER_HOME, Failure, Outcome};

/// Folder of the logs in a home.
pub fn folder(home: &Path) -> PathBuf {
    home.join("logs")
}

/// The newest log of a home.
pub fn newest(home: &Path) -> PathBuf {
    folder(home).join("node.log")
}

/// The log that was put aside `age` files ago; 0 is the newest.
pub fn aged(home: &Path, age: u32) -> PathBuf {
    match age {
        0 => newest(home),
        age => folder(home).join(format!("node.log.{age}")),
    }
}

/// Writes lines and makes room. It is handed one whole line at a time.
#[derive(Debug)]
pub struct LogFile {
    home: PathBuf,
    file: File,
    length: u64,
    /// Bytes after which the file is put aside.
    limit: u64,
    /// Files kept, the one written to included.
    files: u32,
}

impl LogFile {
    /// Opens the log of this home and goes on where it ends.
    pub fn open(home: &Path, options: &LogOptions) -> Outcome<Self> {
        let (folder, path) = (folder(home), newest(home));
        std::fs::create_dir_all(&folder)
            .map_err(|error| Failure::file("create the folder", &folder, &error, ANOTHER_HOME))?;
        let (file, length) =
            append(&path).map_err(|error| Failure::file("write", &path, &error, ANOTHER_HOME))?;
        Ok(Self {
            home: home.to_owned(),
            file,
            length,
            limit: options.file_size,
            files: options.files.max(1),
        })
    }

    fn make_room(&mut self) -> io::Result<()> {
        // Also what an earlier, larger `log_files` left behind.
        let mut age = self.files.saturating_sub(1);
        while std::fs::remove_file(aged(&self.home, age)).is_ok() {
            age += 1;
        }
        for age in (1..self.files).rev() {
            match std::fs::rename(aged(&self.home, age - 1), aged(&self.home, age)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        (self.file, self.length) = append(&newest(&self.home))?;
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let bytes = line.len() as u64;
        if self.length > 0 && self.length + bytes > self.limit {
            // A log that cannot make room goes on in the file it has: too long is better than silent.
            let _ = self.make_room();
        }
        self.file.write_all(line)?;
        self.length += bytes;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    // What is said to a model may be in it.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;

    fn options(file_size: u64, files: u32) -> LogOptions {
        LogOptions {
            level: None,
            format: LogFormat::Text,
            file_size,
            files,
            prompts: false,
        }
    }

    fn text(home: &Path, age: u32) -> Option<String> {
        std::fs::read_to_string(aged(home, age)).ok()
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_is_dropped() {
        let home = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(home.path(), &options(20, 3)).unwrap();
        for number in 0..9 {
            writeln!(log, "line {number}.").unwrap();
        }
        // Two lines of eight bytes fit into twenty; no line is ever cut.
        assert_eq!(text(home.path(), 0).unwrap(), "line 8.\n");
        assert_eq!(text(home.path(), 1).unwrap(), "line 6.\nline 7.\n");
        assert_eq!(text(home.path(), 2).unwrap(), "line 4.\nline 5.\n");
        assert_eq!(text(home.path(), 3), None);

        // Another node goes on where this one ended, keeps fewer files and takes away what is too many.
        let mut log = LogFile::open(home.path(), &options(20, 1)).unwrap();
        writeln!(log, "line 9.").unwrap();
        assert_eq!(text(home.path(), 0).unwrap(), "line 8.\nline 9.\n");
        writeln!(log, "a line that is longer than a file may be").unwrap();
        assert_eq!(
            text(home.path(), 0).unwrap(),
            "a line that is longer than a file may be\n"
        );
        assert_eq!((text(home.path(), 1), text(home.path(), 2)), (None, None));
    }

    #[test]
    fn a_log_that_somebody_removed_comes_back_with_the_next_file() {
        let home = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(home.path(), &options(10, 2)).unwrap();
        writeln!(log, "one").unwrap();
        std::fs::remove_file(newest(home.path())).unwrap();
        writeln!(log, "to nobody").unwrap();
        writeln!(log, "two").unwrap();
        assert_eq!(text(home.path(), 0).unwrap(), "two\n");
    }
}
