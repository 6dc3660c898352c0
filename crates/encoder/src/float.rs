//! What happens between two matrix products, on rows of floats: normalising, GELU, attention, and making int8 of it.
//!
//! Everything is written once over [`Lanes`] and compiled for each kernel. Nothing that touches lanes stands in a closure:
//! closures handed to other functions are compiled without the kernel's features. A row is a whole number of [`Lane`]s.
#![allow(clippy::needless_range_loop, reason = "indices name registers")]

use std::ops::Range;

use crate::lanes::{Lane, Lanes, Line};
use crate::linear::Affine;

/// Gain, shift and epsilon of a layer normalisation.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) gain: Vec<Lane>,
    pub(crate) shift: Vec<Lane>,
    pub(crate) epsilon: f32,
}

/// Quantises a row whose smallest and largest value are known (0 is always inside the range).
#[inline(always)]
fn quantise_between<L: Lanes>(row: &[Lane], low: f32, high: f32, to: &mut [Line]) -> Affine {
    let range = high - low;
    let inverse = match 255.0 / range {
        inverse if inverse.is_finite() => inverse,
        _ => 0.0,
    };
    let zero = (-low * inverse).round_ties_even();
    let (factor, term) = (L::splat(inverse), L::splat(zero));
    for (line, lanes) in to.iter_mut().zip(row.chunks(4)) {
        let (parts, _) = line.0.as_chunks_mut::<16>();
        for (part, lane) in parts.iter_mut().zip(lanes) {
            L::load(lane).mul_add(factor, term).bytes(part);
        }
    }
    Affine {
        scale: if inverse == 0.0 { 0.0 } else { range / 255.0 },
        zero: zero as i32,
    }
}

/// Quantises a row.
#[inline(always)]
pub(crate) fn quantise<L: Lanes>(row: &[Lane], to: &mut [Line]) -> Affine {
    let (mut low, mut high) = (L::splat(0.0), L::splat(0.0));
    for lane in row {
        let value = L::load(lane);
        low = low.min(value);
        high = high.max(value);
    }
    quantise_between::<L>(row, low.smallest(), high.largest(), to)
}

/// `row = norm(row + delta)`, and the result quantised.
#[inline(always)]
pub(crate) fn add_norm_quantise<L: Lanes>(
    row: &mut [Lane],
    delta: &[Lane],
    norm: &Norm,
    to: &mut [Line],
) -> Affine {
    let count = (row.len() * 16) as f32;
    let (mut sums, mut more) = (L::splat(0.0), L::splat(0.0));
    for (at, (lane, delta)) in row.iter_mut().zip(delta).enumerate() {
        let value = L::load(lane).add(L::load(delta));
        value.store(lane);
        // Two chains of additions, for their latency.
        if at % 2 == 0 {
            sums = sums.add(value);
        } else {
            more = more.add(value);
        }
    }
    let mean = L::splat(sums.add(more).sum() / count);
    let (mut squares, mut more) = (L::splat(0.0), L::splat(0.0));
    for (at, lane) in row.iter().enumerate() {
        let off = L::load(lane).sub(mean);
        if at % 2 == 0 {
            squares = off.mul_add(off, squares);
        } else {
            more = off.mul_add(off, more);
        }
    }
    let variance = squares.add(more).sum() / count;
    let factor = L::splat(1.0 / (variance + norm.epsilon).sqrt());
    let (mut low, mut high) = (L::splat(0.0), L::splat(0.0));
    for (lane, (gain, shift)) in row.iter_mut().zip(norm.gain.iter().zip(&norm.shift)) {
        let value = L::load(lane)
            .sub(mean)
            .mul(factor)
            .mul_add(L::load(gain), L::load(shift));
        value.store(lane);
        low = low.min(value);
        high = high.max(value);
    }
    quantise_between::<L>(row, low.smallest(), high.largest(), to)
}

/// Coefficients of `(Φ(x) - 1/2) / x` in powers of `x²`, Φ being the normal distribution, for `|x| <= 4.5`: our own
/// least-squares fit, weighted towards the largest error. GELU made from it is off by less than 4e-5 from -12 to 12,
/// a thousandth of a step of the int8 values it becomes.
#[allow(clippy::excessive_precision, reason = "as fitted")]
const PHI: [f32; 10] = [
    0.398_883_78,
    -0.066_337_056,
    0.009_833_184,
    -0.001_122_678_3,
    9.787_133e-5,
    -6.365_252e-6,
    2.958_895_8e-7,
    -9.193_737e-9,
    1.697_301e-10,
    -1.400_064_7e-12,
];

