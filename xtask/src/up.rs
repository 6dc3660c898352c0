//! `cargo xtask up`: from a bare machine to a node that answers.

use std::process::Command;

use crate::cargo::{cargo, succeed, target};
use crate::setup::{Need, ensure};

pub const HELP: &str = "\
Installs what is missing, builds the release binary and starts a node that answers.

usage: cargo xtask up [--detach] [-- ARGUMENTS OF `hearth up`]

  --detach     leave the node running and come back

EXAMPLES
  cargo xtask up
  cargo xtask up --detach
  cargo xtask up -- --model ~/models/qwen3-1.7b.gguf";

pub fn run(args: &[String]) -> Result<(), String> {
    let (own, passed) = match args.iter().position(|word| word == "--") {
        Some(at) => (&args[..at], &args[at + 1..]),
        None => (args, &[][..]),
    };
    if let Some(word) = own.iter().find(|word| *word != "--detach") {
        return Err(format!("`{word}` was not understood\n\n{HELP}"));
    }
    println!("1/3  looking for what the build needs");
    ensure(&Need::BUILD)?;
    let binary = target()
        .join("release")
        .join(format!("hearth{}", std::env::consts::EXE_SUFFIX));
    match binary.exists() {
        true => println!("2/3  building the release binary"),
        false => println!("2/3  building the release binary (about 10 minutes on 2 cores)"),
    }
    succeed(&mut cargo(["build", "--release", "--package", "hearth"]))?;
    println!("3/3  starting the node");
    become_it(Command::new(binary).arg("up").args(own).args(passed))
}

/// The node takes this process over, so that Ctrl-C and the exit code are its own.
#[cfg(unix)]
fn become_it(command: &mut Command) -> Result<(), String> {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(format!("could not run the node: {error}"))
}

#[cfg(not(unix))]
fn become_it(command: &mut Command) -> Result<(), String> {
    succeed(command)
}
