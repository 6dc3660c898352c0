//! Ollama's API (`/api/*`) as its documentation and its clients define it.
//!
//! A field may be left out or null. Fields that are not listed are ignored, as Ollama does: many options belong to the
//! loading of a model (`num_gpu`, `num_thread`, `num_batch`, `num_keep`, …), which is the node's own matter. Listed
//! ones that Hearth cannot honour are refused.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::chat::Stop;
use crate::error::ApiError;
use crate::recall::{Extension, Misplaced, Used, embeds_none};
use crate::tool::{ToolChoice, ToolDefinition};

/// The body of `POST /api/chat`.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = OllamaChatRequest)]
pub struct ChatRequest {
    /// Name of the model.
    pub model: Option<String>,
    /// The conversation, oldest first; none loads the model, or unloads it with `keep_alive: 0`.
    pub messages: Option<Vec<Message>>,
    /// Whether the answer comes in JSON lines; left out, it does.
    pub stream: Option<bool>,
    /// Tools that the model may call.
    pub tools: Option<Vec<ToolDefinition>>,
    /// Whether it must; left out, it may. Hearth's own field.
    pub tool_choice: Option<ToolChoice>,
    /// Whether a model that reasons does, and how much.
    pub think: Option<Think>,
    /// What the answer must look like: `json`, or a JSON Schema.
    #[schema(value_type = Option<Object>)]
    pub format: Option<Value>,
    /// How tokens are chosen.
    pub options: Option<Options>,
    /// How long the model stays loaded after this.
    #[schema(value_type = Option<String>, example = "5m")]
    pub keep_alive: Option<KeepAlive>,
    /// Whether log probabilities are reported.
    pub logprobs: Option<bool>,
    /// Alternatives reported per token, 0 to 20; needs `logprobs`.
    pub top_logprobs: Option<u8>,
    /// Hearth's own: memories for the prompt.
    pub hearth: Option<Extension>,
    /// Refused: memories are asked for in `hearth`.
    #[schema(value_type = Option<Object>)]
    pub memory: Option<Misplaced>,
}

/// The body of `POST /api/generate`.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = OllamaGenerateRequest)]
pub struct GenerateRequest {
    /// Name of the model.
    pub model: Option<String>,
    /// What the person says; nothing loads the model, or unloads it with `keep_alive: 0`.
    pub prompt: Option<String>,
    /// Instructions before it.
    pub system: Option<String>,
    /// Whether the prompt is continued as it stands, without the model's chat template.
    pub raw: Option<bool>,
    /// Whether the answer comes in JSON lines; left out, it does.
    pub stream: Option<bool>,
    /// Whether a model that reasons does, and how much.
    pub think: Option<Think>,
    /// What the answer must look like: `json`, or a JSON Schema.
    #[schema(value_type = Option<Object>)]
    pub format: Option<Value>,
    /// How tokens are chosen.
    pub options: Option<Options>,
    /// How long the model stays loaded after this.
    #[schema(value_type = Option<String>, example = "5m")]
    pub keep_alive: Option<KeepAlive>,
    /// Whether log probabilities are reported.
    pub logprobs: Option<bool>,
    /// Alternatives reported per token, 0 to 20; needs `logprobs`.
    pub top_logprobs: Option<u8>,
    /// Hearth's own: memories for the prompt.
    pub hearth: Option<Extension>,
    /// Refused: memories are asked for in `hearth`.
    #[schema(value_type = Option<Object>)]
    pub memory: Option<Misplaced>,
    /// Not supported: refused unless empty.
    pub suffix: Option<String>,
    /// Not supported: refused unless empty.
    pub template: Option<String>,
    /// Not supported: refused unless empty.
    #[schema(value_type = Option<Vec<String>>)]
    pub images: Option<Vec<Value>>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = OllamaRole)]
pub enum Role {
    /// Instructions.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool.
    Tool,
}

/// One message of a request.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = OllamaMessage)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Option<String>,
    /// What the assistant thought before it answered.
    pub thinking: Option<String>,
    /// Tools the assistant called.
    pub tool_calls: Option<Vec<ToolCall>>,
    /// Of a tool's result: the tool.
    #[serde(alias = "name")]
    pub tool_name: Option<String>,
    /// Of a tool's result: the call it belongs to. Left out, it is the oldest call of that tool without a result.
    pub tool_call_id: Option<String>,
    /// Not supported: refused unless empty.
    #[schema(value_type = Option<Vec<String>>)]
    pub images: Option<Vec<Value>>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = OllamaToolCall)]
