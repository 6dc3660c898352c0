//! `cargo xtask bench memory`: the encoder, the scan, the search, imports and the quality of retrieval, beside others.
//!
//! Two programs are asked in turn, question by question, so that the machine's mood meets both: the example
//! `memory_speed` of hearth-memory, and `bench_memory/peers/peers.py` with ONNX Runtime, numpy, faiss and usearch on the
//! same texts, vectors and threads. A figure is the median over all rounds; a ratio is the median of the ratios of the
//! turns. Results go to `bench/results/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::bench_serve::report::{median, output, show};
use crate::cargo::{cargo, root, succeed, target};
use crate::clients::python_environment;

mod http;
mod quality;
pub mod table;
pub mod worker;

use table::{Report, Table, count, milliseconds, times};
use worker::{Worker, numbers};

/// The peers' program and what it needs.
const PEERS: &str = "xtask/src/bench_memory/peers";
/// Lengths of texts in tokens.
const LENGTHS: [usize; 4] = [8, 16, 32, 128];
/// The int8 graphs of ONNX Runtime: its transformer optimiser's, and what it makes of the plain one by itself. Which is
/// the faster depends on the length of the text; the faster one is the peer.
const INT8: [&str; 2] = ["int8-fused", "int8-plain"];
/// Exact searches of others.
const SCANS: [(&str, &str); 4] = [
    ("numpy", "numpy, fp32"),
    ("faiss-flat", "faiss flat, fp32"),
    ("faiss-sq8", "faiss SQ8"),
    ("usearch", "usearch exact, int8"),
];
/// What article 43 of those the design began with measured: memories, p50, p95, in milliseconds, from another machine
/// over a private network, with the encoder on a graphics card.
const ARTICLE: [(usize, f64, f64); 6] = [
    (10, 35.9, 40.7),
    (100, 36.1, 41.2),
    (500, 36.3, 46.0),
    (1_000, 42.0, 51.1),
    (5_000, 40.6, 116.5),
    (10_000, 57.6, 131.9),
];
/// Neighbours of a vector in the graph of the peer, candidates while it is built, and the part of the ten nearest that a
/// search must find.
const CONNECTIVITY: usize = 16;
const EXPANSION: usize = 128;
const RECALL: f64 = 0.95;

const USAGE: &str = "\
usage: cargo xtask bench memory [options]
  --encoder FOLDER  all-MiniLM-L6-v2 or its like; without one only words are measured
  --peers FOLDER    a Python environment that has the peers (default: one is made in target/bench)
  --no-peers        our own figures alone
  --only NAMES      some of encode, scan, search, graph, import, quality, separated by commas
  --repeat N        turns of each measurement (default 9)
  --quick           3 turns, fewer and smaller stores
  --no-build        measure the release builds that are there: the example, and `hearth` for searches over HTTP";

struct Options {
    encoder: Option<PathBuf>,
    peers: Option<PathBuf>,
    with_peers: bool,
    only: Vec<String>,
    repeat: usize,
    quick: bool,
    build: bool,
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options {
        encoder: None,
        peers: None,
        with_peers: true,
        only: Vec::new(),
        repeat: 9,
        quick: false,
        build: true,
    };
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value\n{USAGE}"));
        match word.as_str() {
            "--encoder" => options.encoder = Some(value()?.into()),
            "--peers" => options.peers = Some(value()?.into()),
            "--no-peers" => options.with_peers = false,
            "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
            "--repeat" => {
                let value = value()?.parse().ok().filter(|count| *count > 0);
                options.repeat =
                    value.ok_or(format!("{word} needs a number of at least 1\n{USAGE}"))?;
            }
            "--quick" => (options.quick, options.repeat) = (true, 3),
            "--no-build" => options.build = false,
            _ => return Err(format!("unknown option {word}\n{USAGE}")),
        }
    }
    if let Some(folder) = &options.encoder
        && !folder.is_dir()
    {
        return Err(format!("--encoder: {} is no folder", folder.display()));
    }
    Ok(options)
}

