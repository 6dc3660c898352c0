//! `/memory` as a resource: shapes, statuses, and what is sent wrong.

use hearth_testkit::node::{TestNode, options};
use serde_json::{Value, json};

fn post(node: &TestNode, path: &str, body: &Value) -> (u16, Value) {
    let reply = node.post(path, body.to_string());
    (reply.status, reply.json())
}

#[test]
fn a_memory_is_made_found_listed_and_forgotten() {
    let node = TestNode::start(options());
    let (status, written) = post(
        &node,
        "/memory",
        &json!({"text": "We chose SQLite", "kind": "decision", "project": "hearth", "tags": ["db"],
            "confidence": 0.9, "pinned": true, "source": "a test"}),
    );
    assert_eq!((status, &written["outcome"]), (201, &json!("stored")));
    let memory = &written["memory"];
    for (field, value) in [
        ("text", json!("We chose SQLite")),
        ("kind", json!("decision")),
        ("project", json!("hearth")),
        ("tags", json!(["db"])),
        ("pinned", json!(true)),
        ("source", json!("a test")),
        ("reads", json!(0)),
    ] {
        assert_eq!(memory[field], value, "{field}");
    }
    let id = memory["id"].as_str().unwrap();
    let (status, again) = post(
        &node,
        "/memory",
        &json!({"text": "we chose sqlite!", "project": "hearth"}),
    );
    assert_eq!(
        (status, &again["outcome"], &again["memory"]["id"]),
        (200, &json!("merged"), &json!(id))
    );
    let (status, found) = post(
        &node,
        "/memory/search",
        &json!({"query": "sqlite", "project": "hearth", "limit": 5, "min_confidence": 0.5}),
    );
    assert_eq!((status, &found["count"]), (200, &json!(1)));
    assert_eq!(found["memories"][0]["id"], id);
    assert!(found["memories"][0]["score"].as_f64().unwrap() > 0.0);
    let listed = node
        .get("/memory?project=hearth&kind=decision&tag=db&limit=1")
        .json();
    assert_eq!(
        (&listed["count"], &listed["next"]),
        (&json!(1), &Value::Null)
    );
    assert_eq!(node.get(&format!("/memory/{id}")).json()["id"], id);
    assert_eq!(node.get("/memory/stats").json()["memories"], 1);
    let (status, examined) = post(&node, "/memory/examine", &json!({}));
    assert_eq!((status, examined), (200, json!({"findings": []})));
    let gone = node.delete(&format!("/memory/{id}"), "");
    assert_eq!((gone.status, &gone.json()["id"]), (200, &json!(id)));
    assert_eq!(node.get(&format!("/memory/{id}")).status, 404);
}

#[test]
fn what_is_wrong_is_named_in_a_problem_document() {
    let node = TestNode::start(options());
    for (path, body, status, told) in [
        ("/memory", "{}", 400, "text"),
        ("/memory", "{\"text\": 1}", 400, "text"),
        ("/memory", "{\"text\": \"x\", \"txt\": 1}", 400, "txt"),
        (
            "/memory",
            "{\"text\": \"x\", \"confidence\": 7}",
            400,
            "confidence",
        ),
        ("/memory", "not json", 400, "JSON"),
        (
            "/memory",
            "{\"text\": \"x\", \"supersedes\": \"mem-1\"}",
            404,
            "mem-1",
        ),
        ("/memory/search", "{\"query\": \"\"}", 400, "query"),
        (
            "/memory/search",
            "{\"query\": \"x\", \"limit\": 0}",
            400,
            "limit",
        ),
        ("/memory/examine", "{\"fix\": 3}", 400, "fix"),
    ] {
        let reply = node.post(path, body);
        assert_eq!(reply.status, status, "{path} {body}");
        assert_eq!(
            reply.header("content-type"),
            Some("application/problem+json"),
            "{path} {body}"
        );
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(told), "{path} {body}: {detail}");
    }
    let huge = json!({"text": "x".repeat(70_000)}).to_string();
    let reply = node.post("/memory", huge);
    assert!(
        reply.status == 400
            && reply.json()["detail"]
                .as_str()
                .unwrap()
                .contains("divide it")
    );
    let invalid = node.post("/memory", b"{\"text\": \"\xFF\"}");
    assert!(invalid.status == 400 && invalid.json()["detail"].as_str().unwrap().contains("UTF-8"));
    for (path, told) in [
        ("/memory?limit=x", "limit"),
        ("/memory?limit=0", "limit"),
        ("/memory?order=up", "order"),
        ("/memory?after=mem-x", "after"),
    ] {
        let reply = node.get(path);
        assert_eq!(reply.status, 400, "{path}");
        assert!(
            reply.json()["detail"].as_str().unwrap().contains(told),
            "{path}"
        );
    }
}

