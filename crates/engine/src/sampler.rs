//! Choosing the next token from the model's logits. Pure: no I/O, no llama.cpp.

use rand_core::{RngCore, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use crate::{EngineError, Token};

/// How tokens are chosen. Stages run in this order: constraint mask, logit bias, penalties, top-k, min-p, top-p,
/// temperature, draw. What is `None` is what the model's file recommends, else what is said here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy; 0 to 2. Else 0.8.
    pub temperature: Option<f32>,
    /// Keep the k most likely tokens; 0 keeps all. Else 40.
    pub top_k: Option<u32>,
    /// Keep the smallest set whose probability reaches this, 0 to 1; 0 keeps the most likely token alone. Else 0.95.
    pub top_p: Option<f32>,
    /// Drop tokens less likely than this share of the most likely one, 0 to 1. Else 0.05.
    pub min_p: Option<f32>,
    /// Divides (multiplies, when negative) the logits of tokens seen in the window; 1 is off. Else 1.
    pub repeat_penalty: Option<f32>,
    /// Tokens the repeat penalty looks back on. Else 64.
    pub penalty_window: Option<u32>,
    /// Subtracted once per earlier occurrence in the answer, −2 to 2.
    pub frequency_penalty: f32,
    /// Subtracted once if the token occurred in the answer, −2 to 2.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens, −100 to 100.
    pub logit_bias: Vec<(Token, f32)>,
    /// Same seed, same text; `None` draws one.
    pub seed: Option<u64>,
}

impl Sampling {
    /// This, and where it says nothing, what `other` says.
    pub(crate) fn or(mut self, other: &Sampling) -> Self {
        self.temperature = self.temperature.or(other.temperature);
        self.top_k = self.top_k.or(other.top_k);
        self.top_p = self.top_p.or(other.top_p);
        self.min_p = self.min_p.or(other.min_p);
        self.repeat_penalty = self.repeat_penalty.or(other.repeat_penalty);
        self.penalty_window = self.penalty_window.or(other.penalty_window);
        self
    }

    /// Refuses values outside the ranges documented above and biases on tokens that do not exist.
    pub fn validate(&self, vocabulary: usize) -> Result<(), EngineError> {
        let range = |field: &'static str, value: f32, low: f32, high: f32| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                let message = format!("{field} must be {low} to {high}, not {value}");
                Err(EngineError::Invalid { field, message })
            }
        };
        range("temperature", self.temperature.unwrap_or(1.0), 0.0, 2.0)?;
        range("top_p", self.top_p.unwrap_or(1.0), 0.0, 1.0)?;
        range("min_p", self.min_p.unwrap_or(1.0), 0.0, 1.0)?;
        range(
            "repeat_penalty",
            self.repeat_penalty.unwrap_or(1.0),
            0.1,
            10.0,
        )?;
        range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        range("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        for (token, bias) in &self.logit_bias {
            if usize::try_from(*token).map_or(true, |token| token >= vocabulary) {
                let message = format!(
                    "token {token} is not in the vocabulary (0 to {})",
                    vocabulary - 1
                );
                return Err(EngineError::Invalid {
                    field: "logit_bias",
                    message,
                });
            }
            range("logit_bias", *bias, -100.0, 100.0)?;
        }
        Ok(())
    }
}

/// A token and its logit while the candidates are narrowed down.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: Token,
    logit: f32,
}

/// Temperatures below this are greedy: their weights leave the range of an f32.
const COLDEST: f32 = 1e-5;

/// Draws the tokens of one choice.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    repeat_penalty: f32,
    penalty_window: usize,
    random: Pcg64Mcg,
    /// Prompt and answer, as far as the repeat penalty looks back.
    window: std::collections::VecDeque<Token>,
    /// How often each token stands in the answer.
    counts: std::collections::HashMap<Token, u32>,
    candidates: Vec<Candidate>,
    weights: Vec<f32>,
    adjusted: Vec<f32>,
}

impl Sampler {
    /// A sampler whose draws depend on `seed` alone.
    pub fn new(sampling: &Sampling, seed: u64) -> Self {
        Self {
            sampling: sampling.clone(),
            temperature: sampling.temperature.unwrap_or(0.8),
            top_k: sampling.top_k.unwrap_or(40) as usize,
            top_p: sampling.top_p.unwrap_or(0.95),
            min_p: sampling.min_p.unwrap_or(0.05),
            repeat_penalty: sampling.repeat_penalty.unwrap_or(1.0),
            penalty_window: sampling.penalty_window.unwrap_or(64) as usize,
            random: Pcg64Mcg::seed_from_u64(seed),
            window: Default::default(),
            counts: Default::default(),
            candidates: Vec::new(),
            weights: Vec::new(),
            adjusted: Vec::new(),
        }
    }

