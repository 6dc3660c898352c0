//! Who a node is: an Ed25519 key (RFC 8032), made on its first start and kept in a file that only its owner may read.
//!
//! The key signs three kinds of text, which cannot be taken for each other: [`Sealed`] JSON begins with `{`, the signature
//! base of a request (RFC 9421) with `"`, that of an answer with `"@status"`, which no request has. What a joining node
//! proves is signed by the ticket's own key.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hearth_protocol::household::{NodeId, Sealed};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// First word of the file.
const KIND: &str = "ed25519";

/// Longer than any key file.
const LONGEST: u64 = 1024;

/// The key of this node.
#[derive(Clone)]
pub struct Identity {
    key: Arc<SigningKey>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Identity({})", self.id().short())
    }
}

/// Why a node has no key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Others than its owner may read the file.
    #[error(
        "the key {} may be read by others (mode {mode:o}); run `chmod 600` on it, and if somebody else may have read it, \
         delete it: the node makes a new key and has to join its household again",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds no whole key.
    #[error(
        "the key {} is damaged; restore it from a backup, or delete it: the node makes a new key and has to join its \
         household again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("the key {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Why sealed text was not taken.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is not this author's, or was changed.
    #[error("the signature is not by {}", .0.short())]
    Signature(NodeId),
    /// It is signed and cannot be read.
    #[error("the signed text cannot be read: {0}")]
    Text(#[from] serde_json::Error),
}

impl Identity {
    /// A key of these 32 bytes.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self {
            key: Arc::new(SigningKey::from_bytes(secret)),
        }
    }

    /// A new key that is kept nowhere.
    pub fn generate() -> Self {
        Self::from_secret(&rand::random())
    }

    /// The key in the file at `path`; where there is none yet, a new one, which is on the disk when this returns. Whoever
    /// does this at the same time gets the same key.
    ///
    /// # Errors
    /// Others may read the file, it is damaged, or it cannot be read or written. A file that is there is never replaced.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        let failed = |source| IdentityError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(identity) = Self::load(path)? {
            return Ok(identity);
        }
        let identity = Self::generate();
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder).map_err(failed)?;
        // Its owner's alone from the beginning, and under its own name only when it is whole.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        file.write_all(identity.text().as_bytes()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        match file.persist_noclobber(path) {
            Ok(_) => {
                // So that the name survives a crash too. Folders cannot be opened everywhere.
                if let Ok(folder) = File::open(folder) {
                    let _ = folder.sync_all();
                }
                Ok(identity)
            }
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                let gone = || failed(io::Error::from(io::ErrorKind::NotFound));
                Self::load(path)?.ok_or_else(gone)
            }
            Err(error) => Err(failed(error.error)),
        }
    }

    fn load(path: &Path) -> Result<Option<Self>, IdentityError> {
        let failed = |source| IdentityError::Io {
            path: path.to_owned(),
            source,
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
            if mode & 0o077 != 0 {
                return Err(IdentityError::Exposed {
                    path: path.to_owned(),
                    mode,
                });
            }
        }
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes).map_err(failed)?;
        let identity = String::from_utf8(bytes)
            .ok()
            .and_then(|text| Self::parse(&text));
        let damaged = || IdentityError::Damaged {
            path: path.to_owned(),
        };
        identity.map(Some).ok_or_else(damaged)
    }

    /// `ed25519 SECRET PUBLIC`, in hexadecimal digits. The public half tells a damaged secret from another one.
    fn text(&self) -> String {
        let secret = HEXLOWER.encode(self.key.as_bytes());
        format!("{KIND} {secret} {}\n", self.id())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (kind, secret, public) = (words.next()?, words.next()?, words.next()?);
        let secret = HEXLOWER.decode(secret.as_bytes()).ok()?;
        let identity = Self::from_secret(&secret.try_into().ok()?);
        let whole = kind == KIND && public == identity.id().to_string() && words.next().is_none();
        whole.then_some(identity)
    }

    /// The node's id: its public key.
    pub fn id(&self) -> NodeId {
        NodeId(self.key.verifying_key().to_bytes())
    }

    /// The secret, for [`crate::quic::Quic::bind`]: iroh's endpoint is known by the same key. It is for nothing else.
    pub fn secret(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// Signature over `text`.
    pub fn sign(&self, text: &[u8]) -> [u8; 64] {
        self.key.sign(text).to_bytes()
    }

    /// `value` as JSON, signed.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn seal<T: Serialize>(&self, value: &T) -> Result<Sealed, serde_json::Error> {
        let text = serde_json::to_string(value)?;
        let signature = STANDARD.encode(self.sign(text.as_bytes()));
        Ok(Sealed { text, signature })
    }
}

/// Whether `signature` over `text` is by `node`. Strict: keys of small order, and signatures that only some
/// implementations take, are refused (section 5.1.7 of RFC 8032; H. de Valence and others, "Taming the many EdDSAs").
pub fn verify(node: &NodeId, text: &[u8], signature: &[u8; 64]) -> bool {
    let signature = Signature::from_bytes(signature);
    VerifyingKey::from_bytes(&node.0).is_ok_and(|key| key.verify_strict(text, &signature).is_ok())
}

/// Whether `node` can be somebody: its bytes are a point of the curve, and not one of the few weak ones.
pub fn is_key(node: &NodeId) -> bool {
    VerifyingKey::from_bytes(&node.0).is_ok_and(|key| !key.is_weak())
}

/// What `author` sealed.
///
/// # Errors
/// The signature is not the author's, or the text is no `T`.
pub fn open<T: DeserializeOwned>(sealed: &Sealed, author: &NodeId) -> Result<T, OpenError> {
    let signature = STANDARD.decode(&sealed.signature).ok();
    let signature = signature.and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
    let is_by = |signature| verify(author, sealed.text.as_bytes(), &signature);
    if !signature.is_some_and(is_by) {
        return Err(OpenError::Signature(*author));
    }
    Ok(serde_json::from_str(&sealed.text)?)
}
