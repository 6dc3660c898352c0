//! `hearth firewall`: the mesh's way through the rules of VPN clients.
//!
//! What is owed is reckoned and done in [`hearth_mesh::firewall`]; here people are asked and told, and the unit of the
//! watch is kept. The unit is the one that the Debian package brings, with this executable's path and flags in it.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::Command;

use clap::{Args, Subcommand};
use hearth_mesh::firewall::{
    Event, FirewallError, Interface, Nft, Plan, Settings, Watch, mesh_interfaces,
};
use serde_json::{Value, json};

use super::Context;
use crate::daemon::{self, State};
use crate::ember::write_atomically;
use crate::failure::{Failure, Outcome};
use crate::screen::{print, println};
use crate::service::word;

/// Port of a node whose own is not fixed.
const PORT: u16 = 8321;

/// The unit of the watch, as packages bring it.
const UNIT: &str = include_str!("../../../../packaging/debian/hearth-firewall.service");
/// Its name, and where one that Hearth writes lies.
const NAME: &str = "hearth-firewall.service";
const PLACE: &str = "/etc/systemd/system/hearth-firewall.service";
/// First line of a unit that Hearth wrote; another one is somebody else's.
const MARK: &str = "Written by `hearth firewall install --service`, which writes it anew.";
/// How the packaged unit calls this program.
const PACKAGED: &str = "/usr/bin/hearth";

/// Flags of `hearth firewall`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  sudo hearth firewall check
  sudo hearth firewall install
  sudo hearth firewall install --service
  sudo hearth firewall uninstall

Linux. VPN clients drop what does not go through their tunnel, also the traffic between your machines: Tailscale that of
100.64.0.0/10 on other interfaces, a killswitch (Mullvad, Proton, Nord, IVPN and others) everything. Hearth puts rules
before theirs that let its own port through on the interfaces of your mesh, and nothing else. Rules of your own firewall
are never touched: check says what they block and what opens it.")]
pub struct FirewallArgs {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show what is in the way and what would be done; change nothing
    #[command(after_help = "\
EXAMPLES
  sudo hearth firewall check
  sudo hearth firewall check --interface wg0 --json
  sudo hearth firewall check --interface eth0 --host :9000    a mesh on the LAN, with nodes on port 9000")]
    Check(Where),
    /// Put in the rules that are missing, after asking
    #[command(after_help = "\
EXAMPLES
  sudo hearth firewall install
  sudo hearth firewall install --interface wg0 --dry-run    print the commands of nft
  sudo hearth firewall install --yes                        ask nothing
  sudo hearth firewall install --service                    and keep them there: a unit of systemd

VPN clients write their rules anew when they reconnect, and Hearth's go with the old ones. The service puts them back
within seconds.")]
    Install(Install),
    /// Put the rules in, and again whenever a VPN client took them away
    #[command(after_help = "\
EXAMPLES
  sudo hearth firewall watch
  sudo hearth firewall watch --interface wg0 --interface eth0

Ends with SIGTERM or Ctrl-C and leaves the rules as they are then.")]
    Watch(Where),
    /// Remove Hearth's rules, and no other
    #[command(after_help = "\
EXAMPLES
  sudo hearth firewall uninstall
  sudo hearth firewall uninstall --dry-run
  sudo hearth firewall uninstall --service                  and the unit that keeps them there")]
    Uninstall(Uninstall),
}

#[derive(Debug, Args)]
struct Where {
    /// Interface that carries the mesh; may be said again [default: those of WireGuard, Tailscale, NetBird, ZeroTier]
    #[arg(long, value_name = "NAME", value_parser = interface)]
    interface: Vec<Interface>,
}

#[derive(Debug, Args)]
struct Install {
    #[command(flatten)]
    at: Where,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print what would be done and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep the rules there, with a service of systemd
    #[arg(long)]
    service: bool,
}

