//! Real nodes as processes, and a household of them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bench_serve::client::free_port;

/// Longer than anything takes that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a node is started, and started again.
pub struct Recipe {
    program: PathBuf,
    home: PathBuf,
    port: u16,
    words: Vec<String>,
}

impl Recipe {
    /// A node of this name with an empty home, reached by others on loopback through `door` (`http` or `quic`), with one
    /// thread for its models.
    pub fn new(program: &Path, folder: &Path, name: &str, door: &str) -> Result<Self, String> {
        let home = folder.join(name);
        let _ = std::fs::remove_dir_all(&home);
        let failed = |error: std::io::Error| format!("{}: {error}", home.display());
        std::fs::create_dir_all(&home).map_err(failed)?;
        std::fs::write(home.join("none.toml"), "").map_err(failed)?;
        let port = free_port()?;
        // The iroh door takes the node's port, so that it is the same after a restart.
        let address = format!("{door}://127.0.0.1:0");
        let words = [
            "--name",
            name,
            "--addresses",
            &address,
            "--threads",
            "1",
            "--context",
            "1024",
            "--keep-alive",
            "never",
        ];
        Ok(Self {
            program: program.to_owned(),
            home,
            port,
            words: words.map(str::to_owned).to_vec(),
        })
    }

    /// With more flags.
    pub fn with(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Its home.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Starts it, and waits until it answers.
    pub fn start(self) -> Result<Node, String> {
        let child = self.spawn()?;
        let mut node = Node {
            recipe: self,
            child,
        };
        node.wait_until_up()?;
        Ok(node)
    }

    fn spawn(&self) -> Result<Child, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.program.display());
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.home.join("log"))
            .map_err(failed)?;
        // As many descriptors as the system allows: each subscriber takes one.
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg("ulimit -n \"$(ulimit -Hn)\"; exec \"$@\"")
            .arg("sh")
            .arg(&self.program)
            .arg("serve")
            .arg("--home")
            .arg(&self.home)
            .arg("--config")
            .arg(self.home.join("none.toml"))
            .args(["--host", &format!("127.0.0.1:{}", self.port)])
            .args(&self.words);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HEARTH_") {
                command.env_remove(name);
            }
        }
        let errors = log.try_clone().map_err(failed)?;
        command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(failed)
    }
}

/// A running node; it ends when this is dropped.
pub struct Node {
    recipe: Recipe,
    child: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Node {
    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.recipe.port)
    }

    /// The file of its key.
    pub fn key(&self) -> String {
        self.recipe.home.join("identity.key").display().to_string()
    }

    /// What it is.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_up(&mut self) -> Result<(), String> {
        let name = self.recipe.home.display().to_string();
        wait_until(&format!("the node of {name} to answer"), || {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!(
                    "the node of {name} ended with {status}; see {name}/log"
                ));
            }
            let up = Connection::new(&self.address())
                .and_then(|mut door| door.ask("GET", "/health", None));
            Ok(up.is_ok())
        })
    }

    /// One request on a connection of its own; the answer has to be JSON, and a success.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let mut door = Connection::new(&self.address())?;
        let answer = door.ask(method, path, body)?;
        answer.json()
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) -> Result<(), String> {
        self.child.kill().map_err(|error| error.to_string())
    }

    /// Starts it again after [`Node::kill`].
    pub fn again(&mut self) -> Result<(), String> {
        let _ = self.child.wait();
        self.child = self.recipe.spawn()?;
        self.wait_until_up()
    }

    /// Sends it `STOP` or `CONT`.
    pub fn signal(&self, signal: &str) -> Result<(), String> {
        let process = self.process().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &process])
            .status();
        match sent {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("kill -{signal} {process}: {status}")),
            Err(error) => Err(format!("kill: {error}")),
        }
    }

    /// The counters of its only model that answers.
    pub fn load(&self) -> Result<Value, String> {
        let status = self.ask("GET", "/status", None)?;
        let models = status["models"].as_array().into_iter().flatten();
        let loaded = models.map(|model| model["load"].clone());
        Ok(loaded
            .into_iter()
            .find(Value::is_object)
            .unwrap_or(Value::Null))
    }

    /// What it knows of a member of its household by that name.
    pub fn member(&self, name: &str) -> Result<Value, String> {
        let peers = self.ask("GET", "/peers", None)?;
        let members = peers["members"].as_array().into_iter().flatten();
        let found = members.into_iter().find(|member| member["name"] == name);
        Ok(found.cloned().unwrap_or(Value::Null))
    }

    /// Waits until a prompt for `model` gets to the member `name`, as the node sees it.
    pub fn reaches(&self, name: &str, model: &str) -> Result<(), String> {
        wait_until(&format!("the way to {name} to be good"), || {
            let member = self.member(name)?;
            let models = member["capabilities"]["models"].as_array();
            let has = models
                .into_iter()
                .flatten()
                .any(|known| known["name"] == model);
            if !has {
                return Ok(false);
            }
            let path = format!("/diagnosis?probe=true&peer={name}");
            let found = self.ask("GET", &path, None)?;
            Ok(found[0]["verdict"] == "usable")
        })
    }
}

