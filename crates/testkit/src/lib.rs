//! hearth-testkit

pub mod bert;
pub mod gguf;
pub mod node;
