//! Remembering: what passes the gate is stored; what is changed supersedes; what is forgotten is gone.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::Ordering;

use hearth_protocol::id;
use hearth_protocol::memory::{Change, MOST_TAGS, Memory, NewMemory, Outcome, Written};
use hearth_store::sqlite::Transaction;
use jiff::Timestamp;

use super::{Memories, flush, lock, named, whole};
use crate::Error;
use crate::background::dot;
use crate::gate::{self, Checked, Likeness};
use crate::retrieval::{self, Hot};
use crate::sqlite::{self, PERSON, Reach, Stored};

/// Memories that a new one is compared with.
const NEIGHBOURS: usize = 8;

impl Memories {
    /// Remembers a text, if it passes the write gate. When this returns, the memory is on the disk, and the next search
    /// finds it.
    ///
    /// # Errors
    /// If a field is wrong, what it supersedes is not there, or the database or the encoder fails.
    pub fn add(&self, new: &NewMemory, now: Timestamp) -> Result<Written, Error> {
        self.store_checked(gate::check(new)?, now)
    }

    fn store_checked(&self, mut new: Checked, now: Timestamp) -> Result<Written, Error> {
        let _one = lock(&self.inner.writing);
        let fingerprint = gate::fingerprint(&new.text);
        if new.supersedes.is_none()
            && let Some(recalled) = self.recalled(&new)?
        {
            return Ok(Written {
                outcome: Outcome::Recalled,
                memory: recalled,
            });
        }
        let meaning = self.meaning()?;
        let encoded = match meaning.encoder() {
            Some(opened) => {
                let vectors = opened.encode(&[&new.text])?.into_iter().next();
                vectors.map(|vectors| (opened.scheme.as_str(), vectors))
            }
            None => None,
        };
        let vectors = encoded
            .as_ref()
            .map(|(scheme, vectors)| (*scheme, vectors.as_slice()));
        let alike = self.alike(&new, vectors)?;
        let written = self.inner.store.write(|tx| {
            let old = match &new.supersedes {
                Some(id) => Some(current(tx, "supersedes", id)?),
                None => None,
            };
            let old_row = old.as_ref().map(|old| old.row);
            // What somebody pinned stays pinned in its newer words.
            let was_pinned = old.is_some_and(|old| old.memory.pinned);
            new.pinned = Some(new.pinned.unwrap_or(was_pinned));
            let there = sqlite::same(tx, &fingerprint, new.project.as_deref())?;
            // Its own old text, in other clothes: what changes is how it is written, so it is a new one.
            if let Some(there) = there.filter(|there| Some(there.row) != old_row) {
                return merge(tx, there, &new, PERSON, old_row, now);
            }
            if let Some(old) = old_row {
                // Before it comes: a text is there once among those that can be found.
                sqlite::supersede(tx, old, old, now)?;
            }
            let row = insert(tx, &new, &fingerprint, PERSON, vectors, now)?;
            if let Some(old) = old_row {
                sqlite::supersede(tx, old, row, now)?;
            }
            let mut linked = false;
            for other in &alike {
                if Some(*other) != old_row && sqlite::by_row(tx, *other)?.is_some() {
                    sqlite::link(tx, row, *other)?;
                    linked = true;
                }
            }
            let outcome = if linked {
                Outcome::Linked
            } else {
                Outcome::Stored
            };
            Ok(Written {
                outcome,
                memory: whole(tx, row)?,
            })
        })?;
        self.refresh()?;
        self.flush_now_and_then();
        Ok(written)
    }