/// The second joins the household of the first.
pub fn join(hub: &Node, other: &Node) -> Result<(), String> {
    let invited = hub.ask("POST", "/household/invite", Some(&json!({})))?;
    let ticket = json!({"ticket": invited["ticket"]});
    other.ask("POST", "/household/join", Some(&ticket))?;
    Ok(())
}

/// Looks until something holds, for at most a minute.
pub fn wait_until(what: &str, mut met: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let begun = Instant::now();
    while !met()? {
        if begun.elapsed() > PATIENCE {
            return Err(format!("waited {PATIENCE:?} for {what}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A connection that stays open: a request costs what it costs, without a client's work.
pub struct Connection {
    stream: TcpStream,
    address: String,
}

/// An answer, read whole and parsed no further than needed.
#[derive(Debug)]
pub struct Answer {
    text: String,
    /// When the first token of a streamed answer was there.
    pub first: Option<Duration>,
    /// When all was there.
    pub whole: Duration,
}

impl Connection {
    /// Connects.
    pub fn new(address: &str) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("{address}: {error}");
        let stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        Ok(Self {
            stream,
            address: address.to_owned(),
        })
    }

    /// Sends a request and reads the answer to its end.
    pub fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, String> {
        let begun = self.send(method, path, body)?;
        self.answer(begun)
    }

    /// Sends a request.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Instant, String> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let begun = Instant::now();
        let sent = self.stream.write_all(request.as_bytes());
        sent.map_err(|error| format!("{path}: {error}"))?;
        Ok(begun)
    }

    /// Reads the answer to what was sent at `begun`.
    pub fn answer(&mut self, begun: Instant) -> Result<Answer, String> {
        let (mut read, mut buffer) = (Vec::new(), [0; 16 << 10]);
        let mut first = None;
        while !is_whole(&read) {
            let length = self.stream.read(&mut buffer);
            let length = length.map_err(|error| format!("{}: {error}", self.address))?;
            if length == 0 {
                let said = String::from_utf8_lossy(&read);
                return Err(format!(
                    "{} closed the connection after `{said:.300}`",
                    self.address
                ));
            }
            let before = read.len().saturating_sub(TOKEN.len());
            read.extend_from_slice(&buffer[..length]);
            if first.is_none() && has_token(&read[before..]) {
                first = Some(begun.elapsed());
            }
        }
        Ok(Answer {
            whole: begun.elapsed(),
            first,
            text: String::from_utf8_lossy(&read).into_owned(),
        })
    }
}

/// What a token looks like in a chunk of a chat.
const TOKEN: &[u8] = b"\"content\":\"";

fn has_token(read: &[u8]) -> bool {
    let mut at = 0;
    while let Some(found) = read[at..]
        .windows(TOKEN.len())
        .position(|some| some == TOKEN)
    {
        at += found + TOKEN.len();
        // The first chunk of a chat names the role and has no text.
        if read.get(at).is_some_and(|&next| next != b'"') {
            return true;
        }
    }
    false
}

/// Whether an answer is all there: as long as it says, or at the last chunk.
fn is_whole(read: &[u8]) -> bool {
    let Some(head) = read.windows(4).position(|some| some == b"\r\n\r\n") else {
        return false;
    };
    let (head, body) = read.split_at(head + 4);
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        return body.ends_with(b"0\r\n\r\n");
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|length| length.trim().parse().ok());
    length.is_none_or(|length| body.len() >= length)
}

impl Answer {
    /// Its status.
    pub fn status(&self) -> u16 {
        let status = self.text.split(' ').nth(1);
        status
            .and_then(|status| status.parse().ok())
            .unwrap_or_default()
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let head = self.text.split("\r\n\r\n").next().unwrap_or_default();
        head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// How many chunks of a chat have text.
    pub fn tokens(&self) -> usize {
        let chunks = self.text.matches("\"content\":\"").count();
        chunks - self.text.matches("\"content\":\"\"").count()
    }

    /// The text of the answer.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The body, of a success.
    pub fn json(&self) -> Result<Value, String> {
        let body = self.text.split_once("\r\n\r\n");
        let body = body.map(|(_, body)| body).unwrap_or_default();
        if !(200..300).contains(&self.status()) {
            return Err(format!("status {}: {body:.300}", self.status()));
        }
        serde_json::from_str(body).map_err(|error| format!("{error} in {body:.200}"))
    }
}

/// Resident memory of a process in bytes.
pub fn memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_text_and_not_a_role() {
        assert!(!has_token(
            br#"{"delta":{"role":"assistant","content":""}}"#
        ));
        assert!(has_token(br#"{"delta":{"content":" a"}}"#));
    }

    #[test]
    fn an_answer_ends_where_it_says() {
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{"));
        assert!(is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"));
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n";
        assert!(!is_whole(chunked));
        assert!(is_whole(&[&chunked[..], b"0\r\n\r\n"].concat()));
    }
}
