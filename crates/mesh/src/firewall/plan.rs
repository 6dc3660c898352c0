//! Which rules the mesh is owed, which of ours are there, and what the owner's own firewall blocks. Pure.
//!
//! What a chain owes is reckoned as if none of our rules were in it. Rules that are in place and still owed are kept, the
//! others on the same interfaces go; if a rule that was kept is no longer reached, because somebody put a drop before it, all of ours in that
//! chain are put in anew. After [`Plan::script`] has run, the next plan is empty. Rules on interfaces that the settings do
//! not name stay: somebody else of the house may have asked for them, such as the watch.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use super::ruleset::{Chain, Family, Hook, Line, Place, Ruleset};
use super::traffic::{CGNAT, Packet, Peer, Protocol, Side, fate};
use super::{Interface, MARK, Settings};

/// Tables that are a VPN client's alone, by the beginnings of their names. Clients of meshes (Tailscale, NetBird) are not
/// among them: what those close, their owner's policy closes.
const CLIENT_TABLES: [&str; 10] = [
    "mullvad",
    "proton",
    "pvpn",
    "nordvpn",
    "ivpn",
    "piavpn",
    "windscribe",
    "surfshark",
    "expressvpn",
    "cloudflare-warp",
];

/// Chains of clients in tables that they share, such as iptables' `filter`.
const CLIENT_CHAINS: [&str; 5] = ["ts-input", "ivpn-", "piavpn.", "windscribe_", "nordvpn"];

/// How a rule ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The packet passes this chain.
    Accept,
    /// The packet goes on behind the jump to this chain.
    Return,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Return => "return",
        }
    }
}

/// A rule of ours, in a chain or to be put there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// The chain.
    #[serde(flatten)]
    pub place: Place,
    /// Input or output.
    pub hook: Hook,
    /// The interface.
    #[serde(serialize_with = "as_text")]
    pub interface: Interface,
    /// The protocol.
    pub protocol: Protocol,
    /// Which end has the port. An answer over TCP must belong to a connection: it may not open one.
    pub side: Side,
    /// Hearth's port.
    pub port: u16,
    /// Whether only for other machines of 100.64.0.0/10.
    pub cgnat: bool,
    /// How it ends.
    pub verdict: Verdict,
}

fn as_text<S: serde::Serializer>(value: &impl fmt::Display, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(value)
}

/// What the rule says, in nft's words.
impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (interface, address) = ends(self.hook);
        write!(out, "{interface} \"{}\" ", self.interface)?;
        if self.cgnat {
            let (first, length) = CGNAT;
            let first = std::net::Ipv4Addr::from(first);
            write!(out, "ip {address} {first}/{length} ")?;
        }
        let (protocol, side) = (self.protocol.name(), self.side.field());
        write!(out, "{protocol} {side} {} ", self.port)?;
        if self.opens_nothing() {
            // Not `ct state established`: iptables calls a table broken in which it finds that.
            write!(out, "tcp flags & (fin | syn | rst | ack) != syn ")?;
        }
        write!(out, "{} comment \"{MARK}\"", self.verdict.name())
    }
}

/// How nft calls the interface of a packet and the other machine's address.
fn ends(hook: Hook) -> (&'static str, &'static str) {
    match hook {
        Hook::Output => ("oifname", "daddr"),
        Hook::Input | Hook::Other => ("iifname", "saddr"),
    }
}

impl Rule {
    /// The command that puts it first in its chain, without `nft`.
    pub fn command(&self) -> String {
        format!("insert rule {} {self}", self.place)
    }

    fn opens_nothing(&self) -> bool {
        (self.protocol, self.side) == (Protocol::Tcp, Side::From)
    }

