//! A model of the workspace for the tidy rules: crates with their edges, source files, and third-party packages.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cargo::{metadata, root};

/// What the rules look at.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Crates of this workspace.
    pub crates: Vec<Crate>,
    /// Files that are kept under version control, with their text; binary ones are left out.
    pub files: Vec<File>,
    /// Packages of others.
    pub packages: Vec<Package>,
    /// The text of `docs/ARCHITECTURE.md`.
    pub architecture: String,
}

/// A crate of this workspace.
#[derive(Debug, Clone, Default)]
pub struct Crate {
    /// Package name.
    pub name: String,
    /// Packages it uses.
    pub dependencies: Vec<Dependency>,
    /// Executables it builds.
    pub executables: Vec<String>,
    /// Its manifest.
    pub manifest: String,
}

/// A package that a crate uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// Package name, whatever the crate calls it.
    pub name: String,
    /// What it is used for.
    pub kind: Kind,
}

/// What a dependency is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The program or library itself.
    Normal,
    /// Tests, examples and benchmarks.
    Development,
    /// The build script.
    Build,
}

/// A file.
#[derive(Debug, Clone, Default)]
pub struct File {
    /// Path from the root, with `/`.
    pub path: String,
    /// Content.
    pub text: String,
}

/// A package of somebody else.
#[derive(Debug, Clone, Default)]
pub struct Package {
    /// Name.
    pub name: String,
    /// SPDX expression; empty if it has none.
    pub licence: String,
}

impl Tree {
    /// Reads `cargo metadata` and the files git knows.
    pub fn read() -> Result<Self, String> {
        let metadata = metadata()?;
        let mut tree = Self::default();
        for package in metadata["packages"].as_array().into_iter().flatten() {
            let name = text_of(&package["name"]);
            if !package["source"].is_null() {
                tree.packages.push(Package {
                    name,
                    licence: text_of(&package["license"]),
                });
                continue;
            }
            let manifest = PathBuf::from(text_of(&package["manifest_path"]));
            tree.crates.push(Crate {
                name,
                dependencies: each(&package["dependencies"]).map(dependency).collect(),
                executables: each(&package["targets"])
                    .filter(|target| each(&target["kind"]).any(|kind| kind == "bin"))
                    .map(|target| text_of(&target["name"]))
                    .collect(),
                manifest: std::fs::read_to_string(manifest).unwrap_or_default(),
            });
        }
        tree.files = files(&root())?;
        tree.architecture = tree
            .text("docs/ARCHITECTURE.md")
            .unwrap_or_default()
            .to_owned();
        Ok(tree)
    }

    /// The text of a file.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files
            .iter()
            .find(|file| file.path == path)
            .map(|file| file.text.as_str())
    }

    /// Rust source files.
    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }
}

fn dependency(entry: &Value) -> Dependency {
    Dependency {
        name: text_of(&entry["name"]),
        kind: match entry["kind"].as_str() {
            Some("dev") => Kind::Development,
            Some("build") => Kind::Build,
            _ => Kind::Normal,
        },
    }
}

fn each(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn files(root: &Path) -> Result<Vec<File>, String> {
    let mut git = std::process::Command::new("git");
    let list = git
        .current_dir(root)
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output();
    let list = list.map_err(|error| format!("git ls-files: {error}"))?;
    Ok(String::from_utf8_lossy(&list.stdout)
        .lines()
        .filter_map(|path| {
            let text = std::fs::read_to_string(root.join(path)).ok()?;
            Some(File {
                path: path.to_owned(),
                text,
            })
        })
        .collect())
}
