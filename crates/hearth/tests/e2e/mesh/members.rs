//! Who may what: strangers, members, and those who are none any more.

use std::io::{BufRead, BufReader};
use std::time::Instant;

use hearth_protocol::diagnosis::Code;
use serde_json::json;

use super::lan::{Lan, PORT, join};
use crate::household::until;

#[test]
fn a_stranger_reaches_health_and_memories_are_their_owners_to_open() {
    let Some(lan) = Lan::new() else { return };
    let mut hosts = [lan.host("hub", 1), lan.host("one", 2)];
    let stranger = lan.host("stranger", 9);
    join(&mut hosts);
    let [hub, one] = hosts;
    let at = |path: &str| format!("http://{}:{PORT}{path}", one.ip);
    assert_eq!(stranger.asks(&at("/health"), None).status, 200);
    for path in ["/status", "/v1/models", "/peers", "/diagnosis", "/events"] {
        assert_eq!(stranger.asks(&at(path), None).status, 403, "{path}");
    }
    let search = json!({"query": "printer"});
    for path in [
        "/memory/search",
        "/household/memory/search",
        "/v1/chat/completions",
    ] {
        let refused = stranger.asks(&at(path), Some(&search));
        assert_eq!(refused.status, 403, "{path}");
    }
    for path in ["/peer/memory/search", "/peer/generate", "/peer/echo"] {
        let refused = stranger.asks(&at(path), Some(&search));
        assert!([401, 403].contains(&refused.status), "{path}: {refused:?}");
    }

    let note = json!({"text": "the printer is in the cellar", "project": "home"});
    assert!(one.post("/memory", &note).status < 300);
    let found = || hub.post("/household/memory/search", &search).json();
    let closed = |found: serde_json::Value| {
        assert_eq!(found["count"], 0, "{found:#}");
        assert_eq!(
            found["unanswered"][0]["code"], "memory_not_shared",
            "{found:#}"
        );
    };
    closed(found());
    let share = |shared: bool| {
        let answer = one.post("/household/memory/share", &json!({"shared": shared}));
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    share(true);
    let opened = found();
    assert_eq!(opened["count"], 1, "{opened:#}");
    assert_eq!(opened["memories"][0]["machine"], "one");
    assert_eq!(opened["unanswered"], json!([]), "{opened:#}");
    share(false);
    closed(found());
    // Opening it to members opened nothing to strangers.
    share(true);
    let refused = stranger.asks(&at("/peer/memory/search"), Some(&search));
    assert!([401, 403].contains(&refused.status), "{refused:?}");
}

/// What of a removed machine runs elsewhere ends, and nothing more of it begins.
fn removed(door: &str) {
    let Some(lan) = Lan::new() else { return };
    let mut hosts = lan.three();
    for host in &mut hosts {
        host.only(door);
        host.set("HEARTH_CONTEXT", "32768");
        if host.name != "two" {
            host.model("shared");
        }
    }
    join(&mut hosts);
    let [hub, one, two] = hosts;
    // An answer that takes longer than this test.
    let endless = |model: &str| {
        two.knows_model(model.split('/').next().unwrap(), "shared");
        let body = json!({
            "model": model, "stream": true, "max_tokens": 30_000, "ignore_eos": true,
            "messages": [{"role": "user", "content": "Go on."}],
        });
        let mut lines = BufReader::new(two.stream("/v1/chat/completions", &body)).lines();
        let begun = lines.by_ref().map_while(Result::ok).take(8).count();
        assert_eq!(begun, 8, "{model}");
        lines
    };
    let streams = [endless("hub/shared"), endless("one/shared")];
    hub.hearth(&["peers", "remove", "two"]).ok();
    let begun = Instant::now();
    for stream in streams {
        let rest: Vec<String> = stream.map_while(Result::ok).collect();
        assert!(rest.len() < 60_000, "it went on to its end");
        let end = rest.iter().rev().find(|line| line.contains("error"));
        assert!(end.is_some(), "{:?}", rest.last());
    }
    let ended = begun.elapsed();
    for model in ["hub/shared", "one/shared"] {
        let refused = two.chat(model);
        assert!(refused.status >= 400, "{model}: {refused:?}");
    }
    two.says("hub", Code::Removed);
    two.says("one", Code::Removed);
    eprintln!(
        "removed: its answers ended within {:.1} s, it said so after {:.1} s",
        ended.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    for peer in ["hub", "one"] {
        assert_eq!(two.doctor(peer, None).code(), Some(Code::Removed));
    }
    // To the others it is no machine of theirs.
    for host in [&hub, &one] {
        let nobody = host.hearth(&["doctor", "two"]).ends_with(2);
        assert!(nobody.err.contains("hub, one"), "{}", nobody.err);
    }
    for host in [&hub, &one] {
        let peers = host.hearth(&["peers", "--json"]).json();
        let names = peers["members"].as_array().unwrap().iter();
        assert!(
            names.clone().all(|member| member["name"] != "two"),
            "{peers:#}"
        );
        until("nothing of it goes on", || {
            let status = host.get("/status").json();
            let models = status["models"].as_array()?.clone();
            let busy = |model: &serde_json::Value| model["load"]["slots_busy"].as_u64() > Some(0);
            (!models.iter().any(busy)).then_some(())
        });
    }
    let answer = one.chat("hub/shared");
    assert_eq!((answer.status, &*answer.node), (200, "hub"), "{answer:?}");
}

#[test]
fn who_is_removed_is_cut_off_at_once_over_signed_http() {
    removed("http");
}

#[test]
fn who_is_removed_is_cut_off_at_once_over_iroh() {
    removed("quic");
}
