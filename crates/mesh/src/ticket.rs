//! Tickets: how a machine comes into a household. The hub prints one, somebody carries it over, and the machine that joins
//! proves that it holds it.
//!
//! From the ticket's secret follows a key pair. The hub keeps the public half alone, so that nobody who reads its database
//! can join; the joiner signs its own id with the secret half, so that nobody who listens can use what is sent. A ticket
//! lets one node in. That node may ask again, in case the answer was lost.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::{Encoding, Specification};
use hearth_protocol::household::{Address, NodeId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::identity::{Identity, verify};
use crate::refusal::{Code, Refusal};

/// What a ticket begins with, and the version of what follows. Upper case, as a QR code packs capitals and digits densely.
const PREFIX: &str = "HEARTH1";

/// Bytes of the checksum.
const CHECK: usize = 4;

/// Bytes of a name that a ticket carries.
const LONGEST_NAME: usize = 63;

/// Addresses that a ticket carries.
const MOST_ADDRESSES: usize = 16;

/// Kinds of addresses, as they stand in a ticket.
const HTTP: u8 = 0;
const QUIC: u8 = 1;
const RELAY: u8 = 2;

/// Base32 (RFC 4648, section 6) without padding. Small letters, the digits that are taken for letters, and whatever a mail
/// program or a person puts in between are read too.
static LETTERS: LazyLock<Encoding> = LazyLock::new(|| {
    let mut letters = Specification::new();
    letters.symbols.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567");
    letters
        .translate
        .from
        .push_str("abcdefghijklmnopqrstuvwxyz018");
    letters
        .translate
        .to
        .push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZOIB");
    letters.encoding().expect("32 letters")
});

/// An invitation into a household, for one machine.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The household: its key's public half, by which whoever joins knows what it is told.
    pub household: NodeId,
    /// The hub that takes who joins in.
    pub hub: NodeId,
    /// What people call the hub.
    pub name: String,
    /// Where the hub is reached, best first.
    pub addresses: Vec<Address>,
    /// From when on it is worth nothing, in seconds since 1970.
    pub expires: u64,
    secret: [u8; 16],
}

impl fmt::Debug for Ticket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Ticket({} by {:?})", self.name, self.hub)
    }
}

/// Why a text is no ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It does not begin like one.
    #[error("this is no ticket: one begins with {PREFIX}; `hearth invite` on the hub prints one")]
    NotATicket,
    /// It is of a later version.
    #[error(
        "this ticket was made by a newer Hearth; update this machine's, or make the ticket with the older one"
    )]
    Newer,
    /// A letter that is in no ticket.
    #[error("`{0}` is in no ticket; copy it again, all of it")]
    Letter(char),
    /// The checksum is wrong.
    #[error("a letter of this ticket is wrong or missing; copy it again, all of it")]
    Slip,
    /// The checksum is right and the rest makes no sense.
    #[error("this ticket is damaged; make a new one with `hearth invite` on the hub")]
    Damaged,
}

/// What a joiner sends to show that it holds a ticket. It is worth nothing to anybody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinProof {
    /// Which ticket: its public key.
    pub ticket: NodeId,
    /// The ticket's signature over the household and the joiner, base64.
    pub proof: String,
}

/// What the hub keeps of a ticket: nothing that lets anybody join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The ticket's public key, which it is found by.
    pub ticket: NodeId,
    /// From when on it is worth nothing, in seconds since 1970.
    pub expires: u64,
    /// Who joined with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<NodeId>,
}

/// How often a node joined with a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Now, and never before: the invitation has changed and must be stored with what follows from it.
    First,
    /// It joined before and asks again. Who was removed since does not come back with an old ticket: that is for the roster
    /// to tell, and [`Invitation::spent`] to say.
    Again,
}

