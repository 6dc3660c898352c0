//! OpenAI's surface over HTTP: what goes in, what comes out, and what is said when it is wrong.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

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
            json!("tools[0].function"),
            "invalid_value",
        ),
        (
            json!({"messages": [{"role": "user", "content": "x"}, {"role": "function", "content": "x"}]}),
            400,
            json!("messages[1].role"),
            "invalid_value",
        ),
        (
            json!({"messages": [{"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]}]}),
            400,
            json!("messages[0].tool_calls[0].function"),
            "invalid_value",
        ),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            400,
            json!("top_logprobs"),
            "invalid_value",
        ),
        (
            json!({"max_tokens": 0}),
            400,
            json!("max_tokens"),
            "invalid_value",
        ),
        (
            json!({"max_completion_tokens": 0}),
            400,
            json!("max_completion_tokens"),
            "invalid_value",
        ),
        (
            json!({"grammar": "root ::= nope"}),
            400,
            json!("grammar"),
            "invalid_value",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}}),
            400,
            json!("response_format"),
            "invalid_value",
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
    for (extra, param) in [
        (json!({"grammar": "root ::= nope"}), "grammar"),
        (json!({"logprobs": 21}), "logprobs"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"prompt": "long ".repeat(3000)}), "prompt"),
    ] {
        let mut body = json!({"prompt": "x"});
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let reply = node.post("/v1/completions", body.to_string());
        assert_eq!(
            (reply.status, &reply.json()["error"]["param"]),
            (400, &json!(param)),
            "{reply:?}"
        );
    }
    let renamed = chat(&node, json!({"max_completion_tokens": 0})).json();
    let message = renamed["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("max_completion_tokens "), "{message}");
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
fn a_base_url_that_is_wrong_is_told_in_the_shape_of_the_client() {
    let node = TestNode::start(options());
    let right = format!("http://{}/v1", node.address());
    let version = ("anthropic-version", "2023-06-01");
    let add = format!("add /v1 to the base URL: {right}");
    let once = |base| format!("end the base URL in one /v1, and not in {base}: {right}");
    // OpenAI's clients.
    for (path, words) in [
        ("/chat/completions", add.clone()),
        ("/embeddings", add.clone()),
        ("/responses", add.clone()),
        ("/models/ember", add.clone()),
        ("/v1/v1/chat/completions", once("/v1/v1")),
        ("/api/chat/completions", once("/api")),
        (
            "/v1/chat/completions/chat/completions",
            once("/v1/chat/completions"),
        ),
        ("/v1/images/generations", "this node makes no images".into()),
        ("/v1/audio/speech", "this node neither speaks".into()),
        ("/images/generations", "this node makes no images".into()),
        ("/v1/threads/t/messages", "use /v1/conversations".into()),
    ] {
        let reply = node.post(path, "{}");
        let error = reply.json()["error"].clone();
        assert_eq!(reply.status, 404, "{reply:?}");
        assert_eq!(error["type"], "invalid_request_error", "{reply:?}");
        assert_eq!(error["code"], "unknown_route", "{reply:?}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(&words), "{path}: {message}");
    }
    let listed = node.get_with("/models", &[("accept", "application/json")]);
    assert!(
        listed.status == 404 && listed.body.contains(&add),
        "{listed:?}"
    );
    assert_eq!(node.visit("/models").status, 200, "a browser sees the page");

    // Anthropic's, which add /v1 themselves.
    for (path, headers, words) in [
        ("/v1/v1/messages", &[][..], "leave /v1 out of the base URL"),
        ("/v1/v1/messages/count_tokens", &[], "leave /v1 out"),
        ("/v1/v1/models", &[version], "leave /v1 out"),
        ("/api/v1/messages", &[version], "leave /api out"),
        ("/messages", &[version], "did you mean /v1/messages?"),
        ("/v1/files", &[version], "of Anthropic's routes"),
    ] {
        let reply = node.post_with(path, headers, "{}");
        let said = reply.json();
        assert_eq!(
            (reply.status, &said["error"]["type"]),
            (404, &json!("not_found_error")),
            "{reply:?}"
        );
        assert_eq!(said["request_id"].as_str(), reply.header("request-id"));
        let message = said["error"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{path}: {message}");
    }

    // Ollama's.
    for path in ["/v1/api/chat", "/v1/api/embeddings", "/v1/api/tags"] {
        let reply = node.post(path, "{}");
        let said = reply.json();
        let message = said["error"].as_str().unwrap();
        let words = format!("leave /v1 out of the host: it is http://{}", node.address());
        assert!(
            reply.status == 404 && message.ends_with(&words),
            "{path}: {message}"
        );
    }
}

#[test]
fn a_prompt_too_long_is_told_what_helps() {
    let long = json!({"messages": [{"role": "user", "content": "long ".repeat(6000)}]});
    for (context, words) in [
        (
            1024,
            "start the node with a larger --context (the model takes 2048)",
        ),
        (2048, "the model itself takes no more"),
    ] {
        let mut options = options();
        options.model.context = Some(context);
        let node = TestNode::start(options);
        let message = chat(&node, long.clone()).json()["error"]["message"].clone();
        let message = message.as_str().unwrap();
        assert!(
            message.contains("exceeds the available context size") && message.contains(words),
            "{message}"
        );
    }
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
    let odd = node.get("/v1/models/%ff");
    assert_eq!(
        (odd.status, &odd.json()["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    let odd = node.get("/assets/%ff");
    assert_eq!(
        (odd.status, odd.header("content-type")),
        (404, Some("application/problem+json"))
    );
    let metrics = node.get("/metrics").body;
    for name in [
        "hearth_http_requests_total{",
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
        "/v1/embeddings",
        "/v1/models",
        "/health",
        "/metrics",
        "/status",
        "/shutdown",
        "/",
    ] {
        assert!(described["paths"][path].is_object(), "{path}");
    }
    let page = node.visit("/");
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

/// Status of a raw request.
fn raw(node: &TestNode, request: &str) -> u16 {
    let mut stream = TcpStream::connect(node.address()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn pages_of_other_sites_reach_nothing_and_links_lead_here() {
    let node = TestNode::start(options());
    let own = format!("Host: {}\r\n", node.address());
    let image = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n";
    let link = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n";
    for (start, headers, status) in [
        ("GET /health", format!("{own}{image}"), 403),
        ("GET /v1/models", format!("{own}{image}"), 403),
        ("POST /shutdown", format!("{own}{link}"), 403),
        ("GET /", format!("{own}{link}"), 200),
        ("GET /health", "Host: evil.example\r\n".into(), 403),
        ("GET /health", own.clone(), 200),
    ] {
        let request = format!("{start} HTTP/1.1\r\n{headers}\r\n");
        assert_eq!(raw(&node, &request), status, "{request}");
    }
}

#[test]
fn text_parts_and_developers_are_text_and_system() {
    let node = TestNode::start(options());
    let ask = |messages: Value| {
        chat(&node, json!({"messages": messages})).json()["choices"][0]["message"].clone()
    };
    let plain = ask(json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "what is\nhearth"},
    ]));
    let parts = ask(json!([
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "what is"}, {"type": "text", "text": "hearth"}]},
    ]));
    assert_eq!(plain, parts);
}

#[test]
fn every_token_proves_health() {
    let node = TestNode::start(options());
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "stream": true, "max_tokens": 900, "ignore_eos": true, "n": 4}).to_string();
    let mut stream = TcpStream::connect(node.address()).unwrap();
    write!(
        stream,
        "POST {CHAT} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
        node.address(),
        body.len()
    )
    .unwrap();
    let mut lines = BufReader::new(stream).lines();
    assert!(lines.any(|line| line.unwrap().contains(r#""delta":{"content":"#)));
    let first = Instant::now();
    // If the first token alone counted, none would ever be younger than that.
    wait_until(Duration::from_secs(60), "a younger token", || {
        assert_ne!(lines.next().unwrap().unwrap(), "data: [DONE]");
        let health = node.get("/health").json();
        let age = Duration::from_millis(health["last_token_ms_ago"].as_u64().unwrap());
        age < first.elapsed() / 2
    });
}

/// Numbers that depend on the model or the time are masked.
fn masked(text: &str, fields: &[&str]) -> String {
    fields.iter().fold(text.to_owned(), |text, field| {
        let start = format!("\"{field}\":");
        let mut parts = text.split(&start);
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            out += &start;
            out += "#";
            out += part.trim_start_matches(|letter: char| letter.is_ascii_digit());
        }
        out
    })
}

/// Clients read these bytes: a change here is a change for them.
#[test]
fn the_chunks_of_a_chat_stream() {
    let node = TestNode::start(options());
    let reply = chat(
        &node,
        json!({"grammar": "root ::= \"y\"", "stream": true, "stream_options": {"include_usage": true}}),
    );
    let id = chunks(&reply)[0]["id"].as_str().unwrap().to_owned();
    let body = reply.body.replace(&id, "ID");
    let numbers = ["created", "prompt_tokens", "total_tokens", "cached_tokens"];
    insta::assert_snapshot!(masked(&body, &numbers), @r#"
    data: {"id":"ID","object":"chat.completion.chunk","created":#,"model":"ember","system_fingerprint":"hearth-0.0.0","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null}

    data: {"id":"ID","object":"chat.completion.chunk","created":#,"model":"ember","system_fingerprint":"hearth-0.0.0","choices":[{"index":0,"delta":{"content":"y"},"logprobs":null,"finish_reason":null}],"usage":null}

    data: {"id":"ID","object":"chat.completion.chunk","created":#,"model":"ember","system_fingerprint":"hearth-0.0.0","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}

    data: {"id":"ID","object":"chat.completion.chunk","created":#,"model":"ember","system_fingerprint":"hearth-0.0.0","choices":[],"usage":{"prompt_tokens":#,"completion_tokens":1,"total_tokens":#,"prompt_tokens_details":{"cached_tokens":#},"completion_tokens_details":{"reasoning_tokens":0}}}

    data: [DONE]
    "#);
    let reply = chat(&node, json!({"grammar": "root ::= \"y\"", "stream": true}));
    assert!(!reply.body.contains("usage"), "nobody asked for it");
}

#[test]
fn a_completion_stream_with_usage_has_it_in_every_chunk() {
    let node = TestNode::start(options());
    let ask = |options: Value| {
        let body = json!({"prompt": ["a", "b"], "max_tokens": 3, "echo": true, "stream": true, "stream_options": options});
        chunks(&node.post("/v1/completions", body.to_string()))
    };
    let mut with = ask(json!({"include_usage": true}));
    let last = with.pop().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert!(last["usage"]["total_tokens"].as_u64().unwrap() > 0);
    assert!(
        with.iter()
            .all(|chunk| chunk.get("usage") == Some(&Value::Null))
    );
    let without = ask(json!({}));
    assert!(without.iter().all(|chunk| chunk.get("usage").is_none()));
}

#[test]
fn offsets_are_characters_of_the_text_that_was_sent() {
    let node = TestNode::start(options());
    for (stop, text) in [
        (json!(null), "é🔥a STOP✓b"),
        (json!(["STOP", "🔥b"]), "é🔥a "),
    ] {
        let mut body = json!({
            "prompt": "x", "grammar": "root ::= \"é🔥a STOP✓b\"", "logprobs": 0, "max_tokens": 40, "stop": stop,
        });
        let whole = node.post("/v1/completions", body.to_string()).json()["choices"][0].clone();
        assert_eq!(whole["text"], text);
        body["stream"] = true.into();
        let (mut streamed, mut tokens) = (Vec::new(), Vec::new());
        for chunk in chunks(&node.post("/v1/completions", body.to_string())) {
            let likely = &chunk["choices"][0]["logprobs"];
            streamed.extend(
                likely["text_offset"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default(),
            );
            tokens.extend(likely["tokens"].as_array().cloned().unwrap_or_default());
        }
        assert_eq!(whole["logprobs"]["text_offset"], json!(streamed));
        // Only a token of whole characters shows where it belongs.
        let letters: Vec<char> = text.chars().collect();
        let mut seen = 0;
        let mut last = 0;
        for (token, offset) in tokens.iter().zip(&streamed) {
            let token = token.as_str().unwrap();
            let offset = offset.as_u64().unwrap() as usize;
            assert!(
                (last..=letters.len()).contains(&offset),
                "{tokens:?} {streamed:?}"
            );
            last = offset;
            if !token.contains('\u{fffd}') && offset < letters.len() {
                let there: String = letters[offset..].iter().collect();
                assert!(
                    there.starts_with(token) || token.starts_with(&there),
                    "{token:?} is not at {offset}: {tokens:?} {streamed:?}"
                );
                seen += 1;
            }
        }
        assert!(seen > 0 && tokens.len() > seen, "{tokens:?} {streamed:?}");
    }
}

/// Dashboards are written against these names.
#[test]
fn the_names_of_the_metrics() {
    let node = TestNode::start(options());
    assert_eq!(chat(&node, json!({})).status, 200);
    wait_until(Duration::from_secs(20), "the request counts", || {
        node.load().completed == 1
    });
    let metrics = node.get("/metrics").body;
    let types: Vec<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect();
    insta::assert_snapshot!(types.join("\n"), @"
    hearth_http_requests counter
    gen_ai_server_request_duration_seconds histogram
    gen_ai_server_time_to_first_token_seconds histogram
    gen_ai_server_time_per_output_token_seconds histogram
    gen_ai_client_token_usage histogram
    hearth_uptime_seconds gauge
    hearth_resident_memory_bytes gauge
    hearth_model_ready gauge
    hearth_slots gauge
    hearth_slots_busy gauge
    hearth_queued_requests gauge
    hearth_kv_cells gauge
    hearth_kv_cells_used gauge
    hearth_parked_bytes gauge
    hearth_prefill_tokens counter
    hearth_cached_tokens counter
    hearth_decode_tokens counter
    hearth_completed_requests counter
    hearth_cancelled_requests counter
    hearth_decode_tokens_per_second gauge
    hearth_prefill_tokens_per_second gauge
    ");
    for sample in [
        "hearth_completed_requests_total{model=\"ember\"} 1",
        "gen_ai_server_request_duration_seconds_count{gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"hearth\",gen_ai_request_model=\"ember\",error_type=\"\"} 1",
        "hearth_cancelled_requests_total{model=\"ember\"} 0",
    ] {
        assert!(metrics.lines().any(|line| line == sample), "{metrics}");
    }
}
