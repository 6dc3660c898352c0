//! `hearth models rm`, `copy`, `import`, `verify` and `prune`: the files of the store.

use std::path::PathBuf;

use clap::Args;
use hearth_engine::ModelSource;
use hearth_models::{Cancel, Checked, Digest, Model, ModelStore, Take};
use serde_json::json;

use super::{is_built_in, outside};
use crate::commands::Context;
use crate::config::{Config, show_size};
use crate::ember;
use crate::failure::{ANOTHER_HOME, Failure, Outcome};
use crate::network::{encoders, store};
use crate::screen::{bar, println};

/// Flags of `hearth rm`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth rm qwen3:1.7b
  hearth models rm qwen3:1.7b qwen3:4b

Files that another name uses stay. Files that you put into the models folder yourself are yours to remove; ember is
built in and stays.")]
pub struct RmArgs {
    /// Models to remove
    #[arg(value_name = "MODEL", required = true)]
    pub models: Vec<String>,
}

/// Flags of `hearth models copy`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth models copy qwen3:1.7b house
  hearth models copy qwen3:4b house --force      takes the name from another model

Both names share the files: the second takes no room.")]
pub struct CopyArgs {
    /// Model that is there
    #[arg(value_name = "MODEL")]
    pub from: String,
    /// Its second name
    #[arg(value_name = "NAME")]
    pub to: String,
    /// Take the name even from another model, which goes if it has no other
    #[arg(long)]
    pub force: bool,
}

/// Flags of `hearth models import`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth models import ~/Downloads/model.gguf
  hearth models import model-00001-of-00003.gguf --name big    takes all parts
  hearth models import model.gguf --link                       no second copy, where the disk allows it

With --link the file must not be changed afterwards.")]
pub struct ImportArgs {
    /// The .gguf file, or the first of several
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Its name [default: the file's]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Share the bytes with the file instead of copying them
    #[arg(long)]
    pub link: bool,
    /// Take the name even from another model, which goes if it has no other
    #[arg(long)]
    pub force: bool,
}

/// Flags of `hearth models verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth models verify
  hearth models verify qwen3:1.7b --json

Reads every byte. A damaged file is fetched again by the next `hearth pull` of its model.")]
pub struct VerifyArgs {
    /// Model to check; all of them without one
    #[arg(value_name = "MODEL")]
    pub model: Option<String>,
}

/// Flags of `hearth models prune`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth models prune

Downloads that are under way are left alone; unfinished ones begin anew when they are pulled again.")]
pub struct PruneArgs {}

/// Removes names, and the files that only they used.
pub fn rm(context: &Context, args: &RmArgs) -> Outcome {
    let (store, encoders) = (store(&context.config), encoders(&context.config));
    for name in &args.models {
        let removed = store.remove(name).or_else(|error| {
            if encoders.find(name).is_some() {
                let removed = encoders.remove(name)?;
                context.screen.note(
                    "memories that are found by its meaning are found by words alone from the next start on",
                );
                return Ok(removed);
            }
            let source = outside(&context.config, name, error)?;
            Err(not_the_stores(&source))
        })?;
        match context.screen.json {
            true => println(&json!({"removed": removed.name, "freed": removed.freed}).to_string()),
            false => println(&format!(
                "removed {}, {} freed",
                removed.name,
                show_size(removed.freed)
            )),
        }
    }
    Ok(())
}

/// Why a model that is not the store's is not removed.
fn not_the_stores(source: &ModelSource) -> Failure {
    if source.name == ember::NAME {
        return Failure::usage(format!(
            "`{}` is built into Hearth: it is always here and cannot be removed",
            ember::NAME
        ))
        .fix("to let another model answer by default, name it with --model, HEARTH_MODEL or the setting model");
    }
    let path = source.path.display();
    Failure::usage(format!(
        "`{}` is a file of yours and is not removed here",
        source.name
    ))
    .fix(format!("remove {path} yourself"))
}

/// The name of the model inside this executable means no other.
fn check_name(name: &str) -> Outcome {
    match is_built_in(name) {
        true => Err(Failure::usage(format!(
            "the name `{}` belongs to the model that is built into Hearth",
            ember::NAME
        ))
        .fix("choose another name")),
        false => Ok(()),
    }
}

/// Leaves another model its name, unless its owner gives it up.
fn check_taken(store: &ModelStore, name: &str, force: bool, same: Option<&Model>) -> Outcome {
    let Some(other) = store.named(name)?.filter(|_| !force) else {
        return Ok(());
    };
    if same.is_some_and(|same| same.digest() == other.digest()) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "`{}` is here already: {}, {}, since {}",
        other.name,
        other.facts.quantisation,
        show_size(other.size()),
        other.pulled
    ))
    .fix(format!(
        "choose another name, remove it first (hearth rm {}), or replace it with --force",
        other.name
    )))
}

/// Gives a model a second name. One that is not the store's is taken into it.
pub fn copy(context: &Context, args: &CopyArgs) -> Outcome {
    check_name(&args.to)?;
    let store = store(&context.config);
    let same = store.find(&args.from).ok();
    check_taken(&store, &args.to, args.force, same.as_ref())?;
    let model = match store.copy(&args.from, &args.to) {
        Ok(model) => model,
        Err(error) => {
            let source = outside(&context.config, &args.from, error)?;
            let (name, cancel) = (Some(args.to.as_str()), Cancel::new());
            store.import(&source.path, name, Take::Copy, &cancel, &mut |_, _| {})?
        }
    };
    match context.screen.json {
        true => println(&json!(model).to_string()),
        false => println(&format!("{} is also {}", args.from, model.name)),
    }
    Ok(())
}

