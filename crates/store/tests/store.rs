//! Transactions, migrations, and files that are not what they should be.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::mpsc;

use hearth_store::sqlite::{self, params};
use hearth_store::{Migration, OpenError, Store};
use tempfile::TempDir;

const NOTES: Migration = Migration {
    name: "notes",
    sql: "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;",
};
const TAGS: Migration = Migration {
    name: "tags",
    sql: "CREATE TABLE tag (note INTEGER NOT NULL REFERENCES note (id) ON DELETE CASCADE, name TEXT NOT NULL) STRICT;
          INSERT INTO tag SELECT id, 'old' FROM note;",
};

fn add(store: &Store, text: &str) -> sqlite::Result<()> {
    store.write(|tx| {
        tx.execute("INSERT INTO note (text) VALUES (?1)", [text])?;
        Ok(())
    })
}

fn notes(store: &Store) -> Vec<String> {
    store
        .read(|tx| {
            let mut all = tx.prepare_cached("SELECT text FROM note ORDER BY id")?;
            all.query_map([], |row| row.get(0))?
                .collect::<sqlite::Result<_>>()
        })
        .unwrap()
}

struct Place {
    _folder: TempDir,
    file: PathBuf,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("home/hearth.db");
    Place {
        _folder: folder,
        file,
    }
}

#[test]
fn the_library_is_new_enough() {
    // Before it, two connections could break a write-ahead log while it was reset.
    assert!(
        sqlite::version_number() >= 3_051_003,
        "{}",
        sqlite::version()
    );
}

#[test]
fn what_is_written_is_there_after_opening_again() {
    let place = place();
    add(&Store::open(&place.file, &[NOTES]).unwrap(), "one").unwrap();
    assert_eq!(notes(&Store::open(&place.file, &[NOTES]).unwrap()), ["one"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = place.file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "nobody else reads it");
    }
}

#[test]
fn an_error_or_a_panic_undoes_the_transaction() {
    for store in [
        Store::in_memory(&[NOTES]).unwrap(),
        Store::open(&place().file, &[NOTES]).unwrap(),
    ] {
        add(&store, "kept").unwrap();
        let failed = store.write(|tx| {
            tx.execute("INSERT INTO note (text) VALUES ('lost')", [])?;
            tx.execute("INSERT INTO nowhere VALUES (1)", [])
        });
        assert!(failed.is_err());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            store.write::<(), sqlite::Error>(|tx| {
                tx.execute("INSERT INTO note (text) VALUES ('lost')", [])?;
                panic!("in the middle");
            })
        }));
        assert!(panicked.is_err());
        add(&store, "more").unwrap();
        assert_eq!(notes(&store), ["kept", "more"]);
    }
}

#[test]
fn a_reader_sees_one_state_and_does_not_wait_for_the_writer() {
    let place = place();
    let store = Store::open(&place.file, &[NOTES]).unwrap();
    add(&store, "one").unwrap();
    let (written, read) = (mpsc::channel(), mpsc::channel());
    let writer = {
        let store = store.clone();
        std::thread::spawn(move || {
            store
                .write::<_, sqlite::Error>(|tx| {
                    tx.execute("INSERT INTO note (text) VALUES ('two')", [])?;
                    written.0.send(()).unwrap();
                    // The reader is done before the writer commits.
                    read.1.recv().unwrap();
                    Ok(())
                })
                .unwrap();
        })
    };
    written.1.recv().unwrap();
    assert_eq!(notes(&store), ["one"]);
    read.0.send(()).unwrap();
    writer.join().unwrap();
    assert_eq!(notes(&store), ["one", "two"]);
}

#[test]
fn readers_cannot_write_and_references_hold() {
    let place = place();
    let store = Store::open(&place.file, &[NOTES, TAGS]).unwrap();
    assert!(store.read(|tx| tx.execute("DELETE FROM note", [])).is_err());
    let lone = store.write(|tx| tx.execute("INSERT INTO tag VALUES (?1, ?2)", params![9, "x"]));
    assert!(lone.is_err());
}

