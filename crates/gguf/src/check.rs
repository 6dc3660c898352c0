//! What a header says, beyond its structure: the values that llama.cpp takes on trust.
//!
//! llama.cpp answers some wrong values with an error and others by ending the process (`GGML_ASSERT`, a division by
//! zero, an exception outside a `try`). The limits here are those of the version that Hearth is built with; a real
//! model that it can load keeps to all of them.

use crate::error::{Error, Problem};
use crate::families::Rules;
use crate::file::{File, Kind, PerLayer};
use crate::tensor::{Tensor, TensorType};
use crate::value::{Value, ValueType};
use crate::vocabulary;

/// Most layers (`LLAMA_MAX_LAYERS`).
const MOST_LAYERS: u64 = 512;
/// Most experts (`LLAMA_MAX_EXPERTS`).
const MOST_EXPERTS: u64 = 1024;
/// Ways to weigh experts, numbered from 1.
const EXPERT_GATES: u64 = 4;
/// Most heads of a layer.
const MOST_HEADS: u64 = 65_536;
/// Longest context, in tokens; ten million occur.
const LONGEST_CONTEXT: u64 = 1 << 30;
/// Longest vector of a token, a head or a feed-forward layer.
const LONGEST_VECTOR: u64 = 1 << 24;
/// Most tokens of a vocabulary; 262,144 occur.
pub(crate) const MOST_TOKENS: u64 = 1 << 22;
/// Most parts of a split model; their names have five digits.
const MOST_PARTS: u64 = 65_535;
/// Most bytes of a chat template; the longest have about 20 KiB.
const LONGEST_TEMPLATE: u64 = 1 << 20;

/// Kinds of position scaling that llama.cpp knows.
const ROPE_SCALINGS: [&str; 4] = ["none", "linear", "yarn", "longrope"];

/// Architectures that divide by a number of their own, which must not be 0: the number's key, who uses it.
const DIVISORS: &[(&str, &[&str])] = &[
    (
        "ssm.group_count",
        &[
            "mamba2",
            "granitehybrid",
            "nemotron_h",
            "nemotron_h_moe",
            "falcon-h1",
        ],
    ),
    (
        "ssm.time_step_rank",
        &[
            "mamba2",
            "granitehybrid",
            "nemotron_h",
            "nemotron_h_moe",
            "falcon-h1",
            "plamo2",
        ],
    ),
    (
        "full_attention_interval",
        &["qwen3next", "qwen35", "qwen35moe", "qwen4exp", "minimax-01"],
    ),
    ("interleave_moe_layer_step", &["ernie4_5-moe"]),
    ("experts_per_group", &["grovemoe"]),
    ("attention.output_group_count", &["deepseek4", "dflash"]),
    ("attention.indexer.block_size", &["minimax-m3"]),
    ("num_loops", &["nanbeige"]),
    ("hrm.layers_per_stack", &["hrm_text"]),
    ("hrm.h_cycles", &["hrm_text"]),
    ("hrm.l_cycles", &["hrm_text"]),
];

/// Checks the metadata of a file whose structure is sound, as far as its kind needs.
pub(crate) fn content(file: &File) -> Result<(), Error> {
    for key in ["general.architecture", "general.type", "adapter.type"] {
        text(file, key)?;
    }
    split(file)?;
    match file.kind() {
        Kind::Other => Ok(()),
        Kind::Part => weights(file),
        Kind::Projector => architecture(file).map(drop),
        Kind::Adapter => adapter(file),
        Kind::Vocabulary => vocabulary::check(file).and_then(|()| templates(file)),
        Kind::Model => {
            model(file)?;
            weights(file)?;
            vocabulary::check(file)?;
            templates(file)
        }
    }
}

