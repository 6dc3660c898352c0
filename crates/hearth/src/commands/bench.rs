//! `hearth bench`: how fast a model is on this machine, and which ones of the catalogue would fit it.

use std::time::{Duration, Instant};

use clap::Args;
use hearth_engine::{Engine, Event, Prompt, Request, Sampling, machine};
use hearth_protocol::machine::{Fit, MachineReport};
use hearth_protocol::status::ModelStatus;
use serde_json::{Value, json};

use super::Context;
use crate::answer::{self, model_name};
use crate::config::show_size;
use crate::energy::Meter;
use crate::failure::{Failure, Outcome};
use crate::screen::{Screen, print, println};
use crate::{addressed, daemon, ember};

/// Flags of `hearth bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth bench                       this machine, and which models are likely to be fast on it
  hearth bench qwen3:1.7b            one model: prompt and answer speed, first token, memory, energy
  hearth bench --prompt 2000 --tokens 256 --repeat 5 qwen3:1.7b
  hearth bench --json

Measures in this process. A node that works at the same time makes the figures smaller.")]
pub struct BenchArgs {
    /// Model to measure: a name or a .gguf file
    pub model: Option<String>,
    /// Tokens of the prompt, about
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(16..=100_000))]
    pub prompt: u32,
    /// Tokens of the answer
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(8..=10_000))]
    pub tokens: u32,
    /// How often; the medians are shown
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
}

/// What was measured of a model. Medians.
#[derive(Debug, Clone)]
struct Figures {
    model: ModelStatus,
    prompt_tokens: u32,
    answer_tokens: u32,
    /// Tokens per second.
    prefill: f64,
    decode: f64,
    /// First token of a new prompt, and of the same prompt again.
    cold: Duration,
    warm: Duration,
    /// Resident memory of this process.
    memory: Option<u64>,
    /// Joules per token of the answer, or why there are none.
    energy: Result<f64, String>,
}

/// Measures and prints.
pub async fn run(context: &Context, args: &BenchArgs) -> Outcome {
    let (config, screen) = (&context.config, &context.screen);
    if let Ok((client, _)) = addressed::running(config).await {
        screen.note(&format!(
            "a node runs at {}; what it does meanwhile makes the figures smaller",
            client.place()
        ));
    }
    if let Some(model) = &args.model {
        let engine = Engine::new(config.engine.clone(), daemon::catalogue(config)?);
        let figures = measure(&engine, &model_name(model), args, screen).await?;
        match screen.json {
            true => println(&json!({"model": figures.json()}).to_string()),
            false => figures.show(screen),
        }
        return Ok(());
    }
    screen.progress("measuring the machine");
    let threads = config.engine.model.threads;
    let measured = tokio::task::spawn_blocking(move || machine::measure(threads, false)).await;
    screen.clear();
    let machine = measured
        .map_err(|error| Failure::new(format!("the measurement broke off: {error}")))?
        .map_err(Failure::new)?;
    let (catalogue, _) = daemon::known(config, &ember::path(&config.home));
    let report = hearth_node::machine_report(Some(machine), &catalogue);
    if screen.json {
        println(&json!({"machine": report.machine, "models": report.models}).to_string());
        return Ok(());
    }
    show_machine(&report, screen);
    Ok(())
}