    /// Lets the repeat penalty know the prompt.
    pub fn observe_prompt(&mut self, tokens: &[Token]) {
        let seen = tokens.len().saturating_sub(self.penalty_window);
        self.window = tokens[seen..].iter().copied().collect();
    }

    /// Tells the sampler which token follows, drawn by it or forced by a grammar.
    pub fn accept(&mut self, token: Token) {
        *self.counts.entry(token).or_default() += 1;
        self.window.push_back(token);
        if self.window.len() > self.penalty_window {
            self.window.pop_front();
        }
    }

    /// Draws a token. `mask` has one bit per token, 32 to a word, set where the token is allowed. `None` if nothing
    /// is allowed or no logit is a number.
    pub fn sample(&mut self, logits: &[f32], mask: Option<&[u32]>) -> Option<Token> {
        if self.changes_logits() {
            let mut adjusted = std::mem::take(&mut self.adjusted);
            adjusted.clear();
            adjusted.extend_from_slice(logits);
            self.adjust(&mut adjusted);
            let token = self.draw(&adjusted, mask);
            self.adjusted = adjusted;
            token
        } else {
            self.draw(logits, mask)
        }
    }

    fn changes_logits(&self) -> bool {
        let sampling = &self.sampling;
        !sampling.logit_bias.is_empty()
            || (self.repeat_penalty != 1.0 && !self.window.is_empty())
            || ((sampling.frequency_penalty != 0.0 || sampling.presence_penalty != 0.0)
                && !self.counts.is_empty())
    }

    /// Bias and penalties, as OpenAI documents them (presence, frequency) and as CTRL does (repeat; Keskar et al.,
    /// 2019, arXiv:1909.05858).
    fn adjust(&self, logits: &mut [f32]) {
        for (token, bias) in &self.sampling.logit_bias {
            if let Some(logit) = logits.get_mut(*token as usize) {
                // −100 bans and 100 forces, whatever the logits' scale.
                *logit = match *bias {
                    bias if bias <= -100.0 => f32::NEG_INFINITY,
                    // Far above every logit, and small enough for the order among forced tokens to survive in an f32.
                    bias if bias >= 100.0 => *logit + 1e3,
                    bias => *logit + bias,
                };
            }
        }
        if self.repeat_penalty != 1.0 {
            let seen: std::collections::BTreeSet<Token> = self.window.iter().copied().collect();
            for token in seen {
                if let Some(logit) = logits.get_mut(token as usize) {
                    let penalty = self.repeat_penalty;
                    *logit = if *logit > 0.0 {
                        *logit / penalty
                    } else {
                        *logit * penalty
                    };
                }
            }
        }
        for (token, count) in &self.counts {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit -= self.sampling.presence_penalty
                    + self.sampling.frequency_penalty * *count as f32;
            }
        }
    }

    fn draw(&mut self, logits: &[f32], mask: Option<&[u32]>) -> Option<Token> {
        if self.temperature < COLDEST {
            return greedy(logits, mask);
        }
        self.collect(logits, mask);
        self.keep_most_likely();
        self.weigh();
        self.pick()
    }

    /// Fills the candidates with every allowed token that can survive min-p: found by threshold, without a sort.
    fn collect(&mut self, logits: &[f32], mask: Option<&[u32]>) {
        self.candidates.clear();
        let Some(best) = greedy(logits, mask) else {
            return;
        };
        let top = logits[best as usize];
        // p < min_p · p_max is the same as logit < logit_max + ln(min_p).
        let floor = if self.min_p > 0.0 {
            top + self.min_p.ln()
        } else {
            f32::NEG_INFINITY
        };
        let candidates = &mut self.candidates;
        each_allowed(logits.len(), mask, |token| {
            let logit = logits[token];
            if logit >= floor && logit > f32::NEG_INFINITY {
                candidates.push(Candidate {
                    token: token as Token,
                    // Differences of infinities are not numbers.
                    logit: logit.min(f32::MAX),
                });
            }
        });
    }

    fn keep_most_likely(&mut self) {
        let most = self.top_k;
        if most > 0 && most < self.candidates.len() {
            self.candidates.select_nth_unstable_by(most - 1, likelier);
            self.candidates.truncate(most);
        }
        if self.top_p < 1.0 {
            // Tokens of equal logit are ordered by id, so that the same seed gives the same text.
            self.candidates.sort_unstable_by(likelier);
            self.weights.clear();
            let top = self
                .candidates
                .first()
                .map_or(0.0, |candidate| candidate.logit);
            self.weights.extend(
                self.candidates
                    .iter()
                    .map(|candidate| (candidate.logit - top).exp()),
            );
            let total: f32 = self.weights.iter().sum();
            let mut sum = 0.0;
            let enough = self.weights.iter().position(|weight| {
                sum += weight;
                sum >= self.top_p * total
            });
            self.candidates
                .truncate(enough.map_or(self.candidates.len(), |last| last + 1));
        } else {
            self.candidates
                .sort_unstable_by_key(|candidate| candidate.token);
        }
    }

    fn weigh(&mut self) {
        let top = self
            .candidates
            .iter()
            .map(|candidate| candidate.logit)
            .fold(f32::NEG_INFINITY, f32::max);
        let scale = 1.0 / self.temperature;
        self.weights.clear();
        self.weights.extend(
            self.candidates
                .iter()
                .map(|candidate| ((candidate.logit - top) * scale).exp()),
        );
    }

    fn pick(&mut self) -> Option<Token> {
        let total: f64 = self.weights.iter().map(|weight| f64::from(*weight)).sum();
        // 53 random bits make a uniform number in [0, 1).
        let uniform = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = uniform * total;
        for (candidate, weight) in self.candidates.iter().zip(&self.weights) {
            left -= f64::from(*weight);
            if left < 0.0 {
                return Some(candidate.token);
            }
        }
        self.candidates.last().map(|candidate| candidate.token)
    }
}

