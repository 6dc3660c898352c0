//! Several nodes as one: joining, asking one for another's model, machines that die, are removed and come back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hearth_encoder::Encoders;
use hearth_engine::Catalogue;
use hearth_node::{MeshOptions, NodeOptions, encoder_meant};
use hearth_testkit::bert::{Bert, Pooling};
use hearth_testkit::gguf::{Quantisation, Shape, write};
use hearth_testkit::node::{Reply, TestNode, ember, node_options, options, wait_until};
use hearth_testkit::sentence;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// A node that others reach on this machine, by signed HTTP and by iroh.
fn mesh(name: &str, doors: &[&str]) -> NodeOptions {
    let doors = doors
        .iter()
        .map(|door| format!("{door}://127.0.0.1:0").parse().unwrap());
    NodeOptions {
        mesh: Some(MeshOptions {
            name: name.into(),
            addresses: Some(doors.collect()),
            ..MeshOptions::unkept()
        }),
        ..node_options()
    }
}

fn node(name: &str, models: &[&str]) -> TestNode {
    node_behind(name, models, &["http", "quic"])
}

fn node_behind(name: &str, models: &[&str], doors: &[&str]) -> TestNode {
    let mut catalogue = Catalogue::new(None);
    for model in models {
        catalogue.register(*model, ember());
    }
    TestNode::serving(catalogue, options(), mesh(name, doors))
}

fn join(hub: &TestNode, other: &TestNode) {
    let invited = hub.post("/household/invite", "{}");
    assert_eq!(invited.status, 200, "{invited:?}");
    let ticket = invited.json()["ticket"].clone();
    let joined = other.post("/household/join", json!({"ticket": ticket}).to_string());
    assert_eq!(joined.status, 200, "{joined:?}");
}

