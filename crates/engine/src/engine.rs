//! Several models under one memory budget: loaded on demand, kept alive, evicted when idle.

use std::sync::Arc;
use std::time::Duration;

use hearth_protocol::status::ModelStatus;

use crate::{Catalogue, EngineError, Generation, Request};

/// Types a KV cache's halves (keys/values) can have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KvType {
    /// 16-bit floats.
    #[default]
    F16,
    /// 8-bit blocks for both.
    Q8_0,
    /// 8-bit keys, 4-bit values.
    Q8_0Q4_0,
    /// 4-bit keys, 8-bit values.
    Q4_0Q8_0,
}

/// How each model is run.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// Tokens one sequence (prompt and answer) may have; `None` is the model's own length, at most 8,192.
    pub context: Option<u32>,
    /// Sequences decoded at once, 1 to 64.
    pub slots: u32,
    /// Compute threads; `None` is one per physical core.
    pub threads: Option<u32>,
    /// Layers on the GPU; `None` decides from its free memory.
    pub gpu_layers: Option<u32>,
    /// KV cache types.
    pub kv: KvType,
    /// RAM for parked prefixes in bytes, per model.
    pub park_bytes: u64,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self { context: None, slots: 4, threads: None, gpu_layers: None, kv: KvType::F16, park_bytes: 1 << 30 }
    }
}

/// How the engine shares the machine between models.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// How each model is run.
    pub model: ModelOptions,
    /// Bytes all loaded models may take; `None` is three quarters of the machine's memory.
    pub memory_budget: Option<u64>,
    /// An idle model other than the default one is unloaded after this; `None` keeps it.
    pub keep_alive: Option<Duration>,
    /// Requests that may wait per model.
    pub queue_limit: usize,
    /// How long a request waits for its model to load before it is told to come back.
    pub load_wait: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            model: ModelOptions::default(),
            memory_budget: None,
            keep_alive: Some(Duration::from_secs(30 * 60)),
            queue_limit: 64,
            load_wait: Duration::from_secs(2),
        }
    }
}

/// The machine's models. Cheap to clone; the last clone dropped stops every model thread.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<()>,
}

impl Engine {
    /// Starts without loading anything.
    pub fn new(options: EngineOptions, catalogue: Catalogue) -> Self {
        let _ = (options, catalogue);
        todo!()
    }

    /// Names to files.
    pub fn catalogue(&self) -> &Catalogue {
        let _ = &self.inner;
        todo!()
    }

    /// Starts an answer; `model` of `None` is the default model. Loads the model if need be and waits
    /// `load_wait` for it. Everything that is wrong with the request is reported here, before the first event.
    pub async fn generate(&self, model: Option<&str>, request: Request) -> Result<Generation, EngineError> {
        let _ = (model, request);
        todo!()
    }

    /// Loads a model and waits until it is ready, however long it takes. `progress` hears fractions from 0 to 1.
    pub async fn load(&self, model: Option<&str>) -> Result<(), EngineError> {
        let _ = model;
        todo!()
    }

    /// Unloads a model as soon as its running requests ended; false if it was not loaded.
    pub async fn unload(&self, model: &str) -> bool {
        let _ = model;
        todo!()
    }

    /// Every known model and its counters.
    pub fn status(&self) -> Vec<ModelStatus> {
        todo!()
    }

    /// Name of the CPU code in use (`zen4`, `haswell`, …).
    pub fn cpu(&self) -> &'static str {
        todo!()
    }
}
