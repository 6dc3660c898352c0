//! The settings of this process: raw layers (defaults, file, environment, flags) resolved once into small structs.
//!
//! Only this crate reads the environment and the configuration file. A layer is text per [`Key`] with its [`Origin`];
//! the highest layer that has a key wins, and only then is the text parsed, so that an error can name where the value
//! came from. Everything below this crate is handed [`EngineOptions`] and the like.

mod file;
mod key;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use hearth_engine::{EngineOptions, ModelOptions};
use hearth_protocol::household::Address;
use serde_json::json;

pub use key::Key;
pub use value::{HostPort, LogFormat};

use crate::failure::{Failure, Outcome};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file, at this line.
    File(PathBuf, usize),
    /// This environment variable.
    Environment(&'static str),
    /// This command-line flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::File(path, line) => write!(out, "{}:{line}", path.display()),
            Self::Environment(name) => write!(out, "{name}"),
            Self::Flag(name) => write!(out, "--{name}"),
        }
    }
}

/// The user's configuration and home folders.
pub fn folders() -> Outcome<(PathBuf, PathBuf)> {
    use etcetera::BaseStrategy;
    let folders = user_folders()?;
    Ok((folders.config_dir(), folders.home_dir().to_path_buf()))
}

fn user_folders() -> Outcome<impl etcetera::BaseStrategy> {
    etcetera::base_strategy::choose_native_strategy().map_err(|error| {
        Failure::usage(format!("the user's home folder is unknown: {error}"))
            .fix("set HOME, or HEARTH_HOME and HEARTH_CONFIG")
    })
}

/// The values one layer sets, not parsed yet.
pub type Layer = BTreeMap<Key, (String, Origin)>;

/// What every environment variable of ours begins with.
const PREFIX: &str = "HEARTH_";
/// Variables that are no settings: of the command line, of the examples, and of the build.
const NO_SETTINGS: [&str; 4] = [
    "HEARTH_CONFIG",
    "HEARTH_COMPLETE",
    "HEARTH_URL",
    "HEARTH_EMBED_MODEL",
];
/// How variables begin that only tests read.
const OF_TESTS: &str = "HEARTH_TEST_";

/// Reads an environment variable.
pub type Variables = Box<dyn Fn(&str) -> Option<OsString>>;

/// What settings are resolved from. Tests fill it by hand; [`Sources::of_process`] asks the real process.
pub struct Sources {
    /// The configuration file and whether somebody named it (then it must exist).
    pub file: PathBuf,
    /// Whether the file was named by a flag or the environment.
    pub file_named: bool,
    /// Home folder of the user, for a leading `~/`.
    pub user_home: PathBuf,
    /// Where Hearth keeps its things unless told otherwise.
    pub default_home: PathBuf,
    /// Reads an environment variable.
    pub environment: Variables,
    /// The names of all environment variables that begin with `HEARTH_`.
    pub names: Vec<String>,
    /// What the command line sets.
    pub flags: Vec<(Key, String)>,
}

impl Sources {
    /// The real environment and the platform's folders.
    pub fn of_process(config_flag: Option<&Path>, flags: Vec<(Key, String)>) -> Outcome<Self> {
        use etcetera::BaseStrategy;
        let folders = user_folders()?;
        let named = config_flag.map(Path::to_path_buf).or_else(|| {
            std::env::var_os("HEARTH_CONFIG")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        });
        Ok(Self {
            file_named: named.is_some(),
            file: named.unwrap_or_else(|| folders.config_dir().join("hearth").join("config.toml")),
            user_home: folders.home_dir().to_path_buf(),
            default_home: folders.data_dir().join("hearth"),
            environment: Box::new(|name| std::env::var_os(name)),
            names: std::env::vars_os()
                .filter_map(|(name, _)| name.into_string().ok())
                .filter(|name| name.starts_with(PREFIX))
                .collect(),
            flags,
        })
    }

    /// The layers, the weakest first.
    fn layers(&self) -> Outcome<[Layer; 3]> {
        let file = file::read(&self.file, self.file_named)?;
        let mut environment = Layer::new();
        for key in Key::ALL {
            let names = [Some(key.variable()), key.borrowed_variable()];
            let said = names.into_iter().flatten().find_map(|name| {
                let text = (self.environment)(name).filter(|text| !text.is_empty())?;
                Some((name, text))
            });
            let Some((name, text)) = said else {
                continue;
            };
            let text = text.into_string().map_err(|_| {
                Failure::usage(format!("{name} is not valid UTF-8"))
                    .fix(format!("set it to {}", key.accepts()))
            })?;
            environment.insert(key, (text, Origin::Environment(name)));
        }
        let flags = self
            .flags
            .iter()
            .map(|(key, text)| (*key, (text.clone(), Origin::Flag(key.flag()))))
            .collect();
        Ok([file, environment, flags])
    }

