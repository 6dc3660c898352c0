//! One GGUF file: its metadata by meaning.

use std::io::{Cursor, Read, Seek};
use std::path::Path;

use crate::check;
use crate::error::{Error, Problem};
use crate::read::{Entry, Header};
use crate::tensor::{Tensor, TensorType};
use crate::value::{Array, Value, ValueType};

/// A checked GGUF file. Holds the bytes of its header and nothing of its weights.
#[derive(Debug, Clone)]
pub struct File {
    header: Header,
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A model, or the first part of one.
    Model,
    /// A later part of a split model: tensors alone.
    Part,
    /// A LoRA adapter for a model.
    Adapter,
    /// An image or audio encoder that belongs beside a model (`mmproj`).
    Projector,
    /// A vocabulary without weights.
    Vocabulary,
    /// Something else in the same format: an importance matrix, a control vector, …
    Other,
}

impl Kind {
    /// Its name with an article, for messages.
    pub fn described(self) -> &'static str {
        match self {
            Self::Model => "a model",
            Self::Part => "a later part of a split model",
            Self::Adapter => "a LoRA adapter",
            Self::Projector => "an image or audio encoder",
            Self::Vocabulary => "a vocabulary without weights",
            Self::Other => "neither a model nor an adapter",
        }
    }
}

/// How a model turns the vectors of a text's tokens into one (`pooling_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Not at all: one vector per token.
    None,
    /// Their mean.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    Last,
    /// A score, for ranking pairs of texts.
    Rank,
}

/// A token with a task of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Beginning of sequence.
    Bos,
    /// End of sequence.
    Eos,
    /// End of turn.
    Eot,
    /// End of message.
    Eom,
    /// Unknown text.
    Unknown,
    /// Separates two texts.
    Separator,
    /// Fills up a batch.
    Padding,
    /// Stands for a hidden token.
    Mask,
}

impl Special {
    /// The key of its number.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Bos => "tokenizer.ggml.bos_token_id",
            Self::Eos => "tokenizer.ggml.eos_token_id",
            Self::Eot => "tokenizer.ggml.eot_token_id",
            Self::Eom => "tokenizer.ggml.eom_token_id",
            Self::Unknown => "tokenizer.ggml.unknown_token_id",
            // Spelled like this by the format.
            Self::Separator => "tokenizer.ggml.seperator_token_id",
            Self::Padding => "tokenizer.ggml.padding_token_id",
            Self::Mask => "tokenizer.ggml.mask_token_id",
        }
    }
}

/// A file's place in a split model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// Number of this part, from 0.
    pub no: u64,
    /// Parts of the model.
    pub count: u64,
    /// Tensors of all parts together.
    pub tensors: Option<u64>,
}

/// A number that is one for all layers, or one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PerLayer {
    /// The same for all.
    All(u64),
    /// In the order of the layers.
    Each(Vec<u64>),
}

impl PerLayer {
    /// The number of one layer; `None` beyond the last one listed.
    pub fn of(&self, layer: u64) -> Option<u64> {
        match self {
            Self::All(number) => Some(*number),
            Self::Each(numbers) => numbers.get(usize::try_from(layer).ok()?).copied(),
        }
    }

    /// The largest.
    pub fn most(&self) -> u64 {
        match self {
            Self::All(number) => *number,
            Self::Each(numbers) => numbers.iter().copied().max().unwrap_or(0),
        }
    }
}

