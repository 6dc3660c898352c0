//! hearth-testkit

#[cfg(feature = "node")]
pub mod bert;
#[cfg(feature = "node")]
pub mod gguf;
#[cfg(feature = "node")]
pub mod hub;
#[cfg(feature = "node")]
pub mod node;
pub mod postgres;
#[cfg(feature = "node")]
pub mod sentence;
