//! Model and adapter files made to do harm: each is refused with its reason, and the process lives on.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use hearth_engine::{AdapterUse, Catalogue, Engine, EngineError, Event, Prompt, Request};
use hearth_gguf::{Array, File, Value};
use hearth_testkit::gguf::{Quantisation, Shape, write};
use hearth_testkit::node::{ember, options};

/// Numbers of GGUF's types, as they stand in a file.
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// A file taken apart: what it says and holds, to be changed and written again.
#[derive(Clone)]
struct Parts {
    /// Key, type, and the value's bytes.
    metadata: Vec<(String, u32, Vec<u8>)>,
    /// Name, shape, type, offset.
    tensors: Vec<(String, Vec<u64>, u32, u64)>,
    data: Vec<u8>,
}

fn text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

fn array(item: u32, items: &[Vec<u8>]) -> Vec<u8> {
    let mut out = item.to_le_bytes().to_vec();
    out.extend((items.len() as u64).to_le_bytes());
    items.iter().for_each(|item| out.extend(item));
    out
}

fn written(value: Value<'_>) -> (u32, Vec<u8>) {
    let array_of = |values: Array<'_>| {
        let items: Vec<(u32, Vec<u8>)> = values.items().map(written).collect();
        let kind = items.first().map_or(TEXT, |(kind, _)| *kind);
        let items: Vec<Vec<u8>> = items.into_iter().map(|(_, bytes)| bytes).collect();
        (ARRAY, array(kind, &items))
    };
    match value {
        Value::U32(n) => (U32, n.to_le_bytes().to_vec()),
        Value::I32(n) => (I32, n.to_le_bytes().to_vec()),
        Value::F32(x) => (F32, x.to_le_bytes().to_vec()),
        Value::Bool(flag) => (7, vec![flag.into()]),
        Value::Text(bytes) => (TEXT, text(bytes)),
        Value::Array(values) => array_of(values),
        other => panic!("the test's models have no {}", other.kind()),
    }
}

impl Parts {
    fn of(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let metadata = file.metadata().map(|(key, value)| {
            let (kind, bytes) = written(value);
            (key.to_owned(), kind, bytes)
        });
        let number = |name: &str| {
            let ids = 0..43;
            let mut ids = ids.filter(|id| {
                hearth_gguf::TensorType::from_id(*id).is_some_and(|kind| kind.name() == name)
            });
            ids.next().unwrap()
        };
        let tensors = file.tensors().iter().map(|tensor| {
            let kind = number(tensor.kind.name());
            (
                tensor.name.clone(),
                tensor.shape.clone(),
                kind,
                tensor.offset,
            )
        });
        Self {
            metadata: metadata.collect(),
            tensors: tensors.collect(),
            data: std::fs::read(path).unwrap()[file.data_offset() as usize..].to_vec(),
        }
    }

    /// Sets a key, or adds it.
    fn set(mut self, key: &str, kind: u32, value: impl AsRef<[u8]>) -> Self {
        self.metadata.retain(|(known, ..)| known != key);
        let value = value.as_ref().to_vec();
        self.metadata.push((key.to_owned(), kind, value));
        self
    }

    fn number(self, key: &str, number: u32) -> Self {
        self.set(key, U32, number.to_le_bytes())
    }

