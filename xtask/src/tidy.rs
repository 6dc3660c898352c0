//! The rules a compiler does not know, each a function from the tree to what breaks it.
//!
//! What may import what is written once, in the table of `docs/ARCHITECTURE.md`; the rule reads it there.

use self::tree::{File, Kind, Tree};

pub mod tree;

/// Longest file, in lines.
const LONGEST: usize = 1200;
/// Names that say nothing about what is inside.
const DRAWERS: [&str; 6] = ["utils", "util", "common", "helpers", "helper", "misc"];
/// Crates that may contain `unsafe`.
const MAY_BE_UNSAFE: [&str; 3] = ["crates/encoder/", "crates/engine/", "crates/memory/"];
/// Where the environment may be read besides build scripts and tests.
const MAY_READ_ENVIRONMENT: [&str; 3] = ["crates/hearth/", "crates/testkit/", "xtask/"];
/// Crates that may install a tracing subscriber: a library that does decides for every program around it.
const MAY_SUBSCRIBE: [&str; 3] = ["hearth", "hearth-testkit", "xtask"];
/// The crate that every room may use in its tests and none in its program.
const TESTKIT: &str = "hearth-testkit";
/// How Python and JavaScript wait by the clock.
const SLEEPS: [&str; 4] = ["sleep", "setTimeout", "wait_for_timeout", "waitForTimeout"];
/// Licences a dependency may have; one of an `OR` is enough.
const LICENCES: [&str; 14] = [
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
    "0BSD",
    "CC0-1.0",
    "BSL-1.0",
    // Of data: the authorities that browsers trust (webpki-roots).
    "CDLA-Permissive-2.0",
];

/// A rule: its name, and what breaks it.
pub type Rule = (&'static str, fn(&Tree) -> Vec<String>);

/// All rules.
pub const RULES: [Rule; 10] = [
    ("dependency direction", direction),
    ("unsafe code", unsafe_code),
    ("sleep in tests", sleep),
    ("file length", length),
    ("drawers", drawers),
    ("documentation lints", documented),
    ("one executable", executable),
    ("licences", licences),
    ("environment", environment),
    ("tracing subscriber", subscriber),
];

/// Reads the tree and applies every rule.
pub fn check() -> Result<(), String> {
    let broken = broken(&Tree::read()?);
    if broken.is_empty() {
        println!("tidy: {} rules hold", RULES.len());
        Ok(())
    } else {
        Err(broken.join("\n"))
    }
}

/// Everything that breaks a rule.
pub fn broken(tree: &Tree) -> Vec<String> {
    RULES
        .iter()
        .flat_map(|(name, rule)| {
            rule(tree)
                .into_iter()
                .map(move |what| format!("tidy: {name}: {what}"))
        })
        .collect()
}

/// Rows `| \`room\` | … | imports |` of the table in the architecture, as package names.
fn allowed(architecture: &str) -> Vec<(String, Vec<String>)> {
    let package = |room: &str| {
        if room == "hearth" || room == "xtask" {
            room.to_owned()
        } else {
            format!("hearth-{room}")
        }
    };
    architecture
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line
                .trim()
                .strip_prefix('|')?
                .strip_suffix('|')?
                .split('|')
                .map(str::trim)
                .collect();
            let room = cells.first()?.strip_prefix('`')?.strip_suffix('`')?;
            let imports = cells
                .last()?
                .split('`')
                .skip(1)
                .step_by(2)
                .map(package)
                .collect();
            Some((package(room), imports))
        })
        .collect()
}

fn direction(tree: &Tree) -> Vec<String> {
    let allowed = allowed(&tree.architecture);
    let ours: Vec<&str> = tree
        .crates
        .iter()
        .map(|member| member.name.as_str())
        .collect();
    let mut broken = Vec::new();
    for member in &tree.crates {
        let Some((_, imports)) = allowed.iter().find(|(name, _)| *name == member.name) else {
            broken.push(format!(
                "{} is not in the table of docs/ARCHITECTURE.md",
                member.name
            ));
            continue;
        };
        for dependency in &member.dependencies {
            let name = &dependency.name;
            let for_tests = dependency.kind == Kind::Development && name == TESTKIT;
            if ours.contains(&name.as_str()) && !imports.contains(name) && !for_tests {
                let place = match dependency.kind {
                    Kind::Normal => "",
                    Kind::Development => " for its tests",
                    Kind::Build => " for its build script",
                };
                broken.push(format!(
                    "{} imports {name}{place}, which docs/ARCHITECTURE.md does not list",
                    member.name
                ));
            }
            if name == "llama-cpp-sys-2" && member.name != "hearth-engine" {
                broken.push(format!(
                    "{} imports {name}; only hearth-engine knows llama.cpp",
                    member.name
                ));
            }
        }
    }
    broken
}

