//! Whatever a client sends is read or refused, never a panic, and a refusal names the field.

use hearth_protocol::chat::ChatRequest;
use hearth_protocol::completion::CompletionRequest;
use hearth_protocol::error::ApiError;
use hearth_protocol::{id, parse};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Any JSON value, three levels deep.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-300i32..300).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop_oneof!["system", "user", "text", "json_object"].prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let name = prop_oneof![
            any::<String>(),
            prop_oneof!["role", "content", "type", "text", "schema", "5"],
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn chat(value: &Value) -> Result<ChatRequest, ApiError> {
    parse::body(value.to_string().as_bytes())
}

fn completion(value: &Value) -> Result<CompletionRequest, ApiError> {
    parse::body(value.to_string().as_bytes())
}

/// All that a surface does with a body before the engine sees it.
fn check_chat(body: &[u8]) -> Result<(), ApiError> {
    let request: ChatRequest = parse::body(body)?;
    request.check()?;
    request.sampling().biases().map(|_| ())
}

fn check_completion(body: &[u8]) -> Result<(), ApiError> {
    let request: CompletionRequest = parse::body(body)?;
    request.check()?;
    request.sampling().biases().map(|_| ())
}

/// `param` is `field`, or a place in it.
fn is_in(param: &str, field: &str) -> bool {
    param
        .strip_prefix(field)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn whole(value: &Value, least: i64, most: u64) -> bool {
    value.as_i64().is_some_and(|number| number >= least)
        && value.as_u64().is_none_or(|number| number <= most)
}

fn many(value: &Value, each: fn(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|all| all.iter().all(each))
}

/// A field of both requests, and which values other than null are of its type.
type Field = (&'static str, fn(&Value) -> bool);

const SHARED: [Field; 17] = [
    ("model", Value::is_string),
    ("stream", Value::is_boolean),
    ("max_tokens", |value| whole(value, 0, u32::MAX.into())),
    ("n", |value| whole(value, 0, u32::MAX.into())),
    ("stop", |value| {
        value.is_string() || many(value, Value::is_string)
    }),
    ("grammar", Value::is_string),
    ("temperature", Value::is_number),
    ("top_p", Value::is_number),
    ("top_k", |value| whole(value, 0, u32::MAX.into())),
    ("min_p", Value::is_number),
    ("presence_penalty", Value::is_number),
    ("frequency_penalty", Value::is_number),
    ("repeat_penalty", Value::is_number),
    ("logit_bias", |value| {
        value
            .as_object()
            .is_some_and(|biases| biases.values().all(Value::is_number))
    }),
    ("seed", Value::is_i64),
    ("ignore_eos", Value::is_boolean),
    ("stream_options", |value| {
        // As a tuple it is one too: serde reads a structure from an array of its fields.
        value.as_object().is_some_and(|options| {
            options
                .get("include_usage")
                .is_none_or(|usage| usage.is_null() || usage.is_boolean())
        }) || value.as_array().is_some_and(|fields| {
            fields.len() == 1 && (fields[0].is_null() || fields[0].is_boolean())
        })
    }),
];

const CHAT: [Field; 6] = [
    ("max_completion_tokens", |value| {
        whole(value, 0, u32::MAX.into())
    }),
    ("logprobs", Value::is_boolean),
    ("top_logprobs", |value| whole(value, 0, u8::MAX.into())),
    ("chat_template_kwargs", Value::is_object),
    ("parallel_tool_calls", Value::is_boolean),
    ("modalities", |value| many(value, Value::is_string)),
];

const COMPLETION: [Field; 4] = [
    ("best_of", |value| whole(value, 0, u32::MAX.into())),
    ("logprobs", |value| whole(value, 0, u8::MAX.into())),
    ("echo", Value::is_boolean),
    ("suffix", Value::is_string),
];

/// A value of the right type is read; any other is refused under the field's name.
fn is_judged_by_type<T>(
    (field, accepts): Field,
    value: &Value,
    read: Result<T, ApiError>,
) -> Result<(), TestCaseError> {
    match read {
        Ok(_) => prop_assert!(
            value.is_null() || accepts(value),
            "{field}: {value} was read"
        ),
        Err(error) => {
            prop_assert!(!value.is_null() && !accepts(value), "{error:?} for {value}");
            let param = error.param.unwrap_or_default();
            prop_assert!(is_in(&param, field), "{param:?} is not in {field}");
            prop_assert!(error.message.starts_with(&param), "{}", error.message);
            prop_assert!(!error.message.contains(" at line "), "{}", error.message);
            prop_assert_eq!(error.kind, "invalid_request_error");
        }
    }
    Ok(())
}

fn with(mut request: Value, field: &str, value: &Value) -> Value {
    request[field] = value.clone();
    request
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = (check_chat(&bytes), check_completion(&bytes));
    }

    #[test]
    fn no_value_makes_the_parser_panic(value in json_value(), messages in json_value(), format in json_value()) {
        for body in [
            value,
            json!({"messages": messages}),
            json!({"messages": [{"role": "user", "content": messages}]}),
            json!({"prompt": messages, "logit_bias": format}),
            json!({"messages": [], "response_format": format}),
        ] {
            let text = body.to_string();
            for refused in [check_chat(text.as_bytes()), check_completion(text.as_bytes())] {
                if let Err(error) = refused {
                    prop_assert!(!error.message.is_empty());
                    prop_assert_ne!(error.param.as_deref(), Some(""));
                }
            }
        }
    }

    /// A body that is cut anywhere is not JSON any more, and never something else.
    #[test]
    fn a_cut_body_is_refused_as_such(cut in 1usize..90) {
        let whole = json!({"messages": [{"role": "user", "content": "schön"}], "stop": ["a"], "temperature": 0.5});
        let text = whole.to_string();
        let cut = &text.as_bytes()[..cut.min(text.len() - 1)];
        let error = parse::body::<ChatRequest>(cut).expect_err("it was cut");
        prop_assert_eq!(error.param, None);
        let told = ["the body is not valid JSON", "the body is not UTF-8"];
        prop_assert!(told.iter().any(|told| error.message.starts_with(told)), "{}", error.message);
    }

    #[test]
    fn a_chat_field_of_another_type_is_named(
        at in 0..SHARED.len() + CHAT.len(), value in json_value(),
    ) {
        let field = *SHARED.iter().chain(&CHAT).nth(at).expect("a field");
        let request = json!({"messages": [{"role": "user", "content": "hello"}]});
        is_judged_by_type(field, &value, chat(&with(request, field.0, &value)))?;
    }

    #[test]
    fn a_completion_field_of_another_type_is_named(
        at in 0..SHARED.len() + COMPLETION.len(), value in json_value(),
    ) {
        let field = *SHARED.iter().chain(&COMPLETION).nth(at).expect("a field");
        is_judged_by_type(field, &value, completion(&with(json!({"prompt": "x"}), field.0, &value)))?;
    }

    #[test]
    fn a_wrong_message_is_named_by_its_place(at in 0usize..4, content in json_value(), role in json_value()) {
        let mut messages = vec![json!({"role": "user", "content": "hello"}); 4];
        messages[at] = json!({"role": role, "content": content});
        if let Err(error) = check_chat(json!({"messages": messages}).to_string().as_bytes()) {
            let param = error.param.unwrap_or_default();
            prop_assert!(is_in(&param, &format!("messages[{at}]")), "{param}: {}", error.message);
        }
    }

    #[test]
    fn an_unknown_field_is_ignored(name in "x_[a-z]{1,12}", value in json_value()) {
        let request = json!({"messages": [{"role": "user", "content": "hello"}]});
        prop_assert!(chat(&with(request, &name, &value)).is_ok());
    }

    #[test]
    fn identifiers_may_be_sent_back_in_a_header(random in any::<u128>()) {
        let id = id::with_prefix("req", random);
        prop_assert_eq!(id.len(), 36);
        prop_assert!(id::is_sane(&id));
    }

    #[test]
    fn only_visible_ascii_is_a_sane_identifier(text in any::<String>()) {
        let visible = !text.is_empty() && text.len() <= 128 && text.chars().all(|c| ('!'..='~').contains(&c));
        prop_assert_eq!(id::is_sane(&text), visible);
    }
}

#[test]
fn a_body_of_brackets_is_refused_before_the_stack_ends() {
    for open in ["[", "{\"messages\":"] {
        let error = parse::body::<ChatRequest>(open.repeat(200_000).as_bytes());
        assert!(error.is_err());
    }
}

#[test]
fn every_refusal_of_a_chat_names_its_field() {
    let message = |message: Value| json!({"messages": [message]});
    let plain = message(json!({"role": "user", "content": "hello"}));
    let and = |more: Value| {
        let mut request = plain.clone();
        let fields: Map<String, Value> = serde_json::from_value(more).unwrap();
        request.as_object_mut().unwrap().extend(fields);
        request
    };
    for (param, request) in [
        ("messages", json!({"messages": []})),
        (
            "messages[0].role",
            message(json!({"role": "elf", "content": ""})),
        ),
        (
            "messages[0].role",
            message(json!({"role": null, "content": ""})),
        ),
        (
            "messages[0].role",
            message(json!({"role": 5, "content": ""})),
        ),
        (
            "messages[0].role",
            message(json!({"role": ["user"], "content": ""})),
        ),
        ("messages[0].content", message(json!({"role": "user"}))),
        (
            "messages[0].role",
            message(json!({"role": "function", "content": "5", "name": "f"})),
        ),
        (
            "messages[0].tool_calls[0].function",
            message(json!({"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]})),
        ),
        (
            "messages[0].tool_calls",
            message(
                json!({"role": "user", "content": "x", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}),
            ),
        ),
        (
            "messages[0].function_call",
            message(json!({"role": "assistant", "content": "", "function_call": {"name": "f"}})),
        ),
        (
            "messages[0].content",
            message(json!({"role": "user", "content": 5})),
        ),
        (
            "messages[0].content[1].type",
            message(
                json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}),
            ),
        ),
        (
            "messages[0].content[0].text",
            message(json!({"role": "user", "content": [{"type": "text"}]})),
        ),
        (
            "tools[0].function",
            and(json!({"tools": [{"type": "function"}]})),
        ),
        (
            "tools[1].type",
            and(
                json!({"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "web_search"}]}),
            ),
        ),
        ("tool_choice", and(json!({"tool_choice": "perhaps"}))),
        (
            "reasoning_effort",
            and(json!({"reasoning_effort": "endless"})),
        ),
        ("functions", and(json!({"functions": [{"name": "f"}]}))),
        ("modalities", and(json!({"modalities": ["text", "audio"]}))),
        ("top_logprobs", and(json!({"top_logprobs": 2}))),
        (
            "grammar",
            and(json!({"grammar": "root ::= \"a\"", "response_format": {"type": "json_object"}})),
        ),
        ("logit_bias.ember", and(json!({"logit_bias": {"ember": 1}}))),
        (
            "response_format.type",
            and(json!({"response_format": {"type": "xml"}})),
        ),
        (
            "stream_options.include_usage",
            and(json!({"stream_options": {"include_usage": "yes"}})),
        ),
        ("hearth", and(json!({"hearth": true}))),
        ("hearth.memroy", and(json!({"hearth": {"memroy": true}}))),
        ("hearth.memory", and(json!({"hearth": {"memory": "shop"}}))),
        ("hearth.memory", and(json!({"hearth": {"memory": [1]}}))),
        (
            "hearth.memory.query",
            and(json!({"hearth": {"memory": {"query": "x"}}})),
        ),
        (
            "hearth.memory.limit",
            and(json!({"hearth": {"memory": {"limit": -1}}})),
        ),
    ] {
        let error = check_chat(request.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(param), "{}", error.message);
    }
    for accepted in [
        json!({"tools": [], "functions": [], "modalities": ["text"], "top_logprobs": 0}),
        json!({"top_logprobs": 2, "logprobs": true, "logit_bias": {"5": -100}}),
        json!({"grammar": "root ::= \"a\"", "response_format": {"type": "text"}}),
        json!({"repetition_penalty": 1.1, "stop": null, "model": null}),
        json!({"hearth": {"memory": {"project": "shop", "limit": 5, "min_confidence": 0.5}}}),
        json!({"hearth": {"memory": true}}),
        json!({"hearth": {"memory": null}}),
        json!({"hearth": null}),
    ] {
        let request = and(accepted);
        assert_eq!(
            check_chat(request.to_string().as_bytes()),
            Ok(()),
            "{request}"
        );
    }
    // As clients send an answer back that called nothing.
    let silent = json!({"role": "assistant", "content": null, "tool_calls": [], "function_call": null, "refusal": null});
    assert_eq!(check_chat(message(silent).to_string().as_bytes()), Ok(()));
}

#[test]
fn every_refusal_of_a_completion_names_its_field() {
    for (param, request) in [
        ("prompt", json!({"prompt": {}})),
        ("prompt", json!({"prompt": []})),
        ("prompt", json!({"prompt": vec!["x"; 17]})),
        ("suffix", json!({"prompt": "x", "suffix": "y"})),
        ("best_of", json!({"prompt": "x", "best_of": 2})),
        (
            "hearth.memory",
            json!({"prompt": "x", "hearth": {"memory": true}}),
        ),
        ("echo", json!({"prompt": "x", "echo": true, "logprobs": 1})),
        ("echo", json!({"prompt": [1, 2], "echo": true})),
        (
            "logit_bias.1.5",
            json!({"prompt": "x", "logit_bias": {"1.5": 1}}),
        ),
    ] {
        let error = check_completion(request.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(param), "{}", error.message);
    }
    for accepted in [
        json!({"prompt": "x", "suffix": "", "best_of": 1, "echo": true}),
        json!({"prompt": [[1], [2, 3]], "best_of": 2, "n": 2, "logprobs": 1}),
    ] {
        assert_eq!(
            check_completion(accepted.to_string().as_bytes()),
            Ok(()),
            "{accepted}"
        );
    }
}

#[test]
fn a_value_that_cannot_be_read_is_named_with_the_reason() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    for (field, value, reason) in [
        ("temperature", "1e400", "temperature: number out of range"),
        ("max_tokens", "-1e400", "max_tokens: number out of range"),
        (
            "model",
            r#""\ud800""#,
            "model: unexpected end of hex escape",
        ),
        (
            "stream_options",
            "5",
            "stream_options: invalid type: integer `5`, expected an object",
        ),
        (
            "response_format",
            "5",
            "response_format: invalid type: integer `5`, expected an object",
        ),
        (
            "chat_template_kwargs",
            &format!("{{\"a\": {deep}}}"),
            "recursion limit exceeded",
        ),
    ] {
        let body = format!(r#"{{"messages": [], "{field}": {value}}}"#);
        let error = parse::body::<ChatRequest>(body.as_bytes()).unwrap_err();
        assert!(is_in(&error.param.unwrap(), field), "{}", error.message);
        assert!(error.message.contains(reason), "{}", error.message);
    }
    let long = json!({"messages": "ü".repeat(100_000)});
    let error = chat(&long).unwrap_err();
    assert!(error.message.len() < 1_000, "{}", error.message.len());
    assert!(
        error.message.ends_with("expected a sequence"),
        "{}",
        error.message
    );
}

#[test]
fn a_field_that_is_missing_or_there_twice_is_named() {
    for (param, body) in [
        ("messages", "{}"),
        (
            "messages[1].role",
            r#"{"messages": [{"role": "user", "content": "a"}, {"content": "b"}]}"#,
        ),
        (
            "temperature",
            r#"{"messages": [], "temperature": 1, "temperature": 2}"#,
        ),
        (
            "repeat_penalty",
            r#"{"messages": [], "repeat_penalty": 1, "repetition_penalty": 2}"#,
        ),
    ] {
        let error = parse::body::<ChatRequest>(body.as_bytes()).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(param), "{}", error.message);
        assert!(error.message.starts_with(param), "{}", error.message);
    }
    let error = completion(&json!({})).unwrap_err();
    assert_eq!(error.message, "prompt: missing field `prompt`");
}
