//! The door to a store of memories.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hearth_encoder::{Batch, Encoder, Role};
use hearth_protocol::id;
use hearth_protocol::memory::{
    Change, Examined, Found, Hit, Imported, Listed, MOST_FOUND, Memory, NewMemory, Outcome, Search,
    Stats, Written,
};
use hearth_store::Store;
use hearth_store::sqlite::Transaction;
use jiff::Timestamp;
use lru::LruCache;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::doctor::{self, Remedy};
use crate::gate::{self, Checked, Likeness};
use crate::import::{self, Contents};
use crate::index::Index;
use crate::retrieval::{self, Hot, Signals};
use crate::sqlite::{self, Reach, Stored};

/// Memories that a search gives when nobody says how many.
const USUAL_LIMIT: usize = 10;
/// Candidates for each memory that is wanted, from each of the two lists, and the least of them: what is rescored.
const CANDIDATES: usize = 4;
const LEAST_CANDIDATES: usize = 40;
/// Queries whose vectors are kept.
const QUERIES: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// Memories that a new one is compared with.
const NEIGHBOURS: usize = 8;
/// Vectors that wait in memory before they go into the file.
const UNWRITTEN: usize = 1024;
/// Memories that are encoded together.
const TOGETHER: usize = 256;
/// Vectors are numbered anew when so many, and so large a part of them, are gone.
const GAPS: usize = 1000;

/// Turns texts into vectors of length one.
pub trait Embed: Send + Sync {
    /// Names what decides the vectors: those of another id are not compared with these.
    fn id(&self) -> String;
    /// Elements of a vector.
    fn dimensions(&self) -> usize;
    /// The vector of something that looks for others.
    ///
    /// # Errors
    /// Why there is none.
    fn query(&self, text: &str) -> Result<Vec<f32>, String>;
    /// The vectors of texts that are to be found, in order.
    ///
    /// # Errors
    /// Why there are none.
    fn passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, String>;
}

impl Embed for Encoder {
    fn id(&self) -> String {
        self.id()
    }

    fn dimensions(&self) -> usize {
        self.dimensions()
    }

    fn query(&self, text: &str) -> Result<Vec<f32>, String> {
        let embedding = self.encode(text, Role::Query);
        embedding
            .map(|embedding| embedding.vector)
            .map_err(|error| error.to_string())
    }

    fn passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, String> {
        let all = self.encode_batch(texts, Role::Passage, Batch::default());
        let all = all.map_err(|error| error.to_string())?;
        Ok(all.into_iter().map(|embedding| embedding.vector).collect())
    }
}

/// Where the file of vectors lies, and what finds by meaning.
#[derive(Clone, Default)]
pub struct Place {
    /// The file of vectors; without one they are made from the database at each start.
    pub vectors: Option<PathBuf>,
    /// The encoder.
    pub encoder: Option<Arc<dyn Embed>>,
    /// Why there is no encoder, with what to do.
    pub words_only: Option<String>,
}

/// A store of memories. Cheap to clone. All calls block.
#[derive(Clone)]
pub struct Memories {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Memories {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not what is in it.
        out.debug_struct("Memories")
            .field("store", &self.inner.store)
            .finish_non_exhaustive()
    }
}

