//! AVX2. It has no exact product of bytes: `vpmaddubsw` saturates at 16 bits (255 · 127 · 2 does not fit). So bytes are
//! widened to 16 bits and go through `vpmaddwd`, whose pairs fit 32 bits with room to spare: weights while they are
//! loaded, activations once before.
#![allow(clippy::needless_range_loop, reason = "indices name registers")]

use std::arch::x86_64::*;

use super::{Routines, even_parts, float_routines};
use crate::lanes::Lanes;
use crate::linear::{Linear, Rows};
use crate::query::Query;

float_routines!(Pair, "avx2,fma");

pub(super) static ROUTINES: Routines = Routines {
    product: product::<false>,
    sums: product::<true>,
    scores,
    quantise,
    add_norm,
    gelu,
    attention,
};

/// Rows of a tile: with half a panel, in two registers of pair sums, they take twelve of the sixteen registers.
const ROWS: usize = 4;

#[target_feature(enable = "avx2,fma")]
fn product<const SUMS: bool>(
    layer: &Linear,
    rows: Rows<'_>,
    out: &mut [Lane],
    space: &mut Vec<i16>,
) {
    space.resize(rows.lines.len() * 64, 0);
    for (line, wide) in rows.lines.iter().zip(space.as_chunks_mut::<64>().0) {
        for at in 0..4 {
            // SAFETY: sixteen of a line's 64 bytes are read and as many of its 64 widened values are written.
            unsafe {
                let bytes = _mm_load_si128(line.0.as_ptr().add(at * 16).cast());
                let values = _mm256_cvtepu8_epi16(bytes);
                _mm256_storeu_si256(wide.as_mut_ptr().add(at * 16).cast(), values);
            }
        }
    }
    for panel in 0..layer.panels() {
        for (row, count) in even_parts(rows.affine.len(), ROWS) {
            match count {
                6 => tile::<SUMS, 6>(layer, space, rows, out, panel, row),
                5 => tile::<SUMS, 5>(layer, space, rows, out, panel, row),
                4 => tile::<SUMS, 4>(layer, space, rows, out, panel, row),
                3 => tile::<SUMS, 3>(layer, space, rows, out, panel, row),
                2 => tile::<SUMS, 2>(layer, space, rows, out, panel, row),
                1 => tile::<SUMS, 1>(layer, space, rows, out, panel, row),
                _ => {}
            }
        }
    }
}

/// `R` rows from `row` on, times one panel.
#[target_feature(enable = "avx2,fma")]
fn tile<const SUMS: bool, const R: usize>(
    layer: &Linear,
    wide: &[i16],
    rows: Rows<'_>,
    out: &mut [Lane],
    panel: usize,
    row: usize,
) {
    let groups = layer.groups;
    let weights = &layer.lines[panel * groups..(panel + 1) * groups];
    let values = &wide[row * groups * 4..(row + R) * groups * 4];
    let affine = &rows.affine[row..row + R];
    let values = values.as_ptr().cast::<i64>();
    let mut sums = [[_mm256_setzero_si256(); 2]; R];
    for half in 0..2 {
        let mut pairs = [[_mm256_setzero_si256(); 2]; R];
        for (group, line) in weights.iter().enumerate() {
            // SAFETY: 32 bytes from the line's half on are read; the slice above holds `R` rows of `groups` times four
            // 16-bit values.
            unsafe {
                let weights = line.0.as_ptr().add(half * 32).cast::<__m128i>();
                let low = _mm256_cvtepi8_epi16(_mm_load_si128(weights));
                let high = _mm256_cvtepi8_epi16(_mm_load_si128(weights.add(1)));
                for r in 0..R {
                    let four = values.add(r * groups + group).read_unaligned();
                    let four = _mm256_set1_epi64x(four);
                    pairs[r][0] = _mm256_add_epi32(pairs[r][0], _mm256_madd_epi16(four, low));
                    pairs[r][1] = _mm256_add_epi32(pairs[r][1], _mm256_madd_epi16(four, high));
                }
            }
        }
        for r in 0..R {
            let joined = _mm256_hadd_epi32(pairs[r][0], pairs[r][1]);
            sums[r][half] = _mm256_permute4x64_epi64::<0b11_01_10_00>(joined);
        }
    }
    for r in 0..R {
        finish::<SUMS>(
            layer,
            panel,
            affine[r],
            sums[r],
            &mut out[(row + r) * layer.panels() + panel],
        );
    }
}

/// From `Σ u·q` of a row and a panel to what the layer gives, or to the bits of the exact sums.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn finish<const SUMS: bool>(
    layer: &Linear,
    panel: usize,
    affine: Affine,
    sums: [__m256i; 2],
    out: &mut Lane,
) {
    let zero = _mm256_set1_epi32(affine.zero);
    let scale = _mm256_set1_ps(affine.scale);
    let (scales, bias) = (&layer.scales[panel].0, &layer.bias[panel].0);
    for (half, sums) in sums.into_iter().enumerate() {
        // SAFETY: eight of sixteen values are read or written.
        unsafe {
            let total = layer.sums[panel].as_ptr().add(half * 8);
            let total = _mm256_loadu_si256(total.cast());
            let sums = _mm256_sub_epi32(sums, _mm256_mullo_epi32(total, zero));
            let floats = if SUMS {
                _mm256_castsi256_ps(sums)
            } else {
                let scale = _mm256_mul_ps(scale, _mm256_load_ps(scales.as_ptr().add(half * 8)));
                let bias = _mm256_load_ps(bias.as_ptr().add(half * 8));
                _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), scale, bias)
            };
            _mm256_store_ps(out.0.as_mut_ptr().add(half * 8), floats);
        }
    }
}

