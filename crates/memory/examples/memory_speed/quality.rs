//! Retrieval quality, no language model: labelled questions over the memories in `bench/retrieval`, scored through the
//! store's own door.
//!
//! The questions are in two halves, fixed in the file: on one the fusion is chosen, on the other it is told how good it
//! is. Nobody's questions but these were looked at when they were written.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use hearth_memory::{Embed, Fusion, Memories, Place, Ranking, TABLES};
use hearth_protocol::memory::{Hit, Memory, NewMemory, Search};
use hearth_store::Store;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::score::Scores;
use crate::search::source;
use crate::{Answer, texts};

/// The day on which all questions are asked, after the last memory.
pub const TODAY: Date = jiff::civil::date(2026, 9, 1);
/// Memories that a search is asked for.
pub const LIMIT: usize = 10;
/// Notes that nobody asks for, in the rows that have them.
pub const DISTRACTORS: usize = 4_500;
/// What a question may be about.
const CLASSES: [&str; 9] = [
    "paraphrase",
    "identifier",
    "mixed",
    "temporal",
    "project",
    "multiple",
    "confusable",
    "long",
    "all",
];

/// A labelled memory.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Remembered {
    key: String,
    project: Option<String>,
    kind: String,
    day: Date,
    text: String,
    #[serde(default)]
    tags: Vec<String>,
    /// A memory whose place the tool said that it takes; most newer facts do not say so.
    supersedes: Option<String>,
}

/// A labelled question.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Question {
    id: String,
    class: String,
    /// Of the two halves.
    pub half: Half,
    /// The project the tool is in, if it says so.
    pub project: Option<String>,
    /// What is asked.
    pub question: String,
    /// The keys of what should be found.
    pub answers: Vec<String>,
}

/// Constants are chosen on one half, quality is told on the other.
#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Half {
    Tune,
    Test,
}

/// The memories and questions of a folder.
pub struct Data {
    memories: Vec<Remembered>,
    /// The questions.
    pub questions: Vec<Question>,
}

impl Data {
    /// Reads them.
    pub fn read(folder: &Path) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            memories: lines(&folder.join("memories.jsonl"))?,
            questions: lines(&folder.join("questions.jsonl"))?,
        })
    }
}

/// The values of a file, one a line.
pub fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Box<dyn Error>> {
    let text = std::fs::read_to_string(path)?;
    let lines = text.lines().enumerate().map(|(at, line)| {
        serde_json::from_str(line)
            .map_err(|error| format!("{}:{}: {error}", path.display(), at + 1).into())
    });
    lines.collect()
}

/// A store that was filled, and what its memories are called in the labels.
pub struct Filled {
    memories: Memories,
    keys: HashMap<String, String>,
}

impl Filled {
    /// An empty one in memory.
    pub fn new(encoder: Option<Arc<dyn Embed>>) -> Result<Self, Box<dyn Error>> {
        let store = Store::in_memory(&[TABLES])?;
        let place = Place {
            vectors: None,
            encoder: encoder.map(source),
        };
        Ok(Self {
            memories: Memories::open(store, place)?,
            keys: HashMap::new(),
        })
    }

    /// Remembers one, called `key`.
    pub fn add(&mut self, key: &str, new: &NewMemory, day: Date) -> Result<String, Box<dyn Error>> {
        let written = self.memories.add(new, noon(day)?)?;
        self.keys.insert(written.memory.id.clone(), key.to_owned());
        Ok(written.memory.id)
    }

