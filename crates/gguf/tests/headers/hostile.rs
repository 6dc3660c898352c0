//! Files that must be refused, each for its own reason.

use hearth_gguf::{Error, File, Place, Problem};

use crate::writer::{Data, Gguf};

/// The refusal, whose text must hold all of these words.
#[track_caller]
fn refused(bytes: &[u8], words: &[&str]) -> Error {
    let error = File::parse(bytes).map(|_| ()).unwrap_err();
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    assert!(text.ends_with(error.advice()), "{text}");
    error
}

#[track_caller]
fn refused_with(key: &str, value: Data, words: &[&str]) {
    let error = refused(&Gguf::model().with(key, value).bytes(), words);
    assert_eq!(*error.place(), Place::Key(key.into()), "{error}");
}

#[test]
fn the_model_that_the_others_are_made_from_passes() {
    File::parse(&Gguf::model().bytes()).unwrap();
    let version_2 = Gguf {
        version: 2,
        ..Gguf::model()
    };
    assert_eq!(File::parse(&version_2.bytes()).unwrap().version(), 2);
}

#[test]
fn what_is_no_gguf_file() {
    for bytes in [
        &b""[..],
        b"GG",
        b"PK\x03\x04 and so on, long enough for a header",
    ] {
        let error = refused(
            bytes,
            &["is not a GGUF file", "get the model in GGUF format"],
        );
        assert_eq!(*error.problem(), Problem::NotGguf);
    }
    for (version, words) in [
        (0, "GGUF version 0"),
        (1, "GGUF version 1"),
        (4, "GGUF version 4"),
        (3 << 24, "big-endian"),
        (2 << 24, "big-endian"),
        (u32::MAX, "GGUF version 4294967295"),
    ] {
        let file = Gguf {
            version,
            ..Gguf::model()
        };
        refused(&file.bytes(), &[words]);
    }
}

#[test]
fn a_file_cut_short_anywhere() {
    let whole = Gguf::model().bytes();
    let header = Gguf::model().header().len();
    for length in 0..whole.len() {
        let error = File::parse(&whole[..length]).map(|_| ()).unwrap_err();
        let expected = match error.problem() {
            Problem::NotGguf => length < 4,
            Problem::Truncated { .. } => length < header,
            Problem::OutsideFile { .. } => length >= header,
            _ => false,
        };
        assert!(expected, "{length} of {}: {error}", whole.len());
        assert!(length < 4 || error.advice().contains("download it again"));
    }
}

#[test]
fn counts_beyond_the_file() {
    let model = Gguf::model();
    for count in [3, 1000, 262_145, 1 << 40, u64::MAX] {
        let file = Gguf {
            tensor_count: Some(count),
            ..model.clone()
        };
        File::parse(&file.header()).map(|_| ()).unwrap_err();
        let file = Gguf {
            key_count: Some(count.saturating_add(30)),
            ..model.clone()
        };
        File::parse(&file.bytes()).map(|_| ()).unwrap_err();
    }
    let many = Gguf {
        tensor_count: Some(u64::MAX),
        ..model.clone()
    };
    refused(&many.bytes(), &["18446744073709551615 tensors", "at most"]);
    let many = Gguf {
        key_count: Some(1 << 32),
        ..model
    };
    refused(&many.bytes(), &["4294967296 metadata keys", "at most"]);
}

#[test]
fn lengths_beyond_the_file() {
    for length in [1 << 20, 1 << 40, u64::MAX, u64::MAX - 7] {
        let text = Data::Raw(8, u64::to_le_bytes(length).to_vec());
        refused_with("general.name", text, &["`general.name` is cut short"]);
        for item in 0..=12u32 {
            let mut raw = item.to_le_bytes().to_vec();
            raw.extend(length.to_le_bytes());
            let array = Data::Raw(9, raw);
            refused_with("general.tags", array, &["`general.tags` is cut short"]);
        }
    }
    let mut file = Gguf::model().bytes();
    // The first key's length.
    file[24..32].copy_from_slice(&(1u64 << 62).to_le_bytes());
    refused(&file, &["bytes of a metadata key", "at most 65535"]);
}

