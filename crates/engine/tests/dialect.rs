//! Chat templates of well-known models, written from their published formats: the prompts that they give, the dialects
//! read off them, and typical answers of those models through grammar and splitter.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use hearth_engine::dialect::{self, Dialect, Form, Opening};
use hearth_engine::grammar::{GrammarFactory, Vocabulary};
use hearth_engine::split::{Part, Splitter};
use hearth_engine::template::{ChatTemplate, TemplateInput};
use hearth_engine::{Constraint, Token, Tool, ToolChoice, Tools};
use serde_json::{Value, json};

#[path = "dialect/schemas.rs"]
mod schemas;

/// A model's template, and what it writes.
struct Model {
    name: &'static str,
    template: &'static str,
    /// Tags that are control tokens of its vocabulary.
    control: &'static [&'static str],
    /// Reasoning (`hm`), if it does so.
    thought: &'static str,
    /// Words before a call (`Let me look.`), where the format has room for them.
    said: &'static str,
    /// [`ONE`].
    one: &'static str,
    /// [`TWO`].
    two: &'static str,
    /// Around an answer in plain text.
    around: (&'static str, &'static str),
}

/// One call, and two.
const ONE: &str = r#"[["weather", {"place": "Oslo", "days": 2}]]"#;
const TWO: &str = r#"[["weather", {"place": "Oslo"}], ["time", {"zone": "UTC"}]]"#;

/// `template!("name")`
macro_rules! template {
    ($name:literal) => {
        include_str!(concat!("templates/", $name, ".jinja"))
    };
}

const HERMES: (&str, &str) = (
    "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"place\": \"Oslo\", \"days\": 2}}\n</tool_call>",
    "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"place\": \"Oslo\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"time\", \"arguments\": {\"zone\": \"UTC\"}}\n</tool_call>",
);
const LLAMA: (&str, &str) = (
    r#"{"name": "weather", "parameters": {"place": "Oslo", "days": 2}}"#,
    "",
);
const WRAPPED: (&str, &str) = (
    r#"{"tool_calls": [{"name": "weather", "arguments": {"place": "Oslo", "days": 2}}]}"#,
    r#"{"tool_calls": [{"name": "weather", "arguments": {"place": "Oslo"}}, {"name": "time", "arguments": {"zone": "UTC"}}]}"#,
);
const THOUGHT: &str = "<think>\nhm\n</think>\n\n";
const MISTRAL: &[&str] = &["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]"];
const PLAIN: Model = Model {
    name: "",
    template: "",
    control: &[],
    thought: "",
    said: "",
    one: "",
    two: "",
    around: ("", ""),
};

