//! Which instructions compute: chosen once, at run time, from what the processor can do.
//!
//! A kernel is a table of routines: the product of int8 rows with a layer, the scan of int8 vectors, and everything of
//! `float` compiled for it. All kernels give the same integers and the same floats (see `linear` and `lanes`), so the
//! choice changes only how long an answer takes.
#![allow(unsafe_code)]

use std::fmt;
use std::sync::OnceLock;

use crate::float::{Heads, Norm};
use crate::lanes::{Lane, Line};
use crate::linear::{Affine, Linear, PANEL, Rows};
use crate::query::Query;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod vnni;

/// A set of instructions that the encoder and the scan can run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kernel {
    /// Plain Rust; runs everywhere.
    Portable,
    /// x86-64 with AVX2, FMA and F16C (2013 and later).
    Avx2,
    /// x86-64 with AVX-VNNI: 256-bit dot products of bytes.
    AvxVnni,
    /// x86-64 with AVX-512 and its VNNI: 512-bit dot products of bytes.
    Avx512Vnni,
    /// x86-64 with AMX: tiles of 16 × 64 bytes.
    AmxInt8,
    /// 64-bit ARM.
    Neon,
    /// 64-bit ARM with dot products of bytes (ARMv8.2).
    NeonDotprod,
    /// 64-bit ARM with products of byte matrices (ARMv8.6).
    NeonI8mm,
}

impl Kernel {
    /// Every kernel there is, on any machine, the fastest of each architecture first.
    const ALL: [Self; 8] = [
        Self::AmxInt8,
        Self::Avx512Vnni,
        Self::AvxVnni,
        Self::Avx2,
        Self::NeonI8mm,
        Self::NeonDotprod,
        Self::Neon,
        Self::Portable,
    ];

