//! An answer on its way from the engine to a surface: measured, with errors that name the surface's own fields, as
//! events or whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_engine::{EngineError, Event, FinishReason, Generation, Prompt, TokenLogprob, Usage};

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
    /// The engine's error in the request's own words.
    pub fn failure(&self, error: EngineError) -> Failure {
        let mut failure = Failure::from(error);
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

/// A generation that is measured while it is read, and speaks of a request's own fields.
pub(crate) struct Watched {
    node: Shared,
    generation: Generation,
    names: Names,
    operation: &'static str,
    begun: Instant,
    first: Option<Duration>,
    report: Report,
    /// What was answered so far, to be logged; `None` unless the node's owner asked for it.
    said: Option<Vec<String>>,
}

impl Watched {
    /// Asks the engine.
    pub async fn ask(
        node: &Shared,
        model: Option<&str>,
        request: hearth_engine::Request,
        names: Names,
        begun: Instant,
    ) -> Result<Self, Failure> {
        let operation = match request.prompt {
            Prompt::Chat(_) => "chat",
            Prompt::Text(_) | Prompt::Tokens(_) => "text_completion",
        };
        let mut report = Report::new(node, operation, model, Asked::from(&request), begun);
        let generation = node.engine.generate(model, request).await;
        let generation = generation.map_err(|error| {
            let failure = names.failure(error);
            report.failed(failure.code());
            failure
        })?;
        report.model(&generation.model);
        Ok(Self {
            node: Arc::clone(node),
            generation,
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
        &self.generation.model
    }

    /// The next event. The last one is [`Event::Done`]; a model's thread that ends without a word is a failure.
    pub async fn next(&mut self) -> Result<Event, Failure> {
        let event = self.generation.next().await;
        self.watch(event.unwrap_or(Err(EngineError::Unloaded)))
    }

    /// The next event if it is there already.
    pub fn try_next(&mut self) -> Option<Result<Event, Failure>> {
        let event = self.generation.try_next()?;
        Some(self.watch(event))
    }

    fn watch(&mut self, event: Result<Event, EngineError>) -> Result<Event, Failure> {
        let observed = Observed {
            operation: self.operation,
            model: &self.generation.model,
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
            let failure = self.names.failure(error);
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