/// The text of a key that must be one if it is there: UTF-8 without NUL.
pub(crate) fn text<'a>(file: &'a File, key: &str) -> Result<Option<&'a str>, Error> {
    match file.get(key) {
        None => Ok(None),
        Some(value @ Value::Text(_)) => match value.text() {
            Some(text) if !text.contains('\0') => Ok(Some(text)),
            _ => Err(Error::key(key, Problem::NotText)),
        },
        Some(value) => Err(wrong_type(key, value.kind(), "string")),
    }
}

pub(crate) fn wrong_type(key: &str, found: ValueType, wanted: &'static str) -> Error {
    Error::key(key, Problem::WrongType { found, wanted })
}

/// The number of a key that must be a u32 (which is what llama.cpp reads) within these bounds if it is there.
pub(crate) fn number(file: &File, key: &str, least: u64, most: u64) -> Result<Option<u64>, Error> {
    match file.get(key) {
        None => Ok(None),
        Some(Value::U32(value)) => between(key, value.into(), least, most).map(Some),
        Some(value) => Err(wrong_type(key, value.kind(), "u32")),
    }
}

fn between(key: &str, value: u64, least: u64, most: u64) -> Result<u64, Error> {
    match (least..=most).contains(&value) {
        true => Ok(value),
        false => Err(Error::key(key, Problem::OutOfRange { value, least, most })),
    }
}

/// A number that keeps a division from 0: not negative, and not "not a number".
fn small(file: &File, key: &str) -> Result<(), Error> {
    match file.get(key) {
        None => Ok(()),
        Some(Value::F32(value)) if value >= 0.0 => Ok(()),
        Some(Value::F32(value)) => Err(contradiction(
            key,
            format!("is {value} and must be 0 or more"),
        )),
        Some(value) => Err(wrong_type(key, value.kind(), "f32")),
    }
}

fn contradiction(key: &str, text: String) -> Error {
    Error::key(key, Problem::Contradiction(text))
}

fn architecture(file: &File) -> Result<&str, Error> {
    let key = "general.architecture";
    match text(file, key)? {
        Some(name) if !name.is_empty() => Ok(name),
        _ => Err(Error::key(key, Problem::Missing)),
    }
}

/// The keys of a split model. llama.cpp reads the part's number as a u16 without looking at its type.
fn split(file: &File) -> Result<(), Error> {
    let mut numbers = [0; 2];
    for (number, key) in numbers.iter_mut().zip(["split.count", "split.no"]) {
        match file.get(key) {
            None => {}
            Some(Value::U16(value)) => *number = value.into(),
            Some(value) => return Err(wrong_type(key, value.kind(), "u16")),
        }
    }
    let [count, no] = numbers;
    between("split.count", count, 0, MOST_PARTS)?;
    if no > 0 && no >= count {
        let problem = format!("is {no}, and `split.count` is {count}");
        return Err(contradiction("split.no", problem));
    }
    match file.get("split.tensors.count") {
        None | Some(Value::I32(0..)) => Ok(()),
        Some(Value::I32(_)) => Err(contradiction("split.tensors.count", "is negative".into())),
        Some(value) => Err(wrong_type("split.tensors.count", value.kind(), "i32")),
    }
}

fn adapter(file: &File) -> Result<(), Error> {
    architecture(file)?;
    match file.text("adapter.type") {
        Some("lora") => {}
        Some(other) => {
            let problem = format!("is `{}`, and only `lora` can be used", other.escape_debug());
            return Err(contradiction("adapter.type", problem));
        }
        None => return Err(Error::key("adapter.type", Problem::Missing)),
    }
    let key = "adapter.lora.alpha";
    match file.get(key) {
        None => {}
        Some(Value::F32(alpha)) if alpha.is_finite() => {}
        Some(Value::F32(_)) => return Err(contradiction(key, "is not a finite number".into())),
        Some(value) => return Err(wrong_type(key, value.kind(), "f32")),
    }
    for tensor in file.tensors() {
        if tensor.name.ends_with("_norm.weight") {
            // llama.cpp leaves these out.
            continue;
        }
        if tensor.shape.len() < 2 {
            let problem = Problem::Contradiction("is not a matrix".into());
            return Err(Error::tensor(&tensor.name, problem));
        }
        if !tensor.kind.multiplies() {
            return Err(unusable(tensor, "a type that can be multiplied"));
        }
    }
    Ok(())
}