async fn measure(
    engine: &Engine,
    model: &str,
    args: &BenchArgs,
    screen: &Screen,
) -> Outcome<Figures> {
    answer::load(engine, Some(model), screen).await?;
    let (mut prefill, mut decode, mut cold, mut warm) = (vec![], vec![], vec![], vec![]);
    let (mut prompt_tokens, mut answer_tokens) = (0, 0);
    let mut energy = Meter::start().map(|_| Vec::new());
    for round in 0..args.repeat {
        screen.progress(&format!(
            "measuring {model}: {} of {}",
            round + 1,
            args.repeat
        ));
        let prompt = words(args.prompt, round);
        let meter = Meter::start();
        let first = ask(engine, model, &prompt, args.tokens).await?;
        // The energy of the answer alone is not known: the prompt's is in it, and so it is counted with all tokens.
        if let (Ok(all), Ok(meter)) = (&mut energy, meter)
            && let Some(joules) = meter.joules()
        {
            all.push(joules / f64::from(first.tokens));
        }
        let again = ask(engine, model, &prompt, 2).await?;
        (prompt_tokens, answer_tokens) = (first.prompt, first.tokens);
        prefill.push(f64::from(first.prompt) / first.first.as_secs_f64());
        decode.push(f64::from(first.tokens - 1) / (first.all - first.first).as_secs_f64());
        cold.push(first.first.as_secs_f64());
        warm.push(again.first.as_secs_f64());
    }
    screen.clear();
    let status = engine
        .status()
        .into_iter()
        .find(|known| known.load.is_some());
    let status = status.ok_or_else(|| Failure::new("the model was unloaded meanwhile"))?;
    Ok(Figures {
        model: status,
        prompt_tokens,
        answer_tokens,
        prefill: median(&mut prefill),
        decode: median(&mut decode),
        cold: Duration::from_secs_f64(median(&mut cold)),
        warm: Duration::from_secs_f64(median(&mut warm)),
        memory: memory_stats::memory_stats().map(|stats| stats.physical_mem as u64),
        energy: energy.map(|mut all| median(&mut all)),
    })
}

/// How one answer went.
struct Run {
    prompt: u32,
    tokens: u32,
    first: Duration,
    all: Duration,
}

async fn ask(engine: &Engine, model: &str, prompt: &str, tokens: u32) -> Outcome<Run> {
    let request = Request {
        sampling: Sampling {
            temperature: Some(0.0),
            ..Sampling::default()
        },
        max_tokens: Some(tokens),
        ignore_eos: true,
        ..Request::new(Prompt::Text(prompt.to_owned()))
    };
    let begun = Instant::now();
    let mut generation = engine.generate(Some(model), request).await?;
    let mut first = None;
    while let Some(event) = generation.next().await {
        match event? {
            Event::Text { .. } => drop(first.get_or_insert_with(|| begun.elapsed())),
            Event::Done(usage) => {
                let all = begun.elapsed();
                return Ok(Run {
                    prompt: usage.prompt_tokens,
                    tokens: usage.completion_tokens.max(2),
                    first: first.unwrap_or(all),
                    all,
                });
            }
            _ => {}
        }
    }
    Err(Failure::new("the model stopped in the middle of an answer"))
}

/// Words of no meaning, some 1.3 tokens each, which no earlier round began with.
fn words(tokens: u32, round: u32) -> String {
    const SOME: [&str; 16] = [
        "river", "stone", "and", "the", "lamp", "seven", "under", "cold", "a", "garden", "runs",
        "of", "paper", "night", "with", "green",
    ];
    let mut state = 0x9e37_79b9_u32.wrapping_mul(round + 1);
    let mut text = format!("{round}:");
    for _ in 0..tokens * 10 / 13 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.push(' ');
        text.push_str(SOME[(state >> 28) as usize]);
    }
    text
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl Figures {
    fn json(&self) -> Value {
        json!({
            "name": self.model.name,
            "parameters": self.model.parameters,
            "size_bytes": self.model.size_bytes,
            "prompt_tokens": self.prompt_tokens,
            "answer_tokens": self.answer_tokens,
            "prefill_tokens_per_second": self.prefill,
            "decode_tokens_per_second": self.decode,
            "first_token_seconds": self.cold.as_secs_f64(),
            "first_token_cached_seconds": self.warm.as_secs_f64(),
            "memory_bytes": self.memory,
            "joules_per_token": self.energy.as_ref().ok(),
        })
    }

    fn show(&self, screen: &Screen) {
        let milliseconds = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        let energy = match &self.energy {
            Ok(joules) => {
                format!("{joules:.2} J for each token of the answer, its prompt included")
            }
            Err(reason) => format!("not known: {reason}"),
        };
        println(&format!(
            "{}  {}",
            screen.bold(&self.model.name),
            screen.dim(&show_size(self.model.size_bytes))
        ));
        for (name, value) in [
            (
                "prompt",
                format!(
                    "{:.0} tokens/s ({} tokens)",
                    self.prefill, self.prompt_tokens
                ),
            ),
            (
                "answer",
                format!(
                    "{:.1} tokens/s ({} tokens)",
                    self.decode, self.answer_tokens
                ),
            ),
            (
                "first token",
                format!(
                    "{}; {} for the same prompt again",
                    milliseconds(self.cold),
                    milliseconds(self.warm)
                ),
            ),
            (
                "memory",
                self.memory.map_or_else(|| "not known".into(), show_size),
            ),
            ("energy", energy),
        ] {
            println(&format!("  {:<12} {value}", screen.dim(name)));
        }
    }
}

