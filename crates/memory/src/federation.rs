//! What several machines found for one query, as one answer. Pure.
//!
//! Scores are scaled within the answer of one machine, so the lists are fused again as one, from what each says about why
//! it was found. Cosines of different encoders are not comparable; machines with different ones are ordered by words
//! mostly.

use std::collections::HashSet;

use hearth_protocol::memory::Hit;
use jiff::Timestamp;

use crate::gate::fingerprint;
use crate::retrieval::{Asked, Fusion, Signals, fuse};

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
    let signals: Vec<Signals> = all.iter().map(|(_, hit)| signals(hit, now)).collect();
    let asked = Asked::new(query, all.len());
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
