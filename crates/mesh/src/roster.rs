//! The roster: who belongs to the household of this node, and who does not any more. Pure.
//!
//! It is made of records that the household's key signed ([`Sealed`] [`Member`]s). Anybody can check one, so it does not
//! matter by which way a record came, or whether a hub is there. Of two records about a node, the one of the higher version holds.

use std::collections::BTreeMap;

use hearth_protocol::household::{Address, Capabilities, Member, NodeId, Sealed};

use crate::identity::{OpenError, open};
use crate::refusal::{Code, Refusal};

/// Letters of a machine's name.
pub const LONGEST_NAME: usize = 40;

/// Digits of an id that name a member, at least.
const FEWEST_DIGITS: usize = 4;

/// The members of one household, those who were removed too.
#[derive(Debug, Clone)]
pub struct Roster {
    household: NodeId,
    records: BTreeMap<NodeId, Record>,
}

/// What a hub says about a node, its seal found right.
#[derive(Debug, Clone)]
pub struct Record {
    member: Member,
    sealed: Sealed,
}

impl Record {
    /// Checks a seal.
    ///
    /// # Errors
    /// It is not this household's, or the text is about another one.
    pub fn open(sealed: Sealed, household: &NodeId) -> Result<Self, RecordError> {
        let member: Member = open(&sealed, household)?;
        if member.household != *household {
            return Err(RecordError::Household(member.household));
        }
        Ok(Self { member, sealed })
    }

    /// What it says.
    pub fn member(&self) -> &Member {
        &self.member
    }
}

/// Why a record was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is not signed by the household's key, or cannot be read.
    #[error("the hub's record of a member: {0}")]
    Open(#[from] OpenError),
    /// It is about another household.
    #[error("the record is of the household of {}", .0.short())]
    Household(NodeId),
}

/// Why no member was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// Nobody goes by that name or id.
    #[error("no machine of this household is called `{asked}`{}", known(.names))]
    None {
        /// What was asked for.
        asked: String,
        /// Who there is.
        names: Vec<String>,
    },
    /// Several ids begin so.
    #[error("`{asked}` can be {}; write more digits, or a name", .names.join(" or "))]
    Several {
        /// What was asked for.
        asked: String,
        /// Who is meant, maybe.
        names: Vec<String>,
    },
}

fn known(names: &[String]) -> String {
    match names {
        [] => "; it has no machines yet".to_owned(),
        names => format!("; it has {}", names.join(", ")),
    }
}

/// Why the hub does not make a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The node is not, or not any more, of the household.
    #[error("{} is not of this household; it joins with a ticket of `hearth invite`", .0.short())]
    Unknown(NodeId),
    /// The name is another machine's.
    #[error("another machine is called `{0}`; choose another name")]
    Taken(String),
    /// The name cannot be one.
    #[error(
        "`{0}` cannot be a machine's name; use up to {LONGEST_NAME} small letters, digits, `-`, `_` and `.`, and begin with a \
         letter or digit"
    )]
    Name(String),
}

impl Roster {
    /// The roster of a household that nothing is known of yet.
    pub fn new(household: NodeId) -> Self {
        Self {
            household,
            records: BTreeMap::new(),
        }
    }

    /// The household: its key's public half.
    pub fn household(&self) -> NodeId {
        self.household
    }

    /// Takes what a hub says about a node. Answers whether that was news. The order in which records come does not matter.
    ///
    /// # Errors
    /// The record is no hub's of this household. Nothing has changed then.
    pub fn insert(&mut self, sealed: Sealed) -> Result<bool, RecordError> {
        Ok(self.take(Record::open(sealed, &self.household)?))
    }

    /// Takes a record whose seal was checked. Answers whether that was news; one of another household never is.
    pub fn take(&mut self, record: Record) -> bool {
        // A hub that was put back to an older state may say two things by one number. All members must hold the same one.
        let rank = |record: &Record| (record.member.version, record.sealed.text.clone());
        let known = self.records.get(&record.member.node);
        let is_news = record.member.household == self.household
            && known.is_none_or(|known| rank(&record) > rank(known));
        if is_news {
            self.records.insert(record.member.node, record);
        }
        is_news
    }

