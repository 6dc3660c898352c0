//! PostgreSQL: migrations, and databases that are not what they should be.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use hearth_store::{Migration, Postgres, PostgresError, sqlx};

const NOTES: Migration = Migration {
    name: "notes",
    sql: "CREATE TABLE note (id INTEGER PRIMARY KEY); INSERT INTO note VALUES (1);",
};
const TAGS: Migration = Migration {
    name: "tags",
    sql: "CREATE TABLE tag (note INTEGER); INSERT INTO tag SELECT id FROM note;",
};

async fn count(database: &Postgres, table: &'static str) -> i64 {
    let sql = match table {
        "note" => "SELECT count(*) FROM note",
        _ => "SELECT count(*) FROM tag",
    };
    sqlx::query_scalar(sql)
        .fetch_one(database.pool())
        .await
        .unwrap()
}

/// All on one cluster, which takes a second to start.
#[tokio::test]
async fn databases_are_brought_up_to_date_or_refused() {
    let cluster = hearth_testkit::postgres::Postgres::start();
    let url = cluster.database();

    // Migrations run once, in order; two processes at once take turns.
    Postgres::open(&url, &[NOTES]).await.unwrap();
    let (first, second) = tokio::join!(
        Postgres::open(&url, &[NOTES, TAGS]),
        Postgres::open(&url, &[NOTES, TAGS]),
    );
    assert_eq!(count(&first.unwrap(), "tag").await, 1);
    assert_eq!(count(&second.unwrap(), "note").await, 1);

    // A newer schema is refused, and left as it is.
    let error = Postgres::open(&url, &[NOTES]).await.unwrap_err();
    let said = error.to_string();
    let newer = matches!(
        error,
        PostgresError::Newer {
            found: 2,
            known: 1,
            ..
        }
    );
    assert!(newer && said.contains("update Hearth"), "{said}");
    let same = Postgres::open(&url, &[NOTES, TAGS]).await.unwrap();
    assert_eq!(count(&same, "tag").await, 1);

    // A broken migration changes nothing, not even those before it.
    let broken = Migration {
        name: "broken",
        sql: "CREATE TABLE half (x INTEGER); INSERT INTO nowhere VALUES (1);",
    };
    let url = cluster.database();
    let error = Postgres::open(&url, &[NOTES, broken]).await.unwrap_err();
    let named = matches!(error, PostgresError::Migration { name: "broken", .. });
    assert!(named, "{error}");
    Postgres::open(&url, &[NOTES, TAGS]).await.unwrap();

    // What cannot be opened; a password is never shown.
    let missing = url.replace("test1", "nowhere");
    let error = Postgres::open(&missing, &[NOTES]).await.unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("nowhere") && said.contains("does not exist"),
        "{said}"
    );
    for wrong in ["nonsense", "postgres://user:secret@:port/x", ""] {
        let error = Postgres::open(wrong, &[NOTES]).await.unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("database_url") && !said.contains("secret"),
            "{said}"
        );
    }
}
