//! `cargo xtask bench alloc`: whether mimalloc lowers the tail of a node's answer times.
//!
//! The executable is built with and without its feature `mimalloc`, and both are measured in turn, pair by pair, so
//! that the machine's mood meets both. The load is open-loop: every request has a time at which it is due, and its
//! latency counts from there, so a node that stalls cannot slow the questions down and hide its stall. Two clients
//! stream answers of the embedded model meanwhile, as the work that a node usually has beside it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cargo::{cargo, succeed, target};

/// Keep-alive connections that share the load.
const CONNECTIONS: usize = 64;
/// Clients that stream answers without pause.
const STREAMS: usize = 2;
/// Load that is sent before anything is counted.
const WARM_UP: Duration = Duration::from_secs(3);
/// Bytes of a conversation.
const CONVERSATION: usize = 8 << 10;
/// Processors that other programs may use, on average, while something is measured.
const QUIET: f64 = 0.1;
/// How long to wait for that.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Requests after which the mix repeats.
const MIX: usize = 100;
/// Names of the executables, and whether they have the feature. The last one built stays in `release/`: the default.
const ALLOCATORS: [(&str, bool); 2] = [("mimalloc", true), ("system", false)];
/// What one run measures: name, unit, and whether an allocator that lowers it is better.
const ROWS: [(&str, &str, bool); 9] = [
    ("requests/s reached", "", false),
    ("p50", "ms", true),
    ("p99", "ms", true),
    ("p99.9", "ms", true),
    ("max", "ms", true),
    ("resident memory after", "MB", true),
    ("streamed events/s beside it", "", false),
    ("sent late by the client, p99", "ms", true),
    ("processors taken by other programs", "", true),
];

const USAGE: &str = "\
usage: cargo xtask bench alloc [options]
  --pairs N     runs of each executable (default 7)
  --rate N      requests per second (default 5000)
  --seconds N   seconds that are counted, per run (default 20)
  --threads N   compute threads of the node (default: half of the processors; the client needs some too)
  --no-build    measure the executables in target/bench";

struct Options {
    pairs: usize,
    rate: usize,
    seconds: usize,
    threads: usize,
    build: bool,
}

/// Figures of one run, in the order of [`ROWS`].
type Figures = [f64; ROWS.len()];

/// Runs the benchmark with the arguments after `bench alloc`.
pub fn run(args: &[String]) -> Result<(), String> {
    let options = parse(args)?;
    let folder = target().join("bench");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let programs = ALLOCATORS.map(|(name, _)| folder.join(format!("hearth-{name}")));
    if options.build {
        for ((_, feature), program) in ALLOCATORS.iter().zip(&programs) {
            build(*feature, program)?;
        }
    }
    let mut runs: [Vec<Figures>; 2] = Default::default();
    let mut disturbed = 0;
    for pair in 0..options.pairs {
        for turn in 0..ALLOCATORS.len() {
            let index = (pair + turn) % ALLOCATORS.len();
            let figures = loop {
                wait_for_quiet()?;
                let figures = measure(&options, &programs[index], &folder.join("alloc"))?;
                println!("{:<10}{}", ALLOCATORS[index].0, line(&figures));
                // Told from what others did alone, so that no run is chosen by its figures.
                if figures[ROWS.len() - 1] <= QUIET {
                    break figures;
                }
                println!("other programs disturbed this run; it is measured again");
                disturbed += 1;
            };
            runs[index].push(figures);
        }
    }
    let report = Report {
        facts: facts(&options, &programs[0], disturbed),
        runs,
    };
    println!("\n{}", report.table());
    report.keep()
}

