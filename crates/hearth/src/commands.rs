//! What each command does; one module a command.

pub mod bench;
pub mod chat;
pub mod completions;
pub mod config;
pub mod logs;
pub mod man;
pub mod models;
pub mod pull;
pub mod run;
pub mod serve;
pub mod service;
pub mod status;
pub mod stop;
pub mod up;
pub mod update;

use crate::config::{Config, Key};
use crate::failure::{Failure, Outcome};
use crate::flags::Global;
use crate::screen::Screen;

/// What every command gets.
pub struct Context {
    /// The resolved settings.
    pub config: Config,
    /// Where it prints.
    pub screen: Screen,
    /// The flags they came from, for a process that is started with the same ones.
    pub flags: Vec<(Key, String)>,
    /// The flags of every command.
    pub global: Global,
}

impl Context {
    /// Tells on standard error what of the environment looks like a setting and is none.
    pub fn warn(&self) {
        for warning in &self.config.warnings {
            self.screen.note(&format!("warning: {warning}"));
        }
    }
}

/// The runtime of a command.
pub fn runtime() -> Outcome<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start the runtime: {error}")))
}
