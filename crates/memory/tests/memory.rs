//! What a person's tools may count on: gate, search, lineage, tiers, several processes, files that break.

#![allow(clippy::unwrap_used, clippy::type_complexity)]

mod exchange;
mod meanings;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hearth_memory::{Embed, Error, Memories, Place, Source, TABLES};
use hearth_protocol::memory::{Change, Exported, Imported, Memory, NewMemory, Outcome, Search};
use hearth_store::Store;
use jiff::{SignedDuration, Timestamp};
use meanings::Meanings;
use tempfile::TempDir;

/// A store in a folder.
struct Home {
    folder: TempDir,
}

impl Home {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn vectors(&self) -> PathBuf {
        self.folder.path().join("memory.vectors")
    }

    fn store(&self) -> Store {
        Store::open(&self.folder.path().join("db"), &[TABLES]).unwrap()
    }

    fn open(&self, encoder: Option<Arc<dyn Embed>>) -> Memories {
        let place = Place {
            vectors: Some(self.vectors()),
            encoder: encoder.map(|encoder| -> Source { Arc::new(move || Ok(encoder.clone())) }),
        };
        Memories::open(self.store(), place).unwrap()
    }

    fn meaning(&self) -> Memories {
        self.open(Some(Meanings::new(96)))
    }
}

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

fn new(text: &str) -> NewMemory {
    NewMemory {
        text: text.into(),
        ..NewMemory::default()
    }
}

fn of(project: &str, text: &str) -> NewMemory {
    NewMemory {
        project: Some(project.into()),
        ..new(text)
    }
}

fn add(memories: &Memories, text: &str) -> Memory {
    let written = memories.add(&new(text), now()).unwrap();
    assert_ne!(written.outcome, Outcome::Recalled, "{text}");
    written.memory
}

fn query(text: &str) -> Search {
    Search {
        query: text.into(),
        ..Search::default()
    }
}

fn texts(memories: &Memories, search: &Search) -> Vec<String> {
    let found = memories.search(search, now()).unwrap();
    assert_eq!(found.count, found.memories.len());
    found
        .memories
        .into_iter()
        .map(|hit| hit.memory.text)
        .collect()
}

fn first(memories: &Memories, text: &str) -> Option<String> {
    texts(memories, &query(text)).into_iter().next()
}

#[test]
fn what_was_written_is_found_by_meaning_and_by_words_and_says_why() {
    let home = Home::new();
    let memories = home.meaning();
    add(&memories, "The automobile is in the garage");
    add(&memories, "Tests run with nextest");
    assert_eq!(
        first(&memories, "where is my car").unwrap(),
        "The automobile is in the garage"
    );
    assert_eq!(
        first(&memories, "nextest").unwrap(),
        "Tests run with nextest"
    );
    let search = Search {
        explain: true,
        limit: Some(1),
        ..query("which vehicle")
    };
    let found = memories.search(&search, now()).unwrap();
    let why = found.memories[0].why.unwrap();
    assert!(
        why.similarity.unwrap() > 0.2 && why.words.is_none(),
        "{why:?}"
    );
    assert_eq!(found.words_only, None);
}

#[test]
fn what_has_nothing_to_do_with_the_query_is_no_result() {
    let home = Home::new();
    let memories = home.meaning();
    add(&memories, "The automobile is in the garage");
    add(&memories, "Purchase of a boat");
    assert_eq!(
        texts(&memories, &query("which vehicle")),
        ["The automobile is in the garage"]
    );
    assert_eq!(texts(&memories, &query("quarterly taxes")).len(), 0);
    // A word of it is enough, whatever the vectors say.
    assert_eq!(
        texts(&memories, &query("quarterly taxes for some boat")),
        ["Purchase of a boat"]
    );
}

