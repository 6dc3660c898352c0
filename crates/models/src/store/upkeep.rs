//! Looking after a store: whether its files are whole, and what nobody needs any more.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{DAMAGED, ModelStore};
use crate::cancel::Cancel;
use crate::disk;
use crate::error::Error;
use crate::manifest::Digest;

/// What checking a blob found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The blob.
    pub digest: Digest,
    /// Its length in bytes by the manifests.
    pub size: u64,
    /// Names that use it.
    pub names: Vec<String>,
    /// What is wrong with it; `None` if it is whole.
    pub problem: Option<String>,
}

/// What pruning removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Blobs that no name used.
    pub blobs: u64,
    /// Downloads that were not complete.
    pub partials: u64,
    /// Bytes of both.
    pub freed: u64,
}

impl ModelStore {
    /// Hashes the files of one model or of all and tells which are damaged. A damaged one gets a note, and the next
    /// pull of a model with it fetches it again. `hear` is told after each piece: bytes so far, and of all.
    ///
    /// # Errors
    /// As [`ModelStore::find`], what the disk says, or [`crate::Reason::Cancelled`].
    pub fn verify(
        &self,
        name: Option<&str>,
        cancel: &Cancel,
        hear: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<Checked>, Error> {
        let all = self.list()?;
        let wanted = match name {
            Some(name) => vec![self.find(name)?],
            None => all.clone(),
        };
        let mut blobs: BTreeMap<Digest, (u64, Vec<String>)> = BTreeMap::new();
        for file in wanted.iter().flat_map(|model| &model.files) {
            let users = all.iter().filter(|model| model.files.contains(file));
            let users = users.map(|model| model.name.clone()).collect();
            blobs.insert(file.digest, (file.size, users));
        }
        let total = blobs.values().map(|(size, _)| size).sum();
        let mut done = 0;
        let mut checked = Vec::new();
        for (digest, (size, names)) in blobs {
            let path = self.blob_path(&digest);
            let problem = match disk::length(&path) {
                None => Some("is missing".to_owned()),
                Some(length) if length != size => {
                    Some(format!("has {length} bytes and must have {size}"))
                }
                Some(_) => {
                    let found = disk::hash(&path, cancel, &mut |bytes| {
                        done += bytes;
                        hear(done, total);
                    })?;
                    (found != digest).then(|| format!("has other content ({found})"))
                }
            };
            let note = self.note_path(&digest);
            match problem.is_some() && path.exists() {
                true => disk::write(&note, b"")?,
                false => drop(disk::remove(&note)?),
            }
            checked.push(Checked {
                digest,
                size,
                names,
                problem,
            });
        }
        Ok(checked)
    }

    /// Removes blobs that no name uses, and downloads that are not complete and not under way.
    ///
    /// # Errors
    /// What the disk says.
    pub fn prune(&self) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        if !self.root.exists() {
            return Ok(pruned);
        }
        let books = self.books()?;
        let used = self.used()?;
        for (name, path) in disk::entries(&self.blobs())? {
            let Ok(digest) = name.trim_end_matches(DAMAGED).parse::<Digest>() else {
                continue;
            };
            if used.contains(&digest) {
                continue;
            }
            if let Some(claim) = self.try_claim(&books, &digest.file())? {
                let freed = disk::remove(&path)?;
                if !name.ends_with(DAMAGED) {
                    pruned.blobs += 1;
                    pruned.freed += freed;
                }
                drop(claim);
            }
        }
        for (name, path) in disk::entries(&self.partials())? {
            let key = name.strip_suffix(crate::chunks::ENDING).unwrap_or(&name);
            if let Some(claim) = self.try_claim(&books, key)? {
                // Holes of a partial file take no room.
                let freed = allocated(&path);
                disk::remove(&path)?;
                if name == key {
                    pruned.partials += 1;
                }
                pruned.freed += freed;
                drop(claim);
            }
        }
        for (name, _) in disk::entries(&self.parts())? {
            if let Ok(model) = name.parse::<Digest>() {
                self.release_links(&books, &model)?;
            }
        }
        // A manifest that was being written when its process ended.
        for (name, path) in disk::entries(&self.names())? {
            if disk::is_fresh_name(&name) {
                disk::remove(&path)?;
            }
        }
        for (name, _) in disk::entries(&self.locks())? {
            if name != "store"
                && let Some(claim) = self.try_claim(&books, &name)?
            {
                self.forget_claim(&books, claim, &name);
            }
        }
        Ok(pruned)
    }
}

/// Bytes that a file takes on the disk.
pub(crate) fn allocated(path: &Path) -> u64 {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        fs::symlink_metadata(path).map_or(0, |file| file.blocks() * 512)
    }
    #[cfg(not(unix))]
    {
        fs::symlink_metadata(path).map_or(0, |file| file.len())
    }
}
