//! The scan: the dot product of one int8 vector with many that lie one after the other, all of them or some.
//!
//! It is exact and reads every byte once; at the usual 384 dimensions it is limited by how fast memory can be read. The
//! best are kept in a small heap, into which only scores above its least are put.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::kernel::{Kernel, Routines};
use crate::linear::largest;
use crate::query::Query;

/// A vector that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hit {
    /// Its dot product with the query.
    pub score: i32,
    /// Its place among the vectors.
    pub row: usize,
}

/// The scan, on one kernel.
#[derive(Clone, Copy)]
pub struct Scan {
    routines: &'static Routines,
    kernel: Kernel,
}

/// Rows whose scores are made at a time.
const BLOCK: usize = 64;

impl Scan {
    /// The scan on the fastest kernel of this machine.
    #[allow(clippy::new_without_default, reason = "it asks the processor")]
    pub fn new() -> Self {
        let kernel = Kernel::best();
        match Self::with_kernel(kernel) {
            Some(scan) => scan,
            None => unreachable!("the best kernel is an available one"),
        }
    }

    /// The scan on a certain kernel; `None` if this machine cannot run it. The scores are the same.
    pub fn with_kernel(kernel: Kernel) -> Option<Self> {
        let routines = kernel.routines()?;
        Some(Self { routines, kernel })
    }

    /// The kernel in use.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// The scores of all vectors. `vectors` holds rows as long as the query; bytes after the last whole row are not
    /// read. Sums are exact as long as the query is no longer than 131 071; an empty one has no rows.
    pub fn scores(&self, vectors: &[i8], query: &[i8]) -> Vec<i32> {
        let count = vectors.len().checked_div(query.len()).unwrap_or(0);
        let query = Query::new(query);
        let mut scores = vec![0; count];
        for (block, scores) in scores.chunks_mut(BLOCK).enumerate() {
            let rows: [u32; BLOCK] = std::array::from_fn(|at| at as u32);
            let vectors = &vectors[block * BLOCK * query.dims()..];
            self.routines
                .scores(vectors, &rows[..scores.len()], &query, scores);
        }
        scores
    }

    /// The `most` vectors with the largest scores, the best first; of equal ones the earlier. As for [`Scan::scores`].
    pub fn top(&self, vectors: &[i8], query: &[i8], most: usize) -> Vec<Hit> {
        let count = vectors.len().checked_div(query.len()).unwrap_or(0);
        self.best(vectors, query, most, count, |block| {
            match count - block * BLOCK {
                rest @ ..BLOCK => (1 << rest) - 1,
                _ => u64::MAX,
            }
        })
    }

    /// Like [`Scan::top`], among selected vectors only: row `n` takes part if bit `n % 64` of word `n / 64` is set. Rows
    /// beyond the last word do not; bits beyond the last row mean nothing. What is not selected is not read.
    pub fn top_of(&self, vectors: &[i8], query: &[i8], most: usize, selected: &[u64]) -> Vec<Hit> {
        let count = vectors.len().checked_div(query.len()).unwrap_or(0);
        let count = count.min(selected.len() * BLOCK);
        self.best(vectors, query, most, count, |block| {
            match count - block * BLOCK {
                rest @ ..BLOCK => selected[block] & ((1 << rest) - 1),
                _ => selected[block],
            }
        })
    }

    /// The best of the first `count` rows; of each block of 64 those whose bits `selected` gives.
    fn best(
        &self,
        vectors: &[i8],
        query: &[i8],
        most: usize,
        count: usize,
        selected: impl Fn(usize) -> u64,
    ) -> Vec<Hit> {
        if most == 0 {
            return Vec::new();
        }
        let query = Query::new(query);
        // The least is on top. Rows come in order, so of equal scores those that are there already are the earlier.
        let mut best: BinaryHeap<Reverse<(i32, Reverse<usize>)>> =
            BinaryHeap::with_capacity(most.min(count) + 1);
        let mut threshold = i32::MIN;
        let mut rows = [0; BLOCK];
        let mut scores = [0; BLOCK];
        for block in 0..count.div_ceil(BLOCK) {
            let mut bits = selected(block);
            let length = bits.count_ones() as usize;
            if length == BLOCK {
                rows = std::array::from_fn(|at| at as u32);
            } else {
                for row in &mut rows[..length] {
                    *row = bits.trailing_zeros();
                    bits &= bits - 1;
                }
            }
            let start = block * BLOCK;
            let vectors = &vectors[start * query.dims()..];
            let (rows, scores) = (&rows[..length], &mut scores[..length]);
            self.routines.scores(vectors, rows, &query, scores);
            // Nearly always none of a block is among the best.
            let largest = scores.iter().copied().fold(i32::MIN, i32::max);
            if best.len() == most && largest <= threshold {
                continue;
            }
            for (score, row) in scores.iter().zip(rows) {
                if best.len() == most && *score <= threshold {
                    continue;
                }
                if best.len() == most {
                    best.pop();
                }
                best.push(Reverse((*score, Reverse(start + *row as usize))));
                threshold = best.peek().map_or(i32::MIN, |least| least.0.0);
            }
        }
        best.into_sorted_vec()
            .into_iter()
            .map(|Reverse((score, Reverse(row)))| Hit { score, row })
            .collect()
    }
}

/// Makes a vector int8: `value ≈ scale · byte`, bytes from -127 to 127. So the dot product of two such vectors is about
/// that of their bytes times both scales. A vector of zeros has scale 0, and so has one that holds something else than
/// finite numbers.
pub fn quantise(vector: &[f32]) -> (Vec<i8>, f32) {
    let largest = largest(vector);
    let inverse = 127.0 / largest;
    if !(inverse.is_finite() && inverse > 0.0) {
        return (vec![0; vector.len()], 0.0);
    }
    let bytes = vector
        .iter()
        .map(|value| (value * inverse).round_ties_even() as i8)
        .collect();
    (bytes, largest / 127.0)
}
