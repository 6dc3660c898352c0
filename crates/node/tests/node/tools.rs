//! Tools and reasoning on the chat surface.

use hearth_testkit::gguf::{self, Quantisation, Shape};
use hearth_testkit::node::{Reply, TestNode, options};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn light() -> Value {
    json!({"type": "function", "function": {
        "name": "set_light",
        "description": "Switches a light",
        "parameters": {
            "type": "object",
            "properties": {
                "room": {"enum": ["kitchen", "hall"]},
                "on": {"type": "boolean"},
            },
            "required": ["room", "on"],
        },
    }})
}

fn timer() -> Value {
    json!({"type": "function", "function": {"name": "start_timer", "parameters": {
        "type": "object",
        "properties": {"minutes": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["minutes"],
    }}})
}

fn ask(node: &TestNode, extra: Value) -> Reply {
    let mut body = json!({
        "messages": [{"role": "user", "content": "lights on in the hall"}],
        "temperature": 0,
        "max_tokens": 120,
    });
    let fields = body.as_object_mut().unwrap();
    fields.extend(extra.as_object().unwrap().clone());
    node.post(CHAT, body.to_string())
}

fn deltas(reply: &Reply) -> Vec<Value> {
    let lines = reply.body.lines();
    let lines = lines.filter_map(|line| line.strip_prefix("data: "));
    lines
        .filter(|line| *line != "[DONE]")
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_required_call_fits_its_schema_and_the_stream_says_the_same() {
    let node = TestNode::start(options());
    let wanted = json!({"tools": [light(), timer()], "tool_choice": "required", "parallel_tool_calls": false});
    let whole = ask(&node, wanted.clone()).json();
    let choice = &whole["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{whole}");
    assert_eq!(choice["message"]["content"], Value::Null);
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0]["type"], "function");
    assert!(calls[0]["id"].as_str().unwrap().starts_with("call_"));
    let name = calls[0]["function"]["name"].as_str().unwrap();
    let arguments: Value =
        serde_json::from_str(calls[0]["function"]["arguments"].as_str().unwrap()).unwrap();
    match name {
        "set_light" => assert!(arguments["on"].is_boolean() && arguments["room"].is_string()),
        "start_timer" => assert!(arguments["minutes"].is_u64()),
        other => panic!("an unknown tool: {other}"),
    }

    let mut streamed = wanted;
    streamed["stream"] = true.into();
    let (mut named, mut text, mut reason) = (String::new(), String::new(), Value::Null);
    for chunk in deltas(&ask(&node, streamed)) {
        let choice = &chunk["choices"][0];
        let call = &choice["delta"]["tool_calls"][0];
        named.push_str(call["function"]["name"].as_str().unwrap_or_default());
        text.push_str(call["function"]["arguments"].as_str().unwrap_or_default());
        assert!(call.is_null() || call["index"] == 0);
        if !choice["finish_reason"].is_null() {
            reason = choice["finish_reason"].clone();
        }
    }
    assert_eq!((named.as_str(), reason), (name, json!("tool_calls")));
    assert_eq!(calls[0]["function"]["arguments"], text);
}

#[test]
fn the_choice_is_honoured() {
    let node = TestNode::start(options());
    let tools = json!([light(), timer()]);
    let named = json!({"type": "function", "function": {"name": "start_timer"}});
    let answer = ask(&node, json!({"tools": tools, "tool_choice": named})).json();
    for call in answer["choices"][0]["message"]["tool_calls"]
        .as_array()
        .unwrap()
    {
        assert_eq!(call["function"]["name"], "start_timer");
    }
    let without = ask(&node, json!({})).json();
    let none = ask(&node, json!({"tools": tools, "tool_choice": "none"})).json();
    assert_eq!(
        none["choices"][0]["message"],
        without["choices"][0]["message"]
    );
    // The model may do as it likes, and what it says is either text or a whole call.
    let auto = ask(&node, json!({"tools": tools})).json();
    let choice = &auto["choices"][0];
    let called = choice["message"]["tool_calls"].is_array();
    assert_eq!(called, choice["finish_reason"] == "tool_calls", "{auto}");
}

