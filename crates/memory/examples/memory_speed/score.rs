//! Scores of a ranking against what should have been found (Manning, Raghavan, Schütze: Introduction to Information
//! Retrieval, chapter 8). Pure.

/// Places that nDCG and MRR look at.
const DEPTH: usize = 10;

/// Sums over questions.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scores {
    /// Questions.
    pub count: usize,
    recall_1: f64,
    recall_5: f64,
    recall_10: f64,
    reciprocal: f64,
    gain: f64,
}

impl Scores {
    /// Takes in one question: what was found, the best first, and what should have been, in any order.
    pub fn add(&mut self, found: &[&str], wanted: &[&str]) {
        self.count += 1;
        self.recall_1 += recall(found, wanted, 1);
        self.recall_5 += recall(found, wanted, 5);
        self.recall_10 += recall(found, wanted, 10);
        self.reciprocal += reciprocal_rank(found, wanted);
        self.gain += gain(found, wanted);
    }

    /// Means: R@1, R@5, R@10, MRR, nDCG@10.
    pub fn means(&self) -> [f64; 5] {
        [
            self.recall_1,
            self.recall_5,
            self.recall_10,
            self.reciprocal,
            self.gain,
        ]
        .map(|sum| sum / self.count.max(1) as f64)
    }
}

/// The part of what was wanted among the first `most`. Of several that are wanted no more than `most` can be there.
pub fn recall(found: &[&str], wanted: &[&str], most: usize) -> f64 {
    let hits = found.iter().take(most).filter(|one| wanted.contains(one));
    hits.count() as f64 / wanted.len().min(most).max(1) as f64
}

/// One over the place of the first that was wanted; 0 if none is among the first ten.
pub fn reciprocal_rank(found: &[&str], wanted: &[&str]) -> f64 {
    let place = found
        .iter()
        .take(DEPTH)
        .position(|one| wanted.contains(one));
    place.map_or(0.0, |place| 1.0 / (place + 1) as f64)
}

/// Discounted gain of the first ten, over that of the best order (Järvelin, Kekäläinen 2002), with gains of 0 and 1.
pub fn gain(found: &[&str], wanted: &[&str]) -> f64 {
    let discount = |place: usize| 1.0 / ((place + 2) as f64).log2();
    let found = found.iter().take(DEPTH).enumerate();
    let got: f64 = found
        .filter(|(_, one)| wanted.contains(one))
        .map(|(place, _)| discount(place))
        .sum();
    let best: f64 = (0..wanted.len().min(DEPTH)).map(discount).sum();
    if best > 0.0 { got / best } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-4, "{a} is not {b}");
    }

    #[test]
    fn known_rankings_have_their_known_scores() {
        let found = ["x", "a", "y", "b", "z"];
        near(recall(&found, &["a", "b"], 1), 0.0);
        near(recall(&found, &["a", "b"], 2), 0.5);
        near(recall(&found, &["a", "b"], 5), 1.0);
        near(recall(&found, &["x", "b"], 1), 1.0);
        near(recall(&found, &["q"], 10), 0.0);
        near(reciprocal_rank(&found, &["b"]), 0.25);
        near(reciprocal_rank(&found, &["q"]), 0.0);
        // (1/log2(3) + 1/log2(5)) / (1 + 1/log2(3))
        near(gain(&found, &["a", "b"]), (0.63093 + 0.43068) / 1.63093);
        near(gain(&["a", "b"], &["b", "a"]), 1.0);
        near(gain(&[], &["a"]), 0.0);
        near(gain(&["a"], &["a", "b", "c"]), 1.0 / 2.13093);
    }

    #[test]
    fn only_the_first_ten_count() {
        let found: Vec<String> = (0..12).map(|place| place.to_string()).collect();
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        near(reciprocal_rank(&found, &["10"]), 0.0);
        near(gain(&found, &["11"]), 0.0);
        near(recall(&found, &["9"], 10), 1.0);
        near(recall(&found, &["10"], 10), 0.0);
    }

    #[test]
    fn means_are_over_questions() {
        let mut scores = Scores::default();
        scores.add(&["a"], &["a"]);
        scores.add(&["b", "a"], &["a"]);
        let [one, five, ten, reciprocal, gain] = scores.means();
        near(one, 0.5);
        near(five, 1.0);
        near(ten, 1.0);
        near(reciprocal, 0.75);
        near(gain, (1.0 + 0.63093) / 2.0);
    }
}
