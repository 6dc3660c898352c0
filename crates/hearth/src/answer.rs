//! Questions and answers, from a running node or, when none runs, from an engine in this process.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use hearth_engine::{
    Catalogue, Chat, Constraint, Engine, EngineError, Event, FinishReason, Prompt, Reasoning,
    Request, Sampling,
};
use hearth_node::RecallError;
use hearth_protocol::recall::{Citation, Recall, Recalled};
use hearth_protocol::status::{ModelState, ModelStatus};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::addressed;
use crate::client::{Client, ClientError};
use crate::config::{Config, Key, Origin};
use crate::daemon;
use crate::failure::{Exit, Failure, Outcome};
use crate::memories;
use crate::screen::Screen;

/// How often a loading model is looked at again.
const LOOK: Duration = Duration::from_millis(100);
/// Most characters of a memory's text in the line that names it.
const CITED: usize = 80;

/// What to ask.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// `None` is the default model.
    pub model: Option<String>,
    /// The conversation in OpenAI's shape, oldest first.
    pub messages: Vec<Value>,
    /// JSON Schema of the answer.
    pub schema: Option<Value>,
    /// Most tokens to generate.
    pub max_tokens: Option<u32>,
    /// 0 to 2; `None` is the model's usual one.
    pub temperature: Option<f32>,
    /// Same seed, same text.
    pub seed: Option<u64>,
    /// Whether a model that can reason does; `None` is as the model has it.
    pub think: Option<bool>,
    /// Which memories go with it.
    pub memory: Option<Recall>,
}

/// A complete answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Model that gave it.
    pub model: String,
    /// What the model thought before it answered.
    pub reasoning: String,
    /// All of its text.
    pub text: String,
    /// `stop` or `length`.
    pub finish_reason: String,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub completion_tokens: u64,
    /// Decode speed, once there are two tokens to measure between.
    pub tokens_per_second: Option<f64>,
    /// From sending the question to the first text.
    pub first_text: Option<Duration>,
    /// The memories that went with the question, if it asked for some.
    pub memory: Option<Recalled>,
}

impl Answer {
    /// For `--json`.
    pub fn json(&self) -> Value {
        let mut value = json!({
            "model": self.model,
            "reasoning": (!self.reasoning.is_empty()).then_some(&self.reasoning),
            "text": self.text,
            "finish_reason": self.finish_reason,
            "usage": {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens},
            "tokens_per_second": self.tokens_per_second.map(|speed| (speed * 10.0).round() / 10.0),
            "first_text_ms": self.first_text.map(|time| (time.as_secs_f64() * 1e4).round() / 10.0),
        });
        if let Some(memory) = &self.memory {
            value["memory"] = json!(memory);
        }
        value
    }

    /// A line for each memory that went with the question, or one that says that there is none; then what held others
    /// back.
    pub fn citations(&self) -> Vec<String> {
        let Some(memory) = &self.memory else {
            return Vec::new();
        };
        let mut lines: Vec<String> = memory.used.iter().map(cited).collect();
        if lines.is_empty() {
            lines.push("no memory fits the question".into());
        }
        if memory.left_out > 0 {
            lines.push(format!(
                "{} more had no room in the prompt",
                memory.left_out
            ));
        }
        if let Some(reason) = &memory.words_only {
            lines.push(format!("memories were searched by words alone: {reason}"));
        }
        lines
    }

    /// One line about how it went.
    pub fn summary(&self) -> String {
        let speed = self
            .tokens_per_second
            .map_or_else(String::new, |speed| format!(", {speed:.1} tokens/s"));
        let cut = if self.finish_reason == "length" {
            ", cut at the token limit"
        } else {
            ""
        };
        format!(
            "{}: {} tokens{speed}{cut}",
            self.model, self.completion_tokens
        )
    }
}

/// A memory on one line.
fn cited(citation: &Citation) -> String {
    let first = citation.text.lines().next().unwrap_or_default();
    let mut text: String = first.chars().take(CITED).collect();
    if text.len() < citation.text.len() {
        text.push('…');
    }
    let project = citation
        .project
        .as_ref()
        .map_or_else(String::new, |project| format!(", {project}"));
    format!("{}  {text} ({}{project})", citation.id, citation.kind)
}

/// Measures an answer as it comes.
struct Watch {
    asked: Instant,
    first: Option<Instant>,
    answer: Answer,
}

impl Watch {
    fn start() -> Self {
        Self {
            asked: Instant::now(),
            first: None,
            answer: Answer::default(),
        }
    }

    fn text(&mut self, text: &str, screen: &Screen) {
        if !text.is_empty() {
            self.first.get_or_insert_with(Instant::now);
            if self.answer.text.is_empty() && !self.answer.reasoning.is_empty() {
                screen.aside("\n\n");
            }
            self.answer.text.push_str(text);
        }
    }

    fn reasoning(&mut self, text: &str, screen: &Screen) {
        self.first.get_or_insert_with(Instant::now);
        self.answer.reasoning.push_str(text);
        screen.aside(text);
    }

