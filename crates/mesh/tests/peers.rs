//! Requests between nodes over loopback, with real sockets: signatures at the HTTP door, warm connections, doors that fail,
//! and the iroh door beside it.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hearth_mesh::doors::{ConnectFailure, Door, DoorKind};
use hearth_mesh::http::Http;
use hearth_mesh::identity::Identity;
use hearth_mesh::peers::{Answer, IDLE, Peers, SendError, SendFailure};
use hearth_mesh::quic::{Admission, Quic, QuicOptions};
use hearth_mesh::refusal::Refusal;
use hearth_mesh::signature::{IDENTITY, REFUSAL, Verifier, sign, sign_answer};
use hearth_protocol::household::{Address, NodeId};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(10);

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// What a served node does before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It answers.
    Proper,
    /// It answers and closes the connection.
    ClosesAfter,
    /// It reads a request and never answers.
    Mute,
    /// It takes one request on a connection, and closes when the next comes, without looking at it.
    ClosesUnread,
    /// The same, after the request was taken.
    ClosesTaken,
    /// It does not even say who it is.
    Frozen,
}

/// A node that verifies requests and sends back their bodies.
struct Node {
    identity: Identity,
    address: SocketAddr,
    seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    /// Connections that came, and that ended.
    opened: AtomicUsize,
    closed: AtomicUsize,
    changed: Notify,
    /// How often it said who it is.
    proofs: AtomicUsize,
    /// Who asked, for what; of requests that passed.
    taken: Mutex<Vec<(NodeId, String)>>,
}

impl Seen {
    async fn until_closed(&self, count: usize) {
        loop {
            let changed = self.changed.notified();
            if self.closed.load(Ordering::SeqCst) >= count {
                return;
            }
            changed.await;
        }
    }
}

impl Node {
    async fn start(manner: Manner) -> Self {
        let identity = Identity::generate();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let verifier = Arc::new(Verifier::new(identity.id(), now()));
        let own = identity.clone();
        let mut tasks = JoinSet::new();
        let all = Arc::clone(&seen);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                all.opened.fetch_add(1, Ordering::SeqCst);
                let (seen, verifier) = (Arc::clone(&all), Arc::clone(&verifier));
                let own = own.clone();
                connections.spawn(async move {
                    serve(stream, &own, &seen, &verifier, manner).await;
                    seen.closed.fetch_add(1, Ordering::SeqCst);
                    seen.changed.notify_waiters();
                });
            }
        });
        Self {
            identity,
            address,
            seen,
            _tasks: tasks,
        }
    }

    fn id(&self) -> NodeId {
        self.identity.id()
    }

    fn http(&self) -> Vec<Address> {
        vec![Address::Http(self.address)]
    }

    fn opened(&self) -> usize {
        self.seen.opened.load(Ordering::SeqCst)
    }

    fn proofs(&self) -> usize {
        self.seen.proofs.load(Ordering::SeqCst)
    }

    fn taken(&self) -> Vec<(NodeId, String)> {
        self.seen.taken.lock().unwrap().clone()
    }
}

/// One connection, on which requests must be signed.
async fn serve(
    stream: TcpStream,
    own: &Identity,
    seen: &Seen,
    verifier: &Verifier,
    manner: Manner,
) {
    let count = AtomicUsize::new(0);
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let asks_who = request.uri().path() == IDENTITY;
        let number = match asks_who {
            true => 0,
            false => count.fetch_add(1, Ordering::SeqCst),
        };
        async move {
            if asks_who {
                if manner == Manner::Frozen {
                    std::future::pending::<()>().await;
                }
                return Ok(prove(request, own, seen, verifier));
            }
            if manner == Manner::ClosesUnread && number == 1 {
                return Err(std::io::Error::other("closes"));
            }
            let mut answer = match take(request, seen, verifier).await {
                Ok(body) => Response::new(Full::new(body)),
                Err(refusal) => refused(refusal),
            };
            if manner == Manner::ClosesAfter {
                let close = "close".parse().unwrap();
                answer.headers_mut().insert("connection", close);
            }
            match manner {
                Manner::Mute => std::future::pending().await,
                Manner::ClosesTaken if number == 1 => Err(std::io::Error::other("closes")),
                _ => Ok(answer),
            }
        }
    });
    let http = hyper::server::conn::http1::Builder::new();
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

