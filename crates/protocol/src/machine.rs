//! What a machine can do, and which models are likely to do well on it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What was measured of a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Machine {
    /// The device as its driver names it.
    pub device: String,
    /// Whether it is a GPU.
    pub gpu: bool,
    /// Compute threads (of a processor).
    pub threads: u32,
    /// Memory of the machine in bytes.
    pub memory: u64,
    /// Free memory of the GPU in bytes; 0 if there is none.
    pub gpu_memory: u64,
    /// Bytes of Q4_K weights read per second when one token is computed.
    pub weight_bytes_per_second: f64,
    /// Operations per second when a prompt is computed; a multiplication and an addition are two.
    pub operations_per_second: f64,
}

/// How a model is likely to do on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Estimate {
    /// Bytes of weights and of a context of 8,192 tokens.
    pub bytes: u64,
    /// Where it fits.
    pub fit: Fit,
    /// Tokens generated per second, one stream, short context.
    pub decode: f64,
    /// Tokens of a prompt per second.
    pub prefill: f64,
}

/// Where a model fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// In the memory of the device that was measured.
    Whole,
    /// In part in the GPU's memory, the rest in the machine's: slower than estimated.
    Shared,
    /// Nowhere.
    No,
}

/// A model of the catalogue and how it is likely to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LikelyModel {
    /// The name that `hearth pull` takes.
    pub name: String,
    /// Whether it embeds texts and so gives no answers.
    pub embeds: bool,
    /// Whether it is on this machine already.
    pub here: bool,
    /// How it is likely to do.
    pub estimate: Estimate,
}

/// What was measured, and what follows from it for the models of the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MachineReport {
    /// The measurement; `null` until somebody asked for one.
    pub machine: Option<Machine>,
    /// The catalogue's models, the smallest first; empty without a measurement.
    pub models: Vec<LikelyModel>,
}
