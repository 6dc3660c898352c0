//! 64-bit ARM: plain NEON, and the dot products (`sdot`) and matrix products (`smmla`) of signed bytes that later
//! processors have. The intrinsics of the latter two are not stable, so their instructions are written out.
//!
//! These instructions take signed bytes on both sides. An activation `u` is taken as `u - 128`, which is one exclusive
//! or, and `128 · Σ q` makes it good together with the row's own zero.
#![allow(clippy::needless_range_loop, reason = "indices name registers")]

use std::arch::aarch64::*;
use std::arch::asm;

use super::{Routines, even_parts, float_routines};
use crate::lanes::Lanes;
use crate::linear::{Linear, PANEL, Rows};
use crate::query::Query;

float_routines!(Four, "neon");

pub(super) static PLAIN: Routines = Routines {
    product: plain::product::<false>,
    sums: plain::product::<true>,
    scores: scores_plain,
    quantise,
    add_norm,
    gelu,
    attention,
};

pub(super) static DOTPROD: Routines = Routines {
    product: dotprod::product::<false>,
    sums: dotprod::product::<true>,
    scores: scores_dotprod,
    ..PLAIN
};

pub(super) static I8MM: Routines = Routines {
    product: i8mm::product::<false>,
    sums: i8mm::product::<true>,
    ..DOTPROD
};

/// Flips the sign bit of four bytes.
const FLIP: u32 = 0x8080_8080;

/// The loop over panels and rows around a `tile` of at most `$rows` rows and one panel.
macro_rules! product {
    ($features:literal, $rows:literal: $($count:literal)*) => {
        #[target_feature(enable = $features)]
        pub(super) fn product<const SUMS: bool>(
            layer: &Linear,
            rows: Rows<'_>,
            out: &mut [Lane],
            _space: &mut Vec<i16>,
        ) {
            for panel in 0..layer.panels() {
                for (row, count) in even_parts(rows.affine.len(), $rows) {
                    match count {
                        $($count => tile::<SUMS, $count>(layer, rows, out, panel, row),)*
                        _ => {}
                    }
                }
            }
        }
    };
}

mod plain {
    use super::*;

    product!("neon", 3: 3 2 1);

    /// Products of bytes fit 16 bits (127 · 128), and their pairs are added into 32.
    #[target_feature(enable = "neon")]
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
        let values = values.as_ptr().cast::<u32>();
        let mut pairs = [[[vdupq_n_s32(0); 2]; 4]; R];
        for (group, line) in weights.iter().enumerate() {
            for quarter in 0..4 {
                // SAFETY: sixteen of a line's 64 bytes; `R` rows of `groups` times four bytes.
                unsafe {
                    let weights = vld1q_s8(line.0.as_ptr().add(quarter * 16).cast());
                    for (r, pairs) in pairs.iter_mut().enumerate() {
                        let four = vdup_n_u32(*values.add(r * groups + group) ^ FLIP);
                        let four = vreinterpret_s8_u32(four);
                        let low = vmull_s8(vget_low_s8(weights), four);
                        let high = vmull_s8(vget_high_s8(weights), four);
                        pairs[quarter][0] = vpadalq_s16(pairs[quarter][0], low);
                        pairs[quarter][1] = vpadalq_s16(pairs[quarter][1], high);
                    }
                }
            }
        }
        for (r, pairs) in pairs.into_iter().enumerate() {
            let sums = pairs.map(|[low, high]| vpaddq_s32(low, high));
            let to = &mut out[(row + r) * layer.panels() + panel];
            finish::<SUMS>(layer, panel, rows.affine[row + r], sums, to);
        }
    }
}

mod dotprod {
    use super::*;

    product!("neon,dotprod", 6: 6 5 4 3 2 1);

    #[target_feature(enable = "neon,dotprod")]
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
        let values = values.as_ptr().cast::<u32>();
        let mut sums = [[vdupq_n_s32(0); 4]; R];
        for (group, line) in weights.iter().enumerate() {
            // SAFETY: four times sixteen of a line's 64 bytes; `R` rows of `groups` times four bytes.
            unsafe {
                let line = line.0.as_ptr().cast::<i8>();
                let weights: [int8x16_t; 4] =
                    std::array::from_fn(|quarter| vld1q_s8(line.add(quarter * 16)));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let four = vdupq_n_u32(*values.add(r * groups + group) ^ FLIP);
                    let four = vreinterpretq_s8_u32(four);
                    for quarter in 0..4 {
                        sums[quarter] = dot(sums[quarter], weights[quarter], four);
                    }
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            let to = &mut out[(row + r) * layer.panels() + panel];
            finish::<SUMS>(layer, panel, rows.affine[row + r], sums, to);
        }
    }
}

