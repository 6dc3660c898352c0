//! Writes a tiny sentence encoder with random weights, in the layout of sentence-transformers.
//!
//! Its tokenizer knows a few words and every small letter, so that any text of them becomes tokens.

use std::fs;
use std::io;
use std::path::Path;

/// What opens such a folder, for the tests of rooms that know no encoder.
pub use hearth_encoder::Encoder;
use serde_json::{Map, Value, json};

use crate::gguf::Random;

/// Values of a vector.
pub const WIDTH: usize = 32;
/// Longest text in tokens, the two that stand around it included.
pub const CONTEXT: usize = 32;

const INNER: usize = 64;
const POSITIONS: usize = 64;
const WORDS: [&str; 14] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hearth", "warm", "fire", "cold", "snow",
    "water", "home", "a", "the",
];

fn vocabulary() -> Vec<String> {
    let letters = ('a'..='z').filter(|letter| *letter != 'a');
    let rests = ('a'..='z').map(|letter| format!("##{letter}"));
    let words = WORDS.map(String::from).into_iter();
    words
        .chain(letters.map(String::from))
        .chain(rests)
        .collect()
}

/// The files of an encoder whose weights follow from the seed: path in its folder, and bytes.
pub fn files(seed: u64) -> Vec<(&'static str, Vec<u8>)> {
    let text = |value: Value| value.to_string().into_bytes();
    vec![
        (
            "config.json",
            text(json!({
                "model_type": "bert", "hidden_act": "gelu", "hidden_size": WIDTH, "num_hidden_layers": 1,
                "num_attention_heads": 2, "intermediate_size": INNER, "max_position_embeddings": POSITIONS,
                "type_vocab_size": 2, "vocab_size": vocabulary().len(), "layer_norm_eps": 1e-12,
            })),
        ),
        ("tokenizer.json", text(tokenizer())),
        (
            "1_Pooling/config.json",
            text(json!({"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true})),
        ),
        (
            "sentence_bert_config.json",
            text(json!({"max_seq_length": CONTEXT})),
        ),
        ("model.safetensors", weights(seed)),
    ]
}

/// Writes such an encoder to a folder, which is created.
///
/// # Errors
/// If the disk fails.
pub fn write(folder: &Path, seed: u64) -> io::Result<()> {
    for (path, bytes) in files(seed) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, bytes)?;
    }
    Ok(())
}

/// The tensors as the format safetensors has them: the length of a JSON header, the header, and the numbers.
fn weights(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let (mut header, mut data) = (Map::new(), Vec::new());
    let mut add = |name: String, shape: &[usize], middle: f32, spread: f32| {
        let begin = data.len();
        for _ in 0..shape.iter().product() {
            data.extend((middle + 1.7 * spread * random.symmetric()).to_le_bytes());
        }
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name, entry);
    };
    for (name, rows) in [
        ("word", vocabulary().len()),
        ("position", POSITIONS),
        ("token_type", 2),
    ] {
        let name = format!("embeddings.{name}_embeddings.weight");
        add(name, &[rows, WIDTH], 0.0, 0.4);
    }
    add("embeddings.LayerNorm.weight".into(), &[WIDTH], 1.0, 0.1);
    add("embeddings.LayerNorm.bias".into(), &[WIDTH], 0.0, 0.1);
    let layer = "encoder.layer.0";
    for (name, columns, depth) in [
        ("attention.self.query", WIDTH, WIDTH),
        ("attention.self.key", WIDTH, WIDTH),
        ("attention.self.value", WIDTH, WIDTH),
        ("attention.output.dense", WIDTH, WIDTH),
        ("intermediate.dense", INNER, WIDTH),
        ("output.dense", WIDTH, INNER),
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
        add(format!("{layer}.{name}.weight"), &[WIDTH], 1.0, 0.1);
        add(format!("{layer}.{name}.bias"), &[WIDTH], 0.0, 0.1);
    }
    let mut header = Value::Object(header).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.into_bytes());
    bytes.extend(data);
    bytes
}

fn tokenizer() -> Value {
    let vocabulary = vocabulary();
    let words = vocabulary.iter().enumerate();
    let words: Map<String, Value> = words
        .map(|(number, word)| (word.clone(), json!(number)))
        .collect();
    let special = |word: &str| json!({"id": word, "ids": [words[word]], "tokens": [word]});
    let added: Vec<Value> = WORDS[..5]
        .iter()
        .map(|word| json!({
            "id": words[*word], "content": word, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false,
        }))
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
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
            "special_tokens": {"[CLS]": special("[CLS]"), "[SEP]": special("[SEP]")},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": words,
        },
    })
}