#[test]
fn results_go_back_into_the_conversation() {
    let node = TestNode::start(options());
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "set_light", "arguments": "{\"room\":\"hall\",\"on\":true}"}});
    let messages = json!([
        {"role": "user", "content": "lights on in the hall"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
    ]);
    let reply = ask(&node, json!({"messages": messages, "tools": [light()]}));
    assert_eq!(reply.status, 200, "{reply:?}");
    let without = ask(&node, json!({})).json();
    let used = |answer: &Value| answer["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(used(&reply.json()) > used(&without) + 40);
}

#[test]
fn a_call_that_was_cut_can_be_sent_back() {
    let node = TestNode::start(options());
    let named = json!({"type": "function", "function": {"name": "set_light"}});
    // Somewhere between the call's name and its end.
    let cuts = (6..60).map(|most| {
        let cut = json!({"tools": [light()], "tool_choice": named, "max_tokens": most});
        ask(&node, cut).json()["choices"][0].clone()
    });
    let mut cuts = cuts.filter_map(|choice| {
        let call = &choice["message"]["tool_calls"][0]["function"];
        let arguments = call["arguments"].as_str()?.to_owned();
        let is_cut = arguments.len() > 2 && serde_json::from_str::<Value>(&arguments).is_err();
        is_cut.then_some((choice, arguments))
    });
    let (choice, arguments) = cuts.next().unwrap();
    assert_eq!(choice["finish_reason"], "length", "{choice}");
    let cut = choice["message"].clone();
    let prompt = |call: &Value| {
        let messages = json!([{"role": "user", "content": "lights on in the hall"}, call, {"role": "user", "content": "go on"}]);
        let reply = ask(&node, json!({"messages": messages, "tools": [light()]}));
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    // What the model said stays, and only what was not finished is gone.
    let with = |arguments: &str| {
        let mut message = cut.clone();
        message["tool_calls"][0]["function"]["arguments"] = arguments.into();
        message
    };
    assert_eq!(
        prompt(&with("{\"room\": \"ha")),
        prompt(&with("{\"room\": \"ha\"}"))
    );
    assert!(prompt(&with("{\"room\": \"ha")) > prompt(&with("{")));
    assert!(prompt(&cut) >= prompt(&with("{}")));
    let item = json!({"type": "function_call", "call_id": "1", "name": "set_light", "arguments": arguments});
    let body = json!({"model": "ember", "input": [item, {"role": "user", "content": "go on"}], "max_output_tokens": 16});
    let reply = node.post("/v1/responses", body.to_string());
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[test]
fn what_is_wrong_with_tools_is_said() {
    let node = TestNode::start(options());
    let function = |function: Value| json!([{"type": "function", "function": function}]);
    // Only the first is honoured where a schema cannot be.
    let odd = json!({"type": "object", "properties": {"x": {"type": "string", "format": "no-such-format", "not": {"const": "y"}}}});
    for (extra, param, word) in [
        (
            json!({"tools": [{"type": "web_search"}]}),
            "tools[0].type",
            "web_search",
        ),
        (
            json!({"tools": [{"type": "function"}]}),
            "tools[0].function",
            "missing",
        ),
        (
            json!({"tools": function(json!({"description": "x"}))}),
            "tools[0].function.name",
            "missing",
        ),
        (
            json!({"tools": function(json!({"name": "a b"}))}),
            "tools",
            "`a b`",
        ),
        (
            json!({"tools": function(json!({"name": "a", "parameters": 5}))}),
            "tools",
            "an object",
        ),
        (
            json!({"tools": [light(), light()]}),
            "tools",
            "taken already",
        ),
        (
            json!({"tool_choice": "required"}),
            "tool_choice",
            "no tools",
        ),
        (
            json!({"tools": [light()], "tool_choice": {"type": "function", "function": {"name": "fly"}}}),
            "tool_choice",
            "`fly`",
        ),
        (
            json!({"tools": [light()], "tool_choice": "perhaps"}),
            "tool_choice",
            "auto",
        ),
        (
            json!({"tools": function(json!({"name": "a", "strict": true, "parameters": odd}))}),
            "tools",
            "`a`",
        ),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "x", "function": {"name": "a", "arguments": "on"}}]}]}),
            "messages[0].tool_calls[0].function.arguments",
            "leave the call out",
        ),
    ] {
        let reply = ask(&node, extra.clone());
        let error = &reply.json()["error"];
        assert_eq!(reply.status, 400, "{extra}: {reply:?}");
        assert_eq!(error["param"], param, "{extra}: {error}");
        assert!(
            error["message"].as_str().unwrap().contains(word),
            "{extra}: {error}"
        );
    }
    let many: Vec<Value> = (0..1025)
        .map(|at| json!({"type": "function", "function": {"name": format!("f{at}")}}))
        .collect();
    let refused = ask(&node, json!({"tools": many})).json();
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("1025") && message.contains("1024"),
        "{message}"
    );
    let loose = ask(
        &node,
        json!({"tools": function(json!({"name": "a", "parameters": odd})), "tool_choice": "required", "max_tokens": 24}),
    );
    assert_eq!(loose.status, 200, "{loose:?}");
}

