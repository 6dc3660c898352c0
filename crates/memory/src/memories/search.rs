//! Finding: by meaning and words, by page, by id; and noting what was read.

use std::collections::HashMap;
use std::sync::Arc;

use hearth_protocol::memory::{Found, Hit, Listed, MOST_FOUND, Memory, Search};
use jiff::Timestamp;

use super::{ANOTHER, Memories, lock, named};
use crate::Error;
use crate::background::dot;
use crate::embed::{Embed, Opened};
use crate::gate;
use crate::retrieval::{self, Asked, Ranking, Signals};
use crate::sqlite::{self, Reach};

/// Memories that a search gives when nobody says how many.
const USUAL_LIMIT: usize = 10;
/// Candidates for each memory that is wanted, from each of the two lists, and the least of them: what is rescored.
const CANDIDATES: usize = 4;
const LEAST_CANDIDATES: usize = 40;

impl Memories {
    /// Finds memories by meaning and by words: those that have one of the query's words, or are clearly nearer to it than
    /// what has nothing to do with it ([`Background`](crate::Background)). They count as read.
    ///
    /// # Errors
    /// If a field is wrong, or the database or the encoder fails.
    pub fn search(&self, search: &Search, now: Timestamp) -> Result<Found, Error> {
        self.search_with(search, Ranking::USUAL, now)
    }

    /// Finds what [`Memories::search`] finds and notes nothing: what others look for does not count as read here.
    ///
    /// # Errors
    /// As [`Memories::search`].
    pub fn peek(&self, search: &Search, now: Timestamp) -> Result<Found, Error> {
        Ok(self.find(search, Ranking::USUAL, now)?.0)
    }

    /// A search with another ranking than the usual one: for what chooses that one by measurement.
    ///
    /// # Errors
    /// As [`Memories::search`].
    #[doc(hidden)]
    pub fn search_with(
        &self,
        search: &Search,
        ranking: Ranking,
        now: Timestamp,
    ) -> Result<Found, Error> {
        let (found, rows) = self.find(search, ranking, now)?;
        self.note_reads(&rows, now);
        Ok(found)
    }

    /// What a search finds, and in which rows.
    fn find(
        &self,
        search: &Search,
        ranking: Ranking,
        now: Timestamp,
    ) -> Result<(Found, Vec<i64>), Error> {
        let query = search.query.trim();
        if query.is_empty() {
            return Err(Error::invalid("query", "it is empty; say what to look for"));
        }
        let (limit, reach) = wanted(search)?;
        let meaning = self.meaning()?;
        self.refresh()?;
        let vector = match meaning.encoder() {
            Some(opened) => Some((opened, self.query_vector(opened.encoder.as_ref(), query)?)),
            None => None,
        };
        let most = (limit * CANDIDATES).max(LEAST_CANDIDATES);
        let index = self.index();
        // Another process may have begun vectors of another encoder.
        let mut words_only = meaning.words_only();
        let vector = vector.filter(|(opened, _): &(&Opened, _)| {
            let is_same = index.encoder() == Some(&opened.scheme);
            if !is_same {
                words_only = Some(ANOTHER.into());
            }
            is_same
        });
        let hot = self.hot(now, &index);
        let vector = vector.map(|(opened, vector)| (opened.background.seen_from(&vector), vector));
        let mut hits = self.inner.store.read(|tx| -> Result<_, Error> {
            let mut found: HashMap<i64, Signals> = HashMap::new();
            if let Some((_, vector)) = &vector {
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
                if let Some((background, vector)) = &vector {
                    let pieces = sqlite::vectors(tx, row)?;
                    signals.similarity = most_of(pieces.iter().map(|piece| dot(vector, piece)));
                    signals.above = most_of(pieces.iter().map(|piece| background.above(piece)));
                    if !signals.is_related(ranking.clear) {
                        continue;
                    }
                }
                let age = now.as_millisecond() - stored.memory.written.as_millisecond();
                signals.age_days = age as f32 / 86_400_000.0;
                signals.confidence = stored.memory.confidence;
                signals.pinned = stored.memory.pinned;
                rows.push(stored);
                all.push(signals);
            }
            let asked = Asked::new(query, index.slots());
            let scores = retrieval::fuse(&all, asked, ranking.fusion);
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
        let memories: Vec<Hit> = hits
            .drain(..)
            .map(|(stored, (score, why))| Hit {
                memory: stored.memory,
                score,
                why: search.explain.then_some(why),
            })
            .collect();
        let found = Found {
            count: memories.len(),
            memories,
            words_only,
        };
        Ok((found, rows))
    }

    /// The vector of a query.
    fn query_vector(&self, encoder: &dyn Embed, query: &str) -> Result<Arc<Vec<f32>>, Error> {
        if let Some(vector) = lock(&self.inner.queries).get(query) {
            return Ok(Arc::clone(vector));
        }
        let vector = Arc::new(encoder.query(query).map_err(Error::Encoder)?);
        lock(&self.inner.queries).put(query.to_owned(), Arc::clone(&vector));
        Ok(vector)
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

    /// The memory with this id, of which the first digits do if no other begins so. It counts as read.
    ///
    /// # Errors
    /// If there is none or several, or the database fails.
    pub fn get(&self, id: &str, now: Timestamp) -> Result<Memory, Error> {
        let memory = self.inner.store.read(|tx| {
            let mut stored = named(tx, "id", id)?;
            sqlite::complete(tx, &mut stored)?;
            Ok::<_, Error>(stored)
        })?;
        self.note_reads(&[memory.row], now);
        Ok(memory.memory)
    }

    /// Notes that memories were read; the database is told later, so that no search waits for the disk.
    fn note_reads(&self, rows: &[i64], now: Timestamp) {
        let mut reads = lock(&self.inner.reads);
        for row in rows {
            count_read(&mut reads, *row, now, 1);
        }
        drop(reads);
        let index = self.index();
        for row in rows {
            index.touch(*row, now.as_millisecond());
        }
    }

    /// Tells the database what was read.
    pub(super) fn tell_reads(&self) -> Result<(), Error> {
        let reads = std::mem::take(&mut *lock(&self.inner.reads));
        if reads.is_empty() {
            return Ok(());
        }
        let told = self.inner.store.write(|tx| sqlite::read(tx, &reads));
        if told.is_err() {
            // Next time.
            let mut kept = lock(&self.inner.reads);
            for (row, (time, count)) in reads {
                count_read(&mut kept, row, time, count);
            }
        }
        Ok(told?)
    }
}

/// The most that a piece of a memory has. A damaged one is not the nearest of all.
fn most_of(pieces: impl Iterator<Item = f32>) -> Option<f32> {
    pieces.reduce(f32::max).filter(|most| most.is_finite())
}

/// Counts reads of a memory, the last of them at `time`.
fn count_read(reads: &mut HashMap<i64, (Timestamp, u64)>, row: i64, time: Timestamp, count: u64) {
    let read = reads.entry(row).or_insert((time, 0));
    read.0 = read.0.max(time);
    read.1 += count;
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