const MODELS: &[Model] = &[
    Model {
        name: "qwen2.5",
        template: template!("qwen2.5"),
        said: "Let me look.\n",
        one: HERMES.0,
        two: HERMES.1,
        ..PLAIN
    },
    Model {
        name: "qwen3",
        template: template!("qwen3"),
        thought: THOUGHT,
        said: "Let me look.\n",
        one: HERMES.0,
        two: HERMES.1,
        ..PLAIN
    },
    Model {
        name: "qwen3-coder",
        template: template!("qwen3-coder"),
        said: "Let me look.\n\n",
        one: "<tool_call>\n<function=weather>\n<parameter=place>\nOslo\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>",
        two: "<tool_call>\n<function=weather>\n<parameter=place>\nOslo\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=time>\n<parameter=zone>\nUTC\n</parameter>\n</function>\n</tool_call>",
        ..PLAIN
    },
    Model {
        name: "glm-4.6",
        template: template!("glm-4.6"),
        thought: "\n<think>hm</think>\n",
        said: "Let me look.\n",
        one: "<tool_call>weather\n<arg_key>place</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>",
        two: "<tool_call>weather\n<arg_key>place</arg_key>\n<arg_value>Oslo</arg_value>\n</tool_call>\n<tool_call>time\n<arg_key>zone</arg_key>\n<arg_value>UTC</arg_value>\n</tool_call>",
        ..PLAIN
    },
    Model {
        name: "hermes-3",
        template: template!("hermes-3"),
        control: &["<tool_call>", "</tool_call>"],
        said: "Let me look.\n",
        one: HERMES.0,
        two: HERMES.1,
        ..PLAIN
    },
    Model {
        name: "llama-3.1",
        template: template!("llama-3.1"),
        one: LLAMA.0,
        ..PLAIN
    },
    Model {
        name: "llama-3.2",
        template: template!("llama-3.2"),
        one: LLAMA.0,
        ..PLAIN
    },
    Model {
        name: "mistral-7b-v0.3",
        template: template!("mistral-7b-v0.3"),
        control: MISTRAL,
        said: "Let me look.",
        one: r#"[TOOL_CALLS] [{"name": "weather", "arguments": {"place": "Oslo", "days": 2}}]"#,
        two: r#"[TOOL_CALLS] [{"name": "weather", "arguments": {"place": "Oslo"}}, {"name": "time", "arguments": {"zone": "UTC"}}]"#,
        ..PLAIN
    },
    Model {
        name: "mistral-nemo",
        template: template!("mistral-nemo"),
        control: MISTRAL,
        said: "Let me look.",
        one: r#"[TOOL_CALLS][{"name": "weather", "arguments": {"place": "Oslo", "days": 2}}]"#,
        two: r#"[TOOL_CALLS][{"name": "weather", "arguments": {"place": "Oslo"}}, {"name": "time", "arguments": {"zone": "UTC"}}]"#,
        ..PLAIN
    },
    Model {
        name: "mistral-small-3.2",
        template: template!("mistral-small-3.2"),
        control: MISTRAL,
        said: "Let me look.",
        one: r#"[TOOL_CALLS]weather[CALL_ID]a1B2c3D4e[ARGS]{"place": "Oslo", "days": 2}"#,
        two: r#"[TOOL_CALLS]weather[CALL_ID]a1B2c3D4e[ARGS]{"place": "Oslo"}[TOOL_CALLS]time[ARGS]{"zone": "UTC"}"#,
        ..PLAIN
    },
    Model {
        name: "devstral",
        template: template!("devstral"),
        control: MISTRAL,
        said: "Let me look.",
        one: r#"[TOOL_CALLS]weather[ARGS]{"place": "Oslo", "days": 2}"#,
        two: r#"[TOOL_CALLS]weather[ARGS]{"place": "Oslo"}[TOOL_CALLS]time[ARGS]{"zone": "UTC"}"#,
        ..PLAIN
    },
    Model {
        name: "magistral",
        template: template!("magistral"),
        control: MISTRAL,
        thought: "[THINK]hm[/THINK]",
        said: "Let me look.",
        one: r#"[TOOL_CALLS]weather[ARGS]{"place": "Oslo", "days": 2}"#,
        two: r#"[TOOL_CALLS]weather[ARGS]{"place": "Oslo"}[TOOL_CALLS]time[ARGS]{"zone": "UTC"}"#,
        ..PLAIN
    },
    Model {
        name: "gemma-3",
        template: template!("gemma-3"),
        one: WRAPPED.0,
        two: WRAPPED.1,
        ..PLAIN
    },
    Model {
        name: "phi-4-mini",
        template: template!("phi-4-mini"),
        control: &[
            "<|tool_call|>",
            "<|/tool_call|>",
            "<|tool|>",
            "<|/tool|>",
            "<|tool_response|>",
        ],
        said: "Let me look.",
        one: r#"<|tool_call|>[{"name": "weather", "arguments": {"place": "Oslo", "days": 2}}]<|/tool_call|>"#,
        two: r#"<|tool_call|>[{"name": "weather", "arguments": {"place": "Oslo"}}, {"name": "time", "arguments": {"zone": "UTC"}}]<|/tool_call|>"#,
        ..PLAIN
    },
    Model {
        name: "deepseek-r1-distill",
        template: template!("deepseek-r1-distill"),
        thought: "hm\n</think>\n\n",
        one: WRAPPED.0,
        two: WRAPPED.1,
        ..PLAIN
    },
    Model {
        name: "deepseek-v3.1",
        template: template!("deepseek-v3.1"),
        said: "Let me look.",
        one: r#"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"place": "Oslo", "days": 2}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"#,
        two: r#"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"place": "Oslo"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>time<｜tool▁sep｜>{"zone": "UTC"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"#,
        ..PLAIN
    },
    Model {
        name: "granite-3.3",
        template: template!("granite-3.3"),
        control: &["<|tool_call|>"],
        thought: "<think>hm</think>",
        said: "Let me look.",
        one: r#"<|tool_call|>[{"name": "weather", "arguments": {"place": "Oslo", "days": 2}}]"#,
        two: r#"<|tool_call|>[{"name": "weather", "arguments": {"place": "Oslo"}}, {"name": "time", "arguments": {"zone": "UTC"}}]"#,
        around: ("<response>", "</response>"),
    },
    Model {
        name: "smollm3",
        template: template!("smollm3"),
        thought: THOUGHT,
        said: "Let me look.\n",
        one: HERMES.0,
        two: HERMES.1,
        ..PLAIN
    },
    Model {
        name: "command-r7b",
        template: template!("command-r7b"),
        control: &[
            "<|START_THINKING|>",
            "<|END_THINKING|>",
            "<|START_ACTION|>",
            "<|END_ACTION|>",
            "<|START_RESPONSE|>",
            "<|END_RESPONSE|>",
        ],
        thought: "<|START_THINKING|>hm<|END_THINKING|>",
        one: "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"weather\", \"parameters\": {\"place\": \"Oslo\", \"days\": 2}}\n]<|END_ACTION|>",
        two: "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"weather\", \"parameters\": {\"place\": \"Oslo\"}},\n    {\"tool_call_id\": \"1\", \"tool_name\": \"time\", \"parameters\": {\"zone\": \"UTC\"}}\n]<|END_ACTION|>",
        around: ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        ..PLAIN
    },
    Model {
        name: "gpt-oss",
        template: template!("gpt-oss"),
        // The others are tokens that llama.cpp writes as text.
        control: &["<|end|>"],
        thought: "<|channel|>analysis<|message|>hm<|end|><|start|>assistant",
        said: "<|channel|>commentary<|message|>Let me look.<|end|><|start|>assistant",
        one: "<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"place\": \"Oslo\", \"days\": 2}",
        around: ("<|channel|>final<|message|>", ""),
        ..PLAIN
    },
];

