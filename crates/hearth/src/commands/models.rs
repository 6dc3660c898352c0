//! `hearth models`: what can be asked, and the files behind it.

mod encoders;
mod show;
mod upkeep;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use hearth_engine::{EngineError, ModelSource};
use hearth_models::{Error, ModelStore, Name, Reason, Shown};
use hearth_protocol::status::{ModelElsewhere, ModelState, ModelStatus};
use serde_json::json;

use super::Context;
use crate::answer::model_name;
use crate::config::{Config, show_size};
use crate::failure::{Exit, Failure, Outcome};
use crate::screen::{print, println};
use crate::{addressed, daemon, ember};

pub use show::ShowArgs;
pub use upkeep::{CopyArgs, ImportArgs, PruneArgs, RmArgs, VerifyArgs};

/// Flags of `hearth models`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth models
  hearth models --json
  hearth models --json | jq '.elsewhere[] | {machine, name}'
  hearth models show qwen3:1.7b
  hearth models import ~/Downloads/model.gguf --name mine

In a household the models of the other machines are listed too, with the machine.
Put .gguf files into the folder that is named below the table, and they can be asked by their file name.
`hearth pull` fetches models, and sentence encoders such as minilm.")]
pub struct ModelsArgs {
    #[command(subcommand)]
    what: Option<What>,
}

/// What can be done with models.
#[derive(Debug, Subcommand)]
enum What {
    /// List the models
    List(ListArgs),
    /// Show what a model's files say
    Show(ShowArgs),
    /// Remove models
    Rm(RmArgs),
    /// Give a model a second name
    Copy(CopyArgs),
    /// Take a .gguf file into the store
    Import(ImportArgs),
    /// Check the files of models against their checksums
    Verify(VerifyArgs),
    /// Remove files that no model uses and downloads that were not finished
    Prune(PruneArgs),
}

/// Flags of `hearth list`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth list
  hearth models list --json")]
pub struct ListArgs {}

/// Does what was asked for; lists the models where nothing was.
pub async fn run(context: &Context, args: &ModelsArgs) -> Outcome {
    match &args.what {
        None | Some(What::List(_)) => list(context).await,
        Some(What::Show(args)) => show(context, args).await,
        Some(What::Rm(args)) => rm(context, args).await,
        Some(What::Copy(args)) => {
            addressed::check(&context.config).await?;
            upkeep::copy(context, args)
        }
        Some(What::Import(args)) => {
            addressed::check(&context.config).await?;
            upkeep::import(context, args)
        }
        Some(What::Verify(args)) => {
            addressed::check(&context.config).await?;
            upkeep::verify(context, args)
        }
        Some(What::Prune(_)) => {
            addressed::check(&context.config).await?;
            upkeep::prune(context)
        }
    }
}

/// `hearth show`.
pub async fn show(context: &Context, args: &ShowArgs) -> Outcome {
    addressed::check(&context.config).await?;
    show::run(context, args).await
}

/// `hearth rm`.
pub async fn rm(context: &Context, args: &RmArgs) -> Outcome {
    addressed::check(&context.config).await?;
    upkeep::rm(context, args)
}

/// Prints the models, of the running node or, if none runs, of the disk.
pub async fn list(context: &Context) -> Outcome {
    let (config, screen) = (&context.config, &context.screen);
    let (models, default, folder, elsewhere) = match addressed::running(config).await {
        Ok((_, status)) => (
            status.models,
            status.default_model,
            status.models_folder.map(PathBuf::from),
            status.elsewhere,
        ),
        Err(failure) if failure.exit == Exit::NoNode => {
            let (models, default) = on_disk(config);
            (models, default, Some(config.models_dir.clone()), Vec::new())
        }
        Err(failure) => return Err(failure),
    };
    if screen.json {
        let line = json!({
            "default": default,
            "folder": folder,
            "models": models,
            "encoders": encoders::listed(config, folder.as_deref()),
            "elsewhere": elsewhere,
        });
        println(&line.to_string());
        return Ok(());
    }
    let trained = trained(config, folder.as_deref());
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
            match (model.context, trained.get(&model.name)) {
                (Some(context), _) => context.to_string(),
                (None, Some(most)) => format!("up to {most}"),
                (None, None) => "-".into(),
            },
        ]);
    }
    rows.extend(encoders::rows(config, folder.as_deref()));
    if !elsewhere.is_empty() {
        let machine = std::iter::once("MACHINE").chain(std::iter::repeat("here"));
        for (row, machine) in rows.iter_mut().zip(machine) {
            row.push(machine.into());
        }
        rows.extend(elsewhere.iter().map(other));
    }
    print(&screen.table(&rows));
    for error in models.iter().filter_map(|model| model.error.as_deref()) {
        screen.note(error);
    }
    if let Some(folder) = folder {
        println(&screen.dim(&format!("models folder: {}", folder.display())));
    }
    Ok(())
}

/// A line about a model of another machine.
fn other(model: &ModelElsewhere) -> Vec<String> {
    let state = match (model.loaded, model.embeds) {
        _ if model.unreachable => "unreachable",
        (true, _) => "ready",
        (false, true) => "embeds",
        (false, false) => "on disk",
    };
    let context = model.context.map(|context| context.to_string());
    vec![
        model.name.clone(),
        state.into(),
        show_size(model.size_bytes),
        context.unwrap_or_else(|| "-".into()),
        model.machine.clone(),
    ]
}

/// The contexts that models were made for, in tokens, as the store of that folder and the built-in model's file say.
/// What cannot be read is left out.
fn trained(config: &Config, folder: Option<&Path>) -> BTreeMap<String, u64> {
    let stored = folder.and_then(|folder| ModelStore::new(folder).list().ok());
    let stored = stored.unwrap_or_default().into_iter();
    let mut contexts: BTreeMap<String, u64> = stored
        .filter_map(|model| Some((model.name, model.facts.context?)))
        .collect();
    let built_in = Shown::of_file(ember::NAME, &ember::path(&config.home)).ok();
    if let Some(context) = built_in.and_then(|shown| shown.facts.context) {
        contexts.insert(ember::NAME.to_owned(), context);
    }
    contexts
}

/// Whether a name means the model inside this executable.
pub fn is_built_in(name: &str) -> bool {
    Name::parse(name).is_ok_and(|name| {
        let tag = name.tag().unwrap_or("latest");
        name.base().eq_ignore_ascii_case(ember::NAME) && tag.eq_ignore_ascii_case("latest")
    })
}

/// The model of a name that the store does not have, as `error` says: the one inside this executable, or a file that
/// lies in the models folder or is named by its path.
fn outside(config: &Config, name: &str, error: Error) -> Outcome<ModelSource> {
    if !matches!(error.reason(), Reason::NotHere | Reason::Invalid) {
        return Err(error.into());
    }
    let (catalogue, _) = daemon::known(config, &ember::path(&config.home));
    let source = match catalogue.resolve(Some(&model_name(name))) {
        Ok(source) => source,
        Err(EngineError::OnlyEmbeds { name }) => {
            let message = format!("`{name}` is a sentence encoder, and this works on models alone");
            return Err(Failure::usage(message).fix(format!("look at it: hearth show {name}")));
        }
        // Of a file the store knows only that its name is none; of a name, only its own models.
        Err(unknown) if name.ends_with(".gguf") || error.reason() == Reason::NotHere => {
            return Err(unknown.into());
        }
        Err(_) => return Err(error.into()),
    };
    if source.name == ember::NAME {
        ember::materialise(&config.home)?;
    }
    Ok(source)
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
            _ => source.size(),
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