    /// As nft lists it.
    fn expr(&self) -> Vec<Value> {
        let is = |left: Value, right: Value| json!({"match": {"op": "==", "left": left, "right": right}});
        let payload = |protocol: &str, field: &str| json!({"payload": {"protocol": protocol, "field": field}});
        let (interface, address) = ends(self.hook);
        let mut expr = vec![is(
            json!({"meta": {"key": interface}}),
            json!(self.interface.as_str()),
        )];
        if self.cgnat {
            let first = std::net::Ipv4Addr::from(CGNAT.0).to_string();
            expr.push(is(
                payload("ip", address),
                json!({"prefix": {"addr": first, "len": CGNAT.1}}),
            ));
        }
        expr.push(is(
            payload(self.protocol.name(), self.side.field()),
            json!(self.port),
        ));
        if self.opens_nothing() {
            expr.push(json!({"match": {
                "op": "!=",
                "left": {"&": [payload("tcp", "flags"), ["fin", "syn", "rst", "ack"]]},
                "right": "syn",
            }}));
        }
        expr.push(json!({ self.verdict.name(): null }));
        expr
    }

    /// Whether a listed rule says this. Versions of nft differ in how they list the mask of flags.
    fn is(&self, line: &Line) -> bool {
        let masks = |value: &Value| value["match"]["left"].get("&").is_some();
        let own = self.expr();
        own.len() == line.expr.len()
            && own.iter().zip(&line.expr).all(|(own, listed)| {
                own == listed
                    || masks(own)
                        && masks(listed)
                        && ["op", "right"]
                            .iter()
                            .all(|part| own["match"][part] == listed["match"][part])
            })
    }
}

/// A rule of ours that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The chain.
    #[serde(flatten)]
    pub place: Place,
    /// nft's number for it.
    pub handle: u64,
    /// What it says, if this version of Hearth would write it so.
    #[serde(serialize_with = "maybe_text")]
    pub rule: Option<Rule>,
}

fn maybe_text<S: serde::Serializer>(rule: &Option<Rule>, out: S) -> Result<S::Ok, S::Error> {
    match rule {
        Some(rule) => out.collect_str(rule),
        None => out.serialize_none(),
    }
}

impl Held {
    /// The command that removes it, without `nft`.
    pub fn command(&self) -> String {
        format!("delete rule {} handle {}", self.place, self.handle)
    }
}

/// Traffic of the mesh that a chain of the owner's own firewall drops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The base chain where it ends.
    #[serde(flatten)]
    pub place: Place,
    /// What is dropped, in words.
    pub blocked: Vec<String>,
    /// What the owner may run.
    pub commands: Vec<String>,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Rules that are missing.
    pub owed: Vec<Rule>,
    /// Rules of ours that are in place.
    pub kept: Vec<Held>,
    /// Rules of ours on these interfaces that have no use any more.
    pub surplus: Vec<Held>,
    /// What the owner alone may change. Reckoned as it is once the owed rules are in.
    pub blocked_by_owner: Vec<Finding>,
}

impl Plan {
    /// What the ruleset owes.
    pub fn of(ruleset: &Ruleset, settings: &Settings) -> Self {
        let bare = ruleset.without_ours();
        let mut plan = Self::default();
        for (place, hook) in client_chains(&bare) {
            let wanted = wanted(&bare, &place, hook, settings);
            plan.settle(ruleset, &place, wanted, settings);
        }
        // Ours in chains that no packet reaches any more.
        for chain in &ruleset.chains {
            let known = |held: &Held| held.place == chain.place;
            let settled = plan.kept.iter().chain(&plan.surplus).any(known);
            if !settled {
                plan.surplus.extend(held(chain, &[], Some(settings)));
            }
        }
        plan.blocked_by_owner = findings(&plan.after(ruleset), settings);
        plan
    }

    /// What removes every rule of ours.
    pub fn removal(ruleset: &Ruleset) -> Self {
        Self {
            surplus: ruleset
                .chains
                .iter()
                .flat_map(|chain| held(chain, &[], None))
                .collect(),
            ..Self::default()
        }
    }

    /// Whether nothing is to be done.
    pub fn is_settled(&self) -> bool {
        self.owed.is_empty() && self.surplus.is_empty()
    }

    /// The commands for `nft -f -`, which runs all of them or none. Empty if nothing is to be done.
    pub fn script(&self) -> String {
        let deletions = self.surplus.iter().map(Held::command);
        // The last that is inserted comes first.
        let insertions = self.owed.iter().rev().map(Rule::command);
        deletions
            .chain(insertions)
            .map(|command| command + "\n")
            .collect()
    }

