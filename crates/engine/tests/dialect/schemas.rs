//! Tools with arguments of any shape: their grammar is compiled or refused, and what it lets through fits.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;

use hearth_engine::dialect::{self, CallFormat, Dialect, Form, Opening};
use hearth_engine::{Constraint, EngineError, Token, Tool, ToolChoice, Tools};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Control, MODELS, Words, parts, split};

/// One model for each way to call tools.
const KINDS: [&str; 11] = [
    "qwen3",
    "qwen3-coder",
    "glm-4.6",
    "llama-3.1",
    "mistral-nemo",
    "mistral-small-3.2",
    "gemma-3",
    "phi-4-mini",
    "deepseek-v3.1",
    "command-r7b",
    "gpt-oss",
];

struct Kind {
    name: &'static str,
    dialect: Arc<Dialect>,
    opening: Opening,
    /// With the tags as they are in the model's vocabulary, and as plain text.
    words: [Words; 2],
}

static ALL: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let models = MODELS.iter().filter(|model| KINDS.contains(&model.name));
    let kinds = models.map(|model| {
        let read = model.read();
        Kind {
            name: model.name,
            words: [Control::Own, Control::None]
                .map(|control| Words::new(&read.dialect, model.control, control)),
            opening: read.opening(),
            dialect: read.dialect,
        }
    });
    kinds.collect()
});

/// Stack of the threads on which the engine compiles, in bytes.
const STACK: usize = 64 << 20;

/// A walk over allowed tokens that likes to end, and what it wrote if it did.
fn walk(kind: &Kind, words: &Words, form: &Form, seed: u64) -> Option<String> {
    let mut grammar = words.factory.compile_form(form).unwrap();
    // What closes things that never end by themselves.
    let mut closers: Vec<&str> = kind.dialect.tags();
    if let CallFormat::Parameters { done, .. } = &kind.dialect.calls.format {
        closers.push(done);
    }
    let mut out = Vec::new();
    let mut wanted: Vec<Token> = Vec::new();
    let mut state = seed | 1;
    for step in 0..1500 {
        if grammar.is_complete() {
            return Some(String::from_utf8(out).unwrap());
        }
        let mask = match grammar.mask() {
            Ok(mask) => mask.to_vec(),
            // Thousands of texts that must also match a pattern: the answer ends there with an error that says so.
            Err(error) if is_too_much(&error) => return None,
            Err(error) => panic!(
                "{error} after {:?}\n{}",
                String::from_utf8_lossy(&out),
                form.lark
            ),
        };
        let is_allowed =
            |token: &Token| mask[*token as usize / 32] >> (*token as usize % 32) & 1 == 1;
        let mut next = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as usize
        };
        let hurry = step > 300;
        if is_allowed(&words.eos) && (hurry || next() % 2 == 0) {
            return Some(String::from_utf8(out).unwrap());
        }
        if wanted.is_empty() && !closers.is_empty() && next() % 4 == 0 {
            wanted = words.tokenize(closers[next() % closers.len()]);
            wanted.reverse();
        }
        let likely = |token: &Token| {
            matches!(
                words.tokens[*token as usize].as_slice(),
                b"\"" | b"}" | b"]" | b","
            )
        };
        let allowed: Vec<Token> = (0..words.tokens.len() as Token)
            .filter(|token| *token != words.eos && is_allowed(token))
            .collect();
        assert!(
            !allowed.is_empty(),
            "a dead end after {:?}",
            String::from_utf8_lossy(&out)
        );
        let closing = allowed
            .iter()
            .find(|token| likely(token))
            .filter(|_| hurry || next() % 3 == 0);
        let token = match wanted.pop().filter(is_allowed) {
            Some(token) => token,
            None => {
                wanted.clear();
                // Plain letters keep texts valid UTF-8.
                let ascii: Vec<Token> = allowed
                    .iter()
                    .copied()
                    .filter(|token| words.tokens[*token as usize].is_ascii())
                    .collect();
                let pool = if ascii.is_empty() { &allowed } else { &ascii };
                closing
                    .copied()
                    .unwrap_or_else(|| pool[next() % pool.len()])
            }
        };
        match grammar.accept(token) {
            Ok(()) => {}
            Err(error) if is_too_much(&error) => return None,
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&out)),
        }
        out.extend(&words.tokens[token as usize]);
    }
    None
}

