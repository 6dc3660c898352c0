//! `hearth memory import`: files and folders, once or again and again as they change.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use hearth_memory::Memories;
use hearth_memory::import::{is_export, is_known};
use hearth_protocol::memory::{Imported, NewMemory};
use jiff::Timestamp;
use notify::event::{EventKind, RemoveKind};
use notify::{Event, RecursiveMode, Watcher};
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::{encode, own, refused, show};
use crate::commands::Context;
use crate::daemon::interrupted;
use crate::failure::{Failure, Outcome};
use crate::screen::Screen;

/// Changes that come within this time of each other are one: an editor writes a file in several steps.
const SETTLED: Duration = Duration::from_millis(300);
/// Longest that a change waits for others: something may change all the time.
const LONGEST: Duration = Duration::from_secs(2);

/// Flags of `hearth memory import`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth memory import notes/ --project shop
  hearth memory import CLAUDE.md docs/adr --project shop
  hearth memory import conversations.json --tag chatgpt
  hearth memory import memories.jsonl              what `export` wrote
  hearth memory import notes/ --watch

A file that is as it was the last time is passed over. Of one that changed, what it no longer says is withdrawn,
and so is what a file of the folder said that is gone. What another file says too stays, and so does what you
wrote, edited or pinned. A file belongs to the project it was imported under last: what it alone said moves there.
What `export` wrote is taken in when you name it, each time: what is lacking comes back. In a folder it is passed over.")]
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
        true => Some(watched(&paths)?),
        false => None,
    };
    let (end, ends) = watch::channel(false);
    let mut importer = Importer {
        memories,
        screen,
        paths,
        usual,
        told: HashMap::new(),
        ends: ends.clone(),
    };
    let summary = importer.round(Strict::Named)?;
    show(screen, &summary, || summary.drawn(args.project.as_deref()));
    let Some((_watcher, changes)) = &mut changes else {
        return Ok(());
    };
    // From here on it is how this is meant to end; what came before was cut off by it.
    tokio::spawn(async move {
        interrupted().await;
        let _ = end.send(true);
        interrupted().await;
        std::process::exit(130);
    });
    screen.note("watching; Ctrl-C ends it");
    let mut ending = ends;
    loop {
        tokio::select! {
            biased;
            _ = ending.wait_for(|ends| *ends) => return Ok(()),
            more = changed(changes) => if !more { return Ok(()) },
        }
        match importer.round(Strict::Nothing) {
            Ok(summary) if summary.is_of_interest() => {
                show(screen, &summary, || summary.drawn(args.project.as_deref()));
            }
            Ok(_) => screen.clear(),
            // A disk that was full may have room again.
            Err(failure) => screen.note(&failure.message),
        }
    }
}

/// What ends an import.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strict {
    /// A file that was named and cannot be read.
    Named,
    /// No file at all.
    Nothing,
}

/// What a round came to.
#[derive(Debug, Default, Serialize)]
struct Summary {
    #[serde(flatten)]
    imported: Imported,
    /// Files that were not imported, without those that were told in an earlier round and are as they were.
    passed_over: Vec<PassedOver>,
    /// Files of folders that are of no kind that is read.
    other_files: u64,
}

/// A file that was not imported.
#[derive(Debug, Serialize)]
struct PassedOver {
    path: PathBuf,
    why: String,
    #[serde(skip)]
    is_export: bool,
}

impl Summary {
    /// Whether somebody who watches wants to hear of it.
    fn is_of_interest(&self) -> bool {
        let Imported {
            stored,
            merged,
            withdrawn,
            moved,
            unchanged: _,
        } = self.imported;
        stored + merged + withdrawn + moved > 0
    }

    fn drawn(&self, project: Option<&str>) -> String {
        let all = &self.imported;
        let moved = match (all.moved, project) {
            (0, _) => String::new(),
            (moved, Some(project)) => format!(", {moved} moved to project {project}"),
            (moved, None) => format!(", {moved} moved to every project"),
        };
        let mut text = format!(
            "{} new, {} there already, {} withdrawn{moved}; {} files as they were\n",
            all.stored, all.merged, all.withdrawn, all.unchanged
        );
        let exports = self.passed_over.iter().filter(|one| one.is_export).count();
        let parts = [
            (self.passed_over.len() - exports, "that cannot be read"),
            (
                exports,
                "written by `hearth memory export` (name it to import it)",
            ),
            (self.other_files as usize, "of kinds that are not read"),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0);
        let parts: Vec<String> = parts
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if !parts.is_empty() {
            text += &format!("files passed over: {}\n", parts.join(", "));
        }
        text
    }
}

