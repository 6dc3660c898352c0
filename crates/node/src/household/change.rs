//! What changes a household: invitations, joining, leaving, and what the hub does with members.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hearth_fanout::Log;
use hearth_mesh::refusal::{Code, Refusal};
use hearth_mesh::roster::{ChangeError, FindError, Roster};
use hearth_mesh::ticket::{Invitation as Kept, JoinProof, Ticket, Use};
use hearth_protocol::event::{Snapshot, StateEvent};
use hearth_protocol::household::{Member, NodeId, Sealed};
use hearth_protocol::peers::{AskToJoin, Hello, Invitation, Invite, Join, Welcome};
use hearth_store::sqlite;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::ask::{Reply, Unasked, get, json, post};
use super::table::{self, Membership};
use super::{Household, Live, now};
use crate::failure::problem;
use crate::peer;
use crate::state::Shared;

/// How long a ticket is good for unless it is said, in seconds.
const A_DAY: u64 = 24 * 3600;
/// What may be said.
const EXPIRY: std::ops::RangeInclusive<u64> = 60..=7 * 24 * 3600;
/// How long the hub may take to begin an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why nothing was changed, as an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refused {
    pub status: StatusCode,
    pub code: String,
    pub message: String,
}

impl Refused {
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
        }
    }

    /// What went wrong on this machine.
    pub fn failed(error: impl std::fmt::Display) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "household_failed", error.to_string())
    }

    fn no_hub(live: Option<&Live>) -> Self {
        let message = match live {
            Some(live) => {
                let hub = live.belonging.hub;
                let name = live.roster(|roster| roster.record(&hub).map(|hub| hub.name.clone()));
                let name = name.unwrap_or_else(|| hub.short());
                format!("this machine is not the hub of its household; do this on {name}")
            }
            None => "this machine belongs to no household; `hearth invite` makes it the hub of one".into(),
        };
        Self::new(StatusCode::CONFLICT, "not_the_hub", message)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::new(StatusCode::FORBIDDEN, refusal.code.as_str(), refusal.message)
    }
}

impl From<FindError> for Refused {
    fn from(error: FindError) -> Self {
        Self::new(StatusCode::NOT_FOUND, "no_such_machine", error.to_string())
    }
}

impl From<ChangeError> for Refused {
    fn from(error: ChangeError) -> Self {
        let status = match error {
            ChangeError::Unknown(_) => StatusCode::NOT_FOUND,
            ChangeError::Taken(_) => StatusCode::CONFLICT,
            ChangeError::Name(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, "bad_change", error.to_string())
    }
}

impl From<hearth_fanout::Error> for Refused {
    fn from(error: hearth_fanout::Error) -> Self {
        Self::failed(error)
    }
}

impl From<sqlite::Error> for Refused {
    fn from(error: sqlite::Error) -> Self {
        Self::failed(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("error");
        problem(self.status, &self.code, title, self.message)
    }
}

/// For how many seconds a ticket is wanted.
fn lasting(wanted: &Invite) -> Result<u64, Refused> {
    let lasts = wanted.expires_in.unwrap_or(A_DAY);
    if EXPIRY.contains(&lasts) {
        return Ok(lasts);
    }
    let message = format!(
        "expires_in is {lasts}; give a number of seconds from {} to {} (a minute to a week)",
        EXPIRY.start(),
        EXPIRY.end()
    );
    Err(Refused::new(StatusCode::BAD_REQUEST, "invalid_field", message))
}

fn member(name: &str) -> String {
    let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
    format!("/peer/members/{name}")
}

/// Has the hub do it, in whose household this node is.
async fn forwarded<T: DeserializeOwned>(
    live: &Live,
    request: Request<Bytes>,
) -> Result<T, Refused> {
    let hub = live.belonging.hub;
    let addresses = live.hub_addresses();
    let sent = live.peers.send(hub, &addresses, request, PATIENCE);
    let reply = sent.await.map(Reply::of).map_err(|error| {
        let message = format!("the hub does not answer, and only it can do this: {error}");
        Refused::new(StatusCode::BAD_GATEWAY, "hub_unreachable", message)
    })?;
    if !reply.status().is_success() {
        let (status, code, message) = reply.problem().await;
        let code = code.unwrap_or_else(|| "hub_refused".into());
        return Err(Refused::new(status, &code, message));
    }
    json(reply)
        .await
        .map_err(|error| Refused::new(StatusCode::BAD_GATEWAY, "bad_hub", error))
}

impl Household {
    /// Prints a ticket. A node that is alone becomes the hub of a household of its own.
    pub async fn invite(
        self: &Arc<Self>,
        node: &Shared,
        wanted: &Invite,
    ) -> Result<Invitation, Refused> {
        let lasts = lasting(wanted)?;
        let _alone = self.changing.lock().await;
        let live = match self.live() {
            Some(live) if !live.is_hub() => {
                return forwarded(&live, post("/peer/invite", wanted)).await;
            }
            Some(live) => live,
            None => self.found(node).await?,
        };
        self.ticket(&live, lasts).await
    }

