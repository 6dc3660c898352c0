//! 10,000 subscribers of one hub, beside nginx with nchan, Redis, and a bare loop of writes; all with the same clients.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::node::{Node, Recipe, memory, wait_until};
use super::{Bench, NONE};
use crate::bench_memory::table::{Table, count, milliseconds, times};
use crate::bench_serve::client::free_port;
use crate::bench_serve::report::{median, output, show};

/// Time between two events, in milliseconds.
const INTERVAL: u64 = 500;
/// Descriptors that a server needs beside those of its subscribers.
const BESIDE: usize = 200;
/// Where nchan's module lies, by the packages of the distributions.
const MODULES: [&str; 2] = [
    "/usr/lib/nginx/modules/ngx_nchan_module.so",
    "/usr/lib64/nginx/modules/ngx_nchan_module.so",
];
const INSTALL: &str =
    "apt-get install --no-install-recommends nginx libnginx-mod-nchan redis-server";

/// Who is measured.
#[derive(Debug, Clone)]
enum System {
    Hearth,
    Nchan { nginx: PathBuf, module: PathBuf },
    Redis(PathBuf),
    Plain,
}

/// A running server.
enum Server {
    Node(Box<Node>),
    Other { child: Child, address: String },
}

impl Drop for Server {
    fn drop(&mut self) {
        let Self::Other { child, .. } = self else {
            return;
        };
        // nginx ends its workers at SIGTERM; killed, it would leave them.
        let process = child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &process]).status();
        let _ = child.wait();
    }
}

impl System {
    fn name(&self) -> &'static str {
        match self {
            Self::Hearth => "hearth, a hub's /events",
            Self::Nchan { .. } => "nginx with nchan, EventSource",
            Self::Redis(_) => "Redis, publish/subscribe",
            Self::Plain => "a bare loop of writes",
        }
    }

    /// What the clients call it.
    fn kind(&self) -> &'static str {
        match self {
            Self::Hearth => "hearth",
            Self::Nchan { .. } => "nchan",
            Self::Redis(_) => "redis",
            Self::Plain => "plain",
        }
    }

    fn start(&self, bench: &Bench) -> Result<Server, String> {
        let folder = bench.folder.join("fanout");
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        match self {
            Self::Hearth => {
                let node = Recipe::new(&bench.hearth(), &folder, "hub", "http")?.start()?;
                // With its first invitation it is a hub.
                node.ask("POST", "/household/invite", Some(&json!({})))?;
                settle(&node)?;
                Ok(Server::Node(Box::new(node)))
            }
            Self::Nchan { nginx, module } => {
                start_nginx(nginx, module, &folder, bench.options.subscribers)
            }
            Self::Redis(program) => {
                let port = free_port()?;
                let clients = bench.options.subscribers + BESIDE;
                let mut command = Command::new(program);
                command
                    .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
                    .args(["--maxclients", &clients.to_string()])
                    .args(["--save", "", "--appendonly", "no", "--tcp-backlog", "4096"])
                    .current_dir(&folder);
                started(command, port)
            }
            Self::Plain => {
                let mut command = Command::new(bench.example("fanout_clients"));
                command
                    .arg("serve")
                    .stdout(Stdio::piped())
                    .stdin(Stdio::null());
                let mut child = command
                    .spawn()
                    .map_err(|error| format!("fanout_clients: {error}"))?;
                let mut line = String::new();
                let out = child.stdout.take().ok_or("fanout_clients has no output")?;
                BufReader::new(out)
                    .read_line(&mut line)
                    .map_err(|error| error.to_string())?;
                let said: Value = serde_json::from_str(&line).map_err(|error| error.to_string())?;
                let address = said["address"].as_str().unwrap_or_default().to_owned();
                Ok(Server::Other { child, address })
            }
        }
    }
}

/// Waits until the hub has said everything about itself: its own news are events too.
fn settle(node: &Node) -> Result<(), String> {
    let cursor =
        || -> Result<Value, String> { Ok(node.ask("GET", "/snapshot", None)?["cursor"].clone()) };
    let (mut last, mut since) = (cursor()?, std::time::Instant::now());
    wait_until("the hub's log to be still", || {
        let now = cursor()?;
        if now != last {
            (last, since) = (now, std::time::Instant::now());
        }
        Ok(since.elapsed().as_secs() >= 6)
    })
}

