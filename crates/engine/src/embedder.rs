//! The batches of an embedding model, on its thread ([`runner`](crate::runner)).
//!
//! Each step packs texts into one batch, each a sequence of its own, computes it, and reads one vector per sequence.
//! Running requests take turns text by text, so that a question need not wait for somebody's thousand documents.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::counters::Counters;
use crate::embed::Job;
use crate::llama::{Batch, Context, DecodeError};
use crate::plan::{BATCH, SEQUENCES};
use crate::runner::{Command, Workload};
use crate::{EngineError, SeqId, Token};

/// See the module's documentation.
pub(crate) struct Embedder {
    context: Context,
    batch: Batch,
    /// Most tokens in one batch.
    capacity: usize,
    /// Most requests that take turns.
    slots: usize,
    running: VecDeque<Job>,
    waiting: VecDeque<Job>,
    counters: Arc<Counters>,
}

impl Embedder {
    /// One over an empty context.
    pub fn new(context: Context, capacity: u32, slots: u32, counters: Arc<Counters>) -> Self {
        if !context.has_cache() {
            counters.kv_cells.store(0, Ordering::Relaxed);
        }
        Self {
            context,
            batch: Batch::default(),
            capacity: capacity as usize,
            slots: slots as usize,
            running: VecDeque::new(),
            waiting: VecDeque::new(),
            counters,
        }
    }

    /// Drops the work of clients that went away.
    fn reap(&mut self) {
        let before = (self.running.len(), self.waiting.len());
        self.running.retain(|job| !job.is_abandoned());
        self.waiting.retain(|job| !job.is_abandoned());
        let waited = before.1 - self.waiting.len();
        self.counters.leave_queue(waited);
        let cancelled = before.0 - self.running.len() + waited;
        self.counters
            .cancelled
            .fetch_add(cancelled as u64, Ordering::Relaxed);
    }

    fn admit(&mut self) {
        while self.running.len() < self.slots
            && let Some(job) = self.waiting.pop_front()
        {
            self.counters.leave_queue(1);
            self.running.push_back(job);
        }
    }

    /// Computes one batch.
    fn step(&mut self) {
        let rests: Vec<&[Vec<Token>]> = self.running.iter().map(Job::rest).collect();
        let limit = self.capacity.min(BATCH as usize);
        let picked = pick(&rests, limit, SEQUENCES as usize);
        if picked.is_empty() {
            return;
        }
        match self.compute(&picked) {
            Ok(vectors) => {
                let mut without = Vec::new();
                for (job, vector) in picked.into_iter().zip(vectors) {
                    match vector {
                        Some(vector) => self.running[job].vectors.push(vector),
                        None => without.push(job),
                    }
                }
                self.fail(&without, "the model gave no usable vector");
            }
            // Its client went away in the middle; the next step drops it.
            Err(None) => return,
            Err(Some(reason)) => {
                self.fail(&picked, &reason);
                return;
            }
        }
        let all = self.running.drain(..);
        let (done, open): (VecDeque<Job>, VecDeque<Job>) =
            all.partition(|job| job.rest().is_empty());
        self.running = open;
        // Another job's text comes first in the next batch, where it always fits.
        if !self.running.is_empty() {
            self.running.rotate_left(1);
        }
        self.counters
            .completed
            .fetch_add(done.len() as u64, Ordering::Relaxed);
        // Who has the answer may look at once whether the model is idle.
        self.publish();
        for job in done {
            let _ = job.reply.send(Ok(job.vectors));
        }
    }

    /// Ends these jobs with an error.
    fn fail(&mut self, jobs: &[usize], reason: &str) {
        if jobs.is_empty() {
            return;
        }
        let all: Vec<Job> = self.running.drain(..).collect();
        for (index, job) in all.into_iter().enumerate() {
            match jobs.contains(&index) {
                true => job.fail(EngineError::Compute {
                    reason: reason.to_owned(),
                }),
                false => self.running.push_back(job),
            }
        }
    }

    /// The vectors of the next inputs of these jobs, each as often as it is named; `None` for one of no length. The
    /// error is `None` when the only client went away.
    fn compute(&mut self, picked: &[usize]) -> Result<Vec<Option<Vec<f32>>>, Option<String>> {
        let started = Instant::now();
        let computed = self.decode(picked);
        let vectors = computed.map(|tokens| {
            self.counters.record(tokens, 0, 0, started.elapsed());
            let vectors = picked.iter().enumerate().map(|(sequence, job)| {
                let dimensions = self.running[*job].dimensions;
                let vector = self.context.pooled(sequence as SeqId);
                unit(vector.unwrap_or_default(), dimensions)
            });
            vectors.collect()
        });
        for sequence in 0..picked.len() {
            self.context.clear(sequence as SeqId);
        }
        vectors
    }

