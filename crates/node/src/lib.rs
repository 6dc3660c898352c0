//! The daemon: doors, HTTP surfaces, and the request path.
//!
//! A request comes in through the local door, passes `access`, is read and checked by its surface (`openai`), and
//! goes to the engine; events come back as one body or as a stream. This crate refuses configuration, files and
//! the terminal: the binary hands it an engine, an open store and an address.

mod access;
mod answer;
mod answered;
mod anthropic;
mod body;
mod conversations;
mod door;
mod elsewhere;
mod encoders;
mod events;
mod failure;
mod finished;
mod health;
mod household;
mod machine;
pub mod mcp;
mod memory;
mod metrics;
mod native;
mod ollama;
mod openai;
mod openapi;
mod page;
mod peer;
mod recall;
mod share;
mod state;
mod stream;
mod surface;
mod tools;
mod trace;
mod upkeep;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post};
use hearth_encoder::Encoders;
use hearth_engine::Engine;
use hearth_memory::Memories;
use hearth_store::{Migration, Store};
use tracing::Instrument;

pub use crate::encoders::meant as encoder_meant;
pub use crate::finished::{Asked, Finished, Listener};
pub use crate::household::{MeshOptions, join, leave};
pub use crate::machine::machine_report;
pub use crate::recall::{RecallError, recall};
pub use crate::share::Models;
use crate::state::Shared;
use crate::surface::Surface;
pub use crate::trace::Place;
use crate::upkeep::Upkeep;
pub use hearth_web::size;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The same, as Anthropic's clients look for it.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// A request's id, for handlers whose answers name it.
#[derive(Debug, Clone)]
struct RequestId(String);

/// The tables of everything that a node stores, for [`Store::open`].
pub const SCHEMA: &[Migration] = &[
    conversations::TABLES,
    hearth_memory::TABLES,
    hearth_fanout::SQLITE_TABLES,
    household::TABLES,
    household::KEY_TABLES,
];
/// How often what is too old is deleted.
const PRUNING: Duration = Duration::from_secs(24 * 3600);

/// What a node needs besides its engine.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Version shown in `/status` and headers.
    pub version: &'static str,
    /// Largest request body in bytes.
    pub body_limit: usize,
    /// How long a connection may take to send the head of its next request, idle time included.
    pub head_timeout: Duration,
    /// How long a client may take nothing of an answer that waits to be sent.
    pub stall_timeout: Duration,
    /// Where answers and conversations are stored, opened with [`SCHEMA`]; `None` keeps them in memory until the node
    /// ends.
    pub store: Option<Store>,
    /// Memories; `None` keeps them in [`NodeOptions::store`] and finds them by words alone.
    pub memories: Option<Memories>,
    /// Sentence encoders, which answer requests for embeddings; `None` for a node that has none.
    pub encoders: Option<Arc<Encoders>>,
    /// Models on this machine's disk; `None` for a node that keeps none.
    pub models: Option<Models>,
    /// Hears of every generation that is over.
    pub listener: Option<Arc<dyn Listener>>,
    /// How it meets other nodes; `None` is a key that nobody keeps, for nodes that stay alone.
    pub mesh: Option<MeshOptions>,
    /// Whether requests' bodies and the answers' texts are logged, at `info` under the target `hearth::prompts`.
    pub log_prompts: bool,
}

/// A bound node that is not serving yet.
pub struct Node {
    listener: tokio::net::TcpListener,
    engine: Engine,
    options: NodeOptions,
    store: Store,
    memories: Memories,
}