    fn finish(mut self) -> Answer {
        self.answer.first_text = self.first.map(|first| first - self.asked);
        let decoding = self
            .first
            .map(|first| first.elapsed().as_secs_f64())
            .filter(|seconds| *seconds > 0.0);
        let tokens = self.answer.completion_tokens.saturating_sub(1);
        self.answer.tokens_per_second = decoding
            .filter(|_| tokens > 0)
            .map(|seconds| tokens as f64 / seconds);
        self.answer
    }
}

/// Who answers.
pub enum Speaker {
    /// A node over HTTP.
    Node(Client),
    /// An engine in this process, with the configuration of its home.
    Here(Engine, Box<Config>),
}

impl Speaker {
    /// The running node, or an engine here if none runs and no particular one was asked for.
    pub async fn find(config: &Config) -> Outcome<Self> {
        let client = addressed::place(config);
        match client.status().await {
            Ok(_) => Ok(Self::Node(client)),
            Err(error) if matches!(config.origin(Key::Host), Origin::Flag(_)) => {
                Err(error.failure(client.place()))
            }
            Err(_) => Ok(Self::Here(
                Engine::new(config.engine.clone(), daemon::catalogue(config)?),
                Box::new(config.clone()),
            )),
        }
    }

    /// The models there are.
    pub async fn models(&self) -> Outcome<Vec<ModelStatus>> {
        match self {
            Self::Node(client) => match client.status().await {
                Ok(status) => Ok(status.models),
                Err(error) => Err(error.failure(client.place())),
            },
            Self::Here(engine, _) => Ok(engine.status()),
        }
    }

    /// The model that answers when none is named.
    pub async fn default_model(&self) -> Option<String> {
        match self {
            Self::Node(client) => client
                .status()
                .await
                .ok()
                .map(|status| status.default_model),
            Self::Here(engine, _) => engine.catalogue().default_name().map(str::to_owned),
        }
    }

    /// Asks and calls `on_text` with each piece. Dropping the future stops the answer at once.
    pub async fn ask(
        &self,
        question: &Question,
        screen: &Screen,
        on_text: impl FnMut(&str),
    ) -> Outcome<Answer> {
        match self {
            Self::Node(client) => ask_node(client, question, screen, on_text).await,
            Self::Here(engine, config) => {
                let mut question = question.clone();
                let recalled = recalled(config, &mut question)?;
                let answer = ask_engine(engine, &question, screen, on_text).await?;
                Ok(Answer {
                    memory: recalled,
                    ..answer
                })
            }
        }
    }
}

/// Puts the memories that a question asks for before it, as a node does.
fn recalled(config: &Config, question: &mut Question) -> Outcome<Option<Recalled>> {
    let Some(wanted) = &question.memory else {
        return Ok(None);
    };
    let store = memories::store(config)?;
    let memories = memories::open(config, store, memories::encoders(config))?;
    let recalled = hearth_node::recall(&memories, wanted, &mut question.messages, Timestamp::now());
    recalled.map(Some).map_err(|error| Failure {
        exit: match error {
            RecallError::NoQuestion | RecallError::Memory(hearth_memory::Error::Invalid { .. }) => {
                Exit::Usage
            }
            RecallError::Memory(_) => Exit::Failed,
        },
        ..Failure::with_advice(&error.to_string())
    })
}

/// The model that a name means among these, by the rules of every other door.
///
/// # Errors
/// None of them, with what to do.
pub fn meant(models: &[ModelStatus], name: &str) -> Outcome<String> {
    let mut catalogue = Catalogue::new(None).with_advice(hearth_models::how_to_get);
    for model in models {
        catalogue.register(&model.name, "");
    }
    Ok(catalogue.resolve(Some(name))?.name)
}

/// Which memories go with a question.
#[derive(Debug, Clone, Default, Args)]
pub struct MemoryArgs {
    /// Let memories that fit go with each question
    #[arg(long)]
    pub memory: bool,
    /// Let this project's memories, and those of every project, go with each question
    #[arg(long, short, value_name = "NAME")]
    pub project: Option<String>,
}

impl MemoryArgs {
    /// What they wish for: a project says that memories are wanted.
    pub fn recall(&self) -> Option<Recall> {
        (self.memory || self.project.is_some()).then(|| Recall {
            project: self.project.clone(),
            ..Recall::default()
        })
    }
}

/// A path is made absolute, because the node's current folder is another one; a name stays.
pub fn model_name(text: &str) -> String {
    let path = Path::new(text);
    match std::path::absolute(path) {
        Ok(absolute) if text.ends_with(".gguf") && absolute.is_file() => {
            absolute.to_string_lossy().into_owned()
        }
        _ => text.to_owned(),
    }
}