fn tools(choice: ToolChoice) -> Tools {
    let tool = |name: &str, description: &str, parameters| Tool {
        name: name.into(),
        description: Some(description.into()),
        parameters: Some(parameters),
        strict: true,
    };
    Tools {
        definitions: vec![
            tool(
                "weather",
                "Looks up the weather.",
                json!({"type": "object", "properties": {"place": {"type": "string", "description": "Name of a town"},
                    "days": {"type": "integer", "description": "Days ahead"}}, "required": ["place"]}),
            ),
            tool(
                "time",
                "Tells the time.",
                json!({"type": "object", "properties": {"zone": {"type": "string", "enum": ["UTC", "CET"], "description": "Time zone"}},
                    "required": ["zone"]}),
            ),
        ],
        choice,
        single: false,
    }
}

/// A template, compiled, and its dialect.
struct Read {
    template: ChatTemplate,
    dialect: Arc<Dialect>,
}

impl Model {
    fn read(&self) -> Read {
        let template = ChatTemplate::new(self.template).unwrap();
        let knows = |tag: &str| self.control.contains(&tag);
        let dialect = Dialect::of(&template, self.template, &knows);
        Read {
            template,
            dialect: Arc::new(dialect),
        }
    }
}

impl Read {
    /// The prompt of a conversation, as the engine makes it.
    fn prompt(&self, messages: &[Value], tools: &[Tool], variables: Value) -> String {
        let calls = &self.dialect.calls;
        let definitions: Vec<Value> = match calls.shown {
            true => tools.iter().map(dialect::definition).collect(),
            false => Vec::new(),
        };
        let input = TemplateInput {
            messages: &calls.fitting(messages, tools),
            tools: &definitions,
            variables: variables.as_object().unwrap(),
            bos: "<s>",
            eos: "</s>",
            add_generation_prompt: true,
            // 2026-02-03 04:05:06 UTC.
            now: 1_770_091_506,
        };
        self.template.render(&input).unwrap()
    }

    fn opening(&self) -> Opening {
        let prompt = self.prompt(&talk()[..2], &[], json!({}));
        if self.dialect.thinking.is_none() || self.dialect.ends_after_reasoning(&prompt) {
            Opening::Closed
        } else if self.dialect.ends_in_reasoning(&prompt) {
            Opening::Inside
        } else {
            Opening::Free
        }
    }
}

