//! What is related to a query and what is not: what each rule hides that was wanted, and lets through that was not.
//!
//! Two kinds of data. The labelled questions over a store of a year tell what a rule costs there. `tests/short` holds
//! notes of a few words, as people write them first, with queries that one of them answers, hardly ever by a common
//! word, and queries that none does. They are asked of stores of one note, of two, and so on to all of a half.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use hearth_memory::{Embed, Ranking};
use hearth_protocol::memory::{Hit, NewMemory};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Answer;
use crate::quality::{DISTRACTORS, Data, Filled, Half, LIMIT, TODAY, lines};
use crate::score::Scores;

/// Notes of a store.
const SIZES: [usize; 5] = [1, 2, 5, 10, 20];

/// A rule for what is related to a query, beside what has one of its words.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Everything.
    All,
    /// What has this cosine with it.
    Cosine(f32),
    /// What is so many standard deviations above the query's background.
    Clear(f32),
}

impl Rule {
    /// Those that are compared: none, the rule before this one, and bounds around the usual one.
    fn all() -> Vec<(String, Self)> {
        let mut rules = vec![("everything".to_owned(), Self::All)];
        rules.extend([0.15, 0.25].map(|cosine| (format!("cosine {cosine}"), Self::Cosine(cosine))));
        let bounds = [2.0, 2.5, 3.0, 3.5];
        rules.extend(bounds.map(|bound| {
            let usual = if bound == Ranking::USUAL.clear {
                ", as searches do"
            } else {
                ""
            };
            (format!("{bound} sd above{usual}"), Self::Clear(bound))
        }));
        rules
    }

    /// What a store finds by it, the best first. Places of what a cosine is too small for stay empty.
    fn find<'a>(
        self,
        store: &'a Filled,
        query: &str,
        project: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(&'a str, Hit)>, Box<dyn Error>> {
        let clear = match self {
            Self::Clear(bound) => bound,
            Self::All | Self::Cosine(_) => f32::NEG_INFINITY,
        };
        let ranking = Ranking {
            clear,
            ..Ranking::USUAL
        };
        let mut hits = store.hits(query, project, ranking, limit)?;
        if let Self::Cosine(least) = self {
            hits.retain(|(_, hit)| {
                let why = hit.why.unwrap_or_default();
                why.words.is_some() || why.similarity.is_none_or(|cosine| cosine >= least)
            });
        }
        Ok(hits)
    }
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Note {
    key: String,
    half: Half,
    text: String,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Asked {
    half: Half,
    query: String,
    /// The notes that it should find; none if it has to do with none.
    #[serde(default)]
    answers: Vec<String>,
    /// Notes that it may find.
    #[serde(default)]
    near: Vec<String>,
}

/// A store, and the keys of its notes.
type Keyed<'a> = (Vec<&'a str>, Filled);

/// Notes of a few words, and what they are asked for.
struct Short {
    notes: Vec<Note>,
    queries: Vec<Asked>,
}

impl Short {
    fn read() -> Result<Self, Box<dyn Error>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/short");
        Ok(Self {
            notes: lines(&folder.join("notes.jsonl"))?,
            queries: lines(&folder.join("queries.jsonl"))?,
        })
    }

    /// Stores of so many notes of a half; every note is in one of them.
    fn stores(
        &self,
        half: Half,
        size: usize,
        encoder: &Arc<dyn Embed>,
    ) -> Result<Vec<Keyed<'_>>, Box<dyn Error>> {
        let notes: Vec<&Note> = self.notes.iter().filter(|note| note.half == half).collect();
        let mut stores = Vec::new();
        for notes in notes.chunks(size) {
            let mut store = Filled::new(Some(Arc::clone(encoder)))?;
            for note in notes {
                let new = NewMemory {
                    text: note.text.clone(),
                    ..NewMemory::default()
                };
                store.add(&note.key, &new, TODAY)?;
            }
            stores.push((notes.iter().map(|note| note.key.as_str()).collect(), store));
        }
        Ok(stores)
    }
}

/// What a rule did with short notes.
#[derive(Default)]
struct Counts {
    /// Queries that no note of the store has to do with, and those of them that got an answer.
    strange: usize,
    answered: usize,
    /// Notes that were not wanted, over all queries, and those of them that were given.
    unrelated: usize,
    given: usize,
    /// Notes that were wanted and have no word of the query, and those of them that were hidden.
    related: usize,
    hidden: usize,
}

