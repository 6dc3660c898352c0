//! `hearth models show`: what a model's files say about it.

use std::io::IsTerminal;

use clap::Args;
use hearth_encoder::{Encoder, Pooling};
use hearth_engine::named;
use hearth_models::{Kind, Shown, Source, StoredEncoder};
use hearth_protocol::ollama;
use hearth_protocol::status::ModelElsewhere;
use hyper::Method;
use serde_json::json;

use super::outside;
use crate::answer::model_name;
use crate::commands::Context;
use crate::config::show_size;
use crate::failure::{Failure, Outcome};
use crate::network::{encoders, store};
use crate::screen::{Screen, println};
use crate::{addressed, daemon, ember};

/// Flags of `hearth show`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth show qwen3:1.7b
  hearth models show qwen3:1.7b --template
  hearth models show mine.gguf --metadata
  hearth models show qwen3:1.7b --json | jq .facts
  hearth show gpubox/qwen3:1.7b          of another machine of the household: less is known")]
pub struct ShowArgs {
    /// Model: a name or a .gguf file, or an encoder
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Print the chat template alone
    #[arg(long, conflicts_with = "metadata")]
    pub template: bool,
    /// Print all metadata
    #[arg(long)]
    pub metadata: bool,
}

/// Prints facts, template or metadata.
pub async fn run(context: &Context, args: &ShowArgs) -> Outcome {
    let screen = &context.screen;
    let store = store(&context.config);
    if store.find(&args.model).is_err()
        && let Some(encoder) = encoders(&context.config).find(&args.model)
    {
        return show_encoder(&encoder, args, screen);
    }
    let (catalogue, _) = daemon::known(&context.config, &ember::path(&context.config.home));
    let is_here = store.find(&args.model).is_ok()
        || catalogue.resolve(Some(&model_name(&args.model))).is_ok();
    if !is_here && let Some((other, shown)) = elsewhere(context, args).await? {
        return show_other(&other, &shown, args, screen);
    }
    let shown = find(context, &args.model)?;
    if screen.json {
        println(&as_json(&shown).to_string());
        return Ok(());
    }
    if args.template {
        print_template(&shown.name, shown.template.as_deref())?;
    } else if args.metadata {
        for (key, value) in &shown.metadata {
            println(&format!("{} {value}", screen.dim(&format!("{key} ="))));
        }
    } else {
        draw(&shown, screen);
    }
    Ok(())
}

/// A model of the store, or a file that only lies in the folder or is named by its path.
fn find(context: &Context, name: &str) -> Outcome<Shown> {
    match store(&context.config).show(name) {
        Ok(shown) => Ok(shown),
        Err(error) => {
            let source = outside(&context.config, name, error)?;
            Ok(Shown::of_file(&source.name, &source.path)?)
        }
    }
}

fn print_template(name: &str, template: Option<&str>) -> Outcome {
    let template = template.ok_or_else(|| {
        Failure::new(format!("`{name}` has no chat template")).fix("ChatML is used for it")
    })?;
    let template = template.trim_end_matches('\n');
    // It comes from strangers, and a terminal obeys what it is shown.
    match std::io::stdout().is_terminal() {
        true => println(&harmless(template)),
        false => println(template),
    }
    Ok(())
}

/// A model that another machine of the household has, as its node tells of it.
async fn elsewhere(
    context: &Context,
    args: &ShowArgs,
) -> Outcome<Option<(ModelElsewhere, ollama::Shown)>> {
    let Ok((client, status)) = addressed::running(&context.config).await else {
        return Ok(None);
    };
    let asked = args.model.split_once('/');
    let is_meant = |other: &ModelElsewhere| match asked {
        Some((machine, name)) if other.machine.eq_ignore_ascii_case(machine) => {
            named(&[&other.name], name).is_some()
        }
        _ => named(&[&other.name], &args.model).is_some(),
    };
    let Some(other) = status.elsewhere.into_iter().find(is_meant) else {
        return Ok(None);
    };
    let name = format!("{}/{}", other.machine, other.name);
    let wanted = json!({"model": name, "verbose": args.metadata});
    let shown = client.ask(Method::POST, "/api/show", Some(&wanted)).await?;
    Ok(Some((other, shown)))
}

