//! Constraints through their public door: whatever is drawn under the mask ends in a text that fits.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use hearth_engine::grammar::{Grammar, GrammarFactory, Vocabulary};
use hearth_engine::{Constraint, EngineError, Token};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Bytes, some longer tokens as a trained vocabulary has them, and an end token.
fn vocabulary() -> Vocabulary {
    let mut tokens: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
    for word in [
        "\": \"", "\":", "{\"", "\"}", "\", \"", "true", "false", "null", "12", "00", "the", " a",
        "name", "é",
    ] {
        tokens.push(word.as_bytes().to_vec());
    }
    tokens.push(b"<|end|>".to_vec());
    let eos = tokens.len() as Token - 1;
    let mut special = vec![false; tokens.len()];
    special[eos as usize] = true;
    Vocabulary {
        tokens,
        special,
        eos,
        end_of_generation: vec![eos],
        tokenize: Arc::new(|bytes| Some(bytes.iter().map(|byte| Token::from(*byte)).collect())),
    }
}

struct Bench {
    factory: GrammarFactory,
    tokens: Vec<Vec<u8>>,
    eos: Token,
}

impl Bench {
    fn new() -> Self {
        let words = vocabulary();
        Self {
            factory: GrammarFactory::new(vocabulary()).unwrap(),
            eos: words.eos,
            tokens: words.tokens,
        }
    }

    fn compile(&self, constraint: &Constraint) -> Grammar {
        self.factory.compile(constraint).unwrap().unwrap()
    }

    /// A random walk under the mask that prefers to end, so that it does.
    fn walk(&self, constraint: &Constraint, seed: u64) -> String {
        let mut grammar = self.compile(constraint);
        let mut out = Vec::new();
        let mut state = seed | 1;
        for step in 0..4000 {
            if grammar.is_complete() {
                break;
            }
            let mask = grammar.mask().unwrap().to_vec();
            let allowed: Vec<Token> = (0..self.tokens.len())
                .filter(|at| mask[at / 32] >> (at % 32) & 1 == 1)
                .map(|at| at as Token)
                .collect();
            assert!(
                !allowed.is_empty(),
                "a dead end after {:?}",
                String::from_utf8_lossy(&out)
            );
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let closing = |token: &Token| {
                matches!(self.tokens[*token as usize].as_slice(), b"\"" | b"}" | b"]")
            };
            let token = if allowed.contains(&self.eos) && (state >> 60 < 8 || step > 200) {
                self.eos
            } else if let Some(token) = allowed
                .iter()
                .find(|token| closing(token) && (state >> 61 < 4 || step > 200))
            {
                *token
            } else {
                // Plain letters and digits keep strings valid UTF-8.
                let ascii: Vec<Token> = allowed
                    .iter()
                    .copied()
                    .filter(|token| {
                        *token != self.eos && self.tokens[*token as usize].iter().all(u8::is_ascii)
                    })
                    .collect();
                let pool = if ascii.is_empty() { &allowed } else { &ascii };
                pool[(state >> 33) as usize % pool.len()]
            };
            if token == self.eos {
                break;
            }
            grammar.accept(token).unwrap();
            out.extend(&self.tokens[token as usize]);
        }
        String::from_utf8(out).unwrap()
    }
}

