//! What a model's files say about themselves, read and checked before llama.cpp sees them.
//!
//! llama.cpp ends the process on many a wrong value, so nothing is given to it that `hearth-gguf` refuses: no model, no
//! part of one, no adapter.

use std::path::Path;

use crate::Sampling;
use crate::llama::Pooling;
use crate::options::KvType;

/// What the engine needs to know of a model to plan for it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Header {
    /// `general.architecture`.
    pub architecture: String,
    /// Transformer blocks.
    pub layers: u32,
    /// Longest sequence the model was trained for, in tokens.
    pub context: u32,
    /// Elements of keys plus values per token over all layers.
    pub kv_elements: u64,
    /// Size of all files of the model in bytes.
    pub bytes: u64,
    /// What the file recommends for requests that do not say (`general.sampling.*`).
    pub sampling: Sampling,
    /// How it makes one vector of a text, if it is an embedding model.
    pub pooling: Option<Pooling>,
    /// Whether a token sees only those before it.
    pub causal: bool,
    /// Whether it is an encoder alone, which keeps no KV.
    pub encoder: bool,
    /// Tokens of the vocabulary.
    pub vocabulary: u32,
}

impl Header {
    /// Reads and checks the headers of a model's files; the error names the field and what to do.
    pub fn read(path: &Path) -> Result<Self, String> {
        let model = hearth_gguf::Model::open(path).map_err(|error| error.to_string())?;
        let file = model.first();
        let number = |number: Option<u64>| u32::try_from(number?).ok();
        let share = |name: &str| {
            let value = file.real(&format!("general.sampling.{name}"))?;
            Some(value as f32)
        };
        let count = |name: &str| number(file.number(&format!("general.sampling.{name}")));
        let recommended = Sampling {
            temperature: share("temp"),
            top_k: count("top_k"),
            top_p: share("top_p"),
            min_p: share("min_p"),
            repeat_penalty: share("penalty_repeat"),
            penalty_window: count("penalty_last_n"),
            ..Sampling::default()
        };
        // A file may say anything; what no request may say is not taken from it either.
        let sampling = match recommended.validate(usize::MAX) {
            Ok(()) => recommended,
            Err(_) => Sampling::default(),
        };
        let architecture = file.architecture().unwrap_or_default().to_owned();
        // bert, nomic-bert, jina-bert-v2, modern-bert, eurobert, …
        let encoder = architecture.contains("bert") || architecture == "gemma-embedding";
        let causal = file.flag(&file.own_key("attention.causal"));
        Ok(Self {
            layers: number(file.block_count()).unwrap_or(0),
            context: number(file.context_length()).unwrap_or(4096),
            kv_elements: file.kv_elements(),
            bytes: model.size(),
            sampling,
            pooling: Pooling::of(number(file.own_number("pooling_type")), encoder),
            causal: causal.unwrap_or(!encoder),
            encoder,
            vocabulary: number(file.vocabulary_size()).unwrap_or(0),
            architecture,
        })
    }

    /// Bytes of KV cache per token for these cache types.
    pub fn kv_bytes_per_token(&self, kv: KvType) -> u64 {
        // Bits per element: f16 16, q8_0 8.5, q4_0 4.5; halves counted separately.
        let twice_bits = match kv {
            KvType::F16 => 32,
            KvType::Q8_0 => 17,
            KvType::Q8_0Q4_0 | KvType::Q4_0Q8_0 => 13,
        };
        self.kv_elements.saturating_mul(twice_bits) / 16
    }
}

/// Checks an adapter file, and that it was made for this model; the error names the field and what to do.
pub(crate) fn check_adapter(model: &Path, adapter: &Path) -> Result<(), String> {
    let check = || {
        let adapter = hearth_gguf::File::open(adapter)?;
        hearth_gguf::Model::open(model)?.check_adapter(&adapter)
    };
    check().map_err(|error: hearth_gguf::Error| error.to_string())
}