/// Prints what another machine says of its model.
fn show_other(
    other: &ModelElsewhere,
    shown: &ollama::Shown,
    args: &ShowArgs,
    screen: &Screen,
) -> Outcome {
    let (machine, model) = (&other.machine, &other.name);
    let template = Some(shown.template.as_str()).filter(|template| !template.is_empty());
    if screen.json {
        let mut line = json!(shown);
        line["name"] = json!(model);
        line["machine"] = json!(machine);
        println(&line.to_string());
        return Ok(());
    }
    if args.template {
        return print_template(&format!("{machine}/{model}"), template);
    }
    if args.metadata {
        for (key, value) in &shown.model_info {
            let (key, value) = (harmless(key), harmless(&value.to_string()));
            println(&format!("{} {value}", screen.dim(&format!("{key} ="))));
        }
        return Ok(());
    }
    println(&screen.bold(&harmless(model)));
    let details = &shown.details;
    let mut rows = vec![
        ("architecture", details.family.clone()),
        ("parameters", details.parameter_size.clone()),
        ("quantisation", details.quantization_level.clone()),
    ];
    let context = format!("{}.context_length", details.family);
    if let Some(context) = shown.model_info.get(&context) {
        rows.push(("context", format!("{context} tokens")));
    }
    rows.push(("for", shown.capabilities.join(", ")));
    if let Some(template) = template {
        let lines = template.lines().count();
        rows.push(("template", format!("{lines} lines; see --template")));
    }
    rows.push(("on", machine.clone()));
    let rows = rows.into_iter();
    let rows = rows.map(|(name, value)| (name, harmless(&value)));
    print_rows(rows.collect(), screen);
    Ok(())
}

/// Text in which control characters, but for line ends and tabs, are spelled out.
fn harmless(text: &str) -> String {
    let spell = |letter: char| match letter {
        '\n' | '\t' => letter.to_string(),
        letter if letter.is_control() => letter.escape_debug().to_string(),
        letter => letter.to_string(),
    };
    text.chars().map(spell).collect()
}

fn as_json(shown: &Shown) -> serde_json::Value {
    let metadata: serde_json::Map<String, serde_json::Value> = shown
        .metadata
        .iter()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    json!({
        "name": shown.name,
        "path": shown.path,
        "size": shown.size,
        "facts": shown.facts,
        "stored": shown.stored,
        "template": shown.template,
        "metadata": metadata,
    })
}

fn draw(shown: &Shown, screen: &Screen) {
    let facts = &shown.facts;
    println(&screen.bold(&shown.name));
    let mut rows = vec![
        ("architecture", facts.architecture.clone()),
        ("parameters", count(facts.parameters)),
        ("quantisation", facts.quantisation.clone()),
        ("size", show_size(shown.size)),
    ];
    if let Some(context) = facts.context {
        rows.push(("context", format!("{context} tokens")));
    }
    rows.push((
        "for",
        match facts.kind {
            Kind::Chat => "answers".into(),
            Kind::Embedding => "embeddings".into(),
        },
    ));
    if let Some(licence) = &facts.licence {
        rows.push(("licence", licence.clone()));
    }
    if let Some(model) = &shown.stored {
        rows.push(("from", origin(&model.source)));
        rows.push(("since", model.pulled.clone()));
        for file in &model.files {
            let size = show_size(file.size);
            rows.push(("file", format!("{}  {size}  {}", file.name, file.digest)));
        }
    }
    if shown.stored.is_none() && shown.name == ember::NAME {
        rows.push(("from", "built into Hearth; always here".into()));
    }
    rows.push(("on disk", shown.path.display().to_string()));
    if facts.kind == Kind::Chat {
        let template = match &shown.template {
            Some(template) => format!("{} lines; see --template", template.lines().count()),
            None => "none; ChatML is used".into(),
        };
        rows.push(("template", template));
    }
    print_rows(rows, screen);
}

