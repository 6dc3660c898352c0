//! What `cargo xtask dist` packs, from the program that the other tests use.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output
}

fn is_here(program: &str) -> bool {
    let here = Command::new(program).arg("--version").output();
    here.is_ok_and(|output| output.status.success())
}

/// A folder that goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        // Beside what was built, where there is room: the folder of temporary files may be small.
        let room = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = room.join(format!("dist-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn only(folder: &Path, ending: &str) -> PathBuf {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    let found = paths.find(|path| path.to_string_lossy().ends_with(ending));
    found.unwrap_or_else(|| panic!("there is no {ending} in {}", folder.display()))
}

#[test]
fn the_archive_and_the_debian_package_hold_a_program_that_runs() {
    let binary = xtask::cargo::target().join("debug/hearth");
    if !binary.is_file() {
        eprintln!("skipped: {} is not built", binary.display());
        return;
    }
    if !["dpkg-deb", "dpkg-shlibdeps", "strip"]
        .into_iter()
        .all(is_here)
    {
        eprintln!("skipped: dpkg-dev or binutils is not here");
        return;
    }
    let scratch = Scratch::new();
    let out = &scratch.0;
    let mut dist = Command::new(env!("CARGO_BIN_EXE_xtask"));
    dist.args(["dist", "--deb", "--quick", "--binary"])
        .arg(&binary)
        .arg("--out")
        .arg(out);
    run(&mut dist);

    let listed = run(Command::new("tar").arg("-tzf").arg(only(out, ".tar.gz")));
    let listed = String::from_utf8(listed.stdout).unwrap();
    for part in [
        "/hearth\n",
        "/man/hearth-up.1\n",
        "/completions/_hearth\n",
        "/LICENSE-MIT\n",
        "/INSTALL.md\n",
    ] {
        assert!(listed.contains(part), "{part}: {listed}");
    }

    let package = only(out, ".deb");
    let control = run(Command::new("dpkg-deb").arg("--field").arg(&package));
    let control = String::from_utf8(control.stdout).unwrap();
    let depends = control.lines().find(|line| line.starts_with("Depends: "));
    let depends = depends.unwrap_or_else(|| panic!("{control}"));
    let own = ["libc6", "libgcc-s1", "libstdc++6", "libgomp1"];
    for dependency in depends.trim_start_matches("Depends: ").split(", ") {
        let name = dependency.split(' ').next().unwrap_or_default();
        assert!(own.contains(&name), "{name} is a new dependency: {depends}");
    }

    let root = out.join("root");
    run(Command::new("dpkg-deb")
        .arg("--extract")
        .arg(&package)
        .arg(&root));
    let version = run(Command::new(root.join("usr/bin/hearth")).arg("--version"));
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        format!("hearth {}\n", env!("CARGO_PKG_VERSION"))
    );
    for file in [
        "usr/lib/systemd/system/hearth.service",
        "usr/lib/systemd/system/hearth-firewall.service",
        "usr/share/bash-completion/completions/hearth",
        "usr/share/zsh/vendor-completions/_hearth",
        "usr/share/fish/vendor_completions.d/hearth.fish",
        "usr/share/man/man1/hearth.1.gz",
        "usr/share/doc/hearth/copyright",
    ] {
        assert!(root.join(file).is_file(), "{file} is missing");
    }
    let contents = run(Command::new("dpkg-deb").arg("--contents").arg(&package));
    let contents = String::from_utf8(contents.stdout).unwrap();
    for line in contents.lines() {
        let wanted = [
            "drwxr-xr-x root/root",
            "-rw-r--r-- root/root",
            "-rwxr-xr-x root/root",
        ];
        assert!(wanted.iter().any(|start| line.starts_with(start)), "{line}");
    }
}