impl Ticket {
    /// A new ticket into a household, by way of `hub`. So that it stays short, a name is cut at 63 bytes, of more than 16 addresses
    /// the first are taken, and a relay whose URL has more than 255 bytes is left out.
    pub fn new(
        household: NodeId,
        hub: NodeId,
        name: &str,
        addresses: Vec<Address>,
        expires: u64,
    ) -> Self {
        let mut ticket = Self {
            household,
            hub,
            name: String::new(),
            addresses: Vec::new(),
            expires,
            secret: rand::random(),
        };
        ticket.lead_to(hub, name, addresses);
        ticket
    }

    /// Has it lead to another hub of the household.
    pub fn lead_to(&mut self, hub: NodeId, name: &str, mut addresses: Vec<Address>) {
        let mut end = name.len().min(LONGEST_NAME);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        addresses.truncate(MOST_ADDRESSES);
        addresses.retain(
            |address| !matches!(address, Address::Relay(url) if url.len() > usize::from(u8::MAX)),
        );
        self.hub = hub;
        self.name = name[..end].to_owned();
        self.addresses = addresses;
    }

    fn key(&self) -> Identity {
        let mut hash = Sha256::new();
        hash.update(b"hearth ticket\n");
        hash.update(self.secret);
        Identity::from_secret(&hash.finalize().into())
    }

    /// What the hub keeps of it.
    pub fn invitation(&self) -> Invitation {
        Invitation {
            ticket: self.key().id(),
            expires: self.expires,
            used_by: None,
        }
    }

    /// What `joiner` shows to the hub.
    pub fn proof(&self, joiner: &NodeId) -> JoinProof {
        let key = self.key();
        JoinProof {
            ticket: key.id(),
            proof: STANDARD.encode(key.sign(proven(&self.household, joiner).as_bytes())),
        }
    }

    /// Whether it is worth nothing any more, at `now` in seconds since 1970.
    pub fn is_over(&self, now: u64) -> bool {
        now >= self.expires
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(self.household.0);
        bytes.extend(self.hub.0);
        bytes.extend(self.secret);
        bytes.extend(self.expires.to_be_bytes());
        short(&mut bytes, self.name.as_bytes());
        bytes.push(self.addresses.len() as u8);
        for address in &self.addresses {
            match address {
                Address::Http(address) => socket(&mut bytes, HTTP, address),
                Address::Quic(address) => socket(&mut bytes, QUIC, address),
                Address::Relay(url) => {
                    bytes.push(RELAY);
                    short(&mut bytes, url.as_bytes());
                }
            }
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        let (household, hub) = (NodeId(rest.array()?), NodeId(rest.array()?));
        let secret = rest.array()?;
        let expires = u64::from_be_bytes(rest.array()?);
        let name = rest.text()?;
        let count = usize::from(rest.byte()?);
        let mut addresses = Vec::new();
        for _ in 0..count.min(MOST_ADDRESSES + 1) {
            addresses.push(match rest.byte()? {
                HTTP => Address::Http(rest.socket()?),
                QUIC => Address::Quic(rest.socket()?),
                RELAY => format!("relay+{}", rest.text()?).parse().ok()?,
                _ => return None,
            });
        }
        let whole = rest.0.is_empty() && count <= MOST_ADDRESSES;
        whole.then_some(Self {
            household,
            hub,
            name,
            addresses,
            expires,
            secret,
        })
    }
}

impl Invitation {
    /// Lets `joiner` in. Pure: who stores the invitation does this and the storing in one transaction.
    ///
    /// # Errors
    /// The proof is not by this ticket for this joiner and household, or the ticket is used or over.
    pub fn admit(
        &mut self,
        proof: &JoinProof,
        household: &NodeId,
        joiner: &NodeId,
        now: u64,
    ) -> Result<Use, Refusal> {
        let signature = STANDARD.decode(&proof.proof).ok();
        let signature = signature.and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        let text = proven(household, joiner);
        let is_right = |signature| verify(&self.ticket, text.as_bytes(), &signature);
        if proof.ticket != self.ticket || !signature.is_some_and(is_right) {
            return Err(Refusal::new(
                Code::ProofWrong,
                "the proof is not by this ticket for this machine; run `hearth join` with the ticket again",
            ));
        }
        match self.used_by {
            Some(node) if node == *joiner => Ok(Use::Again),
            Some(_) => Err(Self::spent()),
            None if now >= self.expires => Err(Refusal::new(
                Code::TicketExpired,
                format!(
                    "the ticket expired {} s ago; make a new one with `hearth invite` on the hub",
                    now - self.expires
                ),
            )),
            None => {
                self.used_by = Some(*joiner);
                Ok(Use::First)
            }
        }
    }

