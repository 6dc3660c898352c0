//! `hearth memory`: what your tools remember, from the command line.
//!
//! A running node does the work, so that what it serves and what is typed here agree at once. Without one the home's
//! own database is opened, which gives the same answers.

mod household;
mod import;

use std::io::{Read, Write};

use clap::{Args, Subcommand};
use hearth_memory::{Error, Memories};
use hearth_protocol::memory::{
    Change, Examined, Found, Listed, Memory, NewMemory, Outcome as Became, Search, Stats, Written,
};
use hyper::Method;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Context;
use crate::addressed;
use crate::client::{Client, ClientError};
use crate::config::show_size;
use crate::failure::{Exit, Failure, Outcome};
use crate::memories;
use crate::screen::{Screen, print, println};

/// Flags of `hearth memory`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth memory add \"The staging server listens on 8443\" --project shop --tag net
  hearth memory search \"which port does staging use\"
  hearth memory stats

Memories are found by meaning and by words. They stay in the home on this machine.")]
pub struct MemoryArgs {
    #[command(subcommand)]
    command: MemoryCommand,
}

#[derive(Debug, Subcommand)]
enum MemoryCommand {
    /// Remember something
    Add(AddArgs),
    /// Find memories by meaning and by words
    Search(SearchArgs),
    /// List memories, newest first
    List(ListArgs),
    /// Show one memory, with what it replaced
    Show(ShowArgs),
    /// Say it anew: the old text is kept, and no longer found
    Edit(EditArgs),
    /// Forget memories for good
    #[command(aliases = ["delete", "remove", "rm"])]
    Forget(ForgetArgs),
    /// Pin a memory: it counts more, and never grows cold
    Pin(PinArgs),
    /// Read Markdown, CLAUDE.md, decision records, JSON lines, or an export of ChatGPT or Claude
    Import(import::ImportArgs),
    /// Write all memories as JSON lines; importing them makes the same store again
    Export(ExportArgs),
    /// Let the machines of the household search memories, or not any more
    Share(household::ShareArgs),
    /// Show how many there are, of which projects, and how they are found
    Stats(StatsArgs),
    /// Look for damage, and mend it
    Doctor(DoctorArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth memory add \"We deploy on Fridays\" --kind decision --project shop
  git log -1 --format=%B | hearth memory add - --source git
  hearth memory add \"We deploy on Mondays\" --supersedes mem-0123…

What is there already is merged; what nearly is is linked.")]
struct AddArgs {
    /// What to remember; - reads it from standard input
    #[arg(value_name = "TEXT", required = true)]
    text: Vec<String>,
    /// note, decision, fact, preference, or any other word [default: note]
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Whose it is; without one it belongs to every project
    #[arg(long, short, value_name = "NAME")]
    project: Option<String>,
    /// A word to find it by; may be given again
    #[arg(long = "tag", short, value_name = "TAG")]
    tags: Vec<String>,
    /// How sure it is, 0 to 1 [default: 1]
    #[arg(long, value_name = "SHARE")]
    confidence: Option<f32>,
    /// It counts more, and never grows cold
    #[arg(long)]
    pin: bool,
    /// Where it comes from
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// The memory whose place it takes
    #[arg(long, value_name = "ID")]
    supersedes: Option<String>,
}

#[derive(Debug, Args)]
struct Within {
    /// Only this project's, and those of every project
    #[arg(long, short, value_name = "NAME")]
    project: Option<String>,
    /// Only this kind
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only those with this tag; may be given again
    #[arg(long = "tag", short, value_name = "TAG")]
    tags: Vec<String>,
    /// Only those as sure as this, 0 to 1
    #[arg(long, value_name = "SHARE")]
    min_confidence: Option<f32>,
    /// Most memories, 1 to 100
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<usize>,
}

impl Within {
    fn search(&self, query: &str, explain: bool) -> Search {
        Search {
            query: query.to_owned(),
            project: self.project.clone(),
            limit: self.limit,
            min_confidence: self.min_confidence,
            kind: self.kind.clone(),
            tags: self.tags.clone(),
            explain,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth memory search \"how do we deploy\"
  hearth memory search port --project shop --explain
  hearth memory search port --json | jq -r '.memories[].text'")]
struct SearchArgs {
    /// What to look for, in any words
    #[arg(value_name = "QUERY", required = true)]
    query: Vec<String>,
    #[command(flatten)]
    within: Within,
    /// Say why each was found
    #[arg(long)]
    explain: bool,
    /// Ask every machine of the household
    #[arg(long)]
    everywhere: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth memory list
  hearth memory list --project shop --kind decision -n 50")]
struct ListArgs {
    #[command(flatten)]
    within: Within,
    /// Those after this one: the last of the page before
    #[arg(long, value_name = "ID")]
    after: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth memory show mem-0123…
  hearth memory show mem-0123

An id's first digits do, if no other begins so: here, and wherever an id is asked for.")]
struct ShowArgs {
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth memory edit mem-0123… --text \"We deploy on Mondays\"
  hearth memory edit mem-0123… --confidence 0.5 --tag old")]
struct EditArgs {
    #[arg(value_name = "ID")]
    id: String,
    /// The new text; - reads it from standard input
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// The new kind
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// The new tags, all of them; may be given again
    #[arg(long = "tag", short, value_name = "TAG")]
    tags: Vec<String>,
    /// How sure it is, 0 to 1
    #[arg(long, value_name = "SHARE")]
    confidence: Option<f32>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth memory forget mem-0123…

Text, words and vectors leave the files, and so do those of the older ones whose place it took. There is no way back.")]
struct ForgetArgs {
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth memory pin mem-0123…
  hearth memory pin mem-0123… --off")]
struct PinArgs {
    #[arg(value_name = "ID")]
    id: String,
    /// Take the pin away
    #[arg(long)]
    off: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth memory export > memories.jsonl
  hearth memory export | jq -r .text")]
struct ExportArgs {}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth memory stats")]
struct StatsArgs {}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth memory doctor
  hearth memory doctor --fix

Exit code 1 means that something is wrong and was not mended.")]
struct DoctorArgs {
    /// Mend what can be mended
    #[arg(long)]
    fix: bool,
}

/// Runs the command.
///
/// # Errors
/// What the node or the memory refuses.
pub async fn run(context: &Context, args: &MemoryArgs) -> Outcome {
    let screen = &context.screen;
    match &args.command {
        MemoryCommand::Import(args) => return import::run(context, args).await,
        MemoryCommand::Export(_) => return export(context).await,
        _ => {}
    }
    let door = Door::find(context).await?;
    match &args.command {
        // Done above: they work on the home's own files, beside a node.
        MemoryCommand::Import(_) | MemoryCommand::Export(_) => {}
        MemoryCommand::Add(args) => {
            let new = NewMemory {
                text: given(&args.text.join(" "))?,
                kind: args.kind.clone(),
                project: args.project.clone(),
                tags: args.tags.clone(),
                confidence: args.confidence,
                pinned: args.pin,
                source: args.source.clone(),
                supersedes: args.supersedes.clone(),
            };
            let written = door.add(new).await?;
            show(screen, &written, || drawn_written(&written, screen));
            // Advice for people; what was asked for is done.
            if screen.is_live()
                && let Ok(stats) = door.stats().await
                && let Some(reason) = stats.words_only
            {
                screen.note(&reason);
            }
        }
        MemoryCommand::Search(args) if args.everywhere => {
            let wanted = args.within.search(&args.query.join(" "), args.explain);
            household::search(context, wanted).await?;
        }
        MemoryCommand::Share(args) => household::share(context, args).await?,
        MemoryCommand::Search(args) => {
            door.catch_up(screen)?;
            let found = door
                .search(args.within.search(&args.query.join(" "), args.explain))
                .await?;
            if let (Some(reason), false) = (&found.words_only, screen.json) {
                screen.note(reason);
            }
            show(screen, &found, || drawn_found(&found, screen));
        }
        MemoryCommand::List(args) => {
            let listed = door
                .list(args.within.search("", false), args.after.clone())
                .await?;
            show(screen, &listed, || drawn_listed(&listed, screen));
        }
        MemoryCommand::Show(args) => {
            let memory = door.get(args.id.clone()).await?;
            show(screen, &memory, || drawn(&memory, screen));
        }
        MemoryCommand::Edit(args) => {
            let change = Change {
                text: args.text.as_deref().map(given).transpose()?,
                kind: args.kind.clone(),
                tags: (!args.tags.is_empty()).then(|| args.tags.clone()),
                confidence: args.confidence,
                pinned: None,
            };
            if change == Change::default() {
                return Err(Failure::usage(
                    "nothing is to be changed; give --text, --kind, --tag or --confidence",
                ));
            }
            let memory = door.change(args.id.clone(), change).await?;
            show(screen, &memory, || drawn(&memory, screen));
        }
        MemoryCommand::Forget(args) => {
            for id in &args.ids {
                let memory = door.forget(id.clone()).await?;
                show(screen, &memory, || {
                    let older = match memory.supersedes.len() {
                        0 => String::new(),
                        1 => " (and the older one that it replaced)".to_owned(),
                        older => format!(" (and the {older} older ones that it replaced)"),
                    };
                    format!("forgotten: {}{older}\n", first_line(&memory.text))
                });
            }
        }
        MemoryCommand::Pin(args) => {
            let change = Change {
                pinned: Some(!args.off),
                ..Change::default()
            };
            let memory = door.change(args.id.clone(), change).await?;
            show(screen, &memory, || drawn(&memory, screen));
        }
        MemoryCommand::Stats(_) => {
            door.catch_up(screen)?;
            let stats = door.stats().await?;
            show(screen, &stats, || drawn_stats(&stats, screen));
        }
        MemoryCommand::Doctor(args) => {
            let examined = door.examine(args.fix).await?;
            show(screen, &examined, || drawn_examined(&examined, screen));
            if examined.findings.iter().any(|finding| !finding.mended) {
                return Err(Failure::new("something is wrong with the memory")
                    .fix("follow what is said above; nothing was lost by looking"));
            }
        }
    }
    Ok(())
}

/// The home's own memories; a node that runs sees at once what is done here.
pub(super) async fn own(context: &Context) -> Outcome<Memories> {
    addressed::check(&context.config).await?;
    open(context)
}

/// Opens them.
fn open(context: &Context) -> Outcome<Memories> {
    let config = &context.config;
    memories::open(config, memories::store(config)?, memories::encoders(config))
}

async fn export(context: &Context) -> Outcome {
    let memories = own(context).await?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut written = Ok(());
    memories
        .export(&mut |exported| {
            // As it stands: by way of a value, 0.9 would become 0.8999999761581421.
            let line = serde_json::to_string(exported).map_err(std::io::Error::from);
            written = line.and_then(|line| writeln!(out, "{line}"));
            written.is_ok()
        })
        .map_err(refused)?;
    match written.and_then(|()| out.flush()) {
        // Who reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new(format!(
            "the export cannot be written: {error}"
        ))),
        Ok(()) => Ok(()),
    }
}

/// Encodes what has no vector yet, until all has one or `ends` says that it is enough.
fn encode(memories: &Memories, screen: &Screen, ends: impl Fn() -> bool) -> Outcome {
    let mut encoding = |done: u64, left: u64| {
        screen.progress(&format!("encoding: {done} done, {left} left"));
        !ends()
    };
    memories.upkeep(&mut encoding).map_err(refused)?;
    screen.clear();
    Ok(())
}

/// A text as it was typed, or from standard input.
fn given(text: &str) -> Outcome<String> {
    if text != "-" {
        return Ok(text.to_owned());
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(format!("standard input cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::usage(format!(
            "the text on standard input is not UTF-8 (byte {at})"
        ))
        .fix("convert it, for instance with iconv -t UTF-8")
    })
}

/// Who does the work.
enum Door {
    Node(Client),
    Here(Memories),
}

impl Door {
    async fn find(context: &Context) -> Outcome<Self> {
        let client = addressed::place(&context.config);
        match client.status().await {
            Ok(_) => Ok(Self::Node(client)),
            // Who names a node means that one.
            Err(error) if addressed::is_host_said(&context.config) => {
                let unreachable = matches!(error, ClientError::Unreachable(_));
                let failure = error.failure(client.place());
                Err(match unreachable {
                    true => failure.fix(
                        "start one: hearth up; or leave out --host (HEARTH_HOST), and the home's own memories are opened",
                    ),
                    false => failure,
                })
            }
            Err(ClientError::Unreachable(_)) => open(context).map(Self::Here),
            Err(error) => Err(error.failure(client.place())),
        }
    }

    /// Encodes what was written before there was an encoder; a node does so by itself.
    fn catch_up(&self, screen: &Screen) -> Outcome {
        let Self::Here(memories) = self else {
            return Ok(());
        };
        let stats = memories.stats(Timestamp::now()).map_err(refused)?;
        if stats.unencoded > 0 && stats.encoder.is_some() {
            encode(memories, screen, || false)?;
        }
        Ok(())
    }

    async fn ask<T: DeserializeOwned>(
        client: &Client,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Outcome<T> {
        let value = client.json(method, path, body.as_ref()).await;
        let value = value.map_err(|error| match &error {
            // With its own advice, which is for those who ask over HTTP.
            ClientError::Refused { body, .. } if body["type"] == "/problems/no_memory" => {
                let detail = body["detail"].as_str().unwrap_or_default();
                Failure::usage(detail.split("; ").next().unwrap_or_default()).fix(IDS)
            }
            error => error.failure(client.place()),
        })?;
        serde_json::from_value(value).map_err(|error| {
            Failure::new(format!("the node's answer is not understood: {error}"))
                .fix("the node is of another version: update it, or this program")
        })
    }

    async fn add(&self, new: NewMemory) -> Outcome<Written> {
        match self {
            Self::Node(client) => {
                Self::ask(client, Method::POST, "/memory", Some(json!(new))).await
            }
            Self::Here(memories) => memories.add(&new, Timestamp::now()).map_err(refused),
        }
    }

    async fn search(&self, search: Search) -> Outcome<Found> {
        match self {
            Self::Node(client) => {
                Self::ask(client, Method::POST, "/memory/search", Some(json!(search))).await
            }
            Self::Here(memories) => memories.search(&search, Timestamp::now()).map_err(refused),
        }
    }

    async fn list(&self, search: Search, after: Option<String>) -> Outcome<Listed> {
        match self {
            Self::Node(client) => {
                let mut query: Vec<(&str, String)> = Vec::new();
                query.extend(search.project.map(|project| ("project", project)));
                query.extend(search.kind.map(|kind| ("kind", kind)));
                query.extend(search.tags.into_iter().map(|tag| ("tag", tag)));
                query.extend(
                    search
                        .min_confidence
                        .map(|least| ("min_confidence", least.to_string())),
                );
                query.extend(search.limit.map(|limit| ("limit", limit.to_string())));
                query.extend(after.map(|after| ("after", after)));
                let path = format!("/memory?{}", serialised(&query));
                Self::ask(client, Method::GET, &path, None).await
            }
            Self::Here(memories) => memories.list(&search, after.as_deref()).map_err(refused),
        }
    }

    async fn get(&self, id: String) -> Outcome<Memory> {
        match self {
            Self::Node(client) => Self::ask(client, Method::GET, &path_of(&id), None).await,
            Self::Here(memories) => memories.get(&id, Timestamp::now()).map_err(refused),
        }
    }

    async fn change(&self, id: String, change: Change) -> Outcome<Memory> {
        match self {
            Self::Node(client) => {
                Self::ask(client, Method::PATCH, &path_of(&id), Some(json!(change))).await
            }
            Self::Here(memories) => memories
                .change(&id, &change, Timestamp::now())
                .map_err(refused),
        }
    }

    async fn forget(&self, id: String) -> Outcome<Memory> {
        match self {
            Self::Node(client) => Self::ask(client, Method::DELETE, &path_of(&id), None).await,
            Self::Here(memories) => memories.forget(&id).map_err(refused),
        }
    }

    async fn stats(&self) -> Outcome<Stats> {
        match self {
            Self::Node(client) => Self::ask(client, Method::GET, "/memory/stats", None).await,
            Self::Here(memories) => memories.stats(Timestamp::now()).map_err(refused),
        }
    }

    async fn examine(&self, fix: bool) -> Outcome<Examined> {
        match self {
            Self::Node(client) => {
                let body = json!({"fix": fix});
                Self::ask(client, Method::POST, "/memory/examine", Some(body)).await
            }
            Self::Here(memories) => memories.examine(fix).map_err(refused),
        }
    }
}

fn path_of(id: &str) -> String {
    format!("/memory/{}", escaped(id))
}

fn serialised(query: &[(&str, String)]) -> String {
    let pairs: Vec<String> = query
        .iter()
        .map(|(name, value)| format!("{name}={}", escaped(value)))
        .collect();
    pairs.join("&")
}

fn escaped(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Where ids come from.
const IDS: &str = "`hearth memory search` and `hearth memory list` show ids";

/// An error of the memory as a command's failure.
fn refused(error: Error) -> Failure {
    if let Error::Unknown(_) = error {
        return Failure::usage(error.to_string()).fix(IDS);
    }
    let usage = matches!(
        error,
        Error::Invalid { .. }
            | Error::Superseded { .. }
            | Error::Withdrawn(_)
            | Error::Unreadable { .. }
    );
    Failure {
        exit: if usage { Exit::Usage } else { Exit::Failed },
        ..Failure::with_advice(&error.to_string())
    }
}

fn show(screen: &Screen, value: &impl Serialize, draw: impl FnOnce() -> String) {
    match screen.json {
        true => println(&json!(value).to_string()),
        false => print(&draw()),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// What a memory is, on one line.
fn about(memory: &Memory) -> String {
    let mut parts = vec![memory.kind.clone()];
    parts.extend(memory.project.clone());
    parts.extend(memory.tags.iter().map(|tag| format!("#{tag}")));
    if memory.pinned {
        parts.push("pinned".into());
    }
    if memory.confidence < 1.0 {
        parts.push(format!("{:.0} % sure", memory.confidence * 100.0));
    }
    let date = memory.written.to_string();
    parts.push(date.get(..10).unwrap_or(&date).to_owned());
    parts.join(", ")
}

fn drawn(memory: &Memory, screen: &Screen) -> String {
    let mut text = format!(
        "{}\n{}\n",
        memory.text,
        screen.dim(&format!("  {}  {}", memory.id, about(memory)))
    );
    let mut line = |what: &str, which: &str| {
        text += &screen.dim(&format!("  {what} {which}"));
        text.push('\n');
    };
    if let Some(source) = &memory.source {
        line("from", source);
    }
    match (&memory.superseded, &memory.superseded_by) {
        (Some(_), Some(newer)) => line("superseded by", newer),
        (Some(_), None) => line("withdrawn:", "no file says it any more"),
        (None, _) => {}
    }
    for old in &memory.supersedes {
        line("supersedes", old);
    }
    for other in &memory.related {
        line("says nearly the same as", other);
    }
    text
}

fn drawn_written(written: &Written, screen: &Screen) -> String {
    let what = match written.outcome {
        Became::Stored => screen.green("remembered"),
        Became::Linked => screen.green("remembered, beside others that say nearly the same"),
        Became::Merged => "it was remembered already; tags, confidence and pin were joined".into(),
        Became::Recalled => "it was recalled from memory, so it is nothing new".into(),
    };
    format!("{what}\n{}", drawn(&written.memory, screen))
}

fn drawn_found(found: &Found, screen: &Screen) -> String {
    if found.memories.is_empty() {
        return "nothing was found\n".into();
    }
    let mut text = String::new();
    for hit in &found.memories {
        text += &drawn(&hit.memory, screen);
        if let Some(why) = &hit.why {
            let number =
                |value: Option<f32>| value.map_or("none".into(), |value| format!("{value:.2}"));
            let cold = if why.cold { ", was cold" } else { "" };
            text += &screen.dim(&format!(
                "  score {:.3}: meaning {}, words {}, age x{:.2}, pin x{:.2}{cold}",
                hit.score,
                number(why.similarity),
                number(why.words),
                why.recency,
                why.pinned
            ));
            text.push('\n');
        }
    }
    text
}

fn drawn_listed(listed: &Listed, screen: &Screen) -> String {
    if listed.memories.is_empty() {
        return "there are no memories; hearth memory add \"…\" makes the first\n".into();
    }
    let mut text: String = listed
        .memories
        .iter()
        .map(|memory| drawn(memory, screen))
        .collect();
    if let Some(next) = &listed.next {
        text += &format!("more: --after {next}\n");
    }
    text
}

fn drawn_stats(stats: &Stats, screen: &Screen) -> String {
    let how = match (&stats.encoder, &stats.words_only) {
        (Some(encoder), None) => format!("found by meaning and words (encoder {encoder})"),
        (_, Some(reason)) => reason.clone(),
        (None, None) => "found by words".into(),
    };
    let mut text = format!(
        "{} memories ({} pinned, {} cold), {} superseded, {} withdrawn\n{how}\n",
        screen.bold(&stats.memories.to_string()),
        stats.pinned,
        stats.cold,
        stats.superseded,
        stats.withdrawn
    );
    if stats.encoder.is_some() && stats.unencoded > 0 {
        text += &format!(
            "{} are being encoded, and found by words until then\n",
            stats.unencoded
        );
    }
    let compared = match &stats.approximate {
        Some(graph) if graph.in_use => format!(
            "a search finds the nearest of {} vectors through the approximate index, which finds {:.0} % of them and takes {}",
            stats.scanned,
            100.0 * graph.recall,
            show_size(graph.bytes)
        ),
        _ if stats.scanned > stats.exact_until => format!(
            "a search compares {} vectors, all of them, until a node has made the approximate index",
            stats.scanned
        ),
        _ => format!(
            "a search compares {} vectors, all of them (an approximate index takes over beyond {})",
            stats.scanned, stats.exact_until
        ),
    };
    text += &format!(
        "{compared}; database {}, vectors {}\n",
        show_size(stats.database_bytes),
        show_size(stats.vector_bytes)
    );
    if !stats.projects.is_empty() {
        let mut rows = vec![vec!["PROJECT".to_owned(), "MEMORIES".to_owned()]];
        rows.extend(stats.projects.iter().map(|(project, count)| {
            let name = project.clone().unwrap_or_else(|| "(every project)".into());
            vec![name, count.to_string()]
        }));
        text += &screen.table(&rows);
    }
    text
}

fn drawn_examined(examined: &Examined, screen: &Screen) -> String {
    if examined.findings.is_empty() {
        return format!("{}\n", screen.green("nothing is wrong"));
    }
    let line = |finding: &hearth_protocol::memory::Finding| {
        let mark = if finding.mended {
            screen.green("✓")
        } else {
            screen.red("✗")
        };
        format!("{mark} {}\n  {}\n", finding.problem, finding.remedy)
    };
    examined.findings.iter().map(line).collect()
}