    /// Changes the tensor of that name.
    fn tensor(
        mut self,
        name: &str,
        change: impl FnOnce(&mut (String, Vec<u64>, u32, u64)),
    ) -> Self {
        change(
            self.tensors
                .iter_mut()
                .find(|tensor| tensor.0 == name)
                .unwrap(),
        );
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.metadata {
            out.extend(text(key.as_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend(value);
        }
        for (name, shape, kind, offset) in &self.tensors {
            out.extend(text(name.as_bytes()));
            out.extend((shape.len() as u32).to_le_bytes());
            shape
                .iter()
                .for_each(|length| out.extend(length.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        out
    }
}

fn tiny(folder: &Path) -> Parts {
    let path = folder.join("sound.gguf");
    write(&path, &Shape::TINY, Quantisation::Q8_0, 3).unwrap();
    Parts::of(&path)
}

/// Loads each file, which must fail with its words; then the sound model answers.
async fn refused(folder: &Path, files: &[(&str, Vec<u8>, &str)]) {
    for (name, bytes, _) in files {
        std::fs::write(folder.join(name).with_extension("gguf"), bytes).unwrap();
    }
    let engine = Engine::new(options(), Catalogue::new(Some(folder.to_owned())));
    for (name, _, words) in files {
        match engine.load(Some(name)).await {
            Err(EngineError::LoadFailed { reason, .. }) => {
                assert!(reason.contains(words), "{name}: {reason}");
                assert!(
                    reason.contains(&format!("{name}.gguf: ")),
                    "{name}: {reason}"
                );
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    answers(&engine, "sound", Vec::new()).await.unwrap();
}

/// Whether a model writes a token.
async fn answers(
    engine: &Engine,
    model: &str,
    adapters: Vec<AdapterUse>,
) -> Result<(), EngineError> {
    let request = Request {
        max_tokens: Some(1),
        adapters,
        ..Request::new(Prompt::Tokens(vec![40, 41, 42]))
    };
    let mut answer = engine.generate(Some(model), request).await?;
    while let Some(event) = answer.next().await {
        if matches!(event?, Event::Done(_)) {
            return Ok(());
        }
    }
    panic!("the answer has no end");
}

#[tokio::test]
async fn what_is_no_model_file() {
    let folder = tempfile::tempdir().unwrap();
    let whole = tiny(folder.path()).bytes();
    let big_endian = [b"GGUF\0\0\0\x03", &whole[8..]].concat();
    let many = |at: usize| [&whole[..at], &u64::MAX.to_le_bytes(), &whole[at + 8..]].concat();
    let adapter = std::fs::read_dir(ember().parent().unwrap()).unwrap();
    let adapter = adapter
        .map(|entry| entry.unwrap().path())
        .find(|path| File::open(path).is_ok_and(|file| file.kind() == hearth_gguf::Kind::Adapter));
    let files = [
        ("empty", Vec::new(), "is not a GGUF file"),
        (
            "web-page",
            b"<!DOCTYPE html><html>404</html>".to_vec(),
            "is not a GGUF file",
        ),
        (
            "old",
            [b"GGUF\x01\0\0\0", &whole[8..]].concat(),
            "GGUF version 1",
        ),
        ("big-endian", big_endian, "little-endian"),
        (
            "half",
            whole[..whole.len() / 2].to_vec(),
            "download it again",
        ),
        ("stump", whole[..1000].to_vec(), "is cut short"),
        ("many-tensors", many(8), "18446744073709551615 tensors"),
        ("many-keys", many(16), "18446744073709551615 metadata keys"),
        ("long-key", many(24), "bytes of a metadata key"),
        (
            "adapter",
            std::fs::read(adapter.unwrap()).unwrap(),
            "is a LoRA adapter and not a model",
        ),
    ];
    refused(folder.path(), &files).await;
}

/// Each of these ended the process before it was refused, or took memory without end.
#[tokio::test]
async fn values_that_llama_cpp_does_not_survive() {
    let folder = tempfile::tempdir().unwrap();
    let whole = tiny(folder.path());
    let sound = || whole.clone();
    let tokens = |first: &str, last: &str, count: usize| {
        let mut tokens: Vec<Vec<u8>> = (0..count)
            .map(|n| text(format!("t{n}").as_bytes()))
            .collect();
        tokens[0] = text(first.as_bytes());
        *tokens.last_mut().unwrap() = text(last.as_bytes());
        sound().set("tokenizer.ggml.tokens", ARRAY, array(TEXT, &tokens))
    };
    let norm = "blk.0.attn_norm.weight";
    let files = [
        (
            "no-layers",
            sound().number("qwen3.block_count", 0),
            "`qwen3.block_count` is 0",
        ),
        (
            "many-layers",
            sound().number("qwen3.block_count", 513),
            "`qwen3.block_count` is 513",
        ),
        (
            "no-heads",
            sound().number("qwen3.attention.head_count", 0),
            "`qwen3.attention.head_count` is 0",
        ),
        (
            "odd-heads",
            sound().number("qwen3.attention.head_count_kv", 3),
            "which does not divide the 4",
        ),
        (
            "no-context",
            sound().number("qwen3.context_length", 0),
            "`qwen3.context_length` is 0",
        ),
        (
            "experts",
            sound().number("qwen3.expert_count", 8),
            "`qwen3.expert_used_count` is 0",
        ),
        (
            "rope",
            sound().number("qwen3.rope.dimension_count", 4096),
            "must be 2 to 64",
        ),
        (
            "scaling",
            sound().set("qwen3.rope.scaling.type", TEXT, text(b"x")),
            "must be one of none, linear",
        ),
        (
            "alignment",
            sound().number("general.alignment", 48),
            "must be a power of two",
        ),
        (
            "no-family",
            sound().set("general.architecture", TEXT, text(b"")),
            "`general.architecture` is missing",
        ),
        ("twins", tokens("a", "a", 1536), "the token `a` twice"),
        ("few-tokens", tokens("a", "b", 3), "entries for 3 tokens"),
        (
            "bos",
            sound().number("tokenizer.ggml.bos_token_id", 1 << 20),
            "the vocabulary has 1536 tokens",
        ),
        (
            "template",
            sound().set("tokenizer.chat_template", TEXT, text(&[b'x'; 2 << 20])),
            "at most 1048576",
        ),
        (
            "type",
            sound().tensor(norm, |tensor| tensor.2 = 31),
            "tensor type 31",
        ),
        (
            "halves",
            sound().tensor(norm, |tensor| tensor.2 = 1),
            "is of type F16 and must be of type F32",
        ),
        (
            "shape",
            sound().tensor(norm, |tensor| tensor.1 = vec![1 << 40, 1 << 40]),
            "more elements than can be counted",
        ),
        (
            "place",
            sound().tensor(norm, |tensor| tensor.3 = 1 << 50),
            "ends at byte",
        ),
        (
            "over",
            sound().tensor(norm, |tensor| tensor.3 = 0),
            "lies over tensor",
        ),
        (
            "twice",
            sound().tensor(norm, |tensor| tensor.0 = "output_norm.weight".into()),
            "is there twice",
        ),
    ];
    let files: Vec<_> = files
        .into_iter()
        .map(|(name, parts, words)| (name, parts.bytes(), words))
        .collect();
    refused(folder.path(), &files).await;
}

#[tokio::test]
async fn every_part_of_a_split_model() {
    let folder = tempfile::tempdir().unwrap();
    let sound = tiny(folder.path());
    let number = |parts: Parts, no: u16, count: u16| {
        parts
            .set("split.no", 2, no.to_le_bytes())
            .set("split.count", 2, count.to_le_bytes())
    };
    let first = number(sound, 0, 2).bytes();
    let second = Parts {
        metadata: Vec::new(),
        tensors: vec![("x".into(), vec![0], 0, 0)],
        data: Vec::new(),
    };
    std::fs::write(folder.path().join("alone-00001-of-00002.gguf"), &first).unwrap();
    std::fs::write(folder.path().join("both-00001-of-00002.gguf"), &first).unwrap();
    let bytes = number(second, 1, 2).bytes();
    std::fs::write(folder.path().join("both-00002-of-00002.gguf"), bytes).unwrap();
    let engine = Engine::new(options(), Catalogue::new(Some(folder.path().to_owned())));
    for (name, words) in [
        (
            "alone-00001-of-00002",
            "alone-00002-of-00002.gguf is not beside it; download all parts",
        ),
        (
            "both-00001-of-00002",
            "both-00002-of-00002.gguf: tensor `x` has a dimension of length 0",
        ),
    ] {
        let error = engine.load(Some(name)).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    answers(&engine, "sound", Vec::new()).await.unwrap();
}

#[tokio::test]
async fn adapters_that_would_end_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sound.gguf");
    write(&path, &Shape::TINY, Quantisation::Q8_0, 3).unwrap();
    let engine = Engine::new(options(), Catalogue::new(Some(folder.path().to_owned())));
    let (a, b) = ("blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b");
    let adapter = || {
        let parts = Parts {
            metadata: Vec::new(),
            tensors: vec![
                (a.into(), vec![256, 8], 0, 0),
                (b.into(), vec![8, 256], 0, 256 * 8 * 4),
            ],
            data: vec![0; 2 * 256 * 8 * 4],
        };
        parts
            .set("general.architecture", TEXT, text(b"qwen3"))
            .set("general.type", TEXT, text(b"adapter"))
            .set("adapter.type", TEXT, text(b"lora"))
            .set("adapter.lora.alpha", F32, 16f32.to_le_bytes())
    };
    let planes = |tensor: &mut (String, Vec<u64>, u32, u64)| tensor.1 = vec![256, 4, 2];
    let files = [
        ("fits", adapter(), None),
        (
            "alpha",
            adapter().number("adapter.lora.alpha", 16),
            Some("must be f32"),
        ),
        (
            "kind",
            adapter().number("adapter.type", 1),
            Some("must be string"),
        ),
        (
            "planes",
            adapter().tensor(a, planes),
            Some("has the shape [256, 4, 2]"),
        ),
        (
            "integers",
            adapter().tensor(b, |tensor| tensor.2 = 26),
            Some("is of type I32"),
        ),
        (
            "other",
            adapter().set("general.architecture", TEXT, text(b"llama")),
            Some("the model's is `qwen3`"),
        ),
    ];
    for (name, parts, words) in files {
        let path = folder.path().join(name).with_extension("lora");
        std::fs::write(&path, parts.bytes()).unwrap();
        let used = vec![AdapterUse { path, scale: 1.0 }];
        match (answers(&engine, "sound", used).await, words) {
            (Ok(()), None) => {}
            (
                Err(EngineError::Invalid {
                    field: "adapters",
                    message,
                }),
                Some(words),
            ) => {
                assert!(message.contains(words), "{name}: {message}");
            }
            (outcome, _) => panic!("{name}: {outcome:?}"),
        }
    }
    answers(&engine, "sound", Vec::new()).await.unwrap();
}
