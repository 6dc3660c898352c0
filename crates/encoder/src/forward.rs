//! The forward pass: tokens of some texts in, one vector each out.
//!
//! Texts are not padded. Their tokens lie one after the other as rows of one matrix; every product, norm and GELU works
//! on rows and does not care whose they are, and attention goes text by text. Between two products a row is normalised
//! (or put through GELU) and made int8 in one go, while it is in the first-level cache.

use std::ops::Range;

use crate::error::Error;
use crate::float::{Heads, Norm};
use crate::folder::{Config, Pooling};
use crate::kernel::Routines;
use crate::lanes::{Lane, Line};
use crate::linear::{Affine, DEEPEST, Linear, PANEL, Rows};
use crate::parallel;
use crate::weights::{Table, Tensor, Tensors};

/// Rows that go through a layer's dense part together: few enough that what lies between its two products stays in the
/// second-level cache, and enough that weights are read seldom.
const BLOCK: usize = 64;

/// A model in memory.
pub(crate) struct Model {
    pub(crate) config: Config,
    words: Table,
    /// The vector of each position, with that of token type 0 added.
    positions: Vec<Lane>,
    norm: Norm,
    layers: Vec<Layer>,
}

struct Layer {
    /// Queries, keys and values in one; queries come out divided by the root of the head's size.
    attention: Linear,
    output: Linear,
    output_norm: Norm,
    widen: Linear,
    narrow: Linear,
    narrow_norm: Norm,
}

impl Model {
    /// Reads the weights and makes them int8, on all cores.
    pub(crate) fn load(tensors: &Tensors<'_>, config: Config) -> Result<Self, Error> {
        let (hidden, inner) = (config.hidden, config.inner);
        let words = tensors.get(
            "embeddings.word_embeddings.weight",
            &[config.vocabulary, hidden],
        )?;
        let norm = |name: &str| -> Result<Norm, Error> {
            Ok(Norm {
                gain: tensors.lanes(&format!("{name}.weight"), hidden)?,
                shift: tensors.lanes(&format!("{name}.bias"), hidden)?,
                epsilon: config.epsilon,
            })
        };
        let prefix = |layer: usize| format!("encoder.layer.{layer}");
        let norms: Vec<(Norm, Norm)> = (0..config.layers)
            .map(|layer| {
                let layer = prefix(layer);
                Ok((
                    norm(&format!("{layer}.attention.output.LayerNorm"))?,
                    norm(&format!("{layer}.output.LayerNorm"))?,
                ))
            })
            .collect::<Result<_, Error>>()?;
        let root = 1.0 / ((hidden / config.heads) as f32).sqrt();
        // Four matrices of each layer, as jobs of about equal size.
        let linears = parallel::run(
            config.layers * 4,
            parallel::cores(),
            || (),
            |(), job| {
                let layer = prefix(job / 4);
                match job % 4 {
                    0 => dense(
                        tensors,
                        hidden,
                        hidden,
                        &[
                            (format!("{layer}.attention.self.query"), root),
                            (format!("{layer}.attention.self.key"), 1.0),
                            (format!("{layer}.attention.self.value"), 1.0),
                        ],
                    ),
                    1 => dense(
                        tensors,
                        hidden,
                        hidden,
                        &[(format!("{layer}.attention.output.dense"), 1.0)],
                    ),
                    2 => dense(
                        tensors,
                        inner,
                        hidden,
                        &[(format!("{layer}.intermediate.dense"), 1.0)],
                    ),
                    _ => dense(
                        tensors,
                        hidden,
                        inner,
                        &[(format!("{layer}.output.dense"), 1.0)],
                    ),
                }
            },
        )?;
        let mut linears = linears.into_iter();
        let mut layers = Vec::with_capacity(config.layers);
        for (output_norm, narrow_norm) in norms {
            let four = (
                linears.next(),
                linears.next(),
                linears.next(),
                linears.next(),
            );
            if let (Some(attention), Some(output), Some(widen), Some(narrow)) = four {
                layers.push(Layer {
                    attention,
                    output,
                    output_norm,
                    widen,
                    narrow,
                    narrow_norm,
                });
            }
        }
        Ok(Self {
            words: tensors.keep(&words)?,
            positions: positions(tensors, &config)?,
            norm: norm("embeddings.LayerNorm")?,
            layers,
            config,
        })
    }

