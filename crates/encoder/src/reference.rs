//! The same forward pass in 32-bit floats, as directly as it can be written: what the int8 pass is measured against in
//! tests and benchmarks. It shares the reading of the folder with it, and nothing of the arithmetic.

use std::path::Path;

use crate::error::Error;
use crate::folder::{Config, Pooling};
use crate::tokens::Splitter;
use crate::weights::{Tensors, Weights};

/// A model with its weights as they are.
pub struct Reference {
    config: Config,
    splitter: Splitter,
    words: Vec<Vec<f32>>,
    positions: Vec<Vec<f32>>,
    kind: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
}

struct Dense {
    rows: Vec<Vec<f32>>,
    bias: Vec<f32>,
}

struct Norm {
    gain: Vec<f32>,
    shift: Vec<f32>,
    epsilon: f32,
}

struct Layer {
    query: Dense,
    key: Dense,
    value: Dense,
    output: Dense,
    output_norm: Norm,
    widen: Dense,
    narrow: Dense,
    narrow_norm: Norm,
}

impl Reference {
    /// Opens a folder, as [`crate::Encoder::open`] does.
    ///
    /// # Errors
    /// As [`crate::Encoder::open`].
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let config = Config::read(folder)?;
        let weights = Weights::open(folder)?;
        let tensors = weights.tensors()?;
        let (splitter, _) = Splitter::open(folder, &config)?;
        let (hidden, inner) = (config.hidden, config.inner);
        let layers = (0..config.layers)
            .map(|layer| {
                let name = |part: &str| format!("encoder.layer.{layer}.{part}");
                let norm = |part: &str| Norm::read(&tensors, &name(part), &config);
                let dense =
                    |part: &str, columns, depth| Dense::read(&tensors, &name(part), columns, depth);
                Ok(Layer {
                    query: dense("attention.self.query", hidden, hidden)?,
                    key: dense("attention.self.key", hidden, hidden)?,
                    value: dense("attention.self.value", hidden, hidden)?,
                    output: dense("attention.output.dense", hidden, hidden)?,
                    output_norm: norm("attention.output.LayerNorm")?,
                    widen: dense("intermediate.dense", inner, hidden)?,
                    narrow: dense("output.dense", hidden, inner)?,
                    narrow_norm: norm("output.LayerNorm")?,
                })
            })
            .collect::<Result<_, Error>>()?;
        let table =
            |name: &str, rows| matrix(&tensors, &format!("embeddings.{name}"), rows, hidden);
        Ok(Self {
            words: table("word_embeddings.weight", config.vocabulary)?,
            positions: table("position_embeddings.weight", config.positions)?,
            kind: table("token_type_embeddings.weight", config.types)?.swap_remove(0),
            norm: Norm::read(&tensors, "embeddings.LayerNorm", &config)?,
            layers,
            splitter,
            config,
        })
    }

    /// The vector of a text without a prompt, of length one.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<f32>, Error> {
        let tokens = self.splitter.split(text)?.numbers;
        let mut rows: Vec<Vec<f32>> = tokens
            .iter()
            .zip(&self.positions)
            .map(|(token, position)| {
                let mut row = add(&self.words[*token as usize], position);
                row = add(&row, &self.kind);
                self.norm.apply(&mut row);
                row
            })
            .collect();
        for layer in &self.layers {
            let context = layer.attend(&rows, self.config.heads);
            for (row, context) in rows.iter_mut().zip(context) {
                *row = add(row, &layer.output.apply(&context));
                layer.output_norm.apply(row);
                let mut inner = layer.widen.apply(row);
                for value in &mut inner {
                    *value = gelu(*value);
                }
                *row = add(row, &layer.narrow.apply(&inner));
                layer.narrow_norm.apply(row);
            }
        }
        if self.config.pooling == Pooling::Cls {
            rows.truncate(1);
        }
        let mut sum = vec![0.0; self.config.hidden];
        for row in &rows {
            sum = add(&sum, row);
        }
        let length = dot(&sum, &sum).sqrt();
        Ok(sum.iter().map(|value| value / length).collect())
    }
}

