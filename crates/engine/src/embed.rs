//! Embeddings: texts in, one vector each out.
//!
//! Here a request becomes a job; the model's thread computes it ([`embedder`](crate::embedder)).

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::header::Header;
use crate::llama::Model;
use crate::options::check_words;
use crate::{EngineError, Token};

/// One text to embed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmbedInput {
    /// Text; the tokens that the model wants around it are added.
    Text(String),
    /// Tokens of the model's own vocabulary, taken as they stand.
    Tokens(Vec<Token>),
}

/// Texts to embed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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

/// Where a job's vectors arrive.
pub(crate) type Outcome = oneshot::Receiver<Result<Vec<Vec<f32>>, EngineError>>;

/// A request while it is being computed.
#[derive(Debug)]
pub(crate) struct Job {
    pub inputs: Vec<Vec<Token>>,
    /// Of the first inputs, in order.
    pub vectors: Vec<Vec<f32>>,
    /// Elements of a vector.
    pub dimensions: usize,
    /// Closed when nobody waits any more.
    pub reply: oneshot::Sender<Result<Vec<Vec<f32>>, EngineError>>,
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

    pub fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    /// Inputs without a vector.
    pub fn rest(&self) -> &[Vec<Token>] {
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
    let context = context as usize;
    let wrong = |index, error| invalid("input", format!("input[{index}]: {error}"));
    let inputs = request.inputs.iter().enumerate().map(|(index, input)| {
        let tokens = match input {
            EmbedInput::Text(text) if text.is_empty() => Vec::new(),
            EmbedInput::Text(text) => {
                check_words(text).map_err(|error| wrong(index, error))?;
                model.tokenize(text.as_bytes(), true, true)
            }
            EmbedInput::Tokens(tokens) => {
                let checked = model.check_tokens(tokens);
                checked.map_err(|error| wrong(index, error))?;
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
