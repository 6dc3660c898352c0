//! systemd: the unit (systemd.unit(5), systemd.service(5), systemd.exec(5)) and `systemctl`.

use super::{Call, MARK, Owner, Service, State};

/// The unit's name.
pub const NAME: &str = "hearth.service";

/// Confinement of a node of the machine. A node reads models, writes its home and speaks to the network; nothing else
/// is left to it. `systemd-analyze security` explains each.
const CONFINED: &str = "\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
UMask=0077
ProtectSystem=strict
PrivateTmp=yes
PrivateMounts=yes
ProtectProc=invisible
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
";

/// What only the CPU code can bear: drivers of GPUs compile code and map it, and their devices must be there, which
/// ProtectClock would take away with all others.
const CONFINED_CPU: &str = "\
PrivateDevices=yes
ProtectClock=yes
MemoryDenyWriteExecute=yes
";

/// The part of it that a user's own manager can do, which has no privileges to give up.
const CONFINED_USER: &str = "\
NoNewPrivileges=yes
UMask=0077
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
";

pub fn unit(service: &Service) -> String {
    let change = match service.owner {
        Owner::User => "systemctl --user edit hearth",
        Owner::System(_) => "sudo systemctl edit hearth",
    };
    let command: Vec<String> = service
        .arguments()
        .iter()
        .map(|text| word(text, true))
        .collect();
    let mut unit = format!(
        "\
# {MARK} Your own changes: {change}
[Unit]
Description=Hearth, one private AI
Documentation=man:hearth(1)
After=network.target
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=notify
ExecStart={}
Restart=on-failure
RestartSec=5
# A wrong setting does not mend itself.
RestartPreventExitStatus=2
# Running answers get ten seconds, then models are unloaded.
TimeoutStopSec=60
LimitNOFILE=65536
",
        command.join(" ")
    );
    match &service.owner {
        Owner::User => unit += CONFINED_USER,
        Owner::System(user) => {
            // Weights and the buffers of GPU drivers may be locked into memory.
            unit += "LimitMEMLOCK=infinity\n";
            // The file is /etc/hearth/config.toml.
            unit += "Environment=XDG_CONFIG_HOME=/etc\n";
            match user {
                Some(user) => unit += &format!("User={}\n", literal(user)),
                None => unit += "DynamicUser=yes\n",
            }
            match service.home.strip_prefix("/var/lib") {
                Ok(below) => {
                    unit += &format!(
                        "StateDirectory={}\nStateDirectoryMode=0700\n",
                        word(&below.display().to_string(), false)
                    );
                }
                Err(_) => {
                    let home = word(&service.home.display().to_string(), false);
                    unit += &format!("ReadWritePaths={home}\n");
                }
            }
            // A named user's models may lie in a home folder; one that is made up cannot read there anyway.
            let homes = match user {
                Some(_) => "read-only",
                None => "yes",
            };
            unit += &format!("ProtectHome={homes}\n");
            unit += CONFINED;
            match &service.gpu {
                None => unit += CONFINED_CPU,
                Some(groups) if groups.is_empty() => {}
                Some(groups) => unit += &format!("SupplementaryGroups={}\n", groups.join(" ")),
            }
        }
    }
    let target = match service.owner {
        Owner::User => "default.target",
        Owner::System(_) => "multi-user.target",
    };
    unit + &format!("\n[Install]\nWantedBy={target}\n")
}

/// Without what systemd would expand.
fn literal(text: &str) -> String {
    text.replace('%', "%%")
}

/// A word of a list, quoted where it must be; `command` is one of a command line, where `$` names a variable.
pub fn word(text: &str, command: bool) -> String {
    let mut text = literal(text).replace('\\', "\\\\").replace('"', "\\\"");
    if command {
        text = text.replace('$', "$$");
    }
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/-_.,:=@%+$~[]".contains(letter);
    match !text.is_empty() && text.chars().all(plain) {
        true => text,
        false => format!("\"{text}\""),
    }
}

fn systemctl<const N: usize>(owner: &Owner, arguments: [&str; N]) -> Call {
    let mut call = Call::new("systemctl", arguments);
    if *owner == Owner::User {
        call.arguments.insert(0, "--user".into());
    }
    call
}

pub fn question(owner: &Owner) -> Call {
    let properties = "--property=FragmentPath,UnitFileState,ActiveState,SubState,MainPID";
    systemctl(owner, ["show", NAME, properties])
}

pub fn state(answer: &str) -> State {
    let value = |name: &str| {
        let mut lines = answer.lines();
        lines
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_default()
    };
    let active = value("ActiveState");
    State {
        enabled: value("UnitFileState") == "enabled",
        active: active == "active",
        words: match value("SubState") {
            "" => active.to_owned(),
            sub => format!("{active} ({sub})"),
        },
        pid: value("MainPID").parse().ok().filter(|pid| *pid != 0),
        unit: Some(value("FragmentPath"))
            .filter(|path| !path.is_empty())
            .map(Into::into),
    }
}

pub fn start(owner: &Owner, was: &State) -> Vec<Call> {
    let start = if was.active { "restart" } else { "start" };
    vec![
        systemctl(owner, ["daemon-reload"]),
        systemctl(owner, ["enable", NAME]),
        systemctl(owner, [start, NAME]),
    ]
}

pub fn stop(owner: &Owner) -> [Vec<Call>; 2] {
    [
        vec![systemctl(owner, ["disable", "--now", NAME])],
        vec![
            systemctl(owner, ["daemon-reload"]),
            systemctl(owner, ["reset-failed", NAME]).may_fail(),
        ],
    ]
}
