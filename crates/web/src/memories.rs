//! The page at `/memories`: what is remembered, found, looked at, changed and forgotten.
//!
//! Listing, searching and looking work by links and forms; the script (`memories.js`) adds what changes something, by
//! way of `/memory`.

use hearth_protocol::memory::{Found, Hit, Listed, Memory, Stats, Why};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::asset::address;
use crate::head::{head, ways};
use crate::snippet::snippet;

/// Most characters of a memory that a list shows; looking at one shows all.
const SHOWN: usize = 1_000;
/// Digits of an id that are enough for people.
const SHORT_ID: usize = 12;
/// Kinds that are offered; any other word is one, too.
const KINDS: [&str; 4] = ["note", "decision", "fact", "preference"];

/// What the page is asked for: the fields of its forms. Empty ones are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// What is searched.
    pub query: String,
    /// Only this project's, and those of every project.
    pub project: String,
    /// Only this kind.
    pub kind: String,
    /// Only those with this tag.
    pub tag: String,
    /// The last of the page before.
    pub after: String,
    /// The one to look at.
    pub id: String,
}

impl Asked {
    /// Address of the page for this.
    fn address(&self) -> String {
        let fields = [
            ("id", &self.id),
            ("q", &self.query),
            ("project", &self.project),
            ("kind", &self.kind),
            ("tag", &self.tag),
            ("after", &self.after),
        ];
        let said: Vec<String> = fields
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
            .collect();
        match said.is_empty() {
            true => "/memories".into(),
            false => format!("/memories?{}", said.join("&")),
        }
    }

    fn is_filtered(&self) -> bool {
        [&self.query, &self.project, &self.kind, &self.tag]
            .into_iter()
            .any(|field| !field.is_empty())
    }
}

/// What there is to show.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    /// A page of memories.
    Listed(Listed),
    /// What a search found.
    Found(Found),
    /// One memory.
    One(Box<Memory>),
    /// Why there is nothing to show.
    Refused(String),
}

/// The page. `door` is the node's address, `stats` the store's state or why it is not known.
pub fn memories(door: &str, asked: &Asked, stats: Result<&Stats, &str>, shown: &Shown) -> String {
    let is_empty =
        stats.is_ok_and(|stats| stats.memories + stats.superseded + stats.withdrawn == 0);
    html! {
        (DOCTYPE)
        html lang="en" {
            (head("Memory · Hearth", "What your tools remember.", &["copy.js", "memories.js"]))
            body {
                a.skip href="#shown" { "Skip to the memories" }
                header {
                    h1 { img src=(address("hearth.svg")) alt="" width="28" height="28"; "Memory" }
                    (ways("/memories"))
                }
                main {
                    div #state { (state(stats)) }
                    @if !matches!(shown, Shown::One(_)) { (adding()) (searching(asked, stats)) }
                    p #said role="status" {}
                    noscript { p.hint { "Adding, changing and forgetting need JavaScript here, or `hearth memory` in a terminal." } }
                    section #shown tabindex="-1" aria-label="Memories" {
                        @match shown {
                            Shown::Refused(reason) => {
                                p.wrong role="alert" { (reason) }
                                p { a href="/memories" { "All memories" } }
                            }
                            Shown::Listed(listed) => { (list(asked, listed, is_empty)) }
                            Shown::Found(found) => { (hits(asked, found)) }
                            Shown::One(memory) => { (one(memory)) }
                        }
                    }
                    (connecting(door, is_empty))
                    (asking())
                }
            }
        }
    }
    .into_string()
}

/// What a browser shows at `/mcp`, which is for coding tools. `door` is the node's address.
pub fn mcp(door: &str) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head("MCP · Hearth", "Where coding tools find the memory.", &["copy.js"]))
            body {
                header {
                    h1 { img src=(address("hearth.svg")) alt="" width="28" height="28"; "MCP" }
                    (ways("/mcp"))
                }
                main {
                    p {
                        "This address is for coding tools, which speak MCP with it, and not for a browser: they find, add and \
                         change what is remembered. What that is you see at " a href="/memories" { "Memory" } "."
                    }
                    p {
                        "A tool that takes a command instead of an address gets " code { "hearth mcp" } "; "
                        code { "hearth mcp config TOOL" } " prints what to write where, for Claude Code, Codex, Cursor and others."
                    }
                    (connecting(door, true))
                }
            }
        }
    }
    .into_string()
}