async fn ask_node(
    client: &Client,
    question: &Question,
    screen: &Screen,
    mut on_text: impl FnMut(&str),
) -> Outcome<Answer> {
    let mut body = json!({
        "messages": question.messages,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    let optional = [
        ("model", question.model.as_ref().map(|name| json!(name))),
        ("max_tokens", question.max_tokens.map(|most| json!(most))),
        ("temperature", question.temperature.map(|temperature| json!(temperature))),
        ("seed", question.seed.map(|seed| json!(seed))),
        ("enable_thinking", question.think.map(|think| json!(think))),
        ("hearth", question.memory.as_ref().map(|memory| json!({"memory": memory}))),
        (
            "response_format",
            question.schema.as_ref().map(|schema| {
                json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}})
            }),
        ),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    let mut watch = Watch::start();
    let mut events = loop {
        match client.events("/v1/chat/completions", &body).await {
            Ok(events) => break events,
            Err(error) => {
                let Some((progress, eta)) = error.loading() else {
                    screen.clear();
                    return Err(error.failure(client.place()));
                };
                screen.loading(
                    question.model.as_deref().unwrap_or("the model"),
                    progress,
                    eta,
                );
                tokio::time::sleep(LOOK).await;
            }
        }
    };
    screen.clear();
    while let Some(event) = events
        .next()
        .await
        .map_err(|error: ClientError| error.failure(client.place()))?
    {
        if let Some(model) = event["model"].as_str() {
            watch.answer.model = model.to_owned();
        }
        if let Some(text) = event["choices"][0]["delta"]["reasoning_content"].as_str() {
            watch.reasoning(text, screen);
        }
        if let Some(text) = event["choices"][0]["delta"]["content"].as_str() {
            watch.text(text, screen);
            on_text(text);
        }
        if let Some(reason) = event["choices"][0]["finish_reason"].as_str() {
            watch.answer.finish_reason = reason.to_owned();
        }
        if event["hearth"].is_object() {
            watch.answer.memory = serde_json::from_value(event["hearth"]["memory"].clone()).ok();
        }
        if event["usage"].is_object() {
            watch.answer.prompt_tokens = event["usage"]["prompt_tokens"].as_u64().unwrap_or(0);
            watch.answer.completion_tokens =
                event["usage"]["completion_tokens"].as_u64().unwrap_or(0);
        }
    }
    if question.memory.is_some() && watch.answer.memory.is_none() {
        return Err(Failure::new("the node answered without memory")
            .fix("the node is of another version: update it, or ask without --memory"));
    }
    Ok(watch.finish())
}

async fn ask_engine(
    engine: &Engine,
    question: &Question,
    screen: &Screen,
    mut on_text: impl FnMut(&str),
) -> Outcome<Answer> {
    let request = Request {
        sampling: Sampling {
            temperature: question.temperature,
            seed: question.seed,
            ..Sampling::default()
        },
        constraint: question
            .schema
            .clone()
            .map_or(Constraint::None, Constraint::JsonSchema),
        max_tokens: question.max_tokens,
        ..Request::new(Prompt::Chat(Chat {
            reasoning: Reasoning {
                enabled: question.think,
                budget: None,
            },
            ..Chat::new(question.messages.clone())
        }))
    };
    let model = question.model.as_deref();
    load(engine, model, screen).await?;
    let mut watch = Watch::start();
    let mut generation = engine.generate(model, request).await?;
    watch.answer.model.clone_from(&generation.model);
    while let Some(event) = generation.next().await {
        match event? {
            Event::Started { .. } | Event::ToolCall { .. } | Event::ToolArguments { .. } => {}
            Event::Reasoning { text, .. } => watch.reasoning(&text, screen),
            Event::Text { text, .. } => {
                watch.text(&text, screen);
                on_text(&text);
            }
            Event::Finished { reason, .. } => {
                watch.answer.finish_reason = match reason {
                    FinishReason::Stop => "stop".into(),
                    FinishReason::Length => "length".into(),
                    FinishReason::ToolCalls => "tool_calls".into(),
                };
            }
            Event::Done(usage) => {
                watch.answer.prompt_tokens = usage.prompt_tokens.into();
                watch.answer.completion_tokens = usage.completion_tokens.into();
                return Ok(watch.finish());
            }
        }
    }
    Err(EngineError::Unloaded.into())
}

/// Loads a model of an engine in this process and shows how far it is.
pub async fn load(engine: &Engine, model: Option<&str>, screen: &Screen) -> Outcome {
    let name = model
        .or(engine.catalogue().default_name())
        .unwrap_or_default()
        .to_owned();
    let mut loaded = std::pin::pin!(engine.load(model));
    let outcome = loop {
        tokio::select! {
            outcome = &mut loaded => break outcome,
            () = tokio::time::sleep(LOOK) => {
                if let Some(status) = engine.status().iter().find(|status| status.name == name && status.state == ModelState::Loading) {
                    screen.loading(&name, status.progress.unwrap_or(0.0), status.eta_seconds);
                }
            }
        }
    };
    screen.clear();
    outcome.map_err(Failure::from)
}

/// Waits until a node says that a token can come back.
pub async fn ready(client: &Client, screen: &Screen) -> Outcome {
    loop {
        match client.json(hyper::Method::GET, "/health", None).await {
            Ok(_) => break,
            Err(error) => match error.loading() {
                Some((progress, eta)) => screen.loading("the model", progress, eta),
                None => {
                    screen.clear();
                    return Err(error.failure(client.place()));
                }
            },
        }
        tokio::time::sleep(LOOK).await;
    }
    screen.clear();
    Ok(())
}