#[test]
fn an_id_may_be_said_by_its_first_digits() {
    let home = Home::new();
    let memories = home.meaning();
    let all: Vec<String> = (0..300)
        .map(|n| add(&memories, &format!("note number {n}")).id)
        .collect();
    let begins = |start: &str| all.iter().filter(|id| id.starts_with(start)).count();
    let some = &all[0];
    let length = (8..some.len()).find(|end| begins(&some[..*end]) == 1);
    let start = &some[..length.unwrap()];
    assert_eq!(&memories.get(start, now()).unwrap().id, some);
    assert_eq!(&memories.get(&start[4..], now()).unwrap().id, some);
    let pin = Change {
        pinned: Some(true),
        ..Change::default()
    };
    let pinned = memories.change(start, &pin, now()).unwrap();
    assert_eq!((&pinned.id, pinned.pinned), (some, true));
    let newer = NewMemory {
        supersedes: Some(start.into()),
        ..new("another note")
    };
    let newer = memories.add(&newer, now()).unwrap().memory;
    assert_eq!(newer.supersedes, [some.as_str()]);
    assert!(newer.pinned, "what was pinned stays so in newer words");
    let unpin = Change {
        text: Some("a third note".into()),
        pinned: Some(false),
        ..Change::default()
    };
    assert!(!memories.change(&newer.id, &unpin, now()).unwrap().pinned);
    // Too few digits, and none of an id.
    for none in ["mem-", &some[..7], &some[4..7], "mem-%", "mem-0000%"] {
        assert!(
            matches!(memories.get(none, now()), Err(Error::Unknown(_))),
            "{none}"
        );
    }
    assert_eq!(memories.forget(start).unwrap().id, *some);
    assert!(matches!(memories.get(start, now()), Err(Error::Unknown(_))));
    // Several begin so.
    let line = |digit: char| {
        let id = format!("mem-abcd{}{digit}", "0".repeat(27));
        let memory = Memory {
            id,
            text: format!("restored {digit}"),
            supersedes: Vec::new(),
            ..newer.clone()
        };
        serde_json::to_string(&memory).unwrap()
    };
    let lines: Vec<String> = "12345".chars().map(line).collect();
    memories
        .import(
            "e.jsonl",
            lines.join("\n").as_bytes(),
            &NewMemory::default(),
            now(),
        )
        .unwrap();
    let error = memories.forget("mem-abcd0").unwrap_err().to_string();
    assert!(
        error.starts_with("id: several ids begin with mem-abcd0: mem-abcd0") && error.contains("…"),
        "{error}"
    );
}

#[test]
fn without_an_encoder_words_find_and_the_answer_says_so() {
    let home = Home::new();
    let memories = home.open(None);
    add(&memories, "The automobile is in the garage");
    assert_eq!(
        first(&memories, "garages").unwrap(),
        "The automobile is in the garage"
    );
    assert_eq!(first(&memories, "car"), None);
    let found = memories.search(&query("garage"), now()).unwrap();
    assert!(found.words_only.unwrap().contains("words alone"));
    let stats = memories.stats(now()).unwrap();
    assert_eq!(
        (stats.memories, stats.unencoded, stats.encoder),
        (1, 1, None)
    );
}

#[test]
fn an_encoder_that_comes_later_or_another_one_makes_the_vectors_anew() {
    let home = Home::new();
    add(&home.open(None), "The automobile is in the garage");
    for dimensions in [96, 64, 96] {
        let memories = home.open(Some(Meanings::new(dimensions)));
        assert_eq!(memories.stats(now()).unwrap().unencoded, 1);
        // Until then words find it.
        assert!(first(&memories, "garage").is_some());
        let mut told = Vec::new();
        memories
            .upkeep(&mut |done, left| {
                told.push((done, left));
                true
            })
            .unwrap();
        assert_eq!(told, [(1, 0)]);
        assert!(first(&memories, "car").is_some(), "{dimensions}");
    }
}

#[test]
fn an_encoder_is_opened_when_it_is_first_needed_and_looked_for_until_it_is_there() {
    let home = Home::new();
    let there = Arc::new(AtomicBool::new(false));
    let opened = Arc::new(AtomicUsize::new(0));
    let source: Source = {
        let (there, opened) = (Arc::clone(&there), Arc::clone(&opened));
        Arc::new(move || match there.load(Ordering::SeqCst) {
            true => {
                opened.fetch_add(1, Ordering::SeqCst);
                Ok(Meanings::new(96))
            }
            false => Err("fetch one".into()),
        })
    };
    let place = Place {
        vectors: Some(home.vectors()),
        encoder: Some(source),
    };
    let memories = Memories::open(home.store(), place).unwrap();
    add(&memories, "The automobile is in the garage");
    let found = memories.search(&query("car"), now()).unwrap();
    assert_eq!(
        (found.count, found.words_only.as_deref()),
        (0, Some("fetch one"))
    );
    there.store(true, Ordering::SeqCst);
    memories.upkeep(&mut |_, _| true).unwrap();
    assert!(first(&memories, "car").is_some());
    add(&memories, "The vehicle needs new tyres");
    assert_eq!(memories.stats(now()).unwrap().unencoded, 0);
    assert_eq!(opened.load(Ordering::SeqCst), 1);
}

