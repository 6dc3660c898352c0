//! What a person's tools remember: notes, decisions, facts, found again by meaning and by words.
//!
//! [`Memories`] is the door. A text that comes in passes the write gate (`gate`): what is there already is merged, what
//! was recalled is not stored as new, what takes another's place supersedes it. The database (`sqlite`) is the truth,
//! with the vectors in full precision; a flat file of int8 vectors (`vectors`) and arrays in memory (`index`) are made
//! from it, and made again when they do not agree with it. A search (`retrieval`) is a row of small pure steps: filter,
//! scan, words, rescore, fuse, explain.
//!
//! Without an encoder everything works by words alone, and says so.
//!
//! What this crate refuses: HTTP, clocks (the time is given), and knowing where its files should lie.

mod background;
mod doctor;
mod embed;
mod error;
mod federation;
mod gate;
mod graph;
pub mod import;
mod index;
mod memories;
mod pieces;
mod retrieval;
mod sqlite;
mod vectors;

pub use background::Background;
pub use embed::{Embed, Named, Source};
pub use error::Error;
pub use federation::merged;
pub use graph::BREAK_EVEN;
#[doc(hidden)]
pub use index::quantise;
pub use memories::{Memories, Place};
#[doc(hidden)]
pub use retrieval::{Fusion, Ranking};
pub use sqlite::TABLES;
