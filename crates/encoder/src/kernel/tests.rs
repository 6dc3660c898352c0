//! Every kernel against the portable one: the same integers and the same floats, for every length and tail.

use proptest::prelude::*;

use super::{Kernel, Routines};
use crate::float::{Heads, Norm};
use crate::lanes::{Lane, Line};
use crate::linear::{Affine, Linear, Rows};

/// The kernels to compare: those of this machine, and code that it can run in another encoding.
fn kernels() -> Vec<(&'static str, &'static Routines)> {
    let available = Kernel::available().iter();
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(unused_mut, reason = "one more on x86")
    )]
    let mut kernels: Vec<_> = available
        .filter_map(|kernel| Some((kernel.name(), kernel.routines()?)))
        .collect();
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("avx512vnni")
    {
        kernels.push((
            "avx-vnni in AVX-512's encoding",
            &super::vnni::evex::ROUTINES,
        ));
    }
    kernels
}

fn portable() -> &'static Routines {
    &super::portable::ROUTINES
}

/// Bytes with many of the largest and smallest.
fn bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            match (state >> 60, (state >> 40) as u8) {
                (0..3, _) => 0,
                (3..6, _) => 255,
                (_, byte) => byte,
            }
        })
        .collect()
}

fn floats(count: usize, seed: u64) -> Vec<Lane> {
    let bytes = bytes(count * 32, seed);
    let mut values = bytes.as_chunks::<2>().0.iter();
    let mut lanes = vec![Lane::ZERO; count];
    for (value, bytes) in lanes
        .iter_mut()
        .flat_map(|lane| &mut lane.0)
        .zip(&mut values)
    {
        *value = f32::from(i16::from_ne_bytes(*bytes)) / 3000.0;
    }
    lanes
}

/// A layer of random weights, through the door that real ones come in by.
fn layer(columns: usize, depth: usize, seed: u64) -> Linear {
    let bytes = bytes(columns * depth, seed);
    let mut layer = Linear::zeroed(columns, depth);
    for (panel, weights) in layer.panels_mut().zip(bytes.chunks(16 * depth)) {
        let mut panel = panel;
        for (column, weights) in weights.chunks_exact(depth).enumerate() {
            let weights: Vec<f32> = weights.iter().map(|byte| f32::from(*byte as i8)).collect();
            assert!(panel.set(column, &weights, column as f32, 0.5));
        }
    }
    layer
}