fn unusable(tensor: &Tensor, wanted: &str) -> Error {
    let problem = format!("is of type {} and must be of {wanted}", tensor.kind);
    Error::tensor(&tensor.name, Problem::Contradiction(problem))
}

/// Types that llama.cpp can compute with where the tensor is used. It finds out about others in the middle of the work
/// and ends the process. What is added to or multiplied with a vector element by element is in 32-bit floats, as every
/// converter and quantiser leaves it; what is multiplied as a matrix has a type for that.
fn weights(file: &File) -> Result<(), Error> {
    for tensor in file.tensors() {
        if is_table(&tensor.name) {
            continue;
        }
        if is_elementwise(&tensor.name) && tensor.kind != TensorType::F32 {
            return Err(unusable(tensor, "type F32"));
        }
        if !tensor.kind.multiplies() {
            return Err(unusable(tensor, "a type that can be multiplied"));
        }
    }
    Ok(())
}

/// Tables of numbers: of a token's experts, and of a draft vocabulary's tokens.
fn is_table(name: &str) -> bool {
    name.ends_with("ffn_gate_tid2eid.weight") || name == "d2t"
}

/// Norms, biases, scales, and the small weights of convolutions, positions and states.
fn is_elementwise(name: &str) -> bool {
    const ENDS: [&str; 8] = [
        "attn_sinks.weight",
        "ssm_conv1d.weight",
        "shortconv.conv.weight",
        "token_types.weight",
        "layer_output_scale.weight",
        ".ssm_a",
        ".ssm_d",
        ".scale",
    ];
    name.ends_with(".bias")
        || name.ends_with(".weight") && (name.contains("norm") || name.starts_with("rope_"))
        || ENDS.iter().any(|end| name.ends_with(end))
}

fn model(file: &File) -> Result<(), Error> {
    let architecture = architecture(file)?;
    let own = |name: &str| format!("{architecture}.{name}");
    let optional = |name: &str, least, most| number(file, &own(name), least, most);
    let required = |name: &str, most| {
        let key = own(name);
        number(file, &key, 1, most)?.ok_or_else(|| Error::key(&key, Problem::Missing))
    };
    let layers = required("block_count", MOST_LAYERS)?;
    required("context_length", LONGEST_CONTEXT)?;
    let width = required("embedding_length", LONGEST_VECTOR)?;
    optional("nextn_predict_layers", 0, layers)?;
    optional("vocab_size", 0, MOST_TOKENS)?;
    optional("attention.key_length", 0, LONGEST_VECTOR)?;
    optional("attention.value_length", 0, LONGEST_VECTOR)?;
    per_layer(file, &own("feed_forward_length"), layers, LONGEST_VECTOR)?;
    heads(file, &own, layers, width)?;
    experts(file, &own, layers)?;
    for name in [
        "layer_norm_epsilon",
        "layer_norm_rms_epsilon",
        "group_norm_epsilon",
    ] {
        small(file, &own(&format!("attention.{name}")))?;
    }
    let key = own("rope.scaling.type");
    if let Some(kind) = text(file, &key)?
        && !ROPE_SCALINGS.contains(&kind)
    {
        let problem = format!(
            "is `{}` and must be one of {}",
            kind.escape_debug(),
            ROPE_SCALINGS.join(", ")
        );
        return Err(contradiction(&key, problem));
    }
    for (name, users) in DIVISORS {
        if users.contains(&architecture) {
            optional(name, 1, u64::from(u32::MAX))?;
        }
    }
    Ok(())
}

