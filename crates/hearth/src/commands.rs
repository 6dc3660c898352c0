//! What each command does; one module a command.

pub mod bench;
pub mod chat;
pub mod completions;
pub mod config;
pub mod doctor;
pub mod firewall;
pub mod invite;
pub mod join;
pub mod logs;
pub mod man;
pub mod mcp;
pub mod memory;
pub mod models;
pub mod peers;
pub mod pull;
pub mod run;
pub mod serve;
pub mod service;
pub mod status;
pub mod stop;
pub mod up;
pub mod update;

use crate::config::{Config, HostPort, Key};
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

impl Context {
    /// The flags that lead a later command where this one went, each after a blank: to its home, and to the node at
    /// `place` if this one was told an address.
    pub fn again(&self, place: Option<&HostPort>) -> String {
        let config = self
            .global
            .config
            .as_ref()
            .map(|file| file.display().to_string());
        let host = place.filter(|_| self.global.host.is_some());
        let flags = [
            ("config", config),
            ("home", self.global.home.clone()),
            ("host", host.map(ToString::to_string)),
        ];
        let said = flags
            .into_iter()
            .filter_map(|(flag, value)| Some((flag, value?)));
        said.map(|(flag, value)| format!(" --{flag} {}", quoted(&value)))
            .collect()
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |letter: char| {
        letter.is_alphanumeric()
            || "-_./:~@%+,=".contains(letter)
            || (cfg!(windows) && letter == '\\')
    };
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// The runtime of a command.
pub fn runtime() -> Outcome<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start the runtime: {error}")))
}
