//! What the doors between nodes cost, for `cargo xtask bench mesh`. Each line of standard input is a question in JSON, and
//! is answered by a line; times are milliseconds.
//!
//! - `{"do": "echo", "over": "tcp", "bytes": 512, "rounds": 100}`: round trips of bare bytes on loopback, over TCP or over a
//!   stream of the iroh door (`quic`): what no request can be faster than;
//! - `{"do": "meet", "key": "FILE", "node": "ID", "addresses": ["http://…"]}`, then `{"do": "ask", "method": "POST",
//!   "path": "/peer/memory/search", "body": {…}, "rounds": 30}`: requests to a node as the node of that key;
//! - `{"do": "here", "address": "127.0.0.1:8321"}`, then `ask` with `"here": true`: the same to a node's own door;
//! - `{"do": "gate", "count": 5000, "bytes": 1024}`: how many requests a second are signed, checked and refused as copies,
//!   beside bare Ed25519;
//! - `{"do": "seals", "count": 100000}`: how long the seals of so many records take;
//! - `{"do": "open", "rounds": 200}`: new connections to a node in this process, on each of which it proves who it is: TCP
//!   alone, and a request with all that comes before it, over a new and over a warm connection;
//! - `{"do": "transfer", "bytes": 60000000}`: how long an answer of so many bytes takes over loopback.

use std::error::Error;
use std::io::BufRead;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hearth_mesh::doors::Door;
use hearth_mesh::http::Http;
use hearth_mesh::identity::{Identity, verify};
use hearth_mesh::peers::Peers;
use hearth_mesh::quic::{Admission, Quic, QuicOptions};
use hearth_mesh::roster::{Record, Roster};
use hearth_mesh::signature::{IDENTITY, Verifier, sign, sign_answer};
use hearth_protocol::household::{Address, Capabilities, Member, NodeId, PeerModel, Sealed};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Done<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Longest that a question to a node may take.
const HEAD: Duration = Duration::from_secs(30);

fn main() -> Done<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut asker = Asker::default();
    for line in std::io::stdin().lock().lines() {
        let question: Value = serde_json::from_str(&line?)?;
        let answer = runtime.block_on(asker.answer(&question));
        println!(
            "{}",
            answer.unwrap_or_else(|error| json!({"error": error.to_string()}))
        );
    }
    Ok(())
}

#[derive(Default)]
struct Asker {
    far: Option<(Peers, NodeId, Vec<Address>)>,
    here: Option<(SendRequest<Full<Bytes>>, String)>,
}

impl Asker {
    async fn answer(&mut self, question: &Value) -> Done<Value> {
        let number = |name: &str| -> Done<usize> {
            let number = question[name].as_u64().ok_or(format!("{name}: a number"))?;
            Ok(usize::try_from(number)?)
        };
        match question["do"].as_str() {
            Some("echo") => {
                let (bytes, rounds) = (number("bytes")?, number("rounds")?);
                let times = match question["over"].as_str() {
                    Some("quic") => echo_quic(bytes, rounds).await?,
                    _ => echo_tcp(bytes, rounds).await?,
                };
                Ok(json!({ "times": times }))
            }
            Some("meet") => {
                self.meet(question).await?;
                Ok(json!({}))
            }
            Some("here") => {
                let address = question["address"].as_str().unwrap_or_default();
                self.here = Some((connect(address.parse()?).await?, address.to_owned()));
                Ok(json!({}))
            }
            Some("ask") => self.ask(question, number("rounds")?).await,
            Some("gate") => gate(number("count")?, number("bytes")?),
            Some("seals") => seals(number("count")?),
            Some("open") => opening(number("rounds")?).await,
            Some("transfer") => transfer(number("bytes")?).await,
            _ => Err("do: echo, meet, here, ask, gate, seals, open or transfer".into()),
        }
    }

    /// The next `ask` goes to this node, through the door of its addresses.
    async fn meet(&mut self, question: &Value) -> Done<()> {
        let key = question["key"].as_str().unwrap_or_default();
        let identity = Identity::load_or_create(Path::new(key))?;
        let node = question["node"].as_str().unwrap_or_default().parse()?;
        let addresses = question["addresses"].as_array().into_iter().flatten();
        let addresses = addresses.map(|address| address.as_str().unwrap_or_default().parse());
        let addresses: Vec<Address> = addresses.collect::<Result<_, _>>()?;
        let quic = Quic::bind(identity.secret(), on_loopback(), |_| Admission::Refused).await?;
        let doors: Vec<Arc<dyn Door>> = vec![Arc::new(quic), Arc::new(Http)];
        let peers = Peers::new(identity, doors, Arc::new(now));
        self.far = Some((peers, node, addresses));
        Ok(())
    }

