//! The page at `/models`: what this machine can do, and which models are likely to be fast on it.

use hearth_protocol::machine::{Fit, LikelyModel, Machine, MachineReport};
use hearth_protocol::status::NodeStatus;
use maud::{DOCTYPE, Markup, html};

use crate::asset::address;
use crate::head::head;
use crate::units::{size, speed};

/// Length of the longest bar, in units of the drawing.
const WIDTH: f64 = 100.0;

/// The table of models with their bars.
pub fn models(status: &NodeStatus, report: &MachineReport) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head("Models · Hearth", "Models for this machine.", false))
            body {
                header {
                    h1 { img src=(address("hearth.svg")) alt="" width="28" height="28"; "Models" }
                    a href="/" { "Back to the chat" }
                }
                main {
                    h2 { "On this machine" }
                    (here(status))
                    h2 { "What would fit" }
                    @match &report.machine {
                        None => { p { "Not measured yet. It takes a few seconds and all cores." } }
                        Some(machine) => { (measured(machine)) (table(&report.models)) }
                    }
                    form method="post" action="/machine" {
                        button type="submit" {
                            @if report.machine.is_some() { "Measure again" } @else { "Measure this machine" }
                        }
                    }
                }
            }
        }
    }
    .into_string()
}

fn here(status: &NodeStatus) -> Markup {
    html! {
        div.wide {
            table {
                thead { tr { th { "Model" } th.number { "Size" } th.number { "Context" } } }
                tbody {
                    @for model in &status.models {
                        tr {
                            td { (model.name) @if model.name == status.default_model { " (default)" } }
                            td.number { (size(model.size_bytes)) }
                            td.number {
                                @match model.context { Some(context) => { (context) } None => { "–" } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn measured(machine: &Machine) -> Markup {
    let threads = match machine.threads {
        1 => "1 thread".to_owned(),
        threads => format!("{threads} threads"),
    };
    html! {
        p {
            (machine.device) ": " (size(machine.memory)) " of memory"
            @if machine.gpu { ", " (size(machine.gpu_memory)) " free on the GPU" } @else { ", " (threads) }
            ". It reads " (size(machine.weight_bytes_per_second as u64)) " of 4-bit weights per second, and "
            "computes " (format!("{:.2}", machine.operations_per_second / 1e12)) " TFLOP/s of a prompt."
        }
    }
}

fn table(models: &[LikelyModel]) -> Markup {
    let fits = |model: &&LikelyModel| model.estimate.fit != Fit::No && !model.embeds;
    let most = models
        .iter()
        .filter(fits)
        .map(|model| model.estimate.decode);
    let most = most.fold(1.0, f64::max);
    html! {
        div.wide {
            table.folding {
                thead {
                    tr {
                        th { "Model" } th.number { "Memory" } th { "Fits" } th.number.less { "Prompt" }
                        th.number { "Answer" } th.bars { span.hidden { "Answer, drawn" } }
                    }
                }
                tbody {
                    @for model in models {
                        tr.absent[model.estimate.fit == Fit::No] {
                            td { code { (model.name) } @if model.here { " ✓" } }
                            td.number data-name="Memory" { (size(model.estimate.bytes)) }
                            td data-name="Fits" { (fit(model.estimate.fit)) }
                            @if model.estimate.fit == Fit::No {
                                td.number.less { "–" } td.number { "–" } td.bars {}
                            } @else {
                                td.number.less { (speed(model.estimate.prefill)) }
                                @if model.embeds {
                                    td.number { "embeds" } td.bars {}
                                } @else {
                                    td.number { (speed(model.estimate.decode)) }
                                    td.bars { (bar(model.estimate.decode / most)) }
                                }
                            }
                        }
                    }
                }
            }
        }
        p.hint {
            "Estimated for 4-bit weights and one conversation. ✓ is on this machine; "
            code { "hearth pull NAME" } " gets one, " code { "hearth bench NAME" } " measures it."
        }
    }
}

fn fit(fit: Fit) -> &'static str {
    match fit {
        Fit::Whole => "yes",
        Fit::Shared => "in part on the GPU",
        Fit::No => "no",
    }
}

/// A bar as a drawing: the page allows no styles of its own in elements.
fn bar(share: f64) -> Markup {
    let width = format!("{:.1}", (share * WIDTH).max(0.5));
    html! {
        svg viewBox={ "0 0 " (WIDTH) " 8" } preserveAspectRatio="none" aria-hidden="true" {
            rect width=(width) height="8" rx="1" {}
        }
    }
}