impl Node {
    /// Binds the local door; port 0 takes a free one.
    pub async fn bind(
        address: SocketAddr,
        engine: Engine,
        options: NodeOptions,
    ) -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind(address).await?;
        let store = match &options.store {
            Some(store) => store.clone(),
            None => Store::in_memory(SCHEMA).map_err(std::io::Error::other)?,
        };
        let memories = match &options.memories {
            Some(memories) => memories.clone(),
            None => Memories::open(store.clone(), hearth_memory::Place::default())
                .map_err(std::io::Error::other)?,
        };
        Ok(Self {
            listener,
            engine,
            options,
            store,
            memories,
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
        let node: Shared = Arc::new(state::Node::new(
            self.engine,
            self.options,
            self.store,
            self.memories,
            address,
        ));
        let routes = router(Arc::clone(&node));
        let limits = door::Limits {
            head: node.options.head_timeout,
            stall: node.options.stall_timeout,
            connections: tokio::sync::Semaphore::MAX_PERMITS,
        };
        let (household, engine) = (Arc::clone(&node.household), node.engine.clone());
        household.serve(routes.clone(), limits, address);
        household.wake(&node).await?;
        let asked = async {
            tokio::select! {
                () = stop => {}
                () = node.stop.notified() => {}
            }
            // What runs for others may end; nothing more is begun for them.
            node.stopping
                .store(true, std::sync::atomic::Ordering::Relaxed);
            // They have no end of their own, for which the door would wait.
            node.household.end_event_streams();
        };
        let pruning = tokio::spawn(prune(node.conversations.clone()));
        let upkeep = Upkeep::begin(node.memories.clone(), Some(hearth_memory::BREAK_EVEN));
        door::serve(self.listener, routes, limits, asked).await;
        household.rest().await;
        // Whoever still holds the engine, its threads are gone when the process ends.
        let _ = trace::spawn_blocking(move || engine.stop()).await;
        pruning.abort();
        drop(upkeep);
        Ok(())
    }
}

/// Deletes what is too old, now and every day.
async fn prune(conversations: conversations::Conversations) {
    let mut ticks = tokio::time::interval(PRUNING);
    loop {
        ticks.tick().await;
        match conversations.prune(state::unix_time()).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "deleted stored answers that nobody went on from"),
            Err(error) => tracing::warn!(?error, "stored answers that are too old stay"),
        }
    }
}

fn router(node: Shared) -> Router {
    Router::new()
        .route("/", get(page::home))
        .route("/assets/{name}", get(page::asset))
        .route("/events", get(events::events))
        .route("/health", get(health::health))
        .route("/household", get(page::household))
        .route("/memories", get(page::memories))
        .route("/machine", get(machine::report).post(machine::remeasure))
        .route("/mcp", get(mcp::http::look).post(mcp::http::answer))
        .route("/metrics", get(native::metrics))
        .route("/models", get(machine::models))
        .route("/openapi.json", get(openapi::describe))
        .route("/peer/blobs/{blob}", get(share::blob))
        .route("/peer/models", get(share::list))
        .route("/snapshot", get(events::snapshot))
        .route("/status", get(native::status))
        .route("/shutdown", post(native::shutdown))
        .route("/api/chat", post(ollama::chat::chat))
        .route("/api/copy", post(ollama::store::copy))
        .route("/api/delete", delete(ollama::store::delete))
        .route("/api/embed", post(ollama::embed::embed))
        .route("/api/embeddings", post(ollama::embed::embeddings))
        .route("/api/generate", post(ollama::generate::generate))
        .route("/api/ps", get(ollama::models::ps))
        .route("/api/pull", post(ollama::store::pull))
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
        .merge(openai::responses::routes())
        .merge(memory::routes())
        .merge(household::routes::routes())
        .merge(peer::routes())
        .fallback(surface::unknown)
        .method_not_allowed_fallback(surface::wrong_method)
        .layer(from_fn_with_state(Arc::clone(&node), access::check))
        .layer(from_fn_with_state(Arc::clone(&node), observe))
        .with_state(node)
}

/// Gives every request an id, a place in a trace, a span and a place in the metrics.
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
    let place = Place::of(request.headers());
    let trace_id = place.trace_id();
    let span = tracing::info_span!(
        "request",
        id,
        trace_id,
        method = %request.method(),
        route,
        model = tracing::field::Empty
    );
    let surface = Surface::of(request.uri().path(), request.headers());
    request.extensions_mut().insert(RequestId(id.clone()));
    let answering = next.run(request).instrument(span.clone());
    let note = answered::Note::default();
    let mut response = trace::at(place, note.taken(answering)).await;
    note.tell(response.headers_mut());
    let status = response.status().as_u16();
    let milliseconds = begun.elapsed().as_millis() as u64;
    span.in_scope(|| match response.extensions().get::<failure::Code>() {
        // That it is not ready is what this route is asked for, again and again.
        // So it is there where MCP's clients try to get a stream, which they can do without.
        _ if status < 400 || route == "/health" || (route == "/mcp" && status == 405) => {
            tracing::debug!(status, milliseconds, "answered");
        }
        code => {
            let code = code.map(|code| &*code.0);
            tracing::info!(status, code, milliseconds, "request failed");
        }
    });
    node.metrics.request(&route, status);
    if let Ok(trace_id) = HeaderValue::from_str(&trace_id) {
        response.headers_mut().insert(trace::TRACE_ID, trace_id);
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        if surface == Surface::Anthropic {
            let headers = response.headers_mut();
            headers.insert(ANTHROPIC_REQUEST_ID, id.clone());
        }
        response.headers_mut().insert(REQUEST_ID, id);
    }
    trace::spanned(response, span)
}
