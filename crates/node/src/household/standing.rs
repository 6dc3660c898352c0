//! Whether this node is alone, a member, or a hub; and how a node becomes a hub by the PostgreSQL that it shares with
//! others.
//!
//! Who has the household's key is a hub. In a node's own database the key is that of the one hub. In a shared one every
//! node with the same `database_url` has it: such a node takes part without a ticket, for whoever may open the database
//! has all that a hub has. A hub whose database is away is a member as long as that lasts, by its own copy of the state.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hearth_fanout::Log;
use hearth_mesh::identity::Identity;
use hearth_protocol::event::{Cursor, Snapshot};
use hearth_protocol::household::NodeId;
use hearth_store::{Postgres, PostgresError};

use super::change::{Refused, in_time};
use super::registry::{Place, Registry, SHARED_TABLES};
use super::table::{self, Membership};
use super::{Household, Live};
use crate::state::Shared;

/// How often a node looks at its shared database, when nothing says that there is news.
const LOOK: Duration = Duration::from_secs(5);
/// How long the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A hub whose database did not answer so many times in a row is none for the time being.
const MISSES: u32 = 2;

/// What a node is.
pub(super) enum Standing {
    /// It belongs to no household.
    Alone,
    /// It belongs to one.
    Member(Membership),
    /// It has the key of its household.
    Hub(Membership, Registry),
}

impl Standing {
    /// To what it belongs, and what makes it a hub.
    pub fn belonging(self) -> Option<(Membership, Option<Registry>)> {
        match self {
            Self::Alone => None,
            Self::Member(membership) => Some((membership, None)),
            Self::Hub(membership, registry) => Some((membership, Some(registry))),
        }
    }
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
        let shared = self.shared().await?;
        Ok(match shared {
            Some(database) => Place::Shared(database),
            None => Place::Own(self.store.clone()),
        })
    }

    /// The shared database, and the key of the household that it holds; nothing while it does not answer.
    async fn look(&self) -> Result<Option<(Postgres, Option<Identity>)>, Refused> {
        let looking = async {
            let Some(database) = self.shared().await? else {
                return Ok::<_, Refused>(None);
            };
            let key = Place::Shared(database.clone()).key().await?;
            Ok(Some((database, key)))
        };
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(Ok(found)) => {
                self.database_is_away.store(false, Ordering::Relaxed);
                Ok(found)
            }
            Ok(Err(error)) if !error.is_unreachable() => Err(error),
            Ok(Err(error)) => {
                self.database_away(&error);
                Ok(None)
            }
            Err(_) => {
                self.database_away(&Refused::unanswered());
                Ok(None)
            }
        }
    }

    /// What this node is now.
    pub(super) async fn standing(&self) -> Result<Standing, Refused> {
        let here = self.standing_here().await?;
        let Some((database, there)) = self.look().await? else {
            return Ok(here);
        };
        let place = Place::Shared(database.clone());
        Ok(match (there, here) {
            (None, Standing::Hub(membership, registry)) => {
                Standing::Hub(membership, in_time(true, registry.moved(database)).await?)
            }
            // Its hub keeps the household elsewhere.
            (None, here) => here,
            (Some(key), Standing::Hub(membership, _) | Standing::Member(membership))
                if key.id() != membership.household =>
            {
                return Err(Refused::elsewhere(key.id(), membership.household));
            }
            // It ended in the middle of moving.
            (Some(_), Standing::Hub(membership, registry)) => {
                Standing::Hub(membership, in_time(true, registry.moved(database)).await?)
            }
            (Some(key), Standing::Member(membership)) => {
                Standing::Hub(membership, Registry::new(key, place))
            }
            (Some(key), Standing::Alone) => {
                let registry = Registry::new(key, place);
                match in_time(true, self.was_removed(&registry)).await? {
                    // Nobody comes back without a ticket.
                    true => Standing::Alone,
                    false => Standing::Hub(self.take_part(registry.household()).await?, registry),
                }
            }
        })
    }

    /// What this node is by its own database.
    pub(super) async fn standing_here(&self) -> Result<Standing, Refused> {
        let place = Place::Own(self.store.clone());
        let Some(membership) = table::membership(&self.store)? else {
            return Ok(Standing::Alone);
        };
        let key = place.key().await?;
        Ok(match key.filter(|key| key.id() == membership.household) {
            Some(key) => Standing::Hub(membership, Registry::new(key, place)),
            None => Standing::Member(membership),
        })
    }

    /// Says once that the shared database does not answer.
    pub(super) fn database_away(&self, error: &dyn std::fmt::Display) {
        if !self.database_is_away.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{error}; until it does, this machine is no hub by it, and goes on as it is"
            );
        }
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
        let is_settled = |live: &Live| live.is_removed() || live.is_shared();
        if self.live().is_some_and(|live| is_settled(&live)) {
            return Ok(());
        }
        let _alone = self.changing.lock().await;
        let Some((membership, registry)) = self.standing().await?.belonging() else {
            return Ok(());
        };
        if !registry.as_ref().is_some_and(Registry::is_shared) {
            return Ok(());
        }
        let doors = match self.live() {
            Some(live) => (live.peers.clone(), live.quic.clone()),
            None => self.doors().await,
        };
        let live = self.bring_to_life(membership, registry, doors).await?;
        // It says by itself that it is one, and again if the database fails just now.
        self.look_after(live, node);
        tracing::info!("this machine is a hub of its household, by the database it shares");
        Ok(())
    }
}

