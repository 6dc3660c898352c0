//! The write gate: what a text must be to be remembered, and whether it says something new. Pure.

use std::collections::HashSet;

use hearth_protocol::memory::{MOST_NAME, MOST_SOURCE, MOST_TAGS, MOST_TEXT, NewMemory};
use sha2::{Digest, Sha256};

use crate::Error;

/// Cosine from which two memories count as saying nearly the same. Paraphrases of one sentence reach it with the
/// MiniLM and bge encoders, two facts of one topic seldom do.
const NEARLY_THE_SAME: f32 = 0.92;
/// Share of words that two texts have in common (Jaccard) from which they do so without an encoder.
const NEARLY_THE_SAME_WORDS: f32 = 0.8;
/// Words that a part of a recalled memory must have to be recognised.
const LEAST_RECALLED: usize = 5;
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
    pub pinned: bool,
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
        pinned: new.pinned,
        source: source(new.source.as_deref())?,
        supersedes: new.supersedes.clone(),
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

fn source(source: Option<&str>) -> Result<Option<String>, Error> {
    match source.map(str::trim) {
        None | Some("") => Ok(None),
        Some(source) if source.chars().count() > MOST_SOURCE => Err(Error::invalid(
            "source",
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

/// The words of a text as they are compared: in lower case, without quotes, brackets and the marks that end sentences.
/// `C++` and `C` stay two words, and so do `3.10` and `3.1`.
fn words(text: &str) -> Vec<String> {
    let around = |c: char| "\"'`´“”‘’()[]{}<>*_".contains(c);
    let ending = |c: char| ".,;:!?…".contains(c);
    text.split_whitespace()
        .map(|word| {
            word.trim_matches(around)
                .trim_end_matches(ending)
                .trim_matches(around)
                .to_lowercase()
        })
        .filter(|word| !word.is_empty() && word != "-" && word != "•")
        .collect()
}

/// What texts that say the same with other blanks, capitals and sentence marks have in common.
pub(crate) fn fingerprint(text: &str) -> [u8; 32] {
    let words = words(text);
    let same = match words.is_empty() {
        // Nothing but marks.
        true => text.to_owned(),
        false => words.join(" "),
    };
    Sha256::digest(same.as_bytes()).into()
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
    let (new, old) = (words(new), words(old));
    if new.len() >= LEAST_RECALLED && old.windows(new.len()).any(|part| part == new.as_slice()) {
        return Likeness::Part;
    }
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

/// The pieces of a text that may each be a memory that somebody cites: its lines, without the marks of lists and
/// quotations, and without the ids in brackets that recalled memories carry.
pub(crate) fn citations(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| {
            let line = line.trim_start_matches(['>', '-', '*', '•', ' ', '\t']);
            without_ids(line).trim().to_owned()
        })
        .filter(|line| !line.is_empty())
        .collect()
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
    }

    #[test]
    fn a_part_is_recognised_and_a_phrase_is_not() {
        let old = "We chose SQLite because one file is easy to back up. Revisit at ten users.";
        let part = "one file is easy to back up";
        assert_eq!(likeness(part, old, None), Likeness::Part);
        assert_eq!(likeness("We chose SQLite", old, None), Likeness::Other);
        assert_eq!(likeness(old, old, None), Likeness::Part);
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
