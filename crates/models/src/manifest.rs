//! What the store knows of a model: which files it has, where they came from, and what they say about themselves.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Reason};

/// The SHA-256 of a blob's bytes. Its text is `sha256:` and 64 hexadecimal digits in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// What was hashed so far.
    pub(crate) fn of(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// Of these bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Name of the blob's file: `sha256-` and the digits.
    pub fn file(&self) -> String {
        format!("sha256-{}", self.hex())
    }

    /// The digits alone.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl FromStr for Digest {
    type Err = Error;

    /// Reads `sha256:…`, `sha256-…` or the digits alone.
    fn from_str(text: &str) -> Result<Self, Error> {
        let digits = text
            .strip_prefix("sha256:")
            .or_else(|| text.strip_prefix("sha256-"))
            .unwrap_or(text);
        let mut bytes = [0; 32];
        let plain = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let read = bytes.iter_mut().enumerate().all(|(at, byte)| {
            let pair = digits.get(2 * at..2 * at + 2).unwrap_or_default();
            u8::from_str_radix(pair, 16).is_ok_and(|value| {
                *byte = value;
                true
            })
        });
        match plain && read {
            true => Ok(Self(bytes)),
            false => Err(Error::new(
                Reason::Invalid,
                format!("`{}` is not a SHA-256 digest", text.escape_debug()),
            )
            .fix("write sha256: and 64 hexadecimal digits")),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Answers.
    Chat,
    /// Turns texts into vectors.
    Embedding,
}

impl Kind {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embedding => "embedding",
        }
    }
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFile {
    /// Name at its source, without folders; of an encoder's file, its path in the encoder's folder.
    pub name: String,
    /// Where its bytes are in the store.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
}

/// Where a model came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Source {
    /// A repository of a hub.
    Hub {
        /// Address of the hub.
        hub: String,
        /// `org/repo`.
        repo: String,
        /// Branch, tag or commit that was asked for.
        revision: String,
        /// The commit that this was then, if the hub said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
        /// Path of the first file in the repository.
        file: String,
    },
    /// Another Hearth machine.
    Peer {
        /// Its address.
        address: String,
        /// The repository it had the model from, if it said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        repo: Option<String>,
    },
    /// A package of Python's index.
    Package {
        /// Its name.
        package: String,
        /// Its version.
        version: String,
    },
    /// A file of this machine.
    Import {
        /// Its path then.
        path: String,
    },
}

/// What a model's file says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// `general.architecture`.
    pub architecture: String,
    /// Number of weights.
    pub parameters: u64,
    /// `Q4_K_M` and the like.
    pub quantisation: String,
    /// Longest sequence it was trained for, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<u64>,
    /// What it is for.
    pub kind: Kind,
    /// Its licence, as the file or the catalogue names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

/// A model of the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Name it is asked for.
    pub name: String,
    /// Its files in order: one, or the parts of a split model.
    pub files: Vec<ModelFile>,
    /// Where it came from.
    pub source: Source,
    /// When it came, in RFC 3339 (UTC).
    pub pulled: String,
    /// What its file says.
    pub facts: Facts,
}

impl Model {
    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// Newest form of a manifest that this version reads, and the one it writes.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    #[serde(flatten)]
    model: Model,
}

impl Model {
    /// As a manifest's text.
    pub(crate) fn manifest(&self) -> Result<Vec<u8>, Error> {
        let manifest = Manifest {
            format: FORMAT,
            model: self.clone(),
        };
        let mut text = serde_json::to_vec_pretty(&manifest).map_err(|error| {
            Error::new(
                Reason::Storage,
                format!("`{}` has no manifest: {error}", self.name),
            )
        })?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads a manifest's text; the reason if it is none.
    pub(crate) fn read(text: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let Version { format } =
            serde_json::from_slice(text).map_err(|error| format!("is no manifest: {error}"))?;
        if format > FORMAT {
            return Err(format!(
                "has format {format} of a newer Hearth, and this one reads up to {FORMAT}"
            ));
        }
        let Manifest { model, .. } =
            serde_json::from_slice(text).map_err(|error| format!("is no manifest: {error}"))?;
        match model.files.is_empty() {
            true => Err("lists no file".into()),
            false => Ok(model),
        }
    }
}