fn names(node: &TestNode) -> Vec<String> {
    let peers = node.get("/peers").json();
    let members = peers["members"].as_array().unwrap().iter();
    let mut names: Vec<String> = members
        .map(|member| member["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

fn ask(node: &TestNode, model: &str) -> Reply {
    let body = json!({
        "model": model, "max_tokens": 8, "temperature": 0,
        "messages": [{"role": "user", "content": "What is Hearth?"}],
    });
    node.post("/v1/chat/completions", body.to_string())
}

/// Waits until a node knows which models another one has.
fn knows_models(node: &TestNode, name: &str, model: &str) {
    wait_until(
        PATIENCE,
        "the models of the other machine are known",
        || {
            let peers = node.get("/peers").json();
            let members = peers["members"].as_array().cloned().unwrap_or_default();
            members.iter().any(|member| {
                let has = |models: &Value| {
                    let models = models.as_array().cloned().unwrap_or_default();
                    models.iter().any(|it| it["name"] == model)
                };
                member["name"] == name && has(&member["capabilities"]["models"])
            })
        },
    );
}

#[test]
fn two_nodes_find_each_other_by_a_ticket_and_answer_for_each_other() {
    for doors in [&["http"][..], &["quic"], &["http", "quic"]] {
        let hub = node_behind("hub", &["small"], doors);
        let other = node_behind("gpubox", &["large"], doors);
        join(&hub, &other);
        for node in [&hub, &other] {
            wait_until(PATIENCE, "both know both", || {
                names(node) == ["gpubox", "hub"]
            });
        }
        knows_models(&hub, "gpubox", "large");
        knows_models(&other, "hub", "small");

        let answer = ask(&hub, "large");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("hearth-node"), Some("gpubox"), "{doors:?}");
        assert_eq!(answer.json()["model"], "large");
        let pinned = ask(&other, "hub/small");
        assert_eq!(pinned.header("hearth-node"), Some("hub"));
        let own = ask(&hub, "small");
        assert_eq!(own.header("hearth-node"), Some("hub"));
        let listed = hub.get("/v1/models").json();
        let listed = listed["data"].as_array().unwrap();
        assert!(
            listed
                .iter()
                .any(|it| it["id"] == "large" && it["owned_by"] == "gpubox"),
            "{listed:#?}"
        );
        let chat = json!({"model": "large", "stream": false, "options": {"num_predict": 4},
            "messages": [{"role": "user", "content": "Hi"}]});
        let ollama = hub.post("/api/chat", chat.to_string());
        assert_eq!(ollama.status, 200, "{ollama:?}");
        assert_eq!(ollama.header("hearth-node"), Some("gpubox"));
        let nobody = ask(&hub, "gpubox/small");
        assert_eq!(nobody.status, 404, "{nobody:?}");
        assert!(
            nobody.body.contains("not on gpubox; it has large"),
            "{nobody:?}"
        );

        let found = hub.get("/diagnosis?probe=true&peer=gpubox").json();
        assert_eq!(found[0]["verdict"], "usable", "{found:#}");
        assert_eq!(found[0]["path"], "direct");
    }
}

#[test]
fn an_answer_from_elsewhere_streams_as_one_from_here() {
    let hub = node("hub", &["small"]);
    let other = node("gpubox", &["large", "small"]);
    join(&hub, &other);
    knows_models(&hub, "gpubox", "large");
    let body = |model: &str| {
        json!({
            "model": model, "max_tokens": 12, "temperature": 0, "stream": true,
            "stream_options": {"include_usage": true},
            "messages": [{"role": "user", "content": "What is Hearth?"}],
        })
        .to_string()
    };
    let texts = |reply: &Reply| -> String {
        let lines = reply
            .body
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        let chunks = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let text = |chunk: Value| {
            let text = chunk["choices"][0]["delta"]["content"].as_str();
            text.unwrap_or_default().to_owned()
        };
        chunks.map(text).collect()
    };
    let here = hub.post("/v1/chat/completions", body("hub/small"));
    let there = hub.post("/v1/chat/completions", body("gpubox/small"));
    assert_eq!(there.header("hearth-node"), Some("gpubox"));
    assert!(!texts(&here).is_empty());
    assert_eq!(texts(&here), texts(&there));
    assert!(there.body.ends_with("data: [DONE]\n\n"), "{there:?}");
    // Several prompts of one request are read one after the other, and none is lost meanwhile.
    let prompts = json!({"model": "gpubox/small", "prompt": ["Hi", "You", "We"], "max_tokens": 40,
        "ignore_eos": true, "temperature": 0});
    let several = hub.post("/v1/completions", prompts.to_string());
    assert_eq!(several.status, 200, "{several:?}");
    assert_eq!(several.json()["choices"].as_array().unwrap().len(), 3);
    assert_eq!(several.json()["usage"]["completion_tokens"], 120);
    // Other surfaces go the same way.
    let message = json!({
        "model": "gpubox/small", "max_tokens": 8,
        "messages": [{"role": "user", "content": "Hi"}],
    });
    let anthropic = hub.post("/v1/messages", message.to_string());
    assert_eq!(anthropic.status, 200, "{anthropic:?}");
    assert_eq!(anthropic.header("hearth-node"), Some("gpubox"));
}

#[test]
fn strangers_reach_health_and_nothing_else() {
    let hub = node("hub", &["small"]);
    let other = node("gpubox", &["large"]);
    join(&hub, &other);
    // A member's tools on this machine may everything; a signature that is none is refused whoever sends it.
    let forged = [
        ("signature", "hearth=:AAAA:"),
        ("signature-input", "hearth=()"),
    ];
    let refused = hub.post_with("/peer/generate", &forged, "{}");
    assert_eq!(refused.status, 401, "{refused:?}");
    let refused = hub.get_with("/status", &forged);
    assert_eq!(refused.status, 401, "{refused:?}");
}

#[test]
fn a_machine_that_is_removed_may_nothing_any_more() {
    let hub = node("hub", &["small"]);
    let other = node("gpubox", &["large"]);
    join(&hub, &other);
    knows_models(&other, "hub", "small");
    assert_eq!(ask(&other, "hub/small").status, 200);
    let removed = hub.delete("/household/members/gpubox", "");
    assert_eq!(removed.status, 200, "{removed:?}");
    assert_eq!(names(&hub), ["hub"]);
    let refused = ask(&other, "hub/small");
    assert!(refused.status >= 400, "{refused:?}");
    let gone = ask(&hub, "gpubox/large");
    assert!(gone.status >= 400, "{gone:?}");
    // It comes back with a new ticket.
    join(&hub, &other);
    knows_models(&other, "hub", "small");
    assert_eq!(ask(&other, "hub/small").status, 200);
}

#[test]
fn a_ticket_is_good_for_one_machine() {
    let hub = node("hub", &["small"]);
    let (one, two) = (node("one", &["a"]), node("two", &["b"]));
    let ticket = hub.post("/household/invite", "{}").json()["ticket"].clone();
    let body = json!({ "ticket": ticket }).to_string();
    assert_eq!(one.post("/household/join", &body).status, 200);
    let refused = two.post("/household/join", &body);
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(
        refused.body.contains("has joined with this ticket already"),
        "{refused:?}"
    );
    // It is asked again where its answer was lost.
    let again = one.post("/household/join", &body);
    assert_eq!(again.status, 200, "{again:?}");
    let nonsense = two.post("/household/join", r#"{"ticket":"HEARTH1NONSENSE"}"#);
    assert_eq!(nonsense.status, 400, "{nonsense:?}");
    assert_eq!(hub.post("/household/join", &body).status, 409);
    let wrong = hub.post("/household/invite", r#"{"expires_in": 5}"#);
    assert_eq!(wrong.status, 400, "{wrong:?}");
    // A member has the hub do it.
    let invited = one.post("/household/invite", "{}");
    assert_eq!(invited.status, 200, "{invited:?}");
    let ticket = json!({ "ticket": invited.json()["ticket"] });
    assert_eq!(two.post("/household/join", ticket.to_string()).status, 200);
    wait_until(PATIENCE, "all are known", || {
        names(&one) == ["hub", "one", "two"]
    });
    // But it removes nobody, and its tickets go with it.
    let refused = one.delete("/household/members/two", "");
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(refused.body.contains("do this on hub"), "{refused:?}");
    let left = one.post("/household/invite", "{}").json()["ticket"].clone();
    assert_eq!(hub.delete("/household/members/one", "").status, 200);
    let three = node("three", &["c"]);
    let body = json!({ "ticket": left }).to_string();
    let refused = three.post("/household/join", &body);
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(names(&hub), ["hub", "two"]);
}

/// Somebody without a key who has an address now: keeps what comes, and says that all is well.
fn impostor(address: SocketAddr) -> Arc<Mutex<String>> {
    let listener = TcpListener::bind(address).unwrap();
    let heard = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&heard);
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let kept = Arc::clone(&kept);
            std::thread::spawn(move || {
                let mut piece = [0; 1 << 16];
                while let Ok(count @ 1..) = stream.read(&mut piece) {
                    let said = String::from_utf8_lossy(&piece[..count]);
                    kept.lock().unwrap().push_str(&said);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
                }
            });
        }
    });
    heard
}

