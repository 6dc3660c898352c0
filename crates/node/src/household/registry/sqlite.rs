//! A hub's part in the node's own database.

use hearth_mesh::ticket::Invitation;
use hearth_protocol::household::NodeId;
use hearth_store::Migration;
use hearth_store::sqlite::{Error, OptionalExtension, Row, Transaction};

/// The tables. Tickets have one of their own since the first version.
pub(crate) const TABLES: Migration = Migration {
    name: "household key",
    sql: "
        CREATE TABLE household_key (
            only INTEGER PRIMARY KEY CHECK (only = 1),
            secret BLOB NOT NULL
        ) STRICT;
        -- Households were named by their hub's own key, which cannot be shared; they are made anew.
        DELETE FROM ticket;
        DELETE FROM household;
        ALTER TABLE household RENAME COLUMN hub TO household;
        ALTER TABLE household ADD COLUMN hub TEXT NOT NULL DEFAULT '';
    ",
};

pub(super) fn secret(transaction: &Transaction<'_>) -> Result<Option<[u8; 32]>, Error> {
    transaction
        .query_row("SELECT secret FROM household_key", [], |row| row.get(0))
        .optional()
}

/// Keeps the key if there is none.
pub(super) fn claim(transaction: &Transaction<'_>, secret: &[u8; 32]) -> Result<(), Error> {
    transaction.execute(
        "INSERT OR IGNORE INTO household_key VALUES (1, ?1)",
        [secret],
    )?;
    Ok(())
}

/// Forgets the key and every ticket.
pub(in crate::household) fn forget(transaction: &Transaction<'_>) -> Result<(), Error> {
    transaction.execute("DELETE FROM household_key", [])?;
    transaction.execute("DELETE FROM ticket", [])?;
    Ok(())
}

/// Keeps a ticket, and forgets those that expired long ago.
pub(super) fn give(
    transaction: &Transaction<'_>,
    kept: &Invitation,
    issuer: Option<NodeId>,
    now: u64,
) -> Result<(), Error> {
    let week_ago = now.saturating_sub(7 * 24 * 3600) as i64;
    transaction.execute("DELETE FROM ticket WHERE expires_at < ?1", [week_ago])?;
    transaction.execute(
        "INSERT OR IGNORE INTO ticket (key, expires_at, issuer) VALUES (?1, ?2, ?3)",
        (
            kept.ticket.to_string(),
            kept.expires as i64,
            issuer.map(|node| node.to_string()),
        ),
    )?;
    Ok(())
}

pub(super) fn void(transaction: &Transaction<'_>, issuer: NodeId) -> Result<(), Error> {
    transaction.execute(
        "DELETE FROM ticket WHERE issuer = ?1 AND used_by IS NULL",
        [issuer.to_string()],
    )?;
    Ok(())
}

/// What is kept of a ticket.
pub(super) fn given(
    transaction: &Transaction<'_>,
    ticket: NodeId,
) -> Result<Option<Invitation>, Error> {
    let sql = "SELECT key, expires_at, used_by, issuer FROM ticket WHERE key = ?1";
    let found = transaction.query_row(sql, [ticket.to_string()], read);
    Ok(found.optional()?.flatten().map(|(kept, _)| kept))
}

/// Every ticket, with who made it.
pub(super) fn all(
    transaction: &Transaction<'_>,
) -> Result<Vec<(Invitation, Option<NodeId>)>, Error> {
    let mut query = transaction.prepare("SELECT key, expires_at, used_by, issuer FROM ticket")?;
    let rows = query.query_map([], read)?;
    rows.filter_map(Result::transpose).collect()
}

fn read(row: &Row<'_>) -> Result<Option<(Invitation, Option<NodeId>)>, Error> {
    let node = |at: usize| -> Result<Option<NodeId>, Error> {
        let text: Option<String> = row.get(at)?;
        Ok(text.and_then(|node| node.parse().ok()))
    };
    let Some(ticket) = node(0)? else {
        return Ok(None);
    };
    let kept = Invitation {
        ticket,
        expires: row.get::<_, i64>(1)?.max(0) as u64,
        used_by: node(2)?,
    };
    Ok(Some((kept, node(3)?)))
}

/// Notes who joined with a ticket.
pub(super) fn used(transaction: &Transaction<'_>, kept: &Invitation) -> Result<(), Error> {
    transaction.execute(
        "UPDATE ticket SET used_by = ?2 WHERE key = ?1",
        (
            kept.ticket.to_string(),
            kept.used_by.map(|node| node.to_string()),
        ),
    )?;
    Ok(())
}