/// `x · Φ(x)`, the exact (erf) form of GELU.
#[inline(always)]
fn gelu<L: Lanes>(x: L) -> L {
    let inside = x.min(L::splat(4.5)).max(L::splat(-4.5));
    let square = inside.mul(inside);
    // Even and odd powers apart: half the latency of one chain.
    let fourth = square.mul(square);
    let mut even = L::splat(PHI[8]);
    let mut odd = L::splat(PHI[9]);
    for at in [6, 4, 2, 0] {
        even = even.mul_add(fourth, L::splat(PHI[at]));
        odd = odd.mul_add(fourth, L::splat(PHI[at + 1]));
    }
    let slope = odd.mul_add(square, even);
    let share = inside.mul_add(slope, L::splat(0.5));
    x.mul(share)
}

/// `row = gelu(row)`, and the result quantised.
#[inline(always)]
pub(crate) fn gelu_quantise<L: Lanes>(row: &mut [Lane], to: &mut [Line]) -> Affine {
    let (mut low, mut high) = (L::splat(0.0), L::splat(0.0));
    for lane in row.iter_mut() {
        let value = gelu(L::load(lane));
        value.store(lane);
        low = low.min(value);
        high = high.max(value);
    }
    quantise_between::<L>(row, low.smallest(), high.largest(), to)
}

/// e to the power of `x <= 0`; below -87 it is e to the power of -87. Relative error below 3e-7: `2^n · e^r` with
/// `|r| <= ln 2 / 2`, and the Taylor series of `e^r` up to the sixth power.
#[inline(always)]
fn exp<L: Lanes>(x: L) -> L {
    let x = x.max(L::splat(-87.0));
    let whole = x.mul(L::splat(std::f32::consts::LOG2_E)).round();
    let rest = whole.mul_add(L::splat(-0.693_145_75), x);
    let rest = whole.mul_add(L::splat(-1.428_606_8e-6), rest);
    let mut power = L::splat(1.0 / 720.0);
    for term in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        power = power.mul_add(rest, L::splat(term));
    }
    power.mul(whole.exp2())
}

/// Where the heads of one text lie in the rows that the product with the joint query, key and value matrix gave.
#[derive(Debug, Clone)]
pub(crate) struct Heads {
    /// Rows of the text.
    pub(crate) rows: Range<usize>,
    /// How many of these rows ask, from the first on. The others only answer.
    pub(crate) asking: usize,
    pub(crate) heads: usize,
    /// Lanes of one head.
    pub(crate) width: usize,
}

/// Attention of one text over itself. `qkv` holds rows of queries (already divided by the root of the head's size),
/// keys and values; `context` rows of what each token takes from the others. `space` is overwritten.
#[inline(always)]
pub(crate) fn attention<L: Lanes>(
    qkv: &[Lane],
    text: &Heads,
    context: &mut [Lane],
    space: &mut Vec<Lane>,
) {
    match text.width {
        1 => attention_of::<L, 1>(qkv, text, context, space),
        2 => attention_of::<L, 2>(qkv, text, context, space),
        4 => attention_of::<L, 4>(qkv, text, context, space),
        _ => unreachable!("the configuration's head size was checked"),
    }
}

/// Queries that are answered together.
const TOGETHER: usize = 4;

/// One head of one text.
struct Head<'a> {
    /// Rows of queries, keys and values.
    rows: &'a [Lane],
    /// Lanes of the queries of all heads, and of keys and values each.
    hidden: usize,
    /// Where this head begins in them.
    start: usize,
    tokens: usize,
    /// Sixteens of tokens.
    blocks: usize,
    /// The largest float for tokens of the last block that there are, and the smallest for the others.
    last: Lane,
}

#[inline(always)]
fn attention_of<L: Lanes, const W: usize>(
    qkv: &[Lane],
    text: &Heads,
    context: &mut [Lane],
    space: &mut Vec<Lane>,
) {
    let hidden = text.heads * W;
    let tokens = text.rows.len();
    let blocks = tokens.div_ceil(16);
    space.resize((W * 16 + TOGETHER) * blocks, Lane::ZERO);
    let (keys, scores) = space.split_at_mut(W * 16 * blocks);
    let context = &mut context[text.rows.start * hidden..text.rows.end * hidden];
    let mut head = Head {
        rows: &qkv[text.rows.start * hidden * 3..text.rows.end * hidden * 3],
        hidden,
        start: 0,
        tokens,
        blocks,
        last: Lane([f32::MAX; 16]),
    };
    head.last.0[tokens - (blocks - 1) * 16..].fill(f32::MIN);
    for number in 0..text.heads {
        head.start = number * W;
        head.turn_keys::<L, W>(keys);
        let mut at = 0;
        while at < text.asking {
            if text.asking - at >= TOGETHER {
                head.answer::<L, W, TOGETHER>(at, keys, scores, context);
                at += TOGETHER;
            } else {
                head.answer::<L, W, 1>(at, keys, scores, context);
                at += 1;
            }
        }
    }
}

