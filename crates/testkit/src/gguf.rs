//! Writes GGUF models with random weights: real shapes and formats for tests and benchmarks, nothing to download.
//!
//! The answers are noise, yet everything around them is real: a byte-level BPE vocabulary with merges, a ChatML
//! template, quantised blocks of the formats in use, the tensor mix of llama.cpp's own quantiser. Speed depends on
//! shape and format alone, so such a file measures like the model whose shape it has. The rows of the special tokens
//! are zero: their logits are 0 while the largest of many random ones is well above, so an answer does not end by
//! itself. The same seed gives the same bytes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Dimensions of a Qwen3-like decoder with tied embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Name for the metadata.
    pub name: &'static str,
    /// Decoder layers.
    pub layers: usize,
    /// Embedding length; a multiple of 256, the block length of the K formats.
    pub width: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Length of one head.
    pub head: usize,
    /// Length of the feed-forward layer; a multiple of 256.
    pub feed_forward: usize,
    /// Tokens, the specials included.
    pub vocabulary: usize,
    /// How text becomes tokens.
    pub tokenizer: Tokenizer,
    /// The chat template.
    pub template: &'static str,
    /// Makes it an embedding model with this `pooling_type` of GGUF (3 takes the last token's vector).
    pub pooling: Option<u32>,
}

/// How text becomes tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokenizer {
    /// Byte-level BPE, dividing text into words as the model of that name does (`tokenizer.ggml.pre`).
    Bpe(&'static str),
    /// SentencePiece's, which puts a blank before a text (Llama 2, Mistral 7B).
    SentencePiece,
}

impl Shape {
    /// Under a megabyte: loads in milliseconds.
    pub const TINY: Self = Self {
        name: "tiny",
        layers: 2,
        width: 256,
        heads: 4,
        kv_heads: 2,
        head: 64,
        feed_forward: 256,
        vocabulary: 1536,
        tokenizer: Tokenizer::Bpe("qwen2"),
        template: CHAT_TEMPLATE,
        pooling: None,
    };

    /// [`Shape::TINY`] with another tokenizer.
    pub const fn tiny(tokenizer: Tokenizer) -> Self {
        Self {
            tokenizer,
            ..Self::TINY
        }
    }

    /// The shape of Qwen3 0.6B.
    pub const QWEN3_0_6B: Self = Self {
        name: "qwen3-0.6b",
        layers: 28,
        width: 1024,
        heads: 16,
        kv_heads: 8,
        head: 128,
        feed_forward: 3072,
        vocabulary: 151_936,
        tokenizer: Tokenizer::Bpe("qwen2"),
        template: CHAT_TEMPLATE,
        pooling: None,
    };

    /// The shape of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::TINY, Self::QWEN3_0_6B]
            .into_iter()
            .find(|shape| shape.name == name)
    }
}

/// How the weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantisation {
    /// 16-bit floats.
    F16,
    /// Blocks of 8-bit integers.
    Q8_0,
    /// 4-bit blocks, with 6-bit ones where llama.cpp's quantiser puts them.
    Q4KM,
}

impl Quantisation {
    /// The format of that usual name (`F16`, `Q8_0`, `Q4_K_M`), in any case.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "F16" => Some(Self::F16),
            "Q8_0" => Some(Self::Q8_0),
            "Q4_K_M" => Some(Self::Q4KM),
            _ => None,
        }
    }

    /// `general.file_type` of GGUF.
    fn file_type(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::Q4KM => 15,
        }
    }
}

/// Context length that the metadata state.
pub const CONTEXT: u32 = 32_768;

const SPECIALS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

const CHAT_TEMPLATE: &str = "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content \
                             + '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- \
                             '<|im_start|>assistant\\n' }}{%- endif %}";

const ALIGNMENT: u64 = 32;

