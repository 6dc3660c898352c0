//! A process that is killed while it writes: everything it acknowledged is there, and nothing is there by half.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use hearth_store::{Migration, Store, sqlite};

/// Names the file to the child.
const FILE: &str = "HEARTH_STORE_CRASH_FILE";
/// Writes of two rows each that are acknowledged before the child is killed.
const ROUNDS: [usize; 4] = [1, 7, 40, 150];

const PAIRS: Migration = Migration {
    name: "pairs",
    sql: "CREATE TABLE half (number INTEGER NOT NULL, side INTEGER NOT NULL, filler TEXT NOT NULL) STRICT;",
};

/// The child: writes pairs and says so, until it is killed. Run by the test below.
#[test]
#[ignore = "the other test runs it in a process of its own"]
fn writer() {
    let Some(file) = std::env::var_os(FILE) else {
        return;
    };
    let store = Store::open(Path::new(&file), &[PAIRS]).unwrap();
    let filler = "x".repeat(3_000);
    let mut out = std::io::stdout().lock();
    for number in next(&store).. {
        store
            .write(|tx| {
                for side in 0..2 {
                    let sql = "INSERT INTO half VALUES (?1, ?2, ?3)";
                    tx.execute(sql, sqlite::params![number, side, filler])?;
                }
                Ok::<_, sqlite::Error>(())
            })
            .unwrap();
        writeln!(out, "wrote {number}").unwrap();
        out.flush().unwrap();
    }
}

/// The first number that is not there; every smaller one must be there twice.
fn next(store: &Store) -> i64 {
    let (pairs, halves, last): (i64, i64, i64) = store
        .read(|tx| {
            let sql =
                "SELECT count(DISTINCT number), count(*), coalesce(max(number), -1) FROM half";
            tx.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        })
        .unwrap();
    assert_eq!((pairs, halves), (last + 1, 2 * (last + 1)));
    last + 1
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hearth.db");
    for round in ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["writer", "--exact", "--ignored", "--nocapture"])
            .env(FILE, &file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut acknowledged = None;
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The test harness may print its own words before the first line.
        let mut numbers = lines.map_while(Result::ok).filter_map(|line| {
            let (_, number) = line.split_once("wrote ")?;
            number.parse::<i64>().ok()
        });
        for number in numbers.by_ref().take(round) {
            acknowledged = Some(number);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said between the last line that was read and its end counts too.
        acknowledged = numbers.last().or(acknowledged);
        let store = Store::open(&file, &[PAIRS]).unwrap();
        let there = next(&store);
        assert!(there > acknowledged.unwrap(), "{there} {acknowledged:?}");
        let sound: String = store
            .read(|tx| tx.pragma_query_value(None, "integrity_check", |row| row.get(0)))
            .unwrap();
        assert_eq!(sound, "ok");
    }
}