    /// The memory that a text only repeats, as one repeats what one was told: every piece of it is one that was
    /// recalled, or a part of one.
    fn recalled(&self, new: &Checked) -> Result<Option<Memory>, Error> {
        // A copy: searches note there what they found.
        let told: HashSet<i64> = lock(&self.inner.reads).keys().copied().collect();
        let reach = seen_with(new);
        self.inner.store.read(|tx| {
            let was_told = |stored: &Stored| stored.memory.reads > 0 || told.contains(&stored.row);
            let find = |piece: &str| -> Result<Option<Stored>, Error> {
                let same = sqlite::same(tx, &gate::fingerprint(piece), new.project.as_deref())?;
                if let Some(same) = same.filter(|same| was_told(same)) {
                    return Ok(Some(same));
                }
                let Some(words) = retrieval::words(piece) else {
                    return Ok(None);
                };
                for (row, _) in sqlite::by_words(tx, &words, &reach, NEIGHBOURS)? {
                    let Some(stored) = sqlite::by_row(tx, row)? else {
                        continue;
                    };
                    let alike = gate::likeness(piece, &stored.memory.text, Some(0.0));
                    if alike == Likeness::Part && was_told(&stored) {
                        return Ok(Some(stored));
                    }
                }
                Ok(None)
            };
            // As it stands, it is the same memory again, which is merged.
            if sqlite::same(tx, &gate::fingerprint(&new.text), new.project.as_deref())?.is_some() {
                return Ok(None);
            }
            let mut first = find(&new.text)?;
            if first.is_none() {
                for piece in gate::citations(&new.text) {
                    match find(&piece)? {
                        Some(found) => first = first.or(Some(found)),
                        None => return Ok(None),
                    }
                }
            }
            match first {
                Some(found) => Ok(Some(whole(tx, found.row)?)),
                None => Ok(None),
            }
        })
    }

    /// Rows of memories that say nearly the same.
    fn alike(
        &self,
        new: &Checked,
        vectors: Option<(&str, &[Vec<f32>])>,
    ) -> Result<BTreeSet<i64>, Error> {
        self.refresh()?;
        let reach = seen_with(new);
        let index = self.index();
        let vectors = vectors.filter(|(encoder, _)| index.encoder() == Some(encoder));
        let first = vectors.and_then(|(_, vectors)| vectors.first());
        let hot = Hot::all();
        self.inner.store.read(|tx| {
            let mut rows = BTreeSet::new();
            if let Some(first) = first {
                let near = index.nearest(tx, first, &reach, &hot, NEIGHBOURS)?;
                rows.extend(near.into_iter().map(|candidate| candidate.row));
            }
            if let Some(words) = retrieval::words(&new.text) {
                let found = sqlite::by_words(tx, &words, &reach, NEIGHBOURS)?;
                rows.extend(found.into_iter().map(|(row, _)| row));
            }
            let mut alike = BTreeSet::new();
            for row in rows {
                let Some(stored) = sqlite::by_row(tx, row)? else {
                    continue;
                };
                let similarity = match vectors {
                    Some((_, vectors)) => likest(vectors, &sqlite::vectors(tx, row)?),
                    None => None,
                };
                if gate::likeness(&new.text, &stored.memory.text, similarity) != Likeness::Other {
                    alike.insert(row);
                }
            }
            Ok(alike)
        })
    }

    /// Changes a memory. A new text becomes a new memory in the old one's place. The first digits of its id do if no
    /// other begins so.
    ///
    /// # Errors
    /// If a field is wrong, there is no such memory or several, it was superseded or withdrawn, or the database or the encoder fails.
    pub fn change(&self, id: &str, change: &Change, now: Timestamp) -> Result<Memory, Error> {
        let mut change = change.clone();
        if let Some(kind) = &mut change.kind {
            *kind = gate::kind(kind)?;
        }
        if let Some(tags) = &mut change.tags {
            *tags = gate::tags(tags)?;
        }
        if let Some(confidence) = change.confidence {
            gate::confidence("confidence", confidence)?;
        }
        let text = change.text.as_deref().map(gate::text).transpose()?;
        let old = self.inner.store.read(|tx| current(tx, "id", id))?;
        if let Some(text) = text.filter(|text| *text != old.memory.text) {
            let Memory {
                id,
                kind,
                project,
                tags,
                confidence,
                pinned,
                source,
                ..
            } = old.memory;
            let written = self.store_checked(
                Checked {
                    text,
                    kind: change.kind.unwrap_or(kind),
                    project,
                    tags: change.tags.unwrap_or(tags),
                    confidence: change.confidence.unwrap_or(confidence),
                    pinned: Some(change.pinned.unwrap_or(pinned)),
                    source,
                    supersedes: Some(id),
                },
                now,
            )?;
            return Ok(written.memory);
        }
        let memory = self.inner.store.write(|tx| {
            sqlite::change(tx, old.row, &change)?;
            sqlite::hold(tx, old.row, PERSON)?;
            whole(tx, old.row)
        })?;
        self.refresh()?;
        Ok(memory)
    }

