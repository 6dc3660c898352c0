//! `hearth service`: a node that the system starts, restarts and stops.
//!
//! What is written and said is decided in [`crate::service`]; here it is done. The manager's own program is the only way
//! to it, so that a test can put another one into `PATH`.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use crate::addressed;
use crate::config::{Key, Origin, folders};
use crate::ember::write_atomically;
use crate::failure::{Failure, Outcome};
use crate::flags::Tuning;
use crate::screen::println;
use crate::service::{Call, MARK, Manager, Owner, Service, State};

/// Flags of `hearth service`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth service install
  hearth service install --model qwen3-4b --dry-run
  sudo hearth service install --system
  hearth service status
  hearth service remove

systemd on Linux, launchd on macOS. The node logs to its home: hearth logs --follow")]
pub struct ServiceArgs {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Install the service, or bring an installed one up to date, and start it
    #[command(after_help = "\
EXAMPLES
  hearth service install
  hearth service install --slots 8 --memory-budget 16GiB
  hearth service install --dry-run                         print the unit, do nothing
  sudo hearth service install --system                     of the machine, confined, home in /var/lib/hearth
  sudo hearth service install --system --user ada --models-dir /srv/models

What flags and HEARTH_* variables say is written into the unit. What the configuration file says is read at each start:
yours, or with --system /etc/hearth/config.toml.")]
    Install(Box<InstallArgs>),
    /// Stop the service and take it away; models and logs stay
    #[command(after_help = "\
EXAMPLES
  hearth service remove
  sudo hearth service remove --system")]
    Remove(Whose),
    /// Show whether it is installed, starts by itself, and runs
    #[command(after_help = "\
EXAMPLES
  hearth service status
  hearth service status --system --json")]
    Status(Whose),
}

#[derive(Debug, Args)]
struct Whose {
    /// The machine's service, not yours
    #[arg(long)]
    system: bool,
}

#[derive(Debug, Args)]
struct InstallArgs {
    #[command(flatten)]
    whose: Whose,
    /// User whom a service of the machine runs as [default: one that systemd makes up]
    #[arg(long, value_name = "NAME", requires = "system")]
    user: Option<String>,
    /// Print the unit and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    tuning: Tuning,
}

impl ServiceArgs {
    /// The settings of the node, as a configuration layer.
    pub fn layer(&self) -> Vec<(Key, String)> {
        match &self.command {
            What::Install(args) => args.tuning.layer(),
            _ => Vec::new(),
        }
    }
}

/// Does it.
pub async fn run(context: &Context, args: &ServiceArgs) -> Outcome {
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(format!("cannot find this executable: {error}")))?;
    let manager = Manager::of(std::env::consts::OS, &program)
        .map_err(|(message, fix)| Failure::new(message).fix(fix))?;
    match &args.command {
        What::Install(args) => install(context, args, manager, program).await,
        What::Remove(whose) => Place::find(manager, whose.owner(None))?.remove(context),
        What::Status(whose) => Place::find(manager, whose.owner(None))?.status(context),
    }
}

impl Whose {
    fn owner(&self, user: Option<String>) -> Owner {
        match self.system {
            true => Owner::System(user),
            false => Owner::User,
        }
    }
}

