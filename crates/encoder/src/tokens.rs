//! Texts to token numbers, by the model's own tokenizer.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokenizers::{PreTokenizerWrapper, Tokenizer};

use crate::error::Error;
use crate::folder::{Config, missing, read};

/// Largest tokenizer file that is read.
const LONGEST: u64 = 64 << 20;

/// The tokens of a text.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    /// At least one, at most the model's longest text, each a row of its embeddings.
    pub(crate) numbers: Vec<u32>,
    /// Whether the text has more.
    pub(crate) truncated: bool,
}

/// A tokenizer that fits its model.
pub(crate) struct Splitter {
    tokenizer: Tokenizer,
    most: usize,
    vocabulary: usize,
    lower_case: bool,
    /// Whether no token reaches over a space, so that the beginning of a text has the beginning of its tokens.
    splits_at_spaces: bool,
}

impl Splitter {
    /// Opens `tokenizer.json`, or `vocab.txt` where that is absent. Also returns the bytes that were read.
    pub(crate) fn open(folder: &Path, config: &Config) -> Result<(Self, Vec<u8>), Error> {
        let mut path = folder.join("tokenizer.json");
        let mut bytes = read(&path, LONGEST)?;
        if bytes.is_none() && fs::exists(folder.join("vocab.txt")).unwrap_or(false) {
            path = folder.join("vocab.txt");
            bytes = Some(from_vocabulary(folder, &path)?);
        }
        let Some(bytes) = bytes else {
            return Err(missing(&path));
        };
        let mut tokenizer = Tokenizer::from_bytes(&bytes)
            .map_err(|error| Error::file(&path, format!("is not a tokenizer: {error}")))?;
        // Texts are cut here and never padded.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| Error::file(&path, error.to_string()))?;
        let splits_at_spaces = matches!(
            tokenizer.get_pre_tokenizer(),
            Some(PreTokenizerWrapper::BertPreTokenizer(_))
        );
        let splitter = Self {
            tokenizer,
            most: config.max_tokens,
            vocabulary: config.vocabulary,
            lower_case: config.lower_case,
            splits_at_spaces,
        };
        let largest = splitter.tokenizer.get_vocab(true).into_values().max();
        if let Some(largest) = largest.filter(|largest| *largest as usize >= config.vocabulary) {
            let problem = format!(
                "has a token {largest}, but `vocab_size` in config.json is {}",
                config.vocabulary
            );
            return Err(Error::file(&path, problem));
        }
        let empty = splitter
            .numbers("")
            .map_err(|error| Error::file(&path, error.to_string()))?;
        if empty.0.is_empty() || empty.0.len() >= config.max_tokens {
            let problem = format!(
                "puts {} tokens around a text; it must be at least 1 and leave room below {}",
                empty.0.len(),
                config.max_tokens
            );
            return Err(Error::file(&path, problem));
        }
        Ok((splitter, bytes))
    }

    /// All tokens of a text, and how many of the last ones the tokenizer added itself.
    fn numbers(&self, text: &str) -> Result<(Vec<u32>, usize), Error> {
        let text = match self.lower_case {
            true => Cow::Owned(text.to_lowercase()),
            false => Cow::Borrowed(text),
        };
        let encoding = self
            .tokenizer
            .encode_fast(text, true)
            .map_err(|error| Error::Tokens(error.to_string()))?;
        let numbers = encoding.get_ids();
        if let Some(number) = numbers
            .iter()
            .find(|number| **number as usize >= self.vocabulary)
        {
            let problem = format!(
                "token {number} is not one of the model's {}",
                self.vocabulary
            );
            return Err(Error::Tokens(problem));
        }
        let special = encoding.get_special_tokens_mask();
        let added = special.iter().rev().take_while(|mask| **mask == 1).count();
        Ok((numbers.to_vec(), added))
    }

    /// How many tokens a text has, however long it is.
    pub(crate) fn count(&self, text: &str) -> Result<usize, Error> {
        Ok(self.numbers(text)?.0.len())
    }

    /// The tokens of a text, cut after the model's longest.
    pub(crate) fn split(&self, text: &str) -> Result<Tokens, Error> {
        // Of a huge text only the beginning is looked at: as much as gives enough tokens.
        let mut length = self.most * 24;
        while self.splits_at_spaces && length < text.len() {
            let beginning = &text.as_bytes()[..length];
            if let Some(space) = beginning.iter().rposition(|byte| *byte == b' ') {
                let (mut numbers, added) = self.numbers(&text[..space])?;
                if numbers.len() >= self.most {
                    cut(&mut numbers, added, self.most);
                    let truncated = true;
                    return Ok(Tokens { numbers, truncated });
                }
            }
            length *= 8;
        }
        let (mut numbers, added) = self.numbers(text)?;
        let truncated = numbers.len() > self.most;
        if truncated {
            cut(&mut numbers, added, self.most);
        }
        Ok(Tokens { numbers, truncated })
    }
}

/// Shortens `numbers` to `most`, of which the last `added` stay the last.
fn cut(numbers: &mut Vec<u32>, added: usize, most: usize) {
    let added = added.min(most);
    let end = numbers.len() - added;
    numbers.drain(most - added..end);
}

#[derive(Deserialize, Default)]
struct Settings {
    do_lower_case: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
}

/// The `tokenizer.json` that BERT's `vocab.txt`, one token a line, and `tokenizer_config.json` stand for.
fn from_vocabulary(folder: &Path, path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = read(path, LONGEST)?.ok_or_else(|| missing(path))?;
    let text = String::from_utf8(bytes).map_err(|_| Error::file(path, "is not UTF-8"))?;
    let settings = folder.join("tokenizer_config.json");
    let settings: Settings = match read(&settings, 1 << 20)? {
        None => Settings::default(),
        Some(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| Error::file(&settings, format!("is not as expected: {error}")))?,
    };
    let vocabulary: Map<String, Value> = text
        .lines()
        .enumerate()
        .map(|(number, token)| (token.to_owned(), json!(number)))
        .collect();
    let special = |token: &str| {
        let number = vocabulary.get(token).cloned();
        number.ok_or_else(|| Error::file(path, format!("has no token {token}")))
    };
    let (begin, end) = (special("[CLS]")?, special("[SEP]")?);
    let mut added = Vec::new();
    for token in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] {
        let Some(number) = vocabulary.get(token) else {
            continue;
        };
        added.push(json!({
            "id": number, "content": token, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false,
        }));
    }
    special("[UNK]")?;
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": settings.tokenize_chinese_chars.unwrap_or(true),
            "strip_accents": settings.strip_accents,
            "lowercase": settings.do_lower_case.unwrap_or(true),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", end], "cls": ["[CLS]", begin]},
        "decoder": null,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    });
    Ok(tokenizer.to_string().into_bytes())
}
