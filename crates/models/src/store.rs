//! The models on this machine's disk.
//!
//! ```text
//! FOLDER/names/qwen3%3a1.7b.json     one manifest a name: files, source, facts
//! FOLDER/blobs/sha256-…              the files, by their content; names share them
//! FOLDER/parts/…/model-00001-of-….gguf   links to the blobs of a split model, under the names its parts must have
//! FOLDER/partial/                    what is on its way
//! FOLDER/locks/                      who works on what
//! ```
//!
//! A name exists when its manifest does, and that comes last and goes first. So a crash leaves at most blobs that no
//! name uses, which [`ModelStore::prune`] removes.

mod import;
mod upkeep;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub use self::import::Take;
pub(crate) use self::upkeep::allocated;
pub use self::upkeep::{Checked, Pruned};
use hearth_gguf::Problem;

use crate::claim::Books;
use crate::disk;
use crate::error::{Error, Reason};
use crate::files::plain;
use crate::manifest::{Digest, Facts, Kind, Model, ModelFile};
use crate::missing::how_to_get;
use crate::name::Name;

/// Ending of the note beside a blob that was found damaged.
const DAMAGED: &str = ".damaged";

/// The models under a folder. Cheap to clone; several of one folder, in any processes, get along.
#[derive(Debug, Clone)]
pub struct ModelStore {
    root: PathBuf,
}

/// What removing a name did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The name.
    pub name: String,
    /// Bytes that are free now; files that other names use stay.
    pub freed: u64,
}

/// What a model's files say.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// Name it is asked for.
    pub name: String,
    /// The file to load.
    pub path: PathBuf,
    /// Bytes of all its files.
    pub size: u64,
    /// In short.
    pub facts: Facts,
    /// Chat template that applies unless another is asked for by name.
    pub template: Option<String>,
    /// All metadata as lines of text, in file order; long values shortened.
    pub metadata: Vec<(String, String)>,
    /// What the store knows of it; `None` for a file outside.
    pub stored: Option<Model>,
}

impl Shown {
    /// Of a file that is not in a store.
    ///
    /// # Errors
    /// [`Reason::Refused`] with what is wrong with it.
    pub fn of_file(name: &str, path: &Path) -> Result<Self, Error> {
        let opened = hearth_gguf::Model::open(path)
            .map_err(|error| Error::new(Reason::Refused, error.to_string()))?;
        let file = opened.first();
        let metadata = file
            .metadata()
            .map(|(key, value)| (plain(key), shorten(&value.to_string())))
            .collect();
        Ok(Self {
            name: name.to_owned(),
            path: path.to_owned(),
            size: opened.size(),
            facts: facts(&opened),
            template: file.chat_template().map(str::to_owned),
            metadata,
            stored: None,
        })
    }
}

