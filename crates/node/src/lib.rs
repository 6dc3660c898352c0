//! The daemon: doors, HTTP surfaces, and the request path.

use std::future::Future;
use std::net::SocketAddr;

use hearth_engine::Engine;

/// What a node needs besides its engine.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Version shown in `/status` and headers.
    pub version: &'static str,
    /// Largest request body in bytes.
    pub body_limit: usize,
}

/// A bound node that is not serving yet.
pub struct Node {
    listener: tokio::net::TcpListener,
    engine: Engine,
    options: NodeOptions,
}

impl Node {
    /// Binds the local door; port 0 takes a free one.
    pub async fn bind(address: SocketAddr, engine: Engine, options: NodeOptions) -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind(address).await?;
        Ok(Self { listener, engine, options })
    }

    /// The address the door listens on.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` resolves or somebody posts to `/shutdown`; then lets running answers end for a moment.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
        let _ = (stop, self.engine, self.options);
        todo!()
    }
}