#[test]
fn who_has_a_machines_address_and_not_its_key_is_sent_no_prompt() {
    let hub = node_behind("hub", &["small"], &["http"]);
    let other = node_behind("gpubox", &["large"], &["http"]);
    join(&hub, &other);
    knows_models(&hub, "gpubox", "large");
    assert_eq!(ask(&hub, "gpubox/large").status, 200);
    let address = other.address();
    drop(other);
    let heard = impostor(address);
    let failed = ask(&hub, "gpubox/large");
    assert!((500..600).contains(&failed.status), "{failed:?}");
    wait_until(PATIENCE, "the diagnosis says whose address it is", || {
        let found = hub.get("/diagnosis?probe=true&peer=gpubox").json();
        let checks = found[0]["checks"].as_array().unwrap();
        checks.iter().any(|check| check["code"] == "key_mismatch")
    });
    let failed = ask(&hub, "gpubox/large");
    assert!((500..600).contains(&failed.status), "{failed:?}");
    let heard = heard.lock().unwrap();
    let mut asked = heard.lines().filter(|line| line.ends_with(" HTTP/1.1"));
    assert!(!heard.is_empty());
    assert!(
        asked.all(|line| line == "GET /peer/identity HTTP/1.1"),
        "{heard}"
    );
    assert!(!heard.contains("What is Hearth?"), "{heard}");
}