#[test]
fn two_processes_with_two_encoders_do_not_mix_their_vectors() {
    let home = Home::new();
    let one = home.open(Some(Meanings::new(96)));
    add(&one, "The automobile is in the garage");
    assert!(first(&one, "car").is_some());
    let other = home.open(Some(Meanings::new(64)));
    assert_eq!(other.stats(now()).unwrap().unencoded, 1);
    other.upkeep(&mut |_, _| true).unwrap();
    assert!(first(&other, "car").is_some());
    // Vectors are the other's now: this one finds by words and says so, and what it remembers waits for the other's
    // upkeep.
    let found = one.search(&query("car"), now()).unwrap();
    assert_eq!(found.count, 0);
    assert!(found.words_only.unwrap().contains("another encoder"));
    let stats = one.stats(now()).unwrap();
    assert!(stats.encoder.is_none() && stats.words_only.unwrap().contains("another encoder"));
    assert_eq!(other.stats(now()).unwrap().encoder.unwrap(), "meanings");
    assert!(one.upkeep(&mut |_, _| true).is_ok());
    add(&one, "Purchase of a boat");
    assert!(first(&one, "boats").is_some());
    assert_eq!(other.stats(now()).unwrap().unencoded, 1);
    // What this one cannot encode keeps it from nothing else.
    let secret = add(&one, "Xylophone is the passphrase");
    let log = || home.folder.path().join("db-wal").metadata().unwrap().len();
    let forget = |tx: &hearth_store::sqlite::Transaction<'_>| {
        // Somebody reads, so that the log cannot be emptied at once.
        tx.query_row("SELECT count(*) FROM memory", [], |_| Ok(()))?;
        one.forget(&secret.id).unwrap();
        Ok::<(), hearth_store::sqlite::Error>(())
    };
    home.store().read(forget).unwrap();
    assert_ne!(log(), 0);
    let error = one.upkeep(&mut |_, _| true).unwrap_err();
    assert!(error.to_string().contains("another encoder"), "{error}");
    assert_eq!(log(), 0);
    other.upkeep(&mut |_, _| true).unwrap();
    assert_eq!(first(&other, "buy").unwrap(), "Purchase of a boat");
}

#[test]
fn the_same_text_is_merged_and_nearly_the_same_is_linked() {
    let home = Home::new();
    let memories = home.meaning();
    let one = memories
        .add(
            &NewMemory {
                tags: vec!["net".into()],
                confidence: Some(0.5),
                ..new("The port of the server is 8321.")
            },
            now(),
        )
        .unwrap();
    assert_eq!(one.outcome, Outcome::Stored);
    let again = memories
        .add(
            &NewMemory {
                tags: vec!["hearth".into()],
                pinned: true,
                ..new("the  port of the server is 8321")
            },
            now(),
        )
        .unwrap();
    assert_eq!(
        (again.outcome, &again.memory.id),
        (Outcome::Merged, &one.memory.id)
    );
    assert_eq!(again.memory.tags, ["hearth", "net"]);
    assert!(again.memory.pinned && again.memory.confidence == 1.0);
    // Another number is another fact, whatever the vectors say.
    let near = memories
        .add(&new("The socket of the server is 8321"), now())
        .unwrap();
    assert_eq!(near.outcome, Outcome::Linked);
    assert_eq!(near.memory.related, [one.memory.id.as_str()]);
    let one = memories.get(&one.memory.id, now()).unwrap();
    assert_eq!(one.related, [near.memory.id.as_str()]);
}

#[test]
fn recalled_text_is_not_stored_again() {
    let home = Home::new();
    for memories in [home.meaning(), home.open(None)] {
        let long = "We keep everything in one SQLite file. It is easy to back up and to move";
        add(&memories, long);
        let cited = "it is easy to back up and to move";
        let quoted = format!("> - [mem-0123] {long}.\n> - [mem-4567] {cited}");
        // Nobody was told it yet: two people may think the same.
        assert_ne!(
            memories
                .add(&of("other", "We keep everything in one SQLite file"), now())
                .unwrap()
                .outcome,
            Outcome::Recalled
        );
        memories.search(&query("sqlite file"), now()).unwrap();
        for text in [cited, quoted.as_str()] {
            let written = memories.add(&new(text), now()).unwrap();
            assert_eq!(
                (written.outcome, written.memory.text.as_str()),
                (Outcome::Recalled, long)
            );
        }
        // With something new in it, it is new.
        let more = format!("{quoted}\n> - and PostgreSQL for teams");
        assert_ne!(
            memories.add(&new(&more), now()).unwrap().outcome,
            Outcome::Recalled
        );
        // Start over for the other kind.
        while let Some(memory) = memories
            .list(&Search::default(), None)
            .unwrap()
            .memories
            .pop()
        {
            memories.forget(&memory.id).unwrap();
        }
    }
}

