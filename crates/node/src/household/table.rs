//! What a node keeps of its household beside the roster: which one it belongs to, and the projects whose memories
//! it lets the others search.

use hearth_protocol::household::{Address, NodeId};
use hearth_store::sqlite::{Error, OptionalExtension, Transaction};
use hearth_store::{Migration, Store};

/// The tables.
pub(crate) const TABLES: Migration = Migration {
    name: "household",
    sql: "
        CREATE TABLE household (
            only INTEGER PRIMARY KEY CHECK (only = 1),
            hub TEXT NOT NULL,
            addresses TEXT NOT NULL
        ) STRICT;
        CREATE TABLE ticket (
            key TEXT PRIMARY KEY,
            expires_at INTEGER NOT NULL,
            issuer TEXT,
            used_by TEXT
        ) STRICT;
        CREATE TABLE shared_project (
            project TEXT PRIMARY KEY
        ) STRICT;
    ",
};

/// The household that a node belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Membership {
    /// Its key's public half.
    pub household: NodeId,
    /// The hub by way of which this node joined; itself for one that founded the household.
    pub hub: NodeId,
    /// Where that hub was reached then; the roster may know better.
    pub addresses: Vec<Address>,
}

/// The membership; `None` for a node that is alone.
pub(crate) fn membership(store: &Store) -> Result<Option<Membership>, Error> {
    store.read(|transaction| {
        let row = transaction
            .query_row(
                "SELECT household, hub, addresses FROM household",
                [],
                |row| {
                    let text = |at: usize| row.get::<_, String>(at);
                    Ok((text(0)?, text(1)?, text(2)?))
                },
            )
            .optional()?;
        Ok(row.and_then(|(household, hub, addresses)| {
            Some(Membership {
                household: household.parse().ok()?,
                hub: hub.parse().ok()?,
                addresses: serde_json::from_str(&addresses).unwrap_or_default(),
            })
        }))
    })
}

/// Notes to which household this node belongs.
pub(crate) fn belong(transaction: &Transaction<'_>, membership: &Membership) -> Result<(), Error> {
    let addresses = serde_json::to_string(&membership.addresses).unwrap_or_default();
    transaction.execute(
        "INSERT OR REPLACE INTO household (only, household, hub, addresses) VALUES (1, ?1, ?2, ?3)",
        (
            membership.household.to_string(),
            membership.hub.to_string(),
            addresses,
        ),
    )?;
    Ok(())
}

/// Forgets the household.
pub(crate) fn forget(transaction: &Transaction<'_>) -> Result<(), Error> {
    transaction.execute("DELETE FROM household", [])?;
    Ok(())
}

/// The projects that others may search; the empty name stands for all, also for memories without a project.
pub(crate) fn shared_projects(store: &Store) -> Result<Vec<String>, Error> {
    store.read(|transaction| {
        let mut query =
            transaction.prepare("SELECT project FROM shared_project ORDER BY project")?;
        let rows = query.query_map([], |row| row.get(0))?;
        rows.collect()
    })
}

/// Lets others search a project, or not any more.
pub(crate) fn share_project(store: &Store, project: &str, shared: bool) -> Result<(), Error> {
    let sql = match shared {
        true => "INSERT OR IGNORE INTO shared_project (project) VALUES (?1)",
        // Nothing at all is shared where not even everything is.
        false => "DELETE FROM shared_project WHERE project = ?1 OR ?1 = ''",
    };
    store.write(|transaction| transaction.execute(sql, [project]).map(|_| ()))
}
