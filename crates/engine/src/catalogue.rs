//! Which models there are: names to files.

use std::path::{Path, PathBuf};

use crate::EngineError;

/// A model file and the name requests use for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSource {
    /// Name a request uses.
    pub name: String,
    /// The GGUF file (the first one of a split model).
    pub path: PathBuf,
}

/// Names to GGUF files: the ones registered at start, then every `*.gguf` in the models folder by its stem, then any
/// absolute path that ends in `.gguf`.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    registered: Vec<ModelSource>,
    folder: Option<PathBuf>,
    default: Option<String>,
}

impl Catalogue {
    /// An empty catalogue that also looks into `folder`, if given.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self {
            registered: Vec::new(),
            folder,
            default: None,
        }
    }

    /// Adds a model under a name; the first one added answers when a request names none.
    pub fn register(&mut self, name: impl Into<String>, path: impl Into<PathBuf>) {
        let source = ModelSource {
            name: name.into(),
            path: path.into(),
        };
        if self.default.is_none() {
            self.default = Some(source.name.clone());
        }
        self.registered.retain(|known| known.name != source.name);
        self.registered.push(source);
    }

    /// Makes `name` the model that answers when a request names none.
    pub fn set_default(&mut self, name: impl Into<String>) {
        self.default = Some(name.into());
    }

    /// Name of the model that answers when a request names none.
    pub fn default_name(&self) -> Option<&str> {
        self.default.as_deref()
    }

    /// Every model that can be named: registered ones first, then the folder's, sorted.
    pub fn list(&self) -> Vec<ModelSource> {
        let mut all = self.registered.clone();
        let mut found: Vec<ModelSource> = self
            .folder
            .iter()
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| is_gguf(path) && path.is_file())
            .filter_map(|path| {
                Some(ModelSource {
                    name: path.file_stem()?.to_str()?.to_owned(),
                    path,
                })
            })
            .filter(|source| !all.iter().any(|known| known.name == source.name))
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        all.append(&mut found);
        all
    }

    /// The file behind a name; `None` asks for the default model.
    pub fn resolve(&self, name: Option<&str>) -> Result<ModelSource, EngineError> {
        let models = self.list();
        let wanted = name.or(self.default.as_deref()).unwrap_or_default();
        // What Ollama's clients append to a name without a tag.
        let plain = wanted.strip_suffix(":latest").unwrap_or(wanted);
        let path = Path::new(plain);
        // Also the file's own name, in any case.
        let bare = plain.strip_suffix(".gguf").unwrap_or(plain);
        let named = models.iter().find(|source| source.name == wanted);
        let named = named.or_else(|| {
            let alike = |source: &&ModelSource| source.name.eq_ignore_ascii_case(bare);
            models.iter().find(alike)
        });
        if let Some(source) = named {
            return Ok(source.clone());
        }
        // A file is one model, by whatever name or path it is asked for.
        if path.is_absolute()
            && is_gguf(path)
            && path.is_file()
            && let Ok(real) = path.canonicalize()
        {
            let same =
                |source: &&ModelSource| source.path.canonicalize().is_ok_and(|it| it == real);
            return Ok(match models.iter().find(same) {
                Some(source) => source.clone(),
                None => ModelSource {
                    name: real.display().to_string(),
                    path: real,
                },
            });
        }
        let known: Vec<&str> = models.iter().map(|source| source.name.as_str()).collect();
        Err(EngineError::UnknownModel {
            name: wanted.to_owned(),
            known: known.join(", "),
        })
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}