#[test]
fn a_memory_that_was_superseded_is_a_conflict() {
    let node = TestNode::start(options());
    let (_, old) = post(&node, "/memory", &json!({"text": "The port is 8080"}));
    let id = old["memory"]["id"].as_str().unwrap();
    let (_, new) = post(
        &node,
        "/memory",
        &json!({"text": "The port is 8321", "supersedes": id}),
    );
    let (status, refused) = post(
        &node,
        "/memory",
        &json!({"text": "The port is 1", "supersedes": id}),
    );
    assert_eq!(status, 409);
    let newer = new["memory"]["id"].as_str().unwrap();
    assert!(
        refused["detail"].as_str().unwrap().contains(newer),
        "{refused}"
    );
}

#[test]
fn a_file_is_imported_and_an_export_makes_the_same_store() {
    let node = TestNode::start(options());
    let import = |node: &TestNode, query: &str, file: &str| {
        let reply = node.post(&format!("/memory/import?{query}"), file);
        (reply.status, reply.json())
    };
    let text = "# Ports\n\nStaging listens on 8443.\n";
    let (status, imported) = import(&node, "path=notes/ports.md&project=shop&tag=net", text);
    assert_eq!((status, &imported["stored"]), (200, &json!(1)));
    let (_, again) = import(&node, "path=notes/ports.md&project=shop&tag=net", text);
    assert_eq!(again["unchanged"], 1);
    let listed = node.get("/memory?project=shop&tag=net").json();
    assert_eq!(listed["memories"][0]["source"], "notes/ports.md");
    let exported = node.get("/memory/export");
    assert_eq!(
        exported.header("content-type").unwrap(),
        "application/x-ndjson"
    );
    let other = TestNode::start(options());
    let (status, imported) = import(&other, "path=e.jsonl", &exported.body);
    assert_eq!((status, &imported["stored"]), (200, &json!(1)));
    assert_eq!(other.get("/memory/export").body, exported.body);
    for (query, said) in [
        ("project=x", "path"),
        ("path=a.md&confidence=2", "confidence"),
        ("path=a.png", "Markdown"),
        ("path=/etc/a.md", "path: it begins with a root"),
        ("path=a.md&colour=1", "colour"),
    ] {
        let (status, problem) = import(&node, query, "x");
        assert_eq!(status, 400, "{query}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(said), "{query}: {detail}");
    }
}

#[test]
fn several_tags_narrow_a_list_and_mark_an_import() {
    let node = TestNode::start(options());
    let file = b"# Ports\n\nStaging listens on 9443.\n";
    let query = "path=ports.md&tag=net&confidence=1&tag=a%2C+b%26%C3%A9";
    let reply = node.post(&format!("/memory/import?{query}"), file);
    assert_eq!(reply.status, 200, "{reply:?}");
    post(
        &node,
        "/memory",
        &json!({"text": "Lunch is at noon", "tags": ["net"]}),
    );
    let count = |query: &str| node.get(&format!("/memory?{query}")).json()["count"].clone();
    assert_eq!(count("tag=net"), 2);
    assert_eq!(count("tag=net&limit=5&tag=a,%20b%26%c3%a9"), 1);
    assert_eq!(count("tag=net&tag=other"), 0);
    for (query, part) in [
        ("tag=%ff", "tag: "),
        ("tag=a&tags=b", "tags"),
        ("tag=a&limit=x", "limit"),
        ("tag=", "tags"),
    ] {
        let refused = node.get(&format!("/memory?{query}"));
        assert_eq!(refused.status, 400, "{query}: {refused:?}");
        assert!(refused.body.contains(part), "{query}: {}", refused.body);
    }
    let documented = node.get("/openapi.json").json();
    let parameters = documented["paths"]["/memory"]["get"]["parameters"]
        .as_array()
        .unwrap();
    let tag = parameters.iter().find(|one| one["name"] == "tag").unwrap();
    assert_eq!(tag["schema"]["type"], "array", "{tag}");
    assert_eq!(tag["required"], false, "{tag}");
}

#[test]
fn the_page_follows_a_tag_that_begins_with_a_hash() {
    let node = TestNode::start(options());
    post(
        &node,
        "/memory",
        &json!({"text": "Tagged oddly", "tags": ["#net"]}),
    );
    let page = node.get("/memories");
    let link = page.body.split("href=\"/memories?tag=").nth(1).unwrap();
    let (tag, _) = link.split_once('"').unwrap();
    let followed = node.get(&format!("/memories?tag={tag}"));
    assert!(
        followed.body.contains("Tagged oddly"),
        "{tag}: {}",
        followed.body
    );
}