/// Facts, one to a line.
fn print_rows(rows: Vec<(&str, String)>, screen: &Screen) {
    for (name, value) in rows {
        println(&format!("  {} {value}", screen.dim(&format!("{name:<13}"))));
    }
}

/// Prints what an encoder's files say.
fn show_encoder(stored: &StoredEncoder, args: &ShowArgs, screen: &Screen) -> Outcome {
    let name = &stored.name;
    if args.template || args.metadata {
        let what = if args.template {
            "chat template"
        } else {
            "metadata"
        };
        let message = format!("`{name}` is a sentence encoder and has no {what}");
        return Err(Failure::usage(message).fix("leave out that flag"));
    }
    let encoder = Encoder::open(&stored.folder).map_err(|error| {
        Failure::new(error.to_string()).fix(format!(
            "remove it (hearth rm {name}) and fetch it again (hearth pull {name})"
        ))
    })?;
    let pooling = match encoder.pooling() {
        Pooling::Mean => "mean",
        Pooling::Cls => "first token",
    };
    let (prompts, model) = (encoder.prompts(), stored.model.as_ref());
    if screen.json {
        let line = json!({
            "name": name,
            "path": stored.folder,
            "size": stored.size,
            "facts": model.map(|model| &model.facts),
            "stored": model,
            "dimensions": encoder.dimensions(),
            "max_tokens": encoder.max_tokens(),
            "pooling": pooling,
            "prompts": {"query": prompts.query, "passage": prompts.passage},
            "id": encoder.id(),
        });
        println(&line.to_string());
        return Ok(());
    }
    println(&screen.bold(name));
    let mut rows = vec![("architecture", "bert".to_owned())];
    if let Some(model) = model {
        rows.push(("parameters", count(model.facts.parameters)));
        rows.push(("stored as", model.facts.quantisation.clone()));
    }
    rows.push(("size", show_size(stored.size)));
    rows.push(("context", format!("{} tokens", encoder.max_tokens())));
    rows.push((
        "vectors",
        format!("{} values, {pooling} pooling", encoder.dimensions()),
    ));
    rows.push(("for", "embeddings, and memories found by meaning".into()));
    for (name, prompt) in [
        ("before query", &prompts.query),
        ("before text", &prompts.passage),
    ] {
        if !prompt.is_empty() {
            rows.push((name, format!("{prompt:?}")));
        }
    }
    if let Some(model) = model {
        if let Some(licence) = &model.facts.licence {
            rows.push(("licence", licence.clone()));
        }
        rows.push(("from", origin(&model.source)));
        rows.push(("since", model.pulled.clone()));
        for file in &model.files {
            let size = show_size(file.size);
            rows.push(("file", format!("{}  {size}  {}", file.name, file.digest)));
        }
    }
    rows.push(("on disk", stored.folder.display().to_string()));
    print_rows(rows, screen);
    Ok(())
}

fn origin(source: &Source) -> String {
    match source {
        Source::Hub {
            hub,
            repo,
            revision,
            commit,
            file,
        } => {
            let commit = commit.as_deref().unwrap_or(revision);
            format!("{hub}/{repo} ({file}, {commit})")
        }
        Source::Peer {
            address,
            repo: Some(repo),
        } => format!("{address} ({repo})"),
        Source::Peer {
            address,
            repo: None,
        } => address.clone(),
        Source::Package { package, version } => format!("the package {package} {version}"),
        Source::Import { path } => path.clone(),
    }
}

fn count(parameters: u64) -> String {
    match parameters {
        0..1_000_000_000 => format!("{:.1} M", parameters as f64 / 1e6),
        _ => format!("{:.1} B", parameters as f64 / 1e9),
    }
}