/// A conversation in which a tool is called.
fn talk() -> Vec<Value> {
    let function = json!({"name": "weather", "arguments": "{\"place\": \"Oslo\", \"days\": 2}"});
    vec![
        json!({"role": "system", "content": "Be brief."}),
        json!({"role": "user", "content": "Weather in Oslo?"}),
        json!({"role": "assistant", "content": null, "reasoning_content": "Look it up.",
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}),
        json!({"role": "tool", "tool_call_id": "call_1", "content": "{\"sky\": \"clear\"}"}),
        json!({"role": "assistant", "content": "Clear."}),
        json!({"role": "user", "content": "And the time?"}),
    ]
}

fn plain_talk() -> Vec<Value> {
    let mut talk = talk();
    talk.drain(2..4);
    talk
}

#[test]
fn prompts_and_dialects() {
    for model in MODELS {
        let read = model.read();
        let tools = tools(ToolChoice::Auto).definitions;
        let prompt = |messages: &[Value], tools| read.prompt(messages, tools, json!({}));
        let text = format!(
            "{:#?}\n\n==== plain ====\n{}\n==== tools ====\n{}\n==== a result, after the question ====\n{}",
            read.dialect,
            prompt(&plain_talk(), &[]),
            prompt(&talk(), &tools),
            prompt(&talk()[..4], &tools)
                .split("Weather in Oslo?")
                .last()
                .unwrap(),
        );
        insta::assert_snapshot!(model.name, text);
    }
}

#[test]
fn reasoning_is_switched_by_a_variable() {
    let end = |name: &str, variable: &str, on: bool| {
        let model = MODELS.iter().find(|model| model.name == name).unwrap();
        let prompt = model
            .read()
            .prompt(&talk()[..2], &[], json!({variable: on}));
        prompt
            .chars()
            .rev()
            .take(20)
            .collect::<String>()
            .chars()
            .rev()
            .collect::<String>()
    };
    assert!(end("qwen3", "enable_thinking", false).ends_with("<think>\n\n</think>\n\n"));
    assert!(end("qwen3", "enable_thinking", true).ends_with("assistant\n"));
    assert!(end("glm-4.6", "enable_thinking", false).ends_with("<think></think>"));
    assert!(end("smollm3", "enable_thinking", false).ends_with("<think>\n\n</think>\n"));
    assert!(end("deepseek-v3.1", "thinking", true).ends_with("<think>"));
    assert!(end("deepseek-v3.1", "thinking", false).ends_with("</think>"));
}

/// A template that shows calls and no tools has the tools told in the system message, in its own notation.
#[test]
fn tools_that_a_template_does_not_show_are_told_in_its_notation() {
    let model = MODELS
        .iter()
        .find(|model| model.name == "deepseek-v3.1")
        .unwrap();
    let source = model.template.replace("{%- if tools %}", "{%- if false %}");
    let template = ChatTemplate::new(&source).unwrap();
    let dialect = Arc::new(Dialect::of(&template, &source, &|_| false));
    assert!(!dialect.calls.shown && dialect.calls.format == model.read().dialect.calls.format);
    let prompt =
        Read { template, dialect }.prompt(&talk(), &tools(ToolChoice::Auto).definitions, json!({}));
    insta::assert_snapshot!(prompt, @r#"
    <s>Be brief.

    You can call these tools: [{"name": "weather", "description": "Looks up the weather.", "parameters": {"type": "object", "properties": {"place": {"type": "string", "description": "Name of a town"}, "days": {"type": "integer", "description": "Days ahead"}}, "required": ["place"]}}, {"name": "time", "description": "Tells the time.", "parameters": {"type": "object", "properties": {"zone": {"type": "string", "enum": ["UTC", "CET"], "description": "Time zone"}}, "required": ["zone"]}}]
    To call some, answer with nothing but text of this form: <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{"KEY": "VALUE"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>
    You then get their results.<｜User｜>Weather in Oslo?<｜Assistant｜></think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"place": "Oslo", "days": 2}<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜><｜tool▁output▁begin｜>{"sky": "clear"}<｜tool▁output▁end｜>Clear.<｜end▁of▁sentence｜><｜User｜>And the time?<｜Assistant｜></think>
    "#);
}

/// Calls that a template takes one at a time follow each other, each with its own result.
#[test]
fn several_calls_in_a_message() {
    let call = |id: &str, name: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}});
    let messages = [
        json!({"role": "user", "content": "Both."}),
        json!({"role": "assistant", "content": null, "tool_calls": [call("a", "weather"), call("b", "time")]}),
        json!({"role": "tool", "tool_call_id": "b", "content": "of b"}),
        json!({"role": "tool", "tool_call_id": "a", "content": "of a"}),
    ];
    for model in MODELS {
        let read = model.read();
        let tools = tools(ToolChoice::Auto).definitions;
        let prompt = read.prompt(&messages, &tools, json!({}));
        // What comes after the tools themselves.
        let talk = &prompt[prompt.find("Both.").unwrap()..];
        let places = ["weather", "time", "of a", "of b"].map(|text| {
            talk.rfind(text)
                .unwrap_or_else(|| panic!("{}: no {text} in {prompt}", model.name))
        });
        assert!(places[0] < places[2], "{}: {prompt}", model.name);
        assert_eq!(
            read.dialect.calls.single,
            places[2] < places[1],
            "{}: {prompt}",
            model.name
        );
    }
}