/// Walks that did, which may be few.
static TOO_MUCH: AtomicU32 = AtomicU32::new(0);

fn is_too_much(error: &EngineError) -> bool {
    let too_much =
        matches!(error, EngineError::Compute { reason } if reason.contains("too many expressions"));
    too_much && TOO_MUCH.fetch_add(1, Ordering::Relaxed) < 8
}

/// Compiles the form of some tools as the engine does: strict ones as they are or not at all, others loosened.
fn compile(
    kind: &Kind,
    words: &Words,
    tools: &Tools,
    constraint: &Constraint,
) -> Result<Form, EngineError> {
    let form = Form::new(&kind.dialect, tools, kind.opening, constraint, &|tag| {
        words.control(tag)
    })
    .unwrap();
    match words.factory.compile_form(&form) {
        Ok(_) => Ok(form),
        Err(error) => {
            let loosened = form.loosened(tools, |part| words.factory.compile(part).is_ok());
            if loosened == form {
                return Err(error);
            }
            words.factory.compile_form(&loosened).map(|_| loosened)
        }
    }
}

fn check(tools: &Tools, kind: &Kind, seed: u64) {
    let words = &kind.words[seed as usize % 2];
    let form = match compile(kind, words, tools, &Constraint::None) {
        Ok(form) => form,
        Err(error) => {
            assert!(
                matches!(&error, EngineError::Invalid { message, .. } if message.len() > 20),
                "{error}"
            );
            let is_strict = tools.definitions.iter().any(|tool| tool.strict);
            assert!(is_strict, "{}: {error}: {tools:?}", kind.name);
            return;
        }
    };
    let Some(text) = walk(kind, words, &form, seed) else {
        return;
    };
    let (_, _, calls) = split(
        &kind.dialect,
        tools,
        kind.opening == Opening::Inside,
        &[&text],
    );
    let calls = calls.as_array().unwrap();
    assert!(!calls.is_empty(), "{}: {text}", kind.name);
    for call in calls {
        let tool = tools.definitions.iter().find(|tool| call[0] == tool.name);
        let tool = tool.unwrap_or_else(|| panic!("{}: {text}: {call}", kind.name));
        if call[1].is_null() {
            // With a number that nothing here can hold.
            continue;
        }
        assert!(call[1].is_object(), "{}: {text}", kind.name);
        let strict = Tools {
            definitions: vec![Tool {
                strict: true,
                ..tool.clone()
            }],
            ..tools.clone()
        };
        let is_enforced = compile(kind, words, &strict, &Constraint::None).is_ok();
        let schema = tool
            .parameters
            .clone()
            .unwrap_or(json!({"maxProperties": 0}));
        if let (true, Ok(validator)) = (is_enforced, jsonschema::validator_for(&schema)) {
            assert!(
                validator.is_valid(&call[1]),
                "{}: {schema}: {text}: {call}",
                kind.name
            );
        }
    }
}

/// Names of properties and tools that look like something else.
fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-d]{1,2}",
        1 => prop::sample::select(vec![
            "b c", "x>y", "a\nb", "é", "say \"hi\"", "</parameter>", "<parameter=a>", "type", "$ref", "[ARGS]", "a/b\\c", "",
        ]).prop_map(Into::into),
        1 => Just("long".repeat(40)),
    ]
}

