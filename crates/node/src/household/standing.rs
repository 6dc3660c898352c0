//! Whether this node is alone, a member, or a hub; and how a node becomes a hub by the PostgreSQL that it shares with
//! others.
//!
//! Who has the household's key is a hub. In a node's own database the key is that of the one hub. In a shared one every
//! node with the same `database_url` has it: such a node takes part without a ticket, for whoever may open the database
//! has all that a hub has. A hub whose database is away is a member as long as that lasts, by its own copy of the state.

use std::sync::Arc;
use std::time::Duration;

use hearth_fanout::Log;
use hearth_protocol::household::NodeId;
use hearth_store::{Postgres, PostgresError};

use super::change::Refused;
use super::registry::{Place, Registry, SHARED_TABLES};
use super::table::{self, Membership};
use super::{Household, Live};
use crate::state::Shared;

/// How often a node that is no hub looks whether its shared database makes it one.
const LOOK: Duration = Duration::from_secs(5);

/// What a node is.
pub(super) enum Standing {
    /// It belongs to no household.
    Alone,
    /// It belongs to one.
    Member(Membership),
    /// It has the key of its household.
    Hub(Membership, Registry),
}

impl Household {
    /// The database that hubs share, if there is one.
    async fn shared(&self) -> Result<Option<Postgres>, PostgresError> {
        let Some(url) = &self.options.database else {
            return Ok(None);
        };
        let opening = || Postgres::open(url, SHARED_TABLES);
        let database = self.database.get_or_try_init(opening).await?;
        Ok(Some(database.clone()))
    }

    /// Where the part of a hub is kept that this node would be.
    pub(super) async fn place(&self) -> Result<Place, Refused> {
        let shared = self.shared().await.map_err(Refused::failed)?;
        Ok(match shared {
            Some(database) => Place::Shared(database),
            None => Place::Own(self.store.clone()),
        })
    }

    /// What this node is now.
    pub(super) async fn standing(&self) -> Result<Standing, Refused> {
        let own = Place::Own(self.store.clone());
        let (membership, own_key) = (table::membership(&self.store)?, own.key().await?);
        let here = |membership: Option<Membership>| match (membership, own_key.clone()) {
            (None, _) => Standing::Alone,
            (Some(membership), None) => Standing::Member(membership),
            (Some(membership), Some(key)) => {
                Standing::Hub(membership, Registry::new(key, own.clone()))
            }
        };
        let database = match self.shared().await {
            Ok(Some(database)) => database,
            Ok(None) => return Ok(here(membership)),
            Err(error @ PostgresError::Unreachable { .. }) => {
                if !self
                    .database_is_away
                    .swap(true, std::sync::atomic::Ordering::Relaxed)
                {
                    tracing::warn!(
                        "{error}; until it is back, this machine is no hub by it, and goes on as it is"
                    );
                }
                return Ok(here(membership));
            }
            Err(error) => return Err(Refused::failed(error)),
        };
        let place = Place::Shared(database.clone());
        let there = match place.key().await {
            Ok(there) => there,
            Err(error) => {
                tracing::debug!(%error, "the shared database does not answer");
                return Ok(here(membership));
            }
        };
        Ok(match (there, membership) {
            (None, Some(membership)) => match here(Some(membership)) {
                Standing::Hub(membership, registry) => {
                    Standing::Hub(membership, registry.moved(database).await?)
                }
                other => other,
            },
            (None, None) => Standing::Alone,
            (Some(key), Some(membership)) if key.id() != membership.household => {
                return Err(Refused::elsewhere(key.id(), membership.household));
            }
            (Some(key), Some(membership)) => {
                let registry = match own_key {
                    // It ended in the middle of moving.
                    Some(key) => Registry::new(key, own).moved(database).await?,
                    None => Registry::new(key, place),
                };
                Standing::Hub(membership, registry)
            }
            (Some(key), None) => {
                let registry = Registry::new(key, place);
                match self.was_removed(&registry).await? {
                    // Nobody comes back without a ticket.
                    true => Standing::Alone,
                    false => Standing::Hub(self.take_part(registry.household()).await?, registry),
                }
            }
        })
    }

    /// Whether a household's log says that this node is of it no more.
    pub(super) async fn was_removed(&self, registry: &Registry) -> Result<bool, Refused> {
        let own = self.id();
        let mut roster = hearth_mesh::roster::Roster::new(registry.household());
        let snapshot = registry.place().log().await?.snapshot().await?;
        for event in snapshot.state {
            let hearth_protocol::event::StateEvent::Member { record } = event;
            // What is not of this household is not taken; `learn` says so.
            let _ = roster.insert(record);
        }
        Ok(roster.record(&own).is_some_and(|own| own.removed))
    }

    /// Notes that this node belongs to a household of which it has the key.
    pub(super) async fn take_part(&self, household: NodeId) -> Result<Membership, Refused> {
        let membership = Membership {
            household,
            hub: self.id(),
            addresses: Vec::new(),
        };
        self.forget_state().await?;
        let kept = membership.clone();
        self.write(move |transaction| Ok(table::belong(transaction, &kept)?))
            .await?;
        Ok(membership)
    }

    /// Looks, as long as the node lives, whether the shared database makes it a hub: another hub may have founded the
    /// household meanwhile, or the database may be back.
    pub(super) fn await_database(self: &Arc<Self>, node: &Shared) {
        if self.options.database.is_none() {
            return;
        }
        let (this, node) = (Arc::downgrade(self), Arc::downgrade(node));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let (Some(this), Some(node)) = (this.upgrade(), node.upgrade()) else {
                    return;
                };
                if let Err(error) = this.rise(&node).await {
                    tracing::debug!(%error, "this machine does not become a hub");
                }
            }
        });
    }

    /// Becomes a hub, if the shared database says so.
    async fn rise(self: &Arc<Self>, node: &Shared) -> Result<(), Refused> {
        let is_settled = |live: &Live| {
            live.is_removed() || live.registry.as_ref().is_some_and(Registry::is_shared)
        };
        if self.live().is_some_and(|live| is_settled(&live)) {
            return Ok(());
        }
        let _alone = self.changing.lock().await;
        let Standing::Hub(membership, registry) = self.standing().await? else {
            return Ok(());
        };
        if !registry.is_shared() {
            return Ok(());
        }
        let doors = match self.live() {
            Some(live) => (live.peers.clone(), live.quic.clone()),
            None => self.doors().await,
        };
        let live = self
            .bring_to_life(membership, Some(registry), doors)
            .await?;
        self.be_member(&live, node).await?;
        self.look_after(live, node);
        tracing::info!("this machine is a hub of its household, by the database it shares");
        Ok(())
    }
}

/// Hears what other hubs write to the shared log, and keeps a copy for the day on which the database is away.
pub(super) async fn keep_up(live: Arc<Live>, store: hearth_store::Store) {
    let copy = match Log::follow(store, hearth_fanout::Options::default()).await {
        Ok(copy) => copy,
        Err(error) => {
            tracing::error!(%error, "no copy of the shared state can be kept");
            return;
        }
    };
    let mut moved = live.log.watch();
    loop {
        moved.borrow_and_update();
        let kept = match live.log.snapshot().await {
            Ok(snapshot) => {
                live.learn(&snapshot.state);
                copy.replace(&snapshot).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "the copy of the shared state is not up to date");
        }
        if moved.changed().await.is_err() {
            return;
        }
    }
}