/// Which tags are control tokens.
#[derive(Debug, Clone, Copy)]
enum Control {
    /// Those of the model.
    Own,
    All,
    None,
}

/// A vocabulary of bytes and a dialect's tags.
struct Words {
    factory: GrammarFactory,
    tokens: Vec<Vec<u8>>,
    special: Vec<bool>,
    eos: Token,
}

impl Words {
    fn new(dialect: &Dialect, own: &[&str], control: Control) -> Self {
        let mut tokens: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
        let mut special = vec![false; 256];
        for tag in dialect.tags() {
            if tokens.iter().all(|token| token != tag.as_bytes()) && tag.len() > 1 {
                tokens.push(tag.as_bytes().to_vec());
                special.push(match control {
                    // Harmony's tags before reasoning are several tokens.
                    _ if tag.matches("<|").count() > 1 => false,
                    Control::Own => own.contains(&tag),
                    Control::All => true,
                    Control::None => false,
                });
            }
        }
        tokens.push(b"<eos>".to_vec());
        special.push(true);
        let eos = tokens.len() as Token - 1;
        let bytes = |bytes: &[u8]| Some(bytes.iter().map(|byte| Token::from(*byte)).collect());
        let vocabulary = Vocabulary {
            tokens: tokens.clone(),
            special: special.clone(),
            eos,
            end_of_generation: vec![eos],
            tokenize: Arc::new(bytes),
        };
        Self {
            factory: GrammarFactory::new(vocabulary).unwrap(),
            tokens,
            special,
            eos,
        }
    }

    /// The id of a tag that is a control token.
    fn control(&self, tag: &str) -> Option<Token> {
        let at = self
            .tokens
            .iter()
            .position(|token| token == tag.as_bytes())?;
        self.special[at].then_some(at as Token)
    }

    /// Tokens of a text: control tokens where it has them, bytes elsewhere.
    fn tokenize(&self, text: &str) -> Vec<Token> {
        let mut out = Vec::new();
        let mut rest = text.as_bytes();
        while let Some(first) = rest.first() {
            let control = (0..self.tokens.len())
                .find(|at| self.special[*at] && rest.starts_with(&self.tokens[*at]));
            let at = control.unwrap_or(usize::from(*first));
            out.push(at as Token);
            rest = &rest[self.tokens[at].len()..];
        }
        out
    }

    /// Whether the form takes a text as a whole answer. The error says how far it got.
    fn takes(&self, form: &Form, text: &str) -> Result<(), String> {
        let mut grammar = self
            .factory
            .compile_form(form)
            .map_err(|error| format!("{error}\n{}", form.lark))?;
        let mut done = Vec::new();
        for token in self.tokenize(text) {
            if grammar.is_complete() || grammar.accept(token).is_err() {
                return Err(format!(
                    "up to {:?}\n{}",
                    String::from_utf8_lossy(&done),
                    form.lark
                ));
            }
            done.extend(&self.tokens[token as usize]);
        }
        let at = self.eos as usize;
        let ends = grammar.is_complete() || grammar.mask().unwrap()[at / 32] >> (at % 32) & 1 == 1;
        ends.then_some(())
            .ok_or_else(|| format!("it does not end\n{}", form.lark))
    }
}

