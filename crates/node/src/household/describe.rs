//! What this node says of itself, and of its household to its owner.

use std::net::{IpAddr, SocketAddr};

use hearth_mesh::quic::Quic;
use hearth_protocol::household::{Address, Capabilities, Member};
use hearth_protocol::peers::{Peer, Peers};

use super::{Household, Live, now};
use crate::elsewhere;
use crate::state::Node;

impl Household {
    /// What this node can do: as it is `now`, or what stays so for a while and is told to all.
    pub fn capabilities(&self, node: &Node, now: bool) -> Capabilities {
        let mut models = elsewhere::models(node);
        for model in &mut models {
            if !now {
                (model.busy, model.queued) = (0, 0);
                model.state = None;
            }
            // A speed that changes with every answer would be news for everybody each time.
            for speed in [
                &mut model.decode_tokens_per_second,
                &mut model.prefill_tokens_per_second,
            ] {
                *speed = rounded(*speed);
            }
        }
        let encoder = crate::encoders::list(node).into_iter().next();
        let (on_battery, throttled) = power();
        let gpu = node.engine.gpu();
        Capabilities {
            version: node.options.version.into(),
            models,
            adapters: Vec::new(),
            encoder: encoder.map(|encoder| encoder.name),
            memory_shared: !super::table::shared_projects(&self.store)
                .unwrap_or_default()
                .is_empty(),
            memory_bytes: hearth_engine::machine_memory(),
            gpu: gpu.is_some(),
            device: gpu.unwrap_or_else(|| node.engine.cpu().into()),
            on_battery,
            throttled,
        }
    }

    /// Where others reach this node.
    pub(super) fn addresses(&self, live: &Live) -> Vec<Address> {
        self.addresses_with(live.quic.as_deref())
    }

    pub(super) fn addresses_with(&self, quic: Option<&Quic>) -> Vec<Address> {
        // Nobody is reached before it serves.
        let Some(serving) = self.serving.get() else {
            return Vec::new();
        };
        let http = Some(serving.port);
        let udp = quic.and_then(|quic| Some(quic.bound().first()?.port()));
        let mut addresses = match &self.options.addresses {
            Some(said) => said
                .iter()
                .filter_map(|address| match address {
                    Address::Http(at) if at.port() == 0 => {
                        Some(Address::Http(SocketAddr::new(at.ip(), http?)))
                    }
                    Address::Quic(at) if at.port() == 0 => {
                        Some(Address::Quic(SocketAddr::new(at.ip(), udp?)))
                    }
                    other => Some(other.clone()),
                })
                .collect(),
            None => {
                let mut ips = interfaces();
                if ips.is_empty() {
                    // Two nodes on a machine without a network find each other still.
                    ips.push(IpAddr::from([127, 0, 0, 1]));
                }
                let at = |port: Option<u16>, kind: fn(SocketAddr) -> Address| {
                    let each = ips
                        .iter()
                        .map(move |ip| Some(kind(SocketAddr::new(*ip, port?))));
                    each.flatten().collect::<Vec<Address>>()
                };
                let mut all = at(udp, Address::Quic);
                all.extend(at(http, Address::Http));
                all
            }
        };
        if let Some(relay) = &self.options.relay {
            addresses.push(Address::Relay(relay.clone()));
        }
        addresses
    }

    /// The household, for its owner.
    pub fn report(&self, node: Option<&Node>) -> Peers {
        let own = self.id();
        let Some(live) = self.live() else {
            return Peers {
                node: own,
                name: self.name(),
                household: None,
                is_hub: false,
                addresses: Vec::new(),
                members: Vec::new(),
            };
        };
        let mut members: Vec<Member> = live.roster(|roster| roster.members().cloned().collect());
        members.sort_by(|a, b| (a.node != own, &a.name).cmp(&(b.node != own, &b.name)));
        let now = now();
        let each = members.into_iter().map(|member| {
            let is_here = member.node == own;
            let capabilities = match node {
                Some(node) if is_here => self.capabilities(node, true),
                _ => self.says(member.node).unwrap_or(member.capabilities),
            };
            let diagnosis = live.monitor().diagnosis(member.node, None, now);
            Peer {
                node: member.node,
                name: member.name,
                is_here,
                is_hub: member.hub,
                addresses: member.addresses,
                capabilities,
                diagnosis: diagnosis.filter(|_| !is_here),
            }
        });
        Peers {
            node: own,
            name: self.name(),
            household: Some(live.belonging.household),
            is_hub: live.is_hub(),
            addresses: self.addresses(&live),
            members: each.collect(),
        }
    }
}

/// Addresses of this machine's networks that another machine can use.
pub(super) fn interfaces() -> Vec<IpAddr> {
    let found = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!(%error, "the addresses of this machine are not known");
        Vec::new()
    });
    let mut ips: Vec<IpAddr> = found
        .into_iter()
        .filter(|interface| !interface.is_loopback() && !interface.is_link_local())
        .filter(|interface| !is_inside(&interface.name))
        .map(|interface| interface.ip())
        .collect();
    // IPv4 first: where both work, it is the one people recognise.
    ips.sort_by_key(|ip| (ip.is_ipv6(), *ip));
    ips.dedup();
    ips
}

/// Whether an interface leads to containers or virtual machines on this machine: every machine has one of the same
/// address, so that another one would find itself there.
fn is_inside(interface: &str) -> bool {
    let inside = ["docker", "br-", "virbr", "podman", "cni", "lxcbr", "lxdbr"];
    inside.iter().any(|start| interface.starts_with(start))
}

/// Two significant digits.
fn rounded(speed: f32) -> f32 {
    if !speed.is_finite() || speed <= 0.0 {
        return 0.0;
    }
    let unit = 10_f32.powi(speed.log10().floor() as i32 - 1);
    (speed / unit).round() * unit
}

/// Whether this machine runs on a battery, and whether it is slowed down by heat; where the system tells (Linux:
/// `/sys/class/power_supply`, `/sys/devices/system/cpu/cpu0/thermal_throttle`).
fn power() -> (bool, bool) {
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let supplies = std::fs::read_dir("/sys/class/power_supply");
    let mut discharging = false;
    for supply in supplies.into_iter().flatten().flatten() {
        let kind = read(supply.path().join("type"));
        discharging |= kind.trim() == "Battery"
            && read(supply.path().join("scope")).trim() != "Device"
            && read(supply.path().join("status")).trim() == "Discharging";
    }
    (discharging, false)
}
