//! How well a memory fits a query: words for the full-text index, tiers, fusion. Pure.

use std::collections::HashSet;

use hearth_protocol::memory::Why;

use crate::background::CLEAR;

/// Vectors from which on old memories grow cold. Fewer are compared in two milliseconds, and what grows cold is found
/// by words alone: `cargo xtask bench memory` prints what that costs.
pub(crate) const COLD_FROM: usize = 100_000;
/// How long a memory is hot after it was written or read, in milliseconds.
const HOT: i64 = 90 * 24 * 3600 * 1000;
/// Weight of meaning beside words. This, [`WORD`] and the weights of age were chosen on one half of the questions in
/// `bench/retrieval`, with few and with thousands of memories; `cargo xtask bench memory` prints how others do.
const MEANING: f32 = 0.5;
/// BM25 for each word of a query, over the logarithm of the number of memories, that is as good as it gets. A memory that
/// has one of five words is the best by words where no other has any, and still does not fit well.
const WORD: f32 = 0.6;
/// How much less an old memory counts at most, and in how many days it comes halfway there.
const AGE: f32 = 0.05;
const HALFWAY_DAYS: f32 = 180.0;
/// The same where the query asks for how things are now.
const AGE_NOW: f32 = 0.4;
/// Words of such a query.
const NOW: [&str; 11] = [
    "current",
    "currently",
    "latest",
    "moment",
    "newest",
    "now",
    "nowadays",
    "present",
    "recent",
    "recently",
    "today",
];
/// How much more a pinned memory counts.
const PINNED: f32 = 1.1;
/// How much less one counts that is not sure at all.
const UNSURE: f32 = 0.25;
/// Most words of a query that are looked up.
const MOST_WORDS: usize = 32;

/// Words that stand in nearly every text: looking them up takes long and tells nothing. They count where a query has no
/// others.
const COMMON: [&str; 72] = [
    "a", "about", "an", "and", "are", "as", "at", "be", "been", "by", "can", "could", "did", "do",
    "does", "for", "from", "had", "has", "have", "how", "i", "if", "in", "into", "is", "it", "its",
    "me", "my", "of", "on", "or", "our", "she", "should", "so", "that", "the", "their", "them",
    "then", "there", "these", "they", "this", "to", "us", "was", "we", "were", "what", "when",
    "where", "which", "who", "why", "will", "with", "would", "you", "your", "he", "his", "her",
    "not", "no", "but", "than", "also", "just", "any",
];

/// The words of a query that tell something, in lower case, each once; all if none does.
fn telling(query: &str) -> Vec<String> {
    let mut seen = HashSet::new();
    let all: Vec<String> = query
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .filter(|word| seen.insert(word.clone()))
        .collect();
    let is_common = |word: &String| COMMON.contains(&word.as_str());
    match all.iter().all(is_common) {
        true => all,
        false => all.into_iter().filter(|word| !is_common(word)).collect(),
    }
}

/// A query for FTS5: its words, any of them, each quoted. `None` if it has none.
pub(crate) fn words(query: &str) -> Option<String> {
    let words = telling(query).into_iter().take(MOST_WORDS);
    let quoted: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
    (!quoted.is_empty()).then(|| quoted.join(" OR "))
}

/// The share of a query's telling words that a text has, 0 to 1; a word counts if one of the two begins with the other, as
/// `backup` and `backups` do.
pub(crate) fn covered(query: &str, text: &str) -> f32 {
    let text = text.to_lowercase();
    let has: HashSet<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
    let words = telling(query);
    let is_near = |word: &str, other: &str| {
        let (short, long) = match word.len() < other.len() {
            true => (word, other),
            false => (other, word),
        };
        short == long || (short.len() >= 4 && long.starts_with(short))
    };
    let found = words
        .iter()
        .filter(|word| has.iter().any(|other| is_near(word, other)));
    found.count() as f32 / words.len().max(1) as f32
}

/// What a query asks for, as far as it decides how its signals count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Asked {
    /// BM25 that is as good as it gets.
    enough: f32,
    /// How much less an old memory counts at most.
    age: f32,
}

impl Asked {
    /// BM25 of a memory that has all of its words.
    pub fn enough(&self) -> f32 {
        self.enough
    }

    /// By this query, of a store of so many memories.
    pub fn new(query: &str, memories: usize) -> Self {
        let words = telling(query);
        let is_now = words.iter().any(|word| NOW.contains(&word.as_str()));
        Self {
            enough: WORD * words.len().min(MOST_WORDS) as f32 * (memories.max(2) as f32).ln(),
            age: if is_now { AGE_NOW } else { AGE },
        }
    }
}

/// Which memories are hot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hot {
    /// Those touched since then, in milliseconds since 1970; `None` is all.
    since: Option<i64>,
}

