//! Measures the encoder and the scan on this machine.
//!
//! `cargo run --release -p hearth-encoder --example encoder_speed -- FOLDER [--json] [--quick]`, where FOLDER holds a
//! model such as all-MiniLM-L6-v2. Printed are: the time of one text on one thread for each kernel, tokenizer included;
//! texts and tokens per second on all cores; the cosine to the same pass in 32-bit floats; and the scan beside a loop
//! that only reads the same memory.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use hearth_encoder::reference::Reference;
use hearth_encoder::{Batch, Encoder, Kernel, Role, Scan, quantise};

const USAGE: &str = "usage: encoder_speed FOLDER [--json] [--quick]";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| arguments.iter().any(|argument| argument == name);
    let folder = arguments
        .iter()
        .find(|argument| !argument.starts_with("--"));
    let folder = Path::new(folder.ok_or(USAGE)?);
    let mut report = Report {
        json: flag("--json"),
        rows: Vec::new(),
    };
    let quick = flag("--quick");

    let start = Instant::now();
    let encoder = Encoder::open(folder)?;
    report.add("open", "ms", milliseconds(start.elapsed()));
    for kernel in Kernel::available() {
        latency(&encoder.clone().with_kernel(*kernel)?, quick, &mut report)?;
    }
    throughput(&encoder, quick, &mut report)?;
    for kernel in Kernel::available() {
        scan(*kernel, quick, &mut report);
    }
    cosine(&encoder, &Reference::open(folder)?, quick, &mut report)?;
    report.print();
    Ok(())
}

/// Figures, printed as they come or as one JSON object at the end.
struct Report {
    json: bool,
    rows: Vec<(String, &'static str, f64)>,
}

impl Report {
    fn add(&mut self, name: &str, unit: &'static str, value: f64) {
        if !self.json {
            println!("{name:<44} {value:>12.4} {unit}");
        }
        self.rows.push((name.to_owned(), unit, value));
    }

    fn print(&self) {
        if !self.json {
            return;
        }
        let figures: serde_json::Map<String, serde_json::Value> = self
            .rows
            .iter()
            .map(|(name, unit, value)| (format!("{name} [{unit}]"), (*value).into()))
            .collect();
        println!("{}", serde_json::Value::Object(figures));
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The values below which half and 95 of 100 lie.
fn quantiles(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_unstable_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 95 / 100])
}

/// A text of exactly so many tokens.
fn text_of(encoder: &Encoder, tokens: usize, words: &mut Words) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    loop {
        let longer = format!("{text}{} ", words.next(&NOUNS));
        match encoder.count_tokens(&longer)? {
            count if count == tokens => return Ok(longer),
            count if count < tokens => text = longer,
            _ => {}
        }
    }
}

fn latency(encoder: &Encoder, quick: bool, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let mut words = Words(1);
    for tokens in [8, 16, 32, 128] {
        let texts = (0..32)
            .map(|_| text_of(encoder, tokens, &mut words))
            .collect::<Result<Vec<_>, _>>()?;
        let rounds = match (quick, encoder.kernel()) {
            (false, Kernel::Portable) => 64,
            (false, _) => 40_000 / tokens.max(20),
            (true, _) => 32,
        };
        let mut times = Vec::with_capacity(rounds);
        for round in 0..rounds + 16 {
            let start = Instant::now();
            black_box(encoder.encode(&texts[round % texts.len()], Role::Plain)?);
            if round >= 16 {
                times.push(milliseconds(start.elapsed()));
            }
        }
        let (half, most) = quantiles(times);
        let name = format!("encode, {}, {tokens} tokens", encoder.kernel());
        report.add(&format!("{name}, p50"), "ms", half);
        report.add(&format!("{name}, p95"), "ms", most);
    }
    let text = text_of(encoder, 16, &mut words)?;
    let start = Instant::now();
    for _ in 0..1000 {
        black_box(encoder.count_tokens(&text)?);
    }
    report.add(
        "of that the tokenizer, 16 tokens",
        "ms",
        milliseconds(start.elapsed()) / 1e3,
    );
    Ok(())
}

