//! What makes a node a hub: the household's key, and the tickets that were given out. They lie in the node's own database,
//! or, with the state log, in a PostgreSQL that several hubs share. Who has the key is a hub.

mod postgres;
mod sqlite;

use axum::http::StatusCode;
use hearth_fanout::{Log, Options};
use hearth_mesh::identity::Identity;
use hearth_mesh::ticket::{Invitation as Kept, JoinProof, Use};
use hearth_protocol::event::{Snapshot, StateEvent};
use hearth_protocol::household::{Member, NodeId, Sealed};
use hearth_store::{Migration, Postgres, PostgresError, Store, sqlx};

use super::change::Refused;
use crate::state::unix_time;

/// The tables in PostgreSQL, for [`Postgres::open`].
pub(crate) const SHARED_TABLES: &[Migration] = &[hearth_fanout::POSTGRES_TABLES, postgres::TABLES];
pub(crate) use self::sqlite::TABLES;
/// The tables of tickets in the node's own database.
pub(super) use self::sqlite::forget as forget_key;

/// Where a hub's part is kept.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// In the node's own database: there is one hub.
    Own(Store),
    /// In a PostgreSQL that several hubs share.
    Shared(Postgres),
}

impl Place {
    /// The key of the household that is kept here.
    pub async fn key(&self) -> Result<Option<Identity>, Refused> {
        let secret = match self {
            Self::Own(store) => blocking(store, |store| Ok(store.read(sqlite::secret)?)).await?,
            Self::Shared(database) => postgres::secret(database.pool()).await?,
        };
        Ok(secret.map(|secret| Identity::from_secret(&secret)))
    }

    /// Keeps a household's key where there is none, and answers with the key that is there now: somebody may have been
    /// quicker.
    pub async fn claim(&self, key: &Identity) -> Result<Identity, Refused> {
        let secret = key.secret();
        match self {
            Self::Own(store) => {
                let claiming = move |store: &Store| {
                    store.write(|transaction| Ok(sqlite::claim(transaction, &secret)?))
                };
                blocking(store, claiming).await?;
            }
            Self::Shared(database) => {
                postgres::claim(database.pool(), &secret).await?;
            }
        }
        let kept = self.key().await?;
        kept.ok_or_else(|| Refused::failed("the household's key was taken away at this moment"))
    }

    /// The state log that lies here, to be appended to.
    pub async fn log(&self) -> Result<Log, Refused> {
        let options = Options::default();
        Ok(match self {
            Self::Own(store) => Log::lead(store.clone(), options).await?,
            Self::Shared(database) => Log::lead(database.clone(), options).await?,
        })
    }

    /// Forgets the key and every ticket: nobody is a hub by them any more. What is shared goes with its state log, of which
    /// a member's own copy is part otherwise.
    pub async fn forget(&self) -> Result<(), Refused> {
        match self {
            Self::Own(store) => {
                let forgetting =
                    |store: &Store| store.write(|transaction| Ok(sqlite::forget(transaction)?));
                blocking(store, forgetting).await
            }
            Self::Shared(database) => {
                let mut transaction = database.pool().begin().await?;
                Log::replace_within_postgres(&mut transaction, &Snapshot::default()).await?;
                postgres::forget(&mut *transaction).await?;
                Ok(transaction.commit().await?)
            }
        }
    }
}

/// A hub's part.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    key: Identity,
    place: Place,
}

/// Keeps every other hub from changing the household, until it is dropped.
pub(super) type Lock = Option<sqlx::Transaction<'static, sqlx::Postgres>>;

impl Registry {
    pub fn new(key: Identity, place: Place) -> Self {
        Self { key, place }
    }

