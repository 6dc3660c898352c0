//! What a search scans: the int8 vectors, and beside them what decides whether a memory takes part.
//!
//! Made from the database and brought up to date by the changes that it counts, whoever made them.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use hearth_encoder::{Hit, Scan};
use hearth_store::sqlite::{self, Transaction};
use sha2::{Digest, Sha256};

use crate::graph::Graph;
use crate::retrieval::Hot;
use crate::sqlite::{Indexed, Reach, State, changed, gone, slots, state, vectors_from};
use crate::vectors::{Stamp, Vectors};

/// Vectors whose neighbours tell how good a graph is, and how many neighbours of each.
const SAMPLES: usize = 50;
const BEST: usize = 10;

/// See the module's documentation.
pub(crate) struct Index {
    state: State,
    vectors: Vectors,
    /// By slot.
    entries: Vec<Option<Entry>>,
    /// By slot, when each was last written or read, in milliseconds since 1970.
    touched: Vec<AtomicI64>,
    projects: HashMap<String, u32>,
    /// The slots of a memory's vectors, by row.
    slots: HashMap<i64, RangeInclusive<usize>>,
    scan: Scan,
    /// Lives as long as this numbering of the vectors.
    graph: Option<Graph>,
}

/// What decides whether a memory takes part.
#[derive(Debug, Clone, Copy)]
struct Entry {
    row: i64,
    project: u32,
    confidence: f32,
    pinned: bool,
    superseded: bool,
}

/// A memory that the scan found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    pub row: i64,
    pub cold: bool,
}

/// Makes a vector of length one int8, every vector at the same scale, so that their dot products compare. Elements of
/// such a vector are about `1/sqrt(n)`; what is six times as large is rare, and cut off.
pub fn quantise(vector: &[f32]) -> Vec<i8> {
    let scale = 127.0 * (vector.len() as f32).sqrt() / 6.0;
    vector
        .iter()
        .map(|value| (value * scale).round().clamp(-127.0, 127.0) as i8)
        .collect()
}

fn product(a: &[i8], b: &[i8]) -> i32 {
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}

fn stamp(state: &State) -> Stamp {
    Stamp {
        dimensions: state.dimensions,
        generation: state.generation,
        encoder: Sha256::digest(state.encoder.as_deref().unwrap_or_default()).into(),
    }
}

impl Index {
    /// The index of a database, with the vectors of the file where they fit. Says what was wrong with the file.
    pub fn load(
        tx: &Transaction<'_>,
        file: Option<&Path>,
    ) -> sqlite::Result<(Self, Option<String>)> {
        let state = state(tx)?;
        let (vectors, trouble) = Vectors::open(file, stamp(&state));
        let mut index = Self {
            state: State { seq: -1, ..state },
            vectors,
            entries: Vec::new(),
            touched: Vec::new(),
            projects: HashMap::new(),
            slots: HashMap::new(),
            scan: Scan::new(),
            graph: None,
        };
        index.follow(tx)?;
        Ok((index, trouble))
    }

    /// Whether nothing changed since.
    pub fn is_current(&self, tx: &Transaction<'_>) -> sqlite::Result<bool> {
        Ok(state(tx)? == self.state && self.vectors.is_whole())
    }

    /// Brings it up to date; `false` if it must be loaded anew, because the vectors were numbered anew.
    pub fn refresh(&mut self, tx: &Transaction<'_>) -> sqlite::Result<bool> {
        let now = state(tx)?;
        if now.generation != self.state.generation || !self.vectors.is_whole() {
            return Ok(false);
        }
        if now.seq != self.state.seq {
            self.follow(tx)?;
        }
        Ok(true)
    }

    fn follow(&mut self, tx: &Transaction<'_>) -> sqlite::Result<()> {
        let now = state(tx)?;
        self.entries.resize(now.next_slot, None);
        self.touched.resize_with(now.next_slot, AtomicI64::default);
        for indexed in changed(tx, self.state.seq)? {
            self.put(indexed);
        }
        for slot in gone(tx, self.state.seq)? {
            if let Some(entry) = self.entries.get_mut(slot).and_then(Option::take) {
                self.slots.remove(&entry.row);
            }
            self.vectors.erase(slot);
        }
        // A file with more rows than there are numbers is of a database that was put back.
        if self.vectors.rows() > now.next_slot {
            self.vectors.truncate(now.next_slot);
        }
        let zeros = vec![0; self.state.dimensions as usize];
        let vectors = &mut self.vectors;
        vectors_from(tx, vectors.rows(), |slot, vector| {
            while vectors.rows() < slot {
                vectors.push(&zeros);
            }
            let mut row = quantise(vector);
            row.resize(zeros.len(), 0);
            vectors.push(&row);
        })?;
        while vectors.rows() < now.next_slot && !zeros.is_empty() {
            vectors.push(&zeros);
        }
        self.state = now;
        Ok(())
    }

