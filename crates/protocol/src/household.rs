//! Nodes, households and their members: who is who, where they are reached, and what they can do.
//!
//! A **household** is the set of nodes that trust one key, and is named by its public half. A **hub** holds the key. What
//! it says about a member travels as [`Sealed`] text, so that anybody can check it and nobody has to agree on how JSON is
//! written.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::status::ModelState;

/// A node: its Ed25519 public key. Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String)]
pub struct NodeId(pub [u8; 32]);

impl NodeId {
    /// The first ten digits, for people: enough to tell the machines of a household apart.
    pub fn short(&self) -> String {
        self.to_string()[..10].to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NodeId({})", self.short())
    }
}

/// A text that is no node id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a node id has 64 hexadecimal digits")]
pub struct NotANodeId;

impl FromStr for NodeId {
    type Err = NotANodeId;

    fn from_str(text: &str) -> Result<Self, NotANodeId> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(NotANodeId);
        }
        let mut id = [0; 32];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| (pair[at] as char).to_digit(16).ok_or(NotANodeId);
            *byte = (digit(0)? * 16 + digit(1)?) as u8;
        }
        Ok(Self(id))
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where a node is reached: `http://192.0.2.7:8321` (signed requests in the clear, for networks that are private already),
/// `quic://192.0.2.7:8321` (iroh, encrypted), or `relay+https://relay.example/` (iroh through a relay of the owner's).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// Signed HTTP.
    Http(SocketAddr),
    /// iroh, directly.
    Quic(SocketAddr),
    /// iroh, through this relay.
    Relay(String),
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(address) => write!(formatter, "http://{address}"),
            Self::Quic(address) => write!(formatter, "quic://{address}"),
            Self::Relay(url) => write!(formatter, "relay+{url}"),
        }
    }
}

/// A text that is no address of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address of a node; write http://IP:PORT, quic://IP:PORT or relay+https://HOST/"
)]
pub struct NotAnAddress(String);

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let wrong = || NotAnAddress(text.chars().take(100).collect());
        let socket = |rest: &str| rest.trim_end_matches('/').parse().map_err(|_| wrong());
        if let Some(rest) = text.strip_prefix("http://") {
            socket(rest).map(Self::Http)
        } else if let Some(rest) = text.strip_prefix("quic://") {
            socket(rest).map(Self::Quic)
        } else if let Some(url) = text.strip_prefix("relay+").filter(|url| {
            let url = url
                .strip_prefix("https://")
                .or_else(|| url.strip_prefix("http://"));
            url.is_some_and(|host| !host.is_empty())
        }) {
            Ok(Self::Relay(url.to_owned()))
        } else {
            Err(wrong())
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A text with its author's signature over exactly these bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sealed {
    /// JSON, as it was signed.
    pub text: String,
    /// Ed25519 signature (RFC 8032) over `text`, base64.
    pub signature: String,
}

/// What a hub says about one node. A later one, by `version`, takes an earlier one's place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// The household: its key's public half.
    pub household: NodeId,
    /// The node.
    pub node: NodeId,
    /// What people call the machine; unique in a household.
    pub name: String,
    /// Counts what hubs ever said about this node, from 1.
    pub version: u64,
    /// Whether it is a hub: others join through it, and follow it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hub: bool,
    /// Whether it was removed: whatever it proves, it is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// Where it is reached, best first.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<Address>,
    /// What it can do, as it said last.
    #[serde(default)]
    pub capabilities: Capabilities,
}

/// What a node can do: what others choose by before they ask it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Capabilities {
    /// Version of its program.
    pub version: String,
    /// Its models.
    pub models: Vec<PeerModel>,
    /// Names of its adapters.
    pub adapters: Vec<String>,
    /// Name of its sentence encoder.
    pub encoder: Option<String>,
    /// Whether its memories may be searched by its household.
    pub memory_shared: bool,
    /// RAM in bytes.
    pub memory_bytes: u64,
    /// What computes: a GPU's name, or the CPU code in use.
    pub device: String,
    /// Whether that is a GPU.
    pub gpu: bool,
    /// Whether it runs on a battery.
    pub on_battery: bool,
    /// Whether it is slowed down because it is hot.
    pub throttled: bool,
}

/// A model that a node has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PeerModel {
    /// Name a request uses.
    pub name: String,
    /// Bytes of the weights.
    pub size_bytes: u64,
    /// Whether it embeds texts and generates none.
    pub embeds: bool,
    /// Whether it is loaded.
    pub loaded: bool,
    /// Where it is in its life. Only what a node says of itself at the moment has this; a roster has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<ModelState>,
    /// Longest prompt with its answer, in tokens; 0 if not known.
    pub context: u32,
    /// Measured generation of one stream, tokens per second; 0 if never measured.
    pub decode_tokens_per_second: f32,
    /// Measured reading of prompts, tokens per second; 0 if never measured.
    pub prefill_tokens_per_second: f32,
    /// Requests it can work on at once; 0 if not known.
    pub slots: u32,
    /// Of which it works on so many. Only what a node says of itself at the moment has this; a roster has not.
    #[serde(skip_serializing_if = "is_none")]
    pub busy: u32,
    /// Requests that wait; as `busy`.
    #[serde(skip_serializing_if = "is_none")]
    pub queued: u32,
}

fn is_none(count: &u32) -> bool {
    *count == 0
}
