//! Which pieces of a file have come: a map in memory and beside the partial file, so that a download goes on after any
//! end of its process.
//!
//! The file is text that only grows: a line with the file's and the chunks' length, then one line for each chunk that
//! is complete. A last line that was cut is ignored. Nothing is flushed to the disk on the way: after a power cut the
//! map may promise what is not there, and the checksum over the whole file finds that.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::error::Error;

/// Ending of a map's name.
pub(crate) const ENDING: &str = ".chunks";

/// The map of one file.
#[derive(Debug)]
pub(crate) struct Chunks {
    path: PathBuf,
    file: File,
    size: u64,
    length: u64,
    done: Vec<bool>,
}

/// Where the map of a partial file is.
pub(crate) fn map_path(partial: &Path) -> PathBuf {
    let mut name = partial.as_os_str().to_owned();
    name.push(ENDING);
    name.into()
}

/// Reads a map's text: length of the chunks, and which are complete. `None` if it is not one of a file of this size.
fn read(text: &str, size: u64) -> Option<(u64, Vec<bool>)> {
    let (head, mut rest) = text.split_once('\n')?;
    let numbers = head.strip_prefix("hearth-chunks 1 ")?;
    let (of_file, of_chunk) = numbers.split_once(' ')?;
    let length: u64 = of_chunk.parse().ok().filter(|length| *length > 0)?;
    if of_file.parse() != Ok(size) {
        return None;
    }
    let mut done = vec![false; usize::try_from(size.div_ceil(length)).ok()?];
    while let Some((line, after)) = rest.split_once('\n') {
        let index: usize = line.parse().ok()?;
        *done.get_mut(index)? = true;
        rest = after;
    }
    Some((length, done))
}

impl Chunks {
    /// The map of a partial file of `size` bytes: the one that is there, or a new one of chunks of `length` bytes.
    pub fn open(partial: &Path, size: u64, length: u64) -> Result<Self, Error> {
        let path = map_path(partial);
        let failed = |error| Error::storage("write", &path, &error);
        // A map without its file promises nothing; one that cannot be read neither.
        let text = match disk::length(partial) {
            Some(_) => fs::read_to_string(&path).unwrap_or_default(),
            None => String::new(),
        };
        if let Some((length, done)) = read(&text, size) {
            let file = File::options().append(true).open(&path).map_err(failed)?;
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            if whole < text.len() {
                file.set_len(whole as u64).map_err(failed)?;
            }
            return Ok(Self {
                path,
                file,
                size,
                length,
                done,
            });
        }
        disk::remove(partial)?;
        let mut file = File::create(&path).map_err(failed)?;
        file.write_all(format!("hearth-chunks 1 {size} {length}\n").as_bytes())
            .map_err(failed)?;
        Ok(Self {
            done: vec![false; usize::try_from(size.div_ceil(length)).unwrap_or(usize::MAX)],
            path,
            file,
            size,
            length,
        })
    }

    /// Bytes of a partial file that need not come again; changes nothing.
    pub fn resumable(partial: &Path, size: u64) -> u64 {
        let text = match disk::length(partial) {
            Some(_) => fs::read_to_string(map_path(partial)).unwrap_or_default(),
            None => String::new(),
        };
        let Some((length, done)) = read(&text, size) else {
            return 0;
        };
        let done = (0u64..).zip(done).filter(|(_, done)| *done);
        done.map(|(index, _)| length.min(size - index * length))
            .sum()
    }

    /// First byte of a chunk, and the one after its last.
    pub fn range(&self, index: usize) -> (u64, u64) {
        let first = index as u64 * self.length;
        (first, (first + self.length).min(self.size))
    }

    /// Number of chunks.
    pub fn count(&self) -> usize {
        self.done.len()
    }

    /// Whether a chunk is complete.
    pub fn is_done(&self, index: usize) -> bool {
        self.done.get(index).copied().unwrap_or(false)
    }

    /// Bytes of all complete chunks.
    pub fn bytes(&self) -> u64 {
        (0..self.count())
            .filter(|index| self.is_done(*index))
            .map(|index| self.range(index))
            .map(|(first, end)| end - first)
            .sum()
    }

    /// Notes that a chunk is complete.
    pub fn finish(&mut self, index: usize) -> Result<(), Error> {
        if self.is_done(index) {
            return Ok(());
        }
        // One call, so that a line is there or not.
        self.file
            .write_all(format!("{index}\n").as_bytes())
            .map_err(|error| Error::storage("write", &self.path, &error))?;
        self.done[index] = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_finished_is_known_again_and_a_cut_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let partial = folder.path().join("a");
        let mut map = Chunks::open(&partial, 10, 4).unwrap();
        assert_eq!((map.count(), map.range(2)), (3, (8, 10)));
        fs::write(&partial, b"").unwrap();
        map.finish(2).unwrap();
        drop(map);
        let path = map_path(&partial);
        fs::write(&path, fs::read_to_string(&path).unwrap() + "1").unwrap();
        // The chunk length of the map counts, not the one asked for.
        assert_eq!(Chunks::resumable(&partial, 10), 2);
        let map = Chunks::open(&partial, 10, 5).unwrap();
        assert_eq!(map.bytes(), 2);
        assert!(map.is_done(2) && !map.is_done(1));
        drop(map);
        let map = Chunks::open(&partial, 10, 5).unwrap();
        assert!(!map.is_done(1), "a cut line came back whole");
        drop(map);
        // Another size: another file.
        assert_eq!(Chunks::open(&partial, 11, 5).unwrap().bytes(), 0);
    }

    #[test]
    fn a_map_without_its_file_counts_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let partial = folder.path().join("a");
        let mut map = Chunks::open(&partial, 10, 4).unwrap();
        map.finish(0).unwrap();
        drop(map);
        assert_eq!(Chunks::open(&partial, 10, 4).unwrap().bytes(), 0);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(hearth-chunks 1 [0-9]{1,3} [0-9]{1,2}\n)?([0-9a\n]{0,20})", size in 0u64..1000) {
            if let Some((length, done)) = read(&text, size) {
                prop_assert_eq!(done.len() as u64, size.div_ceil(length));
            }
        }

        #[test]
        fn a_map_cut_anywhere_keeps_only_what_was_finished(finished in prop::collection::vec(0usize..20, 0..20), cut in 0usize..100) {
            let mut text = "hearth-chunks 1 200 10\n".to_owned();
            for index in &finished {
                text += &format!("{index}\n");
            }
            text.truncate(cut.min(text.len()));
            if let Some((_, done)) = read(&text, 200) {
                for (index, done) in done.iter().enumerate() {
                    prop_assert!(!done || finished.contains(&index));
                }
            }
        }
    }
}