    fn put(&mut self, indexed: Indexed) {
        let next = self.projects.len() as u32;
        let project = *self.projects.entry(indexed.project).or_insert(next);
        let slots = self.slots.entry(indexed.row);
        slots
            .and_modify(|slots| {
                let (first, last) = (*slots.start(), *slots.end());
                *slots = first.min(indexed.slot)..=last.max(indexed.slot);
            })
            .or_insert(indexed.slot..=indexed.slot);
        if let Some(entry) = self.entries.get_mut(indexed.slot) {
            *entry = Some(Entry {
                row: indexed.row,
                project,
                confidence: indexed.confidence,
                pinned: indexed.pinned,
                superseded: indexed.superseded,
            });
        }
        if let Some(touched) = self.touched.get(indexed.slot) {
            touched.fetch_max(indexed.touched, Ordering::Relaxed);
        }
    }

    /// The encoder whose vectors these are.
    pub fn encoder(&self) -> Option<&str> {
        self.state.encoder.as_deref()
    }

    /// Notes that a memory was read, before the database knows.
    pub fn touch(&self, row: i64, time: i64) {
        let slots = self.slots.get(&row).cloned();
        let touched = slots.and_then(|slots| self.touched.get(slots));
        for touched in touched.unwrap_or_default() {
            touched.fetch_max(time, Ordering::Relaxed);
        }
    }

    fn is_hot(&self, slot: usize, entry: &Entry, hot: &Hot) -> bool {
        let touched = self.touched.get(slot);
        hot.is_hot(
            entry.pinned,
            touched.map_or(0, |touched| touched.load(Ordering::Relaxed)),
        )
    }

    /// Whether a memory has grown cold; one without a vector has not.
    pub fn is_cold(&self, row: i64, hot: &Hot) -> bool {
        let Some(slot) = self.slots.get(&row).map(|slots| *slots.start()) else {
            return false;
        };
        let entry = self.entries.get(slot).and_then(Option::as_ref);
        entry.is_some_and(|entry| !self.is_hot(slot, entry, hot))
    }

    /// How many vectors a search compares, and how many memories have grown cold.
    pub fn tiers(&self, hot: &Hot) -> (u64, u64) {
        let (mut compared, mut cold) = (0, 0);
        for (slot, entry) in self.entries.iter().enumerate() {
            let Some(entry) = entry.as_ref().filter(|entry| !entry.superseded) else {
                continue;
            };
            let slots = self.slots.get(&entry.row);
            match self.is_hot(slot, entry, hot) {
                true => compared += 1,
                // A memory is counted once.
                false if slots.is_some_and(|slots| *slots.start() == slot) => cold += 1,
                false => {}
            }
        }
        (compared, cold)
    }

    /// The rows whose vectors are nearest to `query` within reach, the nearest first: hot ones, and cold ones too if
    /// there are not enough of them.
    pub fn nearest(
        &self,
        tx: &Transaction<'_>,
        query: &[f32],
        reach: &Reach,
        hot: &Hot,
        most: usize,
    ) -> sqlite::Result<Vec<Candidate>> {
        if query.len() != self.state.dimensions as usize || self.entries.is_empty() {
            return Ok(Vec::new());
        }
        // What is kept with an entry is looked at here; kinds and tags the database knows.
        let within = match reach.kind.is_some() || !reach.tags.is_empty() {
            true => {
                let mut bits = vec![0u64; self.entries.len().div_ceil(64)];
                for slot in slots(tx, reach)? {
                    if let Some(word) = bits.get_mut(slot / 64) {
                        *word |= 1 << (slot % 64);
                    }
                }
                Some(bits)
            }
            false => None,
        };
        let project = reach
            .project
            .as_ref()
            .map(|project| self.projects.get(project).copied().unwrap_or(u32::MAX));
        let every = self.projects.get("").copied().unwrap_or(u32::MAX);
        let select = |cold: bool| -> (Vec<u64>, usize, usize) {
            let (mut count, mut memories, mut last) = (0, 0, None);
            let bits = self.entries.chunks(64).enumerate().map(|(at, entries)| {
                let mut bits = 0u64;
                let within = within.as_ref().map_or(u64::MAX, |within| within[at]);
                for (bit, entry) in entries.iter().enumerate() {
                    let Some(entry) = entry else { continue };
                    let takes_part = !entry.superseded
                        && entry.confidence >= reach.min_confidence
                        && project.is_none_or(|project| {
                            entry.project == project || entry.project == every
                        })
                        && (cold || self.is_hot(at * 64 + bit, entry, hot))
                        && within >> bit & 1 == 1;
                    if takes_part {
                        bits |= 1 << bit;
                        count += 1;
                        // The vectors of a memory follow each other.
                        memories += usize::from(last.replace(entry.row) != Some(entry.row));
                    }
                }
                bits
            });
            (bits.collect(), count, memories)
        };
        let (mut selected, mut count, mut memories) = select(false);
        if memories < most {
            (selected, count, memories) = select(true);
        }
        let query = quantise(query);
        let wanted = most.min(memories);
        // A long text has many vectors, and may take all places: then more are asked for.
        let mut places = most;
        loop {
            let found = self.near(&query, &selected, count, places);
            let candidates = self.candidates(found, most, hot);
            if candidates.len() >= wanted || places >= count {
                return Ok(candidates);
            }
            places *= 4;
        }
    }

