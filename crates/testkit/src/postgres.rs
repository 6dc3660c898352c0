//! A PostgreSQL of a test's own: a cluster in a temporary folder, reached through a socket there, gone with the value.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// PostgreSQL refuses to run as root; this user is on every system, and owns nothing.
const UNPRIVILEGED: &str = "nobody";
/// Where packages put the server's programs, which are not on the path on Debian and its kin.
const FOLDERS: [&str; 4] = [
    "/usr/lib/postgresql",
    "/usr/local/lib/postgresql",
    "/opt/homebrew/opt",
    "/usr/local/opt",
];

/// A running cluster. It is stopped and deleted when it is dropped, and, on Linux as root, when its test is killed.
#[derive(Debug)]
pub struct Postgres {
    server: Child,
    folder: tempfile::TempDir,
    databases: std::sync::atomic::AtomicU32,
}

impl Postgres {
    /// Makes and starts a cluster.
    ///
    /// # Panics
    /// If PostgreSQL is not installed, or does not start.
    pub fn start() -> Self {
        // Not where TMPDIR says: the name of a socket has at most 107 bytes.
        let base = Path::new("/tmp");
        let folder = tempfile::Builder::new()
            .prefix("hearth-pg-")
            .tempdir_in(base)
            .expect("a folder in /tmp");
        if is_root() {
            run(Command::new("chown").arg(UNPRIVILEGED).arg(folder.path()));
        }
        let data = folder.path().join("data");
        run(unprivileged(&program("initdb"))
            .args(["--username=hearth", "--auth=trust", "--encoding=UTF8"])
            .args(["--locale=C", "--no-sync", "--pgdata"])
            .arg(&data));
        // Durability is the operating system's here; a crash of the machine ends the test too.
        let mut server = unprivileged(&program("postgres"))
            .args(["-c", "listen_addresses=", "-c", "fsync=off"])
            .args(["-c", "autovacuum=off", "-c", "max_connections=60"])
            .arg("-k")
            .arg(folder.path())
            .arg("-D")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("PostgreSQL starts");
        let mut log = BufReader::new(server.stderr.take().expect("its log"));
        let mut said = String::new();
        while !said.contains("ready to accept connections") {
            let read = log.read_line(&mut said).expect("its log");
            assert!(read > 0, "PostgreSQL does not start: {said}");
        }
        // Read on, so that it never waits for somebody to.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self {
            server,
            folder,
            databases: 0.into(),
        }
    }

    /// The URL of a new, empty database.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn database(&self) -> String {
        let number = &self.databases;
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("test{number}");
        self.run("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// Runs statements in the database of this name.
    ///
    /// # Panics
    /// If they fail.
    pub fn run(&self, database: &str, sql: &str) {
        run(Command::new(program("psql"))
            .args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"])
            .args(["--dbname", &self.url(database), "--command", sql])
            .stdout(Stdio::null()));
    }

    /// Keeps everybody else from these tables, so that whoever reads them hears nothing, until [`Postgres::end_locks`].
    ///
    /// # Panics
    /// If there are no such tables.
    pub fn lock(&self, url: &str, tables: &str) {
        let mut holder = Command::new(program("psql"))
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .args(["--set=ON_ERROR_STOP=1", "--dbname", url])
            .args([
                "--command",
                &format!("BEGIN; LOCK TABLE {tables}; SELECT 1"),
            ])
            .args(["--command", "SELECT pg_sleep(3600)"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("psql starts");
        let mut said = String::new();
        let mut lines = BufReader::new(holder.stdout.take().expect("its output"));
        lines.read_line(&mut said).expect("its output");
        assert_eq!(said.trim(), "1", "{tables} cannot be locked");
        // It ends with its connection.
        std::thread::spawn(move || holder.wait());
    }

    /// Lets everybody at what was locked.
    pub fn end_locks(&self) {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()";
        self.run("postgres", end);
    }

    fn url(&self, database: &str) -> String {
        let folder = self.folder.path().display();
        format!("postgres:///{database}?host={folder}&user=hearth")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT, its immediate shutdown, lets it clean up its shared memory.
        let _ = Command::new("kill")
            .args(["-QUIT", &self.server.id().to_string()])
            .status();
        let _ = self.server.wait();
    }
}

/// A command that is not run by root, and, where that takes another program, ends with the thread that starts it.
fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={UNPRIVILEGED}"))
        .args(["--clear-groups", "--pdeathsig=QUIT"])
        .arg(program)
        // The one it is started in may be root's alone.
        .current_dir("/");
    command
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// A program of PostgreSQL's, by the highest version that is installed.
fn program(name: &str) -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = FOLDERS
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .map(|folder| (version(&folder), folder.join("bin").join(name)))
        .filter(|(_, program)| program.is_file())
        .collect();
    found.sort();
    found
        .pop()
        .map_or_else(|| name.into(), |(_, program)| program)
}

/// `15` of `15` and of `postgresql@15`.
fn version(folder: &Path) -> u32 {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits.parse().unwrap_or(0)
}

fn run(command: &mut Command) {
    let output = command.output();
    let output = output.unwrap_or_else(|error| {
        panic!("{command:?}: {error}; `cargo xtask test` says what to install")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