#[test]
fn values_of_no_type_and_arrays_of_arrays() {
    refused_with(
        "general.x",
        Data::Raw(13, vec![0; 8]),
        &["metadata type 13"],
    );
    refused_with(
        "general.x",
        Data::Raw(9, [99u32.to_le_bytes().as_slice(), &[0; 8]].concat()),
        &["metadata type 99"],
    );
    let nested = |depth: usize| {
        let inner = Data::Array(4, vec![Data::U32(7)]);
        (1..depth).fold(inner, |array, _| Data::Array(9, vec![array]))
    };
    let two = Gguf::model().with("general.x", nested(2)).bytes();
    File::parse(&two).unwrap();
    for depth in [3, 4, 100, 5000] {
        refused_with("general.x", nested(depth), &["array of arrays of arrays"]);
    }
}

#[test]
fn keys_that_are_no_names() {
    for key in [&b"bad\xff"[..], b"general.name\0x", b"general.\ntwo"] {
        let file = Gguf::model().also(key, Data::U32(1));
        refused(&file.bytes(), &["is not text"]);
    }
    let file = Gguf::model().also(b"", Data::U32(1));
    refused(&file.bytes(), &["has an empty name"]);
    let twice = Gguf::model().also(b"general.name", Data::text("Other"));
    refused(&twice.bytes(), &["`general.name` is there twice"]);
}

#[test]
fn tensors_of_impossible_shape() {
    let with = |name: &str, shape: &[u64], kind| {
        let mut file = Gguf::model();
        let data = file.data;
        file = file.tensor(name, &[1], 0);
        let last = file.tensors.last_mut().unwrap();
        (last.shape, last.kind, last.offset) = (shape.to_vec(), kind, data);
        file.bytes()
    };
    File::parse(&with("x", &[], 0)).unwrap();
    refused(
        &with("x", &[64, 0], 0),
        &["tensor `x`", "dimension of length 0"],
    );
    refused(
        &with("x", &[1, 1, 1, 1, 1], 0),
        &["tensor `x`", "5 dimensions"],
    );
    refused(
        &with("x", &[1 << 32, 1 << 32], 0),
        &["more elements than can be counted"],
    );
    refused(
        &with("x", &[1 << 62], 28),
        &["more elements than can be counted"],
    );
    refused(
        &with("x", &[u64::MAX], 24),
        &["more elements than can be counted"],
    );
    refused(
        &with("x", &[1 << 40], 0),
        &["tensor `x`", "ends at byte", "incomplete"],
    );
    for kind in [4, 5, 31, 33, 36, 38, 43, 1000, u32::MAX] {
        refused(
            &with("x", &[1], kind),
            &["tensor `x`", &format!("tensor type {kind}")],
        );
    }
    refused(
        &with("x", &[33], 8),
        &["rows of 33 elements", "block of 32"],
    );
    refused(&with("x", &[], 8), &["rows of 1 elements", "block of 32"]);
    refused(
        &with("x", &[128, 2], 12),
        &["rows of 128 elements", "block of 256"],
    );
    let long = "n".repeat(64);
    refused(
        &with(&long, &[1], 0),
        &["64 bytes of a tensor's name", "at most 63"],
    );
    refused(
        &with("output_norm.weight", &[1], 0),
        &["`output_norm.weight` is there twice"],
    );
}

