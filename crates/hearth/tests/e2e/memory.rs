//! `hearth memory`: the same with a node and without one, and what is typed wrong.

use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::household::{Household, until};

fn ids(found: &Value) -> Vec<&str> {
    let memories = found["memories"].as_array().unwrap();
    memories
        .iter()
        .map(|memory| memory["id"].as_str().unwrap())
        .collect()
}

#[test]
fn what_one_remembers_without_a_node_the_node_finds_and_the_other_way_round() {
    let household = Household::new();
    let add = |text: &str| {
        let added = household.hearth(&[
            "memory", "add", text, "-p", "shop", "--tag", "net", "--json",
        ]);
        added.json()
    };
    let alone = add("The staging server listens on 8443");
    assert_eq!(alone["outcome"], "stored");
    assert_eq!(alone["memory"]["project"], "shop");
    let id = alone["memory"]["id"].as_str().unwrap().to_owned();
    let node = household.serve(&[]);
    let search =
        json!({"query": "which port does staging listen on", "project": "shop", "limit": 3});
    let url = format!("http://{}/memory/search", node.address);
    let mut answer = ureq::post(&url).send(&search.to_string()).unwrap();
    let found: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    assert_eq!(ids(&found), [id.as_str()]);
    assert!(
        found["words_only"].as_str().unwrap().contains("encoder"),
        "{found}"
    );
    let served = add("Production listens on 443");
    let found = household
        .hearth(&["memory", "search", "production", "--json", "--explain"])
        .json();
    assert_eq!(found["memories"][0]["id"], served["memory"]["id"]);
    assert!(found["memories"][0]["why"]["words"].as_f64().unwrap() > 0.0);
    let again = add("the staging server listens on 8443.");
    assert_eq!(
        (&again["outcome"], &again["memory"]["id"]),
        (&json!("merged"), &json!(id))
    );
    let edited = household.hearth(&[
        "memory",
        "edit",
        &id,
        "--text",
        "Staging listens on 9443",
        "--json",
    ]);
    let edited = edited.json();
    assert_eq!(edited["supersedes"], json!([id]));
    let new = edited["id"].as_str().unwrap();
    household.hearth(&["memory", "pin", new]).ok();
    let shown = household.hearth(&["memory", "show", new]).ok();
    for part in [
        "Staging listens on 9443",
        "shop",
        "#net",
        "pinned",
        &format!("supersedes {id}"),
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let listed = household
        .hearth(&["memory", "list", "-n", "1", "--json"])
        .json();
    assert_eq!(
        (ids(&listed), listed["next"].as_str()),
        (vec![new], Some(new))
    );
    let stats = household.hearth(&["memory", "stats"]).ok();
    assert!(
        stats.contains("2 memories") && stats.contains("1 superseded, 0 withdrawn"),
        "{stats}"
    );
    drop(node);
    // With it goes the one whose place it took.
    household.hearth(&["memory", "forget", new]).ok();
    let left = household.hearth(&["memory", "list", "--json"]).json();
    assert_eq!(left["count"], 1);
    let doctor = household.hearth(&["memory", "doctor"]).ok();
    assert!(doctor.contains("nothing is wrong"), "{doctor}");
}

#[test]
fn wrong_words_are_told_with_or_without_a_node() {
    let household = Household::new();
    for round in 0..2 {
        let _node = (round == 1).then(|| household.serve(&[]));
        for (args, told) in [
            (&["memory", "add", "  "][..], "text: it is empty"),
            (
                &["memory", "add", "x", "--confidence", "2"],
                "confidence: it must be 0 to 1",
            ),
            (
                &["memory", "search", "x", "-n", "1000"],
                "limit: it must be 1 to 100",
            ),
            (
                &["memory", "show", "mem-none"],
                "there is no memory mem-none",
            ),
            (&["memory", "forget", "a/b c"], "there is no memory a/b c"),
            (
                &["memory", "add", "x", "--supersedes", "mem-0"],
                "there is no memory mem-0",
            ),
        ] {
            let ran = household.hearth(args).ends_with(2);
            assert!(ran.err.contains(told), "{args:?}: {}", ran.err);
        }
    }
}

#[test]
fn files_are_imported_once_and_an_export_makes_the_same_store() {
    let household = Household::new();
    let folder = household.path().join("shop");
    std::fs::create_dir_all(folder.join("docs/adr")).unwrap();
    std::fs::create_dir_all(folder.join(".git")).unwrap();
    std::fs::write(
        folder.join("CLAUDE.md"),
        "# Rules\n\n- Run the tests\n- Never push to main\n",
    )
    .unwrap();
    std::fs::write(
        folder.join("docs/adr/1.md"),
        "# 1. Use SQLite\n\n## Decision\n\nOne file.\n",
    )
    .unwrap();
    std::fs::write(folder.join(".git/x.md"), "hidden\n").unwrap();
    std::fs::write(folder.join("broken.jsonl"), "{\n").unwrap();
    let import = || {
        household
            .hearth(&["memory", "import", "shop", "-p", "shop", "--json"])
            .json()
    };
    let without_broken = |mut summary: Value| {
        let passed_over = summary["passed_over"].take();
        let why = passed_over[0]["why"].as_str().unwrap();
        assert!(why.contains("broken.jsonl: line 1"), "{passed_over}");
        summary.as_object_mut().unwrap().remove("passed_over");
        summary
    };
    assert_eq!(
        without_broken(import()),
        json!({"stored": 3, "merged": 0, "withdrawn": 0, "moved": 0, "unchanged": 0, "other_files": 0})
    );
    let _node = household.serve(&[]);
    assert_eq!(
        without_broken(import()),
        json!({"stored": 0, "merged": 0, "withdrawn": 0, "moved": 0, "unchanged": 2, "other_files": 0})
    );
    let found = household
        .hearth(&["memory", "search", "tests", "--json"])
        .json();
    assert_eq!(found["memories"][0]["text"], "Rules: Run the tests");
    let broken = household
        .hearth(&["memory", "import", "shop/broken.jsonl"])
        .ends_with(2);
    assert!(
        broken.err.contains("broken.jsonl: line 1"),
        "{}",
        broken.err
    );
    let lines = household.hearth(&["memory", "export"]).ok();
    assert_eq!(lines.lines().count(), 3);
    let other = Household::new();
    std::fs::write(other.path().join("e.jsonl"), &lines).unwrap();
    other.hearth(&["memory", "import", "e.jsonl"]).ok();
    assert_eq!(other.hearth(&["memory", "export"]).ok(), lines);
}

#[test]
fn a_summary_says_what_was_passed_over_and_what_moved() {
    let household = Household::new();
    let notes = household.path().join("notes");
    std::fs::create_dir_all(&notes).unwrap();
    std::fs::write(notes.join("a.md"), "The kettle is blue\n").unwrap();
    std::fs::write(notes.join("bad.jsonl"), "{\n").unwrap();
    std::fs::write(notes.join("photo.png"), "x").unwrap();
    let import = |words: &[&str]| {
        let ran = household.hearth(&[&["memory", "import", "notes"], words].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        (ran.out, ran.err)
    };
    let (out, err) = import(&[]);
    assert!(out.starts_with("1 new, "), "{out}");
    assert!(
        out.contains("files passed over: 1 that cannot be read, 1 of kinds that are not read\n"),
        "{out}"
    );
    assert!(
        err.contains("passed over: ") && err.contains("bad.jsonl: line 1"),
        "{err}"
    );
    // The same folder for a project: it goes there, and is there once.
    let (out, _) = import(&["--project", "shop"]);
    assert!(
        out.starts_with("0 new, 0 there already, 0 withdrawn, 1 moved to project shop;"),
        "{out}"
    );
    let listed = household.hearth(&["memory", "list", "--json"]).json();
    assert_eq!(
        (&listed["count"], &listed["memories"][0]["project"]),
        (&json!(1), &json!("shop"))
    );
    let (out, _) = import(&[]);
    assert!(out.contains("1 moved to every project"), "{out}");
    // An export in the folder does not bring back what is forgotten, unless somebody means it.
    let export = household.hearth(&["memory", "export"]).ok();
    std::fs::write(notes.join("export.jsonl"), export).unwrap();
    std::fs::remove_file(notes.join("bad.jsonl")).unwrap();
    let listed = household.hearth(&["memory", "list", "--json"]).json();
    let id = ids(&listed)[0].to_owned();
    household.hearth(&["memory", "rm", &id[..16]]).ok();
    std::fs::remove_file(notes.join("a.md")).unwrap();
    let (out, err) = import(&[]);
    assert!(
        out.contains("1 written by `hearth memory export` (name it to import it)"),
        "{out}"
    );
    assert!(err.contains("export.jsonl"), "{err}");
    let gone = household
        .hearth(&["memory", "show", &id[..16]])
        .ends_with(2);
    assert!(gone.err.contains("`hearth memory search`"), "{}", gone.err);
    household
        .hearth(&["memory", "import", "notes/export.jsonl"])
        .ok();
    household.hearth(&["memory", "show", &id[..16]]).ok();
    let stats = household.hearth(&["memory", "stats"]).ok();
    assert!(stats.contains("0 superseded, 0 withdrawn"), "{stats}");
}

#[test]
fn who_asks_over_http_is_told_what_to_do_there() {
    let household = Household::new();
    let node = household.serve(&[]);
    let url = format!("http://{}/memory/mem-none", node.address);
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let mut answer = agent.get(&url).call().unwrap();
    assert_eq!(answer.status(), 404);
    let problem: Value =
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("POST /memory/search") && !detail.contains("hearth memory"),
        "{detail}"
    );
    let shown = household
        .hearth(&["memory", "show", "mem-none"])
        .ends_with(2);
    assert!(
        shown.err.contains("`hearth memory search`") && !shown.err.contains("POST"),
        "{}",
        shown.err
    );
}

/// A command that goes on until the value is gone.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Thrown when the value is gone, also by a panic.
struct Thrown<'a>(&'a AtomicBool);