impl Household {
    /// Hears what other hubs write to the shared log, keeps a copy for the day on which the database is away, and when that
    /// day comes has this node go on as a member, which follows a hub that is better off.
    pub(super) fn attend(self: &Arc<Self>, live: &Arc<Live>, node: &Shared) {
        let (this, watched) = (Arc::downgrade(self), Arc::clone(live));
        let (store, node) = (self.store.clone(), Arc::downgrade(node));
        live.spawn(async move {
            until_away(&watched, store).await;
            // Not as one of its tasks, which end with it.
            tokio::spawn(async move {
                if let (Some(this), Some(node)) = (this.upgrade(), node.upgrade())
                    && let Err(error) = this.step_down(&watched, &node).await
                {
                    tracing::error!(%error, "this hub cannot go on as a member");
                }
            });
        });
    }

    /// Goes on as a member, for the database is away.
    async fn step_down(self: &Arc<Self>, live: &Arc<Live>, node: &Shared) -> Result<(), Refused> {
        let _alone = self.changing.lock().await;
        let is_this = |now: Arc<Live>| Arc::ptr_eq(&now, live);
        if !self.live().is_some_and(is_this) {
            return Ok(());
        }
        self.database_away(&"the database of database_url does not answer any more");
        let doors = (live.peers.clone(), live.quic.clone());
        let live = self
            .bring_to_life(live.belonging.clone(), None, doors)
            .await?;
        self.look_after(live, node);
        Ok(())
    }
}

/// Returns when the shared database did not answer for a while.
async fn until_away(live: &Arc<Live>, store: hearth_store::Store) {
    let copy = Log::follow(store, hearth_fanout::Options::default()).await;
    let copy = copy.inspect_err(|error| {
        tracing::error!(%error, "no copy of the shared state can be kept");
    });
    let mut moved = live.log.watch();
    let (mut copied, mut missed) = (Cursor::default(), 0);
    while missed < MISSES {
        moved.borrow_and_update();
        match tokio::time::timeout(PATIENCE, live.heard(copied)).await {
            Ok(Ok(None)) => missed = 0,
            Ok(Ok(Some(snapshot))) => {
                missed = 0;
                live.learn(&snapshot.state);
                let kept = match &copy {
                    Ok(copy) => copy.replace(&snapshot).await,
                    Err(_) => Ok(()),
                };
                match kept {
                    Ok(()) => copied = snapshot.cursor,
                    Err(error) => {
                        tracing::warn!(%error, "the copy of the shared state is not up to date");
                    }
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the shared state was not read");
                missed += 1;
            }
            Err(_) => missed += 1,
        }
        // Whoever ended the household took the key away.
        if live.is_removed() {
            std::future::pending::<()>().await;
        }
        let _ = tokio::time::timeout(LOOK, moved.changed()).await;
    }
}

impl Live {
    /// The shared state, if it moved on from `known`, while the key is that of this household.
    async fn heard(&self, known: Cursor) -> Result<Option<Snapshot>, Refused> {
        if let Some(registry) = &self.registry
            && !registry.is_current().await?
        {
            self.set_removed();
            return Err(Refused::failed("the household has ended"));
        }
        if self.log.bounds().await?.end == known {
            return Ok(None);
        }
        Ok(Some(self.log.snapshot().await?))
    }
}