fn parse(args: &[String]) -> Result<Options, String> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options {
        pairs: 7,
        rate: 5000,
        seconds: 20,
        threads: (processors / 2).max(1),
        build: true,
    };
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let field = match word.as_str() {
            "--pairs" => &mut options.pairs,
            "--rate" => &mut options.rate,
            "--seconds" => &mut options.seconds,
            "--threads" => &mut options.threads,
            "--no-build" => {
                options.build = false;
                continue;
            }
            _ => return Err(format!("unknown option {word}\n{USAGE}")),
        };
        let value = words.next().and_then(|value| value.parse().ok());
        *field = value
            .filter(|value| *value > 0)
            .ok_or(format!("{word} needs a number of at least 1\n{USAGE}"))?;
    }
    Ok(options)
}

fn build(feature: bool, program: &Path) -> Result<(), String> {
    let mut command = cargo(["build", "--release", "--package", "hearth", "--bin=hearth"]);
    command.arg("--no-default-features");
    if feature {
        command.args(["--features", "mimalloc"]);
    }
    succeed(&mut command)?;
    std::fs::copy(target().join("release/hearth"), program)
        .map(|_| ())
        .map_err(|error| format!("{}: {error}", program.display()))
}

/// A running node. Dropping it ends the process.
struct Node {
    child: Child,
    port: u16,
}

