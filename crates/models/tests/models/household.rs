//! A hub, a store in a folder of its own, and model files that are real and small.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::Duration;

use hearth_models::{
    Cancel, Error, Model, ModelStore, Network, Progress, Pulled, State, Token, pull,
};
use hearth_testkit::gguf::{Quantisation, Shape, write};
use hearth_testkit::hub::Hub;
use tempfile::TempDir;

/// The repository of every test.
pub const REPO: &str = "org/tiny-GGUF";
/// Bytes of a part.
pub const CHUNK: u64 = 32 << 10;
/// Longer than anything here takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Smaller than the kit's smallest: what happens to a file does not depend on its content.
const SHAPE: Shape = Shape {
    layers: 1,
    vocabulary: 768,
    ..Shape::TINY
};

/// Bytes of a tiny model whose weights follow from the seed.
pub fn tiny(quantisation: Quantisation, seed: u64) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    write(&path, &SHAPE, quantisation, seed).unwrap();
    std::fs::read(path).unwrap()
}

/// The model that most tests pull.
pub fn usual() -> &'static [u8] {
    static USUAL: OnceLock<Vec<u8>> = OnceLock::new();
    USUAL.get_or_init(|| tiny(Quantisation::Q4KM, 1))
}

/// A hub with the usual model, and an empty store.
pub struct House {
    pub hub: Hub,
    pub store: ModelStore,
    folder: TempDir,
}

impl House {
    pub fn new() -> Self {
        let hub = Hub::start();
        hub.add(REPO, "README.md", b"hello".to_vec());
        hub.add(REPO, "tiny-Q4_K_M.gguf", usual().to_vec());
        Self::with(hub)
    }

    /// With the model in a second quantisation.
    pub fn with_two() -> Self {
        let house = Self::new();
        let larger = tiny(Quantisation::Q8_0, 1);
        house.hub.add(REPO, "tiny-Q8_0.gguf", larger);
        house
    }

    pub fn with(hub: Hub) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            hub,
            store: ModelStore::new(folder.path().join("models")),
            folder,
        }
    }

    /// A folder for anything else.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn network(&self) -> Network {
        network(&self.hub.url())
    }

    pub fn pull(&self, name: &str) -> Result<Pulled, Error> {
        self.pull_with(name, &self.network())
    }

    pub fn pull_with(&self, name: &str, network: &Network) -> Result<Pulled, Error> {
        pull(
            &self.store,
            name,
            None,
            network,
            &Cancel::new(),
            &mut |_| {},
        )
    }

    /// Nothing has a name, and no blob is there.
    pub fn assert_nothing_installed(&self) {
        assert_eq!(self.store.list().unwrap(), []);
        assert_eq!(names_in(&self.store.root().join("blobs")), [""; 0]);
    }

    /// The model's file is there, byte for byte, and nothing is left of the way.
    pub fn assert_installed(&self, model: &Model, bytes: &[u8]) {
        assert_eq!(self.store.find(&model.name).unwrap(), *model);
        assert!(std::fs::read(self.store.path(model)).unwrap() == bytes);
        assert_eq!(names_in(&self.store.root().join("partial")), [""; 0]);
    }
}

/// Small parts and short pauses, so that small files take the long way.
pub fn network(hub: &str) -> Network {
    Network {
        hub: hub.to_owned(),
        connections: 4,
        chunk: CHUNK,
        retries: 3,
        backoff: Duration::from_millis(1),
        patience: PATIENCE,
        ..Network::default()
    }
}

pub fn with_token(network: Network, token: &str) -> Network {
    Network {
        token: Token::new(token),
        ..network
    }
}

/// The states that were told, each once in a row.
#[derive(Default)]
pub struct States(pub Vec<State>);

impl States {
    pub fn hear(&mut self, progress: &Progress) {
        if self.0.last() != Some(&progress.state) {
            self.0.push(progress.state);
        }
    }
}

/// A server that answers one request with this status and body and is gone: nobody listens there any more when its
/// client has the answer.
pub fn answer_once(status: &str, body: String) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let status = status.to_owned();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        drop(listener);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
        .unwrap();
    });
    (address, server)
}

/// Names in a folder, sorted; none if it is not there.
pub fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
