//! The front of the mesh: sends a request to a node over its best door, and answers with a streaming body and the way it
//! took.
//!
//! A warm connection is used where there is one. Else the doors are tried in their order, the one that worked last first,
//! and the next one before the last has given up. All of them carry HTTP/1.1. Over a door that proves nobody, the node
//! proves itself once on each new connection, and each request is signed; where somebody else answers, that is a way that
//! does not work.
//!
//! A request is sent once, with one exception: a connection that was kept warm may turn out to be closed. Then the request
//! goes over a new one, if nothing of it was written, or if doing it twice cannot happen: its method allows it, or its
//! signature, which the node takes once.

mod attempt;
mod failure;
mod open;
mod paths;
mod pool;
mod race;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hearth_protocol::household::{Address, NodeId};
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use self::attempt::{Attempt, attempts};
use self::open::{Asker, Opened};
use self::paths::Paths;
use self::pool::{Pool, Sender, Warm};
use self::race::Won;
use crate::doors::{ConnectError, ConnectFailure, Door, DoorKind};
use crate::identity::Identity;
use crate::refusal::Code;
use crate::signature::{REFUSAL, sign};

pub use failure::{SendError, SendFailure};
pub use paths::PathState;
pub use pool::IDLE;

/// Routes whose answer needs no work: how long it takes, for a request without a body, is the round trip.
const WITHOUT_WORK: [&str; 2] = ["/health", "/peer/echo"];

/// How long a connection that was there already is waited for alone, when the answer needs no work and there is another way
/// to the node.
const WARM_LIMIT: Duration = Duration::from_secs(1);

/// The time, in seconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Sends requests to nodes. Clones share their connections.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    asker: Asker,
    doors: Vec<Arc<dyn Door>>,
    order: Vec<DoorKind>,
    pool: Arc<Pool>,
    paths: Mutex<Paths>,
}

/// An answer that has begun.
#[derive(Debug)]
pub struct Answer {
    /// Its head, and its body as it comes.
    pub response: Response<Incoming>,
    /// The way that was taken.
    pub path: PathTaken,
}

/// The way that a request took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTaken {
    /// The kind of door.
    pub door: DoorKind,
    /// Where the node answered.
    pub address: Address,
    /// Whether packets went by way of a relay.
    pub relayed: bool,
    /// Smoothed round trip, where it is known.
    pub round_trip: Option<Duration>,
    /// Whether the connection was there already.
    pub warm: bool,
}

/// A request as it goes over one connection.
type Outgoing = Request<Full<Bytes>>;

/// What became of a request on one connection.
enum Sent {
    Answered(Response<Incoming>, Sender),
    /// Nothing of it was written.
    Unsent(String),
    /// The connection broke before the answer began.
    Broke(String),
    /// The connection was given up, because nothing came from the other end any more.
    Vanished(String),
    TimedOut,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Peers({:?})", self.inner.asker.identity)
    }
}

impl Peers {
    /// Sends as the node of `identity` through `doors`, which are tried in the order [`DoorKind::ORDER`]. Nothing is
    /// contacted before the first request.
    pub fn new(identity: Identity, doors: Vec<Arc<dyn Door>>, clock: Clock) -> Self {
        Self::in_order(identity, doors, &DoorKind::ORDER, clock)
    }