fn refused(refusal: Refusal) -> Response<Full<Bytes>> {
    Response::builder()
        .status(StatusCode::UNAUTHORIZED)
        .header(REFUSAL, refusal.code.as_str())
        .body(Full::new(Bytes::from(refusal.message)))
        .unwrap()
}

/// Says who it is.
fn prove(
    request: Request<hyper::body::Incoming>,
    own: &Identity,
    seen: &Seen,
    verifier: &Verifier,
) -> Response<Full<Bytes>> {
    let (head, _) = request.into_parts();
    let mut answer = match verifier.check(&head, now(), |_| true) {
        Ok(_) => Response::new(Full::default()),
        Err(refusal) => refused(refusal),
    };
    sign_answer(own, &head, now(), &mut answer);
    seen.proofs.fetch_add(1, Ordering::SeqCst);
    answer
}

async fn take(
    request: Request<hyper::body::Incoming>,
    seen: &Seen,
    verifier: &Verifier,
) -> Result<Bytes, Refusal> {
    let (head, body) = request.into_parts();
    let verified = verifier.check(&head, now(), |_| true)?;
    let body = body.collect().await.unwrap().to_bytes();
    verified.check_body(&body)?;
    let what = format!("{} {}", head.method, head.uri);
    seen.taken.lock().unwrap().push((verified.node, what));
    Ok(body)
}

fn peers(doors: Vec<Arc<dyn Door>>) -> Peers {
    Peers::new(Identity::generate(), doors, Arc::new(now))
}

fn over_http() -> Peers {
    peers(vec![Arc::new(Http)])
}

fn post(body: &'static str) -> Request<Bytes> {
    let request = Request::post("http://ignored/peer/echo?a=1");
    request.body(Bytes::from_static(body.as_bytes())).unwrap()
}

async fn text(answer: Answer) -> (StatusCode, String) {
    let status = answer.response.status();
    let body = answer
        .response
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Sends `body` and reads the whole answer.
async fn echo(peers: &Peers, node: NodeId, addresses: &[Address], body: &'static str) -> bool {
    let answer = peers.send(node, addresses, post(body), SOON).await.unwrap();
    let warm = answer.path.warm;
    assert_eq!(text(answer).await, (StatusCode::OK, body.to_owned()));
    warm
}

async fn failed(peers: &Peers, node: NodeId, addresses: &[Address]) -> SendError {
    let answer = peers.send(node, addresses, post("x"), SOON).await;
    answer.unwrap_err()
}

/// A port on which nobody listens.
async fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn signed_requests_pass_over_one_warm_connection() {
    let node = Node::start(Manner::Proper).await;
    let peers = over_http();
    assert!(!echo(&peers, node.id(), &node.http(), "first").await);
    assert!(echo(&peers, node.id(), &node.http(), "").await);
    let request = Request::get("/peer/echo").body(Bytes::new()).unwrap();
    let answer = peers
        .send(node.id(), &node.http(), request, SOON)
        .await
        .unwrap();
    assert_eq!(answer.path.door, DoorKind::Http);
    assert_eq!(answer.path.address, node.http()[0]);
    assert!(!answer.path.relayed && answer.path.round_trip.is_some());
    text(answer).await;
    assert_eq!((node.opened(), node.proofs()), (1, 1));
    let own = peers.identity().id();
    let echoed = (own, "POST /peer/echo?a=1".to_owned());
    assert_eq!(
        node.taken(),
        [echoed.clone(), echoed, (own, "GET /peer/echo".to_owned())]
    );
    let states = peers.paths(&node.id());
    assert!(
        matches!(states.as_slice(), [state] if state.success.is_some() && state.failure.is_none())
    );
}

#[tokio::test]
async fn requests_at_once_have_a_connection_each() {
    let node = Node::start(Manner::Proper).await;
    let peers = over_http();
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(
            peers
                .send(node.id(), &node.http(), post("x"), SOON)
                .await
                .unwrap(),
        );
    }
    for answer in answers {
        text(answer).await;
    }
    assert!(node.opened() <= 3);
    assert_eq!(
        node.proofs(),
        node.opened(),
        "once on each connection, and never again"
    );
    assert!(echo(&peers, node.id(), &node.http(), "again").await);
}

