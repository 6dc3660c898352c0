//! The exact scan: how long it takes beside a loop that only reads the same bytes, and what int8 costs in recall.

use std::collections::HashSet;
use std::error::Error;
use std::hint::black_box;
use std::io::Read;
use std::path::Path;

use hearth_encoder::Scan;
use hearth_memory::quantise;
use serde_json::json;

use crate::encode::kernel_of;
use crate::{Answer, times};

/// Width of the vectors in the files.
const DIMS: usize = 384;
/// Nearest that are looked for.
const NEAREST: usize = 10;
/// Candidates that a search compares in full for ten memories.
const CANDIDATES: usize = 40;

/// The first `count` vectors of a file, or all.
fn read(path: &Path, count: usize) -> Result<Vec<Vec<f32>>, Box<dyn Error>> {
    let mut bytes = Vec::new();
    let most = count.saturating_mul(DIMS * 4) as u64;
    std::fs::File::open(path)?
        .take(most)
        .read_to_end(&mut bytes)?;
    let floats: Vec<f32> = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    Ok(floats.chunks_exact(DIMS).map(<[f32]>::to_vec).collect())
}

fn bytes(vectors: &[Vec<f32>]) -> Vec<i8> {
    vectors.iter().flat_map(|vector| quantise(vector)).collect()
}

pub fn time(
    notes: &Path,
    questions: &Path,
    count: usize,
    rounds: usize,
    kernel: Option<&str>,
) -> Answer {
    let scan = Scan::with_kernel(kernel_of(kernel)?).ok_or("no such kernel")?;
    let vectors = bytes(&read(notes, count)?);
    if vectors.len() != count * DIMS {
        return Err(format!("the file has less than {count} vectors").into());
    }
    let queries = read(questions, usize::MAX)?;
    let queries: Vec<Vec<i8>> = queries.iter().map(|query| quantise(query)).collect();
    let none = |_| Ok::<_, std::convert::Infallible>(());
    let reads = times(rounds, 2, |_| {
        none(black_box(read_all(black_box(&vectors))))
    })?;
    let scans = times(rounds, 2, |round| {
        let query = &queries[round % queries.len()];
        let top = scan.top(black_box(&vectors), query, NEAREST);
        none(top.len() as u64)
    })?;
    Ok(json!({"times": scans, "reads": reads}))
}

/// Reads every byte and does as little with it as can be done.
fn read_all(bytes: &[i8]) -> u64 {
    let mut sums = [0u64; 32];
    for chunk in bytes.as_chunks::<256>().0 {
        let words = chunk.as_chunks::<8>().0;
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum ^= u64::from_ne_bytes(word.map(|byte| byte as u8));
        }
    }
    sums.iter().fold(0, |all, sum| all ^ sum)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The rows with the largest scores, the best first.
fn best(scores: impl Iterator<Item = (usize, f32)>) -> Vec<usize> {
    let mut all: Vec<(usize, f32)> = scores.collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.into_iter().take(NEAREST).map(|(row, _)| row).collect()
}

pub fn recall(notes: &Path, questions: &Path, count: usize) -> Answer {
    let vectors = read(notes, count)?;
    let queries = read(questions, usize::MAX)?;
    let quantised = bytes(&vectors);
    let scan = Scan::new();
    let (mut alone, mut rescored) = (0, 0);
    for query in &queries {
        let scores = vectors.iter().map(|vector| dot(query, vector));
        let exact: HashSet<usize> = best(scores.enumerate()).into_iter().collect();
        let rows: Vec<usize> = scan
            .top(&quantised, &quantise(query), CANDIDATES)
            .into_iter()
            .map(|hit| hit.row)
            .collect();
        alone += rows
            .iter()
            .take(NEAREST)
            .filter(|row| exact.contains(row))
            .count();
        let compared = rows.iter().map(|row| (*row, dot(query, &vectors[*row])));
        rescored += best(compared)
            .iter()
            .filter(|row| exact.contains(row))
            .count();
    }
    let all = (queries.len() * NEAREST.min(count)) as f64;
    Ok(json!({"alone": alone as f64 / all, "rescored": rescored as f64 / all}))
}