/// llama.cpp would end the process at the first token.
#[test]
fn tensors_of_types_that_cannot_be_computed_with() {
    let with = |name: &str, shape: &[u64], kind| Gguf::model().tensor(name, shape, kind).bytes();
    File::parse(&with("blk.0.ffn_gate_tid2eid.weight", &[4, 16], 26)).unwrap();
    File::parse(&with("blk.0.attn_q.weight", &[64, 64], 1)).unwrap();
    refused(
        &with("blk.0.attn_q.weight", &[64, 64], 26),
        &["`blk.0.attn_q.weight` is of type I32"],
    );
    refused(
        &with("blk.0.attn_q.weight", &[64, 64], 9),
        &["is of type Q8_1"],
    );
    refused(
        &with("blk.0.attn_norm.weight", &[64], 8),
        &["is of type Q8_0 and must be of type F32"],
    );
    refused(
        &with("blk.0.attn_q_norm.weight", &[64, 4], 1),
        &["is of type F16 and must be of type F32"],
    );
}

#[test]
fn tensors_in_impossible_places() {
    let mut file = Gguf::model();
    file.tensors[1].offset += 4;
    refused(
        &file.bytes(),
        &[
            "`output_norm.weight` starts at offset",
            "multiple of the alignment 32",
        ],
    );
    let mut file = Gguf::model();
    file.tensors[1].offset = 32;
    refused(
        &file.bytes(),
        &["`output_norm.weight` lies over tensor `token_embd.weight`"],
    );
    let mut file = Gguf::model();
    for offset in [1 << 40, u64::MAX - 31] {
        file.tensors[1].offset = offset;
        refused(&file.bytes(), &["`output_norm.weight` ends at byte"]);
    }
}

#[test]
fn alignments() {
    let with = |alignment| refused_with("general.alignment", alignment, &[]);
    for wrong in [0, 1, 4, 24, 33, 1 << 17, 1 << 31, u32::MAX] {
        with(Data::U32(wrong));
    }
    with(Data::U64(32));
    with(Data::text("32"));
    for alignment in [8, 64, 4096] {
        let mut file = Gguf::model().with("general.alignment", Data::U32(alignment));
        file.alignment = alignment.into();
        file.tensors[1].offset = (64 * 16 * 4u64).next_multiple_of(file.alignment);
        file.data = file.tensors[1].offset + 64 * 4;
        let file = File::parse(&file.bytes()).unwrap();
        assert_eq!(file.alignment(), alignment.into());
        assert_eq!(file.data_offset() % u64::from(alignment), 0);
    }
}

#[test]
fn architectures() {
    for key in [
        "general.architecture",
        "llama.block_count",
        "llama.context_length",
        "llama.embedding_length",
    ] {
        let file = Gguf::model().without(key).bytes();
        let error = refused(&file, &["is missing", "not a model that Hearth can load"]);
        assert_eq!(*error.place(), Place::Key(key.into()));
    }
    refused_with("general.architecture", Data::text(""), &["is missing"]);
    refused_with(
        "general.architecture",
        Data::U32(7),
        &["is of type u32 and must be string"],
    );
    refused_with(
        "general.architecture",
        Data::text("llama\0"),
        &["is not text"],
    );
    refused_with("general.type", Data::F32(1.0), &["is of type f32"]);
}

