//! A whole model: one file, or all parts of a split one, which must fit together.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::error::{Error, Problem};
use crate::file::{File, Kind, most_weights};
use crate::tensor::Tensor;

/// A model whose every file is checked.
#[derive(Debug, Clone)]
pub struct Model {
    /// The first one holds the metadata; never empty.
    files: Vec<(PathBuf, File)>,
}

/// Ending of a part's name: its number from 1, and the number of parts, in five digits each.
fn ending(no: u64, count: u64) -> String {
    format!("-{no:05}-of-{count:05}.gguf")
}

/// What stands before a part's ending, its number from 1, and the number of parts.
fn divide(name: &str) -> Option<(&str, u64, u64)> {
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, no) = rest.rsplit_once('-')?;
    let number = |digits: &str| {
        let plain = digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<u64>().ok()).flatten()
    };
    let (no, count) = (number(no)?, number(count)?);
    (1..=count).contains(&no).then_some((stem, no, count))
}

/// The files of the model that `path` belongs to, going by its name: all parts for `NAME-00002-of-00003.gguf`, the path
/// alone for any other name. Looks at no file.
pub fn parts(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str());
    match name.and_then(divide) {
        Some((stem, _, count)) => (1..=count)
            .map(|no| path.with_file_name(format!("{stem}{}", ending(no, count))))
            .collect(),
        None => vec![path.to_owned()],
    }
}

impl Model {
    /// Opens and checks a model through its only file or its first part, and every other part.
    ///
    /// # Errors
    /// What is wrong with which file and what to do; a file that is no model is refused too.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let at = |error: Error| error.at(path);
        let first = File::open(path)?.expect(Kind::Model).map_err(at)?;
        let Some(split) = first.split() else {
            return Ok(Self {
                files: vec![(path.to_owned(), first)],
            });
        };
        let name = path.file_name().and_then(|name| name.to_str());
        if !name.is_some_and(|name| name.ends_with(&ending(1, split.count))) {
            let (no, count) = (1, split.count);
            return Err(at(Error::file(Problem::PartName { no, count })));
        }
        let mut files = vec![(path.to_owned(), first)];
        for (no, part) in parts(path).into_iter().enumerate().skip(1) {
            if !part.exists() {
                return Err(at(Error::file(Problem::PartMissing(part))));
            }
            let file = File::open(&part)?;
            let found = file.split().map(|split| (split.no, split.count));
            if file.kind() != Kind::Part || found != Some((no as u64, split.count)) {
                let (no, count) = found.unwrap_or((0, 1));
                let problem = Problem::Contradiction(format!(
                    "is part {} of {count} by its metadata, and another one by its name",
                    no + 1
                ));
                return Err(Error::file(problem).at(&part));
            }
            files.push((part, file));
        }
        let model = Self { files };
        model.check_tensors(split.tensors).map_err(at)?;
        Ok(model)
    }

    /// Names differ over all parts, and their number is what the first part says.
    fn check_tensors(&self, wanted: Option<u64>) -> Result<(), Error> {
        let mut names = HashSet::new();
        for tensor in self.tensors() {
            if !names.insert(tensor.name.as_str()) {
                return Err(Error::tensor(&tensor.name, Problem::Duplicate));
            }
        }
        match wanted {
            Some(wanted) if wanted != names.len() as u64 => {
                let found = names.len();
                let problem = Problem::Contradiction(format!(
                    "is {wanted}, and the parts have {found} tensors"
                ));
                Err(Error::key("split.tensors.count", problem))
            }
            _ => Ok(()),
        }
    }

    /// Checks that an adapter was made for this model: the same architecture, and for each of its pairs of matrices
    /// a tensor of the model whose rows and columns are theirs.
    ///
    /// # Errors
    /// The first key or tensor of the adapter that does not fit; or that the file is no adapter.
    pub fn check_adapter(&self, adapter: &File) -> Result<(), Error> {
        if adapter.kind() != Kind::Adapter {
            return Err(Error::file(Problem::WrongKind {
                found: adapter.kind().described(),
                wanted: Kind::Adapter.described(),
            }));
        }
        let architecture = |file: &File| file.architecture().unwrap_or_default().to_owned();
        let (own, other) = (architecture(self.first()), architecture(adapter));
        if own != other {
            let problem = Problem::Adapter(format!("is `{other}`, and the model's is `{own}`"));
            return Err(Error::key("general.architecture", problem));
        }
        let weights: HashMap<&str, &Tensor> = self
            .tensors()
            .map(|tensor| (tensor.name.as_str(), tensor))
            .collect();
        let mut ranks: HashMap<&str, u64> = HashMap::new();
        for tensor in adapter.tensors() {
            let refused = |text: String| Error::tensor(&tensor.name, Problem::Adapter(text));
            let divided = tensor.name.rsplit_once('.');
            let Some((name, side @ ("lora_a" | "lora_b"))) = divided else {
                if tensor.name.ends_with("_norm.weight") {
                    continue;
                }
                return Err(refused("is neither a lora_a nor a lora_b".into()));
            };
            let Some(weight) = weights.get(name) else {
                return Err(refused(
                    "changes a tensor that the model does not have".into(),
                ));
            };
            // A tensor's lengths beyond those it names are 1.
            let length = |tensor: &Tensor, at: usize| tensor.shape.get(at).copied().unwrap_or(1);
            let embedding = name.ends_with("token_embd.weight");
            // The model's dimension, that of this side, and the side's other one, which is the rank.
            let (own, its, rank) = match (side, embedding) {
                ("lora_a", false) => (0, 0, 1),
                ("lora_b", false) => (1, 1, 0),
                // Rows are looked up, so the sides change places.
                ("lora_a", true) => (1, 1, 0),
                _ => (0, 1, 0),
            };
            let planes = |tensor: &Tensor| (length(tensor, 2), length(tensor, 3));
            if length(weight, own) != length(tensor, its) || planes(weight) != planes(tensor) {
                return Err(refused(format!(
                    "has the shape {:?}, and the model's tensor {:?}",
                    tensor.shape, weight.shape
                )));
            }
            let rank = length(tensor, rank);
            let other = *ranks.entry(name).or_insert(rank);
            if other != rank {
                let text = format!("has rank {rank}, and its other side has {other}");
                return Err(refused(text));
            }
        }
        Ok(())
    }

    /// The file with the metadata.
    pub fn first(&self) -> &File {
        &self.files[0].1
    }

    /// Every file with its path, in order.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &File)> {
        self.files.iter().map(|(path, file)| (path.as_path(), file))
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files()
            .map(|(_, file)| file.size())
            .fold(0, u64::saturating_add)
    }

    /// The tensors of all files.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.files.iter().flat_map(|(_, file)| file.tensors())
    }

    /// Elements of all tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors()
            .map(Tensor::elements)
            .fold(0, u64::saturating_add)
    }

    /// Name of the quantisation (`Q4_K_M`): what the model says, else the type of most of its weights.
    pub fn quantisation(&self) -> &'static str {
        let said = self.first().file_type();
        said.or_else(|| most_weights(self.tensors()))
            .unwrap_or("unknown")
    }
}
