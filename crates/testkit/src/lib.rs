//! hearth-testkit

pub mod gguf;