/// Rows with whatever bytes, and zeros of every kind.
fn rows(layer: &Linear, count: usize, seed: u64) -> (Vec<Line>, Vec<Affine>) {
    let bytes = bytes(count * layer.row_lines() * 64, seed);
    let lines = bytes
        .as_chunks::<64>()
        .0
        .iter()
        .map(|line| Line(*line))
        .collect();
    let affine = (0..count)
        .map(|row| Affine {
            scale: 0.01 * row as f32,
            zero: [0, 255, 128, 17][row % 4],
        })
        .collect();
    (lines, affine)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn sums_are_the_same(columns in 1usize..150, depth in 1usize..300, count in 0usize..40, seed: u64) {
        let layer = layer(columns, depth, seed);
        let (lines, affine) = rows(&layer, count, seed ^ 1);
        let rows = Rows { lines: &lines, affine: &affine };
        let sums = portable().sums(&layer, rows);
        for (name, kernel) in kernels() {
            prop_assert_eq!(&kernel.sums(&layer, rows), &sums, "{}", name);
            let mut out = [vec![Lane::ZERO; sums.len() / 16], vec![Lane::ZERO; sums.len() / 16]];
            let [ours, plain] = &mut out;
            kernel.product(&layer, rows, ours, &mut Vec::new());
            portable().product(&layer, rows, plain, &mut Vec::new());
            prop_assert_eq!(ours, plain, "{}", name);
        }
    }

    #[test]
    fn rows_are_the_same(width in 1usize..30, seed: u64) {
        let lines = width.div_ceil(4);
        let norm = Norm { gain: floats(width, seed ^ 1), shift: floats(width, seed ^ 2), epsilon: 1e-12 };
        let delta = floats(width, seed ^ 3);
        let run = |kernel: &Routines| {
            let mut results = Vec::new();
            let mut quantised = |to: Vec<Line>, affine: Affine| results.push((to, affine));
            let mut row = floats(width, seed);
            let mut to = vec![Line::ZERO; lines];
            let affine = kernel.quantise(&row, &mut to);
            quantised(to.clone(), affine);
            let affine = kernel.gelu(&mut row, &mut to);
            quantised(to.clone(), affine);
            let affine = kernel.add_norm(&mut row, &delta, &norm, &mut to);
            quantised(to, affine);
            (results, row)
        };
        let plain = run(portable());
        for (name, kernel) in kernels() {
            prop_assert_eq!(&run(kernel), &plain, "{}", name);
        }
    }

    #[test]
    fn attention_is_the_same(tokens in 1usize..70, heads in 1usize..4, width in 0u32..3, before in 0usize..3, first: bool, seed: u64) {
        let width = 1 << width;
        let hidden = heads * width;
        let qkv = floats((before + tokens) * hidden * 3, seed);
        let text = Heads { rows: before..before + tokens, asking: if first { 1 } else { tokens }, heads, width };
        let run = |kernel: &Routines| {
            let mut context = vec![Lane::ZERO; (before + tokens) * hidden];
            // What an earlier text left must not matter.
            let mut space = vec![Lane([f32::NAN; 16]); 50];
            kernel.attention(&qkv, &text, &mut context, &mut space);
            context
        };
        let plain = run(portable());
        for (name, kernel) in kernels() {
            prop_assert_eq!(&run(kernel), &plain, "{}", name);
        }
        // A text alone gives what it gives after others.
        prop_assert!(plain[..before * hidden].iter().all(|lane| *lane == Lane::ZERO));
        prop_assert!(plain.iter().flat_map(|lane| lane.0).all(f32::is_finite));
    }
}

/// The sums against the definition, written out once more.
#[test]
fn portable_sums_are_exact() {
    let (columns, depth, count) = (20, 70, 5);
    let layer = layer(columns, depth, 3);
    let (lines, affine) = rows(&layer, count, 4);
    let rows = Rows {
        lines: &lines,
        affine: &affine,
    };
    let sums = portable().sums(&layer, rows);
    for row in 0..count {
        for column in 0..columns {
            let mut sum = 0i64;
            for k in 0..depth {
                let value = lines[row * layer.row_lines() + k / 64].0[k % 64];
                let line = &layer.lines[column / 16 * layer.groups + k / 4];
                let weight = line.0[column % 16 * 4 + k % 4] as i8;
                sum += (i64::from(value) - i64::from(affine[row].zero)) * i64::from(weight);
            }
            assert_eq!(i64::from(sums[row * layer.panels() * 16 + column]), sum);
        }
    }
}

/// The largest sums there can be fit: every product at its extreme, at the greatest depth.
#[test]
fn the_deepest_layer_does_not_overflow() {
    let depth = crate::linear::DEEPEST;
    let mut layer = Linear::zeroed(16, depth);
    for mut panel in layer.panels_mut() {
        for column in 0..16 {
            assert!(panel.set(
                column,
                &vec![if column % 2 == 0 { 1.0 } else { -1.0 }; depth],
                0.0,
                1.0
            ));
        }
    }
    let lines = vec![Line([255; 64]); layer.row_lines()];
    let affine = [Affine {
        scale: 1.0,
        zero: 0,
    }];
    for (name, kernel) in kernels() {
        let sums = kernel.sums(
            &layer,
            Rows {
                lines: &lines,
                affine: &affine,
            },
        );
        let largest = 255 * 127 * depth as i32;
        assert_eq!(sums[..2], [largest, -largest], "{name}");
    }
}