/// Takes a file into the store.
pub fn import(context: &Context, args: &ImportArgs) -> Outcome {
    let screen = &context.screen;
    let take = if args.link { Take::Link } else { Take::Copy };
    let name = args.name.as_deref();
    let called = match name {
        Some(name) => name.to_owned(),
        None => ModelStore::name_of_file(&args.file)?.to_string(),
    };
    check_name(&called).map_err(|failure| failure.fix("choose another one with --name"))?;
    let mut hear = |done: u64, total: u64| {
        screen.progress(&format!(
            "reading {} {}",
            args.file.display(),
            shared(done, total)
        ));
    };
    let store = store(&context.config);
    check_taken(&store, &called, args.force, None)?;
    let imported = store.import(&args.file, name, take, &Cancel::new(), &mut hear);
    screen.clear();
    let model = imported?;
    match screen.json {
        true => println(&json!(model).to_string()),
        false => println(&format!(
            "{} {} is here: {}, {}",
            screen.green("✓"),
            screen.bold(&model.name),
            model.facts.quantisation,
            show_size(model.size())
        )),
    }
    Ok(())
}

/// Hashes files and tells which are damaged.
pub fn verify(context: &Context, args: &VerifyArgs) -> Outcome {
    let screen = &context.screen;
    let mut hear = |done: u64, total: u64| {
        screen.progress(&format!("checking {}", shared(done, total)));
    };
    let (store, encoders) = (store(&context.config), encoders(&context.config));
    let checked = store.verify(args.model.as_deref(), &Cancel::new(), &mut hear);
    let checked = match (checked, &args.model) {
        (Ok(mut checked), None) => {
            // What was found of the others is not lost by it.
            match built_in(&context.config) {
                Ok(ember) => checked.push(ember),
                Err(failure) => screen.note(&format!(
                    "{} was not checked: {}",
                    ember::NAME,
                    failure.message
                )),
            }
            checked.extend(encoders.verify(None, &Cancel::new(), &mut hear)?);
            checked
        }
        (Err(error), Some(name)) if encoders.find(name).is_some() => {
            tracing::debug!(%error, "it is an encoder");
            encoders.verify(encoders.find(name).as_ref(), &Cancel::new(), &mut hear)?
        }
        (Err(error), Some(name)) => {
            let source = outside(&context.config, name, error)?;
            if source.name != ember::NAME {
                let path = source.path.display();
                return Err(Failure::usage(format!(
                    "`{}` is a file of yours, and nothing says what its checksum should be",
                    source.name
                ))
                .fix(format!(
                    "take it into the store: hearth models import {path}"
                )));
            }
            vec![built_in(&context.config)?]
        }
        (checked, _) => checked?,
    };
    screen.clear();
    let mut again = Vec::new();
    for blob in checked {
        let names = blob.names.join(", ");
        if screen.json {
            let line = json!({"digest": blob.digest, "size": blob.size, "names": blob.names, "problem": blob.problem});
            println(&line.to_string());
        } else {
            let verdict = match &blob.problem {
                Some(problem) => problem.clone(),
                None => screen.green("whole"),
            };
            println(&format!("{names}: {verdict} ({})", blob.digest));
        }
        if blob.problem.is_some() {
            again.extend(blob.names);
        }
    }
    again.sort();
    again.dedup();
    if again.is_empty() {
        return Ok(());
    }
    let what: Vec<String> = again
        .iter()
        .map(|name| format!("`hearth pull {name}`"))
        .collect();
    Err(
        Failure::new(format!("damaged: {}", again.join(", "))).fix(format!(
            "run {}; a model that was imported: import its file again with --force",
            what.join(", ")
        )),
    )
}

/// The model inside this executable: its file is written anew where it is not as it should be.
fn built_in(config: &Config) -> Outcome<Checked> {
    let path = ember::materialise(&config.home)?;
    let bytes =
        std::fs::read(&path).map_err(|error| Failure::file("read", &path, &error, ANOTHER_HOME))?;
    Ok(Checked {
        digest: Digest::of_bytes(&bytes),
        size: ember::size(),
        names: vec![ember::NAME.to_owned()],
        problem: None,
    })
}

/// Removes what no model uses.
pub fn prune(context: &Context) -> Outcome {
    let mut pruned = store(&context.config).prune()?;
    let encoders = encoders(&context.config).prune()?;
    pruned.freed += encoders;
    pruned.partials += u64::from(encoders > 0);
    match context.screen.json {
        true => println(
            &json!({"blobs": pruned.blobs, "partials": pruned.partials, "freed": pruned.freed})
                .to_string(),
        ),
        false => println(&format!(
            "{} freed: {} unused files, {} unfinished downloads",
            show_size(pruned.freed),
            pruned.blobs,
            pruned.partials
        )),
    }
    Ok(())
}

fn shared(done: u64, total: u64) -> String {
    let share = done as f32 / total.max(1) as f32;
    format!("{} {} of {}", bar(share), show_size(done), show_size(total))
}
