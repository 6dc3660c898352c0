//! What a chain does with the packets of the mesh, without asking the kernel.
//!
//! A [`Packet`] stands for all packets of one kind: an interface, a direction, a protocol, where Hearth's port stands, and
//! a range of addresses. For such a kind a match holds for all, for none, or for some of them; what is not known is
//! "some". A chain is then walked once, noting every way that a packet may end ([`Fate`]). "May be dropped" is never
//! missed for what is known, which is what a VPN client's chain is asked for; "may pass" errs on the other side, so that
//! the owner's own firewall is blamed only when nothing passes.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;

use super::ruleset::{Chain, Family, Hook, Place, Ruleset};

/// The two protocols of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Signed HTTP.
    Tcp,
    /// QUIC.
    Udp,
}

impl Protocol {
    /// As nft writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    fn number(self) -> u64 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// Which end of a packet has Hearth's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// It goes to the port: a request.
    To,
    /// It comes from the port: an answer.
    From,
}

impl Side {
    /// As nft writes it.
    pub fn field(self) -> &'static str {
        match self {
            Self::To => "dport",
            Self::From => "sport",
        }
    }
}

/// The other machine's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// In [`CGNAT`].
    Cgnat,
    /// Any other IPv4 address.
    V4,
    /// IPv6.
    V6,
}

impl Peer {
    /// What a table of this family sees.
    pub fn of(family: Family) -> &'static [Self] {
        match family {
            Family::Ip => &[Self::Cgnat, Self::V4],
            Family::Ip6 => &[Self::V6],
            Family::Inet => &[Self::Cgnat, Self::V4, Self::V6],
            Family::Other => &[],
        }
    }
}

/// Carrier-grade NAT (RFC 6598), from which mesh VPNs take their addresses.
pub(super) const CGNAT: (u32, u8) = (0x6440_0000, 10);

/// All packets of one kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    /// Input or output.
    pub hook: Hook,
    pub interface: &'a str,
    pub protocol: Protocol,
    pub side: Side,
    pub port: u16,
    pub peer: Peer,
    /// The first of a connection, or a later one.
    pub first: bool,
}

/// How many packets of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    None,
    Some,
    All,
}

impl Share {
    fn of(holds: bool) -> Self {
        if holds { Self::All } else { Self::None }
    }

    fn not(self) -> Self {
        match self {
            Self::None => Self::All,
            Self::Some => Self::Some,
            Self::All => Self::None,
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, _) | (_, Self::None) => Self::None,
            (Self::All, Self::All) => Self::All,
            _ => Self::Some,
        }
    }

    fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }
}

/// The ways that a packet may leave a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fate {
    /// Accepted.
    pub passes: bool,
    /// Dropped or rejected.
    pub dropped: bool,
    /// Back to the chain that called, or to the policy.
    pub returns: bool,
}

impl Fate {
    /// What becomes of it in a base chain, where returning means the policy.
    pub fn in_base(self, drops: bool) -> Self {
        Self {
            passes: self.passes || (self.returns && !drops),
            dropped: self.dropped || (self.returns && drops),
            returns: false,
        }
    }
}

/// What `chain` does with the packet.
pub(super) fn fate(ruleset: &Ruleset, chain: &Chain, packet: Packet<'_>) -> Fate {
    let mut walk = Walk {
        ruleset,
        packet,
        known: HashMap::new(),
    };
    walk.through(chain)
}

/// One look at a chain and all that it leads to, which are of one table.
struct Walk<'a> {
    ruleset: &'a Ruleset,
    packet: Packet<'a>,
    /// Chains that were seen: many rules may lead to one.
    known: HashMap<String, Fate>,
}