/// Opens the reasoning itself, as DeepSeek R1's does, unless it is told not to.
const THINKING: &str = "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}\
    {%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}\
    {%- if enable_thinking is defined and not enable_thinking %}{{- '\\n</think>\\n\\n' }}{%- endif %}{%- endif %}";

#[test]
fn reasoning_is_told_apart_and_keeps_to_its_budget() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("thinker.gguf");
    let shape = Shape {
        template: THINKING,
        ..Shape::TINY
    };
    gguf::write(&file, &shape, Quantisation::Q8_0, 3).unwrap();
    let node = TestNode::start(options());
    let think = |extra: Value| {
        let mut body = json!({"model": file, "max_tokens": 60, "ignore_eos": true, "seed": 1});
        let fields = body.as_object_mut().unwrap();
        fields.extend(extra.as_object().unwrap().clone());
        ask(&node, body)
    };
    let answer = think(json!({"thinking_budget": 9})).json();
    let message = &answer["choices"][0]["message"];
    assert!(!message["reasoning_content"].as_str().unwrap().is_empty());
    let text = message["content"].as_str().unwrap();
    assert!(!text.is_empty() && !text.contains("think>"), "{answer}");
    let details = &answer["usage"]["completion_tokens_details"];
    // The tokens that close it count as well.
    let spent = details["reasoning_tokens"].as_u64().unwrap();
    assert!((9..24).contains(&spent), "{answer}");

    let stream = think(json!({"thinking_budget": 9, "stream": true}));
    let all = |field: &str| -> String {
        let pieces = deltas(&stream).into_iter();
        let pieces = pieces.map(|chunk| chunk["choices"][0]["delta"][field].clone());
        pieces
            .filter_map(|piece| Some(piece.as_str()?.to_owned()))
            .collect()
    };
    assert_eq!(message["reasoning_content"], all("reasoning_content"));
    // Whether the prompt was computed or cached shows in late tokens of random weights.
    let start: String = text.chars().take(20).collect();
    assert!(all("content").starts_with(&start), "{text}");

    for off in [
        json!({"enable_thinking": false}),
        json!({"reasoning_effort": "none"}),
        json!({"thinking_budget": 0}),
        json!({"chat_template_kwargs": {"enable_thinking": false}}),
    ] {
        let answer = think(off.clone()).json();
        let message = &answer["choices"][0]["message"];
        assert!(message["reasoning_content"].is_null(), "{off}: {answer}");
        assert!(!message["content"].as_str().unwrap().is_empty());
    }

    // A stop text is of the answer, not of the blank line between the reasoning and it.
    let stopped = think(json!({"thinking_budget": 9, "stop": ["\n\n"]})).json();
    let message = &stopped["choices"][0]["message"];
    assert!(!message["reasoning_content"].as_str().unwrap().is_empty());
    assert!(
        !message["content"].as_str().unwrap().is_empty(),
        "{stopped}"
    );

    // What must be JSON is JSON after the reasoning too.
    let schema = json!({"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let answer = think(json!({"thinking_budget": 5, "response_format": format, "ignore_eos": false, "max_tokens": 100})).json();
    let message = &answer["choices"][0]["message"];
    assert!(message["reasoning_content"].is_string(), "{answer}");
    let value: Value = serde_json::from_str(message["content"].as_str().unwrap()).unwrap();
    assert!(value["on"].is_boolean());
}