    /// The ruleset once the script has run.
    pub fn after(&self, ruleset: &Ruleset) -> Ruleset {
        let mut after = ruleset.clone();
        let mut handle = u64::MAX;
        for held in &self.surplus {
            if let Some(chain) = after.chain_mut(&held.place) {
                chain.rules.retain(|line| line.handle != held.handle);
            }
        }
        for rule in self.owed.iter().rev() {
            if let Some(chain) = after.chain_mut(&rule.place) {
                let line = Line {
                    handle,
                    comment: Some(MARK.to_owned()),
                    expr: rule.expr(),
                };
                chain.rules.insert(0, line);
                handle -= 1;
            }
        }
        after
    }

    /// Compares what a chain should hold with what it holds.
    fn settle(&mut self, ruleset: &Ruleset, place: &Place, wanted: Vec<Rule>, settings: &Settings) {
        let Some(chain) = ruleset.chain(place) else {
            return;
        };
        let mut own = Self::default();
        for held in held(chain, &wanted, Some(settings)) {
            let twice = own.kept.iter().any(|kept| kept.rule == held.rule);
            match held.rule.is_some() && !twice {
                true => own.kept.push(held),
                false => own.surplus.push(held),
            }
        }
        let missing = |rule: &&Rule| {
            !own.kept
                .iter()
                .any(|held| held.rule.as_ref() == Some(*rule))
        };
        own.owed = wanted.iter().filter(missing).cloned().collect();
        let hook = wanted.first().map(|rule| rule.hook);
        let buried = hook.is_some_and(|hook| {
            let after = own.after(ruleset);
            !self::wanted(&after, place, hook, settings).is_empty()
        });
        if buried {
            own.surplus.append(&mut own.kept);
            own.owed = wanted;
        }
        self.owed.append(&mut own.owed);
        self.kept.append(&mut own.kept);
        self.surplus.append(&mut own.surplus);
    }
}

impl Ruleset {
    fn without_ours(&self) -> Self {
        let mut bare = self.clone();
        for chain in &mut bare.chains {
            chain.rules.retain(|line| !is_ours(line));
        }
        bare
    }
}

fn is_ours(line: &Line) -> bool {
    line.comment.as_deref() == Some(MARK)
}

/// Our rules in a chain that the settings are about, each with the one of `known` that it is.
fn held(chain: &Chain, known: &[Rule], settings: Option<&Settings>) -> Vec<Held> {
    let concerns = |line: &&Line| match (settings, interface_of(line)) {
        (Some(settings), Some(interface)) => settings.interfaces.contains(&interface),
        _ => true,
    };
    let ours = chain.rules.iter().filter(|line| is_ours(line));
    let ours = ours.filter(concerns);
    ours.map(|line| Held {
        place: chain.place.clone(),
        handle: line.handle,
        rule: known.iter().find(|rule| rule.is(line)).cloned(),
    })
    .collect()
}

/// The interface of a rule that we wrote.
fn interface_of(line: &Line) -> Option<Interface> {
    let first = &line.expr.first()?["match"];
    let key = first["left"]["meta"]["key"].as_str()?;
    let named = key == "iifname" || key == "oifname";
    named.then(|| first["right"].as_str()?.parse().ok())?
}

/// Whether nft's grammar takes these names as they are.
fn can_be_written(place: &Place) -> bool {
    let plain = |name: &str| {
        name.starts_with(|letter: char| letter.is_ascii_alphabetic() || "_.".contains(letter))
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
    };
    plain(&place.table) && plain(&place.chain)
}

fn begins_with(name: &str, beginnings: &[&str]) -> bool {
    let name = name.to_ascii_lowercase();
    beginnings.iter().any(|one| name.starts_with(one))
}

fn is_clients_table(place: &Place) -> bool {
    begins_with(&place.table, &CLIENT_TABLES) && can_be_written(place)
}

fn is_clients_chain(place: &Place) -> bool {
    begins_with(&place.chain, &CLIENT_CHAINS) && can_be_written(place)
}