struct Inner {
    store: Store,
    place: Place,
    index: RwLock<Index>,
    /// One write at a time, so that what is compared with all others is not overtaken.
    writing: Mutex<()>,
    queries: Mutex<LruCache<String, Arc<Vec<f32>>>>,
    /// Memories that were read since the database was told, by row: when last, and how often.
    reads: Mutex<HashMap<i64, (Timestamp, u64)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain values, valid after any panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memories {
    /// The memories of a database that has the tables ([`crate::TABLES`]). Vectors of another encoder are thrown away;
    /// [`Memories::upkeep`] makes them anew.
    ///
    /// # Errors
    /// If the database cannot be read or written.
    pub fn open(store: Store, place: Place) -> Result<Self, Error> {
        if let Some(encoder) = &place.encoder {
            let id = encoder.id();
            let state = store.read(sqlite::state)?;
            if state.encoder.as_ref() != Some(&id) {
                store.write(|tx| sqlite::begin_vectors(tx, &id, encoder.dimensions() as u32))?;
            }
        }
        let index = load(&store, &place)?;
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                place,
                index: RwLock::new(index),
                writing: Mutex::default(),
                queries: Mutex::new(LruCache::new(QUERIES)),
                reads: Mutex::default(),
            }),
        })
    }

    fn index(&self) -> RwLockReadGuard<'_, Index> {
        // What a panic left half done is made again from the database.
        let index = &self.inner.index;
        index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        let index = &self.inner.index;
        index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why meaning is not searched, if it is not.
    pub fn words_only(&self) -> Option<String> {
        match self.inner.place.encoder {
            Some(_) => None,
            None => Some(self.inner.place.words_only.clone().unwrap_or_else(|| {
                "there is no encoder, so memories are found by their words alone".into()
            })),
        }
    }

    /// Remembers a text, if it passes the write gate. When this returns, the memory is on the disk, and the next search
    /// finds it.
    ///
    /// # Errors
    /// If a field is wrong, what it supersedes is not there, or the database or the encoder fails.
    pub fn add(&self, new: &NewMemory, now: Timestamp) -> Result<Written, Error> {
        self.store_checked(gate::check(new)?, now)
    }

    fn store_checked(&self, new: Checked, now: Timestamp) -> Result<Written, Error> {
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
        let vector = match &self.inner.place.encoder {
            Some(encoder) => {
                let mut vectors = encoder.passages(&[&new.text]).map_err(Error::Encoder)?;
                vectors.pop()
            }
            None => None,
        };
        let alike = self.alike(&new, vector.as_deref(), now)?;
        let written = self.inner.store.write(|tx| {
            let old = match &new.supersedes {
                Some(id) => Some(current(tx, id)?),
                None => None,
            };
            let old_row = old.as_ref().map(|old| old.row);
            let there = sqlite::same(tx, &fingerprint, new.project.as_deref())?;
            // Its own old text, in other clothes: what changes is how it is written, so it is a new one.
            if let Some(there) = there.filter(|there| Some(there.row) != old_row) {
                return merge(tx, there, &new, old_row, now);
            }
            if let Some(old) = old_row {
                // Before it comes: a text is there once among those that can be found.
                sqlite::supersede(tx, old, old, now)?;
            }
            let row = insert(tx, &new, &fingerprint, vector.as_deref(), now)?;
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
        let told = lock(&self.inner.reads);
        let reach = Reach {
            project: new.project.clone(),
            ..Reach::default()
        };
        self.inner.store.read(|tx| {
            let was_told =
                |stored: &Stored| stored.memory.reads > 0 || told.contains_key(&stored.row);
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
        vector: Option<&[f32]>,
        now: Timestamp,
    ) -> Result<BTreeSet<i64>, Error> {
        self.refresh()?;
        let reach = Reach {
            project: new.project.clone(),
            ..Reach::default()
        };
        let index = self.index();
        let hot = Hot::at(now.as_millisecond(), 0);
        self.inner.store.read(|tx| {
            let mut rows = BTreeSet::new();
            if let Some(vector) = vector {
                let near = index.nearest(tx, vector, &reach, &hot, NEIGHBOURS)?;
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
                let similarity = match vector {
                    Some(vector) => sqlite::vector(tx, row)?.map(|other| dot(vector, &other)),
                    None => None,
                };
                if gate::likeness(&new.text, &stored.memory.text, similarity) != Likeness::Other {
                    alike.insert(row);
                }
            }
            Ok(alike)
        })
    }

    /// The memory with this id. It counts as read.
    ///
    /// # Errors
    /// If there is none, or the database fails.
    pub fn get(&self, id: &str, now: Timestamp) -> Result<Memory, Error> {
        let memory = self.inner.store.read(|tx| {
            let Some(mut stored) = sqlite::by_id(tx, id)? else {
                return Err(Error::Unknown(id.to_owned()));
            };
            sqlite::complete(tx, &mut stored)?;
            Ok(stored)
        })?;
        self.note_reads(&[memory.row], now);
        Ok(memory.memory)
    }

    /// Changes a memory. A new text becomes a new memory in the old one's place.
    ///
    /// # Errors
    /// If a field is wrong, there is no such memory, it was superseded, or the database or the encoder fails.
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
        let old = self.inner.store.read(|tx| current(tx, id))?;
        if let Some(text) = text.filter(|text| *text != old.memory.text) {
            let Memory {
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
                    pinned: change.pinned.unwrap_or(pinned),
                    source,
                    supersedes: Some(id.to_owned()),
                },
                now,
            )?;
            return Ok(written.memory);
        }
        let memory = self.inner.store.write(|tx| {
            sqlite::change(tx, old.row, &change)?;
            whole(tx, old.row)
        })?;
        self.refresh()?;
        Ok(memory)
    }

    /// Forgets a memory for good: its text, its words and its vector leave the files.
    ///
    /// # Errors
    /// If there is none, or the database fails.
    pub fn forget(&self, id: &str) -> Result<Memory, Error> {
        let _one = lock(&self.inner.writing);
        let stored = self.inner.store.write(|tx| {
            let Some(stored) = sqlite::by_id(tx, id)? else {
                return Err(Error::Unknown(id.to_owned()));
            };
            sqlite::delete(tx, stored.row)?;
            Ok(stored)
        })?;
        lock(&self.inner.reads).remove(&stored.row);
        self.refresh()?;
        let mut index = self.index_mut();
        flush(&mut index);
        Ok(stored.memory)
    }

    /// Finds memories by meaning and by words.
    ///
    /// # Errors
    /// If a field is wrong, or the database or the encoder fails.
    pub fn search(&self, search: &Search, now: Timestamp) -> Result<Found, Error> {
        let query = search.query.trim();
        if query.is_empty() {
            return Err(Error::invalid("query", "it is empty; say what to look for"));
        }
        let (limit, reach) = wanted(search)?;
        self.refresh()?;
        let vector = self.query_vector(query)?;
        let most = (limit * CANDIDATES).max(LEAST_CANDIDATES);
        let index = self.index();
        let hot = Hot::at(now.as_millisecond(), index.slots());
        let mut hits = self.inner.store.read(|tx| -> Result<_, Error> {
            let mut found: HashMap<i64, Signals> = HashMap::new();
            if let Some(vector) = &vector {
                for candidate in index.nearest(tx, vector, &reach, &hot, most)? {
                    found.entry(candidate.row).or_default().cold = candidate.cold;
                }
            }
            if let Some(words) = retrieval::words(query) {
                for (row, score) in sqlite::by_words(tx, &words, &reach, most)? {
                    let signals = found.entry(row).or_default();
                    signals.words = Some(score);
                    signals.cold = index.is_cold(row, &hot);
                }
            }
            let mut rows = Vec::with_capacity(found.len());
            let mut all = Vec::with_capacity(found.len());
            for (row, mut signals) in found {
                // Forgotten between the two.
                let Some(stored) = sqlite::by_row(tx, row)? else {
                    continue;
                };
                if let Some(vector) = &vector {
                    signals.similarity = sqlite::vector(tx, row)?.map(|other| dot(vector, &other));
                }
                let age = now.as_millisecond() - stored.memory.written.as_millisecond();
                signals.age_days = age as f32 / 86_400_000.0;
                signals.confidence = stored.memory.confidence;
                signals.pinned = stored.memory.pinned;
                rows.push(stored);
                all.push(signals);
            }
            let scores = retrieval::fuse(&all, retrieval::MEANING);
            let mut hits: Vec<_> = rows.into_iter().zip(scores).collect();
            // Of equal ones the newer; never by chance.
            hits.sort_by(|(a, (x, _)), (b, (y, _))| y.total_cmp(x).then(b.row.cmp(&a.row)));
            hits.truncate(limit);
            for (stored, _) in &mut hits {
                sqlite::complete(tx, stored)?;
            }
            Ok(hits)
        })?;
        drop(index);
        let rows: Vec<i64> = hits.iter().map(|(stored, _)| stored.row).collect();
        self.note_reads(&rows, now);
        let memories: Vec<Hit> = hits
            .drain(..)
            .map(|(stored, (score, why))| Hit {
                memory: stored.memory,
                score,
                why: search.explain.then_some(why),
            })
            .collect();
        Ok(Found {
            count: memories.len(),
            memories,
            words_only: self.words_only(),
        })
    }

    /// The vector of a query; `None` without an encoder.
    fn query_vector(&self, query: &str) -> Result<Option<Arc<Vec<f32>>>, Error> {
        let Some(encoder) = &self.inner.place.encoder else {
            return Ok(None);
        };
        if let Some(vector) = lock(&self.inner.queries).get(query) {
            return Ok(Some(Arc::clone(vector)));
        }
        let vector = Arc::new(encoder.query(query).map_err(Error::Encoder)?);
        lock(&self.inner.queries).put(query.to_owned(), Arc::clone(&vector));
        Ok(Some(vector))
    }

    /// A page of memories, newest first. `after` is what the page before said is next.
    ///
    /// # Errors
    /// If `after` or a field is wrong, or the database fails.
    pub fn list(&self, search: &Search, after: Option<&str>) -> Result<Listed, Error> {
        let (limit, reach) = wanted(search)?;
        self.inner.store.read(|tx| {
            let before = match after {
                None => None,
                Some(id) => match sqlite::by_id(tx, id)? {
                    Some(stored) => Some(stored.row),
                    None => {
                        return Err(Error::invalid("after", format!("there is no memory {id}")));
                    }
                },
            };
            let mut page = sqlite::page(tx, &reach, before, limit + 1)?;
            let more = page.len() > limit;
            page.truncate(limit);
            for stored in &mut page {
                sqlite::complete(tx, stored)?;
            }
            let memories: Vec<Memory> = page.into_iter().map(|stored| stored.memory).collect();
            Ok(Listed {
                count: memories.len(),
                next: memories
                    .last()
                    .filter(|_| more)
                    .map(|memory| memory.id.clone()),
                memories,
            })
        })
    }

    /// Notes that memories were read; the database is told later, so that no search waits for the disk.
    fn note_reads(&self, rows: &[i64], now: Timestamp) {
        let mut reads = lock(&self.inner.reads);
        for row in rows {
            let read = reads.entry(*row).or_insert((now, 0));
            read.0 = read.0.max(now);
            read.1 += 1;
        }
        drop(reads);
        let mut index = self.index_mut();
        for row in rows {
            index.touch(*row, now.as_millisecond());
        }
    }

    /// Does what can wait: tells the database what was read, encodes what has no vector yet, writes the file of vectors.
    /// Calls `progress` with memories encoded and those still without a vector; stops when it returns `false`.
    ///
    /// # Errors
    /// If the database or the encoder fails; what was done stays done.
    pub fn upkeep(&self, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<(), Error> {
        self.tell_reads()?;
        let mut done = 0;
        while let Some(encoder) = &self.inner.place.encoder {
            let _one = lock(&self.inner.writing);
            let texts = self
                .inner
                .store
                .read(|tx| sqlite::unencoded(tx, TOGETHER))?;
            if texts.is_empty() {
                break;
            }
            let passages: Vec<&str> = texts.iter().map(|(_, text)| text.as_str()).collect();
            let vectors = encoder.passages(&passages).map_err(Error::Encoder)?;
            let left = self.inner.store.write(|tx| -> Result<u64, Error> {
                // Another process may have begun vectors of another encoder, or made these.
                if sqlite::state(tx)?.encoder != Some(encoder.id()) {
                    return Err(Error::Encoder(
                        "another process uses another encoder with this memory".into(),
                    ));
                }
                for ((row, _), vector) in texts.iter().zip(&vectors) {
                    if sqlite::by_row(tx, *row)?.is_some() && sqlite::vector(tx, *row)?.is_none() {
                        sqlite::insert_vector(tx, *row, vector)?;
                    }
                }
                Ok(sqlite::counts(tx)?.unencoded)
            })?;
            self.refresh()?;
            done += vectors.len() as u64;
            if !progress(done, left) {
                break;
            }
        }
        self.close_gaps()?;
        let mut index = self.index_mut();
        flush(&mut index);
        Ok(())
    }

    /// Tells the database what was read.
    fn tell_reads(&self) -> Result<(), Error> {
        let reads = std::mem::take(&mut *lock(&self.inner.reads));
        if reads.is_empty() {
            return Ok(());
        }
        let told = self.inner.store.write(|tx| sqlite::read(tx, &reads));
        if told.is_err() {
            // Next time.
            let mut kept = lock(&self.inner.reads);
            for (row, (time, count)) in reads {
                let read = kept.entry(row).or_insert((time, 0));
                read.0 = read.0.max(time);
                read.1 += count;
            }
        }
        Ok(told?)
    }

    fn close_gaps(&self) -> Result<(), Error> {
        let (gaps, slots) = {
            let index = self.index();
            (index.gaps(), index.slots())
        };
        if gaps >= GAPS && gaps * 4 >= slots {
            self.inner.store.write(sqlite::renumber)?;
            self.refresh()?;
        }
        Ok(())
    }

    /// Brings the index up to date with the database, whoever wrote there.
    fn refresh(&self) -> Result<(), Error> {
        // Searches look beside each other as long as nothing changes.
        let index = self.index();
        if self.inner.store.read(|tx| index.is_current(tx))? {
            return Ok(());
        }
        drop(index);
        let mut index = self.index_mut();
        let is_current = self.inner.store.read(|tx| index.refresh(tx))?;
        if !is_current {
            *index = load(&self.inner.store, &self.inner.place)?;
        }
        Ok(())
    }

    fn flush_now_and_then(&self) {
        let mut index = self.index_mut();
        if index.vectors().unwritten() >= UNWRITTEN {
            flush(&mut index);
        }
    }

    /// Imports a file (see [`crate::import`]). One that is as it was the last time is passed over; of one that changed,
    /// memories that it no longer holds are withdrawn. `usual` gives what the file does not say: project, tags,
    /// confidence. Texts are encoded together, and not compared for near likeness.
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
        let digest: [u8; 32] = Sha256::digest(bytes).into();
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
            Contents::New(new) => self.import_new(path, new, usual, now)?,
            Contents::Memories(memories) => self.restore(&memories)?,
        };
        self.inner
            .store
            .write(|tx| sqlite::note_file(tx, path, &digest))?;
        self.refresh()?;
        self.flush_now_and_then();
        Ok(imported)
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
        let held: HashSet<[u8; 32]> = checked
            .iter()
            .map(|(_, fingerprint, _)| *fingerprint)
            .collect();
        let mut imported = Imported::default();
        let _one = lock(&self.inner.writing);
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
            let mut vectors = match &self.inner.place.encoder {
                Some(encoder) => encoder.passages(&texts).map_err(Error::Encoder)?,
                None => Vec::new(),
            }
            .into_iter();
            self.inner.store.write(|tx| -> Result<(), Error> {
                for ((new, fingerprint, written), there) in some.iter().zip(&there) {
                    let vector = match there {
                        true => None,
                        false => vectors.next(),
                    };
                    if let Some(same) = sqlite::same(tx, fingerprint, new.project.as_deref())? {
                        merge(tx, same, new, None, now)?;
                        imported.merged += 1;
                        continue;
                    }
                    insert(tx, new, fingerprint, vector.as_deref(), *written)?;
                    imported.stored += 1;
                }
                Ok(())
            })?;
        }
        imported.withdrawn = self.inner.store.write(|tx| -> Result<u64, Error> {
            let mut withdrawn = 0;
            for (row, fingerprint) in sqlite::of_source(tx, source)? {
                if !held.contains(&fingerprint) {
                    sqlite::withdraw(tx, row, now)?;
                    withdrawn += 1;
                }
            }
            Ok(withdrawn)
        })?;
        Ok(imported)
    }

    /// Takes in memories of an export as they were, with ids, times and lineage. [`Memories::upkeep`] encodes them.
    fn restore(&self, memories: &[Memory]) -> Result<Imported, Error> {
        let _one = lock(&self.inner.writing);
        self.inner.store.write(|tx| {
            let mut imported = Imported::default();
            for memory in memories {
                gate::text(&memory.text)?;
                gate::tags(&memory.tags)?;
                gate::kind(&memory.kind)?;
                gate::confidence("confidence", memory.confidence)?;
                match sqlite::restore(tx, memory, &gate::fingerprint(&memory.text))? {
                    Some(_) => imported.stored += 1,
                    None => imported.merged += 1,
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
    /// same store again. Stops when it returns `false`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn export(&self, each: &mut dyn FnMut(&Memory) -> bool) -> Result<(), Error> {
        self.tell_reads()?;
        let mut row = 0;
        loop {
            let page = self.inner.store.read(|tx| -> Result<_, Error> {
                let mut page = sqlite::from_row(tx, row, TOGETHER)?;
                for stored in &mut page {
                    sqlite::complete(tx, stored)?;
                }
                Ok(page)
            })?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            row = last.row + 1;
            for stored in &page {
                if !each(&stored.memory) {
                    return Ok(());
                }
            }
        }
    }

    /// Looks for damage in the database, the lists of words and the file of vectors, and mends it if `fix`.
    ///
    /// # Errors
    /// If the database cannot be read at all, or a remedy fails.
    pub fn examine(&self, fix: bool) -> Result<Examined, Error> {
        let dimensions = self
            .inner
            .place
            .encoder
            .as_ref()
            .map(|encoder| encoder.dimensions());
        // On the connection that writes: the full-text index of the others may remember what it was before.
        let mut found = self
            .inner
            .store
            .write(|tx| doctor::examine(tx, dimensions))?;
        if let Err(error) = self.inner.store.write(doctor::check_words) {
            found.push(doctor::words(&error));
        }
        let (_, trouble) = self
            .inner
            .store
            .read(|tx| Index::load(tx, self.inner.place.vectors.as_deref()))?;
        found.extend(trouble.as_deref().map(doctor::file));
        if !fix {
            return Ok(doctor::told(&found, &[]));
        }
        let mut mended = Vec::new();
        let needed = |remedy| found.iter().any(|diagnosis| diagnosis.remedy == remedy);
        if needed(Remedy::Words) {
            self.inner.store.write(doctor::rebuild_words)?;
            mended.push(Remedy::Words);
        }
        if let Some(dimensions) = dimensions.filter(|_| needed(Remedy::Encode)) {
            self.inner
                .store
                .write(|tx| doctor::drop_damaged(tx, dimensions))?;
            self.upkeep(&mut |_, _| true)?;
            mended.push(Remedy::Encode);
        }
        if needed(Remedy::Vectors) {
            let mut index = self.index_mut();
            *index = load(&self.inner.store, &self.inner.place)?;
            if index.flush().is_ok() {
                mended.push(Remedy::Vectors);
            }
        }
        Ok(doctor::told(&found, &mended))
    }

    /// How the store stands.
    ///
    /// # Errors
    /// If the database fails.
    pub fn stats(&self, now: Timestamp) -> Result<Stats, Error> {
        self.refresh()?;
        let counts = self.inner.store.read(sqlite::counts)?;
        let index = self.index();
        let hot = Hot::at(now.as_millisecond(), index.slots());
        let (encoded, cold) = index.tiers(&hot);
        Ok(Stats {
            memories: counts.live,
            cold,
            pinned: counts.pinned,
            superseded: counts.superseded,
            projects: counts.projects,
            encoder: index
                .encoder()
                .filter(|_| self.inner.place.encoder.is_some())
                .map(ToOwned::to_owned),
            words_only: self.words_only(),
            unencoded: counts.unencoded,
            database_bytes: counts.bytes,
            vector_bytes: index.vectors().file_bytes(),
            scanned: encoded - cold,
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let reads = std::mem::take(&mut *lock(&self.reads));
        if !reads.is_empty()
            && let Err(error) = self.store.write(|tx| sqlite::read(tx, &reads))
        {
            tracing::warn!("when memories were last read could not be noted: {error}");
        }
        flush(self.index.get_mut().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Writes the file of vectors. What could not be written is in the database and in memory, until the next time.
fn flush(index: &mut Index) {
    if let Err(error) = index.flush() {
        tracing::warn!("the file of vectors could not be written: {error}");
    }
}

/// How many memories a search or a list gives, and of which.
fn wanted(search: &Search) -> Result<(usize, Reach), Error> {
    let limit = search.limit.unwrap_or(USUAL_LIMIT);
    if !(1..=MOST_FOUND).contains(&limit) {
        return Err(Error::invalid(
            "limit",
            format!("it must be 1 to {MOST_FOUND}, not {limit}"),
        ));
    }
    let reach = Reach {
        project: gate::project(search.project.as_deref())?,
        min_confidence: gate::confidence("min_confidence", search.min_confidence.unwrap_or(0.0))?,
        kind: search.kind.as_deref().map(gate::kind).transpose()?,
        tags: gate::tags(&search.tags)?,
    };
    Ok((limit, reach))
}

/// Stores a new memory with its vector, if there is one; its row.
fn insert(
    tx: &Transaction<'_>,
    new: &Checked,
    fingerprint: &[u8; 32],
    vector: Option<&[f32]>,
    now: Timestamp,
) -> Result<i64, Error> {
    let id = id::with_prefix("mem", rand::random());
    let row = sqlite::insert(tx, &id, new, fingerprint, now)?;
    if let Some(vector) = vector {
        sqlite::insert_vector(tx, row, vector)?;
    }
    Ok(row)
}

fn load(store: &Store, place: &Place) -> Result<Index, Error> {
    let (index, trouble) = store.read(|tx| Index::load(tx, place.vectors.as_deref()))?;
    if let (Some(trouble), Some(path)) = (trouble, &place.vectors) {
        tracing::info!(
            "{} {trouble}; it is made again from the database",
            path.display()
        );
    }
    Ok(index)
}

/// The cosine of two vectors of length one.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// A memory as it is now.
fn whole(tx: &Transaction<'_>, row: i64) -> Result<Memory, Error> {
    let mut stored =
        sqlite::by_row(tx, row)?.ok_or_else(|| Error::Unknown(format!("in row {row}")))?;
    sqlite::complete(tx, &mut stored)?;
    Ok(stored.memory)
}

/// The memory with this id, if no other took its place.
fn current(tx: &Transaction<'_>, id: &str) -> Result<Stored, Error> {
    let stored = sqlite::by_id(tx, id)?.ok_or_else(|| Error::Unknown(id.to_owned()))?;
    match (&stored.memory.superseded, &stored.memory.superseded_by) {
        (None, _) => Ok(stored),
        (Some(_), new) => Err(Error::Superseded {
            old: id.to_owned(),
            new: new
                .clone()
                .unwrap_or_else(|| "one that was forgotten".into()),
        }),
    }
}

/// Gives a memory that is there what a new one of the same text brings.
fn merge(
    tx: &Transaction<'_>,
    there: Stored,
    new: &Checked,
    supersedes: Option<i64>,
    now: Timestamp,
) -> Result<Written, Error> {
    let mut tags = [there.memory.tags.as_slice(), &new.tags].concat();
    tags.sort_unstable();
    tags.dedup();
    tags.truncate(hearth_protocol::memory::MOST_TAGS);
    let change = Change {
        tags: Some(tags),
        confidence: Some(there.memory.confidence.max(new.confidence)),
        pinned: Some(there.memory.pinned || new.pinned),
        ..Change::default()
    };
    sqlite::change(tx, there.row, &change)?;
    if let Some(old) = supersedes {
        sqlite::supersede(tx, old, there.row, now)?;
    }
    Ok(Written {
        outcome: Outcome::Merged,
        memory: whole(tx, there.row)?,
    })
}
