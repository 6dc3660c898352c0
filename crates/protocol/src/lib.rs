//! Wire types and names that every room of Hearth shares.
//!
//! This crate holds what crosses a boundary: request and response bodies, error shapes, identifiers and format
//! versions. It refuses I/O and any logic beyond parsing and validating what it carries.

pub mod anthropic;
pub mod chat;
pub mod completion;
pub mod diagnosis;
pub mod embedding;
pub mod error;
pub mod event;
pub mod household;
pub mod id;
pub mod machine;
pub mod memory;
pub mod model;
pub mod ollama;
pub mod parse;
pub mod peers;
pub mod recall;
pub mod responses;
pub mod status;
pub mod tool;
