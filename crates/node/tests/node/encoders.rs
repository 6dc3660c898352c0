//! Sentence encoders over HTTP: `/v1/embeddings` and Ollama's `/api/embed`, and where models are listed.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hearth_encoder::{Encoder, Encoders, Role};
use hearth_engine::Catalogue;
use hearth_node::{NodeOptions, encoder_meant};
use hearth_testkit::bert::{Bert, Pooling};
use hearth_testkit::node::{TestNode, ember, node_options, options};
use hearth_testkit::sentence::{self, CONTEXT, WIDTH};
use serde_json::{Value, json};

/// A node with `ember` and a folder of encoders that holds `minilm`.
struct Home {
    node: TestNode,
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let mut catalogue = Catalogue::new(None);
        catalogue.register("ember", ember());
        Self::with(catalogue)
    }

    fn with(catalogue: Catalogue) -> Self {
        let folder = tempfile::tempdir().unwrap();
        sentence::write(&folder.path().join("minilm"), 1).unwrap();
        let encoders = Arc::new(Encoders::new(folder.path().to_owned()));
        let known = Arc::clone(&encoders);
        let catalogue = catalogue.with_encoders(move |name| encoder_meant(&known, name));
        let node = NodeOptions {
            encoders: Some(encoders),
            ..node_options()
        };
        let node = TestNode::serving(catalogue, options(), node);
        Self { node, folder }
    }

    /// What the encoder itself says of a text.
    fn vector(&self, text: &str) -> Vec<f32> {
        let encoder = Encoder::open(&self.folder.path().join("minilm")).unwrap();
        encoder.encode(text, Role::Plain).unwrap().vector
    }

    fn openai(&self, body: Value) -> Value {
        let reply = self.node.post("/v1/embeddings", body.to_string());
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    fn ollama(&self, body: Value) -> Value {
        let reply = self.node.post("/api/embed", body.to_string());
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }
}

