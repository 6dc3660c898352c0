//! Names and files of a store for whoever loads models: cheap to ask for each request.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::store::ModelStore;

/// How long after a change of a folder its time cannot be trusted: another change in the same tick of the file system's
/// clock (two seconds on the coarsest) would not show.
const SETTLED: Duration = Duration::from_secs(3);

/// What is in a store, read again only when its names changed.
#[derive(Debug)]
pub struct Sources {
    store: ModelStore,
    known: Mutex<Option<Known>>,
}

/// What was in the store when its names last changed.
#[derive(Debug)]
struct Known {
    at: SystemTime,
    all: Vec<(String, PathBuf)>,
}

impl Sources {
    /// Of this store.
    pub fn new(store: ModelStore) -> Self {
        Self {
            store,
            known: Mutex::new(None),
        }
    }

    /// Every name with the file to load, sorted by name. A store that cannot be read has none, and the log says why.
    pub fn list(&self) -> Vec<(String, PathBuf)> {
        let Ok(changed) = std::fs::metadata(self.store.names()).and_then(|it| it.modified()) else {
            return Vec::new();
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|known| known.at == changed) {
            return known.all.clone();
        }
        let all: Vec<(String, PathBuf)> = match self.store.list() {
            Ok(models) => models
                .into_iter()
                .map(|model| (model.name.clone(), self.store.path(&model)))
                .collect(),
            Err(error) => {
                tracing::warn!("{error}");
                return Vec::new();
            }
        };
        let settled = changed.elapsed().is_ok_and(|age| age > SETTLED);
        *known = settled.then(|| Known {
            at: changed,
            all: all.clone(),
        });
        all
    }
}
