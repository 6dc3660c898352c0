//! `/v1/responses` and stored conversations over HTTP.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use hearth_node::{NodeOptions, SCHEMA};
use hearth_store::{Store, sqlite};
use hearth_testkit::gguf::{self, Quantisation, Shape};
use hearth_testkit::node::{Reply, TestNode, node_options, options, wait_until};
use serde_json::{Value, json};

const RESPONSES: &str = "/v1/responses";
const CONVERSATIONS: &str = "/v1/conversations";

fn ask(node: &TestNode, extra: Value) -> Reply {
    let mut body = json!({"input": "what is hearth", "temperature": 0, "max_output_tokens": 12});
    let fields = body.as_object_mut().unwrap();
    fields.extend(extra.as_object().unwrap().clone());
    fields.retain(|_, value| !value.is_null());
    node.post(RESPONSES, body.to_string())
}

fn answered(node: &TestNode, extra: Value) -> Value {
    let reply = ask(node, extra);
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

/// Names and data of the events of a stream.
fn events(reply: &Reply) -> Vec<(String, Value)> {
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let each = reply.body.split_terminator("\n\n").filter_map(|event| {
        let (name, data) = event.strip_prefix("event: ")?.split_once("\ndata: ")?;
        Some((name.to_owned(), serde_json::from_str(data).unwrap()))
    });
    let events: Vec<(String, Value)> = each.collect();
    for (at, (name, data)) in events.iter().enumerate() {
        assert_eq!(
            (&data["type"], &data["sequence_number"]),
            (&json!(name), &json!(at))
        );
    }
    assert!(!reply.body.contains("[DONE]"));
    events
}

fn text(response: &Value) -> &str {
    let output = response["output"].as_array().unwrap();
    let message = output
        .iter()
        .find(|item| item["type"] == "message")
        .unwrap();
    message["content"][0]["text"].as_str().unwrap()
}

/// The value with ids, times and what the cache saved made the same everywhere.
fn masked(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let each = fields.iter().map(|(name, value)| {
                let value = match name.as_str() {
                    "id" | "item_id" | "call_id" if value.is_string() => "…".into(),
                    "created_at" | "completed_at" | "cached_tokens" if value.is_u64() => 0.into(),
                    _ => masked(value),
                };
                (name.clone(), value)
            });
            Value::Object(each.collect())
        }
        Value::Array(all) => all.iter().map(masked).collect(),
        other => other.clone(),
    }
}

fn light() -> Value {
    json!({"type": "function", "name": "set_light", "description": "Switches a light", "parameters": {
        "type": "object",
        "properties": {"room": {"enum": ["kitchen", "hall"]}, "on": {"type": "boolean"}},
        "required": ["room", "on"],
    }})
}

fn stored_in(folder: &Path) -> (TestNode, Store) {
    let store = Store::open(&folder.join("hearth.db"), SCHEMA).unwrap();
    let options_with = NodeOptions {
        store: Some(store.clone()),
        ..node_options()
    };
    (TestNode::with(options(), options_with), store)
}

fn rows(store: &Store) -> i64 {
    let sql = "SELECT (SELECT count(*) FROM response) + (SELECT count(*) FROM response_item)";
    store
        .read(|tx| tx.query_row(sql, [], |row| row.get(0)))
        .unwrap_or_else(|error: sqlite::Error| panic!("{error}"))
}

