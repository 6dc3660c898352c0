//! The flat file of int8 vectors: a header, and one row after the other, mapped into memory.
//!
//! It is made from the database and holds nothing that is not there. Rows are only appended; who changes or erases one
//! writes the file anew beside the old one and renames it, so that no process sees half of it. New rows wait in memory
//! until [`Vectors::flush`]. A file that is cut short, damaged, of another encoder or of another generation of the
//! database is not used.
//!
//! Layout, little-endian: `HRTHVEC1`, dimensions (u32), rows (u32), generation (u64), the encoder's digest (32 bytes),
//! CRC-32 of the rows (u32), CRC-32 of what precedes (u32); then the rows.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fs4::FileExt;
use memmap2::Mmap;

const MAGIC: [u8; 8] = *b"HRTHVEC1";
const HEADER: usize = 64;

/// What a file's rows are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Bytes of a row.
    pub dimensions: u32,
    /// Which numbering of rows the database uses.
    pub generation: u64,
    /// Digest of the encoder's id.
    pub encoder: [u8; 32],
}

/// A file that is mapped, and open, so that its length can be asked.
#[derive(Debug)]
struct Mapped {
    map: Mmap,
    file: File,
}

/// How many rows a file has, and their checksum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Extent {
    rows: u32,
    crc: u32,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Vectors {
    /// Without one everything stays in memory.
    path: Option<PathBuf>,
    stamp: Stamp,
    map: Option<Mapped>,
    extent: Extent,
    tail: Vec<i8>,
    /// Whether rows of the file are no longer what they should be.
    outdated: bool,
}

impl Vectors {
    /// The rows of the file that fit the stamp; none if there is no such file. Says what was wrong with a file that is
    /// not used.
    pub fn open(path: Option<&Path>, stamp: Stamp) -> (Self, Option<String>) {
        let mut vectors = Self {
            path: path.map(Path::to_owned),
            stamp,
            map: None,
            extent: Extent::default(),
            tail: Vec::new(),
            outdated: false,
        };
        let trouble = match path.map(|path| read(path, &stamp)) {
            None | Some(Ok(None)) => None,
            Some(Ok(Some((map, extent)))) => {
                vectors.map = Some(map);
                vectors.extent = extent;
                None
            }
            Some(Err(trouble)) => {
                vectors.outdated = true;
                Some(trouble)
            }
        };
        (vectors, trouble)
    }

    /// Rows there are.
    pub fn rows(&self) -> usize {
        self.extent.rows as usize + self.tail.len() / self.width()
    }

    fn width(&self) -> usize {
        self.stamp.dimensions.max(1) as usize
    }

    /// The rows of the file, and those that follow them.
    pub fn parts(&self) -> [&[i8]; 2] {
        let mapped: &[i8] = match &self.map {
            Some(map) => {
                let end = HEADER + self.extent.rows as usize * self.width();
                bytemuck::cast_slice(map.map.get(HEADER..end).unwrap_or_default())
            }
            None => &[],
        };
        [mapped, &self.tail]
    }

    /// Appends a row.
    pub fn push(&mut self, row: &[i8]) {
        debug_assert_eq!(row.len(), self.width());
        self.tail.extend_from_slice(row);
    }

    /// Forgets every row after the first `rows`.
    pub fn truncate(&mut self, rows: usize) {
        let mapped = self.extent.rows as usize;
        if rows < mapped {
            self.tail.clear();
            self.bring_into_memory(rows);
        } else {
            self.tail.truncate((rows - mapped) * self.width());
        }
    }

    /// Overwrites a row with zeros, here at once and in the file with the next flush.
    pub fn erase(&mut self, row: usize) {
        if row >= self.rows() {
            return;
        }
        let width = self.width();
        let [mapped, tail] = self.parts();
        let there = mapped.chunks(width).chain(tail.chunks(width)).nth(row);
        // Again at each start: nothing to do, and no reason to write the file anew.
        if there.is_some_and(|there| there.iter().all(|value| *value == 0)) {
            return;
        }
        if row < self.extent.rows as usize {
            self.bring_into_memory(self.extent.rows as usize);
        }
        let at = (row - self.extent.rows as usize) * width;
        self.tail[at..at + width].fill(0);
    }

    /// Takes the first rows of the file into memory; the file is no longer used.
    fn bring_into_memory(&mut self, rows: usize) {
        let [mapped, tail] = self.parts();
        let mut all = mapped[..rows * self.width()].to_vec();
        all.extend_from_slice(tail);
        self.tail = all;
        self.map = None;
        self.extent = Extent::default();
        self.outdated = true;
    }

