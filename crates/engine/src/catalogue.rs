//! Which models there are: names to files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::EngineError;

/// How long after a change of a folder its time cannot be trusted: another change in the same tick of the file system's
/// clock (two seconds on the coarsest) would not show.
const SETTLED: Duration = Duration::from_secs(3);
/// How the names of models from a hub may begin; without it they are the same models.
const HUB: [&str; 3] = ["hf:", "hf.co/", "huggingface.co/"];

/// A model file and the name requests use for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSource {
    /// Name a request uses.
    pub name: String,
    /// The GGUF file (the first one of a split model).
    pub path: PathBuf,
}

impl ModelSource {
    /// Bytes of the model on the disk: of all its parts, as their names tell them; what is not there counts nothing.
    pub fn size(&self) -> u64 {
        let length = |path: &PathBuf| std::fs::metadata(path).map_or(0, |file| file.len());
        hearth_gguf::parts(&self.path).iter().map(length).sum()
    }
}

/// What to do about a name that nothing here has, given the names that are here.
type Advice = dyn Fn(&str, &[&str]) -> String + Send + Sync;

/// The name of what turns texts into vectors without this engine, if a name means such a thing.
type Encoder = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Lists models that are kept elsewhere.
type Further = dyn Fn() -> Vec<ModelSource> + Send + Sync;

/// Names to GGUF files: the ones registered at start, then every `*.gguf` in the models folder by its stem and those
/// from further sources, then any absolute path that ends in `.gguf`.
#[derive(Clone, Default)]
pub struct Catalogue {
    registered: Vec<ModelSource>,
    folder: Option<PathBuf>,
    further: Vec<Arc<Further>>,
    default: Option<String>,
    advice: Option<Arc<Advice>>,
    encoder: Option<Arc<Encoder>>,
    /// What was in the folder when it last changed.
    found: Arc<Mutex<Option<Found>>>,
}

/// What was in the folder when it had this time.
struct Found {
    at: SystemTime,
    models: Vec<ModelSource>,
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue")
            .field("registered", &self.registered)
            .field("folder", &self.folder)
            .field("further", &self.further.len())
            .field("default", &self.default)
            .finish_non_exhaustive()
    }
}

impl Catalogue {
    /// An empty catalogue that also looks into `folder`, if given.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self {
            folder,
            ..Self::default()
        }
    }

    /// Also knows what this source lists. It is asked for every request, on the thread of the request: it must be
    /// quick.
    #[must_use]
    pub fn with_source(mut self, source: Arc<dyn Fn() -> Vec<ModelSource> + Send + Sync>) -> Self {
        self.further.push(source);
        self
    }

    /// Says this about a name that nothing here has: it gets the name and those that are here. Without it people are
    /// told the known names, and of files.
    #[must_use]
    pub fn with_advice(
        mut self,
        advice: impl Fn(&str, &[&str]) -> String + Send + Sync + 'static,
    ) -> Self {
        self.advice = Some(Arc::new(advice));
        self
    }

    /// Knows names of encoders, which this engine does not run: whoever asks one of them for text is told what it is.
    #[must_use]
    pub fn with_encoders(
        mut self,
        encoder: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.encoder = Some(Arc::new(encoder));
        self
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

    /// Every model that can be named: registered ones first, then the others, sorted.
    pub fn list(&self) -> Vec<ModelSource> {
        let mut all = self.registered.clone();
        let first = all.len();
        let further = self.further.iter().flat_map(|source| source());
        for source in self.in_folder().into_iter().chain(further) {
            if !all.iter().any(|known| known.name == source.name) {
                all.push(source);
            }
        }
        all[first..].sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The folder's models; the folder is read again only when it changed.
    fn in_folder(&self) -> Vec<ModelSource> {
        let changed = |folder: &PathBuf| std::fs::metadata(folder).ok()?.modified().ok();
        let Some((folder, changed)) = self
            .folder
            .as_ref()
            .and_then(|folder| Some((folder, changed(folder)?)))
        else {
            return Vec::new();
        };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = found.as_ref().filter(|found| found.at == changed) {
            return found.models.clone();
        }
        let models: Vec<ModelSource> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| is_gguf(path) && path.is_file())
            // The later parts of a split model are no models.
            .filter(|path| hearth_gguf::parts(path).first() == Some(path))
            .filter_map(|path| {
                Some(ModelSource {
                    name: path.file_stem()?.to_str()?.to_owned(),
                    path,
                })
            })
            .collect();
        let settled = changed.elapsed().is_ok_and(|age| age > SETTLED);
        *found = settled.then(|| Found {
            at: changed,
            models: models.clone(),
        });
        models
    }

    /// The file behind a name; `None` asks for the default model.
    pub fn resolve(&self, name: Option<&str>) -> Result<ModelSource, EngineError> {
        let models = self.list();
        let wanted = name.or(self.default.as_deref()).unwrap_or_default();
        // What Ollama's clients append to a name without a tag.
        let plain = wanted.strip_suffix(":latest").unwrap_or(wanted);
        let path = Path::new(plain);
        let named = meant(&models, wanted);
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
        if let Some(name) = self.encoder.as_ref().and_then(|meant| meant(wanted)) {
            return Err(EngineError::OnlyEmbeds { name });
        }
        let names: Vec<&str> = models.iter().map(|source| source.name.as_str()).collect();
        let known = names.join(", ");
        Err(EngineError::UnknownModel {
            name: wanted.to_owned(),
            advice: match &self.advice {
                Some(advice) => advice(wanted, &names),
                None => format!(
                    "known models: {known}. Put a GGUF file into the models folder or name its full path"
                ),
            },
            known,
        })
    }
}

