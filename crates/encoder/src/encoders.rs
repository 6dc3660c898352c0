//! The encoders of a home: folders by name, each opened when it is first asked for.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::encoder::Encoder;
use crate::error::Error;

/// Where an encoder is once it was opened; locked while somebody opens it.
type Place = Arc<Mutex<Option<Arc<Encoder>>>>;

/// Sentence encoders in the folders of one folder, such as `HOME/encoders/minilm`. A name is a folder's name.
///
/// What was opened stays open, whatever becomes of its folder. A failure is not kept: the next one who asks looks
/// again, since the encoder may have been fetched meanwhile.
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

    /// Whether there is an encoder of that name: open, or as files that are all there.
    pub fn holds(&self, name: &str) -> bool {
        if !is_plain(name) {
            return false;
        }
        let folder = self.folder.join(name);
        let has = |file: &str| folder.join(file).is_file();
        let whole = has("config.json")
            && has("model.safetensors")
            && (has("tokenizer.json") || has("vocab.txt"));
        whole || self.opened(name).is_some()
    }

    /// The encoder of that name, if it is open already. Waits for nothing.
    pub fn opened(&self, name: &str) -> Option<Arc<Encoder>> {
        let place = Arc::clone(locked(&self.known).get(name)?);
        // Who holds it is opening the encoder.
        place.try_lock().ok()?.clone()
    }

    /// The encoder of that name. The first who asks opens it, which takes a tenth of a second or more; others who ask
    /// meanwhile wait for it.
    ///
    /// # Errors
    /// If there is no folder of that name, or what it holds cannot be used; see [`Encoder::open`].
    pub fn get(&self, name: &str) -> Result<Arc<Encoder>, Error> {
        let folder = self.folder.join(name);
        let known = locked(&self.known).get(name).cloned();
        let place = match known {
            Some(place) => place,
            None if is_plain(name) && folder.is_dir() => {
                Arc::clone(locked(&self.known).entry(name.to_owned()).or_default())
            }
            None => {
                return Err(Error::Unknown {
                    name: name.to_owned(),
                    folder: self.folder.clone(),
                });
            }
        };
        let mut held = locked(&place);
        if let Some(encoder) = &*held {
            return Ok(Arc::clone(encoder));
        }
        let encoder = Arc::new(Encoder::open(&folder)?);
        *held = Some(Arc::clone(&encoder));
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