#[test]
fn counts_that_no_model_has() {
    for (key, wrong) in [
        ("llama.block_count", &[0, 513, 10_001, u32::MAX][..]),
        ("llama.context_length", &[0, u32::MAX]),
        ("llama.embedding_length", &[0, u32::MAX]),
        ("llama.feed_forward_length", &[u32::MAX]),
        ("llama.attention.head_count", &[0, 65_537, u32::MAX]),
        ("llama.attention.head_count_kv", &[65_537]),
        ("llama.attention.key_length", &[u32::MAX]),
        ("llama.vocab_size", &[u32::MAX]),
        ("llama.nextn_predict_layers", &[3]),
        ("llama.expert_used_count", &[1]),
        ("llama.expert_group_count", &[1]),
        ("llama.rope.dimension_count", &[17, 18, 4096]),
    ] {
        for wrong in wrong {
            refused_with(key, Data::U32(*wrong), &[&format!("is {wrong}")]);
        }
    }
    refused_with(
        "llama.block_count",
        Data::text("2"),
        &["is of type string and must be u32"],
    );
    refused_with(
        "llama.block_count",
        Data::I32(-2),
        &["is of type i32 and must be u32"],
    );
    let each = |numbers: &[i32]| Data::Array(5, numbers.iter().map(|n| Data::I32(*n)).collect());
    let key = "llama.attention.head_count_kv";
    refused_with(key, Data::U32(3), &["is 3, which does not divide the 4"]);
    refused_with(key, each(&[2]), &["has 1 numbers for 2 layers"]);
    refused_with(key, each(&[2, -2]), &["has a negative number"]);
    refused_with(key, each(&[2, 3]), &["is 3, which does not divide the 4"]);
    refused_with(key, Data::texts(["2", "2"]), &["is of type string"]);
    refused_with(key, each(&[0, 2]), &["is 0 and must be 1 to"]);
    refused_with(
        "llama.attention.key_length",
        Data::U32(8),
        &["is 8, and the length of a head's values is 16"],
    );
    refused_with(
        "llama.rope.dimension_count",
        Data::U32(8),
        &["is 8 and must be 16"],
    );
    for (wrong, text) in [(-1.0, "is -1"), (f32::NAN, "is NaN")] {
        refused_with(
            "llama.attention.layer_norm_rms_epsilon",
            Data::F32(wrong),
            &[text],
        );
    }
}

#[test]
fn experts_that_do_not_fit_together() {
    let with = |numbers: [u32; 4]| {
        let names = [
            "expert_count",
            "expert_used_count",
            "expert_group_count",
            "expert_group_used_count",
        ];
        let model = Gguf::model();
        let file = names
            .iter()
            .zip(numbers)
            .fold(model, |file, (name, number)| {
                file.with(&format!("llama.{name}"), Data::U32(number))
            });
        File::parse(&file.bytes()).map(|_| ())
    };
    for good in [
        [0, 0, 0, 0],
        [8, 2, 0, 0],
        [8, 2, 1, 1],
        [256, 8, 8, 4],
        [1024, 1024, 0, 0],
    ] {
        with(good).unwrap();
    }
    for bad in [
        [8, 0, 0, 0],
        [8, 9, 0, 0],
        [1025, 2, 0, 0],
        [8, 2, 8, 1],
        [8, 2, 3, 1],
        [8, 2, 4, 0],
        [8, 2, 4, 4],
    ] {
        with(bad).unwrap_err();
    }
    for wrong in [0, 5] {
        let file = Gguf::model()
            .with("llama.expert_count", Data::U32(8))
            .with("llama.expert_used_count", Data::U32(2))
            .with("llama.expert_gating_func", Data::U32(wrong));
        refused(
            &file.bytes(),
            &["`llama.expert_gating_func`", "must be 1 to 4"],
        );
    }
}

#[test]
fn latent_attention_that_does_not_fit_together() {
    let keys = [
        ("rope.dimension_count", 16),
        ("attention.head_count_kv", 1),
        ("attention.kv_lora_rank", 32),
        ("attention.key_length", 48),
        ("attention.value_length", 32),
        ("attention.key_length_mla", 24),
    ];
    let name = |key: &str| format!("deepseek2.{key}");
    let model = keys.iter().fold(
        Gguf::model()
            .with("general.architecture", Data::text("deepseek2"))
            .with("deepseek2.block_count", Data::U32(2))
            .with("deepseek2.context_length", Data::U32(512))
            .with("deepseek2.embedding_length", Data::U32(64))
            .with("deepseek2.attention.head_count", Data::U32(4)),
        |file, (key, value)| file.with(&name(key), Data::U32(*value)),
    );
    File::parse(&model.bytes()).unwrap();
    for key in [
        "rope.dimension_count",
        "attention.head_count_kv",
        "attention.key_length",
    ] {
        let without = model.clone().without(&name(key));
        refused(&without.bytes(), &[&name(key), "is missing"]);
    }
    for (key, wrong) in [
        ("attention.head_count_kv", 2),
        ("attention.key_length", 64),
        ("attention.value_length", 16),
        ("attention.key_length_mla", 16),
        ("nextn_predict_layers", 2),
    ] {
        let changed = model.clone().with(&name(key), Data::U32(wrong));
        refused(&changed.bytes(), &[&format!("`{}` is {wrong}", name(key))]);
    }
}