    /// The best of `count` selected vectors, by the graph if it is for so many, by a scan otherwise.
    fn near(&self, query: &[i8], selected: &[u64], count: usize, most: usize) -> Vec<Hit> {
        let graph = self.graph.as_ref().filter(|graph| graph.is_for(count));
        let near = graph.and_then(|graph| {
            let mut near = graph.nearest(query, most, selected)?;
            // What came since is not in it.
            let mut since = selected.to_vec();
            unset_before(&mut since, graph.rows());
            near.extend(self.best(query, &since, most));
            Some(near)
        });
        near.unwrap_or_else(|| self.best(query, selected, most))
    }

    /// The best of the selected vectors, by a scan of each part.
    fn best(&self, query: &[i8], selected: &[u64], most: usize) -> Vec<Hit> {
        let mut found = Vec::new();
        let mut first = 0;
        for part in self.vectors.parts() {
            let rows = part.len() / query.len();
            let hits = match first % 64 {
                0 => self.scan.top_of(
                    part,
                    query,
                    most,
                    &selected[(first / 64).min(selected.len())..],
                ),
                _ => {
                    let shifted = shifted(selected, first);
                    self.scan.top_of(part, query, most, &shifted)
                }
            };
            found.extend(hits.into_iter().map(|hit| Hit {
                row: first + hit.row,
                ..hit
            }));
            first += rows;
        }
        found
    }

    /// The memories of the best vectors, each once.
    fn candidates(&self, mut found: Vec<Hit>, most: usize, hot: &Hot) -> Vec<Candidate> {
        found.sort_unstable_by(|a, b| b.score.cmp(&a.score).then(a.row.cmp(&b.row)));
        let mut seen = HashSet::new();
        found
            .into_iter()
            .filter_map(|hit| Some((hit.row, self.entries.get(hit.row)?.as_ref()?)))
            .filter(|(_, entry)| seen.insert(entry.row))
            .take(most)
            .map(|(slot, entry)| Candidate {
                row: entry.row,
                cold: !self.is_hot(slot, entry, hot),
            })
            .collect()
    }

    /// How many vectors are not those of the database.
    pub fn differences(&self, tx: &Transaction<'_>) -> sqlite::Result<usize> {
        let mut wrong = self.vectors.rows().saturating_sub(self.state.next_slot);
        vectors_from(tx, 0, |slot, vector| {
            let mut row = quantise(vector);
            row.resize(self.width(), 0);
            wrong += usize::from(self.rows(slot, 1) != row);
        })?;
        Ok(wrong)
    }

    /// The graph, if there is one.
    pub fn graph(&self) -> Option<&Graph> {
        self.graph.as_ref()
    }

    /// Uses this graph, if it is of this numbering of the vectors, or none.
    pub fn set_graph(&mut self, graph: Option<Graph>, generation: u64) {
        if generation == self.state.generation {
            self.graph = graph;
        }
    }

    /// Adds up to `most` rows to the graph; `false` if there is no graph, or no row that it lacks.
    ///
    /// # Errors
    /// What the graph said.
    pub fn extend_graph(&mut self, most: usize) -> Result<bool, String> {
        let Some(mut graph) = self.graph.take() else {
            return Ok(false);
        };
        let rows = self.rows(graph.rows(), most);
        let added = match rows.is_empty() {
            true => Ok(false),
            false => graph.push(rows).map(|()| true),
        };
        self.graph = Some(graph);
        added
    }

    /// Notes how good the graph is.
    pub fn set_recall(&mut self, recall: f32) {
        if let Some(graph) = &mut self.graph {
            graph.set_recall(recall);
        }
    }

