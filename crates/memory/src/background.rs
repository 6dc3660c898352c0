//! What an encoder sees in any two texts, and how far above it two texts are that have to do with each other. Pure.
//!
//! A cosine alone does not tell. Each family of encoders gives unrelated texts another one, MiniLM about 0, E5 about 0.7;
//! and within one encoder some texts are near to everything, short ones above all: `hello` has 0.3 in common with
//! `zebra`. So what a text has in common with any query, and a query with any text, is taken away first, by taking the
//! mean vector away (Suzuki, Hara, Shimbo, Saerens, Fukumizu: Centering Similarity Measures to Reduce Hubs, EMNLP 2013).
//! What is left is told in standard deviations of what is left between texts that have nothing to do with each other.

/// Standard deviations that a text must be above the background of its query to count as related by meaning. Fewer give
/// more that is not, more hide more that is: `cargo xtask bench memory` prints both.
pub(crate) const CLEAR: f32 = 2.5;

/// An encoder that has all texts so alike tells none apart; what is left between them is rounding.
const LEAST_SPREAD: f32 = 1e-4;

/// Queries as people write them, each of another subject than every one of [`PASSAGES`].
pub(crate) const QUERIES: [&str; 16] = [
    "coffee",
    "mountain",
    "politics",
    "bank account",
    "hospital",
    "dancing",
    "email",
    "tiger",
    "history of Spain",
    "birthday",
    "rain",
    "sofa",
    "how do I cook rice",
    "where can I park",
    "why is the fan so loud",
    "which phone is the best",
];

/// Notes as people write them: short, for what is long is near to nothing by chance.
pub(crate) const PASSAGES: [&str; 16] = [
    "thanks",
    "nails, screws",
    "new tyres fitted",
    "haircut friday 4 pm",
    "the boat is named Nora",
    "prefer dark mode",
    "ticket 8812 closed",
    "passport expires in may",
    "uncle Ben drinks tea",
    "lunch at noon",
    "todo",
    "umbrella left at the office",
    "the lamp in the hall flickers",
    "Maria starts on the 3rd",
    "backups go to the NAS",
    "window cleaner paid",
];

/// What an encoder sees in any two texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Background {
    /// The mean vectors of queries and of passages.
    query: Vec<f32>,
    passage: Vec<f32>,
    /// Standard deviation of what unrelated texts have in common beyond their means.
    spread: f32,
}

impl Background {
    /// Measured with the vectors of queries and of passages that have nothing to do with each other; all of one length.
    pub fn of(queries: &[Vec<f32>], passages: &[Vec<f32>]) -> Self {
        let mut background = Self {
            query: mean(queries),
            passage: mean(passages),
            spread: 1.0,
        };
        let (mut squares, mut pairs) = (0.0, 0.0);
        for query in queries {
            let seen = background.seen_from(query);
            for passage in passages {
                squares += seen.above(passage).powi(2);
                pairs += 1.0;
            }
        }
        background.spread = (squares / f32::max(pairs, 1.0)).sqrt();
        background
    }

    /// The background of one query.
    pub(crate) fn seen_from(&self, query: &[f32]) -> Seen {
        let pairs = query.iter().zip(&self.query);
        let query: Vec<f32> = pairs.map(|(value, mean)| value - mean).collect();
        Seen {
            usual: dot(&query, &self.passage),
            query,
            spread: self.spread.max(LEAST_SPREAD),
        }
    }
}

/// See [`Background::seen_from`].
pub(crate) struct Seen {
    /// The query without what all queries have.
    query: Vec<f32>,
    /// What it has in common with the mean passage.
    usual: f32,
    spread: f32,
}

impl Seen {
    /// Standard deviations that a passage is above what unrelated ones have in common with the query; below it, if
    /// negative.
    pub fn above(&self, passage: &[f32]) -> f32 {
        (dot(&self.query, passage) - self.usual) / self.spread
    }
}

/// The mean of vectors of one length.
fn mean(vectors: &[Vec<f32>]) -> Vec<f32> {
    let mut mean = vec![0.0; vectors.first().map_or(0, Vec::len)];
    for vector in vectors {
        for (sum, value) in mean.iter_mut().zip(vector) {
            *sum += value / vectors.len() as f32;
        }
    }
    mean
}

