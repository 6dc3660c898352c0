//! The door to a store of memories. What goes in is in `write`, what is found in `search`, import and export in `exchange`.

mod exchange;
mod search;
mod write;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hearth_protocol::memory::{Approximate, Examined, Memory, Stats};
use hearth_store::Store;
use hearth_store::sqlite::Transaction;
use jiff::Timestamp;
use lru::LruCache;

use crate::Error;
use crate::doctor::{self, Remedy};
use crate::embed::{Meaning, Opened, Source};
use crate::graph::{BREAK_EVEN, Graph};
use crate::index::Index;
use crate::retrieval::{COLD_FROM, Hot};
use crate::sqlite::{self, Stored};

/// Queries whose vectors are kept.
const QUERIES: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// Vectors that wait in memory before they go into the file.
const UNWRITTEN: usize = 1024;
/// Memories that are encoded together.
const TOGETHER: usize = 256;
/// Vectors that are added to the approximate index while searches wait: some milliseconds.
const A_FEW: usize = 8;
/// Hexadecimal digits of an id that may stand for all of them, as long as no other id begins so.
const LEAST_DIGITS: usize = 4;
/// Ids that are told where several begin so.
const SEVERAL: usize = 3;
/// Vectors are numbered anew when so many, and so large a part of them, are gone.
const GAPS: usize = 1000;

/// Why meaning is not searched, though there is an encoder.
const ANOTHER: &str = "another process uses another encoder with this memory, so memories are found by their words alone; \
    have all use the same one, and start this one again";

