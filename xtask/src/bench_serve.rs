//! `cargo xtask bench serve`: how fast a node answers, beside llama-server on the same model and threads.
//!
//! Both servers run at once on the same random-weight GGUF and are asked in turn, so that the machine's mood meets
//! both; a row is the median over the repeats. Whoever is not asked is idle. Without `--llama-server PATH` only our own
//! figures are printed. Results go to `bench/results/`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

pub mod client;
pub mod report;

use client::{Answer, Server, free_port};
use report::{Better, Report, Row};

/// Sequences both servers decode at once.
const SLOTS: usize = 4;
/// Tokens one sequence may have.
const CONTEXT: usize = 4096;
/// Prefixes for [`SLOTS`] slots.
const PREFIXES: usize = 16;
/// Words of a prompt of about 1,000 tokens.
const LONG: usize = 600;
/// Words of a short prompt.
const SHORT: usize = 16;

const USAGE: &str = "\
usage: cargo xtask bench serve [options]
  --llama-server PATH  measure this llama-server beside the node
  --shape NAME         qwen3-0.6b (default) or tiny
  --quant NAME         Q4_K_M, Q8_0 or F16; several separated by commas (default Q4_K_M,Q8_0)
  --repeat N           samples per row (default 5)
  --threads N          compute threads (default: physical cores)
  --quick              2 samples and shorter answers
  --no-build           measure the release executable that is there";

struct Options {
    peer: Option<PathBuf>,
    shape: String,
    quants: Vec<String>,
    repeat: usize,
    threads: usize,
    answer: usize,
    build: bool,
}

/// Runs the benchmark with the arguments after `bench serve`.
pub fn run(args: &[String]) -> Result<(), String> {
    let options = parse(args)?;
    let target =
        PathBuf::from(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
    if options.build {
        cargo(&[
            "build",
            "--release",
            "--package",
            "hearth",
            "--package",
            "hearth-testkit",
            "--bin",
            "hearth",
            "--examples",
        ])?;
    }
    let hearth = target.join("release/hearth");

    let mut report = Report::new(
        &hearth,
        options.peer.as_deref(),
        options.threads,
        options.repeat,
    )?;
    // What is short comes first, and every section is kept as soon as it is measured.
    let name = format!("serve-{}", options.shape);
    println!("\nnode");
    let mut rows = process(&options, &hearth, &target)?;
    rows.extend(overhead(&target)?);
    report.section("node", rows);
    report.write(&name)?;
    for quant in &options.quants {
        let model = model(&options.shape, quant, &target)?;
        println!("\n{} {quant}", options.shape);
        let rows = measure(&options, &hearth, &model, &target)?;
        report.section(&format!("{} {quant}", options.shape), rows);
        report.write(&name)?;
    }
    Ok(())
}

/// The random-weight model of that shape, written if it is not there yet.
fn model(shape: &str, quant: &str, target: &Path) -> Result<PathBuf, String> {
    let path = target.join("bench").join(format!("{shape}-{quant}.gguf"));
    if !path.is_file() {
        std::fs::create_dir_all(target.join("bench")).map_err(|error| error.to_string())?;
        let name = path.display().to_string();
        let status = example(target, "write_gguf")
            .args([shape, quant, &name])
            .status();
        if !status
            .map_err(|error| format!("write_gguf: {error}"))?
            .success()
        {
            return Err(format!("{name} could not be written"));
        }
    }
    std::path::absolute(path).map_err(|error| error.to_string())
}

/// One of the testkit's examples, built with the node.
fn example(target: &Path, name: &str) -> Command {
    Command::new(target.join("release/examples").join(name))
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options {
        peer: None,
        shape: "qwen3-0.6b".into(),
        quants: vec!["Q4_K_M".into(), "Q8_0".into()],
        repeat: 5,
        threads: physical_cores(),
        answer: 128,
        build: true,
    };
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value\n{USAGE}"));
        let number = |text: &String| {
            text.parse()
                .map_err(|_| format!("{word}: `{text}` is not a number\n{USAGE}"))
        };
        match word.as_str() {
            "--llama-server" => options.peer = Some(value()?.into()),
            "--shape" => options.shape = value()?.clone(),
            "--quant" => options.quants = value()?.split(',').map(str::to_owned).collect(),
            "--repeat" => options.repeat = number(value()?)?,
            "--threads" => options.threads = number(value()?)?,
            "--no-build" => options.build = false,
            "--quick" => (options.repeat, options.answer) = (2, 48),
            _ => return Err(format!("unknown option {word}\n{USAGE}")),
        }
    }
    match options.repeat == 0 || options.threads == 0 {
        true => Err(format!(
            "--repeat and --threads must be at least 1\n{USAGE}"
        )),
        false => Ok(options),
    }
}

