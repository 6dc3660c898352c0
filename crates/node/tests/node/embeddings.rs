//! `POST /v1/embeddings` over HTTP.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hearth_engine::Catalogue;
use hearth_testkit::bert::{self, Bert, Pooling, WIDTH};
use hearth_testkit::node::{Reply, TestNode, ember, node_options, options};
use serde_json::{Value, json};

/// A node with an embedding model, `bert`, and one that generates, `ember`; the first of these names is the default.
fn node(names: [&str; 2]) -> (tempfile::TempDir, TestNode) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bert.gguf");
    Bert::new(Pooling::Mean, 3).write(&file).unwrap();
    let mut catalogue = Catalogue::new(None);
    for name in names {
        let path = if name == "ember" {
            ember()
        } else {
            file.clone()
        };
        catalogue.register(name, path);
    }
    let node = TestNode::serving(catalogue, options(), node_options());
    (folder, node)
}

fn embed(node: &TestNode, body: Value) -> Reply {
    node.post("/v1/embeddings", body.to_string())
}

/// The vectors of an answer, which must be well formed.
fn vectors(reply: &Reply) -> Vec<Vec<f32>> {
    assert_eq!(reply.status, 200, "{reply:?}");
    let body = reply.json();
    assert_eq!(body["object"], "list");
    assert_eq!(
        body["usage"]["total_tokens"],
        body["usage"]["prompt_tokens"]
    );
    let data = body["data"].as_array().unwrap();
    let vector = |(index, entry): (usize, &Value)| {
        assert_eq!(entry["object"], "embedding");
        assert_eq!(entry["index"], index);
        match &entry["embedding"] {
            Value::String(text) => {
                let bytes = STANDARD.decode(text).unwrap();
                let floats = bytes
                    .chunks_exact(4)
                    .map(|four| f32::from_le_bytes(four.try_into().unwrap()));
                floats.collect()
            }
            numbers => serde_json::from_value::<Vec<f32>>(numbers.clone()).unwrap(),
        }
    };
    data.iter().enumerate().map(vector).collect()
}

#[test]
fn texts_and_tokens_become_vectors_in_both_formats() {
    let (_folder, node) = node(["ember", "bert"]);
    let one = embed(&node, json!({"model": "bert", "input": "warm fire"}));
    let body = one.json();
    assert_eq!(body["model"], "bert");
    assert_eq!(body["usage"]["prompt_tokens"], 4);
    let first = &vectors(&one)[0];
    assert_eq!(first.len(), WIDTH);

    let bert = Bert::new(Pooling::Mean, 3);
    let word = |word: &str| bert.token(word).unwrap();
    let tokens = [bert::CLS, word("▁warm"), word("▁fire"), bert::SEP];
    for input in [json!(["warm fire"]), json!(tokens), json!([tokens])] {
        let again = embed(&node, json!({"model": "bert", "input": input}));
        assert_eq!(&vectors(&again)[0], first, "{input}");
    }
    let several = json!({"model": "bert", "input": ["cold water", "warm fire"], "user": "me"});
    let both = vectors(&embed(&node, several));
    let likeness: f32 = both[1].iter().zip(first).map(|(a, b)| a * b).sum();
    assert!(both.len() == 2 && (1.0 - likeness).abs() < 1e-4, "{both:?}");
    for format in ["float", "base64"] {
        let asked = json!({"model": "bert", "input": "warm fire", "encoding_format": format});
        let written = vectors(&embed(&node, asked));
        assert_eq!(&written[0], first, "{format}");
    }
    let short = json!({"model": "bert", "input": "warm fire", "dimensions": 4});
    let short = &vectors(&embed(&node, short))[0];
    let square: f32 = short.iter().map(|x| x * x).sum();
    assert!(short.len() == 4 && (square - 1.0).abs() < 1e-5, "{short:?}");
}

#[test]
fn as_many_texts_as_openai_takes_are_taken_and_counted() {
    let (_folder, node) = node(["ember", "bert"]);
    let texts = vec!["hearth"; 2048];
    let reply = embed(&node, json!({"input": texts}));
    let all = vectors(&reply);
    assert_eq!(all.len(), 2048);
    assert_eq!(reply.json()["model"], "bert", "the one model that embeds");
    let counted = node.get("/metrics").body;
    assert!(
        counted.contains("gen_ai_token_type=\"input\"} 6144.0"),
        "{counted}"
    );
    let status = node.status();
    let model = |name: &str| {
        status
            .models
            .iter()
            .find(|model| model.name == name)
            .unwrap()
    };
    assert_eq!(model("bert").dimensions, Some(WIDTH as u32));
    assert_eq!(model("ember").dimensions, None);
}

