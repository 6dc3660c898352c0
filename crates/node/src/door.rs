//! The local door: accepts connections and serves the routes on each.
//!
//! A connection that does not send its next request's head in time is closed, so that idle and malicious clients
//! cannot hold it for ever. When the node stops, connections end after the answer they are in.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tower_service::Service;

use crate::access::Ends;

/// Pause after a failed accept (no file descriptors left, say), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long running answers may go on after the node was asked to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Serves `routes` until `stop` resolves, then lets running answers end for up to ten seconds.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Router,
    head_timeout: Duration,
    stop: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head_timeout);
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
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
        let connection = http.serve_connection(
            TokioIo::<TcpStream>::new(stream),
            between(Ends::new(peer, local), routes.clone()),
        );
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, %peer, "a connection ended early");
            }
        });
    }
    drop(listener);
    // Who still streams after the grace is cut off when the process ends.
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
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
