//! An answer on its way to a surface, from this machine's engine or from another node: measured, with errors that name
//! the surface's own fields, as events or whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_engine::{EngineError, Event, FinishReason, Generation, Prompt, TokenLogprob, Usage};

use crate::elsewhere::{self, Remote, Wanted};
use crate::failure::Failure;
use crate::finished::{Asked, Report};
use crate::metrics::Observed;
use crate::state::Shared;

/// Target of log lines that hold what was asked and answered.
pub(crate) const PROMPTS: &str = "hearth::prompts";

/// What a request calls the engine's fields, so that an error names what the client sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    pub prompt: &'static str,
    pub constraint: &'static str,
    pub max_tokens: &'static str,
    pub logprobs: &'static str,
}

impl Names {
    /// As the engine has them; the node that asked this one renames them.
    const ENGINES: Self = Self {
        prompt: "messages",
        constraint: "constraint",
        max_tokens: "max_tokens",
        logprobs: "logprobs",
    };

    /// An engine's error, of this machine or another, in the request's own words.
    pub fn renamed(&self, mut failure: Failure) -> Failure {
        let error = &mut failure.error;
        let Some(field) = error.param.take() else {
            return failure;
        };
        let name = match field.as_str() {
            "messages" | "prompt" => self.prompt,
            "constraint" => self.constraint,
            "max_tokens" => self.max_tokens,
            "logprobs" => self.logprobs,
            other => other,
        };
        if let Some(rest) = error.message.strip_prefix(&field) {
            error.message = format!("{name}{rest}");
        }
        error.param = Some(name.into());
        failure
    }
}

/// Who answers.
pub(crate) enum Answering {
    /// This machine's engine.
    Here(Generation),
    /// Another node.
    There(Box<Remote>),
}

impl Answering {
    fn model(&self) -> &str {
        match self {
            Self::Here(generation) => &generation.model,
            Self::There(remote) => remote.model(),
        }
    }

    /// The next event. A model's thread that ends without a word is a failure.
    async fn next(&mut self) -> Result<Event, Failure> {
        match self {
            Self::Here(generation) => {
                let event = generation.next().await;
                Ok(event.unwrap_or(Err(EngineError::Unloaded))?)
            }
            Self::There(remote) => remote.next().await,
        }
    }

    fn try_next(&mut self) -> Option<Result<Event, Failure>> {
        match self {
            Self::Here(generation) => Some(generation.try_next()?.map_err(Failure::from)),
            Self::There(remote) => remote.try_next(),
        }
    }
}

/// A generation that is measured while it is read, and speaks of a request's own fields.
pub(crate) struct Watched {
    node: Shared,
    answering: Answering,
    names: Names,
    operation: &'static str,
    begun: Instant,
    first: Option<Duration>,
    report: Report,
    /// What was answered so far, to be logged; `None` unless the node's owner asked for it.
    said: Option<Vec<String>>,
}

impl Watched {
    /// Asks the machine that can answer best.
    pub async fn ask(
        node: &Shared,
        model: Option<&str>,
        wanted: impl Into<Wanted>,
        names: Names,
        begun: Instant,
    ) -> Result<Self, Failure> {
        let Wanted { request, goes_on } = wanted.into();
        let asking = |request| elsewhere::ask(node, model, Wanted { request, goes_on });
        Self::from(node, model, request, names, begun, asking).await
    }

    /// Asks this machine's engine, for another node. Its errors keep the engine's names of fields.
    pub async fn here(
        node: &Shared,
        model: Option<&str>,
        request: hearth_engine::Request,
        begun: Instant,
    ) -> Result<Self, Failure> {
        let asking = async |request| {
            let generation = node.engine.generate(model, request).await?;
            Ok(Answering::Here(generation))
        };
        Self::from(node, model, request, Names::ENGINES, begun, asking).await
    }

    async fn from<A: Future<Output = Result<Answering, Failure>>>(
        node: &Shared,
        model: Option<&str>,
        request: hearth_engine::Request,
        names: Names,
        begun: Instant,
        asking: impl FnOnce(hearth_engine::Request) -> A,
    ) -> Result<Self, Failure> {
        let operation = match request.prompt {
            Prompt::Chat(_) => "chat",
            Prompt::Text(_) | Prompt::Tokens(_) => "text_completion",
        };
        let mut report = Report::new(node, operation, model, Asked::from(&request), begun);
        let answering = asking(request).await.map_err(|failure| {
            let failure = names.renamed(failure);
            report.failed(failure.code());
            failure
        })?;
        report.model(answering.model());
        Ok(Self {
            node: Arc::clone(node),
            answering,
            names,
            operation,
            begun,
            first: None,
            report,
            said: node.options.log_prompts.then(Vec::new),
        })
    }

    /// The answer is known to its client by this id.
    pub fn named(&mut self, id: &str) {
        self.report.response(id);
    }

