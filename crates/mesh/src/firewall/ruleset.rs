//! What `nft -j list ruleset` prints (libnftables-json(5)), as far as the doctor needs it: chains, their hooks and
//! policies, and rules in their order.
//!
//! Expressions stay JSON. Newer versions of nft bring new ones, and those of iptables (`xt`) have no JSON at all: a type
//! for each would refuse a whole ruleset for a rule that does not concern the mesh. `traffic` takes what it does not know
//! for "maybe".

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An answer of nft that is none.
#[derive(Debug, thiserror::Error)]
pub enum RulesetError {
    /// Not JSON, or not of this shape.
    #[error("nft printed a ruleset that is not JSON as it is documented: {0}")]
    Shape(#[from] serde_json::Error),
}

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
    /// Frames, ARP, devices: not where the mesh's packets are judged by address or port.
    #[serde(other)]
    Other,
}

impl Family {
    /// As nft writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Other => "other",
        }
    }
}

/// Where a base chain sits in a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// Packets for this machine.
    Input,
    /// Packets from this machine.
    Output,
    /// Any other.
    #[serde(other)]
    Other,
}

/// What names a chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The table's family.
    pub family: Family,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {}", self.family.name(), self.table, self.chain)
    }
}

/// A chain with its rules.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chain {
    pub place: Place,
    /// What makes it a base chain.
    pub base: Option<Base>,
    /// In the order in which they are tried.
    pub rules: Vec<Line>,
}

/// Of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Base {
    pub hook: Hook,
    /// Whether what reaches its end is dropped.
    pub drops: bool,
    /// Chains of type `nat` judge no packets.
    pub nat: bool,
}

/// A rule as nft lists it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub handle: u64,
    pub comment: Option<String>,
    /// Matches and statements, each an object with one key.
    pub expr: Vec<Value>,
}

/// All chains of a network namespace.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ruleset {
    pub(super) chains: Vec<Chain>,
    /// Where each is in the list: a machine that runs containers has thousands.
    index: HashMap<Place, usize>,
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Object>,
}

/// One object of the listing; every kind that is not needed is skipped.
#[derive(Deserialize)]
struct Object {
    chain: Option<ListedChain>,
    rule: Option<ListedRule>,
}

#[derive(Deserialize)]
struct ListedChain {
    family: Family,
    table: String,
    name: String,
    hook: Option<Hook>,
    #[serde(rename = "type")]
    kind: Option<String>,
    policy: Option<String>,
}

#[derive(Deserialize)]
struct ListedRule {
    #[serde(flatten)]
    place: Place,
    handle: u64,
    comment: Option<String>,
    #[serde(default)]
    expr: Vec<Value>,
}

impl Ruleset {
    /// Reads the output of `nft -j list ruleset`.
    ///
    /// # Errors
    /// When it is not JSON of the documented shape.
    pub fn parse(json: &[u8]) -> Result<Self, RulesetError> {
        let listing: Listing = serde_json::from_slice(json)?;
        let mut ruleset = Self::default();
        let mut rules = Vec::new();
        for object in listing.nftables {
            if let Some(chain) = object.chain {
                let chain = Chain::from(chain);
                let at = ruleset.chains.len();
                ruleset.index.insert(chain.place.clone(), at);
                ruleset.chains.push(chain);
            }
            rules.extend(object.rule);
        }
        for rule in rules {
            if let Some(chain) = ruleset.chain_mut(&rule.place) {
                chain.rules.push(Line {
                    handle: rule.handle,
                    comment: rule.comment,
                    expr: rule.expr,
                });
            }
        }
        Ok(ruleset)
    }

    pub(super) fn chain(&self, place: &Place) -> Option<&Chain> {
        self.chains.get(*self.index.get(place)?)
    }

    pub(super) fn chain_mut(&mut self, place: &Place) -> Option<&mut Chain> {
        self.chains.get_mut(*self.index.get(place)?)
    }
}

impl From<ListedChain> for Chain {
    fn from(listed: ListedChain) -> Self {
        Self {
            place: Place {
                family: listed.family,
                table: listed.table,
                chain: listed.name,
            },
            base: listed.hook.map(|hook| Base {
                hook,
                drops: listed.policy.as_deref() == Some("drop"),
                nat: listed.kind.as_deref() == Some("nat"),
            }),
            rules: Vec::new(),
        }
    }
}
