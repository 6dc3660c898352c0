//! Searches as another program has them: `POST /memory/search` of a node, over loopback.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use super::Bench;
use crate::bench_serve::client::{Server, free_port};
use crate::cargo::{succeed, target};

/// Where the program lies that is measured.
pub(super) fn program() -> PathBuf {
    target().join("release/hearth")
}

/// How long each of `asked` searches takes among `size` memories, in milliseconds, of all and of a project's.
pub(super) fn searches(
    bench: &mut Bench,
    size: usize,
    asked: usize,
) -> Result<[Vec<f64>; 2], String> {
    let home = PathBuf::from(bench.path("home"));
    // What an earlier run left.
    let _ = std::fs::remove_dir_all(&home);
    let failed = |error: std::io::Error| format!("{}: {error}", home.display());
    std::fs::create_dir_all(home.join("encoders")).map_err(failed)?;
    if let Some(folder) = &bench.options.encoder {
        let folder = folder.canonicalize().map_err(failed)?;
        lay(&folder, &home.join("encoders/minilm")).map_err(failed)?;
    }
    let ask = json!({"do": "notes", "count": size, "questions": 2 * asked + WARM});
    let made = bench.ours.ask(&ask)?;
    let lines: Vec<String> = made["notes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(Value::to_string)
        .collect();
    let notes = home.join("notes.jsonl");
    std::fs::write(&notes, lines.join("\n")).map_err(failed)?;
    let config = home.join("none.toml");
    std::fs::write(&config, "").map_err(failed)?;
    let hearth = |words: &[&str]| {
        let mut command = Command::new(program());
        command.args(words);
        command.arg("--home").arg(&home);
        command.arg("--config").arg(&config);
        command
    };
    let import = ["memory", "import", &notes.display().to_string()];
    succeed(&mut hearth(&import))?;
    let port = free_port()?;
    let serve = ["serve", "--host", &format!("127.0.0.1:{port}")];
    let mut node = Server::start(hearth(&serve), port, &home.join("log"))?;
    node.wait_until_up("/health")?;
    let questions = made["questions"].as_array().into_iter().flatten();
    let mut questions = questions.map(|question| (&question["text"], &question["project"]));
    let mut search = |project: bool| -> Result<f64, String> {
        let (query, of) = questions.next().ok_or("there are too few questions")?;
        let mut body = json!({"query": query, "limit": 10});
        if project {
            body["project"] = of.clone();
        }
        let begun = Instant::now();
        let found = node.post("/memory/search", &body)?;
        let took = begun.elapsed().as_secs_f64() * 1e3;
        match found["memories"].is_array() {
            true => Ok(took),
            false => Err(format!("/memory/search answered {found}")),
        }
    };
    for _ in 0..WARM {
        search(false)?;
    }
    let mut times = |project| (0..asked).map(|_| search(project)).collect();
    let all: Result<Vec<f64>, String> = times(false);
    let of_project: Result<Vec<f64>, String> = times(true);
    Ok([all?, of_project?])
}

/// Searches that are not counted: the first one opens the encoder.
const WARM: usize = 10;

/// Has a folder be found at another place too.
#[cfg(unix)]
fn lay(folder: &Path, at: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(folder, at)
}

/// Has a folder be found at another place too.
#[cfg(windows)]
fn lay(folder: &Path, at: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_dir(folder, at)
}