async fn install(
    context: &Context,
    args: &InstallArgs,
    manager: Manager,
    program: PathBuf,
) -> Outcome {
    let owner = args.whose.owner(args.user.clone());
    if manager == Manager::Launchd && owner == Owner::System(None) {
        return Err(
            Failure::usage("launchd makes up no user for a service of the machine")
                .fix("name one that is not an administrator: --user NAME"),
        );
    }
    let place = Place::find(manager, owner)?;
    let service = service(context, manager, place.owner.clone(), program);
    let text = manager.text(&service);
    if args.dry_run {
        match context.screen.json {
            true => println(&json!({"unit": place.unit, "text": text}).to_string()),
            false => println(&format!("# {}\n{}", place.unit.display(), text.trim_end())),
        }
        return Ok(());
    }
    place.may_be_written(&service)?;
    let was = place.state()?;
    if !was.active
        && let Ok((client, status)) = addressed::running(&context.config).await
    {
        return Err(Failure::new(format!(
            "a node runs at {} already (pid {}), and would be in the service's way",
            client.place(),
            status.pid
        ))
        .fix("stop it first: hearth stop"));
    }
    let before = std::fs::read(&place.unit).ok();
    let changed = before.as_deref() != Some(text.as_bytes());
    if changed {
        write_atomically(&place.unit, text.as_bytes()).map_err(|failure| place.denied(failure))?;
    }
    if changed || !was.active || !was.enabled {
        for call in manager.start(&service, &place.uid, &place.unit, &was) {
            if let Err(failure) = run_call(&call) {
                return Err(place.give_up(&call, failure, before.as_deref()));
            }
        }
    }
    place.installed(context, changed, &place.state()?);
    Ok(())
}

/// The service as this command line and this environment want it.
fn service(context: &Context, manager: Manager, owner: Owner, program: PathBuf) -> Service {
    let config = &context.config;
    let of_user = owner == Owner::User;
    // What the file says is read again at each start. The environment of whoever calls `sudo` is not the machine's.
    let said = |origin: &Origin| match origin {
        Origin::Flag(_) => true,
        Origin::Environment(_) => of_user,
        Origin::File(..) | Origin::Default => false,
    };
    let home = match of_user || said(config.origin(Key::Home)) {
        true => config.home.clone(),
        false => manager.system_home().to_owned(),
    };
    let mut flags: Vec<(&'static str, String)> = config
        .shown
        .iter()
        .filter(|shown| shown.key != Key::Home && said(&shown.origin))
        .map(|shown| (shown.key.flag(), shown.value.clone()))
        .collect();
    if config.file_named && (of_user || context.global.config.is_some()) {
        flags.push(("config", config.file.display().to_string()));
    }
    Service {
        owner,
        program,
        home,
        flags,
        gpu: cfg!(any(feature = "cuda", feature = "metal", feature = "vulkan")).then(gpu_groups),
    }
}

/// Groups that own the devices of GPUs on Linux, as far as this system has them: a unit with another does not start.
fn gpu_groups() -> Vec<&'static str> {
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let is_here = |name: &&str| {
        let mut names = groups.lines().filter_map(|line| line.split(':').next());
        names.any(|other| other == *name)
    };
    ["render", "video"].into_iter().filter(is_here).collect()
}

/// Where a service is kept.
struct Place {
    manager: Manager,
    owner: Owner,
    unit: PathBuf,
    /// The user's number, as the manager wants it.
    uid: String,
}

impl Place {
    fn find(manager: Manager, owner: Owner) -> Outcome<Self> {
        let (configuration, user_home) = folders()?;
        if owner == Owner::User && std::env::var_os("SUDO_USER").is_some() {
            return Err(
                Failure::usage("with sudo this would be a service of the user root")
                    .fix("leave sudo away, or say --system for a service of the machine"),
            );
        }
        Ok(Self {
            unit: manager.unit(&owner, &configuration, &user_home),
            uid: match manager {
                Manager::Systemd => String::new(),
                Manager::Launchd => ask("id", &["-u"]).unwrap_or_default(),
            },
            manager,
            owner,
        })
    }

    fn state(&self) -> Outcome<State> {
        let call = self.manager.question(&self.owner, &self.uid);
        match (run_call(&call), self.manager) {
            (Ok(answer), _) => Ok(self.manager.state(&answer)),
            // It fails when there is nothing to print.
            (Err(CallError::Failed(_)), Manager::Launchd) => Ok(self.manager.state("")),
            (Err(error), _) => Err(self.failure(&call, error)),
        }
    }