#[test]
fn migrations_run_once_in_order_and_a_broken_one_changes_nothing() {
    let place = place();
    add(&Store::open(&place.file, &[NOTES]).unwrap(), "one").unwrap();
    let broken = Migration {
        name: "broken",
        sql: "CREATE TABLE half (x INTEGER) STRICT; INSERT INTO nowhere VALUES (1);",
    };
    let error = Store::open(&place.file, &[NOTES, broken]).unwrap_err();
    assert!(
        matches!(error, OpenError::Migration { name: "broken", .. }),
        "{error}"
    );

    for _ in 0..2 {
        let store = Store::open(&place.file, &[NOTES, TAGS]).unwrap();
        let tags: i64 = store
            .read(|tx| tx.query_row("SELECT count(*) FROM tag", [], |row| row.get(0)))
            .unwrap();
        assert_eq!(tags, 1);
        let half: i64 = store
            .read(|tx| {
                let half = "SELECT count(*) FROM sqlite_schema WHERE name = 'half'";
                tx.query_row(half, [], |row| row.get(0))
            })
            .unwrap();
        assert_eq!(half, 0);
    }
}

#[test]
fn a_newer_schema_is_refused() {
    let place = place();
    add(&Store::open(&place.file, &[NOTES, TAGS]).unwrap(), "one").unwrap();
    let error = Store::open(&place.file, &[NOTES]).unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::Newer {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("update Hearth"), "{error}");
    assert_eq!(
        notes(&Store::open(&place.file, &[NOTES, TAGS]).unwrap()),
        ["one"]
    );
}

#[test]
fn a_file_that_is_no_database_of_ours_is_refused_and_left_alone() {
    let place = place();
    let folder = place.file.parent().unwrap();
    std::fs::create_dir_all(folder).unwrap();
    let text = "not a database, ".repeat(400);
    std::fs::write(&place.file, &text).unwrap();
    let error = Store::open(&place.file, &[NOTES]).unwrap_err();
    assert!(matches!(error, OpenError::NotADatabase { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&place.file).unwrap(), text);

    let other = folder.join("other.db");
    let theirs = sqlite::Connection::open(&other).unwrap();
    theirs
        .execute_batch("CREATE TABLE song (title TEXT)")
        .unwrap();
    drop(theirs);
    let before = std::fs::read(&other).unwrap();
    let error = Store::open(&other, &[NOTES]).unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert_eq!(std::fs::read(&other).unwrap(), before);

    let error = Store::open(folder, &[NOTES]).unwrap_err();
    assert!(matches!(error, OpenError::File { .. }), "{error}");
}

#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    let place = place();
    let store = Store::open(&place.file, &[NOTES]).unwrap();
    add(&store, "kept").unwrap();
    store
        .write(|tx| {
            let pages: i64 = tx.pragma_query_value(None, "page_count", |row| row.get(0))?;
            tx.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
        })
        .unwrap();
    let error = add(&store, &"x".repeat(100_000)).unwrap_err();
    assert_eq!(
        error.sqlite_error_code(),
        Some(sqlite::ErrorCode::DiskFull),
        "{error}"
    );
    assert_eq!(notes(&store), ["kept"]);
    add(&store, "small").unwrap();
    assert_eq!(notes(&store), ["kept", "small"]);
}

#[test]
fn two_stores_of_one_file_take_turns() {
    let place = place();
    let each = std::iter::repeat_with(|| Store::open(&place.file, &[NOTES]).unwrap()).take(2);
    let threads: Vec<_> = each
        .map(|store| std::thread::spawn(move || (0..40).for_each(|_| add(&store, "turn").unwrap())))
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(
        notes(&Store::open(&place.file, &[NOTES]).unwrap()).len(),
        80
    );
}