    /// A warning for each variable that looks like a setting and is none, which would be a silent surprise.
    fn warnings(&self) -> Vec<String> {
        let is_known = |name: &str| {
            Key::ALL.iter().any(|key| key.variable() == name)
                || NO_SETTINGS.contains(&name)
                || name.starts_with(OF_TESTS)
        };
        let mut unknown: Vec<&str> = self.names.iter().map(String::as_str).collect();
        unknown.retain(|name| !is_known(name));
        unknown.sort_unstable();
        let warn = |name: &str| {
            let rest = name.strip_prefix(PREFIX).unwrap_or(name);
            let meant = match Key::nearest(rest) {
                _ if strsim::jaro_winkler(rest, "CONFIG") > 0.85 => {
                    "did you mean HEARTH_CONFIG?".to_owned()
                }
                Some(key) => format!("did you mean {} ({})?", key.variable(), key.accepts()),
                None => "`hearth config show` lists the settings".to_owned(),
            };
            format!("{name} is not a setting and changes nothing; {meant}")
        };
        unknown.into_iter().map(warn).collect()
    }

    /// Parses the winning value of each key.
    pub fn resolve(self) -> Outcome<Config> {
        let mut winning = Layer::new();
        for layer in self.layers()? {
            winning.extend(layer);
        }
        Resolver {
            winning: &winning,
            sources: &self,
        }
        .config()
    }
}

/// Most files that `log_files` may keep.
pub const MOST_FILES: u32 = 100;

/// Logging as configured.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The least severe level shown; `None` leaves it to the command.
    pub level: Option<tracing::level_filters::LevelFilter>,
    /// How lines look on standard error; a log file has JSON lines.
    pub format: LogFormat,
    /// Size in bytes at which the log file makes room for a new one.
    pub file_size: u64,
    /// Log files kept, the newest included; at least 1.
    pub files: u32,
    /// Whether prompts and answers are logged.
    pub prompts: bool,
}

/// Where models come from, and who may have them from here.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// Address of the hub or of a mirror.
    pub hub: String,
    /// Whether nobody is contacted.
    pub offline: bool,
    /// Whether other machines may fetch the models of this one.
    pub share: bool,
}

/// How this machine meets the others of its household.
#[derive(Debug, Clone)]
pub struct MeshOptions {
    /// What the household calls this machine; `None` takes the machine's own name.
    pub name: Option<String>,
    /// Where others reach it; `None` is at the addresses of its networks.
    pub addresses: Option<Vec<Address>>,
    /// A relay of the owner's.
    pub relay: Option<String>,
    /// Whether nodes look for each other on the local network.
    pub mdns: bool,
    /// A PostgreSQL that several hubs share.
    pub database: Option<String>,
}

/// How the owner learns of newer versions.
#[derive(Debug, Clone)]
pub struct UpdateOptions {
    /// Address of the list of releases; `None` asks nobody.
    pub url: Option<String>,
    /// Whether `hearth up` asks there without being told to.
    pub check: bool,
}

/// All settings, resolved.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where a node listens and where commands look for it.
    pub host: HostPort,
    /// `OLLAMA_HOST`: where commands look for a node when nothing else says. Another program's variable: what cannot be
    /// used of it is left alone.
    pub ollama_host: Option<HostPort>,
    /// Folder of everything Hearth keeps.
    pub home: PathBuf,
    /// The model that answers when a request names none: a name or an absolute path. `None` is the embedded one.
    pub model: Option<String>,
    /// Folder whose `*.gguf` files can be named by their stem.
    pub models_dir: PathBuf,
    /// Where models come from.
    pub fetch: FetchOptions,
    /// The other machines.
    pub mesh: MeshOptions,
    /// How models run.
    pub engine: EngineOptions,
    /// Logging.
    pub log: LogOptions,
    /// Where traces are sent; `None` sends none.
    pub otlp_endpoint: Option<String>,
    /// Newer versions.
    pub update: UpdateOptions,
    /// The configuration file that was looked for.
    pub file: PathBuf,
    /// Whether somebody named it.
    pub file_named: bool,
    /// What of the environment looks like a setting and is none, in words.
    pub warnings: Vec<String>,
    /// Every value as shown to people, in the order of [`Key::ALL`].
    pub shown: Vec<Shown>,
}

/// One line of `hearth config show`.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The setting.
    pub key: Key,
    /// Its value in the accepted form.
    pub value: String,
    /// Who set it.
    pub origin: Origin,
}

impl Config {
    /// Where a value came from.
    pub fn origin(&self, key: Key) -> &Origin {
        self.shown
            .iter()
            .find(|shown| shown.key == key)
            .map_or(&Origin::Default, |shown| &shown.origin)
    }