/// The cosine of two vectors of length one.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    const WIDTH: usize = 6;

    fn vector() -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(-1.0f32..1.0, WIDTH)
    }

    fn vectors() -> impl Strategy<Value = Vec<Vec<f32>>> {
        prop::collection::vec(vector(), 4..12)
    }

    fn near(a: f32, b: f32) -> bool {
        (a - b).abs() < 1e-2 * (1.0 + a.abs())
    }

    proptest! {
        /// So that one bound is right for encoders that give all texts much in common and for those that do not.
        #[test]
        fn what_all_texts_have_in_common_does_not_count(queries in vectors(), passages in vectors(), common in vector(), scale in 0.1f32..3.0) {
            let plain = Background::of(&queries, &passages);
            prop_assume!(plain.spread > 0.05);
            let moved = |vectors: &[Vec<f32>]| -> Vec<Vec<f32>> {
                let one = |vector: &Vec<f32>| vector.iter().zip(&common).map(|(value, common)| value * scale + common).collect();
                vectors.iter().map(one).collect()
            };
            let other = Background::of(&moved(&queries), &moved(&passages));
            for (query, theirs) in queries.iter().zip(moved(&queries)) {
                for (passage, its) in passages.iter().zip(moved(&passages)) {
                    let (a, b) = (plain.seen_from(query).above(passage), other.seen_from(&theirs).above(&its));
                    prop_assert!(near(a, b), "{a} {b}");
                }
            }
        }

        #[test]
        fn unrelated_texts_are_one_standard_deviation_from_it(queries in vectors(), passages in vectors()) {
            let background = Background::of(&queries, &passages);
            prop_assume!(background.spread > 0.05);
            let all = queries.iter().map(|query| background.seen_from(query));
            let all: Vec<f32> = all.flat_map(|seen| passages.iter().map(move |passage| seen.above(passage))).collect();
            let mean = all.iter().sum::<f32>() / all.len() as f32;
            let squares = all.iter().map(|value| value * value).sum::<f32>() / all.len() as f32;
            prop_assert!(mean.abs() < 1e-2 && near(squares, 1.0), "{mean} {squares}");
        }

        #[test]
        fn what_is_more_like_the_query_is_farther_above(query in vector(), passage in vector(), step in 0.01f32..1.0) {
            let background = Background::of(&[vec![0.5; WIDTH], vec![-0.5; WIDTH]], &[vec![0.1; WIDTH], vec![0.3; WIDTH]]);
            prop_assume!(query.iter().any(|value| value.abs() > 0.1));
            let more: Vec<f32> = passage.iter().zip(&query).map(|(value, query)| value + step * query).collect();
            let seen = background.seen_from(&query);
            prop_assert!(seen.above(&more) > seen.above(&passage));
        }
    }

    /// A short note that is somewhat near to everything, and one of the same cosine that only this query is near to.
    #[test]
    fn what_is_near_to_every_query_is_not_clear_of_this_one() {
        let queries = [[0.6, 0.8, 0.0], [0.6, -0.8, 0.0]].map(Vec::from);
        let passages = [[0.0, 0.0, 1.0], [0.0, 0.6, -0.8]].map(Vec::from);
        let seen = Background::of(&queries, &passages);
        let seen = seen.seen_from(&queries[0]);
        let (to_all, to_this) = ([0.8, 0.0, 0.6], [0.0, 0.6, 0.8]);
        assert!((dot(&queries[0], &to_all) - dot(&queries[0], &to_this)).abs() < 1e-6);
        assert!(seen.above(&to_all) < 0.0 && seen.above(&to_this) > 0.0);
    }

    #[test]
    fn where_all_is_alike_nothing_is_clear() {
        let same = vec![vec![0.6, 0.8]; 3];
        let seen = Background::of(&same, &same);
        let seen = seen.seen_from(&same[0]);
        assert!(seen.above(&same[0]).abs() < 1.0);
        let none = Background::of(&[], &[]);
        assert!(none.seen_from(&[]).above(&[]).abs() < 1.0);
    }
}