    /// Whether the file is still as long as it was. Nobody cuts it short who means well; but who does would end the
    /// process at its next look at the rows that are gone.
    pub fn is_whole(&self) -> bool {
        let Some(mapped) = &self.map else { return true };
        let length = mapped.file.metadata().map(|file| file.len());
        length.is_ok_and(|length| length >= mapped.map.len() as u64)
    }

    /// Rows that are not in the file.
    pub fn unwritten(&self) -> usize {
        self.tail.len() / self.width()
    }

    /// Whether [`Vectors::flush`] has something to do.
    pub fn is_dirty(&self) -> bool {
        self.outdated || !self.tail.is_empty()
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.map
            .as_ref()
            .map_or(0, |mapped| mapped.map.len() as u64)
    }

    /// Writes what is not in the file, and maps it. On an error everything stays as it is, in memory.
    ///
    /// # Errors
    /// What the system said.
    pub fn flush(&mut self) -> std::io::Result<()> {
        let Some(path) = self.path.clone() else {
            return Ok(());
        };
        if !self.is_dirty() {
            return Ok(());
        }
        if self.outdated || self.map.is_none() || !self.append(&path)? {
            self.write_anew(&path)?;
        }
        match read(&path, &self.stamp) {
            // Another process may have appended more; its rows are the same as ours.
            Ok(Some((map, extent))) if extent.rows as usize >= self.rows() => {
                let rows = self.rows() as u32;
                self.extent = match extent.rows == rows {
                    true => extent,
                    false => Extent { rows, crc: 0 },
                };
                self.map = Some(map);
                self.tail = Vec::new();
                self.outdated = false;
                Ok(())
            }
            // Another process replaced it at this moment: ours stays in memory until the next time.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Appends to the file under its lock; `false` if it is not the file that it was.
    fn append(&self, path: &Path) -> std::io::Result<bool> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        FileExt::lock(&file)?;
        let mut head = [0; HEADER];
        file.read_exact(&mut head)?;
        let Ok(extent) = parse(&head, &self.stamp) else {
            return Ok(false);
        };
        let (there, mapped) = (extent.rows as usize, self.extent.rows as usize);
        if there < mapped {
            return Ok(false);
        }
        let Some(rest) = self.tail.get((there - mapped) * self.width()..) else {
            // Another process wrote them all.
            return Ok(true);
        };
        let rest: &[u8] = bytemuck::cast_slice(rest);
        let mut crc = crc32fast::Hasher::new_with_initial(extent.crc);
        crc.update(rest);
        let new = Extent {
            rows: self.rows() as u32,
            crc: crc.finalize(),
        };
        file.seek(SeekFrom::Start((HEADER + there * self.width()) as u64))?;
        file.write_all(rest)?;
        // The header last: until then the file is what it was, with bytes behind it that nobody reads.
        file.sync_data()?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&head_of(&self.stamp, new))?;
        Ok(true)
    }

    /// Writes all rows into a new file, and puts it into the place of the old one.
    fn write_anew(&self, path: &Path) -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        let mut crc = crc32fast::Hasher::new();
        for part in self.parts() {
            crc.update(bytemuck::cast_slice(part));
        }
        let extent = Extent {
            rows: self.rows() as u32,
            crc: crc.finalize(),
        };
        file.write_all(&head_of(&self.stamp, extent))?;
        for part in self.parts() {
            file.write_all(bytemuck::cast_slice(part))?;
        }
        file.as_file().sync_data()?;
        file.persist(path)?;
        Ok(())
    }
}

fn head_of(stamp: &Stamp, extent: Extent) -> [u8; HEADER] {
    let mut head = [0; HEADER];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&stamp.dimensions.to_le_bytes());
    head[12..16].copy_from_slice(&extent.rows.to_le_bytes());
    head[16..24].copy_from_slice(&stamp.generation.to_le_bytes());
    head[24..56].copy_from_slice(&stamp.encoder);
    head[56..60].copy_from_slice(&extent.crc.to_le_bytes());
    let crc = crc32fast::hash(&head[..60]);
    head[60..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// What a header says of its rows, or why it is not of this stamp.
fn parse(head: &[u8; HEADER], stamp: &Stamp) -> Result<Extent, &'static str> {
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if head[..8] != MAGIC {
        return Err("is no file of vectors, or of another version");
    }
    if word(60) != crc32fast::hash(&head[..60]) {
        return Err("has a damaged header");
    }
    let extent = Extent {
        rows: word(12),
        crc: word(56),
    };
    match head_of(stamp, extent) == *head {
        true => Ok(extent),
        false => Err("is of another encoder, or of another state of the database"),
    }
}