    /// Nothing of somebody else's is written over, and nothing is installed that could not start.
    fn may_be_written(&self, service: &Service) -> Outcome {
        if let Ok(text) = std::fs::read_to_string(&self.unit)
            && !text.contains(MARK)
        {
            return Err(
                Failure::new(format!("{} was not written by hearth", self.unit.display()))
                    .fix("move it away, or change it yourself"),
            );
        }
        if let Owner::System(user) = &self.owner
            && self.manager == Manager::Systemd
            && service.home != self.manager.system_home()
            && !service.home.is_dir()
        {
            let user = user.as_deref().unwrap_or("USER");
            return Err(
                Failure::new(format!("the folder {} is not there", service.home.display())).fix(format!(
                    "make it for the user whom the service runs as: sudo install -d -o {user} -m 700 {}",
                    service.home.display()
                )),
            );
        }
        let (_, user_home) = folders()?;
        let private = [user_home.as_path(), Path::new("/home"), Path::new("/root")];
        if self.owner == Owner::System(None)
            && private
                .iter()
                .any(|folder| service.program.starts_with(folder))
        {
            return Err(Failure::new(format!(
                "a service of the machine cannot reach {}",
                service.program.display()
            ))
            .fix(format!(
                "install the program for everybody and call that: sudo install -m 755 {} /usr/local/bin/ && \
                 sudo /usr/local/bin/hearth service install --system",
                service.program.display()
            )));
        }
        Ok(())
    }

    fn failure(&self, call: &Call, error: CallError) -> Failure {
        match error {
            CallError::Missing => Failure::new(format!(
                "{} is not here: this system keeps its services in another way",
                call.program
            ))
            .fix("let that run `hearth serve --log-to-file`, or use hearth up --detach"),
            CallError::Failed(said) => {
                let failure = Failure::new(format!("`{}` failed: {said}", call.shown()));
                // systemd's words for a user without a session of their own.
                if said.contains("connect to bus") && self.owner == Owner::User {
                    failure.fix(
                        "log in as this user (su and sudo do not), or install for the machine: sudo hearth service \
                         install --system",
                    )
                } else {
                    failure.fix(format!(
                        "see hearth logs, and {}",
                        self.manager.journal(&self.owner)
                    ))
                }
            }
        }
    }

    /// Puts back what was there, if the manager did not even take the unit.
    fn give_up(&self, call: &Call, error: CallError, before: Option<&[u8]>) -> Failure {
        let taken = call
            .arguments
            .iter()
            .any(|word| word == "start" || word == "restart" || word == "bootstrap");
        let failure = self.failure(call, error);
        if taken {
            return Failure {
                message: format!(
                    "the service is installed and does not start: {}",
                    failure.message
                ),
                ..failure
            };
        }
        let _ = match before {
            Some(text) => std::fs::write(&self.unit, text),
            None => std::fs::remove_file(&self.unit),
        };
        failure
    }

    fn denied(&self, failure: Failure) -> Failure {
        match self.owner {
            Owner::User => failure,
            Owner::System(_) => {
                failure.fix("a service of the machine is root's to install: use sudo")
            }
        }
    }

    fn command(&self, name: &str) -> String {
        match self.owner {
            Owner::User => format!("hearth service {name}"),
            Owner::System(_) => format!("sudo hearth service {name} --system"),
        }
    }

    fn installed(&self, context: &Context, changed: bool, state: &State) {
        let screen = &context.screen;
        if screen.json {
            let mut answer = self.described(state);
            answer["changed"] = changed.into();
            println(&answer.to_string());
            return;
        }
        let did = if changed { "wrote" } else { "unchanged:" };
        println(&format!("{did} {}", self.unit.display()));
        let pid = state
            .pid
            .map_or_else(String::new, |pid| format!(" (pid {pid})"));
        println(&format!("{} is {}{pid}", self.manager.name(), state.words));
        let logs = match self.owner {
            Owner::User => "hearth logs --follow".to_owned(),
            Owner::System(_) => format!(
                "sudo hearth logs --follow --home {}",
                self.manager.system_home().display()
            ),
        };
        for (what, how) in [
            ("logs", logs),
            ("status", self.command("status")),
            ("remove", self.command("remove")),
        ] {
            println(&format!("  {}  {how}", screen.dim(&format!("{what:<6}"))));
        }
        if let Some(hint) = self.linger() {
            println(&hint);
        }
    }

