//! `hearth completions`: so that the shell knows the commands.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::failure::Outcome;
use crate::screen::print;

/// Flags of `hearth completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth completions bash > ~/.local/share/bash-completion/completions/hearth
  hearth completions zsh > ~/.zfunc/_hearth
  hearth completions fish > ~/.config/fish/completions/hearth.fish")]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: Shell,
}

/// Prints the script for this command line.
pub fn run(args: &CompletionsArgs, command_line: &mut Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command_line, "hearth", &mut script);
    print(&String::from_utf8_lossy(&script));
    Ok(())
}