impl ModelStore {
    /// The store under a folder. Creates nothing; the folder comes with the first model.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    fn parts(&self) -> PathBuf {
        self.root.join("parts")
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.file())
    }

    fn note_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(format!("{}{DAMAGED}", digest.file()))
    }

    /// The file of a blob that is there and not known to be damaged, with its length.
    pub fn blob(&self, digest: &Digest) -> Option<(PathBuf, u64)> {
        let path = self.blob_path(digest);
        let length = disk::length(&path)?;
        (!self.note_path(digest).exists()).then_some((path, length))
    }

    /// Every model, sorted by name. A manifest that cannot be read is left out with a warning in the log.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> Result<Vec<Model>, Error> {
        let mut models = Vec::new();
        for (name, path) in disk::entries(&self.names())? {
            if !name.ends_with(".json") {
                continue;
            }
            match read_manifest(&path) {
                Ok(Some(model)) => models.push(model),
                Ok(None) => {}
                Err(error) => tracing::warn!("{error}"),
            }
        }
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(models)
    }

    /// The model of that name, in any of its forms. Without a tag it is the one with `latest`, or the only one.
    ///
    /// # Errors
    /// [`Reason::NotHere`], [`Reason::Invalid`], or what the disk says.
    pub fn find(&self, name: &str) -> Result<Model, Error> {
        let asked = Name::parse(name)?;
        if let Some(model) = read_manifest(&self.names().join(asked.file()))? {
            return Ok(model);
        }
        let models = self.list()?;
        match choose(&asked, &models, |model| &model.name) {
            Choice::One(model) => Ok(model.clone()),
            Choice::Several(names) => Err(Error::new(
                Reason::NotHere,
                format!("`{name}` is one of several models: {}", names.join(", ")),
            )
            .fix("name it with its tag")),
            Choice::None => {
                let here: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
                Err(
                    Error::new(Reason::NotHere, format!("model `{name}` is not here"))
                        .fix(how_to_get(name, &here)),
                )
            }
        }
    }

    /// The model that has this very name, which a copy, an import or a pull of that name would replace; a name without a
    /// tag has `latest`.
    ///
    /// # Errors
    /// [`Reason::Invalid`], or what the disk says.
    pub fn named(&self, name: &str) -> Result<Option<Model>, Error> {
        let name = Name::parse(name)?.or_tag("latest");
        read_manifest(&self.names().join(name.file()))
    }

    /// The file to load a model by: its blob, or the first part's link of a split model.
    pub fn path(&self, model: &Model) -> PathBuf {
        match model.files.as_slice() {
            [only] => self.blob_path(&only.digest),
            files => self.part_path(model, 1, files.len()),
        }
    }

    fn part_path(&self, model: &Model, no: usize, count: usize) -> PathBuf {
        self.parts()
            .join(model.digest().hex())
            .join(format!("model-{no:05}-of-{count:05}.gguf"))
    }

    /// A model with what its files say.
    ///
    /// # Errors
    /// As [`ModelStore::find`], or what is wrong with the files.
    pub fn show(&self, name: &str) -> Result<Shown, Error> {
        let model = self.find(name)?;
        let shown = Shown::of_file(&model.name, &self.path(&model))
            .map_err(|error| error.fix(format!("run `hearth pull {}`", model.name)))?;
        Ok(Shown {
            facts: model.facts.clone(),
            stored: Some(model),
            ..shown
        })
    }

    /// Gives a model a second name. A name that is taken changes hands.
    ///
    /// # Errors
    /// As [`ModelStore::find`], or the new name is none.
    pub fn copy(&self, from: &str, to: &str) -> Result<Model, Error> {
        let name = Name::parse(to)?.or_tag("latest");
        let books = self.books()?;
        let model = Model {
            name: name.to_string(),
            ..self.find(from)?
        };
        self.enter(&books, &name, &model)?;
        Ok(model)
    }

    /// Removes a name, and every file that no other name uses.
    ///
    /// # Errors
    /// As [`ModelStore::find`], or what the disk says.
    pub fn remove(&self, name: &str) -> Result<Removed, Error> {
        let books = self.books()?;
        let model = self.find(name)?;
        let file = Name::parse(&model.name)?.file();
        disk::remove(&self.names().join(file))?;
        disk::sync_folder(&self.names())
            .map_err(|error| Error::storage("write", &self.names(), &error))?;
        let freed = self.release(&books, &model.files)?;
        Ok(Removed {
            name: model.name,
            freed,
        })
    }

    /// Makes a complete file in `partial/` a blob. The caller holds its claim.
    pub(crate) fn settle_blob(&self, from: &Path, digest: &Digest) -> Result<(), Error> {
        disk::settle(from, &self.blob_path(digest))?;
        disk::remove(&self.note_path(digest))?;
        Ok(())
    }

    /// Checks a model's files as GGUF, and what they say. The caller holds their claims.
    ///
    /// # Errors
    /// [`Reason::Refused`] with what is wrong; [`Reason::Storage`] if it could not be read.
    pub(crate) fn check(&self, model: &Model) -> Result<Facts, Error> {
        self.link_parts(model)?;
        match hearth_gguf::Model::open(&self.path(model)) {
            Ok(opened) => Ok(facts(&opened)),
            Err(error) => {
                let reason = match error.problem() {
                    Problem::Unreadable(_) => Reason::Storage,
                    _ => Reason::Refused,
                };
                let message = format!(
                    "`{}` is not a model that can be loaded: {} {}",
                    model.name,
                    error.place(),
                    error.problem()
                );
                Err(Error::new(reason, message).fix(error.advice()))
            }
        }
    }

    /// Removes the files of a model that was refused, unless a name uses them.
    pub(crate) fn discard(&self, model: &Model) -> Result<(), Error> {
        let books = self.books()?;
        self.release(&books, &model.files).map(drop)
    }

    /// Makes a model's name visible and lets go of what it had before. The caller holds the claims of its files.
    pub(crate) fn install(&self, name: &Name, model: &Model) -> Result<(), Error> {
        let books = self.books()?;
        self.link_parts(model)?;
        self.enter(&books, name, model)
    }

    fn enter(&self, books: &Books, name: &Name, model: &Model) -> Result<(), Error> {
        let path = self.names().join(name.file());
        let before = read_manifest(&path).unwrap_or_default();
        disk::create_folder(&self.names())?;
        disk::write(&path, &model.manifest()?)?;
        if let Some(before) = before {
            self.release(books, &before.files)?;
        }
        Ok(())
    }

    /// Removes those of these files that no name uses and nobody claims; returns the bytes.
    pub(crate) fn release(&self, books: &Books, files: &[ModelFile]) -> Result<u64, Error> {
        let used = match self.used() {
            Ok(used) => used,
            Err(error) => {
                tracing::warn!("files that no model may need stay: {error}");
                return Ok(0);
            }
        };
        let mut freed = 0;
        for file in files.iter().filter(|file| !used.contains(&file.digest)) {
            let name = file.digest.file();
            if let Some(claim) = self.try_claim(books, &name)? {
                freed += disk::remove(&self.blob_path(&file.digest))?;
                disk::remove(&self.note_path(&file.digest))?;
                self.forget_claim(books, claim, &name);
            }
        }
        // Links keep the bytes of a blob: they go with it.
        if files.len() > 1 {
            self.release_links(books, &Model::digest_of(files))?;
        }
        Ok(freed)
    }

    /// Removes the links of a split model, unless a name uses them or somebody claims them for a name to come.
    fn release_links(&self, books: &Books, model: &Digest) -> Result<(), Error> {
        if self.list()?.iter().any(|used| used.digest() == *model) {
            return Ok(());
        }
        let file = model.file();
        if let Some(claim) = self.try_claim(books, &file)? {
            remove_links(&self.parts().join(model.hex()))?;
            self.forget_claim(books, claim, &file);
        }
        Ok(())
    }

    /// Every blob that a name uses. Fails rather than leave one out.
    fn used(&self) -> Result<BTreeSet<Digest>, Error> {
        let mut used = BTreeSet::new();
        for (name, path) in disk::entries(&self.names())? {
            if name.ends_with(".json")
                && let Some(model) = read_manifest(&path)?
            {
                used.extend(model.files.iter().map(|file| file.digest));
            }
        }
        Ok(used)
    }

    /// The parts of a split model find each other by their names, so each blob gets such a name beside its own.
    fn link_parts(&self, model: &Model) -> Result<(), Error> {
        let count = model.files.len();
        if count < 2 {
            return Ok(());
        }
        for (index, file) in model.files.iter().enumerate() {
            let link = self.part_path(model, index + 1, count);
            let folder = link.parent().unwrap_or(&self.root);
            disk::create_folder(folder)?;
            let fresh = folder.join(disk::fresh_name());
            let blob = self.blob_path(&file.digest);
            let linked = fs::hard_link(&blob, &fresh).and_then(|()| fs::rename(&fresh, &link));
            // Renaming a link over another one of the same file does nothing and leaves both.
            let _ = fs::remove_file(&fresh);
            linked.map_err(|error| {
                Error::new(
                    Reason::Storage,
                    format!("cannot link {} to {}: {error}", link.display(), blob.display()),
                )
                .fix("models in several files need a file system with hard links; choose another folder with models_dir")
            })?;
        }
        Ok(())
    }
}

