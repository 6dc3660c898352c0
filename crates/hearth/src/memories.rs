//! The memories of a home: where their files lie, and which encoder finds them by meaning.

use std::path::PathBuf;
use std::sync::Arc;

use hearth_encoder::Encoder;
use hearth_memory::{Embed, Memories, Place};
use hearth_store::Store;

use crate::config::Config;
use crate::failure::{Failure, Outcome};

/// Memories, stored answers and conversations, in the home.
const DATABASE: &str = "hearth.db";
/// The vectors of memories, made from the database.
const VECTORS: &str = "memory.vectors";
/// Folders of encoders, in the home.
const ENCODERS: &str = "encoders";
/// The encoder that is used if it is there: all-MiniLM-L6-v2.
const USUAL: &str = "minilm";

/// The database of a home.
///
/// # Errors
/// If it cannot be opened.
pub fn store(config: &Config) -> Outcome<Store> {
    Store::open(&config.home.join(DATABASE), hearth_node::SCHEMA)
        .map_err(|error| Failure::new(error.to_string()))
}

/// The memories in a home's database.
///
/// # Errors
/// If the database cannot be read. An encoder that cannot be used is no error: words find alone then.
pub fn open(config: &Config, store: Store) -> Outcome<Memories> {
    let (encoder, words_only) = match encoder(config) {
        Ok(encoder) => (Some(encoder), None),
        Err(reason) => (None, Some(reason)),
    };
    let place = Place {
        vectors: Some(config.home.join(VECTORS)),
        encoder,
        words_only,
    };
    Memories::open(store, place).map_err(|error| Failure::new(error.to_string()))
}

/// The encoder of a home, or why there is none.
fn encoder(config: &Config) -> Result<Arc<dyn Embed>, String> {
    let folder: PathBuf = config.home.join(ENCODERS).join(USUAL);
    if !folder.is_dir() {
        return Err(format!(
            "there is no encoder, so memories are found by their words alone; put all-MiniLM-L6-v2 (its config.json, \
             model.safetensors and tokenizer.json) into {}",
            folder.display()
        ));
    }
    match Encoder::open(&folder) {
        Ok(encoder) => Ok(Arc::new(encoder)),
        Err(error) => Err(format!(
            "the encoder in {} cannot be used, so memories are found by their words alone: {error}",
            folder.display()
        )),
    }
}