#[tokio::test]
async fn large_bodies_come_through() {
    let node = Node::start(Manner::Proper).await;
    let body = "x".repeat(1 << 20);
    let request = Request::post("/peer/echo")
        .body(Bytes::from(body.clone()))
        .unwrap();
    let answer = over_http()
        .send(node.id(), &node.http(), request, SOON)
        .await
        .unwrap();
    assert_eq!(text(answer).await, (StatusCode::OK, body));
}

/// Hands on what a client sends to `to`, and keeps it. `change` sees each piece first.
async fn overhear(
    to: Option<SocketAddr>,
    change: impl Fn(&mut Vec<u8>) + Send + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heard);
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let Some(to) = to else {
            return;
        };
        let node = TcpStream::connect(to).await.unwrap();
        let (mut from_client, to_client) = client.into_split();
        let (from_node, mut to_node) = node.into_split();
        tokio::spawn(copy(from_node, to_client));
        let mut piece = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from_client.read(&mut piece).await {
            let mut bytes = piece[..count].to_vec();
            change(&mut bytes);
            kept.lock().unwrap().extend(&bytes);
            to_node.write_all(&bytes).await.unwrap();
        }
    });
    (address, heard)
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

#[tokio::test]
async fn what_was_overheard_is_refused_when_it_comes_again() {
    let node = Node::start(Manner::Proper).await;
    let (between, heard) = overhear(Some(node.address), |_| ()).await;
    let peers = over_http();
    echo(&peers, node.id(), &[Address::Http(between)], "secret").await;
    let copy = heard.lock().unwrap().clone();
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream.write_all(&copy).await.unwrap();
    let mut answer = vec![0; 4096];
    let count = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..count]).to_lowercase();
    assert!(answer.starts_with("http/1.1 401"), "{answer}");
    assert!(answer.contains("hearth-refusal: replayed"), "{answer}");
    assert_eq!(node.taken().len(), 1);
}

#[tokio::test]
async fn what_was_changed_on_its_way_is_refused() {
    for (from, to, code) in [
        ("body", "bodz", "digest_wrong"),
        ("a=1", "a=2", "signature_wrong"),
        ("POST", "PUT ", "signature_malformed"),
    ] {
        let node = Node::start(Manner::Proper).await;
        let change = move |bytes: &mut Vec<u8>| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            *bytes = text.replace(from, to).into_bytes();
        };
        let (between, _) = overhear(Some(node.address), change).await;
        let answer = over_http()
            .send(node.id(), &[Address::Http(between)], post("body"), SOON)
            .await;
        let answer = answer.unwrap();
        if from == "POST" {
            // Two spaces are no request line.
            assert_eq!(answer.response.status(), StatusCode::BAD_REQUEST);
        } else {
            assert_eq!(answer.response.headers()[REFUSAL], code);
        }
        assert_eq!(node.taken(), []);
    }
}

#[tokio::test]
async fn the_wrong_machine_at_an_address_is_told_and_passed_over() {
    let (node, other) = (
        Node::start(Manner::Proper).await,
        Node::start(Manner::Proper).await,
    );
    let peers = over_http();
    let error = failed(&peers, node.id(), &other.http()).await;
    assert_eq!((error.code(), error.sent), ("key_mismatch", false));
    assert_eq!(other.taken(), []);
    let both = [other.http(), node.http()].concat();
    let answer = peers.send(node.id(), &both, post("x"), SOON).await.unwrap();
    assert_eq!(answer.path.address, node.http()[0]);
}