#[test]
fn an_answer_has_openais_shape() {
    let node = TestNode::start(options());
    let response = answered(
        &node,
        json!({"metadata": {"trip": "north"}, "instructions": "be brief"}),
    );
    // What the model says is its own affair.
    let mut shape = masked(&response);
    shape["output"][0]["content"][0]["text"] = "…".into();
    for count in ["input_tokens", "output_tokens", "total_tokens"] {
        shape["usage"][count] = 0.into();
    }
    insta::assert_snapshot!(serde_json::to_string_pretty(&shape).unwrap(), @r#"
    {
      "id": "…",
      "object": "response",
      "created_at": 0,
      "completed_at": null,
      "status": "incomplete",
      "background": false,
      "error": null,
      "incomplete_details": {
        "reason": "max_output_tokens"
      },
      "instructions": "be brief",
      "max_output_tokens": 12,
      "max_tool_calls": null,
      "model": "ember",
      "output": [
        {
          "type": "message",
          "id": "…",
          "status": "incomplete",
          "role": "assistant",
          "content": [
            {
              "type": "output_text",
              "text": "…",
              "annotations": [],
              "logprobs": []
            }
          ]
        }
      ],
      "parallel_tool_calls": true,
      "previous_response_id": null,
      "conversation": null,
      "reasoning": {
        "effort": null,
        "summary": null
      },
      "store": true,
      "temperature": 0.0,
      "text": {
        "format": {
          "type": "text"
        }
      },
      "tool_choice": "auto",
      "tools": [],
      "top_logprobs": 0,
      "top_p": null,
      "truncation": "disabled",
      "usage": {
        "input_tokens": 0,
        "input_tokens_details": {
          "cached_tokens": 0,
          "cache_write_tokens": 0
        },
        "output_tokens": 0,
        "output_tokens_details": {
          "reasoning_tokens": 0
        },
        "total_tokens": 0
      },
      "metadata": {
        "trip": "north"
      }
    }
    "#);
    assert!(response["id"].as_str().unwrap().starts_with("resp_"));
    assert!(
        response["output"][0]["id"]
            .as_str()
            .unwrap()
            .starts_with("msg_")
    );
    let used = &response["usage"];
    assert_eq!(
        used["total_tokens"].as_u64().unwrap(),
        used["input_tokens"].as_u64().unwrap() + used["output_tokens"].as_u64().unwrap()
    );
}

#[test]
fn the_stream_says_the_same_as_the_whole_answer() {
    let node = TestNode::start(options());
    let whole = answered(&node, json!({}));
    let events = events(&ask(&node, json!({"stream": true})));
    let mut names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    insta::assert_snapshot!(names.join("\n"), @r"
    response.created
    response.in_progress
    response.output_item.added
    response.content_part.added
    response.output_text.delta
    response.output_text.done
    response.content_part.done
    response.output_item.done
    response.incomplete
    ");
    let deltas = events
        .iter()
        .filter(|(name, _)| name == "response.output_text.delta");
    let streamed: String = deltas
        .map(|(_, data)| data["delta"].as_str().unwrap())
        .collect();
    assert_eq!(streamed, text(&whole));
    let (_, first) = &events[0];
    assert_eq!(
        (&first["response"]["status"], &first["response"]["usage"]),
        (&json!("in_progress"), &Value::Null)
    );
    let (_, last) = events.last().unwrap();
    assert_eq!(masked(&last["response"]), masked(&whole));
    // It is stored before its last event is sent.
    let id = last["response"]["id"].as_str().unwrap();
    assert_eq!(
        node.get(&format!("{RESPONSES}/{id}")).json(),
        last["response"]
    );
}

#[test]
fn an_answer_that_is_cut_is_incomplete() {
    let node = TestNode::start(options());
    let cut = answered(&node, json!({"max_output_tokens": 3, "ignore_eos": true}));
    assert_eq!(cut["status"], "incomplete");
    assert_eq!(
        cut["incomplete_details"],
        json!({"reason": "max_output_tokens"})
    );
    assert_eq!(cut["output"][0]["status"], "incomplete");
    assert_eq!(cut["usage"]["output_tokens"], 3);
    let ended = answered(&node, json!({"max_output_tokens": 400}));
    assert_eq!(
        (&ended["status"], &ended["incomplete_details"]),
        (&json!("completed"), &Value::Null)
    );
    assert_eq!(ended["output"][0]["status"], "completed");
    assert!(ended["completed_at"].as_u64() >= ended["created_at"].as_u64());
}

#[test]
fn an_answer_follows_a_format() {
    let node = TestNode::start(options());
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["n"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "name": "number", "strict": true, "schema": schema});
    let answer = answered(
        &node,
        json!({"text": {"format": format}, "max_output_tokens": 60}),
    );
    let value: Value = serde_json::from_str(text(&answer)).unwrap();
    assert!((1..=9).contains(&value["n"].as_i64().unwrap()), "{value}");
    assert_eq!(answer["text"]["format"]["name"], "number");
    let answer = answered(&node, json!({"text": {"format": {"type": "json_object"}}}));
    assert!(text(&answer).starts_with('{'), "{answer}");
    let refused = ask(
        &node,
        json!({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"not": {}}}}}),
    );
    assert_eq!(
        (refused.status, &refused.json()["error"]["param"]),
        (400, &json!("text.format"))
    );
}