    /// The same in another order. Kinds that it leaves out are not used.
    pub fn in_order(
        identity: Identity,
        doors: Vec<Arc<dyn Door>>,
        order: &[DoorKind],
        clock: Clock,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                asker: Asker { identity, clock },
                doors,
                order: order.to_vec(),
                pool: Arc::default(),
                paths: Mutex::default(),
            }),
        }
    }

    /// This node.
    pub fn identity(&self) -> &Identity {
        &self.inner.asker.identity
    }

    /// Sends `request` (of whose URI path and query count) to `node` at one of `addresses`. The answer has to begin within
    /// `to_headers`, connecting included; its body may take as long as it likes.
    ///
    /// # Errors
    /// There was no connection, it broke, or no answer began in time. Any answer of the node is none, its refusals too.
    pub async fn send(
        &self,
        node: NodeId,
        addresses: &[Address],
        request: Request<Bytes>,
        to_headers: Duration,
    ) -> Result<Answer, SendError> {
        let deadline = Instant::now() + to_headers;
        let inner = &self.inner;
        let preferred = inner.paths().preferred(&node, Instant::now()).cloned();
        let mut attempts = attempts(&inner.doors, &inner.order, addresses, preferred.as_ref());
        let mut sending = Sending {
            inner,
            node,
            deadline,
            request: origin_form(request),
            signed: None,
            broken: None,
            silent: false,
            failures: Vec::new(),
        };
        // A warm connection may be closed by now: then what is sent goes over another one.
        let rank = |warm: &Warm| {
            let makes = |attempt: &Attempt| attempt.makes(warm.door, &warm.address);
            attempts.iter().position(makes)
        };
        while let Some(warm) = inner.pool.take(&node, rank) {
            // Over a live QUIC connection a new stream says nothing new.
            let (door, address) = (warm.door, warm.address.clone());
            let others = door == DoorKind::Http || attempts.len() > 1;
            if let Some(answer) = sending.over_warm(warm, others).await? {
                return Ok(answer);
            }
            if std::mem::take(&mut sending.silent) && door != DoorKind::Http {
                attempts.retain(|attempt| !attempt.makes(door, &address));
                break;
            }
            if sending.broken.is_some() {
                break;
            }
        }
        loop {
            let failures = &mut sending.failures;
            let won = race::race(&inner.asker, node, &attempts, deadline, failures).await;
            inner.note_failures(node, &sending.failures);
            let Some(won) = won else {
                return Err(SendError::unconnected(node, sending.failures));
            };
            let attempt = won.attempt;
            let others = attempts.len() > 1;
            let sent = sending.over_new(&attempts[attempt], won, others).await?;
            if let Some(answer) = sent {
                return Ok(answer);
            }
            // The connection went before it was used.
            attempts.remove(attempt);
        }
    }

    /// What is known about the paths to a node that were tried, in the order of their addresses.
    pub fn paths(&self, node: &NodeId) -> Vec<PathState> {
        self.inner.paths().states(node, Instant::now())
    }

    /// Lets go of a node that was removed: its warm connections are closed, and what is known of its paths is forgotten.
    pub fn forget(&self, node: &NodeId) {
        self.inner.pool.forget(node);
        self.inner.paths().forget(node);
    }
}

impl Inner {
    fn paths(&self) -> MutexGuard<'_, Paths> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_failures(&self, node: NodeId, failures: &[ConnectError]) {
        let now = Instant::now();
        let mut paths = self.paths();
        for error in failures {
            if let Some(address) = &error.address {
                paths.failed(node, address, error.failure, now);
            }
        }
    }

    fn proves_ends(&self, kind: DoorKind) -> bool {
        let door = self.doors.iter().find(|door| door.kinds().contains(&kind));
        door.is_some_and(|door| door.proves_ends())
    }
}

/// One request on its way.
struct Sending<'a> {
    inner: &'a Inner,
    node: NodeId,
    deadline: Instant,
    request: Request<Bytes>,
    /// The request with its signature. Made once: it is the same request however often it is sent.
    signed: Option<Request<Bytes>>,
    /// How a warm connection broke that something was written to.
    broken: Option<String>,
    /// Whether a warm connection said nothing in its time.
    silent: bool,
    failures: Vec<ConnectError>,
}