impl Hot {
    /// The hot ones of `count` vectors at `now` (milliseconds since 1970), if there are more than `cold_from`.
    pub fn at(now: i64, count: usize, cold_from: usize) -> Self {
        Self {
            since: (count > cold_from).then(|| now.saturating_sub(HOT)),
        }
    }

    /// All are.
    pub fn all() -> Self {
        Self { since: None }
    }

    /// Whether a memory is.
    pub fn is_hot(&self, pinned: bool, touched: i64) -> bool {
        pinned || self.since.is_none_or(|since| touched >= since)
    }
}

/// What is known of a memory that was found.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Signals {
    /// Cosine with the query.
    pub similarity: Option<f32>,
    /// Standard deviations above what unrelated texts have in common with the query.
    pub above: Option<f32>,
    /// BM25.
    pub words: Option<f32>,
    /// Days since it was written.
    pub age_days: f32,
    pub confidence: f32,
    pub pinned: bool,
    pub cold: bool,
}

impl Signals {
    /// Whether it has to do with the query: it has one of its words, or is so many standard deviations above the query's
    /// background. What has none of the words and a vector that is damaged is not held back.
    pub fn is_related(&self, clear: f32) -> bool {
        self.words.is_some() || self.above.is_none_or(|above| above >= clear)
    }
}

/// What of the found is given, and in which order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranking {
    /// How meaning and words become one score.
    pub fusion: Fusion,
    /// Standard deviations above the query's background from which on a memory without any of its words is given.
    pub clear: f32,
}

impl Ranking {
    /// The one that searches use.
    pub const USUAL: Self = Self {
        fusion: Fusion::USUAL,
        clear: CLEAR,
    };
}

/// How meaning and words become one score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fusion {
    /// A convex combination of the two, each scaled to 0 to 1 (Bruch, Gai, Ingber: An Analysis of Fusion Functions for
    /// Hybrid Retrieval, arXiv 2210.11934: least values from theory, largest from the list, or for words from theory
    /// where that is more); this is the weight of meaning, 0 to 1.
    Weighted(f32),
    /// Reciprocal ranks (Cormack, Clarke, Büttcher 2009): the sum of `1 / (k + place)` with this `k`, scaled to 0 to 1.
    Ranks(f32),
}

impl Fusion {
    /// The one that searches use.
    pub const USUAL: Self = Self::Weighted(MEANING);

    /// A score from 0 to 1 for each of the memories that one query found.
    fn scores(self, found: &[Signals], asked: Asked) -> Vec<f32> {
        let similarities: Vec<Option<f32>> = found.iter().map(|found| found.similarity).collect();
        let words: Vec<Option<f32>> = found.iter().map(|found| found.words).collect();
        match self {
            Self::Weighted(meaning) => {
                let is_by_meaning = similarities.iter().any(Option::is_some);
                let meaning = if is_by_meaning { meaning } else { 0.0 };
                let (similarities, words) =
                    (scaled(&similarities, 0.0), scaled(&words, asked.enough));
                let both = similarities.into_iter().zip(words);
                both.map(|(similarity, words)| meaning * similarity + (1.0 - meaning) * words)
                    .collect()
            }
            Self::Ranks(k) => {
                let mut scores = vec![0.0; found.len()];
                for signal in [&similarities, &words] {
                    for (score, value) in scores.iter_mut().zip(signal) {
                        let Some(value) = value else { continue };
                        let before = signal.iter().flatten().filter(|other| *other > value);
                        *score += 1.0 / (k + 1.0 + before.count() as f32);
                    }
                }
                let least = scores.iter().copied().fold(f32::MAX, f32::min);
                let scores: Vec<_> = scores.iter().map(|score| Some(score - least)).collect();
                scaled(&scores, 0.0)
            }
        }
    }
}

/// Each value over the largest, or over `enough` if that is more; 0 where there is none.
fn scaled(values: &[Option<f32>], enough: f32) -> Vec<f32> {
    let most = values.iter().flatten().copied().fold(enough, f32::max);
    let scaled = values.iter().map(|value| match most > 0.0 {
        true => (value.unwrap_or(0.0) / most).clamp(0.0, 1.0),
        false => 0.0,
    });
    scaled.collect()
}

