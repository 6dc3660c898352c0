//! Real nftables between two machines, each a network namespace that the test makes and removes.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hearth_mesh::firewall::{Event, FirewallError, Nft, Settings, Watch};
use serde_json::Value;

use super::settings;

/// How long an answer of the next machine may take before it counts as dropped.
const ANSWER: Duration = Duration::from_millis(700);

/// The aim for a repair.
const BACK_WITHIN: Duration = Duration::from_secs(7);

/// Written from Tailscale's description of its rules.
const TAILSCALE: &str = r#"
table ip filter {
    chain ts-input {
        iifname "lo" ip saddr 100.101.102.103 counter accept
        ip saddr 100.115.92.0/23 iifname != "tailscale0" counter return
        ip saddr 100.64.0.0/10 iifname != "tailscale0" counter drop
        udp dport 41641 counter accept
    }
    chain INPUT {
        type filter hook input priority filter; policy accept;
        counter jump ts-input
        tcp dport 7000 drop
    }
}
table ip6 filter {
    chain ts-input {
        iifname "tailscale0" counter accept
    }
    chain INPUT {
        type filter hook input priority filter; policy accept;
        counter jump ts-input
    }
}
"#;

/// Written from Mullvad's description of its killswitch.
const KILLSWITCH: &str = r#"
table inet mullvad {
    chain input {
        type filter hook input priority filter; policy drop;
        iif "lo" accept
        ct mark 0x00000f41 accept
        iifname "wg0-mullvad" accept
        udp sport 67 udp dport 68 accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
    }
    chain output {
        type filter hook output priority filter; policy drop;
        oif "lo" accept
        ct mark 0x00000f41 accept
        udp sport 68 udp dport 67 accept
        oifname "wg0-mullvad" accept
        reject
    }
}
"#;

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

/// Two machines with two links between them: `wg0` carries the mesh, `lan0` does not. Both have addresses of
/// 100.64.0.0/10.
struct Machines {
    here: String,
    there: String,
}

impl Machines {
    /// `None`, and a word about it, where namespaces or nft are not to be had.
    fn new() -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |side: &str| format!("hearth-fw-{}-{number}-{side}", std::process::id());
        let machines = Self {
            here: name("a"),
            there: name("b"),
        };
        match machines.make() {
            Ok(()) => Some(machines),
            Err(reason) => {
                eprintln!("skipped: no network namespaces with nftables here: {reason}");
                None
            }
        }
    }

    fn make(&self) -> Result<(), String> {
        let ip = |line: &str| run("ip", &line.split(' ').collect::<Vec<_>>());
        let (here, there) = (&self.here, &self.there);
        for name in [here, there] {
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link set lo up"))?;
            run("ip", &["netns", "exec", name, "nft", "list", "ruleset"])?;
        }
        for (link, third) in [("wg0", WG), ("lan0", LAN)] {
            ip(&format!(
                "-n {here} link add {link} type veth peer name {link} netns {there}"
            ))?;
            for (name, last) in [(here, 1), (there, 2)] {
                ip(&format!(
                    "-n {name} address add 100.{third}.0.{last}/24 dev {link}"
                ))?;
                ip(&format!("-n {name} link set {link} up"))?;
            }
        }
        ip(&format!(
            "-n {here} address add 100.{WG}.0.{SECOND}/24 dev wg0"
        ))?;
        Ok(())
    }

    /// The firewall under test.
    fn nft(&self) -> Nft {
        Nft::through(["ip", "netns", "exec", &self.there])
    }

    fn load(&self, script: &str) {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.there, "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(script.as_bytes()).unwrap();
        drop(pipe);
        assert!(child.wait().unwrap().success(), "{script}");
    }

    /// The ruleset without what changes by itself.
    fn listed(&self) -> Value {
        let text = run(
            "ip",
            &["netns", "exec", &self.there, "nft", "-j", "list", "ruleset"],
        )
        .unwrap();
        let mut listing: Value = serde_json::from_str(&text).unwrap();
        strip(&mut listing);
        listing
    }

    /// Answers on all ports in question, over TCP and UDP, until the process ends.
    fn serve(&self) {
        for (name, last) in [(&self.here, 1), (&self.there, 2)] {
            within(name, move || {
                let sockets = [7000, 8321, 9000].map(|port| [(WG, port), (LAN, port)]);
                for (link, port) in sockets.into_iter().flatten() {
                    let address = SocketAddr::from(([100, link, 0, last], port));
                    let listener = TcpListener::bind(address).unwrap();
                    std::thread::spawn(move || {
                        for mut stream in listener.incoming().flatten() {
                            let _ = stream.write_all(b"hearth");
                        }
                    });
                    let socket = UdpSocket::bind(address).unwrap();
                    std::thread::spawn(move || {
                        let mut buffer = [0; 16];
                        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                            let _ = socket.send_to(&buffer[..length], from);
                        }
                    });
                }
            });
        }
    }

    /// Whether a machine gets a word from the other one.
    fn speaks(&self, way: Way, link: u8, port: u16) -> bool {
        let (from, last) = match way {
            Way::In => (&self.here, 2),
            Way::Out => (&self.there, 1),
        };
        let address = SocketAddr::from(([100, link, 0, last], port));
        within(from, move || {
            TcpStream::connect_timeout(&address, ANSWER).is_ok_and(|mut stream| {
                stream.set_read_timeout(Some(ANSWER)).unwrap();
                stream.read_exact(&mut [0; 6]).is_ok()
            })
        })
    }

    fn echoes(&self, link: u8, port: u16) -> bool {
        let address = SocketAddr::from(([100, link, 0, 2], port));
        within(&self.here, move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(ANSWER)).unwrap();
            socket.send_to(b"hearth", address).unwrap();
            socket.recv(&mut [0; 16]).is_ok()
        })
    }

    /// A connection from Hearth's port to another one.
    fn sneaks(&self, port: u16) -> bool {
        within(&self.here, move || {
            let socket = socket2::Socket::new(
                socket2::Domain::IPV4,
                socket2::Type::STREAM,
                Some(socket2::Protocol::TCP),
            )
            .unwrap();
            socket.set_reuse_address(true).unwrap();
            let own = SocketAddr::from(([100, WG, 0, SECOND], 8321));
            socket.bind(&own.into()).unwrap();
            let address = SocketAddr::from(([100, WG, 0, 2], port));
            socket.connect_timeout(&address.into(), ANSWER).is_ok()
        })
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in [&self.here, &self.there] {
            let _ = run("ip", &["netns", "delete", name]);
        }
    }
}