/// The store in one line.
fn state(stats: Result<&Stats, &str>) -> Markup {
    let stats = match stats {
        Ok(stats) => stats,
        Err(reason) => return html! { p.wrong role="alert" { (reason) } },
    };
    let count = |number: u64, what: &str| (number > 0).then(|| format!(", {number} {what}"));
    html! {
        p.state-line {
            (number(stats.memories, "memory", "memories"))
            @for part in [
                count(stats.pinned, "pinned"), count(stats.cold, "cold"), count(stats.superseded, "superseded"),
                count(stats.withdrawn, "withdrawn"),
            ] {
                (part.unwrap_or_default())
            }
            @if let Some(encoder) = &stats.encoder {
                " · found by meaning and words, "
                @match stats.approximate.filter(|index| index.in_use) {
                    Some(index) => {
                        "approximately among " (number(index.vectors, "vector", "vectors"))
                        " (with " (format!("{:.1}", index.recall * 100.0)) " % of the nearest)"
                    }
                    None => { "exactly among " (number(stats.scanned, "vector", "vectors")) }
                }
                " · encoder " (encoder)
                (count(stats.unencoded, "being encoded, found by words until then").unwrap_or_default())
            }
        }
        @if let Some(reason) = &stats.words_only { p.hint { (capitalised(reason)) } }
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

fn number(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn adding() -> Markup {
    html! {
        form.needs-script #add {
            label.hidden for="text" { "What to remember" }
            textarea #text name="text" rows="2" required autocomplete="off"
                placeholder="Something to remember" aria-describedby="add-wrong" {}
            div.row {
                details {
                    summary { "Project, kind, tags" }
                    (fields(None))
                }
                button.main type="submit" { "Remember" }
            }
            p.wrong #add-wrong role="alert" {}
        }
    }
}

/// The fields of a memory beside its text.
fn fields(memory: Option<&Memory>) -> Markup {
    let tags = memory.map(|memory| {
        let written: Vec<String> = memory.tags.iter().map(|tag| written(tag)).collect();
        written.join(", ")
    });
    html! {
        div.fields {
            // A memory stays with its project.
            @if memory.is_none() {
                label { "Project" input name="project" list="projects" autocomplete="off" placeholder="every project"; }
            }
            label {
                "Kind"
                input name="kind" list="kinds" autocomplete="off" placeholder="note" value=[memory.map(|memory| &memory.kind)];
            }
            label { "Tags" input name="tags" autocomplete="off" placeholder="with, commas" title="Tags with commas between them; one that has a comma itself stands in quotes" value=[tags]; }
            label {
                "Confidence"
                input name="confidence" type="number" min="0" max="1" step="any" placeholder="1: sure"
                    value=[memory.map(|memory| share(memory.confidence))];
            }
        }
        label.check {
            input name="pinned" type="checkbox" checked[memory.is_some_and(|memory| memory.pinned)];
            "Pinned: counts more, never grows cold"
        }
    }
}

/// A tag as it is written among others, and as the page's script reads it: in quotes if it has a comma or a quote, or
/// begins with the `#` that people write before a tag.
fn written(tag: &str) -> String {
    match tag.starts_with('#') || tag.contains([',', '"']) {
        true => format!("\"{}\"", tag.replace('"', "\"\"")),
        false => tag.to_owned(),
    }
}

/// A share as people write it: 0.35 and not what is nearest to it in 32 bits.
fn share(share: f32) -> String {
    share.to_string()
}

fn searching(asked: &Asked, stats: Result<&Stats, &str>) -> Markup {
    let projects: Vec<(&str, u64)> = stats.map_or(Vec::new(), |stats| {
        let named = stats.projects.iter();
        named
            .filter_map(|(project, count)| Some((project.as_deref()?, *count)))
            .collect()
    });
    let is_unknown =
        !asked.project.is_empty() && !projects.iter().any(|(name, _)| *name == asked.project);
    let is_open = !asked.kind.is_empty() || !asked.tag.is_empty();
    html! {
        form #search method="get" action="/memories" role="search" {
            label.hidden for="query" { "Search" }
            input #query name="q" type="search" value=(asked.query) placeholder="Search by meaning and words" autocomplete="off";
            label.hidden for="project" { "Of which project" }
            select #project name="project" {
                option value="" { "All projects" }
                @if is_unknown { option value=(asked.project) selected { (asked.project) " (0)" } }
                @for (name, count) in &projects {
                    option value=(name) selected[*name == asked.project] { (name) " (" (count) ")" }
                }
            }
            button type="submit" { "Search" }
            details open[is_open] {
                summary { "Kind, tag" }
                div.fields {
                    label { "Kind" input name="kind" list="kinds" value=(asked.kind) autocomplete="off"; }
                    label { "Tag" input name="tag" value=(asked.tag) autocomplete="off"; }
                }
            }
            @if asked.is_filtered() { a href="/memories" { "All memories" } }
            datalist #kinds { @for kind in KINDS { option value=(kind) {} } }
            datalist #projects { @for (name, _) in &projects { option value=(name) {} } }
        }
    }
}