mod i8mm {
    use super::*;

    product!("neon,dotprod,i8mm", 4: 4 3 2 1);

    /// Two rows and two columns at a time, eight deep. An odd last row is multiplied twice.
    #[target_feature(enable = "neon,dotprod,i8mm")]
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
        let values = values.as_ptr().cast::<u8>();
        let flip = vdup_n_u8(0x80);
        // Of each pair of rows and of columns: both rows' two sums.
        let mut sums = [[vdupq_n_s32(0); 8]; 2];
        let (groups_of_two, _) = weights.as_chunks::<2>();
        for (at, [first, second]) in groups_of_two.iter().enumerate() {
            // SAFETY: sixteen of a line's 64 bytes; eight of a row's `groups` times four bytes, of which `at` counts
            // the eights.
            unsafe {
                let pairs: [int8x16_t; 2] = std::array::from_fn(|pair| {
                    let row = |r: usize| {
                        let r = r.min(R - 1);
                        veor_u8(vld1_u8(values.add(r * groups * 4 + at * 8)), flip)
                    };
                    vreinterpretq_s8_u8(vcombine_u8(row(pair * 2), row(pair * 2 + 1)))
                });
                for quarter in 0..4 {
                    let first = vld1q_u32(first.0.as_ptr().add(quarter * 16).cast());
                    let second = vld1q_u32(second.0.as_ptr().add(quarter * 16).cast());
                    let low = vreinterpretq_s8_u32(vzip1q_u32(first, second));
                    let high = vreinterpretq_s8_u32(vzip2q_u32(first, second));
                    for pair in 0..R.div_ceil(2) {
                        let sums = &mut sums[pair];
                        sums[quarter * 2] = matrix(sums[quarter * 2], pairs[pair], low);
                        sums[quarter * 2 + 1] = matrix(sums[quarter * 2 + 1], pairs[pair], high);
                    }
                }
            }
        }
        for r in 0..R {
            let sums = sums[r / 2].map(|sum| vreinterpretq_s64_s32(sum));
            let sums: [int32x4_t; 4] = std::array::from_fn(|quarter| {
                let (low, high) = (sums[quarter * 2], sums[quarter * 2 + 1]);
                vreinterpretq_s32_s64(if r % 2 == 0 {
                    vzip1q_s64(low, high)
                } else {
                    vzip2q_s64(low, high)
                })
            });
            let to = &mut out[(row + r) * layer.panels() + panel];
            finish::<SUMS>(layer, panel, rows.affine[row + r], sums, to);
        }
    }
}