/// Base chains that judge the mesh's packets, each with its hook and whether it drops what reaches its end.
fn judges(ruleset: &Ruleset) -> impl Iterator<Item = (&Chain, Hook, bool)> {
    ruleset.chains.iter().filter_map(|chain| {
        let base = chain.base.filter(|base| !base.nat)?;
        let looks = base.hook != Hook::Other && chain.place.family != Family::Other;
        looks.then_some((chain, base.hook, base.drops))
    })
}

/// Chains of VPN clients that a packet of the mesh comes through: base chains of their own tables, and their chains in
/// shared ones, outermost first.
fn client_chains(ruleset: &Ruleset) -> Vec<(Place, Hook)> {
    let mut found = Vec::new();
    for (chain, hook, _) in judges(ruleset) {
        if is_clients_table(&chain.place) {
            found.push((chain.place.clone(), hook));
        } else {
            let mut seen = vec![chain.place.clone()];
            below(ruleset, chain, hook, &mut seen, &mut found);
        }
    }
    found
}

/// Follows the jumps of a chain down to clients' chains.
fn below(
    ruleset: &Ruleset,
    chain: &Chain,
    hook: Hook,
    seen: &mut Vec<Place>,
    found: &mut Vec<(Place, Hook)>,
) {
    for target in chain.rules.iter().flat_map(|line| targets(&line.expr)) {
        let place = Place {
            chain: target,
            ..chain.place.clone()
        };
        if seen.contains(&place) {
            continue;
        }
        seen.push(place.clone());
        match ruleset.chain(&place) {
            Some(_) if is_clients_chain(&place) => {
                let known = found.iter().any(|(other, _)| *other == place);
                if !known {
                    found.push((place, hook));
                }
            }
            Some(next) => below(ruleset, next, hook, seen, found),
            None => {}
        }
    }
}

/// The chains that a rule leads to.
fn targets(expr: &[Value]) -> Vec<String> {
    let of = |verdict: &Value| {
        let body = verdict.get("jump").or_else(|| verdict.get("goto"))?;
        body["target"].as_str().map(ToOwned::to_owned)
    };
    expr.iter()
        .flat_map(|expr| {
            let choices = expr["vmap"]["data"]["set"].as_array();
            let chosen = choices
                .into_iter()
                .flatten()
                .filter_map(|pair| of(&pair[1]));
            of(expr).into_iter().chain(chosen)
        })
        .collect()
}

/// What passes a hook: to the port, and from it. What comes in over UDP is always for the port, because Hearth's one
/// socket asks from there, too.
fn flows(hook: Hook) -> &'static [(Protocol, Side)] {
    const ALL: [(Protocol, Side); 4] = [
        (Protocol::Tcp, Side::To),
        (Protocol::Tcp, Side::From),
        (Protocol::Udp, Side::To),
        (Protocol::Udp, Side::From),
    ];
    match hook {
        Hook::Output => &ALL,
        Hook::Input | Hook::Other => &ALL[..3],
    }
}

/// The packets of a flow: an answer is never the first of its connection.
fn packets<'a>(
    hook: Hook,
    interface: &'a Interface,
    (protocol, side): (Protocol, Side),
    port: u16,
    peer: Peer,
) -> impl Iterator<Item = Packet<'a>> {
    let firsts: &[bool] = match side {
        Side::To => &[true, false],
        Side::From => &[false],
    };
    firsts.iter().map(move |first| Packet {
        hook,
        interface: interface.as_str(),
        protocol,
        side,
        port,
        peer,
        first: *first,
    })
}