    /// The household, by its key's public half.
    pub fn household(&self) -> NodeId {
        self.key.id()
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether other hubs may write beside this one.
    pub fn is_shared(&self) -> bool {
        matches!(self.place, Place::Shared(_))
    }

    /// What the household says about a member, signed, and as an event of its log.
    pub fn sealed(&self, member: &Member) -> Result<(Sealed, StateEvent), Refused> {
        let record = self.key.seal(member).map_err(Refused::failed)?;
        let event = StateEvent::Member {
            record: record.clone(),
        };
        Ok((record, event))
    }

    /// Waits until no other hub changes the household, and keeps them from it.
    pub async fn lock(&self) -> Result<Lock, Refused> {
        Ok(match &self.place {
            Place::Own(_) => None,
            Place::Shared(database) => Some(postgres::lock(database.pool()).await?),
        })
    }

    /// Keeps a ticket that a member gave out.
    pub async fn give(&self, kept: Kept, issuer: NodeId) -> Result<(), Refused> {
        match &self.place {
            Place::Own(store) => {
                let giving = move |store: &Store| {
                    store.write(|transaction| {
                        Ok(sqlite::give(transaction, &kept, Some(issuer), unix_time())?)
                    })
                };
                blocking(store, giving).await
            }
            Place::Shared(database) => {
                Ok(postgres::give(database.pool(), &kept, Some(issuer), unix_time()).await?)
            }
        }
    }

    /// Takes back the tickets that a member made and nobody used.
    pub async fn void(&self, issuer: NodeId) -> Result<(), Refused> {
        match &self.place {
            Place::Own(store) => {
                let voiding = move |store: &Store| {
                    store.write(|transaction| Ok(sqlite::void(transaction, issuer)?))
                };
                blocking(store, voiding).await
            }
            Place::Shared(database) => Ok(postgres::void(database.pool(), issuer).await?),
        }
    }

    /// Uses a ticket up and tells the log who joined with it, in one transaction.
    pub async fn admit(&self, log: &Log, asked: Admission) -> Result<(), Refused> {
        let household = self.household();
        match &self.place {
            Place::Own(store) => {
                let log = log.clone();
                let admitting = move |store: &Store| {
                    store.write(|transaction| {
                        let kept = sqlite::given(transaction, asked.proof.ticket)?;
                        if let Some(used) = asked.used(kept, &household)? {
                            sqlite::used(transaction, &used)?;
                        }
                        log.append_within(transaction, &[asked.event])?;
                        Ok(())
                    })
                };
                blocking(store, admitting).await?;
            }
            Place::Shared(database) => {
                let mut transaction = database.pool().begin().await?;
                let kept = postgres::given(&mut transaction, asked.proof.ticket).await?;
                if let Some(used) = asked.used(kept, &household)? {
                    postgres::used(&mut transaction, &used).await?;
                }
                log.append_within_postgres(&mut transaction, &[asked.event])
                    .await?;
                transaction.commit().await?;
            }
        }
        Ok(log.refresh().await?)
    }

    /// Whether this is still the key of the household that is kept there: it may have ended, and another one begun.
    pub async fn is_current(&self) -> Result<bool, Refused> {
        let key = self.place.key().await?;
        Ok(key.is_some_and(|key| key.id() == self.household()))
    }

    /// Whether a node has a ticket that is still good. It may not be any more by the time it is used.
    pub async fn has_ticket(&self, proof: &JoinProof, who: &NodeId) -> Result<(), Refused> {
        let ticket = proof.ticket;
        let kept = match &self.place {
            Place::Own(store) => {
                let looking = move |store: &Store| {
                    store.read(|transaction| Ok(sqlite::given(transaction, ticket)?))
                };
                blocking(store, looking).await?
            }
            Place::Shared(database) => {
                let mut transaction = database.pool().begin().await?;
                postgres::given(&mut transaction, ticket).await?
            }
        };
        let mut kept = kept.ok_or_else(Kept::unknown)?;
        kept.admit(proof, &self.household(), who, unix_time())?;
        Ok(())
    }

    /// Brings a hub's part, with the state log, from its own database to the one that is shared from now on, in one
    /// transaction. If it is there already, because the last time ended before it was forgotten here, what this hub said
    /// since is said there.
    pub async fn moved(self, database: Postgres) -> Result<Self, Refused> {
        let Place::Own(store) = &self.place else {
            return Ok(self);
        };
        let here = self.place.log().await?.snapshot().await?;
        let tickets = blocking(store, |store| Ok(store.read(sqlite::all)?)).await?;
        let mut transaction = postgres::lock(database.pool()).await?;
        if postgres::claim(&mut *transaction, &self.key.secret()).await? {
            // Members go on where they are: under the same cursor.
            Log::replace_within_postgres(&mut transaction, &here).await?;
        } else {
            let there = postgres::secret(&mut *transaction).await?;
            let there = there.map(|secret| Identity::from_secret(&secret).id());
            if let Some(there) = there.filter(|there| *there != self.household()) {
                return Err(Refused::elsewhere(there, self.household()));
            }
            let log = Log::lead(database.clone(), Options::default()).await?;
            for event in here.state {
                let event = [event];
                let said = log.append_within_postgres(&mut transaction, &event);
                match said.await {
                    Ok(_) | Err(hearth_fanout::Error::Stale { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        for (kept, issuer) in tickets {
            postgres::give(&mut *transaction, &kept, issuer, unix_time()).await?;
        }
        transaction.commit().await?;
        self.place.forget().await?;
        tracing::info!("the household is kept in PostgreSQL from now on");
        Ok(Self::new(self.key, Place::Shared(database)))
    }
}

/// A node that wants to join.
#[derive(Debug)]
pub(super) struct Admission {
    pub who: NodeId,
    pub proof: JoinProof,
    /// Whether it was of the household before, and was removed.
    pub is_removed: bool,
    /// What is told to all when it is in.
    pub event: StateEvent,
}

impl Admission {
    /// The ticket, used up by this; nothing if this node used it before.
    fn used(&self, kept: Option<Kept>, household: &NodeId) -> Result<Option<Kept>, Refused> {
        let mut kept = kept.ok_or_else(Kept::unknown)?;
        match kept.admit(&self.proof, household, &self.who, unix_time())? {
            Use::First => Ok(Some(kept)),
            // Its answer was lost. Who was removed since does not come back by an old ticket.
            Use::Again if self.is_removed => Err(Kept::spent().into()),
            Use::Again => Ok(None),
        }
    }
}

impl Refused {
    /// The shared database holds another household.
    pub fn elsewhere(there: NodeId, here: NodeId) -> Self {
        let message = format!(
            "database_url names the database of another household ({}), and this machine is of {}; run `hearth leave`, or set another database_url",
            there.short(),
            here.short()
        );
        Self::new(StatusCode::CONFLICT, "other_household", message)
    }
}

/// Refused because the shared database does not answer.
const UNREACHABLE: &str = "database_unreachable";

impl Refused {
    /// Whether it is for the shared database alone, which does not answer.
    pub fn is_unreachable(&self) -> bool {
        self.code == UNREACHABLE
    }

    /// Nothing comes back from the shared database.
    pub fn unanswered() -> Self {
        let message = "the database that the hubs share (database_url) does not answer in time. Look whether it runs and this machine reaches it, see with `hearth peers` how far what you asked for came, then ask again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, UNREACHABLE, message)
    }
}

impl From<PostgresError> for Refused {
    fn from(error: PostgresError) -> Self {
        let code = match error {
            PostgresError::Unreachable { .. } => UNREACHABLE,
            _ => "database_unusable",
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, error.to_string())
    }
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        // Its words may name what is nobody else's business.
        tracing::warn!(%error, "the database that the hubs share failed");
        let message = "the database that the hubs share (database_url) does not answer; nothing was changed, or all of it. The hub's log says more";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, UNREACHABLE, message)
    }
}

/// Works with the node's own database where it may block.
async fn blocking<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&Store) -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    let store = store.clone();
    let working = crate::trace::spawn_blocking(move || work(&store));
    working.await.map_err(Refused::failed)?
}
