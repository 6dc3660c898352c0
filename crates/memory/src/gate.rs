//! The write gate: what a text must be to be remembered, and whether it says something new. Pure.

use std::collections::HashSet;

use hearth_protocol::memory::{MOST_NAME, MOST_SOURCE, MOST_TAGS, MOST_TEXT, Memory, NewMemory};
use sha2::{Digest, Sha256};

use crate::Error;

/// Cosine from which two memories count as saying nearly the same. Paraphrases of one sentence reach it with the
/// MiniLM and bge encoders, two facts of one topic seldom do.
const NEARLY_THE_SAME: f32 = 0.92;
/// Share of words that two texts have in common (Jaccard) from which they do so without an encoder.
const NEARLY_THE_SAME_WORDS: f32 = 0.8;
/// Words that a part of a recalled memory must have to be recognised.
const LEAST_RECALLED: usize = 5;
/// Share of a memory's words that are as good as the memory, where none of the others denies or limits them.
const MOST_RECALLED: f32 = 0.8;
/// What a kind is called when nobody says.
const USUAL_KIND: &str = "note";

/// A memory that passed the first part of the gate: every field is as it will be stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Checked {
    pub text: String,
    pub kind: String,
    pub project: Option<String>,
    pub tags: Vec<String>,
    pub confidence: f32,
    /// `None` is as that whose place it takes.
    pub pinned: Option<bool>,
    pub source: Option<String>,
    pub supersedes: Option<String>,
}

/// Checks and tidies every field.
pub(crate) fn check(new: &NewMemory) -> Result<Checked, Error> {
    Ok(Checked {
        text: text(&new.text)?,
        kind: kind(new.kind.as_deref().unwrap_or(USUAL_KIND))?,
        project: project(new.project.as_deref())?,
        tags: tags(&new.tags)?,
        confidence: confidence("confidence", new.confidence.unwrap_or(1.0))?,
        pinned: new.pinned.then_some(true),
        source: source("source", new.source.as_deref())?,
        supersedes: new.supersedes.clone(),
    })
}

/// Checks and tidies a memory of an export, which somebody may have edited.
pub(crate) fn restored(memory: Memory) -> Result<Memory, Error> {
    let digits = memory.id.strip_prefix("mem-").unwrap_or_default();
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != 32 || !digits.bytes().all(is_digit) {
        return Err(Error::invalid(
            "id",
            format!(
                "{:.50?} is not `mem-` and 32 hexadecimal digits in lower case",
                memory.id
            ),
        ));
    }
    Ok(Memory {
        text: text(&memory.text)?,
        kind: kind(&memory.kind)?,
        project: project(memory.project.as_deref())?,
        tags: tags(&memory.tags)?,
        confidence: confidence("confidence", memory.confidence)?,
        source: source("source", memory.source.as_deref())?,
        ..memory
    })
}

/// A text without the blanks around it, its line ends as `\n`, its other control characters gone.
pub(crate) fn text(text: &str) -> Result<String, Error> {
    if text.len() > MOST_TEXT {
        return Err(Error::invalid(
            "text",
            format!(
                "it has {} bytes, and a memory at most {MOST_TEXT}; divide it",
                text.len()
            ),
        ));
    }
    let unix = text.replace("\r\n", "\n");
    let kept = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    let text: String = unix.chars().filter(kept).collect();
    match text.trim() {
        "" => Err(Error::invalid("text", "it is empty; say what to remember")),
        text => Ok(text.to_owned()),
    }
}

/// A kind, in lower case.
pub(crate) fn kind(kind: &str) -> Result<String, Error> {
    name("kind", kind).map(|kind| kind.to_lowercase())
}

/// A project; an empty one is none.
pub(crate) fn project(project: Option<&str>) -> Result<Option<String>, Error> {
    match project.map(str::trim) {
        None | Some("") => Ok(None),
        Some(project) => name("project", project).map(Some),
    }
}