/// Maps a file and checks it. `None` if there is none.
fn read(path: &Path, stamp: &Stamp) -> Result<Option<(Mapped, Extent)>, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let mut file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let mut head = [0; HEADER];
    if file.read_exact(&mut head).is_err() {
        return Err("is cut short".into());
    }
    let extent = parse(&head, stamp)?;
    let bytes = u64::from(extent.rows) * u64::from(stamp.dimensions);
    let length = file.metadata().map_err(failed)?.len();
    if length < HEADER as u64 + bytes {
        return Err("is cut short".into());
    }
    // SAFETY: no process of Hearth's shortens such a file or changes rows that its header counts: rows are appended,
    // everything else is a new file under the same name. Against others the length is asked before each search
    // (`is_whole`), which leaves them the time of one.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
    let rows = map
        .get(HEADER..HEADER + bytes as usize)
        .ok_or("is cut short")?;
    match crc32fast::hash(rows) == extent.crc {
        true => Ok(Some((Mapped { map, file }, extent))),
        false => Err("has damaged rows".into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const STAMP: Stamp = Stamp {
        dimensions: 3,
        generation: 7,
        encoder: [9; 32],
    };

    fn all(vectors: &Vectors) -> Vec<i8> {
        vectors.parts().concat()
    }

    fn filled(path: &Path, rows: i8) -> Vectors {
        let (mut vectors, trouble) = Vectors::open(Some(path), STAMP);
        assert_eq!(trouble, None);
        for row in vectors.rows() as i8..rows {
            vectors.push(&[row; 3]);
        }
        vectors.flush().unwrap();
        vectors
    }

    #[test]
    fn what_was_written_is_there_again_and_can_be_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        filled(&path, 2);
        let again = filled(&path, 4);
        assert_eq!((again.unwritten(), again.rows()), (0, 4));
        assert_eq!(all(&again), [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
        let (fresh, trouble) = Vectors::open(Some(&path), STAMP);
        assert_eq!((all(&fresh), trouble), (all(&again), None));
    }

    #[test]
    fn two_that_append_the_same_rows_agree() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        let mut one = filled(&path, 1);
        let mut two = filled(&path, 1);
        for vectors in [&mut one, &mut two] {
            vectors.push(&[5; 3]);
        }
        two.push(&[6; 3]);
        one.flush().unwrap();
        two.flush().unwrap();
        one.push(&[6; 3]);
        one.flush().unwrap();
        let (fresh, trouble) = Vectors::open(Some(&path), STAMP);
        assert_eq!(trouble, None);
        assert_eq!(all(&fresh), [0, 0, 0, 5, 5, 5, 6, 6, 6]);
        assert_eq!(all(&one), all(&fresh));
    }

    #[test]
    fn erased_rows_leave_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        let mut vectors = filled(&path, 3);
        vectors.erase(1);
        assert_eq!(all(&vectors), [0, 0, 0, 0, 0, 0, 2, 2, 2]);
        vectors.flush().unwrap();
        let (fresh, trouble) = Vectors::open(Some(&path), STAMP);
        assert_eq!((all(&fresh), trouble), (all(&vectors), None));
    }

    #[test]
    fn a_damaged_file_is_told_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        filled(&path, 3);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            let (vectors, trouble) = Vectors::open(Some(&path), STAMP);
            assert!(trouble.is_some() && vectors.rows() == 0, "byte {at}");
        }
        for length in 0..good.len() {
            std::fs::write(&path, &good[..length]).unwrap();
            let (mut vectors, trouble) = Vectors::open(Some(&path), STAMP);
            assert!(trouble.is_some() && vectors.rows() == 0, "{length} bytes");
            vectors.push(&[1; 3]);
            vectors.flush().unwrap();
            let (fresh, trouble) = Vectors::open(Some(&path), STAMP);
            assert_eq!((all(&fresh), trouble), (vec![1; 3], None));
        }
        for other in [
            Stamp {
                generation: 8,
                ..STAMP
            },
            Stamp {
                encoder: [8; 32],
                ..STAMP
            },
            Stamp {
                dimensions: 1,
                ..STAMP
            },
        ] {
            let (vectors, trouble) = Vectors::open(Some(&path), other);
            assert!(trouble.is_some() && vectors.rows() == 0);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone").join("v");
        let (mut vectors, _) = Vectors::open(Some(&path), STAMP);
        vectors.push(&[4; 3]);
        assert!(vectors.flush().is_err());
        assert_eq!(all(&vectors), [4; 3]);
    }
}