fn leaves() -> impl Strategy<Value = Value> {
    let number = || -20i64..20;
    prop_oneof![
        3 => Just(json!({"type": "string"})),
        1 => Just(json!({"type": ["string", "null"]})),
        1 => Just(json!({"anyOf": [{"type": "string", "maxLength": 4}, {"type": "null"}]})),
        2 => (0u64..4, 0u64..9).prop_map(|(least, most)| json!({"type": "string", "minLength": least, "maxLength": most})),
        1 => prop::sample::select(vec!["^[a-c]{2,4}$", "[0-9]+-x", "^(a|b)*$", "(", "^a|b$", "\\d{3}", "\\p{L}+"])
            .prop_map(|pattern| json!({"type": "string", "pattern": pattern})),
        1 => prop::sample::select(vec!["date", "date-time", "email", "uuid", "ipv4", "uri", "made-up"])
            .prop_map(|format| json!({"type": "string", "format": format})),
        2 => Just(json!({"type": "integer"})),
        1 => (number(), number()).prop_map(|(least, most)| json!({"type": "integer", "minimum": least, "exclusiveMaximum": most})),
        1 => (number(), number()).prop_map(|(least, most)| json!({"type": "number", "minimum": least as f64 / 8.0, "maximum": most as f64 / 8.0})),
        1 => Just(json!({"type": "boolean"})),
        1 => Just(json!({"type": "null"})),
        1 => Just(json!({"enum": ["on", "off", "o<n", "null"]})),
        1 => Just(json!({"enum": ["x", 1, null, {"y": [2]}], "description": "any of these"})),
        1 => Just(json!({"type": "string", "enum": (0..3000).map(|n| format!("choice {n}")).collect::<Vec<_>>()})),
        1 => Just(json!({"const": {"fixed": [1, "two"]}})),
        1 => prop::sample::select(vec!["#/$defs/leaf", "#/$defs/tree", "#/$defs/missing", "#", "http://example.com/x"])
            .prop_map(|place| json!({"$ref": place})),
        1 => prop::sample::select(vec![
            json!({}), json!(true), json!(false), json!({"kind": "made up"}), json!({"type": "nonsense"}), json!({"type": 3}),
            json!({"type": "string", "maxlength": 2}), json!({"not": {"type": "string"}}), json!({"enum": []}), json!(null), json!([1]),
            json!({"type": "string", "minLength": -1}), json!({"type": "string", "pattern": "^[ab]{2}$", "minLength": 5}), json!({"type": "integer", "enum": ["x"]}), json!({"type": "string", "default": 5, "x-order": 1}),
        ]),
    ]
}

fn schemas() -> impl Strategy<Value = Value> {
    leaves().prop_recursive(4, 24, 4, |inner| {
        let fields = || prop::collection::vec((names(), inner.clone()), 0..4);
        prop_oneof![
            4 => (fields(), prop::collection::vec(any::<bool>(), 4), prop::option::of(any::<bool>())).prop_map(|(fields, needed, more)| {
                let required: Vec<&String> = fields.iter().zip(&needed).filter(|(_, needed)| **needed).map(|((name, _), _)| name).collect();
                let mut schema = json!({"type": "object", "required": required});
                if let Some(more) = more {
                    schema["additionalProperties"] = more.into();
                }
                schema["properties"] = fields.iter().cloned().collect::<Map<_, _>>().into();
                schema
            }),
            1 => (inner.clone(), 0u64..3, 0u64..4).prop_map(|(items, least, most)| json!({"type": "array", "items": items, "minItems": least, "maxItems": most})),
            1 => prop::collection::vec(inner.clone(), 0..3).prop_map(|all| json!({"anyOf": all})),
            1 => prop::collection::vec(inner.clone(), 1..3).prop_map(|all| json!({"allOf": all})),
            1 => inner.clone().prop_map(|more| json!({"type": "object", "additionalProperties": more})),
        ]
    })
}