/// Tags in lower case, sorted, each once.
pub(crate) fn tags(tags: &[String]) -> Result<Vec<String>, Error> {
    if tags.len() > MOST_TAGS {
        return Err(Error::invalid(
            "tags",
            format!("there are {}, and at most {MOST_TAGS} are kept", tags.len()),
        ));
    }
    let mut tags = tags
        .iter()
        .map(|tag| name("tags", tag).map(|tag| tag.to_lowercase()))
        .collect::<Result<Vec<_>, _>>()?;
    tags.sort_unstable();
    tags.dedup();
    Ok(tags)
}

/// A number from 0 to 1.
pub(crate) fn confidence(field: &'static str, value: f32) -> Result<f32, Error> {
    match (0.0..=1.0).contains(&value) {
        true => Ok(value),
        false => Err(Error::invalid(
            field,
            format!("it must be 0 to 1, not {value}"),
        )),
    }
}

/// Where something comes from, if it is said.
pub(crate) fn source(field: &'static str, source: Option<&str>) -> Result<Option<String>, Error> {
    match source.map(str::trim) {
        None | Some("") => Ok(None),
        Some(source) if source.chars().count() > MOST_SOURCE => Err(Error::invalid(
            field,
            format!("it has more than {MOST_SOURCE} characters"),
        )),
        Some(source) => Ok(Some(source.to_owned())),
    }
}

fn name(field: &'static str, name: &str) -> Result<String, Error> {
    let name = name.trim();
    let wrong = if name.is_empty() {
        "is empty"
    } else if name.chars().any(char::is_control) {
        "holds a line end or another control character"
    } else if name.chars().count() > MOST_NAME {
        "is too long"
    } else {
        return Ok(name.to_owned());
    };
    Err(Error::invalid(
        field,
        format!("{name:.40?} {wrong}; give 1 to {MOST_NAME} characters on one line"),
    ))
}

/// What marks of sentences a word may end with.
const ENDS: [char; 4] = ['.', '!', '?', '…'];

/// A sentence, or a line that is none: an item, a heading.
#[derive(Default)]
struct Sentence {
    /// Its words as they are compared.
    words: Vec<String>,
    /// The mark at its end.
    mark: Option<char>,
}

impl Sentence {
    fn denies(&self) -> bool {
        self.words.iter().any(|word| is_denial(word))
    }

    /// Whether it speaks for itself, and not of what comes after it as a heading or a question does.
    fn is_statement(&self) -> bool {
        self.mark.is_some_and(|mark| mark != '?')
    }
}

/// The sentences of a text. A new one begins behind the mark of one and in a new line, but not with a small letter: that
/// is an abbreviation, or a line that was broken. It does with an item of a list, and behind an empty line.
fn sentences(text: &str) -> Vec<Sentence> {
    let mut all: Vec<Sentence> = Vec::new();
    let mut begins = true;
    for line in text.lines() {
        let words = unmarked(line);
        begins |= words.is_empty() || words.len() < line.trim().len();
        let mut is_first = true;
        for raw in words.split_whitespace() {
            let is_small = raw
                .chars()
                .find(|c| c.is_alphanumeric())
                .is_some_and(char::is_lowercase);
            let after_mark = all.last().is_some_and(|last| last.mark.is_some());
            if begins || !is_small && (is_first || after_mark) {
                all.push(Sentence::default());
            }
            (begins, is_first) = (false, false);
            if let Some(sentence) = all.last_mut() {
                let end = raw.trim_end_matches(|c| QUOTES.contains(c) || ")]}".contains(c));
                sentence.mark = end.chars().next_back().filter(|c| ENDS.contains(c));
                sentence.words.push(bare(raw));
            }
        }
    }
    all
}

/// Marks of quotations, and of code.
const QUOTES: &str = "\"'`´“”‘’";

