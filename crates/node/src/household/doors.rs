//! The doors of a node that has a household: the iroh endpoint, and the peer surface on this machine's networks. A node
//! that is alone has neither.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hearth_mesh::doors::Door;
use hearth_mesh::http::Http;
use hearth_mesh::peers::Peers;
use hearth_mesh::quic::{Admission, Quic, QuicOptions};
use hearth_protocol::household::{Address, NodeId};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::describe::interfaces;
use super::{Household, Live};
use crate::access::Ends;
use crate::door::{self, Limits};
use crate::state::unix_time;

/// How often the addresses of this machine are looked at: networks come and go.
const LOOK: Duration = Duration::from_secs(5);
/// Connections from other machines at once, at each address.
const CONNECTIONS: usize = 512;

/// What doors lead to.
pub(super) struct Serving {
    routes: Router,
    limits: Limits,
    /// The port of the node's own door, which is that of the others too.
    pub port: u16,
    /// Where the node's own door is.
    own: SocketAddr,
}

impl Household {
    /// Doors that open from now on lead to these routes.
    pub fn serve(&self, routes: Router, limits: Limits, own: SocketAddr) {
        let _ = self.serving.set(Serving {
            routes,
            limits,
            port: own.port(),
            own,
        });
    }

    /// The ways out, and the iroh endpoint if there can be one.
    pub(super) async fn doors(self: &Arc<Self>) -> (Peers, Option<Arc<Quic>>) {
        let port = self.serving.get().map_or(0, |serving| serving.port);
        let options = QuicOptions {
            ip: None,
            port,
            relay: self.options.relay.clone(),
            mdns: self.options.mdns,
        };
        let household = Arc::downgrade(self);
        let admit = move |node: NodeId| {
            let live = household.upgrade().and_then(|household| household.live());
            let Some(live) = live else {
                return Admission::Refused;
            };
            match live.roster(|roster| roster.record(&node).map(|member| member.removed)) {
                Some(false) => Admission::Member,
                // To join again, too.
                Some(true) | None if live.is_hub() => Admission::Stranger,
                Some(true) | None => Admission::Refused,
            }
        };
        let identity = self.options.identity.clone();
        let quic = match Quic::bind(identity.secret(), options, admit).await {
            Ok(quic) => Some(Arc::new(quic)),
            Err(error) => {
                tracing::warn!(%error, "no encrypted door to other machines could be opened; signed HTTP is left");
                None
            }
        };
        let mut doors: Vec<Arc<dyn Door>> = Vec::new();
        if let Some(quic) = &quic {
            doors.push(Arc::clone(quic) as Arc<dyn Door>);
        }
        doors.push(Arc::new(Http));
        (Peers::new(identity, doors, Arc::new(unix_time)), quic)
    }

    /// Opens this node to the others.
    pub(super) fn open_doors(self: &Arc<Self>, live: &Arc<Live>) {
        let Some(serving) = self.serving.get() else {
            return;
        };
        if let Some(quic) = &live.quic {
            let (quic, routes) = (Arc::clone(quic), serving.routes.clone());
            let limits = serving.limits;
            live.spawn(async move {
                while let Some(accepted) = quic.accept().await {
                    let ends = Ends::proven(accepted.peer);
                    tokio::spawn(door::converse(
                        accepted.stream,
                        routes.clone(),
                        ends,
                        limits,
                    ));
                }
            });
        }
        let household = Arc::clone(self);
        live.spawn(async move { household.listen().await });
    }

    /// Keeps a listener at each address of this machine that others use, as long as it is one.
    async fn listen(self: Arc<Self>) {
        let Some(serving) = self.serving.get() else {
            return;
        };
        // Each ends when its sender is dropped.
        let mut open: HashMap<IpAddr, oneshot::Sender<()>> = HashMap::new();
        let mut refused: HashMap<IpAddr, String> = HashMap::new();
        loop {
            let wanted = self.listened();
            open.retain(|ip, end| wanted.contains(ip) && !end.is_closed());
            for ip in wanted {
                // The node's own door may be there already.
                let covered = serving.own.ip().is_unspecified() || serving.own.ip() == ip;
                if covered || open.contains_key(&ip) {
                    continue;
                }
                match TcpListener::bind((ip, serving.port)).await {
                    Ok(listener) => {
                        tracing::info!(
                            "other machines of the household reach this one at {ip}:{}",
                            serving.port
                        );
                        refused.remove(&ip);
                        let (end, ended) = oneshot::channel::<()>();
                        // Strangers must not use up what this machine's own tools need.
                        let limits = Limits {
                            connections: CONNECTIONS,
                            ..serving.limits
                        };
                        let routes = serving.routes.clone();
                        tokio::spawn(async move {
                            let stop = async { ended.await.unwrap_or(()) };
                            door::serve(listener, routes, limits, stop).await;
                        });
                        open.insert(ip, end);
                    }
                    Err(error) => {
                        let reason = error.to_string();
                        if refused.insert(ip, reason.clone()).as_ref() != Some(&reason) {
                            tracing::warn!(
                                "other machines do not reach this one at {ip}:{}: {reason}",
                                serving.port
                            );
                        }
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Addresses at which the peer surface listens.
    fn listened(&self) -> Vec<IpAddr> {
        match &self.options.addresses {
            None => interfaces(),
            Some(said) => {
                let own = interfaces();
                let ips = said.iter().filter_map(|address| match address {
                    Address::Http(at) => Some(at.ip()),
                    Address::Quic(_) | Address::Relay(_) => None,
                });
                ips.filter(|ip| own.contains(ip)).collect()
            }
        }
    }
}