    /// The settings as JSON: `{"key": {"value", "origin"}}`.
    pub fn json(&self) -> serde_json::Value {
        let entries = self.shown.iter().map(|shown| {
            let entry = json!({"value": shown.value, "origin": shown.origin.to_string(), "environment": shown.key.variable()});
            (shown.key.name().to_owned(), entry)
        });
        serde_json::Value::Object(entries.collect())
    }
}

struct Resolver<'a> {
    winning: &'a Layer,
    sources: &'a Sources,
}

impl Resolver<'_> {
    /// The parsed value of a key, or its default.
    fn get<T>(&self, key: Key, parse: impl Fn(&str) -> Option<T>, default: T) -> Outcome<T> {
        let Some((text, origin)) = self.winning.get(&key) else {
            return Ok(default);
        };
        parse(text.trim()).ok_or_else(|| {
            let place = match origin {
                Origin::File(..) => format!("{origin}: {}", key.name()),
                _ => origin.to_string(),
            };
            let text = match key {
                // It may hold a password.
                Key::DatabaseUrl => value::show_database(text),
                _ => text.clone(),
            };
            Failure::usage(format!(
                "{place}: `{text}` is not a value for {}",
                key.name()
            ))
            .fix(format!("use {}", key.accepts()))
        })
    }

    /// A path: `~/` is the user's home; a relative one is relative to the file that names it, or to the current folder.
    fn path(&self, key: Key, text: &str) -> Option<PathBuf> {
        if text.is_empty() {
            return None;
        }
        if let Some(rest) = text.strip_prefix("~/") {
            return Some(self.sources.user_home.join(rest));
        }
        let base = match self.winning.get(&key) {
            Some((_, Origin::File(file, _))) => file.parent().map(Path::to_path_buf),
            _ => std::env::current_dir().ok(),
        };
        Some(base.unwrap_or_default().join(text))
    }

    fn config(&self) -> Outcome<Config> {
        let home = self.get(
            Key::Home,
            |text| self.path(Key::Home, text),
            self.sources.default_home.clone(),
        )?;
        let defaults = EngineOptions::default();
        let model = self.get(
            Key::Model,
            |text| match text {
                "" => None,
                // A path is made absolute: what the catalogue sees must not depend on the current folder.
                _ if text.ends_with(".gguf") => {
                    Some(Some(self.path(Key::Model, text)?.to_str()?.to_owned()))
                }
                _ => Some(Some(text.to_owned())),
            },
            None,
        )?;
        let mut config = Config {
            host: self.get(Key::Host, HostPort::parse, HostPort::default())?,
            ollama_host: (self.sources.environment)("OLLAMA_HOST")
                .and_then(|text| HostPort::parse_ollama(text.to_str()?)),
            models_dir: self.get(
                Key::ModelsDir,
                |text| self.path(Key::ModelsDir, text),
                home.join("models"),
            )?,
            fetch: FetchOptions {
                hub: self.get(Key::Hub, value::url, hearth_models::HUB.to_owned())?,
                offline: self.get(Key::Offline, value::switch, false)?,
                share: self.get(Key::ShareModels, value::switch, false)?,
            },
            mesh: MeshOptions {
                name: self.get(Key::Name, value::auto_or(value::name), None)?,
                addresses: self.get(Key::Addresses, value::auto_or(value::addresses), None)?,
                relay: self.get(Key::Relay, value::url_or_none, None)?,
                mdns: self.get(Key::Mdns, value::switch, false)?,
                database: self.get(Key::DatabaseUrl, value::database_or_none, None)?,
            },
            model,
            engine: EngineOptions {
                model: ModelOptions {
                    context: self.get(
                        Key::Context,
                        value::auto_or(|text| value::whole(text, 64, 1 << 20)),
                        None,
                    )?,
                    slots: self.get(
                        Key::Slots,
                        |text| value::whole(text, 1, 64),
                        defaults.model.slots,
                    )?,
                    threads: self.get(
                        Key::Threads,
                        value::auto_or(|text| value::whole(text, 1, 1024)),
                        None,
                    )?,
                    gpu_layers: self.get(
                        Key::GpuLayers,
                        value::auto_or(|text| value::whole(text, 0, 10_000)),
                        None,
                    )?,
                    kv: self.get(Key::Kv, value::kv, defaults.model.kv)?,
                    flash_attention: self.get(
                        Key::FlashAttention,
                        value::auto_or(value::switch),
                        defaults.model.flash_attention,
                    )?,
                    park_bytes: self.get(
                        Key::ParkMemory,
                        value::auto_or(value::size),
                        defaults.model.park_bytes,
                    )?,
                },
                memory_budget: self.get(Key::MemoryBudget, value::auto_or(value::size), None)?,
                keep_alive: self.get(
                    Key::KeepAlive,
                    value::duration_or_never,
                    defaults.keep_alive,
                )?,
                queue_limit: self.get(Key::QueueLimit, |text| value::whole(text, 1, 100_000), 64)?
                    as usize,
                load_wait: self.get(Key::LoadWait, value::duration, defaults.load_wait)?,
                cpu: self.get(
                    Key::Cpu,
                    value::auto_or(|text| Some(text.to_owned()).filter(|name| !name.is_empty())),
                    None,
                )?,
            },
            log: LogOptions {
                level: self.get(Key::LogLevel, value::auto_or(value::level), None)?,
                format: self.get(Key::LogFormat, LogFormat::parse, LogFormat::Text)?,
                file_size: self.get(
                    Key::LogFileSize,
                    |text| value::size(text).filter(|size| *size >= 4 << 10),
                    10 << 20,
                )?,
                files: self.get(Key::LogFiles, |text| value::whole(text, 1, MOST_FILES), 5)?,
                prompts: self.get(Key::LogPrompts, value::switch, false)?,
            },
            otlp_endpoint: self.get(Key::OtlpEndpoint, value::url_or_none, None)?,
            update: UpdateOptions {
                url: self.get(Key::UpdateUrl, value::url_or_none, None)?,
                check: self.get(Key::UpdateCheck, value::switch, false)?,
            },
            file: self.sources.file.clone(),
            file_named: self.sources.file_named,
            warnings: self.sources.warnings(),
            shown: Vec::new(),
            home,
        };
        config.shown = Key::ALL
            .into_iter()
            .map(|key| {
                let origin = self
                    .winning
                    .get(&key)
                    .map_or(Origin::Default, |(_, origin)| origin.clone());
                Shown {
                    key,
                    value: show(&config, key),
                    origin,
                }
            })
            .collect();
        Ok(config)
    }
}

