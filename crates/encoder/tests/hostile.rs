//! Folders that are damaged, hostile, or of another kind of model. Each is refused with what is wrong and where.
#![allow(clippy::unwrap_used, reason = "tests")]

mod tiny;

use std::fs;
use std::path::Path;

use hearth_encoder::{Encoder, Role};
use safetensors::Dtype;
use serde_json::{Value, json};

use tiny::{Random, TINY, write};

/// The error of opening a folder that `change` changed.
fn refusal(change: impl FnOnce(&Path)) -> String {
    let folder = TINY.folder();
    change(folder.path());
    Encoder::open(folder.path())
        .expect_err("the folder must be refused")
        .to_string()
}

#[track_caller]
fn names(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn missing_files_are_named() {
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        names(
            &refusal(|folder| fs::remove_file(folder.join(file)).unwrap()),
            &[file],
        );
    }
    let absent = Encoder::open(Path::new("/nonexistent/model"))
        .err()
        .unwrap();
    names(&absent.to_string(), &["/nonexistent/model", "config.json"]);
}

#[test]
fn folders_in_place_of_files_are_named() {
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "modules.json",
    ] {
        let message = refusal(|folder| {
            let _ = fs::remove_file(folder.join(file));
            fs::create_dir(folder.join(file)).unwrap();
        });
        names(&message, &[file]);
    }
}

#[test]
fn absurd_configurations_name_their_field() {
    for (field, value) in [
        ("hidden_size", json!(0)),
        ("hidden_size", json!(-384)),
        ("hidden_size", json!(65)),
        ("hidden_size", json!(4_000_000_000_000u64)),
        ("hidden_size", json!("384")),
        ("hidden_size", Value::Null),
        ("intermediate_size", json!(100)),
        ("intermediate_size", json!(1_000_000)),
        ("num_hidden_layers", json!(0)),
        ("num_hidden_layers", json!(1_000_000)),
        ("num_attention_heads", json!(0)),
        ("num_attention_heads", json!(3)),
        ("num_attention_heads", json!(8)),
        ("max_position_embeddings", json!(1)),
        ("max_position_embeddings", json!(1_000_000_000)),
        ("type_vocab_size", json!(0)),
        ("vocab_size", json!(1.5)),
        ("layer_norm_eps", json!(-1.0)),
        ("layer_norm_eps", json!([])),
        ("hidden_act", json!("relu")),
        ("model_type", json!("roberta")),
        ("position_embedding_type", json!("relative_key")),
    ] {
        let message = refusal(|folder| {
            let mut config = tiny::config(&TINY);
            config[field] = value.clone();
            write(folder, "config.json", &config);
        });
        names(&message, &["config.json", field]);
    }
    names(
        &refusal(|folder| fs::write(folder.join("config.json"), "[1, 2").unwrap()),
        &["config.json"],
    );
    let huge =
        refusal(|folder| fs::write(folder.join("config.json"), vec![b' '; 2 << 20]).unwrap());
    names(&huge, &["config.json", "bytes"]);
}

#[test]
fn other_pipelines_are_refused() {
    let modules = |kind: &str, path: &str| {
        refusal(|folder| {
            write(
                folder,
                "modules.json",
                &json!([{"idx": 0, "name": "0", "path": path, "type": kind}]),
            )
        })
    };
    names(
        &modules("sentence_transformers.models.Dense", "2_Dense"),
        &["modules.json", "type", "Dense"],
    );
    names(
        &modules("sentence_transformers.models.Pooling", "../elsewhere"),
        &["modules.json", "path"],
    );
    let pooling = |value: Value| refusal(|folder| write(folder, "1_Pooling/config.json", &value));
    names(
        &pooling(json!({"pooling_mode_max_tokens": true})),
        &["1_Pooling", "pooling_mode_max_tokens"],
    );
    let both = json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true});
    names(&pooling(both), &["1_Pooling", "pooling_mode_cls_token"]);
    names(
        &pooling(json!({})),
        &["1_Pooling", "pooling_mode_cls_token"],
    );
    let length =
        |value: Value| refusal(|folder| write(folder, "sentence_bert_config.json", &value));
    names(
        &length(json!({"max_seq_length": 0})),
        &["sentence_bert_config.json", "max_seq_length"],
    );
    names(
        &length(json!({"max_seq_length": "all"})),
        &["sentence_bert_config.json"],
    );
    let prompt = json!({"prompts": {"query": 7}});
    let message = refusal(|folder| write(folder, "config_sentence_transformers.json", &prompt));
    names(
        &message,
        &["config_sentence_transformers.json", "prompts.query"],
    );
}

#[test]
fn weights_that_do_not_fit_name_the_tensor() {
    let query = "encoder.layer.1.attention.self.query.weight";
    let missing = refusal(|folder| {
        let mut tensors = tiny::tensors(&TINY);
        tensors.remove(query);
        tiny::write_tensors(folder, Dtype::F32, &tensors);
    });
    names(&missing, &["model.safetensors", query, "missing"]);
    let shape = refusal(|folder| {
        let mut tensors = tiny::tensors(&TINY);
        tensors.insert(query.to_owned(), (vec![64, 32], vec![0.0; 64 * 32]));
        tiny::write_tensors(folder, Dtype::F32, &tensors);
    });
    names(
        &shape,
        &["model.safetensors", query, "[64, 32]", "[64, 64]"],
    );
    for name in [
        "embeddings.LayerNorm.weight",
        "encoder.layer.0.output.dense.weight",
        "encoder.layer.0.output.dense.bias",
    ] {
        for value in [f32::NAN, f32::INFINITY] {
            let message = refusal(|folder| {
                let mut tensors = tiny::tensors(&TINY);
                if let Some((_, values)) = tensors.get_mut(name) {
                    values[5] = value;
                }
                tiny::write_tensors(folder, Dtype::F32, &tensors);
            });
            names(
                &message,
                &[
                    "model.safetensors",
                    name.trim_end_matches(".weight").trim_end_matches(".bias"),
                    "finite",
                ],
            );
        }
    }
    let number = refusal(|folder| {
        let path = folder.join("model.safetensors");
        let text = fs::read(&path).unwrap();
        let (at, _) = text
            .windows(5)
            .enumerate()
            .find(|(_, part)| part == b"\"F32\"")
            .unwrap();
        let mut text = text.clone();
        text[at..at + 5].copy_from_slice(b"\"I32\"");
        fs::write(&path, text).unwrap();
    });
    names(&number, &["model.safetensors", "I32"]);
}