    /// Whether a record is held as it is: it need not be checked again.
    pub fn holds(&self, sealed: &Sealed) -> bool {
        /// What is read of a text that may be anybody's.
        #[derive(serde::Deserialize)]
        struct Said {
            node: NodeId,
        }
        let said: Option<Said> = serde_json::from_str(&sealed.text).ok();
        let known = said.and_then(|said| self.records.get(&said.node));
        known.is_some_and(|known| known.sealed == *sealed)
    }

    /// The member that a node is, if what it asks for may be done.
    ///
    /// # Errors
    /// The node never was of the household (`not_in_roster`), or was removed.
    pub fn may_pass(&self, node: &NodeId) -> Result<&Member, Refusal> {
        match self.records.get(node).map(|record| &record.member) {
            Some(member) if member.removed => Err(Refusal::new(
                Code::Removed,
                format!(
                    "{} was removed from this household; to come back it joins with a new ticket",
                    member.name
                ),
            )),
            Some(member) => Ok(member),
            None => Err(Refusal::new(
                Code::NotInRoster,
                format!(
                    "{} is not of this household, or this machine has not heard of it yet; it joins with a ticket of \
                     `hearth invite`, and if it did, this machine must reach the hub",
                    node.short()
                ),
            )),
        }
    }

    /// The members, without those who were removed, in the order of their ids.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        let members = self.records.values().map(|record| &record.member);
        members.filter(|member| !member.removed)
    }

    /// The members and those who were removed, in the order of their ids.
    pub fn all(&self) -> impl Iterator<Item = &Member> {
        self.records.values().map(|record| &record.member)
    }

    /// The hubs, in the order of their ids.
    pub fn hubs(&self) -> impl Iterator<Item = &Member> {
        self.members().filter(|member| member.hub)
    }

    /// What the hubs signed, of those who were removed too: with these another node has the same roster.
    pub fn records(&self) -> impl Iterator<Item = &Sealed> {
        self.records.values().map(|record| &record.sealed)
    }

    /// What the hub said last about a node, removed or not.
    pub fn record(&self, node: &NodeId) -> Option<&Member> {
        self.records.get(node).map(|record| &record.member)
    }

    /// The member that people mean by a name, or by the beginning of an id (at least four digits).
    ///
    /// # Errors
    /// It means nobody, or several.
    pub fn find(&self, asked: &str) -> Result<&Member, FindError> {
        let mut named = self
            .members()
            .filter(|member| member.name.eq_ignore_ascii_case(asked));
        if let (Some(member), None) = (named.next(), named.next()) {
            return Ok(member);
        }
        let is_id = asked.len() >= FEWEST_DIGITS;
        let digits = asked.to_ascii_lowercase();
        let meant: Vec<&Member> = self
            .members()
            .filter(|member| {
                member.name.eq_ignore_ascii_case(asked)
                    || (is_id && member.node.to_string().starts_with(&digits))
            })
            .collect();
        match meant.as_slice() {
            [member] => Ok(member),
            [] => {
                let mut names: Vec<String> =
                    self.members().map(|member| member.name.clone()).collect();
                names.sort();
                Err(FindError::None {
                    asked: asked.to_owned(),
                    names,
                })
            }
            several => Err(FindError::Several {
                asked: asked.to_owned(),
                names: several
                    .iter()
                    .map(|member| format!("{} ({})", member.name, member.node.short()))
                    .collect(),
            }),
        }
    }

    /// The record with which the hub takes `node` in, or back in. The name is made one that nobody else has; a member that
    /// joins again keeps its own.
    pub fn join(
        &self,
        node: NodeId,
        name: &str,
        addresses: Vec<Address>,
        capabilities: Capabilities,
    ) -> Member {
        let known = self.record(&node);
        let name = match known {
            Some(member) if !member.removed => member.name.clone(),
            _ => self.free_name(&node, name),
        };
        Member {
            household: self.household,
            node,
            name,
            version: known.map_or(0, |member| member.version) + 1,
            hub: known.is_some_and(|member| member.hub && !member.removed),
            removed: false,
            addresses,
            capabilities: measured(capabilities),
        }
    }

    /// The record of a member that moved, can do something else now, or is a hub no more; nothing if it says what is known.
    /// Nobody becomes a hub by saying so.
    ///
    /// # Errors
    /// It is no member.
    pub fn update(
        &self,
        node: &NodeId,
        addresses: Vec<Address>,
        capabilities: Capabilities,
        hub: bool,
    ) -> Result<Option<Member>, ChangeError> {
        let known = self.live(node)?;
        let mut member = Member {
            addresses,
            capabilities: measured(capabilities),
            hub: known.hub && hub,
            ..known.clone()
        };
        if member == *known {
            return Ok(None);
        }
        member.version += 1;
        Ok(Some(member))
    }

    /// The record with which a member is one no more.
    ///
    /// # Errors
    /// It is no member.
    pub fn remove(&self, node: &NodeId) -> Result<Member, ChangeError> {
        let known = self.live(node)?;
        Ok(Member {
            version: known.version + 1,
            removed: true,
            addresses: Vec::new(),
            capabilities: Capabilities::default(),
            ..known.clone()
        })
    }

    /// The record of a member under another name; nothing if it has it already.
    ///
    /// # Errors
    /// It is no member, or the name is taken or cannot be one.
    pub fn rename(&self, node: &NodeId, name: &str) -> Result<Option<Member>, ChangeError> {
        let known = self.live(node)?;
        if clean(name) != name || name.is_empty() {
            return Err(ChangeError::Name(name.chars().take(100).collect()));
        }
        if self.is_taken(node, name) {
            return Err(ChangeError::Taken(name.to_owned()));
        }
        let member = Member {
            version: known.version + 1,
            name: name.to_owned(),
            ..known.clone()
        };
        Ok((known.name != name).then_some(member))
    }

    fn live(&self, node: &NodeId) -> Result<&Member, ChangeError> {
        let known = self.record(node).filter(|member| !member.removed);
        known.ok_or(ChangeError::Unknown(*node))
    }

    fn is_taken(&self, node: &NodeId, name: &str) -> bool {
        self.members()
            .any(|member| member.node != *node && member.name.eq_ignore_ascii_case(name))
    }

    /// `wanted` or the next of `wanted-2`, `wanted-3` … that is free.
    fn free_name(&self, node: &NodeId, wanted: &str) -> String {
        let base = match clean(wanted) {
            name if name.is_empty() => "node".to_owned(),
            name => name,
        };
        let mut name = base.clone();
        let mut number = 2_u64;
        while self.is_taken(node, &name) {
            let ending = format!("-{number}");
            let kept = base.len().min(LONGEST_NAME - ending.len());
            name = format!("{}{ending}", &base[..kept]);
            number += 1;
        }
        name
    }
}

/// A text as a machine's name: what stands before a `/` in a model's name, and in an address line. ASCII only.
fn clean(text: &str) -> String {
    let name: String = text
        .trim()
        .chars()
        .map(|letter| match letter.to_ascii_lowercase() {
            letter @ ('a'..='z' | '0'..='9' | '-' | '_' | '.') => letter,
            _ => '-',
        })
        .collect();
    let name = name.trim_start_matches(|letter: char| !letter.is_ascii_alphanumeric());
    let name = &name[..name.len().min(LONGEST_NAME)];
    name.trim_end_matches(['-', '.']).to_owned()
}

/// JSON has no infinity; what was never measured is 0.
fn measured(mut capabilities: Capabilities) -> Capabilities {
    for model in &mut capabilities.models {
        for speed in [
            &mut model.decode_tokens_per_second,
            &mut model.prefill_tokens_per_second,
        ] {
            if !speed.is_finite() || *speed < 0.0 {
                *speed = 0.0;
            }
        }
    }
    capabilities
}
