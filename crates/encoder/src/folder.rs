//! What the configuration files of a model's folder say, checked.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::Error;

/// How the vectors of a text's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The vector of the first token.
    Cls,
}

/// What is put before a text, by its role. Some models are trained with it (e5: `query: ` and `passage: `).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompts {
    /// Before a text that asks.
    pub query: String,
    /// Before a text that is stored and found.
    pub passage: String,
}

/// The shape of a model and the rest of its configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) inner: usize,
    pub(crate) positions: usize,
    pub(crate) types: usize,
    pub(crate) vocabulary: usize,
    pub(crate) epsilon: f32,
    pub(crate) pooling: Pooling,
    /// Longest text in tokens, those the tokenizer adds included.
    pub(crate) max_tokens: usize,
    /// Whether texts are put into lower case before the tokenizer sees them.
    pub(crate) lower_case: bool,
    pub(crate) prompts: Prompts,
}

#[derive(Deserialize)]
struct Pooled {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize, Default)]
struct SentenceBert {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

#[derive(Deserialize, Default)]
struct SentenceTransformers {
    prompts: Option<Map<String, Value>>,
}

const POOLING: &str = "1_Pooling";
/// Largest configuration file that is read.
const LONGEST: u64 = 1 << 20;

impl Config {
    /// Reads and checks all configuration files of a folder.
    pub(crate) fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("config.json");
        let fields: Map<String, Value> = required(&path)?;
        let fields = Fields {
            path: &path,
            fields: &fields,
        };
        fields.text("model_type", &["bert"])?;
        fields.text("hidden_act", &["gelu"])?;
        fields.text("position_embedding_type", &["absolute"])?;
        let hidden = fields.count("hidden_size", 16..=4096)?;
        let heads = fields.count("num_attention_heads", 1..=256)?;
        let inner = fields.count("intermediate_size", 16..=16_384)?;
        for (field, value) in [("hidden_size", hidden), ("intermediate_size", inner)] {
            if value % 16 != 0 {
                let problem = format!("is {value}; only multiples of 16 are supported");
                return Err(Error::field(&path, field, problem));
            }
        }
        let head = hidden / heads;
        if hidden % heads != 0 || ![16, 32, 64].contains(&head) {
            let problem = format!(
                "is {heads}: of {hidden} dimensions that leaves {:.1} for each head; 16, 32 and 64 are supported",
                hidden as f64 / heads as f64
            );
            return Err(Error::field(&path, "num_attention_heads", problem));
        }
        let positions = fields.count("max_position_embeddings", 3..=16_384)?;
        let epsilon = fields.number("layer_norm_eps", 1e-12)?;
        if !(0.0..=0.1).contains(&epsilon) {
            let problem = format!("is {epsilon}; it must lie between 0 and 0.1");
            return Err(Error::field(&path, "layer_norm_eps", problem));
        }
        let pooling = modules(folder)?;
        let path = folder.join("sentence_bert_config.json");
        let sentence: SentenceBert = optional(&path)?.unwrap_or_default();
        let max_tokens = sentence.max_seq_length.unwrap_or(positions).min(positions);
        if max_tokens < 3 {
            let problem = format!("is {max_tokens}; it must be at least 3");
            return Err(Error::field(&path, "max_seq_length", problem));
        }
        Ok(Self {
            hidden,
            layers: fields.count("num_hidden_layers", 1..=128)?,
            heads,
            inner,
            positions,
            types: fields.count("type_vocab_size", 1..=16)?,
            vocabulary: fields.count("vocab_size", 1..=4_000_000)?,
            epsilon: epsilon as f32,
            pooling,
            max_tokens,
            lower_case: sentence.do_lower_case,
            prompts: prompts(&folder.join("config_sentence_transformers.json"))?,
        })
    }
}

