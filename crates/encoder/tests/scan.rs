//! The scan through its public door, against the sum written out.
#![allow(clippy::unwrap_used, reason = "tests")]

use hearth_encoder::{Hit, Kernel, Scan, quantise};
use proptest::prelude::*;

/// The best as a sort finds them.
fn sorted(vectors: &[i8], query: &[i8], most: usize, selected: impl Fn(usize) -> bool) -> Vec<Hit> {
    let mut hits: Vec<Hit> = vectors
        .chunks_exact(query.len())
        .enumerate()
        .filter(|(row, _)| selected(*row))
        .map(|(row, vector)| Hit {
            score: vector
                .iter()
                .zip(query)
                .map(|(a, b)| i32::from(*a) * i32::from(*b))
                .sum(),
            row,
        })
        .collect();
    hits.sort_by_key(|hit| (std::cmp::Reverse(hit.score), hit.row));
    hits.truncate(most);
    hits
}

fn scans() -> impl Iterator<Item = Scan> {
    Kernel::available()
        .iter()
        .map(|kernel| Scan::with_kernel(*kernel).unwrap())
}

/// A query, and rows of its length with a few bytes too many. Made from a seed: byte by byte would take proptest long.
fn table() -> impl Strategy<Value = (Vec<i8>, Vec<i8>)> {
    (1usize..200, 0usize..150, 0usize..200, any::<u64>()).prop_map(|(dims, rows, extra, seed)| {
        let mut state = seed | 1;
        let mut byte = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            match state >> 61 {
                0 => -128,
                1 => 127,
                _ => (state >> 40) as i8,
            }
        };
        let query = (0..dims).map(|_| byte()).collect();
        (
            query,
            (0..rows * dims + extra % dims).map(|_| byte()).collect(),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn all_kernels_score_exactly((query, vectors) in table()) {
        for scan in scans() {
            let scores = scan.scores(&vectors, &query);
            let rows = vectors.chunks_exact(query.len());
            let exact: Vec<i32> = rows
                .map(|row| row.iter().zip(&query).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum())
                .collect();
            prop_assert_eq!(scores, exact, "{}", scan.kernel());
        }
    }

    #[test]
    fn the_best_are_those_a_sort_finds(
        (query, vectors) in table(),
        most in 0usize..40,
        mut selected in prop::collection::vec(prop_oneof![Just(0u64), Just(u64::MAX), any::<u64>()], 0..4),
        narrow in any::<bool>(),
    ) {
        // Few different scores, so that there are ties.
        let query: Vec<i8> = if narrow { query.iter().map(|byte| byte >> 7).collect() } else { query };
        if narrow {
            selected.iter_mut().for_each(|word| *word &= 0x1111_1111_1111_1111);
        }
        let is_selected = |row: usize| selected.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1);
        for scan in scans() {
            prop_assert_eq!(scan.top(&vectors, &query, most), sorted(&vectors, &query, most, |_| true));
            prop_assert_eq!(
                scan.top_of(&vectors, &query, most, &selected),
                sorted(&vectors, &query, most, is_selected)
            );
        }
    }

    #[test]
    fn quantising_is_off_by_half_a_step(vector in prop::collection::vec(-1e3f32..1e3, 0..100)) {
        let (bytes, scale) = quantise(&vector);
        prop_assert_eq!(bytes.len(), vector.len());
        for (byte, value) in bytes.iter().zip(&vector) {
            prop_assert!(*byte >= -127);
            prop_assert!((f32::from(*byte) * scale - value).abs() <= scale * 0.501);
        }
    }
}

#[test]
fn nothing_is_found_in_nothing() {
    let scan = Scan::new();
    assert_eq!(scan.kernel(), Kernel::best());
    assert_eq!(scan.top(&[], &[1, 2, 3], 5), []);
    assert_eq!(scan.top(&[1, 2], &[1, 2, 3], 5), []);
    assert_eq!(scan.top(&[1, 2, 3], &[], 5), []);
    assert!(scan.scores(&[1, 2, 3], &[]).is_empty());
    assert_eq!(scan.top_of(&[1, 2, 3], &[1], 5, &[]), []);
    assert_eq!(scan.top(&[1, 2, 3], &[1], 0), []);
    let two = scan.top(&[1, 2, 3], &[1], usize::MAX);
    assert_eq!(two.iter().map(|hit| hit.row).collect::<Vec<_>>(), [2, 1, 0]);
}

#[test]
fn what_is_not_finite_becomes_nothing() {
    for vector in [
        [0.0, 0.0],
        [f32::NAN, 1.0],
        [1.0, f32::INFINITY],
        [1e-45, 0.0],
    ] {
        assert_eq!(quantise(&vector), (vec![0, 0], 0.0));
    }
    assert_eq!(quantise(&[1.0, -0.5]), (vec![127, -64], 1.0 / 127.0));
}
