//! What files say about themselves, in the words of the accessors; and that no real model is refused.

use std::path::{Path, PathBuf};
use std::time::Instant;

use hearth_gguf::{File, Kind, Model, PerLayer, Pooling, Problem, Special, TensorType, Value};

use crate::writer::{Data, Gguf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn a_model_in_words() {
    let file = File::parse(
        &Gguf::model()
            .with("general.size_label", Data::text("1K"))
            .with("general.sampling.temp", Data::F32(0.5))
            .with("llama.pooling_type", Data::U32(3))
            .with("tokenizer.ggml.padding_token_id", Data::U32(u32::MAX))
            .bytes(),
    )
    .unwrap();
    assert_eq!(file.kind(), Kind::Model);
    assert_eq!(file.architecture(), Some("llama"));
    assert_eq!((file.name(), file.size_label()), (Some("Test"), Some("1K")));
    assert_eq!(file.block_count(), Some(2));
    assert_eq!(file.context_length(), Some(512));
    assert_eq!(file.embedding_length(), Some(64));
    assert_eq!(file.head_count(), Some(PerLayer::All(4)));
    assert_eq!(file.head_count_kv().map(|heads| heads.most()), Some(2));
    assert_eq!(
        (file.key_length(), file.value_length()),
        (Some(16), Some(16))
    );
    assert_eq!(file.kv_elements(), 2 * 2 * (16 + 16));
    assert_eq!(file.tokenizer(), Some("gpt2"));
    assert_eq!(file.vocabulary_size(), Some(16));
    assert_eq!(file.tokens().nth(3), Some(&b"t3"[..]));
    assert_eq!(file.special(Special::Bos), Some(1));
    assert_eq!(file.special(Special::Padding), None);
    assert_eq!(file.special(Special::Mask), None);
    assert_eq!(file.pooling(), Some(Pooling::Last));
    assert_eq!(file.chat_template(), Some("{{ messages }}"));
    assert_eq!(file.real("general.sampling.temp"), Some(0.5));
    assert_eq!(file.split(), None);
    assert_eq!(file.parameters(), 64 * 16 + 64);
    assert_eq!(file.quantisation(), "F32");
    assert_eq!(file.get("llama.block_count"), Some(Value::U32(2)));
    assert_eq!(file.get("llama.block"), None);
    assert_eq!(
        file.get("tokenizer.ggml.merges").unwrap().to_string(),
        "2 × string"
    );
    assert_eq!(file.metadata().next().unwrap().0, "general.architecture");
    let norm = &file.tensors()[1];
    assert_eq!(
        (norm.name.as_str(), norm.kind),
        ("output_norm.weight", TensorType::F32)
    );
    assert_eq!(
        (norm.offset, norm.bytes, norm.elements()),
        (64 * 16 * 4, 256, 64)
    );
}

#[test]
fn the_quantisation_is_what_the_file_says_or_most_of_its_weights_are() {
    let said = Gguf::model().with("general.file_type", Data::U32(15));
    assert_eq!(File::parse(&said.bytes()).unwrap().quantisation(), "Q4_K_M");
    let unknown = Gguf::model().with("general.file_type", Data::U32(999));
    assert_eq!(File::parse(&unknown.bytes()).unwrap().quantisation(), "F32");
}

#[test]
fn what_a_file_is_for() {
    let kind = |file: Gguf| File::parse(&file.bytes()).unwrap().kind();
    let clip = Gguf::new().with("general.architecture", Data::text("clip"));
    assert_eq!(kind(clip), Kind::Projector);
    let matrix = Gguf::new().with("general.type", Data::text("imatrix"));
    assert_eq!(kind(matrix), Kind::Other);
    let part = Gguf::new()
        .with("split.no", Data::U16(1))
        .with("split.count", Data::U16(2));
    assert_eq!(kind(part.clone()), Kind::Part);
    let file = File::parse(&part.bytes()).unwrap();
    let error = file.expect(Kind::Model).unwrap_err();
    assert_eq!(*error.problem(), Problem::LaterPart { no: 2 });
    let model = File::parse(&Gguf::model().bytes()).unwrap();
    let error = model.expect(Kind::Adapter).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is a model and not a LoRA adapter"),
        "{error}"
    );
}

