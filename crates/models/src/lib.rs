//! The models on this machine's disk, and how they get there.
//!
//! A [`ModelStore`] keeps model files by their content and a manifest for each name; [`pull()`] brings models from a
//! hub or from another Hearth machine, [`ModelStore::import`] from a local file. Nothing gets a name before its
//! checksum and its header were looked at, and an end of the process at any moment leaves the old state or the new one.
//! Everything here blocks: run it on a thread of its own. This crate reads no environment, loads no model, serves no
//! HTTP, and contacts nobody but whom a pull names.
//!
//! - [`Name`]: how models are named; [`catalogue`]: short names of well-known ones.
//! - [`ModelStore`]: list, find, show, import, copy, remove, verify, prune; [`Sources`]: names and files, read only
//!   when they changed.
//! - [`pull()`] with a [`Network`], told by [`Progress`] and ended by [`Cancel`].
//! - [`EncoderStore`]: sentence encoders, which are folders; [`pull_encoder`] brings one.
//! - [`PeerModels`]: what machines tell each other; [`ModelStore::shared`] and [`ModelStore::blob`] answer for this
//!   one.
//! - [`Error`]: a [`Reason`] for programs, a message and a fix for people.

mod cancel;
pub mod catalogue;
mod chunks;
mod claim;
mod disk;
mod encoders;
mod error;
mod fetch;
mod files;
mod http;
mod hub;
mod manifest;
mod missing;
mod name;
pub mod peer;
mod pull;
mod sources;
mod store;

pub use cancel::Cancel;
pub use encoders::{EncoderStore, Fetch, PulledEncoder, StoredEncoder, pull_encoder};
pub use error::{Error, Reason};
pub use http::{Token, tls};
pub use manifest::{Digest, Facts, Kind, Model, ModelFile, Source};
pub use missing::how_to_get;
pub use name::Name;
pub use peer::{PeerModel, PeerModels};
pub use pull::{HUB, Network, Progress, Pulled, State, pull};
pub use sources::Sources;
pub use store::{Checked, ModelStore, Pruned, Removed, Shown, Take};
/// The way to the hub where a proxy stands between.
pub use ureq::Proxy;