    /// Forgets a memory for good, and with it every older one whose place it took: their texts, words and vectors leave
    /// the files. What it was; `supersedes` lists the older ones. The first digits of its id do if no other begins so.
    ///
    /// # Errors
    /// If there is none or several, or the database fails.
    pub fn forget(&self, id: &str) -> Result<Memory, Error> {
        let _one = lock(&self.inner.writing);
        let (memory, rows) = self.inner.store.write(|tx| {
            let mut stored = named(tx, "id", id)?;
            sqlite::complete_whole(tx, &mut stored)?;
            let mut rows = sqlite::older(tx, stored.row)?;
            rows.push(stored.row);
            for row in &rows {
                sqlite::delete(tx, *row)?;
            }
            Ok::<_, Error>((stored.memory, rows))
        })?;
        lock(&self.inner.reads).retain(|row, _| !rows.contains(row));
        self.refresh()?;
        let mut index = self.index_mut();
        flush(&mut index);
        drop(index);
        self.inner.log.store(true, Ordering::Relaxed);
        self.empty_log();
        Ok(memory)
    }
}

/// What somebody sees who sees the new memory: one of every project is seen where no other project's are.
fn seen_with(new: &Checked) -> Reach {
    Reach {
        project: Some(new.project.clone().unwrap_or_default()),
        ..Reach::default()
    }
}

/// How near two texts are that have as many pieces: as the two pieces that are farthest apart.
fn likest(new: &[Vec<f32>], old: &[Vec<f32>]) -> Option<f32> {
    let pairs = new.iter().zip(old).map(|(new, old)| dot(new, old));
    match new.len() == old.len() {
        true => pairs.reduce(f32::min),
        false => None,
    }
}

/// Stores a new memory that somebody holds with its vectors and their encoder, if there is one; its row.
pub(super) fn insert(
    tx: &Transaction<'_>,
    new: &Checked,
    fingerprint: &[u8; 32],
    holder: &str,
    vectors: Option<(&str, &[Vec<f32>])>,
    now: Timestamp,
) -> Result<i64, Error> {
    let memory = Memory {
        id: id::with_prefix("mem", rand::random()),
        text: new.text.clone(),
        kind: new.kind.clone(),
        project: new.project.clone(),
        tags: new.tags.clone(),
        confidence: new.confidence,
        pinned: new.pinned == Some(true),
        source: new.source.clone(),
        written: now,
        read: None,
        reads: 0,
        superseded: None,
        superseded_by: None,
        supersedes: Vec::new(),
        related: Vec::new(),
    };
    let row = sqlite::insert(tx, &memory, fingerprint)?
        .ok_or_else(|| Error::invalid("text", "another memory came to say the same"))?;
    sqlite::hold(tx, row, holder)?;
    if let Some((encoder, vectors)) = vectors {
        sqlite::insert_vectors(tx, row, encoder, vectors)?;
    }
    Ok(row)
}

/// The memory with this id, if no other took its place and it was not withdrawn; `field` says where it was named.
fn current(tx: &Transaction<'_>, field: &'static str, id: &str) -> Result<Stored, Error> {
    let stored = named(tx, field, id)?;
    let Memory {
        id,
        superseded,
        superseded_by,
        ..
    } = &stored.memory;
    match (superseded, superseded_by) {
        (None, _) => Ok(stored),
        (Some(_), Some(new)) => Err(Error::Superseded {
            old: id.clone(),
            new: new.clone(),
        }),
        (Some(_), None) => Err(Error::Withdrawn(id.clone())),
    }
}

/// Gives a memory that is there what a new one of the same text brings, and another holder.
pub(super) fn merge(
    tx: &Transaction<'_>,
    there: Stored,
    new: &Checked,
    holder: &str,
    supersedes: Option<i64>,
    now: Timestamp,
) -> Result<Written, Error> {
    let mut tags = there.memory.tags.clone();
    let more = new
        .tags
        .iter()
        .filter(|tag| !there.memory.tags.contains(tag));
    // Where there are too many, those that were there first.
    let room = MOST_TAGS.saturating_sub(tags.len());
    tags.extend(more.take(room).cloned());
    tags.sort_unstable();
    let change = Change {
        tags: Some(tags),
        confidence: Some(there.memory.confidence.max(new.confidence)),
        pinned: Some(there.memory.pinned || new.pinned == Some(true)),
        ..Change::default()
    };
    sqlite::change(tx, there.row, &change)?;
    sqlite::hold(tx, there.row, holder)?;
    if let Some(old) = supersedes {
        sqlite::supersede(tx, old, there.row, now)?;
    }
    Ok(Written {
        outcome: Outcome::Merged,
        memory: whole(tx, there.row)?,
    })
}
