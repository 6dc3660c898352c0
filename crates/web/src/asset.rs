//! The page's static files, compiled in. Their address carries a hash of the content, so they may be cached for ever.

use std::sync::OnceLock;

/// A static file of the pages.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// The file.
    pub bytes: &'static [u8],
    /// Quoted entity tag, a hash of the content.
    pub etag: &'static str,
}

const FILES: [(&str, &str, &str); 5] = [
    (
        "copy.js",
        "text/javascript; charset=utf-8",
        include_str!("assets/copy.js"),
    ),
    (
        "hearth.css",
        "text/css; charset=utf-8",
        include_str!("assets/hearth.css"),
    ),
    (
        "hearth.js",
        "text/javascript; charset=utf-8",
        include_str!("assets/hearth.js"),
    ),
    (
        "memories.js",
        "text/javascript; charset=utf-8",
        include_str!("assets/memories.js"),
    ),
    (
        "hearth.svg",
        "image/svg+xml",
        include_str!("assets/hearth.svg"),
    ),
];

/// The static file served at `/assets/NAME`, if there is one.
pub fn asset(name: &str) -> Option<Asset> {
    let index = FILES.iter().position(|(file, _, _)| *file == name)?;
    let (_, content_type, text) = FILES[index];
    Some(Asset {
        content_type,
        bytes: text.as_bytes(),
        etag: &tags()[index],
    })
}

/// Address of an asset, with the hash of its content.
pub(crate) fn address(name: &str) -> String {
    let tag = asset(name).map_or("", |asset| asset.etag);
    format!("/assets/{name}?{}", tag.trim_matches('"'))
}

fn tags() -> &'static [String; 5] {
    static TAGS: OnceLock<[String; 5]> = OnceLock::new();
    TAGS.get_or_init(|| FILES.map(|(_, _, text)| format!("\"{:016x}\"", fnv(text.as_bytes()))))
}

/// FNV-1a (Fowler, Noll, Vo), 64 bits: enough to tell two builds apart.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
