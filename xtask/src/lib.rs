//! Developer commands of the workspace: `cargo xtask up | test | tidy | bench | train-ember | dist | lint-packaging`.
//!
//! A library, so that `tests/tidy.rs` can hold the repository to its rules. It depends on no room: it must build in
//! seconds on a machine that has only Rust, because it is what installs the rest.

mod bench_alloc;
mod bench_memory;
mod bench_mesh;
mod bench_serve;
pub mod cargo;
mod checks;
mod clients;
mod dist;
mod ember;
mod packaging;
mod setup;
pub mod tidy;
mod up;

const HELP: &str = "\
Developer commands of Hearth

usage: cargo xtask COMMAND

  up              install what is missing, build the release binary, start a node
  test            install what is missing, run every check
  tidy            check the rules that the compiler does not know
  bench           measure; results go to bench/results/
  train-ember     train or score the embedded model
  dist            package a release
  lint-packaging  check the Dockerfile, the workflows and the like

`cargo xtask COMMAND --help` says more.

EXAMPLES
  cargo xtask up
  cargo xtask test";

const TIDY: &str = "\
Checks the rules that the compiler does not know: imports between rooms, unsafe code, sleeping tests, file sizes,
names, documentation, executables, licences, the environment, tracing subscribers. Each is a function in
xtask/src/tidy.rs.

usage: cargo xtask tidy

EXAMPLES
  cargo xtask tidy";

const BENCH: &str = "\
Measures, and writes the results to bench/results/.

usage: cargo xtask bench NAME [options]

  serve        the node beside llama-server; `cargo xtask bench serve --help` lists its options
  memory       the encoder, the scan, the search and the quality of retrieval, beside others
  mesh         what another machine's answer costs, failover, fan-out to 10,000 subscribers
  alloc        mimalloc beside the system's allocator at 5,000 requests/s

EXAMPLES
  cargo xtask bench serve --quick
  cargo xtask bench serve --llama-server ~/llama.cpp/build/bin/llama-server
  cargo xtask bench memory --encoder ~/all-MiniLM-L6-v2
  cargo xtask bench mesh --quick";

/// Runs one command; the error is what to tell the person.
pub fn run(args: &[String]) -> Result<(), String> {
    // Every command speaks of files from the root, wherever it was called.
    std::env::set_current_dir(cargo::root()).map_err(|error| format!("the root: {error}"))?;
    let Some((command, rest)) = args.split_first() else {
        return Err(HELP.into());
    };
    let help = rest
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word == "--help" || word == "-h");
    match command.as_str() {
        "help" | "--help" | "-h" => say(HELP),
        "up" if help => say(up::HELP),
        "up" => up::run(rest),
        "test" if help => say(checks::HELP),
        "test" => checks::run(rest),
        "tidy" if help => say(TIDY),
        "tidy" => {
            none_left(rest, TIDY)?;
            tidy::check()
        }
        "bench" => match rest.split_first() {
            Some((name, rest)) if name == "serve" => bench_serve::run(rest),
            Some((name, rest)) if name == "memory" => bench_memory::run(rest),
            Some((name, rest)) if name == "mesh" => bench_mesh::run(rest),
            Some((name, rest)) if name == "alloc" => bench_alloc::run(rest),
            _ if help => say(BENCH),
            _ => Err(BENCH.into()),
        },
        "train-ember" if help => say(ember::HELP),
        "train-ember" => ember::run(rest),
        "dist" if help => say(dist::HELP),
        "dist" => dist::run(rest),
        "lint-packaging" if help => say(packaging::HELP),
        "lint-packaging" => packaging::run(rest),
        other => Err(format!("there is no command `{other}`\n\n{HELP}")),
    }
}

fn say(text: &str) -> Result<(), String> {
    println!("{text}");
    Ok(())
}

/// Refuses words that a command has no use for.
fn none_left(rest: &[String], help: &str) -> Result<(), String> {
    match rest.first() {
        None => Ok(()),
        Some(word) => Err(format!("`{word}` was not understood\n\n{help}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command's help shows how the command is used.
    #[test]
    fn every_help_has_an_example() {
        for (command, help) in [
            ("up", up::HELP),
            ("test", checks::HELP),
            ("tidy", TIDY),
            ("bench", BENCH),
            ("train-ember", ember::HELP),
            ("dist", dist::HELP),
            ("lint-packaging", packaging::HELP),
        ] {
            let (_, examples) = help.split_once("EXAMPLES").unwrap_or_default();
            assert!(
                examples.contains(&format!("cargo xtask {command}")),
                "{command}"
            );
            assert!(HELP.contains(&format!("\n  {command} ")), "{command}");
        }
    }

    #[test]
    fn an_unknown_word_is_named() {
        let told = run(&["tset".into()]).err().unwrap_or_default();
        assert!(told.contains("`tset`"), "{told}");
        let told = run(&["tidy".into(), "--fast".into()])
            .err()
            .unwrap_or_default();
        assert!(told.contains("`--fast`"), "{told}");
    }
}