pub struct ToolCall {
    /// Its id, which the result may repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What is called.
    pub function: FunctionCall,
}

/// What is called, and with what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = OllamaFunctionCall)]
pub struct FunctionCall {
    /// Number of the call in its answer, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// The tool's name.
    pub name: String,
    /// Its arguments.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub arguments: Option<Map<String, Value>>,
}

/// Whether a model that reasons does, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected true, false, or one of `low`, `medium`, `high`, `max`"
)]
pub enum Think {
    /// Whether it does.
    Switch(bool),
    /// It does, this much.
    Level(Level),
}

/// How much a model reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Up to 2,048 tokens.
    Low,
    /// Up to 8,192 tokens.
    Medium,
    /// As long as it wants.
    High,
    /// As long as it wants.
    Max,
}

/// How tokens are chosen; what is left out is what the model's file recommends.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = OllamaOptions)]
pub struct Options {
    /// Tokens of context the client needs; refused if the node gives the model fewer.
    #[serde(default, deserialize_with = "whole")]
    pub num_ctx: Option<i64>,
    /// Most tokens to generate; a negative number is no limit.
    #[serde(default, deserialize_with = "whole")]
    pub num_predict: Option<i64>,
    /// 0 (greedy) to 2.
    pub temperature: Option<f32>,
    /// Keep the k most likely tokens; 0 keeps all.
    #[serde(default, deserialize_with = "whole")]
    pub top_k: Option<i64>,
    /// 0 to 1.
    pub top_p: Option<f32>,
    /// 0 to 1.
    pub min_p: Option<f32>,
    /// 1 is off.
    pub repeat_penalty: Option<f32>,
    /// Tokens the repeat penalty looks back on; −1 is the whole context, 0 is off.
    #[serde(default, deserialize_with = "whole")]
    pub repeat_last_n: Option<i64>,
    /// −2 to 2.
    pub presence_penalty: Option<f32>,
    /// −2 to 2.
    pub frequency_penalty: Option<f32>,
    /// Same seed, same text; −1 draws one.
    #[serde(default, deserialize_with = "whole")]
    pub seed: Option<i64>,
    /// Texts that end the answer.
    pub stop: Option<Stop>,
    /// Not supported: refused unless 1, which is off.
    pub typical_p: Option<f32>,
    /// Not supported: refused unless 1, which is off.
    pub tfs_z: Option<f32>,
    /// Not supported: refused unless 0, which is off.
    #[serde(default, deserialize_with = "whole")]
    pub mirostat: Option<i64>,
}

/// A whole number; some clients write it as `40.0`.
fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    struct Whole;
    impl<'de> de::Visitor<'de> for Whole {
        type Value = Option<i64>;
        fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            out.write_str("a whole number")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
            Ok(Some(number))
        }
        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
            let unexpected = de::Unexpected::Unsigned(number);
            let number = i64::try_from(number);
            number
                .map(Some)
                .map_err(|_| E::invalid_value(unexpected, &self))
        }
        fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
            // Up to here every whole number has a float of its own.
            if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 {
                return Ok(Some(number as i64));
            }
            Err(E::invalid_value(de::Unexpected::Float(number), &self))
        }
    }
    from.deserialize_any(Whole)
}

/// How long a model stays loaded after its last request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    /// This long.
    For(Duration),
    /// Until the node ends or needs its memory.
    Forever,
}

impl KeepAlive {
    /// A duration in seconds, or in words as Go writes them (`5m`, `1h30m`, `500ms`); a negative one is for ever.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(seconds) = text.parse() {
            return Self::seconds(seconds);
        }
        let duration: jiff::SignedDuration = text.parse().ok()?;
        Some(match duration.is_negative() {
            true => Self::Forever,
            false => Self::For(duration.unsigned_abs()),
        })
    }

    fn seconds(seconds: f64) -> Option<Self> {
        if seconds < 0.0 {
            return Some(Self::Forever);
        }
        let duration = Duration::try_from_secs_f64(seconds).ok()?;
        Some(Self::For(duration))
    }
}

impl<'de> Deserialize<'de> for KeepAlive {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = KeepAlive;
            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("a number of seconds or a duration such as `5m` or `1h30m`")
            }
            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<KeepAlive, E> {
                self.visit_f64(seconds as f64)
            }
            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<KeepAlive, E> {
                self.visit_f64(seconds as f64)
            }
            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<KeepAlive, E> {
                let wrong = || E::invalid_value(de::Unexpected::Float(seconds), &self);
                KeepAlive::seconds(seconds).ok_or_else(wrong)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<KeepAlive, E> {
                let wrong = || E::invalid_value(de::Unexpected::Str(text), &self);
                KeepAlive::parse(text).ok_or_else(wrong)
            }
        }
        from.deserialize_any(Visitor)
    }
}