/// A value in the form that the same setting accepts.
fn show(config: &Config, key: Key) -> String {
    fn auto(value: Option<impl ToString>) -> String {
        value.map_or_else(|| "auto".into(), |value| value.to_string())
    }
    let (engine, model) = (&config.engine, &config.engine.model);
    match key {
        Key::Host => config.host.to_string(),
        Key::Home => config.home.display().to_string(),
        Key::Model => config
            .model
            .clone()
            .unwrap_or_else(|| crate::ember::NAME.into()),
        Key::ModelsDir => config.models_dir.display().to_string(),
        Key::Hub => config.fetch.hub.clone(),
        Key::Offline => if config.fetch.offline { "on" } else { "off" }.into(),
        Key::ShareModels => if config.fetch.share { "on" } else { "off" }.into(),
        Key::Name => auto(config.mesh.name.as_ref()),
        Key::Addresses => match &config.mesh.addresses {
            None => "auto".into(),
            Some(none) if none.is_empty() => "none".into(),
            Some(some) => {
                let each: Vec<String> = some.iter().map(ToString::to_string).collect();
                each.join(",")
            }
        },
        Key::Relay => config.mesh.relay.clone().unwrap_or_else(|| "none".into()),
        Key::Mdns => if config.mesh.mdns { "on" } else { "off" }.into(),
        Key::DatabaseUrl => match &config.mesh.database {
            Some(url) => value::show_database(url),
            None => "none".into(),
        },
        Key::Context => auto(model.context),
        Key::Slots => model.slots.to_string(),
        Key::Threads => auto(model.threads),
        Key::GpuLayers => auto(model.gpu_layers),
        Key::Kv => value::show_kv(model.kv).into(),
        Key::FlashAttention => auto(
            model
                .flash_attention
                .map(|on| if on { "on" } else { "off" }),
        ),
        Key::ParkMemory => auto(model.park_bytes.map(value::show_size)),
        Key::MemoryBudget => auto(engine.memory_budget.map(value::show_size)),
        Key::KeepAlive => engine
            .keep_alive
            .map_or_else(|| "never".into(), value::show_duration),
        Key::QueueLimit => engine.queue_limit.to_string(),
        Key::LoadWait => value::show_duration(engine.load_wait),
        Key::Cpu => auto(engine.cpu.as_ref()),
        Key::LogLevel => auto(config.log.level.map(|level| level.to_string())),
        Key::LogFormat => config.log.format.name().into(),
        Key::LogFileSize => value::show_size(config.log.file_size),
        Key::LogFiles => config.log.files.to_string(),
        Key::LogPrompts => if config.log.prompts { "on" } else { "off" }.into(),
        Key::OtlpEndpoint => config
            .otlp_endpoint
            .clone()
            .unwrap_or_else(|| "none".into()),
        Key::UpdateUrl => config.update.url.clone().unwrap_or_else(|| "none".into()),
        Key::UpdateCheck => if config.update.check { "on" } else { "off" }.into(),
    }
}

pub use hearth_node::size as show_size;
pub use value::{duration, level as log_level, switch};

#[cfg(test)]
mod tests;
