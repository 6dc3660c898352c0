//! What is wrong between this machine and another: the body of `/diagnosis`, read by `hearth doctor` and the page.
//!
//! The question is never "is the peer online?" but "can this prompt reach that model and stream a token back right now?".
//! A [`Diagnosis`] answers it layer by layer, in the order in which a prompt meets them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::household::NodeId;

/// What a prompt passes on its way to a peer's model, in this order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// This machine's own node, and whether it belongs to a household.
    Process,
    /// The household's hub.
    Hub,
    /// Whether both are members.
    Roster,
    /// A way to the peer: packets come back, from the machine that was meant.
    Path,
    /// A small request is answered.
    HttpSmall,
    /// A request of 64 KiB is answered.
    HttpLarge,
    /// The peer says what it can do.
    Capabilities,
    /// The peer has the model, and it is loaded.
    Model,
    /// One token was streamed.
    Token,
}

impl Layer {
    /// All, in order.
    pub const ALL: [Self; 9] = [
        Self::Process,
        Self::Hub,
        Self::Roster,
        Self::Path,
        Self::HttpSmall,
        Self::HttpLarge,
        Self::Capabilities,
        Self::Model,
        Self::Token,
    ];

    /// What people read, in the middle of a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::Process => "this machine's node",
            Self::Hub => "the hub",
            Self::Roster => "the roster",
            Self::Path => "the path",
            Self::HttpSmall => "a small request",
            Self::HttpLarge => "a large request",
            Self::Capabilities => "what the peer can do",
            Self::Model => "the model",
            Self::Token => "one token",
        }
    }
}

/// Why a check is as it is. The names are stable: scripts may compare them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// No node runs on this machine.
    NotRunning,
    /// This machine belongs to no household.
    NoHousehold,
    /// The hub does not answer. Stops nothing that works without it.
    HubUnreachable,
    /// One of the two does not know the other as a member.
    NotInRoster,
    /// One of the two was removed from the household.
    Removed,
    /// Another key answered than the roster says, or the peer refuses this machine's.
    KeyMismatch,
    /// Nothing comes back from any address.
    NoPath,
    /// It works, through a relay. A note.
    Relayed,
    /// The peer lives, but packets between the two are dropped.
    FirewallSuspected,
    /// The machine answers, the node does not run there.
    PeerProcessDown,
    /// Connections are accepted, requests are not answered: the process is frozen.
    PeerNotAnswering,
    /// The two clocks differ too much for signatures.
    ClockSkew,
    /// Small packets pass, large ones vanish.
    MtuSuspected,
    /// An answer that no Hearth node of this version gives.
    UnexpectedAnswer,
    /// The peer has no such model.
    ModelMissing,
    /// The model is on the peer's disk. A note: the first request loads it.
    ModelNotLoaded,
    /// The model is being loaded.
    ModelLoading,
    /// The peer's engine failed.
    RuntimeNotReady,
    /// All slots are taken. A note: a request waits or goes elsewhere.
    Busy,
    /// Requests are answered, but no token came in time.
    TokenTimeout,
}

impl Code {
    /// All.
    pub const ALL: [Self; 20] = [
        Self::NotRunning,
        Self::NoHousehold,
        Self::HubUnreachable,
        Self::NotInRoster,
        Self::Removed,
        Self::KeyMismatch,
        Self::NoPath,
        Self::Relayed,
        Self::FirewallSuspected,
        Self::PeerProcessDown,
        Self::PeerNotAnswering,
        Self::ClockSkew,
        Self::MtuSuspected,
        Self::UnexpectedAnswer,
        Self::ModelMissing,
        Self::ModelNotLoaded,
        Self::ModelLoading,
        Self::RuntimeNotReady,
        Self::Busy,
        Self::TokenTimeout,
    ];

    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotRunning => "not_running",
            Self::NoHousehold => "no_household",
            Self::HubUnreachable => "hub_unreachable",
            Self::NotInRoster => "not_in_roster",
            Self::Removed => "removed",
            Self::KeyMismatch => "key_mismatch",
            Self::NoPath => "no_path",
            Self::Relayed => "relayed",
            Self::FirewallSuspected => "firewall_suspected",
            Self::PeerProcessDown => "peer_process_down",
            Self::PeerNotAnswering => "peer_not_answering",
            Self::ClockSkew => "clock_skew",
            Self::MtuSuspected => "mtu_suspected",
            Self::UnexpectedAnswer => "unexpected_answer",
            Self::ModelMissing => "model_missing",
            Self::ModelNotLoaded => "model_not_loaded",
            Self::ModelLoading => "model_loading",
            Self::RuntimeNotReady => "runtime_not_ready",
            Self::Busy => "busy",
            Self::TokenTimeout => "token_timeout",
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It works.
    Ok,
    /// It does not.
    Failed,
    /// Not judged: an earlier layer failed, or nobody looked yet. The words say which.
    Skipped,
    /// It works, and there is something to know.
    Note,
}

/// One layer's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// The layer.
    pub layer: Layer,
    /// What came of it.
    pub outcome: Outcome,
    /// Why, when it failed or there is a note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// What was found, a sentence.
    pub words: String,
    /// What mends it, a sentence with the command to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<f64>,
    /// Seconds since it was seen; by a probe or by real traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
}

/// The answer to "can a prompt reach that model now?".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Yes. The hub may be away all the same.
    Usable,
    /// No; [`Diagnosis::broken`] names the layer.
    Failed,
    /// Nobody looked far enough yet.
    Unknown,
}

/// How a peer is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeerPath {
    /// From machine to machine.
    Direct,
    /// Through a relay.
    Relayed,
    /// Not at all, or not known.
    #[default]
    None,
}

/// What the choice of a machine makes of a diagnosis, best first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It answered lately.
    Good,
    /// Nobody knows.
    Unknown,
    /// It looks bad, and so does everybody else: worth a try when nothing better is there, because then the fault may
    /// well be in the looking.
    LastResort,
    /// It does not work.
    Bad,
}

/// The layers between this machine and a peer, judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Diagnosis {
    /// The peer.
    pub peer: NodeId,
    /// Its name.
    pub name: String,
    /// The model asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The answer.
    pub verdict: Verdict,
    /// The first layer that stops a prompt. The hub's failure alone stops none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<Layer>,
    /// Every layer, in order.
    pub checks: Vec<Check>,
    /// How it is reached.
    pub path: PeerPath,
    /// Round trip of a small request in milliseconds, the last that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
    /// When this was judged, Unix milliseconds.
    pub at: u64,
}

impl Diagnosis {
    /// The check of this layer.
    pub fn check(&self, layer: Layer) -> Option<&Check> {
        self.checks.iter().find(|check| check.layer == layer)
    }

    /// Why no prompt gets through, when none does.
    pub fn code(&self) -> Option<Code> {
        self.check(self.broken?)?.code
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_on_the_wire_are_the_names_in_words() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
        }
        assert_eq!(
            serde_json::to_value(Layer::HttpSmall).unwrap(),
            "http_small"
        );
        assert!(Layer::ALL.is_sorted());
    }
}
