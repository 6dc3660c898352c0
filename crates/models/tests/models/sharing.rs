//! Models from another machine of the house: a real node serves its store.

use hearth_models::{Cancel, ModelStore, PeerModels, Reason, Source, pull};
use hearth_testkit::node::{TestNode, options};
use serde_json::json;

use crate::household::{House, REPO, answer_once, network, usual};

fn node(store: &ModelStore) -> TestNode {
    TestNode::sharing(store.clone())
}

#[test]
fn a_model_comes_from_a_peer_without_a_hub() {
    let first = House::new();
    let there = first.pull(REPO).unwrap().model;
    let node = node(&first.store);
    let second = House::new();
    // No hub: who asks one fails.
    let network = network("http://127.0.0.1:1");
    let from = node.address().to_string();
    let pulled = pull(
        &second.store,
        REPO,
        Some(&from),
        &network,
        &Cancel::new(),
        &mut |_| {},
    )
    .unwrap();
    assert_eq!(pulled.model.name, there.name);
    assert_eq!(pulled.model.files, there.files);
    assert_eq!(pulled.model.facts, there.facts);
    second.assert_installed(&pulled.model, usual());
    let Source::Peer { address, repo } = &pulled.model.source else {
        panic!("{:?}", pulled.model.source);
    };
    assert_eq!(*address, format!("http://{from}"));
    assert_eq!(repo.as_deref(), Some(REPO));

    let error = pull(
        &second.store,
        "qwen3:8b",
        Some(&from),
        &network,
        &Cancel::new(),
        &mut |_| {},
    );
    let error = error.unwrap_err();
    assert_eq!(error.reason(), Reason::NotFound);
    assert!(
        error
            .to_string()
            .contains("it has: hf:org/tiny-GGUF:Q4_K_M"),
        "{error}"
    );
}

#[test]
fn a_peer_whose_file_is_damaged_cannot_spread_it() {
    let first = House::new();
    let there = first.pull(REPO).unwrap().model;
    let path = first.store.path(&there);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let node = node(&first.store);
    let second = House::new();
    let from = node.url("");
    let fetch = || {
        let network = network("http://127.0.0.1:1");
        pull(
            &second.store,
            REPO,
            Some(&from),
            &network,
            &Cancel::new(),
            &mut |_| {},
        )
        .unwrap_err()
    };
    assert_eq!(fetch().reason(), Reason::Corrupt);
    second.assert_nothing_installed();
    // Once its owner has checked, it is not even offered.
    first
        .store
        .verify(None, &Cancel::new(), &mut |_, _| {})
        .unwrap();
    assert_eq!(fetch().reason(), Reason::NotFound);
}

#[test]
fn the_routes_of_a_peer_serve_ranges_and_nothing_but_blobs() {
    let house = House::new();
    let model = house.pull(REPO).unwrap().model;
    let secret = house.folder().join("secret.gguf");
    std::fs::write(&secret, usual()).unwrap();
    house
        .store
        .import(
            &secret,
            Some("mine"),
            hearth_models::Take::Copy,
            &Cancel::new(),
            &mut |_, _| {},
        )
        .unwrap();
    let node = node(&house.store);
    let listed: PeerModels = serde_json::from_str(&node.get("/peer/models").body).unwrap();
    assert_eq!(listed.models.len(), 2);
    let text = node.get("/peer/models").body;
    assert!(
        !text.contains("secret.gguf\"}") && !text.contains(house.folder().to_str().unwrap()),
        "{text}"
    );

    let blob = format!("/peer/blobs/{}", model.files[0].digest.file());
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .new_agent();
    let get = |path: &str, range: &str| {
        let mut answer = agent
            .get(node.url(path))
            .header("range", range)
            .call()
            .unwrap();
        let range = answer
            .headers()
            .get("content-range")
            .map(|it| it.to_str().unwrap().to_owned());
        let bytes = answer.body_mut().read_to_vec().unwrap();
        (answer.status().as_u16(), range, bytes)
    };
    let total = usual().len();
    let (status, range, bytes) = get(&blob, "bytes=10-19");
    assert_eq!((status, range), (206, Some(format!("bytes 10-19/{total}"))));
    assert_eq!(bytes, usual()[10..20]);
    let (status, _, bytes) = get(&blob, "bytes=0-1,5-6");
    assert!(status == 200 && bytes == usual());
    let (status, range, _) = get(&blob, &format!("bytes={total}-"));
    assert_eq!((status, range), (416, Some(format!("bytes */{total}"))));
    for path in [
        "/peer/blobs/sha256-0000",
        "/peer/blobs/..%2fnames%2fmine%253alatest.json",
        &format!("/peer/blobs/sha256-{}", "0".repeat(64)),
        &format!("{blob}.damaged"),
    ] {
        let answer = node.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
    }
}

#[test]
fn a_node_without_models_says_so() {
    let node = TestNode::start(options());
    assert_eq!(node.get("/peer/models").status, 404);
    let house = House::new();
    let from = node.url("");
    let error = pull(
        &house.store,
        REPO,
        Some(&from),
        &house.network(),
        &Cancel::new(),
        &mut |_| {},
    );
    assert_eq!(error.unwrap_err().reason(), Reason::NotFound);
}

/// What is said when another machine refuses.
fn refused_by(from: &str) -> String {
    let house = House::new();
    let (network, cancel) = (house.network(), Cancel::new());
    let pulled = pull(
        &house.store,
        REPO,
        Some(from),
        &network,
        &cancel,
        &mut |_| {},
    );
    let error = pulled.unwrap_err();
    assert_eq!(error.reason(), Reason::Denied, "{error}");
    error.to_string()
}

#[test]
fn each_refusal_of_a_peer_is_told_apart() {
    let refuse = |body: &str| {
        let (address, server) = answer_once("403 Forbidden", body.to_owned());
        let said = refused_by(&address.to_string());
        server.join().unwrap();
        said
    };
    let problem = |kind: &str, detail: &str| {
        let document = json!({
            "type": format!("/problems/{kind}"), "title": "Forbidden", "status": 403, "detail": detail,
        });
        refuse(&document.to_string())
    };
    let said = problem("not_local", "this machine does not share its models");
    assert!(said.contains("set share_models = \"on\""), "{said}");
    let said = problem("locked", "the owner\u{1b}[2J sleeps");
    assert!(said.contains("refuses: the owner[2J sleeps"), "{said}");
    let said = refuse("<html>no</html>");
    assert!(said.contains("refuses with HTTP status 403"), "{said}");
}

#[cfg(unix)]
#[test]
fn a_peer_that_is_asked_by_a_name_it_does_not_know_says_which_it_does() {
    let house = House::new();
    house.pull(REPO).unwrap();
    let node = node(&house.store);
    // Another way to write 127.0.0.1, and no name of the node's.
    let said = refused_by(&format!("127.1:{}", node.address().port()));
    let own = node.address().to_string();
    assert!(
        said.contains("does not go by that name") && said.contains(&own),
        "{said}"
    );
}
