//! `POST /peer/task`: what one node does for another that is answered whole: vectors of texts, the number of tokens of a
//! prompt, what a model's file says.
//!
//! The answer is frames ([`super::frame`]), because a model may have to be loaded first and many texts take long: while it
//! is worked on, the node says so. Nothing is committed to: doing it twice does no harm. When the connection goes away, so
//! does the work.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream;
use hearth_dispatch::serving::SIGN_OF_LIFE;
use hearth_engine::{EmbedInput, EmbedRequest, Embeddings, EngineError, Request, named};
use hearth_protocol::embedding::MOST_INPUTS;
use hearth_protocol::ollama::Shown;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::time::timeout;

use super::frame::{Frame, Work};
use super::frames;
use super::generate::{Run, ready_for};
use crate::access::Caller;
use crate::failure::Failure;
use crate::household::Refused;
use crate::household::routes::read;
use crate::state::Shared;
use crate::{elsewhere, encoders, finished, health, ollama};

/// Longest answer in bytes: a few thousand vectors of a few thousand numbers.
pub(crate) const LONGEST: usize = 64 << 20;

/// The body of `POST /peer/task`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Question<'a> {
    /// [`super::frame::VERSION`] of who asks.
    pub version: u32,
    /// The model or encoder, by its name on the node that is asked.
    pub model: Cow<'a, str>,
    /// What is to be done with it.
    pub task: Cow<'a, Task>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    /// Turn texts into vectors.
    Embed {
        /// The texts.
        request: EmbedRequest,
        /// Whether an encoder may cut a text that is too long.
        cut: bool,
    },
    /// Count the tokens of a prompt.
    Count(Box<Request>),
    /// Tell all of a model.
    Show {
        /// With long lists.
        verbose: bool,
    },
}

impl Task {
    /// Bytes of what is asked about, about.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Embed { request, .. } => {
                let each = request.inputs.iter().map(|input| match input {
                    EmbedInput::Text(text) => text.len(),
                    EmbedInput::Tokens(tokens) => tokens.len() * 4,
                });
                each.sum()
            }
            Self::Count(request) => elsewhere::text(request).len(),
            Self::Show { .. } => 0,
        }
    }

    /// Whether this is an answer to it.
    pub fn fits(&self, answer: &Answer) -> bool {
        match (self, answer) {
            (Self::Embed { request, .. }, Answer::Vectors(found)) => {
                found.vectors.len() == request.inputs.len()
            }
            (Self::Count(_), Answer::Tokens(_)) | (Self::Show { .. }, Answer::Shown(_)) => true,
            _ => false,
        }
    }
}

/// What a task comes to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// One vector for each text.
    Vectors(Vectors),
    /// Tokens of the prompt.
    Tokens(u32),
    /// The model, as Ollama's surface tells of it.
    Shown(Box<Shown>),
}

/// The vectors of texts, in their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Vectors {
    /// Who made them, as it is called there.
    pub model: String,
    /// Tokens of all texts.
    pub prompt_tokens: u32,
    /// The vectors.
    pub vectors: Vec<Packed>,
}

/// A vector; as JSON the Base64 of its numbers' bytes, little-endian, which is exact and half as long.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Packed(Vec<f32>);

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self
            .0
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        serializer.serialize_str(&STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        let (numbers, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(serde::de::Error::custom("a vector has a part of a number"));
        }
        Ok(Self(
            numbers
                .iter()
                .map(|four| f32::from_le_bytes(*four))
                .collect(),
        ))
    }
}

impl From<Embeddings> for Vectors {
    fn from(made: Embeddings) -> Self {
        Self {
            model: made.model,
            prompt_tokens: made.prompt_tokens,
            vectors: made.vectors.into_iter().map(Packed).collect(),
        }
    }
}

impl From<Vectors> for Embeddings {
    fn from(read: Vectors) -> Self {
        Self {
            model: read.model,
            prompt_tokens: read.prompt_tokens,
            vectors: read.vectors.into_iter().map(|packed| packed.0).collect(),
        }
    }
}

/// Does a task on this machine. A model that has to be loaded is waited for as long as any request waits for it.
pub(crate) async fn perform(
    node: &Shared,
    model: Option<&str>,
    task: Task,
) -> Result<Answer, EngineError> {
    Ok(match task {
        Task::Embed { request, cut } => {
            let made = encoders::vectors(node, model, request, cut).await?;
            Answer::Vectors(made.into())
        }
        Task::Count(request) => Answer::Tokens(node.engine.count(model, *request).await?),
        Task::Show { verbose } => {
            let shown = ollama::models::shown_here(node, model.unwrap_or_default(), verbose);
            Answer::Shown(Box::new(shown.await?))
        }
    })
}

/// Does a task for another node of the household.
#[utoipa::path(post, path = "/peer/task", tag = "peer", responses(
    (status = 200, description = "frames as lines of JSON; the last has the answer, or why there is none"),
    (status = 400, body = hearth_protocol::error::Problem, description = "the question is wrong, or of another version"),
    (status = 403, body = hearth_protocol::error::Problem, description = "the caller is no node of this household"),
    (status = 404, body = hearth_protocol::error::Problem, description = "no such model")))]
