//! Server-rendered pages over read-only views.
//!
//! Takes plain data and returns HTML; refuses I/O, state, and any request to the outside from the page.

use hearth_protocol::status::NodeStatus;

/// The chat and status page at `/`.
pub fn home(status: &NodeStatus) -> String {
    maud::html! { (maud::DOCTYPE) html { body { (status.version) } } }.into_string()
}

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

/// The static file served at `/assets/NAME`, if there is one.
pub fn asset(name: &str) -> Option<Asset> {
    let _ = name;
    None
}
