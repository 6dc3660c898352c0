//! Sentence encoders behind the surfaces for embeddings, beside the models that the engine runs: by the same requests,
//! with the same errors.
//!
//! An encoder is opened when it is first asked for. Its work is done off the threads that answer requests, a few at a
//! time, and broken off when the client goes away; until it has ended it keeps its turn.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use hearth_encoder::{Batch, Embedding, Encoder, Encoders, Error, Role};
use hearth_engine::{EmbedInput, EmbedRequest, Embeddings, EngineError};
use hearth_models::catalogue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::state::{Node, Shared};
use crate::trace;

/// Requests that are encoded at the same time.
const AT_ONCE: usize = 2;
/// Requests that may wait for their turn.
const WAITING: usize = 64;
/// Bytes of text that are looked at for each token that fits. BERT's tokenizers know no word of more than 100
/// characters, and a character has at most 4 bytes: what is longer is hardly text, and not worth splitting to count it.
const BYTES_PER_TOKEN: usize = 400;

/// Who may encode, and who may wait for it.
#[derive(Debug)]
pub(crate) struct Turns {
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(AT_ONCE + WAITING)),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

impl Turns {
    /// A place among those who wait or encode with encoder `name`.
    fn place(&self, name: &str) -> Result<OwnedSemaphorePermit, EngineError> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map_err(|_| EngineError::QueueFull {
            name: name.to_owned(),
            limit: WAITING,
        })
    }

    /// Waits for its turn and does the work off this thread. The work is told when nobody waits for it any more, and
    /// turn and place are free when it ends, not when the one who asked goes.
    async fn work<T: Send + 'static>(
        &self,
        place: OwnedSemaphorePermit,
        work: impl FnOnce(&AtomicBool) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let failed = |reason: String| EngineError::Compute { reason };
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|error| failed(error.to_string()))?;
        let gone = Gone::default();
        let is_gone = Arc::clone(&gone.0);
        let working = trace::spawn_blocking(move || {
            let done = work(&is_gone);
            drop((turn, place));
            done
        });
        let done = working.await;
        done.unwrap_or_else(|error| Err(failed(error.to_string())))
    }
}

/// The encoder that a name means, if it is here: a folder's name in any case and also with `:latest`, or what the
/// catalogue knows it by.
pub fn meant(encoders: &Encoders, name: &str) -> Option<String> {
    let plain = name.strip_suffix(":latest").unwrap_or(name);
    let known = catalogue::encoder(name).map(|known| known.name.clone());
    let names = [
        Some(plain.to_owned()),
        Some(plain.to_ascii_lowercase()),
        known,
    ];
    names
        .into_iter()
        .flatten()
        .find(|name| encoders.holds(name))
}

/// The encoder that answers for a name. What the engine knows by that name goes before.
pub(crate) fn chosen(node: &Node, name: &str) -> Option<String> {
    let encoders = node.options.encoders.as_ref()?;
    let is_models = || node.engine.catalogue().resolve(Some(name)).is_ok();
    meant(encoders, name).filter(|_| !is_models())
}

/// An encoder of this node as lists tell of it.
#[derive(Default)]
pub(crate) struct Listed {
    pub name: String,
    pub folder: PathBuf,
    pub modified: Option<SystemTime>,
    /// Bytes of its weights.
    pub size_bytes: u64,
    /// Whether it is open.
    pub opened: bool,
}

/// Every encoder whose name no model has, sorted by name.
pub(crate) fn list(node: &Node) -> Vec<Listed> {
    let Some(encoders) = &node.options.encoders else {
        return Vec::new();
    };
    let names = encoders.names().into_iter();
    let names = names.filter(|name| chosen(node, name).as_ref() == Some(name));
    names.map(|name| listed(encoders, name)).collect()
}

/// The encoder that answers for a name, as lists tell of it.
pub(crate) fn one(node: &Node, name: &str) -> Option<Listed> {
    let name = chosen(node, name)?;
    Some(listed(node.options.encoders.as_ref()?, name))
}

fn listed(encoders: &Encoders, name: String) -> Listed {
    let folder = encoders.folder().join(&name);
    let weights = std::fs::metadata(folder.join("model.safetensors")).ok();
    Listed {
        opened: encoders.opened(&name).is_some(),
        name,
        folder,
        size_bytes: weights.as_ref().map_or(0, std::fs::Metadata::len),
        modified: weights.and_then(|file| file.modified().ok()),
    }
}

/// The encoder of that name, opened if it is not yet.
pub(crate) async fn open(node: &Shared, name: &str) -> Result<Arc<Encoder>, EngineError> {
    let failed = |reason: String| EngineError::LoadFailed {
        name: name.to_owned(),
        reason,
    };
    let Some(encoders) = node.options.encoders.clone() else {
        return Err(failed("this node has no encoders".into()));
    };
    if let Some(encoder) = encoders.opened(name) {
        return Ok(encoder);
    }
    let own = name.to_owned();
    let opened = trace::spawn_blocking(move || encoders.get(&own)).await;
    opened
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))
}

/// Lets go of an encoder that was removed.
pub(crate) fn forget(node: &Node, name: &str) {
    if let Some(encoders) = &node.options.encoders {
        encoders.forget(name);
    }
}

