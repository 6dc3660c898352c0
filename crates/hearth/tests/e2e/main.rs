//! The real executable, tried from outside as its users would.
#![allow(clippy::unwrap_used)]

mod cli;
mod clients;
mod elsewhere;
mod household;
mod joined;
mod logs;
mod manual;
mod mcp;
mod memory;
mod mesh;
mod models;
mod page;
mod recall;
mod service;
mod shells;
mod stored;
mod traces;
mod update;