    /// The model that answers.
    pub fn model(&self) -> &str {
        self.answering.model()
    }

    /// The next event. The last one is [`Event::Done`].
    pub async fn next(&mut self) -> Result<Event, Failure> {
        let event = self.answering.next().await;
        self.watch(event)
    }

    /// The next event if it is there already.
    pub fn try_next(&mut self) -> Option<Result<Event, Failure>> {
        let event = self.answering.try_next()?;
        Some(self.watch(event))
    }

    fn watch(&mut self, event: Result<Event, Failure>) -> Result<Event, Failure> {
        let observed = Observed {
            operation: self.operation,
            model: self.answering.model(),
        };
        if let Ok(event) = &event {
            self.report.event(event);
            if let Some(said) = &mut self.said {
                log(said, event);
            }
        }
        match &event {
            Ok(
                Event::Text { .. }
                | Event::Reasoning { .. }
                | Event::ToolCall { .. }
                | Event::Finished { .. },
            ) => {
                self.node.saw_token();
                self.first.get_or_insert_with(|| self.begun.elapsed());
            }
            Ok(Event::Done(usage)) => {
                self.node.metrics.answered(
                    observed,
                    (usage.prompt_tokens, usage.completion_tokens),
                    self.begun.elapsed(),
                    self.first,
                );
            }
            _ => {}
        }
        event.map_err(|error| {
            let failure = self.names.renamed(error);
            let metrics = &self.node.metrics;
            metrics.failed(observed, failure.code(), self.begun.elapsed());
            self.report.failed(failure.code());
            failure
        })
    }
}

/// Gathers what each choice says, and logs it at its end.
fn log(said: &mut Vec<String>, event: &Event) {
    let (choice, more) = match event {
        Event::Text { choice, text, .. } | Event::Reasoning { choice, text } => (*choice, text),
        Event::ToolCall { choice, name, .. } => (*choice, name),
        Event::ToolArguments { choice, json, .. } => (*choice, json),
        Event::Finished { choice, .. } => {
            let text = said.get(*choice as usize).map_or("", String::as_str);
            tracing::info!(target: PROMPTS, choice, text, "answer");
            return;
        }
        Event::Started { .. } | Event::Done(_) => return,
    };
    if said.len() <= choice as usize {
        said.resize(choice as usize + 1, String::new());
    }
    said[choice as usize].push_str(more);
}

/// An id for a call of a tool: the prefix that a surface's clients know (`call_`), and 24 letters and digits.
pub(crate) fn call_id(prefix: &str) -> String {
    format!("{prefix}{:024x}", rand::random::<u128>() >> 32)
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Whole {
    /// One per choice.
    pub choices: Vec<WholeChoice>,
    /// Tokens used.
    pub usage: Usage,
}

/// One choice of a whole answer.
#[derive(Debug, Clone)]
pub(crate) struct WholeChoice {
    /// What the model thought before it answered; empty if it did not.
    pub reasoning: String,
    /// The answer.
    pub text: String,
    /// The tools it calls.
    pub calls: Vec<Call>,
    /// Why it ended.
    pub reason: FinishReason,
    /// The stop text that ended it.
    pub stop: Option<String>,
    /// Of the answer's tokens, if asked for.
    pub logprobs: Vec<TokenLogprob>,
}

/// A call of a tool.
#[derive(Debug, Clone, Default)]
pub(crate) struct Call {
    /// The tool's name.
    pub name: String,
    /// Its arguments as JSON text.
    pub arguments: String,
}

impl Watched {
    /// Waits for the whole answer of `n` choices.
    pub async fn whole(mut self, n: u32) -> Result<Whole, Failure> {
        let empty = WholeChoice {
            reasoning: String::new(),
            text: String::new(),
            calls: Vec::new(),
            reason: FinishReason::Stop,
            stop: None,
            logprobs: Vec::new(),
        };
        let mut choices = vec![empty; n as usize];
        loop {
            match self.next().await? {
                Event::Started { .. } => {}
                Event::Text {
                    choice,
                    text,
                    logprobs,
                } => {
                    let choice = &mut choices[choice as usize];
                    choice.text.push_str(&text);
                    choice.logprobs.extend(logprobs);
                }
                Event::Reasoning { choice, text } => {
                    choices[choice as usize].reasoning.push_str(&text);
                }
                Event::ToolCall { choice, name, .. } => {
                    choices[choice as usize].calls.push(Call {
                        name,
                        arguments: String::new(),
                    });
                }
                Event::ToolArguments { choice, json, .. } => {
                    if let Some(call) = choices[choice as usize].calls.last_mut() {
                        call.arguments.push_str(&json);
                    }
                }
                Event::Finished {
                    choice,
                    reason,
                    stop,
                } => {
                    let choice = &mut choices[choice as usize];
                    (choice.reason, choice.stop) = (reason, stop);
                }
                Event::Done(usage) => return Ok(Whole { choices, usage }),
            }
        }
    }
}