/// A word as it is compared: in lower case, without quotes, brackets that are not its own, and the marks behind
/// statements. What is nothing but marks stands as it is, and so do signs that make another word of it: `C++` and `C` are
/// two words, and so are `3.10` and `3.1`, `_private` and `private`, `f()` and `f`.
fn bare(raw: &str) -> String {
    let mut word = raw;
    loop {
        let before = word.len();
        word = word
            .trim_matches(|c| QUOTES.contains(c))
            .trim_end_matches(|c| ".,;:!…".contains(c));
        for (open, close) in [('(', ')'), ('[', ']'), ('{', '}')] {
            let inner = word.strip_prefix(open);
            word = match inner.and_then(|inner| inner.strip_suffix(close)) {
                Some(inner) => inner,
                None if !word.contains(close) => inner.unwrap_or(word),
                None if inner.is_none() && !word.contains(open) => {
                    word.strip_suffix(close).unwrap_or(word)
                }
                None => word,
            };
        }
        if word.is_empty() {
            return raw.to_lowercase();
        }
        if word.len() == before {
            return word.to_lowercase();
        }
    }
}

/// A line without the mark of a list. Before a number it is none: it may be a minus.
fn unmarked(line: &str) -> &str {
    let line = line.trim();
    let rest = line
        .strip_prefix(['-', '*', '•'])
        .filter(|rest| rest.starts_with(char::is_whitespace))
        .map(str::trim_start);
    rest.filter(|rest| !is_number(rest)).unwrap_or(line)
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('.').unwrap_or(text);
    digits.starts_with(char::is_numeric)
}

/// Whether a word turns what stands beside it into something else: its opposite, or so only at times.
fn is_denial(word: &str) -> bool {
    const DENIALS: [&str; 44] = [
        "no",
        "not",
        "never",
        "none",
        "nobody",
        "nothing",
        "nowhere",
        "neither",
        "nor",
        "cannot",
        "without",
        "unless",
        "until",
        "except",
        "if",
        "only",
        "instead",
        "hardly",
        "rarely",
        "seldom",
        "stop",
        "stopped",
        "avoid",
        "against",
        "forbidden",
        "false",
        "wrong",
        "untrue",
        "former",
        "formerly",
        "nicht",
        "kein",
        "keine",
        "keinen",
        "nie",
        "niemals",
        "ohne",
        "ne",
        "pas",
        "jamais",
        "sans",
        "nunca",
        "sin",
        "non",
    ];
    DENIALS.contains(&word) || word.ends_with("n't") || word.ends_with("n’t")
}

/// The words of a text as they are compared.
fn words(text: &str) -> Vec<String> {
    let sentences = sentences(text).into_iter();
    sentences.flat_map(|sentence| sentence.words).collect()
}

/// What texts that say the same with other blanks, capitals and sentence marks have in common.
pub(crate) fn fingerprint(text: &str) -> [u8; 32] {
    Sha256::digest(words(text).join(" ").as_bytes()).into()
}

/// How a text stands to a memory that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Likeness {
    /// It is a part of it, as one cites what one was told.
    Part,
    /// It says nearly the same.
    Near,
    /// It says something else.
    Other,
}

/// Compares a text with a memory's; `similarity` is the cosine of their vectors, if both have one.
pub(crate) fn likeness(new: &str, old: &str, similarity: Option<f32>) -> Likeness {
    let (new, sentences) = (words(new), sentences(old));
    if new.len() >= LEAST_RECALLED && is_part(&new, &sentences) {
        return Likeness::Part;
    }
    let old: Vec<String> = sentences.into_iter().flat_map(|old| old.words).collect();
    let is_near = match similarity {
        Some(similarity) => similarity >= NEARLY_THE_SAME,
        None => {
            let new: HashSet<&String> = new.iter().collect();
            let old: HashSet<&String> = old.iter().collect();
            let common = new.intersection(&old).count() as f32;
            let all = new.union(&old).count().max(1) as f32;
            common / all >= NEARLY_THE_SAME_WORDS
        }
    };
    match is_near {
        true => Likeness::Near,
        false => Likeness::Other,
    }
}

