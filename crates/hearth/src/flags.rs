//! Flags that several commands share, and the settings they set.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::config::{Key, switch};

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Print JSON instead of words
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,
    /// Address of the node [default: 127.0.0.1:8321]
    #[arg(
        long,
        global = true,
        help_heading = "Everywhere",
        value_name = "HOST:PORT"
    )]
    pub host: Option<String>,
    /// Folder of everything Hearth keeps
    #[arg(
        long,
        global = true,
        help_heading = "Everywhere",
        value_name = "FOLDER"
    )]
    pub home: Option<String>,
    /// Configuration file
    #[arg(long, global = true, help_heading = "Everywhere", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Log more; twice for everything
    #[arg(short, long, global = true, help_heading = "Everywhere", action = ArgAction::Count)]
    pub verbose: u8,
}

impl Global {
    /// As a configuration layer.
    pub fn layer(&self) -> Vec<(Key, String)> {
        said([(Key::Host, &self.host), (Key::Home, &self.home)])
    }
}

/// How a node and its models run; the same names exist in the configuration file and the environment.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Settings")]
pub struct Tuning {
    /// Model that answers when a request names none: a name or a .gguf file
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Folder whose .gguf files can be named
    #[arg(long, value_name = "FOLDER")]
    pub models_dir: Option<String>,
    /// Where models are fetched from [default: huggingface.co]
    #[arg(long, value_name = "URL")]
    pub hub: Option<String>,
    /// Whether to contact nobody
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub offline: Option<String>,
    /// Whether other machines may fetch the models of this one: on or off
    #[arg(long, value_name = "WHEN")]
    pub share_models: Option<String>,
    /// What the household calls this machine, or `auto`
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Where other machines reach this one, with commas between; `auto` or `none`
    #[arg(long, value_name = "ADDRESSES")]
    pub addresses: Option<String>,
    /// Address of an iroh relay of your own, or `none`
    #[arg(long, value_name = "URL")]
    pub relay: Option<String>,
    /// Whether machines of the household find each other on the local network: on or off
    #[arg(long, value_name = "WHEN")]
    pub mdns: Option<String>,
    /// A PostgreSQL that several hubs share, or `none`; other users see flags, so a password is better in the file
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// Tokens one request may have, or `auto`
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<String>,
    /// Requests answered at once by one model, 1 to 64
    #[arg(long, value_name = "N")]
    pub slots: Option<String>,
    /// Compute threads, or `auto`
    #[arg(long, value_name = "N")]
    pub threads: Option<String>,
    /// Layers on the GPU, or `auto`
    #[arg(long, value_name = "N")]
    pub gpu_layers: Option<String>,
    /// KV cache types: f16, q8_0, q8_0/q4_0 or q4_0/q8_0
    #[arg(long, value_name = "TYPE")]
    pub kv: Option<String>,
    /// Attention in one fused pass: auto, on or off
    #[arg(long, value_name = "WHEN")]
    pub flash_attention: Option<String>,
    /// RAM for parked prefixes of all models, or `auto`
    #[arg(long, value_name = "SIZE")]
    pub park_memory: Option<String>,
    /// Memory all loaded models may take, or `auto`
    #[arg(long, value_name = "SIZE")]
    pub memory_budget: Option<String>,
    /// Unload a model idle for so long, or `never`
    #[arg(long, value_name = "TIME")]
    pub keep_alive: Option<String>,
    /// Requests that may wait per model
    #[arg(long, value_name = "N")]
    pub queue_limit: Option<String>,
    /// How long a request waits for its model to load
    #[arg(long, value_name = "TIME")]
    pub load_wait: Option<String>,
    /// CPU code to run instead of the best for this machine
    #[arg(long, value_name = "NAME")]
    pub cpu: Option<String>,
    /// off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Size at which the log file makes room
    #[arg(long, value_name = "SIZE")]
    pub log_file_size: Option<String>,
    /// Log files kept, 1 to 100
    #[arg(long, value_name = "N")]
    pub log_files: Option<String>,
    /// Whether prompts and answers are logged: on or off
    #[arg(long, value_name = "WHEN")]
    pub log_prompts: Option<String>,
    /// Where traces are sent (OTLP over HTTP), or `none`
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Where the releases are listed, or `none`
    #[arg(long, value_name = "URL")]
    pub update_url: Option<String>,
    /// Whether `hearth up` looks for a newer version: on or off
    #[arg(long, value_name = "WHEN")]
    pub update_check: Option<String>,
}

impl Tuning {
    /// As a configuration layer.
    pub fn layer(&self) -> Vec<(Key, String)> {
        said([
            (Key::Model, &self.model),
            (Key::ModelsDir, &self.models_dir),
            (Key::Hub, &self.hub),
            (Key::Offline, &self.offline),
            (Key::ShareModels, &self.share_models),
            (Key::Name, &self.name),
            (Key::Addresses, &self.addresses),
            (Key::Relay, &self.relay),
            (Key::Mdns, &self.mdns),
            (Key::DatabaseUrl, &self.database_url),
            (Key::Context, &self.context),
            (Key::Slots, &self.slots),
            (Key::Threads, &self.threads),
            (Key::GpuLayers, &self.gpu_layers),
            (Key::Kv, &self.kv),
            (Key::FlashAttention, &self.flash_attention),
            (Key::ParkMemory, &self.park_memory),
            (Key::MemoryBudget, &self.memory_budget),
            (Key::KeepAlive, &self.keep_alive),
            (Key::QueueLimit, &self.queue_limit),
            (Key::LoadWait, &self.load_wait),
            (Key::Cpu, &self.cpu),
            (Key::LogLevel, &self.log_level),
            (Key::LogFormat, &self.log_format),
            (Key::LogFileSize, &self.log_file_size),
            (Key::LogFiles, &self.log_files),
            (Key::LogPrompts, &self.log_prompts),
            (Key::OtlpEndpoint, &self.otlp_endpoint),
            (Key::UpdateUrl, &self.update_url),
            (Key::UpdateCheck, &self.update_check),
        ])
    }
}

/// The flags that were given.
pub fn said<const N: usize>(flags: [(Key, &Option<String>); N]) -> Vec<(Key, String)> {
    flags
        .into_iter()
        .filter_map(|(key, text)| Some((key, text.clone()?)))
        .collect()
}

/// A switch of a flag.
pub fn on_or_off(text: &str) -> Result<bool, String> {
    switch(text).ok_or_else(|| "give on or off (or true, false, yes, no, 1, 0)".into())
}
