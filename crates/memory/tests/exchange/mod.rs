//! Import and export: what comes from files, what a backup brings back.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use hearth_memory::Background;

use super::*;

fn import(memories: &Memories, path: &str, text: &str) -> Imported {
    let usual = NewMemory {
        project: Some("shop".into()),
        ..NewMemory::default()
    };
    memories
        .import(path, text.as_bytes(), &usual, now())
        .unwrap()
}

#[test]
fn an_import_takes_what_changed_and_withdraws_what_is_gone() {
    let home = Home::new();
    let memories = home.meaning();
    let first = "# Rules\n\n- Use the database\n- Buy nothing\n";
    assert_eq!(
        import(&memories, "shop/CLAUDE.md", first),
        Imported {
            stored: 2,
            ..Imported::default()
        }
    );
    assert_eq!(
        import(&memories, "shop/CLAUDE.md", first),
        Imported {
            unchanged: 1,
            ..Imported::default()
        }
    );
    let second = "# Rules\n\n- Use the database\n- Purchase everything\n";
    assert_eq!(
        import(&memories, "shop/CLAUDE.md", second),
        Imported {
            stored: 1,
            merged: 1,
            withdrawn: 1,
            ..Imported::default()
        }
    );
    let found = texts(
        &memories,
        &Search {
            project: Some("shop".into()),
            ..query("shopping")
        },
    );
    assert_eq!(found[0], "Rules: Purchase everything");
    assert!(!found.contains(&"Rules: Buy nothing".to_owned()));
    assert_eq!(memories.stats(now()).unwrap().unencoded, 0);
}

#[test]
fn a_file_belongs_to_the_project_it_was_imported_under_last_and_what_is_gone_is_withdrawn() {
    let home = Home::new();
    let memories = home.meaning();
    let text = "# Notes\n\nThe automobile is in the garage.\n";
    let usual = |project: Option<&str>| NewMemory {
        project: project.map(ToOwned::to_owned),
        ..NewMemory::default()
    };
    let import_as = |project| memories.import("/n/a.md", text.as_bytes(), &usual(project), now());
    assert_eq!(import_as(Some("shop")).unwrap().stored, 1);
    let find = || {
        let found = memories.search(&query("car"), now()).unwrap();
        let hits = found.memories.into_iter();
        hits.map(|hit| (hit.memory.id, hit.memory.project))
            .collect::<Vec<_>>()
    };
    let id = find()[0].0.clone();
    for project in [Some("farm"), None, Some("shop")] {
        let imported = import_as(project).unwrap();
        assert_eq!(
            imported,
            Imported {
                moved: 1,
                ..Imported::default()
            },
            "{project:?}"
        );
        // The same memory, once, with its vector.
        assert_eq!(find(), [(id.clone(), project.map(ToOwned::to_owned))]);
        let other = Search {
            project: Some("barn".into()),
            ..query("car")
        };
        let seen = texts(&memories, &other).len();
        assert_eq!(seen, usize::from(project.is_none()), "{project:?}");
    }
    assert_eq!(memories.stats(now()).unwrap().unencoded, 0);
    assert_eq!(memories.files().unwrap(), ["/n/a.md"]);
    assert_eq!(memories.withdraw("/n/a.md", now()).unwrap(), 1);
    assert_eq!(first(&memories, "car"), None);
    assert!(memories.files().unwrap().is_empty());
    let stats = memories.stats(now()).unwrap();
    assert_eq!((stats.superseded, stats.withdrawn), (0, 1));
    let change = Change {
        pinned: Some(true),
        ..Change::default()
    };
    let error = memories.change(&id, &change, now()).unwrap_err();
    assert!(error.to_string().contains("withdrawn"), "{error}");
    // It comes back.
    assert_eq!(import_as(Some("shop")).unwrap().stored, 1);
    assert!(first(&memories, "car").is_some());
    // What others hold too stays theirs, and the file's goes to where the file is.
    let other = memories.import("/n/b.md", text.as_bytes(), &usual(Some("shop")), now());
    assert_eq!(other.unwrap().merged, 1);
    let imported = import_as(Some("farm")).unwrap();
    assert_eq!(
        (imported.stored, imported.moved, imported.withdrawn),
        (1, 0, 0)
    );
    assert_eq!(find().len(), 2);
    // A file may itself say the same of several projects.
    let lines = r#"{"text": "A boat", "project": "shop"}
{"text": "A boat", "project": "farm"}"#;
    for _ in 0..2 {
        let said = format!("{lines}{}", "\n".repeat(memories.files().unwrap().len()));
        let imported = memories.import("/n/c.jsonl", said.as_bytes(), &usual(None), now());
        let imported = imported.unwrap();
        assert_eq!((imported.stored + imported.merged, imported.moved), (2, 0));
    }
    assert_eq!(texts(&memories, &query("boat")).len(), 2);
}

