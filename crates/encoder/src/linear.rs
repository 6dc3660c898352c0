//! A dense layer's weights as int8, and the rows of activations they meet.
//!
//! Weights are symmetric per output column: `w ≈ scale · q`, `q` in -127..=127. Activations are affine per row:
//! `x ≈ scale · (u - zero)`, `u` in 0..=255 and `zero` chosen so that the row's own range is used in full (what GELU
//! gives has almost no negative half). So the product of a row and a column is
//! `scale_row · scale_column · (Σ u·q - zero · Σ q)`, and `Σ q` is known beforehand.
//!
//! All sums are exact. `|Σ u·q| <= 255 · 127 · depth`, which stays inside 32 bits up to a depth of 66 311; no more than
//! [`DEEPEST`] is accepted. Every kernel adds the same integers, so in whatever order it does, the sums are equal.
//!
//! One layout serves every kernel: columns in panels of sixteen, the depth in groups of four. A [`Line`] holds for each
//! of sixteen columns the four weights of one group. That is what the dot-product instructions of x86 take as it is, a
//! row of an AMX tile, and two or four loads for the narrower vectors. The depth is padded with zero weights to a
//! multiple of 64, so that no kernel has a tail.

use crate::lanes::{Lane, Line};

/// Columns of a panel.
pub(crate) const PANEL: usize = 16;
/// Deepest layer whose sums are sure to fit 32 bits.
pub(crate) const DEEPEST: usize = 65_536;

/// How a row of activations was quantised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Affine {
    pub(crate) scale: f32,
    pub(crate) zero: i32,
}

impl Affine {
    pub(crate) const NONE: Self = Self {
        scale: 0.0,
        zero: 0,
    };
}

/// Quantised rows, one after the other, each padded to whole lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) lines: &'a [Line],
    pub(crate) affine: &'a [Affine],
}

/// A dense layer: `depth` inputs to `columns` outputs.
#[derive(Debug)]
pub(crate) struct Linear {
    /// Panel after panel, each a line per group of four.
    pub(crate) lines: Vec<Line>,
    /// Lines of a panel; a multiple of sixteen.
    pub(crate) groups: usize,
    /// `Σ q` of each column.
    pub(crate) sums: Vec<[i32; PANEL]>,
    pub(crate) scales: Vec<Lane>,
    pub(crate) bias: Vec<Lane>,
}

impl Linear {
    /// An empty layer for as many inputs and outputs, to be filled panel by panel.
    pub(crate) fn zeroed(columns: usize, depth: usize) -> Self {
        let panels = columns.div_ceil(PANEL);
        let groups = depth.div_ceil(64) * 16;
        Self {
            lines: vec![Line::ZERO; panels * groups],
            groups,
            sums: vec![[0; PANEL]; panels],
            scales: vec![Lane::ZERO; panels],
            bias: vec![Lane::ZERO; panels],
        }
    }

    pub(crate) fn panels(&self) -> usize {
        self.sums.len()
    }

    /// Lines of one row of activations.
    pub(crate) fn row_lines(&self) -> usize {
        self.groups / 16
    }

    /// Panels to be filled, which may be done on several threads.
    pub(crate) fn panels_mut(&mut self) -> impl Iterator<Item = Panel<'_>> {
        self.lines
            .chunks_exact_mut(self.groups)
            .zip(&mut self.sums)
            .zip(&mut self.scales)
            .zip(&mut self.bias)
            .map(|(((lines, sums), scales), bias)| Panel {
                lines,
                sums,
                scales,
                bias,
            })
    }
}

/// Sixteen columns of a layer.
pub(crate) struct Panel<'a> {
    lines: &'a mut [Line],
    sums: &'a mut [i32; PANEL],
    scales: &'a mut Lane,
    bias: &'a mut Lane,
}

impl Panel<'_> {
    /// Quantises one column, whose result is to be multiplied by `factor`. False if a weight is not a finite number.
    pub(crate) fn set(&mut self, column: usize, weights: &[f32], bias: f32, factor: f32) -> bool {
        let top = largest(weights);
        if !top.is_finite() || !bias.is_finite() {
            return false;
        }
        let inverse = match 127.0 / top {
            inverse if inverse.is_finite() => inverse,
            _ => 0.0,
        };
        let mut sum = 0;
        // Adding 1.5 · 2^23 leaves the nearest whole number, halves to even, in the lowest bits: of every processor's
        // ways to round the only one that is one instruction on all.
        let quantise = |weight: f32| (weight * inverse + 12_582_912.0).to_bits() as u8;
        let (fours, rest) = weights.as_chunks::<4>();
        for (line, four) in self.lines.iter_mut().zip(fours) {
            let bytes = four.map(quantise);
            sum += bytes.map(|byte| i32::from(byte as i8)).iter().sum::<i32>();
            line.0[column * 4..column * 4 + 4].copy_from_slice(&bytes);
        }
        for (at, weight) in rest.iter().enumerate() {
            let byte = quantise(*weight);
            sum += i32::from(byte as i8);
            self.lines[fours.len()].0[column * 4 + at] = byte;
        }
        self.sums[column] = sum;
        self.scales.0[column] = if inverse == 0.0 {
            0.0
        } else {
            top / 127.0 * factor
        };
        self.bias.0[column] = bias * factor;
        true
    }
}

/// The largest size of some numbers; not a finite one if one of them is not. Without their sign, the bits of floats are
/// in the same order as the numbers, and above all of them are infinity and then what is not a number.
pub(crate) fn largest(values: &[f32]) -> f32 {
    let bits = |value: &f32| (value.to_bits() & 0x7fff_ffff) as i32;
    let mut largest = [0; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (largest, value) in largest.iter_mut().zip(chunk) {
            *largest = bits(value).max(*largest);
        }
    }
    let all = largest.into_iter().chain(rest.iter().map(bits));
    f32::from_bits(all.fold(0, i32::max) as u32)
}