/// A part of the benchmark: its name, whether it needs an encoder, and what it does.
type Part = (&'static str, bool, fn(&mut Bench) -> Result<(), String>);

/// Runs the benchmark with the arguments after `bench memory`.
pub fn run(args: &[String]) -> Result<(), String> {
    let options = parse(args)?;
    if options.build {
        succeed(&mut cargo([
            "build",
            "--release",
            "--package=hearth-memory",
            "--example=memory_speed",
        ]))?;
    }
    let only = &options.only;
    let searches = only.is_empty() || only.iter().any(|one| one == "search");
    if options.build && searches {
        succeed(&mut cargo(["build", "--release", "--package=hearth"]))?;
    }
    let folder = target().join("bench/memory");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let program = target().join("release/examples/memory_speed");
    let ours = Worker::start("memory_speed", Command::new(program))?;
    // A short run or a part does not take the place of a whole one.
    let name = match (options.quick, options.only.is_empty()) {
        (true, _) => "memory-quick",
        (false, false) => "memory-part",
        (false, true) => "memory",
    };
    let mut bench = Bench {
        ours,
        peers: None,
        kernels: Vec::new(),
        report: Report::new(name),
        folder,
        options,
    };
    bench.open()?;
    let is_encoder = bench.options.encoder.is_some();
    let parts: [Part; 6] = [
        ("encode", true, Bench::encode),
        ("scan", true, Bench::scan),
        ("search", false, Bench::search),
        ("graph", true, Bench::graph),
        ("import", false, Bench::import),
        ("quality", false, quality::measure),
    ];
    for (name, needs_encoder, part) in parts {
        let only = &bench.options.only;
        let is_wanted = only.is_empty() || only.iter().any(|one| one == name);
        if is_wanted && (is_encoder || !needs_encoder) {
            part(&mut bench)?;
        }
    }
    println!("\nwritten to bench/results/");
    Ok(())
}

struct Bench {
    ours: Worker,
    peers: Option<Worker>,
    /// Of the encoder, the fastest first.
    kernels: Vec<String>,
    report: Report,
    folder: PathBuf,
    options: Options,
}

/// Times below which half and 95 of 100 lie.
fn quantiles(all: &[f64]) -> (f64, f64) {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: usize| {
        let last = sorted.len().saturating_sub(1);
        sorted
            .get((sorted.len() * share / 100).min(last))
            .copied()
            .unwrap_or(f64::NAN)
    };
    (median(&sorted), at(95))
}

/// Times of one program, turn by turn.
#[derive(Default)]
struct Turns(Vec<Vec<f64>>);

impl Turns {
    fn all(&self) -> (f64, f64) {
        quantiles(&self.0.concat())
    }

    /// The median of how many times as long the other one took in each turn.
    fn times_of(&self, other: &Self) -> f64 {
        let turns = self.0.iter().zip(&other.0);
        let ratios: Vec<f64> = turns
            .map(|(ours, theirs)| median(theirs) / median(ours))
            .collect();
        median(&ratios)
    }
}

const NONE: &str = "–";

impl Bench {
    fn peer(&mut self) -> Option<&mut Worker> {
        self.peers.as_mut()
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Opens the encoder here and there, and notes what is measured.
    fn open(&mut self) -> Result<(), String> {
        self.report.fact(
            "turns of each measurement",
            &self.options.repeat.to_string(),
        );
        let Some(encoder) = self.options.encoder.clone() else {
            self.report.fact("encoder", "none: words alone");
            return Ok(());
        };
        let about = self.ours.ask(&json!({"do": "open", "folder": encoder}))?;
        let name = encoder.file_name().unwrap_or_default().to_string_lossy();
        self.report.fact(
            "encoder",
            &format!(
                "{name}, id {:.16}",
                about["id"].as_str().unwrap_or_default()
            ),
        );
        let kernels = about["kernels"].as_array().into_iter().flatten();
        self.kernels = kernels
            .filter_map(|kernel| kernel.as_str().map(ToOwned::to_owned))
            .collect();
        let kernel = about["kernel"].as_str().unwrap_or_default();
        self.report.fact("kernel", kernel);
        if !self.options.with_peers {
            return Ok(());
        }
        let python = match &self.options.peers {
            Some(folder) => folder.join("bin/python"),
            None => {
                let list = root().join(PEERS).join("requirements.txt");
                python_environment(&self.folder.join("python"), &list)?
            }
        };
        let mut command = Command::new(&python);
        command.arg(root().join(PEERS).join("peers.py"));
        let mut peers = Worker::start("peers.py", command)?;
        let versions = peers.ask(&json!({"do": "versions"}))?;
        self.report.fact("python", &output(&python, &["--version"]));
        for (name, version) in versions.as_object().into_iter().flatten() {
            self.report.fact(name, version.as_str().unwrap_or_default());
        }
        let open = json!({"do": "open", "folder": encoder, "out": self.folder});
        let opened = peers.ask(&open)?;
        for (graph, operators) in opened["operators"].as_object().into_iter().flatten() {
            let operators = operators.as_object().into_iter().flatten();
            let operators: Vec<String> = operators
                .map(|(name, count)| format!("{name} {count}"))
                .collect();
            self.report
                .fact(&format!("operators of {graph}.onnx"), &operators.join(", "));
        }
        self.peers = Some(peers);
        Ok(())
    }

    fn encode(&mut self) -> Result<(), String> {
        self.latency()?;
        self.kernels()?;
        self.throughput()?;
        self.cosine()
    }

    /// One text at a time on one thread.
    fn latency(&mut self) -> Result<(), String> {
        let mut table = Table::new(
            "Encode one text, one thread",
            "Milliseconds. Ours with the tokenizer; ONNX Runtime from token numbers, the faster of its two int8 graphs.",
            &[
                "tokens",
                "hearth p50",
                "p95",
                "ORT int8 p50",
                "p95",
                "ORT/hearth",
                "ORT fp32 p50",
                "p95",
                "ORT/hearth",
            ],
        );
        let graphs: Vec<&str> = INT8.into_iter().chain(["fp32"]).collect();
        for tokens in LENGTHS {
            let ask = json!({"do": "texts", "tokens": tokens, "count": 32});
            let texts = self.ours.ask(&ask)?["texts"].take();
            let rounds = (2048 / tokens.max(16)).clamp(16, 128);
            let mut ours = Turns::default();
            let mut theirs: Vec<Turns> = graphs.iter().map(|_| Turns::default()).collect();
            for _ in 0..self.options.repeat {
                let encode = json!({"do": "encode", "texts": texts, "rounds": rounds});
                ours.0.push(self.ours.times(&encode)?);
                let Some(peer) = &mut self.peers else {
                    continue;
                };
                for (graph, turns) in graphs.iter().zip(&mut theirs) {
                    let mut encode = encode.clone();
                    encode["graph"] = (*graph).into();
                    let answer = peer.ask(&encode)?;
                    if numbers(&answer["tokens"]) != [tokens as f64] {
                        return Err(format!("the peer has other tokens: {}", answer["tokens"]));
                    }
                    turns.0.push(numbers(&answer["times"]));
                }
            }
            let (half, most) = ours.all();
            let mut cells = vec![tokens.to_string(), milliseconds(half), milliseconds(most)];
            let (int8, fp32) = theirs.split_at(INT8.len());
            let best = int8.iter().min_by(|a, b| a.all().0.total_cmp(&b.all().0));
            for turns in best.into_iter().chain(fp32) {
                if turns.0.is_empty() {
                    cells.extend([NONE, NONE, NONE].map(str::to_owned));
                    continue;
                }
                let (half, most) = turns.all();
                cells.extend([
                    milliseconds(half),
                    milliseconds(most),
                    times(ours.times_of(turns)),
                ]);
            }
            table.row(cells);
        }
        self.report.add(table)
    }

    /// What other processors would do it with, as far as this one can.
    fn kernels(&mut self) -> Result<(), String> {
        let (notes, questions) = self.vectors(10_000)?;
        let mut table = Table::new(
            "Kernels of this machine, one thread",
            "Milliseconds.",
            &[
                "kernel",
                "encode 16 tokens p50",
                "p95",
                "scan 10,000 p50",
                "p95",
            ],
        );
        let ask = json!({"do": "texts", "tokens": 16, "count": 32});
        let texts = self.ours.ask(&ask)?["texts"].take();
        for kernel in self.kernels.clone() {
            let rounds = if kernel == "portable" { 8 } else { 64 };
            let encode =
                json!({"do": "encode", "texts": texts, "rounds": rounds, "kernel": kernel});
            let scan = json!({
                "do": "scan", "notes": notes, "questions": questions, "count": 10_000, "rounds": rounds,
                "kernel": kernel,
            });
            let (mut encodes, mut scans) = (Turns::default(), Turns::default());
            for _ in 0..self.options.repeat {
                encodes.0.push(self.ours.times(&encode)?);
                scans.0.push(self.ours.times(&scan)?);
            }
            let figures = [encodes.all(), scans.all()];
            let figures = figures.iter().flat_map(|(half, most)| [half, most]);
            let cells = figures.map(|figure| milliseconds(*figure));
            table.row([kernel].into_iter().chain(cells).collect());
        }
        self.report.add(table)
    }

    /// Many texts together.
    fn throughput(&mut self) -> Result<(), String> {
        let mut table = Table::new(
            "Encode many texts",
            "Sentences of 3 to 35 tokens, tokenizer included on both sides. ONNX Runtime at its best of two int8 graphs \
             and of batches of 1, 8 and 32, sorted by length.",
            &[
                "threads",
                "hearth texts/s",
                "tokens/s",
                "ORT int8 texts/s",
                "hearth/ORT",
                "ORT fp32 texts/s",
                "hearth/ORT",
            ],
        );
        let number = if self.options.quick { 200 } else { 600 };
        let ask = json!({"do": "sentences", "count": number});
        let texts = self.ours.ask(&ask)?["texts"].take();
        for threads in [1, 2] {
            let (mut ours, mut tokens) = (Vec::new(), Vec::new());
            let mut theirs: Vec<((&str, usize), Vec<f64>)> = INT8
                .into_iter()
                .chain(["fp32"])
                .flat_map(|graph| [1, 8, 32].map(|size| ((graph, size), Vec::new())))
                .collect();
            for _ in 0..self.options.repeat.div_ceil(3) {
                let batch = json!({"do": "batch", "texts": texts, "threads": threads});
                let answer = self.ours.ask(&batch)?;
                ours.push(answer["texts"].as_f64().unwrap_or_default());
                tokens.push(answer["tokens"].as_f64().unwrap_or_default());
                let Some(peer) = &mut self.peers else {
                    continue;
                };
                for ((graph, size), rates) in &mut theirs {
                    let mut batch = batch.clone();
                    batch["graph"] = (*graph).into();
                    batch["size"] = (*size).into();
                    rates.push(peer.ask(&batch)?["texts"].as_f64().unwrap_or_default());
                }
            }
            let best = |is_float: bool| {
                let graphs = theirs.iter();
                let graphs = graphs.filter(|((graph, _), _)| (*graph == "fp32") == is_float);
                graphs
                    .map(|(_, rates)| median(rates))
                    .fold(f64::NAN, f64::max)
            };
            let mine = median(&ours);
            let mut cells = vec![threads.to_string(), show(mine), show(median(&tokens))];
            for rate in [best(false), best(true)] {
                match rate.is_nan() {
                    true => cells.extend([NONE, NONE].map(str::to_owned)),
                    false => cells.extend([show(rate), times(mine / rate)]),
                }
            }
            table.row(cells);
        }
        self.report.add(table)
    }

    /// How far the vectors are from those of 32-bit floats.
    fn cosine(&mut self) -> Result<(), String> {
        if self.peers.is_none() {
            return Ok(());
        }
        let number = if self.options.quick { 100 } else { 1000 };
        let ask = json!({"do": "sentences", "count": number});
        let texts = self.ours.ask(&ask)?["texts"].take();
        let (ours, reference) = (self.path("ours.f32"), self.path("reference.f32"));
        self.ours
            .ask(&json!({"do": "compare", "texts": texts, "ours": ours, "reference": reference}))?;
        let graphs: Vec<&str> = INT8.into_iter().chain(["fp32"]).collect();
        let ask = json!({"do": "compare", "texts": texts, "ours": ours, "reference": reference, "graphs": graphs});
        let Some(peer) = self.peer() else {
            return Ok(());
        };
        let answer = peer.ask(&ask)?;
        let mut table = Table::new(
            &format!("Cosine to 32-bit floats, {} sentences", count(number)),
            "Of the same model computed plainly in 32-bit floats; that ONNX Runtime's fp32 is at 1 shows that its graph is \
             the same model.",
            &["", "mean", "least"],
        );
        for (name, graph) in [
            ("hearth int8", "hearth"),
            ("ORT int8, fused", INT8[0]),
            ("ORT int8, plain", INT8[1]),
            ("ORT fp32", "fp32"),
        ] {
            let figure = |part: &str| {
                let value = answer[graph][part].as_f64().unwrap_or(f64::NAN);
                format!("{value:.5}")
            };
            table.row(vec![name.into(), figure("mean"), figure("least")]);
        }
        table.keep(answer);
        self.report.add(table)
    }

    /// Writes vectors of notes and questions, if they are not there from an earlier run with this encoder.
    fn vectors(&mut self, number: usize) -> Result<(Value, Value), String> {
        let (notes, questions) = (self.path("notes.f32"), self.path("questions.f32"));
        let made = self.ours.ask(&json!({
            "do": "vectors", "count": number, "queries": 200, "notes": notes, "questions": questions,
        }))?;
        if made["seconds"]
            .as_f64()
            .is_some_and(|seconds| seconds > 1.0)
        {
            println!("\n{} vectors were made", count(number));
        }
        Ok((notes.into(), questions.into()))
    }

    /// The exact scan, beside others and beside a loop that only reads.
    fn scan(&mut self) -> Result<(), String> {
        let sizes: &[usize] = match self.options.quick {
            true => &[1_000, 10_000],
            false => &[1_000, 10_000, 100_000],
        };
        let (notes, questions) = self.vectors(sizes[sizes.len() - 1])?;
        let mut table = Table::new(
            "Exact scan for the 10 nearest, one thread, 384 dimensions",
            "A plain read is a loop over the same bytes in the same process.",
            &[
                "vectors",
                "what",
                "p50 ms",
                "p95 ms",
                "of hearth",
                "GB/s",
                "share of a plain read",
            ],
        );
        for &size in sizes {
            let rounds = (2_000_000 / size).clamp(10, 200);
            let ask = json!({"do": "scan", "notes": notes, "questions": questions, "count": size, "rounds": rounds});
            let (mut ours, mut reads) = (Turns::default(), Turns::default());
            let mut theirs = SCANS.map(|_| Turns::default());
            for _ in 0..self.options.repeat {
                let answer = self.ours.ask(&ask)?;
                ours.0.push(numbers(&answer["times"]));
                reads.0.push(numbers(&answer["reads"]));
            }
            for ((what, _), turns) in SCANS.iter().zip(&mut theirs) {
                for _ in 0..self.options.repeat {
                    let Some(peer) = &mut self.peers else {
                        continue;
                    };
                    let mut ask = ask.clone();
                    ask["what"] = (*what).into();
                    turns.0.push(peer.times(&ask)?);
                }
            }
            let (half, most) = ours.all();
            let rate = |time: f64| format!("{:.1}", (size * 384) as f64 / time / 1e6);
            table.row(vec![
                count(size),
                "hearth int8".into(),
                milliseconds(half),
                milliseconds(most),
                times(1.0),
                rate(half),
                format!("{:.2}", ours.times_of(&reads)),
            ]);
            let (half, most) = reads.all();
            let plain = ["plain read".into(), milliseconds(half), milliseconds(most)];
            let mut cells = vec![count(size)];
            cells.extend(plain);
            cells.extend([NONE.into(), rate(half), "1.00".into()]);
            table.row(cells);
            for ((_, name), turns) in SCANS.iter().zip(&theirs) {
                if turns.0.is_empty() {
                    continue;
                }
                let (half, most) = turns.all();
                table.row(vec![
                    count(size),
                    (*name).into(),
                    milliseconds(half),
                    milliseconds(most),
                    times(ours.times_of(turns)),
                    NONE.into(),
                    NONE.into(),
                ]);
            }
        }
        self.report.add(table)?;
        let mut table = Table::new(
            "Recall@10 of the int8 scan against 32-bit floats",
            "Rescored: the best 40 of the scan are compared in full precision, as a search does.",
            &["vectors", "int8 alone", "rescored"],
        );
        for &size in sizes {
            let ask =
                json!({"do": "recall", "notes": notes, "questions": questions, "count": size});
            let answer = self.ours.ask(&ask)?;
            let figure = |part: &str| format!("{:.4}", answer[part].as_f64().unwrap_or(f64::NAN));
            table.row(vec![count(size), figure("alone"), figure("rescored")]);
        }
        self.report.add(table)
    }

    /// The scan beside an approximate index, size by size, and where the index begins to win.
    fn graph(&mut self) -> Result<(), String> {
        if self.peers.is_none() {
            return Ok(());
        }
        let sizes: &[usize] = match self.options.quick {
            true => &[1_000, 5_000, 20_000],
            false => &[
                1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000,
            ],
        };
        let (notes, questions) = self.vectors(sizes[sizes.len() - 1])?;
        let mut table = Table::new(
            "Exact scan beside an approximate index (usearch HNSW, int8), one thread",
            "Milliseconds for 40 candidates, of which the best 10 by 32-bit floats. Narrow: the narrowest search that finds 95 \
             of 100 of the true ones. Broad: the breadth that Hearth uses, for data that are not so easy. Without \
             Python's own time.",
            &[
                "vectors",
                "scan",
                "index, narrow",
                "scan/index",
                "recall@10",
                "breadth",
                "index, broad",
                "scan/index",
                "built in s",
                "MB",
            ],
        );
        let (mut narrow, mut broad) = (Vec::new(), Vec::new());
        for &size in sizes {
            let graph = json!({
                "do": "graph", "notes": notes, "questions": questions, "size": size, "recall": RECALL,
                "connectivity": CONNECTIVITY, "expansion": EXPANSION, "broad": EXPANSION,
            });
            let scan = json!({
                "do": "scan", "notes": notes, "questions": questions, "count": size,
                "rounds": (2_000_000 / size).clamp(10, 200),
            });
            let mut turns: [Turns; 3] = Default::default();
            let mut found = Value::Null;
            for _ in 0..self.options.repeat {
                let Some(peer) = &mut self.peers else { break };
                found = peer.ask(&graph)?;
                turns[0].0.push(self.ours.times(&scan)?);
                turns[1].0.push(numbers(&found["times"]));
                turns[2].0.push(numbers(&found["times_broad"]));
            }
            let [ours, by_narrow, by_broad] = &turns;
            for (ratios, theirs) in [(&mut narrow, by_narrow), (&mut broad, by_broad)] {
                ratios.push((size as f64, theirs.times_of(ours)));
            }
            let figure = |part: &str| found[part].as_f64().unwrap_or(f64::NAN);
            table.row(vec![
                count(size),
                milliseconds(ours.all().0),
                milliseconds(by_narrow.all().0),
                times(by_narrow.times_of(ours)),
                format!("{:.3}", figure("recall")),
                figure("breadth").to_string(),
                milliseconds(by_broad.all().0),
                times(by_broad.times_of(ours)),
                format!("{:.1}", figure("build_seconds")),
                show(figure("bytes") / 1e6),
            ]);
        }
        let even = |ratios: &[(f64, f64)]| {
            break_even(ratios).map_or("beyond the largest size".into(), |size| {
                format!("{} vectors", count(size))
            })
        };
        let even = format!("narrow: {}; broad: {}", even(&narrow), even(&broad));
        table.keep(json!({"break_even": even, "narrow": narrow, "broad": broad}));
        self.report.fact("the approximate index wins from", &even);
        self.report.add(table)?;
        println!("  the index wins from, {even}");
        Ok(())
    }

    /// Searches through the store's door.
    fn search(&mut self) -> Result<(), String> {
        let sizes: &[usize] = match self.options.quick {
            true => &[10, 100, 500, 1_000, 5_000],
            false => &[10, 100, 500, 1_000, 5_000, 10_000, 100_000],
        };
        let asked = if self.options.quick { 60 } else { 300 };
        let mut table = Table::new(
            "Search end to end, ten memories wanted, every question new",
            "Milliseconds, from the question's text to the memories, in process, with the encoder; over HTTP by `POST \
             /memory/search` of a node on this machine, on one connection. The article's are another's, measured over a \
             network between two machines.",
            &[
                "memories",
                "p50",
                "p95",
                "p95/p50",
                "in a project p50",
                "p95",
                "article p50",
                "p95",
            ],
        );
        let folder = self.path("search");
        self.ours
            .ask(&json!({"do": "store", "folder": folder, "threads": 0}))?;
        for &size in sizes {
            self.ours
                .ask(&json!({"do": "grow", "to": size, "form": "lines"}))?;
            let mut cells = vec![count(size)];
            for project in [false, true] {
                let ask = json!({"do": "search", "count": asked, "project": project});
                let (half, most) = quantiles(&self.ours.times(&ask)?);
                cells.extend([milliseconds(half), milliseconds(most)]);
                if !project {
                    cells.push(times(most / half));
                }
            }
            let theirs = ARTICLE.iter().find(|(memories, ..)| *memories == size);
            cells.extend(match theirs {
                Some((_, half, most)) => [show(*half), show(*most)],
                None => [NONE, NONE].map(str::to_owned),
            });
            table.row(cells);
        }
        let size = if self.options.quick { 1_000 } else { 10_000 };
        let [all, of_project] = http::searches(self, size, asked)?.map(|times| quantiles(&times));
        let mut cells = vec![format!("{}, over HTTP", count(size))];
        cells.extend([
            milliseconds(all.0),
            milliseconds(all.1),
            times(all.1 / all.0),
        ]);
        cells.extend([milliseconds(of_project.0), milliseconds(of_project.1)]);
        cells.extend([NONE, NONE].map(str::to_owned));
        table.row(cells);
        self.report.add(table)
    }

    /// How fast memories come in.
    fn import(&mut self) -> Result<(), String> {
        let number = if self.options.quick { 500 } else { 5_000 };
        let folder = self.path("import");
        let mut table = Table::new(
            "Remembering",
            "Notes of about 20 tokens, encoded, stored and indexed.",
            &["what", "memories/s", "p50 ms", "p95 ms"],
        );
        for (form, name) in [("lines", "JSON lines"), ("markdown", "Markdown folder")] {
            for threads in [1, 2] {
                let store = json!({"do": "store", "folder": folder, "threads": threads});
                self.ours.ask(&store)?;
                let grow = json!({"do": "grow", "to": number, "form": form});
                let rate = self.ours.ask(&grow)?["rate"].as_f64().unwrap_or(f64::NAN);
                let threads = if threads == 1 {
                    "1 thread"
                } else {
                    "2 threads"
                };
                let what = format!("import of {name}, {threads}");
                table.row(vec![what, show(rate), NONE.into(), NONE.into()]);
            }
        }
        let ask = json!({"do": "add", "count": if self.options.quick { 50 } else { 500 }});
        let all = self.ours.times(&ask)?;
        let (half, most) = quantiles(&all);
        let rate = all.len() as f64 / all.iter().sum::<f64>() * 1e3;
        let what = format!("one by one, on the disk, among {}", count(number));
        let cells = [show(rate), milliseconds(half), milliseconds(most)];
        table.row([vec![what], cells.to_vec()].concat());
        self.report.add(table)
    }
}

/// Where a ratio that grows with the size passes one for good, between the sizes that were measured, which are taken as
/// joined by lines in logarithms.
fn break_even(ratios: &[(f64, f64)]) -> Option<usize> {
    let last = ratios.iter().rposition(|(_, ratio)| *ratio < 1.0);
    let Some(below) = last else {
        return ratios.first().map(|(size, _)| *size as usize);
    };
    let ((from, low), (to, high)) = (ratios[below], *ratios.get(below + 1)?);
    let share = -low.ln() / (high.ln() - low.ln());
    let size = (from.ln() + share * (to.ln() - from.ln())).exp();
    Some(size as usize)
}

/// The labelled questions.
fn questions() -> &'static Path {
    Path::new("bench/retrieval")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_break_even_lies_between_the_sizes_around_it() {
        assert_eq!(
            break_even(&[(1e3, 0.5), (1e4, 0.5), (1e6, 2.0)]),
            Some(100_000)
        );
        assert_eq!(break_even(&[(1e3, 0.5), (1e4, 0.9)]), None);
        assert_eq!(break_even(&[(1e3, 2.0), (1e4, 9.0)]), Some(1000));
    }

    #[test]
    fn quantiles_of_few_and_many() {
        let many: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantiles(&many), (50.5, 96.0));
        assert_eq!(quantiles(&[3.0]), (3.0, 3.0));
        assert!(quantiles(&[]).0.is_nan());
    }
}