    /// A ticket for the owner of a member.
    pub async fn invite_for(&self, wanted: &Invite) -> Result<Invitation, Refused> {
        let lasts = lasting(wanted)?;
        let _alone = self.changing.lock().await;
        match self.live() {
            Some(live) if live.is_hub() => self.ticket(&live, lasts).await,
            live => Err(Refused::no_hub(live.as_deref())),
        }
    }

    /// What is only done by the hub itself: nothing goes round.
    pub async fn if_hub<T>(
        &self,
        work: impl Future<Output = Result<T, Refused>>,
    ) -> Result<T, Refused> {
        match self.live() {
            Some(live) if live.is_hub() => work.await,
            live => Err(Refused::no_hub(live.as_deref())),
        }
    }

    async fn ticket(&self, live: &Live, lasts: u64) -> Result<Invitation, Refused> {
        let addresses = self.addresses(live);
        let expires = now() / 1_000 + lasts;
        let ticket = Ticket::new(live.own, &self.name(), addresses.clone(), expires);
        let kept = ticket.invitation();
        self.write(move |transaction| Ok(table::give(transaction, &kept, now() / 1_000)?))
            .await?;
        Ok(Invitation {
            ticket: ticket.to_string(),
            expires_at: expires,
            addresses,
        })
    }

    /// Makes this node the hub of a new household.
    async fn found(self: &Arc<Self>, node: &Shared) -> Result<Arc<Live>, Refused> {
        self.forget_state().await?;
        let belonging = Membership {
            hub: self.id(),
            addresses: Vec::new(),
        };
        let kept = belonging.clone();
        self.write(move |transaction| Ok(table::belong(transaction, &kept)?))
            .await?;
        let doors = self.doors().await;
        let live = self.bring_to_life(belonging, doors).await?;
        self.open_doors(&live);
        let capabilities = self.capabilities(node, false);
        let addresses = self.addresses(&live);
        let own = live.roster(|roster| {
            roster.join(live.own, &self.options.name, addresses, capabilities)
        });
        self.say(&live, own).await?;
        self.follow(&live, node);
        self.watch(&live);
        Ok(live)
    }

    /// The hub says something about a member, to everybody.
    async fn say(&self, live: &Live, member: Member) -> Result<Sealed, Refused> {
        let record = self.options.identity.seal(&member).map_err(Refused::failed)?;
        let event = StateEvent::Member {
            record: record.clone(),
        };
        live.log.append(std::slice::from_ref(&event)).await?;
        live.learn(&[event]);
        Ok(record)
    }

    /// Takes a node in that holds a ticket of this hub.
    pub async fn admit(self: Arc<Self>, who: NodeId, asked: AskToJoin) -> Result<Welcome, Refused> {
        // It goes on when the joiner does not wait any more: a ticket is used with its member, or not at all.
        let admitting = tokio::spawn(async move { self.admit_now(who, asked).await });
        admitting.await.map_err(Refused::failed)?
    }

