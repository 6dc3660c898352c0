//! Sentence encoders on this machine's disk: they find memories by meaning, and answer requests for embeddings.
//!
//! ```text
//! FOLDER/minilm/       the files as sentence-transformers lays them, and `hearth.json`: where they came from
//! FOLDER/.fetching/    what is on its way, and who works on what
//! ```
//!
//! An encoder comes by one rename and goes by one, so there is never half of it. A folder that people fill by hand is
//! an encoder too; only where it came from is not known then.

mod package;
mod pull;

use std::fs;
use std::path::{Path, PathBuf};

pub use self::pull::{Fetch, PulledEncoder, pull_encoder};
use crate::cancel::Cancel;
use crate::catalogue;
use crate::claim::Claim;
use crate::disk;
use crate::error::{Error, Reason};
use crate::manifest::Model;
use crate::store::{Checked, ModelStore, Removed, allocated};

/// Where an encoder's files came from and what they are, beside them.
const MANIFEST: &str = "hearth.json";
/// What is on its way; no encoder's name begins with a dot.
const FETCHING: &str = ".fetching";
/// The weights.
pub(crate) const WEIGHTS: &str = "model.safetensors";

/// The encoders under a folder. Cheap to clone; several of one folder, in any processes, get along.
#[derive(Debug, Clone)]
pub struct EncoderStore {
    root: PathBuf,
}

/// An encoder on the disk.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEncoder {
    /// Name it is asked for: its folder's.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Bytes of its weights.
    pub size: u64,
    /// What the pull wrote down; `None` for a folder that was filled by hand.
    pub model: Option<Model>,
}

impl EncoderStore {
    /// The encoders under a folder. Creates nothing; the folder comes with the first encoder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What is on its way, with its locks: the parts of a store of models that a pull needs.
    fn fetching(&self) -> ModelStore {
        ModelStore::new(self.root.join(FETCHING))
    }

    /// Waits for the claim to an encoder; calls `waiting` once if somebody else has it.
    fn claim(
        &self,
        name: &str,
        cancel: &Cancel,
        waiting: &mut dyn FnMut(),
    ) -> Result<Claim, Error> {
        self.fetching().claim(&lock(name), cancel, waiting)
    }