#[test]
fn what_is_wrong_is_said_in_openais_shape() {
    let (_folder, node) = node(["ember", "bert"]);
    let long = "a ".repeat(400);
    let cases = [
        (json!({}), 400, "input", "missing field"),
        (json!({"input": 5}), 400, "input", "expected a string"),
        (
            json!({"input": [1, "a"]}),
            400,
            "input",
            "expected a string",
        ),
        (json!({"input": []}), 400, "input", "1 to 2048"),
        (json!({"input": vec!["a"; 2049]}), 400, "input", "not 2049"),
        (json!({"input": ""}), 400, "input", "input is empty"),
        (
            json!({"input": ["a", ""]}),
            400,
            "input",
            "input[1] is empty",
        ),
        (
            json!({"input": [5, 9999]}),
            400,
            "input",
            "token 9999 is not",
        ),
        (
            json!({"input": long}),
            400,
            "input",
            "input has 402 tokens and at most 128 fit",
        ),
        (
            json!({"input": ["a", long]}),
            400,
            "input[1]",
            "input[1] has 402 tokens",
        ),
        (
            json!({"input": "a", "dimensions": 64}),
            400,
            "dimensions",
            "1 to 32",
        ),
        (
            json!({"input": "a", "encoding_format": "hex"}),
            400,
            "encoding_format",
            "base64",
        ),
        (
            json!({"input": "a", "model": "ember"}),
            400,
            "model",
            "hearth pull",
        ),
        (
            json!({"input": "a", "model": "gpt-9"}),
            404,
            "model",
            "gpt-9",
        ),
    ];
    for (mut body, status, param, part) in cases {
        let fields = body.as_object_mut().unwrap();
        fields.entry("model").or_insert(json!("bert"));
        let reply = embed(&node, body.clone());
        let error = &reply.json()["error"];
        assert_eq!(
            (reply.status, &error["param"]),
            (status, &json!(param)),
            "{reply:?}"
        );
        assert_eq!(error["type"], "invalid_request_error");
        assert!(
            error["message"].as_str().unwrap().contains(part),
            "{reply:?}"
        );
    }
    let long = embed(&node, json!({"input": long, "model": "bert"})).json();
    assert_eq!(long["error"]["code"], "context_length_exceeded");

    let chat = json!({"model": "bert", "messages": [{"role": "user", "content": "hi"}]});
    let reply = node.post("/v1/chat/completions", chat.to_string());
    let said = reply.json()["error"]["message"].to_string();
    assert!(
        reply.status == 400 && said.contains("embeds texts"),
        "{reply:?}"
    );
    // Nothing was left behind.
    assert_eq!(vectors(&embed(&node, json!({"input": "a"}))).len(), 1);
}

#[test]
fn a_node_without_an_embedding_model_says_where_to_get_one() {
    let node = TestNode::start(options());
    let reply = embed(&node, json!({"input": "a"}));
    let error = &reply.json()["error"];
    assert_eq!(
        (reply.status, &error["code"]),
        (400, &json!("unsupported_model"))
    );
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("nomic-embed-text"),
        "{error}"
    );
    let described = node.get("/openapi.json").json();
    assert!(described["paths"]["/v1/embeddings"]["post"].is_object());
    assert_eq!(node.get("/v1/embeddings").status, 405);
}

#[test]
fn whoever_asks_for_openais_embedding_model_is_told_of_one_that_embeds() {
    let asked = json!({"model": "text-embedding-3-small", "input": "a"});
    let said = |node: &TestNode| {
        let reply = embed(node, asked.clone());
        assert_eq!(reply.status, 404, "{reply:?}");
        reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let mut catalogue = Catalogue::new(None).with_advice(hearth_models::how_to_get);
    catalogue.register("ember", ember());
    let node = TestNode::serving(catalogue, options(), node_options());
    let message = said(&node);
    assert!(
        message.contains("hearth pull nomic-embed-text"),
        "{message}"
    );

    let (_folder, node) = self::node(["bert", "ember"]);
    let message = said(&node);
    assert!(message.ends_with("for embeddings: `bert`"), "{message}");
}

#[test]
fn a_node_whose_default_model_embeds_is_healthy() {
    let (_folder, node) = node(["bert", "ember"]);
    let health = node.get("/health");
    assert_eq!(
        (health.status, &health.json()["model"]),
        (200, &json!("bert"))
    );
    let reply = embed(&node, json!({"input": "warm"}));
    assert_eq!(reply.json()["model"], "bert");
}
