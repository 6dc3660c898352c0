//! File operations that leave the old or the new state and nothing between, whenever the process or the machine ends.

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use crate::cancel::Cancel;
use crate::error::Error;
use crate::manifest::Digest;

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// Makes what was done in a folder (new, renamed and removed names) survive a power cut.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    // Windows has no such operation and does it by itself.
    match cfg!(unix) {
        true => File::open(folder)?.sync_all(),
        false => Ok(()),
    }
}

/// Creates a folder and those above it.
pub(crate) fn create_folder(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|error| Error::storage("create", folder, &error))
}

/// A name that no other call, in this process or another one, uses at the same time.
pub(crate) fn fresh_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // In a container every process may have the same number, and what a killed one left has its name.
    let random = std::hash::RandomState::new().build_hasher().finish();
    format!("tmp-{}-{count}-{random:016x}", std::process::id())
}

/// Whether a file has a name of [`fresh_name`].
pub(crate) fn is_fresh_name(name: &str) -> bool {
    name.starts_with("tmp-")
}

/// Puts a file with these bytes at `path`.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let fresh = folder.join(fresh_name());
    let written = (|| {
        let mut file = File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&fresh, path)?;
        sync_folder(folder)
    })();
    written.map_err(|error| {
        let _ = fs::remove_file(&fresh);
        Error::storage("write", path, &error)
    })
}

/// Gives a file that is complete its final place, in another folder of the same disk.
pub(crate) fn settle(from: &Path, to: &Path) -> Result<(), Error> {
    let settled = (|| {
        // Windows flushes no file that is open for reading alone; elsewhere that is enough, also for one that nobody
        // may write.
        match cfg!(windows) {
            true => File::options().write(true).open(from)?.sync_all()?,
            false => File::open(from)?.sync_all()?,
        }
        fs::rename(from, to)?;
        sync_folder(to.parent().unwrap_or(Path::new(".")))
    })();
    settled.map_err(|error| Error::storage("write", to, &error))
}

/// Removes a file; one that is not there is removed already. Returns its length.
pub(crate) fn remove(path: &Path) -> Result<u64, Error> {
    let length = fs::symlink_metadata(path).map_or(0, |file| file.len());
    match fs::remove_file(path) {
        Ok(()) => Ok(length),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Error::storage("remove", path, &error)),
    }
}

/// Names in a folder with their paths, sorted; a folder that is not there has none.
pub(crate) fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let failed = |error| Error::storage("read", folder, &error);
    let mut all = Vec::new();
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
        Err(error) => return Err(failed(error)),
    };
    for entry in listed {
        let entry = entry.map_err(failed)?;
        // Nothing of ours has a name that is not Unicode.
        if let Ok(name) = entry.file_name().into_string() {
            all.push((name, entry.path()));
        }
    }
    all.sort();
    Ok(all)
}

/// Length of a file, if it is there.
pub(crate) fn length(path: &Path) -> Option<u64> {
    let file = fs::metadata(path).ok()?;
    file.is_file().then_some(file.len())
}

/// Hashes a file and tells `hear` after each piece how many bytes it had.
pub(crate) fn hash(
    path: &Path,
    cancel: &Cancel,
    hear: &mut dyn FnMut(u64),
) -> Result<Digest, Error> {
    let failed = |error| Error::storage("read", path, &error);
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        cancel.check()?;
        let count = match file.read(&mut piece) {
            Ok(0) => return Ok(Digest::of(hasher)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        hasher.update(&piece[..count]);
        hear(count as u64);
    }
}

/// Bytes that may still be written to the disk of a folder.
pub(crate) fn free(folder: &Path) -> Result<u64, Error> {
    fs4::available_space(folder).map_err(|error| Error::storage("look at", folder, &error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, b"old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(entries(folder.path()).unwrap().len(), 1);
        // A folder in the way: refused, and no rest of the attempt.
        fs::create_dir(folder.path().join("b")).unwrap();
        assert!(write(&folder.path().join("b"), b"x").is_err());
        assert_eq!(entries(folder.path()).unwrap().len(), 2);
    }

    #[test]
    fn hashing_can_be_cancelled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, b"abc").unwrap();
        let cancel = Cancel::default();
        let mut seen = 0;
        let digest = hash(&path, &cancel, &mut |bytes| seen += bytes).unwrap();
        assert_eq!(digest, Digest::of_bytes(b"abc"));
        assert_eq!(seen, 3);
        cancel.cancel();
        let error = hash(&path, &cancel, &mut |_| {}).unwrap_err();
        assert_eq!(error.reason(), crate::Reason::Cancelled);
    }
}
