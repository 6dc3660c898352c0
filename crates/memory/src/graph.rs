//! The approximate index: a navigable small-world graph over the vectors (HNSW; Malkov, Yashunin: Efficient and Robust
//! Approximate Nearest Neighbor Search, arXiv 1603.09320), through `usearch`.
//!
//! A scan reads every vector that takes part, and is faster and exact until there are very many of them
//! ([`BREAK_EVEN`]). The graph is made from the vectors in the background, lives in memory, and grows with them; what it
//! does not have yet is scanned. Which vectors take part is told to it bit by bit, as to the scan.

use hearth_encoder::Hit;
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

/// Vectors that one search compares, from which on the graph finds the best sooner than the scan. Measured by
/// `cargo xtask bench memory`.
pub const BREAK_EVEN: usize = 40_000;
/// A graph that finds fewer of the ten best than this share is not used.
pub(crate) const LEAST_RECALL: f32 = 0.95;
/// Neighbours of a vector.
const CONNECTIVITY: usize = 16;
/// Candidates that are kept while a vector finds its neighbours, and while a query finds the best.
const WHILE_ADDING: usize = 128;
const WHILE_SEARCHING: usize = 128;
/// Threads that may search at once; others scan.
const THREADS: usize = 64;

/// See the module's documentation.
pub(crate) struct Graph {
    index: Index,
    dimensions: usize,
    /// Rows that it has: all before this one.
    rows: usize,
    /// A search of more vectors than these uses it.
    from: usize,
    /// Share of the ten best that it finds, and how many rows it had when that was measured.
    recall: f32,
    measured: usize,
}

impl Graph {
    /// An empty one, for a search of more than `from` vectors of so many bytes.
    pub fn new(dimensions: usize, from: usize) -> Result<Self, String> {
        let options = IndexOptions {
            dimensions,
            // All vectors are of one length at one scale.
            metric: MetricKind::IP,
            quantization: ScalarKind::I8,
            connectivity: CONNECTIVITY,
            expansion_add: WHILE_ADDING,
            expansion_search: WHILE_SEARCHING,
            multi: false,
        };
        let index = Index::new(&options).map_err(|error| error.to_string())?;
        Ok(Self {
            index,
            dimensions,
            rows: 0,
            from,
            recall: 0.0,
            measured: 0,
        })
    }

    /// Makes room for so many rows in all.
    pub fn reserve(&mut self, rows: usize) -> Result<(), String> {
        let reserved = self.index.reserve_capacity_and_threads(rows, THREADS);
        reserved.map_err(|error| error.to_string())
    }

    /// Appends rows.
    pub fn push(&mut self, rows: &[i8]) -> Result<(), String> {
        let count = rows.len() / self.dimensions;
        if self.rows + count > self.index.capacity() {
            self.reserve((self.rows + count).next_power_of_two())?;
        }
        for row in rows.chunks_exact(self.dimensions) {
            let added = self.index.add(self.rows as u64, row);
            added.map_err(|error| error.to_string())?;
            self.rows += 1;
        }
        Ok(())
    }

    /// Rows that it has.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Notes which share of the ten best it finds.
    pub fn set_recall(&mut self, recall: f32) {
        self.recall = recall;
        self.measured = self.rows;
    }

    /// Which share of the ten best it finds; 0 until that was measured.
    pub fn recall(&self) -> f32 {
        self.recall
    }

    /// Whether it grew so much since its recall was measured that it should be again.
    pub fn is_unmeasured(&self) -> bool {
        self.measured == 0 || self.rows > self.measured + self.measured / 8
    }

    /// Whether it is good enough to be used for a search of so many vectors.
    pub fn is_for(&self, vectors: usize) -> bool {
        vectors > self.from && self.recall >= LEAST_RECALL
    }

    /// A search of more vectors than these uses it.
    pub fn from(&self) -> usize {
        self.from
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> u64 {
        self.index.memory_usage() as u64
    }

    /// Rows near to `query` among those whose bits are set, with their dot products, in no order; `None` if it is busy, or
    /// finds fewer than `most`.
    pub fn nearest(&self, query: &[i8], most: usize, selected: &[u64]) -> Option<Vec<Hit>> {
        let takes_part = |row: u64| {
            let word = selected.get(row as usize / 64);
            word.is_some_and(|word| word >> (row % 64) & 1 == 1)
        };
        let found = self.index.filtered_search(query, most, takes_part).ok()?;
        if found.keys.len() < most {
            return None;
        }
        let hits = found.keys.iter().zip(&found.distances);
        Some(
            hits.map(|(row, distance)| Hit {
                // The distance of an inner product is one less it.
                score: (1.0 - distance).round() as i32,
                row: *row as usize,
            })
            .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashSet;

    use hearth_encoder::Scan;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn it_finds_what_a_scan_finds_among_those_that_take_part() {
        const WIDTH: usize = 48;
        let mut random = StdRng::seed_from_u64(5);
        let rows: Vec<i8> = (0..2000 * WIDTH)
            .map(|_| random.random_range(-60..60))
            .collect();
        let mut graph = Graph::new(WIDTH, 100).unwrap();
        for part in rows.chunks(300 * WIDTH) {
            graph.push(part).unwrap();
        }
        assert_eq!(graph.rows(), 2000);
        let selected: Vec<u64> = (0..2000usize.div_ceil(64))
            .map(|_| random.random())
            .collect();
        let (mut found, mut wanted) = (0, 0);
        for _ in 0..50 {
            let query: Vec<i8> = (0..WIDTH).map(|_| random.random_range(-60..60)).collect();
            let best = Scan::new().top_of(&rows, &query, 10, &selected);
            let near = graph.nearest(&query, 10, &selected).unwrap();
            for hit in &near {
                assert_eq!(selected[hit.row / 64] >> (hit.row % 64) & 1, 1);
                let row = &rows[hit.row * WIDTH..(hit.row + 1) * WIDTH];
                let product = row
                    .iter()
                    .zip(&query)
                    .map(|(a, b)| i32::from(*a) * i32::from(*b));
                assert_eq!(hit.score, product.sum::<i32>());
            }
            let near: HashSet<usize> = near.iter().map(|hit| hit.row).collect();
            wanted += best.len();
            found += best.iter().filter(|hit| near.contains(&hit.row)).count();
        }
        assert!(found * 10 >= wanted * 9, "{found} of {wanted}");
        assert!(!graph.is_for(2000));
        graph.set_recall(1.0);
        assert!(graph.is_for(101) && !graph.is_for(100) && !graph.is_unmeasured());
    }
}