impl Head<'_> {
    /// The keys with tokens along the lanes: `keys[d · blocks + b]` holds dimension `d` of the tokens from `16 b` on,
    /// and zero where there are none.
    #[inline(always)]
    fn turn_keys<L: Lanes, const W: usize>(&self, keys: &mut [Lane]) {
        for block in 0..self.blocks {
            for part in 0..W {
                let mut square = [L::splat(0.0); 16];
                let count = (self.tokens - block * 16).min(16);
                for (lane, key) in square[..count].iter_mut().enumerate() {
                    let row = (block * 16 + lane) * 3 + 1;
                    *key = L::load(&self.rows[row * self.hidden + self.start + part]);
                }
                for (d, lanes) in L::transpose(square).into_iter().enumerate() {
                    lanes.store(&mut keys[(part * 16 + d) * self.blocks + block]);
                }
            }
        }
    }

    /// Query times keys for `Q` queries and `B` blocks of tokens from `block` on; into `scores`, and the largest so far
    /// into `largest`.
    #[inline(always)]
    fn score<L: Lanes, const W: usize, const Q: usize, const B: usize>(
        &self,
        queries: &[&[Lane]; Q],
        block: usize,
        keys: &[Lane],
        scores: &mut [Lane],
        largest: &mut [L; Q],
    ) {
        let mut sums = [[L::splat(0.0); B]; Q];
        for part in 0..W {
            for d in 0..16 {
                let start = (part * 16 + d) * self.blocks + block;
                let mut lanes = [L::splat(0.0); B];
                for (lanes, key) in lanes.iter_mut().zip(&keys[start..start + B]) {
                    *lanes = L::load(key);
                }
                for q in 0..Q {
                    let value = L::splat(queries[q][part].0[d]);
                    for b in 0..B {
                        sums[q][b] = value.mul_add(lanes[b], sums[q][b]);
                    }
                }
            }
        }
        for q in 0..Q {
            for b in 0..B {
                let mut score = sums[q][b];
                if block + b + 1 == self.blocks {
                    score = score.min(L::load(&self.last));
                }
                largest[q] = largest[q].max(score);
                score.store(&mut scores[q * self.blocks + block + b]);
            }
        }
    }

    /// What `Q` queries from `at` on take from all tokens of their text.
    #[inline(always)]
    fn answer<L: Lanes, const W: usize, const Q: usize>(
        &self,
        at: usize,
        keys: &[Lane],
        scores: &mut [Lane],
        context: &mut [Lane],
    ) {
        let (hidden, blocks) = (self.hidden, self.blocks);
        let queries: [&[Lane]; Q] = std::array::from_fn(|q| {
            let start = (at + q) * hidden * 3 + self.start;
            &self.rows[start..start + W]
        });
        let mut largest = [L::splat(f32::MIN); Q];
        let mut block = 0;
        while block < blocks {
            if block + 2 <= blocks {
                self.score::<L, W, Q, 2>(&queries, block, keys, scores, &mut largest);
                block += 2;
            } else {
                self.score::<L, W, Q, 1>(&queries, block, keys, scores, &mut largest);
                block += 1;
            }
        }
        let mut tops = [L::splat(0.0); Q];
        for q in 0..Q {
            tops[q] = L::splat(largest[q].largest());
        }
        let mut sums = [L::splat(0.0); Q];
        for block in 0..blocks {
            for q in 0..Q {
                let lane = &mut scores[q * blocks + block];
                // Where there is no token this is 1e-38, too little to be seen beside the largest, which is 1.
                let share = exp(L::load(lane).sub(tops[q]));
                share.store(lane);
                sums[q] = sums[q].add(share);
            }
        }
        let mut taken = [[L::splat(0.0); W]; Q];
        for block in 0..blocks {
            let shares: [&Lane; Q] = std::array::from_fn(|q| &scores[q * blocks + block]);
            for lane in 0..(self.tokens - block * 16).min(16) {
                let start = ((block * 16 + lane) * 3 + 2) * hidden + self.start;
                let mut values = [L::splat(0.0); W];
                for (value, lane) in values.iter_mut().zip(&self.rows[start..start + W]) {
                    *value = L::load(lane);
                }
                for q in 0..Q {
                    let share = L::splat(shares[q].0[lane]);
                    for part in 0..W {
                        taken[q][part] = share.mul_add(values[part], taken[q][part]);
                    }
                }
            }
        }
        for q in 0..Q {
            let start = (at + q) * hidden + self.start;
            let context = &mut context[start..start + W];
            let factor = L::splat(1.0 / sums[q].sum());
            for part in 0..W {
                taken[q][part].mul(factor).store(&mut context[part]);
            }
        }
    }
}
