//! `hearth status`: what the node is doing.

use clap::Args;
use hearth_protocol::status::{ModelLoad, ModelStatus, NodeStatus};
use serde_json::json;

use super::Context;
use super::models::state;
use crate::addressed;
use crate::config::show_size;
use crate::failure::Outcome;
use crate::screen::{Screen, print, println};

/// Flags of `hearth status`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth status
  hearth status --json | jq '.models[] | select(.state == \"ready\") | .name'

Exit code 3 means that no node runs.")]
pub struct StatusArgs {}

/// Prints the status.
pub async fn run(context: &Context) -> Outcome {
    let (_, status) = addressed::running(&context.config).await?;
    match context.screen.json {
        true => println(&json!(status).to_string()),
        false => print(&draw(&status, &context.screen)),
    }
    Ok(())
}

fn draw(status: &NodeStatus, screen: &Screen) -> String {
    let memory = status.memory_bytes.map_or_else(String::new, |bytes| {
        format!(", {} of memory", show_size(bytes))
    });
    let mut text = format!(
        "{} {} at http://{}\n  version {}, pid {}, up {}, CPU code {}{memory}\n",
        screen.green("●"),
        screen.bold("hearth"),
        status.address,
        status.version,
        status.pid,
        age(status.uptime_seconds),
        status.cpu,
    );
    for model in &status.models {
        let default = if model.name == status.default_model {
            " (default)"
        } else {
            ""
        };
        text += &format!(
            "\n{}{default}  {}, {}",
            screen.bold(&model.name),
            state(model),
            show_size(model.size_bytes)
        );
        text += &described(model);
        text.push('\n');
        if let Some(load) = &model.load {
            text += &loaded(load, screen);
        }
    }
    text
}

fn described(model: &ModelStatus) -> String {
    let mut parts = Vec::new();
    if let Some(architecture) = &model.architecture {
        parts.push(architecture.clone());
    }
    if let Some(parameters) = model.parameters {
        parts.push(match parameters {
            0..1_000_000_000 => format!("{:.1} M parameters", parameters as f64 / 1e6),
            _ => format!("{:.1} B parameters", parameters as f64 / 1e9),
        });
    }
    if let Some(context) = model.context {
        parts.push(format!("context {context}"));
    }
    parts.iter().map(|part| format!(", {part}")).collect()
}

fn loaded(load: &ModelLoad, screen: &Screen) -> String {
    let reused = match load.prefill_tokens + load.cached_tokens {
        0 => 0.0,
        all => load.cached_tokens as f64 / all as f64 * 100.0,
    };
    let rows = [
        (
            "slots",
            bar(load.slots_busy.into(), load.slots.into()),
            format!(
                "{} of {} busy, {} waiting",
                load.slots_busy, load.slots, load.queued
            ),
        ),
        (
            "KV",
            bar(load.kv_used.into(), load.kv_cells.into()),
            format!(
                "{} of {} tokens, {} parked",
                load.kv_used,
                load.kv_cells,
                show_size(load.parked_bytes)
            ),
        ),
        (
            "speed",
            String::new(),
            format!(
                "{:.1} tokens/s decode, {:.0} tokens/s prefill",
                load.decode_tokens_per_second, load.prefill_tokens_per_second
            ),
        ),
        (
            "so far",
            String::new(),
            format!(
                "{} answered, {} cancelled, {} tokens, {reused:.0} % of prompts from cache",
                load.completed, load.cancelled, load.decode_tokens
            ),
        ),
    ];
    let line = |(name, bar, what): (&str, String, String)| {
        let space = if bar.is_empty() { "" } else { " " };
        format!(
            "  {} {bar}{space}{what}\n",
            screen.dim(&format!("{name:<7}"))
        )
    };
    rows.into_iter().map(line).collect()
}

/// Ten cells; anything above nothing shows.
fn bar(part: u64, whole: u64) -> String {
    const CELLS: u64 = 10;
    let filled = if whole == 0 {
        0
    } else {
        (part.min(whole) * CELLS).div_ceil(whole)
    };
    format!(
        "{}{}",
        "▮".repeat(filled as usize),
        "▯".repeat((CELLS - filled) as usize)
    )
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_never_longer_than_ten() {
        for (part, whole, filled) in [
            (0, 4, 0),
            (1, 4, 3),
            (4, 4, 10),
            (9, 4, 10),
            (0, 0, 0),
            (1, 100_000, 1),
        ] {
            let drawn = bar(part, whole);
            assert_eq!(drawn.chars().count(), 10);
            assert_eq!(drawn.matches('▮').count(), filled, "{part} of {whole}");
        }
    }
}
