//! The local door: accepts connections and serves the routes on each; and the same for what comes through another door.
//!
//! A connection that does not send its next request's head in time is closed, and so is one that takes nothing of an
//! answer for too long: idle and malicious clients cannot hold it for ever, nor what the answer holds. When the node
//! stops, connections end after the answer they are in.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use crate::access::Ends;

/// Pause after a failed accept (no file descriptors left, say), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long running answers may go on after the node was asked to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Bytes of an answer that may wait in the system for a client to take them. The system would make it some megabytes, and
/// says that there is room again only when a third of it is free: a slow client would seem to take nothing for minutes.
const WAITING: usize = 256 << 10;

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// To send the head of the next request, idle time included.
    pub head: Duration,
    /// To take something of an answer that waits to be sent.
    pub stall: Duration,
    /// How many may be connected at once; who comes then is turned away.
    pub connections: usize,
}

/// Serves `routes` until `stop` resolves, then lets running answers end for up to ten seconds.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Router,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Who is gone already has no address on some systems.
        let Ok(local) = stream.local_addr() else {
            continue;
        };
        // Tokens are small writes; waiting to fill a packet would delay each.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_send_buffer_size(WAITING);
        let connection = http.serve_connection(
            TokioIo::new(Impatient::new(stream, limits.stall)),
            between(Ends::new(peer, local), routes.clone()),
        );
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, %peer, "a connection ended early");
            }
        });
    }
    drop(listener);
    // Who still streams after the grace is cut off when the process ends.
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
}

/// Serves the routes on a connection that another door made, until either end has enough, within the same limits: a stream
/// of a connection that lives may be as idle as any.
pub(crate) async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: Router,
    ends: Ends,
    limits: Limits,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head);
    let stream = TokioIo::new(Impatient::new(stream, limits.stall));
    let connection = http.serve_connection(stream, between(ends, routes));
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection of another node ended early");
    }
}

/// The routes, which are told who asks.
fn between(
    ends: Ends,
    routes: Router,
) -> impl hyper::service::Service<
    hyper::Request<hyper::body::Incoming>,
    Response = axum::response::Response,
    Error = std::convert::Infallible,
    Future: Send,
> {
    service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ends);
        routes.clone().call(request)
    })
}

/// A connection that fails when its other end takes nothing for too long.
///
/// The limit is on pauses and not on answers: whoever takes a little now and then may have a large file, and an answer
/// that the model is still thinking about waits for nobody.
struct Impatient<S> {
    stream: S,
    limit: Duration,
    /// Since something waits to be sent.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    fn new(stream: S, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            stalled: None,
        }
    }

    /// What a write came to, unless nothing was taken for too long.
    fn patiently(
        &mut self,
        written: Poll<Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(Error::new(
                ErrorKind::TimedOut,
                "the client takes nothing of the answer",
            ))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.patiently(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.patiently(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::Ipv4Addr;

    use axum::routing::get;
    use hearth_mesh::quic::{Admission, Quic, QuicOptions, QuicStream};
    use hearth_protocol::household::Address;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn quic(secret: u8) -> Quic {
        let options = QuicOptions {
            ip: Some(Ipv4Addr::LOCALHOST.into()),
            ..QuicOptions::default()
        };
        let door = Quic::bind([secret; 32], options, |_| Admission::Member);
        door.await.unwrap()
    }

    /// A stream to a node over iroh, on which `said` was sent, with the node's serving of it. The doors stay as they are.
    async fn stream(limits: Limits, said: &str) -> (QuicStream, JoinHandle<()>, [Quic; 2]) {
        let endless = || async {
            let pieces = futures_util::stream::repeat_with(|| Ok::<_, Error>(vec![b'x'; 1 << 16]));
            Body::from_stream(pieces)
        };
        let routes = Router::new().route("/endless", get(endless));
        let [asker, node] = [quic(1).await, quic(2).await];
        let addresses: Vec<Address> = node.bound().into_iter().map(Address::Quic).collect();
        let mut stream = asker.connect(node.id(), &addresses).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let accepted = node.accept().await.unwrap();
        let ends = Ends::proven(accepted.peer);
        let serving = tokio::spawn(converse(accepted.stream, routes, ends, limits));
        (stream, serving, [asker, node])
    }

    fn limits(head: u64, stall: u64) -> Limits {
        Limits {
            head: Duration::from_millis(head),
            stall: Duration::from_millis(stall),
            connections: 1,
        }
    }

    #[tokio::test]
    async fn a_stream_over_iroh_that_never_finishes_its_head_is_ended() {
        for said in ["G", "GET /endless HTTP/1.1\r\nhost: x\r\n"] {
            let limits = limits(200, 60_000);
            let (mut stream, serving, doors) = stream(limits, said).await;
            let ended = tokio::time::timeout(PATIENCE, serving).await;
            ended.unwrap().unwrap();
            // An answer (408) or none: what counts is the end.
            let mut rest = Vec::new();
            let reading = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest));
            let _ = reading.await.unwrap();
            assert!(
                doors[0].path(doors[1].id()).is_some(),
                "the connection lives on"
            );
        }
    }

    #[tokio::test]
    async fn a_stream_over_iroh_of_which_nothing_is_taken_is_ended() {
        let asked = "GET /endless HTTP/1.1\r\nhost: x\r\n\r\n";
        let (mut stream, serving, doors) = stream(limits(60_000, 300), asked).await;
        let mut begun = [0; 8];
        stream.read_exact(&mut begun).await.unwrap();
        assert_eq!(&begun, b"HTTP/1.1");
        // More is on its way than anybody lets wait, and its client reads no more.
        let ended = tokio::time::timeout(PATIENCE, serving).await;
        ended.unwrap().unwrap();
        assert!(
            doors[0].path(doors[1].id()).is_some(),
            "the connection lives on"
        );
    }
}