/// Attention-free models have no heads, and hybrid ones have none in some layers.
#[test]
fn models_without_heads_pass() {
    let mamba = Gguf::model()
        .with("general.architecture", Data::text("mamba"))
        .with("mamba.block_count", Data::U32(2))
        .with("mamba.context_length", Data::U32(1 << 20))
        .with("mamba.embedding_length", Data::U32(64))
        .with("mamba.feed_forward_length", Data::U32(0))
        .with("mamba.attention.head_count", Data::U32(0))
        .with("mamba.ssm.conv_kernel", Data::U32(4));
    let file = File::parse(&mamba.bytes()).unwrap();
    assert_eq!(file.kv_elements(), 0);
    let jamba = Gguf::model()
        .with("general.architecture", Data::text("jamba"))
        .with("jamba.block_count", Data::U32(2))
        .with("jamba.context_length", Data::U32(1 << 18))
        .with("jamba.embedding_length", Data::U32(64))
        .with("jamba.attention.head_count", Data::U32(4))
        .with(
            "jamba.attention.head_count_kv",
            Data::Array(5, vec![Data::I32(0), Data::I32(2)]),
        )
        .with("jamba.ssm.conv_kernel", Data::U32(4));
    let file = File::parse(&jamba.bytes()).unwrap();
    assert_eq!(file.kv_elements(), 2 * (16 + 16));
}

#[test]
fn our_own_models_pass() {
    let ember = repository().join("models/ember");
    let path = ember.join("ember.gguf");
    let model = Model::open(&path).unwrap();
    let file = model.first();
    assert_eq!(
        (file.name(), file.architecture()),
        (Some("Ember"), Some("llama"))
    );
    assert_eq!(
        (model.quantisation(), file.vocabulary_size()),
        ("Q8_0", Some(2048))
    );
    assert_eq!(model.size(), std::fs::metadata(&path).unwrap().len());
    assert!(model.parameters() > 5_000_000);
    let mut adapters = 0;
    for path in files_in(&ember) {
        let file = File::open(&path).unwrap();
        match file.kind() {
            Kind::Model => drop(Model::open(&path).unwrap()),
            Kind::Adapter => {
                assert!(file.real("adapter.lora.alpha").is_some());
                Model::open(&path).unwrap_err();
                adapters += 1;
            }
            kind => panic!("{} is {}", path.display(), kind.described()),
        }
    }
    assert!(adapters > 0);
}

/// GGUF files in a folder; none if there is no such folder.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "gguf")
        })
        .collect()
}

/// Files that the benchmarks left here, of real shape.
#[test]
fn models_of_real_shape_pass() {
    for path in files_in(&repository().join("target/bench")) {
        let model = Model::open(&path).unwrap();
        assert!(model.parameters() > 100_000, "{}", path.display());
    }
}

/// A vocabulary of the size that large models have.
#[test]
fn a_large_vocabulary_is_read_quickly() {
    let tokens: Vec<String> = (0..151_936).map(|n| format!("tok{n}")).collect();
    let merges: Vec<String> = (0..151_000).map(|n| format!("tok {n}")).collect();
    let bytes = Gguf::model()
        .with("tokenizer.ggml.tokens", Data::texts(&tokens))
        .with(
            "tokenizer.ggml.token_type",
            Data::Array(5, vec![Data::I32(1); 151_936]),
        )
        .with("tokenizer.ggml.merges", Data::texts(&merges))
        .bytes();
    let start = Instant::now();
    let file = File::parse(&bytes).unwrap();
    let took = start.elapsed();
    println!("{} bytes in {took:?}", bytes.len());
    assert_eq!(file.tokens().count(), 151_936);
    // Unoptimised, on a busy machine; optimised it is a few milliseconds.
    assert!(took.as_secs() < 5, "{took:?}");
}

#[test]
fn paths_that_are_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let error = File::open(folder.path()).unwrap_err();
    assert_eq!(*error.problem(), Problem::NotAFile);
    let missing = folder.path().join("none.gguf");
    let error = File::open(&missing).unwrap_err();
    assert!(matches!(error.problem(), Problem::Unreadable(_)));
    assert_eq!(error.path(), Some(missing.as_path()));
    assert!(error.to_string().contains("none.gguf"));
}