fn tools() -> impl Strategy<Value = Tool> {
    let root = prop_oneof![
        6 => prop::collection::vec((names(), schemas(), any::<bool>()), 0..4).prop_map(|fields| {
            let required: Vec<&String> = fields.iter().filter(|(_, _, needed)| *needed).map(|(name, _, _)| name).collect();
            let mut schema = json!({"type": "object", "required": required, "$defs": {
                "leaf": {"type": "integer"},
                "tree": {"type": "object", "properties": {"v": {"type": "boolean"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}},
            }});
            schema["properties"] = fields.iter().map(|(name, field, _)| (name.clone(), field.clone())).collect::<Map<_, _>>().into();
            Some(schema)
        }),
        2 => schemas().prop_map(Some),
        1 => Just(None),
    ];
    let name = prop_oneof![
        4 => "[a-z]{1,8}",
        1 => prop::sample::select(vec!["weather.now", "get/it", "x[ARGS]y", "näme", "to=functions.x", "a-b_c", "[", "name:0"]).prop_map(Into::into),
    ];
    (name, root, any::<bool>()).prop_map(|(name, parameters, strict)| Tool {
        name,
        description: None,
        parameters: parameters.filter(Value::is_object),
        strict,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_tool_is_enforced_or_refused(first in tools(), second in prop::option::of(tools()), kind in 0..KINDS.len(), seed in any::<u64>()) {
        let second = second.filter(|second| second.name != first.name);
        let tools = Tools {
            definitions: std::iter::once(first).chain(second).collect(),
            choice: ToolChoice::Required,
            single: false,
        };
        prop_assume!(tools.check().is_ok());
        let work = move || check(&tools, &ALL[kind], seed);
        thread::Builder::new().stack_size(STACK).spawn(work).unwrap().join().unwrap();
    }

    /// However a text is divided, its parts are the same, even if no model would write it.
    #[test]
    fn any_division_of_any_text_gives_the_same_parts(
        kind in 0..KINDS.len(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..30),
        cuts in prop::collection::vec(1usize..9, 1..20),
    ) {
        let kind = &ALL[kind];
        let mut pieces = vec!["do_it", "{\"name\": \"", "\", \"arguments\": ", "{", "}", "\"a\": ", "[1]", "<", " ", "\n", "é", "to=functions."];
        pieces.extend(kind.dialect.tags());
        if let CallFormat::Parameters { name, named, key, value, done, tail } = &kind.dialect.calls.format {
            pieces.extend([name, named, key, value, done, tail].map(String::as_str));
        }
        let text: String = picks.iter().map(|pick| *pick.get(&pieces)).collect();
        let tool = Tool { name: "do_it".into(), ..Tool::default() };
        let tools = Tools { definitions: vec![tool], ..Tools::default() };
        let mut divided = Vec::new();
        let mut rest = text.as_str();
        for cut in cuts.iter().cycle() {
            let Some((at, _)) = rest.char_indices().nth(*cut) else {
                divided.push(rest);
                break;
            };
            let (piece, after) = rest.split_at(at);
            divided.push(piece);
            rest = after;
        }
        for inside in [false, true] {
            let whole = parts(&kind.dialect, &tools, inside, &[&text]);
            prop_assert_eq!(parts(&kind.dialect, &tools, inside, &divided), whole, "{}: {:?}", kind.name, text);
        }
    }
}

#[test]
fn the_common_shapes_are_enforced_by_every_dialect() {
    let shapes = [
        json!({"type": "object", "properties": {"path": {"type": "string"}, "line": {"type": "integer", "minimum": 1}}, "required": ["path"]}),
        json!({"type": "object", "properties": {"text": {"type": "string", "minLength": 3, "maxLength": 2000}, "note": {"type": ["string", "null"]}}, "required": ["text", "note"]}),
        json!({"type": "object", "properties": {"text": {"type": "string", "maxLength": 50000}, "word": {"type": "string", "minLength": 1, "maxLength": 60}, "any": {"type": "string", "minLength": 1}}, "required": ["text", "word", "any"]}),
        json!({"type": "object", "properties": {"unit": {"type": "string", "enum": ["c", "f"]}, "tags": {"type": "array", "items": {"type": "string"}}}, "additionalProperties": false}),
        json!({"type": "object", "properties": {"when": {"type": "string", "format": "date"}, "code": {"type": "string", "pattern": "^[A-Z]{3}$"}}, "required": ["when", "code"]}),
        json!({"type": "object", "properties": {"node": {"$ref": "#/$defs/node"}}, "required": ["node"], "$defs": {"node": {"type": "object", "properties": {"name": {"type": "string"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}}}, "required": ["name"]}}}),
        json!({"anyOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]}]}),
        json!({"type": "object", "properties": {"filter": {"type": "object", "additionalProperties": {"type": "number"}}}}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {}}),
    ];
    for kind in ALL.iter() {
        for (at, shape) in shapes.iter().enumerate() {
            let tool = Tool {
                name: "do_it".into(),
                parameters: Some(shape.clone()),
                strict: true,
                ..Tool::default()
            };
            let tools = Tools {
                definitions: vec![tool],
                choice: ToolChoice::Required,
                single: false,
            };
            compile(kind, &kind.words[0], &tools, &Constraint::None)
                .unwrap_or_else(|error| panic!("{} {shape}: {error}", kind.name));
            for seed in 0..4 {
                check(&tools, kind, seed * 1001 + at as u64);
            }
        }
    }
}

#[test]
fn very_deep_and_very_wide_schemas_bring_nothing_down() {
    let deep = |depth: usize| {
        (0..depth).fold(json!({"type": "string"}), |inner, at| match at % 2 {
            0 => json!({"type": "object", "properties": {"a": inner}, "required": ["a"]}),
            _ => json!({"type": "array", "items": inner}),
        })
    };
    let wide = (0..400).map(|n| (format!("field_{n}"), json!({"type": "string"})));
    let wide = json!({"type": "object", "properties": wide.collect::<Map<_, _>>()});
    let shapes = vec![deep(41), deep(121), wide];
    let work = move || {
        for kind in ALL.iter() {
            let all = |names: usize, shape: &Value, strict| Tools {
                definitions: (0..names)
                    .map(|n| Tool {
                        name: format!("tool_{n}"),
                        parameters: Some(shape.clone()),
                        strict,
                        ..Tool::default()
                    })
                    .collect(),
                choice: ToolChoice::Required,
                single: true,
            };
            for shape in &shapes {
                for strict in [true, false] {
                    check(&all(1, shape, strict), kind, 2);
                }
            }
            let shape = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
            let tools = all(300, &shape, true);
            let form = compile(kind, &kind.words[0], &tools, &Constraint::None).unwrap();
            assert!(
                walk(kind, &kind.words[0], &form, 5).is_some(),
                "{}",
                kind.name
            );
        }
    };
    let thread = thread::Builder::new().stack_size(STACK);
    thread.spawn(work).unwrap().join().unwrap();
}

/// What is enforced says that nothing else may be there.
#[test]
fn arguments_are_closed_unless_their_schema_says_more() {
    let enforced = |parameters: Value| {
        dialect::arguments(&Tool {
            parameters: Some(parameters),
            ..Tool::default()
        })
    };
    for (given, taken) in [
        (
            json!({"properties": {}}),
            json!({"properties": {}, "type": "object", "additionalProperties": false}),
        ),
        (
            json!({"type": ["object", "null"], "additionalProperties": true}),
            json!({"type": "object", "additionalProperties": true}),
        ),
        (
            json!({"type": "string"}),
            json!({"allOf": [{"type": "string"}, {"type": "object"}]}),
        ),
    ] {
        assert_eq!(enforced(given), Constraint::JsonSchema(taken));
    }
}