impl Node {
    /// Starts a node with the embedded model in a folder that is empty now, and waits until it got a token.
    fn start(program: &Path, threads: usize, home: &Path) -> Result<Self, String> {
        let told = |error: std::io::Error| format!("{}: {error}", home.display());
        let _ = std::fs::remove_dir_all(home);
        std::fs::create_dir_all(home).map_err(told)?;
        let config = home.join("none.toml");
        std::fs::write(&config, "").map_err(told)?;
        let log = std::fs::File::create(home.join("log")).map_err(told)?;
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .map_err(|error| format!("no free port: {error}"))?
            .port();
        let child = Command::new(program)
            .args(["serve", "--keep-alive", "never"])
            .args(["--host", &format!("127.0.0.1:{port}")])
            .args(["--threads", &threads.to_string()])
            // Parked prefixes grow with every streamed answer, and would be all that is seen of the memory.
            .args(["--park-memory", "0"])
            .arg("--config")
            .arg(config)
            .env("HEARTH_HOME", home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{} could not be started: {error}", program.display()))?;
        let mut node = Self { child, port };
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) {
            if let Ok(Some(status)) = node.child.try_wait() {
                return Err(format!(
                    "the node ended with {status}; see {}/log",
                    home.display()
                ));
            }
            if ureq::get(&node.url("/health")).call().is_ok() {
                return Ok(node);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("the node was not healthy within a minute".into())
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Resident memory in megabytes.
    fn memory(&self) -> Result<f64, String> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .map_err(|error| format!("the node's memory: {error}"))?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok())
            .map(|kilobytes| kilobytes * 1024.0 / 1e6)
            .ok_or("the node's memory could not be read".into())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor seconds used since the system started by all programs but this one and the process `except`, and taken by
/// other virtual machines. The times of single processes are exact; those of the whole system are samples.
fn others(except: Option<u32>) -> Result<f64, String> {
    let ours = [Some(std::process::id()), except];
    let folder = std::fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
    let processes =
        folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    // A process that ends meanwhile is found in the times of its parent's children, fields 13 and 14.
    let used =
        |process| ticks(&format!("/proc/{process}/stat"), ')', &[11, 12, 13, 14]).unwrap_or(0.0);
    let taken = ticks("/proc/stat", ' ', &[7]).ok_or("/proc/stat could not be read")?;
    Ok(processes
        .filter(|process| !ours.contains(&Some(*process)))
        .map(used)
        .sum::<f64>()
        + taken)
}

/// Fields of the first line of a file in `/proc`, counted after the first `after`, added up and in seconds.
fn ticks(file: &str, after: char, fields: &[usize]) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    let (_, rest) = text.lines().next()?.split_once(after)?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let word = |field: &usize| words.get(*field)?.parse::<f64>().ok();
    // Linux counts in hundredths of a second for programs, whatever its own clock is.
    fields
        .iter()
        .map(word)
        .sum::<Option<f64>>()
        .map(|ticks| ticks / 100.0)
}

/// Waits until the processors have nothing else to do.
fn wait_for_quiet() -> Result<(), String> {
    let begun = Instant::now();
    let sample = Duration::from_secs(3);
    while begun.elapsed() < PATIENCE {
        let before = others(None)?;
        std::thread::sleep(sample);
        if (others(None)? - before) / sample.as_secs_f64() <= QUIET {
            return Ok(());
        }
    }
    Err("other programs keep the processors busy; end them and measure again".into())
}

/// What is sent, and the status it must get: a benchmark of wrong answers measures nothing.
struct Request {
    bytes: Vec<u8>,
    status: u16,
}

impl Request {
    fn new(port: u16, what: &str, body: &str, status: u16) -> Self {
        let length = body.len();
        let head = format!("{what} HTTP/1.1\r\nhost: localhost:{port}\r\naccept: */*\r\n");
        let kind = format!("content-type: application/json\r\ncontent-length: {length}\r\n");
        Self {
            bytes: format!("{head}{kind}\r\n{body}").into_bytes(),
            status,
        }
    }
}

/// The mix: nothing in it waits for the model, so the node reads, checks and answers all of it itself. `/status` is not
/// in it: it has the kernel count every page of the process, about 2.5 ms each, and 500 of them a second would be all
/// that is measured on a small machine.
fn mix(port: u16) -> Vec<Request> {
    let chat = "POST /v1/chat/completions";
    let kind = |index| match index {
        // The model is looked up when the whole body was understood.
        0..70 => Request::new(port, chat, &conversation(index), 404),
        70..85 => Request::new(port, "GET /v1/models", "", 200),
        85..95 => Request::new(port, "GET /health", "", 200),
        _ => Request::new(port, chat, &conversation(index)[..CONVERSATION / 2], 400),
    };
    // 37 shares no factor with 100: all kinds come, well spread.
    (0..MIX).map(|index| kind(index * 37 % MIX)).collect()
}

/// A conversation for a model that does not exist, as JSON of [`CONVERSATION`] bytes or a little more.
fn conversation(seed: usize) -> String {
    let mut messages = vec![json!({"role": "system", "content": "Answer in short sentences."})];
    let mut bytes = 0;
    while bytes < CONVERSATION {
        let role = ["user", "assistant"][(messages.len() + 1) % 2];
        let text = "The goblin said: \"Nobody sleeps under this bridge.\"\n".repeat(8);
        let message = json!({"role": role, "content": format!("{seed}.{} {text}", messages.len())});
        bytes += message.to_string().len();
        messages.push(message);
    }
    json!({"model": "nobody-has-this", "messages": messages, "max_tokens": 64, "temperature": 0.7})
        .to_string()
}

/// A keep-alive connection.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request and reads its answer to the end; what comes back is the status.
    fn exchange(&mut self, request: &[u8]) -> std::io::Result<u16> {
        self.0.get_mut().write_all(request)?;
        let odd = || std::io::Error::other("an answer without status or length");
        let (mut status, mut length, mut line) = (None, None, String::new());
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            match line.trim_end() {
                "" => break,
                text if status.is_none() => {
                    status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
                    status.ok_or_else(odd)?;
                }
                text => {
                    let header = text.split_once(": ");
                    if let Some((_, value)) =
                        header.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                    {
                        length = value.parse().ok();
                    }
                }
            }
        }
        let length = length.ok_or_else(odd)?;
        let body = std::io::copy(&mut (&mut self.0).take(length), &mut std::io::sink())?;
        status.filter(|_| body == length).ok_or_else(odd)
    }
}

/// How late one request was sent, and how long after it was due its answer was there.
struct Sample {
    late: Duration,
    latency: Duration,
}

