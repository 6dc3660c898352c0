//! What one step computes: which slots, and how many tokens of each. Pure.
//!
//! Every slot that decodes takes part in every step (continuous batching, Yu et al., Orca, OSDI 2022). What remains of
//! the batch goes to prompts, oldest first, in chunks small enough that running streams are not stalled for longer
//! than [`STALL`] (chunked prefill, Agrawal et al., Sarathi-Serve, OSDI 2024).

use std::time::Duration;

/// Longest a chunk of somebody's prompt may delay running streams.
pub(crate) const STALL: Duration = Duration::from_millis(100);
/// Smallest chunk: below it, the cost per step outweighs the work.
const SMALLEST_CHUNK: usize = 32;
/// A slot with at most this many tokens to compute is decoding (the sampled token and those a grammar forced).
const DECODING: usize = 16;

/// Tokens to compute for one slot in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// Index of the slot.
    pub slot: usize,
    /// Tokens, at least 1.
    pub tokens: usize,
}

/// Tokens a prompt may take of a step while others stream, from the measured prefill speed.
pub(crate) fn chunk(tokens_per_second: f32, batch: usize) -> usize {
    let fitting = (tokens_per_second * STALL.as_secs_f32()) as usize;
    fitting.clamp(SMALLEST_CHUNK, batch.max(SMALLEST_CHUNK))
}

/// Divides a batch of `batch` tokens. `pending` are the slots with work, oldest first, with the tokens each still has
/// to compute; `chunk` bounds the prompt tokens of a step in which others decode.
pub(crate) fn plan(pending: &[Share], batch: usize, chunk: usize) -> Vec<Share> {
    let mut shares = Vec::with_capacity(pending.len());
    let mut left = batch;
    for share in pending.iter().filter(|share| share.tokens <= DECODING) {
        if share.tokens <= left {
            left -= share.tokens;
            shares.push(*share);
        }
    }
    let mut prompt = if shares.is_empty() {
        left
    } else {
        left.min(chunk)
    };
    for share in pending.iter().filter(|share| share.tokens > DECODING) {
        let tokens = share.tokens.min(prompt);
        if tokens > 0 {
            shares.push(Share {
                slot: share.slot,
                tokens,
            });
            prompt -= tokens;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_long_prompt_takes_one_chunk_beside_streams_and_all_alone() {
        let prompt = Share {
            slot: 0,
            tokens: 5000,
        };
        let stream = Share { slot: 1, tokens: 1 };
        assert_eq!(
            plan(&[prompt], 512, 64),
            [Share {
                slot: 0,
                tokens: 512
            }]
        );
        assert_eq!(
            plan(&[prompt, stream], 512, 64),
            [
                stream,
                Share {
                    slot: 0,
                    tokens: 64
                }
            ]
        );
    }

    #[test]
    fn chunks_follow_the_measured_speed() {
        assert_eq!(chunk(1000.0, 512), 100);
        assert_eq!(chunk(1.0, 512), SMALLEST_CHUNK);
        assert_eq!(chunk(1e9, 512), 512);
    }

    proptest! {
        /// No step exceeds its batch, stalls streams beyond a chunk, gives a slot more than it has, or starves:
        /// every decoding slot takes part while there is room, and the oldest prompt always moves on.
        #[test]
        fn steps_are_fair(pending in prop::collection::vec(1usize..3000, 1..64), chunk in 32usize..512) {
            let pending: Vec<Share> =
                pending.into_iter().enumerate().map(|(slot, tokens)| Share { slot, tokens }).collect();
            let shares = plan(&pending, 1024, chunk);
            prop_assert!(shares.iter().map(|share| share.tokens).sum::<usize>() <= 1024);
            for share in &shares {
                prop_assert!(share.tokens >= 1 && share.tokens <= pending[share.slot].tokens);
            }
            let streams = pending.iter().filter(|share| share.tokens <= DECODING).count();
            let served = shares.iter().filter(|share| pending[share.slot].tokens <= DECODING).count();
            prop_assert_eq!(served, streams);
            if let Some(oldest) = pending.iter().find(|share| share.tokens > DECODING) {
                let given = shares.iter().find(|share| share.slot == oldest.slot);
                prop_assert!(given.is_some(), "the oldest prompt moves on");
                if streams > 0 {
                    let prompts: usize = shares.iter()
                        .filter(|share| pending[share.slot].tokens > DECODING).map(|share| share.tokens).sum();
                    prop_assert!(prompts <= chunk);
                }
            }
        }
    }
}