#[test]
fn an_import_without_anything_new_opens_no_encoder() {
    let home = Home::new();
    let text = "- Use the database\n- Buy nothing\n";
    import(&home.open(None), "CLAUDE.md", text);
    home.meaning().upkeep(&mut |_, _| true).unwrap();
    let opened = Arc::new(AtomicUsize::new(0));
    let source: Source = {
        let opened = Arc::clone(&opened);
        Arc::new(move || {
            opened.fetch_add(1, Ordering::SeqCst);
            Ok(Meanings::new(96))
        })
    };
    let place = Place {
        vectors: Some(home.vectors()),
        encoder: Some(source),
    };
    let memories = Memories::open(home.store(), place).unwrap();
    for (path, merged) in [("CLAUDE.md", 0), ("other/CLAUDE.md", 2)] {
        assert_eq!(import(&memories, path, text).merged, merged);
        memories.upkeep(&mut |_, _| true).unwrap();
    }
    assert_eq!(opened.load(Ordering::SeqCst), 0);
    import(&memories, "CLAUDE.md", "- Buy everything\n");
    assert_eq!(opened.load(Ordering::SeqCst), 1);
}

#[test]
fn an_export_says_who_holds_a_memory() {
    let home = Home::new();
    let memories = home.meaning();
    let rules = |items: &[&str]| format!("# Rules\n\n- {}\n", items.join("\n- "));
    import(
        &memories,
        "/a/CLAUDE.md",
        &rules(&["Shared", "Alone", "Gone", "Edited"]),
    );
    import(&memories, "/b/CLAUDE.md", &rules(&["Shared"]));
    import(
        &memories,
        "/a/CLAUDE.md",
        &rules(&["Shared", "Alone", "Edited"]),
    );
    memories.add(&of("shop", "rules: alone"), now()).unwrap();
    let found = memories.search(&query("edited"), now()).unwrap();
    let edit = Change {
        text: Some("Rules: written anew".into()),
        ..Change::default()
    };
    memories
        .change(&found.memories[0].memory.id, &edit, now())
        .unwrap();
    let lines = exported(&memories);
    let holders = |text: &str| {
        let all = lines
            .lines()
            .map(|line| serde_json::from_str::<Exported>(line).unwrap());
        let mut said = all.filter(|one| one.memory.text == text);
        said.next().unwrap().holders.unwrap()
    };
    assert_eq!(holders("Rules: Shared"), ["/a/CLAUDE.md", "/b/CLAUDE.md"]);
    assert_eq!(holders("Rules: Alone"), ["", "/a/CLAUDE.md"]);
    assert_eq!(holders("Rules: Gone"), [""; 0]);
    let other = Home::new();
    let again = other.meaning();
    import(&again, "e.jsonl", &lines);
    assert_eq!(exported(&again), lines);
    // All goes on as it would have in the store that it comes from.
    assert_eq!(again.files().unwrap(), ["/a/CLAUDE.md", "/b/CLAUDE.md"]);
    for memories in [&memories, &again] {
        let edited = import(memories, "/a/CLAUDE.md", &rules(&["Edited"]));
        assert_eq!((edited.stored, edited.withdrawn), (0, 0));
        assert_eq!(memories.withdraw("/b/CLAUDE.md", now()).unwrap(), 1);
        let stats = memories.stats(now()).unwrap();
        assert_eq!(
            (stats.memories, stats.superseded, stats.withdrawn),
            (2, 1, 2)
        );
    }
    // A holder that is none.
    let wrong = lines.replacen("[\"/a/CLAUDE.md\"", "[7", 1);
    assert_ne!(wrong, lines);
    let refused = memories.import("f.jsonl", wrong.as_bytes(), &NewMemory::default(), now());
    assert!(refused.unwrap_err().to_string().contains("f.jsonl: line "));
}

