//! The iroh door through its public surface: over loopback, through a relay of our own, and in a network namespace where
//! every packet that leaves can be counted.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hearth_mesh::quic::{
    ALPN, Accepted, Admission, CONNECT_LIMIT, IDLE_LIMIT, PER_KEY, Quic, QuicError, QuicOptions,
    QuicStream, STRANGER_STREAMS, STRANGERS, STREAMS,
};
use hearth_protocol::household::{Address, NodeId};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn on(ip: IpAddr) -> QuicOptions {
    QuicOptions {
        ip: Some(ip),
        ..QuicOptions::default()
    }
}

async fn door(secret: u8, admission: Admission) -> Arc<Quic> {
    let door = Quic::bind([secret; 32], on(LOOPBACK), move |_| admission).await;
    Arc::new(door.unwrap())
}

fn address(door: &Quic) -> Vec<Address> {
    door.bound().into_iter().map(Address::Quic).collect()
}

/// Answers every request with its own body, and its sender's key as `peer`.
async fn echo(accepted: Accepted) {
    let peer = accepted.peer.to_string();
    let service = service_fn(move |request: Request<Incoming>| {
        let peer = peer.clone();
        async move {
            let body = request.into_body().collect().await?.to_bytes();
            let answer = Response::builder().header("peer", peer);
            Ok::<_, hyper::Error>(answer.body(Full::new(body)).unwrap())
        }
    });
    let io = TokioIo::new(accepted.stream);
    // Whoever leaves in the middle is no failure of the server.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(io, service)
        .await;
}

/// Serves until the door closes.
fn serve(door: &Arc<Quic>) {
    let door = Arc::clone(door);
    tokio::spawn(async move {
        while let Some(accepted) = door.accept().await {
            tokio::spawn(echo(accepted));
        }
    });
}

async fn client(stream: QuicStream) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn exchange(sender: &mut SendRequest<Full<Bytes>>, body: Bytes) -> hyper::Result<String> {
    sender.ready().await?;
    let request = Request::post("/peer/echo").header("host", "peer");
    let request = request.body(Full::new(body.clone())).unwrap();
    let answer = sender.send_request(request).await?;
    let peer = answer.headers()["peer"].to_str().unwrap().to_owned();
    assert_eq!(answer.into_body().collect().await?.to_bytes(), body);
    Ok(peer)
}

async fn ask(from: &Quic, to: NodeId, addresses: &[Address]) -> String {
    let mut sender = client(from.connect(to, addresses).await.unwrap()).await;
    exchange(&mut sender, Bytes::from_static(b"hello"))
        .await
        .unwrap()
}

/// Looks every few milliseconds, for at most twenty seconds.
async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(5));
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "never: {what}");
        look.tick().await;
    }
}

