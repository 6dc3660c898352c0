//! Server-rendered pages over read-only views.
//!
//! Takes plain data and returns HTML. The pages show without their scripts; the scripts add the chat, and what changes
//! memories. No request leaves the node: styles and scripts are assets of this crate. This crate refuses I/O and state.

mod asset;
mod head;
mod home;
mod household;
mod memories;
mod models;
mod snippet;
mod status;
mod units;

pub use asset::{Asset, asset};
pub use home::home;
pub use household::household;
pub use memories::{Asked, Shown, mcp, memories};
pub use models::models;
pub use units::size;
