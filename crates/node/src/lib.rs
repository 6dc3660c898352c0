//! The daemon: doors, HTTP surfaces, and the request path.
//!
//! A request comes in through the local door, passes `access`, is read and checked by its surface (`openai`), and
//! goes to the engine; events come back as one body or as a stream. This crate refuses configuration, files and
//! the terminal: the binary hands it an engine and an address.

mod access;
mod answer;
mod anthropic;
mod body;
mod door;
mod failure;
mod health;
mod metrics;
mod native;
mod ollama;
mod openai;
mod openapi;
mod page;
mod state;
mod stream;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use hearth_engine::Engine;
use tracing::Instrument;

use crate::state::Shared;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The same, as Anthropic's clients look for it.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// A request's id, for handlers whose answers name it.
#[derive(Debug, Clone)]
struct RequestId(String);

/// What a node needs besides its engine.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Version shown in `/status` and headers.
    pub version: &'static str,
    /// Largest request body in bytes.
    pub body_limit: usize,
    /// How long a connection may take to send the head of its next request, idle time included.
    pub head_timeout: Duration,
}

/// A bound node that is not serving yet.
pub struct Node {
    listener: tokio::net::TcpListener,
    engine: Engine,
    options: NodeOptions,
}

impl Node {
    /// Binds the local door; port 0 takes a free one.
    pub async fn bind(
        address: SocketAddr,
        engine: Engine,
        options: NodeOptions,
    ) -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind(address).await?;
        Ok(Self {
            listener,
            engine,
            options,
        })
    }

    /// The address the door listens on.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` resolves or somebody posts to `/shutdown`; then lets running answers end for up to ten
    /// seconds.
    pub async fn serve(
        self,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let address = self.address()?;
        let node: Shared = Arc::new(state::Node::new(self.engine, self.options, address));
        let routes = router(Arc::clone(&node));
        let asked = async {
            tokio::select! {
                () = stop => {}
                () = node.stop.notified() => {}
            }
        };
        door::serve(self.listener, routes, node.options.head_timeout, asked).await;
        Ok(())
    }
}

fn router(node: Shared) -> Router {
    Router::new()
        .route("/", get(page::home))
        .route("/assets/{name}", get(page::asset))
        .route("/health", get(health::health))
        .route("/metrics", get(native::metrics))
        .route("/openapi.json", get(openapi::describe))
        .route("/status", get(native::status))
        .route("/shutdown", post(native::shutdown))
        .route("/api/chat", post(ollama::chat::chat))
        .route("/api/generate", post(ollama::generate::generate))
        .route("/api/ps", get(ollama::models::ps))
        .route("/api/show", post(ollama::models::show))
        .route("/api/tags", get(ollama::models::tags))
        .route("/api/version", get(ollama::models::version))
        .route("/v1/chat/completions", post(openai::chat::chat))
        .route("/v1/completions", post(openai::completions::completions))
        .route("/v1/embeddings", post(openai::embeddings::embeddings))
        .route("/v1/messages", post(anthropic::messages::messages))
        .route(
            "/v1/messages/count_tokens",
            post(anthropic::messages::count_tokens),
        )
        .route("/v1/models", get(openai::models::list))
        .route("/v1/models/{*id}", get(openai::models::one))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&node), access::check))
        .layer(from_fn_with_state(Arc::clone(&node), observe))
        .with_state(node)
}

/// Gives every request an id, a span and a place in the metrics. Bodies are never logged.
async fn observe(State(node): State<Shared>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("other", |path| path.as_str())
        .to_owned();
    let own = request
        .headers()
        .get(&REQUEST_ID)
        .and_then(|id| id.to_str().ok());
    let id = match own.filter(|id| hearth_protocol::id::is_sane(id)) {
        Some(id) => id.to_owned(),
        None => hearth_protocol::id::with_prefix("req", rand::random()),
    };
    let span = tracing::info_span!(
        "request",
        id,
        method = %request.method(),
        route,
        model = tracing::field::Empty
    );
    let is_anthropics = anthropic::is_ours(request.uri().path());
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    span.in_scope(|| {
        tracing::debug!(
            status,
            milliseconds = begun.elapsed().as_millis() as u64,
            "answered"
        )
    });
    node.metrics.request(&route, status);
    if let Ok(id) = HeaderValue::from_str(&id) {
        if is_anthropics {
            let headers = response.headers_mut();
            headers.insert(ANTHROPIC_REQUEST_ID, id.clone());
        }
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn unknown(request: Request) -> Response {
    let path = request.uri().path();
    let hint = match path {
        _ if path.starts_with("/api/") => "; of Ollama's routes this node has chat, generate, embed, tags, show, ps, version, pull, delete and copy",
        _ if path.contains("chat") => "; did you mean /v1/chat/completions?",
        _ if path.contains("completion") => "; did you mean /v1/completions?",
        _ if path.contains("embed") => "; did you mean /v1/embeddings?",
        _ if path.contains("message") => "; did you mean /v1/messages?",
        _ if path.contains("model") => "; did you mean /v1/models?",
        _ => "; /openapi.json lists all routes",
    };
    failure::on_route(
        &request,
        StatusCode::NOT_FOUND,
        "unknown_route",
        &format!("there is no route {path}{hint}"),
    )
}

async fn wrong_method(method: Method, request: Request) -> Response {
    let path = request.uri().path();
    let message = format!("{path} does not take {method}; see the Allow header");
    failure::on_route(
        &request,
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        &message,
    )
}