    /// Every encoder, sorted by name.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> Result<Vec<StoredEncoder>, Error> {
        let entries = disk::entries(&self.root)?.into_iter();
        Ok(entries.filter_map(|(name, _)| self.read(&name)).collect())
    }

    /// The encoder that a name means: a folder's, in any case and also with `:latest`, or another one that the catalogue
    /// knows it by.
    pub fn find(&self, name: &str) -> Option<StoredEncoder> {
        let plain = name.strip_suffix(":latest").unwrap_or(name);
        let known = || self.read(&catalogue::encoder(name)?.name);
        self.read(plain)
            .or_else(|| self.read(&plain.to_ascii_lowercase()))
            .or_else(known)
    }

    /// The encoder in the folder of this very name.
    fn read(&self, name: &str) -> Option<StoredEncoder> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', ':', '\0']) {
            return None;
        }
        let folder = self.root.join(name);
        let has = |file: &str| disk::length(&folder.join(file));
        has("config.json")?;
        has("tokenizer.json").or_else(|| has("vocab.txt"))?;
        let size = has(WEIGHTS)?;
        let model = fs::read(folder.join(MANIFEST)).ok();
        Some(StoredEncoder {
            name: name.to_owned(),
            size,
            model: model.and_then(|text| Model::read(&text).ok()),
            folder,
        })
    }

    /// Removes an encoder, whole. What has it open may go on using it.
    ///
    /// # Errors
    /// [`Reason::NotHere`], or what the disk says.
    pub fn remove(&self, name: &str) -> Result<Removed, Error> {
        let encoder = self.find(name).ok_or_else(|| {
            Error::new(Reason::NotHere, format!("encoder `{name}` is not here"))
                .fix("run `hearth list` to see what is")
        })?;
        let _claim = self.claim(&encoder.name, &Cancel::new(), &mut || {})?;
        let freed = size_of(&encoder.folder);
        self.take_away(&encoder.folder)?;
        Ok(Removed {
            name: encoder.name,
            freed,
        })
    }

    /// Moves a folder out of sight at once, and then removes it.
    fn take_away(&self, folder: &Path) -> Result<(), Error> {
        let gone = self.root.join(FETCHING).join(disk::fresh_name());
        fs::rename(folder, &gone).map_err(|error| Error::storage("remove", folder, &error))?;
        remove_folder(&gone)
    }

    /// Removes what pulls left that did not end, unless one is under way. Returns the bytes.
    ///
    /// # Errors
    /// What the disk says.
    pub fn prune(&self) -> Result<u64, Error> {
        let fetching = self.fetching();
        if !fetching.root().exists() {
            return Ok(0);
        }
        let books = fetching.books()?;
        let mut claims = Vec::new();
        for known in catalogue::encoders() {
            match fetching.try_claim(&books, &lock(&known.name))? {
                Some(claim) => claims.push(claim),
                None => return Ok(0),
            }
        }
        let mut freed = 0;
        for (_, path) in disk::entries(fetching.root())? {
            if path != fetching.locks() {
                freed += size_of(&path);
                remove_folder(&path)?;
            }
        }
        Ok(freed)
    }

    /// Hashes the files of one encoder or of all whose origin is known, and tells which are damaged; the next pull of a
    /// damaged one fetches it again. `hear` is told after each piece: bytes so far, and of all.
    ///
    /// # Errors
    /// [`Reason::Invalid`] for a folder that was filled by hand; what the disk says, or [`Reason::Cancelled`].
    pub fn verify(
        &self,
        encoder: Option<&StoredEncoder>,
        cancel: &Cancel,
        hear: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<Checked>, Error> {
        let all = match encoder {
            Some(encoder) if encoder.model.is_none() => {
                let (name, path) = (&encoder.name, encoder.folder.display());
                let message = format!(
                    "nothing says what the checksums of `{name}` should be: its folder {path} was filled by hand"
                );
                return Err(Error::new(Reason::Invalid, message));
            }
            Some(encoder) => vec![encoder.clone()],
            None => self.list()?,
        };
        let known = all
            .iter()
            .filter_map(|encoder| Some((encoder, encoder.model.as_ref()?)));
        let files: Vec<_> = known
            .flat_map(|(encoder, model)| model.files.iter().map(move |file| (encoder, file)))
            .collect();
        let total = files.iter().map(|(_, file)| file.size).sum();
        let (mut done, mut checked) = (0, Vec::new());
        for (encoder, file) in files {
            let path = encoder.folder.join(&file.name);
            let problem = match disk::length(&path) {
                None => Some(format!("{} is missing", file.name)),
                Some(_) => {
                    let found = disk::hash(&path, cancel, &mut |bytes| {
                        done += bytes;
                        hear(done, total);
                    })?;
                    let problem = format!("{} has other content ({found})", file.name);
                    (found != file.digest).then_some(problem)
                }
            };
            checked.push(Checked {
                digest: file.digest,
                size: file.size,
                names: vec![encoder.name.clone()],
                problem,
            });
        }
        Ok(checked)
    }
}

/// The lock of an encoder. A folder may have any name, also that of a lock of the store's own.
fn lock(name: &str) -> String {
    format!("encoder-{name}")
}

/// Removes a folder and all in it; one that is not there is removed already.
fn remove_folder(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::storage("remove", folder, &error))
        }
        _ => Ok(()),
    }
}

/// Bytes that all files under a folder take; what cannot be read counts nothing.
fn size_of(folder: &Path) -> u64 {
    let entries = disk::entries(folder).unwrap_or_default().into_iter();
    let sizes = entries.map(|(_, path)| match fs::symlink_metadata(&path) {
        Ok(file) if file.is_dir() => size_of(&path),
        Ok(_) => allocated(&path),
        Err(_) => 0,
    });
    sizes.sum()
}
