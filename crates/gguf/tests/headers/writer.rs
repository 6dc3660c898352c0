//! A header writer that can write anything, sound or not.

/// A metadata value as it is written.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(Vec<u8>),
    /// Type of the items, and the items.
    Array(u32, Vec<Data>),
    U64(u64),
    I64(i64),
    F64(f64),
    /// A type's number, and bytes that may or may not be a value of it.
    Raw(u32, Vec<u8>),
}

impl Data {
    pub fn text(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }

    pub fn texts<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> Self {
        let texts = texts.into_iter();
        Self::Array(8, texts.map(|t| Self::Text(t.as_ref().to_vec())).collect())
    }

    fn id(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::Text(_) => 8,
            Self::Array(..) => 9,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
            Self::Raw(id, _) => *id,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::U8(n) => out.push(*n),
            Self::I8(n) => out.extend(n.to_le_bytes()),
            Self::U16(n) => out.extend(n.to_le_bytes()),
            Self::I16(n) => out.extend(n.to_le_bytes()),
            Self::U32(n) => out.extend(n.to_le_bytes()),
            Self::I32(n) => out.extend(n.to_le_bytes()),
            Self::F32(x) => out.extend(x.to_le_bytes()),
            Self::Bool(flag) => out.push((*flag).into()),
            Self::Text(text) => bytes(out, text),
            Self::Array(item, items) => {
                out.extend(item.to_le_bytes());
                out.extend((items.len() as u64).to_le_bytes());
                items.iter().for_each(|item| item.write(out));
            }
            Self::U64(n) => out.extend(n.to_le_bytes()),
            Self::I64(n) => out.extend(n.to_le_bytes()),
            Self::F64(x) => out.extend(x.to_le_bytes()),
            Self::Raw(_, raw) => out.extend(raw),
        }
    }
}

fn bytes(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

/// A tensor as it is written.
#[derive(Debug, Clone)]
pub struct Weights {
    pub name: Vec<u8>,
    pub shape: Vec<u64>,
    pub kind: u32,
    pub offset: u64,
}

/// A file as it is written.
#[derive(Debug, Clone)]
pub struct Gguf {
    pub magic: [u8; 4],
    pub version: u32,
    /// Counts, where they are not the true ones.
    pub tensor_count: Option<u64>,
    pub key_count: Option<u64>,
    pub metadata: Vec<(Vec<u8>, Data)>,
    pub tensors: Vec<Weights>,
    pub alignment: u64,
    /// Bytes of data after the header.
    pub data: u64,
}

impl Gguf {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            key_count: None,
            metadata: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            data: 0,
        }
    }

    /// A small model that passes: two layers, 16 tokens of byte-level BPE, two tensors.
    pub fn model() -> Self {
        let tokens: Vec<String> = (0..16).map(|n| format!("t{n}")).collect();
        Self::new()
            .with("general.architecture", Data::text("llama"))
            .with("general.name", Data::text("Test"))
            .with("llama.block_count", Data::U32(2))
            .with("llama.context_length", Data::U32(512))
            .with("llama.embedding_length", Data::U32(64))
            .with("llama.feed_forward_length", Data::U32(128))
            .with("llama.attention.head_count", Data::U32(4))
            .with("llama.attention.head_count_kv", Data::U32(2))
            .with("llama.rope.dimension_count", Data::U32(16))
            .with("tokenizer.ggml.model", Data::text("gpt2"))
            .with("tokenizer.ggml.tokens", Data::texts(tokens))
            .with(
                "tokenizer.ggml.token_type",
                Data::Array(5, vec![Data::I32(1); 16]),
            )
            .with("tokenizer.ggml.merges", Data::texts(["a b", "ab c"]))
            .with("tokenizer.ggml.bos_token_id", Data::U32(1))
            .with("tokenizer.ggml.eos_token_id", Data::U32(2))
            .with("tokenizer.chat_template", Data::text("{{ messages }}"))
            .tensor("token_embd.weight", &[64, 16], 0)
            .tensor("output_norm.weight", &[64], 0)
    }

    /// Sets a key, in place of the one of that name.
    pub fn with(mut self, key: &str, value: Data) -> Self {
        match self
            .metadata
            .iter_mut()
            .find(|(name, _)| name == key.as_bytes())
        {
            Some((_, old)) => *old = value,
            None => self.metadata.push((key.as_bytes().to_vec(), value)),
        }
        self
    }

    /// Takes a key away.
    pub fn without(mut self, key: &str) -> Self {
        self.metadata.retain(|(name, _)| name != key.as_bytes());
        self
    }

    /// Adds a key though there may be one of that name.
    pub fn also(mut self, key: &[u8], value: Data) -> Self {
        self.metadata.push((key.to_vec(), value));
        self
    }

    /// Adds a tensor of a 4-byte type after the others.
    pub fn tensor(mut self, name: &str, shape: &[u64], kind: u32) -> Self {
        self.tensors.push(Weights {
            name: name.as_bytes().to_vec(),
            shape: shape.to_vec(),
            kind,
            offset: self.data,
        });
        let size = shape.iter().product::<u64>() * 4;
        self.data = (self.data + size).next_multiple_of(self.alignment);
        self
    }

    /// The header alone, without padding.
    pub fn header(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        let tensors = self.tensor_count.unwrap_or(self.tensors.len() as u64);
        let keys = self.key_count.unwrap_or(self.metadata.len() as u64);
        out.extend(tensors.to_le_bytes());
        out.extend(keys.to_le_bytes());
        for (key, value) in &self.metadata {
            bytes(&mut out, key);
            out.extend(value.id().to_le_bytes());
            value.write(&mut out);
        }
        for tensor in &self.tensors {
            bytes(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor
                .shape
                .iter()
                .for_each(|n| out.extend(n.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out
    }

    /// The whole file, its data zeros.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        let start = (out.len() as u64).next_multiple_of(self.alignment);
        out.resize((start + self.data) as usize, 0);
        out
    }
}
