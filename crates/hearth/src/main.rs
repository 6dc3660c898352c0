//! `hearth`: the one executable, and the only place where the rooms are wired together.
//!
//! A command line becomes flags ([`cli`]), flags and their weaker sources become a [`config::Config`], and a command
//! ([`commands`]) does its work with it. Failures end here as `error:` and `fix:` on standard error and an exit code.

mod addressed;
mod answer;
mod cli;
mod client;
mod commands;
mod config;
mod daemon;
mod ember;
mod energy;
mod failure;
mod flags;
mod log_file;
mod logging;
mod memories;
mod network;
mod record;
mod screen;
mod service;
mod slips;
mod traces;
mod version;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    commands::completions::answer(cli::Cli::command);
    let cli = cli::Cli::try_parse().unwrap_or_else(|error| slips::explain(error).exit());
    let screen = screen::Screen::of_process(cli.global.json);
    match cli::dispatch(cli, screen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            screen.clear();
            match screen.json {
                true => eprintln!("{}", failure.json()),
                false if screen.colour_err() => {
                    let text = failure.to_string();
                    eprintln!(
                        "\x1b[31merror\x1b[0m{}",
                        text.strip_prefix("error").unwrap_or(&text)
                    );
                }
                false => eprintln!("{failure}"),
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}
