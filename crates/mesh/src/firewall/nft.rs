//! The program `nft`: reads the ruleset and runs scripts on it, each in one transaction.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use super::plan::Plan;
use super::ruleset::Ruleset;
use super::{FirewallError, Interface, Settings};

/// Where systems keep nft for those whose `PATH` does not lead there.
const PLACES: [&str; 4] = ["nft", "/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft"];

/// How often a change of somebody else's between the look and the change is taken.
const ATTEMPTS: usize = 5;

/// How to reach nft.
#[derive(Debug, Clone, Default)]
pub struct Nft {
    /// What runs it, such as `ip netns exec NAME`.
    through: Vec<String>,
}

impl Nft {
    /// The firewall of the network namespace of this process.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another firewall: `command` runs what is put behind it there, such as `["ip", "netns", "exec", "kitchen"]`.
    pub fn through<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            through: command.into_iter().map(Into::into).collect(),
        }
    }

    /// The ruleset as it is.
    ///
    /// # Errors
    /// When nft is absent, not allowed, or not understood.
    pub fn ruleset(&self) -> Result<Ruleset, FirewallError> {
        // Terse: named sets may hold a hundred thousand addresses, and none is looked up.
        let listed = self.run(&["-j", "-t", "list", "ruleset"], None)?;
        Ok(Ruleset::parse(&listed)?)
    }

    /// What the ruleset owes now.
    ///
    /// # Errors
    /// As [`Nft::ruleset`].
    pub fn plan(&self, settings: &Settings) -> Result<Plan, FirewallError> {
        Ok(Plan::of(&self.ruleset()?, settings))
    }

    /// Does what the plan says, all or nothing.
    ///
    /// # Errors
    /// [`FirewallError::Restless`] if the chains are not what they were when the plan was made; otherwise as
    /// [`Nft::ruleset`].
    pub fn apply(&self, plan: &Plan) -> Result<(), FirewallError> {
        let script = plan.script();
        if script.is_empty() {
            return Ok(());
        }
        let done = self.run(&["-f", "-"], Some(&script));
        done.map(drop).map_err(|error| match error {
            FirewallError::Failed { said, .. } if said.contains("No such file or directory") => {
                FirewallError::Restless(said)
            }
            other => other,
        })
    }

    /// Puts in what is owed and says what that was.
    ///
    /// # Errors
    /// As [`Nft::apply`].
    pub fn install(&self, settings: &Settings) -> Result<Plan, FirewallError> {
        self.settle(|ruleset| Plan::of(ruleset, settings))
    }

    /// Removes every rule of ours and says what that was.
    ///
    /// # Errors
    /// As [`Nft::apply`].
    pub fn uninstall(&self) -> Result<Plan, FirewallError> {
        self.settle(Plan::removal)
    }

    fn settle(&self, plan: impl Fn(&Ruleset) -> Plan) -> Result<Plan, FirewallError> {
        let mut attempts = 1;
        loop {
            let plan = plan(&self.ruleset()?);
            match self.apply(&plan) {
                Ok(()) => return Ok(plan),
                Err(FirewallError::Restless(_)) if attempts < ATTEMPTS => attempts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts `nft monitor`, which prints a line or more whenever the ruleset changes.
    pub(super) fn monitor(&self) -> Result<Child, FirewallError> {
        self.spawn(&["monitor"], Stdio::null(), Stdio::null())
    }

    fn run(&self, arguments: &[&str], input: Option<&str>) -> Result<Vec<u8>, FirewallError> {
        let stdin = match input {
            Some(_) => Stdio::piped(),
            None => Stdio::null(),
        };
        let failed = |said: String| FirewallError::Failed {
            command: format!("nft {}", arguments.join(" ")),
            said,
        };
        let mut child = self.spawn(arguments, stdin, Stdio::piped())?;
        if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
            // One that ends without reading says why.
            let _ = pipe.write_all(input.as_bytes());
        }
        let output = child
            .wait_with_output()
            .map_err(|error| failed(error.to_string()))?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(refusal(&output, failed)),
        }
    }

    fn spawn(
        &self,
        arguments: &[&str],
        stdin: Stdio,
        stderr: Stdio,
    ) -> Result<Child, FirewallError> {
        if !cfg!(target_os = "linux") {
            return Err(FirewallError::NotLinux);
        }
        let there = |place: &&&str| !place.starts_with('/') || Path::new(place).exists();
        let (mut stdin, mut stderr) = (Some(stdin), Some(stderr));
        for nft in PLACES.iter().filter(there) {
            let mut words = self.through.iter().map(String::as_str).chain([*nft]);
            let mut command = Command::new(words.next().unwrap_or("nft"));
            command
                .args(words)
                .args(arguments)
                .env("LC_ALL", "C")
                .stdin(stdin.take().unwrap_or_else(Stdio::null))
                .stdout(Stdio::piped())
                .stderr(stderr.take().unwrap_or_else(Stdio::null));
            match command.spawn() {
                Ok(child) => return Ok(child),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(FirewallError::Failed {
                        command: format!("nft {}", arguments.join(" ")),
                        said: error.to_string(),
                    });
                }
            }
        }
        Err(FirewallError::Missing)
    }
}