#[derive(Clone, Copy)]
enum Way {
    In,
    Out,
}

/// Second number of the addresses of each link.
const WG: u8 = 64;
const LAN: u8 = 65;

/// Last number of an address on which nobody listens.
const SECOND: u8 = 3;

/// Runs it on a thread of that namespace; sockets and threads made there stay there.
fn within<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let space = File::open(format!("/run/netns/{name}")).unwrap();
    std::thread::spawn(move || {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        use std::os::fd::AsFd;
        move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    })
    .join()
    .unwrap()
}

fn strip(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(strip),
        Value::Object(fields) => {
            fields.remove("handle");
            if let Some(counter) = fields.get_mut("counter") {
                *counter = Value::Null;
            }
            fields.values_mut().for_each(strip);
        }
        _ => {}
    }
}

/// Waits until it holds and says how long that took.
fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    begun.elapsed()
}

#[test]
fn tailscales_rule_lets_the_mesh_in_and_nothing_else() {
    let Some(machines) = Machines::new() else {
        return;
    };
    machines.serve();
    assert!(
        machines.speaks(Way::In, WG, 8321) && machines.echoes(WG, 8321) && machines.sneaks(9000),
        "the links work"
    );
    machines.load(TAILSCALE);
    let before = machines.listed();
    assert!(!machines.speaks(Way::In, WG, 8321) && !machines.echoes(WG, 8321));
    assert!(
        !machines.speaks(Way::Out, WG, 8321),
        "answers are dropped, too"
    );

    let (nft, settings) = (machines.nft(), settings(&["wg0"]));
    let plan = nft.install(&settings).unwrap();
    assert_eq!(plan.owed.len(), 3, "{}", plan.script());
    assert!(machines.speaks(Way::In, WG, 8321) && machines.echoes(WG, 8321));
    assert!(machines.speaks(Way::Out, WG, 8321));
    assert!(!machines.speaks(Way::In, WG, 9000), "another port");
    assert!(!machines.speaks(Way::In, LAN, 8321), "another interface");
    assert!(
        !machines.sneaks(9000),
        "a connection from Hearth's port to another"
    );
    assert_eq!(
        nft.plan(&settings).unwrap().blocked_by_owner,
        [],
        "nothing of the owner's is in the way"
    );

    let installed = machines.listed();
    assert!(nft.install(&settings).unwrap().is_settled());
    assert_eq!(machines.listed(), installed);

    // The owner's rules behind the jump still decide.
    let owners = Settings {
        port: 7000,
        ..settings.clone()
    };
    let plan = nft.install(&owners).unwrap();
    assert_eq!(
        plan.blocked_by_owner[0].blocked,
        ["TCP to port 7000 from wg0"]
    );
    assert!(!machines.speaks(Way::In, WG, 7000));
    assert_eq!(plan.surplus.len(), 3, "those of the former port");

    assert_eq!(nft.uninstall().unwrap().surplus.len(), 3);
    assert_eq!(machines.listed(), before);
    assert!(!machines.speaks(Way::In, WG, 8321));
    assert!(nft.uninstall().unwrap().is_settled());
}