/// What an impostor says to whatever it is sent.
#[derive(Debug, Clone)]
enum Tale {
    /// That all is well.
    Fine,
    /// Who it is really.
    Honest,
    /// That it is the node, with a signature by its own key.
    Forged(NodeId),
    /// What the node said to somebody else.
    Copied(Vec<u8>),
}

/// Somebody who has a node's address now, and keeps what is sent there.
async fn impostor(tale: Tale) -> (Address, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Http(listener.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heard);
    let own = Identity::generate();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = Vec::new();
            let mut piece = vec![0; 1 << 16];
            while let Ok(count @ 1..) = stream.read(&mut piece).await {
                kept.lock().unwrap().extend(&piece[..count]);
                asked.extend(&piece[..count]);
                if asked.ends_with(b"\r\n\r\n") {
                    let said = tale.told(&own, &String::from_utf8(asked.clone()).unwrap());
                    asked.clear();
                    let _ = stream.write_all(&said).await;
                }
            }
        }
    });
    (address, heard)
}

impl Tale {
    fn told(&self, own: &Identity, asked: &str) -> Vec<u8> {
        let mut answer = Response::new(());
        match self {
            Self::Copied(said) => return said.clone(),
            Self::Fine => {}
            Self::Honest => {
                *answer.status_mut() = StatusCode::UNAUTHORIZED;
                let code = "key_mismatch".parse().unwrap();
                answer.headers_mut().insert(REFUSAL, code);
            }
            Self::Forged(node) => {
                // As if it was asked itself, and then in the node's name.
                let line = |name: &str| {
                    let mut lines = asked.lines();
                    lines.find_map(|line| line.strip_prefix(name)).unwrap()
                };
                let signature = line("signature: ");
                let parameters = format!(
                    "(\"@status\" \"signature\";req);created={};keyid=\"{node}\";alg=\"ed25519\";tag=\"hearth-answer\"",
                    now()
                );
                let base = format!(
                    "\"@status\": 200\n\"signature\";req: {signature}\n\"@signature-params\": {parameters}"
                );
                let signed = data_encoding::BASE64.encode(&own.sign(base.as_bytes()));
                let headers = answer.headers_mut();
                let input = format!("hearth={parameters}").parse().unwrap();
                headers.insert("signature-input", input);
                let signed = format!("hearth=:{signed}:").parse().unwrap();
                headers.insert("signature", signed);
            }
        }
        let headers = answer.headers().iter();
        let lines: String = headers
            .map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()))
            .collect();
        let status = answer.status().as_u16();
        format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n{lines}\r\n").into_bytes()
    }
}

/// What a node says to somebody who asks who it is.
async fn proof_of(node: &Node) -> Vec<u8> {
    let mut request = Request::get(IDENTITY).body(Bytes::new()).unwrap();
    sign(&Identity::generate(), &node.id(), now(), &mut request);
    let headers = request.headers().iter();
    let lines: String = headers
        .map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()))
        .collect();
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let text = format!("GET {IDENTITY} HTTP/1.1\r\nconnection: close\r\n{lines}\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await.unwrap();
    assert!(said.starts_with(b"HTTP/1.1 200"));
    // It would be the reason to refuse it that an impostor closes.
    let said = String::from_utf8(said).unwrap();
    said.replace("connection: close\r\n", "").into_bytes()
}

#[tokio::test]
async fn who_has_a_nodes_address_and_not_its_key_is_sent_no_body() {
    let node = Node::start(Manner::Proper).await;
    let copied = proof_of(&node).await;
    for tale in [
        Tale::Fine,
        Tale::Honest,
        Tale::Forged(node.id()),
        Tale::Copied(copied),
    ] {
        let (address, heard) = impostor(tale.clone()).await;
        let peers = over_http();
        for _ in 0..2 {
            let at = std::slice::from_ref(&address);
            let error = peers.send(node.id(), at, post("a secret"), SOON).await;
            let error = error.unwrap_err();
            assert_eq!((error.code(), error.sent), ("key_mismatch", false));
        }
        let states = peers.paths(&node.id());
        let failure = states[0].failure.map(|(_, failure)| failure);
        assert_eq!(failure, Some(ConnectFailure::WrongKey), "{tale:?}");
        let both = [vec![address], node.http()].concat();
        let answer = peers.send(node.id(), &both, post("a secret"), SOON).await;
        let answer = answer.unwrap();
        assert_eq!(answer.path.address, node.http()[0]);
        let heard = String::from_utf8(heard.lock().unwrap().clone()).unwrap();
        let lines = heard.lines().filter(|line| line.contains(" HTTP/1.1"));
        let asked: Vec<&str> = lines.collect();
        assert_eq!(asked, ["GET /peer/identity HTTP/1.1"; 3], "{tale:?}");
        assert!(!heard.contains("secret"), "{heard}");
    }
}