    /// Computes the next inputs of these jobs; returns their tokens.
    fn decode(&mut self, picked: &[usize]) -> Result<usize, Option<String>> {
        let mut next: Vec<usize> = self.running.iter().map(|job| job.vectors.len()).collect();
        let mut tokens = 0;
        self.batch.clear();
        for (sequence, job) in picked.iter().enumerate() {
            let running = &self.running[*job];
            let input = &running.inputs[next[*job]];
            next[*job] += 1;
            for (position, token) in input.iter().enumerate() {
                // Only a text alone can be longer than a batch.
                if self.batch.len() == self.capacity {
                    flush(&mut self.context, &mut self.batch)?;
                    if running.is_abandoned() {
                        return Err(None);
                    }
                }
                self.batch.push(*token, position, sequence as SeqId, true);
            }
            tokens += input.len();
        }
        flush(&mut self.context, &mut self.batch)?;
        Ok(tokens)
    }
}

impl Workload for Embedder {
    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Embed(job) => self.waiting.push_back(job),
            other => other.refuse(&self.counters),
        }
    }

    fn turn(&mut self) {
        self.reap();
        self.admit();
        // One batch may take seconds: who looks meanwhile sees what runs.
        self.publish();
        self.step();
    }

    fn refuse_waiting(&mut self) {
        self.counters.leave_queue(self.waiting.len());
        for job in self.waiting.drain(..) {
            job.fail(EngineError::Unloaded);
        }
    }

    fn refuse_running(&mut self) {
        for job in self.running.drain(..) {
            job.fail(EngineError::Unloaded);
        }
    }

    fn publish(&self) {
        self.counters
            .slots_busy
            .store(self.running.len() as u32, Ordering::Relaxed);
    }
}
fn flush(context: &mut Context, batch: &mut Batch) -> Result<(), Option<String>> {
    let outcome = context.decode(batch);
    batch.clear();
    outcome.map_err(|error| match error {
        DecodeError::NoCells => Some("the KV cache is full".into()),
        DecodeError::Failed(reason) => Some(reason),
    })
}

/// Which job's next input comes into a batch, one after the other. `rests` holds the inputs that each job still has. The
/// jobs take turns while their next input fits into `tokens`; the first one always does.
fn pick(rests: &[&[Vec<Token>]], tokens: usize, inputs: usize) -> Vec<usize> {
    let mut rests = rests.to_vec();
    let mut picked = Vec::new();
    let mut taken = 0;
    loop {
        let before = picked.len();
        for (job, rest) in rests.iter_mut().enumerate() {
            let Some((first, others)) = rest.split_first() else {
                continue;
            };
            let fits = picked.is_empty() || taken + first.len() <= tokens;
            if fits && picked.len() < inputs {
                picked.push(job);
                taken += first.len();
                *rest = others;
            }
        }
        if picked.len() == before {
            return picked;
        }
    }
}

/// The first elements of a vector, scaled to length 1; `None` if that cannot be.
fn unit(vector: &[f32], dimensions: usize) -> Option<Vec<f32>> {
    let kept = vector.get(..dimensions)?;
    let square: f64 = kept.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    let length = square.sqrt();
    (length.is_finite() && length > 0.0).then(|| {
        kept.iter()
            .map(|x| (f64::from(*x) / length) as f32)
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_take_turns_in_a_batch() {
        let inputs = |lengths: &[usize]| -> Vec<Vec<Token>> {
            lengths.iter().map(|length| vec![0; *length]).collect()
        };
        let (many, one, long) = (inputs(&[10; 20]), inputs(&[5]), inputs(&[400]));
        let rests: [&[Vec<Token>]; 3] = [&many, &one, &long];
        assert_eq!(pick(&rests, 50, 64), [0, 1, 0, 0, 0]);
        assert_eq!(pick(&rests, 50, 2), [0, 1]);
        // What fits nowhere is computed alone when it is its turn to be first.
        assert_eq!(pick(&[&long, &many], 50, 64), [0]);
        assert!(pick(&[&[], &[]], 50, 64).is_empty());
    }

    #[test]
    fn vectors_have_length_one() {
        assert_eq!(unit(&[3.0, 4.0, 12.0], 2), Some(vec![0.6, 0.8]));
        for none in [[0.0, 0.0, 1.0], [f32::NAN, 0.0, 1.0]] {
            assert_eq!(unit(&none, 2), None);
        }
        assert_eq!(unit(&[1.0], 2), None);
    }
}