/// The steps after the transformer: pooling, which is returned, and normalising, which is always done.
fn modules(folder: &Path) -> Result<Pooling, Error> {
    let path = folder.join("modules.json");
    for (at, module) in optional::<Vec<Module>>(&path)?
        .unwrap_or_default()
        .into_iter()
        .enumerate()
    {
        let place = match module.kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => Some(""),
            "Pooling" => Some(POOLING),
            "Normalize" => None,
            other => {
                let problem =
                    format!("is `{other}`; only Transformer, Pooling and Normalize are supported");
                return Err(Error::field(&path, &format!("[{at}].type"), problem));
            }
        };
        if place.is_some_and(|place| place != module.path) {
            let problem = format!(
                "is {:?}; expected {:?}",
                module.path,
                place.unwrap_or_default()
            );
            return Err(Error::field(&path, &format!("[{at}].path"), problem));
        }
    }
    let path = folder.join(POOLING).join("config.json");
    let Some(pooled) = optional::<Pooled>(&path)? else {
        return Ok(Pooling::Mean);
    };
    let other = pooled
        .others
        .iter()
        .find(|(name, value)| name.starts_with("pooling_mode_") && value.as_bool() == Some(true));
    if let Some((name, _)) = other {
        let problem = "is true; only the mean and the first token are supported";
        return Err(Error::field(&path, name, problem));
    }
    match (
        pooled.pooling_mode_mean_tokens,
        pooled.pooling_mode_cls_token,
    ) {
        (true, false) => Ok(Pooling::Mean),
        (false, true) => Ok(Pooling::Cls),
        (mean, _) => {
            let problem =
                format!("and `pooling_mode_mean_tokens` are both {mean}; one of them must be true");
            Err(Error::field(&path, "pooling_mode_cls_token", problem))
        }
    }
}

/// Longest prompt in bytes.
const LONGEST_PROMPT: usize = 4096;

fn prompts(path: &Path) -> Result<Prompts, Error> {
    let file: SentenceTransformers = optional(path)?.unwrap_or_default();
    let prompts = file.prompts.unwrap_or_default();
    let prompt = |names: [&str; 2]| {
        let Some((name, value)) = names
            .into_iter()
            .find_map(|name| Some((name, prompts.get(name)?)))
        else {
            return Ok(String::new());
        };
        match value.as_str() {
            Some(text) if text.len() <= LONGEST_PROMPT => Ok(text.to_owned()),
            _ => {
                let problem = format!("must be a text of at most {LONGEST_PROMPT} bytes");
                Err(Error::field(path, &format!("prompts.{name}"), problem))
            }
        }
    };
    Ok(Prompts {
        query: prompt(["query", "query"])?,
        passage: prompt(["passage", "document"])?,
    })
}

struct Fields<'a> {
    path: &'a PathBuf,
    fields: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn count(&self, field: &str, range: std::ops::RangeInclusive<usize>) -> Result<usize, Error> {
        let (least, most) = (*range.start(), *range.end());
        let value = self.fields.get(field).and_then(Value::as_u64);
        match value.and_then(|value| usize::try_from(value).ok()) {
            Some(value) if range.contains(&value) => Ok(value),
            _ => {
                let found = self.found(field);
                let problem =
                    format!("is {found}; it must be a whole number from {least} to {most}");
                Err(Error::field(self.path, field, problem))
            }
        }
    }

    fn number(&self, field: &str, default: f64) -> Result<f64, Error> {
        match self.fields.get(field) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| {
                let problem = format!("is {}; it must be a number", self.found(field));
                Error::field(self.path, field, problem)
            }),
        }
    }

    /// A text that may be absent, and otherwise is one of those known.
    fn text(&self, field: &str, known: &[&str]) -> Result<(), Error> {
        match self.fields.get(field) {
            None => Ok(()),
            Some(Value::String(text)) if known.contains(&text.as_str()) => Ok(()),
            Some(_) => {
                let known = known.join(", ");
                let problem = format!("is {}; supported: {known}", self.found(field));
                Err(Error::field(self.path, field, problem))
            }
        }
    }

    fn found(&self, field: &str) -> String {
        match self.fields.get(field) {
            None => "missing".to_owned(),
            Some(value) => value.to_string().chars().take(60).collect(),
        }
    }
}

/// Reads a file of at most `longest` bytes; `None` if there is none.
pub(crate) fn read(path: &Path, longest: u64) -> Result<Option<Vec<u8>>, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let length = match fs::metadata(path) {
        Ok(file) if !file.is_file() => return Err(Error::file(path, "is not a file")),
        Ok(file) => file.len(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    if length > longest {
        let problem = format!("is {length} bytes long; at most {longest} are read");
        return Err(Error::file(path, problem));
    }
    fs::read(path).map(Some).map_err(failed)
}

fn optional<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>, Error> {
    let Some(bytes) = read(path, LONGEST)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::file(path, format!("is not as expected: {error}")))
}

fn required<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, Error> {
    optional(path)?.ok_or_else(|| missing(path))
}

/// The error of a file that must be there.
pub(crate) fn missing(path: &Path) -> Error {
    Error::Read {
        path: path.to_owned(),
        source: ErrorKind::NotFound.into(),
    }
}
