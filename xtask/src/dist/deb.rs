//! The Debian package, put together by dpkg's own tools (deb(5), deb-control(5)). What it depends on is read from the
//! program by dpkg-shlibdeps, so that it is right for the release of Debian or Ubuntu that it was built on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{at, copy, write};
use crate::cargo::{root, succeed};

/// Scripts of the package, beside the unit.
const SCRIPTS: &str = "packaging/debian";

/// Builds the package from a staged archive and returns where it is.
pub fn build(staged: &Path, out: &Path, version: &str, quick: bool) -> Result<PathBuf, String> {
    let architecture = ask(Command::new("dpkg").arg("--print-architecture"))?;
    let name = format!("hearth_{version}_{architecture}");
    let folder = out.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| at(&folder, error))?;
    }
    fill(staged, &folder)?;
    let depends = depends(&folder)?;
    let kilobytes = ask(Command::new("du")
        .args(["-sk", "--apparent-size"])
        .arg(&folder))?;
    let kilobytes = kilobytes.split_whitespace().next().unwrap_or("0");
    let control = format!(
        "\
Package: hearth
Version: {version}
Architecture: {architecture}
Maintainer: The Hearth authors
Installed-Size: {kilobytes}
Depends: {depends}
Section: net
Priority: optional
Description: one private AI on the machines you own
 Hearth serves an OpenAI-compatible endpoint from this machine. Prompts never
 leave it, and no other service is needed: the program brings an engine for
 GGUF models and a tiny model to start with.
 .
 The package does not start anything. To let the machine keep a node:
 systemctl enable --now hearth
"
    );
    let about = folder.join("DEBIAN");
    write(&about.join("control"), control.as_bytes())?;
    for script in ["postinst", "prerm", "postrm"] {
        let path = about.join(script);
        copy(&root().join(SCRIPTS).join(script), &path)?;
        mode(&path, 0o755)?;
    }
    let package = out.join(format!("{name}.deb"));
    succeed(
        Command::new("dpkg-deb")
            .args([
                "--root-owner-group",
                if quick { "-Znone" } else { "-Zxz" },
                "--build",
            ])
            .arg(&folder)
            .arg(&package)
            .stdout(std::process::Stdio::null()),
    )?;
    Ok(package)
}

/// Lays the files where Debian wants them.
fn fill(staged: &Path, folder: &Path) -> Result<(), String> {
    let usr = folder.join("usr");
    let program = usr.join("bin/hearth");
    copy(&staged.join("hearth"), &program)?;
    // Symbols are of no use without the build that they came from.
    succeed(Command::new("strip").arg("--strip-unneeded").arg(&program))?;
    mode(&program, 0o755)?;
    let share = usr.join("share");
    for (from, to) in [
        (
            "completions/hearth.bash",
            "bash-completion/completions/hearth",
        ),
        ("completions/_hearth", "zsh/vendor-completions/_hearth"),
        (
            "completions/hearth.fish",
            "fish/vendor_completions.d/hearth.fish",
        ),
        ("README.md", "doc/hearth/README.md"),
        ("CHANGELOG.md", "doc/hearth/CHANGELOG.md"),
    ] {
        copy(&staged.join(from), &share.join(to))?;
    }
    for page in fs::read_dir(staged.join("man")).map_err(|error| at(staged, error))? {
        let page = page.map_err(|error| at(staged, error))?;
        copy(&page.path(), &share.join("man/man1").join(page.file_name()))?;
    }
    for unit in ["hearth.service", "hearth-firewall.service"] {
        copy(
            &root().join(SCRIPTS).join(unit),
            &usr.join("lib/systemd/system").join(unit),
        )?;
    }
    copy(
        &root().join(SCRIPTS).join("copyright"),
        &share.join("doc/hearth/copyright"),
    )?;
    // Without the time and name of the file, the same input gives the same package.
    let pages = fs::read_dir(share.join("man/man1")).map_err(|error| at(&share, error))?;
    let mut gzip = Command::new("gzip");
    gzip.args(["-9", "--no-name", "--force"])
        .arg(share.join("doc/hearth/CHANGELOG.md"));
    for page in pages {
        gzip.arg(page.map_err(|error| at(&share, error))?.path());
    }
    succeed(&mut gzip)?;
    // The builder's umask is not the reader's.
    succeed(
        Command::new("chmod")
            .args(["-R", "u=rwX,go=rX"])
            .arg(folder),
    )
}

/// The packages whose libraries the program needs, and the oldest versions that have what it calls.
fn depends(folder: &Path) -> Result<String, String> {
    // The tool insists on a source package around it.
    let source = folder.with_extension("source");
    write(
        &source.join("debian/control"),
        b"Source: hearth\n\nPackage: hearth\nArchitecture: any\n",
    )?;
    let program = folder.join("usr/bin/hearth");
    let program = fs::canonicalize(&program).map_err(|error| at(&program, error))?;
    let said = ask(Command::new("dpkg-shlibdeps")
        .arg("-O")
        .arg(program)
        .current_dir(&source));
    let _ = fs::remove_dir_all(&source);
    let said = said?;
    said.strip_prefix("shlibs:Depends=")
        .map(ToOwned::to_owned)
        .ok_or_else(|| format!("dpkg-shlibdeps said `{said}`"))
}

fn mode(path: &Path, mode: u32) -> Result<(), String> {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).map_err(|error| at(path, error))
}

/// What a program prints, if it succeeds.
fn ask(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().display().to_string();
    let output = command.output().map_err(|error| {
        format!("could not run {name}: {error}\ninstall it with\n  sudo apt-get install dpkg-dev binutils")
    })?;
    if !output.status.success() {
        return Err(format!(
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
