//! The tensors of `model.safetensors`, by name, with their shapes checked against the configuration.

use std::fs::File;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::{Mmap, MmapOptions};
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::folder::missing;
use crate::lanes::Lane;
use crate::parallel;

/// The file, mapped while a model is loaded.
pub(crate) struct Weights {
    path: PathBuf,
    file: File,
    map: Mmap,
}

impl Weights {
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("model.safetensors");
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => missing(&path),
            _ => Error::Read {
                path: path.clone(),
                source,
            },
        };
        let file = File::open(&path).map_err(failed)?;
        let kind = file.metadata().map_err(failed)?;
        if !kind.is_file() || kind.len() < 8 {
            let problem = "is not a safetensors file: it is shorter than its header or no file";
            return Err(Error::file(&path, problem));
        }
        let map = map(&file, 0, kind.len() as usize).map_err(failed)?;
        Ok(Self { path, file, map })
    }

    /// A digest of the whole file: of its pieces on several threads, then of their digests.
    pub(crate) fn digest(&self) -> [u8; 32] {
        const PIECE: usize = 1 << 22;
        let pieces = self.map.len().div_ceil(PIECE);
        let digests = parallel::run(
            pieces,
            parallel::cores(),
            || (),
            |(), piece| {
                let end = ((piece + 1) * PIECE).min(self.map.len());
                Ok::<_, std::convert::Infallible>(Sha256::digest(&self.map[piece * PIECE..end]))
            },
        );
        let mut all = Sha256::new();
        for digest in digests.into_iter().flatten() {
            all.update(digest);
        }
        all.finalize().into()
    }

    /// Reads the header. Offsets and lengths were checked when this returns.
    pub(crate) fn tensors(&self) -> Result<Tensors<'_>, Error> {
        let tensors = SafeTensors::deserialize(&self.map).map_err(|error| {
            Error::file(
                &self.path,
                format!("is not a whole safetensors file: {error}"),
            )
        })?;
        // Models saved with a task's head on top name everything below it so.
        let prefix = match tensors.tensor("bert.embeddings.word_embeddings.weight") {
            Ok(_) => "bert.",
            Err(_) => "",
        };
        Ok(Tensors {
            weights: self,
            tensors,
            prefix,
        })
    }
}

/// The tensors of a file.
pub(crate) struct Tensors<'a> {
    weights: &'a Weights,
    tensors: SafeTensors<'a>,
    prefix: &'static str,
}

impl<'a> Tensors<'a> {
    /// A tensor of a certain shape, with numbers that can be read.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor<'_>, Error> {
        let name = format!("{}{name}", self.prefix);
        let path = &self.weights.path;
        let view = self
            .tensors
            .tensor(&name)
            .map_err(|_| Error::tensor(path, &name, "is missing"))?;
        if view.shape() != shape {
            let problem = format!(
                "has the shape {:?}; config.json says {shape:?}",
                view.shape()
            );
            return Err(Error::tensor(path, &name, problem));
        }
        let dtype = match view.dtype() {
            Dtype::F32 => Number::F32,
            Dtype::F16 => Number::F16,
            Dtype::BF16 => Number::Bf16,
            other => {
                let problem = format!("holds {other}; only F32, F16 and BF16 can be read");
                return Err(Error::tensor(path, &name, problem));
            }
        };
        Ok(Tensor {
            path,
            name,
            number: dtype,
            row: shape.last().copied().unwrap_or(1),
            bytes: view.data(),
        })
    }

    /// A tensor of one dimension, all its numbers finite.
    pub(crate) fn lanes(&self, name: &str, length: usize) -> Result<Vec<Lane>, Error> {
        let tensor = self.get(name, &[length])?;
        let floats = tensor.floats(0)?;
        let (lanes, _) = floats.as_chunks::<16>();
        Ok(lanes.iter().map(|lane| Lane(*lane)).collect())
    }

    /// Maps one tensor anew, to be kept.
    pub(crate) fn keep(&self, tensor: &Tensor<'_>) -> Result<Table, Error> {
        let start = tensor.bytes.as_ptr() as usize - self.weights.map.as_ptr() as usize;
        let map = map(&self.weights.file, start as u64, tensor.bytes.len()).map_err(|source| {
            Error::Read {
                path: self.weights.path.clone(),
                source,
            }
        })?;
        Ok(Table {
            map,
            number: tensor.number,
            row: tensor.row,
        })
    }
}

/// How a number is stored; all are little-endian.
#[derive(Debug, Clone, Copy)]
enum Number {
    F32,
    F16,
    Bf16,
}

impl Number {
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    fn read(self, bytes: &[u8], into: &mut [f32]) {
        match self {
            Self::F32 => {
                for (value, bytes) in into.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
            Self::F16 => {
                for (value, bytes) in into.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = f16::from_le_bytes(*bytes).to_f32();
                }
            }
            Self::Bf16 => {
                for (value, bytes) in into.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = bf16::from_le_bytes(*bytes).to_f32();
                }
            }
        }
    }
}

/// A tensor, row by row.
pub(crate) struct Tensor<'a> {
    path: &'a Path,
    name: String,
    number: Number,
    row: usize,
    bytes: &'a [u8],
}

impl Tensor<'_> {
    /// One row into `into`, which is as long; the numbers may be anything.
    pub(crate) fn read(&self, row: usize, into: &mut [f32]) {
        let length = self.row * self.number.bytes();
        self.number
            .read(&self.bytes[row * length..(row + 1) * length], into);
    }

    /// One row of finite numbers.
    pub(crate) fn floats(&self, row: usize) -> Result<Vec<f32>, Error> {
        let mut floats = vec![0.0; self.row];
        self.read(row, &mut floats);
        match floats.iter().all(|value| value.is_finite()) {
            true => Ok(floats),
            false => Err(self.not_finite()),
        }
    }

    /// The error of a tensor that holds something else than finite numbers.
    pub(crate) fn not_finite(&self) -> Error {
        Error::tensor(self.path, &self.name, "holds a number that is not finite")
    }
}

/// A mapped table of numbers, of which a few rows are read per text.
#[derive(Debug)]
pub(crate) struct Table {
    map: Mmap,
    number: Number,
    row: usize,
}

impl Table {
    /// One row.
    pub(crate) fn read(&self, row: usize, into: &mut [Lane]) {
        let size = self.number.bytes();
        let bytes = &self.map[row * self.row * size..(row + 1) * self.row * size];
        for (lane, bytes) in into.iter_mut().zip(bytes.chunks_exact(16 * size)) {
            self.number.read(bytes, &mut lane.0);
        }
    }
}

/// Maps a part of a file.
#[allow(unsafe_code)]
fn map(file: &File, start: u64, length: usize) -> std::io::Result<Mmap> {
    // SAFETY: nobody may change the file while it is mapped. Models are written beside their place and moved into it,
    // so a file that has its name does not change any more.
    unsafe { MmapOptions::new().offset(start).len(length).map(file) }
}