/// Whether these words are what the sentences say, and not the half of it that says something else.
fn is_part(new: &[String], old: &[Sentence]) -> bool {
    let all: Vec<&String> = old.iter().flat_map(|sentence| &sentence.words).collect();
    let most = new.len() as f32 >= MOST_RECALLED * all.len() as f32;
    let denies = |words: &[&String]| words.iter().any(|word| is_denial(word));
    let stands = |at: usize| all[at..].iter().zip(new).all(|(old, new)| *old == new);
    let starts = 0..(all.len() + 1).saturating_sub(new.len());
    let mut covers = starts.filter(|at| stands(*at));
    if most && covers.any(|at| !denies(&all[..at]) && !denies(&all[at + new.len()..])) {
        return true;
    }
    (0..old.len()).any(|from| {
        let mut left = new;
        let mut to = from;
        while let Some(sentence) = old.get(to).filter(|_| !left.is_empty()) {
            match left.strip_prefix(sentence.words.as_slice()) {
                Some(rest) => left = rest,
                None => return false,
            }
            to += 1;
        }
        // "We no longer do this:", and an item; a claim, and "This is not so any more."
        let before = old[..from].iter().enumerate();
        let mut spoken_of = before.filter(|(at, old)| at + 1 == from || !old.is_statement());
        left.is_empty()
            && !spoken_of.any(|(_, old)| old.denies())
            && !old.get(to).is_some_and(Sentence::denies)
    })
}

/// The pieces of a text that may each be a memory that somebody cites: its lines, without the marks of lists and
/// quotations, and without the ids in brackets that recalled memories carry.
pub(crate) fn citations(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| without_ids(unmarked(unquoted(line))).trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}

/// A line without the marks of a quotation. Before a number it is none: it may be "more than".
fn unquoted(line: &str) -> &str {
    let mut line = line.trim();
    while let Some(rest) = line.strip_prefix('>').map(str::trim_start) {
        if is_number(rest) || rest.starts_with('=') {
            break;
        }
        line = rest;
    }
    line
}

