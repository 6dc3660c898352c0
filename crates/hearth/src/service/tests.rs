#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::process::Command;

use super::*;

fn of_user() -> Service {
    Service {
        owner: Owner::User,
        program: "/opt/my tools/hearth".into(),
        home: "/home/ada/.local/share/hearth".into(),
        flags: vec![
            (
                "model",
                "/home/ada/models/100% \"mine\" & $HOME.gguf".into(),
            ),
            ("slots", "8".into()),
        ],
        gpu: None,
    }
}

fn of_system(user: Option<&str>) -> Service {
    Service {
        owner: Owner::System(user.map(ToOwned::to_owned)),
        program: "/usr/bin/hearth".into(),
        home: "/var/lib/hearth".into(),
        flags: Vec::new(),
        gpu: None,
    }
}

#[test]
fn the_units_are_these() {
    insta::assert_snapshot!("systemd_user", Manager::Systemd.text(&of_user()));
    insta::assert_snapshot!("systemd_system", Manager::Systemd.text(&of_system(None)));
    let named = Service {
        home: "/srv/hearth".into(),
        gpu: Some(vec!["render", "video"]),
        ..of_system(Some("ada"))
    };
    insta::assert_snapshot!("systemd_system_user_gpu", Manager::Systemd.text(&named));
    insta::assert_snapshot!("launchd_agent", Manager::Launchd.text(&of_user()));
    insta::assert_snapshot!(
        "launchd_daemon",
        Manager::Launchd.text(&of_system(Some("_hearth")))
    );
}

/// The Debian package brings the very unit that `hearth service install --system` would write, but for its first line.
#[test]
fn the_packaged_unit_is_the_same() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../packaging/debian/hearth.service"
    );
    let packaged = std::fs::read_to_string(path).unwrap();
    let written = Manager::Systemd.text(&of_system(None));
    let after_first = |text: &str| text.split_once('\n').unwrap().1.to_owned();
    assert_eq!(after_first(&packaged), after_first(&written));
    assert!(!packaged.contains(MARK), "hearth would think it wrote it");
}

#[test]
fn systemd_takes_the_units() {
    let there = Command::new("systemd-analyze").arg("--version").output();
    if !there.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: systemd-analyze is not here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // It looks for the program, too.
    let program = std::env::current_exe().unwrap();
    let user = of_user();
    for service in [user, of_system(None), of_system(Some("root"))] {
        let service = Service {
            program: program.clone(),
            ..service
        };
        let path = folder.path().join("hearth.service");
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(Manager::Systemd.text(&service).as_bytes())
            .unwrap();
        let mut verify = Command::new("systemd-analyze");
        if service.owner == Owner::User {
            verify.arg("--user");
        }
        verify.args(["verify", "--man=no"]).arg(&path);
        // The user's manager looks for its folders here.
        verify.env("XDG_RUNTIME_DIR", folder.path());
        let output = verify.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // Units of the machine that are not ours may be wrong as well.
        let ours: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("hearth"))
            .collect();
        assert!(ours.is_empty(), "{:?}: {said}", service.owner);

        if service.owner == Owner::System(None) {
            let mut security = Command::new("systemd-analyze");
            security
                .args(["security", "--offline=true", "--threshold=20"])
                .arg(&path);
            let output = security.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "exposed by more than 2.0: {said}");
        }
    }
}

#[test]
fn a_real_parser_reads_the_property_lists_as_they_were_meant() {
    let read = |service: &Service| {
        let text = Manager::Launchd.text(service);
        plist::Value::from_reader_xml(text.as_bytes())
            .unwrap()
            .into_dictionary()
            .unwrap()
    };
    let agent = read(&of_user());
    let arguments: Vec<&str> = agent["ProgramArguments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|argument| argument.as_string().unwrap())
        .collect();
    assert_eq!(
        arguments,
        [
            "/opt/my tools/hearth",
            "serve",
            "--log-to-file",
            "--home=/home/ada/.local/share/hearth",
            "--model=/home/ada/models/100% \"mine\" & $HOME.gguf",
            "--slots=8",
        ]
    );
    assert_eq!(agent["Label"].as_string(), Some("hearth.node"));
    assert_eq!(agent["RunAtLoad"].as_boolean(), Some(true));
    let keep = agent["KeepAlive"].as_dictionary().unwrap();
    assert_eq!(keep["SuccessfulExit"].as_boolean(), Some(false));
    assert_eq!(agent["Umask"].as_unsigned_integer(), Some(0o077));
    assert!(!agent.contains_key("UserName"));
    let daemon = read(&of_system(Some("_hearth")));
    assert_eq!(daemon["UserName"].as_string(), Some("_hearth"));
}

#[test]
fn the_managers_are_told_and_understood() {
    let shown = |calls: Vec<Call>| calls.iter().map(Call::shown).collect::<Vec<_>>();
    let idle = State::default();
    let running = State {
        active: true,
        ..State::default()
    };
    let unit = Path::new("/unit");
    assert_eq!(
        shown(Manager::Systemd.start(&of_user(), "", unit, &idle)),
        [
            "systemctl --user daemon-reload",
            "systemctl --user enable hearth.service",
            "systemctl --user start hearth.service",
        ]
    );
    let restarted = shown(Manager::Systemd.start(&of_system(None), "", unit, &running));
    assert_eq!(restarted[2], "systemctl restart hearth.service");
    assert_eq!(
        shown(Manager::Launchd.start(&of_user(), "501", unit, &idle)),
        [
            "mkdir -p /home/ada/.local/share/hearth/logs",
            "launchctl bootout gui/501/hearth.node",
            "launchctl enable gui/501/hearth.node",
            "launchctl bootstrap gui/501 /unit",
        ]
    );
    let [before, after] = Manager::Systemd.stop(&Owner::System(None), "");
    assert_eq!(shown(before), ["systemctl disable --now hearth.service"]);
    assert_eq!(after[0].shown(), "systemctl daemon-reload");

    let answer = "MainPID=42\nActiveState=active\nSubState=running\nUnitFileState=enabled\nFragmentPath=/unit\n";
    let state = Manager::Systemd.state(answer);
    assert_eq!(
        state,
        State {
            enabled: true,
            active: true,
            words: "active (running)".into(),
            pid: Some(42),
            unit: Some("/unit".into()),
        }
    );
    let answer = "MainPID=0\nActiveState=inactive\nSubState=dead\nUnitFileState=\n";
    let state = Manager::Systemd.state(answer);
    assert_eq!(
        (state.enabled, state.active, state.pid),
        (false, false, None)
    );
    let answer =
        "gui/501/hearth.node = {\n\tactive count = 1\n\tstate = running\n\n\tpid = 42\n}\n";
    let state = Manager::Launchd.state(answer);
    assert_eq!((state.active, state.pid), (true, Some(42)));
    assert_eq!(Manager::Launchd.state("").words, "not loaded");
}

#[test]
fn a_system_without_a_known_manager_is_told_what_does_the_same() {
    let program = Path::new(r"C:\Program Files\Hearth\hearth.exe");
    let (message, fix) = Manager::of("windows", program).unwrap_err();
    assert!(message.contains("Windows"), "{message}");
    assert!(
        fix.contains(r#"schtasks /Create /SC ONLOGON /TN Hearth /TR "\"C:\Program Files\Hearth\hearth.exe\" serve"#),
        "{fix}"
    );
    assert!(Manager::of("freebsd", program).is_err());
}