#[test]
fn probabilities_come_when_they_are_asked_for() {
    let node = TestNode::start(options());
    let plain = answered(&node, json!({}));
    assert_eq!(plain["output"][0]["content"][0]["logprobs"], json!([]));
    let include = json!([
        "message.output_text.logprobs",
        "reasoning.encrypted_content"
    ]);
    let answer = answered(&node, json!({"include": include, "top_logprobs": 2}));
    let tokens = answer["output"][0]["content"][0]["logprobs"]
        .as_array()
        .unwrap();
    assert_eq!(
        tokens.len() as u64,
        answer["usage"]["output_tokens"].as_u64().unwrap()
    );
    assert!(
        tokens
            .iter()
            .all(|token| token["top_logprobs"].as_array().unwrap().len() == 2)
    );
    // They are kept with the answer.
    let id = answer["id"].as_str().unwrap();
    assert_eq!(node.get(&format!("{RESPONSES}/{id}")).json(), answer);
}

#[test]
fn a_call_and_its_result_go_round() {
    let node = TestNode::start(options());
    let tools = json!({"tools": [light()], "tool_choice": {"type": "function", "name": "set_light"}, "parallel_tool_calls": false, "max_output_tokens": 120});
    let called = answered(&node, tools.clone());
    let call = &called["output"][0];
    assert_eq!(
        (&call["type"], &call["name"], &call["status"]),
        (
            &json!("function_call"),
            &json!("set_light"),
            &json!("completed")
        )
    );
    assert!(call["call_id"].as_str().unwrap().starts_with("call_"));
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["on"].is_boolean(), "{arguments}");
    assert_eq!(called["status"], "completed");

    let mut streaming = tools;
    streaming["stream"] = true.into();
    let events = events(&ask(&node, streaming));
    let deltas = events
        .iter()
        .filter(|(name, _)| name == "response.function_call_arguments.delta");
    let streamed: String = deltas
        .map(|(_, data)| data["delta"].as_str().unwrap())
        .collect();
    assert_eq!(call["arguments"], streamed);
    assert_eq!(events.last().unwrap().0, "response.completed");

    let result = json!({"type": "function_call_output", "call_id": call["call_id"], "output": "the light is on"});
    let chained = answered(
        &node,
        json!({"previous_response_id": called["id"], "input": [result], "tools": [light()]}),
    );
    let question = json!({"role": "user", "content": "what is hearth"});
    let at_once = answered(
        &node,
        json!({"input": [question, call, result], "tools": [light()]}),
    );
    assert_eq!(
        chained["usage"]["input_tokens"],
        at_once["usage"]["input_tokens"]
    );
    assert_eq!(chained["output"][0]["type"], at_once["output"][0]["type"]);

    let stray = ask(&node, json!({"input": [result]}));
    assert_eq!(
        (stray.status, &stray.json()["error"]["param"]),
        (400, &json!("input[0].call_id"))
    );
    let allowed = json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "set_light"}]});
    let other = json!({"type": "function", "name": "fly"});
    let answer = answered(
        &node,
        json!({"tools": [other, light()], "tool_choice": allowed, "max_output_tokens": 120}),
    );
    assert_eq!(answer["output"][0]["name"], "set_light");
    assert_eq!(answer["tool_choice"], allowed);
}

