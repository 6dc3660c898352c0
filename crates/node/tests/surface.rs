//! OpenAI's surface over HTTP: what goes in, what comes out, and what is said when it is wrong.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use hearth_testkit::node::{Reply, TestNode, options, wait_until};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn chat(node: &TestNode, extra: Value) -> Reply {
    let mut body = json!({"messages": [{"role": "user", "content": "what is hearth"}], "temperature": 0, "max_tokens": 12});
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    node.post(CHAT, body.to_string())
}

/// The JSON of every `data:` line but the last, which is `[DONE]`.
fn chunks(reply: &Reply) -> Vec<Value> {
    assert_eq!(
        reply.header("content-type"),
        Some("text/event-stream"),
        "{reply:?}"
    );
    let mut lines: Vec<&str> = reply
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .collect();
    assert_eq!(lines.pop(), Some("[DONE]"));
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_chat_answer_has_openais_shape_and_the_stream_says_the_same() {
    let node = TestNode::start(options());
    let whole = chat(&node, json!({})).json();
    assert!(whole["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(
        (&whole["object"], &whole["model"]),
        (&json!("chat.completion"), &json!("ember"))
    );
    let choice = &whole["choices"][0];
    assert_eq!(
        (
            &choice["index"],
            &choice["message"]["role"],
            &choice["logprobs"]
        ),
        (&json!(0), &json!("assistant"), &Value::Null)
    );
    let used = &whole["usage"];
    assert_eq!(
        used["total_tokens"].as_u64(),
        Some(used["prompt_tokens"].as_u64().unwrap() + used["completion_tokens"].as_u64().unwrap())
    );

    let reply = chat(
        &node,
        json!({"stream": true, "stream_options": {"include_usage": true}}),
    );
    let chunks = chunks(&reply);
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(choice["message"]["content"], text);
    let (last, usage) = (&chunks[chunks.len() - 2], &chunks[chunks.len() - 1]);
    assert_eq!(last["choices"][0]["finish_reason"], choice["finish_reason"]);
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(
        usage["usage"]["completion_tokens"],
        used["completion_tokens"]
    );
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["id"] == chunks[0]["id"]
                && chunk["object"] == "chat.completion.chunk")
    );
}

#[test]
fn several_choices_seeds_stops_and_probabilities() {
    let node = TestNode::start(options());
    let free = json!({"temperature": 1.5, "top_k": 0, "seed": 5, "n": 3});
    let first = chat(&node, free.clone()).json();
    assert_eq!(first["choices"].as_array().unwrap().len(), 3);
    assert_eq!(
        first["choices"],
        chat(&node, free).json()["choices"],
        "same seed, same text"
    );

    let text = chat(&node, json!({})).json()["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
        .to_owned();
    let word = text.split_whitespace().nth(2).unwrap();
    let stopped = chat(&node, json!({"stop": word})).json();
    let cut = stopped["choices"][0]["message"]["content"]
        .as_str()
        .unwrap();
    assert_eq!(
        (cut, &stopped["choices"][0]["finish_reason"]),
        (&text[..text.find(word).unwrap()], &json!("stop"))
    );

    let likely = chat(&node, json!({"logprobs": true, "top_logprobs": 3})).json();
    let tokens = likely["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(
        tokens.len() as u64,
        likely["usage"]["completion_tokens"].as_u64().unwrap()
    );
    for token in tokens.iter().filter(|token| token["token"] != "<|im_end|>") {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        // Greedy: the chosen token is the most likely one.
        assert_eq!(
            (&top[0]["token"], &top[0]["logprob"]),
            (&token["token"], &token["logprob"])
        );
        assert!(token["logprob"].as_f64().unwrap() <= 0.0);
    }
}

#[test]
fn answers_follow_schemas_and_grammars() {
    let node = TestNode::start(options());
    let schema = json!({"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}, "warm": {"type": "boolean"}}, "required": ["city", "warm"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "weather", "strict": true, "schema": schema}});
    for seed in 0..4 {
        let reply = chat(
            &node,
            json!({"response_format": format, "max_tokens": 200, "temperature": 1.0, "seed": seed}),
        )
        .json();
        let text = reply["choices"][0]["message"]["content"].as_str().unwrap();
        let value: Value =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(
            value["city"].is_string()
                && value["warm"].is_boolean()
                && value.as_object().unwrap().len() == 2,
            "{text}"
        );
    }
    let reply = chat(
        &node,
        json!({"grammar": "root ::= \"yes\" | \"no\"", "max_tokens": 20}),
    )
    .json();
    assert!(["yes", "no"].contains(&reply["choices"][0]["message"]["content"].as_str().unwrap()));
    let reply = chat(
        &node,
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}}),
    );
    assert_eq!(
        (reply.status, &reply.json()["error"]["param"]),
        (400, &json!("response_format")),
        "{reply:?}"
    );
}

