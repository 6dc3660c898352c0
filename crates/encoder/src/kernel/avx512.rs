//! AVX-512 with VNNI: `vpdpbusd` adds four products of unsigned and signed bytes to each of sixteen sums, exactly.
#![allow(clippy::needless_range_loop, reason = "indices name registers")]

use std::arch::x86_64::*;

use super::{Routines, even_parts, float_routines};
use crate::lanes::Lanes;
use crate::linear::{Linear, Rows};
use crate::query::Query;

float_routines!(Wide, "avx512f,avx512bw,avx512vnni,avx2,fma");

pub(super) static ROUTINES: Routines = Routines {
    product: product::<false>,
    sums: product::<true>,
    scores,
    quantise,
    add_norm,
    gelu,
    attention,
};

/// Rows of a tile: with three panels they take 24 of the 32 registers, and three more hold the weights.
const ROWS: usize = 8;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma")]
pub(super) fn product<const SUMS: bool>(
    layer: &Linear,
    rows: Rows<'_>,
    out: &mut [Lane],
    _space: &mut Vec<i16>,
) {
    let panels = layer.panels();
    let parts = even_parts(rows.affine.len(), ROWS);
    let mut panel = 0;
    while panel < panels {
        let width = (panels - panel).min(3);
        for (row, count) in parts.clone() {
            match width {
                3 => tiles::<SUMS, 3>(layer, rows, out, panel, row, count),
                2 => tiles::<SUMS, 2>(layer, rows, out, panel, row, count),
                _ => tiles::<SUMS, 1>(layer, rows, out, panel, row, count),
            }
        }
        panel += width;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma")]
fn tiles<const SUMS: bool, const P: usize>(
    layer: &Linear,
    rows: Rows<'_>,
    out: &mut [Lane],
    panel: usize,
    row: usize,
    count: usize,
) {
    match count {
        8 => tile::<SUMS, P, 8>(layer, rows, out, panel, row),
        7 => tile::<SUMS, P, 7>(layer, rows, out, panel, row),
        6 => tile::<SUMS, P, 6>(layer, rows, out, panel, row),
        5 => tile::<SUMS, P, 5>(layer, rows, out, panel, row),
        4 => tile::<SUMS, P, 4>(layer, rows, out, panel, row),
        3 => tile::<SUMS, P, 3>(layer, rows, out, panel, row),
        2 => tile::<SUMS, P, 2>(layer, rows, out, panel, row),
        1 => tile::<SUMS, P, 1>(layer, rows, out, panel, row),
        _ => {}
    }
}

/// `R` rows from `row` on, times `P` panels from `panel` on.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma")]
fn tile<const SUMS: bool, const P: usize, const R: usize>(
    layer: &Linear,
    rows: Rows<'_>,
    out: &mut [Lane],
    panel: usize,
    row: usize,
) {
    let groups = layer.groups;
    let panels = layer.panels();
    let weights = &layer.lines[panel * groups..(panel + P) * groups];
    let values = &rows.lines[row * groups / 16..(row + R) * groups / 16];
    let affine = &rows.affine[row..row + R];
    let sums = &layer.sums[panel..panel + P];
    let weights = weights.as_ptr().cast::<__m512i>();
    let values = values.as_ptr().cast::<i32>();
    let mut tile = [[_mm512_setzero_si512(); P]; R];
    for p in 0..P {
        // SAFETY: sixteen sums are 64 bytes.
        let sums = unsafe { _mm512_loadu_si512(sums[p].as_ptr().cast()) };
        for r in 0..R {
            tile[r][p] = _mm512_mullo_epi32(sums, _mm512_set1_epi32(-affine[r].zero));
        }
    }
    for group in 0..groups {
        // SAFETY: `group` is below `groups`, the lines of a panel; the slices above hold `P` panels and `R` rows of
        // `groups` times four bytes. Lines are aligned to 64 bytes.
        unsafe {
            let weights: [__m512i; P] = std::array::from_fn(|p| *weights.add(p * groups + group));
            for r in 0..R {
                let four = _mm512_set1_epi32(*values.add(r * groups + group));
                for p in 0..P {
                    tile[r][p] = _mm512_dpbusd_epi32(tile[r][p], four, weights[p]);
                }
            }
        }
    }
    for r in 0..R {
        let scale = _mm512_set1_ps(affine[r].scale);
        let out = &mut out[(row + r) * panels + panel..(row + r) * panels + panel + P];
        for p in 0..P {
            let floats = if SUMS {
                _mm512_castsi512_ps(tile[r][p])
            } else {
                let scale = _mm512_mul_ps(scale, Wide::load(&layer.scales[panel + p]).0);
                let bias = Wide::load(&layer.bias[panel + p]).0;
                _mm512_fmadd_ps(_mm512_cvtepi32_ps(tile[r][p]), scale, bias)
            };
            Wide(floats).store(&mut out[p]);
        }
    }
}

/// How far ahead the scan fetches, in bytes.
const AHEAD: usize = 4096;

/// A row's bytes plus 128 are unsigned, which `128 · Σ query` makes good. Rows are read one after the other and not side
/// by side, or processors would not see that memory is read in order.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma")]
pub(super) fn scores(table: &[i8], rows: &[u32], query: &Query, out: &mut [i32]) {
    match query.dims() {
        384 => scores_of::<6>(table, rows, query, out),
        768 => scores_of::<12>(table, rows, query, out),
        _ => scores_of::<0>(table, rows, query, out),
    }
}

/// The scan of rows of `LINES` whole lines; of any length if that is 0.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma")]
fn scores_of<const LINES: usize>(table: &[i8], rows: &[u32], query: &Query, out: &mut [i32]) {
    let (fours, rest) = rows.as_chunks::<4>();
    let (scores, last) = out.as_chunks_mut::<4>();
    for (rows, scores) in fours.iter().zip(scores) {
        *scores = four_scores::<LINES>(table, rows, query);
    }
    if let Some(first) = rest.first() {
        let mut rows = [*first; 4];
        rows[..rest.len()].copy_from_slice(rest);
        last.copy_from_slice(&four_scores::<LINES>(table, &rows, query)[..rest.len()]);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma")]
#[inline]
fn four_scores<const LINES: usize>(table: &[i8], rows: &[u32; 4], query: &Query) -> [i32; 4] {
    let (dims, whole, rest) = match LINES {
        0 => (query.dims(), query.dims() / 64, query.dims() % 64),
        _ => (LINES * 64, LINES, 0),
    };
    let lines = query.lines().as_ptr().cast::<__m512i>();
    let mask = (1u64 << rest) - 1;
    let flip = _mm512_set1_epi8(-128);
    // Where rows follow each other, what comes next is fetched ahead: processors stop at a page's end by themselves.
    let ahead = if rows[3].wrapping_sub(rows[0]) == 3 {
        AHEAD
    } else {
        0
    };
    let mut sums = [_mm512_setzero_si512(); 4];
    for at in 0..4 {
        let start = rows[at] as usize * dims;
        let vector = table[start..start + dims].as_ptr();
        let mut sum = _mm512_setzero_si512();
        // SAFETY: `vector` has `dims` bytes: `whole` times 64 and `rest` more, which the mask allows; the query has as
        // many lines. What is fetched ahead need not exist.
        unsafe {
            for line in 0..whole {
                let place = vector.add(line * 64);
                _mm_prefetch::<_MM_HINT_T1>(place.wrapping_add(ahead));
                let values = _mm512_loadu_si512(place.cast());
                sum = _mm512_dpbusd_epi32(sum, _mm512_xor_si512(values, flip), *lines.add(line));
            }
            if rest > 0 {
                let values = _mm512_maskz_loadu_epi8(mask, vector.add(whole * 64));
                sum = _mm512_dpbusd_epi32(sum, _mm512_xor_si512(values, flip), *lines.add(whole));
            }
        }
        sums[at] = sum;
    }
    let offset = _mm_set1_epi32(query.sum().wrapping_mul(128));
    let sums = _mm_sub_epi32(add_across(sums), offset);
    let mut scores = [0; 4];
    // SAFETY: four scores are 16 bytes.
    unsafe { _mm_storeu_si128(scores.as_mut_ptr().cast(), sums) };
    scores
}

/// The sum of the lanes of each of four vectors.
#[target_feature(enable = "avx512f")]
fn add_across(sums: [__m512i; 4]) -> __m128i {
    let [a, b, c, d] = sums;
    let low = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let high = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    let all = _mm512_add_epi32(
        _mm512_unpacklo_epi64(low, high),
        _mm512_unpackhi_epi64(low, high),
    );
    let half = _mm256_add_epi32(
        _mm512_castsi512_si256(all),
        _mm512_extracti64x4_epi64::<1>(all),
    );
    _mm_add_epi32(
        _mm256_castsi256_si128(half),
        _mm256_extracti128_si256::<1>(half),
    )
}

/// The upper eight lanes.
#[target_feature(enable = "avx512f")]
fn high(lanes: __m512) -> __m256 {
    _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(lanes)))
}

/// Sixteen floats in one register.
#[derive(Clone, Copy)]
pub(super) struct Wide(__m512);

/// Implements operations that take registers and give one.
macro_rules! operations {
    ($($name:ident($($argument:ident),*) = $intrinsic:ident;)*) => {
        $(#[inline(always)]
        fn $name(self $(, $argument: Self)*) -> Self {
            // SAFETY: reached only through routines of this kernel, where the processor has the instruction.
            unsafe { Self($intrinsic(self.0 $(, $argument.0)*)) }
        })*
    };
}

impl Lanes for Wide {
    operations! {
        add(other) = _mm512_add_ps;
        sub(other) = _mm512_sub_ps;
        mul(other) = _mm512_mul_ps;
        mul_add(factor, term) = _mm512_fmadd_ps;
        min(other) = _mm512_min_ps;
        max(other) = _mm512_max_ps;
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: as in `operations`.
        unsafe { Self(_mm512_set1_ps(value)) }
    }

    #[inline(always)]
    fn load(from: &Lane) -> Self {
        // SAFETY: as in `operations`; a lane is 64 bytes, and aligned to that.
        unsafe { Self(_mm512_load_ps(from.0.as_ptr())) }
    }

    #[inline(always)]
    fn store(self, to: &mut Lane) {
        // SAFETY: as in `operations`; a lane is 64 bytes, and aligned to that.
        unsafe { _mm512_store_ps(to.0.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: as in `operations`. The order is the one that the trait asks for.
        unsafe {
            let half = _mm256_add_ps(_mm512_castps512_ps256(self.0), high(self.0));
            let four = _mm_add_ps(
                _mm256_castps256_ps128(half),
                _mm256_extractf128_ps::<1>(half),
            );
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn smallest(self) -> f32 {
        // SAFETY: as in `operations`.
        unsafe {
            let half = _mm256_min_ps(_mm512_castps512_ps256(self.0), high(self.0));
            let four = _mm_min_ps(
                _mm256_castps256_ps128(half),
                _mm256_extractf128_ps::<1>(half),
            );
            let two = _mm_min_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_min_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: as in `operations`.
        unsafe {
            let half = _mm256_max_ps(_mm512_castps512_ps256(self.0), high(self.0));
            let four = _mm_max_ps(
                _mm256_castps256_ps128(half),
                _mm256_extractf128_ps::<1>(half),
            );
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn transpose(rows: [Self; 16]) -> [Self; 16] {
        // SAFETY: as in `operations`. First four times four numbers in each quarter of the registers, then the quarters.
        unsafe {
            let mut a = [_mm512_setzero_ps(); 16];
            for four in 0..4 {
                let (p, q) = (rows[four * 4].0, rows[four * 4 + 1].0);
                let (r, s) = (rows[four * 4 + 2].0, rows[four * 4 + 3].0);
                let (low, high) = (_mm512_unpacklo_ps(p, q), _mm512_unpackhi_ps(p, q));
                let (low2, high2) = (_mm512_unpacklo_ps(r, s), _mm512_unpackhi_ps(r, s));
                a[four * 4] = _mm512_shuffle_ps::<0b01_00_01_00>(low, low2);
                a[four * 4 + 1] = _mm512_shuffle_ps::<0b11_10_11_10>(low, low2);
                a[four * 4 + 2] = _mm512_shuffle_ps::<0b01_00_01_00>(high, high2);
                a[four * 4 + 3] = _mm512_shuffle_ps::<0b11_10_11_10>(high, high2);
            }
            let mut out = [Self(_mm512_setzero_ps()); 16];
            for at in 0..4 {
                let (p, q, r, s) = (a[at], a[at + 4], a[at + 8], a[at + 12]);
                let (even, odd) = (
                    _mm512_shuffle_f32x4::<0b10_00_10_00>(p, q),
                    _mm512_shuffle_f32x4::<0b11_01_11_01>(p, q),
                );
                let (even2, odd2) = (
                    _mm512_shuffle_f32x4::<0b10_00_10_00>(r, s),
                    _mm512_shuffle_f32x4::<0b11_01_11_01>(r, s),
                );
                out[at] = Self(_mm512_shuffle_f32x4::<0b10_00_10_00>(even, even2));
                out[at + 4] = Self(_mm512_shuffle_f32x4::<0b10_00_10_00>(odd, odd2));
                out[at + 8] = Self(_mm512_shuffle_f32x4::<0b11_01_11_01>(even, even2));
                out[at + 12] = Self(_mm512_shuffle_f32x4::<0b11_01_11_01>(odd, odd2));
            }
            out
        }
    }

    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: as in `operations`.
        unsafe {
            Self(_mm512_roundscale_ps::<
                { _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC },
            >(self.0))
        }
    }

    #[inline(always)]
    fn exp2(self) -> Self {
        // SAFETY: as in `operations`.
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent)))
        }
    }

    #[inline(always)]
    fn bytes(self, to: &mut [u8; 16]) {
        // SAFETY: as in `operations`; sixteen bytes are written.
        unsafe {
            let values = _mm512_max_epi32(_mm512_cvtps_epi32(self.0), _mm512_setzero_si512());
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtusepi32_epi8(values));
        }
    }
}
