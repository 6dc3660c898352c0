//! The encoder through its public door, on tiny models with random weights.
#![allow(clippy::unwrap_used, reason = "tests")]

mod tiny;

use std::fs;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use hearth_encoder::reference::Reference;
use hearth_encoder::{Batch, Embedding, Encoder, Error, Kernel, Pooling, Prompts, Role};
use safetensors::Dtype;
use serde_json::json;

use tiny::{TINY, Tiny, write};

/// Texts of many lengths, in tokens: 2 (empty) to beyond the longest.
fn texts() -> Vec<String> {
    let words = [
        "the", "river", "is", "open", ",", "Garden", "über", "zq", "!", "日本", "letter",
    ];
    (0..50)
        .map(|length| {
            (0..length)
                .map(|at| words[(at * 7 + length) % words.len()])
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum()
}

fn encode_all(encoder: &Encoder) -> Vec<Embedding> {
    texts()
        .iter()
        .map(|text| encoder.encode(text, Role::Plain).unwrap())
        .collect()
}

/// Shapes with every size of head, a depth that is no multiple of 64, and both poolings.
fn shapes() -> Vec<Tiny> {
    vec![
        TINY,
        Tiny { cls: true, ..TINY },
        Tiny {
            hidden: 96,
            heads: 3,
            inner: 80,
            seed: 2,
            ..TINY
        },
        Tiny {
            hidden: 128,
            heads: 2,
            inner: 48,
            layers: 1,
            seed: 3,
            ..TINY
        },
        Tiny {
            hidden: 16,
            heads: 1,
            inner: 16,
            layers: 3,
            cls: true,
            seed: 4,
            ..TINY
        },
    ]
}

#[test]
fn vectors_are_close_to_the_pass_in_floats() {
    for tiny in shapes() {
        let folder = tiny.folder();
        let encoder = Encoder::open(folder.path()).unwrap();
        let reference = Reference::open(folder.path()).unwrap();
        assert_eq!(encoder.dimensions(), tiny.hidden);
        let mut sum = 0.0;
        for (text, embedding) in texts().iter().zip(encode_all(&encoder)) {
            let cosine = dot(&embedding.vector, &reference.encode(text).unwrap());
            assert!(
                cosine > 0.99,
                "{cosine} at {} wide for {text:?}",
                tiny.hidden
            );
            assert!((dot(&embedding.vector, &embedding.vector) - 1.0).abs() < 1e-5);
            sum += cosine;
        }
        assert!(
            sum / texts().len() as f64 > 0.998,
            "mean {sum} at {} wide",
            tiny.hidden
        );
    }
}

#[test]
fn every_kernel_gives_the_same_bits() {
    for tiny in shapes() {
        let folder = tiny.folder();
        let encoder = Encoder::open(folder.path()).unwrap();
        let plain = encode_all(&encoder.clone().with_kernel(Kernel::Portable).unwrap());
        for kernel in Kernel::available() {
            let other = encoder.clone().with_kernel(*kernel).unwrap();
            assert_eq!(other.kernel(), *kernel);
            assert_eq!(encode_all(&other), plain, "{kernel}");
            assert_eq!(other.id(), encoder.id());
        }
    }
}

#[test]
fn a_batch_gives_what_its_texts_give_alone() {
    for cls in [false, true] {
        let folder = Tiny { cls, ..TINY }.folder();
        let encoder = Encoder::open(folder.path()).unwrap();
        let alone = encode_all(&encoder);
        for threads in [0, 1, 3] {
            let progress = AtomicUsize::new(0);
            let batch = Batch {
                threads,
                progress: Some(&|done| {
                    progress.fetch_max(done, Ordering::Relaxed);
                    ControlFlow::Continue(())
                }),
            };
            assert_eq!(
                encoder.encode_batch(&texts(), Role::Plain, batch).unwrap(),
                alone
            );
            assert_eq!(progress.load(Ordering::Relaxed), texts().len());
        }
        let none: [&str; 0] = [];
        assert_eq!(
            encoder
                .encode_batch(&none, Role::Plain, Batch::default())
                .unwrap(),
            []
        );
    }
}

#[test]
fn a_batch_can_be_broken_off() {
    let folder = TINY.folder();
    let encoder = Encoder::open(folder.path()).unwrap();
    let stop = |_| ControlFlow::Break(());
    let batch = Batch {
        threads: 2,
        progress: Some(&stop),
    };
    let result = encoder.encode_batch(&texts(), Role::Plain, batch);
    assert!(matches!(result, Err(Error::Cancelled)));
}

#[test]
fn long_texts_are_cut_and_say_so() {
    let folder = TINY.folder();
    write(
        folder.path(),
        "sentence_bert_config.json",
        &json!({"max_seq_length": 20}),
    );
    let encoder = Encoder::open(folder.path()).unwrap();
    assert_eq!(encoder.max_tokens(), 20);
    let words = |count: usize| "river ".repeat(count);
    let whole = encoder.encode(&words(18), Role::Plain).unwrap();
    assert_eq!((whole.tokens, whole.truncated), (20, false));
    for count in [19, 100, 100_000] {
        let cut = encoder.encode(&words(count), Role::Plain).unwrap();
        assert_eq!((cut.tokens, cut.truncated), (20, true));
        assert_eq!(cut.vector, whole.vector, "{count} words");
    }
    assert_eq!(encoder.count_tokens(&words(100)).unwrap(), 102);
    // One word without a space, longer than the piece of a text that is looked at first.
    let word = encoder.encode(&"q".repeat(5_000), Role::Plain).unwrap();
    assert_eq!((word.tokens, word.truncated), (3, false));
    let spaces = encoder
        .encode(&format!("{}river", " ".repeat(5_000)), Role::Plain)
        .unwrap();
    assert_eq!(
        spaces.vector,
        encoder.encode("river", Role::Plain).unwrap().vector
    );
}

#[test]
fn empty_and_foreign_texts_have_vectors() {
    let folder = TINY.folder();
    let encoder = Encoder::open(folder.path()).unwrap();
    let encode = |text: &str| encoder.encode(text, Role::Plain).unwrap();
    assert_eq!(encode("").tokens, 2);
    assert_eq!(encode(" \n\u{200b}\0").vector, encode("").vector);
    // Lower case and accents are the tokenizer's: `über` is found as `uber`.
    assert_eq!(encode("ÜBER").vector, encode("uber").vector);
    assert_eq!(encode("日本").tokens, 4);
    assert_ne!(encode("日本").vector, encode("本日").vector);
    for text in [
        "🦀🦀🦀",
        "a\u{301}\u{301}\u{301}",
        "\u{202e}river",
        "ﬀ ǅ İ",
        "\u{fffd}",
    ] {
        assert!(encode(text).vector.iter().all(|value| value.is_finite()));
    }
}

#[test]
fn a_vocabulary_alone_splits_as_its_tokenizer_does() {
    let folder = TINY.folder();
    let expected = encode_all(&Encoder::open(folder.path()).unwrap());
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    fs::write(
        folder.path().join("vocab.txt"),
        tiny::vocabulary().join("\n"),
    )
    .unwrap();
    assert_eq!(encode_all(&Encoder::open(folder.path()).unwrap()), expected);
    write(
        folder.path(),
        "tokenizer_config.json",
        &json!({"do_lower_case": false}),
    );
    let cased = Encoder::open(folder.path()).unwrap();
    assert_ne!(
        encode_all(&cased),
        expected,
        "`Garden` is one word in lower case only"
    );
}

#[test]
fn half_floats_are_read() {
    let whole = encode_all(&Encoder::open(TINY.folder().path()).unwrap());
    for dtype in [Dtype::F16, Dtype::BF16] {
        let folder = Tiny { dtype, ..TINY }.folder();
        let half = encode_all(&Encoder::open(folder.path()).unwrap());
        for (whole, half) in whole.iter().zip(&half) {
            assert!(dot(&whole.vector, &half.vector) > 0.99, "{dtype}");
        }
    }
}

#[test]
fn names_with_a_prefix_are_read() {
    let folder = TINY.folder();
    let expected = encode_all(&Encoder::open(folder.path()).unwrap());
    let tensors = tiny::tensors(&TINY)
        .into_iter()
        .map(|(name, tensor)| (format!("bert.{name}"), tensor))
        .collect();
    tiny::write_tensors(folder.path(), Dtype::F32, &tensors);
    assert_eq!(encode_all(&Encoder::open(folder.path()).unwrap()), expected);
}

#[test]
fn prompts_stand_before_the_text() {
    let folder = TINY.folder();
    let prompts = json!({"prompts": {"query": "the river ", "document": "a letter "}});
    write(folder.path(), "config_sentence_transformers.json", &prompts);
    let encoder = Encoder::open(folder.path()).unwrap();
    let vector = |encoder: &Encoder, text, role| encoder.encode(text, role).unwrap().vector;
    let plain = |text| vector(&encoder, text, Role::Plain);
    assert_eq!(
        vector(&encoder, "is open", Role::Query),
        plain("the river is open")
    );
    assert_eq!(
        vector(&encoder, "is open", Role::Passage),
        plain("a letter is open")
    );
    let other = encoder.clone().with_prompts(Prompts {
        query: "garden ".to_owned(),
        passage: String::new(),
    });
    assert_eq!(
        vector(&other, "is open", Role::Query),
        plain("garden is open")
    );
    assert_eq!(vector(&other, "is open", Role::Passage), plain("is open"));
    assert_ne!(other.id(), encoder.id());
}

#[test]
fn an_id_names_all_that_vectors_depend_on() {
    let id = |folder: &tempfile::TempDir| Encoder::open(folder.path()).unwrap().id();
    let folder = TINY.folder();
    let first = id(&folder);
    assert_eq!(first.len(), 64);
    assert_eq!(first, id(&TINY.folder()), "it is stable");
    assert_ne!(
        first,
        id(&Tiny { seed: 9, ..TINY }.folder()),
        "other weights"
    );
    write(
        folder.path(),
        "sentence_bert_config.json",
        &json!({"max_seq_length": 20}),
    );
    assert_ne!(first, id(&folder), "another length");
    let folder = Tiny { cls: true, ..TINY }.folder();
    assert_eq!(
        Encoder::open(folder.path()).unwrap().pooling(),
        Pooling::Cls
    );
    assert_ne!(first, id(&folder), "another pooling");
    let folder = TINY.folder();
    let mut tokenizer = tiny::tokenizer();
    tokenizer["normalizer"]["lowercase"] = json!(false);
    write(folder.path(), "tokenizer.json", &tokenizer);
    assert_ne!(first, id(&folder), "another tokenizer");
}

#[test]
fn a_kernel_of_another_architecture_is_refused() {
    let folder = TINY.folder();
    let encoder = Encoder::open(folder.path()).unwrap();
    let foreign = if cfg!(target_arch = "x86_64") {
        Kernel::Neon
    } else {
        Kernel::Avx2
    };
    let message = encoder.with_kernel(foreign).err().unwrap().to_string();
    assert!(
        message.contains(foreign.name()) && message.contains("portable"),
        "{message}"
    );
}

#[test]
fn an_encoder_outlives_its_folder() {
    let folder = TINY.folder();
    let encoder = Encoder::open(folder.path()).unwrap();
    let expected = encode_all(&encoder);
    drop(folder);
    assert_eq!(encode_all(&encoder.clone()), expected);
}
