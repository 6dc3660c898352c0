//! `hearth memory import`: files and folders, once or again and again as they change.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use hearth_memory::Memories;
use hearth_memory::import::is_known;
use hearth_protocol::memory::{Imported, NewMemory};
use jiff::Timestamp;
use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::{own, refused, show};
use crate::commands::Context;
use crate::failure::{Failure, Outcome};
use crate::screen::Screen;

/// Changes that come within this time of each other are one: an editor writes a file in several steps.
const SETTLED: Duration = Duration::from_millis(300);

/// Flags of `hearth memory import`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth memory import notes/ --project shop
  hearth memory import CLAUDE.md docs/adr --project shop
  hearth memory import conversations.json --tag chatgpt
  hearth memory import memories.jsonl              what `export` wrote
  hearth memory import notes/ --watch

A file that is as it was the last time is passed over. Of one that changed, what it no longer holds is withdrawn,
and so is what came from a file of the folder that is gone.")]
pub struct ImportArgs {
    /// Files and folders
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Whose the memories are; without one they belong to every project
    #[arg(long, short, value_name = "NAME")]
    project: Option<String>,
    /// A word to find them by; may be given again
    #[arg(long = "tag", short, value_name = "TAG")]
    tags: Vec<String>,
    /// How sure they are, 0 to 1 [default: 1]
    #[arg(long, value_name = "SHARE")]
    confidence: Option<f32>,
    /// Go on, and import again what changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// Imports what is named, and with `--watch` what changes there later.
pub async fn run(context: &Context, args: &ImportArgs) -> Outcome {
    let memories = own(context).await?;
    let screen = &context.screen;
    let mut paths = Vec::new();
    for path in &args.paths {
        paths.push(
            std::path::absolute(path)
                .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?,
        );
    }
    let usual = NewMemory {
        project: args.project.clone(),
        tags: args.tags.clone(),
        confidence: args.confidence,
        ..NewMemory::default()
    };
    // Before the first import, so that no change falls between the two.
    let mut changes = match args.watch {
        true => Some(watch(&paths)?),
        false => None,
    };
    let all = import(&memories, screen, &paths, &usual, Strict::Named)?;
    told(screen, &all);
    let Some((_watcher, changes)) = &mut changes else {
        return Ok(());
    };
    screen.note("watching; Ctrl-C ends it");
    while changed(changes).await {
        match import(&memories, screen, &paths, &usual, Strict::Nothing) {
            Ok(all) if all.stored + all.merged + all.withdrawn > 0 => told(screen, &all),
            Ok(_) => screen.clear(),
            // A disk that was full may have room again.
            Err(failure) => screen.note(&failure.message),
        }
    }
    Ok(())
}

/// What ends an import.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strict {
    /// A file that was named and cannot be read.
    Named,
    /// No file at all.
    Nothing,
}

fn told(screen: &Screen, all: &Imported) {
    show(screen, all, || {
        format!(
            "{} new, {} there already, {} withdrawn; {} files as they were\n",
            all.stored, all.merged, all.withdrawn, all.unchanged
        )
    });
}

/// Imports these files and folders.
fn import(
    memories: &Memories,
    screen: &Screen,
    paths: &[PathBuf],
    usual: &NewMemory,
    strict: Strict,
) -> Outcome<Imported> {
    let mut files = Vec::new();
    let mut all = Imported::default();
    for path in paths {
        if !path.is_dir() {
            files.push((path.clone(), strict == Strict::Named));
            continue;
        }
        below(path, &mut files)?;
        for known in memories.files().map_err(refused)? {
            let known = Path::new(&known);
            if known.starts_with(path) && !known.exists() {
                let source = known.to_string_lossy();
                all.withdrawn += memories
                    .withdraw(&source, Timestamp::now())
                    .map_err(refused)?;
            }
        }
    }
    for (at, (path, named)) in files.iter().enumerate() {
        screen.progress(&format!(
            "file {} of {}: {}",
            at + 1,
            files.len(),
            path.display()
        ));
        let read = std::fs::read(path)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())));
        let source = path.to_string_lossy();
        let imported = match read {
            Ok(bytes) => memories
                .import(&source, &bytes, usual, Timestamp::now())
                .map_err(refused),
            Err(failure) => Err(failure),
        };
        match imported {
            Ok(imported) => {
                all.stored += imported.stored;
                all.merged += imported.merged;
                all.withdrawn += imported.withdrawn;
                all.unchanged += imported.unchanged;
            }
            // Of a folder the others are still read.
            Err(failure) if !named => screen.note(&format!("passed over: {}", failure.message)),
            Err(failure) => return Err(failure),
        }
    }
    let mut encoding = |done: u64, left: u64| {
        screen.progress(&format!("encoding: {done} done, {left} left"));
        true
    };
    memories.upkeep(&mut encoding).map_err(refused)?;
    screen.clear();
    Ok(all)
}

/// Watches files and folders. What comes from the channel says that something changed, not what.
fn watch(paths: &[PathBuf]) -> Outcome<(notify::RecommendedWatcher, mpsc::Receiver<()>)> {
    let failed = |path: &Path, error: notify::Error| {
        Failure::new(format!("{} cannot be watched: {error}", path.display()))
    };
    let (send, receive) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a file is no change of it. An error may hide one.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            // One that waits says it all.
            let _ = send.try_send(());
        }
    })
    .map_err(|error| failed(Path::new("this"), error))?;
    for path in paths {
        // An editor replaces a file by another of its name, which a watch of the file alone does not see.
        let (folder, mode) = match path.is_dir() {
            true => (path.as_path(), RecursiveMode::Recursive),
            false => (
                path.parent().unwrap_or(path.as_path()),
                RecursiveMode::NonRecursive,
            ),
        };
        watcher
            .watch(folder, mode)
            .map_err(|error| failed(folder, error))?;
    }
    Ok((watcher, receive))
}

/// Waits for changes, and until there are no more for a while; `false` if none will come.
async fn changed(changes: &mut mpsc::Receiver<()>) -> bool {
    let mut came = changes.recv().await.is_some();
    while let (true, Ok(more)) = (came, tokio::time::timeout(SETTLED, changes.recv()).await) {
        came = more.is_some();
    }
    came
}

/// The files below a folder that can be read, in order; not those of hidden folders.
fn below(folder: &Path, files: &mut Vec<(PathBuf, bool)>) -> Outcome {
    let failed = |error: std::io::Error| Failure::usage(format!("{}: {error}", folder.display()));
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    paths.sort();
    for path in paths {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // A link may lead in a circle.
        if path.is_dir() && !path.is_symlink() && !name.starts_with('.') {
            below(&path, files)?;
        } else if path.is_file() && is_known(&name) {
            files.push((path, false));
        }
    }
    Ok(())
}
