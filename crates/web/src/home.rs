//! The page at `/`: chat, status, and how to reach the node from other tools.

use hearth_protocol::status::NodeStatus;
use maud::{DOCTYPE, Markup, html};

use crate::asset::address;
use crate::head::{head, ways};
use crate::snippet::snippet;
use crate::status;

/// The chat and status page.
pub fn home(status: &NodeStatus) -> String {
    let base = format!("http://{}/v1", status.address);
    html! {
        (DOCTYPE)
        html lang="en" {
            (head("Hearth", "A private AI on this machine.", &["copy.js", "hearth.js"]))
            body {
                a.skip href="#prompt" { "Skip to the prompt" }
                header {
                    h1 { img src=(address("hearth.svg")) alt="" width="28" height="28"; "Hearth" }
                    (ways("/"))
                    div.tools {
                        select #model aria-label="Model" autocomplete="off" {
                            @for model in &status.models {
                                option value=(model.name) selected[model.name == status.default_model] { (model.name) }
                            }
                            @for (name, machines) in status::elsewhere(status, |model| !model.embeds) {
                                option value=(name) { (name) " (" (machines.join(", ")) ")" }
                            }
                            @if status.models.is_empty() { option value="" { "no model" } }
                        }
                        button #new type="button" { "New chat" }
                        button #theme type="button" aria-label="Theme: as the system" title="Theme" { "◐" }
                    }
                }
                (status::strip(status))
                main {
                    noscript { (without_script(&base)) }
                    // The answer is said once, when it is whole; a live log would read every token.
                    div #log role="log" aria-label="Conversation" aria-live="off" tabindex="0" {
                        div.welcome #welcome {
                            p { "The models run on your own machines. Nothing you write leaves them." }
                            ul.examples {
                                @for example in EXAMPLES { li { button type="button" { (example) } } }
                            }
                        }
                    }
                    p.hidden #said role="status" {}
                    form #form {
                        label.hidden for="prompt" { "Message" }
                        textarea #prompt rows="1" placeholder="Ask something" autocomplete="off"
                            enterkeyhint="send" autofocus {}
                        button #send type="submit" { "Send" }
                        button #stop type="button" hidden { "Stop" }
                    }
                    div.below {
                        label.check title="Notes that fit the question go with it, and are named under the answer" {
                            input #use-memory type="checkbox" autocomplete="off";
                            "Use memory"
                        }
                        p.hint {
                            kbd { "Enter" } " sends, " kbd { "Shift" } "+" kbd { "Enter" } " starts a line, "
                            kbd { "Esc" } " stops, " kbd { "↑" } " edits the last message"
                        }
                    }
                    (settings())
                    (elsewhere(status, &base))
                }
            }
        }
    }
    .into_string()
}

const EXAMPLES: [&str; 4] = [
    "What is Hearth?",
    "How do I use my own model?",
    "Intent: remind me to buy milk at 6pm",
    "Write floor 3, theme ice, difficulty hard",
];

fn settings() -> Markup {
    html! {
        details #settings {
            summary { "Settings" }
            div.fields {
                label { "System prompt" textarea #system rows="2" {} }
                label { "Temperature" input #temperature type="number" min="0" max="2" step="0.1" placeholder="the model’s own"; }
                label { "Most tokens" input #max-tokens type="number" min="1" step="1" placeholder="to the end"; }
                label { "Project of the memories" input #memory-project placeholder="all projects" autocomplete="off"; }
                label {
                    "JSON Schema for the answer"
                    textarea #schema rows="3" spellcheck="false" placeholder="{\"type\": \"object\", …}"
                        aria-describedby="schema-error" {}
                }
                p #schema-error role="alert" {}
            }
        }
    }
}

fn curl(base: &str) -> String {
    format!(
        "curl {base}/chat/completions \\\n  -d '{{\"messages\": [{{\"role\": \"user\", \"content\": \"Hi\"}}]}}'"
    )
}

fn without_script(base: &str) -> Markup {
    html! {
        div.note {
            p {
                "The chat needs JavaScript. Without it this page shows the status above, as it was when the page was "
                "loaded: " a href="/" { "load it again" } "."
            }
            p { "In a terminal, " code { "hearth chat" } " talks to the node, and so does any HTTP client:" }
            pre { code { (curl(base)) } }
        }
    }
}

fn elsewhere(status: &NodeStatus, base: &str) -> Markup {
    let python = format!(
        "from openai import OpenAI\n\n\
         client = OpenAI(base_url=\"{base}\", api_key=\"none\")\n\
         answer = client.chat.completions.create(\n    \
             model=\"{}\", messages=[{{\"role\": \"user\", \"content\": \"Hi\"}}])\n\
         print(answer.choices[0].message.content)",
        status.default_model
    );
    html! {
        details {
            summary { "Use it from your tools" }
            p { "Base URL: " code { (base) } ". Any API key works." }
            (snippet("curl", &curl(base)))
            (snippet("Python", &python))
            p.links {
                a href="/openapi.json" { "API description" } " · " a href="/health" { "health" } " · "
                a href="/metrics" { "metrics" } " · version " (status.version)
            }
        }
    }
}
