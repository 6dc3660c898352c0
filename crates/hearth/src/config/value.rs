//! Text to values and back: sizes, durations, addresses and the like, in the forms people write them.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use hearth_engine::KvType;
use hearth_protocol::household::Address;
use tracing::level_filters::LevelFilter;

/// The port of a node unless told otherwise.
const PORT: u16 = 8321;
/// Where Ollama listens unless told otherwise.
const OLLAMA_PORT: u16 = 11434;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Address or name; an IPv6 address without brackets.
    pub host: String,
    /// Port; 0 takes a free one.
    pub port: u16,
}

impl Default for HostPort {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: PORT,
        }
    }
}

impl HostPort {
    /// `HOST:PORT`, `HOST`, `:PORT`, `[IPV6]:PORT`, or a URL of one of these.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_or(text, PORT)
    }

    /// A value of `OLLAMA_HOST`, which has rules of its own: another usual port, that of HTTP for URLs, quotes and a path.
    pub fn parse_ollama(text: &str) -> Option<Self> {
        let text = text.trim().trim_matches(['"', '\'']);
        let (text, missing) = match text.strip_prefix("http://") {
            Some(rest) => (rest, 80),
            None => (text, OLLAMA_PORT),
        };
        // There is no TLS here.
        if text.contains("://") {
            return None;
        }
        Self::parse_or(text.split('/').next().unwrap_or(text), missing)
    }

    /// As [`HostPort::parse`], with this port where none is named.
    fn parse_or(text: &str, missing: u16) -> Option<Self> {
        let text = text.strip_prefix("http://").unwrap_or(text);
        let text = text.strip_suffix('/').unwrap_or(text);
        if let Ok(address) = SocketAddr::from_str(text) {
            return Some(Self {
                host: address.ip().to_string(),
                port: address.port(),
            });
        }
        if let Ok(address) =
            std::net::IpAddr::from_str(text.trim_start_matches('[').trim_end_matches(']'))
        {
            return Some(Self {
                host: address.to_string(),
                port: missing,
            });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (text, missing),
        };
        if host.is_empty() {
            // `:8321` names a port alone; an empty text names nothing.
            return text.starts_with(':').then(|| Self {
                port,
                ..Self::default()
            });
        }
        let name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
        let numeric = |byte: u8| byte.is_ascii_digit() || byte == b'.';
        // `127.0.0` or `300.1.1.1` is a mistyped address, not a name.
        (host.bytes().all(name) && !host.bytes().all(numeric)).then(|| Self {
            host: host.into(),
            port,
        })
    }

    /// Where a client on this machine reaches a node that listens here.
    pub fn reachable(&self) -> Self {
        let host = match self.host.as_str() {
            "0.0.0.0" => "127.0.0.1".into(),
            "::" => "::1".into(),
            other => other.to_owned(),
        };
        Self {
            host,
            port: self.port,
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(out, "[{}]:{}", self.host, self.port),
            false => write!(out, "{}:{}", self.host, self.port),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// `text` or `json`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// The accepted form.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// `auto` or what `parse` takes.
pub fn auto_or<T>(parse: impl Fn(&str) -> Option<T>) -> impl Fn(&str) -> Option<Option<T>> {
    move |text| {
        if text == "auto" {
            Some(None)
        } else {
            parse(text).map(Some)
        }
    }
}

/// A whole number within bounds; `_` may group digits.
pub fn whole(text: &str, least: u32, most: u32) -> Option<u32> {
    text.replace('_', "")
        .parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
}

/// `on` or `off`, or what else people write for these, in any case.
pub fn switch(text: &str) -> Option<bool> {
    let is = |words: [&str; 4]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match () {
        () if is(["on", "true", "yes", "1"]) => Some(true),
        () if is(["off", "false", "no", "0"]) => Some(false),
        () => None,
    }
}

/// An address of the web, without a slash at its end. What comes after the scheme is the client's to judge.
pub fn url(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/');
    url_or_none(text).flatten()
}

/// `none`, or an address of the web. What comes after the scheme is the client's to judge.
pub fn url_or_none(text: &str) -> Option<Option<String>> {
    none_or(text, ["https://", "http://"])
}

fn none_or(text: &str, schemes: [&str; 2]) -> Option<Option<String>> {
    let rest = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
    match rest {
        Some(rest) if !rest.is_empty() => Some(Some(text.to_owned())),
        None if text == "none" => Some(None),
        _ => None,
    }
}

/// `none`, or a PostgreSQL database. What comes after the scheme is the database library's to judge.
pub fn database_or_none(text: &str) -> Option<Option<String>> {
    none_or(text, ["postgres://", "postgresql://"])
}

/// A database as it may be shown: without its password, which may stand before the host or among the parameters.
pub fn show_database(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let (rest, _parameters) = rest.split_once('?').unwrap_or((rest, ""));
    match rest.rsplit_once('@') {
        Some((who, place)) => {
            let user = who.split_once(':').map_or(who, |(user, _)| user);
            format!("{scheme}://{user}@{place}")
        }
        None => format!("{scheme}://{rest}"),
    }
}

/// KV cache types, keys then values.
pub fn kv(text: &str) -> Option<KvType> {
    [
        KvType::F16,
        KvType::Q8_0,
        KvType::Q8_0Q4_0,
        KvType::Q4_0Q8_0,
    ]
    .into_iter()
    .find(|kv| show_kv(*kv) == text)
}

/// The accepted form of a KV type.
pub fn show_kv(kv: KvType) -> &'static str {
    match kv {
        KvType::F16 => "f16",
        KvType::Q8_0 => "q8_0",
        KvType::Q8_0Q4_0 => "q8_0/q4_0",
        KvType::Q4_0Q8_0 => "q4_0/q8_0",
    }
}

/// Bytes: `512MiB`, `8 GiB`, `1.5GB`, `8G` (binary), `4096`.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    let bytes = number * factor as f64;
    (bytes < 2f64.powi(62)).then_some(bytes as u64)
}

