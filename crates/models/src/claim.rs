//! Who works on what: locks between processes, as files in `locks/` of the store.
//!
//! One lock guards the store's books for moments: writing a manifest, removing what nobody needs. Beside it there is a
//! claim for each blob, held by whoever brings it until its manifest is written, and one for the links of a split
//! model. Who needs several takes them all at once and in one order ([`ModelStore::claim_all`]), so nobody waits in a
//! circle. A claim's file is opened and locked while the store's lock is held, and removed only under that lock too, so
//! that no two processes hold locks on two files of one name. The system lets go of all of them when a process ends,
//! however it ends.

use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::disk;
use crate::error::Error;
use crate::manifest::{Digest, Model, ModelFile};
use crate::store::ModelStore;

/// How often a claim that somebody else has is asked for again.
const AGAIN: Duration = Duration::from_millis(200);

/// The store's books are ours until this is dropped.
pub(crate) struct Books {
    _file: File,
}

/// A file of the store is ours to write until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    _file: File,
}

fn open(path: &PathBuf) -> Result<File, Error> {
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path);
    opened.map_err(|error| Error::storage("open", path, &error))
}

impl ModelStore {
    /// Waits for the store's books. Everybody holds them for moments only.
    pub(crate) fn books(&self) -> Result<Books, Error> {
        disk::create_folder(&self.locks())?;
        let path = self.locks().join("store");
        let file = open(&path)?;
        file.lock()
            .map_err(|error| Error::storage("lock", &path, &error))?;
        Ok(Books { _file: file })
    }

    /// The claim to a file, if nobody else has it.
    pub(crate) fn try_claim(&self, _books: &Books, file: &str) -> Result<Option<Claim>, Error> {
        let path = self.locks().join(file);
        let lock = open(&path)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Claim { _file: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::storage("lock", &path, &error)),
        }
    }

    /// Waits for the claim to a file; calls `waiting` once if somebody else has it.
    pub(crate) fn claim(
        &self,
        file: &str,
        cancel: &Cancel,
        waiting: &mut dyn FnMut(),
    ) -> Result<Claim, Error> {
        let mut told = false;
        loop {
            let books = self.books()?;
            if let Some(claim) = self.try_claim(&books, file)? {
                return Ok(claim);
            }
            drop(books);
            if !told {
                waiting();
                told = true;
            }
            cancel.wait(AGAIN)?;
        }
    }

    /// Waits for the claims to a model's blobs, and to its links if it is split; calls `waiting` each time somebody else
    /// has one. The caller holds none of a blob: in the order of the digests no two wait for each other.
    pub(crate) fn claim_all(
        &self,
        files: &[ModelFile],
        cancel: &Cancel,
        waiting: &mut dyn FnMut(),
    ) -> Result<Vec<Claim>, Error> {
        let mut digests: Vec<Digest> = files.iter().map(|file| file.digest).collect();
        digests.push(Model::digest_of(files));
        digests.sort();
        digests.dedup();
        digests
            .iter()
            .map(|digest| self.claim(&digest.file(), cancel, waiting))
            .collect()
    }

    /// Removes the file of a claim that is held, so that none is left behind for what is gone.
    pub(crate) fn forget_claim(&self, _books: &Books, claim: Claim, file: &str) {
        // Windows removes no file that is open in a way that forbids it; a lock file left behind does no harm.
        let _ = std::fs::remove_file(self.locks().join(file));
        drop(claim);
    }
}
