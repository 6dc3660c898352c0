//! What is told of a generation when it is over: facts for traces, never a word of what was asked or answered.
//!
//! The node only tells ([`Listener`]); whoever runs it decides where that goes. Everything is told exactly once, also of
//! an answer whose client went away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hearth_engine::{Embeddings, Event, FinishReason, Request};

use crate::failure::Failure;
use crate::state::Shared;
use crate::trace::{self, Place};

/// Hears of every generation that is over. Called in the middle of answering: it must not wait for anything.
pub trait Listener: std::fmt::Debug + Send + Sync {
    /// A generation is over.
    fn finished(&self, generation: Finished);
}

/// A generation that is over.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Where its trace comes from.
    pub place: Place,
    /// Its own span in there; never zero.
    pub span: u64,
    /// `chat`, `text_completion` or `embeddings`.
    pub operation: &'static str,
    /// When the request came.
    pub begun: SystemTime,
    /// From then to the end.
    pub took: Duration,
    /// From then to the first token.
    pub first_token: Option<Duration>,
    /// The model that was asked for, or the default one's name.
    pub asked_model: String,
    /// The model that answered.
    pub model: Option<String>,
    /// The answer's id, where the surface has one.
    pub response: Option<String>,
    /// What the request said of how to generate.
    pub asked: Asked,
    /// Tokens of the prompt.
    pub input_tokens: Option<u32>,
    /// Tokens generated.
    pub output_tokens: Option<u32>,
    /// Why each choice ended: `stop`, `length` or `tool_calls`.
    pub reasons: Vec<&'static str>,
    /// Stable name of what went wrong; `cancelled` if the client went away.
    pub error: Option<String>,
    /// Where the node listens.
    pub server: SocketAddr,
}

/// What a request said of how to generate; `None` where it said nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Asked {
    /// Most tokens of each choice.
    pub max_tokens: Option<u32>,
    /// Temperature.
    pub temperature: Option<f32>,
    /// Share of probability kept.
    pub top_p: Option<f32>,
    /// Tokens kept.
    pub top_k: Option<u32>,
    /// Seed.
    pub seed: Option<u64>,
    /// Penalty by how often a token occurred.
    pub frequency_penalty: Option<f32>,
    /// Penalty if a token occurred.
    pub presence_penalty: Option<f32>,
    /// Choices, if more than one.
    pub choices: Option<u32>,
    /// Numbers in each vector.
    pub dimensions: Option<u32>,
}

impl From<&Request> for Asked {
    fn from(request: &Request) -> Self {
        let sampling = &request.sampling;
        let said = |penalty: f32| Some(penalty).filter(|penalty| *penalty != 0.0);
        Self {
            max_tokens: request.max_tokens,
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            seed: sampling.seed,
            frequency_penalty: said(sampling.frequency_penalty),
            presence_penalty: said(sampling.presence_penalty),
            choices: Some(request.n).filter(|n| *n != 1),
            dimensions: None,
        }
    }
}

/// A generation that goes on, and is told of when this is dropped.
pub(crate) struct Report {
    /// `None` when nobody listens.
    open: Option<(Arc<dyn Listener>, Finished)>,
    begun: Instant,
}

impl Report {
    /// Of a generation that begins; nothing is gathered unless somebody listens and the caller's trace is recorded.
    pub fn new(
        node: &Shared,
        operation: &'static str,
        model: Option<&str>,
        asked: Asked,
        begun: Instant,
    ) -> Self {
        let place = trace::here().filter(|place| place.sampled);
        let listener = node.options.listener.clone();
        let open = listener.zip(place).map(|(listener, place)| {
            let default = || node.engine.catalogue().default_name();
            let asked_model = model.or_else(default).unwrap_or_default().to_owned();
            let finished = Finished {
                place,
                span: rand::random::<u64>().max(1),
                operation,
                begun: SystemTime::now() - begun.elapsed(),
                took: Duration::ZERO,
                first_token: None,
                asked_model,
                model: None,
                response: None,
                asked,
                input_tokens: None,
                output_tokens: None,
                reasons: Vec::new(),
                error: Some("cancelled".into()),
                server: node.address,
            };
            (listener, finished)
        });
        Self { open, begun }
    }

    fn note(&mut self, note: impl FnOnce(&mut Finished)) {
        if let Some((_, finished)) = &mut self.open {
            note(finished);
        }
    }

    /// This model answers.
    pub fn model(&mut self, model: &str) {
        self.note(|finished| finished.model = Some(model.to_owned()));
    }

    /// The answer is known by this id.
    pub fn response(&mut self, id: &str) {
        self.note(|finished| finished.response = Some(id.to_owned()));
    }

    /// This happened.
    pub fn event(&mut self, event: &Event) {
        let since = self.begun;
        self.note(|finished| {
            if !matches!(event, Event::Started { .. } | Event::Done(_)) {
                finished.first_token.get_or_insert_with(|| since.elapsed());
            }
            match event {
                Event::Started { prompt_tokens, .. } => {
                    finished.input_tokens = Some(*prompt_tokens);
                }
                Event::Finished { reason, .. } => finished.reasons.push(match reason {
                    FinishReason::Stop => "stop",
                    FinishReason::Length => "length",
                    FinishReason::ToolCalls => "tool_calls",
                }),
                Event::Done(usage) => {
                    finished.input_tokens = Some(usage.prompt_tokens);
                    finished.output_tokens = Some(usage.completion_tokens);
                    finished.error = None;
                }
                _ => {}
            }
        });
        if matches!(event, Event::Done(_)) {
            self.tell();
        }
    }

    /// It broke off, or never began.
    pub fn failed(&mut self, code: &str) {
        self.note(|finished| finished.error = Some(code.to_owned()));
        self.tell();
    }

    fn tell(&mut self) {
        if let Some((listener, mut finished)) = self.open.take() {
            finished.took = self.begun.elapsed();
            listener.finished(finished);
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.tell();
    }
}

/// Embeds texts, on whichever machine, and tells of it.
pub(crate) async fn embedded(
    node: &Shared,
    model: Option<&str>,
    dimensions: Option<u32>,
    embedding: impl Future<Output = Result<Embeddings, Failure>>,
) -> Result<Embeddings, Failure> {
    let asked = Asked {
        dimensions,
        ..Asked::default()
    };
    let mut report = Report::new(node, "embeddings", model, asked, Instant::now());
    let answer = embedding.await;
    match &answer {
        Ok(vectors) => {
            node.metrics.embedded(&vectors.model, vectors.prompt_tokens);
            report.model(&vectors.model);
            report.note(|finished| {
                finished.input_tokens = Some(vectors.prompt_tokens);
                finished.error = None;
            });
        }
        Err(failure) => report.failed(failure.code()),
    }
    answer
}
