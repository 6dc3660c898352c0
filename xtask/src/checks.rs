//! `cargo xtask test`: every check, each with its time, and all failures at the end.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::cargo::{cargo, succeed};
use crate::setup::{Need, ensure};
use crate::{clients, packaging, tidy};

pub const HELP: &str = "\
Installs what is missing and runs every check: format, clippy, documentation, tidy and licences, packaging, tests. All in
the development profile, so that llama.cpp is compiled once. It goes on after a failure and lists them all at the end.

usage: cargo xtask test

EXAMPLES
  cargo xtask test
  cargo nextest run -p hearth-engine      while working on one room";

type Step = (&'static str, fn() -> Result<(), String>);

const STEPS: [Step; 7] = [
    ("format", || {
        succeed(&mut cargo(["fmt", "--all", "--check"]))
    }),
    ("tidy and licences", tidy::check),
    ("clippy", || {
        let args = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ];
        succeed(&mut cargo(args))
    }),
    ("documentation", || {
        let mut doc = cargo([
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ]);
        succeed(doc.env("RUSTDOCFLAGS", "-D warnings"))
    }),
    ("examples in documentation", || {
        succeed(&mut cargo(["test", "--workspace", "--doc", "--quiet"]))
    }),
    ("packaging", || packaging::run(&[])),
    ("tests", tests),
];

pub fn run(args: &[String]) -> Result<(), String> {
    crate::none_left(args, HELP)?;
    // Without these nothing below can run, so this step alone ends the command.
    println!("==> set-up");
    ensure(&Need::ALL)?;
    clients::install()?;
    let outcomes: Vec<_> = STEPS
        .iter()
        .map(|(name, step)| {
            println!("\n==> {name}");
            let begun = Instant::now();
            let outcome = step();
            if let Err(reason) = &outcome {
                println!("{reason}");
            }
            (*name, begun.elapsed(), outcome.is_ok())
        })
        .collect();
    summary(&outcomes)
}

fn tests() -> Result<(), String> {
    let nextest = cargo(["nextest", "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    let mut command: Command = if nextest {
        cargo(["nextest", "run", "--workspace", "--no-fail-fast"])
    } else {
        cargo(["test", "--workspace", "--all-targets", "--no-fail-fast"])
    };
    succeed(&mut command)
}

fn summary(outcomes: &[(&str, Duration, bool)]) -> Result<(), String> {
    println!("\n==> summary");
    for (name, took, ok) in outcomes {
        let word = if *ok { "ok    " } else { "FAILED" };
        println!("  {word} {:>7.1} s  {name}", took.as_secs_f64());
    }
    let failed: Vec<&str> = outcomes
        .iter()
        .filter(|(_, _, ok)| !ok)
        .map(|(name, ..)| *name)
        .collect();
    if failed.is_empty() {
        println!("everything passed");
        return Ok(());
    }
    Err(format!("failed: {}", failed.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_fails_when_one_step_failed_and_names_it() {
        let took = Duration::from_secs(1);
        assert_eq!(summary(&[("format", took, true)]), Ok(()));
        let told = summary(&[
            ("format", took, false),
            ("clippy", took, true),
            ("tests", took, false),
        ]);
        assert_eq!(told, Err("failed: format, tests".into()));
    }
}
