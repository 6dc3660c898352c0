//! The status strip: what the node is doing, drawn small.

use hearth_protocol::status::{ModelState, ModelStatus, NodeStatus};
use maud::{Markup, html};

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
                @match model {
                    Some(model) => (cells(model)),
                    None => div { dt { "Model" } dd { "none; put a GGUF file into the models folder" } },
                }
                div { dt { "Memory" } dd #memory { (status.memory_bytes.map_or("–".into(), size)) } }
                div { dt { "CPU code" } dd { (status.cpu) } }
                div { dt { "Up" } dd #uptime { (duration(status.uptime_seconds)) } }
            }
        }
    }
}

fn cells(model: &ModelStatus) -> Markup {
    let load = model.load.unwrap_or_default();
    html! {
        div { dt { "Model" } dd { span #model-name { (model.name) } " " span.state #model-state data-state=(state(model.state)) { (words(model)) } } }
        div { dt { "Slots" } dd {
            span.slots #slots role="img" aria-label={ (load.slots_busy) " of " (load.slots) " slots busy" } {
                @for slot in 0..load.slots { i.busy[slot < load.slots_busy] {} }
            }
            " " span #queued { @if load.queued > 0 { (load.queued) " waiting" } }
        } }
        div { dt { "KV cache" } dd { meter #kv min="0" max=(load.kv_cells.max(1)) value=(load.kv_used) aria-label="KV cells in use" {} " " span #kv-text { (load.kv_used) " / " (load.kv_cells) } } }
        div { dt { "Speed" } dd #speed { (format!("{:.0} tokens/s", load.decode_tokens_per_second)) } }
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
        (ModelState::Loading, Some(progress)) => format!("loading {:.0} %", progress * 100.0),
        (other, _) => state(other).into(),
    }
}

fn size(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86400, seconds / 3600 % 24),
    }
}
