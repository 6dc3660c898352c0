//! Texts to vectors: our own int8 forward pass for sentence encoders of the BERT family, and the scan over int8 vectors.
//!
//! [`Encoder::open`] reads a folder in the layout of sentence-transformers (all-MiniLM-L6-v2, bge-small-en-v1.5,
//! e5-small-v2 and their like). Weights become int8 per output channel while they are loaded, activations per token
//! while they are computed; what comes out is a vector of length one. [`Scan`] finds, among int8 vectors lying one after
//! the other, those with the largest dot product.
//!
//! Both choose their instructions at run time ([`Kernel`]), and every kernel gives the same vectors to the last bit.
//!
//! - `folder`, `weights`, `tokens`: what lies in the folder, checked; nothing in it is trusted.
//! - `linear`, `lanes`: what int8 layers and rows of floats are; `kernel` computes with them.
//! - `float`, `forward`: the pass itself. `encoder`: one text, or many on several threads. `encoders`: those of a
//!   home, by name.
//! - `scan`, `query`: the scan. `reference`: the same pass in plain 32-bit floats, for tests and benchmarks.
//!
//! It does no networking, knows no async, reads no environment, and never writes a file.

mod encoder;
mod encoders;
mod error;
mod float;
mod folder;
mod forward;
mod kernel;
mod lanes;
mod linear;
mod parallel;
mod query;
#[doc(hidden)]
pub mod reference;
mod scan;
mod tokens;
mod weights;

pub use encoder::{Batch, Embedding, Encoder, Role};
pub use encoders::Encoders;
pub use error::Error;
pub use folder::{Pooling, Prompts};
pub use kernel::Kernel;
pub use scan::{Hit, Scan, quantise};
