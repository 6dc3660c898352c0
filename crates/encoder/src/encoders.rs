//! The encoders of a home: folders by name, each opened when it is first asked for.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::encoder::Encoder;
use crate::error::Error;

/// The weights in an encoder's folder.
const WEIGHTS: &str = "model.safetensors";

/// Where an encoder is once it was opened; locked while somebody opens it.
type Place = Arc<Mutex<Option<Opened>>>;

/// An encoder, and the file that its weights were read from.
#[derive(Debug)]
struct Opened {
    encoder: Arc<Encoder>,
    file: Identity,
}

/// Tells one file of weights from another that took its place.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    length: u64,
    modified: Option<SystemTime>,
    number: Option<u64>,
}

impl Identity {
    /// Of the weights in an encoder's folder; `None` if there are none.
    fn of(folder: &Path) -> Option<Self> {
        let file = fs::metadata(folder.join(WEIGHTS)).ok()?;
        #[cfg(unix)]
        let number = Some(std::os::unix::fs::MetadataExt::ino(&file));
        // The time has to do where files have no number.
        #[cfg(not(unix))]
        let number = None;
        Some(Self {
            length: file.len(),
            modified: file.modified().ok(),
            number,
        })
    }
}

/// Sentence encoders in the folders of one folder, such as `HOME/encoders/minilm`. A name is a folder's name.
///
/// What is opened is kept for as long as its folder has the same file of weights: who asks after that folder was removed
/// hears that there is none, and who asks after it was replaced gets the new one. Whoever holds an encoder may go on
/// using it. A failure is not kept: the next one who asks looks again, since the encoder may have been fetched
/// meanwhile.
#[derive(Debug)]
pub struct Encoders {
    folder: PathBuf,
    known: Mutex<HashMap<String, Place>>,
}

impl Encoders {
    /// Of this folder, which need not exist. Nothing is read yet.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            known: Mutex::default(),
        }
    }

    /// The folder of the encoders' folders.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Names of the folders that hold an encoder's files, sorted. None of them is opened for it.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| self.holds(name))
            .collect();
        names.sort();
        names
    }

    /// Whether there is an encoder of that name: its files are all there.
    pub fn holds(&self, name: &str) -> bool {
        if !is_plain(name) {
            return false;
        }
        let folder = self.folder.join(name);
        let has = |file: &str| folder.join(file).is_file();
        has("config.json") && has(WEIGHTS) && (has("tokenizer.json") || has("vocab.txt"))
    }

    /// The encoder of that name, if it is open already and its weights are still the folder's. Waits for nothing.
    pub fn opened(&self, name: &str) -> Option<Arc<Encoder>> {
        let place = Arc::clone(locked(&self.known).get(name)?);
        let file = Identity::of(&self.folder.join(name))?;
        // Who holds it is opening the encoder.
        let held = place.try_lock().ok()?;
        let opened = held.as_ref().filter(|opened| opened.file == file)?;
        Some(Arc::clone(&opened.encoder))
    }

    /// Lets go of the encoder of that name, if it is open. Its memory is free once nobody uses it any more.
    pub fn forget(&self, name: &str) {
        locked(&self.known).remove(name);
    }

    /// The encoder of that name. The first who asks opens it, which takes a tenth of a second or more; others who ask
    /// meanwhile wait for it.
    ///
    /// # Errors
    /// If there is no folder of that name, or what it holds cannot be used; see [`Encoder::open`].
    pub fn get(&self, name: &str) -> Result<Arc<Encoder>, Error> {
        let folder = self.folder.join(name);
        if !is_plain(name) || !folder.is_dir() {
            self.forget(name);
            return Err(Error::Unknown {
                name: name.to_owned(),
                folder: self.folder.clone(),
            });
        }
        let place = Arc::clone(locked(&self.known).entry(name.to_owned()).or_default());
        let mut held = locked(&place);
        // Looked at before the file is read: of two that change places meanwhile the older one is noted, and the next
        // who asks opens the newer.
        let file = Identity::of(&folder);
        if let Some(opened) = held
            .as_ref()
            .filter(|opened| Some(&opened.file) == file.as_ref())
        {
            return Ok(Arc::clone(&opened.encoder));
        }
        *held = None;
        let encoder = Arc::new(Encoder::open(&folder)?);
        *held = file.map(|file| Opened {
            encoder: Arc::clone(&encoder),
            file,
        });
        Ok(encoder)
    }
}

/// Whether a name can only mean a folder directly in the encoders' folder. What begins with a dot is not finished.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0'])
}

/// A panic while it was held leaves nothing half done.
fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
