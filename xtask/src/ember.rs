//! `cargo xtask train-ember`: runs the Python under `models/ember` in an environment of its own.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::cargo::{cargo, succeed, target};
use crate::clients::python_environment;
use crate::setup::{Need, ensure};

pub const HELP: &str = "\
Trains the embedded model, its draft and its adapters, or scores what is in models/ember.

usage: cargo xtask train-ember [--minutes N]
       cargo xtask train-ember --eval [OPTIONS OF evaluate.py]

  --minutes N  time for the target; the rest scales with it (default: train.py's)
  --eval       train nothing: start a node and print its held-out accuracy

EXAMPLES
  cargo xtask train-ember --minutes 40
  cargo xtask train-ember --eval --limit 100";

const FOLDER: &str = "models/ember";

pub fn run(args: &[String]) -> Result<(), String> {
    if let Some(at) = args.iter().position(|word| word == "--eval") {
        if at > 0 {
            return Err(format!("`--eval` comes first\n\n{HELP}"));
        }
        return evaluate(&args[1..]);
    }
    match args {
        [] => {}
        [flag, minutes] if flag == "--minutes" && minutes.parse::<f64>().is_ok_and(|m| m > 0.0) => {
        }
        _ => return Err(format!("the arguments were not understood\n\n{HELP}")),
    }
    ensure(&[Need::Python])?;
    let python = python_environment(
        &target().join("ember"),
        &Path::new(FOLDER).join("requirements.txt"),
    )?;
    succeed(
        Command::new(python)
            .arg(Path::new(FOLDER).join("train.py"))
            .args(args),
    )
}

fn evaluate(args: &[String]) -> Result<(), String> {
    ensure(&Need::BUILD)?;
    ensure(&[Need::Python])?;
    succeed(&mut cargo(["build", "--release", "--package", "hearth"]))?;
    let binary = target().join("release/hearth");
    let home = target().join("ember-home");
    let port = TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("no free port: {error}"))?
        .port();
    let host = format!("127.0.0.1:{port}");
    let hearth = |words: &[&str]| {
        let mut command = Command::new(&binary);
        command.args(words).env("HEARTH_HOME", &home);
        succeed(command.env("HEARTH_HOST", &host))
    };
    hearth(&["up", "--detach"])?;
    let scored = succeed(
        Command::new("python3")
            .arg(Path::new(FOLDER).join("evaluate.py"))
            .args(["--base-url", &format!("http://{host}/v1")])
            .args(args),
    );
    hearth(&["stop"])?;
    scored
}
