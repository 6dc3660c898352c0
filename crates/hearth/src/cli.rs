//! The command line: what may be said, and which of [`crate::commands`] does it.
//!
//! No command imports this file; what they share is in [`crate::flags`].

use std::future::Future;
use std::io::IsTerminal;

use clap::{CommandFactory, Parser, Subcommand};
use tracing::level_filters::LevelFilter;

use crate::commands::{
    Context, bench, chat, completions, config, doctor, firewall, invite, join, logs, man, mcp,
    memory, models, peers, pull, run, runtime, serve, service, status, stop, up, update,
};
use crate::config::Sources;
use crate::failure::Outcome;
use crate::flags::Global;
use crate::log_file::LogFile;
use crate::logging;
use crate::screen::Screen;

/// Turns the machines you own into one private AI.
#[derive(Debug, Parser)]
#[command(
    name = "hearth",
    version,
    arg_required_else_help = true,
    after_help = "\
EXAMPLES
  hearth up                       start a node and ask it something
  hearth run \"What is Hearth?\"    one answer
  hearth chat                     a conversation
  hearth up --detach              leave a node running; later: hearth stop

SETTINGS
  Flags win over HEARTH_* variables, and these over the configuration file.
  `hearth config show` prints every value and where it came from.
  Without any of them commands look for a node where OLLAMA_HOST says.

EXIT CODES
  0  ok
  1  the work failed
  2  the command line, the environment or the configuration file is wrong
  3  no node runs"
)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a node, see that it answers, and learn what to try next
    Up(up::UpArgs),
    /// Run a node in the foreground
    Serve(serve::ServeArgs),
    /// Stop the running node
    Stop(stop::StopArgs),
    /// Ask one question
    Run(run::RunArgs),
    /// Have a conversation
    Chat(chat::ChatArgs),
    /// Fetch a model from the hub or from another machine
    Pull(pull::PullArgs),
    /// List the models
    #[command(alias = "ls")]
    List(models::ListArgs),
    /// Show what a model's files say
    Show(models::ShowArgs),
    /// Remove models
    Rm(models::RmArgs),
    /// List, import, check and remove models
    Models(models::ModelsArgs),
    /// Remember things, and find them again
    Memory(memory::MemoryArgs),
    /// Offer the memory to coding tools, over MCP
    Mcp(mcp::McpArgs),
    /// Print a ticket with which another machine joins this one's household
    Invite(invite::InviteArgs),
    /// Join the household of a ticket
    Join(join::JoinArgs),
    /// Leave the household
    Leave(join::LeaveArgs),
    /// List the machines of the household, remove or rename one
    Peers(peers::PeersArgs),
    /// Find out which layer between this machine and another is broken, and what mends it
    Doctor(doctor::DoctorArgs),
    /// Measure this machine, or a model on it
    Bench(bench::BenchArgs),
    /// Show what the node is doing
    #[command(alias = "ps")]
    Status(status::StatusArgs),
    /// Show settings and where they came from
    Config(config::ConfigArgs),
    /// Show what a node in the background logged
    Logs(logs::LogsArgs),
    /// Let the system start and stop the node
    Service(service::ServiceArgs),
    /// Let the mesh through the rules of VPN clients
    Firewall(firewall::FirewallArgs),
    /// Look for a newer version
    Update(update::UpdateArgs),
    /// Print shell completions
    Completions(completions::CompletionsArgs),
    /// Print the manual
    Man(man::ManArgs),
}

