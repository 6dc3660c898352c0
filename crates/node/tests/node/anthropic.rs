//! Anthropic's surface over HTTP: what goes in, what comes out, and what is said when it is wrong.

use hearth_testkit::gguf::{self, Quantisation, Shape};
use hearth_testkit::node::{Reply, TestNode, node_options, options};
use serde_json::{Value, json};

const MESSAGES: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";

fn body(extra: &Value) -> Value {
    let mut body = json!({
        "messages": [{"role": "user", "content": "what is hearth"}],
        "max_tokens": 12,
        "temperature": 0,
    });
    let fields = body.as_object_mut().unwrap();
    fields.extend(extra.as_object().unwrap().clone());
    body
}

fn ask(node: &TestNode, extra: Value) -> Reply {
    node.post(MESSAGES, body(&extra).to_string())
}

/// The message that a stream's events make, put together as Anthropic's own clients do.
fn streamed(node: &TestNode, mut extra: Value) -> Value {
    extra["stream"] = true.into();
    let reply = ask(node, extra);
    assert_eq!(
        reply.header("content-type"),
        Some("text/event-stream"),
        "{reply:?}"
    );
    let mut message = Value::Null;
    let mut json = String::new();
    let mut last = "";
    for event in reply.body.split_terminator("\n\n") {
        let (name, data) = event.split_once('\n').unwrap();
        last = name.strip_prefix("event: ").unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data["type"], last);
        let index = data["index"].as_u64().unwrap_or(0) as usize;
        let append = |text: &mut Value, more: &Value| {
            *text = format!("{}{}", text.as_str().unwrap(), more.as_str().unwrap()).into();
        };
        match last {
            "message_start" => message = data["message"].clone(),
            "content_block_start" => {
                let blocks = message["content"].as_array_mut().unwrap();
                assert_eq!(blocks.len(), index);
                blocks.push(data["content_block"].clone());
                json.clear();
            }
            "content_block_delta" => {
                let (delta, block) = (&data["delta"], &mut message["content"][index]);
                match delta["type"].as_str().unwrap() {
                    "text_delta" => append(&mut block["text"], &delta["text"]),
                    "thinking_delta" => append(&mut block["thinking"], &delta["thinking"]),
                    "signature_delta" => block["signature"] = delta["signature"].clone(),
                    "input_json_delta" => json.push_str(delta["partial_json"].as_str().unwrap()),
                    other => panic!("{other}"),
                }
            }
            "content_block_stop" if !json.is_empty() => {
                message["content"][index]["input"] = serde_json::from_str(&json).unwrap();
            }
            "message_delta" => {
                for field in ["stop_reason", "stop_sequence"] {
                    message[field] = data["delta"][field].clone();
                }
                message["usage"] = data["usage"].clone();
            }
            _ => {}
        }
    }
    assert_eq!(last, "message_stop");
    message
}

/// A message without what differs from one request to the next.
fn plain(mut message: Value) -> Value {
    let fields = message.as_object_mut().unwrap();
    let used = fields.remove("usage").unwrap();
    fields.remove("id");
    let number = |field: &str| used[field].as_u64().unwrap();
    message["prompt"] = (number("input_tokens") + number("cache_read_input_tokens")).into();
    message["generated"] = used["output_tokens"].clone();
    for block in message["content"].as_array_mut().unwrap() {
        if block["type"] == "tool_use" {
            let id = block.as_object_mut().unwrap().remove("id").unwrap();
            assert!(id.as_str().unwrap().starts_with("toolu_"));
        }
    }
    message
}

fn text(message: &Value) -> &str {
    message["content"][0]["text"].as_str().unwrap()
}

fn light() -> Value {
    json!({
        "name": "set_light",
        "description": "Switches a light",
        "input_schema": {
            "type": "object",
            "properties": {"room": {"enum": ["kitchen", "hall"]}, "on": {"type": "boolean"}},
            "required": ["room", "on"],
        },
    })
}

