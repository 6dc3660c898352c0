//! Writes a tiny BERT with random weights: an embedding model for tests.
//!
//! Its weights can be read, so that a test can compute by itself what the engine should answer. All of them are 32-bit
//! floats and none is zero or one, so that nothing left out goes unnoticed. The vocabulary is WordPiece as GGUF has it
//! (words begin with `▁`): every small letter and digit, and a few whole words.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::gguf::{Entry, Format, Random, Value, head, pad};

/// How the vectors of a text's tokens become one; the numbers are GGUF's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean = 1,
    /// The first one's.
    First = 2,
    /// None: it is a reranker.
    Rank = 4,
}

/// Encoder layers.
pub const LAYERS: usize = 2;
/// Length of a vector.
pub const WIDTH: usize = 32;
/// Attention heads.
pub const HEADS: usize = 2;
/// Length of the feed-forward layer.
pub const FEED_FORWARD: usize = 64;
/// Longest text in tokens, `[CLS]` and `[SEP]` included.
pub const CONTEXT: usize = 128;
/// What layer norms add to the variance.
pub const EPSILON: f32 = 1e-5;

const SPECIALS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// Stands before every text.
pub const CLS: i32 = 2;
/// Stands after every text.
pub const SEP: i32 = 3;
const WORDS: [&str; 6] = ["hearth", "fire", "water", "cold", "warm", "home"];

/// The model.
#[derive(Debug, Clone, PartialEq)]
pub struct Bert {
    pooling: Pooling,
    tokens: Vec<String>,
    tensors: Vec<Tensor>,
}

/// A matrix, row after row; a row is what it is multiplied along.
#[derive(Debug, Clone, PartialEq)]
struct Tensor {
    name: String,
    columns: usize,
    rows: usize,
    values: Vec<f32>,
}

impl Bert {
    /// The same seed gives the same weights.
    pub fn new(pooling: Pooling, seed: u64) -> Self {
        let signs = ('a'..='z').chain('0'..='9').map(String::from);
        let starts = signs.clone().map(|sign| format!("▁{sign}"));
        let tokens: Vec<String> = SPECIALS
            .map(String::from)
            .into_iter()
            .chain(starts)
            .chain(signs)
            .chain(WORDS.map(|word| format!("▁{word}")))
            .collect();
        let mut random = Random(seed);
        let mut tensors = Vec::new();
        let mut add = |name: String, columns: usize, rows: usize, centre: f32, spread: f32| {
            let values = (0..columns * rows).map(|_| centre + spread * random.symmetric());
            tensors.push(Tensor {
                name,
                columns,
                rows,
                values: values.collect(),
            });
        };
        add("token_embd.weight".into(), WIDTH, tokens.len(), 0.0, 1.0);
        add("token_types.weight".into(), WIDTH, 2, 0.0, 1.0);
        add("position_embd.weight".into(), WIDTH, CONTEXT, 0.0, 1.0);
        let mut part = |name: String, columns: Option<usize>, rows: usize| match columns {
            Some(columns) => {
                let spread = 2.0 / (columns as f32).sqrt();
                add(format!("{name}.weight"), columns, rows, 0.0, spread);
                add(format!("{name}.bias"), rows, 1, 0.0, 0.3);
            }
            // A layer norm.
            None => {
                add(format!("{name}.weight"), rows, 1, 1.0, 0.3);
                add(format!("{name}.bias"), rows, 1, 0.0, 0.3);
            }
        };
        part("token_embd_norm".into(), None, WIDTH);
        for layer in 0..LAYERS {
            for name in ["attn_q", "attn_k", "attn_v", "attn_output"] {
                part(format!("blk.{layer}.{name}"), Some(WIDTH), WIDTH);
            }
            part(format!("blk.{layer}.attn_output_norm"), None, WIDTH);
            part(format!("blk.{layer}.ffn_up"), Some(WIDTH), FEED_FORWARD);
            part(format!("blk.{layer}.ffn_down"), Some(FEED_FORWARD), WIDTH);
            part(format!("blk.{layer}.layer_output_norm"), None, WIDTH);
        }
        Self {
            pooling,
            tokens,
            tensors,
        }
    }

    /// Writes the model to a GGUF file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        const NORMAL: i32 = 1;
        const CONTROL: i32 = 3;
        let length = |value: usize| Value::U32(value as u32);
        let types: Vec<i32> = (0..self.tokens.len())
            .map(|token| match token < SPECIALS.len() {
                true => CONTROL,
                false => NORMAL,
            })
            .collect();
        let metadata = [
            ("general.architecture", Value::Text("bert")),
            ("general.name", Value::Text("tiny bert")),
            ("general.file_type", Value::U32(0)),
            ("bert.context_length", length(CONTEXT)),
            ("bert.block_count", length(LAYERS)),
            ("bert.embedding_length", length(WIDTH)),
            ("bert.feed_forward_length", length(FEED_FORWARD)),
            ("bert.attention.head_count", length(HEADS)),
            ("bert.attention.layer_norm_epsilon", Value::F32(EPSILON)),
            ("bert.attention.causal", Value::Bool(false)),
            ("bert.pooling_type", Value::U32(self.pooling as u32)),
            ("tokenizer.ggml.model", Value::Text("bert")),
            ("tokenizer.ggml.tokens", Value::Texts(&self.tokens)),
            ("tokenizer.ggml.token_type", Value::I32s(&types)),
            ("tokenizer.ggml.token_type_count", Value::U32(2)),
            ("tokenizer.ggml.padding_token_id", Value::U32(0)),
            ("tokenizer.ggml.unknown_token_id", Value::U32(1)),
            ("tokenizer.ggml.bos_token_id", length(CLS as usize)),
            ("tokenizer.ggml.seperator_token_id", length(SEP as usize)),
            ("tokenizer.ggml.mask_token_id", Value::U32(4)),
        ];
        let header = head(
            &metadata,
            self.tensors.iter().map(|tensor| Entry {
                name: &tensor.name,
                columns: tensor.columns,
                rows: tensor.rows,
                format: Format::F32,
                bytes: 4 * tensor.values.len() as u64,
            }),
        );
        let mut out = BufWriter::new(File::create(path)?);
        out.write_all(&header)?;
        pad(&mut out, header.len() as u64)?;
        for tensor in &self.tensors {
            for value in &tensor.values {
                out.write_all(&value.to_le_bytes())?;
            }
            pad(&mut out, 4 * tensor.values.len() as u64)?;
        }
        out.flush()
    }

    /// A tensor's values, row after row.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn tensor(&self, name: &str) -> &[f32] {
        let found = self.tensors.iter().find(|tensor| tensor.name == name);
        &found.expect("a tensor of that name").values
    }

    /// The token of a piece (`▁` before the first piece of a word).
    pub fn token(&self, piece: &str) -> Option<i32> {
        let at = self.tokens.iter().position(|token| token == piece)?;
        i32::try_from(at).ok()
    }
}
