//! What each command does; one module a command.

pub mod chat;
pub mod completions;
pub mod config;
pub mod models;
pub mod run;
pub mod serve;
pub mod status;
pub mod stop;
pub mod up;

use std::future::Future;

use tracing::level_filters::LevelFilter;

use crate::cli::{Cli, Command, Global};
use crate::config::{Config, Key, Sources};
use crate::failure::{Failure, Outcome};
use crate::logging;
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

/// Runs the command.
pub fn dispatch(cli: Cli, screen: Screen) -> Outcome {
    if let Command::Completions(args) = &cli.command {
        // Works whatever the configuration says.
        return completions::run(args);
    }
    if let Command::Config(args) = &cli.command
        && args.only_path()
    {
        let sources = Sources::of_process(cli.global.config.as_deref(), Vec::new())?;
        config::path(&sources.file, &screen);
        return Ok(());
    }
    let mut flags = cli.global.layer();
    let usual = match &cli.command {
        Command::Serve(args) => {
            flags.extend(args.tuning.layer());
            LevelFilter::INFO
        }
        Command::Up(args) => {
            flags.extend(args.tuning.layer());
            LevelFilter::ERROR
        }
        _ => LevelFilter::ERROR,
    };
    let config = Sources::of_process(cli.global.config.as_deref(), flags.clone())?.resolve()?;
    logging::install(&config.log, usual, cli.global.verbose, &screen);
    let context = Context {
        config,
        screen,
        flags,
        global: cli.global,
    };
    match cli.command {
        Command::Up(args) => block_on(up::run(&context, &args)),
        Command::Serve(_) => block_on(serve::run(&context)),
        Command::Stop(_) => block_on(stop::run(&context)),
        Command::Run(args) => block_on(run::run(&context, &args)),
        Command::Chat(args) => chat::run(&context, &args),
        Command::Models(_) => block_on(models::run(&context)),
        Command::Status(_) => block_on(status::run(&context)),
        Command::Config(_) => {
            config::show(&context);
            Ok(())
        }
        Command::Completions(_) => Ok(()),
    }
}

/// The runtime of a command.
pub fn runtime() -> Outcome<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start the runtime: {error}")))
}

fn block_on(command: impl Future<Output = Outcome>) -> Outcome {
    runtime()?.block_on(command)
}
