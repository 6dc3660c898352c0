//! The status strip: what the node is doing, drawn small.

use hearth_protocol::status::{ModelElsewhere, ModelLoad, ModelState, ModelStatus, NodeStatus};
use maud::{Markup, html};

use crate::units::{duration, percent, size, speed};

/// The strip; the script replaces its numbers while the page is open.
pub(crate) fn strip(status: &NodeStatus) -> Markup {
    let model = status
        .models
        .iter()
        .find(|model| model.name == status.default_model)
        .or(status.models.first());
    html! {
        section.status #status aria-label="Status of this node" {
            dl {
                div.model {
                    dt { "Model" }
                    dd {
                        span #model-name { (model.map_or(NONE, |model| &model.name)) } " "
                        span.state #model-state data-state=(model.map_or("idle", |model| state(model.state))) {
                            (model.map(words).unwrap_or_default())
                        }
                    }
                }
                (cells(model.and_then(|model| model.load)))
                div { dt { "Memory" } dd #memory { (status.memory_bytes.map_or(UNKNOWN.into(), size)) } }
                div { dt { "CPU code" } dd { (status.cpu) } }
                div { dt { "Up" } dd #uptime { (duration(status.uptime_seconds)) } }
            }
        }
    }
}

/// The models that other machines have and this one has not, of those that are `wanted`: each once, with its machines.
pub(crate) fn elsewhere(
    status: &NodeStatus,
    wanted: impl Fn(&ModelElsewhere) -> bool,
) -> Vec<(&str, Vec<&str>)> {
    let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
    for model in status.elsewhere.iter().filter(|model| wanted(model)) {
        if status.models.iter().any(|own| own.name == model.name) {
            continue;
        }
        match found.iter_mut().find(|(name, _)| *name == model.name) {
            Some((_, machines)) => machines.push(&model.machine),
            None => found.push((&model.name, vec![&model.machine])),
        }
    }
    found
}

const NONE: &str = "none; put a GGUF file into the models folder";
const UNKNOWN: &str = "–";

/// The live counters; dashes while the model is not loaded.
fn cells(load: Option<ModelLoad>) -> Markup {
    let queued = match load {
        None => UNKNOWN.into(),
        Some(load) if load.queued > 0 => format!("{} waiting", load.queued),
        Some(_) => String::new(),
    };
    let cells = load.map_or(UNKNOWN.into(), |load| {
        format!("{} / {}", load.kv_used, load.kv_cells)
    });
    let load = load.unwrap_or_default();
    html! {
        div {
            dt { "Slots" }
            dd {
                span.slots #slots role="img" aria-label={ (load.slots_busy) " of " (load.slots) " slots busy" } {
                    @for slot in 0..load.slots { i.busy[slot < load.slots_busy] {} }
                }
                " " span #queued { (queued) }
            }
        }
        div {
            dt { "KV tokens" }
            dd {
                meter #kv min="0" max=(load.kv_cells.max(1)) value=(load.kv_used) aria-label="KV cells in use" {}
                " " span #kv-text { (cells) }
            }
        }
        div { dt { "Speed" } dd #speed { (speed(f64::from(load.decode_tokens_per_second))) } }
    }
}

fn state(state: ModelState) -> &'static str {
    match state {
        ModelState::Idle => "idle",
        ModelState::Loading => "loading",
        ModelState::Ready => "ready",
        ModelState::Failed => "failed",
    }
}

fn words(model: &ModelStatus) -> String {
    match (model.state, model.progress) {
        (ModelState::Loading, progress) => {
            format!("loading {}", percent(progress.unwrap_or(0.0).into()))
        }
        (other, _) => state(other).into(),
    }
}