#[test]
fn completions_echo_and_take_several_prompts() {
    let node = TestNode::start(options());
    let reply = node.post("/v1/completions", json!({"prompt": ["title: a", "title: b"], "max_tokens": 4, "n": 2, "echo": true, "temperature": 0}).to_string()).json();
    let texts: Vec<&str> = reply["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts.len(), 4);
    assert!(
        texts[0].starts_with("title: a")
            && texts[0] == texts[1]
            && texts[2].starts_with("title: b"),
        "{texts:?}"
    );
    let streamed = node.post("/v1/completions", json!({"prompt": ["title: a", "title: b"], "max_tokens": 4, "n": 2, "echo": true, "temperature": 0, "stream": true}).to_string());
    for (index, text) in texts.iter().enumerate() {
        let pieces = chunks(&streamed);
        let pieces = pieces
            .iter()
            .flat_map(|chunk| chunk["choices"].as_array().unwrap());
        let joined: String = pieces
            .filter(|choice| choice["index"] == index)
            .map(|choice| choice["text"].as_str().unwrap())
            .collect();
        assert_eq!(&joined, text);
    }
    let reply = node
        .post(
            "/v1/completions",
            json!({"prompt": "title: a", "max_tokens": 5, "logprobs": 2}).to_string(),
        )
        .json();
    let likely = &reply["choices"][0]["logprobs"];
    let count = likely["tokens"].as_array().unwrap().len();
    for field in ["token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(likely[field].as_array().unwrap().len(), count, "{field}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let node = TestNode::start(options());
    for (extra, status, param, code) in [
        (
            json!({"model": "gpt-9"}),
            404,
            json!("model"),
            "model_not_found",
        ),
        (
            json!({"temperature": "hot"}),
            400,
            json!("temperature"),
            "invalid_value",
        ),
        (
            json!({"temperature": 7}),
            400,
            json!("temperature"),
            "invalid_value",
        ),
        (json!({"n": 99}), 400, json!("n"), "invalid_value"),
        (
            json!({"messages": []}),
            400,
            json!("messages"),
            "invalid_value",
        ),
        (
            json!({"messages": [{"role": "wizard", "content": "x"}]}),
            400,
            json!("messages[0].role"),
            "invalid_value",
        ),
        (
            json!({"messages": [{"role": "user"}]}),
            400,
            json!("messages[0].content"),
            "invalid_value",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            400,
            json!("messages[0].content[0].type"),
            "unsupported_parameter",
        ),
        (
            json!({"tools": [{"type": "function"}]}),
            400,
            json!("tools"),
            "unsupported_parameter",
        ),
        (
            json!({"top_logprobs": 2}),
            400,
            json!("top_logprobs"),
            "invalid_value",
        ),
        (
            json!({"logit_bias": {"x": 1}}),
            400,
            json!("logit_bias.x"),
            "invalid_value",
        ),
        (json!({"stop": 5}), 400, json!("stop"), "invalid_value"),
        (
            json!({"response_format": {"type": "poem"}}),
            400,
            json!("response_format.type"),
            "invalid_value",
        ),
        (
            json!({"messages": [{"role": "user", "content": "long ".repeat(3000)}]}),
            400,
            json!("messages"),
            "context_length_exceeded",
        ),
    ] {
        let reply = chat(&node, extra.clone());
        let error = &reply.json()["error"];
        let extra: String = extra.to_string().chars().take(80).collect();
        assert_eq!(
            (reply.status, &error["param"], &error["code"]),
            (status, &param, &json!(code)),
            "{extra}: {error}"
        );
        assert!(error["message"].as_str().unwrap().len() > 10);
    }
    let long = chat(
        &node,
        json!({"messages": [{"role": "user", "content": "long ".repeat(3000)}]}),
    )
    .json();
    assert!(
        long["error"]["message"].as_str().unwrap().contains("1024"),
        "both numbers are named: {long}"
    );
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        ("null", 400),
        ("{} {}", 400),
    ] {
        let reply = node.post(CHAT, body);
        assert_eq!(reply.status, status, "{body}: {reply:?}");
        assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
    }
    assert_eq!(node.post(CHAT, b"\xff\xfe{}".as_slice()).status, 400);
    assert_eq!(node.post(CHAT, " ".repeat(2 << 20)).status, 413);
    let reply = node.get(CHAT);
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
    assert!(
        node.get("/v1/chat").json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("did you mean /v1/chat/completions")
    );
    assert_eq!(
        node.get("/nothing").header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(node.get("/health").status, 200, "the process stays up");
}

#[test]
fn the_other_routes_answer() {
    let node = TestNode::start(options());
    let health = node.get("/health").json();
    assert_eq!(
        (&health["status"], &health["model"]),
        (&json!("ok"), &json!("ember"))
    );
    assert!(health["last_token_ms_ago"].as_u64().unwrap() < 30_000);
    assert_eq!(node.get("/v1/models").json()["data"][0]["id"], "ember");
    assert_eq!(node.get("/v1/models/ember").json()["object"], "model");
    assert_eq!(node.get("/v1/models/no/such").status, 404);
    let metrics = node.get("/metrics").body;
    for name in [
        "hearth_http_requests_total{",
        "hearth_time_to_first_token_seconds_bucket",
        "hearth_slots{model=\"ember\"} 4",
        "hearth_resident_memory_bytes",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
    let described = node.get("/openapi.json").json();
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/models",
        "/health",
        "/metrics",
        "/status",
        "/shutdown",
        "/",
    ] {
        assert!(described["paths"][path].is_object(), "{path}");
    }
    let page = node.get("/");
    assert!(
        page.body.contains("<title>Hearth</title>")
            && page.header("content-security-policy").is_some()
    );
    let css = node.get("/assets/hearth.css");
    assert_eq!(
        (css.status, css.header("content-type")),
        (200, Some("text/css; charset=utf-8"))
    );
    assert!(page.header("x-request-id").unwrap().starts_with("req-"));
}

#[test]
fn a_client_that_leaves_in_the_middle_frees_its_slot() {
    let node = TestNode::start(options());
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "stream": true, "max_tokens": 900, "ignore_eos": true}).to_string();
    let mut stream = TcpStream::connect(node.address()).unwrap();
    write!(
        stream,
        "POST {CHAT} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
        node.address(),
        body.len()
    )
    .unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap().contains("content")),
        "the stream began"
    );
    wait_until(Duration::from_secs(20), "the slot is taken", || {
        node.load().slots_busy == 1
    });
    drop(lines);
    drop(stream);
    wait_until(Duration::from_secs(20), "the slot is free", || {
        node.load().slots_busy == 0
    });
    assert_eq!(node.load().cancelled, 1);
}

#[test]
fn a_node_that_is_asked_to_stop_lets_a_running_answer_end() {
    let node = TestNode::start(options());
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "stream": true, "max_tokens": 60, "ignore_eos": true}).to_string();
    let mut stream = TcpStream::connect(node.address()).unwrap();
    write!(
        stream,
        "POST {CHAT} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        node.address(),
        body.len()
    )
    .unwrap();
    let mut first = [0; 1];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(node.post("/shutdown", "").status, 202);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("data: [DONE]"), "{rest}");
    wait_until(Duration::from_secs(15), "the door is closed", || {
        TcpStream::connect(node.address()).is_err()
    });
}
