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
    let spelled = spelled(tokens);
    distinct(&spelled)?;
    match tokenizer {
        "gpt2" | "gemma4" => merges(file)?,
        "llama" => bytes(&spelled)?,
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

/// The tokens as llama.cpp reads them: up to their first NUL.
fn spelled(tokens: Array<'_>) -> Vec<&[u8]> {
    let spelled = tokens.texts().map(|token| {
        let end = token.iter().position(|byte| *byte == 0);
        &token[..end.unwrap_or(token.len())]
    });
    spelled.collect()
}

/// Every token is another one. llama.cpp calls an empty one `[EMPTY_n]`, and ends the process when two are the same.
fn distinct(tokens: &[&[u8]]) -> Result<(), Error> {
    let twice = |index: usize| {
        let token = crate::error::shown(tokens[index]);
        let problem = format!("has the token `{token}` twice, the second time as number {index}");
        Error::key(TOKENS, Problem::Contradiction(problem))
    };
    // Sorted by digest, and the few with the same digest by their bytes: faster than a set, and nobody can choose
    // tokens that make it slow.
    let named = tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| !token.is_empty());
    let mut order: Vec<(u64, u32)> = named
        .map(|(index, token)| (digest(token), index as u32))
        .collect();
    order.sort_unstable();
    for alike in order.chunk_by_mut(|a, b| a.0 == b.0) {
        let token = |entry: &(u64, u32)| tokens[entry.1 as usize];
        alike.sort_unstable_by(|a, b| token(a).cmp(token(b)).then(a.1.cmp(&b.1)));
        for pair in alike.windows(2) {
            if token(&pair[0]) == token(&pair[1]) {
                return Err(twice(pair[1].1 as usize));
            }
        }
    }
    for (index, token) in tokens.iter().enumerate() {
        let number = token
            .strip_prefix(b"[EMPTY_")
            .and_then(|rest| rest.strip_suffix(b"]"));
        let number = number.and_then(|digits| std::str::from_utf8(digits).ok());
        let other = number.and_then(|digits| digits.parse::<usize>().ok());
        if other.is_some_and(|other| tokens.get(other).is_some_and(|token| token.is_empty())) {
            return Err(twice(index));
        }
    }
    Ok(())
}

/// A number that differs for most bytes that differ.
fn digest(bytes: &[u8]) -> u64 {
    // An odd number of random bits, as in Fibonacci hashing.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |digest: u64, word: u64| (digest ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let (words, rest) = bytes.as_chunks::<8>();
    let digest = words.iter().fold(bytes.len() as u64, |digest, word| {
        mix(digest, u64::from_le_bytes(*word))
    });
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(mix(digest, u64::from_le_bytes(last)), 0)
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
fn bytes(tokens: &[&[u8]]) -> Result<(), Error> {
    let known: HashSet<&[u8]> = tokens
        .iter()
        .copied()
        .filter(|token| matches!(token.len(), 1 | 6))
        .collect();
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