/// Where the file of vectors lies, and what finds by meaning.
#[derive(Clone, Default)]
pub struct Place {
    /// The file of vectors; without one they are made from the database at each start.
    pub vectors: Option<PathBuf>,
    /// Without one, words alone are searched.
    pub encoder: Option<Source>,
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
    /// `None` until one is needed and there is one.
    encoder: Mutex<Option<Arc<Opened>>>,
    index: RwLock<Index>,
    /// More vectors than these have cold ones among them.
    cold_from: AtomicUsize,
    /// One write at a time, so that what is compared with all others is not overtaken.
    writing: Mutex<()>,
    queries: Mutex<LruCache<String, Arc<Vec<f32>>>>,
    /// One who makes the approximate index at a time.
    approximating: Mutex<()>,
    /// Memories that were read since the database was told, by row: when last, and how often.
    reads: Mutex<HashMap<i64, (Timestamp, u64)>>,
    /// Whether what was forgotten may still be in the database's log.
    log: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain values, valid after any panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memories {
    /// The memories of a database that has the tables ([`crate::TABLES`]). The encoder is opened when it is first needed;
    /// vectors of another one are thrown away then, and [`Memories::upkeep`] makes them anew.
    ///
    /// # Errors
    /// If the database cannot be read or written.
    pub fn open(store: Store, place: Place) -> Result<Self, Error> {
        let index = load(&store, &place)?;
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                place,
                encoder: Mutex::default(),
                cold_from: AtomicUsize::new(COLD_FROM),
                index: RwLock::new(index),
                writing: Mutex::default(),
                approximating: Mutex::default(),
                queries: Mutex::new(LruCache::new(QUERIES)),
                reads: Mutex::default(),
                log: AtomicBool::new(false),
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

    /// Whether meaning is searched; opens the encoder if it was not yet. To be asked before the index is looked at, which
    /// another encoder empties.
    fn meaning(&self) -> Result<Meaning, Error> {
        // Those who come while it is opened wait for it.
        let mut known = lock(&self.inner.encoder);
        if let Some(opened) = &*known {
            return Ok(Meaning::Open(Arc::clone(opened)));
        }
        Ok(
            match self.inner.place.encoder.as_ref().map(|source| source()) {
                Some(Ok(encoder)) => {
                    let opened = Arc::new(Opened::new(encoder)?);
                    let id = &opened.scheme;
                    let state = self.inner.store.read(sqlite::state)?;
                    if state.encoder.as_ref() != Some(id) {
                        let dimensions = opened.encoder.dimensions() as u32;
                        let begin =
                            |tx: &Transaction<'_>| sqlite::begin_vectors(tx, id, dimensions);
                        self.inner.store.write(begin)?;
                    }
                    *known = Some(Arc::clone(&opened));
                    Meaning::Open(opened)
                }
                Some(Err(reason)) => Meaning::Lacks(reason),
                None => Meaning::Lacks(
                    "there is no encoder, so memories are found by their words alone".into(),
                ),
            },
        )
    }

    /// Does what can wait: tells the database what was read, encodes what has no vector yet, writes the file of vectors.
    /// Calls `progress` with memories encoded and those still without a vector; stops when it returns `false`.
    ///
    /// # Errors
    /// If the database or the encoder fails; what was done stays done, and what needs no encoder is done.
    pub fn upkeep(&self, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<(), Error> {
        self.tell_reads()?;
        let encoded = self.encode_all(progress);
        self.close_gaps()?;
        self.empty_log();
        let mut index = self.index_mut();
        flush(&mut index);
        encoded
    }

    /// Encodes what has no vector yet.
    fn encode_all(&self, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<(), Error> {
        let mut done = 0;
        loop {
            let _one = lock(&self.inner.writing);
            let texts = self
                .inner
                .store
                .read(|tx| sqlite::unencoded(tx, TOGETHER))?;
            if texts.is_empty() {
                break;
            }
            // Not opened before it has something to do: it takes memory.
            let meaning = self.meaning()?;
            let Some(opened) = meaning.encoder() else {
                break;
            };
            if self.inner.store.read(sqlite::state)?.encoder.as_ref() != Some(&opened.scheme) {
                return Err(Error::Encoder(ANOTHER.into()));
            }
            let passages: Vec<&str> = texts.iter().map(|(_, text)| text.as_str()).collect();
            let encoded = opened.encode(&passages)?;
            let left = self.inner.store.write(|tx| -> Result<u64, Error> {
                // Another process may have made these.
                for ((row, _), vectors) in texts.iter().zip(&encoded) {
                    if sqlite::by_row(tx, *row)?.is_some() && sqlite::vectors(tx, *row)?.is_empty()
                    {
                        sqlite::insert_vectors(tx, *row, &opened.scheme, vectors)?;
                    }
                }
                Ok(sqlite::unencoded_count(tx)?)
            })?;
            self.refresh()?;
            done += encoded.len() as u64;
            if !progress(done, left) {
                break;
            }
        }
        Ok(())
    }

    /// Makes or extends the approximate index for searches that compare more than `from` vectors ([`crate::BREAK_EVEN`]),
    /// which takes a minute for a hundred thousand of them; searches go on meanwhile. For processes that live long: it is
    /// in memory only. Stops when `goes_on` returns `false`.
    ///
    /// # Errors
    /// If the database or the index fails; searches scan then.
    pub fn approximate(&self, from: usize, goes_on: &dyn Fn() -> bool) -> Result<(), Error> {
        let _one = lock(&self.inner.approximating);
        self.refresh()?;
        let (generation, width, slots, is_there) = {
            let index = self.index();
            let is_there = index.graph().is_some_and(|graph| graph.from() == from);
            (index.generation(), index.width(), index.slots(), is_there)
        };
        if width == 0 || slots <= from {
            self.index_mut().set_graph(None, generation);
            return Ok(());
        }
        if !is_there {
            let mut graph = Graph::new(width, from).map_err(Error::Approximate)?;
            graph
                .reserve(slots + slots / 4)
                .map_err(Error::Approximate)?;
            loop {
                // A copy, so that nobody waits for the graph.
                let rows = {
                    let index = self.index();
                    match index.generation() == generation {
                        true => index.rows(graph.rows(), TOGETHER).to_vec(),
                        // Numbered anew: the next time.
                        false => return Ok(()),
                    }
                };
                if rows.is_empty() {
                    break;
                }
                graph.push(&rows).map_err(Error::Approximate)?;
                if !goes_on() {
                    return Ok(());
                }
            }
            let recall = {
                let index = self.index();
                if index.generation() != generation {
                    return Ok(());
                }
                index.recall(&graph)
            };
            graph.set_recall(recall);
            self.index_mut().set_graph(Some(graph), generation);
            return Ok(());
        }
        while self
            .index_mut()
            .extend_graph(A_FEW)
            .map_err(Error::Approximate)?
        {
            if !goes_on() {
                return Ok(());
            }
            // Those who wait for the index come first.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let recall = {
            let index = self.index();
            let graph = index.graph().filter(|graph| graph.is_unmeasured());
            graph.map(|graph| index.recall(graph))
        };
        if let Some(recall) = recall {
            self.index_mut().set_recall(recall);
        }
        Ok(())
    }

    /// Takes what was forgotten out of the database's log too; the next upkeep does if somebody reads at the moment.
    fn empty_log(&self) {
        if !self.inner.log.load(Ordering::Relaxed) {
            return;
        }
        match self.inner.store.empty_log() {
            Ok(true) => self.inner.log.store(false, Ordering::Relaxed),
            Ok(false) => {}
            Err(error) => tracing::warn!("the database's log could not be emptied: {error}"),
        }
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

    /// Has old memories grow cold from another number of them on: for tests, and for what measures it.
    #[doc(hidden)]
    pub fn grow_cold_from(&self, memories: usize) {
        self.inner.cold_from.store(memories, Ordering::Relaxed);
    }

    fn hot(&self, now: Timestamp, index: &Index) -> Hot {
        let from = self.inner.cold_from.load(Ordering::Relaxed);
        Hot::at(now.as_millisecond(), index.slots(), from)
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

    /// Looks for damage in the database, the lists of words and the file of vectors, and mends it if `fix`.
    ///
    /// # Errors
    /// If the database cannot be read at all, or a remedy fails.
    pub fn examine(&self, fix: bool) -> Result<Examined, Error> {
        let meaning = self.meaning()?;
        let dimensions = meaning.encoder().map(|opened| opened.encoder.dimensions());
        // On the connection that writes: the full-text index of the others may remember what it was before.
        let mut found = self
            .inner
            .store
            .write(|tx| doctor::examine(tx, dimensions))?;
        found.extend(self.inner.store.write(doctor::check_words)?);
        found.extend(self.examine_file()?);
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
            if let Some(path) = &self.inner.place.vectors {
                // With a word about it, if that fails: what is there then is what is there now.
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        tracing::warn!("{} could not be removed: {error}", path.display());
                    }
                    _ => {}
                }
            }
            *index = load(&self.inner.store, &self.inner.place)?;
            flush(&mut index);
            drop(index);
            if self.examine_file()?.is_none() {
                mended.push(Remedy::Vectors);
            }
        }
        Ok(doctor::told(&found, &mended))
    }

    /// What is wrong with the file of vectors.
    fn examine_file(&self) -> Result<Option<doctor::Diagnosis>, Error> {
        self.inner.store.read(|tx| {
            let (index, trouble) = Index::load(tx, self.inner.place.vectors.as_deref())?;
            if let Some(trouble) = trouble {
                return Ok(Some(doctor::file(&trouble)));
            }
            let wrong = index.differences(tx)?;
            Ok((wrong > 0).then(|| doctor::rows(wrong)))
        })
    }

    /// How the store stands.
    ///
    /// # Errors
    /// If the database fails.
    pub fn stats(&self, now: Timestamp) -> Result<Stats, Error> {
        let meaning = self.meaning()?;
        self.refresh()?;
        let counts = self.inner.store.read(sqlite::counts)?;
        let index = self.index();
        let hot = self.hot(now, &index);
        let (scanned, cold) = index.tiers(&hot);
        // Another process may have begun vectors of another encoder.
        let opened = meaning.encoder();
        let own = opened.filter(|opened| index.encoder() == Some(&opened.scheme));
        let another = || (own.is_none() && opened.is_some()).then(|| ANOTHER.to_owned());
        Ok(Stats {
            memories: counts.live,
            cold,
            pinned: counts.pinned,
            superseded: counts.superseded,
            withdrawn: counts.withdrawn,
            projects: counts.projects,
            encoder: own.map(|opened| opened.encoder.name()),
            words_only: meaning.words_only().or_else(another),
            unencoded: counts.unencoded,
            database_bytes: counts.bytes,
            vector_bytes: index.vectors().file_bytes(),
            scanned,
            exact_until: index.graph().map_or(BREAK_EVEN, Graph::from) as u64,
            approximate: index.graph().map(|graph| Approximate {
                vectors: graph.rows() as u64,
                recall: graph.recall(),
                bytes: graph.bytes(),
                in_use: graph.is_for(scanned as usize),
            }),
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

/// The memory with this id, or the only one whose id begins so; `field` says where it was named.
fn named(tx: &Transaction<'_>, field: &'static str, id: &str) -> Result<Stored, Error> {
    if let Some(stored) = sqlite::by_id(tx, id)? {
        return Ok(stored);
    }
    let unknown = || Error::Unknown(id.to_owned());
    let digits = id.strip_prefix("mem-").unwrap_or(id);
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() < LEAST_DIGITS || !digits.bytes().all(is_digit) {
        return Err(unknown());
    }
    let found = sqlite::beginning(tx, &format!("mem-{digits}"), SEVERAL + 1)?;
    match found.as_slice() {
        [] => Err(unknown()),
        [only] => sqlite::by_id(tx, only)?.ok_or_else(unknown),
        several => {
            let told = several.get(..SEVERAL).unwrap_or(several).join(", ");
            let more = if several.len() > SEVERAL { ", …" } else { "" };
            Err(Error::invalid(
                field,
                format!("several ids begin with {id}: {told}{more}; give more of it"),
            ))
        }
    }
}

/// A memory as it is now.
fn whole(tx: &Transaction<'_>, row: i64) -> Result<Memory, Error> {
    let mut stored =
        sqlite::by_row(tx, row)?.ok_or_else(|| Error::Unknown(format!("in row {row}")))?;
    sqlite::complete(tx, &mut stored)?;
    Ok(stored.memory)
}
