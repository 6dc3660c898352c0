//! Tiny BERTs with random weights, written to a folder as sentence-transformers does.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};

/// The shape of a model.
#[derive(Clone, Copy)]
pub struct Tiny {
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub inner: usize,
    pub positions: usize,
    pub cls: bool,
    pub dtype: Dtype,
    pub seed: u64,
}

pub const TINY: Tiny = Tiny {
    hidden: 64,
    layers: 2,
    heads: 4,
    inner: 128,
    positions: 40,
    cls: false,
    dtype: Dtype::F32,
    seed: 1,
};

/// The vocabulary: what BERT needs, words, and parts of words down to letters.
pub fn vocabulary() -> Vec<String> {
    let mut tokens: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .map(String::from)
        .into();
    for word in [
        "the", "river", "garden", "is", "open", "a", "letter", "über", "zwei", "naïve", "日", "本",
        ".", ",", "!", "?",
    ] {
        tokens.push(word.to_owned());
    }
    for letter in 'a'..='z' {
        tokens.push(format!("{letter}"));
        tokens.push(format!("##{letter}"));
    }
    tokens.push("uber".to_owned());
    tokens.dedup();
    let mut seen = std::collections::HashSet::new();
    tokens.retain(|token| seen.insert(token.clone()));
    tokens
}

/// The tensors of a model, by name: shape and numbers.
pub fn tensors(tiny: &Tiny) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let mut random = Random(tiny.seed);
    let mut tensors = BTreeMap::new();
    let mut add = |name: String, shape: &[usize], middle: f32, spread: f32| {
        let count = shape.iter().product();
        let values = (0..count)
            .map(|_| middle + spread * random.normal())
            .collect();
        tensors.insert(name, (shape.to_vec(), values));
    };
    let (hidden, inner) = (tiny.hidden, tiny.inner);
    for (name, rows) in [
        ("word", vocabulary().len()),
        ("position", tiny.positions),
        ("token_type", 2),
    ] {
        add(
            format!("embeddings.{name}_embeddings.weight"),
            &[rows, hidden],
            0.0,
            0.4,
        );
    }
    add(
        "embeddings.LayerNorm.weight".to_owned(),
        &[hidden],
        1.0,
        0.1,
    );
    add("embeddings.LayerNorm.bias".to_owned(), &[hidden], 0.0, 0.1);
    for layer in 0..tiny.layers {
        let layer = format!("encoder.layer.{layer}");
        for (name, columns, depth) in [
            ("attention.self.query", hidden, hidden),
            ("attention.self.key", hidden, hidden),
            ("attention.self.value", hidden, hidden),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", inner, hidden),
            ("output.dense", hidden, inner),
        ] {
            let spread = 1.0 / (depth as f32).sqrt();
            add(
                format!("{layer}.{name}.weight"),
                &[columns, depth],
                0.0,
                spread,
            );
            add(format!("{layer}.{name}.bias"), &[columns], 0.0, 0.1);
        }
        for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
            add(format!("{layer}.{name}.weight"), &[hidden], 1.0, 0.1);
            add(format!("{layer}.{name}.bias"), &[hidden], 0.0, 0.1);
        }
    }
    tensors
}

/// Writes tensors as `model.safetensors`.
pub fn write_tensors(
    folder: &Path,
    dtype: Dtype,
    tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
) {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            let bytes = values.iter().flat_map(|value| match dtype {
                Dtype::F16 => half::f16::from_f32(*value).to_le_bytes().to_vec(),
                Dtype::BF16 => half::bf16::from_f32(*value).to_le_bytes().to_vec(),
                _ => value.to_le_bytes().to_vec(),
            });
            (name.clone(), shape.clone(), bytes.collect())
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    let file = safetensors::serialize(views, None).unwrap();
    fs::write(folder.join("model.safetensors"), file).unwrap();
}

/// The fields of `config.json`.
pub fn config(tiny: &Tiny) -> Value {
    json!({
        "model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute",
        "hidden_size": tiny.hidden, "num_hidden_layers": tiny.layers, "num_attention_heads": tiny.heads,
        "intermediate_size": tiny.inner, "max_position_embeddings": tiny.positions, "type_vocab_size": 2,
        "vocab_size": vocabulary().len(), "layer_norm_eps": 1e-12,
    })
}

/// The fields of `tokenizer.json`, with padding and truncation that must be ignored.
pub fn tokenizer() -> Value {
    let vocabulary = vocabulary();
    let words: Map<String, Value> = vocabulary
        .iter()
        .enumerate()
        .map(|(number, word)| (word.clone(), json!(number)))
        .collect();
    let added: Vec<Value> = vocabulary[..5]
        .iter()
        .enumerate()
        .map(|(number, word)| json!({
            "id": number, "content": word, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false,
        }))
        .collect();
    json!({
        "version": "1.0",
        "truncation": {"max_length": 7, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {
            "strategy": {"Fixed": 12}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
            ],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]},
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": words,
        },
    })
}

/// Writes a JSON file.
pub fn write(folder: &Path, name: &str, value: &Value) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, value.to_string()).unwrap();
}

impl Tiny {
    /// Writes the model to a new folder.
    pub fn folder(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        write(path, "config.json", &config(self));
        write(path, "tokenizer.json", &tokenizer());
        if self.cls {
            let pooling =
                json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false});
            write(path, "1_Pooling/config.json", &pooling);
        }
        write_tensors(path, self.dtype, &tensors(self));
        folder
    }
}

/// Numbers that look random; the same ones every time.
pub struct Random(pub u64);

impl Random {
    pub fn number(&mut self) -> u64 {
        // Steele, Lea and Flood: splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// About the normal distribution: the sum of twelve even ones.
    pub fn normal(&mut self) -> f32 {
        (0..12)
            .map(|_| (self.number() >> 40) as f32 / (1u64 << 24) as f32)
            .sum::<f32>()
            - 6.0
    }
}
