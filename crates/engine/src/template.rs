//! Chat templates from the GGUF, rendered with minijinja as Hugging Face's `apply_chat_template` would.
//!
//! Templates are written for Python's Jinja2 with a few extras (transformers' `chat_template_utils`): blocks are
//! trimmed, `raise_exception` and `strftime_now` exist, `tojson` writes what `json.dumps` does, and strings, lists and
//! dicts have Python's methods. A template comes with the model file, so it is not trusted: its steps and the size of
//! what it writes are bounded.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value as Jinja};
use minijinja::{Environment, Error, ErrorKind};
use serde_json::{Map, Value};

use crate::EngineError;

/// Steps a template may take; a conversation of thousands of messages needs about a million.
const FUEL: u64 = 10_000_000;
/// Most bytes of a template; the longest of well-known models have some 30 KiB. The compiler calls itself for each
/// operator of a chain, which [`DEEP`] suffices for up to this length.
const LONGEST: usize = 128 << 10;
/// Stack in bytes for compiling a template and looking at what it does. Only touched pages count.
const DEEP: usize = 256 << 20;
/// Most bytes a template may write.
const LARGEST: usize = 64 << 20;
/// What models without a template get.
const CHATML: &str = "{%- for message in messages -%}\
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}\
    {%- endfor -%}\
    {%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}";

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Whether the template reads content that is a list of parts; most want plain strings.
    takes_parts: bool,
}

/// What a template renders.
#[derive(Debug, Clone, Copy)]
pub struct TemplateInput<'a> {
    /// Messages in OpenAI's shape, oldest first.
    pub messages: &'a [Value],
    /// Tools in OpenAI's shape.
    pub tools: &'a [Value],
    /// Further variables (`enable_thinking`, …).
    pub variables: &'a Map<String, Value>,
    /// The beginning-of-sequence token as text.
    pub bos: &'a str,
    /// The end-of-sequence token as text.
    pub eos: &'a str,
    /// Whether the answer's header follows the messages.
    pub add_generation_prompt: bool,
    /// The time, in seconds since 1970 (UTC), for `strftime_now`.
    pub now: i64,
}

impl ChatTemplate {
    /// Compiles a template; the error says where it is wrong.
    pub fn new(source: &str) -> Result<Self, EngineError> {
        if source.len() > LONGEST {
            return Err(invalid(format!(
                "the model's chat template has {} bytes, and at most {LONGEST} can be compiled",
                source.len()
            )));
        }
        let failed = |reason: String| invalid(format!("the chat template: {reason}"));
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("template".into())
                .stack_size(DEEP)
                .spawn_scoped(scope, || Self::compile(source))
                .map_err(|error| failed(error.to_string()))?
                .join()
                .map_err(|_| failed("the compiler failed; see the log".into()))?
        })
    }

    fn compile(source: &str) -> Result<Self, EngineError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(|error| invalid(error.to_string()))?);
        environment.set_fuel(Some(FUEL));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<Jinja, Error> {
                Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("{RAISED}{message}"),
                ))
            },
        );
        environment.add_filter("tojson", to_json);
        // In Python a string can be walked through, and `None` cannot.
        environment.add_test("iterable", |value: &Jinja| {
            !value.is_none() && (value.as_str().is_some() || value.try_iter().is_ok())
        });
        environment
            .add_template_owned("chat", without_generation_tags(source))
            .map_err(|error| {
                invalid(format!(
                    "the model's chat template does not compile: {error}"
                ))
            })?;
        let mut template = Self {
            environment,
            takes_parts: false,
        };
        template.takes_parts = template.reads_parts();
        Ok(template)
    }

    /// The template of models that bring none.
    pub fn chatml() -> Self {
        Self::new(CHATML).expect("the built-in template compiles (tested)")
    }

    /// The prompt text of a conversation.
    pub fn render(&self, input: &TemplateInput) -> Result<String, EngineError> {
        let messages: Vec<Value> = input
            .messages
            .iter()
            .map(|message| self.fitting(message))
            .collect();
        let now = input.now;
        let mut context = Map::new();
        context.extend(input.variables.clone());
        context.insert("messages".into(), messages.into());
        // Templates test `if tools`; an absent list is what they expect for none.
        let tools = if input.tools.is_empty() {
            Value::Null
        } else {
            input.tools.into()
        };
        // The second name is SmolLM 3's.
        for name in ["tools", "xml_tools"] {
            context.insert(name.into(), tools.clone());
        }
        context.insert("bos_token".into(), input.bos.into());
        context.insert("eos_token".into(), input.eos.into());
        context.insert(
            "add_generation_prompt".into(),
            input.add_generation_prompt.into(),
        );
        let context = minijinja::context! {
            strftime_now => Jinja::from_function(move |format: String| strftime(&format, now)),
            ..Jinja::from(Serde(&context))
        };
        let text = self
            .environment
            .get_template("chat")
            .and_then(|template| {
                let mut out = Bounded::default();
                template.render_captured_to(context, &mut out)?;
                Ok(out.bytes)
            })
            .map_err(|error| explain(&error))?;
        String::from_utf8(text).map_err(|_| invalid("the chat template wrote invalid UTF-8".into()))
    }

    /// Whether text inside a list of parts reaches the output as text.
    fn reads_parts(&self) -> bool {
        let messages = [
            serde_json::json!({"role": "user", "content": [{"type": "text", "text": "probe-text"}]}),
        ];
        let probe = TemplateInput {
            messages: &messages,
            tools: &[],
            variables: &Map::new(),
            bos: "",
            eos: "",
            add_generation_prompt: false,
            now: 0,
        };
        let all = Self {
            environment: self.environment.clone(),
            takes_parts: true,
        };
        all.render(&probe).is_ok_and(|text| {
            text.contains("probe-text") && !text.contains("\"type\"") && !text.contains("'type'")
        })
    }

    /// The message in the form the template reads: parts joined to one string where it wants strings, and null content
    /// (an assistant's tool call) as an empty one.
    fn fitting(&self, message: &Value) -> Value {
        let mut message = message.clone();
        if let Some(fields) = message.as_object_mut() {
            match fields.get("content") {
                Some(Value::Array(parts)) if !self.takes_parts => {
                    let texts: Vec<&str> = parts
                        .iter()
                        .filter_map(|part| part.get("text")?.as_str())
                        .collect();
                    let joined = texts.join("\n");
                    fields.insert("content".into(), joined.into());
                }
                None | Some(Value::Null) => {
                    fields.insert("content".into(), "".into());
                }
                _ => {}
            }
        }
        message
    }
}