/// Writes the model to `path`, first under another name, so that an interrupted call leaves no half file there.
pub fn write(path: &Path, shape: &Shape, quantisation: Quantisation, seed: u64) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&partial)?);
    let tensors = tensors(shape, quantisation);
    let header = header(shape, quantisation, &tensors);
    out.write_all(&header)?;
    pad(&mut out, header.len() as u64)?;
    for (index, tensor) in tensors.iter().enumerate() {
        let mut random = Random(seed ^ (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut row = Vec::with_capacity(tensor.row_bytes() as usize);
        for number in 0..tensor.rows {
            row.clear();
            match tensor.zero_from.is_some_and(|first| number >= first) {
                true => row.resize(tensor.row_bytes() as usize, 0),
                false => tensor.fill(&mut row, &mut random),
            }
            out.write_all(&row)?;
        }
        pad(&mut out, tensor.bytes())?;
    }
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_data()?;
    std::fs::rename(partial, path)
}

/// Zeros up to the next multiple of the alignment after `length` bytes.
pub(crate) fn pad(out: &mut impl Write, length: u64) -> io::Result<()> {
    let missing = length.next_multiple_of(ALIGNMENT) - length;
    out.write_all(&[0; ALIGNMENT as usize][..missing as usize])
}

/// Storage format of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    F32,
    F16,
    Q8_0,
    Q4K,
    Q6K,
}

impl Format {
    /// `enum ggml_type`.
    fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q6K => 14,
        }
    }

    /// Weights and bytes of one block.
    fn block(self) -> (u64, u64) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q4K => (256, 144),
            Self::Q6K => (256, 210),
        }
    }
}

struct Tensor {
    name: String,
    format: Format,
    /// Length of a row, which is what a weight matrix is multiplied along.
    columns: usize,
    rows: usize,
    /// Standard deviation of the weights; 0 makes every weight 1 (norms).
    deviation: f32,
    /// Rows from this one on are zero.
    zero_from: Option<usize>,
}

impl Tensor {
    fn row_bytes(&self) -> u64 {
        let (weights, bytes) = self.format.block();
        self.columns as u64 / weights * bytes
    }

    fn bytes(&self) -> u64 {
        self.row_bytes() * self.rows as u64
    }

    /// Appends one row. The scale of a block varies a little, as it does in a trained model.
    fn fill(&self, row: &mut Vec<u8>, random: &mut Random) {
        let blocks = self.columns as u64 / self.format.block().0;
        for _ in 0..blocks {
            match self.format {
                Format::F32 => row.extend(1.0f32.to_le_bytes()),
                // A uniform distribution over ±√3 deviations has the deviation wanted.
                Format::F16 => {
                    row.extend(f16(self.deviation * 1.732 * random.symmetric()).to_le_bytes())
                }
                Format::Q8_0 => {
                    // Integers of 8 bits, uniform, deviate by 73.9.
                    row.extend(f16(self.deviation / 73.9 * random.near_one()).to_le_bytes());
                    random.append(row, 32);
                }
                Format::Q4K => {
                    // weight = d·scale·q − dmin·min. Equal scales and mins with dmin = 7.5 d centre the integers
                    // 0..=15, which deviate by 4.61; scales are 40..=55, 47.5 on average.
                    let d = self.deviation / (47.5 * 4.61) * random.near_one();
                    row.extend(f16(d).to_le_bytes());
                    row.extend(f16(7.5 * d).to_le_bytes());
                    let scales: [u8; 8] = std::array::from_fn(|_| 40 + (random.next() % 16) as u8);
                    row.extend(pack_scales(scales));
                    random.append(row, 128);
                }
                Format::Q6K => {
                    // weight = d·scale·(q − 32), q in 0..=63, deviating by 18.5; scales are 24..=39.
                    random.append(row, 128 + 64);
                    row.extend((0..16).map(|_| 24 + (random.next() % 16) as u8));
                    row.extend(
                        f16(self.deviation / (31.5 * 18.5) * random.near_one()).to_le_bytes(),
                    );
                }
            }
        }
    }
}