    async fn admit_now(&self, who: NodeId, asked: AskToJoin) -> Result<Welcome, Refused> {
        let _alone = self.changing.lock().await;
        let live = self.live();
        let Some(live) = live.filter(|live| live.is_hub()) else {
            return Err(Refused::no_hub(self.live().as_deref()));
        };
        let proof = JoinProof {
            ticket: asked.ticket,
            proof: asked.proof,
        };
        let member = live.roster(|roster| {
            roster.join(who, &asked.name, asked.addresses, asked.capabilities)
        });
        let record = self.options.identity.seal(&member).map_err(Refused::failed)?;
        let event = StateEvent::Member {
            record: record.clone(),
        };
        let is_removed = live.roster(|roster| {
            roster.record(&who).is_some_and(|known| known.removed)
        });
        let (hub, log, events) = (live.own, live.log.clone(), vec![event.clone()]);
        self.write(move |transaction| {
            let kept = table::given(transaction, proof.ticket)?;
            let mut kept = kept.ok_or_else(Kept::unknown)?;
            match kept.admit(&proof, &hub, &who, now() / 1_000)? {
                Use::First => table::used(transaction, &kept)?,
                // Its answer was lost. Who was removed since does not come back by an old ticket.
                Use::Again if is_removed => return Err(Kept::spent().into()),
                Use::Again => {}
            }
            log.append_within(transaction, &events)?;
            Ok(())
        })
        .await?;
        live.log.refresh().await?;
        live.learn(&[event]);
        let others = live.roster(|roster| roster.records().cloned().collect());
        Ok(Welcome {
            member: record,
            others,
        })
    }

    /// Hears from a member where it is and what it can do.
    pub async fn hear(&self, who: NodeId, said: Hello) -> Result<Option<Sealed>, Refused> {
        let _alone = self.changing.lock().await;
        let live = self.live();
        let Some(live) = live.filter(|live| live.is_hub()) else {
            return Err(Refused::no_hub(self.live().as_deref()));
        };
        let changed =
            live.roster(|roster| roster.update(&who, said.addresses, said.capabilities))?;
        match changed {
            Some(member) => Ok(Some(self.say(&live, member).await?)),
            None => Ok(None),
        }
    }

    /// Removes a member, with immediate effect. What is asked of a node that follows its hub does.
    pub async fn remove(&self, name: &str) -> Result<(), Refused> {
        let _alone = self.changing.lock().await;
        let live = self.live().ok_or_else(|| Refused::no_hub(None))?;
        if !live.is_hub() {
            let mut request = get(&member(name));
            *request.method_mut() = Method::DELETE;
            return forwarded(&live, request).await;
        }
        let node = live.roster(|roster| roster.find(name).map(|member| member.node))?;
        if node == live.own {
            let message = "this is the hub itself; `hearth leave` here ends the household";
            return Err(Refused::new(StatusCode::CONFLICT, "is_the_hub", message));
        }
        let member = live.roster(|roster| roster.remove(&node))?;
        self.say(&live, member).await?;
        self.affinity().forget(node);
        Ok(())
    }

    /// Calls a member something else.
    pub async fn rename(&self, name: &str, new: &str) -> Result<(), Refused> {
        let _alone = self.changing.lock().await;
        let live = self.live().ok_or_else(|| Refused::no_hub(None))?;
        if !live.is_hub() {
            let mut request = post(&member(name), &serde_json::json!({ "name": new }));
            *request.method_mut() = Method::PATCH;
            return forwarded(&live, request).await;
        }
        let node = live.roster(|roster| roster.find(name).map(|member| member.node))?;
        if let Some(member) = live.roster(|roster| roster.rename(&node, new))? {
            self.say(&live, member).await?;
        }
        Ok(())
    }

