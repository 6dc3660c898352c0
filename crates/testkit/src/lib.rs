//! hearth-testkit

pub mod gguf;
pub mod node;