#[test]
fn a_killswitch_lets_the_mesh_through_and_nothing_else() {
    let Some(machines) = Machines::new() else {
        return;
    };
    machines.serve();
    machines.load(KILLSWITCH);
    machines.load(TAILSCALE);
    let before = machines.listed();
    for way in [Way::In, Way::Out] {
        assert!(!machines.speaks(way, WG, 8321));
    }
    let (nft, settings) = (machines.nft(), settings(&["wg0"]));
    let plan = nft.install(&settings).unwrap();
    assert_eq!(plan.owed.len(), 10, "{}", plan.script());
    for way in [Way::In, Way::Out] {
        assert!(machines.speaks(way, WG, 8321));
        assert!(!machines.speaks(way, WG, 9000), "another port");
        assert!(!machines.speaks(way, LAN, 8321), "another interface");
    }
    assert!(machines.echoes(WG, 8321) && !machines.echoes(WG, 9000));
    assert!(!machines.sneaks(9000));
    let installed = machines.listed();
    assert!(nft.install(&settings).unwrap().is_settled());
    assert_eq!(machines.listed(), installed);
    nft.uninstall().unwrap();
    assert_eq!(machines.listed(), before);
}

#[test]
fn a_plan_that_is_out_of_date_changes_nothing() {
    let Some(machines) = Machines::new() else {
        return;
    };
    machines.load(KILLSWITCH);
    machines.load(TAILSCALE);
    let (nft, settings) = (machines.nft(), settings(&["wg0"]));
    let plan = nft.plan(&settings).unwrap();
    machines.load("delete table inet mullvad");
    let before = machines.listed();
    let told = nft.apply(&plan).unwrap_err();
    assert!(matches!(told, FirewallError::Restless(_)), "{told}");
    assert_eq!(
        machines.listed(),
        before,
        "Tailscale's part was not put in alone"
    );
}

/// A VPN client reconnects: in one way or the other its rules are made anew, and ours are back in time.
fn rules_come_back(nft: Nft, machines: &Machines) {
    let watch = Watch::new(nft);
    let stop = watch.stop();
    let (tell, told) = mpsc::channel();
    let watching = std::thread::spawn(move || {
        watch.run(
            || settings(&["wg0"]),
            |event| {
                let word = match event {
                    Event::Ready => "ready",
                    Event::Repaired(_) => "repaired",
                    Event::Failed(_) => "failed",
                    Event::Recovered => "recovered",
                };
                let _ = tell.send(word);
            },
        )
    });
    let next = || told.recv_timeout(Duration::from_secs(60)).unwrap();
    // No client runs, so that nothing is owed.
    assert_eq!(next(), "ready");
    machines.load(TAILSCALE);
    machines.load(KILLSWITCH);
    until("way in", || machines.speaks(Way::In, WG, 8321));
    assert_eq!(next(), "repaired");
    for (what, rewrite) in [
        (
            "a table made anew",
            format!("table inet mullvad\ndelete table inet mullvad\n{KILLSWITCH}"),
        ),
        (
            "a chain flushed and filled",
            "flush chain ip filter ts-input\n\
             add rule ip filter ts-input ip saddr 100.64.0.0/10 iifname != \"tailscale0\" drop"
                .to_owned(),
        ),
    ] {
        machines.load(&rewrite);
        let took = until("way back", || machines.speaks(Way::In, WG, 8321));
        eprintln!("{what}: the mesh was back after {took:?}");
        assert!(took < BACK_WITHIN, "{what}: {took:?}");
    }
    stop.stop();
    watching.join().unwrap().unwrap();
    assert!(
        machines.speaks(Way::In, WG, 8321),
        "the end of the watch leaves the rules"
    );
    let plan = machines.nft().plan(&settings(&["wg0"])).unwrap();
    assert_eq!((plan.is_settled(), plan.kept.len()), (true, 10));
    machines.nft().uninstall().unwrap();
    assert!(!machines.speaks(Way::In, WG, 8321));
}

#[test]
fn rules_are_back_in_time_after_a_client_wrote_its_own_anew() {
    let Some(machines) = Machines::new() else {
        return;
    };
    machines.serve();
    rules_come_back(machines.nft(), &machines);
}

#[test]
fn rules_are_back_in_time_where_nft_cannot_monitor() {
    let Some(machines) = Machines::new() else {
        return;
    };
    machines.serve();
    let script = "[ \"$2\" = monitor ] && exit 1; exec \"$@\"";
    let nft = Nft::through([
        "ip",
        "netns",
        "exec",
        &machines.there,
        "sh",
        "-c",
        script,
        "sh",
    ]);
    rules_come_back(nft, &machines);
}

#[test]
fn a_watch_without_rights_ends_at_once() {
    if Machines::new().is_none() {
        return;
    }
    let bare = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"];
    let nobody = bare.iter().chain(&["--reuid", "65534", "--clear-groups"]);
    let watch = Watch::new(Nft::through(nobody.copied()));
    let told = watch.run(|| settings(&["wg0"]), |_| {}).unwrap_err();
    assert!(matches!(told, FirewallError::NotAllowed), "{told}");
    assert!(told.fix().contains("sudo"));
}
