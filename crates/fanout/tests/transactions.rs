//! Events that commit together with somebody else's tables, and hubs that share one PostgreSQL.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures_util::FutureExt;
use hearth_fanout::{Error, Log, Options};
use hearth_protocol::event::{Cursor, StateEvent};
use hearth_protocol::household::{NodeId, Sealed};
use hearth_store::{Migration, Store, sqlite};

const NOTES: Migration = Migration {
    name: "notes",
    sql: "CREATE TABLE note (text TEXT NOT NULL);",
};

fn member(version: u64) -> StateEvent {
    let node = NodeId([1; 32]);
    StateEvent::Member {
        record: Sealed {
            text: format!(r#"{{"node":"{node}","version":{version}}}"#),
            signature: String::new(),
        },
    }
}

#[tokio::test]
async fn events_commit_with_other_tables_in_sqlite() {
    let store = Store::in_memory(&[NOTES, hearth_fanout::SQLITE_TABLES]).unwrap();
    let log = Log::lead(store.clone(), Options::default()).await.unwrap();
    let mut subscription = log.subscribe(None).await.unwrap();
    let write = |version, kept: bool| {
        store.write(|tx| {
            tx.execute("INSERT INTO note VALUES ('joined')", [])?;
            let cursor = log.append_within(tx, &[member(version)])?;
            if kept {
                Ok(cursor)
            } else {
                Err(Error::ShuttingDown)
            }
        })
    };
    let first = write(1, true).unwrap();
    log.refresh().await.unwrap();
    assert_eq!(subscription.next().await.unwrap().cursor, first);

    write(2, false).unwrap_err();
    log.refresh().await.unwrap();
    assert!(subscription.next().now_or_never().is_none());
    let stale = write(1, true).unwrap_err();
    assert!(matches!(stale, Error::Stale { .. }), "{stale}");
    let second = write(2, true).unwrap();
    assert_eq!(second.offset, 2);
    log.refresh().await.unwrap();
    assert_eq!(subscription.next().await.unwrap().cursor, second);
    let notes: i64 = store
        .read(|tx| tx.query_row("SELECT count(*) FROM note", [], |row| row.get(0)))
        .map_err(|error: sqlite::Error| error)
        .unwrap();
    assert_eq!(notes, 2);
}

#[cfg(unix)]
mod postgres {
    use hearth_store::{Postgres, sqlx};

    use super::*;

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        let patience = Duration::from_secs(30);
        tokio::time::timeout(patience, future).await.unwrap()
    }

    async fn open(url: &str) -> Postgres {
        let tables = [NOTES, hearth_fanout::POSTGRES_TABLES];
        Postgres::open(url, &tables).await.unwrap()
    }

    async fn hub(url: &str, poll: Duration) -> Log {
        let options = Options {
            poll,
            ..Options::default()
        };
        Log::lead(open(url).await, options).await.unwrap()
    }

    /// All on one cluster, which takes a second to start.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn hubs_that_share_one() {
        let cluster = hearth_testkit::postgres::Postgres::start();
        a_late_commit_is_not_skipped(&cluster.database()).await;
        a_lost_notification_loses_no_event(&cluster.database()).await;
        a_notification_is_enough(&cluster.database()).await;
        a_lost_connection_is_made_again(&cluster.database()).await;
    }

    /// Two hubs' transactions overlap. Whoever reads by offsets must not see the later one first.
    async fn a_late_commit_is_not_skipped(url: &str) {
        let database = open(url).await;
        let first = hub(url, Duration::from_secs(600)).await;
        let second = hub(url, Duration::from_secs(600)).await;
        let mut subscription = second.subscribe(Some(Cursor::START)).await.unwrap();

        let mut tx = database.pool().begin().await.unwrap();
        sqlx::query("INSERT INTO note VALUES ('joined')")
            .execute(&mut *tx)
            .await
            .unwrap();
        let early = [member(1)];
        let early = first.append_within_postgres(&mut tx, &early).await.unwrap();
        let late = tokio::spawn({
            let second = second.clone();
            async move { second.append(&[member(2)]).await }
        });
        // It waits for the first one's lock; PostgreSQL says so.
        session(&database, "wait_event_type = 'Lock'").await;
        second.refresh().await.unwrap();
        assert!(subscription.next().now_or_never().is_none());
        tx.commit().await.unwrap();
        let late = soon(late).await.unwrap().unwrap();
        assert_eq!((early.offset, late.offset), (1, 2));
        assert_eq!(subscription.next().await.unwrap().cursor, early);
        assert_eq!(subscription.next().await.unwrap().cursor, late);

        // One that is undone leaves no gap.
        let mut tx = database.pool().begin().await.unwrap();
        let undone = [member(3)];
        let undone = first.append_within_postgres(&mut tx, &undone).await;
        assert_eq!(undone.unwrap().offset, 3);
        tx.rollback().await.unwrap();
        assert_eq!(second.append(&[member(3)]).await.unwrap().offset, 3);
        let stale = first.append(&[member(3)]).await.unwrap_err();
        assert!(matches!(stale, Error::Stale { .. }), "{stale}");
    }

    /// What a hub does that writes and then dies before anybody is woken.
    async fn a_lost_notification_loses_no_event(url: &str) {
        let log = hub(url, Duration::from_millis(20)).await;
        let mut subscription = log.subscribe(None).await.unwrap();
        let keeping = tokio::spawn({
            let log = log.clone();
            async move { log.keep_up().await }
        });
        let database = open(url).await;
        sqlx::raw_sql(
            r#"INSERT INTO fanout_event VALUES (1, 9, 'member', '{"kind":"member"}');
               UPDATE fanout_log SET end_epoch = 9, end_place = 1;"#,
        )
        .execute(database.pool())
        .await
        .unwrap();
        let frame = soon(subscription.next()).await.unwrap();
        assert_eq!(
            frame.cursor,
            Cursor {
                epoch: 9,
                offset: 1
            }
        );
        keeping.abort();
    }

    async fn a_notification_is_enough(url: &str) {
        let log = hub(url, Duration::from_secs(600)).await;
        let mut subscription = log.subscribe(None).await.unwrap();
        let keeping = tokio::spawn({
            let log = log.clone();
            async move { log.keep_up().await }
        });
        listening(&open(url).await).await;
        let other = hub(url, Duration::from_secs(600)).await;
        for version in 1..=3 {
            let cursor = other.append(&[member(version)]).await.unwrap();
            assert_eq!(soon(subscription.next()).await.unwrap().cursor, cursor);
        }
        keeping.abort();
    }

    async fn a_lost_connection_is_made_again(url: &str) {
        let log = hub(url, Duration::from_millis(20)).await;
        let mut subscription = log.subscribe(None).await.unwrap();
        let keeping = tokio::spawn({
            let log = log.clone();
            async move { log.keep_up().await }
        });
        let database = open(url).await;
        listening(&database).await;
        let other = hub(url, Duration::from_secs(600)).await;
        for version in 1..=3 {
            sqlx::query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND query LIKE 'LISTEN%'",
            )
            .execute(database.pool())
            .await
            .unwrap();
            let cursor = other.append(&[member(version)]).await.unwrap();
            assert_eq!(soon(subscription.next()).await.unwrap().cursor, cursor);
        }
        keeping.abort();
    }

    /// Until somebody hears of what is written.
    async fn listening(database: &Postgres) {
        session(database, "query LIKE 'LISTEN%' AND state = 'idle'").await;
    }

    /// Until there is a session of this database of which this is true.
    async fn session(database: &Postgres, is: &'static str) {
        let sessions = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {is}"
        );
        soon(async {
            while sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(sessions.as_str()))
                .fetch_one(database.pool())
                .await
                .unwrap()
                == 0
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}