/// A number that may be given for each layer, and then for all of them.
fn per_layer(file: &File, key: &str, layers: u64, most: u64) -> Result<Option<PerLayer>, Error> {
    let wanted = "u32, or an array of u32 or i32";
    let Some(array) = file.array(key) else {
        return Ok(number(file, key, 0, most)?.map(PerLayer::All));
    };
    if !matches!(array.item(), ValueType::U32 | ValueType::I32) {
        return Err(wrong_type(key, array.item(), wanted));
    }
    if array.len() != layers {
        let problem = format!("has {} numbers for {layers} layers", array.len());
        return Err(contradiction(key, problem));
    }
    let numbers: Vec<u64> = array.numbers().collect();
    if numbers.len() as u64 != layers {
        return Err(contradiction(key, "has a negative number".into()));
    }
    for number in &numbers {
        between(key, *number, 0, most)?;
    }
    Ok(Some(PerLayer::Each(numbers)))
}

/// Heads: some, unless the model works without attention, and query heads in equal groups over the KV heads.
fn heads(file: &File, own: &impl Fn(&str) -> String, layers: u64, width: u64) -> Result<(), Error> {
    let (key, kv_key) = (own("attention.head_count"), own("attention.head_count_kv"));
    let heads = per_layer(file, &key, layers, MOST_HEADS)?;
    let kv_heads = per_layer(file, &kv_key, layers, MOST_HEADS)?;
    // State space and RWKV models have no heads.
    let attentive = !["ssm.", "wkv.", "convnext."].iter().any(|prefix| {
        let prefix = own(prefix);
        file.metadata().any(|(key, _)| key.starts_with(&prefix))
    });
    let Some(heads) = heads.filter(|heads| heads.most() > 0) else {
        return match attentive {
            true if file.get(&key).is_none() => Err(Error::key(&key, Problem::Missing)),
            true => between(&key, 0, 1, MOST_HEADS).map(drop),
            false => Ok(()),
        };
    };
    let rules = Rules::of(file.architecture().unwrap_or_default());
    for layer in 0..layers {
        let number = heads.of(layer).unwrap_or(0);
        let kv = kv_heads.as_ref().map_or(Some(number), |kv| kv.of(layer));
        let kv = kv.unwrap_or(0);
        if rules.attends {
            between(&key, number, 1, MOST_HEADS)?;
            between(&kv_key, kv, 1, MOST_HEADS)?;
        }
        if number > 0 && kv > 0 && number % kv != 0 {
            let problem = format!("is {kv}, which does not divide the {number} of `{key}`");
            return Err(contradiction(&kv_key, problem));
        }
    }
    let Some(share) = width.checked_div(heads.of(0).unwrap_or(0)) else {
        return Ok(());
    };
    let length = |name: &str, other| file.number(&own(name)).unwrap_or(other);
    let key_length = length("attention.key_length", share);
    let value_length = length("attention.value_length", share);
    if rules.attends {
        between(&own("attention.key_length"), key_length, 1, LONGEST_VECTOR)?;
    }
    if rules.same_lengths && key_length != value_length {
        let problem =
            format!("is {key_length}, and the length of a head's values is {value_length}");
        return Err(contradiction(&own("attention.key_length"), problem));
    }
    for (name, length) in [("key_length", key_length), ("value_length", value_length)] {
        if rules.uniform {
            number(file, &own(&format!("attention.{name}_swa")), length, length)?;
        }
    }
    if rules.compresses {
        compressed(file, own, layers)?;
    }
    // Rotated are pairs of a head's elements; layers with a window may have heads of another length.
    let least = if rules.rotates { 2 } else { 0 };
    for end in ["", "_swa"] {
        let head = length(&format!("attention.key_length{end}"), key_length);
        let key = own(&format!("rope.dimension_count{end}"));
        let given = number(file, &key, least, head)?;
        let Some(rotated) = given.or(rules.wholly_rotated.then_some(head)) else {
            continue;
        };
        if rules.wholly_rotated && rotated != head {
            return Err(contradiction(
                &key,
                format!("is {rotated} and must be {head}"),
            ));
        }
        if rotated % 2 != 0 {
            return Err(contradiction(
                &key,
                format!("is {rotated} and must be even"),
            ));
        }
    }
    Ok(())
}

