//! A hub's part in a PostgreSQL that several hubs share.

use hearth_mesh::ticket::Invitation;
use hearth_protocol::household::NodeId;
use hearth_store::Migration;
use hearth_store::sqlx::{
    Error, Executor, PgPool, PgTransaction, Postgres, Transaction, query, query_as,
};

/// The tables.
pub(super) const TABLES: Migration = Migration {
    name: "household",
    sql: "
        CREATE TABLE household_key (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            secret BYTEA NOT NULL
        );
        CREATE TABLE household_ticket (
            key TEXT PRIMARY KEY,
            expires_at BIGINT NOT NULL,
            issuer TEXT,
            used_by TEXT
        );
    ",
};

/// Keeps two hubs from changing the household at once.
const CHANGING: i64 = i64::from_be_bytes(*b"Hrthchng");

pub(super) async fn secret(
    database: impl Executor<'_, Database = Postgres>,
) -> Result<Option<[u8; 32]>, Error> {
    let row: Option<(Vec<u8>,)> = query_as("SELECT secret FROM household_key")
        .fetch_optional(database)
        .await?;
    row.map(|(secret,)| {
        let secret: Result<[u8; 32], _> = secret.try_into();
        secret.map_err(|_| Error::Decode("the household's key has not 32 bytes".into()))
    })
    .transpose()
}

/// Keeps the key if there is none; whether there was none.
pub(super) async fn claim(
    database: impl Executor<'_, Database = Postgres>,
    secret: &[u8; 32],
) -> Result<bool, Error> {
    let done = query("INSERT INTO household_key VALUES (1, $1) ON CONFLICT DO NOTHING")
        .bind(secret.as_slice())
        .execute(database)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Forgets the key and every ticket.
pub(super) async fn forget(database: impl Executor<'_, Database = Postgres>) -> Result<(), Error> {
    query(
        "WITH tickets AS (DELETE FROM household_ticket)
         DELETE FROM household_key",
    )
    .execute(database)
    .await?;
    Ok(())
}

/// Waits for the other hubs, five seconds at the most: what they do takes milliseconds. One that vanished with the lock loses
/// it.
pub(super) async fn lock(pool: &PgPool) -> Result<Transaction<'static, Postgres>, Error> {
    let mut transaction = pool.begin().await?;
    query(
        "SELECT set_config('lock_timeout', '5s', true),
                set_config('idle_in_transaction_session_timeout', '30s', true)",
    )
    .execute(&mut *transaction)
    .await?;
    query("SELECT pg_advisory_xact_lock($1)")
        .bind(CHANGING)
        .execute(&mut *transaction)
        .await?;
    Ok(transaction)
}

/// Keeps a ticket, and forgets those that expired long ago.
pub(super) async fn give(
    database: impl Executor<'_, Database = Postgres>,
    kept: &Invitation,
    issuer: Option<NodeId>,
    now: u64,
) -> Result<(), Error> {
    query(
        "WITH old AS (DELETE FROM household_ticket WHERE expires_at < $5)
         INSERT INTO household_ticket VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
    )
    .bind(kept.ticket.to_string())
    .bind(kept.expires.cast_signed())
    .bind(issuer.map(|node| node.to_string()))
    .bind(kept.used_by.map(|node| node.to_string()))
    .bind(now.saturating_sub(7 * 24 * 3600).cast_signed())
    .execute(database)
    .await?;
    Ok(())
}

pub(super) async fn void(pool: &PgPool, issuer: NodeId) -> Result<(), Error> {
    query("DELETE FROM household_ticket WHERE issuer = $1 AND used_by IS NULL")
        .bind(issuer.to_string())
        .execute(pool)
        .await?;
    Ok(())
}

/// What is kept of a ticket. Whoever else wants to use it waits until the transaction ends.
pub(super) async fn given(
    transaction: &mut PgTransaction<'_>,
    ticket: NodeId,
) -> Result<Option<Invitation>, Error> {
    let sql = "SELECT expires_at, used_by FROM household_ticket WHERE key = $1 FOR UPDATE";
    let row: Option<(i64, Option<String>)> = query_as(sql)
        .bind(ticket.to_string())
        .fetch_optional(&mut **transaction)
        .await?;
    Ok(row.map(|(expires, used_by)| Invitation {
        ticket,
        expires: expires.cast_unsigned(),
        used_by: used_by.and_then(|node| node.parse().ok()),
    }))
}

/// Notes who joined with a ticket.
pub(super) async fn used(
    transaction: &mut PgTransaction<'_>,
    kept: &Invitation,
) -> Result<(), Error> {
    query("UPDATE household_ticket SET used_by = $2 WHERE key = $1")
        .bind(kept.ticket.to_string())
        .bind(kept.used_by.map(|node| node.to_string()))
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