    /// Which numbering of the vectors this is of.
    pub fn generation(&self) -> u64 {
        self.state.generation
    }

    /// Bytes of a vector.
    pub fn width(&self) -> usize {
        self.state.dimensions as usize
    }

    /// Up to `most` vectors from a slot on, as they lie; none if there are no more.
    pub fn rows(&self, first: usize, most: usize) -> &[i8] {
        let [mapped, tail] = self.vectors.parts();
        let first = first * self.width();
        let rest = match first < mapped.len() {
            true => &mapped[first..],
            false => tail.get(first - mapped.len()..).unwrap_or_default(),
        };
        &rest[..rest.len().min(most * self.width())]
    }

    /// Which share of the ten best the graph finds, asked for vectors that are there.
    pub fn recall(&self, graph: &Graph) -> f32 {
        let mut all = vec![u64::MAX; self.entries.len().div_ceil(64)];
        for (slot, entry) in self.entries.iter().enumerate() {
            if entry.is_none() {
                all[slot / 64] &= !(1 << (slot % 64));
            }
        }
        // Those that came since are scanned.
        truncate(&mut all, graph.rows());
        let (mut found, mut wanted) = (0, 0);
        for sample in 0..SAMPLES {
            let row = self.rows(sample * graph.rows() / SAMPLES, 1);
            if row.is_empty() {
                continue;
            }
            let mut best = self.best(row, &all, BEST);
            best.sort_unstable_by(|a, b| b.cmp(a));
            best.truncate(BEST);
            // Of vectors that are as near as each other any will do. How near they are is not taken from the graph.
            let least = best.last().map_or(i32::MAX, |hit| hit.score);
            let near = graph.nearest(row, BEST, &all).unwrap_or_default();
            let near: HashSet<usize> = near.into_iter().map(|hit| hit.row).collect();
            wanted += best.len();
            found += near
                .into_iter()
                .filter(|near| product(row, self.rows(*near, 1)) >= least)
                .count();
        }
        found.min(wanted) as f32 / wanted.max(1) as f32
    }

    /// Slots without a memory.
    pub fn gaps(&self) -> usize {
        self.entries.iter().filter(|entry| entry.is_none()).count()
    }

    /// Slots there are.
    pub fn slots(&self) -> usize {
        self.entries.len()
    }

    /// The vectors.
    pub fn vectors(&self) -> &Vectors {
        &self.vectors
    }

    /// Brings the file of vectors up to date.
    ///
    /// # Errors
    /// What the system said; nothing is lost.
    pub fn flush(&mut self) -> std::io::Result<()> {
        match self.state.dimensions {
            0 => Ok(()),
            _ => self.vectors.flush(),
        }
    }
}

/// Takes the bits before `first` away.
fn unset_before(bits: &mut [u64], first: usize) {
    let whole = (first / 64).min(bits.len());
    bits[..whole].fill(0);
    if let Some(word) = bits.get_mut(first / 64) {
        *word &= u64::MAX << (first % 64);
    }
}

/// Takes the bits from `end` on away.
fn truncate(bits: &mut Vec<u64>, end: usize) {
    bits.truncate(end.div_ceil(64));
    if let (Some(word), rest @ 1..) = (bits.get_mut(end / 64), end % 64) {
        *word &= (1 << rest) - 1;
    }
}

/// Bits from `first` on.
fn shifted(bits: &[u64], first: usize) -> Vec<u64> {
    let (word, bit) = (first / 64, first % 64);
    let rest = bits.get(word..).unwrap_or_default();
    let next = rest.iter().skip(1).chain([&0]);
    let joined = rest.iter().zip(next);
    joined
        .map(|(low, high)| low >> bit | high << (64 - bit))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_are_divided(bits in prop::collection::vec(any::<u64>(), 0..5), first in 0..400usize) {
            let mut rest = bits.clone();
            unset_before(&mut rest, first);
            let mut start = bits.clone();
            truncate(&mut start, first);
            let bit = |bits: &[u64], at: usize| bits.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1);
            for at in 0..400 {
                prop_assert_eq!(bit(&rest, at), at >= first && bit(&bits, at));
                prop_assert_eq!(bit(&start, at), at < first && bit(&bits, at));
            }
        }

        #[test]
        fn shifted_bits_are_those_from_there_on(bits in prop::collection::vec(any::<u64>(), 0..5), first in 0..300usize) {
            prop_assume!(first % 64 != 0);
            let bit = |bits: &[u64], at: usize| bits.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1);
            let moved = shifted(&bits, first);
            for at in 0..400 {
                prop_assert_eq!(bit(&moved, at), bit(&bits, first + at));
            }
        }
    }
}