fn failure(outcome: Result<QuicStream, QuicError>) -> QuicError {
    outcome.map(|_| ()).unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_every_size_pass_both_ways_over_one_connection() {
    let (a, b) = (
        door(1, Admission::Member).await,
        door(2, Admission::Member).await,
    );
    serve(&b);
    let mut sender = client(a.connect(b.id(), &address(&b)).await.unwrap()).await;
    for size in [0, 1, 64 << 10, 8 << 20] {
        let body = Bytes::from((0..size).map(|at| (at % 251) as u8).collect::<Vec<_>>());
        let peer = exchange(&mut sender, body).await.unwrap();
        assert_eq!(peer, a.id().to_string(), "the key that TLS proved");
    }
    let path = a.path(b.id()).unwrap();
    assert!(!path.relayed);
    assert_eq!(vec![path.address], address(&b));
    assert!(path.round_trip > Duration::ZERO && path.round_trip < Duration::from_secs(1));
    assert!(path.last_handshake < Duration::from_secs(60));
    assert!(b.path(a.id()).is_some(), "seen from the other side, too");
    assert_eq!(a.path(a.id()), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_share_one_connection() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let b = Quic::bind([4; 32], on(LOOPBACK), move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Admission::Member
    });
    let (a, b) = (door(3, Admission::Member).await, Arc::new(b.await.unwrap()));
    serve(&b);
    let all: Vec<_> = (0..300)
        .map(|_| {
            let (a, id, addresses) = (Arc::clone(&a), b.id(), address(&b));
            tokio::spawn(async move { ask(&a, id, &addresses).await })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.unwrap(), a.id().to_string());
    }
    assert_eq!(
        asked.load(Ordering::Relaxed),
        301,
        "one connection, and 300 streams"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_dialled_us_is_reached_without_an_address() {
    let (a, b) = (
        door(5, Admission::Member).await,
        door(6, Admission::Member).await,
    );
    serve(&a);
    serve(&b);
    assert_eq!(failure(b.connect(a.id(), &[]).await), QuicError::NoAddress);
    ask(&a, b.id(), &address(&b)).await;
    assert_eq!(ask(&b, a.id(), &[]).await, b.id().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_at_the_address_is_told_apart() {
    let (a, b) = (
        door(7, Admission::Member).await,
        door(8, Admission::Member).await,
    );
    let gone = door(9, Admission::Member).await.id();
    let started = Instant::now();
    let outcome = a.connect(gone, &address(&b)).await;
    assert_eq!(failure(outcome), QuicError::OtherKey);
    assert!(started.elapsed() < CONNECT_LIMIT, "it is known at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_at_the_address_is_a_time_out_which_those_who_wait_share() {
    let silent = std::net::UdpSocket::bind((LOOPBACK, 0)).unwrap();
    let addresses = [Address::Quic(silent.local_addr().unwrap())];
    let (a, gone) = (
        door(13, Admission::Member).await,
        door(14, Admission::Member).await.id(),
    );
    let started = Instant::now();
    let (first, second) = tokio::join!(a.connect(gone, &addresses), a.connect(gone, &addresses));
    assert_eq!(failure(first), QuicError::TimedOut);
    assert_eq!(failure(second), QuicError::TimedOut);
    assert!(started.elapsed() < CONNECT_LIMIT * 3 / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_dialled_is_said() {
    let a = door(15, Admission::Member).await;
    let b = door(16, Admission::Member).await.id();
    let relay = Address::Relay("https://relay.example/".to_owned());
    let http = Address::Http(SocketAddr::from((LOOPBACK, 1)));
    assert_eq!(
        failure(a.connect(b, &[http, relay]).await),
        QuicError::NoAddress
    );
    let own = a.connect(a.id(), &address(&a)).await;
    assert_eq!(failure(own), QuicError::Own);
    let not_a_key = NodeId([2; 32]);
    assert_eq!(
        failure(a.connect(not_a_key, &address(&a)).await),
        QuicError::NotAKey
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_is_told_apart() {
    let a = door(17, Admission::Member).await;
    let other = iroh::Endpoint::builder(iroh::endpoint::presets::Minimal)
        .alpns(vec![b"hearth/peer/0".to_vec()])
        .clear_ip_transports()
        .bind_addr((LOOPBACK, 0))
        .unwrap()
        .bind()
        .await
        .unwrap();
    assert_ne!(ALPN, b"hearth/peer/0");
    let addresses: Vec<_> = other
        .bound_sockets()
        .into_iter()
        .map(Address::Quic)
        .collect();
    let id = NodeId(*other.id().as_bytes());
    tokio::spawn(async move {
        while let Some(incoming) = other.accept().await {
            let _ = incoming.await;
        }
    });
    assert_eq!(failure(a.connect(id, &addresses).await), QuicError::Version);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_admitted_is_told_so_and_nothing_of_it_is_read() {
    let (a, b) = (
        door(18, Admission::Member).await,
        door(19, Admission::Refused).await,
    );
    assert_eq!(
        failure(a.connect(b.id(), &address(&b)).await),
        QuicError::Refused
    );
    b.close().await;
    assert!(b.accept().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_is_cut_off_at_once_and_stays_out() {
    let removed = Arc::new(AtomicUsize::new(0));
    let flag = Arc::clone(&removed);
    let b = Quic::bind([21; 32], on(LOOPBACK), move |_| {
        match flag.load(Ordering::SeqCst) {
            0 => Admission::Member,
            _ => Admission::Refused,
        }
    });
    let (a, b) = (door(20, Admission::Member).await, b.await.unwrap());
    let mut stream = a.connect(b.id(), &address(&b)).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let mut accepted = b.accept().await.unwrap();
    assert_eq!(accepted.admission, Admission::Member);
    assert_eq!(accepted.stream.read_u8().await.unwrap(), b'x');
    removed.store(1, Ordering::SeqCst);
    b.disconnect(a.id());
    assert!(stream.read_u8().await.is_err());
    assert!(accepted.stream.read_u8().await.is_err());
    assert_eq!(b.path(a.id()), None);
    assert_eq!(
        failure(a.connect(b.id(), &address(&b)).await),
        QuicError::Refused
    );
}

/// Whoever is no longer admitted is noticed at the next stream even if nobody said [`Quic::disconnect`].
#[tokio::test(flavor = "multi_thread")]
async fn admission_is_asked_again_for_every_stream() {
    let calls = AtomicUsize::new(0);
    let b = Quic::bind([23; 32], on(LOOPBACK), move |_| {
        match calls.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Admission::Member,
            _ => Admission::Refused,
        }
    });
    let (a, b) = (
        door(22, Admission::Member).await,
        Arc::new(b.await.unwrap()),
    );
    serve(&b);
    let mut sender = client(a.connect(b.id(), &address(&b)).await.unwrap()).await;
    exchange(&mut sender, Bytes::new()).await.unwrap();
    let mut second = a.connect(b.id(), &address(&b)).await.unwrap();
    second.write_all(b"x").await.unwrap();
    assert!(second.read_u8().await.is_err());
    assert!(exchange(&mut sender, Bytes::new()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_few_streams_at_once() {
    let (a, b) = (
        door(24, Admission::Member).await,
        door(25, Admission::Stranger).await,
    );
    serve(&b);
    let mut open = Vec::new();
    for _ in 0..STRANGER_STREAMS {
        let mut sender = client(a.connect(b.id(), &address(&b)).await.unwrap()).await;
        exchange(&mut sender, Bytes::new()).await.unwrap();
        open.push(sender);
    }
    let mut another = {
        let (a, id) = (Arc::clone(&a), b.id());
        tokio::spawn(async move { a.connect(id, &[]).await })
    };
    for sender in &mut open {
        exchange(sender, Bytes::from_static(b"still served"))
            .await
            .unwrap();
    }
    assert!(!another.is_finished());
    open.pop();
    let stream = (&mut another).await.unwrap().unwrap();
    exchange(&mut client(stream).await, Bytes::new())
        .await
        .unwrap();
}

/// A member may hold so many streams and say nothing on them; the next one waits until one of them ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_gets_so_many_streams_at_once() {
    let (a, b) = (
        door(45, Admission::Member).await,
        door(46, Admission::Member).await,
    );
    let mut open = Vec::new();
    let mut taken = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = a.connect(b.id(), &address(&b)).await.unwrap();
        stream.write_all(b"G").await.unwrap();
        taken.push(b.accept().await.unwrap());
        open.push(stream);
    }
    let waiting = a.connect(b.id(), &[]);
    tokio::pin!(waiting);
    tokio::select! {
        biased;
        early = &mut waiting => panic!("{early:?}"),
        // This side ends them, as a door does whose limits are reached; the member notices.
        () = async {
            taken.clear();
            for stream in &mut open {
                assert!(stream.read_u8().await.is_err());
            }
        } => open.clear(),
    }
    let mut stream = waiting.await.unwrap();
    stream.write_all(b"x").await.unwrap();
    b.accept().await.unwrap();
}

/// However many keys somebody makes up, strangers have few places together, and members are served.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_have_few_connections_together() {
    let member = door(47, Admission::Member).await;
    let known = member.id();
    let b = Quic::bind([48; 32], on(LOOPBACK), move |peer| match peer == known {
        true => Admission::Member,
        false => Admission::Stranger,
    });
    let b = Arc::new(b.await.unwrap());
    serve(&b);
    let mut strangers = Vec::new();
    for number in 0..=STRANGERS {
        let stranger = door(100 + number as u8, Admission::Refused).await;
        let asked = stranger.connect(b.id(), &address(&b)).await;
        match number < STRANGERS {
            // Connected, and silent.
            true => strangers.push((asked.unwrap(), stranger)),
            false => assert_eq!(failure(asked), QuicError::Busy),
        }
    }
    let served = ask(&member, b.id(), &address(&b)).await;
    assert_eq!(served, member.id().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_leaves_the_door_open() {
    let (a, b) = (
        door(42, Admission::Member).await,
        door(43, Admission::Stranger).await,
    );
    serve(&b);
    let flooder = iroh::Endpoint::builder(iroh::endpoint::presets::Minimal)
        .clear_ip_transports()
        .bind_addr((LOOPBACK, 0))
        .unwrap()
        .bind()
        .await
        .unwrap();
    let id = iroh::EndpointId::from_bytes(&b.id().0).unwrap();
    let at = iroh::EndpointAddr::new(id).with_ip_addr(b.bound()[0]);
    ask(&a, b.id(), &address(&b)).await;
    let made = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..80 {
        let (flooder, at, made) = (flooder.clone(), at.clone(), Arc::clone(&made));
        tokio::spawn(async move {
            if let Ok(connection) = flooder.connect(at, ALPN).await {
                made.lock().unwrap().push(connection);
            }
        });
    }
    assert_eq!(ask(&a, b.id(), &[]).await, a.id().to_string());
    wait_until("all but a few of one key are closed", || {
        let made = made.lock().unwrap();
        let live = made.iter().filter(|one| one.close_reason().is_none());
        made.len() > 4 * PER_KEY && live.count() <= PER_KEY
    })
    .await;
    let late = door(44, Admission::Member).await;
    assert_eq!(
        ask(&late, b.id(), &address(&b)).await,
        late.id().to_string()
    );
}

/// A runtime of one thread does nothing unless it is driven: a peer on one that is no longer driven is a frozen process,
/// whose socket still takes packets.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_vanishes_breaks_its_streams_within_the_idle_limit() {
    let (tell, told) = tokio::sync::oneshot::channel();
    let (freeze, frozen) = tokio::sync::oneshot::channel::<()>();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let peer = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let _door = runtime.block_on(async {
            let door = door(27, Admission::Member).await;
            serve(&door);
            tell.send((door.id(), address(&door))).unwrap();
            frozen.await.unwrap();
            door
        });
        ended.recv().unwrap();
    });
    let a = door(26, Admission::Member).await;
    let (id, addresses) = told.await.unwrap();
    let mut stream = a.connect(id, &addresses).await.unwrap();
    stream
        .write_all(b"POST /peer/echo HTTP/1.1\r\nhost: peer\r\n")
        .await
        .unwrap();
    ask(&a, id, &addresses).await;

    freeze.send(()).unwrap();
    let started = Instant::now();
    assert!(stream.read_u8().await.is_err());
    let noticed = started.elapsed();
    assert!(
        noticed > IDLE_LIMIT / 2,
        "a hiccup is no death: {noticed:?}"
    );
    assert!(noticed < IDLE_LIMIT * 3 / 2, "noticed after {noticed:?}");
    assert_eq!(a.path(id), None);
    end.send(()).unwrap();
    peer.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_closes_says_so() {
    let (a, b) = (
        door(28, Admission::Member).await,
        door(29, Admission::Member).await,
    );
    let mut stream = a.connect(b.id(), &address(&b)).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert!(b.accept().await.is_some());
    let started = Instant::now();
    b.close().await;
    assert!(stream.read_u8().await.is_err());
    assert!(started.elapsed() < IDLE_LIMIT, "told, and not noticed");
    wait_until("the connection is forgotten", || a.path(b.id()).is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_replaced_by_a_free_one() {
    let taken = std::net::UdpSocket::bind((LOOPBACK, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let options = QuicOptions {
        port,
        ..on(LOOPBACK)
    };
    let a = Quic::bind([30; 32], options, |_| Admission::Member)
        .await
        .unwrap();
    assert_ne!(a.bound()[0].port(), port);
    drop(taken);

    let options = QuicOptions {
        port,
        ..on(LOOPBACK)
    };
    let b = Quic::bind([31; 32], options, |_| Admission::Member)
        .await
        .unwrap();
    assert_eq!(b.bound()[0].port(), port);
}

#[tokio::test]
async fn a_relay_that_is_no_url_is_an_error() {
    for relay in ["relay.example", "ftp://relay.example/", ""] {
        let options = QuicOptions {
            relay: Some(relay.to_owned()),
            ..on(LOOPBACK)
        };
        let outcome = Quic::bind([32; 32], options, |_| Admission::Member).await;
        let failure = outcome.map(|_| ()).unwrap_err().to_string();
        assert!(failure.contains("https://HOST/"), "{failure}");
    }
}

/// One has only an IPv4 socket and the other only an IPv6 one, so that no direct path can be.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_of_our_own_carries_what_finds_no_direct_path() {
    let Ok(_) = std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) else {
        println!("skipped: this machine has no IPv6 loopback");
        return;
    };
    let mut config = iroh_relay::server::ServerConfig::default();
    config.relay = Some(iroh_relay::server::RelayConfig::new((LOOPBACK, 0)));
    let relay = iroh_relay::server::Server::spawn(config).await.unwrap();
    let url = format!("http://{}/", relay.http_addr().unwrap());
    let through = |ip: IpAddr| QuicOptions {
        relay: Some(url.clone()),
        ..on(ip)
    };
    let a = Quic::bind([33; 32], through(LOOPBACK), |_| Admission::Member);
    let b = Quic::bind([34; 32], through(Ipv6Addr::LOCALHOST.into()), |_| {
        Admission::Member
    });
    let (a, b) = (a.await.unwrap(), Arc::new(b.await.unwrap()));
    serve(&b);
    let own = Address::Relay(url.clone());
    wait_until("the relay is reached", || b.addresses().contains(&own)).await;

    let mut sender = client(a.connect(b.id(), std::slice::from_ref(&own)).await.unwrap()).await;
    let body = Bytes::from(vec![7; 1 << 20]);
    assert_eq!(
        exchange(&mut sender, body).await.unwrap(),
        a.id().to_string()
    );
    let path = a.path(b.id()).unwrap();
    assert!(path.relayed);
    assert_eq!(path.address, own);

    // Once a direct path exists, iroh goes over to it.
    let c = Quic::bind([35; 32], through(LOOPBACK), |_| Admission::Member);
    let c = Arc::new(c.await.unwrap());
    serve(&c);
    wait_until("the relay is reached", || c.addresses().contains(&own)).await;
    ask(&a, c.id(), std::slice::from_ref(&own)).await;
    wait_until("the direct path is found", || {
        a.path(c.id()).is_some_and(|path| !path.relayed)
    })
    .await;
}

/// Runs an ignored test of this file in a network namespace of its own; says why where that is not allowed.
fn in_namespace(test: &str) {
    let unshare = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--net", "--"])
            .args(arguments);
        command.output()
    };
    match unshare(&["ip", "link", "set", "lo", "up"]) {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
            return;
        }
        Err(error) => {
            println!("skipped: no `unshare`: {error}");
            return;
        }
    }
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", test, "--ignored", "--nocapture"];
    let output = unshare(&[&[program.to_str().unwrap()], &arguments[..]].concat()).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    print!("{said}");
}

fn ip(arguments: &str) {
    let done = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// An interface whose other end nobody listens at, and which counts what would have left through it.
fn add_interface(name: &str, address: &str) {
    let end = format!("{name}-end");
    ip(&format!("link add {name} type veth peer name {end}"));
    for name in [name, &end] {
        // Else the kernel itself would look for routers and neighbours.
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
        ip(&format!("link set {name} up"));
    }
    ip(&format!("addr add {address}/24 dev {name}"));
}

fn packets_sent(interface: &str) -> u64 {
    let counters = std::fs::read_to_string("/proc/net/dev").unwrap();
    let counters = counters
        .lines()
        .find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))
        .unwrap();
    counters.split_whitespace().nth(9).unwrap().parse().unwrap()
}

/// Whether this is a fresh namespace, and not the machine of somebody who runs ignored tests by hand.
fn is_namespace() -> bool {
    let interfaces = std::fs::read_to_string("/proc/net/dev").unwrap();
    let fresh = interfaces.lines().skip(2).all(|line| line.contains("lo:"));
    if !fresh {
        println!("skipped: only for a network namespace that the test made");
    }
    fresh
}

/// A network with a way to everywhere else.
fn default_route_through(interface: &str) {
    ip("link set lo up");
    add_interface(interface, "192.0.2.1");
    ip("route add default via 192.0.2.254");
}

async fn everywhere(secret: u8, mdns: bool) -> Arc<Quic> {
    let options = QuicOptions {
        mdns,
        ..QuicOptions::default()
    };
    let door = Quic::bind([secret; 32], options, |_| Admission::Member).await;
    Arc::new(door.unwrap())
}

#[test]
fn nothing_but_the_given_addresses_is_contacted() {
    in_namespace("contacts_nobody");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run in a namespace by nothing_but_the_given_addresses_is_contacted"]
async fn contacts_nobody() {
    if !is_namespace() {
        return;
    }
    default_route_through("away");
    let (a, b) = (everywhere(36, false).await, everywhere(37, false).await);
    serve(&b);
    let port = b.bound()[0].port();
    let addresses = [Address::Quic(SocketAddr::from((LOOPBACK, port)))];
    ask(&a, b.id(), &addresses).await;
    wait_until("keep-alives and path searches went by", || {
        let path = a.path(b.id()).unwrap();
        path.last_handshake > Duration::from_secs(2)
    })
    .await;
    // A network comes and goes. For a moment after, the address that the peer had in it is still tried.
    ip("route add blackhole 198.51.100.0/24 metric 9999");
    add_interface("more", "198.51.100.1");
    let came = Address::Quic(SocketAddr::from((Ipv4Addr::new(198, 51, 100, 1), port)));
    wait_until("the new address is known", || b.addresses().contains(&came)).await;
    ask(&a, b.id(), &addresses).await;
    assert_eq!((packets_sent("away"), packets_sent("more")), (0, 0));
    ip("link del more");
    wait_until("the address is gone", || !b.addresses().contains(&came)).await;
    ask(&a, b.id(), &addresses).await;
    assert_eq!(packets_sent("away"), 0, "nobody was contacted");

    // The counter counts: what is dialled leaves by the default route.
    let gone = everywhere(38, false).await.id();
    let outside = [Address::Quic(SocketAddr::from(([203, 0, 113, 7], 9)))];
    tokio::spawn(async move { a.connect(gone, &outside).await });
    wait_until("the default route is taken", || packets_sent("away") > 0).await;
}

#[test]
fn neighbours_find_each_other_by_mdns_where_it_is_on() {
    in_namespace("finds_neighbours");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run in a namespace by neighbours_find_each_other_by_mdns_where_it_is_on"]
async fn finds_neighbours() {
    if !is_namespace() {
        return;
    }
    default_route_through("home");
    let (a, b) = (everywhere(39, true).await, everywhere(40, true).await);
    let quiet = everywhere(41, false).await;
    serve(&b);
    assert_eq!(ask(&a, b.id(), &[]).await, a.id().to_string());
    assert_eq!(
        failure(quiet.connect(b.id(), &[]).await),
        QuicError::NoAddress
    );
}