/// Why nft failed.
fn refusal(output: &Output, failed: impl Fn(String) -> FirewallError) -> FirewallError {
    let said = String::from_utf8_lossy(&output.stderr);
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let said = lines.collect::<Vec<_>>().join(" ");
    match said.contains("Operation not permitted") {
        true => FirewallError::NotAllowed,
        false if said.is_empty() => failed(output.status.to_string()),
        false => failed(said),
    }
}

impl Plan {
    /// Does what it says in the network namespace of this process, all or nothing.
    ///
    /// # Errors
    /// As [`Nft::apply`].
    pub fn apply(&self) -> Result<(), FirewallError> {
        Nft::new().apply(self)
    }
}

/// Interfaces of this machine that look like a mesh's: WireGuard's, and those of Tailscale, NetBird and ZeroTier. The
/// tunnels of privacy VPNs are WireGuard, too, and are not among them. A LAN's must be named by its owner.
pub fn mesh_interfaces() -> Vec<Interface> {
    let Ok(entries) = std::fs::read_dir("/sys/class/net") else {
        return Vec::new();
    };
    let mut found: Vec<Interface> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let about = std::fs::read_to_string(entry.path().join("uevent")).unwrap_or_default();
            let wireguard = about.lines().any(|line| line == "DEVTYPE=wireguard");
            carries_mesh(&name, wireguard).then(|| name.parse().ok())?
        })
        .collect();
    found.sort();
    found
}

fn carries_mesh(name: &str, wireguard: bool) -> bool {
    let name = name.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let private = has(&[
        "mullvad",
        "proton",
        "pvpn",
        "nord",
        "ivpn",
        "pia",
        "surfshark",
        "warp",
        "windscribe",
    ]);
    let mesh = ["tailscale", "wt", "zt", "netbird", "nebula"];
    !private && (wireguard || mesh.iter().any(|start| name.starts_with(start)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_mesh_is_told_from_a_privacy_vpn_by_the_name() {
        for (name, wireguard, expected) in [
            ("wg0", true, true),
            ("wg0", false, false),
            ("tailscale0", false, true),
            ("wt0", true, true),
            ("ztabcdef12", false, true),
            ("wg0-mullvad", true, false),
            ("nordlynx", true, false),
            ("proton0", true, false),
            ("CloudflareWARP", false, false),
            ("eth0", false, false),
            ("lo", false, false),
        ] {
            assert_eq!(carries_mesh(name, wireguard), expected, "{name}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_missing() {
        let nft = Nft::through(["no-such-program-as-this"]);
        let told = nft.ruleset().unwrap_err();
        match cfg!(target_os = "linux") {
            true => assert!(matches!(told, FirewallError::Missing), "{told}"),
            false => assert!(matches!(told, FirewallError::NotLinux), "{told}"),
        }
        assert!(told.fix().contains("nft") || told.fix().contains("firewall"));
    }
}