pub(crate) async fn task(
    State(node): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Response, Refused> {
    let question: Question<'static> = read(&node, body).await?;
    ready_for(&node, question.version)?;
    offers(&node, &question.model)?;
    if let Task::Embed { request, .. } = &*question.task
        && request.inputs.len() > MOST_INPUTS
    {
        let message = format!("inputs holds more than {MOST_INPUTS} texts; send them in several");
        return Err(Refused::invalid_field(message));
    }
    let name = format!("task-{:032x}", rand::random::<u128>());
    let Some(run) = node.runs.begin((caller.node(), name)) else {
        let message = "too many tasks go on for this machine; wait until some are done";
        return Err(Refused::new(StatusCode::CONFLICT, "run_goes_on", message));
    };
    let work = Working {
        run,
        node: Arc::clone(&node),
        stage: Stage::Asked(Box::pin(done(node, question))),
    };
    Ok(frames(stream::unfold(work, |mut work| async move {
        Some((work.next().await?, work))
    })))
}

/// Whether other nodes may ask for this name. A path would be a file of this machine's that nobody offered.
pub(super) fn offers(node: &Shared, model: &str) -> Result<(), Refused> {
    let listed = node.engine.catalogue().list();
    let names: Vec<&str> = listed.iter().map(|model| model.name.as_str()).collect();
    if named(&names, model).is_some() || encoders::chosen(node, model).is_some() {
        return Ok(());
    }
    let message = format!("this machine has no model `{model}`");
    Err(Refused::new(
        StatusCode::NOT_FOUND,
        "model_not_found",
        message,
    ))
}

/// What is done for another node, however long it takes.
async fn done(node: Shared, question: Question<'static>) -> Result<Answer, Failure> {
    let (model, task) = (question.model, question.task.into_owned());
    if needs_model(&node, &model, &task) {
        node.engine.load(Some(&model)).await?;
    }
    let Task::Embed { request, cut } = task else {
        return Ok(perform(&node, Some(&model), task).await?);
    };
    let dimensions = request.dimensions;
    let answering = async {
        let made = encoders::vectors(&node, Some(&model), request, cut).await;
        made.map_err(Failure::from)
    };
    let made = finished::embedded(&node, Some(&model), dimensions, answering).await?;
    Ok(Answer::Vectors(made.into()))
}

/// Whether a task waits for the engine to load a model, and not only to be told that it is no task for it.
fn needs_model(node: &Shared, model: &str, task: &Task) -> bool {
    match task {
        Task::Show { .. } => false,
        Task::Count(_) => true,
        Task::Embed { .. } => {
            let source = node.engine.catalogue().resolve(Some(model));
            source.is_ok_and(|source| node.engine.embeds(&source) != Some(false))
        }
    }
}

type Doing = Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send>>;

enum Stage {
    /// Nothing is said yet.
    Asked(Doing),
    /// It is being done.
    Doing(Doing),
    Over,
}

/// The frames of one task.
struct Working {
    /// Ends when the node that asks may not ask any more.
    run: Run,
    node: Shared,
    stage: Stage,
}

impl Working {
    /// The next frame; `None` after the last.
    async fn next(&mut self) -> Option<Vec<u8>> {
        let frame = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Over => return None,
            _ if self.run.is_given_up() => return None,
            Stage::Asked(doing) => {
                self.stage = Stage::Doing(doing);
                Frame::Accepted
            }
            Stage::Doing(mut doing) => match timeout(SIGN_OF_LIFE, &mut doing).await {
                Ok(Ok(answer)) => Frame::Answer(answer),
                Ok(Err(failure)) => Frame::failed(failure),
                Err(_) => {
                    self.stage = Stage::Doing(doing);
                    Frame::Working {
                        at: Work::Prefilling,
                        computed: health::computed(&self.node),
                    }
                }
            },
        };
        let mut out = Vec::new();
        frame.write(&mut out);
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use hearth_engine::Prompt;
    use proptest::prelude::*;

    fn embed(texts: usize) -> Task {
        Task::Embed {
            request: EmbedRequest {
                inputs: vec![EmbedInput::Text("fire".into()); texts],
                dimensions: None,
            },
            cut: false,
        }
    }

    fn vectors(count: usize) -> Answer {
        Answer::Vectors(Vectors {
            model: "bert".into(),
            prompt_tokens: 3,
            vectors: vec![Packed(vec![0.5, -1.0]); count],
        })
    }

    #[test]
    fn questions_and_answers_have_these_shapes() {
        let tasks = [
            embed(1),
            Task::Count(Box::new(Request::new(Prompt::Text("a".into())))),
        ];
        for task in tasks {
            let question = Question {
                version: 1,
                model: "bert".into(),
                task: Cow::Owned(task),
            };
            let json = serde_json::to_string(&question).unwrap();
            let read: Question<'static> = serde_json::from_str(&json).unwrap();
            assert_eq!(read.task, question.task);
        }
        assert_eq!(
            serde_json::to_string(&embed(1)).unwrap(),
            r#"{"embed":{"request":{"inputs":[{"text":"fire"}],"dimensions":null},"cut":false}}"#
        );
        assert_eq!(
            serde_json::to_string(&vectors(1)).unwrap(),
            r#"{"vectors":{"model":"bert","prompt_tokens":3,"vectors":["AAAAPwAAgL8="]}}"#
        );
        let cut_off = r#"{"vectors":{"model":"b","prompt_tokens":3,"vectors":["AAAAPwA="]}}"#;
        assert!(serde_json::from_str::<Answer>(cut_off).is_err());
    }

    #[test]
    fn only_an_answer_to_what_was_asked_is_taken() {
        assert!(embed(2).fits(&vectors(2)));
        assert!(!embed(2).fits(&vectors(1)) && !embed(2).fits(&Answer::Tokens(2)));
        assert!(!Task::Show { verbose: true }.fits(&vectors(1)));
    }

    proptest! {
        #[test]
        fn numbers_arrive_as_they_were(numbers in proptest::collection::vec(-1.0_f32..1.0, 0..50)) {
            let json = serde_json::to_string(&Packed(numbers.clone())).unwrap();
            let read: Packed = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(read.0, numbers);
        }
    }
}
