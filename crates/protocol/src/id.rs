//! Identifiers of requests and answers.

use std::fmt::Write;

/// An identifier such as `chatcmpl-0123456789abcdef0123456789abcdef`.
pub fn with_prefix(prefix: &str, random: u128) -> String {
    let mut id = String::with_capacity(prefix.len() + 33);
    let _ = write!(id, "{prefix}-{random:032x}");
    id
}

/// Whether a client's own request id may be echoed in a header: 1 to 128 visible ASCII characters.
pub fn is_sane(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}