impl Sending<'_> {
    /// Whether the time to its answer is the round trip.
    fn is_round_trip(&self) -> bool {
        self.request.body().is_empty() && WITHOUT_WORK.contains(&self.request.uri().path())
    }

    /// The request for one kind of door, and whether sending it again could do it twice.
    fn outgoing(&mut self, door: DoorKind, address: &Address) -> (Outgoing, bool) {
        let idempotent = self.request.method().is_idempotent();
        let (request, host, repeatable) = match self.inner.proves_ends(door) {
            true => (&self.request, self.node.to_string(), idempotent),
            false => {
                let (asker, node) = (&self.inner.asker, self.node);
                let request = self.signed.get_or_insert_with(|| {
                    let mut request = self.request.clone();
                    sign(&asker.identity, &node, (asker.clock)(), &mut request);
                    request
                });
                let host = match address {
                    Address::Http(socket) => socket.to_string(),
                    _ => self.node.to_string(),
                };
                (&*request, host, true)
            }
        };
        let mut request = request.clone().map(Full::new);
        if let Ok(host) = HeaderValue::try_from(host) {
            request.headers_mut().insert(HOST, host);
        }
        (request, repeatable)
    }

    /// Over a connection that was there. Nothing, if it was closed and the request may go over another one.
    async fn over_warm(&mut self, warm: Warm, others: bool) -> Result<Option<Answer>, SendError> {
        let (request, repeatable) = self.outgoing(warm.door, &warm.address);
        let began = Instant::now();
        let until = match others && self.is_round_trip() {
            true => self.deadline.min(began + WARM_LIMIT),
            false => self.deadline,
        };
        match self.exchange(warm.sender, request, until).await {
            Sent::Unsent(_) => Ok(None),
            Sent::TimedOut if until < self.deadline => {
                let words = "nothing came back over it".to_owned();
                self.fail(ConnectFailure::Silent, warm.door, &warm.address, words);
                (self.signed, self.silent) = (None, true);
                Ok(None)
            }
            Sent::Broke(words) | Sent::Vanished(words) if repeatable => {
                self.broken = Some(words);
                if self.request.method().is_idempotent() {
                    // What may be done twice must not be taken for a copy.
                    self.signed = None;
                }
                Ok(None)
            }
            sent => self
                .settle(sent, warm.door, warm.address, began, true)
                .map(Some),
        }
    }

    /// Over a connection that was just made. Nothing, if another way is to be tried.
    async fn over_new(
        &mut self,
        attempt: &Attempt,
        won: Won,
        others: bool,
    ) -> Result<Option<Answer>, SendError> {
        let Opened {
            sender,
            address,
            took,
        } = won.opened;
        // Of a QUIC connection that was there already only the stream is new, and it may be dead.
        let live = attempt.door.path(self.node);
        let is_old = live.is_some_and(|live| live.handshake > took + WARM_LIMIT);
        let limited = is_old && others && self.is_round_trip();
        // iroh may have found a direct way where it was to try a relay.
        let door = match attempt.kind {
            DoorKind::Http => DoorKind::Http,
            DoorKind::Quic | DoorKind::Relay => DoorKind::of(&address),
        };
        let now = Instant::now();
        self.inner.paths().connected(self.node, &address, took, now);
        let (request, _) = self.outgoing(door, &address);
        let until = match limited {
            true => self.deadline.min(now + WARM_LIMIT),
            false => self.deadline,
        };
        match self.exchange(sender, request, until).await {
            Sent::Unsent(error) => {
                self.fail(ConnectFailure::Broke, door, &address, error);
                Ok(None)
            }
            Sent::TimedOut | Sent::Vanished(_) if limited => {
                let words = "nothing came back over it".to_owned();
                self.fail(ConnectFailure::Silent, door, &address, words);
                self.signed = None;
                Ok(None)
            }
            sent => self.settle(sent, door, address, now, false).map(Some),
        }
    }

    async fn exchange(&self, mut sender: Sender, request: Outgoing, until: Instant) -> Sent {
        let answering = async {
            // A new connection takes its first request when its task has run.
            if let Err(error) = sender.ready().await {
                return Sent::Unsent(error.to_string());
            }
            match sender.try_send_request(request).await {
                Ok(response) => Sent::Answered(response, sender),
                Err(mut error) => {
                    let unsent = error.take_message().is_some();
                    let error = error.into_error();
                    let words = words(&error);
                    match unsent {
                        true => Sent::Unsent(words),
                        false if is_silence(&error) => Sent::Vanished(words),
                        false => Sent::Broke(words),
                    }
                }
            }
        };
        timeout_at(until, answering).await.unwrap_or(Sent::TimedOut)
    }

    /// What the request came to.
    fn settle(
        &mut self,
        sent: Sent,
        door: DoorKind,
        address: Address,
        began: Instant,
        warm: bool,
    ) -> Result<Answer, SendError> {
        let (failure, message) = match sent {
            Sent::Answered(response, sender) => {
                let signed = !self.inner.proves_ends(door);
                let done = match self.broken.take() {
                    Some(words) if signed && is_refused(&response, Code::Replayed) => words,
                    _ => {
                        return Ok(self.answer(response, sender, door, address, began, warm));
                    }
                };
                (
                    SendFailure::Broke,
                    format!(
                        "the connection broke before the answer began, and the request was taken: {done}"
                    ),
                )
            }
            Sent::TimedOut => (
                SendFailure::NoHeaders,
                "it took the request and did not begin to answer in time".to_owned(),
            ),
            Sent::Vanished(words) => (
                SendFailure::Connect(ConnectFailure::Silent),
                format!("nothing came back any more: {words}"),
            ),
            Sent::Unsent(words) | Sent::Broke(words) => (
                SendFailure::Broke,
                format!("the connection broke before the answer began: {words}"),
            ),
        };
        self.inner.pool.drop_path(&self.node, &address);
        let now = Instant::now();
        let mut paths = self.inner.paths();
        paths.failed(self.node, &address, ConnectFailure::Broke, now);
        drop(paths);
        Err(SendError {
            node: self.node,
            failure,
            message: format!("{address}: {message}"),
            address: Some(address),
            sent: true,
            attempts: std::mem::take(&mut self.failures),
        })
    }

    fn answer(
        &self,
        response: Response<Incoming>,
        sender: Sender,
        door: DoorKind,
        address: Address,
        began: Instant,
        warm: bool,
    ) -> Answer {
        let now = Instant::now();
        let took = self.is_round_trip().then(|| now.duration_since(began));
        let doors = &self.inner.doors;
        let own = doors.iter().find(|own| own.kinds().contains(&door));
        let live = own.and_then(|own| own.path(self.node));
        let (relayed, measured, at) = match live {
            Some(live) => (live.relayed, Some(live.round_trip), live.address),
            None => (door == DoorKind::Relay, None, address.clone()),
        };
        let known = {
            let mut paths = self.inner.paths();
            paths.answered(self.node, &at, took, now);
            paths.round_trip(&self.node, &at)
        };
        self.inner.pool.put(
            self.node,
            Warm {
                sender,
                door,
                address,
                used: now,
            },
        );
        Answer {
            response,
            path: PathTaken {
                door: DoorKind::of(&at),
                address: at,
                relayed,
                round_trip: measured.or(known),
                warm,
            },
        }
    }

    /// Notes a way that does not work.
    fn fail(
        &mut self,
        failure: ConnectFailure,
        door: DoorKind,
        address: &Address,
        message: String,
    ) {
        self.inner.pool.drop_path(&self.node, address);
        let error = ConnectError {
            failure,
            door,
            address: Some(address.clone()),
            message,
        };
        self.inner
            .note_failures(self.node, std::slice::from_ref(&error));
        self.failures.push(error);
    }
}

/// Whether a node refuses a request for this reason.
fn is_refused(response: &Response<Incoming>, code: Code) -> bool {
    let refusal = response.headers().get(REFUSAL);
    refusal.is_some_and(|refusal| refusal == code.as_str())
}

/// The request as it stands on a connection: path and query alone, HTTP/1.1.
fn origin_form(mut request: Request<Bytes>) -> Request<Bytes> {
    let target = request.uri().path_and_query().cloned();
    *request.uri_mut() = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    *request.version_mut() = Version::HTTP_11;
    request
}

/// Whether a connection ended because the other end said nothing for too long.
fn is_silence(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut)
            || error.to_string().contains("timed out")
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// An error with its cause.
fn words(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