/// The node says who it is even to those whom it refuses, so that they learn why.
#[tokio::test]
async fn a_wrong_clock_is_no_reason_to_doubt_who_answers() {
    let node = Node::start(Manner::Proper).await;
    let late = Arc::new(|| now() - 1000);
    let peers = Peers::new(Identity::generate(), vec![Arc::new(Http)], late);
    let answer = peers.send(node.id(), &node.http(), post("x"), SOON).await;
    let answer = answer.unwrap();
    assert_eq!(answer.response.headers()[REFUSAL], "clock_skew");
    assert_eq!((node.proofs(), node.taken().len()), (1, 0));
}

#[tokio::test]
async fn a_connection_that_the_node_closed_while_idle_is_not_used() {
    let node = Node::start(Manner::ClosesAfter).await;
    let peers = over_http();
    echo(&peers, node.id(), &node.http(), "x").await;
    node.seen.until_closed(1).await;
    assert!(!echo(&peers, node.id(), &node.http(), "y").await);
    assert_eq!((node.opened(), node.taken().len()), (2, 2));
}

#[tokio::test]
async fn a_stale_connection_costs_nothing() {
    for method in [Method::POST, Method::GET] {
        let node = Node::start(Manner::ClosesUnread).await;
        let peers = over_http();
        echo(&peers, node.id(), &node.http(), "x").await;
        let mut request = post("y");
        *request.method_mut() = method;
        let answer = peers
            .send(node.id(), &node.http(), request, SOON)
            .await
            .unwrap();
        assert!(!answer.path.warm);
        assert_eq!(text(answer).await, (StatusCode::OK, "y".to_owned()));
        assert_eq!((node.opened(), node.taken().len()), (2, 2));
    }
}

#[tokio::test]
async fn a_request_is_never_done_twice() {
    let node = Node::start(Manner::ClosesTaken).await;
    let peers = over_http();
    echo(&peers, node.id(), &node.http(), "x").await;
    let error = peers
        .send(node.id(), &node.http(), post("y"), SOON)
        .await
        .unwrap_err();
    assert_eq!((error.failure, error.sent), (SendFailure::Broke, true));
    assert_eq!(
        node.taken().len(),
        2,
        "it was sent again, and refused as a copy"
    );
    // What may be done twice is.
    let node = Node::start(Manner::ClosesTaken).await;
    echo(&peers, node.id(), &node.http(), "x").await;
    let get = Request::get("/peer/echo").body(Bytes::new()).unwrap();
    let answer = peers
        .send(node.id(), &node.http(), get, SOON)
        .await
        .unwrap();
    assert_eq!(answer.response.status(), StatusCode::OK);
    assert_eq!(node.taken().len(), 3);
}

