//! AVX-VNNI: the dot product of bytes in 256 bits, for processors without AVX-512. All else is AVX2's.
#![allow(clippy::needless_range_loop, reason = "indices name registers")]

use std::arch::x86_64::*;

use super::avx2::{self, Pair, finish};
use super::{Routines, even_parts, float_routines};
use crate::linear::{Linear, Rows};

float_routines!(Pair, "avx2,fma");

pub(super) static ROUTINES: Routines = Routines {
    product: avx::product::<false>,
    sums: avx::product::<true>,
    scores: avx2::scores,
    quantise,
    add_norm,
    gelu,
    attention,
};

/// The product with one of the two encodings of the 256-bit instruction. That of AVX-512 serves the tests, since
/// processors that have it are more common than those with the other.
macro_rules! product {
    ($features:literal, $dot:ident) => {
        use super::*;

        /// Rows of a tile: with a panel, in two registers, they take twelve of the sixteen registers.
        const ROWS: usize = 6;

        #[target_feature(enable = $features)]
        pub(super) fn product<const SUMS: bool>(
            layer: &Linear,
            rows: Rows<'_>,
            out: &mut [Lane],
            _space: &mut Vec<i16>,
        ) {
            for panel in 0..layer.panels() {
                for (row, count) in even_parts(rows.affine.len(), ROWS) {
                    match count {
                        6 => tile::<SUMS, 6>(layer, rows, out, panel, row),
                        5 => tile::<SUMS, 5>(layer, rows, out, panel, row),
                        4 => tile::<SUMS, 4>(layer, rows, out, panel, row),
                        3 => tile::<SUMS, 3>(layer, rows, out, panel, row),
                        2 => tile::<SUMS, 2>(layer, rows, out, panel, row),
                        1 => tile::<SUMS, 1>(layer, rows, out, panel, row),
                        _ => {}
                    }
                }
            }
        }

        /// `R` rows from `row` on, times one panel.
        #[target_feature(enable = $features)]
        fn tile<const SUMS: bool, const R: usize>(
            layer: &Linear,
            rows: Rows<'_>,
            out: &mut [Lane],
            panel: usize,
            row: usize,
        ) {
            let groups = layer.groups;
            let weights = &layer.lines[panel * groups..(panel + 1) * groups];
            let values = &rows.lines[row * groups / 16..(row + R) * groups / 16];
            let affine = &rows.affine[row..row + R];
            let values = values.as_ptr().cast::<i32>();
            let mut sums = [[_mm256_setzero_si256(); 2]; R];
            for (group, line) in weights.iter().enumerate() {
                // SAFETY: a line is 64 bytes, and aligned to that; the slice above holds `R` rows of `groups` times
                // four bytes.
                unsafe {
                    let weights = line.0.as_ptr().cast::<__m256i>();
                    let (low, high) = (*weights, *weights.add(1));
                    for r in 0..R {
                        let four = _mm256_set1_epi32(*values.add(r * groups + group));
                        sums[r][0] = $dot(sums[r][0], four, low);
                        sums[r][1] = $dot(sums[r][1], four, high);
                    }
                }
            }
            for r in 0..R {
                let out = &mut out[(row + r) * layer.panels() + panel];
                finish::<SUMS>(layer, panel, affine[r], sums[r], out);
            }
        }
    };
}

mod avx {
    product!("avx2,fma,avxvnni", _mm256_dpbusd_avx_epi32);
}

#[cfg(test)]
pub(super) mod evex {
    product!("avx2,fma,avx512vl,avx512vnni", _mm256_dpbusd_epi32);

    pub(in super::super) static ROUTINES: Routines = Routines {
        product: product::<false>,
        sums: product::<true>,
        ..super::ROUTINES
    };
}