fn physical_cores() -> usize {
    // Lines `physical id` and `core id` name each logical processor's core.
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut cores = std::collections::BTreeSet::new();
    let mut package = "";
    for line in info.lines() {
        match line.split_once(':') {
            Some((name, value)) if name.trim() == "physical id" => package = value,
            Some((name, value)) if name.trim() == "core id" => drop(cores.insert((package, value))),
            _ => {}
        }
    }
    match cores.len() {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        cores => cores,
    }
}

fn cargo(args: &[&str]) -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(args)
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    status
        .success()
        .then_some(())
        .ok_or(format!("cargo {} failed", args.join(" ")))
}

/// A folder that is empty now.
fn fresh(path: PathBuf) -> Result<PathBuf, String> {
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// A node with the settings of the benchmark; without a model, the embedded one answers.
fn start_hearth(
    hearth: &Path,
    model: Option<&Path>,
    threads: usize,
    home: PathBuf,
) -> Result<Server, String> {
    let port = free_port()?;
    let mut command = Command::new(hearth);
    command
        .arg("serve")
        .arg("--home")
        .arg(&home)
        .arg("--config")
        .arg(home.join("none.toml"));
    std::fs::write(home.join("none.toml"), "")
        .map_err(|error| format!("{}: {error}", home.display()))?;
    command.args([
        "--host",
        &format!("127.0.0.1:{port}"),
        "--keep-alive",
        "never",
    ]);
    command.args([
        "--threads",
        &threads.to_string(),
        "--slots",
        &SLOTS.to_string(),
    ]);
    command.args(["--context", &CONTEXT.to_string()]);
    if let Some(model) = model {
        command.arg("--model").arg(model);
    }
    Server::start(command, port, &home.join("log"))
}

fn start_peer(
    program: &Path,
    model: &Path,
    threads: usize,
    home: PathBuf,
) -> Result<Server, String> {
    let port = free_port()?;
    let mut command = Command::new(program);
    command
        .arg("--model")
        .arg(model)
        .args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    command.args([
        "--threads",
        &threads.to_string(),
        "--parallel",
        &SLOTS.to_string(),
    ]);
    command.args(["--ctx-size", &(SLOTS * CONTEXT).to_string()]);
    Server::start(command, port, &home.join("log"))
}

/// The rows that need a model of real size.
fn measure(
    options: &Options,
    hearth: &Path,
    model: &Path,
    target: &Path,
) -> Result<Vec<Row>, String> {
    let home = fresh(target.join("bench/hearth"))?;
    let mut servers = vec![start_hearth(hearth, Some(model), options.threads, home)?];
    if let Some(peer) = &options.peer {
        let home = fresh(target.join("bench/peer"))?;
        servers.push(start_peer(peer, model, options.threads, home)?);
    }
    for server in &mut servers {
        server.wait_until_it_answers()?;
    }
    let mut bench = Bench {
        servers,
        repeat: options.repeat,
        answer: options.answer,
        seed: 0,
    };
    let mut rows = vec![
        bench.row(
            "decode, 1 stream",
            "tok/s",
            Better::More,
            "≥ 1.0 ×",
            |bench, server, seed| {
                Ok(bench
                    .completion(server, &words(seed, SHORT), bench.answer)?
                    .decode_rate())
            },
        )?,
        bench.row(
            "decode, 4 streams together",
            "tok/s",
            Better::More,
            "",
            |bench, server, seed| {
                let answers = bench.streams(server, seed, SHORT, bench.answer)?;
                // From where all of them decode to where the first is done: what comes before and after is not four.
                Ok(answers.iter().map(Answer::decode_rate).sum())
            },
        )?,
        bench.busy()?,
        bench.row(
            "prefill, 4 streams together",
            "tok/s",
            Better::More,
            "",
            |bench, server, seed| {
                let answers = bench.streams(server, seed, LONG, 1)?;
                let slowest = answers
                    .iter()
                    .map(|answer| answer.first)
                    .max()
                    .unwrap_or_default();
                Ok(answers
                    .iter()
                    .map(|answer| answer.prompt_tokens)
                    .sum::<u64>() as f64
                    / slowest.as_secs_f64())
            },
        )?,
        bench.row(
            "first token, warm prefix of 1,000",
            "ms",
            Better::Less,
            "",
            |bench, server, seed| {
                let prefix = words(seed, LONG);
                bench.completion(server, &format!("{prefix}{}", words(seed + 1, 8)), 1)?;
                Ok(milliseconds(
                    bench
                        .completion(server, &format!("{prefix}{}", words(seed + 2, 8)), 1)?
                        .first,
                ))
            },
        )?,
    ];
    rows.extend(bench.cold()?);
    rows.extend(bench.prefixes()?);
    rows.extend(bench.constrained()?);
    Ok(rows)
}

struct Bench {
    servers: Vec<Server>,
    repeat: usize,
    answer: usize,
    seed: u64,
}

impl Bench {
    /// Samples every server in turn and takes the medians. Each sample has its own seed, the same for every server.
    fn row(
        &mut self,
        what: &str,
        unit: &'static str,
        better: Better,
        aim: &'static str,
        sample: impl Fn(&Self, &Server, u64) -> Result<f64, String>,
    ) -> Result<Row, String> {
        let mut samples = vec![Vec::new(); self.servers.len()];
        for round in 0..self.repeat {
            self.seed += 100;
            for turn in 0..self.servers.len() {
                let index = (turn + round) % self.servers.len();
                samples[index].push(sample(self, &self.servers[index], self.seed)?);
            }
        }
        let row = Row::new(what, unit, better, aim, samples);
        println!("  {}", row.line());
        Ok(row)
    }

    fn completion(&self, server: &Server, prompt: &str, tokens: usize) -> Result<Answer, String> {
        server.ask(
            "/v1/completions",
            json!({"prompt": prompt, "max_tokens": tokens, "temperature": 0}),
        )
    }

    /// As many requests at once as there are slots.
    fn streams(
        &self,
        server: &Server,
        seed: u64,
        length: usize,
        tokens: usize,
    ) -> Result<Vec<Answer>, String> {
        let together = Barrier::new(SLOTS);
        let request = |stream: u64| {
            let prompt = words(seed + stream, length);
            together.wait();
            self.completion(server, &prompt, tokens)
        };
        let request = &request;
        std::thread::scope(|scope| {
            let streams: Vec<_> = (0..SLOTS as u64)
                .map(|stream| scope.spawn(move || request(stream)))
                .collect();
            streams
                .into_iter()
                .map(|stream| stream.join().map_err(|_| "a stream panicked".to_owned())?)
                .collect()
        })
    }

    /// Decoding while another program computes on one of the cores.
    fn busy(&mut self) -> Result<Row, String> {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let row = self.row(
                "decode, 1 stream, one core taken by another program",
                "tok/s",
                Better::More,
                "",
                {
                    |bench, server, seed| {
                        Ok(bench
                            .completion(server, &words(seed, SHORT), 24)?
                            .decode_rate())
                    }
                },
            );
            done.store(true, Ordering::Relaxed);
            row
        })
    }

    /// A prompt of about 1,000 tokens that nobody asked before: the rate, and the wait, of the same requests.
    fn cold(&mut self) -> Result<Vec<Row>, String> {
        let rates = std::cell::RefCell::new(vec![Vec::new(); self.servers.len()]);
        let first = self.row(
            "first token, cold prompt of 1,000",
            "ms",
            Better::Less,
            "",
            |bench, server, seed| {
                let answer = bench.completion(server, &words(seed, LONG), 1)?;
                let index = bench
                    .servers
                    .iter()
                    .position(|other| std::ptr::eq(other, server))
                    .unwrap_or_default();
                rates.borrow_mut()[index].push(answer.prefill_rate());
                Ok(milliseconds(answer.first))
            },
        )?;
        let rate = Row::new(
            "prefill, 1 stream",
            "tok/s",
            Better::More,
            "",
            rates.into_inner(),
        );
        println!("  {}", rate.line());
        Ok(vec![first, rate])
    }

    /// More prefixes than slots, visited in turn: how long a later visit waits for its first token when it adds a word
    /// (what is measured is the cache) and when it asks a question (most of it is that question's prefill).
    fn prefixes(&mut self) -> Result<Vec<Row>, String> {
        const TAILS: [usize; 2] = [1, 8];
        self.seed += 100;
        let visits = if self.repeat > 2 { 4 } else { 2 };
        let mut samples = vec![Vec::new(); TAILS.len()];
        for server in &self.servers {
            let mut later = vec![Vec::new(); TAILS.len()];
            for visit in 0..=visits {
                for prefix in 0..PREFIXES as u64 {
                    let kind = visit as usize % TAILS.len();
                    let prompt = format!(
                        "{}{}",
                        words(self.seed * 1000 + prefix, LONG),
                        words(self.seed * 2000 + visit * 100 + prefix, TAILS[kind])
                    );
                    let answer = self.completion(server, &prompt, 1)?;
                    if visit > 0 {
                        later[kind].push(milliseconds(answer.first));
                    }
                }
            }
            for (all, later) in samples.iter_mut().zip(later) {
                all.push(later);
            }
        }
        let aims = ["≤ 0.5 ×", ""];
        let mut rows = Vec::new();
        for ((tail, aim), samples) in TAILS.iter().zip(aims).zip(samples) {
            let what = format!(
                "first token, {PREFIXES} prefixes over {SLOTS} slots, visited again with {tail} new words"
            );
            let row = Row::new(&what, "ms", Better::Less, aim, samples);
            println!("  {}", row.line());
            rows.push(row);
        }
        Ok(rows)
    }

    /// Decoding under a JSON Schema beside free decoding.
    fn constrained(&mut self) -> Result<Vec<Row>, String> {
        let rate = |bench: &Self, server: &Server, seed: u64, format: Option<Value>| {
            let content = words(seed, SHORT);
            let mut request = json!({
                "messages": [{"role": "user", "content": content}], "max_tokens": bench.answer, "temperature": 0
            });
            if let Some(format) = format {
                request["response_format"] = format;
            }
            Ok(server.ask("/v1/chat/completions", request)?.decode_rate())
        };
        let free = self.row(
            "decode, chat, free",
            "tok/s",
            Better::More,
            "",
            |bench, server, seed| rate(bench, server, seed, None),
        )?;
        let constrained = self.row(
            "decode, chat, JSON Schema",
            "tok/s",
            Better::More,
            "",
            |bench, server, seed| rate(bench, server, seed, Some(schema())),
        )?;
        let ratio = constrained.over("JSON Schema over free decode", &free, "≥ 0.97 ×");
        println!("  {}", ratio.line());
        Ok(vec![free, constrained, ratio])
    }
}