#[test]
fn an_answer_has_anthropics_shape_and_the_stream_says_the_same() {
    let node = TestNode::start(options());
    let reply = ask(&node, json!({}));
    assert_eq!(reply.status, 200, "{reply:?}");
    let id = reply.header("request-id").unwrap();
    assert_eq!(Some(id), reply.header("x-request-id"));
    let whole = reply.json();
    assert!(whole["id"].as_str().unwrap().starts_with("msg_"));
    assert_eq!(
        (&whole["type"], &whole["role"], &whole["model"]),
        (&json!("message"), &json!("assistant"), &json!("ember"))
    );
    assert_eq!(whole["content"].as_array().unwrap().len(), 1);
    assert!(!text(&whole).is_empty());
    assert_eq!(whole["usage"]["cache_creation_input_tokens"], 0);
    assert_eq!(plain(whole.clone()), plain(streamed(&node, json!({}))));

    // The prompt is cached now, and its tokens are told apart.
    let again = ask(&node, json!({})).json();
    assert!(again["usage"]["cache_read_input_tokens"].as_u64() > Some(0));
    assert_eq!(plain(again), plain(whole));

    let short = ask(&node, json!({"max_tokens": 1})).json();
    assert_eq!(short["stop_reason"], "max_tokens");
    assert_eq!(short["usage"]["output_tokens"], 1);
    let long = ask(&node, json!({"max_tokens": 200})).json();
    assert_eq!(long["stop_reason"], "end_turn", "{long}");
}

#[test]
fn the_text_that_stopped_an_answer_is_named() {
    let node = TestNode::start(options());
    let whole = ask(&node, json!({})).json();
    let word = text(&whole).split_whitespace().nth(2).unwrap();
    let stops = json!({"stop_sequences": ["nothing of the kind", word]});
    let stopped = ask(&node, stops.clone()).json();
    assert_eq!(stopped["stop_reason"], "stop_sequence");
    assert_eq!(stopped["stop_sequence"], word);
    let at = text(&whole).find(word).unwrap();
    assert_eq!(text(&stopped), &text(&whole)[..at]);
    assert_eq!(plain(stopped), plain(streamed(&node, stops)));
}

#[test]
fn a_call_fits_its_schema_and_its_result_goes_back() {
    let node = TestNode::start(options());
    let question = json!({"role": "user", "content": "lights on in the hall"});
    for choice in [
        json!({"type": "any", "disable_parallel_tool_use": true}),
        json!({"type": "tool", "name": "set_light", "disable_parallel_tool_use": true}),
    ] {
        let asked = json!({"messages": [question], "tools": [light()], "tool_choice": choice, "max_tokens": 120});
        let whole = ask(&node, asked.clone()).json();
        assert_eq!(whole["stop_reason"], "tool_use", "{whole}");
        let call = &whole["content"][0];
        assert_eq!(
            (&call["type"], &call["name"]),
            (&json!("tool_use"), &json!("set_light"))
        );
        assert!(["kitchen", "hall"].contains(&call["input"]["room"].as_str().unwrap()));
        assert!(call["input"]["on"].is_boolean());
        assert_eq!(plain(whole.clone()), plain(streamed(&node, asked)));

        let results = |error: bool| {
            let result = json!({"type": "tool_result", "tool_use_id": call["id"], "is_error": error,
                "content": [{"type": "text", "text": "the lamp is on"}]});
            let next =
                json!({"type": "text", "text": "thanks", "cache_control": {"type": "ephemeral"}});
            json!({"tools": [light()], "messages": [question,
                {"role": "assistant", "content": whole["content"]},
                {"role": "user", "content": [result, next]}]})
        };
        let reply = ask(&node, results(false));
        assert_eq!(reply.status, 200, "{reply:?}");
        let tokens =
            |extra| node.post(COUNT, body(&extra).to_string()).json()["input_tokens"].as_u64();
        assert!(tokens(results(true)) > tokens(results(false)));
    }
    let without = ask(&node, json!({})).json();
    let none = json!({"tools": [light()], "tool_choice": {"type": "none"}});
    assert_eq!(plain(ask(&node, none).json()), plain(without));
}