/// Marks errors that the template raised on purpose, for a conversation it does not accept.
const RAISED: &str = "\u{1}";

fn explain(error: &Error) -> EngineError {
    let detail = error.detail().unwrap_or_default();
    if let Some(raised) = detail.strip_prefix(RAISED) {
        return invalid(format!(
            "the model's chat template refuses this conversation: {raised}"
        ));
    }
    if error.kind() == ErrorKind::OutOfFuel {
        return invalid(
            "the model's chat template takes too many steps for this conversation".into(),
        );
    }
    invalid(format!("the model's chat template failed: {error}"))
}

fn invalid(message: String) -> EngineError {
    EngineError::Invalid {
        field: "messages",
        message,
    }
}

/// `{% generation %}` marks assistant text for training and means nothing here. It becomes a condition that always
/// holds, so that what it does to the blanks around it stays.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end);
        let word = tag
            .trim_start_matches("{%")
            .trim_matches(['-', '+', ' ', '\n', '\t']);
        match word {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// As `json.dumps(value, ensure_ascii=False)`: a blank after comma and colon; `indent` as there.
fn to_json(value: &Jinja, options: Kwargs) -> Result<Jinja, Error> {
    let indent: Option<usize> = options.get("indent")?;
    for ignored in ["ensure_ascii", "sort_keys", "separators"] {
        let _: Option<Jinja> = options.get(ignored)?;
    }
    options.assert_all_used()?;
    let failed =
        |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let mut out = Vec::new();
    match indent {
        Some(width) => {
            let blanks = " ".repeat(width.min(16));
            let pretty = serde_json::ser::PrettyFormatter::with_indent(blanks.as_bytes());
            serde::Serialize::serialize(
                value,
                &mut serde_json::Serializer::with_formatter(&mut out, pretty),
            )
        }
        None => serde::Serialize::serialize(
            value,
            &mut serde_json::Serializer::with_formatter(&mut out, Python),
        ),
    }
    .map_err(failed)?;
    String::from_utf8(out)
        .map(Jinja::from_safe_string)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// JSON text as Python's `json.dumps` writes it.
pub(crate) fn python_json(value: &Value) -> String {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Python);
    // A JSON value can always be written, and is UTF-8.
    let _ = serde::Serialize::serialize(value, &mut serializer);
    String::from_utf8(out).unwrap_or_default()
}

/// Python's default separators.
struct Python;

impl serde_json::ser::Formatter for Python {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
    ) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

/// Output up to a limit.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > LARGEST {
            return Err(std::io::Error::other("the chat template writes too much"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The date formats that chat templates use (`%d %b %Y`, `%Y-%m-%d`, …), in UTC.
fn strftime(format: &str, now: i64) -> Result<String, Error> {
    let wrong = |error: String| {
        Error::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now: {error}"),
        )
    };
    let time = jiff::Timestamp::from_second(now).map_err(|error| wrong(error.to_string()))?;
    jiff::fmt::strtime::format(format, &time.to_zoned(jiff::tz::TimeZone::UTC))
        .map_err(|error| wrong(error.to_string()))
}
