//! Whatever a client sends as items is completed or refused with its place; what is kept is read back as it was.

use hearth_protocol::error::ApiError;
use hearth_protocol::responses::{Given, Item, Items, ResponsesRequest};
use hearth_protocol::{id, parse};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// The names of an item's fields, and what they may hold.
const FIELDS: [(&str, &[&str]); 11] = [
    (
        "type",
        &[
            "message",
            "function_call",
            "function_call_output",
            "reasoning",
            "item_reference",
            "other",
        ],
    ),
    ("role", &["user", "assistant", "developer", "tool"]),
    ("status", &["completed", "incomplete", "?"]),
    ("id", &["msg_1", "", "a b"]),
    ("content", &["", "hello"]),
    ("text", &["hello"]),
    ("call_id", &["call_1"]),
    ("name", &["look"]),
    ("arguments", &["{}", "{", ""]),
    ("output", &["done"]),
    ("summary", &["no list"]),
];

/// JSON that looks like items, or parts of them.
fn likely() -> impl Strategy<Value = Value> {
    let text = (0..FIELDS.len(), 0..6_usize)
        .prop_map(|(field, at)| Value::from(FIELDS[field].1[at % FIELDS[field].1.len()]));
    let leaf = prop_oneof![
        4 => text,
        1 => any::<i32>().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => Just(json!({"type": "input_text", "text": "hello"})),
        1 => Just(json!([{"type": "output_text", "text": "hello"}, {"type": "refusal", "refusal": "no"}])),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let field = (0..FIELDS.len()).prop_map(|at| FIELDS[at].0.to_owned());
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((field, inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// An item whose fields are mostly of the right kind.
fn item() -> impl Strategy<Value = Value> {
    let each: Vec<_> = FIELDS
        .iter()
        .map(|(name, values)| {
            let some = prop_oneof![
                1 => Just(None),
                3 => prop::sample::select(*values).prop_map(|value| Some(Value::from(value))),
                1 => likely().prop_map(Some),
            ];
            some.prop_map(move |value| Some(((*name).to_owned(), value?)))
        })
        .collect();
    each.prop_map(|fields| Value::Object(fields.into_iter().flatten().collect::<Map<_, _>>()))
}

fn read(body: &Value) -> Result<Vec<Given>, ApiError> {
    let request: ResponsesRequest = parse::body(body.to_string().as_bytes())?;
    request.check()?;
    match request.input {
        Some(Items::List(list)) => (0..)
            .zip(list)
            .map(|(at, item)| item.read(&format!("input[{at}]"), &|prefix| format!("{prefix}_new")))
            .collect(),
        _ => Ok(Vec::new()),
    }
}

proptest! {
    #[test]
    fn no_request_makes_the_parser_panic(input in likely(), tools in likely(), choice in likely(), rest in likely()) {
        let body = json!({
            "input": input, "tools": tools, "tool_choice": choice, "text": rest, "reasoning": rest,
            "metadata": rest, "conversation": rest, "include": rest,
        });
        for (field, value) in body.as_object().expect("fields") {
            let alone = Value::Object(Map::from_iter([(field.clone(), value.clone())]));
            if let Err(error) = read(&alone) {
                let param = error.param.expect("the field is named");
                prop_assert!(param.starts_with(field.as_str()), "{param} is not in {field}");
                prop_assert!(!error.message.is_empty());
            }
        }
    }

    #[test]
    fn an_item_is_complete_or_refused_at_its_place(at in 0..3_usize, odd in item()) {
        let mut input = vec![json!({"role": "user", "content": "hello"}); 3];
        input[at] = odd;
        match read(&json!({"input": input})) {
            Err(error) => {
                let param = error.param.expect("the field is named");
                prop_assert!(param.starts_with(&format!("input[{at}]")), "{param}");
            }
            Ok(items) => {
                prop_assert_eq!(items.len(), 3);
                for given in items {
                    let Given::Item(item) = given else { continue };
                    prop_assert!(id::is_sane(item.id()));
                    let kept = serde_json::to_string(&item).expect("JSON");
                    prop_assert_eq!(serde_json::from_str::<Item>(&kept).expect("an item"), item.clone());
                    // Sent back as it was given out, it means the same.
                    let again = read(&json!({"input": [serde_json::to_value(&item).expect("JSON")]}));
                    prop_assert_eq!(again.expect("an item"), [Given::Item(item)]);
                }
            }
        }
    }
}
