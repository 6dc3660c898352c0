//! Every setting there is, under the same name everywhere: in the file (`park_memory`), in the environment
//! (`HEARTH_PARK_MEMORY`) and as a flag (`--park-memory`).

/// A setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Address of the node.
    Host,
    /// Folder of everything Hearth keeps.
    Home,
    /// Model that answers when a request names none.
    Model,
    /// Folder of model files.
    ModelsDir,
    /// Where models are fetched from.
    Hub,
    /// Whether nobody is contacted.
    Offline,
    /// Whether other machines may fetch the models of this one.
    ShareModels,
    /// What the household calls this machine.
    Name,
    /// Where other machines reach this one.
    Addresses,
    /// The owner's own relay.
    Relay,
    /// Whether machines find each other on the local network.
    Mdns,
    /// The database that several hubs share.
    DatabaseUrl,
    /// Tokens one request may have.
    Context,
    /// Sequences decoded at once.
    Slots,
    /// Compute threads.
    Threads,
    /// Layers on the GPU.
    GpuLayers,
    /// KV cache types.
    Kv,
    /// Attention in one fused pass.
    FlashAttention,
    /// RAM for parked prefixes.
    ParkMemory,
    /// Memory of all loaded models.
    MemoryBudget,
    /// How long an idle model stays loaded.
    KeepAlive,
    /// Requests that may wait.
    QueueLimit,
    /// How long a request waits for a loading model.
    LoadWait,
    /// CPU code.
    Cpu,
    /// Least severe log level.
    LogLevel,
    /// How log lines look.
    LogFormat,
    /// Size at which the log file makes room.
    LogFileSize,
    /// Log files kept.
    LogFiles,
    /// Whether prompts and answers are logged.
    LogPrompts,
    /// Where traces are sent.
    OtlpEndpoint,
    /// Where the releases are listed.
    UpdateUrl,
    /// Whether `hearth up` asks there.
    UpdateCheck,
}

/// The accepted form of a switch; [`super::switch`] reads it.
pub const SWITCH: &str = "on or off (or true or false, yes or no, 1 or 0)";

/// How alike two names must be for one to be meant by the other, from 0 to 1.
const ALIKE: f64 = 0.75;

/// Name in the file, environment variable, flag, accepted form.
type Names = (&'static str, &'static str, &'static str, &'static str);

impl Key {
    /// All of them, in the order people see them.
    pub const ALL: [Self; 32] = [
        Self::Host,
        Self::Home,
        Self::Model,
        Self::ModelsDir,
        Self::Hub,
        Self::Offline,
        Self::ShareModels,
        Self::Name,
        Self::Addresses,
        Self::Relay,
        Self::Mdns,
        Self::DatabaseUrl,
        Self::Context,
        Self::Slots,
        Self::Threads,
        Self::GpuLayers,
        Self::Kv,
        Self::FlashAttention,
        Self::ParkMemory,
        Self::MemoryBudget,
        Self::KeepAlive,
        Self::QueueLimit,
        Self::LoadWait,
        Self::Cpu,
        Self::LogLevel,
        Self::LogFormat,
        Self::LogFileSize,
        Self::LogFiles,
        Self::LogPrompts,
        Self::OtlpEndpoint,
        Self::UpdateUrl,
        Self::UpdateCheck,
    ];

