//! Plain Rust. What the other kernels are measured against, and what runs where none of them can.

use super::{Routines, float_routines};
use crate::linear::{Linear, Rows};
use crate::query::Query;

float_routines!([f32; 16]);

pub(super) static ROUTINES: Routines = Routines {
    product: product::<false>,
    sums: product::<true>,
    scores,
    quantise,
    add_norm,
    gelu,
    attention,
};

fn product<const SUMS: bool>(
    layer: &Linear,
    rows: Rows<'_>,
    out: &mut [Lane],
    space: &mut Vec<i16>,
) {
    let (panels, groups) = (layer.panels(), layer.groups);
    // Widened once: the inner loop is then one multiplication the compiler knows how to put into vectors.
    space.clear();
    space.extend(rows.lines.iter().flat_map(|line| line.0).map(i16::from));
    for (panel, lines) in layer.lines.chunks_exact(groups).enumerate() {
        for (row, affine) in rows.affine.iter().enumerate() {
            let values = &space[row * groups * 4..(row + 1) * groups * 4];
            let mut sums = layer.sums[panel].map(|sum| sum.wrapping_mul(-affine.zero));
            for (line, four) in lines.iter().zip(values.as_chunks::<4>().0) {
                for (column, sum) in sums.iter_mut().enumerate() {
                    let weights = &line.0[column * 4..column * 4 + 4];
                    for (weight, value) in weights.iter().zip(four) {
                        let product = i32::from(*weight as i8) * i32::from(*value);
                        *sum = sum.wrapping_add(product);
                    }
                }
            }
            out[row * panels + panel] = Lane(std::array::from_fn(|column| {
                if SUMS {
                    f32::from_bits(sums[column] as u32)
                } else {
                    let scale = affine.scale * layer.scales[panel].0[column];
                    (sums[column] as f32).mul_add(scale, layer.bias[panel].0[column])
                }
            }));
        }
    }
}

fn scores(table: &[i8], rows: &[u32], query: &Query, out: &mut [i32]) {
    let dims = query.dims();
    for (row, score) in rows.iter().zip(out) {
        let vector = &table[*row as usize * dims..(*row as usize + 1) * dims];
        *score = vector
            .iter()
            .zip(query.wide())
            .map(|(a, b)| i32::from(*a).wrapping_mul(i32::from(*b)))
            .fold(0, i32::wrapping_add);
    }
}