#[test]
fn another_machine_answers_when_one_dies_and_its_own_model_says_where_it_was() {
    let hub = node("hub", &["small"]);
    let (one, two) = (node("one", &["large"]), node("two", &["large"]));
    join(&hub, &one);
    join(&hub, &two);
    knows_models(&hub, "one", "large");
    knows_models(&hub, "two", "large");
    let first = ask(&hub, "large");
    assert_eq!(first.status, 200, "{first:?}");
    let (dead, left) = match first.header("hearth-node") {
        Some("one") => (one, two),
        _ => (two, one),
    };
    drop(dead);
    let second = ask(&hub, "large");
    assert_eq!(second.status, 200, "{second:?}");
    assert_ne!(second.header("hearth-node"), first.header("hearth-node"));
    drop(left);
    let third = ask(&hub, "large");
    assert!((500..600).contains(&third.status), "{third:?}");
    assert!(third.body.contains("hearth doctor"), "{third:?}");
    // What this machine can answer itself it does.
    assert_eq!(ask(&hub, "small").status, 200);
}

#[test]
fn events_go_on_after_the_last_one_and_a_snapshot_replaces_everything() {
    let hub = node("hub", &["small"]);
    assert_eq!(hub.get("/snapshot").status, 409);
    let other = node("gpubox", &["large"]);
    join(&hub, &other);
    let snapshot = hub.get("/snapshot").json();
    let members = snapshot["state"].as_array().unwrap().len();
    assert_eq!(members, 2, "{snapshot:#}");
    let bad = hub.get_with("/events", &[("last-event-id", "nonsense")]);
    assert_eq!(bad.status, 400, "{bad:?}");
    // Another history's id is told so, and the stream ends.
    let other_epoch = hub.get_with("/events", &[("last-event-id", "00000000000000ff:1")]);
    assert_eq!(other_epoch.status, 200);
    assert!(
        other_epoch.body.contains("event: resync"),
        "{other_epoch:?}"
    );
}

#[test]
fn memories_are_searched_by_others_only_where_their_owner_said_so() {
    let hub = node("hub", &["small"]);
    let other = node("gpubox", &["large"]);
    join(&hub, &other);
    let note = json!({"text": "the printer is in the cellar", "project": "home"});
    assert!(other.post("/memory", note.to_string()).status < 300);
    let secret = json!({"text": "the printer's password is on its back", "project": "work"});
    assert!(other.post("/memory", secret.to_string()).status < 300);
    let search = json!({"query": "printer"}).to_string();
    let before = hub.post("/household/memory/search", &search).json();
    assert_eq!(before["count"], 0, "{before:#}");
    assert_eq!(before["unanswered"][0]["name"], "gpubox", "{before:#}");
    assert_eq!(before["unanswered"][0]["code"], "memory_not_shared");
    let shared = other.post(
        "/household/memory/share",
        json!({"project": "home", "shared": true}).to_string(),
    );
    assert_eq!(shared.status, 200, "{shared:?}");
    assert_eq!(shared.json()["empty"], json!([]), "{shared:?}");
    let after = hub.post("/household/memory/search", &search).json();
    assert_eq!(after["count"], 1, "{after:#}");
    assert_eq!(after["memories"][0]["machine"], "gpubox");
    assert_eq!(after["memories"][0]["project"], "home");
    other.post(
        "/household/memory/share",
        json!({"project": "home", "shared": false}).to_string(),
    );
    assert_eq!(
        hub.post("/household/memory/search", &search).json()["count"],
        0
    );
    // It may be written later; a name that is wrong never will.
    let mistyped = json!({"project": "hoem", "shared": true}).to_string();
    let shared = other.post("/household/memory/share", mistyped).json();
    assert_eq!(shared["projects"], json!(["hoem"]), "{shared:#}");
    assert_eq!(shared["empty"], json!(["hoem"]), "{shared:#}");
}

