//! Server-rendered pages over read-only views.
//!
//! Takes plain data and returns HTML. The page works as a status page without its script; the script adds the chat. No
//! request leaves the node: styles and scripts are assets of this crate. This crate refuses I/O and state.

mod asset;
mod head;
mod home;
mod models;
mod status;
mod units;

pub use asset::{Asset, asset};
pub use home::home;
pub use models::models;
pub use units::size;