fn show_machine(report: &MachineReport, screen: &Screen) {
    let Some(machine) = &report.machine else {
        return;
    };
    let gpu = match machine.gpu_memory {
        0 => String::new(),
        bytes => format!(", {} of it free on the GPU", show_size(bytes)),
    };
    println(&format!(
        "{}  {}",
        screen.bold(&machine.device),
        screen.dim(&format!("{}{gpu}", show_size(machine.memory)))
    ));
    println(&format!(
        "  reads {}/s of weights and computes {:.2} TFLOP/s of a prompt\n",
        show_size(machine.weight_bytes_per_second as u64),
        machine.operations_per_second / 1e12
    ));
    let most = report
        .models
        .iter()
        .filter(|model| model.estimate.fit != Fit::No && !model.embeds)
        .map(|model| model.estimate.decode)
        .fold(1.0, f64::max);
    let mut rows = vec![
        ["MODEL", "MEMORY", "FITS", "ANSWER", "PROMPT", ""]
            .map(String::from)
            .to_vec(),
    ];
    for model in &report.models {
        let likely = &model.estimate;
        let here = if model.here { " *" } else { "" };
        let (fits, speed) = match likely.fit {
            Fit::Whole => ("yes", true),
            Fit::Shared => ("in part", true),
            Fit::No => ("no", false),
        };
        let figure = |value: f64| match speed {
            true => format!("~{} tokens/s", rounded(value)),
            false => "-".into(),
        };
        let bar = match speed && !model.embeds {
            true => "▇".repeat((likely.decode / most * 24.0).ceil() as usize),
            false => String::new(),
        };
        rows.push(vec![
            format!("{}{here}", model.name),
            show_size(likely.bytes),
            fits.into(),
            match model.embeds {
                true => "embeds".into(),
                false => figure(likely.decode),
            },
            figure(likely.prefill),
            bar,
        ]);
    }
    print(&screen.table(&rows));
    println(&screen.dim(
        "Estimated from what this machine reads and computes, for 4-bit weights; * is here already. `hearth pull MODEL` gets one, `hearth bench MODEL` measures it.",
    ));
}

/// Two digits are all that an estimate is worth.
fn rounded(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.1}");
    }
    let unit = 10f64.powf(value.log10().floor() - 1.0);
    format!("{:.0}", (value / unit).round() * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_show_two_digits() {
        for (value, text) in [
            (0.44, "0.4"),
            (9.96, "10.0"),
            (12.34, "12"),
            (187.0, "190"),
            (5321.0, "5300"),
        ] {
            assert_eq!(rounded(value), text);
        }
    }

    #[test]
    fn rounds_begin_with_different_words() {
        assert_ne!(words(100, 0), words(100, 1));
        assert_eq!(words(130, 2).split(' ').count(), 101);
    }
}