#[test]
fn an_answer_that_breaks_off_goes_on_elsewhere_where_the_client_asked_for_it() {
    let hub = node("hub", &["small"]);
    let mut peers = vec![node("one", &["large"]), node("two", &["large"])];
    for peer in &peers {
        join(&hub, peer);
    }
    knows_models(&hub, "one", "large");
    knows_models(&hub, "two", "large");
    let ask = |more: Value| {
        let mut body = json!({
            "model": "large", "max_tokens": 600, "ignore_eos": true, "temperature": 0,
            "messages": [{"role": "user", "content": "What is Hearth?"}],
        });
        let more = more.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(more);
        hub.post("/v1/chat/completions", body.to_string())
    };
    let whole = ask(json!({}));
    let expected = whole.json()["choices"][0]["message"]["content"].clone();
    let used = whole.json()["usage"].clone();

    std::thread::scope(|scope| {
        let answering = scope.spawn(|| ask(json!({"hearth": {"continue": true}})));
        // Whoever answers dies in the middle.
        let before: Vec<u64> = peers.iter().map(|peer| peer.load().decode_tokens).collect();
        let mut busy = None;
        wait_until(PATIENCE, "one of them answers", || {
            busy = (0..2).find(|at| peers[*at].load().decode_tokens > before[*at] + 20);
            busy.is_some()
        });
        drop(peers.remove(busy.unwrap()));
        let answer = answering.join().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        // The same as far as it had come, and to its end; later words may differ by how sums are rounded.
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        let expected = expected.as_str().unwrap();
        let same = text
            .chars()
            .zip(expected.chars())
            .take_while(|(a, b)| a == b);
        assert!(same.count() >= 60, "{text}\n\n{expected}");
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
        let tokens = answer["usage"]["completion_tokens"].as_u64().unwrap();
        assert!((590..=610).contains(&tokens), "{tokens}");
        assert_eq!(answer["usage"]["prompt_tokens"], used["prompt_tokens"]);
    });

    for (more, told) in [
        (
            json!({"temperature": 1, "hearth": {"continue": true}}),
            "temperature 0",
        ),
        (json!({"n": 2, "hearth": {"continue": true}}), "one choice"),
    ] {
        let refused = ask(more);
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.body.contains(told), "{refused:?}");
    }
}

#[test]
fn a_hub_that_leaves_is_asked_first_and_the_others_hear_of_the_end() {
    let hub = node("hub", &["small"]);
    let other = node("gpubox", &["large"]);
    join(&hub, &other);
    wait_until(PATIENCE, "both know both", || {
        names(&other) == ["gpubox", "hub"]
    });
    let refused = hub.post("/household/leave", "{}");
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(refused.body.contains("leave --end"), "{refused:?}");
    let left = hub.post("/household/leave", r#"{"end": true}"#);
    assert_eq!(left.status, 200, "{left:?}");
    assert!(left.json()["household"].is_null());
    // Whatever it says of the way, it does not wait for a hub that is gone: it joins another household at once.
    let third = node("third", &["small"]);
    wait_until(PATIENCE, "the member heard of the end", || {
        let ticket = third.post("/household/invite", "{}").json()["ticket"].clone();
        let joined = other.post("/household/join", json!({"ticket": ticket}).to_string());
        joined.status == 200
    });
}

#[test]
fn who_leaves_while_the_hub_is_away_is_told_that_nobody_knows() {
    let hub = node("hub", &["small"]);
    let (one, two) = (node("one", &[]), node("two", &[]));
    join(&hub, &one);
    join(&hub, &two);
    let left = one.post("/household/leave", "{}").json();
    assert_eq!(left["told"], true, "{left:#}");
    wait_until(PATIENCE, "the hub heard it", || {
        names(&hub) == ["hub", "two"]
    });
    drop(hub);
    let left = two.post("/household/leave", "{}").json();
    assert_eq!(left["told"], false, "{left:#}");
    assert!(left["household"].is_null(), "{left:#}");
}

/// A node that embeds, too: with the model `bert` and the encoder `minilm`, which lie in the folder.
fn embedder(name: &str) -> (tempfile::TempDir, TestNode) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bert.gguf");
    Bert::new(Pooling::Mean, 3).write(&file).unwrap();
    sentence::write(&folder.path().join("minilm"), 1).unwrap();
    let encoders = Arc::new(Encoders::new(folder.path().to_owned()));
    let known = Arc::clone(&encoders);
    let mut catalogue = Catalogue::new(None).with_encoders(move |name| encoder_meant(&known, name));
    catalogue.register("large", ember());
    catalogue.register("bert", file);
    let node = NodeOptions {
        encoders: Some(encoders),
        ..mesh(name, &["http", "quic"])
    };
    (folder, TestNode::serving(catalogue, options(), node))
}

fn embed(node: &TestNode, body: &Value) -> Reply {
    node.post("/v1/embeddings", body.to_string())
}