impl Layer {
    fn attend(&self, rows: &[Vec<f32>], heads: usize) -> Vec<Vec<f32>> {
        let all =
            |dense: &Dense| -> Vec<Vec<f32>> { rows.iter().map(|row| dense.apply(row)).collect() };
        let (queries, keys, values) = (all(&self.query), all(&self.key), all(&self.value));
        let size = queries[0].len() / heads;
        queries
            .iter()
            .map(|query| {
                let mut context = vec![0.0; query.len()];
                for head in 0..heads {
                    let part = head * size..(head + 1) * size;
                    let scores: Vec<f32> = keys
                        .iter()
                        .map(|key| {
                            dot(&query[part.clone()], &key[part.clone()]) / (size as f32).sqrt()
                        })
                        .collect();
                    let top = scores.iter().copied().fold(f32::MIN, f32::max);
                    let shares: Vec<f32> = scores.iter().map(|score| (score - top).exp()).collect();
                    let total: f32 = shares.iter().sum();
                    for (share, value) in shares.iter().zip(&values) {
                        for (to, value) in
                            context[part.clone()].iter_mut().zip(&value[part.clone()])
                        {
                            *to += share / total * value;
                        }
                    }
                }
                context
            })
            .collect()
    }
}

impl Dense {
    fn read(
        tensors: &Tensors<'_>,
        name: &str,
        columns: usize,
        depth: usize,
    ) -> Result<Self, Error> {
        Ok(Self {
            rows: matrix(tensors, &format!("{name}.weight"), columns, depth)?,
            bias: vector(tensors, &format!("{name}.bias"), columns)?,
        })
    }

    fn apply(&self, row: &[f32]) -> Vec<f32> {
        let columns = self.rows.iter().zip(&self.bias);
        columns
            .map(|(weights, bias)| dot(weights, row) + bias)
            .collect()
    }
}

impl Norm {
    fn read(tensors: &Tensors<'_>, name: &str, config: &Config) -> Result<Self, Error> {
        Ok(Self {
            gain: vector(tensors, &format!("{name}.weight"), config.hidden)?,
            shift: vector(tensors, &format!("{name}.bias"), config.hidden)?,
            epsilon: config.epsilon,
        })
    }

    fn apply(&self, row: &mut [f32]) {
        let count = row.len() as f64;
        let mean = row.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
        let off = |value: f32| f64::from(value) - mean;
        let variance = row.iter().map(|value| off(*value).powi(2)).sum::<f64>() / count;
        let deviation = (variance + f64::from(self.epsilon)).sqrt();
        for (value, (gain, shift)) in row.iter_mut().zip(self.gain.iter().zip(&self.shift)) {
            *value = (off(*value) / deviation) as f32 * gain + shift;
        }
    }
}

fn vector(tensors: &Tensors<'_>, name: &str, length: usize) -> Result<Vec<f32>, Error> {
    tensors.get(name, &[length])?.floats(0)
}

fn matrix(
    tensors: &Tensors<'_>,
    name: &str,
    rows: usize,
    columns: usize,
) -> Result<Vec<Vec<f32>>, Error> {
    let tensor = tensors.get(name, &[rows, columns])?;
    (0..rows).map(|row| tensor.floats(row)).collect()
}

fn add(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// Sixteen sums side by side, which a compiler may put into one register.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    for (a, b) in a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

fn gelu(x: f32) -> f32 {
    (0.5 * f64::from(x) * (1.0 + erf(f64::from(x) * std::f64::consts::FRAC_1_SQRT_2))) as f32
}

/// The error function: its power series near zero, the continued fraction of its complement elsewhere (Abramowitz and
/// Stegun, 7.1.5 and 7.1.14), both to more digits than a 32-bit float has.
fn erf(x: f64) -> f64 {
    let root = std::f64::consts::PI.sqrt();
    let size = x.abs();
    if size < 2.0 {
        let mut term = x;
        let mut sum = x;
        for n in 1..40 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return 2.0 / root * sum;
    }
    let fraction = (1..60)
        .rev()
        .fold(size, |below, n| size + f64::from(n) / 2.0 / below);
    (1.0 - (-size * size).exp() / root / fraction).copysign(x)
}
