//! What changes a household: invitations, joining, leaving, and what the hub does with members.
//!
//! Each change of a hub runs in a task of its own, so that it goes on whoever stops waiting for it, and one comes after
//! the other, those of other hubs too. For a shared database it waits no longer than [`TURN`]. A member may have a hub give
//! out tickets and names, for its owner is the household's; removing others is done at a hub alone, so that a machine that
//! was stolen cannot.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hearth_fanout::Log;
use hearth_mesh::identity::Identity;
use hearth_mesh::peers::Peers;
use hearth_mesh::refusal::{Code, Refusal};
use hearth_mesh::roster::{ChangeError, FindError, Roster};
use hearth_mesh::signature::REFUSAL;
use hearth_mesh::ticket::{Invitation as Kept, JoinProof, Ticket};
use hearth_protocol::event::{Snapshot, StateEvent};
use hearth_protocol::household::{Member, NodeId, Sealed};
use hearth_protocol::peers::{AskToJoin, Hello, Invitation, Invite, Issue, Join, Welcome};
use hearth_store::sqlite;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::ask::{Reply, Unasked, get, json, post};
use super::registry::{Admission, Lock, Place, Registry, forget_key};
use super::table::{self, Membership};
use super::{FAREWELL, Household, Live};
use crate::failure::problem;
use crate::peer::{ECHO, JOIN};
use crate::state::{Shared, unix_time};

/// How long a ticket is good for unless it is said, in seconds.
const A_DAY: u64 = 24 * 3600;
/// What may be said.
const EXPIRY: std::ops::RangeInclusive<u64> = 60..=7 * 24 * 3600;
/// How long the hub may take to begin an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a change may take that needs the hubs' database, which may be frozen, or cut off without a word: the next one
/// waits for it, and who asked from elsewhere waits [`PATIENCE`].
const TURN: Duration = Duration::from_secs(8);
/// How long a member may take that is only to know that its hub is there.
const CALL: Duration = Duration::from_secs(5);

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

    /// What was asked is wrong; the message names the field.
    pub fn invalid_field(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_field", message)
    }

    /// What went wrong on this machine.
    pub fn failed(error: impl std::fmt::Display) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "household_failed", error.to_string())
    }

    /// What only a running node does.
    pub fn asleep(what: &str) -> Self {
        let message = format!("{what}; start it with `hearth up`, then run `hearth leave` again");
        Self::new(StatusCode::CONFLICT, "not_running", message)
    }

    fn no_hub(live: Option<&Live>) -> Self {
        let message = match live {
            Some(live) if live.is_removed() => "this machine was removed from its household".into(),
            Some(live) => format!(
                "this machine is not the hub of its household; do this on {}",
                live.hub_names()
            ),
            None => "this machine belongs to no household; `hearth invite` makes it the hub of one"
                .into(),
        };
        Self::new(StatusCode::CONFLICT, "not_the_hub", message)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            refusal.code.as_str(),
            refusal.message,
        )
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
        match error {
            hearth_fanout::Error::Postgres(error) => error.into(),
            error => Self::failed(error),
        }
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
        let mut response = problem(self.status, &self.code, title, self.message);
        if let Ok(code) = HeaderValue::try_from(self.code) {
            response.headers_mut().insert(REFUSAL, code);
        }
        response
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
    Err(Refused::invalid_field(message))
}

fn member(name: &str) -> String {
    let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
    format!("/peer/members/{name}")
}

