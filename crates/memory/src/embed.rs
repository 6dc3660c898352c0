//! What turns texts into vectors, and when it is opened.

use std::sync::Arc;

use hearth_encoder::{Batch, Encoder, Role};

use crate::Error;
use crate::background::{Background, PASSAGES, QUERIES};
use crate::pieces::{PIECE, pieces};

/// Gives what finds by meaning, or says why there is nothing and what to do. Asked when it is first needed, and again each
/// time while there is nothing; it may take a while.
pub type Source = Arc<dyn Fn() -> Result<Arc<dyn Embed>, String> + Send + Sync>;

/// An encoder that was opened, and what is asked of it again and again.
pub(crate) struct Opened {
    pub encoder: Arc<dyn Embed>,
    /// Names all that decides the vectors of a text: the encoder, and how texts are divided.
    pub scheme: String,
    /// See [`Embed::background`].
    pub background: Background,
}

impl Opened {
    /// Asks it for what does not change.
    ///
    /// # Errors
    /// If it encodes nothing.
    pub fn new(encoder: Arc<dyn Embed>) -> Result<Self, Error> {
        Ok(Self {
            scheme: format!("{}/{PIECE}", encoder.id()),
            background: encoder.background().map_err(Error::Encoder)?,
            encoder,
        })
    }

    /// The vectors of each text, one for each of its pieces.
    ///
    /// # Errors
    /// If the encoder fails.
    pub fn encode(&self, texts: &[&str]) -> Result<Vec<Vec<Vec<f32>>>, Error> {
        let pieces: Vec<Vec<&str>> = texts.iter().map(|text| pieces(text, PIECE)).collect();
        let vectors = self.encoder.passages(&pieces.concat());
        let mut vectors = vectors.map_err(Error::Encoder)?.into_iter();
        let of_text = |pieces: &Vec<&str>| vectors.by_ref().take(pieces.len()).collect();
        Ok(pieces.iter().map(of_text).collect())
    }
}

/// Whether meaning is searched.
pub(crate) enum Meaning {
    /// By this encoder.
    Open(Arc<Opened>),
    /// Not, for this reason.
    Lacks(String),
}

impl Meaning {
    /// The encoder, if there is one.
    pub fn encoder(&self) -> Option<&Opened> {
        match self {
            Self::Open(opened) => Some(opened),
            Self::Lacks(_) => None,
        }
    }

    /// Why words alone are searched, if they are.
    pub fn words_only(&self) -> Option<String> {
        match self {
            Self::Open(_) => None,
            Self::Lacks(reason) => Some(reason.clone()),
        }
    }
}

/// Turns texts into vectors of length one.
pub trait Embed: Send + Sync {
    /// Names what decides the vectors: those of another id are not compared with these.
    fn id(&self) -> String;
    /// What people call it.
    fn name(&self) -> String {
        self.id()
    }
    /// Elements of a vector.
    fn dimensions(&self) -> usize;
    /// The vector of something that looks for others.
    ///
    /// # Errors
    /// Why there is none.
    fn query(&self, text: &str) -> Result<Vec<f32>, String>;
    /// The vectors of texts that are to be found, in order.
    ///
    /// # Errors
    /// Why there are none.
    fn passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, String>;
    /// What it sees in any two texts. Measured, unless an encoder knows better, with a few that have nothing to do with each
    /// other.
    ///
    /// # Errors
    /// Why nothing is encoded.
    fn background(&self) -> Result<Background, String> {
        let queries = QUERIES.into_iter().map(|query| self.query(query));
        let queries: Vec<Vec<f32>> = queries.collect::<Result<_, _>>()?;
        Ok(Background::of(&queries, &self.passages(&PASSAGES)?))
    }
}

/// An encoder under the name that people know it by.
pub struct Named {
    /// The name.
    pub name: String,
    /// The encoder.
    pub encoder: Arc<dyn Embed>,
}

impl Embed for Named {
    fn id(&self) -> String {
        self.encoder.id()
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn dimensions(&self) -> usize {
        self.encoder.dimensions()
    }

    fn query(&self, text: &str) -> Result<Vec<f32>, String> {
        self.encoder.query(text)
    }

    fn passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, String> {
        self.encoder.passages(texts)
    }

    fn background(&self) -> Result<Background, String> {
        self.encoder.background()
    }
}

impl Embed for Encoder {
    fn id(&self) -> String {
        self.id()
    }

    fn dimensions(&self) -> usize {
        self.dimensions()
    }

    fn query(&self, text: &str) -> Result<Vec<f32>, String> {
        let embedding = self.encode(text, Role::Query);
        embedding
            .map(|embedding| embedding.vector)
            .map_err(|error| error.to_string())
    }

    fn passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, String> {
        let all = self.encode_batch(texts, Role::Passage, Batch::default());
        let all = all.map_err(|error| error.to_string())?;
        Ok(all.into_iter().map(|embedding| embedding.vector).collect())
    }
}
