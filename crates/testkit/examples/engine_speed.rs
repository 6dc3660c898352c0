//! Speed of the engine called directly, without HTTP: `engine_speed MODEL.gguf [THREADS] [CPU_CODE|best] [on|off]`,
//! the last for flash attention.
//!
//! `cargo xtask bench serve` measures the same through a node; the difference is what the node costs.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use hearth_engine::{
    Catalogue, Engine, EngineOptions, Event, ModelOptions, Prompt, Request, Sampling,
};

const SAMPLES: usize = 3;
const SLOTS: u32 = 4;
/// Lengths of prompts whose one step is timed.
const LENGTHS: [usize; 7] = [1, 2, 4, 8, 16, 32, 128];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<(), String> {
    let path = args
        .first()
        .ok_or("usage: engine_speed MODEL.gguf [THREADS] [CPU_CODE|best] [on|off]")?;
    let threads = args
        .get(1)
        .map(|text| text.parse().map_err(|_| format!("{text} is not a number")))
        .transpose()?;
    let model = ModelOptions {
        context: Some(4096),
        slots: SLOTS,
        threads,
        flash_attention: args.get(3).map(|word| word == "on"),
        ..ModelOptions::default()
    };
    let options = EngineOptions {
        model,
        cpu: args.get(2).filter(|name| *name != "best").cloned(),
        ..EngineOptions::default()
    };
    let mut catalogue = Catalogue::default();
    catalogue.register("bench", path);
    let engine = Engine::new(options, catalogue);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(measure(&engine))
}

async fn measure(engine: &Engine) -> Result<(), String> {
    let start = Instant::now();
    engine.load(None).await.map_err(|error| error.to_string())?;
    println!("cpu code                {}", engine.cpu());
    println!(
        "load                    {:8.1} ms",
        start.elapsed().as_secs_f64() * 1e3
    );
    let mut seed = 0;
    let (mut decode, mut together, mut prefill, mut warm, mut deep) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        seed += 10;
        decode.push(answer(engine, tokens(seed, 24), 128).await?.decode_rate());
        let streams: Vec<_> = (1..=u64::from(SLOTS))
            .map(|stream| {
                let engine = engine.clone();
                tokio::spawn(async move { answer(&engine, tokens(seed + stream, 24), 128).await })
            })
            .collect();
        let mut rate = 0.0;
        for stream in streams {
            rate += stream
                .await
                .map_err(|error| error.to_string())??
                .decode_rate();
        }
        together.push(rate);
        let prefix = tokens(seed + 8, 1000);
        let cold = answer(engine, prefix.clone(), 1).await?;
        prefill.push(1000.0 / cold.first.as_secs_f64());
        let again: Vec<i32> = prefix.into_iter().chain(tokens(seed + 9, 12)).collect();
        warm.push(answer(engine, again, 1).await?.first.as_secs_f64() * 1e3);
        deep.push(
            answer(engine, tokens(seed + 8, 2000), 48)
                .await?
                .decode_rate(),
        );
    }
    println!("decode, 1 stream        {:8.1} tok/s", median(decode));
    println!(
        "decode, {SLOTS} streams       {:8.1} tok/s",
        median(together)
    );
    println!("decode, 2,000 deep      {:8.1} tok/s", median(deep));
    println!("prefill, 1,000 tokens   {:8.1} tok/s", median(prefill));
    println!("first token, warm       {:8.2} ms", median(warm));
    // What a step costs by the tokens in it: the weights are read once for all of them.
    for length in LENGTHS {
        let mut cost = Vec::new();
        for _ in 0..SAMPLES {
            seed += 1;
            let first = answer(engine, tokens(seed, length), 1).await?.first;
            cost.push(first.as_secs_f64() * 1e3);
        }
        println!("step of {length:3} tokens      {:8.2} ms", median(cost));
    }
    Ok(())
}

struct Times {
    first: Duration,
    last: Duration,
    tokens: u32,
}

impl Times {
    fn decode_rate(&self) -> f64 {
        f64::from(self.tokens - 1) / (self.last - self.first).as_secs_f64()
    }
}

async fn answer(engine: &Engine, prompt: Vec<i32>, length: u32) -> Result<Times, String> {
    let mut request = Request::new(Prompt::Tokens(prompt));
    request.sampling = Sampling {
        temperature: Some(0.0),
        ..Sampling::default()
    };
    request.max_tokens = Some(length);
    request.ignore_eos = true;
    let start = Instant::now();
    let mut generation = engine
        .generate(None, request)
        .await
        .map_err(|error| error.to_string())?;
    let (mut first, mut last, mut tokens) = (None, Duration::ZERO, 0);
    while let Some(event) = generation.next().await {
        match event.map_err(|error| error.to_string())? {
            Event::Text { .. } => {
                last = start.elapsed();
                first.get_or_insert(last);
            }
            Event::Done(usage) => tokens = usage.completion_tokens,
            _ => {}
        }
    }
    let first = first.ok_or("an empty answer")?;
    Ok(Times {
        first,
        last,
        tokens,
    })
}

/// Ordinary tokens, the same for the same seed.
fn tokens(seed: u64, count: usize) -> Vec<i32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        256 + (state >> 40) as i32 % 1000
    };
    (0..count).map(|_| next()).collect()
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