/// Eight 6-bit scales, each used as the minimum too, in Q4_K's twelve bytes.
fn pack_scales(scales: [u8; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for j in 0..4 {
        let (low, high) = (scales[j], scales[j + 4]);
        packed[j] = low | (high >> 4) << 6;
        packed[j + 4] = low | (high >> 4) << 6;
        packed[j + 8] = (high & 15) | (high & 15) << 4;
    }
    packed
}

/// The tensors in file order. Deviations keep the activations near one through any number of layers.
fn tensors(shape: &Shape, quantisation: Quantisation) -> Vec<Tensor> {
    let weights = |more_bits: bool| match quantisation {
        Quantisation::F16 => Format::F16,
        Quantisation::Q8_0 => Format::Q8_0,
        Quantisation::Q4KM if more_bits => Format::Q6K,
        Quantisation::Q4KM => Format::Q4K,
    };
    let norm = |name: String, columns| Tensor {
        name,
        format: Format::F32,
        columns,
        rows: 1,
        deviation: 0.0,
        zero_from: None,
    };
    let matrix = |name: String, columns: usize, rows, more_bits, gain: f32| Tensor {
        name,
        format: weights(more_bits),
        columns,
        rows,
        deviation: gain / (columns as f32).sqrt(),
        zero_from: None,
    };
    let (queries, keys) = (shape.heads * shape.head, shape.kv_heads * shape.head);
    // Well above the embedding: with tied weights every token would otherwise be the likeliest successor of itself.
    let residual = 4.0 / (2.0 * shape.layers as f32).sqrt();

    let mut tensors = vec![
        Tensor {
            zero_from: Some(first_special(shape)),
            ..matrix(
                "token_embd.weight".into(),
                shape.width,
                shape.vocabulary,
                true,
                1.0,
            )
        },
        norm("output_norm.weight".into(), shape.width),
    ];
    for layer in 0..shape.layers {
        // Where llama.cpp's quantiser spends 6 bits: the first and the last eighth, and every third between.
        let eighth = shape.layers / 8;
        let more = layer < eighth || layer >= 7 * shape.layers / 8 || (layer - eighth) % 3 == 2;
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        tensors.extend([
            norm(name("attn_norm"), shape.width),
            matrix(name("attn_q"), shape.width, queries, false, 1.0),
            matrix(name("attn_k"), shape.width, keys, false, 1.0),
            matrix(name("attn_v"), shape.width, keys, more, 1.0),
            norm(name("attn_q_norm"), shape.head),
            norm(name("attn_k_norm"), shape.head),
            matrix(name("attn_output"), queries, shape.width, false, residual),
            norm(name("ffn_norm"), shape.width),
            matrix(
                name("ffn_gate"),
                shape.width,
                shape.feed_forward,
                false,
                1.0,
            ),
            matrix(name("ffn_up"), shape.width, shape.feed_forward, false, 1.0),
            matrix(
                name("ffn_down"),
                shape.feed_forward,
                shape.width,
                more,
                residual,
            ),
        ]);
    }
    tensors
}

/// Everything before the tensor data, without the padding.
fn header(shape: &Shape, quantisation: Quantisation, tensors: &[Tensor]) -> Vec<u8> {
    let vocabulary = Vocabulary::new(shape);
    let special = |index: usize| Value::U32((first_special(shape) + index) as u32);
    let length = |value: usize| Value::U32(value as u32);
    let (model, pre) = match shape.tokenizer {
        Tokenizer::Bpe(pre) => ("gpt2", pre),
        Tokenizer::SentencePiece => ("llama", "default"),
    };
    let metadata: Vec<(&str, Value)> = vec![
        ("general.architecture", Value::Text("qwen3")),
        ("general.name", Value::Text(shape.name)),
        (
            "general.description",
            Value::Text("random weights, for tests and benchmarks"),
        ),
        ("general.file_type", Value::U32(quantisation.file_type())),
        ("general.quantization_version", Value::U32(2)),
        ("qwen3.context_length", Value::U32(CONTEXT)),
        ("qwen3.block_count", length(shape.layers)),
        ("qwen3.embedding_length", length(shape.width)),
        ("qwen3.feed_forward_length", length(shape.feed_forward)),
        ("qwen3.attention.head_count", length(shape.heads)),
        ("qwen3.attention.head_count_kv", length(shape.kv_heads)),
        ("qwen3.attention.key_length", length(shape.head)),
        ("qwen3.attention.value_length", length(shape.head)),
        ("qwen3.attention.layer_norm_rms_epsilon", Value::F32(1e-6)),
        ("qwen3.rope.freq_base", Value::F32(1e6)),
        ("tokenizer.ggml.model", Value::Text(model)),
        ("tokenizer.ggml.pre", Value::Text(pre)),
        ("tokenizer.ggml.tokens", Value::Texts(&vocabulary.tokens)),
        ("tokenizer.ggml.token_type", Value::I32s(&vocabulary.types)),
        ("tokenizer.ggml.merges", Value::Texts(&vocabulary.merges)),
        ("tokenizer.ggml.scores", Value::F32s(&vocabulary.scores)),
        ("tokenizer.ggml.bos_token_id", special(0)),
        ("tokenizer.ggml.padding_token_id", special(0)),
        ("tokenizer.ggml.eos_token_id", special(2)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ("tokenizer.chat_template", Value::Text(shape.template)),
    ];
    let pooling = shape.pooling.map(Value::U32);
    let pooling = pooling.map(|kind| ("qwen3.pooling_type", kind));
    let metadata: Vec<_> = metadata.into_iter().chain(pooling).collect();
    let tensors = tensors.iter().map(|tensor| Entry {
        name: &tensor.name,
        columns: tensor.columns,
        rows: tensor.rows,
        format: tensor.format,
        bytes: tensor.bytes(),
    });
    head(&metadata, tensors)
}

/// A tensor as the header lists it.
pub(crate) struct Entry<'a> {
    pub name: &'a str,
    pub columns: usize,
    pub rows: usize,
    pub format: Format,
    pub bytes: u64,
}

/// Magic, metadata and list of tensors.
pub(crate) fn head<'a>(
    metadata: &[(&str, Value)],
    tensors: impl ExactSizeIterator<Item = Entry<'a>>,
) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        text(&mut out, key);
        value.write(&mut out);
    }
    let mut offset = 0;
    for tensor in tensors {
        text(&mut out, tensor.name);
        let dimensions = if tensor.rows == 1 {
            vec![tensor.columns]
        } else {
            vec![tensor.columns, tensor.rows]
        };
        out.extend((dimensions.len() as u32).to_le_bytes());
        dimensions
            .iter()
            .for_each(|&length| out.extend((length as u64).to_le_bytes()));
        out.extend(tensor.format.id().to_le_bytes());
        out.extend(u64::to_le_bytes(offset));
        offset += tensor.bytes.next_multiple_of(ALIGNMENT);
    }
    out
}