impl File {
    /// Opens and checks a file. Reads its header alone.
    ///
    /// # Errors
    /// What is wrong with the file and what to do.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let unreadable =
            |error: std::io::Error| Error::file(Problem::Unreadable(error.to_string())).at(path);
        // Before it is opened: opening a pipe waits for its writer.
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(Error::file(Problem::NotAFile).at(path));
        }
        let file = std::fs::File::open(path).map_err(unreadable)?;
        Self::read(file).map_err(|error| error.at(path))
    }

    /// Reads and checks a file from its start to the end of its header.
    ///
    /// # Errors
    /// As [`File::open`].
    pub fn read<R: Read + Seek>(source: R) -> Result<Self, Error> {
        let file = Self {
            header: Header::read(source)?,
        };
        check::content(&file)?;
        Ok(file)
    }

    /// Checks a file whose bytes are all in memory.
    ///
    /// # Errors
    /// As [`File::open`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Self::read(Cursor::new(bytes))
    }

    /// The file, if it is of this kind.
    ///
    /// # Errors
    /// [`Problem::WrongKind`], or [`Problem::LaterPart`] for a part where a model is wanted.
    pub fn expect(self, wanted: Kind) -> Result<Self, Error> {
        match (self.kind(), wanted) {
            (found, wanted) if found == wanted => Ok(self),
            (Kind::Part, Kind::Model) => {
                let no = self.split().map_or(0, |split| split.no + 1);
                Err(Error::file(Problem::LaterPart { no }))
            }
            (found, wanted) => Err(Error::file(Problem::WrongKind {
                found: found.described(),
                wanted: wanted.described(),
            })),
        }
    }

    /// GGUF version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.header.size
    }

    /// Where the tensors' data begin, in bytes from the file's start.
    pub fn data_offset(&self) -> u64 {
        self.header.data_offset
    }

    /// Every tensor's data start at a multiple of so many bytes.
    pub fn alignment(&self) -> u64 {
        self.header.alignment
    }

    /// What the file is for.
    pub fn kind(&self) -> Kind {
        let kind = self.text("general.type").unwrap_or("model");
        let architecture = self.architecture();
        match (kind, architecture) {
            ("adapter", _) => Kind::Adapter,
            ("mmproj", _) | (_, Some("clip")) => Kind::Projector,
            _ if self.split().is_some_and(|split| split.no > 0) => Kind::Part,
            ("model", Some("controlvector")) | ("imatrix", _) => Kind::Other,
            ("model", Some(_)) if self.tensors().is_empty() && self.split().is_none() => {
                Kind::Vocabulary
            }
            ("model", _) => Kind::Model,
            _ => Kind::Other,
        }
    }

    /// All metadata, in file order.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.header.entries.iter().filter_map(|entry| {
            let key = std::str::from_utf8(&self.header.bytes[entry.key.clone()]).ok()?;
            Some((key, self.value(entry)?))
        })
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.value(self.header.find(key)?)
    }

    fn value(&self, entry: &Entry) -> Option<Value<'_>> {
        let bytes = &self.header.bytes[entry.value.clone()];
        match entry.kind {
            // Where it ends is known; no need to walk through it.
            ValueType::Array => Array::whole(bytes).map(Value::Array),
            kind => Value::take(kind, bytes).map(|(value, _)| value),
        }
    }

    /// The text of a key; `None` if it has none or one that is not UTF-8.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.text()
    }

    /// The integer of a key, of any width; `None` if it has none or a negative one.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.number()
    }

    /// The float of a key, of either width.
    pub fn real(&self, key: &str) -> Option<f64> {
        self.get(key)?.real()
    }

    /// The truth value of a key.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.get(key)?.flag()
    }

    /// The array of a key.
    pub fn array(&self, key: &str) -> Option<Array<'_>> {
        self.get(key)?.array()
    }

    /// The full name of one of the architecture's own keys: `context_length` is `llama.context_length`.
    pub fn own_key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture().unwrap_or_default())
    }

    /// An integer of the architecture's own: `own_number("context_length")`.
    pub fn own_number(&self, name: &str) -> Option<u64> {
        self.number(&self.own_key(name))
    }

    /// An integer of the architecture's own that may be given for each layer.
    pub fn per_layer(&self, name: &str) -> Option<PerLayer> {
        match self.get(&self.own_key(name))? {
            Value::Array(array) => Some(PerLayer::Each(array.numbers().collect())),
            value => value.number().map(PerLayer::All),
        }
    }

    /// `general.architecture`; later parts of a split model have none.
    pub fn architecture(&self) -> Option<&str> {
        self.text("general.architecture")
    }

    /// `general.name`.
    pub fn name(&self) -> Option<&str> {
        self.text("general.name")
    }

    /// What the author says of the model's size (`8x7B`); [`File::parameters`] counts.
    pub fn size_label(&self) -> Option<&str> {
        self.text("general.size_label")
    }

    /// Longest sequence the model was trained for, in tokens.
    pub fn context_length(&self) -> Option<u64> {
        self.own_number("context_length")
    }

    /// Layers.
    pub fn block_count(&self) -> Option<u64> {
        self.own_number("block_count")
    }

    /// Length of a token's vector.
    pub fn embedding_length(&self) -> Option<u64> {
        self.own_number("embedding_length")
    }

    /// Query heads.
    pub fn head_count(&self) -> Option<PerLayer> {
        self.per_layer("attention.head_count")
    }

    /// Key and value heads; as many as query heads where the file does not say.
    pub fn head_count_kv(&self) -> Option<PerLayer> {
        self.per_layer("attention.head_count_kv")
            .or_else(|| self.head_count())
    }

    /// Length of a key of one head.
    pub fn key_length(&self) -> Option<u64> {
        self.own_number("attention.key_length")
            .or_else(|| self.head_length())
    }

    /// Length of a value of one head.
    pub fn value_length(&self) -> Option<u64> {
        self.own_number("attention.value_length")
            .or_else(|| self.head_length())
    }

    /// The embedding's share of one head.
    fn head_length(&self) -> Option<u64> {
        let heads = self.head_count()?.of(0)?;
        self.embedding_length()?.checked_div(heads)
    }

    /// Elements of keys and values that one token adds to the KV cache, over all layers.
    pub fn kv_elements(&self) -> u64 {
        let length = |key: Option<u64>| key.unwrap_or(0);
        let each = length(self.key_length()).saturating_add(length(self.value_length()));
        let heads: u64 = match self.head_count_kv() {
            None => 0,
            Some(PerLayer::All(heads)) => heads.saturating_mul(self.block_count().unwrap_or(0)),
            Some(PerLayer::Each(heads)) => heads.iter().fold(0, |sum, &n| sum.saturating_add(n)),
        };
        heads.saturating_mul(each)
    }

    /// The chat template that applies unless another one is asked for by name.
    pub fn chat_template(&self) -> Option<&str> {
        self.text("tokenizer.chat_template")
    }

    /// The kind of tokenizer (`gpt2`, `llama`, `bert`, …).
    pub fn tokenizer(&self) -> Option<&str> {
        self.text("tokenizer.ggml.model")
    }

    /// Number of tokens.
    pub fn vocabulary_size(&self) -> Option<u64> {
        self.array("tokenizer.ggml.tokens")
            .map(|tokens| tokens.len())
            .or_else(|| self.own_number("vocab_size"))
    }

    /// The tokens in the order of their numbers, as they stand in the file.
    pub fn tokens(&self) -> impl Iterator<Item = &[u8]> {
        let tokens = self.array("tokenizer.ggml.tokens");
        tokens.into_iter().flat_map(|tokens| tokens.texts())
    }

    /// The number of a special token; `None` where the vocabulary has no such token.
    pub fn special(&self, token: Special) -> Option<u64> {
        let size = self.vocabulary_size()?;
        self.number(token.key()).filter(|number| *number < size)
    }

    /// How vectors are pooled, if the model says so.
    pub fn pooling(&self) -> Option<Pooling> {
        match self.own_number("pooling_type")? {
            0 => Some(Pooling::None),
            1 => Some(Pooling::Mean),
            2 => Some(Pooling::Cls),
            3 => Some(Pooling::Last),
            4 => Some(Pooling::Rank),
            _ => None,
        }
    }

    /// The file's place in a split model; `None` for a model in one file.
    pub fn split(&self) -> Option<Split> {
        let count = self.number("split.count")?;
        (count > 1).then(|| Split {
            no: self.number("split.no").unwrap_or(0),
            count,
            tensors: self.number("split.tensors.count"),
        })
    }

    /// The tensors of this file, in file order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.header.tensors
    }

    /// Elements of all tensors of this file.
    pub fn parameters(&self) -> u64 {
        self.tensors()
            .iter()
            .map(Tensor::elements)
            .fold(0, u64::saturating_add)
    }

    /// Name of the quantisation (`Q4_K_M`): what the file says, else the type of most of its weights.
    pub fn quantisation(&self) -> &'static str {
        self.file_type()
            .or_else(|| most_weights(self.tensors()))
            .unwrap_or("unknown")
    }

    /// Name of `general.file_type` (`llama_ftype`).
    pub(crate) fn file_type(&self) -> Option<&'static str> {
        Some(match self.number("general.file_type")? {
            0 => "F32",
            1 => "F16",
            2 => "Q4_0",
            3 => "Q4_1",
            7 => "Q8_0",
            8 => "Q5_0",
            9 => "Q5_1",
            10 => "Q2_K",
            11 => "Q3_K_S",
            12 => "Q3_K_M",
            13 => "Q3_K_L",
            14 => "Q4_K_S",
            15 => "Q4_K_M",
            16 => "Q5_K_S",
            17 => "Q5_K_M",
            18 => "Q6_K",
            19 => "IQ2_XXS",
            20 => "IQ2_XS",
            21 => "Q2_K_S",
            22 => "IQ3_XS",
            23 => "IQ3_XXS",
            24 => "IQ1_S",
            25 => "IQ4_NL",
            26 => "IQ3_S",
            27 => "IQ3_M",
            28 => "IQ2_S",
            29 => "IQ2_M",
            30 => "IQ4_XS",
            31 => "IQ1_M",
            32 => "BF16",
            36 => "TQ1_0",
            37 => "TQ2_0",
            38 => "MXFP4",
            39 => "NVFP4",
            40 => "Q1_0",
            41 => "Q2_0",
            _ => return None,
        })
    }
}

/// Name of the type that most elements are stored in.
pub(crate) fn most_weights<'a>(
    tensors: impl IntoIterator<Item = &'a Tensor>,
) -> Option<&'static str> {
    let mut counts: Vec<(TensorType, u64)> = Vec::new();
    for tensor in tensors {
        let elements = tensor.elements();
        match counts.iter_mut().find(|(kind, _)| *kind == tensor.kind) {
            Some((_, count)) => *count = count.saturating_add(elements),
            None => counts.push((tensor.kind, elements)),
        }
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map(|(kind, _)| kind.name())
}