    /// Joins the household of a ticket. `node` looks after it from then on, if there is one.
    pub async fn join(
        self: &Arc<Self>,
        node: Option<&Shared>,
        wanted: &Join,
    ) -> Result<(), Refused> {
        let ticket: Ticket = wanted.ticket.parse().map_err(|error| {
            let message = format!("ticket: {error}");
            Refused::new(StatusCode::BAD_REQUEST, "bad_ticket", message)
        })?;
        let _alone = self.changing.lock().await;
        if let Some(live) = self.live() {
            // The hub of the ticket may take back whom it removed, whether this machine heard of it or not.
            if !live.is_removed() && live.belonging.hub != ticket.hub {
                let message = "this machine belongs to a household already; `hearth leave` first";
                return Err(Refused::new(StatusCode::CONFLICT, "has_household", message));
            }
        }
        if ticket.hub == self.id() {
            let message = "this ticket is this machine's own; use it on another one";
            return Err(Refused::new(StatusCode::CONFLICT, "own_ticket", message));
        }
        if ticket.is_over(now() / 1_000) {
            let message = "the ticket has expired (or this machine's clock is wrong); make a new one with `hearth invite` on the hub";
            return Err(Refused::new(
                StatusCode::FORBIDDEN,
                Code::TicketExpired.as_str(),
                message,
            ));
        }
        self.rest();
        let (peers, quic) = self.doors().await;
        let proof = ticket.proof(&self.id());
        let asked = AskToJoin {
            ticket: proof.ticket,
            proof: proof.proof,
            name: self.options.name.clone(),
            addresses: self.addresses_with(quic.as_deref()),
            capabilities: node.map(|node| self.capabilities(node, false)).unwrap_or_default(),
        };
        let request = post(peer::JOIN, &asked);
        let answer = peers.send(ticket.hub, &ticket.addresses, request, PATIENCE);
        let reply = answer.await.map(Reply::of).map_err(|error| {
            let places: Vec<String> = ticket.addresses.iter().map(ToString::to_string).collect();
            Refused::new(
                StatusCode::BAD_GATEWAY,
                "hub_unreachable",
                format!(
                    "the hub {} does not answer at {}: {}. See that its node runs and that this machine can reach it, then run the same command again",
                    ticket.name,
                    places.join(", "),
                    Unasked::from(error)
                ),
            )
        })?;
        if !reply.status().is_success() {
            let (status, code, message) = reply.problem().await;
            let code = code.unwrap_or_else(|| "hub_refused".into());
            return Err(Refused::new(status, &code, format!("the hub refuses: {message}")));
        }
        let welcome: Welcome = json(reply).await.map_err(|error| {
            Refused::new(StatusCode::BAD_GATEWAY, "bad_hub", error)
        })?;
        // Whatever answered, only what the ticket's hub signed makes a member.
        let mut roster = Roster::new(ticket.hub);
        for sealed in welcome.others.into_iter().chain([welcome.member]) {
            roster.insert(sealed).map_err(|error| {
                Refused::new(StatusCode::BAD_GATEWAY, "bad_hub", error.to_string())
            })?;
        }
        roster.may_pass(&self.id())?;
        // What was known of another household goes; the hub's own log follows with its next snapshot.
        let log = Log::follow(self.store.clone(), Default::default()).await?;
        let state = roster.records().map(|record| StateEvent::Member {
            record: record.clone(),
        });
        log.replace(&Snapshot {
            cursor: Default::default(),
            state: state.collect(),
        })
        .await?;
        let belonging = Membership {
            hub: ticket.hub,
            addresses: ticket.addresses.clone(),
        };
        let kept = belonging.clone();
        self.write(move |transaction| Ok(table::belong(transaction, &kept)?))
            .await?;
        let live = self.bring_to_life(belonging, (peers, quic)).await?;
        if let Some(node) = node {
            self.look_after(live, node);
        }
        Ok(())
    }

    /// Leaves the household: this node is alone again. A hub ends the household with it.
    pub async fn leave(&self) -> Result<(), Refused> {
        let _alone = self.changing.lock().await;
        let Some(live) = self.live() else {
            let message = "this machine belongs to no household";
            return Err(Refused::new(StatusCode::CONFLICT, "no_household", message));
        };
        if !live.is_hub() {
            // The hub should know; if it cannot be told, its owner removes this machine there.
            let request = post("/peer/leave", &serde_json::json!({}));
            let (hub, addresses) = (live.belonging.hub, live.hub_addresses());
            if let Err(error) = live.peers.send(hub, &addresses, request, PATIENCE).await {
                tracing::warn!(%error, "the hub could not be told that this machine leaves");
            }
        }
        drop(live);
        self.rest();
        self.write(|transaction| Ok(table::forget(transaction)?)).await?;
        self.forget_state().await
    }

    /// A member says that it goes.
    pub async fn farewell(&self, who: NodeId) -> Result<(), Refused> {
        self.remove(&who.to_string()).await
    }

    /// Empties the state log.
    async fn forget_state(&self) -> Result<(), Refused> {
        let log = Log::follow(self.store.clone(), Default::default()).await?;
        Ok(log.replace(&Snapshot::default()).await?)
    }

    /// Writes where it may block.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&sqlite::Transaction<'_>) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        let store = self.store.clone();
        let writing = crate::trace::spawn_blocking(move || store.write(work));
        writing.await.map_err(Refused::failed)?
    }
}
