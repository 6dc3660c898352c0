//! What turns texts into vectors, and when it is opened.

use std::sync::Arc;

use hearth_encoder::{Batch, Encoder, Role};

use crate::Error;
use crate::pieces::{PIECE, pieces};

/// Gives what finds by meaning, or says why there is nothing and what to do. Asked when it is first needed, and again each
/// time while there is nothing; it may take a while.
pub type Source = Arc<dyn Fn() -> Result<Arc<dyn Embed>, String> + Send + Sync>;

/// Whether meaning is searched.
pub(crate) enum Meaning {
    /// By this encoder.
    Open(Arc<dyn Embed>),
    /// Not, for this reason.
    Lacks(String),
}

impl Meaning {
    /// The encoder, if there is one.
    pub fn encoder(&self) -> Option<&Arc<dyn Embed>> {
        match self {
            Self::Open(encoder) => Some(encoder),
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

/// Names all that decides the vectors of a text: the encoder, and how texts are divided.
pub(crate) fn scheme(encoder: &dyn Embed) -> String {
    format!("{}/{PIECE}", encoder.id())
}

/// The vectors of each text, one for each of its pieces.
pub(crate) fn encode(encoder: &dyn Embed, texts: &[&str]) -> Result<Vec<Vec<Vec<f32>>>, Error> {
    let pieces: Vec<Vec<&str>> = texts.iter().map(|text| pieces(text, PIECE)).collect();
    let vectors = encoder.passages(&pieces.concat()).map_err(Error::Encoder)?;
    let mut vectors = vectors.into_iter();
    let of_text = |pieces: &Vec<&str>| vectors.by_ref().take(pieces.len()).collect();
    Ok(pieces.iter().map(of_text).collect())
}

/// Turns texts into vectors of length one.
pub trait Embed: Send + Sync {
    /// Names what decides the vectors: those of another id are not compared with these.
    fn id(&self) -> String;
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