/// An array long enough that the answer ends by length: what is measured is the mask, not when the text ends.
fn schema() -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "monsters", "strict": true, "schema": {
        "type": "object",
        "properties": {"monsters": {"type": "array", "minItems": 40, "maxItems": 60, "items": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 16},
                "kind": {"enum": ["goblin", "wolf", "ghost"]},
                "level": {"type": "integer", "minimum": 1, "maximum": 20},
                "asleep": {"type": "boolean"}
            },
            "required": ["name", "kind", "level", "asleep"],
            "additionalProperties": false
        }}},
        "required": ["monsters"],
        "additionalProperties": false
    }}})
}

/// The rows about the process itself, with the default model, ember.
fn process(options: &Options, hearth: &Path, target: &Path) -> Result<Vec<Row>, String> {
    // The home stays, and with it the embedded model's file, as on every start of a node but its first.
    let home = fresh(target.join("bench/hearth"))?;
    let ours = starts(options.repeat, || {
        start_hearth(hearth, None, options.threads, home.clone())
    })?;
    let mut samples = vec![ours];
    if let (Some(peer), Some(ember)) = (&options.peer, &ember()) {
        let home = fresh(target.join("bench/peer"))?;
        samples.push(starts(options.repeat, || {
            start_peer(peer, ember, options.threads, home.clone())
        })?);
    }
    let start = Row::new(
        "process start to first token, ember",
        "ms",
        Better::Less,
        "≤ 150 ms",
        samples,
    );
    println!("  {}", start.line());

    // A file that is no model: the node is up and has none.
    let none = home.join("none.gguf");
    std::fs::write(&none, "no model").map_err(|error| format!("{}: {error}", none.display()))?;
    let none = std::path::absolute(none).map_err(|error| error.to_string())?;
    let mut server = start_hearth(hearth, Some(&none), options.threads, home)?;
    server.wait_until_up("/status")?;
    // Until it has found that out.
    std::thread::sleep(Duration::from_secs(1));
    let memory = server
        .memory()
        .ok_or("the node's memory could not be read")?;
    let memory = Row::new(
        "memory of a node without a model",
        "MB",
        Better::Less,
        "≤ 60 MB",
        vec![vec![megabytes(memory)]],
    );
    println!("  {}", memory.line());

    let size = |path: &Path| {
        let metadata =
            std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()));
        metadata.map(|metadata| vec![megabytes(metadata.len())])
    };
    let mut sizes = vec![size(hearth)?];
    if let Some(peer) = &options.peer {
        sizes.push(size(peer)?);
    }
    let size = Row::new(
        "executable (ours includes ember)",
        "MB",
        Better::Less,
        "≤ 60 MB",
        sizes,
    );
    println!("  {}", size.line());
    Ok(vec![start, memory, size])
}

