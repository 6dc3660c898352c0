//! PostgreSQL, for hubs that share what they store.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::Migration;

/// Connections of one process. The state log needs few: one that listens, some that read and write.
const CONNECTIONS: u32 = 8;
/// How long a request waits for a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// Keeps two processes from bringing the same database up to date at once.
const MIGRATING: i64 = i64::from_be_bytes(*b"Hrthmigr");

/// Why a PostgreSQL database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The URL is none. It is not shown, because it may hold a password.
    #[error(
        "database_url is no PostgreSQL URL; write postgres://USER:PASSWORD@HOST:PORT/DATABASE ({reason})"
    )]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answers, or the database does not let this user in.
    #[error("the PostgreSQL database {place} cannot be opened: {source}")]
    Unreachable {
        /// Host, port and database.
        place: String,
        /// What PostgreSQL said.
        source: sqlx::Error,
    },
    /// A newer Hearth wrote it.
    #[error(
        "the PostgreSQL database {place} was written by a newer Hearth (schema {found}, this one knows {known}); update \
         Hearth, or use another database"
    )]
    Newer {
        /// Host, port and database.
        place: String,
        /// Its schema.
        found: i32,
        /// The newest schema known here.
        known: i32,
    },
    /// A migration failed and was undone.
    #[error(
        "the PostgreSQL database {place} could not be brought up to date (migration `{name}`): {source}"
    )]
    Migration {
        /// Host, port and database.
        place: String,
        /// The migration.
        name: &'static str,
        /// What PostgreSQL said.
        source: sqlx::Error,
    },
}

/// An open PostgreSQL database. Cheap to clone. Each domain writes its SQL against [`Postgres::pool`].
#[derive(Debug, Clone)]
pub struct Postgres {
    pool: PgPool,
}

impl Postgres {
    /// Opens the database that the URL names, and brings it to the last of `migrations`, all of them or none. What the URL
    /// does not say, the `PG…` variables and the password file of PostgreSQL's own programs do.
    ///
    /// # Errors
    /// If it cannot be reached, or was written by a newer Hearth, which leaves it as it is.
    pub async fn open(url: &str, migrations: &[Migration]) -> Result<Self, PostgresError> {
        let options = PgConnectOptions::from_str(url).map_err(|error| PostgresError::Url {
            reason: error.to_string(),
        })?;
        let place = place(&options);
        let unreachable = |source| PostgresError::Unreachable {
            place: place.clone(),
            source,
        };
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .connect_with(options.application_name("hearth"))
            .await
            .map_err(unreachable)?;
        let mut tx = pool.begin().await.map_err(unreachable)?;
        let found = version(&mut tx).await.map_err(unreachable)?;
        let known = i32::try_from(migrations.len()).unwrap_or(i32::MAX);
        if found > known {
            return Err(PostgresError::Newer {
                place,
                found,
                known,
            });
        }
        for migration in migrations.iter().skip(found.cast_unsigned() as usize) {
            let done = sqlx::raw_sql(migration.sql).execute(&mut *tx).await;
            done.map_err(|source| PostgresError::Migration {
                place: place.clone(),
                name: migration.name,
                source,
            })?;
        }
        sqlx::query("UPDATE hearth_schema SET version = $1")
            .bind(known)
            .execute(&mut *tx)
            .await
            .map_err(unreachable)?;
        tx.commit().await.map_err(unreachable)?;
        Ok(Self { pool })
    }

    /// Its connections.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}

/// How many migrations the database has. Others wait until the transaction ends.
async fn version(tx: &mut sqlx::PgTransaction<'_>) -> Result<i32, sqlx::Error> {
    // Somebody may have vanished with the lock.
    sqlx::query("SET LOCAL lock_timeout = '10s'")
        .execute(&mut **tx)
        .await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(MIGRATING)
        .execute(&mut **tx)
        .await?;
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS hearth_schema (
             one INTEGER PRIMARY KEY CHECK (one = 1),
             version INTEGER NOT NULL
         );
         INSERT INTO hearth_schema VALUES (1, 0) ON CONFLICT DO NOTHING;",
    )
    .execute(&mut **tx)
    .await?;
    sqlx::query_scalar("SELECT version FROM hearth_schema")
        .fetch_one(&mut **tx)
        .await
}

fn place(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_default();
    format!(
        "`{database}` at {}:{}",
        options.get_host(),
        options.get_port()
    )
}
