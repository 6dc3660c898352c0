//! Local generation over llama.cpp: models, slots, batching, KV policy, sampling and grammars.
//!
//! The path of a request: [`Engine::generate`] resolves the model name through the [`Catalogue`], loads the model if
//! need be, renders and tokenises the prompt, compiles the constraint, and hands a job to the one thread that owns
//! the model's slots and batch. Tokens come back as [`Event`]s. Dropping the [`Generation`] frees its slot within one
//! step.
//!
//! What this crate refuses: HTTP, configuration files, environment variables, and any knowledge of peers. It is the
//! only crate that knows llama.cpp, and the only one with `unsafe` code.

mod catalogue;
mod cells;
mod chat;
mod constraint;
mod counters;
mod cpu;
pub mod dialect;
mod embed;
mod embedder;
mod engine;
mod error;
mod gbnf;
pub mod generation;
pub mod grammar;
mod header;
mod kv;
mod llama;
mod loaded;
pub mod machine;
mod options;
mod plan;
mod prefix;
mod runner;
pub mod sampler;
mod schedule;
mod schema;
mod slots;
pub mod split;
mod task;
pub mod template;
pub mod text;

pub use catalogue::{Catalogue, ModelSource, named};
pub use chat::{Chat, Reasoning, Tool, ToolChoice, Tools};
pub use constraint::Constraint;
pub use embed::{EmbedInput, EmbedRequest, Embeddings};
pub use engine::{Engine, Residence};
pub use error::EngineError;
pub use generation::{
    AdapterUse, Event, FinishReason, Generation, Prompt, Request, TokenLogprob, TopLogprob, Usage,
};

pub use options::{EngineOptions, KvType, ModelOptions, machine_memory};
pub use sampler::Sampling;

/// A token id of a model's vocabulary.
pub type Token = i32;

/// A sequence in a context's KV cache.
type SeqId = i32;