/// A metadata value.
pub(crate) enum Value<'a> {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(&'a str),
    Texts(&'a [String]),
    I32s(&'a [i32]),
    F32s(&'a [f32]),
}

impl Value<'_> {
    /// Type number, then the value, as the format wants it.
    fn write(&self, out: &mut Vec<u8>) {
        const ARRAY: u32 = 9;
        const TEXT: u32 = 8;
        let array = |kind: u32, length: usize, out: &mut Vec<u8>| {
            out.extend(ARRAY.to_le_bytes());
            out.extend(kind.to_le_bytes());
            out.extend((length as u64).to_le_bytes());
        };
        match self {
            Self::U32(value) => {
                out.extend(4u32.to_le_bytes());
                out.extend(value.to_le_bytes());
            }
            Self::F32(value) => {
                out.extend(6u32.to_le_bytes());
                out.extend(value.to_le_bytes());
            }
            Self::Bool(value) => {
                out.extend(7u32.to_le_bytes());
                out.push(u8::from(*value));
            }
            Self::Text(value) => {
                out.extend(TEXT.to_le_bytes());
                text(out, value);
            }
            Self::Texts(values) => {
                array(TEXT, values.len(), out);
                values.iter().for_each(|value| text(out, value));
            }
            Self::F32s(values) => {
                array(6, values.len(), out);
                values
                    .iter()
                    .for_each(|value| out.extend(value.to_le_bytes()));
            }
            Self::I32s(values) => {
                array(5, values.len(), out);
                values
                    .iter()
                    .for_each(|value| out.extend(value.to_le_bytes()));
            }
        }
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Index of the first special token; the others follow, then what fills the vocabulary up.
fn first_special(shape: &Shape) -> usize {
    shape.vocabulary - SPECIALS.len()
}

/// Every byte, then made-up words from merges of at most four letters.
struct Vocabulary {
    tokens: Vec<String>,
    types: Vec<i32>,
    merges: Vec<String>,
    /// How much SentencePiece likes each token.
    scores: Vec<f32>,
}

impl Vocabulary {
    fn new(shape: &Shape) -> Self {
        const NORMAL: i32 = 1;
        const CONTROL: i32 = 3;
        const BYTE: i32 = 6;
        let words = first_special(shape);
        let mut vocabulary = Self {
            tokens: byte_characters(),
            types: vec![NORMAL; words],
            merges: Vec::new(),
            scores: Vec::new(),
        };
        vocabulary.merge_until(words);
        if shape.tokenizer == Tokenizer::SentencePiece {
            let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
            // SentencePiece's letters are tokens of their own, so the merged words give way to them.
            let letters = (' '..='~').map(|letter| letter.to_string().replace(' ', "▁"));
            let merged = vocabulary.tokens.split_off(256);
            let merged = merged.into_iter().map(|word| word.replace('Ġ', "▁"));
            vocabulary.tokens = bytes.chain(letters).chain(merged).take(words).collect();
            vocabulary.types[..256].fill(BYTE);
            vocabulary.merges.clear();
        }
        // Earlier merges come first.
        vocabulary.scores = (0..shape.vocabulary).map(|at| -(at as f32)).collect();
        vocabulary.tokens.extend(SPECIALS.map(String::from));
        vocabulary.types.extend([CONTROL; SPECIALS.len()]);
        vocabulary
    }

    /// Merges in the order that BPE applies them: a part always comes before the whole.
    fn merge_until(&mut self, words: usize) {
        const SPACE: &str = "Ġ";
        let letters: Vec<String> = ('a'..='z').map(String::from).collect();
        let signs: Vec<String> = "\"{}[]:,.!?()-_/".chars().map(String::from).collect();
        let product = |left: &[String], right: &[String]| -> Vec<(String, String)> {
            left.iter()
                .flat_map(|a| right.iter().map(move |b| (a.clone(), b.clone())))
                .collect()
        };
        let joined = |pairs: &[(String, String)]| -> Vec<String> {
            pairs
                .iter()
                .map(|(left, right)| format!("{left}{right}"))
                .collect()
        };
        let space = [SPACE.to_owned()];
        let pairs = product(&letters, &letters);
        let twos = joined(&pairs);
        let triples = product(&twos, &letters);
        let threes = joined(&triples);
        // Spread over the alphabet, so that a prefix of the list is not all words with `a`.
        let fours = {
            let all = product(&twos, &twos);
            let step = 7919;
            (0..all.len())
                .map(move |index| all[index * step % all.len()].clone())
                .collect::<Vec<_>>()
        };
        // A word's letters join before its space does, so that most short words are one token with their space.
        let groups = [
            pairs,
            product(&signs, &signs),
            product(&space, &twos),
            triples,
            product(&space, &threes),
            product(&space, &letters),
            fours,
        ];
        for (left, right) in groups.into_iter().flatten().take(words - self.tokens.len()) {
            self.tokens.push(format!("{left}{right}"));
            self.merges.push(format!("{left} {right}"));
        }
        assert_eq!(
            self.tokens.len(),
            words,
            "the vocabulary is larger than there are made-up words"
        );
    }
}

/// The printable character that stands for each byte in GPT-2's scheme, in the order of the bytes.
fn byte_characters() -> Vec<String> {
    let mut next = 256;
    let character = |byte: u32| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => byte,
        _ => {
            next += 1;
            next - 1
        }
    };
    (0..256)
        .map(character)
        .filter_map(char::from_u32)
        .map(String::from)
        .collect()
}

/// SplitMix64: small, fast, and every seed is a good one.
pub(crate) struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// From -1 to 1.
    pub fn symmetric(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// From 0.8 to 1.2.
    fn near_one(&mut self) -> f32 {
        1.0 + 0.2 * self.symmetric()
    }

    /// Appends `count` random bytes, a multiple of eight.
    fn append(&mut self, row: &mut Vec<u8>, count: usize) {
        for _ in 0..count / 8 {
            row.extend(self.next().to_le_bytes());
        }
    }
}

/// Bits of the 16-bit float nearest to `value`; only for magnitudes below 65,504.
fn f16(value: f32) -> u16 {
    let sign = if value < 0.0 { 0x8000 } else { 0 };
    let magnitude = value.abs();
    // Below 2⁻¹⁴ a 16-bit float counts in steps of 2⁻²⁴.
    if magnitude < 6.103_515_6e-5 {
        return sign | (magnitude * 16_777_216.0).round() as u16;
    }
    // Rebias the exponent from 127 to 15 and round 13 bits away; a carry into the exponent is right.
    let bits = magnitude.to_bits();
    sign | ((bits - (112 << 23) + 0xfff + (bits >> 13 & 1)) >> 13) as u16
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_file_and_another_seed_another() {
        let folder = std::env::temp_dir().join(format!("hearth-gguf-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, seed| {
            let path = folder.join(name);
            write(&path, &Shape::TINY, Quantisation::Q4KM, seed).unwrap();
            std::fs::read(path).unwrap()
        };
        let (first, second, other) = (file("a.gguf", 1), file("b.gguf", 1), file("c.gguf", 2));
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(first, second);
        assert_eq!(first.len(), other.len());
        assert_ne!(first, other);
    }

    #[test]
    fn half_floats_are_the_nearest() {
        for (value, bits) in [
            (1.0, 0x3c00),
            (-2.0, 0xc000),
            (0.5, 0x3800),
            (0.1, 0x2e66),
            (1e-5, 0x00a8),
            (0.0, 0),
            (65_504.0, 0x7bff),
        ] {
            assert_eq!(f16(value), bits, "{value}");
        }
    }

    #[test]
    fn scales_are_packed_as_ggml_unpacks_them() {
        let scales = [40, 41, 42, 43, 44, 50, 54, 55];
        let packed = pack_scales(scales);
        // `get_scale_min_k4` of ggml-quants.c.
        let unpack = |j: usize| match j < 4 {
            true => (packed[j] & 63, packed[j + 4] & 63),
            false => (
                (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4,
                (packed[j + 4] >> 4) | (packed[j] >> 6) << 4,
            ),
        };
        for (j, scale) in scales.into_iter().enumerate() {
            assert_eq!(unpack(j), (scale, scale), "block {j}");
        }
    }

    #[test]
    fn every_token_of_a_full_vocabulary_is_another() {
        let vocabulary = Vocabulary::new(&Shape::QWEN3_0_6B);
        let mut tokens = vocabulary.tokens.clone();
        tokens.sort();
        tokens.dedup();
        assert_eq!(tokens.len(), Shape::QWEN3_0_6B.vocabulary);
        assert_eq!(vocabulary.types.len(), Shape::QWEN3_0_6B.vocabulary);
    }
}
