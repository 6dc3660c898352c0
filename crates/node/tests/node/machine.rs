//! What this machine can do, over HTTP.

use hearth_testkit::node::{TestNode, options};
use serde_json::json;

#[test]
fn the_machine_is_measured_when_asked_and_shown_on_the_page() {
    let node = TestNode::start(options());
    assert_eq!(
        node.get("/machine").json(),
        json!({"machine": null, "models": []})
    );
    assert!(node.get("/models").body.contains("Measure this machine"));
    let measured = node.post("/machine", "");
    assert_eq!(measured.status, 200, "{measured:?}");
    let report = measured.json();
    assert!(report["machine"]["weight_bytes_per_second"].as_f64() > Some(1e6));
    let models = report["models"].as_array().unwrap();
    assert!(models.len() > 20);
    let sizes: Vec<u64> = models
        .iter()
        .map(|model| model["estimate"]["bytes"].as_u64().unwrap())
        .collect();
    assert!(sizes.is_sorted(), "the smallest first");
    assert_eq!(node.get("/machine").json(), report);
    assert!(node.get("/models").body.contains("qwen3:1.7b"));
}

#[test]
fn the_page_may_send_its_form() {
    let node = TestNode::start(options());
    let page = node.get("/models");
    // With `no-referrer` a browser sends `Origin: null`, which is refused.
    assert_eq!(page.header("referrer-policy"), Some("same-origin"));
}