    /// Refusal for a ticket that let a machine in already: another one, or this one before it was removed.
    pub fn spent() -> Refusal {
        Refusal::new(
            Code::TicketUsed,
            "a machine has joined with this ticket already; make a new one with `hearth invite` on the hub",
        )
    }

    /// Refusal for a ticket that the hub does not know.
    pub fn unknown() -> Refusal {
        Refusal::new(
            Code::TicketUnknown,
            "this hub did not issue the ticket, or withdrew it; make a new one with `hearth invite` on the hub",
        )
    }
}

/// What a proof is a signature over.
fn proven(household: &NodeId, joiner: &NodeId) -> String {
    format!("hearth join\n{household}\n{joiner}")
}

impl fmt::Display for Ticket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.bytes();
        let check = checksum(&bytes);
        bytes.extend(check);
        write!(formatter, "{PREFIX}{}", LETTERS.encode(&bytes))
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text: String = text
            .chars()
            .filter(|letter| !letter.is_whitespace() && *letter != '-')
            .collect();
        // All but the version.
        let (word, version) = PREFIX.split_at(PREFIX.len() - 1);
        let (start, rest) = text
            .split_at_checked(word.len())
            .filter(|(start, _)| start.eq_ignore_ascii_case(word))
            .ok_or(TicketError::NotATicket)?;
        debug_assert_eq!(start.len(), word.len());
        let Some(letters) = rest.strip_prefix(version) else {
            return Err(
                match rest.starts_with(|first: char| first.is_ascii_digit()) {
                    true => TicketError::Newer,
                    false => TicketError::NotATicket,
                },
            );
        };
        let strange = |letter: &char| !letter.is_ascii_alphanumeric() || *letter == '9';
        if let Some(letter) = letters.chars().find(strange) {
            return Err(TicketError::Letter(letter));
        }
        let bytes = LETTERS
            .decode(letters.as_bytes())
            .map_err(|_| TicketError::Slip)?;
        let (bytes, check) = bytes.split_last_chunk::<CHECK>().ok_or(TicketError::Slip)?;
        if *check != checksum(bytes) {
            return Err(TicketError::Slip);
        }
        Self::read(bytes).ok_or(TicketError::Damaged)
    }
}

/// The first bytes of the SHA-256, with the version before: a ticket's letters under another version's prefix do not fit.
fn checksum(bytes: &[u8]) -> [u8; CHECK] {
    let mut hash = Sha256::new();
    hash.update(PREFIX.as_bytes());
    hash.update(bytes);
    let mut check = [0; CHECK];
    check.copy_from_slice(&hash.finalize()[..CHECK]);
    check
}

/// At most 255 bytes, with their count before.
fn short(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.push(text.len() as u8);
    bytes.extend(text);
}

/// Kind, then 4 or 16 bytes of address after their count, then the port.
fn socket(bytes: &mut Vec<u8>, kind: u8, address: &SocketAddr) {
    bytes.push(kind);
    match address.ip() {
        IpAddr::V4(ip) => short(bytes, &ip.octets()),
        IpAddr::V6(ip) => short(bytes, &ip.octets()),
    }
    bytes.extend(address.port().to_be_bytes());
}

/// What is still to be read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_owned()).ok()
    }

    fn socket(&mut self) -> Option<SocketAddr> {
        let ip = match self.byte()? {
            4 => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
            16 => IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)),
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes(self.array()?)))
    }
}
