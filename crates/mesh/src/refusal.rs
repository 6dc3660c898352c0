//! Refusals: why a node does not do what another one asks, with a code that stays the same and words that say what mends
//! it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is wrong, for programs. Codes never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is not signed.
    SignatureMissing,
    /// The signature's headers cannot be read.
    SignatureMalformed,
    /// There is more than one signature.
    SeveralSignatures,
    /// The signature leaves out something that it must cover.
    ComponentMissing,
    /// `keyid` is no node.
    UnknownKey,
    /// The signature is not over this request, or not by this key.
    SignatureWrong,
    /// The request is for another node: its address leads to the wrong machine.
    KeyMismatch,
    /// The request came too late.
    SignatureExpired,
    /// The signature would hold for longer than is allowed.
    SignatureTooLong,
    /// The two machines' clocks are too far apart.
    ClockSkew,
    /// The same request was here before.
    Replayed,
    /// The request was signed before this node started, so whether it was here before is not known.
    NodeRestarted,
    /// More requests than this node remembers, within as little time.
    TooManyRequests,
    /// The body is not the one that was signed.
    DigestWrong,
    /// The node is not of this household.
    NotInRoster,
    /// The node was removed from this household.
    Removed,
    /// The hub never issued the ticket.
    TicketUnknown,
    /// The ticket's time is over.
    TicketExpired,
    /// A node has joined with the ticket already.
    TicketUsed,
    /// Who sent the ticket's name does not hold the ticket.
    ProofWrong,
}

impl Code {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SignatureMissing => "signature_missing",
            Self::SignatureMalformed => "signature_malformed",
            Self::SeveralSignatures => "several_signatures",
            Self::ComponentMissing => "component_missing",
            Self::UnknownKey => "unknown_key",
            Self::SignatureWrong => "signature_wrong",
            Self::KeyMismatch => "key_mismatch",
            Self::SignatureExpired => "signature_expired",
            Self::SignatureTooLong => "signature_too_long",
            Self::ClockSkew => "clock_skew",
            Self::Replayed => "replayed",
            Self::NodeRestarted => "node_restarted",
            Self::TooManyRequests => "too_many_requests",
            Self::DigestWrong => "digest_wrong",
            Self::NotInRoster => "not_in_roster",
            Self::Removed => "removed",
            Self::TicketUnknown => "ticket_unknown",
            Self::TicketExpired => "ticket_expired",
            Self::TicketUsed => "ticket_used",
            Self::ProofWrong => "proof_wrong",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What is wrong.
    pub code: Code,
    /// The same for people, with what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal with these words.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}