#[test]
fn an_export_is_known_by_its_first_line() {
    use hearth_memory::import::is_export;
    let home = Home::new();
    let memories = home.meaning();
    add(&memories, "The automobile is in the garage");
    let lines = exported(&memories);
    let list = format!("[{}]", lines.trim());
    for (path, text, is) in [
        ("/n/backup.jsonl", lines.as_str(), true),
        ("/n/backup.NDJSON", &format!("\n\n{lines}"), true),
        ("/n/backup.json", &list, true),
        ("/n/backup.md", &lines, false),
        ("/n/new.jsonl", "{\"text\": \"x\"}\n", false),
        ("/n/bad.jsonl", "{", false),
        ("/n/none.jsonl", "", false),
    ] {
        assert_eq!(is_export(path, text.as_bytes()), is, "{path}");
    }
}

#[test]
fn an_export_makes_the_same_store_again() {
    let home = Home::new();
    let memories = home.meaning();
    let old = memories
        .add(&of("shop", "The port is 8080"), now())
        .unwrap()
        .memory;
    memories
        .change(
            &old.id,
            &Change {
                text: Some("The port is 8321".into()),
                ..Change::default()
            },
            now(),
        )
        .unwrap();
    add(&memories, "The socket is 8321");
    let pinned = NewMemory {
        pinned: true,
        tags: vec!["a".into(), "b".into()],
        confidence: Some(0.3),
        source: Some("a file".into()),
        kind: Some("fact".into()),
        ..new("We buy on Fridays")
    };
    memories.add(&pinned, now()).unwrap();
    memories.search(&query("port"), now()).unwrap();
    let all = exported;
    let exported = all(&memories);
    assert_eq!(exported.lines().count(), 4);
    let other = Home::new();
    let again = other.meaning();
    assert_eq!(import(&again, "e.jsonl", &exported).stored, 4);
    assert_eq!(all(&again), exported);
    again.upkeep(&mut |_, _| true).unwrap();
    assert_eq!(texts(&again, &query("purchase"))[0], "We buy on Fridays");
    // Once more brings nothing.
    assert_eq!(
        import(&again, "f.jsonl", &exported),
        Imported {
            merged: 4,
            ..Imported::default()
        }
    );
}

#[test]
fn what_another_file_says_or_a_person_wrote_is_not_withdrawn() {
    let home = Home::new();
    let memories = home.meaning();
    let rules = |items: &[&str]| format!("# Rules\n\n- {}\n", items.join("\n- "));
    let all = |memories: &Memories| {
        let mut all: Vec<String> = memories
            .list(&Search::default(), None)
            .unwrap()
            .memories
            .into_iter()
            .map(|memory| memory.text.replace("Rules: ", ""))
            .collect();
        all.sort();
        all
    };
    let file = rules(&["Shared", "Written", "Pinned", "Edited", "Alone"]);
    assert_eq!(import(&memories, "a/CLAUDE.md", &file).stored, 5);
    assert_eq!(
        import(&memories, "b/CLAUDE.md", &rules(&["Shared"])).merged,
        1
    );
    let find = |text: &str| {
        let listed = memories.list(&Search::default(), None).unwrap().memories;
        listed
            .into_iter()
            .find(|memory| memory.text == text)
            .unwrap()
    };
    let written = memories.add(&of("shop", "rules: written"), now()).unwrap();
    assert_eq!(written.outcome, Outcome::Merged);
    let pin = Change {
        pinned: Some(true),
        ..Change::default()
    };
    memories
        .change(&find("Rules: Pinned").id, &pin, now())
        .unwrap();
    let edit = Change {
        text: Some("Edited by hand".into()),
        ..Change::default()
    };
    memories
        .change(&find("Rules: Edited").id, &edit, now())
        .unwrap();
    // What the person replaced does not come back with another change of the file.
    let imported = import(&memories, "a/CLAUDE.md", &rules(&["Edited", "New"]));
    assert_eq!(
        imported,
        Imported {
            stored: 1,
            merged: 1,
            withdrawn: 1,
            ..Imported::default()
        }
    );
    let left = ["Edited by hand", "New", "Pinned", "Shared", "Written"];
    assert_eq!(all(&memories), left);
    assert_eq!(memories.withdraw("b/CLAUDE.md", now()).unwrap(), 1);
    assert_eq!(memories.withdraw("a/CLAUDE.md", now()).unwrap(), 1);
    assert_eq!(all(&memories), ["Edited by hand", "Pinned", "Written"]);
}