fn schemas() -> Vec<Value> {
    vec![
        json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false}),
        json!({"type": "object", "properties": {"intent": {"enum": ["on", "off"]}, "n": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["intent", "n"], "additionalProperties": false}),
        json!({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4}),
        json!({"type": "array", "items": {"type": "array", "items": {"type": "null"}, "maxItems": 1}, "maxItems": 2}),
        json!({"type": "string", "minLength": 2, "maxLength": 5}),
        json!({"type": "string", "pattern": "^[a-c]{3}-[0-9]+$", "maxLength": 10}),
        json!({"type": "string", "format": "date"}),
        json!({"enum": ["x", 1, null, true]}),
        json!({"const": {"fixed": [1, 2]}}),
        json!({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 3}]}),
        json!({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}}, "required": ["v"], "additionalProperties": false}}}),
        json!({"type": "number", "minimum": -1.5, "maximum": 2.5}),
        json!({"type": "integer", "exclusiveMinimum": 10, "exclusiveMaximum": 20}),
        json!({"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2}),
        json!({"type": "object", "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}}, "required": ["name"], "additionalProperties": false}),
        json!({"type": ["string", "null"]}),
        json!({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": false, "minItems": 2}),
        json!({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"b": {"type": "boolean"}}}]}),
        json!({"title": "T", "description": "d", "$comment": "c", "type": "boolean", "default": true, "examples": [false]}),
        json!(true),
    ]
}

#[test]
fn every_walk_ends_in_json_that_fits_its_schema() {
    let bench = Bench::new();
    for schema in schemas() {
        let validator = jsonschema::validator_for(&schema).unwrap();
        for seed in 0..12 {
            let text = bench.walk(&Constraint::JsonSchema(schema.clone()), seed);
            let value: Value = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{schema}: {text:?}: {error}"));
            assert!(validator.is_valid(&value), "{schema}: {text}");
        }
    }
    for seed in 0..12 {
        let text = bench.walk(&Constraint::JsonObject, seed);
        assert!(
            serde_json::from_str::<Value>(&text).unwrap().is_object(),
            "{text}"
        );
    }
}

#[test]
fn compact_and_spaced_forms_are_both_allowed_and_padding_is_not() {
    let bench = Bench::new();
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"], "additionalProperties": false});
    let fits = |text: &str| {
        let mut grammar = bench.compile(&Constraint::JsonSchema(schema.clone()));
        text.bytes()
            .all(|byte| grammar.accept(Token::from(byte)).is_ok())
    };
    assert!(fits(r#"{"a":1,"b":2}"#) && fits(r#"{"a": 1, "b": 2}"#));
    assert!(!fits(r#"{"a":  1"#) && !fits("{ \n"));
}

#[test]
fn what_cannot_be_enforced_is_refused() {
    let bench = Bench::new();
    for schema in [
        json!({"type": "object", "properties": {"a": {"not": {"type": "string"}}}}),
        json!({"type": "array", "uniqueItems": true}),
        json!({"type": "object", "dependentRequired": {"a": ["b"]}}),
        json!({"if": {"type": "string"}, "then": {"minLength": 2}}),
        json!({"type": "nonsense"}),
        json!({"type": "object", "properties": {"a": {"type": "string", "maxlength": 3}}}),
        json!({"type": "array", "uniqueItems": true, "x-guidance": {"lenient": true}}),
        json!({"$ref": "#/$defs/missing"}),
        json!({"$ref": "#"}),
        json!({"type": "string", "pattern": "("}),
        json!(false),
    ] {
        let error = bench
            .factory
            .compile(&Constraint::JsonSchema(schema.clone()));
        let error = error
            .err()
            .unwrap_or_else(|| panic!("{schema} was accepted"));
        assert!(
            matches!(
                &error,
                EngineError::Invalid {
                    field: "constraint",
                    ..
                }
            ),
            "{schema}: {error}"
        );
    }
    for constraint in [
        Constraint::Regex("(".into()),
        Constraint::Lark("start: nothing".into()),
        Constraint::Gbnf("root ::= root".into()),
    ] {
        assert!(
            bench.factory.compile(&constraint).is_err(),
            "{constraint:?}"
        );
    }
}

#[test]
fn a_grammar_compiled_before_starts_afresh() {
    let bench = Bench::new();
    let schema = |n: u64| Constraint::JsonSchema(json!({"const": n}));
    let mut first = bench.compile(&schema(12));
    first.accept(Token::from(b'1')).unwrap();
    // The first one goes on undisturbed while others of its kind begin, and more kinds than are kept come and go.
    for n in (0..40).chain([12, 12]) {
        assert_eq!(bench.walk(&schema(n), 1), n.to_string());
    }
    first.accept(Token::from(b'2')).unwrap();
    assert!(first.is_complete());
}

#[test]
fn a_regular_expression_matches_the_whole_answer() {
    let bench = Bench::new();
    for seed in 0..12 {
        let text = bench.walk(&Constraint::Regex("(yes|no)(, (sir|madam))?".into()), seed);
        assert!(
            [
                "yes",
                "no",
                "yes, sir",
                "no, sir",
                "yes, madam",
                "no, madam"
            ]
            .contains(&text.as_str()),
            "{text}"
        );
    }
}

#[test]
fn forced_text_needs_no_model() {
    let bench = Bench::new();
    let mut grammar = bench.compile(&Constraint::JsonSchema(json!({"const": "fixed"})));
    let mut out = Vec::new();
    while !grammar.is_complete() {
        let forced = grammar.forced();
        assert!(!forced.is_empty(), "{:?}", String::from_utf8_lossy(&out));
        for token in forced {
            if token != bench.eos {
                out.extend(&bench.tokens[token as usize]);
            }
            grammar.accept(token).unwrap();
        }
    }
    assert_eq!(out, b"\"fixed\"");
}

/// llama.cpp's grammars in spirit: arithmetic, a list, JSON, and the intent grammar of a phone assistant.
const ARITHMETIC: &str = r#"
root  ::= (expr "=" ws term "\n")+   # equations
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]{0,2}
"#;
const LIST: &str = "root ::= item+\n# one line each\nitem ::= \"- \" [^\\r\\n\\x0b\\x0c\\x85\\u2028\\u2029]{1,20} \"\\n\"\n";
const OPTIONS: &str = r#"
root ::= answer
  | answer "," " " why-so{1,2}
answer ::= "yes" | "no"
why-so ::= "because " ( "it" | "they" ) " " ("is" | "are")? "."
"#;

#[test]
fn gbnf_grammars_mean_what_they_mean_in_llama_cpp() {
    let bench = Bench::new();
    for seed in 0..20 {
        let text = bench.walk(&Constraint::Gbnf(ARITHMETIC.into()), seed);
        assert!(text.contains('=') && text.ends_with('\n'), "{text:?}");
        let text = bench.walk(&Constraint::Gbnf(LIST.into()), seed);
        assert!(
            text.lines()
                .all(|line| line.starts_with("- ") && line.len() > 2),
            "{text:?}"
        );
        let text = bench.walk(&Constraint::Gbnf(OPTIONS.into()), seed);
        assert!(
            text.starts_with("yes") || text.starts_with("no"),
            "{text:?}"
        );
    }
    let follows = |grammar: &str, text: &str| {
        let mut grammar = bench.compile(&Constraint::Gbnf(grammar.into()));
        for byte in text.bytes() {
            if grammar.accept(Token::from(byte)).is_err() {
                return false;
            }
        }
        grammar.is_complete()
            || grammar.mask().unwrap()[bench.eos as usize / 32] >> (bench.eos % 32) & 1 == 1
    };
    assert!(
        follows(OPTIONS, "yes")
            && follows(OPTIONS, "no, because it is.")
            && !follows(OPTIONS, "maybe")
    );
    assert!(follows(ARITHMETIC, "(a+1)*b2=c\n") && !follows(ARITHMETIC, "a+=b\n"));
    // A division of the text that a longest-match lexer would not find.
    assert!(follows(r#"root ::= ("a" | "ab") ("c" | "bd")"#, "abd"));
    assert!(follows(r#"root ::= [a-z]+ "end""#, "bookend"));
    assert!(follows(r#"root ::= "" | "x" root"#, "xxx"));
    assert!(follows("root ::= \"\\u00e9\" .", "éb"));
    // Blanks before a repetition, as llama.cpp reads them, and one repetition after another.
    assert!(follows("root ::= \"ab\" * [0-9] {2,3}", "abab123"));
    assert!(follows("root ::= ( \"a\"\n + ) \"b\"*?", "aa") && !follows("root ::= \"a\" +", "b"));
}

#[test]
fn a_wrong_gbnf_grammar_says_where() {
    let bench = Bench::new();
    for (grammar, place, what) in [
        ("root ::= \"a", "line 1, column 10", "not closed"),
        (
            "root ::= a\n\nb ::= \"x\"",
            "line 1, column 10",
            "`a` is used but not defined",
        ),
        ("start ::= \"a\"", "line 1", "no rule `root`"),
        (
            "root ::= \"a\"\nroot ::= \"b\"",
            "line 2, column 1",
            "defined twice",
        ),
        ("root ::= (\"a\"", "line 1, column 10", "not closed"),
        ("root ::= [z-a]", "line 1", "ends before it starts"),
        ("root ::= \"a\"{3,1}", "line 1, column 13", "n ≤ m"),
        ("root = \"a\"", "line 1", "::="),
        ("root ::= \"\\q\"", "line 1", "escapes"),
    ] {
        let error = bench
            .factory
            .compile(&Constraint::Gbnf(grammar.into()))
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains(place) && error.contains(what),
            "{grammar:?}: {error}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No text taken for a grammar or a schema brings the process down.
    #[test]
    fn any_text_is_compiled_or_refused(text in "[a-z:=\"\\[\\]\\(\\)\\|\\*\\+\\?\\{\\}\\\\,0-9 \n#^.-]{0,60}") {
        let bench = Bench::new();
        for constraint in [
            Constraint::Gbnf(text.clone()),
            Constraint::Gbnf(format!("root ::= {text}")),
            Constraint::Lark(text.clone()),
            Constraint::Regex(text.clone()),
            Constraint::JsonSchema(serde_json::from_str(&text).unwrap_or(Value::String(text))),
        ] {
            let _ = bench.factory.compile(&constraint);
        }
    }
}
