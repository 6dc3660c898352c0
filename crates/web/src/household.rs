//! The page at `/household`: the machines, and the way to each of them with the broken link marked.

use hearth_protocol::diagnosis::{Check, Diagnosis, Layer, Outcome, PeerPath, Verdict};
use hearth_protocol::peers::Peers;
use maud::{DOCTYPE, Markup, html};

use crate::asset::address;
use crate::head::{head, ways};

/// Length of one link, in units of the drawing.
const LINK: usize = 24;

/// The machines of a household.
pub fn household(peers: &Peers) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head("Household · Hearth", "The machines that answer together.", &["copy.js"]))
            body {
                header {
                    h1 { img src=(address("hearth.svg")) alt="" width="28" height="28"; "Household" }
                    (ways("/household"))
                }
                main {
                    p.hidden #said role="status" {}
                    @if peers.household.is_none() { (alone(peers)) } @else { (machines(peers)) }
                }
            }
        }
    }
    .into_string()
}

fn alone(peers: &Peers) -> Markup {
    html! {
        p { b { (peers.name) } " is alone. Another machine joins with a ticket:" }
        p { code { "hearth invite" } (copy("hearth invite")) " prints one here, and there "
            code { "hearth join TICKET" } " uses it." }
    }
}

fn machines(peers: &Peers) -> Markup {
    html! {
        @for peer in &peers.members {
            section.machine {
                h2 {
                    (peer.name)
                    @if peer.is_here { " " small { "this machine" } }
                    @if peer.is_hub { " " small { "hub" } }
                }
                @if !peer.is_here {
                    @match &peer.diagnosis {
                        None => { p { "Nobody has looked at the way there yet." } }
                        Some(diagnosis) => { (way(peers, diagnosis)) }
                    }
                }
                p.hint {
                    @if peer.capabilities.models.is_empty() { "No models are known." } @else {
                        @for model in &peer.capabilities.models {
                            code { (model.name) } @if model.loaded { " (loaded)" } " "
                        }
                    }
                }
            }
        }
        p.hint {
            "Another machine joins with a ticket: " code { "hearth invite" } (copy("hearth invite"))
        }
    }
}

fn way(peers: &Peers, diagnosis: &Diagnosis) -> Markup {
    let verdict = match (diagnosis.verdict, diagnosis.path) {
        (Verdict::Usable, PeerPath::Relayed) => {
            "A prompt gets through, by way of a relay".to_owned()
        }
        (Verdict::Usable, _) => "A prompt gets through".to_owned(),
        (Verdict::Unknown, _) => "Not looked at far enough yet".to_owned(),
        (Verdict::Failed, _) => match diagnosis.broken {
            Some(layer) => format!("No prompt gets through: broken at {}", layer.words()),
            None => "No prompt gets through".to_owned(),
        },
    };
    let trip = diagnosis
        .round_trip_ms
        .filter(|_| diagnosis.verdict == Verdict::Usable)
        .map_or_else(String::new, |trip| format!(", {trip:.1} ms there and back"));
    let told = diagnosis
        .checks
        .iter()
        .filter(|check| matches!(check.outcome, Outcome::Failed | Outcome::Note));
    html! {
        (drawn(peers, diagnosis, &verdict))
        p { (verdict) (trip) "." }
        @for check in told { (explained(check)) }
        details {
            summary { "All layers" }
            ol.layers {
                @for check in &diagnosis.checks {
                    li class=(class(check.outcome)) { b { (check.layer.words()) } ": " (spelt(&check.words)) }
                }
            }
        }
    }
}

fn explained(check: &Check) -> Markup {
    html! {
        p.told {
            @if let Some(code) = check.code { code { (code) } " " }
            (spelt(&check.words))
            @if let Some(fix) = &check.fix { br; b { "Fix: " } (spelt(fix)) }
        }
    }
}

/// A sentence whose commands stand between backticks.
fn spelt(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 0 { (part) } @else { code { (part) } }
        }
    }
}

/// The path as links from here to there; what is broken has a cross.
fn drawn(peers: &Peers, diagnosis: &Diagnosis, verdict: &str) -> Markup {
    let width = LINK * Layer::ALL.len() + 16;
    let links = Layer::ALL.iter().enumerate().map(|(at, layer)| {
        let outcome = diagnosis
            .check(*layer)
            .map_or(Outcome::Skipped, |check| check.outcome);
        (8 + at * LINK, *layer, outcome)
    });
    html! {
        figure.way {
            figcaption { (peers.name) " to " (diagnosis.name) }
            svg viewBox={ "0 0 " (width) " 24" } preserveAspectRatio="xMinYMid" role="img" aria-label=(verdict) {
                @for (x, layer, outcome) in links {
                    g class=(class(outcome)) {
                        title { (layer.words()) }
                        line x1=(x) y1="12" x2=(x + LINK) y2="12" {}
                        @if outcome == Outcome::Failed {
                            path d={ "M" (x + 7) " 7l10 10m0-10l-10 10" } {}
                        }
                    }
                }
                circle cx="8" cy="12" r="5" {}
                circle cx=(width - 8) cy="12" r="5" {}
            }
        }
    }
}

fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Note => "note",
        Outcome::Failed => "failed",
        Outcome::Skipped => "skipped",
    }
}

/// The button that copies a command.
fn copy(text: &str) -> Markup {
    html! { " " button.copy type="button" data-text=(text) title=(text) aria-label={ "Copy " (text) } { "Copy" } }
}
