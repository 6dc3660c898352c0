//! A process that is killed while it remembers or imports, and a disk that is full: everything that was acknowledged is
//! there and found by meaning, and the files agree after the next start.
#![allow(clippy::unwrap_used)]

mod meanings;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use hearth_memory::{Memories, Place, TABLES};
use hearth_protocol::memory::{NewMemory, Search};
use hearth_store::{Store, sqlite};
use jiff::Timestamp;
use meanings::Meanings;

/// Names the folder to the child.
const FOLDER: &str = "HEARTH_MEMORY_CRASH_FOLDER";
/// Acknowledgements after which the child is killed.
const ROUNDS: [usize; 4] = [1, 5, 20, 60];
/// Memories of one import.
const IMPORTED: usize = 300;

fn open(folder: &Path) -> Memories {
    let store = Store::open(&folder.join("db"), &[TABLES]).unwrap();
    let place = Place {
        vectors: Some(folder.join("memory.vectors")),
        encoder: Some(Meanings::new(32).source()),
    };
    Memories::open(store, place).unwrap()
}

fn text(round: usize, number: usize) -> String {
    format!("round {round} fact {number} about the automobile r{round}n{number}")
}

/// The child: remembers and imports, and says so, until it is killed. Run by the test below.
#[test]
#[ignore = "the other test runs it in a process of its own"]
fn writer() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let memories = open(Path::new(&folder));
    let round = memories.stats(Timestamp::UNIX_EPOCH).unwrap().memories as usize;
    let mut out = std::io::stdout().lock();
    for number in 0.. {
        let new = NewMemory {
            text: text(round, number),
            ..NewMemory::default()
        };
        memories.add(&new, Timestamp::UNIX_EPOCH).unwrap();
        if number % 4 == 0 {
            let path = format!("{round}-{number}.txt");
            let notes: Vec<String> = (0..IMPORTED)
                .map(|n| format!("import {path} line {n}"))
                .collect();
            let lines: Vec<String> = notes
                .iter()
                .map(|note| format!("{{\"text\": {note:?}}}"))
                .collect();
            let usual = NewMemory::default();
            let path = format!("{path}.jsonl");
            memories
                .import(
                    &path,
                    lines.join("\n").as_bytes(),
                    &usual,
                    Timestamp::UNIX_EPOCH,
                )
                .unwrap();
            memories.upkeep(&mut |_, _| true).unwrap();
        }
        writeln!(out, "wrote {round} {number}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    for count in ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["writer", "--exact", "--ignored", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The test harness may print its own words before the first line.
        let mut told = lines.map_while(Result::ok).filter_map(|line| {
            let (round, number) = line.split_once("wrote ")?.1.split_once(' ')?;
            Some((round.parse::<usize>().ok()?, number.parse::<usize>().ok()?))
        });
        let mut acknowledged: Vec<(usize, usize)> = told.by_ref().take(count).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said between the last line that was read and its end counts too.
        acknowledged.extend(told);
        let memories = open(folder.path());
        assert_eq!(memories.examine(false).unwrap().findings, []);
        for (round, number) in acknowledged {
            let text = text(round, number);
            let search = Search {
                query: text.clone(),
                limit: Some(5),
                explain: true,
                ..Search::default()
            };
            let found = memories.search(&search, Timestamp::UNIX_EPOCH).unwrap();
            let hit = found.memories.iter().find(|hit| hit.memory.text == text);
            assert!(hit.unwrap().why.unwrap().similarity.unwrap() > 0.99);
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db"), &[TABLES]).unwrap();
    let place = Place {
        vectors: Some(folder.path().join("memory.vectors")),
        encoder: Some(Meanings::new(32).source()),
    };
    let memories = Memories::open(store.clone(), place).unwrap();
    let add = |number: usize| {
        let new = NewMemory {
            text: format!("{} {}", text(0, number), "filler ".repeat(200)),
            ..NewMemory::default()
        };
        memories.add(&new, Timestamp::UNIX_EPOCH)
    };
    add(0).unwrap();
    // What SQLite says when the disk has no room for another page.
    let limit = |pages: i64| {
        let limit = move |tx: &sqlite::Transaction<'_>| {
            tx.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
        };
        store.write(limit).unwrap();
    };
    let pages: i64 = store
        .read(|tx| tx.pragma_query_value(None, "page_count", |row| row.get(0)))
        .unwrap();
    limit(pages + 4);
    let mut stored = 1;
    let error = loop {
        match add(stored) {
            Ok(_) => stored += 1,
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("full"), "{error}");
    limit(1 << 30);
    assert_eq!(
        memories.stats(Timestamp::UNIX_EPOCH).unwrap().memories,
        stored as u64
    );
    assert_eq!(memories.examine(false).unwrap().findings, []);
    add(stored).unwrap();
}