#[test]
fn vectors_come_from_the_machine_that_has_the_model() {
    let hub = node("hub", &["small"]);
    let (_folder, other) = embedder("gpubox");
    join(&hub, &other);
    knows_models(&hub, "gpubox", "bert");
    knows_models(&hub, "gpubox", "minilm");
    for (asked, model) in [
        ("bert", "bert"),
        ("gpubox/bert", "bert"),
        ("minilm", "minilm"),
        ("all-minilm", "minilm"),
        ("gpubox/minilm:latest", "minilm"),
    ] {
        let texts = ["warm fire", "cold snow"];
        let answer = embed(&hub, &json!({"model": asked, "input": texts}));
        assert_eq!(answer.status, 200, "{asked}: {answer:?}");
        assert_eq!(answer.header("hearth-node"), Some("gpubox"), "{asked}");
        assert!(answer.header("hearth-why").is_some());
        // To the last bit what that machine itself says.
        let own = embed(&other, &json!({"model": model, "input": texts}));
        assert_eq!(answer.json(), own.json(), "{asked}");
        assert_eq!(answer.json()["data"].as_array().unwrap().len(), 2);
    }
    let question = json!({"model": "all-minilm", "input": "warm fire", "keep_alive": "5m"});
    let ollama = hub.post("/api/embed", question.to_string());
    assert_eq!(ollama.status, 200, "{ollama:?}");
    assert_eq!(ollama.header("hearth-node"), Some("gpubox"));
    let expected = embed(&other, &json!({"model": "minilm", "input": "warm fire"})).json();
    assert_eq!(
        ollama.json()["embeddings"][0],
        expected["data"][0]["embedding"]
    );
    let older = json!({"model": "bert", "prompt": "warm fire"});
    let older = hub.post("/api/embeddings", older.to_string());
    assert_eq!(older.header("hearth-node"), Some("gpubox"), "{older:?}");
    assert!(!older.json()["embedding"].as_array().unwrap().is_empty());

    // What is wrong with a request is said as if it were wrong here.
    let long = vec!["fire"; 5_000].join(" ");
    let refused = embed(&hub, &json!({"model": "bert", "input": ["fire", long]}));
    assert_eq!(refused.status, 400, "{refused:?}");
    assert_eq!(refused.json()["error"]["param"], "input[1]");
    assert_eq!(refused.json()["error"]["code"], "context_length_exceeded");
    let alone = hub.post(
        "/api/embed",
        json!({"model": "bert", "input": long}).to_string(),
    );
    assert_eq!(alone.status, 400, "{alone:?}");
    assert!(alone.body.contains("\"input has"), "{alone:?}");
    let generates = embed(&hub, &json!({"model": "gpubox/large", "input": "fire"}));
    assert_eq!(generates.status, 404, "{generates:?}");
    assert!(
        generates
            .body
            .contains("it has for embeddings bert, minilm"),
        "{generates:?}"
    );
    let unknown = embed(&hub, &json!({"model": "nothing", "input": "fire"}));
    assert_eq!(unknown.status, 404, "{unknown:?}");
    // Without a name nobody else is asked: vectors of another model would not go with those of before.
    let unnamed = embed(&hub, &json!({"input": "fire"}));
    assert_eq!(unnamed.status, 400, "{unnamed:?}");
    assert_eq!(unnamed.header("hearth-node"), Some("hub"));
}

#[test]
fn vectors_come_from_another_machine_when_one_dies() {
    let hub = node("hub", &["small"]);
    let (_one, one) = embedder("one");
    let (_two, two) = embedder("two");
    join(&hub, &one);
    join(&hub, &two);
    knows_models(&hub, "one", "minilm");
    knows_models(&hub, "two", "minilm");
    let question = json!({"model": "minilm", "input": "warm fire"});
    let first = embed(&hub, &question);
    assert_eq!(first.status, 200, "{first:?}");
    let (dead, left) = match first.header("hearth-node") {
        Some("one") => (one, two),
        _ => (two, one),
    };
    drop(dead);
    let second = embed(&hub, &question);
    assert_eq!(second.status, 200, "{second:?}");
    assert_ne!(second.header("hearth-node"), first.header("hearth-node"));
    assert_eq!(second.json()["data"], first.json()["data"]);
    drop(left);
    let third = embed(&hub, &question);
    assert!((500..600).contains(&third.status), "{third:?}");
    assert!(third.body.contains("hearth doctor"), "{third:?}");
}