/// The rules that a client's chain needs, so that none of the mesh's packets may be dropped in it.
fn wanted(ruleset: &Ruleset, place: &Place, hook: Hook, settings: &Settings) -> Vec<Rule> {
    let Some(chain) = ruleset.chain(place) else {
        return Vec::new();
    };
    let mut rules = Vec::new();
    for interface in &settings.interfaces {
        for &(protocol, side) in flows(hook) {
            let dropped = |peer: &&Peer| {
                packets(hook, interface, (protocol, side), settings.port, **peer).any(|packet| {
                    let fate = fate(ruleset, chain, packet);
                    match chain.base {
                        Some(base) => fate.in_base(base.drops).dropped,
                        None => fate.dropped,
                    }
                })
            };
            let peers: Vec<&Peer> = Peer::of(place.family).iter().filter(dropped).collect();
            let rule = Rule {
                place: place.clone(),
                hook,
                interface: interface.clone(),
                protocol,
                side,
                port: settings.port,
                cgnat: peers == [&Peer::Cgnat],
                verdict: match chain.base {
                    Some(_) => Verdict::Accept,
                    None => Verdict::Return,
                },
            };
            if !peers.is_empty() && !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    rules
}

/// What the owner's base chains drop for certain, whatever the address.
fn findings(ruleset: &Ruleset, settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (chain, hook, drops) in judges(ruleset) {
        if is_clients_table(&chain.place) {
            continue;
        }
        let mut blocked = Vec::new();
        for interface in &settings.interfaces {
            for &(protocol, side) in flows(hook) {
                let passes = Peer::of(chain.place.family).iter().any(|peer| {
                    packets(hook, interface, (protocol, side), settings.port, *peer)
                        .all(|packet| fate(ruleset, chain, packet).in_base(drops).passes)
                });
                let rule = Rule {
                    place: chain.place.clone(),
                    hook,
                    interface: interface.clone(),
                    protocol,
                    side,
                    port: settings.port,
                    cgnat: false,
                    verdict: Verdict::Accept,
                };
                if !passes {
                    blocked.push(rule);
                }
            }
        }
        if !blocked.is_empty() {
            findings.push(Finding {
                place: chain.place.clone(),
                commands: advice(ruleset, chain, &blocked),
                blocked: blocked.iter().map(in_words).collect(),
            });
        }
    }
    findings
}

fn in_words(rule: &Rule) -> String {
    let (interface, port) = (&rule.interface, rule.port);
    let protocol = match rule.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    };
    match (rule.hook, rule.side) {
        (Hook::Output, Side::To) => format!("{protocol} to port {port} of others on {interface}"),
        (Hook::Output, Side::From) => format!("{protocol} answers from port {port} on {interface}"),
        (_, Side::To) => format!("{protocol} to port {port} from {interface}"),
        (_, Side::From) => format!("{protocol} answers of others' port {port} from {interface}"),
    }
}

/// What the owner may run, in the words of what keeps the firewall.
fn advice(ruleset: &Ruleset, chain: &Chain, blocked: &[Rule]) -> Vec<String> {
    let is_ufw = |other: &Chain| {
        (other.place.family, &other.place.table) == (chain.place.family, &chain.place.table)
            && other.place.chain.contains("ufw")
    };
    let asked: Vec<&Rule> = blocked
        .iter()
        .filter(|rule| rule.side == Side::To)
        .collect();
    let mut commands: Vec<String> = Vec::new();
    if chain.place.table == "firewalld" && !asked.is_empty() {
        for rule in asked {
            let (port, protocol) = (rule.port, rule.protocol.name());
            commands.push(format!("sudo firewall-cmd --add-port={port}/{protocol}"));
        }
        commands.push("sudo firewall-cmd --runtime-to-permanent".into());
    } else if ruleset.chains.iter().any(is_ufw) && !asked.is_empty() {
        for rule in asked {
            let way = if rule.hook == Hook::Output {
                "out"
            } else {
                "in"
            };
            commands.push(format!(
                "sudo ufw allow {way} on {} to any port {} proto {}",
                rule.interface,
                rule.port,
                rule.protocol.name()
            ));
        }
    } else {
        for rule in blocked {
            let text = rule.to_string();
            // Theirs, not ours: without the comment that would have it removed.
            let text = text.split(" comment ").next().unwrap_or_default();
            commands.push(format!("sudo nft insert rule {} '{text}'", rule.place));
        }
    }
    let mut seen = Vec::new();
    commands.retain(|command| {
        let new = !seen.contains(command);
        seen.push(command.clone());
        new
    });
    commands
}