#[test]
fn a_chain_of_answers_is_the_conversation_sent_at_once() {
    let node = TestNode::start(options());
    let first = answered(
        &node,
        json!({"instructions": "be brief", "max_output_tokens": 200}),
    );
    let chained = answered(
        &node,
        json!({"previous_response_id": first["id"], "input": "and why", "instructions": "be kind"}),
    );
    assert_eq!(chained["previous_response_id"], first["id"]);
    let asked =
        json!({"previous_response_id": first["id"], "input": "and why", "instructions": "be kind"});
    let counted = node
        .post(&format!("{RESPONSES}/input_tokens"), asked.to_string())
        .json();
    assert_eq!(
        counted,
        json!({"object": "response.input_tokens", "input_tokens": chained["usage"]["input_tokens"]})
    );
    let input = |answer: Value| json!([{"role": "user", "content": "what is hearth"}, answer, {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "and why"}]}]);
    let at_once = answered(
        &node,
        json!({"input": input(first["output"][0].clone()), "instructions": "be kind"}),
    );
    let short = json!({"role": "assistant", "content": text(&first)});
    let easy = answered(
        &node,
        json!({"input": input(short), "instructions": "be kind"}),
    );
    let reference = json!({"type": "item_reference", "id": first["output"][0]["id"]});
    let referred = answered(
        &node,
        json!({"input": input(reference), "instructions": "be kind"}),
    );
    let chat = json!({"temperature": 0, "max_tokens": 12, "messages": [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "what is hearth"},
        {"role": "assistant", "content": text(&first)},
        {"role": "user", "content": "and why"},
    ]});
    let chat = node.post("/v1/chat/completions", chat.to_string()).json();
    for same in [&at_once, &easy, &referred] {
        assert_eq!(text(same), text(&chained));
        assert_eq!(
            same["usage"]["input_tokens"],
            chained["usage"]["input_tokens"]
        );
    }
    assert_eq!(chat["choices"][0]["message"]["content"], text(&chained));
    assert_eq!(
        chat["usage"]["prompt_tokens"],
        chained["usage"]["input_tokens"]
    );
}

