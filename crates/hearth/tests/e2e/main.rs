//! The real executable, tried from outside as its users would.
#![allow(clippy::unwrap_used)]

mod cli;
mod clients;
mod household;
mod page;
