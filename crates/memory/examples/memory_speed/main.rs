//! The measuring half of `cargo xtask bench memory`: reads commands, a JSON object a line, and answers each with a line.
//!
//! `cargo run --release -p hearth-memory --example memory_speed` starts it; what it is asked, and in what order, is in
//! `xtask/src/bench_memory.rs`, which asks programs of others the same in between. [`Command`] lists what there is.
//! Times are milliseconds, sizes are counts of what the command names.

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

mod encode;
mod haystack;
mod quality;
mod relevance;
mod scan;
mod score;
mod search;
mod texts;

type Answer = Result<Value, Box<dyn Error>>;

/// What can be asked.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    /// Opens the encoder in a folder.
    Open { folder: PathBuf },
    /// Texts of exactly so many tokens.
    Texts { tokens: usize, count: usize },
    /// Sentences of some length, as people write them.
    Sentences { count: usize },
    /// How long each of the texts takes, `rounds` texts in all, on one thread.
    Encode {
        texts: Vec<String>,
        rounds: usize,
        kernel: Option<String>,
    },
    /// Texts and tokens a second when all are encoded together.
    Batch { texts: Vec<String>, threads: usize },
    /// Writes the vectors of the texts, and those of the pass in 32-bit floats, as 32-bit floats.
    Compare {
        texts: Vec<String>,
        ours: PathBuf,
        reference: PathBuf,
    },
    /// Writes the vectors of `count` notes as 32-bit floats, unless the file is there and as long, and those of
    /// `queries` questions.
    Vectors {
        count: usize,
        queries: usize,
        notes: PathBuf,
        questions: PathBuf,
    },
    /// How long a scan of the first `count` vectors takes, beside a loop that only reads them.
    Scan {
        notes: PathBuf,
        questions: PathBuf,
        count: usize,
        rounds: usize,
        kernel: Option<String>,
    },
    /// Which part of the ten nearest by 32-bit floats the scan finds, alone and with candidates compared in full.
    Recall {
        notes: PathBuf,
        questions: PathBuf,
        count: usize,
    },
    /// Generated notes as lines of an import, and questions: each with its project.
    Notes { count: usize, questions: usize },
    /// Makes an empty store; `threads` of the encoder for imports (0: all cores).
    Store { folder: PathBuf, threads: usize },
    /// Imports generated notes until the store holds `to`: seconds and rate.
    Grow { to: usize, form: search::Form },
    /// How long searches take, each a new question.
    Search { count: usize, project: bool },
    /// How long it takes to remember one thing more.
    Add { count: usize },
    /// Retrieval quality of the labelled questions, and the ablation of the fusion.
    Quality { folder: PathBuf },
    /// What rules for what is related hide and let through, of the labelled questions and of short notes.
    Relevance { folder: PathBuf },
    /// Retrieval quality with each question's evidence among so many sessions.
    Haystack { sessions: usize, questions: usize },
}

fn main() {
    let mut worker = Worker::default();
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let answer = match serde_json::from_str(&line) {
            Ok(command) => worker.run(command),
            Err(error) => Err(error.into()),
        };
        let answer = answer.unwrap_or_else(|error| json!({"error": error.to_string()}));
        if writeln!(out, "{answer}")
            .and_then(|()| out.flush())
            .is_err()
        {
            break;
        }
    }
}

#[derive(Default)]
struct Worker {
    encoder: Option<encode::Opened>,
    store: Option<search::Stored>,
}

impl Worker {
    fn encoder(&self) -> Result<&encode::Opened, Box<dyn Error>> {
        Ok(self.encoder.as_ref().ok_or("no encoder is open")?)
    }

    fn store(&mut self) -> Result<&mut search::Stored, Box<dyn Error>> {
        Ok(self.store.as_mut().ok_or("no store is open")?)
    }

    fn run(&mut self, command: Command) -> Answer {
        match command {
            Command::Open { folder } => {
                let opened = encode::Opened::new(&folder)?;
                let about = opened.about();
                self.encoder = Some(opened);
                Ok(about)
            }
            Command::Texts { tokens, count } => self.encoder()?.texts(tokens, count),
            Command::Sentences { count } => Ok(json!({"texts": texts::sentences(count)})),
            Command::Notes { count, questions } => {
                let of = |text: fn(usize) -> String, count: usize| -> Vec<Value> {
                    let one = |n| json!({"text": text(n), "project": texts::project(n)});
                    (0..count).map(one).collect()
                };
                Ok(
                    json!({"notes": of(texts::note, count), "questions": of(texts::question, questions)}),
                )
            }
            Command::Encode {
                texts,
                rounds,
                kernel,
            } => self.encoder()?.encode(&texts, rounds, kernel.as_deref()),
            Command::Batch { texts, threads } => self.encoder()?.batch(&texts, threads),
            Command::Compare {
                texts,
                ours,
                reference,
            } => self.encoder()?.compare(&texts, &ours, &reference),
            Command::Vectors {
                count,
                queries,
                notes,
                questions,
            } => self.encoder()?.vectors(count, queries, &notes, &questions),
            Command::Scan {
                notes,
                questions,
                count,
                rounds,
                kernel,
            } => scan::time(&notes, &questions, count, rounds, kernel.as_deref()),
            Command::Recall {
                notes,
                questions,
                count,
            } => scan::recall(&notes, &questions, count),
            Command::Store { folder, threads } => {
                let encoder = self
                    .encoder
                    .as_ref()
                    .map(|opened| opened.with_threads(threads));
                self.store = None;
                self.store = Some(search::Stored::new(&folder, encoder)?);
                Ok(json!({}))
            }
            Command::Grow { to, form } => self.store()?.grow(to, form),
            Command::Search { count, project } => self.store()?.search(count, project),
            Command::Add { count } => self.store()?.add(count),
            Command::Quality { folder } => {
                let encoder = self.encoder.as_ref().map(|opened| opened.with_threads(0));
                quality::measure(&folder, encoder)
            }
            Command::Relevance { folder } => {
                let encoder = self.encoder()?.with_threads(0);
                relevance::measure(&folder, &encoder)
            }
            Command::Haystack {
                sessions,
                questions,
            } => {
                let encoder = self.encoder.as_ref().map(|opened| opened.with_threads(0));
                haystack::measure(sessions, questions, encoder)
            }
        }
    }
}

/// Times how long each of `rounds` calls takes, in milliseconds, after some that are not counted.
fn times<E>(
    rounds: usize,
    warm_up: usize,
    mut work: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<f64>, E> {
    let mut times = Vec::with_capacity(rounds);
    for round in 0..rounds + warm_up {
        let start = std::time::Instant::now();
        work(round)?;
        if round >= warm_up {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(times)
}