    /// One vector of length one for each text, into `out`. Every token must be one of the model's, and no text empty or
    /// longer than the model's longest.
    pub(crate) fn forward(
        &self,
        routines: &Routines,
        texts: &[&[u32]],
        space: &mut Space,
        out: &mut Vec<Vec<f32>>,
    ) -> Result<(), Error> {
        let width = self.config.hidden / 16;
        space.begin(texts);
        let rows = space.rows();
        self.embed(routines, texts, space);
        for (at, layer) in self.layers.iter().enumerate() {
            // Of the last layer nobody reads more than what is pooled.
            let last = at + 1 == self.layers.len() && self.config.pooling == Pooling::Cls;
            space.qkv.resize(rows * width * 3, Lane::ZERO);
            for block in blocks(rows) {
                let from = space.small.rows(block.clone());
                let to = &mut space.qkv[block.start * width * 3..block.end * width * 3];
                routines.product(&layer.attention, from, to, &mut space.wide);
            }
            space.context.resize(rows * width, Lane::ZERO);
            for text in &space.texts {
                let text = Heads {
                    rows: text.clone(),
                    asking: if last { 1 } else { text.len() },
                    heads: self.config.heads,
                    width: width / self.config.heads,
                };
                routines.attention(&space.qkv, &text, &mut space.context, &mut space.scores);
            }
            if last {
                space.keep_first_rows(width);
            }
            for block in blocks(space.rows()) {
                layer.dense(routines, block, width, space);
            }
        }
        for text in &space.texts {
            let rows = &space.state[text.start * width..text.end * width];
            out.push(pool(rows, width)?);
        }
        Ok(())
    }

    /// What the tokens are before the first layer.
    fn embed(&self, routines: &Routines, texts: &[&[u32]], space: &mut Space) {
        let width = self.config.hidden / 16;
        space.state.resize(space.rows() * width, Lane::ZERO);
        space.small.resize(space.rows(), width);
        let tokens = texts.iter().flat_map(|text| text.iter().enumerate());
        let rows = space.state.chunks_exact_mut(width);
        for (row, (state, (position, token))) in rows.zip(tokens).enumerate() {
            self.words.read(*token as usize, state);
            let position = &self.positions[position * width..(position + 1) * width];
            let (to, affine) = space.small.row(row);
            *affine = routines.add_norm(state, position, &self.norm, to);
        }
    }
}

impl Layer {
    /// All of a layer that follows attention, for some rows.
    fn dense(&self, routines: &Routines, block: Range<usize>, width: usize, space: &mut Space) {
        let lanes = |rows: &Range<usize>| rows.start * width..rows.end * width;
        let state = &mut space.state[lanes(&block)];
        let (small, large) = (&mut space.small, &mut space.large);
        let context = space.context[lanes(&block)].chunks_exact(width);
        for (row, context) in block.clone().zip(context) {
            let (to, affine) = small.row(row);
            *affine = routines.quantise(context, to);
        }
        space.delta.resize(block.len() * width, Lane::ZERO);
        let delta = &mut space.delta[..block.len() * width];
        routines.product(
            &self.output,
            small.rows(block.clone()),
            delta,
            &mut space.wide,
        );
        let rows = state.chunks_exact_mut(width).zip(delta.chunks_exact(width));
        for (row, (state, delta)) in block.clone().zip(rows) {
            let (to, affine) = small.row(row);
            *affine = routines.add_norm(state, delta, &self.output_norm, to);
        }

        let inner = self.widen.panels();
        space.inner.resize(block.len() * inner, Lane::ZERO);
        let hidden = &mut space.inner[..block.len() * inner];
        routines.product(
            &self.widen,
            small.rows(block.clone()),
            hidden,
            &mut space.wide,
        );
        large.resize(block.len(), inner);
        for (row, hidden) in hidden.chunks_exact_mut(inner).enumerate() {
            let (to, affine) = large.row(row);
            *affine = routines.gelu(hidden, to);
        }
        routines.product(
            &self.narrow,
            large.rows(0..block.len()),
            delta,
            &mut space.wide,
        );
        let rows = state.chunks_exact_mut(width).zip(delta.chunks_exact(width));
        for (row, (state, delta)) in block.zip(rows) {
            let (to, affine) = small.row(row);
            *affine = routines.add_norm(state, delta, &self.narrow_norm, to);
        }
    }
}

/// The rows 0 to `rows` in blocks of about equal length.
fn blocks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let count = rows.div_ceil(BLOCK).max(1);
    (0..count).map(move |at| rows * at / count..rows * (at + 1) / count)
}

/// The mean of some rows, made one long.
fn pool(rows: &[Lane], width: usize) -> Result<Vec<f32>, Error> {
    let mut sum = vec![0.0f32; width * 16];
    for row in rows.chunks_exact(width) {
        let values = row.iter().flat_map(|lane| &lane.0);
        for (sum, value) in sum.iter_mut().zip(values) {
            *sum += value;
        }
    }
    // Dividing by the number of rows would not change the direction.
    let length = sum
        .iter()
        .map(|value| f64::from(*value).powi(2))
        .sum::<f64>()
        .sqrt();
    if !(length.is_finite() && length > 0.0) {
        return Err(Error::NotFinite);
    }
    for value in &mut sum {
        *value = (f64::from(*value) / length) as f32;
    }
    Ok(sum)
}