/// Lines of code with string contents and comments out of the way, numbered from 1.
fn code(file: &File) -> impl Iterator<Item = (usize, String)> + '_ {
    let comment = if file.path.ends_with(".py") {
        "#"
    } else {
        "//"
    };
    file.text.lines().enumerate().map(move |(at, line)| {
        let quoted = line
            .replace(r"\\", "")
            .replace("\\\"", "")
            .replace("'\"'", "");
        let outside: String = quoted.split('"').step_by(2).collect();
        let code = outside.split(comment).next().unwrap_or_default();
        (at + 1, code.to_owned())
    })
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .any(|other| other == word)
}

/// Not the bare word: it stands in texts that go over several lines.
fn starts_unsafe(line: &str) -> bool {
    let mut places = line.split("unsafe").skip(1).map(str::trim_start);
    places.any(|rest| {
        ["{", "fn ", "impl", "extern", "trait"]
            .iter()
            .any(|start| rest.starts_with(start))
    })
}

fn unsafe_code(tree: &Tree) -> Vec<String> {
    tree.rust()
        .filter(|file| {
            !MAY_BE_UNSAFE
                .iter()
                .any(|place| file.path.starts_with(place))
        })
        .flat_map(|file| code(file).map(move |line| (file, line)))
        .filter(|(_, (_, line))| starts_unsafe(line))
        .map(|(file, (at, _))| format!("{}:{at}", file.path))
        .collect()
}

/// Lines of Rust from the first `#[cfg(test)]` on, or all of a file that holds nothing but tests.
fn test_code(file: &File) -> impl Iterator<Item = (usize, String)> + '_ {
    let mut inside = file.path.contains("/tests/") || file.path.ends_with("/tests.rs");
    code(file).filter(move |(_, line)| {
        inside |= line.contains("#[cfg(test)]");
        inside
    })
}

/// Tests in Python or JavaScript: by their folder, or by their name as pytest and Node's test runner see it.
fn is_script_test(path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let Some((stem, ending)) = name.rsplit_once('.') else {
        return false;
    };
    let named = stem.starts_with("test_")
        || ["_test", "-test", ".test", ".spec"]
            .iter()
            .any(|end| stem.ends_with(end));
    ["py", "js", "mjs", "cjs", "ts"].contains(&ending)
        && (named || folder.split('/').any(|part| part == "tests"))
}

fn sleep(tree: &Tree) -> Vec<String> {
    let rust = tree
        .rust()
        .filter(|file| !file.path.starts_with("xtask/src/tidy"))
        .flat_map(|file| test_code(file).map(move |line| (file, line)))
        .filter(|(_, (_, line))| has_word(line, "sleep"));
    let scripts = tree
        .files
        .iter()
        .filter(|file| is_script_test(&file.path))
        .flat_map(|file| code(file).map(move |line| (file, line)))
        .filter(|(_, (_, line))| SLEEPS.iter().any(|word| has_word(line, word)));
    rust.chain(scripts)
        .map(|(file, (at, _))| {
            format!(
                "{}:{at} waits by the clock; wait for a condition instead",
                file.path
            )
        })
        .collect()
}

fn length(tree: &Tree) -> Vec<String> {
    let long = tree
        .files
        .iter()
        .filter(|file| file.path != "Cargo.lock" && !file.path.starts_with("bench/results/"));
    long.map(|file| (&file.path, file.text.lines().count()))
        .filter(|(_, lines)| *lines > LONGEST)
        .map(|(path, lines)| format!("{path} has {lines} lines, more than {LONGEST}"))
        .collect()
}

