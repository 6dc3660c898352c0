//! `cargo xtask dist`: what a release is made of. An archive with the program, its manual and its completions for every
//! system, and a package for Debian and its kin.
//!
//! The manual and the completions come from the program itself, so it is built for the machine that packages it.

#[cfg(unix)]
mod deb;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo::{cargo, metadata, root, succeed, target};
use crate::setup::{Need, ensure};

pub const HELP: &str = "\
Builds the release binary and packages it into target/dist: an archive (.tar.gz; .zip on Windows) with the manual and
completions, and with --deb a Debian package, for which dpkg-dev must be installed.

usage: cargo xtask dist [--deb] [--features LIST] [--binary FILE] [--out FOLDER] [--quick]

  --deb            also a Debian package
  --features LIST  of the program: cuda, metal or vulkan; the name of the archive says so
  --binary FILE    package this program instead of building one
  --out FOLDER     write there
  --quick          hardly compress; for looking at what is inside

EXAMPLES
  cargo xtask dist
  cargo xtask dist --deb
  cargo xtask dist --features vulkan";

/// What was asked for.
struct Order {
    deb: bool,
    features: Option<String>,
    binary: Option<PathBuf>,
    out: PathBuf,
    quick: bool,
}

impl Order {
    fn read(args: &[String]) -> Result<Self, String> {
        let mut order = Self {
            deb: false,
            features: None,
            binary: None,
            out: target().join("dist"),
            quick: false,
        };
        let mut words = args.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or(format!("{word} needs a value\n\n{HELP}"))
            };
            match word.as_str() {
                "--deb" => order.deb = true,
                "--quick" => order.quick = true,
                "--features" => order.features = Some(value()?.clone()),
                "--binary" => order.binary = Some(value()?.into()),
                "--out" => order.out = value()?.into(),
                _ => return Err(format!("`{word}` was not understood\n\n{HELP}")),
            }
        }
        Ok(order)
    }
}

pub fn run(args: &[String]) -> Result<(), String> {
    let order = Order::read(args)?;
    let binary = match &order.binary {
        Some(binary) => binary.clone(),
        None => build(order.features.as_deref())?,
    };
    let version = version()?;
    fs::create_dir_all(&order.out).map_err(|error| at(&order.out, error))?;
    let variant = order
        .features
        .as_deref()
        .map_or_else(String::new, |features| {
            format!("-{}", features.replace(',', "-"))
        });
    let name = format!(
        "hearth-{version}-{}-{}{variant}",
        std::env::consts::OS,
        std::env::consts::ARCH
    );
    let folder = order.out.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| at(&folder, error))?;
    }
    stage(&binary, &folder)?;
    let archive = archive(&order.out, &name, order.quick)?;
    println!("{}", archive.display());
    match order.deb {
        true => debian(&folder, &order.out, &version, order.quick),
        false => Ok(()),
    }
}

#[cfg(unix)]
fn debian(folder: &Path, out: &Path, version: &str, quick: bool) -> Result<(), String> {
    println!("{}", deb::build(folder, out, version, quick)?.display());
    Ok(())
}

#[cfg(not(unix))]
fn debian(_: &Path, _: &Path, _: &str, _: bool) -> Result<(), String> {
    Err("--deb needs dpkg, which is not on this system".into())
}

fn build(features: Option<&str>) -> Result<PathBuf, String> {
    ensure(&Need::BUILD)?;
    let mut command = cargo(["build", "--release", "--locked", "--package", "hearth"]);
    if let Some(features) = features {
        command.args(["--features", features]);
    }
    succeed(&mut command)?;
    Ok(target()
        .join("release")
        .join(format!("hearth{}", std::env::consts::EXE_SUFFIX)))
}

fn version() -> Result<String, String> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array();
    packages
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "hearth")
        .and_then(|package| package["version"].as_str())
        .map(str::to_owned)
        .ok_or_else(|| "the package hearth has no version".into())
}

/// Everything of an archive, in a folder.
fn stage(binary: &Path, folder: &Path) -> Result<(), String> {
    let program = folder.join(format!("hearth{}", std::env::consts::EXE_SUFFIX));
    copy(binary, &program)?;
    for text in ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "CHANGELOG.md"] {
        copy(&root().join(text), &folder.join(text))?;
    }
    copy(&root().join("docs/INSTALL.md"), &folder.join("INSTALL.md"))?;
    let pages = folder.join("man");
    succeed(Command::new(&program).arg("man").arg("--out").arg(&pages))?;
    for (shell, name) in [
        ("bash", "hearth.bash"),
        ("zsh", "_hearth"),
        ("fish", "hearth.fish"),
        ("powershell", "hearth.ps1"),
        ("elvish", "hearth.elv"),
    ] {
        let output = Command::new(&program)
            .args(["completions", shell])
            .output()
            .map_err(|error| at(&program, error))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        write(&folder.join("completions").join(name), &output.stdout)?;
    }
    Ok(())
}

/// Packs the folder. `tar` is on every system that Hearth is released for; that of Windows also writes zip files.
fn archive(out: &Path, name: &str, quick: bool) -> Result<PathBuf, String> {
    let (ending, how) = match cfg!(windows) {
        true => ("zip", "--auto-compress"),
        false if quick => ("tar.gz", "--use-compress-program=gzip -1"),
        false => ("tar.gz", "--gzip"),
    };
    let archive = format!("{name}.{ending}");
    succeed(
        Command::new("tar")
            .current_dir(out)
            .args([how, "-cf", &archive, name]),
    )?;
    Ok(out.join(archive))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(|error| at(folder, error))?;
    }
    fs::copy(from, to)
        .map(drop)
        .map_err(|error| at(from, error))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| at(folder, error))?;
    }
    fs::write(path, bytes).map_err(|error| at(path, error))
}

fn at(path: &Path, error: std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