    /// Remembers many of one project at once, called `PROJECT/0` and so on, in pieces of so many bytes, without a look at
    /// what is alike.
    pub fn import(
        &mut self,
        project: &str,
        texts: &[(String, Date)],
    ) -> Result<(), Box<dyn Error>> {
        let mut lines = Vec::with_capacity(texts.len());
        for (number, (text, day)) in texts.iter().enumerate() {
            let id = format!("mem-{:032x}", self.keys.len());
            lines.push(serde_json::to_string(&Memory {
                id: id.clone(),
                text: text.clone(),
                kind: "conversation".into(),
                project: Some(project.to_owned()),
                tags: Vec::new(),
                confidence: 1.0,
                pinned: false,
                source: None,
                written: noon(*day)?,
                read: None,
                reads: 0,
                superseded: None,
                superseded_by: None,
                supersedes: Vec::new(),
                related: Vec::new(),
            })?);
            self.keys.insert(id, format!("{project}/{number}"));
        }
        let (name, text) = (format!("{project}.jsonl"), lines.join("\n"));
        let usual = NewMemory::default();
        self.memories
            .import(&name, text.as_bytes(), &usual, noon(TODAY)?)?;
        Ok(self.memories.upkeep(&mut |_, _| true)?)
    }

    /// What is found, the best first, each with its key and with why.
    pub fn hits(
        &self,
        query: &str,
        project: Option<&str>,
        ranking: Ranking,
        limit: usize,
    ) -> Result<Vec<(&str, Hit)>, Box<dyn Error>> {
        let search = Search {
            query: query.to_owned(),
            project: project.map(ToOwned::to_owned),
            limit: Some(limit),
            explain: true,
            ..Search::default()
        };
        let found = self
            .memories
            .search_with(&search, ranking, noon(TODAY)?)?
            .memories;
        let key = |hit: &Hit| self.keys.get(&hit.memory.id).map_or("", String::as_str);
        Ok(found.into_iter().map(|hit| (key(&hit), hit)).collect())
    }

    /// The keys of what is found, the best first, each once.
    pub fn find(
        &self,
        query: &str,
        project: Option<&str>,
        fusion: Fusion,
    ) -> Result<Vec<&str>, Box<dyn Error>> {
        let ranking = Ranking {
            fusion,
            ..Ranking::USUAL
        };
        let mut keys: Vec<&str> = Vec::new();
        for (key, _) in self.hits(query, project, ranking, LIMIT)? {
            if key.is_empty() || !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys.truncate(LIMIT);
        Ok(keys)
    }

    /// A store of the memories.
    pub fn with(data: &Data, encoder: Option<Arc<dyn Embed>>) -> Result<Self, Box<dyn Error>> {
        let mut filled = Self::new(encoder)?;
        let mut ids: HashMap<&str, String> = HashMap::new();
        for memory in &data.memories {
            let new = NewMemory {
                text: memory.text.clone(),
                kind: Some(memory.kind.clone()),
                project: memory.project.clone(),
                tags: memory.tags.clone(),
                supersedes: memory
                    .supersedes
                    .as_ref()
                    .and_then(|old| ids.get(old.as_str()).cloned()),
                ..NewMemory::default()
            };
            let id = filled.add(&memory.key, &new, memory.day)?;
            ids.insert(&memory.key, id);
        }
        Ok(filled)
    }

    /// Takes in notes that nobody asks for.
    pub fn distract(&self, count: usize) -> Result<(), Box<dyn Error>> {
        let projects = [
            "lantern",
            "tidewatch",
            "orchard",
            "quill",
            "mosaic",
            "ferry",
        ];
        for (at, project) in projects.iter().enumerate() {
            let each = count / projects.len();
            let lines: Vec<String> = (at * each..(at + 1) * each)
                .map(|number| json!({"text": texts::note(number)}).to_string())
                .collect();
            let usual = NewMemory {
                project: Some((*project).to_owned()),
                ..NewMemory::default()
            };
            let day = TODAY.checked_sub(jiff::Span::new().days(at as i64 * 40 + 5))?;
            let name = format!("{project}.jsonl");
            let text = lines.join("\n");
            self.memories
                .import(&name, text.as_bytes(), &usual, noon(day)?)?;
        }
        Ok(())
    }

    /// Scores of the questions, by class.
    fn ask(
        &self,
        questions: &[&Question],
        fusion: Fusion,
    ) -> Result<BTreeMap<&'static str, Scores>, Box<dyn Error>> {
        let mut scores: BTreeMap<&'static str, Scores> = BTreeMap::new();
        for question in questions {
            let found = self.find(&question.question, question.project.as_deref(), fusion)?;
            let wanted: Vec<&str> = question.answers.iter().map(String::as_str).collect();
            for class in CLASSES {
                if class == "all" || class == question.class {
                    scores.entry(class).or_default().add(&found, &wanted);
                }
            }
        }
        Ok(scores)
    }
}