fn drawers(tree: &Tree) -> Vec<String> {
    let is_drawer =
        |part: &str| DRAWERS.contains(&part.rsplit_once('.').map_or(part, |(stem, _)| stem));
    let paths = tree
        .files
        .iter()
        .map(|file| file.path.as_str())
        .filter(|path| path.split('/').any(is_drawer));
    let names = tree.crates.iter().map(|member| member.name.as_str());
    let names = names.filter(|name| name.split('-').any(|part| DRAWERS.contains(&part)));
    paths
        .chain(names)
        .map(|name| format!("{name} says nothing about what is inside"))
        .collect()
}

/// Documentation of public items is checked by rustc and clippy; here it is made sure that nobody switched that off.
fn documented(tree: &Tree) -> Vec<String> {
    let manifests = tree
        .crates
        .iter()
        .filter(|member| !member.manifest.contains("[lints]\nworkspace = true"))
        .map(|member| format!("{} does not inherit the workspace's lints", member.name));
    let root = tree.text("Cargo.toml").unwrap_or_default();
    let lint = (!root.contains("missing_docs = \"warn\""))
        .then(|| "Cargo.toml does not warn of missing_docs".to_owned());
    let allowed = tree
        .rust()
        .filter(|file| {
            file.text
                .lines()
                .any(|line| line.trim().starts_with("#") && line.contains("allow(missing_docs)"))
        })
        .map(|file| format!("{} allows missing_docs", file.path));
    manifests.chain(lint).chain(allowed).collect()
}

fn executable(tree: &Tree) -> Vec<String> {
    tree.crates
        .iter()
        .flat_map(|member| member.executables.iter().map(move |name| (member, name)))
        .filter(|(member, name)| {
            !(member.name == "hearth" && *name == "hearth" || member.name == "xtask")
        })
        .map(|(member, name)| {
            format!(
                "{} builds `{name}`; `hearth` is the one executable",
                member.name
            )
        })
        .collect()
}

fn licences(tree: &Tree) -> Vec<String> {
    tree.packages
        .iter()
        .filter(|package| !is_allowed(&package.licence))
        .map(|package| format!("{} has the licence `{}`", package.name, package.licence))
        .collect()
}

/// SPDX expressions as they occur: `A OR B`, `A AND B`, `(A OR B) AND C`, and the old `A/B`.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    !expression.is_empty()
        && expression.split(" AND ").all(|part| {
            let part = part.trim().trim_start_matches('(').trim_end_matches(')');
            part.split(" OR ")
                .any(|licence| LICENCES.contains(&licence.trim().trim_matches(['(', ')'])))
        })
}

/// Also `use std::env::{var}`, after which the calls no longer show where they come from.
fn reads_environment(line: &str) -> bool {
    let imported = line.split_once("env::{").is_some_and(|(_, names)| {
        ["var", "var_os", "vars", "vars_os"]
            .iter()
            .any(|name| has_word(names, name))
    });
    imported || line.contains("env::var")
}

fn environment(tree: &Tree) -> Vec<String> {
    tree.rust()
        .filter(|file| {
            !MAY_READ_ENVIRONMENT
                .iter()
                .any(|place| file.path.starts_with(place))
        })
        .filter(|file| {
            !file.path.ends_with("build.rs")
                && !file.path.contains("/tests/")
                && !file.path.contains("/examples/")
        })
        .flat_map(|file| code(file).map(move |line| (file, line)))
        .filter(|(_, (_, line))| reads_environment(line))
        .map(|(file, (at, _))| {
            format!(
                "{}:{at} reads the environment; take a setting instead",
                file.path
            )
        })
        .collect()
}

fn subscriber(tree: &Tree) -> Vec<String> {
    tree.crates
        .iter()
        .filter(|member| !MAY_SUBSCRIBE.contains(&member.name.as_str()))
        .filter(|member| {
            member.dependencies.iter().any(|dependency| {
                dependency.name == "tracing-subscriber" && dependency.kind != Kind::Development
            })
        })
        .map(|member| {
            format!(
                "{} uses tracing-subscriber; only the executable installs a subscriber",
                member.name
            )
        })
        .collect()
}