    /// A user's services end with the user's last session, unless they linger.
    fn linger(&self) -> Option<String> {
        if self.manager != Manager::Systemd || self.owner != Owner::User {
            return None;
        }
        let user = ask("id", &["-un"])?;
        let lingers = Path::new("/var/lib/systemd/linger").join(user).exists();
        (!lingers).then(|| {
            "It runs while you are logged in. To let it run always: loginctl enable-linger".into()
        })
    }

    fn remove(&self, context: &Context) -> Outcome {
        let there = std::fs::read_to_string(&self.unit).ok();
        if there.as_ref().is_some_and(|text| !text.contains(MARK)) {
            return Err(
                Failure::new(format!("{} was not written by hearth", self.unit.display()))
                    .fix("remove it in the way it came"),
            );
        }
        if there.is_some() {
            let [before, after] = self.manager.stop(&self.owner, &self.uid);
            let all = |calls: &[Call]| {
                calls.iter().try_for_each(|call| {
                    let ran = run_call(call).map(drop);
                    ran.map_err(|error| self.failure(call, error))
                })
            };
            all(&before)?;
            std::fs::remove_file(&self.unit).map_err(|error| {
                self.denied(Failure::file(
                    "remove",
                    &self.unit,
                    &error,
                    "remove it yourself",
                ))
            })?;
            all(&after)?;
        }
        let removed = there.is_some();
        match (context.screen.json, removed) {
            (true, _) => println(&json!({"removed": removed, "unit": self.unit}).to_string()),
            (false, true) => println(&format!(
                "stopped {} and removed {}; models and logs are where they were",
                self.manager.name(),
                self.unit.display()
            )),
            (false, false) => println(&format!("there is no service at {}", self.unit.display())),
        }
        Ok(())
    }

    fn described(&self, state: &State) -> serde_json::Value {
        json!({
            "service": self.manager.name(),
            "unit": state.unit.as_ref().unwrap_or(&self.unit),
            "installed": state.unit.is_some() || self.unit.is_file(),
            "enabled": state.enabled,
            "active": state.active,
            "state": state.words,
            "pid": state.pid,
        })
    }

    fn status(&self, context: &Context) -> Outcome {
        let (state, screen) = (self.state()?, &context.screen);
        if screen.json {
            println(&self.described(&state).to_string());
            return Ok(());
        }
        let answer = |yes: bool| if yes { "yes" } else { "no" };
        let installed = match &state.unit {
            Some(unit) => unit.display().to_string(),
            None if self.unit.is_file() => self.unit.display().to_string(),
            None => format!("no; {}", self.command("install")),
        };
        let active = match state.pid {
            Some(pid) => format!("{}, pid {pid}", state.words),
            None => state.words.clone(),
        };
        for (what, value) in [
            ("installed", installed.as_str()),
            ("enabled", answer(state.enabled)),
            ("active", &active),
        ] {
            println(&format!("{} {value}", screen.dim(&format!("{what:<9}"))));
        }
        Ok(())
    }
}

/// Why a call gave no answer.
enum CallError {
    /// There is no such program.
    Missing,
    /// It failed, and said this.
    Failed(String),
}

/// The seam to the service manager.
fn run_call(call: &Call) -> Result<String, CallError> {
    let output = match Command::new(call.program).args(&call.arguments).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(CallError::Missing);
        }
        Err(error) => return Err(CallError::Failed(error.to_string())),
    };
    if output.status.success() || call.may_fail {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    Err(CallError::Failed(match said.is_empty() {
        true => output.status.to_string(),
        false => said.join(" "),
    }))
}

/// The first line that a program prints, if it succeeds.
fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next().unwrap_or_default().trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}