/// Adds to each of four sums the products of four signed bytes.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn dot(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: arithmetic on registers alone; the feature is enabled.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Adds to a 2 × 2 matrix the product of two rows (`a`) and two columns (`b`) of eight signed bytes each.
#[target_feature(enable = "neon,i8mm")]
#[inline]
fn matrix(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: arithmetic on registers alone; the feature is enabled.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// From `Σ (u - 128)·q` of a row and a panel to what the layer gives, or to the bits of the exact sums.
#[target_feature(enable = "neon")]
#[inline]
fn finish<const SUMS: bool>(
    layer: &Linear,
    panel: usize,
    affine: Affine,
    sums: [int32x4_t; PANEL / 4],
    out: &mut Lane,
) {
    let totals = layer.sums[panel].as_ptr();
    let (scales, bias) = (layer.scales[panel].0.as_ptr(), layer.bias[panel].0.as_ptr());
    for (quarter, sums) in sums.into_iter().enumerate() {
        // SAFETY: four of sixteen values are read or written.
        unsafe {
            let totals = vld1q_s32(totals.add(quarter * 4));
            let sums = vmlaq_n_s32(sums, totals, 128 - affine.zero);
            let floats = if SUMS {
                vreinterpretq_f32_s32(sums)
            } else {
                let scale = vmulq_n_f32(vld1q_f32(scales.add(quarter * 4)), affine.scale);
                vfmaq_f32(vld1q_f32(bias.add(quarter * 4)), vcvtq_f32_s32(sums), scale)
            };
            vst1q_f32(out.0.as_mut_ptr().add(quarter * 4), floats);
        }
    }
}

/// The scan with one of the two ways to multiply sixteen bytes.
macro_rules! scores {
    ($name:ident, $features:literal, $multiply:ident) => {
        #[target_feature(enable = $features)]
        fn $name(table: &[i8], rows: &[u32], query: &Query, out: &mut [i32]) {
            let dims = query.dims();
            let whole = dims / 16;
            let lines = query.lines().as_ptr().cast::<i8>();
            for (row, score) in rows.iter().zip(out) {
                let vector = &table[*row as usize * dims..(*row as usize + 1) * dims];
                // Several sums, for the latency of one.
                let mut sums = [vdupq_n_s32(0); 4];
                for part in 0..whole {
                    // SAFETY: `part` counts whole sixteens of the vector; the query has no fewer.
                    unsafe {
                        let values = vld1q_s8(vector.as_ptr().add(part * 16));
                        let query = vld1q_s8(lines.add(part * 16));
                        sums[part % 4] = $multiply(sums[part % 4], values, query);
                    }
                }
                let sums = vaddq_s32(vaddq_s32(sums[0], sums[1]), vaddq_s32(sums[2], sums[3]));
                let rest = vector[whole * 16..].iter().zip(&query.wide()[whole * 16..]);
                *score = rest.fold(vaddvq_s32(sums), |sum, (a, b)| {
                    sum.wrapping_add(i32::from(*a) * i32::from(*b))
                });
            }
        }
    };
}
scores!(scores_plain, "neon", multiply);
scores!(scores_dotprod, "neon,dotprod", dot);

/// Products of bytes fit 16 bits (128 · 128), and their pairs are added into 32.
#[target_feature(enable = "neon")]
#[inline]
fn multiply(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    let high = vmull_s8(vget_high_s8(a), vget_high_s8(b));
    vpadalq_s16(vpadalq_s16(sums, low), high)
}

/// Sixteen floats in four registers.
#[derive(Clone, Copy)]
struct Four([float32x4_t; 4]);

/// Implements operations that take registers and give one.
macro_rules! operations {
    ($($name:ident($($argument:ident),*) = $intrinsic:ident;)*) => {
        $(#[inline(always)]
        fn $name(self $(, $argument: Self)*) -> Self {
            // SAFETY: reached only through routines of kernels whose processor has NEON.
            Self(std::array::from_fn(|i| unsafe { $intrinsic(self.0[i] $(, $argument.0[i])*) }))
        })*
    };
}

impl Lanes for Four {
    operations! {
        add(other) = vaddq_f32;
        sub(other) = vsubq_f32;
        mul(other) = vmulq_f32;
        min(other) = vminq_f32;
        max(other) = vmaxq_f32;
        round() = vrndnq_f32;
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: as in `operations`.
        Self(std::array::from_fn(|i| unsafe {
            vfmaq_f32(term.0[i], self.0[i], factor.0[i])
        }))
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: as in `operations`.
        unsafe { Self([vdupq_n_f32(value); 4]) }
    }

    #[inline(always)]
    fn load(from: &Lane) -> Self {
        // SAFETY: as in `operations`; four of sixteen values each.
        Self(std::array::from_fn(|i| unsafe {
            vld1q_f32(from.0.as_ptr().add(i * 4))
        }))
    }

    #[inline(always)]
    fn store(self, to: &mut Lane) {
        for (i, part) in self.0.into_iter().enumerate() {
            // SAFETY: as in `operations`; four of sixteen values each.
            unsafe { vst1q_f32(to.0.as_mut_ptr().add(i * 4), part) };
        }
    }

    #[inline(always)]
    fn exp2(self) -> Self {
        // SAFETY: as in `operations`.
        Self(self.0.map(|part| unsafe {
            let exponent = vaddq_s32(vcvtnq_s32_f32(part), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
        }))
    }

    #[inline(always)]
    fn bytes(self, to: &mut [u8; 16]) {
        // SAFETY: as in `operations`; sixteen bytes are written. Each narrowing clamps.
        unsafe {
            let [a, b, c, d] = self.0.map(|part| vcvtnq_s32_f32(part));
            let low = vcombine_s16(vqmovn_s32(a), vqmovn_s32(b));
            let high = vcombine_s16(vqmovn_s32(c), vqmovn_s32(d));
            vst1q_u8(
                to.as_mut_ptr(),
                vcombine_u8(vqmovun_s16(low), vqmovun_s16(high)),
            );
        }
    }
}