fn start_nginx(
    nginx: &Path,
    module: &Path,
    folder: &Path,
    subscribers: usize,
) -> Result<Server, String> {
    let port = free_port()?;
    let connections = 2 * (subscribers + BESIDE);
    let place = folder.display();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let settings = format!(
        "load_module {};\n\
         daemon off;\nworker_processes {cores};\nworker_rlimit_nofile {};\n\
         pid {place}/nginx.pid;\nerror_log {place}/nginx.log;\n\
         events {{ worker_connections {connections}; }}\n\
         http {{\n  access_log off;\n  nchan_shared_memory_size 256M;\n\
         client_body_temp_path {place}/body;\n  proxy_temp_path {place}/proxy;\n  fastcgi_temp_path {place}/fastcgi;\n\
         uwsgi_temp_path {place}/uwsgi;\n  scgi_temp_path {place}/scgi;\n\
         server {{\n    listen 127.0.0.1:{port} backlog=4096;\n    keepalive_requests 1000000;\n\
         location = /pub {{ nchan_publisher; nchan_channel_id bench; nchan_message_buffer_length 1000; }}\n\
         location = /sub {{ nchan_subscriber eventsource; nchan_channel_id bench; nchan_subscriber_first_message newest; }}\n\
         }}\n}}\n",
        module.display(),
        subscribers + BESIDE,
    );
    let path = folder.join("nginx.conf");
    std::fs::write(&path, settings).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut command = Command::new(nginx);
    command
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(&path)
        .arg("-e")
        .arg(folder.join("nginx.log"));
    started(command, port)
}

/// Starts a server, and waits until it takes connections.
fn started(mut command: Command, port: u16) -> Result<Server, String> {
    let program = command.get_program().display().to_string();
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let child = command
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let address = format!("127.0.0.1:{port}");
    let mut server = Server::Other {
        child,
        address: address.clone(),
    };
    wait_until(&format!("{program} to answer"), || {
        if let Server::Other { child, .. } = &mut server
            && let Ok(Some(status)) = child.try_wait()
        {
            return Err(format!("{program} ended with {status}"));
        }
        Ok(TcpStream::connect(&address).is_ok())
    })?;
    Ok(server)
}

impl Server {
    fn address(&self) -> String {
        match self {
            Self::Node(node) => node.address(),
            Self::Other { address, .. } => address.clone(),
        }
    }

    /// Resident bytes of all its processes.
    fn memory(&self) -> u64 {
        let process = match self {
            Self::Node(node) => node.process(),
            Self::Other { child, .. } => child.id(),
        };
        let children = output("pgrep", &["-P", &process.to_string()]);
        let children = children.lines().filter_map(|child| child.parse().ok());
        std::iter::once(process)
            .chain(children)
            .filter_map(memory)
            .sum()
    }

    /// Whom its publisher changes: the hub's own record.
    fn target(&self) -> Result<String, String> {
        match self {
            Self::Node(node) => {
                let peers = node.ask("GET", "/peers", None)?;
                Ok(peers["node"].as_str().unwrap_or_default().to_owned())
            }
            Self::Other { .. } => Ok(String::new()),
        }
    }
}