#[derive(Debug, Args)]
struct Uninstall {
    /// Print what would be done and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove the service, too
    #[arg(long)]
    service: bool,
}

fn interface(name: &str) -> Result<Interface, String> {
    name.parse()
        .map_err(|error: FirewallError| format!("{error}; {}", error.fix()))
}

impl FirewallArgs {
    /// Whether it runs on and logs.
    pub fn is_watch(&self) -> bool {
        matches!(self.command, What::Watch(_))
    }
}

/// Does it.
pub async fn run(context: &Context, args: &FirewallArgs) -> Outcome {
    match &args.command {
        What::Check(at) => check(context, at),
        What::Install(args) => install(context, args),
        What::Watch(at) => watch(context, at).await,
        What::Uninstall(args) => uninstall(context, args),
    }
}

fn failure(error: FirewallError) -> Failure {
    let fix = error.fix();
    Failure::new(error.to_string()).fix(fix)
}

impl Where {
    /// What is to pass now: interfaces that nobody named may come and go.
    fn settings(&self, context: &Context) -> Settings {
        let port = context.config.host.port;
        Settings {
            interfaces: match self.interface.is_empty() {
                true => mesh_interfaces(),
                false => self.interface.clone(),
            },
            port: if port == 0 { PORT } else { port },
        }
    }

    fn some(&self, context: &Context) -> Outcome<Settings> {
        let settings = self.settings(context);
        match settings.interfaces.is_empty() {
            true => Err(failure(FirewallError::NoInterface)),
            false => Ok(settings),
        }
    }
}

fn check(context: &Context, at: &Where) -> Outcome {
    let settings = at.some(context)?;
    let plan = Nft::new().plan(&settings).map_err(failure)?;
    if context.screen.json {
        println(&described(&plan, Some(&settings)).to_string());
        return Ok(());
    }
    let (port, screen) = (settings.port, &context.screen);
    let names: Vec<&str> = settings.interfaces.iter().map(Interface::as_str).collect();
    let names = names.join(", ");
    match (plan.is_settled(), plan.kept.len()) {
        (true, 0) => println(&format!("no VPN client blocks port {port} on {names}")),
        (true, count) => println(&format!(
            "port {port} is open on {names}: {count} rules of Hearth are in place"
        )),
        (false, _) => {
            println(&format!("in the way of port {port} on {names}:"));
            for place in blocking(&plan) {
                println(&format!("  {place}"));
            }
            print_script(&plan);
            println(&format!(
                "{}  sudo hearth firewall install",
                screen.dim("to do that")
            ));
        }
    }
    print_findings(&plan);
    Ok(())
}

/// Chains that rules are owed in.
fn blocking(plan: &Plan) -> Vec<String> {
    let mut places: Vec<String> = plan
        .owed
        .iter()
        .map(|rule| rule.place.to_string())
        .collect();
    places.dedup();
    places
}

fn print_script(plan: &Plan) {
    for line in plan.script().lines() {
        println(&format!("  nft '{line}'"));
    }
}

fn print_findings(plan: &Plan) {
    for finding in &plan.blocked_by_owner {
        println(&format!(
            "your own firewall ({}) blocks {}; to open it, if you want to:",
            finding.place,
            finding.blocked.join(", ")
        ));
        for command in &finding.commands {
            println(&format!("  {command}"));
        }
    }
}

fn described(plan: &Plan, settings: Option<&Settings>) -> Value {
    let commands: Vec<String> = plan.script().lines().map(ToOwned::to_owned).collect();
    let mut answer = json!({
        "settled": plan.is_settled(),
        "commands": commands,
        "owed": plan.owed,
        "kept": plan.kept,
        "surplus": plan.surplus,
        "blocked_by_owner": plan.blocked_by_owner,
    });
    if let Some(settings) = settings {
        let names: Vec<&str> = settings.interfaces.iter().map(Interface::as_str).collect();
        answer["interfaces"] = json!(names);
        answer["port"] = settings.port.into();
    }
    answer
}

