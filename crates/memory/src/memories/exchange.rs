//! Taking in what people have already, and giving everything back: import and export.

use std::collections::HashSet;

use hearth_protocol::memory::{Imported, Memory, NewMemory};
use hearth_store::sqlite::Transaction;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::write::{insert, merge};
use super::{Memories, TOGETHER, lock};
use crate::Error;
use crate::embed::{encode, scheme};
use crate::gate;
use crate::import::{self, Contents};
use crate::sqlite::{self, PERSON};

impl Memories {
    /// Imports a file (see [`crate::import`]). One that is as it was the last time is passed over; of one that changed,
    /// memories that it no longer says are withdrawn, unless another file says them or a person wrote, changed or pinned
    /// them. What a person put something else in the place of does not come back. `usual` gives what the file does not
    /// say: project, tags, confidence. Texts are encoded together, and not compared for near likeness.
    ///
    /// An export of Hearth's is taken in as it was, each time: what is lacking comes back.
    ///
    /// # Errors
    /// If the file cannot be read, a memory in it is wrong, or the database or the encoder fails; what came before stays.
    pub fn import(
        &self,
        path: &str,
        bytes: &[u8],
        usual: &NewMemory,
        now: Timestamp,
    ) -> Result<Imported, Error> {
        let digest = digest(bytes, usual);
        let known = self.inner.store.read(|tx| sqlite::file(tx, path))?;
        if known == Some(digest) {
            return Ok(Imported {
                unchanged: 1,
                ..Imported::default()
            });
        }
        let contents = import::read(path, bytes).map_err(|why| Error::Unreadable {
            path: path.to_owned(),
            why,
        })?;
        let imported = match contents {
            Contents::New(new) => {
                let imported = self.import_new(path, new, usual, now)?;
                let store = &self.inner.store;
                store.write(|tx| sqlite::note_file(tx, path, &digest))?;
                imported
            }
            // Not noted: a backup is to help again when something else was lost.
            Contents::Memories(memories) => self.restore(&memories)?,
        };
        self.refresh()?;
        self.flush_now_and_then();
        Ok(imported)
    }

    /// The paths of files that were imported.
    ///
    /// # Errors
    /// If the database fails.
    pub fn files(&self) -> Result<Vec<String>, Error> {
        Ok(self.inner.store.read(sqlite::files)?)
    }

    /// Withdraws what only a file said that is gone; how many memories that is. They are kept, and no longer found.
    ///
    /// # Errors
    /// If the database fails.
    pub fn withdraw(&self, path: &str, now: Timestamp) -> Result<u64, Error> {
        let _one = lock(&self.inner.writing);
        let withdrawn = self.inner.store.write(|tx| -> Result<u64, Error> {
            sqlite::forget_file(tx, path)?;
            withdraw(tx, path, &HashSet::new(), now)
        })?;
        self.refresh()?;
        Ok(withdrawn)
    }

    fn import_new(
        &self,
        source: &str,
        new: Vec<(NewMemory, Option<Timestamp>)>,
        usual: &NewMemory,
        now: Timestamp,
    ) -> Result<Imported, Error> {
        let mut checked = Vec::with_capacity(new.len());
        for (mut new, written) in new {
            new.project = new.project.or_else(|| usual.project.clone());
            new.tags.extend(usual.tags.iter().cloned());
            new.confidence = new.confidence.or(usual.confidence);
            let new = gate::check(&new)?;
            let fingerprint = gate::fingerprint(&new.text);
            checked.push((new, fingerprint, written.unwrap_or(now)));
        }
        let said: HashSet<[u8; 32]> = checked
            .iter()
            .map(|(_, fingerprint, _)| *fingerprint)
            .collect();
        let mut imported = Imported::default();
        let meaning = self.meaning()?;
        let id = meaning.encoder().map(|encoder| scheme(encoder.as_ref()));
        for some in checked.chunks(TOGETHER) {
            let there = self.inner.store.read(|tx| -> Result<Vec<bool>, Error> {
                let same = some.iter().map(|(new, fingerprint, _)| {
                    Ok(sqlite::same(tx, fingerprint, new.project.as_deref())?.is_some())
                });
                same.collect()
            })?;
            let texts: Vec<&str> = some
                .iter()
                .zip(&there)
                .filter(|(_, there)| !**there)
                .map(|((new, ..), _)| new.text.as_str())
                .collect();
            let mut encoded = match meaning.encoder() {
                Some(encoder) => encode(encoder.as_ref(), &texts)?,
                None => Vec::new(),
            }
            .into_iter();
            // For each chunk, and not while it is encoded: others write between them.
            let _one = lock(&self.inner.writing);
            self.inner.store.write(|tx| -> Result<(), Error> {
                for ((new, fingerprint, written), there) in some.iter().zip(&there) {
                    let vectors = match there {
                        true => None,
                        false => encoded.next(),
                    };
                    let vectors = id.as_deref().zip(vectors.as_deref());
                    let project = new.project.as_deref();
                    if let Some(same) = sqlite::same(tx, fingerprint, project)? {
                        merge(tx, same, new, source, None, now)?;
                        imported.merged += 1;
                        continue;
                    }
                    if sqlite::is_replaced(tx, fingerprint, project, source)? {
                        imported.merged += 1;
                        continue;
                    }
                    insert(tx, new, fingerprint, source, vectors, *written)?;
                    imported.stored += 1;
                }
                Ok(())
            })?;
        }
        let _one = lock(&self.inner.writing);
        let store = &self.inner.store;
        imported.withdrawn = store.write(|tx| withdraw(tx, source, &said, now))?;
        Ok(imported)
    }