/// The parts of an answer that comes in pieces, neighbours of one kind as one.
fn parts(dialect: &Arc<Dialect>, tools: &Tools, inside: bool, pieces: &[&str]) -> Vec<Part> {
    let tools = tools.definitions.as_slice().into();
    let mut splitter = Splitter::new(Arc::clone(dialect), tools, inside);
    let mut parts = Vec::new();
    for piece in pieces {
        splitter.push(piece, &mut parts);
    }
    splitter.finish(&mut parts);
    let called = parts.iter().any(|part| matches!(part, Part::Call(_)));
    assert_eq!(splitter.called(), called);
    let mut out: Vec<Part> = Vec::new();
    for part in parts {
        match (out.last_mut(), &part) {
            (Some(Part::Text(all)), Part::Text(more))
            | (Some(Part::Reasoning(all)), Part::Reasoning(more))
            | (Some(Part::Arguments(all)), Part::Arguments(more)) => all.push_str(more),
            _ => out.push(part),
        }
    }
    out
}

/// Reasoning, text and calls of an answer.
fn split(
    dialect: &Arc<Dialect>,
    tools: &Tools,
    inside: bool,
    pieces: &[&str],
) -> (String, String, Value) {
    let (mut reasoning, mut text) = (String::new(), String::new());
    let mut calls: Vec<Value> = Vec::new();
    for part in parts(dialect, tools, inside, pieces) {
        match part {
            Part::Reasoning(more) => reasoning += &more,
            Part::Text(more) => text += &more,
            Part::Call(name) => calls.push(json!([name, null])),
            Part::Arguments(json) => calls.last_mut().unwrap()[1] = parsed(&json),
        }
    }
    (reasoning, text, calls.into())
}

/// JSON, its numbers of any size.
fn parsed(json: &str) -> Value {
    match serde_json::from_str(json) {
        Ok(value) => value,
        // 4E866 is JSON, and more than a `f64` holds.
        Err(error) if error.to_string().contains("out of range") => Value::Null,
        Err(error) => panic!("{json:?}: {error}"),
    }
}

#[test]
fn typical_answers_are_split_into_their_parts() {
    let all = tools(ToolChoice::Auto);
    for model in MODELS {
        let Read { dialect, .. } = &model.read();
        let inside = model.read().opening() == Opening::Inside;
        let check = |answer: &str, calls: &str, said: &str| {
            let hm = if model.thought.is_empty() { "" } else { "hm" };
            let expected = (
                hm.to_owned(),
                said.to_owned(),
                serde_json::from_str(calls).unwrap(),
            );
            let answer = format!("{}{answer}", model.thought);
            assert_eq!(
                split(dialect, &all, inside, &[&answer]),
                expected,
                "{}: {answer}",
                model.name
            );
            let mut letters = answer.split("").collect::<Vec<_>>();
            letters.retain(|letter| !letter.is_empty());
            assert_eq!(
                split(dialect, &all, inside, &letters),
                expected,
                "{}: {answer}",
                model.name
            );
        };
        let said = if model.said.is_empty() {
            ""
        } else {
            "Let me look."
        };
        check(&format!("{}{}", model.said, model.one), ONE, said);
        check(model.one, ONE, "");
        if !model.two.is_empty() {
            check(model.two, TWO, "");
            check(&format!("{}{}", model.said, model.two), TWO, said);
        }
        let (before, after) = model.around;
        check(
            &format!("{before}It is < 3 [°C] {{}}{after}"),
            "[]",
            "It is < 3 [°C] {}",
        );
    }
}

