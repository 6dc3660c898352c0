//! `hearth models`: what can be asked, and the files behind it.

mod show;
mod upkeep;

use clap::{Args, Subcommand};
use hearth_engine::ModelSource;
use hearth_models::{Error, Name, Reason};
use hearth_protocol::status::{ModelState, ModelStatus};
use serde_json::json;

use super::Context;
use crate::answer::model_name;
use crate::config::{Config, show_size};
use crate::failure::{Exit, Outcome};
use crate::screen::{print, println};
use crate::{daemon, ember};

pub use show::ShowArgs;
pub use upkeep::{CopyArgs, ImportArgs, PruneArgs, RmArgs, VerifyArgs};

/// Flags of `hearth models`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth models
  hearth models --json
  hearth models show qwen3:1.7b
  hearth models import ~/Downloads/model.gguf --name mine

Put .gguf files into the folder that is named below the table, and they can be asked by their file name.
`hearth pull` fetches models.")]
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
        Some(What::Show(args)) => show::run(context, args),
        Some(What::Rm(args)) => upkeep::rm(context, args),
        Some(What::Copy(args)) => upkeep::copy(context, args),
        Some(What::Import(args)) => upkeep::import(context, args),
        Some(What::Verify(args)) => upkeep::verify(context, args),
        Some(What::Prune(_)) => upkeep::prune(context),
    }
}

/// `hearth show`.
pub fn show(context: &Context, args: &ShowArgs) -> Outcome {
    show::run(context, args)
}

/// `hearth rm`.
pub fn rm(context: &Context, args: &RmArgs) -> Outcome {
    upkeep::rm(context, args)
}

/// Prints the models, of the running node or, if none runs, of the disk.
pub async fn list(context: &Context) -> Outcome {
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
        // Of a file the store knows only that its name is none.
        Err(unknown) if name.ends_with(".gguf") => return Err(unknown.into()),
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