/// All memories, as lines of JSON.
fn exported(memories: &Memories) -> String {
    let mut lines = String::new();
    memories
        .export(&mut |memory| {
            lines += &serde_json::to_string(memory).unwrap();
            lines.push('\n');
            true
        })
        .unwrap();
    lines
}

#[test]
fn a_backup_brings_back_what_is_lacking_and_refuses_what_was_spoilt() {
    let home = Home::new();
    let memories = home.meaning();
    let one = add(&memories, "The automobile is in the garage");
    add(&memories, "Purchase of a boat");
    let backup = exported(&memories);
    for _ in 0..2 {
        memories.forget(&one.id).unwrap();
        let imported = import(&memories, "e.jsonl", &backup);
        assert_eq!((imported.stored, imported.merged), (1, 1));
        assert!(first(&memories, "garage").is_some());
    }
    assert!(memories.files().unwrap().is_empty());
    let line = backup.lines().next().unwrap();
    let import_line = |line: &str| {
        let lines = format!("\n{line}\n");
        memories.import("f.jsonl", lines.as_bytes(), &NewMemory::default(), now())
    };
    let long = format!("\"source\":\"{}\"", "s".repeat(1001));
    for (field, from, to) in [
        ("id", one.id.as_str(), "mem-1"),
        ("id", &one.id, &one.id.to_uppercase()),
        ("text", "The automobile is in the garage", " "),
        ("project", "\"project\":null", "\"project\":\"a\\nb\""),
        ("confidence", "\"confidence\":1.0", "\"confidence\":7.0"),
        ("tags", "\"tags\":[]", "\"tags\":[\"a\\nb\"]"),
        ("source", "\"source\":null", &long),
    ] {
        assert!(line.contains(from), "{line}");
        let error = import_line(&line.replace(from, to)).unwrap_err();
        let told = format!("f.jsonl: line 2: {field}: ");
        assert!(error.to_string().starts_with(&told), "{error}");
    }
    let error = import_line(r#"{"text": "x", "supersedes": "mem-1"}"#).unwrap_err();
    assert!(
        error.to_string().contains("line 2: supersedes: "),
        "{error}"
    );
    // What can be tidied is.
    memories.forget(&one.id).unwrap();
    let untidy = line
        .replace("\"tags\":[]", "\"tags\":[\"B\",\"a\",\"b\"]")
        .replace("\"project\":null", "\"project\":\" \"");
    assert_eq!(import_line(&untidy).unwrap().stored, 1);
    let kept = memories.get(&one.id, now()).unwrap();
    assert_eq!(
        (kept.tags, kept.project),
        (vec!["a".into(), "b".into()], None)
    );
}

#[test]
fn an_export_keeps_a_long_lineage_and_many_links() {
    let home = Home::new();
    let memories = home.meaning();
    let mut last = add(&memories, "version 0 of the plan");
    for n in 1..=30 {
        let change = Change {
            text: Some(format!("version {n} of the plan")),
            ..Change::default()
        };
        last = memories.change(&last.id, &change, now()).unwrap();
        add(&memories, &format!("note {n} of a boat"));
    }
    assert_eq!(last.supersedes.len(), 20);
    let store = home.store();
    store
        .write(|tx| {
            tx.execute(
                "INSERT OR IGNORE INTO memory_link SELECT 1, row FROM memory WHERE text LIKE 'note%'",
                [],
            )
        })
        .unwrap();
    let lines = exported(&memories);
    let parse = |line: &str| serde_json::from_str::<Memory>(line).unwrap();
    let all: Vec<Memory> = lines.lines().map(parse).collect();
    let newest = all.iter().find(|memory| memory.id == last.id).unwrap();
    assert_eq!((newest.supersedes.len(), all[0].related.len()), (30, 30));
    let other = Home::new();
    let again = other.meaning();
    import(&again, "e.jsonl", &lines);
    assert_eq!(exported(&again), lines);
    // A lineage that somebody made go in a circle is none.
    let circle = lines
        .lines()
        .map(|line| {
            let mut memory = parse(line);
            if memory.id == last.id {
                memory.superseded = Some(now());
                memory.superseded_by = Some(all[0].id.clone());
            }
            serde_json::to_string(&memory).unwrap() + "\n"
        })
        .collect::<String>();
    let third = Home::new();
    let third = third.meaning();
    import(&third, "e.jsonl", &circle);
    assert_eq!(exported(&third).lines().count(), 61);
    third.forget(&last.id).unwrap();
    assert_eq!(exported(&third).lines().count(), 30);
}

#[test]
fn one_who_reads_an_export_slowly_keeps_nobody_from_writing_or_forgetting() {
    let home = Home::new();
    let (memories, other) = (home.meaning(), home.meaning());
    let lines: String = (0..300)
        .map(|n| format!("{{\"text\": \"note {n}\"}}\n"))
        .collect();
    assert_eq!(import(&memories, "a.jsonl", &lines).stored, 300);
    let secret = add(&memories, "Xylophone is the passphrase").id;
    let plan = add(&memories, "version 1 of the plan").id;
    let mut told = Vec::new();
    let log = home.folder.path().join("db-wal");
    memories
        .export(&mut |one| {
            told.push(one.memory.text.clone());
            if told.len() == 1 {
                add(&other, "written meanwhile");
                let change = Change {
                    text: Some("version 2 of the plan".into()),
                    ..Change::default()
                };
                other.change(&plan, &change, now()).unwrap();
                other.forget(&secret).unwrap();
                assert_eq!(log.metadata().unwrap().len(), 0, "the log is not empty");
            }
            true
        })
        .unwrap();
    // What came later is in it, and nothing is lacking but what was forgotten.
    for text in [
        "written meanwhile",
        "version 1 of the plan",
        "version 2 of the plan",
    ] {
        assert!(told.iter().any(|told| told == text), "{text}");
    }
    assert!(!told.iter().any(|told| told.contains("Xylophone")));
    assert_eq!(told.len(), 303);
}

/// An encoder that tells when it has many texts, and waits then until it is told to go on.
struct Slow {
    meanings: Arc<Meanings>,
    gate: Mutex<(Sender<()>, Receiver<()>)>,
}

impl Embed for Slow {
    fn id(&self) -> String {
        self.meanings.id()
    }

    fn dimensions(&self) -> usize {
        self.meanings.dimensions()
    }

    fn query(&self, text: &str) -> Result<Vec<f32>, String> {
        self.meanings.query(text)
    }

    fn passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, String> {
        if texts.len() > 1 {
            let gate = self.gate.lock().unwrap();
            gate.0.send(()).unwrap();
            gate.1
                .recv_timeout(Duration::from_secs(20))
                .map_err(|_| "nothing was written meanwhile")?;
        }
        self.meanings.passages(texts)
    }

    fn background(&self) -> Result<Background, String> {
        self.meanings.background()
    }
}

#[test]
fn others_write_while_an_import_is_encoded() {
    let home = Home::new();
    let (began, begins) = channel();
    let (go, goes_on) = channel();
    let memories = home.open(Some(Arc::new(Slow {
        meanings: Meanings::new(96),
        gate: Mutex::new((began, goes_on)),
    })));
    std::thread::scope(|scope| {
        let importing =
            scope.spawn(|| import(&memories, "CLAUDE.md", "- Note 0\n- Note 1\n- Note 2\n"));
        begins.recv().unwrap();
        // The same as one that is on its way, and another.
        memories.add(&of("shop", "Note 0"), now()).unwrap();
        add(&memories, "The automobile is in the garage");
        go.send(()).unwrap();
        let imported = importing.join().unwrap();
        assert_eq!((imported.stored, imported.merged), (2, 1));
    });
    assert_eq!(memories.stats(now()).unwrap().memories, 4);
    assert_eq!(memories.stats(now()).unwrap().unencoded, 0);
}