#[test]
fn divisors_and_words_that_must_be_known() {
    refused_with(
        "llama.rope.scaling.type",
        Data::text("sideways"),
        &["is `sideways`", "yarn"],
    );
    let hybrid = Gguf::new()
        .with("general.architecture", Data::text("qwen3next"))
        .with("qwen3next.block_count", Data::U32(2))
        .with("qwen3next.context_length", Data::U32(512))
        .with("qwen3next.embedding_length", Data::U32(64))
        .with("qwen3next.attention.head_count", Data::U32(4))
        .with("qwen3next.full_attention_interval", Data::U32(0))
        .tensor("token_embd.weight", &[64, 16], 0);
    refused(
        &hybrid.bytes(),
        &["`qwen3next.full_attention_interval` is 0"],
    );
    let bare = Gguf::model();
    let bare = Gguf {
        tensors: Vec::new(),
        ..bare
    };
    assert_eq!(
        File::parse(&bare.bytes()).unwrap().kind(),
        hearth_gguf::Kind::Vocabulary
    );
}

#[test]
fn vocabularies_that_do_not_fit_together() {
    let tokens = "tokenizer.ggml.tokens";
    refused_with("tokenizer.ggml.model", Data::U32(1), &["must be string"]);
    refused(
        &Gguf::model().without("tokenizer.ggml.model").bytes(),
        &["`tokenizer.ggml.model` is missing"],
    );
    refused(
        &Gguf::model().without(tokens).bytes(),
        &["`tokenizer.ggml.tokens` is missing"],
    );
    refused_with(tokens, Data::text("a"), &["must be array of strings"]);
    refused_with(
        tokens,
        Data::Array(4, vec![Data::U32(1)]),
        &["is of type u32"],
    );
    refused_with(
        tokens,
        Data::Array(8, Vec::new()),
        &["is 0 and must be 1 to"],
    );
    let types = |n| Data::Array(5, vec![Data::I32(1); n]);
    refused_with(
        "tokenizer.ggml.token_type",
        types(15),
        &["has 15 entries for 16 tokens"],
    );
    refused_with(
        "tokenizer.ggml.token_type",
        types(17),
        &["has 17 entries for 16 tokens"],
    );
    let scores = Data::Array(6, vec![Data::F32(0.0); 3]);
    refused_with(
        "tokenizer.ggml.scores",
        scores,
        &["has 3 entries for 16 tokens"],
    );
    refused_with(
        "tokenizer.ggml.scores",
        Data::Array(8, vec![Data::text("1"); 16]),
        &["must be array of f32"],
    );
    for special in ["bos", "eos", "eot", "eom"] {
        let key = format!("tokenizer.ggml.{special}_token_id");
        refused_with(
            &key,
            Data::U32(16),
            &["is 16, and the vocabulary has 16 tokens"],
        );
        refused_with(&key, Data::I32(-1), &["must be u32"]);
    }
    for merge in ["ab", "", " ", "ab\tc"] {
        refused_with(
            "tokenizer.ggml.merges",
            Data::texts(["a b", merge]),
            &["as number 1, which is not a pair"],
        );
    }
    refused_with(
        "tokenizer.ggml.merges",
        Data::text("a b"),
        &["must be array of strings"],
    );
}

#[test]
fn tokens_that_are_there_twice() {
    let tokens = |last: &[u8]| {
        let mut tokens: Vec<Vec<u8>> = (0..15).map(|n| format!("t{n}").into_bytes()).collect();
        tokens[5] = Vec::new();
        tokens.push(last.to_vec());
        Data::texts(tokens)
    };
    let key = "tokenizer.ggml.tokens";
    File::parse(&Gguf::model().with(key, tokens(b"\xff\xfe")).bytes()).unwrap();
    refused_with(key, tokens(b"t3"), &["the token `t3` twice", "number 15"]);
    // llama.cpp reads up to the NUL, and gives empty tokens a name.
    refused_with(key, tokens(b"t3\0x"), &["the token `t3` twice"]);
    refused_with(key, tokens(b"[EMPTY_5]"), &["`[EMPTY_5]` twice"]);
}