#[test]
fn counting_says_what_the_answer_will() {
    let node = TestNode::start(options());
    let blocks = json!([{"type": "text", "text": "be brief"}, {"type": "text", "text": "be kind"}]);
    for extra in [
        json!({}),
        json!({"system": "be brief\n\nbe kind"}),
        json!({"system": blocks}),
        json!({"tools": [light()]}),
        json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "I am"}]}),
    ] {
        let mut counted = body(&extra);
        counted.as_object_mut().unwrap().remove("max_tokens");
        let counted = node.post(COUNT, counted.to_string());
        assert_eq!(counted.status, 200, "{counted:?}");
        let answer = plain(ask(&node, extra).json());
        assert_eq!(counted.json(), json!({"input_tokens": answer["prompt"]}));
    }
    let long = json!({"messages": [{"role": "user", "content": "long ".repeat(1500)}]});
    let counted = node.post(COUNT, body(&long).to_string());
    assert!(
        counted.json()["input_tokens"].as_u64() > Some(1024),
        "{counted:?}"
    );
}

#[test]
fn messages_are_read_as_anthropic_reads_them() {
    let node = TestNode::start(options());
    let tokens = |messages: Value| {
        let reply = node.post(COUNT, json!({"messages": messages}).to_string());
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["input_tokens"].as_u64().unwrap()
    };
    let user = |content: Value| json!({"role": "user", "content": content});
    let block = |text: &str| json!({"type": "text", "text": text});
    // Messages of one role in a row are one.
    let one = tokens(json!([user(json!("hi\n\nyou"))]));
    assert_eq!(one, tokens(json!([user(json!("hi")), user(json!("you"))])));
    assert_eq!(
        one,
        tokens(json!([user(json!([block("hi"), block("you")]))]))
    );
    // Thinking of before is taken, whoever signed it.
    let thought = json!({"role": "assistant", "content": [
        {"type": "thinking", "thinking": "hm", "signature": "x"},
        {"type": "redacted_thinking", "data": "eA=="},
        block("yes"),
    ]});
    tokens(json!([user(json!("hi")), thought, user(json!("and"))]));
    // What Claude Code writes for Anthropic's accounts does not reach the model.
    let system = |system: Value| {
        let body = json!({"system": system, "messages": [user(json!("hi"))]});
        node.post(COUNT, body.to_string()).json()
    };
    let noted = "x-anthropic-billing-header: cc_version=2; cch=0a1b2;";
    let brief = system(json!("be brief"));
    assert_eq!(brief, system(json!([block(noted), block("be brief")])));
    assert_eq!(brief, system(json!(format!("{noted}\nbe brief"))));
    // Instructions may come later as well.
    let later = json!({"role": "system", "content": "be brief"});
    tokens(json!([user(json!("hi")), later]));
}

#[test]
fn an_answer_goes_on_where_the_last_message_ends() {
    let node = TestNode::start(options());
    let question = json!({"role": "user", "content": "what is hearth"});
    let whole = ask(&node, json!({})).json();
    let (start, _) = text(&whole).split_at(text(&whole).find(' ').unwrap());
    let begun = json!({"messages": [question, {"role": "assistant", "content": start}]});
    let rest = ask(&node, begun.clone()).json();
    assert!(
        text(&rest).starts_with(&text(&whole)[start.len()..]),
        "{rest} {whole}"
    );
    assert_eq!(plain(rest), plain(streamed(&node, begun)));
}

#[test]
fn an_answer_follows_a_schema() {
    let node = TestNode::start(options());
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["n"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "schema": schema});
    for wanted in [
        json!({"output_config": {"format": format, "effort": "low"}}),
        json!({"output_format": format}),
    ] {
        let mut wanted = wanted;
        wanted["max_tokens"] = 60.into();
        let answer = ask(&node, wanted).json();
        let value: Value = serde_json::from_str(text(&answer)).unwrap();
        assert!((1..=9).contains(&value["n"].as_u64().unwrap()), "{answer}");
    }
}

