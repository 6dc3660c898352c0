//! What several machines found for one query, as one answer. Pure.
//!
//! Scores are scaled within the answer of one machine, so the lists are fused again as one, from what each says about why
//! it was found. BM25 of different stores is not comparable: a word that is rare in one is in every note of another, which
//! may have only two. So a memory's words count at least as much as the part of the query that its text covers. Of a
//! machine without an encoder that part stands for the meaning, too. Cosines of different encoders are not comparable
//! either; machines with different ones are ordered by words mostly.

use std::collections::HashSet;

use hearth_protocol::memory::Hit;
use jiff::Timestamp;

use crate::gate::fingerprint;
use crate::retrieval::{Asked, Fusion, Signals, covered, fuse};

/// The best of what machines (`T` names them) found for a query, explained (`Search::explain`); the first machine comes
/// first among equals. A memory that says the same as a better one is left out, whoever has it. At most `limit`.
pub fn merged<T: Clone>(
    query: &str,
    found: Vec<(T, Vec<Hit>)>,
    limit: usize,
    now: Timestamp,
) -> Vec<(T, Hit)> {
    let mut all: Vec<(T, Hit)> = Vec::new();
    for (machine, hits) in found {
        all.extend(hits.into_iter().map(|hit| (machine.clone(), hit)));
    }
    let asked = Asked::new(query, all.len());
    let mut signals: Vec<Signals> = all.iter().map(|(_, hit)| signals(hit, now)).collect();
    let similar = signals.iter().filter_map(|found| found.similarity);
    let nearest = similar.reduce(f32::max);
    for ((_, hit), found) in all.iter().zip(&mut signals) {
        let Some(words) = found.words else { continue };
        let part = covered(query, &hit.memory.text);
        found.words = Some(words.max(part * asked.enough()));
        found.similarity = found.similarity.or(nearest.map(|nearest| nearest * part));
    }
    let scores = fuse(&signals, asked, Fusion::USUAL);
    for ((_, hit), (score, _)) in all.iter_mut().zip(scores) {
        hit.score = score;
    }
    all.sort_by(|(_, a), (_, b)| b.score.total_cmp(&a.score));
    let mut seen = HashSet::new();
    all.retain(|(_, hit)| seen.insert((hit.memory.project.clone(), fingerprint(&hit.memory.text))));
    all.truncate(limit);
    all
}

fn signals(hit: &Hit, now: Timestamp) -> Signals {
    let age = now.as_millisecond() - hit.memory.written.as_millisecond();
    let why = hit.why.unwrap_or_default();
    let sane = |value: Option<f32>| value.filter(|value| value.is_finite());
    Signals {
        similarity: sane(why.similarity),
        above: None,
        words: sane(why.words),
        age_days: age as f32 / 86_400_000.0,
        confidence: hit.memory.confidence,
        pinned: hit.memory.pinned,
        cold: why.cold,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hearth_protocol::memory::Why;
    use serde_json::json;

    use super::*;

    fn hit(text: &str, similarity: f32, words: Option<f32>) -> Hit {
        let memory = json!({
            "id": format!("mem-{text}"), "text": text, "kind": "note", "project": null, "tags": [],
            "confidence": 1.0, "pinned": false, "source": null, "written": "2026-01-01T00:00:00Z",
            "read": null, "reads": 0,
        });
        Hit {
            memory: serde_json::from_value(memory).unwrap(),
            score: 1.0,
            why: Some(Why {
                similarity: Some(similarity),
                words,
                ..Why::default()
            }),
        }
    }

    #[test]
    fn what_a_small_store_finds_by_words_alone_comes_before_what_is_hardly_related() {
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let here = vec![hit("a web page", 0.3, None), hit("of the press", 0.2, None)];
        // In a store of two notes BM25 of a word that one of them has is next to nothing, and there is no encoder.
        let mut exact = hit("the printer is upstairs", 0.0, Some(1e-6));
        exact.why.as_mut().unwrap().similarity = None;
        let merged = merged(
            "printer",
            vec![("here", here), ("there", vec![exact])],
            10,
            now,
        );
        assert_eq!(merged[0].0, "there", "{merged:?}");
        assert!(merged[0].1.score > 2.0 * merged[2].1.score, "{merged:?}");
    }

    #[test]
    fn the_best_of_all_machines_comes_first_and_nothing_twice() {
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let here = vec![hit("poor", 0.25, None), hit("same thing", 0.5, Some(1.0))];
        let there = vec![
            hit("good", 0.9, Some(3.0)),
            hit("Same  thing", 0.5, Some(1.0)),
        ];
        let merged = merged("thing", vec![("here", here), ("there", there)], 10, now);
        let order: Vec<(&str, &str)> = merged
            .iter()
            .map(|(machine, hit)| (*machine, hit.memory.text.as_str()))
            .collect();
        assert_eq!(
            order,
            [("there", "good"), ("here", "same thing"), ("here", "poor")]
        );
        assert!(merged.is_sorted_by(|(_, a), (_, b)| a.score >= b.score));
    }
}