fn likelier(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

/// Calls `visit` with every allowed index below `length`.
fn each_allowed(length: usize, mask: Option<&[u32]>, mut visit: impl FnMut(usize)) {
    match mask {
        None => (0..length).for_each(visit),
        Some(words) => {
            for (index, word) in words.iter().enumerate() {
                let mut bits = *word;
                while bits != 0 {
                    let token = index * 32 + bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    if token < length {
                        visit(token);
                    }
                }
            }
        }
    }
}

/// The most likely allowed token, the lowest id among equals; NaN counts as impossible.
fn greedy(logits: &[f32], mask: Option<&[u32]>) -> Option<Token> {
    let mut best = None;
    let mut top = f32::NEG_INFINITY;
    if mask.is_none() {
        top = maximum(logits);
        return logits
            .iter()
            .position(|logit| *logit == top)
            .filter(|_| top > f32::NEG_INFINITY)
            .map(|at| at as Token);
    }
    each_allowed(logits.len(), mask, |token| {
        if logits[token] > top {
            top = logits[token];
            best = Some(token as Token);
        }
    });
    best
}

/// The largest number, ignoring NaN. Sixteen independent lanes let the compiler use vector instructions.
fn maximum(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = values.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    let top = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
    rest.iter().copied().fold(top, f32::max)
}

/// Log probability of what cannot come: JSON has no infinity, and OpenAI's API writes this.
const IMPOSSIBLE: f32 = -9999.0;

/// Log probability of `chosen` and of the `top` most likely tokens, from the model's own logits (no temperature, no
/// mask), most likely first. Always finite, at least −9999.
pub fn logprobs(logits: &[f32], chosen: Token, top: usize) -> (f32, Vec<(Token, f32)>) {
    let largest = maximum(logits).min(f32::MAX);
    let sum: f64 = logits
        .iter()
        .filter(|logit| !logit.is_nan())
        .map(|logit| f64::from((logit.min(f32::MAX) - largest).exp()))
        .sum();
    let normaliser = largest + sum.ln() as f32;
    let logprob = |logit: f32| match logit.min(f32::MAX) - normaliser {
        number if number >= IMPOSSIBLE => number,
        _ => IMPOSSIBLE,
    };
    let mut best: Vec<Candidate> = Vec::with_capacity(top + 1);
    for (token, logit) in logits.iter().enumerate() {
        if best.len() == top && best.last().is_none_or(|last| *logit <= last.logit)
            || logit.is_nan()
        {
            continue;
        }
        let at = best.partition_point(|other| other.logit >= *logit);
        best.insert(
            at,
            Candidate {
                token: token as Token,
                logit: *logit,
            },
        );
        best.truncate(top);
    }
    let named = best
        .into_iter()
        .map(|candidate| (candidate.token, logprob(candidate.logit)))
        .collect();
    let own = logits
        .get(chosen as usize)
        .map_or(IMPOSSIBLE, |logit| logprob(*logit));
    (own, named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain() -> Sampling {
        Sampling {
            temperature: Some(1.0),
            top_k: Some(0),
            top_p: Some(1.0),
            min_p: Some(0.0),
            ..Sampling::default()
        }
    }

    fn draws(sampling: &Sampling, logits: &[f32], mask: Option<&[u32]>, n: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(sampling, 42);
        let mut counts = vec![0; logits.len()];
        for _ in 0..n {
            counts[sampler.sample(logits, mask).expect("something is allowed") as usize] += 1;
        }
        counts
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits: Vec<f32> = [0.5f32, 0.25, 0.125, 0.125]
            .iter()
            .map(|p| p.ln())
            .collect();
        let counts = draws(&plain(), &logits, None, 40_000);
        for (count, share) in counts.iter().zip([0.5, 0.25, 0.125, 0.125]) {
            // Five standard deviations.
            let expected = 40_000.0 * share;
            assert!(
                (*count as f64 - expected).abs() < 5.0 * (expected * (1.0 - share)).sqrt(),
                "{counts:?}"
            );
        }
    }

    #[test]
    fn temperature_sharpens_and_flattens() {
        let logits = [1.0, 0.0];
        let cold = draws(
            &Sampling {
                temperature: Some(0.5),
                ..plain()
            },
            &logits,
            None,
            10_000,
        )[0];
        let warm = draws(
            &Sampling {
                temperature: Some(2.0),
                ..plain()
            },
            &logits,
            None,
            10_000,
        )[0];
        // e² / (e² + 1) = 0.881 and √e / (√e + 1) = 0.622.
        assert!(
            (8_600..9_000).contains(&cold) && (6_000..6_450).contains(&warm),
            "{cold} {warm}"
        );
    }

    #[test]
    fn truncation_keeps_what_it_should() {
        let logits: Vec<f32> = [0.4f32, 0.3, 0.2, 0.06, 0.04]
            .iter()
            .map(|p| p.ln())
            .collect();
        let kept = |sampling: Sampling| -> Vec<usize> {
            let counts = draws(&sampling, &logits, None, 5_000);
            (0..5).filter(|token| counts[*token] > 0).collect()
        };
        assert_eq!(
            kept(Sampling {
                top_k: Some(2),
                ..plain()
            }),
            [0, 1]
        );
        assert_eq!(
            kept(Sampling {
                top_p: Some(0.65),
                ..plain()
            }),
            [0, 1]
        );
        assert_eq!(
            kept(Sampling {
                top_p: Some(0.75),
                ..plain()
            }),
            [0, 1, 2]
        );
        assert_eq!(
            kept(Sampling {
                min_p: Some(0.4),
                ..plain()
            }),
            [0, 1, 2]
        );
        assert_eq!(kept(plain()), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn bias_and_penalties_do_what_openai_documents() {
        let logits = [2.0, 1.9, 0.0];
        let greedy = Sampling {
            temperature: Some(0.0),
            ..plain()
        };
        let biased = |bias| {
            Sampler::new(
                &Sampling {
                    logit_bias: bias,
                    ..greedy.clone()
                },
                0,
            )
            .sample(&logits, None)
        };
        assert_eq!(biased(vec![(0, -100.0)]), Some(1));
        assert_eq!(biased(vec![(2, 100.0)]), Some(2));
        assert_eq!(biased(vec![(0, -100.0), (1, 100.0), (2, 100.0)]), Some(1));
        let choice = Sampling {
            logit_bias: vec![(0, 100.0), (1, 100.0)],
            ..greedy.clone()
        };
        assert_eq!(
            Sampler::new(&choice, 0).sample(&[-5.0, -1.0], None),
            Some(1)
        );
        assert_eq!(biased(vec![(1, 0.2)]), Some(1));
        for penalised in [
            Sampling {
                presence_penalty: 0.2,
                ..greedy.clone()
            },
            Sampling {
                frequency_penalty: 0.2,
                ..greedy.clone()
            },
            Sampling {
                repeat_penalty: Some(1.2),
                ..greedy.clone()
            },
        ] {
            let mut sampler = Sampler::new(&penalised, 0);
            assert_eq!(sampler.sample(&logits, None), Some(0));
            sampler.accept(0);
            assert_eq!(sampler.sample(&logits, None), Some(1), "{penalised:?}");
        }
    }

    #[test]
    fn no_number_and_no_permission_is_no_token() {
        for temperature in [0.0, 1e-39, 1e-4, 1.0] {
            let mut sampler = Sampler::new(
                &Sampling {
                    temperature: Some(temperature),
                    ..plain()
                },
                0,
            );
            assert_eq!(sampler.sample(&[f32::NAN, f32::NAN], None), None);
            assert_eq!(sampler.sample(&[1.0, 2.0], Some(&[0])), None);
            assert_eq!(sampler.sample(&[f32::NAN, -1.0], None), Some(1));
            assert_eq!(sampler.sample(&[1.0, f32::INFINITY, 2.0], None), Some(1));
        }
    }

    #[test]
    fn log_probabilities_sum_to_one_and_are_ordered() {
        let logits: Vec<f32> = (0..100).map(|at| ((at * 37) % 41) as f32 / 7.0).collect();
        let (own, top) = logprobs(&logits, 3, 100);
        assert!((top.iter().map(|(_, logprob)| logprob.exp()).sum::<f32>() - 1.0).abs() < 1e-4);
        assert!(top.windows(2).all(|pair| pair[0].1 >= pair[1].1));
        assert_eq!(
            top.iter()
                .find(|(token, _)| *token == 3)
                .map(|(_, logprob)| *logprob),
            Some(own)
        );
        assert_eq!(logprobs(&logits, 3, 5).1, top[..5]);
        // What cannot be written as JSON does not come out.
        let (own, top) = logprobs(&[f32::INFINITY, f32::NEG_INFINITY, 0.0], 1, 3);
        assert!(
            own == IMPOSSIBLE
                && top[0] == (0, 0.0)
                && top.iter().all(|(_, logprob)| logprob.is_finite())
        );
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (field, sampling) in [
            (
                "temperature",
                Sampling {
                    temperature: Some(2.1),
                    ..plain()
                },
            ),
            (
                "temperature",
                Sampling {
                    temperature: Some(f32::NAN),
                    ..plain()
                },
            ),
            (
                "top_p",
                Sampling {
                    top_p: Some(-0.1),
                    ..plain()
                },
            ),
            (
                "min_p",
                Sampling {
                    min_p: Some(1.1),
                    ..plain()
                },
            ),
            (
                "presence_penalty",
                Sampling {
                    presence_penalty: 3.0,
                    ..plain()
                },
            ),
            (
                "logit_bias",
                Sampling {
                    logit_bias: vec![(100, 1.0)],
                    ..plain()
                },
            ),
            (
                "logit_bias",
                Sampling {
                    logit_bias: vec![(-1, 1.0)],
                    ..plain()
                },
            ),
        ] {
            let error = sampling.validate(100).expect_err(field);
            assert!(
                matches!(error, EngineError::Invalid { field: wrong, .. } if wrong == field),
                "{error}"
            );
        }
        assert!(Sampling::default().validate(100).is_ok());
    }

    proptest! {
        /// Whatever the settings: the token is allowed, and the same seed draws the same one.
        #[test]
        fn masks_hold_and_seeds_repeat(
            logits in prop::collection::vec(-20f32..20.0, 1..300),
            words in prop::collection::vec(any::<u32>(), 10),
            temperature in 0f32..2.0, top_k in 0u32..50, top_p in 0f32..1.0, min_p in 0f32..1.0, seed: u64,
        ) {
            let sampling = Sampling {
                temperature: Some(temperature), top_k: Some(top_k), top_p: Some(top_p), min_p: Some(min_p),
                ..Sampling::default()
            };
            let token = Sampler::new(&sampling, seed).sample(&logits, Some(&words));
            prop_assert_eq!(token, Sampler::new(&sampling, seed).sample(&logits, Some(&words)));
            let allowed = |token: usize| words[token / 32] >> (token % 32) & 1 == 1;
            match token {
                Some(token) => prop_assert!(allowed(token as usize)),
                None => prop_assert!(!(0..logits.len()).any(allowed)),
            }
        }
    }
}
