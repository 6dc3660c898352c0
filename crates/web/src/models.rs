//! The page at `/models`: what this machine can do, and which models are likely to be fast on it.

use hearth_protocol::machine::{Fit, LikelyModel, Machine, MachineReport};
use hearth_protocol::status::NodeStatus;
use maud::{DOCTYPE, Markup, html};

use crate::asset::address;
use crate::head::{head, ways};
use crate::units::{size, speed};

/// Length of the longest bar, in units of the drawing.
const WIDTH: f64 = 100.0;

/// The table of models with their bars.
pub fn models(status: &NodeStatus, report: &MachineReport) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head("Models · Hearth", "Models for this machine.", &["copy.js"]))
            body {
                header {
                    h1 { img src=(address("hearth.svg")) alt="" width="28" height="28"; "Models" }
                    (ways("/models"))
                }
                main {
                    p.hidden #said role="status" {}
                    h2 { "On this machine" }
                    (here(status))
                    @if !status.elsewhere.is_empty() {
                        h2 { "On the other machines" }
                        (elsewhere(status))
                    }
                    h2 { "What would fit" }
                    @match &report.machine {
                        None => { p { "Not measured yet. It takes a few seconds and all cores." } }
                        Some(machine) => { (measured(machine)) (table(status, &report.models)) }
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
                thead { tr { th.name { "Model" } th.number { "Size" } th.number { "Context" } } }
                tbody {
                    @for model in &status.models {
                        tr {
                            td.name {
                                code { (model.name) } @if model.name == status.default_model { " (default)" }
                                // Nobody talks to a model that embeds.
                                @if model.dimensions.is_none() { (command(status, &model.name, true)) }
                            }
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

/// What any request may name as well: the household answers as one.
fn elsewhere(status: &NodeStatus) -> Markup {
    html! {
        div.wide {
            table {
                thead { tr { th.name { "Model" } th { "Machine" } th.number { "Size" } th.number { "Context" } } }
                tbody {
                    @for model in &status.elsewhere {
                        tr {
                            td.name {
                                code { (model.name) } @if model.loaded { " (loaded)" }
                                @if !model.embeds {
                                    (command(status, &format!("{}/{}", model.machine, model.name), true))
                                }
                            }
                            td { (model.machine) }
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

/// The button that copies what one types to use a model, or to get it.
fn command(status: &NodeStatus, model: &str, here: bool) -> Markup {
    let verb = if here { "chat --model" } else { "pull" };
    let mut text = format!("hearth {verb} {}", quoted(model));
    // Where the commands look unless told otherwise.
    if !status.address.ends_with(":8321") {
        text += &format!(" --host {}", status.address);
    }
    html! {
        " " button.copy type="button" data-text=(text) title=(text) aria-label={ "Copy " (text) } { "Copy" }
    }
}

/// A name as one word of a shell, whatever somebody called the file.
fn quoted(name: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._:/-".contains(letter);
    match name.chars().all(is_plain) {
        true => name.to_owned(),
        false => format!("'{}'", name.replace('\'', r"'\''")),
    }
}

fn table(status: &NodeStatus, models: &[LikelyModel]) -> Markup {
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
                            td.name {
                                code { (model.name) } @if model.here { " ✓" }
                                @if if model.here { !model.embeds } else { model.estimate.fit != Fit::No } {
                                    (command(status, &model.name, model.here))
                                }
                            }
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
            "Estimated for 4-bit weights and one conversation. ✓ is on this machine. Copy copies the command that "
            "gets a model, " code { "hearth pull NAME" } ", or talks to one that is here, "
            code { "hearth chat --model NAME" } ". " code { "hearth bench NAME" } " measures it."
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