fn install(context: &Context, args: &Install) -> Outcome {
    // A service waits for interfaces that are not there yet.
    let settings = match args.service {
        true => args.at.settings(context),
        false => args.at.some(context)?,
    };
    let unit = match args.service {
        true => Some(unit(context, &args.at)?),
        false => None,
    };
    let nft = Nft::new();
    let plan = nft.plan(&settings).map_err(failure)?;
    let screen = &context.screen;
    if args.dry_run {
        if screen.json {
            let mut answer = described(&plan, Some(&settings));
            answer["unit"] = json!(unit);
            println(&answer.to_string());
            return Ok(());
        }
        print(&plan.script());
        if let Some(unit) = unit {
            println(&format!("# {PLACE}\n{}", unit.trim_end()));
        }
        return Ok(());
    }
    if !plan.is_settled() || unit.is_some() {
        if !screen.json && !args.yes {
            println("this is to be done:");
            print_script(&plan);
            if unit.is_some() {
                println(&format!("  {NAME}, which keeps the rules there"));
            }
        }
        confirm(args.yes)?;
    }
    let done = nft.install(&settings).map_err(failure)?;
    if let Some(unit) = &unit {
        start(unit)?;
    }
    if screen.json {
        let mut answer = described(&done, Some(&settings));
        answer["service"] = unit.is_some().into();
        println(&answer.to_string());
        return Ok(());
    }
    match (done.owed.len(), done.surplus.len()) {
        (0, 0) => println("nothing was missing"),
        (put, 0) => println(&format!("put in {put} rules")),
        (put, gone) => println(&format!("put in {put} rules, removed {gone} old ones")),
    }
    print_findings(&done);
    match unit.is_some() {
        true => println(&format!(
            "{NAME} keeps them there: journalctl --unit {NAME}"
        )),
        false if !done.owed.is_empty() => println(
            "they last until a VPN client reconnects or the machine restarts; to keep them: sudo hearth firewall \
             install --service",
        ),
        false => {}
    }
    println(&format!(
        "{}  sudo hearth firewall uninstall{}",
        screen.dim("undo"),
        if unit.is_some() { " --service" } else { "" }
    ));
    Ok(())
}

/// Puts in what is missing, for `hearth doctor --fix`.
pub fn mend(context: &Context, yes: bool) -> Outcome {
    let at = Where {
        interface: Vec::new(),
    };
    let args = Install {
        at,
        yes,
        dry_run: false,
        service: false,
    };
    install(context, &args)
}

/// Whether the owner wants it.
fn confirm(yes: bool) -> Outcome {
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage(
            "this changes the firewall and asks first, and nobody is here to ask",
        )
        .fix("say --yes, or --dry-run to see what it would do"));
    }
    eprint!("Do it? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    match read.is_ok() && ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        true => Ok(()),
        false => Err(Failure::new("nothing was changed")),
    }
}

async fn watch(context: &Context, at: &Where) -> Outcome {
    context.warn();
    let now = at.settings(context);
    let interfaces = now.interfaces.iter().map(Interface::as_str);
    let interfaces = interfaces.collect::<Vec<_>>().join(", ");
    tracing::info!(interfaces, port = now.port, "watching the firewall");
    // Registered before the watch begins: a signal in between must count.
    let interrupted = daemon::interrupted();
    let watch = Watch::new(Nft::new());
    let stop = watch.stop();
    let named = Where {
        interface: at.interface.clone(),
    };
    let port = now.port;
    let settings = move || match named.interface.is_empty() {
        true => Settings {
            interfaces: mesh_interfaces(),
            port,
        },
        false => Settings {
            interfaces: named.interface.clone(),
            port,
        },
    };
    let mut running = tokio::task::spawn_blocking(move || watch.run(settings, log));
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = interrupted => {
            daemon::tell_systemd(State::Stopping);
            stop.stop();
            running.await
        }
    };
    tracing::info!("stopped; the rules stay");
    match ended {
        Ok(watched) => watched.map_err(failure),
        Err(error) => Err(Failure::new(format!("the watch failed: {error}"))),
    }
}