#[test]
fn vocabularies_that_would_end_the_process_later() {
    let pieces: Vec<String> = (0..=255u8).map(|byte| format!("<0x{byte:02X}>")).collect();
    let llama = Gguf::model()
        .with("tokenizer.ggml.model", Data::text("llama"))
        .with("tokenizer.ggml.tokens", Data::texts(&pieces))
        .without("tokenizer.ggml.token_type");
    File::parse(&llama.bytes()).unwrap();
    let fewer = llama.with("tokenizer.ggml.tokens", Data::texts(&pieces[..255]));
    refused(&fewer.bytes(), &["has no token for the byte 255"]);
    let adds = Gguf::model()
        .without("tokenizer.ggml.eos_token_id")
        .with("tokenizer.ggml.tokens", Data::texts(["a", "b"]))
        .without("tokenizer.ggml.token_type")
        .with("tokenizer.ggml.add_eos_token", Data::Bool(true));
    refused(&adds.bytes(), &["`tokenizer.ggml.eos_token_id` is missing"]);
}

#[test]
fn chat_templates_of_any_length_but_a_sane_one() {
    for key in [
        "tokenizer.chat_template",
        "tokenizer.chat_template.tool_use",
    ] {
        let most = Gguf::model().with(key, Data::text(&"x".repeat(1 << 20)));
        File::parse(&most.bytes()).unwrap();
        refused_with(
            key,
            Data::text(&"x".repeat((1 << 20) + 1)),
            &["1048577 bytes", "at most 1048576"],
        );
        refused_with(key, Data::Text(b"\xff{{".to_vec()), &["is not text"]);
        refused_with(key, Data::U8(1), &["must be string"]);
    }
}

#[test]
fn adapters_that_llama_cpp_would_not_survive() {
    let adapter = Gguf::new()
        .with("general.architecture", Data::text("llama"))
        .with("general.type", Data::text("adapter"))
        .with("adapter.type", Data::text("lora"))
        .with("adapter.lora.alpha", Data::F32(16.0))
        .tensor("blk.0.attn_q.weight.lora_a", &[64, 8], 0);
    let passed = File::parse(&adapter.bytes()).unwrap();
    assert_eq!(passed.kind(), hearth_gguf::Kind::Adapter);
    for (key, value, word) in [
        ("general.architecture", Data::U32(1), "must be string"),
        ("adapter.type", Data::U32(1), "must be string"),
        ("adapter.type", Data::text("control"), "only `lora`"),
        ("adapter.lora.alpha", Data::U32(16), "must be f32"),
        ("adapter.lora.alpha", Data::F32(f32::NAN), "not a finite"),
    ] {
        refused(&adapter.clone().with(key, value).bytes(), &[key, word]);
    }
    let numbers = adapter
        .clone()
        .tensor("blk.0.attn_q.weight.lora_b", &[8, 64], 26);
    refused(&numbers.bytes(), &["lora_b` is of type I32", "multiplied"]);
    let flat = adapter.tensor("blk.0.attn_q.weight.lora_b", &[64], 0);
    refused(&flat.bytes(), &["lora_b", "is not a matrix"]);
}

#[test]
fn names_from_the_file_are_cut_and_escaped_in_messages() {
    let key = format!("x.{}\u{1b}[31m", "y".repeat(500));
    let file = Gguf::model().also(key.as_bytes(), Data::U32(1));
    let text = refused(&file.bytes(), &["is not text"]).to_string();
    assert!(text.len() < 250 && !text.contains('\u{1b}'), "{text}");
}