/// Runs the command.
pub fn dispatch(cli: Cli, screen: Screen) -> Outcome {
    if let Command::Completions(args) = &cli.command {
        // Works whatever the configuration says.
        return completions::run(args);
    }
    if let Command::Man(args) = &cli.command {
        return man::run(args, Cli::command(), std::io::stdout().is_terminal());
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
        Command::Pull(args) => {
            flags.extend(args.layer());
            LevelFilter::ERROR
        }
        Command::Service(args) => {
            flags.extend(args.layer());
            LevelFilter::ERROR
        }
        Command::Update(args) => {
            flags.extend(args.layer());
            LevelFilter::ERROR
        }
        Command::Firewall(args) if args.is_watch() => LevelFilter::INFO,
        Command::Mcp(_) => LevelFilter::WARN,
        _ => LevelFilter::ERROR,
    };
    let config = Sources::of_process(cli.global.config.as_deref(), flags.clone())?.resolve()?;
    let file = match &cli.command {
        Command::Serve(args) if args.log_to_file => Some(LogFile::open(&config.home, &config.log)?),
        _ => None,
    };
    logging::install(&config.log, usual, cli.global.verbose, &screen, file);
    let context = Context {
        config,
        screen,
        flags,
        global: cli.global,
    };
    match cli.command {
        Command::Up(args) => block_on(up::run(&context, &args)),
        Command::Serve(args) => block_on(serve::run(&context, &args)),
        Command::Stop(_) => block_on(stop::run(&context)),
        Command::Run(args) => block_on(run::run(&context, &args)),
        Command::Chat(args) => chat::run(&context, &args),
        Command::Pull(args) => block_on(pull::run(&context, &args)),
        Command::List(_) => block_on(models::list(&context)),
        Command::Show(args) => block_on(models::show(&context, &args)),
        Command::Rm(args) => block_on(models::rm(&context, &args)),
        Command::Models(args) => block_on(models::run(&context, &args)),
        Command::Memory(args) => block_on(memory::run(&context, &args)),
        Command::Mcp(args) => mcp::run(&context, &args),
        Command::Invite(args) => block_on(invite::run(&context, &args)),
        Command::Join(args) => block_on(join::join(&context, &args)),
        Command::Leave(args) => block_on(join::leave(&context, &args)),
        Command::Peers(args) => block_on(peers::run(&context, &args)),
        Command::Doctor(args) => block_on(doctor::run(&context, &args)),
        Command::Bench(args) => block_on(bench::run(&context, &args)),
        Command::Status(_) => block_on(status::run(&context)),
        Command::Config(_) => {
            config::show(&context);
            Ok(())
        }
        Command::Logs(args) => block_on(logs::run(&context, &args)),
        Command::Service(args) => block_on(service::run(&context, &args)),
        Command::Firewall(args) => block_on(firewall::run(&context, &args)),
        Command::Update(_) => block_on(update::run(&context)),
        Command::Completions(_) | Command::Man(_) => Ok(()),
    }
}

fn block_on(command: impl Future<Output = Outcome>) -> Outcome {
    runtime()?.block_on(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Key;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// `hearth COMMAND --help` of every command shows how it is used.
    #[test]
    fn every_command_has_an_example_of_itself() {
        fn check(command: &clap::Command, path: &str) -> usize {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                help.contains("EXAMPLES"),
                "`{path}` has no EXAMPLES section"
            );
            assert!(
                help.contains(&format!("  {path}")) || help.contains(&format!("  sudo {path}")),
                "the EXAMPLES of `{path}` do not show `{path}`"
            );
            let below = command
                .get_subcommands()
                .filter(|below| below.get_name() != "help");
            1 + below
                .map(|below| check(below, &format!("{path} {}", below.get_name())))
                .sum::<usize>()
        }
        let seen = check(&Cli::command(), "hearth");
        assert!(seen >= 12, "only {seen} commands were seen");
    }

    /// A setting without a flag on `serve` could not be given on the command line.
    #[test]
    fn serve_has_a_flag_for_every_setting() {
        let root = Cli::command();
        let serve = root
            .find_subcommand("serve")
            .map(|serve| serve.get_arguments().collect::<Vec<_>>())
            .unwrap_or_default();
        for key in Key::ALL {
            let known = serve
                .iter()
                .copied()
                .chain(root.get_arguments())
                .any(|argument| argument.get_long() == Some(key.flag()));
            assert!(known, "--{} is missing", key.flag());
        }
    }
}
