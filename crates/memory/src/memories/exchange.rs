//! Taking in what people have already, and giving everything back: import and export.

use std::collections::HashSet;

use hearth_protocol::memory::{Exported, Imported, NewMemory};
use hearth_store::sqlite::Transaction;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::write::{insert, merge};
use super::{Memories, TOGETHER, lock};
use crate::Error;
use crate::gate::{self, Checked};
use crate::import::{self, Contents};
use crate::sqlite::{self, PERSON, Stored};

/// Memories of an export that are read together; each has up to 64 KiB.
const PAGE: usize = 64;

/// What becomes of a text of a file.
enum Place {
    /// It is there already.
    There(Box<Stored>),
    /// The file alone said it under another project: what is in this row is to be of this one.
    Elsewhere(i64),
    /// It is not there.
    New,
}

/// A text of a file, its fingerprint, and when it was written.
type Said = (Checked, [u8; 32], Timestamp);

impl Memories {
    /// Imports a file (see [`crate::import`]). One that is as it was the last time is passed over; of one that changed,
    /// memories that it no longer says are withdrawn, unless another file says them or a person wrote, changed or pinned
    /// them. What a person put something else in the place of does not come back. `usual` gives what the file does not
    /// say: project, tags, confidence. A file belongs to the project that it was imported under last: what it alone said
    /// under another one moves. Texts are encoded together, and not compared for near likeness.
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
            withdraw(tx, path, &|_| false, now)
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
        let said: HashSet<([u8; 32], &str)> = checked
            .iter()
            .map(|(new, fingerprint, _)| (*fingerprint, new.project.as_deref().unwrap_or_default()))
            .collect();
        let fingerprints: HashSet<[u8; 32]> = said.iter().map(|(said, _)| *said).collect();
        let place = |tx: &Transaction<'_>, (new, fingerprint, _): &Said| -> Result<Place, Error> {
            let project = new.project.as_deref();
            let same = sqlite::same(tx, fingerprint, project)?;
            let project = project.unwrap_or_default();
            let of = |stored: &Stored| stored.memory.project.clone().unwrap_or_default();
            if same.as_ref().is_some_and(|same| of(same) == project) {
                return Ok(same.map_or(Place::New, |same| Place::There(Box::new(same))));
            }
            let mut alone = sqlite::held_alone(tx, fingerprint, source)?.into_iter();
            let elsewhere = alone.find(|(row, elsewhere)| {
                !said.contains(&(*fingerprint, elsewhere))
                    && same.as_ref().is_none_or(|same| same.row == *row)
            });
            Ok(match (elsewhere, same) {
                (Some((row, _)), _) => Place::Elsewhere(row),
                (None, Some(same)) => Place::There(Box::new(same)),
                (None, None) => Place::New,
            })
        };
        let mut imported = Imported::default();
        let mut held = HashSet::new();
        for some in checked.chunks(TOGETHER) {
            let is_new = self.inner.store.read(|tx| -> Result<Vec<bool>, Error> {
                let places = some.iter().map(|one| place(tx, one));
                places
                    .map(|place| Ok(matches!(place?, Place::New)))
                    .collect()
            })?;
            let new = some.iter().zip(&is_new).filter(|(_, is_new)| **is_new);
            let texts: Vec<&str> = new.map(|((new, ..), _)| new.text.as_str()).collect();
            // Not opened before it has something to do: it takes memory.
            let meaning = match texts.is_empty() {
                true => None,
                false => Some(self.meaning()?),
            };
            let opened = meaning.as_ref().and_then(|meaning| meaning.encoder());
            let mut encoded = match opened {
                Some(opened) => opened.encode(&texts)?,
                None => Vec::new(),
            }
            .into_iter();
            // For each chunk, and not while it is encoded: others write between them.
            let _one = lock(&self.inner.writing);
            self.inner.store.write(|tx| -> Result<(), Error> {
                for (one, is_new) in some.iter().zip(&is_new) {
                    let (new, fingerprint, written) = one;
                    let vectors = if *is_new { encoded.next() } else { None };
                    let vectors = opened
                        .map(|opened| opened.scheme.as_str())
                        .zip(vectors.as_deref());
                    match place(tx, one)? {
                        Place::There(same) => {
                            held.insert(same.row);
                            merge(tx, *same, new, source, None, now)?;
                            imported.merged += 1;
                        }
                        Place::Elsewhere(row) => {
                            sqlite::move_to(tx, row, new.project.as_deref().unwrap_or_default())?;
                            if let Some(moved) = sqlite::by_row(tx, row)? {
                                merge(tx, moved, new, source, None, now)?;
                            }
                            held.insert(row);
                            imported.moved += 1;
                        }
                        Place::New => {
                            let project = new.project.as_deref();
                            if sqlite::is_replaced(tx, fingerprint, project, source)? {
                                imported.merged += 1;
                                continue;
                            }
                            held.insert(insert(tx, new, fingerprint, source, vectors, *written)?);
                            imported.stored += 1;
                        }
                    }
                }
                Ok(())
            })?;
        }
        let _one = lock(&self.inner.writing);
        let store = &self.inner.store;
        // What a person replaced stays the file's, so that it does not come back.
        let keeps = |one: &sqlite::Held| {
            held.contains(&one.row) || one.superseded && fingerprints.contains(&one.fingerprint)
        };
        imported.withdrawn = store.write(|tx| withdraw(tx, source, &keeps, now))?;
        Ok(imported)
    }

    /// Takes in memories of an export as they were, with ids, times and lineage. [`Memories::upkeep`] encodes them.
    fn restore(&self, exported: &[Exported]) -> Result<Imported, Error> {
        let newer: HashSet<&str> = exported
            .iter()
            .filter_map(|exported| exported.memory.superseded_by.as_deref())
            .collect();
        let _one = lock(&self.inner.writing);
        self.inner.store.write(|tx| {
            let mut imported = Imported::default();
            for Exported { memory, holders } in exported {
                let fingerprint = gate::fingerprint(&memory.text);
                let Some(row) = sqlite::insert(tx, memory, &fingerprint)? else {
                    imported.merged += 1;
                    continue;
                };
                imported.stored += 1;
                if let Some(holders) = holders {
                    for holder in holders {
                        sqlite::hold(tx, row, holder)?;
                    }
                    continue;
                }
                // An older export does not say who holds a memory. What its file no longer says is to go, unless a
                // person pinned it or wrote it in another's place.
                if let Some(source) = &memory.source {
                    sqlite::hold(tx, row, source)?;
                }
                let is_edited = newer.contains(memory.id.as_str());
                if memory.source.is_none() || memory.pinned || is_edited {
                    sqlite::hold(tx, row, PERSON)?;
                }
            }
            for Exported { memory, .. } in exported {
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
    /// same store again. Stops when it returns `false`.
    ///
    /// The database is read page by page, so that one who is slow keeps nothing from being written or from leaving the
    /// files. What is written meanwhile is in it, since it comes after all others. A memory that another takes the place
    /// of after its page was read is in it as it was, beside the other one: nothing is lacking that was there at the
    /// beginning, but for what was forgotten.
    ///
    /// # Errors
    /// If the database fails.
    pub fn export(&self, each: &mut dyn FnMut(&Exported) -> bool) -> Result<(), Error> {
        self.tell_reads()?;
        let mut row = 0;
        loop {
            let page = self.inner.store.read(|tx| -> Result<_, Error> {
                let mut page = sqlite::from_row(tx, row, PAGE)?;
                let mut exported = Vec::with_capacity(page.len());
                if let Some(last) = page.last() {
                    row = last.row + 1;
                }
                for mut stored in page.drain(..) {
                    sqlite::complete_whole(tx, &mut stored)?;
                    exported.push(Exported {
                        holders: Some(sqlite::holders(tx, stored.row)?),
                        memory: stored.memory,
                    });
                }
                Ok(exported)
            })?;
            if page.is_empty() || !page.iter().all(&mut *each) {
                return Ok(());
            }
        }
    }
}

/// Of a file and of what is said of all that is in it: under another project it is not the same import.
fn digest(bytes: &[u8], usual: &NewMemory) -> [u8; 32] {
    let usual = serde_json::json!([usual.project, usual.tags, usual.confidence]);
    let all = Sha256::new_with_prefix(usual.to_string());
    all.chain_update([0]).chain_update(bytes).finalize().into()
}

/// Has a source hold no longer what it does not keep; how many memories that withdraws.
fn withdraw(
    tx: &Transaction<'_>,
    source: &str,
    keeps: &dyn Fn(&sqlite::Held) -> bool,
    now: Timestamp,
) -> Result<u64, Error> {
    let mut withdrawn = 0;
    for held in sqlite::held(tx, source)? {
        if !keeps(&held) && sqlite::let_go(tx, held.row, source, now)? {
            withdrawn += 1;
        }
    }
    Ok(withdrawn)
}