impl Walk<'_> {
    fn through(&mut self, chain: &Chain) -> Fate {
        let mut fate = Fate::default();
        for line in &chain.rules {
            let mut matched = Share::All;
            for expr in &line.expr {
                let Some((name, body)) = key(expr) else {
                    continue;
                };
                let verdicts = match name {
                    "match" => {
                        matched = matched.and(self.packet.matches(body));
                        Vec::new()
                    }
                    // Whether one of iptables' extensions or a limit holds cannot be known.
                    "xt" | "limit" | "quota" | "ct count" | "connlimit" => {
                        matched = matched.and(Share::Some);
                        Vec::new()
                    }
                    "vmap" => self.packet.choices(body),
                    _ => vec![(Share::All, expr.clone())],
                };
                for (share, verdict) in verdicts {
                    let share = matched.and(share);
                    let ends =
                        share != Share::None && self.judge(&chain.place, &verdict, &mut fate);
                    if ends && share == Share::All {
                        return fate;
                    }
                }
                if matched == Share::None {
                    break;
                }
            }
        }
        fate.returns = true;
        fate
    }

    /// Notes what a statement may do; true when no packet goes on to the next one.
    fn judge(&mut self, place: &Place, expr: &Value, fate: &mut Fate) -> bool {
        let Some((name, body)) = key(expr) else {
            return false;
        };
        match name {
            "accept" => fate.passes = true,
            "drop" | "reject" => fate.dropped = true,
            "return" => fate.returns = true,
            // A program decides.
            "queue" => {
                fate.passes = true;
                fate.dropped = true;
            }
            "jump" | "goto" => {
                let below = self.below(place, body["target"].as_str().unwrap_or_default());
                fate.passes |= below.passes;
                fate.dropped |= below.dropped;
                if name == "jump" {
                    return !below.returns;
                }
                fate.returns |= below.returns;
            }
            _ => return false,
        }
        true
    }

    /// What another chain of the table does.
    fn below(&mut self, place: &Place, target: &str) -> Fate {
        if let Some(fate) = self.known.get(target) {
            return *fate;
        }
        let nothing = Fate {
            returns: true,
            ..Fate::default()
        };
        // The kernel takes no circles; a listing might have one.
        self.known.insert(target.to_owned(), nothing);
        let place = Place {
            chain: target.to_owned(),
            ..place.clone()
        };
        let fate = match self.ruleset.chain(&place) {
            Some(chain) => self.through(chain),
            None => nothing,
        };
        self.known.insert(target.to_owned(), fate);
        fate
    }
}

/// Name and content of an expression.
fn key(expr: &Value) -> Option<(&str, &Value)> {
    let (name, body) = expr.as_object()?.iter().next()?;
    Some((name, body))
}