/// One run of one executable.
fn measure(options: &Options, program: &Path, home: &Path) -> Result<Figures, String> {
    let node = Node::start(program, options.threads, home)?;
    let (mix, next, done) = (mix(node.port), AtomicU64::new(0), AtomicBool::new(false));
    let counted = Duration::from_secs(options.seconds as u64);
    let before = others(Some(node.child.id()))?;
    let begun = Instant::now();
    // Whichever connection is free takes the next request, waits until it is due, and asks.
    let ask = || -> Result<Vec<Sample>, String> {
        let told = |error| format!("a connection of the load broke: {error}");
        let mut connection = Connection::open(node.port).map_err(told)?;
        let mut samples = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let after = Duration::from_secs_f64(number as f64 / options.rate as f64);
            if after >= WARM_UP + counted {
                return Ok(samples);
            }
            let due = begun + after;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let late = due.elapsed();
            let request = &mix[number as usize % MIX];
            let status = connection.exchange(&request.bytes).map_err(told)?;
            if status != request.status {
                return Err(format!("{status} where {} was due", request.status));
            }
            if after >= WARM_UP {
                let latency = due.elapsed();
                samples.push(Sample { late, latency });
            }
        }
    };
    let (samples, took, events) = std::thread::scope(|scope| {
        let (node, done) = (&node, &done);
        let streams: Vec<_> = (0..STREAMS)
            .map(|stream| scope.spawn(move || converse(node, stream, done)))
            .collect();
        let askers: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(ask)).collect();
        let samples: Result<Vec<_>, _> = askers.into_iter().map(joined).collect();
        let took = begun.elapsed();
        done.store(true, Ordering::Relaxed);
        let events: Result<Vec<_>, _> = streams.into_iter().map(joined).collect();
        Ok::<_, String>((samples?, took, events?.into_iter().sum::<usize>()))
    })?;
    let samples: Vec<_> = samples.into_iter().flatten().collect();
    let mut latency: Vec<_> = samples.iter().map(|sample| sample.latency).collect();
    let mut late: Vec<_> = samples.iter().map(|sample| sample.late).collect();
    latency.sort();
    late.sort();
    Ok([
        samples.len() as f64 / (took - WARM_UP).as_secs_f64(),
        quantile(&latency, 0.5),
        quantile(&latency, 0.99),
        quantile(&latency, 0.999),
        quantile(&latency, 1.0),
        node.memory()?,
        events as f64 / took.as_secs_f64(),
        quantile(&late, 0.99),
        (others(Some(node.child.id()))? - before) / begun.elapsed().as_secs_f64(),
    ])
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<Result<T, String>>) -> Result<T, String> {
    thread.join().map_err(|_| "a client panicked".to_owned())?
}

/// Streams answers until told to stop, and returns how many events came.
fn converse(node: &Node, stream: usize, done: &AtomicBool) -> Result<usize, String> {
    let (mut events, mut answers) = (0, 0);
    loop {
        let content = format!("{stream}.{answers} Tell me about the goblin under the bridge.");
        let messages = json!([{"role": "user", "content": content}]);
        let request = json!({"messages": messages, "stream": true, "max_tokens": 256});
        let response = ureq::post(&node.url("/v1/chat/completions"))
            .header("content-type", "application/json")
            .send(request.to_string())
            .map_err(|error| format!("a stream was refused: {error}"))?;
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let line = line.map_err(|error| format!("a stream broke off: {error}"))?;
            events += usize::from(line.starts_with("data: "));
            if done.load(Ordering::Relaxed) {
                return Ok(events);
            }
        }
        answers += 1;
    }
}

/// Milliseconds that this share of the sorted durations does not exceed.
fn quantile(sorted: &[Duration], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .map_or(f64::NAN, |duration| duration.as_secs_f64() * 1000.0)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length => (sorted[(length - 1) / 2] + sorted[length / 2]) / 2.0,
    }
}

