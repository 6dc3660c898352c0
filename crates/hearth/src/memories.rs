//! The memories of a home: where their files lie, and which encoder finds them by meaning.

use std::sync::Arc;

use hearth_encoder::{self as encoder, Encoders};
use hearth_memory::{Embed, Memories, Named, Place};
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
pub const USUAL: &str = "minilm";

/// The database of a home.
///
/// # Errors
/// If it cannot be opened.
pub fn store(config: &Config) -> Outcome<Store> {
    Store::open(&config.home.join(DATABASE), hearth_node::SCHEMA)
        .map_err(|error| Failure::new(error.to_string()))
}

/// The encoders of a home.
pub fn encoders(config: &Config) -> Arc<Encoders> {
    Arc::new(Encoders::new(config.home.join(ENCODERS)))
}

/// The memories in a home's database. The encoder is opened when it is first needed; as long as there is none, words
/// find alone.
///
/// # Errors
/// If the database cannot be read.
pub fn open(config: &Config, store: Store, encoders: Arc<Encoders>) -> Outcome<Memories> {
    let encoder = move || {
        match encoders.get(USUAL) {
        Ok(encoder) => {
            let name = USUAL.to_owned();
            Ok(Arc::new(Named { name, encoder }) as Arc<dyn Embed>)
        }
        Err(encoder::Error::Unknown { .. }) => Err(
            "there is no encoder, so memories are found by their words alone; `hearth pull minilm` fetches one"
                .to_owned(),
        ),
        Err(error) => Err(format!(
            "the encoder in {} cannot be used, so memories are found by their words alone: {error}",
            encoders.folder().join(USUAL).display()
        )),
    }
    };
    let place = Place {
        vectors: Some(config.home.join(VECTORS)),
        encoder: Some(Arc::new(encoder)),
    };
    Memories::open(store, place).map_err(|error| Failure::new(error.to_string()))
}
