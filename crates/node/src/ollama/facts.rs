//! What a model's file says about the model, read once for each state of the file.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use hearth_engine::dialect::Dialect;
use hearth_engine::template::ChatTemplate;
use hearth_engine::{Engine, ModelSource};
use hearth_models::{EncoderStore, Model};
use hearth_protocol::household::PeerModel;
use hearth_protocol::ollama::Details;
use sha2::{Digest, Sha256};

use crate::state::Shared;

/// The capability of models that reason.
pub(super) const THINKING: &str = "thinking";
/// Bytes of an encoder's weights that tell it from others: the list of its tensors, and the first of them.
const HEADER: u64 = 1 << 20;
/// The capability of models that turn texts into vectors.
pub(super) const EMBEDDING: &str = "embedding";

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Whether the file could be read; if not, all else but `size` and `modified` is empty.
    pub readable: bool,
    /// What Ollama tells of a model.
    pub details: Details,
    /// `completion`, `tools`, `thinking`, `embedding`.
    pub capabilities: Vec<&'static str>,
    /// 64 hexadecimal digits.
    pub digest: String,
    /// Bytes of all its files.
    pub size: u64,
    /// When its file was last changed.
    pub modified: Option<SystemTime>,
}

/// Length and time of a file: when they change, so did what it holds.
type Stamp = (u64, Option<SystemTime>);

/// Facts by file.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<HashMap<PathBuf, (Stamp, Arc<Facts>)>>);

impl Known {
    fn of(&self, engine: &Engine, source: &ModelSource) -> Arc<Facts> {
        let file = std::fs::metadata(&source.path).ok();
        let stamp = file
            .map(|file| (file.len(), file.modified().ok()))
            .unwrap_or_default();
        // Valid after any panic: it is only inserted into and read.
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, facts)) = known().get(&source.path).filter(|known| known.0 == stamp) {
            return Arc::clone(facts);
        }
        let facts = Arc::new(read(engine, source, stamp));
        known().insert(source.path.clone(), (stamp, Arc::clone(&facts)));
        facts
    }
}

/// The facts of one model.
pub(super) async fn of(node: &Shared, source: &ModelSource) -> Arc<Facts> {
    let all = all(node, vec![source.clone()]).await;
    all.into_iter().next().unwrap_or_default()
}

/// What is known here of a model that another machine has.
pub(super) fn of_other(model: &PeerModel) -> Facts {
    Facts {
        readable: true,
        details: Details {
            format: "gguf".into(),
            ..Details::default()
        },
        capabilities: vec![match model.embeds {
            true => EMBEDDING,
            false => "completion",
        }],
        size: model.size_bytes,
        ..Facts::default()
    }
}

/// The facts of an encoder: what its pull wrote down, as far as it was pulled.
pub(super) fn of_encoder(listed: &crate::encoders::Listed) -> Facts {
    let store = EncoderStore::new(listed.folder.parent().unwrap_or(&listed.folder));
    let Some(stored) = store.find(&listed.name) else {
        // It is open, and its folder gone.
        return Facts::default();
    };
    let model = stored.model.as_ref();
    let weights = stored.folder.join("model.safetensors");
    let of_weights = |model: &Model| {
        let mut files = model.files.iter();
        let file = files.find(|file| file.name.ends_with(".safetensors"))?;
        Some(file.digest.hex())
    };
    Facts {
        readable: true,
        details: Details {
            parent_model: String::new(),
            format: "safetensors".into(),
            families: vec!["bert".into()],
            family: "bert".into(),
            parameter_size: model
                .map_or_else(String::new, |model| in_words(model.facts.parameters)),
            quantization_level: model
                .map_or_else(String::new, |model| model.facts.quantisation.clone()),
        },
        capabilities: vec![EMBEDDING],
        digest: model
            .and_then(of_weights)
            .or_else(|| header_digest(&weights, HEADER, stored.size))
            .unwrap_or_default(),
        size: stored.size,
        modified: listed.modified,
    }
}