fn line(figures: &Figures) -> String {
    let cells = ROWS.iter().zip(figures);
    let cells = cells.map(|((name, unit, _), value)| format!("  {name} {value:.2} {unit}"));
    cells.collect()
}

struct Report {
    facts: Vec<(&'static str, String)>,
    /// Runs of each of [`ALLOCATORS`], pair by pair.
    runs: [Vec<Figures>; 2],
}

impl Report {
    /// Medians, the median of each pair's own ratio, and in how many pairs mimalloc was better.
    fn table(&self) -> String {
        let mut text =
            "| | mimalloc | system | mimalloc / system | mimalloc better in |\n".to_owned();
        text.push_str("|---|---|---|---|---|\n");
        for (row, (name, unit, less)) in ROWS.iter().enumerate() {
            let pairs: Vec<(f64, f64)> = self.runs[0]
                .iter()
                .zip(&self.runs[1])
                .map(|(ours, theirs)| (ours[row], theirs[row]))
                .collect();
            let better = |(ours, theirs): &&(f64, f64)| ours != theirs && (ours < theirs) == *less;
            let _ = writeln!(
                text,
                "| {name} | {:.2} {unit} | {:.2} {unit} | {:.3} × | {} of {} |",
                median(pairs.iter().map(|pair| pair.0)),
                median(pairs.iter().map(|pair| pair.1)),
                median(pairs.iter().map(|pair| pair.0 / pair.1)),
                pairs.iter().filter(better).count(),
                pairs.len(),
            );
        }
        text
    }

    /// Writes `bench/results/alloc-DATE.md` and `.json`.
    fn keep(&self) -> Result<(), String> {
        let mut text = "# `cargo xtask bench alloc`\n\n".to_owned();
        for (name, value) in &self.facts {
            let _ = writeln!(text, "- {name}: {value}");
        }
        let _ = write!(text, "\n{}", self.table());
        let facts: serde_json::Map<_, _> = self
            .facts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str())))
            .collect();
        let rows: Vec<_> = ROWS
            .iter()
            .enumerate()
            .map(|(row, (name, unit, _))| {
                let samples = |index: usize| -> Vec<f64> {
                    self.runs[index]
                        .iter()
                        .map(|figures| figures[row])
                        .collect()
                };
                json!({"what": name, "unit": unit, "mimalloc": samples(0), "system": samples(1)})
            })
            .collect();
        let json = format!("{:#}\n", json!({"run": facts, "rows": rows}));
        let folder = PathBuf::from("bench/results");
        for (extension, text) in [("md", text), ("json", json)] {
            let path = folder.join(format!("alloc-{}.{extension}", self.facts[0].1));
            std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
            println!("written: {}", path.display());
        }
        Ok(())
    }
}

fn facts(options: &Options, hearth: &Path, disturbed: usize) -> Vec<(&'static str, String)> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let cpu = cpu
        .unwrap_or("unknown")
        .trim_start_matches([' ', '\t', ':']);
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let load = format!(
        "{} requests/s over {CONNECTIONS} connections for {} s after {} s of warm-up, {STREAMS} streams beside it",
        options.rate,
        options.seconds,
        WARM_UP.as_secs()
    );
    vec![
        ("date", output("date", &["-u", "+%Y-%m-%d"])),
        ("processor", cpu.to_owned()),
        ("logical processors", processors.to_string()),
        ("system", output("uname", &["-sr"])),
        (
            "commit",
            output("git", &["describe", "--always", "--dirty"]),
        ),
        ("hearth", output(hearth, &["--version"])),
        ("compute threads of the node", options.threads.to_string()),
        ("load", load),
        ("pairs", options.pairs.to_string()),
        (
            "runs repeated because other programs were busy",
            disturbed.to_string(),
        ),
    ]
}

/// What a program prints; a dash if it cannot be run.
fn output(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or("–".to_owned(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}
