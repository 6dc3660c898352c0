//! Settings the engine is started with.

use std::sync::OnceLock;
use std::time::Duration;

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
    /// Compute threads; `None` is one per physical core that the process may use, and fewer for a
    /// model under 64 MiB per core.
    pub threads: Option<u32>,
    /// Layers on the GPU; `None` decides from its free memory.
    pub gpu_layers: Option<u32>,
    /// KV cache types.
    pub kv: KvType,
    /// Attention in one fused pass; `None` decides by device and context, and a quantised cache
    /// always needs it.
    pub flash_attention: Option<bool>,
    /// RAM for parked prefixes in bytes, of all models together and beside their budget; `None` is an eighth of the
    /// machine's, at most 8 GiB.
    pub park_bytes: Option<u64>,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            context: None,
            slots: 4,
            threads: None,
            gpu_layers: None,
            kv: KvType::F16,
            flash_attention: None,
            park_bytes: None,
        }
    }
}

/// Longest context for which a processor attends in one fused pass, in tokens: the pass makes prompts faster and makes
/// tokens after long contexts slower (docs/adr/0007-flash-attention.md has the figures).
const FUSED_CONTEXT: u32 = 4096;

impl ModelOptions {
    /// Whether a model with this context attends in one fused pass: always on a GPU and with a quantised cache (llama.cpp
    /// has no other way there), on the processor alone for short contexts.
    pub(crate) fn fuses(&self, context: u32, on_gpu: bool) -> bool {
        self.kv != KvType::F16
            || self
                .flash_attention
                .unwrap_or(on_gpu || context <= FUSED_CONTEXT)
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
    /// CPU code to run instead of the best for this machine (`haswell`, `baseline`, …). It is the whole process's, so
    /// the first engine decides; a name that cannot be used is ignored with a warning that lists those that can.
    pub cpu: Option<String>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            model: ModelOptions::default(),
            memory_budget: None,
            keep_alive: Some(Duration::from_secs(30 * 60)),
            queue_limit: 64,
            load_wait: Duration::from_secs(2),
            cpu: None,
        }
    }
}

/// Physical memory in bytes.
pub fn machine_memory() -> u64 {
    let system = sysinfo::System::new_with_specifics(
        sysinfo::RefreshKind::nothing()
            .with_memory(sysinfo::MemoryRefreshKind::nothing().with_ram()),
    );
    // Inside a container the limit is what counts.
    let limit = system
        .cgroup_limits()
        .map_or(u64::MAX, |limits| limits.total_memory);
    system.total_memory().min(limit)
}

/// Stack in bytes of a thread that prepares a request. For some vocabularies llama.cpp divides text into words with a
/// regular expression that calls itself for each letter of a word. Only touched pages count.
pub(crate) fn deep_stack() -> usize {
    static STACK: OnceLock<usize> = OnceLock::new();
    *STACK.get_or_init(|| (machine_memory() / 8).clamp(16 << 20, 512 << 20) as usize)
}

/// Refuses a text with a word that no [`deep_stack`] suffices for: tokenising takes some 200 bytes for each letter of a
/// text without a blank.
pub(crate) fn check_words(text: &str) -> Result<(), String> {
    let most = deep_stack() / 512;
    let mut lengths = text.split(char::is_whitespace).map(str::len);
    match lengths.find(|length| *length > most) {
        Some(long) => Err(format!(
            "a word of {long} bytes is too long; put a blank into it after {most} at the latest"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_is_fused_where_it_must_be_or_pays() {
        let usual = ModelOptions::default();
        assert!(usual.fuses(4096, false) && !usual.fuses(8192, false) && usual.fuses(8192, true));
        let told = ModelOptions {
            flash_attention: Some(false),
            ..ModelOptions::default()
        };
        assert!(!told.fuses(512, true));
        let quantised = ModelOptions {
            kv: KvType::Q8_0,
            ..told
        };
        assert!(quantised.fuses(32_768, false));
    }
}