#[tokio::test]
async fn failures_are_told_apart() {
    let peers = over_http();
    let id = Identity::generate().id();
    let error = failed(&peers, id, &[]).await;
    assert_eq!(
        error.failure,
        SendFailure::Connect(ConnectFailure::NoAddress)
    );
    assert_eq!(error.code(), "no_path");
    let nobody = Address::Http(closed_port().await);
    let error = failed(&peers, id, std::slice::from_ref(&nobody)).await;
    assert_eq!((error.code(), error.sent), ("peer_process_down", false));
    assert!(error.to_string().contains(&nobody.to_string()), "{error}");
    let states = peers.paths(&id);
    assert!(matches!(
        states[0].failure,
        Some((_, ConnectFailure::Refused))
    ));

    let node = Node::start(Manner::Mute).await;
    let limit = Duration::from_millis(500);
    let error = peers
        .send(node.id(), &node.http(), post("x"), limit)
        .await
        .unwrap_err();
    assert_eq!((error.code(), error.sent), ("no_answer", true));
    node.seen.until_closed(1).await;
    let node = Node::start(Manner::Frozen).await;
    let error = peers
        .send(node.id(), &node.http(), post("x"), limit)
        .await
        .unwrap_err();
    assert_eq!((error.code(), error.sent), ("no_answer", false));
    assert_eq!(node.taken(), []);
    // It is waited for, though another address is refused: a slow machine is no dead one.
    let both = [vec![nobody], node.http()].concat();
    let (began, limit) = (Instant::now(), Duration::from_millis(800));
    let error = peers.send(node.id(), &both, post("x"), limit).await;
    assert_eq!(error.unwrap_err().code(), "no_answer");
    assert!(began.elapsed() >= limit);

    let (gone, _) = overhear(None, |_| ()).await;
    let error = failed(&peers, id, &[Address::Http(gone)]).await;
    assert_eq!(error.code(), "connection_broke");
}

#[tokio::test]
async fn a_removed_node_loses_its_connections() {
    let node = Node::start(Manner::Proper).await;
    let peers = over_http();
    echo(&peers, node.id(), &node.http(), "x").await;
    peers.forget(&node.id());
    node.seen.until_closed(1).await;
    assert!(peers.paths(&node.id()).is_empty());
}

/// Lets time pass, for those who wait for it already.
async fn pass(time: Duration) {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn an_idle_connection_is_let_go() {
    let node = Node::start(Manner::Proper).await;
    let peers = over_http();
    echo(&peers, node.id(), &node.http(), "x").await;
    pass(IDLE - Duration::from_secs(1)).await;
    assert!(
        echo(&peers, node.id(), &node.http(), "x").await,
        "it is kept until then"
    );
    pass(IDLE + Duration::from_secs(1)).await;
    node.seen.until_closed(1).await;
    assert!(!echo(&peers, node.id(), &node.http(), "x").await);
}

/// The iroh door of a node, on loopback, at which everybody is a member.
async fn quic(identity: &Identity) -> Arc<Quic> {
    quic_on("127.0.0.1", None, identity).await
}

async fn quic_on(ip: &str, relay: Option<&str>, identity: &Identity) -> Arc<Quic> {
    let options = QuicOptions {
        ip: Some(ip.parse().unwrap()),
        relay: relay.map(str::to_owned),
        ..QuicOptions::default()
    };
    let admit = |_| Admission::Member;
    Arc::new(Quic::bind(identity.secret(), options, admit).await.unwrap())
}

fn quic_addresses(door: &Quic) -> Vec<Address> {
    door.bound().into_iter().map(Address::Quic).collect()
}

/// Answers what comes through the iroh door with the body and who asked.
fn serve_quic(door: Arc<Quic>) {
    tokio::spawn(async move {
        while let Some(accepted) = door.accept().await {
            let peer = accepted.peer;
            let service = service_fn(move |request: Request<hyper::body::Incoming>| async move {
                assert!(!request.headers().contains_key("signature"));
                let body = request.collect().await?.to_bytes();
                let answer = format!("{peer} {}", String::from_utf8_lossy(&body));
                Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from(answer))))
            });
            tokio::spawn(async move {
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http
                    .serve_connection(TokioIo::new(accepted.stream), service)
                    .await;
            });
        }
    });
}