#[test]
fn a_conversation_collects_what_is_said_in_it() {
    let node = TestNode::start(options());
    let hello = json!({"role": "user", "content": "hello"});
    let made = node.post(
        CONVERSATIONS,
        json!({"items": [hello], "metadata": {"a": "b"}}).to_string(),
    );
    assert_eq!(made.status, 200, "{made:?}");
    let made = made.json();
    let id = made["id"].as_str().unwrap();
    let place = format!("{CONVERSATIONS}/{id}");
    assert_eq!(
        (&made["object"], &made["metadata"]),
        (&json!("conversation"), &json!({"a": "b"}))
    );
    assert_eq!(node.get(&place).json(), made);

    let first = answered(&node, json!({"conversation": id, "input": "and you"}));
    assert_eq!(first["conversation"], json!({"id": id}));
    let second = answered(
        &node,
        json!({"conversation": {"id": id}, "input": "go on", "stream": null}),
    );
    let at_once = answered(
        &node,
        json!({"input": [
            hello, {"role": "user", "content": "and you"}, first["output"][0], {"role": "user", "content": "go on"},
        ]}),
    );
    assert_eq!(
        second["usage"]["input_tokens"],
        at_once["usage"]["input_tokens"]
    );
    // Going on from an answer in the middle takes what came before it, and no more.
    let aside = answered(
        &node,
        json!({"previous_response_id": first["id"], "input": "go on"}),
    );
    assert_eq!(
        aside["usage"]["input_tokens"],
        at_once["usage"]["input_tokens"]
    );
    // What is not stored is not added.
    answered(
        &node,
        json!({"conversation": id, "input": "unheard", "store": false}),
    );

    let items = |query: &str| node.get(&format!("{place}/items{query}")).json();
    let all = items("?order=asc&limit=50");
    let all = all["data"].as_array().unwrap();
    let texts: Vec<&str> = all
        .iter()
        .map(|item| item["content"][0]["text"].as_str().unwrap())
        .collect();
    assert_eq!(
        texts,
        ["hello", "and you", text(&first), "go on", text(&second)]
    );
    let page = items("?limit=2");
    assert_eq!(
        (&page["data"][0], &page["has_more"]),
        (&all[4], &json!(true))
    );
    assert_eq!(
        (&page["first_id"], &page["last_id"]),
        (&all[4]["id"], &all[3]["id"])
    );
    let page = items(&format!(
        "?limit=9&after={}",
        all[3]["id"].as_str().unwrap()
    ));
    assert_eq!(
        (page["data"].as_array().unwrap().len(), &page["has_more"]),
        (3, &json!(false))
    );

    let one = format!("{place}/items/{}", all[0]["id"].as_str().unwrap());
    assert_eq!(node.get(&one).json(), all[0]);
    assert_eq!(node.delete(&one, "").json(), made);
    assert_eq!(node.get(&one).status, 404);
    let again = node.post(
        &format!("{place}/items"),
        json!({"items": [all[1]]}).to_string(),
    );
    assert_eq!(
        (again.status, &again.json()["error"]["code"]),
        (400, &json!("duplicate_item")),
        "{again:?}"
    );
    let twice = ask(&node, json!({"conversation": id, "input": [all[1]]}));
    assert_eq!(
        (twice.status, &twice.json()["error"]["param"]),
        (400, &json!("input[0].id"))
    );
    let more = node
        .post(
            &format!("{place}/items"),
            json!({"items": [hello]}).to_string(),
        )
        .json();
    assert_eq!(more["data"][0]["content"][0]["text"], "hello");

    let updated = node
        .post(&place, json!({"metadata": {"c": "d"}}).to_string())
        .json();
    assert_eq!(updated["metadata"], json!({"c": "d"}));
    assert_eq!(
        node.delete(&place, "").json(),
        json!({"id": id, "object": "conversation.deleted", "deleted": true})
    );
    for gone in [
        node.get(&place),
        node.get(&format!("{place}/items")),
        ask(&node, json!({"conversation": id})),
    ] {
        assert_eq!(gone.status, 404, "{gone:?}");
        assert!(
            gone.json()["error"]["message"]
                .as_str()
                .unwrap()
                .contains(id),
            "{gone:?}"
        );
    }
    assert_eq!(
        node.post(CONVERSATIONS, "").status,
        200,
        "the body may be left out"
    );
}

#[test]
fn what_is_stored_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (first, conversation) = {
        let (node, _store) = stored_in(folder.path());
        let made = node.post(CONVERSATIONS, "{}").json();
        let first = answered(&node, json!({"conversation": made["id"]}));
        (first, made)
    };
    let (node, store) = stored_in(folder.path());
    let id = first["id"].as_str().unwrap();
    assert_eq!(node.get(&format!("{RESPONSES}/{id}")).json(), first);
    let next = answered(
        &node,
        json!({"previous_response_id": id, "input": "and why"}),
    );
    let same = answered(
        &node,
        json!({"conversation": conversation["id"], "input": "and why"}),
    );
    assert_eq!(next["usage"]["input_tokens"], same["usage"]["input_tokens"]);

    let before = rows(&store);
    let unstored = answered(&node, json!({"store": false}));
    assert_eq!(unstored["store"], false);
    assert_eq!(rows(&store), before);
    let gone = node.get(&format!("{RESPONSES}/{}", unstored["id"].as_str().unwrap()));
    assert_eq!(
        (gone.status, &gone.json()["error"]["param"]),
        (404, &json!("response_id"))
    );
}

