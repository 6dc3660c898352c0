//! `hearth models`: what can be asked.

use clap::Args;
use hearth_protocol::status::{ModelState, ModelStatus};
use serde_json::json;

use super::Context;
use crate::config::{Config, show_size};
use crate::failure::{Exit, Outcome};
use crate::screen::{print, println};
use crate::{daemon, ember};

/// Flags of `hearth models`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth models
  hearth models --json

Put .gguf files into the folder that is named below the table, and they can be asked by their file name.")]
pub struct ModelsArgs {}

/// Prints the models, of the running node or, if none runs, of the disk.
pub async fn run(context: &Context) -> Outcome {
    let (config, screen) = (&context.config, &context.screen);
    let (models, default) = match daemon::running(config).await {
        Ok((_, status)) => (status.models, status.default_model),
        Err(failure) if failure.exit == Exit::NoNode => on_disk(config),
        Err(failure) => return Err(failure),
    };
    if screen.json {
        println(
            &json!({"default": default, "folder": config.models_dir, "models": models}).to_string(),
        );
        return Ok(());
    }
    let mut rows = vec![
        ["NAME", "STATE", "SIZE", "CONTEXT"]
            .map(String::from)
            .to_vec(),
    ];
    for model in &models {
        let mark = if model.name == default {
            " (default)"
        } else {
            ""
        };
        rows.push(vec![
            format!("{}{mark}", model.name),
            state(model),
            show_size(model.size_bytes),
            model
                .context
                .map_or_else(|| "-".into(), |context| context.to_string()),
        ]);
    }
    print(&screen.table(&rows));
    for error in models.iter().filter_map(|model| model.error.as_deref()) {
        screen.note(error);
    }
    println(&screen.dim(&format!("models folder: {}", config.models_dir.display())));
    Ok(())
}

/// A model's state in a word or two.
pub fn state(model: &ModelStatus) -> String {
    match model.state {
        ModelState::Idle => "on disk".into(),
        ModelState::Loading => format!("loading {:.0} %", model.progress.unwrap_or(0.0) * 100.0),
        ModelState::Ready => "ready".into(),
        ModelState::Failed => "failed".into(),
    }
}

/// What a node would know, without starting an engine or writing anything.
fn on_disk(config: &Config) -> (Vec<ModelStatus>, String) {
    let (catalogue, default) = daemon::known(config, &ember::path(&config.home));
    let sources = catalogue.list();
    let models = sources.into_iter().map(|source| ModelStatus {
        size_bytes: match source.name.as_str() {
            ember::NAME => ember::size(),
            _ => std::fs::metadata(&source.path).map_or(0, |file| file.len()),
        },
        name: source.name,
        state: ModelState::Idle,
        progress: None,
        eta_seconds: None,
        error: None,
        architecture: None,
        parameters: None,
        context: None,
        dimensions: None,
        load: None,
    });
    (models.collect(), default)
}