#[tokio::test]
async fn the_iroh_door_comes_first_and_needs_no_signature() {
    let node = Node::start(Manner::Proper).await;
    let door = quic(&node.identity).await;
    serve_quic(Arc::clone(&door));
    let addresses = [node.http(), quic_addresses(&door)].concat();
    let identity = Identity::generate();
    let doors: Vec<Arc<dyn Door>> = vec![Arc::new(Http), quic(&identity).await];
    let peers = Peers::new(identity.clone(), doors.clone(), Arc::new(now));
    for warm in [false, true] {
        let answer = peers
            .send(node.id(), &addresses, post("hello"), SOON)
            .await
            .unwrap();
        assert_eq!(
            (answer.path.door, answer.path.relayed),
            (DoorKind::Quic, false)
        );
        assert_eq!(answer.path.warm, warm);
        assert!(answer.path.round_trip.is_some());
        let said = format!("{} hello", identity.id());
        assert_eq!(text(answer).await, (StatusCode::OK, said));
    }
    assert_eq!(node.opened(), 0);
    // In the order that is asked for.
    let order = [DoorKind::Http, DoorKind::Quic];
    let peers = Peers::in_order(identity, doors, &order, Arc::new(now));
    let answer = peers
        .send(node.id(), &addresses, post("hello"), SOON)
        .await
        .unwrap();
    assert_eq!(answer.path.door, DoorKind::Http);
}

#[tokio::test]
async fn a_door_that_never_answers_is_overtaken_by_the_next() {
    let node = Node::start(Manner::Proper).await;
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = Address::Quic(silent.local_addr().unwrap());
    let addresses = [vec![silent], node.http()].concat();
    let identity = Identity::generate();
    let doors: Vec<Arc<dyn Door>> = vec![Arc::new(Http), quic(&identity).await];
    let peers = Peers::new(identity, doors, Arc::new(now));
    let began = Instant::now();
    let answer = peers
        .send(node.id(), &addresses, post("x"), SOON)
        .await
        .unwrap();
    assert_eq!(answer.path.door, DoorKind::Http);
    assert!(
        began.elapsed() >= Duration::from_millis(250),
        "the first door had its head start"
    );
    // Without answering it would have taken the door's five seconds.
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn another_node_at_a_quic_address_is_told() {
    let other = Identity::generate();
    let door = quic(&other).await;
    serve_quic(Arc::clone(&door));
    let identity = Identity::generate();
    let doors: Vec<Arc<dyn Door>> = vec![quic(&identity).await];
    let peers = Peers::new(identity, doors, Arc::new(now));
    let asked = Identity::generate().id();
    let error = peers
        .send(asked, &quic_addresses(&door), post("x"), SOON)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "key_mismatch");
}

/// One has only an IPv4 socket and the other only an IPv6 one, so that no direct path can be.
#[tokio::test]
async fn a_relay_does_not_wait_for_a_silent_direct_address() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        println!("skipped: this machine has no IPv6 loopback");
        return;
    }
    let mut config = iroh_relay::server::ServerConfig::default();
    let loopback: std::net::Ipv4Addr = "127.0.0.1".parse().unwrap();
    config.relay = Some(iroh_relay::server::RelayConfig::new((loopback, 0)));
    let relay = iroh_relay::server::Server::spawn(config).await.unwrap();
    let url = format!("http://{}/", relay.http_addr().unwrap());
    let (identity, node) = (Identity::generate(), Identity::generate());
    let own = quic_on("127.0.0.1", Some(&url), &identity).await;
    let door = quic_on("::1", Some(&url), &node).await;
    serve_quic(Arc::clone(&door));
    let relay = Address::Relay(url);
    let reached = async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while !door.addresses().contains(&relay) {
            tick.tick().await;
        }
    };
    tokio::time::timeout(SOON, reached).await.unwrap();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addresses = [Address::Quic(silent.local_addr().unwrap()), relay];
    let peers = Peers::new(identity, vec![own], Arc::new(now));
    let began = Instant::now();
    let answer = peers
        .send(node.id(), &addresses, post("x"), SOON)
        .await
        .unwrap();
    assert_eq!(
        (answer.path.door, answer.path.relayed),
        (DoorKind::Relay, true)
    );
    assert!(began.elapsed() < Duration::from_secs(4));
    let answer = peers
        .send(node.id(), &addresses, post("x"), SOON)
        .await
        .unwrap();
    assert!(answer.path.relayed);
}