fn log(event: Event) {
    match event {
        Event::Ready => {
            tracing::info!("what the mesh needs is in the firewall");
            daemon::tell_systemd(State::Ready);
        }
        Event::Repaired(plan) => {
            tracing::info!(
                put = plan.owed.len(),
                removed = plan.surplus.len(),
                chains = blocking(&plan).join(", "),
                "put in what was missing"
            );
            for line in plan.script().lines() {
                tracing::debug!("{line}");
            }
        }
        Event::Failed(error) => {
            tracing::error!(fix = error.fix(), "{error}; the next look comes");
        }
        Event::Recovered => tracing::info!("the firewall can be seen to again"),
    }
}

fn uninstall(context: &Context, args: &Uninstall) -> Outcome {
    let (nft, screen) = (Nft::new(), &context.screen);
    if args.dry_run {
        let ruleset = nft.ruleset().map_err(failure)?;
        let plan = Plan::removal(&ruleset);
        match screen.json {
            true => println(&described(&plan, None).to_string()),
            false => {
                print(&plan.script());
                if args.service && Path::new(PLACE).exists() {
                    println(&format!("# remove {PLACE}"));
                }
            }
        }
        return Ok(());
    }
    let removed = match args.service {
        true => stop()?,
        false => false,
    };
    let done = nft.uninstall().map_err(failure)?;
    if screen.json {
        let mut answer = described(&done, None);
        answer["service_removed"] = removed.into();
        println(&answer.to_string());
        return Ok(());
    }
    if removed {
        println(&format!("stopped and removed {NAME}"));
    }
    match done.surplus.len() {
        0 if removed => println("no rule of Hearth is left"),
        0 => println("there was no rule of Hearth"),
        count => println(&format!("removed {count} rules of Hearth")),
    }
    // While the unit itself stops it is no longer active.
    if systemctl(&["is-active", "--quiet", NAME]).is_ok() {
        println(&format!(
            "{NAME} runs and puts them back: sudo hearth firewall uninstall --service"
        ));
    }
    Ok(())
}

/// The unit as this command line wants it.
fn unit(context: &Context, at: &Where) -> Outcome<String> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(format!("cannot find this executable: {error}")))?;
    if ["/home", "/root"]
        .iter()
        .any(|folder| program.starts_with(folder))
    {
        return Err(Failure::new(format!(
            "a service of the machine cannot reach {}",
            program.display()
        ))
        .fix(format!(
            "install the program for everybody and call that: sudo install -m 755 {} /usr/local/bin/ && sudo \
             /usr/local/bin/hearth firewall install --service",
            program.display()
        )));
    }
    if let Ok(text) = std::fs::read_to_string(PLACE)
        && !text.contains(MARK)
    {
        return Err(Failure::new(format!("{PLACE} was not written by hearth"))
            .fix("move it away, or change it yourself"));
    }
    let host = context.global.host.as_ref();
    let config = context.global.config.as_ref();
    let flags = [
        host.map(|host| format!("--host={host}")),
        config.map(|file| format!("--config={}", file.display())),
    ];
    let interfaces = at
        .interface
        .iter()
        .map(|name| format!("--interface={name}"));
    let flags: Vec<String> = flags.into_iter().flatten().chain(interfaces).collect();
    Ok(written(&program, &flags))
}

/// The packaged unit with another program and flags.
fn written(program: &Path, flags: &[String]) -> String {
    let program = word(&program.display().to_string(), true);
    let flags: String = flags
        .iter()
        .map(|flag| format!(" {}", word(flag, true)))
        .collect();
    let rest = UNIT.split_once('\n').map_or("", |(_, rest)| rest);
    let rest = rest
        .replace(
            &format!("ExecStart={PACKAGED} firewall watch\n"),
            &format!("ExecStart={program} firewall watch{flags}\n"),
        )
        .replace(
            &format!("ExecStopPost={PACKAGED} "),
            &format!("ExecStopPost={program} "),
        );
    format!("# {MARK} Your own changes: sudo systemctl edit hearth-firewall\n{rest}")
}