impl Drop for Thrown<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_watched_folder_is_imported_again_as_it_changes() {
    let household = Household::new();
    let folder = household.path().join("notes");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("a.md"), "The kettle is blue\n").unwrap();
    let watching = household
        .command(&["memory", "import", "notes", "--watch"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut watching = Running(watching);
    let found = |word: &str| {
        let found = household
            .hearth(&["memory", "search", word, "--json"])
            .json();
        found["count"].as_u64().unwrap()
    };
    let is = |word: &'static str, count: u64| {
        until(word, || (found(word) == count).then_some(()));
    };
    is("kettle", 1);
    std::fs::create_dir(folder.join("deep")).unwrap();
    std::fs::write(folder.join("deep/b.md"), "The lamp is red\n").unwrap();
    is("lamp", 1);
    // As editors do: another file in its place.
    std::fs::write(folder.join("new"), "The teapot is green\n").unwrap();
    std::fs::rename(folder.join("new"), folder.join("a.md")).unwrap();
    is("teapot", 1);
    is("kettle", 0);
    std::fs::remove_file(folder.join("deep/b.md")).unwrap();
    is("lamp", 0);
    // Neither what is never imported nor what never rests keeps the others waiting.
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Thrown(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                std::fs::write(folder.join("build.log"), "again").unwrap();
                std::fs::write(folder.join("busy.md"), "The oven is hot\n").unwrap();
                std::thread::park_timeout(std::time::Duration::from_millis(50));
            }
        });
        is("oven", 1);
        std::fs::write(folder.join("c.md"), "The chair is old\n").unwrap();
        is("chair", 1);
    });
    assert!(watching.0.try_wait().unwrap().is_none());
    // Ctrl-C is how it is meant to end.
    #[cfg(unix)]
    {
        let id = watching.0.id().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-INT", &id])
            .status();
        assert!(sent.unwrap().success());
        assert_eq!(watching.0.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told_once_until_it_changes() {
    let household = Household::new();
    let folder = household.path().join("notes");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("bad.jsonl"), "{\n").unwrap();
    let err = household.path().join("err");
    let watching = household
        .command(&["memory", "import", "notes", "--watch"])
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let _watching = Running(watching);
    let told = || {
        let err = std::fs::read_to_string(&err).unwrap();
        assert!(!err.contains("error"), "{err}");
        err.matches("bad.jsonl: line ").count()
    };
    until("watching", || {
        let err = std::fs::read_to_string(&err).unwrap();
        err.contains("watching").then_some(())
    });
    assert_eq!(told(), 1);
    for word in ["kettle", "teapot"] {
        std::fs::write(
            folder.join(format!("{word}.md")),
            format!("The {word} is blue\n"),
        )
        .unwrap();
        until(word, || {
            let found = household
                .hearth(&["memory", "search", word, "--json"])
                .json();
            (found["count"] == 1).then_some(())
        });
        assert_eq!(told(), 1, "{word}");
    }
    std::fs::write(folder.join("bad.jsonl"), "{\"text\": \"x\"}\n{\n").unwrap();
    until("told again", || (told() == 2).then_some(()));
}