/// Multi-head latent attention: one vector for all heads, which is the compressed pair with the rotated elements.
fn compressed(file: &File, own: &impl Fn(&str) -> String, layers: u64) -> Result<(), Error> {
    let exactly = |name: &str, value: u64| {
        let key = own(name);
        let found = number(file, &key, value, value)?;
        found.ok_or_else(|| Error::key(&key, Problem::Missing))
    };
    let length = file.own_number("attention.key_length_mla");
    let Some(key_length) = length.filter(|length| *length > 0) else {
        return Ok(());
    };
    let rotated = file.own_number("rope.dimension_count").unwrap_or(0);
    let rank = file.own_number("attention.kv_lora_rank").unwrap_or(0);
    exactly("rope.dimension_count", rotated)?;
    between(
        &own("attention.key_length_mla"),
        key_length,
        rotated.saturating_add(1),
        LONGEST_VECTOR,
    )?;
    exactly("attention.head_count_kv", 1)?;
    exactly("attention.key_length", rank.saturating_add(rotated))?;
    exactly("attention.value_length", rank)?;
    number(file, &own("nextn_predict_layers"), 0, layers - 1)?;
    Ok(())
}

/// Experts: llama.cpp ends the process where these do not hold.
fn experts(file: &File, own: &impl Fn(&str) -> String, layers: u64) -> Result<(), Error> {
    let count = number(file, &own("expert_count"), 0, MOST_EXPERTS)?.unwrap_or(0);
    let used_key = own("expert_used_count");
    let each = per_layer(file, &used_key, layers, u64::from(u32::MAX))?;
    let used = each.as_ref().map_or(0, PerLayer::most);
    let groups_key = own("expert_group_count");
    let groups = number(file, &groups_key, 0, u64::from(u32::MAX))?.unwrap_or(0);
    // Two families say 1 for none.
    let dense = ["hunyuan_vl", "hunyuan-dense"];
    let name = file.architecture().unwrap_or_default();
    if count <= 1 && dense.contains(&name) {
        return Ok(());
    }
    if count == 0 {
        between(&used_key, used, 0, 0)?;
        return between(&groups_key, groups, 0, 0).map(drop);
    }
    let key = own("expert_gating_func");
    if number(file, &key, 1, EXPERT_GATES)?.is_none() && Rules::of(name).needs_gate {
        return Err(Error::key(&key, Problem::Missing));
    }
    between(&used_key, used, 1, count)?;
    if let Some(PerLayer::Each(each)) = each
        && Rules::of(name).attends
    {
        let least = each.into_iter().min().unwrap_or(0);
        between(&used_key, least, 1, count)?;
    }
    between(&groups_key, groups, 0, count - 1)?;
    if groups > 1 {
        if count % groups != 0 {
            let problem = format!("is {groups}, which does not divide the {count} experts");
            return Err(contradiction(&groups_key, problem));
        }
        let key = own("expert_group_used_count");
        let used = number(file, &key, 0, u64::from(u32::MAX))?.unwrap_or(0);
        between(&key, used, 1, groups - 1)?;
    }
    Ok(())
}

/// Chat templates: text of a sane length.
fn templates(file: &File) -> Result<(), Error> {
    for (key, _) in file.metadata() {
        let template = match key.strip_prefix("tokenizer.chat_template") {
            Some(rest) => rest.is_empty() || rest.starts_with('.'),
            None => false,
        };
        if !template {
            continue;
        }
        let length = text(file, key)?.unwrap_or_default().len() as u64;
        if length > LONGEST_TEMPLATE {
            let problem = Problem::TooMany {
                count: length,
                what: "bytes",
                most: LONGEST_TEMPLATE,
            };
            return Err(Error::key(key, problem));
        }
    }
    Ok(())
}
