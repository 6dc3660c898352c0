//! The Python and JavaScript packages that the client tests need, installed under the build folder at the versions
//! written in `crates/hearth/tests/e2e/clients/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo::{root, succeed, target};

const LISTS: &str = "crates/hearth/tests/e2e/clients";

/// Installs the clients where `tests/e2e/clients.rs` looks for them.
pub fn install() -> Result<(), String> {
    let lists = root().join(LISTS);
    let folder = target().join("clients");
    python_environment(&folder.join("python"), &lists.join("requirements.txt"))?;
    // What others built on these packages asks for other versions of them.
    python_environment(&folder.join("frameworks"), &lists.join("frameworks.txt"))?;
    python_environment(&folder.join("fuzz"), &lists.join("fuzz.txt"))?;
    node_packages(&folder.join("node"), &lists.join("package.json"))
}

/// A virtual environment in `folder` with what `requirements` lists; returns its Python.
pub fn python_environment(folder: &Path, requirements: &Path) -> Result<PathBuf, String> {
    let python = if cfg!(windows) {
        folder.join("Scripts/python.exe")
    } else {
        folder.join("bin/python")
    };
    once(folder, requirements, || {
        println!("  installing {}", requirements.display());
        succeed(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        succeed(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "--requirement"])
                .arg(requirements),
        )
    })?;
    Ok(python)
}

fn node_packages(folder: &Path, package: &Path) -> Result<(), String> {
    once(folder, package, || {
        println!("  installing {}", package.display());
        fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        fs::copy(package, folder.join("package.json")).map_err(|error| error.to_string())?;
        // No lock file: it would record where the packages came from. The list pins exact versions.
        succeed(
            Command::new(if cfg!(windows) { "npm.cmd" } else { "npm" })
                .args(["install", "--no-package-lock", "--no-audit", "--no-fund"])
                .arg("--silent")
                .current_dir(folder),
        )
    })
}

/// Fills a folder unless it was filled from the same list before. The list is copied in last, so that a broken
/// installation is done again.
fn once(
    folder: &Path,
    list: &Path,
    fill: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let wanted = fs::read(list).map_err(|error| format!("{}: {error}", list.display()))?;
    let stamp = folder.join("installed");
    if fs::read(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    fill()?;
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))
}