#[test]
fn an_update_supersedes_and_keeps_the_old_one() {
    let home = Home::new();
    let memories = home.meaning();
    let old = memories
        .add(&of("hearth", "The port is 8080"), now())
        .unwrap()
        .memory;
    let change = Change {
        text: Some("The port is 8321".into()),
        ..Change::default()
    };
    let newer = memories.change(&old.id, &change, now()).unwrap();
    assert_eq!(
        (newer.project.as_deref(), newer.supersedes.as_slice()),
        (Some("hearth"), [old.id.clone()].as_slice())
    );
    assert_eq!(texts(&memories, &query("port")), ["The port is 8321"]);
    let kept = memories.get(&old.id, now()).unwrap();
    assert_eq!(
        (kept.text.as_str(), kept.superseded_by.as_ref()),
        ("The port is 8080", Some(&newer.id))
    );
    let error = memories.change(&old.id, &change, now()).unwrap_err();
    assert!(error.to_string().contains(&newer.id), "{error}");
    // What was so once may be so again.
    let back = memories
        .add(
            &NewMemory {
                supersedes: Some(newer.id.clone()),
                ..of("hearth", "The port is 8080")
            },
            now(),
        )
        .unwrap();
    assert_eq!(back.memory.supersedes, [newer.id, old.id]);
    assert_eq!(texts(&memories, &query("port")), ["The port is 8080"]);
    // How it is written may change too.
    let change = Change {
        text: Some("the port is 8080!".into()),
        ..Change::default()
    };
    memories.change(&back.memory.id, &change, now()).unwrap();
    assert_eq!(texts(&memories, &query("port")), ["the port is 8080!"]);
    let unknown = NewMemory {
        supersedes: Some("mem-none".into()),
        ..new("x")
    };
    assert!(matches!(
        memories.add(&unknown, now()),
        Err(Error::Unknown(_))
    ));
}

