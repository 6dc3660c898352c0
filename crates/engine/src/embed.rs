//! Embeddings: texts in, one vector each out.
//!
//! An embedding model has a thread of its own, as every model. Each step packs texts into one batch, each a sequence of
//! its own, computes it, and reads one vector per sequence. Running requests take turns text by text, so that a
//! question need not wait for somebody's thousand documents.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::oneshot;

use crate::counters::Counters;
use crate::header::Header;
use crate::llama::{Batch, Context, DecodeError, Model, Pooling};
use crate::loaded::{BATCH, DEFAULT_CONTEXT, Plan};
use crate::options::{ModelOptions, longest_word};
use crate::runner::{Command, SETTLE, receive};
use crate::{EngineError, SeqId, Token};

/// One text to embed.
#[derive(Debug, Clone, PartialEq)]
pub enum EmbedInput {
    /// Text; the tokens that the model wants around it are added.
    Text(String),
    /// Tokens of the model's own vocabulary, taken as they stand.
    Tokens(Vec<Token>),
}

/// Texts to embed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EmbedRequest {
    /// The texts.
    pub inputs: Vec<EmbedInput>,
    /// Elements to keep of each vector, 1 to the model's own number; `None` keeps all. Only vectors of models trained
    /// for it (Matryoshka representation learning, arXiv 2205.13147) mean much after that.
    pub dimensions: Option<u32>,
}

/// The vectors of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Name of the model, as the catalogue spells it.
    pub model: String,
    /// One for each input, in the inputs' order, of length (L2 norm) 1.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all inputs.
    pub prompt_tokens: u32,
}

/// Sequences in one batch.
pub(crate) const SEQUENCES: u32 = 64;
/// llama.cpp reserves a row of the vocabulary's size for every token of a batch, though nobody reads it, and decoders
/// compute it. This many bytes of it, unless a text that has to be computed in one batch is longer.
const ROWS: u64 = 128 << 20;
/// Bytes that a batch and the KV cache may take when no context is configured: a long context is halved until they fit.
const WORKSPACE: u64 = 1 << 30;

/// Tokens that texts are packed to in one batch.
fn packed(header: &Header) -> u32 {
    let row = 4 * u64::from(header.vocabulary.max(1));
    u32::try_from(ROWS / row)
        .unwrap_or(u32::MAX)
        .clamp(SEQUENCES, BATCH)
}

/// Whether a text longer than a batch can be computed in several: each token sees only those before it, and the last
/// one stands for all.
fn divides(header: &Header) -> bool {
    header.causal && !header.encoder && header.pooling == Some(Pooling::Last)
}

/// What it takes to run an embedding model; it needs no budget to grow into.
pub(crate) fn plan(header: &Header, options: &ModelOptions) -> Plan {
    let sized = |context: u32| {
        let packed = packed(header);
        let batch = match divides(header) {
            true => packed,
            false => packed.max(context),
        };
        let cells = context.max(batch).next_multiple_of(256);
        let tokens = u64::from(batch);
        let row = 4 * u64::from(header.vocabulary);
        let (rows, per_cell) = match header.encoder {
            true => (row, 0),
            false => (2 * row, header.kv_bytes_per_token(options.kv)),
        };
        // The mask says for each token which others it sees, once in 32 bits and once in 16.
        let mask = tokens * u64::from(cells) * 6;
        let work = tokens * rows + mask + u64::from(cells) * per_cell;
        (batch, cells, work)
    };
    // Learned positions end where the model's context does.
    let own = header.context.max(1);
    let context = match options.context {
        Some(context) => context.min(own),
        None => {
            let mut context = own.min(DEFAULT_CONTEXT);
            while context > BATCH && sized(context).2 > WORKSPACE {
                context /= 2;
            }
            context
        }
    };
    let (batch, cells, work) = sized(context);
    Plan {
        context,
        cells,
        batch,
        bytes: header.bytes.saturating_add(work),
        gpu_layers: 0,
    }
}

/// Where a job's vectors arrive.
pub(crate) type Outcome = oneshot::Receiver<Result<Vec<Vec<f32>>, EngineError>>;