fn list(asked: &Asked, listed: &Listed, is_empty: bool) -> Markup {
    html! {
        @if is_empty { (welcome()) }
        @else if listed.memories.is_empty() {
            p.welcome { "Nothing is like that. " a href="/memories" { "All memories" } }
        }
        ul.memories { @for memory in &listed.memories { li { (card(asked, memory, None)) } } }
        nav.pages aria-label="Pages" {
            @if !asked.after.is_empty() { a href=(Asked { after: String::new(), ..asked.clone() }.address()) { "Newest" } }
            @if let Some(next) = &listed.next {
                a rel="next" href=(Asked { after: next.clone(), ..asked.clone() }.address()) { "Older" }
            }
        }
    }
}

fn hits(asked: &Asked, found: &Found) -> Markup {
    html! {
        @if found.memories.is_empty() {
            p.welcome { "Nothing was found for “" (asked.query) "”. " a href="/memories" { "All memories" } }
        } @else {
            p.hint { (number(found.count as u64, "memory fits", "memories fit")) ", the best first" }
        }
        ul.memories { @for hit in &found.memories { li { (card(asked, &hit.memory, Some(hit))) } } }
    }
}

fn welcome() -> Markup {
    html! {
        div.note {
            p {
                strong { "Nothing is remembered yet. " }
                "Write something into the field above, or in a terminal. It stays on this machine."
            }
            (snippet("Terminal", "hearth memory add \"We deploy on Fridays\" --project shop\nhearth memory import CLAUDE.md docs/adr"))
        }
    }
}

/// A memory in a list.
fn card(asked: &Asked, memory: &Memory, hit: Option<&Hit>) -> Markup {
    let beginning: String = memory.text.chars().take(SHOWN).collect();
    let is_cut = beginning.len() < memory.text.len();
    html! {
        article.memory data-id=(memory.id) data-pinned=(memory.pinned) {
            p.text { (beginning) @if is_cut { "… " a href=(look_at(&memory.id)) { "Read on" } } }
            div.facts {
                (facts(asked, memory, hit.map(|hit| hit.score)))
                (buttons(memory, true))
            }
            @if let Some(why) = hit.and_then(|hit| hit.why) { (reasons(&why)) }
            p.wrong role="alert" {}
        }
    }
}

fn look_at(id: &str) -> String {
    let asked = Asked {
        id: id.to_owned(),
        ..Asked::default()
    };
    asked.address()
}

/// Kind, project, tags and date; all but the date narrow the list.
fn facts(asked: &Asked, memory: &Memory, score: Option<f32>) -> Markup {
    let narrowed = |change: &dyn Fn(&mut Asked)| {
        let mut narrow = Asked {
            after: String::new(),
            id: String::new(),
            ..asked.clone()
        };
        change(&mut narrow);
        narrow.address()
    };
    html! {
        span.list {
            a href=(narrowed(&|narrow| narrow.kind.clone_from(&memory.kind))) { (memory.kind) }
            @if let Some(project) = &memory.project {
                " · " a href=(narrowed(&|narrow| narrow.project.clone_from(project))) { (project) }
            }
            @for tag in &memory.tags {
                " · " a href=(narrowed(&|narrow| narrow.tag.clone_from(tag))) { "#" (tag) }
            }
            @if memory.confidence < 1.0 { " · " (format!("{:.0} % sure", memory.confidence * 100.0)) }
            " · " (day(memory))
            @if let Some(score) = score { " · score " (format!("{score:.2}")) }
        }
    }
}

fn day(memory: &Memory) -> Markup {
    let written = memory.written.to_string();
    let day = written.get(..10).unwrap_or(&written);
    html! { time datetime=(written) title=(written) { (day) } }
}

/// What can be done with a memory; by the script.
fn buttons(memory: &Memory, in_list: bool) -> Markup {
    let beginning: String = memory.text.chars().take(40).collect();
    html! {
        span.buttons {
            @if in_list { a.button href=(look_at(&memory.id)) aria-label={ "Open: " (beginning) } { "Open" } }
            @if memory.superseded.is_none() {
                button.needs-script.pin type="button" aria-pressed=(memory.pinned) aria-label={ "Pin: " (beginning) } title="Pin" {
                    @if memory.pinned { "★" } @else { "☆" }
                }
            }
            button.needs-script.forget type="button" aria-label={ "Forget: " (beginning) } { "Forget" }
        }
    }
}

