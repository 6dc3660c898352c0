//! A node through its doors. One program for all of it: each would hold a whole node, and be linked for itself. What looks
//! at its own process (`mcp`, `robustness`, `traces`) stands beside it.
#![allow(clippy::unwrap_used)]

mod anthropic;
mod embeddings;
mod encoders;
mod household;
#[cfg(unix)]
mod hubs;
mod machine;
mod memory;
mod ollama;
mod recall;
mod responses;
mod sharing;
mod surface;
mod tools;
