//! A new connection until it may carry requests: HTTP/1.1 over what a door made, and, where the door proves nobody, the
//! proof of who answers ([`crate::signature::IDENTITY`]). It is asked for once per connection, before anything else, and
//! without a body: whoever has a node's address now learns nothing of what is meant for that node.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hearth_protocol::household::{Address, NodeId};
use http::header::HOST;
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};

use super::attempt::Attempt;
use super::pool::Sender;
use super::{Clock, is_refused, is_silence, words};
use crate::doors::{ConnectError, ConnectFailure, Connection};
use crate::identity::Identity;
use crate::refusal::Code;
use crate::signature::{IDENTITY, check_answer, sign};

/// How long a node may take to prove who it is, which needs no work.
pub(super) const PROOF_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of the answer that proves it; a refusal has some words.
const LONGEST_PROOF: usize = 64 << 10;

/// Who asks, for the proof.
#[derive(Clone)]
pub(super) struct Asker {
    pub identity: Identity,
    pub clock: Clock,
}

/// A connection that may carry requests.
pub(super) struct Opened {
    pub sender: Sender,
    /// Where the node answered.
    pub address: Address,
    /// How long the connection took, without the proof.
    pub took: Duration,
}

/// Opens one way to `node`. `connected` is set when there is a connection, whoever is at its other end.
pub(super) async fn open(
    asker: &Asker,
    node: NodeId,
    attempt: &Attempt,
    connected: &AtomicBool,
) -> Result<Opened, ConnectError> {
    let began = Instant::now();
    let made = attempt.door.connect(node, &attempt.addresses).await?;
    let took = began.elapsed();
    connected.store(true, Ordering::Relaxed);
    let Connection { stream, address } = made;
    let failed = |failure, message| ConnectError {
        failure,
        door: attempt.kind,
        address: Some(address.clone()),
        message,
    };
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) =
        handshake.map_err(|error| failed(ConnectFailure::Broke, error.to_string()))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a peer ended early");
        }
    });
    if !attempt.door.proves_ends() {
        let proving = prove(asker, node, &address, &mut sender);
        let proven = timeout(PROOF_LIMIT, proving).await.unwrap_or_else(|_| {
            let words = format!("it says nothing in {} s", PROOF_LIMIT.as_secs());
            Err((ConnectFailure::Unanswered, words))
        });
        proven.map_err(|(failure, words)| failed(failure, words))?;
    }
    Ok(Opened {
        sender,
        address,
        took,
    })
}

/// Asks who answers. What the node thinks of the question itself is not looked at: it thinks the same of the request that
/// comes next, and says it there.
async fn prove(
    asker: &Asker,
    node: NodeId,
    address: &Address,
    sender: &mut Sender,
) -> Result<(), (ConnectFailure, String)> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = http::Uri::from_static(IDENTITY);
    sign(&asker.identity, &node, (asker.clock)(), &mut request);
    if let Address::Http(socket) = address
        && let Ok(host) = HeaderValue::try_from(socket.to_string())
    {
        request.headers_mut().insert(HOST, host);
    }
    let broke = |error: hyper::Error| match is_silence(&error) {
        true => (ConnectFailure::Silent, words(&error)),
        false => (ConnectFailure::Broke, words(&error)),
    };
    // A new connection takes its first request when its task has run.
    sender.ready().await.map_err(broke)?;
    let sent = sender.send_request(request.clone().map(Full::new)).await;
    let answer = sent.map_err(broke)?;
    if let Err(refusal) = check_answer(&node, &request, &answer) {
        let words = match is_refused(&answer, Code::KeyMismatch) {
            true => "another node answers at this address".to_owned(),
            false => refusal.message,
        };
        return Err((ConnectFailure::WrongKey, words));
    }
    let rest = Limited::new(answer.into_body(), LONGEST_PROOF);
    match rest.collect().await {
        Ok(_) => Ok(()),
        Err(error) => Err((ConnectFailure::Broke, error.to_string())),
    }
}