/// The facts of these models, in their order.
pub(super) async fn all(node: &Shared, sources: Vec<ModelSource>) -> Vec<Arc<Facts>> {
    let node = Arc::clone(node);
    let reading = crate::trace::spawn_blocking(move || {
        let facts = sources
            .iter()
            .map(|source| node.facts.of(&node.engine, source));
        facts.collect()
    });
    reading.await.unwrap_or_default()
}

fn read(engine: &Engine, source: &ModelSource, (length, modified): Stamp) -> Facts {
    let nothing = Facts {
        size: length,
        modified,
        ..Facts::default()
    };
    let Ok(model) = hearth_gguf::Model::open(&source.path) else {
        return nothing;
    };
    let file = model.first();
    let family = file.architecture().unwrap_or("unknown").to_owned();
    let capabilities = match engine.embeds(source) {
        Some(true) => vec![EMBEDDING],
        _ => {
            // Every model can be told of tools and kept to their form.
            let all = [
                Some("completion"),
                Some("tools"),
                reasons(file).then_some(THINKING),
            ];
            all.into_iter().flatten().collect()
        }
    };
    Facts {
        readable: true,
        details: Details {
            parent_model: String::new(),
            format: "gguf".into(),
            families: vec![family.clone()],
            family,
            parameter_size: in_words(model.parameters()),
            quantization_level: model.quantisation().into(),
        },
        capabilities,
        digest: stored_digest(&source.path)
            .or_else(|| header_digest(&source.path, file.data_offset(), model.size()))
            .unwrap_or_default(),
        size: model.size(),
        modified,
    }
}

/// Whether the model marks reasoning that stands before its answers.
fn reasons(file: &hearth_gguf::File) -> bool {
    let written = file.chat_template().unwrap_or_default();
    let template = match ChatTemplate::new(written) {
        Ok(template) if !written.is_empty() => template,
        _ => ChatTemplate::chatml(),
    };
    let knows = |tag: &str| file.tokens().any(|token| token == tag.as_bytes());
    Dialect::of(&template, written, &knows).thinking.is_some()
}

/// The digest that a file of the store bears in its name (`sha256-…`), or the folder of a split model.
fn stored_digest(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let folder = || path.parent()?.file_name()?.to_str();
    let digits = name.strip_prefix("sha256-").or_else(folder)?;
    let is_digest = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then(|| digits.to_owned())
}

/// A digest of a file's header and size: it tells models apart and does not read gigabytes.
fn header_digest(path: &Path, header: u64, size: u64) -> Option<String> {
    let mut hasher = Sha256::new();
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(header).read_to_end(&mut bytes).ok()?;
    hasher.update(&bytes);
    hasher.update(size.to_le_bytes());
    let digest = hasher.finalize();
    Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A number of weights as people say it: `1.7B`, `135M`.
fn in_words(count: u64) -> String {
    let (unit, name) = match count {
        1_000_000_000.. => (1e9, "B"),
        1_000_000.. => (1e6, "M"),
        1_000.. => (1e3, "K"),
        _ => return count.to_string(),
    };
    let number = count as f64 / unit;
    let digits = usize::from(number < 99.95);
    format!("{number:.digits$}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_counted_in_words() {
        for (count, words) in [
            (999, "999"),
            (12_345, "12.3K"),
            (134_515_008, "135M"),
            (1_720_574_976, "1.7B"),
            (70_553_706_496, "70.6B"),
            (671_026_419_200, "671B"),
        ] {
            assert_eq!(in_words(count), words);
        }
    }

    #[test]
    fn a_file_of_the_store_bears_its_digest() {
        let digest = "0123456789abcdef".repeat(4);
        let blob = PathBuf::from(format!("/store/blobs/sha256-{digest}"));
        assert_eq!(stored_digest(&blob), Some(digest.clone()));
        let part = PathBuf::from(format!("/store/parts/{digest}/model-00001-of-00002.gguf"));
        assert_eq!(stored_digest(&part), Some(digest));
        assert_eq!(stored_digest(Path::new("/models/ember.gguf")), None);
    }
}
