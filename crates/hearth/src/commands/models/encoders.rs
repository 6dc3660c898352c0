//! Sentence encoders among the models: in the list, and shown.

use std::path::Path;

use hearth_encoder::{Encoder, Pooling};
use hearth_models::StoredEncoder;
use serde_json::{Value, json};

use super::show::{ShowArgs, count, origin};
use crate::addressed;
use crate::config::{Config, show_size};
use crate::failure::{Failure, Outcome};
use crate::network;
use crate::screen::{Screen, println};

/// The encoders of this home, unless the models that are listed are those of another one.
fn here(config: &Config, models: Option<&Path>) -> Vec<StoredEncoder> {
    if models.is_some_and(|folder| !addressed::is_same(folder, &config.models_dir)) {
        return Vec::new();
    }
    network::encoders(config).list().unwrap_or_else(|error| {
        tracing::warn!("{error}");
        Vec::new()
    })
}

/// As `hearth list --json` has them.
pub fn listed(config: &Config, models: Option<&Path>) -> Vec<Value> {
    let all = here(config, models).into_iter();
    all.map(|encoder| {
        json!({
            "name": encoder.name,
            "folder": encoder.folder,
            "size_bytes": encoder.size,
            "model": encoder.model,
        })
    })
    .collect()
}

/// As lines of the table of models.
pub fn rows(config: &Config, models: Option<&Path>) -> Vec<Vec<String>> {
    let all = here(config, models).into_iter();
    all.map(|encoder| {
        let context = encoder.model.and_then(|model| model.facts.context);
        vec![
            encoder.name,
            "encoder".into(),
            show_size(encoder.size),
            context.map_or_else(|| "-".into(), |context| context.to_string()),
        ]
    })
    .collect()
}

/// Prints what an encoder's files say.
pub fn show(stored: &StoredEncoder, args: &ShowArgs, screen: &Screen) -> Outcome {
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
    for (name, value) in rows {
        println(&format!("  {} {value}", screen.dim(&format!("{name:<13}"))));
    }
    Ok(())
}