fn positions(tensors: &Tensors<'_>, config: &Config) -> Result<Vec<Lane>, Error> {
    let width = config.hidden;
    let positions = tensors.get(
        "embeddings.position_embeddings.weight",
        &[config.positions, width],
    )?;
    let types = tensors.get(
        "embeddings.token_type_embeddings.weight",
        &[config.types, width],
    )?;
    let first = types.floats(0)?;
    let mut lanes = Vec::with_capacity(config.max_tokens * width / 16);
    for position in 0..config.max_tokens {
        let mut row = positions.floats(position)?;
        for (value, first) in row.iter_mut().zip(&first) {
            *value += first;
        }
        lanes.extend(row.as_chunks::<16>().0.iter().map(|lane| Lane(*lane)));
    }
    Ok(lanes)
}

/// Makes one int8 layer of one or several matrices of the same shape, side by side; each with what its results are
/// multiplied by.
fn dense(
    tensors: &Tensors<'_>,
    columns: usize,
    depth: usize,
    parts: &[(String, f32)],
) -> Result<Linear, Error> {
    debug_assert!(depth <= DEEPEST, "checked with the configuration");
    let sources = parts
        .iter()
        .map(|(name, factor)| {
            let weight = tensors.get(&format!("{name}.weight"), &[columns, depth])?;
            let bias = tensors.get(&format!("{name}.bias"), &[columns])?;
            let values = bias.floats(0)?;
            Ok((weight, values, *factor))
        })
        .collect::<Result<Vec<(Tensor<'_>, Vec<f32>, f32)>, Error>>()?;
    let mut linear = Linear::zeroed(columns * parts.len(), depth);
    let mut row = vec![0.0; depth];
    for (at, mut panel) in linear.panels_mut().enumerate() {
        for column in 0..PANEL {
            let number = at * PANEL + column;
            let (weight, bias, factor) = &sources[number / columns];
            let number = number % columns;
            weight.read(number, &mut row);
            if !panel.set(column, &row, bias[number], *factor) {
                return Err(weight.not_finite());
            }
        }
    }
    Ok(linear)
}

/// Quantised rows that are written and then multiplied.
#[derive(Default)]
struct Small {
    lines: Vec<Line>,
    affine: Vec<Affine>,
    /// Lines of a row.
    width: usize,
}

impl Small {
    /// Room for as many rows of `lanes` lanes.
    fn resize(&mut self, rows: usize, lanes: usize) {
        self.width = lanes.div_ceil(4);
        self.lines.resize(rows * self.width, Line::ZERO);
        self.affine.resize(rows, Affine::NONE);
    }

    fn row(&mut self, row: usize) -> (&mut [Line], &mut Affine) {
        let lines = &mut self.lines[row * self.width..(row + 1) * self.width];
        (lines, &mut self.affine[row])
    }

    fn rows(&self, rows: Range<usize>) -> Rows<'_> {
        Rows {
            lines: &self.lines[rows.start * self.width..rows.end * self.width],
            affine: &self.affine[rows],
        }
    }
}

/// Memory of a pass, kept for the next: once it has grown to the longest batch, a pass allocates its results only.
#[derive(Default)]
pub(crate) struct Space {
    /// Which rows are whose.
    texts: Vec<Range<usize>>,
    /// The residual stream.
    state: Vec<Lane>,
    /// What is added to it.
    delta: Vec<Lane>,
    small: Small,
    large: Small,
    qkv: Vec<Lane>,
    context: Vec<Lane>,
    scores: Vec<Lane>,
    inner: Vec<Lane>,
    wide: Vec<i16>,
}

impl Space {
    fn begin(&mut self, texts: &[&[u32]]) {
        self.texts.clear();
        let mut start = 0;
        for text in texts {
            self.texts.push(start..start + text.len());
            start += text.len();
        }
    }

    /// Rows of all texts.
    fn rows(&self) -> usize {
        self.texts.last().map_or(0, |text| text.end)
    }

    /// Drops all rows but the first of each text.
    fn keep_first_rows(&mut self, width: usize) {
        for (at, text) in self.texts.iter_mut().enumerate() {
            for rows in [&mut self.state, &mut self.context] {
                rows.copy_within(text.start * width..(text.start + 1) * width, at * width);
            }
            *text = at..at + 1;
        }
    }
}
