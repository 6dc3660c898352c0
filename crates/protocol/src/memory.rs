//! Memories on the wire: what a person's tools keep and find again.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most bytes of a memory's text.
pub const MOST_TEXT: usize = 64 << 10;
/// Most characters of a kind, a project, a tag.
pub const MOST_NAME: usize = 100;
/// Most tags of a memory.
pub const MOST_TAGS: usize = 32;
/// Most characters of a source.
pub const MOST_SOURCE: usize = 1000;
/// Most memories that one search gives.
pub const MOST_FOUND: usize = 100;

/// One thing to remember.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Memory {
    /// `mem-` and 32 hexadecimal digits.
    pub id: String,
    /// What is remembered.
    pub text: String,
    /// What it is: `note`, `decision`, `fact`, `preference`, or any other word.
    pub kind: String,
    /// Whose it is; `null` belongs to every project.
    pub project: Option<String>,
    /// Words to find it by, sorted.
    pub tags: Vec<String>,
    /// How sure it is, 0 to 1.
    pub confidence: f32,
    /// Whether it never grows cold and counts more in a search.
    pub pinned: bool,
    /// Where it comes from: a tool, a file, an address.
    pub source: Option<String>,
    /// When it was written.
    #[schema(value_type = String, format = DateTime)]
    pub written: Timestamp,
    /// When it was last found or looked at.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub read: Option<Timestamp>,
    /// How often.
    pub reads: u64,
    /// When a newer one took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub superseded: Option<Timestamp>,
    /// The newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<String>,
    /// Those whose place it took, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supersedes: Vec<String>,
    /// Others that say nearly the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<String>,
}

/// A line of an export: a memory, and who holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Exported {
    /// The memory.
    #[serde(flatten)]
    pub memory: Memory,
    /// Who holds it: files that say it, by their source, and a person who wrote, changed or pinned it, by an empty text.
    /// Nobody holds one that was withdrawn. Exports of earlier versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders: Option<Vec<String>>,
}

/// The body of `POST /memory`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMemory {
    /// What to remember, up to 64 KiB.
    pub text: String,
    /// What it is; a word. `note` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Whose it is; without one it belongs to every project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// How sure it is, 0 to 1; 1 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    /// Whether it never grows cold and counts more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The id of a memory whose place this one takes; the old one is kept, and no longer found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<String>,
}

/// What became of a text that was to be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is a new memory.
    Stored,
    /// It is a new memory, and others say nearly the same: `related` lists them.
    Linked,
    /// It was there already: the memory that is there got its tags, its confidence and its pin.
    Merged,
    /// It was a memory that had been recalled, or whole sentences of one: nothing is new.
    Recalled,
}

/// The answer to `POST /memory`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Written {
    /// What became of it.
    pub outcome: Outcome,
    /// The memory, as it is now.
    pub memory: Memory,
}

/// The body of `PATCH /memory/{id}`: what is absent stays. A new text keeps the old one as a superseded memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// What to remember instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Words to find it by, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// How sure it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    /// Whether it never grows cold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<bool>,
}

/// The body of `POST /memory/search`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// What is wanted, in any words.
    pub query: String,
    /// Only this project's memories and those of every project; without one, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Most memories to give, 1 to 100; 10 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Only memories as sure as this, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_confidence: Option<f32>,
    /// Only memories of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only memories with all of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Whether each memory says why it was found.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub explain: bool,
}

/// The answer to a search.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Found {
    /// The best first.
    pub memories: Vec<Hit>,
    /// How many there are in this answer.
    pub count: usize,
    /// Why meaning was not searched, when words alone were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words_only: Option<String>,
}

/// A memory that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Hit {
    /// The memory.
    #[serde(flatten)]
    pub memory: Memory,
    /// How well it fits, larger is better; comparable within one answer.
    pub score: f32,
    /// Why it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
}

/// Why a memory was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// Cosine of the angle between the vectors of the query and of the memory, if meaning was searched.
    pub similarity: Option<f32>,
    /// BM25 of the query's words in the memory, larger is better; `null` if none of them is in it.
    pub words: Option<f32>,
    /// Factor for its age.
    pub recency: f32,
    /// Factor for being pinned.
    pub pinned: f32,
    /// Whether it had grown cold.
    pub cold: bool,
}

/// A page of memories, newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Listed {
    /// The memories.
    pub memories: Vec<Memory>,
    /// How many there are in this answer.
    pub count: usize,
    /// What to send as `after` for the next page; `null` on the last.
    pub next: Option<String>,
}

/// What an import came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Imported {
    /// Memories that are new.
    pub stored: u64,
    /// Memories that were there already.
    pub merged: u64,
    /// Memories of the same file that it no longer holds, and nobody else does; they are kept, and no longer found.
    pub withdrawn: u64,
    /// Memories that the same file said under another project, and that belong to this one now.
    #[serde(default)]
    pub moved: u64,
    /// Files that were as they had been.
    pub unchanged: u64,
}

/// Something that is wrong with a memory store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// What is wrong.
    pub problem: String,
    /// What mends it, or what was done about it.
    pub remedy: String,
    /// Whether it was mended.
    pub mended: bool,
}

/// What was found when a memory store was examined.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Examined {
    /// What is wrong; empty if nothing is.
    pub findings: Vec<Finding>,
}

/// The state of a memory store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Memories that can be found.
    pub memories: u64,
    /// Of these, memories that have grown cold.
    pub cold: u64,
    /// Of these, pinned ones.
    pub pinned: u64,
    /// Memories whose place others took.
    pub superseded: u64,
    /// Memories that nobody holds any more; they are kept, and not found.
    #[serde(default)]
    pub withdrawn: u64,
    /// Projects by their number of memories, most first; `null` belongs to every project.
    pub projects: Vec<(Option<String>, u64)>,
    /// The name of the encoder, if meaning is searched.
    pub encoder: Option<String>,
    /// Why meaning is not searched, when words alone are.
    pub words_only: Option<String>,
    /// Memories without a vector of this encoder, which only words find yet.
    pub unencoded: u64,
    /// Bytes of the database.
    pub database_bytes: u64,
    /// Bytes of the file of vectors.
    pub vector_bytes: u64,
    /// Vectors that a search without a project compares.
    pub scanned: u64,
    /// Searches that compare no more than these compare all of them; others use the approximate index, if it is there.
    pub exact_until: u64,
    /// The approximate index; a node makes it when there are enough memories.
    pub approximate: Option<Approximate>,
}

/// The approximate index: a graph of vectors that finds the nearest without comparing all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Approximate {
    /// Vectors that it has; those that came since are compared one by one.
    pub vectors: u64,
    /// Share of the ten nearest that it finds, measured with vectors of this store.
    pub recall: f32,
    /// Bytes of memory that it takes.
    pub bytes: u64,
    /// Whether a search without a project uses it.
    pub in_use: bool,
}
