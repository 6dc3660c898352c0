//! `hearth service` with a `systemctl` that keeps books of what it is told.
#![cfg(target_os = "linux")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::household::{Household, Ran};

/// Stands in for systemd: remembers enabled and active, and writes every call down.
const SYSTEMCTL: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "$*" >> calls
[ "$1" = --user ] && shift
case "$1" in
    show)
        echo "MainPID=$(cat active 2> /dev/null || echo 0)"
        if [ -e active ]; then echo ActiveState=active; echo SubState=running
        else echo ActiveState=inactive; echo SubState=dead; fi
        [ -e enabled ] && echo UnitFileState=enabled || echo UnitFileState= ;;
    daemon-reload) if [ -e broken ]; then echo "Failed to connect to bus: No medium found" >&2; exit 1; fi ;;
    enable) touch enabled ;;
    start | restart) if [ -e stuck ]; then echo "Job for hearth.service failed." >&2; exit 1; fi; echo 4242 > active ;;
    disable) rm -f enabled active ;;
esac
"#;

struct Machine {
    household: Household,
    tools: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let household = Household::new();
        let tools = household.path().join("tools");
        std::fs::create_dir(&tools).unwrap();
        let program = tools.join("systemctl");
        std::fs::write(&program, SYSTEMCTL).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        Self { household, tools }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let path = std::env::var("PATH").unwrap();
        let mut command = self.household.command(arguments);
        command
            .env("PATH", format!("{}:{path}", self.tools.display()))
            .env_remove("SUDO_USER");
        command
    }

    fn hearth(&self, arguments: &[&str]) -> Ran {
        Ran::new(arguments, self.command(arguments).output().unwrap())
    }

    fn unit(&self) -> PathBuf {
        self.household
            .path()
            .join("config/systemd/user/hearth.service")
    }

    /// Calls since the last look, without questions.
    fn calls(&self) -> Vec<String> {
        let path = self.tools.join("calls");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(path);
        let told = text.lines().filter(|call| !call.contains(" show "));
        told.map(ToOwned::to_owned).collect()
    }

    fn set(&self, name: &str) {
        std::fs::write(self.tools.join(name), "").unwrap();
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_service_is_installed_shown_and_removed() {
    let machine = Machine::new();
    let shown = machine.hearth(&["service", "status", "--json"]).json();
    assert_eq!(
        (&shown["installed"], &shown["enabled"], &shown["active"]),
        (
            &Value::Bool(false),
            &Value::Bool(false),
            &Value::Bool(false)
        )
    );

    let dry = machine
        .hearth(&["service", "install", "--dry-run", "--slots", "2"])
        .ok();
    assert!(!machine.unit().exists() && machine.calls().is_empty());
    let home = machine.household.home();
    // Of the environment and the flags; what nobody said is not fixed.
    for part in [
        "ExecStart=",
        " serve --log-to-file ",
        &format!("--home={}", home.display()),
        "--slots=2",
        "--context=1024",
        "WantedBy=default.target",
    ] {
        assert!(dry.contains(part), "{part}: {dry}");
    }
    assert!(!dry.contains("--queue-limit"), "{dry}");

    let said = machine.hearth(&["service", "install", "--slots", "2"]).ok();
    let unit = read(&machine.unit());
    assert!(dry.ends_with(&unit), "{dry}\n{unit}");
    for part in [
        machine.unit().to_str().unwrap(),
        "active (running) (pid 4242)",
        "hearth logs --follow",
        "hearth service remove",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let told = [
        "--user daemon-reload",
        "--user enable hearth.service",
        "--user start hearth.service",
    ];
    assert_eq!(machine.calls(), told);

    // The same again changes nothing; another setting starts it anew.
    let said = machine
        .hearth(&["service", "install", "--slots", "2", "--json"])
        .json();
    assert_eq!(
        (&said["changed"], &said["active"]),
        (&false.into(), &true.into())
    );
    assert!(machine.calls().is_empty());
    machine.hearth(&["service", "install", "--slots", "3"]).ok();
    assert_eq!(machine.calls()[2], "--user restart hearth.service");

    let shown = machine.hearth(&["service", "status"]).ok();
    assert!(
        shown.contains("enabled   yes") && shown.contains("pid 4242"),
        "{shown}"
    );

    machine.hearth(&["service", "remove"]).ok();
    assert!(!machine.unit().exists());
    assert_eq!(machine.calls()[0], "--user disable --now hearth.service");
    let said = machine.hearth(&["service", "remove"]).ok();
    assert!(said.contains("there is no service"), "{said}");
    assert!(machine.calls().is_empty());
}

#[test]
fn what_cannot_be_installed_leaves_nothing_behind() {
    let machine = Machine::new();
    machine.set("broken");
    let failed = machine.hearth(&["service", "install"]).ends_with(1);
    assert!(
        failed.err.contains("connect to bus") && failed.err.contains("--system"),
        "{}",
        failed.err
    );
    assert!(!machine.unit().exists());

    // A unit that the manager took and could not start stays, to be looked at.
    std::fs::remove_file(machine.tools.join("broken")).unwrap();
    machine.set("stuck");
    let failed = machine.hearth(&["service", "install"]).ends_with(1);
    assert!(
        failed.err.contains("is installed and does not start")
            && failed.err.contains("journalctl --user"),
        "{}",
        failed.err
    );
    assert!(machine.unit().exists());

    std::fs::write(machine.unit(), "[Service]\nExecStart=/bin/true\n").unwrap();
    for command in ["install", "remove"] {
        let refused = machine.hearth(&["service", command]).ends_with(1);
        assert!(
            refused.err.contains("was not written by hearth"),
            "{}",
            refused.err
        );
    }
    assert_eq!(read(&machine.unit()), "[Service]\nExecStart=/bin/true\n");
}

#[test]
fn who_is_in_the_way_or_missing_is_named() {
    let machine = Machine::new();
    let node = machine.household.serve(&[]);
    let refused = machine.hearth(&["service", "install"]).ends_with(1);
    let expected = format!(
        "a node runs at {} already (pid {})",
        node.address,
        node.child.id()
    );
    assert!(
        refused.err.contains(&expected) && refused.err.contains("hearth stop"),
        "{}",
        refused.err
    );
    assert!(!machine.unit().exists());
    drop(node);

    let as_root = machine
        .command(&["service", "install"])
        .env("SUDO_USER", "ada")
        .output()
        .unwrap();
    let refused = Ran::new(&["service", "install"], as_root).ends_with(2);
    assert!(refused.err.contains("--system"), "{}", refused.err);

    let output = machine
        .command(&["service", "status"])
        .env("PATH", machine.household.path())
        .output()
        .unwrap();
    let refused = Ran::new(&["service", "status"], output).ends_with(1);
    assert!(
        refused.err.contains("systemctl is not here") && refused.err.contains("hearth up --detach"),
        "{}",
        refused.err
    );
    machine
        .hearth(&["service", "install", "--user", "ada"])
        .ends_with(2);
}

#[test]
fn the_unit_of_the_machine_is_confined_and_keeps_nobodys_environment() {
    let machine = Machine::new();
    let unit = machine
        .hearth(&[
            "service",
            "install",
            "--system",
            "--dry-run",
            "--user",
            "ada",
            "--slots",
            "2",
        ])
        .ok();
    for part in [
        "# /etc/systemd/system/hearth.service",
        "User=ada",
        "ProtectSystem=strict",
        "--home=/var/lib/hearth --slots=2",
        "WantedBy=multi-user.target",
    ] {
        assert!(unit.contains(part), "{part}: {unit}");
    }
    assert!(
        !unit.contains("--context"),
        "HEARTH_CONTEXT is not the machine's: {unit}"
    );
    assert!(machine.calls().is_empty());
}

/// systemd waits for this before it calls the service started.
#[test]
fn a_node_tells_the_manager_when_its_door_is_open() {
    use std::os::unix::net::UnixDatagram;

    let household = Household::new();
    let path = household.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(std::time::Duration::from_secs(120)))
        .unwrap();
    let mut node = household
        .command(&["serve"])
        .env("NOTIFY_SOCKET", &path)
        .spawn()
        .unwrap();
    let hears = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert!(hears().contains("READY=1"));
    household.hearth(&["status"]).ok();
    household.hearth(&["stop"]).ok();
    assert!(hears().contains("STOPPING=1"));
    assert!(node.wait().unwrap().success());
}
