//! `cargo xtask bench mesh`: what it costs that another machine answers, beside this one and beside bare round trips; what
//! happens when it dies; and how soon 10,000 subscribers know of an event, beside nginx with nchan and Redis.
//!
//! Everything runs on this machine: real nodes (`hearth serve`) as processes, and the examples `mesh_speed`,
//! `fanout_clients` and `fanout_speed` as clients and limits. What is compared is asked in turn, so that the machine's mood
//! meets both; a difference or ratio is the median of those of the turns. Results go to `bench/results/`.

use std::path::PathBuf;
use std::process::Command;

use crate::bench_memory::table::{Report, Table};
use crate::bench_memory::worker::Worker;
use crate::bench_serve::report::median;
use crate::cargo::{cargo, succeed, target};

mod failover;
mod fanout;
mod gate;
mod memory;
mod node;
mod requests;

const USAGE: &str = "\
usage: cargo xtask bench mesh [options]
  --only NAMES      some of requests, memory, failover, fanout, resync, gate, separated by commas
  --encoder FOLDER  all-MiniLM-L6-v2 or its like for memories; without one only words are measured
  --subscribers N   subscribers of the fan-out (default 10,000)
  --repeat N        turns of each measurement (default 5)
  --quick           2 turns, shorter ones
  --dev             measure development builds: to try the benchmark, without results
  --no-build        measure the builds that are there

Fan-out is measured beside nginx with nchan and Redis if they are on the PATH (Debian: apt-get install
--no-install-recommends nginx libnginx-mod-nchan redis-server). Only on Unix.";

struct Options {
    only: Vec<String>,
    encoder: Option<PathBuf>,
    subscribers: usize,
    repeat: usize,
    quick: bool,
    profile: &'static str,
    build: bool,
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options {
        only: Vec::new(),
        encoder: None,
        subscribers: 10_000,
        repeat: 5,
        quick: false,
        profile: "release",
        build: true,
    };
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value\n{USAGE}"));
        let number = |text: &String| {
            let value = text.parse().ok().filter(|count| *count > 0);
            value.ok_or(format!("{word} needs a number of at least 1\n{USAGE}"))
        };
        match word.as_str() {
            "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
            "--encoder" => options.encoder = Some(value()?.into()),
            "--subscribers" => options.subscribers = number(value()?)?,
            "--repeat" => options.repeat = number(value()?)?,
            "--quick" => (options.quick, options.repeat) = (true, 2),
            "--dev" => options.profile = "debug",
            "--no-build" => options.build = false,
            _ => return Err(format!("unknown option {word}\n{USAGE}")),
        }
    }
    if let Some(folder) = &options.encoder
        && !folder.is_dir()
    {
        return Err(format!("--encoder: {} is no folder", folder.display()));
    }
    let unknown = options.only.iter().find(|name| {
        let known = PARTS.iter().any(|(part, _)| part == name);
        !known
    });
    match unknown {
        Some(name) => Err(format!("--only: there is no part `{name}`\n{USAGE}")),
        None => Ok(options),
    }
}

/// A part of the benchmark.
type Part = (&'static str, fn(&mut Bench) -> Result<(), String>);

const PARTS: [Part; 6] = [
    ("gate", gate::measure),
    ("requests", requests::measure),
    ("memory", memory::measure),
    ("failover", failover::measure),
    ("resync", gate::resync),
    ("fanout", fanout::measure),
];

/// Runs the benchmark with the arguments after `bench mesh`.
pub fn run(args: &[String]) -> Result<(), String> {
    let options = parse(args)?;
    if options.build {
        build(&options)?;
    }
    let folder = target().join("bench/mesh");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    // A short run or a part does not take the place of a whole one.
    let name = match (options.quick, options.only.is_empty()) {
        (true, _) => "mesh-quick",
        (false, false) => "mesh-part",
        (false, true) => "mesh",
    };
    let results = match options.profile {
        "debug" => folder.clone(),
        _ => PathBuf::from("bench/results"),
    };
    let mut bench = Bench {
        report: Report::new(name).within(&results),
        folder,
        options,
    };
    bench.report.fact(
        "turns of each measurement",
        &bench.options.repeat.to_string(),
    );
    for (name, part) in PARTS {
        let only = &bench.options.only;
        if only.is_empty() || only.iter().any(|one| one == name) {
            part(&mut bench)?;
        }
    }
    println!("\nwritten to {}/", results.display());
    Ok(())
}

fn build(options: &Options) -> Result<(), String> {
    // The program by itself, so that it is the one that is shipped.
    let program = cargo(["build", "--package=hearth"]);
    let examples = cargo([
        "build",
        "--package=hearth-mesh",
        "--package=hearth-fanout",
        "--example=mesh_speed",
        "--example=fanout_clients",
        "--example=fanout_speed",
    ]);
    for mut command in [program, examples] {
        if options.profile == "release" {
            command.arg("--release");
        }
        succeed(&mut command)?;
    }
    Ok(())
}

struct Bench {
    report: Report,
    folder: PathBuf,
    options: Options,
}

impl Bench {
    /// The program that is measured.
    fn hearth(&self) -> PathBuf {
        target().join(self.options.profile).join("hearth")
    }

    fn example(&self, name: &str) -> PathBuf {
        let folder = target().join(self.options.profile).join("examples");
        folder.join(name)
    }

    fn worker(&self, name: &'static str) -> Result<Worker, String> {
        Worker::start(name, Command::new(self.example(name)))
    }

    /// Shows a table and keeps it.
    fn add(&mut self, table: Table) -> Result<(), String> {
        self.report.add(table)
    }
}

/// Times below which half and 95 of 100 lie.
fn quantiles(all: &[f64]) -> (f64, f64) {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let at = (sorted.len() * 95 / 100).min(last);
    (median(&sorted), sorted.get(at).copied().unwrap_or(f64::NAN))
}

/// The median of how much longer the second of each pair took.
fn added(pairs: &[(f64, f64)]) -> f64 {
    let each: Vec<f64> = pairs.iter().map(|(here, there)| there - here).collect();
    median(&each)
}

const NONE: &str = "–";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_tell_what_is_added() {
        assert_eq!(added(&[(1.0, 1.5), (10.0, 10.4), (5.0, 9.0)]), 0.5);
        let (half, most) = quantiles(&(1..=100).map(f64::from).collect::<Vec<_>>());
        assert_eq!((half, most), (50.5, 96.0));
    }

    #[test]
    fn a_part_that_is_none_is_named() {
        let words = ["--only".to_owned(), "gate,fan".to_owned()];
        let told = parse(&words).err().unwrap_or_default();
        assert!(told.contains("`fan`"), "{told}");
    }
}