    /// Takes in memories of an export as they were, with ids, times and lineage. [`Memories::upkeep`] encodes them.
    fn restore(&self, memories: &[Memory]) -> Result<Imported, Error> {
        let newer: HashSet<&str> = memories
            .iter()
            .filter_map(|memory| memory.superseded_by.as_deref())
            .collect();
        let _one = lock(&self.inner.writing);
        self.inner.store.write(|tx| {
            let mut imported = Imported::default();
            for memory in memories {
                let fingerprint = gate::fingerprint(&memory.text);
                let Some(row) = sqlite::insert(tx, memory, &fingerprint)? else {
                    imported.merged += 1;
                    continue;
                };
                imported.stored += 1;
                // An export does not say who holds a memory. What its file no longer says is to go, unless a person
                // pinned it or wrote it in another's place.
                if let Some(source) = &memory.source {
                    sqlite::hold(tx, row, source)?;
                }
                let is_edited = newer.contains(memory.id.as_str());
                if memory.source.is_none() || memory.pinned || is_edited {
                    sqlite::hold(tx, row, PERSON)?;
                }
            }
            for memory in memories {
                if let Some(new) = &memory.superseded_by {
                    sqlite::succeed(tx, &memory.id, new)?;
                }
                for other in &memory.related {
                    if let (Some(one), Some(other)) =
                        (sqlite::by_id(tx, &memory.id)?, sqlite::by_id(tx, other)?)
                    {
                        sqlite::link(tx, one.row, other.row)?;
                    }
                }
            }
            Ok(imported)
        })
    }

    /// Calls `each` with every memory, superseded ones too, oldest first: all that [`Memories::import`] needs to make the
    /// same store again. Stops when it returns `false`. All are of one moment, whatever is written meanwhile; `each` must
    /// not call this store.
    ///
    /// # Errors
    /// If the database fails.
    pub fn export(&self, each: &mut dyn FnMut(&Memory) -> bool) -> Result<(), Error> {
        self.tell_reads()?;
        self.inner.store.read(|tx| {
            let mut row = 0;
            loop {
                let page = sqlite::from_row(tx, row, TOGETHER)?;
                let Some(last) = page.last() else {
                    return Ok(());
                };
                row = last.row + 1;
                for mut stored in page {
                    sqlite::complete_to(tx, &mut stored, usize::MAX)?;
                    if !each(&stored.memory) {
                        return Ok(());
                    }
                }
            }
        })
    }
}

/// Of a file and of what is said of all that is in it: under another project it is not the same import.
fn digest(bytes: &[u8], usual: &NewMemory) -> [u8; 32] {
    let usual = serde_json::json!([usual.project, usual.tags, usual.confidence]);
    let all = Sha256::new_with_prefix(usual.to_string());
    all.chain_update([0]).chain_update(bytes).finalize().into()
}

/// Has a source hold no longer what it does not say any more; how many memories that withdraws.
fn withdraw(
    tx: &Transaction<'_>,
    source: &str,
    said: &HashSet<[u8; 32]>,
    now: Timestamp,
) -> Result<u64, Error> {
    let mut withdrawn = 0;
    for (row, fingerprint) in sqlite::held(tx, source)? {
        if !said.contains(&fingerprint) && sqlite::let_go(tx, row, source, now)? {
            withdrawn += 1;
        }
    }
    Ok(withdrawn)
}