/// The model's name, or why there is none.
fn named<'a>(model: &'a Option<String>, name: &'a Option<String>) -> Result<&'a str, ApiError> {
    let names = [model, name].into_iter().flatten();
    let mut names = names
        .map(|name| name.trim())
        .filter(|name| !name.is_empty());
    names.next().ok_or_else(|| {
        let message = "model is required; /api/tags lists the models of this node";
        ApiError::invalid(Some("model".into()), message)
    })
}

/// Refuses images.
fn no_images(place: &str, images: &Option<Vec<Value>>) -> Result<(), ApiError> {
    match images.as_ref().is_some_and(|images| !images.is_empty()) {
        true => Err(ApiError::unsupported(
            place,
            format!("{place}: this node reads no images; send text"),
        )),
        false => Ok(()),
    }
}

/// Refuses alternatives without probabilities.
fn check_logprobs(logprobs: Option<bool>, top: Option<u8>) -> Result<(), ApiError> {
    if top.is_some_and(|top| top > 0) && logprobs != Some(true) {
        return Err(ApiError::invalid(
            Some("top_logprobs".into()),
            "top_logprobs needs logprobs: true",
        ));
    }
    Ok(())
}

impl ChatRequest {
    /// Name of the model.
    pub fn model(&self) -> Result<&str, ApiError> {
        named(&self.model, &None)
    }

    /// Refuses what cannot be honoured.
    pub fn check(&self) -> Result<(), ApiError> {
        for (at, message) in self.messages.iter().flatten().enumerate() {
            let place = format!("messages[{at}]");
            no_images(&format!("{place}.images"), &message.images)?;
            let called = message
                .tool_calls
                .as_ref()
                .is_some_and(|calls| !calls.is_empty());
            if called && message.role != Role::Assistant {
                let param = format!("{place}.tool_calls");
                let message = format!("{param}: only an assistant calls tools");
                return Err(ApiError::invalid(Some(param), message));
            }
            if message.content.is_none() && matches!(message.role, Role::System | Role::User) {
                let param = format!("{place}.content");
                let message = format!("{param} is missing; give a string");
                return Err(ApiError::invalid(Some(param), message));
            }
        }
        check_logprobs(self.logprobs, self.top_logprobs)?;
        self.options.as_ref().map_or(Ok(()), Options::check)
    }
}

impl GenerateRequest {
    /// Name of the model.
    pub fn model(&self) -> Result<&str, ApiError> {
        named(&self.model, &None)
    }

    /// Refuses what cannot be honoured.
    pub fn check(&self) -> Result<(), ApiError> {
        no_images("images", &self.images)?;
        let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        if filled(&self.suffix) {
            let message = "suffix is not supported; put the model's own infill tokens into the prompt and send raw: true";
            return Err(ApiError::unsupported("suffix", message));
        }
        if filled(&self.template) {
            let message =
                "template is not supported; apply it yourself and send the result with raw: true";
            return Err(ApiError::unsupported("template", message));
        }
        if self.raw == Some(true) && filled(&self.system) {
            let message = "system means nothing with raw: true; put it into the prompt";
            return Err(ApiError::unsupported("system", message));
        }
        check_logprobs(self.logprobs, self.top_logprobs)?;
        self.options.as_ref().map_or(Ok(()), Options::check)
    }
}

impl Options {
    /// Refuses what cannot be honoured.
    pub fn check(&self) -> Result<(), ApiError> {
        let off = [
            ("typical_p", self.typical_p.is_none_or(|p| p == 1.0)),
            ("tfs_z", self.tfs_z.is_none_or(|z| z == 1.0)),
            ("mirostat", self.mirostat.is_none_or(|mode| mode == 0)),
        ];
        for (name, off) in off {
            if !off {
                let param = format!("options.{name}");
                let message =
                    format!("{param} is not supported; use top_p or min_p, and leave it out");
                return Err(ApiError::unsupported(&param, message));
            }
        }
        Ok(())
    }
}

/// The body of a request that names a model and little else (`show`, `delete`, `pull`).
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = OllamaModelRequest)]
pub struct ModelRequest {
    /// Name of the model.
    pub model: Option<String>,
    /// The older name of `model`.
    pub name: Option<String>,
    /// Of `show`: whether long lists are told too.
    pub verbose: Option<bool>,
    /// Of `pull`: whether its progress comes in JSON lines; left out, it does.
    pub stream: Option<bool>,
}