/// Bytes are widened while they are loaded. Rows are read one after the other and not side by side, or processors would
/// not see that memory is read in order.
#[target_feature(enable = "avx2,fma")]
pub(super) fn scores(table: &[i8], rows: &[u32], query: &Query, out: &mut [i32]) {
    let dims = query.dims();
    let whole = dims / 32;
    let wide = query.wide();
    for (rows, out) in rows.chunks(4).zip(out.chunks_mut(4)) {
        let mut sums = [_mm256_setzero_si256(); 4];
        for (row, sums) in rows.iter().zip(&mut sums) {
            let vector = &table[*row as usize * dims..(*row as usize + 1) * dims];
            let (mut even, mut odd) = (*sums, *sums);
            for part in 0..whole {
                // SAFETY: `part` counts whole thirty-twos of the vector and of the query.
                unsafe {
                    let query = wide.as_ptr().add(part * 32).cast::<__m256i>();
                    let values = vector.as_ptr().add(part * 32).cast::<__m128i>();
                    let low = _mm256_cvtepi8_epi16(_mm_loadu_si128(values));
                    let high = _mm256_cvtepi8_epi16(_mm_loadu_si128(values.add(1)));
                    let low = _mm256_madd_epi16(low, _mm256_loadu_si256(query));
                    let high = _mm256_madd_epi16(high, _mm256_loadu_si256(query.add(1)));
                    even = _mm256_add_epi32(even, low);
                    odd = _mm256_add_epi32(odd, high);
                }
            }
            *sums = _mm256_add_epi32(even, odd);
        }
        let [a, b, c, d] = sums;
        let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
        let sums = _mm_add_epi32(
            _mm256_castsi256_si128(pairs),
            _mm256_extracti128_si256::<1>(pairs),
        );
        let mut scores = [0i32; 4];
        // SAFETY: four scores are 16 bytes.
        unsafe { _mm_storeu_si128(scores.as_mut_ptr().cast(), sums) };
        for ((score, row), out) in scores.iter().zip(rows).zip(out) {
            let vector = &table[*row as usize * dims..(*row as usize + 1) * dims];
            let rest = vector[whole * 32..].iter().zip(&wide[whole * 32..]);
            *out = rest.fold(*score, |sum, (a, b)| {
                sum.wrapping_add(i32::from(*a) * i32::from(*b))
            });
        }
    }
}

/// Sixteen floats in two registers.
#[derive(Clone, Copy)]
pub(super) struct Pair([__m256; 2]);

/// Implements operations that take registers and give one.
macro_rules! operations {
    ($($name:ident($($argument:ident),*) = $intrinsic:ident;)*) => {
        $(#[inline(always)]
        fn $name(self $(, $argument: Self)*) -> Self {
            // SAFETY: reached only through routines of kernels whose processor has the instruction.
            unsafe {
                Self([
                    $intrinsic(self.0[0] $(, $argument.0[0])*),
                    $intrinsic(self.0[1] $(, $argument.0[1])*),
                ])
            }
        })*
    };
}

impl Lanes for Pair {
    operations! {
        add(other) = _mm256_add_ps;
        sub(other) = _mm256_sub_ps;
        mul(other) = _mm256_mul_ps;
        mul_add(factor, term) = _mm256_fmadd_ps;
        min(other) = _mm256_min_ps;
        max(other) = _mm256_max_ps;
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: as in `operations`.
        unsafe { Self([_mm256_set1_ps(value); 2]) }
    }

    #[inline(always)]
    fn load(from: &Lane) -> Self {
        let from = from.0.as_ptr();
        // SAFETY: as in `operations`; a lane is 64 bytes, and aligned to that.
        unsafe { Self([_mm256_load_ps(from), _mm256_load_ps(from.add(8))]) }
    }

    #[inline(always)]
    fn store(self, to: &mut Lane) {
        let to = to.0.as_mut_ptr();
        // SAFETY: as in `operations`; a lane is 64 bytes, and aligned to that.
        unsafe {
            _mm256_store_ps(to, self.0[0]);
            _mm256_store_ps(to.add(8), self.0[1]);
        }
    }

    #[inline(always)]
    fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: as in `operations`.
        unsafe {
            Self([
                _mm256_round_ps::<NEAREST>(self.0[0]),
                _mm256_round_ps::<NEAREST>(self.0[1]),
            ])
        }
    }

    #[inline(always)]
    fn exp2(self) -> Self {
        // SAFETY: as in `operations`.
        Self(self.0.map(|half| unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(half), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        }))
    }

    #[inline(always)]
    fn bytes(self, to: &mut [u8; 16]) {
        // SAFETY: as in `operations`; sixteen bytes are written.
        unsafe {
            let low = _mm256_cvtps_epi32(self.0[0]);
            let high = _mm256_cvtps_epi32(self.0[1]);
            // Signed 32 to signed 16 bits, then to unsigned 8: both steps clamp.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
            let bytes = _mm_packus_epi16(
                _mm256_castsi256_si128(words),
                _mm256_extracti128_si256::<1>(words),
            );
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        }
    }
}