    fn names(self) -> Names {
        match self {
            Self::Host => (
                "host",
                "HEARTH_HOST",
                "host",
                "an address such as 127.0.0.1:8321, :8321 or 0.0.0.0",
            ),
            Self::Home => ("home", "HEARTH_HOME", "home", "a folder"),
            Self::Model => (
                "model",
                "HEARTH_MODEL",
                "model",
                "a model's name or the path of a .gguf file",
            ),
            Self::ModelsDir => (
                "models_dir",
                "HEARTH_MODELS_DIR",
                "models-dir",
                "a folder of .gguf files",
            ),
            Self::Hub => (
                "hub",
                "HEARTH_HUB",
                "hub",
                "an address that begins with https:// or http://",
            ),
            Self::Offline => ("offline", "HEARTH_OFFLINE", "offline", SWITCH),
            Self::ShareModels => (
                "share_models",
                "HEARTH_SHARE_MODELS",
                "share-models",
                SWITCH,
            ),
            Self::Name => (
                "name",
                "HEARTH_NAME",
                "name",
                "`auto` (the machine's own name), or up to 40 letters, digits, dots, dashes and underscores",
            ),
            Self::Addresses => (
                "addresses",
                "HEARTH_ADDRESSES",
                "addresses",
                "`auto` (those of this machine's networks), `none`, or addresses such as http://192.0.2.7:8321 and quic://192.0.2.7:8321, with commas between them",
            ),
            Self::Relay => (
                "relay",
                "HEARTH_RELAY",
                "relay",
                "`none`, or the address of an iroh relay of your own, such as https://relay.example",
            ),
            Self::Mdns => ("mdns", "HEARTH_MDNS", "mdns", SWITCH),
            Self::DatabaseUrl => (
                "database_url",
                "HEARTH_DATABASE_URL",
                "database-url",
                "`none`, or a PostgreSQL database such as postgres://USER:PASSWORD@HOST:5432/DATABASE",
            ),
            Self::Context => (
                "context",
                "HEARTH_CONTEXT",
                "context",
                "`auto` or a number of tokens from 64 to 1048576",
            ),
            Self::Slots => ("slots", "HEARTH_SLOTS", "slots", "a number from 1 to 64"),
            Self::Threads => (
                "threads",
                "HEARTH_THREADS",
                "threads",
                "`auto` or a number from 1 to 1024",
            ),
            Self::GpuLayers => (
                "gpu_layers",
                "HEARTH_GPU_LAYERS",
                "gpu-layers",
                "`auto` or a number of layers from 0",
            ),
            Self::Kv => (
                "kv",
                "HEARTH_KV",
                "kv",
                "f16, q8_0, q8_0/q4_0 or q4_0/q8_0 (keys/values)",
            ),
            Self::FlashAttention => (
                "flash_attention",
                "HEARTH_FLASH_ATTENTION",
                "flash-attention",
                "`auto`, on or off (or true or false, yes or no, 1 or 0); a quantised KV cache needs it",
            ),
            Self::ParkMemory => (
                "park_memory",
                "HEARTH_PARK_MEMORY",
                "park-memory",
                "`auto`, or a size such as 512MiB; 0 parks nothing",
            ),
            Self::MemoryBudget => (
                "memory_budget",
                "HEARTH_MEMORY_BUDGET",
                "memory-budget",
                "`auto` or a size such as 8GiB",
            ),
            Self::KeepAlive => (
                "keep_alive",
                "HEARTH_KEEP_ALIVE",
                "keep-alive",
                "`never` (never unload) or a duration such as 30m or 1h30m",
            ),
            Self::QueueLimit => (
                "queue_limit",
                "HEARTH_QUEUE_LIMIT",
                "queue-limit",
                "a number from 1 to 100000",
            ),
            Self::LoadWait => (
                "load_wait",
                "HEARTH_LOAD_WAIT",
                "load-wait",
                "a duration such as 2s or 500ms",
            ),
            Self::Cpu => (
                "cpu",
                "HEARTH_CPU",
                "cpu",
                "`auto` or the name of CPU code such as haswell or baseline",
            ),
            Self::LogLevel => (
                "log_level",
                "HEARTH_LOG_LEVEL",
                "log-level",
                "`auto`, off, error, warn, info, debug or trace",
            ),
            Self::LogFormat => (
                "log_format",
                "HEARTH_LOG_FORMAT",
                "log-format",
                "text or json",
            ),
            Self::LogFileSize => (
                "log_file_size",
                "HEARTH_LOG_FILE_SIZE",
                "log-file-size",
                "a size of at least 4KiB, such as 10MiB",
            ),
            Self::LogFiles => (
                "log_files",
                "HEARTH_LOG_FILES",
                "log-files",
                "a number from 1 to 100",
            ),
            Self::LogPrompts => ("log_prompts", "HEARTH_LOG_PROMPTS", "log-prompts", SWITCH),
            Self::OtlpEndpoint => (
                "otlp_endpoint",
                "HEARTH_OTLP_ENDPOINT",
                "otlp-endpoint",
                "`none`, or an address such as http://127.0.0.1:4318",
            ),
            Self::UpdateUrl => (
                "update_url",
                "HEARTH_UPDATE_URL",
                "update-url",
                "`none`, or an address that begins with https:// or http://",
            ),
            Self::UpdateCheck => (
                "update_check",
                "HEARTH_UPDATE_CHECK",
                "update-check",
                SWITCH,
            ),
        }
    }

    /// The setting that somebody who wrote `name` probably meant; `None` if it is like no other.
    pub fn nearest(name: &str) -> Option<Self> {
        let wanted = name.to_lowercase().replace('-', "_");
        // Other programs have a setting of its own for the port.
        let names = Self::ALL.map(|key| (key.name(), key));
        let names = names.into_iter().chain([("port", Self::Host)]);
        let likeness = names.map(|(name, key)| (strsim::jaro_winkler(name, &wanted), key));
        let best = likeness.max_by(|a, b| a.0.total_cmp(&b.0));
        best.filter(|(likeness, _)| *likeness > ALIKE)
            .map(|(_, key)| key)
    }

    /// Name in the file and in `hearth config show`.
    pub fn name(self) -> &'static str {
        self.names().0
    }

    /// Environment variable.
    pub fn variable(self) -> &'static str {
        self.names().1
    }

    /// Environment variable of another program that means the same; ours wins.
    pub fn borrowed_variable(self) -> Option<&'static str> {
        match self {
            Self::Hub => Some("HF_ENDPOINT"),
            Self::OtlpEndpoint => Some("OTEL_EXPORTER_OTLP_ENDPOINT"),
            _ => None,
        }
    }

    /// Flag without its dashes.
    pub fn flag(self) -> &'static str {
        self.names().2
    }

    /// The accepted form, in words.
    pub fn accepts(self) -> &'static str {
        self.names().3
    }
}