impl ModelRequest {
    /// Name of the model.
    pub fn model(&self) -> Result<&str, ApiError> {
        named(&self.model, &self.name)
    }
}

/// The body of `POST /api/copy`.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = OllamaCopyRequest)]
pub struct CopyRequest {
    /// Name of the model that is there.
    pub source: String,
    /// The further name it gets.
    pub destination: String,
}

/// The body of `POST /api/embed`.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = OllamaEmbedRequest)]
pub struct EmbedRequest {
    /// Name of the model.
    pub model: Option<String>,
    /// One text or several; none loads the model.
    pub input: Option<Stop>,
    /// Elements to keep of each vector; 0 keeps all.
    pub dimensions: Option<u32>,
    /// Whether a text that is too long may be cut: yes, unless it is said. Encoders cut it then; of a GGUF model it is an
    /// error either way.
    pub truncate: Option<bool>,
    /// `num_ctx` alone means something here.
    pub options: Option<Options>,
    /// How long the model stays loaded after this.
    #[schema(value_type = Option<String>, example = "5m")]
    pub keep_alive: Option<KeepAlive>,
    /// Not supported: refused where it asks for memories.
    pub hearth: Option<Extension>,
}

impl EmbedRequest {
    /// Refuses what cannot be honoured.
    pub fn check(&self) -> Result<(), ApiError> {
        embeds_none(self.hearth.as_ref())
    }

    /// Name of the model.
    pub fn model(&self) -> Result<&str, ApiError> {
        named(&self.model, &None)
    }
}

/// The body of `POST /api/embeddings`, the older form of [`EmbedRequest`].
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = OllamaEmbeddingsRequest)]
pub struct EmbeddingsRequest {
    /// Name of the model.
    pub model: Option<String>,
    /// The text; none loads the model.
    pub prompt: Option<String>,
    /// `num_ctx` alone means something here.
    pub options: Option<Options>,
    /// How long the model stays loaded after this.
    #[schema(value_type = Option<String>, example = "5m")]
    pub keep_alive: Option<KeepAlive>,
    /// Not supported: refused where it asks for memories.
    pub hearth: Option<Extension>,
}

impl EmbeddingsRequest {
    /// Refuses what cannot be honoured.
    pub fn check(&self) -> Result<(), ApiError> {
        embeds_none(self.hearth.as_ref())
    }

    /// Name of the model.
    pub fn model(&self) -> Result<&str, ApiError> {
        named(&self.model, &None)
    }
}

/// What an answer took. Durations are in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = OllamaMetrics)]
pub struct Metrics {
    /// From the request to its end.
    pub total_duration: u64,
    /// Of that, waiting for the model to be loaded.
    pub load_duration: u64,
    /// Tokens of the prompt.
    pub prompt_eval_count: u32,
    /// From the moment a slot took the prompt to the first token.
    pub prompt_eval_duration: u64,
    /// Tokens generated.
    pub eval_count: u32,
    /// From the first token to the last.
    pub eval_duration: u64,
}

/// An answer of `/api/chat`, or a piece of one.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = OllamaChatResponse)]
pub struct ChatResponse {
    /// The model, as the request names it.
    pub model: String,
    /// When this was written (RFC 3339).
    pub created_at: String,
    /// What is said.
    pub message: Answer,
    /// Whether this is the end.
    pub done: bool,
    /// Why it ended: `stop`, `length`, `load` or `unload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done_reason: Option<&'static str>,
    /// Of the tokens in it, if asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
    /// At the end.
    #[serde(flatten)]
    pub metrics: Option<Metrics>,
    /// In the first line: the memories that were in the prompt, if the request asked for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hearth: Option<Used>,
}