#[test]
fn typical_answers_are_accepted_and_wrong_ones_are_not() {
    for model in MODELS {
        let read = model.read();
        for control in [Control::Own, Control::All, Control::None] {
            let words = Words::new(&read.dialect, model.control, control);
            let schema = json!({"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"], "additionalProperties": false});
            let form = |tools: &Tools, constraint: &Constraint| {
                Form::new(&read.dialect, tools, read.opening(), constraint, &|tag| {
                    words.control(tag)
                })
            };
            let check = |form: &Form, answer: &str, accepted: bool| {
                for thought in [model.thought, ""] {
                    // A prompt that opens reasoning has the answer close it.
                    let thought = if read.opening() == Opening::Inside {
                        model.thought
                    } else {
                        thought
                    };
                    let taken = words.takes(form, &format!("{thought}{answer}"));
                    assert_eq!(
                        taken.is_ok(),
                        accepted,
                        "{} {control:?}: {thought}{answer}: {taken:?}",
                        model.name
                    );
                }
            };
            let (before, after) = model.around;
            let plain = format!("{before}It is < 3 [°C] {{}}{after}");
            let json = |json: &str| format!("{before}{json}{after}");
            let wrong = [
                model.one.replace("weather", "thunder"),
                model.one.replace('2', "2.5"),
                model.one.replace("place", "town"),
                model.one[..model.one.len() - 1].to_owned(),
            ];

            let auto = form(&tools(ToolChoice::Auto), &Constraint::None).unwrap();
            check(&auto, &plain, true);
            for calls in [model.one, model.two]
                .into_iter()
                .filter(|calls| !calls.is_empty())
            {
                check(&auto, calls, true);
                check(&auto, &format!("{}{calls}", model.said), true);
            }
            for wrong in &wrong {
                check(&auto, wrong, false);
            }

            let required = form(&tools(ToolChoice::Required), &Constraint::None).unwrap();
            check(&required, model.one, true);
            if !model.two.is_empty() {
                check(&required, model.two, true);
            }
            check(&required, &plain, false);
            for wrong in &wrong {
                check(&required, wrong, false);
            }
            let mut single = tools(ToolChoice::Required);
            single.single = true;
            let single = form(&single, &Constraint::None).unwrap();
            check(&single, model.one, true);
            check(&single, model.two, false);

            let named = form(
                &tools(ToolChoice::Named("weather".into())),
                &Constraint::None,
            )
            .unwrap();
            check(&named, model.one, true);
            check(&named, &plain, false);
            let other = form(&tools(ToolChoice::Named("time".into())), &Constraint::None).unwrap();
            check(&other, model.one, false);

            assert_eq!(form(&tools(ToolChoice::None), &Constraint::None), None);
            let constraint = Constraint::JsonSchema(schema);
            let only_json = form(&tools(ToolChoice::None), &constraint).unwrap();
            check(&only_json, &json("{\"answer\": 7}"), true);
            check(&only_json, &json("{\"answer\": true}"), false);
            check(&only_json, model.one, false);
            let object = form(&tools(ToolChoice::Auto), &Constraint::JsonObject).unwrap();
            check(&object, &json("{\"name\": \"Ada\", \"age\": [36]}"), true);
            check(&object, model.one, true);
            let either = form(&tools(ToolChoice::Auto), &constraint).unwrap();
            check(&either, &json("{\"answer\": 7}"), true);
            check(&either, model.one, true);
            check(&either, &plain, false);
            check(&either, &json("{\"answer\": true}"), false);
        }
    }
}

/// A template that shows its tools in no way that is known still gets them, and answers in the way of the guide.
#[test]
fn every_template_has_some_way_to_call() {
    for model in MODELS {
        let read = model.read();
        let tools = tools(ToolChoice::Auto).definitions;
        let prompt = read.prompt(&talk(), &tools, json!({}));
        for text in ["Tells the time.", "Name of a town", "clear", "Oslo"] {
            assert!(
                prompt.contains(text),
                "{}: no {text} in {prompt}",
                model.name
            );
        }
    }
}

/// What ends reasoning whose budget is used up is what the grammar expects, the first time and again.
#[test]
fn reasoning_that_is_cut_off_leads_to_an_answer_or_a_call() {
    for model in MODELS {
        let read = model.read();
        let Some(tags) = &read.dialect.thinking else {
            continue;
        };
        let words = Words::new(&read.dialect, model.control, Control::Own);
        let open = match read.opening() {
            Opening::Inside => "",
            Opening::Free => &tags.open,
            Opening::Closed => continue,
        };
        let (before, after) = model.around;
        let answer = format!("{before}It is so.{after}");
        for (choice, answer) in [
            (ToolChoice::Auto, answer.as_str()),
            (ToolChoice::Required, model.one),
        ] {
            let tools = tools(choice);
            let form = Form::new(
                &read.dialect,
                &tools,
                read.opening(),
                &Constraint::None,
                &|tag| words.control(tag),
            )
            .unwrap();
            let closings = read.dialect.after_reasoning(&tools);
            let once = format!("{open}hm{}", closings[0]);
            let taken = words.takes(&form, &format!("{once}{answer}"));
            assert!(taken.is_ok(), "{}: {taken:?}", model.name);
            let [_, .., again] = closings.as_slice() else {
                continue;
            };
            let begun = again.strip_prefix(closings[0].as_str()).unwrap();
            let rest = answer.strip_prefix(begun).unwrap();
            let twice = format!("{once}{}so{again}{rest}", tags.open);
            let taken = words.takes(&form, &twice);
            assert!(taken.is_ok(), "{}: {taken:?}", model.name);
        }
    }
}
