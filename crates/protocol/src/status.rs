//! What a node says about itself: the body of `GET /status`, read by the command line and the page.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A node's state at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// Version of the running binary, `major.minor.patch`.
    pub version: String,
    /// Process id of the node.
    pub pid: u32,
    /// Seconds since the node started.
    pub uptime_seconds: u64,
    /// Where a client on this machine reaches the node, `host:port`.
    pub address: String,
    /// Name of the model that answers when a request names none.
    pub default_model: String,
    /// The CPU code chosen for this machine, for example `zen4`.
    pub cpu: String,
    /// Resident memory of the process in bytes, where the system tells.
    pub memory_bytes: Option<u64>,
    /// Folder of the models that are pulled, imported and removed there, if it keeps models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models_folder: Option<String>,
    /// Every model this node knows, loaded or not.
    pub models: Vec<ModelStatus>,
    /// What the other machines of its household have, as they said last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<ModelElsewhere>,
}

/// A model or encoder of another machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelElsewhere {
    /// Name a request uses; `MACHINE/NAME` has this machine answer and no other.
    pub name: String,
    /// The machine.
    pub machine: String,
    /// Whether it is loaded there.
    pub loaded: bool,
    /// Whether it embeds texts and generates none.
    pub embeds: bool,
    /// Size of the weights in bytes.
    pub size_bytes: u64,
    /// Longest prompt with its answer, in tokens, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<u32>,
    /// Whether no prompt gets there at the moment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreachable: bool,
}

/// One model as a node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelStatus {
    /// Name a request uses.
    pub name: String,
    /// Whether it is loaded, loading or only on disk.
    pub state: ModelState,
    /// Fraction loaded while loading, 0 to 1.
    pub progress: Option<f32>,
    /// Seconds until loaded, estimated, while loading.
    pub eta_seconds: Option<f32>,
    /// Why the last attempt to load it failed, when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Size of the weights on disk in bytes.
    pub size_bytes: u64,
    /// Architecture named in the file, once loaded (`llama`, `qwen3`, …).
    pub architecture: Option<String>,
    /// Parameters of the model, once loaded.
    pub parameters: Option<u64>,
    /// Longest sequence (prompt and answer) one request may use, in tokens, once loaded.
    pub context: Option<u32>,
    /// Elements of its vectors, once loaded, if it is an embedding model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u32>,
    /// Live counters, once loaded.
    pub load: Option<ModelLoad>,
}

/// Where a model is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModelState {
    /// On disk, loaded on the first request.
    Idle,
    /// Being loaded.
    Loading,
    /// Answering.
    Ready,
    /// The last attempt to load failed; the next request tries again.
    Failed,
}

/// Live counters of a loaded model. Totals count since the model was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelLoad {
    /// Slots in use now.
    pub slots_busy: u32,
    /// Slots there are.
    pub slots: u32,
    /// Requests waiting for a slot now.
    pub queued: u32,
    /// KV cells in use now (running sequences and resident prefixes), in tokens.
    pub kv_used: u32,
    /// KV cells there are, in tokens.
    pub kv_cells: u32,
    /// Bytes of prefixes parked in RAM.
    pub parked_bytes: u64,
    /// Prompt tokens computed.
    pub prefill_tokens: u64,
    /// Prompt tokens taken from a cached prefix instead of computed.
    pub cached_tokens: u64,
    /// Tokens generated.
    pub decode_tokens: u64,
    /// Requests answered to the end.
    pub completed: u64,
    /// Requests whose client went away.
    pub cancelled: u64,
    /// Decode speed over the last seconds of work, tokens per second over all streams.
    pub decode_tokens_per_second: f32,
    /// Prefill speed over the last seconds of work, tokens per second.
    pub prefill_tokens_per_second: f32,
}