fn noon(day: Date) -> Result<Timestamp, jiff::Error> {
    Ok(day.at(12, 0, 0, 0).to_zoned(TimeZone::UTC)?.timestamp())
}

fn row(name: &str, scores: &BTreeMap<&'static str, Scores>) -> Value {
    let classes: serde_json::Map<String, Value> = CLASSES
        .iter()
        .filter_map(|class| {
            let scores = scores.get(class)?;
            let value = json!({"count": scores.count, "means": scores.means()});
            Some(((*class).to_owned(), value))
        })
        .collect();
    json!({"name": name, "classes": classes})
}

/// The fusions that are tried: every weight of meaning in steps of a tenth, and reciprocal ranks.
pub fn fusions() -> Vec<(String, Fusion)> {
    let weights = (0..=10).map(|tenths| {
        let weight = tenths as f32 / 10.0;
        (format!("{weight:.1} meaning"), Fusion::Weighted(weight))
    });
    let ranks = [10.0, 60.0].map(|k| (format!("ranks, k = {k}"), Fusion::Ranks(k)));
    weights.chain(ranks).collect()
}

/// The ways of asking, and the quality of each.
pub fn measure(folder: &Path, encoder: Option<Arc<dyn Embed>>) -> Answer {
    let data = Data::read(folder)?;
    let half = |half: Half| -> Vec<&Question> {
        let questions = data.questions.iter();
        questions.filter(|question| question.half == half).collect()
    };
    let (tune, test) = (half(Half::Tune), half(Half::Test));
    let every: Vec<&Question> = data.questions.iter().collect();
    let words = Filled::with(&data, None)?;
    let by_words = Fusion::Weighted(0.0);
    let mut rows = vec![row("words only", &words.ask(&every, by_words)?)];
    let mut halves = vec![row("words only", &words.ask(&test, by_words)?)];
    let (mut ablation, mut crowded_ablation) = (Vec::new(), Vec::new());
    let mut crowded = Vec::new();
    let mut missed = Vec::new();
    if encoder.is_some() {
        let filled = Filled::with(&data, encoder.clone())?;
        let mut best: Option<(f64, String, Fusion)> = None;
        for (name, fusion) in fusions() {
            let tuned = filled.ask(&tune, fusion)?["all"].means();
            let tested = filled.ask(&test, fusion)?["all"].means();
            ablation.push(json!({"name": name, "tune": tuned, "test": tested}));
            // What is chosen by: the order of the first ten.
            if best.as_ref().is_none_or(|(gain, ..)| tuned[4] > *gain) {
                best = Some((tuned[4], name, fusion));
            }
        }
        let Some((_, chosen, best)) = best else {
            return Err("no fusion was tried".into());
        };
        let meaning = Fusion::Weighted(1.0);
        for (rows, questions) in [(&mut rows, &every), (&mut halves, &test)] {
            rows.push(row("vectors only", &filled.ask(questions, meaning)?));
            rows.push(row(
                "fused, as searches are",
                &filled.ask(questions, Fusion::USUAL)?,
            ));
            let name = format!("fused, best on the other half: {chosen}");
            rows.push(row(&name, &filled.ask(questions, best)?));
        }
        for question in &every {
            let project = question.project.as_deref();
            let found = filled.find(&question.question, project, Fusion::USUAL)?;
            if !question
                .answers
                .iter()
                .any(|key| found.iter().take(5).any(|one| one == key))
            {
                missed.push(json!({"id": question.id, "question": question.question, "wanted": question.answers, "found": found}));
            }
        }
        // Many more that nobody asks for: the rest of a store that was used for a year.
        for store in [&words, &filled] {
            store.distract(DISTRACTORS)?;
        }
        let usual = Fusion::USUAL;
        for (name, store, fusion) in [
            ("words only", &words, by_words),
            ("vectors only", &filled, meaning),
            ("fused, as searches are", &filled, usual),
        ] {
            crowded.push(row(name, &store.ask(&every, fusion)?));
        }
        // What was found before is hot, so this one is asked once.
        let tiered = Filled::with(&data, encoder.clone())?;
        tiered.memories.grow_cold_from(DISTRACTORS);
        tiered.distract(DISTRACTORS)?;
        let name = "fused, what nobody read in 90 days is cold".to_owned();
        crowded.push(row(&name, &tiered.ask(&every, usual)?));
        for (name, fusion) in fusions() {
            let tuned = filled.ask(&tune, fusion)?["all"].means();
            let tested = filled.ask(&test, fusion)?["all"].means();
            crowded_ablation.push(json!({"name": name, "tune": tuned, "test": tested}));
        }
    }
    Ok(json!({
        "memories": data.memories.len(), "questions": data.questions.len(),
        "rows": rows, "test_half": halves, "ablation": ablation, "missed": missed,
        "distractors": DISTRACTORS, "crowded": crowded, "crowded_ablation": crowded_ablation,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::collections::HashSet;

    fn data() -> Data {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        Data::read(&root.join("bench/retrieval")).unwrap()
    }

    #[test]
    fn the_data_are_sound() {
        let data = data();
        assert!(data.memories.len() >= 150 && data.questions.len() >= 120);
        let mut keys = HashSet::new();
        let mut gone = HashSet::new();
        let mut day = None;
        for memory in &data.memories {
            assert!(
                day <= Some(memory.day) && memory.day < TODAY,
                "{}",
                memory.key
            );
            day = Some(memory.day);
            if let Some(old) = &memory.supersedes {
                assert!(
                    keys.contains(old.as_str()),
                    "{} supersedes nothing",
                    memory.key
                );
                gone.insert(old.as_str());
            }
            assert!(keys.insert(memory.key.as_str()), "{} twice", memory.key);
        }
        let mut ids = HashSet::new();
        for question in &data.questions {
            let Question {
                id, class, answers, ..
            } = question;
            assert!(ids.insert(id), "{id} twice");
            assert!(CLASSES[..8].contains(&class.as_str()), "{id}: {class}");
            assert!(!answers.is_empty(), "{id} asks for nothing");
            for key in answers {
                assert!(keys.contains(key.as_str()), "{id}: there is no {key}");
                assert!(!gone.contains(key.as_str()), "{id}: {key} was superseded");
            }
        }
        for class in &CLASSES[..8] {
            for half in [Half::Tune, Half::Test] {
                let questions = data.questions.iter();
                let count = questions
                    .filter(|q| q.class == *class && q.half == half)
                    .count();
                assert!(count >= 5, "{class} has {count} questions in {half:?}");
            }
        }
    }

    /// Without an encoder, what names a thing finds it.
    #[test]
    fn words_alone_find_what_names_a_thing() {
        let data = data();
        let filled = Filled::with(&data, None).unwrap();
        let every: Vec<&Question> = data.questions.iter().collect();
        let scores = filled.ask(&every, Fusion::USUAL).unwrap();
        let five = |class: &str| scores[class].means()[1];
        assert!(five("identifier") >= 0.95, "{}", five("identifier"));
        assert!(five("mixed") >= 0.85, "{}", five("mixed"));
        assert!(five("all") >= 0.6, "{}", five("all"));
    }
}