/// Makes systemd run the unit as it is now.
fn start(unit: &str) -> Outcome {
    let changed = std::fs::read_to_string(PLACE).ok().as_deref() != Some(unit);
    if changed {
        write_atomically(Path::new(PLACE), unit.as_bytes())
            .map_err(|failure| failure.fix("the service is root's to install: use sudo"))?;
    }
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", NAME])?;
    systemctl(&[if changed { "restart" } else { "start" }, NAME])
}

/// Stops the unit and removes it, if Hearth wrote it; one of a package is only switched off. Whether there was any.
fn stop() -> Outcome<bool> {
    let known = systemctl(&["cat", NAME]).is_ok();
    if known {
        systemctl(&["disable", "--now", NAME])?;
    }
    let ours = std::fs::read_to_string(PLACE).is_ok_and(|text| text.contains(MARK));
    if ours {
        std::fs::remove_file(PLACE).map_err(|error| {
            Failure::file("remove", Path::new(PLACE), &error, "remove it yourself")
        })?;
        systemctl(&["daemon-reload"])?;
    }
    Ok(known || ours)
}

/// The seam to systemd.
fn systemctl(arguments: &[&str]) -> Outcome {
    let shown = format!("systemctl {}", arguments.join(" "));
    let output = Command::new("systemctl").args(arguments).output();
    let output = output.map_err(|error| {
        Failure::new(format!("`{shown}` did not run: {error}"))
            .fix("without systemd, let your system run `hearth firewall watch` as root")
    })?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            Err(Failure::new(format!("`{shown}` failed: {said}"))
                .fix(format!("see journalctl --unit {NAME}")))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_unit_is_the_packaged_one_with_this_program_and_its_flags() {
        let flags = ["--interface=wg0".to_owned(), "--host=:9000".to_owned()];
        let text = written(Path::new("/opt/my tools/hearth"), &flags);
        for line in [
            "ExecStart=\"/opt/my tools/hearth\" firewall watch --interface=wg0 --host=:9000",
            "ExecStopPost=\"/opt/my tools/hearth\" firewall uninstall",
            "Type=notify",
            "Restart=always",
            "CapabilityBoundingSet=CAP_NET_ADMIN",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert!(text.starts_with(&format!("# {MARK}")) && !text.contains(PACKAGED));
        assert!(!UNIT.contains(MARK), "hearth would think it wrote it");
        let same = written(Path::new(PACKAGED), &[]);
        let after_first = |text: &str| text.split_once('\n').unwrap().1.to_owned();
        assert_eq!(after_first(&same), after_first(UNIT));
    }

    #[test]
    fn systemd_takes_the_unit_and_finds_it_confined() {
        let there = Command::new("systemd-analyze").arg("--version").output();
        if !there.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: systemd-analyze is not here");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        // It looks for the program, too.
        std::fs::write(&path, written(&std::env::current_exe().unwrap(), &[])).unwrap();
        let mut verify = Command::new("systemd-analyze");
        let output = verify.args(["verify", "--man=no"]).arg(&path).output();
        let said = String::from_utf8_lossy(&output.unwrap().stderr).into_owned();
        assert!(!said.contains(NAME), "{said}");
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", "--threshold=20"]);
        let output = security.arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "exposed by more than 2.0: {said}");
    }

    #[test]
    fn what_is_no_interface_is_refused_with_the_fix() {
        assert_eq!(interface("wg0").unwrap().as_str(), "wg0");
        let told = interface("wg*").unwrap_err();
        assert!(told.contains("`wg*`") && told.contains("ip link"), "{told}");
    }
}
