//! What a node keeps of its household beside the roster: which one it belongs to, the tickets it gave out, and the
//! projects whose memories it lets the others search.

use hearth_mesh::ticket::Invitation;
use hearth_protocol::household::{Address, NodeId};
use hearth_store::sqlite::{Error, OptionalExtension, Row, Transaction};
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
    /// Its hub.
    pub hub: NodeId,
    /// Where the hub was reached when this node joined; the roster may know better.
    pub addresses: Vec<Address>,
}

/// The membership; `None` for a node that is alone.
pub(crate) fn membership(store: &Store) -> Result<Option<Membership>, Error> {
    store.read(|transaction| {
        let row = transaction
            .query_row("SELECT hub, addresses FROM household", [], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })
            .optional()?;
        Ok(row.and_then(|(hub, addresses)| {
            Some(Membership {
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
        "INSERT OR REPLACE INTO household (only, hub, addresses) VALUES (1, ?1, ?2)",
        (membership.hub.to_string(), addresses),
    )?;
    Ok(())
}

/// Forgets the household and every ticket.
pub(crate) fn forget(transaction: &Transaction<'_>) -> Result<(), Error> {
    transaction.execute("DELETE FROM household", [])?;
    transaction.execute("DELETE FROM ticket", [])?;
    Ok(())
}

/// Keeps a ticket that is given out, by a member or (`None`) by the hub itself, and forgets those that expired long ago.
pub(crate) fn give(
    transaction: &Transaction<'_>,
    invitation: &Invitation,
    issuer: Option<NodeId>,
    now: u64,
) -> Result<(), Error> {
    let week_ago = now.saturating_sub(7 * 24 * 3600) as i64;
    transaction.execute("DELETE FROM ticket WHERE expires_at < ?1", [week_ago])?;
    transaction.execute(
        "INSERT OR IGNORE INTO ticket (key, expires_at, issuer) VALUES (?1, ?2, ?3)",
        (
            invitation.ticket.to_string(),
            invitation.expires as i64,
            issuer.map(|node| node.to_string()),
        ),
    )?;
    Ok(())
}

/// Takes back the tickets that a member made and nobody used.
pub(crate) fn void(transaction: &Transaction<'_>, issuer: NodeId) -> Result<(), Error> {
    transaction.execute(
        "DELETE FROM ticket WHERE issuer = ?1 AND used_by IS NULL",
        [issuer.to_string()],
    )?;
    Ok(())
}

/// What is kept of a ticket.
pub(crate) fn given(
    transaction: &Transaction<'_>,
    ticket: NodeId,
) -> Result<Option<Invitation>, Error> {
    let sql = "SELECT expires_at, used_by FROM ticket WHERE key = ?1";
    let read = |row: &Row<'_>| {
        let used_by: Option<String> = row.get(1)?;
        Ok(Invitation {
            ticket,
            expires: row.get::<_, i64>(0)?.max(0) as u64,
            used_by: used_by.and_then(|node| node.parse().ok()),
        })
    };
    let found = transaction.query_row(sql, [ticket.to_string()], read);
    found.optional()
}

/// Notes who joined with a ticket.
pub(crate) fn used(transaction: &Transaction<'_>, invitation: &Invitation) -> Result<(), Error> {
    transaction.execute(
        "UPDATE ticket SET used_by = ?2 WHERE key = ?1",
        (
            invitation.ticket.to_string(),
            invitation.used_by.map(|node| node.to_string()),
        ),
    )?;
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
