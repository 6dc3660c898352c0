//! The log of a node in the background, and `hearth logs`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::household::{Household, until};

/// Asks the node something under this request id.
fn ask(address: &str, id: &str) {
    let answer = get(address, "/v1/models", id);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn get(address: &str, path: &str, id: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nX-Request-Id: {id}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn entries(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_node_in_the_background_is_read_by_request_and_severity() {
    let household = Household::new();
    let none = household.hearth(&["logs"]).ends_with(1);
    assert!(
        none.err.contains("there is no log") && none.err.contains("hearth up --detach"),
        "{}",
        none.err
    );
    let up = household
        .hearth(&["up", "--detach", "--json", "--log-level", "debug"])
        .json();
    let address = up["address"].as_str().unwrap();
    ask(address, "req_mine");

    let words = household.hearth(&["logs"]).ok();
    assert!(
        words.contains("INFO serving") && words.contains(&format!("address={address}")),
        "{words}"
    );
    let mine = household
        .hearth(&["logs", "--request", "req_mine", "--json"])
        .ok();
    let mine = entries(&mine);
    assert!(!mine.is_empty());
    assert!(
        mine.iter()
            .all(|entry| entry["spans"][0]["id"] == "req_mine"),
        "{mine:?}"
    );
    let last = household.hearth(&["logs", "-n", "1"]).ok();
    assert_eq!(last.lines().count(), 1, "{last}");
    let severe = household.hearth(&["logs", "--level", "error"]).ok();
    assert_eq!(severe, "");
    household.hearth(&["logs", "--level", "loud"]).ends_with(2);
    household.hearth(&["stop"]).ok();

    // Why a node did not start is in its log as well.
    household
        .hearth(&["up", "--detach", "--model", "nobody"])
        .ends_with(1);
    let severe = household.hearth(&["logs", "--level", "error"]).ok();
    assert!(severe.contains("model `nobody` is not here"), "{severe}");
}

#[test]
fn a_request_that_fails_is_in_the_log_and_of_others_it_says_why_they_are_not() {
    let household = Household::new();
    let up = household.hearth(&["up", "--detach", "--json"]).json();
    let address = up["address"].as_str().unwrap();
    ask(address, "req_fine");
    let answer = get(address, "/v1/models/nobody", "req_lost");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");

    let lost = household.hearth(&["logs", "--json", "--request", "req_lost"]);
    let lost = entries(&lost.ok());
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!(
        (&lost[0]["status"], &lost[0]["code"]),
        (&404.into(), &"model_not_found".into())
    );
    let span = &lost[0]["spans"][0];
    assert_eq!(span["route"], "/v1/models/{*id}");
    assert_eq!(span["trace_id"].as_str().map(str::len), Some(32));

    let fine = household.hearth(&["logs", "--request", "req_fine"]);
    assert!(
        fine.err.contains("no line names req_fine") && fine.err.contains("log_level debug"),
        "{}",
        fine.err
    );
    assert_eq!(fine.ok(), "");
    household.hearth(&["stop"]).ok();
}

#[test]
fn a_log_makes_room_and_is_followed_across_files() {
    let household = Household::new();
    let up = household
        .hearth(&[
            "up",
            "--detach",
            "--json",
            "--log-level",
            "debug",
            "--log-file-size",
            "4KiB",
            "--log-files",
            "100",
        ])
        .json();
    let address = up["address"].as_str().unwrap();
    let mut follower = household
        .command(&["logs", "--follow", "--json", "-n", "1"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    // With this line it listens.
    lines.next().unwrap().unwrap();
    let logs = household.home().join("logs");
    let mut asked = 0;
    until("three files", || {
        ask(address, &format!("req_{asked}"));
        asked += 1;
        logs.join("node.log.2").exists().then_some(())
    });
    ask(address, "req_last");
    let heard: Vec<Value> = lines
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .take_while(|entry: &Value| entry["spans"][0]["id"] != "req_last")
        .collect();
    follower.kill().unwrap();
    follower.wait().unwrap();
    let mut ids: Vec<usize> = heard
        .iter()
        .filter_map(|entry| {
            entry["spans"][0]["id"]
                .as_str()?
                .strip_prefix("req_")?
                .parse()
                .ok()
        })
        .collect();
    ids.dedup();
    let all: Vec<usize> = (0..asked).collect();
    assert_eq!(ids, all, "each request once, and in order");

    household.hearth(&["stop"]).ok();
    let sizes: Vec<u64> = std::fs::read_dir(&logs)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("node.log"))
        .map(|entry| entry.metadata().unwrap().len())
        .collect();
    assert!(sizes.len() >= 3);
    assert!(sizes.iter().all(|size| *size <= 4 << 10), "{sizes:?}");
}
