//! Sixteen floats at a time: the vocabulary in which `float` writes everything between two matrix products.
//!
//! Every operation is defined to the last bit (products and sums fused by `mul_add`, sums over lanes in one fixed
//! order, rounding to even), and each kernel implements it with its own instructions. So all kernels give the same
//! floats, not just close ones.

/// Sixteen floats, one cache line.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Lane(pub(crate) [f32; 16]);

impl Lane {
    pub(crate) const ZERO: Self = Self([0.0; 16]);
}

/// Sixty-four bytes, one cache line: of weights, four deep for sixteen columns; of a quantised row, sixty-four values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u8; 64]);

impl Line {
    pub(crate) const ZERO: Self = Self([0; 64]);
}

/// Sixteen floats in registers.
pub(crate) trait Lanes: Copy {
    fn splat(value: f32) -> Self;
    fn load(from: &Lane) -> Self;
    fn store(self, to: &mut Lane);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self * factor + term`, rounded once.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// Of numbers; what a NaN gives is not defined.
    fn min(self, other: Self) -> Self;
    /// Of numbers; what a NaN gives is not defined.
    fn max(self, other: Self) -> Self;
    /// To the nearest integer, halves to the even one.
    fn round(self) -> Self;
    /// Two to the power of whole numbers from -126 to 127.
    fn exp2(self) -> Self;
    /// Rounds to even and clamps to 0..=255; a NaN becomes 0 or 255.
    fn bytes(self, to: &mut [u8; 16]);

    /// The sum of all lanes: lane `i` with lane `i + 8`, then with `i + 4`, `i + 2` and `i + 1`.
    #[inline(always)]
    fn sum(self) -> f32 {
        self.fold(|a, b| a + b)
    }

    /// The smallest lane.
    #[inline(always)]
    fn smallest(self) -> f32 {
        self.fold(|a, b| if a < b { a } else { b })
    }

    /// The largest lane.
    #[inline(always)]
    fn largest(self) -> f32 {
        self.fold(|a, b| if a > b { a } else { b })
    }

    /// Sixteen times sixteen numbers with rows and columns changed.
    #[inline(always)]
    fn transpose(rows: [Self; 16]) -> [Self; 16] {
        let mut from = [Lane::ZERO; 16];
        for (lane, row) in from.iter_mut().zip(rows) {
            row.store(lane);
        }
        std::array::from_fn(|column| {
            Self::load(&Lane(std::array::from_fn(|row| from[row].0[column])))
        })
    }

    #[inline(always)]
    fn fold(self, join: impl Fn(f32, f32) -> f32) -> f32 {
        let mut lane = Lane::ZERO;
        self.store(&mut lane);
        let mut lane = lane.0;
        for half in [8, 4, 2, 1] {
            for at in 0..half {
                lane[at] = join(lane[at], lane[at + half]);
            }
        }
        lane[0]
    }
}

impl Lanes for [f32; 16] {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; 16]
    }

    #[inline(always)]
    fn load(from: &Lane) -> Self {
        from.0
    }

    #[inline(always)]
    fn store(self, to: &mut Lane) {
        to.0 = self;
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] - other[i])
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] * other[i])
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        std::array::from_fn(|i| self[i].mul_add(factor[i], term[i]))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        std::array::from_fn(|i| {
            if self[i] < other[i] {
                self[i]
            } else {
                other[i]
            }
        })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| {
            if self[i] > other[i] {
                self[i]
            } else {
                other[i]
            }
        })
    }

    #[inline(always)]
    fn round(self) -> Self {
        std::array::from_fn(|i| self[i].round_ties_even())
    }

    #[inline(always)]
    fn exp2(self) -> Self {
        std::array::from_fn(|i| f32::from_bits(((self[i] as i32).wrapping_add(127) as u32) << 23))
    }

    #[inline(always)]
    fn bytes(self, to: &mut [u8; 16]) {
        *to = std::array::from_fn(|i| self[i].round_ties_even() as u8);
    }
}
