//! What a node stores in its home, across the node's end and a file that is not its own.

use serde_json::{Value, json};

use crate::household::{Household, Node};

fn asked(node: &Node, body: &Value) -> Value {
    let url = format!("http://{}/v1/responses", node.address);
    let request = ureq::post(&url).content_type("application/json");
    let mut answer = request.send(&body.to_string()).unwrap();
    serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
}

fn found(node: &Node, id: &str) -> Value {
    let url = format!("http://{}/v1/responses/{id}", node.address);
    let mut answer = ureq::get(&url).call().unwrap();
    serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
}

#[test]
fn an_answer_outlives_a_node_that_is_killed() {
    let household = Household::new();
    let mut node = household.serve(&[]);
    let first = asked(
        &node,
        &json!({"input": "what is hearth", "max_output_tokens": 12}),
    );
    node.child.kill().unwrap();
    node.child.wait().unwrap();
    assert!(household.home().join("hearth.db").is_file());

    let node = household.serve(&[]);
    let id = first["id"].as_str().unwrap();
    assert_eq!(found(&node, id), first);
    let next = json!({"input": "and why", "previous_response_id": id, "max_output_tokens": 12});
    let next = asked(&node, &next);
    assert_eq!(next["previous_response_id"], first["id"]);
}

#[test]
fn a_database_that_is_none_is_named_and_left_alone() {
    let household = Household::new();
    std::fs::create_dir_all(household.home()).unwrap();
    let file = household.home().join("hearth.db");
    let text = "these are my notes\n".repeat(100);
    std::fs::write(&file, &text).unwrap();
    let ran = household.hearth(&["serve"]).ends_with(1);
    assert!(
        ran.err.contains("hearth.db") && ran.err.contains("move it away"),
        "{}",
        ran.err
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}