/// A text without `[mem-…]`.
fn without_ids(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("[mem-") {
        let Some(end) = rest[at..].find(']') else {
            break;
        };
        out.push_str(&rest[..at]);
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_same_in_other_clothes_is_the_same_and_another_number_is_not() {
        let same = |a: &str, b: &str| fingerprint(a) == fingerprint(b);
        assert!(same("The port is 8321.", "the  port is \"8321\""));
        assert!(same("Use tabs!", "- use tabs"));
        assert!(!same("the port is 8321", "the port is 8322"));
        assert!(!same("use C", "use C++"));
        assert!(!same("Python 3.1", "Python 3.10"));
        assert!(!same("!!!", "???"));
        assert!(!same("Keep batches < 64", "Keep batches > 64"));
        assert!(!same("Keep batches <64", "Keep batches >64."));
        assert!(!same("call it _private", "call it private"));
        assert!(!same("import *", "import"));
        assert!(!same("the offset is -5", "the offset is 5"));
        assert!(!same("the offset is - 5", "the offset is 5"));
        assert!(!same("- 5", "5") && !same("a - b", "a b"));
        assert!(!same("an int[] of them", "an int of them") && !same("f()", "f"));
        assert!(!same("it is {}", "it is []") && !same("it is :)", "it is :("));
        assert!(!same("We deploy on Fridays?", "We deploy on Fridays."));
        assert!(same("(see [the notes])", "See the notes"));
        assert!(same("one,\n* two (or so).", "one two or so"));
    }

    #[test]
    fn a_part_is_recognised_and_a_phrase_is_not() {
        let old = "We chose SQLite because one file is easy to back up. Revisit at ten users.";
        let part = |new: &str, old: &str| likeness(new, old, None) == Likeness::Part;
        assert!(part(
            "we chose SQLite because one file is easy to back up",
            old
        ));
        assert!(!part("one file is easy to back up", old));
        assert!(!part("We chose SQLite", old));
        assert!(part(old, old));
        // Most of it will do.
        let old = "We keep everything in one SQLite file because it is easy to move";
        assert!(part(
            "everything in one SQLite file because it is easy to move",
            old
        ));
        assert!(!part("We keep everything in one SQLite file", old));
        assert!(part(
            "keep this one in mind",
            "Notes:\n- Keep this one in mind\n- And that"
        ));
    }

    #[test]
    fn a_part_that_says_something_else_than_the_whole_is_none() {
        let new = "Deploy from the main branch on Fridays";
        for old in [
            "We no longer deploy from the main branch on Fridays",
            "We no longer\ndeploy from the main branch on Fridays",
            "Deploy from the main branch on Fridays, never",
            "Deploy from the main branch on Fridays?\nNo",
            "Deploy from the main branch on Fridays. That is not so any more.",
            "It is wrong: deploy from the main branch on Fridays",
            "What we do not do:\n\n- Release early\n- Deploy from the main branch on Fridays\n- More",
            "Do nothing, e.g. deploy from the main branch on Fridays",
        ] {
            assert_ne!(likeness(new, old, Some(0.0)), Likeness::Part, "{old}");
        }
        let old =
            "Never force-push to it. Ask first. Deploy from the main branch on Fridays! Then rest.";
        assert_eq!(likeness(new, old, Some(0.0)), Likeness::Part);
    }

    #[test]
    fn nearness_is_told_by_meaning_or_by_words() {
        let (a, b) = (
            "the server listens on port 8321",
            "the server listens on port 9000",
        );
        assert_eq!(likeness(a, b, Some(0.95)), Likeness::Near);
        assert_eq!(likeness(a, b, Some(0.6)), Likeness::Other);
        let (a, b) = (
            "we will always write tests first here",
            "we will always write tests here",
        );
        assert_eq!(likeness(a, b, None), Likeness::Near);
    }

    #[test]
    fn citations_lose_their_marks() {
        let text = "> - [mem-00ff] Use tabs.\n\n* Never force-push\n";
        assert_eq!(citations(text), ["Use tabs.", "Never force-push"]);
        let numbers = "> 64 is too many\n>= 5\n- 5 degrees\n-5 degrees";
        assert_eq!(citations(numbers).join("\n"), numbers);
        assert!(citations(&">".repeat(MOST_TEXT)).is_empty());
    }

    #[test]
    fn fields_are_tidied_and_wrong_ones_are_named() {
        let new = NewMemory {
            text: " a\r\nb\u{7} ".into(),
            kind: Some("Decision".into()),
            project: Some("  ".into()),
            tags: vec!["B".into(), "a".into(), "b".into()],
            ..NewMemory::default()
        };
        let checked = check(&new).unwrap();
        assert_eq!(checked.text, "a\nb");
        assert_eq!((checked.kind.as_str(), checked.project), ("decision", None));
        assert_eq!(checked.tags, ["a", "b"]);
        let long = "x".repeat(MOST_TEXT + 1);
        let wrong = |change: &dyn Fn(&mut NewMemory)| {
            let mut new = NewMemory {
                text: "x".into(),
                ..NewMemory::default()
            };
            change(&mut new);
            check(&new).unwrap_err().to_string()
        };
        for (field, error) in [
            ("text", wrong(&|new| new.text = " \u{0}\n".into())),
            ("text", wrong(&|new| new.text.clone_from(&long))),
            ("kind", wrong(&|new| new.kind = Some("a\nb".into()))),
            ("project", wrong(&|new| new.project = Some("p".repeat(101)))),
            ("tags", wrong(&|new| new.tags = vec![String::new()])),
            ("confidence", wrong(&|new| new.confidence = Some(f32::NAN))),
            ("confidence", wrong(&|new| new.confidence = Some(1.5))),
            ("source", wrong(&|new| new.source = Some("s".repeat(1001)))),
        ] {
            assert!(error.starts_with(&format!("{field}: ")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(a in any::<String>(), b in any::<String>()) {
            citations(&a);
            likeness(&a, &b, None);
            if let Ok(kept) = text(&a) {
                prop_assert_eq!(fingerprint(&kept), fingerprint(&text(&kept).unwrap()));
            }
        }
    }
}