/// Embeds texts with a model or an encoder of this machine. Whether a text that is too long may be `cut` is the encoder's
/// affair: a model refuses it.
pub(crate) async fn vectors(
    node: &Shared,
    model: Option<&str>,
    request: EmbedRequest,
    cut: bool,
) -> Result<Embeddings, EngineError> {
    let encoder = match model {
        Some(name) => chosen(node, name),
        // Nobody was named: an encoder answers where no model does.
        None if node.engine.has_embedder() => None,
        None => list(node).into_iter().next().map(|first| first.name),
    };
    match encoder {
        Some(encoder) => embed(node, encoder, request, cut).await,
        None => node.engine.embed(model, request).await,
    }
}

/// Embeds texts with an encoder. A text that is too long is refused, unless it may be `cut`.
async fn embed(
    node: &Shared,
    name: String,
    request: EmbedRequest,
    cut: bool,
) -> Result<Embeddings, EngineError> {
    let place = node.encoding.place(&name)?;
    let encoder = open(node, &name).await?;
    let texts = texts(&encoder, request, cut)?;
    let encoding = node
        .encoding
        .work(place, move |gone| encode(&encoder, &texts, cut, gone));
    let all = encoding.await?;
    Ok(Embeddings {
        model: name,
        prompt_tokens: all.iter().map(|one| one.tokens as u32).sum(),
        vectors: all.into_iter().map(|one| one.vector).collect(),
    })
}

/// Tells the work when nobody waits for it any more.
#[derive(Default)]
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a request wants encoded, if it is nothing that an encoder cannot do. What is too long by far is refused or `cut`
/// here, before anybody splits it.
fn texts(encoder: &Encoder, request: EmbedRequest, cut: bool) -> Result<Vec<String>, EngineError> {
    let invalid = |field, message| EngineError::Invalid { field, message };
    let own = encoder.dimensions();
    if let Some(wanted) = request.dimensions.filter(|wanted| *wanted as usize != own) {
        let message = format!(
            "dimensions must be {own} for this model, not {wanted}: it was not trained for shorter vectors; leave it out"
        );
        return Err(invalid("dimensions", message));
    }
    let context = encoder.max_tokens();
    let most = context * BYTES_PER_TOKEN;
    let texts = request.inputs.into_iter().enumerate();
    texts
        .map(|(index, input)| match input {
            EmbedInput::Text(text) if text.is_empty() => {
                Err(invalid("input", format!("input[{index}] is empty")))
            }
            EmbedInput::Text(mut text) if text.len() > most && cut => {
                let end = (0..=most).rev().find(|end| text.is_char_boundary(*end));
                text.truncate(end.unwrap_or_default());
                text.shrink_to_fit();
                Ok(text)
            }
            EmbedInput::Text(text) if text.len() > most => {
                let bytes = text.len();
                let message = format!(
                    "input[{index}] has {bytes} bytes and at most {most} are read, {context} tokens; divide it into shorter texts"
                );
                Err(invalid("input", message))
            }
            EmbedInput::Text(text) => Ok(text),
            EmbedInput::Tokens(_) => Err(invalid(
                "input",
                format!(
                    "input[{index}] is a list of tokens, and this model takes texts; send the text"
                ),
            )),
        })
        .collect()
}

fn encode(
    encoder: &Encoder,
    texts: &[String],
    cut: bool,
    gone: &AtomicBool,
) -> Result<Vec<Embedding>, EngineError> {
    let failed = |error: Error| EngineError::Compute {
        reason: error.to_string(),
    };
    let context = encoder.max_tokens();
    let is_gone = || gone.load(Ordering::Relaxed);
    // Before anything is computed: one text too long refuses all of them.
    for (index, text) in texts.iter().enumerate().filter(|_| !cut) {
        if is_gone() {
            return Err(failed(Error::Cancelled));
        }
        let tokens = encoder.count_tokens(text).map_err(failed)?;
        if tokens > context {
            return Err(EngineError::InputTooLong {
                index,
                tokens,
                context,
                trained: context,
            });
        }
    }
    if is_gone() {
        return Err(failed(Error::Cancelled));
    }
    if let [text] = texts {
        let embedding = encoder.encode(text, Role::Plain).map_err(failed)?;
        return Ok(vec![embedding]);
    }
    let progress = |_| match is_gone() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let batch = Batch {
        // Answers that are being generated need the others.
        threads: std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
        progress: Some(&progress),
    };
    let all = encoder.encode_batch(texts, Role::Plain, batch);
    all.map_err(failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_keeps_its_turn_when_the_one_who_asked_goes() {
        let turns = Arc::new(Turns::default());
        let free = || {
            (
                turns.turns.available_permits(),
                turns.places.available_permits(),
            )
        };
        let all = free();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (told, tells) = tokio::sync::oneshot::channel();
        let (end, ends) = mpsc::channel::<()>();
        let own = Arc::clone(&turns);
        let asking = tokio::spawn(async move {
            let place = own.place("minilm").unwrap();
            let work = move |gone: &AtomicBool| {
                begun.send(()).unwrap();
                ends.recv().unwrap();
                told.send(gone.load(Ordering::Relaxed)).unwrap();
                Ok(())
            };
            own.work(place, work).await
        });
        begins.await.unwrap();
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
        assert_eq!(free(), (all.0 - 1, all.1 - 1), "the work goes on");
        end.send(()).unwrap();
        assert!(tells.await.unwrap(), "the work was not told");
        // They come back when it has ended.
        let everyone = turns.places.acquire_many(all.1 as u32).await;
        drop(everyone.unwrap());
        let everyone = turns.turns.acquire_many(all.0 as u32).await;
        drop(everyone.unwrap());
    }
}
