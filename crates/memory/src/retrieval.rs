//! How well a memory fits a query: words for the full-text index, tiers, fusion. Pure.

use std::collections::HashSet;

use hearth_protocol::memory::Why;

/// Memories from which on old ones grow cold: fewer are compared in less time than one vector takes.
const COLD_FROM: usize = 5_000;
/// How long a memory is hot after it was written or read, in milliseconds.
const HOT: i64 = 90 * 24 * 3600 * 1000;
/// Weight of meaning beside words. `cargo xtask bench memory` prints how others do.
pub(crate) const MEANING: f32 = 0.7;
/// How much less an old memory counts at most, and in how many days it comes halfway there.
const AGE: f32 = 0.05;
const HALFWAY_DAYS: f32 = 60.0;
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

/// A query for FTS5: its words, any of them, each quoted. `None` if it has none.
pub(crate) fn words(query: &str) -> Option<String> {
    let all: Vec<String> = query
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let telling: Vec<&String> = all
        .iter()
        .filter(|word| !COMMON.contains(&word.as_str()))
        .collect();
    let chosen = if telling.is_empty() {
        all.iter().collect()
    } else {
        telling
    };
    let mut seen = HashSet::new();
    let quoted: Vec<String> = chosen
        .into_iter()
        .filter(|word| seen.insert(word.as_str()))
        .take(MOST_WORDS)
        .map(|word| format!("\"{word}\""))
        .collect();
    (!quoted.is_empty()).then(|| quoted.join(" OR "))
}

/// Which memories are hot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hot {
    /// Those touched since then, in milliseconds since 1970; `None` is all.
    since: Option<i64>,
}

impl Hot {
    /// The hot ones of `count` memories at `now` (milliseconds since 1970).
    pub fn at(now: i64, count: usize) -> Self {
        Self {
            since: (count > COLD_FROM).then(|| now.saturating_sub(HOT)),
        }
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
    /// BM25.
    pub words: Option<f32>,
    /// Days since it was written.
    pub age_days: f32,
    pub confidence: f32,
    pub pinned: bool,
    pub cold: bool,
}

/// The scores of memories that one query found, and why: a convex combination of the two signals, each scaled to 0 to 1
/// (Bruch, Gai, Ingber: An Analysis of Fusion Functions for Hybrid Retrieval, arXiv 2210.11934: least values from
/// theory, largest from the list), and then some factors that decide between equals.
pub(crate) fn fuse(found: &[Signals], meaning: f32) -> Vec<(f32, Why)> {
    let most_words = found
        .iter()
        .filter_map(|signals| signals.words)
        .fold(0.0, f32::max);
    let most_similar = found
        .iter()
        .filter_map(|signals| signals.similarity)
        .fold(0.0, f32::max);
    let is_by_meaning = found.iter().any(|signals| signals.similarity.is_some());
    let meaning = if is_by_meaning { meaning } else { 0.0 };
    found
        .iter()
        .map(|signals| {
            let scaled = |value: Option<f32>, most: f32| match most > 0.0 {
                true => (value.unwrap_or(0.0) / most).clamp(0.0, 1.0),
                false => 0.0,
            };
            let similarity = scaled(signals.similarity, most_similar);
            let words = scaled(signals.words, most_words);
            let age = signals.age_days.max(0.0);
            let recency = 1.0 - AGE * age / (age + HALFWAY_DAYS);
            let pinned = if signals.pinned { PINNED } else { 1.0 };
            let sure = 1.0 - UNSURE * (1.0 - signals.confidence.clamp(0.0, 1.0));
            let score = (meaning * similarity + (1.0 - meaning) * words) * recency * pinned * sure;
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
    fn memories_grow_cold_when_there_are_many_and_nobody_asks_for_them() {
        let now = 1_000 * HOT;
        let (old, new) = (now - HOT - 1, now - HOT);
        let few = Hot::at(now, COLD_FROM);
        let many = Hot::at(now, COLD_FROM + 1);
        assert!(few.is_hot(false, old) && many.is_hot(false, new) && many.is_hot(true, old));
        assert!(!many.is_hot(false, old));
    }

    #[test]
    fn equals_are_told_apart_by_age_pin_and_confidence() {
        let usual = Signals {
            similarity: Some(0.8),
            words: Some(3.0),
            confidence: 1.0,
            ..Signals::default()
        };
        let score = |other: Signals| fuse(&[usual, other], MEANING)[1].0;
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
        fn what_fits_better_in_everything_is_before(similarity in 0.0f32..1.0, words in 0.0f32..20.0, less in 0.01f32..0.9) {
            let better = Signals { similarity: Some(similarity), words: Some(words), confidence: 1.0, ..Signals::default() };
            let worse = Signals { similarity: Some(similarity * less), words: Some(words * less), ..better };
            let scores = fuse(&[worse, better], MEANING);
            prop_assert!(scores[0].0 <= scores[1].0);
            prop_assert!(scores.iter().all(|(score, _)| score.is_finite()));
        }
    }
}
