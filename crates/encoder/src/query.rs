//! A query of the scan, in the forms that the kernels take it in.

use crate::lanes::Line;

/// A query vector.
#[derive(Debug)]
pub(crate) struct Query {
    dims: usize,
    lines: Vec<Line>,
    wide: Vec<i16>,
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "one kernel needs it")
    )]
    sum: i32,
}

impl Query {
    /// Prepares a vector of any length.
    pub(crate) fn new(vector: &[i8]) -> Self {
        let mut lines = vec![Line::ZERO; vector.len().div_ceil(64)];
        for (line, values) in lines.iter_mut().zip(vector.chunks(64)) {
            for (byte, value) in line.0.iter_mut().zip(values) {
                *byte = *value as u8;
            }
        }
        Self {
            dims: vector.len(),
            lines,
            wide: vector.iter().map(|value| i16::from(*value)).collect(),
            sum: vector.iter().map(|value| i32::from(*value)).sum(),
        }
    }

    /// Values of the vector.
    pub(crate) fn dims(&self) -> usize {
        self.dims
    }

    /// The values as bytes, padded with zeros to whole lines.
    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The values, widened.
    pub(crate) fn wide(&self) -> &[i16] {
        &self.wide
    }

    /// The sum of the values.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "one kernel needs it")
    )]
    pub(crate) fn sum(&self) -> i32 {
        self.sum
    }
}