/// Opens the reasoning itself, as DeepSeek R1's does, unless it is told not to.
const THINKING: &str = "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}\
    {%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}\
    {%- if enable_thinking is defined and not enable_thinking %}{{- '\\n</think>\\n\\n' }}{%- endif %}{%- endif %}";

#[test]
fn thinking_is_a_block_of_its_own_and_off_unless_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("thinker.gguf");
    let shape = Shape {
        template: THINKING,
        ..Shape::TINY
    };
    gguf::write(&file, &shape, Quantisation::Q8_0, 3).unwrap();
    let node = TestNode::start(options());
    let model = file.to_str().unwrap();
    let think = |thinking: Value, most: u32| json!({"model": model, "thinking": thinking, "max_tokens": most});
    for asked in [
        think(json!({"type": "enabled", "budget_tokens": 1024}), 1025),
        think(json!({"type": "adaptive"}), 20),
    ] {
        let whole = ask(&node, asked).json();
        let thought = &whole["content"][0];
        assert_eq!(thought["type"], "thinking", "{whole}");
        assert!(!thought["thinking"].as_str().unwrap().is_empty());
        assert!(!thought["signature"].as_str().unwrap().is_empty());
        let used = &whole["usage"];
        let thought = &used["output_tokens_details"]["thinking_tokens"];
        assert_eq!(thought, &used["output_tokens"]);
    }
    for thinking in [
        json!({"type": "adaptive"}),
        json!({"type": "adaptive", "display": "omitted"}),
    ] {
        let asked = think(thinking.clone(), 20);
        let whole = ask(&node, asked.clone()).json();
        let shown = !whole["content"][0]["thinking"].as_str().unwrap().is_empty();
        assert_eq!(shown, thinking["display"].is_null(), "{whole}");
        assert_eq!(plain(whole), plain(streamed(&node, asked)));
    }
    for off in [
        json!({}),
        json!({"thinking": {"type": "disabled"}}),
        json!({"thinking": {"type": "between_tools"}}),
    ] {
        let mut asked = off;
        asked["model"] = model.into();
        let answer = ask(&node, asked).json();
        assert_eq!(answer["content"][0]["type"], "text", "{answer}");
    }
    // An answer that is begun has its reasoning behind it, and goes on letter by letter.
    let user = json!({"role": "user", "content": "hi"});
    let begun = json!([user, {"role": "assistant", "content": "I am"}]);
    let adaptive = json!({"type": "adaptive"});
    let answer = ask(
        &node,
        json!({"model": model, "messages": begun, "thinking": adaptive, "max_tokens": 6}),
    );
    let prompt =
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nI am";
    let plain = json!({"model": model, "prompt": prompt, "max_tokens": 6, "temperature": 0});
    let plain = node.post("/v1/completions", plain.to_string()).json();
    assert_eq!(text(&answer.json()), plain["choices"][0]["text"]);
}