/// Has a hub do it.
async fn forwarded<T: DeserializeOwned>(
    live: &Live,
    request: Request<Bytes>,
) -> Result<T, Refused> {
    let reply = live.ask_hub(&request, PATIENCE).await.map_err(|error| {
        let message = match error {
            Unasked::Unsent(error) => format!(
                "only the hub ({}) can do this, and it does not answer: {error}. See why: hearth doctor",
                live.hub_names()
            ),
            error => error.to_string(),
        };
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

/// The roster that the ticket's hub gives to who joins, checked.
async fn welcomed(peers: &Peers, ticket: &Ticket, asked: &AskToJoin) -> Result<Roster, Refused> {
    let request = post(JOIN, asked);
    let answer = peers.send(ticket.hub, &ticket.addresses, request, PATIENCE);
    let reply = answer.await.map(Reply::of).map_err(|error| {
        Refused::new(
            StatusCode::BAD_GATEWAY,
            "hub_unreachable",
            format!(
                "the hub {} does not answer: {error}. See that its node runs and that this machine can reach it, then run the same command again",
                ticket.name
            ),
        )
    })?;
    if !reply.status().is_success() {
        let (status, code, message) = reply.problem().await;
        let code = code.unwrap_or_else(|| "hub_refused".into());
        let message = format!("the hub refuses: {message}");
        return Err(Refused::new(status, &code, message));
    }
    let bad_hub = |error: String| Refused::new(StatusCode::BAD_GATEWAY, "bad_hub", error);
    let welcome: Welcome = json(reply).await.map_err(bad_hub)?;
    // Whatever answered, only what the ticket's household signed makes a member.
    let mut roster = Roster::new(ticket.household);
    for sealed in welcome.others.into_iter().chain([welcome.member]) {
        let inserted = roster.insert(sealed);
        inserted.map_err(|error| bad_hub(error.to_string()))?;
    }
    Ok(roster)
}

impl Live {
    /// What makes this node a hub.
    fn registry(&self) -> Result<&Registry, Refused> {
        let registry = self.registry.as_ref();
        registry.ok_or_else(|| Refused::no_hub(Some(self)))
    }

    /// Whether other hubs may write beside this one.
    pub(super) fn is_shared(&self) -> bool {
        self.registry.as_ref().is_some_and(Registry::is_shared)
    }

    /// What people call the hubs.
    fn hub_names(&self) -> String {
        let names = self.hubs().into_iter().map(|(hub, _)| self.name_of(hub));
        names.collect::<Vec<String>>().join(" or ")
    }

    /// Whether it is a hub and the roster does not say so: it may have ended in the middle of its first invitation, or the
    /// database was away.
    pub(super) fn owes_membership(&self) -> bool {
        let is_known = |roster: &Roster| roster.hubs().any(|hub| hub.node == self.own);
        self.is_hub() && !self.is_removed() && !self.roster(is_known)
    }

    /// Lets every member know that this hub is there: who lost it and waits before asking again hears at once of a removal.
    fn call_members(self: &Arc<Self>) {
        let members = self.roster(|roster| roster.members().cloned().collect::<Vec<Member>>());
        for member in members.into_iter().filter(|member| member.node != self.own) {
            let live = Arc::clone(self);
            self.spawn(async move {
                let called = live
                    .send(member.node, &member.addresses, get(ECHO), CALL)
                    .await;
                if let Err(error) = called {
                    tracing::debug!(%error, "a member was not reached");
                }
            });
        }
    }

    /// Keeps the other hubs from changing the household, and hears what they did.
    async fn lock(self: &Arc<Self>) -> Result<Lock, Refused> {
        let registry = self.registry()?;
        let lock = registry.lock().await?;
        if registry.is_shared() {
            if !registry.is_current().await? {
                self.set_removed();
                return Err(Refused::no_hub(Some(self)));
            }
            self.learn(&self.log.snapshot().await?.state);
        }
        Ok(lock)
    }
}

/// Does what needs the hubs' database, if they share one, unless nothing comes back from there. What was given up may have
/// been done up to one of its transactions; this hub hears of that as the others do.
pub(super) async fn in_time<T>(
    is_shared: bool,
    work: impl Future<Output = Result<T, Refused>>,
) -> Result<T, Refused> {
    if !is_shared {
        return work.await;
    }
    let done = tokio::time::timeout(TURN, work).await;
    done.unwrap_or_else(|_| Err(Refused::unanswered()))
}

/// Goes on with a change, whether or not anybody waits.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refused>> + Send + 'static,
) -> Result<T, Refused> {
    tokio::spawn(work).await.map_err(Refused::failed)?
}

impl Household {
    /// What a node of a household has, if it is a hub.
    fn as_hub(&self) -> Result<Arc<Live>, Refused> {
        match self.live() {
            Some(live) if live.is_hub() && !live.is_removed() => Ok(live),
            live => Err(Refused::no_hub(live.as_deref())),
        }
    }

    /// Changes the household when it is this hub's turn, whether or not anybody waits.
    async fn turned<T: Send + 'static, F>(
        self: &Arc<Self>,
        change: impl FnOnce(Arc<Self>, Arc<Live>) -> F + Send + 'static,
    ) -> Result<T, Refused>
    where
        F: Future<Output = Result<T, Refused>> + Send,
    {
        // A member that asks another one has not both wait.
        self.as_hub()?;
        let this = Arc::clone(self);
        whole(async move {
            let _here = this.changing.lock().await;
            let live = this.as_hub()?;
            let is_shared = live.is_shared();
            let changing = async {
                let _everywhere = live.lock().await?;
                // Another hub may have removed this node meanwhile.
                this.as_hub()?;
                change(Arc::clone(&this), Arc::clone(&live)).await
            };
            in_time(is_shared, changing).await
        })
        .await
    }

    /// Makes a ticket. A node that is alone becomes the hub of a household of its own.
    pub async fn invite(
        self: &Arc<Self>,
        node: &Shared,
        wanted: &Invite,
    ) -> Result<Invitation, Refused> {
        let lasts = lasting(wanted)?;
        let (this, node) = (Arc::clone(self), Arc::clone(node));
        whole(async move {
            let _alone = this.changing.lock().await;
            let live = match this.live() {
                Some(live) => live,
                None => {
                    let is_shared = this.options.database.is_some();
                    in_time(is_shared, this.found(&node)).await?
                }
            };
            let expires = unix_time() + lasts;
            let (household, own) = (live.belonging.household, live.own);
            let name = live.name_of(own);
            let mut ticket = Ticket::new(household, own, &name, this.addresses(&live), expires);
            let kept = ticket.invitation();
            // The secret half stays here, whoever keeps the other.
            match &live.registry {
                Some(registry) => {
                    in_time(live.is_shared(), async {
                        let _everywhere = live.lock().await?;
                        this.as_hub()?;
                        registry.give(kept, own).await
                    })
                    .await?;
                }
                None => {
                    let issued = Issue {
                        ticket: kept.ticket,
                        expires: kept.expires,
                    };
                    forwarded::<()>(&live, post("/peer/invite", &issued)).await?;
                    // Whoever joins asks the hub that is there.
                    let answered = live.hubs().into_iter().next();
                    let (hub, addresses) = answered.ok_or_else(|| Refused::no_hub(Some(&live)))?;
                    ticket.lead_to(hub, &live.name_of(hub), addresses);
                }
            }
            let addresses = ticket.addresses.clone();
            Ok(Invitation {
                ticket: ticket.to_string(),
                expires_at: expires,
                addresses,
            })
        })
        .await
    }

    /// Keeps a ticket that a member made.
    pub async fn issued(self: &Arc<Self>, who: NodeId, issued: Issue) -> Result<(), Refused> {
        self.turned(async move |_, live| {
            live.roster(|roster| roster.may_pass(&who).map(drop))?;
            let lasts = issued.expires.saturating_sub(unix_time());
            // A clock may be a little off.
            let wanted = Invite {
                expires_in: Some(lasts.max(*EXPIRY.start()).saturating_sub(60).max(60)),
            };
            lasting(&wanted)?;
            let kept = Kept {
                ticket: issued.ticket,
                expires: issued.expires,
                used_by: None,
            };
            live.registry()?.give(kept, who).await
        })
        .await
    }

    /// Makes this node the hub of a new household, or one of that which its shared database holds.
    async fn found(self: &Arc<Self>, node: &Shared) -> Result<Arc<Live>, Refused> {
        let place = self.place().await?;
        let key = place.claim(&Identity::generate()).await?;
        let registry = Registry::new(key, place);
        if self.was_removed(&registry).await? {
            let message = "this machine was removed from the household that its database_url holds; to come back it joins with a ticket of another hub";
            let code = Code::Removed.as_str();
            return Err(Refused::new(StatusCode::FORBIDDEN, code, message));
        }
        let belonging = self.take_part(registry.household()).await?;
        let doors = self.doors().await;
        let live = self.bring_to_life(belonging, Some(registry), doors).await?;
        self.look_after(Arc::clone(&live), node);
        self.be_member(&live, node).await?;
        Ok(live)
    }

    /// A hub is a member of its own household, and says that it is a hub. For who may change the household at the moment.
    pub(super) async fn be_member(&self, live: &Arc<Live>, node: &Shared) -> Result<(), Refused> {
        if !live.owes_membership() {
            return Ok(());
        }
        let _everywhere = live.lock().await?;
        if !live.owes_membership() {
            return Ok(());
        }
        let capabilities = self.capabilities(node, false);
        let addresses = self.addresses(live);
        let name = &self.options.name;
        let mut own = live.roster(|roster| roster.join(live.own, name, addresses, capabilities));
        own.hub = true;
        self.say(live, own).await?;
        Ok(())
    }

    /// A hub says something about a member, to everybody.
    async fn say(&self, live: &Arc<Live>, member: Member) -> Result<Sealed, Refused> {
        let (record, event) = live.registry()?.sealed(&member)?;
        match live.log.append(std::slice::from_ref(&event)).await {
            Ok(_) => live.learn(&[event]),
            Err(error @ hearth_fanout::Error::Stale { .. }) => {
                // The log knows more than this process: what it says counts, and the next try builds on it.
                let snapshot = live.log.snapshot().await?;
                live.learn(&snapshot.state);
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        }
        Ok(record)
    }

    /// Takes a node in that holds a ticket of this hub.
    pub async fn admit(self: Arc<Self>, who: NodeId, asked: AskToJoin) -> Result<Welcome, Refused> {
        let proof = JoinProof {
            ticket: asked.ticket,
            proof: asked.proof,
        };
        // Strangers do not make the others wait.
        self.as_hub()?.registry()?.has_ticket(&proof, &who).await?;
        self.turned(async move |_, live| {
            let registry = live.registry()?;
            let member = live.roster(|roster| {
                roster.join(who, &asked.name, asked.addresses, asked.capabilities)
            });
            let (record, event) = registry.sealed(&member)?;
            let is_removed =
                live.roster(|roster| roster.record(&who).is_some_and(|known| known.removed));
            let admission = Admission {
                who,
                proof,
                is_removed,
                event: event.clone(),
            };
            registry.admit(&live.log, admission).await?;
            live.learn(&[event]);
            let others = live.roster(|roster| roster.records().cloned().collect());
            Ok(Welcome {
                member: record,
                others,
            })
        })
        .await
    }

    /// Hears from a member where it is and what it can do.
    pub async fn hear(
        self: &Arc<Self>,
        who: NodeId,
        said: Hello,
    ) -> Result<Option<Sealed>, Refused> {
        self.turned(async move |this, live| {
            let changed = live.roster(|roster| {
                roster.update(&who, said.addresses, said.capabilities, said.hub)
            })?;
            match changed {
                Some(member) => Ok(Some(this.say(&live, member).await?)),
                None => Ok(None),
            }
        })
        .await
    }

    /// Removes a member, with immediate effect, and the tickets that it made.
    pub async fn remove(self: &Arc<Self>, name: &str) -> Result<(), Refused> {
        let live = self.as_hub()?;
        let node = live.roster(|roster| roster.find(name).map(|member| member.node))?;
        if node == live.own {
            let message = "this is the hub itself; `hearth leave --end` here ends the household";
            return Err(Refused::new(StatusCode::CONFLICT, "is_the_hub", message));
        }
        self.remove_node(node).await
    }

    async fn remove_node(self: &Arc<Self>, node: NodeId) -> Result<(), Refused> {
        self.turned(async move |this, live| {
            let member = live.roster(|roster| roster.remove(&node))?;
            live.registry()?.void(node).await?;
            this.say(&live, member).await?;
            live.call_members();
            this.affinity().forget(node);
            Ok(())
        })
        .await
    }

    /// Calls a member something else. What is asked of a node that follows its hub does.
    pub async fn rename(self: &Arc<Self>, name: &str, new: &str) -> Result<(), Refused> {
        let live = self.live().ok_or_else(|| Refused::no_hub(None))?;
        if !live.is_hub() {
            let mut request = post(&member(name), &serde_json::json!({ "name": new }));
            *request.method_mut() = Method::PATCH;
            let mut moved = live.log.watch();
            forwarded::<()>(&live, request).await?;
            // What the hub did comes back in its log, a moment later.
            let _ = tokio::time::timeout(Duration::from_secs(2), moved.changed()).await;
            return Ok(());
        }
        self.rename_here(name, new).await
    }

    /// The same for a member, which asks the hub.
    pub async fn rename_here(self: &Arc<Self>, name: &str, new: &str) -> Result<(), Refused> {
        let (name, new) = (name.to_owned(), new.to_owned());
        self.turned(async move |this, live| {
            let node = live.roster(|roster| roster.find(&name).map(|member| member.node))?;
            if let Some(member) = live.roster(|roster| roster.rename(&node, &new))? {
                this.say(&live, member).await?;
            }
            Ok(())
        })
        .await
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
        let (this, node) = (Arc::clone(self), node.map(Arc::clone));
        whole(async move { this.join_now(node, ticket).await }).await
    }

    async fn join_now(
        self: &Arc<Self>,
        node: Option<Shared>,
        ticket: Ticket,
    ) -> Result<(), Refused> {
        let _alone = self.changing.lock().await;
        let before = self.live();
        // The hub of the ticket may take back whom it removed, whether this machine heard of it or not.
        if let Some(live) = &before
            && !live.is_removed()
            && live.belonging.household != ticket.household
        {
            let message = "this machine belongs to a household already; `hearth leave` first";
            return Err(Refused::new(StatusCode::CONFLICT, "has_household", message));
        }
        if ticket.hub == self.id() {
            let message = "this ticket is this machine's own; use it on another one";
            return Err(Refused::new(StatusCode::CONFLICT, "own_ticket", message));
        }
        if ticket.is_over(unix_time()) {
            let message = "the ticket has expired (or this machine's clock is wrong); make a new one with `hearth invite` on the hub";
            return Err(Refused::new(
                StatusCode::FORBIDDEN,
                Code::TicketExpired.as_str(),
                message,
            ));
        }
        let shared = in_time(self.options.database.is_some(), async {
            match self.place().await? {
                Place::Own(_) => Ok(None),
                place @ Place::Shared(_) => place.key().await,
            }
        });
        if let Some(key) = shared.await?
            && key.id() != ticket.household
        {
            return Err(Refused::elsewhere(key.id(), ticket.household));
        }
        // What this machine has is kept until the hub has taken it in.
        let mut new_doors = None;
        let (peers, quic) = match &before {
            Some(live) => (live.peers.clone(), live.quic.clone()),
            None => new_doors.insert(self.doors().await).clone(),
        };
        let proof = ticket.proof(&self.id());
        let asked = AskToJoin {
            ticket: proof.ticket,
            proof: proof.proof,
            name: self.options.name.clone(),
            addresses: self.addresses_with(quic.as_deref()),
            capabilities: node
                .as_ref()
                .map(|node| self.capabilities(node, false))
                .unwrap_or_default(),
        };
        let welcomed = welcomed(&peers, &ticket, &asked).await;
        let roster = match welcomed.and_then(|roster| {
            roster.may_pass(&self.id())?;
            Ok(roster)
        }) {
            Ok(roster) => roster,
            Err(error) => {
                if let Some((_, Some(quic))) = new_doors {
                    quic.close().await;
                }
                return Err(error);
            }
        };
        drop((peers, quic, before));
        self.rest().await;
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
        let kept = Membership {
            household: ticket.household,
            hub: ticket.hub,
            addresses: ticket.addresses.clone(),
        };
        self.write(move |transaction| Ok(table::belong(transaction, &kept)?))
            .await?;
        let kept = self.standing().await?.belonging();
        let (belonging, registry) =
            kept.ok_or_else(|| Refused::failed("the household is not kept"))?;
        let doors = match new_doors {
            Some(doors) => doors,
            None => self.doors().await,
        };
        let live = self.bring_somehow(belonging, registry, doors).await?;
        if let Some(node) = node {
            self.look_after(live, &node);
        }
        Ok(())
    }

    /// Leaves the household: this node is alone again. A hub ends the household with it.
    /// Answers whether those who stay were told.
    pub async fn leave(self: &Arc<Self>, end: bool) -> Result<bool, Refused> {
        let this = Arc::clone(self);
        whole(async move {
            let _alone = this.changing.lock().await;
            let Some(live) = this.live() else {
                let message = "this machine belongs to no household, so there is nothing to leave";
                return Err(Refused::new(StatusCode::CONFLICT, "no_household", message));
            };
            let mut is_told = true;
            if live.is_hub() && !live.is_removed() {
                in_time(live.is_shared(), this.take_leave(&live, end)).await?;
            } else if !live.is_hub() {
                // The hub should know; if it cannot be told, its owner removes this machine there.
                let told = forwarded::<()>(&live, post("/peer/leave", &serde_json::json!({})));
                if let Err(error) = told.await {
                    tracing::warn!(%error, "the hub was not told that this machine leaves");
                    is_told = live.is_removed();
                }
            }
            drop(live);
            this.rest().await;
            this.write(|transaction| {
                table::forget(transaction)?;
                Ok(forget_key(transaction)?)
            })
            .await?;
            this.forget_state().await?;
            Ok(is_told)
        })
        .await
    }

    /// A hub goes. Others go on with another hub, unless the household ends with it.
    async fn take_leave(&self, live: &Arc<Live>, end: bool) -> Result<(), Refused> {
        let _everywhere = live.lock().await?;
        let (is_last, others) = live.roster(|roster| {
            let is_last = roster.hubs().all(|hub| hub.node == live.own);
            (is_last, roster.members().count().saturating_sub(1))
        });
        if is_last && others > 0 && !end {
            let message = format!(
                "this machine is the hub: when it leaves, the household ends for {others} more, and each joins anew with a ticket of another hub; if that is meant, run `hearth leave --end` (or send {{\"end\": true}})"
            );
            return Err(Refused::new(StatusCode::CONFLICT, "is_the_hub", message));
        }
        let ends = end || is_last;
        let members: Vec<NodeId> = live.roster(|roster| {
            let members = roster.members().map(|member| member.node);
            members
                .filter(|member| (*member == live.own) != ends)
                .collect()
        });
        // Who hears it knows that this household is over, and does not wait for its hub.
        let registry = live.registry()?;
        let removed = members.iter().map(|member| {
            let removed = live.roster(|roster| roster.remove(member))?;
            Ok(registry.sealed(&removed)?.1)
        });
        let removed = removed.collect::<Result<Vec<StateEvent>, Refused>>()?;
        live.log.append(&removed).await?;
        live.learn(&removed);
        if !members.is_empty() {
            tokio::time::sleep(FAREWELL).await;
        }
        if ends {
            registry.place().forget().await?;
        }
        Ok(())
    }

    /// A member says that it goes.
    pub async fn farewell(self: &Arc<Self>, who: NodeId) -> Result<(), Refused> {
        self.remove_node(who).await
    }

    /// Empties the state log.
    pub(super) async fn forget_state(&self) -> Result<(), Refused> {
        let log = Log::follow(self.store.clone(), Default::default()).await?;
        Ok(log.replace(&Snapshot::default()).await?)
    }

    /// Writes where it may block.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&sqlite::Transaction<'_>) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        let store = self.store.clone();
        let writing = crate::trace::spawn_blocking(move || store.write(work));
        writing.await.map_err(Refused::failed)?
    }
}