/// A program on the `PATH`, or where Debian keeps those of the administrator.
fn found(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// Who can be measured here; notes the versions, and says what is missing.
fn systems(bench: &mut Bench) -> Vec<System> {
    let mut systems = vec![System::Hearth];
    let module = MODULES
        .iter()
        .map(PathBuf::from)
        .find(|module| module.is_file());
    match (found("nginx"), module) {
        (Some(nginx), Some(module)) => {
            bench.report.fact("nginx", &output(&nginx, &["-v"]));
            let packaged = output(
                "dpkg-query",
                &["-W", "-f", "${Version}", "libnginx-mod-nchan"],
            );
            bench.report.fact("nchan", &packaged);
            systems.push(System::Nchan { nginx, module });
        }
        _ => println!("nginx with nchan is not measured; to have it: {INSTALL}"),
    }
    match found("redis-server") {
        Some(program) => {
            bench
                .report
                .fact("redis", &output(&program, &["--version"]));
            systems.push(System::Redis(program));
        }
        None => println!("Redis is not measured; to have it: {INSTALL}"),
    }
    systems.push(System::Plain);
    systems
}

/// What the rounds of one system came to.
#[derive(Default)]
struct Rounds {
    half: Vec<f64>,
    most: Vec<f64>,
    last: Vec<f64>,
    acknowledged: Vec<f64>,
    bytes: Vec<f64>,
    received: u64,
    lost: u64,
    repeats: u64,
    ended: u64,
}

/// Measures all of them.
pub fn measure(bench: &mut Bench) -> Result<(), String> {
    let allowed = output("sh", &["-c", "ulimit -Hn"]);
    if let Ok(allowed) = allowed.parse::<usize>()
        && allowed < bench.options.subscribers + BESIDE
    {
        return Err(format!(
            "{} subscribers need {} open files in one process, and the system allows {allowed}: raise the limit (`ulimit -n`), or use --subscribers {}",
            bench.options.subscribers,
            bench.options.subscribers + BESIDE,
            allowed.saturating_sub(BESIDE),
        ));
    }
    let subscribers = bench.options.subscribers;
    let events = if bench.options.quick { 10 } else { 40 };
    let turns = bench.options.repeat.min(3);
    let systems = systems(bench);
    let mut all: Vec<Rounds> = systems.iter().map(|_| Rounds::default()).collect();
    // What an event of ours weighs, the others carry too.
    let mut bytes = 900;
    for turn in 0..turns {
        for (system, rounds) in systems.iter().zip(&mut all) {
            println!("  {}, turn {}", system.name(), turn + 1);
            let answer = once(bench, system, events, bytes, rounds)?;
            if let (System::Hearth, 0, Some(weight)) =
                (system, turn, answer["bytes_a_message"].as_u64())
            {
                bytes = weight.max(12);
            }
        }
    }
    let mut table = Table::new(
        &format!(
            "An event to {} subscribers on this machine",
            count(subscribers)
        ),
        &format!(
            "Milliseconds from before an event is published until a subscriber has read it, over all subscribers and {events} \
             events, one every {INTERVAL} ms, {} bytes each; the same clients for all, in one process with one thread \
             that reads, beside the server on the same processors; median over turns. Hearth has the event on the disk \
             before anybody is told; the others keep it in memory. The bare loop writes to one socket after the other and \
             does nothing else. Lost and repeated are of all turns. The aim is a p99 of at most 250 ms, and none lost.",
            count(bytes as usize),
        ),
        &[
            "who",
            "p50",
            "p99",
            "last",
            "publisher's answer p50",
            "p99 of hearth's",
            "lost",
            "repeated",
            "closed",
            "kB a subscriber",
        ],
    );
    let ours = median(&all[0].most);
    for (system, rounds) in systems.iter().zip(&all) {
        table.row(vec![
            system.name().into(),
            milliseconds(median(&rounds.half)),
            milliseconds(median(&rounds.most)),
            milliseconds(median(&rounds.last)),
            milliseconds(median(&rounds.acknowledged)),
            times(median(&rounds.most) / ours),
            rounds.lost.to_string(),
            rounds.repeats.to_string(),
            rounds.ended.to_string(),
            match system {
                System::Plain => NONE.into(),
                _ => show(median(&rounds.bytes) / 1e3),
            },
        ]);
    }
    table.keep(json!(
        all.iter().map(|rounds| rounds.received).collect::<Vec<_>>()
    ));
    bench.add(table)
}

fn once(
    bench: &Bench,
    system: &System,
    events: u64,
    bytes: u64,
    rounds: &mut Rounds,
) -> Result<Value, String> {
    let server = system.start(bench)?;
    let target = server.target()?;
    let mut clients = bench.worker("fanout_clients")?;
    let before = server.memory();
    let connect = json!({
        "do": "connect", "kind": system.kind(), "address": server.address(),
        "subscribers": bench.options.subscribers,
    });
    clients.ask(&connect)?;
    // The first event makes the room that every later one uses.
    let publish = |events: u64| json!({"do": "publish", "target": target, "events": events, "interval_ms": INTERVAL, "bytes": bytes});
    clients.ask(&publish(2))?;
    let answer = clients.ask(&publish(events))?;
    let after = server.memory();
    let number = |name: &str| answer[name].as_f64().unwrap_or(f64::NAN);
    let whole = |name: &str| answer[name].as_u64().unwrap_or_default();
    rounds.half.push(number("p50_ms"));
    rounds.most.push(number("p99_ms"));
    rounds.last.push(number("last_ms"));
    rounds.acknowledged.push(number("acknowledged_ms"));
    rounds
        .bytes
        .push(after.saturating_sub(before) as f64 / bench.options.subscribers as f64);
    rounds.received += whole("received");
    rounds.lost += whole("lost");
    rounds.repeats += whole("repeats");
    rounds.ended += whole("ended");
    Ok(answer)
}