fn reasons(why: &Why) -> Markup {
    let times = |factor: f32| format!("× {factor:.2}");
    let value = |value: Option<f32>| value.map_or("none".into(), |value| format!("{value:.2}"));
    html! {
        details.why {
            summary { "Why" }
            dl {
                div { dt { "Meaning (cosine)" } dd { (value(why.similarity)) } }
                div { dt { "Words (BM25)" } dd { (value(why.words)) } }
                div { dt { "Age" } dd { (times(why.recency)) } }
                div { dt { "Pinned" } dd { (times(why.pinned)) } }
                @if why.cold { div { dt { "Tier" } dd { "was cold" } } }
            }
        }
    }
}

fn one(memory: &Memory) -> Markup {
    let link = |id: &String| html! { a href=(look_at(id)) title=(id) { (short(id)) } };
    let stamp = |time: String| html! { time datetime=(time) { (time.get(..16).unwrap_or(&time).replace('T', " ")) } };
    html! {
        p { a href="/memories" { "All memories" } }
        article.memory.whole data-id=(memory.id) data-pinned=(memory.pinned) {
            @if let Some(time) = &memory.superseded {
                p.note {
                    @match &memory.superseded_by {
                        Some(newer) => { "Superseded on " (stamp(time.to_string())) " by " (link(newer)) }
                        None => { "Withdrawn on " (stamp(time.to_string())) ", because no file says it any more" }
                    }
                    ". Searches no longer find it."
                }
            }
            p.text { (memory.text) }
            div.facts { (facts(&Asked::default(), memory, None)) (buttons(memory, false)) }
            p.wrong role="alert" {}
            dl.about-memory {
                div { dt { "Id" } dd { code { (memory.id) } } }
                div { dt { "Project" } dd { (memory.project.as_deref().unwrap_or("every project")) } }
                div { dt { "Confidence" } dd { (share(memory.confidence)) } }
                div { dt { "Source" } dd { (memory.source.as_deref().unwrap_or("not said")) } }
                div { dt { "Written (UTC)" } dd { (stamp(memory.written.to_string())) } }
                div {
                    dt { "Read" }
                    dd {
                        @match &memory.read {
                            Some(time) => { (number(memory.reads, "time", "times")) ", last " (stamp(time.to_string())) }
                            None => { "not yet" }
                        }
                    }
                }
                (lineage("Took the place of", &memory.supersedes, &link))
                (lineage("Says nearly the same as", &memory.related, &link))
            }
        }
        @if memory.superseded.is_none() {
            details.needs-script #editing {
                summary { "Edit" }
                form #edit data-id=(memory.id) {
                    label { "Text" textarea name="text" rows="5" required {
                        // A parser drops the first line end of a field.
                        (PreEscaped("\n")) (memory.text)
                    } }
                    p.hint { "A new text takes this memory’s place: the old one is kept, and searches no longer find it." }
                    (fields(Some(memory)))
                    datalist #kinds { @for kind in KINDS { option value=(kind) {} } }
                    p.wrong role="alert" {}
                    button.main type="submit" { "Save" }
                }
            }
        }
    }
}

fn lineage(what: &str, ids: &[String], link: &dyn Fn(&String) -> Markup) -> Markup {
    html! {
        @if !ids.is_empty() {
            div {
                dt { (what) }
                dd { @for (at, id) in ids.iter().enumerate() { @if at > 0 { ", " } (link(id)) } }
            }
        }
    }
}

fn short(id: &str) -> String {
    match id.chars().count() > SHORT_ID {
        true => format!("{}…", id.chars().take(SHORT_ID).collect::<String>()),
        false => id.to_owned(),
    }
}

fn connecting(door: &str, is_open: bool) -> Markup {
    html! {
        details open[is_open] {
            summary { "Use it from your tools" }
            p {
                "Coding tools remember and search here by MCP: at the address "
                code { "http://" (door) "/mcp" } ", or by the command " code { "hearth mcp" } ". In most of them:"
            }
            (snippet("MCP", "{\n  \"mcpServers\": {\n    \"hearth\": { \"command\": \"hearth\", \"args\": [\"mcp\"] }\n  }\n}"))
            p {
                "The chat and every OpenAI client get memories with their prompts if they ask for it:"
            }
            (snippet("curl", &format!(
                "curl http://{door}/v1/chat/completions -d '{{\"hearth\": {{\"memory\": true}},\n  \"messages\": [{{\"role\": \"user\", \"content\": \"When do we deploy?\"}}]}}'"
            )))
        }
    }
}

/// What is asked before something is forgotten.
fn asking() -> Markup {
    html! {
        dialog #forgetting aria-labelledby="forgetting-what" {
            form method="dialog" {
                p #forgetting-what { strong { "Forget this for good?" } }
                p.text #forgetting-text {}
                p.hint { "Its text, its words and its vector leave the files. There is no way back." }
                div.row {
                    button value="keep" autofocus { "Keep it" }
                    button.main value="forget" { "Forget it" }
                }
            }
        }
    }
}
