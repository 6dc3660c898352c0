//! The household as its owner sees and changes it: invitations, joining, members, and what nodes say to their hub.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::diagnosis::Diagnosis;
use crate::household::{Address, Capabilities, NodeId, Sealed};
use crate::memory::Hit;

/// The body of `POST /household/invite`; everything may be left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Invite {
    /// Seconds until the ticket expires, 60 to 604,800; a day if left out.
    pub expires_in: Option<u64>,
}

/// An invitation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Invitation {
    /// The ticket; good for one machine.
    pub ticket: String,
    /// When it expires, seconds since 1970.
    pub expires_at: u64,
    /// Where the hub says it is reached.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<Address>,
}

/// The body of `POST /household/join`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The ticket that another machine printed.
    pub ticket: String,
}

/// The body of `POST /household/leave`; everything may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Leave {
    /// Whether a hub ends the household with it, in which there are others.
    pub end: bool,
}

/// The answer of `POST /household/leave`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Left {
    /// Whether those who stay were told; if not, this machine is in their list until it is removed there.
    pub told: bool,
    /// What the others call this machine.
    #[serde(default)]
    pub was: String,
    /// What is left: this machine alone.
    #[serde(flatten)]
    pub peers: Peers,
}

/// A household as one of its nodes sees it: the answer of `GET /peers`, and of joining and leaving.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Peers {
    /// This node.
    pub node: NodeId,
    /// What its household calls this machine.
    pub name: String,
    /// The household, named by its key; `None` for a node that is alone.
    pub household: Option<NodeId>,
    /// Whether this node is a hub.
    pub is_hub: bool,
    /// Where this node is reached by others; empty while it is alone.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<Address>,
    /// The members, this node among them, by name.
    pub members: Vec<Peer>,
}

/// A member, and whether a prompt can reach it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// What people call the machine.
    pub name: String,
    /// Whether it is this machine.
    pub is_here: bool,
    /// Whether it is a hub.
    pub is_hub: bool,
    /// Where it is reached.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<Address>,
    /// What it can do, as it said last.
    pub capabilities: Capabilities,
    /// What was last found out about the way there; `None` for this machine, and before the first probe.
    pub diagnosis: Option<Diagnosis>,
}

/// The body of `POST /peer/join`, signed by the node that joins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AskToJoin {
    /// The ticket, by its public key.
    pub ticket: NodeId,
    /// The ticket's signature over the household and the node that joins, base64.
    pub proof: String,
    /// What the machine would like to be called.
    pub name: String,
    /// Where it is reached.
    pub addresses: Vec<Address>,
    /// What it can do.
    pub capabilities: Capabilities,
}

/// The body of `POST /peer/invite`: a member made a ticket, of which the hub keeps the public half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Issue {
    /// The ticket, by its public key.
    #[schema(value_type = String)]
    pub ticket: NodeId,
    /// When it expires, seconds since 1970.
    pub expires: u64,
}

/// What a hub answers to who joined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// What the hub says about the new member.
    pub member: Sealed,
    /// What it says about all the others.
    pub others: Vec<Sealed>,
}

/// The body of `POST /peer/hello`: a member tells its hub what changed about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Where it is reached.
    pub addresses: Vec<Address>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Whether it is still a hub, if it was one.
    #[serde(default)]
    pub hub: bool,
}

/// The body of `POST /household/memory/share`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The project whose memories the household may search; every memory if left out.
    #[serde(default)]
    pub project: Option<String>,
    /// Whether it may.
    pub shared: bool,
}

/// What of this machine's memories the household may search.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Shared {
    /// Every memory.
    pub all: bool,
    /// These projects.
    pub projects: Vec<String>,
    /// Those of them of which there is no memory on this machine: maybe not yet, or the name is wrong.
    #[serde(default)]
    pub empty: Vec<String>,
}

/// What the machines of a household found: the answer of `POST /household/memory/search`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FoundEverywhere {
    /// The best first.
    pub memories: Vec<HitSomewhere>,
    /// How many there are in this answer.
    pub count: usize,
    /// Who did not answer, or may not be asked.
    pub unanswered: Vec<Unanswered>,
}

/// A memory that some machine found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HitSomewhere {
    /// The memory.
    #[serde(flatten)]
    pub hit: Hit,
    /// Which machine has it.
    pub machine: String,
}

/// A machine without an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unanswered {
    /// Its name.
    pub name: String,
    /// Why, by a stable name: `memory_not_shared`, `project_not_shared`, `no_answer`, and those of refusals.
    pub code: String,
    /// Why, in words.
    pub reason: String,
}
