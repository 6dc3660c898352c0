//! Hearth as a service of the system: the text of its unit, and what to say to the service manager. Pure: the command
//! `hearth service` does the writing and the calling.

mod launchd;
mod systemd;

use std::path::{Path, PathBuf};

pub use systemd::word;

/// First line of every unit that Hearth writes; a unit without it is somebody else's.
pub const MARK: &str = "Written by `hearth service install`, which writes it anew.";

/// Who owns the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The user who installs it.
    User,
    /// The machine. It runs as this user, or as one that the manager makes up.
    System(Option<String>),
}

/// A node that a service manager starts.
#[derive(Debug, Clone)]
pub struct Service {
    /// Whose it is.
    pub owner: Owner,
    /// The executable.
    pub program: PathBuf,
    /// Folder of everything Hearth keeps.
    pub home: PathBuf,
    /// Settings that do not come from the configuration file: flags without dashes, and their values.
    pub flags: Vec<(&'static str, String)>,
    /// For an executable that drives a GPU, the groups that may: it takes devices and memory that the CPU code does not.
    pub gpu: Option<Vec<&'static str>>,
}

impl Service {
    /// The command line that the manager runs.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            self.program.display().to_string(),
            "serve".into(),
            "--log-to-file".into(),
        ];
        let home = format!("--home={}", self.home.display());
        arguments.push(home);
        let flags = self.flags.iter();
        arguments.extend(flags.map(|(name, value)| format!("--{name}={value}")));
        arguments
    }
}

/// What keeps services on this system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// On most of Linux.
    Systemd,
    /// On macOS.
    Launchd,
}

/// One program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its name, looked up in `PATH`.
    pub program: &'static str,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Whether it may fail without harm, such as stopping what does not run.
    pub may_fail: bool,
}

impl Call {
    fn new<const N: usize>(program: &'static str, arguments: [&str; N]) -> Self {
        Self {
            program,
            arguments: arguments.map(str::to_owned).to_vec(),
            may_fail: false,
        }
    }

    fn may_fail(mut self) -> Self {
        self.may_fail = true;
        self
    }

    /// As a person would type it.
    pub fn shown(&self) -> String {
        format!("{} {}", self.program, self.arguments.join(" "))
    }
}

/// What the manager says about the service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Whether it starts by itself.
    pub enabled: bool,
    /// Whether it runs.
    pub active: bool,
    /// The manager's own words for it.
    pub words: String,
    /// Process id of the node.
    pub pid: Option<u32>,
    /// The unit that the manager knows, which may have come with a package.
    pub unit: Option<PathBuf>,
}

impl Manager {
    /// The one of this system, or why there is none and what does the same; `program` is this executable.
    pub fn of(system: &str, program: &Path) -> Result<Self, (String, String)> {
        match system {
            "linux" => Ok(Self::Systemd),
            "macos" => Ok(Self::Launchd),
            "windows" => Err((
                "hearth service does not know the services of Windows".into(),
                format!(
                    "let the Task Scheduler start it at logon: schtasks /Create /SC ONLOGON /TN Hearth /TR \
                     \"\\\"{}\\\" serve --log-to-file\"",
                    program.display()
                ),
            )),
            other => Err((
                format!("hearth service does not know the services of {other}"),
                "let its own service manager run `hearth serve --log-to-file`".into(),
            )),
        }
    }

    /// Name of the service.
    pub fn name(self) -> &'static str {
        match self {
            Self::Systemd => systemd::NAME,
            Self::Launchd => launchd::LABEL,
        }
    }

    /// Home of a service of the machine.
    pub fn system_home(self) -> &'static Path {
        Path::new(match self {
            Self::Systemd => "/var/lib/hearth",
            Self::Launchd => "/usr/local/var/hearth",
        })
    }

    /// Where the unit lies; `configuration` and `user_home` are the user's folders.
    pub fn unit(self, owner: &Owner, configuration: &Path, user_home: &Path) -> PathBuf {
        match (self, owner) {
            (Self::Systemd, Owner::User) => configuration.join("systemd/user").join(systemd::NAME),
            (Self::Systemd, Owner::System(_)) => {
                Path::new("/etc/systemd/system").join(systemd::NAME)
            }
            (Self::Launchd, Owner::User) => {
                user_home.join("Library/LaunchAgents").join(launchd::FILE)
            }
            (Self::Launchd, Owner::System(_)) => {
                Path::new("/Library/LaunchDaemons").join(launchd::FILE)
            }
        }
    }

    /// Text of the unit.
    pub fn text(self, service: &Service) -> String {
        match self {
            Self::Systemd => systemd::unit(service),
            Self::Launchd => launchd::property_list(service),
        }
    }

    /// Asks for the [state](Self::state). `uid` is the user's number.
    pub fn question(self, owner: &Owner, uid: &str) -> Call {
        match self {
            Self::Systemd => systemd::question(owner),
            Self::Launchd => launchd::question(owner, uid),
        }
    }

    /// Reads the answer; a question that failed has an empty one.
    pub fn state(self, answer: &str) -> State {
        match self {
            Self::Systemd => systemd::state(answer),
            Self::Launchd => launchd::state(answer),
        }
    }

    /// Makes the manager see the unit and run it as it is now.
    pub fn start(self, service: &Service, uid: &str, unit: &Path, was: &State) -> Vec<Call> {
        match self {
            Self::Systemd => systemd::start(&service.owner, was),
            Self::Launchd => launchd::start(service, uid, unit),
        }
    }

    /// Stops it and lets the manager forget it; the unit is removed between the two lists.
    pub fn stop(self, owner: &Owner, uid: &str) -> [Vec<Call>; 2] {
        match self {
            Self::Systemd => systemd::stop(owner),
            Self::Launchd => launchd::stop(owner, uid),
        }
    }

    /// How to read what the process said outside of its log.
    pub fn journal(self, owner: &Owner) -> &'static str {
        match (self, owner) {
            (Self::Systemd, Owner::User) => "journalctl --user --unit hearth",
            (Self::Systemd, Owner::System(_)) => "sudo journalctl --unit hearth",
            (Self::Launchd, _) => "the file node.err beside the log",
        }
    }
}

#[cfg(test)]
mod tests;