#[test]
fn tokens_are_counted_where_the_model_is() {
    let hub = node("hub", &["small"]);
    let other = node("gpubox", &["large"]);
    join(&hub, &other);
    knows_models(&hub, "gpubox", "large");
    for model in ["large", "gpubox/large"] {
        let message = |model: &str| {
            let messages = json!([{"role": "user", "content": "What is Hearth?"}]);
            json!({"model": model, "messages": messages}).to_string()
        };
        let path = "/v1/messages/count_tokens";
        let counted = hub.post(path, message(model));
        assert_eq!(counted.status, 200, "{counted:?}");
        assert_eq!(counted.header("hearth-node"), Some("gpubox"));
        assert_eq!(counted.json(), other.post(path, message("large")).json());
        assert!(counted.json()["input_tokens"].as_u64().unwrap() > 3);
        let path = "/v1/responses/input_tokens";
        let input = |model: &str| json!({"model": model, "input": "Hi there"}).to_string();
        let counted = hub.post(path, input(model));
        assert_eq!(counted.status, 200, "{counted:?}");
        assert_eq!(counted.header("hearth-node"), Some("gpubox"));
        assert_eq!(counted.json(), other.post(path, input("large")).json());
    }
    let unknown = json!({"model": "nothing", "messages": [{"role": "user", "content": "Hi"}]});
    let unknown = hub.post("/v1/messages/count_tokens", unknown.to_string());
    assert_eq!(unknown.status, 404, "{unknown:?}");
    assert_eq!(unknown.json()["type"], "error");
}

#[test]
fn models_of_other_machines_are_told_of() {
    let hub = node("hub", &["small"]);
    let (_folder, other) = embedder("gpubox");
    join(&hub, &other);
    knows_models(&hub, "gpubox", "minilm");
    for (asked, id, owner) in [
        ("large", "large", "gpubox"),
        ("LARGE:latest", "large", "gpubox"),
        ("gpubox/large", "gpubox/large", "gpubox"),
        ("gpubox/all-minilm", "gpubox/minilm", "gpubox"),
        ("hub/small", "hub/small", "hearth"),
        ("small", "small", "hearth"),
    ] {
        let model = hub.get(&format!("/v1/models/{asked}"));
        assert_eq!(model.status, 200, "{asked}: {model:?}");
        assert_eq!(model.json()["id"], id, "{asked}");
        assert_eq!(model.json()["owned_by"], owner, "{asked}");
        let version = [("anthropic-version", "2023-06-01")];
        let model = hub.get_with(&format!("/v1/models/{asked}"), &version);
        assert_eq!(model.json()["id"], id, "{asked}");
    }
    for nothing in ["gpubox/small", "hub/large", "nothing"] {
        let model = hub.get(&format!("/v1/models/{nothing}"));
        assert_eq!(model.status, 404, "{nothing}: {model:?}");
    }
    let listed = hub.get("/v1/models").json();
    let ids: Vec<&str> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["small", "bert", "large", "minilm"]);

    let show =
        |node: &TestNode, model: &str| node.post("/api/show", json!({"model": model}).to_string());
    for (asked, model) in [
        ("large", "large"),
        ("gpubox/large", "large"),
        ("minilm", "minilm"),
        ("gpubox/bert", "bert"),
    ] {
        let shown = show(&hub, asked);
        assert_eq!(shown.status, 200, "{asked}: {shown:?}");
        assert_eq!(shown.json(), show(&other, model).json(), "{asked}");
    }
    assert_eq!(
        show(&hub, "hub/small").json()["capabilities"],
        show(&hub, "small").json()["capabilities"]
    );
    assert_eq!(show(&hub, "gpubox/small").status, 404);
    let unknown = show(&hub, "nothing");
    assert_eq!(unknown.status, 404, "{unknown:?}");
    assert!(unknown.body.contains("not found"), "{unknown:?}");

    let status = hub.status();
    let names: Vec<(&str, bool)> = status
        .elsewhere
        .iter()
        .map(|model| (&*model.name, model.embeds))
        .collect();
    assert_eq!(names, [("bert", true), ("large", false), ("minilm", true)]);
    assert!(status.elsewhere.iter().all(|it| it.machine == "gpubox"));
    // People see them, too; the menu has those alone that can be talked to.
    let page = hub.visit("/models");
    assert!(page.body.contains("On the other machines"), "{page:?}");
    assert!(page.body.contains("hearth chat --model gpubox/large"));
    let page = hub.visit("/");
    assert!(page.body.contains("large (gpubox)</option>"), "{page:?}");
    assert!(!page.body.contains("minilm (gpubox)"), "{page:?}");
}

