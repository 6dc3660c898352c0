//! Choosing the next token from the model's logits. Pure: no I/O, no llama.cpp.

use crate::Token;

/// How tokens are chosen. Stages run in this order: constraint mask, logit bias, penalties, top-k, min-p, top-p,
/// temperature, draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 is greedy; 0 to 2.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set whose probability reaches this, in (0, 1].
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one, 0 to 1.
    pub min_p: f32,
    /// Divides (multiplies, when negative) the logits of tokens seen in the window; 1 is off.
    pub repeat_penalty: f32,
    /// Subtracted once per earlier occurrence in the answer, −2 to 2.
    pub frequency_penalty: f32,
    /// Subtracted once if the token occurred in the answer, −2 to 2.
    pub presence_penalty: f32,
    /// Tokens the penalties look back on.
    pub penalty_window: u32,
    /// Added to the logits of these tokens, −100 to 100.
    pub logit_bias: Vec<(Token, f32)>,
    /// Same seed, same text; `None` draws one.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_window: 64,
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}
