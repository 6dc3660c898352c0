//! A home of its own for each test, commands in it, and nodes that end with it.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes on a slow machine that is busy with other tests.
const DEADLINE: Duration = Duration::from_secs(120);

/// Looks until `met` gives something; fails after the deadline.
pub fn until<T>(what: &str, mut met: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = met() {
            return found;
        }
        assert!(
            begun.elapsed() < DEADLINE,
            "still waiting for {what} after {DEADLINE:?}"
        );
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A user's home folder that nobody else uses.
pub struct Household {
    folder: TempDir,
}

impl Household {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// The folder of everything.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `HEARTH_HOME`.
    pub fn home(&self) -> std::path::PathBuf {
        self.path().join("hearth")
    }

    /// `hearth ARGUMENTS`, untouched by the environment of the tests, with a node on a free port.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let foreign = ["HEARTH_", "HF_", "OTEL_"];
            if foreign.iter().any(|one| text.starts_with(one)) || text == "OLLAMA_HOST" {
                command.env_remove(&name);
            }
        }
        command
            .args(arguments)
            .current_dir(self.path())
            .env("HOME", self.path())
            .env("XDG_CONFIG_HOME", self.path().join("config"))
            .env("XDG_DATA_HOME", self.path().join("data"))
            .env("HEARTH_HOME", self.home())
            .env("HEARTH_HOST", "127.0.0.1:0")
            .env("HEARTH_CONTEXT", "1024")
            .env("HEARTH_THREADS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub fn hearth(&self, arguments: &[&str]) -> Ran {
        Ran::new(arguments, self.command(arguments).output().unwrap())
    }

    /// Runs a command with text on its standard input.
    pub fn hearth_with_input(&self, arguments: &[&str], input: &str) -> Ran {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read to the end closes the pipe; that is its right.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        Ran::new(arguments, child.wait_with_output().unwrap())
    }

    /// Starts `hearth serve` and waits until it answers.
    pub fn serve(&self, arguments: &[&str]) -> Node {
        let all: Vec<&str> = ["serve"].iter().chain(arguments).copied().collect();
        let mut child = self
            .command(&all)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let record = until("node.json", || {
            assert!(
                child.try_wait().unwrap().is_none(),
                "the node ended at once"
            );
            let text = std::fs::read(self.home().join("node.json")).ok()?;
            let record: Value = serde_json::from_slice(&text).ok()?;
            (record["pid"] == child.id()).then_some(record)
        });
        Node {
            address: record["address"].as_str().unwrap().to_owned(),
            child,
        }
    }
}

/// A running node; ends with the value.
pub struct Node {
    /// `host:port`.
    pub address: String,
    pub child: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command did.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    what: String,
}

impl Ran {
    pub fn new(arguments: &[&str], output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
            what: format!("hearth {}", arguments.join(" ")),
        }
    }

    /// It ended with this code.
    #[track_caller]
    pub fn ends_with(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "{}\nstdout: {}\nstderr: {}",
            self.what,
            self.out,
            self.err
        );
        self
    }

    /// It succeeded; its output.
    #[track_caller]
    pub fn ok(self) -> String {
        self.ends_with(0).out
    }

    /// It succeeded; its output as JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        let what = self.what.clone();
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{what}: {error}: {out}"))
    }
}