/// The largest binary unit that divides the size, else one decimal of the largest that fits.
pub fn show_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    match UNITS.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) if bytes.is_multiple_of(unit) => format!("{}{name}", bytes / unit),
        Some((name, unit)) => format!("{:.1}{name}", bytes as f64 / unit as f64),
        None => format!("{bytes}B"),
    }
}

/// A duration: `500ms`, `30s`, `30m`, `1h30m`, `2d`; a bare number is seconds.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest
            .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|letter: char| letter.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let seconds = match unit.trim() {
            "ms" => 0.001,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            "" if digits == text.len() => 1.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    (!text.is_empty())
        .then(|| Duration::try_from_secs_f64(total).ok())
        .flatten()
}

/// What a machine may be called: it stands before the slash of `machine/model`.
pub fn name(text: &str) -> Option<String> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    ((1..=40).contains(&text.len()) && text.chars().all(fits)).then(|| text.to_owned())
}

/// Addresses with commas between them; `none` is an empty list.
pub fn addresses(text: &str) -> Option<Vec<Address>> {
    if text == "none" {
        return Some(Vec::new());
    }
    let each = text.split(',').map(|one| one.trim().parse().ok());
    each.collect()
}

/// `never` or a duration.
pub fn duration_or_never(text: &str) -> Option<Option<Duration>> {
    if text == "never" {
        Some(None)
    } else {
        duration(text).map(Some)
    }
}

/// The shortest accepted form.
pub fn show_duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    let parts = [
        (seconds / 3_600, "h"),
        (seconds % 3_600 / 60, "m"),
        (seconds % 60, "s"),
        (millis.into(), "ms"),
    ];
    let text: String = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if text.is_empty() { "0s".into() } else { text }
}

/// A log level.
pub fn level(text: &str) -> Option<LevelFilter> {
    // `LevelFilter` also takes numbers and the empty text; those are not documented.
    text.bytes()
        .all(|byte| byte.is_ascii_alphabetic())
        .then(|| text.parse().ok())
        .flatten()
        .filter(|_| !text.is_empty())
}

fn split(text: &str) -> Option<(f64, &str)> {
    let digits = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let cases = [
            ("127.0.0.1:8321", Some(("127.0.0.1", 8321))),
            (":9000", Some(("127.0.0.1", 9000))),
            ("0.0.0.0", Some(("0.0.0.0", 8321))),
            ("localhost:0", Some(("localhost", 0))),
            ("http://kitchen.lan:8321/", Some(("kitchen.lan", 8321))),
            ("[::1]:8321", Some(("::1", 8321))),
            ("::1", Some(("::1", 8321))),
            ("", None),
            ("127.0.0", None),
            ("300.1.1.1:80", None),
            ("localhost:99999", None),
            ("local host", None),
            ("127.0.0.1:x", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(host, port)| HostPort {
                host: host.into(),
                port,
            });
            assert_eq!(HostPort::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn addresses_as_ollama_writes_them() {
        for (text, expected) in [
            ("127.0.0.1:8321", Some(("127.0.0.1", 8321))),
            ("0.0.0.0", Some(("0.0.0.0", 11434))),
            (":9000", Some(("127.0.0.1", 9000))),
            ("kitchen.lan", Some(("kitchen.lan", 11434))),
            (" \"kitchen.lan:8321\" ", Some(("kitchen.lan", 8321))),
            ("http://kitchen.lan", Some(("kitchen.lan", 80))),
            (
                "http://kitchen.lan:8321/ollama/",
                Some(("kitchen.lan", 8321)),
            ),
            ("[::1]", Some(("::1", 11434))),
            ("https://kitchen.lan", None),
            ("", None),
        ] {
            let expected = expected.map(|(host, port)| HostPort {
                host: host.into(),
                port,
            });
            assert_eq!(HostPort::parse_ollama(text), expected, "{text}");
        }
    }

    #[test]
    fn sizes_and_durations_read_back_what_they_show() {
        for (text, bytes) in [
            ("8GiB", 8 << 30),
            ("8g", 8 << 30),
            ("512 MiB", 512 << 20),
            ("1.5GB", 1_500_000_000),
            ("4096", 4096),
            ("0", 0),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "GiB", "8 apples", "-1", "1e3"] {
            assert_eq!(size(text), None, "{text}");
        }
        for bytes in [0, 1, 1 << 10, 3 << 20, 7 << 30] {
            assert_eq!(size(&show_size(bytes)), Some(bytes));
        }
        for (text, millis) in [
            ("30m", 1_800_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("2", 2_000),
            ("0s", 0),
            ("1.5s", 1_500),
        ] {
            assert_eq!(
                duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in ["", "m", "30 parsecs", "1h30", "-1s"] {
            assert_eq!(duration(text), None, "{text}");
        }
        for millis in [0, 1, 999, 60_000, 5_400_000, 86_400_000] {
            let length = Duration::from_millis(millis);
            assert_eq!(duration(&show_duration(length)), Some(length));
        }
    }
}