impl Counts {
    fn add(
        &mut self,
        asked: &Asked,
        keys: &[&str],
        found: &[(&str, Hit)],
        has_word: &dyn Fn(&str) -> bool,
    ) {
        let is_in = |keys: &[String], key: &str| keys.iter().any(|one| one == key);
        let is_found = |key: &str| found.iter().any(|(one, _)| *one == key);
        let is_strange = !keys
            .iter()
            .any(|key| is_in(&asked.answers, key) || is_in(&asked.near, key));
        self.strange += usize::from(is_strange);
        self.answered += usize::from(is_strange && !found.is_empty());
        for key in keys {
            if is_in(&asked.answers, key) {
                if !has_word(key) {
                    self.related += 1;
                    self.hidden += usize::from(!is_found(key));
                }
            } else if !is_in(&asked.near, key) {
                self.unrelated += 1;
                self.given += usize::from(is_found(key));
            }
        }
    }

    fn json(&self) -> Value {
        json!({
            "strange": self.strange, "answered": self.answered, "unrelated": self.unrelated, "given": self.given,
            "related": self.related, "hidden": self.hidden,
        })
    }
}

/// The rules, and what each does.
pub fn measure(folder: &Path, encoder: &Arc<dyn Embed>) -> Answer {
    let data = Data::read(folder)?;
    let few = Filled::with(&data, Some(Arc::clone(encoder)))?;
    let many = Filled::with(&data, Some(Arc::clone(encoder)))?;
    many.distract(DISTRACTORS)?;
    let quality = |store: &Filled, rule: Rule, half: Half| -> Result<[f64; 5], Box<dyn Error>> {
        let mut scores = Scores::default();
        for question in data
            .questions
            .iter()
            .filter(|question| question.half == half)
        {
            let found = rule.find(
                store,
                &question.question,
                question.project.as_deref(),
                LIMIT,
            )?;
            let found: Vec<&str> = found.iter().map(|(key, _)| *key).collect();
            let wanted: Vec<&str> = question.answers.iter().map(String::as_str).collect();
            scores.add(&found, &wanted);
        }
        Ok(scores.means())
    };
    let short = Short::read()?;
    let mut stores = Vec::new();
    for half in [Half::Tune, Half::Test] {
        for size in SIZES {
            stores.push((half, size, short.stores(half, size, encoder)?));
        }
    }
    let mut rows = Vec::new();
    for (name, rule) in Rule::all() {
        let mut counts = [Vec::new(), Vec::new()];
        for (half, size, stores) in &stores {
            let mut of_size = Counts::default();
            for (keys, store) in stores {
                for asked in short.queries.iter().filter(|asked| asked.half == *half) {
                    let found = rule.find(store, &asked.query, None, *size)?;
                    let by_words =
                        Rule::Cosine(f32::INFINITY).find(store, &asked.query, None, *size)?;
                    let has_word = |key: &str| by_words.iter().any(|(one, _)| *one == key);
                    of_size.add(asked, keys, &found, &has_word);
                }
            }
            let mut of_size = of_size.json();
            of_size["notes"] = (*size).into();
            counts[usize::from(*half == Half::Test)].push(of_size);
        }
        let [tune, test] = counts;
        rows.push(json!({
            "name": name,
            "few": {"tune": quality(&few, rule, Half::Tune)?, "test": quality(&few, rule, Half::Test)?},
            "many": {"tune": quality(&many, rule, Half::Tune)?, "test": quality(&many, rule, Half::Test)?},
            "short": {"tune": tune, "test": test},
        }));
    }
    Ok(json!({"distractors": DISTRACTORS, "sizes": SIZES, "rows": rows}))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_short_notes_are_sound() {
        let short = Short::read().unwrap();
        let mut texts = HashSet::new();
        for text in short
            .notes
            .iter()
            .map(|note| &note.text)
            .chain(short.queries.iter().map(|asked| &asked.query))
        {
            assert!(texts.insert(text), "{text} twice");
        }
        for half in [Half::Tune, Half::Test] {
            let notes = short.notes.iter().filter(|note| note.half == half);
            let keys: HashSet<&String> = notes.map(|note| &note.key).collect();
            assert_eq!(keys.len(), SIZES[4], "{half:?}");
            let queries: Vec<&Asked> = short
                .queries
                .iter()
                .filter(|asked| asked.half == half)
                .collect();
            assert!(
                queries
                    .iter()
                    .filter(|asked| asked.answers.is_empty())
                    .count()
                    >= 40
            );
            for key in queries
                .iter()
                .flat_map(|asked| asked.answers.iter().chain(&asked.near))
            {
                assert!(keys.contains(key), "there is no {key} in {half:?}");
            }
        }
    }
}
