//! The network and its hosts. Everything that is made here ends with its value.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hearth_protocol::diagnosis::{Code, Diagnosis, Verdict};
use hearth_testkit::gguf::{Quantisation, Shape, write};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

use crate::household::{Household, Ran, until};

/// Port of every node: each host has a loopback of its own.
pub const PORT: u16 = 8321;
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A switch with hosts on it.
pub struct Lan {
    /// What the names of its namespaces begin with.
    prefix: String,
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn ip(line: &str) -> Result<String, String> {
    run("ip", &line.split(' ').collect::<Vec<_>>())
}

fn nft(space: &str, script: &str) {
    let mut child = Command::new("ip")
        .args(["netns", "exec", space, "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(script.as_bytes()).unwrap();
    drop(pipe);
    assert!(child.wait().unwrap().success(), "{script}");
}

impl Lan {
    /// `None`, and a word about it, where namespaces are not to be had.
    pub fn new() -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        sweep();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let lan = Self {
            prefix: format!("hearth-lan-{}-{number}", std::process::id()),
        };
        match lan.make() {
            Ok(()) => Some(lan),
            Err(reason) => {
                eprintln!("skipped: no network namespaces with nftables here: {reason}");
                None
            }
        }
    }

    fn make(&self) -> Result<(), String> {
        let net = self.space("net");
        ip(&format!("netns add {net}"))?;
        run("ip", &["netns", "exec", &net, "nft", "list", "ruleset"])?;
        ip(&format!("-n {net} link add br0 type bridge"))?;
        ip(&format!("-n {net} link set br0 up")).map(|_| ())
    }

    fn space(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Another host, without a node yet. `last` is the last number of its address.
    pub fn host(&self, name: &str, last: u8) -> Host {
        let (net, space) = (self.space("net"), self.space(name));
        for line in [
            format!("netns add {space}"),
            format!("-n {space} link set lo up"),
            format!("-n {net} link add {name} type veth peer name eth0 netns {space}"),
            format!("-n {net} link set {name} master br0 up"),
            format!("-n {space} address add 10.44.0.{last}/24 dev eth0"),
            format!("-n {space} link set eth0 up"),
        ] {
            ip(&line).unwrap_or_else(|error| panic!("ip {line}: {error}"));
        }
        Host {
            name: name.to_owned(),
            ip: format!("10.44.0.{last}"),
            space,
            home: Household::new(),
            settings: Vec::new(),
            node: None,
        }
    }

    /// Three hosts without nodes.
    pub fn three(&self) -> [Host; 3] {
        let mut last = 0;
        ["hub", "one", "two"].map(|name| {
            last += 1;
            self.host(name, last)
        })
    }

    /// Pulls a host's cable, or puts it back.
    pub fn cable(&self, host: &Host, state: &str) {
        let net = self.space("net");
        ip(&format!("-n {net} link set {} {state}", host.name)).unwrap();
    }
}

impl Lan {
    /// The switch loses packets that are longer than this, in bytes, and says nothing.
    pub fn drops_large_packets(&self, longest: usize) {
        let script = format!(
            "table bridge fault {{ chain pass {{ type filter hook forward priority 0; meta length > {longest} drop; }}; }}"
        );
        nft(&self.space("net"), &script);
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for space in spaces().filter(|space| space.starts_with(&self.prefix)) {
            let _ = ip(&format!("netns delete {space}"));
        }
    }
}

fn spaces() -> impl Iterator<Item = String> {
    let listed = run("ip", &["netns", "list"]).unwrap_or_default();
    let lines: Vec<String> = listed
        .lines()
        .filter_map(|line| Some(line.split(' ').next()?.to_owned()))
        .collect();
    lines.into_iter()
}

/// Removes what tests left behind that were ended from outside.
fn sweep() {
    for space in spaces() {
        let number = space
            .strip_prefix("hearth-lan-")
            .and_then(|rest| rest.split('-').next());
        if number.is_some_and(|number| !Path::new("/proc").join(number).exists()) {
            let pids = ip(&format!("netns pids {space}")).unwrap_or_default();
            for pid in pids.lines() {
                let _ = run("kill", &["-KILL", pid]);
            }
            let _ = ip(&format!("netns delete {space}"));
        }
    }
}

/// Starts the nodes and makes them one household, whose first host is its hub.
pub fn join(hosts: &mut [Host]) {
    for host in hosts.iter_mut() {
        host.start();
    }
    let (hub, others) = hosts.split_first_mut().unwrap();
    for other in others {
        other.hearth(&["join", &hub.ticket()]).ok();
    }
    for host in hosts.iter() {
        for other in hosts.iter().filter(|other| other.name != host.name) {
            host.reaches(&other.name);
        }
    }
}

/// A machine.
pub struct Host {
    pub name: String,
    pub ip: String,
    space: String,
    pub home: Household,
    settings: Vec<(&'static str, String)>,
    node: Option<Child>,
}

impl Host {
    /// A setting of its node, by the name of its variable.
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.settings.push((name, value.into()));
    }

    /// Lets it meet others through one kind of door alone.
    pub fn only(&mut self, door: &str) {
        self.set("HEARTH_ADDRESSES", format!("{door}://{}:0", self.ip));
    }

    /// Gives it a model with random weights.
    pub fn model(&self, name: &str) -> PathBuf {
        self.model_of(name, &Shape::TINY)
    }

    /// Gives it a model of that shape.
    pub fn model_of(&self, name: &str, shape: &Shape) -> PathBuf {
        let folder = self.home.home().join("models");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{name}.gguf"));
        write(&file, shape, Quantisation::Q4KM, 1).unwrap();
        file
    }

    /// A program on this host.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space]).arg(program);
        command
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let inner = self.home.command(arguments);
        let mut command = self.program(inner.get_program());
        command.args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(folder) = inner.get_current_dir() {
            command.current_dir(folder);
        }
        command
            .env("HEARTH_HOST", format!("127.0.0.1:{PORT}"))
            .env("HEARTH_NAME", &self.name)
            .env(
                "HEARTH_LOG_LEVEL",
                std::env::var("LANLOG").unwrap_or("info".into()),
            )
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// `hearth ARGUMENTS` on this host.
    pub fn hearth(&self, arguments: &[&str]) -> Ran {
        Ran::new(arguments, self.command(arguments).output().unwrap())
    }

    /// Starts its node.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts its node with a clock that is wrong by so much (`+120s`).
    pub fn start_ahead(&mut self, by: &str) {
        // The wrapper itself would stay between the test and the node.
        let library = run("faketime", &["-f", by, "printenv", "LD_PRELOAD"]);
        let library = library.expect("faketime; `cargo xtask test` installs it");
        self.start_with(&[("LD_PRELOAD", library.trim()), ("FAKETIME", by)]);
    }

    fn start_with(&mut self, environment: &[(&str, &str)]) {
        let log = self.home.path().join("log.txt");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let child = self
            .command(&["serve"])
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.node = Some(child);
        until("the node answers", || {
            let ended = self.node.as_mut().and_then(|node| node.try_wait().unwrap());
            assert!(
                ended.is_none(),
                "the node of {} ended:\n{}",
                self.name,
                self.log()
            );
            (self.try_get("/health")?.0 == 200).then_some(())
        });
    }

    /// What its node logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log.txt")).unwrap_or_default()
    }

    /// Ends its node at once, without a word.
    pub fn kill(&mut self) {
        if let Some(mut node) = self.node.take() {
            let _ = node.kill();
            let _ = node.wait();
        }
    }

    /// Sends its node a signal (`STOP`, `CONT`).
    pub fn signal(&self, name: &str) {
        let pid = self.node.as_ref().unwrap().id().to_string();
        run("kill", &[&format!("-{name}"), &pid]).unwrap();
    }

    /// Rules of nftables.
    pub fn nft(&self, script: &str) {
        nft(&self.space, script);
    }

    /// Drops what comes in and fits this.
    pub fn drops(&self, what: &str) {
        self.nft(&format!(
            "table inet fault {{ chain in {{ type filter hook input priority 0; {what} drop; }}; }}"
        ));
    }

    /// Lets in again what [`Self::drops`] dropped.
    pub fn heals(&self) {
        self.nft("delete table inet fault");
    }

    /// A ticket of its household.
    pub fn ticket(&self) -> String {
        let invitation = self.hearth(&["invite", "--json"]).json();
        invitation["ticket"].as_str().unwrap().to_owned()
    }

    /// Waits until its node has seen that prompts reach another one.
    pub fn reaches(&self, peer: &str) {
        until(&format!("{} reaches {peer}", self.name), || {
            (self.knows(peer, None)?.verdict == Verdict::Usable).then_some(())
        });
    }

    /// Waits until its node knows that another one has a model.
    pub fn knows_model(&self, peer: &str, model: &str) {
        until(&format!("{} knows {model} of {peer}", self.name), || {
            let peers = self.get("/peers").json();
            let members = peers["members"].as_array()?.clone();
            let member = members.into_iter().find(|member| member["name"] == peer)?;
            let models = member["capabilities"]["models"].as_array()?.clone();
            models.iter().any(|one| one["name"] == model).then_some(())
        });
    }

    /// What `hearth doctor PEER` finds here, with probes of its own.
    pub fn doctor(&self, peer: &str, model: Option<&str>) -> Diagnosis {
        let mut arguments = vec!["doctor", peer, "--json"];
        arguments.extend(model.iter().flat_map(|model| ["--model", model]));
        let ran = self.hearth(&arguments);
        let mut found: Vec<Diagnosis> = serde_json::from_str(&ran.out)
            .unwrap_or_else(|error| panic!("{error}: {}{}", ran.out, ran.err));
        let failed = found[0].verdict == Verdict::Failed;
        assert_eq!(ran.code, Some(i32::from(failed)), "{}", ran.err);
        found.remove(0)
    }

    /// What its node knows without looking.
    pub fn knows(&self, peer: &str, model: Option<&str>) -> Option<Diagnosis> {
        let model = model.map_or_else(String::new, |model| format!("&model={model}"));
        let (status, _, body) = self.try_get(&format!("/diagnosis?peer={peer}{model}"))?;
        if status != 200 {
            return None;
        }
        let mut found: Vec<Diagnosis> = serde_json::from_str(&body).unwrap();
        found.pop()
    }

    /// Waits until its node itself says this of another one.
    pub fn says(&self, peer: &str, code: Code) {
        let what = format!("{} says {code} of {peer}", self.name);
        until(&what, || {
            (self.knows(peer, None)?.code() == Some(code)).then_some(())
        });
    }

    /// A chat with these words.
    pub fn chat(&self, model: &str) -> Answer {
        let body = json!({
            "model": model, "max_tokens": 8,
            "messages": [{"role": "user", "content": "What is Hearth?"}],
        });
        self.post("/v1/chat/completions", &body)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.asks(&format!("http://127.0.0.1:{PORT}{path}"), None)
    }

    fn try_get(&self, path: &str) -> Option<(u16, String, String)> {
        let url = format!("http://127.0.0.1:{PORT}{path}");
        let answer = within(&self.space, move || ask(&url, None))?;
        Some((answer.status, answer.node, answer.body))
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.asks(&format!("http://127.0.0.1:{PORT}{path}"), Some(body))
    }

    /// A request from this host to anywhere, `POST` if it has a body.
    pub fn asks(&self, url: &str, body: Option<&Value>) -> Answer {
        let (at, body) = (url.to_owned(), body.map(Value::to_string));
        within(&self.space, move || ask(&at, body)).unwrap_or_else(|| panic!("no answer of {url}"))
    }

    /// An answer of its node that is read as it comes.
    pub fn stream(&self, path: &str, body: &Value) -> Box<dyn Read + Send> {
        let url = format!("http://127.0.0.1:{PORT}{path}");
        let body = body.to_string();
        within(&self.space, move || {
            let answer = agent().post(&url).send(&body).unwrap();
            assert_eq!(answer.status(), 200);
            Box::new(answer.into_body().into_reader()) as Box<dyn Read + Send>
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.name, self.log());
        }
        self.kill();
    }
}

/// An answer that was read.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The machine that answered, as the head says.
    pub node: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(PATIENCE))
        .build()
        .into()
}

fn ask(url: &str, body: Option<String>) -> Option<Answer> {
    let answer = match body {
        None => agent().get(url).call(),
        Some(body) => agent().post(url).send(&body),
    };
    let mut answer = answer.ok()?;
    let node = answer.headers().get("hearth-node");
    Some(Answer {
        status: answer.status().as_u16(),
        node: node.map_or_else(String::new, |node| node.to_str().unwrap().to_owned()),
        body: answer.body_mut().read_to_string().ok()?,
    })
}

/// Runs it on a thread of that namespace; sockets made there stay there.
fn within<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let space = File::open(format!("/run/netns/{name}")).unwrap();
    std::thread::spawn(move || {
        move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    })
    .join()
    .unwrap()
}