    /// What this machine can run and what computes there as it should, the fastest first; the last is
    /// [`Kernel::Portable`].
    pub fn available() -> &'static [Self] {
        static AVAILABLE: OnceLock<Vec<Kernel>> = OnceLock::new();
        AVAILABLE.get_or_init(|| {
            Self::ALL
                .into_iter()
                .filter(|kernel| kernel.runs_here() && kernel.agrees())
                .collect()
        })
    }

    /// The fastest kernel of this machine.
    pub fn best() -> Self {
        Self::available()[0]
    }

    /// The name used in settings and figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512Vnni => "avx512-vnni",
            Self::AmxInt8 => "amx-int8",
            Self::Neon => "neon",
            Self::NeonDotprod => "neon-dotprod",
            Self::NeonI8mm => "neon-i8mm",
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn runs_here(self) -> bool {
        use std::arch::is_x86_feature_detected as has;
        let avx2 = has!("avx2") && has!("fma");
        match self {
            Self::Portable => true,
            Self::Avx2 => avx2,
            Self::AvxVnni => avx2 && has!("avxvnni"),
            Self::Avx512Vnni => avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512vnni"),
            Self::AmxInt8 => Self::Avx512Vnni.runs_here() && amx::runs_here(),
            Self::Neon | Self::NeonDotprod | Self::NeonI8mm => false,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn runs_here(self) -> bool {
        use std::arch::is_aarch64_feature_detected as has;
        match self {
            Self::Portable => true,
            Self::Neon => has!("neon"),
            Self::NeonDotprod => has!("neon") && has!("dotprod"),
            Self::NeonI8mm => has!("neon") && has!("dotprod") && has!("i8mm"),
            Self::Avx2 | Self::AvxVnni | Self::Avx512Vnni | Self::AmxInt8 => false,
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn runs_here(self) -> bool {
        self == Self::Portable
    }

    /// The routines of this kernel, if this machine can run them.
    pub(crate) fn routines(self) -> Option<&'static Routines> {
        match Self::available().contains(&self) {
            true => self.table(),
            false => None,
        }
    }

    /// The routines of this kernel, if it is one of this architecture's.
    fn table(self) -> Option<&'static Routines> {
        match self {
            Self::Portable => Some(&portable::ROUTINES),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Some(&avx2::ROUTINES),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => Some(&vnni::ROUTINES),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => Some(&avx512::ROUTINES),
            #[cfg(target_arch = "x86_64")]
            Self::AmxInt8 => Some(&amx::ROUTINES),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => Some(&neon::PLAIN),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDotprod => Some(&neon::DOTPROD),
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm => Some(&neon::I8MM),
            #[allow(unreachable_patterns, reason = "kernels of other architectures")]
            _ => None,
        }
    }
}

impl Kernel {
    /// Whether this kernel finds the very sums that plain Rust finds, a self-test of less than a millisecond. Some
    /// kernels can be tried on few machines; what is wrong with one there must not become wrong vectors. Only for
    /// kernels that run here.
    fn agrees(self) -> bool {
        let mut state = 1u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let Some(routines) = self.table() else {
            return false;
        };
        // One tile of rows and two, whole ones and cut ones, odd numbers of panels.
        let mut shapes = [
            (1, 1, 64),
            (16, 4, 128),
            (7, 5, 256),
            (17, 3, 64),
            (41, 2, 128),
        ]
        .into_iter();
        shapes.all(|(count, panels, depth)| {
            let mut layer = Linear::zeroed(panels * PANEL, depth);
            for line in &mut layer.lines {
                line.0 = std::array::from_fn(|_| (byte() as i8).max(-127) as u8);
            }
            for sums in &mut layer.sums {
                *sums = std::array::from_fn(|_| i32::from(byte()));
            }
            let lines: Vec<_> = (0..count * layer.row_lines())
                .map(|_| Line(std::array::from_fn(|_| byte())))
                .collect();
            let affine: Vec<_> = (0..count)
                .map(|_| Affine {
                    scale: 1.0,
                    zero: i32::from(byte()),
                })
                .collect();
            let rows = Rows {
                lines: &lines,
                affine: &affine,
            };
            routines.sums(&layer, rows) == portable::ROUTINES.sums(&layer, rows)
        })
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Rows times a layer. In `SUMS` form the lanes hold the bits of the integer sums instead of floats.
type Product = unsafe fn(&Linear, Rows<'_>, &mut [Lane], &mut Vec<i16>);
/// Rows of a table against a query.
type Scores = unsafe fn(&[i8], &[u32], &Query, &mut [i32]);
type Quantise = unsafe fn(&[Lane], &mut [Line]) -> Affine;
type AddNorm = unsafe fn(&mut [Lane], &[Lane], &Norm, &mut [Line]) -> Affine;
type Gelu = unsafe fn(&mut [Lane], &mut [Line]) -> Affine;
type Attention = unsafe fn(&[Lane], &Heads, &mut [Lane], &mut Vec<Lane>);

/// The routines of one kernel. They may be called only where the processor has its instructions: a `Routines` is
/// handed out by [`Kernel::routines`] alone, which asks. Lengths are checked here, so that the routines need not.
pub(crate) struct Routines {
    product: Product,
    sums: Product,
    scores: Scores,
    quantise: Quantise,
    add_norm: AddNorm,
    gelu: Gelu,
    attention: Attention,
}

impl Routines {
    /// Multiplies rows with a layer: one row of `layer.panels()` lanes in `out` for each. `space` is overwritten.
    pub(crate) fn product(
        &self,
        layer: &Linear,
        rows: Rows<'_>,
        out: &mut [Lane],
        space: &mut Vec<i16>,
    ) {
        check(layer, rows, out);
        // SAFETY: the processor has the instructions (see `Routines`); lengths fit.
        unsafe { (self.product)(layer, rows, out, space) }
    }

    /// The integer sums `Σ (u - zero) · q`, sixteen of each panel, row by row.
    pub(crate) fn sums(&self, layer: &Linear, rows: Rows<'_>) -> Vec<i32> {
        let mut out = vec![Lane::ZERO; rows.affine.len() * layer.panels()];
        check(layer, rows, &out);
        // SAFETY: the processor has the instructions (see `Routines`); lengths fit.
        unsafe { (self.sums)(layer, rows, &mut out, &mut Vec::new()) }
        let bits = out.iter().flat_map(|lane| lane.0);
        bits.map(|value| value.to_bits() as i32).collect()
    }

    /// The scores of some rows of `table` (rows of `query.dims()` bytes) against a query.
    pub(crate) fn scores(&self, table: &[i8], rows: &[u32], query: &Query, out: &mut [i32]) {
        assert_eq!(out.len(), rows.len());
        // SAFETY: the processor has the instructions (see `Routines`). Each routine takes every row as a slice of the
        // table, so that one beyond its end panics.
        unsafe { (self.scores)(table, rows, query, out) }
    }

    /// Quantises a row.
    pub(crate) fn quantise(&self, row: &[Lane], to: &mut [Line]) -> Affine {
        assert_eq!(to.len(), row.len().div_ceil(4));
        // SAFETY: the processor has the instructions (see `Routines`).
        unsafe { (self.quantise)(row, to) }
    }

    /// `row = norm(row + delta)`, and the result quantised.
    pub(crate) fn add_norm(
        &self,
        row: &mut [Lane],
        delta: &[Lane],
        norm: &Norm,
        to: &mut [Line],
    ) -> Affine {
        assert!(delta.len() == row.len() && to.len() == row.len().div_ceil(4));
        assert!(norm.gain.len() == row.len() && norm.shift.len() == row.len());
        // SAFETY: the processor has the instructions (see `Routines`).
        unsafe { (self.add_norm)(row, delta, norm, to) }
    }

    /// `row = gelu(row)`, and the result quantised.
    pub(crate) fn gelu(&self, row: &mut [Lane], to: &mut [Line]) -> Affine {
        assert_eq!(to.len(), row.len().div_ceil(4));
        // SAFETY: the processor has the instructions (see `Routines`).
        unsafe { (self.gelu)(row, to) }
    }

    /// Attention of one text over itself; see `float::attention`.
    pub(crate) fn attention(
        &self,
        qkv: &[Lane],
        text: &Heads,
        context: &mut [Lane],
        space: &mut Vec<Lane>,
    ) {
        // SAFETY: the processor has the instructions (see `Routines`).
        unsafe { (self.attention)(qkv, text, context, space) }
    }
}

fn check(layer: &Linear, rows: Rows<'_>, out: &[Lane]) {
    assert_eq!(layer.lines.len(), layer.panels() * layer.groups);
    assert_eq!(rows.lines.len(), rows.affine.len() * layer.row_lines());
    assert_eq!(out.len(), rows.affine.len() * layer.panels());
    assert!(layer.scales.len() == layer.panels() && layer.bias.len() == layer.panels());
}

/// Splits `rows` into as few parts of at most `most` as there can be, all about equally long, and gives each part's
/// first row and length: seventeen rows in eights are 6, 6 and 5, and not 8, 8 and a wasteful 1.
fn even_parts(rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let parts = rows.div_ceil(most).max(1);
    (0..parts).map(move |part| {
        let start = rows * part / parts;
        (start, rows * (part + 1) / parts - start)
    })
}

/// A kernel's routines over the floats: everything of `float`, compiled with the features it names.
macro_rules! float_routines {
    ($lanes:ty $(, $features:literal)?) => {
        use crate::float::{self, Heads, Norm};
        use crate::lanes::{Lane, Line};
        use crate::linear::Affine;

        $(#[target_feature(enable = $features)])?
        fn quantise(row: &[Lane], to: &mut [Line]) -> Affine {
            float::quantise::<$lanes>(row, to)
        }

        $(#[target_feature(enable = $features)])?
        fn add_norm(row: &mut [Lane], delta: &[Lane], norm: &Norm, to: &mut [Line]) -> Affine {
            float::add_norm_quantise::<$lanes>(row, delta, norm, to)
        }

        $(#[target_feature(enable = $features)])?
        fn gelu(row: &mut [Lane], to: &mut [Line]) -> Affine {
            float::gelu_quantise::<$lanes>(row, to)
        }

        $(#[target_feature(enable = $features)])?
        fn attention(qkv: &[Lane], text: &Heads, context: &mut [Lane], space: &mut Vec<Lane>) {
            float::attention::<$lanes>(qkv, text, context, space)
        }
    };
}
use float_routines;
