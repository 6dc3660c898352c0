//! What can go wrong: nearly always something in the model's folder, which is named.

use std::path::{Path, PathBuf};

/// Why a model was not opened or a text not encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A field of a configuration file has a value this encoder cannot work with.
    #[error("{}: `{field}` {problem}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor of the weights is missing or not as the configuration says.
    #[error("{}: tensor `{name}` {problem}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The tokenizer failed on a text.
    #[error("the text cannot be split into tokens: {0}")]
    Tokens(String),
    /// The pass gave no numbers: the weights are damaged.
    #[error("the model gives no finite vector for this text; its weights are damaged")]
    NotFinite,
    /// A kernel that this machine cannot run was asked for.
    #[error("kernel `{wanted}` is not available on this machine; choose one of: {known}")]
    Kernel {
        /// The kernel asked for.
        wanted: &'static str,
        /// Those there are.
        known: String,
    },
    /// There is no folder of that name.
    #[error("there is no encoder `{name}` in {}", folder.display())]
    Unknown {
        /// The name asked for.
        name: String,
        /// Where encoders lie.
        folder: PathBuf,
    },
    /// A batch was cancelled by its own progress function.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    pub(crate) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::File {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }

    pub(crate) fn field(path: &Path, field: &str, problem: impl Into<String>) -> Self {
        Self::Field {
            path: path.to_owned(),
            field: field.to_owned(),
            problem: problem.into(),
        }
    }

    pub(crate) fn tensor(path: &Path, name: &str, problem: impl Into<String>) -> Self {
        Self::Tensor {
            path: path.to_owned(),
            name: name.to_owned(),
            problem: problem.into(),
        }
    }
}