#[test]
fn a_stored_answer_can_be_read_and_deleted_and_not_cancelled() {
    let node = TestNode::start(options());
    let questions: Vec<Value> = (0..3)
        .map(|at| json!({"role": "user", "content": format!("q{at}")}))
        .collect();
    let answer = answered(&node, json!({"input": questions}));
    let place = format!("{RESPONSES}/{}", answer["id"].as_str().unwrap());
    assert_eq!(node.get(&place).json(), answer);

    let items = node.get(&format!("{place}/input_items?order=asc&limit=2"));
    let page = items.json();
    assert_eq!(
        (&page["object"], &page["has_more"]),
        (&json!("list"), &json!(true))
    );
    assert_eq!(
        page["data"][0]["content"],
        json!([{"type": "input_text", "text": "q0"}])
    );
    let after = page["last_id"].as_str().unwrap();
    let page = node
        .get(&format!("{place}/input_items?order=asc&after={after}"))
        .json();
    assert_eq!(
        (&page["data"][0]["content"][0]["text"], &page["has_more"]),
        (&json!("q2"), &json!(false))
    );
    for (query, param) in [
        ("?limit=0", "limit"),
        ("?limit=x", "limit"),
        ("?order=up", "order"),
        ("?before=x", "before"),
    ] {
        let reply = node.get(&format!("{place}/input_items{query}"));
        assert_eq!(
            (reply.status, &reply.json()["error"]["param"]),
            (400, &json!(param)),
            "{reply:?}"
        );
    }
    assert_eq!(
        node.get(&format!("{place}/input_items?after=nowhere"))
            .status,
        404
    );

    let cancelled = node.post(&format!("{place}/cancel"), "");
    assert_eq!(cancelled.status, 400, "{cancelled:?}");
    assert_eq!(node.get(&format!("{place}?stream=true")).status, 400);
    let deleted = node.delete(&place, "").json();
    assert_eq!(
        deleted,
        json!({"id": answer["id"], "object": "response", "deleted": true})
    );
    for gone in [
        node.get(&place),
        node.delete(&place, ""),
        node.get(&format!("{place}/input_items")),
        node.post(&format!("{place}/cancel"), ""),
        node.get(&format!("{RESPONSES}/%ff")),
    ] {
        assert_eq!(gone.status, 404, "{gone:?}");
        assert_eq!(gone.json()["error"]["type"], "invalid_request_error");
    }
    let next = ask(&node, json!({"previous_response_id": answer["id"]}));
    let error = &next.json()["error"];
    assert_eq!(
        (next.status, &error["code"]),
        (400, &json!("previous_response_not_found")),
        "{error}"
    );
    assert_eq!(error["param"], "previous_response_id");
}

#[test]
fn a_client_that_leaves_in_the_middle_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (node, store) = stored_in(folder.path());
    let body = json!({"input": "hi", "stream": true, "max_output_tokens": 900, "ignore_eos": true})
        .to_string();
    let mut stream = TcpStream::connect(node.address()).unwrap();
    write!(
        stream,
        "POST {RESPONSES} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
        node.address(),
        body.len()
    )
    .unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("output_text.delta")));
    drop(lines);
    drop(stream);
    wait_until(Duration::from_secs(20), "the request is cancelled", || {
        node.load().cancelled == 1
    });
    assert_eq!(rows(&store), 0);
}

