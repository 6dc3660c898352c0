//! Models in several files, and the adapters that belong to them.

use std::path::{Path, PathBuf};

use hearth_gguf::{File, Model, Problem, parts};

use crate::writer::{Data, Gguf};

fn part(file: Gguf, no: u16, count: u16, tensors: i32) -> Gguf {
    file.with("split.no", Data::U16(no))
        .with("split.count", Data::U16(count))
        .with("split.tensors.count", Data::I32(tensors))
}

/// Three parts with four tensors, in a folder of their own.
fn written(change: impl Fn(usize, Gguf) -> Gguf) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m-00001-of-00003.gguf");
    let files = [
        part(Gguf::model(), 0, 3, 4),
        part(Gguf::new(), 1, 3, 4).tensor("blk.0.ffn_up.weight", &[64, 2], 0),
        part(Gguf::new(), 2, 3, 4).tensor("blk.1.ffn_up.weight", &[64, 2], 0),
    ];
    for (no, (file, path)) in files.into_iter().zip(parts(&path)).enumerate() {
        std::fs::write(path, change(no, file).bytes()).unwrap();
    }
    (folder, path)
}

#[test]
fn names_of_parts() {
    let names = |path: &str| -> Vec<String> {
        let parts = parts(Path::new(path)).into_iter();
        parts.map(|path| path.display().to_string()).collect()
    };
    assert_eq!(
        names("a/b-00002-of-00003.gguf"),
        [
            "a/b-00001-of-00003.gguf",
            "a/b-00002-of-00003.gguf",
            "a/b-00003-of-00003.gguf"
        ]
    );
    for single in [
        "a/b.gguf",
        "b-1-of-3.gguf",
        "b-00004-of-00003.gguf",
        "b-00000-of-00003.gguf",
        "b-00001-of-00003",
        "",
        "/",
    ] {
        assert_eq!(names(single), [single]);
    }
}

#[test]
fn all_parts_are_one_model() {
    let (_folder, path) = written(|_, file| file);
    let model = Model::open(&path).unwrap();
    assert_eq!(model.files().count(), 3);
    assert_eq!(model.tensors().count(), 4);
    assert_eq!(model.parameters(), 64 * 16 + 64 + 2 * 128);
    let sizes = parts(&path)
        .iter()
        .map(|path| std::fs::metadata(path).unwrap().len())
        .sum();
    assert_eq!(model.size(), sizes);
    assert_eq!(model.first().split().unwrap().tensors, Some(4));
}

#[test]
fn a_part_that_is_missing_or_another_one() {
    let (_folder, path) = written(|_, file| file);
    let second = &parts(&path)[1];
    let error = Model::open(second).unwrap_err();
    assert_eq!(*error.problem(), Problem::LaterPart { no: 2 });
    assert_eq!(error.path(), Some(second.as_path()));

    std::fs::copy(&parts(&path)[2], second).unwrap();
    let error = Model::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("00002-of-00003.gguf: the file is part 3 of 3 by its metadata"),
        "{error}"
    );

    std::fs::remove_file(second).unwrap();
    let error = Model::open(&path).unwrap_err();
    assert_eq!(*error.problem(), Problem::PartMissing(second.clone()));
    assert!(error.to_string().contains("download all parts"));

    let renamed = path.with_file_name("m.gguf");
    std::fs::rename(&path, &renamed).unwrap();
    let error = Model::open(&renamed).unwrap_err().to_string();
    assert!(
        error.contains("does not end in -00001-of-00003.gguf"),
        "{error}"
    );
}

#[test]
fn parts_that_do_not_fit_together() {
    let refused = |change: &dyn Fn(usize, Gguf) -> Gguf, words: &str| {
        let (_folder, path) = written(change);
        let error = Model::open(&path).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(
        &|no, file| {
            if no == 2 {
                file.tensor("output_norm.weight", &[1], 0)
            } else {
                file
            }
        },
        "tensor `output_norm.weight` is there twice",
    );
    refused(
        &|no, file| {
            if no == 2 {
                file.tensor("x", &[1], 0)
            } else {
                file
            }
        },
        "`split.tensors.count` is 4, and the parts have 5 tensors",
    );
    refused(
        &|no, file| {
            if no == 1 {
                file.with("split.no", Data::U32(1))
            } else {
                file
            }
        },
        "`split.no` is of type u32 and must be u16",
    );
    refused(
        &|no, file| {
            if no == 1 {
                file.with("split.no", Data::U16(3))
            } else {
                file
            }
        },
        "`split.no` is 3, and `split.count` is 3",
    );
    refused(
        &|no, file| {
            if no == 1 {
                file.with("split.count", Data::U16(4))
            } else {
                file
            }
        },
        "is part 2 of 4 by its metadata",
    );
    refused(
        &|no, mut file| {
            if no == 1 {
                file.data = 0;
            }
            file
        },
        "00002-of-00003.gguf: tensor `blk.0.ffn_up.weight` ends at byte",
    );
}

#[test]
fn adapters_of_other_models() {
    let (_folder, path) = written(|_, file| file);
    let model = Model::open(&path).unwrap();
    let refused = |adapter: Gguf, words: &str| {
        let adapter = File::parse(&adapter.bytes()).unwrap();
        let error = model.check_adapter(&adapter).unwrap_err().to_string();
        assert!(
            error.contains(words) && error.contains("model it was made for"),
            "{error}"
        );
    };
    let adapter = |architecture| {
        Gguf::new()
            .with("general.architecture", Data::text(architecture))
            .with("general.type", Data::text("adapter"))
            .with("adapter.type", Data::text("lora"))
    };
    let fits = adapter("llama")
        .tensor("blk.0.ffn_up.weight.lora_a", &[64, 8], 0)
        .tensor("blk.0.ffn_up.weight.lora_b", &[8, 2], 0)
        .tensor("token_embd.weight.lora_a", &[8, 16], 0)
        .tensor("token_embd.weight.lora_b", &[8, 64], 0);
    model
        .check_adapter(&File::parse(&fits.bytes()).unwrap())
        .unwrap();
    refused(adapter("qwen3"), "is `qwen3`, and the model's is `llama`");
    let one = |name: &str, shape: &[u64]| adapter("llama").tensor(name, shape, 0);
    refused(one("blk.9.ffn_up.weight.lora_a", &[64, 8]), "does not have");
    refused(
        one("blk.0.ffn_up.weight", &[64, 8]),
        "neither a lora_a nor a lora_b",
    );
    refused(
        one("blk.0.ffn_up.weight.lora_a", &[32, 8]),
        "has the shape [32, 8]",
    );
    refused(
        one("blk.0.ffn_up.weight.lora_b", &[8, 3]),
        "has the shape [8, 3]",
    );
    refused(
        one("blk.0.ffn_up.weight.lora_a", &[64, 8, 2]),
        "has the shape [64, 8, 2]",
    );
    let uneven =
        one("token_embd.weight.lora_a", &[8, 16]).tensor("token_embd.weight.lora_b", &[4, 64], 0);
    refused(uneven, "has rank 4, and its other side has 8");
    let itself = model.check_adapter(model.first()).unwrap_err();
    assert!(matches!(itself.problem(), Problem::WrongKind { .. }));
}