impl Model {
    pub(crate) fn digest_of(files: &[ModelFile]) -> Digest {
        match files {
            [only] => only.digest,
            files => {
                let all: String = files
                    .iter()
                    .map(|file| format!("{}\n", file.digest))
                    .collect();
                Digest::of_bytes(all.as_bytes())
            }
        }
    }

    /// One digest for the whole model: its file's, or that of all parts' digests in order.
    pub fn digest(&self) -> Digest {
        Self::digest_of(&self.files)
    }
}

/// What a name without a tag means among these.
pub(crate) enum Choice<'a, T> {
    One(&'a T),
    Several(Vec<String>),
    None,
}

/// The one that `asked` means: of the same name, or, without a tag, the one with `latest` or the only one.
pub(crate) fn choose<'a, T>(
    asked: &Name,
    all: &'a [T],
    name: impl Fn(&T) -> &String,
) -> Choice<'a, T> {
    let named: Vec<(Name, &T)> = all
        .iter()
        .filter_map(|one| Some((Name::parse(name(one)).ok()?, one)))
        .collect();
    if let Some((_, one)) = named.iter().find(|(name, _)| name.is_same(asked)) {
        return Choice::One(one);
    }
    if asked
        .tag()
        .is_some_and(|tag| !tag.eq_ignore_ascii_case("latest"))
    {
        return Choice::None;
    }
    let alike: Vec<&(Name, &T)> = named
        .iter()
        .filter(|(name, _)| name.has_base_of(asked))
        .collect();
    let latest = alike.iter().find(|(name, _)| {
        name.tag()
            .is_some_and(|tag| tag.eq_ignore_ascii_case("latest"))
    });
    match (latest, alike.as_slice()) {
        (Some((_, one)), _) => Choice::One(one),
        // Who says `latest` does not mean another tag.
        (None, [(name, one)]) if asked.tag().is_none() || name.tag().is_none() => Choice::One(one),
        (None, [_]) => Choice::None,
        (None, []) => Choice::None,
        (None, several) => {
            Choice::Several(several.iter().map(|(name, _)| name.to_string()).collect())
        }
    }
}

/// A manifest; `None` if there is none.
fn read_manifest(path: &Path) -> Result<Option<Model>, Error> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::storage("read", path, &error)),
    };
    Model::read(&text).map(Some).map_err(|what| {
        Error::new(Reason::Storage, format!("{} {what}", path.display()))
            .fix("update Hearth, or remove that file and pull the model again")
    })
}

/// What a checked model says about itself.
pub(crate) fn facts(opened: &hearth_gguf::Model) -> Facts {
    let file = opened.first();
    Facts {
        architecture: plain(file.architecture().unwrap_or("unknown")),
        parameters: opened.parameters(),
        quantisation: opened.quantisation().to_owned(),
        context: file.context_length(),
        kind: match file.pooling() {
            Some(_) => Kind::Embedding,
            None => Kind::Chat,
        },
        licence: file.text("general.license").map(plain),
    }
}

/// Now, in RFC 3339 and whole seconds.
pub(crate) fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second())
        .unwrap_or(now)
        .to_string()
}

/// Removes the links of a split model with their folder.
fn remove_links(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::storage("remove", folder, &error))
        }
        _ => Ok(()),
    }
}

fn shorten(text: &str) -> String {
    const LONGEST: usize = 200;
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