/// Tells one state of a file from another.
type Stamp = (Option<SystemTime>, u64);

/// Imports the same files and folders, once or again and again.
struct Importer<'a> {
    memories: Memories,
    screen: &'a Screen,
    paths: Vec<PathBuf>,
    usual: NewMemory,
    /// Files that were passed over, as they were when that was said.
    told: HashMap<PathBuf, Stamp>,
    /// Whether it is to end.
    ends: watch::Receiver<bool>,
}

impl Importer<'_> {
    /// Imports what is there now.
    fn round(&mut self, strict: Strict) -> Outcome<Summary> {
        let mut files = Files::default();
        let mut summary = Summary::default();
        for path in &self.paths {
            if !path.is_dir() {
                files.found.push((path.clone(), strict == Strict::Named));
                continue;
            }
            below(path, &mut files)?;
            for known in self.memories.files().map_err(refused)? {
                let known = Path::new(&known);
                // Not one that only cannot be looked at.
                if known.starts_with(path) && known.try_exists().is_ok_and(|there| !there) {
                    let source = known.to_string_lossy();
                    let withdrawn = self.memories.withdraw(&source, Timestamp::now());
                    summary.imported.withdrawn += withdrawn.map_err(refused)?;
                }
            }
        }
        if strict == Strict::Named {
            summary.other_files = files.others;
        }
        let count = files.found.len();
        for (at, (path, named)) in files.found.into_iter().enumerate() {
            if *self.ends.borrow() {
                return Ok(summary);
            }
            self.screen
                .progress(&format!("file {} of {count}: {}", at + 1, path.display()));
            let (imported, is_export) = self.file(&path, named);
            match imported {
                Ok(imported) => {
                    self.told.remove(&path);
                    let all = &mut summary.imported;
                    all.stored += imported.stored;
                    all.merged += imported.merged;
                    all.withdrawn += imported.withdrawn;
                    all.moved += imported.moved;
                    all.unchanged += imported.unchanged;
                }
                // Of a folder the others are still read.
                Err(failure) if !named => {
                    let why = failure.message;
                    let stamp = std::fs::metadata(&path)
                        .map_or((None, 0), |file| (file.modified().ok(), file.len()));
                    if self.told.insert(path.clone(), stamp) != Some(stamp) {
                        self.screen.note(&format!("passed over: {why}"));
                        summary.passed_over.push(PassedOver {
                            path,
                            why,
                            is_export,
                        });
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        encode(&self.memories, self.screen, || *self.ends.borrow())?;
        Ok(summary)
    }

    /// Imports a file, and says whether it is an export of Hearth's. One that was not named brings nothing back.
    fn file(&self, path: &Path, named: bool) -> (Outcome<Imported>, bool) {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                let failure = Failure::usage(match error.kind() {
                    std::io::ErrorKind::NotFound => {
                        format!("there is no file or folder {}", path.display())
                    }
                    _ => format!("{}: {error}", path.display()),
                });
                return (Err(failure), false);
            }
        };
        let source = path.to_string_lossy();
        let is_export = is_export(&source, &bytes);
        if is_export && !named {
            let what = "`hearth memory export` wrote it, and it brings back what was forgotten since; name it to import it";
            return (Err(Failure::usage(format!("{source}: {what}"))), true);
        }
        let imported = self
            .memories
            .import(&source, &bytes, &self.usual, Timestamp::now());
        (imported.map_err(refused), is_export)
    }
}

/// What is watched: the files and folders that were named, in every way the system may write them.
struct Watched(Vec<PathBuf>);

impl Watched {
    fn new(paths: &[PathBuf]) -> Self {
        // Some systems tell of changes by the path without links.
        let real = |path: &PathBuf| match (path.is_dir(), path.parent(), path.file_name()) {
            (false, Some(folder), Some(name)) => Some(folder.canonicalize().ok()?.join(name)),
            _ => path.canonicalize().ok(),
        };
        let real = paths.iter().filter_map(real);
        Self(paths.iter().cloned().chain(real).collect())
    }

    /// Whether an import may find something else after that.
    fn concerns(&self, event: &Event) -> bool {
        // Reading a file is no change of it.
        if event.kind.is_access() {
            return false;
        }
        let was_file = event.kind == EventKind::Remove(RemoveKind::File);
        // Of what cannot be said where it was, it can only be looked.
        event.paths.is_empty() || event.paths.iter().any(|path| self.holds(path, was_file))
    }

    /// Whether a path that changed is a file that an import reads, or a folder, or gone and may have been one.
    fn holds(&self, path: &Path, was_file: bool) -> bool {
        let mut below = self
            .0
            .iter()
            .filter_map(|root| path.strip_prefix(root).ok());
        below.any(|rest| {
            let (Some(name), Some(folders)) = (rest.file_name(), rest.parent()) else {
                return true;
            };
            let hidden = |name: &OsStr| name.to_string_lossy().starts_with('.');
            !folders.iter().any(hidden)
                && (is_known(&name.to_string_lossy())
                    || !(was_file || hidden(name) || path.is_file()))
        })
    }
}

/// Watches files and folders. What comes from the channel says that something changed, not what.
fn watched(paths: &[PathBuf]) -> Outcome<(notify::RecommendedWatcher, mpsc::Receiver<()>)> {
    let failed = |path: &Path, error: notify::Error| {
        Failure::new(format!("{} cannot be watched: {error}", path.display()))
    };
    let (send, receive) = mpsc::channel(1);
    let watched = Watched::new(paths);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // An error may hide a change.
        if event.map_or(true, |event| watched.concerns(&event)) {
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

/// Waits for a change, and until there are no more for a while, but no longer than [`LONGEST`]; `false` if none will come.
async fn changed(changes: &mut mpsc::Receiver<()>) -> bool {
    if changes.recv().await.is_none() {
        return false;
    }
    let settled = async { while let Ok(Some(())) = timeout(SETTLED, changes.recv()).await {} };
    // Whichever it was, it is time to look.
    let _ = timeout(LONGEST, settled).await;
    true
}

/// Files to read.
#[derive(Default)]
struct Files {
    /// Each with whether it was named, and must be read.
    found: Vec<(PathBuf, bool)>,
    /// Files beside them that are of no kind that is read.
    others: u64,
}

/// The files below a folder that can be read, in order; not those of hidden folders.
fn below(folder: &Path, files: &mut Files) -> Outcome {
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
        } else if path.is_file() {
            match is_known(&name) {
                true => files.found.push((path, false)),
                false => files.others += 1,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use notify::event::{CreateKind, DataChange, ModifyKind, RenameMode};

    use super::*;

    #[test]
    fn only_changes_that_an_import_can_see_count() {
        let folder = tempfile::tempdir().unwrap();
        // What is named may be hidden itself.
        let notes = folder.path().join(".notes");
        let named = folder.path().join("CLAUDE.md");
        for path in ["deep/.git", ".cache"] {
            std::fs::create_dir_all(notes.join(path)).unwrap();
        }
        for path in ["a.md", "build.log", ".cursorrules", "deep/.git/a.md"] {
            std::fs::write(notes.join(path), "x").unwrap();
        }
        let watched = Watched::new(&[notes.clone(), named.clone()]);
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let (made, gone) = (CreateKind::Any, RemoveKind::Any);
        let (made, gone) = (EventKind::Create(made), EventKind::Remove(gone));
        let moved = EventKind::Modify(ModifyKind::Name(RenameMode::From));
        let file_gone = EventKind::Remove(RemoveKind::File);
        let read = EventKind::Access(notify::event::AccessKind::Any);
        for (kind, path, counts) in [
            (written, "a.md", true),
            (read, "a.md", false),
            (written, "build.log", false),
            (made, "build.log", false),
            (written, ".cursorrules", true),
            (made, "deep", true),
            (gone, "was-here", true),
            (moved, "was-here", true),
            (file_gone, "was.log", false),
            (file_gone, "was.md", true),
            (written, "deep/.git/a.md", false),
            (gone, "deep/.git/index", false),
            (made, ".cache", false),
            (gone, "", true),
        ] {
            let event = Event::new(kind).add_path(notes.join(path));
            assert_eq!(watched.concerns(&event), counts, "{kind:?} {path}");
        }
        // Of a named file's folder nothing else counts.
        let of = |path: PathBuf| watched.concerns(&Event::new(written).add_path(path));
        assert!(of(named));
        assert!(!of(folder.path().join("other.md")));
        let renamed = Event::new(moved).add_path(notes.join("build.log"));
        assert!(watched.concerns(&renamed.add_path(notes.join("b.md"))));
        assert!(watched.concerns(&Event::new(EventKind::Any)));
    }

    #[tokio::test]
    async fn changes_that_never_end_do_not_put_an_import_off_for_ever() {
        let (send, mut receive) = mpsc::channel(1);
        let busy = tokio::spawn(async move { while send.send(()).await.is_ok() {} });
        let came = timeout(30 * LONGEST, changed(&mut receive)).await;
        assert_eq!(came, Ok(true));
        drop(receive);
        busy.await.unwrap();
    }
}