#[test]
fn a_model_that_another_machine_got_just_now_is_found() {
    type Asking = (&'static str, fn(&TestNode, &str) -> Reply);
    let ways: [Asking; 5] = [
        ("openai", |hub, model| ask(hub, model)),
        ("pinned", |hub, model| ask(hub, &format!("gpubox/{model}"))),
        ("ollama", |hub, model| {
            let chat = json!({"model": model, "stream": false, "options": {"num_predict": 2},
                "messages": [{"role": "user", "content": "Hi"}]});
            hub.post("/api/chat", chat.to_string())
        }),
        ("show", |hub, model| {
            hub.post("/api/show", json!({"model": model}).to_string())
        }),
        ("model", |hub, model| {
            hub.get(&format!("/v1/models/{model}"))
        }),
    ];
    for (name, way) in ways {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("old.gguf");
        std::fs::copy(ember(), &old).unwrap();
        let hub = node("hub", &["small"]);
        let other = TestNode::serving(
            Catalogue::new(Some(folder.path().to_owned())),
            options(),
            mesh("gpubox", &["http"]),
        );
        join(&hub, &other);
        knows_models(&hub, "gpubox", "old");
        std::fs::rename(&old, folder.path().join("new.gguf")).unwrap();
        let answer = way(&hub, "new");
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }
}

#[test]
fn whoever_asks_for_a_diagnosis_hears_at_once_that_the_hub_is_gone() {
    let hub = node("hub", &["small"]);
    let (one, two) = (node("one", &[]), node("two", &["large"]));
    join(&hub, &one);
    join(&hub, &two);
    wait_until(PATIENCE, "one reaches two", || {
        let found = one.get("/diagnosis?probe=true&peer=two");
        found.status == 200 && found.json()[0]["verdict"] == "usable"
    });
    drop(hub);
    let found = one.get("/diagnosis?probe=true&peer=two").json();
    let checks = found[0]["checks"].as_array().unwrap();
    let hub = checks.iter().find(|check| check["layer"] == "hub").unwrap();
    assert_eq!(hub["code"], "hub_unreachable", "{found:#}");
    assert_eq!(found[0]["verdict"], "usable", "{found:#}");
}

#[test]
fn how_long_a_model_stays_is_no_reason_to_load_it_here() {
    // Large enough that loading it is no trifle, and quick to compute.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.gguf");
    let shape = Shape {
        width: 1024,
        vocabulary: 40_000,
        ..Shape::TINY
    };
    write(&file, &shape, Quantisation::F16, 1).unwrap();
    let having = |name: &str| {
        let mut catalogue = Catalogue::new(None);
        catalogue.register("small", ember());
        catalogue.register("shared", file.clone());
        TestNode::serving(catalogue, options(), mesh(name, &["http", "quic"]))
    };
    let (hub, other) = (having("hub"), having("gpubox"));
    join(&hub, &other);
    assert_eq!(ask(&other, "gpubox/shared").status, 200);
    wait_until(PATIENCE, "it is known to be loaded there", || {
        hub.get("/diagnosis?probe=true&peer=gpubox");
        hub.status().elsewhere.iter().any(|model| model.loaded)
    });
    let chat = json!({"model": "shared", "stream": false, "options": {"num_predict": 1},
        "keep_alive": "5m", "messages": [{"role": "user", "content": "Hi"}]});
    let answer = hub.post("/api/chat", chat.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("hearth-node"), Some("gpubox"));
    let idle = |node: &TestNode| {
        let status = node.status();
        let own = status.models.iter().find(|model| model.name == "shared");
        own.unwrap().state == hearth_protocol::status::ModelState::Idle
    };
    assert!(idle(&hub) && !idle(&other));
    // Who asks nothing means this machine.
    let load = json!({"model": "shared", "keep_alive": "5m"});
    let loaded = hub.post("/api/generate", load.to_string());
    assert_eq!(loaded.status, 200, "{loaded:?}");
    assert!(!idle(&hub));
}