fn numbers(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// A text of so many tokens, the two around it included.
fn long(tokens: usize) -> String {
    vec!["fire"; tokens - 2].join(" ")
}

#[test]
fn openais_clients_get_the_encoders_vectors() {
    let home = Home::new();
    let expected = home.vector("warm fire");
    for name in [
        "minilm",
        "MiniLM",
        "minilm:latest",
        "all-minilm",
        "sentence-transformers/all-MiniLM-L6-v2",
    ] {
        let body = home.openai(json!({"model": name, "input": "warm fire"}));
        assert_eq!(numbers(&body["data"][0]["embedding"]), expected, "{name}");
        assert_eq!(body["model"], "minilm");
        assert_eq!(
            body["usage"],
            json!({"prompt_tokens": 4, "total_tokens": 4})
        );
    }
    let texts = ["cold snow", "warm fire", "water"];
    let body = home.openai(json!({"model": "minilm", "input": texts, "encoding_format": "base64", "dimensions": WIDTH}));
    for (index, text) in texts.iter().enumerate() {
        assert_eq!(body["data"][index]["index"], index);
        let bytes = STANDARD
            .decode(body["data"][index]["embedding"].as_str().unwrap())
            .unwrap();
        let floats = bytes
            .chunks_exact(4)
            .map(|four| f32::from_le_bytes(four.try_into().unwrap()));
        assert_eq!(floats.collect::<Vec<_>>(), home.vector(text), "{text}");
    }
    // As many as OpenAI takes, and counted.
    let many = home.openai(json!({"model": "minilm", "input": vec!["hearth"; 2048]}));
    assert_eq!(many["data"].as_array().unwrap().len(), 2048);
    assert_eq!(many["usage"]["prompt_tokens"], 3 * 2048);
    // Nobody was named, and no model here embeds.
    assert_eq!(
        home.openai(json!({"input": long(CONTEXT)}))["model"],
        "minilm"
    );
    let metrics = home.node.get("/metrics").body;
    assert!(metrics.contains("minilm"), "{metrics}");
}

#[test]
fn ollamas_clients_get_them_too() {
    let home = Home::new();
    let expected = home.vector("warm fire");
    let body =
        home.ollama(json!({"model": "all-minilm", "input": "warm fire", "keep_alive": "5m"}));
    assert_eq!(body["model"], "all-minilm");
    assert_eq!(body["prompt_eval_count"], 4);
    assert_eq!(numbers(&body["embeddings"][0]), expected);
    let both =
        home.ollama(json!({"model": "minilm", "input": ["cold", "warm fire"], "dimensions": 0}));
    assert_eq!(numbers(&both["embeddings"][1]), expected);
    let old = json!({"model": "minilm", "prompt": "warm fire"}).to_string();
    let old = home.node.post("/api/embeddings", old).json();
    assert_eq!(numbers(&old["embedding"]), expected);
    // Without a text it is opened, and that is all.
    assert_eq!(
        home.ollama(json!({"model": "minilm"}))["embeddings"],
        json!([])
    );
    // What is too long is cut, as Ollama does, unless it may not be.
    let cut = home.ollama(json!({"model": "minilm", "input": long(CONTEXT + 9)}));
    assert_eq!(cut["prompt_eval_count"], CONTEXT);
    assert_eq!(numbers(&cut["embeddings"][0]), home.vector(&long(CONTEXT)));
    let kept =
        json!({"model": "minilm", "input": long(CONTEXT + 9), "truncate": false}).to_string();
    let refused = home.node.post("/api/embed", kept);
    assert_eq!(refused.status, 400);
    let said = format!("input has {} tokens and at most {CONTEXT} fit", CONTEXT + 9);
    assert!(refused.body.contains(&said), "{refused:?}");
    for (body, words) in [
        (
            json!({"model": "minilm", "input": "a", "dimensions": 8}),
            "dimensions must be 32",
        ),
        (
            json!({"model": "minilm", "input": ["a", ""]}),
            "input[1] is empty",
        ),
        (
            json!({"model": "minilm", "input": "a", "options": {"num_ctx": 4096}}),
            "takes 32 tokens",
        ),
    ] {
        let reply = home.node.post("/api/embed", body.to_string());
        assert_eq!(reply.status, 400, "{reply:?}");
        assert!(reply.body.contains(words), "{reply:?}");
    }
}

#[test]
fn what_an_encoder_cannot_do_is_said() {
    let home = Home::new();
    for (body, param, words) in [
        (json!({"input": ""}), "input", "input is empty"),
        (json!({"input": ["a", ""]}), "input", "input[1] is empty"),
        (json!({"input": [5, 6]}), "input", "this model takes texts"),
        (
            json!({"input": [[5], [6]]}),
            "input",
            "input[0] is a list of tokens",
        ),
        (
            json!({"input": "a", "dimensions": 8}),
            "dimensions",
            "must be 32 for this model, not 8",
        ),
        (
            json!({"input": long(CONTEXT + 1)}),
            "input",
            "has 33 tokens and at most 32 fit",
        ),
        (
            json!({"input": ["a", long(CONTEXT + 1)]}),
            "input[1]",
            "input[1] has 33 tokens",
        ),
        (json!({"input": vec!["a"; 2049]}), "input", "not 2049"),
    ] {
        let mut body = body;
        body["model"] = "minilm".into();
        let reply = home.node.post("/v1/embeddings", body.to_string());
        assert_eq!(reply.status, 400, "{reply:?}");
        let error = &reply.json()["error"];
        assert_eq!(error["param"], param, "{error}");
        assert!(
            error["message"].as_str().unwrap().contains(words),
            "{error}"
        );
    }
    // Whoever wants an answer of it is told what it is.
    let messages = json!([{"role": "user", "content": "hi"}]);
    for (path, body) in [
        (
            "/v1/chat/completions",
            json!({"model": "all-minilm", "messages": messages}),
        ),
        (
            "/v1/completions",
            json!({"model": "minilm", "prompt": "hi"}),
        ),
        (
            "/v1/messages",
            json!({"model": "minilm", "max_tokens": 5, "messages": messages}),
        ),
        (
            "/api/chat",
            json!({"model": "minilm:latest", "messages": messages}),
        ),
        ("/api/generate", json!({"model": "minilm", "prompt": "hi"})),
    ] {
        let reply = home.node.post(path, body.to_string());
        assert_eq!(reply.status, 400, "{path}: {reply:?}");
        assert!(
            reply
                .body
                .contains("`minilm` embeds texts and generates none; name another model"),
            "{path}: {reply:?}"
        );
    }
    // Files that are damaged are an error of the node, and mending them is enough.
    let broken = home.folder.path().join("broken");
    sentence::write(&broken, 2).unwrap();
    let sound = std::fs::read(broken.join("model.safetensors")).unwrap();
    std::fs::write(broken.join("model.safetensors"), &sound[..100]).unwrap();
    let ask = || {
        home.node.post(
            "/v1/embeddings",
            json!({"model": "broken", "input": "a"}).to_string(),
        )
    };
    let reply = ask();
    assert_eq!(reply.status, 500);
    assert!(reply.body.contains("model.safetensors"), "{reply:?}");
    std::fs::write(broken.join("model.safetensors"), sound).unwrap();
    assert_eq!(ask().status, 200);
    let nobody = home.node.post(
        "/v1/embeddings",
        json!({"model": "bge-small", "input": "a"}).to_string(),
    );
    assert_eq!(nobody.status, 404);
    assert!(nobody.body.contains("bge-small"), "{nobody:?}");
}

#[test]
fn encoders_are_listed_as_embedding_models() {
    let home = Home::new();
    let names = |list: &Value, field: &str| -> Vec<String> {
        let entries = list.as_array().unwrap().iter();
        entries
            .map(|entry| entry[field].as_str().unwrap().to_owned())
            .collect()
    };
    let models = home.node.get("/v1/models").json();
    assert_eq!(names(&models["data"], "id"), ["ember", "minilm"]);
    let one = home.node.get("/v1/models/all-minilm").json();
    assert_eq!(one["id"], "minilm");
    assert!(one["created"].as_u64().unwrap() > 0);
    let anthropic = home
        .node
        .get_with("/v1/models", &[("anthropic-version", "2023-06-01")])
        .json();
    assert_eq!(names(&anthropic["data"], "id"), ["ember", "minilm"]);
    let tags = home.node.get("/api/tags").json();
    assert_eq!(
        names(&tags["models"], "name"),
        ["ember:latest", "minilm:latest"]
    );
    let minilm = &tags["models"][1];
    assert_eq!(minilm["capabilities"], json!(["embedding"]));
    assert_eq!(minilm["details"]["family"], "bert");
    assert_eq!(minilm["details"]["format"], "safetensors");
    assert_eq!(minilm["digest"].as_str().unwrap().len(), 64);
    assert!(minilm["size"].as_u64().unwrap() > 0);
    let show = home
        .node
        .post("/api/show", json!({"model": "minilm"}).to_string())
        .json();
    assert_eq!(show["capabilities"], json!(["embedding"]));
    assert_eq!(show["model_info"]["bert.embedding_length"], WIDTH);
    assert_eq!(show["model_info"]["bert.context_length"], CONTEXT);
    // What is fetched while the node runs is there.
    sentence::write(&home.folder.path().join("e5-small"), 2).unwrap();
    let models = home.node.get("/v1/models").json();
    assert_eq!(
        names(&models["data"], "id"),
        ["ember", "e5-small", "minilm"]
    );
    let asked = json!({"model": "e5-small"}).to_string();
    assert_eq!(home.node.delete("/api/delete", &asked).status, 200);
    let models = home.node.get("/v1/models").json();
    assert_eq!(names(&models["data"], "id"), ["ember", "minilm"]);
    sentence::write(&home.folder.path().join("e5-small"), 2).unwrap();
    assert_eq!(
        home.openai(json!({"model": "e5-small-v2", "input": "a"}))["model"],
        "e5-small"
    );
}

#[test]
fn what_is_removed_is_gone_and_what_comes_in_its_place_answers() {
    let home = Home::new();
    let ask = json!({"model": "minilm", "input": "warm fire"});
    let first = home.openai(ask.clone());
    let name = json!({"model": "minilm"}).to_string();
    assert_eq!(home.node.delete("/api/delete", &name).status, 200);
    let posted = |path: &str, body: &str| home.node.post(path, body).status;
    assert_eq!(posted("/v1/embeddings", &ask.to_string()), 404);
    assert_eq!(posted("/api/embed", &ask.to_string()), 404);
    assert_eq!(posted("/api/show", &name), 404);
    // As `hearth pull` brings it while the node runs.
    sentence::write(&home.folder.path().join("minilm"), 2).unwrap();
    let second = home.openai(ask);
    assert_ne!(first["data"], second["data"]);
    assert_eq!(
        numbers(&second["data"][0]["embedding"]),
        home.vector("warm fire")
    );
}

#[test]
fn of_a_text_that_is_no_text_only_the_beginning_is_looked_at() {
    let home = Home::new();
    let most = CONTEXT * 400;
    let huge = format!("warm{}fire", " ".repeat(most));
    let refused = home.node.post(
        "/v1/embeddings",
        json!({"model": "minilm", "input": ["a", huge]}).to_string(),
    );
    assert_eq!(refused.status, 400, "{refused:?}");
    let said = format!(
        "input[1] has {} bytes and at most {most} are read",
        huge.len()
    );
    assert!(refused.body.contains(&said), "{refused:?}");
    let cut = home.ollama(json!({"model": "minilm", "input": huge}));
    assert_eq!(
        cut["prompt_eval_count"], 3,
        "the one word and what stands around it"
    );
    // Within a character nothing is cut.
    let cut = home.ollama(json!({"model": "minilm", "input": format!("a{}", "ü".repeat(most))}));
    assert_eq!(cut["embeddings"].as_array().unwrap().len(), 1);
}

#[test]
fn a_model_of_the_same_name_goes_before() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("minilm.gguf");
    Bert::new(Pooling::Mean, 3).write(&file).unwrap();
    let mut catalogue = Catalogue::new(None);
    catalogue.register("ember", ember());
    catalogue.register("minilm", &file);
    let home = Home::with(catalogue);
    let short = home.openai(json!({"model": "minilm", "input": "warm fire", "dimensions": 4}));
    assert_eq!(short["data"][0]["embedding"].as_array().unwrap().len(), 4);
    let models = home.node.get("/v1/models").json();
    assert_eq!(models["data"].as_array().unwrap().len(), 2, "{models}");
    // The encoder still has its other names.
    let other = home.openai(json!({"model": "all-minilm", "input": "warm fire"}));
    assert_eq!(
        numbers(&other["data"][0]["embedding"]),
        home.vector("warm fire")
    );
}