#[test]
fn what_is_wrong_is_said_in_anthropics_shape() {
    let node = TestNode::start(options());
    let content = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    let said = |content: Value| json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": content}]});
    let call = json!({"type": "tool_use", "id": "toolu_1", "name": "set_light", "input": {}});
    for (extra, param, word) in [
        (json!({"messages": []}), "messages", "at least one"),
        (json!({"messages": "hi"}), "messages", "sequence"),
        (
            json!({"messages": [{"content": "hi"}]}),
            "messages[0].role",
            "missing",
        ),
        (
            json!({"messages": [{"role": "tool", "content": "hi"}]}),
            "messages[0].role",
            "assistant",
        ),
        (content(json!(5)), "messages[0].content", "blocks"),
        (
            content(json!([{"text": "hi"}])),
            "messages[0].content[0].type",
            "missing",
        ),
        (
            content(json!([{"type": "text"}])),
            "messages[0].content[0].text",
            "missing",
        ),
        (
            content(json!([{"type": "text", "text": 5}])),
            "messages[0].content[0].text",
            "string",
        ),
        (
            content(json!([{"type": "image", "source": {}}])),
            "messages[0].content[0].type",
            "`image`",
        ),
        (
            content(json!([{"type": "document", "source": {}}])),
            "messages[0].content[0].type",
            "`document`",
        ),
        (
            content(json!([call])),
            "messages[0].content[0].type",
            "assistant message",
        ),
        (
            content(json!([{"type": "tool_result", "tool_use_id": "toolu_9"}])),
            "messages[0].content[0].tool_use_id",
            "`toolu_9`",
        ),
        (
            said(json!([{"type": "tool_use", "id": "a", "name": "b"}])),
            "messages[1].content[0].input",
            "missing",
        ),
        (said(json!([call])), "messages[1]", "tool_result"),
        (said(json!("I am ")), "messages[1]", "blank"),
        (
            said(json!([{"type": "thinking", "thinking": "hm", "signature": ""}])),
            "messages[1]",
            "thinking",
        ),
        (
            json!({"system": [{"type": "image"}]}),
            "system[0].type",
            "`image`",
        ),
        (json!({"max_tokens": null}), "max_tokens", "missing"),
        (json!({"max_tokens": 0}), "max_tokens", "at least 1"),
        (json!({"max_tokens": -1}), "max_tokens", "u32"),
        (json!({"temperature": 1.5}), "temperature", "0 to 1"),
        (json!({"top_p": 2}), "top_p", "0 to 1"),
        (json!({"stop_sequences": [""]}), "stop_sequences", "empty"),
        (json!({"stop_sequences": "x"}), "stop_sequences", "sequence"),
        (
            json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
            "tools[0].type",
            "`web_search_20250305`",
        ),
        (
            json!({"tools": [{"name": "a"}]}),
            "tools[0].input_schema",
            "missing",
        ),
        (
            json!({"tools": [{"name": "a b", "input_schema": {}}]}),
            "tools",
            "`a b`",
        ),
        (
            json!({"tools": [light(), light()]}),
            "tools",
            "taken already",
        ),
        (
            json!({"tools": [light()], "tool_choice": {"type": "tool", "name": "fly"}}),
            "tool_choice",
            "`fly`",
        ),
        (
            json!({"tools": [light()], "tool_choice": {"type": "tool"}}),
            "tool_choice.name",
            "missing",
        ),
        (
            json!({"tools": [light()], "tool_choice": {"type": "must"}}),
            "tool_choice.type",
            "any",
        ),
        (
            json!({"tool_choice": {"type": "any"}}),
            "tool_choice",
            "no tools",
        ),
        (
            json!({"thinking": {"type": "enabled"}, "max_tokens": 2000}),
            "thinking.budget_tokens",
            "1024",
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 100}}),
            "thinking.budget_tokens",
            "1024",
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 1024}),
            "thinking.budget_tokens",
            "max_tokens",
        ),
        (
            json!({"thinking": {"type": "perhaps"}}),
            "thinking.type",
            "adaptive",
        ),
        (
            json!({"output_config": {"format": {"type": "json_schema", "schema": {"not": {}}}}}),
            "output_config.format",
            "schema",
        ),
        (
            json!({"output_format": {"type": "yaml"}}),
            "output_format.type",
            "json_schema",
        ),
        (
            json!({"mcp_servers": [{"url": "x"}]}),
            "mcp_servers",
            "tools",
        ),
        (json!({"container": "x"}), "container", "leave it out"),
        (content(json!("long ".repeat(1500))), "messages", "1024"),
    ] {
        let reply = ask(&node, extra.clone());
        let answer = reply.json();
        let error = &answer["error"];
        assert_eq!(
            (reply.status, &answer["type"]),
            (400, &json!("error")),
            "{extra}: {reply:?}"
        );
        assert_eq!(error["type"], "invalid_request_error", "{extra}: {error}");
        assert_eq!(error["details"]["param"], param, "{extra}: {error}");
        assert!(
            error["message"].as_str().unwrap().contains(word),
            "{extra}: {error}"
        );
        assert_eq!(answer["request_id"].as_str(), reply.header("request-id"));
    }
    let begun = json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "I"}],
        "tools": [light()], "tool_choice": {"type": "any"}});
    let reply = ask(&node, begun);
    assert!(reply.body.contains("begun already"), "{reply:?}");
}

