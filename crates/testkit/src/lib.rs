//! hearth-testkit

pub mod bert;
pub mod gguf;
pub mod hub;
pub mod node;
pub mod sentence;