/// A request while it is being computed.
#[derive(Debug)]
pub(crate) struct Job {
    inputs: Vec<Vec<Token>>,
    /// Of the first inputs, in order.
    vectors: Vec<Vec<f32>>,
    /// Elements of a vector.
    dimensions: usize,
    /// Closed when nobody waits any more.
    reply: oneshot::Sender<Result<Vec<Vec<f32>>, EngineError>>,
}

impl Job {
    /// Tokens of all inputs.
    pub fn tokens(&self) -> u32 {
        self.inputs.iter().map(|input| input.len() as u32).sum()
    }

    /// Ends it with an error.
    pub fn fail(self, error: EngineError) {
        let _ = self.reply.send(Err(error));
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    /// Inputs without a vector.
    fn rest(&self) -> &[Vec<Token>] {
        &self.inputs[self.vectors.len()..]
    }
}

/// Turns a request into a job. Everything that is wrong with it is found here.
pub(crate) fn prepare(
    model: &Model,
    header: &Header,
    context: u32,
    request: &EmbedRequest,
) -> Result<(Job, Outcome), EngineError> {
    let invalid = |field, message| EngineError::Invalid { field, message };
    let own = model.vector_length();
    let dimensions = request.dimensions.map_or(own, |wanted| wanted as usize);
    if !(1..=own).contains(&dimensions) {
        return Err(invalid(
            "dimensions",
            format!("dimensions must be 1 to {own} for this model, not {dimensions}"),
        ));
    }
    if request.inputs.is_empty() {
        return Err(invalid("input", "input must hold at least one text".into()));
    }
    let (vocabulary, context) = (model.vocabulary_size() as Token, context as usize);
    let inputs = request.inputs.iter().enumerate().map(|(index, input)| {
        let tokens = match input {
            EmbedInput::Text(text) if text.is_empty() => Vec::new(),
            EmbedInput::Text(text) => {
                let most = longest_word();
                let mut words = text.split(char::is_whitespace).map(str::len);
                if let Some(long) = words.find(|length| *length > most) {
                    return Err(invalid(
                        "input",
                        format!(
                            "input[{index}] has a word of {long} bytes; put a blank into it after {most} at the latest"
                        ),
                    ));
                }
                model.tokenize(text.as_bytes(), true, true)
            }
            EmbedInput::Tokens(tokens) => {
                let unknown = |token: &&Token| !(0..vocabulary).contains(*token);
                if let Some(wrong) = tokens.iter().find(unknown) {
                    return Err(invalid(
                        "input",
                        format!(
                            "input[{index}]: token {wrong} is not in the model's vocabulary (0 to {}); send text",
                            vocabulary - 1
                        ),
                    ));
                }
                tokens.clone()
            }
        };
        if tokens.is_empty() {
            return Err(invalid("input", format!("input[{index}] is empty")));
        }
        if tokens.len() > context {
            return Err(EngineError::InputTooLong {
                index,
                tokens: tokens.len(),
                context,
                trained: header.context as usize,
            });
        }
        Ok(tokens)
    });
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    let (reply, outcome) = oneshot::channel();
    let job = Job {
        vectors: Vec::with_capacity(inputs.len()),
        inputs,
        dimensions,
        reply,
    };
    Ok((job, outcome))
}

/// The thread of an embedding model; see the module's documentation.
pub(crate) struct Runner {
    context: Context,
    batch: Batch,
    /// Most tokens in one batch.
    capacity: usize,
    /// Most requests that take turns.
    slots: usize,
    running: VecDeque<Job>,
    waiting: VecDeque<Job>,
    unloading: bool,
    counters: Arc<Counters>,
}

impl Runner {
    /// A runner over an empty context.
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
            unloading: false,
            counters,
        }
    }

    /// Works until told to unload, or until idle for as long as its counters say.
    pub fn run(mut self, mut commands: UnboundedReceiver<Command>) {
        loop {
            if self.running.is_empty() && self.waiting.is_empty() {
                self.publish();
                if self.unloading {
                    return;
                }
                // Who waited for the model to load needs a moment to send its work.
                let keep_alive = self.counters.rest().map(|time| time.max(SETTLE));
                // A request that is being prepared has its place in the queue already.
                let expecting = self.counters.queued.load(Ordering::Acquire) > 0;
                let patience = if expecting { Some(SETTLE) } else { keep_alive };
                match receive(&mut commands, patience) {
                    Some(command) => self.take(command),
                    None if expecting && !commands.is_closed() => continue,
                    None => {
                        // Work that arrives between the time-out and the close is not lost: it is refused below.
                        commands.close();
                        self.unloading = true;
                    }
                }
            }
            loop {
                match commands.try_recv() {
                    Ok(command) => self.take(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        self.unloading = true;
                        break;
                    }
                }
            }
            if self.unloading {
                // Who comes from now on is told at once and loads the model again.
                commands.close();
                self.refuse_waiting();
            }
            self.reap();
            self.admit();
            self.publish();
            self.step();
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Embed(job) => self.waiting.push_back(job),
            // The engine sends these to models that generate.
            Command::Run(tasks) => {
                self.leave_queue(tasks.len());
                for task in tasks {
                    task.fail(EngineError::Unloaded);
                }
            }
            Command::LoadAdapter(_, reply) => {
                let _ = reply.send(Err("an embedding model takes no adapters".into()));
            }
            Command::Keep => {}
            Command::Unload => self.unloading = true,
            Command::Stop => {
                self.unloading = true;
                for job in self.running.drain(..) {
                    job.fail(EngineError::Unloaded);
                }
            }
        }
    }

    /// The engine counts a job into the queue before it prepares it; here it leaves it.
    fn leave_queue(&self, jobs: usize) {
        self.counters
            .queued
            .fetch_sub(jobs as u32, Ordering::Relaxed);
    }

    fn refuse_waiting(&mut self) {
        self.leave_queue(self.waiting.len());
        for job in self.waiting.drain(..) {
            job.fail(EngineError::Unloaded);
        }
    }

    /// Drops the work of clients that went away.
    fn reap(&mut self) {
        let before = (self.running.len(), self.waiting.len());
        self.running.retain(|job| !job.is_abandoned());
        self.waiting.retain(|job| !job.is_abandoned());
        let waited = before.1 - self.waiting.len();
        self.leave_queue(waited);
        let cancelled = before.0 - self.running.len() + waited;
        self.counters
            .cancelled
            .fetch_add(cancelled as u64, Ordering::Relaxed);
    }

    fn admit(&mut self) {
        while self.running.len() < self.slots
            && let Some(job) = self.waiting.pop_front()
        {
            self.leave_queue(1);
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

    fn header(pooling: Pooling, context: u32, vocabulary: u32) -> Header {
        let encoder = pooling != Pooling::Last;
        Header {
            architecture: if encoder { "bert" } else { "qwen3" }.into(),
            layers: 12,
            context,
            kv_elements: 28 * 8 * 256,
            bytes: 100 << 20,
            sampling: Default::default(),
            pooling: Some(pooling),
            causal: !encoder,
            encoder,
            vocabulary,
        }
    }

    #[test]
    fn an_encoder_computes_its_longest_text_in_one_batch_and_never_more_than_it_knows() {
        let usual = ModelOptions::default();
        let bert = plan(&header(Pooling::First, 512, 30_522), &usual);
        assert_eq!((bert.context, bert.batch), (512, 512));
        let told = ModelOptions {
            context: Some(4096),
            ..usual.clone()
        };
        assert_eq!(
            plan(&header(Pooling::First, 512, 30_522), &told).context,
            512
        );
        let nomic = plan(&header(Pooling::Mean, 2048, 30_522), &usual);
        assert_eq!((nomic.context, nomic.batch), (2048, 2048));
        // 250,002 rows of 8,192 tokens would be eight gigabytes.
        let large = header(Pooling::First, 8192, 250_002);
        let halved = plan(&large, &usual);
        assert_eq!((halved.context, halved.batch), (1024, 1024));
        assert!(halved.bytes - large.bytes <= WORKSPACE);
        assert_eq!(plan(&large, &told).context, 4096);
    }

    #[test]
    fn a_decoder_computes_long_texts_in_pieces() {
        let plan = plan(
            &header(Pooling::Last, 32_768, 151_936),
            &ModelOptions::default(),
        );
        assert_eq!((plan.context, plan.batch), (4096, 220));
        assert!(plan.cells >= plan.context);
    }

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