impl Packet<'_> {
    fn matches(&self, body: &Value) -> Share {
        let (left, right) = (&body["left"], &body["right"]);
        // nft asks for the header first, also where it does not print that: `udp dport != 53` is not about TCP.
        if self.lacks(left) {
            return Share::None;
        }
        let among = || self.among(left, right);
        match body["op"].as_str() {
            Some("==" | "in") => among(),
            Some("!=") => among().not(),
            Some(op @ ("<" | ">" | "<=" | ">=")) => match (self.number(left), right.as_u64()) {
                (Some(own), Some(other)) => Share::of(match op {
                    "<" => own < other,
                    ">" => own > other,
                    "<=" => own <= other,
                    _ => own >= other,
                }),
                _ => Share::Some,
            },
            _ => Share::Some,
        }
    }

    /// The verdicts of a map, each with the share of packets that get it.
    fn choices(&self, body: &Value) -> Vec<(Share, Value)> {
        let Some(pairs) = body["data"]["set"].as_array() else {
            // A named map may hold anything.
            let any =
                ["accept", "drop"].map(|name| (Share::Some, serde_json::json!({ name: null })));
            return any.into();
        };
        let pair = |pair: &Value| {
            let share = self.among(&body["key"], &pair[0]);
            (share, pair[1].clone())
        };
        pairs.iter().map(pair).collect()
    }

    /// How many have a value of `left` that `right` names: a value, a range, a prefix, a list or a set of these.
    fn among(&self, left: &Value, right: &Value) -> Share {
        if let Some(elements) = right.as_array().or_else(|| right["set"].as_array()) {
            let any = |share: Share, element| share.or(self.among(left, element));
            return elements.iter().fold(Share::None, any);
        }
        if let Some(value) = right.get("elem").and_then(|elem| elem.get("val")) {
            return self.among(left, value);
        }
        if right.as_str().is_some_and(|text| text.starts_with('@')) {
            return Share::Some;
        }
        if let Some(meta) = left.get("meta") {
            return self.meta(meta["key"].as_str().unwrap_or_default(), right);
        }
        if let Some(payload) = left.get("payload") {
            let text = |name: &str| payload[name].as_str().unwrap_or_default();
            return self.payload(text("protocol"), text("field"), right);
        }
        if let Some(ct) = left.get("ct") {
            return match (ct["key"].as_str(), right.as_str()) {
                (Some("state"), Some("new")) => Share::of(self.first),
                (Some("state"), Some("established")) => Share::of(!self.first),
                (Some("state"), Some(_)) => Share::None,
                _ => Share::Some,
            };
        }
        if let Some(parts) = left["&"].as_array() {
            return self.flags(parts, right);
        }
        Share::Some
    }

    fn meta(&self, key: &str, right: &Value) -> Share {
        let own = |interface| match right.as_str() {
            Some(name) => Share::of(is_named(interface, name)),
            None => Share::Some,
        };
        match (key, self.hook) {
            ("iifname" | "iif", Hook::Input) | ("oifname" | "oif", Hook::Output) => {
                own(self.interface)
            }
            // A packet that comes in has not got the other one, nor has one that goes out.
            ("iifname" | "iif" | "oifname" | "oif", _) => Share::None,
            ("l4proto", _) => self.is_protocol(right),
            ("nfproto", _) => match right.as_str() {
                Some("ipv4") => Share::of(self.peer != Peer::V6),
                Some("ipv6") => Share::of(self.peer == Peer::V6),
                _ => Share::Some,
            },
            ("protocol", _) => match right.as_str() {
                Some("ip") => Share::of(self.peer != Peer::V6),
                Some("ip6") => Share::of(self.peer == Peer::V6),
                Some(_) => Share::None,
                None => Share::Some,
            },
            _ => Share::Some,
        }
    }

    fn payload(&self, protocol: &str, field: &str, right: &Value) -> Share {
        match (protocol, field) {
            ("ip", "protocol") | ("ip6", "nexthdr") => self.is_protocol(right),
            ("ip", "saddr") if self.hook == Hook::Input => self.is_peer(right),
            ("ip", "daddr") if self.hook == Hook::Output => self.is_peer(right),
            ("tcp" | "udp" | "th", "sport" | "dport") => self.is_port(field, right),
            _ => Share::Some,
        }
    }

    /// Whether these packets have no such header.
    fn lacks(&self, left: &Value) -> bool {
        let left = left["&"].get(0).unwrap_or(left);
        match left["payload"]["protocol"].as_str() {
            None | Some("th" | "ether" | "vlan") => false,
            Some("ip") => self.peer == Peer::V6,
            Some("ip6") => self.peer != Peer::V6,
            Some(name) => name != self.protocol.name(),
        }
    }

    fn is_protocol(&self, right: &Value) -> Share {
        match (right.as_str(), right.as_u64()) {
            (Some(name), _) => Share::of(name == self.protocol.name()),
            (_, Some(number)) => Share::of(number == self.protocol.number()),
            _ => Share::Some,
        }
    }

    /// The number that `left` has in all packets of this kind.
    fn number(&self, left: &Value) -> Option<u64> {
        let field = left.get("payload")?["field"].as_str()?;
        (field == self.side.field()).then_some(u64::from(self.port))
    }

    fn is_port(&self, field: &str, right: &Value) -> Share {
        if field != self.side.field() {
            return Share::Some;
        }
        let own = u64::from(self.port);
        let ends = |ends: &Vec<Value>| Some((ends.first()?.as_u64()?, ends.get(1)?.as_u64()?));
        match (right.as_u64(), right["range"].as_array().and_then(ends)) {
            (Some(port), _) => Share::of(port == own),
            (_, Some((first, last))) => Share::of((first..=last).contains(&own)),
            _ => Share::Some,
        }
    }

    /// Whether the other machine's IPv4 address is in a range.
    fn is_peer(&self, right: &Value) -> Share {
        let Some((first, last)) = range(right) else {
            return Share::Some;
        };
        let own = (CGNAT.0, CGNAT.0 | (u32::MAX >> CGNAT.1));
        let covers = first <= own.0 && own.1 <= last;
        match self.peer {
            Peer::V6 => Share::None,
            Peer::Cgnat if covers => Share::All,
            Peer::Cgnat if last < own.0 || own.1 < first => Share::None,
            Peer::V4 if (first, last) == (0, u32::MAX) => Share::All,
            Peer::V4 if own.0 <= first && last <= own.1 => Share::None,
            Peer::Cgnat | Peer::V4 => Share::Some,
        }
    }

    /// `tcp flags & (…) == syn`: whether it opens a connection. nft lists masks in more than one shape.
    fn flags(&self, parts: &[Value], right: &Value) -> Share {
        let of_tcp = parts.first().is_some_and(|left| {
            left["payload"]["protocol"] == "tcp" && left["payload"]["field"] == "flags"
        });
        if !of_tcp {
            return Share::Some;
        }
        let mut names = Vec::new();
        parts[1..].iter().for_each(|mask| words(mask, &mut names));
        let tells = names.contains(&"syn") && names.contains(&"ack");
        match tells && right.as_str() == Some("syn") {
            true => Share::of(self.first),
            false => Share::Some,
        }
    }
}

/// All texts in a value.
fn words<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(values) => values.iter().for_each(|value| words(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| words(value, found)),
        _ => {}
    }
}

/// Whether nft's `pattern` names the interface; `*` at its end stands for anything.
fn is_named(interface: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => interface.starts_with(start),
        None => interface == pattern,
    }
}

/// First and last address of an IPv4 address, prefix or range.
fn range(value: &Value) -> Option<(u32, u32)> {
    let address = |value: &Value| {
        let address: std::net::Ipv4Addr = value.as_str()?.parse().ok()?;
        Some(u32::from(address))
    };
    if let Some(prefix) = value.get("prefix") {
        let (first, length) = (address(&prefix["addr"])?, prefix["len"].as_u64()?);
        let rest = u32::MAX
            .checked_shr(u32::try_from(length).ok()?)
            .unwrap_or(0);
        return Some((first & !rest, first | rest));
    }
    if let Some(ends) = value.get("range") {
        return Some((address(&ends[0])?, address(&ends[1])?));
    }
    let one = address(value)?;
    Some((one, one))
}