#[test]
fn an_answer_that_cannot_be_stored_fails() {
    let folder = tempfile::tempdir().unwrap();
    let (node, store) = stored_in(folder.path());
    let first = answered(&node, json!({}));
    // As if the disk were full.
    store
        .write(|tx| {
            let pages: i64 = tx.pragma_query_value(None, "page_count", |row| row.get(0))?;
            tx.pragma_update_and_check(
                None,
                "max_page_count",
                pages,
                |_| Ok::<_, sqlite::Error>(()),
            )
        })
        .unwrap();
    let long = "x ".repeat(20_000);
    let many = json!({"input": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": long}]}, {"role": "user", "content": "hi"}]});
    let before = rows(&store);
    let failed = ask(&node, many.clone());
    assert_eq!(
        (failed.status, &failed.json()["error"]["code"]),
        (500, &json!("store_failed")),
        "{failed:?}"
    );
    let mut streaming = many;
    streaming["stream"] = true.into();
    let events = events(&ask(&node, streaming));
    let (name, last) = events.last().unwrap();
    assert_eq!(name, "response.failed");
    assert_eq!(
        (
            &last["response"]["status"],
            &last["response"]["error"]["code"]
        ),
        (&json!("failed"), &json!("store_failed"))
    );
    assert_eq!(rows(&store), before);
    assert_eq!(
        node.get(&format!("{RESPONSES}/{}", first["id"].as_str().unwrap()))
            .json(),
        first
    );
}

#[test]
fn what_is_wrong_is_named() {
    let node = TestNode::start(options());
    let pairs: Value = (0..17)
        .map(|at| (at.to_string(), json!("x")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let message = |content: Value| json!({"input": [{"role": "user", "content": content}]});
    for (extra, param, word) in [
        (json!({"input": null}), "input", "missing"),
        (json!({"input": 5}), "input", "items"),
        (json!({"input": []}), "input", "at least one"),
        (
            json!({"input": [{"role": "user"}]}),
            "input[0].content",
            "missing",
        ),
        (
            json!({"input": [{"role": "robot", "content": "x"}]}),
            "input[0].role",
            "developer",
        ),
        (json!({"input": [{}]}), "input[0].type", "missing"),
        (
            json!({"input": [{"type": "web_search_call"}]}),
            "input[0].type",
            "web_search_call",
        ),
        (
            json!({"input": [{"type": "function_call", "call_id": "1", "name": "x", "arguments": "on"}]}),
            "input[0].arguments",
            "leave the call out",
        ),
        (
            json!({"input": [{"type": "function_call_output", "output": "x"}]}),
            "input[0].call_id",
            "missing",
        ),
        (
            json!({"input": [{"role": "user", "content": "x", "id": ""}]}),
            "input[0].id",
            "128",
        ),
        (
            message(json!([{"type": "input_image"}])),
            "input[0].content[0].type",
            "input_image",
        ),
        (
            message(json!([{"type": "input_text"}])),
            "input[0].content[0].text",
            "missing",
        ),
        (
            message(json!([{"type": "input_text", "text": 7}])),
            "input[0].content[0].text",
            "string",
        ),
        (
            json!({"previous_response_id": "resp_x"}),
            "previous_response_id",
            "resp_x",
        ),
        (
            json!({"previous_response_id": "x", "conversation": "y"}),
            "previous_response_id",
            "not both",
        ),
        (json!({"conversation": 7}), "conversation", "id"),
        (json!({"store": "yes"}), "store", "boolean"),
        (
            json!({"tools": [{"type": "web_search"}]}),
            "tools[0].type",
            "web_search",
        ),
        (
            json!({"tools": [{"type": "function", "function": {"name": "x"}}]}),
            "tools[0].name",
            "beside",
        ),
        (
            json!({"tool_choice": {"type": "file_search"}}),
            "tool_choice.type",
            "file_search",
        ),
        (
            json!({"tool_choice": {"type": "function", "name": "fly"}, "tools": [light()]}),
            "tool_choice",
            "fly",
        ),
        (
            json!({"text": {"format": {"type": "xml"}}}),
            "text.format.type",
            "xml",
        ),
        (
            json!({"reasoning": {"effort": "huge"}}),
            "reasoning.effort",
            "high",
        ),
        (
            json!({"max_output_tokens": 0}),
            "max_output_tokens",
            "max_output_tokens",
        ),
        (json!({"temperature": 9}), "temperature", "temperature"),
        (json!({"top_logprobs": 21}), "top_logprobs", "at most 20"),
        (json!({"include": ["everything"]}), "include[0]", "logprobs"),
        (json!({"truncation": "auto"}), "truncation", "disabled"),
        (json!({"metadata": pairs}), "metadata", "16"),
        (json!({"metadata": {"a": 5}}), "metadata.a", "string"),
        (
            json!({"metadata": {"a": "x".repeat(513)}}),
            "metadata.a",
            "512",
        ),
        (json!({"background": true}), "background", "stream"),
        (
            json!({"prompt": {"id": "pmpt_1"}}),
            "prompt",
            "instructions",
        ),
        (json!({"input": "long ".repeat(4000)}), "input", "1024"),
    ] {
        let reply = ask(&node, extra.clone());
        let error = &reply.json()["error"];
        assert_eq!(
            (reply.status, &error["param"]),
            (400, &json!(param)),
            "{extra}: {reply:?}"
        );
        assert!(
            error["message"].as_str().unwrap().contains(word),
            "{extra}: {error}"
        );
    }
    let unknown = ask(
        &node,
        json!({"input": [{"type": "item_reference", "id": "msg_x"}]}),
    );
    assert_eq!(
        (unknown.status, &unknown.json()["error"]["param"]),
        (404, &json!("input[0].id"))
    );
    assert_eq!(ask(&node, json!({"model": "gpt-9"})).status, 404);
    for (path, body, param) in [
        (CONVERSATIONS, json!({"metadata": {"a": []}}), "metadata.a"),
        (
            CONVERSATIONS,
            json!({"items": [{"type": "x"}]}),
            "items[0].type",
        ),
        (
            CONVERSATIONS,
            json!({"items": vec![json!({"role": "user", "content": "x"}); 21]}),
            "items",
        ),
    ] {
        let reply = node.post(path, body.to_string());
        assert_eq!(
            (reply.status, &reply.json()["error"]["param"]),
            (400, &json!(param)),
            "{reply:?}"
        );
    }
}

/// Opens the reasoning itself.
const THINKING: &str = "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}\
    {%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}\
    {%- if enable_thinking is defined and not enable_thinking %}{{- '\\n</think>\\n\\n' }}{%- endif %}{%- endif %}";

#[test]
fn reasoning_is_an_item_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("thinker.gguf");
    let shape = Shape {
        template: THINKING,
        ..Shape::TINY
    };
    gguf::write(&file, &shape, Quantisation::Q8_0, 3).unwrap();
    let node = TestNode::start(options());
    let think = json!({"model": file, "reasoning": {"effort": "high", "summary": "auto"}, "ignore_eos": true, "seed": 1});
    let answer = answered(&node, think.clone());
    let item = &answer["output"][0];
    assert_eq!(
        (&item["type"], &item["status"]),
        (&json!("reasoning"), &json!("incomplete")),
        "{answer}"
    );
    assert!(item["id"].as_str().unwrap().starts_with("rs_"));
    let thoughts = &item["content"][0];
    assert_eq!(thoughts["type"], "reasoning_text");
    assert_eq!(
        item["summary"],
        json!([{"type": "summary_text", "text": thoughts["text"]}])
    );
    assert_eq!(
        answer["usage"]["output_tokens_details"]["reasoning_tokens"],
        12
    );
    assert_eq!(
        answer["reasoning"],
        json!({"effort": "high", "summary": "auto"})
    );

    let mut streaming = think.clone();
    streaming["stream"] = true.into();
    let events = events(&ask(&node, streaming));
    let deltas = events
        .iter()
        .filter(|(name, _)| name == "response.reasoning_text.delta");
    let streamed: String = deltas
        .map(|(_, data)| data["delta"].as_str().unwrap())
        .collect();
    assert_eq!(thoughts["text"], streamed);

    let mut none = think;
    none["reasoning"] = json!({"effort": "none"});
    assert_eq!(answered(&node, none)["output"][0]["type"], "message");
}