/// What the node adds to the engine, with a model so small that little else is measured.
fn overhead(target: &Path) -> Result<Vec<Row>, String> {
    let model = model("tiny", "Q8_0", target)?.display().to_string();
    let output = example(target, "node_overhead").arg(&model).output();
    let output = output.map_err(|error| format!("node_overhead: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Value = serde_json::from_str(text.trim()).map_err(|error| {
        format!(
            "node_overhead: {error}\n{}",
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    let row = |what: &str, unit: &'static str, field: &str, aim: &'static str| {
        let figure = figures[field]
            .as_f64()
            .ok_or(format!("node_overhead printed no {field}"))?;
        let row = Row::new(what, unit, Better::Less, aim, vec![vec![figure]]);
        println!("  {}", row.line());
        Ok::<_, String>(row)
    };
    Ok(vec![
        row(
            "node over engine, per request",
            "ms",
            "request_ms",
            "≤ 1 ms",
        )?,
        row("node over engine, per token", "µs", "token_us", "≤ 20 µs")?,
    ])
}

/// Milliseconds from process start to first token.
fn starts(repeat: usize, start: impl Fn() -> Result<Server, String>) -> Result<Vec<f64>, String> {
    let mut samples = Vec::new();
    // One more than is counted: the first one fills the page cache.
    for sample in 0..=repeat {
        let mut server = start()?;
        let answer = server.wait_until_it_answers()?;
        if sample > 0 {
            samples.push(milliseconds(answer.first_at - server.started));
        }
    }
    Ok(samples)
}

/// The repository's own model, if it is there.
fn ember() -> Option<PathBuf> {
    let files = std::fs::read_dir("models/ember")
        .ok()?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let models = files.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "gguf")
    });
    models.max_by_key(|path| path.metadata().map_or(0, |metadata| metadata.len()))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Made-up words, each with its space; the same seed gives the same ones. About 1.4 tokens each.
fn words(seed: u64, count: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut text = String::new();
    for _ in 0..count {
        text.push(' ');
        (0..2 + next(3)).for_each(|_| text.push((b'a' + next(26) as u8) as char));
    }
    text
}