#[test]
fn a_word_that_is_not_finite_gives_no_vector() {
    let folder = TINY.folder();
    let mut tensors = tiny::tensors(&TINY);
    let (_, words) = tensors
        .get_mut("embeddings.word_embeddings.weight")
        .unwrap();
    let river = tiny::vocabulary()
        .iter()
        .position(|word| word == "river")
        .unwrap();
    words[river * TINY.hidden] = f32::NAN;
    tiny::write_tensors(folder.path(), Dtype::F32, &tensors);
    let encoder = Encoder::open(folder.path()).unwrap();
    let good = encoder.encode("the garden", Role::Plain).unwrap();
    for _ in 0..3 {
        assert!(encoder.encode("the river is open", Role::Plain).is_err());
        assert_eq!(
            encoder.encode("the garden", Role::Plain).unwrap(),
            good,
            "nothing of it is left behind"
        );
    }
}

#[test]
fn weights_cut_anywhere_are_refused() {
    let folder = TINY.folder();
    let path = folder.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in [0, 1, 7, 8, 9, 100, 2000, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        names(
            &Encoder::open(folder.path()).err().unwrap().to_string(),
            &["model.safetensors"],
        );
    }
    let mut longer = whole.clone();
    longer.extend([0; 16]);
    fs::write(&path, longer).unwrap();
    names(
        &Encoder::open(folder.path()).err().unwrap().to_string(),
        &["model.safetensors"],
    );
}

#[test]
fn tokenizers_that_do_not_fit_are_refused() {
    let tokenizer = |change: &dyn Fn(&mut Value)| {
        refusal(|folder| {
            let mut tokenizer = tiny::tokenizer();
            change(&mut tokenizer);
            write(folder, "tokenizer.json", &tokenizer);
        })
    };
    names(
        &tokenizer(&|file| file["model"]["vocab"]["river"] = json!(7_000)),
        &["tokenizer.json", "7000", "vocab_size"],
    );
    names(
        &tokenizer(&|file| {
            file["post_processor"]["special_tokens"]["[CLS]"]["ids"] = json!([9_999])
        }),
        &["tokenizer.json", "9999"],
    );
    names(
        &tokenizer(&|file| file["post_processor"] = Value::Null),
        &["tokenizer.json", "0 tokens"],
    );
    names(
        &tokenizer(&|file| file["model"]["type"] = json!("Unheard")),
        &["tokenizer.json"],
    );
    names(
        &refusal(|folder| fs::write(folder.join("tokenizer.json"), b"\xff\xfe").unwrap()),
        &["tokenizer.json"],
    );
    let vocabulary = |text: &[u8]| {
        refusal(|folder| {
            fs::remove_file(folder.join("tokenizer.json")).unwrap();
            fs::write(folder.join("vocab.txt"), text).unwrap();
        })
    };
    names(&vocabulary(b"the\nriver\n"), &["vocab.txt", "[CLS]"]);
    names(&vocabulary(b"[CLS]\n[SEP]\n\xff"), &["vocab.txt", "UTF-8"]);
    let long = format!("[UNK]\n[CLS]\n[SEP]\n{}", "word\n".repeat(1000));
    let long = long.lines().enumerate().map(|(at, word)| {
        if at < 3 {
            format!("{word}\n")
        } else {
            format!("{word}{at}\n")
        }
    });
    names(
        &vocabulary(long.collect::<String>().as_bytes()),
        &["vocab.txt", "vocab_size"],
    );
}

/// Whatever byte of whichever file is changed: an error or a model, and never a panic.
#[test]
fn changed_bytes_never_panic() {
    let folder = TINY.folder();
    write(
        folder.path(),
        "1_Pooling/config.json",
        &json!({"pooling_mode_mean_tokens": true}),
    );
    write(
        folder.path(),
        "sentence_bert_config.json",
        &json!({"max_seq_length": 20}),
    );
    let mut random = Random(5);
    for file in [
        "config.json",
        "tokenizer.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "model.safetensors",
    ] {
        let path = folder.path().join(file);
        let whole = fs::read(&path).unwrap();
        // Of the weights only the header is worth it.
        let reach = whole.len().min(6_000) as u64;
        for _ in 0..60 {
            let mut changed = whole.clone();
            for _ in 0..=random.number() % 3 {
                let at = (random.number() % reach) as usize;
                changed[at] = match random.number() % 3 {
                    0 => random.number() as u8,
                    1 => b"0123456789\"{}[],:-"[(random.number() % 18) as usize],
                    _ => changed[at] ^ (1 << (random.number() % 8)),
                };
            }
            fs::write(&path, &changed).unwrap();
            if let Ok(encoder) = Encoder::open(folder.path()) {
                let _ = encoder.encode("The river, über alles: 日本 is open!", Role::Plain);
            }
        }
        fs::write(&path, whole).unwrap();
    }
}