fn meant<'a>(models: &'a [ModelSource], wanted: &str) -> Option<&'a ModelSource> {
    let names: Vec<&str> = models.iter().map(|source| source.name.as_str()).collect();
    named(&names, wanted).map(|at| &models[at])
}

/// Which of these models a name means: the same name, also in other case or with the file's ending; else the same but for
/// its tag, when a name without one (or with `latest`) can mean only one model.
pub fn named(names: &[&str], wanted: &str) -> Option<usize> {
    let find = |same: &dyn Fn(&str) -> bool| names.iter().position(|name| same(name));
    let bare = wanted.strip_suffix(".gguf").unwrap_or(wanted);
    if let Some(at) =
        find(&|name| name == wanted).or_else(|| find(&|name| name.eq_ignore_ascii_case(bare)))
    {
        return Some(at);
    }
    let (base, tag) = divide(wanted);
    let alike: Vec<(usize, Option<&str>)> = names
        .iter()
        .map(|name| divide(name))
        .enumerate()
        .filter(|(_, (own, _))| own.eq_ignore_ascii_case(base))
        .map(|(at, (_, tag))| (at, tag))
        .collect();
    let same = alike.iter().find(|(_, own)| match (own, tag) {
        (Some(own), Some(tag)) => own.eq_ignore_ascii_case(tag),
        (own, tag) => own.is_none() && tag.is_none(),
    });
    match (same, alike.as_slice()) {
        (Some((at, _)), _) => Some(*at),
        (None, [(at, _)]) if tag.is_none() => Some(*at),
        _ => None,
    }
}

/// A name without the hub's mark, and its tag unless that is `latest`.
fn divide(name: &str) -> (&str, Option<&str>) {
    let bare = HUB.iter().find_map(|mark| {
        let head = name.get(..mark.len())?;
        head.eq_ignore_ascii_case(mark).then(|| &name[mark.len()..])
    });
    match bare.unwrap_or(name).split_once(':') {
        Some((base, tag)) => (
            base,
            Some(tag).filter(|tag| !tag.eq_ignore_ascii_case("latest")),
        ),
        None => (bare.unwrap_or(name), None),
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue(names: &[&str]) -> Catalogue {
        let sources: Vec<ModelSource> = names
            .iter()
            .map(|name| ModelSource {
                name: (*name).to_owned(),
                path: PathBuf::from("/blobs/x"),
            })
            .collect();
        Catalogue::new(None).with_source(Arc::new(move || sources.clone()))
    }

    fn resolved(names: &[&str], wanted: &str) -> Option<String> {
        let found = catalogue(names).resolve(Some(wanted));
        found.ok().map(|source| source.name)
    }

    #[test]
    fn a_name_without_its_tag_means_the_only_one_or_the_latest() {
        let one = ["qwen3:1.7b"];
        for wanted in ["qwen3:1.7b", "Qwen3:1.7B", "qwen3", "qwen3:latest"] {
            assert_eq!(
                resolved(&one, wanted).as_deref(),
                Some("qwen3:1.7b"),
                "{wanted}"
            );
        }
        assert_eq!(resolved(&one, "qwen3:8b"), None);
        assert_eq!(resolved(&one, "qwen"), None);
        let two = ["qwen3:1.7b", "qwen3:8b"];
        assert_eq!(resolved(&two, "qwen3"), None);
        let latest = ["qwen3:1.7b", "qwen3:latest"];
        assert_eq!(resolved(&latest, "qwen3").as_deref(), Some("qwen3:latest"));
        assert_eq!(
            resolved(&["ember"], "ember:latest").as_deref(),
            Some("ember")
        );
    }

    #[test]
    fn a_hub_name_is_known_in_every_form() {
        let names = ["hf:Org/Repo:Q4_K_M"];
        for wanted in [
            "hf:org/repo:q4_k_m",
            "org/repo:Q4_K_M",
            "hf.co/Org/Repo:Q4_K_M",
            "Org/Repo",
            "hf:org/repo",
        ] {
            assert!(resolved(&names, wanted).is_some(), "{wanted}");
        }
        assert_eq!(resolved(&names, "org/repo:Q8_0"), None);
    }

    #[test]
    fn a_split_model_is_one_and_as_large_as_all_its_parts() {
        let folder = tempfile::tempdir().expect("a folder");
        let part = |no: u32| folder.path().join(format!("m-{no:05}-of-00003.gguf"));
        for (no, length) in [(1, 10), (2, 200)] {
            std::fs::write(part(no), vec![0; length]).expect("a file");
        }
        let size = |path: PathBuf| {
            let name = String::from("m");
            ModelSource { name, path }.size()
        };
        assert_eq!(size(part(1)), 210);
        let listed = Catalogue::new(Some(folder.path().to_owned())).list();
        let paths: Vec<&PathBuf> = listed.iter().map(|source| &source.path).collect();
        assert_eq!(paths, [&part(1)]);
        assert_eq!(size(folder.path().join("none.gguf")), 0);
    }

    #[test]
    fn a_further_source_is_asked_each_time_and_hides_nothing() {
        let mut catalogue = catalogue(&["ember", "a:b"]);
        catalogue.register("ember", "/own/ember.gguf");
        let list = catalogue.list();
        let names: Vec<&str> = list.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["ember", "a:b"]);
        assert_eq!(list[0].path, PathBuf::from("/own/ember.gguf"));
    }
}