#[test]
fn other_failures_have_anthropics_names() {
    let node = TestNode::start(options());
    let kind = |reply: &Reply| {
        let answer = reply.json();
        assert_eq!(answer["type"], "error", "{reply:?}");
        assert_eq!(answer["request_id"].as_str(), reply.header("request-id"));
        (
            reply.status,
            answer["error"]["type"].as_str().unwrap().to_owned(),
        )
    };
    let unknown = ask(&node, json!({"model": "claude-opus-5-5"}));
    assert_eq!(kind(&unknown), (404, "not_found_error".into()));
    assert!(unknown.body.contains("known models: ember"), "{unknown:?}");
    let uncounted = node.post(
        COUNT,
        body(&json!({"model": "claude-opus-5-5"})).to_string(),
    );
    assert_eq!(kind(&uncounted), (404, "not_found_error".into()));
    let broken = node.post(MESSAGES, "{");
    assert_eq!(kind(&broken), (400, "invalid_request_error".into()));
    let large = node.post(MESSAGES, vec![b' '; (1 << 20) + 1]);
    assert_eq!(kind(&large), (413, "request_too_large".into()));
    let read = node.get(MESSAGES);
    assert_eq!(kind(&read), (405, "invalid_request_error".into()));
    assert_eq!(read.header("allow"), Some("POST"));
    let nowhere = node.get("/v1/messages/batches");
    assert_eq!(kind(&nowhere), (404, "not_found_error".into()));

    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent: ureq::Agent = config.build().into();
    let foreign = agent
        .post(node.url(MESSAGES))
        .header("host", "evil.example");
    let mut refused = foreign.send("{}").unwrap();
    assert_eq!(refused.status(), 403);
    let answer: Value = refused.body_mut().read_json().unwrap();
    assert_eq!(answer["error"]["type"], "permission_error");
    assert_eq!(
        answer["request_id"].as_str(),
        refused
            .headers()
            .get("request-id")
            .map(|id| id.to_str().unwrap())
    );
}

#[test]
fn anthropics_clients_are_told_of_the_models_in_their_shape() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tiny.gguf");
    gguf::write(&file, &Shape::TINY, Quantisation::Q8_0, 5).unwrap();
    let folder = Some(folder.path().to_path_buf());
    let node = TestNode::over(folder, options(), node_options());
    let version = [("anthropic-version", "2023-06-01")];
    let get = |path: &str| node.get_with(path, &version);

    let page = get("/v1/models?limit=1").json();
    assert_eq!(page["first_id"], "ember", "{page}");
    assert_eq!(
        (&page["last_id"], &page["has_more"]),
        (&json!("ember"), &json!(true))
    );
    let page = get("/v1/models?after_id=ember").json();
    assert_eq!(
        (&page["last_id"], &page["has_more"]),
        (&json!("tiny"), &json!(false))
    );
    let model = get("/v1/models/tiny").json();
    assert_eq!(page["data"], json!([model]));
    assert_eq!(
        (&model["type"], &model["display_name"]),
        (&json!("model"), &json!("tiny"))
    );
    let created = model["created_at"].as_str().unwrap();
    assert!(
        created.starts_with("20") && created.ends_with('Z'),
        "{created}"
    );

    for (path, status, kind) in [
        ("/v1/models/claude", 404, "not_found_error"),
        ("/v1/models?limit=0", 400, "invalid_request_error"),
        ("/v1/models?before_id=claude", 400, "invalid_request_error"),
    ] {
        let reply = get(path);
        let said = reply.json();
        assert_eq!(
            (reply.status, &said["type"]),
            (status, &json!("error")),
            "{said}"
        );
        assert_eq!(said["error"]["type"], kind);
        assert_eq!(said["request_id"].as_str(), reply.header("request-id"));
    }
    // Others ask the same route as ever.
    assert_eq!(node.get("/v1/models").json()["object"], "list");
    assert_eq!(node.get("/v1/models?limit=0").status, 200);
    assert_eq!(
        node.get("/v1/models/claude").json()["error"]["code"],
        "model_not_found"
    );
}