/// The assistant's message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = OllamaAnswer)]
pub struct Answer {
    /// Always `assistant`.
    pub role: &'static str,
    /// The text.
    pub content: String,
    /// What the model thought before it answered.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub thinking: String,
    /// Tools that the model calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// An answer of `/api/generate`, or a piece of one.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = OllamaGenerateResponse)]
pub struct GenerateResponse {
    /// The model, as the request names it.
    pub model: String,
    /// When this was written (RFC 3339).
    pub created_at: String,
    /// The text.
    pub response: String,
    /// What the model thought before it answered.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub thinking: String,
    /// Whether this is the end.
    pub done: bool,
    /// Why it ended: `stop`, `length`, `load` or `unload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done_reason: Option<&'static str>,
    /// Of the tokens in it, if asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
    /// At the end.
    #[serde(flatten)]
    pub metrics: Option<Metrics>,
    /// In the first line: the memories that were in the prompt, if the request asked for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hearth: Option<Used>,
}

/// A token, its probability and its alternatives.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = OllamaTokenLogprob)]
pub struct TokenLogprob {
    /// The token's text; incomplete characters are U+FFFD.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The token's bytes.
    pub bytes: Vec<u8>,
    /// The most likely tokens here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    pub top_logprobs: Vec<TokenLogprob>,
}

/// The vectors of `/api/embed`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = OllamaEmbedResponse)]
pub struct EmbedResponse {
    /// The model, as the request names it.
    pub model: String,
    /// One per text, of length 1.
    pub embeddings: Vec<Vec<f32>>,
    /// From the request to its end, in nanoseconds.
    pub total_duration: u64,
    /// Of that, waiting for the model to be loaded.
    pub load_duration: u64,
    /// Tokens of all texts.
    pub prompt_eval_count: u32,
}

/// The vector of `/api/embeddings`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = OllamaEmbeddingsResponse)]
pub struct EmbeddingsResponse {
    /// Of the text; empty if there was none.
    pub embedding: Vec<f32>,
}

/// What a model is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = OllamaDetails)]
pub struct Details {
    /// The model it was made of; not known here.
    pub parent_model: String,
    /// Always `gguf`.
    pub format: String,
    /// Architecture (`llama`, `qwen3`, …).
    pub family: String,
    /// The same once more.
    pub families: Vec<String>,
    /// Its weights, in words (`1.7B`).
    pub parameter_size: String,
    /// How they are stored (`Q4_K_M`).
    pub quantization_level: String,
}

/// The body of `GET /api/tags`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = OllamaTags)]
pub struct Tags {
    /// Every model that can be named.
    pub models: Vec<ListedModel>,
}

/// A model that is here.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = OllamaListedModel)]
pub struct ListedModel {
    /// Name a request uses.
    pub name: String,
    /// The same once more.
    pub model: String,
    /// When its file was last changed (RFC 3339).
    pub modified_at: String,
    /// Bytes on disk.
    pub size: u64,
    /// 64 hexadecimal digits: the SHA-256 of its file where that is known, else of its header.
    pub digest: String,
    /// What it is.
    pub details: Details,
    /// What it can do: `completion`, `tools`, `thinking`, `embedding`.
    pub capabilities: Vec<String>,
}

/// The body of `GET /api/ps`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = OllamaProcesses)]
pub struct Processes {
    /// Every loaded model.
    pub models: Vec<RunningModel>,
}

/// A loaded model.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = OllamaRunningModel)]
pub struct RunningModel {
    /// Name a request uses.
    pub name: String,
    /// The same once more.
    pub model: String,
    /// Bytes of weights and KV cache.
    pub size: u64,
    /// See [`ListedModel::digest`].
    pub digest: String,
    /// What it is.
    pub details: Details,
    /// When it is unloaded if nobody asks (RFC 3339); centuries away if never.
    pub expires_at: String,
    /// Bytes of that on a GPU.
    pub size_vram: u64,
    /// Tokens one sequence may have.
    pub context_length: u32,
}

/// The body of `POST /api/show`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = OllamaShown)]
pub struct Shown {
    /// Licence, as its file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// All of it as a Modelfile.
    pub modelfile: String,
    /// What its file recommends for requests that do not say, a name and a value on each line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parameters: String,
    /// Its chat template (Jinja).
    pub template: String,
    /// What it is.
    pub details: Details,
    /// Its metadata; long lists are null unless asked for.
    #[schema(value_type = Object)]
    pub model_info: Map<String, Value>,
    /// What it can do: `completion`, `tools`, `thinking`, `embedding`.
    pub capabilities: Vec<String>,
    /// When its file was last changed (RFC 3339).
    pub modified_at: String,
}

/// The body of `GET /api/version`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = OllamaVersion)]
pub struct Version {
    /// Version of Ollama's API that is spoken, `major.minor.patch`.
    pub version: String,
    /// Hearth's own version.
    pub hearth: String,
}

/// How far a download is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = OllamaProgress)]
pub struct Progress {
    /// What happens: `pulling manifest`, `pulling DIGEST`, `verifying sha256 digest`, `writing manifest`, `success`.
    pub status: String,
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Its bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Of those, bytes that are here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<u64>,
}

/// The body of an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = OllamaError)]
pub struct ErrorBody {
    /// What is wrong and how to mend it.
    pub error: String,
}