    /// The same question again and again, over one connection.
    async fn ask(&mut self, question: &Value, rounds: usize) -> Done<Value> {
        let path = question["path"].as_str().unwrap_or_default();
        let body = match &question["body"] {
            Value::Null => Bytes::new(),
            body => body.to_string().into(),
        };
        let method = question["method"].as_str().unwrap_or("GET");
        let request = || {
            Request::builder()
                .method(Method::from_bytes(method.as_bytes()).unwrap_or_default())
                .uri(path)
                .header("content-type", "application/json")
                .body(body.clone())
        };
        let (mut times, mut last) = (Vec::with_capacity(rounds), Bytes::new());
        for _ in 0..rounds {
            let begun = Instant::now();
            let response = if question["here"] == true {
                let (sender, address) = self.here.as_mut().ok_or("`here` first")?;
                sender.ready().await?;
                let mut request = request()?.map(Full::new);
                let host = address.parse()?;
                request.headers_mut().insert(http::header::HOST, host);
                sender.send_request(request).await?
            } else {
                let (peers, node, addresses) = self.far.as_ref().ok_or("`meet` first")?;
                let answer = peers.send(*node, addresses, request()?, HEAD).await?;
                answer.response
            };
            let status = response.status();
            last = response.into_body().collect().await?.to_bytes();
            times.push(milliseconds(begun.elapsed()));
            if !status.is_success() {
                let said = String::from_utf8_lossy(&last).into_owned();
                return Err(format!("{path} answered {status}: {said:.300}").into());
            }
        }
        let answer: Value = serde_json::from_slice(&last).unwrap_or(Value::Null);
        Ok(json!({"times": times, "count": answer["count"], "bytes": last.len()}))
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn on_loopback() -> QuicOptions {
    QuicOptions {
        ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        ..QuicOptions::default()
    }
}

async fn connect(address: SocketAddr) -> Done<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn echo_tcp(bytes: usize, rounds: usize) -> Done<Vec<f64>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        if let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let _ = send_back(stream).await;
        }
    });
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    round_trips(stream, bytes, rounds).await
}

async fn echo_quic(bytes: usize, rounds: usize) -> Done<Vec<f64>> {
    let [here, there] = [Identity::generate(), Identity::generate()];
    let server = Quic::bind(there.secret(), on_loopback(), |_| Admission::Member).await?;
    let addresses: Vec<Address> = server.bound().into_iter().map(Address::Quic).collect();
    let serving = tokio::spawn(async move {
        while let Some(accepted) = server.accept().await {
            tokio::spawn(send_back(accepted.stream));
        }
    });
    let client = Quic::bind(here.secret(), on_loopback(), |_| Admission::Refused).await?;
    let stream = client.connect(there.id(), &addresses).await?;
    let times = round_trips(stream, bytes, rounds).await;
    client.close().await;
    serving.abort();
    times
}

async fn send_back(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).await?;
    }
}

async fn round_trips(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    bytes: usize,
    rounds: usize,
) -> Done<Vec<f64>> {
    let mut buffer = vec![7; bytes];
    let mut times = Vec::with_capacity(rounds);
    // The first ones wake what sleeps.
    for round in 0..rounds + 10 {
        let begun = Instant::now();
        stream.write_all(&buffer).await?;
        stream.read_exact(&mut buffer).await?;
        if round >= 10 {
            times.push(milliseconds(begun.elapsed()));
        }
    }
    Ok(times)
}

/// The gate of the signed HTTP door, on one thread.
fn gate(count: usize, bytes: usize) -> Done<Value> {
    let (asker, asked) = (Identity::generate(), Identity::generate().id());
    let body = vec![b'x'; bytes];
    let request = || {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/peer/generate");
        request.body(body.clone())
    };
    let mut requests = (0..count)
        .map(|_| request())
        .collect::<Result<Vec<_>, _>>()?;
    let a_second = |begun: Instant| count as f64 / begun.elapsed().as_secs_f64();

    let time = now();
    let begun = Instant::now();
    for request in &mut requests {
        sign(&asker, &asked, time, request);
    }
    let signed = a_second(begun);

    let verifier = Verifier::new(asked, time);
    let mut requests: Vec<_> = requests.into_iter().map(Request::into_parts).collect();
    let begun = Instant::now();
    for (head, body) in &requests {
        let verified = verifier.check(head, time, |_| true)?;
        verified.check_body(body)?;
    }
    let checked = a_second(begun);
    let begun = Instant::now();
    for (head, _) in &requests {
        if verifier.check(head, time, |_| true).is_ok() {
            return Err("a copy passed".into());
        }
    }
    let copies = a_second(begun);
    // Refused before anything is computed: what it costs to turn away who means another node.
    for (head, _) in &mut requests {
        let other = Identity::from_secret(&[1; 32]).id().to_string();
        head.headers.insert("hearth-to", other.parse()?);
    }
    let begun = Instant::now();
    for (head, _) in &requests {
        if verifier.check(head, time, |_| true).is_ok() {
            return Err("a request for another node passed".into());
        }
    }
    let strays = a_second(begun);

    // As long as a signature base is, about.
    let text = vec![b'x'; 500];
    let begun = Instant::now();
    for _ in 0..count {
        std::hint::black_box(asker.sign(std::hint::black_box(&text)));
    }
    let bare_sign = a_second(begun);
    let signature = asker.sign(&text);
    let begun = Instant::now();
    for _ in 0..count {
        if !verify(&asker.id(), std::hint::black_box(&text), &signature) {
            return Err("a good signature did not pass".into());
        }
    }
    Ok(json!({
        "sign_per_s": signed,
        "check_per_s": checked,
        "copies_per_s": copies,
        "strays_per_s": strays,
        "ed25519_sign_per_s": bare_sign,
        "ed25519_verify_per_s": a_second(begun),
    }))
}