/// The scores of memories that one query found, and why: meaning and words as one, and then some factors that decide
/// between equals.
pub(crate) fn fuse(found: &[Signals], asked: Asked, fusion: Fusion) -> Vec<(f32, Why)> {
    found
        .iter()
        .zip(fusion.scores(found, asked))
        .map(|(signals, fits)| {
            let age = signals.age_days.max(0.0);
            let recency = 1.0 - asked.age * age / (age + HALFWAY_DAYS);
            let pinned = if signals.pinned { PINNED } else { 1.0 };
            let sure = 1.0 - UNSURE * (1.0 - signals.confidence.clamp(0.0, 1.0));
            let score = fits * recency * pinned * sure;
            let why = Why {
                similarity: signals.similarity,
                words: signals.words,
                recency,
                pinned,
                cold: signals.cold,
            };
            (score, why)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_query_asks_for_its_telling_words() {
        let all = words("What is the port of the server?").unwrap();
        assert_eq!(all, "\"port\" OR \"server\"");
        assert_eq!(
            words("who are you").unwrap(),
            "\"who\" OR \"are\" OR \"you\""
        );
        assert_eq!(words(" ?! "), None);
        assert_eq!(
            words("a\"b\" OR NEAR(c*)").unwrap(),
            "\"b\" OR \"near\" OR \"c\""
        );
    }

    #[test]
    fn a_text_covers_the_words_that_it_has() {
        assert_eq!(
            covered("where is the printer?", "The Printer is upstairs"),
            1.0
        );
        assert_eq!(covered("keep backups", "a backup of the router"), 0.5);
        assert_eq!(covered("cat", "catalogue"), 0.0);
        assert_eq!(covered("?!", "anything"), 0.0);
    }

    #[test]
    fn memories_grow_cold_when_there_are_many_and_nobody_asks_for_them() {
        let now = 1_000 * HOT;
        let (old, new) = (now - HOT - 1, now - HOT);
        let few = Hot::at(now, COLD_FROM, COLD_FROM);
        let many = Hot::at(now, COLD_FROM + 1, COLD_FROM);
        assert!(few.is_hot(false, old) && many.is_hot(false, new) && many.is_hot(true, old));
        assert!(!many.is_hot(false, old));
    }

    #[test]
    fn what_has_a_word_or_is_clear_of_the_background_is_related() {
        for (above, words, is_related) in [
            (Some(2.5), None, true),
            (Some(2.4), None, false),
            (Some(-3.0), None, false),
            (Some(-3.0), Some(0.1), true),
            // Without a vector, or with a damaged one.
            (None, None, true),
            (None, Some(0.1), true),
        ] {
            let signals = Signals {
                above,
                words,
                ..Signals::default()
            };
            assert_eq!(signals.is_related(2.5), is_related, "{above:?} {words:?}");
        }
    }

    const ASKED: Asked = Asked {
        enough: 0.0,
        age: AGE,
    };

    #[test]
    fn one_word_of_many_does_not_outweigh_meaning() {
        let by_meaning = Signals {
            similarity: Some(0.5),
            confidence: 1.0,
            ..Signals::default()
        };
        let by_a_word = Signals {
            similarity: Some(0.2),
            words: Some(4.0),
            ..by_meaning
        };
        let before = |query: &str| {
            let asked = Asked::new(query, 1_000);
            let scores = fuse(&[by_meaning, by_a_word], asked, Fusion::USUAL);
            scores[0].0 > scores[1].0
        };
        assert!(before("who keeps the benchmark honest these days and why"));
        assert!(!before("benchmark"));
    }

    #[test]
    fn a_query_about_now_asks_for_the_newest() {
        let old = Signals {
            similarity: Some(0.8),
            age_days: 200.0,
            confidence: 1.0,
            ..Signals::default()
        };
        let new = Signals {
            similarity: Some(0.7),
            age_days: 3.0,
            ..old
        };
        let first_is_old = |query: &str| {
            let scores = fuse(&[old, new], Asked::new(query, 100), Fusion::USUAL);
            scores[0].0 > scores[1].0
        };
        assert!(first_is_old("the port of the server"));
        assert!(!first_is_old("the current port of the server"));
    }

    #[test]
    fn equals_are_told_apart_by_age_pin_and_confidence() {
        let usual = Signals {
            similarity: Some(0.8),
            words: Some(3.0),
            confidence: 1.0,
            ..Signals::default()
        };
        let score = |other: Signals| fuse(&[usual, other], ASKED, Fusion::USUAL)[1].0;
        let same = score(usual);
        assert!(
            score(Signals {
                age_days: 100.0,
                ..usual
            }) < same
        );
        assert!(
            score(Signals {
                confidence: 0.5,
                ..usual
            }) < same
        );
        assert!(
            score(Signals {
                pinned: true,
                ..usual
            }) > same
        );
        assert!(
            score(Signals {
                words: None,
                ..usual
            }) < same
        );
    }

    proptest! {
        #[test]
        fn what_fits_better_in_everything_is_before(similarity in 0.0f32..1.0, words in 0.0f32..20.0, less in 0.01f32..0.9, by_rank: bool) {
            let fusion = if by_rank { Fusion::Ranks(60.0) } else { Fusion::USUAL };
            let better = Signals { similarity: Some(similarity), words: Some(words), confidence: 1.0, ..Signals::default() };
            let worse = Signals { similarity: Some(similarity * less), words: Some(words * less), ..better };
            let scores = fuse(&[worse, better], ASKED, fusion);
            prop_assert!(scores[0].0 <= scores[1].0);
            prop_assert!(scores.iter().all(|(score, _)| score.is_finite()));
        }
    }
}