#[test]
fn a_search_keeps_to_project_kind_tags_and_confidence() {
    let home = Home::new();
    for memories in [home.meaning(), home.open(None)] {
        memories.add(&of("a", "database of a"), now()).unwrap();
        memories.add(&of("b", "database of b"), now()).unwrap();
        memories.add(&new("database of all"), now()).unwrap();
        let sure = NewMemory {
            kind: Some("Decision".into()),
            tags: vec!["Disk".into()],
            confidence: Some(0.9),
            ..of("a", "database decided")
        };
        memories.add(&sure, now()).unwrap();
        let unsure = NewMemory {
            confidence: Some(0.2),
            ..of("a", "database perhaps")
        };
        memories.add(&unsure, now()).unwrap();
        let found = |search: Search| {
            let mut all = texts(&memories, &search);
            all.sort();
            all
        };
        let a = Search {
            project: Some("a".into()),
            ..query("database")
        };
        assert_eq!(
            found(a.clone()),
            [
                "database decided",
                "database of a",
                "database of all",
                "database perhaps"
            ]
        );
        assert_eq!(found(query("database")).len(), 5);
        let sure = Search {
            min_confidence: Some(0.9),
            ..a.clone()
        };
        assert_eq!(
            found(sure),
            ["database decided", "database of a", "database of all"]
        );
        let tagged = Search {
            tags: vec!["disk".into()],
            ..query("database")
        };
        assert_eq!(found(tagged), ["database decided"]);
        let kind = Search {
            kind: Some("decision".into()),
            ..query("database")
        };
        assert_eq!(found(kind), ["database decided"]);
        let none = Search {
            project: Some("c".into()),
            ..query("database")
        };
        assert_eq!(found(none), ["database of all"]);
        for (field, wrong) in [
            (
                "limit",
                Search {
                    limit: Some(0),
                    ..a.clone()
                },
            ),
            (
                "limit",
                Search {
                    limit: Some(101),
                    ..a.clone()
                },
            ),
            (
                "min_confidence",
                Search {
                    min_confidence: Some(2.0),
                    ..a.clone()
                },
            ),
            ("query", query("  ")),
            (
                "kind",
                Search {
                    kind: Some(String::new()),
                    ..a.clone()
                },
            ),
        ] {
            let error = memories.search(&wrong, now()).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
    }
}

#[test]
fn what_is_forgotten_is_gone_from_every_file() {
    let home = Home::new();
    let memories = home.meaning();
    add(&memories, "Rosebud was the sledge");
    let secret = add(&memories, "Xylophone is the passphrase");
    memories.upkeep(&mut |_, _| true).unwrap();
    memories.forget(&secret.id).unwrap();
    assert!(matches!(
        memories.get(&secret.id, now()),
        Err(Error::Unknown(_))
    ));
    assert_eq!(texts(&memories, &query("xylophone passphrase")).len(), 0);
    let holds = |word: &str| {
        let files = std::fs::read_dir(home.folder.path()).unwrap();
        files.flatten().any(|file| {
            let bytes = std::fs::read(file.path()).unwrap();
            let word = word.as_bytes();
            bytes
                .windows(word.len())
                .any(|part| part.eq_ignore_ascii_case(word))
        })
    };
    // While it is still open, too.
    for _ in 0..2 {
        assert!(holds("rosebud"));
        assert!(!holds("xylophon") && !holds("passphras"));
        memories.upkeep(&mut |_, _| true).unwrap();
    }
    drop(memories);
    assert!(holds("rosebud") && !holds("xylophon"));
    let bytes = std::fs::read(home.vectors()).unwrap();
    assert!(
        bytes[64 + 96..64 + 2 * 96].iter().all(|byte| *byte == 0),
        "the vector is still there"
    );
    // Nobody who opens it later writes the file anew because of that.
    let written = || home.vectors().metadata().unwrap().modified().unwrap();
    let before = written();
    for _ in 0..2 {
        assert_eq!(texts(&home.meaning(), &query("sledge")).len(), 1);
    }
    assert_eq!(written(), before);
}

#[test]
fn memories_grow_cold_and_come_back_when_they_are_found() {
    let home = Home::new();
    let memories = home.meaning();
    memories.grow_cold_from(500);
    let old = now() - days(400);
    memories
        .add(&new("The automobile was bought in spring"), old)
        .unwrap();
    let store = home.store();
    // Many others, as quickly as the tables allow.
    store
        .write(|tx| -> Result<(), hearth_store::sqlite::Error> {
            for n in 0..600 {
                tx.execute(
                    "INSERT INTO memory (id, text, kind, project, tags, confidence, pinned, written, fingerprint, seq)
                     VALUES ('mem-' || ?1, 'filler ' || ?1, 'note', '', '', 1, 0, ?2, CAST(?1 AS BLOB), 1)",
                    (n, now().as_millisecond()),
                )?;
            }
            Ok(())
        })
        .unwrap();
    memories.upkeep(&mut |_, _| true).unwrap();
    assert_eq!(memories.stats(now()).unwrap().cold, 1);
    let asks = Search {
        explain: true,
        ..query("vehicle")
    };
    let found = memories.search(&asks, now()).unwrap();
    assert!(
        !found
            .memories
            .iter()
            .any(|hit| hit.memory.text.contains("automobile"))
    );
    // A word of it still finds it, and then it is hot.
    let found = memories
        .search(
            &Search {
                query: "spring".into(),
                ..asks.clone()
            },
            now(),
        )
        .unwrap();
    assert!(found.memories[0].why.unwrap().cold);
    assert_eq!(memories.stats(now()).unwrap().cold, 0);
    let found = memories.search(&asks, now()).unwrap();
    assert!(found.memories[0].memory.text.contains("automobile"));
}

#[test]
fn two_processes_see_each_others_memories_at_once() {
    let home = Home::new();
    let (one, two) = (home.meaning(), home.meaning());
    for round in 0..20 {
        let text = format!("round {round} of the database");
        let memory = add(&one, &text);
        assert!(texts(&two, &query(&format!("round {round}"))).contains(&text));
        if round % 3 == 0 {
            two.forget(&memory.id).unwrap();
            assert!(!texts(&one, &query(&text)).contains(&text));
        }
        if round % 5 == 0 {
            one.upkeep(&mut |_, _| true).unwrap();
            two.upkeep(&mut |_, _| true).unwrap();
        }
    }
    drop((one, two));
    let fresh = home.meaning();
    assert_eq!(fresh.stats(now()).unwrap().memories, 13);
    assert_eq!(
        fresh
            .list(
                &Search {
                    limit: Some(100),
                    ..Search::default()
                },
                None
            )
            .unwrap()
            .count,
        13
    );
}

#[test]
fn a_file_of_vectors_that_is_broken_or_gone_is_made_again() {
    let home = Home::new();
    for n in 0..50 {
        add(&home.meaning(), &format!("fact {n} of the automobile"));
    }
    let good = std::fs::read(home.vectors()).unwrap();
    let breaks: [(&str, &dyn Fn(&Path)); 5] = [
        ("gone", &|path| std::fs::remove_file(path).unwrap()),
        ("empty", &|path| std::fs::write(path, b"").unwrap()),
        ("cut short", &|path| {
            std::fs::write(path, &good[..good.len() - 1]).unwrap()
        }),
        ("a bit flipped", &|path| {
            let mut bad = good.clone();
            bad[200] ^= 4;
            std::fs::write(path, bad).unwrap();
        }),
        ("something else", &|path| {
            std::fs::write(path, b"hello").unwrap()
        }),
    ];
    for (what, damage) in breaks {
        damage(&home.vectors());
        let memories = home.meaning();
        assert!(first(&memories, "vehicle").is_some(), "{what}");
        drop(memories);
        assert_eq!(std::fs::read(home.vectors()).unwrap(), good, "{what}");
    }
}

#[test]
fn pages_follow_each_other_and_end() {
    let home = Home::new();
    let memories = home.meaning();
    for n in 0..25 {
        add(&memories, &format!("note number {n}"));
    }
    let mut after: Option<String> = None;
    let mut seen = Vec::new();
    loop {
        let page = memories.list(&Search::default(), after.as_deref()).unwrap();
        seen.extend(page.memories.into_iter().map(|memory| memory.text));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let expected: Vec<String> = (0..25).rev().map(|n| format!("note number {n}")).collect();
    assert_eq!(seen, expected);
    assert!(memories.list(&Search::default(), Some("mem-x")).is_err());
}

#[test]
fn the_same_question_is_encoded_once() {
    let home = Home::new();
    let encoder = Meanings::new(96);
    let memories = home.open(Some(Arc::clone(&encoder) as Arc<dyn Embed>));
    add(&memories, "The automobile is in the garage");
    memories.search(&query("where is the car"), now()).unwrap();
    let once = encoder.asked.load(Ordering::Relaxed);
    for _ in 0..3 {
        memories.search(&query("where is the car"), now()).unwrap();
    }
    assert_eq!(encoder.asked.load(Ordering::Relaxed), once);
}

#[test]
fn reading_is_noted_and_survives() {
    let home = Home::new();
    let memories = home.meaning();
    let memory = add(&memories, "The automobile is in the garage");
    for _ in 0..3 {
        memories.search(&query("car"), now()).unwrap();
    }
    drop(memories);
    let read = home.meaning().get(&memory.id, now()).unwrap();
    assert_eq!((read.reads, read.read), (3, Some(now())));
}

#[test]
fn who_only_peeks_reads_nothing() {
    let home = Home::new();
    let memories = home.meaning();
    let memory = add(&memories, "The automobile is in the garage");
    let later = now() + days(1);
    let found = memories.peek(&query("car"), later).unwrap();
    assert_eq!(found.memories[0].memory.id, memory.id);
    drop(memories);
    let read = home.meaning().get(&memory.id, now()).unwrap();
    assert_eq!((read.reads, read.read), (0, None));
}

#[test]
fn the_doctor_is_not_misled_by_what_another_process_wrote() {
    let home = Home::new();
    let (one, other) = (home.open(None), home.open(None));
    add(&one, "a note of the one");
    for round in 0..40 {
        assert_eq!(one.examine(false).unwrap().findings, [], "{round}");
        for n in 0..12 {
            add(&other, &format!("another one, {round} and {n}"));
        }
    }
}

#[test]
fn the_doctor_finds_what_is_broken_and_mends_it() {
    let home = Home::new();
    let memories = home.meaning();
    for n in 0..20 {
        add(&memories, &format!("fact {n} of the automobile"));
    }
    memories.upkeep(&mut |_, _| true).unwrap();
    assert!(memories.examine(true).unwrap().findings.is_empty());
    let store = home.store();
    let break_it: [(&str, &dyn Fn()); 7] = [
        ("lists of words", &|| {
            let sql = "INSERT INTO memory_words (memory_words) VALUES ('delete-all')";
            store.write(|tx| tx.execute(sql, [])).unwrap();
        }),
        ("file of vectors", &|| {
            let bytes = std::fs::read(home.vectors()).unwrap();
            let path = home.folder.path().join("new");
            std::fs::write(&path, &bytes[..bytes.len() - 10]).unwrap();
            std::fs::rename(path, home.vectors()).unwrap();
        }),
        ("damaged", &|| {
            let sql = "UPDATE memory_vector SET vector = x'00' WHERE row % 2 = 0";
            store.write(|tx| tx.execute(sql, [])).unwrap();
        }),
        ("lack", &|| {
            store
                .write(|tx| tx.execute("DELETE FROM memory_vector WHERE row = 3", []))
                .unwrap();
        }),
        ("damaged", &|| {
            // Numbers that are none.
            let sql = "UPDATE memory_vector SET vector =
                unhex(replace(hex(zeroblob(length(vector) / 4)), '00', '0000C07F')) WHERE row = 5";
            store.write(|tx| tx.execute(sql, [])).unwrap();
        }),
        ("not those of the database", &|| {
            let sql = "UPDATE memory_vector SET vector =
                unhex('0000803F' || hex(zeroblob(length(vector) - 4))) WHERE row = 2";
            store.write(|tx| tx.execute(sql, [])).unwrap();
        }),
        ("file of vectors", &|| {
            // As a shell does that redirects into it.
            std::fs::write(home.vectors(), b"short").unwrap();
        }),
    ];
    let mut found = 20;
    for (what, break_it) in break_it {
        break_it();
        let told = memories.examine(false).unwrap().findings;
        assert!(
            told.iter()
                .any(|finding| finding.problem.contains(what) && !finding.mended),
            "{what}: {told:?}"
        );
        let mended = memories.examine(true).unwrap().findings;
        assert!(
            mended.iter().all(|finding| finding.mended),
            "{what}: {mended:?}"
        );
        assert_eq!(memories.examine(false).unwrap().findings, [], "{what}");
        if what == "not those of the database" {
            // The database is right, also where it was given a vector of nothing.
            found = 19;
        }
        assert_eq!(
            texts(
                &memories,
                &Search {
                    limit: Some(50),
                    ..query("vehicle")
                }
            )
            .len(),
            found,
            "{what}"
        );
        assert_eq!(
            texts(&memories, &query("fact 7"))[0],
            "fact 7 of the automobile",
            "{what}"
        );
    }
}

#[test]
fn a_long_text_is_found_by_what_stands_at_its_end() {
    let home = Home::new();
    let memories = home.meaning();
    // Whole pieces.
    let sentence = |n| format!("Paragraph {n:02} tells of weather{n:02}. ");
    let filler: String = (0..54).map(sentence).collect();
    let long = add(
        &memories,
        &format!("{filler}The automobile is in the garage."),
    );
    let other = add(&memories, &format!("{filler}Purchase of a boat."));
    let explained = |text: &str| {
        let search = Search {
            explain: true,
            ..query(text)
        };
        let found = memories.search(&search, now()).unwrap();
        let hits = found.memories.iter();
        hits.map(|hit| (hit.memory.id.clone(), hit.why.unwrap().similarity.unwrap()))
            .collect::<Vec<_>>()
    };
    let found = explained("car");
    // Once, though every piece of it was compared; and as near as one of its pieces, not as the whole, which the other is
    // as near to.
    assert_eq!((found.len(), &found[0].0), (1, &long.id), "{found:?}");
    assert_eq!(explained("buy")[0].0, other.id);
    let stats = memories.stats(now()).unwrap();
    assert_eq!((stats.memories, stats.unencoded), (2, 0));
    assert!(stats.scanned > 4, "{}", stats.scanned);
    // Forgetting takes all its vectors.
    memories.forget(&long.id).unwrap();
    assert_eq!(memories.stats(now()).unwrap().scanned * 2, stats.scanned);
    assert!(memories.examine(false).unwrap().findings.is_empty());
    // What is left is as it was after a start.
    drop(memories);
    let memories = home.meaning();
    let found = memories.search(&query("buy boat"), now()).unwrap();
    assert_eq!(found.memories[0].memory.id, other.id);
}

#[test]
fn a_very_long_text_leaves_room_for_others() {
    let home = Home::new();
    let memories = home.meaning();
    let lines: String = (0..400)
        .map(|n| format!("The automobile of number{n} is for sale today.\n"))
        .collect();
    let long = add(&memories, &lines);
    for n in 0..30 {
        add(&memories, &format!("Somebody{n} has an automobile"));
    }
    let found = memories.search(&query("vehicle"), now()).unwrap();
    assert_eq!(found.count, 10);
    let hits = found.memories.iter().filter(|hit| hit.memory.id == long.id);
    assert!(hits.count() <= 1);
    let all = Search {
        limit: Some(50),
        ..query("vehicle")
    };
    assert_eq!(texts(&memories, &all).len(), 31);
}

#[test]
fn a_file_of_vectors_that_is_cut_short_while_it_is_used_ends_nothing() {
    let home = Home::new();
    let memories = home.meaning();
    for n in 0..100 {
        add(&memories, &format!("fact {n} of the automobile"));
    }
    memories.upkeep(&mut |_, _| true).unwrap();
    for rest in [0, 100, 5000] {
        let file = std::fs::OpenOptions::new().write(true).open(home.vectors());
        file.unwrap().set_len(rest).unwrap();
        assert_eq!(memories.search(&query("vehicle"), now()).unwrap().count, 10);
        memories.upkeep(&mut |_, _| true).unwrap();
        assert_eq!(memories.examine(false).unwrap().findings, []);
    }
}

#[test]
fn very_many_memories_are_found_through_the_approximate_index() {
    let home = Home::new();
    let memories = home.meaning();
    let lines = |numbers: std::ops::Range<usize>| -> String {
        numbers
            .map(|n| {
                let project = ["shop", "farm"][usize::from(n % 4 == 0)];
                let text = format!("crate {} shelf {} holds article{n}", n % 17, n % 23);
                format!(
                    "{}\n",
                    serde_json::json!({"text": text, "project": project})
                )
            })
            .collect()
    };
    let import = |path: &str, numbers| {
        let usual = NewMemory::default();
        memories
            .import(path, lines(numbers).as_bytes(), &usual, now())
            .unwrap();
    };
    import("a.jsonl", 0..600);
    let approximate = || memories.stats(now()).unwrap().approximate;
    // Too few for it.
    memories.approximate(600, &|| true).unwrap();
    assert_eq!(approximate(), None);
    // Who is told to stop leaves none behind.
    memories.approximate(300, &|| false).unwrap();
    assert_eq!(approximate(), None);
    memories.approximate(300, &|| true).unwrap();
    let made = approximate().unwrap();
    assert_eq!((made.vectors, made.in_use), (600, true));
    assert!(made.recall >= 0.95, "{}", made.recall);
    let article = |n: usize| format!("crate {} shelf {} holds article{n}", n % 17, n % 23);
    let finds = |search: &Search, n: usize| {
        let found = memories.search(search, now()).unwrap();
        let hit = found
            .memories
            .iter()
            .find(|hit| hit.memory.text == article(n));
        hit.is_some_and(|hit| hit.why.unwrap().similarity.unwrap() > 0.99)
    };
    let asked = |n: usize, project: Option<&str>| Search {
        project: project.map(str::to_owned),
        explain: true,
        ..query(&article(n))
    };
    for n in [0, 3, 299, 599] {
        assert!(finds(&asked(n, None), n), "{n}");
    }
    // Of 450 the graph finds those of the project alone; 150 are scanned.
    assert!(finds(&asked(3, Some("shop")), 3) && !finds(&asked(4, Some("shop")), 4));
    assert!(finds(&asked(4, Some("farm")), 4));
    // What comes later is found at once, and joins it the next time.
    import("b.jsonl", 600..640);
    assert!(finds(&asked(639, None), 639) && finds(&asked(5, None), 5));
    memories.approximate(300, &|| true).unwrap();
    assert_eq!(approximate().unwrap().vectors, 640);
    assert!(finds(&asked(639, None), 639));
    let forgotten = memories.search(&asked(639, None), now()).unwrap();
    memories.forget(&forgotten.memories[0].memory.id).unwrap();
    assert!(!finds(&asked(639, None), 639));
    // Too few again.
    memories.approximate(1000, &|| true).unwrap();
    assert_eq!(approximate(), None);
}

#[test]
fn what_says_something_else_is_stored_though_it_looks_like_what_was_recalled() {
    let home = Home::new();
    for memories in [home.meaning(), home.open(None)] {
        for (old, new_one) in [
            (
                "The batch size must be < 64 on this machine",
                "The batch size must be > 64 on this machine",
            ),
            (
                "Name the field _private here",
                "Name the field private here",
            ),
            (
                "We no longer deploy from the main branch on Fridays",
                "Deploy from the main branch on Fridays",
            ),
        ] {
            add(&memories, old);
            assert!(first(&memories, old).is_some());
            let written = memories.add(&new(new_one), now()).unwrap();
            assert_eq!(written.memory.text, new_one, "{:?}", written.outcome);
            assert!(texts(&memories, &query(new_one)).contains(&new_one.to_owned()));
        }
    }
}

#[test]
fn what_another_project_was_told_is_new_to_all() {
    let home = Home::new();
    let memories = home.meaning();
    let text = "The automobile of the firm is in the garage";
    memories.add(&of("shop", text), now()).unwrap();
    assert!(first(&memories, "car").is_some());
    let written = memories.add(&new(text), now()).unwrap();
    // Neither recalled from the shop nor linked to what others do not see.
    assert_eq!(
        (written.outcome, written.memory.project),
        (Outcome::Stored, None)
    );
    let farm = Search {
        project: Some("farm".into()),
        ..query("car")
    };
    assert_eq!(texts(&memories, &farm), [text]);
}

#[test]
fn forgetting_takes_the_older_ones_too() {
    let home = Home::new();
    let memories = home.meaning();
    let change = |old: &Memory, text: &str| {
        let change = Change {
            text: Some(text.into()),
            ..Change::default()
        };
        memories.change(&old.id, &change, now()).unwrap()
    };
    let one = add(&memories, "The passphrase is xylophone");
    let two = change(&one, "The passphrase is marimba");
    let three = change(&two, "The passphrase is in the safe");
    let other = add(&memories, "Purchase of a boat");
    let forgotten = memories.forget(&three.id).unwrap();
    assert_eq!(forgotten.supersedes, [two.id.as_str(), one.id.as_str()]);
    for id in [&one.id, &two.id, &three.id] {
        assert!(matches!(memories.get(id, now()), Err(Error::Unknown(_))));
    }
    let stats = memories.stats(now()).unwrap();
    assert_eq!((stats.memories, stats.superseded), (1, 0));
    // A newer one outlives what it replaced.
    let newer = change(&other, "Purchase of a ship");
    memories.forget(&other.id).unwrap();
    assert_eq!(memories.get(&newer.id, now()).unwrap().text, newer.text);
    assert!(memories.examine(false).unwrap().findings.is_empty());
}

#[test]
fn merging_keeps_the_tags_that_were_there() {
    let home = Home::new();
    let memories = home.meaning();
    let tagged = |first: char, count: usize| NewMemory {
        tags: (0..count).map(|n| format!("{first}{n:02}")).collect(),
        ..new("The automobile is in the garage")
    };
    memories.add(&tagged('z', 30), now()).unwrap();
    let merged = memories.add(&tagged('a', 30), now()).unwrap().memory;
    let count = |first| {
        merged
            .tags
            .iter()
            .filter(|tag| tag.starts_with(first))
            .count()
    };
    assert_eq!((count('a'), count('z')), (2, 30));
    assert!(merged.tags.is_sorted());
}
