//! The vocabulary of a file: tokens, their scores, types and merges, and the tokens with a task.

use std::collections::HashSet;

use crate::check::{MOST_TOKENS, text, wrong_type};
use crate::error::{Error, Problem};
use crate::file::{File, Special};
use crate::value::{Array, Value, ValueType};

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";

/// Checks the vocabulary of a model.
pub(crate) fn check(file: &File) -> Result<(), Error> {
    let tokenizer = match text(file, MODEL)? {
        Some(tokenizer) => tokenizer,
        None => return Err(Error::key(MODEL, Problem::Missing)),
    };
    text(file, "tokenizer.ggml.pre")?;
    if matches!(tokenizer, "none" | "no_vocab") {
        return Ok(());
    }
    let Some(tokens) = array(file, TOKENS, &[ValueType::Text], "array of strings")? else {
        return Err(Error::key(TOKENS, Problem::Missing));
    };
    let count = tokens.len();
    if !(1..=MOST_TOKENS).contains(&count) {
        let problem = Problem::OutOfRange {
            value: count,
            least: 1,
            most: MOST_TOKENS,
        };
        return Err(Error::key(TOKENS, problem));
    }
    let scores = array(
        file,
        SCORES,
        &[ValueType::F32, ValueType::I32],
        "array of f32",
    )?;
    let types = array(file, TYPES, &[ValueType::I32], "array of i32")?;
    for (key, array) in [(SCORES, scores), (TYPES, types)] {
        if let Some(array) = array
            && array.len() != count
        {
            let problem = format!("has {} entries for {count} tokens", array.len());
            return Err(Error::key(key, Problem::Contradiction(problem)));
        }
    }
    let known = distinct(tokens)?;
    match tokenizer {
        "gpt2" | "gemma4" => merges(file)?,
        "llama" => bytes(&known)?,
        _ => {}
    }
    specials(file, tokenizer, count)
}

/// The array of a key that must be one of these types if it is there.
fn array<'a>(
    file: &'a File,
    key: &str,
    items: &[ValueType],
    wanted: &'static str,
) -> Result<Option<Array<'a>>, Error> {
    match file.get(key) {
        None => Ok(None),
        Some(Value::Array(array)) if items.contains(&array.item()) => Ok(Some(array)),
        Some(Value::Array(array)) => Err(wrong_type(key, array.item(), wanted)),
        Some(value) => Err(wrong_type(key, value.kind(), wanted)),
    }
}

/// All tokens, each of which must be another one. llama.cpp reads a token up to its first NUL and calls an empty one
/// `[EMPTY_n]`; it ends the process when two are the same after that.
fn distinct(tokens: Array<'_>) -> Result<HashSet<&[u8]>, Error> {
    // A token takes at least eight bytes of the file, so this is in proportion to it.
    let mut known = HashSet::with_capacity(usize::try_from(tokens.len()).unwrap_or(0));
    let mut unnamed = Vec::new();
    let twice = |index: u64, token: &[u8]| {
        let token = crate::error::shown(token);
        let problem = format!("has the token `{token}` twice, the second time as number {index}");
        Error::key(TOKENS, Problem::Contradiction(problem))
    };
    for (index, token) in (0u64..).zip(tokens.texts()) {
        let end = token.iter().position(|byte| *byte == 0);
        let token = &token[..end.unwrap_or(token.len())];
        if token.is_empty() {
            unnamed.push(index);
        } else if !known.insert(token) {
            return Err(twice(index, token));
        }
    }
    for index in unnamed {
        let stand_in = format!("[EMPTY_{index}]");
        if known.contains(stand_in.as_bytes()) {
            return Err(twice(index, stand_in.as_bytes()));
        }
    }
    Ok(known)
}

/// Byte-level BPE: each merge is two pieces with a blank between them.
fn merges(file: &File) -> Result<(), Error> {
    let Some(merges) = array(file, MERGES, &[ValueType::Text], "array of strings")? else {
        // llama.cpp knows one vocabulary that needs none.
        return Ok(());
    };
    for (index, merge) in (0u64..).zip(merges.texts()) {
        // The first piece may begin with a blank.
        if !merge.iter().skip(1).any(|byte| *byte == b' ') {
            let merge = crate::error::shown(merge);
            let problem = format!("has `{merge}` as number {index}, which is not a pair of pieces");
            return Err(Error::key(MERGES, Problem::Contradiction(problem)));
        }
    }
    Ok(())
}

/// SentencePiece: text that no token fits is written byte by byte, so there is a token for each. llama.cpp throws an
/// exception that nobody catches where there is none.
fn bytes(known: &HashSet<&[u8]>) -> Result<(), Error> {
    for byte in 0..=u8::MAX {
        let token = format!("<0x{byte:02X}>");
        if !known.contains(token.as_bytes()) && !known.contains([byte].as_slice()) {
            let problem = format!("has no token for the byte {byte} (`{token}`)");
            return Err(Error::key(TOKENS, Problem::Contradiction(problem)));
        }
    }
    Ok(())
}

/// Tokens that begin and end texts are in the vocabulary, and are there if they are to be added. Numbers of the other
/// special tokens may be beyond it (−1 for none, or a model's that was cut out of a larger one); they are ignored.
fn specials(file: &File, tokenizer: &str, count: u64) -> Result<(), Error> {
    for special in [Special::Bos, Special::Eos, Special::Eot, Special::Eom] {
        let key = special.key();
        let number = match file.get(key) {
            None => continue,
            Some(Value::U32(u32::MAX)) => continue,
            Some(Value::U32(number)) => u64::from(number),
            Some(value) => return Err(wrong_type(key, value.kind(), "u32")),
        };
        if number >= count {
            let problem = format!("is {number}, and the vocabulary has {count} tokens");
            return Err(Error::key(key, Problem::Contradiction(problem)));
        }
    }
    // What llama.cpp takes where the file says nothing.
    let (bos, eos, adds_bos) = match tokenizer {
        "gpt2" => (Some(11), Some(11), false),
        "llama" | "plamo2" => (Some(1), Some(2), true),
        "bert" => (Some(101), None, true),
        "t5" => (None, Some(1), false),
        _ => (None, None, false),
    };
    let adds = [
        ("tokenizer.ggml.add_bos_token", Special::Bos, bos, adds_bos),
        ("tokenizer.ggml.add_eos_token", Special::Eos, eos, false),
    ];
    for (key, special, default, adds) in adds {
        let adds = match file.get(key) {
            None => adds,
            Some(Value::Bool(adds)) => adds,
            Some(value) => return Err(wrong_type(key, value.kind(), "bool")),
        };
        let token = file.special(special).or(default);
        if adds && token.is_none_or(|token| token >= count) {
            return Err(Error::key(special.key(), Problem::Missing));
        }
    }
    // WordPiece puts both around every text, whatever the file says.
    if tokenizer == "bert" {
        for (special, default) in [(Special::Bos, 101), (Special::Separator, 102)] {
            if file.special(special).unwrap_or(default) >= count {
                return Err(Error::key(special.key(), Problem::Missing));
            }
        }
    }
    Ok(())
}
