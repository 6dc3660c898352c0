//! Texts of OpenAI's Harmony format (<https://cookbook.openai.com/articles/openai-harmony>): an answer is a chain of
//! messages, each with a header that names its channel, and a tool if it calls one.

pub const CHANNEL: &str = "<|channel|>";
pub const MESSAGE: &str = "<|message|>";
/// The end of a message after which the answer goes on.
pub const END: &str = "<|end|>";
/// Begins the next message of an answer.
pub const TURN: &str = "<|start|>assistant";
/// Before reasoning.
pub const ANALYSIS: &str = "<|channel|>analysis<|message|>";
/// Before plain text.
pub const FINAL: &str = "<|channel|>final<|message|>";
/// Before a call, up to the tool's name.
pub const CALL: &str = "<|channel|>commentary to=functions.";
/// Before a tool's name, in a header.
pub const TO: &str = "to=functions.";
/// The tags.
pub const TAGS: [&str; 5] = ["<|start|>", CHANNEL, MESSAGE, "<|constrain|>", END];
