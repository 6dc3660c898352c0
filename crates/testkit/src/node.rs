//! A real node inside the test's process, on a free port, with the embedded model.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hearth_engine::{Catalogue, Engine, EngineOptions, ModelOptions};
use hearth_models::{ModelStore, Network};
use hearth_node::{Models, Node, NodeOptions};
use hearth_protocol::status::{ModelLoad, NodeStatus};
use tokio::sync::oneshot;

/// The embedded model's file.
pub fn ember() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/ember/ember.gguf")
}

/// Engine options for tests: one compute thread, a short context, patience while the model loads.
pub fn options() -> EngineOptions {
    EngineOptions {
        model: ModelOptions {
            context: Some(1024),
            threads: Some(1),
            ..ModelOptions::default()
        },
        load_wait: Duration::from_secs(60),
        ..EngineOptions::default()
    }
}

/// The door's limits in tests: bodies of 1 MiB, half a minute for a request's head.
pub fn node_options() -> NodeOptions {
    NodeOptions {
        version: "0.0.0",
        body_limit: 1 << 20,
        head_timeout: Duration::from_secs(30),
        stall_timeout: Duration::from_secs(30),
        store: None,
        memories: None,
        encoders: None,
        models: None,
        listener: None,
        mesh: None,
        log_prompts: false,
    }
}

/// A running node; dropping it stops it.
pub struct TestNode {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    agent: ureq::Agent,
}

impl TestNode {
    /// Starts a node with `ember` under these options.
    ///
    /// # Panics
    /// If it cannot start; a test cannot go on then.
    pub fn start(options: EngineOptions) -> Self {
        Self::with(options, node_options())
    }

    /// As [`TestNode::start`], with other limits of the door.
    ///
    /// # Panics
    /// If it cannot start; a test cannot go on then.
    pub fn with(options: EngineOptions, node: NodeOptions) -> Self {
        Self::over(None, options, node)
    }

    /// As [`TestNode::with`], with the models of a folder beside `ember`.
    ///
    /// # Panics
    /// If it cannot start; a test cannot go on then.
    pub fn over(folder: Option<PathBuf>, options: EngineOptions, node: NodeOptions) -> Self {
        let mut catalogue = Catalogue::new(folder);
        catalogue.register("ember", ember());
        Self::serving(catalogue, options, node)
    }

    /// As [`TestNode::with`], with these models alone.
    ///
    /// # Panics
    /// If it cannot start; a test cannot go on then.
    pub fn serving(catalogue: Catalogue, options: EngineOptions, node: NodeOptions) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, address) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async move {
                let engine = Engine::new(options, catalogue);
                let node = Node::bind(([127, 0, 0, 1], 0).into(), engine, node)
                    .await
                    .expect("a free port");
                ready
                    .send(node.address().expect("an address"))
                    .expect("the test waits");
                let end = async { stopped.await.unwrap_or(()) };
                node.serve(end).await.expect("serving");
            });
        });
        let address = address.recv().expect("the node started");
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = config
            .timeout_global(Some(Duration::from_secs(120)))
            .build()
            .into();
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
            agent,
        }
    }

    /// Starts a node that lets others fetch the models of this store.
    ///
    /// # Panics
    /// If it cannot start; a test cannot go on then.
    pub fn sharing(store: ModelStore) -> Self {
        let models = Models::new(store, Network::default(), true);
        let node = NodeOptions {
            models: Some(models),
            ..node_options()
        };
        Self::with(options(), node)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Address of a route.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Status, headers and body of a GET.
    ///
    /// # Panics
    /// If the node does not answer.
    pub fn get(&self, path: &str) -> Reply {
        Reply::read(self.agent.get(self.url(path)).call())
    }

    /// As [`TestNode::get`], with more headers.
    ///
    /// # Panics
    /// If the node does not answer.
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = self.agent.get(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Reply::read(request.call())
    }

    /// Status, headers and body of a GET as a browser sends it for a page.
    ///
    /// # Panics
    /// If the node does not answer.
    pub fn visit(&self, path: &str) -> Reply {
        let request = self.agent.get(self.url(path));
        Reply::read(request.header("accept", "text/html,*/*;q=0.8").call())
    }

    /// Status, headers and body of a DELETE of these bytes as JSON.
    ///
    /// # Panics
    /// If the node does not answer.
    pub fn delete(&self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        let request = self.agent.delete(self.url(path)).force_send_body();
        let request = request.content_type("application/json");
        Reply::read(request.send(body.as_ref()))
    }

    /// Status, headers and body of a PATCH of these bytes as JSON.
    ///
    /// # Panics
    /// If the node does not answer.
    pub fn patch(&self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        let request = self.agent.patch(self.url(path));
        let request = request.content_type("application/json");
        Reply::read(request.send(body.as_ref()))
    }

    /// Status, headers and body of a POST of these bytes as JSON.
    ///
    /// # Panics
    /// If the node does not answer.
    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        self.post_with(path, &[], body)
    }

    /// As [`TestNode::post`], with more headers.
    ///
    /// # Panics
    /// If the node does not answer.
    pub fn post_with(&self, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Reply {
        let mut request = self.agent.post(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Reply::read(request.content_type("application/json").send(body.as_ref()))
    }

    /// What the node says of itself.
    ///
    /// # Panics
    /// If it does not answer as it should.
    pub fn status(&self) -> NodeStatus {
        serde_json::from_str(&self.get("/status").body).expect("a status")
    }

    /// Counters of the embedded model; zeros while it is not loaded.
    pub fn load(&self) -> ModelLoad {
        self.status()
            .models
            .first()
            .and_then(|model| model.load)
            .unwrap_or_default()
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An answer read whole.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Header names (lower case) and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Reply {
    fn read(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Self {
        let mut response = response.expect("the node answers");
        let headers = response.headers().iter();
        let headers = headers
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("?").to_owned()))
            .collect();
        let status = response.status().as_u16();
        Self {
            status,
            headers,
            body: response.body_mut().read_to_string().expect("a text body"),
        }
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Looks until a condition holds.
///
/// # Panics
/// If it does not within `patience`.
pub fn wait_until(patience: Duration, what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !met() {
        assert!(Instant::now() < deadline, "waited {patience:?} for: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
