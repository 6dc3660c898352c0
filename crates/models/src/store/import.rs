//! Files of this machine into the store.

use std::fs;
use std::path::{Path, PathBuf};

use super::{ModelStore, facts, now};
use crate::cancel::Cancel;
use crate::claim::Claim;
use crate::disk;
use crate::error::{Error, Reason};
use crate::files::without_part;
use crate::manifest::{Model, ModelFile, Source};
use crate::name::Name;

/// How a local file gets into the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Take {
    /// By copying; file systems that can share the bytes do.
    #[default]
    Copy,
    /// As a second name of the same file where the disk allows it, else by copying. The file must not be changed
    /// afterwards.
    Link,
}

impl ModelStore {
    /// The name that an import gives a file unless it is told another.
    ///
    /// # Errors
    /// [`Reason::Invalid`]: there is no such file, or its name makes none.
    pub fn name_of_file(path: &Path) -> Result<Name, Error> {
        name_of_file(&real(path)?)
    }

    /// Takes a GGUF file of this machine, or all parts of a split model through its first, under a name (`None`: the
    /// file's). The files are checked first. `hear` is told after each piece: bytes so far, and of all.
    ///
    /// # Errors
    /// [`Reason::Refused`] for a file that is no model, what the disk says, or [`Reason::Cancelled`].
    pub fn import(
        &self,
        path: &Path,
        name: Option<&str>,
        take: Take,
        cancel: &Cancel,
        hear: &mut dyn FnMut(u64, u64),
    ) -> Result<Model, Error> {
        let path = real(path)?;
        let name = match name {
            Some(name) => Name::parse(name)?,
            None => name_of_file(&path)?,
        }
        .or_tag("latest");
        let opened = hearth_gguf::Model::open(&path)
            .map_err(|error| Error::new(Reason::Refused, error.to_string()))?;
        let total = opened.size();
        for folder in [self.partials(), self.blobs(), self.names()] {
            disk::create_folder(&folder)?;
        }
        let mut done = 0;
        let mut files = Vec::new();
        let mut arrived = Vec::new();
        for (source, file) in opened.files() {
            let fresh = Fresh::new(self, cancel)?;
            bring(source, &fresh.path, take)?;
            let digest = disk::hash(&fresh.path, cancel, &mut |bytes| {
                done += bytes;
                hear(done, total);
            })?;
            arrived.push(fresh);
            files.push(ModelFile {
                name: file_name(source),
                digest,
                size: file.size(),
            });
        }
        // All digests are known: only now is anything claimed that others may wait for.
        let claims = self.claim_all(&files, cancel, &mut || {})?;
        for (file, fresh) in files.iter().zip(arrived) {
            if self.blob(&file.digest).map(|(_, length)| length) != Some(file.size) {
                self.settle_blob(&fresh.path, &file.digest)?;
            }
        }
        let mut model = Model {
            name: name.to_string(),
            files,
            source: Source::Import {
                path: path.display().to_string(),
            },
            pulled: now(),
            facts: facts(&opened),
        };
        // The file may have changed while it came; what counts is what is in the store.
        match self.check(&model) {
            Ok(facts) => model.facts = facts,
            Err(error) => {
                drop(claims);
                self.discard(&model)?;
                return Err(error);
            }
        }
        self.install(&name, &model)?;
        drop(claims);
        Ok(model)
    }
}

/// A file in `partial/` under a name of its own, claimed so that nobody prunes it; dropping it removes what is left.
struct Fresh<'a> {
    store: &'a ModelStore,
    name: String,
    path: PathBuf,
    claim: Option<Claim>,
}

impl<'a> Fresh<'a> {
    fn new(store: &'a ModelStore, cancel: &Cancel) -> Result<Self, Error> {
        let name = disk::fresh_name();
        Ok(Self {
            store,
            path: store.partials().join(&name),
            claim: Some(store.claim(&name, cancel, &mut || {})?),
            name,
        })
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        // What cannot be removed is pruned one day.
        let _ = disk::remove(&self.path);
        if let (Ok(books), Some(claim)) = (self.store.books(), self.claim.take()) {
            self.store.forget_claim(&books, claim, &self.name);
        }
    }
}

/// The file itself, where links lead to it.
fn real(path: &Path) -> Result<PathBuf, Error> {
    fs::canonicalize(path).map_err(|error| {
        Error::new(
            Reason::Invalid,
            format!("cannot read {}: {error}", path.display()),
        )
        .fix("name a .gguf file")
    })
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// A file's own name as a model's name: `-00001-of-00003` and `.gguf` gone, and `-` for what a name does not take.
fn name_of_file(path: &Path) -> Result<Name, Error> {
    let name = file_name(path);
    let stem = match name.len().checked_sub(".gguf".len()) {
        Some(at) if name.is_char_boundary(at) && name[at..].eq_ignore_ascii_case(".gguf") => {
            &name[..at]
        }
        _ => &name,
    };
    let stem = without_part(stem).0;
    let plain: String = stem
        .chars()
        .map(|letter| match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => letter,
            _ => '-',
        })
        .collect();
    Name::parse(&plain.trim_matches('.').to_ascii_lowercase())
        .map_err(|error| error.fix("choose a name with --name"))
}

/// A second name or a copy of a file.
fn bring(from: &Path, to: &Path, take: Take) -> Result<(), Error> {
    if take == Take::Link && fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let copied = (|| {
        // Never into a file that is there: it may be a second name of somebody's model.
        let mut new = fs::File::create_new(to)?;
        std::io::copy(&mut fs::File::open(from)?, &mut new)
    })();
    copied
        .map(drop)
        .map_err(|error| Error::storage("write", to, &error))
}