/// The seals of a whole state, on one thread: each checked, then each taken by a roster.
fn seals(count: usize) -> Done<Value> {
    let hub = Identity::generate();
    let made = |number: usize| -> Done<Sealed> {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let model = |name: &str| PeerModel {
            name: name.to_owned(),
            size_bytes: 1_834_426_016,
            context: 40_960,
            decode_tokens_per_second: 14.6,
            prefill_tokens_per_second: 280.0,
            slots: 4,
            ..PeerModel::default()
        };
        Ok(hub.seal(&Member {
            household: hub.id(),
            node: NodeId(id),
            name: format!("machine-{number}"),
            version: 1,
            hub: false,
            removed: false,
            addresses: vec!["http://192.0.2.7:8321".parse()?],
            capabilities: Capabilities {
                version: "0.1.0".to_owned(),
                models: vec![model("qwen3:1.7b"), model("llama3.2:1b")],
                ..Capabilities::default()
            },
        })?)
    };
    let records = (0..count).map(made).collect::<Done<Vec<_>>>()?;
    let begun = Instant::now();
    let (mut checked, mut refused) = (Vec::with_capacity(count), None);
    for sealed in records {
        match Record::open(sealed, &hub.id()) {
            Ok(record) => checked.push(record),
            Err(error) => refused = Some(error.to_string()),
        }
    }
    let opened = begun.elapsed();
    let mut roster = Roster::new(hub.id());
    let begun = Instant::now();
    let mut taken = 0_usize;
    for record in checked {
        taken += usize::from(roster.take(record));
    }
    let inserted = begun.elapsed();
    Ok(json!({
        "open_ms": milliseconds(opened),
        "roster_ms": milliseconds(inserted),
        "taken": taken,
        "refused": refused,
    }))
}

/// What the proof of who answers adds to a new connection at the signed HTTP door.
async fn opening(rounds: usize) -> Done<Value> {
    let own = Identity::generate();
    let node = own.id();
    let verifier = Arc::new(Verifier::new(node, now()));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let (own, verifier) = (own.clone(), Arc::clone(&verifier));
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (head, _) = request.into_parts();
                let passed = verifier.check(&head, now(), |_| true).is_ok();
                let mut answer = http::Response::new(Full::<Bytes>::default());
                if !passed {
                    *answer.status_mut() = http::StatusCode::UNAUTHORIZED;
                }
                if head.uri.path() == IDENTITY {
                    sign_answer(&own, &head, now(), &mut answer);
                }
                async move { Ok::<_, http::Error>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    let peers = Peers::new(Identity::generate(), vec![Arc::new(Http)], Arc::new(now));
    let addresses = [Address::Http(address)];
    let (mut connects, mut cold, mut warm) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let begun = Instant::now();
        let stream = TcpStream::connect(address).await?;
        connects.push(milliseconds(begun.elapsed()));
        drop(stream);
        peers.forget(&node);
        for times in [&mut cold, &mut warm] {
            let request = Request::get("/peer/echo").body(Bytes::new())?;
            let begun = Instant::now();
            let answer = peers.send(node, &addresses, request, HEAD).await?;
            let status = answer.response.status();
            answer.response.into_body().collect().await?;
            times.push(milliseconds(begun.elapsed()));
            if !status.is_success() {
                return Err(format!("the node answered {status}").into());
            }
        }
    }
    serving.abort();
    Ok(json!({"connect": connects, "cold": cold, "warm": warm}))
}

/// One answer over loopback, as a snapshot comes.
async fn transfer(bytes: usize) -> Done<Value> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let body = Bytes::from(vec![b'x'; bytes]);
    tokio::spawn(async move {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let service = service_fn(move |_| {
            let body = body.clone();
            async move { Ok::<_, http::Error>(http::Response::new(Full::new(body))) }
        });
        let connection = hyper::server::conn::http1::Builder::new();
        let _ = connection
            .serve_connection(TokioIo::new(stream), service)
            .await;
    });
    let mut sender = connect(address).await?;
    let begun = Instant::now();
    let request = Request::builder()
        .uri("/snapshot")
        .header("host", "localhost");
    let response = sender.send_request(request.body(Full::default())?).await?;
    let received = response.into_body().collect().await?.to_bytes().len();
    let took = begun.elapsed();
    match received == bytes {
        true => Ok(json!({"ms": milliseconds(took)})),
        false => Err(format!("{received} of {bytes} bytes came").into()),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
