//! What turns texts into vectors, and when it is opened.

use std::sync::Arc;

use hearth_encoder::{Batch, Encoder, Role};

use crate::Error;
use crate::pieces::{PIECE, pieces};

/// Gives what finds by meaning, or says why there is nothing and what to do. Asked when it is first needed, and again each
/// time while there is nothing; it may take a while.
pub type Source = Arc<dyn Fn() -> Result<Arc<dyn Embed>, String> + Send + Sync>;

/// Questions, each of another subject, for [`Embed::floor`].
const QUESTIONS: [&str; 8] = [
    "When is the data saved?",
    "Who must not eat nuts?",
    "Which programming language is the website in?",
    "Where does the train leave from?",
    "How long do customers have to pay?",
    "When should I water the plants?",
    "Which instrument does she play?",
    "Why can nobody print upstairs?",
];
/// Their answers, in the same order.
const ANSWERS: [&str; 8] = [
    "The backup of the database runs every night at two.",
    "My sister is allergic to peanuts.",
    "We wrote the web pages in TypeScript.",
    "The express to Hamburg starts at platform seven.",
    "An invoice is due within thirty days.",
    "The tomatoes in the garden need to be watered in the morning.",
    "Her violin lesson is on Thursday.",
    "The printer on the second floor is out of toner.",
];
/// Share of the pairs of unrelated texts that the floor is above.
const BELOW: f32 = 0.9;

/// An encoder that was opened, and what is asked of it again and again.
pub(crate) struct Opened {
    pub encoder: Arc<dyn Embed>,
    /// Names all that decides the vectors of a text: the encoder, and how texts are divided.
    pub scheme: String,
    /// See [`Embed::floor`].
    pub floor: f32,
}

impl Opened {
    /// Asks it for what does not change.
    ///
    /// # Errors
    /// If it encodes nothing.
    pub fn new(encoder: Arc<dyn Embed>) -> Result<Self, Error> {
        Ok(Self {
            scheme: format!("{}/{PIECE}", encoder.id()),
            floor: encoder.floor().map_err(Error::Encoder)?,
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

/// The cosine of two vectors of length one.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
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
    /// Cosine below which a text has nothing to do with a query. Every family of encoders has its own: MiniLM gives
    /// unrelated texts about 0, E5 about 0.7. Measured, unless an encoder knows better, with a few questions: what nine
    /// of ten answers to other questions stay below, but no more than any question's own answer has. MiniLM's is 0.15.
    ///
    /// # Errors
    /// Why nothing is encoded.
    fn floor(&self) -> Result<f32, String> {
        let answers = self.passages(&ANSWERS)?;
        let (mut unrelated, mut related) = (Vec::new(), f32::MAX);
        for (at, question) in QUESTIONS.into_iter().enumerate() {
            let question = self.query(question)?;
            for (of, answer) in answers.iter().enumerate() {
                let cosine = dot(&question, answer);
                match of == at {
                    true => related = related.min(cosine),
                    false => unrelated.push(cosine),
                }
            }
        }
        unrelated.sort_unstable_by(f32::total_cmp);
        let at = (unrelated.len() as f32 * BELOW) as usize;
        Ok(unrelated.get(at).copied().unwrap_or(-1.0).min(related))
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

    fn floor(&self) -> Result<f32, String> {
        self.encoder.floor()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Knows the questions and their answers, and gives all texts this much in common.
    struct Narrow(f32);

    impl Narrow {
        fn vector(&self, text: &str) -> Vec<f32> {
            let all = QUESTIONS.iter().zip(&ANSWERS);
            let mut subjects = all.map(|(question, answer)| [*question, *answer].contains(&text));
            let mut vector = vec![0.0; 1 + QUESTIONS.len()];
            vector[0] = self.0.sqrt();
            vector[1 + subjects.position(|is| is).unwrap()] = (1.0 - self.0).sqrt();
            vector
        }
    }

    impl Embed for Narrow {
        fn id(&self) -> String {
            "narrow".into()
        }

        fn dimensions(&self) -> usize {
            1 + QUESTIONS.len()
        }

        fn query(&self, text: &str) -> Result<Vec<f32>, String> {
            Ok(self.vector(text))
        }

        fn passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, String> {
            Ok(texts.iter().map(|text| self.vector(text)).collect())
        }
    }

    #[test]
    fn the_floor_is_what_unrelated_texts_have_in_common() {
        // As MiniLM, BGE and E5 do.
        for common in [0.0, 0.4, 0.7] {
            let floor = Narrow(common).floor().unwrap();
            assert!((floor - common).abs() < 1e-5, "{common}: {floor}");
        }
    }
}