fn throughput(encoder: &Encoder, quick: bool, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let mut words = Words(2);
    let texts: Vec<String> = (0..if quick { 500 } else { 4000 })
        .map(|_| words.sentence())
        .collect();
    for threads in [1, 0] {
        let start = Instant::now();
        let batch = Batch {
            threads,
            progress: None,
        };
        let embeddings = encoder.encode_batch(&texts, Role::Plain, batch)?;
        let time = start.elapsed().as_secs_f64();
        let tokens: usize = embeddings.iter().map(|embedding| embedding.tokens).sum();
        let name = if threads == 1 {
            "one thread"
        } else {
            "all cores"
        };
        report.add(
            &format!("batch, {name}, texts"),
            "1/s",
            texts.len() as f64 / time,
        );
        report.add(
            &format!("batch, {name}, tokens"),
            "1/s",
            tokens as f64 / time,
        );
    }
    Ok(())
}

fn cosine(
    encoder: &Encoder,
    reference: &Reference,
    quick: bool,
    report: &mut Report,
) -> Result<(), Box<dyn Error>> {
    let mut words = Words(3);
    let texts: Vec<String> = (0..if quick { 60 } else { 1000 })
        .map(|_| words.sentence())
        .collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let exact = std::thread::scope(|scope| {
        let threads: Vec<_> = texts
            .chunks(texts.len().div_ceil(cores))
            .map(|texts| {
                scope.spawn(|| {
                    texts
                        .iter()
                        .map(|text| reference.encode(text))
                        .collect::<Result<Vec<_>, _>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a thread panicked"))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let embeddings = encoder.encode_batch(&texts, Role::Plain, Batch::default())?;
    let (mut sum, mut least, mut bytes) = (0.0, 1.0f64, 1.0f64);
    let mut count = 0.0;
    for exact in exact {
        for exact in exact? {
            let ours = &embeddings[count as usize].vector;
            let cosine = dot(ours, &exact);
            sum += cosine;
            least = least.min(cosine);
            let (quantised, _) = quantise(ours);
            let quantised: Vec<f32> = quantised.into_iter().map(f32::from).collect();
            let length = dot(&quantised, &quantised).sqrt();
            bytes = bytes.min(dot(&quantised, ours) / length);
            count += 1.0;
        }
    }
    report.add("cosine to 32-bit floats, mean", "", sum / count);
    report.add("cosine to 32-bit floats, least", "", least);
    report.add("cosine of a vector to its int8 form, least", "", bytes);
    Ok(())
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum()
}

fn scan(kernel: Kernel, quick: bool, report: &mut Report) {
    const DIMS: usize = 384;
    let Some(scan) = Scan::with_kernel(kernel) else {
        return;
    };
    let mut words = Words(4);
    let mut byte = || (words.number() >> 16) as i8;
    let query: Vec<i8> = (0..DIMS).map(|_| byte()).collect();
    for count in [1_000, 10_000, 100_000] {
        let vectors: Vec<i8> = (0..count * DIMS).map(|_| byte()).collect();
        let rounds = (if quick { 1_000_000 } else { 20_000_000 } / count).clamp(5, 1000);
        let time = |work: &dyn Fn()| {
            let mut times = Vec::with_capacity(rounds);
            for round in 0..rounds + 2 {
                let start = Instant::now();
                work();
                if round >= 2 {
                    times.push(milliseconds(start.elapsed()));
                }
            }
            times
        };
        // In turns, for what else the machine does.
        let mut ratios = Vec::new();
        let (mut reads, mut scans) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            let read = time(&|| {
                black_box(read(black_box(&vectors)));
            });
            let top = time(&|| {
                black_box(scan.top(black_box(&vectors), &query, 10));
            });
            ratios.push(quantiles(read.clone()).0 / quantiles(top.clone()).0);
            reads.extend(read);
            scans.extend(top);
        }
        let name = format!("scan, {kernel}, {count} x {DIMS}");
        let (half, most) = quantiles(scans);
        let plain = quantiles(reads).0;
        report.add(&format!("{name}, p50"), "ms", half);
        report.add(&format!("{name}, p95"), "ms", most);
        report.add(
            &format!("{name}, rate"),
            "GB/s",
            (count * DIMS) as f64 / half / 1e6,
        );
        report.add(&format!("{name}, plain read"), "ms", plain);
        report.add(
            &format!("{name}, share of a plain read"),
            "",
            quantiles(ratios).0,
        );
    }
}

/// Reads every byte and does as little with it as can be done.
fn read(bytes: &[i8]) -> u64 {
    let mut sums = [0u64; 32];
    for chunk in bytes.as_chunks::<256>().0 {
        let words = chunk.as_chunks::<8>().0;
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum ^= u64::from_ne_bytes(word.map(|byte| byte as u8));
        }
    }
    sums.iter().fold(0, |all, sum| all ^ sum)
}

/// Draws words; the same ones every time.
struct Words(u64);

impl Words {
    fn number(&mut self) -> u64 {
        // Steele, Lea and Flood: splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn next(&mut self, words: &[&'static str]) -> &'static str {
        words[(self.number() % words.len() as u64) as usize]
    }

    fn sentence(&mut self) -> String {
        let number = self.number() % 9000;
        let (a, b, c) = (self.next(&NOUNS), self.next(&NOUNS), self.next(&NOUNS));
        let (doing, how, when) = (self.next(&VERBS), self.next(&ADJECTIVES), self.next(&TIMES));
        let (who, where_) = (self.next(&PEOPLE), self.next(&PLACES));
        match self.number() % 8 {
            0 => format!("{who} {doing} the {how} {a} {when}."),
            1 => format!("How does {who} {doing} a {a} in {where_}?"),
            2 => format!("The {a} of the {b} costs {number} euros, but the {c} is {how}."),
            3 => format!(
                "{when}, {who} decided that the {a} must not {doing} the {b}; it was too {how}."
            ),
            4 => format!("{how} {a}"),
            5 => format!(
                "Error {number}: the {a} could not {doing} the {b} while the {c} was {how}, see {where_}."
            ),
            6 => format!(
                "In {where_} everybody knows the {how} {a}, yet {who} still {doing} one {when} with a {b} and a {c}."
            ),
            _ => format!("{a}, {b} and {c}: {number} things to {doing} {when}, said {who}."),
        }
    }
}

const NOUNS: [&str; 40] = [
    "river",
    "database",
    "garden",
    "engine",
    "letter",
    "window",
    "contract",
    "melody",
    "bridge",
    "kernel",
    "harbour",
    "recipe",
    "meeting",
    "battery",
    "forest",
    "password",
    "museum",
    "bicycle",
    "thread",
    "invoice",
    "mountain",
    "server",
    "painting",
    "kitchen",
    "network",
    "theory",
    "market",
    "camera",
    "island",
    "protocol",
    "teacher",
    "compiler",
    "lamp",
    "storm",
    "library",
    "budget",
    "horse",
    "deadline",
    "vaccine",
    "orchestra",
];
const VERBS: [&str; 20] = [
    "repair",
    "paint",
    "measure",
    "forget",
    "sell",
    "index",
    "describe",
    "cross",
    "compile",
    "borrow",
    "deliver",
    "open",
    "compress",
    "question",
    "plant",
    "replace",
    "translate",
    "remember",
    "delay",
    "encrypt",
];
const ADJECTIVES: [&str; 20] = [
    "quiet",
    "broken",
    "expensive",
    "ancient",
    "asynchronous",
    "bright",
    "unexpected",
    "frozen",
    "portable",
    "gentle",
    "corrupt",
    "distant",
    "wooden",
    "redundant",
    "famous",
    "narrow",
    "hungry",
    "immutable",
    "salty",
    "careful",
];
const TIMES: [&str; 10] = [
    "yesterday",
    "on Monday",
    "after the release",
    "every spring",
    "at midnight",
    "in 1987",
    "before lunch",
    "twice a year",
    "during the war",
    "as soon as it rains",
];
const PEOPLE: [&str; 12] = [
    "she",
    "the mayor",
    "our customer",
    "a nurse",
    "the operator",
    "my neighbour",
    "nobody",
    "the committee",
    "an old sailor",
    "the new developer",
    "a child",
    "the physicist",
];
const PLACES: [&str; 12] = [
    "Lisbon",
    "the basement",
    "a small village",
    "the data centre",
    "Antarctica",
    "the log file",
    "our school",
    "São Paulo",
    "the second chapter",
    "the production cluster",
    "Kyoto",
    "a train station",
];
