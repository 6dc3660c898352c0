//! Why a file was refused: where, what is wrong there, and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::value::ValueType;

/// A refusal. Its text names the file (if known), the field, what is wrong with it, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    // Boxed: results are returned from every small step of the reader.
    inner: Box<(Option<PathBuf>, Place, Problem)>,
}

/// The part of a file that an [`Error`] is about. Names come from the file: they are cut and escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole.
    File,
    /// A metadata key.
    Key(String),
    /// A tensor.
    Tensor(String),
}

/// What is wrong. Reads as the end of a sentence that begins with the [`Place`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file system's own words.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// A folder, a pipe or a device.
    #[error("is not a regular file")]
    NotAFile,
    /// The first four bytes are not `GGUF`.
    #[error("is not a GGUF file")]
    NotGguf,
    /// A version that nobody writes, or version 1.
    #[error("has GGUF version {0}, and only versions 2 and 3 can be read")]
    Version(u32),
    /// Written for big-endian machines.
    #[error("is a big-endian GGUF file, and only little-endian ones can be read")]
    BigEndian,
    /// More bytes are needed than the file has left.
    #[error("is cut short: {needed} bytes are needed where {left} are left")]
    Truncated {
        /// Bytes that should follow.
        needed: u64,
        /// Bytes that do.
        left: u64,
    },
    /// More than any model has.
    #[error("has {count} {what}, and at most {most} can be read")]
    TooMany {
        /// What the file says.
        count: u64,
        /// What is counted.
        what: &'static str,
        /// Most that are read.
        most: u64,
    },
    /// Text that is not UTF-8, or holds a NUL.
    #[error("is not text (UTF-8 without NUL)")]
    NotText,
    /// A key or tensor name without a character.
    #[error("has an empty name")]
    Unnamed,
    /// A name that stands twice.
    #[error("is there twice")]
    Duplicate,
    /// A metadata type that GGUF does not have.
    #[error("has metadata type {0}, which GGUF does not know")]
    UnknownValueType(u32),
    /// A tensor type that GGUF does not have, or has no more.
    #[error("has tensor type {0}, which this version does not know")]
    UnknownTensorType(u32),
    /// Arrays within arrays.
    #[error("is an array of arrays of arrays")]
    Nested,
    /// A value of another type than its key must have.
    #[error("is of type {found} and must be {wanted}")]
    WrongType {
        /// The type in the file.
        found: ValueType,
        /// What the key needs.
        wanted: &'static str,
    },
    /// A key that must be there.
    #[error("is missing")]
    Missing,
    /// A number that no model has.
    #[error("is {value} and must be {least} to {most}")]
    OutOfRange {
        /// The number in the file.
        value: u64,
        /// Least that is accepted.
        least: u64,
        /// Most that is accepted.
        most: u64,
    },
    /// A value that contradicts another one; the text is the end of the sentence.
    #[error("{0}")]
    Contradiction(String),
    /// More dimensions than four.
    #[error("has {0} dimensions, and at most 4 are possible")]
    Dimensions(u32),
    /// A dimension of length 0.
    #[error("has a dimension of length 0")]
    ZeroDimension,
    /// Dimensions whose product is beyond 63 bits.
    #[error("has more elements than can be counted")]
    Overflow,
    /// A row that ends within a block.
    #[error("has rows of {columns} elements, which is not a multiple of its block of {block}")]
    RaggedRow {
        /// Elements of a row.
        columns: u64,
        /// Elements of a block of its type.
        block: u64,
    },
    /// An offset between two multiples of the alignment.
    #[error("starts at offset {offset}, which is not a multiple of the alignment {alignment}")]
    Misaligned {
        /// Where the tensor starts, from the beginning of the data.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// Data beyond the file's end.
    #[error("ends at byte {end}, and the file has {size}")]
    OutsideFile {
        /// Where it should end.
        end: u64,
        /// Bytes of the file.
        size: u64,
    },
    /// Data shared with another tensor.
    #[error("lies over tensor `{0}`")]
    Overlap(String),
    /// A part of a split model that is not beside the first one.
    #[error("is split, and part {0} is not beside it")]
    PartMissing(PathBuf),
    /// A split model's part under another name than the parts' pattern.
    #[error("is part {no} of {count}, and its name does not end in -{no:05}-of-{count:05}.gguf")]
    PartName {
        /// Number of the part, from 1.
        no: u64,
        /// Parts of the model.
        count: u64,
    },
    /// A later part of a split model where the first one is wanted.
    #[error("is part {no} of a split model; the model is loaded through its first part")]
    LaterPart {
        /// Number of the part, from 1.
        no: u64,
    },
    /// An adapter that was made for another model; the text is the end of the sentence.
    #[error("{0}")]
    Adapter(String),
    /// A GGUF file of another kind than asked for.
    #[error("is {found} and not {wanted}")]
    WrongKind {
        /// What the file is.
        found: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
}

/// Most characters of a name from a file that an error shows.
const SHOWN: usize = 80;

/// A name from a file, fit for a log line.
pub(crate) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(&name[..name.len().min(4 * SHOWN)]);
    let mut out: String = text
        .chars()
        .take(SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().count() > SHOWN {
        out.push('…');
    }
    out
}

impl Error {
    pub(crate) fn new(place: Place, problem: Problem) -> Self {
        let inner = Box::new((None, place, problem));
        Self { inner }
    }

    /// About the file as a whole.
    pub(crate) fn file(problem: Problem) -> Self {
        Self::new(Place::File, problem)
    }

    /// About a key.
    pub(crate) fn key(key: impl AsRef<[u8]>, problem: Problem) -> Self {
        Self::new(Place::Key(shown(key.as_ref())), problem)
    }

    /// About a tensor.
    pub(crate) fn tensor(name: impl AsRef<[u8]>, problem: Problem) -> Self {
        Self::new(Place::Tensor(shown(name.as_ref())), problem)
    }

    /// In this file, unless it is already known in which.
    pub(crate) fn at(mut self, path: &Path) -> Self {
        self.inner.0.get_or_insert_with(|| path.to_owned());
        self
    }

    /// The file, where one was opened by path.
    pub fn path(&self) -> Option<&Path> {
        self.inner.0.as_deref()
    }

    /// Where in the file.
    pub fn place(&self) -> &Place {
        &self.inner.1
    }

    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.inner.2
    }

    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self.problem() {
            Problem::Unreadable(_) | Problem::NotAFile => "check the path and the permissions",
            Problem::NotGguf | Problem::Version(_) => "get the model in GGUF format, version 3",
            Problem::BigEndian => "get the little-endian file of this model",
            Problem::Truncated { .. } | Problem::OutsideFile { .. } => {
                "the file is incomplete; download it again"
            }
            Problem::PartMissing(_) => "download all parts into one folder",
            Problem::PartName { .. } => "give the parts their original names",
            Problem::LaterPart { .. } => "name the first part",
            Problem::Adapter(_) => "use the adapter with the model it was made for",
            Problem::WrongKind { .. } => "name another file",
            Problem::NotText
            | Problem::Unnamed
            | Problem::Duplicate
            | Problem::UnknownValueType(_)
            | Problem::Dimensions(_)
            | Problem::ZeroDimension
            | Problem::Overflow
            | Problem::RaggedRow { .. }
            | Problem::Misaligned { .. }
            | Problem::Overlap(_) => "the file is damaged; download it again",
            Problem::TooMany { .. }
            | Problem::UnknownTensorType(_)
            | Problem::Nested
            | Problem::WrongType { .. }
            | Problem::Missing
            | Problem::OutOfRange { .. }
            | Problem::Contradiction(_) => {
                "this file is not a model that Hearth can load; get it from another source"
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("the file"),
            Self::Key(key) => write!(f, "`{key}`"),
            Self::Tensor(name) => write!(f, "tensor `{name}`"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = self.path() {
            write!(f, "{}: ", path.display())?;
        }
        write!(f, "{} {}; {}", self.place(), self.problem(), self.advice())
    }
}

impl std::error::Error for Error {}
